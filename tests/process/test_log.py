#!/usr/bin/python3
"""What a node prints: both maps after every change, byte for byte, on standard output."""
import json
import re

from harness import MeshTest, main, until


def pictures(text):
    """The printed pictures, one per change: each begins with a services line that has a total."""
    parts = re.split(r"(?m)^(?=\[registry\] services peer_id=\S+ svc_map=)", text)
    return [part for part in parts if part]


class Printed(MeshTest):
    def until_printed(self, node, text):
        """Waits until the newest picture is text; last_sync becomes N."""
        def newest():
            lines = re.sub(r"last_sync=\d+", "last_sync=N", node.out.read_text())
            return bool(lines) and pictures(lines)[-1] == text
        try:
            until("the picture is printed", newest)
        except AssertionError:
            self.assertEqual(node.out.read_text(), text)

    def test_empty_maps(self):
        n1 = self.mesh.node("n1").start()
        self.until_printed(n1, "[registry] services peer_id=n1 svc_map={total=0}\n"
                               "[registry] peer_services_map peer_id=n1 {total_peers=0}\n")

    def test_both_maps_local_first_then_by_ip_then_by_name(self):
        n1 = self.mesh.node("n1", n=10, services=["web:127.0.0.1:80", "api:127.0.0.1:81"]).start()
        n2 = self.mesh.node("n2", n=9, services=["zoo:127.0.0.1:83", "bee:127.0.0.1:82"]).start()
        n3 = self.mesh.node("n3", n=11, services=["cat:[::1]:84"], peers=[n1, n2]).start()
        until("n3 knows all", lambda: len(n3.rows()) == 5)
        self.until_printed(n3, f"""\
[registry] services peer_id=n3 svc_map={{total=5}}
[registry] services peer_id=n3   | peer | name | backend |
[registry] services peer_id=n3   | ---- | ---- | ------- |
[registry] services peer_id=n3   | local | cat | [::1]:84 |
[registry] services peer_id=n3   | {n2.host} | bee | 127.0.0.1:82 |
[registry] services peer_id=n3   | {n2.host} | zoo | 127.0.0.1:83 |
[registry] services peer_id=n3   | {n1.host} | api | 127.0.0.1:81 |
[registry] services peer_id=n3   | {n1.host} | web | 127.0.0.1:80 |
[registry] peer_services_map peer_id=n3 {{total_peers=2}}
[registry] peer_services_map peer_id=n3   peer={n2.host} {{services=2 last_sync=N}}
[registry] peer_services_map peer_id=n3     | name | backend |
[registry] peer_services_map peer_id=n3     | ---- | ------- |
[registry] peer_services_map peer_id=n3     | bee | 127.0.0.1:82 |
[registry] peer_services_map peer_id=n3     | zoo | 127.0.0.1:83 |
[registry] peer_services_map peer_id=n3   peer={n1.host} {{services=2 last_sync=N}}
[registry] peer_services_map peer_id=n3     | name | backend |
[registry] peer_services_map peer_id=n3     | ---- | ------- |
[registry] peer_services_map peer_id=n3     | api | 127.0.0.1:81 |
[registry] peer_services_map peer_id=n3     | web | 127.0.0.1:80 |
""")

    def test_the_list_of_the_start_is_printed_once(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"]).start()
        n1.local("offer", "db", "127.0.0.1:81")
        until("printed", lambda: "svc_map={total=2}" in n1.out.read_text())
        self.assertEqual(n1.out.read_text().count("svc_map={total=1}"), 1)

    def test_each_change_is_printed_once(self):
        n1 = self.mesh.node("n1").start()
        until("the first picture", lambda: n1.out.read_text())
        for i in range(5):
            n1.local("offer", f"s{i}", "127.0.0.1:80")
            until("printed", lambda: f"svc_map={{total={i + 1}}}" in n1.out.read_text())
        n1.local("offer", "s1", "127.0.0.1:80")  # a repeat
        n1.local("withdraw", "s4")
        until("printed", lambda: "svc_map={total=4}" in pictures(n1.out.read_text())[-1])
        totals = re.findall(r"svc_map=\{total=(\d+)\}", n1.out.read_text())
        self.assertEqual(totals, ["0", "1", "2", "3", "4", "5", "4"])

    def test_summary_prints_first_lines_only_and_off_nothing(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"], LOG_MAPS="summary").start()
        self.until_printed(n1, "[registry] services peer_id=n1 svc_map={total=1}\n"
                               "[registry] peer_services_map peer_id=n1 {total_peers=0}\n")
        n2 = self.mesh.node("n2", services=["web:127.0.0.1:80"], LOG_MAPS="off").start()
        n2.local("offer", "db", "127.0.0.1:81")
        self.assertEqual(n2.out.read_text(), "")

    def test_json_lines_are_objects(self):
        n1 = self.mesh.node("n1", services=["web:127.0.0.1:80"], LOG_FORMAT="json").start()
        until("printed", lambda: "total_peers" in n1.out.read_text())
        lines = [json.loads(line) for line in n1.out.read_text().splitlines()]
        self.assertTrue(all(line["room"] == "registry" and "time" in line for line in lines))
        self.assertEqual(lines[0]["message"], "services peer_id=n1 svc_map={total=1}")
        for line in n1.err.read_text().splitlines():
            json.loads(line)

    def test_what_strangers_send_cannot_forge_a_line(self):
        n1 = self.mesh.node("n1").start()
        done = n1.local("offer", "web\n[registry] services", "127.0.0.1:80", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn("\n[registry] services\n", n1.out.read_text() + n1.err.read_text())


if __name__ == "__main__":
    main()
