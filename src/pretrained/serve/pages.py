"""Pages for people: what is served, and a model with its files, card and tensors. No script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from ..checkpoint.tensors import Entry
from ..errors import printable
from ..report import human_bytes
from .calls import Call
from .cards import MAX_CARD, facts_of, read_small, split_card
from .markup import Markup, card_markup, element, file_url, join
from .names import KINDS
from .picture import size_picture
from .refusals import RefusedError
from .replies import SAFE_HEADERS
from .repository import MAIN, HubFile, Repository, Tree, history
from .style import ICON, STYLE
from .tensors import entries_of

__all__ = ["blob", "commit", "discussion", "error_page", "icon", "index", "model", "style"]

MAX_ROWS = 2000  # of a table
MAX_COMMITS = 20
MAX_LISTED = 200
_PAGE_HEADERS = {
    **SAFE_HEADERS,
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
}


def _page(title: str, *parts: Markup | None, status: int = 200) -> Response:
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", printable(title, 300)),
        element("link", rel="stylesheet", href="/_assets/style.css"),
        element("link", rel="icon", href="/_assets/icon.svg"),
    )
    body = element("body", element("header", element("a", "Models on this server", href="/")), element("main", *parts))
    text = join(Markup("<!doctype html>\n"), element("html", head, body, lang="en"))
    raw = text.encode("utf-8", "replace")
    return Response(raw, status, _PAGE_HEADERS, media_type="text/html; charset=utf-8")


def error_page(error: RefusedError) -> Response:
    """A refusal for people."""
    title = f"Error {error.status}"
    reply = _page(title, element("h1", title), element("p", printable(error, 500)), status=error.status)
    reply.headers.update(error.headers)
    return reply


async def style(call: Call) -> Response:
    """The style sheet."""
    headers = {**SAFE_HEADERS, "Cache-Control": "max-age=600"}
    return Response(STYLE, headers=headers, media_type="text/css; charset=utf-8")


async def icon(call: Call) -> Response:
    """The picture for the tab."""
    headers = {**SAFE_HEADERS, "Cache-Control": "max-age=600"}
    return Response(ICON, headers=headers, media_type="image/svg+xml")


async def index(call: Call) -> Response:
    """Everything that is served, by name."""
    return await call.slowly(_index, call)


def _index(call: Call) -> Response:
    search = call.request.query_params.get("search", "")[:100]
    found = [repo for kind in KINDS for repo in call.site.listed(kind, call.user) if search.lower() in repo.id.lower()]
    rows = [_index_row(repo) for repo in found[:MAX_LISTED]]
    form = element(
        "form",
        element("input", type="search", name="search", value=search, placeholder="Part of a name", aria_label="Search"),
        method="get",
        action="/",
    )
    more = f"{len(found) - MAX_LISTED} more are not listed; search for them" if len(found) > MAX_LISTED else None
    return _page(
        "Models",
        element("h1", f"{len(found)} {'repository' if len(found) == 1 else 'repositories'}"),
        form,
        _table(("name", "size", "changed"), rows, numbers=(1,)) if rows else element("p", "Nothing here."),
        element("p", more) if more else None,
        element("h2", "For clients"),
        element("pre", f"export HF_ENDPOINT={call.base}"),
    )


def _index_row(repo: Repository) -> tuple[Markup | str, ...]:
    from .reading import iso

    kind = "" if repo.kind == "models" else f"{repo.kind}/"
    link = element("a", kind + repo.id, href=_home(repo))
    try:
        oid = repo.refs().branches.get(MAIN)
    except RefusedError:
        return link, "", "cannot be read now"
    size = human_bytes(repo.tree(oid).nbytes) if oid is not None else ""
    changed = iso(repo.commit(oid).seconds)[:10] if oid is not None else ""
    return link, size, changed


def _home(repo: Repository) -> str:
    return f"/{'' if repo.kind == 'models' else f'{repo.kind}/'}{quote(repo.id)}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[Markup | str]], numbers: Sequence[int] = ()) -> Markup:
    kinds = ["number" if at in numbers else None for at in range(len(titles))]
    head = element("tr", *(element("th", title, class_=kind) for title, kind in zip(titles, kinds, strict=True)))
    lines = [
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    return element("table", element("thead", head), element("tbody", *lines))


async def model(call: Call, revision: str) -> Response:
    """A repository at a revision."""
    return await call.slowly(_model, call, revision)


def _model(call: Call, revision: str) -> Response:
    repo = call.repo
    oid = call.commit_of(revision)
    tree = repo.tree(oid)
    facts = facts_of(repo, oid)
    tags = [element("span", printable(tag, 100), class_="tag") for tag in facts["tags"][:60]]
    marks = [mark for mark, is_so in (("private", repo.private), ("gated", bool(repo.gated))) if is_so]
    parts: list[Markup | None] = [
        element("h1", repo.id),
        element("p", *(element("span", mark, class_="tag") for mark in marks), *tags),
        element("p", f"{revision} is {oid}", class_="mono soft"),
        element("pre", _usage(call, repo, revision)),
        element("h2", f"Files ({human_bytes(tree.nbytes)})"),
        _files(repo, oid, tree),
    ]
    if call.site.may_read(call.user, repo):
        parts += [*_card(repo, oid, tree), *_tensors(call, repo, oid, tree)]
    else:
        parts.append(element("p", "The files are for those who were given access."))
    return _page(repo.id, *parts, *_history(repo, oid), *_refs(repo))


def _usage(call: Call, repo: Repository, revision: str) -> str:
    words = f"export HF_ENDPOINT={call.base}\nhf download {repo.id}"
    words += "" if repo.kind == "models" else f" --repo-type {repo.kind.removesuffix('s')}"
    return words if revision == MAIN else f"{words} --revision {revision}"


def _files(repo: Repository, oid: str, tree: Tree) -> Markup:
    rows = []
    for file in list(tree.files.values())[:MAX_ROWS]:
        url = file_url(_home(repo), "resolve", oid, file.path)
        rows.append(
            (
                element("a", file.path, href=url),
                human_bytes(file.size),
                f"sha256 {file.sha256[:12]}…" if file.sha256 else f"git {file.oid[:12]}…",
                element("a", "download", href=f"{url}?download=true", download=file.path.rpartition("/")[2]),
            )
        )
    table = _table(("file", "size", "content", ""), rows, numbers=(1,))
    return join(table, _more(len(tree.files), "files"))


def _more(count: int, what: str) -> Markup | None:
    return element("p", f"{count - MAX_ROWS:,} more {what} are not shown.", class_="soft") if count > MAX_ROWS else None


def _tensors(call: Call, repo: Repository, oid: str, tree: Tree) -> Iterator[Markup]:
    """The picture and the table of tensors, read from the headers of safetensors files."""
    entries = entries_of(repo, oid, tree)
    if not entries:
        return
    total = sum(entry.nbytes for entry in entries)
    wanted = call.request.query_params.get("tensor", "")[:200]
    shown = [entry for entry in entries if wanted in entry.name]
    yield element("h2", f"Tensors ({len(entries):,}, {_parameters(entries)}, {human_bytes(total)})")
    yield size_picture(entries)
    box = element(
        "input", type="search", name="tensor", value=wanted, placeholder="Part of a name", aria_label="Tensor"
    )
    yield element("form", box, method="get")
    rows = [
        (entry.name, str(list(entry.shape)), entry.dtype, human_bytes(entry.nbytes), str(entry.file))
        for entry in shown[:MAX_ROWS]
    ]
    yield _table(("tensor", "shape", "dtype", "size", "file"), rows, numbers=(3,))
    if (more := _more(len(shown), "tensors")) is not None:
        yield more


def _parameters(entries: Sequence[Entry]) -> str:
    count = 0
    for entry in entries:
        elements = 1
        for dim in entry.shape:
            elements *= dim
        count += elements
    for size, word in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.2f}{word} elements"
    return f"{count} elements"


def _card(repo: Repository, oid: str, tree: Tree) -> Iterator[Markup]:
    file: HubFile | None = tree.files.get("README.md")
    if file is None:
        return
    try:
        text = read_small(repo, oid, file, MAX_CARD).decode("utf-8", "replace")
    except OSError:
        return
    body = _card_body(split_card(text)[1], _home(repo), oid)
    yield element("h2", "Card")
    yield element("div", body, class_="card")


@lru_cache(maxsize=64)
def _card_body(text: str, home: str, oid: str) -> Markup:
    return card_markup(text, lambda path: file_url(home, "resolve", oid, path))


def _history(repo: Repository, oid: str) -> Iterator[Markup]:
    from .reading import iso

    rows = [
        (
            element("a", commit.oid[:8], href=f"{_home(repo)}/tree/{commit.oid}"),
            printable(commit.title, 200),
            printable(commit.author, 100),
            iso(commit.seconds)[:16].replace("T", " "),
        )
        for commit, _ in zip(history(repo, oid), range(MAX_COMMITS), strict=False)
    ]
    yield element("h2", "Commits")
    yield _table(("commit", "", "by", "at (UTC)"), rows)


def _refs(repo: Repository) -> Iterator[Markup]:
    refs = repo.refs()
    named: Mapping[str, str] = {**refs.branches, **refs.tags, **{f"refs/pr/{n}": oid for n, oid in refs.pulls.items()}}
    if len(named) > 1:
        yield element("h2", "Branches, tags, pull requests")
        links = [element("a", name, href=f"{_home(repo)}/tree/{quote(name, safe='')}") for name in list(named)[:200]]
        yield element("p", *(element("span", link, class_="tag") for link in links))


async def commit(call: Call, oid: str) -> Response:
    """Leads to the repository as it was at a commit."""
    await run_in_threadpool(call.commit_of, oid)
    return RedirectResponse(f"{_home(call.repo)}/tree/{quote(oid, safe='')}", 302, headers=SAFE_HEADERS)


async def blob(call: Call, revision: str, parts: tuple[str, ...]) -> Response:
    """Leads to a file itself."""
    await run_in_threadpool(call.commit_of, revision)
    url = file_url(_home(call.repo), "resolve", revision, "/".join(parts))
    return RedirectResponse(url, 302, headers=SAFE_HEADERS)


async def discussion(call: Call, number: str) -> Response:
    """A discussion or pull request as it was said."""
    return await call.slowly(_discussion, call, number)


def _discussion(call: Call, number: str) -> Response:
    from .discussions import described

    found = described(call, number)
    parts: list[Markup | None] = [
        element("h1", printable(found["title"], 300)),
        element("p", found["status"], " by ", found["author"]["name"], class_="soft"),
        element("p", element("a", call.repo.id, href=_home(call.repo))),
    ]
    for event in found["events"]:
        what = f"{event['author']['name']} · {event['type']} · {event['createdAt'][:16].replace('T', ' ')}"
        text = event["data"].get("latest", {}).get("raw") or event["data"].get("subject") or event["data"].get("status")
        parts += [element("p", what, class_="soft"), element("pre", printable(text or "", 4000))]
    return _page(found["title"], *parts)
