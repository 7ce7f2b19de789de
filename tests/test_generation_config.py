"""GenerationConfig keeps what a checkpoint brings."""

from __future__ import annotations

import json

import pytest

from pretrained import ConfigError, GenerationConfig, SourceError


def test_round_trip(tmp_path):
    values = {"eos_token_id": [1, 2], "temperature": 0.5, "_from_model_config": True, "unheard_of": {"a": None}}
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    config = GenerationConfig.from_pretrained(tmp_path, temperature=0.7)
    assert config.temperature == 0.7 and config.eos_token_id == [1, 2]
    config.save_pretrained(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == values | {"temperature": 0.7}
    assert GenerationConfig.from_pretrained(tmp_path / "out") == config
    assert config != GenerationConfig()


def test_infinities(tmp_path):
    GenerationConfig(length_penalty=float("inf")).save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).length_penalty == float("inf")


def test_bad_files(tmp_path):
    with pytest.raises(SourceError, match=r"no generation_config\.json"):
        GenerationConfig.from_pretrained(tmp_path)
    for text in ("[]", "{", '{"to_json_string": "x"}', '{"__class__": 1}'):
        (tmp_path / "generation_config.json").write_text(text)
        with pytest.raises(ConfigError):
            GenerationConfig.from_pretrained(tmp_path)
