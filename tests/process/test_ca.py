#!/usr/bin/python3
"""meshcat ca: a mesh's certificates in three commands, as openssl sees them."""
import json
import os
import pathlib
import stat
import subprocess
import tempfile
import unittest

from harness import MESHCAT, SLOW, clean_environment, main


def run(*argv, cwd, **env):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=60 * SLOW,
                          cwd=cwd, env={**clean_environment(), **env}, check=False)
    return done.returncode, done.stdout, done.stderr


class Ca(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="meshd-ca-")
        self.cwd = pathlib.Path(self.folder.name)
        self.dir = self.cwd / "meshd-ca"

    def tearDown(self):
        self.folder.cleanup()

    def ca(self, *args, code=0):
        got, out, err = run(MESHCAT, "ca", *args, cwd=self.cwd)
        self.assertEqual(got, code, out + err)
        return out, err

    def shown(self, *args):
        return json.loads(self.ca("show", "--format", "json", *args)[0])

    def verify(self, node):
        code, out, err = run("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile",
                             "ca.pem", "-CRLfile", "crl.pem", "-crl_check_all", f"{node}.pem",
                             cwd=self.dir)
        return code, out + err

    def test_three_nodes_take_two_commands_and_openssl_agrees(self):
        self.ca("init")
        out, _ = self.ca("issue", "n1", "n2", "n3")
        self.assertEqual(out.splitlines()[1],
                         "PEER_NAME=n2 PEER_TLS_CA=meshd-ca/ca.pem PEER_TLS_CERT=meshd-ca/n2.pem "
                         "PEER_TLS_KEY=meshd-ca/n2-key.pem meshd")
        for node in ("n1", "n2", "n3"):
            self.assertEqual(self.verify(node), (0, f"{node}.pem: OK\n"))
        for path in self.cwd.rglob("*"):
            wanted = 0o700 if path.is_dir() else 0o600
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), wanted, path)

    def test_what_is_revoked_is_refused_and_the_renewed_one_is_not(self):
        self.ca("init")
        self.ca("issue", "n1", "n2")
        self.ca("revoke", "n2")
        code, text = self.verify("n2")
        self.assertNotEqual(code, 0)
        self.assertIn("certificate revoked", text)
        self.assertEqual(self.verify("n1")[0], 0)
        self.ca("issue", "n2")
        self.assertEqual(self.verify("n2")[0], 0)
        states = [(row["names"], row["state"]) for row in self.shown()]
        self.assertEqual(states[0], ([], "valid"))
        self.assertEqual(sorted(states[1:]), [(["n1"], "valid"), (["n2"], "revoked"), (["n2"], "valid")])

    def test_one_is_revoked_by_serial_and_said_again_it_is_no_error(self):
        self.ca("init", "--dir", "x")
        self.ca("issue", "n1", "--dir", "x", "--san", "alias,other")
        row = self.shown("--dir", "x")[1]
        self.assertEqual(row["names"], ["n1", "alias", "other"])
        self.ca("revoke", "--serial", row["serial"].lower(), "--dir", "x")
        _, err = self.ca("revoke", "--serial", row["serial"], "--dir", "x")
        self.assertIn("nothing is new", err)
        self.assertEqual(self.shown("--dir", "x")[1]["state"], "revoked")

    def test_mistakes_are_told_with_what_to_do(self):
        _, err = self.ca("issue", "n1", code=1)
        self.assertIn("meshcat ca init", err)
        self.ca("init")
        _, err = self.ca("init", code=2)
        self.assertIn("--dir", err)
        self.ca("issue", "n1", "a/b", code=2)
        self.assertFalse((self.dir / "n1.pem").exists(), "nothing is written when one name is wrong")
        self.ca("revoke", "n1", code=1)
        self.assertIn("none.pem: No such file", self.ca("show", "none.pem", code=1)[1])
        for wrong in (["make"], ["init", "x"], ["issue"], ["revoke"], ["issue", "a", "b", "--san", "c"],
                      ["init", "--serial", "1"], ["show", "--days", "3"], ["init", "--days", "0"],
                      ["show", "--dial", "tcp://127.0.0.1:1"], ["show", "--format", "hex"]):
            self.ca(*wrong, code=2)

    def test_a_folder_that_cannot_be_written_is_told(self):
        (self.cwd / "file").write_text("")
        code, _, err = run(MESHCAT, "ca", "init", "--dir", "file", cwd=self.cwd)
        self.assertEqual(code, 8)
        self.assertIn("file", err)

    def test_days_are_kept_and_never_outlive_the_ca(self):
        self.ca("init", "--days", "20")
        self.ca("issue", "n1", "--days", "7")
        self.ca("issue", "n2")
        ca, *nodes = self.shown()
        days = {row["names"][0]: row["days_left"] for row in nodes}
        self.assertIn(days["n1"], (6, 7))
        self.assertEqual([row["not_after"] for row in nodes if row["names"] == ["n2"]], [ca["not_after"]])
        self.assertEqual(ca["state"], "ending")

    def test_many_at_once_do_not_disturb_each_other(self):
        self.ca("init")
        running = [subprocess.Popen([MESHCAT, "ca", "issue", f"n{i}"], cwd=self.cwd, env=clean_environment(),
                                    stdout=subprocess.DEVNULL) for i in range(8)]
        running += [subprocess.Popen([MESHCAT, "ca", "issue", "same"], cwd=self.cwd, env=clean_environment(),
                                     stdout=subprocess.DEVNULL) for _ in range(4)]
        self.assertEqual([child.wait(60 * SLOW) for child in running], [0] * 12)
        self.assertEqual(len(self.shown()), 13)
        self.assertEqual(self.verify("same")[0], 0)
        key = run("openssl", "pkey", "-in", "same-key.pem", "-pubout", cwd=self.dir)[1]
        self.assertEqual(key, run("openssl", "x509", "-in", "same.pem", "-noout", "-pubkey", cwd=self.dir)[1])

    def test_show_tells_what_is_in_a_file_from_elsewhere(self):
        code, _, err = run("openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=\x1b[31mx",
                           "-addext", "subjectAltName=DNS:n9", "-days", "365", "-keyout", os.devnull,
                           "-out", "n9.pem", cwd=self.cwd)
        self.assertEqual(code, 0, err)
        row, = self.shown("n9.pem")
        self.assertEqual((row["names"], row["state"], row["ca"]), (["n9"], "valid", True))
        self.assertNotIn("\x1b", self.ca("show", "n9.pem")[0])


if __name__ == "__main__":
    main()
