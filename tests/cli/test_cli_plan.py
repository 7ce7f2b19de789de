"""`pretrained plan` against what from_pretrained then does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import pretrained


class Tiny(torch.nn.Module):
    """A module of nobody's library."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.second = torch.nn.Linear(4, 2)


def needs_arguments(width: int) -> torch.nn.Module:
    return torch.nn.Linear(width, width)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("name", ["bert/torch-safetensors-sharded", "llama/torch-safetensors"])
def test_the_plan_is_what_the_load_does(name: str, dtype: str | None, reference: Path, run_json: Any) -> None:
    words = [] if dtype is None else ["--dtype", dtype]
    code, document = run_json("plan", reference / name, *words)
    cls = getattr(pretrained, json.loads((reference / name / "config.json").read_text())["architectures"][0])
    model, report = cls.from_pretrained(reference / name, dtype=dtype, output_loading_info=True)
    assert (code, document["model"], document["note"], document["error"]) == (0, cls.__name__, None, None)
    assert document["totals"]["bytes_mapped"] == report.bytes_mapped
    assert document["totals"]["bytes_read"] == report.bytes_read
    assert document["totals"]["bytes"] == sum(p.numel() * p.element_size() for p in model.parameters())
    assert {step["how"] for step in document["steps"]} == {"map" if dtype is None else "cast"}
    assert {step["parameter"]: step["shape"] for step in document["steps"]} == {
        key: list(p.shape) for key, p in model.named_parameters()
    }


def test_experts_are_read_into_place_or_mapped(tmp_path: Path, run_json: Any) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 40}
    config = pretrained.MixtralConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, num_local_experts=3)
    model = pretrained.MixtralForCausalLM(config)
    model.save_pretrained(tmp_path / "ours")
    weights = load_file(tmp_path / "ours" / "model.safetensors")
    (tmp_path / "published").mkdir()
    shutil.copy(tmp_path / "ours" / "config.json", tmp_path / "published")
    save_file(weights, tmp_path / "published" / "model.safetensors", metadata={"format": "pt"})  # sorted by name
    for folder, num_steps, how in (("ours", 2, "map"), ("published", 9, "read")):
        code, document = run_json("plan", tmp_path / folder)
        steps = [step for step in document["steps"] if ".experts." in step["parameter"]]
        report = pretrained.MixtralForCausalLM.from_pretrained(tmp_path / folder, output_loading_info=True)[1]
        assert (code, len(steps), {step["how"] for step in steps}) == (0, num_steps, {how})
        assert document["totals"]["bytes_mapped"] == report.bytes_mapped
        assert document["totals"]["bytes_read"] == report.bytes_read
        assert report.num_loaded == len(list(model.named_parameters()))


def test_missing_and_unexpected(reference: Path, run: Any, run_json: Any) -> None:
    folder = reference / "bert/torch-base-only"
    code, document = run_json("plan", folder, "--class", "AutoModelForMaskedLM")
    _, report = pretrained.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert (code, document["model"]) == (0, "BertForMaskedLM")
    assert report.missing_keys == document["missing"]
    assert report.unexpected_keys == document["unexpected"]
    assert {item["parameter"] for item in document["initialise"] if item["why"] == "missing"} == {*document["missing"]}
    assert document["totals"]["bytes_private"] == sum(item["bytes"] for item in document["initialise"])
    code, document = run_json("plan", folder, "--class", "AutoModelForMaskedLM", "--strict")
    assert (code, document["fits"], document["error"]["type"]) == (1, False, "MismatchError")
    result = run("plan", folder, "--class", "BertForMaskedLM", "--strict")
    assert result.exit_code == 1
    assert "missing: cls.predictions.bias" in result.stdout
    assert "unexpected: pooler.dense.weight" in result.stdout
    assert "the load would fail: " in result.stdout


