"""Wav2Vec2 with the heads it is fine-tuned with. Inputs that are not described here are those of `Wav2Vec2Model`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..._types import PathLike
from ...errors import ConfigError
from ...options import SourceOptions, split_source_options, unknown_keyword
from ...pt.layers import unknown_name
from ...pt.losses import cross_entropy
from ...pt.outputs import CausalLMOutput, SequenceClassifierOutput, TokenClassifierOutput, XVectorOutput
from .configuration_wav2vec2 import Wav2Vec2Config
from .frames import conv_length, refuse_adapter
from .modeling_wav2vec2 import Wav2Vec2Model, Wav2Vec2PreTrainedModel
from .modeling_wav2vec2_adapters import Wav2Vec2AttnAdapterLayer, load_language

__all__ = [
    "Wav2Vec2ForAudioFrameClassification",
    "Wav2Vec2ForCTC",
    "Wav2Vec2ForSequenceClassification",
    "Wav2Vec2ForXVector",
]

ADAPTER_KEYWORDS = ("use_safetensors", *(field.name for field in fields(SourceOptions)))


def ctc_loss(logits: Tensor, labels: Tensor, lengths: Tensor, config: Wav2Vec2Config) -> Tensor:
    """Loss of frames `(batch, frames, vocab)`, `lengths` `(batch,)` of them, against shorter texts `(batch, tokens)`.

    The blank token is `config.pad_token_id`; labels that are negative or blank are padding.

    Source: Graves et al., Connectionist Temporal Classification (2006), as torch has it.
    """
    if config.ctc_loss_reduction not in ("none", "mean", "sum"):
        raise unknown_name("ctc_loss_reduction", config.ctc_loss_reduction, ("none", "mean", "sum"))
    blank = cast(int, config.pad_token_id)
    labels = labels.to(logits.device)
    is_token = (labels >= 0) & (labels != blank)
    log_probs = logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).transpose(0, 1)
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's has no zero_infinity, and limits on the lengths
        return F.ctc_loss(
            log_probs,
            labels[is_token],
            lengths,
            is_token.sum(-1),
            blank=blank,
            reduction=config.ctc_loss_reduction,
            zero_infinity=config.ctc_zero_infinity,
        )


class Wav2Vec2ForCTC(Wav2Vec2PreTrainedModel):
    """Wav2Vec2 with token logits for each frame."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        if config.vocab_size is None:
            raise ConfigError("vocab_size is not set: how many tokens is each frame to be one of?", key="vocab_size")
        self.wav2vec2 = Wav2Vec2Model(config)
        self.dropout = nn.Dropout(config.final_dropout)
        size = cast(int, config.output_hidden_size) if config.add_adapter else config.hidden_size
        self.lm_head = nn.Linear(size, config.vocab_size)
        self.target_lang: str | None = None
        self.post_init()

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """Logits `(batch, frames, vocab)`; `labels` `(batch, tokens)` are the text, -100 or the blank after it."""
        vocab = self.lm_head.out_features
        if labels is not None and labels.max() >= vocab:
            raise ValueError(f"labels go up to {int(labels.max())}; there are vocab_size={vocab} tokens")
        outputs = self.wav2vec2(
            input_values,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.lm_head(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            samples = torch.ones_like(cast(Tensor, input_values), dtype=torch.int64)
            lengths = (samples if attention_mask is None else attention_mask).sum(-1)
            frames = cast(Tensor, self._get_feat_extract_output_lengths(lengths))
            loss = ctc_loss(logits, labels, frames.long(), self.config)
        output = CausalLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: PathLike | None,
        *model_args: Any,
        config: Any = None,
        target_lang: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `PreTrainedModel.from_pretrained`; with `target_lang` the layers and the head of that language."""
        result = super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        if target_lang is not None:
            given = {key: kwargs[key] for key in ADAPTER_KEYWORDS if key in kwargs}
            (result[0] if isinstance(result, tuple) else result).load_adapter(target_lang, **given)
        return result

    # An adapter of a language is not one of peft; upstream has this name for both.
    def load_adapter(self, target_lang: str, force_load: bool = True, **kwargs: Any) -> None:  # type: ignore[override]
        """Gives the language layers and the head the weights of another language.

        Args:
            target_lang: as in the name of the file, `adapter.LANGUAGE.safetensors`.
            force_load: whether to load what is loaded already.
            kwargs: `use_safetensors`, and where the checkpoint is: `revision`, `cache_dir`, `token` and the like.

        Raises:
            ConfigError, SourceError, MismatchError: as `load_language` has them. OptionError: a keyword nobody knows.
        """
        source, rest = split_source_options(kwargs)
        if unknown := sorted(set(rest) - {"use_safetensors"}):
            raise unknown_keyword(unknown[0])
        if force_load or target_lang != self.target_lang:
            load_language(self, target_lang, source, rest.get("use_safetensors"))
            self.target_lang = target_lang

    def init_adapter_layers(self) -> None:
        """Initialises the language layers and the head anew, to train them alone for another language."""
        for module in self.modules():
            if isinstance(module, Wav2Vec2AttnAdapterLayer):
                module.apply(self._init_weights)
        self._init_weights(self.lm_head)


def _layer_weights(config: Wav2Vec2Config) -> nn.Parameter | None:
    """One weight for what enters the first layer and for the result of each, if the config wants them mixed."""
    num = config.num_hidden_layers + 1
    return nn.Parameter(torch.full((num,), 1 / num)) if config.use_weighted_layer_sum else None


def _mixed(model: Wav2Vec2PreTrainedModel, given: dict[str, Any], asked: bool | None) -> tuple[Tensor, Any]:
    """Hidden states `(batch, frames, hidden)`, mixed from all layers if the config says so, and the base's output."""
    weights = model._parameters.get("layer_weights")
    asked = model.config.output_hidden_states if asked is None else asked
    outputs = model.base_model(**given, output_hidden_states=asked or weights is not None, return_dict=True)
    states = outputs.last_hidden_state
    if weights is not None:
        states = torch.einsum("l,lbfh->bfh", weights.softmax(-1), torch.stack(outputs.hidden_states))
        if not asked:
            outputs.hidden_states = None
    return states, outputs


class Wav2Vec2ForSequenceClassification(Wav2Vec2PreTrainedModel):
    """Wav2Vec2 with logits for the whole recording, from the mean of its frames."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        refuse_adapter(config, type(self).__name__)
        self.wav2vec2 = Wav2Vec2Model(config)
        self.register_parameter("layer_weights", _layer_weights(config))
        self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Logits `(batch, labels)`; `labels` `(batch,)` are classes."""
        given = {"input_values": input_values, "attention_mask": attention_mask, "output_attentions": output_attentions}
        states, outputs = _mixed(self, given, output_hidden_states)
        states = self.projector(states)
        if attention_mask is None:
            pooled = states.mean(1)
        else:
            mask = self._get_feature_vector_attention_mask(states.shape[1], attention_mask)[..., None]
            pooled = states.masked_fill(~mask, 0).sum(1) / mask.sum(1)
        logits = self.classifier(pooled)
        output = SequenceClassifierOutput(
            loss=None if labels is None else cross_entropy(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class Wav2Vec2ForAudioFrameClassification(Wav2Vec2PreTrainedModel):
    """Wav2Vec2 with logits for each frame."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        refuse_adapter(config, type(self).__name__)
        self.wav2vec2 = Wav2Vec2Model(config)
        self.register_parameter("layer_weights", _layer_weights(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Logits `(batch, frames, labels)`; `labels` of the same shape are 1 for the right class of each frame."""
        given = {"input_values": input_values, "attention_mask": attention_mask, "output_attentions": output_attentions}
        states, outputs = _mixed(self, given, output_hidden_states)
        logits = self.classifier(states)
        output = TokenClassifierOutput(
            loss=None if labels is None else cross_entropy(logits, labels.view(logits.shape).argmax(-1)),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class AMSoftmaxLoss(nn.Module):
    """Cross entropy of angles in which the right class is put at a disadvantage (arXiv 1801.05599)."""

    def __init__(self, size: int, num_labels: int, scale: float = 30.0, margin: float = 0.4) -> None:
        super().__init__()
        self.scale = scale
        self.margin = margin
        self.weight = nn.Parameter(torch.empty(size, num_labels))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """`()` of `(batch, size)` and classes `(batch,)`."""
        cosine = F.normalize(embeddings, dim=1) @ F.normalize(self.weight, dim=0)
        right = F.one_hot(labels.flatten(), self.weight.shape[1])
        return cross_entropy(self.scale * (cosine - self.margin * right), labels)


class TDNNLayer(nn.Module):
    """A dilated convolution over frames. On disk its weight is a matrix `(out, kernel * in)`."""

    def __init__(self, config: Wav2Vec2Config, index: int) -> None:
        super().__init__()
        self.width = config.tdnn_kernel[index]
        self.dilation = config.tdnn_dilation[index]
        self.kernel = nn.Linear(config.tdnn_dim[max(index - 1, 0)] * self.width, config.tdnn_dim[index])

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, fewer frames, out)` of `(batch, frames, in)`."""
        weight = self.kernel.weight.unflatten(1, (self.width, -1)).transpose(1, 2)
        found = F.conv1d(hidden_states.transpose(1, 2), weight, self.kernel.bias, dilation=self.dilation)
        return F.relu(found.transpose(1, 2))


class Wav2Vec2ForXVector(Wav2Vec2PreTrainedModel):
    """Wav2Vec2 that tells speakers apart by one vector for each recording."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        self.wav2vec2 = Wav2Vec2Model(config)
        self.register_parameter("layer_weights", _layer_weights(config))
        self.projector = nn.Linear(config.hidden_size, config.tdnn_dim[0])
        self.tdnn = nn.ModuleList(TDNNLayer(config, index) for index in range(len(config.tdnn_dim)))
        self.feature_extractor = nn.Linear(config.tdnn_dim[-1] * 2, config.xvector_output_dim)
        self.classifier = nn.Linear(config.xvector_output_dim, config.xvector_output_dim)
        self.objective = AMSoftmaxLoss(config.xvector_output_dim, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AMSoftmaxLoss):
            nn.init.normal_(module.weight)

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> XVectorOutput | tuple[Any, ...]:
        """Logits and the vectors themselves, both `(batch, xvector_output_dim)`; `labels` `(batch,)` are speakers."""
        given = {"input_values": input_values, "attention_mask": attention_mask, "output_attentions": output_attentions}
        states, outputs = _mixed(self, given, output_hidden_states)
        states = self.projector(states)
        for layer in self.tdnn:
            states = layer(states)
        embeddings = self.feature_extractor(self._statistics(states, attention_mask))
        logits = self.classifier(embeddings)
        output = XVectorOutput(
            loss=None if labels is None else self.objective(logits, labels),
            logits=logits,
            embeddings=embeddings,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _statistics(self, states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Mean and deviation over the frames of each recording, `(batch, 2 * size)`."""
        if attention_mask is None:
            return torch.cat((states.mean(1), states.std(1)), -1)
        lengths = self._get_feat_extract_output_lengths(attention_mask.sum(1))
        for kernel in self.config.tdnn_kernel:  # the models were trained with lengths that forget the dilation
            lengths = conv_length(lengths, kernel, 1)
        rows = [row[:length] for row, length in zip(states, cast(Tensor, lengths).tolist(), strict=True)]
        return torch.stack([torch.cat((row.mean(0), row.std(0)), -1) for row in rows])
