"""`pretrained inspect` against what the safetensors package finds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "I64": "int64"}
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2, "int64": 8}
FOLDERS = [
    f"{family}/torch-safetensors{kind}" for family in ("bert", "llama") for kind in ("", "-sharded", "-bf16")
] + ["bert/torch-base-only", "llama/torch-base-only"]


def independently(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118
                view = file.get_slice(name)
                dtype, shape = NAMES[view.get_dtype()], view.get_shape()
                size = math.prod(shape) * SIZES[dtype]
                found[name] = {"name": name, "shape": shape, "dtype": dtype, "bytes": size, "file": path.name}
    return found


@pytest.mark.parametrize("name", FOLDERS)
def test_inspect_tells_what_the_package_tells(name: str, reference: Path, run_json: Any) -> None:
    expected = independently(reference / name)
    code, document = run_json("inspect", reference / name)
    assert code == 0
    assert {item["name"]: item for item in document["tensors"]} == expected
    totals = document["totals"]
    assert totals["tensors"] == len(expected)
    assert totals["parameters"] == sum(math.prod(item["shape"]) for item in expected.values())
    assert totals["bytes"] == sum(item["bytes"] for item in expected.values())
    for key, group in (("dtype", "by_dtype"), ("file", "by_file")):
        assert set(totals[group]) == {item[key] for item in expected.values()}
        for value, sums in totals[group].items():
            own = [item for item in expected.values() if item[key] == value]
            assert (sums["tensors"], sums["bytes"]) == (len(own), sum(item["bytes"] for item in own))
    config = json.loads((reference / name / "config.json").read_text())
    assert document["config"] == {key: config.get(key) for key in ("model_type", "architectures", "dtype")}
    assert all(metadata == {"format": "pt"} for metadata in document["metadata"].values())
    assert document["config_error"] is None


def test_variant_file_and_index_are_found(reference: Path, run_json: Any) -> None:
    folder = reference / "bert/torch-safetensors-variant-bf16"
    code, document = run_json("inspect", folder, "--variant", "bf16")
    assert (code, set(document["totals"]["by_file"])) == (0, {"model.bf16.safetensors"})
    sharded = reference / "bert/torch-safetensors-sharded"
    code, document = run_json("inspect", sharded / "model.safetensors.index.json")
    assert (code, document["totals"]["tensors"], document["index"]) == (0, 46, "model.safetensors.index.json")
    code, document = run_json("inspect", sharded / "model-00001-of-00003.safetensors")
    assert (code, set(document["totals"]["by_file"])) == (0, {"model-00001-of-00003.safetensors"})
    code, document = run_json("inspect", reference / "bert", "--subfolder", "torch-base-only")
    assert (code, document["totals"]["tensors"]) == (0, 39)


def test_sort_filter_and_top(reference: Path, run_json: Any) -> None:
    folder = reference / "llama/torch-safetensors"
    _, document = run_json("inspect", folder, "--sort", "size")
    sizes = [item["bytes"] for item in document["tensors"]]
    assert sizes == sorted(sizes, reverse=True)
    _, document = run_json("inspect", folder, "--sort", "name", "--filter", r"layers\.0\..*proj", "--top", "3")
    names = [item["name"] for item in document["tensors"]]
    assert len(names) == 3
    assert names == sorted(names)
    assert all(name.startswith("model.layers.0.") for name in names)
    assert document["matching"]["tensors"] == 7
    assert document["totals"]["tensors"] > 7


@pytest.mark.parametrize(("pattern", "words"), [("(", "is no regular expression"), ("a" * 1001, "1000 characters")])
def test_a_bad_filter_is_wrong_usage(pattern: str, words: str, reference: Path, run: Any) -> None:
    result = run("inspect", reference / "bert/torch-safetensors", "--filter", pattern)
    assert result.exit_code == 2
    assert "--filter" in result.stderr
    assert words in result.stderr
    assert result.stdout == ""


def test_text_has_a_line_per_tensor_and_nothing_is_cut(tmp_path: Path, run: Any) -> None:
    long = "layer." + "x" * 500
    save_file({long: np.zeros((2, 3), np.float32), "[red]b": np.zeros(4, np.int64)}, tmp_path / "model.safetensors")
    result = run("inspect", tmp_path, env={"COLUMNS": "40"})
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert any(line.split()[:1] == [long] and "[2, 3]" in line and "24" in line for line in lines)
    assert any(line.startswith("[red]b ") for line in lines)
    assert "config: there is none" in lines
    assert lines[-1] == "total: 2 tensors, 10 parameters, 56 B (56 bytes)"


def test_a_terminal_gets_a_table_and_no_color_is_heeded(tmp_path: Path, run: Any) -> None:
    save_file({"[red]b": np.zeros(4, np.int64)}, tmp_path / "model.safetensors")
    colourful = run("inspect", tmp_path, env={"FORCE_COLOR": "1", "COLUMNS": "100", "TERM": "xterm-256color"})
    assert "─" in colourful.stdout
    assert "[red]b" in colourful.stdout
    plain = run("inspect", tmp_path, env={"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "100", "TERM": "xterm"})
    assert "─" in plain.stdout
    assert "\x1b[3" not in plain.stdout


def test_a_damaged_config_does_not_hide_the_tensors(copy: Any, run: Any, run_json: Any) -> None:
    folder = copy("bert/torch-safetensors")
    (folder / "config.json").write_text("{")
    code, document = run_json("inspect", folder)
    assert (code, document["config"], document["totals"]["tensors"]) == (0, None, 46)
    assert "config.json: not valid JSON" in document["config_error"]
    assert "config.json: not valid JSON" in run("inspect", folder).stdout


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.safetensors", b"PK\x03\x04" + b"archive/data.pkl" * 9, "looks like a PyTorch zip archive"),
        ("model.safetensors", b"", "it is empty"),
        ("model.safetensors", (1 << 40).to_bytes(8, "little") + b"{}", "cut off, or no safetensors file"),
        ("pytorch_model.bin", b"x", "is no PyTorch file"),
        ("weights.h5", b"x", "weights.h5, which is another format"),
        ("README.md", b"x", "there is README.md"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_2(name: str, content: bytes, words: str, tmp_path: Path, run: Any) -> None:
    (tmp_path / name).write_bytes(content)
    result = run("inspect", tmp_path)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_debug_shows_the_traceback(tmp_path: Path, run: Any) -> None:
    result = run("inspect", tmp_path / "nothing", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "error: no file or folder" in result.stderr


def test_no_data_is_read(copy: Any, run_json: Any) -> None:
    """The file is cut to a sparse one of the same size: only its header is left."""
    path = copy("bert/torch-safetensors") / "model.safetensors"
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    with path.open("r+b") as file:
        file.truncate(start)
        file.truncate(len(whole))
    code, document = run_json("inspect", path.parent)
    assert (code, document["totals"]["bytes"]) == (0, len(whole) - start)


def test_control_characters_are_escaped(tmp_path: Path, run: Any) -> None:
    save_file({"a": np.zeros(1, np.int64)}, tmp_path / "model.safetensors", metadata={"k": "\x1b[31mred"})
    result = run("inspect", tmp_path)
    assert "\x1b" not in result.stdout
    assert "k=\\x1b[31mred" in result.stdout


def test_fifty_thousand_tensors(tmp_path: Path, run: Any) -> None:
    save_file({f"layers.{i}.weight": np.zeros(1, np.int64) for i in range(50_000)}, tmp_path / "model.safetensors")
    result = run("inspect", tmp_path, env={"FORCE_COLOR": "1"})
    assert "total: 50,000 tensors" in result.stdout
    assert result.stdout.count("\n") > 50_000
