"""Adapters on the model itself: adding, switching, saving, loading with and without consent, files that lie."""

from __future__ import annotations

import io
import json
import logging
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from pretrained import (
    AutoModel,
    AutoModelForCausalLM,
    BertForSequenceClassification,
    ConfigError,
    GPT2Config,
    GPT2LMHeadModel,
    InvalidOptionError,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MismatchError,
    MissingFrameworkError,
    OptionError,
    ResourceLimitError,
    SaveError,
    SourceError,
    UntrustedPathError,
    WeightsFormatError,
)
from pretrained.adapters import is_quick
from pretrained.hub.snapshot import LazySnapshot
from pretrained.options import SourceOptions

REFERENCE = Path(__file__).parents[1] / "reference"
IDS = torch.arange(12).reshape(2, 6) + 5
CASES = sorted(path.name for path in (REFERENCE / "adapters").iterdir() if path.is_dir())


def tiny(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=50
    )
    return LlamaForCausalLM(config).eval()


def lora(**changes: Any) -> LoraConfig:
    return LoraConfig(**{"r": 2, "init_lora_weights": False, "target_modules": ["q_proj", "up_proj"], **changes})


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(IDS).logits


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def saved(base: Path, tmp_path: Path) -> Path:
    """The folder of an adapter whose base model is beside it."""
    model = LlamaForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    model.add_adapter(lora())
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def change(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# Numbers of the reference implementation


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", ["with the base", "on the model"])
def test_numbers_of_the_reference(name: str, way: str) -> None:
    cls = BertForSequenceClassification if name.startswith("bert") else LlamaForCausalLM
    folder = REFERENCE / "adapters" / name
    if way == "with the base":
        model = cls.from_pretrained(folder, trust_adapter_base=True)
    else:
        model = cls.from_pretrained(REFERENCE / name.partition("-")[0] / "torch-safetensors")
        assert model.load_adapter(folder).is_clean
    assert model.active_adapters() == ["default"]
    assert not any(param.is_meta or param.requires_grad for param in model.parameters())
    with np.load(REFERENCE / "adapters" / "expected.npz") as expected:
        np.testing.assert_allclose(logits(model).numpy(), expected[name], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_a_save_writes_what_was_read(name: str, tmp_path: Path) -> None:
    cls = BertForSequenceClassification if name.startswith("bert") else LlamaForCausalLM
    folder = REFERENCE / "adapters" / name
    cls.from_pretrained(folder, trust_adapter_base=True).save_pretrained(tmp_path)
    first, second = (load_file(place / "adapter_model.safetensors") for place in (folder, tmp_path))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    before, after = (json.loads((place / "adapter_config.json").read_text()) for place in (folder, tmp_path))
    del (
        before["base_model_name_or_path"],
        before["auto_mapping"],
    )  # where it was found; what only peft's own loader uses
    if isinstance(before["target_modules"], list):
        before["target_modules"].sort()
    assert before == {key: after[key] for key in before}


# On the model


def test_one_step_changes_only_the_adapter() -> None:
    model = tiny()
    model.add_adapter(lora())
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    optimizer = torch.optim.SGD([param for param in model.parameters() if param.requires_grad], lr=0.5)
    model(IDS, labels=IDS).loss.backward()
    optimizer.step()
    changed = {name for name, param in model.named_parameters() if not torch.equal(param, before[name])}
    assert changed == {name for name in before if "lora_" in name}
    assert len(changed) == 8


def test_adapters_are_switched_and_turned_off() -> None:
    model = tiny()
    plain = logits(model)
    model.add_adapter(lora())
    one = logits(model)
    model.add_adapter(lora(target_modules=["v_proj"], r=3), "other")
    other = logits(model)
    assert model.active_adapters() == ["other"]
    assert len({tuple(found.flatten().tolist()) for found in (plain, one, other)}) == 3
    model.set_adapter("default")
    assert torch.equal(logits(model), one)
    model.set_adapter(["default", "other"])
    assert model.active_adapters() == ["default", "other"]
    assert not torch.equal(logits(model), one)
    assert not torch.equal(logits(model), other)
    model.disable_adapters()
    assert torch.equal(logits(model), plain)
    model.enable_adapters()
    model.set_adapter("other")
    assert torch.equal(logits(model), other)
    trainable = {name.split(".")[-2] for name, param in model.named_parameters() if param.requires_grad}
    assert trainable == {"other"}


def test_the_config_given_is_not_changed() -> None:
    config = LoraConfig(r=2)
    model = tiny()
    model.add_adapter(config)
    assert config.target_modules is None
    assert model.peft_config["default"].target_modules == {"q_proj", "v_proj"}


def test_names_of_a_state_dict() -> None:
    model = tiny()
    model.add_adapter(lora(target_modules=["q_proj"]), "a")
    model.add_adapter(lora(target_modules=["v_proj"], r=5), "b")
    first, second = model.get_adapter_state_dict("a"), model.get_adapter_state_dict()
    assert sorted(first) == [
        f"model.layers.{layer}.self_attn.q_proj.lora_{side}.weight" for layer in (0, 1) for side in "AB"
    ]
    assert {key.split(".")[4] for key in second} == {"v_proj"}
    assert second["model.layers.0.self_attn.v_proj.lora_A.weight"].shape == (5, 16)
    taken = model.get_adapter_state_dict("a", {name: tensor + 1 for name, tensor in model.state_dict().items()})
    key = "model.layers.0.self_attn.q_proj.lora_A.weight"
    assert torch.equal(taken[key], first[key] + 1)


def test_deleting_the_last_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = tiny()
    plain, names = logits(model), list(model.state_dict())
    model.add_adapter(lora(modules_to_save=["lm_head"]))
    model.add_adapter(lora(r=4), "b")
    model.add_adapter(lora(r=4), "c")
    model.set_adapter("b")
    second = logits(model)
    model.delete_adapter(["default", "c"])
    assert list(model.peft_config) == model.active_adapters() == ["b"]
    assert torch.equal(logits(model), second)
    model.delete_adapter("b")
    assert list(model.state_dict()) == names
    assert torch.equal(logits(model), plain)
    with pytest.raises(InvalidOptionError, match="LlamaForCausalLM has no adapter; call add_adapter or load_adapter"):
        model.active_adapters()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    model.add_adapter(lora())
    assert model.active_adapters() == ["default"]


def test_deleting_the_active_one_activates_another() -> None:
    model = tiny()
    model.add_adapter(lora(), "a")
    one = logits(model)
    model.add_adapter(lora(), "b")
    model.delete_adapter("b")
    assert model.active_adapters() == ["a"]
    assert torch.equal(logits(model), one)


def test_what_cannot_be_asked_for() -> None:
    model = tiny()
    for call in (
        model.active_adapters, model.disable_adapters, model.enable_adapters, model.get_adapter_state_dict,
        lambda: model.set_adapter("a"), lambda: model.delete_adapter("a"),
    ):  # fmt: skip
        with pytest.raises(InvalidOptionError, match="LlamaForCausalLM has no adapter"):
            call()
    model.add_adapter(lora(), "a")
    expected = logits(model)
    with pytest.raises(InvalidOptionError, match="there is an adapter 'a' already; choose another adapter_name"):
        model.add_adapter(lora(), "a")
    for call in (model.set_adapter, model.delete_adapter, model.get_adapter_state_dict):
        with pytest.raises(InvalidOptionError, match="no adapter 'b'; there is a"):
            call("b")
    with pytest.raises(InvalidOptionError, match="no adapter 'b', 'c'; there is a"):
        model.set_adapter(["a", "b", "c"])
    with pytest.raises(OptionError, match="adapter_config is a config of peft, such as LoraConfig, not a dict"):
        model.add_adapter({"r": 2}, "b")
    for name in ("x.y", 3):
        with pytest.raises(InvalidOptionError, match="a name is a word without dots"):
            model.add_adapter(lora(), name)
    with pytest.raises(InvalidOptionError, match=r"cannot be put on Llama.*not found in the base model"):
        model.add_adapter(lora(target_modules=["nowhere"]), "b")
    with pytest.raises(InvalidOptionError, match=r"cannot be put on LlamaForCausalLM: .*prompt learning"):
        model.add_adapter(PrefixTuningConfig(num_virtual_tokens=3), "b")
    assert model.active_adapters() == list(model.peft_config) == ["a"]
    assert torch.equal(logits(model), expected)


def test_a_first_adapter_that_fails_leaves_no_trace() -> None:
    model = tiny()
    names = list(model.state_dict())
    with pytest.raises(InvalidOptionError, match="cannot be put on"):
        model.add_adapter(lora(target_modules=["nowhere"]))
    assert list(model.state_dict()) == names
    assert all(param.requires_grad for param in model.parameters())
    with pytest.raises(InvalidOptionError, match="has no adapter"):
        model.active_adapters()


def test_without_peft(monkeypatch: pytest.MonkeyPatch, saved: Path, base: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    monkeypatch.setitem(sys.modules, "peft", None)
    for call in (
        lambda: model.add_adapter(None),
        lambda: model.load_adapter(saved),
        lambda: LlamaForCausalLM.from_pretrained(saved, trust_adapter_base=True),
        model.active_adapters,
    ):
        with pytest.raises(MissingFrameworkError, match=r"adapters need peft, .*: pip install 'pretrained\[peft\]'"):
            call()
    assert logits(model).isfinite().all()


def test_layers_whose_weight_is_transposed(tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=20, tie_word_embeddings=False)
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path / "base")
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    plain = logits(model)
    model.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True))
    model.save_pretrained(tmp_path / "adapter")
    found = GPT2LMHeadModel.from_pretrained(tmp_path / "adapter", adapter_base=tmp_path / "base")
    expected = logits(found)
    assert torch.equal(expected, logits(model))
    key = "transformer.h.0.mlp.c_fc.lora_{}.weight"
    state = model.get_adapter_state_dict()
    assert state[key.format("A")].shape == (2, 16)
    assert state[key.format("B")].shape == (64, 2)
    by_hand = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        for name, layer in by_hand.named_modules():
            if name.endswith(("c_attn", "c_fc")):
                down, up = (state[f"{name}.lora_{side}.weight"] for side in "AB")
                layer.weight += (up @ down).T * (8 / 2)
    torch.testing.assert_close(logits(by_hand), expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(plain, expected)


def test_checkpointing_trains_adapters() -> None:
    gradients = []
    for settings in (None, {"use_reentrant": False}, {"use_reentrant": True}):
        model = tiny().train()
        torch.manual_seed(4)
        model.add_adapter(lora())
        if settings:
            model.gradient_checkpointing_enable(settings)
        model(IDS, labels=IDS, use_cache=False).loss.backward()
        gradients.append([param.grad for param in model.parameters() if param.requires_grad])
    for others in gradients[1:]:
        assert len(others) == 8
        for own, other in zip(gradients[0], others, strict=True):
            torch.testing.assert_close(own, other)


# Saving


def test_a_save_holds_the_adapter_alone(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    with safe_open(saved / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert len(list(file.keys())) == 8
        assert all(key.startswith("base_model.model.model.layers.") for key in file.keys())  # noqa: SIM118
    config = json.loads((saved / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["target_modules"] == ["q_proj", "up_proj"]
    assert config["inference_mode"] is True
    assert config["base_model_name_or_path"] == str(saved.parent / "base")


@pytest.mark.parametrize(
    "keywords", [{}, {"save_peft_format": False}, {"safe_serialization": False}, {"blocking": False}]
)
def test_every_way_of_saving_loads(keywords: dict[str, Any], base: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    model.add_adapter(lora(modules_to_save=["lm_head"]), "mine")
    for part in ("old.sha256", "SHA256SUMS", "adapter_model.bin", "adapter_model.safetensors", "model.safetensors"):
        (tmp_path / part).write_text("old")
    model.save_pretrained(tmp_path, **keywords)
    wait_for_savers(tmp_path)
    name = "adapter_model.bin" if "safe_serialization" in keywords else "adapter_model.safetensors"
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left - {"old.sha256"} == {name, "adapter_config.json", "model.safetensors"}
    other = LlamaForCausalLM.from_pretrained(base)
    other.load_adapter(tmp_path)
    assert torch.equal(logits(other), logits(model))
    if name.endswith("safetensors"):
        has_prefix = [key.startswith("base_model.model.") for key in load_file(tmp_path / name)]
        assert all(has_prefix) if keywords.get("save_peft_format", True) else not any(has_prefix)


def wait_for_savers(folder: Path) -> None:
    import time

    for _ in range(500):
        if (folder / "adapter_config.json").exists() and not list(folder.glob(".pretrained-*")):
            return
        time.sleep(0.01)
    raise AssertionError("the save did not end")


def test_a_save_that_fails_leaves_the_old_one(saved: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    model.add_adapter(lora())
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def broken(tensors: dict[str, torch.Tensor], path: str) -> None:
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(SaveError, match="No space left"):
        model.save_pretrained(saved, save_function=broken, safe_serialization=False)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    with pytest.raises(SaveError, match="it is a file, not a folder"):
        model.save_pretrained(saved / "adapter_config.json")


def test_one_adapter_is_saved_at_a_time(tmp_path: Path) -> None:
    model = tiny()
    model.add_adapter(lora(), "a")
    model.add_adapter(lora(), "b")
    model.set_adapter(["a", "b"])
    with pytest.raises(InvalidOptionError, match="the active adapters are a, b, and one is saved at a time"):
        model.save_pretrained(tmp_path)
    model.set_adapter("a")
    with pytest.raises(InvalidOptionError, match="variant='fp16': an adapter has no variants"):
        model.save_pretrained(tmp_path, variant="fp16")
    with pytest.raises(InvalidOptionError, match="save_peft_format is True or False, not 1"):
        model.save_pretrained(tmp_path, save_peft_format=1)
    assert not list(tmp_path.iterdir())
    model.save_pretrained(tmp_path, is_main_process=False)
    assert not list(tmp_path.iterdir())


# Which base model


def test_the_base_needs_consent(saved: Path, base: Path, tmp_path: Path) -> None:
    expected = logits(loaded_by_hand(base, saved))
    with pytest.raises(
        UntrustedPathError, match=r"pass trust_adapter_base=True; to load another, adapter_base="
    ) as info:
        AutoModelForCausalLM.from_pretrained(saved)
    assert info.value.key == "base_model_name_or_path"
    assert info.value.path == str(saved / "adapter_config.json")
    for keywords in ({"trust_adapter_base": True}, {"adapter_base": base}, {"adapter_base": str(base)}):
        for cls in (AutoModelForCausalLM, LlamaForCausalLM):
            model = cls.from_pretrained(saved, **keywords)
            assert torch.equal(logits(model), expected)
            assert model.config.name_or_path == str(base)
            assert not model.training


def loaded_by_hand(base: Path, saved: Path) -> LlamaForCausalLM:
    model = LlamaForCausalLM.from_pretrained(base)
    model.load_adapter(saved)
    return model


@pytest.mark.parametrize("name", ["../base", "/etc", "~/base", "org/name", "gpt2", "a/../../base", "https://x/y", "\0"])
def test_names_that_lead_out_are_refused(name: str, saved: Path) -> None:
    change(saved, base_model_name_or_path=name)
    with pytest.raises(UntrustedPathError, match="which is outside of its own place"):
        LlamaForCausalLM.from_pretrained(saved)


def test_a_trusted_base_may_be_beside(saved: Path, base: Path) -> None:
    change(saved, base_model_name_or_path="../base")
    model = LlamaForCausalLM.from_pretrained(saved, trust_adapter_base=True)
    assert torch.equal(logits(model), logits(loaded_by_hand(base, saved)))


def test_a_base_inside_needs_no_consent(saved: Path, base: Path) -> None:
    expected = logits(loaded_by_hand(base, saved))
    shutil.copytree(base, saved / "inner")
    change(saved, base_model_name_or_path="inner")
    assert torch.equal(logits(LlamaForCausalLM.from_pretrained(saved)), expected)
    shutil.rmtree(saved / "inner")
    (saved / "inner").symlink_to(base, target_is_directory=True)
    with pytest.raises(UntrustedPathError, match="outside of its own place"):
        LlamaForCausalLM.from_pretrained(saved)


def test_full_weights_beside_an_adapter_are_its_base(saved: Path, base: Path) -> None:
    expected = logits(loaded_by_hand(base, saved))
    change(saved, base_model_name_or_path="/nowhere")
    for path in base.iterdir():
        shutil.copy(path, saved)
    model, report = AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True)
    assert torch.equal(logits(model), expected)
    assert report.is_clean


def test_an_adapter_in_a_subfolder(saved: Path, base: Path, tmp_path: Path) -> None:
    expected = logits(loaded_by_hand(base, saved))
    shutil.copytree(saved, base / "lora")
    model = LlamaForCausalLM.from_pretrained(base, adapter_kwargs={"subfolder": "lora"})
    assert torch.equal(logits(model), expected)
    model = LlamaForCausalLM.from_pretrained(base)
    plain = logits(model)
    model.load_adapter(base, adapter_kwargs={"subfolder": "lora"})
    model.load_adapter(base, "second", subfolder="lora")
    assert torch.equal(logits(model), expected)
    assert not torch.equal(plain, expected)
    with pytest.raises(SourceError, match=r"adapter_kwargs= was given, and there is no adapter_config\.json in"):
        LlamaForCausalLM.from_pretrained(saved.parent / "base", adapter_kwargs={"subfolder": ""})
    with pytest.raises(UntrustedPathError, match="subfolder"):
        LlamaForCausalLM.from_pretrained(base, adapter_kwargs={"subfolder": "../adapter"})


def test_options_of_adapters(saved: Path, base: Path) -> None:
    with pytest.raises(SourceError, match=r"adapter_base= was given, and there is no adapter_config\.json"):
        LlamaForCausalLM.from_pretrained(base, adapter_base=base)
    with pytest.raises(InvalidOptionError, match="trust_adapter_base is True or False, not 'yes'"):
        LlamaForCausalLM.from_pretrained(saved, trust_adapter_base="yes")
    with pytest.raises(InvalidOptionError, match="adapter_kwargs is a dict, not a str"):
        LlamaForCausalLM.from_pretrained(saved, adapter_kwargs="lora")
    with pytest.raises(OptionError, match="adapter_kwargs has no 'weights'; it says where the adapter is, by cache"):
        LlamaForCausalLM.from_pretrained(saved, adapter_kwargs={"weights": 1})
    with pytest.raises(InvalidOptionError, match="has an adapter itself; load that one first"):
        LlamaForCausalLM.from_pretrained(saved, adapter_base=saved)
    model = LlamaForCausalLM.from_pretrained(base)
    with pytest.raises(OptionError, match="no option 'dtype'"):
        model.load_adapter(saved, dtype="float16")
    with pytest.raises(OptionError, match="no option 'reviison'; did you mean 'revision'"):
        model.load_adapter(saved, reviison="x")
    with pytest.raises(OptionError, match="load_adapter needs a folder, a hub name, or adapter_state_dict="):
        model.load_adapter()
    with pytest.raises(OptionError, match="adapter_state_dict= needs peft_config="):
        model.load_adapter(adapter_state_dict={})
    with pytest.raises(OptionError, match="peft_config is a config of peft or a dict, not a int"):
        model.load_adapter(saved, peft_config=3)
    with pytest.raises(SourceError, match=r"no adapter_config\.json in .*base; there is: "):
        model.load_adapter(base)


# Loading on a model


def test_a_loaded_adapter_is_frozen_unless_it_is_to_be_trained(saved: Path, base: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    report = model.load_adapter(saved)
    assert report.num_loaded == 8
    assert not any(param.requires_grad for param in model.parameters())
    model = LlamaForCausalLM.from_pretrained(base)
    model.load_adapter(saved, is_trainable=True)
    assert {name for name, param in model.named_parameters() if param.requires_grad} == {
        name for name, _ in model.named_parameters() if "lora_" in name
    }


def test_two_loaded_adapters(saved: Path, base: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    model.load_adapter(saved, "a")
    one = logits(model)
    model.load_adapter(saved, "b")
    assert model.active_adapters() == ["b"]
    assert torch.equal(logits(model), one)
    with pytest.raises(InvalidOptionError, match="there is an adapter 'a' already"):
        model.load_adapter(saved, "a")
    model.set_adapter(["a", "b"])
    assert not torch.equal(logits(model), one)


def test_tensors_in_place_of_a_file(saved: Path, base: Path) -> None:
    tensors = load_file(saved / "adapter_model.safetensors")
    expected = logits(loaded_by_hand(base, saved))
    for config in (lora(), json.loads((saved / "adapter_config.json").read_text())):
        model = LlamaForCausalLM.from_pretrained(base)
        model.load_adapter(peft_config=config, adapter_state_dict=tensors)
        assert torch.equal(logits(model), expected)
    model = LlamaForCausalLM.from_pretrained(base)
    with pytest.raises(ConfigError, match="peft_config: adapter key 'r' is 0; expected an integer from 1"):
        model.load_adapter(peft_config={"peft_type": "LORA", "r": 0}, adapter_state_dict=tensors)


def test_dropout_follows_the_mode_of_the_model(base: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    model.add_adapter(lora(lora_dropout=0.9))
    assert torch.equal(logits(model), logits(model))
    model.save_pretrained(tmp_path / "a")
    found = LlamaForCausalLM.from_pretrained(tmp_path / "a", trust_adapter_base=True)
    assert torch.equal(logits(found), logits(model))
    found.train()
    assert not torch.equal(logits(found), logits(found))


def test_half_precision(saved: Path, base: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(saved, adapter_base=base, dtype="bfloat16")
    assert {param.dtype for param in model.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(logits(model).float(), logits(loaded_by_hand(base, saved)), atol=0.05, rtol=0.1)


def test_missing_and_unexpected_are_said(saved: Path, base: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved / "adapter_model.safetensors"
    tensors = load_file(path)
    prefix = "base_model.model.model.layers."
    gone = f"{prefix}1.self_attn.q_proj.lora_B.weight"
    tensors[f"{prefix}7.self_attn.q_proj.lora_A.weight"] = tensors.pop(gone)
    save_file(tensors, path)
    model = LlamaForCausalLM.from_pretrained(base)
    names = list(model.state_dict())
    with pytest.raises(MismatchError, match=r"1\.self_attn\.q_proj\.lora_B\.weight is missing; .*is unexpected"):
        model.load_adapter(saved, strict=True)
    with pytest.raises(MismatchError, match="is missing"):
        LlamaForCausalLM.from_pretrained(saved, adapter_base=base, strict=True)
    assert list(model.state_dict()) == names
    with caplog.at_level(logging.WARNING, logger="pretrained"):
        report = model.load_adapter(saved)
    assert report.missing_keys == [gone.removeprefix("base_model.model.")]
    assert report.unexpected_keys == ["model.layers.7.self_attn.q_proj.lora_A.weight"]
    assert "1 missing" in caplog.text
    assert not any(param.is_meta for param in model.parameters())
    kept = model.get_adapter_state_dict()
    assert all(torch.equal(kept[key.removeprefix("base_model.model.")], value) for key, value in tensors.items()
               if key.removeprefix("base_model.model.") in kept)  # fmt: skip


def test_a_larger_vocabulary_comes_with_the_adapter(saved: Path, base: Path) -> None:
    path = saved / "adapter_model.safetensors"
    rows = torch.randn(50, 16)
    save_file({**load_file(path), "base_model.model.model.embed_tokens.weight": rows}, path)
    model = LlamaForCausalLM.from_pretrained(base)
    assert model.load_adapter(saved).is_clean
    assert torch.equal(model.get_input_embeddings().weight, rows)
    save_file({**load_file(path), "base_model.model.model.embed_tokens.weight": torch.randn(52, 16)}, path)
    model = LlamaForCausalLM.from_pretrained(base)
    with pytest.raises(MismatchError, match=r"embed_tokens\.weight has shape \[52, 16\], expected \[50, 16\]"):
        model.load_adapter(saved)
    assert not any("lora" in name for name in model.state_dict())


def test_an_adapter_of_another_model(saved: Path, base: Path) -> None:
    other = LlamaForCausalLM(LlamaConfig(**{**tiny().config.to_dict(), "hidden_size": 32}))
    with pytest.raises(MismatchError, match=r"not fit LlamaForCausalLM: .*has shape \[2, 16\], expected \[2, 32\]"):
        other.load_adapter(saved)
    assert all(param.requires_grad for param in other.parameters())
    bare = LlamaModel.from_pretrained(base)
    with pytest.raises(MismatchError, match="no tensor is for the layers that its config names; it has"):
        bare.load_adapter(saved)
    assert isinstance(AutoModel.from_pretrained(base), LlamaModel)


def test_a_failed_second_adapter_leaves_the_first(saved: Path, base: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    model.load_adapter(saved, "a", is_trainable=True)
    expected, names = logits(model), list(model.state_dict())
    needs = {name: param.requires_grad for name, param in model.named_parameters()}
    change(saved, r=7)
    with pytest.raises(MismatchError, match="has shape"):
        model.load_adapter(saved, "b")
    assert list(model.state_dict()) == names
    assert model.active_adapters() == list(model.peft_config) == ["a"]
    assert torch.equal(logits(model), expected)
    assert {name: param.requires_grad for name, param in model.named_parameters()} == needs
    change(saved, r=2)
    model.load_adapter(saved, "b")
    assert torch.equal(logits(model), expected)


def test_ia3_beside_nothing_else(base: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    model.add_adapter(IA3Config(init_ia3_weights=False))
    model.save_pretrained(tmp_path / "a")
    found = LlamaForCausalLM.from_pretrained(tmp_path / "a", adapter_base=base)
    assert torch.equal(logits(found), logits(model))


# Files that lie


WRONG = [
    ({"r": "abc"}, "'r' is 'abc'; expected an integer from 1"),
    ({"r": True}, "'r' is True"),
    ({"r": 10**9}, "'r' is 1000000000; expected an integer from 1 to 65536"),
    ({"r": -1}, "'r' is -1"),
    ({"peft_type": "os.system"}, "'peft_type' is 'os.system'; expected one of LORA, IA3"),
    ({"peft_type": ["LORA"]}, "'peft_type' is"),
    ({"peft_type": None}, "'peft_type' is None"),
    ({"peft_type": "PREFIX_TUNING"}, "'peft_type' is 'PREFIX_TUNING'"),
    ({"peft_type": "XLORA", "adapters": {"0": "/etc"}}, "'peft_type' is 'XLORA'"),
    ({"target_modules": 5}, "'target_modules' is 5; expected a list of names, or one pattern"),
    ({"target_modules": ["q_proj", 5]}, "'target_modules' is"),
    ({"target_modules": "(a+)+$"}, "expected a short pattern without nested repeats"),
    ({"target_modules": "("}, "expected a short pattern"),
    ({"target_modules": "a" * 2000}, "expected a short pattern"),
    ({"modules_to_save": {"a": 1}}, "'modules_to_save' is"),
    ({"rank_pattern": {"q_proj": "x"}}, "'rank_pattern' is"),
    ({"rank_pattern": {"(a|a)*$": 4}}, "'rank_pattern' is"),
    ({"rank_pattern": {"q_proj": 10**8}}, "'rank_pattern' is"),
    ({"alpha_pattern": [1]}, "'alpha_pattern' is"),
    ({"layers_to_transform": "all"}, "'layers_to_transform' is 'all'"),
    ({"layers_to_transform": [0], "layers_pattern": ["(x*)*"]}, "'layers_pattern' is"),
    ({"lora_alpha": 10**12}, "'lora_alpha' is 1000000000000"),
    ({"lora_alpha": [8]}, r"'lora_alpha' is \[8\], which is not followed here"),
    ({"lora_dropout": "x"}, "cannot be put on|cannot be built"),
    ({"init_lora_weights": "corda"}, "'init_lora_weights' is 'corda'"),
    ({"init_lora_weights": {}}, "'init_lora_weights' is"),
    ({"megatron_config": {"x": 1}, "megatron_core": "os"}, "'megatron_config' is .*which is not followed here"),
    (
        {"megatron_config": True, "megatron_core": "megatron.core"},
        "'megatron_config' is True, which is not",
    ),
    ({"trainable_token_indices": [1]}, "'trainable_token_indices' is .*not followed here"),
    ({"modules_to_save": "all"}, "'modules_to_save' is 'all'; expected a list of names$"),
    ({"target_modules": []}, "cannot be put on LlamaForCausalLM"),
    ({"loftq_config": {"loftq_bits": 4}}, "'loftq_config' is .*not followed here"),
    ({"layer_replication": [[0, 2]]}, "'layer_replication' is .*not followed here"),
    ({"task_type": "NOTHING"}, "cannot be built from these values: .*Invalid task type"),
    ({"base_model_name_or_path": 7}, "'base_model_name_or_path' is 7; expected a string"),
    ({"revision": ["main"]}, "'revision' is"),
    ({"bias": 3}, "'bias' is 3"),
    ({"bias": "everything"}, "cannot be put on LlamaForCausalLM"),
]


@pytest.mark.parametrize(("values", "complaint"), WRONG, ids=[f"{i}-{next(iter(v))}" for i, (v, _) in enumerate(WRONG)])
def test_wrong_values_in_a_config(values: dict[str, Any], complaint: str, saved: Path, base: Path) -> None:
    change(saved, **values)
    model = LlamaForCausalLM.from_pretrained(base)
    names = list(model.state_dict())
    with pytest.raises((ConfigError, InvalidOptionError), match=complaint) as info:
        model.load_adapter(saved)
    assert len(str(info.value)) < 2000
    assert list(model.state_dict()) == names
    with pytest.raises((ConfigError, InvalidOptionError), match=complaint):
        LlamaForCausalLM.from_pretrained(saved, adapter_base=base)


def test_a_config_without_a_base(saved: Path) -> None:
    change(saved, base_model_name_or_path=None)
    with pytest.raises(ConfigError, match=r"base_model_name_or_path is missing, .* pass adapter_base="):
        LlamaForCausalLM.from_pretrained(saved)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("[]", "must hold a JSON object"),
        ("<!DOCTYPE html><html>", "is an HTML page"),
        ('{"r": 2, "r": 3}', "twice|duplicate"),
        ("[" * 100_000, "nested|deep|levels"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_a_damaged_config(text: str, complaint: str, saved: Path, base: Path) -> None:
    (saved / "adapter_config.json").write_text(text)
    for load in (
        lambda: LlamaForCausalLM.from_pretrained(saved, adapter_base=base),
        lambda: LlamaForCausalLM.from_pretrained(base).load_adapter(saved),
    ):
        with pytest.raises(ConfigError, match=complaint) as info:
            load()
        assert "adapter_config.json" in str(info.value)


def test_a_huge_config_is_not_read(saved: Path, base: Path) -> None:
    with (saved / "adapter_config.json").open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(ResourceLimitError, match="at most"):
        LlamaForCausalLM.from_pretrained(saved, adapter_base=base)


class Canary:
    """What a pickle would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_bin_does_not_run(saved: Path, base: Path, tmp_path: Path) -> None:
    tensors: dict[str, Any] = dict(load_file(saved / "adapter_model.safetensors"))
    (saved / "adapter_model.safetensors").unlink()
    torch.save(tensors, saved / "adapter_model.bin")
    expected = logits(LlamaForCausalLM.from_pretrained(saved, adapter_base=base))
    torch.save({**tensors, "x": Canary(tmp_path / "canary")}, saved / "adapter_model.bin")
    model = LlamaForCausalLM.from_pretrained(base)
    with pytest.raises(WeightsFormatError, match=r"adapter_model\.bin"):
        model.load_adapter(saved)
    buffer = io.BytesIO()
    pickle.dump(Canary(tmp_path / "canary"), buffer)
    (saved / "adapter_model.bin").write_bytes(buffer.getvalue())
    with pytest.raises(WeightsFormatError, match=r"adapter_model\.bin"):
        LlamaForCausalLM.from_pretrained(saved, adapter_base=base)
    assert not (tmp_path / "canary").exists()
    assert not torch.equal(logits(model), expected)


def test_which_file(saved: Path, base: Path) -> None:
    torch.save(load_file(saved / "adapter_model.safetensors"), saved / "adapter_model.bin")
    (saved / "adapter_model.safetensors").write_bytes(b"broken")
    model = LlamaForCausalLM.from_pretrained(base)
    with pytest.raises(WeightsFormatError, match=r"adapter_model\.safetensors"):
        model.load_adapter(saved)
    model.load_adapter(saved, use_safetensors=False)
    (saved / "adapter_model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"has adapter_config\.json, and no adapter_model\.safetensors; there is"):
        model.load_adapter(saved, "b", use_safetensors=True)
    (saved / "adapter_model.bin").unlink()
    with pytest.raises(SourceError, match=r"and no adapter_model\.safetensors or adapter_model\.bin"):
        model.load_adapter(saved, "b")


def test_a_link_out_of_the_folder(saved: Path, base: Path, tmp_path: Path) -> None:
    (saved / "adapter_model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (saved / "adapter_model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(UntrustedPathError, match="is a link out of its folder"):
        LlamaForCausalLM.from_pretrained(base).load_adapter(saved)


def test_tensors_of_another_kind(saved: Path, base: Path) -> None:
    path = saved / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor.to(torch.int32) for name, tensor in tensors.items()}, path)
    with pytest.raises(MismatchError, match="has dtype int32, expected float32"):
        LlamaForCausalLM.from_pretrained(base).load_adapter(saved)
    save_file({}, path)
    with pytest.raises(MismatchError, match="does not fit"):
        LlamaForCausalLM.from_pretrained(base).load_adapter(saved)


def test_more_than_the_model_itself_is_not_made_up(saved: Path, base: Path) -> None:
    path = saved / "adapter_model.safetensors"
    kept = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({kept: load_file(path)[kept]}, path)
    change(saved, rank_pattern={"up_proj": 65536, r"layers\.1.*q_proj": 65536})
    with pytest.raises(MismatchError, match="more than the model itself has"):
        LlamaForCausalLM.from_pretrained(base).load_adapter(saved)


def test_unknown_keys_of_a_newer_peft(saved: Path, base: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(saved, of_tomorrow=3, and_this=None)
    model = LlamaForCausalLM.from_pretrained(base)
    with caplog.at_level(logging.WARNING, logger="pretrained"):
        model.load_adapter(saved)
    assert "'of_tomorrow' is nothing that peft" in caplog.text
    assert "and_this" not in caplog.text


@pytest.mark.parametrize(
    ("pattern", "quick"),
    [
        ("q_proj", True),
        (r".*\.(q|v)_proj$", True),
        (r"(.*\.)?attn", True),
        (
            r"(?:.*?(?:a|b).*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:x)\.(?:(?:y)))",
            True,
        ),
        (r"[(+*]+x", True),
        (r"\)\+", True),
        (r"(a+)+", False),
        (r"(a|a)*b", False),
        (r"(ab){1,}", False),
        (r".*.*.*.*.*x", False),
        (r"(a)\1", False),
        (r"(?P<x>a)(?P=x)", False),
        ("(", False),
        ("[", False),
        (r"a{99999999999}", False),
    ],
)
def test_patterns_that_take_long(pattern: str, quick: bool) -> None:
    assert is_quick(pattern) is quick


# Repositories


@pytest.fixture
def cache(saved: Path, base: Path, tmp_path: Path) -> Path:
    """A hub cache with the repositories org/base (at two commits) and org/lora, an adapter for it."""
    change(saved, base_model_name_or_path="org/base", revision="c" * 40)
    tiny(9).save_pretrained(tmp_path / "newer")
    places = [("base", "a", tmp_path / "newer"), ("base", "c", base), ("lora", "b", saved)]
    for name, letter, folder in places:
        home = tmp_path / "cache" / f"models--org--{name}"
        shutil.copytree(folder, home / "snapshots" / (letter * 40))
        if not (home / "refs").exists():
            (home / "refs").mkdir()
            (home / "refs" / "main").write_text(letter * 40)
    return tmp_path / "cache"


def test_a_repository_may_not_name_another(cache: Path, base: Path, saved: Path) -> None:
    where = {"cache_dir": cache, "local_files_only": True}
    expected = logits(loaded_by_hand(base, saved))
    with pytest.raises(UntrustedPathError, match="for the base model 'org/base', which is outside of its own place"):
        AutoModelForCausalLM.from_pretrained("org/lora", **where)
    model = AutoModelForCausalLM.from_pretrained("org/lora", trust_adapter_base=True, **where)
    assert torch.equal(logits(model), expected)
    assert model.config._commit_hash == "c" * 40
    newest = AutoModelForCausalLM.from_pretrained("org/lora", adapter_base="org/base", **where)
    assert newest.config._commit_hash == "a" * 40
    assert not torch.equal(logits(newest), expected)
    model = LlamaForCausalLM.from_pretrained(base)
    model.load_adapter("org/lora", **where)
    assert torch.equal(logits(model), expected)


def test_a_repository_may_name_itself(cache: Path, base: Path, saved: Path) -> None:
    home = cache / "models--org--base" / "snapshots" / ("c" * 40)
    shutil.copytree(saved, home / "lora")
    where = {"cache_dir": cache, "local_files_only": True, "subfolder": "lora"}
    model = LlamaForCausalLM.from_pretrained("org/base", revision="c" * 40, **where)
    assert torch.equal(logits(model), logits(loaded_by_hand(base, saved)))


def test_a_repository_that_is_fetched(saved: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = logits(loaded_by_hand(base, saved))
    change(saved, base_model_name_or_path="inner")
    files = {f"inner/{path.name}": path for path in base.iterdir()} | {path.name: path for path in saved.iterdir()}

    class Shelf:
        def path(self, name: str) -> Path:
            return files[name]

        def fetch(self, names: list[str]) -> None:
            """`path` does it."""

        def source(self, name: str) -> None:
            """It is not streamed."""

    def opened(repo_id: str, source: SourceOptions, path: str = "") -> LazySnapshot:
        start = f"{source.subfolder}/" if source.subfolder else ""
        below = {name.removeprefix(start): name for name in files if name.startswith(start)}
        return LazySnapshot(repo_id, "d" * 40, below, Shelf())

    monkeypatch.setattr("pretrained.hub.repository.open_repository", opened)
    assert torch.equal(logits(LlamaForCausalLM.from_pretrained("org/lora")), expected)
    change(saved, base_model_name_or_path="org/other")
    with pytest.raises(UntrustedPathError, match="'org/other'"):
        LlamaForCausalLM.from_pretrained("org/lora")
