"""hosts - hosts of their own, by network namespaces: cables, a switch, a bad wire, and nodes on them.

A test goes into a network and mounts of its own (as root, or as a user who may have namespaces), so
all that it makes, its names too, goes with it, however it ends. The switch between the hosts is a
bridge in there. Without namespaces run() ends with exit code 77, which ctest takes for skipped.
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

from harness import SEED, MeshTest, Node, _die_with_parent, main, until

HEARTBEAT, PEER_TIMEOUT = 0.5, 6.0
LIVE_AGAIN = 12.0  # after a healing; the maps agree two heartbeats later
LOOK = 2.5  # what looking at all nodes may take on a busy machine
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
        super().__init__(mesh, name, host or on.ip, **{"PEER_INSECURE": "true"} | settings)
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


def run():
    """The tests of the file that calls it."""
    with tempfile.TemporaryDirectory(prefix="meshd-") as folder:
        hosts_file = pathlib.Path(folder) / "hosts"
        hosts_file.write_text("127.0.0.1 localhost\n", "ascii")
        try:
            if not shutil.which("ip", path=PATH):
                raise OSError("iproute2 is not installed")
            isolate(hosts_file)
        except OSError as why:
            print(f"skipped: no network namespaces here: {why}")
            sys.exit(77)
        main()
