"""Adapters that peft trained on models of the reference implementation, and what those compute with them.

python tests/reference/make_adapters.py    (needs transformers 5.23 and peft; writes tests/reference/adapters)
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, get_peft_model
from transformers import BertForSequenceClassification, LlamaForCausalLM

HERE = Path(__file__).parent
OUT = HERE / "adapters"

CASES = {
    "llama-lora": (LlamaForCausalLM, "llama", LoraConfig(task_type="CAUSAL_LM", r=4)),
    "llama-dora": (LlamaForCausalLM, "llama", LoraConfig(r=3, use_dora=True, target_modules="all-linear")),
    "llama-pattern": (
        LlamaForCausalLM,
        "llama",
        LoraConfig(r=2, target_modules=r".*\.(q_proj|up_proj)", rank_pattern={"up_proj": 3}, use_rslora=True),
    ),
    "llama-ia3": (LlamaForCausalLM, "llama", IA3Config(task_type="CAUSAL_LM")),
    "llama-loha": (LlamaForCausalLM, "llama", LoHaConfig(r=2, target_modules=["k_proj", "o_proj"])),
    "llama-pissa": (LlamaForCausalLM, "llama", LoraConfig(r=2, init_lora_weights="pissa", target_modules=["q_proj"])),
    "llama-embed": (LlamaForCausalLM, "llama", LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"])),
    "bert-classify": (BertForSequenceClassification, "bert", LoraConfig(task_type="SEQ_CLS", r=4, lora_dropout=0.5)),
}


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    expected = {}
    for number, (name, (cls, family, config)) in enumerate(CASES.items()):
        torch.manual_seed(number)
        model = get_peft_model(cls.from_pretrained(HERE / family / "torch-safetensors"), config)
        ids = torch.arange(12).reshape(2, 6) + 5
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
        model.train()
        for _ in range(3):
            labels = {"labels": torch.tensor([1, 0]) if family == "bert" else ids}
            model(input_ids=ids, **labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            expected[name] = model.eval()(input_ids=ids).logits.numpy()
        model.peft_config["default"].base_model_name_or_path = f"../../{family}/torch-safetensors"
        model.save_pretrained(OUT / name, save_embedding_layers=False)
        (OUT / name / "README.md").unlink(missing_ok=True)
    np.savez_compressed(OUT / "expected.npz", **expected)


if __name__ == "__main__":
    main()
