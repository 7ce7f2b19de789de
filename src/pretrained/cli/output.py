"""What commands print: tables for people, one JSON document for machines, a bar while it takes long.

On a terminal tables are rich's; anywhere else they are aligned text in which nothing is cut.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import click

from ..errors import printable

__all__ = ["Column", "dims", "emit_json", "plural", "print_table", "progress", "say"]

MAX_RICH_ROWS = 1000  # beyond that nobody looks at borders, and laying them out takes seconds
BAR_FROM = 256 << 20  # bytes; less is done before a bar could be read


class Column(NamedTuple):
    """A column of a table."""

    title: str
    is_number: bool = False


def say(text: str = "") -> None:
    """Prints a line; control characters of file and tensor names are escaped."""
    click.echo(_clean(text))


def emit_json(document: Any) -> None:
    """Prints one JSON document on one line."""
    click.echo(json.dumps(document, allow_nan=False))


def dims(shape: Sequence[int]) -> str:
    """A shape as it is written in Python."""
    return "[" + ", ".join(map(str, shape)) + "]"


def plural(count: int, word: str) -> str:
    """ "1 tensor", "2 tensors", "1,000 tensors"."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Prints rows under their titles; nothing if there are none."""
    if not rows:
        return
    cleaned = [[_clean(cell) for cell in row] for row in rows]
    if len(rows) <= MAX_RICH_ROWS and (sys.stdout.isatty() or os.environ.get("FORCE_COLOR")):
        _print_rich(columns, cleaned, title)
    else:
        _print_plain(columns, cleaned, title)


def _print_plain(columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str) -> None:
    titles = [column.title for column in columns]
    widths = [max(map(len, cells)) for cells in zip(titles, *rows, strict=True)]
    aligns = [">" if column.is_number else "<" for column in columns]
    template = "  ".join(f"{{:{align}{width}}}" for align, width in zip(aligns, widths, strict=True))
    lines = [title] if title else []
    lines += [template.format(*row).rstrip() for row in (titles, *rows)]
    click.echo("\n".join(lines))


def _print_rich(columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text(title) if title else None, title_justify="left", pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        table.add_column(Text(column.title), justify=justify, overflow="fold", no_wrap=column.is_number)
    for row in rows:
        # Text, since a name such as "[red]" would be taken for markup.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for work on `total` bytes, if that is a terminal; yields what counts the bytes done."""
    if total < BAR_FROM or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress("{task.description}", *columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


def _clean(text: str) -> str:
    if text.isprintable():
        return text
    lines = text.split("\n")
    return "\n".join(line if line.isprintable() else printable(line, max(len(line) * 12, 100)) for line in lines)
