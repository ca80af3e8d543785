#!/usr/bin/python3
"""man - the manual pages: mandoc finds nothing wrong, and they tell what the programs' own help tells.

    man.py MESHD MESHCAT FOLDER    the programs, and the folder of meshcat.1, meshd.8 and meshd.yaml.5

Every option, command, limit, variable and key that --help prints must stand in the page, and every one
in the page in the help: a page that is not kept up fails here. The page of the file has an example,
which the node must take; pages that are referred to are ours, or known to be elsewhere. Ends with 77
where there is no mandoc.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

MESHD, MESHCAT, FOLDER = sys.argv[1:]
OPTION = re.compile(r"(?<![\w<>/.-])(--[a-z][a-z-]*[a-z]|-[A-Za-z](?![\w-]))")
FROM_OUTSIDE = {"RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
failures = []


def told(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def compare(what, in_help, in_page):
    for name in sorted(in_help - in_page):
        failures.append(f"{what}: {name} is in the help, not in the page")
    for name in sorted(in_page - in_help):
        failures.append(f"{what}: {name} is in the page, not in the help")


def lint(page):
    done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, text=True)
    if done.returncode or done.stdout or done.stderr:
        failures.append(f"{done.stdout}{done.stderr}".strip() or f"{page}: mandoc ends with {done.returncode}")


def options_of_page(text):
    """What stands behind Fl: `Fl c , -config` are -c and --config."""
    found = set()
    for line in text.splitlines():
        for words in re.findall(r"\bFl ((?:-?[A-Za-z][\w-]*(?: [,|] )?)+)", line):
            found |= {"-" + word for word in re.split(r" [,|] ", words.strip(" ,|"))}
    return found


def section(text, name):
    """The part below .Sh or .Ss name, up to the next."""
    return re.search(rf"^\.S[hs] {re.escape(name)}\n(.*?)(?=^\.S[hs] |\Z)", text, re.M | re.S).group(1)


def items(text, macro):
    """The first words of a list's items: `.It Cm lookup Ar name`."""
    return set(re.findall(rf"^\.It {macro} (\S+)", text, re.M))


def check_meshd():
    page = pathlib.Path(FOLDER, "meshd.8")
    lint(page)
    text, usage = page.read_text("utf-8"), told(MESHD, "--help")
    compare("meshd, options", set(OPTION.findall(usage)), options_of_page(text))
    compare("meshd, limits", set(re.findall(r"--limit (\w+)=", usage)), items(section(text, "Limits"), "Cm"))
    variables = set(re.findall(r"variable: ([A-Z_]+)", usage))
    named = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", section(text, "ENVIRONMENT")))
    compare("meshd, variables", variables | FROM_OUTSIDE, named)


def check_file(work):
    page = pathlib.Path(FOLDER, "meshd.yaml.5")
    lint(page)
    text, usage = page.read_text("utf-8"), told(MESHD, "--help")
    keys = {key for key in re.findall(r"file: ([a-z_.]+)", usage) if not key.startswith("limits.")}
    listed = {word for line in re.findall(r"^\.It Ic (.*)", text, re.M) for word in line.split(" , ")}
    entries = set()  # keys of the lists' entries, which the help tells of only in words
    for name in ("Peers", "Services", "Ingress ports", "Policy"):
        entries |= items(section(text, name), "Ic")
    lists = set(re.findall(r"^\.Ic (peers|services|ingress|policy)$", text, re.M))
    compare("meshd.yaml, keys", keys, listed - entries | lists)
    path = pathlib.Path(work, "meshd.yaml")
    path.write_text(re.search(r"^\.Bd -literal.*?\n(.*?)^\.Ed", section(text, "EXAMPLES"), re.M | re.S).group(1))
    done = subprocess.run([MESHD, "--print-config", "-c", path], capture_output=True, text=True)
    if done.returncode:
        failures.append(f"meshd.yaml, the example: {done.stderr}")


def check_commands():
    """Settings that the examples start a node with are such that one starts; their files are not here."""
    text = section(pathlib.Path(FOLDER, "meshd.8").read_text("utf-8"), "EXAMPLES").replace("\\e\n", "")
    found = [line.rstrip(" &") for line in re.findall(r"^\$ (.*\bmeshd\b.*)", text, re.M) if "/" not in line]
    for line in found:
        variables, words = line.split("meshd", 1)
        argv = ["env", "-i", *variables.split(), MESHD, *words.split(), "--print-config"]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            failures.append(f"meshd, the example {line!r}: {done.stderr}")
    if len(found) < 3:
        failures.append(f"meshd, examples: {found}")


def check_references():
    known = {"nngcat 1", "systemd 1", "sd_notify 3", "systemd.service 5"}
    pages = {page.name.rpartition(".")[::2] for page in pathlib.Path(FOLDER).iterdir()}
    for page in sorted(pathlib.Path(FOLDER).iterdir()):
        for name in re.findall(r"^\.Xr (\S+ \d)", page.read_text("utf-8"), re.M):
            if name not in known and tuple(name.split()) not in pages:
                failures.append(f"{page.name}: there is no page {name}")


def check_meshcat():
    page = pathlib.Path(FOLDER, "meshcat.1")
    lint(page)
    text, usage = page.read_text("utf-8"), told(MESHCAT, "--help")
    listed = re.search(r"^Commands:\n(.*?)\n\n", usage, re.M | re.S).group(1)
    commands = set(re.findall(r"^  ([a-z]+)", listed, re.M))
    compare("meshcat, commands", commands, items(section(text, "COMMANDS"), "Cm"))
    helps = [usage] + [told(MESHCAT, command, "--help") for command in sorted(commands)]
    options = {option for one in helps for line in one.splitlines() if re.match(r" +-", line)
               for option in OPTION.findall(line.replace("|", " "))}
    compare("meshcat, options", options, options_of_page(text))


if not shutil.which("mandoc"):
    sys.exit(77)
check_meshd()
check_meshcat()
check_commands()
check_references()
lint(pathlib.Path(FOLDER, "meshd-metrics.7"))
with tempfile.TemporaryDirectory() as folder:
    check_file(folder)
print("\n".join(failures) or "the manual pages tell what the programs tell")
sys.exit(bool(failures))
