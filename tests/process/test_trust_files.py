#!/usr/bin/python3
"""Certificates that are revoked, renewed, expired or broken while the node runs: what ends, and that
nothing else does."""
import functools
import hashlib
import threading

from forwarding import breaks
from harness import PEER_TIMEOUT_MS, main, until
from mtls import Authority, SecureNode, TrustTest, replace


class Stream:
    """Bytes from a client to its backend for as long as the test wants, faster than it looks."""

    def __init__(self, test, flow):
        self.flow, self.stop = flow, threading.Event()
        self.random, self.sent, self.got, self.n = test.random, hashlib.sha256(), hashlib.sha256(), 0
        self.error = None
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self.send, self.receive)]
        for thread in self.threads:
            thread.start()

    def send(self):
        data = self.random.randbytes(1 << 16)
        try:
            while not self.stop.wait(0.002):
                self.flow.client.sendall(data)
                self.sent.update(data)
            self.flow.client.shutdown(1)
        except OSError as error:
            self.error = error

    def receive(self):
        try:
            while part := self.flow.backend.recv(1 << 18):
                self.got.update(part)
                self.n += len(part)
        except OSError as error:
            self.error = error

    def goes_on(self):
        before = self.n
        until("the stream goes on", lambda: self.n > before + (1 << 20) or self.error)

    def close(self):
        """Ends it; True when not a byte was lost."""
        self.stop.set()
        for thread in self.threads:
            thread.join()
        return self.error is None and self.sent.digest() == self.got.digest()


class Revoked(TrustTest):
    def setUp(self):
        super().setUp()
        self.mesh.kind = functools.partial(SecureNode, crl=True)
        self.pair()

    def revoke(self, by, whom):
        by.until_live(whom)
        whom.until_live(by)
        before = by.counters()
        self.ca.revoke(whom.leaf)
        replace(by.crl_file, self.ca.crl())
        said = by.take_files()
        self.assertRegex(said, "read again; another CRL: .*; CRL: 1 revoked")
        by.until_logged(f"link to {whom.name} ({whom.host}")
        by.until_logged("revoked", after=len(said))
        for name in ("gate_tls_revoked", "forward_data_revoked", "node_links_lost"):
            until(f"{name} grows", lambda: by.counters()[name] > before[name])
        return by.counters()

    def stays_away(self, by, whom):
        """Its rows go as those of a peer that is lost, and it cannot come back."""
        until("its rows go", lambda: whom.name not in by.peer_rows(), PEER_TIMEOUT_MS / 1000 + 2)
        self.passes(self.flow(self.LOCAL, "port"))

    def comes_back_with_a_new_one(self, by, whom):
        whom.leaf = self.ca.issue(whom.name)
        whom.leaf.put(whom.files)
        whom.take_files()
        by.until_live(whom)
        self.mesh.until_agreed()
        for way in self.REMOTE.values():
            self.passes(self.flow(way, "port"))

    def test_who_dialled_loses_its_link_and_its_streams_and_cannot_come_back(self):
        streams = [self.flow(way, "port") for way in self.REMOTE.values()]
        for flow in streams:
            self.passes(flow)
        counters = self.revoke(self.n1, self.n2)
        for flow in streams:
            self.assertTrue(breaks(flow.client))
            self.assertTrue(breaks(flow.backend))
        until("n2 tries again and is refused",
              lambda: self.n1.counters()["gate_tls_failed_revoked"] > counters["gate_tls_failed_revoked"])
        until("n2 is told", lambda: "revoked" in self.n2.info()["links"][0]["last_error"])
        self.stays_away(self.n1, self.n2)
        self.comes_back_with_a_new_one(self.n1, self.n2)

    def test_who_was_dialled_loses_it_likewise(self):
        streams = [self.flow(way, "port") for way in self.REMOTE.values()]
        for flow in streams:
            self.passes(flow)
        counters = self.revoke(self.n2, self.n1)
        for flow in streams:
            self.assertTrue(breaks(flow.client))
            self.assertTrue(breaks(flow.backend))
        until("n2 tries again and refuses it",
              lambda: self.n2.counters()["gate_tls_failed_revoked"] > counters["gate_tls_failed_revoked"])
        until("it is shown", lambda: self.n2.info()["links"][0]["state"] == "refused")
        self.assertIn("revoked", self.n2.info()["links"][0]["last_error"])
        self.stays_away(self.n2, self.n1)
        self.comes_back_with_a_new_one(self.n2, self.n1)

    def test_what_is_revoked_of_somebody_else_ends_nothing(self):
        with self.counted(self.n1):
            stream = Stream(self, self.flow(self.UP, "port"))
            self.ca.revoke(self.ca.issue("n9"))
            for node in (self.n1, self.n2):
                replace(node.crl_file, self.ca.crl())
                node.take_files()
            stream.goes_on()
            self.assertTrue(stream.close())
        self.assertEqual(self.n1.counters()["gate_tls_revoked"], 0)


