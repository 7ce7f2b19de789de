"""Qwen2 and Qwen3: what they share, on both, and what each has of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from round_trips import assert_base_and_head, assert_round_trip, first_output
from tiny import REFERENCE, find_class, load_arrays, pick, run_case, tiny_qwen2, tiny_qwen3
from torch import Tensor

import pretrained
from pretrained import AutoConfig, AutoModelForCausalLM, AutoModelForQuestionAnswering, Qwen2Config, Qwen3Config
from pretrained.errors import ConfigError, InvalidOptionError
from pretrained.models._windows import layer_windows
from pretrained.pt import masks
from pretrained.pt.kv_cache import KVCache, StaticKVCache

TINY: dict[str, Callable[..., Any]] = {"qwen2": tiny_qwen2, "qwen3": tiny_qwen3}
CASES = [
    (family, case)
    for family in TINY
    for case in sorted(json.loads((REFERENCE / f"{family}_heads/cases.json").read_text())["cases"])
]
HEADS = ("Model", "ForCausalLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
SLIDING = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}
EACH = pytest.mark.parametrize("family", sorted(TINY))
BOTH = pytest.mark.parametrize("attention", ["eager", "sdpa"])


def class_of(family: str, name: str) -> Any:
    return find_class(family, family.capitalize() + name)


def make(family: str, name: str, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return class_of(family, name)(TINY[family](**changes)).eval()


def text(batch: int = 2, length: int = 8, seed: int = 1) -> Tensor:
    return torch.randint(1, 61, (batch, length), generator=torch.Generator().manual_seed(seed))


@BOTH
@pytest.mark.parametrize(("family", "case"), CASES)
def test_heads(family: str, case: str, attention: str) -> None:
    output, expected = run_case(family, f"{family}_heads", case, attention)
    seen = load_arrays(REFERENCE / f"{family}_heads/inputs.npz")["attention_mask"].bool()
    assert expected
    for name, value in expected.items():
        found = pick(output, name)
        if name.startswith("attentions"):  # (batch, heads, queries, keys): queries that are padding are undefined
            found, value = found.transpose(1, 2), value.transpose(1, 2)
        if value.shape[:2] == seen.shape:
            found, value = found[seen], value[seen]
        torch.testing.assert_close(found, value, atol=2e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    if case.startswith("model") and "hidden_states.0" in expected:
        assert (len(output.hidden_states), len(output.attentions)) == (4, 3)
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


# Windows


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({}, (None, None, None)),
        ({"sliding_window": 5, "max_window_layers": 0}, (None, None, None)),
        ({"use_sliding_window": True, "sliding_window": 5}, (None, None, None)),
        ({"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}, (None, None, 5)),
        ({"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0}, (5, 5, 5)),
        ({"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}, (None, None, None)),
        ({"layer_types": ["full_attention"] * 3}, (None, None, None)),
        (
            {
                "use_sliding_window": True,
                "sliding_window": 4,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            },
            (4, None, 4),
        ),
    ],
)
@EACH
def test_windows_of_layers(family: str, changes: dict[str, Any], windows: tuple[int | None, ...]) -> None:
    config = TINY[family](**changes)
    assert layer_windows(config) == windows
    assert tuple(layer.window for layer in class_of(family, "Model")(config).layers) == windows


@EACH
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": ["full_attention"]}, "one type for each of num_hidden_layers=3 layers, found 1"),
        ({"layer_types": ["full_attention"] * 4}, "layers, found 4; set layer_types=None to derive them"),
        ({"layer_types": ["full"] * 3}, "layer_types holds 'full', which is not known. Known: full_attention, slid"),
        ({"layer_types": [1] * 3}, "layer_types holds 1, which is not known"),
        ({"layer_types": ["sliding_attention"] * 3}, "needs use_sliding_window=True and a sliding_window"),
        ({**SLIDING, "sliding_window": 0}, "sliding_window must be positive, found 0"),
        ({"num_key_value_heads": 4}, "key heads must divide the query heads: num_attention_heads=6"),
        ({"rope_scaling": {"type": "dynamik", "factor": 2.0}}, "Did you mean 'dynamic'"),
        ({"hidden_act": "silo"}, "Did you mean 'silu'"),
    ],
)
def test_impossible_configs_are_refused(family: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(family, "Model", **changes)


@pytest.mark.parametrize("window", [1, 2, 5, 7, 8, 100])
def test_mask_of_a_window(window: int) -> None:
    padding = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8])
    for queries, attention_mask in ((8, None), (8, padding), (3, None), (1, padding), (1, None)):
        mask, causal = masks.causal(
            attention_mask,
            query_length=queries,
            key_length=8,
            dtype=torch.float32,
            device=torch.device("cpu"),
            window=window,
        )
        keep = torch.ones(2, queries, 8, dtype=torch.bool)
        for row in range(queries):
            place = 8 - queries + row
            for key in range(8):
                keep[:, row, key] = place - window < key <= place
        if attention_mask is not None:
            keep = keep & attention_mask[:, None].bool()
        if causal:
            assert mask is None and window >= 8 and queries == 8
        elif mask is None:
            assert bool(keep.all())
        else:
            assert torch.equal((mask == 0).expand(2, 1, queries, 8)[:, 0], keep)


@EACH
@BOTH
def test_a_token_beyond_the_window_is_not_seen(family: str, attention: str) -> None:
    changes = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}
    model = make(family, "Model", num_hidden_layers=1, attn_implementation=attention, **changes)
    ids = text(1, 8)
    other = ids.clone()
    other[0, 2] = ids[0, 2] % 60 + 1
    with torch.no_grad():
        difference = (model(ids)[0] - model(other)[0]).abs().amax(-1)[0]
    assert (difference > 1e-4).tolist() == [False, False, True, True, True, False, False, False]


# Caches


@EACH
@BOTH
@pytest.mark.parametrize("windows", [{}, SLIDING, {**SLIDING, "max_window_layers": 0}])
def test_cache_equals_no_cache(family: str, windows: dict[str, Any], attention: str) -> None:
    model = make(family, "ForCausalLM", attn_implementation=attention, **windows)
    ids = text(2, 9)
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
        torch.testing.assert_close(torch.cat(pieces, 1)[seen], whole.logits[seen], atol=1e-5, rtol=0)


@EACH
@pytest.mark.parametrize("windows", [{}, SLIDING])
def test_preallocated_cache(family: str, windows: dict[str, Any]) -> None:
    model, ids = make(family, "ForCausalLM", **windows), text(2, 9)
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    cache = StaticKVCache(3, 2, 2, 16, 6)
    with torch.no_grad():
        whole = model(ids, attention_mask=mask).logits
        pieces = []
        for start, end in ((0, 5), (5, 6), (6, 9)):
            given = {"attention_mask": mask[:, :end], "past_key_values": cache}
            if start:  # the caller may say where the tokens go, as a compiled step must
                given["cache_position"] = torch.arange(start, end)
            pieces.append(model(ids[:, start:end], **given).logits)
    seen = mask.bool()
    torch.testing.assert_close(torch.cat(pieces, 1)[seen], whole[seen], atol=1e-5, rtol=0)


@EACH
def test_legacy_tuples_come_back_as_such(family: str) -> None:
    model, ids = make(family, "ForCausalLM"), text(2, 6)
    with torch.no_grad():
        whole = model(ids)
        past = model(ids[:, :4]).past_key_values.to_legacy()
        output = model(ids[:, 4:], past_key_values=past)
    assert isinstance(output.past_key_values, tuple)
    torch.testing.assert_close(output.logits, whole.logits[:, 4:], atol=1e-5, rtol=0)


# Saving and loading


@EACH
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_round_trip(family: str, name: str, tied: bool, tmp_path: Path) -> None:
    model = make(family, name, tie_word_embeddings=tied, **SLIDING)
    assert_round_trip(model, {"input_ids": text()}, tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert layer_windows(again) == (None, 3, 3)


@EACH
@pytest.mark.parametrize("name", HEADS[1:])
def test_base_and_head_read_each_other(family: str, name: str, tmp_path: Path) -> None:
    assert_base_and_head(class_of(family, "Model"), make(family, name), tmp_path)


@EACH
def test_the_head_for_answers_reads_the_other_heads(family: str, tmp_path: Path) -> None:
    causal = make(family, "ForCausalLM")
    causal.save_pretrained(tmp_path)
    model, report = AutoModelForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert model.base_model_prefix == "transformer"
    assert set(report["missing_keys"]) == {"qa_outputs.weight", "qa_outputs.bias"}
    assert list(report["unexpected_keys"]) == ["lm_head.weight"]
    for name, value in model.transformer.named_parameters():
        assert torch.equal(value, causal.model.get_parameter(name)), name
    model.save_pretrained(tmp_path / "answers")
    again = type(model).from_pretrained(tmp_path / "answers")
    ids = {"input_ids": text()}
    assert torch.equal(first_output(again, ids), first_output(model, ids))


@EACH
def test_tied_and_untied(family: str, tmp_path: Path) -> None:
    tied, untied = make(family, "ForCausalLM", tie_word_embeddings=True), make(family, "ForCausalLM")
    tied.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight
    assert untied.get_output_embeddings() is untied.lm_head
    layer = torch.nn.Linear(24, 61, bias=False)
    untied.set_output_embeddings(layer)
    assert untied.lm_head is layer


def test_names_of_parameters() -> None:
    two = set(dict(make("qwen2", "ForCausalLM").named_parameters()))
    three = set(dict(make("qwen3", "ForCausalLM").named_parameters()))
    biases = {f"model.layers.{i}.self_attn.{p}_proj.bias" for i in range(3) for p in "qkv"}
    norms = {f"model.layers.{i}.self_attn.{p}_norm.weight" for i in range(3) for p in "qk"}
    assert two - three == biases
    assert three - two == norms
    biased = set(dict(make("qwen3", "ForCausalLM", attention_bias=True).named_parameters()))
    assert biased - three == biases | {f"model.layers.{i}.self_attn.o_proj.bias" for i in range(3)}
    assert "transformer.norm.weight" in dict(make("qwen2", "ForQuestionAnswering").named_parameters())
    assert [name for name, _ in make("qwen3", "Model").named_buffers()] == ["rotary_emb.inv_freq"]


@EACH
def test_every_auto_name_is_a_class(family: str) -> None:
    declared = pretrained.auto.registry._family(family)
    for auto, place in declared.pt.items():
        cls = find_class(family, place.split(":")[1])
        assert cls.base_model_prefix == ("transformer" if auto == "AutoModelForQuestionAnswering" else "model")


def test_sizes_of_heads() -> None:
    assert Qwen2Config(hidden_size=24, num_attention_heads=6, num_key_value_heads=None).head_dim == 4
    assert Qwen2Config(hidden_size=24, num_attention_heads=6, num_key_value_heads=None).num_key_value_heads == 6
    assert Qwen3Config(hidden_size=24, num_attention_heads=6).head_dim == 128
    assert make("qwen2", "Model", head_dim=8).layers[0].self_attn.q_proj.weight.shape == (48, 24)
    with pytest.raises(ConfigError, match="config key 'sliding_window' must be positive"):
        Qwen3Config.from_dict({"sliding_window": 0})


@EACH
def test_both_spellings_of_rope(family: str) -> None:
    cls = type(TINY[family]())
    old = cls.from_dict({"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}})
    new = cls.from_dict({"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}})
    assert (old.rope_theta, old.rope_scaling) == (500.0, {"type": "linear", "factor": 2.0})
    assert (new.rope_theta, new.rope_scaling) == (500.0, {"rope_type": "linear", "factor": 2.0})


# Calls


@EACH
@BOTH
def test_left_padding_changes_nothing(family: str, attention: str) -> None:
    model, ids = make(family, "ForCausalLM", attn_implementation=attention, **SLIDING), text(2, 6)
    padded = torch.cat((torch.zeros(2, 3, dtype=torch.int64), ids), 1)
    mask = torch.tensor([[0] * 3 + [1] * 6] * 2)
    with torch.no_grad():
        long = model(padded, attention_mask=mask).logits
        torch.testing.assert_close(long[:, 3:], model(ids).logits, atol=2e-5, rtol=0)
    assert torch.isfinite(long).all()


@EACH
def test_classification_uses_the_last_token_on_either_side(family: str) -> None:
    model = make(family, "ForSequenceClassification", num_labels=3)
    ids = text(1, 5)
    pad = torch.zeros(1, 2, dtype=torch.int64)
    mask = torch.ones(1, 5, dtype=torch.int64)
    with torch.no_grad():
        plain = model(ids).logits
        right = model(torch.cat((ids, pad), 1), attention_mask=torch.cat((mask, pad), 1)).logits
        left = model(torch.cat((pad, ids), 1), attention_mask=torch.cat((pad, mask), 1)).logits
    torch.testing.assert_close(right, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(left, plain, atol=1e-5, rtol=0)
    with pytest.warns(UserWarning, match="padding cannot be seen in inputs_embeds"):
        found = model(inputs_embeds=model.model.embed_tokens(ids)).logits
    torch.testing.assert_close(found, plain)
    model.config.pad_token_id = None
    torch.testing.assert_close(model(ids).logits, plain)
    with pytest.raises(ValueError, match="to find where each row ends"):
        model(text(2, 5))


@EACH
def test_inputs_embeds_and_ids_are_alternatives(family: str) -> None:
    model, ids = make(family, "Model"), text()
    with torch.no_grad():
        torch.testing.assert_close(model(inputs_embeds=model.embed_tokens(ids))[0], model(ids)[0])
    for given in ({}, {"input_ids": ids, "inputs_embeds": model.embed_tokens(ids)}):
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            model(**given)


@EACH
def test_return_dict_false_is_the_tuple_of_the_same(family: str) -> None:
    model, ids = make(family, "ForCausalLM"), text()
    with torch.no_grad():
        output = model(ids, labels=ids, use_cache=False)
        plain = model(ids, labels=ids, use_cache=False, return_dict=False)
    assert isinstance(plain, tuple)
    assert len(plain) == 2
    assert torch.equal(plain[1], output.logits)


# Training


@EACH
@BOTH
def test_training_lowers_the_loss(family: str, attention: str) -> None:
    model, ids = make(family, "ForCausalLM", attn_implementation=attention, **SLIDING).train(), text()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    history = []
    for _ in range(8):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] * 0.8


@EACH
def test_half_precision_keeps_the_frequencies(family: str) -> None:
    model = make(family, "ForCausalLM", **SLIDING)
    before = model.model.rotary_emb.inv_freq.clone()
    model.to(torch.bfloat16)
    assert torch.equal(model.model.rotary_emb.inv_freq, before)
    assert model(text()).logits.dtype == torch.bfloat16


@EACH
def test_export(family: str) -> None:
    model, ids = make(family, "Model", attn_implementation="sdpa", **SLIDING), text()
    exported = torch.export.export(model, (ids,), {"attention_mask": torch.ones_like(ids)})
    mask = torch.tensor([[1] * 8, [0] * 3 + [1] * 5])
    found, expected = exported.module()(ids, attention_mask=mask), model(ids, attention_mask=mask)
    torch.testing.assert_close(found["last_hidden_state"], expected.last_hidden_state)


@EACH
def test_checkpointing_gives_the_same_gradients(family: str) -> None:
    model, ids = make(family, "ForCausalLM", **SLIDING).train(), text()
    model(ids, labels=ids, use_cache=False).loss.backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    output = model(ids, labels=ids)
    assert output.past_key_values is None
    output.loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name])


@EACH
@pytest.mark.parametrize("tied", [False, True])
def test_the_vocabulary_is_resized(family: str, tied: bool, tmp_path: Path) -> None:
    model, ids = make(family, "ForCausalLM", tie_word_embeddings=tied), text()
    with torch.no_grad():
        before = model(ids).logits
        model.resize_token_embeddings(70)
        torch.testing.assert_close(model(ids).logits[..., :61], before)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert_round_trip(model, {"input_ids": ids}, tmp_path)


@EACH
def test_a_group_of_heads_goes_together_or_stays(family: str) -> None:
    model, ids = make(family, "ForCausalLM"), text()
    with torch.no_grad():
        before = model(ids).logits
        with pytest.raises(InvalidOptionError, match=r"every 3 heads share .* heads \[5\] would be left over"):
            model.prune_heads({0: [0, 1, 2], 1: [3, 4]})
        assert torch.equal(model(ids).logits, before) and not model.config.pruned_heads
        model.prune_heads({0: [0, 1, 2]})
        assert model.model.layers[0].self_attn.k_proj.weight.shape == (6, 24)
        assert not torch.equal(model(ids).logits, before)
