"""What all commands have in common: how they end, and where they read from."""

from __future__ import annotations

import functools
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from .._types import Snapshot
from ..checkpoint.find import Weights, find_checkpoint, settle
from ..configuration import read_config_dict
from ..errors import ConfigError, PretrainedError, SourceError, printable
from ..hub.ref import resolve
from ..options import SourceOptions, WeightOptions

__all__ = ["FINDING", "FINE", "UNREADABLE", "Command", "Opened", "Where", "source_options"]

FINE, FINDING, UNREADABLE = 0, 1, 2
_INTERRUPTED, _PIPE_CLOSED = 130, 141  # as a shell reports SIGINT and SIGPIPE


class Command(click.Command):
    """A command whose function returns its exit code, and whose errors are one message without a traceback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the function and leaves with its exit code."""
        debug = ctx.params["debug"]
        ctx.params = {name: value for name, value in ctx.params.items() if name != "debug"}
        try:
            with _warnings_on_stderr():
                code = super().invoke(ctx)
                sys.stdout.flush()
        except BrokenPipeError:
            # Otherwise the interpreter tries once more to write what nobody reads, and complains.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = _PIPE_CLOSED
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            code = _INTERRUPTED
        except (PretrainedError, OSError, MemoryError) as error:
            if debug:
                traceback.print_exc()
            click.echo(f"error: {printable(str(error) or type(error).__name__)}", err=True)
            code = UNREADABLE
        ctx.exit(code)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {printable(record.getMessage())}"


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """The library's warnings as lines on stderr, as long as a command runs."""
    logger = logging.getLogger(__package__.partition(".")[0])
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_Plain())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@dataclass(frozen=True)
class Opened:
    """A checkpoint whose headers are read.

    Attributes:
        snapshot: the files it is one of.
        weights: its tensors.
        config: the content of config.json; None if there is none or it is damaged.
        config_error: what is wrong with it, if it is damaged.
    """

    snapshot: Snapshot
    weights: Weights
    config: dict[str, Any] | None
    config_error: str | None = None

    @property
    def index(self) -> Path | None:
        """The index file, if the checkpoint has shards."""
        return None if self.weights.index is None else self.weights.index.path


@dataclass(frozen=True)
class Where:
    """The options that say which files of a source are meant."""

    variant: str | None = None
    subfolder: str = ""
    revision: str | None = None
    local_files_only: bool = False
    gguf_file: str | None = None
    headers_only: bool = False

    @property
    def source(self) -> SourceOptions:
        """The part that finds a snapshot. Whoever wants headers only reads them where they lie."""
        return SourceOptions(
            revision=self.revision,
            subfolder=self.subfolder,
            local_files_only=self.local_files_only,
            stream=self.headers_only and not self.local_files_only,
        )

    @property
    def weights(self) -> WeightOptions:
        """The part that chooses among the weights of a snapshot."""
        return WeightOptions(variant=self.variant, gguf_file=self.gguf_file)

    def of_headers(self) -> Where:
        """The same for a command that reads no data."""
        return replace(self, headers_only=True)

    def snapshot(self, ref: str) -> Snapshot:
        """The files that `ref` means, with no save half done."""
        return settle(resolve(ref, self.source))

    def find(self, ref: str, options: WeightOptions) -> tuple[Snapshot, Weights]:
        """The files that `ref` means, and the weights among them."""
        snapshot = self.snapshot(ref)
        try:
            return snapshot, find_checkpoint(snapshot, options)
        except SourceError as error:
            if error.key != "stream":
                raise
        # A format whose reader needs the file, or a server without ranges.
        snapshot = replace(self, headers_only=False).snapshot(ref)
        return snapshot, find_checkpoint(snapshot, options)

    def open(self, ref: str) -> Opened:
        """The checkpoint that `ref` means; a damaged config.json is noted and kept no one from its tensors."""
        snapshot, weights = self.find(ref, self.weights)
        try:
            return Opened(snapshot, weights, read_config_dict(snapshot, self.weights))
        except ConfigError as error:
            return Opened(snapshot, weights, None, str(error))
        except SourceError:
            return Opened(snapshot, weights, None)


def source_options(function: Callable[..., int]) -> Callable[..., int]:
    """Gives a command the options of `Where`, and its function one argument `where` in their place."""

    @click.option("--variant", metavar="NAME", help="Weights of this variant, such as fp16.")
    @click.option("--gguf-file", metavar="NAME", help="This GGUF of the source.")
    @click.option("--subfolder", metavar="PATH", default="", help="Folder inside the source.")
    @click.option("--revision", metavar="REV", help="Branch, tag or commit on the hub.")
    @click.option("--local-files-only", is_flag=True, help="Download nothing.")
    @functools.wraps(function)
    def wrapper(
        *,
        variant: str | None,
        gguf_file: str | None,
        subfolder: str,
        revision: str | None,
        local_files_only: bool,
        **rest: Any,
    ) -> int:
        return function(where=Where(variant, subfolder, revision, local_files_only, gguf_file), **rest)

    return wrapper
