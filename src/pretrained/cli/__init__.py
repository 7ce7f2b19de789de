"""`pretrained inspect | plan | verify | convert | diff | download | push | serve`: checkpoints without a program.

One file per command. Exit codes: 0 fine; 1 a finding (does not fit, damaged, differs); 2 wrong usage, or nothing that
can be read; 130 interrupted; 141 whoever read the output went away.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

from ..errors import MissingFrameworkError

__all__ = ["main"]

_NEEDED = ("click", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and leaves with its exit code.

    Args:
        arguments: the words after the program's name; those of the process by default.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        what = " and ".join(missing)
        error = MissingFrameworkError(
            f"the command line needs {what}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install 'pretrained[cli]'",
            key=missing[0],
        )
        print(f"error: {error}", file=sys.stderr)
        return 2
    from .root import root

    root.main(None if arguments is None else list(arguments), prog_name="pretrained")
