#!/usr/bin/python3
"""Programs that people use, through two nodes: curl, redis-cli, openssl, wrk; nginx, redis behind them.

Those that are not installed are left out, and said to be.
"""
import hashlib
import os
import re
import shutil
import socket
import subprocess

from forwarding import AUTO, MAPPED, Backend, ForwardTest, head_for, receive, receive_head
from harness import SLOW, _die_with_parent, clean_environment, main, until

PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
SIZE = 10_000_000


class Programs(ForwardTest):
    """n2 dials n1 and has the ports that clients use; both own services, so that clients of n2 go up
    the link that n2 dialled, and clients of n1 down."""

    def find(self, name):
        return shutil.which(name, path=PATH) or self.skipTest(f"{name} is not installed")

    def background(self, name, *args, port):
        with open(self.mesh.dir / f"{name}.log", "ab") as log:
            process = subprocess.Popen([self.find(name), *map(str, args)], env=clean_environment(), stdout=log,
                                       stderr=log, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent,
                                       cwd=self.mesh.dir)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def listens():
            self.assertIsNone(process.poll(), (self.mesh.dir / f"{name}.log").read_text())
            try:
                socket.create_connection((self.host, port), 1).close()
                return True
            except OSError:
                return False
        until(f"{name} listens", listens)

    def run_it(self, name, *args, given=None, text=True):
        done = subprocess.run([self.find(name), *map(str, args)], env=clean_environment(), input=given,
                              stdin=subprocess.DEVNULL if given is None else None,
                              capture_output=True, text=text, timeout=30 * SLOW, cwd=self.mesh.dir)
        self.assertEqual(done.returncode, 0, (args, done.stdout[-2000:], done.stderr[-2000:]))
        return done.stdout

    def curl(self, *args, **more):
        return self.run_it("curl", "-sS", *args, **more)

    def nodes(self, *services, mapped="db"):
        """Both offer all of these: those of n1 under one.NAME, those of n2 under two.NAME."""
        self.n1 = self.mesh.node("n1", services=[f"one.{s}" for s in services],
                                 INGRESS_ADDR=self.ingress(1, f"two.{mapped}")).start()
        self.n2 = self.mesh.node("n2", services=[f"two.{s}" for s in services], peers=[self.n1],
                                 INGRESS_ADDR=self.ingress(2, f"one.{mapped}")).start()
        self.mesh.until_agreed()
        return (self.n2, "one"), (self.n1, "two")

    @property
    def host(self):
        return f"{self.mesh.net}.200"

    def certificate(self):
        self.run_it("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", "/CN=mesh", "-addext", "subjectAltName=DNS:one.web,DNS:two.web,"
                    "DNS:one.tls,DNS:two.tls", "-keyout", "key.pem", "-out", "cert.pem")

    def start_nginx(self):
        root = self.mesh.dir / "www"
        root.mkdir()
        os.chmod(self.mesh.dir, 0o755)
        self.big = self.random.randbytes(SIZE)
        (root / "big").write_bytes(self.big)
        (root / "small").write_text("small\n", "ascii")
        self.certificate()
        temp = "".join(f"{kind}_temp_path {self.mesh.dir}/t-{kind};\n"
                       for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        (self.mesh.dir / "nginx.conf").write_text(
            f"daemon off; master_process off; {user} pid {self.mesh.dir}/nginx.pid; error_log stderr;\n"
            f"events {{ worker_connections 512; }}\nhttp {{ access_log off; client_max_body_size 0;\n{temp}"
            f"server {{ listen {self.host}:7490; listen {self.host}:7491 ssl http2; root {root};\n"
            f"  listen {self.host}:7492 http2;\n"
            f"  ssl_certificate {self.mesh.dir}/cert.pem; ssl_certificate_key {self.mesh.dir}/key.pem;\n"
            "  location = /hello { return 200 'hello\\n'; } } }\n", "ascii")
        self.background("nginx", "-e", "stderr", "-c", self.mesh.dir / "nginx.conf", "-p", self.mesh.dir, port=7492)

    def test_curl_and_nginx(self):
        self.start_nginx()
        ways = self.nodes(f"web:{self.host}:7490", f"tls:{self.host}:7491")
        want = hashlib.sha256(self.big).hexdigest()
        for node, of in ways:
            with self.subTest(of):
                base = f"http://{node.host}:{AUTO}"
                got = self.curl("-H", f"Host: {of}.web", f"{base}/big", text=False)
                self.assertEqual(hashlib.sha256(got).hexdigest(), want)
                # several requests on one connection
                got = self.curl("-H", f"Host: {of}.web", *[f"{base}/small"] * 20)
                self.assertEqual(got, "small\n" * 20)
                tls = ["--cacert", "cert.pem", "--resolve", f"{of}.tls:{AUTO}:{node.host}"]
                for version in ("--http1.1", "--http2"):
                    got = self.curl(*tls, version, f"https://{of}.tls:{AUTO}/big", text=False)
                    self.assertEqual(hashlib.sha256(got).hexdigest(), want)
                got = self.curl("-p", "-x", base, f"http://{of}.web:80/small")
                self.assertEqual(got, "small\n")
                got = self.curl("-p", "-x", base, "--cacert", "cert.pem", f"https://{of}.tls/small")
                self.assertEqual(got, "small\n")
                got = self.curl("-x", base, f"http://{of}.web/small")  # an absolute target
                self.assertEqual(got, "small\n")

    def test_openssl_talks_to_the_backend_itself(self):
        self.start_nginx()
        for node, of in self.nodes(f"tls:{self.host}:7491"):
            with self.subTest(of):
                said = self.run_it("openssl", "s_client", "-connect", f"{node.host}:{AUTO}", "-servername", f"{of}.tls",
                                   "-CAfile", "cert.pem", "-verify_return_error", "-quiet", "-ign_eof",
                                   given=f"GET /small HTTP/1.1\r\nHost: {of}.tls\r\nConnection: close\r\n\r\n")
                self.assertTrue(said.endswith("small\n"), said)

    def test_what_is_agreed_within_tls_is_between_client_and_backend(self):
        """A backend that wants another key first, so that there is a second hello, and has its own ALPN."""
        self.certificate()
        self.background("openssl", "s_server", "-accept", f"{self.host}:7491", "-cert", "cert.pem", "-key", "key.pem",
                        "-groups", "P-384", "-alpn", "acme-tls/1,h2", "-quiet", port=7491)
        for node, of in self.nodes(f"tls:{self.host}:7491"):
            for wanted, agreed in (("acme-tls/1", "acme-tls/1"), ("http/1.1,h2", "h2")):
                with self.subTest(of=of, wanted=wanted):
                    said = self.run_it("openssl", "s_client", "-connect", f"{node.host}:{AUTO}", "-servername", f"{of}.tls",
                                       "-CAfile", "cert.pem", "-verify_return_error", "-groups", "P-256:P-384",
                                       "-alpn", wanted, "-msg")
                    self.assertEqual(len(re.findall(r"^>>> .*, ClientHello$", said, re.M)), 2, said)
                    self.assertIn(f"ALPN protocol: {agreed}\n", said)

    def test_http2_without_tls_goes_to_the_default(self):
        self.start_nginx()
        config = self.mesh.dir / "n2.yaml"
        config.write_text(f'ingress:\n  - listen: "{self.mesh.net}.2:{AUTO}"\n    default: "h2"\n', "ascii")
        n1 = self.mesh.node("n1", services=[f"h2:{self.host}:7492"]).start()
        n2 = self.mesh.node("n2", peers=[n1], MESHD_CONFIG=config).start()
        self.mesh.until_agreed()
        got = self.curl("--http2-prior-knowledge", f"http://{n2.host}:{AUTO}/big", text=False)
        self.assertEqual(hashlib.sha256(got).hexdigest(), hashlib.sha256(self.big).hexdigest())

    def test_curl_posts_much_and_waits_for_100_where_it_is_asked(self):
        backend = Backend(self)
        body = self.random.randbytes(SIZE)
        (self.mesh.dir / "body").write_bytes(body)
        for node, of in self.nodes(f"web:{backend.address}"):
            for expect in (True, False):
                with self.subTest(of=of, expect=expect):
                    argv = [self.find("curl"), "-sS", "-H", f"Host: {of}.web",
                            "--expect100-timeout", "30", *([] if expect else ["-H", "Expect:"]),
                            "--data-binary", "@body", f"http://{node.host}:{AUTO}/"]
                    client = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                              preexec_fn=_die_with_parent, cwd=self.mesh.dir, env=clean_environment())
                    self.addCleanup(client.stdout.close)
                    self.addCleanup(client.wait)
                    self.addCleanup(client.kill)
                    end = backend.accept()
                    head = receive_head(end)
                    self.assertEqual(b"100-continue" in head, expect)
                    if expect:
                        end.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                    got = receive(end, SIZE)
                    self.assertEqual(hashlib.sha256(got).digest(), hashlib.sha256(body).digest())
                    end.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % SIZE + got)
                    end.close()
                    self.assertEqual(client.stdout.read(), body)
                    self.assertEqual(client.wait(), 0)

    def test_redis_cli_and_redis(self):
        self.find("redis-cli")
        self.background("redis-server", "--bind", self.host, "--port", 7493, "--save", "", port=7493)
        for node, of in self.nodes(f"db:{self.host}:7493"):
            with self.subTest(of):
                def redis(*words, given=None):
                    return self.run_it("redis-cli", "-h", node.host, "-p", MAPPED, *words, given=given)
                self.assertEqual(redis("PING"), "PONG\n")
                value = self.random.randbytes(200_000).hex()
                self.assertEqual(redis("-x", "SET", of, given=value), "OK\n")
                self.assertEqual(redis("GET", of), value + "\n")
                many = "".join(f"SET k{i} {i}\r\n" for i in range(5000))
                self.assertIn("replies: 5000", redis("--pipe", given=many))

    def test_wrk_gets_an_answer_to_everything(self):
        self.start_nginx()
        ways = self.nodes(f"web:{self.host}:7490")
        for (node, of), more in zip(ways, ([], ["-H", "Connection: close"])):
            with self.subTest(of=of, more=more):
                said = self.run_it("wrk", "-t1", "-c20", "-d1s", "-H", f"Host: {of}.web", *more,
                                   f"http://{node.host}:{AUTO}/hello")
                self.assertGreater(int(re.search(r"(\d+) requests in", said)[1]), 20)
                self.assertNotIn("Socket errors", said)
                self.assertNotIn("Non-2xx", said)

    def test_connection_that_is_upgraded_carries_anything(self):
        backend = Backend(self)
        for node, of in self.nodes(f"web:{backend.address}"):
            client = self.connect(node)
            asked = head_for(f"{of}.web", more="Connection: Upgrade\r\nUpgrade: websocket\r\n")
            client.sendall(asked)
            end = backend.accept()
            self.assertEqual(receive(end, len(asked)), asked)
            answer = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                      b"\x81\x05hello")
            end.sendall(answer)
            self.assertEqual(receive(client, len(answer)), answer)
            for i in range(20):
                frame = bytes([0x82, 0x80 + 100]) + self.random.randbytes(104)
                client.sendall(frame)
                self.assertEqual(receive(end, len(frame)), frame)
                end.sendall(frame[::-1])
                self.assertEqual(receive(client, len(frame)), frame[::-1])


if __name__ == "__main__":
    main()
