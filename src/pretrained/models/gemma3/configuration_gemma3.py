"""The fields of a Gemma 3 text config."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from ...configuration import PretrainedConfig
from ...errors import ConfigError
from .._rope import rope_parameters
from .._windows import FULL, SLIDING

__all__ = ["Gemma3TextConfig"]


class Gemma3TextConfig(PretrainedConfig):
    """What a Gemma 3 text model is; the defaults are those of the reference.

    Attributes:
        num_key_value_heads: heads of the keys and values.
        head_dim: size of a head, whatever the hidden size is.
        rope_theta: base of the rotary frequencies of full layers.
        rope_local_base_freq: that of sliding layers.
        rope_scaling: how the frequencies of full layers are stretched, as releases 4.x write it.
        rope_parameters: kind of layer → all of these, as releases 5.x write it.
        query_pre_attn_scalar: scores are divided by the root of it.
        sliding_window: how many tokens one sees in a sliding layer, itself included.
        layer_types: "full_attention" or "sliding_attention" for each layer; `None`: as the pattern says.
        sliding_window_pattern: every layer whose number, from 1, is a multiple of this is full.
        final_logit_softcapping: logits stay within this, either side of 0; `None`: they are not capped.
        attn_logit_softcapping: the same for the scores of attention; not supported.
        use_bidirectional_attention: whether tokens see later ones too; a sliding layer then sees half of the window on
            either side.
        classifier_dropout: dropout before token logits; `None` means 0.1.
    """

    model_type = "gemma3_text"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    positive: ClassVar[tuple[str, ...]] = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "query_pre_attn_scalar",
        "sliding_window",
        "sliding_window_pattern",
        "final_logit_softcapping",
    )

    vocab_size: int = 262208
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 131072
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = 0
    eos_token_id: int | list | None = 1
    bos_token_id: int | None = 2
    tie_word_embeddings: bool = True
    rope_theta: float = 1000000.0
    rope_local_base_freq: float = 10000.0
    rope_scaling: dict | None = None
    rope_parameters: dict | None = None
    attention_bias: bool = False
    attention_dropout: float | None = 0.0
    query_pre_attn_scalar: float = 256
    sliding_window: int | None = 4096
    layer_types: list | None = None
    sliding_window_pattern: int = 6
    final_logit_softcapping: float | None = None
    attn_logit_softcapping: float | None = None
    use_bidirectional_attention: bool | None = False
    classifier_dropout: float | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Sets the 4.x spelling of rotary settings from that of 5.x, so that code of either habit reads the truth."""
        super().__post_init__(**kwargs)
        if self.rope_parameters is None:
            return
        unknown = set(self.rope_parameters) - {FULL, SLIDING}
        if unknown:
            raise ConfigError(
                f"rope_parameters of this family has {FULL} and {SLIDING} and settings below these, found "
                f"{sorted(map(str, unknown))[0]:.80}",
                key="rope_parameters",
            )
        full = self.rope_settings[FULL]
        self.rope_theta, self.rope_local_base_freq = full["rope_theta"], self.rope_settings[SLIDING]["rope_theta"]
        if self.rope_scaling is None and full["rope_type"] != "default":
            self.rope_scaling = {name: value for name, value in full.items() if name != "rope_theta"}

    @property
    def rope_settings(self) -> dict[str, dict[str, Any]]:
        """Kind of layer → its rotary settings in the spelling of 5.x."""
        given = self.rope_parameters or {}
        return {
            FULL: self._settings(given.get(FULL), self.rope_theta, self.rope_scaling),
            SLIDING: self._settings(given.get(SLIDING), self.rope_local_base_freq, None),
        }

    def _settings(self, given: dict | None, theta: float, scaling: dict | None) -> dict[str, Any]:
        whole = {"rope_theta": theta, **(given or {}), **(scaling or {})}
        return rope_parameters(_Settings(whole, self.max_position_embeddings))

    @property
    def window(self) -> int | None:
        """How far a token of a sliding layer sees: so many tokens to each side, itself included."""
        if self.sliding_window is None or not self.use_bidirectional_attention:
            return self.sliding_window
        return self.sliding_window // 2 + 1


class _Settings(NamedTuple):
    """What `rope_parameters` reads of a config."""

    rope_parameters: dict[str, Any]
    max_position_embeddings: int
