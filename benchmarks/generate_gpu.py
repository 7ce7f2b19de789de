"""Generation on a GPU: a random Llama of 1.1 billion parameters in bfloat16, eager and compiled with CUDA graphs.

    python benchmarks/generate_gpu.py [--new 128] [--small]

Prints tokens a second for batches of 1 and 8, what the first compiled call took, the share of the memory's speed that
reading the weights for each token comes to, and whether eager and compiled steps give the same tokens in float32.
Needs torch with CUDA and this library; it has no peers and downloads nothing. About three minutes.
"""

import argparse
import time

import torch

from pretrained import LlamaConfig, LlamaForCausalLM

SIZES = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32}
SMALL = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8}


def model_of(sizes: dict[str, int], dtype: torch.dtype, device: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, num_key_value_heads=4, vocab_size=32_000, max_position_embeddings=4096)
    with torch.device(device):
        model = LlamaForCausalLM(config).eval().to(dtype)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def timed(model: LlamaForCausalLM, ids: torch.Tensor, new: int, **settings: object) -> tuple[float, float]:
    """(seconds a token after the first, seconds that the first call took longer than a later one)."""

    def run(count: int) -> float:
        synchronize(ids.device)
        start = time.perf_counter()
        model.generate(ids, max_new_tokens=count, **settings)
        synchronize(ids.device)
        return time.perf_counter() - start

    first = run(new + 1)
    whole = min(run(new + 1) for _ in range(3))
    return (whole - min(run(1) for _ in range(3))) / new, first - whole


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def bandwidth(device: str) -> float:
    """Bytes a second that a large copy reads and writes."""
    source = torch.empty(2**28 if device == "cuda" else 2**24, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(10):
        synchronize(source.device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(source.device)
        times.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the script, on the CPU too")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}")

    exact = model_of(SMALL, torch.float32, device)
    ids = torch.randint(3, 32_000, (2, 16), device=device)
    eager = exact.generate(ids, max_new_tokens=32)
    same = all(torch.equal(exact.generate(ids, max_new_tokens=32, compile=True), eager) for _ in range(2))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    padded = exact.generate(ids, attention_mask=mask, max_new_tokens=32)
    same &= torch.equal(exact.generate(ids, attention_mask=mask, max_new_tokens=32, compile=True), padded)
    print(f"float32, eager and compiled: tokens {'equal' if same else 'DIFFER'}")

    model = model_of(SMALL if asked.small else SIZES, torch.bfloat16, device)
    nbytes = sum(p.nbytes for p in model.parameters())
    speed = bandwidth(device)
    print(f"{nbytes / 1e9:.2f} GB of weights; copies run at {speed / 1e9:.0f} GB/s")
    print(f"{'batch':>5} {'step':>9} {'ms/token':>9} {'tokens/s':>9} {'of bandwidth':>13} {'first call':>11}")
    for batch in (1, 8):
        ids = torch.randint(3, 32_000, (batch, 64), device=device)
        for kind, settings in (("eager", {}), ("compiled", {"compile": True})):
            seconds, first = timed(model, ids, asked.new, **settings)
            share = nbytes / seconds / speed
            row = f"{seconds * 1e3:9.2f} {batch / seconds:9.0f} {share:13.0%} {first:10.1f}s"
            print(f"{batch:5} {kind:>9} {row}", flush=True)
    if device == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
