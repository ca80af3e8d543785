#!/usr/bin/python3
"""What bash completes, in a real bash with bash-completion, against the programs and a real node.

Ends with 77 where there is no bash-completion.
"""
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "process"))
from harness import MESHCAT, MESHD, Mesh, MeshTest, SOURCE, _die_with_parent, clean_environment, main, until  # noqa: E402

LIBRARY = pathlib.Path("/usr/share/bash-completion/bash_completion")
FOLDER = SOURCE / "tools" / "completion"
SCRIPT = """
set -u; set +u  # bash-completion itself does not stand -u
. {library}; . {file} || exit
compopt() {{ :; }}  # there is no line editor here
COMP_WORDS=({words}) COMP_CWORD={last} COMP_LINE={line} COMP_POINT=${{#COMP_LINE}} COMP_TYPE=9
{function} {program} {cur} {prev}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def broken(line):
    """The words as readline has them: "=" and ":" are words of their own."""
    words = []
    for word in line.split(" "):
        words += [w for w in re.split(r"([=:]+)", word) if w] or [""]
    return words


class Completion(MeshTest):
    @classmethod
    def setUpClass(cls):
        cls.mesh_of_class = Mesh()
        cls.addClassCleanup(cls.mesh_of_class.close)
        cls.node = cls.mesh_of_class.node("n1", services=["web:127.0.0.1:80", "web-two:127.0.0.1:81", "db:[::1]:82", "*.example.org:127.0.0.1:84"]).start()

    def completed(self, name, line):
        """What TAB offers at the end of the line."""
        program = {"meshd": MESHD, "meshcat": MESHCAT}[name]
        words = [program, *broken(line)]
        script = SCRIPT.format(
            library=LIBRARY, file=FOLDER / name, function=f"_{name}", program=quoted(program),
            words=" ".join(map(quoted, words)), last=len(words) - 1, line=quoted(f"{program} {line}"),
            cur=quoted(words[-1]), prev=quoted(words[-2]))
        done = subprocess.run(["bash", "--norc", "-c", script], text=True, capture_output=True, cwd=self.mesh.dir,
                              env=clean_environment() | {"MESHD_ADDR": self.node.url}, preexec_fn=_die_with_parent)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return set(done.stdout.split("\n")) - {""}

    def help(self, *argv):
        return subprocess.run([*argv, "--help"], check=True, text=True, capture_output=True).stdout

    def test_commands_are_those_of_the_help(self):
        listed = re.search(r"^Commands:\n(.*?)\n\n", self.help(MESHCAT), re.M | re.S).group(1)
        commands = set(re.findall(r"^  ([a-z]+)", listed, re.M))
        self.assertEqual(self.completed("meshcat", ""), commands)
        self.assertEqual(self.completed("meshcat", "-v serv"), {"services"})

    def test_options_are_those_of_the_command(self):
        for command in ("", "services", "offer", "ca"):
            usage = self.help(MESHCAT, *command.split())
            options = {word for line in usage.splitlines() if re.match(r" +-", line)
                       for word in re.findall(r"(?<![\w-])--?[A-Za-z][a-z-]*", re.split(r"  +", line.strip())[0])}
            self.assertEqual(self.completed("meshcat", f"{command} -".lstrip()), options, command)
        self.assertEqual(self.completed("meshcat", "services --tim"), {"--timeout"})

    def test_words_of_choice_are_completed_behind_space_and_equals(self):
        formats = {"table", "json", "jsonl", "text", "raw", "hex", "quoted", "ascii"}
        self.assertEqual(self.completed("meshcat", "services --format "), formats)
        self.assertEqual(self.completed("meshcat", "services --format=js"), {"json", "jsonl"})
        self.assertEqual(self.completed("meshcat", "--color "), {"auto", "always", "never"})
        self.assertEqual(self.completed("meshcat", "call --input "), {"text", "binary"})
        self.assertEqual(self.completed("meshcat", "offer --proxy-protocol "), {"v1", "v2", "off"})
        self.assertEqual(self.completed("meshcat", "offer --check "), {"tcp", "http:/"})
        self.assertEqual(self.completed("meshcat", "offer --check htt"), {"http:/"})
        states = self.completed("meshcat", "services --state ")
        self.assertGreaterEqual(states, {"connected", "stale", "draining"})
        for state in states:
            self.assertIn(self.node.cat("services", "--state", state, check=False).returncode, (0, 1), state)

    def test_every_choice_offered_is_taken_by_the_program(self):
        for option, command in (("--format", "services"), ("--color", "services")):
            for word in self.completed("meshcat", f"{command} {option} "):
                self.assertEqual(self.node.cat(command, option, word, text=False).returncode, 0, word)

    def test_names_of_services_are_asked_of_the_node(self):
        self.assertEqual(self.completed("meshcat", "lookup we"), {"web", "web-two"})
        self.assertEqual(self.completed("meshcat", "lookup db web-"), {"web-two"})
        self.assertEqual(self.completed("meshcat", "explain "), {"web", "web-two", "db", "*.example.org"})
        self.assertEqual(self.completed("meshcat", "explain web "), set())
        (self.mesh.dir / "www.example.org").touch()  # a name is no pattern of files
        self.assertEqual(self.completed("meshcat", "explain *"), {"*.example.org"})
        self.assertEqual(self.completed("meshcat", "services --name d"), {"db"})

    def test_the_node_that_the_line_names_is_asked(self):
        other = self.mesh.node("n2", services=["cache:127.0.0.1:83"]).start()
        self.assertEqual(self.completed("meshcat", f"--dial {other.url} lookup "), {"cache"})
        self.assertEqual(self.completed("meshcat", f"lookup -x {other.socket} "), {"cache"})
        other.kill()
        self.assertEqual(self.completed("meshcat", f"--dial {other.url} lookup "), set())

    def test_only_a_service_of_the_node_itself_is_drained(self):
        other = self.mesh.node("n2", services=["cache:127.0.0.1:83"], peers=[self.node]).start()
        until("it knows others", lambda: len(other.reachable()) > 1)
        for command in ("withdraw", "drain", "enable"):
            self.assertEqual(self.completed("meshcat", f"-x {other.socket} {command} "), {"cache"})
        self.assertIn("web", self.completed("meshcat", f"-x {other.socket} explain "))

    def test_words_of_ca_and_files(self):
        self.assertEqual(self.completed("meshcat", "ca "), {"init", "issue", "revoke", "show"})
        (self.mesh.dir / "some.pem").touch()
        self.assertEqual(self.completed("meshcat", "--cacert so"), {"some.pem"})
        self.assertEqual(self.completed("meshd", "--tls-key so"), {"some.pem"})
        self.assertEqual(self.completed("meshd", "-c so"), {"some.pem"})

    def test_flags_of_the_daemon_are_those_of_its_help(self):
        usage = self.help(MESHD)
        flags = set(re.findall(r"(?<![\w<>/.-])(--[a-z][a-z-]*[a-z]|-[A-Za-z](?![\w-]))", usage))
        self.assertEqual(self.completed("meshd", "-"), flags)
        self.assertEqual(self.completed("meshd", "--log-f"), {"--log-format", "--log-forwards"})

    def test_words_of_the_daemon_s_flags(self):
        self.assertEqual(self.completed("meshd", "--log-level "), {"error", "warn", "info", "debug"})
        self.assertEqual(self.completed("meshd", "--log-maps=s"), {"summary"})
        self.assertEqual(self.completed("meshd", "--sandbox="), {"true", "false"})
        self.assertIn("--bind", self.completed("meshd", "--sandbox "))
        self.assertEqual(self.completed("meshd", "--peer-name "), set())
        limits = set(re.findall(r"--limit (\w+=)", self.help(MESHD)))
        self.assertEqual(self.completed("meshd", "--limit "), limits)
        self.assertEqual(self.completed("meshd", "--user roo"), {"root"})

    def test_bash_finds_them_by_themselves(self):
        share = self.mesh.dir / "share"
        shutil.copytree(FOLDER, share / "bash-completion" / "completions")
        for name in ("meshd", "meshcat"):
            done = subprocess.run(["bash", "--norc", "-c", f". {LIBRARY}; _completion_loader {name}; complete -p {name}"],
                                  text=True, capture_output=True, env=clean_environment() | {"XDG_DATA_DIRS": str(share)})
            self.assertEqual((done.stdout, done.stderr), (f"complete -F _{name} {name}\n", ""))


if __name__ == "__main__":
    if not LIBRARY.exists():
        print("there is no bash-completion here")
        sys.exit(77)
    main()
