#!/usr/bin/python3
"""One node's start and end: settings, what stands in its way, signals."""
import os
import re
import signal
import socket
import subprocess
import threading
import time

from harness import MESHD, MeshTest, SLOW, SOURCE, always, clean_environment, main, until


def meshd(*args, **env):
    """Runs meshd to its end, which must come soon."""
    return subprocess.run([MESHD, *map(str, args)], env=dict(clean_environment(), **env), text=True,
                          capture_output=True, timeout=20 * SLOW, stdin=subprocess.DEVNULL)


class Settings(MeshTest):
    def write(self, text):
        path = self.mesh.dir / "meshd.yaml"
        path.write_text(text)
        return path

    def test_version_and_help(self):
        done = meshd("--version")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"^meshd \d+\.\d+\.\d+\n$")
        done = meshd("--help")
        self.assertEqual(done.returncode, 0)
        for word in ("PEER_NAME", "SERVICE_ADDR", "REMOTE_PEER_ADDR", "--check", "--print-config"):
            self.assertIn(word, done.stdout)

    def test_check_accepts_what_print_config_prints(self):
        done = meshd("--print-config", PEER_NAME="n1", SERVICE_ADDR="web:127.0.0.1:80",
                     REMOTE_PEER_ADDR="peer.example:7400", PEER_BIND_ADDR="127.0.0.1:0")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        path = self.write(done.stdout)
        again = meshd("--print-config", "-c", path)
        self.assertEqual((again.returncode, again.stderr), (0, ""))
        self.assertEqual(again.stdout, done.stdout)
        self.assertEqual(meshd("--check", "-c", path).returncode, 0)

    def test_check_accepts_the_example(self):
        examples = [p for p in SOURCE.rglob("meshd.yaml") if "build" not in p.parts[-2]]
        self.assertTrue(examples, "a commented meshd.yaml")
        done = meshd("--check", "-c", examples[0])
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_mistakes_in_the_file_are_told_with_line_and_key_and_nothing_starts(self):
        path = self.write("peer_name: n1\nlog:\n  level: loud\nsurprise: 1\npeer_name: n2\n")
        done = meshd("-c", path, RUNTIME_DIRECTORY=str(self.mesh.dir / "run"))
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stdout, "")
        for line, key in ((3, "log.level"), (4, "surprise"), (5, "peer_name")):
            self.assertRegex(done.stderr, rf"meshd\.yaml:{line}:\d+: .*{re.escape(key)}")
        self.assertEqual(list((self.mesh.dir / "run").iterdir()), [])

    def test_mistakes_in_variables_and_flags_are_told(self):
        done = meshd("--check", SERVICE_ADDR="web:127.0.0.1:80,oops")
        self.assertEqual(done.returncode, 2)
        self.assertIn("SERVICE_ADDR", done.stderr)
        done = meshd("--check", "--heartbeat=never")
        self.assertEqual(done.returncode, 2)
        self.assertIn("heartbeat", done.stderr)

    def test_open_address_needs_insecure(self):
        done = meshd("--check", PEER_NAME="n1", PEER_BIND_ADDR="0.0.0.0:7400")
        self.assertEqual(done.returncode, 2)
        self.assertIn("insecure", done.stderr.lower())
        done = meshd("--check", PEER_NAME="n1", PEER_BIND_ADDR="0.0.0.0:7400", PEER_INSECURE="true")
        self.assertEqual(done.returncode, 0)


