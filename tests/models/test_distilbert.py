from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from round_trips import assert_base_and_head, assert_round_trip
from safetensors.torch import load_file, save_file
from tiny import REFERENCE, find_class, pick, run_case, tiny_distilbert
from torch import Tensor

from pretrained import DistilBertConfig
from pretrained.errors import ConfigError
from pretrained.models.distilbert.family import FAMILY
from pretrained.models.distilbert.modeling_distilbert import DistilBertModel, sinusoids
from pretrained.models.distilbert.modeling_distilbert_heads import (
    DistilBertForMaskedLM,
    DistilBertForMultipleChoice,
    DistilBertForQuestionAnswering,
)

CASES = sorted(json.loads((REFERENCE / "distilbert_heads/cases.json").read_text())["cases"])
HEADS = sorted({place.split(":")[1] for place in FAMILY.pt.values()})
BOTH = pytest.mark.parametrize("attention", ["eager", "sdpa"])


def make(cls: type, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return cls(tiny_distilbert(**changes)).eval()


def text(batch: int = 2, length: int = 8, seed: int = 1) -> Tensor:
    return torch.randint(1, 71, (batch, length), generator=torch.Generator().manual_seed(seed))


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_heads(case: str, attention: str) -> None:
    output, expected = run_case("distilbert", "distilbert_heads", case, attention)
    assert expected
    for name, value in expected.items():
        torch.testing.assert_close(pick(output, name), value, atol=2e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    if case == "model":
        assert len(output.hidden_states) == 3
        assert len(output.attentions) == 2


def test_both_spellings_of_sizes() -> None:
    long = DistilBertConfig(hidden_size=24, num_attention_heads=4, num_hidden_layers=2)
    assert (long.dim, long.n_heads, long.n_layers) == (24, 4, 2)
    assert long == DistilBertConfig(dim=24, n_heads=4, n_layers=2)
    assert (long.hidden_size, long.num_attention_heads, long.num_hidden_layers) == (24, 4, 2)
    assert not {"hidden_size", "num_attention_heads", "num_hidden_layers"} & set(long.to_dict())
    with pytest.raises(ConfigError, match="config key 'num_hidden_layers' must be positive"):
        DistilBertConfig.from_dict({"num_hidden_layers": 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 5}, "heads must divide the hidden size: dim=24, n_heads=5"),
        ({"activation": "gelo"}, "Did you mean 'gelu'"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DistilBertModel(tiny_distilbert(**changes))


def test_an_answer_has_two_ends() -> None:
    with pytest.raises(ConfigError, match="two labels, the start and the end of an answer; num_labels=1"):
        make(DistilBertForQuestionAnswering, num_labels=1)


def test_every_auto_name_is_a_class() -> None:
    for place in FAMILY.pt.values():
        assert find_class("distilbert", place.split(":")[1]).base_model_prefix == "distilbert"


def test_parameter_names_are_those_on_disk() -> None:
    names = set(dict(make(DistilBertForMaskedLM).named_parameters()))
    block = "distilbert.transformer.layer.1."
    for part in ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"):
        assert {f"{block}{part}.weight", f"{block}{part}.bias"} < names
    assert {f"{block}sa_layer_norm.weight", f"{block}output_layer_norm.bias"} < names
    assert {"vocab_transform.weight", "vocab_layer_norm.weight", "vocab_projector.bias"} < names
    assert "vocab_projector.weight" not in names
    assert not list(make(DistilBertModel).buffers())


# Positions


@pytest.mark.parametrize("positions", [1, 7, 20])
def test_sinusoids_by_hand(positions: int) -> None:
    table = sinusoids(positions, 6)
    for place in range(positions):
        for channel in range(6):
            angle = place / 10000 ** (2 * (channel // 2) / 6)
            expected = np.cos(angle) if channel % 2 else np.sin(angle)
            assert table[place, channel].item() == pytest.approx(expected, abs=1e-7)


def test_sinusoids_are_those_of_the_reference() -> None:
    expected = torch.from_numpy(np.load(REFERENCE / "distilbert_heads/sinusoids.npy"))
    model = make(DistilBertModel, sinusoidal_pos_embds=True)
    assert torch.equal(model.embeddings.position_embeddings.weight, expected)
    assert not model.embeddings.position_embeddings.weight.requires_grad
    assert make(DistilBertModel).embeddings.position_embeddings.weight.requires_grad


def test_sinusoids_that_a_checkpoint_lacks(tmp_path: Path) -> None:
    model = make(DistilBertModel, sinusoidal_pos_embds=True)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    table = weights.pop("embeddings.position_embeddings.weight")
    save_file(weights, tmp_path / "model.safetensors")
    again, report = DistilBertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == ["embeddings.position_embeddings.weight"]
    assert torch.equal(again.embeddings.position_embeddings.weight, table)
    assert not again.embeddings.position_embeddings.weight.requires_grad


def test_too_long_a_text_is_refused() -> None:
    model = make(DistilBertModel)
    with pytest.raises(ValueError, match="21 tokens are more than max_position_embeddings=20"):
        model(text(1, 21))


# Saving and loading


@pytest.mark.parametrize("sinusoidal", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_round_trip(name: str, sinusoidal: bool, tmp_path: Path) -> None:
    model = make(find_class("distilbert", name), sinusoidal_pos_embds=sinusoidal)
    ids = text().reshape(2, 2, 4) if name.endswith("MultipleChoice") else text()
    assert_round_trip(model, {"input_ids": ids}, tmp_path)


@pytest.mark.parametrize("name", ["DistilBertForMaskedLM", "DistilBertForSequenceClassification"])
def test_base_and_head_read_each_other(name: str, tmp_path: Path) -> None:
    assert_base_and_head(DistilBertModel, make(find_class("distilbert", name)), tmp_path)


def test_tied_and_untied(tmp_path: Path) -> None:
    make(DistilBertForMaskedLM).save_pretrained(tmp_path)
    tied = DistilBertForMaskedLM.from_pretrained(tmp_path)
    words = tied.distilbert.embeddings.word_embeddings
    assert tied.get_output_embeddings().weight is words.weight
    assert tied.get_input_embeddings() is words
    untied = make(DistilBertForMaskedLM, tie_word_embeddings=False)
    assert untied.vocab_projector.weight is not untied.distilbert.embeddings.word_embeddings.weight
    layer = torch.nn.Linear(24, 71)
    untied.set_output_embeddings(layer)
    assert untied.vocab_projector is layer


# Calls


def test_inputs_embeds_and_ids_are_alternatives() -> None:
    model, ids = make(DistilBertModel), text()
    embeds = model.get_input_embeddings()(ids)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs_embeds=embeds)[0], model(ids)[0])
    for given in ({}, {"input_ids": ids, "inputs_embeds": embeds}):
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            model(**given)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        make(DistilBertForMultipleChoice)()


def test_return_dict_false_is_the_tuple_of_the_same() -> None:
    model, ids = make(DistilBertForMaskedLM), text()
    with torch.no_grad():
        output = model(ids, labels=ids, output_attentions=True)
        plain = model(ids, labels=ids, output_attentions=True, return_dict=False)
    assert isinstance(plain, tuple)
    assert len(plain) == len(output) == 3
    assert torch.equal(plain[0], output.loss)
    model.config.return_dict = False
    assert isinstance(model(ids), tuple)


@BOTH
def test_padding_changes_nothing(attention: str) -> None:
    model, ids = make(DistilBertModel, attn_implementation=attention), text(2, 5)
    mask = torch.tensor([[1] * 5 + [0] * 3] * 2)
    padded = torch.cat((ids, text(2, 3, seed=9)), 1)
    with torch.no_grad():
        long, short = model(padded, attention_mask=mask)[0][:, :5], model(ids)[0]
    torch.testing.assert_close(long, short, atol=1e-5, rtol=0)


@BOTH
def test_head_mask_switches_heads_off(attention: str) -> None:
    model, ids = make(DistilBertModel, attn_implementation=attention), text()
    keep = torch.tensor([[1.0, 0, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        masked = model(ids, head_mask=keep, output_attentions=True)
        assert torch.all(masked.attentions[0][:, 1] == 0)
        for index, layer in enumerate(model.transformer.layer):  # the same by taking the heads out of the projection
            off = [h * 6 + i for h in range(4) if not keep[index, h] for i in range(6)]
            layer.attention.out_lin.weight[:, off] = 0
        torch.testing.assert_close(model(ids)[0], masked[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_chunked_feed_forward(size: int) -> None:
    model, ids = make(DistilBertModel), text()
    with torch.no_grad():
        whole = model(ids)[0]
        model.config.chunk_size_feed_forward = size
        torch.testing.assert_close(model(ids)[0], whole)


# Training


def test_initial_weights() -> None:
    model = make(DistilBertForMaskedLM, dim=64, vocab_size=500)
    words = model.distilbert.embeddings.word_embeddings.weight
    assert torch.all(words[0] == 0)
    assert abs(words[1:].std().item() - 0.15) < 0.005
    assert torch.all(model.vocab_projector.bias == 0)
    assert torch.all(model.distilbert.transformer.layer[0].sa_layer_norm.weight == 1)


@BOTH
@pytest.mark.parametrize("sinusoidal", [False, True])
def test_training_lowers_the_loss(sinusoidal: bool, attention: str) -> None:
    model = make(DistilBertForMaskedLM, sinusoidal_pos_embds=sinusoidal, attn_implementation=attention).train()
    ids = text()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    history = []
    for _ in range(8):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        assert {n for n, p in model.named_parameters() if p.grad is None} == (
            {"distilbert.embeddings.position_embeddings.weight"} if sinusoidal else set()
        )
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] * 0.8


def test_export() -> None:
    model, ids = make(DistilBertModel, attn_implementation="sdpa"), text()
    exported = torch.export.export(model, (ids,), {"attention_mask": torch.ones_like(ids)})
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    found = exported.module()(ids, attention_mask=mask)
    torch.testing.assert_close(found["last_hidden_state"], model(ids, attention_mask=mask)[0])


# Changing a model


def test_pruned_heads_are_those_masked(tmp_path: Path) -> None:
    model, ids = make(DistilBertForMaskedLM), text()
    keep = torch.tensor([[1.0, 0, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        masked = model(ids, head_mask=keep).logits
        model.prune_heads({0: [1], 1: [2, 3]})
        torch.testing.assert_close(model(ids).logits, masked, atol=1e-5, rtol=0)
    second = model.distilbert.transformer.layer[1].attention
    assert (second.num_heads, second.pruned_heads) == (2, {2, 3})
    assert second.out_lin.weight.shape == (24, 12)
    assert_round_trip(model, {"input_ids": ids}, tmp_path)


def test_checkpointing_gives_the_same_gradients() -> None:
    model, ids = make(DistilBertForMaskedLM, dropout=0.0, attention_dropout=0.0).train(), text()
    model(ids, labels=ids).loss.backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(ids, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name])


@pytest.mark.parametrize("name", ["DistilBertModel", "DistilBertForMaskedLM"])
@pytest.mark.parametrize("positions", [12, 30])
def test_positions_are_resized(name: str, positions: int) -> None:
    model = make(find_class("distilbert", name), sinusoidal_pos_embds=True)
    model.resize_position_embeddings(positions)
    table = model.get_position_embeddings().weight
    assert torch.equal(table, sinusoids(positions, 24))
    assert not table.requires_grad
    assert model.config.max_position_embeddings == positions
    learned = make(find_class("distilbert", name))
    before = learned.get_position_embeddings().weight.detach().clone()
    learned.resize_position_embeddings(positions)
    assert torch.equal(learned.get_position_embeddings().weight[:12], before[:12])
