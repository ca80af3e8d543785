#!/usr/bin/python3
"""Hosts of their own, by network namespaces: cut cables, black holes, a bad wire, NAT, moves, IPv6.

The test goes into a network and mounts of its own (as root, or as a user who may have namespaces),
so all that it makes, its names too, goes with it, however it ends. The switch between the hosts is
a bridge in there. Without namespaces: exit code 77, which ctest takes for skipped.
"""
import contextlib
import ctypes
import fcntl
import heapq
import multiprocessing
import os
import pathlib
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

from harness import MESHD, PORT, SEED, SLOW, MeshTest, Node, _die_with_parent, always, main, until

HEARTBEAT, PEER_TIMEOUT = 0.5, 6.0
LIVE_AGAIN = 12.0  # after a healing; the maps agree two heartbeats later
LOOK = 0.5  # what looking at all nodes may take
NET4, NET6 = "10.77.0", "fd77:"
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000


# --- a world of our own ---

def libc_call(what, *args):
    if getattr(libc, what)(*args) != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source, target, kind=None, flags=0):
    libc_call("mount", source.encode(), target.encode(), kind, flags, None)


def ip(command):
    subprocess.run([shutil.which("ip", path=PATH), *command.split()], check=True)


def isolate(hosts_file):
    """Network and mounts of our own; hosts_file becomes /etc/hosts. Raises OSError where it cannot."""
    uid, gid = os.geteuid(), os.getegid()
    libc_call("unshare", CLONE_NEWNS | CLONE_NEWNET | (CLONE_NEWUSER if uid else 0))
    if uid:
        pathlib.Path("/proc/self/setgroups").write_text("deny", "ascii")
        pathlib.Path("/proc/self/uid_map").write_text(f"0 {uid} 1", "ascii")
        pathlib.Path("/proc/self/gid_map").write_text(f"0 {gid} 1", "ascii")
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", "/run", b"tmpfs")
    mount(str(hosts_file), "/etc/hosts", None, MS_BIND)
    try:
        ip("link set lo up")
        ip("netns add probe")
        ip("link add probe0 type veth peer name probe1 netns probe")
        ip("link del probe0")
        ip("netns del probe")
    except subprocess.CalledProcessError as error:
        raise OSError(f"`{' '.join(error.cmd)}` failed") from error


@contextlib.contextmanager
def inside(namespace):
    """What is begun in here, a process or a device, belongs to that namespace."""
    with open("/proc/self/ns/net", "rb") as home, open(f"/run/netns/{namespace}", "rb") as there:
        libc_call("setns", there.fileno(), CLONE_NEWNET)
        try:
            yield
        finally:
            libc_call("setns", home.fileno(), CLONE_NEWNET)


# --- hosts and what joins them ---

class Wire:
    """A cable that delays and loses frames, each way by itself: a tap at each end, a process between.
    Does what tc's netem does, on kernels without it too."""

    def __init__(self, namespace, device, port):
        self.settings = multiprocessing.Array("d", [0.0, 0.0, 0.0], lock=False)
        with inside(namespace):
            far = self.tap(device)
        near = self.tap(port)
        self.process = multiprocessing.get_context("fork").Process(
            target=self.carry, args=(far, near), daemon=True)
        self.process.start()
        os.close(far)
        os.close(near)

    @staticmethod
    def tap(name):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))  # TUNSETIFF: a tap
        return fd

    def set(self, delay=0.0, lose_from_host=0.0, lose_to_host=0.0):
        self.settings[:] = [delay, lose_from_host, lose_to_host]

    def carry(self, far, near):
        _die_with_parent()
        chance, under_way, n = random.Random(SEED), [], 0
        while True:
            wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
            for fd in select.select([far, near], [], [], wait)[0]:
                frame = os.read(fd, 65536)
                delay, *lose = self.settings
                if chance.random() >= lose[fd == near]:
                    n += 1
                    to = near if fd == far else far
                    heapq.heappush(under_way, (time.monotonic() + delay, n, to, frame))
            while under_way and under_way[0][0] <= time.monotonic():
                with contextlib.suppress(OSError):  # that end is down
                    os.write(under_way[0][2], under_way[0][3])
                heapq.heappop(under_way)

    def close(self):
        self.process.kill()
        self.process.join()


class Host:
    """A namespace with one cable, to a bridge: `wan`, or another."""

    def __init__(self, net, n, wired=False, bridge="wan", addr=None):
        self.name, self.port, self.n = f"h{n}", f"{bridge}{n}", n
        self.ip, self.ip6 = addr or f"{NET4}.{n}", f"{NET6}:{n}"
        self.mac, self.wire = f"02:00:00:00:00:{n:02x}", None
        ip(f"netns add {self.name}")
        net.hosts.append(self)
        self.plug(net, "eth0", bridge, self.ip, wired)

    def plug(self, net, device, bridge, addr, wired=False):
        port = f"{bridge}{self.n}"
        if wired:
            self.wire = Wire(self.name, device, port)
        else:
            ip(f"link add {port} type veth peer name {device} netns {self.name}")
        net.ports.append(port)
        ip(f"link set {port} master {bridge} up")
        if device == "eth0":
            ip(f"-n {self.name} link set {device} address {self.mac}")
            ip(f"-n {self.name} addr add {self.ip6}/64 dev {device} nodad")
        ip(f"-n {self.name} addr add {addr}/24 dev {device}")
        ip(f"-n {self.name} link set lo up")
        ip(f"-n {self.name} link set {device} up")

    def link(self, state):
        """The host's cable: pulled out (down), or in."""
        ip(f"-n {self.name} link set eth0 {state}")

    def swallow(self, on):
        """The switch port drops all frames, or not; both ends see a good cable."""
        subprocess.run([shutil.which("bridge", path=PATH), "link", "set", "dev", self.port, "state",
                        "0" if on else "3"], check=True)

    def run(self, command):
        with inside(self.name):
            subprocess.run(["/bin/sh", "-ec", command], check=True, env={"PATH": PATH})

    def connections(self, other):
        """Established TCP connections with the other host, as this kernel sees them."""
        with inside(self.name), open("/proc/thread-self/net/tcp", encoding="ascii") as table:
            rows = [line.split() for line in table][1:]
        addr = f"{struct.unpack('=I', socket.inet_aton(other.ip))[0]:08X}"
        return sum(row[3] == "01" and row[2].startswith(addr) for row in rows)


