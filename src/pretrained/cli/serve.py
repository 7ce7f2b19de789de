"""`pretrained serve`: a folder of models, or a Hugging Face cache, as a Hub for every client of one."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from ..errors import InvalidOptionError, printable
from ..options import parse_size
from .command import FINE, Command
from .output import progress, say

__all__ = ["serve"]


@click.command(cls=Command, short_help="Serve models as a Hub.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8760, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option("--writable", is_flag=True, help="Let those with a token create repositories and write to them.")
@click.option("--token", "tokens", multiple=True, metavar="USER=TOKEN", help="A user and their token; may be repeated.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Lines of USER=TOKEN, which `ps` does not show.")
@click.option("--org", "orgs", multiple=True, metavar="NAME=USER,…", help="An organisation and its members.")
@click.option("--require-token", is_flag=True, help="Show nothing to those without a token.")
@click.option("--allowed-host", "hosts", multiple=True, metavar="NAME", help="Another name clients reach this host by.")
@click.option("--url", metavar="URL", help="Address that clients use, where a proxy stands before the server.")
@click.option("--max-file-size", default="50GB", metavar="SIZE", show_default=True, help="Largest file to take.")
@click.option("--verbose", is_flag=True, help="A line on stderr for each request.")
def serve(
    path: Path,
    host: str,
    port: int,
    writable: bool,
    tokens: tuple[str, ...],
    token_file: Path | None,
    orgs: tuple[str, ...],
    require_token: bool,
    hosts: tuple[str, ...],
    url: str | None,
    max_file_size: str,
    verbose: bool,
) -> int:
    """Serves the models in PATH until it is interrupted; clients find them with HF_ENDPOINT.

    PATH is a folder of models (name, or organisation/name), one model, or a Hugging Face cache. What users write goes
    to PATH/.pretrained-hub.
    """
    from ..serve.folders import FolderShelf
    from ..serve.people import People
    from ..serve.running import HubServer, default_memory

    lines = token_file.read_text(encoding="utf-8").splitlines() if token_file is not None else []
    words = [*tokens, *(line.strip() for line in lines if line.strip() and not line.startswith("#"))]
    people = People(dict(_pairs("--token", words)), {name: users.split(",") for name, users in _pairs("--org", orgs)})
    server = HubServer(
        path,
        host,
        port,
        people,
        hosts,
        is_closed=require_token,
        writable=writable,
        max_file=parse_size(max_file_size),
        public_url=url,
        memory=default_memory(),
    )
    for shelf in server.shelves:
        if isinstance(shelf, FolderShelf):
            _read(shelf)
    server.bind()
    if verbose:
        _log_requests()
    count = sum(1 for shelf in server.shelves for kind in ("models", "datasets", "spaces") for _ in shelf.listed(kind))
    say(f"{path}: {count:,} {'repository' if count == 1 else 'repositories'} at {server.url}")
    say(f"HF_ENDPOINT={server.url} is what clients need; Ctrl-C ends it")
    try:
        server.run()
    except KeyboardInterrupt:
        say()  # the usual end
    return FINE


def _pairs(option: str, words: tuple[str, ...] | list[str]) -> list[tuple[str, str]]:
    found = [word.partition("=") for word in words]
    if any(not name or not value for name, _, value in found):
        # The word itself may be a token, so it is not shown.
        raise InvalidOptionError(f"{option} must be written as NAME=VALUE", key=option.lstrip("-"))
    names = [name for name, _, _ in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidOptionError(f"{option} names {twice!r:.100} twice", key=option.lstrip("-"))
    return [(name, value) for name, _, value in found]


def _read(shelf: object) -> None:
    """Computes the checksums that clients ask for, before the first of them has to wait."""
    from ..serve.folders import FolderShelf
    from ..serve.refusals import RefusedError

    assert isinstance(shelf, FolderShelf)
    repos = list(shelf.listed("models"))
    with progress("checksums", sum(repo.unread() for repo in repos)) as advance:
        for repo in repos:
            try:
                repo.scan(advance)
            except RefusedError as error:
                say(f"not served as it is: {error}")
    shelf.close()


class _Requests(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(record.getMessage())


def _log_requests() -> None:
    logger = logging.getLogger("pretrained.serve.app")
    handler = logging.StreamHandler()
    handler.setFormatter(_Requests())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
