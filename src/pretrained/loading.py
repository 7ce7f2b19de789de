"""The story of a load, the same for every framework: resolve, find, plan, check, execute, finish."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from ._types import PathLike, Snapshot
from .backend import Backend
from .checkpoint.deliver import deliver, require_folder
from .checkpoint.devices import plan_placement
from .checkpoint.disk import stamp_at
from .checkpoint.dtypes import DtypePolicy
from .checkpoint.execute import Loaded, execute
from .checkpoint.files import read_json
from .checkpoint.find import Weights, find_checkpoint, settle
from .checkpoint.formats.memory import MEMORY, StateDict
from .checkpoint.plan_load import LoadPlan, plan_load
from .checkpoint.rules import rules_from_mapping
from .checkpoint.tensors import FileStamp, count_elements
from .configuration import CONFIG_NAME, PretrainedConfig, config_keys, config_path
from .configuration_input import located
from .errors import CheckpointChangedError, ConfigError, MismatchError, OptionError, PretrainedError
from .generation.config import GenerationConfig, read_generation_config
from .hub.ref import resolve
from .options import LoadOptions, unknown_keyword
from .report import Keys, LoadReport

__all__ = ["Choose", "Stopwatch", "build_plan", "load", "load_weights", "read_config", "split_model_keywords"]

logger = logging.getLogger(__name__)

_MAX_EMPTY_LAYERS = 512  # layers that a model may have whatever the checkpoint holds
_MAX_EMPTY_SIZE = 2**22  # the same for any other size: a constructor may compute a table of as many rows
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


Choose = Callable[[Any], tuple[type[PretrainedConfig], Any]]


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
        choose: the content of a config.json, or a config → (config class, model class); for the former the model
            class may be left open. Of the class, the hooks that start with _keys_to_ignore and the like are read.
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
        snapshot = None if ref is None else settle(resolve(ref, options.source))
        before = _config_stamp(snapshot)
        config, rest = _read_config(choose, snapshot, options, keywords)
        cls = choose(config)[1]
        arguments = _apply_keywords(cls, config, rest)
    with watch.time("find"):
        weights = _find_weights(snapshot, options, backend)
        _check_plausible(config, weights)
    with watch.time("skeleton"):
        # With a config that was read and nothing else, whatever a constructor complains of is in the file.
        is_read = snapshot is not None and options.config is None and not (model_args or arguments)
        with located(cls.__name__, str(snapshot.path(CONFIG_NAME))) if is_read and snapshot else nullcontext():
            model = backend.skeleton(lambda: cls(config, *model_args, **arguments))
    report = load_weights(model, cls, weights, options, backend, config=config, watch=watch)
    if snapshot is not None and _config_stamp(snapshot) != before:
        raise CheckpointChangedError(f"{snapshot.name} was replaced while it was being loaded", path=snapshot.name)
    model.generation_config = _generation_config(snapshot, options)
    report.source = snapshot.name if snapshot is not None else str(MEMORY)
    config.dtype = report.dtype
    if snapshot is not None and snapshot.commit:
        config._commit_hash = snapshot.commit
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
) -> LoadReport:
    """Fills a model, skeleton or live, from opened weights. Until the last step nothing of the model changes.

    Raises:
        MismatchError: the checkpoint does not fit. CheckpointChangedError: a file changed on the way.
    """
    watch = watch or Stopwatch()
    with watch.time("plan"):
        plan, policy = build_plan(model, cls, weights, options, backend, config)
        plan.check(strict=options.strict, ignore_mismatched_sizes=options.ignore_mismatched_sizes)
        require_folder(plan)
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
    model: Any, cls: Any, weights: Weights, options: LoadOptions, backend: Backend, config: Any = None
) -> tuple[LoadPlan, DtypePolicy]:
    """The plan that would fill `model` from these weights, unchecked, and the dtypes it was made for."""
    policy = DtypePolicy.of(
        options.dtype,
        getattr(config, "dtype", None),
        weights.entries.values(),
        _declared(cls, "_keep_in_fp32_modules"),
    )
    params, placement = backend.params(model), None
    if options.placement.device_map is not None:
        placer = backend.placer
        placement = plan_placement(options.placement, placer.layout(model), params, policy, placer.memory)
        placer.check(placement)
        params = placement.stamp(params)
    plan = plan_load(
        weights.entries,
        params,
        policy,
        prefix=getattr(cls, "base_model_prefix", ""),
        rules=(*getattr(cls, "_rules", ()), *rules_from_mapping(options.key_mapping)),
        aliases=weights.aliases,
        layouts=weights.layouts,
        ignore_missing=_declared(cls, "_keys_to_ignore_on_load_missing"),
        ignore_unexpected=_declared(cls, "_keys_to_ignore_on_load_unexpected"),
        source=_name_of(weights),
        model=cls.__name__,
    )
    plan.placement = placement
    if weights.twins:
        filled = {step.entry.name: step.param for step in plan.steps}
        own = {name: filled.get(weights.entries[name].name) for name, _ in weights.twins}
        plan.twins += [(param, twin) for name, twin in weights.twins if (param := own[name]) is not None]
    return plan, policy


def _declared(cls: Any, attribute: str) -> Sequence[str]:
    """A class attribute that is a list of strings, or None, or not there."""
    return getattr(cls, attribute, None) or ()


def _name_of(weights: Weights) -> str:
    if weights.index is not None:
        return str(weights.index.path)
    return str(next(iter(weights.containers), MEMORY))


def read_config(choose: Choose, snapshot: Snapshot | None, options: LoadOptions) -> Any:
    """The model's own config: a copy of the one that was given, or read where the caller or the checkpoint says.

    Raises:
        ConfigError: the config is damaged or impossible. OptionError: there is nowhere to read it from.
    """
    return _read_config(choose, snapshot, options, {})[0]


def _read_config(
    choose: Choose, snapshot: Snapshot | None, options: LoadOptions, keywords: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """(the config, keywords that are not yet in it). What is read is built with them, so that all that follows fits."""
    given, rest = options.config, dict(keywords)
    if isinstance(given, PretrainedConfig):
        config = copy.deepcopy(given)
    else:
        if given is not None:
            snapshot = settle(resolve(given, options.source))
        if snapshot is None:
            raise OptionError("without a folder or name, pass config= and state_dict=", key="config")
        path = config_path(snapshot)
        values = {**read_json(path), "_name_or_path": snapshot.name, "_config_file": str(path)}
        config, rest = choose(values)[0].from_dict(values, return_unused_kwargs=True, **keywords)
        _compare_types(values, config)
    if options.attn_implementation is not None:
        config._attn_implementation = options.attn_implementation
    return config, rest


def _compare_types(values: Mapping[str, Any], config: Any) -> None:
    found, wanted = values.get("model_type"), config.model_type
    if found and wanted and found != wanted:
        logger.warning("%s is a %s checkpoint and is read as %s", values["_name_or_path"], found, wanted)


def _config_stamp(snapshot: Snapshot | None) -> FileStamp | None:
    """Identity of the config file, to notice a save that comes between it and the weights."""
    if snapshot is None or snapshot.folder is None:
        return None
    try:
        return stamp_at(snapshot.path(CONFIG_NAME))
    except OSError:
        return None


def _generation_config(snapshot: Snapshot | None, options: LoadOptions) -> GenerationConfig | None:
    given = options.generation_config
    if isinstance(given, GenerationConfig):
        return copy.deepcopy(given)
    if given is not None:
        return GenerationConfig.from_pretrained(given)
    return None if snapshot is None else read_generation_config(snapshot)


def _apply_keywords(cls: Any, config: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Sets the config fields among the keywords; returns the constructor's arguments."""
    fields, arguments = split_model_keywords(cls, config, keywords)
    for name, value in fields.items():
        config.override(name, value)
    return arguments


