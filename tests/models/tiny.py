"""Tiny configs, about twenty lines a family, and the cases of tests/reference/*_heads."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from pretrained.models.bert.configuration_bert import BertConfig
from pretrained.models.distilbert.configuration_distilbert import DistilBertConfig
from pretrained.models.gemma.configuration_gemma import GemmaConfig
from pretrained.models.gemma2.configuration_gemma2 import Gemma2Config
from pretrained.models.gemma3.configuration_gemma3 import Gemma3TextConfig
from pretrained.models.gpt2.configuration_gpt2 import GPT2Config
from pretrained.models.llama.configuration_llama import LlamaConfig
from pretrained.models.mistral.configuration_mistral import MistralConfig
from pretrained.models.mixtral.configuration_mixtral import MixtralConfig
from pretrained.models.phi3.configuration_phi3 import Phi3Config
from pretrained.models.qwen2.configuration_qwen2 import Qwen2Config
from pretrained.models.qwen3.configuration_qwen3 import Qwen3Config
from pretrained.models.qwen3_moe.configuration_qwen3_moe import Qwen3MoeConfig
from pretrained.models.roberta.configuration_roberta import RobertaConfig, XLMRobertaConfig
from pretrained.models.t5.configuration_t5 import T5Config
from pretrained.models.vit.configuration_vit import ViTConfig
from pretrained.models.wav2vec2.configuration_wav2vec2 import Wav2Vec2Config

REFERENCE = Path(__file__).parents[1] / "reference"


def tiny_bert(**changes: Any) -> BertConfig:
    settings = {
        "vocab_size": 71,
        "hidden_size": 24,
        "intermediate_size": 30,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 20,
        "initializer_range": 0.15,
        "attn_implementation": "eager",
    }
    return BertConfig(**settings | changes)


ROBERTA = {
    "vocab_size": 71,
    "hidden_size": 24,
    "intermediate_size": 30,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 20,
    "initializer_range": 0.15,
    "attn_implementation": "eager",
}


def tiny_roberta(**changes: Any) -> RobertaConfig:
    return RobertaConfig(**ROBERTA | changes)


def tiny_xlm_roberta(**changes: Any) -> XLMRobertaConfig:
    return XLMRobertaConfig(**ROBERTA | changes)


def tiny_distilbert(**changes: Any) -> DistilBertConfig:
    settings = {
        "vocab_size": 71,
        "dim": 24,
        "hidden_dim": 30,
        "n_layers": 2,
        "n_heads": 4,
        "max_position_embeddings": 20,
        "initializer_range": 0.15,
        "attn_implementation": "eager",
    }
    return DistilBertConfig(**settings | changes)


DECODER = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 30,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 32,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}


QWEN_EXPERTS = {
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 10,
    "norm_topk_prob": True,
    "mlp_only_layers": [1],
}
CAPPED = {"query_pre_attn_scalar": 5, "sliding_window": 4, "final_logit_softcapping": 2.0}


def tiny_qwen2(**changes: Any) -> Qwen2Config:
    return Qwen2Config(**DECODER | changes)


def tiny_qwen3(**changes: Any) -> Qwen3Config:
    return Qwen3Config(**DECODER | changes)


def tiny_mistral(**changes: Any) -> MistralConfig:
    return MistralConfig(**DECODER | {"sliding_window": 4} | changes)


def tiny_phi3(**changes: Any) -> Phi3Config:
    return Phi3Config(**DECODER | {"sliding_window": 4, "partial_rotary_factor": 0.67} | changes)


def tiny_gemma(**changes: Any) -> GemmaConfig:
    return GemmaConfig(**DECODER | changes)


def tiny_gemma2(**changes: Any) -> Gemma2Config:
    return Gemma2Config(**DECODER | CAPPED | {"attn_logit_softcapping": 1.5} | changes)


def tiny_gemma3(**changes: Any) -> Gemma3TextConfig:
    return Gemma3TextConfig(**DECODER | CAPPED | {"sliding_window_pattern": 2, "rope_local_base_freq": 300.0} | changes)


def tiny_mixtral(**changes: Any) -> MixtralConfig:
    return MixtralConfig(**DECODER | {"sliding_window": 4, "num_local_experts": 4} | changes)


def tiny_qwen3_moe(**changes: Any) -> Qwen3MoeConfig:
    return Qwen3MoeConfig(**DECODER | QWEN_EXPERTS | changes)


def tiny_llama(**changes: Any) -> LlamaConfig:
    settings = {
        "vocab_size": 61,
        "hidden_size": 24,
        "intermediate_size": 30,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "max_position_embeddings": 32,
        "initializer_range": 0.15,
        "pad_token_id": 0,
        "attn_implementation": "eager",
    }
    return LlamaConfig(**settings | changes)


def tiny_vit(**changes: Any) -> ViTConfig:
    settings = {
        "hidden_size": 24,
        "intermediate_size": 30,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 12,
        "patch_size": 4,
        "encoder_stride": 4,
        "initializer_range": 0.15,
        "attn_implementation": "eager",
    }
    return ViTConfig(**settings | changes)


def tiny_wav2vec2(**changes: Any) -> Wav2Vec2Config:
    settings = {
        "vocab_size": 17,
        "hidden_size": 24,
        "intermediate_size": 30,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "conv_dim": [10, 12, 14],
        "conv_kernel": [10, 3, 2],
        "conv_stride": [5, 2, 2],
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "num_codevectors_per_group": 5,
        "codevector_dim": 16,
        "proj_codevector_dim": 12,
        "classifier_proj_size": 11,
        "tdnn_dim": [10, 11, 12],
        "tdnn_kernel": [3, 2, 1],
        "tdnn_dilation": [1, 2, 1],
        "xvector_output_dim": 9,
        "initializer_range": 0.15,
        "attn_implementation": "eager",
    }
    return Wav2Vec2Config(**settings | changes)


def tiny_gpt2(**changes: Any) -> GPT2Config:
    settings = {
        "vocab_size": 61,
        "n_embd": 24,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 32,
        "initializer_range": 0.15,
        "pad_token_id": 0,
        "attn_implementation": "eager",
    }
    return GPT2Config(**settings | changes)


def tiny_t5(**changes: Any) -> T5Config:
    settings = {
        "vocab_size": 61,
        "d_model": 16,
        "d_kv": 6,
        "d_ff": 20,
        "num_layers": 2,
        "num_heads": 3,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
        "attn_implementation": "eager",
    }
    return T5Config(**settings | changes)


# model_type → what makes its tiny config; tests/models/test_contract.py wants every family of the registry here.
TINY: dict[str, Callable[..., Any]] = {
    "bert": tiny_bert,
    "distilbert": tiny_distilbert,
    "gpt2": tiny_gpt2,
    "llama": tiny_llama,
    "qwen3_moe": tiny_qwen3_moe,
    "mixtral": tiny_mixtral,
    "gemma3_text": tiny_gemma3,
    "gemma2": tiny_gemma2,
    "gemma": tiny_gemma,
    "phi3": tiny_phi3,
    "mistral": tiny_mistral,
    "qwen2": tiny_qwen2,
    "qwen3": tiny_qwen3,
    "roberta": tiny_roberta,
    "t5": tiny_t5,
    "vit": tiny_vit,
    "wav2vec2": tiny_wav2vec2,
    "xlm-roberta": tiny_xlm_roberta,
}


def find_class(family: str, name: str) -> type:
    declared = import_module(f"pretrained.models.{family}.family").FAMILY
    places = [place.split(":") for place in (*declared.pt.values(), *declared.names)]
    module = next(module for module, found in places if found == name)
    return getattr(import_module(f"pretrained.models.{family}.{module}"), name)


def load_arrays(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def run_case(family: str, folder: str, case: str, attention: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """Output of one case, and what was expected of it."""
    described = json.loads((REFERENCE / folder / "cases.json").read_text())
    spec, inputs = described["cases"][case], load_arrays(REFERENCE / folder / "inputs.npz")
    model_class: Any = find_class(family, spec["class"])
    described["base"] |= spec.get("config", {})
    config = model_class.config_class.from_dict(described["base"], attn_implementation=attention)
    assert config._attn_implementation == attention
    model = model_class(config).eval()
    weights = load_file(REFERENCE / folder / "model.safetensors")
    prefix = f"{model.base_model_prefix}."
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # one that is tied comes once
            names = (f"{case}|{name}", name, prefix + name, name.removeprefix(prefix))
            parameter.copy_(weights[next(key for key in names if key in weights)])
    given = {k: inputs[v[1:]] if isinstance(v, str) else v for k, v in spec["inputs"].items()}
    with torch.no_grad():
        output = model(**given, **({"use_cache": False} if family == "llama" else {}))
    everything = load_arrays(REFERENCE / folder / "expected.npz")
    return output, {name.split("/")[1]: value for name, value in everything.items() if name.startswith(f"{case}/")}


def pick(output: Any, name: str) -> torch.Tensor:
    """`logits`, or `attentions.0`, of an output."""
    field, _, index = name.partition(".")
    return output[field][int(index)] if index else output[field]
