"""Model classes as people write them for transformers 4.35 and 5, with nothing changed but the import line."""

from __future__ import annotations

import math

import torch
from torch import nn

from pretrained import PretrainedConfig, PreTrainedModel


class OldConfig(PretrainedConfig):
    """4.35 style: an __init__ of its own, fields set before the call up."""

    model_type = "third-party-old"
    attribute_map = {"hidden_size": "width", "num_hidden_layers": "depth"}

    def __init__(self, vocab_size=31, width=8, depth=2, max_len=16, tie_word_embeddings=True, pad_token_id=0, **kwargs):
        self.vocab_size = vocab_size
        self.width = width
        self.depth = depth
        self.max_len = max_len
        super().__init__(tie_word_embeddings=tie_word_embeddings, pad_token_id=pad_token_id, **kwargs)


class OldBlock(nn.Module):
    def __init__(self, config, drop_path):
        super().__init__()
        self.drop_path = drop_path
        self.norm = nn.LayerNorm(config.width)
        self.mix = nn.Linear(config.width, config.width)
        self.gate = nn.Parameter(torch.ones(config.width))
        mask = torch.tril(torch.ones(config.max_len, config.max_len))
        self.register_buffer("mask", mask.view(1, config.max_len, config.max_len), persistent=False)
        self.register_buffer("running", torch.zeros(config.width))

    def forward(self, x):
        mask = self.mask[:, : x.shape[1], : x.shape[1]]
        weights = (mask / mask.sum(-1, keepdim=True)).to(x.dtype)
        return x + self.gate * (weights @ self.mix(self.norm(x)))


class OldPreTrainedModel(PreTrainedModel):
    config_class = OldConfig
    base_model_prefix = "backbone"

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(mean=0.0, std=0.5)
            if module.bias is not None:
                module.bias.data.fill_(0.25)
        elif isinstance(module, nn.Embedding):
            module.weight.data.normal_(mean=0.0, std=0.5)
            if module.padding_idx is not None:
                module.weight.data[module.padding_idx].zero_()
        elif isinstance(module, nn.LayerNorm):
            module.bias.data.zero_()
            module.weight.data.fill_(1.0)


class OldModel(OldPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.width, padding_idx=config.pad_token_id)
        # A bare parameter that the constructor fills, and one that it allocates and then fills.
        self.position = nn.Parameter(torch.zeros(1, config.max_len, config.width))
        self.scale = nn.Parameter(torch.empty(config.width))
        nn.init.constant_(self.scale, 3.0)
        rates = [rate.item() for rate in torch.linspace(0, 0.5, config.depth)]
        self.blocks = nn.ModuleList([OldBlock(config, rate) for rate in rates])
        inv_freq = 1.0 / (10000 ** (torch.arange(0, config.width, 2).float() / config.width))
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def set_input_embeddings(self, value):
        self.embed = value

    def forward(self, input_ids):
        x = self.embed(input_ids) * self.scale + self.position[:, : input_ids.shape[1]]
        x = x + torch.cat([self.inv_freq, self.inv_freq]).to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return x


class OldForCausalLM(OldPreTrainedModel):
    _tied_weights_keys = ["lm_head.weight"]

    def __init__(self, config):
        super().__init__(config)
        self.backbone = OldModel(config)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def forward(self, input_ids):
        return self.lm_head(self.backbone(input_ids))


class OldForClassification(OldPreTrainedModel):
    def __init__(self, config, num_extra=0):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.backbone = OldModel(config)
        self.classifier = nn.Linear(config.width, config.num_labels + num_extra)
        self.post_init()

    def forward(self, input_ids):
        return self.classifier(self.backbone(input_ids)[:, 0])


class NewConfig(PretrainedConfig):
    """5.x style: annotated fields and __post_init__."""

    model_type = "third-party-new"
    vocab_size: int = 31
    hidden_size: int = 8
    num_hidden_layers: int = 2
    head_dim: int | None = None

    def __post_init__(self, **kwargs):
        if self.head_dim is None:
            self.head_dim = self.hidden_size // 2
        super().__post_init__(**kwargs)


class NewModel(PreTrainedModel):
    config_class = NewConfig
    base_model_prefix = "model"

    def __init__(self, config: NewConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            [nn.Linear(config.hidden_size, config.hidden_size) for _ in range(config.num_hidden_layers)]
        )
        self.norm_weight = nn.Parameter(torch.empty(config.hidden_size))
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, NewModel):
            nn.init.ones_(module.norm_weight)

    def forward(self, input_ids):
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x * self.norm_weight / math.sqrt(self.config.head_dim)


class NewForCausalLM(PreTrainedModel):
    config_class = NewConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: NewConfig):
        super().__init__(config)
        self.model = NewModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids):
        return self.lm_head(self.model(input_ids))


class PeekingModel(OldPreTrainedModel):
    """Looks at the values of a parameter while it is being built, so no skeleton of it can be made."""

    def __init__(self, config):
        super().__init__(config)
        self.linear = nn.Linear(config.width, config.width)
        self.start = float(self.linear.weight.detach().abs().max())
        self.post_init()

    def forward(self, x):
        return self.linear(x)


class OddLayersModel(OldPreTrainedModel):
    """Layers of torch that keep lists of their parameters, normalise them, or come with buffers."""

    def __init__(self, config):
        super().__init__(config)
        self.lstm = nn.LSTM(config.width, config.width, num_layers=2, bidirectional=True, batch_first=True)
        self.attention = nn.MultiheadAttention(2 * config.width, 2, batch_first=True)
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(2 * config.width, 4, 3), dim=2)
        self.bn = nn.BatchNorm1d(4)
        self.extra = nn.ParameterList([nn.Parameter(torch.randn(3)) for _ in range(2)])
        self.post_init()

    def forward(self, x):
        y, _ = self.lstm(x)
        y, _ = self.attention(y, y, y)
        return self.bn(self.conv(y.transpose(1, 2))) + sum(p.sum() for p in self.extra)


ALL = [OldModel, OldForCausalLM, OldForClassification, NewModel, NewForCausalLM, PeekingModel, OddLayersModel]
