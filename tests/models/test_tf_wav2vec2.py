"""Wav2Vec2 in TensorFlow: every head against torch, and every checkpoint of the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from safetensors.numpy import load_file, save_file
from tf_cases import (
    check_case,
    check_checkpointing,
    check_h5,
    check_reference,
    check_round_trip,
    check_same_variables,
    filled,
    find_tf,
)
from tiny import REFERENCE, tiny_wav2vec2

import pretrained
from pretrained.errors import ConfigError
from pretrained.models.wav2vec2.family import FAMILY
from pretrained.models.wav2vec2.modeling_tf_wav2vec2 import TFWav2Vec2Model
from pretrained.models.wav2vec2.modeling_tf_wav2vec2_heads import (
    TFWav2Vec2ForAudioFrameClassification,
    TFWav2Vec2ForCTC,
    TFWav2Vec2ForSequenceClassification,
    TFWav2Vec2ForXVector,
)
from pretrained.models.wav2vec2.modeling_tf_wav2vec2_losses import ctc_loss
from pretrained.models.wav2vec2.modeling_tf_wav2vec2_pretraining import TFWav2Vec2ForPreTraining
from pretrained.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Model
from pretrained.models.wav2vec2.modeling_wav2vec2_heads import ctc_loss as torch_ctc_loss

CASES = sorted(json.loads((REFERENCE / "wav2vec2_heads/cases.json").read_text())["cases"])
CLASSES = sorted({place.split(":")[1] for place in FAMILY.tf.values()})
FOLDER = REFERENCE / "wav2vec2"
FOLDERS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
NO_NOISE = dict.fromkeys(
    ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop"), 0.0
)


def sound(samples: int = 200, batch: int = 2) -> Any:
    return np.random.RandomState(1).standard_normal((batch, samples)).astype(np.float32)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_format(folder: str) -> None:
    check_reference("wav2vec2", "Wav2Vec2Model", folder)
    if folder != "torch-base-only":
        check_reference("wav2vec2", "Wav2Vec2ForCTC", folder)


@pytest.mark.parametrize("case", CASES)
def test_heads(case: str) -> None:
    output = check_case("wav2vec2", case)
    if case == "model":
        assert len(output.hidden_states) == 3 and len(output.attentions) == 2


# Losses


@pytest.mark.parametrize("changes", [{}, {"ctc_loss_reduction": "none"}, {"ctc_zero_infinity": True}])
def test_ctc_loss_is_torchs(changes: dict[str, Any]) -> None:
    """Also of texts that are empty, have the same token twice, or are too long; and what flows back of them."""
    random = np.random.RandomState(2)
    logits, lengths = random.standard_normal((5, 9, 6)).astype(np.float32), np.array([9, 7, 9, 5, 6])
    labels = np.array([[1, 2, 3, 0, 0], [4, 4, -100, 5, -100], [0] * 5, [1, 1, 2, 2, -100], [5, 4, 3, 2, 1]])
    config = tiny_wav2vec2(pad_token_id=0, **changes)
    given = torch.from_numpy(logits).requires_grad_()
    wanted = torch_ctc_loss(given, torch.from_numpy(labels), torch.from_numpy(lengths), config)
    with tf.GradientTape() as tape:
        tensor = tf.constant(logits)
        tape.watch(tensor)
        found = ctc_loss(tensor, tf.constant(labels), tf.constant(lengths, tf.int32), config)
    np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-5)
    if config.ctc_zero_infinity:
        wanted.sum().backward()
        assert given.grad is not None
        np.testing.assert_allclose(tape.gradient(found, tensor), given.grad.numpy(), atol=1e-5)


def test_losses_of_other_configs_are_refused() -> None:
    model = TFWav2Vec2ForCTC(tiny_wav2vec2(ctc_loss_reduction="men"))
    with pytest.raises(ConfigError, match="Did you mean 'mean'"):
        model(sound(), labels=np.array([[1], [2]]))
    with pytest.raises(ValueError, match="sampled_negative_indices need mask_time_indices"):
        TFWav2Vec2ForPreTraining(tiny_wav2vec2())(sound(), sampled_negative_indices=np.zeros((2, 9, 1), int))


# Loading and saving


def test_h5_is_laid_out_as_transformers_does(tmp_path: Path) -> None:
    check_h5("wav2vec2", "Wav2Vec2ForCTC", tmp_path)


@pytest.mark.parametrize("name", CLASSES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    check_round_trip(find_tf("wav2vec2", name), "wav2vec2", tmp_path, safe=True)


def test_h5(tmp_path: Path) -> None:
    changes = {"add_adapter": True, "output_hidden_size": 16, "adapter_attn_dim": 4, **STABLE}
    check_round_trip(TFWav2Vec2ForCTC, "wav2vec2", tmp_path, safe=False, **changes)


def test_names_out_are_names_in_and_older_names_are_known(tmp_path: Path) -> None:
    source = FOLDER / "torch-safetensors"
    model = TFWav2Vec2ForCTC.from_pretrained(source)
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
    check_same_variables(model, TFWav2Vec2ForCTC.from_pretrained(legacy, strict=True))


def _renamed(key: str, names: dict[str, str]) -> str:
    for new, old in names.items():
        key = key.replace(new, old)
    return key


@pytest.mark.parametrize("place", FAMILY.tf.items(), ids=lambda place: place[0])
def test_auto_classes(place: tuple[str, str]) -> None:
    cls = find_tf("wav2vec2", place[1].split(":")[1])
    assert type(getattr(pretrained, place[0]).from_pretrained(FOLDER / "torch-safetensors")) is cls
    assert getattr(pretrained, cls.__name__) is cls


def test_initial_weights() -> None:
    config = tiny_wav2vec2(hidden_size=64, conv_dim=[32, 32, 32], initializer_range=0.5, conv_bias=True)
    own = {name: v.numpy() for name, v in TFWav2Vec2ForPreTraining(config).structure.variables.items()}
    layer = "wav2vec2.feature_extractor.conv_layers.1.conv."
    assert abs(np.std(own[layer + "weight"]) / (2 / (32 * 3)) ** 0.5 - 1) < 0.06
    assert 0 < np.abs(own[layer + "bias"]).max() <= (32 * 3) ** -0.5
    assert abs(np.std(own["wav2vec2.encoder.layers.0.attention.q_proj.weight"]) / 0.5 - 1) < 0.06
    assert np.abs(own["wav2vec2.feature_projection.projection.weight"]).max() <= 32**-0.5
    masked = own["wav2vec2.masked_spec_embed"]
    assert 0 <= masked.min() < 0.2 < 0.8 < masked.max() < 1
    assert own["quantizer.codevectors"].min() >= 0 and own["quantizer.codevectors"].max() < 1
    assert abs(np.std(own["quantizer.weight_proj.weight"]) - 1) < 0.15
    parts = "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original"
    np.testing.assert_allclose(own[parts + "0"][0, 0], np.sqrt(np.square(own[parts + "1"]).sum((0, 1))), rtol=0.1)


# Inputs


def test_numbers_of_frames_are_torchs() -> None:
    lengths = np.array([60, 100, 391, 400])
    for changes in ({}, {"add_adapter": True, "num_adapter_layers": 2}):
        other, model = Wav2Vec2Model(tiny_wav2vec2(**changes)), TFWav2Vec2Model(tiny_wav2vec2(**changes))
        for add_adapter in (None, True, False):
            wanted = other._get_feat_extract_output_lengths(torch.from_numpy(lengths), add_adapter)
            assert np.array_equal(model._get_feat_extract_output_lengths(lengths, add_adapter), wanted)
    assert model(sound()).last_hidden_state.shape[1] == model._get_feat_extract_output_lengths(200)


def test_padding_does_not_matter() -> None:
    """With norms that look at one frame at a time; the mask may be of any number type."""
    model = filled(TFWav2Vec2Model, tiny_wav2vec2(**STABLE))
    short = sound(141)
    longer = np.concatenate((short, np.full((2, 59), 7.0, np.float32)), 1)
    wanted = model(short).last_hidden_state
    for dtype in (np.int64, bool, np.float32):
        mask = np.concatenate((np.ones((2, 141)), np.zeros((2, 59))), 1).astype(dtype)
        found = model(longer, mask).last_hidden_state[:, : wanted.shape[1]]
        np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_shapes_that_only_a_run_tells() -> None:
    spec = [tf.TensorSpec((None, None)), tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.int32)]
    model = filled(TFWav2Vec2ForCTC, tiny_wav2vec2(num_hidden_layers=1))
    free = tf.function(lambda sound, mask, labels: model(sound, mask, labels=labels).loss, input_signature=spec)
    mask, labels = np.ones((2, 200), np.int32), np.array([[3, 4, 4], [5, -100, -100]], np.int32)
    mask[1, 150:] = 0
    np.testing.assert_allclose(free(sound(), mask, labels), model(sound(), mask, labels=labels).loss, rtol=1e-5)
    speaker = filled(TFWav2Vec2ForXVector, tiny_wav2vec2(num_hidden_layers=1, use_weighted_layer_sum=True))
    free = tf.function(lambda sound, mask: speaker(sound, mask).embeddings, input_signature=spec[:2])
    np.testing.assert_allclose(free(sound(), mask), speaker(sound(), mask).embeddings, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "give input_values"),
        (sound(20), r"input_values must be \(batch, samples\), at least 30 samples; found \(2, 20\)"),
        (sound()[0], r"input_values must be \(batch, samples\)"),
    ],
)
def test_impossible_inputs(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TFWav2Vec2Model(tiny_wav2vec2())(given)


def test_nothing_to_mask_with() -> None:
    model = TFWav2Vec2Model(tiny_wav2vec2(mask_time_prob=0.0))
    assert "masked_spec_embed" not in model.structure.variables
    with pytest.raises(ValueError, match="mask_time_indices need mask_time_prob or mask_feature_prob above 0"):
        model(sound(), mask_time_indices=np.ones((2, 9)))


@pytest.mark.parametrize(
    ("cls", "changes", "message"),
    [
        (TFWav2Vec2Model, {"feat_extract_norm": "grop"}, "Did you mean 'group'"),
        (TFWav2Vec2Model, {"num_conv_pos_embedding_groups": 5}, "groups must divide the hidden size"),
        (TFWav2Vec2Model, {"num_attention_heads": 5}, "heads must divide the hidden size"),
        (TFWav2Vec2ForCTC, {"vocab_size": None}, "vocab_size is not set"),
        (TFWav2Vec2ForPreTraining, {"num_codevector_groups": 3}, "groups must divide the codevectors"),
        (TFWav2Vec2ForSequenceClassification, {"add_adapter": True}, "has no place for an adapter"),
        (TFWav2Vec2ForAudioFrameClassification, {"add_adapter": True}, "has no place for an adapter"),
    ],
)
def test_impossible_configs(cls: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(tiny_wav2vec2(**changes))


# Parts and training


def test_pruning_is_torchs(tmp_path: Path) -> None:
    model = filled(TFWav2Vec2Model, tiny_wav2vec2())
    model.save_pretrained(tmp_path, durable=False)
    other = Wav2Vec2Model.from_pretrained(tmp_path, attn_implementation="eager")
    other.prune_heads({0: [1, 2], 1: [0]})
    model.prune_heads({0: [1, 2], 1: [0]})
    assert model.encoder.layers[0].attention.out_proj.weight.shape == (24, 12)
    with torch.no_grad():
        wanted = other(torch.from_numpy(sound())).last_hidden_state
    np.testing.assert_allclose(model(sound()).last_hidden_state, wanted.numpy(), atol=2e-5)


def test_freezing_the_convolutions() -> None:
    model = filled(TFWav2Vec2ForCTC, tiny_wav2vec2(num_hidden_layers=1))
    convolutions = model.wav2vec2.feature_extractor.conv_layers
    weights = [layer.conv.weight.value for layer in convolutions]
    found = []
    for freeze in (False, True):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(sound(), freeze_feature_encoder=freeze).logits)
        found.append(tape.gradient(total, weights))
    assert all(np.any(grad) for grad in found[0]) and all(grad is None for grad in found[1])


def test_blocks_are_left_out_in_training() -> None:
    model = filled(TFWav2Vec2Model, tiny_wav2vec2(**NO_NOISE | {"layerdrop": 1.0, "num_hidden_layers": 1}))
    output = model(sound(), training=True, output_hidden_states=True)
    assert np.array_equal(output.hidden_states[0], output.hidden_states[1])
    whole = model(sound(), output_hidden_states=True)
    assert np.array_equal(output.hidden_states[0], whole.hidden_states[0])
    assert not np.allclose(whole.hidden_states[0], whole.hidden_states[1])


def test_codes_are_drawn_in_training() -> None:
    config = tiny_wav2vec2(**NO_NOISE | {"num_hidden_layers": 1}, feat_quantizer_dropout=0.0)
    model = filled(TFWav2Vec2ForPreTraining, config)
    best = model(sound())
    masked = np.ones(best.projected_states.shape[:2], int)
    negatives = np.random.RandomState(0).randint(0, masked.size, (*masked.shape, 4))
    with tf.GradientTape() as tape:
        drawn = model(sound(), None, masked, negatives, 1.0, training=True)
    other = model(sound(), None, masked, negatives, 1.0, training=True)
    assert not np.allclose(drawn.projected_quantized_states, best.projected_quantized_states)
    assert not np.allclose(drawn.projected_quantized_states, other.projected_quantized_states)
    # Codes are chosen one at a time, and the shares that they are drawn by have a gradient.
    grads = tape.gradient(drawn.loss, [model.quantizer.weight_proj.weight.value, model.quantizer.codevectors.value])
    assert all(np.isfinite(grad).all() and np.any(grad) for grad in grads)


def test_training() -> None:
    config = tiny_wav2vec2(num_hidden_layers=1, layerdrop=0.0, hidden_dropout=0.3, mask_time_prob=0.0)
    models = (filled(TFWav2Vec2ForCTC, config, gradient_checkpointing=again) for again in (False, True))
    grads = check_checkpointing(*models, input_values=sound(), labels=np.array([[3, 4, 4], [5, -100, -100]]))
    assert all(np.isfinite(grad).all() for grad in grads)


def test_what_is_alike_in_all_frames_has_a_gradient() -> None:
    model = filled(TFWav2Vec2ForXVector, tiny_wav2vec2(num_hidden_layers=1, num_labels=3))
    model.tdnn[-1].kernel.bias.assign([-100.0] * 12)  # nothing passes the last layer but zeros
    for mask in (None, np.ones((2, 200), int)):
        with tf.GradientTape() as tape:
            loss = model(sound(), mask, labels=np.array([0, 2])).loss
        grads = tape.gradient(loss, model.trainable_variables)
        assert all(np.isfinite(grad).all() for grad in grads if grad is not None)  # nothing was hidden


def test_mixed_precision() -> None:
    # TensorFlow 2.21's wide convolutions of fewer than 16 channels are wrong in bfloat16 on a CPU with AMX (oneDNN).
    values, config = sound(), tiny_wav2vec2(num_hidden_layers=1, num_conv_pos_embedding_groups=1)
    wanted = filled(TFWav2Vec2ForXVector, config)(values, np.ones((2, 200), int)).embeddings
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        found = filled(TFWav2Vec2ForXVector, config)(values, np.ones((2, 200), int)).embeddings
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert found.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(found, tf.float32), wanted, atol=0.05)
