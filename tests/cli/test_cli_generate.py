"""`pretrained generate`, and the tokenizers it makes of what a checkpoint has."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tokenizers
import torch

from pretrained import ConfigError, LlamaConfig, LlamaForCausalLM, SourceError
from pretrained.cli.command import Where
from pretrained.cli.tokenizing import TextTokenizer, load_tokenizer

sys.path.append(str(Path(__file__).parents[1] / "checkpoint"))

from gguf_bytes import ARRAY, BOOL, F32, I32, STRING, U32, array, llama

WORDS = ["<s>", "</s>", "<unk>", "hello", "world", "you", "say", "answer", ":", "\n"]
TEMPLATE = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}answer :"


@pytest.fixture
def folder(tmp_path):
    """A tiny model that writes words."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, eos_token_id=1, bos_token_id=0, max_position_embeddings=64,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model", durable=False)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    return tmp_path / "model"


def of(path, **where) -> TextTokenizer:
    where = Where(**where)
    return load_tokenizer(where.snapshot(str(path)), where.weights)


def test_text_and_figures(run, folder):
    done = run("generate", folder, "hello world", "--max-new-tokens", 5, "--greedy")
    assert done.exit_code == 0
    model = LlamaForCausalLM.from_pretrained(folder)
    ids = model.generate(torch.tensor([[3, 4]]), max_new_tokens=5)[0, 2:].tolist()
    assert done.stdout.split() == of(folder).decode(ids).split()
    assert "2 tokens read in" in done.stderr and f"{len(ids)} written" in done.stderr


def test_draws_and_seeds(run, folder):
    words = ("generate", folder, "hello", "--temperature", 5, "--max-new-tokens", 8, "--seed")
    first, again, other = (run(*words, seed).stdout for seed in (1, 1, 2))
    assert first == again != other
    assert run("generate", folder, "-", "--greedy", "--max-new-tokens", 1).exit_code == 2, "nothing on stdin"


def test_the_chat_template(run, folder):
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": TEMPLATE, "bos_token": {"content": "<s>"}})
    )
    tokenizer = of(folder)
    assert tokenizer.chat([{"role": "you", "content": "hello"}]) == "you : hello answer :"
    assert tokenizer.tokens == {"bos_token": "<s>"}
    assert "5 tokens read" in run("generate", folder, "hello", "--max-new-tokens", 1).stderr
    assert "1 tokens read" in run("generate", folder, "hello", "--raw", "--max-new-tokens", 1).stderr
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no ' + messages[0]['role']) }}")
    with pytest.raises(ConfigError, match="the chat template fails: no user"):
        of(folder).chat([{"role": "user", "content": ""}])


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for",
        "{{ messages.append(1) }}",
        "{{ 1 // 0 }}",
        "{{ a.b.c }}",
    ],
)
def test_templates_stay_in_the_sandbox(template):
    with pytest.raises(ConfigError, match="the chat template fails"):
        TextTokenizer(None, template).chat([])


def test_what_is_missing(run, folder):
    assert "there is no chat template" in run("generate", folder, "hello", "--system", "x").stderr
    with pytest.raises(ConfigError, match="no chat template: pass --raw"):
        of(folder).chat([])
    (folder / "tokenizer.json").write_text('{"version": "9"}')
    with pytest.raises(ConfigError, match=r"tokenizer\.json: no tokenizer"):
        of(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match=r"no tokenizer\.json"):
        of(folder)


def gguf(tmp_path, **changes) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(llama({f"tokenizer.{key}": value for key, value in changes.items()}))
    return path


def strings(*values):
    return ARRAY, array(STRING, values)


PIECES = ["<unk>", "<s>", "<0x21>", "▁", "a", "b", "ab", "▁ab", "c", "<mine>"]


def test_pieces_with_scores(tmp_path):
    path = gguf(tmp_path, **{
        "ggml.model": (STRING, "llama"), "ggml.tokens": strings(*PIECES),
        "ggml.scores": (ARRAY, array(F32, [0, 0, 0, -9, -9, -9, -1, -2, -9, 0])),
        "ggml.token_type": (ARRAY, array(I32, [2, 3, 6, 1, 1, 1, 1, 1, 1, 4])),
        "ggml.bos_token_id": (U32, 1), "ggml.unknown_token_id": (U32, 0),
    })  # fmt: skip
    tokenizer = of(path)
    assert tokenizer.encode("abc ab!") == [1, 7, 8, 7, 2]
    assert tokenizer.decode([1, 7, 8, 7, 2]) == "abc ab!"
    assert tokenizer.encode("<s>ab<mine>", has_special=True)[0] == 1
    assert tokenizer.tokens == {"bos_token": "<s>", "unk_token": "<unk>"}


def test_pairs_of_bytes(tmp_path):
    path = gguf(tmp_path, **{
        "ggml.model": (STRING, "gpt2"), "ggml.pre": (STRING, "smollm"),
        "ggml.tokens": strings("<|end|>", "Ġ", "a", "b", "Ġa", "Ġab", "1"),
        "ggml.merges": strings("Ġ a", "Ġa b"), "ggml.token_type": (ARRAY, array(I32, [3, 1, 1, 1, 1, 1, 1])),
        "ggml.add_bos_token": (BOOL, False), "chat_template": (STRING, "x" * 5000),
    })  # fmt: skip
    tokenizer = of(path)
    assert tokenizer.encode("ab ab11<|end|>") == [2, 3, 5, 6, 6, 0]
    assert tokenizer.decode([2, 3, 5, 6, 0]) == "ab ab1" and len(tokenizer.template) == 5000


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        ({"ggml.model": (STRING, "bert")}, ConfigError, "of the kind 'bert' is not known"),
        ({"ggml.model": (STRING, "gpt2"), "ggml.pre": (STRING, "x")}, ConfigError, "as 'x' has it, and gpt-2"),
        ({"ggml.model": (STRING, "llama")}, ConfigError, "not one score for each token"),
        ({"ggml.tokens": None}, SourceError, "has no vocabulary"),
    ],
)
def test_vocabularies_of_no_use(tmp_path, changes, error, complaint):
    path = gguf(tmp_path, **changes)
    with pytest.raises(error, match=complaint):
        of(path)


def test_the_real_one(smollm2):
    tokenizer = of(smollm2)
    text = "Hello, world! 1234 naïve 北京 don't <|im_start|>x\n\n  y"
    ids = tokenizer.encode(text)
    assert ids[:8] == [19556, 28, 905, 17, 216, 33, 34, 35] and tokenizer.decode(ids, skip_special_tokens=False) == text
    asked = tokenizer.chat([{"role": "user", "content": "Hi"}])
    assert asked.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
