"""Small layers that many families share: activations by name, RMS norm, buffers that follow from the config."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import unknown_name

__all__ = [
    "ACTIVATIONS",
    "XIELU",
    "Conv1D",
    "DerivedBuffers",
    "OffsetRMSNorm",
    "RMSNorm",
    "ScaledEmbedding",
    "activation",
    "chunked",
    "init_normal",
    "keep_places",
    "soft_cap",
    "unknown_name",
]


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _gelu_10(x: Tensor) -> Tensor:
    return F.gelu(x).clamp(-10, 10)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


def _laplace(x: Tensor) -> Tensor:
    # A normal distribution function; these two constants make it the nearest to relu2 (MEGA, arXiv 2209.10655).
    mean, deviation = 0.707107, 0.282095
    return 0.5 * (1.0 + torch.erf((x - mean) / (deviation * math.sqrt(2.0))))


def _sqrtsoftplus(x: Tensor) -> Tensor:
    return F.softplus(x).sqrt()


def _linear(x: Tensor) -> Tensor:
    return x


class XIELU(nn.Module):
    """The trainable activation of "Deriving Activation Functions via Integration" (arXiv 2411.13010).

    Quadratic above zero, an integrated ELU below, with one slope `beta` through both. The two curvatures are trained
    through a softplus, which keeps them positive. Parameters and buffers have the names and dtype they have on disk.
    """

    beta: Tensor
    eps: Tensor

    def __init__(self, alpha_p: float = 0.8, alpha_n: float = 0.8, beta: float = 0.5, eps: float = -1e-6) -> None:
        super().__init__()
        raw = [math.log(math.expm1(value)) for value in (alpha_p, alpha_n - beta)]
        self.alpha_p = nn.Parameter(torch.tensor(raw[:1], dtype=torch.bfloat16))
        self.alpha_n = nn.Parameter(torch.tensor(raw[1:], dtype=torch.bfloat16))
        self.register_buffer("beta", torch.tensor(beta, dtype=torch.bfloat16))
        self.register_buffer("eps", torch.tensor(eps, dtype=torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        """`x`, activated, in its own shape."""
        above = F.softplus(self.alpha_p) * x * x
        below = (torch.expm1(torch.minimum(x, self.eps)) - x) * (self.beta + F.softplus(self.alpha_n))
        return torch.where(x > 0, above, below) + self.beta * x


# Five names stand for one function: they differ upstream in how the tanh form is spelled out, which is rounding.
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_10": _gelu_10,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_accurate": _gelu_tanh,
    "gelu_python_tanh": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "relu": F.relu,
    "relu2": _relu2,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "swish": F.silu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "laplace": _laplace,
    "sqrtsoftplus": _sqrtsoftplus,
    "linear": _linear,
}
# These two have weights of their own, so each use needs a new one.
TRAINED: Mapping[str, Callable[[], nn.Module]] = {"prelu": nn.PReLU, "xielu": XIELU}


def activation(name: str | Callable[[Tensor], Tensor], key: str = "hidden_act") -> Callable[[Tensor], Tensor]:
    """The activation a config names in its field `key`; a callable is returned as it is.

    Raises:
        ConfigError: no activation has this name.
    """
    if not isinstance(name, str):
        return name
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    if name in TRAINED:
        return TRAINED[name]()
    raise unknown_name(key, name, [*ACTIVATIONS, *TRAINED])


class RMSNorm(nn.Module):
    """Division by the root mean square of the last axis (arXiv 1910.07467), then a learned scale; no bias, no mean."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the scale to 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`(…, size)` normalised. The statistics are float32 or better; the scale is applied in the dtype of `x`."""
        if x.dtype == self.weight.dtype and x.dtype in (torch.float32, torch.float64):
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return self.weight * F.rms_norm(x, self.weight.shape, None, self.eps)

    def extra_repr(self) -> str:
        """Size and epsilon, for `repr`."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


class OffsetRMSNorm(nn.Module):
    """`RMSNorm` whose scale is 1 plus what is learned, in float32 or better to the end (the Gemma models)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets what is learned to 0."""
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`(…, size)` normalised and scaled; only the result is in the dtype of `x`."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        wide = x.to(dtype)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * (1.0 + self.weight.to(dtype))).to(x.dtype)

    def extra_repr(self) -> str:
        """Size and epsilon, for `repr`."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


