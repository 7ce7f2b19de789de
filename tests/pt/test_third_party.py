"""Classes written for transformers work unchanged: build, save, load, tie, initialise, head and base."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tests.pt import third_party as tp
from torch import nn

IDS = torch.tensor([[1, 5, 9, 30, 2]])


def inputs_for(model):
    return torch.ones(2, 5, model.config.width) if isinstance(model, tp.PeekingModel | tp.OddLayersModel) else IDS


def build(cls, **kwargs):
    torch.manual_seed(1)
    model = cls(cls.config_class(**kwargs)).eval()
    with torch.no_grad():  # away from the initial values, so that a load that only initialises is noticed
        for tensor in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
            if tensor.data_ptr() and tensor.is_floating_point() and tensor.requires_grad:
                tensor.add_(0.125)
    return model


def state(model):
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def assert_same(first, second):
    one, two = state(first), state(second)
    assert one.keys() == two.keys()
    for name in one:
        assert one[name].dtype == two[name].dtype, name
        assert torch.equal(one[name], two[name]), name
        assert not two[name].is_meta


@pytest.mark.parametrize("cls", tp.ALL, ids=lambda cls: cls.__name__)
def test_round_trip(cls, tmp_path):
    model = build(cls)
    model.save_pretrained(tmp_path)
    loaded, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == [] and info["unexpected_keys"] == [] and info["mismatched_keys"] == set()
    assert_same(model, loaded)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(model(inputs_for(model)), loaded(inputs_for(model)))


@pytest.mark.parametrize("cls", tp.ALL, ids=lambda cls: cls.__name__)
def test_a_loaded_model_trains(cls, tmp_path):
    build(cls).save_pretrained(tmp_path)
    model = cls.from_pretrained(tmp_path).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(inputs_for(model)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    optimizer.step()
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())
    again = cls.from_pretrained(tmp_path)
    assert all(torch.equal(before[name], p) for name, p in again.named_parameters()), "training wrote into the file"


@pytest.mark.parametrize("cls", tp.ALL, ids=lambda cls: cls.__name__)
def test_deepcopy_and_pickle(cls, tmp_path):
    build(cls).save_pretrained(tmp_path)
    model = cls.from_pretrained(tmp_path)
    assert_same(model, copy.deepcopy(model))
    if cls is not tp.OddLayersModel:  # torch does not pickle parametrised modules
        assert_same(model, pickle.loads(pickle.dumps(model)))


@pytest.mark.parametrize("cls", tp.ALL, ids=lambda cls: cls.__name__)
def test_half_precision(cls, tmp_path):
    build(cls).save_pretrained(tmp_path)
    model = cls.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    reference = cls.from_pretrained(tmp_path)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert torch.equal(parameter, reference.get_parameter(name).to(torch.bfloat16))
    fresh = cls(cls.config_class())
    non_persistent = {n for n, _ in fresh.named_buffers()} - set(fresh.state_dict())
    for name in non_persistent:
        assert torch.equal(model.get_buffer(name), fresh.get_buffer(name))
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("base", "head"), [(tp.OldModel, tp.OldForCausalLM), (tp.NewModel, tp.NewForCausalLM)], ids=["list", "dict"]
)
class TestTying:
    def test_tied_weights_are_written_once_and_share_storage(self, base, head, tmp_path):
        from safetensors import safe_open

        model = build(head)
        assert model.lm_head.weight is model.get_input_embeddings().weight
        model.save_pretrained(tmp_path)
        with safe_open(tmp_path / "model.safetensors", "pt") as file:
            names = set(file.keys())
        assert "lm_head.weight" not in names and any("embed" in name for name in names)
        loaded = head.from_pretrained(tmp_path)
        assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
        assert loaded.num_parameters() == model.num_parameters() == sum(p.numel() for p in set(model.parameters()))

    def test_either_name_is_enough(self, base, head, tmp_path):
        model = build(head)
        source = next(n for n, p in model.named_parameters() if p is model.get_input_embeddings().weight)
        tensors = dict(model.state_dict())
        tensors.pop(source)
        model.save_pretrained(tmp_path, state_dict=tensors)
        loaded, info = head.from_pretrained(tmp_path, output_loading_info=True)
        assert info["missing_keys"] == []
        assert torch.equal(loaded.get_input_embeddings().weight, model.lm_head.weight)

    def test_untied_by_config(self, base, head, tmp_path):
        model = build(head, tie_word_embeddings=False)
        assert model.lm_head.weight is not model.get_input_embeddings().weight
        model.save_pretrained(tmp_path)
        loaded = head.from_pretrained(tmp_path)
        assert_same(model, loaded)
        assert loaded.lm_head.weight.data_ptr() != loaded.get_input_embeddings().weight.data_ptr()

    def test_twins_that_differ_are_reported_and_refused_in_strict_mode(self, base, head, tmp_path, caplog):
        from pretrained import MismatchError

        model = build(head, tie_word_embeddings=False)
        model.config.tie_word_embeddings = True
        model.save_pretrained(tmp_path)
        loaded, info = head.from_pretrained(tmp_path, output_loading_info=True)
        assert len(info["conflicts"]) == 1 and "lm_head.weight" in info["conflicts"][0]
        assert "tie_word_embeddings=False" in caplog.text
        assert torch.equal(loaded.lm_head.weight, model.get_input_embeddings().weight)
        with pytest.raises(MismatchError, match=r"lm_head\.weight"):
            head.from_pretrained(tmp_path, strict=True)

    def test_base_from_head_and_head_from_base(self, base, head, tmp_path):
        model = build(head)
        model.save_pretrained(tmp_path / "head")
        only_base = base.from_pretrained(tmp_path / "head")
        assert_same(only_base, model.base_model)
        only_base.save_pretrained(tmp_path / "base")
        loaded, info = head.from_pretrained(tmp_path / "base", output_loading_info=True)
        assert info["missing_keys"] == []  # the head is tied
        assert_same(loaded, model)


class TestMissing:
    def test_a_missing_head_is_initialised_by_the_class_and_reported(self, tmp_path, caplog):
        build(tp.OldModel).save_pretrained(tmp_path)
        model, info = tp.OldForClassification.from_pretrained(tmp_path, num_labels=5, output_loading_info=True)
        assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
        assert model.classifier.weight.shape == (5, 8) and model.config.num_labels == 5
        assert torch.equal(model.classifier.bias, torch.full((5,), 0.25))
        assert 0.2 < model.classifier.weight.std() < 0.9
        assert "classifier.weight" in caplog.text

    def test_constructor_arguments_pass_through(self, tmp_path):
        build(tp.OldModel).save_pretrained(tmp_path)
        assert tp.OldForClassification.from_pretrained(tmp_path, num_extra=3).classifier.out_features == 5
        assert tp.OldForClassification.from_pretrained(tmp_path, 3).classifier.out_features == 5

    @pytest.mark.parametrize("gone", ["gate", "position", "scale", "norm", "mix.bias", "running", "embed"])
    def test_every_kind_of_missing_parameter_gets_its_fresh_value(self, gone, tmp_path):
        model = build(tp.OldModel)
        tensors = {name: t for name, t in model.state_dict().items() if gone not in name}
        model.save_pretrained(tmp_path, state_dict=tensors)
        loaded, info = tp.OldModel.from_pretrained(tmp_path, output_loading_info=True)
        fresh = tp.OldModel(tp.OldConfig())
        missing = set(model.state_dict()) - set(tensors)
        assert missing and info["missing_keys"] == missing
        for name, tensor in state(loaded).items():
            if name not in missing:
                assert torch.equal(tensor, state(model)[name]), name
            elif "embed" in name:  # random: look at what does not depend on the draw
                assert torch.equal(tensor[0], torch.zeros(8)) and 0.3 < tensor[1:].std() < 0.7
            else:
                assert torch.equal(tensor, state(fresh)[name]), name

    @pytest.mark.parametrize("gone", ["lstm", "attention", "conv", "bn", "extra"])
    def test_layers_of_torch_get_what_their_constructor_gives(self, gone, tmp_path):
        model = build(tp.OddLayersModel)
        tensors = {name: t for name, t in model.state_dict().items() if gone not in name}
        model.save_pretrained(tmp_path, state_dict=tensors)
        loaded, info = tp.OddLayersModel.from_pretrained(tmp_path, output_loading_info=True)
        missing = set(model.state_dict()) - set(tensors)
        assert info["missing_keys"] == missing
        fresh = tp.OddLayersModel(tp.OldConfig())
        for name in missing:
            tensor, expected = loaded.state_dict()[name], fresh.state_dict()[name]
            assert torch.isfinite(tensor).all()
            assert tensor.float().std(correction=0) == pytest.approx(expected.float().std(correction=0), abs=0.5)
        assert torch.isfinite(loaded(inputs_for(loaded))).all()

    def test_nothing_initialises_it(self, tmp_path, caplog):
        class Bare(tp.OldPreTrainedModel):
            def __init__(self, config):
                super().__init__(config)
                self.linear = nn.Linear(2, 2)
                self.matrix = nn.Parameter(torch.empty(64, 64))
                self.vector = nn.Parameter(torch.empty(64))
                self.post_init()

        model = Bare(tp.OldConfig())
        model.save_pretrained(tmp_path, state_dict={"linear.weight": model.linear.weight.detach()})
        loaded = Bare.from_pretrained(tmp_path)
        assert torch.equal(loaded.vector, torch.zeros(64))
        assert 0.015 < loaded.matrix.std() < 0.025
        assert "nothing initialises it" in caplog.text

    def test_ignored_patterns_are_not_reported_and_still_initialised(self, tmp_path):
        class Quiet(tp.OldForClassification):
            _keys_to_ignore_on_load_missing = [r"classifier"]
            _keys_to_ignore_on_load_unexpected = [r"^extra"]

        model = build(tp.OldModel)
        model.save_pretrained(tmp_path, state_dict={**model.state_dict(), "extra.thing": torch.zeros(2)})
        loaded, info = Quiet.from_pretrained(tmp_path, output_loading_info=True)
        assert info["missing_keys"] == [] and info["unexpected_keys"] == []
        assert torch.equal(loaded.classifier.bias, torch.full((2,), 0.25))


def test_freshly_built_models_are_initialised_once_and_tied():
    calls = []

    class Counting(tp.OldForCausalLM):
        def _init_weights(self, module):
            calls.append(module)
            super()._init_weights(module)

    model = Counting(tp.OldConfig())
    assert len(calls) == len(set(map(id, calls)))
    assert model.lm_head.weight is model.backbone.embed.weight
    assert torch.equal(model.backbone.embed.weight[0], torch.zeros(8))


def test_building_a_skeleton_leaves_other_threads_alone(tmp_path):
    import threading

    build(tp.OldForCausalLM).save_pretrained(tmp_path)
    stop, seen = threading.Event(), []

    def build_layers():
        while not stop.is_set():
            layer = nn.Linear(4, 4)
            seen.append(layer.weight.is_meta or not torch.isfinite(layer.weight).all() or layer.weight.abs().max() == 0)

    thread = threading.Thread(target=build_layers)
    thread.start()
    for _ in range(30):
        tp.OldForCausalLM.from_pretrained(tmp_path)
    stop.set()
    thread.join()
    assert len(seen) > 5 and not any(seen)
