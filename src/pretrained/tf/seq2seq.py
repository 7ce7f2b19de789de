"""Models with an encoder and a decoder, called one at a time: what decoding step by step needs."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from . import calls, live
from .kv_cache import KVCache

__all__ = ["TFSeq2SeqMixin", "encoder_states", "shift_tokens_right", "shifted_for"]

Tensor: TypeAlias = tf.Tensor


class TFSeq2SeqMixin:
    """The calls of a `TFPreTrainedModel` whose module has the methods `encode`, `decode` and `init_cache`."""

    config: Any

    def encode(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """What the encoder makes of `input_ids` and `attention_mask`; keywords as `TFPreTrainedModel.__call__`'s."""
        return self._run("encode", args, kwargs, training)

    def decode(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """What the decoder says, with the logits of a model that has them.

        Args:
            args: `decoder_input_ids`, `encoder_outputs`, `encoder_attention_mask`, `decoder_attention_mask`,
                `past_key_values`, in this order or as keywords.
            training: whether anything is dropped.
            kwargs: further inputs of the module's `decode`, and `return_dict=False` for a plain tuple.
        """
        return self._run("decode", args, kwargs, training)

    def init_cache(self, batch_size: int, max_length: int, encoder_outputs: Any = None) -> KVCache:
        """A cache for `decode`, with the keys and values of the encoder's output in it: they are computed here, once.

        Args:
            batch_size: rows.
            max_length: tokens that there is to be room for.
            encoder_outputs: what `encode` gave; without it the first `decode` computes them.
        """
        cache: KVCache = self._module().init_cache(batch_size, max_length, encoder_outputs)
        return cache

    def prepare_decoder_input_ids_from_labels(self, labels: Any) -> Tensor:
        """What the decoder is given to predict `labels` `(batch, seq)`."""
        return shifted_for(self.config, labels)

    def _run(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool | None) -> Any:
        tensors, beside = calls.bind(self, args, kwargs, method)
        return live.call(self, tensors, training, beside, method)

    def _module(self) -> Any:
        return vars(self)["module"]


def shift_tokens_right(input_ids: Any, pad_token_id: int, decoder_start_token_id: int) -> Tensor:
    """`(batch, seq)`: the start token and all of `input_ids` but the last; -100 becomes padding."""
    ids = tf.convert_to_tensor(input_ids)
    first = tf.fill(tf.shape(ids[..., :1]), tf.cast(decoder_start_token_id, ids.dtype))
    shifted = tf.ensure_shape(tf.concat((first, ids[..., :-1]), -1), ids.shape)
    return tf.where(shifted == -100, tf.cast(pad_token_id, ids.dtype), shifted)


def shifted_for(config: Any, input_ids: Any) -> Tensor:
    """`input_ids` shifted as a config says.

    Raises:
        ValueError: it does not say how.
    """
    start, padding = config.decoder_start_token_id, config.pad_token_id
    for name, value in (("decoder_start_token_id", start), ("pad_token_id", padding)):
        if not isinstance(value, int):
            raise ValueError(f"the decoder's inputs are made with config.{name}, which is {value}; T5 has 0")
    return shift_tokens_right(input_ids, padding, start)


def encoder_states(encoder_outputs: Any) -> Tensor | None:
    """`(batch, seq, hidden)` of an encoder's output, whether that is an object, a mapping or a tuple."""
    if encoder_outputs is None:
        return None
    is_plain = isinstance(encoder_outputs, (tuple, list))
    states: Tensor = encoder_outputs[0] if is_plain else encoder_outputs["last_hidden_state"]
    return states
