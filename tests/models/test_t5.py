from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import REFERENCE, find_class, load_arrays, pick, run_case, tiny_t5
from torch import Tensor

from pretrained import AutoModel, AutoModelForSeq2SeqLM
from pretrained.errors import ConfigError
from pretrained.models.t5.configuration_t5 import T5Config
from pretrained.models.t5.family import FAMILY
from pretrained.models.t5.modeling_t5 import T5EncoderModel, T5Model
from pretrained.models.t5.modeling_t5_heads import T5ForConditionalGeneration
from pretrained.models.t5.modeling_t5_layers import T5Attention, T5LayerNorm, relative_buckets
from pretrained.models.t5.modeling_t5_tasks import (
    T5ForQuestionAnswering,
    T5ForSequenceClassification,
    T5ForTokenClassification,
)
from pretrained.pt.kv_cache import EncoderDecoderKVCache, StaticKVCache
from pretrained.pt.outputs import BaseModelOutput

FOLDER = REFERENCE / "t5"
SPECS = json.loads((REFERENCE / "t5_heads/cases.json").read_text())["cases"]
CLASSES = sorted({p.split(":")[1] for p in FAMILY.pt.values()} | {"T5EncoderModel"})
FOLDERS = sorted(path.name for path in FOLDER.glob("torch-*"))
BOTH = pytest.mark.parametrize("attention", ["eager", "sdpa"])


