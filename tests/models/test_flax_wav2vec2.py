from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax_reference_cases import check_case, check_reference, check_round_trip, filled, find_flax
from safetensors.numpy import load_file, save_file
from tiny import REFERENCE, tiny_wav2vec2

import pretrained
from pretrained.errors import ConfigError
from pretrained.models.wav2vec2.family import FAMILY
from pretrained.models.wav2vec2.modeling_flax_wav2vec2 import FlaxWav2Vec2Model
from pretrained.models.wav2vec2.modeling_flax_wav2vec2_heads import (
    FlaxWav2Vec2ForAudioFrameClassification,
    FlaxWav2Vec2ForCTC,
    FlaxWav2Vec2ForSequenceClassification,
    FlaxWav2Vec2ForXVector,
)
from pretrained.models.wav2vec2.modeling_flax_wav2vec2_pretraining import FlaxWav2Vec2ForPreTraining
from pretrained.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Model

CASES = sorted(json.loads((REFERENCE / "wav2vec2_heads/cases.json").read_text())["cases"])
CLASSES = sorted({place.split(":")[1] for place in FAMILY.flax.values()})
FOLDER = REFERENCE / "wav2vec2"
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
NO_NOISE = dict.fromkeys(
    ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop"), 0.0
)
KEY = jax.random.key(0, impl="unsafe_rbg")  # quickly compiled


def sound(samples: int = 200, batch: int = 2) -> Any:
    return np.random.RandomState(1).standard_normal((batch, samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("Wav2Vec2Model", "flax-msgpack"), ("Wav2Vec2ForCTC", "tf-h5"), ("Wav2Vec2ForCTC", "torch-bin")],
)
def test_reference(name: str, folder: str) -> None:
    check_reference("wav2vec2", name, folder)


@pytest.mark.parametrize("case", CASES)
def test_heads(case: str) -> None:
    output = check_case("wav2vec2", case)
    if case == "model":
        assert len(output.hidden_states) == 3 and len(output.attentions) == 2


def test_sdpa() -> None:
    check_case("wav2vec2", "model-conv-bias", "sdpa")


# Loading and saving


@pytest.mark.parametrize("name", CLASSES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    check_round_trip(find_flax("wav2vec2", name), "wav2vec2", tmp_path, safe=True)


def test_msgpack(tmp_path: Path) -> None:
    changes = {"add_adapter": True, "output_hidden_size": 16, "adapter_attn_dim": 4, **STABLE}
    check_round_trip(FlaxWav2Vec2ForCTC, "wav2vec2", tmp_path, safe=False, **changes)


def test_names_out_are_names_in_and_older_names_are_known(tmp_path: Path) -> None:
    source = FOLDER / "torch-safetensors"
    model = FlaxWav2Vec2ForCTC.from_pretrained(source)
    model.save_pretrained(tmp_path, durable=False)
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before)
    older = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    legacy = tmp_path / "legacy"
    legacy.mkdir()
    (legacy / "config.json").write_text((source / "config.json").read_text())
    renamed = {_renamed(key, older): value for key, value in before.items()}
    assert sum(key.endswith(("weight_g", "weight_v")) for key in renamed) == 2
    save_file(renamed, legacy / "model.safetensors")
    again = FlaxWav2Vec2ForCTC.from_pretrained(legacy, strict=True)
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(again.params)))


def _renamed(key: str, names: dict[str, str]) -> str:
    for new, old in names.items():
        key = key.replace(new, old)
    return key


@pytest.mark.parametrize("place", FAMILY.flax.items(), ids=lambda place: place[0])
def test_auto_classes(place: tuple[str, str]) -> None:
    cls = find_flax("wav2vec2", place[1].split(":")[1])
    assert type(getattr(pretrained, place[0]).from_pretrained(FOLDER / "torch-safetensors")) is cls
    assert getattr(pretrained, cls.__name__) is cls


