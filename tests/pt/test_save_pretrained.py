"""save_pretrained: what is written, what is removed, what is left alone, and that a load sees old or new."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from pretrained import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForPreTraining,
    BertConfig,
    BertForPreTraining,
    InvalidOptionError,
    LlamaConfig,
    LlamaForCausalLM,
    OptionError,
    SaveError,
)

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 50}


def tiny(seed=0, **kwargs):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**TINY, "num_key_value_heads": 1, **kwargs})).eval()


def same_weights(first, second):
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestFiles:
    def test_one_file(self, tmp_path):
        model = tiny()
        model.save_pretrained(tmp_path / "new" / "folder")
        assert names(tmp_path / "new" / "folder") == ["config.json", "generation_config.json", "model.safetensors"]
        with safe_open(tmp_path / "new" / "folder" / "model.safetensors", "pt") as file:
            assert file.metadata()["format"] == "pt"
            assert set(file.keys()) == set(model.state_dict())
        values = json.loads((tmp_path / "new" / "folder" / "config.json").read_text())
        assert values["model_type"] == "llama" and values["architectures"] == ["LlamaForCausalLM"]
        assert values["dtype"] == "float32" and values["hidden_size"] == 16

    def test_keys_out_are_keys_in(self, reference, tmp_path):
        for source in (reference / "bert" / "torch-safetensors", reference / "llama" / "torch-safetensors"):
            auto = AutoModelForPreTraining if "bert" in str(source) else AutoModelForCausalLM
            auto.from_pretrained(source).save_pretrained(tmp_path)
            ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(source / "model.safetensors")
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_config_round_trip(self, reference, tmp_path):
        source = reference / "llama" / "torch-safetensors"
        model = AutoModelForCausalLM.from_pretrained(source)
        model.save_pretrained(tmp_path)
        before = json.loads((source / "config.json").read_text())
        after = json.loads((tmp_path / "config.json").read_text())
        assert {
            k: after.get(k, "gone") for k in before if k not in ("rope_scaling", "rope_theta", "rope_parameters")
        } == {k: v for k, v in before.items() if k not in ("rope_scaling", "rope_theta", "rope_parameters")}

    def test_data_is_aligned(self, tmp_path):
        from pretrained.checkpoint.formats.safetensors import read_header

        tiny().save_pretrained(tmp_path)
        entries = read_header(tmp_path / "model.safetensors").entries.values()
        assert all(entry.offset % 64 == 0 for entry in entries if entry.nbytes % 64 == 0)

    def test_mode_follows_the_umask(self, tmp_path):
        old = os.umask(0o027)
        try:
            tiny().save_pretrained(tmp_path)
        finally:
            os.umask(old)
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}

    def test_dtype_of_the_config_is_that_of_the_weights(self, tmp_path):
        tiny().to(torch.bfloat16).save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
        assert AutoModel.from_pretrained(tmp_path).dtype == torch.bfloat16


class TestShards:
    def test_packing_and_index(self, tmp_path):
        model = tiny()
        model.save_pretrained(tmp_path, max_shard_size="4KB")
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        total = sum(t.numel() * 4 for t in model.state_dict().values())
        assert index["metadata"]["total_size"] == total
        assert list(index["weight_map"]) == sorted(index["weight_map"]) and set(index["weight_map"]) == set(
            model.state_dict()
        )
        files = sorted(set(index["weight_map"].values()))
        assert files == [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
        for file in files:
            tensors = load_file(tmp_path / file)
            assert sum(t.nbytes for t in tensors.values()) <= 4000 or len(tensors) == 1
        text = (tmp_path / "model.safetensors.index.json").read_text()
        assert text == json.dumps(index, indent=2, sort_keys=True) + "\n"
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)

    @pytest.mark.parametrize("size", ["5 bananas", "", "-1", 0, -5, True, 1.5, "GB", None, "1e9"])
    def test_no_size(self, tmp_path, size):
        with pytest.raises(InvalidOptionError, match=r"size"):
            tiny().save_pretrained(tmp_path / "x", max_shard_size=size)
        assert not (tmp_path / "x").exists()

    @pytest.mark.parametrize(
        ("first", "second"), [("4KB", "5GB"), ("5GB", "4KB"), ("2KB", "8KB"), ("8KB", "2KB")], ids=lambda size: size
    )
    def test_nothing_stale_stays(self, tmp_path, first, second):
        old, new = tiny(1), tiny(2)
        old.save_pretrained(tmp_path, max_shard_size=first)
        (tmp_path / "notes.txt").write_text("mine")
        (tmp_path / "SHA256SUMS").write_text("")
        (tmp_path / "adapter_model.safetensors").write_text("mine too")
        new.save_pretrained(tmp_path, max_shard_size=second)
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), new)
        left = {name for name in names(tmp_path) if name.startswith("model")}
        (tmp_path / "fresh").mkdir()
        new.save_pretrained(tmp_path / "fresh", max_shard_size=second)
        assert left == {name for name in names(tmp_path / "fresh") if name.startswith("model")}
        assert (tmp_path / "notes.txt").read_text() == "mine"
        assert not (tmp_path / "SHA256SUMS").exists(), "it would not be true any more"
        assert (tmp_path / "adapter_model.safetensors").read_text() == "mine too"

    def test_variants_live_side_by_side(self, tmp_path):
        old, new = tiny(1), tiny(2)
        old.save_pretrained(tmp_path)
        new.save_pretrained(tmp_path, variant="fp16", max_shard_size="4KB")
        new.save_pretrained(tmp_path, variant="fp16", max_shard_size="8KB")
        assert "model.safetensors.index.fp16.json" in names(tmp_path)
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), old)
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path, variant="fp16"), new)
        new.save_pretrained(tmp_path, variant="fp16")
        assert names(tmp_path) == [
            "config.json",
            "generation_config.json",
            "model.fp16.safetensors",
            "model.safetensors",
        ]


class TestInTheBackground:
    def test_what_is_written_is_what_was_there(self, tmp_path):
        model = BertForPreTraining(BertConfig(**TINY)).eval()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        future = model.save_pretrained(tmp_path, blocking=False, max_shard_size="8KB")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        report = future.result(60)
        assert report.total_size == sum(p.numel() * p.element_size() for p in model.parameters())
        assert "cls.predictions.decoder.weight" in report.tied  # copies are tied as their originals are
        loaded = AutoModelForPreTraining.from_pretrained(tmp_path).state_dict()
        assert loaded.keys() == before.keys()
        assert all(torch.equal(loaded[name], before[name]) for name in before)

    def test_blocking_returns_nothing(self, tmp_path):
        assert tiny().save_pretrained(tmp_path) is None
        assert tiny().save_pretrained(tmp_path, blocking=True) is None
        assert tiny().save_pretrained(tmp_path / "x", blocking=False, is_main_process=False) is None

    def test_a_failure_is_told(self, tmp_path, caplog):
        (tmp_path / "file").write_text("x")
        future = tiny().save_pretrained(tmp_path / "file", blocking=False)
        with pytest.raises(SaveError, match="it is a file"):
            future.result(60)
        deadline = threading.Event()
        for _ in range(200):  # the log line comes from another thread, after the result
            if "saving to" in caplog.text:
                break
            deadline.wait(0.05)
        assert "it is a file" in caplog.text

    def test_the_interpreter_waits_for_it(self, tmp_path):
        code = (
            "import sys, torch\n"
            "from pretrained import LlamaConfig, LlamaForCausalLM\n"
            f"model = LlamaForCausalLM(LlamaConfig(num_key_value_heads=1, **{TINY!r}))\n"
            "model.save_pretrained(sys.argv[1], blocking=False)\n"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
        assert names(tmp_path) == ["config.json", "generation_config.json", "model.safetensors"]


class TestArguments:
    def test_only_the_main_process_writes(self, tmp_path):
        tiny().save_pretrained(tmp_path / "x", is_main_process=False)
        assert not (tmp_path / "x").exists()

    def test_state_dict(self, tmp_path):
        model = tiny()
        state = {name: tensor * 2 for name, tensor in model.state_dict().items()}
        model.save_pretrained(tmp_path, state_dict=state)
        assert all(torch.equal(t, state[n]) for n, t in load_file(tmp_path / "model.safetensors").items())

    def test_save_function(self, tmp_path):
        calls = []

        def write(tensors, path):
            calls.append(len(tensors))
            torch.save(tensors, path)

        model = tiny()
        model.save_pretrained(tmp_path, save_function=write, max_shard_size="8KB", safe_serialization=False)
        assert len(calls) > 1 and sum(calls) == len(model.state_dict())
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)

    def test_save_function_leaves_safetensors_alone(self, tmp_path):
        model = tiny()
        model.save_pretrained(tmp_path, save_function=torch.save)  # a PyTorch archive is no safetensors file
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)

    def test_keys_to_ignore(self, tmp_path):
        class Quiet(BertForPreTraining):
            _keys_to_ignore_on_save = [r"seq_relationship"]

        Quiet(BertConfig(**TINY)).save_pretrained(tmp_path)
        assert not any("seq_relationship" in name for name in load_file(tmp_path / "model.safetensors"))

    def test_unknown_and_unsupported(self, tmp_path):
        with pytest.raises(OptionError, match="max_shard"):
            tiny().save_pretrained(tmp_path, max_shard="1GB")
        for keyword in ({"push_to_hub": "yes"}, {"blocking": 1}, {"durable": "no"}, {"variant": "../x"}):
            with pytest.raises(InvalidOptionError):
                tiny().save_pretrained(tmp_path / "x", **keyword)
        assert not (tmp_path / "x").exists()

    def test_a_file_in_the_way(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(SaveError, match="it is a file"):
            tiny().save_pretrained(tmp_path / "file")
        assert (tmp_path / "file").read_text() == "x"

    def test_generation_config_comes_along(self, reference, tmp_path):
        source = reference / "llama" / "torch-safetensors"
        model = AutoModelForCausalLM.from_pretrained(source)
        model.save_pretrained(tmp_path)
        before = json.loads((source / "generation_config.json").read_text())
        assert json.loads((tmp_path / "generation_config.json").read_text()) == before


class TestMemory:
    def test_tied_weights_once(self, tmp_path):
        model = tiny(tie_word_embeddings=True)
        model.save_pretrained(tmp_path)
        assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)

    def test_tied_by_hand_comes_back_as_values(self, tmp_path):
        model = tiny()
        model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
        model.save_pretrained(tmp_path)
        assert "model.layers.1.mlp.up_proj.weight" not in load_file(tmp_path / "model.safetensors")
        loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
        assert info.is_clean and same_weights(loaded, model)
        loaded.model.layers[1].mlp.up_proj.weight.data.zero_()
        assert loaded.model.layers[0].mlp.up_proj.weight.abs().sum() > 0

    def test_views_of_one_memory(self, tmp_path):
        model = tiny()
        fused = torch.randn(2, 24, 16)
        model.model.layers[0].mlp.up_proj.weight = nn.Parameter(fused[0])
        model.model.layers[0].mlp.gate_proj.weight = nn.Parameter(fused[1])
        model.save_pretrained(tmp_path)
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)

    def test_overlap_is_refused_and_nothing_written(self, tmp_path):
        model = tiny()
        memory = torch.randn(25, 16)
        model.model.layers[0].mlp.up_proj.weight = nn.Parameter(memory[:24])
        model.model.layers[0].mlp.gate_proj.weight = nn.Parameter(memory[1:])
        with pytest.raises(SaveError, match=r"gate_proj.*up_proj|up_proj.*gate_proj"):
            model.save_pretrained(tmp_path / "x")
        assert not (tmp_path / "x").exists()

    def test_not_contiguous(self, tmp_path):
        model = tiny()
        model.lm_head.weight = nn.Parameter(torch.randn(16, 50).t())
        model.save_pretrained(tmp_path)
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)

    def test_meta_is_refused(self, tmp_path):
        with torch.device("meta"):
            model = tiny()
        with pytest.raises(SaveError, match="meta device"):
            model.save_pretrained(tmp_path / "x")


class TestPlaces:
    def test_over_the_files_it_is_mapped_from(self, tmp_path):
        tiny(1).save_pretrained(tmp_path)
        model = AutoModelForCausalLM.from_pretrained(tmp_path)
        other = AutoModelForCausalLM.from_pretrained(tmp_path)
        with torch.no_grad():
            model.lm_head.weight.mul_(2)
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        model.save_pretrained(tmp_path)
        model.save_pretrained(tmp_path, max_shard_size="4KB")
        assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)
        assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())

    def test_links_into_a_cache_are_replaced_not_written_through(self, tmp_path):
        tiny(1).save_pretrained(tmp_path / "source")
        home = tmp_path / "hub" / "models--org--name"
        (home / "blobs").mkdir(parents=True)
        snapshot = home / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True)
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text("a" * 40)
        blobs = {}
        for path in (tmp_path / "source").iterdir():
            blob = home / "blobs" / path.name.replace(".", "")
            shutil.copy(path, blob)
            (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
            blobs[blob] = blob.read_bytes()
        model = AutoModelForCausalLM.from_pretrained("org/name", cache_dir=tmp_path / "hub", local_files_only=True)
        assert same_weights(model, tiny(1)) and model.config._commit_hash == "a" * 40
        new = tiny(2)
        new.save_pretrained(snapshot)
        assert all(blob.read_bytes() == content for blob, content in blobs.items())
        assert not (snapshot / "model.safetensors").is_symlink()
        assert same_weights(AutoModelForCausalLM.from_pretrained(snapshot), new)

    def test_loads_while_another_thread_saves(self, tmp_path):
        models = [tiny(1), tiny(2)]
        models[0].save_pretrained(tmp_path)
        stop, failures, loads = threading.Event(), [], []

        def load():
            while not stop.is_set():
                try:
                    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
                    loads.append(1)
                    if not any(same_weights(loaded, model) for model in models):
                        failures.append("a mixture")
                except BaseException as error:
                    failures.append(error)

        thread = threading.Thread(target=load)
        thread.start()
        for i in range(20):
            models[i % 2].save_pretrained(tmp_path, max_shard_size=["5GB", "4KB", "8KB"][i % 3], durable=False)
        stop.set()
        thread.join()
        assert loads and not failures, failures[:3]
