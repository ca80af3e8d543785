#!/usr/bin/python3
"""Mutual TLS: a mesh in three commands, everything over it, and who is turned away. After each of
those the node goes on as before, and the counter that says what happened has grown."""
import json
import re
import shutil
import socket
import subprocess
import unittest

from forwarding import KINDS, Backend, receive
from harness import MESHCAT, PORT, _die_with_parent, clean_environment, main, until
from mtls import Authority, SecureNode, TrustTest, openssl, preamble, replace, RPC, Refused, answered

HELLO = bytes.fromhex("0053500000300000")  # SP, REQ
HELLO_BACK = bytes.fromhex("0053500000310000")


def run(*argv, env=None, input=None, check=True, cwd=None):
    return subprocess.run([str(a) for a in argv], input=input, capture_output=True, check=check, cwd=cwd,
                          env=clean_environment() | (env or {}), preexec_fn=_die_with_parent, timeout=60)


class Whole(TrustTest):
    def test_a_mesh_of_three_in_three_commands(self):
        run(MESHCAT, "ca", "init", cwd=self.mesh.dir)
        run(MESHCAT, "ca", "issue", "n1", "n2", "n3", cwd=self.mesh.dir)
        made = self.mesh.dir / "meshd-ca"
        nodes = []
        for n in ("n1", "n2", "n3"):
            settings = {"PEER_TLS_CA": made / "ca.pem", "PEER_TLS_CERT": made / f"{n}.pem",
                        "PEER_TLS_KEY": made / f"{n}-key.pem"}
            nodes.append(self.mesh.node(n, services=[f"s-{n}:127.0.0.1:80"], peers=list(nodes), tls=False,
                                        **settings).start())
        self.mesh.until_agreed()
        for node in nodes:
            info = node.info()
            self.assertEqual({row["state"] for row in info["links"]}, {"live"})
            self.assertTrue(all(row["tls"] for row in info["links"]))
            self.assertEqual(info["tls"]["names"], [node.name])
            self.assertNotIn("PRIVATE", json.dumps(info))
            self.assertRegex(node.err.read_text(), rf"TLS: certificate of {node.name}, valid until 20\d\d-\d\d-\d\d \(\d+ days\)")

    def test_everything_works_over_it(self):
        self.pair()
        row = self.n1.until_live(self.n2)
        self.assertTrue(row["tls"])
        self.each_flow(self.ALL, KINDS, self.passes)
        for way in self.REMOTE.values():
            with self.subTest(bulk=way):
                self.passes(self.flow(way, "port"), 8 << 20)
        for way in self.REMOTE.values():  # one direction ends, the other goes on
            flow = self.flow(way, "port")
            flow.client.sendall(b"question")
            flow.client.shutdown(socket.SHUT_WR)
            self.assertEqual(receive(flow.backend, 8), b"question")
            self.assertEqual(flow.backend.recv(1), b"")
            flow.backend.sendall(b"answer")
            flow.backend.close()
            self.assertEqual(receive(flow.client, 6), b"answer")
            self.assertEqual(flow.client.recv(1), b"")
        counters = self.n1.counters()
        self.assertGreater(counters["gate_tls_handshakes"], 0)
        self.assertEqual(counters["gate_closed_plaintext"], 0)
        self.assertGreater(counters["forward_data_accepted"], 0)
        self.n2.local("offer", "late", "127.0.0.1:9")
        until("an offer travels", lambda: any(r["name"] == "late" for r in self.n1.rows().values()))

    def test_meshcat_asks_and_watches_over_it(self):
        self.pair()
        me = self.ca.issue("somebody")
        env = {"PEER_TLS_CA": self.ca.cert, "PEER_TLS_CERT": me.cert, "PEER_TLS_KEY": me.key}
        for command in (["lookup", "two"], ["introspect"], ["explain", "two"], ["node"], ["ping"]):
            done = run(MESHCAT, "--dial", self.n1.tls_url, *command, env=env)
            self.assertEqual(done.stderr, b"", command)
        done = run(MESHCAT, "--dial", self.n1.tls_url, "watch", "two", "-C", "1", env=env)
        self.assertIn(b"two", done.stdout)

    def test_settings_that_will_not_do_are_told_with_what_to_do(self):
        other = self.ca.issue("n9")
        node = self.mesh.node("n1", leaf=other).spawn()
        self.assertEqual(node.ended(), 1)
        self.assertRegex(node.log(), r"environment PEER_TLS_CERT: .*cert\.pem .*'n1'.*'n9'")
        node = self.mesh.node("n2", leaf=self.ca.issue("n2", begin=-86400, end=-60)).spawn()
        self.assertEqual(node.ended(), 1)
        self.assertRegex(node.log(), r"environment PEER_TLS_CERT: .*cert\.pem .*expired")
        node = self.mesh.node("n3", PEER_TLS_KEY=None).spawn()
        self.assertEqual(node.ended(), 2)
        self.assertIn("tls.ca is set, and tls.key is not", node.log())
        node = self.mesh.node("n4", flags=["--check"]).spawn()
        self.assertEqual(node.ended(), 0, node.log())
        self.assertIn("TLS: certificate of n4, valid until", node.out.read_text())
        node.files.key.write_text("nothing")
        node.spawn()
        self.assertEqual(node.ended(), 2)
        self.assertIn(str(node.files.key), node.log())

    def test_what_ends_soon_and_keys_that_others_may_read_are_warned_of(self):
        node = self.mesh.node("n1", leaf=self.ca.issue("n1", end=86400 * 5 + 60), PEER_INSECURE="true")
        node.files.key.chmod(0o644)
        node.start()
        self.assertRegex(node.log(), r"warn \[tls\] this node's certificate ends on .*, in 5 days: .*issue n1")
        self.assertIn(f"warn [tls] {node.files.key}: others than its owner may read the private key", node.log())
        self.assertIn("insecure has no effect: there is TLS", node.log())


