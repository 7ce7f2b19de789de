"""The names of the RoBERTa family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

XLM = Family(
    model_type="xlm-roberta",
    config="configuration_roberta:XLMRobertaConfig",
    pt={
        "AutoModel": "modeling_xlm_roberta:XLMRobertaModel",
        "AutoModelForPreTraining": "modeling_xlm_roberta:XLMRobertaForMaskedLM",
        "AutoModelForMaskedLM": "modeling_xlm_roberta:XLMRobertaForMaskedLM",
        "AutoModelForCausalLM": "modeling_xlm_roberta:XLMRobertaForCausalLM",
        "AutoModelForSequenceClassification": "modeling_xlm_roberta:XLMRobertaForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_xlm_roberta:XLMRobertaForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_xlm_roberta:XLMRobertaForQuestionAnswering",
        "AutoModelForMultipleChoice": "modeling_xlm_roberta:XLMRobertaForMultipleChoice",
    },
    flax={
        "FlaxAutoModel": "modeling_flax_xlm_roberta:FlaxXLMRobertaModel",
        "FlaxAutoModelForPreTraining": "modeling_flax_xlm_roberta:FlaxXLMRobertaForMaskedLM",
        "FlaxAutoModelForMaskedLM": "modeling_flax_xlm_roberta:FlaxXLMRobertaForMaskedLM",
        "FlaxAutoModelForCausalLM": "modeling_flax_xlm_roberta:FlaxXLMRobertaForCausalLM",
        "FlaxAutoModelForSequenceClassification": "modeling_flax_xlm_roberta:FlaxXLMRobertaForSequenceClassification",
        "FlaxAutoModelForTokenClassification": "modeling_flax_xlm_roberta:FlaxXLMRobertaForTokenClassification",
        "FlaxAutoModelForQuestionAnswering": "modeling_flax_xlm_roberta:FlaxXLMRobertaForQuestionAnswering",
        "FlaxAutoModelForMultipleChoice": "modeling_flax_xlm_roberta:FlaxXLMRobertaForMultipleChoice",
    },
    tf={
        "TFAutoModel": "modeling_tf_xlm_roberta:TFXLMRobertaModel",
        "TFAutoModelForPreTraining": "modeling_tf_xlm_roberta:TFXLMRobertaForMaskedLM",
        "TFAutoModelForMaskedLM": "modeling_tf_xlm_roberta:TFXLMRobertaForMaskedLM",
        "TFAutoModelForCausalLM": "modeling_tf_xlm_roberta:TFXLMRobertaForCausalLM",
        "TFAutoModelForSequenceClassification": "modeling_tf_xlm_roberta:TFXLMRobertaForSequenceClassification",
        "TFAutoModelForTokenClassification": "modeling_tf_xlm_roberta:TFXLMRobertaForTokenClassification",
        "TFAutoModelForQuestionAnswering": "modeling_tf_xlm_roberta:TFXLMRobertaForQuestionAnswering",
        "TFAutoModelForMultipleChoice": "modeling_tf_xlm_roberta:TFXLMRobertaForMultipleChoice",
    },
)

FAMILY = Family(
    model_type="roberta",
    config="configuration_roberta:RobertaConfig",
    pt={
        "AutoModel": "modeling_roberta:RobertaModel",
        "AutoModelForPreTraining": "modeling_roberta_heads:RobertaForMaskedLM",
        "AutoModelForMaskedLM": "modeling_roberta_heads:RobertaForMaskedLM",
        "AutoModelForCausalLM": "modeling_roberta_heads:RobertaForCausalLM",
        "AutoModelForSequenceClassification": "modeling_roberta_tasks:RobertaForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_roberta_tasks:RobertaForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_roberta_tasks:RobertaForQuestionAnswering",
        "AutoModelForMultipleChoice": "modeling_roberta_tasks:RobertaForMultipleChoice",
    },
    flax={
        "FlaxAutoModel": "modeling_flax_roberta:FlaxRobertaModel",
        "FlaxAutoModelForPreTraining": "modeling_flax_roberta_heads:FlaxRobertaForMaskedLM",
        "FlaxAutoModelForMaskedLM": "modeling_flax_roberta_heads:FlaxRobertaForMaskedLM",
        "FlaxAutoModelForCausalLM": "modeling_flax_roberta_heads:FlaxRobertaForCausalLM",
        "FlaxAutoModelForSequenceClassification": "modeling_flax_roberta_heads:FlaxRobertaForSequenceClassification",
        "FlaxAutoModelForTokenClassification": "modeling_flax_roberta_heads:FlaxRobertaForTokenClassification",
        "FlaxAutoModelForQuestionAnswering": "modeling_flax_roberta_heads:FlaxRobertaForQuestionAnswering",
        "FlaxAutoModelForMultipleChoice": "modeling_flax_roberta_heads:FlaxRobertaForMultipleChoice",
    },
    tf={
        "TFAutoModel": "modeling_tf_roberta:TFRobertaModel",
        "TFAutoModelForPreTraining": "modeling_tf_roberta_heads:TFRobertaForMaskedLM",
        "TFAutoModelForMaskedLM": "modeling_tf_roberta_heads:TFRobertaForMaskedLM",
        "TFAutoModelForCausalLM": "modeling_tf_roberta_heads:TFRobertaForCausalLM",
        "TFAutoModelForSequenceClassification": "modeling_tf_roberta_heads:TFRobertaForSequenceClassification",
        "TFAutoModelForTokenClassification": "modeling_tf_roberta_heads:TFRobertaForTokenClassification",
        "TFAutoModelForQuestionAnswering": "modeling_tf_roberta_heads:TFRobertaForQuestionAnswering",
        "TFAutoModelForMultipleChoice": "modeling_tf_roberta_heads:TFRobertaForMultipleChoice",
    },
    names=("modeling_roberta:RobertaPreTrainedModel", "modeling_flax_roberta:FlaxRobertaPreTrainedModel"),
    siblings={"xlm-roberta": XLM},
)
