"""Wav2Vec2 as it is trained without text: to tell what was masked from other sounds of the recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError
from ...pt.outputs import ModelOutput, TensorTuple
from .configuration_wav2vec2 import Wav2Vec2Config
from .modeling_wav2vec2 import Wav2Vec2Model, Wav2Vec2PreTrainedModel

__all__ = ["Wav2Vec2ForPreTraining", "Wav2Vec2ForPreTrainingOutput"]


@dataclass(eq=False)
class Wav2Vec2ForPreTrainingOutput(ModelOutput):
    """Predictions and what they should be, each `(batch, frames, proj_codevector_dim)`; the perplexity of the codes."""

    loss: Tensor | None = None
    projected_states: Tensor | None = None
    projected_quantized_states: Tensor | None = None
    codevector_perplexity: Tensor | None = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None
    contrastive_loss: Tensor | None = None
    diversity_loss: Tensor | None = None


class Wav2Vec2GumbelVectorQuantizer(nn.Module):
    """One vector of each group's codebook for every frame: the best one, in training a drawn one (arXiv 1611.01144)."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.num_groups = config.num_codevector_groups
        self.num_vars = config.num_codevectors_per_group
        if config.codevector_dim % self.num_groups:
            sizes = f"codevector_dim={config.codevector_dim}, num_codevector_groups={self.num_groups}"
            raise ConfigError(f"groups must divide the codevectors: {sizes}", key="num_codevector_groups")
        size = config.codevector_dim // self.num_groups
        self.codevectors = nn.Parameter(torch.empty(1, self.num_groups * self.num_vars, size))
        self.weight_proj = nn.Linear(config.conv_dim[-1], self.num_groups * self.num_vars)
        self.temperature = 2.0  # lowered while training

    def forward(self, features: Tensor, mask_time_indices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`(batch, frames, codevector_dim)` and the perplexity `()`, taken over the masked frames if any are."""
        scores = self.weight_proj(features).unflatten(-1, (self.num_groups, self.num_vars))
        if self.training:
            chosen = F.gumbel_softmax(scores.float(), self.temperature, hard=True).type_as(scores)
            probs = scores.softmax(-1, dtype=torch.float32)
        else:
            chosen = probs = F.one_hot(scores.argmax(-1), self.num_vars).type_as(scores)
        table = self.codevectors.view(self.num_groups, self.num_vars, -1)
        vectors = torch.einsum("bfgv,gvd->bfgd", chosen, table).flatten(2)
        probs = probs.flatten(0, 1) if mask_time_indices is None else probs[mask_time_indices]
        mean = probs.mean(0)
        return vectors, torch.exp(-torch.xlogy(mean, mean).sum(-1)).sum()


class Wav2Vec2ForPreTraining(Wav2Vec2PreTrainedModel):
    """Wav2Vec2 with a quantizer, and the two projections that are compared."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        self.wav2vec2 = Wav2Vec2Model(config)
        self.dropout_features = nn.Dropout(config.feat_quantizer_dropout)
        self.quantizer = Wav2Vec2GumbelVectorQuantizer(config)
        self.project_hid = nn.Linear(config.hidden_size, config.proj_codevector_dim)
        self.project_q = nn.Linear(config.codevector_dim, config.proj_codevector_dim)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Wav2Vec2GumbelVectorQuantizer):
            nn.init.normal_(module.weight_proj.weight)
            nn.init.zeros_(module.weight_proj.bias)
            nn.init.uniform_(module.codevectors)
        elif module is self:  # these two were trained from torch's own initialisation
            self.project_hid.reset_parameters()
            self.project_q.reset_parameters()

    def set_gumbel_temperature(self, temperature: float) -> None:
        """Sets how evenly the quantizer draws in training."""
        self.quantizer.temperature = temperature

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        sampled_negative_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Wav2Vec2ForPreTrainingOutput | tuple[Any, ...]:
        """Predictions and quantized features; a loss if the sounds to tell them from are given.

        Args:
            input_values: `(batch, samples)`.
            attention_mask: `(batch, samples)`, 1 for sound and then 0 for padding.
            mask_time_indices: `(batch, frames)`, true for the frames that are hidden and have to be found.
            sampled_negative_indices: `(batch, frames, negatives)`, places in `(batch * frames)`.
            output_attentions, output_hidden_states, return_dict: as `Wav2Vec2Model.forward` has them.
        """
        if mask_time_indices is not None:
            mask_time_indices = mask_time_indices.bool()
        outputs = self.wav2vec2(
            input_values,
            attention_mask,
            mask_time_indices,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        found = self.project_hid(outputs.last_hidden_state)
        vectors, perplexity = self.quantizer(self.dropout_features(outputs.extract_features), mask_time_indices)
        wanted = self.project_q(vectors.to(self.project_q.weight.dtype))
        loss = contrastive = diversity = None
        if sampled_negative_indices is not None:
            if mask_time_indices is None:
                raise ValueError("sampled_negative_indices need mask_time_indices: which frames are to be found")
            contrastive = contrastive_loss(
                found, wanted, mask_time_indices, sampled_negative_indices, self.config.contrastive_logits_temperature
            )
            num_codes = self.quantizer.num_groups * self.quantizer.num_vars
            diversity = (num_codes - perplexity) / num_codes * mask_time_indices.sum()
            loss = contrastive + self.config.diversity_loss_weight * diversity
        output = Wav2Vec2ForPreTrainingOutput(
            loss=loss,
            projected_states=found,
            projected_quantized_states=wanted,
            codevector_perplexity=perplexity,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            contrastive_loss=contrastive,
            diversity_loss=diversity,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


def contrastive_loss(found: Tensor, wanted: Tensor, masked: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Sum of the losses of telling, for each masked frame, the right vector from those of other frames.

    Args:
        found: predictions `(batch, frames, size)`.
        wanted: what they should be, in the same shape.
        masked: `(batch, frames)`, true for the frames that count.
        negatives: `(batch, frames, negatives)`, places in `(batch * frames)`.
        temperature: what the cosines are divided by.
    """
    right = wanted[masked][:, None]
    others = wanted.flatten(0, 1)[negatives[masked].long()]
    logits = F.cosine_similarity(found[masked][:, None].float(), torch.cat((right, others), 1).float(), dim=-1)
    # Where another frame has the same codes there is nothing to tell apart.
    is_right = F.pad((others == right).all(-1), (1, 0))
    logits = (logits / temperature).masked_fill(is_right, -torch.inf)
    return F.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.int64), reduction="sum")
