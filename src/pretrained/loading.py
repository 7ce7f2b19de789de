"""The story of a load, the same for every framework: resolve, find, plan, check, execute, finish."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from ._types import PathLike, Snapshot
from .adapters import with_base
from .backend import Backend
from .checkpoint.deliver import deliver, require_folder
from .checkpoint.devices import plan_placement
from .checkpoint.disk import stamp_at
from .checkpoint.dtypes import DtypePolicy
from .checkpoint.execute import Loaded, execute, load_steps
from .checkpoint.find import Weights, find_checkpoint, find_gguf, settle
from .checkpoint.formats.memory import MEMORY, StateDict
from .checkpoint.places import place_of
from .checkpoint.plan_load import LoadPlan, Step, plan_load
from .checkpoint.plan_parts import joined
from .checkpoint.rules import rules_from_mapping
from .checkpoint.tensors import Entry, FileStamp
from .configuration import CONFIG_NAME
from .configuration_input import located
from .errors import CheckpointChangedError, InvalidOptionError, MismatchError, OptionError, PretrainedError
from .hub.ref import resolve
from .loading_config import (
    Choose,
    apply_keywords,
    check_plausible,
    generation_config_of,
    name_of,
    read_config,
    read_config_with,
    split_model_keywords,
)
from .options import LoadOptions
from .quantization.scheme import Quantizer, choose_scheme
from .report import Keys, LoadReport

__all__ = ["Choose", "Stopwatch", "build_plan", "load", "load_weights", "read_config", "split_model_keywords"]

logger = logging.getLogger(__name__)

_ATTEMPTS = 8  # a folder that is saved to over and over is given up on
_PAUSE = 0.01  # seconds before the second attempt, and so much more before each further one


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Adds the time of the block to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def load(
    choose: Choose,
    ref: PathLike | None,
    options: LoadOptions,
    keywords: Mapping[str, Any],
    make_backend: Callable[[], Backend],
    model_args: Sequence[Any] = (),
) -> tuple[Any, LoadReport]:
    """A model from a checkpoint, and the report of how that went.

    A save that replaces the folder in the middle is noticed; the load then begins again on the new checkpoint.

    Args:
        choose: the content of a config.json or a config, and the snapshot → (config class, model class); for the
            former the model class may be left open. Of the class, the hooks like _keys_to_ignore_on_save are read.
        ref: folder, file or hub name; None with a config and a state_dict.
        options: what from_pretrained was asked.
        keywords: what is no option: config fields, then constructor arguments.
        make_backend: a fresh backend for each attempt.
        model_args: positional arguments of the constructor, after the config.

    Raises:
        PretrainedError: one of its classes, before any weight is read for all but damaged disks.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        before = _generation(ref, options)
        try:
            return _load_once(choose, ref, options, keywords, make_backend(), model_args)
        except PretrainedError as error:
            # A file that was gone, or was another's, when its turn came: then the folder has changed meanwhile.
            is_torn = isinstance(error, CheckpointChangedError) or _generation(ref, options) != before
            if attempt == _ATTEMPTS or not is_torn:
                raise
            logger.info("%s was saved to while it was being loaded; loading it again", ref)
            time.sleep(_PAUSE * attempt)
    raise AssertionError  # the loop returns or raises


def _generation(ref: PathLike | None, options: LoadOptions) -> tuple[int, ...]:
    """Changes whenever a file comes into the local folder or leaves it; constant for anything else."""
    if ref is None or options.state_dict is not None:
        return ()
    try:
        status = os.stat(os.path.join(ref, options.source.subfolder))
    except (OSError, ValueError, TypeError):
        return ()
    return status.st_ino, status.st_mtime_ns


