"""Mapped parameters: nothing is copied, nothing is written back, and everything torch does with tensors works."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from pathlib import Path

import pytest
import torch

from pretrained import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of 26 MB, so that memory shows."""
    path = tmp_path_factory.mktemp("mapped")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4000, hidden_size=512, intermediate_size=1024, num_hidden_layers=1, num_attention_heads=8
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def memory(kind: str) -> int:
    """Bytes of this process's memory of a kind that /proc/self/smaps_rollup names."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(kind)


def maps_of(name: str) -> int:
    return sum(name in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_mapped_load_takes_no_memory_of_its_own(folder):
    AutoModelForCausalLM.from_pretrained(folder)
    before = memory("Anonymous")
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert memory("Anonymous") - before < 2 * 2**20
    assert info.bytes_mapped == sum(p.nbytes for p in model.parameters()) and info.bytes_read == 0


def test_a_copying_load_does(folder):
    before = memory("Anonymous")
    model, info = AutoModelForCausalLM.from_pretrained(folder, mmap=False, output_loading_info=True)
    size = sum(p.nbytes for p in model.parameters())
    assert memory("Anonymous") - before > 0.4 * size  # some of it reuses freed memory
    assert info.bytes_read == size and info.bytes_mapped == 0 and not maps_of(str(folder))
    mapped = AutoModelForCausalLM.from_pretrained(folder)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), mapped.parameters(), strict=True))


def test_memory_of_one_tensor_is_given_back_alone(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, mmap=False)
    before = memory("Anonymous")
    size = model.lm_head.weight.nbytes
    model.lm_head = None
    assert before - memory("Anonymous") > 0.9 * size


def test_the_map_goes_with_the_last_view(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert maps_of(str(folder)) == 1
    kept = model.lm_head.weight
    del model
    assert maps_of(str(folder)) == 1 and torch.isfinite(kept).all()
    del kept
    assert maps_of(str(folder)) == 0


def test_the_file_may_go(folder, tmp_path):
    import shutil

    copied = shutil.copytree(folder, tmp_path / "copy")
    model = AutoModelForCausalLM.from_pretrained(copied)
    expected = AutoModelForCausalLM.from_pretrained(folder)
    shutil.rmtree(copied)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


def test_training_stays_in_this_process(folder):
    content = (folder / "model.safetensors").read_bytes()
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    other = AutoModelForCausalLM.from_pretrained(folder)
    before = other.lm_head.weight.clone()
    ids = torch.randint(0, 4000, (2, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = model(input_ids=ids, labels=ids).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[0]
    assert torch.equal(other.lm_head.weight, before) and (folder / "model.safetensors").read_bytes() == content


def test_copy_pickle_cast_and_state_dict(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            other.lm_head.weight.zero_()
        assert model.lm_head.weight.abs().sum() > 0
    assert copy.deepcopy(model).half().lm_head.weight.dtype == torch.float16
    torch.save(model.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert (tmp_path / "state.pt").stat().st_size < 1.1 * model.get_memory_footprint() + 10**6


def _total(model, queue):
    queue.put(sum(p.double().sum().item() for p in model.parameters()))


@pytest.mark.parametrize("shared", [False, True], ids=["private", "share_memory_"])
def test_fork(folder, shared):
    torch.set_num_threads(1)  # OpenMP does not survive a fork
    model = AutoModelForCausalLM.from_pretrained(folder)
    if shared:
        model.share_memory()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    pid = os.fork()
    if pid == 0:
        try:
            _total(model, queue)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert queue.get() == pytest.approx(sum(p.double().sum().item() for p in model.parameters()))


def test_a_cast_load_never_holds_source_and_result(folder):
    AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16")
    before = memory("Anonymous")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16")
    size = sum(p.nbytes for p in model.parameters())
    assert 0.4 * size < memory("Anonymous") - before < size + 4 * 2**20  # small ones reuse freed memory
    assert maps_of(str(folder)) == 0
