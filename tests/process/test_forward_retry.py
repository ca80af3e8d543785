#!/usr/bin/python3
"""Several owners of one name: who is tried next, who is not, and what is never carried twice."""
import collections
import socket
import threading

from cable import DATA, Cable, reset
from forwarding import MAPPED, NOWHERE, Backend, ForwardTest, Reply, ask, breaks, head_for, receive, receive_all
from harness import main, until


class Owners(ForwardTest):
    """n1 has the ingress ports and dials n2 and n3, which both offer `web`."""

    # Who refuses or breaks is noticed, not waited for: each owner has its share of route_timeout.
    flags = ("--route-timeout=5m", "--open-timeout=5m")

    def three(self, cable=False, backends=("", "")):
        self.backends = [Backend(self), Backend(self)]
        self.owners = []
        for n, backend, given in zip((2, 3), self.backends, backends):
            node = self.mesh.node(f"n{n}", services=[f"web:{given or backend.address}"])
            self.owners.append(node.start())
        self.cables = [Cable(self, node, f"{self.mesh.net}.1") for node in self.owners] if cable else []
        self.n1 = self.mesh.node("n1", peers=[c.address for c in self.cables] or self.owners,
                                 INGRESS_ADDR=self.ingress(1, "web")).start()
        until("n1 knows both", lambda: len(self.n1.rows()) == 2 and
              all(r["connected"] for r in self.n1.rows().values()))

    def ask_web(self):
        return ask(self.connect(self.n1), head_for("web"))

    def carried(self, request=head_for("web")):
        """A client of `web`, and which of the backends it was brought to."""
        client = self.connect(self.n1)
        client.sendall(request)
        backend = self.outcome(client, *self.backends)
        self.assertIsNotNone(backend, "the client was turned away")
        return client, self.backends.index(backend)


class Refused(Owners):
    def test_owner_whose_backend_refuses_costs_the_client_nothing(self):
        self.three(backends=(f"{self.mesh.net}.200:{NOWHERE}", ""))
        self.backends[1].serve(b"from n3")
        for _ in range(20):
            reply = self.ask_web()
            self.assertEqual((reply.status, reply.text), (200, "from n3"))
        self.assertEqual(len(self.backends[1].served), 20)

    def test_request_with_a_body_is_carried_once_and_whole_by_the_second_owner(self):
        self.three(backends=(f"{self.mesh.net}.200:{NOWHERE}", ""))
        body = self.payload(300_000)
        head = head_for("web", "POST", more=f"Content-Length: {len(body)}\r\n")
        for _ in range(10):
            client = self.connect(self.n1)
            sending = threading.Thread(target=client.sendall, args=(head + body,))
            sending.start()
            backend = self.backends[1].accept()
            self.assertEqual(receive(backend, len(head + body)), head + body)
            sending.join()
            backend.close()
            client.close()
        self.assertTrue(self.backends[1].idle())

    def test_when_all_refuse_the_client_is_told_so(self):
        gone = f"{self.mesh.net}.200:{NOWHERE}"
        self.three(backends=(gone, gone))
        self.assertEqual(self.ask_web().status, 502)
        self.assertTrue(self.is_reset(self.n1, MAPPED))

    def test_own_backend_that_is_gone_leaves_the_client_to_the_owners(self):
        self.three(backends=("", f"{self.mesh.net}.200:{NOWHERE}"))
        self.n1.local("offer", "web", f"{self.mesh.net}.200:{NOWHERE}")
        self.backends[0].serve(b"from n2")
        for _ in range(5):
            self.assertEqual(self.ask_web().text, "from n2")


