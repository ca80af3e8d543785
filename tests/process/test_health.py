#!/usr/bin/python3
"""Services at run time: looks at real backends, what clients meet, draining, leases, PROXY headers.

nginx is the backend that answers, answers 503, and is killed; curl is the client.
"""
import os
import shutil
import signal
import socket
import subprocess

from forwarding import AUTO, Backend, Flow, ForwardTest, ask, head_for, receive
from harness import SLOW, _die_with_parent, clean_environment, main, until
from test_meshcat import Watch

PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
QUICK = ("--check-interval", "0.2", "--check-timeout", "10")  # one that is slow is not ill


class Nginx:
    """One that answers its name, and 200 or 503 at /healthz."""

    def __init__(self, test, name, port, proxy_protocol=False):
        self.test, self.name = test, name
        self.dir = test.mesh.dir / name
        (self.dir / "www").mkdir(parents=True)
        os.chmod(test.mesh.dir, 0o755)
        self.address = f"{test.mesh.net}.200:{port}"
        self.process = None
        temp = "".join(f"{kind}_temp_path {self.dir}/t-{kind};\n"
                       for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        (self.dir / "nginx.conf").write_text(
            f"daemon off; master_process off; {user} pid {self.dir}/nginx.pid; error_log stderr;\n"
            f"events {{ worker_connections 256; }}\nhttp {{ access_log off;\n{temp}"
            f"server {{ listen {self.address}{' proxy_protocol' if proxy_protocol else ''}; root {self.dir}/www;\n"
            f"  location = /who {{ return 200 '{name}'; }}\n"
            "  location = /client { return 200 '$proxy_protocol_addr'; }\n"
            "  location = /healthz { try_files /up =503; } } }\n", "ascii")
        test.addCleanup(self.kill)
        self.well(True)
        self.start()

    def well(self, yes):
        if yes:
            (self.dir / "www" / "up").write_text("up\n", "ascii")
        else:
            (self.dir / "www" / "up").unlink()

    def start(self):
        with open(self.dir / "nginx.log", "ab") as log:
            self.process = subprocess.Popen(
                ["nginx", "-e", "stderr", "-c", self.dir / "nginx.conf", "-p", self.dir], stdout=log, stderr=log,
                env={**clean_environment(), "PATH": PATH}, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
        until(f"nginx {self.name} listens", self.listens)

    def listens(self):
        self.test.assertIsNone(self.process.poll(), self.dir / "nginx.log")
        host, port = self.address.split(":")
        try:
            socket.create_connection((host, int(port)), 1).close()
            return True
        except ConnectionRefusedError:
            return False

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Health(ForwardTest):
    """n1 and n2 offer services; n3 offers nothing, and has the port that clients use. All are linked."""

    def setUp(self):
        super().setUp()
        for program in ("nginx", "curl"):
            if not shutil.which(program, path=PATH):
                self.skipTest(f"{program} is not installed")

    def nodes(self, **n2):
        self.n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1)).start()
        self.n2 = self.mesh.node("n2", peers=[self.n1], **n2).start()
        self.n3 = self.mesh.node("n3", peers=[self.n1, self.n2], INGRESS_ADDR=self.ingress(3)).start()

    def curl(self, path="who", name="web", node=None):
        """What a client of n3's port is answered; an error is one of the test."""
        done = subprocess.run(
            [shutil.which("curl", path=PATH), "-sSf", "-H", f"Host: {name}", f"http://{(node or self.n3).host}:{AUTO}/{path}"],
            env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30 * SLOW)
        self.assertEqual(done.returncode, 0, (done.stdout, done.stderr))
        return done.stdout

    def seen(self, owner, name="web", viewer=None):
        """How the viewer (n3) sees the owner's entry: (healthy, draining); None: there is none."""
        for row in (viewer or self.n3).reachable().values():
            if row["peer_id"] == owner.name and row["name"] == name:
                return row["healthy"], row["draining"]
        return None

    def until_seen(self, owner, healthy=True, draining=False, **more):
        until(f"{owner.name} is seen {'' if healthy else 'un'}healthy{', draining' if draining else ''}",
              lambda: self.seen(owner, **more) == (healthy, draining))

    def check_of(self, node, name="web"):
        return next((row for row in node.info()["checks"] if row["name"] == name), None)

    def test_clients_go_to_the_backend_that_is_well(self):
        a, b = Nginx(self, "a", 7490), Nginx(self, "b", 7491)
        settings = self.mesh.dir / "n2.yaml"
        settings.write_text(f"services:\n  - name: web\n    backend: '{b.address}'\n    check: http:/healthz\n"
                            "    check_interval: 200ms\n    check_timeout: 10s\n", "ascii")
        self.nodes(flags=("-c", settings))
        self.n1.local("offer", "web", a.address, "--check", "http:/healthz", *QUICK)
        self.until_seen(self.n1)
        self.until_seen(self.n2)
        self.assertEqual(self.check_of(self.n2)["check"]["interval_ms"], 200)
        for sick, owner, other in ((a, self.n1, b), (b, self.n2, a)):
            with self.subTest("answers 503", of=owner.name):
                sick.well(False)
                self.until_seen(owner, healthy=False)
                self.assertEqual(self.check_of(owner)["why"], "answered 503")
                self.assertEqual({self.curl() for _ in range(10)}, {other.name})
                sick.well(True)
                self.until_seen(owner)
        with self.subTest("killed"):
            a.kill()
            self.assertEqual({self.curl() for _ in range(10)}, {"b"})
            self.until_seen(self.n1, healthy=False)
            self.assertEqual({self.curl() for _ in range(10)}, {"b"})
            self.assertFalse(self.check_of(self.n1)["healthy"])
            table = self.n1.cat("node").stdout
            self.assertRegex(table, rf"web +{a.address} +http:/healthz +unhealthy ")
            a.start()
            self.until_seen(self.n1)
        with self.subTest("both are ill: they are tried all the same"):
            for sick, owner in ((a, self.n1), (b, self.n2)):
                sick.well(False)
                self.until_seen(owner, healthy=False)
            self.assertIn(self.curl(), ("a", "b"))
        count = self.n1.counters()
        self.assertEqual(count["node_backend_downs"], 3)
        self.assertEqual(count["node_backend_ups"], 2)
        self.assertEqual(count["node_backends_unhealthy"], 1)
        self.assertGreaterEqual(count["node_checks_failed"], 6)

    def test_clients_that_get_through_do_not_make_up_for_an_answer_of_503(self):
        a = Nginx(self, "a", 7490)
        self.nodes()
        self.n1.local("offer", "web", a.address, "--check", "http:/healthz", *QUICK)
        self.until_seen(self.n1)
        until("a look was well", lambda: self.n1.counters()["node_checks"] > 1)
        a.well(False)

        def unhealthy_while_clients_come():
            self.assertEqual(self.curl(node=self.n1), "a")
            return not self.check_of(self.n1)["healthy"]

        until("it is unhealthy", unhealthy_while_clients_come)
        self.until_seen(self.n1, healthy=False)
        self.assertEqual(self.curl(node=self.n1), "a", "there is no other")
        self.assertFalse(self.check_of(self.n1)["healthy"])

    def test_clients_show_it_where_nobody_looks(self):
        """n1's own clients come to its backend first, and are brought to n2's when it does not answer."""
        b = Nginx(self, "b", 7491)
        self.nodes(services=[f"web:{b.address}"])
        self.n1.local("offer", "web", f"{self.mesh.net}.200:7490")
        self.until_seen(self.n1)
        self.until_seen(self.n2, viewer=self.n1)
        for _ in range(3):
            self.assertEqual(self.curl(node=self.n1), "b")
        self.until_seen(self.n1, healthy=False)
        row = self.check_of(self.n1)
        self.assertIsNone(row["check"])
        self.assertIn("refused", row["why"])
        self.n2.signal(signal.SIGTERM)
        self.assertEqual(self.n2.ended(), 0)
        until("n2 is gone", lambda: "n2" not in self.n1.peer_rows())
        Nginx(self, "a", 7490)
        until("the first client that gets through", lambda: self.n1.counters()["node_backends_unhealthy"] == 0 or
              self.curl(node=self.n1) == "a")
        self.until_seen(self.n1)

    def test_a_service_drains_while_its_streams_go_on(self):
        one, two = Backend(self), Backend(self)
        self.nodes(services=[f"web:{two.address}"])
        self.n1.local("offer", "web", one.address)
        self.until_seen(self.n1)
        self.until_seen(self.n2, viewer=self.n1)
        flow = self.opened(self.n1, one)
        self.n1.local("drain", "web")
        self.until_seen(self.n1, draining=True)
        self.until_seen(self.n2)
        for node in (self.n1, self.n3):
            self.opened(node, two)
        self.passes(flow)
        self.n2.local("drain", "web")
        for viewer in (self.n1, self.n3):
            self.until_seen(self.n2, draining=True, viewer=viewer)
            self.assertEqual(ask(self.connect(viewer), head_for("web")).status, 503)
        self.n1.local("offer", "web", one.address)  # renewed: it drains on
        self.assertEqual(self.seen(self.n1), (True, True))
        self.passes(flow)
        self.n1.local("enable", "web")
        self.until_seen(self.n1)
        self.opened(self.n3, one)
        self.passes(flow)
        self.assertEqual(self.n1.local("drain", "nobody", check=False).returncode, 1)
        self.assertEqual(self.n1.cat("drain", "web", check=False).returncode, 6, "not over the network")

    def test_one_that_is_offered_as_draining_has_no_clients_until_it_is_offered_without(self):
        one = Backend(self)
        self.nodes()
        offer = ("offer", "web", one.address)
        self.assertIn(" draining\n", self.n1.local(*offer, "--draining").stdout)
        self.until_seen(self.n1, draining=True)
        for node in (self.n1, self.n3):
            self.assertEqual(ask(self.connect(node), head_for("web")).status, 503)
        self.assertIn("its offer has it drain still", self.n1.local("enable", "web").stderr)
        self.assertEqual(self.seen(self.n1), (True, True))
        self.n1.local(*offer)
        self.until_seen(self.n1)
        flow = self.opened(self.n3, one)
        self.n1.local(*offer, "--draining")
        self.until_seen(self.n1, draining=True)
        self.passes(flow)
        self.assertEqual(ask(self.connect(self.n3), head_for("web")).status, 503)

    def opened(self, node, backend):
        """A client of the node's port, which comes to that backend."""
        client = self.connect(node)
        client.sendall(head_for("web"))
        flow = Flow(client, backend.accept())
        self.assertEqual(receive(flow.backend, len(head_for("web"))), head_for("web"))
        return flow

    def test_a_lease_ends_with_its_time(self):
        self.nodes()
        self.mesh.until_agreed()
        with Watch(self.n3, "web") as watch:
            watch.until("synced")
            self.n1.local("offer", "web", "127.0.0.1:9", "--ttl", "1", "--check", "tcp")
            watch.until("up", "web")
            self.assertEqual(watch.until("down", "web")[-1]["why"], "withdrawn")
        self.assertIsNone(self.check_of(self.n1))

    def test_a_backend_behind_proxy_protocol_is_offered_at_run_time(self):
        a = Nginx(self, "a", 7490, proxy_protocol=True)
        self.nodes()
        self.n1.local("offer", "web", a.address, "--proxy-protocol", "v2", "--check", "http:/healthz", *QUICK)
        self.until_seen(self.n1)
        until("a look was well", lambda: self.n1.counters()["node_checks"] > 1)
        self.assertEqual(self.n1.counters()["node_checks_failed"], 0)
        for node in (self.n1, self.n3):
            with self.subTest(node.name):
                self.assertRegex(self.curl("client", node=node), r"^127\.")
        self.n1.local("offer", "web", a.address, "--proxy-protocol", "v1", "--check", "http:/healthz", *QUICK)
        self.assertRegex(self.curl("client"), r"^127\.")


if __name__ == "__main__":
    main()
