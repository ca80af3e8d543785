#!/usr/bin/python3
"""What a log says of forwards: which of them, on which node, by which id, and in which form."""
import json
import re
import shlex
import shutil
import signal
import subprocess
import time

from cable import reset
from forwarding import AUTO, MAPPED, NOWHERE, Backend, ForwardTest, ask, head_for, receive, receive_all
from harness import clean_environment, main, until

NUMBERS = {"up", "down", "name_ms", "open_ms", "total_ms"}


def fields(line):
    """Of a line in text; numbers as such."""
    pairs = [word.split("=", 1) for word in shlex.split(line.split("] ", 1)[1])]
    return {key: float(value) if key in NUMBERS else value for key, value in pairs}


class ForwardLog(ForwardTest):
    def mesh_of(self, which, **more):
        """n2 dials n1; `one` is n1's, `two` n2's, whose log is about which."""
        self.one, self.two = Backend(self).serve(b"one"), Backend(self).serve(b"two")
        gone = f"{self.mesh.net}.200:{NOWHERE}"
        self.n1 = self.mesh.node("n1", services=[f"one:{self.one.address}"], LOG_FORWARDS=which,
                                 INGRESS_ADDR=self.ingress(1, "two"), **more).start()
        self.n2 = self.mesh.node("n2", services=[f"two:{self.two.address}", f"gone:{gone}"], peers=[self.n1],
                                 LOG_FORWARDS=which, **more).start()
        self.mesh.until_agreed()

    def lines(self, node, n=0):
        """Those about forwards, once there are n."""
        def look():
            whole = node.err.read_text().rpartition("\n")[0]
            found = [line for line in whole.splitlines() if "[forward] id=" in line]
            return (found,) if len(found) >= n else None
        return until(f"{n} lines of {node.name}", look)[0]

    @staticmethod
    def names(node):
        return {row["name"] for row in node.reachable().values()}

    def curl(self, *words):
        done = subprocess.run(["curl", "-sS", "--noproxy", "*", "--max-time", "20", *words], capture_output=True,
                              text=True, env=clean_environment(), check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_both_hops_say_the_same_under_one_id(self):
        self.mesh_of("all")
        self.assertEqual(self.curl("-H", "Host: two", f"http://{self.n1.host}:{AUTO}/x"), "two")
        (here,), (there,) = self.lines(self.n1, 1), self.lines(self.n2, 1)
        self.assertTrue(here.startswith("info [forward] id=") and there.startswith("info [forward] id="))
        here, there = fields(here), fields(there)
        self.assertRegex(here["id"], r"^[0-9a-f]{16}$")
        for same in ("id", "name", "client", "port", "end", "up", "down"):
            self.assertEqual(here[same], there[same], same)
        self.assertEqual((here["role"], there["role"]), ("ingress", "owner"))
        self.assertEqual((here["peer"], there["peer"]), ("n2", "n1"))
        self.assertEqual((here.get("backend"), there["backend"]), (None, self.two.address))
        self.assertEqual((here["name"], here["end"], here["port"]), ("two", "done", f"{self.n1.host}:{AUTO}"))
        self.assertEqual(here["up"], len(self.two.served[0]))
        self.assertGreater(here["down"], 3)
        self.assertTrue(0 < here["name_ms"] + here["open_ms"] <= here["total_ms"] < 20000, here)

    def test_redis_over_one_hop_and_two(self):
        if not shutil.which("redis-server"):
            self.skipTest("no redis-server")
        self.mesh_of("all")
        port = 7493
        server = subprocess.Popen(["redis-server", "--bind", f"{self.mesh.net}.200", "--port", str(port), "--save", "",
                                   "--dir", self.mesh.dir], stdout=subprocess.DEVNULL, env=clean_environment())
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        self.n2.local("offer", "cache", f"{self.mesh.net}.200:{port}")
        n3 = self.mesh.node("n3", peers=[self.n1, self.n2], LOG_FORWARDS="all", services=[
            f"own:{self.mesh.net}.200:{port}"], INGRESS_ADDR=self.ingress(3, "cache", "own")).start()
        until("n3 knows all", lambda: {"cache", "own"} <= self.names(n3))

        def redis(to):
            return subprocess.run(["redis-cli", "-h", n3.host, "-p", str(to), "PING"], capture_output=True, text=True,
                                  env=clean_environment(), timeout=20, check=False).stdout
        until("redis answers", lambda: redis(MAPPED + 1) == "PONG\n")
        self.assertEqual(redis(MAPPED), "PONG\n")

        def done(node, name):
            return until(f"{node.name} tells of {name}", lambda: next(
                (f for f in map(fields, self.lines(node)) if f["name"] == name and f["end"] == "done"), None))
        one_hop, two_hops, other = done(n3, "own"), done(n3, "cache"), done(self.n2, "cache")
        self.assertEqual((one_hop.get("peer"), one_hop["backend"]), (None, f"{self.mesh.net}.200:{port}"))
        self.assertEqual(two_hops["id"], other["id"])
        self.assertNotEqual(one_hop["id"], two_hops["id"])
        self.assertGreaterEqual(two_hops["down"], len("+PONG\r\n"))

    def test_errors_are_told_and_nothing_else_and_off_is_silent(self):
        self.mesh_of("errors")
        self.assertEqual(ask(self.connect(self.n1), head_for("two")).text, "two")
        self.connect(self.n1).close()
        self.assertEqual(ask(self.connect(self.n1), head_for("gone")).status, 502)
        self.lines(self.n1, 1)  # two workers tell in no order
        self.assertEqual(ask(self.connect(self.n1), head_for("nobody")).status, 404)
        here, there = self.lines(self.n1, 2), self.lines(self.n2, 1)
        self.assertEqual([line.split()[0] for line in here + there], ["warn"] * 3)
        here, there = [fields(line) for line in here], fields(there[0])
        self.assertEqual([f["end"] for f in here], ["backend_refused", "no_such_name"])
        self.assertEqual(here[0]["why"], "gone at n2: Connection refused")
        self.assertEqual((here[0]["id"], here[0]["peer"]), (there["id"], "n2"))
        self.assertEqual((there["end"], there["why"], there["role"]),
                         ("backend_refused", "Connection refused", "owner"))
        self.assertEqual((here[1]["name"], here[1]["why"]), ("nobody", "nobody offers nobody"))
        n3 = self.mesh.node("n3", INGRESS_ADDR=self.ingress(3), LOG_FORWARDS="off").start()
        self.assertEqual(ask(self.connect(n3), head_for("nobody")).status, 404)
        until("it has ended", lambda: n3.counters()["forward_clients"] == 0)
        self.assertEqual(self.lines(n3), [])

    def test_which_are_told_changes_while_the_node_runs(self):
        file = self.mesh.dir / "n1.yaml"
        file.write_text("log: {forwards: 'off'}\n")
        n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1), MESHD_CONFIG=file).start()
        self.assertEqual(ask(self.connect(n1), head_for("nobody")).status, 404)
        until("it has ended", lambda: n1.counters()["forward_clients"] == 0)
        file.write_text("log: {forwards: errors}\n")
        self.assertEqual(n1.local("reload").stdout, "log.forwards is errors (was off)\n")
        self.assertEqual(ask(self.connect(n1), head_for("other")).status, 404)
        self.assertEqual([fields(line)["name"] for line in self.lines(n1, 1)], ["other"])

    def test_a_level_above_holds_back_what_is_below(self):
        self.mesh_of("all", LOG_LEVEL="error")
        self.assertEqual(ask(self.connect(self.n1), head_for("two")).text, "two")
        self.assertEqual(ask(self.connect(self.n1), head_for("gone")).status, 502)
        until("they have ended", lambda: self.n1.counters()["forward_clients"] == 0)
        for node in (self.n1, self.n2):
            self.assertEqual(node.err.read_text(), "")
            until("maps are no log lines", lambda: "svc_map={total=3}" in node.out.read_text())

    def test_json_has_fields_and_numbers_that_are_numbers(self):
        self.mesh_of("all", LOG_FORMAT="json")
        self.assertEqual(ask(self.connect(self.n1), head_for("two")).text, "two")
        self.assertEqual(ask(self.connect(self.n1), head_for("gone")).status, 502)

        def records(node):
            whole = node.err.read_text().rpartition("\n")[0]
            return [r for r in map(json.loads, whole.splitlines()) if r["room"] == "forward"]
        until("all are told", lambda: len(records(self.n1)) == len(records(self.n2)) == 2)
        for one in records(self.n1) + records(self.n2):
            self.assertEqual(set(one), NUMBERS | {"time", "level", "room", "id", "name", "role", "client", "port",
                                                  "peer", "backend", "end", "why"})
            self.assertTrue(all(isinstance(one[key], (int, float)) for key in NUMBERS), one)
        if not shutil.which("jq"):
            self.skipTest("no jq")
        found = subprocess.run(["jq", "-r", "-s", 'map(select(.room == "forward" and .total_ms > 0)) | group_by(.id)'
                                " | .[] | [.[0].name, (map(.role) | sort | join(\"+\"))] | @tsv",
                                self.n1.err, self.n2.err],
                               capture_output=True, text=True, check=True, env=clean_environment()).stdout
        self.assertEqual(sorted(found.splitlines()), ["gone\tingress+owner", "two\tingress+owner"])

    def test_what_clients_say_cannot_forge_a_line(self):
        self.mesh_of("all")
        for name in (b'a" end=done', b"a\x1b[2J", b"a\\", b"two\xff"):
            with self.connect(self.n1) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: " + name + b"\r\n\r\n")
                receive_all(client)
        for line in self.lines(self.n1, 4):
            self.assertRegex(line, re.compile(r"^[\x20-\x7e]+$"))
            self.assertEqual(fields(line)["end"], "bad_request")

    def test_a_flood_of_clients_that_fail_is_summed_up_also_without_links_and_at_the_end(self):
        self.n1 = self.mesh.node("n1", services=[f"gone:{self.mesh.net}.200:{NOWHERE}"], LOG_FORWARDS="errors",
                                 INGRESS_ADDR=self.ingress(1)).start()
        summed_up = re.compile(
            r"warn \[forward\] forwards that ended with no_such_name: \d+ more such lines were left out")
        begun = time.monotonic()
        for _ in range(300):
            self.assertEqual(ask(self.connect(self.n1), head_for("nobody")).status, 404)
        self.assertEqual(ask(self.connect(self.n1), head_for("gone")).status, 502)
        until("the other end is told", lambda: any("backend_refused" in line for line in self.lines(self.n1)))
        if time.monotonic() - begun < 9:  # before the next 200 could begin
            self.assertEqual(sum("end=no_such_name" in line for line in self.lines(self.n1)), 200)
        until("what was left out is told", lambda: summed_up.search(self.n1.err.read_text()), 20)
        begun = time.monotonic()
        for _ in range(250):
            ask(self.connect(self.n1), head_for("nobody"))
        self.n1.signal(signal.SIGTERM)
        self.assertEqual(self.n1.ended(), 0)
        if time.monotonic() - begun < 9:
            self.assertEqual(len(summed_up.findall(self.n1.err.read_text())), 2)

    def test_a_stream_that_is_broken_off_is_told_by_both(self):
        self.mesh_of("all")
        self.two.close()
        backend = Backend(self)
        self.n2.local("offer", "raw", backend.address)
        until("n1 knows it", lambda: "raw" in self.names(self.n1))
        client = self.connect(self.n1)
        client.sendall(head_for("raw"))
        stream = backend.accept()
        stream.sendall(b"x")  # a reset right after the accept may look like a refusal
        receive(client, 1)
        reset(stream)
        ends = [fields(self.lines(node, 1)[0]) for node in (self.n1, self.n2)]
        self.assertEqual([f["end"] for f in ends], ["backend_reset"] * 2)
        self.assertEqual(ends[0]["id"], ends[1]["id"])
        self.assertEqual(ends[0]["why"], "broken off by n2, which is there: its log says why")

    def test_a_stream_whose_owner_is_gone_is_told_apart_from_one_that_a_backend_broke_off(self):
        self.mesh_of("errors")
        self.two.close()
        backend = Backend(self)
        self.n2.local("offer", "raw", backend.address)
        until("n1 knows it", lambda: "raw" in self.names(self.n1))
        client = self.connect(self.n1)
        client.sendall(head_for("raw"))
        stream = backend.accept()
        stream.sendall(b"x")
        receive(client, 1)
        self.n2.kill()
        end = fields(self.lines(self.n1, 1)[0])
        self.assertEqual((end["end"], end["why"]),
                         ("backend_reset", "the way to n2 broke, or n2 is gone: its link ended, too"))
        self.assertLess(float(end["total_ms"]), 10000)


if __name__ == "__main__":
    main()
