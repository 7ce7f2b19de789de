from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax_reference_cases import check_case, check_reference, check_round_trip, filled, find_flax, params_of
from safetensors.numpy import load_file, save_file
from tiny import REFERENCE, tiny_t5

import pretrained
from pretrained.errors import ConfigError, OptionError
from pretrained.flax.kv_cache import KVCache
from pretrained.models.t5.buckets import bucket_table
from pretrained.models.t5.family import FAMILY
from pretrained.models.t5.modeling_flax_t5 import (
    FlaxT5EncoderModel,
    FlaxT5ForConditionalGeneration,
    FlaxT5Model,
    shift_tokens_right,
)
from pretrained.models.t5.modeling_flax_t5_layers import relative_buckets as flax_buckets
from pretrained.models.t5.modeling_flax_t5_tasks import FlaxT5ForSequenceClassification, FlaxT5ForTokenClassification
from pretrained.models.t5.modeling_t5_heads import T5ForConditionalGeneration
from pretrained.models.t5.modeling_t5_layers import relative_buckets

FOLDER = REFERENCE / "t5"
CASES = sorted(json.loads((REFERENCE / "t5_heads/cases.json").read_text())["cases"])
CLASSES = sorted({place.split(":")[1] for place in FAMILY.flax.values()} | {"FlaxT5EncoderModel"})


def text(batch: int = 2, length: int = 7, seed: int = 1) -> Any:
    return np.random.RandomState(seed).randint(2, 61, (batch, length))


@pytest.fixture(scope="module")
def model() -> Any:
    return filled(FlaxT5ForConditionalGeneration, tiny_t5())


# Numbers of the reference implementation


@pytest.mark.parametrize(
    ("name", "folder"),
    [("T5Model", "flax-msgpack"), ("T5ForConditionalGeneration", "torch-safetensors"), ("T5EncoderModel", "tf-h5")],
)
def test_reference(name: str, folder: str) -> None:
    check_reference("t5", name, folder)


@pytest.mark.parametrize("case", CASES)
def test_heads(case: str) -> None:
    # Torch's own numbers of the first are 2e-5 away from those of float64.
    check_case("t5", case, limit=6e-5 if case == "generation-1.1" else 2e-5)


def test_sdpa() -> None:
    check_case("t5", "generation-given", "sdpa")


@pytest.mark.parametrize("sizes", [(8, 12), (32, 128), (14, 128), (64, 1000), (4, 9), (33, 127)])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_are_those_of_torch(sizes: tuple[int, int], bidirectional: bool) -> None:
    distance = np.arange(-1100, 1100)
    wanted = relative_buckets(torch.from_numpy(distance), bidirectional, *sizes).numpy()
    assert np.array_equal(jax.jit(flax_buckets, static_argnums=(1, 2, 3))(distance, bidirectional, *sizes), wanted)


def test_table_of_buckets() -> None:
    table = bucket_table(32, 128)
    assert table[:17].tolist() == list(range(17))
    assert (len(table), table[127], table[128]) == (129, 31, 31)


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
    assert np.abs(np.asarray(whole.cross_attentions[0])[1, :, :, 4:]).max() == 0
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
    for start, end in ((0, 5), (5, 6), (6, 7), (7, 8), (8, 9)):
        given = np.pad(decoder_mask[:, :end], ((0, 0), (0, 12 - end)))  # one shape, so one program
        output = model.decode(said[:, start:end], encoded, mask, given, past)
        past = output.past_key_values
        pieces.append(output.logits)
    assert int(past.length) == 9
    seen = decoder_mask.astype(bool)
    np.testing.assert_allclose(np.concatenate(pieces, 1)[seen], np.asarray(whole)[seen], atol=1e-5)


def test_keys_of_the_encoder_are_computed_once(model: Any) -> None:
    ids, said = text(), text(2, 4, seed=2)
    encoded = model.encode(ids)
    past = model.init_cache(2, 8, encoded)
    assert isinstance(past, KVCache)
    assert [key.shape for key, _ in past.cross] == [(2, 7, 3, 6)] * 2
    wanted = model.decode(said, encoded).logits
    first = model.decode(said, past_key_values=past)  # what the encoder gave is in the cache
    np.testing.assert_allclose(first.logits, wanted, atol=1e-5)
    assert np.array_equal(first.past_key_values.cross[1][0], past.cross[1][0])
    # A cache that has not seen the encoder's output gets to know it with the first tokens.
    empty = model.init_cache(2, 8)
    assert empty.cross is None
    first = model.decode(said, encoded, past_key_values=empty)
    np.testing.assert_allclose(first.past_key_values.cross[1][1], past.cross[1][1], atol=1e-6)
    np.testing.assert_allclose(first.logits, wanted, atol=1e-5)