def _load_once(
    choose: Choose,
    ref: PathLike | None,
    options: LoadOptions,
    keywords: Mapping[str, Any],
    backend: Backend,
    model_args: Sequence[Any],
) -> tuple[Any, LoadReport]:
    watch = Stopwatch()
    with watch.time("resolve"):
        snapshot, adapter = with_base(None if ref is None else settle(resolve(ref, options.source)), options)
        attach = None if adapter is None else backend.adapter(adapter, strict=options.strict)
        before = _config_stamp(snapshot)
        gguf = None if snapshot is None else find_gguf(snapshot, options.weights)
        config, rest = read_config_with(choose, snapshot, options, keywords, gguf)
        cls = choose(config, snapshot)[1]
        arguments = apply_keywords(cls, config, rest)
        scheme = choose_scheme(options, config)
        quantizer = None if scheme is None else backend.quantizer(scheme)
    with watch.time("find"):
        weights = gguf if gguf and options.state_dict is None else _find_weights(snapshot, options, backend)
        check_plausible(config, weights)
    with watch.time("skeleton"):
        # With a config that was read and nothing else, whatever a constructor complains of is in the file.
        is_read = snapshot is not None and options.config is None and not (model_args or arguments)
        file = name_of(gguf) if gguf else str(snapshot.path(CONFIG_NAME)) if snapshot and is_read else None
        with located(cls.__name__, file) if is_read else nullcontext():
            model = backend.skeleton(lambda: cls(config, *model_args, **arguments))
    report = load_weights(model, cls, weights, options, backend, config=config, watch=watch, quantizer=quantizer)
    if snapshot is not None and _config_stamp(snapshot) != before:
        raise CheckpointChangedError(f"{snapshot.name} was replaced while it was being loaded", path=snapshot.name)
    if (settings := generation_config_of(snapshot, options)) is not None:
        model.generation_config = settings
    report.source = snapshot.name if snapshot is not None else str(MEMORY)
    config.dtype = report.dtype
    if snapshot is not None and snapshot.commit:
        config._commit_hash = snapshot.commit
    if attach is not None:
        attach(model)
    return model, report


def load_weights(
    model: Any,
    cls: Any,
    weights: Weights,
    options: LoadOptions,
    backend: Backend,
    *,
    config: Any = None,
    watch: Stopwatch | None = None,
    quantizer: Quantizer | None = None,
) -> LoadReport:
    """Fills a model, skeleton or live, from opened weights. Until the last step nothing of the model changes.

    Raises:
        MismatchError: the checkpoint does not fit. CheckpointChangedError: a file changed on the way.
    """
    watch = watch or Stopwatch()
    with watch.time("plan"):
        plan, policy = build_plan(model, cls, weights, options, backend, config, quantizer)
        plan.check(strict=options.strict, ignore_mismatched_sizes=options.ignore_mismatched_sizes)
        require_folder(plan, weights.containers)
    with watch.time("initialise"):
        backend.initialise(model, plan.initialise, policy)
    with watch.time("read"):
        loaded = execute(plan, weights.containers, backend, use_mmap=options.mmap)
        if plan.placement is not None:
            deliver(plan, weights.containers, backend, backend.placer, loaded, use_mmap=options.mmap)
        plan.conflicts += loaded.warnings
        _compare_twins(plan, loaded, weights, backend)
        _require_same_files(weights)
        if options.strict and plan.conflicts:
            raise MismatchError(f"{plan.source}: " + "; ".join(plan.conflicts), path=plan.source)
    with watch.time("bind"):
        backend.bind(model, loaded.values)
        if plan.placement is not None:
            backend.placer.attach(model, plan.placement, loaded.resting)
        backend.finish(model, policy, plan.renamed)
    report = _report_of(plan, loaded, watch.seconds)
    report.dtype = policy.default
    _log(report)
    return report


def build_plan(
    model: Any,
    cls: Any,
    weights: Weights,
    options: LoadOptions,
    backend: Backend,
    config: Any = None,
    quantizer: Quantizer | None = None,
) -> tuple[LoadPlan, DtypePolicy]:
    """The plan that would fill `model` from these weights, unchecked, and the dtypes it was made for."""
    policy = DtypePolicy.of(
        options.dtype,
        getattr(config, "dtype", None),
        weights.entries.values(),
        _declared(cls, "_keep_in_fp32_modules"),
    )
    params, placement, prefix = backend.params(model), None, getattr(cls, "base_model_prefix", "")
    rules = (*getattr(cls, "_rules", ()), *rules_from_mapping(options.key_mapping))
    policy.check_names(alias for spec in params for alias in (spec.name, *spec.aliases))
    if quantizer is not None:
        wanted = {name: spec for spec in params for name in (spec.name, *spec.aliases)}
        params = quantizer.prepare(model, params, weights, lambda name: place_of(name, wanted, prefix, rules).name)
        policy = quantizer.keep_dtypes(policy)
    if options.placement.device_map is not None:
        placer = backend.placer
        sizes = params if quantizer is None else quantizer.sizes(params)
        placement = plan_placement(options.placement, placer.layout(model), sizes, policy, placer.memory)
        placer.check(placement)
        if quantizer is not None and placement.is_spread:
            raise _spread(placement.devices.values())
        params = placement.stamp(params)
    plan = plan_load(
        weights.entries,
        params,
        policy,
        prefix=prefix,
        rules=rules,
        aliases=weights.aliases,
        layouts=weights.layouts,
        ignore_missing=_declared(cls, "_keys_to_ignore_on_load_missing"),
        ignore_unexpected=_declared(cls, "_keys_to_ignore_on_load_unexpected"),
        source=name_of(weights),
        model=cls.__name__,
    )
    plan.steps = joined(plan.steps, weights.containers)
    plan.placement = placement
    if options.only is not None:
        plan.keep_only(options.only, params)
    if quantizer is not None:
        quantizer.stamp(plan)
    if weights.twins:
        filled = {step.entry.name: step.param for step in plan.steps}
        own = {name: filled.get(weights.entries[name].name) for name, _ in weights.twins}
        plan.twins += [(param, twin) for name, twin in weights.twins if (param := own[name]) is not None]
    return plan, policy


