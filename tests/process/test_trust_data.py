#!/usr/bin/python3
"""A member of the mesh that means harm: it has a certificate, and says whatever the test wants. It
gets what is its own, and nothing of anybody else."""
import socket
import ssl
import struct
import threading

from cable import SECONDS
from forwarding import Backend, breaks, receive
from harness import PORT, main, until
from mtls import LINK, RPC, Member, Refused, TrustTest, answered, message, packed, say, varint
from test_strangers import load

PERMISSION_DENIED, UNAUTHENTICATED = 7, 16


def gone(sock):
    """It is ended from the other side, in whichever way, without a byte."""
    try:
        return sock.recv(1) == b""
    except (ConnectionResetError, ssl.SSLError):
        return True


class PlayedTest(TrustTest):
    """n3 is played; n1 offers `one` and is a node."""

    open_timeout = "10s"

    def setUp(self):
        super().setUp()
        # Whom the test plays says no more than it makes them.
        self.set(open_timeout=self.open_timeout, heartbeat="10s", peer_timeout="60s")
        self.pb = load(self.mesh.dir)
        self.one = Backend(self)
        self.n1 = self.mesh.node("n1", services=[f"one:{self.one.address}"], INGRESS_ADDR=self.ingress(1, "one")).start()

    def opened(self, name="n3"):
        n3 = Member(self, self.pb, self.n1, name).open()
        until(f"the link of {name} is there", lambda: any(
            row["peer_id"] == name and row["state"] == "live" for row in self.n1.info()["links"]))
        return n3

    def draw(self):
        return self.random.randbytes(16)

    def carried(self, n3, forward_id=None):
        """A client of n3's own, through n1; both ends."""
        forward_id = forward_id or self.draw()
        n3.beat()
        line = self.dial(n3.node, n3.leaf)  # before its time runs
        n3.forward(forward_id, "one", b"first ")
        data = n3.data(forward_id, b"second", offset=6, line=line)
        backend = self.one.accept()
        self.assertEqual(receive(backend, 12), b"first second")
        answered(data)
        self.assertEqual(receive(data, 24), forward_id + struct.pack(">Q", 0))
        backend.sendall(b"reply")
        self.assertEqual(receive(data, 5), b"reply")
        return data, backend

    def serves(self, *members):
        """n1 carries clients of its own and of these members as before."""
        flow = self.flow(self.LOCAL, "port")
        self.passes(flow)
        flow.client.close()
        flow.backend.close()
        for member in members:
            data, backend = self.carried(member)
            data.close()  # without a close_notify, as who cuts it off on the way:
            self.assertTrue(breaks(backend), "what is cut off does not look like an end in order")
            backend.close()

    def grows(self, name, before):
        until(f"{name} grows", lambda: self.n1.counters()[name] > before[name])

    def node_named(self, name):
        return self.n1

    def backend_of(self, way):
        return self.one


class Played(PlayedTest):
    def test_a_member_is_carried_to_what_a_node_offers(self):
        n3 = self.opened()
        self.serves(n3)
        counters = self.n1.counters()
        self.assertEqual((counters["forward_data_unexpected"], counters["forward_data_late"]), (0, 0))

    def test_a_session_is_of_use_to_its_own_peer_only(self):
        n3, n4 = self.opened("n3"), self.opened("n4")
        rows = {
            "another's session": (n4, {"session": n3.session}, UNAUTHENTICATED),
            "another's session under its name": (n4, {"session": n3.session, "name": "n3"}, PERMISSION_DENIED),
            "a session that never was": (n4, {"session": self.random.randbytes(16)}, UNAUTHENTICATED),
        }
        for what, (member, more, status) in rows.items():
            with self.subTest(what):
                before, forward_id = self.n1.counters(), self.draw()
                n3.forward(forward_id, "one")
                backend = self.one.accept()
                with self.assertRaises(Refused) as refused:
                    answered(member.data(forward_id, b"stolen", **more))
                self.assertEqual(refused.exception.status, status)
                self.grows("gate_data_refused" if status == UNAUTHENTICATED else "gate_tls_failed_identity", before)
                data = n3.data(forward_id, b"mine")  # whose it is
                answered(data)
                self.assertEqual(receive(backend, 4), b"mine")
                self.serves(n3, n4)

    def test_a_body_that_names_another_is_refused(self):
        n3, before = Member(self, self.pb, self.n1, "n3"), self.n1.counters()
        header, _ = n3.register(name="n2")
        self.assertEqual((header.status, header.reason), (PERMISSION_DENIED, self.pb.REASON_IDENTITY))
        self.grows("node_registers_refused", before)
        self.assertEqual(n3.hello(name="n2").reason, self.pb.REASON_IDENTITY)
        self.assertTrue(gone(n3.link))
        self.assertNotIn("n2", self.n1.peer_rows())
        self.serves(self.opened("n3"))

    def test_a_token_opens_a_link_for_nobody_else(self):
        n3, before = Member(self, self.pb, self.n1, "n3"), self.n1.counters()
        _, reply = n3.register()
        n4 = Member(self, self.pb, self.n1, "n4")
        n4.register()
        for name, status in (("n4", UNAUTHENTICATED), ("n3", PERMISSION_DENIED)):
            with self.assertRaises(Refused) as refused:
                n4.dial(LINK, reply.token, name)
            self.assertEqual(refused.exception.status, status)
        self.grows("node_tokens_refused", before)
        self.grows("gate_tls_failed_identity", before)
        self.serves(self.opened("n3"))


