"""A load from the older formats: no slower than their own libraries, and at most one tensor beside the model."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from _harness import Bench, Context, Results, Row, bound, megabytes, row
from _measure import memory, read_through, timed, warm_memory

bench = Bench(
    "format_loads",
    "Loads from PyTorch's .bin, Keras' HDF5 and Flax' msgpack",
    """A BERT of 1.0 GB in float32, most of it in matrices that Keras and Flax store transposed, becomes a torch model:
    in float32, and in bfloat16. A .bin is compared with transformers. It reads neither HDF5 nor msgpack any more, so
    there the other side is the least that a loader of its own would do: h5py reads every dataset, or msgpack unpacks
    the file with the decoding of arrays that Flax has, and torch makes tensors of it in its layout; no model is built,
    no name checked. "Used" adds one pass over all elements, because ours and transformers' map what they can and what
    is mapped has to come in some time. The file is in the page cache, and ours and transformers have loaded a small
    model in the process before. The peak is the highest resident memory over what was resident before.""",
    memory=int(1.3e9),
    repeats=5,
)

FORMATS = {
    "bin": ("pytorch_model.bin", "transformers", ".bin"),
    "legacy": ("pytorch_model.bin", "transformers", ".bin from before PyTorch 1.6"),
    "h5": ("tf_model.h5", "h5py", "HDF5"),
    "msgpack": ("flax_model.msgpack", "msgpack", "msgpack"),
}
DTYPES = ("float32", "bfloat16")
SIZES = {"vocab_size": 50000, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 16}
SMALL = {"vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
LARGEST = 4 * SIZES["vocab_size"] * SIZES["hidden_size"]  # bytes of the word embeddings

Arrays = Iterator[tuple[str, Any]]


def sizes_of(context: Context) -> dict[str, int]:
    return {**SIZES, "num_hidden_layers": 4} if context.quick else SIZES


def folder_of(context: Context, form: str) -> Path:
    return context.scratch / f"bert-{form}-{sizes_of(context)['num_hidden_layers']}"


# The checkpoint


@bench.prepare
def prepare(context: Context) -> None:
    for form in FORMATS:
        make(folder_of(context, form), form, sizes_of(context))
        make(context.scratch / f"bert-{form}-small", form, SMALL)


def make(folder: Path, form: str, sizes: dict[str, int]) -> None:
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[form](folder / FORMATS[form][0], sizes)
    config = {"architectures": ["BertModel"], "model_type": "bert", "num_attention_heads": 16, "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps({**config, **sizes}))


def tensors(sizes: dict[str, int]) -> Arrays:
    """Torch's names and arrays, in small random numbers."""
    import numpy as np

    pool = np.random.default_rng(0).standard_normal(9_000_011, dtype=np.float32) * np.float32(0.02)
    place = 0
    for name, shape in shapes(sizes):
        count = int(np.prod(shape))
        place = (place + 4099) % (len(pool) // 2)
        yield name, np.resize(pool[place:], count).reshape(shape)


def shapes(sizes: dict[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    for name, rows in (("word", sizes["vocab_size"]), ("position", 512), ("token_type", 2)):
        yield f"embeddings.{name}_embeddings.weight", (rows, hidden)
    yield from norm("embeddings.LayerNorm", hidden)
    for i in range(sizes["num_hidden_layers"]):
        layer = f"encoder.layer.{i}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            yield from linear(layer + name, hidden, hidden)
        yield from norm(layer + "attention.output.LayerNorm", hidden)
        yield from linear(layer + "intermediate.dense", inner, hidden)
        yield from linear(layer + "output.dense", hidden, inner)
        yield from norm(layer + "output.LayerNorm", hidden)
    yield from linear("pooler.dense", hidden, hidden)


def norm(name: str, hidden: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (hidden,)
    yield f"{name}.bias", (hidden,)


def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def write_torch(path: Path, sizes: dict[str, int], *, is_zip: bool) -> None:
    import torch

    state = {name: torch.from_numpy(array) for name, array in tensors(sizes)}
    torch.save(state, path, _use_new_zipfile_serialization=is_zip)


def write_h5(path: Path, sizes: dict[str, int]) -> None:
    """As Keras lays it out: a group for each top layer, with a list of its variables."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"bert"]
        group, names = file.create_group("bert"), []
        for name, array in tensors(sizes):
            *parents, leaf = name.replace(".layer.", ".layer_:").split(".")
            if leaf == "weight":
                leaf = {"LayerNorm": "gamma"}.get(parents[-1], "kernel")
            elif parents[-1] == "LayerNorm":
                leaf = "beta"
            if parents[-1].endswith("_embeddings"):
                leaf = "weight" if parents[-1] == "word_embeddings" else "embeddings"
            names.append("/".join(["tf_bert_model/bert", *parents, leaf]).replace("_:", "_._") + ":0")
            group.create_dataset(names[-1], data=array.T if leaf == "kernel" else array)
        group.attrs["weight_names"] = [name.encode() for name in names]


def write_msgpack(path: Path, sizes: dict[str, int]) -> None:
    """Maps within maps, with arrays as Flax packs them; written by hand, for nothing here needs more of msgpack."""
    tree: dict[str, Any] = {}
    for name, array in tensors(sizes):
        *parents, leaf = name.split(".")
        if leaf == "weight":
            leaf = {"LayerNorm": "scale"}.get(parents[-1], "embedding" if "_embeddings" in parents[-1] else "kernel")
        branch = tree
        for part in parents:
            branch = branch.setdefault(part, {})
        branch[leaf] = array.T if leaf == "kernel" else array
    with open(path, "wb") as file:
        pack(tree, file.write)


def pack(value: Any, write: Callable[[bytes], Any]) -> None:
    if isinstance(value, dict):
        write(struct.pack(">BH", 0xDE, len(value)))
        for key, inner in value.items():
            write(struct.pack(">BB", 0xD9, len(key)) + key.encode())
            pack(inner, write)
        return
    axes = b"".join(struct.pack(">BI", 0xCE, size) for size in value.shape)
    head = struct.pack(">BB", 0x93, 0x90 + value.ndim) + axes + b"\xa7float32" + struct.pack(">BI", 0xC6, value.nbytes)
    write(struct.pack(">BIB", 0xC9, len(head) + value.nbytes, 1) + head)
    write(value.tobytes())


WRITERS: dict[str, Callable[[Path, dict[str, int]], None]] = {
    "bin": partial(write_torch, is_zip=True),
    "legacy": partial(write_torch, is_zip=False),
    "h5": write_h5,
    "msgpack": write_msgpack,
}


# The loads


@bench.before
def before(context: Context, name: str) -> None:
    form = name.split("_")[1]
    read_through(folder_of(context, form) / FORMATS[form][0])


def model_load(library: str, context: Context, form: str, dtype: str) -> Callable[[], dict[str, Any]]:
    """AutoModel of either library, which has loaded a small model of the same format already."""
    if library == "pretrained":
        from pretrained import AutoModel
    else:
        from transformers import AutoModel
    AutoModel.from_pretrained(str(context.scratch / f"bert-{form}-small"), dtype=dtype)
    folder = str(folder_of(context, form))
    kept = []

    def load() -> dict[str, Any]:
        kept[:] = AutoModel.from_pretrained(folder, dtype=dtype, output_loading_info=True)
        assert not kept[1]["missing_keys"]
        return dict(kept[0].named_parameters())

    return load


def to_torch(array: Any, is_kernel: bool, dtype: str) -> Any:
    import torch

    tensor = torch.from_numpy(array)
    return (tensor.T.contiguous() if is_kernel else tensor).to(getattr(torch, dtype))


def h5py_load(context: Context, dtype: str) -> Callable[[], dict[str, Any]]:
    import h5py

    path = folder_of(context, "h5") / FORMATS["h5"][0]

    def load() -> dict[str, Any]:
        state: dict[str, Any] = {}

        def take(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                state[name] = to_torch(node[()], name.endswith("kernel:0"), dtype)

        with h5py.File(path, "r") as file:
            file.visititems(take)
        return state

    return load


def msgpack_load(context: Context, dtype: str) -> Callable[[], dict[str, Any]]:
    import msgpack
    import numpy as np

    path = folder_of(context, "msgpack") / FORMATS["msgpack"][0]

    def array_of(code: int, content: bytes) -> Any:
        shape, name, raw = msgpack.unpackb(content, raw=True)
        return np.ndarray(shape, np.dtype(name.decode()), raw).copy()

    def walk(tree: dict[str, Any], prefix: str = "") -> Arrays:
        for key, value in tree.items():
            yield from walk(value, f"{prefix}{key}/") if isinstance(value, dict) else [(prefix + key, value)]

    def load() -> dict[str, Any]:
        with open(path, "rb") as file:
            tree = msgpack.unpackb(file.read(), ext_hook=array_of, raw=False, max_ext_len=2**32 - 1)
        return {name: to_torch(array, name.endswith("/kernel"), dtype) for name, array in walk(tree)}

    return load


def measure(context: Context, library: str, form: str, dtype: str) -> dict[str, float]:
    import torch

    if library in ("pretrained", "transformers"):
        load = model_load(library, context, form, dtype)
    else:
        load = h5py_load(context, dtype) if library == "h5py" else msgpack_load(context, dtype)
    warm_memory(bench.memory)
    before = memory()
    result: dict[str, float] = {}
    with timed(result):
        state = load()
    after = memory()
    assert all(str(tensor.dtype) == f"torch.{dtype}" for tensor in state.values())
    assert len(state) == len(list(shapes(sizes_of(context))))
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    result["peak"] = after["peak"] - before["rss"]
    result["beyond_result"] = result["peak"] - size
    with torch.inference_mode(), timed(result, "use"):
        result["checksum"] = float(sum(tensor.sum(dtype=torch.float32) for tensor in state.values()))
    result["used"] = result["seconds"] + result["use"]
    return result


def add_variant(library: str, form: str, dtype: str) -> None:
    def run(context: Context) -> dict[str, float]:
        return measure(context, library, form, dtype)

    run.__name__ = f"{library}_{form}_{dtype}"
    is_peer = library != "pretrained"
    bench.variant(peer=is_peer, optional=is_peer)(run)


for _form, (_, _peer, _) in FORMATS.items():
    for _dtype in DTYPES:
        add_variant("pretrained", _form, _dtype)
        add_variant(_peer, _form, _dtype)


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    rows = []
    for form, (_, peer, what) in FORMATS.items():
        for dtype in DTYPES:
            ours, theirs, title = f"pretrained_{form}_{dtype}", f"{peer}_{form}_{dtype}", f"{what} to {dtype}"
            if not results.has(ours):
                continue
            beyond = results.median(ours, "beyond_result")
            rows += [
                row(results, title, ours, theirs, 1, against=peer),
                row(results, f"{title}, used", ours, theirs, 1, key="used", against=peer),
                row(results, f"{title}, peak", ours, theirs, None, key="peak", against=peer, show=megabytes),
                bound(f"{title}, peak beyond the model", beyond, 1.1 * LARGEST, megabytes),
            ]
    return rows


if __name__ == "__main__":
    bench.main()
