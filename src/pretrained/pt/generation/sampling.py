"""Greedy decoding and sampling: one sequence for each row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .calls import Call
from .stopping import EosTokenCriteria

__all__ = ["decode", "draw"]


def draw(scores: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One token for each row `(rows,)`, drawn by the softmax of `scores` `(rows, vocab)`."""
    return torch.multinomial(scores.softmax(-1), 1, generator=generator).squeeze(1)


def decode(call: Call) -> Any:
    """Sequences `(rows, seq)`, or the output object, by taking the likeliest token or by drawing one."""
    config, processors, record = call.config, call.processors, call.record
    text, outputs = call.begin(call.num_copies)
    unfinished = torch.ones(len(text.ids), dtype=torch.bool, device=text.ids.device)
    has_end = any(isinstance(criterion, EosTokenCriteria) for criterion in call.criteria)
    while True:
        logits = outputs.logits[:, -1]
        record.keep_parts(outputs)
        del outputs  # a prompt's logits of a whole vocabulary need not stay while the next step is computed
        if processors or config.do_sample or record.needs_scores:
            logits = logits.to(text.ids.device, torch.float32, copy=True)
        scores = processors(text.ids, logits) if processors else logits
        record.keep(scores, logits)
        tokens = draw(scores, call.generator) if config.do_sample else scores.argmax(-1)
        if has_end:
            tokens = torch.where(unfinished, tokens, call.pad)
        text.append(tokens)
        if call.streamer is not None:
            call.streamer.put(tokens.cpu())
        unfinished &= call.criteria(text.ids, record.scores).logical_not()
        if not unfinished.any():
            break
        outputs = call.steps.run(text.ids)
    if call.streamer is not None:
        call.streamer.end()
    return record.result(text.ids, call.steps.cache)
