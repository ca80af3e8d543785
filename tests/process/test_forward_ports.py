#!/usr/bin/python3
"""What clients may say and do on an ingress port, and what never happens there."""
import contextlib
import os
import re
import socket
import struct
import threading

from cable import SECONDS, reset
from forwarding import (AUTO, MAPPED, Backend, Flow, ForwardTest, ask, black_hole, breaks, digest, head_for, hello_for,
                        receive, receive_all)
from harness import SLOW, main, until


class First(ForwardTest):
    """The first bytes of a client."""

    def node(self, *extra, **env):
        self.one = Backend(self)
        return self.mesh.node("n1", services=[f"one:{self.one.address}", *extra],
                              INGRESS_ADDR=self.ingress(1), **env).start()

    def test_no_first_bytes_harm_the_node(self):
        self.set(route_timeout="5m")  # who leaves is noticed, not waited for
        n1 = self.node()
        odd = [b"PING\r\n", b"\x16\x03\x01\x02\x00", b"\x16", b"GET", b"P", b"PUT ", b"PRI * HT", b"\r\n\r\n\r\n",
               b"\0" * 7, b"\x80\x2e\x01\x00\x02", b"*1\r\n$4\r\n", b"MSHD\x01\x03\x02\x11n2", b"\x16\x03\x01\0\0",
               b"CONNECT", b"SSH-2.0-x\r\n", bytes(range(256)), b"\x16\x03\x01\xff\xff" + b"\x01" * 20000,
               head_for("one")[:-1], hello_for("one")[:-1]]
        odd += [self.random.randbytes(self.random.randrange(1, 8)) for _ in range(100)]
        odd += [(b"GET", b"\x16\x03", b"PRI")[i % 3] + self.random.randbytes(30) for i in range(100)]
        for first in odd:
            for leave in (socket.socket.close, reset):
                client = self.connect(n1)
                client.sendall(first)
                leave(client)
        until("none is left", lambda: n1.counters()["forward_clients"] == 0)
        self.assertTrue(n1.alive())
        self.assertTrue(self.one.idle())

    def cut(self, n1, first, sizes):
        client = self.connect(n1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = 0
        while at < len(first):
            client.send(first[at:at + sizes[at % len(sizes)]])
            at += sizes[at % len(sizes)]
        backend = self.one.accept()
        self.assertEqual(receive(backend, len(first)), first)
        return client, backend

    def test_name_is_found_however_it_is_cut(self):
        n1 = self.node()
        hello = hello_for("one")
        # over several records, as RFC 8446 5.1 allows
        records = b"".join(b"\x16\x03\x01" + struct.pack("!H", len(part)) + part
                           for part in (hello[5:9], hello[9:140], hello[140:]))
        firsts = [head_for("one", more="X: y\r\n" * 20), hello, records, big_hello("one", 3000)]
        for first in firsts:
            for sizes in ([1], [2], [3], [7], [1000], [1 << 20], [5, 100, 1]):
                for end in self.cut(n1, first, sizes):
                    end.close()

    def test_any_method_is_routed_by_its_host(self):
        n1 = self.node()
        for method in ("GET", "PUT", "PATCH", "TRACE", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "BREW", "X!#"):
            with self.subTest(method):
                for end in self.cut(n1, head_for("one", method), [1 << 20]):
                    end.close()
        for end in self.cut(n1, head_for("one", "OPTIONS", "*"), [1 << 20]):
            end.close()

    def test_only_the_host_of_the_head_counts(self):
        n1 = self.node()
        body = b"POST / HTTP/1.1\r\nX-Host: nobody\r\nHost: ONE.:8080\r\nContent-Length: 16\r\n\r\nHost: nobody\r\n\r\n"
        absolute = b"GET http://one:99/ HTTP/1.1\r\nHost: nobody\r\n\r\n"
        empty_lines = b"\r\n\r\n" + head_for("One")
        for first in (body, absolute, empty_lines):
            with self.subTest(first):
                for end in self.cut(n1, first, [1 << 20]):
                    end.close()

    def test_name_with_a_port_is_the_same_name(self):
        n1 = self.node()
        for name in ("one", "one:80", "one:65535", "ONE", "one."):
            with self.subTest(name):
                for end in self.cut(n1, head_for(name), [3]):
                    end.close()

    def test_first_request_pins_the_connection_and_the_rest_follows_in_order(self):
        n1 = self.node("two:127.0.0.1:9")
        more = b"".join(head_for(name) for name in ("one", "two", "nobody")) * 50
        for end in self.cut(n1, head_for("one") + more, [1 << 20]):
            end.close()

    def test_default_takes_what_names_nothing(self):
        config = self.mesh.dir / "n1.yaml"
        config.write_text(f'ingress:\n  - listen: "{self.mesh.net}.1:{AUTO}"\n    default: "one"\n', "ascii")
        self.one = Backend(self)
        n1 = self.mesh.node("n1", services=[f"one:{self.one.address}"], MESHD_CONFIG=config).start()
        for first in (b"PING\r\n", b"GET / HTTP/1.0\r\n\r\n", b"SSH-2.0-client\r\n", hello_for("192.0.2.1"),
                      b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f"):
            with self.subTest(first):
                for end in self.cut(n1, first, [1 << 20]):
                    end.close()
        self.assertEqual(ask(self.connect(n1), b"GET / HTTP/1.1\r\n\r\n").status, 400)

    def test_wildcards_cover_what_is_below_them(self):
        one, two = Backend(self), Backend(self)
        n2 = self.mesh.node("n2", services=[f"*.exact.example:{one.address}", f"a.exact.example:{two.address}"],
                            INGRESS_ADDR=self.ingress(2)).start()
        for name, backend in (("b.exact.example", one), ("c.b.exact.example", one), ("a.exact.example", two)):
            client = self.connect(n2)
            client.sendall(head_for(name))
            self.assertEqual(receive(backend.accept(), 3), b"GET")
        self.assertEqual(ask(self.connect(n2), head_for("exact.example")).status, 404)

    def test_backends_and_clients_may_be_ipv6(self):
        if not os.path.exists("/proc/net/if_inet6"):
            self.skipTest("no IPv6 in this kernel")
        try:
            self.one = Backend(self, "::1", socket.AF_INET6)
        except OSError:
            self.skipTest("no ::1 here")
        n1 = self.mesh.node("n1", services=[f"one:{self.one.address}"], INGRESS_ADDR="[::1]:0").start()
        listening = n1.info()["ingress"]
        self.assertEqual(len(listening), 1)
        port = int(re.search(r"\[::1\]:(\d+)", str(listening[0]))[1])
        client = socket.create_connection(("::1", port), SECONDS)
        self.addCleanup(client.close)
        client.sendall(head_for("one"))
        self.passes(Flow(client, self.skip_head(self.one.accept())))

    def skip_head(self, backend):
        receive(backend, len(head_for("one")))
        return backend


def big_hello(name, padding):
    """A ClientHello as large as the coming key exchanges make it, by padding (RFC 7685)."""
    hello = hello_for(name)
    body = hello[9:]
    at = 34
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at:at + 2], "big")
    at += 1 + body[at]
    extensions = body[at + 2:] + struct.pack("!HH", 21, padding) + bytes(padding)
    body = body[:at] + struct.pack("!H", len(extensions)) + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack("!H", len(message)) + message


