"""One module for each way tensors lie in a file, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FORMATS", "Format", "format_of"]


@dataclass(frozen=True)
class Format:
    """How the files of a format are called.

    Attributes:
        name: what messages call it.
        single: a checkpoint in one file; `*` where that is called as its writer likes.
        index: the list of its shards, where there may be some.
        suffixes: endings of file names that ask for its reader.
    """

    name: str
    single: str
    index: str | None
    suffixes: tuple[str, ...]


# Where a folder holds several, the first one here is read.
FORMATS: Mapping[str, Format] = {
    "safetensors": Format("safetensors", "model.safetensors", "model.safetensors.index.json", (".safetensors",)),
    "torch": Format(
        "PyTorch .bin", "pytorch_model.bin", "pytorch_model.bin.index.json", (".bin", ".pt", ".pth", ".tar")
    ),
    "hdf5": Format("Keras HDF5", "tf_model.h5", "tf_model.h5.index.json", (".h5", ".hdf5")),
    "msgpack": Format("Flax msgpack", "flax_model.msgpack", "flax_model.msgpack.index.json", (".msgpack",)),
    "tf_bundle": Format("TensorFlow checkpoint", "model.ckpt.index", None, (".ckpt.index", ".index")),
    "gguf": Format("GGUF", "*.gguf", None, (".gguf",)),
}


def format_of(name: str) -> str:
    """The key in FORMATS of the format that a file's name asks for; safetensors where it says nothing."""
    return next((key for key, form in FORMATS.items() if name.endswith(form.suffixes)), "safetensors")
