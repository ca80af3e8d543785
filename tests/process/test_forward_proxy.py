#!/usr/bin/python3
"""Who the client really is: PROXY headers from trusted proxies, and to backends that want them.

Real ones on both sides: HAProxy in front, nginx and HAProxy behind, with two nodes in between.
"""
import shutil
import socket
import struct
import subprocess

from cable import SECONDS
from forwarding import AUTO, MAPPED, Backend, Flow, ForwardTest, Reply, ask, breaks, head_for, receive, receive_all
from harness import _die_with_parent, clean_environment, main, until

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
V2 = b"\r\n\r\n\0\r\nQUIT\n"


def v2(source, source_port, to, to_port, command=0x21, more=b""):
    addresses = socket.inet_aton(source) + socket.inet_aton(to) + struct.pack("!HH", source_port, to_port) + more
    return V2 + bytes([command, 0x11]) + struct.pack("!H", len(addresses)) + addresses


class ProxyTest(ForwardTest):
    def config(self, name, services=(), ingress=()):
        """A file of settings; services: (name, backend, proxy_protocol), ingress: lines of items."""
        lines = ["services:"] if services else []
        for service, backend, proxy in services:
            lines += [f'  - name: "{service}"', f'    backend: "{backend}"', f"    proxy_protocol: {proxy}"]
        lines += ["ingress:"] if ingress else []
        for item in ingress:
            lines += [("  - " if i == 0 else "    ") + line for i, line in enumerate(item)]
        file = self.mesh.dir / f"{name}.yaml"
        file.write_text("\n".join(lines) + "\n", "ascii")
        return file

    def two_nodes(self, services, proxy_from=None):
        """n1 owns the services and dials n2, whose ports the clients use; for `raw` one is mapped."""
        net = self.mesh.net
        trust = [f'proxy_from: "{proxy_from}"'] if proxy_from else []
        ingress = [[f'listen: "{net}.2:{AUTO}"', *trust],
                   [f'listen: "{net}.2:{MAPPED}"', 'name: "raw"', *trust]]
        self.n2 = self.mesh.node("n2", MESHD_CONFIG=self.config("n2", ingress=ingress)).start()
        self.n1 = self.mesh.node("n1", peers=[self.n2], SERVICE_ADDR=None,
                                 MESHD_CONFIG=self.config("n1", services=services)).start()
        until("n2 knows them", lambda: len(self.n2.rows()) == len(services) and
              all(r["connected"] for r in self.n2.rows().values()))

    def program(self, name, *args, port):
        """A server of Debian's in the foreground, until it listens."""
        path = shutil.which(name, path=PATH)
        if not path:
            self.skipTest(f"{name} is not installed")
        log = open(self.mesh.dir / f"{name}.log", "wb")
        self.addCleanup(log.close)
        process = subprocess.Popen([path, *args], env=clean_environment(), stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log, preexec_fn=_die_with_parent, cwd=self.mesh.dir)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def listens():
            self.assertIsNone(process.poll(), (self.mesh.dir / f"{name}.log").read_text())
            try:
                socket.create_connection((f"{self.mesh.net}.200", port), 1).close()
                return True
            except OSError:
                return False
        until(f"{name} listens", listens)

    def haproxy(self, text, port):
        file = self.mesh.dir / "haproxy.cfg"
        file.write_text("global\n  maxconn 100\ndefaults\n  timeout connect 5s\n  timeout client 10s\n"
                        f"  timeout server 10s\n{text}\n", "ascii")
        self.program("haproxy", "-db", "-q", "-f", str(file), port=port)

    def nginx(self, server, port):
        file = self.mesh.dir / "nginx.conf"
        file.write_text(f"daemon off; master_process off; pid {self.mesh.dir}/nginx.pid; error_log stderr;\n"
                        "events { worker_connections 256; }\n"
                        f"http {{ access_log off; client_body_temp_path {self.mesh.dir}/body;\n{server} }}\n", "ascii")
        self.program("nginx", "-e", "stderr", "-c", str(file), "-p", str(self.mesh.dir), port=port)


