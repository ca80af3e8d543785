#!/usr/bin/python3
"""What a peer says of the state of each of its services reaches whoever asks, and their choice."""
import json
import re

from harness import MeshTest, main, until
from rawpeer import RawPeer
from test_log import pictures
from test_questions import Asker
from test_strangers import load
from watching import Watch

STATES = {"fine": "", "sick": "unhealthy", "closing": "draining", "both": "unhealthy draining"}


class StatesTest(MeshTest):
    def setUp(self):
        super().setUp()
        self.set(heartbeat="10s", peer_timeout="60s")  # the peers of the test say no more than it makes them
        self.pb = load(self.mesh.dir)
        self.n1 = self.mesh.node("n1", services=["own:127.0.0.1:9"]).start()
        self.peer = RawPeer(self, self.pb, self.n1, "p2", 2).join()
        self.peer.offer(*((name, "127.0.0.1:9", state) for name, state in STATES.items()))

    def names(self, *args):
        """The names that a table of meshcat shows, with their states."""
        head, *lines = (line.split() for line in self.n1.cat(*args).stdout.splitlines())
        self.assertEqual(head[:6], ["NAME", "SOURCE", "BACKEND", "PEER", "ID", "STATE"])
        return {line[0]: line[4] for line in lines}

    def printed(self):
        """The pictures, whichever second they are of."""
        return pictures(re.sub(r"last_sync=\d+", "last_sync=N", self.n1.out.read_text()))

    def test_every_answer_says_the_state_of_each(self):
        rows = {r["name"]: r for r in self.n1.maps()["services"]}
        infos = {s["name"]: s for s in self.n1.peer_rows()["p2"]["services"]}
        routes = {r["name"]: r["routes"][0]
                  for r in json.loads(self.n1.cat("lookup", *STATES, "--format", "json").stdout)["results"]}
        for name, state in STATES.items():
            for answer in (rows, infos, routes):
                self.assertEqual(answer[name]["healthy"], "unhealthy" not in state, name)
                self.assertEqual(answer[name]["draining"], "draining" in state, name)
        self.assertEqual((rows["own"]["healthy"], rows["own"]["draining"]), (True, False))
        self.assertFalse(self.n1.peer_rows()["p2"]["draining"], "its own state is another matter")
        shown = {"own": "connected", "fine": "connected", "sick": "unhealthy", "closing": "draining",
                 "both": "draining"}
        self.assertEqual(self.names("services"), shown)
        self.assertEqual(self.names("lookup", *STATES), {n: s for n, s in shown.items() if n != "own"})
        whys = {"fine": "connected", "sick": "unhealthy: its backend does not answer", "closing": "draining",
                "both": "draining, and unhealthy"}
        for name, why in whys.items():
            candidate = json.loads(self.n1.cat("explain", name, "--format", "json").stdout)["candidates"][0]
            self.assertTrue(candidate["chosen"], name)
            self.assertTrue(candidate["why"].startswith(why), candidate["why"])

    def test_rows_are_found_by_their_state(self):
        self.assertEqual(set(self.names("services", "--state", "draining")), {"closing", "both"})
        self.assertEqual(set(self.names("services", "--state", "unhealthy")), {"sick", "both"})
        self.assertEqual(set(self.names("services", "--state", "unhealthy", "--name", "s*")), {"sick"})
        pb = self.pb
        with Asker(pb, self.n1) as asker:
            for state, names in ((pb.ROW_STATE_DRAINING, ["both", "closing"]),
                                 (pb.ROW_STATE_UNHEALTHY, ["both", "sick"])):
                pages = asker.pages(state=state, page_rows=1)
                self.assertEqual({(p.services_total, p.peers_total) for p in pages}, {(2, 1)})
                self.assertEqual([r.name for p in pages for r in p.services], names)
                self.assertEqual([s.name for p in pages for r in p.peer_services for s in r.services], names)
            self.peer.offer(("closing", "127.0.0.1:9", ""), ("both", "127.0.0.1:9", ""))
            page = asker.introspect(state=pb.ROW_STATE_DRAINING)[1]
            self.assertEqual((page.services_total, page.peers_total, len(page.peer_services)), (0, 0, 0))

    def test_a_state_that_changes_is_one_change_and_told_of_that_one_alone(self):
        with Watch(self.pb, self.n1) as watch:
            watch.until_synced()
            self.assertEqual({name: (watch.rows[f"{name}@{self.peer.host}"].healthy,
                                     watch.rows[f"{name}@{self.peer.host}"].draining) for name in STATES},
                             {name: ("unhealthy" not in state, "draining" in state) for name, state in STATES.items()})
            until("what is known is printed",
                  lambda: "svc_map={total=5}" in self.printed()[-1])
            printed = len(self.printed())
            revision = self.n1.maps()["revision"]
            for i, state in enumerate(("unhealthy", "unhealthy draining", "draining", ""), 1):
                told = watch.events
                self.peer.offer(("fine", "127.0.0.1:9", state))
                watch.until(lambda: watch.revision == revision + i)
                self.assertEqual(watch.events, told + 1)
                row = watch.rows[f"fine@{self.peer.host}"]
                self.assertEqual((row.healthy, row.draining), ("unhealthy" not in state, "draining" in state))
                until("it is printed", lambda: len(self.printed()) == printed + i)
        until("the last is printed to its end, and like those before: the format shows no state",
              lambda: len(set(self.printed()[printed - 1:])) == 1)

    def test_the_order_of_an_answer_follows(self):
        other = RawPeer(self, self.pb, self.n1, "p3", 3).join()
        for states in (("draining", "unhealthy"), ("", "unhealthy"), ("", "draining"),
                       ("unhealthy", "unhealthy draining")):
            for first, second in (self.peer, other), (other, self.peer):
                first.offer(("own", "127.0.0.1:9", states[0]))
                second.offer(("own", "127.0.0.1:9", states[1]))
                result = json.loads(self.n1.cat("lookup", "own", "--format", "json").stdout)["results"][0]
                self.assertEqual([r["ip"] for r in result["routes"]], ["local", first.host, second.host])


if __name__ == "__main__":
    main()
