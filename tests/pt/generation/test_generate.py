"""generate: what it takes and refuses, what it returns, and other people's classes."""

from __future__ import annotations

import logging

import pytest
import torch
from small import BATCH, ONE, PADDED, generate, model_of
from torch import nn

import pretrained as P
from pretrained import (
    ConfigError,
    GenerationConfig,
    GenerationMixin,
    InvalidOptionError,
    LlamaModel,
    OptionError,
    PretrainedConfig,
    PreTrainedModel,
)
from pretrained.pt.generation.assisted import _speculative
from pretrained.pt.outputs import CausalLMOutputWithPast


@pytest.fixture(scope="module")
def llama():
    return model_of("llama")


# What is asked


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("max_new_token", "max_new_tokens"),
        ("temprature", "temperature"),
        ("attention_masks", "attention_mask"),
        ("stoping_criteria", "stopping_criteria"),
        ("labels", None),
    ],
)
def test_unknown_keywords(llama, name, near):
    hint = f"; did you mean '{near}'" if near and near != "stopping_criteria" else ""
    with pytest.raises(OptionError, match=f"generate has no option '{name}'{hint}") as error:
        llama.generate(**ONE, **{name: 1})
    assert error.value.key == name


@pytest.mark.parametrize(
    ("settings", "error", "complaint"),
    [
        ({"num_beams": 0}, ConfigError, "'num_beams' must be 1 or more"),
        ({"do_sample": True, "temperature": 0.0}, InvalidOptionError, "do_sample=False takes the likeliest"),
        ({"num_return_sequences": 2}, ConfigError, "greedy decoding has one result"),
        ({"max_length": 6, "max_new_tokens": None}, InvalidOptionError, "pass max_new_tokens"),
        ({"force_words_ids": [[1]]}, InvalidOptionError, "prefix_allowed_tokens_fn is there for it"),
        ({"dola_layers": "high"}, InvalidOptionError, "dola_layers='high' is not supported"),
        ({"custom_generate": "org/x"}, InvalidOptionError, "custom_generate is not supported"),
        ({"inputs": ONE["input_ids"]}, OptionError, "inputs and input_ids=, which are one"),
        ({"attention_mask": torch.ones(1, 5)}, InvalidOptionError, "is 5 long, expected 6"),
        ({"generation_config": {"top_k": 1}}, OptionError, "is a GenerationConfig, not a dict"),
        ({"encoder_repetition_penalty": 2.0, "no": 1}, OptionError, "no option 'no'"),
        ({"exponential_decay_length_penalty": (1, 2.0)}, InvalidOptionError, "it needs eos_token_id"),
        ({"compile": True, "use_cache": False}, InvalidOptionError, "not with use_cache=False"),
        ({"compile": True, "prompt_lookup_num_tokens": 2}, InvalidOptionError, "not with assisted_generation"),
        ({"compile": True, "cache_implementation": "quantized"}, InvalidOptionError, "needs a static cache"),
        ({"prompt_lookup_num_tokens": 2, "use_cache": False}, InvalidOptionError, "does not go with use_cache=False"),
        ({"penalty_alpha": 0.5, "top_k": 3, "use_cache": False}, InvalidOptionError, "use_cache=True"),
    ],
)
def test_what_makes_no_sense(llama, settings, error, complaint):
    with pytest.raises(error, match=complaint):
        generate(llama, ONE, **settings)


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        (torch.ones(3, dtype=torch.long), r"integers \(batch, seq\), found int64 of shape \(3,\)"),
        (torch.ones(1, 3), "found float32"),
        ([[1, 2]], "a tensor, not a list"),
    ],
)
def test_ids_of_no_use(llama, ids, complaint):
    with pytest.raises(InvalidOptionError, match=complaint):
        llama.generate(ids)


def test_models_without_next_tokens():
    model = LlamaModel(model_of("llama").config)
    assert not model.can_generate() and model.generation_config is None
    with pytest.raises(OptionError, match="AutoModelForCausalLM"):
        model.generate(ONE["input_ids"])


def test_settings_come_from_three_places(llama):
    mine = GenerationConfig(max_new_tokens=3)
    assert llama.generate(**ONE, generation_config=mine).shape == (1, 9)
    assert llama.generate(**ONE, generation_config=mine, max_new_tokens=4).shape == (1, 10)
    assert mine.max_new_tokens == 3
    model = model_of("llama")
    model.generation_config.max_new_tokens = 2
    assert model.generate(**ONE).shape == (1, 8)
    assert model.generate(**ONE, generation_config=GenerationConfig(do_sample=True)).shape == (1, 8)


