"""Dialects: how each framework names and lays out what torch calls `encoder.layer.0.output.dense.weight`.

torch's names and shapes are the ones that a load plans with. A tensor of another framework is found under the name
that torch has for it, with the changes of layout that make it torch's; nothing is read for that. The last part of a
name tells what a tensor is: a `kernel` is always stored `(in, out)` or `(space…, in, out)`, an `embedding` never.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from .._types import Shape
from .rules import Op, Permute, Reshape
from .tensors import Container, Entry

__all__ = ["DIALECTS", "Place", "Translated", "dialect_of", "translate"]


class Place(NamedTuple):
    """What torch calls a tensor, and what makes its layout torch's."""

    name: str
    ops: tuple[Op, ...] = ()


class Translated(NamedTuple):
    """Tensors under torch's names.

    Attributes:
        entries: torch's name → tensor at rest. layouts: torch's name → changes of layout, where there are any.
        twins: (torch's name, tensor) of those that are at rest more than once.
        skipped: names of what is no weight: the state of an optimizer, counters.
    """

    entries: dict[str, Entry]
    layouts: dict[str, tuple[Op, ...]]
    twins: list[tuple[str, Entry]]
    skipped: list[str]


# From another framework's kernel to torch's weight, by number of axes: dense, convolution in 1 and 2 dimensions.
_KERNEL: Mapping[int, tuple[int, ...]] = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}


def _kernel(shape: Shape) -> tuple[Op, ...]:
    axes = _KERNEL.get(len(shape))
    return () if axes is None else (Permute(axes),)


def _without_ones(shape: Shape) -> tuple[Op, ...]:
    """What takes the leading axes of length 1 from a tensor of at least two axes."""
    kept = shape
    while len(kept) > 1 and kept[0] == 1:
        kept = kept[1:]
    return () if kept == shape else (Reshape(shape, kept),)


# Keras

_TF_LEAVES = {
    "kernel": "weight",
    "embeddings": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def from_tf(name: str, shape: Shape, metadata: Mapping[str, str]) -> Place:
    """A Keras variable: `bert/encoder/layer_._0/output/dense/kernel:0`, without the name of the model.

    What follows an @ is the layer under which the variable lies a second time.
    """
    path = re.sub(r":\d+$", "", name.partition("@")[0])
    # Two ways to write what a Keras name cannot say: a_._0 is element 0 of the list a, x___cls is another cls.
    path = re.sub(r"(?:^|(?<=/))[^/]*?___", "", path).replace("_._", "/")
    *parents, leaf = re.split("/+", path.strip("/"))
    ops: tuple[Op, ...] = ()
    if leaf == "kernel":
        ops = _kernel(shape)
    elif leaf == "bias" and len(shape) == 2:  # of the layer that GPT-2 calls Conv1D
        ops = _without_ones(shape)
    elif leaf == "weight_g" and len(shape) == 3:
        ops = (Permute((2, 1, 0)),)
    return Place(".".join([*parents, _TF_LEAVES.get(leaf, leaf)]), ops)


# Flax

_FLAX_LEAVES = {
    "kernel": "weight",
    "embedding": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


def from_flax(name: str, shape: Shape, metadata: Mapping[str, str]) -> Place:
    """A Flax parameter: `bert/encoder/layer/0/output/dense/kernel`, joined by dots in safetensors."""
    parts = re.split("[/.]", name)
    collection = parts[0] if parts[0] in ("params", "batch_stats") else ""
    *parents, leaf = parts[1:] if collection else parts
    if leaf in ("mean", "var") and collection != "batch_stats":
        return Place(".".join([*parents, leaf]))
    return Place(".".join([*parents, _FLAX_LEAVES.get(leaf, leaf)]), _kernel(shape) if leaf == "kernel" else ())


# TensorFlow's own checkpoints, as BERT and GPT-2 were first published

_TF1_NO_WEIGHTS = re.compile(
    r"(?:^|/)(?:global_step|save_counter|adam_[mv]|Adam(?:_1)?|AdamWeightDecayOptimizer(?:_1)?|Momentum|optimizer|beta[12]_power)(?:/|$)"
)
_TF1_LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "w": "weight", "b": "bias", "g": "weight"}
_TF1_ENDS = {"output_weights": "weight", "output_bias": "bias"}


def from_tf1(name: str, shape: Shape, metadata: Mapping[str, str]) -> Place | None:
    """A variable of the original releases: `bert/encoder/layer_0/output/dense/kernel`, `model/h0/attn/c_attn/w`."""
    if _TF1_NO_WEIGHTS.search(name):
        return None
    *parents, leaf = name.split("/")
    if parents[:1] == ["model"]:  # the scope of all of GPT-2, whose blocks are h0, h1, …
        parents = [re.sub(r"^h(\d+)$", r"h.\1", part) for part in parents[1:]]
        ops = _without_ones(shape) if leaf == "w" else ()
        leaf = f"{leaf}.weight" if leaf in ("wte", "wpe") else _TF1_LEAVES.get(leaf, leaf)
        return Place(".".join([*parents, leaf]), ops)
    parents = [re.sub(r"^layer_(\d+)$", r"layer.\1", part) for part in parents]
    ops = _kernel(shape) if leaf == "kernel" else ()
    leaf = f"{leaf}.weight" if leaf.endswith("_embeddings") else _TF1_ENDS.get(leaf, _TF1_LEAVES.get(leaf, leaf))
    return Place(".".join([*parents, leaf]), ops)


# GGUF


def from_gguf(name: str, shape: Shape, metadata: Mapping[str, str]) -> Place | None:
    """A tensor as llama.cpp names it: `blk.0.attn_output.weight`."""
    from .formats.gguf_names import torch_place

    found = torch_place(name, shape, metadata)
    return None if found is None else Place(*found)


Translator = Callable[[str, Shape, Mapping[str, str]], "Place | None"]

# What a container's metadata calls its format → the way from its names to torch's. Any other is torch's own.
DIALECTS: Mapping[str, Translator] = {"tf": from_tf, "flax": from_flax, "tf1": from_tf1, "gguf": from_gguf}


def dialect_of(container: Container) -> str:
    """The key in DIALECTS for a container, or "pt". What its writer did not note the names tell, if they are clear."""
    noted = container.metadata.get("format")
    if noted is not None:
        return noted if noted in DIALECTS else "pt"
    leaves = {name.rpartition(".")[2] for name in container.entries}
    if leaves and all(re.search(r"/.*:\d+$", name) for name in container.entries):
        return "tf"
    return "flax" if "kernel" in leaves and leaves & {"scale", "embedding"} else "pt"


def translate(containers: Iterable[Container]) -> Translated | None:
    """The tensors of opened files under torch's names; None where all of them have these already."""
    opened = [(container, dialect_of(container)) for container in containers]
    if all(dialect == "pt" for _, dialect in opened):
        return None
    found = Translated({}, {}, [], [])
    for container, dialect in opened:
        translator = DIALECTS.get(dialect)
        for name, entry in container.entries.items():
            place = Place(name) if translator is None else translator(name, entry.shape, container.metadata)
            if place is None:
                found.skipped.append(name)
            elif place.name in found.entries:
                found.twins.append((place.name, entry))
            else:
                found.entries[place.name] = entry
                if place.ops:
                    found.layouts[place.name] = place.ops
    return found
