#!/usr/bin/python3
"""Hosts of their own (hosts.py): cut cables, black holes, a bad wire, NAT, moves, IPv6."""
import os
import pathlib
import shutil
import socket
import sys
import time

from harness import PORT, SLOW, always, until
from hosts import (HEARTBEAT, LOOK, NET4, NET6, PATH, PEER_TIMEOUT, Host, HostsTest, inside, ip,
                   run)


class Partition(HostsTest):
    def test_cut_shorter_than_the_grace_loses_no_row(self):
        n1, n2, n3 = self.three()
        n3.on.link("down")
        self.until_seen("stale", n3, (n1, n2), 4 * HEARTBEAT + LOOK)
        n1.offer("late", "127.0.0.1:81")
        n3.offer("own", "127.0.0.1:82")
        n3.on.link("up")
        self.until_healed()
        self.assertEqual([n.counters()["registry_tombstones"] for n in self.mesh.nodes], [0, 0, 0])

    def test_cut_longer_than_the_grace_is_forgotten_and_heals(self):
        n1, n2, n3 = self.three()
        n1.on.link("down")  # both others dial it
        since = time.monotonic()
        self.until_seen("stale", n1, (n2, n3), 4 * HEARTBEAT + LOOK)
        self.until_seen("gone", n1, (n2, n3), PEER_TIMEOUT)
        self.assertGreater(time.monotonic() - since, PEER_TIMEOUT - 2 * HEARTBEAT)
        self.assertLess(time.monotonic() - since, (PEER_TIMEOUT + LOOK) * SLOW)
        self.assertEqual({r["peer_id"] for r in n1.rows().values()}, {"n1"})
        self.assertTrue(self.mesh.agreed([n2, n3]))
        n1.offer("late", "127.0.0.1:81")
        n2.offer("own", "127.0.0.1:82")
        n1.on.link("up")
        self.until_healed()


class BlackHole(HostsTest):
    def test_host_that_vanishes_silently_is_noticed_and_its_connections_end(self):
        n1, n2, n3 = self.three()
        self.net.know_each_other()
        n2.on.swallow(True)  # dials n1, is dialled by n3
        since = time.monotonic()
        self.until_seen("stale", n2, (n1, n3), 4 * HEARTBEAT + LOOK)
        n2.offer("own", "127.0.0.1:82")
        self.until_seen("gone", n2, (n1, n3), PEER_TIMEOUT)
        for node in (n1, n3):
            until("no half-open connection is left",
                  lambda: node.on.connections(n2.on) + n2.on.connections(node.on) == 0,
                  since + 10 + LOOK - time.monotonic())
        self.assertTrue(self.mesh.agreed([n1, n3]))
        self.assertEqual([n.counters()["node_links_lost"] for n in (n1, n3)], [1, 1])
        n2.on.swallow(False)
        self.until_healed()
        until("nothing of the old connections is left over", lambda: all(
            (c := n.counters())["gate_sessions"] == c["ports_lines"] == 2 and c["gate_parked"] == 0
            for n in self.mesh.nodes))
        self.assertTrue(all(n.info()["nng_healthy"] for n in self.mesh.nodes))

    def test_host_that_hears_but_is_not_heard_is_noticed_by_both_sides(self):
        n1, n2, n3 = self.three(wired=2)
        self.net.know_each_other()
        n2.on.wire.set(lose_from_host=1.0)
        for node in (n1, n3):
            until(f"{node.name} hears nothing", lambda: node.sees(n2) == "stale", 4 * HEARTBEAT + LOOK)
        for node in (n1, n3):  # what n1 and n3 say is not acknowledged, so they cannot go on
            until("n2 notices too", lambda: n2.sees(node) in ("stale", "gone"), 10)
        n1.offer("late", "127.0.0.1:81")
        n2.on.wire.set()
        self.until_healed()


class BadWire(HostsTest):
    heartbeat = 1.0

    def test_mesh_forms_over_a_slow_wire_that_loses_frames_and_stays(self):
        n1, n2, n3 = self.three(wired=3)
        n3.kill()
        n3.on.wire.set(delay=0.04, lose_from_host=0.05, lose_to_host=0.05)
        n3.start()
        self.until_healed()
        n3.offer("far", "127.0.0.1:82")
        n1.offer("near", "127.0.0.1:81")
        self.mesh.until_agreed()

        def steady():
            return [(n.counters()["node_links_lost"], n.counters()["registry_changes"])
                    for n in self.mesh.nodes]
        before = steady()
        always("no link is lost and no row changes", lambda: steady() == before, 6)


