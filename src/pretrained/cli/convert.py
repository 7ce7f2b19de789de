"""`pretrained convert`: a checkpoint in other shards, another dtype, or from another format."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from .._types import Snapshot
from ..checkpoint.checksums import is_sums_file
from ..checkpoint.convert import TARGET_DTYPES, ConvertReport
from ..checkpoint.convert import convert as write_anew
from ..checkpoint.files import safe_join
from ..configuration import CONFIG_NAME
from ..errors import ConfigError, InvalidOptionError
from ..report import human_bytes
from .command import FINE, Command, Opened, Where, source_options
from .key_map import parse_key_map
from .output import Column, emit_json, plural, print_table, progress, say

__all__ = ["HEAVY", "convert"]

MAX_COPIED = 64 << 20  # bytes of a file beside the weights; tokenizers stay below
_MAX_NAMED = 20  # tensors named in warnings

# Weights of whatever format, archives, indexes: what a copy of "the rest" must not drag along.
HEAVY = re.compile(
    r".+\.(safetensors|bin|h5|msgpack|gguf|pt|pth|ckpt|onnx|ot|tflite|npz|npy|zip|tar|gz|xz|zst|pkl|pickle|mlmodel)"
    r"|.+\.index(\..+)?\.json|.+\.ckpt\..+|.+\.data-\d{5}-of-\d{5}"
)
# Beside a single file that was named there may be anything; these belong to a model wherever they are.
_COMPANIONS = re.compile(
    r"(config|generation_config|preprocessor_config|processor_config|added_tokens|special_tokens_map|vocab)\.json"
    r"|tokenizer.*\.(json|model|txt)|(vocab|merges)\.txt|.*(spiece|sentencepiece)[^/]*\.model|chat_template.*\.(jinja|json)"
)


@click.command(cls=Command, short_help="Reshard, cast or rename into a new folder.")
@click.argument("source")
@click.argument("target", required=False, type=click.Path(path_type=Path))
@click.option("--max-shard-size", default="5GB", metavar="SIZE", show_default=True, help="500MB, 2GiB, or bytes.")
@click.option("--dtype", type=click.Choice(TARGET_DTYPES), help="What floating tensors become; integers never change.")
@click.option("--to-variant", metavar="NAME", help="Write model.NAME.safetensors; --variant chooses what is read.")
@click.option("--key-map", multiple=True, metavar="REGEX=REPL", help="Rename tensors; may be repeated.")
@click.option("--in-place", is_flag=True, help="Write into SOURCE itself.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@source_options
def convert(
    source: str,
    target: Path | None,
    max_shard_size: str,
    dtype: str | None,
    to_variant: str | None,
    key_map: tuple[str, ...],
    in_place: bool,
    as_json: bool,
    where: Where,
) -> int:
    """Writes SOURCE anew into the folder TARGET, as safetensors, together with its configs and tokenizer.

    At every instant TARGET holds what it held or the whole result. One tensor at a time is in memory.
    """
    mapping = parse_key_map(key_map)
    _check_variant(to_variant)
    opened = where.open(source)
    directory = _target(opened.snapshot, target, in_place)
    if dtype is not None:
        _refuse_quantised(opened)
    if in_place and to_variant is None:
        to_variant = where.variant
    is_beside = in_place and to_variant is not None  # config.json is that of the weights without a variant
    files: dict[str, bytes | Path] = {} if in_place else dict(_companions(opened.snapshot))
    if opened.config is not None and not is_beside and (dtype is not None or _is_gguf(opened)):
        files[CONFIG_NAME] = _config_with_dtype(opened.config, dtype)
    with progress("converting", opened.weights.nbytes) as advance:
        report = write_anew(
            opened.weights,
            directory,
            dtype=dtype,
            max_shard_size=max_shard_size,
            variant=to_variant,
            key_mapping=mapping,
            files=files,
            remove=_stale_sums(directory),
            progress=advance,
        )
    unused = [pattern for pattern in mapping if not any(re.search(pattern, name) for name in opened.weights.entries)]
    if as_json:
        emit_json(_document(opened.snapshot, directory, report, unused))
    else:
        _print(directory, report)
    _warn(report, unused)
    return FINE


def _check_variant(variant: str | None) -> None:
    if variant is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,99}", variant):
        raise InvalidOptionError(f"--to-variant {variant!r:.100} must be a plain word such as 'fp16'", key="variant")


def _target(snapshot: Snapshot, target: Path | None, in_place: bool) -> Path:
    """The folder to write to; the source's own only if that was asked for."""
    folder = snapshot.folder
    is_same = target is None or (folder is not None and os.path.realpath(target) == os.path.realpath(folder))
    if in_place:
        if folder is None or snapshot.commit is not None:
            raise InvalidOptionError(f"--in-place: {snapshot.name} is in a hub cache; name a TARGET", key="in_place")
        if not is_same:
            raise InvalidOptionError(f"--in-place writes into {folder}; TARGET {target} is elsewhere", key="in_place")
        return folder
    if target is None:
        raise click.UsageError("Missing argument 'TARGET'; or pass --in-place to write into SOURCE itself.")
    if is_same:
        raise InvalidOptionError(
            f"TARGET {target} is SOURCE itself; name another folder, or pass --in-place to replace its files",
            key="in_place",
        )
    return target


