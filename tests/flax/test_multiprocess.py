"""Two processes with 4 devices each, on one mesh: what each reads and writes, and what a failure leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrained import BertConfig, BertForMaskedLM, FlaxBertForMaskedLM

SCRIPT = Path(__file__).with_name("multiprocess_cases.py")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose wide matrices are split in pieces of more than a page."""
    folder = tmp_path_factory.mktemp("together")
    config = BertConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=4096,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
    )
    torch.manual_seed(0)
    BertForMaskedLM(config).save_pretrained(folder / "old")
    return folder


def run_both(folder: Path, scenario: str) -> list[int]:
    """Exit codes of the two processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    running = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(index), port, folder, scenario],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    if scenario == "together":
        assert [process.returncode for process in running] == [0, 0], said[0][-3000:] + said[1][-3000:]
    return [process.returncode for process in running]


def logits_in_torch(folder: Path) -> np.ndarray:
    ids = torch.arange(2, 34).reshape(4, 8)
    with torch.no_grad():
        return BertForMaskedLM.from_pretrained(folder)(ids).logits.numpy()


def test_they_load_run_and_save_together(checkpoint: Path) -> None:
    run_both(checkpoint, "together")
    expected = logits_in_torch(checkpoint / "old")
    for index in range(2):
        found = json.loads((checkpoint / f"found-{index}.json").read_text())
        assert found["share"] < 0.55 * found["all"]
        assert found["touched"] <= 1.05 * found["share"]
        assert found["touched by a cast"] <= 1.05 * found["share"]
        assert np.abs(np.load(checkpoint / f"logits-{index}.npy") - expected).max() <= 2e-5

    for name in ("new", "shards"):
        assert np.array_equal(logits_in_torch(checkpoint / name), expected)
    # The failed save of shards left what the one before wrote.
    names = sorted(path.name for path in (checkpoint / "new").iterdir())
    assert names == ["config.json", "model.safetensors"]
    assert len(list((checkpoint / "shards").glob("model-*-of-*.safetensors"))) > 2
    FlaxBertForMaskedLM.from_pretrained(checkpoint / "old").save_pretrained(checkpoint / "alone")
    written = [(checkpoint / name / "model.safetensors").read_bytes() for name in ("new", "alone")]
    assert written[0] == written[1]
    assert BertForMaskedLM.from_pretrained(checkpoint / "resized").config.vocab_size == 520
    assert not (checkpoint / "no").exists()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_leaves_the_old_checkpoint(victim: int, checkpoint: Path) -> None:
    before = logits_in_torch(checkpoint / "old")
    codes = run_both(checkpoint, f"die-{victim}")
    assert codes[victim] == -signal.SIGKILL
    assert np.array_equal(logits_in_torch(checkpoint / "old"), before)
    assert sorted(path.name for path in (checkpoint / "old").iterdir()) == ["config.json", "model.safetensors"]
    if victim == 1:  # without the first process the other is ended by JAX
        assert "another of the 2 processes is gone" in (checkpoint / "said").read_text()
