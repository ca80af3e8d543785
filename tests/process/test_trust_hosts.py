#!/usr/bin/python3
"""Hosts of their own (hosts.py): plaintext does not leave one by itself, TLS does."""
import pathlib

from harness import PORT, until
from hosts import Host, HostNode, HostsTest, run
from mtls import Authority, Leaf


class SecureHostNode(HostNode):
    """With a certificate of the mesh's CA; tls: False, without."""

    def __init__(self, mesh, name, on, tls=True, **settings):
        super().__init__(mesh, name, on, **{"PEER_INSECURE": None} | settings)
        if tls:
            leaf = mesh.ca.issue(name)
            self.env |= {"PEER_TLS_CA": mesh.ca.cert, "PEER_TLS_CERT": leaf.cert, "PEER_TLS_KEY": leaf.key}


class Open(HostsTest):
    def setUp(self):
        super().setUp()
        self.mesh.ca = Authority(self.mesh.dir / "ca")
        self.h1, self.h2 = Host(self.net, 1), Host(self.net, 2)

    def node(self, name, on, **settings):
        node = SecureHostNode(self.mesh, name, on, **settings)
        self.mesh.nodes.append(node)
        return node

    def test_without_tls_a_node_neither_listens_nor_dials_there(self):
        node = self.node("n1", self.h1, tls=False).spawn()
        self.assertEqual(node.ended(), 2)
        said = node.err.read_text()
        self.assertIn(f"{self.h1.ip} is not loopback, and there is no TLS", said)
        for step in ("meshcat ca init", "meshcat ca issue n1", "PEER_TLS_CA=", "PEER_INSECURE=true"):
            self.assertIn(step, said)
        node = self.node("n2", self.h2, tls=False, host="127.0.0.1", peers=[f"{self.h1.ip}:{PORT}"]).spawn()
        self.assertEqual(node.ended(), 2)
        self.assertIn(f"REMOTE_PEER_ADDR, entry 1: {self.h1.ip} is not loopback", node.err.read_text())

    def test_nor_where_a_name_leads(self):
        pathlib.Path("/etc/hosts").write_text(f"127.0.0.1 localhost\n{self.h1.ip} elsewhere\n", "ascii")
        n1 = self.node("n1", self.h1, tls=False, PEER_INSECURE="true").start()
        n2 = self.node("n2", self.h2, tls=False, host="127.0.0.1", peers=[f"elsewhere:{PORT}"]).start()
        row = until("n2 refuses it", lambda: (
            row := n2.info()["links"][0]) and row["state"] == "refused" and row)
        self.assertEqual(row["address"], f"{self.h1.ip}:{PORT}")
        self.assertIn("it is not loopback, and there is no TLS: set PEER_TLS_CA", row["last_error"])
        self.assertEqual(n1.peer_rows(), {})

    def test_with_tls_they_are_linked_over_either_protocol(self):
        n1 = self.node("n1", self.h1, services=["web:127.0.0.1:80"]).start()
        n2 = self.node("n2", self.h2, services=["db:127.0.0.1:5432"], peers=[n1]).start()
        self.mesh.until_agreed()
        n3 = self.node("n3", self.h2, host="127.0.0.1", peers=[f"[{self.h1.ip6}]:{PORT}"],
                       PEER_BIND_ADDR=f"127.0.0.1:{PORT}")
        n1.kill()
        n1.env["PEER_BIND_ADDR"] = f":{PORT}"
        n1.start()
        n3.start()
        until("both are live", lambda: n1.sees(n2) == n1.sees(n3) == "live", 20)
        self.assertTrue(all(row["tls"] for row in n1.info()["links"]))


if __name__ == "__main__":
    run()
