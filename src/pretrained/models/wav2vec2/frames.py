"""Numbers of samples and frames of Wav2Vec2: what each framework's model counts alike."""

from __future__ import annotations

from typing import Any

from ...errors import ConfigError

__all__ = ["conv_length", "dummy_samples", "num_frames", "refuse_adapter", "window_of"]


def conv_length(length: Any, kernel: int, stride: int) -> Any:
    """How many places a convolution without padding has in a sequence; of a number or an array."""
    return (length - kernel) // stride + 1


def num_frames(config: Any, num_samples: Any, add_adapter: bool | None = None) -> Any:
    """Frames of recordings with that many samples; after the adapter, if there is one."""
    length = num_samples
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        length = conv_length(length, kernel, stride)
    if config.add_adapter if add_adapter is None else add_adapter:
        for _ in range(config.num_adapter_layers):
            length = conv_length(length, 1, config.adapter_stride)
    return length


def window_of(config: Any, num_frames: int) -> int:
    """Number of samples that the convolutions make so many frames of."""
    length = num_frames
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        length = (length - 1) * stride + kernel
    return length


def dummy_samples(config: Any) -> int:
    """Number of samples of a recording that is long enough for every mask and every head."""
    tdnn = zip(config.tdnn_kernel, config.tdnn_dilation, strict=True)
    return window_of(config, config.mask_time_length + sum((kernel - 1) * dilation for kernel, dilation in tdnn) + 2)


def refuse_adapter(config: Any, name: str) -> None:
    """Raises ConfigError if the config wants an adapter, for which a head has no place."""
    if config.add_adapter:
        raise ConfigError(f"{name} has no place for an adapter: set add_adapter=False", key="add_adapter")
