#!/usr/bin/python3
"""Explain before, during and after whatever may happen to a stream, a link, a node or a backend.

Each time it names every candidate with its id, its address and when it was last heard, says which is
chosen, and of all of them why, or why not.
"""
import json
import signal
import socket

from cable import LINK, Cable, reset
from forwarding import (NOWHERE, Backend, Flow, ForwardTest, ask, black_hole, breaks, digest, head_for, receive,
                        receive_all)
from harness import SLOW, main, until


class ExplainTest(ForwardTest):
    def ips(self):
        """Where nodes are, or seem to be to those that dialled them through a cable."""
        return {n.host for n in self.mesh.nodes} | {f"{self.mesh.net}.100"}

    def explain(self, node, name):
        """Its candidates by peer id, and the verdict; what holds of every answer is checked."""
        done = node.cat("explain", name, "--format", "json", check=False)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        answer = json.loads(done.stdout)
        candidates = answer.get("candidates", [])
        chosen = [c["route"] for c in candidates if c["chosen"]]
        self.assertTrue(answer["verdict"], answer)
        if chosen:
            self.assertEqual(candidates[0]["route"], chosen[0])
            self.assertIn(chosen[0]["ip"], answer["verdict"])
        self.assertLessEqual(len(chosen), 1)
        for candidate in candidates:
            self.assertTrue(candidate["why"], candidate)
            self.assertTrue(candidate["route"]["peer_id"], candidate)
            self.assertIn(candidate["route"]["ip"].split("#")[0], self.ips() | {"local"})
            self.assertLess(candidate["seen_s_ago"], 60 * SLOW)
            if candidate["last_failure"]:
                self.assertLess(candidate["last_failure_ms_ago"], 60_000 * SLOW)
        return {c["route"]["peer_id"]: c for c in candidates}, answer["verdict"]

    def the_one(self, way):
        """The only candidate of that way's service, and the verdict."""
        candidates, verdict = self.explain(self.node_named(way[0]), way[1])
        self.assertEqual(set(candidates), {self.owner_of(way).name})
        return candidates[self.owner_of(way).name], verdict

    def owner_of(self, way):
        return self.n1 if way[1] == "one" else self.n2

    def is_chosen(self, way, failure=""):
        """The owner of that way's service would carry a client now; returns the candidate."""
        candidate, _ = self.the_one(way)
        self.assertEqual((candidate["chosen"], candidate["last_failure"]), (True, failure))
        if way == self.LOCAL:
            self.assertEqual((candidate["route"]["ip"], candidate["session"]), ("local", ""))
        else:
            self.assertIn(candidate["route"]["ip"], self.ips())
            self.assertEqual(len(candidate["session"]), 8)
        return candidate

    def is_lost(self, way):
        """Its link is, and nobody else would carry a client."""
        candidate, verdict = self.the_one(way)
        self.assertEqual((candidate["chosen"], candidate["route"]["connected"], candidate["session"]), (False, False, ""))
        self.assertIn("lost", candidate["why"])
        self.assertIn("503", verdict)
        self.assertIn("503", self.node_named(way[0]).cat("explain", way[1], check=False).stdout)

    def is_chosen_again(self, way, before):
        def look():
            candidates, _ = self.explain(self.node_named(way[0]), way[1])
            return [c for c in candidates.values() if c["chosen"] and c["session"] != before["session"]]
        until("the owner is chosen again, on another session", look, 20)
        self.is_chosen(way)


class Streams(ExplainTest):
    """What only the two ends of a stream do to each other says nothing against its owner."""

    def client_ends_first(self, flow):
        flow.client.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_all(flow.backend), b"")
        flow.backend.close()
        self.assertEqual(receive_all(flow.client), b"")

    def backend_ends_first(self, flow):
        flow.backend.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_all(flow.client), b"")
        flow.client.close()
        self.assertEqual(receive_all(flow.backend), b"")

    def client_resets(self, flow):
        reset(flow.client)
        self.assertTrue(breaks(flow.backend))

    def backend_resets(self, flow):
        reset(flow.backend)
        self.assertTrue(breaks(flow.client))

    def client_talks_in_single_bytes(self, flow):
        for i in range(50):
            flow.client.sendall(bytes([i]))
            self.assertEqual(receive(flow.backend, 1), bytes([i]))

    def backend_says_much(self, flow):
        data = self.payload(100_000)
        flow.backend.sendall(data)
        self.assertEqual(digest(receive(flow.client, len(data))), digest(data))

    def test_ends_resets_and_bytes_are_no_failures_and_each_stream_counts_while_it_runs(self):
        self.pair()
        for what in (self.client_ends_first, self.backend_ends_first, self.client_resets, self.backend_resets,
                     self.client_talks_in_single_bytes, self.backend_says_much):
            for way in self.ALL.values():
                with self.subTest(what=what.__name__, way=way):
                    before = self.is_chosen(way)
                    self.assertEqual(before["active"], 0)
                    flow = self.flow(way, "name")
                    self.assertEqual(self.is_chosen(way)["active"], 1)
                    what(flow)
                    flow.client.close()
                    flow.backend.close()
                    until("it is counted no more", lambda: self.is_chosen(way)["active"] == 0)
                    self.assertEqual(self.is_chosen(way)["session"], before["session"])


