"""The pages in Chromium: they are drawn, links work, nothing of a model runs, and nothing is fetched from elsewhere.

`make browser` installs Chromium where it can and runs these.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pretrained.serve.running import HubServer

pytestmark = pytest.mark.browser

SWITCHES = """
--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --window-size=1100,900
"""
CARD = """---
license: mit
---
# Card of the model

<script>window.ran = true; document.title = "ran"</script>
<img src="x" onerror="window.ran = true">
[click](javascript:window.ran=true) ![far](http://192.0.2.1/far.png) ![near](picture.svg)
"""
PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><script>window.ran = true</script></svg>'
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key under which WebDriver names an element


class Browser:
    """A session of Chromium by the W3C WebDriver protocol.

    Attributes:
        downloads: where it saves files.
    """

    def __init__(self, port: int, folder: Path) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        options = {
            "args": [*SWITCHES.split(), f"--user-data-dir={folder / 'profile'}"],
            "prefs": {"download.default_directory": str(self.downloads), "download.prompt_for_download": False},
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        found = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._url += f"/session/{found['sessionId']}"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        raw = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, raw, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["value"]

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a piece of JavaScript returns, run by the driver whatever the page allows."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, xpath: str) -> None:
        found = self._ask("POST", "/element", {"using": "xpath", "value": xpath})
        self._ask("POST", f"/element/{found[ELEMENT]}/click", {})

    def type(self, xpath: str, text: str) -> None:
        found = self._ask("POST", "/element", {"using": "xpath", "value": xpath})
        self._ask("POST", f"/element/{found[ELEMENT]}/value", {"text": text})

    @property
    def address(self) -> str:
        return str(self._ask("GET", "/url"))

    def log(self, kind: str) -> list[Any]:
        return list(self._ask("POST", "/se/log", {"type": kind}))

    def requested(self) -> list[str]:
        """Addresses of everything that pages asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("data:", "chrome"))]

    def close(self) -> None:
        self._ask("DELETE", "")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromedriver")
    assert program is not None, "chromedriver is missing: apt-get install chromium chromium-driver"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = subprocess.Popen([program, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        session = Browser(port, tmp_path_factory.mktemp("browser"))
        yield session
        session.close()
    finally:
        driver.terminate()
        driver.wait()


@pytest.fixture
def hub(models: Path) -> Iterator[HubServer]:
    (models / "acme/bert/README.md").write_text(CARD)
    (models / "acme/bert/picture.svg").write_text(PICTURE)
    (models / "acme/bert/page.html").write_text("<script>window.ran = true</script>")
    with HubServer(models) as server:
        yield server


def test_from_the_index_to_a_model(browser: Browser, hub: HubServer) -> None:
    browser.open(hub.url)
    assert browser.run("return document.querySelector('h1').innerText") == "2 repositories"
    assert browser.run("return getComputedStyle(document.body).maxWidth") == "1080px"
    browser.type("//input[@name='search']", "ber\n")
    assert browser.address == f"{hub.url}/?search=ber"
    assert browser.run("return document.querySelector('h1').innerText") == "1 repository"
    browser.click("//a[text()='acme/bert']")
    assert browser.address == f"{hub.url}/acme/bert"
    assert browser.run("return document.title") == "acme/bert"


def test_the_picture_is_drawn_to_scale(browser: Browser, hub: HubServer) -> None:
    browser.open(f"{hub.url}/acme/bert")
    boxes = browser.run(
        "return [...document.querySelectorAll('svg.sizes g')].map(g => {"
        " const r = g.querySelector('rect').getBoundingClientRect();"
        " return [g.querySelector('title').textContent, r.width * r.height] })"
    )
    areas = {title.partition(":")[0]: area for title, area in boxes}
    words, positions = (areas[f"bert.embeddings.{name}_embeddings.weight"] for name in ("word", "position"))
    assert words / positions == pytest.approx(99 / 40, rel=0.02)
    width = browser.run("return document.querySelector('svg.sizes').getBoundingClientRect().width")
    assert width > 900
    assert sum(areas.values()) == pytest.approx(width * width * 0.42, rel=0.02)
    assert browser.run("return getComputedStyle(document.querySelector('svg.sizes text')).fill") == "rgb(255, 255, 255)"
    browser.type("//input[@name='tensor']", "pooler\n")
    names = browser.run("return [...document.querySelectorAll('table')].at(1).innerText")
    assert "bert.pooler.dense.weight" in names
    assert "word_embeddings" not in names


def test_nothing_of_a_model_runs(browser: Browser, hub: HubServer) -> None:
    browser.requested()
    browser.open(f"{hub.url}/acme/bert")
    card = browser.run("return document.querySelector('.card').innerText")
    assert "Card of the model" in card
    assert "<script>" in card
    assert browser.run("return document.querySelector('.card img').naturalWidth") == 40
    assert browser.run("return window.ran === undefined && document.title === 'acme/bert'")
    asked = browser.requested()
    assert asked
    assert [url for url in asked if not url.startswith(f"{hub.url}/")] == []
    for name in ("page.html", "picture.svg"):
        browser.open(f"{hub.url}/acme/bert/resolve/main/{name}")
        assert browser.run("return window.ran === undefined")
    serious = [entry["message"] for entry in browser.log("browser") if entry["level"] == "SEVERE"]
    assert not [text for text in serious if "sandbox" not in text.lower() and "script" not in text.lower()]


def test_a_download_is_the_file(browser: Browser, hub: HubServer, models: Path) -> None:
    browser.open(f"{hub.url}/acme/bert")
    browser.click("//tr[td/a[text()='model.safetensors']]//a[text()='download']")
    target = browser.downloads / "model.safetensors"
    for _ in range(200):
        if target.exists():
            break
        time.sleep(0.05)
    assert target.read_bytes() == (models / "acme/bert/model.safetensors").read_bytes()


def test_a_page_of_another_site_can_neither_read_nor_write(browser: Browser, hub: HubServer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "evil").mkdir(parents=True)
    (other / "evil/config.json").write_text("{}")
    with HubServer(other) as evil:
        browser.open(f"{evil.url}/")
        read = browser.run(
            "return fetch(arguments[0]).then(r => r.text()).catch(e => 'refused')", f"{hub.url}/api/models"
        )
        assert read == "refused"
        script = (
            "return fetch(arguments[0], {method: 'POST', headers: {Authorization: 'Bearer x'}, body: '{}'})"
            ".then(r => 'sent').catch(e => 'refused')"
        )
        assert browser.run(script, f"{hub.url}/api/repos/create") == "refused"
