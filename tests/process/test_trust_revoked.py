#!/usr/bin/python3
"""Certificates that are revoked while the node runs: whose they are is cut off, and nobody else."""
import functools

from forwarding import breaks
from harness import main, until
from mtls import SecureNode, Stream, TrustTest, replace


class Revoked(TrustTest):
    def setUp(self):
        super().setUp()
        self.set(heartbeat="600ms", peer_timeout="2s")
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
        until("its rows go", lambda: whom.name not in by.peer_rows())
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


class Denied(TrustTest):
    """The same by the policy of the settings, which is read again on SIGHUP."""

    def setUp(self):
        super().setUp()
        self.file = self.mesh.dir / "n1.yaml"
        self.rules("n2")
        self.mesh.kind = lambda mesh, name, host, **settings: SecureNode(
            mesh, name, host, MESHD_CONFIG=self.file if name == "n1" else None, **settings)
        self.pair()

    def rules(self, peers, forward="*"):
        self.file.write_text(f"policy: [{{rule: friends, peers: '{peers}', link: true, register: '*', "
                             f"forward: '{forward}'}}]\n")

    def take_rules(self, text="rules are in force"):
        before = len(self.n1.log())
        self.n1.signal(1)
        self.n1.until_logged("the settings w", after=before)  # were read again, will not do
        self.assertIn(text, self.n1.log()[before:])

    def test_who_may_have_no_link_any_more_loses_it_and_its_streams(self):
        streams = [self.flow(way, "port") for way in self.REMOTE.values()]
        for flow in streams:
            self.passes(flow)
        before = self.n1.counters()
        self.rules("n9")
        self.take_rules()
        self.n1.until_logged(f"link to n2 ({self.n2.host}")
        for flow in streams:
            self.assertTrue(breaks(flow.client))
            self.assertTrue(breaks(flow.backend))
        until("its rows go", lambda: "n2" not in self.n1.peer_rows())
        until("it tries again and is refused",
              lambda: self.n1.counters()["policy_denied_link"] > before["policy_denied_link"])
        self.passes(self.flow(self.LOCAL, "port"))
        self.rules("n?")
        self.take_rules()
        self.n1.until_live(self.n2)
        self.mesh.until_agreed()
        for way in self.REMOTE.values():
            self.passes(self.flow(way, "port"))

    def test_who_may_not_be_forwarded_to_a_name_any_more_loses_those_streams_only(self):
        session = self.n1.until_live(self.n2)["session_id"]
        denied, other = self.flow(self.UP, "port"), self.flow(self.DOWN, "port")
        self.rules("n2", forward="else")
        self.take_rules()
        self.assertTrue(breaks(denied.client))
        self.assertTrue(breaks(denied.backend))
        self.passes(other)
        self.assertEqual(self.n1.link(self.n2)["session_id"], session)

    def test_settings_that_will_not_do_change_nothing(self):
        with self.counted(self.n1):
            self.file.write_text("policy: [{rule: friends, peers: n9, color: red}]\n")
            self.take_rules("n1.yaml:1:37: policy: unknown key 'color'")
            self.assertIn("the settings will not do: all stays as it was", self.n1.log())


del TrustTest
if __name__ == "__main__":
    main()
