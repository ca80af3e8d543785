"""harness - real meshd processes, each test with addresses and folders of its own.

A test derives from MeshTest and asks self.mesh for nodes. Every mesh has a 127.A.B.0/24 of its own, so
tests may run side by side; ports lie below the ephemeral range. Nothing sleeps: until() looks
again and again, up to a deadline. When a test ends, its processes are killed and reaped; when the
test itself dies, the kernel kills them (PR_SET_PDEATHSIG). When it fails, the nodes' logs are shown.

The environment names the programs (MESHD, MESHCAT), the tree (MESHD_SOURCE), how much slower than
a release build things are (MESHD_TEST_SLOW), and may give a seed (MESHD_TEST_SEED).
"""
import ctypes
import errno
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

MESHD = os.environ["MESHD"]
MESHCAT = os.environ["MESHCAT"]
SOURCE = pathlib.Path(os.environ["MESHD_SOURCE"])
SLOW = float(os.environ.get("MESHD_TEST_SLOW", "1"))
SEED = int(os.environ.get("MESHD_TEST_SEED") or random.SystemRandom().getrandbits(32))
PORT = 7400

# Quick enough for a test to see all of a link's life, and no quicker: a node that a busy machine does not
# let speak for 3 heartbeats has fallen silent.
HEARTBEAT_MS, PEER_TIMEOUT_MS = 1000, 4000

_pause = threading.Event()  # never set
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent():
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def until(what, probe, seconds=10.0):
    """The first true value of probe(), looked at every few ms; fails after seconds * SLOW."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds * SLOW:.0f} s: {what}")
        _pause.wait(0.03)


def always(what, probe, seconds):
    """probe() stays true for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not probe():
            raise AssertionError(f"no longer true: {what}")
        _pause.wait(0.05)


def clean_environment():
    """What any process here gets: nothing of ours that the caller has set, sanitizers' options."""
    keep = ("PATH", "HOME", "LANG", "TMPDIR")
    return {k: v for k, v in os.environ.items() if k in keep or k.endswith("SAN_OPTIONS")}


def _own_net():
    """A 127.A.B that no other test on this machine has now, and the socket that keeps it: of some
    hundred meshes side by side two would draw the same one every now and then."""
    draw = random.SystemRandom()
    while True:
        net = f"127.{draw.randrange(10, 250)}.{draw.randrange(1, 250)}"
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0meshd-test-{net}")
            return net, lock
        except OSError as error:
            lock.close()
            if error.errno != errno.EADDRINUSE:
                raise


class Node:
    """One meshd. Settings are environment variables and flags of meshd; None unsets a variable."""

    def __init__(self, mesh, name, host, port=PORT, services=(), peers=(), flags=(), **env):
        self.mesh, self.name, self.host, self.port = mesh, name, host, port
        self.services, self.flags = list(services), list(flags)
        self.peers = [p if isinstance(p, str) else f"{p.host}:{p.port}" for p in peers]
        self.env = env
        self.process = None
        self.out, self.err = mesh.dir / f"{name}.out", mesh.dir / f"{name}.err"

    @property
    def url(self):
        return f"tcp://{self.host}:{self.port}"

    @property
    def socket(self):
        return self.mesh.dir / "run" / self.name / "meshd.sock"

    def environment(self):
        env = clean_environment()
        env.update(
            PEER_NAME=self.name,
            PEER_BIND_ADDR=f"{self.host}:{self.port}",
            RUNTIME_DIRECTORY=str(self.mesh.dir / "run"),
            SERVICE_ADDR=",".join(self.services),
            REMOTE_PEER_ADDR=",".join(self.peers),
        )
        for key, value in self.env.items():
            env.pop(key, None)
            if value is not None:
                env[key] = str(value)
        return env

    def spawn(self):
        """Starts it and does not wait for anything."""
        with open(self.out, "ab") as out, open(self.err, "ab") as err:
            self.process = subprocess.Popen(
                [MESHD, *self.mesh.flags, *self.flags], env=self.environment(), stdin=subprocess.DEVNULL,
                stdout=out, stderr=err, preexec_fn=_die_with_parent, cwd=self.mesh.dir)
        return self

    def start(self):
        self.spawn()
        until(f"{self.name} answers", self.answers_or_ended, 30)
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode} at its start")
        return self

    def answers_or_ended(self):
        return self.process.poll() is not None or self.cat("ping", check=False).returncode == 0

    def cat(self, *args, check=True, timeout=10.0, url=None, text=True):
        """Runs meshcat against this node; its data, as text unless told otherwise, in .stdout."""
        argv = [MESHCAT, "--dial", url or self.url, "--timeout", str(timeout * SLOW), *map(str, args)]
        done = subprocess.run(argv, env=clean_environment(), stdin=subprocess.DEVNULL, text=text,
                              capture_output=True, preexec_fn=_die_with_parent)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def local(self, *args, check=True):
        """Through the Unix socket, as a program on the node's own machine."""
        return self.cat(*args, check=check, url=f"ipc://{self.socket}")

    def maps(self):
        """Both maps, as of one revision."""
        maps = self.try_maps()
        if not maps:
            raise AssertionError(f"{self.name} does not show its maps")
        return maps

    def try_maps(self):
        done = self.cat("introspect", "--format", "json", check=False)
        return json.loads(done.stdout) if done.returncode in (0, 1) and done.stdout else None

    def rows(self):
        """`services` by key; {} when it does not answer."""
        maps = self.try_maps()
        return {row["key"]: row for row in maps["services"]} if maps else {}

    def reachable(self):
        """The rows whose owner is connected: a row is known a moment before that."""
        return {key: row for key, row in self.rows().items() if row["connected"]}

    def peer_rows(self):
        """`peer_services` by peer id."""
        maps = self.try_maps()
        return {row["peer_id"]: row for row in maps["peer_services"]} if maps else {}

    def info(self):
        return json.loads(self.cat("node", "--format", "json").stdout)["node"]

    def counters(self):
        return {c["name"]: c["value"] for c in self.info()["counters"]}

    def believes(self):
        """What it holds to be offered: (owner, name, backend, usable) of every row."""
        return {(row["peer_id"], row["name"], row["backend_addr"], row["connected"] and not row["stale"])
                for row in self.rows().values()}

    def truth(self):
        """What it offers itself."""
        split = [service.split(":", 1) for service in self.services]
        return {(self.name, name, backend, True) for name, backend in split}

    def signal(self, number):
        self.process.send_signal(number)

    def ended(self, seconds=10.0):
        """Waits for its end; the exit code."""
        try:
            return self.process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} has not ended within {seconds * SLOW:.1f} s") from None

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rss_kib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


