"""The card of a model that has none: what it is, and how to load it; and the tags of one that has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CARD", "CardFacts", "new_card", "repository_of", "with_tags"]

CARD = "README.md"

_BODY = """
# {name}

`{model_class}`{kind}{size}{base}, saved by [pretrained](https://pypi.org/project/pretrained/) in the layout that
transformers and every other tool of the Hub read.

```python
from pretrained import {model_class}

{variable} = {model_class}.from_pretrained("{repo_id}")
```
"""


@dataclass(frozen=True)
class CardFacts:
    """What is known of a model without asking anybody.

    Attributes:
        model_class: its class. model_type: its family.
        num_parameters: how many numbers it has, tied ones counted once; 0 where that is not known.
        tags: words that describe it. base_model: the repository that it comes from.
    """

    model_class: str
    model_type: str = ""
    num_parameters: int = 0
    tags: tuple[str, ...] = ()
    base_model: str | None = None


def repository_of(name_or_path: Any) -> str | None:
    """The repository that a model was loaded from, as far as its name tells; None for a folder."""
    name = str(name_or_path or "")
    is_repository = re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}", name, re.ASCII) is not None
    return name if is_repository and not Path(name).exists() else None


def new_card(
    repo_id: str,
    facts: CardFacts,
    tags: Iterable[str],
    base_model: str | None,
    license: str | None,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """The text of a card: its metadata, to which `metadata` adds, then a page."""
    from huggingface_hub import ModelCardData

    base = base_model or facts.base_model
    described = ModelCardData(
        library_name="pretrained",
        tags=list(dict.fromkeys([*tags, *facts.tags])) or None,
        base_model=base,
        license=license,
        **(metadata or {}),
    )
    count = facts.num_parameters
    body = _BODY.format(
        name=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        model_class=facts.model_class,
        kind=f" of the family {facts.model_type}" if facts.model_type else "",
        size=f" with {count:,} parameters" if count else "",
        base=f", made from [{base}](https://huggingface.co/{base})" if base else "",
        variable="config" if facts.model_class.endswith("Config") else "model",
    )
    return f"---\n{described.to_yaml()}\n---\n{body}"


def with_tags(text: str, tags: Iterable[str]) -> str:
    """A card with these tags among its own; the text as it was where they are."""
    from huggingface_hub import ModelCard

    card = ModelCard(text, ignore_metadata_errors=True)
    data: Any = card.data
    present = list(data.tags or ())
    missing = [tag for tag in dict.fromkeys(tags) if tag not in present]
    if not missing:
        return text
    data.tags = [*present, *missing]
    return str(card.content)