def test_lengths(llama, caplog):
    assert llama.generate(**ONE).shape == (1, 26), "20 more by default"
    assert llama.generate(**ONE, max_length=8).shape == (1, 8)
    with caplog.at_level(logging.WARNING):
        assert llama.generate(**ONE, max_length=8, max_new_tokens=3).shape == (1, 9)
    assert "max_new_tokens=3 counts" in caplog.text
    long = torch.full((1, 30), 5)
    assert llama.generate(long).shape == (1, 32), "no longer than the model's positions"
    with pytest.warns(UserWarning, match="min_length=40 is more than max_length=9"):
        llama.generate(**ONE, max_length=9, min_length=40)
    embeds = llama.get_input_embeddings()(ONE["input_ids"])
    assert llama.generate(inputs_embeds=embeds, max_length=9).shape == (1, 3)
    assert torch.equal(
        llama.generate(inputs_embeds=embeds, max_new_tokens=4), llama.generate(**ONE, max_new_tokens=4)[:, 6:]
    )


def test_nothing_to_start_from(llama):
    with pytest.raises(InvalidOptionError, match="no bos_token_id to start from"):
        llama.generate(bos_token_id=None, generation_config=None) if llama.generation_config.bos_token_id is None else (
            model_of("llama", bos_token_id=None).generate()
        )
    assert llama.generate(bos_token_id=5, max_new_tokens=2).tolist()[0][0] == 5
    t5 = model_of("t5")
    t5.generation_config.decoder_start_token_id = None
    with pytest.raises(InvalidOptionError, match="no decoder_start_token_id"):
        t5.generate(**BATCH)
    assert t5.generate(**BATCH, decoder_start_token_id=[3, 4, 5]).tolist()[2][0] == 5
    with pytest.raises(InvalidOptionError, match="has 2 tokens for a batch of 3"):
        t5.generate(**BATCH, decoder_start_token_id=[3, 4])


# Padding


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "roberta", "qwen2"])
def test_padding_on_the_left_changes_nothing(family):
    model = model_of(family)
    found = generate(model, PADDED)
    for row in range(3):
        ids = PADDED["input_ids"][row][PADDED["attention_mask"][row].bool()][None]
        assert torch.equal(generate(model, {"input_ids": ids})[0, len(ids[0]) :], found[row, 6:])


def test_padding_is_seen_without_a_mask(llama, caplog):
    assert torch.equal(generate(llama, {"input_ids": PADDED["input_ids"]}), generate(llama, PADDED))
    right = {"input_ids": PADDED["input_ids"].flip(1), "attention_mask": PADDED["attention_mask"].flip(1)}
    with caplog.at_level(logging.WARNING):
        generate(llama, right)
    assert "pad on the left" in caplog.text


# What is returned


def parts(value):
    return {name: len(item) if isinstance(item, tuple) else tuple(item.shape) for name, item in value.items()}


ALL = {
    "return_dict_in_generate": True,
    "output_scores": True,
    "output_logits": True,
    "output_attentions": True,
    "output_hidden_states": True,
    "max_new_tokens": 4,
}


def test_everything_of_a_decoder(llama):
    found = generate(llama, BATCH, **ALL)
    cache = found.past_key_values
    assert parts({k: v for k, v in found.items() if k != "past_key_values"}) == {
        "sequences": (3, 10),
        **dict.fromkeys(("scores", "logits", "attentions", "hidden_states"), 4),
    }
    assert cache.get_seq_length() == 9 and found.attentions[1][0].shape == (3, 6, 1, 7)
    assert found.hidden_states[0][0].shape == (3, 6, 24) and found.hidden_states[3][2].shape == (3, 1, 24)
    beams = generate(llama, BATCH, **ALL, num_beams=2)
    assert beams.sequences_scores.shape == (3,) and beams.beam_indices.shape == (3, 4)
    assert beams.attentions[0][0].shape == (6, 6, 6, 6)
    assert "sequences_scores" not in generate(llama, BATCH, num_beams=2, return_dict_in_generate=True)


def test_everything_of_an_encoder_and_decoder():
    found = generate(model_of("t5"), BATCH, **ALL)
    assert parts({k: v for k, v in found.items() if k != "past_key_values"}) == {
        "sequences": (3, 5),
        "scores": 4,
        "logits": 4,
        "encoder_attentions": 2,
        "encoder_hidden_states": 3,
        **dict.fromkeys(("decoder_attentions", "cross_attentions", "decoder_hidden_states"), 4),
    }
    assert found.cross_attentions[1][0].shape == (3, 3, 1, 6)


