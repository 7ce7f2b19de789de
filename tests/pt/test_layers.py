from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pretrained.errors import ConfigError
from pretrained.pt.layers import (
    ACTIVATIONS,
    XIELU,
    DerivedBuffers,
    RMSNorm,
    activation,
    chunked,
    init_normal,
    keep_places,
)


def phi(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def tanh_form(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


FORMULAS = {
    "gelu": lambda x: x * phi(x),
    "gelu_python": lambda x: x * phi(x),
    "gelu_10": lambda x: max(-10.0, min(10.0, x * phi(x))),
    "gelu_new": tanh_form,
    "gelu_fast": tanh_form,
    "gelu_accurate": tanh_form,
    "gelu_python_tanh": tanh_form,
    "gelu_pytorch_tanh": tanh_form,
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "relu": lambda x: max(x, 0.0),
    "relu2": lambda x: max(x, 0.0) ** 2,
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "swish": lambda x: x / (1 + math.exp(-x)),
    "hardswish": lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "laplace": lambda x: 0.5 * (1 + math.erf((x - 0.707107) / (0.282095 * math.sqrt(2)))),
    "sqrtsoftplus": lambda x: math.sqrt(math.log1p(math.exp(x))),
    "linear": lambda x: x,
}


def test_every_activation_has_a_formula_here() -> None:
    assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_activations(name: str) -> None:
    x = torch.linspace(-12, 12, 101, dtype=torch.float64)
    expected = torch.tensor([FORMULAS[name](v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(activation(name)(x), expected, atol=1e-7, rtol=1e-7)


def test_trained_activations_are_new_each_time() -> None:
    assert isinstance(activation("prelu"), nn.PReLU)
    first, second = activation("xielu"), activation("xielu")
    assert isinstance(first, XIELU)
    assert first is not second
    assert set(first.state_dict()) == {"alpha_p", "alpha_n", "beta", "eps"}
    x = torch.tensor([-2.0, 0.0, 3.0])
    slope, above, below = 0.5, 0.8, 0.8
    expected = [below * (math.expm1(-2) + 2) - 2 * slope, 0.0, above * 9 + slope * 3]
    torch.testing.assert_close(first(x).float(), torch.tensor(expected), atol=0.05, rtol=0)


def test_activations_by_name_or_as_they_are() -> None:
    assert activation(torch.sin) is torch.sin
    with pytest.raises(ConfigError, match=r"hidden_act='gelu_mew' is not known. Did you mean 'gelu_new'\?") as error:
        activation("gelu_mew")
    assert error.value.key == "hidden_act"


def test_rms_norm() -> None:
    norm, x = RMSNorm(4, 1e-6), torch.tensor([[3.0, -4.0, 0.0, 0.0]])
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    torch.testing.assert_close(norm(x), torch.tensor([[3 / 2.5, -8 / 2.5, 0.0, 0.0]]))
    assert repr(norm) == "RMSNorm(4, eps=1e-06)"
    half = RMSNorm(4, 1e-6).half()
    assert torch.isfinite(half(torch.full((1, 4), 6e4, dtype=torch.float16))).all()  # its square is beyond float16
    assert RMSNorm(4, 1e-6).double()(x.double()).dtype == torch.float64


class Table(DerivedBuffers):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.reset_buffers()

    def derive(self) -> dict[str, Tensor]:
        return {"table": torch.arange(4, dtype=torch.float32) / 3}


def test_derived_buffers() -> None:
    module = Table()
    assert set(module.state_dict()) == {"inner.weight", "inner.bias"}
    module.half()
    assert module.inner.weight.dtype == torch.float16
    assert module.get_buffer("table").tolist() == Table().get_buffer("table").tolist()
    assert nn.Sequential(Table()).to(torch.bfloat16)[0].get_buffer("table").dtype == torch.float32
    with torch.device("meta"):
        built = Table()
    assert built.to_empty(device="cpu").get_buffer("table").tolist() == module.get_buffer("table").tolist()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 50])
def test_chunked(size: int) -> None:
    x, seen = torch.randn(2, 7, 3), []

    def function(piece: Tensor) -> Tensor:
        seen.append(piece.shape[1])
        return piece * 2

    assert torch.equal(chunked(function, size, x), x * 2)
    assert sum(seen) == 7
    assert max(seen) <= (size or 7)


def test_keep_places() -> None:
    x = torch.arange(6).view(1, 6)
    assert keep_places(x, 0) is x
    assert keep_places(x, 2).tolist() == [[4, 5]]
    assert keep_places(x, torch.tensor([0, 3])).tolist() == [[0, 3]]


def test_init_normal() -> None:
    torch.manual_seed(0)
    linear, table, norm = nn.Linear(200, 100), nn.Embedding(100, 200, padding_idx=3), nn.LayerNorm(5)
    for module in (linear, table, norm, RMSNorm(5, 1e-6), nn.LayerNorm(5, elementwise_affine=True, bias=False)):
        for parameter in module.parameters():
            nn.init.constant_(parameter, 9.0)
        init_normal(module, 0.3)
        assert all((parameter != 9).all() for parameter in module.parameters())
    assert abs(linear.weight.std().item() - 0.3) < 0.01
    assert torch.all(linear.bias == 0)
    assert torch.all(table.weight[3] == 0)
    assert torch.all(norm.weight == 1)
    assert torch.all(norm.bias == 0)
