#!/usr/bin/python3
"""How the two ends of a forward can end, on each way that it can take.

Local, from the dialler of a link to its listener, and back; by a mapped port, an HTTP head, a
CONNECT and a ClientHello. The test is client and backend itself.
"""
import contextlib
import os
import socket
import threading
import unittest

from cable import DATA, LINK, reset
from forwarding import ForwardTest, ask, black_hole, breaks, digest, every_way, head_for, receive, receive_all
from harness import SLOW, always, main, until

HALF = 300_000
TAIL = 2 << 20
BULK = 5 << 20
PAUSE = 36.0  # longer than it takes to call somebody who answers nothing gone


class Ends(ForwardTest):
    @every_way
    def test_client_that_ends_first_still_reads_the_whole_answer(self, flow):
        ask_for, answer = self.payload(HALF), self.payload(TAIL)
        sending = threading.Thread(target=lambda: (flow.client.sendall(ask_for),
                                                   flow.client.shutdown(socket.SHUT_WR)))
        sending.start()
        self.assertEqual(digest(receive_all(flow.backend)), digest(ask_for))
        sending.join()
        sending = threading.Thread(target=lambda: (flow.backend.sendall(answer), flow.backend.close()))
        sending.start()
        self.assertEqual(digest(receive_all(flow.client)), digest(answer))
        sending.join()

    @every_way
    def test_backend_that_ends_first_still_reads_all_that_the_client_says(self, flow):
        said, rest = self.payload(HALF), self.payload(TAIL)
        sending = threading.Thread(target=lambda: (flow.backend.sendall(said),
                                                   flow.backend.shutdown(socket.SHUT_WR)))
        sending.start()
        self.assertEqual(digest(receive_all(flow.client)), digest(said))
        sending.join()
        sending = threading.Thread(target=lambda: (flow.client.sendall(rest), flow.client.close()))
        sending.start()
        self.assertEqual(digest(receive_all(flow.backend)), digest(rest))
        sending.join()

    @every_way
    def test_reset_of_the_client_reaches_the_backend_as_one(self, flow):
        self.passes(flow)
        reset(flow.client)
        self.assertTrue(breaks(flow.backend))

    @every_way
    def test_reset_of_the_backend_reaches_the_client_as_one(self, flow):
        self.passes(flow)
        reset(flow.backend)
        self.assertTrue(breaks(flow.client))

    @every_way
    def test_reset_in_the_middle_of_much_is_no_clean_end(self, flow):
        sending = threading.Thread(target=self.until_it_breaks, args=(flow.backend,))
        sending.start()
        receive(flow.client, HALF)
        reset(flow.backend)
        self.assertTrue(breaks(flow.client))
        sending.join()

    def until_it_breaks(self, sock):
        try:
            while True:
                sock.sendall(bytes(65536))
        except OSError:
            pass


