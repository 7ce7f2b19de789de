"""The config of a model, from what its GGUF file says of itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..files import place
from ..tensors import Container
from .gguf import GgufFile
from .gguf_header import Skipped
from .gguf_names import ARCHITECTURES

__all__ = ["config_of"]

logger = logging.getLogger(__name__)

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_IDS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}

# What changes the maths and no config of these families can say, and the values that say nothing.
_UNKNOWN_MATHS: Mapping[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "logit_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "attention.scale": (0.0,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.causal": (True,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "use_parallel_residual": (False,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "rope.scaling.yarn_ext_factor": (1.0,),
}
_MAX_FACTORS = 4096
# Factors of rotary frequencies are recognised as those of Llama 3.1 and its successors within this.
_SAME = 1e-4
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def config_of(containers: Iterable[Container]) -> dict[str, Any]:
    """The content of a config.json for the model in these files, the parts of one GGUF in order.

    Raises:
        ConfigError: the architecture is missing or not known; a key of the metadata is missing, of a wrong type, out of
            range, or asks for what the family cannot do. `key` is the key of the metadata.
    """
    facts = _Facts([part for part in containers if isinstance(part, GgufFile)])
    kind = facts.fields.get("general.type", "model")
    if kind != "model":
        raise facts.error("general.type", f"is {kind!r:.80}: this is no model but a part of one")
    for key, harmless in _UNKNOWN_MATHS.items():
        if facts.get(key) not in (None, *harmless):
            raise facts.error(facts.full(key), f"is {facts.get(key)!r:.80}, which is not supported")
    heads = facts.count("attention.head_count")
    hidden, layers = facts.count("embedding_length"), facts.count("block_count")
    if layers > len(facts.shapes):
        raise facts.error(facts.full("block_count"), f"is {layers}, and there are {len(facts.shapes)} tensors")
    head_dim = facts.count("attention.key_length", hidden // heads)
    if facts.count("attention.value_length", head_dim) != head_dim:
        raise facts.error(facts.full("attention.value_length"), f"should be the length of a key, {head_dim}")
    if facts.count("rope.dimension_count", head_dim) != head_dim:
        raise facts.error(facts.full("rope.dimension_count"), f"should be the length of a key, {head_dim}")
    config = {
        "model_type": facts.architecture,
        "architectures": [_CLASSES[facts.architecture]],
        "vocab_size": facts.vocab_size(),
        "hidden_size": hidden,
        "intermediate_size": facts.count("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": facts.count("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": facts.count("context_length"),
        "rms_norm_eps": facts.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": facts.number("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(facts, head_dim),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in facts.shapes,
        "dtype": "float32",
        **facts.token_ids(),
    }
    if facts.architecture != "qwen2":  # whose queries, keys and values always have a bias
        config["attention_bias"] = "blk.0.attn_q.bias" in facts.shapes
    if facts.architecture == "llama":
        config["mlp_bias"] = "blk.0.ffn_down.bias" in facts.shapes
    _warn_of_window(facts)
    return config


class _Facts:
    """The metadata of a model, with a check for each kind of value."""

    def __init__(self, parts: Sequence[GgufFile]) -> None:
        self.parts = parts
        self.file: Path = parts[0].path
        self.fields: Mapping[str, Any] = parts[0].fields
        self.shapes = {name: entry.shape for part in parts for name, entry in part.entries.items()}
        self.architecture: str = self.fields.get("general.architecture")  # type: ignore[assignment]
        if not isinstance(self.architecture, str) or self.architecture not in ARCHITECTURES:
            found = "is missing" if self.architecture is None else f"is {self.architecture!r:.80}"
            raise self.error("general.architecture", f"{found}; known: {', '.join(ARCHITECTURES)}. Or pass config=…")

    def error(self, key: str, reason: str) -> ConfigError:
        return ConfigError(f"{place(self.file)}: {key} {reason}", path=self.file, key=key, reason=f"{key} {reason}")

    def full(self, key: str) -> str:
        return f"{self.architecture}.{key}"

    def get(self, key: str) -> Any:
        """The value that the architecture has under this key; None if it has none."""
        return self.fields.get(self.full(key))

    def count(self, key: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.error(self.full(key), "is missing")
        if type(value) is not int or value < 1:
            raise self.error(self.full(key), f"should be a positive whole number, and is {value!r:.80}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        value = self.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.error(self.full(key), "is missing")
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.error(self.full(key), f"should be a positive number, and is {value!r:.80}")
        return float(value)

    def vocab_size(self) -> int:
        """Rows of the embeddings: what is said, else the tokens that are listed, else the rows there are."""
        tokens = self.fields.get("tokenizer.ggml.tokens")
        listed = tokens.num if isinstance(tokens, Skipped) and tokens.what == "strings" else 0
        rows = self.shapes.get("token_embd.weight") or (None,)
        return self.count("vocab_size", listed or rows[0])

    def token_ids(self) -> dict[str, int]:
        """The ids of special tokens that are known."""
        found = {}
        for name, short in _IDS.items():
            key = f"tokenizer.ggml.{short}_token_id"
            value = self.fields.get(key)
            if value is None or value == 2**32 - 1:  # llama.cpp's way to say that there is none
                continue
            if type(value) is not int or value < 0:
                raise self.error(key, f"should be the number of a token, and is {value!r:.80}")
            found[name] = value
        return found


def _rope_scaling(facts: _Facts, head_dim: int) -> dict[str, Any] | None:
    """How rotary frequencies are stretched, as `rope_scaling` of a config says it."""
    if longrope := [name for name in facts.shapes if name.startswith(("rope_factors_long", "rope_factors_short"))]:
        raise facts.error(longrope[0], "is a tensor of longrope, which no config of this architecture has")
    kind = facts.get("rope.scaling.type")
    if kind not in (None, "none", "linear", "yarn"):
        raise facts.error(facts.full("rope.scaling.type"), f"is {kind!r:.80}; known: none, linear, yarn")
    # Without a type it is linear, and 0 says that there is none. The second key is an older name of the first.
    keys = [key for key in ("rope.scaling.factor", "rope.scale_linear") if facts.get(key) not in (None, 0)]
    factor = facts.number(keys[0]) if keys and kind != "none" else 1.0
    magnitude = facts.number("rope.scaling.attn_factor", 1.0) * facts.number("rope.scaling.yarn_attn_factor", 1.0)
    has_table = "rope_freqs.weight" in facts.shapes
    if kind == "yarn":
        if has_table:
            raise facts.error("rope_freqs.weight", "is there beside a scaling of type yarn; only one of them can be")
        return _yarn(facts, factor, magnitude)
    if magnitude != 1.0:
        raise facts.error(facts.full("rope.scaling.attn_factor"), f"is {magnitude}, which needs the scaling type yarn")
    if has_table:
        return _from_table(facts, head_dim, factor)
    return {"rope_type": "linear", "factor": factor} if factor != 1.0 else None


def _yarn(facts: _Facts, factor: float, magnitude: float) -> dict[str, Any]:
    trained = facts.count("rope.scaling.original_context_length", facts.count("context_length"))
    scaling: dict[str, Any] = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained}
    for name in ("beta_fast", "beta_slow"):
        if facts.get(f"rope.scaling.yarn_{name}") is not None:
            scaling[name] = facts.number(f"rope.scaling.yarn_{name}")
    if magnitude != 1.0:  # llama.cpp multiplies what YaRN gives, a config replaces it
        scaling["attention_factor"] = magnitude * (0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0)
    return scaling


def _from_table(facts: _Facts, head_dim: int, factor: float) -> dict[str, Any] | None:
    """What divides each frequency, from a tensor: the settings of Llama 3 where it is theirs, else a list as it is."""
    part, entry = next((p, p.entries["rope_freqs.weight"]) for p in facts.parts if "rope_freqs.weight" in p.entries)
    if entry.shape != (head_dim // 2,) or head_dim // 2 > _MAX_FACTORS:
        raise facts.error("rope_freqs.weight", f"has the shape {list(entry.shape)}, where {head_dim // 2} are expected")
    factors = [float(value) * factor for value in part.read(entry)]
    if not all(0 < value < math.inf for value in factors):
        raise facts.error("rope_freqs.weight", "holds a factor that is not positive")
    if all(value == 1.0 for value in factors):
        return None
    scaling = {"rope_type": "llama3", "factor": float(f"{max(factors):.6g}"), **_LLAMA3}
    expected = _llama3_factors(scaling, head_dim, facts.number("rope.freq_base", 10000.0))
    if all(abs(a - b) <= _SAME * b for a, b in zip(factors, expected, strict=True)):
        return scaling
    # One list for short sequences and the same for long ones, without a change of the magnitude: just a division.
    return {
        "rope_type": "longrope",
        "short_factor": factors,
        "long_factor": factors,
        "attention_factor": 1.0,
        "original_max_position_embeddings": facts.count("context_length"),
    }


def _llama3_factors(scaling: Mapping[str, Any], head_dim: int, theta: float) -> list[float]:
    """What Llama 3 divides each frequency by ("The Llama 3 Herd of Models", arXiv 2407.21783)."""
    low, high, trained = _LLAMA3.values()
    found = []
    for i in range(head_dim // 2):
        turns = trained / (2 * math.pi * theta ** (2 * i / head_dim))  # over the length that it was trained with
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        found.append(1 / ((1 - kept) / scaling["factor"] + kept))
    return found


def _warn_of_window(facts: _Facts) -> None:
    window = facts.get("attention.sliding_window")
    if type(window) is int and 0 < window < facts.count("context_length"):
        logger.warning(
            "%s attends to the last %d positions only; the model built here attends to all of them", facts.file, window
        )
