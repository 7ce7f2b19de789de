"""Generation in TensorFlow, on a decoder small enough to trace in a second; sequences are torch's."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch

from pretrained import BertLMHeadModel, GenerationConfig, TFBertLMHeadModel, TFBertModel
from pretrained.errors import ConfigError, InvalidOptionError, OptionError
from pretrained.models.bert.configuration_bert import BertConfig
from pretrained.tf.generation import logits as L
from pretrained.tf.generation.outputs import TFBeamSearchOutput, TFGreedySearchOutput

IDS = np.array([[7, 8, 9, 10, 11], [0, 0, 12, 13, 14]])
MASK = (IDS != 0).astype(np.int32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder: Path = tmp_path_factory.mktemp("decoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=71,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=200,
        initializer_range=0.6,
        is_decoder=True,
        attn_implementation="eager",
        eos_token_id=5,
        bos_token_id=3,
    )
    model = BertLMHeadModel(config).eval()
    model.save_pretrained(folder)
    return model, TFBertLMHeadModel.from_pretrained(folder)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"max_new_tokens": 17},
    {"num_beams": 3},
    {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 2.0, "early_stopping": True},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.5, "repetition_penalty": 1.3},
    {"repetition_penalty": 1.7, "min_new_tokens": 10, "encoder_repetition_penalty": 1.2},
    {"no_repeat_ngram_size": 2, "suppress_tokens": [20, 21, 30], "begin_suppress_tokens": [25, 18]},
    {"bad_words_ids": [[20], [30, 12]], "sequence_bias": {(10,): -2.0, (11, 12): 3.0}, "forced_eos_token_id": 5},
    {"eos_token_id": [5, 20, 40], "exponential_decay_length_penalty": (3, 1.5), "renormalize_logits": True},
    {"encoder_no_repeat_ngram_size": 2, "remove_invalid_values": True, "min_length": 12},
    {"penalty_alpha": 0.6, "top_k": 4},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(s) or "greedy")
def test_sequences_are_torchs(models: tuple[Any, Any], settings: dict[str, Any]) -> None:
    theirs, ours = models
    settings = {"max_new_tokens": 12, **settings}
    wanted = theirs.generate(torch.tensor(IDS), attention_mask=torch.tensor(MASK), **settings).numpy()
    found = ours.generate(IDS, attention_mask=MASK, trace=False, **settings)
    assert found.numpy().tolist() == wanted.tolist()


WAYS: list[dict[str, Any]] = [
    {"do_sample": True, "seed": 3, "top_k": 20, "top_p": 0.9, "temperature": 1.5, "typical_p": 0.95, "min_p": 0.01},
    {"num_beams": 3, "num_return_sequences": 2, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
    {"do_sample": True, "num_beams": 2, "seed": (3, 4), "epsilon_cutoff": 1e-3, "eta_cutoff": 1e-3},
    {"penalty_alpha": 0.6, "top_k": 4, "bad_words_ids": [[20], [30, 12]]},
]


@pytest.mark.parametrize("settings", WAYS, ids=lambda s: "-".join(s))
def test_xla_a_graph_and_neither_give_the_same_tokens(models: tuple[Any, Any], settings: dict[str, Any]) -> None:
    ways = ({}, {"jit_compile": True}, {"trace": False})
    found = [models[1].generate(IDS, attention_mask=MASK, max_new_tokens=8, **settings, **way) for way in ways]
    assert found[0].numpy().tolist() == found[1].numpy().tolist() == found[2].numpy().tolist()


def test_one_program_serves_many_lengths_and_numbers(models: tuple[Any, Any]) -> None:
    model = models[1]
    model.generate(IDS, attention_mask=MASK, max_new_tokens=9, repetition_penalty=1.1)
    programs = [model._programs._made[key] for key in model._programs._made]
    before = [program.experimental_get_tracing_count() for program in programs]
    for length, penalty, new in ((5, 1.2, 9), (3, 2.0, 11), (4, 0.7, 14)):
        ids, mask = IDS[:, -length:], MASK[:, -length:]
        model.generate(ids, attention_mask=mask, max_new_tokens=new, repetition_penalty=penalty)
    assert len(model._programs._made) == len(programs)
    assert [program.experimental_get_tracing_count() for program in programs] == before


def test_within_a_function_of_ones_own(models: tuple[Any, Any]) -> None:
    model = models[1]

    @tf.function(jit_compile=True)
    def generate(ids: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return model.generate(ids, attention_mask=mask, max_new_tokens=6)

    found = generate(tf.constant(IDS), tf.constant(MASK)).numpy()
    wanted = model.generate(IDS, attention_mask=MASK, max_new_tokens=6).numpy()
    assert found.shape == (2, 11) and found[:, : wanted.shape[1]].tolist() == wanted.tolist()
    with pytest.raises(InvalidOptionError, match="input_ids have the shape"):
        loose = [tf.TensorSpec((None, 5), tf.int32)]
        tf.function(lambda ids: model.generate(ids), loose, autograph=False).get_concrete_function()


def test_a_streamer_sees_each_token(models: tuple[Any, Any]) -> None:
    model, streamed = models[1], []

    class Streamer:
        def put(self, ids: Any) -> None:
            streamed.append(np.asarray(ids).ravel().tolist())

        def end(self) -> None:
            streamed.append("end")

    whole = model.generate(IDS[:1], max_new_tokens=2, streamer=Streamer()).numpy()
    assert streamed == [[7, 8, 9, 10, 11], *[[token] for token in whole[0, 5:].tolist()], "end"]
    with pytest.raises(InvalidOptionError, match="a streamer follows one sequence"):
        model.generate(IDS, num_beams=2, streamer=Streamer())


def test_samples_are_of_their_seed_and_distribution(models: tuple[Any, Any]) -> None:
    model = models[1]
    given = {"do_sample": True, "max_new_tokens": 1, "num_return_sequences": 2000, "trace": False}
    one, same, other = (model.generate(IDS[:1], **given, seed=seed).numpy() for seed in (1, (1, 0), 2))
    assert (one == same).all() and (one != other).any()
    tf.random.set_seed(0)
    drawn = [model.generate(IDS[:1], **given).numpy() for _ in range(2)]
    assert (drawn[0] != drawn[1]).any()
    wanted = tf.nn.softmax(model(IDS[:1]).logits[0, -1]).numpy()
    shares = np.bincount(one[:, -1], minlength=71) / 2000
    assert np.abs(shares - wanted).max() < 0.04


def test_outputs(models: tuple[Any, Any]) -> None:
    found = models[1].generate(input_ids=IDS, max_new_tokens=3, return_dict_in_generate=True, trace=False)
    assert isinstance(found, TFGreedySearchOutput) and found.sequences.shape == (2, 8)
    settings = {"num_beams": 2, "max_new_tokens": 3, "return_dict_in_generate": True}
    found = models[1].generate(IDS, attention_mask=MASK, trace=False, **settings)
    wanted = models[0].generate(torch.tensor(IDS), attention_mask=torch.tensor(MASK), output_scores=True, **settings)
    assert isinstance(found, TFBeamSearchOutput)
    np.testing.assert_allclose(found.sequences_scores, wanted.sequences_scores, atol=1e-5)


def test_a_function_and_a_config_of_ones_own(models: tuple[Any, Any]) -> None:
    def only_nine(ids: Any, scores: Any, length: Any) -> Any:
        return tf.where(tf.range(71) == 9, scores, L.NEVER)

    config = GenerationConfig(max_new_tokens=3)
    for way in ({}, {"trace": False}):
        found = models[1].generate(IDS, config, [only_nine, L.TFSuppressTokensLogitsProcessor(np.array([8]))], **way)
        assert (found[:, 5:].numpy() == 9).all()
    forced = L.TFForceTokensLogitsProcessor({5: 20, 6: None, 7: 21})
    found = models[1].generate(IDS[:1], config, [forced], trace=False).numpy()
    assert found[0, 5] == 20 and found[0, 7] == 21


def test_a_model_that_changes_forgets_its_programs(tmp_path: Path, models: tuple[Any, Any]) -> None:
    models[1].save_pretrained(tmp_path)
    model = TFBertLMHeadModel.from_pretrained(tmp_path)
    model.generate(IDS, max_new_tokens=2)
    model.resize_token_embeddings(80)
    assert not model._programs._made
    assert model.generate(IDS, max_new_tokens=2).shape == (2, 7)
    weight = model.get_input_embeddings().weight
    weight.assign(tf.zeros_like(weight.value))  # programs read variables as they are
    assert (
        model.generate(IDS, max_new_tokens=2)[:, 5:].numpy() == np.argmax(model.get_bias()["cls.predictions.bias"])
    ).all()


def test_mistakes(models: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    model = models[1]
    with pytest.raises(OptionError, match="TFBertModel has no next-token logits"):
        TFBertModel(models[0].config).generate(IDS)
    with pytest.raises(OptionError, match="'max_new_token'"):
        model.generate(IDS, max_new_token=3)
    with pytest.raises(InvalidOptionError, match="there for torch models, not for TensorFlow models"):
        model.generate(IDS, output_scores=True, return_dict_in_generate=True)
    with pytest.raises(InvalidOptionError, match="not for TensorFlow models"):
        model.generate(IDS, num_beams=4, num_beam_groups=2, diversity_penalty=0.5)
    with pytest.raises(InvalidOptionError, match="the prompt has 5 tokens"):
        model.generate(IDS, max_length=5)
    with pytest.raises(InvalidOptionError, match="attention_mask is"):
        model.generate(IDS, attention_mask=MASK[:1], max_new_tokens=2)
    with pytest.raises(InvalidOptionError, match="input_ids are integers"):
        model.generate(IDS[0], max_new_tokens=2)
    with pytest.raises(ConfigError):
        model.generate(IDS, max_new_tokens=-1)
    with caplog.at_level(logging.WARNING):
        model.generate(IDS[:, ::-1], attention_mask=MASK[:, ::-1], max_new_tokens=1, trace=False)
    assert "pad on the left" in caplog.text


def test_without_a_prompt(models: tuple[Any, Any]) -> None:
    found = models[1].generate(max_new_tokens=2, trace=False)
    assert found[0, 0] == 3 and found.shape == (1, 3)
