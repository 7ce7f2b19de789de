"""What forward passes return: objects that are read by attribute, by key or by index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import optree
import tensorflow as tf

from ..output import Output

__all__ = [
    "TFBaseModelOutput",
    "TFBaseModelOutputWithPast",
    "TFBaseModelOutputWithPastAndCrossAttentions",
    "TFBaseModelOutputWithPooling",
    "TFBaseModelOutputWithPoolingAndCrossAttentions",
    "TFCausalLMOutput",
    "TFCausalLMOutputWithCrossAttentions",
    "TFForPreTrainingOutput",
    "TFGPT2DoubleHeadsModelOutput",
    "TFImageClassifierOutput",
    "TFMaskedImageModelingOutput",
    "TFMaskedLMOutput",
    "TFModelOutput",
    "TFMultipleChoiceModelOutput",
    "TFNextSentencePredictorOutput",
    "TFQuestionAnsweringModelOutput",
    "TFSeq2SeqLMOutput",
    "TFSeq2SeqModelOutput",
    "TFSeq2SeqQuestionAnsweringModelOutput",
    "TFSeq2SeqSequenceClassifierOutput",
    "TFSequenceClassifierOutput",
    "TFTokenClassifierOutput",
    "TFWav2Vec2BaseModelOutput",
    "TFWav2Vec2ForPreTrainingOutput",
    "TFXVectorOutput",
]

Arrays: TypeAlias = tuple[tf.Tensor, ...]


def _without_names(out: Any) -> tuple[Any, ...]:
    return tuple(out.values()), tuple(out), tuple(out)


class TFModelOutput(Output):
    """Base of all outputs of TensorFlow models; see `Output` for how they are read. A subclass is a dataclass."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Keras takes outputs apart to join batches, and to compose models of models.
        optree.register_pytree_node(cls, _without_names, cls._with_names, namespace="keras")

    @classmethod
    def _with_names(cls, names: Any, values: Any) -> Any:
        return cls._of(dict(zip(names, values, strict=True)))

    @staticmethod
    def _is_array(value: Any) -> bool:
        return bool(tf.is_tensor(value)) or isinstance(value, keras.KerasTensor)


# Field order is index order. Shapes: hidden states `(batch, seq, hidden)`, one for the embeddings and one for each
# layer; attentions `(batch, heads, queries, keys)`, one for each layer; logits `(batch, …, classes)`.


@dataclass(eq=False)
class TFBaseModelOutput(TFModelOutput):
    """Of an encoder."""

    last_hidden_state: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFBaseModelOutputWithPooling(TFModelOutput):
    """Of an encoder that also sums up the whole input, `pooler_output` `(batch, hidden)`."""

    last_hidden_state: Any = None
    pooler_output: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFBaseModelOutputWithPast(TFModelOutput):
    """Of a decoder; `past_key_values` is a cache that holds the new tokens too."""

    last_hidden_state: Any = None
    past_key_values: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFBaseModelOutputWithPastAndCrossAttentions(TFModelOutput):
    """Of a decoder that may attend to an encoder."""

    last_hidden_state: Any = None
    past_key_values: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None


@dataclass(eq=False)
class TFBaseModelOutputWithPoolingAndCrossAttentions(TFModelOutput):
    """Of an encoder or decoder with a pooler."""

    last_hidden_state: Any = None
    pooler_output: Any = None
    past_key_values: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None


@dataclass(eq=False)
class TFSeq2SeqModelOutput(TFModelOutput):
    """Of an encoder and a decoder."""

    last_hidden_state: Any = None
    past_key_values: Any = None
    decoder_hidden_states: Arrays | None = None
    decoder_attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    encoder_last_hidden_state: Any = None
    encoder_hidden_states: Arrays | None = None
    encoder_attentions: Arrays | None = None


@dataclass(eq=False)
class TFMaskedLMOutput(TFModelOutput):
    """Logits `(batch, seq, vocab)` of an encoder."""

    loss: Any = None
    logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFCausalLMOutput(TFModelOutput):
    """Logits `(batch, seq, vocab)` of the next token."""

    loss: Any = None
    logits: Any = None
    past_key_values: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFCausalLMOutputWithCrossAttentions(TFModelOutput):
    """The same of a decoder that may attend to an encoder."""

    loss: Any = None
    logits: Any = None
    past_key_values: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None


