"""ModuleUtilsMixin: what any torch module can say of itself, and the masks that model code builds."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import MissingFrameworkError
from .placement import running_device
from .quantization.base import num_elements

__all__ = ["ModuleUtilsMixin"]

logger = logging.getLogger(__name__)


class ModuleUtilsMixin:
    """Stateless helpers for `nn.Module` subclasses."""

    main_input_name: ClassVar[str] = "input_ids"

    @property
    def device(self) -> torch.device:
        """Device of the first parameter or buffer, or where a placed model runs; the CPU for one without tensors."""
        if (placed := running_device(self)) is not None:
            return placed
        tensor = _first(self, floating=False)
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the first floating parameter or buffer; torch's default for a module that has none."""
        tensor = _first(self, floating=True)
        return torch.get_default_dtype() if tensor is None else tensor.dtype

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of parameter elements; tied ones count once.

        Args:
            only_trainable: leave out what needs no gradient.
            exclude_embeddings: leave out the weights of embedding layers.
        """
        left_out: set[int] = set()
        if exclude_embeddings:
            modules = self.modules()  # type: ignore[attr-defined]
            left_out = {id(module.weight) for module in modules if isinstance(module, nn.Embedding)}
        parameters = self.parameters()  # type: ignore[attr-defined]
        return sum(
            num_elements(p) for p in parameters if id(p) not in left_out and (p.requires_grad or not only_trainable)
        )

    def estimate_tokens(self, input_dict: dict[str, Any]) -> int:
        """Number of tokens in a batch: elements of the main input; 0, with one warning, if it is not there."""
        tensor = input_dict.get(self.main_input_name)
        if tensor is not None:
            return tensor.numel()
        issued = self.__dict__.setdefault("warnings_issued", {})
        if not issued.get("estimate_tokens"):
            logger.warning("the batch has no %r: its tokens and operations are not counted", self.main_input_name)
            issued["estimate_tokens"] = True
        return 0

    def floating_point_ops(self, input_dict: dict[str, Any], exclude_embeddings: bool = True) -> int:
        """Floating-point operations of a forward and backward pass, as 6 · tokens · parameters.

        Source: Kaplan et al., Scaling Laws for Neural Language Models (2020), section 2.1.
        """
        return 6 * self.estimate_tokens(input_dict) * self.num_parameters(exclude_embeddings=exclude_embeddings)

    def invert_attention_mask(self, encoder_attention_mask: Tensor) -> Tensor:
        """A mask of 1 and 0 as one to add to scores: 0 where attended, the dtype's minimum elsewhere.

        Args:
            encoder_attention_mask: `(batch, seq)` or `(batch, query, key)`.

        Returns:
            `(batch, 1, 1, seq)` or `(batch, 1, query, key)`.
        """
        return _additive(_spread(encoder_attention_mask), self.dtype)

    def get_extended_attention_mask(
        self,
        attention_mask: Tensor,
        input_shape: tuple[int, ...],
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """A mask to add to self-attention scores; causal as well when the config says decoder.

        Args:
            attention_mask: `(batch, key)` or `(batch, query, key)`, 1 for what is attended.
            input_shape: `(batch, query)`.
            device: not used; the mask stays where it is.
            dtype: of the result; the model's by default.

        Returns:
            `(batch, 1, 1, key)` or `(batch, 1, query, key)`.

        Raises:
            ValueError: the mask has another number of axes.
        """
        if attention_mask.ndim not in (2, 3):
            raise ValueError(f"attention_mask must have 2 or 3 axes, found shape {tuple(attention_mask.shape)}")
        dtype = dtype or self.dtype
        if attention_mask.ndim == 2 and getattr(getattr(self, "config", None), "is_decoder", False):
            return self.create_extended_attention_mask_for_decoder(input_shape, attention_mask, dtype=dtype)
        return _additive(_spread(attention_mask), dtype)

    def create_extended_attention_mask_for_decoder(
        self,
        input_shape: tuple[int, ...],
        attention_mask: Tensor,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Padding and causality in one mask to add: `(batch, 1, query, key)`; keys before the queries are the past."""
        num_queries, num_keys = input_shape[-1], attention_mask.shape[-1]
        rows = torch.arange(num_queries, device=attention_mask.device)[:, None] + (num_keys - num_queries)
        columns = torch.arange(num_keys, device=attention_mask.device)[None, :]
        keep = (columns <= rows)[None, None] & _spread(attention_mask).bool()
        return _additive(keep, dtype or self.dtype)

    def get_head_mask(
        self, head_mask: Tensor | None, num_hidden_layers: int, is_attention_chunked: bool = False
    ) -> Any:
        """One mask a layer from `(heads,)` or `(layers, heads)`: `(layers, 1, heads, 1, 1)`, or a list of None."""
        if head_mask is None:
            return [None] * num_hidden_layers
        if head_mask.ndim == 1:
            head_mask = head_mask.expand(num_hidden_layers, -1)
        mask = head_mask[:, None, :, None, None].to(self.dtype)
        return mask.unsqueeze(-1) if is_attention_chunked else mask

    def add_memory_hooks(self) -> None:
        """Makes every module note the memory of the process, in bytes, around its forward pass.

        As the attributes mem_rss_pre_forward, mem_rss_post_forward, and mem_rss_diff: the sum of what it grew by.

        Raises:
            MissingFrameworkError: psutil is not installed.
        """
        _resident_bytes()
        for module in self.modules():  # type: ignore[attr-defined]
            module.register_forward_pre_hook(_note_before)
            module.register_forward_hook(_note_after)
        self.reset_memory_hooks_state()

    def reset_memory_hooks_state(self) -> None:
        """Sets what `add_memory_hooks` notes to 0."""
        for module in self.modules():  # type: ignore[attr-defined]
            module.mem_rss_diff = module.mem_rss_post_forward = module.mem_rss_pre_forward = 0

    def retrieve_modules_from_names(
        self, names: Iterable[str], add_prefix: bool = False, remove_prefix: bool = False
    ) -> list[nn.Module]:
        """The modules that hold the parameters and buffers of these names.

        Args:
            names: as state_dict has them, or another model's, with or without the prefix of a base model.
            add_prefix: the names are those of a model with a head, and this is a base model.
            remove_prefix: the names are those of a base model, and this has a head.
        """
        wanted = {owner for name in names for owner in _owners(name)}
        prefix = self.base_model_prefix  # type: ignore[attr-defined]
        found = []
        for name, module in self.named_modules():  # type: ignore[attr-defined]
            if remove_prefix:
                name = "" if name == prefix else name.removeprefix(f"{prefix}.")
            elif add_prefix:
                name = f"{prefix}.{name}" if name else prefix
            if name in wanted:
                found.append(module)
        return found

    def get_parameter_or_buffer(self, target: str) -> Any:
        """The parameter or buffer of that dotted name.

        Raises:
            AttributeError: there is none.
        """
        owner, _, key = target.rpartition(".")
        module = self.get_submodule(owner)  # type: ignore[attr-defined]
        for tensors in (module._parameters, module._buffers):
            if tensors.get(key) is not None:
                return tensors[key]
        raise AttributeError(f"{type(self).__name__} has no parameter or buffer {target!r}")


