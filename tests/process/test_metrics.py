#!/usr/bin/python3
"""/metrics, as the programs that will read it see it: promtool finds nothing wrong, prometheus
scrapes it, and whatever the dashboard and the alerts ask for is there. meshd-metrics(7) names it all.
"""
import errno
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request

from forwarding import AUTO, Backend, ForwardTest, ask, head_for, hello_for
from harness import PORT, SOURCE, MeshTest, _die_with_parent, clean_environment, main, until
from mtls import TrustTest
from rawpeer import RawPeer
from test_strangers import load

ADMIN = PORT + 70
PAGE = (SOURCE / "tools/man/meshd-metrics.7").read_text("utf-8")
MONITORING = SOURCE / "tools/monitoring"
SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)')
LABEL = re.compile(r'(\w+)="((?:[^"\\\n]|\\.)*)"')
# Metrics and what stands in their braces, in an expression.
SELECTOR = re.compile(r"\b(?:(?:meshd|process)_\w+|up)\b(?:\{[^}]*\})?")
OPEN_LABELS = {"peer", "version", "limit", "le"}  # whose values the page does not list
SUFFIXES = ("_bucket", "_sum", "_count")


def fetch(node):
    """The text of a scrape."""
    connection = http.client.HTTPConnection(node.host, ADMIN, timeout=10)
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain;version=0.0.4"})
        answer = connection.getresponse()
        text = answer.read().decode("utf-8")
        if answer.status != 200 or not answer.getheader("Content-Type").startswith("text/plain; version=0.0.4"):
            raise AssertionError(f"{answer.status} {answer.getheader('Content-Type')}\n{text}")
        return text
    finally:
        connection.close()


class Scrape:
    """type_of each family; the samples: name and labels, as a set of pairs, to value."""

    def __init__(self, text):
        self.type_of, self.samples, family = {}, {}, None
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                family, kind = line.split()[2:]
                if family in self.type_of:
                    raise AssertionError(f"{family} comes twice")
                self.type_of[family] = kind
            elif not line.startswith("#"):
                name, labels, value = SAMPLE.fullmatch(line).groups()
                key = name, frozenset(LABEL.findall(labels or ""))
                if self.family_of(name) != family or key in self.samples:
                    raise AssertionError(f"out of place, or twice: {line}")
                self.samples[key] = float(value)

    def family_of(self, name):
        base = next((name[:-len(s)] for s in SUFFIXES if name.endswith(s)), name)
        return base if self.type_of.get(base) == "histogram" else name

    def get(self, name, **labels):
        return self.samples[name, frozenset(labels.items())]

    def by(self, name, label):
        """A family's samples by the one label they have."""
        return {dict(labels)[label]: value for (n, labels), value in self.samples.items() if n == name}

    def labels(self):
        """Of each family: its labels, and the values of each."""
        found = {family: {} for family in self.type_of}
        for name, labels in self.samples:
            for label, value in labels:
                found[self.family_of(name)].setdefault(label, set()).add(value)
        return found


def scrape(node):
    return Scrape(fetch(node))


def page_items():
    """Each family of the page: its type, its labels, the text below it."""
    parts = re.split(r"^\.It Ic (\S+) Em (\w+)((?: Cm \w+)*)$", PAGE.split("\n.Sh EXAMPLES")[0], flags=re.M)[1:]
    return {name: (kind, set(labels.split()) - {"Cm"}, text) for name, kind, labels, text in
            zip(parts[::4], parts[1::4], parts[2::4], parts[3::4])}


def run(*argv, **more):
    return subprocess.run(list(map(str, argv)), capture_output=True, text=True, env=clean_environment(),
                          preexec_fn=_die_with_parent, timeout=60, **more)


class MetricsTest(TrustTest):
    """Two nodes with TLS, and clients of all kinds."""

    def setUp(self):
        super().setUp()
        self.set(heartbeat="1s", peer_timeout="4s")

    def pair(self):
        self.one = Backend(self).serve(b"one")
        self.n1 = self.mesh.node("n1", crl=True, services=[f"one:{self.one.address}"],
                                 INGRESS_ADDR=self.ingress(1), ADMIN_ADDR=f"{self.mesh.net}.1:{ADMIN}").start()
        self.n2 = self.mesh.node("n2", crl=True, services=["nobody:127.0.0.1:9"], peers=[self.n1],
                                 INGRESS_ADDR=self.ingress(2), ADMIN_ADDR=f"{self.mesh.net}.2:{ADMIN}").start()
        self.mesh.until_agreed()

    def traffic(self):
        for node in (self.n1, self.n2):
            self.assertEqual(ask(self.connect(node), head_for("one")).body, b"one")
            self.assertEqual(ask(self.connect(node), head_for("unheard-of")).status, 404)
        self.assertEqual(ask(self.connect(self.n1), head_for("nobody")).status, 502)


