"""`pretrained inspect`: every tensor of a checkpoint, from its headers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import click

from ..checkpoint.tensors import Entry, count_elements
from ..report import human_bytes
from .command import FINE, Command, Opened, Where, source_options
from .output import Column, dims, emit_json, plural, print_table, say

__all__ = ["inspect"]

MAX_PATTERN = 1000  # characters
MAX_NOTE = 200  # characters of one thing that a writer noted
_SUMMARY = ("model_type", "architectures", "dtype")


@click.command(cls=Command, short_help="List every tensor, from the headers.")
@click.argument("source")
@click.option("--sort", type=click.Choice(["file", "name", "size"]), default="file", show_default=True)
@click.option("--filter", "pattern", metavar="REGEX", help="Only tensors in whose name this is found.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only the first N, after sorting.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@source_options
def inspect(source: str, sort: str, pattern: str | None, top: int | None, as_json: bool, where: Where) -> int:
    """Lists every tensor with shape, dtype, bytes and file.

    Reads headers only, never data; those of a hub or a URL over the network, without a download.
    """
    matches = _compile(pattern)
    opened = where.of_headers().open(source)
    entries = list(opened.weights.entries.values())
    shown = [entry for entry in entries if matches is None or matches.search(entry.name)]
    totals, matching = _totals(entries), _totals(shown)
    shown = _ordered(shown, sort)[:top]
    if as_json:
        emit_json(_document(opened, shown, totals, None if pattern is None else matching))
        return FINE
    _print(opened, shown, totals)
    if pattern is not None:
        say(f"matching {pattern}: {_sum(matching)}")
    if len(shown) < matching["tensors"]:
        say(f"{len(shown):,} of {matching['tensors']:,} are listed")
    return FINE


def _compile(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    if len(pattern) > MAX_PATTERN:
        raise click.BadParameter(f"longer than {MAX_PATTERN} characters", param_hint="--filter")
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise click.BadParameter(f"{pattern!r} is no regular expression: {error}", param_hint="--filter") from None


def _ordered(entries: Sequence[Entry], sort: str) -> list[Entry]:
    if sort == "size":
        return sorted(entries, key=lambda entry: (-entry.nbytes, entry.name))
    if sort == "name":
        return sorted(entries, key=lambda entry: entry.name)
    return list(entries)


def _totals(entries: Iterable[Entry]) -> dict[str, Any]:
    by_dtype: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    by_file: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    every = [0, 0, 0]
    for entry in entries:
        count = count_elements(entry.shape)
        for sums in (every, by_dtype[entry.dtype], by_file[entry.file.name]):
            sums[0] += 1
            sums[1] += count
            sums[2] += entry.nbytes
    return {
        **_named(every),
        "by_dtype": {name: _named(sums) for name, sums in by_dtype.items()},
        "by_file": {name: _named(sums) for name, sums in by_file.items()},
    }


def _named(sums: Sequence[int]) -> dict[str, int]:
    return dict(zip(("tensors", "parameters", "bytes"), sums, strict=True))


def _document(
    opened: Opened, shown: Sequence[Entry], totals: dict[str, Any], matching: dict[str, Any] | None
) -> dict[str, Any]:
    weights = opened.weights
    document = {
        "source": opened.snapshot.name,
        "commit": opened.snapshot.commit,
        "index": None if opened.index is None else opened.index.name,
        "index_metadata": None if weights.index is None else weights.index.metadata,
        "unlisted": weights.unlisted,
        "config": _summary(opened),
        "config_error": opened.config_error,
        "metadata": {container.path.name: dict(container.metadata) for container in weights.containers.values()},
        "totals": totals,
        "tensors": [
            {"name": e.name, "shape": e.shape, "dtype": e.dtype, "bytes": e.nbytes, "file": e.file.name} for e in shown
        ],
    }
    return document if matching is None else {**document, "matching": matching}


def _summary(opened: Opened) -> dict[str, Any] | None:
    if opened.config is None:
        return None
    config = {"dtype": opened.config.get("torch_dtype"), **opened.config}
    return {key: config.get(key) for key in _SUMMARY}


def _print(opened: Opened, shown: Sequence[Entry], totals: dict[str, Any]) -> None:
    columns = [Column("tensor"), Column("shape"), Column("dtype"), Column("bytes", True), Column("file")]
    rows = [[e.name, dims(e.shape), e.dtype, f"{e.nbytes:,}", e.file.name] for e in shown]
    print_table(columns, rows)
    columns = [Column("dtype"), Column("tensors", True), Column("parameters", True), Column("bytes", True)]
    for title, key in (("dtype", "by_dtype"), ("file", "by_file")):
        sums = totals[key].items()
        say()
        columns[0] = Column(title)
        rows = [[name, f"{s['tensors']:,}", f"{s['parameters']:,}", f"{s['bytes']:,}"] for name, s in sums]
        print_table(columns, rows)
    say()
    for container in opened.weights.containers.values():
        if container.metadata:
            noted = ", ".join(f"{key}={_shortened(value)}" for key, value in container.metadata.items())
            say(f"metadata of {container.path.name}: {noted}")
    if opened.index is not None:
        say(f"index: {opened.index.name}")
    if (summary := _summary(opened)) is not None:
        say("config: " + ", ".join(f"{key} {_words(value)}" for key, value in summary.items()))
    else:
        say(f"config: {opened.config_error or 'there is none'}")
    say(f"total: {_sum(totals)}")


def _sum(sums: dict[str, Any]) -> str:
    count, size = sums["bytes"], human_bytes(sums["bytes"])
    return f"{plural(sums['tensors'], 'tensor')}, {sums['parameters']:,} parameters, {size} ({count:,} bytes)"


def _shortened(text: str) -> str:
    """On one line, and not too long."""
    line = text[:MAX_NOTE].replace("\n", "\\n")
    return line if len(text) <= MAX_NOTE else f"{line}…"


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "unknown" if value is None else str(value)
