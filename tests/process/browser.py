"""browser - one headless Chromium for a file of tests, driven by chromedriver.

Ends with 77, which the test runner takes as "skipped", where there is none.
"""
import contextlib
import os
import pathlib
import shutil
import sys
import tempfile

from harness import until

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
try:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
except ImportError:
    webdriver = None

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage")
SHOTS = os.environ.get("MESHD_SHOTS")


def skip_unless_there():
    if webdriver and os.path.exists(CHROMIUM) and os.path.exists(DRIVER):
        return
    print("skipped: needs the packages chromium, chromium-driver and python3-selenium")
    sys.exit(77)


class Browser:
    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="meshd-chromium-")
        options = Options()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={self.profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.driver.set_script_timeout(20)
        # Without a window manager the window may never have it.
        self.driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})

    def close(self):
        with contextlib.suppress(Exception):
            self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)

    def look(self, width=1280, height=900, scheme="light", forced=False):
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme},
                         {"name": "forced-colors", "value": "active" if forced else "none"}]})

    def open(self, url):
        self.driver.get("about:blank")  # so that another hash of the same page is a load, too
        self.console()
        self.driver.get(url)

    def run(self, script, *args):
        return self.driver.execute_script(script, *args)

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def attribute(self, selector, name):
        return self.run("return document.querySelector(arguments[0])?.getAttribute(arguments[1]) ?? ''", selector, name)

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def click(self, selector):
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        self.find(selector).click()

    def type(self, selector, text):
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def keys(self, *keys):
        """To whatever has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def rows(self, table):
        """The rows on show, each as a list of its cells' texts."""
        return self.run("return [...document.getElementById(arguments[0]).tBodies[0].rows]"
                        ".map((row) => [...row.cells].map((cell) => cell.innerText.trim()))", table)

    def column(self, table, n):
        return [row[n] for row in self.rows(table)]

    def spoken(self, selector):
        """What a screen reader is told of that element and what is in it: (role, name) of each part."""
        found = self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": f"document.querySelector({selector!r})"})
        part = {"objectId": found["result"]["objectId"]}
        top = self.driver.execute_cdp_cmd("Accessibility.getPartialAXTree", {**part, "fetchRelatives": False})["nodes"][0]
        nodes = self.driver.execute_cdp_cmd("Accessibility.queryAXTree", part)["nodes"]
        return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in [top, *nodes] if not n["ignored"]]

    def until_text(self, selector, wanted, seconds=10):
        return until(f"{selector} says {wanted!r}; it says {self.text(selector)!r}",
                     lambda: wanted in self.text(selector), seconds)

    def console(self):
        """What the page's console has been told since last asked."""
        return self.driver.get_log("browser")

    def shot(self, name):
        if SHOTS:
            folder = pathlib.Path(SHOTS)
            folder.mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(folder / f"{name}.png"))