class Strangers(TrustTest):
    def setUp(self):
        super().setUp()
        self.pair()
        for node in (self.n1, self.n2):
            node.until_live(self.n2 if node is self.n1 else self.n1)

    def s_client(self, *more, leaf=None, node=None, send=b"", alpn="meshd/1", ca=None):
        """What stock openssl says of its connection, until the node ends it or has said 8 bytes."""
        node = node or self.n1
        argv = ["openssl", "s_client", "-connect", f"{node.host}:{node.port}", "-CAfile", (ca or self.ca).cert,
                "-verify_return_error", "-quiet", *more]
        if alpn:
            argv += ["-alpn", alpn]
        if leaf:
            argv += ["-cert", leaf.cert, "-key", leaf.key]
        process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=clean_environment(), preexec_fn=_die_with_parent)
        try:
            process.stdin.write(send)
            process.stdin.flush()
            got = process.stdout.read(8)
        except BrokenPipeError:
            got = b""
        finally:
            process.kill()
            err = process.communicate()[1].decode()
        return got, err

    def test_a_stock_client_with_a_certificate_of_the_mesh_is_let_in(self):
        leaf = self.ca.issue("somebody")
        with self.counted(self.n1, "gate_tls_handshakes"):
            got, err = self.s_client("-tls1_3", leaf=leaf, send=HELLO)
            self.assertEqual(got, HELLO_BACK, err)

    def test_who_cannot_show_one_is_turned_away(self):
        other = Authority(self.mesh.dir / "other")
        rows = {
            "no certificate": ("no_certificate", {}),
            "another CA": ("untrusted", {"leaf": other.issue("n2")}),
            "expired": ("expired", {"leaf": self.ca.issue("n2", begin=-86400, end=-60)}),
            "not valid yet": ("expired", {"leaf": self.ca.issue("n2", begin=3600)}),
            "for servers alone": ("untrusted", {"leaf": self.ca.issue("n2", usage="serverAuth")}),
            "no ALPN": ("broken", {"leaf": self.ca.issue("n2"), "alpn": None}),
            "another ALPN": ("broken", {"leaf": self.ca.issue("n2"), "alpn": "http/1.1"}),
        }
        for what, (why, settings) in rows.items():
            with self.subTest(what), self.counted(self.n1, f"gate_tls_failed_{why}", exactly=1):
                got, err = self.s_client("-tls1_3", send=HELLO, **settings)
                self.assertEqual(got, b"", err)
        with self.subTest("TLS 1.2"), self.counted(self.n1, "gate_tls_failed_broken", exactly=1):
            got, err = self.s_client("-tls1_2", leaf=self.ca.issue("n2"), send=HELLO)
            self.assertEqual(got, b"")
            self.assertIn("protocol version", err)

    def test_the_client_finds_out_who_the_node_is(self):
        done = openssl("s_client", "-connect", f"{self.n1.host}:{self.n1.port}", "-CAfile", self.ca.cert,
                       "-verify_hostname", "n1", "-verify_return_error", "-alpn", "meshd/1", "-brief",
                       "-cert", self.n2.files.cert, "-key", self.n2.files.key, input=b"Q\n")
        self.assertIn(b"Verification: OK", done.stderr)
        self.assertIn(b"Protocol version: TLSv1.3", done.stderr)

    def test_plaintext_is_closed_and_counted(self):
        where = f"{self.n1.host}:{self.n1.port}"
        rows = {
            "meshcat": lambda: self.assertNotEqual(
                run(MESHCAT, "--dial", f"tcp://{where}", "--timeout", "5", "ping", check=False).returncode, 0),
            "curl": lambda: self.assertNotEqual(
                run("curl", "-s", "-m", "5", f"http://{where}/", check=False).returncode, 0),
            "nngcat": lambda: run("nngcat", "--req0", "--dial", f"tcp://{where}", "--data", "x", "--recv-timeout",
                                  "1", check=False),
            "a peer's preamble": lambda: self.closes(preamble(RPC, "n2")),
        }
        for what, act in rows.items():
            with self.subTest(what), self.counted(self.n1, "gate_closed_plaintext"):
                act()

    def closes(self, data):
        with socket.create_connection((self.n1.host, self.n1.port), 10) as sock:
            sock.sendall(data)
            try:
                self.assertEqual(sock.recv(1), b"")
            except ConnectionResetError:
                pass

    def test_tls_on_a_plaintext_port_is_closed_and_counted(self):
        n3 = self.mesh.node("n3", tls=False).start()
        before = n3.counters()["gate_closed_bad_first_bytes"]
        got, _ = self.s_client("-tls1_3", leaf=self.ca.issue("n2"), node=n3, send=HELLO)
        self.assertEqual(got, b"")
        until("it is counted", lambda: n3.counters()["gate_closed_bad_first_bytes"] > before)

    def test_a_node_without_tls_gets_no_link_and_is_told_so(self):
        with self.counted(self.n1, "gate_closed_plaintext"):
            n3 = self.mesh.node("n3", tls=False, peers=[self.n1]).start()
            until("n3 has tried", lambda: n3.info()["links"][0]["last_error"])
            self.assertNotEqual(n3.info()["links"][0]["state"], "live")
            n3.kill()

    def test_a_certificate_speaks_for_nobody_else(self):
        leaf = self.ca.issue("n3")
        with self.counted(self.n1, "gate_tls_failed_identity", exactly=1):
            with self.dial(self.n1, leaf) as sock:
                sock.sendall(preamble(RPC, "n2"))
                with self.assertRaises(Refused) as refused:
                    answered(sock)
            self.assertEqual(refused.exception.status, 7)
            self.assertRegex(refused.exception.text, "names n3, not n2")

    def test_a_configured_peer_with_another_id_is_not_linked_with(self):
        file = self.mesh.dir / "n3.yaml"
        file.write_text(f"peers: [{{address: '{self.n1.host}:{self.n1.port}', id: n7}}]\n")
        with self.counted(self.n1, "gate_accepted"):
            n3 = self.mesh.node("n3", MESHD_CONFIG=file).start()
            row = until("n3 refuses it", lambda: (
                row := n3.info()["links"][0]) and row["state"] == "refused" and row)
            self.assertRegex(row["last_error"], "n7")
            self.assertRegex(row["last_error"], "n1")
            self.assertGreater(n3.counters()["gate_tls_failed_identity"], 0)
            self.assertNotIn("n3", {row["peer_id"] for row in self.n1.rows().values()})
            n3.kill()

    def test_a_peer_of_another_ca_is_refused_by_both(self):
        other = Authority(self.mesh.dir / "other")
        with self.counted(self.n1, "gate_accepted"):
            n3 = self.mesh.node("n3", leaf=other.issue("n3"), peers=[self.n1])
            replace(n3.ca_file, other.cert.read_bytes())
            n3.start()
            row = until("n3 refuses it", lambda: (
                row := n3.info()["links"][0]) and row["state"] == "refused" and row)
            self.assertTrue(row["last_error"])
            self.assertGreater(n3.counters()["gate_tls_failed_untrusted"], 0)
            n3.kill()
        with self.counted(self.n1, "gate_tls_failed_untrusted"):  # it would trust n1, but not n1 it
            n3 = self.mesh.node("n3", leaf=other.issue("n3"), peers=[self.n1])
            both = n3.ca_file.read_bytes() + other.cert.read_bytes()
            replace(n3.ca_file, both)
            n3.start()
            until("n3 is told", lambda: n3.info()["links"][0]["last_error"])
            n3.kill()


del TrustTest
if __name__ == "__main__":
    main()