class Links(ForwardTest):
    """Clients that go through another node."""

    def test_streams_of_one_link_run_side_by_side_and_a_stuck_one_stops_none(self):
        self.pair()
        for node in (self.n1, self.n2):
            node.local("offer", f"hole-{node.name}", black_hole(self))
        until("all is known", lambda: all(len(n.reachable()) == 4 for n in (self.n1, self.n2)))
        stuck = []
        for node, name in ((self.n1, "hole-n2"), (self.n2, "hole-n1")):
            stuck += [self.connect(node) for _ in range(5)]
            for client in stuck[-5:]:
                client.sendall(head_for(name))
        flows = [self.flow(way, by) for _ in range(25) for way in self.REMOTE.values() for by in ("port", "name")]
        for flow in flows:
            self.passes(flow)
        for flow in reversed(flows):
            self.passes(flow)

    def test_first_words_of_the_server_arrive_whole_and_first(self):
        self.pair()
        for way in self.ALL.values():
            for size in (1, 100, 5000, 200_000):
                banner = self.payload(size)
                client = self.connect(self.node_named(way[0]), MAPPED + ("one", "two").index(way[1]))
                backend = self.backend_of(way).accept()
                backend.sendall(banner)
                self.assertEqual(digest(receive(client, size)), digest(banner))
                self.passes(Flow(client, backend))
                client.close()
                backend.close()

    def test_much_that_is_said_before_the_join_is_kept_in_order(self):
        self.pair()
        data = head_for("one", "POST", more="Content-Length: 1000000\r\n") + self.payload(1_000_000)
        for way in self.ALL.values():
            client = self.connect(self.node_named(way[0]))
            said = data.replace(b"Host: one", b"Host: " + way[1].encode())
            sending = threading.Thread(target=client.sendall, args=(said,))
            sending.start()
            self.assertEqual(digest(receive(self.backend_of(way).accept(), len(said))), digest(said))
            sending.join()

    def test_nothing_but_services_is_ever_dialled(self):
        self.pair()
        private = Backend(self)
        host, port = private.address.split(":")
        for node in (self.n1, self.n2):
            for target in (private.address, f"{host}:80", f"localhost:{port}", f"one.nobody:{port}"):
                reply = ask(self.connect(node), head_for(target, "CONNECT", target))
                self.assertIn(reply.status, (400, 404))
                self.assertIn(ask(self.connect(node), head_for(target)).status, (400, 404))
        self.assertTrue(private.idle())

    def test_tunnel_carries_to_the_service_whatever_port_is_said(self):
        self.pair()
        for way in self.ALL.values():
            client = self.connect(self.node_named(way[0]))
            client.sendall(head_for(f"{way[1]}:443", "CONNECT", f"{way[1]}:443") + b"said at once")
            backend = self.backend_of(way).accept()
            self.assertEqual(receive(backend, 12), b"said at once")
            got = b""
            while not got.endswith(b"\r\n\r\n"):
                got += receive(client, 1)
            self.assertRegex(got, rb"^HTTP/1\.1 200 ")
            self.assertNotRegex(got.lower(), rb"content-length|transfer-encoding")
            self.passes(Flow(client, backend))

    def test_guessed_data_connections_are_closed_and_counted(self):
        self.set(open_timeout="2s")  # for so long it may be that a Forward comes behind it
        self.pair()
        flow = self.flow(self.UP, "name")
        shown = bytes.fromhex(next(r["link"] for r in self.n1.rows().values() if r["name"] == "two"))

        def counted():
            count = self.n1.counters()
            return count["forward_data_unexpected"] + count["forward_data_late"]
        before, strangers = counted(), []
        self.assertEqual(len(shown), 4)  # of 16: who may ask may not claim
        for token in (self.payload(16), shown + self.payload(12)):
            for _ in range(20):
                strangers.append(socket.create_connection((self.n1.host, self.n1.port), SECONDS))
                self.addCleanup(strangers[-1].close)
                strangers[-1].sendall(b"MSHD\x01\x03\x02\x11n2" + token + b"\x01" + self.payload(16) + bytes(8) +
                                      b"what a thief says")
        for stranger in strangers:
            with contextlib.suppress(ConnectionError):
                self.assertLessEqual(len(receive_all(stranger)), 300)  # a refusal, or "go on" and nothing
        until("all are counted", lambda: counted() == before + len(strangers))
        self.passes(flow)
        self.assertTrue(self.one.idle())

    def test_way_through_a_peer_is_open_without_waiting_for_a_timer(self):
        self.pair()
        for _ in range(50):
            self.each_flow(self.REMOTE, ("port",), self.passes)
        for node in (self.n1, self.n2):
            self.assertLess(node.counters()["forward_open_us_p50"], 20_000 * SLOW)

    def test_node_without_services_carries_clients(self):
        self.one = Backend(self)
        n1 = self.mesh.node("n1", services=[f"one:{self.one.address}"]).start()
        n2 = self.mesh.node("n2", peers=[n1], INGRESS_ADDR=self.ingress(2, "one")).start()
        self.mesh.until_agreed()
        client = self.connect(n2, MAPPED)
        self.passes(Flow(client, self.one.accept()))

    def test_port_may_be_mapped_to_a_service_that_comes_later(self):
        n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1, "late")).start()
        self.assertTrue(self.is_reset(n1, MAPPED))
        late = Backend(self)
        n1.local("offer", "late", late.address)
        client = self.connect(n1, MAPPED)
        self.passes(Flow(client, late.accept()))

    def test_peers_at_one_address_are_two_owners(self):
        """As behind one NAT: each gets the clients of what it offers, alike names by turns, and the loss of
        one is not the other's."""
        n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1)).start()
        own, both = [Backend(self), Backend(self)], [Backend(self), Backend(self)]
        peers = [self.mesh.node(name, n=2, port=7401 + i, peers=[n1],
                                services=[f"own-{name}:{own[i].address}", f"both:{both[i].address}"]).start()
                 for i, name in enumerate("ab")]
        until("n1 has both", lambda: [r["connected"] for r in n1.rows().values()] == [True] * 4)

        def carried(name, *backends):
            client = self.connect(n1)
            client.sendall(head_for(name))
            backend = self.outcome(client, *backends)
            self.assertIsNotNone(backend, name)
            flow = Flow(client, backend.accept())
            self.assertEqual(receive(flow.backend, len(head_for(name))), head_for(name))
            self.passes(flow)
            return flow, backend
        for i, name in enumerate("ab"):
            carried(f"own-{name}", own[i])
        self.assertEqual({carried("both", *both)[1] for _ in range(2)}, set(both))
        stays, _ = carried("own-b", own[1])
        peers[0].kill()
        until("the loss is seen", lambda: not n1.peer_rows()["a"]["connected"])
        self.assertEqual(ask(self.connect(n1), head_for("own-a")).status, 503)
        for _ in range(3):
            self.assertIs(carried("both", *both)[1], both[1])
        self.passes(stays)

    def test_what_passes_is_counted_at_each_node_and_each_client_ends_for_one_reason(self):
        self.pair()
        up, down = self.payload(700_000), self.payload(900_000)
        for way in self.ALL.values():
            counts = {n: n.counters() for n in (self.n1, self.n2)}
            flow = self.flow(way, "port")
            for sender, reader, data in ((flow.client, flow.backend, up), (flow.backend, flow.client, down)):
                sending = threading.Thread(target=lambda s=sender, d=data: (s.sendall(d), s.shutdown(socket.SHUT_WR)))
                sending.start()
                self.assertEqual(digest(receive_all(reader)), digest(data))
                sending.join()
            for node, before in counts.items():
                def grown(name):
                    return node.counters()["forward_" + name] - before["forward_" + name]
                here = node is self.node_named(way[0])
                through = here or way != self.LOCAL
                until("all is counted", lambda: (grown("bytes_up"), grown("bytes_down")) ==
                      ((len(up), len(down)) if through else (0, 0)))
                until("the end is counted", lambda: grown("end_done") == here)
                self.assertEqual(grown("accepted"), here)
                self.assertEqual(grown("local"), here and way == self.LOCAL)
                self.assertEqual(grown("forwarded"), here and way != self.LOCAL)
                self.assertEqual(grown("forwards_received"), not here and way != self.LOCAL)
        for what in (head_for("nobody"), b"GET / HTTP/1.1\r\n\r\n", b"PING\r\n", hello_for("nobody"), head_for("one"), b""):
            client = self.connect(self.n1)
            client.sendall(what)
            if what == head_for("one"):
                reset(self.one.accept())
            elif not what:
                client.close()
                continue
            with contextlib.suppress(ConnectionError):
                receive_all(client)
            client.close()
        until("each has one end", lambda: (c := self.n1.counters())["forward_clients"] == 0 and c["forward_accepted"] ==
              sum(value for name, value in c.items() if name.startswith("forward_end_")))
        for node, phases in ((self.n1, ("name", "connect", "open")), (self.n2, ("connect", "open"))):
            for phase in phases:
                p50, p99 = (node.counters()[f"forward_{phase}_us_{p}"] for p in ("p50", "p99"))
                self.assertTrue(0 < p50 <= p99, (node.name, phase, p50, p99))

    def test_clients_that_are_well_leave_no_line_in_the_log(self):
        self.pair()
        self.each_flow(self.ALL, ("port", "name"), self.passes)
        before = [len(n.err.read_text().splitlines()) for n in (self.n1, self.n2)]
        for _ in range(50):
            self.each_flow(self.ALL, ("port", "name"), self.passes)
        after = [len(n.err.read_text().splitlines()) for n in (self.n1, self.n2)]
        self.assertEqual(before, after)


