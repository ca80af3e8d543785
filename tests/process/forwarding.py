"""forwarding - both ends of what a mesh carries, in the hands of one test.

A test is the client and the backend at once: it opens a Flow and says what each end does, so nothing
is left to chance. Every socket has a deadline.
"""
import collections
import contextlib
import functools
import hashlib
import re
import select
import signal
import socket
import ssl
import threading

from cable import SECONDS, Cable
from harness import PORT, MeshTest, until

AUTO, MAPPED = PORT + 80, PORT + 81  # ingress ports: by name, and from there one per service
NOWHERE = 9  # a port of the backends' host where nobody listens


# --- sockets ---

def receive(sock, size):
    """Exactly so many bytes."""
    got = bytearray()
    while len(got) < size:
        part = sock.recv(min(size - len(got), 1 << 18))
        if not part:
            raise AssertionError(f"ended after {len(got)} of {size} bytes")
        got += part
    return bytes(got)


def receive_all(sock):
    """All bytes up to the end, which is one in order (ConnectionResetError otherwise)."""
    got = bytearray()
    while part := sock.recv(1 << 18):
        got += part
    return bytes(got)


def breaks(sock):
    """Whether it ends by an error, not in order; whatever arrives before is thrown away."""
    try:
        while sock.recv(1 << 16):
            pass
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def digest(data):
    return hashlib.sha256(data).hexdigest()


def head_for(name, method="GET", target="/some/where", more=""):
    return f"{method} {target} HTTP/1.1\r\nHost: {name}\r\n{more}\r\n".encode()


def hello_for(name):
    """What a TLS client says first."""
    bio = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(*bio, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return bio[1].read()


def receive_head(sock):
    """Up to the empty line and no further."""
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        got += receive(sock, 1)
    return got


class Reply:
    """An HTTP answer that ends with its connection, checked for what holds of every one."""

    def __init__(self, raw):
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("ascii").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) [ -~]+", lines[0])
        if not match:
            raise AssertionError(f"no HTTP answer: {raw[:200]!r}")
        self.status = int(match[1])
        self.fields = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        self.text = self.body.decode()


def ask(sock, request):
    """One request; the whole answer up to the end of the connection, which is closed then."""
    with sock:
        sock.sendall(request)
        return Reply(receive_all(sock))


class Backend:
    """Listens on an address of the mesh; the test accepts."""

    def __init__(self, test, host=None, family=socket.AF_INET, backlog=128):
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.bind((host or f"{test.mesh.net}.200", 0))
        self.sock.listen(backlog)
        self.sock.settimeout(SECONDS)
        test.addCleanup(self.sock.close)
        host, port = self.sock.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.test = test

    def accept(self):
        sock, _ = self.sock.accept()
        sock.settimeout(SECONDS)
        self.test.addCleanup(sock.close)
        return sock

    def idle(self):
        """Nobody is waiting to be accepted."""
        return not select.select([self.sock], [], [], 0)[0]

    def close(self):
        self.sock.close()

    def serve(self, answer):
        """From now on each request (up to its empty line) gets this answer, and the end; how many
        there were is in .served, in a list that grows."""
        self.served = []

        def run():
            while True:
                try:
                    sock, _ = self.sock.accept()
                except TimeoutError:
                    continue
                except OSError:
                    return
                with sock, contextlib.suppress(OSError):
                    sock.settimeout(SECONDS)
                    got = b""
                    while b"\r\n\r\n" not in got:
                        part = sock.recv(65536)
                        if not part:
                            break
                        got += part
                    else:
                        self.served.append(got)
                        sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
                                     b"Content-Length: %d\r\n\r\n%s" % (len(answer), answer))
        threading.Thread(target=run, daemon=True).start()
        return self


def black_hole(test):
    """An address where connecting goes on for ever: its backlog is full and stays so."""
    hole = Backend(test, backlog=0)
    host, port = hole.sock.getsockname()
    for _ in range(4):
        plug = socket.socket()
        plug.setblocking(False)
        plug.connect_ex((host, port))
        test.addCleanup(plug.close)
    return hole.address


Flow = collections.namedtuple("Flow", "client backend")


