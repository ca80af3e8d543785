#!/usr/bin/python3
"""The Debian packages, installed in a clean Debian 12: they install, start as the unit would start
them, are upgraded and go without a trace.

MESHD_BUILD is a build with the prefix /usr; the packages are made from what it has built. The clean
root comes from debootstrap, which wants root and a mirror, and is kept in the build folder for the
next time. Where that is not possible it says so, and ends with 77.
"""
import ctypes
import hashlib
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import unittest

BUILD, SOURCE = pathlib.Path(os.environ["MESHD_BUILD"]), pathlib.Path(os.environ["MESHD_SOURCE"])
CMAKE, CC = pathlib.Path(os.environ["CMAKE"]), os.environ["CC"]
SUITE = "bookworm"
BOOTSTRAP_S = 240
CLONE_NEWNS, CLONE_NEWNET, MS_REC, MS_PRIVATE = 0x20000, 0x40000000, 0x4000, 0x40000
QUIET = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
PROXIES = {key: value for key, value in os.environ.items() if key.lower() in ("http_proxy", "https_proxy", "no_proxy")}
UNTOLD = ("var/lib/dpkg/", "var/lib/apt/", "var/cache/", "var/log/", "proc/", "tmp/")  # of dpkg itself
BACKUPS = re.compile(r"etc/(passwd|group|shadow|gshadow|subuid|subgid)-$|etc/\.pwd\.lock$|run/adduser$")


def run(*argv, check=True, env=None, **more):
    done = subprocess.run([str(a) for a in argv], env={**QUIET, **(env or {})}, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout}")
    return done


def mirror():
    """That of this machine, if it names one."""
    sources = pathlib.Path("/etc/apt")
    for path in sorted([sources / "sources.list", *sources.glob("sources.list.d/*")]):
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            found = re.search(r"^(?:deb|URIs:)\s.*?(https?://\S+/debian)/?(?:\s|$)", line)
            if found:
                return found.group(1)
    return "http://deb.debian.org/debian"


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def field(deb, name):
    return run("dpkg-deb", "--field", deb, name).stdout.strip()


def cache_value(name):
    text = (BUILD / "CMakeCache.txt").read_text()
    return re.search(rf"^{name}:\w+=(.*)$", text, re.M).group(1)


def make_packages(folder):
    run(CMAKE.parent / "cpack", "--config", BUILD / "CPackConfig.cmake", "-B", folder, cwd=folder)
    return {deb.name.split("_")[0]: deb for deb in folder.glob("*.deb")}


def clean_root(debs, folder):
    """A Debian with what the packages depend on, as a tar file in the build folder."""
    wanted = {word.split()[0].split(":")[0] for deb in debs.values() for word in field(deb, "Depends").split(", ")} - set(debs)
    text = " ".join([SUITE, *sorted(wanted)])
    tar = BUILD / f"debian-root-{hashlib.sha256(text.encode()).hexdigest()[:12]}.tar"
    root = folder / "root"
    if tar.exists():
        root.mkdir()
        run("tar", "-xf", tar, "-C", root)
        return root
    done = run("timeout", BOOTSTRAP_S, "debootstrap", "--variant=minbase", f"--include={','.join(sorted(wanted))}", SUITE, root,
               mirror(), check=False, env=PROXIES)  # timeout ends its children, too
    if done.returncode == 124:
        skip(f"debootstrap did not come to its end within {BOOTSTRAP_S} s")
    if done.returncode:
        skip(f"debootstrap cannot make a root here: {' '.join(done.stdout.splitlines()[-2:])}")
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    mine = tar.with_suffix(f".{os.getpid()}")
    run("tar", "-cf", mine, "-C", root, ".")
    mine.rename(tar)
    return root


