"""Layers of NNX modules: parameters under torch's names in torch's layout, described until somebody fills them.

A layer computes in the dtype of what comes in. `rng` is a key for dropout, or None where nothing is dropped; a part
that drops in several places folds the number of each into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from .._types import Shape
from ..errors import unknown_name
from .kinds import CONV, EMBEDDING, LINEAR, NORM, ONES, RAW, ZEROS, Init, Kind, Normal, fan_in

__all__ = [
    "ACTIVATIONS", "Conv", "Conv1D", "Embedding", "LayerNorm", "Linear", "Module", "Modules", "RMSNorm", "activation",
    "chunked", "dropout", "folded", "parameter",
]  # fmt: skip

Array = jax.Array


class Module(nnx.Module):
    """Base of our modules: a constructor describes parameters and makes none.

    `generates` says that a call gives logits of the next token and takes `past_key_values`.
    """

    generates: ClassVar[bool] = False


Modules = nnx.List


def parameter(shape: Shape, init: Init, kind: Kind = RAW, dtype: Any = jnp.float32) -> nnx.Param[Any]:
    """A parameter of torch's shape that is described: its values come from a checkpoint or from `init`."""
    return nnx.Param(jax.ShapeDtypeStruct(shape, dtype), init=init, kind=kind)


class Linear(Module):
    """`x W' + b` with `W` `(out, in)`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        init: Init | None = None,
        bias_init: Init = ZEROS,
    ) -> None:
        self.weight = parameter((out_features, in_features), init or fan_in(in_features), LINEAR)
        self.bias = parameter((out_features,), bias_init) if bias else None

    def __call__(self, x: Array) -> Array:
        """`(…, out)` of `(…, in)`."""
        return project(x, self.weight[...], None if self.bias is None else self.bias[...], axis=1)


class Conv1D(Module):
    """The same with `W` `(in, out)`, as the checkpoints of OpenAI's GPT models have it."""

    def __init__(self, nf: int, nx: int, *, init: Init) -> None:
        self.weight = parameter((nx, nf), init, LINEAR)
        self.bias = parameter((nf,), ZEROS)

    def __call__(self, x: Array) -> Array:
        """`(…, out)` of `(…, in)`."""
        return project(x, self.weight[...], self.bias[...], axis=0)


def project(x: Array, weight: Array, bias: Array | None = None, axis: int = 1) -> Array:
    """The product of the last axis of `x` with axis `axis` of `weight`, in the dtype of `x`; no transposed copy."""
    out = lax.dot_general(x, weight.astype(x.dtype), (((x.ndim - 1,), (axis,)), ((), ())))
    return out if bias is None else out + bias.astype(x.dtype)


class Embedding(Module):
    """A table of vectors.

    Args:
        num_embeddings: rows.
        features: columns.
        init: how it is drawn.
        dtype: of the vectors it gives; None for the table's own.
    """

    def __init__(self, num_embeddings: int, features: int, *, init: Init | None = None, dtype: Any = None) -> None:
        self.weight = parameter((num_embeddings, features), init or Normal(1.0), EMBEDDING)
        self.dtype = dtype

    def __call__(self, ids: Array) -> Array:
        """`(…, features)` of ids `(…)`."""
        rows = jnp.take(self.weight[...], ids, axis=0, mode="clip")
        return rows if self.dtype is None else rows.astype(self.dtype)

    def attend(self, x: Array) -> Array:
        """`(…, num_embeddings)`: `x` `(…, features)` as the table's rows see it, for a head that is tied to it."""
        return project(x, self.weight[...])


class LayerNorm(Module):
    """Mean 0 and variance 1 over the last axis, then a learned scale and bias. Statistics are float32."""

    def __init__(self, size: int, eps: float = 1e-5, bias: bool = True) -> None:
        self.weight = parameter((size,), ONES, NORM)
        self.bias = parameter((size,), ZEROS) if bias else None
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        """`(…, size)`, in the dtype of `x`."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centred = wide - wide.mean(-1, keepdims=True)
        out = centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.eps)
        out = out * self.weight[...].astype(wide.dtype)
        return (out if self.bias is None else out + self.bias[...].astype(wide.dtype)).astype(x.dtype)


class RMSNorm(Module):
    """Division by the root mean square of the last axis (arXiv 1910.07467), then a learned scale. No bias, no mean."""

    def __init__(self, size: int, eps: float) -> None:
        self.weight = parameter((size,), ONES)
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        """`(…, size)`. The statistics are float32 or better; the scale is applied in the dtype of `x`."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        wide = wide * lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.eps)
        return self.weight[...].astype(x.dtype) * wide.astype(x.dtype)


