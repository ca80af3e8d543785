"""rawpeer - a peer that the test plays itself, byte for byte, as src/wire/frame.h says.

It registers, opens a link, says Hello and an empty list; from then on the test says what it likes.
"""
import os
import select
import socket
import struct

from cable import SECONDS
from forwarding import receive
from harness import until

RPC, LINK, DATA, WATCH = 1, 2, 3, 4  # kinds of preambles


def preamble(kind, peer_id, token=b""):
    return b"MSHD" + bytes([1, kind, len(peer_id), len(token)]) + peer_id.encode() + token


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def frame(header, body):
    header = header.SerializeToString()
    return varint(len(header)) + header + body.SerializeToString()


def message(payload):
    return struct.pack(">Q", len(payload)) + payload


def split(payload):
    """Header and body of a frame whose header is short."""
    return payload[1:1 + payload[0]], payload[1 + payload[0]:]


def digest(entries):
    """The digest of a list of (name, backend), as src/base/hash.h defines it; a third item: words
    of the entry's state."""
    total = 0
    for name, backend, *state in entries:
        h = 0xcbf29ce484222325
        flags = ("unhealthy" in "".join(state)) + 2 * ("draining" in "".join(state))
        for byte in f"{name}\0{backend}".encode() + (bytes([0, flags]) if flags else b""):
            h = (h ^ byte) * 0x100000001b3 % 2**64
        for factor in (0xff51afd7ed558ccd, 0xc4ceb9fe1a85ec53):
            h = (h ^ h >> 33) * factor % 2**64
        total += h ^ h >> 33
    return total % 2**64


