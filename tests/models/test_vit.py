from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_cases import compare_with_reference, round_trip, run_drawn
from safetensors.torch import load_file
from tiny import REFERENCE, find_class, pick, tiny_vit
from torch import Tensor

from pretrained import AutoModel, AutoModelForImageClassification, AutoModelForMaskedImageModeling
from pretrained.errors import ConfigError, MismatchError, OptionError
from pretrained.models.vit.configuration_vit import ViTConfig
from pretrained.models.vit.family import FAMILY
from pretrained.models.vit.modeling_vit import ViTModel
from pretrained.models.vit.modeling_vit_heads import ViTForImageClassification, ViTForMaskedImageModeling

CASES = sorted(json.loads((REFERENCE / "vit_heads/cases.json").read_text())["cases"])
BOTH = pytest.mark.parametrize("attention", ["eager", "sdpa"])
FOLDERS = sorted(place.name for place in (REFERENCE / "vit").glob("torch-*"))
CLASSES = sorted(place.split(":")[1] for place in FAMILY.pt.values())


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)


def make(cls: type, seed: int = 0, arguments: dict[str, Any] | None = None, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return cls(tiny_vit(**changes), **arguments or {}).eval()


def images(height: int = 12, width: int = 12, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@BOTH
@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", ["ViTModel", "ViTForImageClassification"])
def test_reference(name: str, folder: str, attention: str) -> None:
    if folder == "torch-base-only" and name != "ViTModel":
        folder = "torch-safetensors"  # its head would be random
    compare_with_reference("vit", name, folder, attention)


@pytest.mark.parametrize("folder", ["flax-safetensors", "tf-safetensors"])
def test_checkpoints_of_other_frameworks(folder: str) -> None:
    compare_with_reference("vit", "ViTForImageClassification", folder, "sdpa")


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_heads(case: str, attention: str) -> None:
    output, expected = run_drawn("vit", case, attention)
    assert expected
    for name, value in expected.items():
        torch.testing.assert_close(pick(output, name), value, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    if "hidden_states.0" in expected:
        assert len(output.hidden_states) == 3
        assert len(output.attentions) == 2


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", CLASSES)
def test_round_trip(name: str, folder: str, tmp_path: Path) -> None:
    round_trip("vit", name, folder, tmp_path)


def test_names_out_are_names_in(tmp_path: Path) -> None:
    source = REFERENCE / "vit/torch-safetensors"
    ViTForImageClassification.from_pretrained(source).save_pretrained(tmp_path)
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("auto", "cls"),
    [
        (AutoModel, ViTModel),
        (AutoModelForImageClassification, ViTForImageClassification),
        (AutoModelForMaskedImageModeling, ViTForMaskedImageModeling),
    ],
)
def test_auto_classes(auto: Any, cls: type) -> None:
    assert type(auto.from_pretrained(REFERENCE / "vit/torch-safetensors")) is cls
    assert type(auto.from_config(tiny_vit())) is cls


def test_constructor_arguments_go_through_a_load() -> None:
    model = ViTModel.from_pretrained(REFERENCE / "vit/torch-base-only", add_pooling_layer=False, use_mask_token=True)
    assert model.pooler is None
    assert torch.equal(model.embeddings.mask_token, torch.zeros(1, 1, 32))
    with pytest.raises(OptionError, match="did you mean 'add_pooling_layer'"):
        ViTModel.from_pretrained(REFERENCE / "vit/torch-base-only", add_poling_layer=False)


def test_what_a_checkpoint_lacks_is_as_in_a_fresh_model() -> None:
    torch.manual_seed(3)
    model, report = ViTForMaskedImageModeling.from_pretrained(
        REFERENCE / "vit/torch-safetensors", output_loading_info=True
    )
    assert report["missing_keys"] == ["decoder.0.bias", "decoder.0.weight", "vit.embeddings.mask_token"]
    assert torch.equal(model.decoder[0].bias, torch.zeros_like(model.decoder[0].bias))
    assert abs(model.decoder[0].weight.std().item() - 0.02) < 0.002
    assert torch.equal(model.vit.embeddings.mask_token, torch.zeros(1, 1, 32))


def test_a_larger_image_size_needs_another_table() -> None:
    with pytest.raises(MismatchError, match=r"position_embeddings: checkpoint \[1, 5, 32\], model \[1, 10, 32\]"):
        ViTModel.from_pretrained(REFERENCE / "vit/torch-base-only", image_size=45)


def test_initial_weights() -> None:
    model = make(ViTForMaskedImageModeling, hidden_size=64, image_size=40)
    embeddings = model.vit.embeddings
    assert abs(embeddings.position_embeddings.std().item() - 0.15) < 0.01
    assert abs(embeddings.patch_embeddings.projection.weight.std().item() - 0.15) < 0.01
    assert embeddings.cls_token.std().item() > 0.1
    assert torch.all(embeddings.mask_token == 0)
    assert torch.all(model.vit.layernorm.weight == 1)
    assert torch.all(model.vit.encoder.layer[0].attention.attention.query.bias == 0)


def test_no_labels_means_no_classifier() -> None:
    model = make(ViTForImageClassification, id2label={})
    with torch.no_grad():
        output = model(images())
        torch.testing.assert_close(output.logits, model.vit(images()).last_hidden_state[:, 0])


@pytest.mark.parametrize("cls", [ViTModel, ViTForImageClassification, ViTForMaskedImageModeling])
def test_dummy_inputs_fit(cls: type) -> None:
    model = make(cls, image_size=[8, 12])
    assert cls.main_input_name == "pixel_values"
    assert model.dummy_inputs["pixel_values"].shape == (2, 3, 8, 12)
    with torch.no_grad():
        assert torch.isfinite(model(**model.dummy_inputs)[0]).all()
    assert model.estimate_tokens(model.dummy_inputs) == 2 * 3 * 8 * 12


def test_return_dict_false_is_the_tuple_of_the_same() -> None:
    model, masked = make(ViTForMaskedImageModeling), torch.arange(18).view(2, 9) % 2
    with torch.no_grad():
        output = model(images(), masked, output_hidden_states=True)
        plain = model(images(), masked, output_hidden_states=True, return_dict=False)
        assert isinstance(plain, tuple)
        assert len(plain) == len(output) == 3
        assert torch.equal(plain[0], output.loss)
        assert torch.equal(plain[1], output.reconstruction)
        model.config.return_dict = False
        assert isinstance(model(images()), tuple)
        model.config.output_attentions = True
        assert len(model(images())[1]) == 2


@BOTH
def test_head_mask_switches_heads_off(attention: str) -> None:
    model = make(ViTModel, attn_implementation=attention)
    keep = torch.tensor([[1.0, 0, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        masked = model(images(), head_mask=keep, output_attentions=True)
        assert torch.all(masked.attentions[0][:, 1] == 0)
        assert torch.all(masked.attentions[1][:, 2:] == 0)
        for index, layer in enumerate(model.encoder.layer):  # the same by taking the heads out of the projection
            off = [h * 6 + i for h in range(4) if not keep[index, h] for i in range(6)]
            layer.attention.output.dense.weight[:, off] = 0
        torch.testing.assert_close(model(images())[0], masked[0], atol=1e-5, rtol=0)
    for cls in (ViTForImageClassification, ViTForMaskedImageModeling):
        weights = make(cls)(images(), head_mask=keep, output_attentions=True).attentions
        assert torch.all(weights[0][:, 1] == 0)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_chunked_feed_forward(size: int) -> None:
    model = make(ViTModel)
    with torch.no_grad():
        whole = model(images())[0]
        model.config.chunk_size_feed_forward = size
        torch.testing.assert_close(model(images())[0], whole)


def test_positions_of_a_constant_table_stay_constant() -> None:
    embeddings = make(ViTModel).embeddings
    with torch.no_grad():
        embeddings.position_embeddings[:, 1:] = 0.7
        found = embeddings.positions_of(28, 40)
    assert found.shape == (1, 1 + 7 * 10, 24)
    torch.testing.assert_close(found[:, 1:], torch.full((1, 70, 24), 0.7))
    assert torch.equal(found[:, :1], embeddings.position_embeddings[:, :1])


def test_positions_of_an_oblong_table_keep_rows_and_columns() -> None:
    embeddings = make(ViTModel, image_size=[8, 16]).embeddings
    rows = torch.arange(2.0).repeat_interleave(4)
    with torch.no_grad():
        embeddings.position_embeddings[:, 1:] = rows[None, :, None]
        table = embeddings.positions_of(16, 32)[0, 1:, 0].view(4, 8)
    torch.testing.assert_close(table, table[:, :1].expand(4, 8))  # rows differ, columns do not
    assert table[0, 0] < table[1, 0] < table[2, 0] < table[3, 0]


def test_half_precision_interpolates_in_single() -> None:
    model = make(ViTModel)
    exact = model.embeddings.positions_of(20, 20)
    table = model.bfloat16().embeddings.positions_of(20, 20)
    assert table.dtype == torch.bfloat16
    torch.testing.assert_close(table.float(), exact, atol=5e-3, rtol=1e-2)
    assert model(images(20, 20), interpolate_pos_encoding=True)[0].dtype == torch.bfloat16  # images are cast


def test_masked_patches_are_not_seen() -> None:
    model = make(ViTForMaskedImageModeling)
    masked = torch.zeros(2, 9, dtype=torch.bool)
    masked[:, 4] = True  # the middle: rows and columns 4 to 7
    other = images()
    other[:, :, 4:8, 4:8] = 9.0
    with torch.no_grad():
        assert torch.equal(model(images(), masked).reconstruction, model(other, masked).reconstruction)
        assert not torch.equal(model(images()).reconstruction, model(other).reconstruction)


def test_loss_of_a_masked_image_of_another_size() -> None:
    model, masked = make(ViTForMaskedImageModeling), torch.zeros(2, 2 * 5, dtype=torch.bool)
    masked[0, 7] = masked[1, 0] = True  # row 1, column 2; row 0, column 0
    pixels = images(9, 21)  # one row and one column of pixels belong to no patch
    with torch.no_grad():
        output = model(pixels, masked, interpolate_pos_encoding=True)
    assert output.reconstruction.shape == (2, 3, 8, 20)
    gaps = (pixels[:, :, :8, :20] - output.reconstruction).abs()
    expected = torch.stack((gaps[0, :, 4:8, 8:12], gaps[1, :, :4, :4])).mean()
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give pixel_values"),
        ({"pixel_values": torch.zeros(3, 12, 12)}, r"must be \(batch, channels, height, width\); the shape is \(3, 12"),
        ({"pixel_values": torch.zeros(1, 4, 12, 12)}, "have 4 channels, the model num_channels=3"),
        ({"pixel_values": torch.zeros(1, 3, 16, 12)}, "are 16×12, the model's 12×12: .*interpolate_pos_encoding=True"),
        (
            {"pixel_values": torch.zeros(1, 3, 12, 3), "interpolate_pos_encoding": True},
            r"are 12×3: smaller than one patch \(4, 4\)",
        ),
        (
            {"pixel_values": torch.zeros(1, 3, 12, 12), "bool_masked_pos": torch.ones(1, 9)},
            "needs a model with a mask token",
        ),
    ],
)
def test_wrong_images_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(ViTModel)(**given)


def test_a_mask_needs_patches_as_large_as_what_is_made() -> None:
    model = make(ViTForMaskedImageModeling, encoder_stride=2)
    with pytest.raises(ValueError, match="patch_size=4, encoder_stride=2"):
        model(images(), torch.zeros(2, 9))


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"num_attention_heads": 5}, "num_attention_heads", "heads must divide the hidden size: hidden_size=24"),
        ({"hidden_act": "gelo"}, "hidden_act", "Did you mean 'gelu'"),
        ({"pooler_act": "tan"}, "pooler_act", "pooler_act='tan' is not known. Did you mean 'tanh'"),
        ({"image_size": 3}, "patch_size", "smaller than one patch: image_size=3, patch_size=4"),
        ({"image_size": [12]}, "image_size", r"image_size=\[12\] must be a positive number or a pair"),
        ({"image_size": [12, 12, 12]}, "image_size", "or a pair"),
        ({"patch_size": [4, "4"]}, "patch_size", "or a pair"),
        ({"patch_size": [4, 0]}, "patch_size", "or a pair"),
        ({"patch_size": True}, "patch_size", "or a pair"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ViTModel(tiny_vit(**changes))
    assert caught.value.key == key


@pytest.mark.parametrize("value", ["12", 0, -4, 12.5, 2**40])
def test_an_image_size_from_a_file_is_checked(value: Any) -> None:
    with pytest.raises(ConfigError, match="image_size"):
        ViTConfig.from_dict({"image_size": value})


def test_config_is_written_as_others_read_it(tmp_path: Path) -> None:
    ViTConfig(image_size=[8, 12], num_labels=5).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["image_size"] == [8, 12]
    assert values["pooler_output_size"] == values["hidden_size"] == 768
    assert values["model_type"] == "vit"
    assert ViTConfig.from_pretrained(tmp_path).num_labels == 5
    source = json.loads((REFERENCE / "vit/torch-safetensors/config.json").read_text())
    written = ViTConfig.from_dict(source).to_dict()
    assert {key: written[key] for key in source} == source


@BOTH
def test_training_lowers_the_loss(attention: str) -> None:
    model = make(ViTForImageClassification, attn_implementation=attention, num_labels=3).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(8):
        loss = model(images(), labels=torch.tensor([0, 2])).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] * 0.8


def test_export() -> None:
    model = make(ViTForImageClassification, attn_implementation="sdpa")
    exported = torch.export.export(model, (images(),))
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(images())["logits"], model(images()).logits)


def test_input_embeddings_are_the_patches() -> None:
    model = make(ViTForImageClassification)
    assert model.get_input_embeddings() is model.vit.embeddings.patch_embeddings
    other = make(ViTModel).embeddings.patch_embeddings
    model.set_input_embeddings(other)
    assert model.vit.embeddings.patch_embeddings is other


def test_every_class_is_public() -> None:
    import pretrained

    for name in [*CLASSES, "ViTPreTrainedModel"]:
        assert getattr(pretrained, name).config_class is pretrained.ViTConfig
    assert find_class("vit", "ViTModel") is ViTModel


def test_an_initializer_range_of_nothing_gives_zeros() -> None:
    model = ViTModel(tiny_vit(initializer_range=0.0))
    assert not model.embeddings.position_embeddings.any() and not model.pooler.dense.weight.any()


def test_what_an_image_has_not() -> None:
    model = make(ViTForImageClassification)
    with pytest.raises(NotImplementedError, match="ViTForImageClassification reads images: it has no token embeddings"):
        model.resize_token_embeddings(10)
    for call in (model.get_position_embeddings, lambda: model.resize_position_embeddings(20)):
        with pytest.raises(NotImplementedError, match=r"one position for each patch .* interpolate_pos_encoding=True"):
            call()
