"""mtls - a CA of the test's own, nodes that have certificates of it, and a peer that the test plays.

Certificates come from the openssl program, not from meshcat: what others make must do as well.
"""
import contextlib
import datetime
import hashlib
import os
import pathlib
import socket
import ssl
import struct
import subprocess
import threading

from cable import SECONDS
from forwarding import ForwardTest, receive
from harness import Node, _die_with_parent, clean_environment, until

CONFIG = """
[req]
distinguished_name = none
prompt = no
[none]
[ca]
default_ca = self
[self]
database = {dir}/index.txt
new_certs_dir = {dir}
rand_serial = yes
certificate = {dir}/ca.pem
private_key = {dir}/ca-key.pem
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = optional
"""


def openssl(*argv, **more):
    return subprocess.run(["openssl", *map(str, argv)], check=True, capture_output=True, env=clean_environment(),
                          preexec_fn=_die_with_parent, **more)


class Leaf:
    def __init__(self, cert, key):
        self.cert, self.key = cert, key

    def put(self, other):
        """This one's files become the other's, each at once as a whole; the inode is another then."""
        for mine, theirs in ((self.cert, other.cert), (self.key, other.key)):
            replace(theirs, mine.read_bytes())


def replace(path, data):
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.chmod(0o600)
    os.replace(new, path)


