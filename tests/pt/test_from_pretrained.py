"""from_pretrained as the contract has it, on BERT and Llama."""

from __future__ import annotations

import json
import logging
import shutil
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pretrained
from pretrained import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    ConfigError,
    InvalidOptionError,
    LlamaForCausalLM,
    LlamaModel,
    MismatchError,
    OptionError,
    ShardIndexError,
    SourceError,
    UntrustedPathError,
    WeightsFormatError,
)

FOLDERS = ["torch-safetensors", "torch-safetensors-sharded"]


def outputs_of(model, folder):
    batch = {name: torch.from_numpy(array) for name, array in np.load(folder / "inputs.npz").items()}
    with torch.no_grad():
        return model(**batch), batch["attention_mask"].bool()


class TestParity:
    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    @pytest.mark.parametrize("folder", [*FOLDERS, "torch-base-only"])
    @pytest.mark.parametrize(
        ("family", "auto"),
        [
            ("bert", AutoModel),
            ("bert", AutoModelForPreTraining),
            ("bert", AutoModelForMaskedLM),
            ("llama", AutoModel),
            ("llama", AutoModelForCausalLM),
        ],
    )
    def test_outputs_equal_the_reference(self, reference, family, auto, folder, attention):
        if folder == "torch-base-only" and auto is not AutoModel:
            return
        model = auto.from_pretrained(reference / family / folder, attn_implementation=attention)
        assert model.config._attn_implementation == attention
        found, mask = outputs_of(model, reference / family)
        expected = np.load(reference / family / "expected.npz")
        names = [n for n in expected.files if n.startswith(f"torch/{type(model).__name__}/")]
        assert names
        for name in names:
            difference = np.abs(found[name.rpartition("/")[2]].numpy() - expected[name])
            # What a decoder computes at padding is nobody's business.
            assert (difference[mask.numpy()] if family == "llama" else difference).max() <= 2e-5

    @pytest.mark.parametrize(("family", "auto"), [("bert", AutoModelForPreTraining), ("llama", AutoModelForCausalLM)])
    def test_bfloat16_variant(self, reference, family, auto):
        plain = auto.from_pretrained(reference / family / "torch-safetensors-bf16")
        variant = auto.from_pretrained(reference / family / "torch-safetensors-variant-bf16", variant="bf16")
        cast = auto.from_pretrained(reference / family / "torch-safetensors", dtype="bfloat16")
        for (name, one), two, three in zip(
            plain.named_parameters(), variant.parameters(), cast.parameters(), strict=True
        ):
            assert one.dtype == torch.bfloat16
            assert torch.equal(one, two) and torch.equal(one, three), name