class InTheWay(MeshTest):
    def test_port_taken_is_told_and_ends_with_1(self):
        n1 = self.mesh.node("n1").start()
        other = self.mesh.node("other", n=1).spawn()
        self.assertEqual(other.ended(), 1)
        self.assertIn(f"{n1.host}:{n1.port}", other.err.read_text())
        self.assertIn("PEER_BIND_ADDR", other.err.read_text())
        self.assertEqual(n1.cat("ping").returncode, 0)

    def test_second_instance_in_one_folder_is_refused_and_the_first_goes_on(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"]).start()
        second = self.mesh.node("n1", n=2).spawn()
        self.assertEqual(second.ended(), 1)
        # Both nodes of this mesh are called n1, and so share their log files.
        self.assertIn(f"pid {n1.process.pid}", second.err.read_text())
        self.assertEqual(n1.local("ping").returncode, 0)
        self.assertEqual(set(n1.rows()), {"web@local"})

    def test_second_holder_of_an_id_elsewhere_is_refused_and_the_first_goes_on(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"]).start()
        n2 = self.mesh.node("n2", services=["db:127.0.0.1:81"], peers=[n1]).start()
        self.mesh.until_agreed()
        twin = self.mesh.node("n2", n=3, services=["db:10.9.9.9:81"], peers=[n1],
                              flags=[f"--runtime-dir={self.mesh.dir}/twin"]).start()
        until("the twin is told", lambda: any(
            link["state"] == "refused" or "in use" in link["last_error"] for link in twin.info()["links"]))
        always("n1 believes the first", lambda: n1.believes() == n1.truth() | n2.truth(), 2)
        self.mesh.until_agreed([n1, n2])
        n2.kill()
        until("the twin takes over when the first is gone",
              lambda: n1.believes() == n1.truth() | twin.truth(), 30)

    def test_too_few_descriptors_are_told_and_end_with_1(self):
        n1 = self.mesh.node("n1")
        for most in (8, 20, 255):
            done = subprocess.run(["bash", "-c", f'ulimit -n {most}; exec "$0"', MESHD], text=True,
                                  env=n1.environment(), capture_output=True, timeout=20 * SLOW)
            self.assertEqual(done.returncode, 1, f"{most} descriptors: {done.stderr}")
            self.assertIn("cannot", done.stderr)

    def test_no_host_in_the_address_means_every_address(self):
        n1 = self.mesh.node("n1", PEER_BIND_ADDR=":0", PEER_INSECURE="true").spawn()
        port = until("it listens", lambda: re.search(r"mesh port \S*:(\d+),", n1.err.read_text()))
        self.assertEqual(n1.cat("ping", url=f"tcp://127.0.0.1:{port[1]}").returncode, 0)
        if os.path.exists("/proc/net/if_inet6"):
            self.assertEqual(n1.cat("ping", url=f"tcp://[::1]:{port[1]}").returncode, 0)

    def test_what_a_killed_node_left_is_not_in_the_way(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"]).start()
        n1.kill()
        n1.start()
        self.assertEqual(n1.local("ping").returncode, 0)

    def test_private_files_are_private_and_gone_afterwards(self):
        n1 = self.mesh.node("n1").start()
        folder = n1.socket.parent
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        self.assertEqual(n1.socket.stat().st_mode & 0o077, 0)
        n1.signal(signal.SIGTERM)
        self.assertEqual(n1.ended(), 0)
        self.assertEqual([p.name for p in folder.iterdir() if p.name != "meshd.lock"], [])


class Signals(MeshTest):
    def ends(self, node, number):
        """By itself, in what it says of two seconds; on a busy machine it may be most of the three
        after which it would be cut short, and leave its socket, or its turns come so seldom."""
        began = time.monotonic()
        node.signal(number)
        self.assertEqual(node.ended(), 0)
        self.assertLess(time.monotonic() - began, 2.9 * SLOW * max(1, os.getloadavg()[0] / os.cpu_count()))

    def test_term_and_int_end_with_0_within_two_seconds(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            n1 = self.mesh.node("n1").start()
            self.ends(n1, number)

    def test_term_with_live_links_ends_with_0_within_two_seconds(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"]).start()
        n2 = self.mesh.node("n2", services=["db:127.0.0.1:81"], peers=[n1]).start()
        n3 = self.mesh.node("n3", peers=[n1, n2]).start()
        self.mesh.until_agreed()
        for node in (n1, n2, n3):
            self.ends(node, signal.SIGTERM)

    def test_term_beside_a_peer_that_does_not_read_ends_within_two_seconds(self):
        n1 = self.mesh.node("n1").start()
        n2 = self.mesh.node("n2", services=["db:127.0.0.1:81"], peers=[n1]).start()
        self.mesh.until_agreed()
        n1.signal(signal.SIGSTOP)
        self.ends(n2, signal.SIGTERM)

    def test_second_signal_ends_at_once(self):
        """Whatever it waits for: here, for a client to finish and a peer that does not read."""
        self.set(drain_timeout="60s")
        n1 = self.mesh.node("n1").start()
        with socket.create_server((f"{self.mesh.net}.200", 0)) as backend:
            n2 = self.mesh.node("n2", services=["db:%s:%d" % backend.getsockname()], peers=[n1])
            n2.env["INGRESS_ADDR"] = f"{n2.host}:7480=db"
            n2.start()
            self.mesh.until_agreed()
            with socket.create_connection((n2.host, 7480), 10 * SLOW), backend.accept()[0]:
                n1.signal(signal.SIGSTOP)
                n2.signal(signal.SIGTERM)
                until("the first was heard", lambda: "second one ends at once" in n2.err.read_text())
                self.assertTrue(n2.alive())
                n2.signal(signal.SIGTERM)
                self.assertEqual(n2.ended(), 0)
        self.assertIn("a second signal: ending at once", n2.err.read_text())

    def test_term_as_soon_as_the_port_answers_ends_with_0(self):
        n1 = self.mesh.node("n1")

        def answers():
            try:
                socket.create_connection((n1.host, n1.port), 1).close()
                return True
            except OSError:
                return False
        for _ in range(5):
            n1.spawn()
            until("it listens", answers)
            self.ends(n1, signal.SIGTERM)
            self.assertEqual([p.name for p in n1.socket.parent.iterdir()], ["meshd.lock"])

    def test_term_while_names_are_being_resolved_ends_with_0(self):
        n1 = self.mesh.node("n1", peers=[f"no-such-host-{i}.invalid:7400" for i in range(100)]).start()
        self.ends(n1, signal.SIGTERM)

    def test_term_while_the_node_is_asked_about_itself_ends_with_0(self):
        n1 = self.mesh.node("n1").start()
        stop = threading.Event()

        def ask():
            while not stop.is_set():
                n1.cat("node", check=False, timeout=1)
        workers = [threading.Thread(target=ask) for _ in range(3)]
        for worker in workers:
            worker.start()
        try:
            until("it was asked", lambda: n1.counters()["rpc_calls"] > 20)
            self.ends(n1, signal.SIGTERM)
        finally:
            stop.set()
            for worker in workers:
                worker.join()

    def test_outputs_and_a_peer_that_nobody_reads_do_not_hold_a_node_up(self):
        n2 = self.mesh.node("n2").start()
        n1 = self.mesh.node("n1", services=["db:127.0.0.1:81"], peers=[n2])
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            while os.write(writer, b"x" * 4096):
                pass
        except BlockingIOError:
            os.set_blocking(writer, True)
        try:
            n1.process = subprocess.Popen([MESHD, *self.mesh.flags], env=n1.environment(),
                                          stdout=writer, stderr=writer, stdin=subprocess.DEVNULL)
            until("it answers", n1.answers_or_ended)
            n1.local("offer", "web", "127.0.0.1:80")
            until("they are linked", lambda: f"web@{n1.host}" in n2.rows())
            n2.signal(signal.SIGSTOP)  # nor does its peer read
            self.ends(n1, signal.SIGTERM)
        finally:
            os.close(reader)
            os.close(writer)

    def test_a_peer_whose_name_is_not_known_is_told_by_that_name(self):
        n1 = self.mesh.node("n1", peers=["no-such-host.invalid:7400"]).start()
        line = until("it is told", lambda: next((line for line in n1.err.read_text().splitlines()
                                                 if "cannot reach" in line), None), 60)
        self.assertRegex(line, r"^warn \[link\] cannot reach no-such-host\.invalid:7400, trying on: its name "
                               r"(has no address|cannot be looked up now: no name server answers)$")

    def test_closed_output_does_not_end_a_node(self):
        n1 = self.mesh.node("n1")
        with subprocess.Popen([MESHD, *self.mesh.flags], env=n1.environment(), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            n1.process = process
            until("it answers", n1.answers_or_ended)
            process.stdout.close()
            n1.local("offer", "web", "127.0.0.1:80")
            n1.local("offer", "db", "127.0.0.1:81")
            self.assertEqual(set(n1.rows()), {"web@local", "db@local"})
            n1.signal(signal.SIGTERM)
            self.assertEqual(n1.ended(), 0)

    def test_a_node_without_standard_descriptors_writes_into_no_file_of_its_own(self):
        n1 = self.mesh.node("n1", services=["db:127.0.0.1:81"])
        closed = 'exec "$@" <&- >&- 2>&-'
        n1.process = subprocess.Popen(["sh", "-c", closed, "sh", MESHD, *self.mesh.flags], env=n1.environment())
        until("it answers", n1.answers_or_ended)
        n1.local("offer", "web", "127.0.0.1:80")
        until("its maps were printed", lambda: n1.counters()["printer_printed"] > 1)
        for fd in range(3):
            self.assertEqual(os.readlink(f"/proc/{n1.process.pid}/fd/{fd}"), "/dev/null")
        lock = n1.socket.parent / "meshd.lock"
        self.assertNotIn("registry", lock.read_text())
        n1.signal(signal.SIGTERM)
        self.assertEqual(n1.ended(), 0)


if __name__ == "__main__":
    main()
