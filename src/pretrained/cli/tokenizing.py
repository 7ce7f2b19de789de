"""A checkpoint's own tokenizer and chat template, from its tokenizer.json or from the metadata of its GGUF."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._types import Snapshot
from ..checkpoint.files import read_json
from ..checkpoint.find import find_gguf
from ..errors import ConfigError, MissingFrameworkError, SourceError
from ..options import WeightOptions

__all__ = ["TextTokenizer", "load_tokenizer"]

MAX_TEMPLATE = 1 << 20  # characters
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6  # kinds of tokens in a GGUF
# How text is cut before pairs of characters are merged, by the names that GGUF files have for it.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CUTS: Mapping[str, str | None] = {
    "gpt-2": None,
    "gpt2": None,
    "default": None,
    "smollm": "digits",
    "llama-bpe": _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


@dataclass
class TextTokenizer:
    """Text to ids and back.

    Attributes:
        tokenizer: of the package tokenizers.
        template: the chat template in jinja2's language, if there is one.
        tokens: such as {"bos_token": "<s>"}, which templates may name.
        bos: id that is to stand before a text and that the tokenizer does not put there itself.
    """

    tokenizer: Any
    template: str | None = None
    tokens: dict[str, str] = field(default_factory=dict)
    bos: int | None = None

    def encode(self, text: str, has_special: bool = False) -> list[int]:
        """The ids of a text. `has_special`: special tokens are written out in it, as a chat template does."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=not has_special).ids
        return ids if self.bos is None or has_special or ids[:1] == [self.bos] else [self.bos, *ids]

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """The text of ids."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def chat(self, messages: list[dict[str, str]]) -> str:
        """The text of a conversation, up to where the answer begins.

        Raises:
            ConfigError: there is no template, or it fails.
        """
        if self.template is None:
            raise ConfigError("the checkpoint has no chat template: pass --raw to go on from the text as it is")
        environment = _environment()
        try:
            template = environment.from_string(self.template)
            text: str = template.render(messages=messages, add_generation_prompt=True, **self.tokens)
        except environment.failures as error:
            raise ConfigError(f"the chat template fails: {error}", key="chat_template") from None
        return text


def _environment() -> Any:
    """jinja2's sandbox: a template comes out of a checkpoint."""
    try:
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise _missing("jinja2") from error
    environment: Any = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.failures = (TemplateError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment.globals["raise_exception"] = raise_exception
    return environment


def _missing(package: str) -> MissingFrameworkError:
    return MissingFrameworkError(
        f"text needs {package}, which is not installed: pip install 'pretrained[cli]'", key=package
    )


def load_tokenizer(snapshot: Snapshot, options: WeightOptions) -> TextTokenizer:
    """The tokenizer of a checkpoint.

    Raises:
        SourceError: there is neither a tokenizer.json nor a GGUF with a vocabulary. ConfigError: it is damaged, or of a
            kind that is not known. MissingFrameworkError: a package is not installed.
    """
    gguf = find_gguf(snapshot, options)
    if gguf is not None:
        return _from_gguf(next(iter(gguf.containers)))
    if "tokenizer.json" not in snapshot.names():
        raise SourceError(f"no tokenizer.json in {snapshot.name}: text needs a tokenizer", path=snapshot.name)
    return _from_folder(snapshot)


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise _missing("tokenizers") from error
    return tokenizers


def _from_folder(snapshot: Snapshot) -> TextTokenizer:
    path = snapshot.path("tokenizer.json")
    text = json.dumps(read_json(path, error=ConfigError))
    try:
        tokenizer = _library().Tokenizer.from_str(text)
    except MissingFrameworkError:
        raise
    except Exception as error:  # noqa: BLE001  the library raises no class of its own
        raise ConfigError(f"{path}: no tokenizer: {error}", path=path) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    names, template, tokens = snapshot.names(), None, {}
    if "tokenizer_config.json" in names:
        values = read_json(snapshot.path("tokenizer_config.json"), error=ConfigError)
        template = values.get("chat_template")
        tokens = {name: _content(values.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    if "chat_template.jinja" in names:
        template = Path(snapshot.path("chat_template.jinja")).read_text(encoding="utf-8")[:MAX_TEMPLATE]
    if isinstance(template, list):  # several by name
        template = next((entry.get("template") for entry in template if entry.get("name") == "default"), None)
    return TextTokenizer(tokenizer, template, {name: text for name, text in tokens.items() if text is not None})


def _content(token: Any) -> str | None:
    """The text of a token, which may come with settings of its own."""
    found = token.get("content") if isinstance(token, Mapping) else token
    return found if isinstance(found, str) else None


def _from_gguf(path: Path) -> TextTokenizer:
    from ..checkpoint.formats.gguf import read_vocabulary

    values = read_vocabulary(path)
    tokens = values.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise SourceError(f"{path} has no vocabulary: text needs a tokenizer", path=path)
    kind = values.get("tokenizer.ggml.model")
    if kind == "gpt2":
        tokenizer = _bytes_merged(values, path)
    elif kind == "llama":
        tokenizer = _pieces_merged(values, path)
    else:
        raise ConfigError(
            f"{path}: a tokenizer of the kind {kind!r:.60} is not known", path=path, key="tokenizer.ggml.model"
        )
    kinds = values.get("tokenizer.ggml.token_type") or []
    added = _library().AddedToken
    special = [token for token, of in zip(tokens, kinds, strict=False) if of == _CONTROL]
    tokenizer.add_special_tokens([added(token, special=True, normalized=False) for token in special])
    own = [token for token, of in zip(tokens, kinds, strict=False) if of == _USER_DEFINED]
    tokenizer.add_tokens([added(token, normalized=False) for token in own])
    ids = {name: values.get(f"tokenizer.ggml.{key}_token_id") for name, key in _NAMED.items()}
    named = {name: tokens[place] for name, place in ids.items() if isinstance(place, int) and place < len(tokens)}
    has_bos = values.get("tokenizer.ggml.add_bos_token", kind == "llama")
    return TextTokenizer(tokenizer, values.get("tokenizer.chat_template"), named, ids["bos_token"] if has_bos else None)


_NAMED = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


def _bytes_merged(values: Mapping[str, Any], path: Path) -> Any:
    """Pairs of bytes merged (GPT-2 and its kin)."""
    library = _library()
    cut = values.get("tokenizer.ggml.pre", "default")
    if cut not in _CUTS:
        known = ", ".join(_CUTS)
        reason = f"text is cut as {cut!r:.60} has it, and {known} are known"
        raise ConfigError(f"{path}: {reason}", path=path, key="tokenizer.ggml.pre")
    merges = [tuple(merge.split(" ", 1)) for merge in values.get("tokenizer.ggml.merges", ())]
    vocabulary = {token: place for place, token in enumerate(values["tokenizer.ggml.tokens"])}
    tokenizer = library.Tokenizer(library.models.BPE(vocabulary, merges, ignore_merges=cut == "llama-bpe"))
    steps, pattern = library.pre_tokenizers, _CUTS[cut]
    if pattern is None or pattern == "digits":
        first = [steps.Digits(individual_digits=True)] if pattern else []
        tokenizer.pre_tokenizer = steps.Sequence([*first, steps.ByteLevel(add_prefix_space=False)])
    else:
        by_pattern = steps.Split(library.Regex(pattern), "isolated")
        tokenizer.pre_tokenizer = steps.Sequence([by_pattern, steps.ByteLevel(add_prefix_space=False, use_regex=False)])
    if cut == "qwen2":
        tokenizer.normalizer = library.normalizers.NFC()
    tokenizer.decoder = library.decoders.ByteLevel()
    return tokenizer


def _pieces_merged(values: Mapping[str, Any], path: Path) -> Any:
    """Pieces merged by their scores, best first, with bytes for what no piece has (SentencePiece's BPE)."""
    library = _library()
    tokens, scores = values["tokenizer.ggml.tokens"], values.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise ConfigError(f"{path}: not one score for each token", path=path, key="tokenizer.ggml.scores")
    places = {token: place for place, token in enumerate(tokens)}
    ranked = []
    for token, place in places.items():
        for at in range(1, len(token)):
            if token[:at] in places and token[at:] in places:
                ranked.append((-scores[place], places[token[:at]], places[token[at:]], (token[:at], token[at:])))
    merges = [pair for *_, pair in sorted(ranked)]
    unknown = values.get("tokenizer.ggml.unknown_token_id")
    model = library.models.BPE(
        places,
        merges,
        unk_token=tokens[unknown] if isinstance(unknown, int) and unknown < len(tokens) else None,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = library.Tokenizer(model)
    spaces = library.normalizers
    first = [spaces.Prepend("▁")] if values.get("tokenizer.ggml.add_space_prefix", True) else []
    tokenizer.normalizer = spaces.Sequence([*first, spaces.Replace(" ", "▁")])
    back = library.decoders
    strip = [back.Strip(" ", 1, 0)] if first else []
    tokenizer.decoder = back.Sequence([back.Replace("▁", " "), back.ByteFallback(), back.Fuse(), *strip])
    return tokenizer
