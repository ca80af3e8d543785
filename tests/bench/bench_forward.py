#!/usr/bin/python3
"""bench_forward - clients carried to a backend by meshd, and by HAProxy in the same run.

  1 hop    client -> meshd, which has the service itself -> backend
           client -> haproxy                             -> backend
  2 hops   client -> meshd -> the owner, another meshd   -> backend
           client -> haproxy -> haproxy                  -> backend

Who is measured: haproxy (mode tcp, its defaults, but one thread, with which it needs the least
CPU); haproxy-splice (option splice-request and splice-response, tune.bufsize 262144, tune.pipesize
1048576: the best it does for bulk); meshd (the service by the request's Host); meshd-mapped (the
port mapped to the service: like HAProxy, it does not look at what is said); direct (no proxy). With
--tls: meshd, and meshd-tls, whose nodes have certificates, so that the way between them is TLS, only
over 2 hops, against each other.

  stream1, stream8  answers of 64 MiB one after the other on 1 and 8 connections: bytes for a second
                    of the proxies' CPU, and for a second
  ask               32 connections, one request after the other on each, answers of 1 KiB: requests
                    for a second, and for a second of the proxies' CPU
  dial              32 at once, each request on a connection of its own: the same of connections
  ask1, dial1       one at a time, everything on one CPU: the median of what a request, or a
                    connection with its request, takes more than without a proxy
  hold              connections that have nothing to say: the proxies' RssAnon for each at each hop

Everything runs on loopback: the backend on 127.0.0.1, the nodes on 127.0.0.2 and 127.0.0.3. CPU is
utime + stime of the proxies' processes over the whole measurement, in which all bytes that were
carried are counted. Who is compared takes turns within each repetition; figures are medians, with
the least and the most in brackets, and a ratio is the median of the ratios within the repetitions.

Timings are printed and never judged. The end is a failure if a measurement does not come about, a
connection fails, or bytes are missing; --quick runs all for a moment and compares every byte.
"""
import argparse
import contextlib
import ctypes
import json
import math
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

BUILD = pathlib.Path(__file__).resolve().parents[2] / "build-release"
HOST = "web.mesh.example"
NODES = ["127.0.0.2", "127.0.0.3"]  # by hop
BIG, SMALL = 64 << 20, 1024  # bytes of an answer
READY_S, END_S = 10.0, 10.0
NOISE = 0.1  # CPUs that others may use during a measurement; else it is made again, twice at most
TESTS = ["stream1", "stream8", "ask", "dial", "ask1", "dial1", "hold"]
TICKS = os.sysconf("SC_CLK_TCK")

_pause = threading.Event()  # never set
_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    pass


# ---- processes ----


