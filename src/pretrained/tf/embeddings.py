"""Tables of tokens, biases and attention heads of a TensorFlow model: getting at them, and changing their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from . import heads, live, masks, resizing

__all__ = ["TFEmbeddingsMixin"]


class TFEmbeddingsMixin:
    """What a `TFPreTrainedModel` has of tables and heads, by the names that its class declares."""

    _structure: Any
    _input_embeddings: ClassVar[str | None]
    _output_bias: ClassVar[str | None]

    def get_input_embeddings(self) -> Any:
        """The layer that has the table of tokens, or None."""
        return live.layer_of(self, self._input_embeddings)

    def set_input_embeddings(self, value: Any) -> None:
        """Gives the table of tokens the values of a tensor, a variable or a layer with a `weight`, of the same shape.

        Raises:
            ValueError: another shape. NotImplementedError: the model has no tokens.
        """
        live.assign(self, self._input_embeddings, value)

    def get_output_embeddings(self) -> Any:
        """The layer that has the table of the head, which may be that of the input; None without one."""
        return live.output_layer(self)

    def set_output_embeddings(self, value: Any) -> None:
        """Gives the head's table values, as `set_input_embeddings` does; a table that is tied is that of the input."""
        live.assign(self, live.output_name(self), value)

    def get_bias(self) -> dict[str, Any] | None:
        """Name → variable of the bias of the token head, or None."""
        place = self._structure.by_name.get(self._output_bias or "")
        return None if place is None else {place.name: place.variable}

    def set_bias(self, value: Mapping[str, Any]) -> None:
        """Gives biases values, by the names of `get_bias`.

        Raises:
            ValueError: another shape. NotImplementedError: there is no such bias.
        """
        for name, bias in value.items():
            live.assign(self, name, bias)

    def get_lm_head(self) -> Any:
        """The layer that makes token logits, or None."""
        return live.layer_of(self, self._output_bias) or live.output_layer(self)

    get_output_layer_with_bias = get_lm_head

    def get_prefix_bias_name(self) -> str | None:
        """Name of the bias of the token head, or None."""
        return self._output_bias if self.get_bias() else None

    def get_head_mask(self, head_mask: Any, num_hidden_layers: int) -> list[Any]:
        """One mask for each layer, `(1, heads, 1, 1)` or None, of `(heads,)` or `(layers, heads)`."""
        return list(masks.split_head_mask(head_mask, num_hidden_layers))

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> Any:
        """Another number of tokens, at the end; the head and the config follow. Returns the layer of the table.

        A model that was compiled has to be compiled again: its optimizer knows the old variables.

        Args:
            new_num_tokens: how many there are to be; None leaves the number, or only rounds it.
            pad_to_multiple_of: the number is rounded up to a multiple of this.
            mean_resizing: whether a new row is drawn near the mean of the old ones rather than as at first.

        Raises:
            InvalidOptionError: a size that is no positive integer. NotImplementedError: the model has no tokens.
        """
        return resizing.resize_tokens(self, new_num_tokens, pad_to_multiple_of, mean_resizing)

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        """Takes attention heads out for good: {layer: [heads]}, numbered as they were at first. Compile again after.

        Raises:
            InvalidOptionError: there is no such head. NotImplementedError: the class cannot be pruned.
        """
        heads.prune(self, heads_to_prune)
