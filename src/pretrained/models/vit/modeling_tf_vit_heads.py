"""ViT in TensorFlow with its heads. Inputs that are not described here are those of `TFViTModule`."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ...module_config import ModuleConfig
from ...tf import losses
from ...tf.headed import asked
from ...tf.layers import Conv, Linear, Module, shape_of, wide_dtype
from ...tf.outputs import TFImageClassifierOutput, TFMaskedImageModelingOutput
from .modeling_tf_vit import TFViTModule, TFViTPreTrainedModel, initial

__all__ = ["TFViTForImageClassification", "TFViTForMaskedImageModeling"]

Tensor: TypeAlias = tf.Tensor


class TFViTForImageClassificationModule(Module):
    """ViT with logits, or numbers, for the image, from its class token."""

    inputs_like = TFViTModule

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.vit = TFViTModule(config, add_pooling_layer=False)
        num_labels = config.num_labels
        self.classifier = Linear(config.hidden_size, num_labels, init=initial(config)) if num_labels else None

    def call(
        self, pixel_values: Tensor | None = None, *, labels: Tensor | None = None, **inputs: Any
    ) -> TFImageClassifierOutput:
        """Logits `(batch, labels)`; with `labels` `(batch,)`, or as many numbers as logits, the loss."""
        outputs = self.vit(pixel_values, **inputs)
        first = outputs.last_hidden_state[:, 0]
        logits = first if self.classifier is None else self.classifier(first)
        loss = None if labels is None else losses.sequence_classification(self.config, logits, labels)
        return TFImageClassifierOutput(loss=loss, logits=logits, **asked(outputs))


class TFViTForMaskedImageModelingModule(Module):
    """ViT that fills in masked patches (SimMIM, arXiv 2111.09886)."""

    inputs_like = TFViTModule

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.vit = TFViTModule(config, add_pooling_layer=False, use_mask_token=True)
        channels = (config.hidden_size, config.encoder_stride**2 * config.num_channels)
        self.decoder = [Conv(channels, (1, 1), init=initial(config))]

    def call(
        self, pixel_values: Tensor | None = None, bool_masked_pos: Tensor | None = None, **inputs: Any
    ) -> TFMaskedImageModelingOutput:
        """The image `(batch, channels, rows * stride, columns * stride)`; a loss if `bool_masked_pos` is given.

        The loss is the mean distance of the pixels of masked patches. It needs patches of `encoder_stride` pixels a
        side, so that both images have one size.
        """
        stride, patches = self.config.encoder_stride, self.vit.embeddings.patch_embeddings
        if bool_masked_pos is not None and patches.patch_size != (stride, stride):
            sizes = f"patch_size={self.config.patch_size}, encoder_stride={stride}"
            raise ValueError(f"bool_masked_pos needs patches as large as what is made of them: {sizes}")
        outputs = self.vit(pixel_values, bool_masked_pos, **inputs)
        assert pixel_values is not None
        pixels = patches.checked(pixel_values, bool(inputs.get("interpolate_pos_encoding")))
        rows, columns = patches.grid_of(*shape_of(pixels)[2:])
        states = outputs.last_hidden_state[:, 1:]
        batch, _, size = shape_of(states)
        made = self.decoder[0](tf.reshape(states, (batch, rows, columns, size)))
        made = tf.reshape(made, (batch, rows, columns, self.config.num_channels, stride, stride))
        made = tf.transpose(made, (0, 3, 1, 4, 2, 5))
        made = tf.reshape(made, (batch, self.config.num_channels, rows * stride, columns * stride))
        loss = None
        if bool_masked_pos is not None:
            loss = masked_distance(pixels, made, tf.reshape(bool_masked_pos, (-1, 1, rows, columns)), stride)
        return TFMaskedImageModelingOutput(loss=loss, reconstruction=made, **asked(outputs))


def masked_distance(pixels: Tensor, made: Tensor, masked: Tensor, stride: int) -> Tensor:
    """Mean absolute difference of two images where `(batch, 1, rows, columns)` says that the patch is masked.

    In float32 or better: it is a sum over all pixels.
    """
    made = tf.cast(made, wide_dtype(made))
    channels, rows, columns = shape_of(made)[1:]
    mask = tf.cast(tf.cast(masked, tf.bool), made.dtype)
    mask = tf.repeat(tf.repeat(mask, stride, 2), stride, 3)
    # What is left over at the edges of an image of any size belongs to no patch.
    distance = tf.abs(made - tf.cast(pixels[:, :, :rows, :columns], made.dtype))
    return tf.reduce_sum(distance * mask) / (tf.reduce_sum(mask) + 1e-5) / channels


class TFViTForImageClassification(TFViTPreTrainedModel):
    """ViT with logits, or numbers, for the image, from its class token."""

    module_class = TFViTForImageClassificationModule


class TFViTForMaskedImageModeling(TFViTPreTrainedModel):
    """ViT that fills in masked patches."""

    module_class = TFViTForMaskedImageModelingModule
