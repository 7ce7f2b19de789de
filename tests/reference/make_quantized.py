"""Writes tests/reference/quantized: a tiny Llama, quantized and saved by transformers, and the logits it gives.

python tests/reference/make_quantized.py        # with transformers, torchao and bitsandbytes
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torchao.quantization import Int8WeightOnlyConfig
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, TorchAoConfig

HERE = Path(__file__).parent / "quantized"
SCHEMES = {
    "torchao-int8": TorchAoConfig(Int8WeightOnlyConfig()),
    "bnb-nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "bnb-fp4-double": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True),
    "bnb-int8": BitsAndBytesConfig(load_in_8bit=True),
}


def main() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        initializer_range=0.15,
        tie_word_embeddings=False,
    )
    full = LlamaForCausalLM(config).eval()
    full.save_pretrained(HERE / "full")
    ids = torch.arange(24).view(2, 12)
    expected = {"ids": ids.numpy(), "full": logits(full, ids)}
    for name, scheme in SCHEMES.items():
        model = LlamaForCausalLM.from_pretrained(HERE / "full", quantization_config=scheme, device_map="cpu")
        model.save_pretrained(HERE / name)
        for layer in model.modules():
            if "support_avx512bf16_for_cpu" in vars(layer):
                layer.support_avx512bf16_for_cpu = False  # rounds the scales to bfloat16 on some CPUs and not on others
        expected[name] = logits(model, ids)
    np.savez(HERE / "expected.npz", **expected)


def logits(model: LlamaForCausalLM, ids: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(ids).logits.float().numpy()


if __name__ == "__main__":
    main()
