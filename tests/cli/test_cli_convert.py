"""`pretrained convert`: what comes out is what went in, in the shards, dtype and names that were asked for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

import pretrained


@pytest.mark.parametrize("name", ["bert/torch-safetensors", "llama/torch-safetensors-sharded"])
def test_resharding_and_back_changes_nothing(name: str, reference: Path, tmp_path: Path, run: Any) -> None:
    source, parts, whole = reference / name, tmp_path / "parts", tmp_path / "whole"
    result = run("convert", source, parts, "--max-shard-size", "20kB")
    assert result.exit_code == 0
    assert len(list(parts.glob("*.safetensors"))) > 2
    assert f"wrote {parts}" in result.stdout
    assert run("verify", parts).exit_code == 0
    assert run("diff", source, parts).exit_code == 0
    assert run("convert", parts, whole).exit_code == 0
    assert run("diff", source, whole).exit_code == 0
    assert [path.name for path in whole.glob("*.safetensors*")] == ["model.safetensors"]
    for path in source.glob("*config.json"):
        assert (whole / path.name).read_bytes() == path.read_bytes()
    cls = getattr(pretrained, json.loads((source / "config.json").read_text())["architectures"][0])
    for key, value in cls.from_pretrained(whole).state_dict().items():
        assert torch.equal(value, cls.from_pretrained(source).state_dict()[key])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_a_cast_is_torch_s_to_the_bit(dtype: str, reference: Path, tmp_path: Path, run: Any) -> None:
    source = reference / "bert/torch-safetensors"
    assert run("convert", source, tmp_path / "out", "--dtype", dtype).exit_code == 0
    before, after = load_torch(source / "model.safetensors"), load_torch(tmp_path / "out/model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        expected = tensor.to(getattr(torch, dtype))
        assert after[name].dtype == expected.dtype
        assert torch.equal(after[name].view(torch.uint8), expected.view(torch.uint8))
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config == {**json.loads((source / "config.json").read_text()), "dtype": dtype}


def test_config_dtype_follows_in_every_spelling(copy: Any, tmp_path: Path, run: Any) -> None:
    source = copy("bert/torch-safetensors")
    nested = {"model_type": "x", "torch_dtype": "float32", "dtype": None}
    config = {"torch_dtype": "float32", "text_config": nested, "other": {"dtype": "float32"}, "ü": "é"}
    (source / "config.json").write_text(json.dumps(config))
    assert run("convert", source, tmp_path / "out", "--dtype", "float16").exit_code == 0
    found = json.loads((tmp_path / "out/config.json").read_text(encoding="utf-8"))
    assert found == {
        "torch_dtype": "float16",
        "text_config": {"model_type": "x", "torch_dtype": "float16", "dtype": None},
        "other": {"dtype": "float32"},
        "ü": "é",
        "dtype": "float16",
    }


def test_integers_stay_and_overflow_is_told(tmp_path: Path, run: Any, run_json: Any) -> None:
    source = tmp_path / "source"
    source.mkdir()
    arrays = {
        "ids": np.arange(5),
        "mask": np.array([True, False]),
        "big": np.array([1.0, 7e4, -1e30, np.inf, np.nan, 65504], np.float32),
    }
    save_file(arrays, source / "model.safetensors")
    result = run("convert", source, tmp_path / "out", "--dtype", "float16")
    assert result.exit_code == 0
    assert result.stderr == "warning: big: 2 values beyond the range of the new dtype became infinite\n"
    found = load_file(tmp_path / "out/model.safetensors")
    assert [found[name].dtype.name for name in ("ids", "mask", "big")] == ["int64", "bool", "float16"]
    assert np.array_equal(found["ids"], arrays["ids"])
    _, document = run_json("convert", source, tmp_path / "again", "--dtype", "float16")
    assert (document["overflowed"], document["cast"], document["tensors"]) == ({"big": 2}, 1, 3)


def test_variant_names_and_key_map(reference: Path, tmp_path: Path, run: Any, run_json: Any) -> None:
    source = reference / "bert/torch-safetensors-variant-bf16"
    words = ("--variant", "bf16", "--to-variant", "half", "--max-shard-size", "20kB", "--key-map", r"^bert\.=")
    code, document = run_json("convert", source, tmp_path, *words, "--key-map", "never=x")
    assert (code, document["unused_key_maps"]) == (0, ["never"])
    assert "model.safetensors.index.half.json" in document["files"]
    assert "model.half-00001-of-00003.safetensors" in document["files"]
    assert document["renamed"]["bert.pooler.dense.bias"] == "pooler.dense.bias"
    variants = ("--variant", "bf16", "--variant-b", "half")
    assert run("diff", source, tmp_path, *variants, "--ignore-prefix", "bert").exit_code == 0
    result = run("convert", source, tmp_path, *words, "--key-map", "never=x")
    assert result.stderr == "warning: --key-map 'never' matches no tensor\n"


def test_two_tensors_may_not_become_one(reference: Path, tmp_path: Path, run: Any) -> None:
    result = run("convert", reference / "bert/torch-safetensors", tmp_path / "out", "--key-map", r"layer\.\d=layer.0")
    assert result.exit_code == 2
    assert "the key map makes 'bert.encoder.layer.0." in result.stderr
    assert not (tmp_path / "out").exists()


def test_what_belongs_to_the_model_comes_along(copy: Any, tmp_path: Path, run: Any) -> None:
    source = copy("bert/torch-safetensors")
    kept = {"tokenizer.json": b"{}", "vocab.txt": b"a", "spiece.model": b"\0", "README.md": b"#", "notes.md": b"-"}
    left = {"pytorch_model.bin": b"x", "SHA256SUMS": b"x", ".hidden": b"x", "tf_model.h5": b"x", "x.onnx": b"x"}
    for name, content in {**kept, **left}.items():
        (source / name).write_bytes(content)
    assert run("convert", source, tmp_path / "out").exit_code == 0
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {*kept, "config.json", "model.safetensors"}
    # Beside a single file there may be anything.
    assert run("convert", source / "model.safetensors", tmp_path / "one").exit_code == 0
    found = {path.name for path in (tmp_path / "one").iterdir()}
    assert found == {"tokenizer.json", "vocab.txt", "spiece.model", "config.json", "model.safetensors"}


def test_a_link_out_of_the_source_is_not_followed(copy: Any, tmp_path: Path, run: Any) -> None:
    source = copy("bert/torch-safetensors")
    (tmp_path / "secret").write_text("secret")
    (source / "tokenizer.json").symlink_to(tmp_path / "secret")
    result = run("convert", source, tmp_path / "out")
    assert result.exit_code == 2
    assert "is a link out of its folder" in result.stderr
    assert not (tmp_path / "out").exists()


def test_source_is_only_replaced_when_asked(copy: Any, tmp_path: Path, run: Any, reference: Path) -> None:
    folder = copy("bert/torch-safetensors")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "link").symlink_to(folder)
    for target in (folder, tmp_path / "link"):
        result = run("convert", folder, target, "--max-shard-size", "20kB")
        assert result.exit_code == 2
        assert "pass --in-place" in result.stderr
    result = run("convert", folder)
    assert result.exit_code == 2
    assert "Missing argument 'TARGET'" in result.stderr
    result = run("convert", folder, tmp_path / "other", "--in-place")
    assert result.exit_code == 2
    assert "is elsewhere" in result.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "SHA256SUMS").write_text(
        hashlib.sha256(before["model.safetensors"]).hexdigest() + "  model.safetensors\n"
    )
    result = run("convert", folder, "--in-place", "--max-shard-size", "20kB", "--dtype", "bfloat16")
    assert result.exit_code == 0
    assert "removed model.safetensors" in result.stdout
    assert "removed SHA256SUMS" in result.stdout
    assert not (folder / "model.safetensors").exists()
    assert run("verify", folder).exit_code == 0
    assert run("diff", folder, reference / "bert/torch-safetensors-bf16").exit_code == 0
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_variant_in_place_stands_beside(copy: Any, run: Any, reference: Path) -> None:
    folder = copy("bert/torch-safetensors")
    config = (folder / "config.json").read_bytes()
    assert run("convert", folder, "--in-place", "--to-variant", "bf16", "--dtype", "bfloat16").exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.bf16.safetensors",
        "model.safetensors",
    ]
    assert (folder / "config.json").read_bytes() == config
    expected = reference / "bert/torch-safetensors-variant-bf16"
    assert run("diff", expected, folder, "--variant", "bf16", "--no-config").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-shard-size", "lots"], "is no size"),
        (["--dtype", "int8"], "'int8' is not one of"),
        (["--to-variant", "../x"], "must be a plain word"),
        (["--key-map", "x"], "is not of the form"),
        (["--key-map", r"^bert=\9"], "invalid group reference"),
    ],
)
def test_wrong_usage_writes_nothing(words: list[str], message: str, reference: Path, tmp_path: Path, run: Any) -> None:
    result = run("convert", reference / "bert/torch-safetensors", tmp_path / "out", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_quantised_weights_are_not_cast(copy: Any, tmp_path: Path, run: Any) -> None:
    source = copy("bert/torch-safetensors")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    result = run("convert", source, tmp_path / "out", "--dtype", "float16")
    assert result.exit_code == 2
    assert "is quantised (fp8)" in result.stderr
    assert run("convert", source, tmp_path / "out").exit_code == 0


def test_a_target_that_is_a_file(reference: Path, tmp_path: Path, run: Any) -> None:
    (tmp_path / "out").write_text("mine")
    result = run("convert", reference / "bert/torch-safetensors", tmp_path / "out")
    assert result.exit_code == 2
    assert "it is a file, not a folder" in result.stderr
    assert (tmp_path / "out").read_text() == "mine"


def test_a_damaged_source_leaves_the_target_as_it_was(copy: Any, tmp_path: Path, run: Any) -> None:
    source = copy("bert/torch-safetensors-sharded")
    assert run("convert", source, tmp_path / "out").exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    path = source / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    result = run("convert", source, tmp_path / "out", "--max-shard-size", "20kB")
    assert result.exit_code == 2
    assert path.name in result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
