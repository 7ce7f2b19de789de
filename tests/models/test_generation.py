"""Every way to generate, of every family, against what the reference implementation generated."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generation_cases import run
from generation_live import build, generating

import pretrained

with np.load(Path(__file__).parents[1] / "reference" / "generation" / "expected.npz") as arrays:
    EXPECTED = {name: arrays[name] for name in arrays.files}
NAMES = sorted({tuple(name.split("/")[:2]) for name in EXPECTED})


@cache
def models(family: str) -> tuple[Any, Any]:
    return build(family, generating()[family])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("family", "case"), NAMES)
def test_equal(family, case):
    found = run(pretrained, *models(family), case)
    expected = {name.split("/")[2]: value for name, value in EXPECTED.items() if name.startswith(f"{family}/{case}/")}
    for field, value in expected.items():
        mine = found[field][[0, -1], 0, :16] if field == "scores" else found[field]
        if value.dtype.kind in "ui":
            assert torch.equal(mine, torch.from_numpy(value).to(mine.dtype)), field
        else:
            torch.testing.assert_close(mine, torch.from_numpy(value), atol=2e-4, rtol=1e-4)
