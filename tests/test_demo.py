"""The demo's numbers on the real weights, against the reference implementation's."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from pretrained import AutoModel

EXAMPLE = Path(__file__).parents[1] / "examples" / "demo.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected():
    return json.loads((Path(__file__).parent / "reference" / "minilm.json").read_text())


def test_similarities_and_output(demo, expected, minilm, capsys):
    similarities = demo.main(minilm)
    assert (similarities - torch.tensor(expected["similarities"])).abs().max() <= 1e-5
    printed = capsys.readouterr().out
    rows = [line.split()[1:9] for line in printed.splitlines() if line[:4].strip().isdigit() and "." in line]
    assert len(rows) == len(expected["sentences"])
    for row, reference in zip(rows, expected["similarities"], strict=True):
        assert [float(value) for value in row] == pytest.approx(reference, abs=6e-4)
    assert "103 tensors, 90.9 MB mapped" in printed
    assert "weights equal bit for bit, embeddings equal" in printed


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_embeddings(demo, expected, minilm, attention):
    model = AutoModel.from_pretrained(minilm, attn_implementation=attention)
    embeddings = demo.embed(model, demo.tokenize(minilm, expected["sentences"]))
    assert (embeddings - torch.tensor(expected["embeddings"])).abs().max() <= 1e-5