class Renewed(TrustTest):
    def test_certificates_and_cas_change_under_a_link_and_a_stream(self):
        self.pair()
        session = self.n1.until_live(self.n2)["session_id"]
        streams = [Stream(self, self.flow(way, "port")) for way in self.REMOTE.values()]
        other = Authority(self.mesh.dir / "other", "next CA")
        before = self.n1.info()["tls"]
        for node in (self.n1, self.n2):  # both CAs,
            replace(node.ca_file, self.ca.cert.read_bytes() + other.cert.read_bytes())
        self.n2.take_files()
        until("n1 sees it by itself", lambda: self.n1.info()["tls"]["loads"] == 2, 12)
        for node in (self.n1, self.n2):  # new certificates
            other.issue(node.name).put(node.files)
            self.assertIn("; another certificate: ", node.take_files())
        now = self.n1.info()["tls"]
        self.assertEqual((now["loads"], now["cas"], now["issuer"]), (3, 2, "CN=next CA"))
        self.assertNotEqual(now["fingerprint"], before["fingerprint"])
        for stream in streams:
            stream.goes_on()
        self.assertEqual(self.n1.until_live(self.n2)["session_id"], session)
        for way in self.REMOTE.values():  # on connections that know the new ones
            self.passes(self.flow(way, "port"))
        for stream in streams:
            self.assertTrue(stream.close(), stream.error)
        # The old CA goes last: what was let in by it alone ends, and comes back by itself.
        for node in (self.n1, self.n2):
            replace(node.ca_file, other.cert.read_bytes())
            node.take_files()
        until("there is another session", lambda: (
            row := self.n1.link(self.n2)) and row["state"] == "live" and row["session_id"] != session)
        self.mesh.until_agreed()
        for way in self.REMOTE.values():
            self.passes(self.flow(way, "port"))

    def test_files_that_are_broken_change_nothing(self):
        self.pair()
        other = self.ca.issue("n1")
        good = {name: getattr(self.n1.files, name).read_bytes() for name in ("cert", "key")}
        rows = {
            "no certificate at all": ("cert", b"nothing\n"),
            "half of one": ("cert", good["cert"][:300]),
            "another's key": ("key", other.key.read_bytes()),
            "another's certificate": ("cert", self.ca.issue("n9").cert.read_bytes()),
            "an empty key": ("key", b""),
        }
        loads = self.n1.info()["tls"]["loads"]
        with self.counted(self.n1):
            stream = Stream(self, self.flow(self.UP, "port"))
            for what, (file, data) in rows.items():
                with self.subTest(what):
                    replace(getattr(self.n1.files, file), data)
                    said = self.n1.take_files()
                    self.assertRegex(said, r"error \[tls\] the files of TLS were not taken, .*: .*\.pem")
                    self.assertNotIn("BEGIN", said)
                    self.passes(self.flow(self.DOWN, "port"))
                    replace(getattr(self.n1.files, file), good[file])
                    self.assertIn("nothing is different", self.n1.take_files())
            self.n1.files.cert.unlink()
            self.assertIn("No such file", self.n1.take_files())
            replace(self.n1.files.cert, good["cert"])
            stream.goes_on()
            self.assertTrue(stream.close())
        self.assertEqual(self.n1.info()["tls"]["loads"], loads)

    def test_a_certificate_that_ends_ends_no_link_but_opens_none(self):
        self.pair()
        self.ca.issue("n2", end=4).put(self.n2.files)
        self.assertIn("this node's certificate ends on", self.n2.take_files())
        session = self.n1.until_live(self.n2)["session_id"]
        fingerprint = self.n2.info()["tls"]["fingerprint"]
        self.n1.signal(15)
        self.n1.ended()
        self.n1.start()  # n2's link now stands on the new certificate
        self.n1.until_live(self.n2)
        session = self.n1.link(self.n2)["session_id"]
        ended = self.n2.info()["tls"]["not_after"]
        until("it has ended", lambda: __import__("time").time() > ended + 1)
        self.assertIn("has ended", self.n2.take_files() + self.n2.log())
        self.assertEqual(self.n1.until_live(self.n2)["session_id"], session)
        self.n1.signal(15)
        self.n1.ended()
        self.n1.start()
        until("n2 is refused for it", lambda: self.n1.counters()["gate_tls_failed_expired"] > 0)
        until("n2 is told", lambda: "expired" in self.n2.info()["links"][0]["last_error"])
        self.assertEqual(self.n2.info()["tls"]["fingerprint"], fingerprint)
        self.ca.issue("n2").put(self.n2.files)
        self.n2.take_files()
        self.n1.until_live(self.n2)
        self.passes(self.flow(self.UP, "port"))


class Hangup(TrustTest):
    def test_a_hangup_ends_no_node(self):
        node = self.mesh.node("n1", tls=False).start()
        node.signal(1)
        node.until_logged("nothing is read again without TLS")
        self.assertEqual(node.local("ping").returncode, 0)


del TrustTest
if __name__ == "__main__":
    main()
