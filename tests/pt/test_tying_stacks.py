"""Encoders tied to decoders, and single layers tied as classes of others do it."""

from __future__ import annotations

import pytest
import torch
from tests.pt import third_party as tp
from torch import nn

from pretrained import ConfigError, PretrainedConfig, PreTrainedModel
from pretrained.pt.tying import tied_names


class StackConfig(PretrainedConfig):
    model_type = "third-party-stacks"
    is_encoder_decoder = True
    vocab_size: int = 13
    hidden_size: int = 6
    depth: int = 2
    decoder_width: int | None = None


class SelfPart(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.mix = nn.Linear(size, size)

    def forward(self, x):
        return x + self.mix(self.norm(x))


class CrossPart(SelfPart):
    pass


class WidePart(SelfPart):
    pass


class Block(nn.Module):
    """As T5 numbers its parts: a decoder has one in between."""

    def __init__(self, size, crosses):
        super().__init__()
        parts = [SelfPart(size), *([CrossPart(size)] if crosses else []), WidePart(size)]
        self.layer = nn.ModuleList(parts)

    def forward(self, x):
        for part in self.layer:
            x = part(x)
        return x


class Stack(nn.Module):
    def __init__(self, config, table, crosses, size):
        super().__init__()
        self.embed = table
        self.block = nn.ModuleList(Block(size, crosses) for _ in range(config.depth))
        if not crosses:
            self.only_here = nn.Linear(size, size)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.block:
            x = block(x)
        return x


class StacksPreTrained(PreTrainedModel):
    config_class = StackConfig
    base_model_prefix = "model"

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(std=0.5)


class Stacks(StacksPreTrained):
    def __init__(self, config):
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.hidden_size)
        self.encoder = Stack(config, self.shared, False, config.hidden_size)
        self.decoder = Stack(config, self.shared, True, config.decoder_width or config.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.shared

    def forward(self, ids):
        return self.encoder(ids) + self.decoder(ids)


class StacksWithHead(StacksPreTrained):
    _tied_weights_keys = ["lm_head.weight"]

    def __init__(self, config):
        super().__init__(config)
        self.model = Stacks(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, ids):
        return self.lm_head(self.model(ids))


@pytest.mark.parametrize(("cls", "prefix"), [(Stacks, ""), (StacksWithHead, "model.")])
class TestStacks:
    def test_parts_correspond_by_name_and_by_class(self, cls, prefix, caplog):
        model = cls(StackConfig(tie_encoder_decoder=True))
        base = model.base_model
        for mine, other in zip(base.encoder.block, base.decoder.block, strict=True):
            for part, twin in ((mine.layer[0], other.layer[0]), (mine.layer[1], other.layer[2])):
                assert part.mix.weight is twin.mix.weight and part.norm.bias is twin.norm.bias
        names = tied_names(model)
        assert f"{prefix}encoder.block.1.layer.1.norm.weight" in names
        assert not any("decoder" in name or "only_here" in name for name in names)
        assert "encoder.only_here is tied to nothing" in caplog.text
        apart = cls(StackConfig())
        # per block two parts of a norm and a mixing layer
        assert apart.num_parameters() - model.num_parameters() == 2 * 2 * (2 * 6 + 36 + 6)

    def test_they_are_written_once_and_load(self, cls, prefix, tmp_path):
        from safetensors import safe_open

        model = cls(StackConfig(tie_encoder_decoder=True)).eval()
        model.save_pretrained(tmp_path)
        with safe_open(tmp_path / "model.safetensors", "pt") as file:
            names = set(file.keys())
        assert f"{prefix}decoder.block.0.layer.2.mix.weight" in names
        assert f"{prefix}encoder.block.0.layer.1.mix.weight" not in names
        loaded, report = cls.from_pretrained(tmp_path, output_loading_info=True)
        assert not (report["missing_keys"] or report["unexpected_keys"])
        assert loaded.config.tie_encoder_decoder
        ids = torch.tensor([[1, 2, 12]])
        assert torch.equal(loaded(ids), model(ids))
        assert (
            loaded.base_model.encoder.block[0].layer[1].mix.weight
            is loaded.base_model.decoder.block[0].layer[2].mix.weight
        )

    def test_they_stay_apart_unless_asked(self, cls, prefix):
        base = cls(StackConfig()).base_model
        assert base.encoder.block[0].layer[0].mix.weight is not base.decoder.block[0].layer[0].mix.weight

    def test_resizing_keeps_it(self, cls, prefix):
        model = cls(StackConfig(tie_encoder_decoder=True))
        model.resize_token_embeddings(20)
        base = model.base_model
        assert base.encoder.embed.weight is base.decoder.embed.weight and base.shared.num_embeddings == 20
        assert base.encoder.block[0].layer[0].mix.weight is base.decoder.block[0].layer[0].mix.weight


def test_shapes_that_differ_are_named():
    with pytest.raises(
        ConfigError, match=r"encoder\.block\.0\.layer\.0\.norm\.weight has the shape \(6,\) and the .*\(7,\)"
    ) as caught:
        Stacks(StackConfig(tie_encoder_decoder=True, decoder_width=7))
    assert caught.value.tensor == "encoder.block.0.layer.0.norm.weight"


def test_a_model_without_stacks():
    class Lone(tp.OldModel):
        pass

    with pytest.raises(ConfigError, match="tie_encoder_decoder=True: Lone has no encoder and decoder"):
        Lone(tp.OldConfig(is_encoder_decoder=True, tie_encoder_decoder=True))


def test_methods_that_classes_of_others_call():
    model = tp.OldForCausalLM(tp.OldConfig(tie_word_embeddings=False))
    model._tie_or_clone_weights(model.lm_head, model.backbone.embed)
    assert model.lm_head.weight is model.backbone.embed.weight
    wide, head = nn.Embedding(9, 3), nn.Linear(3, 7)
    model._tie_or_clone_weights(head, wide)
    assert head.weight is wide.weight and head.out_features == 9
    assert head.bias.shape == (9,) and head.bias[7:].tolist() == [0, 0]
    encoder, decoder = Block(4, False), Block(4, True)
    names = model._tie_encoder_decoder_weights(encoder, decoder, "model", "tower")
    assert sorted(names)[0] == "tower.layer.0.mix.bias" and len(names) == 8
    assert encoder.layer[1].mix.bias is decoder.layer[2].mix.bias
