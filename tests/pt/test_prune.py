"""Attention heads taken out of models: what is left computes what the whole did with these heads masked."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from tests.models.tiny import tiny_bert, tiny_llama
from torch import nn

from pretrained import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    ConfigError,
    InvalidOptionError,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from pretrained.pt import heads as pruning
from pretrained.pytorch_utils import (
    find_pruneable_heads_and_indices,
    prune_conv1d_layer,
    prune_layer,
    prune_linear_layer,
)

IDS = torch.tensor([[1, 5, 9, 30, 2], [4, 4, 8, 7, 3]])


def bert(cls=BertForMaskedLM, **changes):
    torch.manual_seed(5)
    return cls(tiny_bert(**changes)).eval()


def run(model, **inputs):
    with torch.no_grad():
        return model(IDS, **inputs)


class Conv1D(nn.Module):
    """A linear layer with its weight the other way round."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


class ThirdConfig(PretrainedConfig):
    model_type = "third-party-pruned"
    attribute_map = {"num_attention_heads": "n_head", "num_hidden_layers": "n_layer"}
    hidden_size: int = 12
    n_head: int = 4
    n_layer: int = 2


class LinearAttention(nn.Module):
    """As people write it for transformers: it prunes by itself, with the functions of pytorch_utils."""

    def __init__(self, config):
        super().__init__()
        self.n_heads, self.size = config.n_head, config.hidden_size // config.n_head
        self.q, self.k, self.v = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(3))
        self.out = nn.Linear(config.hidden_size, config.hidden_size)
        self.pruned_heads = set()

    def prune_heads(self, heads):
        if len(heads) == 0:
            return
        heads, index = find_pruneable_heads_and_indices(heads, self.n_heads, self.size, self.pruned_heads)
        self.q = prune_linear_layer(self.q, index)
        self.k = prune_linear_layer(self.k, index)
        self.v = prune_linear_layer(self.v, index)
        self.out = prune_linear_layer(self.out, index, dim=1)
        self.n_heads = self.n_heads - len(heads)
        self.pruned_heads = self.pruned_heads.union(heads)

    def forward(self, x, mask=None):
        q, k, v = (layer(x).view(*x.shape[:2], self.n_heads, self.size).transpose(1, 2) for layer in self.qkv())
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        if mask is not None:
            weights = weights * mask[None, :, None, None]
        return x + self.out((weights @ v).transpose(1, 2).flatten(2))

    def qkv(self):
        return self.q, self.k, self.v


class JointAttention(nn.Module):
    """Queries, keys and values from one Conv1D."""

    def __init__(self, config):
        super().__init__()
        self.num_heads, self.head_dim = config.n_head, config.hidden_size // config.n_head
        self.c_attn = Conv1D(3 * config.hidden_size, config.hidden_size)
        self.c_proj = Conv1D(config.hidden_size, config.hidden_size)
        self.pruned_heads = set()

    def prune_heads(self, heads):
        pruning.prune_conv1ds(self, heads, self.c_attn, self.c_proj)

    def forward(self, x, mask=None):
        parts = self.c_attn(x).split(self.num_heads * self.head_dim, dim=2)
        q, k, v = (part.view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2) for part in parts)
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        if mask is not None:
            weights = weights * mask[None, :, None, None]
        return x + self.c_proj((weights @ v).transpose(1, 2).flatten(2))


class ThirdPreTrained(PreTrainedModel):
    config_class = ThirdConfig
    base_model_prefix = "base"
    kind = LinearAttention

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | Conv1D):
            module.weight.data.normal_(std=0.3)
            module.bias.data.normal_(std=0.3)


class ThirdModel(ThirdPreTrained):
    def __init__(self, config, kind=LinearAttention):
        super().__init__(config)
        self.layers = nn.ModuleList(kind(config) for _ in range(config.n_layer))
        self.post_init()

    def _prune_heads(self, heads_to_prune):
        for layer, heads in heads_to_prune.items():
            self.layers[layer].prune_heads(heads)

    def forward(self, x, head_mask=None):
        for index, layer in enumerate(self.layers):
            x = layer(x, None if head_mask is None else head_mask[index])
        return x


class ThirdWithHead(ThirdPreTrained):
    def __init__(self, config, kind=LinearAttention):
        super().__init__(config)
        self.base = ThirdModel(config, kind)
        self.head = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(self, x, head_mask=None):
        return self.head(self.base(x, head_mask))


