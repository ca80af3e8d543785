#!/usr/bin/python3
"""The live page in a real browser: what happens in the mesh is seen without a reload, also by who
uses no mouse or no eyes, with 10,000 services, and when the node is gone.

MESHD_SHOTS names a folder for screenshots.
"""
import pathlib
import signal
import sys

import browser
from browser import Browser
from harness import MeshTest, main, until
from rawpeer import RawPeer
from test_strangers import load

ADMIN_PORT = 7480
MANY = 10000
MAX_ELEMENTS = 3000  # of the document, however many services there are

page = None  # the browser


def setUpModule():
    global page
    page = Browser()


def tearDownModule():
    page.close()


class PageTest(MeshTest):
    def setUp(self):
        super().setUp()
        page.look()
        self.allowed_errors = ()

    def tearDown(self):
        super().tearDown()
        wrong = [entry for entry in page.console()
                 if not any(allowed in entry["message"] for allowed in self.allowed_errors)]
        self.assertEqual(wrong, [], "the console stays empty")

    def viewed(self, name, **settings):
        """A node with the admin port."""
        node = self.mesh.node(name, LOG_MAPS="off", **settings)
        node.env["ADMIN_ADDR"] = f"{node.host}:{ADMIN_PORT}"
        node.page = f"http://{node.host}:{ADMIN_PORT}/"
        return node

    def open(self, node, hash=""):
        page.open(node.page + hash)
        page.until_text("#connection", "live")

    def follows_the_rules(self, look):
        """Of page_rules.js; look: the name of a screenshot, too."""
        page.run("drawNow('mesh')")  # of this width
        page.shot(look)
        self.assertEqual(page.run((pathlib.Path(__file__).parent / "page_rules.js").read_text()), [], look)

    def until_services(self, wanted, seconds=10):
        """The names on show are these."""
        until(f"services {wanted}; there are {page.column('services-table', 0)}",
              lambda: page.column("services-table", 0) == wanted, seconds)


