"""A small model and batches for every class that the registry lists, also for families that come later."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from tests.models import tiny
from torch import Tensor
from torch.utils import _pytree as pytree

from pretrained import PreTrainedModel
from pretrained.auto import registry


def _heads_of(model_type: str) -> list[str]:
    """The auto names of a family; of two for one class, the one that says what it does."""
    heads = registry._family(model_type).pt
    places = list(heads.values())
    return [auto for auto in heads if auto != "AutoModelForPreTraining" or places.count(heads[auto]) == 1]


# A folder's second model type (XLM-RoBERTa beside RoBERTa) has the tiny config of the first.
HEADS = [(model_type, auto) for model_type in registry.FOLDERS for auto in _heads_of(model_type)]
FAMILIES = list(registry.FOLDERS)

# Without decoder_input_ids these make them from input_ids, and then read off the place of input_ids' last token.
_OWN_DECODER_INPUT = ("AutoModelForSequenceClassification", "AutoModelForQuestionAnswering")


def build(model_type: str, auto: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """The class with a tiny config, in eval mode."""
    make = vars(tiny)[f"tiny_{registry.FOLDERS[model_type]}"]
    config = registry.config_class_for({"model_type": model_type}).from_dict(make(**changes).to_dict())
    cls: Any = registry.model_class_for(auto, config)
    config._attn_implementation = "sdpa" if cls._supports_sdpa else "eager"
    torch.manual_seed(seed)
    model: PreTrainedModel = cls(config).eval()
    return model


def batch_for(model: PreTrainedModel, auto: str, rows: int = 2, length: int = 7) -> dict[str, Tensor]:
    """What its forward takes; the first row of text is padded at its end."""
    generator = torch.Generator().manual_seed(rows)
    config, main = model.config, model.main_input_name
    if main == "pixel_values":
        size = config.image_size
        return {main: torch.randn(rows, config.num_channels, size, size, generator=generator)}
    if main == "input_values":
        return {main: torch.randn(rows, 400 + 20 * length, generator=generator)}
    shape = (rows, 3, length) if auto == "AutoModelForMultipleChoice" else (rows, length)
    ids = torch.randint(3, config.vocab_size, shape, generator=generator)
    mask = torch.ones_like(ids)
    mask[0, ..., -2:] = 0
    batch = {main: ids, "attention_mask": mask}
    if config.is_encoder_decoder and auto in _OWN_DECODER_INPUT:
        ids[:, -1] = config.eos_token_id
    elif "decoder_input_ids" in inspect.signature(model.forward).parameters:
        batch["decoder_input_ids"] = ids[:, :-2].contiguous()
    return batch


def tensors_of(output: Any) -> list[Tensor]:
    """Every tensor of an output, also those of its cache."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def assert_equal_outputs(found: Any, expected: Any) -> None:
    """The same fields and, to 1e-5, the same numbers."""
    assert list(found) == list(expected)
    found, expected = tensors_of(found), tensors_of(expected)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
