"""Group beam search: beams in groups that keep away from one another's tokens (arXiv 1610.02424)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .calls import Call
from .logits_repeats import HammingDiversityLogitsProcessor

__all__ = ["group_beam_search"]

WORST = -1e9


@dataclass(order=True)
class _Hypothesis:
    """A finished sequence: its score, its ids after and with the prompt, the rows its tokens came from."""

    score: float
    ids: list[int] = field(compare=False)
    origins: list[int] = field(compare=False)


@dataclass
class _Pool:
    """The best finished sequences of one row of the batch."""

    room: int
    length_penalty: float
    early_stopping: bool | str
    max_new: int
    found: list[_Hypothesis] = field(default_factory=list)
    is_done: bool = False

    def add(self, ids: list[int], total: float, origins: list[int]) -> None:
        """Takes a sequence of log-probability `total` if it is among the best."""
        score = total / max(len(origins), 1) ** self.length_penalty
        if len(self.found) < self.room or score > min(self.found).score:
            self.found = sorted([*self.found, _Hypothesis(score, ids, origins)])[-self.room :]

    def settle(self, best_total: float, new: int) -> None:
        """Notes whether nothing can be improved: `best_total` is the best running beam's, of `new` tokens."""
        if self.is_done or len(self.found) < self.room:
            return
        if self.early_stopping is True:
            self.is_done = True
            return
        is_far = self.early_stopping == "never" and self.length_penalty > 0
        possible = best_total / (self.max_new if is_far else new) ** self.length_penalty
        self.is_done = min(self.found).score >= possible