class Live(PageTest):
    def setUp(self):
        super().setUp()
        self.n1 = self.viewed("n1", services=["web:127.0.0.1:80"]).start()

    def test_a_service_comes_changes_and_goes_without_a_reload(self):
        self.n1.local("offer", "early", "127.0.0.1:1")
        self.n1.local("withdraw", "early")
        self.open(self.n1)
        page.until_text("#change-list", "early@local withdrawn")
        page.run("window.sameDocument = true")
        self.until_services(["web"])
        self.n1.local("offer", "billing", "127.0.0.1:4100")
        self.until_services(["billing", "web"])
        self.n1.local("offer", "billing", "127.0.0.1:4200")
        until("the backend is another", lambda: page.rows("services-table")[0][3] == "127.0.0.1:4200")
        self.n1.local("withdraw", "billing")
        self.until_services(["web"])
        page.until_text("#change-list", "billing@local withdrawn")
        self.assertTrue(page.run("return window.sameDocument"))
        self.assertIn("n1", page.run("return document.title"))
        self.assertEqual(page.text("#tile-services"), "1")

    def test_a_killed_peer_turns_stale_and_goes(self):
        n2 = self.mesh.node("n2", services=["db:127.0.0.1:5432"], peers=[self.n1]).start()
        self.open(self.n1)
        self.until_services(["db", "web"])
        until("n2 is live", lambda: page.column("peers-table", 3) == ["live"])
        until("n2 is drawn", lambda: "n2, live, 1 service" in page.attribute("[data-peer=n2]", "aria-label"))
        n2.kill()
        until("db is stale", lambda: ["db", "stale"] in [[r[0], r[4]] for r in page.rows("services-table")])
        until("n2 is stale", lambda: page.column("peers-table", 3) == ["stale"])
        page.until_text("#note-peers", "1 stale")
        page.shot("stale")
        self.until_services(["web"])
        until("n2 is gone", lambda: page.column("peers-table", 0) == [])
        page.until_text("#change-list", "timed out")

    def test_the_links_between_others_are_drawn(self):
        n4 = self.mesh.node("n4").start()
        n2 = self.mesh.node("n2", peers=[self.n1, n4]).start()
        self.mesh.node("n3", peers=[self.n1, n2]).start()
        self.open(self.n1)
        speaks = lambda peer, *words: lambda: all(w in (page.attribute(f"[data-peer={peer}]", "aria-label") or "") for w in words)
        until("n2 tells of both", speaks("n2", "n2, live", "also linked with n3", "n4"))
        until("n3 tells of n2", speaks("n3", "n3, live", "also linked with n2"))
        until("n4 is known from n2", speaks("n4", "n4, no link with this node", "also linked with n2"))
        self.assertEqual(page.attribute("[data-peer=n4]", "data-link"), "far")
        lines = lambda state: page.attribute(f".chord[data-link={state}]", "d").count("M")
        until("two lines are drawn", lambda: lines("live") == 2)
        page.shot("mesh")
        n4.kill()
        until("the lost link is seen from here", speaks("n2", "also linked with n4 dialling, n3"))
        self.assertEqual([lines("live"), lines("dialling")], [1, 1])
        page.shot("mesh-lost")

    def test_a_lost_node_is_said_and_found_again(self):
        self.allowed_errors = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING",
                               "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")
        self.open(self.n1)
        self.until_services(["web"])
        self.n1.kill()
        page.until_text("#connection", "connection lost, trying again; what you see is from")
        self.assertIn("(cut off)", page.run("return document.title"))
        self.assertEqual(page.attribute("#connection", "aria-live"), "polite")
        self.assertEqual(page.column("services-table", 0), ["web"], "what was known stays on show")
        page.shot("cut-off")
        self.n1.services = ["web:127.0.0.1:80", "new:127.0.0.1:81"]
        self.n1.start()
        page.until_text("#connection", "live")
        self.until_services(["new", "web"])
        page.until_text("#change-list", "while not connected")
        self.assertNotIn("(cut off)", page.run("return document.title"))

    def test_a_node_that_stands_still_is_said_and_goes_on(self):
        self.open(self.n1)
        self.until_services(["web"])
        self.n1.signal(signal.SIGSTOP)
        page.until_text("#connection", "connection lost, trying again; what you see is from", 12)
        self.n1.signal(signal.SIGCONT)
        page.until_text("#connection", "live")
        self.n1.local("offer", "after", "127.0.0.1:1")
        self.until_services(["after", "web"])

    def test_a_main_loop_that_does_not_answer_is_said(self):
        self.open(self.n1)
        page.until_text("#ready", "ready")
        page.until_text("#mesh-hint", "No peers")
        self.assertEqual(page.run("model.nodeAt -= 60000; drawNow('header'); return byId('ready').textContent"),
                         "main loop does not answer")
        page.until_text("#ready", "ready")

    def test_why_a_peer_is_not_reached_is_said(self):
        n2 = self.viewed("n2", peers=[f"{self.mesh.net}.9:7400"]).start()
        self.open(n2)
        until("its row says so", lambda: "Connection refused" in "".join(page.column("peers-table", 3)))

    def test_explain_says_where_a_name_goes(self):
        self.open(self.n1)
        page.type("#explain-name", "web\n")
        page.until_text("#explain-candidates", "127.0.0.1:80")
        self.assertIn("chosen", page.text("#explain-candidates"))
        page.type("#explain-name", "nowhere\n")
        until("no candidate is left", lambda: page.text("#explain-candidates") == "")
        page.until_text("#explain-verdict", "nobody offers")

    def test_a_backend_that_does_not_answer_is_named(self):
        self.open(self.n1)
        self.n1.local("offer", "dead", "127.0.0.1:1", "--check", "tcp", "--check-interval", "0.2")
        page.until_text("#check-list", "dead 127.0.0.1:1")
        until("its row says so", lambda: page.rows("services-table")[0][4] == "unhealthy")
        self.n1.local("drain", "dead")
        page.until_text("#check-list", "unhealthy, draining dead 127.0.0.1:1")

    def test_what_strangers_say_is_text(self):
        said = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
        pb = load(self.mesh.dir)
        self.open(self.n1)
        peer = RawPeer(self, pb, self.n1, "n9", 9).join()
        peer.say(pb.LINK_KIND_GOODBYE, pb.Goodbye(reason=pb.GOODBYE_REASON_PROTOCOL, text=said))
        page.until_text("#change-list", said)
        self.assertIsNone(page.run("return window.hacked ?? null"))
        self.assertEqual(page.run("return document.querySelectorAll('img, ol script').length"), 0)


