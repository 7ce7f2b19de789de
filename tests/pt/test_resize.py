"""Embeddings of another size: tokens and positions, heads and biases, tied and not."""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
from tests.models.tiny import tiny_bert, tiny_llama
from tests.pt import third_party as tp
from torch import nn

from pretrained import (
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    InvalidOptionError,
    LlamaForCausalLM,
    OptionError,
    PretrainedConfig,
    PreTrainedModel,
    pytorch_utils,
)
from pretrained.pt import new_rows
from pretrained.pt.new_rows import drawn_like

IDS = torch.tensor([[1, 5, 9, 30, 2]])


class SharedConfig(PretrainedConfig):
    model_type = "third-party-shared"
    is_encoder_decoder = True
    vocab_size: int = 31
    hidden_size: int = 8


class Stack(PreTrainedModel):
    config_class = SharedConfig

    def __init__(self, config, embed_tokens):
        super().__init__(config)
        self.embed_tokens = embed_tokens
        self.mix = nn.Linear(config.hidden_size, config.hidden_size)
        self.post_init()

    def forward(self, input_ids):
        return self.mix(self.embed_tokens(input_ids))


class SharedForGeneration(PreTrainedModel):
    """One table for encoder, decoder and head, each with a config of its own, as T5 has it."""

    config_class = SharedConfig
    _tied_weights_keys = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]

    def __init__(self, config):
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.hidden_size)
        self.encoder = Stack(copy.deepcopy(config), nn.Embedding(config.vocab_size, config.hidden_size))
        self.decoder = Stack(copy.deepcopy(config), nn.Embedding(config.vocab_size, config.hidden_size))
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _tie_weights(self):
        self._tie_or_clone_weights(self.encoder.embed_tokens, self.shared)
        self._tie_or_clone_weights(self.decoder.embed_tokens, self.shared)

    def get_input_embeddings(self):
        return self.shared

    def set_input_embeddings(self, value):
        self.shared = value
        self.encoder.embed_tokens = value
        self.decoder.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids):
        return self.lm_head(self.encoder(input_ids) + self.decoder(input_ids))


class OnlyGet(tp.OldPreTrainedModel):
    """Says where its embeddings are and nothing else; keeps the size in an attribute."""

    def __init__(self, config):
        super().__init__(config)
        self.vocab_size = config.vocab_size
        self.table = nn.Embedding(config.vocab_size, config.width)
        self.post_init()

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids):
        return self.table(input_ids)


class TransposedHead(nn.Module):
    """A weight laid out as (hidden, vocab)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


class OldWithHead(tp.OldPreTrainedModel):
    """An untied head with a bias, of either layout."""

    def __init__(self, config, transposed=False):
        super().__init__(config)
        self.backbone = tp.OldModel(config)
        kind = TransposedHead if transposed else lambda nf, nx: nn.Linear(nx, nf)
        self.head = kind(config.vocab_size, config.width)
        self.post_init()

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids):
        return self.head(self.backbone(input_ids))


def shaken(model):
    """The model with biases and all away from their initial values."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


BUILDERS = {
    "old-tied": lambda: tp.OldForCausalLM(tp.OldConfig()),
    "old-untied": lambda: tp.OldForCausalLM(tp.OldConfig(tie_word_embeddings=False)),
    "new-tied": lambda: tp.NewForCausalLM(tp.NewConfig()),
    "new-untied": lambda: tp.NewForCausalLM(tp.NewConfig(tie_word_embeddings=False)),
    "shared": lambda: SharedForGeneration(SharedConfig()),
    "only-get": lambda: OnlyGet(tp.OldConfig()),
    "untied-bias": lambda: OldWithHead(tp.OldConfig(tie_word_embeddings=False)),
    "transposed": lambda: OldWithHead(tp.OldConfig(tie_word_embeddings=False), transposed=True),
    "bert": lambda: BertForMaskedLM(tiny_bert(vocab_size=31)),
    "bert-untied": lambda: BertForPreTraining(tiny_bert(vocab_size=31, tie_word_embeddings=False)),
    "llama-untied": lambda: LlamaForCausalLM(tiny_llama(vocab_size=31)),
    "llama-tied": lambda: LlamaForCausalLM(tiny_llama(vocab_size=31, tie_word_embeddings=True)),
}


