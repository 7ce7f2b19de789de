"""Random configs, larger than the tiny ones, and inputs for them, by family; for parity_live.py."""

from __future__ import annotations

import copy
import random
from typing import Any

import torch
from contract_cases import Case
from torch import Tensor

__all__ = ["DRAWS", "DrawnCase"]


def text(rng: random.Random) -> dict[str, Any]:
    """Fields that BERT and its like have in common."""
    heads = rng.choice([2, 4, 6])
    return {
        "vocab_size": rng.randint(100, 2000),
        "hidden_size": rng.choice([8, 16, 24, 32]) * heads,
        "num_attention_heads": heads,
        "num_hidden_layers": rng.randint(1, 6),
        "intermediate_size": rng.randint(50, 700),
        "hidden_act": rng.choice(["gelu", "gelu_new", "relu", "silu", "gelu_fast", "quick_gelu"]),
        "max_position_embeddings": 128,
        "initializer_range": 0.1,
    }


def roberta(rng: random.Random) -> dict[str, Any]:
    return text(rng) | {"type_vocab_size": 1, "pad_token_id": 1}


def distilbert(rng: random.Random) -> dict[str, Any]:
    heads = rng.choice([2, 4, 6])
    return {
        "vocab_size": rng.randint(100, 2000),
        "dim": rng.choice([8, 16, 24]) * heads,
        "n_heads": heads,
        "n_layers": rng.randint(1, 6),
        "hidden_dim": rng.randint(50, 700),
        "activation": rng.choice(["gelu", "relu", "silu"]),
        "max_position_embeddings": 128,
        "initializer_range": 0.1,
        "sinusoidal_pos_embds": rng.random() < 0.3,
    }


ROPES: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
]


def grouped(rng: random.Random) -> dict[str, Any]:
    """Fields that Llama and its like have in common."""
    groups = rng.choice([1, 2, 3])
    return {
        "vocab_size": rng.randint(100, 2000),
        "hidden_size": 24 * rng.randint(2, 15),
        "num_attention_heads": groups * rng.choice([1, 2, 4]),
        "num_key_value_heads": groups,
        "head_dim": rng.choice([8, 16, 24, 64]),
        "num_hidden_layers": rng.randint(1, 6),
        "intermediate_size": rng.randint(50, 700),
        "max_position_embeddings": 64,
        "initializer_range": 0.1,
        "pad_token_id": 0,
        "tie_word_embeddings": rng.random() < 0.5,
        "rope_parameters": rng.choice(ROPES) | {"rope_theta": rng.choice([100.0, 10000.0, 500000.0])},
    }


def llama(rng: random.Random) -> dict[str, Any]:
    return grouped(rng) | {"attention_bias": rng.random() < 0.5, "mlp_bias": rng.random() < 0.5}


def mistral(rng: random.Random) -> dict[str, Any]:
    return grouped(rng) | {"sliding_window": rng.choice([None, 1, 7, 40])}


