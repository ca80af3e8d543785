#!/usr/bin/python3
"""A node that is told to end lets its streams finish, takes no new ones, and ends at once after that; a service that
drains does the same without an end."""
import signal
import time

from forwarding import AUTO, MAPPED, ForwardTest, ask, breaks, head_for, receive
from harness import SLOW, main, until


class Drain(ForwardTest):
    flags = ("--drain-timeout=60s",)

    def term(self, node):
        node.signal(signal.SIGTERM)

    def until_draining(self, node, seen_by):
        until(f"{seen_by.name} sees {node.name} drain",
              lambda: any(r["draining"] for r in seen_by.rows().values() if r["peer_id"] == node.name))

    def refused(self, node, port):
        try:
            self.connect(node, port).close()
        except ConnectionRefusedError:
            return True
        return False

    def test_streams_finish_and_then_the_node_ends_with_0(self):
        for name in ("n1", "n2"):
            with self.subTest(ends=name):
                self.mesh.close()
                self.setUp()
                self.pair()
                node, other = (self.n1, self.n2) if name == "n1" else (self.n2, self.n1)
                flows = [self.flow(way, "name") for way in self.ALL.values() if way[0] == name or way in
                         self.REMOTE.values()]
                self.term(node)
                self.until_draining(node, other)
                for flow in flows:
                    self.passes(flow, 100_000)
                for flow in flows[1:]:
                    flow.client.close()
                    flow.backend.close()
                self.passes(flows[0])
                self.assertTrue(node.alive())
                flows[0].client.close()
                flows[0].backend.close()
                self.assertEqual(node.ended(), 0)  # long before its time is over
                until("its entries went at once", lambda: name not in other.peer_rows())

    def test_new_clients_are_refused_and_go_elsewhere(self):
        self.pair()
        n3 = self.mesh.node("n3", services=[f"one:{self.two.address}"], peers=[self.n2]).start()
        until("n2 knows all", lambda: len(self.n2.reachable()) == 3)
        flow = self.flow(self.LOCAL, "port")
        self.term(self.n1)
        self.until_draining(self.n1, self.n2)
        for port in (AUTO, MAPPED):
            until("the port is closed", lambda: self.refused(self.n1, port))
        for _ in range(5):  # `one` is offered by n3 too
            client = self.connect(self.n2)
            client.sendall(head_for("one"))
            backend = self.two.accept()
            self.assertEqual(receive(backend, 3), b"GET")
            client.close()
            backend.close()
        n3.signal(signal.SIGTERM)
        self.assertEqual(n3.ended(), 0)
        until("n3 is gone", lambda: "n3" not in self.n2.peer_rows())
        until("what was on its way is over", self.n1_refuses)
        self.assertEqual(ask(self.connect(self.n2), head_for("one")).status, 503)
        self.passes(flow)

    def goes_to(self, node, backend):
        client = self.connect(node)
        client.sendall(head_for("one"))
        with backend.accept() as end:
            self.assertEqual(receive(end, 3), b"GET")
        client.close()

    def test_one_service_that_drains_keeps_its_streams_and_new_clients_go_elsewhere(self):
        self.pair()
        n3 = self.mesh.node("n3", services=[f"one:{self.two.address}"], peers=[self.n1, self.n2]).start()
        until("all know all", lambda: all(len(n.reachable()) == 3 for n in self.mesh.nodes))
        flows = [self.flow(self.LOCAL, "name"), self.flow(self.UP, "name")]
        self.n1.local("drain", "one")
        row = f"one@{self.n1.host}"
        until("n2 has heard of it", lambda: self.n2.rows()[row]["draining"])
        self.assertFalse(self.n2.peer_rows()["n1"]["draining"])
        for node in (self.n1, self.n2):
            for _ in range(3):
                self.goes_to(node, self.two)
        n3.signal(signal.SIGTERM)
        self.assertEqual(n3.ended(), 0)
        until("n3 is gone", lambda: not any("n3" in n.peer_rows() for n in (self.n1, self.n2)))
        for node, text in ((self.n1, "one is draining here, and no other owner is connected"),
                           (self.n2, "one at n1: draining: the service takes no new clients")):
            reply = ask(self.connect(node), head_for("one"))
            self.assertEqual((reply.status, reply.fields["retry-after"]), (503, "1"))
            self.assertIn(text, reply.text)
        for flow in flows:
            self.passes(flow)
        self.n1.local("enable", "one")
        until("n2 has heard of it", lambda: not self.n2.rows()[row]["draining"])
        for node in (self.n1, self.n2):
            self.goes_to(node, self.one)
        for flow in flows:
            self.passes(flow, 100_000)

    def n1_refuses(self):
        client = self.connect(self.n2)
        client.sendall(head_for("one"))
        carried = self.outcome(client, self.one)
        client.close()
        if carried:
            carried.accept().close()
        return not carried

    def test_drain_timeout_cuts_what_still_runs(self):
        self.set(drain_timeout="1s")
        self.pair()
        flows = [self.flow(way, "name") for way in self.ALL.values()]
        self.term(self.n1)
        for flow in flows:
            self.assertTrue(breaks(flow.client))
            self.assertTrue(breaks(flow.backend))
        self.assertEqual(self.n1.ended(), 0)

    def test_second_signal_ends_it_at_once(self):
        self.pair()
        flow = self.flow(self.UP, "name")
        self.term(self.n1)
        self.until_draining(self.n1, self.n2)
        self.passes(flow)
        self.term(self.n1)
        self.n1.ended()
        self.assertTrue(breaks(flow.client))
        self.assertTrue(breaks(flow.backend))

    def test_without_clients_it_ends_within_two_seconds(self):
        self.pair()
        self.each_flow(self.ALL, ("port",), self.passes)
        until("nothing runs", lambda: all(n.counters()["forward_relayed"] == 0 for n in (self.n1, self.n2)))
        for node in (self.n2, self.n1):
            since = time.monotonic()
            self.term(node)
            self.assertEqual(node.ended(), 0)
            self.assertLess(time.monotonic() - since, 2.9 * SLOW)  # where it would be cut short


class Changes(ForwardTest):
    def test_changes_of_the_maps_touch_no_stream(self):
        self.pair()
        flows = [self.flow(way, by) for way in self.ALL.values() for by in ("port", "name")]
        for i in range(10):
            for node in (self.n1, self.n2):
                node.local("offer", f"more{i}", "127.0.0.1:9")
            for flow in flows:
                self.passes(flow)
        for i in range(10):
            for node in (self.n1, self.n2):
                node.local("withdraw", f"more{i}")
            for flow in flows:
                self.passes(flow)


if __name__ == "__main__":
    main()
