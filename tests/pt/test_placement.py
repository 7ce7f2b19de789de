"""Models on several devices and on disk: the same numbers, no copy without need, nothing left without memory.

"cpu:0" and "cpu:1" are devices of their own to the library, and main memory to torch: they stand for accelerators.
"""

from __future__ import annotations

import copy
import errno
import gc
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.tiny import tiny_bert, tiny_llama
from torch import nn

import pretrained
from pretrained import (
    AutoModel,
    AutoModelForCausalLM,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    InvalidOptionError,
    LlamaConfig,
    LlamaForCausalLM,
    MismatchError,
    MissingFrameworkError,
    OptionError,
    ResourceLimitError,
    SaveError,
)
from pretrained.pt import placement as module
from pretrained.pt.offload import offloading_hooks

IDS = torch.tensor([[5, 9, 3, 17, 2], [7, 1, 1, 4, 30]])
CLASSES = {"bert": BertForMaskedLM, "llama": LlamaForCausalLM}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each family, with tied embeddings."""
    torch.manual_seed(0)
    made = {"bert": BertForMaskedLM(tiny_bert()), "llama": LlamaForCausalLM(tiny_llama(tie_word_embeddings=True))}
    found = {}
    for name, model in made.items():
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
    return found


def logits(model: Any) -> torch.Tensor:
    # A model that is whole on one device moves no inputs.
    ids = IDS if "_hf_hook" in vars(model) else IDS.to(model.device)
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits
    return found


def assert_sound(model: nn.Module) -> None:
    """Whatever has no memory in its place has a hook that brings it."""
    held = {(id(s.module), s.key) for m in model.modules() for hook in offloading_hooks(m) for _, s in hook.moved}
    for inner in model.modules():
        for key, tensor in (*inner._parameters.items(), *inner._buffers.items()):
            assert tensor is None or not tensor.is_meta or (id(inner), key) in held, (type(inner).__name__, key)


def num_on_disk(model: nn.Module) -> int:
    return sum(parameter.is_meta for parameter in model.parameters())


LAYERS = {"bert": "bert.encoder.layer", "llama": "model.layers"}
MAPS: dict[str, Any] = {
    "cpu": "cpu",
    "object": torch.device("cpu"),
    "root": {"": "cpu"},
    "auto": "auto",
    "disk": "disk",
    "runner": "cpu:0",
    "layer on disk": {"": "cpu", "{layers}.0": "disk"},
    "layers on disk": {"": "cpu", "{layers}": "disk"},
    "runner and cpu": {"": "cpu:0", "{layers}.1": "cpu"},
    "runner, cpu and disk": {"": "cpu:0", "{layers}.0": "cpu", "{layers}.1": "disk"},
    "two runners": {"": "cpu:0", "{layers}.1": "cpu:1"},
    "disk but a layer": {"": "disk", "{layers}.0": "cpu"},
}


def map_for(family: str, name: str) -> Any:
    given = MAPS[name]
    layers = LAYERS[family]
    return {key.format(layers=layers): to for key, to in given.items()} if isinstance(given, dict) else given


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("family", CLASSES)
def test_every_map_gives_the_same_logits(family: str, name: str, folders: dict[str, Path]) -> None:
    expected = logits(CLASSES[family].from_pretrained(folders[family]))
    given = map_for(family, name)
    model, report = CLASSES[family].from_pretrained(folders[family], device_map=given, output_loading_info=True)
    assert_sound(model)
    assert report.is_clean
    assert not model.training
    assert model.hf_device_map == (given if isinstance(given, dict) else {"": str(given).replace("auto", "cpu")})
    for _ in range(2):
        assert torch.equal(logits(model), expected)
    assert_sound(model)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.num_parameters() == CLASSES[family].from_pretrained(folders[family]).num_parameters()


def test_without_a_map_there_is_none(folders: dict[str, Path]) -> None:
    model = AutoModel.from_pretrained(folders["bert"])
    assert "hf_device_map" not in dir(model) and "_hf_hook" not in vars(model)
    assert "_hf_hook" not in vars(AutoModel.from_pretrained(folders["bert"], device_map="cpu"))


@pytest.mark.parametrize("family", CLASSES)
def test_reference_numbers_with_nearly_all_on_disk(family: str, reference: Path) -> None:
    folder = reference / family / "torch-safetensors-sharded"
    inputs = {k: torch.from_numpy(v) for k, v in np.load(folder.parent / "inputs.npz").items()}
    plain = AutoModel.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, device_map="auto", max_memory={"cpu": "4KB"})
    assert num_on_disk(model) > 0.7 * sum(1 for _ in model.parameters())
    inputs = {k: v for k, v in inputs.items() if k in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        assert torch.equal(model(**inputs).last_hidden_state, plain(**inputs).last_hidden_state)


def test_auto_classes_and_old_words(folders: dict[str, Path]) -> None:
    old = {"low_cpu_mem_usage": True, "offload_state_dict": True, "offload_folder": None}
    model = AutoModelForCausalLM.from_pretrained(folders["llama"], device_map="disk", **old)
    assert num_on_disk(model) == len(list(model.parameters()))
    assert model.device == torch.device("cpu")
    assert model.dtype == torch.float32


# Where the tensors are


def files_below(*folders: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


def maps_of(name: str) -> int:
    return sum(name in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_disk_maps_the_files_that_are_there(folders: dict[str, Path], tmp_path: Path) -> None:
    gc.collect()  # a module and its hook hold each other
    before = files_below(folders["llama"], tmp_path)
    model, report = AutoModelForCausalLM.from_pretrained(
        folders["llama"], device_map="disk", offload_folder=tmp_path / "away", output_loading_info=True
    )
    assert files_below(folders["llama"], tmp_path) == before
    assert report.bytes_read == 0
    assert report.bytes_mapped == sum(parameter.nbytes for parameter in model.parameters())
    assert maps_of(str(folders["llama"])) == 1
    with torch.no_grad():
        model(IDS)
    del model
    gc.collect()
    assert maps_of(str(folders["llama"])) == 0


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 MB in float32, so that memory shows."""
    path = tmp_path_factory.mktemp("large")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=512, intermediate_size=1024, num_hidden_layers=3, num_attention_heads=8
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def anonymous() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_of_a_model_that_does_not_fit(large: Path, dtype: str) -> None:
    """As it lies, nothing is copied; converted, one module at a time."""
    options = {"device_map": "auto", "max_memory": {"cpu": "3MB"}, "dtype": dtype}
    logits(AutoModelForCausalLM.from_pretrained(large, **options))
    expected = logits(AutoModelForCausalLM.from_pretrained(large, dtype=dtype))
    before = anonymous()
    model = AutoModelForCausalLM.from_pretrained(large, **options)
    assert num_on_disk(model) > 20
    after_load = anonymous() - before
    seen = []
    for inner in model.modules():
        if isinstance(inner, nn.Linear):
            inner.register_forward_hook(lambda *_: seen.append(anonymous() - before))
    assert torch.equal(logits(model), expected)
    assert len(seen) == 22
    largest = max(parameter.nbytes for parameter in model.parameters())
    slack = 3 * 2**20
    limit = 0 if dtype == "float32" else 3_000_000
    assert after_load < limit + slack
    assert max(seen) < limit + slack + (0 if dtype == "float32" else 2 * largest)


