from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import REFERENCE, find_class, load_arrays, pick, run_case, tiny_gpt2
from torch import Tensor

from pretrained import AutoModel, AutoModelForCausalLM
from pretrained.errors import ConfigError
from pretrained.models.gpt2.configuration_gpt2 import GPT2Config
from pretrained.models.gpt2.family import FAMILY
from pretrained.models.gpt2.modeling_gpt2 import GPT2Attention, GPT2Model
from pretrained.models.gpt2.modeling_gpt2_heads import GPT2DoubleHeadsModel, GPT2LMHeadModel
from pretrained.models.gpt2.modeling_gpt2_tasks import GPT2ForSequenceClassification
from pretrained.pt.kv_cache import EncoderDecoderKVCache, KVCache, StaticKVCache
from pretrained.pt.layers import Conv1D

FOLDER = REFERENCE / "gpt2"
SPECS = json.loads((REFERENCE / "gpt2_heads/cases.json").read_text())["cases"]
CLASSES = sorted({p.split(":")[1] for p in FAMILY.pt.values()} | {"GPT2DoubleHeadsModel"})
FOLDERS = sorted(path.name for path in FOLDER.glob("torch-*"))
BOTH = pytest.mark.parametrize("attention", ["eager", "sdpa"])
CROSSED = {"add_cross_attention": True}


def make(cls: type, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return cls(tiny_gpt2(**changes)).eval()


def text(batch: int = 2, length: int = 8, seed: int = 1) -> Tensor:
    return torch.randint(1, 61, (batch, length), generator=torch.Generator().manual_seed(seed))


def load(name: str, folder: str = "torch-safetensors", **keywords: Any) -> Any:
    variant = "bf16" if "variant" in folder else None
    return find_class("gpt2", name).from_pretrained(FOLDER / folder, variant=variant, **keywords)  # type: ignore[attr-defined]


# Numbers of the reference implementation


@BOTH
@pytest.mark.parametrize("places", ["torch", "torch+position_ids"])
@pytest.mark.parametrize("name", ["GPT2Model", "GPT2LMHeadModel"])
def test_reference(name: str, places: str, attention: str) -> None:
    model, inputs = load(name, attn_implementation=attention), load_arrays(FOLDER / "inputs.npz")
    seen = inputs["attention_mask"].bool()
    if places != "torch":
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        output = model(**inputs)
    expected = load_arrays(FOLDER / "expected.npz")
    keys = [key for key in expected if key.startswith(f"{places}/{name}/")]
    assert keys
    for key in keys:
        torch.testing.assert_close(output[key.split("/")[2]][seen], expected[key][seen], atol=2e-5, rtol=0)


def seen_only(found: Tensor, value: Tensor, seen: Tensor, name: str) -> Iterator[Tensor]:
    for x in (found, value):
        if name.startswith(("attentions", "cross_attentions")):  # to (batch, queries, heads, keys)
            x = x.transpose(1, 2)
        yield x[seen] if x.shape[: seen.dim()] == seen.shape else x


@BOTH
@pytest.mark.parametrize("case", sorted(SPECS))
def test_heads(case: str, attention: str) -> None:
    output, expected = run_case("gpt2", "gpt2_heads", case, attention)
    inputs = load_arrays(REFERENCE / "gpt2_heads/inputs.npz")
    seen = inputs["choice_mask" if case == "double" else "attention_mask"].bool()
    if "@attention_mask" not in SPECS[case]["inputs"].values() and case != "double":
        seen = torch.ones_like(seen)
    assert {name.split(".")[0] for name in expected} == set(output) - {"past_key_values"}
    for name, value in expected.items():
        found, wanted = seen_only(pick(output, name), value, seen, name)
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    if case == "model":
        assert len(output.hidden_states) == 3
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


# Loading and saving


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("folder", FOLDERS)
def test_loads_and_saves(name: str, folder: str, tmp_path: Path) -> None:
    model, report = load(name, folder, output_loading_info=True)
    heads = ("multiple_choice_head.", "qa_outputs.", "score.", "classifier.")
    assert all(key.startswith(heads) for key in report["missing_keys"])
    assert all(key == "lm_head.weight" for key in report["unexpected_keys"])
    assert not report["conflicts"]
    half = torch.bfloat16 if "bf16" in folder else torch.float16 if "fp16" in folder else torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {half}
    model.save_pretrained(tmp_path, durable=False)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True, strict=True)
    assert report["missing_keys"] == report["unexpected_keys"] == []
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    assert again.dtype == half


