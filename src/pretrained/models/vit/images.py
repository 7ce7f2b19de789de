"""Images as ViT takes them: what each framework's model checks and counts alike."""

from __future__ import annotations

from typing import Any

from ...errors import ConfigError

__all__ = ["check_images", "pair_of", "patch_grid"]

Pair = tuple[int, int]


def pair_of(config: Any, key: str) -> Pair:
    """Height and width that a config field gives as one number or as two.

    Raises:
        ConfigError: it is neither.
    """
    value = getattr(config, key)
    sides = (value, value) if isinstance(value, int) else value
    plain = isinstance(sides, list | tuple) and all(type(side) is int and side > 0 for side in sides)
    if not plain or len(sides) != 2:
        raise ConfigError(f"{key}={value!r:.80} must be a positive number or a pair of them", key=key, value=value)
    return sides[0], sides[1]


def patch_grid(config: Any) -> tuple[Pair, Pair, int]:
    """The sizes of an image and of a patch, and how many patches an image has.

    Raises:
        ConfigError: none.
    """
    image, patch = pair_of(config, "image_size"), pair_of(config, "patch_size")
    num_patches = (image[0] // patch[0]) * (image[1] // patch[1])
    if num_patches == 0:
        sizes = f"image_size={config.image_size}, patch_size={config.patch_size}"
        raise ConfigError(f"the image is smaller than one patch: {sizes}", key="patch_size")
    return image, patch, num_patches


def check_images(shape: tuple[int, ...], num_channels: int, image: Pair, patch: Pair, any_size: bool) -> None:
    """Raises ValueError unless these are images that a model for `image` pixels in `patch` pixels can take."""
    if len(shape) != 4:
        raise ValueError(f"pixel_values must be (batch, channels, height, width); the shape is {shape}")
    if shape[1] != num_channels:
        raise ValueError(f"pixel_values have {shape[1]} channels, the model num_channels={num_channels}")
    if not any_size and shape[2:] != image:
        raise ValueError(
            f"the images are {shape[2]}×{shape[3]}, the model's {image[0]}×{image[1]}: resize them, or pass "
            "interpolate_pos_encoding=True"
        )
    if shape[2] < patch[0] or shape[3] < patch[1]:
        raise ValueError(f"the images are {shape[2]}×{shape[3]}: smaller than one patch {patch}")
