#!/usr/bin/python3
"""What programs may ask: pages of one moment while the maps change, filters, Explain, limits."""
import socket
import struct
import threading

from harness import MeshTest, SLOW, main, until
from rawpeer import digest
from test_strangers import HELLO, frame, load


class Asker:
    """One connection to a node, one call at a time. local: to its Unix socket."""

    def __init__(self, pb, node, local=False):
        self.pb, self.id = pb, 0
        self.lead = b"\1" if local else b""  # of SP-over-IPC messages
        if local:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(str(node.socket))
        else:
            self.socket = socket.create_connection((node.host, node.port), 10 * SLOW)
        self.socket.settimeout(10 * SLOW)
        self.socket.sendall(HELLO)
        self.read(8)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def read(self, size):
        got = b""
        while len(got) < size:
            piece = self.socket.recv(size - len(got))
            assert piece, "closed instead of answered"
            got += piece
        return got

    def ask(self, method, request, reply):
        """(status, reason, reply) of a call."""
        self.id += 1
        payload = struct.pack(">I", 0x80000000 | self.id) + frame(self.pb, method, request, self.id)
        self.socket.sendall(self.lead + struct.pack(">Q", len(payload)) + payload)
        got = self.read(struct.unpack(">Q", self.read(len(self.lead) + 8)[-8:])[0])
        size, at = 0, 4
        for shift in range(0, 14, 7):
            size |= (got[at] & 0x7f) << shift
            at += 1
            if got[at - 1] < 0x80:
                break
        header = self.pb.ReplyHeader.FromString(got[at:at + size])
        assert header.call_id == self.id
        return header.status, header.reason, reply.FromString(got[at + size:])

    def introspect(self, **request):
        status, _, reply = self.ask("Introspect", self.pb.IntrospectRequest(**request),
                                    self.pb.IntrospectReply)
        return status, reply

    def pages(self, **request):
        """All pages of one introspection."""
        pages, token = [], b""
        while not pages or token:
            status, page = self.introspect(page_token=token, **request)
            assert status == 0, f"page {len(pages)}: status {status}"
            pages.append(page)
            token = page.next_page_token
        return pages


