"""The layers that adapters put into a torch model: adding, choosing, taking away. The layers are those of peft."""

from __future__ import annotations

import copy
import functools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from ..errors import InvalidOptionError, MissingFrameworkError, OptionError, PretrainedError
from .layers import Conv1D

__all__ = [
    "DEFAULT",
    "activate",
    "active",
    "add",
    "as_it_was",
    "delete",
    "inject",
    "is_adapted",
    "peft_library",
    "require_free",
    "state_of_adapter",
    "switch",
    "translated",
]

DEFAULT = "default"
# What peft finds wrong with a config once it has the model before it.
_PEFT_ERRORS = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError, ImportError,
    re.error,
)  # fmt: skip


def is_adapted(model: Any) -> bool:
    """Whether the model has adapters of its own; not those of a PeftModel around it."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def peft_library() -> Any:
    """The peft library."""
    try:
        import peft
        import peft.functional
    except ImportError as error:
        raise MissingFrameworkError(
            f"adapters need peft, which is not installed or lacks something ({error}): pip install 'pretrained[peft]'",
            key="peft",
        ) from error
    return peft


def _names(model: Any) -> list[str]:
    """Names of the adapters there are. Raises InvalidOptionError if there are none."""
    peft_library()
    if not is_adapted(model):
        raise InvalidOptionError(
            f"{type(model).__name__} has no adapter; call add_adapter or load_adapter first", key="adapter_name"
        )
    return list(model.peft_config)


def _require(model: Any, wanted: Iterable[Any]) -> None:
    known = _names(model)
    if missing := [name for name in wanted if name not in known]:
        raise InvalidOptionError(
            f"no adapter {', '.join(repr(name)[:80] for name in missing)}; there is {', '.join(known)}",
            key="adapter_name",
        )


def require_free(model: Any, name: str) -> None:
    """Whether an adapter of that name can be added."""
    if not isinstance(name, str) or not name or "." in name:
        raise InvalidOptionError(
            f"adapter_name={name!r:.80}: a name is a word without dots, since it becomes part of parameters' names",
            key="adapter_name",
        )
    if is_adapted(model) and name in model.peft_config:
        raise InvalidOptionError(
            f"there is an adapter {name!r} already; choose another adapter_name, or delete_adapter({name!r}) first",
            key="adapter_name",
        )


def _layers(model: nn.Module) -> list[Any]:
    """The layers that adapters have put in, parts that are trained whole among them."""
    peft = peft_library()
    kinds = (peft.tuners.tuners_utils.BaseTunerLayer, peft.utils.other.AuxiliaryTrainingWrapper)
    return [module for module in model.modules() if isinstance(module, kinds)]


def active(model: Any) -> list[str]:
    """Names of the active adapters."""
    _names(model)
    return list(next((layer.active_adapters for layer in _layers(model)), ()))


def activate(model: Any, wanted: str | list[str], *, is_trainable: bool = True) -> None:
    """Makes adapters the active ones."""
    _require(model, [wanted] if isinstance(wanted, str) else wanted)
    peft_library().functional.set_adapter(model, wanted, inference_mode=not is_trainable)


def switch(model: Any, *, is_on: bool) -> None:
    """Lets adapters take part in the forward pass, or not."""
    _names(model)
    for layer in _layers(model):
        layer.enable_adapters(is_on)


def state_of_adapter(
    model: Any, name: str | None = None, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The tensors of one adapter."""
    chosen = name if name is not None else next(iter(active(model)), None)
    _require(model, [chosen])
    # Whether embeddings were resized is nothing that peft should ask a hub for: they are not part of an adapter.
    found = peft_library().get_peft_model_state_dict(
        model,
        state_dict=None if state_dict is None else dict(state_dict),
        adapter_name=chosen,
        save_embedding_layers=False,
    )
    return dict(found)


def delete(model: Any, names: list[str]) -> None:
    """Takes adapters away."""
    _require(model, names)
    rest = [name for name in model.peft_config if name not in names]
    if not rest:
        _unwrap(model)
        return
    kept = [name for name in active(model) if name not in names] or rest[:1]
    activate(model, kept)
    for name in dict.fromkeys(names):
        for layer in _layers(model):
            _forget(layer, name, kept)
        del model.peft_config[name]