class Processes:
    """What was started; ended and reaped by close()."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def start(self, name, *command, env=None, **files):
        def prepare():
            _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

        with open(self.folder / f"{name}.log", "ab") as log:
            files = {"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL, **files}
            process = subprocess.Popen([str(word) for word in command], env=env, preexec_fn=prepare, **files)
        self.running.append(process)
        return process

    def close(self):
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
        self.running = []


def family(pids):
    """These and all their descendants (nginx has a worker)."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(stat_of(name)[1]), []).append(int(name))
    found, todo = [], list(pids)
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def stat_of(pid):
    """The fields of /proc/PID/stat from `state` on."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_of(pids):
    return sum(int(ticks) for pid in pids for ticks in stat_of(pid)[11:13]) / TICKS


def memory_of(pids):
    """kB of RssAnon."""
    texts = (pathlib.Path(f"/proc/{pid}/status").read_text() for pid in pids)
    return sum(int(re.search(r"^RssAnon:\s+(\d+)", text, re.M)[1]) for text in texts)


def cpu_of_others():
    """Seconds of CPU that so far went to who is not of this benchmark: other processes of this
    machine, and other guests of its host."""
    user, nice, system, _, _, irq, softirq, steal = map(int, pathlib.Path("/proc/stat").read_text().split()[1:9])
    ours = sum(int(ticks) for pid in family([os.getpid()]) for ticks in stat_of(pid)[11:15])
    return (user + nice + system + irq + softirq + steal - ours) / TICKS


def pin(pids, cpus):
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), cpus)


def free_port(ip):
    with socket.socket() as s:
        s.bind((ip, 0))
        return s.getsockname()[1]


def wait_for(what, probe):
    deadline = time.monotonic() + READY_S
    while not probe():
        if time.monotonic() > deadline:
            raise Failed(f"not within {READY_S:.0f} s: {what}")
        _pause.wait(0.02)


def answers(address):
    """A request that goes there gets its answer."""
    try:
        with socket.create_connection(address, 1.0) as s:
            s.settimeout(1.0)
            s.sendall(f"GET /small HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            return s.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
    except OSError:
        return False


# ---- who is measured: each leaves an address to ask, and the pids of its proxies ----


class Subject:
    def __init__(self, folder):
        self.processes = Processes(folder)
        self.folder = folder
        self.address = None

    def ready(self):
        wait_for(f"{self.address} answers", lambda: answers(self.address))
        self.pids = family(p.pid for p in self.processes.running)

    def close(self):
        self.processes.close()


class Direct(Subject):
    def __init__(self, options, folder, backend, hops):
        super().__init__(folder)
        self.address = backend
        self.ready()


class Haproxy(Subject):
    splice = False

    def __init__(self, options, folder, backend, hops):
        super().__init__(folder)
        self.address = backend
        for ip in reversed(NODES[:hops]):
            port = free_port(ip)
            path = folder / f"haproxy-{ip}.cfg"
            path.write_text(self.settings(options, (ip, port), self.address))
            self.processes.start(f"haproxy-{ip}", options.haproxy, "-db", "-f", path)
            self.address = (ip, port)
            self.ready()

    def settings(self, options, at, to):
        lines = ["global"]
        if options.haproxy_threads:
            lines += [f"nbthread {options.haproxy_threads}"]
        if self.splice:
            lines += ["tune.bufsize 262144", "tune.pipesize 1048576"]
        lines += ["defaults", "mode tcp", "timeout connect 5s", "timeout client 600s", "timeout server 600s"]
        if self.splice:
            lines += ["option splice-request", "option splice-response"]
        lines += ["listen proxy", "bind %s:%d" % at, "server next %s:%d" % to]
        return "\n".join(lines) + "\n"


class HaproxySplice(Haproxy):
    splice = True


class Meshd(Subject):
    mapped = False

    def __init__(self, options, folder, backend, hops):
        super().__init__(folder)
        self.options = options
        ingress, owner = NODES[0], NODES[hops - 1]
        self.address = (ingress, free_port(ingress))
        mesh = {ip: f"{ip}:{free_port(ip)}" for ip in NODES[:hops]}
        dialler = owner if options.link == "owner" else ingress
        for ip in NODES[:hops]:
            env = {"PEER_BIND_ADDR": mesh[ip]}
            if ip == ingress:
                env["INGRESS_ADDR"] = "%s:%d" % self.address + (f"={HOST}" if self.mapped else "")
            if ip == owner:
                env["SERVICE_ADDR"] = f"{HOST}:%s:%d" % backend
            if ip == dialler and hops == 2:
                env["REMOTE_PEER_ADDR"] = mesh[owner if dialler == ingress else ingress]
            self.start(ip, env)
        self.ready()

    def start(self, ip, env):
        env = {
            **{k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR") or "SAN_OPTIONS" in k},
            "PEER_NAME": f"node-{ip}",
            "RUNTIME_DIRECTORY": str(self.folder / "run"),
            "LOG_LEVEL": "warn",
            "LOG_MAPS": "off",
            **env,
        }
        if self.options.cold:
            env["MESHD_CONFIG"] = str(self.folder / "meshd.yaml")
            (self.folder / "meshd.yaml").write_text("limits:\n  data_warm_per_link: 0\n")
        self.processes.start(f"meshd-{ip}", self.options.meshd, env=env)


class MeshdMapped(Meshd):
    mapped = True


class MeshdTls(Meshd):
    def start(self, ip, env):
        ca = self.folder / "ca"
        if not ca.exists():
            self.certify("init")
            self.certify("issue", *(f"node-{ip}" for ip in NODES))
        files = {"CA": "ca.pem", "CERT": f"node-{ip}.pem", "KEY": f"node-{ip}-key.pem"}
        super().start(ip, {**env, **{f"PEER_TLS_{what}": str(ca / name) for what, name in files.items()}})

    def certify(self, *words):
        done = subprocess.run([self.options.meshcat, "ca", *words, "--dir", self.folder / "ca"],
                              capture_output=True, text=True, timeout=READY_S)
        if done.returncode:
            raise Failed(f"meshcat ca {words[0]}: {done.stderr.strip()}")


SUBJECTS = {
    "direct": Direct,
    "haproxy": Haproxy,
    "haproxy-splice": HaproxySplice,
    "meshd": Meshd,
    "meshd-mapped": MeshdMapped,
    "meshd-tls": MeshdTls,
}


def subjects_of(test):
    """Who takes part, the one that ratios are against first."""
    if test.startswith("stream"):
        return ["haproxy-splice", "haproxy", "meshd", "meshd-tls"]
    if test == "hold":
        return ["haproxy", "meshd", "meshd-tls"]
    return ["haproxy", "meshd", "meshd-mapped", "meshd-tls"]


# ---- the backend ----


def nginx(processes, folder):
    address = ("127.0.0.1", free_port("127.0.0.1"))
    temporary = "".join(
        f"{kind}_temp_path {folder}/nginx-{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; user root;
events {{ worker_connections {resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 64}; }}
http {{ access_log off; sendfile on; tcp_nopush on; open_file_cache max=10; default_type text/plain;
  keepalive_requests 1000000000; keepalive_timeout 600s; {temporary}
  server {{ listen {address[0]}:{address[1]} backlog=4096; root {folder}/www; }} }}
"""
    )
    processes.start("nginx", "nginx", "-p", folder, "-c", path, "-e", folder / "nginx.err")
    return address


