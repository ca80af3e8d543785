"""watching - a Watch of a real node over a raw socket, kept as a copy of its map `services`."""
import socket
import struct

from harness import SLOW

METHOD = "/meshd.v1.Registry/Watch"


def varint(number):
    data = b""
    while number > 0x7F:
        data += bytes([number & 0x7F | 0x80])
        number >>= 7
    return data + bytes([number])


class Watch:
    """One connection. rows: what was told, by key; revision: up to where."""

    def __init__(self, pb, node, local=False, **request):
        self.pb, self.local = pb, local
        self.rows, self.seen = {}, None
        self.epoch = self.revision = 0
        self.resyncs = self.synceds = self.events = 0
        self.whys = []
        self.buffer = b""
        if local:
            # Without a time-out yet: with one, a full backlog would be an error and not a wait.
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.connect(str(node.socket))
        else:
            self.socket = socket.create_connection((node.host, node.port), 20 * SLOW)
        self.socket.settimeout(20 * SLOW)
        self.socket.sendall(self.request(**request))

    def request(self, **request):
        header = self.pb.CallHeader(method=METHOD, call_id=1, wire_version=1).SerializeToString()
        payload = struct.pack(">I", 1) + varint(len(header)) + header
        payload += self.pb.WatchRequest(**request).SerializeToString()
        head = (b"\1" if self.local else b"") + struct.pack(">Q", len(payload))
        return b"MSHD\1\4\0\0" + head + payload

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def fileno(self):
        return self.socket.fileno()

    def receive(self):
        """Reads once; False at the end."""
        piece = self.socket.recv(1 << 20)
        self.buffer += piece
        return bool(piece)

    def messages(self):
        """The whole messages that have come, applied to rows."""
        if not self.synceds and not self.epoch and self.buffer[:4] == b"MSHD":
            if len(self.buffer) < 8 or len(self.buffer) < 8 + self.buffer[7]:
                return []
            if self.buffer[5]:
                raise AssertionError(f"refused: {self.buffer[5]} {self.buffer[8:8 + self.buffer[7]]}")
            self.buffer = self.buffer[8 + self.buffer[7]:]
        replies, at, head = [], 0, 9 if self.local else 8
        while len(self.buffer) - at >= head:
            size = struct.unpack_from(">Q", self.buffer, at + head - 8)[0]
            if len(self.buffer) - at - head < size:
                break
            body = self.buffer[at + head + 4:at + head + size]
            at += head + size
            assert body[0] < 0x80
            header = self.pb.ReplyHeader.FromString(body[1:1 + body[0]])
            if header.status:
                raise EOFError(f"{header.status} {header.text}")
            reply = self.pb.WatchReply.FromString(body[1 + body[0]:])
            self.apply(reply)
            replies.append(reply)
        self.buffer = self.buffer[at:]
        return replies

    def apply(self, reply):
        self.epoch = reply.epoch
        if reply.resync:
            self.resyncs += 1
            self.seen = set()
        for event in reply.events:
            self.events += 1
            if event.kind == self.pb.WATCH_KIND_DOWN:
                self.rows.pop(event.row.key, None)
                self.whys.append((event.row.key, event.why))
            else:
                self.rows[event.row.key] = event.row
            if self.seen is not None:
                self.seen.add(event.row.key)
        if reply.synced:
            self.synceds += 1
            if self.seen is not None:
                self.rows = {key: row for key, row in self.rows.items() if key in self.seen}
            self.seen = None
        if reply.revision:
            self.revision = reply.revision

    def step(self):
        if not self.receive():
            raise EOFError("the node closed the connection")
        return self.messages()

    def until(self, true):
        """Reads on until it holds; the socket's time-out bounds the wait."""
        self.messages()
        while not true():
            self.step()

    def until_synced(self):
        self.until(lambda: self.synceds > 0 and self.seen is None)
        return self
