from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_cases import compare_with_reference, round_trip, run_drawn
from safetensors.torch import load_file, save_file
from tiny import REFERENCE, find_class, pick, tiny_wav2vec2
from torch import Tensor, nn

import pretrained
from pretrained.errors import ConfigError
from pretrained.models.wav2vec2.configuration_wav2vec2 import Wav2Vec2Config
from pretrained.models.wav2vec2.family import FAMILY
from pretrained.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Model
from pretrained.models.wav2vec2.modeling_wav2vec2_features import span_mask
from pretrained.models.wav2vec2.modeling_wav2vec2_heads import (
    Wav2Vec2ForAudioFrameClassification,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2ForXVector,
)
from pretrained.models.wav2vec2.modeling_wav2vec2_pretraining import Wav2Vec2ForPreTraining, contrastive_loss
from pretrained.pt.skeleton import build_skeleton

CASES = sorted(json.loads((REFERENCE / "wav2vec2_heads/cases.json").read_text())["cases"])
BOTH = pytest.mark.parametrize("attention", ["eager", "sdpa"])
FOLDERS = sorted(place.name for place in (REFERENCE / "wav2vec2").glob("torch-*"))
CLASSES = sorted(place.split(":")[1] for place in FAMILY.pt.values())
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
LENGTH = "encoder.pos_conv_embed.conv.parametrizations.weight.original0"
DIRECTION = "encoder.pos_conv_embed.conv.parametrizations.weight.original1"


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)


