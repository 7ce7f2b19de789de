"""`pretrained diff`: two checkpoints, tensor by tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ..checkpoint.compare import TensorDiff, compare, compare_configs
from ..errors import ConfigError
from .command import FINDING, FINE, Command, Opened, Where, source_options
from .output import Column, dims, emit_json, plural, print_table, progress, say

__all__ = ["diff"]

_TITLES = {
    "only_a": "only in A",
    "only_b": "only in B",
    "shape": "other shape",
    "dtype": "other dtype",
    "values": "other values",
    "close": "within tolerance",
    "equal": "equal",
}


@click.command(cls=Command, short_help="Compare two checkpoints tensor by tensor.")
@click.argument("a")
@click.argument("b")
@click.option("--rtol", type=float, default=0.0, show_default=True, help="Tolerance relative to B.")
@click.option("--atol", type=float, default=0.0, show_default=True, help="Absolute tolerance.")
@click.option("--ignore-prefix", default="", metavar="PREFIX", help="Take this off names: base model against head.")
@click.option("--ignore-dtype", is_flag=True, help="Compare values across dtypes.")
@click.option("--variant-b", metavar="NAME", help="Variant of B; --variant is A's, and B's by default.")
@click.option("--revision-b", metavar="REV", help="Revision of B; --revision is A's, and B's by default.")
@click.option("--no-config", is_flag=True, help="Leave config.json out.")
@click.option("--all", "show_all", is_flag=True, help="List equal tensors too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@source_options
def diff(
    a: str,
    b: str,
    rtol: float,
    atol: float,
    ignore_prefix: str,
    ignore_dtype: bool,
    variant_b: str | None,
    revision_b: str | None,
    no_config: bool,
    show_all: bool,
    as_json: bool,
    where: Where,
) -> int:
    """Compares A with B: names, shapes, dtypes, values to the last bit, config fields.

    Exit code 0 if they are equal, or within the tolerance |A - B| <= atol + rtol * |B|; 1 if they differ.
    """
    first = where.open(a)
    second = Where(
        variant_b or where.variant, where.subfolder, revision_b or where.revision, where.local_files_only
    ).open(b)
    fields = {} if no_config else _config_diff(first, second, ignore_dtype)
    with progress("comparing", first.weights.nbytes) as advance:
        found = list(
            compare(
                first.weights,
                second.weights,
                rtol=rtol,
                atol=atol,
                ignore_prefix=ignore_prefix,
                ignore_dtype=ignore_dtype,
                progress=advance,
            )
        )
    is_equal = not fields and not any(one.is_difference for one in found)
    shown = [one for one in found if show_all or one.kind != "equal"]
    if as_json:
        emit_json(_document(first, second, is_equal, found, shown, fields))
    else:
        _print(is_equal, found, shown, fields)
    return FINE if is_equal else FINDING


def _config_diff(first: Opened, second: Opened, ignore_dtype: bool) -> dict[str, tuple[Any, Any]]:
    """Fields that differ; nothing where a side has no config.json, as a lone weight file has none."""
    for side in (first, second):
        if side.config_error is not None:
            raise ConfigError(f"{side.config_error}; --no-config compares the tensors alone")
    if first.config is None or second.config is None:
        return {}
    found = compare_configs(first.config, second.config)
    return {key: values for key, values in found.items() if not (ignore_dtype and key == "dtype")}


def _document(
    first: Opened,
    second: Opened,
    is_equal: bool,
    found: Sequence[TensorDiff],
    shown: Sequence[TensorDiff],
    fields: Mapping[str, tuple[Any, Any]],
) -> dict[str, Any]:
    counts = Counter(one.kind for one in found)
    return {
        "a": first.snapshot.name,
        "b": second.snapshot.name,
        "equal": is_equal,
        "counts": {kind: counts.get(kind, 0) for kind in _TITLES},  # type: ignore[call-overload]
        "config": {key: {"a": old, "b": new} for key, (old, new) in fields.items()},
        "tensors": [_tensor(one) for one in shown],
    }


def _tensor(one: TensorDiff) -> dict[str, Any]:
    sides = {
        side: None if entry is None else {"name": entry.name, "dtype": entry.dtype, "shape": entry.shape}
        for side, entry in (("a", one.a), ("b", one.b))
    }
    is_compared = one.kind in ("equal", "close", "values", "dtype")
    numbers = {
        "elements": one.num_elements,
        "different": one.num_different,
        "beyond_tolerance": one.num_beyond,
        "nonfinite": one.num_nonfinite,
        "max_abs": one.max_abs,
        "max_rel": one.max_rel,
    }
    return {"name": one.name, "kind": one.kind, **sides, "values": numbers if is_compared else None}


def _print(
    is_equal: bool,
    found: Sequence[TensorDiff],
    shown: Sequence[TensorDiff],
    fields: Mapping[str, tuple[Any, Any]],
) -> None:
    columns = [
        Column("tensor"),
        Column("is"),
        Column("A"),
        Column("B"),
        Column("different", True),
        Column("max abs", True),
        Column("max rel", True),
    ]
    print_table(columns, [_row(one) for one in shown])
    if shown:
        say()
    for key, (old, new) in fields.items():
        say(f"config {key}: A {old!r:.300}, B {new!r:.300}")
    counts = Counter(one.kind for one in found)
    say(", ".join(f"{counts[kind]:,} {title}" for kind, title in _TITLES.items() if counts[kind]) or "no tensors")  # type: ignore[index]
    if any(one.num_nonfinite for one in found):
        say("differences with a NaN or an infinity count as different and are in neither maximum")
    equal = "equal within the tolerance" if counts["close"] else "equal"
    say(equal if is_equal else "different" + (f" ({plural(len(fields), 'config field')})" if fields else ""))


def _row(one: TensorDiff) -> list[str]:
    sides = ["" if entry is None else f"{entry.dtype} {dims(entry.shape)}" for entry in (one.a, one.b)]
    numbers = ["", "", ""]
    if one.num_elements:
        numbers = [f"{one.num_different:,} of {one.num_elements:,}", f"{one.max_abs:.3g}", f"{one.max_rel:.3g}"]
    return [one.name, _TITLES[one.kind], *sides, *numbers]
