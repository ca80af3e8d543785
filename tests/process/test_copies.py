"""copies - watches and replicas of libmeshd.so, as a program has them, of real nodes.

Through ctypes and the public header's functions only. MESHD_LIB names the library; without it there
is nothing to test."""
import ctypes
import json
import os
import sys
import time

from harness import SLOW, MeshTest, main, until

OK, NOT_FOUND, REFUSED, TIMEOUT, GONE = range(5)
UP, CHANGED, DOWN, SYNCED, AWAY = range(5)
LOCAL, CONNECTED, STALE, HEALTHY, DRAINING = 1, 2, 4, 8, 16
LONG_MS = int(20000 * SLOW)


class Instance(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("node", ctypes.c_char_p), ("source", ctypes.c_char_p),
                ("address", ctypes.c_char_p), ("last_seen", ctypes.c_uint64), ("state", ctypes.c_uint)]

    def key(self):
        return f"{self.name.decode()}@{self.source.decode()}"


class State(ctypes.Structure):
    _fields_ = [("current", ctypes.c_int), ("age_ms", ctypes.c_uint64), ("epoch", ctypes.c_uint64),
                ("revision", ctypes.c_uint64), ("instances", ctypes.c_size_t), ("changes", ctypes.c_uint64),
                ("resyncs", ctypes.c_uint64), ("reconnects", ctypes.c_uint64)]


def library():
    lib = ctypes.CDLL(os.environ["MESHD_LIB"])
    lib.mesh_error_text.restype = ctypes.c_char_p
    lib.mesh_list_at.restype = ctypes.POINTER(Instance)
    lib.mesh_list_count.restype = ctypes.c_size_t
    return lib


LIB = library() if os.environ.get("MESHD_LIB") else None


def opened(function, *args):
    """What a function of the library hands out last."""
    out = ctypes.c_void_p()
    status = function(*args, ctypes.byref(out))
    if status != OK:
        raise AssertionError(f"status {status}: {LIB.mesh_error_text().decode()}")
    return out


class Watch:
    def __init__(self, test, node, name=None):
        client = opened(LIB.mesh_client_open, node.url.encode(), LONG_MS)
        self.watch = opened(LIB.mesh_watch_open, client, name, LONG_MS)
        LIB.mesh_client_close(client)
        test.addCleanup(LIB.mesh_watch_close, self.watch)

    def next(self, ms=LONG_MS):
        """(change, key, address), or None: nothing has happened."""
        change, at = ctypes.c_int(), ctypes.POINTER(Instance)()
        status = LIB.mesh_watch_next(self.watch, ms, ctypes.byref(change), ctypes.byref(at))
        if status == TIMEOUT:
            return None
        if status != OK:
            raise AssertionError(f"status {status}: {LIB.mesh_error_text().decode()}")
        it = at.contents if at else None
        return (change.value, it.key() if it else None, it.address.decode() if it else None)

    def until(self, done):
        """All that is told until done(told); the maps may be ahead of what has been told."""
        told = []
        while not done(told):
            news = self.next()
            if news is None:
                raise AssertionError(f"no more is told after {told}")
            told.append(news)
        return told


class Replica:
    def __init__(self, test, node, name=None):
        self.replica = opened(LIB.mesh_replica_open, node.url.encode(), name, LONG_MS)
        test.addCleanup(LIB.mesh_replica_close, self.replica)
        self.reader = opened(LIB.mesh_reader_open, self.replica)
        test.addCleanup(LIB.mesh_reader_close, self.reader)

    def lookup(self, name):
        """[(source, address, state)], and whether the copy was current."""
        out = ctypes.c_void_p()
        status = LIB.mesh_replica_lookup(self.reader, name.encode(), ctypes.byref(out))
        if status == NOT_FOUND:
            return [], None
        if status != OK:
            raise AssertionError(f"status {status}: {LIB.mesh_error_text().decode()}")
        rows = [LIB.mesh_list_at(out, ctypes.c_size_t(i)).contents for i in range(LIB.mesh_list_count(out))]
        return ([(r.source.decode(), r.address.decode(), r.state) for r in rows],
                bool(LIB.mesh_list_current(out)))

    def state(self):
        state = State()
        LIB.mesh_replica_state(self.replica, ctypes.byref(state))
        return state


