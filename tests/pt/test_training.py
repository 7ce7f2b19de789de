"""Checkpointing of activations, gradients at the inputs, the word about padding, and what a model says of itself."""

from __future__ import annotations

import copy
import itertools
import pickle
import sys
from types import SimpleNamespace

import pytest
import torch
from tests.models.tiny import tiny_bert, tiny_llama
from tests.pt import third_party as tp
from torch import nn
from torch.utils.checkpoint import checkpoint

from pretrained import (
    BertForMaskedLM,
    BertLMHeadModel,
    BertModel,
    InvalidOptionError,
    LlamaForCausalLM,
    LlamaModel,
    MissingFrameworkError,
    OptionError,
)

IDS = torch.tensor([[1, 5, 9, 30, 2], [4, 4, 8, 7, 3]])


def bert(**changes):
    torch.manual_seed(7)
    return BertForMaskedLM(tiny_bert(attn_implementation="sdpa", **changes))


def decoder(**changes):
    torch.manual_seed(7)
    return BertLMHeadModel(tiny_bert(is_decoder=True, add_cross_attention=True, **changes))


def llama(**changes):
    torch.manual_seed(7)
    return LlamaForCausalLM(tiny_llama(**changes))


class OldStyle(tp.OldPreTrainedModel):
    """The hook of releases before 4.35; the loop checkpoints by itself."""

    supports_gradient_checkpointing = True

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(tp.OldBlock(config, 0.0) for _ in range(config.depth))
        self.gradient_checkpointing = False
        self.post_init()

    def _set_gradient_checkpointing(self, module, value=False):
        if isinstance(module, OldStyle):
            module.gradient_checkpointing = value

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for block in self.blocks:
            if self.gradient_checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


class NewStyle(OldStyle):
    """A flag, and a function that the facade gives."""

    _set_gradient_checkpointing = tp.PreTrainedModel._set_gradient_checkpointing

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for block in self.blocks:
            if self.gradient_checkpointing and self.training:
                x = self._gradient_checkpointing_func(block.__call__, x)
            else:
                x = block(x)
        return x


def loss_of(model):
    torch.manual_seed(11)  # for dropout
    if isinstance(model, OldStyle):
        return model(IDS).square().sum()
    if isinstance(model, BertLMHeadModel):
        return model(IDS, labels=IDS, encoder_hidden_states=torch.linspace(-1, 1, 144).view(2, 3, 24)).loss
    return model(IDS, labels=IDS).loss


def gradients(model):
    model.zero_grad()
    loss_of(model).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def saved_bytes(model):
    """Bytes that a forward pass leaves for the backward pass."""
    total = 0

    def pack(tensor):
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(model)
    return total


MODELS = {
    "bert": bert,
    "decoder": decoder,
    "llama": llama,
    "old-style": lambda: OldStyle(tp.OldConfig()),
    "new-style": lambda: NewStyle(tp.OldConfig()),
}


