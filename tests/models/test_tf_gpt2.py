"""GPT-2 in TensorFlow: every head against torch, and every checkpoint of the reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tf_cases import check_case, check_h5, check_reference, check_round_trip, find_tf
from tiny import REFERENCE

CASES = json.loads((REFERENCE / "gpt2_heads/cases.json").read_text())["cases"]
CASES = sorted(name for name, case in CASES.items() if "num_items_in_batch" not in case["inputs"])  # torch's alone
FOLDERS = sorted(path.name for path in (REFERENCE / "gpt2").iterdir() if path.is_dir())


@pytest.mark.parametrize("case", CASES)
def test_heads(case: str) -> None:
    check_case("gpt2", case)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_format(folder: str) -> None:
    check_reference("gpt2", "GPT2Model", folder)
    check_reference("gpt2", "GPT2LMHeadModel", folder)


def test_h5_is_laid_out_as_transformers_does(tmp_path: Path) -> None:
    check_h5("gpt2", "GPT2LMHeadModel", tmp_path)


@pytest.mark.parametrize("safe", [True, False])
def test_round_trip(safe: bool, tmp_path: Path) -> None:
    check_round_trip(find_tf("gpt2", "GPT2DoubleHeadsModel"), "gpt2", tmp_path, safe=safe, add_cross_attention=True)
