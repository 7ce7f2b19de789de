"""load_into and save: the same engine for modules without a base class."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import pretrained
from pretrained import MismatchError, OptionError, PretrainedConfig, SaveError, WeightsFormatError


def net(seed=0, width=8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 3))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


def same(first, second):
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_round_trip(tmp_path):
    module = net(1)
    report = pretrained.save(module, tmp_path)
    assert list(report.files) == ["model.safetensors"] and os.listdir(tmp_path) == ["model.safetensors"]
    other = net(2).train()
    parameters = list(other.parameters())
    info = pretrained.load_into(other, tmp_path)
    assert info.is_clean and same(module, other)
    assert other.training, "a live module keeps its mode"
    assert all(a is b for a, b in zip(parameters, other.parameters(), strict=True)), "an optimizer would lose them"


def test_optimizer_keeps_working(tmp_path):
    pretrained.save(net(1), tmp_path)
    module = net(2)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    pretrained.load_into(module, tmp_path)
    before = module[0].weight.detach().clone()
    module(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, module[0].weight)


def test_onto_meta(tmp_path):
    pretrained.save(net(1), tmp_path)
    with torch.device("meta"):
        module = net(2)
    pretrained.load_into(module, tmp_path)
    assert same(module, net(1)) and not any(t.is_meta for t in [*module.parameters(), *module.buffers()])


def test_missing_on_meta_is_initialised_and_live_keeps_its_value(tmp_path):
    state = net(1).state_dict()
    state.pop("3.weight")
    save_file(state, tmp_path / "model.safetensors")
    live = net(2)
    kept = live[3].weight.detach().clone()
    assert pretrained.load_into(live, tmp_path).missing_keys == ["3.weight"]
    assert torch.equal(live[3].weight, kept) and torch.equal(live[0].weight, state["0.weight"])
    with torch.device("meta"):
        module = net(2)
    pretrained.load_into(module, tmp_path)
    assert torch.isfinite(module[3].weight).all() and 0 < module[3].weight.abs().max() <= 8**-0.5


def test_tied(tmp_path):
    module = Tied()
    report = pretrained.save(module, tmp_path)
    assert report.tied == {"head.weight": "embed.weight"}
    assert list(load_file(tmp_path / "model.safetensors")) == ["embed.weight"]
    other = Tied()
    assert pretrained.load_into(other, tmp_path).is_clean
    assert other.head.weight is other.embed.weight and same(module, other)


def test_dtype_stays_the_modules_own(tmp_path):
    pretrained.save(net(1), tmp_path)
    module = net(2).to(torch.bfloat16)
    pretrained.load_into(module, tmp_path)
    assert module[0].weight.dtype == torch.bfloat16 and module[1].num_batches_tracked.dtype == torch.int64
    assert torch.equal(module[0].weight, net(1)[0].weight.to(torch.bfloat16))
    pretrained.load_into(module, tmp_path, dtype="auto")
    assert module[0].weight.dtype == torch.float32
    mixed = net(2)
    mixed[3].half()
    pretrained.load_into(mixed, tmp_path)
    assert mixed[3].weight.dtype == torch.float16 and mixed[0].weight.dtype == torch.float32


def test_from_a_mapping():
    state = {name: tensor.clone() for name, tensor in net(1).state_dict().items()}
    module = net(2)
    pretrained.load_into(module, state)
    assert same(module, net(1))
    module[0].weight.data.zero_()
    assert state["0.weight"].abs().sum() > 0
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    pretrained.load_into(module, arrays)
    assert same(module, net(1))
    arrays["0.weight"] = np.asfortranarray(arrays["0.weight"])
    pretrained.load_into(module, arrays)
    assert same(module, net(1))
    with pytest.raises(pretrained.TensorError, match="not a tensor"):
        pretrained.load_into(module, {"0.weight": [1, 2]})


@pytest.mark.parametrize("meta", [False, True])
def test_a_failure_leaves_the_module_as_it_was(tmp_path, meta, monkeypatch):
    state = net(1).state_dict()
    state.pop("3.weight")
    save_file(state, tmp_path / "model.safetensors")
    with torch.device("meta" if meta else "cpu"):
        module = net(2)
    tensors = {name: (tensor, tensor._version) for name, tensor in module.named_parameters()}
    values = {} if meta else {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def fail(*args, **kwargs):
        raise WeightsFormatError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr("pretrained.loading.execute", fail)
        with pytest.raises(WeightsFormatError):
            pretrained.load_into(module, tmp_path)
    with pytest.raises(MismatchError):
        pretrained.load_into(module, tmp_path, strict=True)
    for name, tensor in module.named_parameters():
        assert tensor is tensors[name][0] and tensor.is_meta == meta
        assert meta or tensor._version == tensors[name][1]
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in values.items())


def test_buffers_of_a_constructor_that_a_config_can_call_again(tmp_path):
    class WithConfig(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.config = config
            self.linear = nn.Linear(2, 2)
            self.register_buffer("table", torch.arange(4.0) * config.step, persistent=False)

    config = PretrainedConfig(step=3)
    pretrained.save(WithConfig(config), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
    with torch.device("meta"):
        module = WithConfig(config)
    pretrained.load_into(module, tmp_path)
    assert torch.equal(module.table, torch.arange(4.0) * 3)


def test_a_buffer_nobody_can_compute(tmp_path):
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.register_buffer("table", torch.arange(4.0), persistent=False)

    pretrained.save(Bare(), tmp_path)
    with torch.device("meta"):
        module = Bare()
    with pytest.raises(RuntimeError, match="buffer table is on the meta device"):
        pretrained.load_into(module, tmp_path)
    assert module.linear.weight.is_meta


def test_keywords():
    with pytest.raises(OptionError, match="did you mean 'strict'"):
        pretrained.load_into(net(), {}, stict=True)
    with pytest.raises(OptionError, match="max_shard_size"):
        pretrained.save(net(), "x", max_size=3)
    with pytest.raises(MismatchError, match="matches no tensor"):
        pretrained.load_into(net(), {"other": torch.zeros(2)})
    with pytest.raises(SaveError, match="no dense tensor"):
        pretrained.save(net(), "x", state_dict={"a": 3})


def test_a_failure_takes_back_a_change_of_dtype(tmp_path, monkeypatch):
    state = net(1).state_dict()
    state.pop("3.weight")
    save_file(state, tmp_path / "model.safetensors")
    module = net(2)
    before = module[3].weight.detach().clone()

    def fail(*args, **kwargs):
        assert module[3].weight.dtype == torch.bfloat16, "otherwise there is nothing to take back"
        raise WeightsFormatError("the disk is gone")

    monkeypatch.setattr("pretrained.loading.execute", fail)
    with pytest.raises(WeightsFormatError):
        pretrained.load_into(module, tmp_path, dtype="bfloat16")
    assert module[3].weight.dtype == torch.float32
    assert torch.equal(module[3].weight, before)
