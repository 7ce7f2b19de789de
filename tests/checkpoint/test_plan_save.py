"""The plan of a save: names, files, and what of an earlier save has to go."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrained.checkpoint.find import is_weight_file
from pretrained.checkpoint.plan_save import SavePlan, Stored, plan_save
from pretrained.errors import SaveError

BIG = 10**12


def stored(
    name: str, size: int = 4, start: int = 0, shape: tuple[int, ...] | None = None, strides: tuple[int, ...] = (1,)
) -> Stored:
    """`size` bytes at `start`; without an address when `start` is 0."""
    return Stored(name, "uint8", shape or (size,), start, start + size if start else 0, strides)


def names_in(plan: SavePlan) -> dict[str, list[str]]:
    return {file: [tensor.name for tensor in shard] for file, shard in plan.shards.items()}


def test_one_file() -> None:
    plan = plan_save([stored("a"), stored("b", 6)], max_shard_size=10)
    assert names_in(plan) == {"model.safetensors": ["a", "b"]}
    assert (plan.index_name, plan.weight_map, plan.total_size) == (None, {}, 10)


def test_shards_are_packed_in_order() -> None:
    plan = plan_save([stored("a", 4), stored("b", 4), stored("c", 4), stored("d", 9), stored("e", 1)], max_shard_size=8)
    assert names_in(plan) == {
        "model-00001-of-00004.safetensors": ["a", "b"],
        "model-00002-of-00004.safetensors": ["c"],
        "model-00003-of-00004.safetensors": ["d"],
        "model-00004-of-00004.safetensors": ["e"],
    }
    assert plan.index_name == "model.safetensors.index.json"
    assert plan.weight_map["d"] == "model-00003-of-00004.safetensors"
    assert plan.total_size == 22


def test_nothing_to_write_is_one_empty_file() -> None:
    assert names_in(plan_save([], max_shard_size=1)) == {"model.safetensors": []}


def test_variants() -> None:
    plan = plan_save([stored("a"), stored("b")], max_shard_size=4, variant="fp16")
    assert sorted(plan.shards) == ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"]
    assert plan.index_name == "model.safetensors.index.fp16.json"
    assert list(plan_save([stored("a")], max_shard_size=4, variant="fp16").shards) == ["model.fp16.safetensors"]


def test_too_many_files() -> None:
    tensors = [stored(f"t{i}", 1) for i in range(100_000)]
    with pytest.raises(SaveError, match="100000 files of 1 bytes; there can be 99999: raise max_shard_size"):
        plan_save(tensors, max_shard_size=1)
    assert len(plan_save(tensors[1:], max_shard_size=1).shards) == 99_999


# One memory, several names


def test_one_name_for_each_memory() -> None:
    plan = plan_save([stored("a", start=100), stored("b", start=200), stored("c", start=100)], max_shard_size=BIG)
    assert names_in(plan) == {"model.safetensors": ["a", "b"]}
    assert plan.aliases == {"c": "a"}
    assert plan.total_size == 8


def test_the_secondary_name_is_not_written() -> None:
    tensors = [stored("head", start=100), stored("emb", start=100), stored("third", start=100)]
    plan = plan_save(tensors, max_shard_size=BIG, secondary=["head"])
    assert names_in(plan) == {"model.safetensors": ["emb"]}
    assert plan.aliases == {"head": "emb", "third": "emb"}
    alone = plan_save(tensors[:1], max_shard_size=BIG, secondary=["head"])
    assert names_in(alone) == {"model.safetensors": ["head"]}
    both = plan_save(tensors[:2], max_shard_size=BIG, secondary=["head", "emb"])
    assert names_in(both) == {"model.safetensors": ["head"]}


def test_tensors_without_memory_are_all_written() -> None:
    plan = plan_save(
        [stored("a"), stored("b"), Stored("c", "uint8", (0,), 5, 5), Stored("d", "uint8", (0,), 5, 5)],
        max_shard_size=BIG,
    )
    assert names_in(plan) == {"model.safetensors": ["a", "b", "c", "d"]}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (stored("a", 8, 100), stored("b", 8, 104)),
        (stored("a", 8, 100), stored("b", 2, 102)),
        (stored("a", 8, 100), stored("b", 4, 100)),
        (stored("a", 8, 100, (2, 4), (4, 1)), stored("b", 8, 100, (4, 2), (2, 1))),
        (stored("a", 8, 100, (2, 4), (4, 1)), stored("b", 8, 100, (4, 2), (1, 4))),
        (stored("a", 8, 100), Stored("b", "int8", (8,), 100, 108, (1,))),
    ],
)
def test_memory_shared_in_part_is_refused(first: Stored, second: Stored) -> None:
    for tensors in ([first, second], [second, first]):
        with pytest.raises(SaveError, match="share memory without being the same tensor") as caught:
            plan_save(tensors, max_shard_size=BIG)
        assert caught.value.tensor in ("a", "b")
        assert "a [" in str(caught.value)
        assert "b [" in str(caught.value)


def test_an_overlap_behind_a_small_neighbour_is_found() -> None:
    with pytest.raises(SaveError, match=r"big .*late|late .*big"):
        plan_save([stored("big", 100, 100), stored("small", 4, 104), stored("late", 50, 190)][::2], max_shard_size=BIG)


def test_neighbours_in_memory_are_fine() -> None:
    plan = plan_save([stored("a", 8, 100), stored("b", 8, 108)], max_shard_size=BIG)
    assert plan.aliases == {}


# What an earlier save left


PRESENT = [
    "README.md",
    "config.json",
    "model.safetensors",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "model.fp16.safetensors",
    "model.fp16-00001-of-00002.safetensors",
    "model.safetensors.index.fp16.json",
    "mymodel.safetensors",
    "model.safetensors.bak",
    "pytorch_model.bin",
    "adapter_model.safetensors",
    "model-1-of-2.safetensors",
]


def test_stale_files_of_the_same_variant() -> None:
    plan = plan_save([stored("a")], max_shard_size=BIG)
    assert sorted(filter(plan.shadows, PRESENT)) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    plan = plan_save([stored("a"), stored("b")], max_shard_size=4)
    assert sorted(filter(plan.shadows, PRESENT)) == ["model.safetensors"]
    plan = plan_save([stored("a")], max_shard_size=BIG, variant="fp16")
    assert sorted(filter(plan.shadows, PRESENT)) == [
        "model.fp16-00001-of-00002.safetensors",
        "model.safetensors.index.fp16.json",
    ]


@pytest.mark.parametrize(
    "name", ["modelXsafetensors", "model.safetensors/..", "x/model.safetensors", "model.safetensors\n"]
)
def test_what_is_not_ours(name: str) -> None:
    assert not is_weight_file(name)


def test_a_variant_with_a_dot_is_no_pattern() -> None:
    assert is_weight_file("model.a.b.safetensors", "a.b")
    assert not is_weight_file("model.aXb.safetensors", "a.b")


# Properties


@given(sizes=st.lists(st.integers(0, 30), max_size=30), limit=st.integers(1, 40))
def test_packing(sizes: list[int], limit: int) -> None:
    tensors = [stored(f"t{i:02}", size) for i, size in enumerate(sizes)]
    plan = plan_save(tensors, max_shard_size=limit)
    assert [tensor for shard in plan.shards.values() for tensor in shard] == tensors
    for shard in plan.shards.values():
        assert sum(tensor.nbytes for tensor in shard) <= limit or [t for t in shard if t.nbytes > limit] == shard[:1]
    groups = list(plan.shards.values())
    for one, following in pairwise(groups):
        assert sum(tensor.nbytes for tensor in one) + following[0].nbytes > limit  # greedy: the next one did not fit
    assert list(plan.shards) == sorted(plan.shards)
    assert plan.total_size == sum(sizes)
    if len(plan.shards) > 1:
        assert plan.weight_map == {t.name: file for file, shard in plan.shards.items() for t in shard}
    assert all(is_weight_file(name) for name in plan.shards)


@given(
    places=st.lists(st.sampled_from([0, 100, 200, 300]), max_size=12),
    secondary=st.sets(st.integers(0, 11)),
    limit=st.integers(1, 40),
)
def test_every_memory_once_and_every_name_somewhere(places: list[int], secondary: set[int], limit: int) -> None:
    tensors = [stored(f"t{i:02}", 8, place) for i, place in enumerate(places)]
    plan = plan_save(tensors, max_shard_size=limit, secondary=[f"t{i:02}" for i in secondary])
    written = [tensor for shard in plan.shards.values() for tensor in shard]
    assert sorted([t.name for t in written] + list(plan.aliases)) == [t.name for t in tensors]
    assert [t.name for t in written] == sorted(t.name for t in written)
    starts = [t.start for t in written if t.start]
    assert len(starts) == len(set(starts))
    by_name = {t.name: t for t in tensors}
    assert all(by_name[alias].start == by_name[kept].start for alias, kept in plan.aliases.items())
    assert set(plan.aliases.values()) <= {t.name for t in written}
    assert plan.total_size == 8 * len(written)


def test_names_are_plain(tmp_path: Path) -> None:
    for name in plan_save([stored("a"), stored("b")], max_shard_size=4).shards:
        assert Path(name).name == name
