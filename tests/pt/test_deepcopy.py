"""What people do to any module — copy, pickle, cast, wrap, spread over processes — done to models of every family."""

from __future__ import annotations

import copy
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from tests.pt.every_head import FAMILIES, HEADS, assert_equal_outputs, batch_for, build
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

from pretrained import BertForMaskedLM, PreTrainedModel

# Heads that tie weights come first; a family has at least the last.
_ORDER = (
    "AutoModelForMaskedLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForCausalLM",
    "AutoModelForPreTraining",
    "AutoModel",
)
MODELS = [(model_type, next(auto for auto in _ORDER if (model_type, auto) in HEADS)) for model_type in FAMILIES]


def ties_of(model: nn.Module) -> list[tuple[str, ...]]:
    """The names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [tuple(group) for group in names.values() if len(group) > 1]


def values_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal_values(model: nn.Module, values: dict[str, Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == values.keys()
    assert all(torch.equal(state[name], value) for name, value in values.items())


@pytest.fixture(params=MODELS, ids=lambda param: param[0])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[PreTrainedModel, str]:
    """A model whose weights are views of a file, and the auto class it belongs to."""
    model_type, auto = request.param
    model = build(model_type, auto, tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "model")
    mapped, report = type(model).from_pretrained(tmp_path / "model", output_loading_info=True)
    assert report.bytes_mapped > 0
    return mapped, auto


def pickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


def saved_whole(model: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def is_parametrized(model: nn.Module) -> bool:
    return any(parametrize.is_parametrized(module) for module in model.modules())


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, saved_whole])
def test_a_copy_is_a_model_of_its_own(loaded: tuple[PreTrainedModel, str], copied: Callable[[Any], Any]) -> None:
    model, auto = loaded
    if copied is not copy.deepcopy and is_parametrized(model):  # torch's rule, for weight normalisation among others
        with pytest.raises(RuntimeError, match=r"only supported through state_dict"):
            copied(model)
        return
    values, ties = values_of(model), ties_of(model)
    other = copied(model)
    assert type(other) is type(model) and not other.training
    assert other.config == model.config and other.config is not model.config
    assert_equal_values(other, values)
    assert ties_of(other) == ties
    batch = batch_for(model, auto)
    with torch.no_grad():
        assert_equal_outputs(other(**batch), model(**batch))
        for parameter in other.parameters():
            parameter.add_(1)
    assert_equal_values(model, values)


def test_copies_save_as_the_model_does(loaded: tuple[PreTrainedModel, str], tmp_path: Path) -> None:
    model, _ = loaded
    copies = [copy.deepcopy(model), *(() if is_parametrized(model) else (pickled(model),))]
    for number, other in enumerate((model, *copies)):
        other.save_pretrained(tmp_path / str(number))
    for number in range(1, 1 + len(copies)):
        for path in (tmp_path / "0").iterdir():
            assert (tmp_path / str(number) / path.name).read_bytes() == path.read_bytes()


def test_state_dicts(loaded: tuple[PreTrainedModel, str], tmp_path: Path) -> None:
    model, _ = loaded
    torch.save(model.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = type(model)(model.config)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    ties = ties_of(fresh)
    assert str(fresh.load_state_dict(state)) == "<All keys matched successfully>"
    assert_equal_values(fresh, values_of(model))
    assert ties_of(fresh) == ties == ties_of(model)


def test_casts_keep_ties_and_the_file(loaded: tuple[PreTrainedModel, str], tmp_path: Path) -> None:
    model, auto = loaded
    ties, content = ties_of(model), (tmp_path / "model" / "model.safetensors").read_bytes()
    halved = copy.deepcopy(model).half()
    assert halved.dtype == torch.float16 and ties_of(halved) == ties
    assert ties_of(model.double()) == ties and model.dtype == torch.float64
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch_for(model, auto).items()}
    with torch.no_grad():
        outputs = model(**batch)
    assert all(v.isfinite().all() for v in outputs.values() if isinstance(v, Tensor))
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == content


def test_a_wrapped_model_saves_and_answers(loaded: tuple[PreTrainedModel, str], tmp_path: Path) -> None:
    model, auto = loaded
    wrapped = nn.DataParallel(model)
    batch = batch_for(model, auto)
    with torch.no_grad():
        assert_equal_outputs(wrapped(**batch), model(**batch))
    wrapped.module.save_pretrained(tmp_path / "direct")
    PreTrainedModel.save_pretrained(wrapped, tmp_path / "through")  # type: ignore[arg-type]
    for path in (tmp_path / "direct").iterdir():
        assert (tmp_path / "through" / path.name).read_bytes() == path.read_bytes()


# Several processes


def _join(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)


def _leave() -> None:
    """Ends this process without finalizing Python: a thread of gloo that frees a tensor at that moment aborts it."""
    dist.destroy_process_group()
    os._exit(0)


def _rows(model: PreTrainedModel) -> dict[str, Tensor]:
    """Four rows without padding: each half has as many labels."""
    ids = torch.randint(3, model.config.vocab_size, (4, 7), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids}


def _step(model: Any, parameters: Any, rows: dict[str, Tensor]) -> None:
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    model(**rows).loss.backward()
    optimizer.step()


def _train_in_parallel(rank: int, folder: Path) -> None:
    _join(rank, folder)
    model = BertForMaskedLM.from_pretrained(folder / "model")
    wrapped = DistributedDataParallel(model)
    half = {name: value[2 * rank : 2 * rank + 2] for name, value in _rows(model).items()}
    _step(wrapped, wrapped.parameters(), half)
    wrapped.module.save_pretrained(folder / "out", is_main_process=rank == 0)
    _leave()


def _train_in_shards(rank: int, folder: Path) -> None:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    _join(rank, folder)
    model = BertForMaskedLM.from_pretrained(folder / "model")
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.bert.encoder.layer:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    half = {name: value[2 * rank : 2 * rank + 2] for name, value in _rows(model).items()}
    _step(model, model.parameters(), half)
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    model.save_pretrained(folder / "out", state_dict=state, is_main_process=rank == 0)
    _leave()


@pytest.mark.clients  # starting two processes takes longer than all of the above
@pytest.mark.parametrize("train", [_train_in_parallel, _train_in_shards], ids=["ddp", "fsdp2"])
def test_two_processes_train_as_one(train: Callable[[int, Path], None], tmp_path: Path) -> None:
    build("bert", "AutoModelForMaskedLM", hidden_dropout_prob=0.0).save_pretrained(tmp_path / "model")
    processes.spawn(train, (tmp_path,), nprocs=2)
    model = BertForMaskedLM.from_pretrained(tmp_path / "model")
    before = values_of(model)
    _step(model, model.parameters(), _rows(model))
    found = BertForMaskedLM.from_pretrained(tmp_path / "out")
    assert ties_of(found) == ties_of(model) != []
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=0, atol=1e-5, msg=name)
    assert any(not torch.equal(value, before[name]) for name, value in found.state_dict().items())
