"""Generation in JAX, on a decoder small enough to compile in a second; sequences are torch's."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from pretrained import BertLMHeadModel, FlaxBertForCausalLM, FlaxBertModel, GenerationConfig
from pretrained.errors import ConfigError, InvalidOptionError, OptionError
from pretrained.flax.generation import logits as L
from pretrained.flax.generation.loop import Plan, _compiled
from pretrained.flax.generation.run import bucket
from pretrained.models.bert.configuration_bert import BertConfig

IDS = np.array([[7, 8, 9, 10, 11], [0, 0, 12, 13, 14]])
MASK = (IDS != 0).astype(np.int32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[BertLMHeadModel, FlaxBertForCausalLM]:
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
    return model, FlaxBertForCausalLM.from_pretrained(folder)


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
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(s) or "greedy")
def test_sequences_are_torchs(models: tuple[Any, Any], settings: dict[str, Any]) -> None:
    ours, theirs = models[1], models[0]
    settings = {"max_new_tokens": 12, **settings}
    wanted = theirs.generate(torch.tensor(IDS), attention_mask=torch.tensor(MASK), **settings).numpy()
    found = np.asarray(ours.generate(IDS, attention_mask=MASK, **settings).sequences)
    length = wanted.shape[1]
    assert found.shape == (len(wanted), 5 + settings["max_new_tokens"])
    assert found[:, :length].tolist() == wanted.tolist()
    assert set(found[:, length:].ravel().tolist()) <= {0, 5}


def test_one_program_serves_many_lengths_and_numbers(models: tuple[Any, Any]) -> None:
    model = models[1]
    plan = Plan(room=32, cache_room=32, cache_dtype="float32", keeps_last=True)
    _, program = _compiled(model._program, plan, type(model)._empty_cache, "__call__")
    model.generate(IDS, attention_mask=MASK, max_new_tokens=9, repetition_penalty=1.1)
    before = program.whole._cache_size()
    assert before >= 1
    for length, penalty, new in ((5, 1.2, 9), (3, 2.0, 11), (4, 0.7, 14)):
        ids, mask = IDS[:, -length:], MASK[:, -length:]
        model.generate(ids, attention_mask=mask, max_new_tokens=new, repetition_penalty=penalty)
    assert program.whole._cache_size() == before


def test_sizes() -> None:
    assert [bucket(n) for n in (1, 16, 17, 64, 65, 128, 129, 300)] == [16, 16, 32, 64, 128, 128, 256, 384]


def test_three_ways_to_run_are_one(models: tuple[Any, Any]) -> None:
    model = models[1]
    whole = np.asarray(model.generate(IDS[:1], max_new_tokens=2).sequences)
    slow = np.asarray(model.generate(IDS[:1], max_new_tokens=2, trace=False).sequences)
    streamed: list[Any] = []

    class Streamer:
        def put(self, ids: Any) -> None:
            streamed.append(np.asarray(ids).ravel().tolist())

        def end(self) -> None:
            streamed.append("end")

    stepped = np.asarray(model.generate(IDS[:1], max_new_tokens=2, streamer=Streamer()).sequences)
    assert whole.tolist() == slow.tolist() == stepped.tolist()
    assert streamed == [[7, 8, 9, 10, 11], *[[token] for token in whole[0, 5:].tolist()], "end"]


def test_samples_are_of_their_key_and_distribution(models: tuple[Any, Any]) -> None:
    model = models[1]
    draw = {"do_sample": True, "max_new_tokens": 1, "top_k": 0, "num_return_sequences": 4000}
    found = np.asarray(model.generate(IDS[:1], prng_key=jax.random.key(3), **draw).sequences)[:, 5]
    again = np.asarray(model.generate(IDS[:1], prng_key=jax.random.key(3), **draw).sequences)[:, 5]
    assert found.tolist() == again.tolist()
    assert found.tolist() != np.asarray(model.generate(IDS[:1], **draw).sequences)[:, 5].tolist()
    wanted = np.asarray(jax.nn.softmax(model(IDS[:1]).logits[0, -1]))
    observed = np.bincount(found, minlength=71) / len(found)
    # Deviations of a share p of n draws have the variance p (1 - p) / n.
    assert (np.abs(observed - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / len(found)) + 1e-3).all()


def test_beams_that_are_drawn(models: tuple[Any, Any]) -> None:
    model = models[1]
    settings = {"do_sample": True, "num_beams": 3, "max_new_tokens": 6, "num_return_sequences": 2}
    found = model.generate(IDS, attention_mask=MASK, prng_key=jax.random.key(1), **settings)
    assert found.sequences.shape == (4, 11) and found.scores.shape == (4,)
    assert (np.diff(np.asarray(found.scores).reshape(2, 2), axis=1) <= 0).all()
    other = model.generate(IDS, attention_mask=MASK, prng_key=jax.random.key(2), **settings)
    assert np.asarray(found.sequences).tolist() != np.asarray(other.sequences).tolist()


def test_other_parameters_and_a_config(models: tuple[Any, Any]) -> None:
    model = models[1]
    zeros = jax.tree.map(jnp.zeros_like, model.params)
    zeros["cls"]["predictions"]["bias"] = zeros["cls"]["predictions"]["bias"].at[9].set(1.0)
    config = GenerationConfig(max_new_tokens=3, pad_token_id=0)
    assert np.asarray(model.generate(IDS[:1], config, params=zeros).sequences)[0, 5:].tolist() == [9, 9, 9]
    started = np.asarray(model.generate(max_new_tokens=3, params=zeros).sequences)
    assert started.tolist() == [[3, 9, 9, 9]]


def test_a_function_as_processor(models: tuple[Any, Any]) -> None:
    model = models[1]
    only = lambda ids, scores, length: jnp.where(jnp.arange(71) == length, 0.0, -jnp.inf) + 0 * scores  # noqa: E731
    found = np.asarray(model.generate(IDS[:1], max_new_tokens=3, logits_processor=[only]).sequences)
    assert found[0, 4:].tolist() == [11, 5, 0, 0]  # 5 is the end
    forced = L.FlaxForceTokensLogitsProcessor({5: 33, 7: 44})
    found = np.asarray(model.generate(IDS[:1], max_new_tokens=3, logits_processor=[forced]).sequences)
    assert found[0, 5] == 33 and found[0, 7] == 44


def test_mistakes(models: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    model = models[1]
    torchs = "is there for torch models, not for JAX models"
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (OptionError, "max_new_token.*did you mean 'max_new_tokens'", {"max_new_token": 3}),
        (ConfigError, "top_p", {"do_sample": True, "top_p": 3.0}),
        (InvalidOptionError, f"guidance_scale=2.0 {torchs}", {"guidance_scale": 2.0}),
        (InvalidOptionError, f"group_beam_search {torchs}", {"num_beams": 4, "num_beam_groups": 2}),
        (InvalidOptionError, f"contrastive_search {torchs}", {"penalty_alpha": 0.6, "top_k": 4}),
        (InvalidOptionError, f"output_scores=True {torchs}", {"output_scores": True}),
        (ConfigError, "greedy decoding has one result", {"num_return_sequences": 2}),
        (InvalidOptionError, "the prompt has 5 tokens, and max_length=5", {"max_length": 5, "max_new_tokens": None}),
        (InvalidOptionError, r"attention_mask is \(1, 2\), and input_ids", {"attention_mask": np.ones((1, 2))}),
        (InvalidOptionError, "a streamer follows one sequence", {"num_beams": 2, "streamer": object()}),
        (OptionError, "generation_config is a GenerationConfig, not a dict", {"generation_config": {}}),
    ]
    for kind, message, settings in cases:
        with pytest.raises(kind, match=message):
            model.generate(IDS, **{"max_new_tokens": 3, **settings})
    with pytest.raises(InvalidOptionError, match=r"input_ids are integers \(batch, seq\), found float32 of"):
        model.generate(np.ones(2, np.float32))
    with pytest.raises(OptionError, match="FlaxBertModel has no next-token logits to generate from"):
        FlaxBertModel(model.config).generate(IDS)
    with caplog.at_level(logging.WARNING):
        model.generate(IDS[:, ::-1].copy(), max_new_tokens=3)
    assert "a row ends in padding" in caplog.text


def test_what_can_generate() -> None:
    assert FlaxBertForCausalLM.can_generate() and not FlaxBertModel.can_generate()