class Once(Owners):
    def test_request_that_was_delivered_is_not_tried_again(self):
        self.three()
        client, chosen = self.carried(head_for("web", "POST"))
        backend = self.backends[chosen].accept()
        receive(backend, len(head_for("web", "POST")))
        self.owners[chosen].kill()
        try:  # joined already or not: an error either way
            self.assertEqual(Reply(receive_all(client)).status, 502)
        except ConnectionResetError:
            pass
        self.assertTrue(self.backends[1 - chosen].idle())
        self.assertTrue(self.backends[chosen].idle())

    def test_owner_that_dies_between_the_request_and_the_join_is_told_at_once(self):
        self.three(cable=True)
        for cable in self.cables:
            cable.hold(DATA)
        client, chosen = self.carried(head_for("web", "POST"))
        backend = self.backends[chosen].accept()
        self.assertEqual(receive(backend, 4), b"POST")
        self.owners[chosen].kill()
        reply = Reply(receive_all(client))
        self.assertEqual(reply.status, 502)
        self.assertIn(self.owners[chosen].name, reply.text)
        self.assertTrue(breaks(backend))
        self.assertTrue(self.backends[1 - chosen].idle())

    def test_client_that_gives_up_while_pending_frees_the_backend(self):
        self.three(cable=True)
        for cable in self.cables:
            cable.hold(DATA)
        client, chosen = self.carried()
        backend = self.backends[chosen].accept()
        receive(backend, 4)
        reset(client)
        self.assertTrue(breaks(backend))
        until("nothing is pending", lambda: all(n.counters()["forward_pending"] == 0 for n in self.mesh.nodes))

    def test_client_that_has_said_all_is_still_waiting(self):
        self.three()
        client = self.connect(self.n1)
        client.sendall(head_for("web"))
        client.shutdown(socket.SHUT_WR)
        backend = self.outcome(client, *self.backends).accept()
        self.assertEqual(receive_all(backend), head_for("web"))
        backend.sendall(b"the answer")
        backend.close()
        self.assertEqual(receive_all(client), b"the answer")


class Choice(Owners):
    def test_clients_are_spread_by_how_many_each_owner_has(self):
        self.three()
        held = []
        for n in range(1, 11):
            client, chosen = self.carried()
            held.append((client, self.backends[chosen].accept(), chosen))
            counts = collections.Counter(chosen for _, _, chosen in held)
            self.assertLessEqual(max(counts.values()) * 2 - n, 1, counts)
        for client, backend, of in held:
            if of == 1:
                client.close()
                backend.close()
        until("n1 has noticed", lambda: self.n1.counters()["forward_relayed"] == 5)
        for _ in range(5):
            client, chosen = self.carried()
            self.assertEqual(chosen, 1)
            held.append((client, self.backends[1].accept(), 1))

    def test_owner_that_is_lost_gets_nobody_while_another_is_there(self):
        self.three()
        self.owners[0].kill()
        until("the loss is seen", lambda: not self.n1.rows()[f"web@{self.owners[0].host}"]["connected"])
        self.backends[1].serve(b"from n3")
        for _ in range(10):
            self.assertEqual(self.ask_web().text, "from n3")
        self.owners[1].kill()
        until("the loss is seen", lambda: not self.n1.rows()[f"web@{self.owners[1].host}"]["connected"])
        self.assertEqual(self.ask_web().status, 503)
        self.owners[0].start()
        until("it is back", lambda: f"web@{self.owners[0].host}" in self.n1.reachable(), 20)
        self.backends[0].serve(b"from n2")
        self.assertEqual(self.ask_web().text, "from n2")

    def test_client_that_has_said_nothing_is_carried_elsewhere_right_after_a_loss(self):
        self.three()
        self.owners[0].kill()  # nothing waits for it to be noticed
        for _ in range(10):
            client = self.connect(self.n1, MAPPED)
            backend = self.backends[1].accept()
            backend.sendall(b"hello")
            self.assertEqual(receive(client, 5), b"hello")

    def test_withdrawn_name_is_carried_no_more_and_its_streams_go_on(self):
        self.three()
        self.owners[0].local("offer", "other", self.backends[0].address)
        until("it is known", lambda: len(self.n1.rows()) == 3)
        client = self.connect(self.n1)
        client.sendall(head_for("other"))
        backend = self.backends[0].accept()
        receive(backend, len(head_for("other")))
        self.owners[0].local("withdraw", "other")
        until("it is gone", lambda: len(self.n1.rows()) == 2)
        self.assertEqual(ask(self.connect(self.n1), head_for("other")).status, 404)
        backend.sendall(b"still here")
        self.assertEqual(receive(client, 10), b"still here")


if __name__ == "__main__":
    main()
