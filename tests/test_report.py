"""Reports: names that compare as people expect, and the table people read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrained.report import Keys, LoadReport, SaveReport, human_bytes

NAMES = st.lists(st.text(max_size=5), max_size=6)


@given(NAMES)
def test_keys_equal_lists_tuples_and_sets(names: list[str]) -> None:
    keys = Keys(names)
    assert keys == names == keys
    assert keys == list(reversed(names))
    assert keys == tuple(names)
    assert keys == Keys(reversed(names))
    assert list(keys) == sorted(names)
    assert (keys == set(names)) == (len(set(names)) == len(names))
    assert (set(names) == keys) == (len(set(names)) == len(names))
    assert keys != [*names, "more"]
    assert (keys != names) is False


def test_keys_are_not_equal_to_other_things() -> None:
    assert Keys(["a"]) != ["b"]
    assert Keys(["a", "b"]) != ["a", 3]
    assert Keys(["a"]) != [("a", (1,), (2,))]
    assert Keys() == [] == Keys()
    assert Keys() == set()
    assert Keys(["a"]) != "a"
    assert Keys(["a"]) != {"a": 1}


def test_keys_take_away() -> None:
    assert Keys(["a", "b", "c"]) - {"b"} == ["a", "c"]
    assert set(Keys(["a", "b"])) == {"a", "b"}


def test_keys_are_mutable_and_so_not_hashable() -> None:
    with pytest.raises(TypeError):
        hash(Keys(["a"]))


def a_report() -> LoadReport:
    return LoadReport(
        missing_keys=Keys(["head.weight"]),
        unexpected_keys=Keys([f"old.{i}" for i in range(30)]),
        mismatched_keys=Keys([("emb", (2, 3), (4, 3)), ("scalar", (), (1,))]),
        conflicts=["a.x is tied to a.y and differs"],
        num_loaded=7,
        bytes_read=10,
        bytes_mapped=2_000_000,
        seconds={"find": 0.5, "read": 0.25},
        source="here",
        model="BertModel",
    )


def test_the_report_is_a_mapping() -> None:
    report = a_report()
    assert report["missing_keys"] == {"head.weight"}
    assert report["mismatched_keys"] == [("scalar", (), (1,)), ("emb", (2, 3), (4, 3))]
    assert report["error_msgs"] == []
    assert {"missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"} <= set(report)
    assert len(report) == len(list(report)) == len(dict(report))
    with pytest.raises(KeyError):
        report["nothing"]
    with pytest.raises(KeyError):
        report["render"]


def test_the_table() -> None:
    lines = a_report().render(max_rows=3).splitlines()
    assert lines[0] == "BertModel from here: 7 tensors, 2.0 MB mapped, 10 B read, 750.0 ms"
    assert lines[1:3] == ["  1 missing (newly initialised; train before use):", "    head.weight"]
    assert lines[3] == "  30 unexpected (not used):"
    assert lines[7] == "    … and 27 more"
    assert "    emb: checkpoint 2×3, model 4×3" in lines
    assert "    scalar: checkpoint scalar, model 1" in lines
    assert lines[-1] == "    a.x is tied to a.y and differs"


def test_a_clean_report_is_one_line() -> None:
    report = LoadReport(num_loaded=1, source="s", model="M")
    assert report.is_clean
    assert "\n" not in report.render()


@pytest.mark.parametrize("field", ["missing_keys", "unexpected_keys", "mismatched_keys", "conflicts"])
def test_anything_amiss_is_not_clean(field: str) -> None:
    entry: object = ("n", (1,), (2,)) if field == "mismatched_keys" else "n"
    assert not LoadReport(**{field: Keys([entry])}).is_clean


def test_hostile_names_are_escaped() -> None:
    text = LoadReport(missing_keys=Keys(["a\x1b[31m" + "x" * 5000]), source="\x00").render()
    assert "\x1b" not in text
    assert "\x00" not in text
    assert len(text) < 1000


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (90_900_000, "90.9 MB"),
        (5 * 10**9, "5.0 GB"),
        (2 * 10**12, "2.00 TB"),
    ],
)
def test_human_bytes(count: int, text: str) -> None:
    assert human_bytes(count) == text


def test_save_report_defaults_are_its_own() -> None:
    first, second = SaveReport(), SaveReport()
    first.files["x"] = 1
    assert second.files == {}