class Tables(PageTest):
    def setUp(self):
        super().setUp()
        services = [f"svc-{i:03}:127.0.0.1:{4000 + 7 * i % 300}" for i in range(250)]
        self.n1 = self.viewed("n1", services=services).start()
        self.n2 = self.mesh.node("n2", services=["db:10.1.2.3:5432", "mail:10.1.2.3:25"], peers=[self.n1]).start()
        until("n1 reaches n2", lambda: len(self.n1.reachable()) == 252)

    def test_filtering_and_sorting_are_in_the_address(self):
        self.open(self.n1)
        until("all are there", lambda: page.text("#services-count") == "252 services")
        self.assertEqual(len(page.rows("services-table")), 100)
        page.type("#services-filter", "SVC-01 local")
        until("ten are left", lambda: page.text("#services-count") == "10 of 252 services")
        page.click("#services-table thead th:nth-child(4) button")
        backends = page.column("services-table", 3)
        self.assertEqual(backends, sorted(backends))
        page.click("#services-table thead th:nth-child(4) button")
        self.assertEqual(page.column("services-table", 3), sorted(backends, reverse=True))
        self.assertEqual(page.attribute("#services-table [aria-sort]", "aria-sort"), "descending")
        shared = page.run("return location.hash")
        self.open(self.n1, shared)
        until("the same is seen from the address", lambda: page.text("#services-count") == "10 of 252 services")
        self.assertEqual(page.column("services-table", 3), sorted(backends, reverse=True))
        page.type("#services-filter", "10.1.2.3:25")
        self.until_services(["mail"])

    def test_the_pages_of_a_table(self):
        self.open(self.n1)
        until("all are there", lambda: page.text("#services-count") == "252 services")
        page.click("#services-pager button:last-child")
        page.click("#services-pager button:last-child")
        self.assertEqual(page.text("#services-pager span"), "201–252 of 252")
        self.assertEqual(len(page.rows("services-table")), 52)
        self.assertFalse(page.find("#services-pager button:last-child").is_enabled())
        self.n1.local("offer", "zzz", "127.0.0.1:1")
        until("it comes on this page", lambda: page.column("services-table", 0)[-1] == "zzz")
        page.look(360, 740)
        until("a phone has shorter ones", lambda: page.text("#services-pager span") == "1–25 of 253")
        page.click("#services .pager.below button:last-child")
        self.assertEqual(page.text("#services-pager span"), "26–50 of 253")
        self.assertEqual(page.run("return Math.round(byId('services').getBoundingClientRect().top)"), 0, "read from its top")

    def test_the_keyboard_is_enough(self):
        keys = browser.webdriver.common.keys.Keys
        self.mesh.node("n3", peers=[self.n1]).start()
        self.open(self.n1)
        page.keys(keys.TAB)
        self.assertEqual(self.focused(), "skip")
        page.keys(keys.ENTER)
        self.assertEqual(page.run("return document.activeElement.id"), "services")
        self.open(self.n1)
        until("n3 is drawn", lambda: page.attribute("[data-peer=n3]", "aria-label"))
        seen = self.tab_to("[data-peer=n2]", keys)
        self.assertIn("self", seen, "the node itself is on the way")
        self.assertNotEqual(page.run("return getComputedStyle(document.activeElement.querySelector('circle')).strokeWidth"), "2px",
                            "the focus is seen")
        page.keys(keys.ARROW_RIGHT)
        self.assertEqual(page.attribute(":focus", "data-peer"), "n3")
        self.assertIn("n3, ", page.text("#mesh-about"))
        page.keys(keys.ARROW_RIGHT)
        self.assertEqual(page.attribute(":focus", "data-peer"), "n2", "round and round")
        page.keys(keys.ENTER)
        self.until_services(["db", "mail"])
        self.assertIn("peer=n2", page.run("return location.hash"))
        self.assertEqual(page.attribute(":focus", "aria-pressed"), "true")
        page.keys(keys.ESCAPE)
        until("all are there", lambda: page.text("#services-count") == "252 services")
        self.tab_to("#services-filter", keys)
        page.keys("mail")
        self.until_services(["mail"])
        self.tab_to("#services-table thead th:nth-child(2) button", keys)
        page.keys(keys.SPACE)
        self.assertEqual(page.attribute("th:has(:focus)", "aria-sort"), "ascending")
        self.tab_to("#services-table tbody button", keys)
        page.keys(keys.ENTER)
        self.assertIn("n2", page.text("#services-peer"))

    def test_what_has_the_focus_is_in_sight(self):
        page.look(1280, 500)
        self.open(self.n1)
        until("all are there", lambda: page.text("#services-count") == "252 services")
        for place in range(90, 10, -1):  # upwards, to below what stays at the top
            seen = page.run("const button = document.querySelectorAll('#services-table tbody button')[arguments[0]]; button.focus();"
                            "const { x, y, height } = button.getBoundingClientRect();"
                            "return [1, height - 1].every((part) => document.elementFromPoint(x + 2, y + part) === button)", place)
            self.assertTrue(seen, f"the button of row {place}")
        page.click("#services-pager button:last-child")
        page.keys(browser.webdriver.common.keys.Keys.ENTER)
        self.assertEqual(page.text("#services-pager span"), "201–252 of 252")
        self.assertEqual(page.attribute(":focus", "aria-label"), "Previous page of services")

    def focused(self):
        return page.attribute(":focus", "class")

    def tab_to(self, selector, keys):
        """Presses Tab until that has the focus; the classes of what had it on the way."""
        seen = ""
        for _ in range(60):
            page.keys(keys.TAB)
            seen += " " + self.focused()
            if page.run("return document.activeElement.matches(arguments[0])", selector):
                return seen
        raise AssertionError(f"the Tab key does not reach {selector}")

    def test_what_readers_and_eyes_need_is_there(self):
        self.open(self.n1)
        until("all are there", lambda: page.text("#services-count") == "252 services")
        for scheme in ("light", "dark"):
            for width in (1280, 320):
                page.look(width, 2200, scheme)
                self.follows_the_rules(f"{scheme}-{width}")