def test_all_folders_hold_one_model() -> None:
    ids = text(2, 7)
    with torch.no_grad():
        wanted = load("GPT2LMHeadModel")(ids).logits
        for folder in FOLDERS:
            half = "16" in folder
            found = load("GPT2LMHeadModel", folder, dtype="float32")(ids).logits
            torch.testing.assert_close(found, wanted, atol=2e-2 if half else 0.0, rtol=0)


def test_published_names(tmp_path: Path) -> None:
    """The files of the first release: no prefix, and buffers that nothing needs."""
    (tmp_path / "config.json").write_text((FOLDER / "torch-base-only/config.json").read_text())
    state = load_file(FOLDER / "torch-base-only/model.safetensors")
    for index in range(2):
        state[f"h.{index}.attn.bias"] = torch.ones(40, 40).tril().view(1, 1, 40, 40)
        state[f"h.{index}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for cls in (AutoModelForCausalLM, AutoModel):
        model, report = cls.from_pretrained(tmp_path, output_loading_info=True, strict=True)
        assert report["unexpected_keys"] == report["missing_keys"] == []
    state["h.0.attn.c_attn.biases"] = torch.zeros(1)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)[1]
    assert report["unexpected_keys"] == ["h.0.attn.c_attn.biases"]
    assert type(model) is GPT2Model


def test_every_auto_name_is_a_class() -> None:
    for place in FAMILY.pt.values():
        assert find_class("gpt2", place.split(":")[1]).base_model_prefix == "transformer"  # type: ignore[attr-defined]


def test_config_has_both_names() -> None:
    config = GPT2Config(hidden_size=24, num_attention_heads=4, n_layer=3)
    assert (config.n_embd, config.n_head, config.num_hidden_layers) == (24, 4, 3)
    assert GPT2Config.from_dict(config.to_dict()) == config
    assert GPT2Config.from_dict({"n_embd": 24}, hidden_size=48).n_embd == 48


def test_tied_and_untied() -> None:
    tied, untied = make(GPT2LMHeadModel), make(GPT2LMHeadModel, tie_word_embeddings=False)
    assert tied.lm_head.weight is tied.transformer.wte.weight
    assert untied.lm_head.weight is not untied.transformer.wte.weight
    assert untied.get_output_embeddings() is untied.lm_head
    assert untied.get_input_embeddings() is untied.transformer.wte


def test_initial_weights() -> None:
    model = make(GPT2LMHeadModel, n_embd=96, n_layer=8, initializer_range=0.1)
    block = model.transformer.h[3]
    for weight, std in (
        (model.transformer.wte.weight, 0.1),
        (model.transformer.wpe.weight, 0.1),
        (block.attn.c_attn.weight, 0.1),
        (block.attn.c_proj.weight, 0.025),
        (block.mlp.c_proj.weight, 0.025),
    ):
        assert abs(weight.std().item() / std - 1) < 0.05
    assert torch.all(block.ln_1.weight == 1)
    assert torch.all(block.attn.c_attn.bias == 0)


# Decoding


@BOTH
@pytest.mark.parametrize("upcast", [False, True])
def test_cache_equals_no_cache(upcast: bool, attention: str) -> None:
    model = make(GPT2LMHeadModel, attn_implementation=attention, reorder_and_upcast_attn=upcast)
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


@BOTH
def test_preallocated_cache(attention: str) -> None:
    model, ids = make(GPT2LMHeadModel, attn_implementation=attention), text(2, 9)
    cache = StaticKVCache(2, 2, 4, 40, 6)
    with torch.no_grad():
        whole = model(ids).logits
        pieces = [model(ids[:, a:b], past_key_values=cache).logits for a, b in ((0, 5), (5, 6), (6, 9))]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)
    assert cache.get_seq_length() == 9


@BOTH
def test_cross_attention_is_computed_once(attention: str) -> None:
    model, ids = make(GPT2LMHeadModel, attn_implementation=attention, **CROSSED), text(2, 6)
    states, mask = torch.randn(2, 5, 24), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    given = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
    with torch.no_grad():
        whole = model(ids, **given, output_attentions=True)
        first = model(ids[:, :4], **given)
        assert isinstance(first.past_key_values, EncoderDecoderKVCache)
        given["encoder_hidden_states"] = torch.full_like(states, torch.nan)  # its keys are in the cache by now
        second = model(ids[:, 4:], past_key_values=first.past_key_values, **given)
        alone = model(ids)  # a model that may attend to an encoder need not
    assert [w.shape for w in whole.cross_attentions] == [(2, 4, 6, 5)] * 2
    assert torch.all(whole.cross_attentions[0][1, :, :, 2:] == 0)
    torch.testing.assert_close(second.logits, whole.logits[:, 4:], atol=1e-5, rtol=0)
    assert alone.cross_attentions is None
    assert not torch.allclose(alone.logits, whole.logits)


