"""`pretrained generate`: text from a model, as it is written."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from ..errors import printable
from .command import FINE, Command, Where, source_options
from .tokenizing import TextTokenizer, load_tokenizer

__all__ = ["generate"]


@click.command(cls=Command, short_help="Write text with a model, as it comes.")
@click.argument("source")
@click.argument("prompt")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, metavar="N")
@click.option("--sample/--greedy", "do_sample", default=None, help="Draw tokens; or take the likeliest.")
@click.option("--temperature", type=float, metavar="T", help="Implies --sample.")
@click.option("--top-k", type=click.IntRange(min=0), metavar="K", help="Implies --sample.")
@click.option("--top-p", type=click.FloatRange(0, 1), metavar="P", help="Implies --sample.")
@click.option("--repetition-penalty", type=float, metavar="X")
@click.option("--seed", type=int, help="Of the random numbers.")
@click.option("--system", metavar="TEXT", help="What the chat template is told before the prompt.")
@click.option("--raw", is_flag=True, help="Go on from the prompt as it is, without the chat template.")
@click.option("--dtype", default="auto", show_default=True, help="Of the weights in memory.")
@click.option("--device", default=None, help="cpu, cuda, …; by default a GPU if there is one.")
@click.option("--compile", "use_compile", is_flag=True, help="Compile the step; the first call takes a minute or so.")
@source_options
def generate(
    source: str,
    prompt: str,
    max_new_tokens: int,
    do_sample: bool | None,
    seed: int | None,
    system: str | None,
    raw: bool,
    dtype: str,
    device: str | None,
    use_compile: bool,
    where: Where,
    **settings: Any,
) -> int:
    """Writes what the model of SOURCE says to PROMPT, as it comes; "-" reads the prompt from stdin.

    The checkpoint's own tokenizer is used, and its chat template if it has one.
    """
    tokenizer = load_tokenizer(where.snapshot(source), where.weights)
    text = sys.stdin.read() if prompt == "-" else prompt
    ids = _ids_of(tokenizer, text, system, raw or tokenizer.template is None)
    given = {name: value for name, value in settings.items() if value is not None}
    draws = {"temperature", "top_k", "top_p"} & given.keys()
    if do_sample is not None or draws:
        given["do_sample"] = True if do_sample is None else do_sample
    model = _load(source, where, dtype, device)
    count, seconds, first = _write(model, tokenizer, ids, max_new_tokens, seed, use_compile, given)
    click.echo(err=True)
    rate = f", {(count - 1) / (seconds - first):.1f} tokens/s" if count > 1 and seconds > first else ""
    click.echo(f"{len(ids)} tokens read in {first:.2f} s, {count} written{rate}", err=True)
    return FINE


def _ids_of(tokenizer: TextTokenizer, text: str, system: str | None, raw: bool) -> list[int]:
    if raw:
        if system is not None:
            raise click.BadParameter("there is no chat template to tell it", param_hint="--system")
        ids = tokenizer.encode(text)
    else:
        before = [] if system is None else [{"role": "system", "content": system}]
        ids = tokenizer.encode(tokenizer.chat([*before, {"role": "user", "content": text}]), has_special=True)
    if not ids:
        raise click.BadParameter("the prompt is empty", param_hint="PROMPT")
    return ids


def _load(source: str, where: Where, dtype: str, device: str | None) -> Any:
    import torch

    from ..auto.classes import AutoModelForCausalLM

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options = {
        "variant": where.variant,
        "subfolder": where.subfolder,
        "revision": where.revision,
        "local_files_only": where.local_files_only,
        "gguf_file": where.gguf_file,
    }
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **{k: v for k, v in options.items() if v})
    return model.to(chosen)


def _write(
    model: Any, tokenizer: TextTokenizer, ids: list[int], most: int, seed: int | None, use_compile: bool, given: Any
) -> tuple[int, float, float]:
    """Writes the text to stdout; returns how many tokens it has, the seconds it took, and those until the first."""
    import torch

    from ..pt.generation.streamers import TextStreamer

    class Terminal(TextStreamer):
        """Writes pieces with control characters escaped: they are a model's."""

        count, first = -1, 0.0  # the prompt comes first

        def put(self, value: Any) -> None:
            self.count += 1
            if self.count == 1:
                self.first = time.perf_counter() - start
            super().put(value)

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            click.echo("\n".join(printable(line, 1 << 20) for line in text.split("\n")), nl=stream_end)

    streamer = Terminal(tokenizer, skip_prompt=True)
    drawn = None if seed is None else torch.Generator(model.device).manual_seed(seed)
    extra = {"compile": True} if use_compile else {}
    start = time.perf_counter()
    model.generate(
        torch.tensor([ids], device=model.device),
        max_new_tokens=most,
        streamer=streamer,
        generator=drawn,
        tokenizer=tokenizer,
        **extra,
        **given,
    )
    return streamer.count, time.perf_counter() - start, streamer.first