class Questions(MeshTest):
    def setUp(self):
        super().setUp()
        self.set(peer_timeout="60s")  # who is stale stays so
        self.pb = load(self.mesh.dir)
        self.n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"]).start()

    def peer(self, count, name="n2"):
        """A linked node with so many services."""
        services = [f"svc-{i:05}:10.0.0.1:{i % 60000 + 1}" for i in range(count)]
        peer = self.mesh.node(name, services=services, peers=[self.n1]).start()
        until("its list is there, and its link is live",
              lambda: len([row for row in self.n1.rows().values() if row["connected"]]) == count + 1, 20)
        return peer

    def merged(self, pages):
        keys = [row.key for page in pages for row in page.services]
        infos = [(row.peer_ip, s.name, s.backend_addr) for page in pages for row in page.peer_services
                 for s in row.services]
        return keys, infos

    def test_pages_are_of_one_revision_while_the_maps_change(self):
        self.peer(700)
        stop = threading.Event()

        def churn():
            i = 0
            while not stop.is_set():
                self.n1.local("offer", f"churn-{i % 7}", f"127.0.0.1:{i % 60000 + 1}")
                i += 1
        worker = threading.Thread(target=churn)
        worker.start()
        try:
            revisions = set()
            with Asker(self.pb, self.n1) as asker:
                for reading in range(2000):
                    if reading >= 20 and len(revisions) > 1:
                        break
                    pages = asker.pages(page_rows=50)
                    self.assertEqual(len({(p.epoch, p.revision) for p in pages}), 1)
                    keys, infos = self.merged(pages)
                    self.assertEqual(len(keys), len(set(keys)))
                    self.assertEqual(len(keys), pages[0].services_total)
                    self.assertEqual(len(infos), 700)
                    self.assertEqual({f"{name}@{ip}" for ip, name, _ in infos},
                                     {k for k in keys if not k.endswith("@local")})
                    revisions.add(pages[0].revision)
        finally:
            stop.set()
            worker.join()
        self.assertGreater(len(revisions), 1, "nothing changed meanwhile")

    def test_a_page_of_one_row_still_arrives_at_the_end(self):
        self.peer(5)
        self.mesh.node("n3", peers=[self.n1]).start()  # a peer without services
        until("n3 is there", lambda: "n3" in self.n1.peer_rows())
        with Asker(self.pb, self.n1) as asker:
            keys, infos = self.merged(asker.pages(page_rows=1))
        self.assertEqual((len(keys), len(infos)), (6, 5))

    def test_filters_choose_rows_and_the_totals_say_how_many(self):
        peer = self.peer(30)
        with Asker(self.pb, self.n1) as asker:
            pages = asker.pages(name_glob="svc-0000?", page_rows=4)
            keys, infos = self.merged(pages)
            self.assertEqual((len(keys), len(infos)), (10, 10))
            self.assertEqual({(p.services_total, p.peers_total) for p in pages}, {(10, 1)})
            _, page = asker.introspect(name_glob="*e*")
            self.assertEqual([row.key for row in page.services], ["web@local"])
            self.assertEqual(len(page.peer_services), 0, "a peer without a match is left out")
            for who in (peer.name, peer.host):
                _, page = asker.introspect(peer=who)
                self.assertEqual(page.services_total, 30)
            _, page = asker.introspect(peer="local")
            self.assertEqual((page.services_total, page.peers_total), (1, 0))
            _, page = asker.introspect(state=self.pb.ROW_STATE_STALE)
            self.assertEqual((page.services_total, page.peers_total), (0, 0))
            peer.kill()
            until("it is stale", lambda: asker.introspect(state=self.pb.ROW_STATE_STALE)[1].peers_total)

    def test_heads_of_peers_come_without_their_services(self):
        n2 = self.peer(30)
        n3 = self.mesh.node("n3", services=["db:10.0.0.3:1"], peers=[self.n1]).start()
        n4 = self.mesh.node("n4", peers=[self.n1]).start()
        until("all are live", lambda: sum(p["connected"] for p in self.n1.peer_rows().values()) == 3)
        heads, whole = self.pb.SECTION_PEERS, self.pb.SECTION_PEER_SERVICES
        with Asker(self.pb, self.n1) as asker:
            for rows in (0, 1, 2, 3):
                pages = asker.pages(sections=[heads], page_rows=rows)
                peers = [p for page in pages for p in page.peer_services]
                self.assertEqual([p.peer_id for p in peers], ["n2", "n3", "n4"])
                self.assertEqual([p.services_total for p in peers], [30, 1, 0])
                self.assertFalse(any(p.services for p in peers))
                self.assertFalse(any(page.services for page in pages))
                self.assertEqual({(p.services_total, p.peers_total) for p in pages}, {(32, 3)})
                self.assertTrue(all(len(page.peer_services) <= (rows or 3) for page in pages))
            for sections in ([whole], [heads, whole]):
                _, page = asker.introspect(sections=sections)
                self.assertEqual([len(p.services) for p in page.peer_services], [30, 1, 0])

            def ids(**filters):
                page = asker.introspect(sections=[heads], **filters)[1]
                self.assertEqual(page.peers_total, len(page.peer_services))
                return [p.peer_id for p in page.peer_services]
            self.assertEqual(ids(peer=n3.host), ["n3"])
            self.assertEqual(ids(peer="local"), [])
            self.assertEqual(ids(name_glob="svc-*9"), ["n2"])
            self.assertEqual(ids(state=self.pb.ROW_STATE_STALE), [])
            n4.kill()
            until("it is stale", lambda: ids(state=self.pb.ROW_STATE_STALE) == ["n4"])
            self.assertTrue(n2.alive())

    def test_digests_tell_what_is_kept_of_each_list(self):
        n2 = self.peer(30)
        self.n1.local("offer", "late", "[::1]:9")

        def split(services):
            return [s.split(":", 1) for s in services]
        with Asker(self.pb, self.n1) as asker:
            for sections in ([self.pb.SECTION_PEERS], [], [self.pb.SECTION_NODE]):
                for page in asker.pages(sections=sections, page_rows=7, name_glob="*-00*"):
                    self.assertEqual(page.local_total, 2)
                    self.assertEqual(page.local_digest,
                                     digest(split(self.n1.services) + [("late", "[::1]:9")]))
                    for peer in page.peer_services:
                        self.assertEqual(peer.digest, digest(split(n2.services)))
        with Asker(self.pb, n2) as asker:
            _, page = asker.introspect(sections=[self.pb.SECTION_PEERS])
            self.assertEqual(page.local_digest, digest(split(n2.services)))

    def test_pins_have_an_end_and_foreign_tokens_find_nothing(self):
        self.peer(20)
        with Asker(self.pb, self.n1) as asker:
            tokens = []
            for _ in range(16):
                status, page = asker.introspect(page_rows=3)
                self.assertEqual(status, 0)
                tokens.append(page.next_page_token)
            status, _ = asker.introspect(page_rows=3)
            self.assertEqual(status, 8, "RESOURCE_EXHAUSTED")
            self.assertEqual(asker.introspect()[0], 0, "who needs one page only is served")
            while tokens[0]:
                status, page = asker.introspect(page_rows=3, page_token=tokens[0])
                self.assertEqual(status, 0)
                tokens[0] = page.next_page_token
            self.assertEqual(asker.introspect(page_rows=3)[0], 0, "a reader at its end makes room")
            self.assertEqual(asker.introspect(page_token=b"x" * 24)[0], 5)
            self.assertEqual(asker.introspect(page_token=b"x")[0], 5)

    def test_tokens_are_taken_from_anyone_without_harm(self):
        self.peer(20)
        with Asker(self.pb, self.n1) as asker:
            token = asker.introspect(page_rows=3)[1].next_page_token
            for place in ((2**63 - 1, 0), (2**64 - 1, 2**64 - 1), (0, 2**64 - 1), (1, 2**40), (2**63, 0),
                          (2**63 + 1, 21), (0, 2), (1, 20), (2**63 + 1, 20)):
                forged = token[:8] + struct.pack(">QQ", *place)
                status, page = asker.introspect(page_rows=3, page_token=forged)
                self.assertIn(status, (0, 5))
                self.assertLessEqual(len(page.services), 3)
                if status == 0 and not page.next_page_token:
                    token = asker.introspect(page_rows=3)[1].next_page_token
        self.assertTrue(self.n1.alive())

    def test_explain_tells_the_choice_and_why_not_the_others(self):
        n2 = self.mesh.node("n2", services=["web:10.0.0.2:80"], peers=[self.n1]).start()
        n3 = self.mesh.node("n3", services=["web:10.0.0.3:80", "db:10.0.0.3:1"], peers=[self.n1]).start()
        until("both are live", lambda: len([r for r in self.n1.rows().values() if r["connected"]]) == 4)
        with Asker(self.pb, self.n1) as asker:
            def explain(name):
                return asker.ask("Explain", self.pb.ExplainRequest(name=name), self.pb.ExplainReply)
            status, _, reply = explain("WEB.")
            self.assertEqual((status, reply.name), (0, "web"))
            self.assertEqual([c.route.ip for c in reply.candidates][0], "local")
            self.assertEqual([c.chosen for c in reply.candidates], [True, False, False])
            self.assertTrue(all(c.why for c in reply.candidates))
            self.assertEqual(reply.matched, "web")
            self.assertEqual([len(c.session) for c in reply.candidates], [0, 8, 8])
            self.assertEqual([(c.active, c.last_failure) for c in reply.candidates], [(0, "")] * 3)
            self.assertTrue(all(c.seen_s_ago < 60 for c in reply.candidates))
            n3.kill()
            until("n3 is stale", lambda: self.n1.rows()[f"db@{n3.host}"]["stale"])
            status, _, reply = explain("web")
            self.assertEqual([c.route.peer_id for c in reply.candidates], ["n1", "n2", "n3"])
            self.assertIn("local", reply.candidates[1].why)
            status, _, reply = explain("db")
            self.assertIn("lost", reply.candidates[0].why)
            self.assertFalse(reply.candidates[0].chosen)
            self.assertIn("503", reply.verdict)
            status, _, reply = explain("nobody")
            self.assertEqual((status, len(reply.candidates)), (0, 0))
            status, reason, _ = explain("not a name")
            self.assertEqual((status, reason), (3, self.pb.REASON_BAD_NAME))
            self.assertTrue(n2.alive())

    def test_a_lookup_answers_each_name_in_order_within_its_limits(self):
        self.peer(3)
        with Asker(self.pb, self.n1) as asker:
            def lookup(**request):
                return asker.ask("Lookup", self.pb.LookupRequest(**request), self.pb.LookupReply)
            status, _, reply = lookup(names=["svc-00001", "WEB:80", "bad name", "nobody"])
            self.assertEqual(status, 0)
            self.assertEqual([r.name for r in reply.results], ["svc-00001", "web", "bad name", "nobody"])
            self.assertEqual([len(r.routes) for r in reply.results], [1, 1, 0, 0])
            self.assertEqual(reply.results[2].reason, self.pb.REASON_BAD_NAME)
            self.assertEqual(lookup()[0], 3)
            self.assertEqual(lookup(names=["web"] * 1001)[0], 3)
            self.assertEqual(lookup(names=["web"], max_routes=257)[0], 3)
            status, _, reply = lookup(names=["web"] * 1000)
            self.assertEqual((status, len(reply.results)), (0, 1000))


if __name__ == "__main__":
    main()