def test_legacy_tuples_come_back_as_such() -> None:
    model, ids = make(GPT2LMHeadModel), text(2, 6)
    with torch.no_grad():
        whole = model(ids)
        past = model(ids[:, :4]).past_key_values.to_legacy()
        output = model(ids[:, 4:], past_key_values=past)
    assert isinstance(output.past_key_values, tuple)
    assert output.past_key_values[1][0].shape == (2, 4, 6, 6)
    torch.testing.assert_close(output.logits, whole.logits[:, 4:], atol=1e-5, rtol=0)


@BOTH
def test_left_padding_changes_nothing(attention: str) -> None:
    model, ids = make(GPT2LMHeadModel, attn_implementation=attention), text(2, 6)
    padded = torch.cat((torch.zeros(2, 3, dtype=torch.int64), ids), 1)
    mask = torch.tensor([[0] * 3 + [1] * 6] * 2)
    with torch.no_grad():
        given = model.prepare_inputs_for_generation(padded, attention_mask=mask)
        assert given["position_ids"].tolist() == [[0, 0, 0, 0, 1, 2, 3, 4, 5]] * 2
        long = model(**given).logits
        torch.testing.assert_close(long[:, 3:], model(ids).logits, atol=2e-5, rtol=0)
    assert torch.isfinite(long).all()


@BOTH
def test_steps_of_generation(attention: str) -> None:
    """Step by step with a cache and padding on the left: the same words as without either."""
    model, ids = make(GPT2LMHeadModel, attn_implementation=attention, initializer_range=0.5), text(1, 4)
    plain, seen = ids, torch.cat((torch.zeros(1, 2, dtype=torch.int64), ids), 1)
    mask, past = torch.tensor([[0, 0, 1, 1, 1, 1]]), None
    with torch.no_grad():
        for step in range(6):
            plain = torch.cat((plain, model(plain).logits[:, -1].argmax(-1, keepdim=True)), 1)
            given = model.prepare_inputs_for_generation(
                seen, past_key_values=past, attention_mask=mask, token_type_ids=None, use_cache=True
            )
            assert given["input_ids"].shape[1] == (1 if step else 6)
            assert given["position_ids"].shape == given["input_ids"].shape
            output = model(**given)
            past = output.past_key_values
            seen = torch.cat((seen, output.logits[:, -1].argmax(-1, keepdim=True)), 1)
            mask = torch.cat((mask, torch.ones(1, 1, dtype=torch.int64)), 1)
    assert seen[:, 2:].tolist() == plain.tolist()
    assert len(set(seen[0, 6:].tolist())) > 1
    assert GPT2LMHeadModel.can_generate()
    assert not GPT2Model.can_generate()


def test_generation_from_embeddings() -> None:
    model, ids = make(GPT2LMHeadModel), text(2, 4)
    embeds = model.transformer.wte(ids)
    first = model.prepare_inputs_for_generation(ids[:, :0], inputs_embeds=embeds, token_type_ids=ids)
    assert "input_ids" not in first
    assert first["inputs_embeds"] is embeds
    with torch.no_grad():
        output = model(inputs_embeds=embeds)
        next_ids = output.logits[:, -1].argmax(-1, keepdim=True)
        mask = torch.ones(2, 5, dtype=torch.int64)
        given = model.prepare_inputs_for_generation(
            next_ids, past_key_values=output.past_key_values, inputs_embeds=embeds, attention_mask=mask
        )
        assert given["input_ids"].tolist() == next_ids.tolist()
        assert given["position_ids"].tolist() == [[4], [4]]
        whole = model(torch.cat((ids, next_ids), 1)).logits[:, -1:]
        torch.testing.assert_close(model(**given).logits, whole, atol=1e-5, rtol=0)


# What callers may ask for


def test_weights_are_returned_whatever_the_attention() -> None:
    model, ids = make(GPT2LMHeadModel, attn_implementation="sdpa"), text()
    with torch.no_grad():
        plain, full = model(ids), model(ids, output_attentions=True)
    assert plain.attentions is None
    torch.testing.assert_close(full.logits, plain.logits, atol=1e-5, rtol=0)
    weights = full.attentions[0]
    assert weights.shape == (2, 4, 8, 8)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 8))
    assert torch.all(weights.triu(1) == 0)