class Format(MetricsTest):
    def test_promtool_finds_nothing_and_the_page_has_every_family_with_its_labels(self):
        self.pair()
        self.traffic()
        until("the ways are measured", lambda: scrape(self.n1).by("meshd_peer_rtt_seconds", "peer"))
        text = fetch(self.n1)
        done = run("promtool", "check", "metrics", input=text)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        seen, page = Scrape(text), page_items()
        self.assertEqual({name: kind for name, (kind, _, _) in page.items()}, seen.type_of)
        for family, labels in seen.labels().items():
            _, said, below = page[family]
            self.assertEqual(set(labels) - {"le"}, said, family)
            for label in set(labels) - OPEN_LABELS:
                for value in labels[label]:
                    self.assertRegex(below, rf"(?m)^\.(It )?Cm {re.escape(value)}\b", f"{family}, {label}")
            for name in labels.get("limit", ()):
                self.assertIn(f"--limit {name}=", run(os.environ["MESHD"], "--help").stdout)
            self.assertLessEqual(labels.get("peer", set()), {"n1", "n2"})

    def test_the_page_knows_the_ancestors_names_and_only_ours_that_are(self):
        ours = page_items()
        table = PAGE.split(".Sh COMPATIBILITY")[1]
        for name in re.findall(r"meshd_\w+", table):
            self.assertIn(name, ours)
        names, reasons = table.split("The reasons of")
        self.assertGreaterEqual(len(re.findall(r"^\.It Li", names, re.M)), 25)
        self.assertEqual(len(re.findall(r"^\.It Li", reasons, re.M)), 16)
        for word in re.findall(r"^\.Li ([a-z_]+)(?: ,)?$", reasons, re.M):
            if word != "proxy_errors_total":
                self.assertRegex(ours["meshd_forward_ends_total"][2], rf"(?m)^\.It Cm {word}$")


