"""Models with an encoder and a decoder, called one at a time: what decoding step by step needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from . import calls, live
from .kv_cache import KVCache

__all__ = ["FlaxSeq2SeqMixin", "encoder_states", "shift_tokens_right", "shifted_for"]

Params = Mapping[str, Any]


class FlaxSeq2SeqMixin:
    """The calls of a `FlaxPreTrainedModel` whose module has the methods `encode`, `decode` and `init_cache`."""

    config: Any
    _module_class: Any

    def encode(
        self,
        *args: Any,
        params: Params | None = None,
        dropout_rng: jax.Array | None = None,
        train: bool = False,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """What the encoder makes of `input_ids` and `attention_mask`; keywords as `FlaxPreTrainedModel.__call__`'s."""
        inputs = calls.bind(self._module_class, args, kwargs, "encode")
        return live.call(self, inputs, params, dropout_rng, train, return_dict, "encode")

    def decode(
        self,
        *args: Any,
        params: Params | None = None,
        dropout_rng: jax.Array | None = None,
        train: bool = False,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """What the decoder says, with the logits of a model that has them.

        Args:
            args: `decoder_input_ids`, `encoder_outputs`, `encoder_attention_mask`, `decoder_attention_mask`,
                `past_key_values`, in this order or as keywords.
            params: in place of the model's own.
            dropout_rng: the key of what is dropped in training.
            train: whether anything is.
            return_dict: False for a plain tuple.
            kwargs: further inputs of the module's `decode`.
        """
        inputs = calls.bind(self._module_class, args, kwargs, "decode")
        return live.call(self, inputs, params, dropout_rng, train, return_dict, "decode")

    def init_cache(
        self, batch_size: int, max_length: int, encoder_outputs: Any = None, params: Params | None = None
    ) -> KVCache:
        """A cache for `decode`, with the keys and values of the encoder's output in it: they are computed here, once.

        Args:
            batch_size: rows.
            max_length: tokens that there is to be room for.
            encoder_outputs: what `encode` gave; without it the first `decode` computes them.
            params: of a model that has none of its own.

        Raises:
            ValueError: there are no parameters.
        """
        inputs = {"batch_size": int(batch_size), "max_length": int(max_length)}
        if encoder_outputs is not None:
            inputs["encoder_outputs"] = encoder_outputs
        cache: KVCache = live.call(self, inputs, params, None, False, True, "init_cache")
        return cache

    def prepare_decoder_input_ids_from_labels(self, labels: Any) -> jax.Array:
        """What the decoder is given to predict `labels` `(batch, seq)`."""
        return shifted_for(self.config, labels)


def shift_tokens_right(input_ids: Any, pad_token_id: int, decoder_start_token_id: int) -> jax.Array:
    """`(batch, seq)`: the start token and all of `input_ids` but the last; -100 becomes padding."""
    ids = jnp.asarray(input_ids)
    shifted = jnp.roll(ids, 1, -1).at[..., 0].set(decoder_start_token_id)
    return jnp.where(shifted == -100, pad_token_id, shifted)


def shifted_for(config: Any, input_ids: Any) -> jax.Array:
    """`input_ids` shifted as a config says.

    Raises:
        ValueError: it does not say how.
    """
    start, padding = config.decoder_start_token_id, config.pad_token_id
    for name, value in (("decoder_start_token_id", start), ("pad_token_id", padding)):
        if not isinstance(value, int):
            raise ValueError(f"the decoder's inputs are made with config.{name}, which is {value}; T5 has 0")
    return shift_tokens_right(input_ids, padding, start)


def encoder_states(encoder_outputs: Any) -> jax.Array | None:
    """`(batch, seq, hidden)` of an encoder's output, whether that is an object, a mapping or a tuple."""
    if encoder_outputs is None:
        return None
    is_plain = isinstance(encoder_outputs, (tuple, list))
    states: jax.Array = encoder_outputs[0] if is_plain else encoder_outputs["last_hidden_state"]
    return states
