#!/usr/bin/python3
"""meshcat as people use it: against real nodes, beside nngcat, protoc and jq, on a terminal, with
Ctrl-C."""
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import unittest

from harness import MESHCAT, MeshTest, SLOW, SOURCE, clean_environment, main, until
from test_strangers import load


def run(argv, data=None, **env):
    """A program's (exit code, stdout as bytes, stderr as text)."""
    done = subprocess.run([str(a) for a in argv], input=data, capture_output=True, timeout=60 * SLOW,
                          env={**clean_environment(), **env}, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


def protoc(how, message, data):
    code, out, err = run(["protoc", f"-I{SOURCE}/proto", f"--{how}=meshd.v1.{message}",
                          "meshd/v1/mesh.proto"], data)
    assert code == 0, err
    return out


class Watch:
    """A meshcat watch that runs; its lines come as documents."""

    def __init__(self, node, *args):
        self.process = subprocess.Popen(
            [MESHCAT, "watch", "--dial", node.url, "--format", "json", "--timeout", str(10 * SLOW), *args],
            env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def until(self, change, name=None):
        """All lines up to the next one of that change, and name."""
        lines = []
        while True:
            line = self.process.stdout.readline()
            assert line, f"no {change} came: {lines} {self.process.stderr.read()}"
            lines.append(json.loads(line))
            if lines[-1]["change"] == change and name in (None, lines[-1].get("row", {}).get("name")):
                return lines

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(10 * SLOW), self.process.stderr.read()


class Meshcat(MeshTest):
    def setUp(self):
        super().setUp()
        self.n1 = self.mesh.node("n1", services=["web:127.0.0.1:80", "db:127.0.0.1:5432"]).start()
        self.n2 = self.mesh.node("n2", services=["mq:127.0.0.1:5672"], peers=[self.n1]).start()
        self.mesh.until_agreed()

    def meshcat(self, *args, data=None, **env):
        return run([MESHCAT, "--timeout", 10 * SLOW, *args], data, **env)

    @unittest.skipUnless(os.geteuid() == 0, "only root can be somebody else")
    def test_a_socket_that_is_another_user_s_is_told_as_that(self):
        program = shutil.copy(MESHCAT, self.mesh.dir)  # where everybody finds it
        run_dir = self.n1.socket.parent.parent
        for folder in (self.mesh.dir, run_dir):
            folder.chmod(0o755)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "--timeout", 10 * SLOW]
        env = dict(RUNTIME_DIRECTORY=str(run_dir), PEER_NAME="n1")
        code, out, err = run([*nobody, "drain", "web"], **env)
        self.assertEqual((code, out), (6, b""), err)
        self.assertIn(f"ipc://{self.n1.socket}: Permission denied; run meshcat as the user of meshd", err)
        self.assertNotIn("Permission denied", run([*nobody, "node"], **env)[2], "it asks over TCP")

    def ask(self, *args, **more):
        return self.meshcat("--dial", self.n1.url, *args, **more)

    # ---- explain, call

    def test_explain_says_which_is_chosen_and_why(self):
        code, out, _ = self.ask("explain", "mq", "--format", "json")
        answer = json.loads(out)
        self.assertEqual((code, answer["name"], len(answer["candidates"])), (0, "mq", 1))
        self.assertTrue(answer["candidates"][0]["chosen"])
        self.assertEqual(answer["candidates"][0]["route"]["peer_id"], "n2")
        self.assertEqual(self.ask("explain", "nobody")[0], 1)
        self.assertEqual(self.ask("explain", "a/b")[0], 64 + 3)

    def test_what_became_of_clients_shows_in_node_and_explain(self):
        host = f"{self.mesh.net}.9"
        n3 = self.mesh.node("n3", services=[f"gone:{host}:9"], INGRESS_ADDR=f"{host}:0,{host}:0=gone").start()
        auto, mapped = n3.info()["ingress"]
        self.assertRegex(auto, rf"^{re.escape(host)}:[1-9]\d*$")
        self.assertRegex(mapped, rf"^{re.escape(host)}:[1-9]\d*=gone$")
        self.assertIn(f"ingress        {mapped}\n", n3.cat("node").stdout)
        for name, status in (("gone", b" 502 "), ("nobody", b" 404 ")):
            with socket.create_connection((host, int(auto.rpartition(":")[2])), 10 * SLOW) as client:
                client.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
                self.assertIn(status, client.makefile("rb").readline())
        until("each client has one end", lambda: (c := n3.counters())["forward_clients"] == 0 and c)
        node = json.loads(n3.cat("node", "--format", "json").stdout)
        counters = {c["name"]: c["value"] for c in node["node"]["counters"]}
        limits = {limit["name"]: limit["limit"] for limit in node["limits"]}
        self.assertEqual([counters["forward_" + name] for name in (
            "accepted_http", "end_backend_refused", "end_no_such_name", "end_done")], [2, 1, 1, 0])
        self.assertGreater(counters["forward_name_us_p50"], 0)
        self.assertEqual(counters["forward_open_us_p99"], 0)
        self.assertEqual(limits["ingress_connections"], 100000)
        candidate, = json.loads(n3.cat("explain", "gone", "--format", "json").stdout)["candidates"]
        self.assertEqual((candidate["last_failure"], candidate["active"], candidate["session"]),
                         ("backend_refused", 0, ""))
        self.assertLess(candidate["last_failure_ms_ago"], 60000)

    def test_a_dumped_request_gets_nngcat_its_answer(self):
        pb = load(self.mesh.dir)
        request = self.mesh.dir / "web.req"
        code, out, err = self.ask("call", "Lookup", "-D", 'names: "web"', "--dump-request", request)
        self.assertEqual((code, out, err), (0, b"", ""))
        code, out, err = run(["nngcat", "--req0", "--dial", self.n1.url, "--file", request, "--raw",
                              "--recv-timeout", "10"])
        self.assertEqual((code, err), (0, ""))
        header = pb.ReplyHeader.FromString(out[1:1 + out[0]])
        self.assertEqual((header.status, header.call_id), (0, 1))
        reply = pb.LookupReply.FromString(out[1 + out[0]:].rstrip(b"\n"))
        self.assertEqual([r.backend_addr for r in reply.results[0].routes], ["127.0.0.1:80"])
        self.assertEqual(self.ask("call", "Lookup", "-D", 'names: "web"', "--raw")[1],
                         out[1 + out[0]:])

    def test_call_takes_text_and_bytes_from_files_and_standard_input(self):
        text = b'names: "mq"  # the queue\nmax_routes: 1\n'
        packed = protoc("encode", "LookupRequest", text)
        file = self.mesh.dir / "request"
        file.write_bytes(packed)
        answers = {(code, re.sub(rb"last_seen: \d+", b"", out)) for code, out, _ in (
            self.ask("call", "Lookup", "-F", "-", data=text),
            self.ask("call", "/meshd.v1.Registry/Lookup", "-D", text.decode()),
            self.ask("call", "Lookup", "-F", file, "--input", "binary"),
            self.ask("call", "Lookup", "--file=-", "--input=b", data=packed))}
        self.assertEqual(len(answers), 1)
        code, shown = answers.pop()
        self.assertEqual(code, 0)
        self.assertIn(b'backend_addr: "127.0.0.1:5672"', shown)
        self.assertEqual(self.ask("call", "Offer", "-D", "name:'x' backend_addr:'h:1' lease_id:'x'")[0], 6)

    def test_protoc_reads_every_answer_as_text_and_raw(self):
        for message, args in (("IntrospectReply", ["introspect"]), ("IntrospectReply", ["services"]),
                              ("IntrospectReply", ["peers"]), ("LookupReply", ["lookup", "web", "mq"]),
                              ("ExplainReply", ["explain", "web"])):
            raw, text = self.ask(*args, "--raw")[1], self.ask(*args, "--format", "text")[1]
            shown = protoc("decode", message, raw)
            self.assertEqual(len(shown.splitlines()), len(text.splitlines()))
            self.assertEqual(protoc("decode", message, protoc("encode", message, text)), text)
            self.assertEqual(self.ask(*args, "--format=text", "-q")[1], b"")

    # ---- watch

    def test_watch_tells_what_comes_and_goes_and_goes_on_where_it_was(self):
        with Watch(self.n1) as watch:
            lines = watch.until("synced")
            self.assertEqual(lines[0]["change"], "resync")
            self.assertEqual({l["row"]["key"] for l in lines[1:-1]},
                             {"web@local", "db@local", f"mq@{self.n2.host}"})
            self.n2.local("offer", "late", "127.0.0.1:9")
            up = watch.until("up", "late")[-1]
            self.assertEqual((up["row"]["peer_id"], up["row"]["backend_addr"]), ("n2", "127.0.0.1:9"))
            self.n2.local("withdraw", "late")
            down = watch.until("down", "late")[-1]
            self.assertEqual(down["why"], "withdrawn")
            self.assertEqual(watch.end(signal.SIGINT), (0, ""))
        self.n1.local("offer", "later", "127.0.0.1:9")
        with Watch(self.n1, "--from", f"{down['epoch']}:{down['revision']}") as watch:
            lines = watch.until("up", "later")
            self.assertEqual({l["row"]["name"] for l in lines if "row" in l}, {"later"})
            self.assertEqual(watch.end(signal.SIGTERM), (0, ""))

    def test_watch_of_one_name_tells_nothing_else_and_ends_by_count(self):
        code, out, err = self.ask("watch", "m*", "--peer", "n2", "-C", "1")
        self.assertEqual(code, 0, err)
        self.assertIn(b"  up       mq ", out)
        self.assertNotIn(b"web", out)
        self.assertIn("to go on from here: --from ", err)

    def test_watch_outlives_its_node(self):
        with Watch(self.n2) as watch:
            watch.until("synced")
            self.n2.kill()
            watch.until("away")
            self.n2.start()
            lines = watch.until("synced")
            self.assertIn("resync", {l["change"] for l in lines})
            self.assertEqual(watch.end(signal.SIGINT), (0, ""))

    def test_watch_ends_when_its_reader_leaves(self):
        with Watch(self.n1) as watch:
            watch.until("synced")
            watch.process.stdout.close()
            self.assertEqual(watch.process.wait(10 * SLOW), 0)
            self.assertEqual(watch.process.stderr.read(), "")

    # ---- diff

    def test_diff_is_zero_between_nodes_that_agree_and_one_beyond_a_link(self):
        until("n1 and n2 agree", lambda: self.meshcat("diff", self.n1.url, self.n2.url)[:2] == (0, b""))
        n3 = self.mesh.node("n3", services=["x:127.0.0.1:1"], peers=[self.n2]).start()
        until("n2 knows n3", lambda: "n3" in self.n2.peer_rows())

        def beyond():
            code, out, _ = self.meshcat("diff", f"{self.n1.host}:{self.n1.port}", n3.url, "--format", "json")
            found = {(d["owner"], d["what"], *d["values"]) for d in json.loads(out)["differences"]}
            return code == 1 and found == {("n1", "owner", "connected", None),
                                           ("n3", "owner", None, "connected")}
        until("n1 and n3 know each other not", beyond)

    # ---- how it looks

    def on_terminal(self, *args, **env):
        """What a run with a terminal as its output wrote there."""
        ours, theirs = pty.openpty()
        done = subprocess.Popen([MESHCAT, "--dial", self.n1.url, *args], stdout=theirs,
                                env={**clean_environment(), **env}, stdin=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
        os.close(theirs)
        text = b""
        try:
            while piece := os.read(ours, 4096):
                text += piece
        except OSError:
            pass  # how a terminal ends on Linux
        os.close(ours)
        self.assertEqual(done.wait(10 * SLOW), 0)
        return text

    def test_colours_are_for_terminals_that_have_them(self):
        green = b"\x1b[32mconnected\x1b[0m"
        self.assertIn(green, self.on_terminal("services", TERM="xterm"))
        self.assertIn(b"\x1b[1mNAME\x1b[0m", self.on_terminal("services", TERM="xterm"))
        for env in ({"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}, {}):
            self.assertNotIn(b"\x1b", self.on_terminal("services", **env))
        self.assertNotIn(b"\x1b", self.on_terminal("services", "--color=never", TERM="xterm"))
        self.assertIn(green, self.on_terminal("services", "--color=always", TERM="dumb", NO_COLOR="1"))
        self.assertIn(green, self.on_terminal("services", TERM="xterm", NO_COLOR=""))
        self.assertNotIn(b"\x1b", self.ask("services", TERM="xterm")[1])
        self.assertIn(green, self.on_terminal("watch", "-C3", TERM="xterm"))

    def test_jq_reads_every_json_answer_of_a_real_node(self):
        for args in (["introspect"], ["services"], ["peers"], ["node"], ["ping"], ["lookup", "web", "x"],
                     ["explain", "web"], ["watch", "-C3"], ["call", "Introspect"], ["services", "-C2", "-i.01"]):
            for form in ("json", "jsonl"):
                code, out, err = self.ask(*args, "--format", form)
                self.assertIn(code, (0, 7), err)
                self.assertEqual(err, "")
                self.assertEqual(run(["jq", "-e", "."], out)[0], 0, out)
        code, out, err = self.meshcat("diff", self.n1.url, "tcp://127.0.0.1:1", "--format", "json")
        self.assertEqual((code, out), (3, b""))
        self.assertEqual(run(["jq", "-e", ".error.exit == 3"], err.encode())[0], 0, err)

    def test_peers_count_the_same_in_every_format(self):
        code, out, _ = self.ask("peers")
        self.assertEqual((code, out.split(b"\n")[1].split()[:4]),
                         (0, [self.n2.host.encode(), b"n2", b"connected", b"1"]))
        self.assertEqual(self.ask("peers", "--name", "m*")[1].split(b"\n")[1].split()[3], b"1")
        row = json.loads(self.ask("peers", "--format", "jsonl")[1])
        self.assertEqual((row["services_total"], row["services"][0]["name"]), (1, "mq"))


if __name__ == "__main__":
    main()
