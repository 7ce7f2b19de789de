"""A quantized GGUF into float32: at most half of transformers' time, at its peak no more than the result and 64 MB."""

import struct
from pathlib import Path

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, bound, megabytes, row
from _measure import memory, read_through, timed, warm_memory

bench = Bench(
    "gguf_load",
    "Load of a quantized GGUF",
    """0.37 billion parameters in blocks of 4 bits (Q4_0, 0.2 GB) with a vocabulary of 32,000 tokens become 1.5 GB of
    float32, or 0.75 GB of bfloat16. Both libraries make numbers of the blocks with the code of the package gguf. The
    file is in the page cache, and each process has loaded a tiny model before. The peak is the highest resident memory
    over what was resident before.""",
    memory=int(1.7e9),
    repeats=5,
)

NAME = "model.gguf"
_IN_BLOCK = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.down_proj": "ffn_down",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "self_attn.k_proj": "attn_k",
    "self_attn.o_proj": "attn_output", "self_attn.q_proj": "attn_q", "self_attn.v_proj": "attn_v",
}  # fmt: skip
_OUTSIDE = {"lm_head": "output", "model.embed_tokens": "token_embd", "model.norm": "output_norm"}


def folder_of(context: Context) -> Path:
    return context.scratch / ("gguf-quick" if context.quick else "gguf")


def sizes_of(context: Context) -> dict[str, int]:
    return {**_checkpoints.LARGE, "num_hidden_layers": 1 if context.quick else 4}


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.tiny(context)
    path = folder_of(context) / NAME
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path.with_suffix(".part"), sizes_of(context))
        path.with_suffix(".part").rename(path)


@bench.before
def before(context: Context, name: str) -> None:
    read_through(folder_of(context) / NAME)


def write(path: Path, sizes: dict[str, int]) -> None:
    """Random blocks under llama.cpp's names, by numpy alone, so that no library under test has a hand in them."""
    import numpy as np

    shapes = [(gguf_name(name), shape) for name, shape in _checkpoints._shapes(sizes)]
    fields = metadata(sizes)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(fields)) + b"".join(fields)
    offset = 0
    for name, shape in shapes:
        kind, nbytes = (2, shape[0] * shape[1] // 32 * 18) if len(shape) == 2 else (0, 4 * shape[0])
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, offset)
        offset += -(-nbytes // 32) * 32
    blocks = np.random.default_rng(0).integers(0, 256, (1 << 20, 18), np.uint8)
    blocks[:, :2] = np.frombuffer(np.float16(0.004).tobytes(), np.uint8)  # the scale of each block
    pool = blocks.reshape(-1)
    with open(path, "wb") as file:
        file.write(head + b"\0" * (-len(head) % 32))
        for _, shape in shapes:
            if len(shape) == 1:
                file.write(np.ones(shape, np.float32).tobytes())
            left = shape[0] * shape[1] // 32 * 18 if len(shape) == 2 else 0
            while left > 0:
                left -= file.write(pool[:left].data)
            file.write(b"\0" * (-file.tell() % 32))


def gguf_name(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    if module in _OUTSIDE:
        return f"{_OUTSIDE[module]}.{leaf}"
    _, _, number, inner = module.split(".", 3)
    return f"blk.{number}.{_IN_BLOCK[inner]}.{leaf}"


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def metadata(sizes: dict[str, int]) -> list[bytes]:
    """The keys of a Llama, and a vocabulary with merges of a usual size."""
    counts = {
        "block_count": sizes["num_hidden_layers"], "context_length": 2048, "embedding_length": sizes["hidden_size"],
        "feed_forward_length": sizes["intermediate_size"], "attention.head_count": sizes["num_attention_heads"],
        "attention.head_count_kv": sizes["num_key_value_heads"],
    }  # fmt: skip
    tokens = [f"token{i}" for i in range(sizes["vocab_size"])]
    merges = [f"tok en{i}" for i in range(sizes["vocab_size"] - 256)]
    return [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        *(text(f"llama.{key}") + struct.pack("<II", 4, value) for key, value in counts.items()),
        text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5),
        text("llama.rope.freq_base") + struct.pack("<If", 6, 10000.0),
        text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("gpt2"),
        strings("tokenizer.ggml.tokens", tokens),
        text("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, len(tokens)) + struct.pack("<i", 1) * len(tokens),
        strings("tokenizer.ggml.merges", merges),
    ]


def strings(key: str, values: list[str]) -> bytes:
    return text(key) + struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))


def _load(context: Context, library: str, dtype: str) -> dict:
    import torch

    _loads.load_with(library, _checkpoints.tiny(context), dtype="float32")()
    load = _loads.load_with(library, folder_of(context), gguf_file=NAME, dtype=dtype)
    warm_memory(bench.memory)
    before = memory()
    result: dict = {}
    with timed(result):
        model = load()
    after = memory()
    assert all(str(p.dtype) == f"torch.{dtype}" for p in model.parameters())
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    result["peak"] = after["peak"] - before["rss"]
    result["beyond_result"] = result["peak"] - size
    with torch.inference_mode():
        result["checksum"] = float(model(torch.tensor([[1, 2, 3]])).logits[0, -1, :8].float().sum())
    return result


@bench.variant()
def pretrained_float32(context: Context) -> dict:
    return _load(context, "pretrained", "float32")


@bench.variant(peer=True, optional=True)
def transformers_float32(context: Context) -> dict:
    return _load(context, "transformers", "float32")


@bench.variant()
def pretrained_bfloat16(context: Context) -> dict:
    return _load(context, "pretrained", "bfloat16")


@bench.variant(peer=True, optional=True)
def transformers_bfloat16(context: Context) -> dict:
    return _load(context, "transformers", "bfloat16")


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    rows = []
    for dtype, limit in (("float32", 0.5), ("bfloat16", None)):
        ours, theirs = f"pretrained_{dtype}", f"transformers_{dtype}"
        rows += [
            row(results, f"to {dtype}", ours, theirs, limit, against="transformers"),
            row(results, f"to {dtype}, peak", ours, theirs, None, key="peak", against="transformers", show=megabytes),
        ]
    beyond = results.median("pretrained_float32", "beyond_result")
    return [*rows, bound("to float32, peak beyond the result", beyond, 64e6, megabytes)]


if __name__ == "__main__":
    bench.main()
