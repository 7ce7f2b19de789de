"""Layers of our modules: parameters under torch's names in torch's layout, described until somebody fills them.

A layer computes in the dtype of what comes in. `rng` is a seed `(2,)` for dropout, or None where nothing is dropped; a
part that drops in several places folds the number of each into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import keras
import tensorflow as tf

from .._types import Shape
from ..errors import unknown_name
from .compiled import apart, is_compiled
from .kinds import (
    CONV,
    CONV1D,
    CONV1D_BIAS,
    EMBEDDING,
    LINEAR,
    NORM,
    NORM_BIAS,
    ONES,
    RAW,
    ZEROS,
    Init,
    Kind,
    Normal,
    fan_in,
)  # fmt: skip

__all__ = [
    "ACTIVATIONS", "Conv", "Conv1D", "Embedding", "LayerNorm", "Linear", "Module", "Parameter", "RMSNorm",
    "activation", "chunked", "convolve", "dropout", "folded", "parameter", "project", "shape_of", "value",
]  # fmt: skip

Tensor: TypeAlias = tf.Tensor


class Module(keras.layers.Layer):
    """Base of our modules: a constructor describes parameters and makes none.

    A module is called by its parent, on tensors: Keras has nothing to convert or to build on the way.
    `generates` says that a call gives logits of the next token and takes `past_key_values`; `has_choices` that its
    tokens are `(batch, choices, seq)`.
    """

    generates: ClassVar[bool] = False
    has_choices: ClassVar[bool] = False
    output: Any = None  # Keras's own are of layers in a graph of layers; here they are names on disk
    input: Any = None

    def __init__(self) -> None:
        super().__init__(autocast=False)
        self.built = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `call` gives."""
        return self.call(*args, **kwargs)

    def save_own_variables(self, store: Any) -> None:
        """Nothing: in Keras's own files the model has its variables, under torch's names."""

    def load_own_variables(self, store: Any) -> None:
        """Nothing, as for saving."""


@dataclass(frozen=True)
class Parameter:
    """What stands in a module's place of a variable that is yet to be made."""

    shape: Shape
    init: Init
    kind: Kind = RAW
    dtype: str = "float32"
    is_trainable: bool = True


def parameter(shape: Shape, init: Init, kind: Kind = RAW, dtype: str = "float32") -> Any:
    """A parameter of torch's shape that is described: its values come from a checkpoint or from `init`."""
    return Parameter(tuple(shape), init, kind, dtype)


def value(variable: Any, dtype: Any = None) -> Tensor:
    """A parameter as a tensor, in `dtype` if one is given."""
    tensor = tf.convert_to_tensor(variable.value)
    return tensor if dtype is None else tf.cast(tensor, dtype)


def shape_of(x: Tensor) -> list[Any]:
    """The sizes of a tensor's axes: numbers where they are known, tensors where only a run tells them."""
    sizes = x.shape.as_list()
    if None not in sizes:
        return sizes
    found = tf.shape(x)
    return [found[axis] if size is None else size for axis, size in enumerate(sizes)]


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
        super().__init__()
        self.weight = parameter((out_features, in_features), init or fan_in(in_features), LINEAR)
        self.bias = parameter((out_features,), bias_init) if bias else None

    def call(self, x: Tensor) -> Tensor:
        """`(…, out)` of `(…, in)`."""
        return project(x, self.weight, self.bias)


class Conv1D(Module):
    """The same with `W` `(in, out)`, as the checkpoints of OpenAI's GPT models have it."""

    def __init__(self, nf: int, nx: int, *, init: Init) -> None:
        super().__init__()
        self.weight = parameter((nx, nf), init, CONV1D)
        self.bias = parameter((nf,), ZEROS, CONV1D_BIAS)

    def call(self, x: Tensor) -> Tensor:
        """`(…, out)` of `(…, in)`."""
        return project(x, self.weight, self.bias, axis=0)