def asked(node, name):
    """What the node itself answers: [(source, address)] in its order."""
    done = node.cat("lookup", name, "--format", "json", check=False)
    reply = json.loads(done.stdout)
    return [(r["ip"], r["backend_addr"]) for r in reply["results"][0].get("routes", [])]


class Copies(MeshTest):
    def three(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80", "one:127.0.0.1:81"]).start()
        n2 = self.mesh.node("n2", services=["web:127.0.0.1:80", "two:127.0.0.1:82"], peers=[n1]).start()
        n3 = self.mesh.node("n3", services=["web:127.0.0.1:80", "three:127.0.0.1:83"], peers=[n1, n2]).start()
        self.mesh.until_agreed()
        return n1, n2, n3

    def test_a_replica_answers_as_its_node_does_in_the_same_order(self):
        n1, n2, n3 = self.three()
        copy = Replica(self, n1)
        for name in ("web", "one", "two", "three"):
            until(f"{name} is the same",
                  lambda name=name: [r[:2] for r in copy.lookup(name)[0]] == asked(n1, name))
        self.assertEqual(3, len(copy.lookup("WEB.")[0]))
        self.assertEqual(([], None), copy.lookup("nobody"))
        n3.kill()
        until("what was n3's is stale, and comes last", lambda: all(
            rows and rows[-1][2] & STALE for rows in (copy.lookup("three")[0], copy.lookup("web")[0])))
        until("as the node has it", lambda: [r[:2] for r in copy.lookup("web")[0]] == asked(n1, "web"))
        until("and is gone", lambda: copy.lookup("three") == ([], None), 20)
        until("it was heard of a moment ago", lambda: copy.state().age_ms <= 1500)

    def test_a_watch_tells_what_comes_and_goes_with_a_peer(self):
        n1, n2, n3 = self.three()
        watch = Watch(self, n1, b"t*")
        both = {(UP, f"two@{n2.host}", "127.0.0.1:82"), (UP, f"three@{n3.host}", "127.0.0.1:83")}
        told = watch.until(lambda told: both <= set(told) and (SYNCED, None, None) in told)
        self.assertEqual({key for _, key, _ in both}, {key for _, key, _ in told if key})
        n2.signal(15)
        n2.ended()
        told = watch.until(lambda told: told and told[-1][0] == DOWN)
        self.assertEqual({f"two@{n2.host}"}, {key for _, key, _ in told})

    def test_a_node_that_comes_back_is_followed_on(self):
        n1, n2, n3 = self.three()
        watch, copy = Watch(self, n1), Replica(self, n1)
        watch.until(lambda told: len({key for _, key, _ in told if key}) == 6)
        until("the copy is complete", lambda: copy.state().instances == 6)
        before = copy.state()
        n1.kill()
        watch.until(lambda told: told and told[-1][0] == AWAY)
        until("the copy knows that its node is away", lambda: not copy.state().current)
        self.assertEqual(3, len(copy.lookup("web")[0]))
        self.assertEqual(False, copy.lookup("web")[1])
        n1.services = ["web:127.0.0.1:80", "new:127.0.0.1:84"]
        n1.start()
        self.mesh.until_agreed()
        until("the copy follows again",
              lambda: copy.state().current and [r[:2] for r in copy.lookup("web")[0]] == asked(n1, "web")
              and copy.lookup("new")[0] and len(copy.lookup("web")[0]) == 3)
        self.assertEqual(([], None), copy.lookup("one"))
        after = copy.state()
        self.assertNotEqual(before.epoch, after.epoch)
        self.assertGreaterEqual(after.reconnects, 1)
        self.assertGreaterEqual(after.resyncs, 1)
        new = {(UP, "new@local", "127.0.0.1:84"), (DOWN, "one@local", "127.0.0.1:81"), (SYNCED, None, None)}
        told = watch.until(lambda told: new <= set(told))
        # It is what it was: that is not told again.
        self.assertNotIn("web@local", [key for _, key, _ in told])

    def test_nobody_there_is_told_at_once(self):
        node = self.mesh.node("n1")
        begun, out = time.monotonic(), ctypes.c_void_p()
        self.assertEqual(GONE, LIB.mesh_replica_open(node.url.encode(), None, LONG_MS, ctypes.byref(out)))
        self.assertIn(b"refused", LIB.mesh_error_text())
        self.assertLess(time.monotonic() - begun, LONG_MS / 1000)


if __name__ == "__main__":
    if LIB is None:
        sys.exit(77)
    main()