def test_another_shape(copy: Any, run: Any, run_json: Any) -> None:
    folder = copy("bert/torch-safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 50}))
    code, document = run_json("plan", folder, "--class", "BertModel")
    name = "embeddings.word_embeddings.weight"
    assert code == 1
    assert document["mismatched"] == [{"parameter": name, "checkpoint": [99, 32], "model": [50, 32]}]
    assert f"{name}: checkpoint [99, 32], model [50, 32]" in document["error"]["message"]
    with pytest.raises(pretrained.MismatchError) as caught:
        pretrained.BertModel.from_pretrained(folder)
    assert str(caught.value) == document["error"]["message"]
    result = run("plan", folder, "--class", "BertModel")
    assert f"mismatched: {name}: checkpoint [99, 32], model [50, 32]" in result.stdout
    code, document = run_json("plan", folder, "--class", "BertModel", "--ignore-mismatched-sizes")
    assert (code, document["initialise"][0]["why"]) == (0, "mismatched")


def test_any_class_and_key_map(tmp_path: Path, run: Any, run_json: Any) -> None:
    arrays = {f"net.{key}": value.detach().numpy() for key, value in Tiny().state_dict().items()}
    save_file(arrays, tmp_path / "model.safetensors")
    name = f"{__name__}:Tiny"
    code, document = run_json("plan", tmp_path, "--class", name, "--key-map", r"^net\.=")
    assert (code, document["model"], len(document["steps"])) == (0, "Tiny", 4)
    assert document["steps"][0]["tensor"] == "net." + document["steps"][0]["parameter"]
    code, document = run_json("plan", tmp_path, "--class", name)
    assert code == 1
    assert "matches no tensor" in document["error"]["message"]
    for wrong, words in (
        (f"{__name__}:needs_arguments", "missing a required argument"),
        (f"{__name__}:Nothing", "has no attribute 'Nothing'"),
        (f"{__name__}:__name__", "is a str, not a class"),
        ("no.such.module:X", "No module named 'no'"),
        ("BertModell", "did you mean BertModel?"),
        ("LoadReport", "that is no model class"),
    ):
        result = run("plan", tmp_path, "--class", wrong)
        assert result.exit_code == 2
        assert words in result.stderr


def test_a_file_cannot_have_a_function_called(copy: Any, run_json: Any) -> None:
    folder = copy("bert/torch-safetensors")
    config = json.loads((folder / "config.json").read_text())
    for named, words in (
        (["load_into"], "load_into"),
        (["ThirdPartyModel"], "ThirdPartyModel"),
        ([], "no architecture"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, "architectures": named}))
        code, document = run_json("plan", folder)
        assert (code, document["model"]) == (0, "BertModel")
        assert words in document["note"]


def test_integers_in_place_of_weights_are_looked_at(copy: Any, run: Any) -> None:
    folder = copy("bert/torch-safetensors")
    arrays = load_file(folder / "model.safetensors")
    arrays["bert.pooler.dense.bias"] = np.zeros(32, np.int64)
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    result = run("plan", folder)
    assert result.exit_code == 0
    assert "to look at: bert.pooler.dense.bias is int64 at rest" in result.stdout
    assert run("plan", folder, "--strict").exit_code == 1


@pytest.mark.parametrize("word", ["no-mark", "=x", "(=x"])
def test_a_bad_key_map_is_wrong_usage(word: str, reference: Path, run: Any) -> None:
    result = run("plan", reference / "bert/torch-safetensors", "--key-map", word)
    assert result.exit_code == 2
    assert "--key-map" in result.stderr


def test_a_group_that_is_not_there(reference: Path, run: Any) -> None:
    result = run("plan", reference / "bert/torch-safetensors", "--key-map", r"^bert=\3")
    assert result.exit_code == 2
    assert "invalid group reference" in result.stderr


def test_an_impossible_config_is_not_built(copy: Any, run: Any) -> None:
    folder = copy("bert/torch-safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1_000_000}))
    result = run("plan", folder)
    assert result.exit_code == 2
    assert "num_hidden_layers" in result.stderr