class Out(ProxyTest):
    def test_backend_is_told_the_client_across_two_nodes_in_the_version_it_wants(self):
        backends = {v: Backend(self) for v in ("v1", "v2", "off")}
        self.two_nodes([(v, b.address, v) for v, b in backends.items()] + [("raw", backends["v1"].address, "v1")])
        for version, backend in backends.items():
            with self.subTest(version):
                client = self.connect(self.n2, source=f"{self.mesh.net}.77")
                ip, port = client.getsockname()
                client.sendall(head_for(version))
                header = {
                    "v1": f"PROXY TCP4 {ip} {self.n2.host} {port} {AUTO}\r\n".encode(),
                    "v2": v2(ip, port, self.n2.host, AUTO),
                    "off": b"",
                }[version]
                end = backend.accept()
                expected = header + head_for(version)
                self.assertEqual(receive(end, len(expected)), expected)
                self.passes(Flow(client, end))
        client = self.connect(self.n2, MAPPED)
        ip, port = client.getsockname()
        end = backends["v1"].accept()  # told before the client has said a word
        header = f"PROXY TCP4 {ip} {self.n2.host} {port} {MAPPED}\r\n".encode()
        self.assertEqual(receive(end, len(header)), header)
        self.passes(Flow(client, end))

    def test_nginx_and_haproxy_behind_two_nodes_see_the_clients_address(self):
        net = self.mesh.net
        self.nginx(f"server {{ listen {net}.200:7490 proxy_protocol; listen {net}.200:7491;"
                   ' location / { return 200 "$proxy_protocol_addr:$proxy_protocol_port"; } }', 7491)
        self.haproxy(f"frontend f\n  mode http\n  bind {net}.200:7492 accept-proxy\n  bind {net}.200:7493\n"
                     "  http-request return status 200 content-type text/plain lf-string %[src]:%[src_port]", 7493)
        self.two_nodes([("ng1", f"{net}.200:7490", "v1"), ("ng2", f"{net}.200:7490", "v2"),
                        ("ha1", f"{net}.200:7492", "v1"), ("ha2", f"{net}.200:7492", "v2")])
        for name in ("ng1", "ng2", "ha1", "ha2"):
            with self.subTest(name):
                client = self.connect(self.n2, source=f"{net}.77")
                ip, port = client.getsockname()
                reply = ask(client, head_for(name, more="Connection: close\r\n"))
                self.assertEqual((reply.status, reply.text), (200, f"{ip}:{port}"))


class In(ProxyTest):
    def test_trusted_network_says_who_the_client_is_and_must(self):
        one, raw = Backend(self), Backend(self)
        self.two_nodes([("one", one.address, "v1"), ("raw", raw.address, "v2")], f"{self.mesh.net}.60/31")
        said = [b"PROXY TCP4 192.0.2.7 198.51.100.9 1234 80\r\n", v2("192.0.2.7", 1234, "198.51.100.9", 80),
                v2("192.0.2.7", 1234, "198.51.100.9", 80, more=b"\x03\0\4abcd")]
        for header in said:
            for source in (60, 61):
                client = self.connect(self.n2, source=f"{self.mesh.net}.{source}")
                client.sendall(header + head_for("one"))
                expected = b"PROXY TCP4 192.0.2.7 198.51.100.9 1234 80\r\n" + head_for("one")
                self.assertEqual(receive(one.accept(), len(expected)), expected)
                client = self.connect(self.n2, MAPPED, f"{self.mesh.net}.{source}")
                for byte in header:
                    client.send(bytes([byte]))
                expected = v2("192.0.2.7", 1234, "198.51.100.9", 80)
                self.assertEqual(receive(raw.accept(), len(expected)), expected)
        for local in (b"PROXY UNKNOWN\r\n", V2 + b"\x20\0\0\0"):  # a check of the proxy's own
            client = self.connect(self.n2, source=f"{self.mesh.net}.60")
            client.sendall(local + head_for("one"))
            ip, port = client.getsockname()
            expected = f"PROXY TCP4 {ip} {self.n2.host} {port} {AUTO}\r\n".encode()
            self.assertEqual(receive(one.accept(), len(expected)), expected)
        for wrong in (head_for("one"), b"PROXY TCP4 nonsense\r\n" + head_for("one"), b"PROXY " + b"x" * 200):
            client = self.connect(self.n2, source=f"{self.mesh.net}.60")
            client.sendall(wrong)
            self.assertTrue(breaks(client))
        self.assertTrue(one.idle())

    def test_header_from_anywhere_else_is_not_believed(self):
        one, raw = Backend(self), Backend(self)
        self.two_nodes([("one", one.address, "v1"), ("raw", raw.address, "off")], f"{self.mesh.net}.60/32")
        header = b"PROXY TCP4 192.0.2.7 198.51.100.9 1234 80\r\n"
        client = self.connect(self.n2, source=f"{self.mesh.net}.62")
        client.sendall(header + head_for("one"))
        try:
            self.assertEqual(Reply(receive_all(client)).status, 400)
        except ConnectionError:
            pass
        self.assertTrue(one.idle())
        client = self.connect(self.n2, source=f"{self.mesh.net}.62")
        client.sendall(head_for("one"))
        ip, port = client.getsockname()
        expected = f"PROXY TCP4 {ip} {self.n2.host} {port} {AUTO}\r\n".encode()
        self.assertEqual(receive(one.accept(), len(expected)), expected)

    def test_haproxy_in_front_passes_its_clients_on(self):
        net = self.mesh.net
        one = Backend(self)
        self.two_nodes([("one", one.address, "v2"), ("raw", one.address, "off")], f"{net}.60/32")
        self.haproxy(f"listen l\n  mode tcp\n  bind {net}.200:7492\n"
                     f"  server s {net}.2:{AUTO} send-proxy-v2 source {net}.60", 7492)
        client = socket.create_connection((f"{net}.200", 7492), SECONDS, (f"{net}.78", 0))
        self.addCleanup(client.close)
        ip, port = client.getsockname()
        client.sendall(head_for("one"))
        end = one.accept()
        expected = v2(ip, port, f"{net}.200", 7492) + head_for("one")
        self.assertEqual(receive(end, len(expected)), expected)
        self.passes(Flow(client, end))


if __name__ == "__main__":
    main()
