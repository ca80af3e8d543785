#!/usr/bin/python3
"""Many at once: a storm of restarts, a long list synced in parts, ten nodes of which three misbehave."""
import signal
import time

from harness import MeshTest, PEER_TIMEOUT_MS, SLOW, main, until


class Storm(MeshTest):
    def test_after_50_restarts_all_agree_and_nothing_is_left_over(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"]).start()
        n3 = self.mesh.node("n3", services=["mail:127.0.0.1:25"], peers=[n1]).start()
        n2 = self.mesh.node("n2", peers=[n1, n3])
        n2.services = ["s0:127.0.0.1:1"]
        n2.start()
        self.mesh.until_agreed()
        before = n1.descriptors()
        for i in range(1, 51):
            n2.kill() if self.random.random() < 0.8 else (n2.signal(signal.SIGTERM), n2.ended())
            n2.services = [f"s{i}:127.0.0.1:{i}", f"t{i}:127.0.0.1:{i}"]
            n2.spawn()
            if self.random.random() < 0.5:
                until("n1 has heard of it", lambda: n2.truth() <= n1.believes(), 20)
        self.mesh.until_agreed(seconds=30)
        until("no descriptor is left over", lambda: n1.descriptors() <= before, 20)
        self.assertTrue(n1.info()["nng_healthy"])
        until("each pipe is one of a link", lambda: (c := n1.counters())["gate_parked"] == 0 and
              c["ports_pipes_added"] - c["ports_pipes_removed"] == c["node_links_live"])


class LongList(MeshTest):
    N = 10_000

    def test_10000_services_arrive_in_parts_and_go_in_one_step(self):
        n1 = self.mesh.node("n1", LOG_MAPS="summary").start()
        config = self.mesh.dir / "n2.yaml"
        config.write_text("services:\n" + "".join(
            f"  - {{name: service-{i:05}.example, backend: \"10.1.{i // 250}.{i % 250}:{1024 + i}\"}}\n"
            for i in range(self.N)))
        # A message of n2 cannot hold the list, so that Register does not bring it.
        n2 = self.mesh.node("n2", peers=[n1], LOG_MAPS="summary",
                            flags=["-c", str(config), "--limit", "message_bytes=128KiB"])
        began = time.monotonic()
        n2.start()
        until("n1 has all", lambda: n1.counters()["registry_services"] == self.N, 30)
        print(f"{self.N} services started, synced and seen after {time.monotonic() - began:.1f} s")
        self.assertGreater(n2.counters()["node_sync_parts_sent"], 5)
        self.assertEqual({(r["name"], r["backend_addr"]) for r in n1.rows().values()},
                         {(r["name"], r["backend_addr"]) for r in n2.rows().values()})
        peer = n1.peer_rows()["n2"]
        self.assertEqual((len(peer["services"]), peer["connected"]), (self.N, True))

        revision = n1.maps()["revision"]
        n2.local("offer", "one-more", "127.0.0.1:1")
        until("a change is a delta", lambda: n1.counters()["registry_services"] == self.N + 1)
        self.assertEqual(n1.maps()["revision"], revision + 1)
        n2.kill()
        until("all go", lambda: n1.counters()["registry_services"] == 0, PEER_TIMEOUT_MS / 1000 + 10)

        def totals():
            return [line.rsplit("=", 1)[1] for line in n1.out.read_text().splitlines() if "svc_map" in line]
        until("that is printed", lambda: totals()[-1] == "0}")
        self.assertNotIn("1}", totals(), "they went in one step")


class TenNodes(MeshTest):
    def test_one_killed_one_stopped_one_restarted_and_all_agree_again(self):
        nodes = []
        for i in range(1, 11):
            nodes.append(self.mesh.node(f"n{i}", peers=list(nodes), services=[
                f"web:127.0.0.1:{8000 + i}", f"only-{i}:127.0.0.1:{9000 + i}"]))
        for node in nodes:
            node.spawn()
        self.mesh.until_agreed(seconds=40)

        killed, stopped, restarted = self.random.sample(nodes, 3)
        print(f"killed {killed.name}, stopped {stopped.name}, restarted {restarted.name}")
        killed.kill()
        stopped.signal(signal.SIGSTOP)
        restarted.kill()
        restarted.services = ["fresh:127.0.0.1:7000", "web:127.0.0.1:7001"]
        restarted.start()
        rest = [n for n in nodes if n not in (killed, stopped)]
        self.mesh.until_agreed(rest, seconds=PEER_TIMEOUT_MS / 1000 + 20)
        began = time.monotonic()
        stopped.signal(signal.SIGCONT)
        killed.start()
        self.mesh.until_agreed(nodes, seconds=40)
        print(f"all agree {time.monotonic() - began:.1f} s after the healing (x{SLOW})")


if __name__ == "__main__":
    main()
