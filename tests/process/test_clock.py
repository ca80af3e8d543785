#!/usr/bin/python3
"""The wall clock of a node that runs is set: nothing is lost, and no age is made of it."""
import json
import os
import signal
import struct
import time
import urllib.request

from harness import HEARTBEAT_MS, MeshTest, always, main, until

HOURS = 7200
NOW = 60  # seconds off, and still not hours: a busy machine takes its time
ADMIN = 7480


class Clock(MeshTest):
    def setUp(self):
        super().setUp()
        self.set(peer_timeout="60s")
        self.shift_file = self.mesh.dir / "shift"
        self.shift_file.write_bytes(bytes(8))
        self.n2 = self.mesh.node("n2", services=["web:127.0.0.1:80"]).start()
        self.n1 = self.mesh.node("n1", peers=[self.n2], ADMIN_ADDR=f"{self.mesh.net}.1:{ADMIN}",
                                 LD_PRELOAD=os.environ["MESHD_CLOCK_SHIFT"], CLOCK_SHIFT=self.shift_file).start()
        until("they are linked", lambda: len(self.n1.reachable()) == 1)
        self.n1.local("offer", "job", "127.0.0.1:81", "--ttl", "600")

    def shift(self, seconds):
        with open(self.shift_file, "r+b") as file:
            file.write(struct.pack("q", seconds))
        self.shifted = seconds

    def staleness(self):
        with urllib.request.urlopen(f"http://{self.n1.host}:{ADMIN}/metrics", timeout=10) as page:
            line = next(line for line in page.read().decode().splitlines()
                        if line.startswith("meshd_peer_staleness_seconds{"))
        return float(line.split()[-1])

    def ages(self):
        """What is said of the peer's last sign of life, everywhere, as seconds since."""
        explained, = json.loads(self.n1.cat("explain", "web", "--format", "json").stdout)["candidates"]
        route, = json.loads(self.n1.cat("lookup", "web", "--format", "json").stdout)["results"][0]["routes"]
        now = time.time() + self.shifted
        rows = [self.n1.rows()[f"web@{self.n2.host}"], self.n1.peer_rows()["n2"], route, explained["route"]]
        return [self.staleness(), explained["seen_s_ago"], *(now - row["last_seen"] for row in rows)]

    def heard(self):
        return self.n1.counters()["node_heartbeats_received"]

    def test_it_goes_forth_and_back_while_all_stays_and_ages_are_true(self):
        up = self.n1.info()["uptime_ms"]
        for seconds in HOURS, -HOURS, 0:
            self.shift(seconds)
            before = self.heard()
            until("the peer was heard", lambda: self.heard() > before + 1)
            info = self.n1.info()
            now = time.time() + seconds
            self.assertLess(abs(now - info["uptime_ms"] / 1000 - info["started"]), NOW)
            self.assertGreater(info["uptime_ms"], up)
            link = info["links"][0]
            self.assertLess(abs(now - link["since"]), info["uptime_ms"] / 1000 + NOW)
            self.assertEqual((link["state"], self.n1.counters()["node_links_lost"]), ("live", 0))
            self.assertLess(max(map(abs, self.ages())), NOW)
        always("nothing is lost", lambda: set(self.n1.reachable()) == {"job@local", f"web@{self.n2.host}"},
               2 * HEARTBEAT_MS / 1000)

    def test_ages_are_true_before_a_peer_is_heard_again(self):
        self.n2.signal(signal.SIGSTOP)  # it is not
        self.addCleanup(self.n2.signal, signal.SIGCONT)
        for seconds in HOURS, -HOURS, 0:
            self.shift(seconds)
            self.assertLess(max(map(abs, self.ages())), NOW, seconds)

    def test_what_was_started_is_the_same_number_each_time(self):
        said = {self.n1.info()["started"] for _ in range(20)}
        self.assertEqual(len(said), 1)


if __name__ == "__main__":
    main()