def split_model_keywords(cls: Any, config: Any, keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config fields, constructor arguments) of the keywords that are no options.

    Raises:
        OptionError: a keyword is neither; names the nearest that would be.
    """
    if not keywords:
        return {}, {}
    known = config_keys(config)
    parameters = inspect.signature(cls.__init__).parameters
    accepts_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    named = set(parameters) - {"self", "config"}
    fields = {name: value for name, value in keywords.items() if name in known}
    arguments = {name: value for name, value in keywords.items() if name not in known}
    for name in arguments:
        if name not in named and not accepts_any:
            raise unknown_keyword(name, [*known, *named])
    return fields, arguments


def _find_weights(snapshot: Snapshot | None, options: LoadOptions, backend: Backend) -> Weights:
    if options.state_dict is not None:
        container = StateDict(options.state_dict, backend.describe)
        return Weights({MEMORY: container}, container.entries)
    if snapshot is None:
        raise OptionError("without a folder or name, pass state_dict=", key="state_dict")
    return find_checkpoint(snapshot, options.weights)


def _check_plausible(config: Any, weights: Weights) -> None:
    """Refuses, before anything is built, a config with many more layers than tensors or a size beyond all of them."""
    layers = getattr(config, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > max(len(weights.entries), _MAX_EMPTY_LAYERS):
        raise ConfigError(
            f"config key 'num_hidden_layers' is {layers}, and {_name_of(weights)} holds {len(weights.entries)} tensors",
            key="num_hidden_layers",
            path=_name_of(weights),
        )
    sizes = {name: getattr(config, name, None) for name in type(config).positive}
    large = {name: size for name, size in sizes.items() if isinstance(size, int) and size > _MAX_EMPTY_SIZE}
    held = sum(count_elements(entry.shape) for entry in weights.entries.values()) if large else 0
    for name, size in large.items():
        if size > held:
            raise ConfigError(
                f"config key {name!r} is {size}, and {_name_of(weights)} holds {held} numbers in all",
                key=name,
                path=_name_of(weights),
            )


def _compare_twins(plan: LoadPlan, loaded: Loaded, weights: Weights, backend: Backend) -> None:
    """Tied tensors that are at rest twice must be equal; the model keeps the one under the parameter's own name."""
    used = {step.param: step.entry for step in plan.steps}
    for param, twin in plan.twins:
        if param not in used:
            continue
        if twin.offset >= 0 and (twin.file, twin.offset) == (used[param].file, used[param].offset):
            continue  # two names of the same bytes
        mine = weights.containers[used[param].file].read(used[param])
        other = weights.containers[twin.file].read(twin)
        if not backend.equals(mine, other):
            plan.conflicts.append(
                f"{twin.name} is tied to {used[param].name} and differs from it in the checkpoint; the latter is used. "
                "If they are meant to differ, load with tie_word_embeddings=False"
            )


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
        num_loaded=len(plan.steps),
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
