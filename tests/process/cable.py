"""cable - a cable between two nodes, which can be cut, held or refused for one kind of connection
alone: the control link, or DATA."""
import contextlib
import queue
import selectors
import socket
import struct
import threading

from harness import SLOW

SECONDS = 30.0 * SLOW  # for anything that happens at once, if the machine is not busy
RPC, LINK, DATA = 1, 2, 3  # kinds of connections: byte 5 of what their dialler says first (frame.h)


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


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
            self.bell.close()
            self.ring.close()  # not by its thread, which may be at the job before it is rung for

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
        for thing in (self.listener, self.select):
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