class Long(PageTest):
    """Names as long as they may be, and addresses: at any width."""
    NAME = ".".join(["orders-and-invoices-of-the-european-region-and-of-all-others"] * 4)
    PEER = "a-peer-of-the-second-floor.frankfurt-am-main.example.org"

    def setUp(self):
        super().setUp()
        self.n1 = self.viewed("n1", services=["web:[2001:db8:4f2e:1100:a8bb:ccff:fedd:1234]:8080", f"{self.NAME}:{self.NAME}:65535"],
                              peers=[f"{self.mesh.net}.9:7400"]).start()
        self.mesh.node(self.PEER, n=2, services=["db:10.1.2.3:5432"], peers=[self.n1]).start()
        page.look(360, 740)
        self.open(self.n1)
        self.until_services(["db", self.NAME, "web"])
        until("both peers are drawn", lambda: page.run("return document.querySelectorAll('[data-peer]').length") == 2)
        until("why one is not reached is said", lambda: "Connection refused" in page.text("#peers-table"))

    def test_a_row_is_seen_whole_at_any_width(self):
        for width in (320, 360, 430, 768, 901, 1024, 1440, 1920, 2560):
            page.look(width, 2200)
            self.follows_the_rules(f"long-{width}")

    def test_it_is_seen_with_the_colours_of_the_system(self):
        for scheme in ("light", "dark"):
            page.look(1280, 2200, scheme, forced=True)
            self.follows_the_rules(f"forced-{scheme}")

    def test_a_screen_reader_finds_the_same_table_on_a_phone(self):
        wide = None
        for width in (1280, 360):
            page.look(width, 740)
            told = page.spoken("#services-table")
            self.assertEqual(told[0], ("table", "Services, by name and source"))
            self.assertEqual([name for role, name in told if role == "columnheader"],
                             ["name", "source", "peer", "backend", "state", "age"])
            self.assertEqual([name for role, name in told if role == "rowheader"], ["db", self.NAME, "web"])
            roles = [role for role, _ in told if role in ("row", "columnheader", "rowheader", "cell")]
            self.assertEqual(roles.count("row"), 4)
            self.assertEqual(roles.count("cell"), 15)
            wide = wide or roles
            self.assertEqual(roles, wide)

    def test_what_a_node_is_moves_nothing(self):
        place = "const { top } = byId('drawing').getBoundingClientRect(); return [top + scrollY, document.body.scrollHeight]"
        page.look(768, 740)
        page.run("drawNow('mesh')")
        before = page.run(place)
        for said in "Connection refused", f"{self.PEER}, live":
            page.run("[...document.querySelectorAll('[data-peer]')].find((g) => g.ariaLabel.includes(arguments[0])).focus()", said)
            page.until_text("#mesh-about", said)
            self.assertEqual(page.run(place), before)