def _owners(name: str) -> Iterable[str]:
    """The module of a name; of an entry of a list of parameters, what holds the list as well."""
    owner, _, key = name.rpartition(".")
    yield owner
    if key.isdigit():
        yield owner.rpartition(".")[0]


def _resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    try:
        import psutil  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingFrameworkError(
            "memory hooks need psutil, which is not installed: pip install psutil", key="psutil"
        ) from error
    return int(psutil.Process().memory_info().rss)


def _note_before(module: Any, inputs: Any) -> None:
    module.mem_rss_pre_forward = _resident_bytes()


def _note_after(module: Any, inputs: Any, output: Any) -> None:
    module.mem_rss_post_forward = _resident_bytes()
    module.mem_rss_diff += module.mem_rss_post_forward - module.mem_rss_pre_forward


def _first(module: Any, *, floating: bool) -> Tensor | None:
    for tensors in (module.parameters(), module.buffers()):
        for tensor in tensors:
            if tensor.is_floating_point() or not floating:
                return tensor
    return None


def _spread(mask: Tensor) -> Tensor:
    """`(batch, key)` or `(batch, query, key)` with an axis for heads."""
    return mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]


def _additive(keep: Tensor, dtype: torch.dtype) -> Tensor:
    # The minimum rather than -inf: a row with nothing to attend to then gives a mean, not NaN.
    return torch.zeros((), dtype=dtype, device=keep.device).masked_fill(~keep.bool(), torch.finfo(dtype).min)
