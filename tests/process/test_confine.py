#!/usr/bin/python3
"""What a node gives up once it has its ports, and that it works without."""
import contextlib
import grp
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import unittest

from cable import SECONDS
from forwarding import MAPPED, Backend, head_for, receive, receive_head
from harness import MESHCAT, MESHD, SLOW, MeshTest, _die_with_parent, clean_environment, main, until

ROOT = os.geteuid() == 0
FILTERS = not os.environ.get("MESHD_SANITIZE")  # such a build has no sandbox, and says so
USER, GROUP = "nobody", "daemon"
root_only = unittest.skipUnless(ROOT, "only root becomes another user")


def threads(node):
    """/proc/PID/task/*/status: each a dictionary of words."""
    found = []
    for task in pathlib.Path(f"/proc/{node.process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that has just ended
            lines = (line.split(":", 1) for line in (task / "status").read_text("ascii").splitlines())
            found.append({key: value.split() for key, value in lines})
    return found


class ConfineTest(MeshTest):
    def setUp(self):
        super().setUp()
        self.mesh.flags = [f for f in self.mesh.flags if not f.startswith("--core-dumps")]
        # Where other users reach them, wherever the build lies.
        self.meshd, self.meshcat = (shutil.copy(program, self.mesh.dir) for program in (MESHD, MESHCAT))
        for folder in (self.mesh.dir, self.mesh.dir / "run"):  # the other user passes through
            folder.chmod(0o711)

    def every(self, node, field, value):
        found = {tuple(thread[field]) for thread in threads(node)}
        self.assertEqual(found, {tuple(value)}, field)

    def run_to_end(self, *flags, **more):
        """A node that is to end at its start; its exit code and what it said."""
        node = self.mesh.node("n1", flags=flags)
        done = subprocess.run([self.meshd, *self.mesh.flags, *flags], env=node.environment(), text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=20 * SLOW,
                              cwd=self.mesh.dir, **more)
        return done.returncode, done.stderr

    def cat_as(self, node, *args, **who):
        argv = [self.meshcat, "--dial", f"ipc://{node.socket}", "--timeout", str(10 * SLOW), *args]
        return subprocess.run(argv, env=clean_environment(), stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, cwd="/", **who).returncode

    def use(self, n1, n2, backend):
        """Everything that a node does: links, both maps, offers, forwards, through names too."""
        self.mesh.until_agreed([n1, n2])
        for node in (n1, n2):
            for name in ("web", "by-name"):
                with socket.create_connection((node.host, MAPPED if name == "web" else MAPPED + 1),
                                              SECONDS) as client:
                    client.sendall(head_for(name))
                    with backend.accept() as server:
                        receive_head(server)
                        server.sendall(b"answer")
                        self.assertEqual(receive(client, 6), b"answer")
        n1.local("offer", "more", "127.0.0.1:99")
        self.assertIn("more@local", n1.rows())
        n1.local("withdraw", "more")
        self.assertEqual(n1.info()["peer_id"], "n1")

    def pair(self, **settings):
        backend = Backend(self, "127.0.0.1")
        services = [f"web:{backend.address}", f"by-name:localhost:{backend.address.split(':')[1]}"]
        ingress = "{0}:%d=web,{0}:%d=by-name" % (MAPPED, MAPPED + 1)
        net = self.mesh.net
        n1 = self.mesh.node("n1", services=services, INGRESS_ADDR=ingress.format(f"{net}.1"), **settings)
        n2 = self.mesh.node("n2", peers=[n1], INGRESS_ADDR=ingress.format(f"{net}.2"), **settings)
        return n1.start(), n2.start(), backend


class Sandbox(ConfineTest):
    def test_every_thread_is_in_it_and_can_gain_nothing(self):
        n1, n2, backend = self.pair()
        self.use(n1, n2, backend)
        for node in (n1, n2):
            self.every(node, "NoNewPrivs", ["1"])
            self.every(node, "Seccomp", ["2" if FILTERS else "0"])
            self.assertEqual("sandbox:" in node.err.read_text(), not FILTERS)
            if not ROOT:
                self.every(node, "CapEff", ["0" * 16])
        for node in (n2, n1):
            node.signal(signal.SIGTERM)
            self.assertEqual(node.ended(), 0)

    def test_it_can_be_left_out(self):
        n1 = self.mesh.node("n1", flags=["--sandbox=false"]).start()
        self.every(n1, "Seccomp", ["0"])
        self.every(n1, "NoNewPrivs", ["1"])
        self.assertNotIn("sandbox:", n1.err.read_text())

    def test_memory_is_kept_from_the_disk_unless_asked_for(self):
        def core_size(pid):
            limits = pathlib.Path(f"/proc/{pid}/limits").read_text("ascii")
            return re.search(r"Max core file size +(\S+) +(\S+)", limits).groups()
        for flags, size in (([], ("0", "0")), (["--core-dumps"], core_size("self"))):
            n1 = self.mesh.node("n1", flags=flags).start()
            self.assertEqual(core_size(n1.process.pid), size)
            n1.kill()


class NotRoot(ConfineTest):
    def setUp(self):
        super().setUp()
        user = pwd.getpwnam(USER) if ROOT else pwd.getpwuid(os.getuid())
        self.name, self.uid = user.pw_name, user.pw_uid
        self.who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if ROOT else {}
        (self.mesh.dir / "run").chmod(0o777)

    def test_unknown_users_are_told_and_nothing_starts(self):
        code, said = self.run_to_end("--user", "no-such-user")
        self.assertEqual(code, 2)
        self.assertEqual(said, "--user: 'no-such-user' names no user of this host; allowed: a user of this "
                               "host, or user:group\n")

    def test_nobody_else_is_become(self):
        code, said = self.run_to_end("--user", "root", **self.who)
        self.assertEqual(code, 1)
        self.assertIn("only root can become user root", said)
        code, said = self.run_to_end("--socket-group", GROUP, **self.who)
        self.assertEqual(code, 1)
        self.assertIn(f"not a member of {GROUP}", said)

    def test_its_own_name_changes_nothing(self):
        n1 = self.mesh.node("n1", flags=["--user", self.name])
        with open(n1.err, "ab") as err:
            n1.process = subprocess.Popen([self.meshd, *self.mesh.flags, *n1.flags], env=n1.environment(),
                                          stdin=subprocess.DEVNULL, stdout=err, stderr=err, cwd=self.mesh.dir,
                                          preexec_fn=_die_with_parent, **self.who)
        until("it answers", n1.answers_or_ended)
        self.every(n1, "Uid", [str(self.uid)] * 4)
        self.every(n1, "CapEff", ["0" * 16])
        self.assertNotIn("from now on", n1.err.read_text())


@root_only
class User(ConfineTest):
    def setUp(self):
        super().setUp()
        self.user = pwd.getpwnam(USER)

    def assert_is_the_user(self, node, gid=None):
        gid = gid if gid is not None else self.user.pw_gid
        self.every(node, "Uid", [str(self.user.pw_uid)] * 4)
        self.every(node, "Gid", [str(gid)] * 4)
        self.every(node, "Groups", sorted(map(str, set(os.getgrouplist(USER, gid)))))
        for which in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            self.every(node, which, ["0" * 16])
        self.every(node, "NoNewPrivs", ["1"])

    def test_root_becomes_the_user_and_everything_works_to_the_end(self):
        n1, n2, backend = self.pair(flags=["--user", USER])
        self.use(n1, n2, backend)
        for node in (n1, n2):
            self.assert_is_the_user(node)
            self.every(node, "Seccomp", ["2" if FILTERS else "0"])
            for path in (node.socket, node.socket.parent, node.socket.parent / "meshd.lock"):
                self.assertEqual(path.stat().st_uid, self.user.pw_uid, path)
            self.assertNotIn("stays root", node.err.read_text())
        n1.kill()  # what it leaves is in nobody's way
        n1.start()
        self.use(n1, n2, backend)
        for node in (n2, n1):
            node.signal(signal.SIGTERM)
            self.assertEqual(node.ended(), 0)
            self.assertEqual([p.name for p in node.socket.parent.iterdir()], ["meshd.lock"])

    def test_ports_below_1024_are_bound_first(self):
        host = f"{self.mesh.net}.1"
        n1 = self.mesh.node("n1", port=431, flags=["--user", f"{USER}:{GROUP}"],
                            INGRESS_ADDR=f"{host}:432=web").start()
        self.assert_is_the_user(n1, grp.getgrnam(GROUP).gr_gid)
        with contextlib.suppress(ConnectionResetError):  # nobody offers it
            socket.create_connection((host, 432), SECONDS).close()

    def test_its_memory_is_kept_from_the_users_other_processes(self):
        for flags, owner in (([], 0), (["--core-dumps"], self.user.pw_uid)):
            n1 = self.mesh.node("n1", flags=["--user", USER, *flags]).start()
            self.assertEqual(os.stat(f"/proc/{n1.process.pid}/environ").st_uid, owner)
            n1.kill()

    def test_what_an_earlier_root_left_is_handed_over(self):
        n1 = self.mesh.node("n1").start()
        n1.kill()
        n1.flags = ["--user", USER]
        n1.start()
        self.assert_is_the_user(n1)
        self.assertEqual(n1.local("ping").returncode, 0)
        n1.signal(signal.SIGTERM)
        self.assertEqual(n1.ended(), 0)
        self.assertEqual([p.name for p in n1.socket.parent.iterdir()], ["meshd.lock"])

    def test_links_in_the_users_folder_lead_root_nowhere(self):
        n1 = self.mesh.node("n1", flags=["--user", USER])
        n1.start()
        n1.kill()
        secret = self.mesh.dir / "secret"
        secret.write_text("kept")
        secret.chmod(0o600)
        for name in ("meshd.lock", "meshd.sock", "nng"):
            path = n1.socket.parent / name
            if path.is_dir() and not path.is_symlink():
                for file in path.iterdir():
                    file.unlink()
                path.rmdir()
            path.unlink(missing_ok=True)
            path.symlink_to(secret)
            n1.spawn()
            self.assertEqual(n1.ended(), 1, name)
            self.assertEqual(secret.read_text(), "kept")
            info = secret.stat()
            self.assertEqual((info.st_uid, stat.S_IMODE(info.st_mode)), (0, 0o600), name)
            path.unlink()

    def test_a_folder_out_of_the_users_reach_is_told(self):
        (self.mesh.dir / "run").chmod(0o700)
        code, said = self.run_to_end("--user", USER)
        self.assertEqual(code, 1)
        self.assertRegex(said, rf"cannot use .*: Permission denied; .*uid {self.user.pw_uid}")

    def test_somebody_elses_folder_is_refused(self):
        folder = self.mesh.dir / "run" / "n1"
        folder.mkdir()
        os.chown(folder, self.user.pw_uid + 1, -1)
        self.assertEqual(self.run_to_end("--user", USER)[0], 1)
        self.assertEqual(self.run_to_end()[0], 1)
        self.assertEqual(folder.stat().st_uid, self.user.pw_uid + 1)

    def test_a_second_node_in_the_folder_is_refused(self):
        n1 = self.mesh.node("n1", flags=["--user", USER]).start()
        code, said = self.run_to_end("--user", USER, f"--bind={self.mesh.net}.9:0")
        self.assertEqual(code, 1)
        self.assertIn(f"pid {n1.process.pid}", said)

    def test_root_that_stays_root_is_warned_unless_it_is_meant(self):
        n1 = self.mesh.node("n1").start()
        self.assertIn("set user", n1.err.read_text())
        n2 = self.mesh.node("n2", flags=["--user=root"]).start()
        self.assertNotIn("set user", n2.err.read_text())

    def test_a_capability_to_bind_goes_once_it_was_used(self):
        (self.mesh.dir / "run").chmod(0o777)
        n1 = self.mesh.node("n1", port=433)
        ids = [f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups"]
        capability = ["--inh-caps=-all,+net_bind_service", "--ambient-caps=-all,+net_bind_service"]
        with open(n1.err, "ab") as err:
            n1.process = subprocess.Popen(["setpriv", *ids, *capability, self.meshd, *self.mesh.flags],
                                          env=n1.environment(), stdin=subprocess.DEVNULL, stdout=err,
                                          stderr=err, cwd=self.mesh.dir, preexec_fn=_die_with_parent)
        until("it answers", n1.answers_or_ended)
        self.assertTrue(n1.alive())
        for which in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            self.every(n1, which, ["0" * 16])

    def test_the_local_socket_is_for_whom_the_settings_say(self):
        group = grp.getgrnam(GROUP).gr_gid
        offer = ("offer", "mine", "127.0.0.1:99")
        member = {"user": self.user.pw_uid + 7, "group": self.user.pw_gid, "extra_groups": [group]}
        stranger = {**member, "extra_groups": []}
        cases = [  # settings, the socket's mode, whether a member and a stranger may use it
            ([], 0o600, False, False),
            (["--socket-group", GROUP], 0o600, False, False),
            (["--socket-group", GROUP, "--socket-mode=0660"], 0o660, True, False),
            (["--socket-mode=0666"], 0o666, True, True),
        ]
        for user in ([], ["--user", USER]):
            for flags, mode, may_member, may_stranger in cases:
                with self.subTest(flags=[*user, *flags]):
                    n1 = self.mesh.node("n1", flags=[*user, *flags]).start()
                    info = n1.socket.stat()
                    self.assertEqual(stat.S_IMODE(info.st_mode), mode)
                    self.assertEqual(info.st_uid, self.user.pw_uid if user else 0)
                    if "--socket-group" in flags:
                        self.assertEqual(info.st_gid, group)
                    self.assertEqual(self.cat_as(n1, *offer, **member) == 0, may_member)
                    self.assertEqual(self.cat_as(n1, *offer, **stranger) == 0, may_stranger)
                    n1.kill()
            subprocess.run(["rm", "-r", self.mesh.dir / "run" / "n1"], check=True)


if __name__ == "__main__":
    main()
