"""torch.compile without a graph break and torch.export with dynamic shapes, for every family and head.

Base models are always tested; heads, and what every family does alike, with the tests of other tools (`make clients`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.pt.every_head import FAMILIES, HEADS, assert_equal_outputs, batch_for, build
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from pretrained import BertModel, PreTrainedModel
from pretrained.pt.kv_cache import KVCache, StaticKVCache

DYNAMIC = torch.export.Dim.DYNAMIC
CLIENTS = pytest.mark.clients

CASES = [pytest.param(*head, marks=() if head[1] == "AutoModel" else CLIENTS) for head in HEADS]
# Which head a family is trained with, the first of these that it has, and the labels of a batch.
TRAINED: dict[str, Callable[[PreTrainedModel, dict[str, Tensor]], Tensor]] = {
    "AutoModelForCausalLM": lambda model, batch: batch["input_ids"],
    "AutoModelForMaskedLM": lambda model, batch: batch["input_ids"],
    "AutoModelForSeq2SeqLM": lambda model, batch: batch["decoder_input_ids"],
    "AutoModelForImageClassification": lambda model, batch: torch.tensor([0, 1]),
    "AutoModelForAudioClassification": lambda model, batch: torch.tensor([0, 1]),
}
TRAINING = [(model_type, next(auto for auto in TRAINED if (model_type, auto) in HEADS)) for model_type in FAMILIES]
DECODERS = ["llama", "gpt2"]


@pytest.fixture(autouse=True)
def _forget_graphs() -> Iterator[None]:
    """Each case compiles for itself: what others compiled would count against torch's limit."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(model: PreTrainedModel, backend: Any = "eager") -> Any:
    return torch.compile(model, fullgraph=True, dynamic=True, backend=backend)


def dynamic_shapes(batch: dict[str, Tensor]) -> dict[str, Any]:
    """Every axis may change but those of an image."""
    return {
        name: dict.fromkeys(range(1 if name == "pixel_values" else value.dim()), DYNAMIC)
        for name, value in batch.items()
    }


@pytest.mark.parametrize(("model_type", "auto"), CASES)
def test_one_graph_for_every_shape(model_type: str, auto: str) -> None:
    model = build(model_type, auto, num_hidden_layers=1)
    counter = CompileCounter()
    function = compiled(model, counter)
    with torch.no_grad():
        for batch in (batch_for(model, auto), batch_for(model, auto, 3, 11)):
            assert_equal_outputs(function(**batch), model(**batch))
    assert counter.frame_count == 1


@pytest.mark.parametrize(("model_type", "auto"), CASES)
def test_exported_for_every_shape(model_type: str, auto: str) -> None:
    model = build(model_type, auto, num_hidden_layers=1)
    batch, other = batch_for(model, auto), batch_for(model, auto, 3, 11)
    with torch.no_grad():
        program = torch.export.export(model, (), batch, dynamic_shapes=dynamic_shapes(batch))
        assert_equal_outputs(program.module()(**batch), model(**batch))
        assert_equal_outputs(program.module()(**other), model(**other))


@CLIENTS
@pytest.mark.parametrize(("model_type", "auto"), TRAINING)
def test_a_compiled_step_has_the_same_gradients(model_type: str, auto: str) -> None:
    model = build(model_type, auto, num_hidden_layers=1)
    batch = batch_for(model, auto)
    batch["labels"] = TRAINED[auto](model, batch)
    gradients = []
    for function in (model, compiled(model, "aot_eager")):
        model.zero_grad()
        function(**batch).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 8
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-5, msg=name)


