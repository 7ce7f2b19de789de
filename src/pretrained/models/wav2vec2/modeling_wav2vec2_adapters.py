"""What is added to a Wav2Vec2 encoder: shorter sequences for a text decoder, small layers for one language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from ..._types import Snapshot
from ...checkpoint.find import find_checkpoint, settle
from ...errors import ConfigError, SourceError
from ...hub.ref import resolve
from ...options import SourceOptions, WeightOptions
from ...pt.any_module import load_into
from .configuration_wav2vec2 import Wav2Vec2Config
from .modeling_wav2vec2_features import is_dropped

__all__ = ["Wav2Vec2Adapter", "Wav2Vec2AttnAdapterLayer", "load_language"]


class Wav2Vec2AttnAdapterLayer(nn.Module):
    """A small layer at the end of a block, which one language trains for itself (arXiv 2305.13516)."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        width = cast(int, config.adapter_attn_dim)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.linear_1 = nn.Linear(config.hidden_size, width)
        self.linear_2 = nn.Linear(width, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, frames, hidden)`."""
        return self.linear_2(F.relu(self.linear_1(self.norm(hidden_states))))


class Wav2Vec2AdapterLayer(nn.Module):
    """A gated convolution that makes the sequence shorter."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        size = cast(int, config.output_hidden_size)
        self.conv = nn.Conv1d(size, 2 * size, config.adapter_kernel_size, config.adapter_stride, padding=1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, hidden, frames)`."""
        return F.glu(self.conv(hidden_states), 1)


class Wav2Vec2Adapter(nn.Module):
    """Convolutions between this encoder and a text decoder, whose sequences are shorter."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.layerdrop = config.layerdrop
        size = cast(int, config.output_hidden_size)
        resized = size != config.hidden_size
        self.proj = nn.Linear(config.hidden_size, size) if resized else None
        self.proj_layer_norm = nn.LayerNorm(size) if resized else None
        self.layers = nn.ModuleList(Wav2Vec2AdapterLayer(config) for _ in range(config.num_adapter_layers))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, fewer frames, output_hidden_size)`."""
        if self.proj is not None and self.proj_layer_norm is not None:
            hidden_states = self.proj_layer_norm(self.proj(hidden_states))
        hidden_states = hidden_states.transpose(1, 2)
        for layer in self.layers:
            if not is_dropped(self.layerdrop, self.training):
                hidden_states = layer(hidden_states)
        return hidden_states.transpose(1, 2)


def load_language(model: Any, language: str, source: SourceOptions, use_safetensors: bool | None = None) -> None:
    """Gives a model's small layers and its head the weights of one language; if that fails all is as it was.

    They are in `adapter.LANGUAGE.safetensors` or `.bin`, beside the checkpoint the model came from. A head for another
    number of tokens replaces the model's, and `config.vocab_size` follows.

    Raises:
        ConfigError: the model has no such layers.
        SourceError: there is no file for this language; names the languages there are.
        MismatchError: the file has other tensors than these layers.
    """
    if model.config.adapter_attn_dim is None:
        reason = "the model has no layers for languages: adapter_attn_dim is not set"
        raise ConfigError(f"cannot load {language!r:.80}: {reason}", key="adapter_attn_dim")
    snapshot = settle(resolve(model.config.name_or_path, source))
    path = snapshot.path(_file_of(snapshot, language, use_safetensors))
    weight = find_checkpoint(resolve(path, SourceOptions()), WeightOptions()).entries.get("lm_head.weight")
    head = model.lm_head
    if weight is not None and weight.shape[0] != head.out_features:
        old = head.weight
        head = nn.Linear(head.in_features, weight.shape[0], device=old.device, dtype=old.dtype)
    adapters = {n: m for n, m in model.named_modules() if isinstance(m, Wav2Vec2AttnAdapterLayer)}
    load_into(_tree_of({**adapters, "lm_head": head}), path, strict=True)
    model.lm_head = head
    model.config.vocab_size = head.out_features


def _file_of(snapshot: Snapshot, language: str, use_safetensors: bool | None) -> str:
    """The name of a language's file; only names that are there are ever looked at."""
    names = snapshot.names()
    for suffix in ("safetensors", "bin"):
        if use_safetensors in (None, suffix == "safetensors") and f"adapter.{language}.{suffix}" in names:
            return f"adapter.{language}.{suffix}"
    parts = [name.split(".") for name in names if name.startswith("adapter.")]
    languages = ", ".join(sorted({part[1] for part in parts if len(part) == 3})) or "none"
    raise SourceError(
        f"{snapshot.name} has no adapter.{language!s:.80}.safetensors; languages there: {languages:.500}",
        path=snapshot.name,
    )


def _tree_of(modules: Mapping[str, nn.Module]) -> nn.Module:
    """A module that has these, under their names, and nothing else."""
    root = nn.Module()
    for name, module in modules.items():
        place = root
        *parents, last = name.split(".")
        for part in parents:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = cast(nn.Module, place._modules[part])
        place.add_module(last, module)
    return root
