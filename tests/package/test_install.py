#!/usr/bin/python3
"""The installed tree: exactly these files, at their places, and the unit as systemd reads it.

Ends with 77 where a needed program is absent. MESHD_BUILD is the build folder, CMAKE the program.
"""
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

BUILD, SOURCE = pathlib.Path(os.environ["MESHD_BUILD"]), pathlib.Path(os.environ["MESHD_SOURCE"])
CMAKE = os.environ["CMAKE"]
VERSION = next(line.split("=")[1] for line in (BUILD / "CMakeCache.txt").read_text().splitlines()
               if line.startswith("CMAKE_PROJECT_VERSION:"))
LIB = next((line.split("=")[1] for line in (BUILD / "CMakeCache.txt").read_text().splitlines()
            if line.startswith("CMAKE_INSTALL_LIBDIR:")), "lib")

PROGRAMS = ["bin/meshcat", "sbin/meshd", "share/doc/meshd/examples/mesh.py", "share/doc/meshd/examples/wait-for.sh"]
FILES = [
    "include/meshd/client.h",
    "include/meshd/v1/mesh.proto",
    f"{LIB}/cmake/meshd/meshd-config-version.cmake",
    f"{LIB}/cmake/meshd/meshd-config.cmake",
    f"{LIB}/libmeshd.a",
    f"{LIB}/libmeshd.so.{VERSION}",
    f"{LIB}/pkgconfig/meshd.pc",
    "lib/systemd/system/meshd.service",
    "lib/sysusers.d/meshd.conf",
    "share/bash-completion/completions/meshcat",
    "share/bash-completion/completions/meshd",
    "share/doc/meshd/LICENSE",
    "share/doc/meshd/README.md",
    "share/doc/meshd/examples/find.c",
    "share/doc/meshd/examples/offer.c",
    "share/doc/meshd/examples/low-ports.conf",
    "share/doc/meshd/meshd.yaml",
    "share/meshd/monitoring/alerts.yml",
    "share/meshd/monitoring/grafana-dashboard.json",
    "share/man/man1/meshcat.1",
    "share/man/man5/meshd.yaml.5",
    "share/man/man7/meshd-metrics.7",
    "share/man/man8/meshd.8",
]
LINKS = {f"{LIB}/libmeshd.so": "libmeshd.so.0", f"{LIB}/libmeshd.so.0": f"libmeshd.so.{VERSION}"}


