#!/usr/bin/python3
"""Settings that change while the node runs: all of them or none, and nobody who is there notices."""
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from cable import SECONDS
import forwarding
from forwarding import AUTO, Backend, memory_kib
from harness import MESHD, PORT, SLOW, MeshTest, clean_environment, main, until
from mtls import Authority, Stream
from test_notify import Manager
from test_questions import Asker
from test_strangers import load
from watching import Watch

ROUNDS = 1000 if SLOW == 1 else 120
INVALID_ARGUMENT = 3


def listed(items):
    return "[" + ", ".join(items) + "]"


class Settings:
    """A file of settings, of which each part is written as YAML on a line of its own."""

    def __init__(self, path, **parts):
        self.path, self.parts = path, parts

    def write(self, **parts):
        self.parts |= parts
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(f"{key}: {text}\n" for key, text in self.parts.items() if text))
        fresh.rename(self.path)

    @staticmethod
    def services(backends):
        return listed(f"{{name: {name}, backend: '{backend}'}}" for name, backend in backends.items())

    @staticmethod
    def peers(nodes):
        return listed(f"{{address: '{node.host}:{node.port}'}}" for node in nodes)


class ReloadTest(MeshTest):
    def setUp(self):
        super().setUp()
        self.settings = Settings(self.mesh.dir / "n1.yaml", services=Settings.services({"web": "127.0.0.1:80"}))
        self.settings.write()
        self.n1 = self.mesh.node("n1", MESHD_CONFIG=self.settings.path, SERVICE_ADDR=None, REMOTE_PEER_ADDR=None)

    def reload(self, *args, **parts):
        """meshcat's exit code and what it says."""
        self.settings.write(**parts)
        done = self.n1.local("reload", *args, check=False)
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    def names(self):
        return {row["name"] for row in self.n1.rows().values()}

    def limit(self, name):
        limits = json.loads(self.n1.local("node", "--format", "json").stdout)["limits"]
        return next(row["limit"] for row in limits if row["name"] == name)

    def log(self):
        return self.n1.err.read_text("utf-8")


