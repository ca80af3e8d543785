#!/usr/bin/python3
"""The installed library, as a stranger meets it: what it exports and needs, and programs that are
built with nothing but the installed files and run against a real node.

The environment names, beside the harness's: MESHD_BUILD (the build folder), CMAKE, CC, NM, OBJDUMP.
"""
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "process"))
from harness import Mesh, MeshTest, SLOW, SOURCE, _die_with_parent, clean_environment, main, until  # noqa: E402
from mtls import Authority, SecureNode  # noqa: E402

CMAKE, CC = os.environ["CMAKE"], os.environ["CC"]
EXAMPLE = SOURCE / "tools" / "examples" / "find.c"
STRANGER = SOURCE / "tests" / "package" / "stranger.c"
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
HEADER = '#include <meshd/client.h>\nint main(void) { return mesh_version() == 0; }\n'


def run(*argv, env=None, check=True, **more):
    done = subprocess.run([str(a) for a in argv], env={**clean_environment(), **(env or {})}, text=True,
                          capture_output=True, preexec_fn=_die_with_parent, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Package(MeshTest):
    @classmethod
    def setUpClass(cls):
        cls.mesh_of_class = Mesh()
        cls.addClassCleanup(cls.mesh_of_class.close)
        cls.work = cls.mesh_of_class.dir
        cls.prefix = cls.work / "prefix"
        run(CMAKE, "--install", os.environ["MESHD_BUILD"], "--prefix", cls.prefix)
        cls.lib = next(cls.prefix.rglob("libmeshd.a")).parent
        cls.pkg_env = {"PKG_CONFIG_PATH": str(cls.lib / "pkgconfig")}
        cls.node = cls.mesh_of_class.node("n1", services=["web:127.0.0.1:80", "db:[::1]:5432"]).start()

    def pkg_config(self, *what):
        return run("pkg-config", *what, "meshd", env=self.pkg_env).stdout.split()

    def finds(self, program, env=None):
        """A lookup of what is there, of what is not, and an offer from beginning to end."""
        done = run(program, "--url", self.node.url, "web", "db", env=env)
        self.assertEqual(done.stdout, "web 127.0.0.1:80 n1\ndb [::1]:5432 n1\n")
        done = run(program, "--url", self.node.url, "nobody", env=env, check=False)
        self.assertEqual((done.returncode, done.stderr), (1, "find: nobody offers nobody\n"))
        argv = [str(program), "--url", f"ipc://{self.node.socket}", "--offer", "mine=127.0.0.1:99"]
        with subprocess.Popen(argv, env={**clean_environment(), **(env or {})}, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              preexec_fn=_die_with_parent) as offering:
            self.assertEqual(offering.stdout.readline(), "offered mine=127.0.0.1:99\n")
            done = run(program, "--url", self.node.url, "mine", env=env)
            self.assertEqual(done.stdout, "mine 127.0.0.1:99 n1\n")
            offering.stdin.close()
            self.assertEqual(offering.stdout.read(), "withdrawn, it stood: ok\n")
            self.assertEqual(offering.wait(10 * SLOW), 0)
        done = run(program, "--url", self.node.url, "mine", env=env, check=False)
        self.assertEqual(done.returncode, 1)

    def finds_in_tls(self, program, env=None):
        ca = self.mesh.ca = Authority(self.mesh.dir / "ca")
        self.mesh.kind = SecureNode
        node, me = self.mesh.node("n4", services=["web:127.0.0.1:80"]).start(), ca.issue("me")
        files = {"PEER_TLS_CA": str(ca.cert), "PEER_TLS_CERT": str(me.cert), "PEER_TLS_KEY": str(me.key)}
        done = run(program, "--url", node.tls_url, "web", env=files | (env or {}))
        self.assertEqual(done.stdout, "web 127.0.0.1:80 n4\n")

    def header_functions(self):
        text = (self.prefix / "include" / "meshd" / "client.h").read_text()
        done = run(CC, "-fsyntax-only", "-aux-info", self.work / "protos", "-x", "c", "-", input=text)
        self.assertEqual(done.stderr, "")
        words = (line.split("(")[0].split()[-1].lstrip("*")
                 for line in (self.work / "protos").read_text().splitlines()
                 if line.startswith("/* <stdin>"))
        return set(words)

    def test_the_shared_library_exports_the_header_and_nothing_else(self):
        out = run(os.environ["NM"], "-D", "--defined-only", self.lib / "libmeshd.so").stdout
        names = {line.split()[2].split("@")[0] for line in out.splitlines()}
        self.assertEqual(names - {"LIBMESHD_0"}, self.header_functions())

    def test_the_archive_exports_the_same(self):
        def names(*argv):
            lines = run(os.environ["NM"], *argv).stdout.splitlines()
            return {f[2].split("@")[0] for f in map(str.split, lines) if len(f) == 3} - {"LIBMESHD_0"}
        self.assertEqual(names("-g", "--defined-only", self.lib / "libmeshd.a"),
                         names("-D", "--defined-only", self.lib / "libmeshd.so"))

    def test_it_needs_protobuf_c_openssl_and_libc_only(self):
        out = run(os.environ["OBJDUMP"], "-p", self.lib / "libmeshd.so").stdout
        needed = {line.split()[1].split(".so")[0] for line in out.splitlines() if "NEEDED" in line}
        self.assertLessEqual(needed, {"libprotobuf-c", "libssl", "libcrypto", "libc", "ld-linux-x86-64", "ld-linux-aarch64"})
        self.assertIn("SONAME               libmeshd.so.0\n", out)

    def test_the_header_is_strict_c99_and_c_plus_plus(self):
        include = f"-I{self.prefix / 'include'}"
        run(CC, *STRICT, include, "-fsyntax-only", "-x", "c", "-", input=HEADER)
        cxx = shutil.which("g++") or shutil.which("clang++") or CC
        if run(cxx, "-fsyntax-only", "-x", "c++", "-", input="int main() {}\n", check=False).returncode:
            self.skipTest("there is no C++ compiler")
        run(cxx, "-Wall", "-Wextra", "-Werror", "-pedantic", include, "-fsyntax-only", "-x", "c++", "-",
            input=HEADER)

    def test_a_program_by_pkg_config(self):
        program = self.work / "find-shared"
        run(CC, *STRICT, EXAMPLE, STRANGER, *self.pkg_config("--cflags", "--libs"), "-o", program)
        self.finds(program, {"LD_LIBRARY_PATH": str(self.lib)})
        self.finds_in_tls(program, {"LD_LIBRARY_PATH": str(self.lib)})

    def test_a_program_follows_its_node_across_a_restart(self):
        program, node = self.work / "find-follow", self.mesh.node("n3", services=["web:127.0.0.1:80"]).start()
        run(CC, *STRICT, EXAMPLE, *self.pkg_config("--cflags", "--libs"), "-o", program)
        env = {**clean_environment(), "LD_LIBRARY_PATH": str(self.lib)}
        with subprocess.Popen([str(program), "--url", node.url, "--follow", "*"], env=env, text=True,
                              stdout=subprocess.PIPE, preexec_fn=_die_with_parent) as following:
            told = lambda *lines: [self.assertEqual(following.stdout.readline(), f"{l}\n") for l in lines]
            told("up web 127.0.0.1:80 n3", "synced")
            node.local("offer", "db", "127.0.0.1:81")
            told("up db 127.0.0.1:81 n3")
            node.kill()
            told("away")
            node.start()
            told("down db 127.0.0.1:81 n3", "synced")
            following.kill()

    def test_an_offer_comes_back_with_its_node(self):
        program, node = self.work / "find-restart", self.mesh.node("n2").start()
        run(CC, *STRICT, EXAMPLE, *self.pkg_config("--cflags", "--libs"), "-o", program)
        argv = [str(program), "--url", f"ipc://{node.socket}", "--offer", "mine=127.0.0.1:99"]
        with subprocess.Popen(argv, env={**clean_environment(), "LD_LIBRARY_PATH": str(self.lib)}, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              preexec_fn=_die_with_parent) as offering:
            self.assertEqual(offering.stdout.readline(), "offered mine=127.0.0.1:99\n")
            self.assertIn("mine@local", node.rows())
            node.kill()
            node.start()
            until("it is offered again", lambda: "mine@local" in node.rows())
            offering.stdin.close()
            self.assertEqual(offering.wait(10 * SLOW), 0)
        self.assertNotIn("mine@local", node.rows())

    def test_a_static_program_by_pkg_config(self):
        program = self.work / "find-static"
        run(CC, *STRICT, "-static", EXAMPLE, STRANGER, *self.pkg_config("--static", "--cflags", "--libs"),
            "-o", program)
        self.finds(program)
        self.finds_in_tls(program)

    def test_a_project_by_find_package(self):
        source, build = self.work / "project", self.work / "project-build"
        source.mkdir()
        (source / "CMakeLists.txt").write_text(f"""\
cmake_minimum_required(VERSION 3.25)
project(stranger VERSION 1 LANGUAGES C)
find_package(meshd 0.1 REQUIRED CONFIG)
foreach(kind meshd meshd-static)
  add_executable(find-${{kind}} {EXAMPLE} {STRANGER})
  target_link_libraries(find-${{kind}} PRIVATE meshd::${{kind}})
endforeach()
""")
        run(CMAKE, "-G", "Ninja", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={self.prefix}",
            f"-DCMAKE_C_COMPILER={CC}")
        run(CMAKE, "--build", build)
        self.finds(build / "find-meshd")
        self.finds(build / "find-meshd-static")


if __name__ == "__main__":
    main()
