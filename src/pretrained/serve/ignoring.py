"""Which files a .gitignore leaves out.

Source: gitignore(5), for patterns without escapes.
"""

from __future__ import annotations

import re

__all__ = ["is_ignored"]

MAX_PATTERNS = 500


def is_ignored(path: str, gitignore: str) -> bool:
    """Whether the last pattern that a file, or a folder around it, matches does not begin with an exclamation mark."""
    lines = [line.strip() for line in gitignore.split("\n")][:MAX_PATTERNS]
    patterns = [line for line in lines if line and not line.startswith("#")]
    parts = path.split("/")
    for end in range(1, len(parts) + 1):
        verdict = False
        for pattern in patterns:
            if _matches("/".join(parts[:end]), pattern.removeprefix("!"), is_folder=end < len(parts)):
                verdict = not pattern.startswith("!")
        if verdict:
            return True
    return False


def _matches(path: str, pattern: str, *, is_folder: bool) -> bool:
    if pattern.endswith("/"):
        if not is_folder:
            return False
        pattern = pattern.rstrip("/")
    if "/" in pattern:
        return _glob(pattern.lstrip("/"), path)
    return _glob(pattern, path.rpartition("/")[2])


def _glob(pattern: str, text: str) -> bool:
    """Whether a pattern matches, compared from left to right without going back more than one star at a time."""
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]|.", pattern)
    at, place, star, mark = 0, 0, -1, 0
    while place < len(text):
        token = tokens[at] if at < len(tokens) else None
        if token is not None and token.startswith("*"):
            star, mark = at, place
            at += 1
        elif token is not None and _one(token, text[place]):
            at, place = at + 1, place + 1
        elif star >= 0 and (tokens[star] != "*" or text[mark] != "/"):
            mark += 1
            at, place = star + 1, mark
        else:
            return False
    return all(token.startswith("*") for token in tokens[at:])


def _one(token: str, letter: str) -> bool:
    if token == "?":
        return letter != "/"
    if len(token) > 2 and token.startswith("["):
        wanted = token[1:-1]
        return (letter in wanted.lstrip("!^")) != wanted.startswith(("!", "^"))
    return token == letter