def test_limits_are_kept(large: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(large, device_map="auto", max_memory={"cpu": "16MB"})
    placed = sum(p.nbytes for p in model.parameters() if not p.is_meta) + sum(b.nbytes for b in model.buffers())
    assert 12_000_000 < placed <= 16_000_000
    layers = {name: device for name, device in model.hf_device_map.items() if "layers" in name}
    assert layers == {"model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk"}


# What does not lie as it is used


@pytest.mark.parametrize("folder", ["torch-bin", "torch-bin-sharded", "torch-safetensors-bf16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("has_folder", [True, False])
def test_formats_and_dtypes_on_disk(folder: str, dtype: str, has_folder: bool, reference: Path, tmp_path: Path) -> None:
    source = reference / "bert" / folder
    more = {"offload_folder": tmp_path} if has_folder else {}
    model = BertModel.from_pretrained(source, device_map="disk", dtype=dtype, **more)
    expected = BertModel.from_pretrained(source, dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(model(IDS).last_hidden_state, expected(IDS).last_hidden_state)
    assert list(tmp_path.iterdir()) == []  # what was written has no name


@pytest.mark.parametrize("folder", ["flax-safetensors", "tf-safetensors"])
def test_another_layout_needs_a_folder(folder: str, reference: Path, tmp_path: Path) -> None:
    source = reference / "bert" / folder
    with pytest.raises(InvalidOptionError, match=r"are to be on disk, and .* give offload_folder= a folder") as caught:
        BertModel.from_pretrained(source, device_map="disk")
    assert caught.value.key == "offload_folder"
    model = BertModel.from_pretrained(source, device_map="disk", offload_folder=str(tmp_path / "new"))
    expected = BertModel.from_pretrained(source)
    with torch.no_grad():
        assert torch.equal(model(IDS).last_hidden_state, expected(IDS).last_hidden_state)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_head_that_the_checkpoint_lacks(folders: dict[str, Path], tmp_path: Path) -> None:
    where = {"": "cpu", "classifier": "disk"}
    with pytest.raises(InvalidOptionError, match=r"classifier\.weight, classifier\.bias are to be on disk"):
        BertForSequenceClassification.from_pretrained(folders["bert"], device_map=where)
    model = BertForSequenceClassification.from_pretrained(
        folders["bert"], device_map=where, offload_folder=tmp_path, num_labels=50
    )
    assert_sound(model)
    assert model.classifier.weight.is_meta
    model.save_pretrained(tmp_path / "saved")
    state = load_file(tmp_path / "saved" / "model.safetensors")
    assert state["classifier.bias"].abs().max() == 0
    assert state["classifier.weight"].std().item() == pytest.approx(0.15, rel=0.2)
    assert torch.equal(logits(model), logits(BertForSequenceClassification.from_pretrained(tmp_path / "saved")))


def test_a_state_dict(folders: dict[str, Path], tmp_path: Path) -> None:
    source = LlamaForCausalLM.from_pretrained(folders["llama"])
    options = {"config": source.config, "state_dict": source.state_dict(), "device_map": {"": "cpu", "lm_head": "disk"}}
    options["device_map"] = {"": "cpu", "model.norm": "disk"}
    with pytest.raises(InvalidOptionError, match=r"model\.norm\.weight are to be on disk"):
        LlamaForCausalLM.from_pretrained(None, **options)
    model = LlamaForCausalLM.from_pretrained(None, **options, offload_folder=tmp_path)
    assert model.model.norm.weight.is_meta
    assert torch.equal(logits(model), logits(source))


def test_unaligned_files(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["llama"], tmp_path, dirs_exist_ok=True)
    raw = (tmp_path / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].rstrip() + b" " * (1 - len(raw[8 : 8 + length].rstrip()) % 2)
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + length :])
    assert len(header) % 2 == 1
    model = LlamaForCausalLM.from_pretrained(tmp_path, device_map="disk")
    assert torch.equal(logits(model), logits(LlamaForCausalLM.from_pretrained(folders["llama"])))


@pytest.mark.parametrize("device", ["disk", "cpu:0"])
@pytest.mark.parametrize("has_folder", [True, False])
def test_values_beyond_the_dtype(device: str, has_folder: bool, folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["llama"], tmp_path / "huge")
    state = load_file(tmp_path / "huge" / "model.safetensors")
    state["model.norm.weight"][3] = 1e30
    save_file(state, tmp_path / "huge" / "model.safetensors", {"format": "pt"})
    options: dict[str, Any] = {"device_map": device, "dtype": "float16", "mmap": has_folder}
    if has_folder:
        options["offload_folder"] = tmp_path / "away"
    _, report = LlamaForCausalLM.from_pretrained(tmp_path / "huge", **options, output_loading_info=True)
    assert report.conflicts == ["model.norm.weight has values beyond float16: they became infinite"]
    with pytest.raises(MismatchError, match=r"model\.norm\.weight has values beyond float16"):
        LlamaForCausalLM.from_pretrained(tmp_path / "huge", **options, strict=True)


@pytest.mark.parametrize("device", ["cpu:0", "disk", {"": "cpu:0", "model.layers.0": "disk"}])
@pytest.mark.parametrize(
    "options", [{"mmap": False}, {"dtype": "bfloat16"}, {"dtype": {"": "float64", "lm_head": "float32"}}]
)
def test_other_options_hold(device: Any, options: dict[str, Any], folders: dict[str, Path]) -> None:
    model = LlamaForCausalLM.from_pretrained(folders["llama"], device_map=device, **options)
    expected = LlamaForCausalLM.from_pretrained(folders["llama"], **options)
    assert [p.dtype for p in model.parameters()] == [p.dtype for p in expected.parameters()]
    if options.get("dtype", "bfloat16") == "bfloat16":  # one dtype, so that it runs
        assert torch.equal(logits(model), logits(expected))


# What can be done with such a model


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("options", [{}, {"max_shard_size": "20KB"}, {"safe_serialization": False}])
def test_saving_reads_the_disk(family: str, options: dict[str, Any], folders: dict[str, Path], tmp_path: Path) -> None:
    expected = CLASSES[family].from_pretrained(folders[family])
    expected.save_pretrained(tmp_path / "expected", **options)
    model = CLASSES[family].from_pretrained(folders[family], device_map=map_for(family, "runner, cpu and disk"))
    model.save_pretrained(tmp_path / "found", **options)
    names = sorted(path.name for path in (tmp_path / "expected").iterdir())
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == names
    for name in names:
        if not name.endswith(".bin"):
            assert (tmp_path / "found" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes(), name
    again = CLASSES[family].from_pretrained(tmp_path / "found")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), expected.parameters(), strict=True))
    assert_sound(model)


