"""Where the drafts of assisted generation come from: a smaller model, or the text itself."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import InvalidOptionError
from ...generation.config import GenerationConfig
from .calls import Call
from .prepare import model_inputs
from .sampling import draw
from .steps import Steps

__all__ = ["CandidateGenerator", "DraftModel", "PromptLookup", "candidates_for"]


class CandidateGenerator(Protocol):
    """Proposes tokens, and is told what became of them."""

    def propose(self, ids: Tensor, most: int) -> tuple[Tensor, Tensor | None]:
        """`(1, n)` tokens, at most `most`, that may follow `ids` `(1, seq)`, and `(1, n, vocab)` the scores that they
        were drawn by; `None` if they were not drawn."""
        ...

    def learn(self, proposed: int, accepted: int) -> None:
        """Takes note of how many of the proposed tokens were right."""
        ...


def candidates_for(call: Call) -> CandidateGenerator:
    """What a call asks for: its assistant model, or the text itself."""
    assistant = call.extra.get("assistant")
    if assistant is None:
        return PromptLookup(call.config.prompt_lookup_num_tokens, call.config.max_matching_ngram_size or 2, call.eos)
    return DraftModel(assistant, call)


class PromptLookup:
    """Proposes what followed the last tokens where they stood in the text before.

    Source: Saxena, Prompt lookup decoding, 2023 (github.com/apoorvumang/prompt-lookup-decoding).

    Args:
        num_tokens: proposed at once.
        max_ngram: how many last tokens to look for, at first; then fewer.
        eos: nothing is proposed from one of these on.
    """

    def __init__(self, num_tokens: int, max_ngram: int, eos: Tensor | None = None) -> None:
        self.num_tokens, self.max_ngram = num_tokens, max_ngram
        self._ends = set() if eos is None else set(eos.tolist())

    def propose(self, ids: Tensor, most: int) -> tuple[Tensor, None]:
        """Tokens `(1, n)` from the first place in the text that matches."""
        length, most = ids.shape[1], min(most, self.num_tokens)
        for size in range(min(self.max_ngram, length - 1), 0, -1):
            places = (ids[0].unfold(0, size, 1) == ids[0, length - size :]).all(1).nonzero()[:, 0]
            start = int(places[0]) + size
            if start < length:
                found = ids[0, start : start + most].tolist()
                upto = next((place for place, token in enumerate(found) if token in self._ends), len(found))
                return ids[:, start : start + upto], None
        return ids[:, :0], None

    def learn(self, proposed: int, accepted: int) -> None:
        """Nothing to learn."""


class DraftModel:
    """Proposes what a smaller model would write.

    Args:
        model: of the same vocabulary.
        call: of the model that is assisted; its processors apply to the draft too.

    Raises:
        InvalidOptionError: the vocabularies differ, or one is an encoder–decoder and the other is not.
    """

    def __init__(self, model: Any, call: Call) -> None:
        sizes = [part.config.get_text_config().vocab_size for part in (call.model, model)]
        if sizes[0] != sizes[1]:
            raise InvalidOptionError(
                f"assistant_model has {sizes[1]} tokens and the model {sizes[0]}: drafts need one vocabulary",
                key="assistant_model",
            )
        if model.config.is_encoder_decoder != call.model.config.is_encoder_decoder:
            raise InvalidOptionError(
                "assistant_model must be an encoder–decoder if the model is one, and none if not", key="assistant_model"
            )
        own = (model.generation_config or GenerationConfig()).filled_from()
        self.num_tokens = _setting(call.config, own, "num_assistant_tokens")
        self.schedule = _setting(call.config, own, "num_assistant_tokens_schedule")
        self.threshold = _setting(call.config, own, "assistant_confidence_threshold")
        self.model, self.call = model, call
        self._steps: Steps | None = None

    def _begin(self, ids: Tensor) -> Any:
        call, kwargs = self.call, self.call.steps.masks()
        if self.model.config.is_encoder_decoder:
            found = model_inputs(
                self.model, call.extra["encoder_ids"], {**kwargs, "decoder_input_ids": ids}, call.config, None
            )
            kwargs = found.kwargs
        self._steps = Steps(self.model, kwargs, call.config.max_length, True, {})
        return self._steps.begin(ids)[1]

    def _continue(self, ids: Tensor) -> Any:
        if self._steps is None:
            return self._begin(ids)
        if self._steps.seen >= ids.shape[1]:
            self._steps.crop(ids.shape[1] - 1)
        return self._steps.run(ids)

    def propose(self, ids: Tensor, most: int) -> tuple[Tensor, Tensor | None]:
        """Tokens `(1, n)`; with sampling, the scores they were drawn by too."""
        config, text, scores = self.call.config, ids, []
        for _ in range(min(most, self.num_tokens)):
            logits = self._continue(text).logits[:, -1].to(ids.device, torch.float32, copy=True)
            step = self.call.processors(text, logits)
            token = draw(step, self.call.generator) if config.do_sample else step.argmax(-1)
            text = torch.cat((text, token[:, None]), 1)
            scores.append(step)
            if self.threshold and float(step.softmax(-1)[0, token[0]]) < self.threshold:
                break
            if self.call.eos is not None and bool((self.call.eos == token).any()):
                break
        stacked = torch.stack(scores, 1) if config.do_sample and scores else None
        return text[:, ids.shape[1] :], stacked

    def learn(self, proposed: int, accepted: int) -> None:
        """With a heuristic schedule, proposes more after a draft that was all right, and less after another."""
        if self.schedule in ("heuristic", "heuristic_transient"):
            self.num_tokens = self.num_tokens + 2 if accepted == proposed else max(1, self.num_tokens - 1)
        if self.schedule == "heuristic" and self.model.generation_config is not None:
            self.model.generation_config.num_assistant_tokens = self.num_tokens


def _setting(called: Any, own: Any, name: str) -> Any:
    """A setting of drafts: the call's, else the assistant's own."""
    return vars(called)[name] if vars(called).get(name) is not None else getattr(own, name)
