"""The pages as text: nothing a model brings along becomes markup, and nothing is fetched from elsewhere."""

from __future__ import annotations

import html.parser
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pretrained.checkpoint.tensors import Entry
from pretrained.serve.markup import Markup, card_markup, element, join
from pretrained.serve.picture import MAX_BOXES, Box, size_picture, squarify

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
CARD = f"""---
license: mit
tags: ['<b>bold</b>', ok]
---
# Title {HOSTILE}

| a | b |
|---|---|
| 1 | {HOSTILE} |

<iframe src="http://evil.example"></iframe> <style>body {{ display: none }}</style>

[good](https://example.org/x) [file](sub/notes.txt) [up](../../api/whoami-v2) [js](javascript:alert(1))
[JS](JaVaScRiPt:alert(1)) [data](data:text/html,x) [root](/api/models) [here](#title) [two](//evil.example/x)

![far](http://evil.example/x.png) ![near](picture.png) ![odd](//evil.example/y.png) ![up](../../x.png)

```html" onload="alert(3)
{HOSTILE}
```
"""

ELEMENTS = """
html head meta title link body header main h1 h2 h3 p a span pre code table thead tbody tr th td form input figure
figcaption svg g rect text div em strong img ul li s br
"""


class Tags(html.parser.HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def check(text: str) -> Tags:
    """The elements of a page, once it is certain that none of them is dangerous."""
    tags = Tags(text)
    allowed = set(ELEMENTS.split())
    assert {name for name, _ in tags.found} <= allowed
    for name, attributes in tags.found:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], (name, attributes)
        for key in ("src", "href", "action"):
            value = attributes.get(key) or ""
            is_ours = value.startswith(("/", "#")) and not value.startswith("//")
            is_link = name == "a" and value.startswith(("https://example.org/", "http://127.0.0.1"))
            assert not value or is_ours or is_link, (name, attributes)
    return tags


@pytest.fixture
def pages(models: Path, serve: Any) -> Any:
    (models / "llama/README.md").write_text(CARD)
    (models / "llama/picture.png").write_bytes(b"\x89PNG")
    (models / f"llama/{HOSTILE.replace('/', '')}.txt").write_text("x")
    return serve(models)


def test_the_page_of_a_model(pages: Any) -> None:
    reply = pages("GET", "/llama", headers={"Accept": "text/html"})
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = reply.body.decode()
    tags = check(text)
    assert "model.embed_tokens.weight" in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text
    assert "Title &quot;&gt;&lt;script&gt;" in text
    assert [image["src"] for image in tags.of("img")] == [
        f"/llama/resolve/{pages('GET', '/api/models/llama').json['sha']}/picture.png"
    ]
    assert "[image: far]" in text
    links = [link["href"] or "" for link in tags.of("a")]
    assert "https://example.org/x" in links
    assert any(link.endswith("/sub/notes.txt") for link in links)
    downloads = [link for link in tags.of("a") if "download" in link]
    assert len(downloads) == len(pages("GET", "/api/models/llama").json["siblings"])
    for link in downloads:
        assert pages("GET", link["href"]).headers["content-disposition"].startswith("attachment")
    assert len(tags.of("rect")) == 21


def test_other_pages(pages: Any) -> None:
    check(pages("GET", "/").body.decode())
    found = check(pages("GET", "/?search=BERT").body.decode())
    assert [link["href"] for link in found.of("a")] == ["/", "/acme/bert"]
    check(pages("GET", f"/?search={quote(HOSTILE)}").body.decode())
    filtered = pages("GET", "/llama?tensor=embed").body.decode()
    assert filtered.count("<td>model.") == 1
    check(pages("GET", f"/llama?tensor={quote(HOSTILE)}").body.decode())
    assert "no tensor" not in pages("GET", "/acme/bert/tree/main").body.decode()
    sha = pages("GET", "/api/models/llama").json["sha"]
    assert pages("GET", f"/llama/commit/{sha}").headers["location"] == f"/llama/tree/{sha}"
    assert pages("GET", "/llama/blob/main/config.json").headers["location"] == "/llama/resolve/main/config.json"
    assert pages("GET", "/_assets/style.css").headers["content-type"] == "text/css; charset=utf-8"
    assert pages("GET", "/_assets/icon.svg").status == 200
    for path, status in ((f"/no/{quote(HOSTILE, safe='')}", 401), ("/llama/tree/nowhere", 404), ("/x/y/z/w", 404)):
        reply = pages("GET", path, headers={"Accept": "text/html,*/*"})
        assert reply.status == status
        check(reply.body.decode())
    assert pages("GET", "/no/thing", headers={"Accept": "*/*"}).json["error"]