def _spread(devices: Iterable[Any]) -> InvalidOptionError:
    return InvalidOptionError(
        f"device_map spreads the model over {', '.join(map(str, dict.fromkeys(devices)))}, and a quantized model lies "
        "on one device in this version; pass device_map='cpu' or one such as 0",
        key="device_map",
    )


def _declared(cls: Any, attribute: str) -> Sequence[str]:
    """A class attribute that is a list of strings, or None, or not there."""
    return getattr(cls, attribute, None) or ()


def _config_stamp(snapshot: Snapshot | None) -> FileStamp | None:
    """Identity of the config file, to notice a save that comes between it and the weights."""
    if snapshot is None or snapshot.folder is None:
        return None
    try:
        return stamp_at(snapshot.path(CONFIG_NAME))
    except OSError:
        return None


def _find_weights(snapshot: Snapshot | None, options: LoadOptions, backend: Backend) -> Weights:
    if options.state_dict is not None:
        container = StateDict(options.state_dict, backend.describe)
        return Weights({MEMORY: container}, container.entries)
    if snapshot is None:
        raise OptionError("without a folder or name, pass state_dict=", key="state_dict")
    return find_checkpoint(snapshot, options.weights)


def _compare_twins(plan: LoadPlan, loaded: Loaded, weights: Weights, backend: Backend) -> None:
    """Tied tensors that are at rest twice must be equal; the model keeps the one under the parameter's own name."""
    used = {step.param: step for step in plan.steps}
    for param, twin in plan.twins:
        if param not in used:
            continue
        step = used[param]
        if twin.offset >= 0 and (twin.file, twin.offset) == (step.entry.file, step.entry.offset):
            continue  # two names of the same bytes
        if twin.shape != step.entry.shape or not backend.equals(
            _as_at_rest(step, step.entry, weights, backend), _as_at_rest(step, twin, weights, backend)
        ):
            plan.conflicts.append(
                f"{twin.name} is tied to {step.entry.name} and differs from it in the checkpoint; the latter is used. "
                "If they are meant to differ, load with tie_word_embeddings=False"
            )


def _as_at_rest(step: Step, entry: Entry, weights: Weights, backend: Backend) -> Any:
    """An entry's elements as they are stored: all of them, or those of the part that the step is for."""
    container = weights.containers[entry.file]
    if step.box is None:
        return container.read(entry)
    found = Loaded()
    same = step._replace(entry=entry, dtype=entry.dtype)
    load_steps(container, [same], backend, found, use_mmap=False, ahead=False)
    return found.values[step.param]


def _require_same_files(weights: Weights) -> None:
    for path, container in weights.containers.items():
        try:
            now = None if container.stamp is None else stamp_at(path)
        except OSError:
            now = None
        if now != container.stamp:
            raise CheckpointChangedError(f"{path} was replaced while it was being loaded; load it again", path=path)


def _report_of(plan: LoadPlan, loaded: Loaded, seconds: dict[str, float]) -> LoadReport:
    return LoadReport(
        missing_keys=Keys(plan.missing),
        unexpected_keys=Keys(plan.unexpected),
        mismatched_keys=Keys((m.name, m.found, m.wanted) for m in plan.mismatched),
        conflicts=plan.conflicts,
        num_loaded=len({step.param for step in plan.steps}),
        bytes_read=loaded.bytes_read,
        bytes_mapped=loaded.bytes_mapped,
        seconds=seconds,
        source=plan.source,
        model=plan.model,
    )


def _log(report: LoadReport) -> None:
    if report.is_clean:
        logger.info("%s", report.summary())
    else:
        logger.warning("%s", report.render())