class TestSources:
    def test_one_weight_file(self, reference):
        folder = reference / "bert" / "torch-safetensors"
        model = AutoModel.from_pretrained(folder / "model.safetensors")
        assert torch.equal(
            model.embeddings.word_embeddings.weight, AutoModel.from_pretrained(folder).get_input_embeddings().weight
        )

    def test_one_weight_file_with_a_config_beside(self, reference, tmp_path):
        shutil.copy(reference / "bert" / "torch-safetensors" / "model.safetensors", tmp_path / "weights.safetensors")
        with pytest.raises(SourceError, match=r"no config.json beside the weights"):
            BertModel.from_pretrained(tmp_path / "weights.safetensors")
        config = AutoConfig.from_pretrained(reference / "bert" / "torch-safetensors")
        assert BertModel.from_pretrained(tmp_path / "weights.safetensors", config=config).num_parameters() > 0

    def test_an_index(self, reference):
        folder = reference / "llama" / "torch-safetensors-sharded"
        model = LlamaForCausalLM.from_pretrained(folder / "model.safetensors.index.json")
        assert model.num_parameters() == LlamaForCausalLM.from_pretrained(folder).num_parameters()

    def test_subfolder(self, reference):
        model = AutoModel.from_pretrained(str(reference / "bert"), subfolder="torch-safetensors")
        assert isinstance(model, BertModel)
        with pytest.raises(SourceError, match="no folder 'nowhere'"):
            AutoModel.from_pretrained(reference / "bert", subfolder="nowhere")
        with pytest.raises(UntrustedPathError):
            AutoModel.from_pretrained(reference / "bert", subfolder="../bert/torch-safetensors")

    def test_state_dict_in_place_of_files(self, reference):
        folder = reference / "llama" / "torch-safetensors"
        model = LlamaForCausalLM.from_pretrained(folder)
        state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
        for source in (folder, None):
            loaded = LlamaForCausalLM.from_pretrained(source, config=model.config, state_dict=state)
            assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in state.items())
        loaded.lm_head.weight.data.zero_()
        assert state["lm_head.weight"].abs().sum() > 0, "the caller's tensors must stay the caller's"

    def test_none_needs_config_and_state_dict(self):
        with pytest.raises(OptionError, match="config= and state_dict="):
            BertModel.from_pretrained(None)
        with pytest.raises(OptionError, match="state_dict="):
            BertModel.from_pretrained(None, config=BertConfig())

    def test_nothing_there(self, tmp_path, reference):
        with pytest.raises(SourceError, match=r"no file or folder .*nowhere"):
            AutoModel.from_pretrained(tmp_path / "nowhere")
        with pytest.raises(SourceError, match=r"no config\.json"):
            AutoModel.from_pretrained(tmp_path)
        shutil.copy(reference / "bert" / "torch-safetensors" / "config.json", tmp_path)
        with pytest.raises(SourceError, match=r"looked for model\.safetensors or model\.safetensors\.index\.json"):
            AutoModel.from_pretrained(tmp_path)
        (tmp_path / "weights.h5").write_bytes(b"x")
        with pytest.raises(SourceError, match=r"weights\.h5, which is another format"):
            AutoModel.from_pretrained(tmp_path)

    def test_a_variant_that_is_not_there(self, reference):
        with pytest.raises(SourceError, match=r"there is model\.safetensors \(no variant\)"):
            AutoModel.from_pretrained(reference / "bert" / "torch-safetensors", variant="fp16")
        with pytest.raises(SourceError, match=r"variant='bf16'"):
            AutoModel.from_pretrained(reference / "bert" / "torch-safetensors-variant-bf16")

    def test_offline_and_not_cached(self, tmp_path):
        with pytest.raises(OSError, match=r"organisation/name@main is not in the cache"):
            AutoModel.from_pretrained("organisation/name", local_files_only=True, cache_dir=tmp_path)


class TestConfig:
    def test_an_instance_is_copied(self, reference):
        config = AutoConfig.from_pretrained(reference / "bert" / "torch-safetensors")
        before = config.to_dict()
        model = BertModel.from_pretrained(
            reference / "bert" / "torch-safetensors", config=config, attention_probs_dropout_prob=0.5, dtype="float16"
        )
        assert model.config is not config and config.to_dict() == before
        assert model.config.attention_probs_dropout_prob == 0.5

    def test_a_path(self, reference):
        folder = reference / "bert" / "torch-safetensors"
        for path in (folder, folder / "config.json", str(folder)):
            assert BertModel.from_pretrained(folder, config=path).config.hidden_size == 32

    def test_keywords_override_fields(self, reference):
        model = BertForSequenceClassification.from_pretrained(
            reference / "bert" / "torch-safetensors", num_labels=7, hidden_act="relu", output_hidden_states=True
        )
        assert model.config.num_labels == 7 and model.classifier.out_features == 7
        assert model.config.hidden_act == "relu" and len(model(torch.ones(1, 3, dtype=torch.long)).hidden_states) == 3

    @pytest.mark.parametrize(
        ("keyword", "near"),
        [("reviison", "revision"), ("hidden_dropout", "hidden_dropout_prob"), ("torch_dtpye", "torch_dtype")],
    )
    def test_a_typo_is_named(self, reference, keyword, near):
        with pytest.raises(OptionError, match=rf"no option '{keyword}'; did you mean '{near}'\?") as caught:
            AutoModel.from_pretrained(reference / "bert" / "torch-safetensors", **{keyword: 1})
        assert isinstance(caught.value, TypeError) and caught.value.key == keyword

    def test_an_override_is_checked(self, reference):
        with pytest.raises(ConfigError, match="hidden_dropout_prob"):
            AutoModel.from_pretrained(reference / "bert" / "torch-safetensors", hidden_dropout_prob="a lot")

    def test_attention_that_is_not_there(self, reference):
        with pytest.raises(InvalidOptionError, match=r"'flsh'.*eager"):
            AutoModel.from_pretrained(reference / "bert" / "torch-safetensors", attn_implementation="flsh")

    def test_a_head_the_family_lacks(self, reference):
        with pytest.raises(InvalidOptionError, match=r"AutoModelForMaskedLM has no class for LlamaConfig"):
            AutoModelForMaskedLM.from_pretrained(reference / "llama" / "torch-safetensors")

    def test_another_family(self, reference, caplog):
        with pytest.raises(MismatchError, match="matches no tensor"):
            LlamaModel.from_pretrained(
                reference / "bert" / "torch-safetensors",
                config=AutoConfig.from_pretrained(reference / "llama" / "torch-safetensors"),
            )