class Times(ForwardTest):
    flags = ("--idle-timeout=2s", "--half-close-timeout=2s")

    def test_streams_without_a_byte_are_ended_and_others_are_not(self):
        self.pair()
        flows = [self.flow(way, by) for way in self.ALL.values() for by in ("port", "name")]
        busy = self.flow(self.UP, "port")
        over = threading.Event()

        def talk():
            while not over.wait(0.1):
                self.passes(busy, 10)
        talking = threading.Thread(target=talk)
        talking.start()
        try:
            for flow in flows:
                self.assertTrue(breaks(flow.client))
                self.assertTrue(breaks(flow.backend))
        finally:
            over.set()
            talking.join()
        self.passes(busy)
        until("counted", lambda: self.n1.counters()["forward_end_idle"] >= 2)

    def test_half_closed_streams_live_as_long_as_bytes_come(self):
        self.set(idle_timeout="60s")
        self.pair()
        flows = [self.flow(way, "port") for way in self.ALL.values()]
        for flow in flows:
            flow.client.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(flow.backend), b"")
        pause = threading.Event()
        for _ in range(8):  # longer than the time-out in all
            pause.wait(0.3)
            for flow in flows:
                flow.backend.sendall(b"still")
                self.assertEqual(receive(flow.client, 5), b"still")
        for flow in flows:
            self.assertTrue(breaks(flow.client))


if __name__ == "__main__":
    main()
