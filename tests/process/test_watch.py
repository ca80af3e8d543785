#!/usr/bin/python3
"""Watch against real nodes: what is told is what the maps are, whatever happens, for however many."""
import fnmatch
import json
import resource
import selectors
import signal
import socket
import struct

from harness import MeshTest, SLOW, main, until
from test_questions import Asker
from test_strangers import HELLO, frame, load
from watching import Watch

MANY = 10000 if SLOW == 1 else 2000


def shown(row):
    """What a row says, of both kinds of rows."""
    get = row.get if isinstance(row, dict) else lambda name: getattr(row, name)
    return tuple(get(n) for n in ("key", "name", "ip", "backend_addr", "peer_id", "connected", "stale", "draining"))


class Watching(MeshTest):
    def setUp(self):
        super().setUp()
        self.pb = load(self.mesh.dir)

    def agrees(self, watch, node, glob="*", peer=None):
        """True when the copy is what the node shows, as of one revision."""
        maps = node.maps()
        try:
            watch.until(lambda: watch.revision >= maps["revision"])
        except EOFError:
            raise AssertionError("the stream ended") from None
        if watch.revision != maps["revision"]:
            return False
        rows = {shown(row) for row in maps["services"]
                if fnmatch.fnmatchcase(row["name"], glob) and peer in (None, row["ip"], row["peer_id"])}
        self.assertEqual({shown(row) for row in watch.rows.values()}, rows)
        return True

    def test_the_copies_are_what_the_maps_are_whatever_happens(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80", "db:127.0.0.1:5432"]).start()
        n2 = self.mesh.node("n2", services=["web:10.0.0.2:80"], peers=[n1]).start()
        n3 = self.mesh.node("n3", services=["db:10.0.0.3:1", "mq:10.0.0.3:2"], peers=[n1]).start()
        filters = [{}, {"name_glob": "web"}, {"name_glob": "?b*"}, {"peer": "n2"}, {"peer": "local"},
                   {"name_glob": "db", "peer": n3.host}]
        watches = [(Watch(self.pb, n1, local=i % 2 == 1, heartbeat_ms=200, **f), f)
                   for i, f in enumerate(filters)]
        for watch, _ in watches:
            self.addCleanup(watch.socket.close)
            watch.until_synced()

        def all_agree():
            return all(self.agrees(w, n1, f.get("name_glob", "*"),
                                   {None: None, "local": "local"}.get(f.get("peer"), f.get("peer")))
                       for w, f in watches)
        until("the copies agree at first", all_agree)
        for step in range(30):
            node = self.random.choice([n1, n2, n3])
            name = self.random.choice(["web", "db", "mq", "b-2"])
            if step == 10:
                n2.kill()
            elif step == 14:
                n2.start()
            elif step == 20:
                n3.signal(signal.SIGTERM)
                n3.ended()
            elif not node.alive():
                continue
            elif self.random.random() < 0.6:
                node.local("offer", name, f"127.0.0.1:{step + 1}", check=False)
            else:
                node.local("withdraw", name, check=False)
            if step % 5 == 4:
                until("the copies agree", all_agree)
        n1.local("offer", "b-2", "127.0.0.1:99")  # whatever came about before, one is withdrawn
        until("the copies agree on it", all_agree)
        n1.local("withdraw", "b-2")
        until("n2 is live", lambda: n1.rows().get(f"web@{n2.host}", {}).get("connected"))
        n2.kill()
        until("n2 is stale", lambda: n1.rows().get(f"web@{n2.host}", {}).get("stale"))
        until("the copies agree while n2 is stale", all_agree)
        until("n2 has gone", lambda: f"web@{n2.host}" not in n1.rows(), 15)
        until("the copies agree when it is gone", all_agree)
        whys = {why for watch, _ in watches for _, why in watch.whys}
        self.assertLessEqual({"withdrawn", "left", "timed out"}, whys)
        self.assertEqual({watch.resyncs for watch, _ in watches}, {1})

    def test_a_stream_goes_on_where_it_was_and_after_a_restart_anew(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"]).start()
        with Watch(self.pb, n1) as watch:
            watch.until_synced()
            epoch, revision = watch.epoch, watch.revision
        for port in range(1, 6):
            n1.local("offer", "db", f"127.0.0.1:{port}")
        with Watch(self.pb, n1, from_epoch=epoch, from_revision=revision) as watch:
            watch.until_synced()
            self.assertEqual(watch.resyncs, 0)
            self.assertEqual({key: row.backend_addr for key, row in watch.rows.items()}, {"db@local": "127.0.0.1:5"})
            with self.assertRaisesRegex((EOFError, ConnectionError), ".*"):
                n1.signal(signal.SIGTERM)
                while True:
                    watch.step()
            n1.ended()
            epoch, revision = watch.epoch, watch.revision
        n1.start()
        with Watch(self.pb, n1, from_epoch=epoch, from_revision=revision) as watch:
            watch.until_synced()
            self.assertEqual(watch.resyncs, 1)
            self.assertEqual(set(watch.rows), {"web@local"})
            self.assertNotEqual(watch.epoch, epoch)

    def test_what_is_too_much_to_be_remembered_is_told_as_a_picture(self):
        config = self.mesh.dir / "small.yaml"
        config.write_text("limits:\n  watch_log_bytes: 64KiB\n")
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"], flags=["-c", str(config)]).start()
        with Watch(self.pb, n1) as watch, Watch(self.pb, n1, local=True, name_glob="svc-0007") as one:
            watch.until_synced()
            one.until_synced()
            n2 = self.mesh.node("n2", services=[f"svc-{i:04}:10.0.0.1:{i + 1}" for i in range(1500)], peers=[n1]).start()
            watch.until(lambda: len(watch.rows) == 1501 and watch.seen is None)
            one.until(lambda: f"svc-0007@{n2.host}" in one.rows and one.seen is None)
            self.assertGreater(watch.resyncs, 1)
            until("the copies agree", lambda: self.agrees(watch, n1))
            n2.kill()
            watch.until(lambda: len(watch.rows) == 1 and watch.seen is None)
            one.until(lambda: not one.rows and one.seen is None)

    def test_watch_as_a_call_is_told_where_it_is_served(self):
        n1 = self.mesh.node("n1").start()
        with Asker(self.pb, n1) as asker:
            status, _, _ = asker.ask("Watch", self.pb.WatchRequest(), self.pb.WatchReply)
            self.assertEqual(status, 9, "FAILED_PRECONDITION")

    def offer_all(self, node, names, port):
        """One Offer for each name, many under way at once, through the Unix socket."""
        asker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        asker.connect(str(node.socket))
        asker.settimeout(60 * SLOW)
        asker.sendall(HELLO)
        got = b""
        while len(got) < 8:
            got += asker.recv(8 - len(got))
        for begin in range(0, len(names), 50):
            batch = b""
            for i, name in enumerate(names[begin:begin + 50]):
                request = self.pb.OfferRequest(lease_id=f"l{begin + i}", name=name, backend_addr=f"127.0.0.1:{port}")
                payload = struct.pack(">I", 0x80000000 | (begin + i)) + frame(self.pb, "Offer", request, begin + i)
                batch += b"\1" + struct.pack(">Q", len(payload)) + payload
            asker.sendall(batch)
            replies, buffer = 0, b""
            while replies < len(names[begin:begin + 50]):
                piece = asker.recv(1 << 16)
                self.assertTrue(piece, "the node closed the connection")
                buffer += piece
                while len(buffer) >= 9:
                    size = struct.unpack_from(">Q", buffer, 1)[0]
                    if len(buffer) < 9 + size:
                        break
                    buffer = buffer[9 + size:]
                    replies += 1
            yield begin
        asker.close()

    def test_ten_thousand_watch_one_node_through_a_storm(self):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        many = min(MANY, hard - 500)
        names = [f"svc-{i:05}" for i in range(many)]
        n1 = self.mesh.node("n1", LOG_MAPS="off").start()
        before = n1.rss_kib()
        selector = selectors.DefaultSelector()
        wide = [Watch(self.pb, n1, local=True) for _ in range(3)]
        slow = [Watch(self.pb, n1, local=True) for _ in range(20)]  # never read during the storm
        one = [Watch(self.pb, n1, local=True, name_glob=name) for name in names[:many - 30]]
        watches = wide + slow + one
        for watch in watches:
            self.addCleanup(watch.socket.close)
            watch.until_synced()
        self.assertEqual(n1.counters()["gate_watchers"], len(watches))
        opened = n1.rss_kib()
        for watch in wide + one:
            watch.socket.setblocking(False)
            selector.register(watch, selectors.EVENT_READ, watch)

        def read_all(wait=0):
            for key, _ in selector.select(wait):
                key.data.step()
        with Asker(self.pb, n1) as asker:
            for port in (1, 2, 3):
                for begin in self.offer_all(n1, names, port):
                    read_all()
                    if begin % 1000 == 0:  # others are served meanwhile
                        status, _, _ = asker.ask("Lookup", self.pb.LookupRequest(names=["svc-00000"]), self.pb.LookupReply)
                        self.assertEqual(status, 0)
        done = {watch: f"127.0.0.1:{port}" for watch in one}

        def told(watch):
            return [row.backend_addr for row in watch.rows.values()] == [done[watch]]
        until("each was told of its name", lambda: read_all(0.05) or all(map(told, one)), 60)
        until("some were told of all",
              lambda: read_all(0.05) or all(len(w.rows) == many and {r.backend_addr for r in w.rows.values()} ==
                                            {f"127.0.0.1:{port}"} for w in wide), 60)
        self.assertEqual({watch.resyncs for watch in one}, {1}, "nobody who reads is thrown back")
        counters = n1.counters()
        stormed = n1.rss_kib()
        limits = {l["name"]: l for l in self.limits(n1)}
        self.assertEqual(limits["watchers"]["used"], len(watches))
        self.assertLessEqual(limits["watch_log_bytes"]["used"], limits["watch_log_bytes"]["limit"])
        self.assertLessEqual(counters["gate_watch_pictures"], 17)
        for watch in slow:
            watch.until(lambda w=watch: w.seen is None and len(w.rows) == many and
                        {r.backend_addr for r in w.rows.values()} == {f"127.0.0.1:{port}"})
        print(f"{len(watches)} watchers, {3 * many} changes: {counters['gate_watch_messages']} messages, "
              f"{counters['gate_watch_events']} events, {n1.counters()['gate_watch_resyncs']} resyncs; "
              f"RSS {before} KiB, {opened} with all watchers, {stormed} after the storm, "
              f"{(opened - before) * 1024 // len(watches)} bytes each")
        if SLOW == 1:
            self.assertLess(stormed - before, 150 * 1024, "memory is bounded")
        for watch in watches:
            watch.socket.close()
        until("all have gone", lambda: n1.counters()["gate_watchers"] == 0)

    def limits(self, node):
        return json.loads(node.cat("node", "--format", "json").stdout)["limits"]


if __name__ == "__main__":
    main()
