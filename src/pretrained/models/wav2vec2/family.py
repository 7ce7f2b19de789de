"""The names of the Wav2Vec2 family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="wav2vec2",
    config="configuration_wav2vec2:Wav2Vec2Config",
    pt={
        "AutoModel": "modeling_wav2vec2:Wav2Vec2Model",
        "AutoModelForPreTraining": "modeling_wav2vec2_pretraining:Wav2Vec2ForPreTraining",
        "AutoModelForCTC": "modeling_wav2vec2_heads:Wav2Vec2ForCTC",
        "AutoModelForAudioClassification": "modeling_wav2vec2_heads:Wav2Vec2ForSequenceClassification",
        "AutoModelForAudioFrameClassification": "modeling_wav2vec2_heads:Wav2Vec2ForAudioFrameClassification",
        "AutoModelForAudioXVector": "modeling_wav2vec2_heads:Wav2Vec2ForXVector",
    },
    flax={
        "FlaxAutoModel": "modeling_flax_wav2vec2:FlaxWav2Vec2Model",
        "FlaxAutoModelForPreTraining": "modeling_flax_wav2vec2_pretraining:FlaxWav2Vec2ForPreTraining",
        "FlaxAutoModelForCTC": "modeling_flax_wav2vec2_heads:FlaxWav2Vec2ForCTC",
        "FlaxAutoModelForAudioClassification": "modeling_flax_wav2vec2_heads:FlaxWav2Vec2ForSequenceClassification",
        "FlaxAutoModelForAudioFrameClassification": (
            "modeling_flax_wav2vec2_heads:FlaxWav2Vec2ForAudioFrameClassification"
        ),
        "FlaxAutoModelForAudioXVector": "modeling_flax_wav2vec2_heads:FlaxWav2Vec2ForXVector",
    },
    tf={
        "TFAutoModel": "modeling_tf_wav2vec2:TFWav2Vec2Model",
        "TFAutoModelForPreTraining": "modeling_tf_wav2vec2_pretraining:TFWav2Vec2ForPreTraining",
        "TFAutoModelForCTC": "modeling_tf_wav2vec2_heads:TFWav2Vec2ForCTC",
        "TFAutoModelForAudioClassification": "modeling_tf_wav2vec2_heads:TFWav2Vec2ForSequenceClassification",
        "TFAutoModelForAudioFrameClassification": ("modeling_tf_wav2vec2_heads:TFWav2Vec2ForAudioFrameClassification"),
        "TFAutoModelForAudioXVector": "modeling_tf_wav2vec2_heads:TFWav2Vec2ForXVector",
    },
    names=(
        "modeling_wav2vec2:Wav2Vec2PreTrainedModel",
        "modeling_flax_wav2vec2:FlaxWav2Vec2PreTrainedModel",
        "modeling_tf_wav2vec2:TFWav2Vec2PreTrainedModel",
    ),
)
