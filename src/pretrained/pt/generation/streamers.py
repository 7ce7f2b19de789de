"""Streamers: what receives tokens while they are generated, and makes text of them.

A streamer has `put(ids)`, called with the prompt `(1, seq)` and then with each new token `(1,)`, and `end()`. The
tokenizer is whatever has `decode(ids)`. A piece of text is given out when no later token can change it: at spaces, line
ends and after characters of scripts without spaces.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from queue import Queue
from typing import Any

from torch import Tensor

from ...errors import InvalidOptionError

__all__ = ["AsyncTextIteratorStreamer", "BaseStreamer", "TextIteratorStreamer", "TextStreamer"]

# Scripts that are written without spaces, where each character is a word: CJK ideographs and their extensions.
_WORDS = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2CEAF), (0xF900, 0xFAFF))
_WORDS += ((0x2F800, 0x2FA1F),)  # type: ignore[assignment]


class BaseStreamer:
    """Base of all streamers."""

    def put(self, value: Tensor) -> None:
        """Takes the prompt, or new tokens."""
        raise NotImplementedError(f"{type(self).__name__} defines no put(ids)")

    def end(self) -> None:
        """Takes note that there are no more."""
        raise NotImplementedError(f"{type(self).__name__} defines no end()")


class TextStreamer(BaseStreamer):
    """Writes text to the terminal as it comes.

    Args:
        tokenizer: has `decode(ids, **decode_kwargs)`.
        skip_prompt: whether the prompt is left out.
        decode_kwargs: such as `skip_special_tokens=True`.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.decode_kwargs = decode_kwargs
        self.token_cache: list[int] = []
        self.print_len = 0
        self.next_tokens_are_prompt = True

    def put(self, value: Tensor) -> None:
        """Takes tokens `(seq,)` or `(1, seq)` and gives out the text that is certain.

        Raises:
            InvalidOptionError: there are several rows.
        """
        if value.dim() > 1 and len(value) > 1:
            raise InvalidOptionError(f"a text streamer takes one row, found {len(value)}", key="streamer")
        is_prompt, self.next_tokens_are_prompt = self.next_tokens_are_prompt, False
        if is_prompt and self.skip_prompt:
            return
        self.token_cache += value.reshape(-1).tolist()
        text = self.tokenizer.decode(self.token_cache, **self.decode_kwargs)
        if text.endswith("\n"):
            piece = text[self.print_len :]
            self.token_cache, self.print_len = [], 0
        else:
            certain = len(text) if text and _is_word(text[-1]) else text.rfind(" ") + 1
            piece = text[self.print_len : certain]
            self.print_len += len(piece)
        self.on_finalized_text(piece)

    def end(self) -> None:
        """Gives out the rest."""
        rest = self.tokenizer.decode(self.token_cache, **self.decode_kwargs)[self.print_len :]
        if not self.token_cache:
            rest = ""
        self.token_cache, self.print_len, self.next_tokens_are_prompt = [], 0, True
        self.on_finalized_text(rest, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """What is done with a piece of text; a subclass may do something else. `stream_end`: it is the last."""
        sys.stdout.write(f"{text}\n" if stream_end else text)
        sys.stdout.flush()


def _is_word(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _WORDS)


class TextIteratorStreamer(TextStreamer):
    """An iterator over pieces of text, for a reader beside the thread that generates.

    Args:
        tokenizer: has `decode(ids, **decode_kwargs)`.
        skip_prompt: whether the prompt is left out.
        timeout: seconds to wait for a piece; None: for ever. Then queue.Empty is raised.
        decode_kwargs: such as `skip_special_tokens=True`.
    """

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.text_queue: Queue[str | None] = Queue()
        self.stop_signal = None
        self.timeout = timeout

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Puts a piece into the queue."""
        self.text_queue.put(text, timeout=self.timeout)
        if stream_end:
            self.text_queue.put(self.stop_signal, timeout=self.timeout)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self.text_queue.get(timeout=self.timeout)
        if piece is None:
            raise StopIteration
        return piece


class AsyncTextIteratorStreamer(TextStreamer):
    """An asynchronous iterator over pieces of text; it is made where the event loop runs that reads it.

    Args:
        tokenizer: has `decode(ids, **decode_kwargs)`.
        skip_prompt: whether the prompt is left out.
        timeout: seconds to wait for a piece; None: for ever. Then TimeoutError is raised.
        decode_kwargs: such as `skip_special_tokens=True`.
    """

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.text_queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.stop_signal = None
        self.timeout = timeout
        self.loop = asyncio.get_running_loop()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Puts a piece into the queue, from whatever thread."""
        self.loop.call_soon_threadsafe(self.text_queue.put_nowait, text)
        if stream_end:
            self.loop.call_soon_threadsafe(self.text_queue.put_nowait, self.stop_signal)

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        piece = await asyncio.wait_for(self.text_queue.get(), self.timeout)
        if piece is None:
            raise StopAsyncIteration
        return piece
