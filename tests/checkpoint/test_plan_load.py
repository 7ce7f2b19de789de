"""The plan of a load: what is matched to what, and what is said of the rest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrained.checkpoint.dtypes import DtypePolicy
from pretrained.checkpoint.plan_load import LoadPlan, Mismatch, ParamSpec, Step, plan_load
from pretrained.checkpoint.rules import Permute, Reshape, Rule
from pretrained.checkpoint.tensors import Entry, num_bytes
from pretrained.errors import ConfigError, MismatchError, PretrainedError, TensorError

FILE = Path("model.safetensors")
FLOAT32 = DtypePolicy("float32")


def entries(*names: str, dtype: str = "float32", shape: tuple[int, ...] = (2,), **others: Any) -> dict[str, Entry]:
    """Entries of one shape; `others` have one of their own, `__` standing for a dot."""
    found = {name: Entry(name, dtype, shape, FILE, 64, num_bytes(shape, dtype)) for name in names}
    for key, other in others.items():
        name = key.replace("__", ".")
        found[name] = Entry(name, dtype, other, FILE, 64, num_bytes(other, dtype))
    return found


def specs(*names: str, dtype: str = "float32", shape: tuple[int, ...] = (2,)) -> list[ParamSpec]:
    return [ParamSpec(name, shape, dtype) for name in names]


def plan(found: dict[str, Entry], wanted: list[ParamSpec], **options: Any) -> LoadPlan:
    return plan_load(found, wanted, options.pop("policy", FLOAT32), source="ckpt", model="Model", **options)


def filled(made: LoadPlan) -> dict[str, str]:
    """Parameter → name of the entry."""
    return {step.param: step.entry.name for step in made.steps}


def test_names_as_they_are() -> None:
    made = plan(entries("a", "b", "x"), specs("a", "b", "c"))
    assert made.steps == [
        Step("a", entries("a")["a"], "float32", (2,)),
        Step("b", entries("b")["b"], "float32", (2,)),
    ]
    assert all(step.is_plain for step in made.steps)
    assert (made.missing, made.unexpected) == (["c"], ["x"])
    assert made.initialise == specs("c")
    assert made.nbytes == 16
    made.check()
    assert not made.conflicts


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (["bert.a", "bert.b.c", "cls.d"], ["a", "b.c"]),
        (["a", "b.c"], ["bert.a", "bert.b.c", "cls.d"]),
        (["bert.a", "b.c"], ["bert.a", "bert.b.c"]),
        (["bert.a", "b.c"], ["a", "b.c"]),
    ],
)
def test_base_and_head_both_ways(found: list[str], wanted: list[str]) -> None:
    made = plan(entries(*found), specs(*wanted), prefix="bert")
    assert {p.removeprefix("bert."): e.removeprefix("bert.") for p, e in filled(made).items()} == {
        "a": "a",
        "b.c": "b.c",
    }
    assert made.missing == [name for name in wanted if name.startswith("cls")]
    assert made.unexpected == [name for name in found if name.startswith("cls")]
    assert not made.conflicts


def test_only_whole_names_match() -> None:
    made = plan(entries("xbert.a", "bert.a.b", "berta"), specs("a", "c"), prefix="bert")
    assert not made.steps
    assert made.unexpected == ["xbert.a", "bert.a.b", "berta"]


def test_both_spellings_are_a_conflict_and_the_plainer_wins() -> None:
    for names in (["a", "bert.a"], ["bert.a", "a"]):
        made = plan(entries(*names), specs("a"), prefix="bert")
        assert filled(made) == {"a": "a"}
        assert made.conflicts == ["bert.a is not used: a is in the checkpoint under a plainer name too"]
        assert not made.unexpected
        with pytest.raises(MismatchError, match=r"bert\.a is not used"):
            made.check(strict=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LayerNorm.gamma", "LayerNorm.weight"),
        ("LayerNorm.beta", "LayerNorm.bias"),
        ("conv.weight_g", "conv.parametrizations.weight.original0"),
        ("conv.weight_v", "conv.parametrizations.weight.original1"),
        ("conv.parametrizations.weight.original0", "conv.weight_g"),
    ],
)
@pytest.mark.parametrize("before", ["", "bert."])
@pytest.mark.parametrize("after", ["", "bert."])
def test_older_spellings(old: str, new: str, before: str, after: str) -> None:
    made = plan(entries(before + old), specs(after + new), prefix="bert")
    assert filled(made) == {after + new: before + old}
    assert not made.unexpected


def test_an_older_spelling_that_is_the_models_own_stays() -> None:
    made = plan(entries("a.gamma"), specs("a.gamma", "a.weight"))
    assert filled(made) == {"a.gamma": "a.gamma"}
    assert made.missing == ["a.weight"]


# Tied weights


TIED = [ParamSpec("emb", (2,), "float32", ("head", "other"))]


@pytest.mark.parametrize("name", ["emb", "head", "other"])
def test_any_of_the_tied_names_is_enough(name: str) -> None:
    made = plan(entries(name), TIED)
    assert filled(made) == {"emb": name}
    assert not (made.missing or made.unexpected or made.twins or made.conflicts)


@pytest.mark.parametrize("names", [["emb", "head", "other"], ["other", "head", "emb"]])
def test_the_own_name_wins_and_the_others_are_compared(names: list[str]) -> None:
    made = plan(entries(*names), TIED)
    assert filled(made) == {"emb": "emb"}
    assert sorted(twin.name for _, twin in made.twins) == ["head", "other"]
    assert not made.conflicts


def test_two_aliases_are_compared_too() -> None:
    made = plan(entries("head", "other"), TIED)
    assert filled(made) == {"emb": "head"}
    assert [(param, twin.name) for param, twin in made.twins] == [("emb", "other")]


# Second names that the file notes


def test_a_noted_name_fills_what_is_missing_with_memory_of_its_own() -> None:
    made = plan(entries("kept"), specs("kept", "noted"), aliases={"noted": "kept"})
    assert filled(made) == {"kept": "kept", "noted": "kept"}
    assert [step.is_copy for step in made.steps] == [False, True]
    assert not (made.missing or made.unexpected or made.conflicts)


def test_a_noted_name_needs_no_copy_when_nobody_else_uses_the_tensor() -> None:
    made = plan(entries("kept"), specs("noted"), aliases={"noted": "kept"})
    assert filled(made) == {"noted": "kept"}
    assert [step.is_copy for step in made.steps] == [False]
    assert made.unexpected == []


def test_two_noted_names_of_a_tensor_that_nobody_else_uses() -> None:
    made = plan(entries("kept"), specs("x", "y"), aliases={"x": "kept", "y": "kept"})
    assert sorted(step.is_copy for step in made.steps) == [False, True]


def test_a_noted_name_of_a_model_that_ties_is_nothing_new() -> None:
    made = plan(entries("emb"), TIED, aliases={"head": "emb"})
    assert filled(made) == {"emb": "emb"}
    assert not (made.steps[0].is_copy or made.twins or made.conflicts)


@pytest.mark.parametrize("aliases", [{"noted": "absent"}, {"nowhere": "kept"}, {"kept": "noted"}, {"format": "kept"}])
def test_notes_that_say_nothing_of_use(aliases: dict[str, str]) -> None:
    made = plan(entries("kept"), specs("kept", "noted"), aliases=aliases)
    assert filled(made) == {"kept": "kept"}
    assert made.missing == ["noted"]
    assert not (made.unexpected or made.conflicts)


def test_noted_names_go_through_prefix_and_rules() -> None:
    made = plan(entries("bert.kept"), specs("kept", "noted"), prefix="bert", aliases={"bert.noted": "bert.kept"})
    assert filled(made) == {"kept": "bert.kept", "noted": "bert.kept"}
    made = plan(entries("k"), specs("k", "n"), rules=[Rule("^old$", "n")], aliases={"old": "k"})
    assert filled(made) == {"k": "k", "n": "k"}


def test_a_noted_name_of_another_shape_is_a_mismatch() -> None:
    made = plan(entries("kept"), [*specs("kept"), *specs("noted", shape=(3,))], aliases={"noted": "kept"})
    assert [m.name for m in made.mismatched] == ["noted"]


# Rules


def test_rules_rename_and_lay_out() -> None:
    rules = [Rule(r"^h\.(\d+)\.w$", r"layers.\1.weight", (Permute((1, 0)),)), Rule("^h", "layers")]
    made = plan(
        entries(h__0__w=(2, 3), h__0__b=(3,), plain=(3,)),
        [
            ParamSpec("layers.0.weight", (3, 2), "float32"),
            ParamSpec("layers.0.b", (3,), "float32"),
            *specs("plain", shape=(3,)),
        ],
        rules=rules,
    )
    assert filled(made) == {"layers.0.weight": "h.0.w", "layers.0.b": "h.0.b", "plain": "plain"}
    assert made.steps[0].ops == (Permute((1, 0)),)
    assert not made.steps[0].is_plain
    assert made.renamed == {"layers.0.weight": "h.0.w", "layers.0.b": "h.0.b"}
    assert not made.mismatched


def test_rules_come_one_after_the_other_and_then_the_prefix() -> None:
    made = plan(entries("x"), specs("bert.z"), rules=[Rule("x", "y"), Rule("y", "z")], prefix="bert")
    assert filled(made) == {"bert.z": "x"}


def test_a_rule_that_does_not_fit_the_shape_is_a_mismatch() -> None:
    for ops in ((Permute((1, 0)),), (Reshape((5,), (5, 1)),)):
        made = plan(entries(x=(4,)), specs("y", shape=(4,)), rules=[Rule("x", "y", ops)])
        assert made.mismatched == [Mismatch("y", (4,), (4,), entries(x=(4,))["x"])]


@pytest.mark.parametrize("names", [["x", "y"], ["y", "x"]])
def test_a_renamed_tensor_that_loses_leaves_no_name_behind(names: list[str]) -> None:
    made = plan(entries(*names), specs("y"), rules=[Rule("^x$", "y")])
    assert filled(made) == {"y": "y"}
    assert made.renamed == {}
    assert made.conflicts == ["x is not used: y is in the checkpoint under a plainer name too"]


# Shapes


def test_all_mismatches_are_in_one_error() -> None:
    made = plan(entries(a=(2, 3), b=(4,), c=(5,), d=()), [
        ParamSpec("a", (3, 2), "float32"), ParamSpec("b", (4,), "float32"), ParamSpec("c", (6,), "float32"),
        ParamSpec("d", (1,), "float32"),
    ])  # fmt: skip
    with pytest.raises(MismatchError) as caught:
        made.check()
    error = caught.value
    assert str(error).splitlines() == [
        "ckpt does not fit Model:",
        "    a: checkpoint [2, 3], model [3, 2]",
        "    c: checkpoint [5], model [6]",
        "    d: checkpoint [], model [1]",
        "Pass ignore_mismatched_sizes=True to initialise these anew.",
    ]
    assert (error.path, error.tensor, error.reason) == (str(FILE), "a", "a: checkpoint [2, 3], model [3, 2]")
    assert len(error.complaints) == 3
    assert filled(made) == {"b": "b"}
    assert [spec.name for spec in made.initialise] == ["a", "c", "d"]
    assert made.missing == []
    made.check(ignore_mismatched_sizes=True)
    with pytest.raises(MismatchError):
        made.check(strict=True, ignore_mismatched_sizes=True)


def test_strict_has_every_complaint() -> None:
    found = entries("a", "extra", "int", m=(9,)) | {"int": Entry("int", "int64", (2,), FILE, 0, 16)}
    made = plan(found, specs("a", "gone", "int", "m"))
    made.check(ignore_mismatched_sizes=True)
    with pytest.raises(MismatchError) as caught:
        made.check(strict=True)
    assert caught.value.complaints == [
        "m: checkpoint [9], model [2]",
        "gone: missing from the checkpoint",
        "extra: not a parameter of the model",
        "int is int64 at rest and float32 in the model",
    ]
    assert all(complaint in str(caught.value) for complaint in caught.value.complaints)
    plan(entries("a"), specs("a")).check(strict=True)


def test_many_complaints_fit_into_the_message() -> None:
    made = plan(
        entries(*(f"n{i}{'x' * 500}" for i in range(500))),
        specs("a", *(f"n{i}{'x' * 500}" for i in range(500)), shape=(3,)),
    )
    with pytest.raises(MismatchError) as caught:
        made.check(strict=True)
    assert len(str(caught.value).encode()) <= 2048
    assert len(caught.value.complaints) == 501
    short = plan(entries(*(f"n{i}" for i in range(500))), specs(*(f"n{i}" for i in range(500)), shape=(3,)))
    with pytest.raises(MismatchError, match="… and 488 more"):
        short.check()


# What matches nothing


def test_a_checkpoint_that_matches_nothing() -> None:
    made = plan(entries("wte", "wpe"), specs("word", "pos"))
    for strict in (False, True):
        with pytest.raises(
            MismatchError, match="ckpt matches no tensor of Model: it holds wte, wpe …; the model wants word, pos"
        ):
            made.check(strict=strict, ignore_mismatched_sizes=True)


def test_an_empty_checkpoint_matches_nothing_either() -> None:
    with pytest.raises(MismatchError, match="it holds no tensors"):
        plan({}, specs("a")).check()
    with pytest.raises(MismatchError, match="matches no tensor"):
        plan(entries("position_ids"), specs("a")).check()


def test_a_model_without_parameters_needs_nothing() -> None:
    plan({}, []).check(strict=True)


# What is passed over


@pytest.mark.parametrize("name", ["a.position_ids", "position_ids", "l.0.rotary_emb.inv_freq", "h.0.attn.masked_bias"])
def test_obsolete_buffers_are_no_news(name: str) -> None:
    made = plan(entries("a", name), specs("a"))
    assert made.unexpected == []
    made.check(strict=True)


@pytest.mark.parametrize("name", ["my_position_ids", "inv_freq", "position_ids.x", "xrotary_emb_inv_freq"])
def test_what_only_looks_obsolete(name: str) -> None:
    assert plan(entries("a", name), specs("a")).unexpected == [name]


def test_an_obsolete_name_that_the_model_has_is_loaded() -> None:
    assert filled(plan(entries("a.position_ids"), specs("a.position_ids"))) == {"a.position_ids": "a.position_ids"}


def test_patterns_of_the_class() -> None:
    made = plan(
        entries("a", "pooler.x", "keep"),
        specs("a", "cls.y", "gone"),
        ignore_missing=[r"^cls\."],
        ignore_unexpected=["pooler"],
    )
    assert (made.missing, made.unexpected) == (["gone"], ["keep"])
    assert [spec.name for spec in made.initialise] == ["cls.y", "gone"]  # initialised all the same


# dtypes


@pytest.mark.parametrize("dtype", ["int8", "int64", "bool", "uint16"])
def test_integers_into_a_floating_parameter(dtype: str) -> None:
    made = plan(entries("a", dtype=dtype), specs("a"))
    assert made.conflicts == [f"a is {dtype} at rest and float32 in the model"]
    assert made.steps[0].dtype == "float32"
    made.check()


@pytest.mark.parametrize("wanted", ["float32", "int64"])
def test_complex_into_anything_real_is_an_error(wanted: str) -> None:
    made = plan(entries("a", dtype="complex64"), specs("a", dtype=wanted))
    with pytest.raises(TensorError, match="tensor a is complex64; the parameter a is real") as caught:
        made.check()
    assert (caught.value.tensor, caught.value.path) == ("a", str(FILE))
    plan(entries("a", dtype="complex64"), specs("a", dtype="complex64")).check(strict=True)


@pytest.mark.parametrize(
    ("found", "wanted", "is_conflict"),
    [
        ("int64", "int64", False),
        ("int32", "int64", False),
        ("bool", "uint8", False),
        ("int64", "int32", True),
        ("int8", "uint8", True),
        ("uint8", "bool", True),
        ("float32", "int64", True),
        ("float32", "bool", True),
    ],
)
def test_integer_parameters_keep_their_dtype(found: str, wanted: str, is_conflict: bool) -> None:
    made = plan(entries("a", dtype=found), specs("a", dtype=wanted), policy=DtypePolicy("float16"))
    assert made.steps[0].dtype == wanted
    assert made.conflicts == ([f"a is {found} at rest and {wanted} in the model"] if is_conflict else [])


def test_floating_parameters_follow_the_policy() -> None:
    policy = DtypePolicy.of({"": "float16", "head": "float64"}, None, [], ["norm"])
    made = plan(
        entries("a", "head.w", "x.norm.w", "n"),
        [*specs("a", "head.w", "x.norm.w"), *specs("n", dtype="float64")],
        policy=policy,
    )
    assert {step.param: step.dtype for step in made.steps} == {
        "a": "float16",
        "head.w": "float64",
        "x.norm.w": "float32",
        "n": "float16",
    }
    assert not any(step.is_plain for step in made.steps if step.dtype != "float32")
    assert not made.conflicts


def test_what_has_no_place_in_a_file_is_not_plain() -> None:
    there = Step("a", Entry("a", "float32", (2,), FILE, -1, 8), "float32", (2,))
    assert not there.is_plain


# Bounds


def test_a_config_that_asks_for_far_more_than_there_is() -> None:
    huge = ParamSpec("huge", (2**20, 2**14), "float32")
    made = plan(entries("a"), [*specs("a"), huge])
    with pytest.raises(ConfigError, match=r"68,719,476,736 bytes .* the largest is huge \[1048576, 16384\]") as caught:
        made.check()
    assert caught.value.tensor == "huge"
    assert caught.value.path == "ckpt"
    plan(entries("a"), [*specs("a"), ParamSpec("head", (2**20, 2**9), "float32")]).check()


def test_a_large_checkpoint_may_lack_a_large_head() -> None:
    body = entries(body=(2**20, 2**11))  # 8 GiB
    plan(body, [ParamSpec("body", (2**20, 2**11), "float32"), ParamSpec("head", (2**20, 2**13), "float32")]).check()


def test_shapes_beyond_any_integer_do_not_matter() -> None:
    with pytest.raises(ConfigError):
        plan(entries("a"), [*specs("a"), ParamSpec("b", (2**62, 2**62), "float32")]).check()


# Properties


NAMES = st.sampled_from(
    [p + n + s for p in ("", "m.", "x.") for n in ("a", "b", "c.d") for s in ("", ".gamma", ".weight", ".position_ids")]
)


@settings(max_examples=300)
@given(
    found=st.dictionaries(
        NAMES,
        st.tuples(st.sampled_from([(2,), (3,), (1, 2)]), st.sampled_from(["float32", "int64", "float16"])),
        max_size=8,
    ),
    wanted=st.dictionaries(NAMES, st.sampled_from([(2,), (3,), (2, 1)]), max_size=6),
    ties=st.dictionaries(NAMES, NAMES, max_size=3),
    rules=st.lists(st.tuples(st.sampled_from(["^x", "a$", r"c\.d"]), st.sampled_from(["m", "b", ""])), max_size=2),
    aliases=st.dictionaries(NAMES, NAMES, max_size=3),
)
def test_the_plan_is_a_partition(
    found: dict[str, tuple[tuple[int, ...], str]],
    wanted: dict[str, tuple[int, ...]],
    ties: dict[str, str],
    rules: list[tuple[str, str]],
    aliases: dict[str, str],
) -> None:
    at_rest = {
        n: Entry(n, dtype, shape, FILE, 64 * i, num_bytes(shape, dtype))
        for i, (n, (shape, dtype)) in enumerate(found.items())
    }
    taken = set(wanted)
    params = []
    for name, shape in wanted.items():
        second = tuple(alias for alias, owner in ties.items() if owner == name and alias not in taken)
        taken |= set(second)
        params.append(ParamSpec(name, shape, "float32", second))
    made = plan(
        at_rest,
        params,
        prefix="m",
        rules=[Rule(*rule) for rule in rules],
        aliases={a: k for a, k in aliases.items() if a not in at_rest},
    )

    # Every parameter is filled or initialised, and not both.
    steps, fresh = [s.param for s in made.steps], [s.name for s in made.initialise]
    assert sorted(steps + fresh) == sorted(wanted)
    assert {m.name for m in made.mismatched} <= set(fresh)
    assert set(made.missing) == set(fresh) - {m.name for m in made.mismatched} - {
        n for n in fresh if ("." + n).endswith(".position_ids")
    }

    # Every tensor is used, refused, unexpected, passed over as obsolete, a twin or in a conflict: exactly one of them.
    used = {s.entry.name for s in made.steps} | {m.entry.name for m in made.mismatched}
    twins = {entry.name for _, entry in made.twins}
    losers = {text.split(" is not used")[0] for text in made.conflicts if " is not used" in text}
    rest = set(at_rest) - used - twins - losers - set(made.unexpected)
    assert all(("." + name).endswith(".position_ids") for name in rest)
    assert not used & set(made.unexpected)
    if not aliases:
        assert len(used) + len(twins) + len(losers) + len(made.unexpected) + len(rest) == len(at_rest)

    # Nobody shares memory: of the steps that read one tensor, all but one copy.
    for name in {s.entry.name for s in made.steps}:
        sharing = [s for s in made.steps if s.entry.name == name]
        assert sum(not s.is_copy for s in sharing) <= 1
        assert len(sharing) == 1 or aliases

    # Shapes and bytes add up.
    assert all(math.prod(s.entry.shape) == math.prod(s.shape) for s in made.steps)
    for strict in (False, True):
        complaint = complaint_of(made, strict)
        assert len(complaint.encode()) <= 2048
        amiss = made.mismatched or (strict and (made.missing or made.unexpected or made.conflicts))
        assert complaint or not amiss


def complaint_of(made: LoadPlan, strict: bool) -> str:
    try:
        made.check(strict=strict)
    except PretrainedError as error:
        return str(error)
    return ""