class TestCheckpointing:
    @pytest.mark.parametrize(
        "settings", [None, {"use_reentrant": False}, {"use_reentrant": True}, {"preserve_rng_state": True}]
    )
    @pytest.mark.parametrize("name", MODELS)
    def test_gradients_are_the_same(self, name, settings):
        model = MODELS[name]().train()
        expected = gradients(model)
        assert not model.is_gradient_checkpointing
        model.gradient_checkpointing_enable(settings)
        assert model.is_gradient_checkpointing
        found = gradients(model)
        assert found.keys() == expected.keys()
        for key, gradient in expected.items():
            assert torch.allclose(found[key], gradient, atol=1e-6), key
        model.gradient_checkpointing_disable()
        assert not model.is_gradient_checkpointing
        assert all(torch.equal(gradient, expected[key]) for key, gradient in gradients(model).items())

    @pytest.mark.parametrize("name", MODELS)
    def test_less_is_kept(self, name):
        model = MODELS[name]().train()
        before = saved_bytes(model)
        model.gradient_checkpointing_enable()
        assert saved_bytes(model) < 0.8 * before
        model.eval()
        assert saved_bytes(model) >= 0.8 * before or name in ("bert", "decoder"), "only training is checkpointed"

    @pytest.mark.parametrize("name", ["bert", "llama"])
    def test_more_layers_cost_only_their_inputs(self, name):
        def kept(depth, is_on):
            model = MODELS[name](num_hidden_layers=depth).train()
            if is_on:
                model.gradient_checkpointing_enable()
            return saved_bytes(model)

        a_layer, checkpointed = kept(5, False) - kept(4, False), kept(5, True) - kept(4, True)
        states = 2 * 5 * 24 * 4
        assert checkpointed < 4 * states < a_layer / 4

    @pytest.mark.parametrize("name", ["decoder", "llama"])
    def test_no_cache_in_training_with_one_warning(self, name, caplog):
        model = MODELS[name]().train()
        inputs = {"encoder_hidden_states": torch.zeros(2, 3, 24)} if name == "decoder" else {}
        assert model(IDS, **inputs).past_key_values is not None
        model.gradient_checkpointing_enable()
        for _ in range(2):
            assert model(IDS, use_cache=True, **inputs).past_key_values is None
        assert caplog.text.count("use_cache=True does not go with gradient checkpointing") == 1
        assert model.eval()(IDS, **inputs).past_key_values is not None

    def test_a_past_that_is_given_is_used_and_not_written_twice(self):
        model = llama(attention_dropout=0.0).train()
        with torch.no_grad():
            past = model(IDS[:, :2]).past_key_values
        expected = model(IDS[:, 2:], past_key_values=past.to_legacy(), labels=IDS[:, 2:])
        expected.loss.backward()
        gradient = model.lm_head.weight.grad.clone()
        model.zero_grad()
        model.gradient_checkpointing_enable()
        found = model(IDS[:, 2:], past_key_values=past.to_legacy(), labels=IDS[:, 2:])
        found.loss.backward()
        assert torch.allclose(found.logits, expected.logits, atol=1e-6)
        assert torch.allclose(model.lm_head.weight.grad, gradient, atol=1e-6)

    def test_what_was_asked_for_is_still_returned(self):
        model = bert().train()
        model.gradient_checkpointing_enable()
        output = model(IDS, output_attentions=True, output_hidden_states=True)
        assert len(output.attentions) == 2 and len(output.hidden_states) == 3

    def test_settings_reach_torch(self):
        seen = []

        def context():
            seen.append(1)
            return torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t), torch.enable_grad()

        model = bert().train()
        model.gradient_checkpointing_enable({"context_fn": context})
        model(IDS, labels=IDS).loss.backward()
        assert len(seen) == 2

    def test_a_model_with_it_can_be_copied_and_pickled(self):
        model = bert().train()
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert other.is_gradient_checkpointing and gradients(other)

    def test_classes_without_it(self):
        model = tp.OldModel(tp.OldConfig())
        with pytest.raises(InvalidOptionError, match="OldModel does not support gradient checkpointing"):
            model.gradient_checkpointing_enable()
        model.gradient_checkpointing_disable()
        assert not model.is_gradient_checkpointing

    def test_a_class_that_claims_it(self):
        class Claims(tp.OldModel):
            supports_gradient_checkpointing = True

        with pytest.raises(InvalidOptionError, match=r"Claims says that it supports .* no module of it has a boolean"):
            Claims(tp.OldConfig()).gradient_checkpointing_enable()

    def test_settings_that_torch_has_not(self):
        with pytest.raises(
            OptionError, match=r"gradient_checkpointing_kwargs has no 'use_reentrnt'; .*use_reentrant"
        ) as caught:
            bert().gradient_checkpointing_enable({"use_reentrnt": False})
        assert caught.value.key == "use_reentrnt"

    def test_settings_of_an_old_class_are_not_used(self, caplog):
        model = OldStyle(tp.OldConfig())
        model.gradient_checkpointing_enable({"use_reentrant": True})
        assert "OldStyle checkpoints by itself: settings are not used" in caplog.text

    def test_a_hook_of_the_newer_kind_is_called_with_its_names(self):
        calls = []

        class Own(NewStyle):
            def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=None):
                calls.append((enable, gradient_checkpointing_func))

        model = Own(tp.OldConfig())
        model.gradient_checkpointing_enable({"use_reentrant": True})
        model.gradient_checkpointing_disable()
        assert calls[0][0] is True and calls[0][1].keywords == {"use_reentrant": True} and calls[1] == (False, None)


