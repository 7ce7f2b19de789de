from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pretrained.errors import ConfigError
from pretrained.models._rope import rope_parameters
from pretrained.pt.rope import RotaryEmbedding, rotate
from pretrained.rotary import frequencies, rotary_dim

CASES: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16},
    {
        "rope_type": "longrope",
        "original_max_position_embeddings": 16,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0, 3.0, 4.0, 5.0],
    },
    {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 3.0,
        "original_max_position_embeddings": 16,
    },
    {"rope_type": "proportional", "partial_rotary_factor": 0.5},
]
EACH = pytest.mark.parametrize("settings", CASES, ids=lambda s: s["rope_type"])


def make(settings: dict[str, Any]) -> RotaryEmbedding:
    return RotaryEmbedding(settings | {"rope_theta": 100.0}, 8, 32)


def test_default_frequencies() -> None:
    found, factor = frequencies(torch, {"rope_type": "default", "rope_theta": 100.0}, 4, 32)
    assert factor == 1
    assert found.tolist() == pytest.approx([1.0, 0.1])


def test_rotation_turns_pairs() -> None:
    x = torch.randn(1, 2, 3, 8)
    cos, sin = make(CASES[0])(torch.arange(3)[None], torch.float32)
    turned = rotate(x, cos, sin)
    for place in range(3):
        for pair in range(4):
            angle = place / 100 ** (pair / 4)
            a, b = x[0, :, place, pair], x[0, :, place, pair + 4]
            first = a * math.cos(angle) - b * math.sin(angle)
            second = b * math.cos(angle) + a * math.sin(angle)
            torch.testing.assert_close(turned[0, :, place, pair], first)
            torch.testing.assert_close(turned[0, :, place, pair + 4], second)


def test_part_of_the_head_may_stay() -> None:
    settings = {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}
    assert rotary_dim(settings, 8) == 4
    x = torch.randn(1, 2, 3, 8)
    turned = rotate(x, *RotaryEmbedding(settings, 8, 32)(torch.arange(3)[None], torch.float32))
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert not torch.equal(turned[..., :4], x[..., :4])


@EACH
def test_products_depend_on_distance_alone(settings: dict[str, Any]) -> None:
    rotary, query, key = make(settings), torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(i: int, j: int) -> float:
        # One call for both, as one sequence: the longest position decides which frequencies are used.
        cos, sin = rotary(torch.tensor([[i, j, 15]]), torch.float32)
        both = rotate(torch.cat((query, key, key), 2), cos, sin)
        return float(both[0, 0, 0] @ both[0, 0, 1])

    assert score(9, 4) == pytest.approx(score(12, 7), abs=1e-4)


@EACH
def test_calls_do_not_remember(settings: dict[str, Any]) -> None:
    rotary, short, long = make(settings), torch.arange(10)[None], torch.arange(50)[None]
    first = rotary(short, torch.float32)
    grown = rotary(long, torch.float32)
    assert torch.equal(rotary(short, torch.float32)[0], first[0])
    same = torch.allclose(grown[0][:, :10], first[0])
    assert same == (settings["rope_type"] not in ("dynamic", "longrope"))


@EACH
def test_tables_survive_casts_and_meta(settings: dict[str, Any]) -> None:
    rotary = make(settings)
    before = {name: buffer.clone() for name, buffer in rotary.named_buffers()}
    assert not rotary.state_dict()
    rotary.to(torch.float16)
    with torch.device("meta"):
        moved = make(settings)
    assert all(buffer.is_meta for buffer in moved.buffers())
    moved.to_empty(device="cpu")
    for name, value in before.items():
        assert torch.equal(rotary.get_buffer(name), value)
        assert torch.equal(moved.get_buffer(name), value)
    assert rotary(torch.arange(3)[None], torch.float16)[0].dtype == torch.float16


@EACH
def test_one_graph_for_every_length(settings: dict[str, Any]) -> None:
    rotary = make(settings)
    compiled = torch.compile(rotary, fullgraph=True, backend="eager", dynamic=True)
    for length in (4, 20, 50):
        places = torch.arange(length)[None]
        torch.testing.assert_close(compiled(places, torch.float32), rotary(places, torch.float32))


def test_default_dtype_of_the_process_is_not_used() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert all(make(settings).inv_freq.dtype == torch.float32 for settings in CASES)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"rope_type": "default", "rope_theta": 10000.0}),
        ({"rope_theta": 5}, {"rope_type": "default", "rope_theta": 5.0}),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_type": "linear", "factor": 2.0}),
        ({"rope_scaling": {"type": "su"}}, {"rope_type": "longrope", "original_max_position_embeddings": 32}),
        ({"rope_theta": 5.0, "rope_parameters": {"rope_theta": 7.0}}, {"rope_type": "default", "rope_theta": 7.0}),
        ({"rope_parameters": {"rope_type": "yarn"}}, {"original_max_position_embeddings": 32}),
        (
            {"rope_scaling": {"rope_type": "yarn"}, "original_max_position_embeddings": 8},
            {"original_max_position_embeddings": 8},
        ),
        ({"partial_rotary_factor": 0.5}, {"partial_rotary_factor": 0.5}),
    ],
)
def test_spellings(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    given = {"max_position_embeddings": 32} | fields
    found = rope_parameters(SimpleNamespace(**given))
    assert expected.items() <= found.items()
    assert "type" not in found
    assert given.get("rope_scaling", {}).get("rope_theta") is None  # the config's own dict is not touched


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope_type": "yarm"}, "rope_type='yarm' is not known. Did you mean 'yarn'"),
        ({"rope_type": "dynamic"}, "rope_type='dynamic' needs factor"),
        ({"rope_type": "longrope"}, "needs original_max_position_embeddings, short_factor, long_factor"),
        (
            {"rope_type": "longrope", "original_max_position_embeddings": 8, "short_factor": [1], "long_factor": [1]},
            "longrope factors must be 4 numbers, found 1",
        ),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(settings)