class Figures(MetricsTest):
    def test_what_is_counted_is_what_happened(self):
        self.pair()
        before = scrape(self.n1)
        ends = before.by("meshd_forward_ends_total", "reason")
        self.assertEqual(set(ends.values()), {0}, "all reasons, from the start")
        self.assertEqual(set(ends), {name[len("forward_end_"):] for name in self.n1.counters()
                                     if name.startswith("forward_end_")})
        self.traffic()
        client = self.connect(self.n1)
        client.sendall(hello_for("unheard-of"))
        client.recv(1000)
        client.close()
        now = until("each client has one end", lambda: (s := scrape(self.n1)).get("meshd_forward_clients") == 0 and s)
        ends = now.by("meshd_forward_ends_total", "reason")
        self.assertEqual({k: v for k, v in ends.items() if v},
                         {"done": 1, "no_such_name": 2, "backend_refused": 1})
        self.assertEqual(now.by("meshd_forward_accepted_total", "kind") |
                         {"http": 3, "tls": 1}, now.by("meshd_forward_accepted_total", "kind"))
        self.assertEqual(now.get("meshd_forward_clients_total"), 4)
        self.assertEqual(now.get("meshd_forward_joined_total", way="local"), 1)
        self.assertEqual(scrape(self.n2).get("meshd_forward_joined_total", way="peer"), 1)
        self.assertEqual(scrape(self.n2).get("meshd_forward_refused_total"), 1)
        self.assertGreater(now.get("meshd_forward_bytes_total", direction="down"), 30)
        for phase in ("name", "connect", "open"):
            count = now.get("meshd_forward_phase_seconds_count", phase=phase)
            self.assertEqual(now.get("meshd_forward_phase_seconds_bucket", phase=phase, le="+Inf"), count)
            self.assertEqual(count > 0, now.get("meshd_forward_phase_seconds_sum", phase=phase) > 0)
        self.assertEqual(now.get("meshd_forward_phase_seconds_count", phase="name"), 4)

    def crowd(self, node, n):
        """Clients, of whom one may be reset before it knows that it is connected."""
        clients = [socket.socket() for _ in range(n)]
        for client in clients:
            self.addCleanup(client.close)
            client.setblocking(False)
            self.assertIn(client.connect_ex((node.host, AUTO)), (0, errno.EINPROGRESS))
        return clients

    def test_every_client_is_counted_once_over_a_limit_and_out_of_descriptors(self):
        n1 = self.mesh.node("n1", INGRESS_ADDR=self.ingress(1), ADMIN_ADDR=f"{self.mesh.net}.1:{ADMIN}")
        n1.flags += ["--limit", "ingress_per_source=20"]
        n1.start()
        closed = lambda s: s.by("meshd_forward_closed_total", "reason")
        ends = lambda s: sum(s.by("meshd_forward_ends_total", "reason").values())

        def is_all(now, n):
            return now.get("meshd_forward_clients_total") == n == \
                now.get("meshd_forward_clients") + ends(now) + sum(closed(now).values())

        crowd = self.crowd(n1, 30)
        until("those above the limit are turned away", lambda: closed(scrape(n1))["over_limit"] == 10)
        self.assertTrue(is_all(scrape(n1), 30))


        def told():
            """At one time or, on a busy machine, at more."""
            lines = re.findall(r"(?m)^warn \[forward\] (\d+) clients? w[a-z]+ reset before a word: over a limit;"
                               r".* ingress_per_source 20 of 20", n1.err.read_text())
            return sum(map(int, lines)) == 10
        until("it is told", told)
        for client in crowd:
            client.close()
        until("they have ended", lambda: (s := scrape(n1)).get("meshd_forward_clients") == 0 and ends(s) == 20)

        soft, hard = resource.prlimit(n1.process.pid, resource.RLIMIT_NOFILE)
        few = n1.descriptors() + 2
        resource.prlimit(n1.process.pid, resource.RLIMIT_NOFILE, (few, hard))
        crowd = self.crowd(n1, 16)  # more than what is free, also when the node lets go of some
        until("one of them is reset", lambda: any(
            client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET for client in crowd))
        resource.prlimit(n1.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        now = until("all are counted", lambda: is_all(s := scrape(n1), 46) and s)
        self.assertGreater(closed(now)["no_descriptor"], 0)
        for client in crowd:
            client.close()
        until("they have ended, too", lambda: is_all(s := scrape(n1), 46) and s.get("meshd_forward_clients") == 0)
        n1.signal(signal.SIGTERM)
        self.assertEqual(n1.ended(), 0)
        self.assertRegex(n1.err.read_text(), r"(?m)^warn \[forward\] \d+ clients were reset before a word: of \d+ descriptors")

    def test_the_mesh_is_shown_as_it_is(self):
        self.pair()
        now = scrape(self.n1)
        self.assertEqual(now.get("meshd_services", source="local", state="connected"), 1)
        self.assertEqual(now.get("meshd_services", source="remote", state="connected"), 1)
        self.assertEqual(now.by("meshd_peer_connected", "peer"), {"n2": 1})
        self.assertEqual(now.by("meshd_peer_services", "peer"), {"n2": 1})
        self.assertEqual(now.get("meshd_links", state="live"), 1)
        self.assertEqual((now.get("meshd_ready"), now.get("meshd_draining")), (1, 0))
        self.assertEqual((now.get("meshd_heartbeat_seconds"), now.get("meshd_peer_timeout_seconds")), (1, 4))
        self.assertGreaterEqual(now.get("meshd_tls_handshakes_total"), 1)
        self.assertAlmostEqual(now.get("meshd_tls_certificate_not_after_seconds"),
                               self.n1.info()["tls"]["not_after"])
        until("the way is measured at both ends",
              lambda: all(0 < s < 1 for n, p in ((self.n1, "n2"), (self.n2, "n1"))
                          for s in [scrape(n).by("meshd_peer_rtt_seconds", "peer").get(p, 0)]))
        self.n2.local("offer", "later", "127.0.0.1:1")
        now = until("it is visible, and how soon was measured",
                    lambda: (s := scrape(self.n1)).get("meshd_change_visibility_seconds_count") == 1 and s)
        self.assertLess(now.get("meshd_change_visibility_seconds_sum"), 10)
        self.assertEqual(now.by("meshd_peer_services", "peer"), {"n2": 2})
        self.n2.kill()
        now = until("its peer is stale", lambda: (s := scrape(self.n1)).get("meshd_peers", state="stale") == 1 and s)
        self.assertEqual(now.get("meshd_services", source="remote", state="stale"), 2)
        self.assertEqual(now.by("meshd_peer_connected", "peer"), {"n2": 0})
        until("it grows stale", lambda: scrape(self.n1).by("meshd_peer_staleness_seconds", "peer").get("n2", 0) >= 1)
        until("it goes, with its series", lambda: not scrape(self.n1).by("meshd_peer_connected", "peer"))

    def test_a_configured_peer_that_was_never_live_is_counted_until_it_is(self):
        start = lambda n, *peers: self.mesh.node(f"n{n}", peers=peers, ADMIN_ADDR=f"{self.mesh.net}.{n}:{ADMIN}").start()
        never_live = lambda: scrape(n2).get("meshd_peers_never_live")
        n2 = start(2, f"{self.mesh.net}.1:{PORT}", f"{self.mesh.net}.3:{PORT}")
        self.assertEqual((never_live(), scrape(n2).get("meshd_ready")), (2, 0))
        n1 = start(1)
        until("one of them is live", lambda: never_live() == 1)
        n1.kill()
        until("it is gone", lambda: scrape(n2).get("meshd_links", state="live") == 0)
        self.assertEqual(never_live(), 1, "it was live once")

    def test_settings_that_were_refused_or_wait_are_seen(self):
        file = self.mesh.dir / "n1.yaml"
        file.write_text("log: {level: info}\n")
        n1 = self.mesh.node("n1", MESHD_CONFIG=file, ADMIN_ADDR=f"{self.mesh.net}.1:{ADMIN}").start()
        start = scrape(n1).get("meshd_config_last_reload_success_timestamp_seconds")
        for text, outcome, ok, waiting in (("log: {level: loud}", "refused", 0, 0),
                                           ("timing: {dial_timeout: 3s}", "taken", 1, 1), ("", "taken", 1, 0)):
            file.write_text(text)
            before = scrape(n1).get("meshd_config_reloads_total", outcome=outcome)
            n1.local("reload", check=False)
            now = scrape(n1)
            self.assertEqual(now.get("meshd_config_reloads_total", outcome=outcome), before + 1)
            self.assertEqual((now.get("meshd_config_last_reload_successful"),
                              now.get("meshd_config_settings_waiting")), (ok, waiting), text)
        self.assertGreaterEqual(now.get("meshd_config_last_reload_success_timestamp_seconds"), start)

    def test_a_backend_that_does_not_answer_is_seen_at_both_ends(self):
        self.pair()
        self.n1.local("offer", "sick", "127.0.0.1:9", "--check", "tcp", "--check-interval", "0.1")
        self.n1.local("drain", "one")
        of = lambda node, source: (lambda s: [s.get("meshd_services", source=source, state=state)
                                              for state in ("connected", "unhealthy", "draining")])(scrape(node))
        until("n1 shows its own", lambda: of(self.n1, "local") == [0, 1, 1])
        until("n2 shows them", lambda: of(self.n2, "remote") == [0, 1, 1])
        now = scrape(self.n1)
        self.assertEqual((now.get("meshd_backends_unhealthy"), now.get("meshd_services_draining")), (1, 1))
        self.assertGreaterEqual(now.get("meshd_backend_checks_failed_total"), 1)
        self.assertEqual(now.by("meshd_backend_changes_total", "to"), {"unhealthy": 1, "healthy": 0})
        self.n1.local("drain", "sick")  # to be worked on, say: nobody need be told that it does not answer
        until("n1 shows it as draining", lambda: of(self.n1, "local") == [0, 0, 2])
        until("so does n2", lambda: of(self.n2, "remote") == [0, 0, 2])
        self.assertEqual(scrape(self.n1).get("meshd_backends_unhealthy"), 1)

    def test_the_process_is_shown_as_the_kernel_has_it(self):
        self.pair()
        now = scrape(self.n1)
        self.assertAlmostEqual(now.get("process_open_fds"), self.n1.descriptors(), delta=8)
        self.assertAlmostEqual(now.get("process_resident_memory_bytes") / 1024, self.n1.rss_kib(),
                               delta=self.n1.rss_kib() / 4)
        self.assertGreater(now.get("process_max_fds"), now.get("process_open_fds"))
        self.assertGreater(now.get("process_cpu_seconds_total"), 0)
        self.assertEqual(now.get("process_start_time_seconds"), self.n1.info()["started"])


class ManyPeers(ForwardTest):
    def test_above_a_thousand_peers_are_counted_and_not_shown(self):
        pb = load(self.mesh.dir)
        self.set(peer_timeout="60s")
        n1 = self.mesh.node("n1", LOG_MAPS="off", LOG_LEVEL="warn",
                            ADMIN_ADDR=f"{self.mesh.net}.1:{ADMIN}").start()
        for i in range(1050):
            peer = RawPeer(self, pb, n1, f"p{i}", 2)
            status, _ = peer.call("RegisterServices", pb.RegisterRequest(
                peer_id=peer.name, incarnation=1, version=1, wire_version_min=1, wire_version_max=1))
            self.assertEqual(status, 0)
        now = scrape(n1)
        self.assertEqual(now.get("meshd_peers", state="unconnected"), 1050)
        self.assertEqual(now.get("meshd_peers_not_shown"), 50)
        shown = now.by("meshd_peer_connected", "peer")
        self.assertEqual(len(shown), 1000)
        self.assertEqual(set(shown), set(scrape(n1).by("meshd_peer_services", "peer")), "the same each time")


class Rules(MeshTest):
    def test_promtool_takes_the_alerts_and_they_say_what_they_should(self):
        for argv in (["check", "rules", MONITORING / "alerts.yml"],
                     ["test", "rules", SOURCE / "tests/monitoring/alerts_test.yml"]):
            done = run("promtool", *argv)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        alerts = set(re.findall(r"- alert: (\w+)", (MONITORING / "alerts.yml").read_text("utf-8")))
        tested = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:",
                                (SOURCE / "tests/monitoring/alerts_test.yml").read_text("utf-8")))
        self.assertEqual(alerts, tested)


    def test_no_panel_of_the_dashboard_covers_another(self):
        panels = json.loads((MONITORING / "grafana-dashboard.json").read_text("utf-8"))["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken = set()
        for panel in panels:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            taken |= cells


class Prometheus(MetricsTest):
    def setUp(self):
        super().setUp()
        self.set(peer_timeout="30s")  # a machine that stands still for a while makes no peer stale

    def start_prometheus(self):
        folder = self.mesh.dir / "prometheus"
        folder.mkdir()
        shutil.copy(MONITORING / "alerts.yml", folder)
        (folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "meshd", "static_configs": [
                {"targets": [f"{n.host}:{ADMIN}" for n in (self.n1, self.n2)]}]}]}))
        self.prometheus = f"{self.mesh.net}.250:9090"
        log = open(folder / "log", "wb")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={self.prometheus}", "--log.level=warn"], env=clean_environment(),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        until("prometheus answers", lambda: self.api("status/buildinfo"), 20)

    def api(self, path, **arguments):
        url = f"http://{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # not yet
                return None
            raise AssertionError(f"{path} {arguments}: {error.read().decode()}") from None
        except OSError:
            return None

    def query(self, expression):
        return self.api("query", query=expression)["result"]

    def test_every_query_of_the_dashboard_and_of_the_alerts_finds_its_series(self):
        self.pair()
        until("the ways are measured", lambda: all(
            scrape(n).by("meshd_peer_rtt_seconds", "peer") for n in (self.n1, self.n2)))
        self.start_prometheus()
        until("both nodes are up", lambda: len(self.query("up == 1")) == 2)
        self.traffic()
        self.n2.local("offer", "later", "127.0.0.1:1")
        until("clients were counted between two scrapes",
              lambda: self.query('sum(increase(meshd_forward_ends_total[10s])) > 0'))

        dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text("utf-8"))
        asked = []
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"]
                for variable, value in (("$job", "meshd"), ("$instance", ".*"), ("$__rate_interval", "10s")):
                    expression = expression.replace(variable, value)
                self.assertNotIn("$", expression)
                asked.append((panel["title"], expression))
        self.assertGreater(len(asked), 50)
        empty = [(title, expression) for title, expression in asked if not self.query(expression)]
        self.assertEqual(empty, [])
        for variable in dashboard["templating"]["list"][1:]:
            name, label = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable["definition"]).groups()
            self.assertTrue(all(label in row["metric"] for row in self.query(name)))

        rules = [rule for group in until("the rules were looked at", self.looked_at) for rule in group["rules"]]
        self.assertEqual([(r["name"], r["lastError"]) for r in rules if r["health"] != "ok"], [])
        self.assertEqual([r["name"] for r in rules if r["state"] == "firing"], [], "nothing is wrong")
        for rule in rules:  # which has no series, then: what it is made of has
            for selector in SELECTOR.findall(rule["query"]):
                self.assertTrue(self.query(selector), (rule["name"], selector))

    def looked_at(self):
        groups = self.api("rules")["groups"]
        return groups if all(r["health"] != "unknown" for g in groups for r in g["rules"]) else None


if __name__ == "__main__":
    if missing := [tool for tool in ("promtool", "prometheus") if not shutil.which(tool)]:
        print(f"skipped: without {' and '.join(missing)} (Debian package prometheus)", file=sys.stderr)
        sys.exit(77)
    main()