def make(cls: type, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return cls(tiny_wav2vec2(**changes)).eval()


def sound(samples: int = 400, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


@BOTH
@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", ["Wav2Vec2Model", "Wav2Vec2ForCTC"])
def test_reference(name: str, folder: str, attention: str) -> None:
    if folder == "torch-base-only" and name != "Wav2Vec2Model":
        folder = "torch-safetensors"  # its head would be random
    compare_with_reference("wav2vec2", name, folder, attention)


@pytest.mark.parametrize("folder", ["flax-safetensors", "tf-safetensors"])
def test_checkpoints_of_other_frameworks(folder: str) -> None:
    compare_with_reference("wav2vec2", "Wav2Vec2ForCTC", folder, "sdpa")


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_heads(case: str, attention: str) -> None:
    output, expected = run_drawn("wav2vec2", case, attention)
    assert expected
    for name, value in expected.items():
        torch.testing.assert_close(pick(output, name), value, atol=2e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    if "hidden_states.0" in expected:
        assert len(output.hidden_states) == 3


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", CLASSES)
def test_round_trip(name: str, folder: str, tmp_path: Path) -> None:
    round_trip("wav2vec2", name, folder, tmp_path)


def test_names_out_are_names_in(tmp_path: Path) -> None:
    source = REFERENCE / "wav2vec2/torch-safetensors"
    Wav2Vec2ForCTC.from_pretrained(source).save_pretrained(tmp_path)
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(("auto", "place"), FAMILY.pt.items())
def test_auto_classes(auto: str, place: str) -> None:
    cls = find_class("wav2vec2", place.split(":")[1])
    assert type(getattr(pretrained, auto).from_pretrained(REFERENCE / "wav2vec2/torch-safetensors")) is cls
    assert getattr(pretrained, cls.__name__) is cls
    assert cls.base_model_prefix == "wav2vec2"


# The weight of the positional convolution, in two parts.


def weight_by_hand(length: Tensor, direction: Tensor) -> Tensor:
    columns = [direction[:, :, i] * (length[0, 0, i] / direction[:, :, i].norm()) for i in range(length.shape[2])]
    return torch.stack(columns, 2)


def positional(model: nn.Module) -> Any:
    return model.base_model.encoder.pos_conv_embed.conv


def test_a_skeleton_has_both_parts_without_memory() -> None:
    model = build_skeleton(lambda: Wav2Vec2Model(tiny_wav2vec2()))
    parts = {name: p for name, p in model.named_parameters() if "pos_conv_embed" in name}
    assert sorted(parts) == ["encoder.pos_conv_embed.conv.bias", LENGTH, DIRECTION]
    assert all(parameter.is_meta for parameter in parts.values())
    assert not [name for name, parameter in model.named_parameters() if not parameter.is_meta]


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("named", [False, True])
def test_lengths_in_a_skeleton_have_the_shape_they_have_elsewhere(dim: int, named: bool) -> None:
    def build() -> nn.Module:
        module, weight = nn.Module(), torch.empty(4, 3, 5)
        length = torch.norm_except_dim(v=weight, pow=2, dim=dim) if named else torch.norm_except_dim(weight, 2, dim)
        module.length = nn.Parameter(length)
        return module

    described = build_skeleton(build).length
    assert described.is_meta
    assert described.shape == build().length.shape


def test_a_skeleton_computes_nothing_without_memory() -> None:
    code = (
        "import sys, torch, pretrained\n"
        "from pretrained.pt.skeleton import build_skeleton\n"
        "known = 'sympy' in sys.modules\n"
        "model = build_skeleton(lambda: pretrained.Wav2Vec2ForCTC(pretrained.Wav2Vec2Config()))\n"
        "assert all(parameter.is_meta for parameter in model.parameters())\n"
        "assert ('sympy' in sys.modules) == known\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_load_fills_both_parts() -> None:
    weights = load_file(REFERENCE / "wav2vec2/torch-safetensors/model.safetensors")
    model = Wav2Vec2ForCTC.from_pretrained(REFERENCE / "wav2vec2/torch-safetensors")
    parameters = dict(model.named_parameters())
    for name in (LENGTH, DIRECTION):
        assert torch.equal(parameters[f"wav2vec2.{name}"], weights[f"wav2vec2.{name}"])
        assert isinstance(parameters[f"wav2vec2.{name}"], nn.Parameter)
    expected = weight_by_hand(weights[f"wav2vec2.{LENGTH}"], weights[f"wav2vec2.{DIRECTION}"])
    torch.testing.assert_close(positional(model).weight, expected)


def old_spelling(folder: Path) -> dict[str, Tensor]:
    """A checkpoint as torch wrote it before 2.1; returns it as it is spelt now."""
    source = REFERENCE / "wav2vec2/torch-safetensors"
    weights = load_file(source / "model.safetensors")
    endings = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    renamed = {}
    for name, value in weights.items():
        for new, old in endings.items():
            name = name.replace(new, old)
        renamed[name] = value
    assert renamed.keys() - weights.keys() == {
        f"wav2vec2.encoder.pos_conv_embed.conv.weight_{part}" for part in ("g", "v")
    }
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text((source / "config.json").read_text())
    return weights


@pytest.mark.parametrize("cls", [Wav2Vec2Model, Wav2Vec2ForCTC])
def test_the_old_spelling_loads_and_is_saved_in_the_new_one(cls: Any, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    weights = old_spelling(tmp_path / "old")
    model, report = cls.from_pretrained(tmp_path / "old", output_loading_info=True)
    assert report["missing_keys"] == []
    state = {name.removeprefix("wav2vec2."): value for name, value in model.state_dict().items()}
    assert torch.equal(state[LENGTH], weights[f"wav2vec2.{LENGTH}"])
    assert torch.equal(state[DIRECTION], weights[f"wav2vec2.{DIRECTION}"])
    model.save_pretrained(tmp_path / "new")
    saved = load_file(tmp_path / "new/model.safetensors")
    assert saved.keys() == model.state_dict().keys()
    assert not [name for name in saved if name.endswith(("weight_g", "weight_v"))]


def test_a_live_model_takes_the_old_spelling(tmp_path: Path) -> None:
    weights = old_spelling(tmp_path)
    model = Wav2Vec2ForCTC(Wav2Vec2Config.from_pretrained(tmp_path))
    parameters = dict(model.named_parameters())
    pretrained.load_into(model, tmp_path, strict=True)
    assert dict(model.named_parameters())[f"wav2vec2.{LENGTH}"] is parameters[f"wav2vec2.{LENGTH}"]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_model_without_memory_is_filled() -> None:
    source = REFERENCE / "wav2vec2/torch-safetensors"
    with torch.device("meta"):
        model = Wav2Vec2ForCTC(Wav2Vec2Config.from_pretrained(source))
    pretrained.load_into(model.eval(), source, strict=True)
    expected = Wav2Vec2ForCTC.from_pretrained(source)
    assert torch.equal(positional(model).weight, positional(expected).weight)
    assert torch.equal(model(sound(900)).logits, expected(sound(900)).logits)


@pytest.mark.parametrize("lacking", [[LENGTH, DIRECTION], [LENGTH], [DIRECTION]])
def test_a_part_that_is_missing_is_as_in_a_fresh_model(lacking: list[str], tmp_path: Path) -> None:
    source = REFERENCE / "wav2vec2/torch-safetensors"
    weights = load_file(source / "model.safetensors")
    kept = {name: value for name, value in weights.items() if name.removeprefix("wav2vec2.") not in lacking}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    torch.manual_seed(0)
    config = Wav2Vec2Config.from_pretrained(source)
    model, report = Wav2Vec2Model.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert report["missing_keys"] == sorted(lacking)
    state = model.state_dict()
    for name in (LENGTH, DIRECTION):
        if name not in lacking:
            assert torch.equal(state[name], weights[f"wav2vec2.{name}"])
    std = 2 * (1 / (16 * 32)) ** 0.5  # kernel and channels of the reference
    if DIRECTION in lacking:
        assert abs(state[DIRECTION].std().item() - std) < std / 20
    if LENGTH in lacking:
        norm = std * (32 * 16) ** 0.5  # of a column of the weight
        assert torch.all((state[LENGTH] / norm - 1).abs() < 0.2)
    assert torch.isfinite(positional(model).weight).all()


def test_a_fresh_weight_is_split_where_it_is() -> None:
    model = make(Wav2Vec2Model, hidden_size=64)
    state = model.state_dict()
    torch.testing.assert_close(state[LENGTH], state[DIRECTION].norm(dim=(0, 1), keepdim=True))
    torch.testing.assert_close(positional(model).weight, state[DIRECTION])
    std = 2 * (1 / (8 * 64)) ** 0.5
    assert abs(state[DIRECTION].std().item() - std) < std / 20
    assert torch.all(positional(model).bias == 0)
    again = make(Wav2Vec2Model, seed=1, hidden_size=64)
    again.load_state_dict(state)
    assert torch.equal(positional(again).weight, positional(model).weight)


def test_both_parts_survive_copies_casts_and_training() -> None:
    model = copy.deepcopy(make(Wav2Vec2Model)).bfloat16()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model(sound().bfloat16())[0].dtype == torch.bfloat16
    model = make(Wav2Vec2Model, layerdrop=0.0).train()
    before = positional(model).weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model(sound())[0].square().sum().backward()
    parameters = dict(model.named_parameters())
    assert all(parameters[name].grad.abs().sum() > 0 for name in (LENGTH, DIRECTION))
    optimizer.step()
    assert not torch.equal(positional(model).weight, before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_load_casts_both_parts(dtype: str) -> None:
    model = Wav2Vec2Model.from_pretrained(REFERENCE / "wav2vec2/torch-base-only", dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert positional(model).weight.dtype == getattr(torch, dtype)


# Frames and padding.


@pytest.mark.parametrize("changes", [{}, {"add_adapter": True, "num_adapter_layers": 2, "adapter_stride": 3}])
def test_lengths_are_those_of_the_convolutions(changes: dict[str, Any]) -> None:
    model = make(Wav2Vec2Model, **changes)
    for samples in range(130, 200, 3):
        with torch.no_grad():
            output = model(sound(samples, 1))
        assert model._get_feat_extract_output_lengths(samples) == output.last_hidden_state.shape[1]
        assert model._get_feat_extract_output_lengths(samples, add_adapter=False) == output.extract_features.shape[1]
    many = model._get_feat_extract_output_lengths(torch.tensor([130, 199]))
    assert many.tolist() == [model._get_feat_extract_output_lengths(n) for n in (130, 199)]


def test_mask_of_frames() -> None:
    model = make(Wav2Vec2Model)
    mask = (torch.arange(100) < torch.tensor([[100], [60], [24], [5]])).long()
    lengths = [model._get_feat_extract_output_lengths(n) for n in (100, 60, 24)]
    found = model._get_feature_vector_attention_mask(lengths[0], mask)
    assert found.dtype == torch.bool
    assert found.sum(1).tolist() == [*lengths, 0]  # of five samples there is not one frame
    assert found[1].tolist() == sorted(found[1].tolist(), reverse=True)


@BOTH
@pytest.mark.parametrize("cls", [Wav2Vec2Model, Wav2Vec2ForSequenceClassification])
def test_padding_changes_nothing(cls: type, attention: str) -> None:
    model, long, short = make(cls, attn_implementation=attention, **STABLE), sound(400, 1), sound(250, 1, seed=2)
    both = torch.cat((long, nn.functional.pad(short, (0, 150), value=3.0)))
    mask = (torch.arange(400) < torch.tensor([[400], [250]])).long()
    with torch.no_grad():
        padded, alone = model(both, attention_mask=mask)[0], model(short)[0]
    torch.testing.assert_close(padded[1:, : alone.shape[1]], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("training", [False, True])
def test_dummy_inputs_fit(name: str, training: bool) -> None:
    cls = find_class("wav2vec2", name)
    model = make(cls, mask_feature_prob=0.1).train(training)
    assert cls.main_input_name == "input_values"
    with torch.no_grad():
        output = model(**model.dummy_inputs)
    assert torch.isfinite(output[0]).all()
    assert model.estimate_tokens(model.dummy_inputs) == model.dummy_inputs["input_values"].numel()


# What is hidden in training.


def spans_of(row: Tensor) -> list[int]:
    """Lengths of the runs of true."""
    return [len(part) for part in "".join("x" if value else " " for value in row.tolist()).split()]


def test_span_mask() -> None:
    torch.manual_seed(0)
    mask = span_mask([100] * 400, 100, 0.5, 10)
    assert mask.shape == (400, 100)
    assert min(min(spans_of(row)) for row in mask) >= 10
    # Five spans of ten in a hundred places, which may overlap.
    assert 0.36 < mask.float().mean() < 0.42
    assert mask.float().mean(0)[20:80].std() < 0.04  # everywhere alike, but for the ends


@pytest.mark.parametrize(
    ("lengths", "prob", "span", "least", "counts"),
    [
        ([20, 20], 0.0, 3, 0, [0, 0]),
        ([20, 20], 0.0, 3, 2, [2, 2]),
        ([20, 4, 2], 0.0, 3, 2, [2, 2, 0]),
        ([20], 1.0, 20, 0, [1]),
        ([20], 5.0, 7, 0, [2]),  # no more than fit side by side
    ],
)
def test_number_of_spans(lengths: list[int], prob: float, span: int, least: int, counts: list[int]) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        mask = span_mask(lengths, 20, prob, span, least)
        for row, length, count in zip(mask, lengths, counts, strict=True):
            assert not row[length:].any()
            total = int(row.sum())
            assert (count > 0) * span <= total <= count * span


@pytest.mark.parametrize("span", [0, 21])
def test_spans_that_do_not_fit(span: int) -> None:
    with pytest.raises(ValueError, match=f"spans of {span} cannot be hidden in 20 places; lower mask_time_length"):
        span_mask([20], 20, 0.5, span)


def test_masks_only_in_training_and_with_torchs_generator() -> None:
    model = make(Wav2Vec2Model, mask_time_prob=0.5, mask_time_length=3, hidden_dropout=0.0, layerdrop=0.0)
    model.config.attention_dropout = 0.0
    for layer in model.encoder.layers:
        layer.feed_forward.intermediate_dropout.p = 0.0
    with torch.no_grad():
        calm = model(sound())[0]
        assert torch.equal(calm, model(sound())[0])
        model.train()
        results = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            results.append(model(sound())[0])
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])
        assert not torch.equal(results[0], calm)
        model.config.apply_spec_augment = False
        assert torch.equal(model(sound())[0], calm)


def test_hidden_frames_have_the_learned_vector_and_hidden_channels_are_zero() -> None:
    model = make(Wav2Vec2Model, mask_time_length=2, mask_feature_prob=0.4, mask_feature_length=2)
    states, lengths = torch.ones(2, 19, 24), (torch.arange(19) < torch.tensor([[19], [9]]))
    assert torch.equal(model._mask_hidden_states(states), states)
    frames = torch.zeros(2, 19, dtype=torch.int64)
    frames[0, 3] = 1
    hidden = model._mask_hidden_states(states, frames)
    assert torch.equal(hidden[0, 3], model.masked_spec_embed)
    assert torch.equal(states, torch.ones(2, 19, 24))  # what was given is as it was
    model.train()
    model.config.mask_time_prob = 1.0
    hidden = model._mask_hidden_states(states, attention_mask=lengths)
    assert torch.all((hidden[1, 9:] == 1) | (hidden[1, 9:] == 0))  # padding is not masked in time
    assert torch.any(torch.all(hidden == 0, 1))
    model.train()
    model.config.mask_feature_prob = 0.0
    model._mask_hidden_states(states).sum().backward()
    assert model.masked_spec_embed.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "has"), [({}, True), ({"mask_time_prob": 0.0}, False), ({"mask_feature_prob": 0.1}, True)]
)
def test_the_vector_for_hidden_frames_is_there_where_something_is_hidden(changes: dict[str, Any], has: bool) -> None:
    model = make(Wav2Vec2Model, **changes)
    assert ("masked_spec_embed" in model.state_dict()) is has
    if has:
        assert 0 <= model.masked_spec_embed.min() < model.masked_spec_embed.max() <= 1
    else:
        with pytest.raises(ValueError, match="need mask_time_prob or mask_feature_prob above 0"):
            model(sound(), mask_time_indices=torch.ones(2, 19))


def test_a_load_initialises_the_vector(tmp_path: Path) -> None:
    model, report = Wav2Vec2Model.from_pretrained(
        REFERENCE / "wav2vec2/torch-base-only", mask_time_prob=0.1, output_loading_info=True
    )
    assert report["missing_keys"] == ["masked_spec_embed"]
    assert 0 <= model.masked_spec_embed.min() < model.masked_spec_embed.max() <= 1


def test_layerdrop_leaves_layers_out_in_training() -> None:
    model = make(Wav2Vec2Model, layerdrop=1.0, num_hidden_layers=3, hidden_dropout=0.0, **STABLE)
    with torch.no_grad():
        calm = model(sound(), output_hidden_states=True, output_attentions=True)
        assert all(weights is not None for weights in calm.attentions)
        model.train()
        model.config.apply_spec_augment = False
        output = model(sound(), output_hidden_states=True, output_attentions=True)
    assert output.attentions == (None, None, None)
    assert len(output.hidden_states) == 4
    assert torch.equal(output.hidden_states[2], output.hidden_states[0])
    torch.testing.assert_close(output.last_hidden_state, model.encoder.layer_norm(output.hidden_states[0]))


# Heads.


def test_the_last_hidden_state_is_the_result() -> None:
    for changes in ({}, STABLE):
        with torch.no_grad():
            output = make(Wav2Vec2Model, **changes)(sound(), output_hidden_states=True)
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


@pytest.mark.parametrize("name", CLASSES)
def test_return_dict_false_is_the_tuple_of_the_same(name: str) -> None:
    model = make(find_class("wav2vec2", name))
    with torch.no_grad():
        output = model(sound(), output_hidden_states=True)
        plain = model(sound(), output_hidden_states=True, return_dict=False)
        assert isinstance(plain, tuple)
        assert len(plain) == len(output)
        assert torch.equal(plain[0], output[0])
        model.config.return_dict = False
        assert isinstance(model(sound()), tuple)


def test_the_loss_is_the_first_of_the_outputs() -> None:
    model = make(Wav2Vec2ForPreTraining)
    masked, others = torch.arange(38).view(2, 19) % 3 == 0, torch.randint(0, 38, (2, 19, 4))
    plain = model(sound(), None, masked, others, return_dict=False)
    output = model(sound(), None, masked, others)
    assert plain[0].shape == ()
    assert torch.equal(plain[0], output.loss)
    assert torch.equal(output.loss, output.contrastive_loss + 0.1 * output.diversity_loss)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ctc_by_hand(reduction: str) -> None:
    """One token in a few frames: every way to write it, summed up."""
    model = make(Wav2Vec2ForCTC, ctc_loss_reduction=reduction)
    with torch.no_grad():
        output = model(sound(110, 1), labels=torch.tensor([[4, -100, 0]]))  # -100 and the blank are padding
    probs = output.logits[0].softmax(-1).double()
    frames = len(probs)
    total = 0.0
    for start in range(frames):
        for stop in range(start + 1, frames + 1):
            outside = [probs[i, 0] for i in range(frames) if not start <= i < stop]
            total += torch.stack([*outside, *probs[start:stop, 4]]).prod()
    torch.testing.assert_close(output.loss.flatten()[0].double(), -torch.log(torch.as_tensor(total)), rtol=1e-5, atol=0)


def test_infinite_ctc_losses_can_be_left_out() -> None:
    labels = torch.randint(1, 17, (2, 40))
    assert torch.isinf(make(Wav2Vec2ForCTC)(sound(), labels=labels).loss)
    assert make(Wav2Vec2ForCTC, ctc_zero_infinity=True)(sound(), labels=labels).loss == 0


def test_layer_weights_start_alike() -> None:
    for cls in (Wav2Vec2ForSequenceClassification, Wav2Vec2ForAudioFrameClassification, Wav2Vec2ForXVector):
        assert "layer_weights" not in make(cls).state_dict()
        model = make(cls, use_weighted_layer_sum=True)
        torch.testing.assert_close(model.layer_weights, torch.full((3,), 1 / 3))
        with torch.no_grad():
            assert model(sound()).hidden_states is None
            assert len(model(sound(), output_hidden_states=True).hidden_states) == 3


def test_a_load_gives_layer_weights_their_start() -> None:
    model, report = Wav2Vec2ForSequenceClassification.from_pretrained(
        REFERENCE / "wav2vec2/torch-base-only", use_weighted_layer_sum=True, output_loading_info=True, num_labels=3
    )
    assert "layer_weights" in report["missing_keys"]
    torch.testing.assert_close(model.layer_weights, torch.full((3,), 1 / 3))


def test_initial_weights() -> None:
    model = make(Wav2Vec2ForPreTraining, hidden_size=64, conv_dim=[32, 32, 32], conv_bias=True, proj_codevector_dim=64)
    base = model.wav2vec2
    assert abs(base.encoder.layers[0].attention.q_proj.weight.std().item() - 0.15) < 0.01
    assert torch.all(base.encoder.layers[0].attention.q_proj.bias == 0)
    conv = base.feature_extractor.conv_layers[1].conv
    assert abs(conv.weight.std().item() - (2 / (32 * 3)) ** 0.5) < 0.01
    assert 0 < conv.bias.abs().max() <= (1 / (32 * 3)) ** 0.5
    assert torch.all(base.feature_extractor.conv_layers[0].layer_norm.weight == 1)
    assert base.feature_projection.projection.weight.abs().max() <= 32**-0.5
    assert abs(model.quantizer.weight_proj.weight.std().item() - 1) < 0.15
    assert 0 <= model.quantizer.codevectors.min() < model.quantizer.codevectors.max() <= 1
    assert model.project_hid.weight.abs().max() <= 1 / 8  # torch's own
    assert model.project_hid.bias.abs().max() > 0
    assert abs(make(Wav2Vec2ForXVector, num_labels=90).objective.weight.std().item() - 1) < 0.15


def test_freezing() -> None:
    model = make(Wav2Vec2ForCTC)
    model.freeze_feature_encoder()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if "feature_extractor" in name}
    model(sound(), labels=torch.tensor([[3], [4]])).loss.backward()
    assert model.wav2vec2.feature_extractor.conv_layers[0].conv.weight.grad is None
    model.freeze_base_model()
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["lm_head.weight", "lm_head.bias"]
    base = make(Wav2Vec2Model)
    base.freeze_feature_encoder()
    assert not any(p.requires_grad for p in base.feature_extractor.parameters())


def test_quantizer_in_training() -> None:
    model = make(Wav2Vec2ForPreTraining).train()
    model.set_gumbel_temperature(0.5)
    assert model.quantizer.temperature == 0.5
    features, masked = torch.randn(2, 19, 14), torch.arange(38).view(2, 19) % 2 == 0
    vectors, perplexity = model.quantizer(features, masked)
    assert vectors.shape == (2, 19, 16)
    assert 2 <= perplexity <= 10  # two groups of five
    vectors.sum().backward()
    assert model.quantizer.weight_proj.weight.grad.abs().sum() > 0
    table = model.quantizer.codevectors.view(2, 5, 8)
    for group in range(2):  # each is one of the table
        gaps = (vectors[0, 0].view(2, 8)[group] - table[group]).abs().amax(1)
        assert gaps.min() < 1e-6


def test_equal_vectors_are_no_negatives() -> None:
    found, wanted = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    wanted[0, 1] = wanted[0, 0]
    masked = torch.tensor([[True, False, False]])
    with_twin = contrastive_loss(found, wanted, masked, torch.tensor([[[1, 2]]]).expand(1, 3, 2), 0.1)
    without = contrastive_loss(found, wanted, masked, torch.tensor([[[2]]]).expand(1, 3, 1), 0.1)
    torch.testing.assert_close(with_twin, without)


@BOTH
def test_training_lowers_the_loss(attention: str) -> None:
    model = make(Wav2Vec2ForCTC, attn_implementation=attention, layerdrop=0.0, mask_time_length=2, **STABLE).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    history = []
    for _ in range(8):
        loss = model(sound(), labels=torch.tensor([[3, 5], [7, 1]])).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] * 0.8


def test_export() -> None:
    model = make(Wav2Vec2ForCTC, attn_implementation="sdpa")
    mask = (torch.arange(400) < torch.tensor([[400], [250]])).long()
    exported = torch.export.export(model, (sound(),), {"attention_mask": torch.ones_like(mask)})
    with torch.no_grad():
        found = exported.module()(sound(), attention_mask=mask)["logits"]
        torch.testing.assert_close(found, model(sound(), attention_mask=mask).logits)


# Layers for one language.


def languages(folder: Path) -> tuple[Any, dict[str, dict[str, Tensor]]]:
    """A saved model with the files of two languages, one of which has more tokens."""
    model = make(Wav2Vec2ForCTC, adapter_attn_dim=6, **STABLE)
    model.save_pretrained(folder)
    own = {k: v for k, v in model.state_dict().items() if "adapter_layer" in k or k.startswith("lm_head")}
    assert len(own) == 2 * 6 + 2
    made = {}
    for language, vocab in (("spa", 17), ("fra", 23)):
        made[language] = {
            k: torch.randn(vocab, *v.shape[1:]) if k.startswith("lm_head") else torch.randn_like(v)
            for k, v in own.items()
        }
    save_file(made["spa"], folder / "adapter.spa.safetensors")
    torch.save(made["fra"], folder / "adapter.fra.bin")
    return model, made


@pytest.mark.parametrize("language", ["spa", "fra"])
def test_another_language(language: str, tmp_path: Path) -> None:
    model, made = languages(tmp_path)
    loaded = Wav2Vec2ForCTC.from_pretrained(tmp_path)
    loaded.load_adapter(language)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, made[language].get(name, model.state_dict()[name])), name
    vocab = len(made[language]["lm_head.bias"])
    assert loaded.config.vocab_size == vocab
    assert loaded(sound()).logits.shape[-1] == vocab
    assert loaded.target_lang == language
    at_once, _ = Wav2Vec2ForCTC.from_pretrained(tmp_path, target_lang=language, output_loading_info=True)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in at_once.state_dict().items())
    loaded.save_pretrained(tmp_path / "saved")
    assert Wav2Vec2ForCTC.from_pretrained(tmp_path / "saved").config.vocab_size == vocab


