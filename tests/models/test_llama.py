from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from tiny import REFERENCE, find_class, load_arrays, pick, run_case, tiny_llama
from torch import Tensor

from pretrained.errors import ConfigError
from pretrained.models.llama.configuration_llama import LlamaConfig
from pretrained.models.llama.family import FAMILY
from pretrained.models.llama.modeling_llama import LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel
from pretrained.pt.kv_cache import KVCache, StaticKVCache

ROPE = json.loads((REFERENCE / "llama_rope/cases.json").read_text())
CASES = sorted(json.loads((REFERENCE / "llama_heads/cases.json").read_text())["cases"])
BOTH = pytest.mark.parametrize("attention", ["eager", "sdpa"])


def make(cls: type, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return cls(tiny_llama(**changes)).eval()


def text(batch: int = 2, length: int = 8, seed: int = 1) -> Tensor:
    return torch.randint(1, 61, (batch, length), generator=torch.Generator().manual_seed(seed))


@BOTH
@pytest.mark.parametrize("places", ["torch", "torch+position_ids"])
@pytest.mark.parametrize("name", ["LlamaModel", "LlamaForCausalLM"])
def test_reference(name: str, places: str, attention: str) -> None:
    from safetensors.torch import load_file

    folder = REFERENCE / "llama"
    config = LlamaConfig.from_json_file(folder / "torch-safetensors/config.json")
    config._attn_implementation = attention
    model = find_class("llama", name)(config).eval()
    weights = load_file(folder / "torch-safetensors/model.safetensors")
    if name == "LlamaModel":
        weights = {k.removeprefix("model."): v for k, v in weights.items() if k != "lm_head.weight"}
    model.load_state_dict(weights)
    inputs = load_arrays(folder / "inputs.npz")
    seen = inputs["attention_mask"].bool()
    if places != "torch":
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        output = model(**inputs)
    expected = load_arrays(folder / "expected.npz")
    keys = [key for key in expected if key.startswith(f"{places}/{name}/")]
    assert keys
    for key in keys:
        torch.testing.assert_close(output[key.split("/")[2]][seen], expected[key][seen], atol=2e-5, rtol=0)


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_heads(case: str, attention: str) -> None:
    output, expected = run_case("llama", "llama_heads", case, attention)
    seen = load_arrays(REFERENCE / "llama_heads/inputs.npz")["attention_mask"].bool()
    for name, value in expected.items():
        found = pick(output, name)
        if name.startswith("attentions"):  # (batch, heads, queries, keys): queries that are padding are undefined
            found, value = found.transpose(1, 2), value.transpose(1, 2)
        if value.shape[:2] == seen.shape:
            found, value = found[seen], value[seen]
        torch.testing.assert_close(found, value, atol=2e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    if case == "model":
        assert len(output.hidden_states) == 3
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


@BOTH
@pytest.mark.parametrize("case", sorted(ROPE["cases"]))
def test_rope(case: str, attention: str) -> None:
    from safetensors.torch import load_file

    folder = REFERENCE / "llama_rope"
    model = LlamaForCausalLM(LlamaConfig.from_dict(ROPE["base"] | ROPE["cases"][case])).eval()
    model.config._attn_implementation = attention
    model.load_state_dict(load_file(folder / "model.safetensors"))
    expected = load_arrays(folder / "expected.npz")
    rotary = model.model.rotary_emb
    torch.testing.assert_close(rotary.inv_freq, expected[f"{case}/inv_freq"], atol=1e-7, rtol=1e-6)
    assert rotary.attention_factor == pytest.approx(expected[f"{case}/attention_factor"].item())
    for name, ids in load_arrays(folder / "inputs.npz").items():
        with torch.no_grad():
            found = model(ids).logits[:, 3::4]
        torch.testing.assert_close(found, expected[f"{case}/{name}"], atol=5e-5, rtol=0, msg=lambda m, n=name: n + m)


def test_both_spellings_of_rope_are_read_and_kept() -> None:
    old = LlamaConfig.from_dict({"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}})
    new = LlamaConfig.from_dict({"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}})
    assert old.rope_scaling == {"type": "linear", "factor": 2.0}
    assert old.rope_parameters is None
    assert (new.rope_theta, new.rope_scaling) == (500.0, {"rope_type": "linear", "factor": 2.0})
    assert new.rope_parameters == {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
    assert LlamaConfig.from_dict(new.to_dict()) == new


def test_every_auto_name_is_a_class() -> None:
    for place in FAMILY.pt.values():
        assert find_class("llama", place.split(":")[1]).base_model_prefix == "model"


def test_nothing_but_weights_is_in_the_state() -> None:
    model = make(LlamaForCausalLM)
    assert set(model.state_dict()) == set(dict(model.named_parameters(remove_duplicate=False)))
    assert [name for name, _ in model.named_buffers()] == ["model.rotary_emb.inv_freq"]


def test_tied_and_untied() -> None:
    tied, untied = make(LlamaForCausalLM, tie_word_embeddings=True), make(LlamaForCausalLM)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight
    assert untied.get_output_embeddings() is untied.lm_head


@BOTH
def test_cache_equals_no_cache(attention: str) -> None:
    model, ids = make(LlamaForCausalLM, attn_implementation=attention), text(2, 9)
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


@BOTH
def test_preallocated_cache(attention: str) -> None:
    model, ids = make(LlamaForCausalLM, attn_implementation=attention), text(2, 9)
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    cache = StaticKVCache(2, 2, 2, 16, 6)
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
    assert cache.get_seq_length() == 9


def test_legacy_tuples_come_back_as_such() -> None:
    model, ids = make(LlamaForCausalLM), text(2, 6)
    with torch.no_grad():
        whole = model(ids)
        past = model(ids[:, :4]).past_key_values.to_legacy()
        output = model(ids[:, 4:], past_key_values=past)
    assert isinstance(output.past_key_values, tuple)
    assert output.past_key_values[1][0].shape == (2, 2, 6, 6)
    torch.testing.assert_close(output.logits, whole.logits[:, 4:], atol=1e-5, rtol=0)


@BOTH
@pytest.mark.parametrize("numbered", [False, True])
def test_left_padding_changes_nothing(numbered: bool, attention: str) -> None:
    model, ids = make(LlamaForCausalLM, attn_implementation=attention), text(2, 6)
    padded = torch.cat((torch.zeros(2, 3, dtype=torch.int64), ids), 1)
    mask = torch.tensor([[0] * 3 + [1] * 6] * 2)
    places = (mask.cumsum(-1) - 1).clamp(min=0) if numbered else None
    with torch.no_grad():
        long = model(padded, attention_mask=mask, position_ids=places).logits
        torch.testing.assert_close(long[:, 3:], model(ids).logits, atol=2e-5, rtol=0)
    assert torch.isfinite(long).all()


def test_padding_rows_of_a_batch_do_not_mix() -> None:
    model, ids = make(LlamaForCausalLM, attn_implementation="sdpa"), text(2, 6)
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        both = model(ids, attention_mask=mask).logits
        torch.testing.assert_close(both[0], model(ids[:1]).logits[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(both[1, 2:], model(ids[1:, 2:]).logits[0], atol=1e-5, rtol=0)


def test_weights_are_returned_whatever_the_attention() -> None:
    model, ids = make(LlamaForCausalLM, attn_implementation="sdpa"), text()
    with torch.no_grad():
        plain, full = model(ids), model(ids, output_attentions=True)
    assert plain.attentions is None
    torch.testing.assert_close(full.logits, plain.logits, atol=1e-5, rtol=0)
    weights = full.attentions[0]
    assert weights.shape == (2, 6, 8, 8)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6, 8))
    assert torch.all(weights.triu(1) == 0)


def test_classification_uses_the_last_token_on_either_side() -> None:
    model = make(LlamaForSequenceClassification, num_labels=3)
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretraining_tp": 2}, "pretraining_tp=2 is not supported"),
        ({"num_key_value_heads": 4}, "key heads must divide the query heads: num_attention_heads=6"),
        ({"rope_scaling": {"type": "dynamik", "factor": 2.0}}, "Did you mean 'dynamic'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_type='linear' needs factor"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "needs low_freq_factor, high_freq_factor"),
        ({"hidden_act": "silo"}, "Did you mean 'silu'"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LlamaModel(tiny_llama(**changes))


def test_mask_of_the_wrong_length_is_refused() -> None:
    model, ids = make(LlamaModel), text()
    with pytest.raises(ValueError, match="attention_mask is 7 long, expected 8"):
        model(ids, attention_mask=torch.ones(2, 7))
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()


@BOTH
def test_training_lowers_the_loss(attention: str) -> None:
    model, ids = make(LlamaForCausalLM, attn_implementation=attention).train(), text()
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


def test_gradients_through_the_cache() -> None:
    model, ids = make(LlamaForCausalLM, attn_implementation="sdpa"), text(2, 6)
    model(ids).logits[:, 3:].sum().backward()
    whole = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    past = model(ids[:, :3]).past_key_values
    total = torch.zeros(())
    for place in range(3, 6):
        output = model(ids[:, place : place + 1], past_key_values=past)
        total = total + output.logits.sum()
        past = output.past_key_values
    total.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], atol=1e-4, rtol=1e-4)


def test_half_precision_keeps_the_frequencies() -> None:
    model = make(LlamaForCausalLM)
    before = model.model.rotary_emb.inv_freq.clone()
    model.to(torch.bfloat16)
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(model.model.rotary_emb.inv_freq, before)
    output = model(text())
    assert output.logits.dtype == torch.bfloat16
    assert output.past_key_values[0][0].dtype == torch.bfloat16


def test_a_build_on_meta_has_real_frequencies_once_it_is_somewhere() -> None:
    config = tiny_llama(rope_scaling={"rope_type": "yarn", "factor": 2.0})
    with torch.device("meta"):
        model = LlamaModel(config)
    assert model.rotary_emb.inv_freq.is_meta
    model.to_empty(device="cpu")
    assert torch.equal(model.rotary_emb.inv_freq, LlamaModel(config).rotary_emb.inv_freq)


def test_export() -> None:
    model, ids = make(LlamaModel, attn_implementation="sdpa"), text()
    exported = torch.export.export(model, (ids,), {"attention_mask": torch.ones_like(ids)})
    mask = torch.tensor([[1] * 8, [0] * 3 + [1] * 5])
    found, expected = exported.module()(ids, attention_mask=mask), model(ids, attention_mask=mask)
    torch.testing.assert_close(found["last_hidden_state"], expected.last_hidden_state)
    torch.testing.assert_close(found.past_key_values[1][0], expected.past_key_values[1][0])