class Net:
    def __init__(self):
        self.hosts, self.ports, self.bridges = [], [], []
        self.bridge("wan")

    def bridge(self, name):
        ip(f"link add {name} type bridge mcast_snooping 0")
        self.bridges.append(name)
        ip(f"link set {name} up")

    def know_each_other(self):
        """Neighbours are fixed, as behind a router: who vanishes is not reported by ARP either."""
        for host in self.hosts:
            for other in self.hosts:
                if other is not host:
                    ip(f"-n {host.name} neigh replace {other.ip} lladdr {other.mac} dev eth0 nud permanent")

    def close(self):
        for host in self.hosts:
            if host.wire:
                host.wire.close()
                self.ports.remove(host.port)  # gone with it
        for device in self.ports + self.bridges:
            ip(f"link del {device}")
        for host in self.hosts:
            ip(f"netns del {host.name}")


class HostNode(Node):
    """A meshd on a host. Its local socket is a file, which is reached from everywhere."""

    def __init__(self, mesh, name, on, host=None, **settings):
        super().__init__(mesh, name, host or on.ip, PEER_INSECURE="true", **settings)
        self.on = on

    @property
    def url(self):
        return f"ipc://{self.socket}"

    def spawn(self):
        with inside(self.on.name):
            return super().spawn()

    def offer(self, name, backend):
        self.local("offer", name, backend)
        self.services.append(f"{name}:{backend}")

    def sees(self, other):
        """How it sees the peer: live, stale, not live (yet), or gone; None when it does not say."""
        maps = self.try_maps()
        if not maps:
            return None
        row = next((p for p in maps["peer_services"] if p["peer_id"] == other.name), None)
        return "gone" if not row else "live" if row["connected"] else "stale" if row["stale"] else "known"


class HostsTest(MeshTest):
    heartbeat = HEARTBEAT

    def setUp(self):
        self.net = Net()
        self.addCleanup(self.net.close)  # after the nodes
        super().setUp()
        self.mesh.flags = [f"--heartbeat={int(self.heartbeat * 1000)}ms",
                           f"--peer-timeout={int(PEER_TIMEOUT * 1000)}ms"]

    def node(self, name, on, **settings):
        node = HostNode(self.mesh, name, on, **settings)
        self.mesh.nodes.append(node)
        return node

    def three(self, wired=None):
        """n3 dials n1 and n2, n2 dials n1; each on its host."""
        if wired and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            self.skipTest("/dev/net/tun cannot be opened here")
        hosts = [Host(self.net, n, wired=n == wired) for n in (1, 2, 3)]
        n1 = self.node("n1", hosts[0], services=["web:127.0.0.1:80", "db:127.0.0.1:5432"])
        n2 = self.node("n2", hosts[1], services=["web:10.0.0.2:80"], peers=[n1])
        n3 = self.node("n3", hosts[2], services=["mail:[::1]:25"], peers=[n1, n2])
        for node in (n1, n2, n3):
            node.start()
        self.mesh.until_agreed()
        return n1, n2, n3

    def until_seen(self, how, lost, others, seconds):
        """lost and each of the others see each other so."""
        for other in others:
            until(f"{other.name} sees {lost.name} {how}", lambda: other.sees(lost) == how, seconds)
            until(f"{lost.name} sees {other.name} {how}", lambda: lost.sees(other) == how, seconds)

    def until_healed(self):
        nodes = self.mesh.nodes
        until("each pair is live", lambda: all(
            a.sees(b) == "live" for a in nodes for b in nodes if a is not b), LIVE_AGAIN)
        self.mesh.until_agreed(seconds=2 * self.heartbeat + LOOK)


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
        self.mesh.until_agreed(seconds=3)

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
            HOSTS_FILE.write_text(f"127.0.0.1 localhost\n{addr} n1.mesh.test\n", "ascii")
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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="meshd-") as folder:
        HOSTS_FILE = pathlib.Path(folder) / "hosts"
        HOSTS_FILE.write_text("127.0.0.1 localhost\n", "ascii")
        try:
            if not shutil.which("ip", path=PATH):
                raise OSError("iproute2 is not installed")
            isolate(HOSTS_FILE)
        except OSError as why:
            print(f"skipped: no network namespaces here: {why}")
            sys.exit(77)
        main()
