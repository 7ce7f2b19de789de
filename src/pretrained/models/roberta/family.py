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
    names=("modeling_roberta:RobertaPreTrainedModel",),
    siblings={"xlm-roberta": XLM},
)