class TestBert:
    TABLE = {0: [1, 3], 1: [2]}

    def mask(self, table=None):
        mask = torch.ones(2, 4)
        for layer, heads in (self.TABLE if table is None else table).items():
            mask[layer, heads] = 0
        return mask

    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    @pytest.mark.parametrize("positions", ["absolute", "relative_key_query"])
    def test_the_rest_computes_what_the_masked_whole_did(self, attention, positions):
        model = bert(attn_implementation=attention, position_embedding_type=positions)
        expected = run(model, head_mask=self.mask()).logits
        model.prune_heads(self.TABLE)
        assert torch.allclose(run(model).logits, expected, atol=1e-5)
        own = model.bert.encoder.layer[0].attention
        assert own.self.query.weight.shape == (12, 24) and own.self.query.out_features == 12
        assert own.self.value.bias.shape == (12,)
        assert own.output.dense.weight.shape == (24, 12) and own.output.dense.in_features == 12
        assert own.output.dense.bias.shape == (24,)
        assert (own.self.num_attention_heads, own.self.all_head_size) == (2, 12)
        weights = run(model, output_attentions=True).attentions
        assert [w.shape[1] for w in weights] == [2, 3]

    def test_the_config_keeps_count_and_a_load_has_the_shapes(self, tmp_path):
        model = bert()
        model.prune_heads({1: [2]})
        assert model.config.pruned_heads == model.bert.config.pruned_heads == {1: [2]}
        model.prune_heads({0: [3, 1], 1: [0, 2]})
        assert model.config.pruned_heads == {0: [1, 3], 1: [0, 2]}
        assert model.config.num_attention_heads == 4
        assert model.bert.encoder.layer[1].attention.self.pruned_heads == {0, 2}
        model.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["pruned_heads"] == {"0": [1, 3], "1": [0, 2]}
        loaded, report = BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
        assert not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])
        assert loaded.bert.encoder.layer[0].attention.self.query.weight.shape == (12, 24)
        assert torch.allclose(run(loaded).logits, run(model).logits, atol=1e-6)
        base = BertModel.from_pretrained(tmp_path)
        assert base.encoder.layer[1].attention.self.num_attention_heads == 2
        head, report = BertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
        assert all("attention" not in name for name in report["missing_keys"])
        head.prune_heads({0: [0]})
        head.save_pretrained(tmp_path / "again")
        again = BertForSequenceClassification.from_pretrained(tmp_path / "again")
        assert again.config.pruned_heads == {0: [0, 1, 3], 1: [0, 2]}
        assert torch.allclose(run(again).logits, run(head).logits, atol=1e-6)

    def test_pruning_twice_is_pruning_once(self):
        first, second = bert(), bert()
        first.prune_heads({0: [1, 3]})
        second.prune_heads({0: [3]})
        second.prune_heads({0: [1]})
        second.prune_heads({0: [1, 3]})
        for name, tensor in first.state_dict().items():
            assert torch.equal(tensor, second.state_dict()[name]), name

    def test_a_config_builds_the_smaller_model(self):
        model = bert(pruned_heads={"0": [0, 1], "-1": [2]})
        assert model.config.pruned_heads == {0: [0, 1], 1: [2]}
        assert model.bert.encoder.layer[0].attention.self.query.weight.shape == (12, 24)
        assert model.bert.encoder.layer[1].attention.self.query.weight.shape == (18, 24)
        assert torch.isfinite(run(model).logits).all()
        assert torch.equal(model.bert.encoder.layer[0].attention.self.query.bias, torch.zeros(12))

    def test_negative_layers_count_from_the_end(self):
        model = bert()
        model.prune_heads({0: [1, 2, 3], -1: [0]})
        assert [w.shape[1] for w in run(model, output_attentions=True).attentions] == [1, 3]
        assert model.config.pruned_heads == {0: [1, 2, 3], 1: [0]}

    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_all_heads_of_a_layer(self, attention, tmp_path):
        model = bert(attn_implementation=attention)
        table = {0: [0, 1, 2, 3]}
        expected = run(model, head_mask=self.mask(table)).logits
        model.prune_heads(table)
        assert torch.allclose(run(model).logits, expected, atol=1e-5)
        assert run(model, output_attentions=True).attentions[0].shape == (2, 0, 5, 5)
        model.save_pretrained(tmp_path)
        loaded = BertForMaskedLM.from_pretrained(tmp_path)
        assert torch.allclose(run(loaded).logits, expected, atol=1e-5)
        loaded.train()(IDS, labels=IDS).loss.backward()

    def test_no_heads_change_nothing(self):
        model = bert()
        query = model.bert.encoder.layer[0].attention.self.query.weight
        model.prune_heads({})
        model.prune_heads({0: []})
        assert model.bert.encoder.layer[0].attention.self.query.weight is query

    def test_cross_attention_keeps_its_heads(self):
        model = bert(BertModel, is_decoder=True, add_cross_attention=True)
        model.prune_heads({0: [0]})
        layer = model.encoder.layer[0]
        assert layer.attention.self.num_attention_heads == 3 and layer.crossattention.self.num_attention_heads == 4
        assert torch.isfinite(run(model, encoder_hidden_states=torch.randn(2, 3, 24)).last_hidden_state).all()

    def test_a_cache_of_a_pruned_decoder(self):
        model = bert(BertModel, is_decoder=True)
        model.prune_heads({0: [0, 2], 1: [3]})
        whole = run(model).last_hidden_state
        with torch.no_grad():
            first = model(IDS[:, :3], use_cache=True)
            second = model(IDS[:, 3:], past_key_values=first.past_key_values, use_cache=True)
        assert torch.allclose(second.last_hidden_state, whole[:, 3:], atol=1e-5)

    def test_settings_of_the_parameters_stay(self):
        model = bert().to(torch.bfloat16)
        weight = model.bert.encoder.layer[0].attention.self.query.weight
        weight.requires_grad_(False)
        weight.note = 7
        model.prune_heads({0: [1]})
        new = model.bert.encoder.layer[0].attention.self.query.weight
        assert new.dtype == torch.bfloat16 and not new.requires_grad and new.note == 7
        assert new.untyped_storage().nbytes() == new.numel() * 2
        assert model.bert.encoder.layer[0].attention.self.key.weight.requires_grad

    def test_an_unpruned_checkpoint_does_not_fit(self, tmp_path):
        bert().save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"attention\.self\.query\.weight"):
            BertForMaskedLM.from_pretrained(tmp_path, pruned_heads={0: [1]})


