#!/usr/bin/python3
"""What a node with TLS says and shows: no secret is in it, and nothing that moves a terminal."""
import base64
import re
import subprocess

import trust_rules
from forwarding import Backend, receive
from harness import MESHD, _die_with_parent, main, until
from mtls import Authority, Member, SecureNode, TrustTest, answered, openssl, replace
from test_strangers import load

QUESTIONS = (["introspect"], ["node"], ["explain", "one"], ["lookup", "one"], ["watch", "-C", "1"], ["ping"])
FORMATS = "table", "json", "jsonl", "text", "raw"


def spellings(secret):
    """How bytes may be written; a part of them is enough to be found."""
    part = secret[:9]
    return {part, part.hex().encode(), part.hex().upper().encode(), part.hex(" ").encode(), part.hex(":").encode(),
            *(base64.b64encode(secret[i:i + 9]) for i in range(3))}


class Shown(TrustTest):
    def key(self, leaf):
        """Of what is in the file: each line, and the number that is the key."""
        lines = [line for line in leaf.key.read_bytes().splitlines() if len(line) == 64]
        text = openssl("pkey", "-in", leaf.key, "-noout", "-text").stdout.decode()
        number = bytes.fromhex(re.sub(r"[\s:]", "", re.search(r"priv:([\s0-9a-f:]+)", text)[1])).lstrip(b"\0")
        self.assertGreaterEqual(len(number), 30)
        return set(lines) | spellings(number)

    def everything(self, node, formats=FORMATS):
        """All that can be had of it: what it printed, and every answer in every format."""
        said = node.out.read_bytes() + node.err.read_bytes()
        for question in QUESTIONS:
            for how in formats:
                done = node.cat(*question, "--format", how, check=False, text=False)
                said += done.stdout + done.stderr
        for flag in ("--print-config", "--check", "--help", "--version"):
            done = subprocess.run([MESHD, *self.mesh.flags, *node.flags, flag], env=node.environment(),
                                  capture_output=True, cwd=self.mesh.dir, preexec_fn=_die_with_parent, timeout=30)
            said += done.stdout + done.stderr
        return said

    def test_no_key_token_or_id_is_in_what_a_node_prints_logs_or_answers(self):
        pb = load(self.mesh.dir)
        one = Backend(self)
        n1 = self.mesh.node("n1", services=[f"one:{one.address}"], LOG_LEVEL="debug",
                            INGRESS_ADDR=self.ingress(1)).start()
        n2 = self.mesh.node("n2", peers=[n1], services=["two:127.0.0.1:9"], LOG_LEVEL="debug",
                            LOG_FORMAT="json").start()
        n1.until_live(n2)
        n3 = Member(self, pb, n1, "n3")
        secrets = self.key(n1.leaf) | self.key(n2.leaf)
        # A token that opened a link, one that did not, the session's id, a Forward's, and one that was guessed.
        hear = n3.register
        n3.register = lambda name=None: secrets.update(spellings((kept := hear(name))[1].token)) or kept
        n3.open()
        secrets |= spellings(n3.session[8:])
        ids = [self.random.randbytes(16) for _ in range(2)]
        n3.forward(ids[0], "one")
        backend, data = one.accept(), n3.data(ids[0], b"words of a client")
        answered(data)
        secrets |= spellings(receive(backend, 17))
        n3.data(ids[1]).close()
        n3.register()
        secrets |= set().union(*map(spellings, ids))
        # What is said of files that are wrong must not quote them.
        good = n1.files.key.read_bytes()
        for bad in (good[:-60], good.replace(b"PRIVATE", b"PUBLIC"), n2.leaf.key.read_bytes()):
            replace(n1.files.key, bad)
            self.assertIn("error [daemon] environment PEER_TLS_KEY: ", n1.take_files())
            secrets |= {line for line in bad.splitlines() if len(line) == 64}
        replace(n1.files.key, good)
        until("the guess was counted", lambda: n1.counters()["forward_data_late"] > 0)
        for node in (n1, n2):
            said = self.everything(node)
            self.assertIn(b"certificate of", said)
            self.assertEqual([secret for secret in secrets if secret in said], [], node.name)
            self.assertNotIn(b"PRIVATE KEY", said)

    def test_every_counter_of_the_rules_is_shown(self):
        n1 = self.mesh.node("n1").start()
        shown = set(re.findall(r"(?m)^([a-z_]+) +\d+$", n1.cat("node").stdout))
        self.assertEqual(trust_rules.counters() - shown, set())

    def test_names_in_certificates_move_no_terminal_and_forge_no_line(self):
        name = "CA \x1b[2J\x9b1m \u202e\nerror [tls] forged"
        self.mesh.ca = self.ca = Authority(self.mesh.dir / "odd", name)
        self.mesh.kind = SecureNode
        n1 = self.mesh.node("n1", services=["one:127.0.0.1:9"]).start()
        n2 = self.mesh.node("n2", peers=[n1], leaf=self.ca.issue("n2", "x\x1b[2Jy", "*.n2", "a b")).start()
        self.mesh.until_agreed()
        said = b"".join(self.everything(node, FORMATS[:-1]) for node in (n1, n2))
        self.assertIn(b"forged", said)  # it is told, and as text
        self.assertNotIn(b"\x1b", said)
        self.assertNotIn("\x9b".encode(), said)
        self.assertNotIn("\u202e".encode(), said)
        self.assertNotIn(b"\nerror [tls] forged", said)


del TrustTest
if __name__ == "__main__":
    main()