def phi3(rng: random.Random) -> dict[str, Any]:
    drawn = grouped(rng)
    heads = drawn["num_attention_heads"]
    drawn["hidden_size"], share = 16 * heads * rng.randint(1, 3), rng.choice([0.5, 1.0])
    turning = int(drawn["hidden_size"] // heads * share)
    long = {
        "rope_type": "longrope",
        "short_factor": [rng.uniform(1, 2) for _ in range(turning // 2)],
        "long_factor": [rng.uniform(1, 9) for _ in range(turning // 2)],
    }
    rope = rng.choice([{"rope_type": "default"}, long])
    del drawn["head_dim"]
    return drawn | {
        "original_max_position_embeddings": rng.choice([16, 32, 64]),
        "rope_parameters": rope | {"rope_theta": 10000.0, "partial_rotary_factor": share},
        "sliding_window": rng.choice([None, 7]),
    }


def gemma(rng: random.Random) -> dict[str, Any]:
    act = rng.choice(["gelu", "gelu_pytorch_tanh", "silu"])
    return grouped(rng) | {"attention_bias": rng.random() < 0.5, "hidden_act": act}


def gemma2(rng: random.Random) -> dict[str, Any]:
    drawn = grouped(rng)
    return drawn | {
        "hidden_size": 12 * drawn["num_attention_heads"] * rng.randint(1, 5),
        "attention_bias": rng.random() < 0.5,
        "query_pre_attn_scalar": rng.randint(5, 60),
        "sliding_window": rng.choice([1, 7, 40]),
        "final_logit_softcapping": rng.choice([None, 3.0, 30.0]),
        "attn_logit_softcapping": rng.choice([None, 2.0, 50.0]),
    }


def gemma3(rng: random.Random) -> dict[str, Any]:
    drawn = gemma2(rng)
    full, near = drawn.pop("rope_parameters"), {"rope_type": "default", "rope_theta": rng.choice([100.0, 10000.0])}
    return drawn | {
        "rope_parameters": {"full_attention": full, "sliding_attention": near},
        "attn_logit_softcapping": None,
        "sliding_window": rng.choice([2, 8, 40]),
        "sliding_window_pattern": rng.randint(2, 4),
        "use_bidirectional_attention": rng.random() < 0.3,
    }


def mixtral(rng: random.Random) -> dict[str, Any]:
    experts = rng.randint(2, 9)
    return grouped(rng) | {
        "intermediate_size": 8 * rng.randint(3, 40),
        "sliding_window": rng.choice([None, 7, 40]),
        "num_local_experts": experts,
        "num_experts_per_tok": rng.randint(1, min(3, experts)),
        "output_router_logits": rng.random() < 0.5,
        "router_aux_loss_coef": 0.3,
    }


def qwen3_moe(rng: random.Random) -> dict[str, Any]:
    drawn = mixtral(rng)
    return drawn | {
        "num_experts": drawn.pop("num_local_experts"),
        "num_hidden_layers": rng.randint(3, 6),  # of which one has experts at least, as the reference needs it
        "moe_intermediate_size": 8 * rng.randint(2, 20),
        "norm_topk_prob": rng.random() < 0.5,
        "decoder_sparse_step": rng.choice([1, 1, 2]),
        "mlp_only_layers": rng.choice([[], [0], [1]]),
        "use_sliding_window": rng.random() < 0.5,
        "attention_bias": rng.random() < 0.5,
    }


def qwen(rng: random.Random) -> dict[str, Any]:
    windows = rng.random() < 0.5
    return grouped(rng) | {"use_sliding_window": windows, "sliding_window": 7, "max_window_layers": rng.randint(0, 2)}


def gpt2(rng: random.Random) -> dict[str, Any]:
    heads = rng.choice([2, 4, 6])
    return {
        "vocab_size": rng.randint(100, 2000),
        "n_embd": rng.choice([8, 16, 24]) * heads,
        "n_head": heads,
        "n_layer": rng.randint(1, 6),
        "n_positions": 128,
        "n_inner": rng.choice([None, 77, 300]),
        "activation_function": rng.choice(["gelu_new", "gelu", "relu"]),
        "initializer_range": 0.1,
        "scale_attn_weights": rng.random() < 0.8,
        "scale_attn_by_inverse_layer_idx": rng.random() < 0.3,
        "pad_token_id": 0,
    }


def t5(rng: random.Random) -> dict[str, Any]:
    return {
        "vocab_size": rng.randint(100, 2000),
        "d_model": 8 * rng.randint(2, 20),
        "d_kv": rng.choice([8, 16, 20]),
        "d_ff": rng.randint(50, 500),
        "num_heads": rng.randint(1, 6),
        "num_layers": rng.randint(1, 5),
        "num_decoder_layers": rng.choice([None, 1, 3]),
        "relative_attention_num_buckets": rng.choice([8, 16, 32]),
        "relative_attention_max_distance": rng.choice([20, 64, 128]),
        "feed_forward_proj": rng.choice(["relu", "gated-gelu", "gated-silu"]),
        "initializer_factor": 0.5,
        "decoder_start_token_id": 0,
    }


def vit(rng: random.Random) -> dict[str, Any]:
    heads, patch = rng.choice([2, 4, 8]), rng.choice([4, 8, 16])
    return {
        "hidden_size": heads * rng.choice([8, 16, 32]),
        "num_attention_heads": heads,
        "num_hidden_layers": rng.randint(1, 5),
        "intermediate_size": rng.randint(20, 300),
        "patch_size": patch,
        "encoder_stride": patch,
        "image_size": patch * rng.randint(2, 7),
        "num_channels": rng.choice([1, 3, 4]),
        "qkv_bias": rng.random() < 0.7,
        "hidden_act": rng.choice(["gelu", "relu", "silu", "quick_gelu"]),
        "initializer_range": 0.1,
    }


def wav2vec2(rng: random.Random) -> dict[str, Any]:
    heads, num_convs, stable = rng.choice([2, 4, 8]), rng.randint(2, 4), rng.random() < 0.5
    return {
        "vocab_size": rng.randint(10, 60),
        "hidden_size": heads * rng.choice([8, 16, 32]),
        "num_attention_heads": heads,
        "num_hidden_layers": rng.randint(1, 4),
        "intermediate_size": rng.randint(20, 300),
        "conv_dim": [rng.randint(4, 24) for _ in range(num_convs)],
        "conv_kernel": [rng.randint(4, 10), *(rng.randint(2, 4) for _ in range(num_convs - 1))],
        "conv_stride": [rng.randint(2, 5), *(rng.randint(1, 2) for _ in range(num_convs - 1))],
        "conv_bias": rng.random() < 0.5,
        "num_conv_pos_embeddings": rng.randint(2, 20),
        "num_conv_pos_embedding_groups": rng.choice([1, 2, 4]),
        "do_stable_layer_norm": stable,
        "adapter_attn_dim": rng.choice([None, 5]) if stable else None,
        "feat_extract_norm": rng.choice(["group", "layer"]),
        "hidden_act": rng.choice(["gelu", "relu", "silu"]),
        "initializer_range": 0.1,
        "use_weighted_layer_sum": rng.random() < 0.5,
        "tdnn_dim": [9, 10, 11],
        "tdnn_kernel": [3, 2, 1],
        "tdnn_dilation": [1, 2, 1],
        "xvector_output_dim": 8,
        "codevector_dim": 16,
        "proj_codevector_dim": 12,
        "num_codevectors_per_group": rng.randint(3, 9),
        "classifier_proj_size": 13,
        "ctc_loss_reduction": rng.choice(["mean", "sum"]),
    }


# model_type → what draws its fields; every family of the registry.
DRAWS = {
    "bert": text,
    "distilbert": distilbert,
    "gpt2": gpt2,
    "llama": llama,
    "qwen3_moe": qwen3_moe,
    "mixtral": mixtral,
    "gemma3_text": gemma3,
    "gemma2": gemma2,
    "gemma": gemma,
    "phi3": phi3,
    "mistral": mistral,
    "qwen2": qwen,
    "qwen3": qwen,
    "roberta": roberta,
    "t5": t5,
    "vit": vit,
    "wav2vec2": wav2vec2,
    "xlm-roberta": roberta,
}

# End of a class's name → fields it needs beside; decoders of BERT's kind attend to an encoder too.
CROSSED = ("BertLMHeadModel", "RobertaForCausalLM")
TWO_LABELS = ("ForQuestionAnswering", "ForXVector", "ForNextSentencePrediction")


class DrawnCase(Case):
    """A class with a config of its own, and inputs of random size."""

    def __init__(self, case: Case, fields: dict[str, Any], rng: random.Random) -> None:
        super().__init__(case.model_type, case.cls, case.base)
        name = case.cls.__name__
        self.fields = fields | ({"num_labels": rng.randint(3, 9)} if not name.endswith(TWO_LABELS) else {})
        if name.endswith(CROSSED):
            self.fields |= {"is_decoder": True, "add_cross_attention": True}
        self.batch, self.seq, self.is_padded = rng.randint(2, 4), rng.randint(6, 100), rng.random() < 0.7
        self.fields["dtype"] = "float32"

    def config(self, **changes: Any) -> Any:
        return self.cls.config_class(**copy.deepcopy(self.fields) | changes)

    @property
    def inputs(self) -> dict[str, Tensor]:  # type: ignore[override]
        if "_inputs" not in self.__dict__:
            self._inputs = self.drawn()
        return self._inputs

    def drawn(self) -> dict[str, Tensor]:
        if self.cls.main_input_name != "input_ids":
            return self.of_signals()
        config = self.config()
        choices = (2,) if self.cls.__name__.endswith(("ForMultipleChoice", "DoubleHeadsModel")) else ()
        ids = torch.randint(5, config.vocab_size, (self.batch, *choices, self.seq))
        made, mask = {"input_ids": ids}, torch.ones_like(ids)
        if self.is_padded:
            mask[-1, ..., self.seq - self.seq // 3 :] = 0
            made["input_ids"] = ids.masked_fill(mask == 0, config.pad_token_id)
            made["attention_mask"] = mask
        if self.model_type == "t5":
            made["input_ids"][:, self.seq // 2] = config.eos_token_id
            if self.cls.__name__ in ("T5Model", "T5ForConditionalGeneration"):
                made["decoder_input_ids"] = torch.randint(5, config.vocab_size, (self.batch, self.seq + 3))
        if "token_type_ids" in self.parameters and self.model_type == "bert":
            made["token_type_ids"] = torch.randint(0, 2, ids.shape)
        if "mc_token_ids" in self.parameters:
            made["mc_token_ids"] = torch.randint(0, self.seq, ids.shape[:-1])
        if self.cls.__name__.endswith(CROSSED):
            made["encoder_hidden_states"] = torch.randn(self.batch, 7, config.hidden_size)
            made["encoder_attention_mask"] = (
                (torch.rand(self.batch, 7) < 0.8).long().index_fill(1, torch.tensor([0]), 1)
            )
        return made

    def of_signals(self) -> dict[str, Tensor]:
        """Pictures of the model's size; sounds, of which the last is shorter."""
        if self.cls.main_input_name == "pixel_values":
            side = self.fields["image_size"]
            return {"pixel_values": torch.randn(self.batch, self.fields["num_channels"], side, side)}
        length = 900 + 6 * self.seq
        made, mask = torch.randn(self.batch, length), torch.ones(self.batch, length, dtype=torch.int64)
        if not self.is_padded:
            return {"input_values": made}
        mask[-1, length - length // 3 :] = 0
        return {"input_values": made * mask, "attention_mask": mask}
