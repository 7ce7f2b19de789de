"""T5 in TensorFlow: every head against torch, every checkpoint of the reference, and decoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from drawn_weights import draw
from safetensors.numpy import load_file, save_file
from tf_cases import (
    arrays_of,
    check_case,
    check_checkpointing,
    check_h5,
    check_reference,
    check_round_trip,
    filled,
    find_tf,
)
from tiny import REFERENCE, tiny_t5

import pretrained
from pretrained.errors import ConfigError, OptionError
from pretrained.models.t5.family import FAMILY
from pretrained.models.t5.modeling_t5_heads import T5ForConditionalGeneration
from pretrained.models.t5.modeling_t5_layers import relative_buckets
from pretrained.models.t5.modeling_tf_t5 import TFT5EncoderModel, TFT5ForConditionalGeneration, TFT5Model
from pretrained.models.t5.modeling_tf_t5_layers import relative_buckets as tf_buckets
from pretrained.models.t5.modeling_tf_t5_tasks import TFT5ForSequenceClassification, TFT5ForTokenClassification
from pretrained.tf.kv_cache import KVCache
from pretrained.tf.seq2seq import shift_tokens_right

FOLDER = REFERENCE / "t5"
CASES = sorted(json.loads((REFERENCE / "t5_heads/cases.json").read_text())["cases"])
FOLDERS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
CLASSES = sorted({place.split(":")[1] for place in FAMILY.tf.values()} | {"TFT5EncoderModel"})


def text(batch: int = 2, length: int = 7, seed: int = 1) -> Any:
    return np.random.RandomState(seed).randint(2, 61, (batch, length))


@pytest.fixture(scope="module")
def model() -> Any:
    return filled(TFT5ForConditionalGeneration, tiny_t5())


# Numbers of the reference implementation


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_format(folder: str) -> None:
    check_reference("t5", "T5Model", folder)
    if folder != "torch-base-only":
        check_reference("t5", "T5ForConditionalGeneration", folder)
    if folder in ("tf-h5", "torch-bin"):
        check_reference("t5", "T5EncoderModel", folder)


@pytest.mark.parametrize("case", CASES)
def test_heads(case: str) -> None:
    # Torch's own numbers of these two are 1e-5 to 2e-5 away from those of float64; TensorFlow's may be as far on the
    # other side, which depends on the instructions of the processor.
    check_case("t5", case, limit=6e-5 if case in ("generation-1.1", "generation-gated") else 2e-5)


@pytest.mark.parametrize("sizes", [(8, 12), (32, 128), (14, 128), (64, 1000), (4, 9), (33, 127)])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_are_those_of_torch(sizes: tuple[int, int], bidirectional: bool) -> None:
    distance = np.arange(-1100, 1100, dtype=np.int32)
    wanted = relative_buckets(torch.from_numpy(distance), bidirectional, *sizes).numpy()
    assert np.array_equal(tf_buckets(tf.constant(distance), bidirectional, *sizes), wanted)


# Decoding


def test_encode_and_decode_are_the_call(model: Any) -> None:
    ids, said, mask = text(), text(2, 5, seed=2), np.array([[1] * 7, [1] * 4 + [0] * 3])
    whole = model(ids, mask, said, output_hidden_states=True, output_attentions=True)
    encoded = model.encode(ids, mask)
    assert np.array_equal(encoded.last_hidden_state, whole.encoder_last_hidden_state)
    assert set(encoded) == {"last_hidden_state"}
    decoded = model.decode(said, encoded, mask, output_attentions=True)
    assert set(decoded) == {"logits", "attentions", "cross_attentions"}
    np.testing.assert_allclose(decoded.logits, whole.logits, atol=1e-5)
    np.testing.assert_allclose(decoded.cross_attentions[1], whole.cross_attentions[1], atol=1e-5)
    assert np.abs(whole.cross_attentions[0].numpy()[1, :, :, 4:]).max() == 0
    plain = model.decode(said, (encoded.last_hidden_state,), mask, return_dict=False)
    np.testing.assert_allclose(plain[0], whole.logits, atol=1e-5)
    again = model(attention_mask=mask, decoder_input_ids=said, encoder_outputs=encoded)
    np.testing.assert_allclose(again.logits, whole.logits, atol=1e-5)
    assert np.array_equal(again.encoder_last_hidden_state, encoded.last_hidden_state)
    with pytest.raises(OptionError, match=r"encoder_output.*did you mean 'encoder_outputs'"):
        model.decode(said, encoder_output=encoded)
    with pytest.raises(ValueError, match="give either decoder_input_ids or decoder_inputs_embeds"):
        model(ids)
    with pytest.raises(ValueError, match="give encoder_outputs: the decoder attends to them"):
        model.decode(said)


@pytest.mark.parametrize("padded", [False, True])
def test_cache_equals_no_cache(model: Any, padded: bool) -> None:
    ids, said, mask = text(), text(2, 9, seed=2), np.array([[1] * 7, [1] * 4 + [0] * 3])
    decoder_mask = np.ones_like(said)
    if padded:
        decoder_mask[0, :3] = 0
    encoded = model.encode(ids, mask)
    whole = model.decode(said, encoded, mask, decoder_mask).logits
    past, pieces = model.init_cache(2, 12, encoded), []
    for start, end in ((0, 5), (5, 6), (6, 7), (7, 9)):
        output = model.decode(said[:, start:end], encoded, mask, decoder_mask[:, :end], past)
        past = output.past_key_values
        pieces.append(output.logits)
    assert int(past.length) == 9
    seen = decoder_mask.astype(bool)
    np.testing.assert_allclose(np.concatenate(pieces, 1)[seen], whole.numpy()[seen], atol=1e-5)


def test_keys_of_the_encoder_are_computed_once(model: Any) -> None:
    ids, said = text(), text(2, 4, seed=2)
    encoded = model.encode(ids)
    past = model.init_cache(2, 8, encoded)
    assert isinstance(past, KVCache)
    assert [key.shape for key, _ in past.cross] == [(2, 3, 7, 6)] * 2
    wanted = model.decode(said, encoded).logits
    first = model.decode(said, past_key_values=past)  # what the encoder gave is in the cache
    np.testing.assert_allclose(first.logits, wanted, atol=1e-5)
    assert np.array_equal(first.past_key_values.cross[1][0], past.cross[1][0])
    # A cache that has not seen the encoder's output gets to know it with the first tokens.
    empty = model.init_cache(2, 8)
    assert not empty.cross
    first = model.decode(said, encoded, past_key_values=empty)
    np.testing.assert_allclose(first.past_key_values.cross[1][1], past.cross[1][1], atol=1e-6)
    np.testing.assert_allclose(first.logits, wanted, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_decoding_in_a_loop_of_a_graph(model: Any, compiled: bool) -> None:
    """Of unknown shapes, but for XLA."""
    ids = text().astype(np.int32)

    @tf.function(input_signature=[tf.TensorSpec(ids.shape if compiled else (None, None), tf.int32)])
    def greedy(ids: Any) -> Any:
        cache = model.init_cache(tf.shape(ids)[0] if ids.shape[0] is None else ids.shape[0], 6, model.encode(ids))

        def step(said: Any, cache: KVCache) -> Any:
            output = model.decode(said[:, cache.length][:, None], past_key_values=cache)
            token = tf.argmax(output.logits[:, -1], -1, tf.int32)
            here = tf.one_hot(cache.length + 1, 7, dtype=tf.int32)
            return said + here * token[:, None], output.past_key_values

        empty = tf.zeros_like(ids[:, :7])
        return tf.while_loop(lambda *_: True, step, (empty, cache), maximum_iterations=6)[0]

    found = (tf.function(greedy, jit_compile=True) if compiled else greedy)(ids)
    said, encoded = np.zeros((2, 1), int), model.encode(ids)
    for _ in range(6):
        logits = model.decode(said, encoded).logits[:, -1]
        said = np.concatenate((said, np.argmax(logits, -1)[:, None]), 1)
    assert np.array_equal(found, said)


def test_shifting(model: Any) -> None:
    labels = np.array([[5, 6, 1], [7, 1, -100]])
    assert shift_tokens_right(labels, 0, 3).numpy().tolist() == [[3, 5, 6], [3, 7, 1]]
    assert shift_tokens_right(np.array([[-100, 4]]), 9, 3).numpy().tolist() == [[3, 9]]
    assert model.prepare_decoder_input_ids_from_labels(labels).numpy().tolist() == [[0, 5, 6], [0, 7, 1]]
    unset = TFT5ForConditionalGeneration(tiny_t5(decoder_start_token_id=None))
    with pytest.raises(ValueError, match=r"made with config\.decoder_start_token_id, which is None"):
        unset.prepare_decoder_input_ids_from_labels(labels)


def test_a_text_without_its_end() -> None:
    model = filled(TFT5ForSequenceClassification, tiny_t5(num_labels=3))
    ids = np.array([[5, 6, 1], [7, 8, 9]])
    with pytest.raises(ValueError, match="every row of input_ids needs the end-of-text token"):
        model(ids)
    logits = tf.function(lambda ids: model(ids).logits)(ids).numpy()
    assert np.isfinite(logits[0]).all() and np.isnan(logits[1]).all()
    with pytest.raises(ValueError, match="give input_ids: they say where each text ends"):
        model(inputs_embeds=np.zeros((1, 3, 16), np.float32))


# Loading and saving


def test_h5_is_laid_out_as_transformers_does(tmp_path: Path) -> None:
    check_h5("t5", "T5ForConditionalGeneration", tmp_path)


@pytest.mark.parametrize("name", CLASSES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    check_round_trip(find_tf("t5", name), "t5", tmp_path, safe=True)
    files = [file for path in tmp_path.glob("*.safetensors") for file in load_file(path)]
    assert not any(file.endswith(("embed_tokens.weight", "lm_head.weight")) for file in files)


@pytest.mark.parametrize("tied", [True, False])
def test_h5(tied: bool, tmp_path: Path) -> None:
    changes = {"tie_word_embeddings": tied, "feed_forward_proj": "gated-gelu"}
    check_round_trip(TFT5ForConditionalGeneration, "t5", tmp_path, safe=False, **changes)


@pytest.mark.parametrize("place", FAMILY.tf.items(), ids=lambda place: place[0])
def test_auto_classes(place: tuple[str, str]) -> None:
    cls = find_tf("t5", place[1].split(":")[1])
    assert type(getattr(pretrained, place[0]).from_pretrained(FOLDER / "torch-safetensors")) is cls
    assert getattr(pretrained, cls.__name__) is cls


@pytest.mark.parametrize(
    "names", [("encoder.embed_tokens.weight",), ("decoder.embed_tokens.weight", "lm_head.weight", "shared.weight")]
)
def test_any_name_of_the_word_embeddings_is_enough(names: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((FOLDER / "torch-safetensors/config.json").read_text())
    state = load_file(FOLDER / "torch-safetensors/model.safetensors")
    words = state.pop("shared.weight")
    unused = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": np.zeros((8, 4), np.float32)}
    save_file(state | unused | {name: words.copy() for name in names}, tmp_path / "model.safetensors")
    for cls in (TFT5ForConditionalGeneration, TFT5ForSequenceClassification):
        model, report = cls.from_pretrained(tmp_path, output_loading_info=True)
        assert all(name.startswith("classification_head.") for name in report["missing_keys"])
        assert set(report["unexpected_keys"]) <= ({"lm_head.weight"} & set(names))
        table = model.structure.variables[cls._input_embeddings]
        assert np.array_equal(table, words)


def test_initial_weights() -> None:
    sizes = {"d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 128, "vocab_size": 500, "num_layers": 1}
    config = tiny_t5(**sizes, initializer_factor=0.5, tie_word_embeddings=False, num_labels=50)
    own = TFT5ForConditionalGeneration(config).structure.variables
    block = "encoder.block.0.layer."
    for values, std in (
        (own["shared.weight"], 1.0),
        (own["lm_head.weight"], 1.0),
        (own[block + "0.SelfAttention.q.weight"], (64 * 16) ** -0.5),
        (own[block + "0.SelfAttention.k.weight"], 64**-0.5),
        (own[block + "0.SelfAttention.o.weight"], 64**-0.5),
        (own[block + "1.DenseReluDense.wi.weight"], 64**-0.5),
        (own[block + "1.DenseReluDense.wo.weight"], 128**-0.5),
        (TFT5ForTokenClassification(config).classifier.weight, 1.0),
        (TFT5ForSequenceClassification(config).classification_head.dense.weight, 64**-0.5),
    ):
        assert abs(np.std(values) / (0.5 * std) - 1) < 0.06
    assert np.all(own[block + "0.layer_norm.weight"] == 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feed_forward_proj": "rely"}, "Did you mean 'relu'"),
        ({"relative_attention_num_buckets": 3}, "there must be 4 buckets or more"),
        ({"relative_attention_max_distance": 4}, "a maximal distance of more than half as many"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TFT5Model(tiny_t5(**changes))


# Parts


@pytest.mark.parametrize("tied", [True, False])
def test_resizing(tied: bool) -> None:
    model = filled(TFT5ForConditionalGeneration, tiny_t5(tie_word_embeddings=tied, num_layers=1))
    before = model.shared.weight.numpy()
    model.resize_token_embeddings(70)
    assert model.shared.weight.shape == (70, 16) and model.config.vocab_size == 70
    assert ("lm_head.weight" in model.structure.variables) != tied
    assert np.array_equal(model.shared.weight[:61], before)
    assert model(text(), None, text()).logits.shape == (2, 7, 70)


def test_pruning_is_torchs(tmp_path: Path) -> None:
    model = filled(TFT5ForConditionalGeneration, tiny_t5(num_decoder_layers=1))
    model.save_pretrained(tmp_path, durable=False)
    other = T5ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager")
    heads: dict[int, list[int]] = {0: [1], 1: [0, 1, 2]}
    other.prune_heads(heads)
    model.prune_heads(heads)
    ids, said = text(), text(2, 4, seed=2)
    with torch.no_grad():
        wanted = other(torch.from_numpy(ids), decoder_input_ids=torch.from_numpy(said)).logits.numpy()
    np.testing.assert_allclose(model(ids, None, said).logits, wanted, atol=2e-5)
    own = model.decoder.block[0].layer
    assert own[0].SelfAttention.q.weight.shape == (12, 16)
    assert own[0].SelfAttention.relative_attention_bias.weight.shape == (8, 3)
    assert own[1].EncDecAttention.q.weight.shape == (18, 16)
    past = model.init_cache(2, 5, model.encode(ids))
    assert (past.layers[0][0].shape, past.cross[0][0].shape) == ((2, 2, 5, 6), (2, 3, 7, 6))
    np.testing.assert_allclose(model.decode(said, past_key_values=past).logits, wanted, atol=2e-5)
    model.save_pretrained(tmp_path / "pruned", durable=False)
    again = TFT5ForConditionalGeneration.from_pretrained(tmp_path / "pruned", strict=True)
    np.testing.assert_allclose(again(ids, None, said).logits, wanted, atol=2e-5)


def test_head_masks_are_torchs(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, durable=False)
    other = T5ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager")
    ids, said = text(), text(2, 4, seed=2)
    masks = {
        "head_mask": np.array([[1.0, 0, 1], [1, 1, 0]], np.float32),
        "decoder_head_mask": np.array([0.0, 1, 1], np.float32),
        "cross_attn_head_mask": np.array([[0.0, 0, 1], [0, 1, 0]], np.float32),
    }
    with torch.no_grad():
        given = {name: torch.from_numpy(mask) for name, mask in masks.items()}
        wanted = other(torch.from_numpy(ids), decoder_input_ids=torch.from_numpy(said), **given).logits
    np.testing.assert_allclose(model(ids, None, said, **masks).logits, wanted.numpy(), atol=2e-5)


def test_float16_has_room_for_large_sums() -> None:
    """What the last projection of a block gives is beyond 65504, as in the large checkpoints."""
    config, described = tiny_t5(), TFT5EncoderModel(tiny_t5()).structure.places
    grown = {p.name: draw(p.name, p.shape) * (3e5 if p.name.endswith("wo.weight") else 1) for p in described}
    wide = TFT5EncoderModel.from_pretrained(None, config=config, state_dict=grown)
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        mixed = TFT5EncoderModel.from_pretrained(None, config=config, state_dict=grown)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    output = mixed(text(), output_hidden_states=True)
    assert output.last_hidden_state.dtype == tf.float16
    assert float(tf.reduce_max(tf.abs(output.hidden_states[1]))) > 65504
    np.testing.assert_allclose(output.last_hidden_state, wide(text()).last_hidden_state, atol=2e-2)


def test_training() -> None:
    config = tiny_t5(dropout_rate=0.3, num_layers=1)
    models = (filled(TFT5ForConditionalGeneration, config, gradient_checkpointing=again) for again in (False, True))
    grads = check_checkpointing(*models, input_ids=text(), labels=text(2, 4, seed=2))
    assert all(np.any(grad) for grad in grads)


# Generation


@pytest.mark.parametrize("name", ["torch/greedy-penalties", "torch/beam4-return3"])
def test_tokens_are_the_references(name: str) -> None:
    spec = json.loads((FOLDER / "generate.json").read_text())[name]
    given = {key: value for key, value in arrays_of(FOLDER / "inputs.npz").items() if "decoder" not in key}
    model = TFT5ForConditionalGeneration.from_pretrained(FOLDER / "torch-safetensors")
    assert np.array_equal(model.generate(**given, **spec["kwargs"]), spec["sequences"])


@pytest.mark.parametrize("compiled", [False, True])
def test_tokens_are_torchs(model: Any, compiled: bool, tmp_path: Path) -> None:
    """From a batch that is padded on the left, as on the right."""
    model.save_pretrained(tmp_path, durable=False)
    other = T5ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager")
    ids, settings = np.array([[7, 8, 9, 10, 11], [0, 0, 12, 13, 14]]), {"max_new_tokens": 6, "eos_token_id": 5}
    wanted = other.generate(torch.tensor(ids), attention_mask=torch.tensor(ids != 0).long(), **settings).numpy()
    found = model.generate(ids, attention_mask=ids != 0, jit_compile=compiled, **settings).numpy()
    assert found.tolist() == wanted.tolist()