class Many(PageTest):
    def test_10000_services_do_not_freeze_it(self):
        file = self.mesh.dir / "many.yaml"
        file.write_text("services:\n" + "".join(
            f"- {{name: s-{i:05}.example.org, backend: b:{i % 60000 + 1}}}\n" for i in range(MANY)))
        n1 = self.viewed("n1").start()
        n2 = self.mesh.node("n2", MESHD_CONFIG=file, LOG_MAPS="off", peers=[n1]).start()
        page.open("about:blank")
        self.open(n1)
        page.run("window.longest = 0; new PerformanceObserver((list) => { for (const entry of list.getEntries())"
                 " longest = Math.max(longest, entry.duration); }).observe({type: 'longtask', buffered: true})")
        until("all are there", lambda: page.text("#services-count") == "10,000 services", 20)
        for i in range(20):
            n1.local("offer", f"extra-{i}", "127.0.0.1:1")
        until("the others are there, too", lambda: page.text("#tile-services") == "10,020")
        latency = page.run(
            "const field = document.getElementById('services-filter'); const started = performance.now();"
            "field.value = 's-00777'; field.dispatchEvent(new Event('input')); document.body.offsetHeight;"
            "return performance.now() - started")
        self.until_services(["s-00777.example.org"])
        page.shot("10000")
        page.run("const field = document.getElementById('services-filter'); field.value = '';"
                 "field.dispatchEvent(new Event('input'))")
        page.shot("10000-all")
        elements = page.run("return document.querySelectorAll('*').length")
        print(f"10,000 services: longest task {page.run('return longest'):.0f} ms, "
              f"from a key to the rows {latency:.0f} ms, {elements} elements", file=sys.stderr)
        self.assertLess(elements, MAX_ELEMENTS)
        n2.kill()
        page.until_text("#change-list", "10,000 services of n2, stale")
        page.until_text("#note-services", "10,000 impaired")


if __name__ == "__main__":
    browser.skip_unless_there()
    main()
