"""BERT in TensorFlow: every head against torch, and every checkpoint of the reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tf_cases import check_case, check_h5, check_reference, check_round_trip, find_tf
from tiny import REFERENCE

CASES = sorted(json.loads((REFERENCE / "bert_heads/cases.json").read_text())["cases"])
FOLDERS = sorted(path.name for path in (REFERENCE / "bert").iterdir() if path.is_dir())


@pytest.mark.parametrize("case", CASES)
def test_heads(case: str) -> None:
    check_case("bert", case)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_format(folder: str) -> None:
    check_reference("bert", "BertModel", folder)
    if folder != "torch-base-only":
        check_reference("bert", "BertForPreTraining", folder)


def test_h5(tmp_path: Path) -> None:
    check_h5("bert", "BertForPreTraining", tmp_path)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}], ids=["tied", "untied"])
def test_round_trip(tmp_path: Path, safe: bool, changes: dict[str, bool]) -> None:
    check_round_trip(find_tf("bert", "BertForPreTraining"), "bert", tmp_path, safe, **changes)
