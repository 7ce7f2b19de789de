"""GPT-2 in TensorFlow: every head against torch, and every checkpoint of the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tf_cases import check_case, check_reference, check_round_trip, find_tf
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
    """Variable for variable and bit for bit, in one file and in shards."""
    cls = find_tf("gpt2", "GPT2LMHeadModel")
    model = cls.from_pretrained(REFERENCE / "gpt2/tf-h5")
    for folder, size in (("tf-h5", "5GB"), ("tf-h5-sharded", "9kB")):
        model.save_pretrained(tmp_path / folder, safe_serialization=False, max_shard_size=size, durable=False)
        found, wanted = variables_of(tmp_path / folder), variables_of(REFERENCE / "gpt2" / folder)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert np.array_equal(found[name], value), name


def variables_of(folder: Path) -> dict[str, Any]:
    """What the HDF5 files of a folder hold, by its whole name."""
    found: dict[str, Any] = {}
    for path in folder.glob("*.h5"):
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
    return found


@pytest.mark.parametrize("safe", [True, False])
def test_round_trip(safe: bool, tmp_path: Path) -> None:
    check_round_trip(find_tf("gpt2", "GPT2DoubleHeadsModel"), "gpt2", tmp_path, safe=safe, add_cross_attention=True)