class Nobody(PlayedTest):
    """DATA that no Forward waits for: whether one comes behind it is seen within the open timeout."""

    open_timeout = "2s"

    def test_an_id_that_nobody_gave_reaches_nobody(self):
        n3, before = self.opened(), self.n1.counters()
        self.assertTrue(gone(n3.data(self.draw(), b"GET / HTTP/1.1\r\n\r\n")))
        self.grows("forward_data_late", before)
        self.assertTrue(self.one.idle())
        self.serves(n3)

    def test_a_used_id_reaches_nobody_again(self):
        n3, before, used = self.opened(), self.n1.counters(), self.draw()
        data, backend = self.carried(n3, used)
        again = n3.data(used, b"again")  # while it runs,
        self.assertTrue(gone(again))
        self.assertTrue(self.one.idle())
        backend.sendall(b"more")
        self.assertEqual(receive(data, 4), b"more")
        data.close()
        self.assertTrue(breaks(backend))
        self.assertTrue(gone(n3.data(used, b"again")))  # and after it has ended
        self.assertTrue(self.one.idle())
        self.grows("forward_data_late", before)
        self.serves(n3)

    def test_an_id_whose_time_is_over_reaches_nobody(self):
        n3, before, late = self.opened(), self.n1.counters(), self.draw()
        n3.forward(late, "one", remaining_ms=700)
        backend = self.one.accept()
        self.assertTrue(gone(backend))  # given up
        self.assertTrue(gone(n3.data(late, b"late")))
        self.grows("forward_data_late", before)
        self.assertTrue(self.one.idle())
        self.serves(n3)


class Impostor(TrustTest):
    """Whoever answers at a configured address has a certificate, but is somebody else."""

    def setUp(self):
        super().setUp()
        self.pb = load(self.mesh.dir)
        leaf = self.ca.issue("n5")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf.cert, leaf.key)
        context.load_verify_locations(self.ca.cert)
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["meshd/1"])
        self.sock = socket.socket()
        self.sock.bind((f"{self.mesh.net}.5", PORT))
        self.sock.listen()
        self.addCleanup(self.sock.close)
        self.heard = []
        self.answer = None  # ReplyHeader and RegisterReply
        threading.Thread(target=self.serve, args=(context,), daemon=True).start()

    def serve(self, context):
        while True:
            try:
                sock, _ = self.sock.accept()
                sock.settimeout(SECONDS)
                with context.wrap_socket(sock, server_side=True) as tls:
                    head = receive(tls, 8)
                    receive(tls, head[6] + head[7])
                    self.heard.append(head[5])
                    if head[5] != RPC:
                        continue
                    tls.sendall(b"MSHD\x01\0\0\0")
                    word, call = message(tls)
                    size, at = varint(call)
                    header, reply = self.answer
                    header.call_id = self.pb.CallHeader.FromString(call[at:at + size]).call_id
                    say(tls, word, packed(header, reply))
                    tls.recv(1)
            except (OSError, AssertionError, ValueError):
                if self.sock.fileno() < 0:
                    return

    def refuses(self, header, reply, text):
        self.answer = (header, reply)
        n2 = self.mesh.node("n2", peers=[f"{self.mesh.net}.5:{PORT}"]).start()
        row = until("n2 refuses it", lambda: (
            row := n2.info()["links"][0]) and row["state"] == "refused" and row)
        self.assertIn(text, row["last_error"])
        self.assertNotIn(LINK, self.heard)
        self.assertEqual(n2.peer_rows(), {})
        n2.until_logged(text)

    def test_who_claims_another_id_in_its_answer_gets_no_link(self):
        pb = self.pb
        self.refuses(pb.ReplyHeader(wire_version_min=1, wire_version_max=1),
                     pb.RegisterReply(peer_id="n1", incarnation=5, token=b"t" * 16, wire_version=1),
                     "its certificate names n5, but it says that it is n1")

    def test_who_claims_to_be_the_node_itself_does_not_stop_it(self):
        pb = self.pb
        self.refuses(pb.ReplyHeader(status=9, reason=pb.REASON_SELF, text="that is me"), pb.RegisterReply(),
                     "its certificate names n5, but it says that it is n2")


del TrustTest
if __name__ == "__main__":
    main()
