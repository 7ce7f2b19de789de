"""Code that comes with a checkpoint: never run unasked, run from its own package when trusted, saved if registered."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrained import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    InvalidOptionError,
    LlamaForCausalLM,
    MissingFrameworkError,
    PretrainedConfig,
    ResourceLimitError,
    UntrustedCodeError,
    UntrustedPathError,
)

CONFIG = """
from pretrained import PretrainedConfig
CANARY

class TinyConfig(PretrainedConfig):
    model_type = "tiny-remote"
    size: int = 3
"""
MODEL = """
import torch
from torch import nn
from pretrained import PreTrainedModel
from .configuration_tiny import TinyConfig
from . import scale_tiny

class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.line = nn.Linear(config.size, config.size)
        self.post_init()

    def forward(self, x):
        return scale_tiny.FACTOR * self.line(x)

class TinyHead(TinyModel):
    pass
"""
AUTO_MAP = {
    "AutoConfig": "configuration_tiny.TinyConfig",
    "AutoModel": "modeling_tiny.TinyModel",
    "AutoModelForCausalLM": "modeling_tiny.TinyHead",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "repo")


def make(folder: Path, factor: float = 2.0, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    ran = folder / "ran"
    (folder / "configuration_tiny.py").write_text(CONFIG.replace("CANARY", f"open({str(ran)!r}, 'w').close()"))
    (folder / "modeling_tiny.py").write_text(MODEL)
    (folder / "scale_tiny.py").write_text(f"FACTOR = {factor}\n")
    values = {"model_type": "tiny-remote", "size": 4, "auto_map": AUTO_MAP, **changes}
    (folder / "config.json").write_text(json.dumps(values))
    torch.manual_seed(0)
    from safetensors.torch import save_file

    state = {"line.weight": torch.randn(4, 4), "line.bias": torch.randn(4)}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def has_run(folder: Path) -> bool:
    return (folder / "ran").exists()


# Not trusted


@pytest.mark.parametrize("load", [AutoConfig.from_pretrained, AutoModel.from_pretrained])
@pytest.mark.parametrize("keywords", [{}, {"trust_remote_code": False}, {"trust_remote_code": None}])
def test_never_unasked(folder: Path, load: Any, keywords: dict[str, Any]) -> None:
    with pytest.raises(UntrustedCodeError, match=r"configuration_tiny\.TinyConfig.*trust_remote_code=True"):
        load(folder, **keywords)
    assert not has_run(folder)


def test_the_checkpoint_has_no_say(tmp_path: Path) -> None:
    folder = make(tmp_path / "repo", trust_remote_code=True, _trust_remote_code=True)
    with pytest.raises(UntrustedCodeError):
        AutoModel.from_pretrained(folder)
    assert not has_run(folder)


def test_our_own_class_wins_while_the_code_is_not_trusted(reference: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "llama"
    shutil.copytree(reference / "llama/torch-safetensors", folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    (folder / "config.json").write_text(json.dumps(values | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    assert type(AutoModelForCausalLM.from_pretrained(folder)) is LlamaForCausalLM
    assert not has_run(folder)


# Trusted


def test_trusted(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert has_run(folder) and config.size == 4 and type(config).__name__ == "TinyConfig"
    model, report = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    assert type(model).__name__ == "TinyModel" and not report["missing_keys"]
    assert type(model.config) is type(config), "one package, one class"
    x = torch.ones(1, 4)
    assert torch.equal(model(x), 2 * model.line(x))
    head = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert type(head).__name__ == "TinyHead" and isinstance(head, type(model))
    assert "scale_tiny" not in sys.modules and "modeling_tiny" not in sys.modules
    assert not list(folder.glob("**/__pycache__"))
    assert type(AutoModel.from_config(config, trust_remote_code=True)) is type(model)
    with pytest.raises(InvalidOptionError, match="AutoModel has no class"):
        AutoModel.from_config(config)


def test_tracebacks_and_sources_name_the_file(folder: Path) -> None:
    import inspect

    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert inspect.getfile(type(model)) == str(folder / "modeling_tiny.py")
    assert "scale_tiny.FACTOR" in inspect.getsource(type(model).forward)


def test_a_changed_file_is_another_package(tmp_path: Path) -> None:
    first = AutoModel.from_pretrained(make(tmp_path / "repo", 2.0), trust_remote_code=True)
    again = AutoModel.from_pretrained(make(tmp_path / "copy", 2.0), trust_remote_code=True)
    second = AutoModel.from_pretrained(make(tmp_path / "repo", 3.0), trust_remote_code=True)
    x = torch.ones(1, 4)
    assert torch.equal(first(x), 2 * first.line(x)) and torch.equal(second(x), 3 * second.line(x))
    assert type(first) is not type(second)
    assert type(first).__module__ != type(second).__module__
    assert type(again).__name__ == "TinyModel"


def test_code_of_another_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = make(tmp_path / "code")
    auto_map = {name: f"org/code--{place}" for name, place in AUTO_MAP.items()}
    folder = make(tmp_path / "repo", auto_map=auto_map)
    for name in ("configuration_tiny.py", "modeling_tiny.py", "scale_tiny.py"):
        (folder / name).write_text("raise SystemExit('the wrong code')")
    asked = []

    def resolve(ref: str, source: Any) -> Any:
        from pretrained.hub.snapshot import FolderSnapshot

        asked.append((ref, source.revision, source.subfolder))
        return FolderSnapshot(code, ref)

    monkeypatch.setattr("pretrained.auto.remote_code.resolve", resolve)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True, code_revision="abc123")
    assert type(model).__name__ == "TinyModel"
    assert set(asked) == {("org/code", "abc123", "")}


def test_threads_run_it_once(folder: Path) -> None:
    count = str(folder / "count")

    (folder / "scale_tiny.py").write_text(f"FACTOR = 1.0\nwith open({count!r}, 'a') as f: f.write('x')\n")
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(AutoModel.from_pretrained(folder, trust_remote_code=True)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({type(model) for model in found}) == 1 and len(found) == 6
    assert (folder / "count").read_text() == "x"


# What is refused of trusted code


@pytest.mark.parametrize(
    "place",
    [
        "../evil.C", "/etc/evil.C", "a/b.C", "a.b.C", "evil", "evil.", ".C", "evil.C.D", "évil.C",
        "evil.C\n",
        "evil .C", "org/../repo--evil.C", "a--b--evil.C", "", 5, {"a": 1}, ["../evil.C"], "os.path.join",
        "\u202eevil.C",
    ],
)  # fmt: skip
def test_places_that_lead_elsewhere(tmp_path: Path, place: Any) -> None:
    folder = make(tmp_path / "repo", auto_map={"AutoConfig": place})
    for trust in (True, False):
        with pytest.raises((UntrustedPathError, UntrustedCodeError)):
            AutoConfig.from_pretrained(folder, trust_remote_code=trust)
    assert not has_run(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from ..outside import x", r"imports only from beside itself"),
        ("from .sub.module import x", r"imports only from beside itself"),
        ("from .gone import x", r"no gone\.py beside it"),
        ("from . import gone", r"no gone\.py beside it"),
        ("def", r"no Python source"),
        ("x = '\x00'", r"no Python source"),
        ("(" * 5000, r"no Python source"),
    ],
)
def test_modules_that_cannot_be_run(folder: Path, text: str, message: str) -> None:
    (folder / "configuration_tiny.py").write_text(text)
    with pytest.raises(UntrustedCodeError, match=message) as caught:
        AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert len(str(caught.value)) < 2048 and not has_run(folder)


def test_missing_files_classes_and_packages(folder: Path) -> None:
    (folder / "configuration_tiny.py").write_text(
        "import torch\nimport not_here_1, not_here_2.x\nfrom not_here_3 import y\n"
    )
    with pytest.raises(MissingFrameworkError, match="pip install not_here_1 not_here_2 not_here_3"):
        AutoConfig.from_pretrained(folder, trust_remote_code=True)
    (folder / "configuration_tiny.py").write_text("x = 1\n")
    with pytest.raises(InvalidOptionError, match="has no class TinyConfig"):
        AutoConfig.from_pretrained(folder, trust_remote_code=True)
    (folder / "configuration_tiny.py").write_text("class TinyConfig: pass\n")
    with pytest.raises(InvalidOptionError, match="is no PretrainedConfig of this library"):
        AutoConfig.from_pretrained(folder, trust_remote_code=True)
    (folder / "configuration_tiny.py").unlink()
    with pytest.raises(UntrustedCodeError, match="configuration_tiny"):
        AutoConfig.from_pretrained(folder, trust_remote_code=True)
    (folder / "configuration_tiny.py").symlink_to("/etc/hostname")
    with pytest.raises(UntrustedPathError):
        AutoConfig.from_pretrained(folder, trust_remote_code=True)


def test_too_long(folder: Path) -> None:
    (folder / "configuration_tiny.py").write_text("#" * (5 << 20))
    with pytest.raises(ResourceLimitError):
        AutoConfig.from_pretrained(folder, trust_remote_code=True)


def test_an_error_in_the_code_is_its_own_and_nothing_stays(folder: Path) -> None:
    (folder / "scale_tiny.py").write_text("raise ZeroDivisionError('mine')")
    before = {name for name in sys.modules if name.endswith(".scale_tiny")}
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="mine"):
            AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert {name for name in sys.modules if name.endswith(".scale_tiny")} == before


def test_a_file_named_like_a_package_shadows_nothing(folder: Path) -> None:
    for name in ("torch", "json", "pretrained"):
        (folder / f"{name}.py").write_text("raise SystemExit('shadowed')")
    assert type(AutoModel.from_pretrained(folder, trust_remote_code=True)).__name__ == "TinyModel"


# Saved


def test_what_was_loaded_is_saved_with_its_code(folder: Path, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    model.save_pretrained(tmp_path / "copy")
    names = sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert names == ["config.json", "configuration_tiny.py", "model.safetensors", "modeling_tiny.py", "scale_tiny.py"]
    again = AutoModel.from_pretrained(tmp_path / "copy", trust_remote_code=True)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    written = json.loads((tmp_path / "copy/config.json").read_text())
    assert written["auto_map"] == AUTO_MAP


def test_registered_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "remote_package_a"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    make(package)
    (package / "config.json").unlink()
    monkeypatch.syspath_prepend(tmp_path / "site")
    from remote_package_a.modeling_tiny import TinyConfig, TinyModel

    model = TinyModel(TinyConfig(size=4))
    model.save_pretrained(tmp_path / "plain")
    assert "auto_map" not in json.loads((tmp_path / "plain/config.json").read_text())
    assert not list((tmp_path / "plain").glob("*.py"))
    TinyModel.register_for_auto_class(AutoModel)
    model.save_pretrained(tmp_path / "full")
    written = json.loads((tmp_path / "full/config.json").read_text())
    assert written["auto_map"] == {name: AUTO_MAP[name] for name in ("AutoConfig", "AutoModel")}
    loaded = AutoModel.from_pretrained(tmp_path / "full", trust_remote_code=True)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    TinyConfig.register_for_auto_class()
    TinyConfig(size=5).save_pretrained(tmp_path / "config")
    assert sorted(path.name for path in (tmp_path / "config").iterdir()) == ["config.json", "configuration_tiny.py"]
    assert AutoConfig.from_pretrained(tmp_path / "config", trust_remote_code=True).size == 5


@pytest.mark.parametrize("name", ["AutoConfig", "Model", 5, None, "AutoModel/..", PretrainedConfig])
def test_names_to_register_under(name: Any) -> None:
    class Mine(LlamaForCausalLM):
        pass

    with pytest.raises(InvalidOptionError, match="auto_class is one of AutoModel"):
        Mine.register_for_auto_class(name)
    assert Mine._auto_class is None
    with pytest.raises(InvalidOptionError, match="auto_class is AutoConfig"):
        PretrainedConfig.register_for_auto_class("AutoModel")


def test_a_class_without_a_file_is_warned_of(tmp_path: Path) -> None:
    from pretrained import LlamaConfig

    class Local(LlamaForCausalLM):
        pass

    Local.register_for_auto_class("AutoModelForCausalLM")
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "vocab_size": 9,
    }
    with pytest.warns(UserWarning, match="the code of Local is not saved with the checkpoint: it is defined inside"):
        Local(LlamaConfig(**sizes)).save_pretrained(tmp_path)
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())
