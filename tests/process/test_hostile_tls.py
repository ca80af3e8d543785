#!/usr/bin/python3
"""Hostile bytes on the mesh port of a node with TLS: before a handshake, amid it, and inside of one."""
import contextlib
import struct
import time

from forwarding import ask, head_for
from harness import SLOW, main
from mtls import TrustTest
from rawpeer import RPC, WATCH, preamble
from test_hostile import GIB, Hostile
from test_strangers import HELLO

HELLO_BACK = bytes.fromhex("0053500000310000")
HANDSHAKE = 0x16  # the first byte of TLS
EACH = int(500 / SLOW)  # slow clients of one kind


class Secure(Hostile, TrustTest):
    def member(self):
        """Dials with a certificate of the mesh."""
        context = self.context(self.ca.issue("n9"))
        return lambda node, i=0: context.wrap_socket(self.dial(node, node.port, i))

    def test_six_random_bytes_on_the_mesh_port(self):
        n1 = self.node_with_web()
        said = self.noise(lambda i: self.dial(n1, n1.port, i))
        tls = sum(word[0] == HANDSHAKE for word in said)
        self.grown(n1, gate_closed_plaintext=len(said) - tls, gate_tls_failed_broken=tls)

    def test_six_random_bytes_that_begin_like_tls(self):
        n1 = self.node_with_web()
        n = EACH // 5
        for i in range(n):
            self.said(bytes([HANDSHAKE]) + self.random.randbytes(5) + b"\xff" * 65536, self.dial(n1, n1.port, i))
        self.grown(n1, gate_tls_failed_broken=n)

    def test_six_random_bytes_inside_a_session(self):
        n1, member = self.node_with_web(), self.member()
        n = EACH // 5
        for i in range(n):
            self.said(self.random.randbytes(6), member(n1, i))
        self.grown(n1, gate_closed_bad_first_bytes=n)

    def crawl(self, node, member):
        """Very many that say a byte now and then, half of them about to shake hands, half in a session;
        others are served meanwhile. How it ended for the many, by counter."""
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + self.random.randbytes(32)
        before, began, longest = node.counters(), time.monotonic(), 0
        slow = [(self.dial(node, node.port, i), hello) for i in range(EACH)]
        slow += [(member(node, i), preamble(RPC, "n" * 64)) for i in range(EACH)]
        for at in range(6):
            for sock, words in slow:
                with contextlib.suppress(OSError):  # their first bytes are due within ten seconds
                    sock.sendall(words[at:at + 1])
            now = time.monotonic()
            self.assertEqual(ask(self.connect(node), head_for("web")).body, b"here")
            self.assertEqual(node.cat("ping").returncode, 0)
            with member(node, at) as sock:
                sock.sendall(HELLO)
                self.assertEqual(sock.recv(8), HELLO_BACK)
            longest = max(longest, time.monotonic() - now)
        self.assertLess(longest, 8.0 * SLOW)  # who waits for a slow one waits for ten seconds
        if time.monotonic() - began < 9:
            self.assertGreaterEqual(node.counters()["gate_half_open"], 2 * EACH)
        for sock, _ in slow:
            sock.close()
        after = self.settled(node)
        ends = {name: after[name] - before[name] for name in (
            "gate_tls_failed_broken", "gate_closed_bad_first_bytes", "gate_closed_first_bytes_late")}
        self.assertEqual(sum(ends.values()), 2 * EACH)
        return ends

    def test_a_thousand_slow_clients_hold_up_nobody(self):
        n1, member = self.node_with_web(), self.member()
        self.crawl(n1, member)  # so many sessions at once leave their mark on the heap, 40 KiB each;
        self.begin(n1)
        self.more_memory = EACH * 64  # the next thousand do not take as much again
        self.grown(n1, **self.crawl(n1, member))

    def test_announced_lengths_are_refused_before_anything_is_held(self):
        n1, member = self.node_with_web(), self.member()
        # A record of 64 KiB, a hello of 16 MiB.
        self.said(b"\x16\x03\x01\xff\xff", self.dial(n1, n1.port))
        self.said(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", self.dial(n1, n1.port))
        for length in (GIB, 2**64 - 1):
            self.assertEqual(self.said(HELLO + struct.pack(">Q", length), member(n1))[8:], b"")
        self.said(preamble(WATCH, "") + struct.pack(">Q", GIB), member(n1))
        self.assertEqual(self.said(b"MSHD\x01\x01\xff\xff", member(n1)), b"")
        self.grown(n1, gate_tls_failed_broken=2, gate_closed_too_big=2, gate_closed_bad_message=1,
                   gate_closed_bad_first_bytes=1)


del Hostile, TrustTest
if __name__ == "__main__":
    main()
