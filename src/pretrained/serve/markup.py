"""HTML in which everything that is not markup of ours is escaped, because only `element` makes markup."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

__all__ = ["Markup", "card_markup", "element", "file_url", "join"]

_EMPTY = frozenset({"meta", "link", "input", "br", "hr", "img", "rect"})
_MAX_CARD = 100_000  # characters that are rendered
_MAX_TOKENS = 50_000


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Part = str | int | None


def join(*parts: Part) -> Markup:
    """Parts one after the other; those that are no Markup are text, and escaped."""
    return Markup(
        "".join(part if isinstance(part, Markup) else html.escape(str(part)) for part in parts if part is not None)
    )


def element(name: str, /, *parts: Part, **attributes: Part) -> Markup:
    """An element around parts. A `_` at the end of an attribute's name goes, any other is a hyphen."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}/>" if name in _EMPTY else f"<{name}{written}>{join(*parts)}</{name}>")


def file_url(base: str, verb: str, revision: str, path: str) -> str:
    """Where a file is; `base` is the path of its repository."""
    return f"{base}/{verb}/{quote(revision, safe='')}/{quote(path)}"


def card_markup(text: str, address: Callable[[str], str]) -> Markup:
    """A card as HTML: CommonMark with tables, where HTML is shown as the text it is.

    Links lead to http, https, mailto and into the repository; images come from the repository alone, since one from
    elsewhere would tell elsewhere who reads the page.

    Args:
        text: the card without its head.
        address: a relative path in the repository → where that file is.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).enable(["table", "strikethrough"])
    tokens = parser.parse(text[:_MAX_CARD])[:_MAX_TOKENS]
    for token in tokens:
        for child in token.children or ():
            if child.type == "link_open":
                child.attrs["href"] = _link(str(child.attrs.get("href", "")), address)
                child.attrs["rel"] = "nofollow noreferrer noopener"
            elif child.type == "image":
                _settle_image(child, address)
    return Markup(parser.renderer.render(tokens, parser.options, {}))


def _link(target: str, address: Callable[[str], str]) -> str:
    if target.startswith("#") or target.lower().startswith(("http://", "https://", "mailto:")):
        return target
    return _inside(target, address) or "#"


def _inside(target: str, address: Callable[[str], str]) -> str | None:
    """Where a relative path leads; None if it is none."""
    from urllib.parse import unquote

    path = unquote(target.partition("#")[0].partition("?")[0]).removeprefix("./")
    if not path or ":" in path or "\\" in path or path.startswith("/") or ".." in path.split("/"):
        return None
    return address(path)


def _settle_image(token: Any, address: Callable[[str], str]) -> None:
    source = str(token.attrs.get("src", ""))
    inside = _inside(source, address)
    if inside is not None:
        token.attrs["src"] = inside
        return
    # What it shows is said, and where it is may be followed by whoever wants to.
    token.type, token.tag, token.nesting = "text", "", 0
    token.content = f"[image: {token.content or source}]"
    token.attrs = {}
    token.children = None