def logits_of(model):
    with torch.no_grad():
        output = model(IDS)
    if isinstance(output, torch.Tensor):
        return output
    return output.prediction_logits if "prediction_logits" in output else output.logits


def places_of(model, size):
    """Names of the parameters with an axis of that size."""
    return {name for name, p in model.named_parameters(remove_duplicate=False) if size in p.shape}


@pytest.mark.parametrize("mean_resizing", [True, False], ids=["mean", "init"])
@pytest.mark.parametrize("size", [45, 32, 31])
@pytest.mark.parametrize("name", BUILDERS)
def test_growing_keeps_what_was_there_and_ties(name, size, mean_resizing):
    model = shaken(BUILDERS[name]())
    before, logits, sized = copy.deepcopy(model.state_dict()), logits_of(model), places_of(model, 31)
    ties = {
        tuple(sorted(n for n, q in model.named_parameters(remove_duplicate=False) if q is p))
        for p in model.parameters()
    }
    layer = model.get_input_embeddings()
    result = model.resize_token_embeddings(size, mean_resizing=mean_resizing)
    assert result is layer is model.get_input_embeddings()
    assert layer.num_embeddings == layer.weight.shape[0] == size
    assert model.config.vocab_size == model.vocab_size == size
    assert places_of(model, size) == sized, "every place of the old size, and no other, has the new one"
    for key, tensor in model.state_dict().items():
        kept = tensor
        for axis, length in enumerate(before[key].shape):
            kept = kept.narrow(axis, 0, length)
        assert torch.equal(kept, before[key]), key
        assert torch.isfinite(tensor).all()
    assert ties == {
        tuple(sorted(n for n, q in model.named_parameters(remove_duplicate=False) if q is p))
        for p in model.parameters()
    }
    new = logits_of(model)
    assert torch.allclose(new[..., : logits.shape[-1]], logits, atol=1e-6)
    if name != "only-get":
        assert new.shape[-1] == size
        head = model.get_output_embeddings()
        assert getattr(head, "out_features", getattr(head, "nf", None)) == size
    with torch.no_grad():  # the new ones can be used
        assert torch.isfinite(model(torch.tensor([[size - 1, 3]]))[0]).all()


def test_rows_that_nothing_initialises_are_drawn_and_named(caplog, monkeypatch):
    model, empty = BUILDERS["transposed"](), torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: empty(*args, **kwargs).fill_(7e30))
    model.resize_token_embeddings(40, mean_resizing=False)
    assert 0.01 < model.head.weight[:, 31:].std() < 0.03
    assert not model.head.bias[31:].any()
    assert "new rows of TransposedHead.weight: nothing initialises it; drawn from a normal" in caplog.text


@pytest.mark.parametrize("name", BUILDERS)
def test_shrinking_truncates_and_lets_the_old_memory_go(name):
    model = shaken(BUILDERS[name]())
    logits = logits_of(model)
    ids = IDS.clamp(max=19)
    expected = model.get_input_embeddings().weight[:20].detach().clone()
    old = weakref.ref(model.get_input_embeddings().weight)
    storage = weakref.ref(model.get_input_embeddings().weight.untyped_storage())
    model.resize_token_embeddings(20)
    assert old() is None and storage() is None
    weight = model.get_input_embeddings().weight
    assert torch.equal(weight, expected) and weight.untyped_storage().nbytes() == weight.numel() * 4
    assert not places_of(model, 31) and model.config.vocab_size == 20
    assert logits is not None and torch.isfinite(model(ids)[0]).all()


@pytest.mark.parametrize("name", sorted(set(BUILDERS) - {"transposed"}))
def test_save_and_load_keep_the_size(name, tmp_path):
    model = shaken(BUILDERS[name]())
    model.resize_token_embeddings(40)
    model.save_pretrained(tmp_path)
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == [] and report["unexpected_keys"] == [] and report["mismatched_keys"] == []
    assert loaded.config.vocab_size == 40
    assert torch.allclose(logits_of(loaded), logits_of(model), atol=1e-6)