def test_decoding_in_a_compiled_loop(model: Any) -> None:
    ids = text()

    @jax.jit
    def greedy(params: Any, ids: Any) -> Any:
        encoded = model.encode(ids, params=params)
        cache = model.init_cache(2, 6, encoded, params=params)

        def step(carry: Any, _: Any) -> Any:
            cache, token = carry
            output = model.decode(token, past_key_values=cache, params=params)
            token = output.logits[:, -1].argmax(-1)[:, None]
            return (output.past_key_values, token), token[:, 0]

        return jax.lax.scan(step, (cache, jnp.zeros((2, 1), int)), length=6)[1].T

    found, said = greedy(model.params, ids), np.zeros((2, 1), int)
    encoded = model.encode(ids)
    for _ in range(6):
        logits = model.decode(np.pad(said, ((0, 0), (0, 7 - said.shape[1]))), encoded).logits[:, said.shape[1] - 1]
        said = np.concatenate((said, np.asarray(logits.argmax(-1))[:, None]), 1)
    assert np.array_equal(found, said[:, 1:])


def test_without_parameters_of_its_own(model: Any) -> None:
    bare, params = FlaxT5ForConditionalGeneration(tiny_t5(), _do_init=False), model.params
    ids, said = text(), text(2, 4, seed=2)
    encoded = bare.encode(ids, params=params)
    past = bare.init_cache(2, 8, encoded, params=params)
    output = bare.decode(said, past_key_values=past, params=params)
    np.testing.assert_allclose(output.logits, model.decode(said, encoded).logits, atol=1e-5)
    with pytest.raises(ValueError, match="was made with _do_init=False and has no params"):
        bare.init_cache(2, 8, encoded)


def test_shifting(model: Any) -> None:
    labels = np.array([[5, 6, 1], [7, 1, -100]])
    assert shift_tokens_right(labels, 0, 3).tolist() == [[3, 5, 6], [3, 7, 1]]
    assert shift_tokens_right(np.array([[-100, 4]]), 9, 3).tolist() == [[3, 9]]
    assert model.prepare_decoder_input_ids_from_labels(labels).tolist() == [[0, 5, 6], [0, 7, 1]]
    unset = FlaxT5ForConditionalGeneration(tiny_t5(decoder_start_token_id=None), _do_init=False)
    with pytest.raises(ValueError, match=r"made with config\.decoder_start_token_id, which is None"):
        unset.prepare_decoder_input_ids_from_labels(labels)


def test_a_text_without_its_end() -> None:
    model = filled(FlaxT5ForSequenceClassification, tiny_t5(num_labels=3))
    ids = np.array([[5, 6, 1], [7, 8, 9]])
    logits = np.asarray(model(ids).logits)
    assert np.isfinite(logits[0]).all() and np.isnan(logits[1]).all()
    with pytest.raises(ValueError, match="give input_ids: they say where each text ends"):
        model(inputs_embeds=np.zeros((1, 3, 16)))


# Loading and saving


@pytest.mark.parametrize("name", CLASSES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    check_round_trip(find_flax("t5", name), "t5", tmp_path, safe=True)
    files = [file for path in tmp_path.glob("*.safetensors") for file in load_file(path)]
    assert not any(file.endswith(("embed_tokens.weight", "lm_head.weight")) for file in files)


@pytest.mark.parametrize("tied", [True, False])
def test_msgpack(tied: bool, tmp_path: Path) -> None:
    changes = {"tie_word_embeddings": tied, "feed_forward_proj": "gated-gelu"}
    check_round_trip(FlaxT5ForConditionalGeneration, "t5", tmp_path, safe=False, **changes)


@pytest.mark.parametrize("place", FAMILY.flax.items(), ids=lambda place: place[0])
def test_auto_classes(place: tuple[str, str]) -> None:
    cls = find_flax("t5", place[1].split(":")[1])
    folder = FOLDER / "torch-safetensors"
    assert type(getattr(pretrained, place[0]).from_pretrained(folder)) is cls
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
    for cls in (FlaxT5ForConditionalGeneration, FlaxT5ForSequenceClassification):
        model, report = cls.from_pretrained(tmp_path, output_loading_info=True)
        assert all(name.startswith("classification_head.") for name in report["missing_keys"])
        assert set(report["unexpected_keys"]) <= ({"lm_head.weight"} & set(names))
        params = model.params.get("transformer", model.params)
        assert np.array_equal(params["shared"]["weight"], words)


def test_untied_logits_survive_and_torch_reads_them(tmp_path: Path) -> None:
    model = filled(FlaxT5ForConditionalGeneration, tiny_t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False))
    model.save_pretrained(tmp_path, durable=False)
    other = T5ForConditionalGeneration.from_pretrained(tmp_path, strict=True, attn_implementation="eager")
    ids, said = text(), text(2, 4, seed=2)
    with torch.no_grad():
        wanted = other(torch.from_numpy(ids), decoder_input_ids=torch.from_numpy(said)).logits
    np.testing.assert_allclose(model(ids, None, said).logits, wanted.numpy(), atol=2e-5)


