"""The commands on what Flax wrote: it is looked at, compared and converted as what torch would have written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from pretrained.checkpoint.formats.msgpack import read_msgpack
from pretrained.cli.root import root

REFERENCE = Path(__file__).parents[1] / "reference"
FORMS = ["flax-msgpack", "flax-msgpack-sharded", "flax-safetensors"]


def run(*words):
    return CliRunner().invoke(root, [str(word) for word in words])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ["bert", "gpt2", "vit"])
def test_no_difference_to_torchs(family, form):
    folder = REFERENCE / family
    done = run("diff", folder / form, folder / "torch-safetensors")
    assert done.exit_code == 0 and done.output.strip().endswith("equal"), done.output
    done = run("diff", folder / "torch-safetensors", folder / form, "--json")
    assert done.exit_code == 0, done.output


def test_a_difference_is_counted_in_torchs_layout(tmp_path):
    source = REFERENCE / "bert" / "flax-msgpack"
    folder = shutil.copytree(source, tmp_path / "bert")
    path = folder / "flax_model.msgpack"
    raw = bytearray(path.read_bytes())
    at = read_msgpack(path).entries["cls/seq_relationship/kernel"].offset + 8
    raw[at : at + 4] = b"\0\0\0\x42"
    path.write_bytes(raw)
    done = run("diff", folder, REFERENCE / "bert" / "torch-safetensors")
    assert done.exit_code == 1
    assert "cls.seq_relationship.weight" in done.output and "float32 [2, 32]  float32 [2, 32]" in done.output
    assert "1 of 64" in done.output


@pytest.mark.parametrize("form", FORMS)
def test_converted_it_is_torchs(tmp_path, form):
    done = run("convert", REFERENCE / "gpt2" / form, tmp_path / "out")
    assert done.exit_code == 0, done.output
    expected = load_file(REFERENCE / "gpt2" / "torch-safetensors" / "model.safetensors")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)


def test_inspect_names_the_arrays():
    done = run("inspect", REFERENCE / "bert" / "flax-msgpack")
    assert done.exit_code == 0 and "46 tensors" in done.output and "format=flax" in done.output
