"""Assisted generation: several tokens are drafted and checked in one step of the model.

What is written is what the model alone would write: with sampling in distribution, else token by token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidOptionError
from .calls import Call
from .candidates import candidates_for
from .sampling import draw
from .steps import Text

__all__ = ["assisted_decoding"]


def assisted_decoding(call: Call) -> Any:
    """Sequences `(1, seq)`, or the output object.

    Raises:
        InvalidOptionError: there are several rows, or no cache.
    """
    config, record = call.config, call.record
    if len(call.ids) > 1 or call.num_copies > 1:
        raise InvalidOptionError(
            f"assisted generation takes one row, found {len(call.ids) * call.num_copies}: a draft fits one text",
            key="assistant_model",
        )
    if not config.use_cache or config.guidance_scale not in (None, 1):
        name = "use_cache" if not config.use_cache else "guidance_scale"
        raise InvalidOptionError(f"assisted generation does not go with {name}={getattr(config, name)}", key=name)
    drafts = candidates_for(call)
    text, outputs = call.begin()
    logits = outputs.logits[:, -1:].to(text.ids.device, torch.float32, copy=True)
    record.keep_parts(outputs)
    scores = call.processors(text.ids, logits[:, 0])
    token = draw(scores, call.generator) if config.do_sample else scores.argmax(-1)
    is_done = _take(call, text, token[:, None], scores[:, None], logits)
    while not is_done:
        room = config.max_length - text.length - 1
        drafted, drawn_by = drafts.propose(text.ids, room) if room > 0 else (text.ids[:, :0], None)
        count, before = drafted.shape[1], text.length
        tried = torch.cat((text.ids, drafted), 1)
        outputs = call.steps.run(tried, count + 1)
        logits = outputs.logits[:, -count - 1 :].to(tried.device, torch.float32, copy=True)
        steps = [call.processors(tried[:, : before + place], logits[:, place]) for place in range(count + 1)]
        scores = torch.stack(steps, 1)
        tokens = _accepted(call, drafted, scores, drawn_by)
        is_done = _take(call, text, tokens, scores, logits)
        taken = text.length - before
        for place in range(taken if record.is_wanted else 0):
            record.keep_parts(_place_of(outputs, place, before + place + call.steps.offset))
        call.steps.crop(text.length + call.steps.offset - 1)
        drafts.learn(count, min(taken - 1, count))
    if call.streamer is not None:
        call.streamer.end()
    return record.result(text.ids, call.steps.cache)


def _take(call: Call, text: Text, tokens: Tensor, scores: Tensor, logits: Tensor) -> bool:
    """Adds tokens `(1, n)` until one ends the text; says whether one did."""
    for place, token in enumerate(tokens.unbind(1)):
        call.record.keep(scores[:, place], logits[:, place])
        text.append(token)
        if call.streamer is not None:
            call.streamer.put(token.cpu())
        if bool(call.criteria(text.ids, call.record.scores).all()):
            return True
    return False


def _accepted(call: Call, drafted: Tensor, scores: Tensor, drawn_by: Tensor | None) -> Tensor:
    """The drafted tokens up to the first that is wrong, and one of the model's own, `(1, n)`."""
    if call.config.do_sample and drawn_by is not None:
        return _speculative(drafted, scores, drawn_by, call.config.assistant_ensemble_weight, call.generator)
    own = draw(scores[0], call.generator)[None] if call.config.do_sample else scores.argmax(-1)
    right = int((own[:, :-1] == drafted).cumprod(1).sum())
    return own[:, : right + 1]


def _speculative(
    drafted: Tensor, scores: Tensor, drawn_by: Tensor, weight: float | None, generator: torch.Generator | None
) -> Tensor:
    """Keeps a drafted token with probability p / q, else draws from what p has more than q (arXiv 2211.17192).

    `weight`: p is first mixed with q, of which it is then this share.
    """
    count = drafted.shape[1]
    wanted, drafts = scores.softmax(-1)[0], drawn_by.softmax(-1)[0]
    places = torch.arange(count, device=drafted.device)
    ratio = wanted[places, drafted[0]] / drafts[places, drafted[0]]
    if weight is not None:
        ratio = 1 - weight + weight * ratio
    chance = torch.rand(count, generator=generator, device=drafted.device)
    right = int((chance <= ratio).cumprod(0).sum())
    left = wanted[right]
    if right < count:
        more = (wanted[right] - drafts[right]).clamp(min=0)
        # Without more, p and q are one and the token was turned down by rounding alone.
        left = more if bool(more.sum() > torch.finfo(more.dtype).tiny) else left
    token = torch.multinomial(left, 1, generator=generator)
    return torch.cat((drafted[0, :right], token))[None]


def _place_of(outputs: Any, place: int, length: int) -> dict[str, Any]:
    """Of what the model returned for several tokens what it would have returned for one: `length` are before it."""
    found = {}
    for name in ("attentions", "decoder_attentions", "cross_attentions"):
        if outputs.get(name) is not None:
            keys = None if name == "cross_attentions" else length
            found[name] = tuple(layer[:, :, place : place + 1, :keys] for layer in outputs[name])
    for name in ("hidden_states", "decoder_hidden_states"):
        if outputs.get(name) is not None:
            found[name] = tuple(layer[:, place : place + 1] for layer in outputs[name])
    return found