def make(cls: type, seed: int = 0, **changes: Any) -> Any:
    """A model whose norms and biases differ from one another, which fresh ones do not."""
    torch.manual_seed(seed)
    model = cls(tiny_t5(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def text(batch: int = 2, length: int = 8, seed: int = 1) -> Tensor:
    return torch.randint(2, 61, (batch, length), generator=torch.Generator().manual_seed(seed))


def load(name: str, folder: str = "torch-safetensors", **keywords: Any) -> Any:
    variant = "bf16" if "variant" in folder else None
    return find_class("t5", name).from_pretrained(FOLDER / folder, variant=variant, **keywords)  # type: ignore[attr-defined]


# Numbers of the reference implementation


@BOTH
@pytest.mark.parametrize("name", ["T5Model", "T5ForConditionalGeneration", "T5EncoderModel"])
def test_reference(name: str, attention: str) -> None:
    model, inputs = load(name, attn_implementation=attention), load_arrays(FOLDER / "inputs.npz")
    if name == "T5EncoderModel":
        del inputs["decoder_input_ids"]
    with torch.no_grad():
        output = model(**inputs)
    expected = load_arrays(FOLDER / "expected.npz")
    keys = [key for key in expected if key.startswith(f"torch/{name}/")]
    assert keys
    for key in keys:
        torch.testing.assert_close(output[key.split("/")[2]], expected[key], atol=2e-5, rtol=0)


@BOTH
@pytest.mark.parametrize("case", sorted(SPECS))
def test_heads(case: str, attention: str) -> None:
    output, expected = run_case("t5", "t5_heads", case, attention)
    assert {name.split(".")[0] for name in expected} == set(output) - {"past_key_values"}
    for name, value in expected.items():
        torch.testing.assert_close(pick(output, name), value, atol=2e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    if case == "model":
        assert len(output.encoder_hidden_states) == len(output.decoder_hidden_states) == 3
        assert torch.equal(output.decoder_hidden_states[-1], output.last_hidden_state)


# Buckets, by what the paper says of them


def test_buckets_of_an_encoder() -> None:
    distance = torch.arange(-40, 41)
    bucket = dict(zip(distance.tolist(), relative_buckets(distance, True, 8, 20).tolist(), strict=True))
    assert [bucket[d] for d in (0, -1, 1, -2, 2)] == [0, 1, 5, 2, 6]
    assert bucket[-20] == bucket[-40] == 3
    assert bucket[20] == bucket[40] == 7
    assert sorted(bucket[-d] for d in range(41)) == [bucket[-d] for d in range(41)]


def test_buckets_of_a_decoder() -> None:
    distance = torch.arange(-200, 5)
    bucket = dict(zip(distance.tolist(), relative_buckets(distance, False, 32, 128).tolist(), strict=True))
    assert [bucket[-d] for d in range(16)] == list(range(16))
    assert {bucket[d] for d in range(5)} == {0}
    assert bucket[-128] == bucket[-200] == 31
    assert bucket[-127] == 31
    assert bucket[-16] == 16


# Loading and saving


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("folder", FOLDERS)
def test_loads_and_saves(name: str, folder: str, tmp_path: Path) -> None:
    model, report = load(name, folder, output_loading_info=True)
    heads = ("classification_head.", "qa_outputs.", "classifier.")
    assert all(key.startswith(heads) for key in report["missing_keys"])
    assert all(key == "lm_head.weight" for key in report["unexpected_keys"])
    assert not report["conflicts"]
    half = torch.bfloat16 if "bf16" in folder else torch.float16 if "fp16" in folder else torch.float32
    kept = torch.float32 if half == torch.float16 else half
    assert {p.dtype for n, p in model.named_parameters() if not n.endswith("wo.weight")} == {half}
    assert {p.dtype for n, p in model.named_parameters() if n.endswith("wo.weight")} == {kept}
    model.save_pretrained(tmp_path, durable=False)
    assert not any(name.endswith("embed_tokens.weight") for name in load_file(tmp_path / "model.safetensors"))
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True, strict=True)
    assert report["missing_keys"] == report["unexpected_keys"] == []
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    assert again.config == model.config


def test_all_folders_hold_one_model() -> None:
    ids, said = text(2, 7), text(2, 4, seed=2)
    with torch.no_grad():
        wanted = load("T5ForConditionalGeneration")(ids, decoder_input_ids=said).logits
        for folder in FOLDERS:
            half = "16" in folder
            found = load("T5ForConditionalGeneration", folder, dtype="float32")(ids, decoder_input_ids=said).logits
            torch.testing.assert_close(found, wanted, atol=2e-2 if half else 0.0, rtol=0)


@pytest.mark.parametrize(
    "names",
    [
        ("shared.weight",),
        ("encoder.embed_tokens.weight",),
        ("decoder.embed_tokens.weight", "lm_head.weight"),
        ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
    ],
)
def test_any_name_of_the_word_embeddings_is_enough(names: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((FOLDER / "torch-safetensors/config.json").read_text())
    state = load_file(FOLDER / "torch-safetensors/model.safetensors")
    words = state.pop("shared.weight")
    unused = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.zeros(8, 4)}
    save_file(state | unused | {name: words.clone() for name in names}, tmp_path / "model.safetensors")
    model, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True, strict=True)
    assert report["missing_keys"] == report["unexpected_keys"] == []
    assert type(model) is T5ForConditionalGeneration
    for place in (model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens, model.lm_head):
        assert place.weight is model.shared.weight
    assert torch.equal(model.shared.weight, words)


def test_untied_logits_survive(tmp_path: Path) -> None:
    model = make(T5ForConditionalGeneration, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    assert model.lm_head.weight is not model.shared.weight
    assert model.encoder.embed_tokens.weight is model.shared.weight
    assert model.get_output_embeddings() is model.lm_head
    ids = text()
    with torch.no_grad():
        wanted = model(ids, decoder_input_ids=ids).logits
    model.save_pretrained(tmp_path, durable=False)
    assert "lm_head.weight" in load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    again = T5ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager")
    with torch.no_grad():
        assert torch.equal(again(ids, decoder_input_ids=ids).logits, wanted)
    # As releases 5.x write the same model.
    text_of_5 = json.dumps(config | {"tie_word_embeddings": True, "scale_decoder_outputs": False})
    (tmp_path / "config.json").write_text(text_of_5)
    again = T5ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager", strict=True)
    with torch.no_grad():
        assert torch.equal(again(ids, decoder_input_ids=ids).logits, wanted)


def test_every_auto_name_is_a_class() -> None:
    for place in FAMILY.pt.values():
        assert find_class("t5", place.split(":")[1]).base_model_prefix == "transformer"  # type: ignore[attr-defined]
    assert type(AutoModel.from_pretrained(FOLDER / "torch-base-only")) is T5Model


def test_config_fills_what_follows() -> None:
    config = T5Config(hidden_size=24, num_hidden_layers=3)
    assert (config.d_model, config.num_layers, config.num_decoder_layers) == (24, 3, 3)
    assert (config.dense_act_fn, config.is_gated_act, config.tie_word_embeddings) == ("relu", False, True)
    gated = T5Config(feed_forward_proj="gated-gelu")
    assert (gated.dense_act_fn, gated.is_gated_act) == ("gelu_new", True)
    assert T5Config(feed_forward_proj="gated-silu").dense_act_fn == "silu"
    assert T5Config.from_dict({"scale_decoder_outputs": True}).tie_word_embeddings is True
    assert T5Config.from_dict(gated.to_dict()) == gated


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"feed_forward_proj": "open-gelu"},
            "feed_forward_proj='open-gelu' must be an activation, or 'gated-' and one",
        ),
        ({"feed_forward_proj": "gated-"}, "must be an activation"),
        ({"feed_forward_proj": "rely"}, "Did you mean 'relu'"),
        ({"relative_attention_num_buckets": 3}, "there must be 4 buckets or more"),
        ({"relative_attention_max_distance": 4}, "a maximal distance of more than half as many"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        T5Model(tiny_t5(**changes))


def test_initial_weights() -> None:
    torch.manual_seed(0)
    config = tiny_t5(d_model=64, d_kv=16, num_heads=4, d_ff=128, vocab_size=500, initializer_factor=0.5)
    config.tie_word_embeddings = False
    model = T5ForConditionalGeneration(config)
    block: Any = model.encoder.block[0].layer
    attention, dense = block[0].SelfAttention, block[1].DenseReluDense
    for weight, std in (
        (model.shared.weight, 1.0),
        (model.lm_head.weight, 1.0),
        (attention.q.weight, (64 * 16) ** -0.5),
        (attention.k.weight, 64**-0.5),
        (attention.o.weight, 64**-0.5),
        (dense.wi.weight, 64**-0.5),
        (dense.wo.weight, 128**-0.5),
    ):
        assert abs(weight.std().item() / (0.5 * std) - 1) < 0.06
    assert 0.3 < attention.relative_attention_bias.weight.std().item() / (0.5 * 64**-0.5) < 1.7
    assert torch.all(block[0].layer_norm.weight == 0.5)
    config = tiny_t5(d_model=64, d_kv=16, num_heads=4, num_labels=50)
    torch.manual_seed(0)
    assert abs(T5ForTokenClassification(config).classifier.weight.std().item() - 1) < 0.06
    head = T5ForSequenceClassification(config).classification_head
    assert abs(head.dense.weight.std().item() * 8 - 1) < 0.06
    assert torch.all(head.out_proj.bias == 0)
    assert abs(T5ForQuestionAnswering(config).qa_outputs.weight.std().item() * 8 - 1) < 0.06


def test_missing_layers_are_initialised_as_fresh_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(tiny_t5(d_model=64, d_kv=16, num_heads=4, d_ff=128))
    model.save_pretrained(tmp_path, durable=False)
    state = load_file(tmp_path / "model.safetensors")
    kept = {k: v for k, v in state.items() if ".SelfAttention." not in k and "layer_norm" not in k}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = T5ForConditionalGeneration.from_pretrained(tmp_path)
    attention: Any = again.encoder.block[0].layer[0].SelfAttention
    assert abs(attention.q.weight.std().item() * 32 - 1) < 0.06
    assert abs(attention.v.weight.std().item() * 8 - 1) < 0.06
    assert torch.all(again.decoder.final_layer_norm.weight == 1)
    assert torch.equal(again.shared.weight, model.shared.weight)
    assert again.lm_head.weight is again.shared.weight


# Decoding


@BOTH
def test_cache_equals_no_cache(attention: str) -> None:
    model, ids, said = make(T5ForConditionalGeneration, attn_implementation=attention), text(2, 7), text(2, 20, seed=2)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    decoder_mask = torch.ones_like(said)
    decoder_mask[0, :3] = 0
    for given in (None, decoder_mask):
        with torch.no_grad():
            encoded = model.get_encoder()(ids, mask)
            common = {"encoder_outputs": encoded, "attention_mask": mask}
            whole = model(
                ids, decoder_input_ids=said, decoder_attention_mask=given, attention_mask=mask, use_cache=False
            )
            assert whole.past_key_values is None
            past, pieces = None, []
            for start, end in ((0, 4), (4, 5), (5, 19), (19, 20)):
                part = None if given is None else given[:, :end]
                output = model(
                    decoder_input_ids=said[:, start:end], decoder_attention_mask=part, past_key_values=past, **common
                )
                past = output.past_key_values
                pieces.append(output.logits)
        seen = torch.ones_like(said).bool() if given is None else given.bool()
        assert isinstance(past, EncoderDecoderKVCache)
        torch.testing.assert_close(torch.cat(pieces, 1)[seen], whole.logits[seen], atol=1e-5, rtol=0)


@BOTH
def test_preallocated_cache(attention: str) -> None:
    model, ids, said = make(T5ForConditionalGeneration, attn_implementation=attention), text(), text(2, 9, seed=2)
    cache = EncoderDecoderKVCache(StaticKVCache(2, 2, 3, 16, 6))  # type: ignore[arg-type]
    with torch.no_grad():
        whole = model(ids, decoder_input_ids=said).logits
        pieces = []
        for start, end in ((0, 5), (5, 6), (6, 9)):
            places = torch.arange(start, end) if start else None  # as a compiled step must
            given = {"decoder_input_ids": said[:, start:end], "past_key_values": cache, "cache_position": places}
            pieces.append(model(ids, **given).logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)
    assert cache.get_seq_length() == 9


def test_cross_attention_is_computed_once() -> None:
    model, ids, said = make(T5Model), text(), text(2, 6, seed=2)
    with torch.no_grad():
        whole = model(ids, decoder_input_ids=said, output_attentions=True)
        first = model(ids, decoder_input_ids=said[:, :4])
        gone = BaseModelOutput(torch.full_like(whole.encoder_last_hidden_state, torch.nan))
        past = first.past_key_values
        second = model(encoder_outputs=gone, decoder_input_ids=said[:, 4:], past_key_values=past)
        legacy = model(ids, decoder_input_ids=said[:, 4:], past_key_values=tuple(e for e in crop(past, 4)))
    assert [w.shape for w in whole.cross_attentions] == [(2, 3, 6, 8)] * 2
    torch.testing.assert_close(second[0], whole[0][:, 4:], atol=1e-5, rtol=0)
    torch.testing.assert_close(legacy[0], whole[0][:, 4:], atol=1e-5, rtol=0)
    assert isinstance(legacy.past_key_values, tuple)
    assert len(legacy.past_key_values[0]) == 4


def crop(cache: Any, length: int) -> Any:
    cache.crop(length)
    return cache.to_legacy()


def test_encoder_outputs_in_any_form() -> None:
    model, ids = make(T5ForConditionalGeneration), text()
    labels = text(2, 5, seed=2)
    with torch.no_grad():
        whole = model(ids, labels=labels, output_hidden_states=True)
        encoded = model.encoder(ids, output_hidden_states=True)
        for given in (encoded, encoded.to_tuple(), (encoded[0],), BaseModelOutput(encoded[0])):
            output = model(encoder_outputs=given, labels=labels)
            torch.testing.assert_close(output.logits, whole.logits)
            assert torch.equal(output.encoder_last_hidden_state, encoded[0])
        assert len(model(encoder_outputs=encoded.to_tuple(), labels=labels).encoder_hidden_states) == 3


@BOTH
def test_steps_of_generation(attention: str) -> None:
    model, ids = make(T5ForConditionalGeneration, attn_implementation=attention, tie_word_embeddings=False), text(2, 6)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    plain = seen = torch.zeros(2, 1, dtype=torch.int64)
    past = None
    with torch.no_grad():
        encoded = model.get_encoder()(ids, mask)
        for _ in range(6):
            logits = model(ids, mask, plain).logits
            plain = torch.cat((plain, logits[:, -1].argmax(-1, keepdim=True)), 1)
            given = model.prepare_inputs_for_generation(
                seen, past_key_values=past, attention_mask=mask, encoder_outputs=encoded, use_cache=True
            )
            assert given["decoder_input_ids"].shape == (2, 1)
            output = model(**given)
            past = output.past_key_values
            seen = torch.cat((seen, output.logits[:, -1].argmax(-1, keepdim=True)), 1)
    assert seen.tolist() == plain.tolist()
    assert len(set(seen[0, 1:].tolist())) > 1
    assert T5ForConditionalGeneration.can_generate()
    assert not T5Model.can_generate()


def test_shift_right() -> None:
    model = make(T5ForConditionalGeneration, decoder_start_token_id=7, pad_token_id=3)
    labels = torch.tensor([[5, 6, -100, -100], [8, 9, 10, 1]])
    shifted = model.prepare_decoder_input_ids_from_labels(labels)
    assert shifted.tolist() == [[7, 5, 6, 3], [7, 8, 9, 10]]
    assert labels[0, 0] == 5
    model.config.decoder_start_token_id = None
    with pytest.raises(ValueError, match=r"config\.decoder_start_token_id, which is None; T5 has 0"):
        model(text(), labels=labels)
    model.config.decoder_start_token_id, model.config.pad_token_id = 0, None
    with pytest.raises(ValueError, match=r"config\.pad_token_id, which is None"):
        model(text(), labels=labels)


# What callers may ask for


@BOTH
def test_padding_changes_nothing_on_either_side(attention: str) -> None:
    model, ids = make(T5EncoderModel, attn_implementation=attention), text(2, 6)
    pad, ones = torch.zeros(2, 3, dtype=torch.int64), torch.ones_like(ids)
    with torch.no_grad():
        plain = model(ids)[0]
        right = model(torch.cat((ids, pad), 1), torch.cat((ones, pad), 1))[0]
        left = model(torch.cat((pad, ids), 1), torch.cat((pad, ones), 1))[0]
    torch.testing.assert_close(right[:, :6], plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(left[:, 3:], plain, atol=1e-5, rtol=0)


def without_head(attention: T5Attention, head: int) -> None:
    """Takes one head out of an attention layer, as pruning does."""
    size = attention.head_dim
    kept = torch.tensor([i for i in range(attention.num_heads * size) if i // size != head])
    for layer in (attention.q, attention.k, attention.v):
        layer.weight = torch.nn.Parameter(layer.weight[kept])
    attention.o.weight = torch.nn.Parameter(attention.o.weight[:, kept])
    attention.num_heads -= 1
    attention.pruned_heads.add(head)


@BOTH
def test_head_masks_are_what_pruning_leaves(attention: str) -> None:
    model, ids, said = make(T5Model, attn_implementation=attention), text(), text(2, 5, seed=2)
    given = {"input_ids": ids, "decoder_input_ids": said, "attention_mask": torch.tensor([[1] * 8, [1] * 6 + [0] * 2])}
    masks = {name: torch.ones(2, 3) for name in ("head_mask", "decoder_head_mask", "cross_attn_head_mask")}
    masks["head_mask"][0, 1] = masks["decoder_head_mask"][1, 2] = masks["cross_attn_head_mask"][1, 0] = 0
    with torch.no_grad():
        plain, masked = model(**given), model(**given, **masks, output_attentions=True)
        without_head(model.encoder.block[0].layer[0].SelfAttention, 1)
        without_head(model.decoder.block[1].layer[0].SelfAttention, 2)
        without_head(model.decoder.block[1].layer[1].EncDecAttention, 0)
        pruned = model(**given, output_attentions=True)
    assert torch.all(masked.encoder_attentions[0][:, 1] == 0)
    assert [w.shape[1] for w in pruned.encoder_attentions] == [2, 3]
    assert [w.shape[1] for w in pruned.decoder_attentions] == [3, 2]
    assert [w.shape[1] for w in pruned.cross_attentions] == [3, 2]
    torch.testing.assert_close(pruned[0], masked[0], atol=1e-5, rtol=0)
    for mask in masks:
        with torch.no_grad():
            assert not torch.allclose(model(**given, **{mask: masks[mask][:, :1]})[0], plain[0])


def test_embeddings_are_one() -> None:
    model = make(T5Model)
    larger = torch.nn.Embedding(70, 16)
    model.set_input_embeddings(larger)
    assert model.get_input_embeddings() is model.encoder.embed_tokens is model.decoder.embed_tokens is larger
    assert model.get_decoder() is model.decoder
    names = [name for name, _ in model.named_parameters()]
    assert "shared.weight" in names
    assert "encoder.embed_tokens.weight" not in names


def test_dummy_inputs_run() -> None:
    model = make(T5Model)
    assert model(**model.dummy_inputs)[0].shape == (3, 5, 16)


def test_tuples() -> None:
    model, ids = make(T5ForConditionalGeneration), text()
    with torch.no_grad():
        output = model(ids, labels=ids)
        values = model(inputs_embeds=model.shared(ids), labels=ids, return_dict=False, use_cache=False)
    assert len(values) == 3
    torch.testing.assert_close(values[0], output.loss)
    torch.testing.assert_close(values[1], output.logits)
    halved = model(ids, labels=ids, num_items_in_batch=2 * ids.numel())
    torch.testing.assert_close(halved.loss, output.loss / 2)


def test_classification_at_the_last_end() -> None:
    model = make(T5ForSequenceClassification, num_labels=3)
    ids = text(2, 7)
    ids[0, 4], ids[1, 2], ids[1, 6] = 1, 1, 1
    with torch.no_grad():
        output = model(ids)
        hidden = model.transformer(ids, decoder_input_ids=model._shift_right(ids))[0]
        wanted = model.classification_head(hidden[[0, 1], [4, 6]])
    torch.testing.assert_close(output.logits, wanted)
    with pytest.raises(ValueError, match=r"every row of input_ids needs .* config\.eos_token_id=1"):
        model(text())
    with pytest.raises(ValueError, match="they say where each text ends"):
        model(inputs_embeds=torch.zeros(1, 2, 16))


def test_wrong_inputs_are_refused() -> None:
    model, ids = make(T5Model), text()
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(decoder_input_ids=ids)
    with pytest.raises(ValueError, match="either decoder_input_ids or decoder_inputs_embeds"):
        model(ids)
    with pytest.raises(ValueError, match="give input_ids, or decoder_input_ids, or decoder_inputs_embeds"):
        make(T5ForQuestionAnswering)(inputs_embeds=torch.zeros(1, 2, 16))


# Half precision


@BOTH
@pytest.mark.parametrize("gated", ["relu", "gated-gelu"])
def test_float16_has_a_float32_projection(gated: str, attention: str, tmp_path: Path) -> None:
    wide = make(T5ForConditionalGeneration, feed_forward_proj=gated, attn_implementation=attention)
    wide.save_pretrained(tmp_path, durable=False)
    half = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype="float16", attn_implementation=attention)
    assert half.dtype == torch.float16
    ids, labels = text(), text(2, 5, seed=2)
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    with torch.no_grad():
        wanted, found = wide(ids, mask, labels=labels), half(ids, mask, labels=labels)
        step = half(ids, mask, decoder_input_ids=labels[:, :1], past_key_values=None)
    assert found.logits.dtype == step.logits.dtype == torch.float16
    torch.testing.assert_close(found.logits.float(), wanted.logits, atol=3e-2, rtol=3e-2)


def test_infinities_of_float16_are_brought_back() -> None:
    model = make(T5EncoderModel, num_layers=1).half()
    with torch.no_grad():
        model.encoder.block[0].layer[1].DenseReluDense.wo.weight.fill_(3e4)
        assert torch.isfinite(model(text())[0]).all()
        model.encoder.block[0].layer[0].SelfAttention.o.weight.fill_(6e4)
        assert torch.isfinite(model(text())[0]).all()


def test_norm_has_the_dtype_of_its_scale() -> None:
    norm = T5LayerNorm(4, 1e-6).half()
    x = torch.tensor([[1.0, -2.0, 3.0, 300.0]])
    assert norm(x).dtype == torch.float16
    torch.testing.assert_close(norm(x).float(), x / x.square().mean().sqrt(), atol=1e-3, rtol=1e-3)


@BOTH
def test_training_lowers_the_loss(attention: str) -> None:
    model, ids = make(T5ForConditionalGeneration, attn_implementation=attention).train(), text()
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
    model, ids = make(T5Model, attn_implementation="sdpa"), text()
    given = {"attention_mask": torch.ones_like(ids), "decoder_input_ids": ids[:, :5], "use_cache": False}
    exported = torch.export.export(model, (ids,), given)
    given["attention_mask"] = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    torch.testing.assert_close(exported.module()(ids, **given)["last_hidden_state"], model(ids, **given)[0])


@BOTH
def test_heads_go_from_both_stacks_and_the_bias_stays_whole(attention: str, tmp_path: Path) -> None:
    model = make(T5ForConditionalGeneration, attn_implementation=attention, num_layers=3, num_decoder_layers=1)
    ids, kept = text(), torch.ones(3, 3)
    kept[0, 1], kept[2, [0, 2]] = 0, 0
    decoder = {"decoder_input_ids": ids[:, :5], "decoder_head_mask": kept[:1]}
    with torch.no_grad():
        expected = model(ids, head_mask=kept, **decoder).logits
    model.prune_heads({0: [1], -1: [0, 2]})
    assert model.config.pruned_heads == {0: [1], 2: [0, 2]}
    assert [block.layer[0].SelfAttention.num_heads for block in model.encoder.block] == [2, 3, 1]
    first = model.decoder.block[0]
    assert first.layer[0].SelfAttention.num_heads == 2 and first.layer[1].EncDecAttention.num_heads == 3
    assert first.layer[0].SelfAttention.relative_attention_bias.weight.shape == (8, 3)
    with torch.no_grad():
        torch.testing.assert_close(model(ids, decoder_input_ids=ids[:, :5]).logits, expected, atol=1e-5, rtol=0)
    model.save_pretrained(tmp_path)
    encoder = T5EncoderModel.from_pretrained(tmp_path, attn_implementation=attention)
    with torch.no_grad():
        torch.testing.assert_close(encoder(ids)[0], model.encoder(ids)[0])


@BOTH
def test_a_layer_may_lose_all_heads(attention: str) -> None:
    model, ids = make(T5Model, attn_implementation=attention), text()
    with torch.no_grad():
        none = torch.tensor([[0.0] * 3, [1.0] * 3])
        expected = model(ids, decoder_input_ids=ids, head_mask=none, decoder_head_mask=none)[0]
        model.prune_heads({0: [0, 1, 2]})  # the layer that makes the bias for the others
        torch.testing.assert_close(model(ids, decoder_input_ids=ids)[0], expected, atol=1e-5, rtol=0)


def test_a_stack_is_pruned_with_its_model() -> None:
    model = make(T5Model)
    with pytest.raises(NotImplementedError, match="a T5Stack is pruned with its model: call prune_heads of that"):
        model.encoder.prune_heads({0: [1]})
    assert not model.config.pruned_heads


def test_one_table_of_words_is_resized_for_both_stacks() -> None:
    model, ids = make(T5ForConditionalGeneration, tie_word_embeddings=False), text()
    table = model.resize_token_embeddings(70)
    assert table is model.shared is model.encoder.embed_tokens is model.decoder.embed_tokens
    assert model.lm_head.weight.shape == (70, 16) and model.lm_head.weight is not table.weight
    assert model.encoder.config.vocab_size == model.decoder.config.vocab_size == model.config.vocab_size == 70
    assert model(ids, labels=ids).logits.shape[-1] == 70
