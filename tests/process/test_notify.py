#!/usr/bin/python3
"""What a node tells the service manager (sd_notify(3)), to a socket that stands in for it."""
import os
import re
import signal
import socket
import time

from harness import MeshTest, SLOW, always, main, until

WATCHDOG_US = 400_000


class Manager:
    """The datagrams of NOTIFY_SOCKET, each a dictionary, with the process that sent it."""

    def __init__(self, test, name):
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        test.addCleanup(self.socket.close)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(name.replace("@", "\0", 1))
        self.seen = []

    def next(self, seconds=10.0):
        self.socket.settimeout(seconds * SLOW)
        data, control, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(12))
        told = dict(line.split("=", 1) for line in data.decode("ascii").split("\n"))
        told["pid"] = int.from_bytes(control[0][2][:4], "little")
        self.seen.append(told)
        return told

    def until(self, key, seconds=10.0):
        """The next datagram with this key; the signs of life before it are left out."""
        deadline = time.monotonic() + seconds * SLOW
        while True:
            told = self.next(max(deadline - time.monotonic(), 0.01))
            if key in told:
                return told

    def silent(self, seconds):
        self.socket.settimeout(seconds)
        try:
            return not self.socket.recv(4096)
        except TimeoutError:
            return True

    def empty(self):
        self.socket.setblocking(False)
        try:
            while self.socket.recv(4096):
                pass
        except BlockingIOError:
            pass


class Notify(MeshTest):
    def node(self, manager, watchdog=WATCHDOG_US, **more):
        extra = {"WATCHDOG_USEC": str(watchdog)} if watchdog else {}
        return self.mesh.node("n1", NOTIFY_SOCKET=manager.name, **extra, **more)

    def a_life(self, manager):
        n1 = self.node(manager, watchdog=None, services=["web:127.0.0.1:80"]).spawn()
        ready = manager.next()
        self.assertEqual(ready["READY"], "1")
        self.assertEqual(ready["STATUS"], "peers: 0 connected, 0 stale; services: 1 here, 0 of peers")
        self.assertEqual(ready["pid"], n1.process.pid)
        self.assertEqual(n1.cat("ping").returncode, 0)  # it answers from that moment
        before_us = time.monotonic_ns() // 1000
        n1.signal(signal.SIGHUP)
        reloading = manager.next()
        self.assertEqual(reloading["RELOADING"], "1")
        self.assertTrue(before_us <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000)
        self.assertEqual({"READY": "1", "pid": n1.process.pid}, manager.next())
        n1.signal(signal.SIGTERM)
        stopping = manager.next()
        self.assertEqual(stopping["STOPPING"], "1")
        self.assertGreaterEqual(int(stopping["EXTEND_TIMEOUT_USEC"]), 30_000_000)  # drain_timeout
        self.assertEqual(stopping["STATUS"], "draining, 0 are being forwarded")
        self.assertEqual(n1.ended(), 0)
        self.assertTrue(manager.silent(0.01))

    def test_a_life_is_told_in_order_on_a_path(self):
        self.a_life(Manager(self, f"{self.mesh.dir}/notify"))

    def test_likewise_on_an_abstract_socket(self):
        self.a_life(Manager(self, f"@meshd-test-{self.mesh.net}-{os.getpid()}"))

    def test_nothing_is_told_of_a_start_that_fails(self):
        manager = Manager(self, f"{self.mesh.dir}/notify")
        n1 = self.node(manager, PEER_BIND_ADDR="192.0.2.1:7400", PEER_INSECURE="true").spawn()
        self.assertEqual(n1.ended(), 1)
        self.assertTrue(manager.silent(0.01))

    def test_signs_of_life_come_in_time_and_end_when_it_hangs(self):
        manager = Manager(self, f"{self.mesh.dir}/notify")
        began = time.monotonic()  # they wait to be read: what is sure is that none is older than the node
        n1 = self.node(manager).start()
        manager.until("READY")
        for _ in range(5):
            self.assertEqual(manager.until("WATCHDOG")["WATCHDOG"], "1")
        self.assertGreater(time.monotonic() - began, 4 * WATCHDOG_US / 4e6)  # no flood either
        n1.signal(signal.SIGSTOP)
        until("it has stopped", lambda: stopped(n1.process.pid))
        manager.empty()
        self.assertTrue(manager.silent(2 * WATCHDOG_US / 1e6))
        n1.signal(signal.SIGCONT)
        manager.until("WATCHDOG")
        n1.signal(signal.SIGTERM)
        manager.until("STOPPING")
        self.assertEqual(n1.ended(), 0)

    def test_another_process_s_watchdog_is_not_fed(self):
        manager = Manager(self, f"{self.mesh.dir}/notify")
        n1 = self.node(manager, WATCHDOG_PID="1").start()
        manager.until("READY")
        self.assertTrue(manager.silent(2 * WATCHDOG_US / 1e6))
        n1.kill()

    def test_the_sentence_follows_the_mesh(self):
        manager = Manager(self, f"{self.mesh.dir}/notify")
        n1 = self.node(manager).start()
        self.mesh.node("n2", services=["db:127.0.0.1:81", "web:127.0.0.1:80"], peers=[n1]).start()
        while not re.fullmatch("peers: 1 connected, 0 stale; services: 0 here, 2 of peers",
                               manager.until("STATUS")["STATUS"]):
            pass

    def test_a_manager_that_does_not_read_holds_nothing_up(self):
        manager = Manager(self, f"{self.mesh.dir}/notify")
        n1 = self.node(manager, watchdog=2000).start()
        full = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(full.close)
        full.setblocking(False)
        full.connect(manager.name)
        try:
            while True:
                full.send(b"STATUS=others")
        except BlockingIOError:
            pass
        always("it answers", lambda: n1.cat("ping", check=False).returncode == 0, 0.5)
        n1.signal(signal.SIGTERM)
        self.assertEqual(n1.ended(), 0)
        self.assertIn("cannot tell the service manager", n1.err.read_text())

    def test_a_manager_that_was_started_anew_hears_it_again(self):
        manager = Manager(self, f"{self.mesh.dir}/notify")
        n1 = self.node(manager).start()
        manager.until("READY")
        manager.socket.close()
        os.unlink(manager.name)
        manager = Manager(self, f"{self.mesh.dir}/notify")
        manager.until("WATCHDOG")
        n1.kill()

    def test_a_socket_that_is_not_there_is_told_and_no_more(self):
        for name, why in ((f"{self.mesh.dir}/none", "No such file"), ("vsock:2:1", "Invalid argument")):
            n1 = self.mesh.node("n1", NOTIFY_SOCKET=name).start()
            self.assertRegex(n1.err.read_text(), f"NOTIFY_SOCKET: .*{re.escape(name)}: {why}")
            n1.signal(signal.SIGTERM)
            self.assertEqual(n1.ended(), 0)

    def test_without_one_nothing_is_opened(self):
        n1 = self.mesh.node("n1", WATCHDOG_USEC="2000").start()
        self.assertNotIn("service manager", n1.err.read_text())
        n1.kill()


def stopped(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "T"


if __name__ == "__main__":
    main()