def _refuse_quantised(opened: Opened) -> None:
    scheme = (opened.config or {}).get("quantization_config")
    if scheme is not None:
        method = scheme.get("quant_method") if isinstance(scheme, dict) else None
        raise InvalidOptionError(
            f"--dtype: {opened.snapshot.name} is quantised ({method or 'quantization_config in config.json'}); its "
            "numbers mean nothing without their scales, so casting them would break it. Convert without --dtype",
            key="dtype",
        )
    if opened.config_error is not None:
        raise ConfigError(f"--dtype has to update config.json: {opened.config_error}", key="dtype")


def _companions(snapshot: Snapshot) -> Iterator[tuple[str, Path]]:
    """Name and path of every small file that belongs to the model and is no weight file."""
    only = getattr(snapshot, "only", None)
    for name in snapshot.names():
        if "/" in name or name.startswith(".") or HEAVY.fullmatch(name) or is_sums_file(name):
            continue
        if only is not None and not _COMPANIONS.fullmatch(name):
            continue
        path = snapshot.path(name) if snapshot.folder is None else safe_join(snapshot.folder, name)
        if path.is_file() and path.stat().st_size <= MAX_COPIED:
            yield name, path


def _is_gguf(opened: Opened) -> bool:
    """Whether the config is in the weight file itself, so that no config.json can be copied."""
    return any(container.metadata.get("format") == "gguf" for container in opened.weights.containers.values())


def _config_with_dtype(config: Mapping[str, Any], dtype: str | None) -> bytes:
    """The text of config.json with another dtype, in nested configs too; older spellings follow where they are used."""
    values = config if dtype is None else _with_dtype(config, dtype, outermost=True)
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _with_dtype(config: Mapping[str, Any], dtype: str, *, outermost: bool = False) -> dict[str, Any]:
    values = {
        key: _with_dtype(value, dtype) if isinstance(value, Mapping) and "model_type" in value else value
        for key, value in config.items()
    }
    for key in ("dtype", "torch_dtype"):
        if key in values and (outermost or values[key] is not None):
            values[key] = dtype
    return values if not outermost or "dtype" in values else {**values, "dtype": dtype}


def _stale_sums(directory: Path) -> list[str]:
    """Lists of checksums in the target, which would not be true any more."""
    return [name for name in os.listdir(directory) if is_sums_file(name)] if directory.is_dir() else []


def _document(snapshot: Snapshot, directory: Path, report: ConvertReport, unused: list[str]) -> dict[str, Any]:
    return {
        "source": snapshot.name,
        "target": str(directory),
        "files": report.files,
        "removed": report.removed,
        "tensors": report.num_tensors,
        "bytes": report.total_size,
        "cast": report.num_cast,
        "not_cast": report.not_cast,
        "renamed": report.renamed,
        "overflowed": report.overflowed,
        "unused_key_maps": unused,
    }


def _print(directory: Path, report: ConvertReport) -> None:
    print_table([Column("file"), Column("bytes", True)], [[name, f"{size:,}"] for name, size in report.files.items()])
    say()
    for name in report.removed:
        say(f"removed {name}")
    parts = [f"{plural(report.num_tensors, 'tensor')}, {human_bytes(report.total_size)}"]
    parts += [f"{report.num_cast} cast"] if report.num_cast else []
    parts += [f"{len(report.renamed)} renamed"] if report.renamed else []
    say(f"wrote {directory}: {', '.join(parts)}")


def _warn(report: ConvertReport, unused: list[str]) -> None:
    lines = [
        f"{name}: {plural(count, 'value')} beyond the range of the new dtype became infinite"
        for name, count in report.overflowed.items()
    ]
    lines += [f"{name}: packed or scales, left in its dtype" for name in report.not_cast]
    lines += [f"--key-map {pattern!r} matches no tensor" for pattern in unused]
    for line in lines[:_MAX_NAMED]:
        click.echo(f"warning: {line}", err=True)
    if len(lines) > _MAX_NAMED:
        click.echo(f"warning: … and {len(lines) - _MAX_NAMED} more", err=True)
