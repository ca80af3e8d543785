#!/usr/bin/python3
"""Who may do what: a node with rules among nodes without, each refusal told, counted and survived."""
import json
import signal
import socket

from forwarding import AUTO, SECONDS, Reply, breaks, head_for, receive, receive_all
from harness import MeshTest, Node, main, until

LONG = 240  # bytes of a name of a list that is too long for one message
RULES = """
policy:
  - rule: edge
    peers: [n2, "edge-*"]
    link: true
    register: ["web*", "*.example"]
    forward: one
    lookup: true
  - rule: guest
    peers: n5
    link: true
  - rule: program
    peers: "@local"
    lookup: true
    introspect: true
    offer: "batch-*"
"""


class Guarded(Node):
    """Has rules, which let only its own machine ask."""

    def cat(self, *args, check=True, timeout=10.0, url=None):
        return super().cat(*args, check=check, timeout=timeout, url=url or f"ipc://{self.socket}")

    def stranger(self, *args):
        return super().cat(*args, check=False, url=self.url)

    def log(self):
        return self.err.read_text("utf-8")


class Policy(MeshTest):
    def setUp(self):
        super().setUp()
        self.backends = []
        services = [f"{name}:{self.backend()}" for name in ("one", "two")]
        self.n1 = Guarded(self.mesh, "n1", f"{self.mesh.net}.1", services=services,
                          flags=["-c", self.file("n1", RULES)])
        self.mesh.nodes.append(self.n1)

    def file(self, name, text):
        path = self.mesh.dir / f"{name}.yaml"
        path.write_text(text)
        return path

    def backend(self):
        self.backends.append(socket.create_server((f"{self.mesh.net}.200", 0)))
        self.backends[-1].settimeout(SECONDS)
        self.addCleanup(self.backends[-1].close)
        return ":".join(map(str, self.backends[-1].getsockname()))

    def denied(self, action):
        return self.n1.counters()[f"policy_denied_{action}"]

    def edge(self, **settings):
        """n2, linked with n1, which has its `web`."""
        settings.setdefault("services", ["web:127.0.0.1:80"])
        n2 = self.mesh.node("n2", peers=[self.n1], **settings).start()
        self.serves_as_before(n2)
        return n2

    def serves_as_before(self, n2):
        until("n1 has web of n2", lambda: f"web@{n2.host}" in self.n1.reachable())
        until("n2 has what n1 offers",
              lambda: {f"one@{self.n1.host}", f"two@{self.n1.host}"} <= set(n2.reachable()))

    # --- names ---

    def test_names_outside_the_globs_are_left_out_of_a_register_and_the_rest_lands(self):
        self.n1.start()
        n2 = self.edge(services=["web:127.0.0.1:80", "db:127.0.0.1:81", "*.example:127.0.0.1:82"])
        self.assertEqual({key.split("@")[0] for key in self.n1.rows()}, {"one", "two", "web", "*.example"})
        self.assertGreaterEqual(self.denied("register"), 1)
        text = "policy rule 'edge' does not let n2 register this name"
        until("n1 says so", lambda: text in self.n1.log())
        until("n2 hears of it", lambda: f"1 of our services were refused there, db: {text}" in
              n2.err.read_text("utf-8"))

    def test_names_outside_the_globs_are_left_out_of_a_sync_and_change_one_by_one(self):
        self.n1.start()
        n2 = self.edge()
        for name in ("web-2", "db"):
            n2.local("offer", name, "127.0.0.1:83")
        until("web-2 is there", lambda: f"web-2@{n2.host}" in self.n1.reachable())
        until("db was refused", lambda: self.denied("register") == 1)
        n2.local("withdraw", "db")
        n2.local("offer", "web-3", "127.0.0.1:83")
        until("web-3 is there", lambda: f"web-3@{n2.host}" in self.n1.reachable())
        self.assertNotIn(f"db@{n2.host}", self.n1.rows())
        self.assertEqual((self.n1.counters()["node_digests_differed"], n2.counters()["node_syncs_wanted"]), (0, 0))

    def test_a_list_that_fits_no_message_lands_without_the_names_that_are_not_allowed(self):
        names = ["web"] + [f"{'web' if i % 2 else 'no'}{i}".ljust(LONG, "x").replace("xx", ".x") for i in range(3800)]
        self.assertGreater(sum(len(name) + 14 for name in names), 921600)
        text = "".join(f"- {{name: {name}, backend: 'b:1'}}\n" for name in names)
        self.n1.env["LOG_MAPS"] = "off"
        self.n1.start()
        n2 = self.edge(services=(), flags=["-c", self.file("n2", "services:\n" + text)], SERVICE_ADDR=None,
                       LOG_MAPS="off")
        until("what is allowed has come", lambda: len(self.n1.reachable()) == 2 + 1 + 1900)
        self.assertEqual(self.denied("register"), 1900)
        self.assertGreater(n2.counters()["node_sync_parts_sent"], 3)
        self.serves_as_before(n2)

    # --- links ---

    def test_who_may_have_no_link_is_refused_told_why_and_comes_back_slowly(self):
        self.n1.start()
        n2 = self.edge()
        n3 = self.mesh.node("n3", peers=[self.n1], services=["web:127.0.0.1:80"]).start()
        text = "policy rule 'default' does not let n3 have a link with this node"

        def link(node):
            return node.info()["links"][0]
        until("n3 knows", lambda: link(n3)["state"] == "refused" and text in link(n3)["last_error"])
        self.assertGreaterEqual(self.denied("link"), 1)
        self.assertIn(text, self.n1.log())
        self.assertNotIn("n3", self.n1.peer_rows())
        self.assertLessEqual(link(n3)["attempts"], 3)
        self.serves_as_before(n2)

    def test_a_node_does_not_link_with_whom_it_dials_either(self):
        n4 = self.mesh.node("n4", services=["web:127.0.0.1:80"]).start()
        self.n1.peers = [f"{n4.host}:{n4.port}"]
        self.n1.start()
        n2 = self.edge()
        link = until("n1 has met n4", lambda: next((one for one in self.n1.info()["links"]
                                                    if one["state"] == "refused"), None))
        self.assertEqual((link["peer_id"], link["last_error"]),
                         ("n4", "policy rule 'default' does not let n4 have a link with this node"))
        self.assertNotIn(f"web@{n4.host}", self.n1.rows())
        self.assertGreaterEqual(self.denied("link"), 1)
        self.serves_as_before(n2)

    # --- clients ---

    def ask(self, node, name):
        with socket.create_connection((node.host, AUTO), SECONDS) as client:
            client.sendall(head_for(name))
            return Reply(receive_all(client))

    def test_a_forward_that_no_rule_allows_is_a_403_which_says_so(self):
        self.n1.start()
        n2 = self.edge(INGRESS_ADDR=f"{self.mesh.net}.2:{AUTO}")
        reply = self.ask(n2, "two")
        self.assertEqual(reply.status, 403)
        self.assertIn(b"policy rule 'edge' does not let n2 be forwarded to this name", reply.body)
        self.assertEqual(self.denied("forward"), 1)
        self.assertEqual(n2.counters()["forward_end_not_allowed"], 1)
        with socket.create_connection((n2.host, AUTO), SECONDS) as client:
            client.sendall(head_for("one"))
            backend = self.backends[0].accept()[0]
            self.addCleanup(backend.close)
            self.assertEqual(receive(backend, len(head_for("one"))), head_for("one"))
        self.serves_as_before(n2)

    # --- questions ---

    def test_strangers_learn_nothing_and_programs_on_the_socket_do(self):
        self.n1.start()
        n2 = self.edge()
        for action, questions in (("introspect", (("introspect",), ("node",), ("explain", "one"), ("watch",))),
                                  ("lookup", (("lookup", "one"),))):
            before = self.denied(action)
            for question in questions:
                done = self.n1.stranger(*question)
                self.assertEqual(done.returncode, 6, f"{question}: {done.stdout}{done.stderr}")
                self.assertIn("policy rule 'default' does not let @anonymous", done.stderr)
                self.assertEqual(done.stdout, "")
            self.assertEqual(self.denied(action), before + len(questions))
        self.assertIn("one", self.n1.local("lookup", "one").stdout)
        self.assertIn("web", self.n1.local("introspect").stdout)
        self.serves_as_before(n2)

    def test_programs_offer_what_their_rule_says(self):
        self.n1.start()
        n2 = self.edge()
        self.n1.local("offer", "batch-1", "127.0.0.1:83")
        until("n2 knows it", lambda: f"batch-1@{self.n1.host}" in n2.reachable())
        done = self.n1.local("offer", "mail", "127.0.0.1:83", check=False)
        self.assertEqual(done.returncode, 6)
        self.assertIn("policy rule 'program' does not let @local offer this name", done.stderr)
        self.assertEqual(self.n1.local("withdraw", "batch-1").returncode, 0)
        self.assertEqual(self.denied("offer"), 1)
        self.serves_as_before(n2)

    # --- other rules ---

    def rules(self, text):
        """In force once n1 says so."""
        before = self.n1.log().count("rules are in force")
        self.file("n1", text)
        self.n1.signal(signal.SIGHUP)
        until("n1 has read them", lambda: self.n1.log().count("rules are in force") > before)

    def test_other_rules_take_away_and_give_back_while_all_runs(self):
        self.n1.start()
        n2 = self.edge(services=["web:127.0.0.1:80", "web-2:127.0.0.1:81"], INGRESS_ADDR=f"{self.mesh.net}.2:{AUTO}")
        until("web-2 is there", lambda: f"web-2@{n2.host}" in self.n1.reachable())
        session = self.n1.info()["links"][0]["session_id"]
        client = socket.create_connection((n2.host, AUTO), SECONDS)
        self.addCleanup(client.close)
        client.sendall(head_for("one"))
        backend = self.backends[0].accept()[0]
        backend.settimeout(SECONDS)
        self.addCleanup(backend.close)
        receive(backend, len(head_for("one")))

        self.rules(RULES.replace('"web*"', '"web"').replace("forward: one", 'forward: "o*"'))
        until("web-2 has gone", lambda: f"web-2@{n2.host}" not in self.n1.rows())
        self.assertIn(f"web@{n2.host}", self.n1.reachable())
        self.assertEqual(self.denied("register"), 1)
        backend.sendall(b"still there")
        self.assertEqual(receive(client, 11), b"still there")

        self.rules(RULES.replace("forward: one", "forward: two"))
        self.assertTrue(breaks(client))
        self.assertTrue(breaks(backend))
        until("web-2 is back", lambda: f"web-2@{n2.host}" in self.n1.reachable())
        self.assertEqual(self.n1.info()["links"][0]["session_id"], session, "the link never ended")
        self.assertEqual(self.ask(n2, "one").status, 403)

        self.rules(RULES.replace('[n2, "edge-*"]', '"edge-*"'))
        until("n2 has gone", lambda: not self.n1.peer_rows())
        text = "policy rule 'default' does not let n2 have a link with this node"
        until("n2 knows", lambda: text in n2.info()["links"][0]["last_error"])
        self.assertFalse(any(key.startswith("one@") for key in n2.reachable()))

        self.rules(RULES)
        self.serves_as_before(n2)

    def test_rules_that_cannot_be_read_change_nothing(self):
        self.n1.start()
        n2 = self.edge()
        self.file("n1", RULES.replace("link: true", "link: perhaps"))
        self.n1.signal(signal.SIGHUP)
        until("n1 says what is wrong", lambda: "'perhaps' is neither true nor false" in self.n1.log())
        self.assertEqual(self.n1.counters()["policy_rules"], 3)
        self.serves_as_before(n2)

    # --- what is shown ---

    def test_the_number_of_rules_is_shown(self):
        self.n1.start()
        self.assertEqual(self.n1.counters()["policy_rules"], 3)
        self.assertRegex(self.n1.local("node").stdout, r"policy_rules +3\n")

    def test_what_is_shown_of_a_session_claims_nothing(self):
        n2 = self.mesh.node("n2", services=["web:127.0.0.1:80"]).start()
        n3 = self.mesh.node("n3", peers=[n2], services=["db:127.0.0.1:81"]).start()
        row = until("they are linked", lambda: n3.reachable().get(f"web@{n2.host}"))
        link = next(one for one in n3.info()["links"])
        explained = json.loads(n3.cat("explain", "web", "--format", "json").stdout)["candidates"][0]
        self.assertEqual({row["link"], link["session_id"], explained["session"]}, {row["link"]})
        self.assertRegex(row["link"], "^[0-9a-f]{8}$")
        for node in (n2, n3):
            self.assertNotIn(row["link"], node.err.read_text("utf-8") + node.out.read_text("utf-8"))


if __name__ == "__main__":
    main()
