"""Adding tokens to a large embedding, near the mean of the old ones: at most a tenth of transformers' time."""

from _harness import Bench, Context, Results, Row, row
from _measure import memory, timed, warm_memory

bench = Bench(
    "resize",
    "1,000 more tokens",
    """A tied embedding of 128,000 × 4,096 in float32 (32,000 × 1,024 with --quick) gets 1,000 rows, drawn around the
    mean of the old rows with their covariance, as resize_token_embeddings does by default. transformers forms the
    covariance and factorises it; here random sums of the old rows are taken, each of which has that distribution.""",
    memory=int(4.5e9),
    repeats=3,
)


def _resize(context: Context, config_class: type, model_class: type) -> dict:
    import torch

    rows, features = (32_000, 1_024) if context.quick else (128_000, 4_096)
    sizes = {"hidden_size": features, "intermediate_size": 64, "num_hidden_layers": 0, "num_attention_heads": 8}
    with torch.device("meta"):
        model = model_class(config_class(vocab_size=rows, tie_word_embeddings=True, **sizes))
    warm_memory(bench.memory if not context.quick else bench.memory // 16)
    model.to_empty(device="cpu")
    model.tie_weights()
    torch.manual_seed(0)
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(std=0.02)
    before = memory()
    result: dict = {}
    with timed(result):
        layer = model.resize_token_embeddings(rows + 1_000)
    result["peak"] = memory()["peak"] - before["rss"]
    new = layer.weight.detach()[rows:]
    assert layer.weight.shape == (rows + 1_000, features) and bool(torch.isfinite(new).all())
    assert model.get_output_embeddings().weight is layer.weight
    # The noise is a thirty-thousandth of the old rows' spread: both libraries' rows show it.
    result["spread"] = float((new - new.mean(0)).std() / 0.02 / 1e-9**0.5)
    return result


@bench.variant()
def pretrained(context: Context) -> dict:
    from pretrained import LlamaConfig, LlamaForCausalLM

    return _resize(context, LlamaConfig, LlamaForCausalLM)


@bench.variant()
def copying(context: Context) -> dict:
    """The least: new memory, and the old rows in it."""
    import torch

    rows, features = (32_000, 1_024) if context.quick else (128_000, 4_096)
    warm_memory(bench.memory if not context.quick else bench.memory // 16)
    old = torch.full((rows, features), 0.02)
    result: dict = {}
    with timed(result):
        torch.empty(rows + 1_000, features)[:rows].copy_(old)
    return result


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    from transformers import LlamaConfig, LlamaForCausalLM

    return _resize(context, LlamaConfig, LlamaForCausalLM)


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    return [
        row(results, "resize", "pretrained", "transformers", 0.1),
        row(results, "resize", "pretrained", "copying", None, against="a copy of the old rows"),
    ]


if __name__ == "__main__":
    bench.main()