def test_a_language_that_is_loaded_is_kept(tmp_path: Path) -> None:
    languages(tmp_path)
    model = Wav2Vec2ForCTC.from_pretrained(tmp_path, target_lang="spa")
    nn.init.zeros_(model.lm_head.weight)
    model.load_adapter("spa", force_load=False)
    assert torch.all(model.lm_head.weight == 0)
    model.load_adapter("spa")
    assert torch.any(model.lm_head.weight != 0)


def test_languages_that_cannot_be_loaded(tmp_path: Path) -> None:
    languages(tmp_path)
    model = Wav2Vec2ForCTC.from_pretrained(tmp_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(pretrained.SourceError, match=r"no adapter\.deu\.safetensors; languages there: fra, spa"):
        model.load_adapter("deu")
    with pytest.raises(pretrained.SourceError, match=r"no adapter\.\.\./spa\.safetensors"):
        model.load_adapter("../spa")
    with pytest.raises(pretrained.SourceError, match="languages there: fra, spa"):
        model.load_adapter("fra", use_safetensors=True)
    with pytest.raises(pretrained.OptionError, match="no option 'reviison'; did you mean 'revision'"):
        model.load_adapter("spa", reviison="main")
    tensors = load_file(tmp_path / "adapter.spa.safetensors")
    tensors["other"] = tensors.pop("lm_head.bias")
    save_file(tensors, tmp_path / "adapter.bad.safetensors")
    with pytest.raises(pretrained.MismatchError, match=r"(?s)lm_head\.bias: missing.*other: not a parameter"):
        model.load_adapter("bad")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.target_lang is None
    with pytest.raises(ConfigError, match="no layers for languages: adapter_attn_dim is not set"):
        make(Wav2Vec2ForCTC).load_adapter("spa")


def test_language_layers_begin_anew() -> None:
    model = make(Wav2Vec2ForCTC, adapter_attn_dim=6, **STABLE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.init_adapter_layers()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    expected = {f"wav2vec2.encoder.layers.{i}.adapter_layer.linear_{j}.weight" for i in (0, 1) for j in (1, 2)}
    assert changed == {*expected, "lm_head.weight"}


# What is refused.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give input_values"),
        ({"input_values": torch.zeros(400)}, r"must be \(batch, samples\), at least 30 samples; found \(400,\)"),
        ({"input_values": torch.zeros(1, 29)}, r"at least 30 samples; found \(1, 29\)"),
        ({"input_values": torch.zeros(1, 2, 400)}, r"must be \(batch, samples\)"),
    ],
)
def test_wrong_recordings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(Wav2Vec2Model)(**given)
    with torch.no_grad():
        assert make(Wav2Vec2Model)(torch.randn(1, 30))[0].shape == (1, 1, 24)


