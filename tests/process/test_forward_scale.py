#!/usr/bin/python3
"""Very many clients through two nodes: what each costs in memory, and that nothing of them stays.

Clients and backends are processes of their own, for their descriptors' sake.
"""
import multiprocessing
import os
import pathlib
import resource
import selectors
import socket
import subprocess

from forwarding import AUTO, MAPPED, ForwardTest, memory_kib
from harness import SLOW, _die_with_parent, clean_environment, main, until

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))
# A node has two descriptors for each client, and some of its own.
IDLE = min(10_000, (HARD - 600) // 2, int(10_000 / SLOW))
CHURN = int(100_000 / SLOW ** 3)
BENCH = os.environ.get("MESHD_BENCH")
SANITIZED = any(name.endswith("SAN_OPTIONS") for name in os.environ) or SLOW > 1


def in_a_process(body, *args):
    """A process that runs body(its end of a pipe, args), and the pipe."""
    ours, theirs = multiprocessing.Pipe()

    def run():
        _die_with_parent()
        body(theirs, *args)
    process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
    process.start()
    return process, ours


def accept_many(pipe, listener):
    """Accepts whatever comes; answers each word on the pipe by how many there are, "end": none."""
    held, look = {}, selectors.DefaultSelector()
    listener.setblocking(False)
    look.register(listener, selectors.EVENT_READ)
    look.register(pipe.fileno(), selectors.EVENT_READ)
    while True:
        for key, _ in look.select():
            if key.fileobj is listener:
                try:
                    while True:
                        sock, _ = listener.accept()
                        sock.setblocking(False)
                        held[sock.fileno()] = sock
                        look.register(sock, selectors.EVENT_READ)
                except BlockingIOError:
                    pass
            elif key.fd == pipe.fileno():
                pipe.recv()
                pipe.send(len(held))
            else:
                try:
                    if key.fileobj.recv(4096):
                        continue
                except OSError:
                    pass
                look.unregister(key.fileobj)
                held.pop(key.fd).close()


def connect_many(pipe, sources, to):
    """Told a number, it has so many more connections, and says how many failed; told 0, none."""
    held = []
    while True:
        more, failed = pipe.recv(), 0
        for i in range(more):
            try:
                held.append(socket.create_connection(to, 30, (sources[i % len(sources)], 0)))
            except OSError:
                failed += 1
        if more == 0:
            for sock in held:
                sock.close()
            held.clear()
        pipe.send(failed)


class Scale(ForwardTest):
    def settle(self, nodes):
        """KiB that each node has of its own once nobody is there, and its descriptors are counted."""
        for node in nodes:
            until("nobody is left", lambda: (c := node.counters())["forward_relayed"] + c["forward_served"] +
                  c["forward_clients"] == 0, 60)
        self.count_descriptors()
        return [memory_kib(node) for node in nodes]

    def test_ten_thousand_idle_clients_cost_little_and_leave_nothing(self):
        net = self.mesh.net
        listener = socket.create_server((f"{net}.200", 0), backlog=4096)
        self.addCleanup(listener.close)
        backend = "{}:{}".format(*listener.getsockname())
        n1 = self.mesh.node("n1", services=[f"one:{backend}"]).start()
        n2 = self.mesh.node("n2", peers=[n1], INGRESS_ADDR=self.ingress(2, "one")).start()
        self.mesh.until_agreed()
        server, accepted = in_a_process(accept_many, listener)
        clients, opened = in_a_process(connect_many, [f"{net}.{i}" for i in range(50, 58)], (n2.host, MAPPED))
        for process in (server, clients):
            self.addCleanup(process.join)
            self.addCleanup(process.kill)

        def tell(pipe, word):
            pipe.send(word)
            self.assertTrue(pipe.poll(120 * SLOW), "that process hangs")
            return pipe.recv()

        def open_all(number):
            self.assertEqual(tell(opened, number), 0)
            until("all are joined", lambda: tell(accepted, "how many") == number, 30)

        def close_all():
            tell(opened, 0)
            until("all are gone", lambda: tell(accepted, "how many") == 0, 30)
        open_all(300)  # what a first use allocates
        close_all()
        before = self.settle((n1, n2))
        open_all(IDLE)
        for node, memory in zip((n1, n2), before):
            each = (memory_kib(node) - memory) / IDLE
            print(f"{node.name}: {IDLE} idle clients, {each:.2f} KiB of its own for each")
            if not SANITIZED:
                self.assertLess(each, 2.0)
        close_all()
        self.assert_same_descriptors()

    def test_a_hundred_thousand_clients_leave_nothing(self):
        if not BENCH:
            self.skipTest("MESHD_BENCH does not say where the clients of the benchmark are")
        for name in ("small", "big"):
            (self.mesh.dir / name).write_bytes(b"x" * 64)
        server = subprocess.Popen([pathlib.Path(BENCH) / "forward_backend", self.mesh.dir, f"{self.mesh.net}.200"],
                                  stdout=subprocess.PIPE, preexec_fn=_die_with_parent, env=clean_environment())
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        backend = f"{self.mesh.net}.200:{int(server.stdout.readline())}"
        n1 = self.mesh.node("n1", services=[f"one:{backend}"], INGRESS_ADDR=self.ingress(1)).start()
        n2 = self.mesh.node("n2", services=[f"two:{backend}"], peers=[n1], INGRESS_ADDR=self.ingress(2)).start()
        self.mesh.until_agreed()

        def load(node, name, seconds):
            done = subprocess.run([pathlib.Path(BENCH) / "forward_load", "dial", node.host, str(AUTO), name, "/small",
                                   str(seconds), "16"], capture_output=True, text=True, preexec_fn=_die_with_parent,
                                  env=clean_environment(), check=True)
            self.assertIn('"failed": 0', done.stdout)

        def carried():
            return n1.counters()["forward_local"] + sum(n.counters()["forward_forwarded"] for n in (n1, n2))
        def churn(number):
            since = carried()
            while carried() - since < number:
                for node, name in ((n1, "one"), (n1, "two"), (n2, "one")):
                    load(node, name, 1)
            return carried() - since
        churned = churn(CHURN // 3)  # how many there are at once differs, and the heap keeps what the most took
        before = self.settle((n1, n2))
        churned += churn(CHURN * 2 // 3)
        self.assert_same_descriptors()
        after = self.settle((n1, n2))
        print(f"{churned} clients; KiB of n1 and n2: {before} before, {after} after")
        for node, memory, now in zip((n1, n2), before, after):
            if not SANITIZED:
                self.assertLess(now - memory, 1024, node.name)


if __name__ == "__main__":
    main()