class OneAddress(HostsTest):
    MASQUERADE = {
        "nft": "nft add table ip t; nft add chain ip t c '{ type nat hook postrouting priority 100; }';"
               "nft add rule ip t c oifname eth0 masquerade",
        "iptables": "iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
    }

    def behind_nat(self):
        """Two hosts that reach the net through one router; its address."""
        tool = next((t for t in self.MASQUERADE if shutil.which(t, path=PATH)), None)
        if not tool:
            print("no nft, no iptables: two nodes on one host instead of NAT ... ", end="", file=sys.stderr)
            return [Host(self.net, 2)] * 2, f"{NET4}.2"
        router = Host(self.net, 9)
        self.net.bridge("lan")
        router.plug(self.net, "eth1", "lan", "10.78.0.1")
        router.run("echo 1 >/proc/sys/net/ipv4/ip_forward;" + self.MASQUERADE[tool])
        hosts = [Host(self.net, n, bridge="lan", addr=f"10.78.0.{n}") for n in (2, 3)]
        for host in hosts:
            ip(f"-n {host.name} route add default via 10.78.0.1")
        return hosts, router.ip

    def test_two_peers_behind_one_address_keep_their_own_lists(self):
        n1 = self.node("n1", Host(self.net, 1), services=["web:127.0.0.1:80"]).start()
        hosts, addr = self.behind_nat()
        a = self.node("a", hosts[0], port=PORT, services=["web:10.0.0.1:80", "db:10.0.0.1:1"], peers=[n1])
        b = self.node("b", hosts[1], port=PORT + 1, services=["web:10.0.0.2:80", "db:10.0.0.2:1"], peers=[n1])
        a.start()
        until("a is known", lambda: n1.sees(a) == "live")
        b.start()
        until("b is known", lambda: n1.sees(b) == "live")
        labels = {"n1": "local", "a": addr, "b": f"{addr}#b"}
        self.assertEqual({k: r["backend_addr"] for k, r in n1.rows().items()}, {
            f"{name}@{labels[node.name]}": backend for node in (n1, a, b)
            for _, name, backend, _ in node.truth()})
        n1.offer("late", "127.0.0.1:81")
        b.offer("own", "127.0.0.1:82")
        for node in (a, b):
            until("what n1 and it offer is all it knows", lambda: self.mesh.agreed([n1, node]) or
                  node.believes() == node.truth() | n1.truth())
        until("n1 knows all", lambda: n1.believes() == n1.truth() | a.truth() | b.truth())
        a.kill()
        until("a is gone", lambda: n1.sees(a) == "gone", PEER_TIMEOUT + LOOK)
        self.assertEqual({r["key"] for r in n1.rows().values() if r["peer_id"] == "b"},
                         {f"{s.split(':')[0]}@{addr}#b" for s in b.services})


class Moves(HostsTest):
    def test_peer_that_moves_to_another_address_is_found_by_its_name(self):
        def say(addr):
            pathlib.Path("/etc/hosts").write_text(f"127.0.0.1 localhost\n{addr} n1.mesh.test\n", "ascii")
        old, new, other = (Host(self.net, n) for n in (1, 3, 2))
        say(old.ip)
        n1 = self.node("n1", old, services=["web:127.0.0.1:80"]).start()
        n2 = self.node("n2", other, services=["db:127.0.0.1:81"], peers=[f"n1.mesh.test:{PORT}"]).start()
        self.mesh.until_agreed()
        old.link("down")
        n1.kill()
        n1.on, n1.host = new, new.ip
        say(new.ip)
        n1.start()
        self.until_healed()
        self.assertEqual([link["address"] for link in n2.info()["links"]], [f"{new.ip}:{PORT}"])


class Six(HostsTest):
    def test_hosts_meet_over_ipv6_and_those_with_both_are_seen_as_they_came(self):
        if not os.path.exists("/proc/net/if_inet6"):
            self.skipTest("no IPv6 in this kernel")
        h1, h2, h3, h4 = (Host(self.net, n) for n in (1, 2, 3, 4))
        n1 = self.node("n1", h1, host=f"[{h1.ip6}]", services=["web:[::1]:80"]).start()
        n2 = self.node("n2", h2, host=f"[{h2.ip6}]", services=["db:[::1]:81"], peers=[n1]).start()
        n3 = self.node("n3", h3, PEER_BIND_ADDR=f":{PORT}", peers=[n1]).start()
        n4 = self.node("n4", h4, services=["mail:127.0.0.1:25"], peers=[n3]).start()
        self.mesh.until_agreed([n1, n2])
        self.assertEqual(set(n1.rows()), {"web@local", f"db@{h2.ip6}"})
        self.assertEqual(set(n2.rows()), {"db@local", f"web@{h1.ip6}"})
        until("n3 knows both sides", lambda: set(n3.rows()) == {f"web@{h1.ip6}", f"mail@{h4.ip}"})
        until("n1 and n4 know it", lambda: n1.sees(n3) == n4.sees(n3) == "live")
        self.assertEqual(n1.peer_rows()["n3"]["peer_ip"], h3.ip6)
        self.assertEqual(n4.peer_rows()["n3"]["peer_ip"], h3.ip)

    def test_a_64_is_one_source_whichever_of_its_addresses_connect(self):
        if not os.path.exists("/proc/net/if_inet6"):
            self.skipTest("no IPv6 in this kernel")
        h1, h2 = (Host(self.net, n) for n in (1, 2))
        near = [f"{NET6}:2:{i}" for i in range(1, 11)]
        ip(f"-n {h1.name} addr add {NET6}0:0:1::1/64 dev eth0 nodad")
        for addr in (*near, f"{NET6}0:0:1::2"):
            ip(f"-n {h2.name} addr add {addr}/64 dev eth0 nodad")
        n1 = self.node("n1", h1, host=f"[{h1.ip6}]", PEER_BIND_ADDR=f":{PORT}").start()

        def silent(source, to):
            with inside(h2.name):
                sock = socket.create_connection((to, PORT), 10, (source, 0))
            self.addCleanup(sock.close)

        for i in range(140):
            silent(near[i % 10], h1.ip6)
        until("those over half_open_per_source are closed",
              lambda: n1.counters()["gate_closed_over_half_open"] == 140 - 128)
        for _ in range(20):
            silent(f"{NET6}0:0:1::2", f"{NET6}0:0:1::1")
        until("another /64 has its own", lambda: n1.counters()["gate_half_open"] == 128 + 20)
        self.assertEqual(n1.counters()["gate_closed_over_half_open"], 140 - 128)


if __name__ == "__main__":
    run()
