"""Experts: what they compute, each way it is computed, and their checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import REFERENCE, load_arrays, tiny_mixtral, tiny_qwen3_moe
from torch import Tensor
from torch.nn import functional as F

from pretrained import (
    AutoModelForCausalLM,
    MismatchError,
    MixtralForCausalLM,
    MixtralModel,
    Qwen3MoeForCausalLM,
    Qwen3MoeForQuestionAnswering,
    Qwen3MoeModel,
)
from pretrained.pt import losses
from pretrained.pt.experts import Experts, Router, grouped_linear

CLASSES = {"mixtral": (MixtralForCausalLM, tiny_mixtral), "qwen3_moe": (Qwen3MoeForCausalLM, tiny_qwen3_moe)}
EACH = pytest.mark.parametrize("family", sorted(CLASSES))
IDS = torch.tensor([[5, 9, 3, 17, 2], [7, 1, 1, 4, 30]])


def make(family: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    cls, config = CLASSES[family]
    return cls(config(**{"attn_implementation": "sdpa"} | changes)).eval()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(IDS).logits
    return found


# What they compute


def one_by_one(experts: Experts, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """The definition: token by token, choice by choice."""
    out = torch.zeros_like(x)
    for token in range(len(x)):
        for weight, expert in zip(weights[token], chosen[token], strict=True):
            gate, value = F.linear(x[token], experts.gate_up_proj[expert]).chunk(2, -1)
            out[token] += weight * F.linear(experts.act_fn(gate) * value, experts.down_proj[expert])
    return out


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize(("tokens", "top_k"), [(7, 2), (1, 1), (40, 3), (0, 2)])
def test_experts_are_what_they_are_defined_as(
    tokens: int, top_k: int, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    router, experts = Router(8, 5, top_k), Experts(5, 8, 6, "silu")
    x = torch.randn(tokens, 8, requires_grad=True)
    found = []
    for compute in (lambda *a: one_by_one(experts, *a), experts):
        if compute is experts and recorded:
            monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        _, weights, chosen = router(x)
        out = compute(x, weights, chosen)
        wanted = [x, *router.parameters(), *experts.parameters()]
        gradients = torch.autograd.grad(out.square().sum(), wanted) if tokens else ()
        found.append([out.detach(), *gradients])
        monkeypatch.undo()
    for one, other in zip(*found, strict=False):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("normalise", [False, True])
def test_router_chooses_the_largest_shares(normalise: bool) -> None:
    torch.manual_seed(0)
    router, x = Router(8, 5, 2, normalise), torch.randn(7, 8).to(torch.bfloat16)
    router.to(torch.bfloat16)
    scores, weights, chosen = router(x)
    shares = scores.float().softmax(-1)
    best = shares.sort(-1, descending=True)
    assert weights.dtype == torch.float32 and scores.dtype == torch.bfloat16
    torch.testing.assert_close(shares.gather(1, chosen), best.values[:, :2])
    expected = best.values[:, :2] / (best.values[:, :2].sum(-1, keepdim=True) if normalise else 1)
    torch.testing.assert_close(weights, expected)
    assert repr(router) == f"Router(8, 5, top_k=2, normalise={normalise})"
    assert repr(Experts(5, 8, 6, "silu")) == "Experts(5, 8, 6)"


def test_the_operator_is_one() -> None:
    """Its shapes, strides and gradients are what it says they are."""
    rows, stack = torch.randn(6, 3, dtype=torch.float64), torch.randn(4, 5, 3, dtype=torch.float64)
    counts = torch.tensor([2, 0, 3, 1])
    expected = torch.cat([F.linear(p, w) for p, w in zip(rows.split(counts.tolist()), stack, strict=True)])
    torch.testing.assert_close(grouped_linear(rows, stack, counts), expected)
    torch.library.opcheck(grouped_linear, (rows.requires_grad_(), stack.requires_grad_(), counts))
    assert torch.autograd.gradcheck(lambda r, s: grouped_linear(r, s, counts), (rows, stack))


def test_evenness_of_choices() -> None:
    even = torch.eye(4).repeat(3, 1) * 50
    torch.testing.assert_close(losses.load_balance([even, even], 4, 1), torch.tensor(1.0))
    uneven = torch.tensor([[50.0, 0, 0, 0]]).repeat(12, 1)
    torch.testing.assert_close(losses.load_balance([uneven], 4, 1), torch.tensor(4.0))
    mask = torch.tensor([[1] * 4, [1] * 4, [0] * 4])
    mixed = torch.cat((torch.eye(4).repeat(2, 1) * 50, uneven[:4]))
    torch.testing.assert_close(losses.load_balance([mixed], 4, 1, mask), torch.tensor(1.0))
    past = torch.cat((torch.zeros(3, 5, dtype=torch.int64), mask), 1)  # of tokens in the cache
    torch.testing.assert_close(losses.load_balance([mixed], 4, 1, past), torch.tensor(1.0))


@EACH
def test_router_logits_and_their_loss(family: str) -> None:
    model = make(family, router_aux_loss_coef=0.5)
    with torch.no_grad():
        plain = model(IDS, labels=IDS)
        routed = model(IDS, labels=IDS, output_router_logits=True)
    sparse = 2 if family == "qwen3_moe" else 3
    assert len(routed.router_logits) == sparse and routed.router_logits[0].shape == (10, model.config.num_experts)
    assert "router_logits" not in plain and "aux_loss" not in plain
    torch.testing.assert_close(routed.loss, plain.loss + 0.5 * routed.aux_loss)
    model.config.output_router_logits = True
    with torch.no_grad():
        assert torch.equal(model(IDS, labels=IDS).loss, routed.loss)
        assert len(model.model(IDS).router_logits) == sparse
        assert "router_logits" not in model(IDS, output_router_logits=False)


def test_a_model_of_which_no_layer_has_experts() -> None:
    model = make("qwen3_moe", mlp_only_layers=[0, 1, 2])
    with torch.no_grad():
        output = model(IDS, labels=IDS, output_router_logits=True)
    assert "aux_loss" not in output and not any("experts" in name for name, _ in model.named_parameters())
    every = make("qwen3_moe", mlp_only_layers=None, decoder_sparse_step=2)
    assert [layer.mlp.__class__.__name__ for layer in every.model.layers] == [
        "GatedMLP",
        "Qwen3MoeSparseMoeBlock",
        "GatedMLP",
    ]


def test_jitter_in_training() -> None:
    model = make("mixtral", router_jitter_noise=0.3).train()
    assert not torch.equal(model(IDS).logits, model(IDS).logits)
    assert torch.equal(logits(model.eval()), logits(model))


def test_both_names_of_the_number_of_experts() -> None:
    assert tiny_mixtral(num_experts=7).num_local_experts == 7
    config = type(tiny_qwen3_moe()).from_dict({"num_local_experts": 7})
    assert config.num_experts == 7 and config.to_dict()["num_experts"] == 7


# Checkpoints


def at_rest(family: str) -> dict[str, Tensor]:
    """The reference's weights under the names of published checkpoints, by a way of its own."""
    cls, config = CLASSES[family]
    base = json.loads((REFERENCE / f"{family}_heads" / "cases.json").read_text())["base"]
    names = [name.removeprefix("model.") for name, _ in cls(config(**base)).named_parameters()]
    used = {f"causal-lm|{name}" if name == "lm_head.weight" else name for name in names}
    weights = load_file(REFERENCE / f"{family}_heads" / "model.safetensors")
    block, gate, value, down = {
        "mixtral": ("block_sparse_moe", "w1", "w3", "w2"),
        "qwen3_moe": ("mlp", "gate_proj", "up_proj", "down_proj"),
    }[family]
    found = {}
    for name in sorted(used):
        head, dot, stack = name.rpartition(".mlp.experts.")
        tensor = weights[name]
        if "|" in name:
            found["lm_head.weight"] = tensor
        elif not dot:
            found["model." + name.replace(".mlp.gate.", f".{block}.gate.")] = tensor
        else:
            for item, whole in enumerate(tensor):
                parts = whole.chunk(2) if stack == "gate_up_proj" else (whole,)
                pieces = (gate, value) if stack == "gate_up_proj" else (down,)
                for piece, part in zip(pieces, parts, strict=True):
                    found[f"model.{head}.{block}.experts.{item}.{piece}.weight"] = part.contiguous()
    return found