class Authority:
    def __init__(self, folder, name="test CA"):
        self.dir = pathlib.Path(folder)
        self.dir.mkdir(mode=0o700)
        self.config, self.cert = self.dir / "openssl.cnf", self.dir / "ca.pem"
        self.config.write_text(CONFIG.format(dir=self.dir))
        (self.dir / "index.txt").touch()
        self.n = 0
        openssl("req", "-config", self.config, "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-nodes", "-keyout", self.dir / "ca-key.pem", "-out", self.cert, "-days", "3650",
                "-utf8", "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def issue(self, *names, begin=-3600, end=86400 * 365, usage="serverAuth,clientAuth", keep=None):
        """A certificate for these DNS names; it begins and ends so many seconds from now. keep: the
        name of its files, in a folder of the node's own."""
        self.n += 1
        folder = self.dir / (keep or f"{names[0]}-{self.n}")
        folder.mkdir(exist_ok=True)
        leaf = Leaf(folder / "cert.pem", folder / "key.pem")
        request, more = folder / "request.pem", folder / "more.cnf"
        more.write_text("basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
                        f"extendedKeyUsage={usage}\nsubjectAltName={','.join(f'DNS:{n}' for n in names)}\n")
        openssl("req", "-config", self.config, "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-nodes", "-keyout", leaf.key, "-out", request, "-subj", f"/CN={names[0]}")
        now = datetime.datetime.now(datetime.timezone.utc)
        dates = [(now + datetime.timedelta(seconds=s)).strftime("%y%m%d%H%M%SZ") for s in (begin, end)]
        openssl("ca", "-config", self.config, "-batch", "-notext", "-in", request, "-out", leaf.cert,
                "-extfile", more, "-startdate", dates[0], "-enddate", dates[1])
        return leaf

    def revoke(self, *leaves):
        for leaf in leaves:
            openssl("ca", "-config", self.config, "-revoke", leaf.cert)

    def crl(self, seconds=86400 * 30):
        """The list as it is now, as bytes."""
        out = self.dir / "crl.pem"
        openssl("ca", "-config", self.config, "-gencrl", "-crlsec", seconds, "-out", out)
        return out.read_bytes()


class SecureNode(Node):
    """A node with files of its own: dir/ca.pem, cert.pem, key.pem, and crl.pem if it has a list. It is
    asked through its local socket; tls_url is where others reach it."""

    def __init__(self, mesh, name, host, leaf=None, crl=False, tls=True, **settings):
        super().__init__(mesh, name, host, **settings)
        self.secure = tls
        if not tls:
            return
        self.dir = mesh.dir / f"{name}.tls"
        self.dir.mkdir(exist_ok=True)
        self.files = Leaf(self.dir / "cert.pem", self.dir / "key.pem")
        self.leaf = leaf or mesh.ca.issue(name)
        self.leaf.put(self.files)
        self.ca_file, self.crl_file = self.dir / "ca.pem", self.dir / "crl.pem"
        replace(self.ca_file, mesh.ca.cert.read_bytes())
        self.env = {"PEER_TLS_CA": self.ca_file, "PEER_TLS_CERT": self.files.cert,
                    "PEER_TLS_KEY": self.files.key} | self.env
        if crl:
            replace(self.crl_file, mesh.ca.crl())
            self.env["PEER_TLS_CRL"] = self.crl_file

    @property
    def url(self):
        return f"ipc://{self.socket}"

    @property
    def tls_url(self):
        return f"tls://{self.host}:{self.port}"

    def log(self):
        return self.err.read_text("utf-8", "replace")

    def until_logged(self, text, seconds=10.0, after=0):
        return until(f"{self.name} says {text!r}", lambda: text in self.log()[after:], seconds)

    def link(self, peer):
        """Its row of the link with that peer."""
        return next((row for row in self.info()["links"] if row["peer_id"] == peer.name), None)

    def until_live(self, peer, seconds=20.0):
        return until(f"the link of {self.name} to {peer.name} is live", lambda: (
            row := self.link(peer)) and row["state"] == "live" and row, seconds)

    def take_files(self):
        """Makes it read its files now, and waits until it has said what came of it."""
        before = len(self.log())
        self.signal(1)
        self.until_logged("[daemon] the settings w", after=before)  # were read again, will not do
        return self.log()[before:]


class TrustTest(ForwardTest):
    def setUp(self):
        super().setUp()
        self.mesh.ca = self.ca = Authority(self.mesh.dir / "ca")
        self.mesh.kind = SecureNode

    def context(self, leaf=None, ca=None, alpn=("meshd/1",)):
        """What a client of the test's own shows and trusts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations((ca or self.ca).cert)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if leaf:
            context.load_cert_chain(leaf.cert, leaf.key)
        return context

    def dial(self, node, leaf=None, source=None, **more):
        """A TLS connection to its mesh port."""
        sock = socket.create_connection((node.host, node.port), SECONDS, (source, 0) if source else None)
        self.addCleanup(sock.close)
        sock = self.context(leaf, **more).wrap_socket(sock)
        self.addCleanup(sock.close)
        return sock

    @contextlib.contextmanager
    def counted(self, node, *names, exactly=None):
        """In here each of these counters of the node grows, and nothing else of the node changes: its
        links are the very same, and clients are carried as before."""
        before = node.counters()
        sessions = {row["peer_id"]: row["session_id"] for row in node.info()["links"]}
        yield
        for name in names:
            until(f"{name} of {node.name} grows", lambda: node.counters()[name] > before[name])
            if exactly:
                self.assertEqual(node.counters()[name], before[name] + exactly, name)
        self.assertEqual({row["peer_id"]: row["session_id"] for row in node.info()["links"]}, sessions)
        for way in self.REMOTE.values():
            flow = self.flow(way, "port")
            self.passes(flow)
            flow.client.close()
            flow.backend.close()


class Stream:
    """Bytes from a client to its backend for as long as the test wants, faster than it looks."""

    pause = 0.002  # between two pieces

    def __init__(self, test, flow):
        self.flow, self.stop = flow, threading.Event()
        self.random, self.sent, self.got, self.n = test.random, hashlib.sha256(), hashlib.sha256(), 0
        self.error = None
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self.send, self.receive)]
        for thread in self.threads:
            thread.start()

    def send(self):
        data = self.random.randbytes(1 << 16)
        try:
            while not self.stop.wait(self.pause):
                self.flow.client.sendall(data)
                self.sent.update(data)
            self.flow.client.shutdown(1)
        except OSError as error:
            self.error = error

    def receive(self):
        try:
            while part := self.flow.backend.recv(1 << 18):
                self.got.update(part)
                self.n += len(part)
        except OSError as error:
            self.error = error

    def goes_on(self):
        before = self.n
        until("the stream goes on", lambda: self.n > before + (1 << 20) or self.error)

    def close(self):
        """Ends it; True when not a byte was lost."""
        self.stop.set()
        for thread in self.threads:
            thread.join()
        self.flow.client.close()
        self.flow.backend.close()
        return self.error is None and self.sent.digest() == self.got.digest()


# --- a peer that the test plays ---

RPC, LINK, DATA, WATCH = 1, 2, 3, 4


def preamble(kind, peer_id, token=b""):
    name = peer_id.encode()
    return b"MSHD\x01" + bytes([kind, len(name), len(token)]) + name + token


class Refused(Exception):
    """The node's answer to a preamble."""

    def __init__(self, status, reason, text):
        super().__init__(f"status {status}, reason {reason}: {text}")
        self.status, self.reason, self.text = status, reason, text


def answered(sock):
    """Reads the answer to a preamble; raises Refused unless it is: go on."""
    head = receive(sock, 8)
    if head[:5] != b"MSHD\x01":
        raise AssertionError(f"no answer to a preamble: {head!r}")
    text = receive(sock, head[7]).decode()
    if head[5]:
        raise Refused(head[5], head[6], text)


def varint(data):
    value, shift = 0, 0
    for i, byte in enumerate(data):
        value |= (byte & 127) << shift
        if byte < 128:
            return value, i + 1
        shift += 7
    raise AssertionError("no varint")


def packed(header, body):
    head = header.SerializeToString()
    size, out = len(head), b""
    while size > 127:
        out += bytes([size & 127 | 128])
        size >>= 7
    return out + bytes([size]) + head + body.SerializeToString()


def say(sock, word, payload):
    sock.sendall(struct.pack(">QI", len(payload) + 4, word) + payload)


def message(sock):
    """One SP message: its first word, and the rest."""
    data = receive(sock, struct.unpack(">Q", receive(sock, 8))[0])
    return struct.unpack(">I", data[:4])[0], data[4:]


def hear(sock):
    return message(sock)[1]


class Member:
    """Plays a peer of one node: dials, registers, has a link; says what the test wants it to."""

    def __init__(self, test, pb, node, name, leaf=None):
        self.test, self.pb, self.node, self.name = test, pb, node, name
        self.leaf = leaf or test.ca.issue(name)
        self.incarnation = 1_700_000_000_000_000

    def dial(self, kind, token=b"", name=None):
        sock = self.test.dial(self.node, self.leaf)
        sock.sendall(preamble(kind, name or self.name, token))
        answered(sock)
        return sock

    def register(self, name=None):
        """Its header and reply."""
        pb = self.pb
        with self.dial(RPC) as sock:
            header = pb.CallHeader(method="/meshd.v1.Registry/RegisterServices", call_id=1, deadline_ms=60000,
                                   wire_version=1)
            request = pb.RegisterRequest(peer_id=name or self.name, incarnation=self.incarnation, version=1,
                                         wire_version_min=1, wire_version_max=1, has_list=True)
            say(sock, 0x80000001, packed(header, request))
            reply = hear(sock)
        size, at = varint(reply)
        return pb.ReplyHeader.FromString(reply[at:at + size]), pb.RegisterReply.FromString(reply[at + size:])

    def hello(self, name=None):
        """Registers, opens the link, says hello; the answer to it."""
        header, reply = self.register()
        self.test.assertEqual(header.status, 0, header.text)
        self.link = self.dial(LINK, reply.token)
        self.say(self.pb.LINK_KIND_HELLO, self.pb.Hello(peer_id=name or self.name, incarnation=self.incarnation,
                                                        nonce=1, wire_version_min=1, wire_version_max=1), b"")
        return self.until_heard(self.pb.LINK_KIND_HELLO_REPLY, self.pb.HelloReply)

    def open(self):
        """A live session; from then on its heartbeats are the test's."""
        hello = self.hello()
        self.test.assertEqual(hello.reason, 0, hello.text)
        self.session = struct.pack(">QQ", 1, hello.nonce)
        self.say(self.pb.LINK_KIND_SYNC, self.pb.Sync(incarnation=self.incarnation, version=1, last=True))
        self.until_heard(self.pb.LINK_KIND_SYNC_ACK, self.pb.SyncAck)
        return self

    def beat(self):
        self.say(self.pb.LINK_KIND_HEARTBEAT, self.pb.Heartbeat(incarnation=self.incarnation, version=1))

    def say(self, kind, body, session=None):
        session = self.session if session is None else session
        say(self.link, 0, packed(self.pb.LinkHeader(kind=kind, session_id=session), body))

    def until_heard(self, kind, message):
        """The next message of that kind; what else comes is passed over, and Syncs are acknowledged."""
        while True:
            data = hear(self.link)
            size, at = varint(data)
            header, body = self.pb.LinkHeader.FromString(data[at:at + size]), data[at + size:]
            if header.kind == kind:
                return message.FromString(body)
            if header.kind == self.pb.LINK_KIND_SYNC:
                sync = self.pb.Sync.FromString(body)
                self.say(self.pb.LINK_KIND_SYNC_ACK, self.pb.SyncAck(
                    incarnation=sync.incarnation, version=sync.version, part=sync.part, applied=sync.last,
                    accepted=sync.count))

    def forward(self, forward_id, service, first=b"", remaining_ms=5000):
        self.say(self.pb.LINK_KIND_FORWARDS, self.pb.Forwards(forwards=[self.pb.Forward(
            forward_id=forward_id, name=service, remaining_ms=remaining_ms, client_ip=bytes([127, 0, 0, 1]),
            client_port=1, server_ip=bytes([127, 0, 0, 1]), server_port=2, first_bytes=first)]))

    def data(self, forward_id, first=b"", offset=0, session=None, name=None, line=None):
        """A DATA connection for that Forward, first said in it; line: one that was dialled before. Its
        answer is not read yet."""
        sock = line or self.test.dial(self.node, self.leaf)
        sock.sendall(preamble(DATA, name or self.name, (session or self.session) + b"\x01") +
                     forward_id + struct.pack(">Q", offset) + first)
        return sock