class Losses(ExplainTest):
    def test_owner_that_is_killed_amid_a_stream_and_comes_back(self):
        self.pair()
        for way in self.REMOTE.values():
            with self.subTest(way=way):
                before, flow = self.is_chosen(way), self.flow(way, "name")
                self.passes(flow, 1)
                self.owner_of(way).kill()
                self.assertTrue(breaks(flow.client))
                until("the loss is seen", lambda: not self.the_one(way)[0]["route"]["connected"])
                self.is_lost(way)
                self.owner_of(way).start()
                self.is_chosen_again(way, before)
                self.mesh.until_agreed()

    def test_link_that_is_cut_amid_a_stream_and_comes_back(self):
        self.pair(cable=True)
        before = {way: self.is_chosen(way) for way in self.REMOTE.values()}
        flows = [self.flow(way, "name") for way in self.REMOTE.values()]
        for flow in flows:
            self.passes(flow)  # it has its own connection now, besides the link
        self.cable.refuse(LINK)
        self.assertEqual(self.cable.cut(LINK), 1)
        for way in self.REMOTE.values():
            until("the loss is seen", lambda: not self.the_one(way)[0]["route"]["connected"])
            self.is_lost(way)
        for flow in flows:
            self.passes(flow)
        self.cable.refuse(LINK, on=False)
        for way, candidate in before.items():
            self.is_chosen_again(way, candidate)
        for flow in flows:
            self.passes(flow)


class Backends(ExplainTest):
    flags = ("--dial-timeout=1s",)

    def test_backends_that_refuse_and_that_say_nothing_are_remembered_with_their_reason(self):
        self.pair()
        at = {node: {"gone": f"gone-{node.name}", "hole": f"hole-{node.name}"} for node in (self.n1, self.n2)}
        for node, names in at.items():
            node.local("offer", names["gone"], f"{self.mesh.net}.200:{NOWHERE}")
            node.local("offer", names["hole"], black_hole(self))
        until("all is known", lambda: all(len(n.reachable()) == 6 for n in (self.n1, self.n2)))
        for what, status, failure in (("gone", 502, "backend_refused"), ("hole", 504, "backend_timed_out")):
            for where, service in self.ALL.values():
                node, owner = self.node_named(where), self.n1 if service == "one" else self.n2
                name = at[owner][what]
                with self.subTest(at=where, name=name):
                    before = self.explain(node, name)[0][owner.name]
                    self.assertEqual((before["chosen"], before["last_failure"]), (True, ""))
                    self.assertEqual(ask(self.connect(node), head_for(name)).status, status)
                    after = self.explain(node, name)[0][owner.name]
                    self.assertEqual((after["chosen"], after["last_failure"], after["active"]), (True, failure, 0))
                    self.assertTrue(after["last_failure_text"])
                    self.assertIn(failure, node.cat("explain", name).stdout)


class Choices(ExplainTest):
    """Two owners: why the other one, and why not."""

    def two_owners(self):
        self.set(heartbeat="500ms", peer_timeout="60s")
        self.backends = [Backend(self), Backend(self)]
        self.owners = [self.mesh.node(f"n{n}", services=[f"web:{b.address}"]).start()
                       for n, b in zip((2, 3), self.backends)]
        self.cables = [Cable(self, node, f"{self.mesh.net}.1") for node in self.owners]
        self.n1 = self.mesh.node("n1", peers=[c.address for c in self.cables], INGRESS_ADDR=self.ingress(1)).start()
        until("n1 knows both", lambda: [r["connected"] for r in self.n1.rows().values()] == [True, True])

    def chosen(self):
        candidates, _ = self.explain(self.n1, "web")
        return next((name for name, c in candidates.items() if c["chosen"]), None), candidates

    def test_another_is_chosen_for_a_reason_that_is_told(self):
        self.two_owners()
        first, candidates = self.chosen()
        second = "n3" if first == "n2" else "n2"
        self.assertIn("stable order", candidates[second]["why"])

        client = self.connect(self.n1)  # one forward more
        client.sendall(head_for("web"))
        end = self.backends[int(first[1]) - 2].accept()
        receive(end, len(head_for("web")))
        self.passes(Flow(client, end))
        chosen, candidates = self.chosen()
        self.assertEqual((chosen, candidates[first]["active"], candidates[second]["active"]), (second, 1, 0))
        self.assertIn("more than 0", candidates[first]["why"])

        self.node_named(second).signal(signal.SIGSTOP)  # nothing is heard of it for a while
        until("it is not chosen", lambda: self.chosen()[0] == first)
        self.assertRegex(self.chosen()[1][second]["why"], "suspect|lost")
        self.node_named(second).signal(signal.SIGCONT)
        until("it is chosen again", lambda: self.chosen()[0] == second, 20)

        of_first = self.cables[int(first[1]) - 2]
        of_first.refuse(LINK)
        of_first.cut(LINK)
        until("that is told", lambda: "lost" in self.chosen()[1][first]["why"])
        self.assertEqual(self.chosen()[0], second)
        of_first.refuse(LINK, on=False)
        until("it is back", lambda: "lost" not in self.chosen()[1][first]["why"], 20)
        end.sendall(b"still here")
        self.assertEqual(receive(client, 10), b"still here")

        self.node_named(first).signal(signal.SIGTERM)  # it has a stream to finish
        until("that is told", lambda: "about to leave" in self.chosen()[1][first]["why"])
        self.assertEqual(self.chosen()[0], second)
        self.node_named(second).kill()
        until("there is nobody else", lambda: self.chosen()[0] == first)
        self.assertIn("nobody better", self.chosen()[1][first]["why"])
        client.close()
        end.close()
        self.assertEqual(self.node_named(first).ended(), 0)


if __name__ == "__main__":
    main()