class ForwardTest(MeshTest):
    """n2 dials n1, and only that way. n1 offers `one`, n2 `two`; both have an ingress port for
    names and one mapped to each."""

    flags = ()
    # where the client goes, and which service it wants
    LOCAL, UP, DOWN = ("n1", "one"), ("n2", "one"), ("n1", "two")  # up: from who dialled
    REMOTE = {"from the dialler to the listener": UP, "from the listener to the dialler": DOWN}
    ALL = {"local": LOCAL, **REMOTE}

    def setUp(self):
        super().setUp()
        self.set(heartbeat="3s", peer_timeout="30s")  # nobody is silent just because the machine is busy
        self.mesh.flags += self.flags

    def ingress(self, n, *mapped):
        host = f"{self.mesh.net}.{n}"
        ports = [f"{host}:{AUTO}"] + [f"{host}:{MAPPED + i}={name}" for i, name in enumerate(mapped)]
        return ",".join(ports)

    def pair(self, cable=False):
        self.one, self.two = Backend(self), Backend(self)
        self.n1 = self.mesh.node("n1", services=[f"one:{self.one.address}"],
                                 INGRESS_ADDR=self.ingress(1, "one", "two")).start()
        self.cable = Cable(self, self.n1, f"{self.mesh.net}.2") if cable else None
        self.n2 = self.mesh.node("n2", services=[f"two:{self.two.address}"],
                                 peers=[self.cable.address if cable else self.n1],
                                 INGRESS_ADDR=self.ingress(2, "one", "two")).start()
        self.mesh.until_agreed()
        return self.n1, self.n2

    def node_named(self, name):
        return next(n for n in self.mesh.nodes if n.name == name)

    def connect(self, node, port=AUTO, source=None):
        source = (source, 0) if source else None
        sock = socket.create_connection((node.host, port), SECONDS, source)
        self.addCleanup(sock.close)
        return sock

    def is_reset(self, node, port, source=None):
        """That port takes nobody: a reset, as soon as one connects or right after."""
        try:
            return breaks(self.connect(node, port, source))
        except ConnectionResetError:
            return True

    def backend_of(self, way):
        return {"one": self.one, "two": self.two}[way[1]]

    def flow(self, way, by):
        """A client joined with its backend, which has read what says whom the client wants. by: the
        port that is mapped to the service, or the name in an HTTP head, a CONNECT, a ClientHello."""
        at, service = way
        node, backend = self.node_named(at), self.backend_of(way)
        if by == "port":
            client = self.connect(node, MAPPED + ("one", "two").index(service))
            return Flow(client, backend.accept())
        client = self.connect(node)
        if by == "connect":
            client.sendall(head_for(f"{service}:80", "CONNECT", f"{service}:80"))
            flow = Flow(client, backend.accept())
            head = receive_head(client)
            self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)
            return flow
        first = head_for(service) if by == "name" else hello_for(service)
        client.sendall(first)
        flow = Flow(client, backend.accept())
        self.assertEqual(receive(flow.backend, len(first)), first)
        return flow

    def each_flow(self, ways, by, check):
        """check(flow) for each way and each kind of first words."""
        for what, way in ways.items():
            for kind in by:
                with self.subTest(way=what, by=kind):
                    flow = self.flow(way, kind)
                    try:
                        check(flow)
                    finally:
                        flow.client.close()
                        flow.backend.close()

    def outcome(self, client, *backends):
        """What becomes of a client: the backend that it has been brought to (not accepted yet), or
        None once it was told something, or was reset, instead."""
        def look():
            ready = select.select([client, *(b.sock for b in backends)], [], [], 0)[0]
            return [b for b in backends if b.sock in ready] or ready and [None]
        return until("the client is carried, or told why not", look)[0]

    def payload(self, size):
        return self.random.randbytes(size)

    def passes(self, flow, size=1000):
        """So many bytes each way, one after the other."""
        for sender, reader in ((flow.client, flow.backend), (flow.backend, flow.client)):
            data = self.payload(size)
            sender.sendall(data)
            self.assertEqual(digest(receive(reader, size)), digest(data))

    # --- descriptors ---

    def spare(self, count):
        """Descriptors that are kept ahead of need."""
        return count["forward_warm"] + 2 * count["forward_pipes"]

    def open_now(self, node):
        return node.descriptors()

    def held(self, node):
        spare = self.spare(node.counters())
        return self.open_now(node) - spare

    def rests(self, node):
        """What it holds when it rests: several looks saw the same."""
        def same():
            looks = {self.held(node) for _ in range(5)}
            return looks if len(looks) == 1 else None
        return until(f"{node.name} rests", same, 60).pop()  # who asks may still be leaving when it is looked at

    def count_descriptors(self):
        self.before = {n: self.rests(n) for n in self.mesh.nodes if n.alive()}

    def assert_same_descriptors(self):
        """Not one more than were counted; those that were closing then may be gone. On a loaded
        machine who asks for what is spare leaves late: after each question there is a while to."""
        for node, before in self.before.items():
            seen = []

            def no_more(node=node, before=before, seen=seen):
                most = before + self.spare(node.counters())
                with contextlib.suppress(AssertionError):
                    until("who asked has left", lambda: self.open_now(node) <= most, 2)
                seen.append(self.open_now(node) - most + before)
                return seen[-1] <= before

            try:
                until("no more descriptors than before", no_more, 30)
            except AssertionError as error:
                raise AssertionError(f"{node.name}: {before} before, then {seen[-5:]}") from error


KINDS = "port", "name", "connect", "sni"


def every_way(test):
    """The test gets a flow, again and again: local, and both ways through the other node, each by
    every kind of first words. Afterwards the nodes hold no more descriptors than before, and end."""
    @functools.wraps(test)
    def run(self):
        self.pair()
        self.each_flow(self.ALL, KINDS, self.passes)  # what a first use allocates is not a leak
        self.count_descriptors()
        self.each_flow(self.ALL, KINDS, lambda flow: test(self, flow))
        self.assert_same_descriptors()
        for node in (self.n2, self.n1):  # in order: a sanitizer has a look at what is left
            node.signal(signal.SIGTERM)
            self.assertEqual(node.ended(), 0)
    return run


def memory_kib(node):
    """What it has of its own: RssAnon, after the heap has given back what it can."""
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