def test_assisted_returns_what_greedy_does(llama):
    draft = model_of("llama", seed=2)
    plain = generate(llama, ONE, **ALL)
    for settings in ({"assistant_model": llama}, {"assistant_model": draft}, {"prompt_lookup_num_tokens": 3}):
        found = generate(llama, ONE, **ALL, **settings)
        assert torch.equal(found.sequences, plain.sequences)
        torch.testing.assert_close(torch.stack(found.scores), torch.stack(plain.scores))
        for step in range(4):
            for mine, theirs in zip(found.attentions[step], plain.attentions[step], strict=True):
                torch.testing.assert_close(mine, theirs)
            torch.testing.assert_close(found.hidden_states[step][2], plain.hidden_states[step][2])
        assert found.past_key_values.get_seq_length() == 9


def test_transition_scores(llama):
    greedy = generate(llama, BATCH, **ALL)
    chosen = llama.compute_transition_scores(greedy.sequences, greedy.scores, normalize_logits=True)
    for row in range(3):
        for step in range(4):
            expected = greedy.scores[step][row].log_softmax(-1)[greedy.sequences[row, 6 + step]]
            assert chosen[row, step] == pytest.approx(float(expected), abs=1e-5)
    beams = generate(llama, BATCH, **ALL, num_beams=3, eos_token_id=[5, 9, 11, 30], num_return_sequences=2)
    chosen = llama.compute_transition_scores(beams.sequences, beams.scores, beams.beam_indices)
    lengths = (beams.beam_indices >= 0).sum(1)
    torch.testing.assert_close(chosen.sum(1) / lengths, beams.sequences_scores)


def test_ids_may_be_trained_on(llama):
    found = generate(llama, ONE)
    assert not found.is_inference()
    llama(found).logits.sum().backward()


# Drawing


def test_a_generator_decides(llama):
    draws = [
        generate(llama, BATCH, do_sample=True, generator=torch.Generator().manual_seed(seed), **settings)
        for settings in ({}, {"num_beams": 2})
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(draws[3], draws[4])


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """How many standard deviations Pearson's statistic is above its mean (Wilson and Hilferty's approximation)."""
    assert counts[expected == 0].sum() == 0
    large = expected >= 5
    rest = torch.stack((counts[~large].sum(), expected[~large].sum()))[:, None]
    pooled = torch.cat((torch.stack((counts[large], expected[large])), rest), 1)
    pooled = pooled[:, pooled[1] > 0]
    statistic = ((pooled[0] - pooled[1]) ** 2 / pooled[1]).sum()
    part = 2 / (9 * (pooled.shape[1] - 1))
    return float(((statistic / (pooled.shape[1] - 1)) ** (1 / 3) - (1 - part)) / part**0.5)


@pytest.mark.parametrize("settings", [{}, {"top_k": 8, "temperature": 0.7}, {"top_p": 0.9}], ids=str)
def test_draws_follow_the_distribution(llama, settings):
    """The second new token of many draws, its distribution summed over the first. The seed is fixed."""
    rows, settings = 4000, {"top_k": 0, **settings}
    drawn = torch.Generator().manual_seed(0)
    given = {"do_sample": True, "max_new_tokens": 2, "num_return_sequences": rows, "generator": drawn}
    found = generate(llama, ONE, **given, **settings)
    warpers = [P.TemperatureLogitsWarper(settings["temperature"])] if "temperature" in settings else []
    warpers += [P.TopKLogitsWarper(settings["top_k"])] if settings["top_k"] else []
    process = P.LogitsProcessorList(warpers + ([P.TopPLogitsWarper(0.9)] if "top_p" in settings else []))
    with torch.no_grad():
        first = process(ONE["input_ids"], llama(ONE["input_ids"]).logits[:, -1]).softmax(-1)[0]
        texts = torch.cat((ONE["input_ids"].expand(61, -1), torch.arange(61)[:, None]), 1)
        second = process(texts, llama(texts).logits[:, -1]).softmax(-1)
    counts = torch.bincount(found[:, -1], minlength=61).float()
    assert chi_square(counts, (first[:, None] * second).sum(0) * rows) < 3.1


@pytest.mark.parametrize("count", [1, 2])
def test_checked_drafts_follow_the_distribution(count):
    """The first token that is kept of a draft is drawn as the model itself would draw it."""
    drawn, rows = torch.Generator().manual_seed(0), 3000
    scores = torch.randn(1, count + 1, 7, generator=drawn) * 2
    drafts = torch.randn(1, count, 7, generator=drawn) * 2
    counts = torch.zeros(7)
    for _ in range(rows):
        ids = torch.multinomial(drafts[0].softmax(-1), 1, generator=drawn).T
        kept = _speculative(ids, scores, drafts, None, drawn)
        counts[kept[0, 0]] += 1
    assert chi_square(counts, scores[0, 0].softmax(-1) * rows) < 3.1
    same = _speculative(ids, scores, scores[:, :count], None, drawn)
    assert torch.equal(same[:, :count], ids), "what the model would draw itself is always kept"


# Other people's classes


class Config(PretrainedConfig):
    model_type = "third-party-decoder"
    vocab_size: int = 31
    num_hidden_layers: int = 2


class OldDecoder(PreTrainedModel):
    """As for 4.35: legacy tuples, an own prepare_inputs_for_generation and _reorder_cache."""

    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, 8)
        self.out = nn.Linear(8, config.vocab_size)
        self.reordered = 0
        self.post_init()

    def forward(self, input_ids=None, past_key_values=None, attention_mask=None, use_cache=None, return_dict=None):
        states = self.embed(input_ids)[:, None]
        if past_key_values is not None:
            states = torch.cat((past_key_values[0][0], states), 2)
        summed = states.cumsum(2)[:, 0, -input_ids.shape[1] :]
        past = ((states, states),) if use_cache else None
        return CausalLMOutputWithPast(logits=self.out(summed), past_key_values=past)

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, **kwargs):
        if past_key_values is not None:
            input_ids = input_ids[:, past_key_values[0][0].shape[2] :]
        return {"input_ids": input_ids, "past_key_values": past_key_values, "use_cache": kwargs.get("use_cache")}

    @staticmethod
    def _reorder_cache(past_key_values, beam_idx):
        return tuple(tuple(part.index_select(0, beam_idx) for part in layer) for layer in past_key_values)


