"""Programs and tls://: meshcat, libmeshd and the Python example ask nodes that have TLS, and are told
what is wrong where they cannot."""
import ctypes
import os
import socket
import ssl
import subprocess
import threading
import unittest

from harness import MESHCAT, SLOW, SOURCE, MeshTest, Node, _die_with_parent, clean_environment, main, until
from mtls import Authority, SecureNode, replace
from test_strangers import generate

SECONDS = 20 * SLOW
MESH_PY = SOURCE / "tools" / "examples" / "mesh.py"


class ClientTest(MeshTest):
    def setUp(self):
        super().setUp()
        self.ca = self.mesh.ca = Authority(self.mesh.dir / "ca")
        self.mesh.kind = SecureNode
        self.me = self.ca.issue("me")

    def other_ca(self):
        return Authority(self.mesh.dir / "other-ca", "another CA")

    def settings(self, leaf=None, ca=None):
        leaf = leaf or self.me
        return {"PEER_TLS_CA": str((ca or self.ca).cert), "PEER_TLS_CERT": str(leaf.cert), "PEER_TLS_KEY": str(leaf.key)}

    def run_it(self, *argv, **env):
        return subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              env=clean_environment() | env, timeout=60 * SLOW, preexec_fn=_die_with_parent)

    def cat(self, *words, env=None):
        return self.run_it(MESHCAT, *words, **(self.settings() if env is None else env))

    def expect(self, done, code, *parts):
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        for part in parts:
            self.assertIn(part, done.stderr)


def offers(folder):
    """A configuration that lets "me" look up and offer one service, from afar."""
    file = folder / "offers.yaml"
    file.write_text("policy:\n- rule: mine\n  peers: me\n  lookup: true\n  introspect: true\n  offer: mine\n")
    return file


class Meshcat(ClientTest):
    def setUp(self):
        super().setUp()
        self.n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"]).start()

    def test_it_asks_by_options_and_by_variables(self):
        flags = ("--cacert", self.ca.cert, "-E", self.me.cert, "--key", self.me.key)
        for command in (("lookup", "web"), ("introspect",), ("explain", "web"), ("node",), ("ping",)):
            self.expect(self.cat("--dial", self.n1.tls_url, *command), 0)
            self.expect(self.cat("--dial", self.n1.tls_url, *command, *flags, env={}), 0)
        self.expect(self.cat("lookup", "web", env=self.settings() | {"MESHD_ADDR": self.n1.tls_url}), 0)
        both = self.mesh.dir / "both.pem"
        both.write_bytes(self.me.cert.read_bytes() + self.me.key.read_bytes())
        self.expect(self.cat("--dial", self.n1.tls_url, "ping", "--cacert", self.ca.cert, "-E", both, env={}), 0)
        done = self.cat("--dial", self.n1.tls_url, "watch", "-C", "1")
        self.expect(done, 0)
        self.assertIn("web", done.stdout)

    def test_the_node_must_be_who_is_meant(self):
        self.expect(self.cat("--dial", self.n1.tls_url, "ping", "--node", "n1"), 0)
        for command in ("ping", "watch"):
            self.expect(self.cat("--dial", self.n1.tls_url, command, "--node", "n2"), 6, "'n1', not 'n2'")

    def test_refused_certificates_of_either_side_have_a_code_of_their_own(self):
        other = self.other_ca()
        stranger = other.issue("me")
        for command in (("lookup", "web"), ("watch",)):
            done = self.cat("--dial", self.n1.tls_url, *command, env=self.settings(ca=other))
            self.expect(done, 6, "its certificate is refused")
            for _ in range(5):  # such a refusal races with the end of the connection
                done = self.cat("--dial", self.n1.tls_url, *command, env=self.settings(stranger))
                self.expect(done, 6, "refused this one's certificate")
        # Whoever answers is taken, but the node takes nobody else for that.
        trusting = self.settings() | {"PEER_TLS_CA": ""}
        self.expect(self.cat("--dial", self.n1.tls_url, "ping", env=trusting), 2, "PEER_TLS_CA")
        self.expect(self.cat("--dial", self.n1.tls_url, "ping", "-k", env=trusting), 0)
        self.expect(self.cat("--dial", self.n1.tls_url, "ping", "-k", env=self.settings(stranger)), 6)
        old = self.ca.issue("me", begin=-86400, end=-60)
        self.expect(self.cat("--dial", self.n1.tls_url, "ping", env=self.settings(old)), 2, "expired")
        self.expect(self.cat("--dial", self.n1.tls_url, "ping"), 0)
        self.assertGreaterEqual(self.n1.counters()["gate_tls_failed_untrusted"], 10)

    def test_a_server_whose_certificate_has_expired_is_refused(self):
        leaf = self.ca.issue("n9", begin=-86400, end=-60)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf.cert, leaf.key)
        context.set_alpn_protocols(["meshd/1"])
        listener = socket.create_server((f"{self.mesh.net}.9", 0))
        self.addCleanup(listener.close)

        def serve():
            try:
                context.wrap_socket(listener.accept()[0], server_side=True)
            except OSError:
                pass
        server = threading.Thread(target=serve)
        server.start()
        done = self.cat("--dial", "tls://%s:%d" % listener.getsockname(), "ping")
        server.join(SECONDS)
        self.expect(done, 6, "expired")

    def test_the_other_kind_of_port_is_named_as_what_it_is(self):
        n2 = self.mesh.node("n2", tls=False).start()
        for command in ("ping", "watch"):
            self.expect(self.cat("--dial", f"tcp://{self.n1.host}:{self.n1.port}", command, env={}), 3,
                        "use tls:// then")
            self.expect(self.cat("--dial", f"tls://{n2.host}:{n2.port}", command), 3, "use tcp:// then")
        self.expect(self.cat("--dial", self.n1.tls_url, "ping"), 0)

    def test_two_nodes_are_compared(self):
        n2 = self.mesh.node("n2", peers=[self.n1]).start()
        self.mesh.until_agreed()
        self.expect(self.cat("diff", self.n1.tls_url, n2.tls_url), 0)

    def test_nothing_is_offered_from_afar_unless_a_rule_allows_it(self):
        self.expect(self.cat("--dial", self.n1.tls_url, "offer", "mine", "127.0.0.1:99"), 6)
        self.assertEqual(set(self.n1.rows()), {"web@local"})
        n2 = self.mesh.node("n2", MESHD_CONFIG=offers(self.mesh.dir)).start()
        self.expect(self.cat("--dial", n2.tls_url, "offer", "other", "127.0.0.1:99"), 6, "'mine'")
        self.expect(self.cat("--dial", n2.tls_url, "offer", "mine", "127.0.0.1:99"), 0)
        self.assertEqual(set(n2.rows()), {"mine@local"})
        self.expect(self.cat("--dial", n2.tls_url, "withdraw", "mine"), 0)
        self.assertEqual(set(n2.rows()), set())


