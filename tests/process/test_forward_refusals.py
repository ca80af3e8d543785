#!/usr/bin/python3
"""What a client is told that cannot be joined, in the words of its protocol; and what Explain says.

An HTTP answer has a true length, a reason for people with the node's name, and ends the connection;
a TLS client gets an alert; everything else a reset, never an end that looks like an empty answer.
"""
import json
import ssl
import struct
import subprocess

from cable import SECONDS
from forwarding import (AUTO, MAPPED, NOWHERE, ForwardTest, Reply, ask, black_hole, breaks,
                        head_for, hello_for, receive, receive_all)
from harness import SLOW, main, until

UNRECOGNIZED_NAME, HANDSHAKE_FAILURE, DECODE_ERROR, INTERNAL_ERROR = 112, 40, 50, 80


class Refusals(ForwardTest):
    flags = ("--route-timeout=3s", "--dial-timeout=1s", "--limit=ingress_head_bytes=2048")

    def told(self, node, request, status):
        """Asks on a connection of its own; what holds of each answer is checked."""
        reply = ask(self.connect(node), request)
        self.assertEqual(reply.status, status, reply.text)
        self.assertEqual(int(reply.fields["content-length"]), len(reply.body))
        self.assertEqual(reply.fields["connection"].lower(), "close")
        self.assertIn(node.name, reply.text)
        return reply

    def alert(self, node, hello):
        """The number of the fatal alert that answers this hello, and nothing else does."""
        client = self.connect(node)
        client.sendall(hello)
        got = receive_all(client)
        self.assertEqual(len(got), 7, got)
        kind, _, length, level, number = struct.unpack("!BHHBB", got)
        self.assertEqual((kind, length, level), (21, 2, 2))
        return number


class Http(Refusals):
    def test_requests_that_cannot_be_routed_are_told_why(self):
        n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1)).start()
        bad = {
            "no Host": b"GET / HTTP/1.1\r\n\r\n",
            "two": b"GET / HTTP/1.1\r\nHost: one\r\nHost: two\r\n\r\n",
            "empty": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "a space before the colon": b"GET / HTTP/1.1\r\nHost : one\r\n\r\n",
            "folded": b"GET / HTTP/1.1\r\nHost: one\r\n two\r\n\r\n",
            "bare line feeds": b"GET / HTTP/1.1\nHost: one\n\n",
            "bare CR": b"GET / HTTP/1.1\r\nHost: o\rne\r\n\r\n",
            "user in it": b"GET / HTTP/1.1\r\nHost: a@one\r\n\r\n",
            "HTTP/1.0 without a name": b"GET / HTTP/1.0\r\n\r\n",
            "CONNECT without a port": b"CONNECT one HTTP/1.1\r\nHost: one\r\n\r\n",
        }
        for what, request in bad.items():
            with self.subTest(what):
                self.told(n1, request, 400)
        for name in ("nobody", "127.0.0.1:80", "[::1]:80"):
            with self.subTest(name):
                reply = ask(self.connect(n1), head_for(name))
                self.assertIn(reply.status, (400, 404) if name != "nobody" else (404,))
        self.assertIn("nobody", self.told(n1, head_for("nobody"), 404).text)
        self.told(n1, head_for("nobody:80", "CONNECT", "nobody:80"), 404)
        self.told(n1, b"GET / HTTP/1.1\r\nX: " + b"x" * 5000, 431)

    def test_a_head_that_does_not_end_is_told_so_in_time_however_slowly_it_comes(self):
        n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1)).start()
        client = self.connect(n1)
        client.sendall(b"GET / HTTP/1.1\r\n")

        def drip():
            try:
                client.sendall(b"A: b\r\n")
                client.settimeout(0.05)
                return client.recv(1000)
            except TimeoutError:
                return None
        got = until("an answer", drip)
        client.settimeout(SECONDS)
        self.assertEqual(Reply(got + receive_all(client)).status, 408)

    def test_answer_arrives_though_the_client_still_sends(self):
        n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1)).start()
        for _ in range(20):
            client = self.connect(n1)
            client.sendall(head_for("nobody", "POST", more="Content-Length: 500000\r\n") + bytes(100_000))
            self.assertEqual(Reply(receive_all(client)).status, 404)

    def test_owners_that_cannot_carry_are_named_with_their_reason(self):
        n1, n2 = self.pair()
        n2.local("offer", "gone", f"{self.mesh.net}.200:{NOWHERE}")
        n2.local("offer", "hole", black_hole(self))
        until("they are known", lambda: len(n1.reachable()) == 4)
        refused = self.told(n1, head_for("gone"), 502)
        self.assertIn("n2", refused.text)
        self.assertIn("refused", refused.text)
        timed_out = self.told(n1, head_for("hole"), 504)
        self.assertIn("n2", timed_out.text)
        for name, status in (("gone", 502), ("hole", 504)):  # a tunnel is not announced before it is there
            self.told(n1, head_for(f"{name}:1", "CONNECT", f"{name}:1"), status)

    def test_no_owner_is_connected(self):
        n1, n2 = self.pair()
        n2.kill()
        until("the loss is seen", lambda: n1.rows()[f"two@{n2.host}"]["stale"])
        reply = self.told(n1, head_for("two"), 503)
        self.assertGreaterEqual(int(reply.fields["retry-after"]), 1)

    def test_service_over_its_limit_turns_away_and_serves_those_it_has(self):
        self.mesh.flags += ["--limit=forwards_per_service=2"]
        self.pair()
        for way in (self.LOCAL, self.DOWN):
            with self.subTest(way=way):
                flows = [self.flow(way, "name") for _ in range(2)]
                reply = self.told(self.n1, head_for(way[1]), 503)
                self.assertIn("retry-after", reply.fields)
                self.passes(flows[0])
                flows[1].client.close()
                flows[1].backend.close()
                until("there is room", lambda: self.outcome(self.asking(way), self.backend_of(way)))

    def asking(self, way):
        client = self.connect(self.node_named(way[0]))
        client.sendall(head_for(way[1]))
        return client