@dataclass(eq=False)
class TFGPT2DoubleHeadsModelOutput(TFModelOutput):
    """Logits `(batch, choices, seq, vocab)` of the next token, and `(batch, choices)` of the choices."""

    loss: Any = None
    mc_loss: Any = None
    logits: Any = None
    mc_logits: Any = None
    past_key_values: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFSeq2SeqLMOutput(TFModelOutput):
    """Logits `(batch, seq, vocab)` of a decoder that attends to an encoder."""

    loss: Any = None
    logits: Any = None
    past_key_values: Any = None
    decoder_hidden_states: Arrays | None = None
    decoder_attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    encoder_last_hidden_state: Any = None
    encoder_hidden_states: Arrays | None = None
    encoder_attentions: Arrays | None = None


@dataclass(eq=False)
class TFSeq2SeqSequenceClassifierOutput(TFModelOutput):
    """Logits `(batch, labels)` of a decoder that attends to an encoder."""

    loss: Any = None
    logits: Any = None
    past_key_values: Any = None
    decoder_hidden_states: Arrays | None = None
    decoder_attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    encoder_last_hidden_state: Any = None
    encoder_hidden_states: Arrays | None = None
    encoder_attentions: Arrays | None = None


@dataclass(eq=False)
class TFSeq2SeqQuestionAnsweringModelOutput(TFModelOutput):
    """Logits `(batch, seq)` of where an answer starts and where it ends, from such a decoder."""

    loss: Any = None
    start_logits: Any = None
    end_logits: Any = None
    past_key_values: Any = None
    decoder_hidden_states: Arrays | None = None
    decoder_attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    encoder_last_hidden_state: Any = None
    encoder_hidden_states: Arrays | None = None
    encoder_attentions: Arrays | None = None


@dataclass(eq=False)
class TFForPreTrainingOutput(TFModelOutput):
    """Of the heads BERT was pretrained with."""

    loss: Any = None
    prediction_logits: Any = None
    seq_relationship_logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFNextSentencePredictorOutput(TFModelOutput):
    """Logits `(batch, 2)`: the second sentence follows the first, or does not."""

    loss: Any = None
    logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFSequenceClassifierOutput(TFModelOutput):
    """Logits `(batch, labels)`."""

    loss: Any = None
    logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFImageClassifierOutput(TFModelOutput):
    """Logits `(batch, labels)` of pictures."""

    loss: Any = None
    logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFMaskedImageModelingOutput(TFModelOutput):
    """Pictures `(batch, channels, height, width)` with what was masked filled in."""

    loss: Any = None
    reconstruction: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFMultipleChoiceModelOutput(TFModelOutput):
    """Logits `(batch, choices)`."""

    loss: Any = None
    logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFTokenClassifierOutput(TFModelOutput):
    """Logits `(batch, seq, labels)`."""

    loss: Any = None
    logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFQuestionAnsweringModelOutput(TFModelOutput):
    """Logits `(batch, seq)` of where an answer starts and where it ends."""

    loss: Any = None
    start_logits: Any = None
    end_logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFWav2Vec2BaseModelOutput(TFModelOutput):
    """Of an encoder of speech; `extract_features` `(batch, frames, channels)` are those of the convolutions."""

    last_hidden_state: Any = None
    extract_features: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class TFWav2Vec2ForPreTrainingOutput(TFModelOutput):
    """What the contrastive loss is made of: projections `(batch, frames, projected)` and the codes' perplexity."""

    loss: Any = None
    projected_states: Any = None
    projected_quantized_states: Any = None
    codevector_perplexity: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    contrastive_loss: Any = None
    diversity_loss: Any = None


@dataclass(eq=False)
class TFXVectorOutput(TFModelOutput):
    """Logits and vectors of speakers, both `(batch, size)`."""

    loss: Any = None
    logits: Any = None
    embeddings: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