class RawPeer:
    def __init__(self, test, pb, node, name, n):
        self.test, self.pb, self.node, self.name = test, pb, node, name
        self.host = f"{test.mesh.net}.{n}"
        self.incarnation = self.version = 1
        self.entries = {}  # what it offers, by name
        self.session = b""

    def connect(self):
        sock = socket.create_connection((self.node.host, self.node.port), SECONDS, (self.host, 0))
        self.test.addCleanup(sock.close)
        return sock

    def open(self, kind, token=b""):
        """A connection whose preamble was accepted."""
        sock = self.connect()
        sock.sendall(preamble(kind, self.name, token))
        answer = receive(sock, 8)
        text = receive(sock, answer[7])
        if answer[:6] != b"MSHD\x01\x00":
            raise AssertionError(f"refused: {answer} {text}")
        return sock

    def call(self, method, request):
        """The reply's status and body."""
        with self.open(RPC) as sock:
            header = self.pb.CallHeader(method=f"/meshd.v1.Registry/{method}", call_id=1,
                                        deadline_ms=60000, wire_version=1)
            sock.sendall(message(b"\x80\0\0\1" + frame(header, request)))
            got = receive(sock, struct.unpack(">Q", receive(sock, 8))[0])
        header, body = split(got[4:])
        return self.pb.ReplyHeader.FromString(header).status, body

    def say(self, kind, body):
        header = self.pb.LinkHeader(kind=kind, session_id=self.session)
        self.link.sendall(message(b"\0\0\0\1" + frame(header, body)))

    def hear(self):
        """The node's next message: its kind and its body."""
        size = struct.unpack(">Q", receive(self.link, 8))[0]
        header, body = split(receive(self.link, size)[4:])
        return self.pb.LinkHeader.FromString(header).kind, body

    def hear_any(self):
        """Likewise; a Sync is acknowledged."""
        kind, body = self.hear()
        if kind == self.pb.LINK_KIND_SYNC:
            sync = self.pb.Sync.FromString(body)
            self.say(self.pb.LINK_KIND_SYNC_ACK, self.pb.SyncAck(
                incarnation=sync.incarnation, version=sync.version, part=sync.part,
                applied=sync.last, accepted=sync.count))
        return kind, body

    def hear_kind(self, wanted, message_type):
        """The next message of that kind; others are passed over."""
        while True:
            kind, body = self.hear_any()
            if kind == wanted:
                return message_type.FromString(body)

    def beat(self):
        self.say(self.pb.LINK_KIND_HEARTBEAT, self.pb.Heartbeat(
            incarnation=self.incarnation, version=self.version, count=len(self.entries),
            digest=digest(self.entries.values())))

    def offer(self, *entries):
        """A change of its list, applied when this returns: (name, backend, words of its state)."""
        self.entries.update({entry[0]: entry for entry in entries})
        self.version += 1
        self.say(self.pb.LINK_KIND_SYNC, self.pb.Sync(
            incarnation=self.incarnation, version=self.version, base_version=self.version - 1,
            last=True, count=len(self.entries), digest=digest(self.entries.values()),
            entries=[self.pb.Service(name=name, backend_addr=backend, unhealthy="unhealthy" in state,
                                     draining="draining" in state)
                     for name, backend, state in entries]))
        if not self.hear_kind(self.pb.LINK_KIND_SYNC_ACK, self.pb.SyncAck).applied:
            raise AssertionError(f"not applied: {entries}")

    def join(self):
        """Up to a live link."""
        pb = self.pb
        status, body = self.call("RegisterServices", pb.RegisterRequest(
            peer_id=self.name, incarnation=self.incarnation, version=1, wire_version_min=1,
            wire_version_max=1))
        if status != 0:
            raise AssertionError(f"Register: status {status}")
        self.link = self.open(LINK, pb.RegisterReply.FromString(body).token)
        self.say(pb.LINK_KIND_HELLO, pb.Hello(peer_id=self.name, incarnation=self.incarnation,
                                              nonce=7, wire_version_min=1, wire_version_max=1))
        reply = self.hear_kind(pb.LINK_KIND_HELLO_REPLY, pb.HelloReply)
        if reply.reason != 0:
            raise AssertionError(f"Hello: {reply}")
        self.session = struct.pack(">QQ", 7, reply.nonce)
        self.say(pb.LINK_KIND_SYNC, pb.Sync(incarnation=self.incarnation, version=1, last=True))
        self.hear_kind(pb.LINK_KIND_SYNC_ACK, pb.SyncAck)
        until("the link is live", self.is_live)
        return self

    def is_live(self):
        self.beat()
        while select.select([self.link], [], [], 0)[0]:
            self.hear_any()
        row = self.node.peer_rows().get(self.name)
        return bool(row and row["connected"])

    # --- forwarding ---

    def forward(self, name, forward_id=None, first=b"", remaining_ms=3000):
        """Asks the node to carry a client to name; the id."""
        forward_id = forward_id or os.urandom(16)
        ip = bytes([127, 0, 0, 1])
        self.say(self.pb.LINK_KIND_FORWARDS, self.pb.Forwards(forwards=[self.pb.Forward(
            forward_id=forward_id, name=name, remaining_ms=remaining_ms, client_ip=ip,
            client_port=1, server_ip=ip, server_port=2, first_bytes=first)]))
        return forward_id

    def refusal(self, forward_id):
        """How the node answers that one."""
        replies = self.hear_kind(self.pb.LINK_KIND_FORWARD_REPLIES, self.pb.ForwardReplies)
        for reply in replies.replies:
            if reply.forward_id == forward_id:
                return reply.refusal
        raise AssertionError(f"{forward_id.hex()} is not in {replies}")

    def data(self, forward_id, offset=0, session=None):
        """A DATA connection with the header of that Forward; nothing is read."""
        sock = self.connect()
        sock.sendall(preamble(DATA, self.name, (session or self.session) + b"\x01") +
                     forward_id + struct.pack(">Q", offset))
        return sock

    def joined(self, sock, forward_id):
        """Reads the node's answer and header."""
        answer = receive(sock, 8)
        if answer != b"MSHD\x01\0\0\0":
            raise AssertionError(f"refused: {answer} {receive(sock, answer[7])}")
        header = receive(sock, 24)
        if header != forward_id + bytes(8):
            raise AssertionError(f"another header: {header.hex()}")