def ids_for(model: PreTrainedModel, length: int) -> Tensor:
    return torch.randint(3, model.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model_type", DECODERS)
def test_one_graph_for_every_step_of_a_static_cache(model_type: str) -> None:
    model = build(model_type, "AutoModelForCausalLM")
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = StaticKVCache(config.num_hidden_layers, 2, heads, 12, size)
    ids, counter = ids_for(model, 9), CompileCounter()
    step = torch.compile(model, fullgraph=True, dynamic=False, backend=counter)
    with torch.no_grad():
        expected = model(ids).logits
        logits = [model(ids[:, :4], past_key_values=cache).logits]
        for place in range(4, 9):
            position = torch.tensor([place])
            logits.append(step(ids[:, place : place + 1], past_key_values=cache, cache_position=position).logits)
    torch.testing.assert_close(torch.cat(logits, 1), expected, rtol=0, atol=1e-5)
    assert counter.frame_count == 1


@pytest.mark.parametrize("model_type", DECODERS)
def test_steps_of_a_growing_cache(model_type: str) -> None:
    model = build(model_type, "AutoModelForCausalLM")
    ids, cache = ids_for(model, 9), KVCache()
    step = compiled(model)
    with torch.no_grad():
        logits = [step(ids[:, :4], past_key_values=cache).logits]
        for place in range(4, 9):
            logits.append(step(ids[:, place : place + 1], past_key_values=cache).logits)
        expected = model(ids).logits
    torch.testing.assert_close(torch.cat(logits, 1), expected, rtol=0, atol=1e-5)
    assert cache.get_seq_length() == 9


@pytest.mark.parametrize("model_type", DECODERS)
def test_an_exported_step_takes_a_cache(model_type: str) -> None:
    model = build(model_type, "AutoModelForCausalLM")
    ids = ids_for(model, 9)
    expected = model(ids).logits.detach()

    def step_after(length: int, end: int) -> dict[str, Any]:
        # Copies: of a view export would record the sizes of what it is a view of.
        past = model(ids[:, :length]).past_key_values
        return {
            "input_ids": ids[:, length:end].clone(),
            "past_key_values": KVCache([(key.clone(), value.clone()) for key, value in past]),
        }

    with torch.no_grad():
        given = step_after(4, 6)
        sizes = {"input_ids": {0: DYNAMIC, 1: DYNAMIC}, "past_key_values": [{0: DYNAMIC, 2: DYNAMIC}] * 4}
        program = torch.export.export(model, (), given, dynamic_shapes=sizes).module()
        for length in (4, 6):
            found = program(**step_after(length, 9))
            torch.testing.assert_close(found.logits, expected[:, length:], rtol=0, atol=1e-5)
            assert found.past_key_values.get_seq_length() == 9


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_everything_asked_for_in_one_graph(model_type: str, attention: str) -> None:
    model = build(model_type, "AutoModel")
    model.config._attn_implementation = attention
    batch = batch_for(model, "AutoModel") | {"output_attentions": True, "output_hidden_states": True}
    with torch.no_grad():
        found, expected = compiled(model)(**batch), model(**batch)
    assert len(found.attentions) == 2 and len(found.hidden_states) == 3
    assert_equal_outputs(found, expected)


def test_a_graph_masks_what_is_masked_now() -> None:
    """A mask of ones is seen to mask nothing; a graph recorded with one must not remember that."""
    model = build("bert", "AutoModel")
    batch = batch_for(model, "AutoModel")
    plain = batch | {"attention_mask": torch.ones_like(batch["attention_mask"])}
    with torch.no_grad():
        program = torch.export.export(model, (), plain).module()
        function = compiled(model)
        for given in (plain, batch):
            assert_equal_outputs(program(**given), model(**given))
            assert_equal_outputs(function(**given), model(**given))


def test_a_saved_program_is_read_again(tmp_path: Path) -> None:
    model = build("bert", "AutoModelForMaskedLM")
    batch = batch_for(model, "AutoModelForMaskedLM")
    with torch.no_grad():
        program = torch.export.export(model, (), batch)
        torch.export.save(program, tmp_path / "program.pt2")
        again = torch.export.load(tmp_path / "program.pt2").module()
        assert_equal_outputs(again(**batch), model(**batch))


@pytest.mark.parametrize("change", ["mapped", "resized"])
def test_loaded_models_compile(change: str, reference: Path) -> None:
    model = BertModel.from_pretrained(reference / "bert" / "torch-safetensors").eval()
    if change == "resized":
        model.resize_token_embeddings(model.config.vocab_size + 5)
    batch = batch_for(model, "AutoModel")
    with torch.no_grad():
        assert_equal_outputs(compiled(model)(**batch), model(**batch))
