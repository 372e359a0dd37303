"""The report in a real browser: headless Chromium, spoken to through its own driver."""

import base64
import io
import json
import re
import shutil
import socket
import subprocess
import urllib.request
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image
from report_study import make_report_study, quick_maps

from neuroigc.reporting import write_report

pytestmark = pytest.mark.browser

_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Draws WebGL without a GPU.
    "--enable-unsafe-swiftshader",
]


class Browser:
    """A session of chromedriver, which speaks JSON over HTTP."""

    def __init__(self, driver, profile):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [driver, f"--port={port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.url = f"http://127.0.0.1:{port}"
        try:
            self._wait()
            options = {"args": [*_ARGUMENTS, f"--user-data-dir={profile}"]}
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            started = self.post("/session", capabilities={"alwaysMatch": wanted})
        except BaseException:
            self._stop()
            raise
        self.url += f"/session/{started['sessionId']}"

    def _wait(self):
        for line in self.process.stdout:
            if "started successfully" in line:
                return
        raise RuntimeError("chromedriver did not start")

    def _stop(self):
        self.process.kill()
        self.process.communicate()

    def post(self, path, **body):
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def run(self, script):
        return self.post("/execute/sync", script=script, args=[])

    def devtools(self, command, **parameters):
        return self.post("/goog/cdp/execute", cmd=command, params=parameters)

    def log(self, kind):
        return self.post("/se/log", type=kind)

    def open(self, path, width):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)
        self.log("performance"), self.log("browser")
        self.post("/url", url=path.as_uri())

    def close(self):
        try:
            urllib.request.urlopen(
                urllib.request.Request(self.url, method="DELETE"), timeout=60
            ).close()
        finally:
            self._stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = shutil.which("chromedriver")
    if driver is None or not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no Chromium with its chromedriver on the search path")
    browser = Browser(driver, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = make_report_study(
        tmp_path_factory.mktemp("browser") / "study", subjects=[f"{n:02d}" for n in range(1, 9)]
    )
    with quick_maps():
        return write_report(folder)


@pytest.fixture(scope="module")
def small_report(tmp_path_factory):
    """A report with all its parts, of few subjects: axe takes long over large tables."""
    folder = make_report_study(tmp_path_factory.mktemp("small") / "study")
    with quick_maps():
        return write_report(folder)


def test_no_request_and_no_complaint(browser, report):
    browser.open(report, 1200)
    browser.run("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    messages = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    requested = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert report.as_uri() in requested
    assert [url[:40] for url in requested if not url.startswith(("file:", "data:"))] == []
    assert browser.log("browser") == []


def test_every_picture_is_shown(browser, report):
    browser.open(report, 1200)
    broken = browser.run(
        "return [...document.images].filter((image) => !image.naturalWidth).map((i) => i.alt)"
    )
    assert browser.run("return document.images.length") > 10
    assert broken == []


def test_an_injected_script_would_not_run(browser, report):
    browser.open(report, 1200)
    browser.run(
        "const script = document.createElement('script');"
        "script.textContent = 'window.harmed = true'; document.body.append(script);"
    )
    assert browser.run("return window.harmed === undefined")
    assert "Content Security Policy" in browser.log("browser")[0]["message"]


@pytest.mark.parametrize("width", [375, 1200])
def test_nothing_sticks_out_of_the_page(browser, report, width):
    browser.open(report, width)
    browser.run("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    outside = browser.run(
        """
        const width = document.documentElement.clientWidth;
        return [...document.body.querySelectorAll("*")]
          .filter((part) => !part.closest(".plate, .scroll, .skip"))
          .filter((part) => part.getBoundingClientRect().right > width + 1)
          .map((part) => part.tagName + " " + part.textContent.slice(0, 40));
        """
    )
    assert outside == []
    assert browser.run("return document.documentElement.scrollWidth") <= width


def test_tables_sort(browser, report):
    browser.open(report, 1200)
    column = """
        const table = document.querySelector("table.roi");
        const column = () => [...table.tBodies[0].rows].map((row) => row.cells[{0}].textContent);
        const header = table.tHead.rows[0].cells[{0}];
        """
    click = "header.querySelector('button').click();"
    mean = column.replace("{0}", "1")
    before = browser.run(mean + "return column()")
    numbers = sorted((float(text.replace("−", "-")) for text in before), reverse=True)
    assert [float(text.replace("−", "-")) for text in before] != numbers
    for order, expected in (("descending", numbers), ("ascending", numbers[::-1])):
        after, state = browser.run(
            mean + click + "return [column(), header.getAttribute('aria-sort')]"
        )
        assert [float(text.replace("−", "-")) for text in after] == expected
        assert state == order
    names = browser.run(column.replace("{0}", "0") + click + "return column()")
    assert names == sorted(names, key=str.lower)
    sorted_headers = "return table.querySelectorAll('th[aria-sort]').length"
    assert browser.run(mean + sorted_headers) == 1


def test_keyboard_reaches_tables_and_sorts(browser, report):
    browser.open(report, 1200)
    focusable = browser.run(
        """
        const button = document.querySelector("table.sortable button");
        button.focus();
        return document.activeElement === button && button.type === "button";
        """
    )
    assert focusable
    browser.post(
        "/actions",
        actions=[
            {
                "type": "key",
                "id": "keyboard",
                "actions": [
                    {"type": "keyDown", "value": "\ue007"},
                    {"type": "keyUp", "value": "\ue007"},
                ],
            }
        ],
    )
    assert browser.run(
        "return document.querySelector('table.sortable th').getAttribute('aria-sort')"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser, report, scheme):
    browser.open(report, 1200)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.devtools("Emulation.setEmulatedMedia", features=features)
    worst = browser.run(
        """
        const light = (text) => {
          const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map((value) => value / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ground = (part) => {
          for (; part; part = part.parentElement) {
            const color = getComputedStyle(part).backgroundColor;
            if (!/rgba\\(.*, 0\\)/.test(color)) return color;
          }
        };
        return [...document.body.querySelectorAll("*")]
          .filter((part) => [...part.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
          .filter((part) => !part.matches("script, style"))
          .map((part) => {
            const [a, b] = [light(getComputedStyle(part).color), light(ground(part))];
            return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), part.tagName];
          })
          .sort(([a], [b]) => a - b)[0];
        """
    )
    # The Web Content Accessibility Guidelines ask for 4.5 (level AA).
    assert worst[0] >= 4.5, worst


BRAIN = "#brain canvas[role=application]"


def start_brain(browser):
    browser.run("document.querySelector('button.start').click()")


def brain_pixels(browser):
    """Return what the brain's canvas shows, as (height, width, 3)."""
    part = browser.post("/element", using="css selector", value=BRAIN)
    name = next(iter(part.values()))
    with urllib.request.urlopen(f"{browser.url}/element/{name}/screenshot", timeout=60) as answer:
        picture = base64.b64decode(json.load(answer)["value"])
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


def press_key(browser, key):
    browser.run(
        f"document.querySelector('{BRAIN}')"
        f".dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))"
    )


def choose(browser, number, option):
    browser.run(
        f"const select = document.querySelectorAll('#brain select')[{number}];"
        f"select.value = '{option}'; select.dispatchEvent(new Event('change'));"
    )


def test_brain_is_drawn_when_it_is_started(browser, report):
    browser.open(report, 1200)
    assert browser.run(f"return document.querySelector('{BRAIN}') === null")
    assert browser.run("return document.querySelector('#brain img').naturalWidth") > 100
    start_brain(browser)
    first = brain_pixels(browser)
    inside = (first < 250).any(axis=2)
    assert 0.1 < inside.mean() < 0.9  # cortex on white
    spread = first.max(axis=2) - first.min(axis=2)
    assert (spread[inside] < 12).mean() > 0.3  # grey where nothing was measured
    red = (first[..., 0] - first[..., 2] > 60) & inside
    assert red.mean() > 0.003  # the strong areas
    # Both hemispheres, seen from behind, are about alike.
    assert (
        0.7
        < inside[:, : inside.shape[1] // 2].sum() / inside[:, inside.shape[1] // 2 :].sum()
        < 1.4
    )
    assert [line for line in browser.log("browser") if line["level"] == "SEVERE"] == []


def test_brain_turns_and_shows_other_maps(browser, report):
    browser.open(report, 1200)
    start_brain(browser)
    first = brain_pixels(browser)
    n_maps = browser.run("return document.querySelectorAll('#brain select')[0].options.length")
    assert n_maps == 8 * 2 + 3
    choose(browser, 0, n_maps - 1)
    other = brain_pixels(browser)
    assert np.abs(other - first).max() > 60
    assert "size" in browser.run(f"return document.querySelector('{BRAIN}').ariaLabel")
    choose(browser, 1, 1)
    turned = brain_pixels(browser)
    assert ((turned < 250).any(axis=2) != (other < 250).any(axis=2)).mean() > 0.05
    press_key(browser, "ArrowLeft")
    assert np.abs(brain_pixels(browser) - turned).max() > 60
    press_key(browser, "ArrowRight")
    np.testing.assert_array_equal(brain_pixels(browser), turned)


def test_brain_asks_for_nothing(browser, report):
    browser.open(report, 1200)
    start_brain(browser)
    brain_pixels(browser)
    sent = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in sent
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert [url[:40] for url in urls if not url.startswith(("file:", "data:"))] == []


def test_names_of_subjects_are_text_for_the_brain_too(browser, tmp_path):
    name = "<script>01"
    folder = make_report_study(tmp_path / "study", subjects=("01",), encoded=())
    for path in [*folder.glob("*.tsv"), folder / "summary.json"]:
        text = path.read_text(encoding="utf-8")
        text = re.sub("^01\t", f"{name}\t", text.replace('"01"', f'"{name}"'), flags=re.M)
        path.write_text(text, encoding="utf-8")
    for path in [*folder.glob("sub-*/*"), *folder.glob("labels/*")]:
        path.rename(path.with_name(path.name.replace("sub-01", "sub-script01")))
    with quick_maps():
        page = write_report(folder)
    browser.open(page, 1200)
    start_brain(browser)
    names = browser.run(
        "return [...document.querySelectorAll('#brain select')[0].options].map((o) => o.text)"
    )
    assert len(names) == 2
    assert all(text.endswith(f"subject {name}") for text in names)
    assert browser.run("return document.scripts.length") == 1
    assert [line for line in browser.log("browser") if line["level"] == "SEVERE"] == []


def test_brain_fits_on_a_telephone(browser, report):
    browser.open(report, 375)
    start_brain(browser)
    assert browser.run("return document.documentElement.scrollWidth") <= 375


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, small_report, scheme):
    browser.open(small_report, 1200)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.devtools("Emulation.setEmulatedMedia", features=features)
    start_brain(browser)
    browser.run("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    browser.run((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    browser.run("axe.run().then((found) => (window.found = found.violations))")
    wait = "return new Promise((done) => setTimeout(() => done(window.found || null), 1000))"
    found = next(answer for _ in range(60) if (answer := browser.run(wait)) is not None)
    found = [(one["impact"], one["id"], one["nodes"][0]["html"][:100]) for one in found]
    assert [one for one in found if one[0] in ("serious", "critical")] == []


def test_what_is_uncertain_sorts_last_and_words_sort(browser, report):
    browser.open(report, 1200)
    lights = browser.run(
        """
        const table = [...document.querySelectorAll("table.sortable")]
          .find((one) => one.caption.textContent.startsWith("Sanity"));
        const column = (k) => [...table.tBodies[0].rows].map((row) => row.cells[k].textContent);
        const press = (k) => table.tHead.rows[0].cells[k].querySelector("button").click();
        press(1);
        const words = column(1);
        press(4);
        return [words, column(4)];
        """
    )
    assert lights[0] == sorted(lights[0])
    assert set(lights[0]) == {"green", "amber", "red"}
    values = lights[1]
    n_known = values.index("–")
    assert set(values[n_known:]) == {"–"}
    numbers = [float(value) for value in values[:n_known]]
    assert numbers == sorted(numbers, reverse=True)


def test_readable_without_script(browser, report):
    browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(report, 1200)
        tree = browser.devtools("DOM.getOuterHTML", nodeId=_root(browser))["outerHTML"]
    finally:
        browser.devtools("Emulation.setScriptExecutionDisabled", value=False)
    assert "<button" not in tree
    assert "Regions of interest" in tree


def _root(browser):
    return browser.devtools("DOM.getDocument")["root"]["nodeId"]
