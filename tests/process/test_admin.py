#!/usr/bin/python3
"""The admin port, as curl, jq and hostile strangers see it."""
import collections
import http.client
import json
import os
import random
import resource
import signal
import socket
import subprocess

from harness import MeshTest, SLOW, clean_environment, main, until

HOSTILE = 10000
OPEN = 300  # of them at a time
MANY = 20000  # services of the node that they torment: what one answer takes is megabytes
GROWTH_KIB = 16 * 1024
PROBE_S = 8 * SLOW  # without the reserve there is no answer for as long as the clients stay
PATHS = "/ /events /healthz /readyz /metrics /v1/services /v1/peers /v1/node /v1/explain"


def admin_of(node):
    return node.info()["admin"]


class Admin(MeshTest):
    def admin_node(self, name, **settings):
        settings.setdefault("ADMIN_ADDR", "127.0.0.1:0")
        return self.mesh.node(name, **settings)

    def curl(self, node, path, *args, at=None):
        """(status, body), as a script would have it. at: the admin port, if the node cannot be asked."""
        done = subprocess.run(
            ["curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}", *args, f"http://{at or admin_of(node)}{path}"],
            env=clean_environment(), text=True, capture_output=True, check=True)
        body, status = done.stdout.rsplit("\n", 1)
        return int(status), body

    def json(self, node, path, status=200):
        got, body = self.curl(node, path)
        self.assertEqual(got, status, body)
        return json.loads(body)

    def error(self, node, path, status, *args):
        got, body = self.curl(node, path, *args)
        self.assertEqual(got, status, body)
        error = json.loads(body)["error"]
        self.assertEqual(error["status"], status)
        return error["text"]

    def jq(self, node, path, program):
        body = self.curl(node, path)[1]
        return subprocess.run(["jq", "-c", program], input=body, env=clean_environment(), text=True,
                              capture_output=True, check=True).stdout.split()

    def pair(self):
        n1 = self.admin_node("n1", services=["web:127.0.0.1:80", "db:127.0.0.1:5432"]).start()
        n2 = self.mesh.node("n2", services=["web:127.0.0.1:81"], peers=[n1]).start()
        until("n1 reaches n2's", lambda: f"web@{n2.host}" in n1.reachable())
        return n1, n2

    def test_every_path_says_what_meshcat_says(self):
        n1, n2 = self.pair()
        address = admin_of(n1)
        self.assertIn(f"admin port {address}\n", n1.err.read_text())
        self.assertEqual(self.json(n1, "/healthz")["healthy"], True)
        self.assertEqual(self.json(n1, "/readyz"), {"ready": True, "why": "every configured peer was live once"})

        def same(path, *args):
            ours, theirs = self.curl(n1, path)[1], n1.cat(*args, "--format", "json", check=False).stdout
            return ours == theirs

        until("services are the same", lambda: same("/v1/services", "services"))  # last_seen moves
        until("peers are the same", lambda: same("/v1/peers", "peers"))
        until("likewise of one peer", lambda: same("/v1/peers?peer=n2", "peers", "--peer", "n2"))
        until("likewise of some", lambda: same("/v1/services?name=w*", "services", "--name", "w*"))
        for state in ("connected", "stale", "draining", "unhealthy"):
            for what in ("services", "peers"):
                until(f"likewise of {what} that are {state}",
                      lambda: same(f"/v1/{what}?state={state}", what, "--state", state))
        self.assertEqual(self.jq(n1, "/v1/services?peer=n2", ".services[].backend_addr"), ['"127.0.0.1:81"'])
        self.assertEqual(self.jq(n1, "/v1/services?state=stale", ".services_total"), ["0"])
        until("a name is explained the same", lambda: self.json(n1, "/v1/explain?name=WEB") ==
              json.loads(n1.cat("explain", "web", "--format", "json").stdout))
        self.assertEqual(self.json(n1, "/v1/explain?name=nix")["candidates"], [])

        ours, theirs = self.json(n1, "/v1/node"), json.loads(n1.cat("node", "--format", "json").stdout)
        self.assertEqual(set(ours), set(theirs) | {"tombstones"})
        self.assertEqual(set(ours["node"]), set(theirs["node"]))
        self.assertEqual([limit["name"] for limit in ours["limits"]], [limit["name"] for limit in theirs["limits"]])
        self.assertEqual(ours["node"]["admin"], address)
        self.assertTrue(ours["node"]["ready"])
        n2.signal(signal.SIGTERM)
        self.assertEqual(n2.ended(), 0)
        stones = until("what went is shown", lambda: self.json(n1, "/v1/node")["tombstones"])
        self.assertEqual(stones[0]["key"], f"web@{n2.host}")

    def test_errors_methods_and_tags(self):
        n1 = self.admin_node("n1").start()
        self.assertEqual(self.error(n1, "/nowhere", 404), f"nothing is here; there are {PATHS}")
        self.error(n1, "/v1/services?state=gone", 400)
        self.error(n1, "/v1/explain", 400)
        self.error(n1, "/v1/services", 405, "-X", "POST")
        self.error(n1, "/v1/services", 400, "-X", "GET", "-d", "body")
        self.error(n1, "/v1/services", 403, "-H", "Host: evil.example")
        status, head = self.curl(n1, "/v1/services", "-I")
        self.assertEqual(status, 200)
        tag = next(line for line in head.splitlines() if line.startswith("ETag:")).split()[1]
        self.assertEqual(self.curl(n1, "/v1/services", "-H", f"If-None-Match: {tag}"), (304, ""))
        n1.local("offer", "late", "127.0.0.1:9", "--ttl", "60")
        self.assertEqual(self.curl(n1, "/v1/services", "-H", f"If-None-Match: {tag}")[0], 200)

    def test_whatever_is_sent_there_is_one_answer_in_json(self):
        n1 = self.admin_node("n1").start()
        host, port = admin_of(n1).split(":")

        def raw(request):
            with socket.create_connection((host, int(port)), timeout=10 * SLOW) as client:
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)  # as nc -N does
                answer = b"".join(iter(lambda: client.recv(65536), b""))
            self.assertEqual(answer.count(b"\r\nDate: "), 1, answer)
            head, body = answer.split(b"\r\n\r\n", 1)
            return int(head.split()[1]), json.loads(body)

        self.assertEqual(raw(b"GET /healthz HTTP/1.0\r\n\r\n")[0], 200)
        self.assertEqual(raw(b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")[0], 200)
        for status, request in (
                (400, b"rubbish\r\n\r\n"), (400, b"GET /healthz\r\n\r\n"), (400, b"GET /healthz HTTP/1.0\r\n"),
                (400, b"GET /healthz%00 HTTP/1.0\r\n\r\n"), (400, b"\x16\x03\x01\x02\x00\x01"),
                (400, b"GET /healthz HTTP/1.0\r\nContent-Length: many\r\n\r\n"),
                (400, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"),
                (403, b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                (431, b"GET /healthz?" + b"a&" * 4000 + b" HTTP/1.0\r\n\r\n"),
                (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")):
            with self.subTest(request[:40]):
                got, body = raw(request)
                self.assertEqual((got, body["error"]["status"]), (status, status))

    def test_ready_when_peers_were_live_and_no_more_when_it_drains(self):
        n2 = self.mesh.node("n2")
        n1 = self.admin_node("n1", peers=[n2], INGRESS_ADDR="127.0.0.1:0=slow", flags=["--drain-timeout=30s"])
        with socket.create_server(("127.0.0.1", 0)) as backend:
            n1.services = [f"slow:127.0.0.1:{backend.getsockname()[1]}"]
            n1.start()
            waits = self.error(n1, "/readyz", 503)
            self.assertEqual(waits, f"it waits for {n2.host}:{n2.port}")
            self.assertEqual(n1.info()["ready_why"], waits)
            n2.start()
            until("n1 is ready", lambda: self.curl(n1, "/readyz")[0] == 200)
            ingress = n1.info()["ingress"][0].split("=")[0]
            with socket.create_connection(ingress.rsplit(":", 1)) as client, backend.accept()[0]:
                address = admin_of(n1)
                n1.signal(signal.SIGTERM)

                def drains():
                    connection = http.client.HTTPConnection(address, timeout=10)
                    connection.request("GET", "/readyz")
                    answer = connection.getresponse()
                    body = json.loads(answer.read())
                    connection.close()
                    return answer.status == 503 and body["error"]["text"] == "it is draining: it was told to end"

                until("it is ready no more", drains)
                client.close()
            self.assertEqual(n1.ended(), 0)

    def test_where_it_listens(self):
        off = self.mesh.node("n1").start()
        self.assertEqual(admin_of(off), "")
        wide = self.admin_node("n2", ADMIN_ADDR=":0").start()
        self.assertRegex(admin_of(wide), r"^\[::\]:\d+$|^0\.0\.0\.0:\d+$")
        self.assertIn("it has no password", wide.err.read_text())
        port = admin_of(wide).rsplit(":", 1)[1]
        for host in ("127.0.0.1", wide.host):
            with socket.create_connection((host, port)):
                pass
        taken = self.admin_node("n3", ADMIN_ADDR=f":{port}").spawn()
        self.assertEqual(taken.ended(), 1)
        self.assertIn(f"cannot listen on *:{port} for ADMIN_ADDR: Address already in use", taken.err.read_text())

    def test_an_address_of_ipv6(self):
        n1 = self.admin_node("n1", ADMIN_ADDR="[::1]:0").start()
        self.assertRegex(admin_of(n1), r"^\[::1\]:\d+$")
        self.assertEqual(self.json(n1, "/healthz")["healthy"], True)
        self.assertEqual(self.curl(n1, "/healthz", "-H", "Host: localhost")[0], 200)
        self.error(n1, "/healthz", 403, "-H", "Host: a.stranger.example")

    # ---- strangers ----

    def tormented(self):
        """A node with much to show, and no link: what dialling keeps would be counted, too."""
        file = self.mesh.dir / "n1.yaml"
        file.write_text("services:\n" + "".join(
            f"- {{name: s-{i:05}, backend: b:{i + 1}}}\n" for i in range(MANY)))
        return self.admin_node("n1", MESHD_CONFIG=file, LOG_MAPS="off").start()

    def anon_kib(self, node):
        with open(f"/proc/{node.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

    def strike(self, address, draw):
        """One hostile connection, left open."""
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(5)
        try:
            s.connect(address)
            s.setblocking(False)
            what = draw.randrange(8)
            if what == 1:
                s.send(b"GET /v1/services HTTP/1.1\r\nHost: loc")
            elif what == 2:
                s.send(b"GET /" + b"a" * 100000)
            elif what == 3:
                s.send(b"GET /v1/services HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)  # and nothing is read
            elif what == 4:
                s.send(draw.randbytes(300))
            elif what == 5:
                s.send(b"GET /v1/node HTTP/1.1\r\nHost: localhost\r\n\r\n")
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                s.close()  # with a reset
            elif what == 6:
                s.send(b"POST / HTTP/1.1\r\n\r\n" + b"a" * 100000)
            elif what == 7:
                s.send(b"GET / HTTP/1.0\r\n\r\n")
                s.shutdown(socket.SHUT_WR)  # and nothing is read
        except OSError:
            pass
        return s

    def test_ten_thousand_hostile_connections(self):
        lonely = self.admin_node("n2", peers=[f"{self.mesh.net}.9:7400"]).start()  # for a peer that never comes
        n1 = self.tormented()
        address = admin_of(n1).split(":")[0], int(admin_of(n1).split(":")[1])
        draw = random.Random(self.random.random())
        left = collections.deque()

        def answers(path="/healthz", source=None):
            connection = http.client.HTTPConnection(*address, timeout=10 * SLOW, source_address=source)
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status

        def wave(count):
            for i in range(count):
                left.append(self.strike(address, draw))
                if len(left) > OPEN:
                    left.popleft().close()
                if i % 500 == 499:
                    self.assertEqual(answers(source=(f"{self.mesh.net}.77", 0)), 200)
            while left:
                left.popleft().close()
            until("they have gone", lambda: n1.counters()["admin_connections"] == 0)

        wave(1000)  # what is made once is there then
        descriptors, anon = n1.descriptors(), self.anon_kib(n1)
        wave(HOSTILE - 1000)
        until("descriptors are as before", lambda: n1.descriptors() <= descriptors)
        if "ASAN_OPTIONS" not in os.environ:  # it keeps what was freed
            self.assertLess(self.anon_kib(n1), anon + GROWTH_KIB)
        self.assertEqual(answers(), 200)
        self.assertEqual(answers("/v1/services?name=s-00001"), 200)
        self.assertGreater(n1.counters()["admin_closed_over_limit"], 100)
        until("it is ready 10 s after its start", lambda: self.curl(lonely, "/readyz")[0] == 200, 12)
        self.assertEqual(self.json(lonely, "/readyz")["why"], f"10 s have passed; without {self.mesh.net}.9:7400")

    def test_a_connection_that_says_nothing_keeps_nobody_out(self):
        n1 = self.admin_node("n1", flags=["--limit=admin_connections=8", "--limit=admin_per_source=8"]).start()
        address = admin_of(n1).split(":")
        idle = [socket.create_connection(address) for _ in range(8)]
        try:
            self.assertEqual(self.json(n1, "/healthz")["healthy"], True)
        finally:
            for s in idle:
                s.close()

    def test_open_pages_keep_no_probe_out(self):
        n1 = self.admin_node("n1").start()
        address = admin_of(n1).split(":")
        told = collections.Counter()
        for _ in range(80):  # more than limits.admin_per_source, all of one address
            page = socket.create_connection(address, timeout=10 * SLOW)
            self.addCleanup(page.close)
            page.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            told[page.recv(12)] += 1
        self.assertEqual(told, {b"HTTP/1.1 200": 48, b"HTTP/1.1 503": 32})
        for path in ("/healthz", "/readyz", "/metrics"):
            self.assertEqual(self.curl(n1, path)[0], 200)
        self.assertIn("limits.admin_per_source: 64", self.error(n1, "/events", 503))
        self.assertIn('meshd_admin_closed_total{reason="followers"} 33\n', self.curl(n1, "/metrics")[1])

    def test_out_of_descriptors_probes_are_answered_at_once(self):
        backend = socket.create_server(("127.0.0.1", 0), backlog=1024)  # they stay in its queue
        self.addCleanup(backend.close)
        n1 = self.admin_node("n1", services=[f"slow:127.0.0.1:{backend.getsockname()[1]}"],
                             INGRESS_ADDR="127.0.0.1:0=slow").start()
        host, port = n1.info()["ingress"][0].split("=")[0].rsplit(":", 1)
        at, most = admin_of(n1), n1.descriptors() + 100
        resource.prlimit(n1.process.pid, resource.RLIMIT_NOFILE, (most, most))
        clients = [socket.create_connection((host, port)) for _ in range(150)]
        for client in clients:
            self.addCleanup(client.close)

        def probe(path):
            status, body = self.curl(n1, path, "--max-time", str(PROBE_S), at=at)
            self.assertEqual(status, 200, body)
            return body

        def is_used_up():
            metrics = probe("/metrics")
            return f"\nprocess_open_fds {most}\n" in metrics and f"\nprocess_max_fds {most}\n" in metrics

        until("it has none left, and says so", is_used_up)
        for _ in range(10):
            for path in ("/healthz", "/readyz", "/metrics"):
                probe(path)
        status, body = self.curl(n1, "/v1/node", at=at)
        self.assertEqual(status, 503, body)
        self.assertIn("no descriptors left", json.loads(body)["error"]["text"])
        self.assertRegex(probe("/metrics"), r'\nmeshd_admin_closed_total{reason="no_descriptor"} [1-9]')
        for client in clients:
            client.close()
        backend.close()
        until("all is answered again", lambda: self.curl(n1, "/v1/node", at=at)[0] == 200)


if __name__ == "__main__":
    main()
