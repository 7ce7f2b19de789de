from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from tiny import REFERENCE, find_class, load_arrays, pick, run_case, tiny_bert
from torch import Tensor

from pretrained.errors import ConfigError
from pretrained.models.bert.configuration_bert import BertConfig
from pretrained.models.bert.family import FAMILY
from pretrained.models.bert.modeling_bert import BertModel
from pretrained.models.bert.modeling_bert_heads import BertForMaskedLM, BertForPreTraining, BertLMHeadModel
from pretrained.pt.kv_cache import EncoderDecoderKVCache, KVCache, StaticKVCache

CASES = sorted(json.loads((REFERENCE / "bert_heads/cases.json").read_text())["cases"])
BOTH = pytest.mark.parametrize("attention", ["eager", "sdpa"])


def make(cls: type, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return cls(tiny_bert(**changes)).eval()


def text(batch: int = 2, length: int = 8, seed: int = 1) -> Tensor:
    return torch.randint(1, 71, (batch, length), generator=torch.Generator().manual_seed(seed))


@BOTH
@pytest.mark.parametrize("name", ["BertModel", "BertForPreTraining", "BertForMaskedLM"])
def test_reference(name: str, attention: str) -> None:
    from safetensors.torch import load_file

    folder = REFERENCE / "bert"
    config = BertConfig.from_json_file(folder / "torch-safetensors/config.json")
    config._attn_implementation = attention
    model = find_class("bert", name)(config).eval()
    weights = load_file(folder / "torch-safetensors/model.safetensors")
    if name == "BertModel":
        weights = {k.removeprefix("bert."): v for k, v in weights.items()}
    assert all("decoder" in key for key in model.load_state_dict(weights, strict=False).missing_keys)
    with torch.no_grad():
        output = model(**load_arrays(folder / "inputs.npz"))
    expected = load_arrays(folder / "expected.npz")
    for key in [key for key in expected if key.startswith(f"torch/{name}/")]:
        torch.testing.assert_close(output[key.split("/")[2]], expected[key], atol=2e-5, rtol=0)


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_heads(case: str, attention: str) -> None:
    output, expected = run_case("bert", "bert_heads", case, attention)
    for name, value in expected.items():
        torch.testing.assert_close(pick(output, name), value, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    if "hidden_states.0" in expected:
        assert len(output.hidden_states) == 3
        assert len(output.attentions) == 2


def test_every_auto_name_is_a_class() -> None:
    for place in FAMILY.pt.values():
        assert find_class("bert", place.split(":")[1]).base_model_prefix == "bert"


def test_parameter_names_are_those_on_disk() -> None:
    names = dict(make(BertForPreTraining).named_parameters())
    assert "bert.encoder.layer.1.attention.output.LayerNorm.weight" in names
    assert "cls.predictions.bias" in names
    assert "cls.predictions.decoder.bias" not in names  # one parameter with two names counts once
    assert not list(make(BertModel).buffers())


def test_return_dict_false_is_the_tuple_of_the_same() -> None:
    model, ids = make(BertForMaskedLM), text()
    with torch.no_grad():
        output = model(ids, labels=ids, output_hidden_states=True)
        plain = model(ids, labels=ids, output_hidden_states=True, return_dict=False)
    assert isinstance(plain, tuple)
    assert len(plain) == len(output) == 3
    assert torch.equal(plain[0], output.loss)
    assert torch.equal(plain[1], output.logits)
    model.config.return_dict = False
    assert isinstance(model(ids), tuple)


def test_inputs_embeds_and_ids_are_alternatives() -> None:
    model, ids = make(BertModel), text()
    embeds = model.get_input_embeddings()(ids)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs_embeds=embeds)[0], model(ids)[0])
    for given in ({}, {"input_ids": ids, "inputs_embeds": embeds}):
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            model(**given)


def test_too_long_a_text_is_refused() -> None:
    with pytest.raises(ValueError, match="21 tokens are more than max_position_embeddings=20"):
        make(BertModel)(text(1, 21))


@BOTH
def test_padding_changes_nothing(attention: str) -> None:
    model, ids = make(BertModel, attn_implementation=attention), text(2, 5)
    mask = torch.tensor([[1] * 5 + [0] * 3] * 2)
    padded = torch.cat((ids, text(2, 3, seed=9)), 1)
    with torch.no_grad():
        long, short = model(padded, attention_mask=mask)[0][:, :5], model(ids)[0]
    torch.testing.assert_close(long, short, atol=1e-5, rtol=0)


