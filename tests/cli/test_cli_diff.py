"""`pretrained diff` on checkpoints whose difference is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  gives numpy its bfloat16
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_shards_make_no_difference(family: str, reference: Path, run: Any, run_json: Any) -> None:
    a, b = (reference / family / name for name in ("torch-safetensors", "torch-safetensors-sharded"))
    code, document = run_json("diff", a, b)
    assert (code, document["equal"], document["tensors"], document["config"]) == (0, True, [], {})
    assert document["counts"]["equal"] == len(load_file(a / "model.safetensors"))
    result = run("diff", a, b, "--all")
    assert result.stdout.rstrip().endswith("\nequal")
    assert sum("  equal  " in line for line in result.stdout.splitlines()) == document["counts"]["equal"]


def test_variants(reference: Path, run_json: Any) -> None:
    bert = reference / "bert"
    lone = bert / "torch-safetensors-variant-bf16" / "model.bf16.safetensors"
    code, document = run_json("diff", bert / "torch-safetensors-bf16", lone)
    assert (code, document["equal"]) == (0, True)
    code, document = run_json(
        "diff", bert / "torch-safetensors", bert / "torch-safetensors-variant-bf16", "--variant-b", "bf16"
    )
    assert (code, document["counts"]["dtype"], document["config"]) == (
        1,
        46,
        {"dtype": {"a": "float32", "b": "bfloat16"}},
    )


def test_dtypes(reference: Path, run_json: Any) -> None:
    a, b = (reference / "llama" / name for name in ("torch-safetensors", "torch-safetensors-bf16"))
    first, second = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    code, document = run_json("diff", a, b)
    assert (code, document["counts"]["dtype"]) == (1, len(first))
    for item in document["tensors"]:
        x, y = (arrays[item["name"]].astype(np.float64) for arrays in (first, second))
        assert item["values"]["different"] == np.count_nonzero(x != y)
        assert item["values"]["max_abs"] == np.abs(x - y).max()
    code, document = run_json("diff", a, b, "--ignore-dtype")
    assert (code, document["counts"]["values"] > 0, document["config"]) == (1, True, {})
    code, document = run_json("diff", a, b, "--ignore-dtype", "--rtol", str(2**-8))
    assert (code, document["counts"]["values"], document["equal"]) == (0, 0, True)


def test_base_against_head(reference: Path, run: Any, run_json: Any) -> None:
    a, b = (reference / "bert" / name for name in ("torch-base-only", "torch-safetensors"))
    code, document = run_json("diff", a, b, "--no-config")
    assert (code, document["counts"]["only_a"], document["counts"]["only_b"]) == (1, 39, 46)
    code, document = run_json("diff", a, b, "--ignore-prefix", "bert")
    assert (code, document["counts"]["equal"], document["counts"]["only_b"]) == (1, 39, 7)
    assert set(document["config"]) == {"architectures"}
    result = run("diff", a, b, "--ignore-prefix", "bert.")
    assert "config architectures: A ['BertModel'], B ['BertForPreTraining']" in result.stdout
    assert "7 only in B, 39 equal" in result.stdout


def test_values(copy: Any, reference: Path, run: Any, run_json: Any) -> None:
    original, folder = reference / "bert/torch-safetensors", copy("bert/torch-safetensors")
    arrays = load_file(folder / "model.safetensors")
    name = "bert.pooler.dense.weight"
    before = arrays[name].copy()
    arrays[name][0, :3] += np.float32(0.5)
    arrays["cls.seq_relationship.bias"] = np.zeros((1, 2), np.float32)
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    code, document = run_json("diff", original, folder)
    assert code == 1
    assert {item["name"]: item["kind"] for item in document["tensors"]} == {
        name: "values",
        "cls.seq_relationship.bias": "shape",
    }
    values = next(item["values"] for item in document["tensors"] if item["name"] == name)
    distance = np.abs(before.astype(np.float64) - arrays[name])[0, :3]
    larger = np.maximum(np.abs(before), np.abs(arrays[name])).astype(np.float64)[0, :3]
    assert (values["elements"], values["different"], values["beyond_tolerance"]) == (1024, 3, 3)
    assert values["max_abs"] == distance.max()
    assert values["max_rel"] == pytest.approx((distance / larger).max(), rel=1e-12)
    result = run("diff", original, folder, "--atol", "0.6")
    assert result.exit_code == 1
    assert "1 other shape, 1 within tolerance, 44 equal" in result.stdout
    assert "float32 [2]" in result.stdout
    assert "float32 [1, 2]" in result.stdout


def test_config_fields(copy: Any, reference: Path, run: Any, run_json: Any) -> None:
    original, folder = reference / "bert/torch-safetensors", copy("bert/torch-safetensors")
    config = json.loads((folder / "config.json").read_text())
    config = {**config, "hidden_act": "relu", "transformers_version": "0", "torch_dtype": config.pop("dtype")}
    (folder / "config.json").write_text(json.dumps(config))
    code, document = run_json("diff", original, folder)
    assert (code, document["config"]) == (1, {"hidden_act": {"a": "gelu", "b": "relu"}})
    assert run("diff", original, folder, "--no-config").exit_code == 0
    (folder / "config.json").write_text("{")
    result = run("diff", original, folder)
    assert result.exit_code == 2
    assert "--no-config compares the tensors alone" in result.stderr


@pytest.mark.parametrize("words", [["--rtol", "-1"], ["--atol", "nan"], ["--rtol", "x"]])
def test_tolerances_are_numbers(words: list[str], reference: Path, run: Any) -> None:
    folder = reference / "bert/torch-safetensors"
    result = run("diff", folder, folder, *words)
    assert result.exit_code == 2
    assert words[0].lstrip("-") in result.stderr


def test_damage_is_unreadable(copy: Any, reference: Path, run: Any) -> None:
    folder = copy("bert/torch-safetensors")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    result = run("diff", reference / "bert/torch-safetensors", folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "model.safetensors" in result.stderr
