"""One step of a model after another, each given what it needs of the ones before: cache, masks, positions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidOptionError
from .. import kv_cache
from ..outputs import CausalLMOutput, ModelOutput

__all__ = ["Steps", "Text", "accepted_names", "picked", "repeated"]

# What grows by one entry with each token, and what the entry is.
_GROWING: dict[str, Callable[[Tensor], Tensor]] = {
    "token_type_ids": lambda last: last,
    "position_ids": lambda last: last + 1,
    "decoder_position_ids": lambda last: last + 1,
}

# What a step is given of a tensor that holds it for all steps.
_VIEWS = frozenset({"input_ids", "decoder_input_ids", "position_ids", "token_type_ids", "cache_position"})


def accepted_names(function: Callable[..., Any]) -> set[str]:
    """Names of the parameters of a function, `*` and `**` ones left out."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def repeated(value: Any, times: int) -> Any:
    """`value` with each row of its tensors `times` times, one after another."""
    if isinstance(value, Tensor):
        return value.repeat_interleave(times, 0)
    if isinstance(value, ModelOutput):
        return type(value)(**{name: repeated(item, times) for name, item in value.items()})
    if isinstance(value, Mapping):
        return {name: repeated(item, times) for name, item in value.items()}
    return type(value)(repeated(item, times) for item in value) if isinstance(value, (tuple, list)) else value


class Text:
    """The ids so far, in a buffer with room for those to come.

    Args:
        ids: `(rows, seq)`, the prompt.
        room: tokens there is room for at first.
    """

    def __init__(self, ids: Tensor, room: int) -> None:
        self.length = ids.shape[1]
        self._buffer = ids.new_zeros(len(ids), max(room, self.length + 1))
        self._buffer[:, : self.length] = ids

    @property
    def ids(self) -> Tensor:
        """All of them, `(rows, seq)`: a view that stays right."""
        return self._buffer[:, : self.length]

    def append(self, tokens: Tensor) -> None:
        """Adds `(rows,)` one for each row, or `(rows, new)`."""
        tokens = tokens[:, None] if tokens.dim() == 1 else tokens
        end = self.length + tokens.shape[1]
        if end > self._buffer.shape[1]:
            self._buffer = torch.nn.functional.pad(self._buffer, (0, end))
        self._buffer[:, self.length : end] = tokens
        self.length = end


