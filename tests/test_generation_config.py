"""GenerationConfig: defaults, types and ranges, what is read, kept and written back."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from pretrained import (
    ConfigError,
    GenerationConfig,
    GenerationMode,
    OptionError,
    SourceError,
    SynthIDTextWatermarkingConfig,
    WatermarkingConfig,
)
from pretrained.models.t5.configuration_t5 import T5Config


def test_round_trip(tmp_path):
    values = {"eos_token_id": [1, 2], "temperature": 0.5, "_from_model_config": True, "unheard_of": {"a": None}}
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    config = GenerationConfig.from_pretrained(tmp_path, temperature=0.7)
    assert config.temperature == 0.7 and config.eos_token_id == [1, 2]
    config.save_pretrained(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == values | {"temperature": 0.7}
    assert GenerationConfig.from_pretrained(tmp_path / "out") == config
    assert config != GenerationConfig()


def test_another_file_name(tmp_path):
    GenerationConfig(top_k=3).save_pretrained(tmp_path, "mine.json")
    assert GenerationConfig.from_pretrained(tmp_path, "mine.json").top_k == 3
    with pytest.raises(OptionError, match="private= is of a push; pass push_to_hub=True with it"):
        GenerationConfig().save_pretrained(tmp_path, private=True)


def test_infinities(tmp_path):
    GenerationConfig(length_penalty=float("inf")).save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).length_penalty == float("inf")


def test_bad_files(tmp_path):
    with pytest.raises(SourceError, match=r"no generation_config\.json"):
        GenerationConfig.from_pretrained(tmp_path)
    for text in ("[]", "{", '{"to_json_string": "x"}', '{"__class__": 1}', '{"streamer": 1}'):
        (tmp_path / "generation_config.json").write_text(text)
        with pytest.raises(ConfigError):
            GenerationConfig.from_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"max_length": "20"}')
    with pytest.raises(ConfigError, match=r"generation_config\.json: generation setting 'max_length' must be int") as e:
        GenerationConfig.from_pretrained(tmp_path)
    assert e.value.key == "max_length"


def test_defaults_are_read_and_not_written():
    config = GenerationConfig()
    assert (config.max_length, config.top_k, config.temperature, config.do_sample) == (20, 50, 1.0, False)
    assert config.to_diff_dict() == {}
    assert config.to_dict()["num_beams"] == 1
    config.top_k = 50
    assert config.to_diff_dict() == {"top_k": 50}
    assert copy.deepcopy(config) == config and "top_k" in repr(config)


def test_unset_settings_come_from_elsewhere():
    mine, models = GenerationConfig(top_k=5, max_length=None), GenerationConfig(top_k=7, max_length=9, top_p=0.5)
    merged = mine.filled_from(models, GenerationConfig(min_p=0.1, top_p=0.7))
    assert merged.to_diff_dict() == {"top_k": 5, "max_length": 9, "top_p": 0.5, "min_p": 0.1}
    assert GenerationConfig(max_length=None).filled_from().max_length == 20


@pytest.mark.parametrize(
    ("name", "near"), [("temprature", "temperature"), ("max_tokens", "max_new_tokens"), ("topk", "top_k")]
)
def test_misspelt_settings(name, near):
    with pytest.raises(OptionError, match=f"no option '{name}'; did you mean '{near}'"):
        GenerationConfig(**{name: 1})
    with pytest.raises(OptionError, match=f"did you mean '{near}'"):
        GenerationConfig.from_dict({}, **{name: 1})
    assert GenerationConfig.from_dict({}, return_unused_kwargs=True, **{name: 1})[1] == {name: 1}
    assert GenerationConfig().update(**{name: 1}) == {name: 1}


def test_arguments_are_no_settings():
    with pytest.raises(OptionError, match="streamer is an argument of generate"):
        GenerationConfig(streamer=None)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("max_new_tokens", 0, "must be 1 or more"),
        ("max_new_tokens", True, "must be int"),
        ("max_length", -1, "must be 0 or more"),
        ("num_beams", 1.5, "must be int"),
        ("temperature", -0.1, "must be 0 or more"),
        ("temperature", "hot", "must be float"),
        ("top_p", 1.1, "must be from 0 to 1"),
        ("top_k", -1, "must be 0"),
        ("typical_p", float("nan"), "must be from 0 to 1"),
        ("epsilon_cutoff", 1.0, "less than 1"),
        ("repetition_penalty", 0, "must be above 0"),
        ("early_stopping", "maybe", "'never'"),
        ("cache_implementation", "dynamc", "must be one of dynamic"),
        ("eos_token_id", [], "must be a token id"),
        ("bad_words_ids", [[]], "none empty"),
        ("bad_words_ids", [1], "list of lists"),
        ("sequence_bias", {(1, "a"): 1.0}, "must give token ids"),
        ("sequence_bias", {}, "must give token ids"),
        ("stop_strings", ["a", ""], "none empty"),
        ("exponential_decay_length_penalty", [1], "a factor above 0"),
        ("num_assistant_tokens_schedule", "often", "'heuristic_transient'"),
        ("watermarking_config", 3, "must be a WatermarkingConfig"),
        ("watermarking_config", {"greenlist_ratio": 2}, "greenlist_ratio"),
        ("watermarking_config", {"seeding_scheme": "x"}, "lefthash"),
        ("watermarking_config", {"biass": 2}, "'biass' is nothing"),
        ("watermarking_config", {"ngram_len": 5}, "keys"),
        ("watermarking_config", {"ngram_len": 5, "keys": []}, "list of integers"),
    ],
)
def test_impossible_values(name, value, complaint):
    with pytest.raises(ConfigError, match=complaint) as error:
        GenerationConfig(**{name: value})
    assert error.value.key == name
    config = GenerationConfig(min_length=7)
    with pytest.raises(ConfigError, match=complaint):
        config.update(min_length=8, **{name: value})
    assert config.min_length == 7


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"num_return_sequences": 3, "num_beams": 2}, "num_return_sequences"),
        ({"num_beams": 4, "num_beam_groups": 3}, "num_beam_groups"),
        ({"num_beams": 4, "num_beam_groups": 2, "do_sample": True}, "num_beam_groups"),
        ({"suppress_tokens": [1, 2], "forced_eos_token_id": 2}, "forced_eos_token_id"),
    ],
)
def test_contradictions(settings, key):
    with pytest.raises(ConfigError) as error:
        GenerationConfig(**settings)
    assert error.value.key == key


def test_strict_validation_names_what_is_idle():
    GenerationConfig(temperature=0.5).validate()
    with pytest.raises(ConfigError, match="'temperature' has no effect"):
        GenerationConfig(temperature=0.5).validate(strict=True)
    assert GenerationConfig(length_penalty=2.0, output_scores=True).idle_settings() == [
        "length_penalty",
        "output_scores",
    ]
    assert GenerationConfig(penalty_alpha=0.6, top_k=4).idle_settings() == []


def test_odd_files_of_the_field_load(tmp_path):
    """What checkpoints have in them though it makes no sense is for generate to complain of."""
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.0, "top_k": -1, "pad_token_id": -1}')
    config = GenerationConfig.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="top_k"):
        config.validate()


def test_numbers_of_other_packages():
    config = GenerationConfig(eos_token_id=np.int64(3), temperature=np.float32(0.5), suppress_tokens=np.array([1, 2]))
    assert config.to_diff_dict() == {"eos_token_id": 3, "temperature": 0.5, "suppress_tokens": [1, 2]}
    assert type(config.eos_token_id) is int


def test_sequence_bias_survives_json(tmp_path):
    GenerationConfig(sequence_bias={(1, 2): -3.0, (4,): 1.0}).save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).sequence_bias == [[[1, 2], -3.0], [[4], 1.0]]


def test_watermarks_survive_json(tmp_path):
    for mark in (WatermarkingConfig(bias=3.0), SynthIDTextWatermarkingConfig(ngram_len=4, keys=[3, 5])):
        GenerationConfig(watermarking_config=mark).save_pretrained(tmp_path)
        assert GenerationConfig.from_pretrained(tmp_path).watermarking_config == mark


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({}, "greedy_search"),
        ({"do_sample": True}, "sample"),
        ({"num_beams": 2}, "beam_search"),
        ({"num_beams": 2, "do_sample": True}, "beam_sample"),
        ({"num_beams": 4, "num_beam_groups": 2}, "group_beam_search"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "contrastive_search"),
        ({"prompt_lookup_num_tokens": 3}, "assisted_generation"),
        ({"dola_layers": "high"}, "dola_generation"),
        ({"force_words_ids": [[1]], "num_beams": 2}, "constrained_beam_search"),
    ],
)
def test_modes(settings, mode):
    assert GenerationConfig(**settings).get_generation_mode() == mode
    assert GenerationConfig().get_generation_mode(object()) is GenerationMode.ASSISTED_GENERATION


def test_from_a_model_config():
    config = GenerationConfig.from_model_config(
        T5Config(eos_token_id=1, decoder_start_token_id=0, num_beams=4, max_length=20, output_scores=True)
    )
    found = config.to_diff_dict()
    assert found["num_beams"] == 4 and found["eos_token_id"] == 1 and found["decoder_start_token_id"] == 0
    assert found["return_dict_in_generate"] is True and found["_from_model_config"] is True
    assert "max_length" not in found
    assert GenerationConfig.from_model_config({"decoder": {"bos_token_id": 7}}).bos_token_id == 7
    with pytest.raises(ConfigError, match="max_length"):
        GenerationConfig.from_model_config({"max_length": "x"})


def test_update():
    config = GenerationConfig(top_k=5)
    assert config.update(defaults_only=True, top_k=6, top_p=0.5) == {"top_k": 6}
    assert (config.top_k, config.top_p) == (5, 0.5)
    assert config.update(allow_custom_entries=True, mine=1) == {} and config.mine == 1
