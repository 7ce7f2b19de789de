"""Contrastive search: likely tokens that are unlike what was there before (Su et al., arXiv 2202.06417)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InvalidOptionError
from .calls import Call
from .stopping import EosTokenCriteria

__all__ = ["contrastive_search"]


def contrastive_search(call: Call) -> Any:
    """Sequences `(batch, seq)`, or the output object.

    Each of the `top_k` likeliest tokens is given to the model; its score is its probability, less `penalty_alpha` times
    the largest cosine similarity of its hidden state with those before it. The states of the winner are the next ones.
    """
    config, record, steps = call.config, call.record, call.steps
    if not config.use_cache:
        raise InvalidOptionError("contrastive search goes on from the cache: use_cache=True", key="use_cache")
    is_crossed = call.model.config.is_encoder_decoder
    name = "decoder_hidden_states" if is_crossed else "hidden_states"
    steps.kwargs["output_hidden_states"] = True
    text, outputs = call.begin()
    states, logits = outputs[name][-1], outputs.logits[:, -1]
    record.keep_parts(outputs)
    batch, count = len(text.ids), config.top_k
    padded = steps.visible(text.ids)
    seen = None if padded is None or is_crossed else padded
    first = torch.arange(batch, device=text.ids.device) * count
    unfinished = torch.ones(batch, dtype=torch.bool, device=text.ids.device)
    has_end = any(isinstance(criterion, EosTokenCriteria) for criterion in call.criteria)
    steps.expand(count)
    while True:
        scores = call.processors(text.ids, logits.float())
        record.keep(scores, logits.float())
        probabilities, candidates = scores.softmax(-1).topk(count)
        tried = torch.cat((text.ids.repeat_interleave(count, 0), candidates.reshape(-1, 1)), 1)
        outputs = steps.run(tried)
        new = outputs[name][-1][:, -1:]
        winner = _winner(states, new, probabilities, config.penalty_alpha, seen)
        rows = first + winner
        steps.reorder(rows.repeat_interleave(count))
        states = torch.cat((states, new[rows]), 1)
        seen = None if seen is None else F.pad(seen, (0, 1), value=True)
        logits = outputs.logits[rows, -1]
        tokens = candidates.gather(1, winner[:, None]).squeeze(1)
        if has_end:
            tokens = torch.where(unfinished, tokens, call.pad)
        text.append(tokens)
        if call.streamer is not None:
            call.streamer.put(tokens.cpu())
        unfinished &= call.criteria(text.ids, record.scores).logical_not()
        if not unfinished.any():
            break
        record.keep_parts(_rows_of(outputs, rows))
    if call.streamer is not None:
        call.streamer.end()
    if record.is_wanted:
        steps.select(first)
        steps.crop(text.length + steps.offset - 1)
    return record.result(text.ids, steps.cache)


def _winner(states: Tensor, new: Tensor, probabilities: Tensor, alpha: float, seen: Tensor | None) -> Tensor:
    """`(batch,)`, which candidate: of states `(batch, seq, hidden)`, new ones `(batch * count, 1, hidden)`.

    `seen` `(batch, seq)` is false for padding, which nothing is compared with.
    """
    count = probabilities.shape[1]
    unit, new_unit = F.normalize(states.float(), dim=-1), F.normalize(new.float(), dim=-1)
    likeness = new_unit.view(len(states), count, -1) @ unit.transpose(1, 2)
    if seen is not None:
        likeness = likeness.masked_fill(seen.logical_not()[:, None], torch.finfo(likeness.dtype).min)
    return ((1 - alpha) * probabilities - alpha * likeness.amax(-1)).argmax(-1)


def _rows_of(outputs: Any, rows: Tensor) -> dict[str, Any]:
    """The attentions and hidden states of some rows, each by its name."""
    names = ("attentions", "hidden_states", "decoder_attentions", "decoder_hidden_states", "cross_attentions")
    return {n: tuple(part[rows] for part in outputs[n]) for n in names if outputs.get(n) is not None}
