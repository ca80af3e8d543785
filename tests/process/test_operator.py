#!/usr/bin/python3
"""Things that an operator does while others are under way."""
import contextlib
import json
import signal
import subprocess
import threading
import urllib.error
import urllib.request

from cable import SECONDS
from forwarding import Backend, Flow, ForwardTest, ask, head_for, receive
from harness import MESHCAT, SLOW, _die_with_parent, clean_environment, main, until

ADMIN = 7600


class Sick(Backend):
    """Serves clients, and answers looks with 503."""

    def __init__(self, test):
        super().__init__(test)
        self.sock.settimeout(None)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.sock.accept()
                with sock, contextlib.suppress(OSError):
                    sock.settimeout(SECONDS)
                    got = b""
                    while b"\r\n\r\n" not in got and (part := sock.recv(65536)):
                        got += part
                    status = b"503 No" if got.startswith(b"GET /healthz ") else b"200 OK"
                    sock.sendall(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 6\r\n\r\nserved")


class Operator(ForwardTest):
    """n2 dials n1 by its file, and has a port for clients; n1 offers `one`."""

    flags = ("--drain-timeout=60s",)

    def write(self, services=(), peers=(), more=""):
        fresh = self.file.with_suffix(".new")
        fresh.write_text(
            "services: [" + ", ".join(f"{{name: {name}, backend: '{at}'}}" for name, at in services) + "]\n"
            "peers: [" + ", ".join(f"{{address: '{node.host}:{node.port}'}}" for node in peers) + "]\n" + more)
        fresh.rename(self.file)

    def begin(self, **more):
        self.file = self.mesh.dir / "n2.yaml"
        self.one, self.two = Backend(self), Backend(self)
        self.n1 = self.mesh.node("n1", services=[f"one:{self.one.address}"], INGRESS_ADDR=self.ingress(1)).start()
        self.write([("two", self.two.address)], [self.n1])
        self.n2 = self.mesh.node("n2", SERVICE_ADDR=None, REMOTE_PEER_ADDR=None, MESHD_CONFIG=self.file,
                                 INGRESS_ADDR=self.ingress(2), ADMIN_ADDR=f"{self.mesh.net}.2:{ADMIN}", **more).start()
        self.until_known(self.n2, "one")
        self.until_known(self.n1, "two")

    def until_known(self, viewer, name, **states):
        wanted = {"connected": True, "draining": False, "healthy": True} | states
        until(f"{viewer.name} sees {name}: {wanted}", lambda: any(
            row["name"] == name and all(row[key] == value for key, value in wanted.items())
            for row in viewer.rows().values()))

    def until_gone(self, viewer, name):
        until(f"{viewer.name} has no {name}", lambda: all(row["name"] != name for row in viewer.rows().values()))

    def opened(self, node, name, backend):
        client = self.connect(node)
        client.sendall(head_for(name))
        flow = Flow(client, backend.accept())
        self.assertEqual(receive(flow.backend, len(head_for(name))), head_for(name))
        return flow

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.n2.host}:{ADMIN}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def test_a_node_that_drains_takes_no_other_settings_and_no_other_service(self):
        self.begin()
        self.n2.local("offer", "job", self.two.address, "--ttl", "600")
        flow = self.opened(self.n2, "one", self.one)
        self.n2.signal(signal.SIGTERM)
        self.until_known(self.n1, "two", draining=True)
        self.write([("more", self.two.address)], [self.n1])
        done = self.n2.local("reload", check=False)
        self.assertEqual((done.returncode, done.stdout), (78, ""))
        self.assertIn("drains and is about to end: the settings are not read again", done.stderr)
        self.n2.signal(signal.SIGHUP)
        until("the signal is answered", lambda: "warn [daemon] signal 1: the settings are not read again: the node is "
              "about to end\n" in self.n2.err.read_text())
        done = self.n2.local("offer", "late", self.two.address, check=False)
        self.assertEqual(done.returncode, 78)
        self.assertIn("drains and is about to end: it takes no other service", done.stderr)
        self.n2.local("drain", "job")
        self.assertEqual({name for name in ("one", "two", "job", "more", "late")
                          if any(row["name"] == name for row in self.n1.rows().values())}, {"one", "two", "job"})
        self.assertEqual((self.get("/readyz")[0], self.get("/healthz")[0]), (503, 200))
        self.passes(flow)
        self.assertTrue(self.n2.alive())
        flow.client.close()
        flow.backend.close()
        self.assertEqual(self.n2.ended(), 0)
        until("its entries went at once", lambda: "n2" not in self.n1.peer_rows())

    def test_clients_through_a_peer_that_is_taken_out_of_the_file_go_on(self):
        self.begin()
        flows = [self.opened(self.n2, "one", self.one), self.opened(self.n1, "two", self.two)]
        self.write([("two", self.two.address)])
        self.assertIn("1 less", self.n2.local("reload").stdout)
        self.until_gone(self.n2, "one")
        self.until_gone(self.n1, "two")
        self.assertEqual(ask(self.connect(self.n2), head_for("one")).status, 404)
        for flow in flows:
            self.passes(flow)
        self.write([("two", self.two.address)], [self.n1])
        self.n2.local("reload")
        self.until_known(self.n2, "one")
        flows.append(self.opened(self.n2, "one", self.one))
        for flow in flows:
            self.passes(flow)

    def test_a_drained_service_ends_with_its_lease_and_one_that_is_offered_anew_takes_clients(self):
        self.begin()
        self.n2.local("offer", "job", self.two.address)
        self.n2.local("drain", "job")
        self.until_known(self.n1, "job", draining=True)
        self.n2.local("withdraw", "job")
        self.until_gone(self.n1, "job")
        self.n2.local("offer", "job", self.two.address, "--ttl", "5")  # a busy machine needs some of it
        self.until_known(self.n1, "job")
        flow = self.opened(self.n1, "job", self.two)
        self.n2.local("drain", "job")
        self.until_known(self.n1, "job", draining=True)
        self.until_gone(self.n1, "job")
        self.passes(flow)
        for command in ("drain", "enable", "withdraw"):
            self.assertEqual(self.n2.local(command, "job", check=False).returncode, 1)

    def test_where_all_are_unhealthy_clients_are_brought_to_one_that_serves_all_the_same(self):
        self.begin()
        sick = Sick(self)
        for node, at in ((self.n1, f"{self.mesh.net}.9:9"), (self.n2, sick.address)):
            node.local("offer", "web", at, "--check", "http:/healthz", "--check-interval", "0.2")
        for node in (self.n1, self.n2):
            until("all are unhealthy", lambda: [row["healthy"] for row in node.rows().values()
                                                if row["name"] == "web"] == [False, False])
            self.assertEqual(ask(self.connect(node), head_for("web")).body, b"served")
            self.assertIn("there is nobody better", node.local("explain", "web").stdout)

    def test_reloads_from_all_sides_at_once_end_with_what_the_file_says(self):
        self.begin()
        flow = self.opened(self.n2, "one", self.one)
        for i in range(20):
            self.write([("two", self.two.address), (f"s{i}", self.two.address)], [self.n1])
            asked = [subprocess.Popen([MESHCAT, "-x", self.n2.socket, "--timeout", str(10 * SLOW), "reload"],
                                      env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      preexec_fn=_die_with_parent) for _ in range(4)]
            self.n2.signal(signal.SIGHUP)
            self.assertEqual([process.wait() for process in asked], [0] * 4)
        self.until_known(self.n1, "s19")
        self.assertEqual({row["name"] for row in self.n1.rows().values()}, {"one", "two", "s19"})
        self.passes(flow)
        self.assertEqual(self.n2.counters()["node_links_lost"], 0)
        self.assertGreaterEqual(self.n2.counters()["reload_taken"], 81)


if __name__ == "__main__":
    main()