def alone():
    """A network and mounts of our own, so that the node has its port, and all goes with this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0 or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        skip(f"there are no namespaces here: {os.strerror(ctypes.get_errno())}")
    run("ip", "link", "set", "lo", "up")


class Unit:
    """What a unit says, of one section and key."""

    def __init__(self, path):
        self.values = {}
        for line in path.read_text("utf-8").splitlines():
            if "=" in line and not line.startswith("#"):
                key, value = line.split("=", 1)
                self.values.setdefault(key, []).append(value)

    def __getitem__(self, key):
        return self.values[key][-1]


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir, cls.debs, cls.clean = DIR, DEBS, ROOT

    def setUp(self):
        self.root = self.clean
        self.addCleanup(self.put_back)

    def put_back(self):
        self.inside("dpkg", "--purge", "libmeshd-dev", "libmeshd0", "meshd", check=False)
        shutil.rmtree(self.root / "etc/meshd", ignore_errors=True)

    def inside(self, *argv, check=True, env=None):
        return run("chroot", self.root, *argv, check=check, env=env)

    def install(self, *debs, options=()):
        """By apt, as an administrator does it, from nothing but these files and what is there."""
        for deb in debs:
            shutil.copy(deb, self.root / "tmp")
        return self.inside("apt-get", "-y", "-q", "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0", *options, "install",
                           *(f"/tmp/{deb.name}" for deb in debs)).stdout

    def everything(self):
        """Every path of the root, but for what dpkg keeps for itself; users and groups by their lines."""
        found = set()
        for top, folders, files in os.walk(self.root):
            name = os.path.relpath(top, self.root) + "/"
            name = "" if name == "./" else name
            if name.startswith(UNTOLD):
                folders.clear()
                continue
            found |= {name + path for path in folders + files if not BACKUPS.match(name + path)}
        for file in ("passwd", "group", "shadow"):
            found |= {f"{file}: {line.split(':')[0]}" for line in (self.root / "etc" / file).read_text().splitlines()}
        return found

    def user(self):
        line = next(line for line in (self.root / "etc/passwd").read_text().splitlines() if line.startswith("meshd:"))
        return line.split(":")

    def start(self, **extra):
        """The node, as the unit says it is to be started; ready."""
        unit = Unit(self.root / "usr/lib/systemd/system/meshd.service")
        _, _, uid, gid, *_ = self.user()
        self.assertEqual((unit["User"], unit["Group"]), ("meshd", "meshd"))
        runtime = self.root / "run" / unit["RuntimeDirectory"]
        runtime.mkdir(exist_ok=True)
        runtime.chmod(int(unit["RuntimeDirectoryMode"], 8))
        os.chown(runtime, int(uid), int(gid))
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        path = self.root / "run/notify"
        path.unlink(missing_ok=True)
        manager.bind(str(path))
        path.chmod(0o777)
        manager.settimeout(20)
        env = {"RUNTIME_DIRECTORY": f"/run/{unit['RuntimeDirectory']}", "NOTIFY_SOCKET": "/run/notify", **extra}
        with open(self.dir / "node.log", "wb") as log:
            node = subprocess.Popen(["chroot", f"--userspec={uid}:{gid}", self.root, *unit["ExecStart"].split()],
                                    env={**QUIET, **env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL))
        self.addCleanup(lambda: (node.kill(), node.wait()))
        try:
            self.assertIn(b"READY=1", manager.recv(4096))
        except TimeoutError:
            self.fail(f"it is not ready: {(self.dir / 'node.log').read_text('utf-8', 'replace')}")
        return node

    def stop(self, node):
        node.send_signal(signal.SIGTERM)
        self.assertEqual(node.wait(20), 0)
        shutil.rmtree(self.root / "run/meshd")  # as systemd does it
        (self.root / "run/notify").unlink()

    def test_a_whole_life(self):
        before = self.everything()
        self.install(self.debs["meshd"])
        self.assertEqual(self.inside("dpkg", "-V", "meshd").stdout, "")
        self.assertEqual(self.inside("dpkg-query", "-W", "-f", "${Conffiles}", "meshd").stdout.split()[0], "/etc/meshd/meshd.yaml")
        settings = self.root / "etc/meshd/meshd.yaml"
        state = settings.stat()
        self.assertEqual((state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)), (0, 0, 0o644))
        self.assertEqual(self.user()[5:], ["/nonexistent", "/usr/sbin/nologin"])
        wants = self.root / "etc/systemd/system/multi-user.target.wants/meshd.service"
        self.assertTrue(wants.is_symlink())
        self.inside("meshd", "--check", "/etc/meshd/meshd.yaml")

        node = self.start()
        self.inside("meshcat", "ping", "--dial", "tcp://127.0.0.1:7400")
        self.assertEqual(self.inside("meshcat", "services", "-q", check=False).returncode, 1)  # it offers nothing
        # Through the local socket, as root who has logged in.
        self.inside("meshcat", "offer", "web", "127.0.0.1:80", env={"XDG_RUNTIME_DIR": "/run/user/0"})
        self.assertIn("127.0.0.1:80", self.inside("meshcat", "services").stdout)
        status = pathlib.Path(f"/proc/{node.pid}/status").read_text()
        self.assertEqual(re.search(r"^Uid:\s+(\d+)\s", status, re.M).group(1), self.user()[2])
        self.assertEqual(re.search(r"^Seccomp:\s+(\d)", status, re.M).group(1), "2")
        self.reloads(settings)
        self.stop(node)

        settings.write_text("peer_name: edited\n")
        newer = self.newer()
        self.install(newer, options=("-o", "Dpkg::Options::=--force-confold"))
        self.assertEqual(self.inside("dpkg-query", "-W", "-f", "${Version}", "meshd").stdout, field(newer, "Version"))
        self.assertEqual(settings.read_text(), "peer_name: edited\n")
        node = self.start()
        self.assertIn('"peer_id":"edited"', self.inside("meshcat", "node", "--format", "json").stdout.replace(" ", ""))
        self.stop(node)

        self.inside("apt-get", "-y", "-q", "remove", "meshd")
        self.assertEqual(settings.read_text(), "peer_name: edited\n")
        self.assertFalse((self.root / "usr/sbin/meshd").exists())
        self.inside("apt-get", "-y", "-q", "purge", "meshd")
        self.assertEqual(self.everything(), before)

    def reloads(self, settings):
        """As the unit has it: what is wrong is told and changes nothing."""
        unit = Unit(self.root / "usr/lib/systemd/system/meshd.service")
        argv = ("chroot", "--userspec=meshd:meshd", self.root, *unit["ExecReload"].split())
        env = {"RUNTIME_DIRECTORY": f"/run/{unit['RuntimeDirectory']}"}
        with open(settings, "a", encoding="utf-8") as file:
            file.write("services: [{name: late, backend: '127.0.0.1:81'}]\n")
        run(*argv, env=env)
        self.inside("meshcat", "lookup", "late")
        with open(settings, "a", encoding="utf-8") as file:
            file.write("surprise: 1\n")
        done = run(*argv, env=env, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"/etc/meshd/meshd\.yaml:\d+:\d+: .*surprise")
        self.inside("meshcat", "lookup", "late")

    def newer(self):
        """The same package in a higher version, with other settings by default."""
        tree, deb = self.dir / "newer", self.dir / "meshd_99.deb"
        run("dpkg-deb", "-R", self.debs["meshd"], tree)
        control = tree / "DEBIAN/control"
        control.write_text(re.sub(r"^Version: .*$", "Version: 99-1", control.read_text(), flags=re.M))
        with open(tree / "etc/meshd/meshd.yaml", "a", encoding="utf-8") as file:
            file.write("# one line more\n")
        run("dpkg-deb", "--root-owner-group", "-b", tree, deb)
        return deb

    def test_keys_that_somebody_put_beside_the_settings_stay_and_so_does_their_user(self):
        self.install(self.debs["meshd"])
        (self.root / "etc/meshd/key.pem").write_text("secret")
        self.inside("apt-get", "-y", "-q", "purge", "meshd")
        self.assertTrue((self.root / "etc/meshd/key.pem").exists())
        self.assertEqual(self.user()[0], "meshd")
        (self.root / "etc/meshd/key.pem").unlink()

    def test_a_unit_that_was_disabled_stays_so_after_an_upgrade(self):
        self.install(self.debs["meshd"])
        wants = self.root / "etc/systemd/system/multi-user.target.wants/meshd.service"
        wants.unlink()  # systemctl disable
        self.install(self.debs["meshd"], options=("--reinstall",))
        self.assertFalse(wants.is_symlink())

    def test_a_program_is_built_with_the_library_and_runs_with_it(self):
        before = self.everything()
        self.install(*self.debs.values())
        triplet = cache_value("CMAKE_INSTALL_LIBDIR") if "CMAKE_INSTALL_LIBDIR" in (BUILD / "CMakeCache.txt").read_text() else "lib"
        env = {"PKG_CONFIG_LIBDIR": str(self.root / "usr" / triplet / "pkgconfig")}
        flags = run("pkg-config", "--cflags", "--libs", "meshd", env=env).stdout.split()
        self.assertTrue(any(str(self.root) in flag for flag in flags), flags)
        run(CC, SOURCE / "tools/examples/find.c", *flags, "-o", self.root / "tmp/find")
        node = self.start(PEER_NAME="n1", SERVICE_ADDR="web:127.0.0.1:80")
        self.assertEqual(self.inside("/tmp/find", "--url", "tcp://127.0.0.1:7400", "web").stdout, "web 127.0.0.1:80 n1\n")
        self.stop(node)
        self.inside("apt-get", "-y", "-q", "purge", "meshd", "libmeshd0", "libmeshd-dev")
        self.assertEqual(self.everything(), before)

    def test_versions_and_dependencies(self):
        version = cache_value("CMAKE_PROJECT_VERSION")
        for deb in self.debs.values():
            self.assertEqual(field(deb, "Version"), f"{version}-1")
        self.assertTrue((SOURCE / "tools/debian/changelog").read_text().startswith(f"meshd ({version}-1) "))
        self.assertEqual(set(self.debs), {"meshd", "libmeshd0", "libmeshd-dev"})
        for library in ("libnng1", "libprotobuf-c1", "libuv1", "libssl3", "libseccomp2"):
            self.assertIn(library, field(self.debs["meshd"], "Depends"))
        self.assertIn(f"libmeshd0 (= {version}-1)", field(self.debs["libmeshd-dev"], "Depends"))


if __name__ == "__main__":
    if os.geteuid() != 0:
        skip("installing packages needs root")
    for program in ("debootstrap", "dpkg-deb", "dpkg-shlibdeps", "ip"):
        if not shutil.which(program, path=QUIET["PATH"]):
            skip(f"there is no {program}")
    if cache_value("CMAKE_INSTALL_PREFIX") != "/usr":
        skip("this build's prefix is not /usr (the preset release has it)")
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="meshd-") as name:
        DIR = pathlib.Path(name)
        DIR.chmod(0o755)
        (DIR / "debs").mkdir()
        DEBS = make_packages(DIR / "debs")
        ROOT = clean_root(DEBS, DIR)
        alone()
        unittest.main(verbosity=2)
