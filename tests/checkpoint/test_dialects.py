from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrained.checkpoint.compare import compare
from pretrained.checkpoint.convert import convert
from pretrained.checkpoint.dialects import DIALECTS, Place, dialect_of, translate
from pretrained.checkpoint.find import Weights, find_checkpoint
from pretrained.checkpoint.rules import Op, Permute, Reshape, apply_ops
from pretrained.checkpoint.tensors import Entry
from pretrained.hub.ref import resolve
from pretrained.options import SourceOptions, WeightOptions

REFERENCE = Path(__file__).parents[1] / "reference"


class Held:
    """A container of names and shapes."""

    path = Path("held")
    stamp = None

    def __init__(self, shapes: dict[str, tuple[int, ...]], **metadata: str) -> None:
        self.metadata = metadata
        self.entries = {name: Entry(name, "float32", shape, self.path, 0, 0) for name, shape in shapes.items()}

    def read(self, entry: Entry) -> Any:
        raise NotImplementedError


DENSE, CONV_1D, CONV_2D = (Permute((1, 0)),), (Permute((2, 1, 0)),), (Permute((3, 2, 0, 1)),)


@pytest.mark.parametrize(
    ("dialect", "name", "shape", "expected", "ops"),
    [
        (
            "tf",
            "bert/encoder/layer_._0/output/dense/kernel:0",
            (3, 4),
            "bert.encoder.layer.0.output.dense.weight",
            DENSE,
        ),
        ("tf", "bert/embeddings/LayerNorm/gamma:0", (4,), "bert.embeddings.LayerNorm.weight", ()),
        ("tf", "bert/embeddings/LayerNorm/beta:0", (4,), "bert.embeddings.LayerNorm.bias", ()),
        ("tf", "bert/embeddings/word_embeddings/weight:0", (9, 4), "bert.embeddings.word_embeddings.weight", ()),
        (
            "tf",
            "bert/embeddings/position_embeddings/embeddings:0",
            (9, 4),
            "bert.embeddings.position_embeddings.weight",
            (),
        ),
        ("tf", "mlm___cls/predictions/bias:0", (9,), "cls.predictions.bias", ()),
        ("tf", "a/nsp___cls/seq_relationship/bias:0", (2,), "a.cls.seq_relationship.bias", ()),
        (
            "tf",
            "transformer/h_._0/attn/c_attn/bias:0",
            (1, 96),
            "transformer.h.0.attn.c_attn.bias",
            (Reshape((1, 96), (96,)),),
        ),
        ("tf", "transformer/h_._0/attn/c_attn/weight:0", (32, 96), "transformer.h.0.attn.c_attn.weight", ()),
        ("tf", "vit/embeddings/cls_token:0", (1, 1, 4), "vit.embeddings.cls_token", ()),
        (
            "tf",
            "vit/embeddings/patch_embeddings/projection/kernel:0",
            (5, 5, 3, 4),
            "vit.embeddings.patch_embeddings.projection.weight",
            CONV_2D,
        ),
        ("tf", "w/conv_layers.0/conv/kernel:0", (10, 1, 4), "w.conv_layers.0.conv.weight", CONV_1D),
        ("tf", "w/conv/weight_g:0", (16, 1, 1), "w.conv.weight_g", CONV_1D),
        ("tf", "w/bn/moving_mean:0", (4,), "w.bn.running_mean", ()),
        ("tf", "shared/embeddings:0@encoder", (9, 4), "shared.weight", ()),
        ("tf", "bert/encoder/layer_._0/output/dense/kernel", (3, 4), "bert.encoder.layer.0.output.dense.weight", DENSE),
        ("flax", "bert/encoder/layer/0/output/dense/kernel", (3, 4), "bert.encoder.layer.0.output.dense.weight", DENSE),
        ("flax", "bert.embeddings.word_embeddings.embedding", (9, 4), "bert.embeddings.word_embeddings.weight", ()),
        ("flax", "params/bn/scale", (4,), "bn.weight", ()),
        ("flax", "params/bn/mean", (4,), "bn.mean", ()),
        ("flax", "batch_stats/bn/mean", (4,), "bn.running_mean", ()),
        ("flax", "batch_stats/bn/var", (4,), "bn.running_var", ()),
        (
            "tf1",
            "bert/encoder/layer_11/attention/self/query/kernel",
            (4, 4),
            "bert.encoder.layer.11.attention.self.query.weight",
            DENSE,
        ),
        ("tf1", "bert/embeddings/token_type_embeddings", (2, 4), "bert.embeddings.token_type_embeddings.weight", ()),
        ("tf1", "cls/predictions/output_bias", (9,), "cls.predictions.bias", ()),
        ("tf1", "cls/seq_relationship/output_weights", (2, 4), "cls.seq_relationship.weight", ()),
        ("tf1", "bert/pooler/dense/kernel/adam_m", (4, 4), None, ()),
        ("tf1", "global_step", (), None, ()),
        ("tf1", "model/h0/attn/c_attn/w", (1, 4, 12), "h.0.attn.c_attn.weight", (Reshape((1, 4, 12), (4, 12)),)),
        ("tf1", "model/h10/ln_1/g", (4,), "h.10.ln_1.weight", ()),
        ("tf1", "model/wte", (9, 4), "wte.weight", ()),
    ],
)
def test_names(dialect: str, name: str, shape: tuple[int, ...], expected: str | None, ops: tuple[Op, ...]) -> None:
    assert DIALECTS[dialect](name, shape, {}) == (None if expected is None else Place(expected, ops))


