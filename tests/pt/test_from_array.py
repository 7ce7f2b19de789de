"""Arrays of any layout, dtype and origin become contiguous tensors of their own memory."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from pretrained.pt import backend as module
from pretrained.pt.backend import TorchBackend

LAYOUTS = {
    "matrix": ((3, 700), (1, 0)),
    "large": ((1500, 400), (1, 0)),
    "convolution": ((2, 3, 4, 5), (3, 2, 0, 1)),
    "as it is": ((6, 7), (0, 1)),
    "empty": ((0, 4), (1, 0)),
    "scalar": ((), ()),
}
DTYPES = ["float32", "float16", "float64", ">f4", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, "int64", "bool"]


def made(dtype: object, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(np.asarray(3 * np.random.default_rng(0).standard_normal(shape)).astype(np.dtype(dtype)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name + np.dtype(dtype).byteorder)
@pytest.mark.parametrize("target", ["float32", "bfloat16"])
def test_numpy_arrays(layout, dtype, target, monkeypatch):
    monkeypatch.setattr(module, "_TURNED", 1 << 16)  # several pieces of the large one
    shape, axes = LAYOUTS[layout]
    array = made(dtype, shape)
    plain = array if array.dtype.isbuiltin != 2 else array.astype(np.float32)
    plain = plain.astype(plain.dtype.newbyteorder("="))
    expected = torch.from_numpy(np.array(plain.transpose(axes), order="C")).to(getattr(torch, target))
    for is_writeable in (True, False):
        array.flags.writeable = is_writeable
        found = TorchBackend().from_array(array.transpose(axes), target)
        assert found.is_contiguous() and found.shape == expected.shape
        assert torch.equal(found, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("target", ["float32", "bfloat16", "float64"])
def test_a_tensor_is_copied(layout, target):
    shape, axes = LAYOUTS[layout]
    source = torch.from_numpy(made("float32", shape)).requires_grad_()
    found = TorchBackend().from_array(source.permute(axes), target)
    assert torch.equal(found, source.detach().permute(axes).contiguous().to(getattr(torch, target)))
    assert found.is_contiguous() and not found.requires_grad
    assert found.numel() == 0 or found.data_ptr() != source.data_ptr()


def test_an_array_that_is_right_gives_its_memory():
    array = made("float32", (6, 7))
    assert TorchBackend().from_array(array, "float32").data_ptr() == array.ctypes.data
    array.flags.writeable = False
    found = TorchBackend().from_array(array, "float32")
    found.zero_()
    assert array.any()