class Tls(Refusals):
    def test_names_that_nobody_offers_are_not_recognized(self):
        n1 = self.mesh.node("n1", services=[f"gone:{self.mesh.net}.200:{NOWHERE}"],
                            INGRESS_ADDR=self.ingress(1)).start()
        context = ssl.create_default_context()
        with self.assertRaises(ssl.SSLError) as told:
            context.wrap_socket(self.connect(n1), server_hostname="nobody.example")
        self.assertIn("UNRECOGNIZED_NAME", str(told.exception).upper().replace(" ", "_"))
        self.assertEqual(self.alert(n1, hello_for("nobody.example")), UNRECOGNIZED_NAME)
        self.assertEqual(self.alert(n1, hello_for("192.0.2.1")), UNRECOGNIZED_NAME)  # has no name in it
        self.assertIn(self.alert(n1, hello_for("gone")), (HANDSHAKE_FAILURE, INTERNAL_ERROR))

    def test_openssl_says_which_alert_it_was(self):
        n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1)).start()
        done = subprocess.run(["openssl", "s_client", "-connect", f"{n1.host}:{AUTO}", "-servername", "nobody.example"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
        self.assertIn("alert number 112", done.stderr)

    def test_a_hello_that_cannot_be_read_is_a_decode_error(self):
        n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1)).start()
        hello = bytearray(hello_for("nobody.example"))
        hello[43] = 255  # the length of the session id
        self.assertEqual(self.alert(n1, bytes(hello)), DECODE_ERROR)