class NewDecoder(PreTrainedModel, GenerationMixin):
    """As for 5.x: the mixin among the bases, nothing of its own, a cache from the library."""

    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, 8)
        self.out = nn.Linear(8, config.vocab_size)
        self.post_init()

    def forward(self, input_ids=None, past_key_values=None, attention_mask=None, use_cache=None, **kwargs):
        if use_cache and past_key_values is None:
            past_key_values = P.DynamicCache(config=self.config)
        states = self.embed(input_ids)[:, None]
        if past_key_values is not None:
            states, _ = past_key_values.update(states, states, 0)
        summed = states.cumsum(2)[:, 0, -input_ids.shape[1] :]
        return CausalLMOutputWithPast(logits=self.out(summed), past_key_values=past_key_values)


@pytest.mark.parametrize("cls", [OldDecoder, NewDecoder])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 3},
        {"do_sample": True, "num_return_sequences": 2, "top_k": 1},
        {"num_beams": 4, "num_beam_groups": 2},
    ],
    ids=str,
)
def test_third_party_classes(cls, settings):
    torch.manual_seed(0)
    model = cls(Config()).eval()
    assert model.can_generate() and not PreTrainedModel.can_generate()
    ids = torch.tensor([[3, 4, 5], [9, 8, 7]])
    found = model.generate(ids, max_new_tokens=6, **settings)
    assert torch.equal(found, model.generate(ids, max_new_tokens=6, use_cache=False, **settings))
    with pytest.raises(OptionError, match="no option 'token_type_ids'"):
        model.generate(ids, token_type_ids=ids)


def test_settings_survive_a_save(tmp_path):
    model = model_of("llama")
    model.generation_config.update(max_new_tokens=3, do_sample=True, top_k=1)
    model.save_pretrained(tmp_path)
    again = P.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.generation_config == model.generation_config
    assert torch.equal(again.generate(**ONE), model.generate(**ONE))


def test_assistants_of_another_kind(llama):
    with pytest.raises(InvalidOptionError, match="drafts need one vocabulary"):
        generate(llama, ONE, assistant_model=model_of("llama", vocab_size=70))
    with pytest.raises(InvalidOptionError, match="an encoder–decoder if the model is one"):
        generate(llama, ONE, assistant_model=model_of("t5"))
    with pytest.raises(InvalidOptionError, match="takes one row, found 3"):
        generate(llama, BATCH, assistant_model=llama)
    grown = model_of("llama")
    grown.generation_config.update(num_assistant_tokens=2, num_assistant_tokens_schedule="heuristic")
    generate(llama, ONE, assistant_model=grown, assistant_confidence_threshold=0.0)
    assert grown.generation_config.num_assistant_tokens > 2


def test_a_prompt_in_chunks_and_several_ends(llama):
    whole = generate(llama, BATCH)
    for chunk in (1, 4, 5, 6, 50):
        assert torch.equal(generate(llama, BATCH, prefill_chunk_size=chunk), whole)
    assert torch.equal(generate(llama, PADDED, prefill_chunk_size=4), generate(llama, PADDED))
    forced = generate(llama, BATCH, forced_eos_token_id=[5, 6])
    assert set(forced[:, -1].tolist()) <= {5, 6}