def project(x: Tensor, weight: Any, bias: Any = None, axis: int = 1) -> Tensor:
    """The product of the last axis of `x` with axis `axis` of the variable `weight`, in the dtype of `x`."""
    matrix = value(weight, x.dtype)
    sizes = shape_of(x)
    flat = x if len(sizes) == 2 else tf.reshape(x, (-1, sizes[-1]))
    out = tf.linalg.matmul(flat, matrix, transpose_b=axis == 1)
    if bias is not None:
        # On a CPU, XLA would put the product of one row and its bias into one loop, which one core computes.
        out = (apart(out) if out.shape[0] == 1 and is_compiled() else out) + value(bias, x.dtype)
    return out if len(sizes) == 2 else tf.reshape(out, (*sizes[:-1], matrix.shape[1 - axis]))


class Embedding(Module):
    """A table of vectors.

    Args:
        num_embeddings: rows.
        features: columns.
        init: how it is drawn.
        dtype: of the vectors it gives; None for the table's own.
        kind: how Keras's files have it.
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        init: Init | None = None,
        dtype: Any = None,
        kind: Kind = EMBEDDING,
    ) -> None:
        super().__init__()
        self.weight = parameter((num_embeddings, features), init or Normal(1.0), kind)
        self.computes_in = dtype

    def call(self, ids: Tensor) -> Tensor:
        """`(…, features)` of ids `(…)`."""
        rows = tf.gather(self.weight.value, ids)
        return rows if self.computes_in is None else tf.cast(rows, self.computes_in)

    def attend(self, x: Tensor) -> Tensor:
        """`(…, num_embeddings)`: `x` `(…, features)` as the table's rows see it, for a head that is tied to it."""
        return project(x, self.weight)


class LayerNorm(Module):
    """Mean 0 and variance 1 over the last axis, then a learned scale and bias. Statistics are float32."""

    def __init__(self, size: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.weight = parameter((size,), ONES, NORM)
        self.bias = parameter((size,), ZEROS, NORM_BIAS) if bias else None
        self.eps = eps

    def call(self, x: Tensor) -> Tensor:
        """`(…, size)`, in the dtype of `x`."""
        wide = tf.cast(x, wide_dtype(x))
        centred = wide - tf.reduce_mean(wide, -1, keepdims=True)
        out = centred * tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + self.eps)
        out = out * value(self.weight, wide.dtype)
        return tf.cast(out if self.bias is None else out + value(self.bias, wide.dtype), x.dtype)


