"""GGUF files put together byte by byte, right or wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


def text(value: str | bytes, length: int | None = None) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def plain(kind: int, value: Any) -> bytes:
    return text(value) if kind == STRING else struct.pack("<" + _CODES[kind], value)


def array(kind: int, values: Sequence[Any], count: int | None = None) -> bytes:
    """The payload of an array; of arrays the values are payloads."""
    items = b"".join(value if kind == ARRAY else plain(kind, value) for value in values)
    return struct.pack("<IQ", kind, len(values) if count is None else count) + items


def field(key: str | bytes, kind: int, value: Any) -> bytes:
    """A key with its value; bytes are taken for the payload as it is."""
    payload = value if isinstance(value, bytes) else plain(kind, value)
    return text(key) + struct.pack("<I", kind) + payload


def tensor(
    name: str | bytes, dims: Sequence[int], kind: int = 0, offset: int = 0, *, num_dims: int | None = None
) -> bytes:
    """The description of a tensor; the fastest axis comes first."""
    count = len(dims) if num_dims is None else num_dims
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", count, *dims, kind, offset)


def gguf(
    fields: Iterable[bytes] = (),
    tensors: Iterable[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    num_fields: int | None = None,
    num_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    fields, tensors = list(fields), list(tensors)
    counts = (
        len(tensors) if num_tensors is None else num_tensors,
        len(fields) if num_fields is None else num_fields,
    )
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(fields) + b"".join(tensors)
    return head + b"\0" * (-len(head) % alignment) + data


LLAMA: dict[str, tuple[int, Any]] = {
    "general.architecture": (STRING, "llama"),
    "llama.block_count": (U32, 1),
    "llama.context_length": (U32, 64),
    "llama.embedding_length": (U32, 8),
    "llama.feed_forward_length": (U32, 12),
    "llama.attention.head_count": (U32, 2),
    "llama.attention.head_count_kv": (U32, 1),
    "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
    "tokenizer.ggml.tokens": (ARRAY, array(STRING, ["a", "b", "c"])),
}


def llama(changes: dict[str, tuple[int, Any] | None] | None = None, *tensors: tuple[str, Sequence[int]]) -> bytes:
    """A file with the metadata of a small Llama, and tensors of zeros in float32; None takes a key away."""
    facts = {**LLAMA, **(changes or {})}
    described, data = [], b""
    for name, dims in tensors or (("token_embd.weight", (8, 3)),):
        described.append(tensor(name, dims, 0, len(data)))
        count = 1
        for dim in dims:
            count *= dim
        data += b"\0" * (4 * count + -4 * count % 32)
    return gguf([field(key, *told) for key, told in facts.items() if told is not None], described, data)
