"""Calls of generate that ours and the reference are compared on. Nothing here imports either: `api` is one of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

EOS, PAD = 7, 0

# name → (which prompt, keywords). Prompts: "batch" of three rows, "padded" ones on the left, "one" row, "embeds".
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy": ("batch", {}),
    "greedy-padded": ("padded", {}),
    "greedy-eos": ("batch", {"eos_token_id": [EOS, 11, 23, 31, 40, 41]}),
    "greedy-no-cache": ("padded", {"use_cache": False}),
    "greedy-min-length": ("batch", {"eos_token_id": list(range(5, 40)), "min_new_tokens": 4}),
    "embeds": ("embeds", {}),
    "beam": ("batch", {"num_beams": 4}),
    "beam-padded": ("padded", {"num_beams": 3, "num_return_sequences": 2}),
    "beam-eos": ("batch", {"num_beams": 3, "eos_token_id": [EOS, 11, 23], "length_penalty": 0.5}),
    "beam-early": ("batch", {"num_beams": 3, "eos_token_id": list(range(5, 20)), "early_stopping": True}),
    "beam-never": (
        "batch",
        {"num_beams": 3, "eos_token_id": [EOS, 11, 23], "early_stopping": "never", "length_penalty": 2.0},
    ),
    "beam-short": ("one", {"num_beams": 4, "eos_token_id": [EOS, 9, 13], "length_penalty": -1.0}),
    "repetition": ("padded", {"repetition_penalty": 1.7}),
    "no-repeat": ("batch", {"no_repeat_ngram_size": 2, "max_new_tokens": 16}),
    "no-repeat-beam": ("batch", {"no_repeat_ngram_size": 2, "num_beams": 3}),
    "encoder-repetition": ("batch", {"encoder_repetition_penalty": 1.5, "encoder_no_repeat_ngram_size": 2}),
    "bad-words": ("batch", {"bad_words_ids": [[5], [9, 12], [40], [41, 3], [20]]}),
    "bias": ("batch", {"sequence_bias": [[[5], 2.0], [[9, 12], -3.0], [[40], 3.5], [[40, 41], 9.0]]}),
    "suppress": ("batch", {"suppress_tokens": list(range(4, 25)), "begin_suppress_tokens": list(range(25, 45))}),
    "forced": ("batch", {"forced_eos_token_id": EOS, "eos_token_id": EOS}),
    "forced-bos": ("batch", {"forced_bos_token_id": 12, "num_beams": 2}),
    "decay": ("batch", {"exponential_decay_length_penalty": [3, 1.6], "eos_token_id": [EOS, 9]}),
    "renormalise": ("batch", {"renormalize_logits": True, "num_beams": 2, "remove_invalid_values": True}),
    "guidance": ("batch", {"guidance_scale": 1.8}),
    "guidance-negative": ("one", {"guidance_scale": 1.5, "negative": True}),
    "watermark": ("batch", {"watermarking_config": {"bias": 3.0, "greenlist_ratio": 0.4}}),
    "watermark-self": (
        "batch",
        {"watermarking_config": {"seeding_scheme": "selfhash", "context_width": 2, "bias": 3.0}},
    ),
    "prefix": ("batch", {"prefix": True}),
    "prefix-beam": ("batch", {"prefix": True, "num_beams": 3}),
    "custom": ("batch", {"custom": True}),
    "assisted": ("one", {"assistant": True}),
    "assisted-eos": ("one", {"assistant": True, "eos_token_id": [EOS, 11, 23, 31]}),
    "lookup": ("one", {"prompt_lookup_num_tokens": 3}),
    "max-length": ("batch", {"max_length": 11, "max_new_tokens": None}),
    "chunked": ("one", {"prefill_chunk_size": 2}),
    "sample": ("batch", {"do_sample": True}),
    "sample-return": ("batch", {"do_sample": True, "num_return_sequences": 3, "top_k": 0}),
    "sample-top": ("padded", {"do_sample": True, "top_k": 12, "top_p": 0.8, "temperature": 0.7}),
    "sample-min-p": ("batch", {"do_sample": True, "top_k": 0, "min_p": 0.1}),
    "sample-typical": ("batch", {"do_sample": True, "top_k": 0, "typical_p": 0.6}),
    "sample-cutoffs": ("batch", {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.02, "eta_cutoff": 0.03}),
    "sample-top-h": ("batch", {"do_sample": True, "top_k": 0, "top_h": 0.5}),
    "sample-synthid": ("batch", {"do_sample": True, "watermarking_config": {"ngram_len": 3, "keys": [5, 9, 2]}}),
    "beam-sample": ("batch", {"do_sample": True, "num_beams": 3, "top_k": 9, "eos_token_id": [EOS, 11]}),
}

# Modes that left transformers after 4.49, where they are compared with 4.46.
OLD_CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "groups": ("batch", {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7}),
    "groups-eos": (
        "batch",
        {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 1.5, "eos_token_id": [EOS, 11, 23]},
    ),
    "groups-return": (
        "batch",
        {
            "num_beams": 4,
            "num_beam_groups": 4,
            "diversity_penalty": 2.0,
            "num_return_sequences": 3,
            "early_stopping": True,
            "eos_token_id": list(range(5, 20)),
        },
    ),
    "contrastive": ("batch", {"penalty_alpha": 0.6, "top_k": 4}),
    "contrastive-padded": ("padded", {"penalty_alpha": 0.4, "top_k": 5}),
    "contrastive-eos": ("batch", {"penalty_alpha": 0.5, "top_k": 6, "eos_token_id": [EOS, 11, 23, 31]}),
}

ALSO_SCORES = ("greedy", "greedy-eos", "beam", "beam-eos", "beam-sample", "sample-top", "assisted", "groups-eos")


def skipped(name: str, is_crossed: bool) -> bool:
    """Whether a case makes no sense of an encoder–decoder, or only of one."""
    if is_crossed:
        return name.startswith(("guidance", "chunked", "embeds", "contrastive-padded"))
    return name in ("forced-bos",)


def prompt_for(kind: str, vocab: int, is_crossed: bool, seed: int = 0) -> dict[str, Tensor]:
    """`input_ids` and, where there is padding, `attention_mask`."""
    drawn = np.random.default_rng(seed)
    ids = torch.from_numpy(drawn.integers(42, vocab, (1 if kind == "one" else 3, 6)))
    if kind != "padded":
        return {"input_ids": ids}
    mask = torch.ones_like(ids)
    for row, length in ((0, 2), (1, 1)):
        mask[row, slice(-length, None) if is_crossed else slice(length)] = 0
    return {"input_ids": ids.masked_fill(mask == 0, PAD), "attention_mask": mask}


def boost(api: Any) -> Any:
    """A processor and a criterion of the caller's own."""

    class Boost(api.LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            scores = scores.clone()
            scores[:, 5 + input_ids.shape[1] % 7] += 4.0
            return scores

    class Five(api.StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
            return input_ids[:, -1] == 5 + (input_ids.shape[1] - 1) % 7

    return {
        "logits_processor": api.LogitsProcessorList([Boost()]),
        "stopping_criteria": api.StoppingCriteriaList([Five()]),
    }


def allowed(row: int, text: Tensor) -> list[int]:
    """Every third id, which ones depends on the row and on how long the text is."""
    return list(range(3 + (row + len(text)) % 3, 50, 3))


def run(api: Any, model: Any, assistant: Any, name: str, old: bool = False) -> dict[str, Tensor]:
    """`sequences` of one case, and what was asked for beside them."""
    kind, given = {**CASES, **OLD_CASES}[name]
    keywords = {"max_new_tokens": 10, "pad_token_id": PAD, **given}
    inputs: dict[str, Any] = prompt_for(kind, model.config.vocab_size, model.config.is_encoder_decoder)
    if keywords.pop("prefix", False):
        keywords["prefix_allowed_tokens_fn"] = allowed
    if keywords.pop("custom", False):
        keywords |= boost(api)
    if keywords.pop("assistant", False):
        keywords["assistant_model"] = assistant
    if keywords.pop("negative", False):
        keywords["negative_prompt_ids"] = torch.tensor([[44, 45, 46]])
    if "ngram_len" in (mark := keywords.get("watermarking_config") or {}):
        keywords["watermarking_config"] = api.SynthIDTextWatermarkingConfig(**mark)
    if "roberta" in model.config.model_type and api.__name__ == "transformers":
        # 5.23 counts positions from 0 here, where RoBERTa is trained with the padding's number and more.
        mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
        inputs["position_ids"] = mask.cumsum(-1) * mask + model.config.pad_token_id
    if kind == "embeds":
        inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
    if name in ALSO_SCORES:
        keywords |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": not old}
    torch.manual_seed(11)
    output = model.generate(**inputs, **{k: v for k, v in keywords.items() if v is not None})
    if name not in ALSO_SCORES:
        return {"sequences": output}
    beams = {"beam_indices": output.beam_indices} if "beam" in name else {}
    found = {"sequences": output.sequences, "scores": torch.stack(output.scores)}
    if "groups" not in name:
        found["chosen"] = model.compute_transition_scores(output.sequences, output.scores, **beams)
    if "beam" in name or "groups" in name:
        found["final"] = output.sequences_scores
    return found


def draw_weights(model: Any, seed: int) -> None:
    """Weights under which a text goes on in more than one way; drawn by numpy, whose numbers stay the same."""
    drawn = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                numbers = drawn.standard_normal(tuple(parameter.shape)) * 1.3 * parameter.shape[-1] ** -0.5
                parameter.copy_(torch.from_numpy(numbers))