class MeshPy(ClientTest):
    def test_it_speaks_tls_when_it_has_certificates(self):
        generate(self.mesh.dir)
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"]).start()
        ask = ["/usr/bin/python3", "-B", MESH_PY, n1.host, n1.port]
        env = self.settings() | {"PYTHONPATH": str(self.mesh.dir)}
        done = self.run_it(*ask, "lookup", "web", **env)
        self.expect(done, 0)
        self.assertEqual(done.stdout, "web 127.0.0.1:80 n1 (local)\n")
        done = self.run_it(*ask, "introspect", **env)
        self.assertEqual(done.stdout, "web@local 127.0.0.1:80 n1 connected\n")
        with subprocess.Popen([str(a) for a in (*ask, "watch")], env=clean_environment() | env, text=True,
                              stdout=subprocess.PIPE, preexec_fn=_die_with_parent) as watching:
            self.assertIn("RESYNC", watching.stdout.readline())
            self.assertEqual(watching.stdout.readline(), "UP web@local 127.0.0.1:80\n")
            watching.kill()
        done = self.run_it(*ask, "lookup", "web", **(env | self.settings(ca=self.other_ca())))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("CERTIFICATE_VERIFY_FAILED", done.stderr)


# --- libmeshd, as a program has it ---

OK, NOT_FOUND, REFUSED, TIMEOUT, GONE = range(5)


class Tls(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("ca", ctypes.c_char_p), ("cert", ctypes.c_char_p),
                ("key", ctypes.c_char_p), ("node", ctypes.c_char_p), ("insecure", ctypes.c_int)]


class Offer(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("check", ctypes.c_char_p), ("check_interval_ms", ctypes.c_uint),
                ("check_timeout_ms", ctypes.c_uint), ("check_rise", ctypes.c_uint), ("check_fall", ctypes.c_uint),
                ("proxy_protocol", ctypes.c_int), ("draining", ctypes.c_int)]


