from __future__ import annotations

import json

import pytest
import torch
from drawn_cases import run_drawn
from tiny import REFERENCE, pick
CASES = sorted(json.loads((REFERENCE / "wav2vec2_heads/cases.json").read_text())["cases"])
BOTH = pytest.mark.parametrize("attention", ["eager", "sdpa"])
@BOTH
@pytest.mark.parametrize("case", CASES)
def test_heads(case: str, attention: str) -> None:
    output, expected = run_drawn("wav2vec2", case, attention)
    assert expected
    for name, value in expected.items():
        print(case, name, (pick(output,name)-value).abs().max().item(), value.abs().max().item())
        torch.testing.assert_close(pick(output, name), value, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
