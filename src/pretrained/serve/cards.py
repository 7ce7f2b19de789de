"""The card of a model (README.md): the facts at its head, and its text."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..checkpoint.files import parse_json, read_up_to
from ..errors import PretrainedError
from .repository import HubFile, Repository

__all__ = ["MAX_CARD", "facts_of", "front_matter", "read_small", "split_card"]

MAX_CARD = 1 << 20  # bytes of a README that are looked at
MAX_FACTS = 32 << 10  # characters of YAML, which takes a second to parse; longer tables of results are left alone
MAX_NODES = 10_000  # values in the facts; an alias in YAML can stand for as many as it likes
_CARD = "README.md"


def read_small(repo: Repository, oid: str, file: HubFile, limit: int) -> bytes:
    """At most `limit` bytes of a file."""
    fd = repo.open(oid, file)
    try:
        return read_up_to(fd, limit)
    finally:
        os.close(fd)


def split_card(text: str) -> tuple[str, str]:
    """The YAML at the head of a card, "" if there is none, and the rest."""
    lines = text.removeprefix("\ufeff").split("\n")
    if lines[0].rstrip() != "---":
        return "", text
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() == "---":
            return "\n".join(lines[1:number]), "\n".join(lines[number + 1 :])
    return "", text


def front_matter(text: str) -> tuple[dict[str, Any], list[str]]:
    """The facts at the head of a card, and what is wrong with them; neither, of a head that is too long to read."""
    head, _ = split_card(text)
    if not head.strip():
        return {}, []
    if len(head) > MAX_FACTS:
        return {}, []
    if "<<" in head:  # a few lines of merged mappings can stand for more than fits into memory
        return {}, ["the metadata merges mappings (<<), which is not read"]
    from huggingface_hub import RepoCard  # it has a safe loader of YAML, and knows what clients write

    try:
        card = RepoCard(f"---\n{head}\n---\n", ignore_metadata_errors=False)
        found = {key: value for key, value in vars(card.data).items() if value is not None}
        plain = json.loads(json.dumps(_plain(found, [MAX_NODES]), allow_nan=False))
    except (ValueError, TypeError, RecursionError, ArithmeticError) as error:
        return {}, [f"the metadata is no YAML mapping: {' '.join(str(error).split()):.300}"]
    except Exception as error:  # noqa: BLE001  # the errors of the YAML library, which is not ours to import
        return {}, [f"the metadata is no YAML: {' '.join(str(error).split()):.300}"]
    return plain, []


def _plain(value: Any, budget: list[int]) -> Any:
    """The value as JSON has it."""
    budget[0] -= 1
    if budget[0] < 0:
        raise ValueError(f"more than {MAX_NODES} values")
    if isinstance(value, Mapping):
        return {str(key)[:200]: _plain(item, budget) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item, budget) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def facts_of(repo: Repository, oid: str) -> dict[str, Any]:
    """What the card and config.json of a commit say about it, under the Hub's names."""
    files = repo.tree(oid).files
    card, config = _head(repo, oid, files.get(_CARD)), _head(repo, oid, files.get("config.json"))
    said = json.loads(_card_facts(card))
    found: dict[str, Any] = {}
    tags: list[str] = []
    if isinstance(library := said.get("library_name"), str):
        found["library_name"] = library
        tags.append(library)
    if any(name.endswith(".safetensors") for name in files):
        tags.append("safetensors")
    if isinstance(kind := _config_facts(config), str):
        found["config"] = {"model_type": kind}
        tags.append(kind)
    if isinstance(task := said.get("pipeline_tag"), str):
        found["pipeline_tag"] = task
        tags.append(task)
    tags += _words(said.get("tags")) + _words(said.get("language"))
    tags += [f"{key}:{word}" for key in ("license", "base_model", "datasets") for word in _words(said.get(key))]
    found["tags"] = list(dict.fromkeys(tags))
    if said:
        found["cardData"] = said
    return found


def _head(repo: Repository, oid: str, file: HubFile | None) -> bytes:
    if file is None:
        return b""
    try:
        return read_small(repo, oid, file, MAX_CARD)
    except OSError:
        return b""


@lru_cache(maxsize=512)
def _card_facts(card: bytes) -> str:
    """The facts of a card as JSON text."""
    return json.dumps(front_matter(card.decode("utf-8", "replace"))[0])


@lru_cache(maxsize=512)
def _config_facts(config: bytes) -> str | None:
    """The model type that config.json names."""
    if not config:
        return None
    try:
        kind = parse_json(config, path="config.json").get("model_type")
    except PretrainedError:
        return None
    return kind if isinstance(kind, str) else None


def _words(value: Any) -> list[str]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)][:200]