def test_mask_of_three_axes_is_that_of_four() -> None:
    model, ids = make(BertModel), text()
    keep = (torch.rand(2, 8, 8) < 0.6) | torch.eye(8, dtype=torch.bool)
    with torch.no_grad():
        three, four = model(ids, attention_mask=keep.long())[0], model(ids, attention_mask=keep[:, None])[0]
    torch.testing.assert_close(three, four)


@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_chunked_feed_forward(size: int) -> None:
    model, ids = make(BertModel), text()
    with torch.no_grad():
        whole = model(ids)[0]
        model.config.chunk_size_feed_forward = size
        torch.testing.assert_close(model(ids)[0], whole)


@BOTH
def test_head_mask_switches_heads_off(attention: str) -> None:
    model, ids = make(BertModel, attn_implementation=attention), text()
    keep = torch.tensor([[1.0, 0, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        masked = model(ids, head_mask=keep, output_attentions=True)
        assert torch.all(masked.attentions[0][:, 1] == 0)
        assert torch.all(masked.attentions[1][:, 2:] == 0)
        for index, layer in enumerate(model.encoder.layer):  # the same by taking the heads out of the projection
            off = [h * 6 + i for h in range(4) if not keep[index, h] for i in range(6)]
            layer.attention.output.dense.weight[:, off] = 0
        torch.testing.assert_close(model(ids)[0], masked[0], atol=1e-5, rtol=0)


# Relative positions. The reference dropped them after 4.x, so they are compared with loops over 4.35's formulas.


def slow_relative_attention(attention: Any, states: Tensor, kind: str, causal: bool) -> Tensor:
    heads, size, longest = 4, 6, 20
    batch, seq, _ = states.shape
    q, k, v = (getattr(attention, n)(states).view(batch, seq, heads, size) for n in ("query", "key", "value"))
    out = torch.zeros(batch, seq, heads, size)
    for b in range(batch):
        for h in range(heads):
            for i in range(seq):
                seen = range(i + 1) if causal else range(seq)
                scores = []
                for j in seen:
                    vector = attention.distance_embedding.weight[i - j + longest - 1]
                    score = q[b, i, h] @ k[b, j, h] + q[b, i, h] @ vector
                    if kind == "relative_key_query":
                        score = score + k[b, j, h] @ vector
                    scores.append(score / size**0.5)
                weights = torch.stack(scores).softmax(0)
                out[b, i, h] = sum(w * v[b, j, h] for w, j in zip(weights, seen, strict=True))
    return out.view(batch, seq, -1)


@BOTH
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["relative_key", "relative_key_query"])
def test_relative_positions(kind: str, causal: bool, attention: str) -> None:
    model = make(BertModel, position_embedding_type=kind, is_decoder=causal, attn_implementation=attention)
    ids = text(2, 6)
    with torch.no_grad():
        output = model(ids, output_hidden_states=True, output_attentions=False)
        first = model.encoder.layer[0]
        attended = slow_relative_attention(first.attention.self, output.hidden_states[0], kind, causal)
        expected = first.feed_forward(first.attention.output(attended, output.hidden_states[0]))
    torch.testing.assert_close(output.hidden_states[1], expected, atol=1e-5, rtol=0)


def test_relative_positions_leave_the_table_unused() -> None:
    model, ids = make(BertModel, position_embedding_type="relative_key"), text()
    before = model(ids)[0]
    torch.nn.init.normal_(model.embeddings.position_embeddings.weight)
    assert torch.equal(model(ids)[0], before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "relative_keys"}, "Did you mean 'relative_key'"),
        ({"hidden_act": "gelo"}, "Did you mean 'gelu'"),
        ({"num_attention_heads": 5}, "heads must divide the hidden size: hidden_size=24, num_attention_heads=5"),
        ({"add_cross_attention": True}, "add_cross_attention=True needs is_decoder=True"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BertModel(tiny_bert(**changes))


def test_unknown_attention_is_refused() -> None:
    model = make(BertModel)
    model.config._attn_implementation = "sdpb"
    with pytest.raises(ConfigError, match="Did you mean 'sdpa'"):
        model(text())


# As a decoder.

DECODER = {"is_decoder": True, "add_cross_attention": True}


@BOTH
@pytest.mark.parametrize("kind", ["absolute", "relative_key_query"])
def test_cache_equals_no_cache(kind: str, attention: str) -> None:
    model = make(BertLMHeadModel, is_decoder=True, position_embedding_type=kind, attn_implementation=attention)
    ids = text(2, 9)
    with torch.no_grad():
        whole = model(ids).logits
        past, pieces = None, []
        for start, end in ((0, 4), (4, 5), (5, 8), (8, 9)):
            output = model(ids[:, start:end], past_key_values=past, use_cache=True)
            pieces.append(output.logits)
            past = output.past_key_values
    assert isinstance(past, KVCache)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["absolute", "relative_key"])
def test_preallocated_cache(kind: str) -> None:
    model, ids = make(BertLMHeadModel, is_decoder=True, position_embedding_type=kind), text(2, 9)
    cache = StaticKVCache(2, 2, 4, 12, 6)
    with torch.no_grad():
        whole = model(ids).logits
        pieces = [model(ids[:, a:b], past_key_values=cache).logits for a, b in ((0, 5), (5, 6), (6, 9))]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)


