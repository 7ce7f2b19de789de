"""Names of parameters in the trees of Linen, which transformers' Flax classes have and flax_model.msgpack holds."""

from __future__ import annotations

from .kinds import Kind

__all__ = ["linen_name"]

# Weight normalisation: what torch calls its two parts, and what Linen's layers do.
_PARTS = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}


def linen_name(name: str, kind: Kind) -> str:
    """`bert/encoder/layer/0/output/dense/kernel` of torch's `bert.encoder.layer.0.output.dense.weight`."""
    for torch_end, linen_end in _PARTS.items():
        if name.endswith(torch_end):
            return (name[: -len(torch_end)] + linen_end).replace(".", "/")
    *parents, leaf = name.split(".")
    return "/".join([*parents, kind.leaf or leaf])