class TestInputGradients:
    def test_frozen_embeddings_give_a_gradient_and_then_not(self):
        model = llama()
        model.requires_grad_(False)
        assert not model(IDS).logits.requires_grad
        model.enable_input_require_grads()
        model.enable_input_require_grads()  # again, and still one hook
        assert model(IDS).logits.requires_grad
        assert len(model.get_input_embeddings()._forward_hooks) == 1
        model.disable_input_require_grads()
        assert not model(IDS).logits.requires_grad
        model.disable_input_require_grads()

    def test_adapters_train_through_reentrant_checkpoints(self):
        model = llama().train()
        model.requires_grad_(False)
        model.model.layers[0].mlp.up_proj.weight.requires_grad_(True)
        model._hf_peft_config_loaded = True
        model.gradient_checkpointing_enable({"use_reentrant": True})
        model(IDS, labels=IDS).loss.backward()
        assert model.model.layers[0].mlp.up_proj.weight.grad.abs().max() > 0
        model.gradient_checkpointing_disable()
        assert not model.get_input_embeddings()._forward_hooks

    def test_the_hook_survives_a_resize(self):
        model = bert()
        model.requires_grad_(False)
        model.enable_input_require_grads()
        model.resize_token_embeddings(80)
        assert model(IDS).logits.requires_grad


class TestPadding:
    PADDED = torch.tensor([[5, 6, 0, 0], [5, 6, 7, 8]])

    @pytest.mark.parametrize("ids", [PADDED, PADDED.flip(1), PADDED[:1]])
    def test_one_warning(self, ids, caplog):
        model = llama()
        for _ in range(3):
            model.warn_if_padding_and_no_attention_mask(ids, None)
        assert caplog.text.count("input_ids begin or end with pad_token_id=0 and there is no attention_mask") == 1
        other = llama()
        other.warn_if_padding_and_no_attention_mask(ids, None)
        assert caplog.text.count("pad_token_id=0") == 2, "another model has not warned yet"

    def test_no_warning(self, caplog):
        model = llama()
        model.warn_if_padding_and_no_attention_mask(self.PADDED, torch.ones(2, 4))
        model.warn_if_padding_and_no_attention_mask(torch.tensor([[1, 0, 2]]), None)
        model.warn_if_padding_and_no_attention_mask(None, None)
        model.warn_if_padding_and_no_attention_mask(torch.zeros(0, 3, dtype=torch.long), None)
        model.warn_if_padding_and_no_attention_mask(self.PADDED.to("meta"), None)
        llama(pad_token_id=None).warn_if_padding_and_no_attention_mask(self.PADDED, None)
        assert caplog.text == ""

    def test_other_tokens_of_the_same_id_are_named(self, caplog):
        llama(pad_token_id=2).warn_if_padding_and_no_attention_mask(torch.tensor([[2, 3]]), None)
        assert "(if it is padding: eos_token_id is the same)" in caplog.text

    def test_lists_of_tokens(self, caplog):
        model = llama()
        model.config.pad_token_id = [58, 59]
        model.warn_if_padding_and_no_attention_mask(torch.tensor([[2, 59]]), None)
        assert "pad_token_id=[58, 59]" in caplog.text

    def test_bert_says_so_in_its_forward_pass(self, caplog):
        model = BertModel(tiny_bert()).eval()
        model(self.PADDED, attention_mask=torch.ones(2, 4))
        assert caplog.text == ""
        model(self.PADDED)
        assert "there is no attention_mask" in caplog.text

    def test_not_while_a_graph_is_recorded(self, caplog):
        model = llama()

        class Asking(nn.Module):
            def forward(self, ids):
                model.warn_if_padding_and_no_attention_mask(ids, None)
                return ids + 1

        torch.compile(Asking(), backend="eager", fullgraph=True)(self.PADDED)
        assert "padding is read as" not in caplog.text


