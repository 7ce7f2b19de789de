"""ViT with its heads. Inputs that are not described here are those of `ViTModel`."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from ...pt import losses
from ...pt.outputs import ImageClassifierOutput, MaskedImageModelingOutput
from .configuration_vit import ViTConfig
from .images import pair_of
from .modeling_vit import ViTModel, ViTPreTrainedModel

__all__ = ["ViTForImageClassification", "ViTForMaskedImageModeling"]


class ViTForImageClassification(ViTPreTrainedModel):
    """ViT with logits, or numbers, for the image, from its class token."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        self.vit = ViTModel(config, add_pooling_layer=False)
        num_labels = config.num_labels
        self.classifier = nn.Linear(config.hidden_size, num_labels) if num_labels else nn.Identity()
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor | None = None,
        head_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutput | tuple[Any, ...]:
        """Logits `(batch, labels)`. What `labels` are is `config.problem_type`, or follows from their dtype."""
        outputs = self.vit(
            pixel_values,
            head_mask=head_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            interpolate_pos_encoding=interpolate_pos_encoding,
            return_dict=True,
        )
        logits = self.classifier(outputs.last_hidden_state[:, 0])
        loss = None
        if labels is not None:
            config = self.config
            loss = losses.sequence_classification(logits, labels, config.num_labels, config.problem_type)
        output = ImageClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class ViTForMaskedImageModeling(ViTPreTrainedModel):
    """ViT that fills in masked patches (SimMIM, arXiv 2111.09886)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        self.vit = ViTModel(config, add_pooling_layer=False, use_mask_token=True)
        stride = config.encoder_stride
        self.decoder = nn.Sequential(
            nn.Conv2d(config.hidden_size, stride**2 * config.num_channels, kernel_size=1), nn.PixelShuffle(stride)
        )
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        head_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool | None = None,
        return_dict: bool | None = None,
    ) -> MaskedImageModelingOutput | tuple[Any, ...]:
        """The image `(batch, channels, rows * stride, columns * stride)`; a loss if `bool_masked_pos` is given.

        The loss is the mean distance of the pixels of masked patches. It needs patches of `encoder_stride` pixels a
        side, so that both images have one size.
        """
        stride, patch = self.config.encoder_stride, pair_of(self.config, "patch_size")
        if bool_masked_pos is not None and patch != (stride, stride):
            sizes = f"patch_size={self.config.patch_size}, encoder_stride={stride}"
            raise ValueError(f"bool_masked_pos needs patches as large as what is made of them: {sizes}")
        outputs = self.vit(
            pixel_values,
            bool_masked_pos,
            head_mask,
            output_attentions,
            output_hidden_states,
            interpolate_pos_encoding,
            return_dict=True,
        )
        pixels = cast(Tensor, pixel_values)
        grid = (pixels.shape[2] // patch[0], pixels.shape[3] // patch[1])
        made = self.decoder(outputs.last_hidden_state[:, 1:].transpose(1, 2).unflatten(2, grid))
        loss = None
        if bool_masked_pos is not None:
            loss = _masked_distance(pixels, made, bool_masked_pos.bool().view(-1, 1, *grid), self.config.num_channels)
        output = MaskedImageModelingOutput(
            loss=loss,
            reconstruction=made,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


def _masked_distance(pixels: Tensor, made: Tensor, masked: Tensor, num_channels: int) -> Tensor:
    """Mean absolute difference of two images where `(batch, 1, rows, columns)` says that the patch is masked."""
    rows, columns = made.shape[2:]
    stride = rows // masked.shape[2]
    mask = masked.repeat_interleave(stride, 2).repeat_interleave(stride, 3)
    # What is left over at the edges of an image of any size belongs to no patch.
    distance = F.l1_loss(made, pixels[:, :, :rows, :columns].to(made.dtype), reduction="none")
    return (distance * mask).sum() / (mask.sum() + 1e-5) / num_channels
