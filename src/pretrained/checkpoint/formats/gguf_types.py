"""The types that a tensor of a GGUF file can have.

Source: the table of types in ggml.h and ggml-quants of ggml.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["TYPES", "Blocks"]


class Blocks(NamedTuple):
    """A type of tensor: `size` elements in `nbytes` bytes. `dtype` is set where these are plain numbers."""

    name: str
    size: int
    nbytes: int
    dtype: str | None = None


# By the number that stands in the file. What is missing was given up by ggml and is in no file of today.
TYPES: Mapping[int, Blocks] = {
    0: Blocks("F32", 1, 4, "float32"),
    1: Blocks("F16", 1, 2, "float16"),
    2: Blocks("Q4_0", 32, 18),
    3: Blocks("Q4_1", 32, 20),
    6: Blocks("Q5_0", 32, 22),
    7: Blocks("Q5_1", 32, 24),
    8: Blocks("Q8_0", 32, 34),
    9: Blocks("Q8_1", 32, 40),
    10: Blocks("Q2_K", 256, 84),
    11: Blocks("Q3_K", 256, 110),
    12: Blocks("Q4_K", 256, 144),
    13: Blocks("Q5_K", 256, 176),
    14: Blocks("Q6_K", 256, 210),
    15: Blocks("Q8_K", 256, 292),
    16: Blocks("IQ2_XXS", 256, 66),
    17: Blocks("IQ2_XS", 256, 74),
    18: Blocks("IQ3_XXS", 256, 98),
    19: Blocks("IQ1_S", 256, 50),
    20: Blocks("IQ4_NL", 32, 18),
    21: Blocks("IQ3_S", 256, 110),
    22: Blocks("IQ2_S", 256, 82),
    23: Blocks("IQ4_XS", 256, 136),
    24: Blocks("I8", 1, 1, "int8"),
    25: Blocks("I16", 1, 2, "int16"),
    26: Blocks("I32", 1, 4, "int32"),
    27: Blocks("I64", 1, 8, "int64"),
    28: Blocks("F64", 1, 8, "float64"),
    29: Blocks("IQ1_M", 256, 56),
    30: Blocks("BF16", 1, 2, "bfloat16"),
    34: Blocks("TQ1_0", 256, 54),
    35: Blocks("TQ2_0", 256, 66),
    39: Blocks("MXFP4", 32, 17),
    40: Blocks("NVFP4", 64, 36),
    41: Blocks("Q1_0", 128, 18),
}
