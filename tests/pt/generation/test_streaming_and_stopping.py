"""Streamers and stopping criteria, alone and inside generate."""

from __future__ import annotations

import asyncio
import threading
from queue import Empty

import pytest
import torch
from small import BATCH, ONE, generate, model_of

import pretrained as P
from pretrained import InvalidOptionError


class Words:
    """A tokenizer with a word, or a piece of one, for each id."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces

    def decode(self, ids, skip_special_tokens=True, **kwargs):
        return "".join(self.pieces[i] if i < len(self.pieces) else f" w{i}" for i in ids)


class Kept(P.TextStreamer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.found = []

    def on_finalized_text(self, text, stream_end=False):
        self.found.append((text, stream_end))


def feed(streamer, ids, prompt=(0,)):
    streamer.put(torch.tensor([list(prompt)]))
    for token in ids:
        streamer.put(torch.tensor([token]))
    streamer.end()


def test_text_comes_when_it_is_certain():
    streamer = Kept(Words("a", " b", "c", "\n", "中", "d"))
    feed(streamer, [1, 2, 3, 4, 5])
    texts = [text for text, _ in streamer.found]
    assert texts == ["", "a ", "", "bc\n", "中", "", "d"]
    assert [end for _, end in streamer.found] == [False] * 6 + [True]
    streamer = Kept(Words("a", " b"), skip_prompt=True)
    feed(streamer, [1])
    assert [text for text, _ in streamer.found] == [" ", "b"]
    feed(streamer, [1])
    assert "".join(text for text, _ in streamer.found) == " b b", "it can be used again"


def test_the_terminal(capsys):
    feed(P.TextStreamer(Words("a", " b"), skip_prompt=True), [1, 1])
    assert capsys.readouterr().out == " b b\n"
    with pytest.raises(InvalidOptionError, match="takes one row, found 2"):
        P.TextStreamer(Words("a")).put(torch.zeros(2, 3))


def test_an_iterator_beside_a_thread():
    model, words = model_of("llama"), Words()
    streamer = P.TextIteratorStreamer(words, timeout=60.0)
    thread = threading.Thread(target=generate, args=(model, ONE), kwargs={"streamer": streamer})
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == words.decode(generate(model, ONE)[0].tolist())
    with pytest.raises(Empty):
        next(P.TextIteratorStreamer(words, timeout=0.01))


def test_an_asynchronous_iterator():
    model, words = model_of("llama"), Words()

    async def read() -> str:
        streamer = P.AsyncTextIteratorStreamer(words, skip_prompt=True, timeout=60.0)
        thread = threading.Thread(target=generate, args=(model, ONE), kwargs={"streamer": streamer})
        thread.start()
        text = "".join([piece async for piece in streamer])
        thread.join()
        with pytest.raises(asyncio.TimeoutError):
            await P.AsyncTextIteratorStreamer(words, timeout=0.01).__anext__()
        return text

    assert asyncio.run(read()) == words.decode(generate(model, ONE)[0, 6:].tolist())


@pytest.mark.parametrize("settings", [{}, {"penalty_alpha": 0.6, "top_k": 4}, {"prompt_lookup_num_tokens": 2}])
def test_every_way_streams(settings):
    model, streamer = model_of("llama"), Kept(Words())
    found = generate(model, ONE, streamer=streamer, **settings)
    assert "".join(text for text, _ in streamer.found) == Words().decode(found[0].tolist())
    assert streamer.found[-1][1]


def test_a_streamer_follows_one_sequence():
    with pytest.raises(InvalidOptionError, match="a streamer follows one sequence"):
        generate(model_of("llama"), ONE, streamer=Kept(Words()), num_beams=2)
    with pytest.raises(NotImplementedError, match="defines no put"):
        P.BaseStreamer().put(torch.zeros(1))


def test_stop_strings():
    stop = P.StopStringCriteria(Words("st", "op", "stop!", " x", "s"), ["stop", "xs"])
    rows = torch.tensor([[0, 1, 3, 3], [3, 3, 0, 1], [1, 1, 1, 2], [3, 0, 1, 2], [1, 3, 4, 4], [0, 1, 3, 4]])
    assert stop(rows, None).tolist() == [False, True, True, True, False, True]
    with pytest.raises(InvalidOptionError, match="names no string"):
        P.StopStringCriteria(Words(), [])
    model = model_of("llama")
    whole = generate(model, ONE)[0].tolist()
    found = generate(model, ONE, stop_strings=[f"w{whole[8]}"], tokenizer=Words())[0].tolist()
    assert found == whole[: next(i for i in range(6, 16) if whole[i] == whole[8]) + 1]
    with pytest.raises(InvalidOptionError, match="pass the model's tokenizer too"):
        generate(model, ONE, stop_strings="a")


def test_time_and_length():
    model = model_of("llama")
    assert generate(model, ONE, max_time=0.0).shape == (1, 7)
    assert generate(model, ONE, stopping_criteria=[P.MaxLengthCriteria(9)]).shape == (1, 9)
    assert generate(model, ONE, stopping_criteria=[P.MaxLengthCriteria(30)]).shape == (1, 30), "the caller's counts"
    criteria = P.StoppingCriteriaList([P.MaxTimeCriteria(5.0, initial_timestamp=0.0), P.MaxLengthCriteria(3)])
    assert criteria.max_length == 3 and criteria(ONE["input_ids"], None).tolist() == [True]
    assert P.StoppingCriteriaList().max_length is None


def test_one_row_ends_before_another():
    model = model_of("llama")
    whole = generate(model, BATCH)
    end = int(whole[0, 8])
    found = generate(model, BATCH, eos_token_id=[end, 60])
    for row, expected in zip(found.tolist(), whole.tolist(), strict=True):
        stop = next((i for i in range(6, 16) if expected[i] in (end, 60)), 15)
        assert row[: stop + 1] == expected[: stop + 1] and set(row[stop + 1 :]) <= {0}


def test_a_criterion_may_return_one_bool():
    class Nine(P.StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return input_ids.shape[1] == 9

    for settings in ({}, {"num_beams": 2}, {"penalty_alpha": 0.5, "top_k": 3}):
        assert generate(model_of("llama"), BATCH, stopping_criteria=[Nine()], **settings).shape == (3, 9)
    with pytest.raises(NotImplementedError, match="defines no __call__"):
        P.StoppingCriteria()(ONE["input_ids"], None)
