"""forwarding - both ends of what a mesh carries, in the hands of one test, and the cable in between.

A test is the client and the backend at once: it opens a Flow and says what each end does, so nothing
is left to chance. Every socket has a deadline. A Cable stands between two nodes and can be cut or
held for one kind of connection alone: the control link, or DATA.
"""
import collections
import contextlib
import functools
import hashlib
import queue
import re
import select
import selectors
import signal
import socket
import ssl
import struct
import threading

from harness import PORT, SLOW, MeshTest, until

SECONDS = 10.0 * SLOW  # for anything that happens at once
AUTO, MAPPED = PORT + 80, PORT + 81  # ingress ports: by name, and from there one per service
RPC, LINK, DATA = 1, 2, 3  # kinds of a connection between nodes: byte 5 of its first (frame.h)
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


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


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
        self.mesh.flags += self.flags

    def set(self, **settings):
        """Settings of the nodes to come: drain_timeout="1s"."""
        flags = {key.replace("_", "-"): value for key, value in settings.items()}
        self.mesh.flags = [f for f in self.mesh.flags if f.lstrip("-").split("=")[0] not in flags] + \
                          [f"--{key}={value}" for key, value in flags.items()]

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

    @staticmethod
    def held(node):
        """Descriptors that are not kept ahead of need."""
        count = node.counters()
        return node.descriptors() - count["forward_warm"] - 2 * count["forward_pipes"]

    def rests(self, node):
        """What it holds when it rests: several looks saw the same."""
        def same():
            looks = {self.held(node) for _ in range(5)}
            return looks if len(looks) == 1 else None
        return until(f"{node.name} rests", same).pop()

    def count_descriptors(self):
        self.before = {n: self.rests(n) for n in self.mesh.nodes if n.alive()}

    def assert_same_descriptors(self):
        """Not one more than were counted; those that were closing then may be gone."""
        for node, before in self.before.items():
            seen = []
            try:
                until("no more descriptors than before", lambda: seen.append(self.held(node)) or seen[-1] <= before)
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


# --- the cable between two nodes ---

class Cable:
    """A listening address in front of a node. What comes from `source` goes on from there too, so
    that the node sees the right address. One thread; other threads hand it what is to be done."""

    class Line:  # one connection, two sockets
        def __init__(self, near, far):
            self.ends, self.kind, self.held = (near, far), None, False
            self.pending = {near: bytearray(), far: bytearray()}  # to be sent there
            self.ended = {near: False, far: False}  # read to its end
            self.shut = {near: False, far: False}  # told so

        def other(self, sock):
            return self.ends[1] if sock is self.ends[0] else self.ends[0]

    def __init__(self, test, node, source):
        self.listener = socket.create_server((f"{test.mesh.net}.100", 0))
        self.address = "{}:{}".format(*self.listener.getsockname())
        self.to, self.source = (node.host, node.port), source
        self.lines, self.holding, self.refusing = set(), set(), set()
        self.select, self.jobs = selectors.DefaultSelector(), queue.Queue()
        self.bell, self.ring = socket.socketpair()
        self.bell.setblocking(False)
        self.listener.setblocking(False)
        self.select.register(self.listener, selectors.EVENT_READ)
        self.select.register(self.bell, selectors.EVENT_READ)
        self.over = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        test.addCleanup(self.close)

    # from any thread

    def do(self, job):
        done = threading.Event()
        result = []
        self.jobs.put((job, result, done))
        self.ring.send(b"!")
        if not done.wait(SECONDS):
            raise AssertionError("the cable's thread hangs")
        return result[0]

    def count(self, kind):
        return self.do(lambda: sum(line.kind == kind for line in self.lines))

    def cut(self, kind):
        """RST to both ends of each connection of that kind; how many there were."""
        def job():
            hit = [line for line in self.lines if line.kind == kind]
            for line in hit:
                self.drop(line)
            return len(hit)
        return self.do(job)

    def refuse(self, kind, on=True):
        """New connections of that kind are reset."""
        self.do(lambda: (self.refusing.add if on else self.refusing.discard)(kind))

    def hold(self, kind):
        """Nothing passes any more on connections of that kind, old or new; nobody is told."""
        def job():
            self.holding.add(kind)
            for line in self.lines:
                if line.kind == kind:
                    self.stop(line)
        self.do(job)

    def close(self):
        if not self.over:
            self.do(lambda: setattr(self, "over", True))
            self.thread.join(SECONDS)

    # on its thread

    def run(self):
        while not self.over:
            for key, events in self.select.select():
                if key.fileobj is self.listener:
                    self.accept()
                elif key.fileobj is self.bell:
                    self.bell.recv(4096)
                elif key.data in self.lines and not key.data.held:
                    self.serve(key.data, key.fileobj, events)
            while not self.jobs.empty():
                job, result, done = self.jobs.get()
                result.append(job())
                done.set()
        for line in list(self.lines):
            self.drop(line)
        for thing in (self.listener, self.bell, self.ring, self.select):
            thing.close()

    def accept(self):
        with contextlib.suppress(OSError):
            near, _ = self.listener.accept()
            far = socket.socket()
            try:
                far.bind((self.source, 0))
                far.connect(self.to)
            except OSError:
                near.close()
                far.close()
                return
            line = self.Line(near, far)
            self.lines.add(line)
            for sock in line.ends:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
                self.select.register(sock, selectors.EVENT_READ, line)

    def serve(self, line, sock, events):
        other = line.other(sock)
        try:
            if events & selectors.EVENT_READ and not line.ended[sock]:
                data = sock.recv(1 << 18)
                line.ended[sock] = not data
                line.pending[other] += data
                if line.kind is None and len(line.pending[other]) > 5:
                    line.kind = line.pending[other][5]
                    if line.kind in self.refusing:
                        return self.drop(line)
                    if line.kind in self.holding:
                        return self.stop(line)
            for end in line.ends:
                with contextlib.suppress(BlockingIOError):
                    while line.pending[end]:
                        del line.pending[end][:end.send(line.pending[end])]
                if line.ended[line.other(end)] and not line.pending[end] and not line.shut[end]:
                    line.shut[end] = True
                    end.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return None
        except OSError:
            return self.drop(line)
        if all(line.shut.values()):
            return self.drop(line, socket.socket.close)
        for end in line.ends:
            self.watch(line, end)
        return None

    def watch(self, line, end):
        room = len(line.pending[line.other(end)]) < 1 << 20
        events = (selectors.EVENT_READ if room and not line.ended[end] else 0) | \
                 (selectors.EVENT_WRITE if line.pending[end] else 0)
        known = end in self.select.get_map()
        if events and known:
            self.select.modify(end, events, line)
        elif events:
            self.select.register(end, events, line)
        elif known:
            self.select.unregister(end)

    def stop(self, line):
        line.held = True
        for end in line.ends:
            if end in self.select.get_map():
                self.select.unregister(end)

    def drop(self, line, how=reset):
        self.lines.discard(line)
        for end in line.ends:
            if end in self.select.get_map():
                self.select.unregister(end)
            how(end)


def log_lines(node):
    return node.err.read_text("utf-8", "replace").splitlines() if node.err.exists() else []


def memory_kib(node):
    """What it has of its own: RssAnon, after the heap has given back what it can."""
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