class WhatChanges(ReloadTest):
    def test_what_can_change_does_and_what_cannot_is_named(self):
        self.n1.start()
        code, said, notes = self.reload(
            services=Settings.services({"db": "127.0.0.1:5432"}), peers="[{address: '127.0.0.9:1', id: n9}]",
            limits="{leases: 5, message_bytes: 2MiB}", log="{level: debug, maps: summary, forwards: all}",
            timing="{dial_timeout: 3s}")
        self.assertEqual((code, said), (0, [
            "peers: 1 more (127.0.0.9:1)", "services: 1 more (db), 1 less (web)", "log.level is debug (was info)",
            "log.maps is summary (was full)", "log.forwards is all (was errors)", "limits.leases is 5 (was 10000)"]))
        self.assertEqual(notes, [
            f"meshcat: {key} changed: it takes effect when the node starts again"
            for key in ("timing.dial_timeout", "limits.message_bytes")])
        self.assertEqual(self.names(), {"db"})
        self.assertEqual((self.limit("leases"), self.limit("message_bytes")), (5, 1 << 20))
        self.assertEqual([row["configured"] for row in self.n1.info()["links"]], ["127.0.0.9:1"])
        for line in said:
            self.assertIn(f"info [daemon] {line}\n", self.log())
        self.assertIn("warn [daemon] timing.dial_timeout changed: it takes effect when the node starts", self.log())
        self.assertIn("info [daemon] the settings were read again; changes in force: 6, waiting for the next start: 2\n",
                      self.log())
        code, said, _ = self.reload("--format", "json")
        self.assertEqual(json.loads(said[0]), {
            "errors": [], "changed": [], "restart": ["timing.dial_timeout", "limits.message_bytes"]})
        counters = self.n1.counters()
        self.assertEqual([counters[f"reload_{name}"] for name in ("taken", "refused", "waiting")], [2, 0, 2])
        self.n1.local("offer", "x", "127.0.0.1:1")
        until("the maps are printed as a summary", lambda: self.n1.out.read_text().endswith(
            "[registry] services peer_id=n1 svc_map={total=2}\n"
            "[registry] peer_services_map peer_id=n1 {total_peers=0}\n"))

    def test_a_hangup_does_the_same_and_a_level_counts_for_what_tells_of_it(self):
        self.n1.start()
        for level, seen in ("error", True), ("warn", False), ("info", True), ("error", True):
            before = len(self.log())
            self.settings.write(log=f"{{level: {level}}}", services=Settings.services({level: "127.0.0.1:80"}))
            self.n1.signal(signal.SIGHUP)
            until("it is read", lambda: self.names() == {level})
            self.n1.info()  # which the main loop answers when it has told all
            self.assertEqual(f"log.level is {level}" in self.log()[before:], seen, level)

    def test_a_limit_below_its_use_turns_away_only_who_is_new(self):
        self.settings.write(limits="{watchers: 3}")
        self.n1.start()
        pb = load(self.mesh.dir)
        watches = [Watch(pb, self.n1).until_synced() for _ in range(2)]
        self.addCleanup(lambda: [w.__exit__() for w in watches])
        self.assertEqual(self.reload(limits="{watchers: 1}")[0], 0)
        with Watch(pb, self.n1) as late, self.assertRaisesRegex(AssertionError, "limits.watchers"):
            late.until_synced()
        self.reload(services=Settings.services({"new": "127.0.0.1:80"}))
        for watch in watches:
            watch.until(lambda w=watch: {row.name for row in w.rows.values()} == {"new"})
        self.assertEqual(self.reload(limits="{watchers: 3}")[0], 0)
        with Watch(pb, self.n1) as third:
            third.until_synced()

    def test_clients_beyond_a_lowered_limit_go_on_until_they_end(self):
        backend = Backend(self)
        self.n1.env["INGRESS_ADDR"] = f"{self.n1.host}:{AUTO}=web"
        self.settings.write(services=Settings.services({"web": backend.address}))
        self.n1.start()

        def client():
            sock = socket.create_connection((self.n1.host, AUTO), SECONDS)
            self.addCleanup(sock.close)
            return sock

        flows = [(client(), backend.accept()) for _ in range(2)]
        for limit in "ingress_connections", "ingress_per_source", "forwards_per_service":
            with self.subTest(limit):
                self.assertEqual(self.reload(limits=f"{{{limit}: 1}}")[0], 0)
                with contextlib.suppress(ConnectionError):  # turned away, by a reset or an end
                    self.assertEqual(client().recv(1), b"")
                for near, far in flows:
                    near.sendall(b"hello")
                    self.assertEqual(forwarding.receive(far, 5), b"hello")
        for sock in (sock for flow in flows for sock in flow):
            sock.close()
        until("they have ended", lambda: self.n1.counters()["forward_clients"] == 0)
        near, far = client(), backend.accept()
        far.sendall(b"hello")
        self.assertEqual(forwarding.receive(near, 5), b"hello")

    def test_the_admin_port_follows_too(self):
        self.n1.env["ADMIN_ADDR"] = f"{self.n1.host}:9100"
        self.n1.start()
        self.assertEqual(self.reload(limits="{admin_followers: 1, pinned_snapshots: 2}")[0], 0)

        def follow():
            client = http.client.HTTPConnection(self.n1.host, 9100, timeout=SECONDS)
            client.request("GET", "/events")
            answer = client.getresponse()
            self.addCleanup(answer.close)  # has the connection: it is for nothing else
            return answer.status

        self.assertEqual(follow(), 200)
        self.assertEqual(follow(), 503)
        self.assertEqual(self.reload(limits="{admin_followers: 2}")[0], 0)
        self.assertEqual(follow(), 200)

    def test_limits_that_need_more_descriptors_than_there_are_are_warned_of(self):
        self.n1.env["INGRESS_ADDR"] = f"{self.n1.host}:{AUTO}"
        self.n1.start()
        before = len(self.log())
        self.assertEqual(self.reload(limits="{ingress_connections: 10000000}")[0], 0)
        self.assertRegex(self.log()[before:], r"warn \[daemon\] only \d+ descriptors, 200\d+ may be needed")

    def test_only_who_is_on_the_machine_may_ask(self):
        self.n1.start()
        done = self.n1.cat("reload", "--format", "json", check=False)
        self.assertEqual(done.returncode, 6)
        self.assertIn("PERMISSION_DENIED", done.stderr)