def test_initial_weights() -> None:
    config = tiny_wav2vec2(hidden_size=64, conv_dim=[32, 32, 32], initializer_range=0.5, conv_bias=True)
    params = FlaxWav2Vec2ForPreTraining(config).params
    base, quantizer = params["wav2vec2"], params["quantizer"]
    layer = base["feature_extractor"]["conv_layers"]["1"]
    assert abs(float(layer["conv"]["weight"].std()) / (2 / (32 * 3)) ** 0.5 - 1) < 0.06
    assert 0 < float(jnp.abs(layer["conv"]["bias"]).max()) <= (32 * 3) ** -0.5
    assert abs(float(base["encoder"]["layers"]["0"]["attention"]["q_proj"]["weight"].std()) / 0.5 - 1) < 0.06
    assert float(jnp.abs(base["feature_projection"]["projection"]["weight"]).max()) <= 32**-0.5
    assert 0 <= float(base["masked_spec_embed"].min()) < 0.2 < 0.8 < float(base["masked_spec_embed"].max()) < 1
    assert float(quantizer["codevectors"].min()) >= 0 and float(quantizer["codevectors"].max()) < 1
    assert abs(float(quantizer["weight_proj"]["weight"].std()) - 1) < 0.15
    parts = base["encoder"]["pos_conv_embed"]["conv"]["parametrizations"]["weight"]
    lengths = jnp.sqrt(jnp.square(parts["original1"]).sum((0, 1)))
    np.testing.assert_allclose(parts["original0"][0, 0], lengths, rtol=0.1)


# Inputs


def test_numbers_of_frames_are_torchs() -> None:
    lengths = np.array([60, 100, 391, 400])
    for changes in ({}, {"add_adapter": True, "num_adapter_layers": 2}):
        other = Wav2Vec2Model(tiny_wav2vec2(**changes))
        model = FlaxWav2Vec2Model(tiny_wav2vec2(**changes), _do_init=False)
        for add_adapter in (None, True, False):
            wanted = other._get_feat_extract_output_lengths(torch.from_numpy(lengths), add_adapter)
            assert np.array_equal(model._get_feat_extract_output_lengths(lengths, add_adapter), wanted)
    assert model(sound(), params=filled(FlaxWav2Vec2Model, model.config).params).last_hidden_state.shape[1] == (
        model._get_feat_extract_output_lengths(200)
    )


def test_padding_does_not_matter() -> None:
    """With norms that look at one frame at a time; the mask may be of any number type."""
    model = filled(FlaxWav2Vec2Model, tiny_wav2vec2(**STABLE))
    short = sound(141)
    longer = np.concatenate((short, np.full((2, 59), 7.0, np.float32)), 1)
    wanted = model(short).last_hidden_state
    for dtype in (np.int64, bool, np.float32):
        mask = np.concatenate((np.ones((2, 141)), np.zeros((2, 59))), 1).astype(dtype)
        found = model(longer, mask).last_hidden_state[:, : wanted.shape[1]]
        np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "give input_values"),
        (sound(20), r"input_values must be \(batch, samples\), at least 30 samples; found \(2, 20\)"),
        (sound()[0], r"input_values must be \(batch, samples\)"),
    ],
)
def test_impossible_inputs(given: Any, message: str) -> None:
    model = FlaxWav2Vec2Model(tiny_wav2vec2(), _do_init=False)
    with pytest.raises(ValueError, match=message):
        model(given, params=model.params_shape_tree)


def test_nothing_to_mask_with() -> None:
    model = FlaxWav2Vec2Model(tiny_wav2vec2(mask_time_prob=0.0), _do_init=False)
    assert "masked_spec_embed" not in model.params_shape_tree
    with pytest.raises(ValueError, match="mask_time_indices need mask_time_prob or mask_feature_prob above 0"):
        model(sound(), mask_time_indices=np.ones((2, 9)), params=model.params_shape_tree)


