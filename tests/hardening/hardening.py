#!/usr/bin/python3
"""hardening - what the compiler and the linker were told to do is in the installed programs and library.

    hardening.py BUILD     installs BUILD into a folder of its own and looks at each file with readelf
    hardening.py SELF      builds programs that lack one thing each, and demands that each lack is found

The environment names CMAKE, CC, READELF, OBJDUMP; FORTIFIED is 0 in a build without optimisation. Each
check is a function of ELF that returns what is wrong, or None.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

CC, READELF, OBJDUMP = (os.environ[name] for name in ("CC", "READELF", "OBJDUMP"))
FORTIFIED = os.environ.get("FORTIFIED", "1") == "1"
GOOD = ["-O2", "-fPIE", "-pie", "-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2",
        "-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack"]
CF = ["-fcf-protection=full"]  # x86 only
# Of the compiler and libc, not of this build: they may have been built without endbr64.
NOT_OURS = re.compile(r"_start|_init|_fini|_dl_relocate_static_pie|__libc_csu_\w+|atexit|stat|f?stat(64)?")


def told(*argv, **more):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"},
                          **more)
    if done.returncode:
        sys.exit(f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Elf:
    def __init__(self, path):
        self.path = path
        self.header = told(READELF, "-hW", path)
        self.segments = told(READELF, "-lW", path)
        self.dynamic = told(READELF, "-dW", path)
        self.notes = told(READELF, "-nW", path)
        symbols = [line.split() for line in told(READELF, "--dyn-syms", "-W", path).splitlines()]
        self.imports = {f[7].split("@")[0] for f in symbols if len(f) > 7 and f[6] == "UND"}
        self.x86 = "X86-64" in self.header
        self.library = ".so" in path.name

    def marked(self):
        return bool(re.search(r"x86 feature: (?=.*IBT)(?=.*SHSTK)", self.notes))


def not_position_independent(elf):
    if not re.search(r"Type:\s+DYN", elf.header):
        return "is not of type DYN: it is not position independent"
    if not elf.library and not re.search(r"FLAGS_1.*\bPIE\b", elf.dynamic):
        return "has no PIE flag"
    return None


def not_read_only_after_start(elf):
    if "GNU_RELRO" not in elf.segments:
        return "has no GNU_RELRO segment"
    if not re.search(r"\(FLAGS\).*BIND_NOW|FLAGS_1\).*\bNOW\b", elf.dynamic):
        return "is not bound at start: its table of functions stays writable"
    return None


def stack_executable(elf):
    stack = re.search(r"GNU_STACK(?:\s+0x\w+){5}\s+(\S+)", elf.segments)
    if not stack:
        return "has no GNU_STACK segment: its stack may be executable"
    return "has an executable stack" if "E" in stack[1] else None


def writable_and_executable(elf):
    return "has a segment that is writable and executable" if re.search(r"LOAD.* RWE ", elf.segments) else None


def stack_not_protected(elf):
    return None if "__stack_chk_fail" in elf.imports else "does not import __stack_chk_fail"


def not_fortified(elf):
    if not FORTIFIED or any(re.fullmatch(r"__\w+_chk", name) for name in elf.imports):
        return None
    return "imports none of libc's __*_chk functions"


def searches_elsewhere(elf):
    path = re.search(r"\((RPATH|RUNPATH)\).*", elf.dynamic)
    return f"has a {path[1]}" if path else None


def text_relocated(elf):
    return "has relocations in its text" if "TEXTREL" in elf.dynamic else None


CHECKS = [not_position_independent, not_read_only_after_start, stack_executable, writable_and_executable,
          stack_not_protected, not_fortified, searches_elsewhere, text_relocated]


def without_endbr(elf):
    """Global functions that do not begin with endbr64: jumps to them could not be told from others."""
    where = ["--dyn-syms"] if elf.library else ["--syms"]
    symbols = [line.split() for line in told(READELF, "-W", *where, elf.path).splitlines()]
    ours = {int(f[1], 16): f[7].split("@")[0] for f in symbols
            if len(f) > 7 and f[3] == "FUNC" and f[4] == "GLOBAL" and f[6] != "UND"
            and not NOT_OURS.fullmatch(f[7].split("@")[0])}
    code = told(OBJDUMP, "-d", "--no-show-raw-insn", "-j", ".text", elf.path)
    begins = {int(address, 16) for address in re.findall(r"^\s+(\w+):\s+endbr64", code, re.M)}
    return sorted(name for address, name in ours.items() if address not in begins), len(ours)


PROGRAM = """#include <stdio.h>
#include <string.h>
int say(const char *s);
int say(const char *s) { char b[64]; strcpy(b, s); return puts(b); }
int main(int n, char **a) { return say(a[n - 1]); }
"""
WRITABLE_TEXT = '__asm__(".section .both,\\"awx\\",@progbits\\n.byte 0\\n.text");\n'


def build(folder, name, flags, source=PROGRAM):
    """A small program with something to protect."""
    path = folder / name
    told(CC, "-x", "c", "-", "-o", path, *flags, input=source)
    return Elf(path)


def linker_marks(folder):
    """Whether the crt objects of this system let the mark through, and if not, which lack it."""
    tiny = build(folder, "marked", GOOD + CF)
    lacking = []
    for name in ("Scrt1.o", "crti.o", "crtn.o", "crtbeginS.o", "crtendS.o"):
        path = told(CC, f"-print-file-name={name}").strip()
        if not re.search(r"x86 feature: .*IBT", told(READELF, "-nW", path)):
            lacking.append(name)
    return tiny.marked(), lacking


def check_marks(elf, marks, lacking):
    """IBT and SHSTK. The linker sets the mark only if every object has it, the system's own too."""
    naked, looked_at = without_endbr(elf)
    if naked or not looked_at:
        return f"{len(naked)} of {looked_at} functions do not begin with endbr64: {', '.join(naked[:5])}"
    if marks and not elf.marked():
        return "is not marked IBT and SHSTK, as this system's crt objects would allow"
    if elf.marked():
        print(f"ok: {elf.path.name}: marked IBT and SHSTK")
    else:
        print(f"ok: {elf.path.name}: not marked IBT and SHSTK, because the system's {', '.join(lacking)} are not; "
              f"all {looked_at} functions that can be reached from outside their file begin with endbr64")
    return None


