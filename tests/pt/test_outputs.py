from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pretrained.pt import outputs
from pretrained.pt.outputs import CausalLMOutput, MaskedLMOutput, ModelOutput


def make() -> MaskedLMOutput:
    return MaskedLMOutput(logits=torch.ones(2, 3), attentions=(torch.zeros(1), torch.zeros(2)))


def test_three_ways_to_read() -> None:
    out = make()
    assert out.logits is out["logits"] is out[0]
    assert out[1] is out.attentions is out[-1]
    assert out[:1] == (out.logits,)
    assert out.loss is None
    with pytest.raises(KeyError):
        out["loss"]
    with pytest.raises(IndexError):
        out[2]


def test_it_is_a_dict_of_what_is_there() -> None:
    out = make()
    assert isinstance(out, dict)
    assert list(out) == list(out.keys()) == ["logits", "attentions"]
    assert len(out) == 2
    assert "loss" not in out
    assert dict(**out).keys() == {"logits", "attentions"}
    assert out.to_tuple() == tuple(out.values())
    assert out.get("hidden_states", 5) == 5
    logits, attentions = out.to_tuple()
    assert logits is out.logits
    assert attentions is out.attentions


def test_fields_change_together() -> None:
    out = make()
    out.loss = torch.tensor(1.0)
    assert out["loss"] is out.loss
    out["loss"] = torch.tensor(2.0)
    assert out.loss.item() == 2
    out.loss = None
    assert "loss" not in out
    assert len(out) == 2
    out["extra"] = 3
    assert out.extra == 3


@pytest.mark.parametrize("name", ["pop", "popitem", "update", "setdefault", "clear"])
def test_what_would_break_it_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="MaskedLMOutput has the fields of its class"):
        getattr(make(), name)()
    with pytest.raises(TypeError, match="has the fields of its class"):
        del make()["logits"]


def test_copies() -> None:
    out = make()
    out.loss = torch.tensor(0.5)
    for other in (copy.deepcopy(out), copy.copy(out), pickle.loads(pickle.dumps(out))):
        assert type(other) is MaskedLMOutput
        assert list(other) == list(out)
        assert torch.equal(other.logits, out.logits)
        assert other.hidden_states is None
    assert copy.deepcopy(out).logits is not out.logits


def test_rebuilt_from_a_mapping_or_pairs() -> None:
    out = make()
    for other in (MaskedLMOutput(dict(out)), MaskedLMOutput(list(out.items())), MaskedLMOutput(iter(out.items()))):
        assert list(other) == list(out)
        assert other.loss is None
        assert other.logits is out.logits
    assert MaskedLMOutput((1, 2)).loss == (1, 2)  # a tuple that is a value stays one


def test_pytree() -> None:
    out = make()
    leaves, spec = pytree.tree_flatten(out)
    assert len(leaves) == 3
    doubled = pytree.tree_unflatten([leaf * 2 for leaf in leaves], spec)
    assert type(doubled) is MaskedLMOutput
    assert doubled.logits.sum() == 12
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(out)[0]]
    assert paths == ["['logits']", "['attentions'][0]", "['attentions'][1]"]
    assert type(pytree.tree_map(lambda x: x, CausalLMOutput(torch.ones(1)))) is CausalLMOutput


def test_subclasses_of_others() -> None:
    @dataclass
    class Own(ModelOutput):
        loss: Tensor | None = None
        score: Tensor | None = None

    assert Own(score=torch.ones(1)).to_tuple() == (torch.ones(1),)
    assert "score=tensor([1.])" in repr(Own(score=torch.ones(1)))


def test_every_class_is_named_and_empty_by_default() -> None:
    for name in outputs.__all__:
        if name != "ModelOutput":
            assert len(getattr(outputs, name)()) == 0


def test_compiled_function_returns_one() -> None:
    def function(x: Tensor) -> MaskedLMOutput:
        out = MaskedLMOutput(logits=x + 1)
        return MaskedLMOutput(loss=out[0].sum(), **out)

    out = torch.compile(function, fullgraph=True, backend="eager")(torch.zeros(2))
    assert type(out) is MaskedLMOutput
    assert out.loss.item() == 2
    assert out["logits"].tolist() == [1, 1]