@pytest.mark.parametrize(
    ("cls", "changes", "message"),
    [
        (FlaxWav2Vec2Model, {"feat_extract_norm": "grop"}, "Did you mean 'group'"),
        (FlaxWav2Vec2Model, {"num_conv_pos_embedding_groups": 5}, "groups must divide the hidden size"),
        (FlaxWav2Vec2Model, {"num_attention_heads": 5}, "heads must divide the hidden size"),
        (FlaxWav2Vec2ForCTC, {"vocab_size": None}, "vocab_size is not set"),
        (FlaxWav2Vec2ForPreTraining, {"num_codevector_groups": 3}, "groups must divide the codevectors"),
        (FlaxWav2Vec2ForSequenceClassification, {"add_adapter": True}, "has no place for an adapter"),
        (FlaxWav2Vec2ForAudioFrameClassification, {"add_adapter": True}, "has no place for an adapter"),
    ],
)
def test_impossible_configs(cls: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(tiny_wav2vec2(**changes))


# Parts and training


def test_pruning_is_torchs(tmp_path: Path) -> None:
    model = filled(FlaxWav2Vec2Model, tiny_wav2vec2())
    model.save_pretrained(tmp_path, durable=False)
    other = Wav2Vec2Model.from_pretrained(tmp_path, attn_implementation="eager")
    other.prune_heads({0: [1, 2], 1: [0]})
    params = model.prune_heads({0: [1, 2], 1: [0]})
    assert params["encoder"]["layers"]["0"]["attention"]["out_proj"]["weight"].shape == (24, 12)
    with torch.no_grad():
        wanted = other(torch.from_numpy(sound())).last_hidden_state
    np.testing.assert_allclose(model(sound()).last_hidden_state, wanted.numpy(), atol=2e-5)


def test_half_precision() -> None:
    model = filled(FlaxWav2Vec2ForXVector, tiny_wav2vec2(num_hidden_layers=1))
    half = FlaxWav2Vec2ForXVector(tiny_wav2vec2(num_hidden_layers=1), dtype="bfloat16", _do_init=False)
    mask = np.ones((2, 200), int)
    found = half(sound(), mask, params=model.params).embeddings
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float32), model(sound(), mask).embeddings, atol=0.2)


def test_freezing_the_convolutions() -> None:
    model = filled(FlaxWav2Vec2ForCTC, tiny_wav2vec2(num_hidden_layers=1))

    def loss(params: Any, freeze: bool) -> Any:
        return model(sound(), params=params, freeze_feature_encoder=freeze).logits.sum()

    grad = jax.jit(jax.grad(loss), static_argnums=1)
    free, frozen = (grad(model.params, freeze)["wav2vec2"] for freeze in (False, True))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(frozen["feature_extractor"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(free["feature_extractor"]))
    after = [grads["encoder"]["layers"]["0"]["layer_norm"]["bias"] for grads in (free, frozen)]
    np.testing.assert_allclose(*after, rtol=1e-4)


def test_blocks_are_left_out_in_training() -> None:
    model = filled(FlaxWav2Vec2Model, tiny_wav2vec2(**NO_NOISE | {"layerdrop": 1.0, "num_hidden_layers": 1}))
    output = model(sound(), train=True, dropout_rng=KEY, output_hidden_states=True)
    assert np.array_equal(output.hidden_states[0], output.hidden_states[1])
    whole = model(sound(), output_hidden_states=True)
    assert np.array_equal(output.hidden_states[0], whole.hidden_states[0])
    assert not np.allclose(whole.hidden_states[0], whole.hidden_states[1])


def test_codes_are_drawn_in_training() -> None:
    config = tiny_wav2vec2(**NO_NOISE | {"num_hidden_layers": 1}, feat_quantizer_dropout=0.0)
    model = filled(FlaxWav2Vec2ForPreTraining, config)
    other = jax.random.key(1, impl="unsafe_rbg")

    def run(**given: Any) -> Any:
        return model(sound(), dropout_rng=KEY, gumbel_temperature=given.pop("temperature", 2.0), **given)

    best = run()
    assert np.array_equal(run(gumbel_rng=other).projected_quantized_states, best.projected_quantized_states)
    first, second = (run(train=True, gumbel_rng=key).projected_quantized_states for key in (KEY, other))
    assert np.array_equal(first, run(train=True, gumbel_rng=KEY).projected_quantized_states)
    assert not np.allclose(first, second) and not np.allclose(first, best.projected_quantized_states)
    assert not np.allclose(run(train=True).projected_quantized_states, best.projected_quantized_states)
    assert np.array_equal(run(train=True).projected_states, best.projected_states)

    # Codes are chosen one at a time, and the shares that they are drawn by have a gradient.
    def drawn(params: Any, temperature: float) -> Any:
        output = model(
            sound(), params=params, train=True, dropout_rng=KEY, gumbel_rng=KEY, gumbel_temperature=temperature
        )
        return output.projected_quantized_states[..., 0].sum() + output.codevector_perplexity

    grads = jax.jit(jax.grad(drawn))(model.params, 1.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert np.any(grads["quantizer"]["weight_proj"]["weight"]) and np.any(grads["quantizer"]["codevectors"])