class Mesh:
    """The nodes of one test."""

    def __init__(self):
        self.net, self.lock = _own_net()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="meshd-"))
        (self.dir / "run").mkdir(mode=0o700)
        self.flags = [f"--heartbeat={HEARTBEAT_MS}ms", f"--peer-timeout={PEER_TIMEOUT_MS}ms"]
        if os.geteuid() != 0:  # so that its descriptors can be counted
            self.flags.append("--core-dumps")
        self.nodes = []
        self.kind = Node

    def node(self, name, n=None, **settings):
        """A node that is not started yet, at the n-th address of this mesh (n1: .1)."""
        n = n or int("".join(c for c in name if c.isdigit()) or len(self.nodes) + 1)
        node = self.kind(self, name, f"{self.net}.{n}", **settings)
        self.nodes.append(node)
        return node

    def agreed(self, nodes=None):
        """True when each of these nodes holds exactly what all of them offer, in both maps."""
        nodes = nodes or [n for n in self.nodes if n.alive()]
        truth = set().union(*(n.truth() for n in nodes))
        for node in nodes:
            maps = node.try_maps()
            if not maps:
                return False
            seen = {(r["peer_id"], r["name"], r["backend_addr"], r["connected"] and not r["stale"])
                    for r in maps["services"]}
            if seen != truth:
                return False
            others = {(p["peer_id"], s["name"], s["backend_addr"], p["connected"] and not p["stale"])
                      for p in maps["peer_services"] for s in p["services"]}
            if others != {row for row in truth if row[0] != node.name}:
                return False
        return True

    def until_agreed(self, nodes=None, seconds=20.0):
        until("all nodes agree", lambda: self.agreed(nodes), seconds)

    def close(self):
        for node in self.nodes:
            if node.alive():
                node.signal(signal.SIGKILL)
        for node in self.nodes:
            if node.process:
                node.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
        self.lock.close()

    def show_logs(self):
        for node in self.nodes:
            code = node.process.poll() if node.process else "never started"
            print(f"--- {node.name} at {node.url}, exit code {code}", file=sys.stderr)
            for file in (node.err, node.out):
                if file.exists():
                    lines = file.read_text("utf-8", "replace").splitlines()
                    print(f"--- {file.name}, the last of {len(lines)} lines", file=sys.stderr)
                    print("\n".join(lines[-60:]), file=sys.stderr)


class MeshTest(unittest.TestCase):
    def setUp(self):
        self.random = random.Random(SEED)
        self.mesh = Mesh()
        self.addCleanup(self.mesh.close)

    def set(self, **settings):
        """Settings of the nodes to come: drain_timeout="1s"."""
        flags = {key.replace("_", "-"): value for key, value in settings.items()}
        self.mesh.flags = [f for f in self.mesh.flags if f.lstrip("-").split("=")[0] not in flags] + \
                          [f"--{key}={value}" for key, value in flags.items()]

    def tearDown(self):
        result = self._outcome.result
        if any(getattr(test, "test_case", test) is self  # of a subTest: what it is a part of
               for test, _ in result.failures + result.errors):
            self.mesh.show_logs()


def main():
    print(f"MESHD_TEST_SEED={SEED}", file=sys.stderr)
    unittest.main(verbosity=2, module="__main__")