@unittest.skipUnless(os.environ.get("MESHD_LIB"), "libmeshd is not built, or with a sanitizer")
class Library(ClientTest):
    @classmethod
    def setUpClass(cls):
        cls.lib = ctypes.CDLL(os.environ["MESHD_LIB"])
        cls.lib.mesh_error_text.restype = ctypes.c_char_p
        cls.ms = int(20000 * SLOW)

    def setUp(self):
        super().setUp()
        self.n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"], crl=True).start()
        self.tls = Tls(ctypes.sizeof(Tls), *(str(p).encode() for p in (self.ca.cert, self.me.cert, self.me.key)), b"n1")

    def opened(self, function, *args, status=OK):
        out = ctypes.c_void_p()
        self.assertEqual(function(*args, ctypes.byref(out)), status, self.lib.mesh_error_text())
        return out

    def client(self):
        client = self.opened(self.lib.mesh_client_open_tls, self.n1.tls_url.encode(), ctypes.byref(self.tls), self.ms)
        self.addCleanup(self.lib.mesh_client_close, client)
        return client

    def finds(self, client, name=b"web", status=OK):
        found = self.opened(self.lib.mesh_lookup, client, name, self.ms, status=status)
        self.lib.mesh_list_free(found)

    def watch(self, client):
        watch = self.opened(self.lib.mesh_watch_open, client, None, self.ms)
        self.addCleanup(self.lib.mesh_watch_close, watch)

        def told():
            change, at = ctypes.c_int(), ctypes.c_void_p()
            self.assertEqual(self.lib.mesh_watch_next(watch, self.ms, ctypes.byref(change), ctypes.byref(at)), OK,
                             self.lib.mesh_error_text())
            return ("up", "changed", "down", "synced", "away")[change.value]
        return told

    def test_calls_watches_and_replicas_outlive_their_node(self):
        client = self.client()
        self.finds(client)
        told = self.watch(client)
        self.assertEqual([told(), told()], ["up", "synced"])
        replica = self.opened(self.lib.mesh_replica_open_tls, self.n1.tls_url.encode(), ctypes.byref(self.tls), None,
                              self.ms)
        self.addCleanup(self.lib.mesh_replica_close, replica)
        reader = self.opened(self.lib.mesh_reader_open, replica)
        self.addCleanup(self.lib.mesh_reader_close, reader)
        self.n1.local("offer", "late", "127.0.0.1:81")
        self.assertEqual(told(), "up")
        until("the copy has it", lambda: self.lib.mesh_replica_lookup(
            reader, b"late", ctypes.byref(ctypes.c_void_p())) == OK)
        self.n1.kill()
        self.assertEqual(told(), "away")
        self.n1.start()
        self.assertEqual([told(), told()], ["down", "synced"])
        self.finds(client)
        self.finds(client, b"late", NOT_FOUND)
        until("the copy is without it", lambda: self.lib.mesh_replica_lookup(
            reader, b"late", ctypes.byref(ctypes.c_void_p())) == NOT_FOUND)

    def test_an_offer_from_afar_comes_back_with_its_node(self):
        self.n1 = self.mesh.node("n2", MESHD_CONFIG=offers(self.mesh.dir)).start()
        self.tls.node = b"n2"
        offer = Offer(size=ctypes.sizeof(Offer), check=b"tcp", check_interval_ms=60000, draining=1)
        lease = self.opened(self.lib.mesh_register_with, self.client(), b"mine", b"127.0.0.1:99", ctypes.byref(offer),
                            self.ms)
        for _ in range(2):
            self.assertEqual(set(self.n1.rows()), {"mine@local"})
            self.assertTrue(self.n1.rows()["mine@local"]["draining"])
            self.assertEqual(self.n1.info()["checks"][0]["check"]["interval_ms"], 60000)
            self.n1.kill()
            self.n1.start()
            until("it is offered again", self.n1.rows)
        until("nobody answers there", lambda: not self.n1.rows()["mine@local"]["healthy"])
        offer.draining, offer.check = 0, b"http:/up"
        self.assertEqual(self.lib.mesh_lease_change(lease, None, ctypes.byref(offer), self.ms), OK)
        self.assertEqual(self.lib.mesh_lease_service(lease), 0, "neither healthy nor draining")
        self.assertEqual(self.lib.mesh_error_text(), b"Connection refused")
        self.assertFalse(self.n1.rows()["mine@local"]["draining"])
        self.assertEqual(self.n1.info()["checks"][0]["check"]["path"], "/up")
        self.lib.mesh_lease_close(lease)
        self.assertEqual(self.n1.rows(), {})

    def test_who_is_revoked_is_refused_until_it_has_another_certificate(self):
        client = self.client()
        self.finds(client)
        self.ca.revoke(self.me)
        replace(self.n1.crl_file, self.ca.crl())
        self.n1.take_files()
        until("it is cut off and refused", lambda: self.lib.mesh_lookup(
            client, b"web", self.ms, ctypes.byref(ctypes.c_void_p())) == REFUSED)
        self.assertIn(b"revoked", self.lib.mesh_error_text())
        self.ca.issue("me").put(self.me)
        self.finds(client)


if __name__ == "__main__":
    main()
