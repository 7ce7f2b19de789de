"""What forward passes return: objects that are read by attribute, by key or by index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from ..output import Output

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


class ModelOutput(Output):
    """Base of all outputs of torch models; see `Output` for how they are read. A subclass is a dataclass."""

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

    @staticmethod
    def _is_array(value: Any) -> bool:
        return isinstance(value, Tensor)


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
