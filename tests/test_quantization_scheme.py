"""Which scheme of quantization a load follows; no framework, no library."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pretrained import BitsAndBytesConfig, LlamaConfig, TorchAoConfig
from pretrained.errors import ConfigError, InvalidOptionError, OptionError
from pretrained.options import LoadOptions
from pretrained.quantization.scheme import choose_scheme

NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")


def choose(found: Any = None, **options: Any) -> Any:
    config = LlamaConfig()
    if found is not None:
        config.quantization_config = found
    return choose_scheme(LoadOptions(**options), config)


def test_nothing_is_quantized_unless_somebody_says_so() -> None:
    assert choose() is None


@pytest.mark.parametrize(
    "config", [NF4, BitsAndBytesConfig(load_in_8bit=True), TorchAoConfig("int8_weight_only", ["x"])]
)
def test_the_callers_scheme_in_each_spelling(config: Any) -> None:
    class Foreign:
        def to_dict(self) -> dict[str, Any]:
            return config.to_dict()

    for spelling in (config, config.to_dict(), json.loads(json.dumps(config.to_dict())), Foreign()):
        scheme = choose(quantization_config=spelling)
        assert scheme.config == config and not scheme.is_at_rest


def test_a_config_that_says_so_makes_a_checkpoint_quantized() -> None:
    scheme = choose(NF4.to_dict())
    assert scheme.config == NF4 and scheme.is_at_rest
    old = {"load_in_8bit": True, "llm_int8_threshold": 5}  # without quant_method, as first releases wrote it
    assert choose(old).config == BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=5.0)


def test_the_shorthands() -> None:
    assert choose(load_in_4bit=True).config == BitsAndBytesConfig(load_in_4bit=True)
    assert choose(load_in_8bit=True).config.bits == 8
    with pytest.raises(OptionError, match="load_in_4bit= and quantization_config= say the same thing"):
        choose(load_in_4bit=True, quantization_config=NF4)
    with pytest.raises(InvalidOptionError, match="both of them is True; one has to be"):
        choose(load_in_4bit=True, load_in_8bit=True)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "compressed-tensors", "mxfp4", "no\x1bsuch"])
def test_other_schemes_are_refused_by_name(method: str) -> None:
    reason = "is not supported by this version; there is torchao, bitsandbytes. Use a checkpoint of the model"
    with pytest.raises(ConfigError, match=f"config key 'quantization_config': quantization by .* {reason}") as e:
        choose({"quant_method": method, "bits": 4})
    assert e.value.key == "quantization_config" and method.split("\x1b")[0] in e.value.reason
    with pytest.raises(InvalidOptionError, match=reason):
        choose(quantization_config={"quant_method": method})


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        ("nf4", "is a TorchAoConfig, a BitsAndBytesConfig or a dict with 'quant_method', not a str"),
        ({"bits": 4}, "has no 'quant_method'; there is torchao, bitsandbytes"),
        ({"quant_method": "torchao"}, "torchao needs 'quant_type'"),
        ({"quant_method": "torchao", "quant_type": {}}, "has settings for nothing; one 'default'"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Evil"}}}, "quant_type Evil is not supported"),
        ({"quant_method": "bitsandbytes"}, "neither of them is True"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": "yes"}, "load_in_4bit is True or False, not 'yes'"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_tipe": 1}, "did you mean 'bnb_4bit_q"),
    ],
)
def test_a_config_that_says_it_in_no_known_way(found: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as e:
        choose(found)
    assert e.value.key == "quantization_config" and isinstance(e.value.__cause__, (InvalidOptionError, OptionError))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf5"}, "bnb_4bit_quant_type is 'nf4' or 'fp4', not 'nf5'"),
        ({"load_in_4bit": True, "bnb_4bit_quant_storage": "int8"}, "bnb_4bit_quant_storage is one of uint8, float16"),
        ({"load_in_4bit": True, "bnb_4bit_compute_dtype": "int8"}, "bnb_4bit_compute_dtype is a floating dtype"),
        ({"load_in_4bit": True, "bnb_4bit_compute_dtype": "int9"}, "bnb_4bit_compute_dtype='int9' is no dtype"),
        ({"load_in_8bit": True, "llm_int8_threshold": float("nan")}, "llm_int8_threshold is a number from 0 on"),
        ({"load_in_8bit": True, "llm_int8_skip_modules": "lm_head"}, "llm_int8_skip_modules is a list of module names"),
        (
            {"load_in_8bit": True, "llm_int8_has_fp16_weight": True},
            "llm_int8_has_fp16_weight is True, which is not supported",
        ),
    ],
)
def test_impossible_settings_of_bitsandbytes(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidOptionError, match=complaint) as e:
        BitsAndBytesConfig(**arguments)
    assert e.value.key in arguments


def test_impossible_settings_of_torchao() -> None:
    with pytest.raises(InvalidOptionError, match=r"quant_type int4_weight_only is not supported .* int8_weight_only, "):
        TorchAoConfig("int4_weight_only", group_size=128)
    with pytest.raises(InvalidOptionError, match="include_input_output_embeddings=True is not supported"):
        TorchAoConfig(include_input_output_embeddings=True)
    with pytest.raises(OptionError, match="no option 'group_size' beside a quant_type with settings"):
        TorchAoConfig({"_type": "Int8WeightOnlyConfig", "_data": {}}, group_size=4)


def test_how_to_compute_is_the_callers_what_is_stored_is_the_files(caplog: pytest.LogCaptureFixture) -> None:
    asked = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_compute_dtype="bfloat16")
    merged = choose(NF4.to_dict(), quantization_config=asked).config
    assert (merged.bnb_4bit_quant_type, merged.bnb_4bit_compute_dtype) == ("nf4", "bfloat16")
    assert "quantized already: of quantization_config only how to compute is used" in caplog.text


@pytest.mark.parametrize("asked", [BitsAndBytesConfig(load_in_8bit=True), TorchAoConfig()])
def test_a_quantized_checkpoint_is_not_quantized_otherwise(asked: Any) -> None:
    with pytest.raises(
        InvalidOptionError, match="is quantized by bitsandbytes with 4 bits, and quantization_config= asks"
    ):
        choose(NF4.to_dict(), quantization_config=asked)
