#!/usr/bin/python3
"""Both maps at one moment, at size: 50,000 rows (fewer under a sanitizer) read in pages while they change all the time."""
import functools
import threading
import time

import test_questions
from harness import MeshTest, SLOW, main, until
from test_questions import Asker
from test_strangers import load

PER_OWNER = 25000 if SLOW == 1 else 10000  # a file of settings is at most 1 MiB
RESOURCE_EXHAUSTED = 8
PINS = 16
# A node's 128 calls keep up to 64 KiB each for the next; one picture of a peer's list that is not
# released would cost more than what is left.
GROWTH_KIB = 12 * 1024


@functools.lru_cache(maxsize=None)
def digest_of(name, backend):
    return test_questions.digest([(name, backend)])


def digest(entries):
    return sum(digest_of(name, backend) for name, backend in entries) % 2**64


class Pages(MeshTest):
    def setUp(self):
        super().setUp()
        self.pb = load(self.mesh.dir)
        self.n1 = self.big_node("n1", PER_OWNER).start()
        self.n2 = self.big_node("n2", PER_OWNER, peers=[self.n1]).start()
        self.n3 = self.big_node("n3", 2000, peers=[self.n1])
        self.asker = self.ask(self.n1)
        self.until_rows(2 * PER_OWNER)
        self.stop = threading.Event()
        self.workers, self.broken = [], []
        self.addCleanup(self.end_changes)

    def big_node(self, name, count, **settings):
        file = self.mesh.dir / f"{name}.yaml"
        file.write_text("services:\n" + "".join(
            f"- {{name: s-{i:05}, backend: b:{i % 60000 + 1}}}\n" for i in range(count)))
        return self.mesh.node(name, MESHD_CONFIG=file, LOG_MAPS="off", **settings)

    def ask(self, node, local=False):
        asker = Asker(self.pb, node, local)
        self.addCleanup(asker.socket.close)
        return asker

    def summary(self, asker=None):
        return (asker or self.asker).introspect(sections=[self.pb.SECTION_PEERS])[1]

    def until_rows(self, count, meanwhile=lambda: None):
        until(f"{count} rows are there", lambda: meanwhile() or self.summary().services_total == count, 60)

    # ---- what changes ----

    def change_offers(self, node):
        """One name after the other comes, changes and goes."""
        asker, i = self.ask(node, local=True), 0
        while not self.stop.is_set():
            name = f"churn-{i % 60}"
            if i % 3 < 2:
                request = self.pb.OfferRequest(lease_id=name, name=name, backend_addr=f"c:{i % 60000 + 1}")
                status, _, _ = asker.ask("Offer", request, self.pb.OfferReply)
            else:
                request = self.pb.WithdrawRequest(lease_id=f"churn-{(i - 1) % 60}")
                status, _, _ = asker.ask("Withdraw", request, self.pb.WithdrawReply)
            assert status == 0, f"{node.name}, change {i}: status {status}"
            i += 1

    def come_and_go(self, node):
        asker = self.ask(self.n1)

        def is_there():
            return self.stop.is_set() or any(p.peer_id == node.name and p.services_total
                                             for p in self.summary(asker).peer_services)
        while not self.stop.is_set():
            node.start()
            until("its list is there", is_there)
            node.signal(15)
            node.ended()

    def guarded(self, work, *args):
        try:
            work(*args)
        except BaseException as why:
            self.broken.append(why)

    def begin_changes(self):
        for work, node in ((self.change_offers, self.n1), (self.change_offers, self.n2),
                           (self.come_and_go, self.n3)):
            self.workers.append(threading.Thread(target=self.guarded, args=(work, node)))
            self.workers[-1].start()

    def end_changes(self):
        self.stop.set()
        while self.workers:
            self.workers.pop().join()
        self.assertEqual(self.broken, [])

    # ---- what one reading must be ----

    def check_one_moment(self, pages):
        """All pages show the same maps, whole, and each row once; the revision of them."""
        self.assertEqual(len({(p.epoch, p.revision) for p in pages}), 1)
        self.assertEqual(len({(p.services_total, p.peers_total, p.local_total, p.local_digest)
                              for p in pages}), 1)
        first = pages[0]
        rows = {r.key: r for p in pages for r in p.services}
        self.assertEqual(len(rows), sum(len(p.services) for p in pages), "a key came twice")
        self.assertEqual(len(rows), first.services_total)
        local = [(r.name, r.backend_addr) for r in rows.values() if r.ip == "local"]
        self.assertEqual((len(local), digest(local)), (first.local_total, first.local_digest))

        heads, lists = {}, {}
        for part in (part for p in pages for part in p.peer_services):
            seen = heads.setdefault(part.peer_ip, part)
            self.assertEqual((seen.digest, seen.version, seen.services_total),
                             (part.digest, part.version, part.services_total))
            lists.setdefault(part.peer_ip, []).extend((s.name, s.backend_addr) for s in part.services)
            self.assertTrue(all(s.source_peer == part.peer_ip for s in part.services))
        self.assertEqual(len(heads), first.peers_total)
        for ip, entries in lists.items():
            self.assertEqual((len(entries), digest(entries)), (heads[ip].services_total, heads[ip].digest))
        self.assertEqual({(f"{name}@{ip}", backend) for ip, entries in lists.items() for name, backend in entries},
                         {(r.key, r.backend_addr) for r in rows.values() if r.ip != "local"})
        self.assertEqual(len(local) + sum(map(len, lists.values())), len(rows))
        return first.revision

    def test_every_reading_is_of_one_moment_while_the_maps_change(self):
        self.begin_changes()
        revisions = [self.summary().revision]
        for page_rows in (1000, 0) * 3:
            until("the maps have changed", lambda: self.summary().revision > revisions[-1])
            pages = self.asker.pages(page_rows=page_rows)
            self.assertGreaterEqual(len(pages), max(2, 3 * PER_OWNER // (page_rows or 20000)))
            self.assertTrue(all(len(p.services) + sum(len(h.services) for h in p.peer_services)
                                <= (page_rows or 20000) for p in pages))
            revisions.append(self.check_one_moment(pages))
        self.assertEqual(revisions, sorted(set(revisions)), "each reading is newer than the one before")
        print(f"revisions read: {revisions}")
        self.end_changes()

    # ---- slow readers ----

    def pinned(self):
        _, reply = self.asker.introspect(sections=[self.pb.SECTION_LIMITS])
        return next(limit.used for limit in reply.limits if limit.name == "pinned_snapshots")

    def still_there(self, reader, book):
        """Uses what is pinned, and reads on nothing."""
        if book[-1].next_page_token:
            self.assertEqual(reader.introspect(page_rows=1, page_token=book[0].next_page_token)[0], 0)

    def others_are_served(self):
        """While all pins are taken: calls, readers of one page, and news from the peer."""
        asker, there = self.ask(self.n1), self.ask(self.n2, local=True)
        status, _, reply = asker.ask("Lookup", self.pb.LookupRequest(names=["s-00007"]), self.pb.LookupReply)
        self.assertEqual((status, len(reply.results[0].routes) >= 2), (0, True))
        self.assertEqual(len(asker.introspect(name_glob="s-0000?", peer="n2")[1].services), 10)
        self.assertEqual(asker.introspect(page_rows=1000)[0], RESOURCE_EXHAUSTED)
        name = f"news-{self.random.getrandbits(32)}"
        request = self.pb.OfferRequest(lease_id="news", name=name, backend_addr="c:1")
        self.assertEqual(there.ask("Offer", request, self.pb.OfferReply)[0], 0)
        until("news from the peer", lambda: asker.introspect(name_glob=name)[1].services_total == 1)

    def read_slowly(self, looked_at):
        """Sixteen readers side by side, a page in turn, each from a revision of its own. Of so many
        it is looked at what they have read: that takes longer than to read it."""
        readers = [self.ask(self.n1) for _ in range(PINS)]
        books = []
        kept = time.monotonic()

        def keep():
            """A turn takes some seconds on a busy machine, and a pin its ten from the last use on."""
            nonlocal kept
            if time.monotonic() - kept > 1:
                for reader, book in zip(readers, books):
                    self.still_there(reader, book)
                kept = time.monotonic()
        for reader in readers:
            if books:
                until("the maps have changed", lambda: keep() or self.summary().revision > books[-1][0].revision)
            status, page = reader.introspect(page_rows=10000)
            self.assertEqual(status, 0)
            books.append([page])
        keep()
        self.assertEqual(self.pinned(), PINS)
        self.others_are_served()
        while any(book[-1].next_page_token for book in books):
            for reader, book in zip(readers, books):
                if not book[-1].next_page_token:
                    continue
                keep()
                status, page = reader.introspect(page_rows=10000, page_token=book[-1].next_page_token)
                self.assertEqual(status, 0)
                book.append(page)
        self.assertEqual(len({book[-1].revision for book in books}), PINS)
        for book in self.random.sample(books, looked_at):
            self.check_one_moment(book)
        self.assertEqual(self.pinned(), 0, "the last page has given its pin back")
        for reader in readers:
            reader.socket.close()

    def test_slow_readers_hinder_nobody_and_leave_nothing_behind(self):
        self.begin_changes()
        self.read_slowly(looked_at=PINS)
        before = self.n1.rss_kib()
        for _ in range(3):
            self.read_slowly(looked_at=2)
        self.end_changes()
        if self.n3.alive():
            self.n3.signal(15)
            self.n3.ended()
        grown = self.n1.rss_kib() - before
        print(f"{3 * PINS} pinned pictures later: RSS {before} KiB and {grown:+} KiB")
        if SLOW == 1:  # a sanitizer keeps what was freed
            self.assertLess(grown, GROWTH_KIB)

    def test_a_picture_outlives_its_peer_and_then_its_memory_is_free(self):
        """What a reader has pinned, it can read to the end; the memory serves the next peer."""
        sizes = []
        for _ in range(4):
            reader = self.ask(self.n1)
            _, page = reader.introspect(page_rows=10000)
            book = [page]
            self.n2.signal(15)
            until("n2 has ended", lambda: self.still_there(reader, book) or not self.n2.alive(), 60)
            self.until_rows(PER_OWNER, lambda: self.still_there(reader, book))
            while book[-1].next_page_token:
                status, page = reader.introspect(page_rows=10000, page_token=book[-1].next_page_token)
                self.assertEqual(status, 0)
                book.append(page)
            self.check_one_moment(book)
            self.assertEqual(book[0].services_total, 2 * PER_OWNER)
            self.assertEqual(self.pinned(), 0)
            reader.socket.close()
            self.n2.start()
            self.until_rows(2 * PER_OWNER)
            sizes.append(self.n1.rss_kib())
        print(f"RSS after each time: {sizes} KiB")
        if SLOW == 1:
            self.assertLess(sizes[-1] - sizes[0], GROWTH_KIB)


if __name__ == "__main__":
    main()