class TestErrors:
    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ({2: [0]}, r"cannot prune layer 2: there is no such layer; there are 2, from 0 on"),
            ({-3: [0]}, r"cannot prune layer -3"),
            ({0: [4]}, r"cannot prune head of layer 0 4: there is no such head of layer 0; there are 4"),
            ({1: [0, -1]}, r"cannot prune head of layer 1 -1"),
            ({0: [1.5]}, r"cannot prune head of layer 0 1\.5"),
            ({"0": [1]}, r"cannot prune layer '0'"),
            ({0: 1}, r"heads_to_prune\[0\] must be a list of heads, found 1"),
            ([1, 2], r"heads_to_prune must be \{layer: \[heads\]\}, found \[1, 2\]"),
        ],
    )
    def test_what_there_is_not(self, table, message):
        model = bert()
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(InvalidOptionError, match=message) as caught:
            model.prune_heads(table)
        assert caught.value.key == "heads_to_prune"
        assert model.config.pruned_heads == {}
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    @pytest.mark.parametrize("table", [{"9": [0]}, {"0": [7]}, {"0": [10**9]}])
    def test_a_config_that_asks_for_what_there_is_not(self, table, tmp_path):
        bert().save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"pruned_heads": table}))
        with pytest.raises(ConfigError, match=r"config\.json: cannot prune .*there is no such") as caught:
            BertForMaskedLM.from_pretrained(tmp_path)
        assert caught.value.path == str(tmp_path / "config.json")

    def test_a_class_that_cannot(self):
        class Plain(PreTrainedModel):
            config_class = ThirdConfig

            def __init__(self, config):
                super().__init__(config)
                self.linear = nn.Linear(2, 2)
                self.post_init()

        with pytest.raises(NotImplementedError, match="Plain cannot prune heads: it defines no _prune_heads"):
            Plain(ThirdConfig()).prune_heads({0: [1]})
        with pytest.raises(ConfigError, match="config key 'pruned_heads': Plain cannot prune heads"):
            Plain(ThirdConfig(pruned_heads={0: [1]}))


class TestLlama:
    """Six heads of queries, two of keys and values."""

    def model(self, **changes):
        torch.manual_seed(5)
        return LlamaForCausalLM(tiny_llama(**changes)).eval()

    def without(self, model, layer, heads):
        """The logits with what these heads give multiplied by zero."""
        model = copy.deepcopy(model)
        with torch.no_grad():
            weight = model.model.layers[layer].self_attn.o_proj.weight.view(24, 6, 6)
            weight[:, heads] = 0
        return run(model).logits

    @pytest.mark.parametrize("group", [[0, 1, 2], [3, 4, 5]])
    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_a_whole_group(self, group, attention, tmp_path):
        model = self.model(attn_implementation=attention)
        expected = self.without(model, 1, group)
        model.prune_heads({1: group})
        assert torch.allclose(run(model).logits, expected, atol=1e-5)
        own = model.model.layers[1].self_attn
        assert (own.q_proj.weight.shape, own.k_proj.weight.shape) == ((18, 24), (6, 24))
        assert (own.num_heads, own.pruned_heads) == (3, set(group))
        model.save_pretrained(tmp_path)
        assert torch.allclose(run(LlamaForCausalLM.from_pretrained(tmp_path)).logits, expected, atol=1e-5)

    def test_half_a_group_is_refused_and_nothing_is_changed(self):
        model = self.model()
        with pytest.raises(InvalidOptionError, match=r"every 3 heads share .*heads \[2\] would be left over"):
            model.prune_heads({0: [0, 1, 2], 1: [0, 1]})
        assert model.model.layers[0].self_attn.q_proj.out_features == 36 and model.config.pruned_heads == {}
        with pytest.raises(ConfigError, match=r"'pruned_heads': .*heads \[1, 2\] would be left over"):
            self.model(pruned_heads={0: [0]})

    def test_one_group_after_the_other(self):
        model = self.model()
        model.prune_heads({0: [0, 1, 2]})
        model.prune_heads({0: [0, 1, 2, 3, 4, 5]})
        assert model.model.layers[0].self_attn.k_proj.out_features == 0
        assert torch.isfinite(run(model).logits).all()

    def test_without_groups_any_head_goes(self):
        model = self.model(num_key_value_heads=6)
        expected = self.without(model, 0, [1, 4])
        model.prune_heads({0: [4]})
        model.prune_heads({0: [1]})
        assert torch.allclose(run(model).logits, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [LinearAttention, JointAttention])