@BOTH
def test_cross_attention_is_computed_once(attention: str) -> None:
    model, ids = make(BertLMHeadModel, attn_implementation=attention, **DECODER), text(2, 6)
    states, mask = torch.randn(2, 5, 24), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    given = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
    with torch.no_grad():
        whole = model(ids, **given, output_attentions=True)
        first = model(ids[:, :4], **given)
        assert isinstance(first.past_key_values, EncoderDecoderKVCache)
        given["encoder_hidden_states"] = torch.full_like(states, torch.nan)  # its keys are in the cache by now
        second = model(ids[:, 4:], past_key_values=first.past_key_values, **given)
        legacy = model(ids[:, 4:], past_key_values=tuple(e[:2] for e in first.past_key_values), use_cache=False)
    assert [w.shape for w in whole.cross_attentions] == [(2, 4, 6, 5)] * 2
    assert torch.all(whole.cross_attentions[0][1, :, :, 2:] == 0)
    torch.testing.assert_close(second.logits, whole.logits[:, 4:], atol=1e-5, rtol=0)
    assert legacy.past_key_values is None


def test_legacy_tuples_come_back_as_such() -> None:
    model, ids = make(BertLMHeadModel, is_decoder=True), text(2, 6)
    with torch.no_grad():
        whole = model(ids).logits
        past = model(ids[:, :4]).past_key_values.to_legacy()
        output = model(ids[:, 4:], past_key_values=past)
    assert isinstance(output.past_key_values, tuple)
    assert output.past_key_values[0][0].shape == (2, 4, 6, 6)
    assert past[0][0].shape == (2, 4, 4, 6)
    torch.testing.assert_close(output.logits, whole[:, 4:], atol=1e-5, rtol=0)


def test_encoder_states_need_cross_attention() -> None:
    model = make(BertModel, is_decoder=True)
    with pytest.raises(ValueError, match="add_cross_attention=True"):
        model(text(), encoder_hidden_states=torch.zeros(2, 3, 24))


def test_logits_to_keep_and_items() -> None:
    model, ids = make(BertLMHeadModel, is_decoder=True), text()
    with torch.no_grad():
        full = model(ids, labels=ids)
        assert torch.equal(model(ids, logits_to_keep=2).logits, full.logits[:, -2:])
        assert torch.equal(model(ids, logits_to_keep=torch.tensor([0, 5])).logits, full.logits[:, [0, 5]])
        torch.testing.assert_close(model(ids, labels=ids, num_items_in_batch=28).loss, full.loss / 2)


def test_initial_weights() -> None:
    model = make(BertForPreTraining, hidden_size=64, vocab_size=500)
    words = model.bert.embeddings.word_embeddings.weight
    assert torch.all(words[0] == 0)
    assert abs(words[1:].std().item() - 0.15) < 0.005
    assert torch.all(model.bert.encoder.layer[0].attention.self.query.bias == 0)
    assert torch.all(model.bert.embeddings.LayerNorm.weight == 1)
    assert torch.all(model.cls.predictions.bias == 0)


@BOTH
def test_training_lowers_the_loss(attention: str) -> None:
    model, ids = make(BertForMaskedLM, attn_implementation=attention).train(), text()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    history = []
    for _ in range(8):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for n, p in model.named_parameters() if "pooler" not in n)
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] * 0.8


def test_export() -> None:
    model, ids = make(BertModel, attn_implementation="sdpa"), text()
    exported = torch.export.export(model, (ids,), {"attention_mask": torch.ones_like(ids)})
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    found = exported.module()(ids, attention_mask=mask)
    torch.testing.assert_close(found["last_hidden_state"], model(ids, attention_mask=mask)[0])