class TestDtype:
    def test_auto_follows_the_config_then_the_first_tensor(self, reference, tmp_path):
        folder = reference / "bert" / "torch-safetensors-bf16"
        assert AutoModel.from_pretrained(folder).dtype == torch.bfloat16
        shutil.copytree(folder, tmp_path / "copy")
        path = tmp_path / "copy" / "config.json"
        values = json.loads(path.read_text())
        values.pop("dtype")
        path.write_text(json.dumps(values))
        assert AutoModel.from_pretrained(tmp_path / "copy", dtype="auto").dtype == torch.bfloat16
        path.write_text(json.dumps({**values, "torch_dtype": "float16"}))
        assert AutoModel.from_pretrained(tmp_path / "copy").dtype == torch.float16

    @pytest.mark.parametrize("dtype", ["float16", torch.float16, torch.float64, "bfloat16"])
    def test_asked_for(self, reference, dtype):
        exact = AutoModelForPreTraining.from_pretrained(reference / "bert" / "torch-safetensors")
        model = AutoModelForPreTraining.from_pretrained(reference / "bert" / "torch-safetensors", dtype=dtype)
        wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        assert model.config.dtype == str(wanted).removeprefix("torch.")
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, exact.get_parameter(name).to(wanted))

    def test_by_module(self, reference):
        model = AutoModelForPreTraining.from_pretrained(
            reference / "bert" / "torch-safetensors",
            dtype={"": "bfloat16", "cls": "float32", "bert.encoder.layer.1": torch.float16},
        )
        for name, parameter in model.named_parameters():
            layer_1 = name.startswith("bert.encoder.layer.1.")
            head = name.startswith("cls.")
            assert parameter.dtype == (torch.float16 if layer_1 else torch.float32 if head else torch.bfloat16), name

    def test_kept_in_float32(self, reference):
        class Kept(BertModel):
            _keep_in_fp32_modules = ["LayerNorm"]

        model = Kept.from_pretrained(reference / "bert" / "torch-safetensors", dtype=torch.float16)
        for name, parameter in model.named_parameters():
            assert parameter.dtype == (torch.float32 if "LayerNorm" in name else torch.float16)

    def test_overflow_is_reported(self, reference, tmp_path, caplog):
        tensors = load_file(reference / "bert" / "torch-safetensors" / "model.safetensors")
        tensors["bert.pooler.dense.bias"][3] = 1e30
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        shutil.copy(reference / "bert" / "torch-safetensors" / "config.json", tmp_path)
        _, info = AutoModelForPreTraining.from_pretrained(tmp_path, dtype="float16", output_loading_info=True)
        assert info.conflicts == ["bert.pooler.dense.bias has values beyond float16: they became infinite"]
        assert AutoModelForPreTraining.from_pretrained(tmp_path, dtype="bfloat16", output_loading_info=True)[1].is_clean
        tensors["bert.pooler.dense.bias"][3] = 3.4e38  # rounds up to infinity
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        _, info = AutoModelForPreTraining.from_pretrained(tmp_path, dtype="bfloat16", output_loading_info=True)
        assert info.conflicts == ["bert.pooler.dense.bias has values beyond bfloat16: they became infinite"]
        tensors["bert.pooler.dense.bias"][3] = float("inf")  # infinite before, so nothing is lost
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        assert AutoModelForPreTraining.from_pretrained(tmp_path, dtype="bfloat16", output_loading_info=True)[1].is_clean
        tensors["bert.pooler.dense.bias"][3] = 1e30
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(MismatchError, match="beyond float16"):
            AutoModelForPreTraining.from_pretrained(tmp_path, dtype="float16", strict=True)

    @pytest.mark.parametrize("dtype", ["float99", "load", "__builtins__", "int64", 3])
    def test_no_dtype(self, reference, dtype):
        with pytest.raises(InvalidOptionError):
            AutoModel.from_pretrained(reference / "bert" / "torch-safetensors", dtype=dtype)

    def test_threads_with_different_dtypes(self, reference):
        exact = AutoModel.from_pretrained(reference / "bert" / "torch-safetensors").state_dict()
        failures = []

        def work(dtype):
            try:
                for _ in range(15):
                    model = AutoModel.from_pretrained(reference / "bert" / "torch-safetensors", dtype=dtype)
                    for name, tensor in model.state_dict().items():
                        assert torch.equal(tensor, exact[name].to(dtype))
                    llama = AutoModelForCausalLM.from_pretrained(reference / "llama" / "torch-safetensors", dtype=dtype)
                    assert {p.dtype for p in llama.parameters()} == {dtype}
            except BaseException as error:
                failures.append(error)

        dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
        threads = [threading.Thread(target=work, args=(dtype,)) for dtype in dtypes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert torch.get_default_dtype() == torch.float32 and torch.nn.Linear(2, 2).weight.device.type == "cpu"


class TestDisagreements:
    def test_mismatched_sizes_are_one_error_before_any_read(self, reference):
        with pytest.raises(MismatchError) as caught:
            AutoModelForPreTraining.from_pretrained(
                reference / "bert" / "torch-safetensors", vocab_size=77, intermediate_size=40
            )
        text = str(caught.value)
        assert "checkpoint [99, 32], model [77, 32]" in text and "checkpoint [37, 32], model [40, 32]" in text
        assert "ignore_mismatched_sizes=True" in text and isinstance(caught.value, RuntimeError)
        assert caught.value.tensor == "bert.embeddings.word_embeddings.weight" and caught.value.path.endswith(
            "safetensors"
        )

    def test_ignored_mismatches_are_initialised_and_reported(self, reference):
        model, info = AutoModelForPreTraining.from_pretrained(
            reference / "bert" / "torch-safetensors",
            vocab_size=77,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        names = {name for name, _, _ in info["mismatched_keys"]}
        assert names == {"bert.embeddings.word_embeddings.weight", "cls.predictions.bias"}
        assert ("cls.predictions.bias", (99,), (77,)) in info["mismatched_keys"]
        weight = model.get_input_embeddings().weight
        assert weight.shape == (77, 32) and 0.01 < weight.std() < 0.03 and torch.equal(weight[0], torch.zeros(32))
        assert model.cls.predictions.decoder.weight is weight

    def test_strict(self, reference):
        folder = reference / "bert" / "torch-safetensors"
        assert AutoModelForPreTraining.from_pretrained(folder, strict=True)
        with pytest.raises(MismatchError, match=r"not a parameter of the model"):
            AutoModel.from_pretrained(folder, strict=True)
        with pytest.raises(MismatchError, match=r"classifier\.weight: missing"):
            BertForSequenceClassification.from_pretrained(folder, strict=True)

    def test_key_mapping(self, reference, tmp_path):
        tensors = load_file(reference / "llama" / "torch-safetensors" / "model.safetensors")
        renamed = {name.replace("model.layers", "transformer.h"): tensor for name, tensor in tensors.items()}
        save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
        shutil.copy(reference / "llama" / "torch-safetensors" / "config.json", tmp_path)
        model, info = LlamaForCausalLM.from_pretrained(
            tmp_path, key_mapping={r"^transformer\.h": "model.layers"}, output_loading_info=True
        )
        assert info.is_clean
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in tensors.items())
        model.save_pretrained(tmp_path / "out")
        assert load_file(tmp_path / "out" / "model.safetensors").keys() == renamed.keys()
        with pytest.raises(InvalidOptionError, match="no regular expression"):
            LlamaForCausalLM.from_pretrained(tmp_path, key_mapping={"(": "x"})

    def test_legacy_names(self, reference, tmp_path):
        tensors = load_file(reference / "bert" / "torch-safetensors" / "model.safetensors")
        legacy = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in tensors.items()
        }
        legacy["bert.embeddings.position_ids"] = torch.arange(40)[None]
        save_file(legacy, tmp_path / "model.safetensors", {"format": "pt"})
        shutil.copy(reference / "bert" / "torch-safetensors" / "config.json", tmp_path)
        model, info = AutoModelForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
        assert info.is_clean
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in tensors.items())

    def test_the_report_is_one_warning(self, reference, caplog):
        BertForSequenceClassification.from_pretrained(reference / "bert" / "torch-safetensors")
        records = [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(records) == 1 and "classifier.weight" in records[0].getMessage()


class TestDamage:
    @pytest.fixture
    def folder(self, reference, tmp_path):
        return shutil.copytree(reference / "bert" / "torch-safetensors", tmp_path / "bert")

    @pytest.fixture
    def shards(self, reference, tmp_path):
        return shutil.copytree(reference / "bert" / "torch-safetensors-sharded", tmp_path / "shards")

    @pytest.mark.parametrize("size", [0, 7, 8, 100, 2000, -1])
    def test_truncated(self, folder, size):
        path = folder / "model.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:size])
        with pytest.raises(WeightsFormatError, match=r"model\.safetensors") as caught:
            AutoModel.from_pretrained(folder)
        assert caught.value.path == str(path) and isinstance(caught.value, OSError)

    def test_a_missing_shard(self, shards):
        (shards / "model-00002-of-00003.safetensors").unlink()
        with pytest.raises(ShardIndexError, match=r"model-00002-of-00003\.safetensors"):
            AutoModel.from_pretrained(shards)

    def test_a_shard_of_another_model(self, shards, reference):
        shutil.copy(
            reference / "llama" / "torch-safetensors-sharded" / "model-00002-of-00002.safetensors",
            shards / "model-00002-of-00003.safetensors",
        )
        with pytest.raises(WeightsFormatError, match=r"model-00002-of-00003\.safetensors"):
            AutoModel.from_pretrained(shards)

    def test_a_stale_single_file_beside_an_index(self, shards, folder):
        shutil.copytree(folder, shards, dirs_exist_ok=True)
        with pytest.raises(ShardIndexError, match="two checkpoints in one folder"):
            AutoModel.from_pretrained(shards)

    def test_a_shard_outside(self, shards):
        path = shards / "model.safetensors.index.json"
        path.write_text(path.read_text().replace("model-00002-of-00003", "../model-00002-of-00003"))
        with pytest.raises(UntrustedPathError, match=r"\.\./model"):
            AutoModel.from_pretrained(shards)

    def test_more_layers_than_anyone_has(self, folder):
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 1000000000'))
        with pytest.raises(ConfigError, match="num_hidden_layers"):
            AutoModel.from_pretrained(folder)

    def test_more_labels_than_memory(self, folder):
        with pytest.raises(ConfigError, match=r"classifier\.weight"):
            BertForSequenceClassification.from_pretrained(folder, num_labels=2**31 - 1)

    @pytest.mark.parametrize("act", ["os.system", "__class__", "gelu2"])
    def test_an_activation_nobody_knows(self, folder, act):
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"hidden_act": "gelu"', f'"hidden_act": "{act}"'))
        with pytest.raises(ConfigError, match="hidden_act"):
            AutoModel.from_pretrained(folder)

    def test_config_does_not_vote_on_trust(self, folder):
        path = folder / "config.json"
        values = json.loads(path.read_text())
        values |= {"trust_remote_code": True, "auto_map": {"AutoModel": "evil.Model"}}
        values |= {"_attn_implementation_internal": "evil/kernel", "_attn_implementation": "evil/kernel"}
        (folder / "evil.py").write_text("raise SystemExit('ran')")
        path.write_text(json.dumps(values))
        model = AutoModel.from_pretrained(folder)
        assert isinstance(model, BertModel) and model.config._attn_implementation == "sdpa"
        path.write_text(json.dumps({**values, "model_type": "evil"}))
        with pytest.raises(pretrained.UntrustedCodeError, match=r"evil\.Model"):
            AutoModel.from_pretrained(folder)

    def test_a_failed_load_leaves_nothing_behind(self, folder):
        import os

        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        before = len(os.listdir("/proc/self/fd")), threading.active_count()
        for _ in range(20):
            with pytest.raises(WeightsFormatError):
                BertForMaskedLM.from_pretrained(folder)
        assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_shards_in_a_folder_below(reference, tmp_path):
    folder = shutil.copytree(reference / "bert" / "torch-safetensors-sharded", tmp_path / "bert")
    (folder / "parts").mkdir()
    for path in folder.glob("model-*.safetensors"):
        path.rename(folder / "parts" / path.name)
    index = folder / "model.safetensors.index.json"
    with pytest.raises(ShardIndexError, match="3 of 3 shards are missing"):
        AutoModel.from_pretrained(folder)
    index.write_text(index.read_text().replace('"model-', '"parts/model-'))
    assert AutoModelForPreTraining.from_pretrained(folder, strict=True)


class TestTorchBin:
    @pytest.mark.parametrize("folder", ["torch-bin", "torch-bin-sharded", "torch-bin-fp16"])
    def test_equals_safetensors(self, reference, folder):
        model, info = AutoModelForPreTraining.from_pretrained(reference / "bert" / folder, output_loading_info=True)
        assert info.is_clean
        exact = AutoModelForPreTraining.from_pretrained(reference / "bert" / "torch-safetensors")
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, exact.get_parameter(name).to(model.dtype)), name
        assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight

    def test_use_safetensors(self, reference, tmp_path):
        folder = shutil.copytree(reference / "bert" / "torch-bin", tmp_path / "bert")
        with pytest.raises(SourceError, match=r"use_safetensors=True leaves out the rest; there is pytorch_model\.bin"):
            AutoModel.from_pretrained(folder, use_safetensors=True)
        model = AutoModelForPreTraining.from_pretrained(folder)
        with torch.no_grad():
            model.cls.predictions.bias.add_(1)
        model.save_pretrained(folder)
        assert torch.equal(
            AutoModelForPreTraining.from_pretrained(folder).cls.predictions.bias, model.cls.predictions.bias
        )
        other = AutoModelForPreTraining.from_pretrained(folder, use_safetensors=False)
        assert torch.equal(other.cls.predictions.bias + 1, model.cls.predictions.bias)

    def test_a_pickle_runs_nothing(self, reference, tmp_path):
        shutil.copy(reference / "bert" / "torch-bin" / "config.json", tmp_path)
        torch.save({"weight": torch.zeros(2), "evil": Evil(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
        with pytest.raises(WeightsFormatError, match=r"pytorch_model\.bin"):
            AutoModel.from_pretrained(tmp_path)
        assert not (tmp_path / "ran").exists()


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))