def test_saving_over_the_files_it_is_mapped_from(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["llama"], tmp_path / "own")
    model = LlamaForCausalLM.from_pretrained(folder, device_map="disk")
    expected = logits(model)
    with torch.no_grad():
        for _ in range(2):
            model.save_pretrained(folder, max_shard_size="20KB")
    assert torch.equal(logits(model), expected)
    assert torch.equal(logits(LlamaForCausalLM.from_pretrained(folder)), expected)


def test_saving_a_part_and_through_a_function(folders: dict[str, Path], tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(folders["llama"], device_map="disk", dtype="bfloat16")
    model.model.save_pretrained(tmp_path / "base")
    pretrained.save(model, tmp_path / "plain")
    given = {}
    model.save_pretrained(
        tmp_path / "own", save_function=lambda state, path: given.update(state) or save_file(state, path)
    )
    for place, head in (("base", "model."), ("plain", ""), ("own", "")):
        state = load_file(tmp_path / place / "model.safetensors")
        assert torch.equal(
            state[f"{'' if head else 'model.'}norm.weight"], model.model.norm._hf_hook.store["model.norm.weight"]
        )
        assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in given


def test_a_state_dict_without_values_cannot_be_saved(folders: dict[str, Path], tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(folders["llama"], device_map="disk")
    with pytest.raises(SaveError, match="is on the meta device and has no values"):
        model.save_pretrained(tmp_path, state_dict=model.state_dict())


def test_moving(folders: dict[str, Path]) -> None:
    model = LlamaForCausalLM.from_pretrained(folders["llama"], device_map={"": "cpu", "model.layers.0": "disk"})
    for move in (lambda: model.to("cpu"), lambda: model.cuda(), lambda: model.to(torch.ones(1))):
        with pytest.raises(RuntimeError, match="offloaded modules cannot be moved"):
            move()
    assert model.to(torch.float64) is model
    assert logits(model).dtype == torch.float64
    whole = LlamaForCausalLM.from_pretrained(folders["llama"], device_map="cpu")
    assert whole.to("cpu") is whole


def test_taking_the_hooks_off(folders: dict[str, Path]) -> None:
    from accelerate.hooks import remove_hook_from_submodules

    expected = LlamaForCausalLM.from_pretrained(folders["llama"])
    model = LlamaForCausalLM.from_pretrained(folders["llama"], device_map=map_for("llama", "runner, cpu and disk"))
    remove_hook_from_submodules(model)
    assert num_on_disk(model) == 0
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
    assert torch.equal(logits(model.to("cpu")), logits(expected))


def test_accelerate_knows_the_hooks(folders: dict[str, Path]) -> None:
    from accelerate.utils import align_module_device, has_offloaded_params

    model = LlamaForCausalLM.from_pretrained(folders["llama"], device_map="disk")
    expected = LlamaForCausalLM.from_pretrained(folders["llama"])
    linear = model.model.layers[0].mlp.up_proj
    assert has_offloaded_params(linear)
    with align_module_device(linear):
        assert torch.equal(linear.weight, expected.model.layers[0].mlp.up_proj.weight)
    assert linear.weight.is_meta
    assert torch.equal(linear._hf_hook.weights_map["weight"], expected.model.layers[0].mlp.up_proj.weight)


def test_a_forward_that_fails_spoils_nothing(folders: dict[str, Path]) -> None:
    model = LlamaForCausalLM.from_pretrained(folders["llama"], device_map="disk")
    expected = logits(model)
    with pytest.raises(IndexError):
        model(torch.tensor([[1000]]))
    assert torch.equal(logits(model), expected)
    assert num_on_disk(model) == len(list(model.parameters()))


def test_copies_are_models_of_their_own(folders: dict[str, Path]) -> None:
    model = LlamaForCausalLM.from_pretrained(folders["llama"], device_map=map_for("llama", "runner, cpu and disk"))
    expected = logits(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        model.model.norm.weight.zero_()
    assert torch.equal(logits(other), expected)
    assert not torch.equal(logits(model), expected)
    with pytest.raises(RuntimeError, match="offloaded"):
        other.to("cpu")


def test_a_cache_goes_along(folders: dict[str, Path]) -> None:
    model = LlamaForCausalLM.from_pretrained(folders["llama"], device_map=map_for("llama", "two runners"))
    with torch.no_grad():
        first = model(IDS[:, :4], use_cache=True)
        second = model(IDS[:, 4:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(second, logits(model)[:, 4:])


def test_the_tied_tensor_is_brought_once(folders: dict[str, Path]) -> None:
    model = LlamaForCausalLM.from_pretrained(folders["llama"], device_map="disk", dtype="float64")
    first, second = model.model.embed_tokens._hf_hook, model.lm_head._hf_hook
    first.pre_forward(model.model.embed_tokens)
    second.pre_forward(model.lm_head)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    first.post_forward(model.model.embed_tokens, None)
    second.post_forward(model.lm_head, None)
    assert model.lm_head.weight is model.model.embed_tokens.weight and model.lm_head.weight.is_meta


# Any module


class Odd(nn.Module):
    """What does not fit the usual: attention that reads inside, flat lists, computed weights, tensors of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.recurrent = nn.LSTM(16, 8, bidirectional=True, batch_first=True)
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(16, 16, 3, padding=1))
        self.norm = nn.BatchNorm1d(16)
        self.register_buffer("scale", torch.full((16,), 2.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.token
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.recurrent(x)[0]
        return self.norm(self.conv(x.mT)).mT * self.scale


@pytest.mark.parametrize(
    "given",
    [
        "disk",
        "cpu:0",
        {"": "cpu", "attention": "disk", "recurrent": "disk"},
        {"": "cpu:0", "conv": "disk", "norm": "disk", "recurrent": "cpu"},
        {"": "disk", "conv": "cpu"},
    ],
)
@pytest.mark.parametrize("offload_buffers", [False, True])
@pytest.mark.parametrize("is_live", [True, False])
def test_any_module(given: Any, offload_buffers: bool, is_live: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = Odd().eval()
    source.norm.running_mean.normal_()
    nn.init.normal_(source.token)
    pretrained.save(source, tmp_path)
    target = Odd()
    if not is_live:
        target = target.to("meta")
        target.scale = torch.full((16,), 2.0)
    target.eval()
    x = torch.randn(2, 5, 16)
    pretrained.load_into(target, tmp_path, device_map=given, offload_buffers=offload_buffers)
    assert_sound(target)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(target(x), source(x))
    is_away = given == "disk" or (isinstance(given, dict) and given[""] == "disk")
    assert target.token.is_meta == is_away
    norm_is_away = is_away or (isinstance(given, dict) and given.get("norm") == "disk")
    assert target.norm.running_mean.is_meta == (offload_buffers and norm_is_away)


def test_a_load_into_that_fails_leaves_the_module(tmp_path: Path) -> None:
    pretrained.save(Odd(), tmp_path)
    target = Odd()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(InvalidOptionError, match="no module 'atention'; did you mean 'attention'"):
        pretrained.load_into(target, tmp_path, device_map={"": "cpu", "atention": "disk"})
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())
    assert "_hf_hook" not in vars(target)


# What goes wrong


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("balance", "'balance' is no device; give one such as 'cuda:0', or one of auto, balanced"),
        ({"": "cpu", "lm_head": "gpu"}, "'gpu' is no device"),
        ("cuda:99", "there is no device 'cuda:99' here"),
        ({"": 99}, "there is no device 99 here"),
        ({"": "cpu", "model.layer.0": "disk"}, "no module 'model.layer.0'; did you mean 'model.layers.0'"),
        ({"model": "cpu:0", "lmhead": "cpu"}, "no module 'lmhead'; did you mean 'lm_head'"),
        ({"lm_head": "cpu"}, r"no device for model\.embed_tokens"),
    ],
)
def test_maps_that_cannot_be(given: Any, reason: str, folders: dict[str, Path]) -> None:
    with pytest.raises(InvalidOptionError, match=reason) as caught:
        LlamaForCausalLM.from_pretrained(folders["llama"], device_map=given)
    assert caught.value.key == "device_map"


def test_limits_without_a_map(folders: dict[str, Path]) -> None:
    with pytest.raises(OptionError, match="device_map='auto' has to say what") as caught:
        LlamaForCausalLM.from_pretrained(folders["llama"], max_memory={"cpu": "1GB"})
    assert caught.value.key == "max_memory"


def test_without_accelerate(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "accelerate" else find(name))
    for given in ("cpu", "auto", {"": "cpu"}, "cpu:0", {"model": "cpu", "lm_head": "cpu"}):
        assert logits(LlamaForCausalLM.from_pretrained(folders["llama"], device_map=given)).isfinite().all()
    for given in ("disk", {"": "cpu", "lm_head": "cpu:0", "model.norm": "cpu:0"}):
        with pytest.raises(MissingFrameworkError, match=r"needs accelerate: pip install 'pretrained\[big\]'") as caught:
            LlamaForCausalLM.from_pretrained(folders["llama"], device_map=given)
        assert caught.value.key == "device_map"


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, ResourceLimitError), (errno.EIO, SaveError)])
def test_a_disk_that_is_full(
    number: int, kind: type[Exception], reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(fd: int, piece: Any) -> int:
        written.append(len(piece))
        if len(written) > 3:
            raise OSError(number, os.strerror(number))
        return os.pwrite(fd, piece, sum(written[:-1]))

    monkeypatch.setattr("pretrained.checkpoint.formats.safetensors_write.os.write", write)
    reason = f"cannot offload .* tensors to {tmp_path}: {os.strerror(number)}.*another offload_folder="
    with pytest.raises(kind, match=reason) as caught:
        BertModel.from_pretrained(reference / "bert/flax-safetensors", device_map="disk", offload_folder=tmp_path)
    assert caught.value.path == str(tmp_path)  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []
    assert maps_of(str(tmp_path)) == 0


def test_an_offload_folder_that_is_a_file(reference: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"cannot offload .*: File exists"):
        BertModel.from_pretrained(
            reference / "bert/flax-safetensors", device_map="disk", offload_folder=tmp_path / "file"
        )
    with pytest.raises(InvalidOptionError, match="offload_folder is a path, not a int"):
        BertModel.from_pretrained(reference / "bert/flax-safetensors", device_map="disk", offload_folder=3)


def test_the_file_may_go(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["llama"], tmp_path / "gone")
    model = LlamaForCausalLM.from_pretrained(folder, device_map="disk")
    shutil.rmtree(folder)
    assert torch.equal(logits(model), logits(LlamaForCausalLM.from_pretrained(folders["llama"])))


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "options",
    [
        {"device_map": 0},
        {"device_map": "cuda"},
        {"device_map": "auto"},
        {"device_map": "auto", "max_memory": {0: "14MB", "cpu": "10MB"}},
        {"device_map": {"": 0, "model.layers.0": "cpu", "model.layers.1": "disk"}},
        {"device_map": {"": "cuda:0", "model.layers": "disk"}, "dtype": "float64"},
        {"device_map": {"": 0, "lm_head": "disk"}, "mmap": False},
    ],
)
def test_gpu(options: dict[str, Any], large: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(large, **options)
    expected = AutoModelForCausalLM.from_pretrained(large, dtype=options.get("dtype"))
    assert model.device.type == "cuda"
    for _ in range(2):
        found = logits(model)
        assert found.device.type == ("cpu" if "_hf_hook" in vars(model) else "cuda")
        torch.testing.assert_close(found.cpu(), logits(expected), rtol=1e-4, atol=1e-4)
    held = torch.cuda.memory_allocated()
    assert held < 2 * sum(p.nbytes for p in expected.parameters()) + 2**25