def check_build(build_folder):
    wrong = []
    with tempfile.TemporaryDirectory(prefix="meshd-") as name:
        prefix = pathlib.Path(name, "prefix")
        told(os.environ["CMAKE"], "--install", build_folder, "--prefix", prefix)
        files = sorted(f for f in prefix.rglob("*") if f.is_file() and not f.is_symlink()
                       and f.read_bytes()[:4] == b"\x7fELF")
        found = {f.name.split(".so")[0] for f in files}
        if found != {"meshd", "meshcat", "libmeshd"}:
            wrong.append(f"installed are {', '.join(sorted(found))}")
        for elf in map(Elf, files):
            faults = [fault for fault in (check(elf) for check in CHECKS) if fault]
            if elf.x86:
                faults += filter(None, [check_marks(elf, *linker_marks(pathlib.Path(name)))])
            wrong += [f"{elf.path.name} {fault}" for fault in faults]
            if not faults:
                print(f"ok: {elf.path.name}")
    return wrong


def self_test():
    faults = [  # what is taken away or added, and who must find it, alone
        ("no PIE", ["-no-pie", "-fno-PIE"], not_position_independent),
        ("a shared object in a program's place", ["-shared", "-fPIC"], not_position_independent),
        ("no RELRO", ["-Wl,-z,norelro"], not_read_only_after_start),
        ("bound late", ["-Wl,-z,lazy"], not_read_only_after_start),
        ("an executable stack", ["-Wl,-z,execstack"], stack_executable),
        ("a writable text", [WRITABLE_TEXT], writable_and_executable),
        ("no stack protector", ["-fno-stack-protector"], stack_not_protected),
        ("not fortified", ["-U_FORTIFY_SOURCE"], not_fortified),
        ("an RPATH", ["-Wl,--disable-new-dtags,-rpath,/nowhere"], searches_elsewhere),
        ("a RUNPATH", ["-Wl,--enable-new-dtags,-rpath,/nowhere"], searches_elsewhere),
        ("relocations in the text", ["-shared", "-fno-PIC", "-fno-PIE", "-mcmodel=large", "-Wl,-z,notext"],
         text_relocated),
    ]
    wrong = []
    with tempfile.TemporaryDirectory(prefix="meshd-") as name:
        folder = pathlib.Path(name)
        good = build(folder, "good", GOOD)
        wrong += [f"the good program {fault}" for fault in (check(good) for check in CHECKS) if fault]
        for what, flags, finder in faults:
            if "-mcmodel=large" in flags and not good.x86:
                continue
            source = "".join(f for f in flags if not f.startswith("-")) + PROGRAM
            fault = finder(build(folder, "bad", GOOD + [f for f in flags if f.startswith("-")], source))
            print(f"ok: {what}: {fault}" if fault else f"not ok: {what} was not found")
            wrong += [] if fault else [what]
        if good.x86:
            naked, _ = without_endbr(build(folder, "naked", GOOD + ["-fcf-protection=none"]))
            dressed, looked_at = without_endbr(build(folder, "dressed", GOOD + CF))
            if naked != ["main", "say"] or dressed or looked_at != 2:
                wrong.append(f"without endbr64: {naked} and {dressed} of {looked_at}")
            elf = build(folder, "unmarked", GOOD + CF)
            elf.notes = ""  # whatever this system's crt objects would give it
            if check_marks(elf, True, []) is None:
                wrong.append("a program without marks was not found")
            elf.notes = "      Properties: x86 feature: IBT, SHSTK"
            if check_marks(elf, True, []):
                wrong.append("a marked program was refused")
    return wrong


def main():
    wrong = self_test() if sys.argv[1] == "SELF" else check_build(sys.argv[1])
    for line in wrong:
        print(f"not ok: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
