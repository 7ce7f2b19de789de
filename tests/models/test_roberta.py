from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from round_trips import assert_base_and_head, assert_round_trip
from test_bert import slow_relative_attention
from tiny import REFERENCE, find_class, pick, run_case, tiny_roberta
from torch import Tensor

import pretrained
from pretrained import AutoModel, AutoModelForMaskedLM, RobertaConfig, XLMRobertaConfig
from pretrained.errors import ConfigError
from pretrained.models.roberta.family import FAMILY, XLM
from pretrained.models.roberta.modeling_roberta import RobertaModel
from pretrained.models.roberta.modeling_roberta_heads import RobertaForCausalLM, RobertaForMaskedLM
from pretrained.models.roberta.modeling_roberta_tasks import (
    RobertaForQuestionAnswering,
    RobertaForSequenceClassification,
)
from pretrained.pt.kv_cache import EncoderDecoderKVCache, KVCache, StaticKVCache

CASES = sorted(json.loads((REFERENCE / "roberta_heads/cases.json").read_text())["cases"])
HEADS = sorted({place.split(":")[1] for place in FAMILY.pt.values()})
BOTH = pytest.mark.parametrize("attention", ["eager", "sdpa"])


def make(cls: type, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return cls(tiny_roberta(**changes)).eval()


def text(batch: int = 2, length: int = 8, seed: int = 1) -> Tensor:
    return torch.randint(2, 71, (batch, length), generator=torch.Generator().manual_seed(seed))


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_heads(case: str, attention: str) -> None:
    output, expected = run_case("roberta", "roberta_heads", case, attention)
    assert expected
    for name, value in expected.items():
        torch.testing.assert_close(pick(output, name), value, atol=2e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


# Positions


def test_positions_are_counted_from_the_padding_index() -> None:
    embeddings = make(RobertaModel, pad_token_id=3).embeddings
    ids = torch.tensor([[5, 6, 3, 7], [3, 3, 8, 9]])
    found = embeddings.positions(ids, torch.arange(4))
    assert found.tolist() == [[4, 5, 3, 6], [3, 3, 4, 5]]
    assert embeddings.positions(ids, torch.arange(7, 11)).tolist() == [[11, 12, 3, 13], [3, 3, 11, 12]]
    assert embeddings.positions(None, torch.arange(2, 5)).tolist() == [[6, 7, 8]]


@BOTH
def test_padding_on_either_side_changes_nothing(attention: str) -> None:
    model, ids = make(RobertaModel, attn_implementation=attention), text(2, 5)
    pad = torch.full((2, 3), 1)
    mask = torch.tensor([[1] * 5 + [0] * 3] * 2)
    with torch.no_grad():
        short = model(ids)[0]
        right = model(torch.cat((ids, pad), 1), attention_mask=mask)[0][:, :5]
        left = model(torch.cat((pad, ids), 1), attention_mask=mask.flip(1))[0][:, 3:]
    torch.testing.assert_close(right, short, atol=1e-5, rtol=0)
    torch.testing.assert_close(left, short, atol=1e-5, rtol=0)


def test_too_long_a_text_is_refused() -> None:
    model = make(RobertaModel)
    model(text(1, 18))
    with pytest.raises(ValueError, match="19 tokens are more than 18, which max_position_embeddings=20 leaves"):
        model(text(1, 19))
    with pytest.raises(ValueError, match="19 tokens are more than 18"):
        model(inputs_embeds=torch.zeros(1, 19, 24))


@BOTH
@pytest.mark.parametrize("kind", ["relative_key", "relative_key_query"])
def test_relative_positions(kind: str, attention: str) -> None:
    model = make(RobertaModel, position_embedding_type=kind, attn_implementation=attention)
    with torch.no_grad():
        output = model(text(2, 6), output_hidden_states=True)
        first = model.encoder.layer[0]
        attended = slow_relative_attention(first.attention.self, output.hidden_states[0], kind, causal=False)
        expected = first.feed_forward(first.attention.output(attended, output.hidden_states[0]))
    torch.testing.assert_close(output.hidden_states[1], expected, atol=1e-5, rtol=0)


# Configs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "relative_keys"}, "Did you mean 'relative_key'"),
        ({"hidden_act": "gelo"}, "Did you mean 'gelu'"),
        ({"num_attention_heads": 5}, "heads must divide the hidden size: hidden_size=24, num_attention_heads=5"),
        ({"add_cross_attention": True}, "add_cross_attention=True needs is_decoder=True"),
        ({"pad_token_id": None}, r"counted from pad_token_id on, which must be in \[0, 20\); found None"),
        ({"pad_token_id": 20}, r"must be in \[0, 20\); found 20"),
        ({"pad_token_id": -1}, r"must be in \[0, 20\); found -1"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RobertaModel(tiny_roberta(**changes))


def test_an_answer_has_two_ends() -> None:
    with pytest.raises(ConfigError, match=r"two labels, the start and the end of an answer; num_labels=3") as caught:
        make(RobertaForQuestionAnswering, num_labels=3)
    assert caught.value.key == "num_labels"


def test_every_auto_name_is_a_class() -> None:
    for place in FAMILY.pt.values():
        assert find_class("roberta", place.split(":")[1]).base_model_prefix == "roberta"
    assert set(XLM.pt) == set(FAMILY.pt)


def test_parameter_names_are_those_on_disk() -> None:
    names = dict(make(RobertaForMaskedLM).named_parameters())
    assert {"roberta.encoder.layer.1.attention.output.LayerNorm.weight", "lm_head.layer_norm.bias"} < set(names)
    assert "lm_head.bias" in names
    assert not {"lm_head.decoder.bias", "lm_head.decoder.weight"} & set(names)  # one parameter of two names counts once
    head = dict(make(RobertaForSequenceClassification).named_parameters())
    assert {"classifier.dense.weight", "classifier.out_proj.bias"} < set(head)
    assert not list(make(RobertaModel).buffers())


# Saving and loading


@pytest.mark.parametrize("name", HEADS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    model = make(find_class("roberta", name), is_decoder="Causal" in name)
    ids = text().reshape(2, 2, 4) if name.endswith("MultipleChoice") else text()
    assert_round_trip(model, {"input_ids": ids}, tmp_path)


@pytest.mark.parametrize("name", ["RobertaForMaskedLM", "RobertaForSequenceClassification"])
def test_base_and_head_read_each_other(name: str, tmp_path: Path) -> None:
    assert_base_and_head(RobertaModel, make(find_class("roberta", name)), tmp_path)


def test_weights_are_tied_after_a_load(tmp_path: Path) -> None:
    make(RobertaForMaskedLM).save_pretrained(tmp_path)
    model = RobertaForMaskedLM.from_pretrained(tmp_path)
    assert model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight
    assert model.lm_head.decoder.bias is model.lm_head.bias
    untied = make(RobertaForMaskedLM, tie_word_embeddings=False)
    assert untied.lm_head.decoder.weight is not untied.roberta.embeddings.word_embeddings.weight
    model.set_output_embeddings(torch.nn.Linear(24, 71))
    assert model.get_output_embeddings().bias is model.lm_head.bias


@pytest.mark.parametrize("auto_name", sorted(XLM.pt))
def test_xlm_roberta_has_its_own_names(auto_name: str, tmp_path: Path) -> None:
    config = XLMRobertaConfig(**{k: v for k, v in tiny_roberta().to_dict().items() if k != "model_type"})
    model = getattr(pretrained, auto_name).from_config(config).eval()
    assert type(model).__name__ == XLM.pt[auto_name].split(":")[1]
    assert type(model) is getattr(pretrained, type(model).__name__)
    assert isinstance(model, getattr(pretrained, type(model).__name__.removeprefix("XLM")))
    ids = text().reshape(2, 2, 4) if auto_name.endswith("MultipleChoice") else text()
    assert_round_trip(model, {"input_ids": ids}, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "xlm-roberta"
    assert type(getattr(pretrained, auto_name).from_pretrained(tmp_path)) is type(model)


def test_model_types_keep_apart(tmp_path: Path) -> None:
    make(RobertaForMaskedLM).save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is RobertaModel
    assert type(AutoModelForMaskedLM.from_pretrained(tmp_path)) is RobertaForMaskedLM
    assert (RobertaConfig().vocab_size, XLMRobertaConfig().vocab_size) == (50265, 30522)


# Calls


def test_inputs_embeds_and_ids_are_alternatives() -> None:
    model, ids = make(RobertaModel), text()
    embeds = model.get_input_embeddings()(ids)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs_embeds=embeds)[0], model(ids)[0])
    for given in ({}, {"input_ids": ids, "inputs_embeds": embeds}):
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            model(**given)


def test_return_dict_false_is_the_tuple_of_the_same() -> None:
    model, ids = make(RobertaForMaskedLM), text()
    with torch.no_grad():
        output = model(ids, labels=ids, output_hidden_states=True)
        plain = model(ids, labels=ids, output_hidden_states=True, return_dict=False)
    assert isinstance(plain, tuple)
    assert len(plain) == len(output) == 3
    assert torch.equal(plain[1], output.logits)
    model.config.return_dict = False
    assert isinstance(model(ids), tuple)


@BOTH
def test_head_mask_switches_heads_off(attention: str) -> None:
    model, ids = make(RobertaModel, attn_implementation=attention), text()
    keep = torch.tensor([[1.0, 0, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        masked = model(ids, head_mask=keep, output_attentions=True)
        for index, layer in enumerate(model.encoder.layer):  # the same by taking the heads out of the projection
            off = [h * 6 + i for h in range(4) if not keep[index, h] for i in range(6)]
            layer.attention.output.dense.weight[:, off] = 0
        torch.testing.assert_close(model(ids)[0], masked[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_chunked_feed_forward(size: int) -> None:
    model, ids = make(RobertaModel), text()
    with torch.no_grad():
        whole = model(ids)[0]
        model.config.chunk_size_feed_forward = size
        torch.testing.assert_close(model(ids)[0], whole)


# As a decoder


@BOTH
@pytest.mark.parametrize("kind", ["absolute", "relative_key_query"])
def test_cache_equals_no_cache(kind: str, attention: str) -> None:
    model = make(RobertaForCausalLM, is_decoder=True, position_embedding_type=kind, attn_implementation=attention)
    ids = text(2, 9)
    with torch.no_grad():
        whole = model(ids).logits
        past, pieces = None, []
        for start, end in ((0, 4), (4, 5), (5, 8), (8, 9)):
            output = model(ids[:, start:end], past_key_values=past, use_cache=True)
            pieces.append(output.logits)
            past = output.past_key_values
        embeds = model.get_input_embeddings()(ids)
        first = model(inputs_embeds=embeds[:, :4]).past_key_values
        rest = model(inputs_embeds=embeds[:, 4:], past_key_values=first).logits
    assert isinstance(past, KVCache)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(rest, whole[:, 4:], atol=1e-5, rtol=0)


def test_preallocated_cache() -> None:
    model, ids = make(RobertaForCausalLM, is_decoder=True), text(2, 9)
    cache = StaticKVCache(2, 2, 4, 12, 6)
    with torch.no_grad():
        whole = model(ids).logits
        pieces = [model(ids[:, a:b], past_key_values=cache).logits for a, b in ((0, 5), (5, 6), (6, 9))]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)


def test_cross_attention_is_computed_once() -> None:
    model, ids = make(RobertaForCausalLM, is_decoder=True, add_cross_attention=True), text(2, 6)
    states, mask = torch.randn(2, 5, 24), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    given = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
    with torch.no_grad():
        whole = model(ids, **given, output_attentions=True)
        first = model(ids[:, :4], **given)
        assert isinstance(first.past_key_values, EncoderDecoderKVCache)
        given["encoder_hidden_states"] = torch.full_like(states, torch.nan)  # its keys are in the cache by now
        second = model(ids[:, 4:], past_key_values=first.past_key_values, **given)
    assert [w.shape for w in whole.cross_attentions] == [(2, 4, 6, 5)] * 2
    torch.testing.assert_close(second.logits, whole.logits[:, 4:], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="add_cross_attention=True"):
        make(RobertaModel, is_decoder=True)(ids, encoder_hidden_states=states)


def test_a_decoder_that_is_none_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make(RobertaForCausalLM)
    assert "without is_decoder=True in its config: every token sees the later ones" in caplog.text


# Training


def test_initial_weights() -> None:
    model = make(RobertaForMaskedLM, hidden_size=64, vocab_size=500)
    embeddings = model.roberta.embeddings
    assert torch.all(embeddings.word_embeddings.weight[1] == 0)
    assert torch.all(embeddings.position_embeddings.weight[1] == 0)
    assert abs(embeddings.word_embeddings.weight[2:].std().item() - 0.15) < 0.005
    assert torch.all(model.roberta.encoder.layer[0].attention.self.query.bias == 0)
    assert torch.all(model.lm_head.bias == 0)


@BOTH
def test_training_lowers_the_loss(attention: str) -> None:
    model, ids = make(RobertaForMaskedLM, attn_implementation=attention).train(), text()
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


def test_export() -> None:
    model, ids = make(RobertaModel, attn_implementation="sdpa"), text()
    exported = torch.export.export(model, (ids,), {"attention_mask": torch.ones_like(ids)})
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    found = exported.module()(ids, attention_mask=mask)
    torch.testing.assert_close(found["last_hidden_state"], model(ids, attention_mask=mask)[0])


# Changing a model


def test_pruned_heads_are_those_masked(tmp_path: Path) -> None:
    model, ids = make(RobertaForMaskedLM), text()
    keep = torch.tensor([[1.0, 0, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        masked = model(ids, head_mask=keep).logits
        model.prune_heads({0: [1], 1: [2, 3]})
        torch.testing.assert_close(model(ids).logits, masked, atol=1e-5, rtol=0)
    first = model.roberta.encoder.layer[0].attention
    assert (first.self.num_heads, first.self.pruned_heads) == (3, {1})
    assert first.output.dense.weight.shape == (24, 18)
    assert_round_trip(model, {"input_ids": ids}, tmp_path)


def test_checkpointing_gives_the_same_gradients() -> None:
    model, ids = make(RobertaForMaskedLM).train(), text()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model(ids, labels=ids).loss.backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(ids, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name])


def test_tables_are_resized(tmp_path: Path) -> None:
    model, ids = make(RobertaForMaskedLM), text()
    with torch.no_grad():
        before = model(ids).logits
        model.resize_token_embeddings(80)
        model.resize_position_embeddings(30)
        torch.testing.assert_close(model(ids).logits[..., :71], before)
    assert model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight
    assert model.lm_head.bias is model.lm_head.decoder.bias
    assert (model.lm_head.bias.shape, model.config.vocab_size) == ((80,), 80)
    model(text(1, 28))
    assert_round_trip(model, {"input_ids": ids}, tmp_path)