class TestMemoryHooks:
    def test_growth_is_noted_and_reset(self, monkeypatch):
        sizes = itertools.count(1000, 10)  # the process grows by 10 bytes whenever somebody looks
        process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=next(sizes)))
        monkeypatch.setitem(sys.modules, "psutil", SimpleNamespace(Process=lambda: process))
        model = tp.NewModel(tp.NewConfig())  # itself, an embedding and two layers
        model.add_memory_hooks()
        assert model.mem_rss_diff == model.mem_rss_pre_forward == model.mem_rss_post_forward == 0
        start = next(sizes)
        model(IDS)
        assert (model.mem_rss_pre_forward, model.mem_rss_post_forward) == (start + 10, start + 80)
        assert model.layers[0].mem_rss_pre_forward == start + 40 and model.layers[0].mem_rss_diff == 10
        model(IDS)
        assert model.mem_rss_diff == 140 and model.layers[1].mem_rss_diff == 20
        model.reset_memory_hooks_state()
        assert all(module.mem_rss_diff == module.mem_rss_post_forward == 0 for module in model.modules())

    def test_without_psutil(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "psutil", None)
        with pytest.raises(MissingFrameworkError, match=r"memory hooks need psutil.*pip install psutil"):
            bert().add_memory_hooks()


class TestNames:
    def test_modules_of_names(self):
        model = llama()
        names = ["model.layers.0.mlp.up_proj.weight", "lm_head.weight", "model.norm.weight"]
        found = model.retrieve_modules_from_names(names)
        assert found == [model.model.layers[0].mlp.up_proj, model.model.norm, model.lm_head]

    def test_with_and_without_the_prefix(self):
        model = llama()
        assert model.retrieve_modules_from_names(["norm.weight"]) == []
        assert model.retrieve_modules_from_names(["norm.weight"], remove_prefix=True) == [model.model.norm]
        base = LlamaModel(tiny_llama())
        assert base.retrieve_modules_from_names(["model.norm.weight"], add_prefix=True) == [base.norm]
        assert base.retrieve_modules_from_names(["model.x"], add_prefix=True) == [base]

    def test_lists_of_parameters_count_with_what_holds_them(self):
        model = tp.OddLayersModel(tp.OldConfig())
        assert model.retrieve_modules_from_names(["extra.0"]) == [model, model.extra]

    def test_parameter_or_buffer(self):
        model = tp.OldModel(tp.OldConfig())
        assert model.get_parameter_or_buffer("embed.weight") is model.embed.weight
        assert model.get_parameter_or_buffer("blocks.0.running") is model.blocks[0].running
        assert model.get_parameter_or_buffer("position") is model.position
        with pytest.raises(AttributeError, match=r"OldModel has no parameter or buffer 'embed\.bias'"):
            model.get_parameter_or_buffer("embed.bias")
        with pytest.raises(AttributeError):
            model.get_parameter_or_buffer("nowhere.weight")

    def test_tags(self):
        model, other = llama(), llama()
        model.add_model_tags("a")
        model.add_model_tags(["b", "a"])
        assert model.model_tags == ["a", "b"] and other.model_tags is None

    def test_operations(self, caplog):
        model = llama(tie_word_embeddings=False)
        embeddings = 61 * 24
        assert model.floating_point_ops({"input_ids": IDS}) == 6 * 10 * (model.num_parameters() - embeddings)
        assert model.floating_point_ops({"input_ids": IDS}, exclude_embeddings=False) == 60 * model.num_parameters()
        assert model.floating_point_ops({}) == model.floating_point_ops({}) == 0
        assert caplog.text.count("the batch has no 'input_ids'") == 1
