"""Input, output and position embeddings of a torch model: where they are, and the methods that change their size."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from . import resizing

__all__ = ["EmbeddingAccessMixin", "get_input", "get_output", "get_positions", "set_input", "set_output"]

_COMMON_NAMES = ("embed_tokens", "word_embeddings", "wte", "shared")


class EmbeddingAccessMixin:
    """The embeddings of a model. A class says where its own are by overriding the first four methods."""

    # Dotted name, in the base model, of the table of absolute positions; None where positions are no such table.
    _position_embeddings: ClassVar[str | None] = None

    def get_input_embeddings(self) -> nn.Module:
        """The layer that turns token ids into vectors. Raises NotImplementedError if the class has none."""
        return get_input(self)

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the input embeddings."""
        set_input(self, value)

    def get_output_embeddings(self) -> nn.Module | None:
        """The layer that turns vectors into logits over the vocabulary; None if the class has none."""
        return get_output(self)

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replaces the output embeddings. Raises NotImplementedError if the class has none."""
        set_output(self, new_embeddings)

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Module:
        """The input embeddings, with another number of tokens; the output embeddings and the config follow.

        Tokens are added or taken away at the end. What is tied stays tied. Parameters that change are new objects:
        make the optimizer afterwards.

        Args:
            new_num_tokens: how many there are to be; None leaves the number, or only rounds it.
            pad_to_multiple_of: the number is rounded up to a multiple of this.
            mean_resizing: whether a new row is drawn near the mean of the old ones (their covariance times 1e-9)
                rather than by `_init_weights`.

        Raises:
            InvalidOptionError: a size that is no positive integer. OptionError: an embedding of another kind than
                torch's.
        """
        return resizing.resize_tokens(self, new_num_tokens, pad_to_multiple_of, mean_resizing)

    def _resize_token_embeddings(
        self, new_num_tokens: int, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        """Changes the layers and nothing else; a class whose embeddings are of its own kind overrides it."""
        return resizing.resize_layers(self, resizing.rounded(new_num_tokens, pad_to_multiple_of), mean_resizing)

    def _get_resized_embeddings(
        self,
        old_embeddings: nn.Embedding,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """The layer, with another number of rows."""
        if new_num_tokens is not None or pad_to_multiple_of is not None:
            size = old_embeddings.weight.shape[0] if new_num_tokens is None else new_num_tokens
            resizing.resize_rows(self, old_embeddings, resizing.rounded(size, pad_to_multiple_of), mean_resizing)
        return old_embeddings

    def _get_resized_lm_head(
        self,
        old_lm_head: nn.Module,
        new_num_tokens: int | None = None,
        transposed: bool = False,
        mean_resizing: bool = True,
    ) -> nn.Module:
        """The head, with another number of outputs; `transposed` if its weight is `(hidden, vocab)`."""
        if new_num_tokens is not None:
            size = resizing.rounded(new_num_tokens, None)
            resizing.resize_rows(self, old_lm_head, size, mean_resizing, axis=int(transposed))
        return old_lm_head

    def get_position_embeddings(self) -> nn.Embedding | tuple[nn.Embedding, ...]:
        """The table of absolute positions. Raises NotImplementedError if the class has none."""
        return get_positions(self)

    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """Changes how many positions there are, at the end of the table; new rows are drawn by `_init_weights`.

        Raises:
            NotImplementedError: positions of this class are no table. InvalidOptionError: no positive integer.
        """
        resizing.resize_positions(self, new_num_position_embeddings)


def get_input(model: Any) -> nn.Module:
    """The input embeddings of the base model, or of `model` itself if it holds an embedding under a usual name."""
    base = model.base_model
    if base is not model:
        return base.get_input_embeddings()
    for name in _COMMON_NAMES:
        if isinstance(layer := getattr(model, name, None), nn.Module):
            return layer
    raise NotImplementedError(f"{type(model).__name__} defines no get_input_embeddings")


def set_input(model: Any, value: nn.Module) -> None:
    """Replaces what `get_input` finds."""
    base = model.base_model
    if base is not model:
        base.set_input_embeddings(value)
        return
    for name in _COMMON_NAMES:
        if isinstance(getattr(model, name, None), nn.Module):
            setattr(model, name, value)
            return
    raise NotImplementedError(f"{type(model).__name__} defines no set_input_embeddings")


def get_output(model: Any) -> nn.Module | None:
    """The layer called `lm_head` of a model whose inputs are tokens; None if there is none."""
    head = model._modules.get("lm_head")
    if head is None:
        return None
    try:
        model.get_input_embeddings()
    except NotImplementedError:  # what the head gives logits of is not what comes in: speech, pictures
        return None
    return head


def set_output(model: Any, value: nn.Module) -> None:
    """Replaces what `get_output_embeddings` finds, wherever it is."""
    old = model.get_output_embeddings()
    places = [
        (module, name)
        for module in model.modules()
        for name, child in module._modules.items()
        if child is old and old is not None
    ]
    if not places:
        raise NotImplementedError(f"{type(model).__name__} has no output embeddings")
    for module, name in places:
        setattr(module, name, value)


def get_positions(model: Any) -> nn.Embedding:
    """The layer at the place that the class declares."""
    base, kind = model.base_model, getattr(model.config, "position_embedding_type", None) or "absolute"
    place = getattr(type(base), "_position_embeddings", None)
    if place is None:
        raise NotImplementedError(f"{type(model).__name__} has no table of absolute positions (_position_embeddings)")
    if kind != "absolute":
        raise NotImplementedError(f"position_embedding_type={kind!r}: its table is one of distances, not of positions")
    return base.get_submodule(place)
