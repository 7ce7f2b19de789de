"""ModuleUtilsMixin: what any torch module can say of itself, and the masks that model code builds."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .placement import running_device

__all__ = ["ModuleUtilsMixin"]


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
        return sum(p.numel() for p in parameters if id(p) not in left_out and (p.requires_grad or not only_trainable))

    def estimate_tokens(self, input_dict: dict[str, Any]) -> int:
        """Number of tokens in a batch: elements of the main input, 0 if it is not there."""
        tensor = input_dict.get(self.main_input_name)
        return 0 if tensor is None else tensor.numel()

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
