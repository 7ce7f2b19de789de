"""Names of parameters in Keras 2's files: those of the variables of transformers' TensorFlow classes."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .structure import Place

__all__ = ["KerasName", "instance_name", "keras_name", "shared_embeddings"]

# Weight normalisation: what torch calls its two parts, and what transformers' layer does.
_PARTS = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}


class KerasName(NamedTuple):
    """Where Keras has a variable: the layer of the model, and the variable's full name."""

    layer: str
    name: str


def shared_embeddings(base: str, layer: str) -> dict[str, tuple[str, ...]]:
    """Of a class whose head, the layer `layer`, holds the embeddings of the base model as a part of itself."""
    own = ("word_embeddings.weight", "token_type_embeddings.weight", "position_embeddings.weight")
    return {f"{base}.embeddings.{name}": (layer,) for name in (*own, "LayerNorm.weight", "LayerNorm.bias")}


def instance_name(class_name: str) -> str:
    """What Keras calls an instance: `tf_bert_model` of `TFBertModel`, `tfgpt2lm_head_model` of `TFGPT2LMHeadModel`."""
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def keras_name(model: Any, place: Place) -> KerasName:
    """Of torch's `encoder.layer.0.output.dense.bias` in `TFBertModel`:
    `tf_bert_model/bert/encoder/layer_._0/output/dense/bias:0`, in the layer `bert`."""
    cls, name = type(model), place.name
    for pattern, other in cls._keras_names.items():
        name = re.sub(pattern, other, name)
    main = cls._keras_main_layer if cls._keras_main_layer is not None else cls.base_model_prefix
    if main and cls.base_model_prefix not in vars(model.module):  # a base model alone
        name = f"{main}.{name}"
    for torch_end, keras_end in _PARTS.items():
        name = name.removesuffix(torch_end) + keras_end if name.endswith(torch_end) else name
    *parents, leaf = name.split(".")
    parts: list[str] = []
    for part in parents:
        if part.isdigit() and parts:
            parts[-1] += f"{cls._keras_list_mark}{part}"
        else:
            parts.append(part)
    kept = leaf in ("weight_g", "weight_v")
    path = "/".join([*parts, leaf if kept else place.kind.leaf or leaf])
    # A layer that is itself one of several layers is made in a scope that goes by its name, not by that of the model.
    is_layer = place.name in cls._keras_shared and len(parts) == 1
    scope = parts[0] if is_layer else instance_name(cls.__name__)
    return KerasName(parts[0] if parts else leaf, f"{scope}/{path}:0")
