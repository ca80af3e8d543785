#!/usr/bin/python3
"""Clients, nodes and backends on hosts of their own (hosts.py): one outbound-only link, a bad wire, a
black hole."""
import os
import socket
import threading
import time

from forwarding import AUTO, MAPPED, Backend, Flow, ForwardTest, Reply, breaks, digest, head_for, receive, receive_all
from harness import PORT, SLOW, until
from hosts import LOOK, Host, HostsTest, inside, run

SIZE = 300_000
SILENCE = 40.0  # who is silently gone is noticed in 30 s, a few more after the stream began


class ForwardHosts(HostsTest, ForwardTest):
    """n2's host dials n1's and cannot be dialled itself: n2 listens on its own loopback only. Both
    have a backend at 127.0.0.1 of their host, which nobody else can reach."""

    def two_hosts(self, wired=False):
        if wired and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            self.skipTest("/dev/net/tun cannot be opened here")
        h1, h2 = Host(self.net, 1), Host(self.net, 2, wired=wired)
        with inside(h1.name):
            self.one = Backend(self, "127.0.0.1")
        with inside(h2.name):
            self.two = Backend(self, "127.0.0.1")
        self.n1 = self.node("n1", h1, services=[f"one:{self.one.address}"], INGRESS_ADDR=f"{AUTO},{MAPPED}=two").start()
        self.n2 = self.node("n2", h2, host="127.0.0.1", services=[f"two:{self.two.address}"], peers=[f"{h1.ip}:{PORT}"],
                            INGRESS_ADDR=f"{AUTO},{MAPPED}=one").start()
        self.mesh.until_agreed()

    def dial(self, host, ip, port):
        with inside(host.name):
            sock = socket.create_connection((ip, port), 10 * SLOW)
        self.addCleanup(sock.close)
        return sock

    def both_ways(self, host):
        """A flow each way: a client on that host goes to n1, one beside n2 to n2; by port and name."""
        for ip, client_host, service in ((self.n1.on.ip, host, "two"), ("127.0.0.1", self.n2.on, "one")):
            backend = {"one": self.one, "two": self.two}[service]
            client = self.dial(client_host, ip, MAPPED)
            yield Flow(client, backend.accept())
            client = self.dial(client_host, ip, AUTO)
            client.sendall(head_for(service))
            flow = Flow(client, backend.accept())
            self.assertEqual(receive(flow.backend, len(head_for(service))), head_for(service))
            yield flow


class Outbound(ForwardHosts):
    def test_node_that_cannot_be_dialled_is_reached_and_reaches(self):
        self.two_hosts()
        stranger = Host(self.net, 3)
        for port in (PORT, self.two.sock.getsockname()[1]):
            with self.assertRaises(ConnectionRefusedError):
                self.dial(self.n1.on, self.n2.on.ip, port)
        for flow in self.both_ways(stranger):
            self.passes(flow, SIZE)
            flow.client.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(flow.backend), b"")
            answer = self.payload(SIZE)
            sending = threading.Thread(target=lambda: (flow.backend.sendall(answer), flow.backend.close()))
            sending.start()
            self.assertEqual(digest(receive_all(flow.client)), digest(answer))
            sending.join()


class BadWire(ForwardHosts):
    heartbeat = 1.0

    def test_bytes_pass_whole_over_a_wire_of_40_ms_that_loses_one_in_a_hundred(self):
        self.two_hosts(wired=True)
        self.n2.on.wire.set(delay=0.04, lose_from_host=0.01, lose_to_host=0.01)
        flows = list(self.both_ways(self.n1.on))
        self.addCleanup(self.n2.on.wire.set)
        got, sent, threads = {}, {}, []
        for flow in flows:
            for sock, other in (flow, flow[::-1]):
                data = self.payload(SIZE)
                sent[other] = digest(data)
                threads += [
                    threading.Thread(target=lambda s=sock, d=data: (s.sendall(d), s.shutdown(socket.SHUT_WR))),
                    threading.Thread(target=lambda s=sock: got.update({s: digest(receive_all(s))}))]
        for sock in sent:
            sock.settimeout(60 * SLOW)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(got, sent)
        self.assertEqual([n.counters()["node_links_lost"] for n in (self.n1, self.n2)], [0, 0])


class BlackHole(ForwardHosts):
    flags = ()

    def test_streams_into_silence_end_and_new_clients_are_told_in_time(self):
        self.two_hosts()
        self.net.know_each_other()
        flows = list(self.both_ways(self.n1.on))
        for flow in flows:
            self.passes(flow)
        self.n2.on.swallow(True)
        since = time.monotonic()
        client = self.dial(self.n1.on, self.n1.on.ip, AUTO)
        client.sendall(head_for("two"))
        self.assertIn(Reply(receive_all(client)).status, (502, 503, 504))
        self.assertLess(time.monotonic() - since, (10 + LOOK) * SLOW)
        for flow in flows:
            for sock in flow:
                sock.sendall(b"is anybody there?")
                sock.settimeout((SILENCE + LOOK) * SLOW)
        for flow in flows:
            for sock in flow:
                self.assertTrue(breaks(sock))
        self.n2.on.swallow(False)
        self.until_healed()
        for flow in self.both_ways(self.n1.on):
            self.passes(flow)
        until("nothing of the old streams is left", lambda: all(
            n.counters()["forward_relayed"] <= 4 for n in (self.n1, self.n2)))


if __name__ == "__main__":
    run()
