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
from tiny import REFERENCE, tiny_vit

import pretrained
from pretrained.errors import ConfigError
from pretrained.flax.resampling import bicubic
from pretrained.models.vit.family import FAMILY
from pretrained.models.vit.modeling_flax_vit import (
    FlaxViTForImageClassification,
    FlaxViTForMaskedImageModeling,
    FlaxViTModel,
)
from pretrained.models.vit.modeling_vit_heads import ViTForImageClassification

CASES = sorted(json.loads((REFERENCE / "vit_heads/cases.json").read_text())["cases"])
CLASSES = sorted({place.split(":")[1] for place in FAMILY.flax.values()})
FOLDER = REFERENCE / "vit"


def images(height: int = 12, width: int = 12, batch: int = 2, channels: int = 3) -> Any:
    return np.random.RandomState(1).standard_normal((batch, channels, height, width)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "folder"), [("ViTModel", "flax-msgpack"), ("ViTForImageClassification", "torch-safetensors")]
)
def test_reference(name: str, folder: str) -> None:
    check_reference("vit", name, folder)


@pytest.mark.parametrize("case", CASES)
def test_heads(case: str) -> None:
    output = check_case("vit", case)
    if case == "model":
        assert len(output.hidden_states) == 3 and len(output.attentions) == 2


def test_sdpa() -> None:
    check_case("vit", "model-same-size", "sdpa")


@pytest.mark.parametrize(("old", "new"), [((3, 3), (5, 7)), ((4, 5), (2, 3)), ((1, 2), (3, 1)), ((6, 6), (6, 6))])
def test_bicubic_is_torchs(old: tuple[int, int], new: tuple[int, int]) -> None:
    table = np.random.RandomState(0).standard_normal((*old, 4)).astype(np.float32)
    planes = torch.from_numpy(table).permute(2, 0, 1)[None]
    wanted = torch.nn.functional.interpolate(planes, size=new, mode="bicubic", align_corners=False)
    np.testing.assert_allclose(bicubic(jnp.asarray(table), new), wanted[0].permute(1, 2, 0).numpy(), atol=1e-5)
    assert bicubic(jnp.asarray(table, jnp.bfloat16), new).dtype == jnp.float32


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
    model = FlaxViTModel(tiny_vit(), _do_init=False)
    with pytest.raises(ValueError, match=message):
        model(pixels, params=model.params_shape_tree)


def test_other_mistakes() -> None:
    model = FlaxViTModel(tiny_vit(), _do_init=False)
    with pytest.raises(ValueError, match="smaller than one patch"):
        model(images(12, 3), interpolate_pos_encoding=True, params=model.params_shape_tree)
    with pytest.raises(ValueError, match="needs a model with a mask token"):
        model(images(), np.ones((2, 9)), params=model.params_shape_tree)
    filler = FlaxViTForMaskedImageModeling(tiny_vit(encoder_stride=2), _do_init=False)
    with pytest.raises(ValueError, match="needs patches as large as what is made of them"):
        filler(images(), np.ones((2, 9)), params=filler.params_shape_tree)
    with pytest.raises(ConfigError, match="the image is smaller than one patch"):
        FlaxViTModel(tiny_vit(image_size=3))
    with pytest.raises(ConfigError, match="heads must divide the hidden size"):
        FlaxViTModel(tiny_vit(num_attention_heads=5))
    with pytest.raises(NotImplementedError, match="has no table of tokens"):
        filled(FlaxViTModel, tiny_vit()).resize_token_embeddings(5)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("name", CLASSES)
def test_round_trip(name: str, safe: bool, tmp_path: Path) -> None:
    check_round_trip(find_flax("vit", name), "vit", tmp_path, safe)


@pytest.mark.parametrize("place", FAMILY.flax.items(), ids=lambda place: place[0])
def test_auto_classes(place: tuple[str, str]) -> None:
    cls = find_flax("vit", place[1].split(":")[1])
    assert type(getattr(pretrained, place[0]).from_pretrained(FOLDER / "torch-safetensors")) is cls
    assert getattr(pretrained, cls.__name__) is cls


def test_initial_weights() -> None:
    params = FlaxViTModel(tiny_vit(hidden_size=64, initializer_range=0.5), use_mask_token=True).params
    own = params["embeddings"]
    assert abs(float(own["patch_embeddings"]["projection"]["weight"].std()) / 0.5 - 1) < 0.06
    assert abs(float(own["position_embeddings"].std()) / 0.5 - 1) < 0.15
    assert not np.any(own["mask_token"]) and not np.any(own["patch_embeddings"]["projection"]["bias"])
    assert float(jnp.abs(params["pooler"]["dense"]["weight"]).max()) <= 2
    assert np.all(params["layernorm"]["weight"] == 1)
    still = FlaxViTModel(tiny_vit(initializer_range=0.0)).params
    assert not np.any(still["embeddings"]["cls_token"])


def test_pruning_is_torchs(tmp_path: Path) -> None:
    model = filled(FlaxViTForImageClassification, tiny_vit(num_labels=3))
    model.save_pretrained(tmp_path, durable=False)
    other = ViTForImageClassification.from_pretrained(tmp_path, attn_implementation="eager")
    other.prune_heads({0: [1, 2], 1: [0]})
    params = model.prune_heads({0: [1, 2], 1: [0]})
    assert params["vit"]["encoder"]["layer"]["0"]["attention"]["output"]["dense"]["weight"].shape == (24, 12)
    with torch.no_grad():
        wanted = other(torch.from_numpy(images())).logits
    np.testing.assert_allclose(model(images()).logits, wanted.numpy(), atol=2e-5)


def test_no_labels_and_half_precision() -> None:
    model = filled(FlaxViTForImageClassification, tiny_vit(id2label={}))
    assert model(images()).logits.shape == (2, 24)
    half = FlaxViTForImageClassification(tiny_vit(id2label={}), dtype="bfloat16", _do_init=False)
    found = half(images(), params=model.params).logits
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float32), model(images()).logits, atol=0.2)


def test_training() -> None:
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3, "num_hidden_layers": 1}
    model = filled(FlaxViTForImageClassification, tiny_vit(num_labels=3, **rates))
    key = jax.random.key(0, impl="unsafe_rbg")  # quickly compiled

    def loss(params: Any) -> Any:
        return model(images(), params=params, train=True, dropout_rng=key).logits[:, 1].sum()

    value, plain = jax.jit(jax.value_and_grad(loss))(model.params)
    assert abs(float(value - model(images()).logits[:, 1].sum())) > 1e-3
    model.enable_gradient_checkpointing()
    again = jax.jit(jax.grad(loss))(model.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), plain, again)
