"""`pretrained plan`: what a load would do, before it is done."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from ..checkpoint.dtypes import DtypePolicy, is_floating
from ..checkpoint.find import Weights
from ..checkpoint.tensors import BITS, num_bytes
from ..errors import InvalidOptionError, MissingFrameworkError, PretrainedError
from ..options import LoadOptions, split_load_options
from ..report import human_bytes
from .command import FINDING, FINE, Command, Where, source_options
from .key_map import parse_key_map
from .output import Column, dims, emit_json, plural, print_table, say

if TYPE_CHECKING:
    from ..checkpoint.plan_load import LoadPlan, Step

__all__ = ["plan"]


@click.command(cls=Command, short_help="Show what a load would do.")
@click.argument("source")
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="AutoModelForMaskedLM, LlamaModel or package.module:Class; by default what config.json names as architecture.",
)
@click.option("--dtype", metavar="DTYPE", help="As from_pretrained: bfloat16, auto, …")
@click.option("--strict", is_flag=True, help="Anything missing or unexpected is an error.")
@click.option("--ignore-mismatched-sizes", is_flag=True, help="Tensors of another shape are initialised.")
@click.option("--key-map", multiple=True, metavar="REGEX=REPL", help="Rename tensors first; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@source_options
def plan(
    source: str,
    class_name: str | None,
    dtype: str | None,
    strict: bool,
    ignore_mismatched_sizes: bool,
    key_map: tuple[str, ...],
    as_json: bool,
    where: Where,
) -> int:
    """Shows how a model class would be filled from a checkpoint: what is mapped, cast, initialised, left over.

    Builds the model without memory and reads headers only. Exit code 1 if the load would fail.
    """
    keywords = {
        "variant": where.variant,
        "gguf_file": where.gguf_file,
        "dtype": dtype,
        "strict": strict,
        "ignore_mismatched_sizes": ignore_mismatched_sizes,
        "key_mapping": parse_key_map(key_map) or None,
    }
    options, _ = split_load_options(keywords)
    made, policy, note = _make(source, class_name, options, where)
    try:
        made.check(strict=strict, ignore_mismatched_sizes=ignore_mismatched_sizes)
        error = None
    except PretrainedError as caught:
        error = caught
    document = _document(source, made, policy, error, note)
    if as_json:
        emit_json(document)
    else:
        _print(document)
    return FINE if error is None else FINDING


def _make(
    source: str, class_name: str | None, options: LoadOptions, where: Where
) -> tuple[LoadPlan, DtypePolicy, str | None]:
    """The plan, unchecked, its dtypes, and a remark on the choice of the class. The first steps of `loading.load`."""
    _need_torch()
    from .. import loading
    from ..pt.backend import TorchBackend
    from ..quantization.scheme import choose_scheme

    snapshot, weights = where.of_headers().find(source, options.weights)
    cls, note = _choose_class(class_name, snapshot, where)
    choose = getattr(cls, "_choose", None)
    backend = TorchBackend()
    if choose is None:
        model, config, quantizer = backend.skeleton(cls), None, None
        options = _with_own_dtypes(options, model)
        cls = type(model)
    else:
        config = loading.read_config(choose, snapshot, options)
        cls = choose(config)[1]
        _check_plausible(config, weights)
        scheme = choose_scheme(options, config)
        quantizer = None if scheme is None else backend.quantizer(scheme)
        model = backend.skeleton(lambda: cls(config))
    made, policy = loading.build_plan(model, cls, weights, options, backend, config, quantizer)
    return made, policy, note


def _need_torch() -> None:
    try:
        importlib.import_module("torch")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingFrameworkError(
            "plan builds the model to see what it wants, and torch is not installed: pip install 'pretrained[torch]'",
            key="torch",
        ) from None


def _check_plausible(config: Any, weights: Weights) -> None:
    """As a load does, so that an impossible number of layers is not built."""
    from ..loading_config import check_plausible as check

    check(config, weights)


def _with_own_dtypes(options: LoadOptions, module: Any) -> LoadOptions:
    """As `load_into` does: a module without a config keeps the dtypes it was built with."""
    from ..pt.any_module import _with_own_dtypes as with_own

    result: LoadOptions = options if options.dtype is not None else with_own(options, module)
    return result


def _choose_class(name: str | None, snapshot: Any, where: Where) -> tuple[Any, str | None]:
    """What --class means, and a remark if something had to stand in for it."""
    import pretrained

    if name is None:
        from ..configuration import read_config_dict

        named = read_config_dict(snapshot, where.weights).get("architectures")
        first = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None
        # The name is the file's: it may choose among our model classes and call nothing else.
        found = getattr(pretrained, first) if first is not None and first in dir(pretrained) else None
        if isinstance(found, type) and "_choose" in dir(found):
            return found, None
        named_words = "no architecture" if first is None else f"{first!r:.100}, which is not known here"
        return pretrained.AutoModel, f"config.json names {named_words}; planned for AutoModel"
    if ":" in name:
        return _import_class(name), None
    if name not in dir(pretrained):
        near = difflib.get_close_matches(name, dir(pretrained), n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise InvalidOptionError(
            f"--class {name}: this library has no such class{hint} Others are named package.module:Class", key="class"
        )
    found = getattr(pretrained, name)
    if not isinstance(found, type) or "_choose" not in dir(found):
        raise InvalidOptionError(f"--class {name}: that is no model class", key="class")
    return found, None


def _import_class(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidOptionError(
            f"--class {name}: {error}. The module must be importable; PYTHONPATH=. makes those of this folder so",
            key="class",
        ) from error
    if not callable(found):
        raise InvalidOptionError(f"--class {name} is a {type(found).__name__}, not a class", key="class")
    if "_choose" not in dir(found):
        _require_no_arguments(name, found)
    return found


def _require_no_arguments(name: str, build: Any) -> None:
    try:
        inspect.signature(build).bind()
    except (TypeError, ValueError) as error:
        raise InvalidOptionError(
            f"--class {name}: {error}; a class that is no PreTrainedModel, or a function, is called without arguments",
            key="class",
        ) from None


def _how(step: Step, remote: dict[Any, bool]) -> str:
    """How execute would bring this tensor in."""
    from ..checkpoint.disk import is_remote

    if step.entry.file not in remote:
        remote[step.entry.file] = is_remote(step.entry.file)
    if step.is_plain:
        return "read" if remote[step.entry.file] or step.whole is not None else "map"
    return "arrange" if step.ops or step.entry.offset < 0 or BITS[step.entry.dtype] % 8 else "cast"


def _document(
    source: str, made: LoadPlan, policy: DtypePolicy, error: PretrainedError | None, note: str | None
) -> dict[str, Any]:
    remote: dict[Any, bool] = {}
    steps = [
        {
            "parameter": step.param,
            "how": _how(step, remote),
            "tensor": step.entry.name,
            "file": step.entry.file.name,
            "from": step.entry.dtype,
            "to": step.dtype,
            "shape": step.shape,
            "bytes_at_rest": step.entry.nbytes,
            "bytes": num_bytes(step.shape, step.dtype),
        }
        for step in made.steps
    ]
    missing, mismatched = set(made.missing), {m.name for m in made.mismatched}
    fresh = []
    for spec in made.initialise:
        to = policy.dtype_of(spec.name) if is_floating(spec.dtype) else spec.dtype
        why = "mismatched" if spec.name in mismatched else "missing" if spec.name in missing else "expected"
        fresh.append(
            {
                "parameter": spec.name,
                "why": why,
                "to": to,
                "shape": spec.shape,
                "bytes": num_bytes(spec.shape, to),
            }
        )
    return {
        "source": source,
        "model": made.model,
        "note": note,
        "dtype": policy.default,
        "fits": error is None,
        "error": None if error is None else {"type": type(error).__name__, "message": str(error)},
        "totals": _totals(steps, fresh),
        "missing": made.missing,
        "unexpected": made.unexpected,
        "mismatched": [{"parameter": m.name, "checkpoint": m.found, "model": m.wanted} for m in made.mismatched],
        "conflicts": made.conflicts,
        "compared_on_load": [{"parameter": name, "tensor": entry.name} for name, entry in made.twins],
        "steps": steps,
        "initialise": fresh,
    }


def _totals(steps: list[dict[str, Any]], fresh: list[dict[str, Any]]) -> dict[str, int]:
    mapped = sum(step["bytes"] for step in steps if step["how"] == "map")
    total = sum(item["bytes"] for item in (*steps, *fresh))
    return {
        "parameters": len(steps) + len(fresh),
        "bytes": total,
        "bytes_mapped": mapped,
        "bytes_read": sum(step["bytes_at_rest"] for step in steps if step["how"] != "map"),
        "bytes_private": total - mapped,
    }


def _print(document: dict[str, Any]) -> None:
    rows = [
        [step["parameter"], _manner(step), dims(step["shape"]), f"{step['bytes']:,}", _origin(step)]
        for step in document["steps"]
    ]
    rows += [
        [item["parameter"], f"initialise {item['to']}", dims(item["shape"]), f"{item['bytes']:,}", item["why"]]
        for item in document["initialise"]
    ]
    columns = [Column("parameter"), Column("how"), Column("shape"), Column("bytes", True), Column("from")]
    print_table(columns, rows)
    say()
    for item in document["mismatched"]:
        say(f"mismatched: {item['parameter']}: checkpoint {dims(item['checkpoint'])}, model {dims(item['model'])}")
    for key in ("missing", "unexpected"):
        for name in document[key]:
            say(f"{key}: {name}")
    for sentence in document["conflicts"]:
        say(f"to look at: {sentence}")
    for item in document["compared_on_load"]:
        say(f"compared on load: {item['tensor']} must equal {item['parameter']}, which it is tied to")
    if document["note"]:
        say(document["note"])
    totals = document["totals"]
    kinds = Counter(step["how"] for step in document["steps"])
    kinds["initialise"] = len(document["initialise"])
    done = ", ".join(f"{count} to {how}" for how, count in kinds.items() if count)
    say(f"{document['model']} in {document['dtype']}: {plural(totals['parameters'], 'parameter tensor')}: {done}")
    say(
        f"memory: {human_bytes(totals['bytes'])}, of which {human_bytes(totals['bytes_mapped'])} are mapped from files "
        f"and {human_bytes(totals['bytes_private'])} are private; {human_bytes(totals['bytes_read'])} are read"
    )
    say("the load would succeed" if document["fits"] else f"the load would fail: {document['error']['message']}")


def _manner(step: dict[str, Any]) -> str:
    how = step["how"]
    return f"{how} {step['from']} → {step['to']}" if step["from"] != step["to"] else f"{how} {step['to']}"


def _origin(step: dict[str, Any]) -> str:
    return step["file"] if step["tensor"] == step["parameter"] else f"{step['file']}: {step['tensor']}"