class Conv1D(nn.Module):
    """A linear layer whose weight is stored `(in, out)`, as the checkpoints of OpenAI's GPT models have it.

    Args:
        nf: features out.
        nx: features in.
    """

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.empty(nx, nf))
        self.bias = nn.Parameter(torch.empty(nf))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights normal with a deviation of 0.02, biases 0."""
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    @property
    def input_size(self) -> int:
        """Features in; under this name peft asks for it."""
        return self.nx

    @property
    def output_size(self) -> int:
        """Features out."""
        return self.nf

    def forward(self, x: Tensor) -> Tensor:
        """`(…, out)` of `(…, in)`."""
        return F.linear(x, self.weight.t(), self.bias)

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        return f"nf={self.nf}, nx={self.nx}"


class DerivedBuffers(nn.Module):
    """A module whose buffers follow from its settings and are in no checkpoint.

    They are computed anew after every move or cast. So `to_empty()` after a build on the meta device gives real
    values, and `half()` does not round a table that is meant to be float32.

    A subclass implements `derive` and calls `reset_buffers` at the end of its `__init__`.
    """

    def derive(self) -> dict[str, Tensor]:
        """The buffers by name, on the CPU unless a device context says otherwise."""
        raise NotImplementedError

    def reset_buffers(self, device: torch.device | None = None) -> None:
        """Computes the buffers and registers them as non-persistent ones on `device`."""
        for name, value in self.derive().items():
            self.register_buffer(name, value.to(device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DerivedBuffers:
        super()._apply(fn, recurse)
        names = self._non_persistent_buffers_set
        self.reset_buffers(next(self._buffers[name].device for name in sorted(names)))  # type: ignore[union-attr]
        return self


class ScaledEmbedding(nn.Embedding, DerivedBuffers):
    """An embedding whose vectors are multiplied by a constant, rounded to their dtype first (the Gemma models).

    Args:
        size: rows.
        dim: length of a vector.
        padding_idx: the row that stays 0.
        scale: the constant.
    """

    embed_scale: Tensor

    def __init__(self, size: int, dim: int, padding_idx: int | None, scale: float) -> None:
        super().__init__(size, dim, padding_idx)
        self.scale = scale
        self.reset_buffers()

    def derive(self) -> dict[str, Tensor]:
        """`embed_scale` `()`."""
        return {"embed_scale": torch.tensor(self.scale)}

    def forward(self, input: Tensor) -> Tensor:
        """`(…, dim)` of ids `(…,)`."""
        return super().forward(input) * self.embed_scale.to(self.weight.dtype)


def soft_cap(x: Tensor, cap: float | None) -> Tensor:
    """`x`, bent so that it stays within `-cap` and `cap`; as it is if that is `None` (arXiv 1611.09940)."""
    return x if cap is None else torch.tanh(x / cap) * cap


def chunked(function: Callable[[Tensor], Tensor], size: int, x: Tensor, dim: int = 1) -> Tensor:
    """`function(x)`, computed over pieces of at most `size` along `dim` to save memory; 0 means in one piece."""
    if size <= 0:
        return function(x)
    return torch.cat([function(piece) for piece in x.split(size, dim)], dim)


def keep_places(x: Tensor, places: int | Tensor) -> Tensor:
    """The last `places` of `(batch, seq, …)`, all if it is 0, or those that a 1-D tensor of indices names."""
    return x[:, places] if isinstance(places, Tensor) else x[:, -places:] if places else x


def init_normal(module: nn.Module, std: float) -> None:
    """Fills one linear, embedding or norm layer: weights normal with `std`, biases and padding row 0, scales 1."""
    if isinstance(module, nn.Linear | Conv1D | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear | Conv1D):
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()
    elif isinstance(module, nn.LayerNorm | RMSNorm):
        nn.init.ones_(module.weight)
        if isinstance(module, nn.LayerNorm) and module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, OffsetRMSNorm):
        module.reset_parameters()
