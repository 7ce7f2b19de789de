"""What importing the package costs, and which names it has."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pretrained
from pretrained.errors import MissingFrameworkError, PretrainedError

STUB = Path(pretrained.__file__).with_suffix(".pyi")
FRAMEWORKS = ("torch", "jax", "flax", "tensorflow", "keras", "transformers")


def run_fresh(code: str) -> list[str]:
    """Words that a fresh interpreter prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV_", "PYTEST"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def stub_places() -> dict[str, str]:
    """Public name → module of the stub's import."""
    tree = ast.parse(STUB.read_text())
    return {
        alias.name: node.module or ""
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is None
    }


def loaded_after(code: str) -> set[str]:
    return set(run_fresh(f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"))


def test_import_loads_no_framework_and_no_numpy() -> None:
    assert not loaded_after("import pretrained") & {*FRAMEWORKS, "numpy", "ml_dtypes", "huggingface_hub"}


@pytest.mark.parametrize(
    "code",
    [
        "import pretrained; dir(pretrained)",
        "from pretrained import AutoModel, AutoConfig, AutoModelForCausalLM",
        "from pretrained import BertConfig, LlamaConfig, PretrainedConfig; BertConfig(), LlamaConfig()",
        "from pretrained import LoadReport, ConfigError",
        "from pretrained import AutoConfig; AutoConfig.for_model('bert')",
        "import pretrained.loading, pretrained.saving, pretrained.checkpoint.execute, pretrained.checkpoint.plan_load",
        "import pretrained.cli",
    ],
)
def test_frameworks_stay_out(code: str) -> None:
    assert not loaded_after(code) & set(FRAMEWORKS)


def test_the_stub_is_the_list_of_names() -> None:
    places = stub_places()
    public = {name for name in dir(pretrained) if not name.startswith("_")}
    assert set(places) == public
    assert set(importlib.import_module("ast").literal_eval(_stub_all())) == {*public, "__version__"}


def _stub_all() -> str:
    tree = ast.parse(STUB.read_text())
    found = [node for node in tree.body if isinstance(node, ast.Assign)]
    return ast.unparse(found[0].value)


@pytest.mark.parametrize("name", sorted(stub_places()))
def test_every_name_resolves_to_what_the_stub_says(name: str) -> None:
    value = getattr(pretrained, name)
    assert value is getattr(importlib.import_module(f"pretrained.{stub_places()[name]}"), name)
    assert value.__doc__
    assert name in dir(pretrained)


def test_dir_has_no_leftovers() -> None:
    assert run_fresh("import pretrained; print(*[n for n in dir(pretrained) if not n.startswith('__')])") == sorted(
        stub_places()
    )


def test_a_name_is_found_once() -> None:
    assert run_fresh(
        "import pretrained; first = pretrained.PretrainedConfig; print('PretrainedConfig' in vars(pretrained), "
        "first is pretrained.PretrainedConfig, first is pretrained.PreTrainedConfig)"
    ) == ["True", "True", "True"]


def test_all_errors_are_public() -> None:
    errors = importlib.import_module("pretrained.errors")
    for name in errors.__all__:
        assert issubclass(getattr(pretrained, name), PretrainedError)


@pytest.mark.parametrize(
    ("name", "near"), [("AutoModle", "AutoModel"), ("BertModl", "BertModel"), ("lod_into", "load_into")]
)
def test_unknown_name_says_the_nearest(name: str, near: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'; did you mean '{near}'"):
        getattr(pretrained, name)


def test_unknown_name_far_from_any() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'zzzzzzzz'$"):
        pretrained.zzzzzzzz  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute '_nothing'"):
        pretrained._nothing  # noqa: B018
    with pytest.raises(ImportError):
        exec("from pretrained import NoSuchName")  # noqa: S102


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\nimport pretrained\n"


def test_a_missing_framework_is_named_with_its_install_line() -> None:
    code = (
        WITHOUT_TORCH
        + "try:\n    pretrained.BertModel\nexcept ImportError as e:\n    print(type(e).__name__, e.key, e)"
    )
    words = run_fresh(code)
    assert words[:2] == [MissingFrameworkError.__name__, "BertModel"]
    assert "pip install 'pretrained[torch]'" in " ".join(words)


def test_auto_classes_without_torch() -> None:
    code = WITHOUT_TORCH + (
        "try:\n    pretrained.AutoModel.from_pretrained('.')\nexcept ImportError as e:\n    print(type(e).__name__, e)"
    )
    text = " ".join(run_fresh(code))
    assert text.startswith("MissingFrameworkError AutoModel needs torch")
    assert "pip install 'pretrained[torch]'" in text


def test_what_needs_no_framework_works_without() -> None:
    code = (
        WITHOUT_TORCH + "print(pretrained.AutoConfig.for_model('bert').model_type, pretrained.LlamaConfig().model_type)"
    )
    assert run_fresh(code) == ["bert", "llama"]