def test_a_mapped_embedding_is_resized_and_the_file_stays_as_it_was(tmp_path):
    model = shaken(BUILDERS["llama-tied"]())
    model.save_pretrained(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    loaded, report = LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert report["bytes_mapped"]
    loaded.resize_token_embeddings(50)
    with torch.no_grad():
        loaded.get_input_embeddings().weight.fill_(1.0)
    assert (tmp_path / "model.safetensors").read_bytes() == content
    loaded.save_pretrained(tmp_path)
    assert LlamaForCausalLM.from_pretrained(tmp_path).lm_head.weight.shape == (50, 24)


class TestNewRows:
    def old(self, rows=400, features=6):
        torch.manual_seed(0)
        return torch.randn(rows, features) @ torch.randn(features, features) + 5 * torch.randn(features)

    @pytest.mark.parametrize("few", [0, 2**22], ids=["together", "apart"])
    def test_mean_and_covariance_are_those_of_the_old_rows(self, few, monkeypatch):
        monkeypatch.setattr(new_rows, "_FEW", few)
        old = self.old().double()
        draws = torch.cat([drawn_like(old, 500) for _ in range(60)])
        centred = old - old.mean(0)
        expected = centred.T @ centred / len(old)
        deviations = (draws - old.mean(0)) / 1e-9**0.5
        found = deviations.T @ deviations / len(draws)
        # 30,000 draws: an entry of a sample covariance is off by sqrt(2 / 30000) of the variances, under a hundredth
        assert (found - expected).abs().max() < 0.06 * expected.abs().max()
        assert (deviations.mean(0).abs() < 0.06 * expected.diag().sqrt()).all()
        normal = deviations[:, 0] / expected[0, 0].sqrt()
        assert normal.pow(4).mean() == pytest.approx(3, abs=0.3)  # as of a normal distribution

    @pytest.mark.parametrize("few", [0, 2**22], ids=["together", "apart"])
    def test_rows_are_uncorrelated(self, few, monkeypatch):
        monkeypatch.setattr(new_rows, "_FEW", few)
        old = self.old(3000, 4).double()
        draws = (torch.stack([drawn_like(old, 5) for _ in range(800)]) - old.mean(0)) / 1e-9**0.5
        standard = draws / (old - old.mean(0)).square().mean(0).sqrt()
        products = torch.einsum("tif,tjf->ijf", standard, standard) / len(draws)
        off = products[~torch.eye(5, dtype=torch.bool)]
        assert off.abs().max() < 0.18  # 1 / sqrt(800) is 0.035

    def test_more_rows_than_there_were_and_fewer_rows_than_features(self):
        old = torch.randn(3, 50)
        draws = drawn_like(old, 5000)
        assert draws.shape == (5000, 50) and torch.isfinite(draws).all()
        assert torch.allclose(draws, old.mean(0).expand_as(draws), atol=1e-3)
        assert draws.std(0).min() > 0

    def test_every_bucket_and_every_row_counts(self, monkeypatch):
        """With z all ones and no turn, row 0 of the sum is the sum of all old rows."""
        old = self.old(2500, 3)
        monkeypatch.setattr(torch, "randn", lambda *shape, dtype, device: torch.ones(*shape, dtype=dtype))
        mixed, weights, mean = new_rows._mixed_together(old, 7)
        assert mixed.shape == (7, 3) and weights.tolist()[0] == 2500
        assert torch.allclose(mixed[0], old.sum(0), rtol=1e-4) and torch.allclose(mean, old.mean(0), rtol=1e-4)

    def test_half_precision_stays_and_is_computed_in_float32(self):
        model = LlamaForCausalLM(tiny_llama(vocab_size=31)).to(torch.bfloat16)
        mean = model.get_input_embeddings().weight.float().mean(0)
        model.resize_token_embeddings(33)
        weight = model.get_input_embeddings().weight
        assert weight.dtype == torch.bfloat16
        assert torch.allclose(weight[32].float(), mean, rtol=2**-7, atol=1e-3)

    def test_new_rows_are_near_the_mean_and_the_bias_is_the_mean(self):
        model = shaken(BUILDERS["untied-bias"]())
        old = (model.head.bias, model.head.weight, model.backbone.embed.weight)
        bias, head, table = (parameter.detach().clone() for parameter in old)
        model.resize_token_embeddings(35)
        for new, old in ((model.head.weight, head), (model.backbone.embed.weight, table)):
            assert torch.allclose(new[31:], old.mean(0).expand(4, -1), atol=1e-3)
            assert not torch.equal(new[31], new[32])
        assert torch.allclose(model.head.bias[31:], bias.mean().expand(4))

    def test_without_mean_resizing_init_weights_gives_the_rows(self):
        model = shaken(BUILDERS["untied-bias"]())
        model.backbone.embed.padding_idx = 0
        model.resize_token_embeddings(1031, mean_resizing=False)
        # the classes' _init_weights: standard deviation 0.5, biases 0.25, and no padding among the new ones
        assert model.backbone.embed.weight[31:].detach().std() == pytest.approx(0.5, rel=0.1)
        assert model.head.weight[31:].detach().std() == pytest.approx(0.5, rel=0.1)
        assert torch.equal(model.head.bias[31:], torch.full((1000,), 0.25))
        assert model.backbone.embed.weight[31].abs().min() > 0 and model.backbone.embed.padding_idx == 0


class TestSettings:
    def test_requires_grad_dtype_and_notes_stay(self):
        model = BUILDERS["old-untied"]().double()
        model.get_input_embeddings().weight.requires_grad_(False)
        model.get_input_embeddings().weight.note = "kept"
        model.resize_token_embeddings(40)
        weight = model.get_input_embeddings().weight
        assert not weight.requires_grad and weight.dtype == torch.float64 and weight.note == "kept"
        assert isinstance(weight, nn.Parameter) and model.lm_head.weight.requires_grad

    def test_hooks_and_the_kind_of_layer_stay(self):
        class Scaled(nn.Embedding):
            def forward(self, ids):
                return 2 * super().forward(ids)

        model = BUILDERS["old-tied"]()
        model.backbone.embed = Scaled(31, 8)
        seen = []
        model.backbone.embed.register_forward_hook(lambda *given: seen.append(1))
        model.tie_weights()
        model.resize_token_embeddings(33)
        assert type(model.get_input_embeddings()) is Scaled
        model(IDS)
        assert seen == [1]

    def test_padding_beyond_the_end_is_no_longer_one(self):
        model = tp.OldModel(tp.OldConfig(pad_token_id=30))
        model.resize_token_embeddings(31)
        assert model.embed.padding_idx == 30
        model.resize_token_embeddings(30)
        assert model.embed.padding_idx is None

    def test_sub_configs_that_had_the_number_follow(self):
        model = BUILDERS["shared"]()
        other = model.decoder.config
        other.text_config = SharedConfig(vocab_size=31)
        other.speech_config = SharedConfig(vocab_size=12)
        model.resize_token_embeddings(36)
        assert model.encoder.config.vocab_size == other.vocab_size == other.text_config.vocab_size == 36
        assert other.speech_config.vocab_size == 12

    def test_the_text_config_of_a_composite_has_the_size_even_if_it_had_another(self):
        model = BUILDERS["only-get"]()
        model.config.text_config = tp.OldConfig(vocab_size=29)
        model.resize_token_embeddings(36)
        assert model.config.text_config.vocab_size == model.config.vocab_size == 36

    def test_on_the_meta_device_only_shapes_change(self):
        model = BUILDERS["bert"]().to("meta")
        model.resize_token_embeddings(40)
        assert model.cls.predictions.bias.shape == (40,) and model.cls.predictions.decoder.weight.is_meta
        assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight

    def test_padding_to_a_multiple(self):
        model = BUILDERS["bert"]()
        assert model.resize_token_embeddings(pad_to_multiple_of=8).num_embeddings == 32
        assert model.resize_token_embeddings(33, pad_to_multiple_of=16).num_embeddings == 48
        assert model.resize_token_embeddings(48, 16).num_embeddings == 48 == model.config.vocab_size

    def test_nothing_asked_changes_nothing(self):
        model = BUILDERS["bert"]()
        weight = model.get_input_embeddings().weight
        assert model.resize_token_embeddings() is model.get_input_embeddings()
        assert model.get_input_embeddings().weight is weight

    def test_a_bert_bias_has_one_tensor_under_both_names(self):
        model = BUILDERS["bert-untied"]()
        model.resize_token_embeddings(40)
        assert model.cls.predictions.bias is model.cls.predictions.decoder.bias
        assert model.cls.predictions.bias.shape == (40,)

    @pytest.mark.parametrize("base", [BertModel], ids=["bert"])
    def test_a_model_without_head(self, base):
        model = base(tiny_bert(vocab_size=31))
        assert model.get_output_embeddings() is None
        assert model.resize_token_embeddings(40).weight.shape == (40, 24)

    def test_it_trains_afterwards(self):
        model = shaken(BUILDERS["bert"]()).train()
        model(IDS, labels=IDS).loss.backward()
        model.resize_token_embeddings(40)
        model(IDS + 8, labels=IDS + 8).loss.backward()
        assert model.get_input_embeddings().weight.grad.shape == (40, 24)


class TestErrors:
    @pytest.mark.parametrize("size", [-1, 0, 3.0, "12", True, torch.tensor(3)])
    def test_sizes_that_are_none(self, size):
        with pytest.raises(InvalidOptionError, match=r"new_num_tokens must be a positive integer, found") as caught:
            BUILDERS["bert"]().resize_token_embeddings(size)
        assert caught.value.key == "new_num_tokens"

    @pytest.mark.parametrize("multiple", [0, -8, 8.0, "8"])
    def test_multiples_that_are_none(self, multiple):
        model = BUILDERS["bert"]()
        with pytest.raises(InvalidOptionError, match=r"pad_to_multiple_of must be a positive integer, found"):
            model.resize_token_embeddings(40, pad_to_multiple_of=multiple)
        assert model.get_input_embeddings().num_embeddings == 31 == model.config.vocab_size

    def test_an_embedding_of_another_kind(self):
        model = BUILDERS["only-get"]()
        model.table = nn.Linear(8, 31)
        with pytest.raises(OptionError, match=r"of type Linear, which is no torch\.nn\.Embedding .*override"):
            model.resize_token_embeddings(40)
        with pytest.raises(TypeError):
            model.resize_token_embeddings(40)

    def test_a_head_of_another_kind_changes_nothing(self):
        model = BUILDERS["untied-bias"]()
        model.head = nn.Sequential(nn.Linear(8, 31))
        with pytest.raises(OptionError, match=r"output embeddings are of type Sequential, .*two axes"):
            model.resize_token_embeddings(40)
        assert model.backbone.embed.num_embeddings == 31 == model.config.vocab_size

    def test_a_class_without_token_embeddings(self):
        model = tp.PeekingModel(tp.OldConfig())
        with pytest.raises(NotImplementedError, match="PeekingModel defines no get_input_embeddings"):
            model.resize_token_embeddings(40)


class TestOverridden:
    def test_a_hook_of_an_older_release_is_called(self):
        class Own(tp.OldForCausalLM):
            def _resize_token_embeddings(self, new_num_tokens, pad_to_multiple_of=None):
                new = self._get_resized_embeddings(self.get_input_embeddings(), new_num_tokens, pad_to_multiple_of)
                self.set_input_embeddings(new)
                self.set_output_embeddings(self._get_resized_lm_head(self.lm_head, new_num_tokens))
                self.resized = True
                return self.get_input_embeddings()

        model = Own(tp.OldConfig(tie_word_embeddings=False))
        assert model.resize_token_embeddings(40, pad_to_multiple_of=7).num_embeddings == 42
        assert model.resized and model.lm_head.out_features == 42 and model.config.vocab_size == 42

    def test_a_method_that_adds_to_ours(self):
        class WithBias(tp.OldForCausalLM):
            def __init__(self, config):
                super().__init__(config)
                self.register_buffer("final_logits_bias", torch.zeros(1, config.vocab_size))

            def resize_token_embeddings(self, new_num_tokens=None, pad_to_multiple_of=None, mean_resizing=True):
                layer = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
                self.register_buffer("final_logits_bias", torch.zeros(1, layer.weight.shape[0]))
                return layer

        model = WithBias(tp.OldConfig())
        model.resize_token_embeddings(40)
        assert model.final_logits_bias.shape == (1, 40)

    def test_a_loose_layer_is_resized_in_place(self):
        layer, model = nn.Embedding(5, 3), BUILDERS["old-tied"]()
        assert model._get_resized_embeddings(layer) is layer and layer.num_embeddings == 5
        assert model._get_resized_embeddings(layer, 7) is layer and layer.weight.shape == (7, 3)
        assert model._get_resized_embeddings(layer, pad_to_multiple_of=4).weight.shape == (8, 3)
        head = TransposedHead(5, 3)
        assert model._get_resized_lm_head(head, 6, transposed=True).weight.shape == (3, 6)
        assert head.bias.shape == (6,) and (head.nf, head.nx) == (6, 3)
        assert model._get_resized_lm_head(head) is head


class TestAccess:
    def test_lm_head_is_found_and_set_without_being_declared(self):
        class Bare(PreTrainedModel):
            config_class = tp.NewConfig
            base_model_prefix = "model"

            def __init__(self, config):
                super().__init__(config)
                self.model = tp.NewModel(config)
                self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
                self.post_init()

        model = Bare(tp.NewConfig())
        assert model.get_output_embeddings() is model.lm_head
        assert model.lm_head.weight is not model.get_input_embeddings().weight, "what is not declared is not tied"
        model.resize_token_embeddings(40)
        assert model.lm_head.out_features == 40
        head = nn.Linear(8, 41, bias=False)
        model.set_output_embeddings(head)
        assert model.lm_head is head

    def test_a_head_over_sounds_is_no_output_embedding(self):
        class Speech(tp.OldPreTrainedModel):
            def __init__(self, config):
                super().__init__(config)
                self.lm_head = nn.Linear(8, 8)
                self.post_init()

        assert Speech(tp.OldConfig()).get_output_embeddings() is None

    def test_no_head_to_set(self):
        with pytest.raises(NotImplementedError, match="OldModel has no output embeddings"):
            tp.OldModel(tp.OldConfig()).set_output_embeddings(nn.Linear(2, 2))


class TestPositions:
    @pytest.mark.parametrize("size", [25, 20, 9])
    def test_bert(self, size, tmp_path):
        model = shaken(BUILDERS["bert"]())
        before = model.get_position_embeddings().weight.detach().clone()
        logits = logits_of(model)
        model.resize_position_embeddings(size)
        table = model.get_position_embeddings()
        assert table is model.bert.embeddings.position_embeddings
        assert table.weight.shape == (size, 24) and table.num_embeddings == size
        assert torch.equal(table.weight[:20], before[:size]) and torch.equal(logits_of(model), logits)
        assert model.config.max_position_embeddings == model.bert.config.max_position_embeddings == size
        if size > 20:  # drawn by _init_weights, whose standard deviation is 0.15
            assert 0.05 < table.weight[20:].std() < 0.25
        model(torch.ones(1, size, dtype=torch.long))
        with pytest.raises(ValueError, match=f"max_position_embeddings={size}"):
            model(torch.ones(1, size + 1, dtype=torch.long))
        model.save_pretrained(tmp_path)
        assert torch.allclose(logits_of(BertForMaskedLM.from_pretrained(tmp_path)), logits, atol=1e-6)

    def test_tables_with_rows_before_the_first_position(self):
        class Offset(tp.OldPreTrainedModel):
            _position_embeddings = "table"

            def __init__(self, config):
                super().__init__(config)
                self.table = nn.Embedding(config.max_position_embeddings + 2, config.width)
                self.post_init()

        model = Offset(tp.OldConfig(max_position_embeddings=10))
        model.resize_position_embeddings(14)
        assert model.table.num_embeddings == 16 and model.config.max_position_embeddings == 14

    @pytest.mark.parametrize("name", ["llama-tied", "old-tied", "new-tied"])
    def test_models_without_a_table(self, name):
        model = BUILDERS[name]()
        for call in (model.get_position_embeddings, lambda: model.resize_position_embeddings(5)):
            with pytest.raises(NotImplementedError, match="has no table of absolute positions"):
                call()

    def test_tables_of_distances(self):
        model = BertModel(tiny_bert(position_embedding_type="relative_key"))
        with pytest.raises(NotImplementedError, match="'relative_key': its table is one of distances"):
            model.resize_position_embeddings(30)

    @pytest.mark.parametrize("size", [0, -3, 2.5])
    def test_sizes_that_are_none(self, size):
        with pytest.raises(InvalidOptionError, match="new_num_position_embeddings must be a positive integer"):
            BUILDERS["bert"]().resize_position_embeddings(size)


def test_import_paths():
    from pretrained import find_pruneable_heads_and_indices, modeling_utils

    assert pytorch_utils.find_pruneable_heads_and_indices is find_pruneable_heads_and_indices
    assert modeling_utils.prune_linear_layer is pytorch_utils.prune_linear_layer
