"""What forward passes return: objects that are read by attribute, by key or by index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = [
    "BaseModelOutput",
    "BaseModelOutputWithCrossAttentions",
    "BaseModelOutputWithNoAttention",
    "BaseModelOutputWithPast",
    "BaseModelOutputWithPastAndCrossAttentions",
    "BaseModelOutputWithPooling",
    "BaseModelOutputWithPoolingAndCrossAttentions",
    "CausalLMOutput",
    "CausalLMOutputWithCrossAttentions",
    "CausalLMOutputWithPast",
    "ForPreTrainingOutput",
    "GPT2DoubleHeadsModelOutput",
    "ImageClassifierOutput",
    "MaskedImageModelingOutput",
    "MaskedLMOutput",
    "ModelOutput",
    "MultipleChoiceModelOutput",
    "NextSentencePredictorOutput",
    "QuestionAnsweringModelOutput",
    "Seq2SeqLMOutput",
    "Seq2SeqModelOutput",
    "Seq2SeqQuestionAnsweringModelOutput",
    "Seq2SeqSequenceClassifierOutput",
    "SequenceClassifierOutput",
    "SequenceClassifierOutputWithPast",
    "TokenClassifierOutput",
    "Wav2Vec2BaseModelOutput",
    "XVectorOutput",
]

TensorTuple = tuple[Tensor, ...]


class ModelOutput(dict[str, Any]):
    """Base of all outputs. A subclass is a dataclass whose fields default to `None`.

    `out.logits`, `out["logits"]` and `out[1]` are the same object; an index counts the fields that are not `None`, in
    order. Iteration, `len`, `in` and `**out` see the names of those fields, as with any dict, which it is: code that
    gathers or casts outputs (`DataParallel`, accelerate) knows dicts, and rebuilds them from one mapping or from pairs.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Data parallelism with static graphs and export look into outputs only if they know how to take them apart.
        pytree.register_pytree_node(
            cls,
            lambda out: (list(out.values()), list(out)),
            lambda values, names: cls(**dict(zip(names, values, strict=True))),
            flatten_with_keys_fn=lambda out: ([(pytree.MappingKey(k), v) for k, v in out.items()], list(out)),
            serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        )

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        first = self.__dict__.get(names[0])
        if first is None or isinstance(first, Tensor) or any(name in self for name in names[1:]):
            return
        if (pairs := _as_pairs(first)) is None:
            return
        setattr(self, names[0], None)
        for name, value in pairs:
            setattr(self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setattr__(self, name: str, value: Any) -> None:
        # The dict holds what is there, the attributes also what is not: neither is ever written alone.
        super().__setattr__(name, value)
        if value is None:
            dict.pop(self, name, None)
        else:
            super().__setitem__(name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are not `None`."""
        return tuple(self.values())

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), dict(self)))

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"{type(self).__name__} has the fields of its class: assign to one, or convert it with dict(…)")

    __delitem__ = clear = pop = popitem = setdefault = update = _refuse


def _rebuild(cls: type[ModelOutput], items: dict[str, Any]) -> ModelOutput:
    out = cls()
    for name, value in items.items():
        setattr(out, name, value)
    return out


def _as_pairs(first: Any) -> list[tuple[str, Any]] | None:
    """The items of a mapping, or of an iterable of (name, value) pairs; `None` for anything else."""
    if isinstance(first, Mapping):
        return list(first.items())
    if not isinstance(first, list | tuple | Iterator):
        return None
    items = list(first)
    pairs = items and all(isinstance(item, list | tuple) and len(item) == 2 for item in items)
    return items if pairs and all(isinstance(item[0], str) for item in items) else None


# Field order is index order. Shapes: hidden states `(batch, seq, hidden)`, one for the embeddings and one for each
# layer; attentions `(batch, heads, queries, keys)`, one for each layer; logits `(batch, …, classes)`; loss `()`.


@dataclass(eq=False)
class BaseModelOutput(ModelOutput):
    """Of an encoder."""

    last_hidden_state: Tensor | None = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None


@dataclass(eq=False)
class BaseModelOutputWithNoAttention(ModelOutput):
    """Of a model without attention."""

    last_hidden_state: Tensor | None = None
    hidden_states: TensorTuple | None = None


@dataclass(eq=False)
class BaseModelOutputWithPooling(ModelOutput):
    """Of an encoder that also sums up the whole input, `pooler_output` `(batch, hidden)`."""

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None


@dataclass(eq=False)
class BaseModelOutputWithPast(ModelOutput):
    """Of a decoder."""

    last_hidden_state: Tensor | None = None
    past_key_values: Any = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None


@dataclass(eq=False)
class BaseModelOutputWithCrossAttentions(ModelOutput):
    """Of a stack that may attend to an encoder."""

    last_hidden_state: Tensor | None = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None
    cross_attentions: TensorTuple | None = None


@dataclass(eq=False)
class BaseModelOutputWithPastAndCrossAttentions(ModelOutput):
    """Of a decoder that may attend to an encoder."""

    last_hidden_state: Tensor | None = None
    past_key_values: Any = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None
    cross_attentions: TensorTuple | None = None


@dataclass(eq=False)
class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput):
    """Of a pooled stack that may be a decoder."""

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: TensorTuple | None = None
    past_key_values: Any = None
    attentions: TensorTuple | None = None
    cross_attentions: TensorTuple | None = None


@dataclass(eq=False)
class Seq2SeqModelOutput(ModelOutput):
    """Of an encoder and its decoder."""

    last_hidden_state: Tensor | None = None
    past_key_values: Any = None
    decoder_hidden_states: TensorTuple | None = None
    decoder_attentions: TensorTuple | None = None
    cross_attentions: TensorTuple | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: TensorTuple | None = None
    encoder_attentions: TensorTuple | None = None


@dataclass(eq=False)
class Wav2Vec2BaseModelOutput(ModelOutput):
    """Of a speech encoder, with the features `(batch, frames, channels)` its convolutions found."""

    last_hidden_state: Tensor | None = None
    extract_features: Tensor | None = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None


@dataclass(eq=False)
class _Head(ModelOutput):
    """Of an encoder with one head."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None


class CausalLMOutput(_Head):
    """Next-token logits, or CTC logits per frame."""


class MaskedLMOutput(_Head):
    """Logits of the token at each place."""


class NextSentencePredictorOutput(_Head):
    """Logits `(batch, 2)`: the second text follows the first, or does not."""


class SequenceClassifierOutput(_Head):
    """Logits `(batch, labels)` of the whole input."""


class TokenClassifierOutput(_Head):
    """Logits `(batch, seq, labels)`."""


class MultipleChoiceModelOutput(_Head):
    """Logits `(batch, choices)`."""


class ImageClassifierOutput(_Head):
    """Logits `(batch, labels)` of an image."""


@dataclass(eq=False)
class CausalLMOutputWithPast(ModelOutput):
    """Next-token logits of a decoder."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None


class SequenceClassifierOutputWithPast(CausalLMOutputWithPast):
    """Logits `(batch, labels)` of a decoder's last token."""


@dataclass(eq=False)
class CausalLMOutputWithCrossAttentions(ModelOutput):
    """Next-token logits of a decoder that may attend to an encoder."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None
    cross_attentions: TensorTuple | None = None


@dataclass(eq=False)
class ForPreTrainingOutput(ModelOutput):
    """Of the two heads BERT is trained with: token logits `(batch, seq, vocab)` and pair logits `(batch, 2)`."""

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    seq_relationship_logits: Tensor | None = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None


@dataclass(eq=False)
class GPT2DoubleHeadsModelOutput(ModelOutput):
    """Next-token logits `(batch, choices, seq, vocab)` and `mc_logits` `(batch, choices)`, each with its loss."""

    loss: Tensor | None = None
    mc_loss: Tensor | None = None
    logits: Tensor | None = None
    mc_logits: Tensor | None = None
    past_key_values: Any = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None


@dataclass(eq=False)
class QuestionAnsweringModelOutput(ModelOutput):
    """Logits `(batch, seq)` of where an answer starts and ends."""

    loss: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None


@dataclass(eq=False)
class Seq2SeqLMOutput(ModelOutput):
    """Next-token logits of a decoder, and what its encoder made."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    decoder_hidden_states: TensorTuple | None = None
    decoder_attentions: TensorTuple | None = None
    cross_attentions: TensorTuple | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: TensorTuple | None = None
    encoder_attentions: TensorTuple | None = None


class Seq2SeqSequenceClassifierOutput(Seq2SeqLMOutput):
    """Logits `(batch, labels)` of an encoder and decoder."""


@dataclass(eq=False)
class Seq2SeqQuestionAnsweringModelOutput(ModelOutput):
    """Logits `(batch, seq)` of where an answer starts and ends, of an encoder and decoder."""

    loss: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    past_key_values: Any = None
    decoder_hidden_states: TensorTuple | None = None
    decoder_attentions: TensorTuple | None = None
    cross_attentions: TensorTuple | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: TensorTuple | None = None
    encoder_attentions: TensorTuple | None = None


@dataclass(eq=False)
class MaskedImageModelingOutput(ModelOutput):
    """The image `(batch, channels, height, width)` that a model filled in."""

    loss: Tensor | None = None
    reconstruction: Tensor | None = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None


@dataclass(eq=False)
class XVectorOutput(ModelOutput):
    """Of speaker verification: logits and `embeddings`, each `(batch, xvector_dim)`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    embeddings: Tensor | None = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None
