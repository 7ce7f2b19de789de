"""Quantization of torch models: while loading, saved, loaded again, and as transformers has saved it."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
import weakref
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pretrained
from pretrained import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    TorchAoConfig,
)
from pretrained.errors import (
    ConfigError,
    InvalidOptionError,
    MismatchError,
    MissingFrameworkError,
    OptionError,
    SaveError,
    TensorError,
)
from pretrained.pt.quantization import base
from pretrained.pt.slots import bytes_of

REFERENCE = Path(__file__).parents[1] / "reference" / "quantized"
FULL = REFERENCE / "full"
EXPECTED = dict(np.load(REFERENCE / "expected.npz"))
IDS = torch.from_numpy(EXPECTED["ids"])

SCHEMES: dict[str, Any] = {
    "int8wo": TorchAoConfig("int8_weight_only"),
    "int8dyn": TorchAoConfig("int8_dynamic_activation_int8_weight"),
    "float8wo": TorchAoConfig("float8_weight_only"),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
    "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "nf4-double": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "fp4-bfloat16": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage=torch.bfloat16),
}
# Largest distance of the logits from those of the full model, as a share of their norm.
# The weights are random and large: each rounded bit shows. What is computed is compared closely further below.
TOLERANCE = {"int8wo": 0.022, "int8dyn": 0.032, "float8wo": 0.07, "int8": 0.03, "nf4": 0.35, "nf4-double": 0.35}
TOLERANCE["fp4-bfloat16"] = 0.43
NUM_LAYERS = 7  # linear layers in the one block


def is_installed(library: str) -> bool:
    if find_spec(library) is None:
        return False
    with warnings.catch_warnings():  # what another library warns of while it is imported is not ours
        warnings.simplefilter("ignore")
        import_module(library)
        if library == "torchao":
            import_module("torchao.prototype.safetensors.safetensors_utils")
    return True


INSTALLED = {library: is_installed(library) for library in ("torchao", "bitsandbytes")}


def needs(library: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.quant, pytest.mark.skipif(not INSTALLED[library], reason=f"{library} is not installed")]


def each(names: Any = SCHEMES) -> Any:
    found = [pytest.param(name, marks=needs(SCHEMES[name].quant_method)) for name in names]
    return pytest.mark.parametrize("name", found)


with_bitsandbytes = [pytest.param("nf4", marks=needs("bitsandbytes"))]
with_torchao = [pytest.param("int8wo", marks=needs("torchao"))]
NF4 = pytest.mark.parametrize("name", with_bitsandbytes)
ONE_OF_EACH = each(["int8wo", "int8", "nf4"])


def load(place: Any, cls: Any = LlamaForCausalLM, **options: Any) -> Any:
    return cls.from_pretrained(place, **options)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits.float()


def distance(found: torch.Tensor, wanted: np.ndarray) -> float:
    reference = torch.from_numpy(wanted)
    return float((found - reference).norm() / reference.norm())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@each()
def test_logits_are_near_those_of_the_full_model(name: str, dtype: str) -> None:
    model, report = load(FULL, quantization_config=SCHEMES[name], dtype=dtype, output_loading_info=True, strict=True)
    assert report.is_clean and report.num_loaded == 12
    assert distance(logits(model), EXPECTED["full"]) < TOLERANCE[name]
    assert model.dtype == getattr(torch, dtype) and model.config.dtype == dtype
    assert not model.training


@each()
def test_what_a_quantized_model_says_of_itself(name: str) -> None:
    full, model = load(FULL), load(FULL, quantization_config=SCHEMES[name])
    assert model.is_quantized and not full.is_quantized and full.hf_quantizer is None
    assert model.quantization_method == SCHEMES[name].quant_method
    assert model.is_loaded_in_4bit == getattr(SCHEMES[name], "load_in_4bit", False)
    assert model.is_loaded_in_8bit == getattr(SCHEMES[name], "load_in_8bit", False)
    assert len(model.hf_quantizer.layers) == NUM_LAYERS
    assert model.config.quantization_config.modules_to_not_convert == ["lm_head"]
    assert type(model.lm_head) is torch.nn.Linear and model.lm_head.weight.dtype == torch.float32
    assert model.num_parameters() == full.num_parameters()


@each()
def test_memory_falls_to_what_the_parts_take(name: str) -> None:
    full, model = load(FULL), load(FULL, quantization_config=SCHEMES[name])
    num = sum(model.get_submodule(layer).in_features * model.get_submodule(layer).out_features
              for layer in model.hf_quantizer.layers)  # fmt: skip
    saved = full.get_memory_footprint() - model.get_memory_footprint()
    bits = SCHEMES[name].bits
    assert num * (4 - bits / 8) * 0.85 < saved < num * (4 - bits / 8)


@each()
def test_saved_and_loaded_again_it_has_the_same_bits(name: str, tmp_path: Path) -> None:
    model = load(FULL, quantization_config=SCHEMES[name], dtype="bfloat16")
    first = logits(model)  # before the save: computing must not change what is saved
    model.save_pretrained(tmp_path / "a", max_shard_size="20kB")
    again, report = load(tmp_path / "a", AutoModelForCausalLM, output_loading_info=True, strict=True)
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 1
    assert report.is_clean and again.is_quantized and again.hf_quantizer.is_pre_quantized
    assert torch.equal(logits(again), first)
    assert again.get_memory_footprint() == model.get_memory_footprint()
    model.save_pretrained(tmp_path / "b")
    again.save_pretrained(tmp_path / "c")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "b" / file).read_bytes() == (tmp_path / "c" / file).read_bytes()


STORED = {
    "torchao-int8": "torchao",
    "bnb-nf4": "bitsandbytes",
    "bnb-fp4-double": "bitsandbytes",
    "bnb-int8": "bitsandbytes",
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(library)) for name, library in STORED.items()])
@pytest.mark.parametrize("mmap", [True, False])
def test_what_transformers_quantized_and_saved(name: str, mmap: bool) -> None:
    model, report = load(REFERENCE / name, output_loading_info=True, strict=True, mmap=mmap)
    assert report.is_clean and len(model.hf_quantizer.layers) == NUM_LAYERS
    torch.testing.assert_close(logits(model), torch.from_numpy(EXPECTED[name]), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(library)) for name, library in STORED.items()])
def test_quantized_here_it_has_the_bits_that_transformers_gives(name: str, tmp_path: Path) -> None:
    stated = json.loads((REFERENCE / name / "config.json").read_text())["quantization_config"]
    load(FULL, quantization_config=stated).save_pretrained(tmp_path)
    mine, theirs = load_file(tmp_path / "model.safetensors"), load_file(REFERENCE / name / "model.safetensors")
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@ONE_OF_EACH
def test_one_full_weight_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []
    quantizer = type(load(FULL, quantization_config=SCHEMES[name]).hf_quantizer)
    quantize = quantizer.quantize

    def watched(self: Any, weight: torch.Tensor) -> torch.Tensor:
        assert not [one for one in seen if one() is not None], "the weight before is still there"
        seen.append(weakref.ref(weight))
        return quantize(self, weight)

    monkeypatch.setattr(quantizer, "quantize", watched)
    load(FULL, quantization_config=SCHEMES[name], dtype="bfloat16")
    assert len(seen) == NUM_LAYERS


@ONE_OF_EACH
def test_layers_that_stay(name: str) -> None:
    scheme = SCHEMES[name].to_dict()
    key = "llm_int8_skip_modules" if "llm_int8_skip_modules" in scheme else "modules_to_not_convert"
    for names, count in {("q_proj",): 7, ("model.layers.0.mlp", "lm_head"): 4, (): 8, ("proj",): 8}.items():
        model = load(FULL, quantization_config={**scheme, key: list(names)})
        assert len(model.hf_quantizer.layers) == count, names
        assert model.config.quantization_config.modules_to_not_convert == list(names)


@ONE_OF_EACH
def test_tied_and_absent_weights_stay_as_they_are(name: str, tmp_path: Path, caplog: Any) -> None:
    scheme = SCHEMES[name]
    tied = load(FULL, quantization_config=copy.deepcopy(scheme), tie_word_embeddings=True)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight and len(tied.hf_quantizer.layers) == NUM_LAYERS
    torch.manual_seed(0)
    classifier = load(FULL, LlamaForSequenceClassification, quantization_config=scheme, num_labels=3)
    assert "score.weight" in caplog.text
    assert type(classifier.score) is torch.nn.Linear and classifier.score.weight.requires_grad
    assert 0 < classifier.score.weight.std() < 1


@ONE_OF_EACH
def test_base_model_and_head_share_quantized_checkpoints(name: str, tmp_path: Path) -> None:
    model = load(FULL, quantization_config=SCHEMES[name])
    model.save_pretrained(tmp_path / "head")
    base_model = load(tmp_path / "head", LlamaModel)
    assert len(base_model.hf_quantizer.layers) == NUM_LAYERS
    with torch.no_grad():
        states, wanted = base_model(IDS)[0], model.model(IDS)[0]
    assert torch.equal(states, wanted)
    base_model.save_pretrained(tmp_path / "base")
    again = load(tmp_path / "base")
    with torch.no_grad():
        assert torch.equal(again.model(IDS)[0], wanted)
    assert type(again.lm_head) is torch.nn.Linear


@ONE_OF_EACH
def test_from_a_state_dict(name: str) -> None:
    state = load_file(FULL / "model.safetensors")
    config = load(FULL).config
    model = LlamaForCausalLM.from_pretrained(None, config=config, state_dict=state, quantization_config=SCHEMES[name])
    assert torch.equal(logits(model), logits(load(FULL, quantization_config=SCHEMES[name])))


@ONE_OF_EACH
def test_a_full_checkpoint_with_a_config_that_asks_for_it(name: str) -> None:
    config = load(FULL, quantization_config=SCHEMES[name]).config
    model = load(FULL, config=config)
    assert model.is_quantized and not model.hf_quantizer.is_pre_quantized
    plain = LlamaForCausalLM(config)
    assert not plain.is_quantized


@NF4
def test_a_model_that_is_not_quantized_does_not_save_that_it_is(name: str, tmp_path: Path) -> None:
    config = load(FULL, quantization_config=SCHEMES[name]).config
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    assert not load(tmp_path).is_quantized


@pytest.mark.parametrize(
    "flag", [pytest.param(f, marks=needs("bitsandbytes")) for f in ("load_in_8bit", "load_in_4bit")]
)
def test_the_older_flags(flag: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{flag}=True is deprecated"):
        model = load(FULL, **{flag: True})
    assert getattr(model, flag.replace("load", "is_loaded"))


@pytest.mark.parametrize("name", with_torchao)
def test_settings_as_an_object_of_torchaos(name: str) -> None:
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, PerTensor

    model = load(FULL, quantization_config=TorchAoConfig(Int8WeightOnlyConfig(granularity=PerTensor())))
    stated = json.loads(model.config.to_json_string())["quantization_config"]
    assert stated["quant_type"]["default"]["_data"]["granularity"]["_type"] == "PerTensor"
    assert distance(logits(model), EXPECTED["full"]) < 0.1
    with pytest.raises(InvalidOptionError, match="quant_type Int4WeightOnlyConfig is not supported"):
        TorchAoConfig(Int4WeightOnlyConfig())
    with pytest.raises(InvalidOptionError, match="torchao refuses the settings of Int8WeightOnlyConfig: "):
        load(FULL, quantization_config=TorchAoConfig("int8_weight_only", group_sizes=3))


@NF4
def test_saved_as_bin_or_in_the_background(name: str, tmp_path: Path) -> None:
    model = load(FULL, quantization_config=SCHEMES[name])
    model.save_pretrained(tmp_path / "bin", safe_serialization=False)
    assert torch.equal(logits(load(tmp_path / "bin")), logits(model))
    model.save_pretrained(tmp_path / "later", blocking=False).result()
    assert torch.equal(logits(load(tmp_path / "later")), logits(model))


@pytest.mark.parametrize("name", with_torchao)
def test_torchao_is_saved_as_safetensors_only(name: str, tmp_path: Path) -> None:
    model = load(FULL, quantization_config=SCHEMES[name])
    with pytest.raises(InvalidOptionError, match="safe_serialization: a model quantized by torchao is saved as safe"):
        model.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(SaveError, match=r"cannot save model.layers.0.*weight: a Int8Tensor is no dense tensor"):
        pretrained.save(model, tmp_path)
    assert not list(tmp_path.iterdir())
    model.save_pretrained(tmp_path, save_function=save_file)  # which stands for torch.save, and is not called here
    again = load(tmp_path)
    assert again.is_quantized and torch.equal(again(IDS).logits, model(IDS).logits)


# What a quantized model cannot do


@ONE_OF_EACH
def test_resized_embeddings_around_quantized_layers(name: str, tmp_path: Path) -> None:
    model = load(FULL, quantization_config=SCHEMES[name])
    before = logits(model)
    model.resize_token_embeddings(70)
    after = logits(model)
    assert after.shape[-1] == 70 and torch.equal(after[..., :64], before)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load(tmp_path)), after)


@ONE_OF_EACH
def test_quantized_heads_are_not_resized_nor_heads_pruned(name: str) -> None:
    scheme = base.replace_names(SCHEMES[name], [])
    model = load(FULL, quantization_config=scheme)
    with pytest.raises(InvalidOptionError, match=r"cannot change the vocabulary: lm_head is quantized by .*before it"):
        model.resize_token_embeddings(70)
    with pytest.raises(InvalidOptionError, match=r"cannot prune heads: .*q_proj is quantized by"):
        model.prune_heads({0: [1]})
    assert logits(model).shape[-1] == 64


@ONE_OF_EACH
def test_training_is_said_not_to_reach_quantized_weights(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model = load(FULL, quantization_config=SCHEMES[name])
    assert "do not train" not in caplog.text
    model.train().eval().train()
    assert caplog.text.count("7 layers are quantized by") == 1 and "their weights do not train" in caplog.text
    weight = model.model.layers[0].mlp.up_proj.weight
    assert not weight.requires_grad and model.lm_head.weight.requires_grad


@each()
def test_gradients_pass_where_it_is_said_that_they_do(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model, full = load(FULL, quantization_config=SCHEMES[name]).train(), load(FULL)
    for one in (model, full):
        one(IDS, labels=IDS).loss.backward()
    found, wanted = (one.model.embed_tokens.weight.grad for one in (model, full))
    is_near = bool((found - wanted).norm() < 0.5 * wanted.norm())
    assert is_near == (name != "int8dyn")
    assert ("No gradient passes through them either" in caplog.text) != is_near


@NF4
def test_copies_compute_the_same(name: str) -> None:
    model = load(FULL, quantization_config=SCHEMES[name])
    assert torch.equal(logits(copy.deepcopy(model)), logits(model))


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    for name in ("int8wo", "nf4"):
        library = SCHEMES[name].quant_method
        with pytest.raises(MissingFrameworkError, match=rf"needs {library}.*pip install 'pretrained\[quant\]'"):
            load(FULL, quantization_config=SCHEMES[name])


def test_schemes_that_are_not_supported_are_refused_before_weights_are_looked_at(tmp_path: Path) -> None:
    shutil.copy(FULL / "config.json", tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())
    text["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(text))
    with pytest.raises(ConfigError, match="quantization by 'gptq' is not supported by this version"):
        load(tmp_path)


@NF4
def test_where_nothing_can_be_quantized(name: str) -> None:
    folder = REFERENCE.parent / "gpt2" / "torch-safetensors"
    with pytest.raises(InvalidOptionError, match="GPT2LMHeadModel has no linear layer to quantize beside lm_head"):
        load(folder, GPT2LMHeadModel, quantization_config=SCHEMES[name])
    with pytest.raises(MismatchError, match="matches no tensor"):
        load(FULL / "model.safetensors", quantization_config=SCHEMES[name], key_mapping={"^": "x."}, config=FULL)
    with pytest.raises(OptionError, match="quantization_config= is an option of from_pretrained"):
        pretrained.load_into(torch.nn.Linear(2, 2), FULL, quantization_config=SCHEMES[name])
    with pytest.raises(OptionError, match="quantization_config= is an option of from_pretrained"):
        LlamaForCausalLM.from_config(load(FULL).config, quantization_config=SCHEMES[name])


@ONE_OF_EACH
def test_a_quantized_model_lies_on_one_device(name: str) -> None:
    model = load(FULL, quantization_config=SCHEMES[name], device_map="cpu")
    assert torch.equal(logits(model), logits(load(FULL, quantization_config=SCHEMES[name])))
    with pytest.raises(InvalidOptionError, match="over cpu, disk, and a quantized model lies on one device"):
        load(FULL, quantization_config=SCHEMES[name], device_map={"model": "cpu", "lm_head": "disk"})


# Damaged parts


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    shutil.copytree(REFERENCE, tmp_path / "quantized")
    return tmp_path / "quantized"


def change(folder: Path, **changes: Any) -> None:
    """Rewrites the weights of a folder; each change is (old tensor → new one, or None to leave it out)."""
    from safetensors import safe_open

    file = folder / "model.safetensors"
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    layer = "model.layers.0.mlp.up_proj."
    for ending, make in changes.items():
        name = layer + ending
        if ending == "metadata":
            metadata[layer + "weight"] = make(metadata[layer + "weight"])
        elif (new := make(tensors.pop(name))) is not None:
            tensors[name] = new
    save_file(tensors, file, metadata)


def edited(**changes: Any) -> Any:
    """A change of a quantization state."""

    def make(tensor: torch.Tensor) -> torch.Tensor:
        state = {**json.loads(bytes(bytes_of(tensor))), **changes}
        return torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)

    return make


STATE4 = "weight.quant_state.bitsandbytes__nf4"
STATE4_FP = "weight.quant_state.bitsandbytes__fp4"
Case = tuple[str, dict[str, Any], str]


def cut(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:-1].clone()


def gone(tensor: torch.Tensor) -> None:
    return None


def replaced(old: str, new: str) -> dict[str, Any]:
    return {"metadata": lambda text: text.replace(old, new)}


BITS4: dict[str, Case] = {
    "no scales": ("bnb-nf4", {"weight.absmax": gone}, "is not complete: absmax is not in the checkpoint"),
    "half a nest": ("bnb-fp4-double", {"weight.nested_absmax": gone}, "has one of nested_absmax and nested_quant_map"),
    "few scales": ("bnb-nf4", {"weight.absmax": cut}, "has 95 scales; the blocks of the weight need 96"),
    "few nested": ("bnb-fp4-double", {"weight.absmax": cut}, "has 95 scales; the blocks of the weight need 96"),
    "scales of int": ("bnb-nf4", {"weight.absmax": lambda t: t.int()}, "is int32; as a part of a quantized weight it"),
    "no JSON": ("bnb-nf4", {STATE4: lambda t: t + 1}, "is no quantization state: not valid JSON at line 1"),
    "shape": ("bnb-nf4", {STATE4: edited(shape=[64, 96])}, r"says shape \[64, 96\]; the layer's weight is \[96, 64\]"),
    "blocks": ("bnb-nf4", {STATE4: edited(blocksize=3)}, "says a block has 3 elements; 32, 64, … 4096 can be"),
    "list": ("bnb-nf4", {STATE4: edited(blocksize=[64])}, r"says a block has \[64\] elements"),
    "dtype": ("bnb-nf4", {STATE4: edited(dtype="load")}, "says dtype 'load', which is no floating one"),
    "type": ("bnb-nf4", {STATE4: edited(quant_type="fp4")}, "says quant_type 'fp4'; 'nf4' or 'fp4', as in its name"),
    "offset": ("bnb-fp4-double", {STATE4_FP: edited(nested_offset="x")}, "says no nested_dtype 'float32' and nested_o"),
    "long state": ("bnb-nf4", {STATE4: lambda t: t.repeat(100)}, "bytes; a quantization state has some hundred"),
}
BITS8: dict[str, Case] = {
    "no rows": ("bnb-int8", {"weight": gone}, "is not complete: weight is not in the checkpoint"),
    "float rows": (
        "bnb-int8",
        {"weight": lambda t: t.float()},
        "is float32; as a part of a quantized weight it is int8",
    ),
    "tiles": ("bnb-int8", {"weight_format": lambda t: t + 1}, "is 1; 0, plain rows, is supported"),
}
TORCHAO: dict[str, Case] = {
    "no qdata": ("torchao-int8", {"_weight_qdata": gone}, "is not complete: .*_weight_qdata is not in the checkpoint"),
    "other kind": ("torchao-int8", replaced("Int8Tensor", "Evil"), "a 'Evil'; Int8Tensor and Float8Tensor are supp"),
    "block size": (
        "torchao-int8",
        replaced("[1, 64]", "[1, 7]"),
        r"has blocks of \[1, 7\], which do not fit the layer",
    ),
    "no notes": ("torchao-int8", replaced('"qdata"', '"x"'), "the metadata does not say which tensors it consists of"),
    "more parts": ("torchao-int8", replaced('"qdata"', '"qdata", "x"'), "has 'x', which this version cannot load"),
    "bad notes": (
        "torchao-int8",
        replaced('"block_size"', '"y": 1, "block_size"'),
        "has notes that torchao cannot read",
    ),
    "no JSON": ("torchao-int8", replaced("{", "["), "not valid JSON"),
    "scale": ("torchao-int8", {"_weight_scale": lambda t: t.double()}, "is float64; as scale of a Int8Tensor it is"),
}
DAMAGES = {f"{case[0]}, {name}": case for table in (BITS4, BITS8, TORCHAO) for name, case in table.items()}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=needs(STORED[folder])) for case, (folder, _, _) in DAMAGES.items()]
)
def test_damaged_parts(case: str, stored: Path) -> None:
    folder, changes, complaint = DAMAGES[case]
    change(stored / folder, **changes)
    with pytest.raises(TensorError, match=complaint) as e:
        load(stored / folder)
    assert "up_proj" in str(e.value) and e.value.path is not None


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=needs(STORED[case])) for case in ("bnb-nf4", "bnb-int8", "torchao-int8")]
)
def test_parts_of_another_shape(case: str, stored: Path) -> None:
    part = {"bnb-nf4": "weight", "bnb-int8": "SCB", "torchao-int8": "_weight_scale"}[case]
    change(stored / case, **{part: lambda t: t[:-2].clone()})
    with pytest.raises(MismatchError, match=f"model.layers.0.mlp.up_proj.{part}: checkpoint"):
        load(stored / case)
    model, report = load(stored / case, ignore_mismatched_sizes=True, output_loading_info=True)
    assert [name for name, _, _ in report.mismatched_keys] == [f"model.layers.0.mlp.up_proj.{part}"]
    weight = model.model.layers[0].mlp.up_proj.weight
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear and weight.shape == (96, 64)
    assert 0.1 < weight.std() < 0.2 and len(model.hf_quantizer.layers) == NUM_LAYERS - 1


@NF4
def test_a_quantized_weight_for_a_tied_layer(name: str, tmp_path: Path) -> None:
    model = load(FULL, quantization_config=base.replace_names(SCHEMES[name], []))
    model.save_pretrained(tmp_path)
    assert load(tmp_path).lm_head.weight.dtype == torch.uint8
    with pytest.raises(TensorError, match=r"is quantized, and lm_head.weight is tied to .*tie_word_embeddings=False"):
        load(tmp_path, tie_word_embeddings=True)
