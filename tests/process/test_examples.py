#!/usr/bin/python3
"""The programs of tools/examples, as somebody would run them who has nothing but them and meshd."""
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import unittest

from harness import MESHCAT, MeshTest, SLOW, SOURCE, _die_with_parent, clean_environment, main, until
from test_health import PATH, Nginx
from test_strangers import generate

EXAMPLES = SOURCE / "tools" / "examples"


class Examples(MeshTest):
    def setUp(self):
        super().setUp()
        generate(self.mesh.dir)
        self.n1 = self.mesh.node("n1", services=["web:127.0.0.1:80", "db:[::1]:5432"]).start()

    def environment(self):
        return clean_environment() | {"PYTHONPATH": str(self.mesh.dir), "MESHCAT": MESHCAT, "MESHD_ADDR": self.n1.url}

    def start(self, *argv, out):
        process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=out, text=True,
                                   stderr=subprocess.PIPE, env=self.environment(), preexec_fn=_die_with_parent)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def run_example(self, *argv):
        return subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              env=self.environment(), timeout=60 * SLOW, preexec_fn=_die_with_parent)

    # ---- mesh.py ----

    def python(self, *words):
        return ["/usr/bin/python3", "-B", EXAMPLES / "mesh.py", self.n1.host, self.n1.port, *words]

    def test_mesh_py_looks_names_up(self):
        done = self.run_example(*self.python("lookup", "db", "WEB.", "nobody"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout, "db [::1]:5432 n1 (local)\nweb 127.0.0.1:80 n1 (local)\n"
                                      "nobody: nobody offers it\n")
        done = self.run_example(*self.python("lookup"))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, "^status 3: a Lookup takes 1 to 1000 names")

    def test_mesh_py_shows_both_maps_from_all_pages(self):
        count = 12000  # more than one message has room for
        file = self.mesh.dir / "many.yaml"
        file.write_text("services:\n" + "".join(f"- {{name: s-{i:05}, backend: b:{i + 1}}}\n" for i in range(count)))
        n2 = self.mesh.node("n2", peers=[self.n1], MESHD_CONFIG=file, LOG_MAPS="off").start()
        until("its list is there", lambda: self.n1.cat("lookup", f"s-{count - 1}", check=False).returncode == 0)
        done = self.run_example(*self.python("introspect"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        lines = done.stdout.splitlines()
        rows = {line.split()[0] for line in lines if not line.startswith("peer ")}
        self.assertEqual(rows, {"web@local", "db@local"} | {f"s-{i:05}@{n2.host}" for i in range(count)})
        listed = [line.split() for line in lines if line.startswith("peer ")]
        self.assertEqual({tuple(words[1:3]) for words in listed}, {("n2", n2.host)})
        self.assertEqual([name for words in listed for name in words[3:]], [f"s-{i:05}" for i in range(count)])

    def test_mesh_py_watches(self):
        with open(self.mesh.dir / "watch.out", "w+", encoding="utf-8") as out:
            program = self.start(*self.python("watch", "*b*"), out=out)

            def said():
                return (self.mesh.dir / "watch.out").read_text("utf-8").splitlines()
            until("the picture", lambda: any(line.startswith("SYNCED as of revision") for line in said()))
            self.assertEqual(said()[0], "RESYNC: what was told before is void")
            self.assertEqual(sorted(said()[1:-1]), ["UP db@local [::1]:5432", "UP web@local 127.0.0.1:80"])
            for command in (("offer", "blue", "127.0.0.1:1"), ("offer", "green", "127.0.0.1:1"),
                            ("offer", "blue", "127.0.0.1:2"), ("withdraw", "blue")):
                told = len(said())
                self.n1.local(*command)
                if "green" not in command:
                    until(f"{command} is told", lambda: len(said()) > told)
            self.assertEqual([line for line in said()[4:] if "SYNCED" not in line],
                             ["UP blue@local 127.0.0.1:1", "CHANGED blue@local 127.0.0.1:2",
                              "DOWN blue@local 127.0.0.1:2"])
            self.n1.kill()
            self.assertEqual(program.wait(10 * SLOW), 1)
            self.assertRegex(program.stderr.read(), "closed the connection|reset")

    def test_the_readme_shows_parts_of_mesh_py_as_they_are(self):
        program = (EXAMPLES / "mesh.py").read_text("utf-8")
        shown = re.findall(r"```python\n(.*?)```", (SOURCE / "README.md").read_text("utf-8"), re.S)
        self.assertTrue(shown)
        for part in shown:
            self.assertIn(part, program)
        self.assertLessEqual(len(program.splitlines()), 100)

    def test_the_bytes_of_a_watch_are_those_of_the_readme(self):
        text = (SOURCE / "README.md").read_text("utf-8")
        asked, answered = (bytes.fromhex(re.search(rf"^{who} +((?:[0-9a-f]{{2}} +){{8}})", text, re.M).group(1))
                           for who in ("watcher", "node"))
        method = b"/meshd.v1.Registry/Watch"
        header = b"\x0a" + bytes([len(method)]) + method + b"\x20\x01"  # CallHeader: method, wire_version 1
        message = b"\0\0\0\1" + bytes([len(header)]) + header + b"\x1a\x03web"  # WatchRequest: name_glob
        for local in (False, True):
            family, address = ((socket.AF_UNIX, str(self.n1.socket)) if local
                               else (socket.AF_INET, (self.n1.host, self.n1.port)))
            lead = b"\1" if local else b""
            with socket.socket(family) as s:
                s.settimeout(10 * SLOW)
                s.connect(address)
                s.sendall(asked + lead + struct.pack(">Q", len(message)) + message)
                stream = s.makefile("rb")
                self.assertEqual(stream.read(8), answered)
                self.assertEqual(stream.read(len(lead)), lead)
                first = stream.read(struct.unpack(">Q", stream.read(8))[0])
                self.assertEqual(first[:4], b"\0\0\0\1")
                self.assertLess(first[4], 128)
                self.assertIn(b"\x18\x01", first[5 + first[4]:], "WatchReply: resync")

    # ---- C ----

    def compile(self, name, text):
        """A program against the header and the library, and nothing else of the tree."""
        library = pathlib.Path(os.environ["MESHD_LIB"]).parent
        source, program = self.mesh.dir / f"{name}.c", self.mesh.dir / name
        source.write_text(text)
        done = self.run_example("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{SOURCE}/include", source,
                                f"-L{library}", "-lmeshd", f"-Wl,-rpath,{library}", "-o", program)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return program

    @unittest.skipUnless(os.environ.get("MESHD_LIB"), "libmeshd is not built, or with a sanitizer")
    def test_the_c_program_of_the_readme_finds_a_name(self):
        text = re.search(r"```c\n(/\* where\.c.*?)```", (SOURCE / "README.md").read_text("utf-8"), re.S).group(1)
        where = self.compile("where", text)
        done = self.run_example(where, "web")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "127.0.0.1:80\n", ""))
        done = self.run_example(where, "nobody")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertNotEqual(done.stderr, "\n")

    @unittest.skipUnless(os.environ.get("MESHD_LIB"), "libmeshd is not built, or with a sanitizer")
    def test_find_c_finds_names_and_offers_one(self):
        find = self.compile("find", (EXAMPLES / "find.c").read_text("utf-8"))
        done = self.run_example(find, "web", "db")
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (0, "web 127.0.0.1:80 n1\ndb [::1]:5432 n1\n", ""))
        self.assertEqual(self.run_example(find, "web", "nobody").returncode, 1)
        self.assertEqual(self.run_example(find).returncode, 2)
        self.assertEqual(self.run_example(find, "--url", "tcp://127.0.0.1:1", "web").returncode, 3)
        process = subprocess.Popen([find, "--url", f"ipc://{self.n1.socket}", "--offer", "late=127.0.0.1:9"],
                                   stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=self.environment(),
                                   preexec_fn=_die_with_parent)
        until("it is offered", lambda: "late@local" in self.n1.rows())
        process.communicate(b"\n")
        self.assertEqual(process.returncode, 0)
        self.assertNotIn("late@local", self.n1.rows())

    @unittest.skipUnless(os.environ.get("MESHD_LIB"), "libmeshd is not built, or with a sanitizer")
    @unittest.skipUnless(shutil.which("nginx", path=PATH), "nginx is not installed")
    def test_offer_c_keeps_a_service_that_its_node_looks_at(self):
        backend = Nginx(self, "late", 7490)
        n2 = self.mesh.node("n2", peers=[self.n1]).start()
        out = self.mesh.dir / "offer.out"
        with open(out, "wb") as stdout:
            program = subprocess.Popen(
                [self.compile("offer", (EXAMPLES / "offer.c").read_text("utf-8")), "late", backend.address, "http:/healthz"],
                stdin=subprocess.PIPE, stdout=stdout, text=True, preexec_fn=_die_with_parent,
                env=self.environment() | {"MESHD_ADDR": f"ipc://{self.n1.socket}"})
        for end in (program.stdin.close, program.wait, program.kill):
            self.addCleanup(end)

        def told(line):
            until(f"it says: {line}", lambda: out.read_text("ascii").splitlines()[-1:] == [line], 20)
            row = lambda: next((r for r in n2.reachable().values() if r["name"] == "late"), {})
            until(f"n2 sees it {line}", lambda: row().get("healthy") == (not line.startswith("un")) and
                  row().get("draining") == ("draining" in line))

        def say(word):
            program.stdin.write(f"{word}\n")
            program.stdin.flush()

        told("healthy, draining")
        say("ready")
        told("healthy")
        backend.well(False)
        told("unhealthy: answered 503")
        backend.well(True)
        told("healthy")
        backend.kill()
        told("unhealthy: Connection refused")
        say("drain")
        told("unhealthy, draining: Connection refused")
        self.n1.kill()
        self.n1.start()
        told("unhealthy, draining: Connection refused")
        check = self.n1.info()["checks"][0]["check"]
        self.assertEqual((check["path"], check["interval_ms"]), ("/healthz", 500))
        backend.start()
        told("healthy, draining")
        say("ready")
        told("healthy")
        program.stdin.close()
        self.assertEqual(program.wait(60 * SLOW), 0)
        self.assertNotIn("late@local", self.n1.rows())

    # ---- wait-for.sh ----

    def wait_for(self, *words):
        return self.run_example(EXAMPLES / "wait-for.sh", *words)

    def test_wait_for_finds_what_is_there(self):
        for name, answer in (("web", "127.0.0.1 80\n"), ("db", "::1 5432\n")):
            done = self.wait_for(name)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, answer, ""))

    def test_wait_for_waits_until_a_peer_offers_it(self):
        with open(self.mesh.dir / "wait.out", "w+", encoding="utf-8") as out:
            program = self.start(EXAMPLES / "wait-for.sh", "late", "60", out=out)
            self.mesh.node("n2", services=["late:10.0.0.2:8080"], peers=[self.n1]).start()
            self.assertEqual(program.wait(60 * SLOW), 0)
            out.seek(0)
            self.assertEqual(out.read(), "10.0.0.2 8080\n")

    def test_wait_for_does_not_take_what_is_stale(self):
        n2 = self.mesh.node("n2", services=["late:10.0.0.2:8080"], peers=[self.n1]).start()
        row = f"late@{n2.host}"
        until("its link is live", lambda: self.n1.rows().get(row, {}).get("connected"))
        n2.kill()
        until("it is stale", lambda: self.n1.rows().get(row, {"stale": True})["stale"])  # or gone since
        done = self.wait_for("late", "0")
        self.assertEqual((done.returncode, done.stdout), (1, ""))

    def test_wait_for_ends_with_what_is_wrong(self):
        done = self.wait_for("nobody", "1")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(done.stderr, "wait-for: nobody offers nobody after 1 s\n")
        for words in ((), ("web", "1", "2"), ("web", "soon")):
            done = self.wait_for(*words)
            self.assertNotIn(done.returncode, (0, 1, 3, 4), words)
            self.assertEqual(done.stdout, "")
            self.assertNotEqual(done.stderr, "")
        self.n1.kill()
        self.assertEqual(self.wait_for("web", "1").returncode, 3)


if __name__ == "__main__":
    main()
