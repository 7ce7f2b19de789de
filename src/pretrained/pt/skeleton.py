"""Building a model without paying for its weights: uninitialised memory goes to the meta device, the rest is real.

`nn.Linear` and its like allocate with torch.empty and then fill; here the allocation is only described and the filling
left out. What a constructor computes (a mask, a frequency table, `torch.zeros` for a bare parameter) is computed as
ever, so buffers that no checkpoint holds come out exactly as in a freshly built model.

Both are done by a TorchFunctionMode, which exists in the thread that builds and nowhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["build_skeleton", "is_building"]

_EMPTY = frozenset({torch.empty, torch.empty_strided})
_EMPTY_LIKE = frozenset({torch.empty_like, torch.Tensor.new_empty})
_INIT = frozenset(
    getattr(torch.nn.init, name)
    for name in (
        "uniform_", "normal_", "trunc_normal_", "constant_", "ones_", "zeros_", "eye_", "dirac_", "xavier_uniform_",
        "xavier_normal_", "kaiming_uniform_", "kaiming_normal_", "orthogonal_", "sparse_",
    )
)  # fmt: skip

_building = threading.local()


def is_building() -> bool:
    """Whether this thread is building a skeleton: then nothing needs initialising yet."""
    return getattr(_building, "depth", 0) > 0


class _Skeleton(TorchFunctionMode):
    """Describes uninitialised memory instead of allocating it, and skips filling what was only described."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _EMPTY:
            if kwargs.get("device") is None:
                kwargs["device"] = "meta"
        elif func in _EMPTY_LIKE:
            kwargs.setdefault("device", "meta")
        elif func in _INIT:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        elif func is torch.norm_except_dim:
            weight = args[0] if args else kwargs["v"]
            if weight.is_meta:
                return _lengths(weight, *args[1:], **{key: value for key, value in kwargs.items() if key != "v"})
        return func(*args, **kwargs)


def _lengths(weight: torch.Tensor, pow: float = 2, dim: int = 0) -> torch.Tensor:
    """What weight normalisation splits off: one length for each place along `dim`, of a weight without memory.

    torch's first computation on the meta device imports a library for symbolic shapes, which takes seconds.
    """
    shape = [size if axis == dim else 1 for axis, size in enumerate(weight.shape)]
    return torch.empty([] if dim == -1 else shape, dtype=weight.dtype, device="meta")


def build_skeleton(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """What `build` makes, with uninitialised parameters on the meta device.

    A constructor that looks at values nobody has computed yet cannot be built so; it is then built for real, which
    costs its memory and its time, and no more.
    """
    _building.depth = getattr(_building, "depth", 0) + 1
    try:
        with _Skeleton():
            return build()
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error).lower():
            raise
    finally:
        _building.depth -= 1
    return build()
