"""save_pretrained(safe_serialization=False): torch's .bin, as torch.load and our own reader read it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pretrained import (
    AutoModelForCausalLM,
    AutoModelForPreTraining,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    SaveError,
)
from pretrained.checkpoint.find import is_weight_file
from pretrained.checkpoint.formats.torch_zip import read_torch
from pretrained.checkpoint.plan_save import Stored, plan_save
from pretrained.options import SaveOptions
from pretrained.pt.backend import bytes_of
from pretrained.pt.saving import save_tensors

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 50}
BIN, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def tiny(seed=0, **kwargs):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**TINY, "num_key_value_heads": 1, **kwargs})).eval()


def save(model, folder, **kwargs):
    model.save_pretrained(folder, safe_serialization=False, **kwargs)


def save_state(state, folder, **kwargs):
    return save_tensors(state, folder, SaveOptions(form="torch", **kwargs))


def load(path):
    return torch.load(path, weights_only=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def same_weights(first, second):
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def data_bytes(path):
    """Bytes of all storages in the file."""
    with zipfile.ZipFile(path) as file:
        return sum(item.file_size for item in file.infolist() if "/data/" in item.filename)


class TestFiles:
    def test_one_file(self, tmp_path):
        model = tiny()
        save(model, tmp_path / "new")
        assert names(tmp_path / "new") == ["config.json", "generation_config.json", BIN]
        state = load(tmp_path / "new" / BIN)
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
        assert not any(tensor.requires_grad for tensor in state.values())
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path / "new", strict=True), model)
        ours = read_torch(tmp_path / "new" / BIN)
        assert ours.entries.keys() == state.keys()
        assert all(np.array_equal(ours.read(entry), state[name].numpy()) for name, entry in ours.entries.items())

    def test_mode_follows_the_umask(self, tmp_path):
        old = os.umask(0o027)
        try:
            save(tiny(), tmp_path)
        finally:
            os.umask(old)
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}

    def test_shards_and_index(self, tmp_path):
        model = tiny()
        save(model, tmp_path, max_shard_size="4KB")
        index = json.loads((tmp_path / INDEX).read_text())
        assert (tmp_path / INDEX).read_text() == json.dumps(index, indent=2, sort_keys=True) + "\n"
        files = sorted(set(index["weight_map"].values()))
        assert files == [f"pytorch_model-{i:05d}-of-{len(files):05d}.bin" for i in range(1, len(files) + 1)]
        assert len(files) > 2 and names(tmp_path) == sorted(["config.json", "generation_config.json", INDEX, *files])
        found = {}
        for file in files:
            tensors = load(tmp_path / file)
            assert sum(tensor.nbytes for tensor in tensors.values()) <= 4000 or len(tensors) == 1
            assert {index["weight_map"][name] for name in tensors} == {file}
            found |= tensors
        assert index["metadata"] == {"total_size": sum(tensor.nbytes for tensor in found.values())}
        assert found.keys() == model.state_dict().keys() == index["weight_map"].keys()
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path, strict=True), model)

    def test_the_reference_shards_are_written_again(self, reference, tmp_path):
        source = reference / "bert" / "torch-bin-sharded"
        save(AutoModelForPreTraining.from_pretrained(source), tmp_path, max_shard_size=45_000)
        ours, theirs = json.loads((tmp_path / INDEX).read_text()), json.loads((source / INDEX).read_text())
        assert ours["weight_map"].keys() == theirs["weight_map"].keys()
        assert ours["metadata"]["total_size"] == theirs["metadata"]["total_size"]
        for name, shard in theirs["weight_map"].items():
            expected = load(source / shard)[name]
            assert torch.equal(load(tmp_path / ours["weight_map"][name])[name], expected), name

    def test_variants(self, tmp_path):
        old, new = tiny(1), tiny(2)
        save(old, tmp_path)
        save(new, tmp_path, variant="fp16", max_shard_size="4KB")
        assert "pytorch_model.bin.index.fp16.json" in names(tmp_path)
        assert any(name.startswith("pytorch_model.fp16-00001-of-") for name in names(tmp_path))
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), old)
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path, variant="fp16"), new)
        save(new, tmp_path, variant="fp16")
        assert names(tmp_path) == ["config.json", "generation_config.json", BIN, "pytorch_model.fp16.bin"]

    def test_save_function(self, tmp_path):
        calls = []

        def write(tensors, path):
            calls.append(os.path.basename(path))
            torch.save(tensors, path)

        model = tiny(tie_word_embeddings=True)
        save(model, tmp_path, save_function=write, max_shard_size="8KB")
        assert len(calls) > 1 and all(name.startswith("pytorch_model-0") for name in calls)
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)


class TestWhatShadows:
    @pytest.mark.parametrize("size", ["4KB", "5GB"])
    def test_stale_safetensors_go(self, tmp_path, size):
        old, new = tiny(1), tiny(2)
        old.save_pretrained(tmp_path, max_shard_size=size)
        (tmp_path / "adapter_model.safetensors").write_text("mine")
        (tmp_path / "model.fp16.safetensors").write_text("another variant")
        save(new, tmp_path)
        configs = ["config.json", "generation_config.json"]
        assert names(tmp_path) == ["adapter_model.safetensors", *configs, "model.fp16.safetensors", BIN]
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), new)

    @pytest.mark.parametrize(("first", "second"), [("4KB", "5GB"), ("5GB", "4KB"), ("2KB", "8KB"), ("8KB", "2KB")])
    def test_stale_shards_go(self, tmp_path, first, second):
        save(tiny(1), tmp_path, max_shard_size=first)
        (tmp_path / "notes.bin").write_text("mine")
        new = tiny(2)
        save(new, tmp_path, max_shard_size=second)
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), new)
        save(new, tmp_path / "fresh", max_shard_size=second)
        assert [name for name in names(tmp_path) if name not in ("fresh", "notes.bin")] == names(tmp_path / "fresh")
        assert (tmp_path / "notes.bin").read_text() == "mine"

    def test_what_a_save_of_each_format_takes_away(self):
        present = [
            *("model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"),
            *(BIN, "pytorch_model-00001-of-00002.bin", INDEX, "pytorch_model.fp16.bin", "model.fp16.safetensors"),
            *("tf_model.h5", "flax_model.msgpack", "adapter_model.bin", "training_args.bin", "optimizer.bin"),
        ]
        tensors = [Stored("a", "float32", (1,), 64, 68)]

        def stale(**kwargs):
            return sorted(filter(plan_save(tensors, max_shard_size=10, **kwargs).shadows, present))

        assert stale(form="safetensors") == sorted(present[1:3])
        assert stale(form="torch") == sorted([*present[:3], *present[4:6]])
        assert stale(form="torch", variant="fp16") == ["model.fp16.safetensors"]
        assert is_weight_file("pytorch_model.fp16-00001-of-00002.bin", "fp16", "torch")
        assert not is_weight_file("pytorch_model.fp16-00001-of-00002.bin", None, "torch")


class TestMemory:
    def test_tied_weights_are_there_under_all_names_and_once(self, tmp_path):
        model = tiny(tie_word_embeddings=True)
        save(model, tmp_path)
        state = load(tmp_path / BIN)
        assert state.keys() == model.state_dict().keys()
        assert state["lm_head.weight"].data_ptr() == state["model.embed_tokens.weight"].data_ptr()
        assert data_bytes(tmp_path / BIN) == sum(parameter.nbytes for parameter in model.parameters())
        entries = read_torch(tmp_path / BIN).entries
        assert entries["lm_head.weight"].offset == entries["model.embed_tokens.weight"].offset
        again = AutoModelForCausalLM.from_pretrained(tmp_path, strict=True)
        assert again.lm_head.weight is again.model.embed_tokens.weight

    def test_tied_weights_stay_in_one_shard(self, tmp_path):
        model = BertForMaskedLM(BertConfig(**TINY, max_position_embeddings=20))
        save(model, tmp_path, max_shard_size="4KB")
        index = json.loads((tmp_path / INDEX).read_text())
        weight_map = index["weight_map"]
        tied = ["cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"]
        assert len({weight_map[name] for name in tied}) == 1
        state = load(tmp_path / weight_map[tied[0]])
        assert state[tied[0]].data_ptr() == state[tied[1]].data_ptr()
        assert index["metadata"]["total_size"] == sum(parameter.nbytes for parameter in model.parameters())
        total = sum(data_bytes(path) for path in tmp_path.glob("*.bin"))
        assert total == index["metadata"]["total_size"]
        assert same_weights(BertForMaskedLM.from_pretrained(tmp_path, strict=True), model)

    @pytest.mark.parametrize("source", ["torch-safetensors", "torch-bin", "torch-safetensors-sharded", "flax-msgpack"])
    def test_a_mapped_model_drags_no_file_along(self, reference, tmp_path, source):
        model, info = AutoModelForPreTraining.from_pretrained(reference / "bert" / source, output_loading_info=True)
        assert info["bytes_mapped"] > 0 or source == "flax-msgpack"
        save(model, tmp_path)
        assert data_bytes(tmp_path / BIN) == sum(parameter.nbytes for parameter in model.parameters())
        assert same_weights(AutoModelForPreTraining.from_pretrained(tmp_path, strict=True), model)

    def test_over_the_file_it_is_mapped_from(self, tmp_path):
        save(tiny(1), tmp_path)
        model, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
        other = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert info["bytes_mapped"] > 0
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        for size in ("5GB", "4KB", "5GB"):
            save(model, tmp_path, max_shard_size=size)
            assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)
        assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in before.items())

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
    def test_dtypes(self, tmp_path, dtype):
        model = tiny().to(getattr(torch, dtype))
        save(model, tmp_path)
        assert {tensor.dtype for tensor in load(tmp_path / BIN).values()} == {model.dtype}
        again = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert again.dtype == model.dtype and same_weights(again, model)

    def test_tensors_of_every_kind(self, tmp_path):
        base = torch.arange(24.0).reshape(4, 6)
        state = {
            "transposed": torch.arange(6.0).reshape(2, 3).t(),
            "steps": torch.arange(20)[::3],
            "expanded": torch.ones(1, 3).expand(4, 3),
            "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
            "parameter": nn.Parameter(torch.ones(3)),
            "bool": torch.tensor([True, False]),
            "complex": torch.tensor([1 + 2j]),
            "float8": torch.ones(5).to(torch.float8_e4m3fn),
            "part": base[1:3],
            "empty": torch.empty(0, 3),
            "nothing of much": base.new_zeros(100_000)[5:5],
        }
        save_state(state, tmp_path)
        found = load(tmp_path / BIN)
        ours = read_torch(tmp_path / BIN)
        assert list(found) == list(state) == list(ours.entries)
        for name, tensor in state.items():
            copy = found[name]
            assert (copy.dtype, copy.shape, type(copy)) == (tensor.dtype, tensor.shape, torch.Tensor)
            assert bytes_of(copy) == bytes_of(tensor)
            assert ours.entries[name].offset >= 0 and copy.is_contiguous()
        assert data_bytes(tmp_path / BIN) == sum(tensor.numel() * tensor.itemsize for tensor in state.values())

    @pytest.mark.parametrize(
        ("tensor", "words"),
        [
            (torch.ones(3).to_sparse(), "no dense tensor"),
            (torch.ones(3, device="meta"), "meta device"),
            ([1.0], "a list is no dense tensor"),
            (torch.tensor([1 + 2j]).conj(), "resolve_conj"),
        ],
    )
    def test_what_has_no_plain_memory_is_refused(self, tmp_path, tensor, words):
        with pytest.raises(SaveError, match=words) as caught:
            save_state({"w": tensor}, tmp_path / "x")
        assert caught.value.tensor == "w" and not (tmp_path / "x").exists()

    def test_overlap_is_refused(self, tmp_path):
        memory = torch.randn(25, 16)
        with pytest.raises(SaveError, match="share memory"):
            save_state({"a": memory[:24], "b": memory[1:]}, tmp_path / "x")
        assert not (tmp_path / "x").exists()


class TestFailure:
    def test_all_or_nothing(self, tmp_path, monkeypatch):
        old = tiny(1)
        old.save_pretrained(tmp_path)
        before = names(tmp_path)

        def write(tensors, path):
            Path(path).write_bytes(b"half")
            if "-00002-of-" in str(path):  # files are written by several threads
                raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")

        monkeypatch.setattr(torch, "save", write)
        with pytest.raises(SaveError, match=r"cannot write pytorch_model-0000\d-of-0000\d\.bin: .*failed writing"):
            save(tiny(2), tmp_path, max_shard_size="8KB")
        monkeypatch.undo()
        assert names(tmp_path) == before
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), old)

    def test_a_disk_that_is_full(self, tmp_path):
        """A limit on the size of files is the nearest to it that a test can have: torch's own writer meets it."""
        save(tiny(1), tmp_path)
        kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        code = """
import resource, signal, sys, torch
from pretrained import LlamaConfig, LlamaForCausalLM, SaveError
model = LlamaForCausalLM(LlamaConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                                     num_key_value_heads=2, intermediate_size=64, vocab_size=500))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    model.save_pretrained(sys.argv[1], safe_serialization=False)
except SaveError as error:
    print("refused", error)
"""
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.stdout.startswith("refused") and "pytorch_model.bin" in done.stdout, done.stderr
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept

    def test_read_only_links_are_replaced_and_not_written_through(self, tmp_path):
        """As in a cache, where the files of a snapshot are links to blobs."""
        save(tiny(1), tmp_path / "blobs")
        folder = tmp_path / "snapshot"
        folder.mkdir()
        for name in ("config.json", BIN):
            (folder / name).symlink_to(tmp_path / "blobs" / name)
        before = (tmp_path / "blobs" / BIN).read_bytes()
        new = tiny(2)
        save(new, folder)
        assert (tmp_path / "blobs" / BIN).read_bytes() == before
        assert not (folder / BIN).is_symlink()
        assert same_weights(AutoModelForCausalLM.from_pretrained(folder), new)

    def test_a_copy_in_an_old_format_is_read_again(self, tmp_path):
        model = tiny()
        save(model, tmp_path)
        state = load(tmp_path / BIN)
        shutil.copy(tmp_path / "config.json", tmp_path / "kept.json")
        torch.save(state, tmp_path / BIN, _use_new_zipfile_serialization=False)
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)