class AllOrNothing(ReloadTest):
    WRONG = {
        "an unknown key": (dict(colour="red"), "n1.yaml:{line}:1: unknown key 'colour'; allowed: "),
        "a value": (dict(limits="{leases: 0}"), "n1.yaml:{line}:18: limits.leases: '0' is too small; allowed: "),
        "no YAML": (dict(limits="{leases: "), "n1.yaml:"),
        "its own id": (dict(peers="[{address: '127.0.0.9:1', id: n1}]"), "n1.yaml:{line}:9: peers: id: 'n1' is this"),
        "two limits": (dict(limits="{services_per_peer: 1}", services=Settings.services(
            {"a": "127.0.0.1:80", "b": "127.0.0.1:80"})), "services: 2 are configured; allowed by limits.services_per"),
    }

    def same(self):
        self.assertEqual(self.names(), {"web"})
        self.assertEqual(self.limit("leases"), 10000)
        self.assertEqual(self.n1.info()["links"], [])

    def test_whatever_is_wrong_leaves_all_as_it_was_and_names_its_place(self):
        self.n1.start()
        good = dict(services=Settings.services({"other": "127.0.0.1:80"}), peers="[{address: '127.0.0.9:1'}]",
                    limits="{leases: 7}", colour="")
        for what, (wrong, place) in self.WRONG.items():
            with self.subTest(what):
                parts = good | wrong
                code, said, errors = self.reload(**parts)
                line = list(p for p in self.settings.parts if self.settings.parts[p]).index(list(wrong)[0]) + 1
                self.assertEqual((code, said), (67, []))
                self.assertEqual(len(errors), 1, errors)
                self.assertIn(place.format(line=line), errors[0])
                self.assertIn(errors[0].removeprefix("meshcat: "), self.log())
                self.assertIn("error [daemon] the settings will not do: all stays as it was\n", self.log())
                self.same()
        self.settings.path.unlink()
        done = self.n1.local("reload", "--format", "json", check=False)
        self.assertEqual(done.returncode, 67)
        self.assertIn("n1.yaml: cannot be opened: No such file", json.loads(done.stderr)["error"]["text"])
        self.same()
        code, said, _ = self.reload(**good)
        self.assertEqual((code, len(said), self.names()), (0, 3, {"other"}))

    def test_files_of_tls_with_which_no_node_would_start_are_no_settings_to_wait_for(self):
        self.n1.start()
        code, said, errors = self.reload(tls="{ca: /nowhere/ca.pem, cert: /nowhere/n1.pem, key: /nowhere/key.pem}",
                                         services=Settings.services({"other": "127.0.0.1:80"}))
        line = list(self.settings.parts).index("tls") + 1
        self.assertEqual((code, said, errors), (67, [], [
            f"meshcat: {self.settings.path}:{line}:{column}: tls.{key}: /nowhere/{file}.pem: No such file or directory"
            for column, key, file in ((11, "ca", "ca"), (34, "cert", "n1"), (56, "key", "key"))]))
        for error in errors:
            self.assertIn(f"error [daemon] {error.removeprefix('meshcat: ')}\n", self.log())
        self.assertEqual(self.names(), {"web"})
        code, said, errors = self.reload(tls="")
        self.assertEqual((code, said, errors), (0, ["services: 1 more (other), 1 less (web)"], []))

    def test_a_pipe_is_read_once(self):
        """What is read of it again would be nothing, or never come."""
        pipe = self.mesh.dir / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=lambda: pipe.write_text(self.settings.path.read_text()))
        writer.start()
        self.addCleanup(writer.join)
        self.n1.env["MESHD_CONFIG"] = pipe
        self.n1.start()
        why = "the file of settings is a pipe, which cannot be read again"
        self.assertEqual(self.reload(), (67, [], [f"meshcat: {why}"]))
        self.n1.signal(signal.SIGHUP)
        until("it is told", lambda: self.log().count(f"error [daemon] {why}\n") == 2)
        self.assertEqual(self.names(), {"web"})

    def test_services_that_leases_leave_no_room_for_change_nothing_else_either(self):
        self.settings.write(limits="{services_per_peer: 3}")
        self.n1.start()
        for name in "x", "y":
            self.n1.local("offer", name, "127.0.0.1:1")
        code, _, errors = self.reload(limits="{services_per_peer: 3, leases: 9}", services=Settings.services(
            {"a": "127.0.0.1:80", "b": "127.0.0.1:80"}))
        self.assertEqual(code, 67)
        self.assertIn("services: more than services_per_peer or services_total lets in", errors[0])
        self.assertEqual(self.names(), {"web", "x", "y"})
        self.assertEqual(self.limit("leases"), 10000)
        self.assertEqual(self.reload(limits="{services_per_peer: 4}")[0], 0)
        self.assertEqual(self.names(), {"a", "b", "x", "y"})


