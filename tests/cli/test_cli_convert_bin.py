"""convert from torch's own format: the tied names of a .bin are one tensor in safetensors."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from safetensors.torch import load_file

from pretrained.cli.root import root

REFERENCE = Path(__file__).parents[1] / "reference" / "bert"


def test_bin_becomes_safetensors(tmp_path):
    source, target = REFERENCE / "torch-bin-sharded", tmp_path / "out"
    done = CliRunner().invoke(root, ["convert", str(source), str(target)])
    assert done.exit_code == 0, done.output
    expected = load_file(REFERENCE / "torch-safetensors" / "model.safetensors")
    found = load_file(target / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)
    done = CliRunner().invoke(root, ["diff", str(target), str(REFERENCE / "torch-safetensors")])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(root, ["verify", str(source)])
    assert done.exit_code == 0, done.output