def test_classes_of_others(kind, tmp_path):
    torch.manual_seed(2)
    model = ThirdWithHead(ThirdConfig(), kind).eval()
    x, mask = torch.randn(2, 3, 12), torch.ones(2, 4)
    mask[0, [0, 2]] = 0
    mask[1, 3] = 0
    expected = model(x, mask)
    model.prune_heads({0: [2]})
    model.prune_heads({0: [0], 1: [3]})
    assert torch.allclose(model(x), expected, atol=1e-5)
    assert model.config.pruned_heads == {0: [0, 2], 1: [3]}
    model.save_pretrained(tmp_path)
    loaded = ThirdWithHead.from_pretrained(tmp_path, kind=kind)
    assert torch.allclose(loaded(x), expected, atol=1e-5)


class TestFunctions:
    def test_indices_of_what_stays(self):
        heads, index = find_pruneable_heads_and_indices([0, 2], 3, 2, set())
        assert heads == {0, 2} and index.tolist() == [2, 3] and index.dtype == torch.int64
        heads, index = find_pruneable_heads_and_indices([0, 3], 3, 2, {0})  # of 1, 2 and 3 the last goes
        assert heads == {3} and index.tolist() == [0, 1, 2, 3]
        assert find_pruneable_heads_and_indices([1], 2, 1, {1})[1].tolist() == [0, 1]

    def test_layers(self):
        linear, index = nn.Linear(4, 3), torch.tensor([0, 2])
        rows, columns = prune_linear_layer(linear, index), prune_linear_layer(linear, index, dim=1)
        assert torch.equal(rows.weight, linear.weight[index]) and torch.equal(rows.bias, linear.bias[index])
        assert (rows.in_features, rows.out_features) == (4, 2) and rows(torch.ones(1, 4)).shape == (1, 2)
        assert torch.equal(columns.weight, linear.weight[:, index]) and torch.equal(columns.bias, linear.bias)
        assert (columns.in_features, columns.out_features) == (2, 3)
        assert linear.weight.shape == (3, 4) and isinstance(rows, nn.Linear)
        plain = prune_layer(nn.Linear(4, 3, bias=False), index)
        assert plain.bias is None and plain.weight.shape == (2, 4)

    def test_layers_the_other_way_round(self):
        layer, index = Conv1D(3, 4), torch.tensor([0, 2])
        outputs, inputs = prune_conv1d_layer(layer, index), prune_layer(layer, index, dim=0)
        assert torch.equal(outputs.weight, layer.weight[:, index]) and torch.equal(outputs.bias, layer.bias[index])
        assert (outputs.nf, outputs.nx) == (2, 4) and outputs(torch.ones(1, 4)).shape == (1, 2)
        assert torch.equal(inputs.weight, layer.weight[index]) and inputs.bias.shape == (3,)
        assert prune_layer(layer, index).weight.shape == (4, 2) and layer.weight.shape == (4, 3)

    def test_a_pruned_copy_has_no_hooks_of_the_original(self):
        linear, calls = nn.Linear(4, 3), []
        linear.register_forward_hook(lambda *given: calls.append(1))
        pruned = prune_linear_layer(linear, torch.tensor([0]))
        pruned(torch.ones(1, 4))
        assert calls == []
        pruned.register_forward_hook(lambda *given: calls.append(2))
        linear(torch.ones(1, 4))
        assert calls == [1]

    def test_other_layers(self):
        with pytest.raises(InvalidOptionError, match="a LayerNorm cannot be pruned: only Linear and Conv1D can"):
            prune_layer(nn.LayerNorm(3), torch.tensor([0]))