def write(family: str, folder: Path, num_files: int = 1) -> dict[str, Tensor]:
    """A published checkpoint: its experts are spread over the files."""
    weights = at_rest(family)
    base = json.loads((REFERENCE / f"{family}_heads" / "cases.json").read_text())["base"]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": family, "tie_word_embeddings": False, **base}))
    names = [f"model-{n + 1:05d}-of-{num_files:05d}.safetensors" for n in range(num_files)]
    where = {name: names[index % num_files] for index, name in enumerate(sorted(weights))}
    if num_files == 1:
        save_file(weights, folder / "model.safetensors")
        return weights
    for file in names:
        save_file({name: weights[name] for name in where if where[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return weights


def expected_logits(family: str) -> tuple[dict[str, Tensor], Tensor]:
    inputs = load_arrays(REFERENCE / f"{family}_heads" / "inputs.npz")
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    return given, load_arrays(REFERENCE / f"{family}_heads" / "expected.npz")["causal-lm/logits"]


@EACH
@pytest.mark.parametrize("num_files", [1, 5])
def test_a_published_checkpoint(family: str, num_files: int, tmp_path: Path) -> None:
    weights = write(family, tmp_path / "one", num_files)
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "one", output_loading_info=True)
    assert report.is_clean, report.render()
    assert report.num_loaded == len(list(model.named_parameters()))
    given, expected = expected_logits(family)
    with torch.no_grad():
        found = model(**given).logits
    seen = given["attention_mask"].bool()
    torch.testing.assert_close(found[seen], expected[seen], atol=2e-5, rtol=2e-5)
    model.save_pretrained(tmp_path / "two", max_shard_size="20KB")
    assert len(list((tmp_path / "two").glob("*.safetensors"))) > 1
    written = {name: t for file in (tmp_path / "two").glob("*.safetensors") for name, t in load_file(file).items()}
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in weights.items())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "two")
    for (name, one), (_, other) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one, other), name


