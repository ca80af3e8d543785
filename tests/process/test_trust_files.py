#!/usr/bin/python3
"""Certificates that are renewed, expired or broken while the node runs: links and streams stay."""
import time

from harness import main, until
from mtls import Authority, Stream, TrustTest, replace


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
        until("n1 sees it by itself", lambda: self.n1.info()["tls"]["loads"] == 2, 30)
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
                    self.assertRegex(said, rf"error \[daemon\] environment PEER_TLS_{file.upper()}: .*{file}\.pem")
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

    def test_another_name_waits_for_the_next_start_though_no_certificate_has_it_yet(self):
        file = self.mesh.dir / "n1.yaml"
        n1 = self.mesh.node("n1", MESHD_CONFIG=file, PEER_NAME="")

        def settings(name, leases, cert):
            file.write_text(f"peer_name: {name}\nlimits: {{leases: {leases}}}\ntls: {{cert: {cert}}}\n")

        n1.env["PEER_TLS_CERT"] = ""
        settings("n1", 7, n1.files.cert)
        n1.start()
        settings("n2", 8, n1.files.cert)
        done = n1.local("reload", check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (
            0, "limits.leases is 8 (was 7)\n", "".join(
                f"meshcat: {key} changed: it takes effect when the node starts again\n"
                for key in ("peer_name", "runtime_dir"))))
        anew = self.mesh.dir / "anew.pem"  # a file named anew is for the next start, as the name is
        anew.write_bytes(n1.files.cert.read_bytes())
        settings("n2", 9, anew)
        done = n1.local("reload", check=False)
        self.assertEqual((done.returncode, done.stdout), (67, ""))
        self.assertIn(f"n1.yaml:3:13: tls.cert: {anew} does not name this node, 'n2'", done.stderr)

    def test_a_certificate_that_ends_ends_no_link_but_opens_none(self):
        self.pair()
        session = self.live_on_one_that_ends()
        stream = Stream(self, self.flow(self.UP, "port"))
        ended = self.n2.info()["tls"]["not_after"]
        until("it has ended", lambda: time.time() > ended + 1, 40)
        self.assertIn("this node's certificate has ended on", self.n2.take_files() + self.n2.log())
        self.assertEqual(self.n1.until_live(self.n2)["session_id"], session)
        stream.goes_on()
        self.assertTrue(stream.close())
        self.restart(self.n1)
        until("n2 is refused for it", lambda: self.n1.counters()["gate_tls_failed_expired"] > 0)
        until("n2 is told", lambda: "expired" in self.n2.info()["links"][0]["last_error"])
        self.passes(self.flow(self.LOCAL, "port"))
        self.ca.issue("n2").put(self.n2.files)
        self.n2.take_files()
        self.n1.until_live(self.n2)
        self.passes(self.flow(self.UP, "port"))

    def live_on_one_that_ends(self):
        """The session of a link that stands on a certificate of n2 which ends in a few seconds."""
        for seconds in (4, 8, 16, 32):  # a busy machine takes longer to get there
            self.ca.issue("n2", end=seconds).put(self.n2.files)
            self.assertIn("this node's certificate ends on", self.n2.take_files())
            ends = self.n2.info()["tls"]["not_after"]
            self.restart(self.n1)
            row = until("n1 has the link, or it is too late", lambda: (
                row := self.n1.link(self.n2)) and row["state"] == "live" and row or time.time() > ends and "late", 40)
            if row != "late":
                return row["session_id"]
        raise AssertionError("no link in time")

    def restart(self, node):
        node.signal(15)
        node.ended()
        node.start()


class Hangup(TrustTest):
    def test_a_hangup_ends_no_node(self):
        node = self.mesh.node("n1", tls=False).start()
        node.signal(1)
        node.until_logged("signal 1: reading the settings again")
        self.assertEqual(node.local("ping").returncode, 0)


del TrustTest
if __name__ == "__main__":
    main()