@pytest.mark.parametrize(
    ("names", "metadata", "expected"),
    [
        (["a.weight"], {"format": "pt"}, "pt"),
        (["a.weight"], {"format": "mlx"}, "pt"),
        (["a.weight"], {}, "pt"),
        (["a/kernel:0", "b/gamma:0"], {}, "tf"),
        (["a/kernel:0", "b.weight"], {}, "pt"),
        (["a.kernel", "b.scale"], {}, "flax"),
        (["a.kernel", "b.weight"], {}, "pt"),
        (["a.kernel", "b.scale"], {"format": "pt"}, "pt"),
        ([], {}, "pt"),
    ],
)
def test_dialect(names: list[str], metadata: dict[str, str], expected: str) -> None:
    assert dialect_of(Held(dict.fromkeys(names, (2, 2)), **metadata)) == expected


def test_own_names_are_not_translated() -> None:
    assert translate([Held({"a.kernel": (2, 3)}, format="pt")]) is None


def test_what_is_at_rest_twice_is_noted() -> None:
    found = translate([Held({"e/shared/embeddings:0": (2, 3), "e/shared/weight:0": (2, 3)}, format="tf")])
    assert found is not None
    assert list(found.entries) == ["e.shared.weight"]
    assert [(name, entry.name) for name, entry in found.twins] == [("e.shared.weight", "e/shared/weight:0")]


def opened(folder: Path) -> Weights:
    return find_checkpoint(resolve(folder, SourceOptions()), WeightOptions())


def array(weights: Weights, name: str) -> Any:
    entry = weights.entries[name]
    return apply_ops(weights.layouts.get(name, ()), weights.containers[entry.file].read(entry))


@pytest.mark.parametrize("dialect", ["tf", "flax"])
@pytest.mark.parametrize("family", ["bert"])
def test_two_dialects_compare_equal(family: str, dialect: str) -> None:
    found = compare(
        opened(REFERENCE / family / "torch-safetensors"), opened(REFERENCE / family / f"{dialect}-safetensors")
    )
    assert {diff.kind for diff in found} == {"equal"}


@pytest.mark.parametrize("dialect", ["tf", "flax"])
@pytest.mark.parametrize("family", ["bert"])
def test_converted_is_torch(family: str, dialect: str, tmp_path: Path) -> None:
    torch, other = (opened(REFERENCE / family / f"{name}-safetensors") for name in ("torch", dialect))
    report = convert(other, tmp_path, durable=False)
    assert report.num_tensors == len(torch.entries) and report.renamed
    written = opened(tmp_path)
    assert written.layouts == {} and {c.metadata["format"] for c in written.containers.values()} == {"pt"}
    assert {diff.kind for diff in compare(torch, written)} == {"equal"}
    half = convert(other, tmp_path / "half", dtype="bfloat16", durable=False)
    assert half.num_cast == len(torch.entries)
    assert {diff.kind for diff in compare(torch, opened(tmp_path / "half"), rtol=0.01, ignore_dtype=True)} <= {
        "equal",
        "close",
    }


@pytest.mark.parametrize("dialect", ["tf", "flax"])
@pytest.mark.parametrize("family", ["bert"])
def test_safetensors_of_other_frameworks_hold_the_same(family: str, dialect: str) -> None:
    torch = opened(REFERENCE / family / "torch-safetensors")
    other = opened(REFERENCE / family / f"{dialect}-safetensors")
    assert other.entries.keys() == torch.entries.keys()
    for name in torch.entries:
        np.testing.assert_array_equal(array(other, name), array(torch, name), err_msg=name)