@EACH
def test_parts_are_saved_as_views(family: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pretrained import saving

    model = make(family)
    seen: dict[str, Any] = {}
    save = saving.save
    monkeypatch.setattr(
        saving,
        "save",
        lambda d, tensors, *a, **k: seen.update({t.name: t for t in tensors}) or save(d, tensors, *a, **k),
    )
    model.save_pretrained(tmp_path)
    memory = [(p.data_ptr(), p.data_ptr() + p.nbytes) for p in model.parameters()]
    assert len(seen) > len(memory)
    assert all(any(first <= t.start and t.stop <= last for first, last in memory) for t in seen.values())


@EACH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_cast_on_load(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    write(family, tmp_path / "one", 3)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one", dtype=dtype)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "one", mmap=False)
    for (name, one), (_, other) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        assert one.dtype == dtype and torch.equal(one, other.to(dtype)), name


@EACH
def test_other_ways_out_and_in(family: str, tmp_path: Path) -> None:
    model = make(family)
    model.save_pretrained(tmp_path / "bin", safe_serialization=False)
    assert torch.equal(logits(type(model).from_pretrained(tmp_path / "bin")), logits(model))
    model.save_pretrained(tmp_path / "later", blocking=False).result()
    assert torch.equal(logits(type(model).from_pretrained(tmp_path / "later")), logits(model))
    fused = type(model).from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert torch.equal(logits(fused), logits(model))
    apart = load_file(tmp_path / "later" / "model.safetensors")
    assert torch.equal(logits(type(model).from_pretrained(None, config=model.config, state_dict=apart)), logits(model))


@EACH
def test_renames_of_the_caller_come_back(family: str, tmp_path: Path) -> None:
    weights = write(family, tmp_path / "one")
    renamed = {name.replace("model.", "body.", 1): tensor for name, tensor in weights.items()}
    save_file(renamed, tmp_path / "one" / "model.safetensors")
    model, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "one", key_mapping={r"^body\.": "model."}, output_loading_info=True
    )
    assert report.is_clean, report.render()
    model.save_pretrained(tmp_path / "two")
    assert load_file(tmp_path / "two" / "model.safetensors").keys() == renamed.keys()


@pytest.mark.parametrize("strict", [False, True])
def test_lost_experts_are_named(strict: bool, tmp_path: Path) -> None:
    weights = write("mixtral", tmp_path / "one")
    lost = "model.layers.1.block_sparse_moe.experts.2.w3.weight"
    del weights[lost]
    save_file(weights, tmp_path / "one" / "model.safetensors")
    with pytest.raises(MismatchError, match=rf"layers.1.mlp.experts.gate_up_proj: the checkpoint lacks {lost}"):
        MixtralForCausalLM.from_pretrained(tmp_path / "one", strict=strict)
    model, report = MixtralForCausalLM.from_pretrained(
        tmp_path / "one", ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert [name for name, *_ in report["mismatched_keys"]] == ["model.layers.1.mlp.experts.gate_up_proj"]
    assert torch.isfinite(logits(model)).all()
    with pytest.raises(MismatchError, match=r"experts\.3\.w1\.weight.* too; the model has 3, numbered from 0"):
        MixtralForCausalLM.from_pretrained(tmp_path / "one", num_local_experts=3)


@EACH
@pytest.mark.parametrize("num_files", [1, 3])
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_experts_on_disk(family: str, num_files: int, dtype: torch.dtype | None, tmp_path: Path) -> None:
    weights = write(family, tmp_path / "one", num_files)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "one", dtype=dtype)
    where = {"": "cpu", "model.layers.0": "disk", "model.layers.2.mlp": "disk"}
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "one", device_map=where, offload_folder=tmp_path / "off", dtype=dtype
    )
    assert model.model.layers[0].mlp.experts.gate_up_proj.is_meta
    assert torch.equal(logits(model), logits(plain))
    model.save_pretrained(tmp_path / "two")
    written = load_file(tmp_path / "two" / "model.safetensors")
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[name], t.to(dtype or t.dtype)) for name, t in weights.items())


