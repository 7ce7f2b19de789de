"""Decoders after Llama and Qwen: what they share, on all, and what each has of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import REFERENCE, TINY, find_class, load_arrays, pick, run_case
from torch import Tensor

from pretrained.auto import registry
from pretrained.errors import ConfigError
from pretrained.pt import masks
from pretrained.pt.kv_cache import KVCache, StaticKVCache

FAMILIES = ("mistral", "phi3", "gemma", "gemma2", "gemma3_text", "mixtral", "qwen3_moe")
# Where the reference's cases are, if not under the model type.
FOLDER: dict[str, str] = {"gemma3_text": "gemma3"}
CASES = [
    (family, case)
    for family in FAMILIES
    for case in sorted(json.loads((REFERENCE / f"{FOLDER.get(family, family)}_heads/cases.json").read_text())["cases"])
]
EACH = pytest.mark.parametrize("family", FAMILIES)
BOTH = pytest.mark.parametrize("attention", ["eager", "sdpa"])
VOCAB = 61


def class_of(family: str, auto: str) -> Any:
    declared = registry._family(family)
    return registry._import(family, declared.pt[auto])


def make(family: str, auto: str = "AutoModelForCausalLM", **changes: Any) -> Any:
    """A model whose scales are not all one."""
    torch.manual_seed(0)
    model = class_of(family, auto)(TINY[family](**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def text(batch: int = 2, length: int = 9, seed: int = 1) -> Tensor:
    return torch.randint(1, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def supports(family: str, attention: str) -> bool:
    return attention == "eager" or class_of(family, "AutoModel")._supports_sdpa


@BOTH
@pytest.mark.parametrize(("family", "case"), CASES)
def test_heads(family: str, case: str, attention: str) -> None:
    if not supports(family, attention):
        attention = "eager"
    output, expected = run_case(registry.FOLDERS[family], f"{FOLDER.get(family, family)}_heads", case, attention)
    seen = load_arrays(REFERENCE / f"{FOLDER.get(family, family)}_heads/inputs.npz")["attention_mask"].bool()
    assert expected and set(output) >= {name.partition(".")[0] for name in expected}
    for name, value in expected.items():
        found = pick(output, name)
        if name.startswith("attentions"):  # (batch, heads, queries, keys): queries that are padding are undefined
            found, value = found.transpose(1, 2), value.transpose(1, 2)
        if name.startswith("router_logits"):
            found, value = found.unflatten(0, seen.shape), value.unflatten(0, seen.shape)
        if value.shape[:2] == seen.shape:
            found, value = found[seen], value[seen]
        torch.testing.assert_close(found, value, atol=2e-5, rtol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


# Caches


@EACH
@BOTH
def test_cache_equals_no_cache(family: str, attention: str) -> None:
    if not supports(family, attention):
        attention = "eager"
    model, ids = make(family, attn_implementation=attention), text()
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    for attention_mask in (None, mask):
        with torch.no_grad():
            whole = model(ids, attention_mask=attention_mask, use_cache=False)
            assert whole.past_key_values is None
            past, pieces = None, []
            for start, end in ((0, 4), (4, 5), (5, 8), (8, 9)):
                part = None if attention_mask is None else attention_mask[:, :end]
                output = model(ids[:, start:end], attention_mask=part, past_key_values=past)
                past = output.past_key_values
                pieces.append(output.logits)
        seen = mask.bool() if attention_mask is not None else torch.ones_like(mask).bool()
        assert isinstance(past, KVCache)
        torch.testing.assert_close(torch.cat(pieces, 1)[seen], whole.logits[seen], atol=1e-5, rtol=1e-5)


@EACH
def test_preallocated_cache(family: str) -> None:
    model, ids = make(family), text()
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    config, attention = model.config, model.model.layers[0].self_attn
    cache = StaticKVCache(config.num_hidden_layers, 2, config.num_key_value_heads, 16, attention.head_dim)
    with torch.no_grad():
        whole = model(ids, attention_mask=mask).logits
        pieces = []
        for start, end in ((0, 5), (5, 6), (6, 9)):
            given = {"attention_mask": mask[:, :end], "past_key_values": cache}
            if start:  # the caller may say where the tokens go, as a compiled step must
                given["cache_position"] = torch.arange(start, end)
            pieces.append(model(ids[:, start:end], **given).logits)
    seen = mask.bool()
    torch.testing.assert_close(torch.cat(pieces, 1)[seen], whole[seen], atol=1e-5, rtol=1e-5)


@EACH
def test_legacy_tuples_come_back_as_such(family: str) -> None:
    model, ids = make(family), text(2, 6)
    with torch.no_grad():
        whole = model(ids)
        past = model(ids[:, :4]).past_key_values.to_legacy()
        output = model(ids[:, 4:], past_key_values=past)
    assert isinstance(output.past_key_values, tuple)
    torch.testing.assert_close(output.logits, whole.logits[:, 4:], atol=1e-5, rtol=1e-5)


@EACH
def test_inputs_of_a_step(family: str) -> None:
    model, ids = make(family), text(2, 7)
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    with torch.no_grad():
        whole = model(ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits
        first = model(**model.prepare_inputs_for_generation(ids[:, :6], attention_mask=mask[:, :6]))
        step = model.prepare_inputs_for_generation(
            ids, past_key_values=first.past_key_values, attention_mask=mask, use_cache=True
        )
        assert step["input_ids"].shape == (2, 1)
        torch.testing.assert_close(model(**step).logits[:, -1], whole[:, -1], atol=1e-5, rtol=1e-5)


# Calls


@EACH
@BOTH
def test_left_padding_changes_nothing(family: str, attention: str) -> None:
    if not supports(family, attention):
        attention = "eager"
    model, ids = make(family, attn_implementation=attention), text(2, 6)
    padded = torch.cat((torch.zeros(2, 3, dtype=torch.int64), ids), 1)
    mask = torch.tensor([[0] * 3 + [1] * 6] * 2)
    with torch.no_grad():
        long = model(padded, attention_mask=mask).logits
        torch.testing.assert_close(long[:, 3:], model(ids).logits, atol=2e-5, rtol=2e-5)
    assert torch.isfinite(long).all()


@EACH
def test_inputs_embeds_and_ids_are_alternatives(family: str) -> None:
    model, ids = make(family), text()
    with torch.no_grad():
        found = model(inputs_embeds=model.get_input_embeddings()(ids)).logits
        torch.testing.assert_close(found, model(ids).logits)
    for given in ({}, {"input_ids": ids, "inputs_embeds": torch.zeros(2, 9, 24)}):
        with pytest.raises(ValueError, match="give either input_ids or inputs_embeds"):
            model(**given)


@EACH
def test_half_precision_keeps_the_frequencies(family: str) -> None:
    model = make(family)
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "inv_freq" in name}
    model.to(torch.bfloat16)
    after = dict(model.named_buffers())
    assert before and all(torch.equal(after[name], value) for name, value in before.items())
    assert model(text()).logits.dtype == torch.bfloat16


@EACH
def test_export(family: str) -> None:
    model, ids = make(family, "AutoModel"), text()
    exported = torch.export.export(model, (ids,), {"attention_mask": torch.ones_like(ids)})
    mask = torch.tensor([[1] * 9, [0] * 3 + [1] * 6])
    found, expected = exported.module()(ids, attention_mask=mask), model(ids, attention_mask=mask)
    seen = mask.bool()
    torch.testing.assert_close(found["last_hidden_state"][seen], expected.last_hidden_state[seen], atol=1e-5, rtol=1e-5)


@EACH
def test_every_auto_name_is_a_class(family: str) -> None:
    for place in registry._family(family).pt.values():
        name = place.split(":")[1]
        assert find_class(registry.FOLDERS[family], name) is getattr(__import__("pretrained"), name)


# Configs

IMPOSSIBLE = [
    *[
        (family, {"num_key_value_heads": 4}, "key heads must divide the query heads: num_attention")
        for family in FAMILIES
    ],
    ("mistral", {"rope_scaling": {"type": "dynamik", "factor": 2.0}}, "Did you mean 'dynamic'"),
    ("mistral", {"hidden_act": "silo"}, "Did you mean 'silu'"),
    ("gemma", {"use_bidirectional_attention": True}, "is not supported by Gemma; Gemma 3 has it"),
    ("gemma2", {"use_bidirectional_attention": True}, "is not supported by Gemma 2; Gemma 3 has it"),
    ("gemma2", {"layer_types": ["full_attention"]}, "one type for each of num_hidden_layers=3 layers, found 1"),
    ("gemma2", {"sliding_window": None}, "asks for sliding_attention, which needs a sliding_window"),
    ("gemma3_text", {"layer_types": ["full"] * 3}, "layer_types holds 'full', which is not known"),
    ("gemma3_text", {"attn_logit_softcapping": 2.0}, "attn_logit_softcapping=2.0 is not supported: Gemma 3"),
    ("gemma3_text", {"rope_parameters": {"rope_theta": 3.0}}, "has full_attention and sliding_attention .* rope_theta"),
]


@pytest.mark.parametrize(("family", "changes", "message"), IMPOSSIBLE)
def test_impossible_configs_are_refused(family: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(family, "AutoModel", **changes)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gemma"])
def test_a_window_is_positive(family: str) -> None:
    with pytest.raises(ConfigError, match="config key 'sliding_window' must be positive"):
        type(TINY[family]()).from_dict({"sliding_window": 0})


# Windows


@pytest.mark.parametrize("window", [None, 1, 3, 7, 8, 100])
def test_mask_of_a_window_both_ways(window: int | None) -> None:
    padding = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8])
    for queries, attention_mask, positions in (
        (8, None, None),
        (8, padding, None),
        (3, padding, None),
        (3, None, torch.tensor([2, 3, 4])),
    ):
        mask, causal = masks.causal(
            attention_mask,
            query_length=queries,
            key_length=8,
            dtype=torch.float32,
            device=torch.device("cpu"),
            positions=positions,
            window=window,
            both_ways=True,
        )
        assert not causal
        own = torch.arange(8 - queries, 8) if positions is None else positions
        keep = (torch.arange(8) <= own.max()).expand(2, queries, 8).clone()
        if window is not None:
            keep &= (torch.arange(8) - own[:, None]).abs() < window
        if attention_mask is not None:
            keep &= attention_mask[:, None].bool()
        if mask is None:
            assert bool(keep.all())
        else:
            assert torch.equal((mask == 0).expand(2, 1, queries, 8)[:, 0], keep)


@BOTH
def test_a_token_beyond_the_window_is_not_seen(attention: str) -> None:
    model = make("mistral", "AutoModel", num_hidden_layers=1, sliding_window=3, attn_implementation=attention)
    ids = text(1, 8)
    other = ids.clone()
    other[0, 2] = ids[0, 2] % 60 + 1
    with torch.no_grad():
        difference = (model(ids)[0] - model(other)[0]).abs().amax(-1)[0]
    assert (difference > 1e-4).tolist() == [False, False, True, True, True, False, False, False]


def test_sizes_of_heads() -> None:
    sizes = {"hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": None, "head_dim": None}
    config = TINY["mistral"](**sizes)
    assert (config.head_dim, config.num_key_value_heads) == (4, 6)
    assert config.to_dict()["sliding_window"] == 4


def test_both_spellings_of_rope(tmp_path: Path) -> None:
    cls = type(TINY["mistral"]())
    old = cls.from_dict({"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}})
    new = cls.from_dict({"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}})
    assert (old.rope_theta, old.rope_scaling) == (500.0, {"type": "linear", "factor": 2.0})
    assert (new.rope_theta, new.rope_scaling) == (500.0, {"rope_type": "linear", "factor": 2.0})
    new.save_pretrained(tmp_path)
    assert cls.from_pretrained(tmp_path).rope_scaling == new.rope_scaling
