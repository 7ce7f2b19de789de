"""peft's own functions on our models: get_peft_model, a step of training, its files, merging."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.models import tiny
from torch import nn

import pretrained
from pretrained import AutoModelForCausalLM, BertForTokenClassification, LlamaForCausalLM

PIXELS = torch.linspace(-1, 1, 2 * 3 * 12 * 12).view(2, 3, 12, 12)
IDS = torch.arange(12).reshape(2, 6) + 3


def built(name: str, **changes: Any) -> nn.Module:
    torch.manual_seed(5)
    cls = getattr(pretrained, name)
    return cls(getattr(tiny, f"tiny_{cls.config_class.model_type.replace('-', '_')}")(**changes)).eval()


# class, task type of peft, what forward is given
CASES = [
    ("LlamaForCausalLM", "CAUSAL_LM", {"input_ids": IDS, "labels": IDS}),
    ("LlamaForSequenceClassification", "SEQ_CLS", {"input_ids": IDS, "labels": torch.tensor([0, 1])}),
    ("BertForSequenceClassification", "SEQ_CLS", {"input_ids": IDS, "labels": torch.tensor([0, 1])}),
    ("BertForTokenClassification", "TOKEN_CLS", {"input_ids": IDS, "labels": IDS % 2}),
    (
        "BertForQuestionAnswering",
        "QUESTION_ANS",
        {"input_ids": IDS, "start_positions": torch.tensor([0, 1]), "end_positions": torch.tensor([2, 3])},
    ),
    ("BertForMaskedLM", None, {"input_ids": IDS, "labels": IDS}),
    ("RobertaForSequenceClassification", "SEQ_CLS", {"input_ids": IDS, "labels": torch.tensor([0, 1])}),
    ("Qwen2ForCausalLM", "CAUSAL_LM", {"input_ids": IDS, "labels": IDS}),
    ("Qwen3ForCausalLM", "CAUSAL_LM", {"input_ids": IDS, "labels": IDS}),
    ("T5ForConditionalGeneration", "SEQ_2_SEQ_LM", {"input_ids": IDS, "labels": IDS}),
    ("ViTForImageClassification", None, {"pixel_values": PIXELS, "labels": torch.tensor([0, 1])}),
]


def lora(task: str | None) -> Any:
    where = {} if task else {"target_modules": ["query", "value"]}
    return peft.LoraConfig(task_type=task, r=4, init_lora_weights=False, **where)


def head(output: Any) -> torch.Tensor:
    return output["start_logits"] if "start_logits" in output else output["logits"]


@pytest.mark.parametrize(("name", "task", "inputs"), CASES, ids=[case[0] for case in CASES])
def test_train_save_reload_merge(name: str, task: str | None, inputs: dict[str, Any], tmp_path: Path) -> None:
    model = peft.get_peft_model(built(name), lora(task))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trained = {key for key, param in model.named_parameters() if param.requires_grad}
    optimizer = torch.optim.SGD([param for param in model.parameters() if param.requires_grad], lr=0.1)
    model.train()
    model(**inputs).loss.backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert changed <= trained
    assert all("lora_" in key or "modules_to_save" in key for key in changed)

    with torch.no_grad():
        expected = head(model.eval()(**inputs))
    model.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(built(name), tmp_path / "adapter")
    with torch.no_grad():
        assert torch.equal(head(again.eval()(**inputs)), expected)
        merged = again.merge_and_unload()
        assert isinstance(merged, getattr(pretrained, name))
        torch.testing.assert_close(head(merged(**inputs)), expected, atol=2e-5, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    loaded = getattr(pretrained, name).from_pretrained(tmp_path / "merged", attn_implementation="eager")
    with torch.no_grad():
        assert torch.equal(head(loaded(**inputs)), head(merged(**inputs)))


def test_peft_finds_the_layers_by_model_type() -> None:
    for name, layers in (("LlamaForCausalLM", {"q_proj", "v_proj"}), ("BertModel", {"query", "value"})):
        model = peft.get_peft_model(built(name), peft.LoraConfig())
        assert model.peft_config["default"].target_modules == layers
    assert peft.get_peft_model(built("LlamaForCausalLM"), peft.LoraConfig(task_type="CAUSAL_LM")).config.model_type == (
        "llama"
    )


def test_what_peft_saved_our_own_classes_load(tmp_path: Path) -> None:
    base = built("LlamaForCausalLM")
    base.save_pretrained(tmp_path / "adapter" / "base")
    base = LlamaForCausalLM.from_pretrained(tmp_path / "adapter" / "base")
    model = peft.get_peft_model(base, lora("CAUSAL_LM"))
    model.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = model(input_ids=IDS).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter", adapter_base=tmp_path / "adapter" / "base")
        assert torch.equal(found(input_ids=IDS).logits, expected)


def test_what_we_saved_peft_loads(tmp_path: Path) -> None:
    model = built("BertForTokenClassification")
    clean = built("BertForTokenClassification")
    model.add_adapter(peft.LoraConfig(r=4, init_lora_weights=False), "mine")
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(clean, tmp_path)
    assert isinstance(again.get_base_model(), BertForTokenClassification)
    with torch.no_grad():
        assert torch.equal(again(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_steps_of_generation_are_prepared() -> None:
    model = peft.get_peft_model(built("LlamaForCausalLM"), lora("CAUSAL_LM"))
    mask = torch.ones_like(IDS)
    mask[0, :2] = 0
    with torch.no_grad():
        whole = model(**model.base_model.prepare_inputs_for_generation(IDS, attention_mask=mask)).logits
        first = model.base_model.prepare_inputs_for_generation(IDS[:, :5], attention_mask=mask[:, :5], use_cache=True)
        cache = model(**first).past_key_values
        second = model.base_model.prepare_inputs_for_generation(IDS, past_key_values=cache, attention_mask=mask)
        assert second["input_ids"].tolist() == IDS[:, 5:].tolist()
        assert second["position_ids"].tolist() == [[3], [5]]
        torch.testing.assert_close(model(**second).logits[:, -1], whole[:, -1], atol=1e-5, rtol=1e-5)
    embeds = torch.zeros(2, 4, 24)
    first = model.base_model.prepare_inputs_for_generation(IDS, inputs_embeds=embeds, attention_mask=mask[:, :4])
    assert "input_ids" not in first
    assert first["position_ids"].shape == (2, 4)


def test_a_second_adapter_of_peft(tmp_path: Path) -> None:
    model = peft.get_peft_model(built("LlamaForCausalLM"), lora("CAUSAL_LM"))
    model.save_pretrained(tmp_path / "a")
    with torch.no_grad():
        expected = model(input_ids=IDS).logits
        with model.disable_adapter():
            plain = model(input_ids=IDS).logits
        assert torch.equal(plain, built("LlamaForCausalLM")(IDS).logits)
        model.load_adapter(tmp_path / "a", "again")
        model.set_adapter("again")
        assert torch.equal(model(input_ids=IDS).logits, expected)
    shutil.rmtree(tmp_path / "a")
