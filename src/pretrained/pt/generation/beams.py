"""Beam search and beam sampling: the likeliest sequences of several that are continued side by side.

Of the rows of a batch each has `num_beams` running beams and as many places for finished ones. Names of axes: batch,
beams, candidates (continuations looked at in a step), seq.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .calls import Call

__all__ = ["beam_search"]

WORST = -1e9  # finite, so that sums of it stay numbers


@dataclass
class _Beams:
    """Sequences `(batch, n, max_length)`, scores `(batch, n)`, and the row each token came from `(batch, n, new)`."""

    sequences: Tensor
    scores: Tensor
    origins: Tensor

    def pick(self, places: Tensor) -> _Beams:
        """The beams at `places` `(batch, m)`."""
        return _Beams(_at(self.sequences, places), _at(self.scores, places), _at(self.origins, places))

    def beside(self, other: _Beams) -> _Beams:
        """These beams and others after them."""
        pairs = zip((self.sequences, self.scores, self.origins), vars(other).values(), strict=True)
        return _Beams(*(torch.cat(pair, 1) for pair in pairs))


def _at(values: Tensor, places: Tensor) -> Tensor:
    """`values` `(batch, n, …)` at `places` `(batch, m)`."""
    index = places.view(*places.shape, *[1] * (values.dim() - 2)).expand(*places.shape, *values.shape[2:])
    return values.gather(1, index)


class _Search:
    """The state of one search."""

    def __init__(self, call: Call, ids: Tensor) -> None:
        self.config, self.prompt, self.device = call.config, ids.shape[1], ids.device
        self.num_beams = call.config.num_beams
        self.batch, self.length = len(ids) // self.num_beams, self.prompt
        ends = 0 if call.eos is None else len(call.eos)
        self.num_candidates = max(2, 1 + ends) * self.num_beams
        # As the reference has it: a padding of 0 does not fill what is left of a short sequence, the end does.
        fill = -1 if call.eos is None else (call.pad_id or int(call.eos[0]))
        shape = (self.batch, self.num_beams)
        room = call.config.max_length
        sequences = torch.full((*shape, room), fill, dtype=torch.int64, device=self.device)
        sequences[:, :, : self.prompt] = ids.view(*shape, -1)
        origins = torch.full((*shape, room - self.prompt), -1, dtype=torch.int32, device=self.device)
        scores = torch.zeros(shape, device=self.device)
        scores[:, 1:] = WORST  # at first all beams are one
        self.running = _Beams(sequences, scores, origins)
        self.finished = _Beams(sequences.clone(), torch.full_like(scores, WORST), origins.clone())
        self.is_finished = torch.zeros(shape, dtype=torch.bool, device=self.device)
        self.may_improve = torch.ones(self.batch, 1, dtype=torch.bool, device=self.device)

    @property
    def ids(self) -> Tensor:
        """The running beams `(batch * beams, seq)`."""
        return self.running.sequences[:, :, : self.length].flatten(0, 1)

    def candidates(self, log_probs: Tensor, generator: torch.Generator | None) -> _Beams:
        """The best continuations, or drawn ones, of log-probabilities `(batch * beams, vocab)`."""
        vocab = log_probs.shape[-1]
        totals = (log_probs.view(self.batch, self.num_beams, vocab) + self.running.scores[:, :, None]).flatten(1)
        if self.config.do_sample:
            places = torch.multinomial(totals.softmax(-1), self.num_candidates, generator=generator)
            scores = totals.gather(1, places)
        else:
            scores, places = totals.topk(self.num_candidates)
        parents = places // vocab
        found = self.running.pick(parents)
        found.scores = scores
        found.sequences[:, :, self.length] = places % vocab
        rows = parents + torch.arange(self.batch, device=self.device)[:, None] * self.num_beams
        found.origins[:, :, self.length - self.prompt] = rows.int()
        return found

    def advance(self, found: _Beams, ended: Tensor) -> Tensor:
        """Goes on with what has not ended, `(batch, candidates)`; returns the row each beam came from."""
        going = _Beams(found.sequences, found.scores + ended * WORST, found.origins)
        self.running = going.pick(going.scores.topk(self.num_beams)[1])
        self._finish(found, ended)
        rows: Tensor = self.running.origins[:, :, self.length - self.prompt].flatten()
        self.length += 1
        self._note_improvement()
        return rows

    def _finish(self, found: _Beams, ended: Tensor) -> None:
        is_best = torch.arange(self.num_candidates, device=self.device) < self.num_beams
        counts = ended & is_best
        scores = found.scores / (self.length + 1 - self.prompt) ** self.config.length_penalty
        if self.config.early_stopping is True:
            scores = scores + self.is_finished.all(-1, keepdim=True) * WORST
        scores = scores + self.may_improve.logical_not() * WORST + counts.logical_not() * WORST
        merged = self.finished.beside(_Beams(found.sequences, scores, found.origins))
        places = merged.scores.topk(self.num_beams)[1]
        self.finished = merged.pick(places)
        self.is_finished = _at(torch.cat((self.is_finished, counts), 1), places)

    def _note_improvement(self) -> None:
        """Whether a running beam could still become better than the worst of the finished ones."""
        is_far = self.config.early_stopping == "never" and self.config.length_penalty > 0
        length = (self.config.max_length if is_far else self.length) - self.prompt
        best = self.running.scores[:, :1] / length**self.config.length_penalty
        worst = torch.where(self.is_finished, self.finished.scores.amin(1, keepdim=True), WORST)
        self.may_improve &= (best > worst).any(-1, keepdim=True)

    def is_done(self, ended: Tensor) -> bool:
        """Whether nothing is left to search; one look at the device."""
        full = self.is_finished.all() if self.config.early_stopping is True else torch.zeros_like(ended.all())
        return bool(self.may_improve.any().logical_not() | full | ended.all())

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sequences `(batch * returned, seq)`, their scores, and the rows their tokens came from."""
        count = self.config.num_return_sequences
        beams = [value[:, :count].flatten(0, 1) for value in vars(self.finished).values()]
        sequences, scores, origins = beams
        new = int((origins >= 0).sum(1).max())
        return sequences[:, : self.prompt + new], scores, origins[:, :new]


def beam_search(call: Call) -> Any:
    """Sequences `(batch * returned, seq)`, or the output object.

    Source: the search of transformers 5 (generation/utils.py), whose choices are followed token by token.
    """
    text, outputs = call.begin(call.num_copies)
    search, record, ids = _Search(call, text.ids), call.record, text.ids
    while True:
        logits = outputs.logits[:, -1].to(search.device, torch.float32, copy=record.needs_scores)
        record.keep_parts(outputs)
        del outputs
        log_probs = call.processors(ids, logits.log_softmax(-1))
        record.keep(log_probs, logits)
        found = search.candidates(log_probs, call.generator)
        so_far = found.sequences[:, :, : search.length + 1].flatten(0, 1)
        ended = call.criteria(so_far, record.scores).view(search.batch, -1)
        rows = search.advance(found, ended)
        call.steps.reorder(rows)
        if search.is_done(ended):
            break
        ids = search.ids
        outputs = call.steps.run(ids)
    sequences, scores, origins = search.result()
    return record.result(sequences, call.steps.cache, sequences_scores=scores, beam_indices=origins)
