"""TFAutoModel and its heads: what AutoModel is for torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .._types import PathLike
from . import registry
from .classes import AnyAutoModel, framework_part

__all__ = list(registry.TF_AUTO_NAMES)


class _TFAutoModel(AnyAutoModel):
    """A head, whatever the family, in TensorFlow. Takes what `TFPreTrainedModel.from_pretrained` takes."""

    @classmethod
    def _load(cls, ref: PathLike | None, config: Any, keywords: Mapping[str, Any], model_args: tuple[Any, ...]) -> Any:
        loading = framework_part(cls.__name__, "tf", "tf.loading")
        return loading.from_pretrained(
            lambda options: partial(cls._choose, options=options), ref, config, keywords, model_args
        )


class TFAutoModel(_TFAutoModel):
    """The base model of a checkpoint, without a head."""


class TFAutoModelForPreTraining(_TFAutoModel):
    """The model with the heads it was pretrained with."""


class TFAutoModelForCausalLM(_TFAutoModel):
    """The model with a head that predicts the next token."""


class TFAutoModelForSeq2SeqLM(_TFAutoModel):
    """The model with an encoder, and a decoder with a head that predicts the next token."""


class TFAutoModelForMaskedLM(_TFAutoModel):
    """The model with a head that predicts masked tokens."""


class TFAutoModelForNextSentencePrediction(_TFAutoModel):
    """The model with a head that tells whether one sentence follows another."""


class TFAutoModelForSequenceClassification(_TFAutoModel):
    """The model with a head that classifies whole sequences."""


class TFAutoModelForTokenClassification(_TFAutoModel):
    """The model with a head that classifies each token."""


class TFAutoModelForQuestionAnswering(_TFAutoModel):
    """The model with a head that finds where an answer starts and ends."""


class TFAutoModelForMultipleChoice(_TFAutoModel):
    """The model with a head that scores each of several choices."""


class TFAutoModelForImageClassification(_TFAutoModel):
    """The model with a head that classifies whole images."""


class TFAutoModelForMaskedImageModeling(_TFAutoModel):
    """The model with a head that fills in masked parts of an image."""


class TFAutoModelForCTC(_TFAutoModel):
    """The model with a head that reads speech as text, frame by frame."""


class TFAutoModelForAudioClassification(_TFAutoModel):
    """The model with a head that classifies whole recordings."""


class TFAutoModelForAudioFrameClassification(_TFAutoModel):
    """The model with a head that classifies each frame of a recording."""


class TFAutoModelForAudioXVector(_TFAutoModel):
    """The model with a head that tells speakers apart."""