class Often(ReloadTest):
    HUP = 1 << (signal.SIGHUP - 1)
    NOTHING = "the settings were read again; changes in force: 0"

    def told(self, text):
        return self.log().count(f"info [daemon] {text}")

    def taken(self):
        status = (Path("/proc") / str(self.n1.process.pid) / "status").read_text()
        return not int(next(line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd")), 16) & self.HUP

    def test_signals_that_come_while_the_settings_are_read_are_one_more_reading(self):
        self.n1.start()
        fifo = self.mesh.dir / "fifo"
        os.mkfifo(fifo)
        fifo.rename(self.settings.path)  # whose reading takes until somebody writes
        self.n1.signal(signal.SIGHUP)
        until("it is read", lambda: self.told("signal 1: ") == 1)
        for _ in range(20):
            self.n1.signal(signal.SIGHUP)
            until("the signal has come", self.taken)
        with open(self.settings.path, "w", encoding="ascii") as writer:
            writer.write("services: [{name: first, backend: '127.0.0.1:80'}]\n")
            self.settings.write(services=Settings.services({"second": "127.0.0.1:80"}))
        until("the second is read", lambda: self.names() == {"second"})
        self.n1.info()  # which the main loop answers when it has told all
        self.assertEqual((self.told("signal 1: "), self.told("services: ")), (2, 2))

    def test_what_changes_nothing_is_told_so_many_times_and_no_more(self):
        """Nor is what waits for the next start."""
        self.n1.start()
        self.settings.write(timing="{dial_timeout: 3s}")
        with Asker(load(self.mesh.dir), self.n1, local=True) as asker:
            begun = time.monotonic()
            for _ in range(230):
                self.assertEqual(asker.ask("Reload", asker.pb.ReloadRequest(), asker.pb.ReloadReply)[0], 0)
            took = time.monotonic() - begun
        self.assertGreaterEqual(self.told(self.NOTHING), 200)
        if took < 10:  # else some are told again
            self.assertEqual((self.told(self.NOTHING), self.log().count("timing.dial_timeout changed")), (200, 200))
        code, said, _ = self.reload(services=Settings.services({"other": "127.0.0.1:80"}))
        self.assertEqual((code, said), (0, ["services: 1 more (other), 1 less (web)"]))
        self.assertEqual(self.told("services: 1 more (other), 1 less (web)"), 1)


class Check(MeshTest):
    def check(self, text):
        file = self.mesh.dir / "settings.yaml"
        file.write_text(text)
        done = subprocess.run([MESHD, "--check", file], env=clean_environment() | {"PEER_NAME": "n1"},
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    def test_scripts_learn_by_the_code_and_a_line_for_each_error(self):
        self.assertEqual(self.check("services: [{name: web, backend: '127.0.0.1:80'}]\n"),
                         (0, ["the settings are valid: node n1"], []))
        code, said, errors = self.check("limits:\n  leases: 0\nlog: {level: loud}\ncolour: red\n")
        self.assertEqual((code, said), (2, []))
        self.assertEqual([error.split(": ")[0].rsplit("/", 1)[-1] for error in errors],
                         ["settings.yaml:2:11", "settings.yaml:3:14", "settings.yaml:4:1"])
        code, said, errors = self.check("tls: {ca: /nowhere, cert: /nowhere, key: /nowhere}\nlog: {level: x}\n")
        self.assertEqual((code, said, len(errors)), (2, [], 4))
        for error, place, key in zip(errors[1:], ("1:11", "1:27", "1:42"), ("ca", "cert", "key")):
            self.assertTrue(error.endswith(f":{place}: tls.{key}: /nowhere: No such file or directory"), error)

    def test_how_openssl_is_set_up_matters_only_with_tls(self):
        broken = self.mesh.dir / "openssl.cnf"
        broken.write_text("openssl_conf = a\n[a]\nproviders = b\n[b]\nnull = c\n[c]\nactivate = 1\n")
        settings = clean_environment() | {"PEER_NAME": "n1", "OPENSSL_CONF": str(broken)}
        done = subprocess.run([MESHD, "--check"], env=settings, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "the settings are valid: node n1\n", ""))
        ca = Authority(self.mesh.dir / "ca")
        leaf = ca.issue("n1")
        settings |= {"PEER_TLS_CA": ca.cert, "PEER_TLS_CERT": leaf.cert, "PEER_TLS_KEY": leaf.key}
        done = subprocess.run([MESHD, "--check"], env=settings, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, "^environment PEER_TLS_CERT: OpenSSL cannot do TLS 1.3 as it is set up on this "
                                      "host: .+\n$")

    def test_what_cannot_be_written_is_no_success(self):
        file = self.mesh.dir / "settings.yaml"
        file.write_text("peer_name: n1\n")
        for action in ("--help", "--version", "--print-config", "--check"):
            with open("/dev/full", "wb") as full:
                done = subprocess.run([MESHD, "-c", file, action], env=clean_environment(), stdout=full,
                                      stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
            self.assertEqual((done.returncode, done.stderr), (1, "standard output: No space left on device\n"), action)

    def test_a_start_says_as_much_and_is_worth_another_try_once_the_files_are_there(self):
        file = self.mesh.dir / "settings.yaml"
        for text, code, n in (("", 1, 3), ("log: {level: x}\n", 2, 4)):
            file.write_text("tls: {ca: /nowhere, cert: /nowhere, key: /nowhere}\n" + text)
            done = subprocess.run([MESHD, "-c", file], env=clean_environment() | {
                "PEER_NAME": "n1", "PEER_TLS_KEY": "/no/key", "RUNTIME_DIRECTORY": self.mesh.dir},
                capture_output=True, text=True, stdin=subprocess.DEVNULL)
            errors = done.stderr.splitlines()
            self.assertEqual((done.returncode, len(errors)), (code, n), errors)
            self.assertIn(f"{file}:1:11: tls.ca: /nowhere: No such file or directory", errors)
            self.assertIn("environment PEER_TLS_KEY: /no/key: No such file or directory", errors)


class Slower(Stream):
    pause = 0.01


class Thousand(forwarding.ForwardTest):
    """n2 dials n1, whose settings change again and again; n1 dials n3 or does not. Clients of both
    go through local ones and both ways through the other node."""

    NAMES = [f"s{i}" for i in range(12)]
    FRIENDS = ("[{rule: friends, peers: [n2, '@local', '@anonymous'], link: true, register: '*', forward: '*',"
               " lookup: true, introspect: true, offer: '*'}]")
    BROKEN = ("services: [\n", "colour: red\n", "limits: {leases: 0}\n", "policy: [{rule: x}]\n", None)

    def net(self, n):
        return f"{self.mesh.net}.{n}"

    def begin(self):
        self.pb = load(self.mesh.dir)
        self.file = self.mesh.dir / "n1.yaml"
        self.manager = Manager(self, "@" + self.mesh.net)
        self.one, self.two = Backend(self), Backend(self)
        self.web = Backend(self)
        self.keeps_alive(self.web)
        self.n3 = self.mesh.node("n3", services=["three:127.0.0.1:9"], MESHD_CONFIG=None).start()
        self.choose(quiet=True)
        self.n1 = self.mesh.node("n1", SERVICE_ADDR=None, REMOTE_PEER_ADDR=None, MESHD_CONFIG=self.file,
                                 NOTIFY_SOCKET=self.manager.name, INGRESS_ADDR=self.ingress(1, "one", "two")).start()
        self.n2 = self.mesh.node("n2", services=[f"two:{self.two.address}"],
                                 peers=[] if self.n1_dials else [self.n1],
                                 INGRESS_ADDR=self.ingress(2, "one", "two")).start()
        self.manager.until("READY")
        until("n1 and n2 are linked", lambda: f"one@{self.n1.host}" in self.n2.reachable() and any(
            row["name"] == "two" for row in self.n1.reachable().values()))
        self.asker = self.enter(Asker(self.pb, self.n1, local=True))
        self.session = self.link()["session_id"]

    def enter(self, context):
        self.addCleanup(context.__exit__, None, None, None)
        return context.__enter__()

    @staticmethod
    def keeps_alive(backend):
        """Answers request after request of each connection."""
        def serve(sock):
            with sock, contextlib.suppress(OSError):
                got = b""
                while part := sock.recv(65536):
                    got += part
                    while b"\r\n\r\n" in got:
                        got = got.partition(b"\r\n\r\n")[2]
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nweb")

        def run():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=[backend.accept()], daemon=True).start()
        backend.sock.settimeout(None)
        threading.Thread(target=run, daemon=True).start()

    def spare(self, count):
        """The sockets of links and calls that are over as well: they rest, and are used again."""
        return super().spare(count) + count["ports_pair_sockets"] + count["ports_req_sockets"]

    # --- the settings ---

    def choose(self, quiet=False):
        """Other settings that will do, in the file and in self.now; quiet: few, and without n3."""
        pick = self.random
        names = pick.sample(self.NAMES, pick.randrange(len(self.NAMES)))
        services = {name: f"127.0.0.1:{pick.randrange(1, 4)}" for name in names}
        services |= {"one": self.one.address, "web": self.web.address}
        friends = pick.random() < 0.3
        with_n3 = not quiet and pick.random() < 0.5
        self.now = services, with_n3 and not friends
        peers = [f"{{address: '{self.n3.host}:{self.n3.port}'}}"] if with_n3 else []
        if self.n1_dials:
            peers.append(f"{{address: '{self.net(2)}:{PORT}'{pick.choice(('', ', id: n2'))}}}")
        pick.shuffle(peers)
        limits = {"leases": pick.randrange(1, 100), "watchers": pick.randrange(1, 50),
                  "ingress_connections": pick.choice((1, 10, 1000)), "forwards_per_service": pick.choice((1, 1000)),
                  "forwards_pending": pick.choice((1, 1000)), "services_per_peer": pick.choice((14, 1000)),
                  "services_total": pick.choice((16, 1000)), "connections_per_source": pick.choice((1, 256)),
                  "pinned_snapshots": pick.choice((1, 16)),
                  "requests_in_flight": pick.choice((1, 64)), "data_warm_per_link": pick.choice((0, 3)),
                  "half_open": pick.choice((8, 4096))}
        limits = dict(pick.sample(sorted(limits.items()), 0 if quiet else pick.randrange(len(limits))))
        # Always as small, so that what is remembered of changes does not grow with their number.
        limits |= {"tombstones": pick.choice((16, 100)), "watch_log_bytes": "64KiB"}
        self.write({
            "services": Settings.services(services), "peers": listed(peers),
            "policy": self.FRIENDS if friends else "",
            "limits": "{" + ", ".join(f"{key}: {value}" for key, value in limits.items()) + "}",
            "log": f"{{level: {pick.choice(('error', 'info', 'debug'))}, maps: {pick.choice(('full', 'off'))}}}",
            "timing": pick.choice(("", "{dial_timeout: 4s}"))})

    def write(self, parts):
        fresh = self.file.with_suffix(".new")
        fresh.write_text("".join(f"{key}: {text}\n" for key, text in parts.items() if text))
        fresh.rename(self.file)

    def spoil(self):
        text = self.random.choice(self.BROKEN)
        if text is None:
            self.file.unlink(missing_ok=True)
        else:
            self.file.write_text(text)

    def reload(self, good):
        if self.random.random() < 0.5:
            self.n1.signal(signal.SIGHUP)
        else:
            status, _, reply = self.asker.ask("Reload", self.pb.ReloadRequest(), self.pb.ReloadReply)
            self.assertEqual(status, 0 if good else INVALID_ARGUMENT, reply)
            self.assertEqual(bool(reply.errors), not good)
        self.manager.until("RELOADING")
        self.manager.until("READY")

    # --- those who must not notice ---

    def requests(self):
        """One request after the other on one connection through both nodes, until self.over."""
        client = http.client.HTTPConnection(self.n2.host, AUTO, timeout=SECONDS)
        try:
            while not self.over.wait(0.005):
                client.request("GET", "/", headers={"Host": "web"})
                reply = client.getresponse()
                self.answers.append((reply.status, reply.read()))
                if client.sock is not self.first_sock(client):
                    raise AssertionError("another connection")
        except Exception as error:
            self.answers.append(error)
        client.close()

    def first_sock(self, client):
        self.client_sock = getattr(self, "client_sock", client.sock)
        return self.client_sock

    def told(self, rows):
        return {(row.name, row.backend_addr) for row in rows.values() if row.peer_id == "n1"}

    def settled(self, watches):
        """Everybody has seen what stands in the last file that would do."""
        services, n3 = self.now
        for watch in watches:
            watch.until(lambda w=watch: self.told(w.rows) == set(services.items()))
        until("n3 is known or not", lambda: ("n3" in {p["peer_id"] for p in self.peers()}) == n3)
        self.assertEqual(self.link()["session_id"], self.session)

    def peers(self):
        return json.loads(self.n1.local("introspect", "--format", "json", check=False).stdout)["peer_services"]

    def link(self):
        links = json.loads(self.n1.local("node", "--format", "json").stdout)["node"]["links"]
        return next(row for row in links if row["peer_id"] == "n2")

    def test_a_thousand_reloads_of_a_node_that_is_dialled(self):
        self.thousand(n1_dials=False)

    def test_a_thousand_reloads_of_a_node_that_dials(self):
        self.thousand(n1_dials=True)

    def thousand(self, n1_dials):
        self.n1_dials = n1_dials
        self.begin()
        for way in self.ALL.values():  # what a first use allocates is no leak
            flow = self.flow(way, "port")
            self.passes(flow)
            flow.client.close()
            flow.backend.close()
        self.count_descriptors()
        streams = [Slower(self, self.flow(way, "port")) for way in self.ALL.values()]
        watches = [self.enter(Watch(self.pb, node).until_synced()) for node in (self.n1, self.n2)]
        self.over, self.answers = threading.Event(), []
        client = threading.Thread(target=self.requests, daemon=True)
        client.start()
        until("there are answers", lambda: self.answers)
        before = None
        for n in range(ROUNDS):
            good = self.random.random() < 0.9
            if good:
                self.choose()
            else:
                self.spoil()
            self.reload(good)
            if n % 25 == 24:
                self.settled(watches)
                seen = [s.n for s in streams], len(self.answers)
                until("all go on", lambda: all(s.n > n or s.error for s, n in zip(streams, seen[0])) and
                      len(self.answers) > seen[1])
            if n == ROUNDS // 5:
                before = memory_kib(self.n1)
        after = memory_kib(self.n1)
        self.choose(quiet=True)
        self.reload(True)
        self.settled(watches)
        self.over.set()
        client.join()
        for stream in streams:
            self.assertTrue(stream.close(), stream.error)
        self.assertEqual({a for a in self.answers if isinstance(a, tuple)}, set(self.answers))
        self.assertEqual(set(self.answers), {(200, b"web")})
        if SLOW == 1:
            self.assertLess(after, before + 2048, "KiB of its own")
        for watch in watches:
            watch.socket.close()
        self.assert_same_descriptors()
        self.n1.signal(signal.SIGTERM)  # in order: a sanitizer has a look at what is left
        self.assertEqual(self.n1.ended(), 0)
        print(f"{ROUNDS} reloads, {sum(s.n for s in streams) >> 20} MiB, {len(self.answers)} answers,"
              f" {before} KiB and {after} KiB")


del ReloadTest, MeshTest
if __name__ == "__main__":
    main()