class Steps:
    """Runs a model step by step.

    Args:
        model: has `prepare_inputs_for_generation`.
        kwargs: what forward is given beside the ids: masks, embeddings, a cache, what an encoder made.
        max_length: tokens that the cache is to have room for.
        use_cache: whether there is one.
        wanted: what forward is asked to return too.
        compiled: runs the steps after the prompt in place of the model; the cache is a static one then.
    """

    def __init__(
        self,
        model: Any,
        kwargs: Mapping[str, Any],
        max_length: int,
        use_cache: bool,
        wanted: Mapping[str, bool],
        compiled: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        self.model, self.max_length, self.use_cache, self._compiled = model, max_length, use_cache, compiled
        self.is_crossed = model.config.is_encoder_decoder
        self.kwargs = {k: v for k, v in kwargs.items() if v is not None} | dict(wanted) | {"use_cache": use_cache}
        self.cache = self.kwargs.pop("past_key_values", None)
        self.seen = 0 if self.cache is None else int(kv_cache.as_cache(self.cache, self.is_crossed).get_seq_length())
        self._asked = accepted_names(model.prepare_inputs_for_generation)
        self._taken = accepted_names(model.forward)
        self._keep = next((n for n in ("logits_to_keep", "num_logits_to_keep") if n in self._taken), None)
        self._mask_name = "decoder_attention_mask" if self.is_crossed else "attention_mask"
        self._mask: Tensor | None = None
        self._positions: Tensor | None = None
        self.offset = 0  # tokens before the first of the ids: embeddings, or a past whose ids were not passed

    def begin(self, ids: Tensor, times: int = 1, chunk: int | None = None) -> tuple[Tensor, Any]:
        """Takes the prompt in: the ids with each row `times` times, and the output of its last token for these rows.

        The prompt is computed once, whatever `times`, unless more than logits was asked for.
        """
        self._settle(ids)
        early = times > 1 and any(self.kwargs.get(name) for name in ("output_attentions", "output_hidden_states"))
        early = early or (times > 1 and self.cache is not None)
        if early:
            self.expand(times)
            ids = ids.repeat_interleave(times, 0)
        outputs = self._prefill(ids, chunk)
        if times > 1 and not early:
            self.expand(times)
            ids = ids.repeat_interleave(times, 0)
            outputs = CausalLMOutput(logits=outputs.logits[:, -1:].repeat_interleave(times, 0))
        return ids, outputs

    def _settle(self, ids: Tensor) -> None:
        embeds, mask = self.kwargs.get("inputs_embeds"), self.kwargs.get(self._mask_name)
        if embeds is not None and not self.is_crossed:
            self.offset = embeds.shape[1] - ids.shape[1]
        elif mask is not None and self.seen and mask.shape[1] == self.seen + ids.shape[1]:
            self.offset = self.seen
        total = ids.shape[1] + self.offset
        if self.seen >= total:
            raise InvalidOptionError(
                f"past_key_values holds {self.seen} tokens, and the prompt has {total}: it must have at least one more",
                key="past_key_values",
            )
        if mask is not None and mask.dim() == 2 and mask.shape[1] != total:
            raise InvalidOptionError(
                f"{self._mask_name} is {mask.shape[1]} long, expected {total}: it covers the whole prompt",
                key=self._mask_name,
            )
        if mask is not None and mask.dim() == 2 and bool(mask.all()):
            mask = self.kwargs[self._mask_name] = None  # nothing is masked, at no step
        self._grow_mask(mask)
        if "cache_position" in self._taken | self._asked:
            self._positions = torch.arange(self.max_length + max(self.offset, 0), device=ids.device)

    def _grow_mask(self, mask: Tensor | None) -> None:
        """Room for a mask of all steps: what is generated may be looked at."""
        if mask is not None and mask.dim() == 2:
            room = self.max_length + max(self.offset, 0)
            self._mask = torch.nn.functional.pad(mask, (0, max(0, room - mask.shape[1])), value=1)

    def expand(self, times: int) -> None:
        """Makes each row `times` rows, one after another."""
        self.kwargs = {name: repeated(value, times) for name, value in self.kwargs.items()}
        self._mask = repeated(self._mask, times)
        if isinstance(self.cache, (tuple, list)):
            self.cache = repeated(self.cache, times)
        elif self.cache is not None and self.seen:  # one without tokens has no rows yet, or those of all copies
            self.cache.batch_repeat_interleave(times)

    def _prefill(self, ids: Tensor, chunk: int | None) -> Any:
        total = ids.shape[1] + self.offset
        if chunk is not None and self.use_cache and not self.is_crossed and "inputs_embeds" not in self.kwargs:
            for end in range(self.seen + chunk, total, chunk):
                self._run(ids[:, : end - self.offset], 1)
        outputs = self._run(ids, 1)
        if isinstance(self.cache, (kv_cache.KVCache, kv_cache.EncoderDecoderKVCache)):
            self.cache.reserve(self.max_length + max(self.offset, 0))
        return outputs

    def run(self, ids: Tensor, num_logits: int = 1) -> Any:
        """The output for the ids `(rows, seq)` that were not there before, logits for the last `num_logits` of them."""
        return self._run(ids, num_logits)

    def _run(self, ids: Tensor, num_logits: int) -> Any:
        total = ids.shape[1] + self.offset
        is_fixed = self._compiled is not None and self.seen > 0 and total - self.seen == 1
        inputs = self.model.prepare_inputs_for_generation(ids, **self._arguments(total))
        self._fit_positions(inputs, total)
        if self._keep is not None:
            inputs.setdefault(self._keep, num_logits)
        if "attention_mask" in inputs and inputs["attention_mask"] is None:
            del inputs["attention_mask"]
        inputs["return_dict"] = True
        if is_fixed and self._compiled is not None:
            outputs = self._compiled(self._fixed(inputs))
        else:
            outputs = self.model(**inputs)
        if self.use_cache:
            self.cache = outputs.get("past_key_values")
            self.seen = total if self.cache is not None else 0
        return outputs

    def _fit_positions(self, inputs: dict[str, Any], total: int) -> None:
        """Places of all ids of the step: a model may take the whole text anew, as one whose rotation changes does."""
        ids, places = inputs.get("input_ids"), inputs.get("cache_position")
        if self._positions is not None and ids is not None and places is not None and len(places) != ids.shape[1]:
            inputs["cache_position"] = self._positions[total - ids.shape[1] : total]

    def _fixed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with shapes that are the same at every step."""
        if self._mask is not None:
            room = self.cache.key_length(1)
            whole = torch.nn.functional.pad(self._mask, (0, max(0, room - self._mask.shape[1])))
            inputs[self._mask_name] = self._mask = whole[:, :room]
        # A view of something longer has other strides and another address at each step.
        for name in _VIEWS & inputs.keys():
            inputs[name] = inputs[name].clone(memory_format=torch.contiguous_format)
        return inputs

    def _arguments(self, total: int) -> dict[str, Any]:
        given = dict(self.kwargs)
        given["past_key_values"] = self.cache
        if self._mask is not None:
            if total > self._mask.shape[1]:
                self._mask = torch.nn.functional.pad(self._mask, (0, total), value=1)
            given[self._mask_name] = self._mask[:, :total]
        elif "attention_mask" in self._taken and not self.is_crossed:
            given.setdefault("attention_mask", None)
        for name in _GROWING.keys() & self.kwargs.keys():
            given[name] = self._grown(name, total)[:, :total]
        if self._positions is not None:
            if total > len(self._positions):
                self._positions = torch.arange(2 * total, device=self._positions.device)
            given["cache_position"] = self._positions[self.seen : total]
        if "next_sequence_length" in self._asked and (self.seen or self.offset):
            given["next_sequence_length"] = total - self.seen
        if "is_first_iteration" in self._asked:
            given["is_first_iteration"] = self.seen == 0
        return given

    def _grown(self, name: str, total: int) -> Tensor:
        value: Tensor = self.kwargs[name]
        while value.shape[1] < total:
            value = torch.cat((value, _GROWING[name](value[:, -1:])), 1)
        self.kwargs[name] = value
        return value

    def reorder(self, rows: Tensor) -> None:
        """Row `i` goes on from what row `rows[i]` was."""
        cache = self.cache
        if cache is None:
            return
        if isinstance(cache, (tuple, list)):
            self.cache = self.model._reorder_cache(cache, rows)
        elif isinstance(cache, kv_cache.EncoderDecoderKVCache):
            cache.self_attention.reorder(rows)  # beams of one text have one encoder output
        else:
            cache.reorder_cache(rows)

    def select(self, rows: Tensor) -> None:
        """Leaves some rows of the cache; there are no steps after it."""
        if isinstance(self.cache, (tuple, list)):
            self.cache = picked(self.cache, rows)
        elif self.cache is not None:
            self.cache.batch_select_indices(rows)

    def masks(self) -> dict[str, Tensor]:
        """The masks and segments that came with the prompt, for another model that is to read it."""
        names = ("attention_mask", "decoder_attention_mask", "token_type_ids")
        found = {name: self.kwargs[name] for name in names if self.kwargs.get(name) is not None}
        return found

    def visible(self, ids: Tensor) -> Tensor | None:
        """`(rows, seq)`, false where the text `ids` has padding; `None` if it has none."""
        return None if self._mask is None else self._mask[:, self.offset : self.offset + ids.shape[1]] != 0

    def crop(self, length: int) -> None:
        """Forgets all but the first `length` tokens of the text, those before the ids included."""
        self.cache.crop(length)
        self.seen = length


def picked(cache: Any, rows: Tensor) -> Any:
    """Legacy tuples of tensors `(rows, …)` whose row `i` is what row `rows[i]` was."""
    if isinstance(cache, Tensor):
        return cache.index_select(0, rows.to(cache.device))
    return type(cache)(picked(part, rows) for part in cache)
