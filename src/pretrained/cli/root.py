"""The group of all commands."""

from __future__ import annotations

import click

from .. import __version__
from .convert import convert
from .diff import diff
from .download import download
from .generate import generate
from .inspect import inspect
from .plan import plan
from .push import push
from .serve import serve
from .verify import verify

__all__ = ["root"]

_EPILOG = "Exit codes: 0 fine; 1 a finding (does not fit, damaged, differs); 2 wrong usage, or cannot be read at all."


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pretrained")
def root() -> None:
    """Looks into, checks, rewrites, fetches, pushes and serves model checkpoints, and generates text.

    SOURCE is a folder, one weight file, an index file, a name on the Hugging Face Hub, or a URL.
    """


for _command in (inspect, plan, verify, convert, diff, generate, download, push, serve):
    root.add_command(_command)