class Conv(Module):
    """A convolution over one or two axes, channels last; `W` `(out, in / groups, *kernel)`.

    Args:
        channels: in and out.
        kernel: sizes along the axes of space.
        stride: the same.
        padding: zeros on both sides of each of these axes.
        groups: channels in as many groups, each seen by as large a share of the channels out.
        dilation: places between two places of the kernel.
        bias: whether there is one.
        init: how the weight is drawn; None as torch draws it.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: tuple[int, ...],
        stride: tuple[int, ...] | None = None,
        padding: tuple[int, ...] | None = None,
        *,
        groups: int = 1,
        dilation: tuple[int, ...] | None = None,
        bias: bool = True,
        init: Init | None = None,
    ) -> None:
        fan = channels[0] // groups
        for size in kernel:
            fan *= size
        self.weight = parameter((channels[1], channels[0] // groups, *kernel), init or fan_in(fan), CONV)
        self.bias = parameter((channels[1],), fan_in(fan) if init is None else ZEROS) if bias else None
        ones = (1,) * len(kernel)
        self.stride, self.dilation, self.groups = stride or ones, dilation or ones, groups
        self.padding = tuple((p, p) for p in padding) if padding else ((0, 0),) * len(kernel)

    def __call__(self, x: Array) -> Array:
        """`(batch, *space, out)` of `(batch, *space, in)`."""
        bias = None if self.bias is None else self.bias[...]
        return self.convolve(x, self.weight[...], bias)

    def convolve(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """The same with weights from elsewhere."""
        space = "HW"[: x.ndim - 2]
        out = lax.conv_general_dilated(
            x,
            weight.astype(x.dtype),
            self.stride,
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=(f"N{space}C", f"OI{space}", f"N{space}C"),
            feature_group_count=self.groups,
        )
        return out if bias is None else out + bias.astype(x.dtype)


# Activations


def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


def _gelu_tanh(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=True)


def _laplace(x: Array) -> Array:
    # A normal distribution function; these two constants make it the nearest to relu2 (MEGA, arXiv 2209.10655).
    mean, deviation = 0.707107, 0.282095
    return 0.5 * (1.0 + lax.erf((x - mean) / (deviation * jnp.sqrt(2.0).astype(x.dtype))))


# Five names stand for one function: they differ upstream in how the tanh form is spelled out, which is rounding.
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": _gelu,
    "gelu_python": _gelu,
    "gelu_10": lambda x: jnp.clip(_gelu(x), -10, 10),
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_accurate": _gelu_tanh,
    "gelu_python_tanh": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "hardswish": jax.nn.hard_swish,
    "mish": jax.nn.mish,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "laplace": _laplace,
    "sqrtsoftplus": lambda x: jnp.sqrt(jax.nn.softplus(x)),
    "linear": lambda x: x,
}


def activation(name: str | Callable[[Array], Array], key: str = "hidden_act") -> Callable[[Array], Array]:
    """The activation a config names in its field `key`; a callable is returned as it is.

    Raises:
        ConfigError: no activation has this name.
    """
    if not isinstance(name, str):
        return name
    if name not in ACTIVATIONS:
        raise unknown_name(key, name, ACTIVATIONS)
    return ACTIVATIONS[name]


# Randomness


def folded(rng: Array | None, place: int) -> Array | None:
    """The key of one place of those that share `rng`; None stays None."""
    return None if rng is None else jax.random.fold_in(rng, place)


def dropout(x: Array, rate: float, rng: Array | None, place: int = 0) -> Array:
    """`x` with a share `rate` of its elements 0 and the others grown by what that takes; `x` itself without a key."""
    if rng is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(jax.random.fold_in(rng, place), 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))


def chunked(function: Callable[[Array], Array], size: int, x: Array) -> Array:
    """`function(x)` over pieces of at most `size` along axis 1, one after the other to save memory; 0 means at once."""
    if size <= 0 or x.shape[1] <= size:
        return function(x)
    return jnp.concatenate([function(x[:, i : i + size]) for i in range(0, x.shape[1], size)], 1)