@EACH
def test_experts_that_lie_in_order_stay_on_disk(family: str, tmp_path: Path) -> None:
    """What our own writer wrote needs no folder to be offloaded to, and is mapped."""
    sizes = {"hidden_size": 32, "intermediate_size": 16, "moe_intermediate_size": 16}
    model = make(family, **sizes)
    model.save_pretrained(tmp_path)
    mapped, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert report.bytes_read == 0
    placed = type(model).from_pretrained(tmp_path, device_map={"": "disk"})
    for each in (mapped, placed):
        assert torch.equal(logits(each), logits(model))


@EACH
def test_experts_on_other_devices(family: str, tmp_path: Path) -> None:
    """ "cpu:1" stands for an accelerator."""
    write(family, tmp_path / "one", 3)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    for dtype in (None, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "one", device_map="cpu:1", dtype=dtype)
        for (name, one), (_, other) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
            assert torch.equal(one, other.to(one.dtype)), name


@pytest.mark.parametrize(
    ("base", "head"), [(MixtralModel, MixtralForCausalLM), (Qwen3MoeModel, Qwen3MoeForQuestionAnswering)]
)
def test_base_and_head_read_each_other(base: Any, head: Any, tmp_path: Path) -> None:
    family = base.config_class.model_type
    torch.manual_seed(0)
    model = base(CLASSES[family][1]()).eval()
    model.save_pretrained(tmp_path / "base")
    names = load_file(tmp_path / "base" / "model.safetensors").keys()
    assert all(name.startswith(("layers.", "norm.", "embed_tokens.")) for name in names)
    with_head = head.from_pretrained(tmp_path / "base")
    for name, value in with_head.base_model.named_parameters():
        assert torch.equal(value, model.get_parameter(name)), name
    with_head.save_pretrained(tmp_path / "head")
    again = base.from_pretrained(tmp_path / "head")
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in again.named_parameters())
