"""What forward passes return: objects that are read by attribute, by key or by index, and that JAX can take apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from ..output import Output

__all__ = [
    "FlaxBaseModelOutput",
    "FlaxBaseModelOutputWithPast",
    "FlaxBaseModelOutputWithPastAndCrossAttentions",
    "FlaxBaseModelOutputWithPooling",
    "FlaxBaseModelOutputWithPoolingAndCrossAttentions",
    "FlaxCausalLMOutput",
    "FlaxCausalLMOutputWithCrossAttentions",
    "FlaxForPreTrainingOutput",
    "FlaxGPT2DoubleHeadsModelOutput",
    "FlaxImageClassifierOutput",
    "FlaxMaskedLMOutput",
    "FlaxModelOutput",
    "FlaxMultipleChoiceModelOutput",
    "FlaxNextSentencePredictorOutput",
    "FlaxQuestionAnsweringModelOutput",
    "FlaxSeq2SeqLMOutput",
    "FlaxSeq2SeqModelOutput",
    "FlaxSequenceClassifierOutput",
    "FlaxTokenClassifierOutput",
    "FlaxWav2Vec2BaseModelOutput",
    "FlaxWav2Vec2ForPreTrainingOutput",
]

Arrays = tuple[jax.Array, ...]


def _with_keys(out: Output) -> tuple[Any, Any]:
    return [(jax.tree_util.GetAttrKey(key), value) for key, value in out.items()], tuple(out)


def _without_keys(out: Output) -> tuple[Any, Any]:
    return tuple(out.values()), tuple(out)


class FlaxModelOutput(Output):
    """Base of all outputs of JAX models; see `Output` for how they are read. A subclass is a dataclass."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_with_keys(
            cls,
            _with_keys,
            lambda names, values: cls._of(dict(zip(names, values, strict=True))),
            _without_keys,
        )

    @staticmethod
    def _is_array(value: Any) -> bool:
        return isinstance(value, jax.Array)

    def replace(self, **changes: Any) -> Any:
        """An output with other values in some fields."""
        return type(self)._of({**self, **changes})


# Field order is index order. Shapes: hidden states `(batch, seq, hidden)`, one for the embeddings and one for each
# layer; attentions `(batch, heads, queries, keys)`, one for each layer; logits `(batch, …, classes)`.


@dataclass(eq=False)
class FlaxBaseModelOutput(FlaxModelOutput):
    """Of an encoder."""

    last_hidden_state: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxBaseModelOutputWithPooling(FlaxModelOutput):
    """Of an encoder that also sums up the whole input, `pooler_output` `(batch, hidden)`."""

    last_hidden_state: Any = None
    pooler_output: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxBaseModelOutputWithPast(FlaxModelOutput):
    """Of a decoder; `past_key_values` is a cache that holds the new tokens too."""

    last_hidden_state: Any = None
    past_key_values: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxBaseModelOutputWithPastAndCrossAttentions(FlaxModelOutput):
    """Of a decoder that may attend to an encoder."""

    last_hidden_state: Any = None
    past_key_values: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxBaseModelOutputWithPoolingAndCrossAttentions(FlaxModelOutput):
    """Of an encoder or decoder with a pooler."""

    last_hidden_state: Any = None
    pooler_output: Any = None
    past_key_values: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxSeq2SeqModelOutput(FlaxModelOutput):
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
class FlaxMaskedLMOutput(FlaxModelOutput):
    """Logits `(batch, seq, vocab)` of an encoder."""

    logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxCausalLMOutput(FlaxModelOutput):
    """Logits `(batch, seq, vocab)` of the next token."""

    logits: Any = None
    past_key_values: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxCausalLMOutputWithCrossAttentions(FlaxModelOutput):
    """The same of a decoder that may attend to an encoder."""

    logits: Any = None
    past_key_values: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
    cross_attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxGPT2DoubleHeadsModelOutput(FlaxModelOutput):
    """Logits `(batch, choices, seq, vocab)` of the next token, and `(batch, choices)` of the choices."""

    logits: Any = None
    mc_logits: Any = None
    past_key_values: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxSeq2SeqLMOutput(FlaxModelOutput):
    """Logits `(batch, seq, vocab)` of a decoder that attends to an encoder."""

    logits: Any = None
    past_key_values: Any = None
    decoder_hidden_states: Arrays | None = None
    decoder_attentions: Arrays | None = None
    cross_attentions: Arrays | None = None
    encoder_last_hidden_state: Any = None
    encoder_hidden_states: Arrays | None = None
    encoder_attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxForPreTrainingOutput(FlaxModelOutput):
    """Of the heads BERT was pretrained with."""

    prediction_logits: Any = None
    seq_relationship_logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxNextSentencePredictorOutput(FlaxModelOutput):
    """Logits `(batch, 2)`: the second sentence follows the first, or does not."""

    logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxSequenceClassifierOutput(FlaxModelOutput):
    """Logits `(batch, labels)`."""

    logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxImageClassifierOutput(FlaxModelOutput):
    """Logits `(batch, labels)` of pictures."""

    logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxMultipleChoiceModelOutput(FlaxModelOutput):
    """Logits `(batch, choices)`."""

    logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxTokenClassifierOutput(FlaxModelOutput):
    """Logits `(batch, seq, labels)`."""

    logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxQuestionAnsweringModelOutput(FlaxModelOutput):
    """Logits `(batch, seq)` of where an answer starts and where it ends."""

    start_logits: Any = None
    end_logits: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxWav2Vec2BaseModelOutput(FlaxModelOutput):
    """Of an encoder of speech; `extract_features` `(batch, frames, channels)` are those of the convolutions."""

    last_hidden_state: Any = None
    extract_features: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class FlaxWav2Vec2ForPreTrainingOutput(FlaxModelOutput):
    """What the contrastive loss is made of: projections `(batch, frames, projected)` and the codes' perplexity."""

    projected_states: Any = None
    projected_quantized_states: Any = None
    codevector_perplexity: Any = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None
