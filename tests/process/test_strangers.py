#!/usr/bin/python3
"""Who is not of our making: stock nngcat, and those who mean harm."""
import os
import socket
import struct
import subprocess
import sys

from harness import MeshTest, SLOW, SOURCE, clean_environment, main, until

HELLO = bytes.fromhex("0053500000300000")  # SP, REQ


def generate(folder):
    """The protocol's Python module, made from the .proto below folder."""
    subprocess.run(["protoc", f"-I{SOURCE}/proto", f"--python_out={folder}", "meshd/v1/mesh.proto"],
                   check=True)


def load(folder):
    generate(folder)
    sys.path.insert(0, str(folder))
    from meshd.v1 import mesh_pb2
    return mesh_pb2


def frame(pb, method, request, call_id=1):
    header = pb.CallHeader(method=f"/meshd.v1.Registry/{method}", call_id=call_id, deadline_ms=60000,
                           wire_version=1).SerializeToString()
    assert len(header) < 128
    return bytes([len(header)]) + header + request.SerializeToString()


class Friendly(MeshTest):
    def setUp(self):
        super().setUp()
        self.n1 = self.mesh.node("n1", services=["web:127.0.0.1:80", "db:127.0.0.1:5432"]).start()

    def test_stock_nngcat_gets_an_introspect_reply(self):
        pb = load(self.mesh.dir)
        request = self.mesh.dir / "request.bin"
        request.write_bytes(frame(pb, "Introspect", pb.IntrospectRequest(), call_id=7))
        done = subprocess.run(["nngcat", "--req0", "--dial", self.n1.url, "--file", str(request),
                               "--raw", "--recv-timeout", "10"], capture_output=True,
                              env=clean_environment(), timeout=30)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        size = done.stdout[0]
        header = pb.ReplyHeader.FromString(done.stdout[1:1 + size])
        self.assertEqual((header.status, header.call_id), (0, 7))
        reply = pb.IntrospectReply.FromString(done.stdout[1 + size:].rstrip(b"\n"))
        self.assertEqual({row.key for row in reply.services}, {"web@local", "db@local"})

    def test_calls_that_change_something_are_refused_to_strangers(self):
        pb = load(self.mesh.dir)
        for method, request in (
                ("Offer", pb.OfferRequest(lease_id="x", name="x", backend_addr="127.0.0.1:1")),
                ("Withdraw", pb.WithdrawRequest(name="web")),
                ("RegisterServices", pb.RegisterRequest(peer_id="n9", incarnation=1, version=1)),
                ("Deregister", pb.DeregisterRequest(peer_id="n1"))):
            with socket.create_connection((self.n1.host, self.n1.port), 10) as s:
                payload = b"\x80\0\0\1" + frame(pb, method, request)
                s.sendall(HELLO + struct.pack(">Q", len(payload)) + payload)
                s.settimeout(10)
                got = b""
                while len(got) < 16 or len(got) < 16 + struct.unpack(">Q", got[8:16])[0]:
                    piece = s.recv(4096)
                    self.assertTrue(piece, f"{method}: closed instead of answered")
                    got += piece
            size, at = got[20], 21
            if size & 0x80:
                size, at = (size & 0x7F) | got[21] << 7, 22
            header = pb.ReplyHeader.FromString(got[at:at + size])
            self.assertEqual(header.status, 7, f"{method}: PERMISSION_DENIED")
        self.assertEqual(set(self.n1.rows()), {"web@local", "db@local"})