def run(*argv, check=True, **env):
    done = subprocess.run([str(a) for a in argv], env={**os.environ, **{k: str(v) for k, v in env.items()}},
                          text=True, capture_output=True)
    if check and done.returncode:
        raise AssertionError(f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def tree(root):
    """Every path below root that is no folder."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}


def expanded(words):
    """The calls of groups, and of groups in them."""
    calls = set()
    for word in words:
        if not word.startswith("@"):
            calls.add(word)
            continue
        lines = run("systemd-analyze", "--no-pager", "syscall-filter", word).stdout.splitlines()[1:]
        calls |= expanded([line.strip() for line in lines if line.strip() and not line.strip().startswith("#")])
    return calls


class Install(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="meshd-"))
        self.addCleanup(shutil.rmtree, self.dir)

    def install(self, prefix, dest=""):
        old = os.umask(0o022)
        try:
            run(CMAKE, "--install", BUILD, "--prefix", prefix, DESTDIR=dest)
        finally:
            os.umask(old)
        return pathlib.Path(f"{dest}{prefix}")

    def looked_at(self, top, prefix, etc):
        self.assertEqual(tree(top), {f"{prefix}{path}" for path in [*PROGRAMS, *FILES, *LINKS]} | {etc})
        for path, target in LINKS.items():
            self.assertEqual(os.readlink(top / f"{prefix}{path}"), target)
        for path in top.rglob("*"):
            mode = stat.S_IMODE(path.lstat().st_mode)
            name = str(path.relative_to(top)).removeprefix(prefix)
            if path.is_symlink():
                continue
            program = path.is_dir() or name in PROGRAMS
            library = name.startswith(f"{LIB}/libmeshd.so.")  # CMake's own choice
            self.assertIn(mode, {0o755} if program else {0o755, 0o644} if library else {0o644}, name)

    def test_a_system_s_tree_has_these_files_and_its_settings_in_etc(self):
        self.install("/usr", self.dir)
        self.looked_at(self.dir, "usr/", "etc/meshd/meshd.yaml")
        unit = (self.dir / "usr/lib/systemd/system/meshd.service").read_text()
        self.assertIn("\nExecStart=/usr/sbin/meshd --config /etc/meshd/meshd.yaml\n", unit)
        self.assertIn("\nExecReload=/usr/bin/meshcat reload\n", unit)
        self.assertNotIn("@", unit.replace("@system-service", "").replace("@privileged", "").replace("@chown", ""))

    def test_a_tree_of_one_s_own_has_all_below_its_prefix(self):
        prefix = self.dir / "own"
        self.install(prefix)
        self.looked_at(prefix, "", "etc/meshd/meshd.yaml")
        unit = (prefix / "lib/systemd/system/meshd.service").read_text()
        self.assertIn(f"\nExecStart={prefix}/sbin/meshd --config {prefix}/etc/meshd/meshd.yaml\n", unit)

    def test_what_nobody_else_wrote_names_no_path_of_the_build(self):
        top = self.install("/usr", self.dir)
        for path in sorted(top.rglob("*")):
            if path.is_file() and not path.is_symlink():
                self.assertNotIn(str(BUILD).encode(), path.read_bytes(), path)

    def test_settings_that_were_edited_stay(self):
        prefix = self.install(self.dir / "own")
        settings = prefix / "etc/meshd/meshd.yaml"
        self.assertEqual(settings.read_bytes(), (SOURCE / "tools/meshd.yaml").read_bytes())
        settings.write_text("peer_name: mine\n")
        self.install(prefix)
        self.assertEqual(settings.read_text(), "peer_name: mine\n")

    def test_the_settings_are_taken_and_tell_every_default(self):
        prefix = self.install(self.dir / "own")
        meshd, settings = prefix / "sbin/meshd", prefix / "etc/meshd/meshd.yaml"
        run(meshd, "--check", settings)
        plain = run(meshd, "--print-config", "--peer-name=n1").stdout
        self.assertEqual(run(meshd, "--print-config", "--peer-name=n1", "-c", settings).stdout, plain)

    def test_systemd_finds_nothing_wrong_with_the_unit(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("there is no systemd-analyze")
        prefix = self.install(self.dir / "own")
        done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no",
                   prefix / "lib/systemd/system/meshd.service")
        self.assertEqual(done.stdout + done.stderr, "")

    def test_the_unit_gives_up_what_it_does_not_need(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("there is no systemd-analyze")
        prefix = self.install(self.dir / "own")
        done = run("systemd-analyze", "security", "--offline=yes", "--threshold=18", "--no-pager",
                   prefix / "lib/systemd/system/meshd.service", check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_unit_lets_the_node_make_every_call_of_its_own_sandbox(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("there is no systemd-analyze")
        source = (SOURCE / "src/daemon/sandbox.c").read_text()
        allowed = re.search(r"allowed\[\] = \{(.*?)\};", source, re.S).group(1)
        calls = set(re.findall(r"SCMP_SYS\((\w+)\)", allowed))
        calls |= {"seccomp", "capset", "setrlimit", "prlimit64"}  # on the way there
        let = set()
        for words in re.findall(r"^SystemCallFilter=(.*)$", (SOURCE / "tools/systemd/meshd.service.in").read_text(), re.M):
            found = expanded(words.lstrip("~").split())
            let = let - found if words.startswith("~") else let | found
        self.assertEqual(calls - let, set())
        self.assertGreater(len(calls), 100)

    def test_systemd_takes_the_user(self):
        if not shutil.which("systemd-sysusers"):
            self.skipTest("there is no systemd-sysusers")
        self.install("/usr", self.dir)
        (self.dir / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (self.dir / "etc/group").write_text("root:x:0:\n")
        run("systemd-sysusers", f"--root={self.dir}", self.dir / "usr/lib/sysusers.d/meshd.conf")
        self.assertRegex((self.dir / "etc/passwd").read_text(), r"\nmeshd:.*:/nonexistent:/usr/sbin/nologin\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