def test_wrong_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="labels go up to 17; there are vocab_size=17 tokens"):
        make(Wav2Vec2ForCTC)(sound(), labels=torch.tensor([[17], [1]]))
    with pytest.raises(ValueError, match="sampled_negative_indices need mask_time_indices"):
        make(Wav2Vec2ForPreTraining)(sound(), sampled_negative_indices=torch.zeros(2, 19, 3))
    with pytest.raises(ConfigError, match="Did you mean 'sum'"):
        make(Wav2Vec2ForCTC, ctc_loss_reduction="sun")(sound(), labels=torch.tensor([[1], [1]]))


@pytest.mark.parametrize(
    ("cls", "changes", "key", "message"),
    [
        (Wav2Vec2Model, {"num_attention_heads": 5}, "num_attention_heads", "heads must divide the hidden size"),
        (
            Wav2Vec2Model,
            {"num_conv_pos_embedding_groups": 5},
            "num_conv_pos_embedding_groups",
            "groups must divide the hidden size: hidden_size=24, num_conv_pos_embedding_groups=5",
        ),
        (Wav2Vec2Model, {"feat_extract_norm": "groups"}, "feat_extract_norm", "Did you mean 'group'"),
        (Wav2Vec2Model, {"feat_extract_activation": "gelo"}, "feat_extract_activation", "Did you mean 'gelu'"),
        (Wav2Vec2Model, {"hidden_act": "gelo"}, "hidden_act", "Did you mean 'gelu'"),
        (Wav2Vec2ForPreTraining, {"codevector_dim": 15}, "num_codevector_groups", "groups must divide the codevectors"),
        (Wav2Vec2ForCTC, {"vocab_size": None}, "vocab_size", "vocab_size is not set"),
        (Wav2Vec2ForSequenceClassification, {"add_adapter": True}, "add_adapter", "has no place for an adapter"),
        (Wav2Vec2ForAudioFrameClassification, {"add_adapter": True}, "add_adapter", "has no place for an adapter"),
    ],
)
def test_impossible_configs_are_refused(cls: type, changes: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        cls(tiny_wav2vec2(**changes))
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("values", "key", "message"),
    [
        ({"conv_dim": [8, 8]}, "conv_dim", "equally long: conv_dim has 2, conv_kernel has 7, conv_stride has 7"),
        ({"tdnn_kernel": [1]}, "tdnn_dim", "equally long: tdnn_dim has 5, tdnn_kernel has 1"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, 0]}, "conv_stride", "must be a list of positive numbers"),
        ({"conv_kernel": ["3"] * 7}, "conv_kernel", "must be a list of positive numbers"),
        ({"conv_dim": []}, "conv_dim", "must be a list of positive numbers"),
        ({"conv_dim": 512}, "conv_dim", "must be list, found int 512"),
        ({"hidden_size": 0}, "hidden_size", "must be positive"),
    ],
)
def test_lists_that_do_not_fit_are_refused(values: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Wav2Vec2Config.from_dict(values)
    assert caught.value.key == key


def test_config_is_written_as_others_read_it() -> None:
    source = json.loads((REFERENCE / "wav2vec2/torch-safetensors/config.json").read_text())
    config = Wav2Vec2Config.from_dict(source)
    assert {key: config.to_dict()[key] for key in source} == source
    assert config.num_feat_extract_layers == 3
    assert config.inputs_to_logits_ratio == 5 * 4 * 2
    assert Wav2Vec2Config().inputs_to_logits_ratio == 320
    assert Wav2Vec2Config().output_hidden_size == 768
    Wav2Vec2Config().conv_dim.append(1)  # of this one alone
    assert len(Wav2Vec2Config().conv_dim) == 7


def test_sounds_are_no_tokens() -> None:
    model = Wav2Vec2ForCTC(tiny_wav2vec2())
    message = r"Wav2Vec2ForCTC reads sound: .* load with ignore_mismatched_sizes=True"
    for call in (
        model.get_input_embeddings,
        lambda: model.resize_token_embeddings(9),
        lambda: model.set_input_embeddings(nn.Embedding(9, 24)),
    ):
        with pytest.raises(NotImplementedError, match=message):
            call()
    assert model.get_output_embeddings() is None


def test_another_vocabulary_as_the_error_says(tmp_path: Path) -> None:
    model = Wav2Vec2ForCTC(tiny_wav2vec2())
    model.save_pretrained(tmp_path)
    other = Wav2Vec2ForCTC.from_pretrained(tmp_path, vocab_size=9, ignore_mismatched_sizes=True)
    assert other.lm_head.weight.shape == (9, 24)
    assert torch.equal(other.wav2vec2.masked_spec_embed, model.wav2vec2.masked_spec_embed)


@pytest.mark.parametrize("stable", [False, True])
def test_adapters_train_on_frozen_weights_with_the_reentrant_kind_of_checkpoint(stable: bool) -> None:
    model = Wav2Vec2Model(tiny_wav2vec2(**STABLE if stable else {}, layerdrop=0.0)).train()
    model.requires_grad_(False)
    added = model.encoder.layers[0].attention.q_proj.weight.requires_grad_(True)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    model(**model.dummy_inputs)[0].square().sum().backward()
    assert added.grad is not None and added.grad.any()