class Bytes(ForwardTest):
    @every_way
    def test_much_both_ways_at_once_arrives_whole_and_in_order(self, flow):
        up, down = self.payload(BULK), self.payload(BULK)
        got = {}

        def send(sock, data):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        def read(sock):
            got[sock] = digest(receive_all(sock))
        threads = [threading.Thread(target=send, args=(flow.client, up)),
                   threading.Thread(target=send, args=(flow.backend, down)),
                   threading.Thread(target=read, args=(flow.client,)),
                   threading.Thread(target=read, args=(flow.backend,))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(got, {flow.backend: digest(up), flow.client: digest(down)})

    @every_way
    def test_single_bytes_pass_each_on_its_own(self, flow):
        for sock in flow:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(100):
            flow.client.sendall(bytes([i]))
            self.assertEqual(flow.backend.recv(10), bytes([i]))
            flow.backend.sendall(bytes([200 - i]))
            self.assertEqual(flow.client.recv(10), bytes([200 - i]))

    @every_way
    def test_client_that_does_not_read_holds_back_its_backend_and_nobody_else(self, flow):
        flow.backend.setblocking(False)
        block, sent = self.payload(1 << 18), 0
        with self.assertRaises(BlockingIOError):
            while sent < 64 << 20:
                sent += flow.backend.send(block[sent % len(block):])
        another = self.flow(self.LOCAL, "port")
        self.passes(another)
        for sock in another:
            sock.close()
        self.assertEqual(receive(flow.client, sent), (block * (sent // len(block) + 1))[:sent])


@unittest.skipIf(SLOW != 1, "a pause of half a minute, which a sanitizer sees nothing in")
class Pauses(ForwardTest):
    def test_who_reads_nothing_for_a_while_gets_everything_afterwards(self):
        self.pair()
        flows = [self.flow(way, "port") for way in self.ALL.values()]
        data, broken = self.payload(BULK), []

        def send(sock):
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                broken.append(error)
        for flow in flows:
            for sock in flow:
                sock.settimeout(2 * PAUSE * SLOW)
                threading.Thread(target=send, args=(sock,), daemon=True).start()
        always("nobody was cut off", lambda: not broken, PAUSE)
        for flow in flows:
            for sock in flow:
                self.assertEqual(digest(receive_all(sock)), digest(data))


class OneWorker(ForwardTest):
    flags = ("--workers=1",)

    def test_streams_without_end_leave_others_their_turn(self):
        self.pair()
        bulk, over = [], threading.Event()

        def pour(sock, data=bytes(1 << 20)):
            while not over.is_set():
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        for way in self.ALL.values():
            flow = self.flow(way, "port")
            bulk += [threading.Thread(target=pour, args=(flow.backend,)),
                     threading.Thread(target=breaks, args=(flow.client,))]
        for thread in bulk:
            thread.start()
        try:
            for way in self.ALL.values():
                flow = self.flow(way, "name")
                for _ in range(50):
                    self.passes(flow, 1)
        finally:
            over.set()
            for thread in bulk:
                thread.join()


class Losses(ForwardTest):
    """What is lost between the two ends, and what the ends see of that."""

    def spare(self, count):
        return count["forward_warm"]

    def open_now(self, node):
        """TCP sockets alone. Of others, a link that is made anew may keep some."""
        fds = f"/proc/{node.process.pid}/fd"
        links = set()
        for fd in os.listdir(fds):
            with contextlib.suppress(FileNotFoundError):
                links.add(os.readlink(f"{fds}/{fd}"))
        with open("/proc/net/unix", encoding="ascii") as unix:
            local = {f"socket:[{line.split()[6]}]" for line in unix}
        return len([link for link in links - local if link.startswith("socket:")])

    def pair(self, **more):
        super().pair(**more)
        self.each_flow(self.ALL, ("port", "name"), self.passes)  # what a first use allocates is not a leak
        self.count_descriptors()

    def nothing_is_left(self, *flows, but=None):
        """Of these, once they are closed, in any node but the one that was killed."""
        for flow in flows:
            flow.client.close()
            flow.backend.close()
        self.before.pop(but, None)
        self.assert_same_descriptors()

    def test_owner_that_is_killed_is_no_clean_end_for_the_client(self):
        for way in self.REMOTE.values():
            self.mesh.close()
            self.setUp()
            self.pair()
            owner = self.n1 if way[1] == "one" else self.n2
            for by in ("port", "name"):
                with self.subTest(way=way, by=by):
                    flow = self.flow(way, by)
                    self.passes(flow)
                    owner.kill()
                    self.assertTrue(breaks(flow.client))
                    self.assertTrue(breaks(flow.backend))
                    owner.start()
                    self.mesh.until_agreed()
                    self.nothing_is_left(flow, but=owner)

    def test_node_at_the_client_that_is_killed_is_no_clean_end_for_the_backend(self):
        self.pair()
        for way in self.ALL.values():
            with self.subTest(way=way):
                self.each_flow(self.ALL, ("name",), self.passes)
                self.count_descriptors()
                flow = self.flow(way, "name")
                self.passes(flow)
                node = self.node_named(way[0])
                node.kill()
                self.assertTrue(breaks(flow.backend))
                self.assertTrue(breaks(flow.client))
                node.start()
                self.mesh.until_agreed()
                self.nothing_is_left(flow, but=node)

    def test_streams_outlive_their_link(self):
        self.pair(cable=True)
        flows = [self.flow(way, by) for way in self.REMOTE.values() for by in ("port", "name")]
        for flow in flows:
            self.passes(flow)
        self.cable.refuse(LINK)
        self.assertEqual(self.cable.cut(LINK), 1)
        for node, other in ((self.n1, "n2"), (self.n2, "n1")):
            until("the loss is seen", lambda: not node.peer_rows()[other]["connected"])
        for flow in flows:
            self.passes(flow, HALF // 10)
        self.cable.refuse(LINK, on=False)
        self.mesh.until_agreed()
        for flow in flows:
            self.passes(flow, HALF // 10)
        flows += [self.flow(way, "name") for way in self.REMOTE.values()]
        for flow in flows[-2:]:
            self.passes(flow)
        self.nothing_is_left(*flows)

    def test_data_connection_that_breaks_is_no_clean_end_for_either(self):
        self.pair(cable=True)
        for way in self.REMOTE.values():
            with self.subTest(way=way):
                flow = self.flow(way, "port")
                self.passes(flow)
                self.assertGreaterEqual(self.cable.cut(DATA), 1)
                self.assertTrue(breaks(flow.client))
                self.assertTrue(breaks(flow.backend))
                self.nothing_is_left(flow)
        self.mesh.until_agreed()

    def test_waiting_data_connections_that_died_cost_the_client_nothing(self):
        self.pair(cable=True)
        for i in range(10):
            for way in self.REMOTE.values():
                with self.subTest(way=way, i=i):
                    flow = self.flow(way, "name")
                    self.passes(flow)
                    flow.client.close()
                    flow.backend.close()
                    self.cable.cut(DATA)
        self.nothing_is_left()


class Backends(ForwardTest):
    flags = ("--dial-timeout=1s", "--open-timeout=5m")  # DATA of a refused Forward does not wait so long

    def test_backend_that_refuses_is_told_at_once_and_one_that_says_nothing_in_time(self):
        self.pair()
        owner_of = {"local": self.n1, **{k: self.n1 if w[1] == "one" else self.n2 for k, w in self.REMOTE.items()}}
        gone, hole = f"{self.mesh.net}.200:9", black_hole(self)
        for node, name in ((self.n1, "n1"), (self.n2, "n2")):
            node.local("offer", f"gone-{name}", gone)
            node.local("offer", f"hole-{name}", hole)
        until("all is known", lambda: all(len(n.reachable()) == 6 for n in (self.n1, self.n2)))
        self.count_descriptors()
        for what, way in self.ALL.items():
            node, owner = self.node_named(way[0]), owner_of[what].name
            with self.subTest(way=what):
                self.assertEqual(ask(self.connect(node), head_for(f"gone-{owner}")).status, 502)
                self.assertEqual(ask(self.connect(node), head_for(f"hole-{owner}")).status, 504)
        self.assert_same_descriptors()


if __name__ == "__main__":
    main()
