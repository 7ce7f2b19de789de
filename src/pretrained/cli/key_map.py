"""The words of --key-map."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

__all__ = ["parse_key_map"]


def parse_key_map(words: Iterable[str]) -> dict[str, str]:
    """Regular expression → replacement. The last "=" of a word parts them: an expression may hold one, no name does.

    Raises:
        BadParameter: a word without "=", or with something that is no regular expression.
    """
    table: dict[str, str] = {}
    for word in words:
        pattern, mark, replacement = word.rpartition("=")
        if not mark or not pattern:
            raise click.BadParameter(f"{word!r} is not of the form REGEX=REPLACEMENT", param_hint="--key-map")
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise click.BadParameter(f"{pattern!r} is no regular expression: {error}", param_hint="--key-map") from None
        table[pattern] = replacement
    return table
