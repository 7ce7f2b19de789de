"""FlaxAutoModel and its heads: what AutoModel is for torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .._types import PathLike
from . import registry
from .classes import AnyAutoModel, framework_part

__all__ = list(registry.FLAX_AUTO_NAMES)


class _FlaxAutoModel(AnyAutoModel):
    """A head, whatever the family, in JAX. Takes what `FlaxPreTrainedModel.from_pretrained` takes."""

    @classmethod
    def _load(cls, ref: PathLike | None, config: Any, keywords: Mapping[str, Any], model_args: tuple[Any, ...]) -> Any:
        loading = framework_part(cls.__name__, "flax", "flax.loading")
        return loading.from_pretrained(
            lambda options: partial(cls._choose, options=options), ref, config, keywords, model_args
        )


class FlaxAutoModel(_FlaxAutoModel):
    """The base model of a checkpoint, without a head."""


class FlaxAutoModelForPreTraining(_FlaxAutoModel):
    """The model with the heads it was pretrained with."""


class FlaxAutoModelForCausalLM(_FlaxAutoModel):
    """The model with a head that predicts the next token."""


class FlaxAutoModelForSeq2SeqLM(_FlaxAutoModel):
    """The model with an encoder, and a decoder with a head that predicts the next token."""


class FlaxAutoModelForMaskedLM(_FlaxAutoModel):
    """The model with a head that predicts masked tokens."""


class FlaxAutoModelForNextSentencePrediction(_FlaxAutoModel):
    """The model with a head that tells whether one sentence follows another."""


class FlaxAutoModelForSequenceClassification(_FlaxAutoModel):
    """The model with a head that classifies whole sequences."""


class FlaxAutoModelForTokenClassification(_FlaxAutoModel):
    """The model with a head that classifies each token."""


class FlaxAutoModelForQuestionAnswering(_FlaxAutoModel):
    """The model with a head that finds where an answer starts and ends."""


class FlaxAutoModelForMultipleChoice(_FlaxAutoModel):
    """The model with a head that scores each of several choices."""


class FlaxAutoModelForImageClassification(_FlaxAutoModel):
    """The model with a head that classifies whole images."""


class FlaxAutoModelForCTC(_FlaxAutoModel):
    """The model with a head that reads speech as text, frame by frame."""