class RMSNorm(Module):
    """Division by the root mean square of the last axis (arXiv 1910.07467), then a learned scale. No bias, no mean."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = parameter((size,), ONES)
        self.eps = eps

    def call(self, x: Tensor) -> Tensor:
        """`(…, size)`. The statistics are float32 or better; the scale is applied in the dtype of `x`."""
        wide = tf.cast(x, wide_dtype(x))
        wide = wide * tf.math.rsqrt(tf.reduce_mean(tf.square(wide), -1, keepdims=True) + self.eps)
        return value(self.weight, x.dtype) * tf.cast(wide, x.dtype)


def wide_dtype(x: Tensor) -> tf.DType:
    """The dtype of statistics of `x`: float32, or its own if that has more bits."""
    return x.dtype if x.dtype == tf.float64 else tf.float32


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
        bias_init: how the bias is; None as torch draws it, or 0 where the weight has an `init`.
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
        bias_init: Init | None = None,
    ) -> None:
        super().__init__()
        fan = channels[0] // groups
        for size in kernel:
            fan *= size
        self.weight = parameter((channels[1], channels[0] // groups, *kernel), init or fan_in(fan), CONV)
        bias_init = bias_init or (fan_in(fan) if init is None else ZEROS)
        self.bias = parameter((channels[1],), bias_init) if bias else None
        ones = (1,) * len(kernel)
        self.stride, self.dilation, self.groups = stride or ones, dilation or ones, groups
        self.padding = tuple((p, p) for p in padding) if padding else ((0, 0),) * len(kernel)

    def call(self, x: Tensor) -> Tensor:
        """`(batch, *space, out)` of `(batch, *space, in)`."""
        bias = None if self.bias is None else value(self.bias, x.dtype)
        weight = value(self.weight, x.dtype)
        return convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] | None = None,
    padding: Sequence[tuple[int, int]] | None = None,
    dilation: Sequence[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """`(batch, *space, out)` of `(batch, *space, in)` with a weight as `Conv` has it, in the dtype of `x`."""
    num_axes = len(x.shape) - 2
    if padding is not None and any(map(any, padding)):
        x = tf.pad(x, [(0, 0), *map(tuple, padding), (0, 0)])
    kernel = tf.transpose(weight, (*range(2, 2 + num_axes), 1, 0))
    strides, dilations = list(stride or (1,) * num_axes), list(dilation or (1,) * num_axes)
    # TensorFlow's own kernel for several groups has no gradient on a CPU.
    parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True) if groups > 1 else ((x, kernel),)
    done = [tf.nn.convolution(one, part, strides, "VALID", dilations=dilations) for one, part in parts]
    out = done[0] if groups == 1 else tf.concat(done, -1)
    return out if bias is None else out + tf.cast(bias, x.dtype)


# Activations


def _gelu(x: Tensor) -> Tensor:
    return tf.nn.gelu(x, approximate=False)


def _gelu_tanh(x: Tensor) -> Tensor:
    return tf.nn.gelu(x, approximate=True)


def _laplace(x: Tensor) -> Tensor:
    # A normal distribution function; these two constants make it the nearest to relu2 (MEGA, arXiv 2209.10655).
    mean, deviation = 0.707107, 0.282095
    return 0.5 * (1.0 + tf.math.erf((x - mean) / (deviation * tf.sqrt(tf.cast(2.0, x.dtype)))))


# Five names stand for one function: they differ upstream in how the tanh form is spelled out, which is rounding.
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": _gelu,
    "gelu_python": _gelu,
    "gelu_10": lambda x: tf.clip_by_value(_gelu(x), -10, 10),
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_accurate": _gelu_tanh,
    "gelu_python_tanh": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": lambda x: x * tf.sigmoid(1.702 * x),
    "relu": tf.nn.relu,
    "relu2": lambda x: tf.square(tf.nn.relu(x)),
    "relu6": tf.nn.relu6,
    "leaky_relu": lambda x: tf.nn.leaky_relu(x, 0.01),
    "silu": tf.nn.silu,
    "swish": tf.nn.silu,
    "hardswish": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
    "mish": lambda x: x * tf.tanh(tf.math.softplus(x)),
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
    "laplace": _laplace,
    "sqrtsoftplus": lambda x: tf.sqrt(tf.math.softplus(x)),
    "linear": lambda x: x,
}


def activation(name: str | Callable[[Tensor], Tensor], key: str = "hidden_act") -> Callable[[Tensor], Tensor]:
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


def folded(rng: Tensor | None, place: int) -> Tensor | None:
    """The seed of one place of those that share `rng`; None stays None."""
    return None if rng is None else tf.random.experimental.stateless_fold_in(rng, place)


def dropout(x: Tensor, rate: float, rng: Tensor | None, place: int = 0) -> Tensor:
    """`x` with a share `rate` of its elements 0 and the others grown by what that takes; `x` itself without a seed."""
    if rng is None or rate == 0.0:
        return x
    return tf.nn.experimental.stateless_dropout(x, rate, tf.random.experimental.stateless_fold_in(rng, place))


def chunked(function: Callable[[Tensor], Tensor], size: int, x: Tensor) -> Tensor:
    """`function(x)` over pieces of at most `size` along axis 1, one after the other to save memory; 0 means at once."""
    length = x.shape[1]
    if size <= 0 or length is None or length <= size:
        return function(x)
    return tf.concat([function(x[:, i : i + size]) for i in range(0, length, size)], 1)
