#!/usr/bin/python3
"""A mesh of three: what each believes while nodes come, change, fall silent, die and leave."""
import json
import signal

from harness import MeshTest, PEER_TIMEOUT_MS, always, main, until


class Three(MeshTest):
    def setUp(self):
        super().setUp()
        self.settings()
        m = self.mesh
        self.n1 = m.node("n1", services=["web:127.0.0.1:80", "db:127.0.0.1:5432"])
        self.n2 = m.node("n2", services=["web:10.0.0.2:80"], peers=[self.n1])
        self.n3 = m.node("n3", services=["mail:[::1]:25"], peers=[self.n1, self.n2])
        for node in m.nodes:
            node.start()
        m.until_agreed()

    def settings(self):
        pass


class ThreeNodes(Three):
    def test_keys_sources_and_owners_are_as_documented(self):
        rows = self.n2.rows()
        self.assertEqual(set(rows), {"web@local", f"web@{self.n1.host}", f"db@{self.n1.host}",
                                     f"mail@{self.n3.host}"})
        row = rows[f"db@{self.n1.host}"]
        self.assertEqual((row["name"], row["ip"], row["peer_id"], row["backend_addr"]),
                         ("db", self.n1.host, "n1", "127.0.0.1:5432"))
        self.assertEqual(rows[f"mail@{self.n3.host}"]["backend_addr"], "[::1]:25")
        peers = self.n2.peer_rows()
        self.assertEqual(set(peers), {"n1", "n3"})
        self.assertEqual(peers["n1"]["peer_ip"], self.n1.host)
        self.assertEqual({s["source_peer"] for s in peers["n1"]["services"]}, {self.n1.host})
        self.assertGreater(peers["n1"]["last_sync"], 1_600_000_000)

    def test_lookup_gives_the_local_one_first(self):
        reply = json.loads(self.n2.cat("lookup", "web", "--format", "json").stdout)
        routes = reply["results"][0]["routes"]
        self.assertEqual([r["peer_id"] for r in routes], ["n2", "n1"])

    def test_what_is_offered_at_run_time_is_seen_everywhere_and_withdrawn_everywhere(self):
        self.n1.local("offer", "cache", "127.0.0.1:11211")
        key = f"cache@{self.n1.host}"
        for node in (self.n2, self.n3):
            until(f"{node.name} sees the offer", lambda: key in node.rows())
        self.n1.local("withdraw", "cache")
        for node in (self.n2, self.n3):
            until(f"{node.name} sees it withdrawn", lambda: key not in node.rows())
        self.mesh.until_agreed()

    def test_offering_needs_the_local_socket(self):
        done = self.n1.cat("offer", "cache", "127.0.0.1:11211", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse(any(k.startswith("cache@") for k in self.n1.rows()))

    def test_killed_node_is_stale_then_gone_then_back(self):
        key = f"mail@{self.n3.host}"
        self.n3.kill()
        for node in (self.n1, self.n2):
            maps = until(f"{node.name} calls it stale", lambda: (m := node.try_maps()) and any(
                r["key"] == key and r["stale"] and not r["connected"] for r in m["services"]) and m)
            self.assertEqual([p["stale"] for p in maps["peer_services"] if p["peer_id"] == "n3"], [True])
        for node in (self.n1, self.n2):
            until(f"{node.name} forgets it", lambda: node.rows() and key not in node.rows(),
                  PEER_TIMEOUT_MS / 1000 + 10)
            self.assertNotIn("n3", node.peer_rows())
        self.n3.start()
        self.mesh.until_agreed()

    def test_node_stopped_for_longer_than_the_grace_agrees_again(self):
        key = f"web@{self.n2.host}"
        self.n2.signal(signal.SIGSTOP)
        for node in (self.n1, self.n3):
            until(f"{node.name} forgets it", lambda: node.rows() and key not in node.rows(),
                  PEER_TIMEOUT_MS / 1000 + 10)
        self.n2.signal(signal.SIGCONT)
        self.mesh.until_agreed()

    def test_restart_with_another_list_replaces_the_old_one(self):
        self.n2.kill()
        self.n2.services = ["api:10.0.0.2:8080"]
        self.n2.start()
        self.mesh.until_agreed()


class Patient(Three):
    """Nobody is forgotten while the test looks."""

    def settings(self):
        self.set(heartbeat="2s", peer_timeout="60s")

    def test_repeats_change_nothing_and_print_nothing(self):
        def seen():
            return [(n.maps()["revision"], n.out.stat().st_size) for n in self.mesh.nodes]

        def rest():  # what was known at last is being printed still
            looks = [seen() for _ in range(5)]
            return looks[0] if looks.count(looks[0]) == len(looks) else None
        before = until("all is printed", rest)
        always("no revision moves and nothing is printed", lambda: seen() == before, 4.5)

    def test_stopped_node_is_stale_and_agrees_again_when_it_goes_on(self):
        key = f"web@{self.n2.host}"
        self.n2.signal(signal.SIGSTOP)
        for node in (self.n1, self.n3):
            until(f"{node.name} notices", lambda: (r := node.rows().get(key)) and r["stale"], 20)
        self.n2.signal(signal.SIGCONT)
        self.mesh.until_agreed()

    def test_node_that_leaves_is_gone_at_once(self):
        for _ in range(4):  # its last word must not be overtaken by the end of the connection
            self.n2.signal(signal.SIGTERM)
            self.assertEqual(self.n2.ended(), 0)
            for node in (self.n1, self.n3):
                until(f"{node.name} knows", lambda: (m := node.try_maps()) and not any(
                    r["peer_id"] == "n2" for r in m["services"] + m["peer_services"]))
            self.n2.start()
            self.mesh.until_agreed()


class OtherShapes(MeshTest):
    def test_node_without_services_joins_and_learns(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"]).start()
        n2 = self.mesh.node("n2", peers=[n1]).start()
        self.mesh.until_agreed()
        until("n1 lists n2, with nothing", lambda: n1.peer_rows().get("n2"))
        self.assertEqual(n1.peer_rows()["n2"]["services"], [])
        self.assertIn(f"web@{n1.host}", n2.rows())

    def test_node_that_nobody_dials_back_is_heard_both_ways(self):
        n1 = self.mesh.node("n1").start()
        n2 = self.mesh.node("n2", services=["web:127.0.0.1:80"], peers=[n1]).start()
        self.mesh.until_agreed()
        n1.local("offer", "late", "127.0.0.1:81")
        until("n2 hears it over the link it dialled", lambda: f"late@{n1.host}" in n2.rows())

    def test_two_peers_at_one_address_are_told_apart(self):
        n1 = self.mesh.node("n1").start()
        a = self.mesh.node("a", n=2, port=7401, services=["web:10.0.0.1:80"], peers=[n1]).start()
        b = self.mesh.node("b", n=2, port=7402, services=["web:10.0.0.2:80"], peers=[n1]).start()
        until("n1 has both", lambda: [r["connected"] for r in n1.rows().values()] == [True, True])
        keys = {r["peer_id"]: r["key"] for r in n1.rows().values()}
        self.assertEqual(set(keys), {"a", "b"})
        self.assertIn(f"web@{a.host}", keys.values())
        self.assertTrue(keys["a"] == f"web@{a.host}#a" or keys["b"] == f"web@{b.host}#b", keys)
        label = keys["b"]
        a.kill()
        until("a is gone", lambda: "a" not in n1.peer_rows(), PEER_TIMEOUT_MS / 1000 + 10)
        self.assertEqual({r["key"] for r in n1.rows().values()}, {label}, "nobody is relabelled")

    def test_two_nodes_that_dial_each_other_keep_the_link_of_the_lower_id(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"])
        n2 = self.mesh.node("n2", services=["db:127.0.0.1:81"], peers=[n1])
        n1.peers = [f"{n2.host}:{n2.port}"]
        n1.start()
        n2.start()
        self.mesh.until_agreed()

        def states():
            return [sorted(link["state"] for link in n.info()["links"]) for n in (n1, n2)]
        # n1 has the lower id, so the link that it dialled stays, whichever came first.
        settled = [["live"], ["live", "parked"]]
        until("one live link each", lambda: states() == settled)
        always("it stays", lambda: states() == settled, 2)
        self.mesh.until_agreed()

    def test_peers_may_start_in_any_order(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"])
        n2 = self.mesh.node("n2", services=["db:127.0.0.1:81"], peers=[n1]).start()
        until("n2 has tried", lambda: n2.info()["links"][0]["attempts"] > 0)
        n1.start()
        self.mesh.until_agreed()


if __name__ == "__main__":
    main()
