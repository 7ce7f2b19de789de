"""Which part of a model goes where: the arithmetic alone, without a framework."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrained._types import CPU, DISK, Device
from pretrained.checkpoint.devices import STRATEGIES, Layout, Placement, device_from, plan_placement
from pretrained.checkpoint.devices_fill import available_memory, balance, fill
from pretrained.checkpoint.dtypes import DtypePolicy
from pretrained.checkpoint.plan_load import ParamSpec
from pretrained.errors import InvalidOptionError
from pretrained.options import PlacementOptions, split_load_options

FP32 = DtypePolicy("float32")


def modules_of(specs: list[ParamSpec], others: Iterable[str] | None = None) -> dict[str, str]:
    """Every module that the names of tensors imply; a class of its own for each depth."""
    names = [name for spec in specs for name in (spec.name, *spec.aliases)]
    names += others or ()
    found = {"": "Model"}
    for name in names:
        parts = name.split(".")[:-1]
        for depth in range(1, len(parts) + 1):
            found.setdefault(".".join(parts[:depth]), f"Depth{depth}")
    return found


def decoder(layers: int = 4, width: int = 10, vocab: int = 50, *, tied: bool = True) -> list[ParamSpec]:
    """Embeddings, layers of two matrices and a norm, a last norm, a head; sizes in numbers of float32."""
    specs = [ParamSpec("model.embed.weight", (vocab, width), "float32", ("lm_head.weight",) if tied else ())]
    for i in range(layers):
        specs += [
            ParamSpec(f"model.layers.{i}.attn.weight", (width, width), "float32"),
            ParamSpec(f"model.layers.{i}.mlp.weight", (width, width), "float32"),
            ParamSpec(f"model.layers.{i}.norm.weight", (width,), "float32"),
        ]
    specs.append(ParamSpec("model.norm.weight", (width,), "float32"))
    return specs if tied else [*specs, ParamSpec("lm_head.weight", (vocab, width), "float32")]


LAYER, EMBED = 4 * 210, 4 * 500
NO_SPLIT = frozenset({"Depth3"})  # model.layers.N


def place(
    device_map: Any,
    specs: list[ParamSpec] | None = None,
    memory: Mapping[Any, int] | None = None,
    policy: DtypePolicy = FP32,
    free: Mapping[Device, int] | None = None,
    **more: Any,
) -> Placement:
    specs = decoder() if specs is None else specs
    layout = Layout(modules_of(specs, more.get("transient")), no_split=NO_SPLIT, **more)
    options, _ = split_load_options({"device_map": device_map, "max_memory": memory})
    return plan_placement(options.placement, layout, specs, policy, lambda: free or {CPU: 10**12})


# What strategies do


def test_everything_on_the_one_device_that_holds_it() -> None:
    assert place("auto", free={0: 10**9, CPU: 10**9}).devices == {"": 0}
    assert place("auto").devices == {"": CPU}
    assert not place("auto").is_spread


def test_sequential_fills_one_device_after_the_other() -> None:
    placement = place("sequential", memory={0: EMBED + 2 * LAYER, 1: 10**6, CPU: 10**6})
    assert placement.devices == {
        "model.embed": 0,
        "lm_head": 0,
        "model.layers.0": 0,
        "model.layers.1": 0,
        "model.layers.2": 1,
        "model.layers.3": 1,
        "model.norm": 1,
    }
    assert placement.main == 0
    assert placement.is_spread


@pytest.mark.parametrize("strategy", ["auto", "balanced"])
def test_balanced_devices_carry_about_the_same(strategy: str) -> None:
    specs = decoder(layers=12, vocab=21, tied=False)  # as large as a layer
    carried = loads(place(strategy, specs, {0: 10**6, 1: 10**6, 2: 10**6}), specs)
    assert max(carried.values()) - min(carried.values()) <= LAYER
    assert set(carried) == {0, 1, 2}


def test_balanced_low_0_leaves_the_first_device_for_others() -> None:
    specs = decoder(layers=12, tied=False)
    carried = loads(place("balanced_low_0", specs, {0: 10**6, 1: 10**6, 2: 10**6}), specs)
    assert set(carried) == {1, 2}
    tight = loads(place("balanced_low_0", specs, {0: 10**6, 1: 6 * LAYER, 2: 6 * LAYER}), specs)
    assert 0 < tight[0] < min(tight[1], tight[2])


def test_what_does_not_fit_goes_to_the_cpu_and_then_to_disk() -> None:
    specs = decoder(layers=6)
    placement = place("auto", specs, {0: EMBED + 6 * LAYER, CPU: 2 * LAYER})
    carried = loads(placement, specs)
    assert set(carried) == {0, CPU, DISK}
    # Room for the largest module that has to come in while it runs.
    assert carried[0] <= EMBED + 6 * LAYER - EMBED
    assert placement.main == 0


def test_a_device_that_is_not_named_is_not_used() -> None:
    placement = place("auto", memory={0: EMBED + LAYER})
    assert set(placement.devices.values()) <= {0, DISK}
    assert set(place("auto", memory={0: 0, CPU: 10**9}).devices.values()) == {CPU}


def test_without_accelerators_the_rest_goes_to_disk() -> None:
    placement = place("auto", memory={CPU: EMBED + LAYER})
    assert placement.main == CPU
    assert placement.devices["model.layers.0"] == CPU
    assert placement.devices["model.layers.3"] == DISK


def test_tied_tensors_stay_together_and_count_once() -> None:
    placement = place("sequential", memory={0: EMBED + LAYER, 1: 10**6})
    assert placement.device_of("lm_head") == placement.device_of("model.embed") == 0
    assert placement.device_of("model.layers.0.attn.weight") == 0


def test_the_dtype_of_the_policy_is_what_counts() -> None:
    memory = {0: EMBED // 2 + 2 * LAYER + 100, CPU: 10**6}
    assert place("auto", memory=memory, policy=DtypePolicy("bfloat16")).devices == {"": 0}
    assert set(place("auto", memory=memory).devices.values()) == {0, CPU}


def test_modules_that_stay_whole() -> None:
    placement = place("auto", decoder(layers=3), {CPU: EMBED + LAYER + 420})
    assert {placement.device_of(f"model.layers.1.{part}.weight") for part in ("attn", "mlp", "norm")} == {DISK}
    assert "model.layers.1" in placement.blocks
    assert "model.layers.1.attn" not in placement.blocks


def test_a_module_with_tensors_of_its_own_is_split_for_one_device_only() -> None:
    specs = [ParamSpec("enc.token", (10,), "float32"), ParamSpec("enc.a.weight", (10,), "float32")]
    specs.append(ParamSpec("enc.b.weight", (10,), "float32"))
    assert place("auto", specs, {CPU: 80}).devices == {"enc.token": CPU, "enc.a": CPU, "enc.b": DISK}
    assert place("auto", specs, {0: 80, 1: 120}).devices == {"": 1}


def test_no_room_on_disk_either() -> None:
    with pytest.raises(InvalidOptionError, match=r"max_memory has no room: .* left for the disk, which may take 100"):
        place("auto", memory={CPU: LAYER, DISK: 100})


# Buffers


def test_buffers_of_what_is_offloaded_stay_where_it_runs() -> None:
    specs = [*decoder(), ParamSpec("model.layers.3.count", (), "int64")]
    more: dict[str, Any] = {"buffers": frozenset({"model.layers.3.count"}), "transient": {"model.rope.freq": 8}}
    placement = place("auto", specs, {0: EMBED + 4 * LAYER, CPU: 10**6}, **more)
    stamped = {spec.name: spec.device for spec in placement.stamp(specs)}
    assert stamped["model.layers.3.norm.weight"] == CPU
    assert stamped["model.layers.3.count"] == 0
    away = plan_placement(
        PlacementOptions("auto", {0: EMBED + 4 * LAYER, CPU: 10**6}, offload_buffers=True),
        Layout(modules_of(specs, more["transient"]), no_split=NO_SPLIT, **more),
        specs,
        FP32,
        dict,
    )
    assert {spec.name: spec.device for spec in away.stamp(specs)}["model.layers.3.count"] == CPU


def test_a_buffer_that_no_checkpoint_has_needs_no_device() -> None:
    placement = place({"model": 0, "lm_head": 0}, transient={"rope.freq": 8})
    assert placement.devices == {"": 0}


# What is given


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("cpu", {"": CPU}),
        (0, {"": 0}),
        ("cuda:1", {"": "cuda:1"}),
        ({"": "disk"}, {"": DISK}),
        ({"": 1, "lm_head": 1}, {"": 1}),
        (
            {"": 0, "model.layers.1": CPU},
            {
                "model.embed": 0,
                "lm_head": 0,
                "model.norm": 0,
                **{f"model.layers.{i}": CPU if i == 1 else 0 for i in range(4)},
            },
        ),
        (
            {"model.embed": 0, "model.layers": DISK, "model.norm": 1},
            {"model.embed": 0, "lm_head": 0, "model.layers": DISK, "model.norm": 1},
        ),
    ],
)
def test_maps_and_devices(given: Any, expected: dict[str, Device]) -> None:
    placement = place(given)
    assert placement.devices == expected
    assert placement.shown == (given if isinstance(given, dict) else expected)


def test_a_tied_name_follows_the_one_it_is_tied_to() -> None:
    placement = place({"model": 0, "lm_head": DISK})
    assert placement.device_of("lm_head.weight") == 0
    assert place({"model": 0}).devices == {"": 0}


def test_every_fault_of_a_map_at_once() -> None:
    with pytest.raises(InvalidOptionError) as caught:
        place({"model.layer": 0, "model.embed": 0, "modle.norm": 1})
    text = str(caught.value)
    assert "no module 'model.layer'; did you mean 'model.layers'?" in text
    assert "no module 'modle.norm'; did you mean 'model.norm'?" in text
    assert "no device for model.layers.0.attn" in text
    assert '"" stands for all that is not named' in text
    assert caught.value.key == "device_map"
    assert len(caught.value.complaints) == 2 + 4 * 3 + 1
    assert "and 7 more" in text


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "", "cuda:", "CPU", b"cpu", ("cuda", 0), "two words"])
def test_no_device(wrong: Any) -> None:
    with pytest.raises(InvalidOptionError, match="device_map") as caught:
        place(wrong)
    assert caught.value.key == "device_map"
    with pytest.raises(InvalidOptionError, match=r"device_map\['model'\]: .* is no device; give a number"):
        place({"model": wrong})


def test_a_map_of_something_else() -> None:
    with pytest.raises(InvalidOptionError, match="device_map: 3 is no name of a module"):
        place({3: "cpu"})


def test_a_word_that_is_no_strategy_is_taken_for_a_device() -> None:
    assert place("meta").devices == {"": "meta"}
    with pytest.raises(InvalidOptionError, match="give a device, module → device, or one of auto, balanced"):
        place("Balanced")


def test_device_objects() -> None:
    class Like:
        def __str__(self) -> str:
            return "cuda:3"

    assert device_from(Like()) == "cuda:3"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("10GB", "max_memory is a dict"),
        ({0: "ten"}, r"max_memory\[0\]: 'ten' is no size"),
        ({0: -1}, r"max_memory\[0\]: a size must be positive"),
        ({0: False}, r"max_memory\[0\]: False is no size"),
    ],
)
def test_no_limits(given: Any, reason: str) -> None:
    with pytest.raises(InvalidOptionError, match=reason) as caught:
        place("auto", memory=given)
    assert caught.value.key == "max_memory"


def test_limits_as_text() -> None:
    options, _ = split_load_options({"device_map": "auto", "max_memory": {0: "1GiB", 1: "0GB", "cpu": 7}})
    assert options.placement.max_memory == {0: 2**30, 1: 0, "cpu": 7}


# Properties


def loads(placement: Placement, specs: list[ParamSpec]) -> dict[Device, int]:
    """Bytes on each device."""
    found: dict[Device, int] = {}
    for spec in specs:
        device = placement.device_of(spec.name)
        size = 4
        for dim in spec.shape:
            size *= dim
        found[device] = found.get(device, 0) + size
    return found


@st.composite
def models(draw: st.DrawFn) -> list[ParamSpec]:
    sizes = st.integers(0, 40)
    specs = []
    for i in range(draw(st.integers(1, 8))):
        for part in draw(st.lists(st.sampled_from(["a", "b", "c.d", "c.e"]), min_size=1, unique=True)):
            specs.append(ParamSpec(f"x{i % 3}.{i}.{part}.w", (draw(sizes),), "float32"))
    for own in draw(st.lists(st.sampled_from(["w", "x0.w", "x1.w"]), unique=True)):
        specs.append(ParamSpec(own, (draw(sizes),), "float32"))
    if draw(st.booleans()):
        first = draw(st.integers(0, len(specs) - 1))
        specs[first] = specs[first]._replace(aliases=("head.w",))
    return specs


LIMITS = st.dictionaries(st.sampled_from([0, 1, 2, CPU]), st.integers(0, 2000), min_size=1)


@given(models(), LIMITS, st.sampled_from(STRATEGIES), st.sets(st.sampled_from(["Depth1", "Depth2", "Depth3"])))
def test_every_tensor_has_one_device_and_no_limit_is_passed(
    specs: list[ParamSpec], limits: dict[Device, int], strategy: str, no_split: set[str]
) -> None:
    layout = Layout(modules_of(specs), no_split=frozenset(no_split))
    placement = plan_placement(PlacementOptions(strategy, limits), layout, specs, FP32, dict)
    names = [name for spec in specs for name in (spec.name, *spec.aliases)]
    for name in names:
        above = [key for key in placement.devices if key in ("", name) or name.startswith(key + ".")]
        assert len(above) == 1, (name, above)
    for spec in specs:
        assert {placement.device_of(name) for name in spec.aliases} <= {placement.device_of(spec.name)}
    for device, size in loads(placement, specs).items():
        assert device == DISK or size <= limits[device] or size == 0
    for module, kind in layout.modules.items():
        if kind in no_split:
            assert len({placement.device_of(name) for name in names if name.startswith(module + ".")}) <= 1, module


@given(st.lists(st.integers(0, 100), max_size=20), st.integers(2, 4), st.sampled_from(["auto", "balanced_low_0"]))
def test_balancing_never_makes_what_fits_unfit(sizes: list[int], count: int, strategy: str) -> None:
    runners: list[Device] = [*range(count)]
    limits: dict[Device, int] = dict.fromkeys(runners, sum(sizes) // count + 60)
    before, after = fill(sizes, limits, runners), fill(sizes, balance(strategy, sizes, limits, runners), runners)
    assert (set(before) <= set(runners)) == (set(after) <= set(runners))
    if strategy == "auto" and set(after) <= set(runners) and sizes:
        heaviest = max(sum(s for s, d in zip(sizes, after, strict=True) if d == runner) for runner in runners)
        assert heaviest <= sum(sizes) / count + max(sizes)


def test_there_is_memory() -> None:
    assert 2**20 < available_memory() < 2**50