class _Groups:
    """The state of one search. Beams of a row of the batch lie side by side, group after group."""

    def __init__(self, call: Call, ids: Tensor) -> None:
        config = call.config
        self.config, self.prompt, self.device = config, ids.shape[1], ids.device
        self.num_beams, self.num_groups = config.num_beams, config.num_beam_groups
        self.size = self.num_beams // self.num_groups
        self.batch = len(ids) // self.num_beams
        self.ends = [] if call.eos is None else call.eos.tolist()
        self.ids, self.origins = ids, ids.new_zeros(len(ids), 0)
        scores = torch.full((self.batch, self.num_groups, self.size), WORST, device=self.device)
        scores[:, :, 0] = 0  # at first the beams of a group are one
        self.scores = scores.flatten()
        settings = (self.size, config.length_penalty, config.early_stopping, config.max_length - self.prompt)
        self.pools = [[_Pool(*settings) for _ in range(self.num_groups)] for _ in range(self.batch)]
        self.pad = call.pad

    def rows(self, group: int) -> Tensor:
        """The rows of one group in all of the batch."""
        own = torch.arange(self.num_beams, device=self.device).view(self.num_groups, self.size)[group]
        return (torch.arange(self.batch, device=self.device)[:, None] * self.num_beams + own).flatten()

    def choose(self, group: int, totals: Tensor) -> tuple[list[int], list[float], list[int]]:
        """Tokens, scores and parents of the group's next beams, out of `totals` `(batch * size, vocab)`."""
        vocab = totals.shape[-1]
        count = max(2, 1 + len(self.ends)) * self.size
        scores, places = totals.view(self.batch, -1).topk(count)
        tokens, parents = (places % vocab).tolist(), (places // vocab).tolist()
        rows = self.rows(group).view(self.batch, self.size).tolist()
        chosen: list[tuple[int, float, int]] = []
        for row in range(self.batch):
            pool = self.pools[row][group]
            if pool.is_done:
                picked = [(self.pad, 0.0, rows[row][0])] * self.size
            else:
                ranked = zip(tokens[row], scores[row].tolist(), parents[row], strict=True)
                picked = self._pick(pool, [(token, score, rows[row][parent]) for token, score, parent in ranked])
                pool.settle(float(scores[row].max()), self.ids.shape[1] + 1 - self.prompt)
            chosen += picked
        return [beam[0] for beam in chosen], [beam[1] for beam in chosen], [beam[2] for beam in chosen]

    def _pick(self, pool: _Pool, ranked: list[tuple[int, float, int]]) -> list[tuple[int, float, int]]:
        picked: list[tuple[int, float, int]] = []
        for rank, (token, score, parent) in enumerate(ranked):
            if token not in self.ends:
                picked.append((token, score, parent))
            elif rank < self.size:  # one that would not be a beam does not end either
                pool.add(self.ids[parent].tolist(), score, [*self.origins[parent].tolist(), parent])
            if len(picked) == self.size:
                break
        return picked

    def advance(self, tokens: Tensor, parents: Tensor) -> None:
        """Goes on with `tokens` `(batch * beams,)`, each after the row it came from."""
        self.ids = torch.cat((self.ids[parents], tokens[:, None]), 1)
        self.origins = torch.cat((self.origins[parents], parents[:, None]), 1)

    @property
    def is_done(self) -> bool:
        """Whether no group of any row can improve."""
        return all(pool.is_done for pools in self.pools for pool in pools)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sequences `(batch * returned, seq)`, their scores, and the rows their tokens came from."""
        best: list[_Hypothesis] = []
        for row, pools in enumerate(self.pools):
            for group, pool in enumerate(pools):
                if not pool.is_done:
                    for beam in self.rows(group).view(self.batch, self.size)[row].tolist():
                        pool.add(self.ids[beam].tolist(), float(self.scores[beam]), self.origins[beam].tolist())
            found = sorted(hypothesis for pool in pools for hypothesis in pool.found)
            best += found[::-1][: self.config.num_return_sequences]
        length = min(max(len(hypothesis.ids) for hypothesis in best) + 1, self.config.max_length)
        sequences = self.ids.new_full((len(best), length), self.pad)
        origins = self.ids.new_full((len(best), length - self.prompt), -1)
        for place, hypothesis in enumerate(best):
            ids = hypothesis.ids[:length]
            if len(ids) < length and self.ends:
                ids = [*ids, self.ends[0]]
            sequences[place, : len(ids)] = torch.tensor(ids, device=self.device)
            rows = hypothesis.origins[: length - self.prompt]
            origins[place, : len(rows)] = torch.tensor(rows, device=self.device)
        return sequences, torch.tensor([h.score for h in best], device=self.device), origins


def group_beam_search(call: Call) -> Any:
    """Sequences `(batch * returned, seq)`, or the output object.

    Groups choose one after another; each is penalised for the tokens that earlier ones chose in the step. What ends a
    group and what is kept is as in transformers 4.35 (generation/beam_search.py).
    """
    config, record = call.config, call.record
    text, outputs = call.begin(call.num_copies)
    search = _Groups(call, text.ids)
    diversity = None
    if config.diversity_penalty > 0:
        diversity = HammingDiversityLogitsProcessor(config.diversity_penalty, config.num_beams, config.num_beam_groups)
    while True:
        logits = outputs.logits[:, -1].to(search.device, torch.float32)
        record.keep_parts(outputs)
        log_probs = logits.log_softmax(-1)
        tokens, parents = torch.zeros_like(search.ids[:, 0]), torch.zeros_like(search.ids[:, 0])
        kept = torch.zeros_like(log_probs) if record.needs_scores else None
        for group in range(search.num_groups):
            rows = search.rows(group)
            own = log_probs[rows]
            if diversity is not None:
                own = diversity(search.ids[rows], own, current_tokens=tokens, beam_group_idx=group)
            own = call.processors(search.ids[rows], own)
            if kept is not None:
                kept[rows] = own
            found, scores, came_from = search.choose(group, own + search.scores[rows, None])
            tokens[rows] = torch.tensor(found, device=search.device)
            parents[rows] = torch.tensor(came_from, device=search.device)
            search.scores[rows] = torch.tensor(scores, device=search.device)
        record.keep(log_probs if kept is None else kept, logits)
        search.advance(tokens, parents)
        if search.is_done or bool(call.criteria(search.ids, record.scores).all()):
            break
        call.steps.reorder(parents)
        outputs = call.steps.run(search.ids)
    sequences, final, origins = search.result()
    return record.result(sequences, call.steps.cache, sequences_scores=final, beam_indices=origins)