class Others(Refusals):
    def test_http2_with_prior_knowledge_is_asked_to_use_http1(self):
        n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1)).start()
        client = self.connect(n1)
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
        frames, got = [], receive_all(client)
        while got:
            size = int.from_bytes(got[:3], "big")
            frames.append((got[3], got[9:9 + size]))
            got = got[9 + size:]
        self.assertEqual([kind for kind, _ in frames], [4, 7])  # SETTINGS, GOAWAY
        self.assertEqual(frames[1][1][4:8], (13).to_bytes(4, "big"))  # HTTP_1_1_REQUIRED

    def test_raw_clients_are_reset_and_not_ended(self):
        n1 = self.mesh.node("n1", services=[f"gone:{self.mesh.net}.200:{NOWHERE}"],
                            INGRESS_ADDR=self.ingress(1, "gone", "nobody")).start()
        for port in (MAPPED, MAPPED + 1):
            self.assertTrue(self.is_reset(n1, port))
        client = self.connect(n1)
        client.sendall(b"PING\r\n")
        self.assertTrue(breaks(client))

    def test_who_connects_and_says_nothing_is_closed_in_silence(self):
        n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1)).start()
        lines = len(n1.err.read_text().splitlines())
        for _ in range(20):
            self.connect(n1).close()
        until("they are counted", lambda: n1.counters()["forward_end_client_silent"] == 20)
        self.assertEqual(len(n1.err.read_text().splitlines()), lines)

    def test_clients_that_say_nothing_are_bounded_per_address(self):
        self.mesh.flags += ["--limit=ingress_unrouted_per_source=5"]
        n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1)).start()
        silent = [self.connect(n1, source=f"{self.mesh.net}.50") for _ in range(5)]
        until("they are counted", lambda: n1.counters()["forward_unrouted"] == 5)
        self.assertTrue(self.turned_away(n1, f"{self.mesh.net}.50"))
        self.assertEqual(ask(self.connect(n1, source=f"{self.mesh.net}.51"), head_for("nobody")).status, 404)
        silent[0].close()
        until("there is room", lambda: not self.turned_away(n1, f"{self.mesh.net}.50"))

    def turned_away(self, node, source):
        try:  # who is reset at once hears of it from connect(2)
            client = self.connect(node, source=source)
            client.sendall(head_for("nobody"))
            return not client.recv(1)
        except ConnectionError:
            return True


class Explain(Refusals):
    """Before and after a fault it names candidates, the choice, reasons, ids, ips and ages."""

    def explain(self, node, name):
        return json.loads(node.cat("explain", name, "--format", "json", check=False).stdout)

    def test_choice_and_the_last_failure_are_told_and_held_against_what_happens(self):
        n1, n2 = self.pair()
        n2.local("offer", "gone", f"{self.mesh.net}.200:{NOWHERE}")
        n2.local("offer", "one", self.two.address)
        until("they are known", lambda: len(n1.reachable()) == 4)

        candidate, = self.explain(n1, "gone")["candidates"]
        self.assertEqual((candidate["route"]["peer_id"], candidate["route"]["ip"], candidate["chosen"],
                          candidate["last_failure"]), ("n2", n2.host, True, ""))
        self.assertEqual(candidate["session"], n1.rows()[f"gone@{n2.host}"]["link"])
        self.told(n1, head_for("gone"), 502)
        candidate, = self.explain(n1, "gone")["candidates"]
        self.assertEqual(candidate["last_failure"], "backend_refused")
        self.assertLess(candidate["last_failure_ms_ago"], 10_000 * SLOW)
        self.assertLess(candidate["seen_s_ago"], 10 * SLOW)
        self.assertIn("refused", n1.cat("explain", "gone").stdout)

        flow = self.flow(self.DOWN, "name")
        candidate, = self.explain(n1, "two")["candidates"]
        self.assertEqual(candidate["active"], 1)
        flow.client.close()
        flow.backend.close()

        both = self.explain(n1, "one")["candidates"]
        self.assertEqual([(c["route"]["peer_id"], c["chosen"]) for c in both], [("n1", True), ("n2", False)])
        self.assertTrue(all(c["why"] for c in both))
        text = n1.cat("explain", "one").stdout
        for word in ("n1", "n2", n2.host, self.one.address, self.two.address):
            self.assertIn(word, text)

        self.one.close()  # the first choice fails: the second carries, and is said to
        client = self.connect(n1)
        client.sendall(head_for("one"))
        self.assertEqual(receive(self.two.accept(), 10), head_for("one")[:10])
        self.assertEqual([c["last_failure"] for c in self.explain(n1, "one")["candidates"]], ["backend_refused", ""])

        n2.kill()
        until("the loss is seen", lambda: n1.rows()[f"two@{n2.host}"]["stale"])
        lost = self.explain(n1, "two")
        self.assertTrue(lost["candidates"][0]["route"]["stale"])
        self.told(n1, head_for("two"), 503)
        self.assertEqual(self.explain(n1, "nobody").get("candidates", []), [])


if __name__ == "__main__":
    main()