def test_damaged_weights_and_no_card(models: Path, serve: Any) -> None:
    (models / "llama/model-00001-of-00002.safetensors").write_bytes(b"damaged")
    (models / "acme/bert/model.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    web = serve(models)
    assert "Tensors" in web("GET", "/llama").body.decode()
    assert "Tensors" not in web("GET", "/acme/bert").body.decode()


def test_pages_of_what_was_written(web: Any, repo: str) -> None:
    web.commit(repo, {"README.md": CARD.encode(), "a.txt": b"x"}, summary=HOSTILE)
    web("POST", f"/api/models/{repo}/tag/main", {"tag": "v1"}, user="ann")
    web.commit(repo, {"b.txt": b"x"}, user="bob", query="?create_pr=1", summary=HOSTILE, description=HOSTILE)
    web("POST", f"/api/models/{repo}/discussions/1/comment", {"comment": HOSTILE}, user="bob")
    text = web("GET", f"/{repo}").body.decode()
    check(text)
    assert {"v1", "refs/pr/1", "main"} <= set(re.findall(r'class="tag"><a href="[^"]*">([^<]*)<', text))
    text = web("GET", f"/{repo}/discussions/1").body.decode()
    check(text)
    assert text.count("&lt;script&gt;") >= 3
    assert web("GET", f"/{repo}/discussions/7").status == 404
    web("PUT", f"/api/models/{repo}/settings", {"gated": "auto"}, user="ann")
    text = web("GET", f"/{repo}").body.decode()
    assert "those who were given access" in text
    assert "Card" not in text
    web("PUT", f"/api/models/{repo}/settings", {"private": True}, user="ann")
    assert web("GET", f"/{repo}").status == 401
    assert repo not in web("GET", "/").body.decode()


def test_only_markup_is_markup() -> None:
    assert join("<a>", Markup("<b>"), None, 3) == "&lt;a&gt;<b>3"
    assert element("p", "<", class_='"', aria_label="&", id=None) == '<p class="&quot;" aria-label="&amp;">&lt;</p>'
    assert element("input", name="q") == '<input name="q"/>'
    text = card_markup("a < b\n\n1. x\n   - y\n\n~~s~~", str)
    assert text == "<p>a &lt; b</p>\n<ol>\n<li>x\n<ul>\n<li>y</li>\n</ul>\n</li>\n</ol>\n<p><s>s</s></p>\n"


@pytest.mark.parametrize("sizes", [[6, 6, 4, 3, 2, 2, 1], [1], [1000, 1], [1] * 100, [], [5, 0, 0]])
def test_areas_are_sizes(sizes: list[int]) -> None:
    box = Box(0, 0, 600, 400)
    boxes = list(squarify(sizes, box))
    kept = [size for size in sizes if size]
    assert len(boxes) == len(kept)
    for size, one in zip(kept, boxes, strict=True):
        assert one.width * one.height == pytest.approx(size / sum(kept) * 600 * 400)
        assert -1e-6 <= one.x <= one.x + one.width <= 600 + 1e-6
        assert -1e-6 <= one.y <= one.y + one.height <= 400 + 1e-6
    overlap = sum(
        max(0, min(a.x + a.width, b.x + b.width) - max(a.x, b.x))
        * max(0, min(a.y + a.height, b.y + b.height) - max(a.y, b.y))
        for number, a in enumerate(boxes)
        for b in boxes[:number]
    )
    assert overlap == pytest.approx(0, abs=1e-3)


def test_many_tensors_share_a_rectangle() -> None:
    entries = [Entry(f"layer.{n}", "float32", (n + 1,), Path("x"), 0, 4 * (n + 1)) for n in range(MAX_BOXES + 50)]
    text = size_picture(entries)
    assert text.count("<rect") == MAX_BOXES + 1
    assert "50 smaller tensors" in text