def without_head(attention: GPT2Attention, head: int) -> None:
    """Takes one head out of an attention layer, as pruning does."""
    size = attention.head_dim
    kept = torch.tensor([i for i in range(attention.num_heads * size) if i // size != head])
    width = attention.num_heads * size
    columns = torch.cat([kept + part * width for part in range(3)])
    attention.c_attn.weight = torch.nn.Parameter(attention.c_attn.weight[:, columns])
    attention.c_attn.bias = torch.nn.Parameter(attention.c_attn.bias[columns])
    attention.c_proj.weight = torch.nn.Parameter(attention.c_proj.weight[kept])
    attention.num_heads -= 1
    attention.pruned_heads.add(head)


@BOTH
def test_head_mask_is_what_pruning_leaves(attention: str) -> None:
    model, ids = make(GPT2Model, attn_implementation=attention), text()
    head_mask = torch.ones(2, 4)
    head_mask[0, 2] = 0
    with torch.no_grad():
        plain, masked = model(ids)[0], model(ids, head_mask=head_mask, output_attentions=True)
        without_head(model.h[0].attn, 2)
        pruned = model(ids, output_attentions=True)
    assert torch.all(masked.attentions[0][:, 2] == 0)
    assert pruned.attentions[0].shape == (2, 3, 8, 8)
    torch.testing.assert_close(pruned[0], masked[0], atol=1e-5, rtol=0)
    assert not torch.allclose(plain, masked[0])


def test_tuples_and_embeddings() -> None:
    model, ids = make(GPT2LMHeadModel), text()
    with torch.no_grad():
        output = model(ids, labels=ids)
        values = model(inputs_embeds=model.transformer.wte(ids), labels=ids, return_dict=False, use_cache=False)
    assert len(values) == 2
    torch.testing.assert_close(values[0], output.loss)
    torch.testing.assert_close(values[1], output.logits)


def test_double_heads_take_any_number_of_axes() -> None:
    model, ids = make(GPT2DoubleHeadsModel), text(4, 6)
    with torch.no_grad():
        flat = model(ids)
        folded = model(ids.view(2, 2, 6), output_hidden_states=True)
        embedded = model(inputs_embeds=model.transformer.wte(ids.view(2, 2, 6)))
    assert folded.logits.shape == (2, 2, 6, 61)
    assert folded.mc_logits.shape == (2, 2)
    for output in (folded, embedded):
        torch.testing.assert_close(output.logits.flatten(0, 1), flat.logits)
        torch.testing.assert_close(output.mc_logits.flatten(), flat.mc_logits)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()


def test_classification_uses_the_last_token_on_either_side() -> None:
    model = make(GPT2ForSequenceClassification, num_labels=3)
    ids = text(1, 5)
    pad = torch.zeros(1, 2, dtype=torch.int64)
    mask = torch.ones(1, 5, dtype=torch.int64)
    with torch.no_grad():
        plain = model(ids).logits
        right = model(torch.cat((ids, pad), 1), attention_mask=torch.cat((mask, pad), 1)).logits
        places = torch.tensor([[0, 0, 0, 1, 2, 3, 4]])
        left = model(torch.cat((pad, ids), 1), attention_mask=torch.cat((pad, mask), 1), position_ids=places).logits
        with pytest.warns(UserWarning, match="padding cannot be seen in inputs_embeds"):
            found = model(inputs_embeds=model.transformer.wte(ids)).logits
    for logits in (right, left, found):
        torch.testing.assert_close(logits, plain, atol=1e-5, rtol=0)
    model.config.pad_token_id = None
    torch.testing.assert_close(model(ids).logits, plain)
    with pytest.raises(ValueError, match="to find where each row ends"):
        model(text(2, 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_upcast_attention_is_float32_in_a_half_model(dtype: torch.dtype) -> None:
    """Scores far beyond the range of float16 still tell the largest from the rest."""
    plain = make(GPT2Model, n_layer=1, scale_attn_weights=False, reorder_and_upcast_attn=True)
    with torch.no_grad():
        plain.h[0].attn.c_attn.weight.mul_(300)
    half = make(GPT2Model, n_layer=1, scale_attn_weights=False, reorder_and_upcast_attn=True)
    half.load_state_dict(plain.state_dict())
    half.to(dtype)
    plain.load_state_dict(half.state_dict())
    ids = text(1, 6)
    with torch.no_grad():
        wanted, found = plain(ids, output_attentions=True), half(ids, output_attentions=True)
    assert found[0].dtype == found.attentions[0].dtype == dtype
    assert torch.isfinite(found[0]).all()
    assert torch.equal(found.attentions[0].argmax(-1), wanted.attentions[0].argmax(-1))


@pytest.mark.parametrize(
    ("cls", "changes", "message"),
    [
        (GPT2Model, {"n_head": 5}, "heads must divide the hidden size: n_embd=24, n_head=5"),
        (GPT2Model, {"activation_function": "gelu_neu"}, "Did you mean 'gelu_new'"),
        (GPT2DoubleHeadsModel, {"summary_type": "attn"}, "Known: cls_index, first, last, mean"),
    ],
)
def test_impossible_configs_are_refused(cls: type, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(tiny_gpt2(**changes))
    with pytest.raises(ConfigError, match="'n_layer' must be positive"):
        GPT2Config.from_dict({"n_layer": -1})


def test_wrong_inputs_are_refused() -> None:
    model, ids = make(GPT2Model), text()
    with pytest.raises(ValueError, match="attention_mask is 7 long, expected 8"):
        model(ids, attention_mask=torch.ones(2, 7))
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()
    with pytest.raises(ValueError, match="33 tokens are more than n_positions=32"):
        model(text(1, 33))
    past = model(text(1, 30)).past_key_values
    with pytest.raises(ValueError, match="33 tokens are more than n_positions=32"):
        model(text(1, 3), past_key_values=past)
    with pytest.raises(ValueError, match="add_cross_attention=True"):
        model(ids, encoder_hidden_states=torch.zeros(2, 3, 24))


@BOTH
def test_training_lowers_the_loss(attention: str) -> None:
    model, ids = make(GPT2LMHeadModel, attn_implementation=attention).train(), text()
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


def test_dropout_is_where_the_config_says() -> None:
    ids = text()
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        rates = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, name: 0.5}
        model = make(GPT2Model, **rates).train()
        assert not torch.equal(model(ids)[0], model(ids)[0]), name
    model = make(GPT2Model, **dict.fromkeys(rates, 0.0)).train()
    assert torch.equal(model(ids)[0], model(ids)[0])


def test_export() -> None:
    model, ids = make(GPT2Model, attn_implementation="sdpa"), text()
    exported = torch.export.export(model, (ids,), {"attention_mask": torch.ones_like(ids), "use_cache": False})
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    found = exported.module()(ids, attention_mask=mask, use_cache=False)
    torch.testing.assert_close(found["last_hidden_state"], model(ids, attention_mask=mask)[0])


def test_conv1d() -> None:
    layer = Conv1D(5, 3)
    with torch.no_grad():
        layer.bias.add_(1.0)
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(layer(x), x @ layer.weight + 1.0)
    assert layer.weight.shape == (3, 5)
    assert repr(layer) == "Conv1D(nf=5, nx=3)"


@BOTH
def test_attention_to_an_encoder_keeps_its_heads(attention: str) -> None:
    model, ids = make(GPT2LMHeadModel, attn_implementation=attention, **CROSSED), text()
    given = {"encoder_hidden_states": torch.randn(2, 5, 24)}
    model.prune_heads({0: [1, 3], 1: [0, 1, 2, 3]})
    first = model.transformer.h[0]
    assert first.attn.c_attn.weight.shape == (24, 36) and first.attn.c_attn.nf == 36
    assert first.attn.c_proj.weight.shape == (12, 24) and first.crossattention.c_attn.weight.shape == (24, 48)
    with torch.no_grad():
        output = model(ids, **given, output_attentions=True)
        assert [w.shape[1] for w in output.attentions] == [2, 0]
        assert [w.shape[1] for w in output.cross_attentions] == [4, 4]
        past = model(ids[:, :4], **given).past_key_values
        rest = model(ids[:, 4:], past_key_values=past, **given).logits
    torch.testing.assert_close(rest, output.logits[:, 4:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [20, 40])
def test_positions_are_resized(size: int) -> None:
    model, ids = make(GPT2LMHeadModel), text()
    with torch.no_grad():
        before = model(ids).logits
        model.resize_position_embeddings(size)
        torch.testing.assert_close(model(ids).logits, before)
    assert model.config.n_positions == model.transformer.wpe.num_embeddings == size
    with pytest.raises(ValueError, match=rf"{size + 1} tokens are more than n_positions={size}"):
        model(text(length=size + 1))
