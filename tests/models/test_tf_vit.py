"""ViT in TensorFlow: every head against torch, and every checkpoint of the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from tf_cases import check_case, check_checkpointing, check_h5, check_reference, check_round_trip, filled, find_tf
from tiny import REFERENCE, tiny_vit

import pretrained
from pretrained.errors import ConfigError
from pretrained.models.vit.family import FAMILY
from pretrained.models.vit.modeling_tf_vit import TFViTModel
from pretrained.models.vit.modeling_tf_vit_heads import TFViTForImageClassification, TFViTForMaskedImageModeling
from pretrained.models.vit.modeling_vit_heads import ViTForImageClassification
from pretrained.tf.resampling import bicubic

CASES = sorted(json.loads((REFERENCE / "vit_heads/cases.json").read_text())["cases"])
FOLDERS = sorted(path.name for path in (REFERENCE / "vit").iterdir() if path.is_dir())
CLASSES = sorted({place.split(":")[1] for place in FAMILY.tf.values()})


def images(height: int = 12, width: int = 12, batch: int = 2, channels: int = 3) -> Any:
    return np.random.RandomState(1).standard_normal((batch, channels, height, width)).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_heads(case: str) -> None:
    output = check_case("vit", case)
    if case == "model":
        assert len(output.hidden_states) == 3 and len(output.attentions) == 2


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_format(folder: str) -> None:
    check_reference("vit", "ViTModel", folder)
    if folder != "torch-base-only":
        check_reference("vit", "ViTForImageClassification", folder)


def test_h5_is_laid_out_as_transformers_does(tmp_path: Path) -> None:
    check_h5("vit", "ViTForImageClassification", tmp_path)


@pytest.mark.parametrize("name", CLASSES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    check_round_trip(find_tf("vit", name), "vit", tmp_path, safe=True)


@pytest.mark.parametrize("place", FAMILY.tf.items(), ids=lambda place: place[0])
def test_auto_classes(place: tuple[str, str]) -> None:
    cls = find_tf("vit", place[1].split(":")[1])
    assert type(getattr(pretrained, place[0]).from_pretrained(REFERENCE / "vit/torch-safetensors")) is cls
    assert getattr(pretrained, cls.__name__) is cls


@pytest.mark.parametrize(("old", "new"), [((3, 3), (5, 7)), ((4, 5), (2, 3)), ((1, 2), (3, 1)), ((6, 6), (6, 6))])
def test_bicubic_is_torchs(old: tuple[int, int], new: tuple[int, int]) -> None:
    table = np.random.RandomState(0).standard_normal((*old, 4)).astype(np.float32)
    planes = torch.from_numpy(table).permute(2, 0, 1)[None]
    wanted = torch.nn.functional.interpolate(planes, size=new, mode="bicubic", align_corners=False)
    np.testing.assert_allclose(bicubic(tf.constant(table), new), wanted[0].permute(1, 2, 0).numpy(), atol=1e-5)
    assert bicubic(tf.constant(table, tf.bfloat16), new).dtype == tf.float32


def test_sizes_that_only_a_run_tells() -> None:
    model = filled(TFViTForMaskedImageModeling, tiny_vit(encoder_stride=4))
    free = tf.function(
        lambda pixels: model(pixels, interpolate_pos_encoding=True).reconstruction,
        input_signature=[tf.TensorSpec((None, None, None, None))],
    )
    for size in ((12, 12), (20, 8)):
        wanted = model(images(*size), interpolate_pos_encoding=True).reconstruction
        np.testing.assert_allclose(free(images(*size)), wanted, atol=1e-5)
    fixed = tf.function(
        lambda pixels, masked: model(pixels, masked).loss,
        input_signature=[tf.TensorSpec((None, None, None, None)), tf.TensorSpec((None, 9), tf.int32)],
    )
    masked = np.array([[1, 0, 0, 1, 0, 0, 1, 0, 1], [0] * 9], np.int32)
    np.testing.assert_allclose(fixed(images(), masked), model(images(), masked).loss, atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        fixed(images(12, 16), masked)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (
            images(12, 16),
            r"the images are 12×16, the model's 12×12: resize them, or pass interpolate_pos_encoding=True",
        ),
        (images(channels=1), "pixel_values have 1 channels, the model num_channels=3"),
        (images()[0], r"pixel_values must be \(batch, channels, height, width\)"),
        (None, "give pixel_values"),
    ],
)
def test_images_the_model_cannot_take(pixels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TFViTModel(tiny_vit())(pixels)


def test_other_mistakes() -> None:
    model = TFViTModel(tiny_vit())
    with pytest.raises(ValueError, match="smaller than one patch"):
        model(images(12, 3), interpolate_pos_encoding=True)
    with pytest.raises(ValueError, match="needs a model with a mask token"):
        model(images(), np.ones((2, 9)))
    filler = TFViTForMaskedImageModeling(tiny_vit(encoder_stride=2))
    with pytest.raises(ValueError, match="needs patches as large as what is made of them"):
        filler(images(), np.ones((2, 9)))
    with pytest.raises(ConfigError, match="the image is smaller than one patch"):
        TFViTModel(tiny_vit(image_size=3))
    with pytest.raises(ConfigError, match="heads must divide the hidden size"):
        TFViTModel(tiny_vit(num_attention_heads=5))


def test_initial_weights() -> None:
    config = tiny_vit(hidden_size=64, initializer_range=0.5)
    own = TFViTModel(config, use_mask_token=True).structure.variables
    assert abs(np.std(own["embeddings.patch_embeddings.projection.weight"]) / 0.5 - 1) < 0.06
    assert abs(np.std(own["embeddings.position_embeddings"]) / 0.5 - 1) < 0.15
    assert not np.any(own["embeddings.mask_token"]) and not np.any(own["embeddings.patch_embeddings.projection.bias"])
    assert np.abs(own["pooler.dense.weight"]).max() <= 2 and np.all(own["layernorm.weight"] == 1)
    still = TFViTModel(tiny_vit(initializer_range=0.0)).structure.variables
    assert not np.any(still["embeddings.cls_token"])


def test_pruning_is_torchs(tmp_path: Path) -> None:
    model = filled(TFViTForImageClassification, tiny_vit(num_labels=3))
    model.save_pretrained(tmp_path, durable=False)
    other = ViTForImageClassification.from_pretrained(tmp_path, attn_implementation="eager")
    other.prune_heads({0: [1, 2], 1: [0]})
    model.prune_heads({0: [1, 2], 1: [0]})
    assert model.vit.encoder.layer[0].attention.output.dense.weight.shape == (24, 12)
    with torch.no_grad():
        wanted = other(torch.from_numpy(images())).logits
    np.testing.assert_allclose(model(images()).logits, wanted.numpy(), atol=2e-5)
    with pytest.raises(NotImplementedError, match="has no table of tokens"):
        model.resize_token_embeddings(5)


def test_mixed_precision() -> None:
    model = filled(TFViTForImageClassification, tiny_vit(num_labels=3))
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        found = filled(TFViTForImageClassification, tiny_vit(num_labels=3))(images()).logits
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert found.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(found, tf.float32), model(images()).logits, atol=0.2)


def test_fit_and_predict() -> None:
    model = filled(TFViTForImageClassification, tiny_vit(num_labels=3, num_hidden_layers=1))
    model.compile(keras.optimizers.SGD(0.05))
    labels = np.array([1, 2, 0, 1])
    data = {"pixel_values": images(batch=4), "labels": labels}
    losses = model.fit(data, epochs=6, batch_size=2, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert model.predict(images(batch=4), batch_size=2, verbose=0)["logits"].shape == (4, 3)


def test_no_labels() -> None:
    model = filled(TFViTForImageClassification, tiny_vit(id2label={}))
    assert model(images()).logits.shape == (2, 24)


def test_training() -> None:
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3, "num_hidden_layers": 1}
    config = tiny_vit(num_labels=3, **rates)
    models = (filled(TFViTForImageClassification, config, gradient_checkpointing=again) for again in (False, True))
    grads = check_checkpointing(*models, pixel_values=images(), labels=np.array([1, 2]))
    assert all(np.any(grad) for grad in grads)
