"""Which class a model_type and a head lead to; no framework is needed to know."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pretrained.auto import registry
from pretrained.auto.classes import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
)
from pretrained.configuration import PretrainedConfig
from pretrained.errors import ConfigError, InvalidOptionError, OptionError, SourceError, UntrustedCodeError
from pretrained.models._family import Family
from pretrained.models.bert.configuration_bert import BertConfig
from pretrained.models.llama.configuration_llama import LlamaConfig


class MineConfig(PretrainedConfig):
    model_type = "mine"
    size: int = 3


class Mine:
    config_class = MineConfig


class Plain:
    """A model class that says nothing of its config."""


pytestmark = pytest.mark.usefixtures("own_tables")


def put(folder: Path, **values: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(values))
    return folder


# The families


@pytest.mark.parametrize("model_type", registry.FOLDERS)
def test_every_family_is_what_it_says(model_type: str) -> None:
    family: Family = registry._family(model_type)
    assert family.model_type == model_type
    config_class = registry.config_class_for({"model_type": model_type})
    assert config_class.model_type == model_type
    assert issubclass(config_class, PretrainedConfig)
    assert set(family.pt) <= set(registry.AUTO_NAMES)
    assert "AutoModel" in family.pt


def test_names_of_all_families_are_their_own() -> None:
    table = registry.family_names()
    assert table["BertConfig"] == "models.bert.configuration_bert"
    assert table["LlamaForCausalLM"] == "models.llama.modeling_llama"
    places = [place for model_type in registry.FOLDERS for place in {*registry._family(model_type).pt.values()}]
    assert len({place.partition(":")[2] for place in places}) == len(places)


def test_known_types() -> None:
    assert registry.known_types() == sorted(registry.FOLDERS)
    AutoConfig.register("mine", MineConfig)
    assert "mine" in registry.known_types()


def test_only_the_wanted_family_is_imported() -> None:
    code = (
        "from pretrained import AutoConfig; AutoConfig.for_model('bert'); import sys\n"
        "print(*[name for name in sys.modules if name.startswith('pretrained.models')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pretrained.models.bert.configuration_bert" in done.stdout
    assert "llama" not in done.stdout
    assert "modeling" not in done.stdout


# Configs


def test_auto_config(tmp_path: Path) -> None:
    folder = put(tmp_path, model_type="llama", hidden_size=64)
    config = AutoConfig.from_pretrained(folder, num_attention_heads=4)
    assert type(config) is LlamaConfig
    assert (config.hidden_size, config.num_attention_heads, config.head_dim) == (64, 4, 16)
    config, rest = AutoConfig.from_pretrained(str(folder), nothing=1, return_unused_kwargs=True)
    assert rest == {"nothing": 1}
    assert AutoConfig.from_pretrained(folder, trust_remote_code=False) == config
    with pytest.raises(OptionError, match="no option 'hiden_size'; did you mean 'hidden_size'"):
        AutoConfig.from_pretrained(folder, hiden_size=1)
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True) == config  # it brings no code


def test_for_model() -> None:
    assert AutoConfig.for_model("bert", hidden_size=24) == BertConfig(hidden_size=24)
    with pytest.raises(ConfigError, match=r"unknown model_type 'nope'\. Known: bert, (\w+, )*llama"):
        AutoConfig.for_model("nope")


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("bertt", "unknown model_type 'bertt'; did you mean 'bert'? Known: "),
        ("Llama", "did you mean 'llama'?"),
        ("zzz", "unknown model_type 'zzz'. Known: "),
        ("../bert", "unknown model_type"),
        ("bert.family", "unknown model_type"),
        ("x" * 5000, "unknown model_type"),
        ("\x1b[31m", "unknown model_type"),
        (None, "no usable model_type (found None)"),
        ("", "no usable model_type (found '')"),
        (5, "no usable model_type (found 5)"),
        (["bert"], "no usable model_type (found ['bert'])"),
        ({"a": 1}, "no usable model_type"),
        (True, "no usable model_type"),
    ],
)
def test_model_types_nobody_knows(model_type: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        AutoConfig.from_pretrained(put(tmp_path, model_type=model_type))
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert (caught.value.key, caught.value.path) == ("model_type", str(tmp_path / "config.json"))
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) <= 2048
    assert str(caught.value).isprintable()


def test_no_model_type_at_all(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no usable model_type .* load with the model's own class, or set it to one of"
    ):
        AutoConfig.from_pretrained(put(tmp_path))


def test_code_of_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "modeling_x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    put(
        tmp_path,
        model_type="x",
        auto_map={"AutoConfig": "modeling_x.C", "AutoModel": "org/repo--modeling_x.M"},
        trust_remote_code=True,
    )
    for load in (AutoConfig.from_pretrained, AutoModel.from_pretrained):
        with pytest.raises(
            UntrustedCodeError, match=r"modeling_x\.C, org/repo--modeling_x\.M\), which is not run"
        ) as caught:
            load(tmp_path)
        assert caught.value.key == "auto_map"
        assert "AutoConfig.register" in str(caught.value)
    assert not (tmp_path / "ran").exists()
    put(tmp_path, model_type="bert", auto_map={"AutoConfig": "modeling_x.C"})
    assert type(AutoConfig.from_pretrained(tmp_path)) is BertConfig
    assert not (tmp_path / "ran").exists()


def test_registered_configs(tmp_path: Path) -> None:
    AutoConfig.register("mine", MineConfig)
    config = AutoConfig.from_pretrained(put(tmp_path, model_type="mine", size=5))
    assert type(config) is MineConfig
    assert config.size == 5
    with pytest.raises(InvalidOptionError, match="'mine' is registered already; pass exist_ok=True"):
        AutoConfig.register("mine", MineConfig)
    AutoConfig.register("mine", MineConfig, exist_ok=True)
    with pytest.raises(InvalidOptionError, match=r"MineConfig\.model_type is 'mine', not 'other'"):
        AutoConfig.register("other", MineConfig)


def test_a_builtin_type_is_taken() -> None:
    class Bert2(BertConfig):
        pass

    with pytest.raises(InvalidOptionError, match="'bert' is registered already"):
        AutoConfig.register("bert", Bert2)
    AutoConfig.register("bert", Bert2, exist_ok=True)
    assert type(AutoConfig.for_model("bert")) is Bert2


# Models


def test_registered_models() -> None:
    AutoModel.register(MineConfig, Mine)
    assert registry.model_class_for("AutoModel", MineConfig()) is Mine

    class Sub(MineConfig):
        model_type = "sub"

    assert registry.model_class_for("AutoModel", Sub()) is Mine
    with pytest.raises(InvalidOptionError, match="is registered already"):
        AutoModel.register(MineConfig, Plain)
    AutoModel.register(MineConfig, Plain, exist_ok=True)
    assert registry.model_class_for("AutoModel", MineConfig()) is Plain
    AutoModelForCausalLM.register(Sub, Mine)  # a subclass of what the model is built from


def test_a_model_of_another_config() -> None:
    with pytest.raises(InvalidOptionError, match="Mine is built from MineConfig, not BertConfig"):
        AutoModel.register(BertConfig, Mine)


def test_a_registered_model_replaces_a_builtin_one() -> None:
    AutoModel.register(BertConfig, Plain)
    assert registry.model_class_for("AutoModel", BertConfig()) is Plain


@pytest.mark.parametrize(
    ("auto", "config", "have"),
    [
        (AutoModelForMaskedLM, LlamaConfig(), "AutoModel, AutoModelForCausalLM, "),
        (AutoModelForQuestionAnswering, LlamaConfig(), "AutoModelForCausalLM"),
        (AutoModel, MineConfig(), "there is: none. AutoModel.register adds one"),
    ],
)
def test_a_head_that_a_family_lacks(auto: Any, config: PretrainedConfig, have: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        auto._choose(config)
    assert str(caught.value).startswith(f"{auto.__name__} has no class for {type(config).__name__}")
    assert have in str(caught.value)


def test_registered_heads_are_listed() -> None:
    AutoModelForCausalLM.register(MineConfig, Mine)
    with pytest.raises(InvalidOptionError, match="there is: AutoModelForCausalLM"):
        registry.model_class_for("AutoModel", MineConfig())


def test_choose_before_and_after_the_config() -> None:
    assert AutoModel._choose({"model_type": "llama"}) == (LlamaConfig, None)
    AutoModel.register(MineConfig, Mine)
    assert AutoModel._choose(MineConfig()) == (MineConfig, Mine)


@pytest.mark.parametrize("cls", [AutoConfig, AutoModel, AutoModelForCausalLM])
def test_auto_classes_are_not_instantiated(cls: Any) -> None:
    with pytest.raises(
        OptionError, match=f"{cls.__name__} is not instantiated; call {cls.__name__}.from_pretrained or"
    ):
        cls()


def test_from_config_takes_a_config() -> None:
    with pytest.raises(ConfigError, match=r"AutoModel\.from_config takes a config, found dict"):
        AutoModel.from_config({"model_type": "bert"})  # type: ignore[arg-type]


def test_every_auto_name_is_a_class() -> None:
    from pretrained.auto import classes

    for name in registry.AUTO_NAMES:
        assert getattr(classes, name).__name__ == name
        assert name in classes.__all__


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no config\.json beside the weights"):
        AutoConfig.from_pretrained(tmp_path)