class Hostile(MeshTest):
    N = int(int(os.environ.get("MESHD_TEST_HOSTILE", "20000")) / SLOW)

    def setUp(self):
        super().setUp()
        pb = load(self.mesh.dir)
        self.valid = self.message(b"\x80\0\0\1" + frame(pb, "Introspect", pb.IntrospectRequest()))

    def message(self, payload):
        return struct.pack(">Q", len(payload)) + payload

    def harm(self):
        """The bytes of one hostile connection."""
        r = self.random
        noise = r.randbytes(r.randrange(1, 300))
        preamble = b"MSHD\x01" + bytes([r.choice((1, 2, 3, 4, 9))])
        whole = r.choice((
            noise,
            HELLO + noise,
            HELLO + struct.pack(">Q", r.choice((2**63, 2**64 - 32, 2**40, 2**20 + 1, 0))) + noise,
            HELLO + self.message(r.randbytes(4) * r.randrange(1, 20)),
            HELLO + self.message(b"\0\0\0\1" * 9),
            HELLO + self.message(b"\x80\0\0\1" + noise),
            HELLO + self.message(b"\x80\0\0\1\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            HELLO + self.valid * r.randrange(1, 200),
            bytes.fromhex("0053500000110000") + noise,
            bytes.fromhex("0053500000310000") + self.valid,
            preamble + b"\x02\x10n2" + r.randbytes(16) + noise,
            preamble + b"\x40\x00" + noise,
            preamble + b"\x00\x00" + noise,
            b"MSHD\x02\x01\x01\0x",
            b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            bytes.fromhex("16030100c8010000c40303") + noise,
        ))
        return whole[:r.randrange(len(whole) + 1)] if r.random() < 0.4 else whole

    def connect(self, node, i):
        s = socket.socket()
        s.bind((f"{self.mesh.net}.{100 + i % 100}", 0))
        s.settimeout(10)
        s.connect((node.host, node.port))
        return s

    def end(self, s):
        """Ends a connection in one of the ways there are."""
        way = self.random.randrange(4)
        try:
            if way == 0:
                s.shutdown(socket.SHUT_WR)
            elif way == 1:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif way == 2:
                s.setblocking(False)
                s.recv(65536)
        except OSError:
            pass
        s.close()

    def test_node_is_as_before_after_hostile_connections(self):
        self.set(heartbeat="5s", peer_timeout="60s")  # a busy machine is no silence of its peer
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"]).start()
        n2 = self.mesh.node("n2", services=["db:127.0.0.1:81"], peers=[n1]).start()
        self.mesh.until_agreed()
        for i in range(50):  # what a first use allocates is not a leak
            s = self.connect(n1, i)
            s.sendall(self.harm())
            self.end(s)
        until("they are closed", lambda: n1.counters()["gate_connections"] <= 3)
        before = n1.descriptors(), n1.rss_kib(), n1.maps()["revision"], n1.counters()

        silent = [self.connect(n1, i) for i in range(200)]
        held = []
        for i in range(self.N):
            s = self.connect(n1, i)
            try:
                s.sendall(self.harm())
            except OSError:
                pass
            held.append(s)
            if len(held) > 100:
                self.end(held.pop(self.random.randrange(len(held))))
            if i % 500 == 0:
                self.assertEqual(n1.cat("ping").returncode, 0)
        for s in silent + held:
            self.end(s)

        until("no connection is left over",
              lambda: n1.counters()["gate_connections"] <= before[3]["gate_connections"], 30)
        until("no descriptor is left over", lambda: n1.descriptors() <= before[0], 30)
        self.assertEqual(n1.believes(), n1.truth() | n2.truth())
        self.assertEqual(n1.maps()["revision"], before[2])
        self.assertTrue(n1.info()["nng_healthy"])

        def pipes(counters):
            return counters["ports_pipes_added"] - counters["ports_pipes_removed"]
        after = until("nothing waits", lambda: (c := n1.counters())["gate_parked"] == 0 and
                      c["gate_requests_waiting"] == 0 and pipes(c) == pipes(before[3]) and c)
        self.assertEqual(after["gate_lanes_lost"], 0)
        grown = n1.rss_kib() - before[1]
        print(f"{self.N} hostile connections, RSS {before[1]} KiB and {grown:+} KiB")
        if "ASAN_OPTIONS" not in os.environ:  # it keeps what was freed
            self.assertLess(grown, 6 * 1024)
        n2.local("offer", "late", "127.0.0.1:82")
        until("news still pass", lambda: f"late@{n2.host}" in n1.rows())

    def test_client_that_does_not_read_holds_up_nobody(self):
        n1 = self.mesh.node("n1", services=[f"s{i}:127.0.0.1:80" for i in range(200)]).start()
        s = self.connect(n1, 0)
        s.sendall(HELLO)
        s.setblocking(False)
        sent = 0
        try:
            while sent < 8 << 20:
                sent += s.send(self.valid * 1000)
        except BlockingIOError:
            pass
        for _ in range(20):
            self.assertEqual(n1.cat("ping").returncode, 0)
        self.assertEqual(len(n1.rows()), 200)
        s.close()


if __name__ == "__main__":
    main()