def _forget(layer: Any, name: str, kept: list[str]) -> None:
    if isinstance(layer, peft_library().tuners.tuners_utils.BaseTunerLayer):
        layer.delete_adapter(name)
    else:
        layer.delete_adapter(name, new_active_adapters=kept)


def _unwrap(model: Any) -> None:
    """Puts the model's own layers back where adapters had put theirs."""
    wrapped = {id(layer) for layer in _layers(model)}
    for module in list(model.modules()):
        for key, child in list(module._modules.items()):
            if id(child) in wrapped and id(module) not in wrapped:
                module._modules[key] = _own_layer(child)
    model.__dict__.pop("peft_config", None)
    model._hf_peft_config_loaded = False


def _own_layer(layer: Any) -> nn.Module:
    if isinstance(layer, peft_library().tuners.tuners_utils.BaseTunerLayer):
        layer.unmerge() if layer.merged else None
        return layer.get_base_layer()
    return layer.original_module


def add(model: Any, config: Any, name: str) -> None:
    """Puts fresh layers in."""
    peft = peft_library()
    require_free(model, name)
    if not isinstance(config, peft.PeftConfig):
        raise OptionError(
            f"adapter_config is a config of peft, such as LoraConfig, not a {type(config).__name__}",
            key="adapter_config",
        )
    config = copy.deepcopy(config)
    config.base_model_name_or_path = config.base_model_name_or_path or getattr(model, "name_or_path", None) or None
    with as_it_was(model, name):
        inject(model, config, name)
        model._hf_peft_config_loaded = True
        activate(model, name)


@contextmanager
def translated(model: Any) -> Iterator[None]:
    """Makes what peft finds wrong in the block an InvalidOptionError with its reason."""
    try:
        yield
    except PretrainedError:
        raise
    except _PEFT_ERRORS as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidOptionError(
            f"this adapter cannot be put on {type(model).__name__}: {reason}", key="peft_config", reason=reason
        ) from error


def inject(model: Any, config: Any, name: str, *, is_empty: bool = False) -> None:
    """Puts layers in; if `is_empty`, without memory.

    Raises:
        InvalidOptionError: peft cannot; with its reason.
    """
    if config.peft_type == "LORA":
        config._register_custom_module({Conv1D: _transposed_lora()})
    with translated(model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second adapter is what was asked for
        peft_library().inject_adapter_in_model(config, model, name, low_cpu_mem_usage=is_empty)
    for layer in _layers(model):
        layer.train(model.training)


@functools.cache
def _transposed_lora() -> Any:
    """The class of peft's layer around our Conv1D, whose weight is `(in, out)`; peft itself knows another Conv1D."""
    base: Any = peft_library().tuners.lora.layer.Linear

    class TransposedLora(base):
        """peft's layer, told that the weight it is around is transposed."""

        def __init__(self, base_layer: nn.Module, adapter_name: str, **kwargs: Any) -> None:
            options = {**kwargs, "fan_in_fan_out": True, "is_target_conv_1d_layer": True}
            super().__init__(base_layer, adapter_name, **options)

    return TransposedLora


@contextmanager
def as_it_was(model: Any, name: str) -> Iterator[Callable[[], None]]:
    """Takes back what the block does to a model, if it fails; also when what it gives is called."""
    children = [(module, dict(module._modules)) for module in model.modules()]
    gradients = [(param, param.requires_grad) for param in model.parameters()]
    configs = dict(model.peft_config) if is_adapted(model) else None
    on = active(model) if configs else []

    def undo() -> None:
        if configs:
            with suppress(*_PEFT_ERRORS):
                activate(model, on)
        for layer in _layers(model):
            with suppress(*_PEFT_ERRORS):
                _forget(layer, name, on)
        for module, own in children:
            module._modules.clear()
            module._modules.update(own)
        for param, requires_grad in gradients:
            param.requires_grad_(requires_grad)
        model.__dict__.pop("peft_config", None)
        if configs is not None:
            model.peft_config = dict(configs)
        model._hf_peft_config_loaded = configs is not None

    try:
        yield undo
    except BaseException:
        undo()
        raise