def own_backend(processes, options, folder):
    backend = processes.start("backend", options.programs / "forward_backend", folder / "www", "127.0.0.1",
                              stdout=subprocess.PIPE)
    return ("127.0.0.1", int(backend.stdout.readline()))


def write_files(folder):
    """Answers whose every 64 KiB differ, so that no piece fits in another's place."""
    folder.mkdir()
    block = random.Random(1).randbytes(65521)
    (folder / "big").write_bytes((block * (BIG // len(block) + 1))[:BIG])
    (folder / "small").write_bytes(block[:SMALL])


# ---- one measurement ----


class Bench:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.noise = 0.0
        self.opened = 0
        self.cpus = os.sched_getaffinity(0)
        write_files(folder / "www")
        self.backend_processes = Processes(folder)
        if options.backend == "nginx":
            self.backend = nginx(self.backend_processes, folder)
        else:
            self.backend = own_backend(self.backend_processes, options, folder)
        wait_for("the backend answers", lambda: answers(self.backend))

    def close(self):
        self.backend_processes.close()

    def load(self, kind, address, path, n, seconds):
        """The command of a client."""
        words = [self.options.programs / "forward_load", kind, *address, HOST, path, seconds, n]
        if self.options.quick:
            words.append(self.folder / "www" / path[1:])
        return [str(word) for word in words]

    def run(self, command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=self.options.secs + 60)
        if done.returncode:
            raise Failed(done.stderr.strip())
        return done.stdout

    def ask(self, kind, address, path, n, seconds):
        said = json.loads(self.run(self.load(kind, address, path, n, seconds)))
        size = BIG if path == "/big" else SMALL
        if said["failed"] or said["bytes"] != said["requests"] * size or not said["requests"]:
            raise Failed(f"of {said['requests']} requests {said['failed']} failed, {said['bytes']} bytes came")
        return said

    def wrk(self, address, n, seconds):
        """As ask; wrk counts whole answers only, and knows whole seconds only."""
        text = self.run(["wrk", "-t1", f"-c{n}", f"-d{math.ceil(seconds)}s", "-H", f"Host: {HOST}",
                         "http://%s:%d/small" % address])
        found = re.search(r"(\d+) requests in ([\d.]+)s", text)
        if not found or int(found[1]) == 0 or "Socket errors" in text or "Non-2xx" in text:
            raise Failed(f"wrk: {text.strip()}")
        return {"requests": int(found[1]), "seconds": float(found[2])}

    def measure(self, test, subject, seconds):
        """The figures of one subject, by unit."""
        if test == "hold":
            return self.measure_hold(subject)
        before = cpu_of(subject.pids)
        if test.startswith("stream"):
            said = self.ask("ask", subject.address, "/big", int(test[6:]), seconds)
        elif test == "ask" and self.options.client == "wrk":
            said = self.wrk(subject.address, self.options.conns, seconds)
        else:
            n = 1 if test.endswith("1") else self.options.conns
            said = self.ask(test.rstrip("1"), subject.address, "/small", n, seconds)
        cpu = max(cpu_of(subject.pids) - before, 1 / TICKS)
        if test.endswith("1") and not test.startswith("stream"):
            return {"us": said["p50_us"], "us p99": said["p99_us"]}
        done, what = (said["bytes"] / 1e9, "GB") if test.startswith("stream") else (said["requests"], "")
        rates = {f"{what}/s": done / said["seconds"]}
        if subject.pids:
            rates[f"{what}/CPU-s"] = done / cpu
        return rates

    def measure_hold(self, subject):
        n = self.options.idle
        before = memory_of(subject.pids)
        command = self.load("hold", subject.address, "/small", n, 0)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            try:
                if not client.stdout.readline():
                    raise Failed("connections could not be held")
                after = memory_of(subject.pids)
            finally:
                client.kill()
        # A few connections may fit into what was there: not nothing, but less than can be seen.
        return {"kB": max(after - before, 0.5) / n / subject.hops}

    # ---- one test: repetitions in which all take turns ----

    def quiet(self, test, subject):
        """The figures of the quietest of a few measurements."""
        best, least = None, math.inf
        for _ in range(1 if self.options.quick else 3):
            begun, before = time.monotonic(), cpu_of_others()
            figures = self.measure(test, subject, self.options.secs)
            noise = (cpu_of_others() - before) / (time.monotonic() - begun)
            if noise < least:
                best, least = figures, noise
            if noise < NOISE:
                break
        self.noise = max(self.noise, least)
        return best

    def open(self, name, hops):
        self.opened += 1
        folder = self.folder / f"{name}-{self.opened}"
        folder.mkdir()
        try:
            subject = SUBJECTS[name](self.options, folder, self.backend, hops)
        except BaseException:
            for log in sorted(folder.glob("*.log")):
                sys.stderr.write(f"{log.name}: {log.read_text(errors='replace')[-2000:]}\n")
            raise
        subject.hops = hops
        return subject

    def test(self, test, hops):
        """Figures by name and unit, a list with one for each repetition."""
        alone = test in ("ask1", "dial1")
        names = [n for n in subjects_of(test) if n in self.options.subjects]
        names = ["direct"] * (test != "hold" and (alone or hops == 1)) + names
        figures = {name: {} for name in names}
        self.noise = 0.0
        if alone:
            self.pin_all({max(self.cpus)})
        try:
            with contextlib.ExitStack() as stack:
                if test != "hold":
                    subjects = {}
                    for name in names:
                        subjects[name] = self.open(name, hops)
                        stack.callback(subjects[name].close)
                        self.measure(test, subjects[name], self.options.secs / 10)
                for _ in range(self.options.reps):
                    for name in names:
                        if test == "hold":  # what was freed before would be used again: a fresh process
                            with contextlib.closing(self.open(name, hops)) as subject:
                                got = self.measure(test, subject, 0)
                        else:
                            got = self.quiet(test, subjects[name])
                        for unit, value in got.items():
                            figures[name].setdefault(unit, []).append(value)
        finally:
            if alone:
                self.pin_all(self.cpus)
        return figures

    def pin_all(self, cpus):
        """This process, the backend, and whatever is started from now on."""
        os.sched_setaffinity(0, cpus)
        pin(family(p.pid for p in self.backend_processes.running), cpus)


# ---- what is printed ----


def show(values):
    middle = statistics.median(values)
    digits = 0 if middle >= 1000 else 1 if middle >= 100 else 2
    text = f"{middle:,.{digits}f}"
    if len(values) > 1:
        text += f" [{min(values):,.{digits}f}..{max(values):,.{digits}f}]"
    return text


def report(test, hops, figures):
    base = next((n for n in figures if n != "direct"), None)
    title = f"{test}, {hops} hop{'s' if hops > 1 else ''}"
    for name, units in figures.items():
        cells = []
        for unit, values in units.items():
            if test in ("ask1", "dial1") and name != "direct" and unit == "us":
                direct = figures["direct"][unit]
                more = [v - d for v, d in zip(values, direct)]
                cells.append(f"{show(values)} us, {show(more)} more than direct")
                against = [v - d for v, d in zip(figures[base][unit], direct)]
            elif unit == "us p99":
                continue
            else:
                more, against = values, figures[base].get(unit)
                cells.append(f"{show(values)} {unit}")
            if name not in (base, "direct"):
                ratios = [a / b for a, b in zip(more, against) if b > 0]
                cells[-1] += f" ({statistics.median(ratios):.2f} x)" if ratios else ""
        print(f"{title:16} {name:15} {'   '.join(cells)}", flush=True)
        title = ""


def positive(figures):
    return all(value > 0 for units in figures.values() for values in units.values() for value in values)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshd", default=os.environ.get("MESHD", BUILD / "src/daemon/meshd"),
                        help="the program; default: $MESHD, or that of build-release")
    parser.add_argument("--meshcat", default=os.environ.get("MESHCAT", BUILD / "tools/meshcat"),
                        help="makes certificates; default: $MESHCAT, or that of build-release")
    parser.add_argument("--programs", type=pathlib.Path,
                        default=pathlib.Path(os.environ.get("MESHD_BENCH", BUILD / "tests/bench")),
                        help="folder of forward_load and forward_backend; default: $MESHD_BENCH, or likewise")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--secs", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--tests", default=",".join(TESTS))
    parser.add_argument("--hops", default="1,2")
    parser.add_argument("--subjects", default="haproxy-splice,haproxy,meshd,meshd-mapped")
    parser.add_argument("--conns", type=int, default=32, help="at once, in ask and dial")
    parser.add_argument("--idle", type=int, default=5000, help="connections of hold")
    parser.add_argument("--backend", choices=["nginx", "own"], help="default: nginx if it is installed")
    parser.add_argument("--client", choices=["wrk", "own"], help="of ask; default: wrk if it is installed")
    parser.add_argument("--haproxy-threads", type=int, default=1, help="nbthread; 0: its default, one a CPU")
    parser.add_argument("--link", choices=["owner", "ingress"], default="owner", help="who dials the link (2 hops)")
    parser.add_argument("--tls", action="store_true", help="what TLS between the nodes costs")
    parser.add_argument("--cold", action="store_true", help="no DATA connection is opened ahead of need")
    parser.add_argument("--one-cpu", action="store_true",
                        help="all on one CPU: what is to be done alone, without what it costs to wake others")
    parser.add_argument("--quick", action="store_true", help="all for a moment; every byte is compared")
    options = parser.parse_args()
    if options.quick:
        options.reps, options.secs, options.idle, options.conns = 1, 0.2, 50, 8
        options.backend, options.client = "own", "own"
    options.backend = options.backend or ("nginx" if shutil.which("nginx") else "own")
    options.client = options.client or ("wrk" if shutil.which("wrk") else "own")
    if options.tls:
        options.subjects, options.hops = "meshd,meshd-tls", "2"
    options.subjects = options.subjects.split(",")
    options.haproxy = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not options.haproxy and any(n.startswith("haproxy") for n in options.subjects):
        print("haproxy is not installed: left out; a ratio is to the first of those that are there")
        options.subjects = [n for n in options.subjects if not n.startswith("haproxy")]
    return options


def main():
    options = arguments()
    status = 0
    if options.one_cpu:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    print(f"backend {options.backend}, client {options.client}, {len(os.sched_getaffinity(0))} CPUs, "
          f"{options.reps} x {options.secs} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-forward-", dir=shared) as name:
        folder = pathlib.Path(name)
        os.chmod(folder, 0o755)  # nginx's worker
        with contextlib.closing(Bench(options, folder)) as bench:
            for test in options.tests.split(","):
                for hops in map(int, options.hops.split(",")):
                    try:
                        figures = bench.test(test, hops)
                        report(test, hops, figures)
                        if bench.noise >= NOISE:
                            print(f"{'':16} not quiet: others used up to {bench.noise:.2f} CPUs")
                        if not positive(figures):
                            raise Failed("a figure that is not above 0")
                    except Failed as e:
                        print(f"{test}, {hops} hops: failed: {e}", flush=True)
                        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