def test_initial_weights() -> None:
    sizes = {"d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 128, "vocab_size": 500, "num_layers": 1}
    config = tiny_t5(**sizes, initializer_factor=0.5, tie_word_embeddings=False, num_labels=50)
    params = FlaxT5ForConditionalGeneration(config).params
    block = params["encoder"]["block"]["0"]["layer"]
    attention, dense = block["0"]["SelfAttention"], block["1"]["DenseReluDense"]
    for part, std in (
        (params["shared"], 1.0),
        (params["lm_head"], 1.0),
        (attention["q"], (64 * 16) ** -0.5),
        (attention["k"], 64**-0.5),
        (attention["o"], 64**-0.5),
        (dense["wi"], 64**-0.5),
        (dense["wo"], 128**-0.5),
        (FlaxT5ForTokenClassification(config).params["classifier"], 1.0),
        (FlaxT5ForSequenceClassification(config).params["classification_head"]["dense"], 64**-0.5),
    ):
        assert abs(float(part["weight"].std()) / (0.5 * std) - 1) < 0.06
    assert np.all(block["0"]["layer_norm"]["weight"] == 0.5)


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
        FlaxT5Model(tiny_t5(**changes))


# Parts


def test_resizing() -> None:
    for tied in (True, False):
        model = filled(FlaxT5ForConditionalGeneration, tiny_t5(tie_word_embeddings=tied, num_layers=1))
        before = model.params["shared"]["weight"]
        params = model.resize_token_embeddings(70)
        assert params["shared"]["weight"].shape == (70, 16)
        assert ("lm_head" in params) != tied
        assert np.array_equal(params["shared"]["weight"][:61], before)
        assert model.config.vocab_size == 70
        assert model(text(), None, text()).logits.shape == (2, 7, 70)
    head = filled(FlaxT5ForTokenClassification, tiny_t5())
    assert head.resize_token_embeddings(40)["transformer"]["shared"]["weight"].shape == (40, 16)


def test_pruning_is_torchs(tmp_path: Path) -> None:
    model = filled(FlaxT5ForConditionalGeneration, tiny_t5(num_decoder_layers=1))
    model.save_pretrained(tmp_path, durable=False)
    other = T5ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager")
    heads: dict[int, list[int]] = {0: [1], 1: [0, 1, 2]}
    other.prune_heads(heads)
    params = model.prune_heads(heads)
    ids, said = text(), text(2, 4, seed=2)
    with torch.no_grad():
        wanted = other(torch.from_numpy(ids), decoder_input_ids=torch.from_numpy(said)).logits.numpy()
    np.testing.assert_allclose(model(ids, None, said).logits, wanted, atol=2e-5)
    own = params["decoder"]["block"]["0"]["layer"]
    assert own["0"]["SelfAttention"]["q"]["weight"].shape == (12, 16)
    assert own["0"]["SelfAttention"]["relative_attention_bias"]["weight"].shape == (8, 3)
    assert own["1"]["EncDecAttention"]["q"]["weight"].shape == (18, 16)
    past = model.init_cache(2, 5, model.encode(ids))
    assert (past.layers[0][0].shape, past.cross[0][0].shape) == ((2, 5, 2, 6), (2, 7, 3, 6))
    np.testing.assert_allclose(model.decode(said, past_key_values=past).logits, wanted, atol=2e-5)
    model.save_pretrained(tmp_path / "pruned", durable=False)
    again = FlaxT5ForConditionalGeneration.from_pretrained(tmp_path / "pruned", strict=True)
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
    wide = filled(FlaxT5EncoderModel, tiny_t5())
    grown = params_of(wide, lambda name, shape: _grown(wide, name))
    half = FlaxT5EncoderModel(tiny_t5(), dtype="float16", _do_init=False)
    wanted, output = wide(text(), params=grown), half(text(), params=grown, output_hidden_states=True)
    assert output.last_hidden_state.dtype == jnp.float16
    assert float(jnp.abs(output.hidden_states[1]).max()) > 65504
    np.testing.assert_allclose(output.last_hidden_state, wanted.last_hidden_state, atol=2e-2)


def _grown(model: Any, name: str) -> Any:
    value = model.params
    for key in name.split("."):
        value = value[key]
    return value * 3e5 if name.endswith("wo.weight") else value


def test_training() -> None:
    ids, said = text(), text(2, 4, seed=2)
    model = filled(FlaxT5ForConditionalGeneration, tiny_t5(dropout_rate=0.3, num_layers=1))
    key = jax.random.key(0, impl="unsafe_rbg")  # quickly compiled

    def loss(params: Any) -> Any:
        logits = model(ids, None, said, params=params, train=True, dropout_rng=key).logits
        return -jax.nn.log_softmax(logits)[..., 3].mean()

    value, plain = jax.jit(jax.value_and_grad(loss))(model.params)
    still = -jax.nn.log_softmax(model(ids, None, said).logits)[..., 3].mean()
    assert abs(float(value - still)) > 1e-3
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(plain))
    model.enable_gradient_checkpointing()
    again = jax.jit(jax.grad(loss))(model.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, again)
