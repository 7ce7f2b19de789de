"""`pretrained download`: what a load of a model would need, into the cache or a folder."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import click

from .._types import Snapshot
from ..checkpoint.commit import Stage
from ..checkpoint.files import safe_name
from ..checkpoint.find import Weights, find_checkpoint
from ..errors import SourceError
from ..hub.ref import resolve
from .command import FINE, Command, Where, source_options
from .convert import HEAVY
from .output import emit_json, plural, say

__all__ = ["download"]


@click.command(cls=Command, short_help="Fetch what a load would need.")
@click.argument("source")
@click.option(
    "--to", "target", type=click.Path(path_type=Path, file_okay=False), help="Put the files into this folder."
)
@click.option("--all", "everything", is_flag=True, help="Every file, also weights that a load would not read.")
@click.option("--verify", is_flag=True, help="Compare checksums of what is in the cache already, too.")
@click.option("--force", is_flag=True, help="Fetch what is in the cache already, too.")
@click.option("--endpoint", metavar="URL", help="Another hub than that of HF_ENDPOINT.")
@click.option("--token", envvar="HF_TOKEN", metavar="TOKEN", help="By default the stored one, or that of HF_TOKEN.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@source_options
def download(
    source: str,
    target: Path | None,
    everything: bool,
    verify: bool,
    force: bool,
    endpoint: str | None,
    token: str | None,
    as_json: bool,
    where: Where,
) -> int:
    """Fetches SOURCE, a name on a hub or a URL: the weights that a load would read, configs, tokenizer and the rest.

    Resumed where an earlier run ended, and verified. Without --to the files are in the Hugging Face cache.
    """
    options = replace(
        where.source, endpoint=endpoint, token=token, force_download=force, verify=True if verify else "auto"
    )
    snapshot = resolve(source, options)
    names = list(snapshot.names()) if everything else _needed(snapshot, where)
    if not names:
        raise SourceError(f"there is nothing to fetch in {snapshot.name}", path=snapshot.name)
    snapshot.fetch(names)
    paths = {name: snapshot.path(name) for name in names}
    total = sum(path.stat().st_size for path in paths.values())
    place = _common_folder(paths) if target is None else _copied(paths, target)
    if as_json:
        emit_json(
            {"source": snapshot.name, "commit": snapshot.commit, "path": str(place), "files": names, "bytes": total}
        )
    else:
        say(f"{plural(len(names), 'file')}, {total:,} bytes: {place}")
    return FINE


def _needed(snapshot: Snapshot, where: Where) -> list[str]:
    """Names of what a load would read, and of everything that is no weights."""
    weights = find_checkpoint(snapshot, where.weights)
    used = _names_of(snapshot, weights)
    return [name for name in snapshot.names() if name in used or not HEAVY.fullmatch(name)]


def _names_of(snapshot: Snapshot, weights: Weights) -> set[str]:
    """The names of the files that were opened."""
    opened = {os.path.abspath(path) for path in weights.containers}
    if weights.index is not None:
        opened.add(os.path.abspath(weights.index.path))
    candidates = [name for name in snapshot.names() if HEAVY.fullmatch(name)]
    by_end = {name for name in candidates if any(path.endswith(f"/{name}") for path in opened)}
    return {name for name in by_end if os.path.abspath(snapshot.path(name)) in opened}


def _common_folder(paths: dict[str, Path]) -> Path:
    """The folder in which the cache has all of them under their names."""
    name, path = next(iter(paths.items()))
    return path.parents[name.count("/")]


def _copied(paths: dict[str, Path], target: Path) -> Path:
    """Puts the files into a folder, all or nothing."""
    with Stage(target) as stage:
        for name, path in paths.items():
            shutil.copyfile(path, stage.path(safe_name(name)))
        stage.commit()
    return target
