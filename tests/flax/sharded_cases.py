"""Models on a mesh of 8 devices of one process. `test_sharding.py` runs this with as many devices of the CPU."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pretrained import (
    BertConfig,
    FlaxBertForCausalLM,
    FlaxBertForMaskedLM,
    FlaxBertForSequenceClassification,
    FlaxBertModel,
    FlaxLlamaForCausalLM,
    LlamaConfig,
)
from pretrained.errors import InvalidOptionError, OptionError
from pretrained.flax.modeling import FlaxPreTrainedModel

REFERENCE = Path(__file__).parents[1] / "reference" / "bert"
P = PartitionSpec
IDS = np.arange(2, 34).reshape(4, 8)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    assert jax.device_count() == 8
    return Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        vocab_size=72,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=20,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    FlaxBertForMaskedLM(config, seed=3).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def sharded(folder: Path, mesh: Mesh) -> FlaxBertForMaskedLM:
    return FlaxBertForMaskedLM.from_pretrained(folder, mesh=mesh)


@pytest.fixture(scope="module")
def plain(folder: Path) -> FlaxBertForMaskedLM:
    return FlaxBertForMaskedLM.from_pretrained(folder)


def same(first: Any, second: Any) -> bool:
    return bool(jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), first, second)))


def near(first: Any, second: Any, limit: float = 2e-5) -> bool:
    return bool(
        jax.tree.all(
            jax.tree.map(lambda a, b: bool(np.abs(np.asarray(a) - np.asarray(b)).max() <= limit), first, second)
        )
    )


def specs(params: Any) -> dict[str, PartitionSpec]:
    found = jax.tree_util.tree_leaves_with_path(params)
    return {".".join(str(key.key) for key in path): leaf.sharding.spec for path, leaf in found}


def layer(params: Any, index: int = 0) -> Any:
    return params["bert"]["encoder"]["layer"][str(index)]


# Loading


def test_the_class_says_how_it_is_split(sharded: FlaxBertForMaskedLM, plain: FlaxBertForMaskedLM) -> None:
    assert same(sharded.params, plain.params)
    found = specs(sharded.params)
    block = "bert.encoder.layer.0."
    assert found["bert.embeddings.word_embeddings.weight"] == P("model", None)
    assert found[block + "attention.self.query.weight"] == P("model", None)
    assert found[block + "attention.self.query.bias"] == P("model")
    assert found[block + "attention.output.dense.weight"] == P(None, "model")
    assert found[block + "output.dense.weight"] == P(None, "model")
    assert found["cls.predictions.bias"] == P("model")
    assert found[block + "output.LayerNorm.weight"] == P()
    shard = layer(sharded.params)["attention"]["output"]["dense"]["weight"].addressable_shards[1]
    assert shard.data.shape == (32, 8)


def test_nothing_is_copied_that_lies_as_xla_wants_it(folder: Path, mesh: Mesh) -> None:
    model, report = FlaxBertForMaskedLM.from_pretrained(folder, mesh=mesh, output_loading_info=True)
    assert report.bytes_read == 0
    assert report.bytes_mapped == sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    table = model.params["bert"]["embeddings"]["position_embeddings"]["weight"]
    addresses = {shard.data.unsafe_buffer_pointer() for shard in table.addressable_shards}
    assert len(addresses) == 1


@pytest.mark.parametrize("name", ["torch-safetensors", "torch-bin-sharded", "flax-msgpack", "tf-h5"])
def test_what_it_computes_is_what_torch_does(name: str, mesh: Mesh) -> None:
    model = FlaxBertModel.from_pretrained(REFERENCE / name, mesh=mesh, dtype="float32")
    inputs, expected = np.load(REFERENCE / "inputs.npz"), np.load(REFERENCE / "expected.npz")
    out = model(**inputs)
    for key in ("last_hidden_state", "pooler_output"):
        assert np.abs(np.asarray(out[key]) - expected[f"torch/BertModel/{key}"]).max() <= 2e-5
    # 24 is split by 4, 30 is not, nor are 71 words.
    found = specs(model.params)
    assert found["encoder.layer.0.attention.self.key.weight"] == P("model", None)
    assert found["encoder.layer.0.intermediate.dense.weight"] == P(None, None)
    assert found["embeddings.word_embeddings.weight"] == P(None, None)


def test_what_is_missing_is_drawn_where_it_lies(folder: Path, mesh: Mesh) -> None:
    rules = {r"query\.weight|classifier\.weight": (None, ("data", "model"))}
    options = {"seed": 7, "num_labels": 3}
    model, report = FlaxBertForSequenceClassification.from_pretrained(
        folder, mesh=mesh, sharding_rules=rules, output_loading_info=True, **options
    )
    plain = FlaxBertForSequenceClassification.from_pretrained(folder, **options)
    assert "classifier.weight" in report.missing_keys
    assert model.params["classifier"]["weight"].sharding.spec == P(None, ("data", "model"))
    assert same(model.params, plain.params)


def test_parameters_without_a_model(folder: Path, mesh: Mesh, plain: FlaxBertForMaskedLM) -> None:
    model, params = FlaxBertForMaskedLM.from_pretrained(folder, mesh=mesh, _do_init=False)
    assert layer(params)["attention"]["self"]["value"]["weight"].sharding.spec == P("model", None)
    assert near(model(IDS, params=params).logits, plain(IDS).logits)
    complete = model.init_weights(jax.random.key(0), params={"bert": params["bert"]})
    assert complete["cls"]["predictions"]["bias"].sharding.spec == P("model")


@pytest.mark.parametrize(
    ("value", "spec"),
    [
        ("model", P("model", None)),
        (None, P(None, None)),
        (("data", "model"), P("data", "model")),
        ([["data", "model"], None], P(("data", "model"), None)),
        (P(None, "data"), P(None, "data")),
        ((), P(None, None)),
    ],
)
def test_what_a_rule_may_be(value: Any, spec: PartitionSpec, folder: Path, mesh: Mesh) -> None:
    rules = {r"key\.weight$": value, "": ()}
    model = FlaxBertForMaskedLM.from_pretrained(folder, mesh=mesh, sharding_rules=rules)
    found = specs(model.params)
    assert found["bert.encoder.layer.0.attention.self.key.weight"] == spec
    assert set(found["bert.encoder.layer.0.attention.self.query.weight"]) == {None}


def test_a_rule_for_a_name_that_is_tied(folder: Path, mesh: Mesh) -> None:
    rules = {r"predictions\.decoder\.weight": ("model", None)}
    model = FlaxBertForMaskedLM.from_pretrained(folder, mesh=mesh, sharding_rules=rules)
    assert model.params["bert"]["embeddings"]["word_embeddings"]["weight"].sharding.spec == P("model", None)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"query": "modle"}, r"\['query'\] names the axis 'modle', and the mesh has data, model; did you mean 'model'"),
        ({r"querry\.weight$": "model"}, r"no parameter of the model matches 'querry.*'; did you mean 'query.weight'\?"),
        ({"query": ("data", "data")}, r"sharding_rules\['query'\] has the axis 'data' twice"),
        ({"query": 3}, r"sharding_rules\['query'\] is 3; expected a PartitionSpec"),
        ({"query": (3,)}, r"sharding_rules\['query'\] is \(3,\); expected a PartitionSpec"),
        ({"(": "model"}, r"'\(' is no regular expression: missing \)"),
        ({r"query\.bias": (None, "model")}, r"has 2 dimensions, and bert.encoder.*query.bias has 1: \[32\]"),
        ([("query", "model")], r"sharding_rules= is \{pattern: PartitionSpec\}, not list"),
    ],
)  # fmt: skip
def test_rules_that_make_no_sense(rules: Any, message: str, folder: Path, mesh: Mesh) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        FlaxBertForMaskedLM.from_pretrained(folder, mesh=mesh, sharding_rules=rules)


def test_meshes_that_make_no_sense(folder: Path, mesh: Mesh) -> None:
    with pytest.raises(InvalidOptionError, match=r"mesh= is a jax.sharding.Mesh, not list"):
        FlaxBertModel.from_pretrained(folder, mesh=jax.devices())
    with pytest.raises(OptionError, match=r"mesh= has to say over which devices"):
        FlaxBertModel.from_pretrained(folder, sharding_rules={})
    explicit = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    with pytest.raises(InvalidOptionError, match=r"axis_types=\(jax.sharding.AxisType.Auto,\) \* 2"):
        FlaxBertModel.from_pretrained(folder, mesh=explicit)
    other = Mesh(mesh.devices, ("data", "tensor"))
    with pytest.raises(InvalidOptionError, match=r"FlaxBertModel._sharding_rules\[.*'model'.*Name an axis"):
        FlaxBertModel.from_pretrained(folder, mesh=other)
    everywhere = FlaxBertModel.from_pretrained(folder, mesh=other, sharding_rules={})
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(everywhere.params))


# A module of Flax's own layers: rules speak of torch's names and dimensions, as everything does


class TwoLayers(nnx.Module):
    def __init__(self, config: Any, rngs: nnx.Rngs) -> None:
        self.up, self.down = nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.down(nnx.relu(self.up(x)))


class OwnModel(FlaxPreTrainedModel):
    config_class = BertConfig
    module_class = TwoLayers


def test_a_module_of_flax(tmp_path: Path, mesh: Mesh) -> None:
    plain = OwnModel(BertConfig(), seed=1)
    plain.save_pretrained(tmp_path / "one")
    with pytest.raises(InvalidOptionError, match=r"OwnModel declares no _sharding_rules: pass sharding_rules="):
        OwnModel.from_pretrained(tmp_path / "one", mesh=mesh)
    rules = {r"up\.weight": ("model", None), r"down\.weight": (None, "model")}
    model = OwnModel.from_pretrained(tmp_path / "one", mesh=mesh, sharding_rules=rules)
    assert model.params["up"]["kernel"].sharding.spec == P(None, "model")
    assert same(model.params, plain.params)
    model.save_pretrained(tmp_path / "two")
    assert (tmp_path / "two/model.safetensors").read_bytes() == (tmp_path / "one/model.safetensors").read_bytes()
    drawn = OwnModel(BertConfig(), seed=1, _do_init=False)
    shardings = drawn.param_shardings(mesh, rules)
    made = jax.jit(drawn.init_weights, out_shardings=shardings)(jax.random.key(1))
    assert made["down"]["kernel"].sharding.spec == P("model", None)


def test_a_decoder_that_shares_keys_among_heads(tmp_path: Path, mesh: Mesh) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "vocab_size": 72}
    config = LlamaConfig(num_attention_heads=8, num_key_value_heads=2, **sizes)
    plain = FlaxLlamaForCausalLM(config, seed=2)
    plain.save_pretrained(tmp_path)
    model = FlaxLlamaForCausalLM.from_pretrained(tmp_path, mesh=mesh)
    found = specs(model.params)
    assert found["model.layers.0.self_attn.k_proj.weight"] == P("model", None)
    assert found["model.layers.0.mlp.down_proj.weight"] == P(None, "model")
    assert near(model(IDS).logits, plain(IDS).logits)


# Using and changing


def test_a_training_step(folder: Path, mesh: Mesh, plain: FlaxBertForMaskedLM) -> None:
    optimizer = optax.adamw(1e-3)

    def step(params: Any, state: Any, ids: Any, labels: Any) -> Any:
        def loss(params: Any) -> Any:
            logits = plain(ids, params=params, train=True, dropout_rng=jax.random.key(0)).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    model, params = FlaxBertForMaskedLM.from_pretrained(folder, mesh=mesh, _do_init=False)
    before = specs(params)
    batch = jax.device_put((IDS, IDS[:, ::-1]), NamedSharding(mesh, P("data")))
    shardings = model.param_shardings(mesh)
    run = jax.jit(step, out_shardings=(shardings, None, None), donate_argnums=(0, 1))
    state, losses = optimizer.init(params), []
    expected_params, expected_state = plain.params, optimizer.init(plain.params)
    alone = jax.jit(step)
    for _ in range(2):
        params, state, loss = run(params, state, *batch)
        expected_params, expected_state, expected = alone(expected_params, expected_state, IDS, IDS[:, ::-1])
        losses.append(abs(float(loss) - float(expected)))
    assert max(losses) <= 2e-5
    assert specs(params) == before
    assert near(params, expected_params, 1e-4)
    moment = layer(state[0].mu)["output"]["dense"]["weight"]
    assert moment.addressable_shards[0].data.shape == (32, 12)


def test_the_module_holds_the_same_arrays(folder: Path, mesh: Mesh, plain: FlaxBertForMaskedLM) -> None:
    model = FlaxBertForMaskedLM.from_pretrained(folder, mesh=mesh)
    out = nnx.jit(lambda module, ids: module(ids).logits)(model.module, IDS)
    assert near(out, plain(IDS).logits)
    assert specs(model.params)["bert.encoder.layer.0.attention.self.query.bias"] == P("model")
    half = model.to_bf16(model.params)
    assert layer(half)["attention"]["self"]["query"]["bias"].sharding.spec == P("model")


def test_generating(folder: Path, mesh: Mesh) -> None:
    options = {"is_decoder": True}
    model = FlaxBertForCausalLM.from_pretrained(folder, mesh=mesh, **options)
    plain = FlaxBertForCausalLM.from_pretrained(folder, **options)
    found, expected = (m.generate(IDS[:2, :4], max_new_tokens=6, pad_token_id=0).sequences for m in (model, plain))
    assert np.array_equal(found, expected)


def test_resizing_and_pruning_keep_the_shardings(folder: Path, mesh: Mesh) -> None:
    model = FlaxBertForMaskedLM.from_pretrained(folder, mesh=mesh)
    plain = FlaxBertForMaskedLM.from_pretrained(folder)
    for size, split in ((73, None), (80, "model")):
        params, expected = model.resize_token_embeddings(size), plain.resize_token_embeddings(size)
        assert params["bert"]["embeddings"]["word_embeddings"]["weight"].sharding.spec == P(split, None)
        assert params["cls"]["predictions"]["bias"].sharding.spec == P(split)
        assert near(params, expected, 1e-6)
    params, expected = model.prune_heads({0: [1, 2]}), plain.prune_heads({0: [1, 2]})
    assert layer(params)["attention"]["self"]["query"]["weight"].sharding.spec == P("model", None)
    assert layer(params)["attention"]["output"]["dense"]["weight"].sharding.spec == P(None, "model")
    assert near(params, expected, 1e-6)
    assert near(model(IDS).logits, plain(IDS).logits)


def test_a_copy_of_the_model(sharded: FlaxBertForMaskedLM) -> None:
    twin = copy.deepcopy(sharded)
    assert same(twin.params, sharded.params)
    assert twin.param_shardings(sharded._placing.mesh) == jax.tree.map(lambda leaf: leaf.sharding, sharded.params)


def test_initial_values_on_a_mesh(mesh: Mesh, sharded: FlaxBertForMaskedLM, plain: FlaxBertForMaskedLM) -> None:
    drawn = sharded.init_weights(jax.random.key(5))
    assert same(drawn, plain.init_weights(jax.random.key(5)))
    assert specs(drawn) == specs(sharded.params)
    with pytest.raises(InvalidOptionError, match=r"not None"):
        plain.param_shardings(None)  # type: ignore[arg-type]


# Saving


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "10KB"}, {"safe_serialization": False}], ids=str)
def test_what_is_saved_is_what_one_device_saves(
    options: dict[str, Any], sharded: FlaxBertForMaskedLM, plain: FlaxBertForMaskedLM, tmp_path: Path
) -> None:
    sharded.save_pretrained(tmp_path / "sharded", **options)
    plain.save_pretrained(tmp_path / "plain", **options)
    names = sorted(path.name for path in (tmp_path / "plain").iterdir())
    assert sorted(path.name for path in (tmp_path / "sharded").iterdir()) == names
    for name in names:
        assert (tmp_path / "sharded" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name
    assert len(names) > 5 or "max_shard_size" not in options


def test_no_array_is_gathered(folder: Path, mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FlaxBertForMaskedLM.from_pretrained(folder, mesh=mesh)
    seen: list[tuple[int, ...]] = []
    asarray = np.asarray
    monkeypatch.setattr("pretrained.flax.saving.np.asarray", lambda a, *rest: seen.append(a.shape) or asarray(a, *rest))
    model.save_pretrained(tmp_path)
    assert (32, 48) not in seen
    assert seen.count((32, 12)) == 4


def test_parameters_in_numpy_beside_sharded_ones(sharded: FlaxBertForMaskedLM, tmp_path: Path) -> None:
    params = copy.copy(sharded.params)
    params["cls"] = jax.tree.map(np.array, params["cls"])
    sharded.save_pretrained(tmp_path, params=params)
    assert same(FlaxBertForMaskedLM.from_pretrained(tmp_path).params, sharded.params)


def test_a_tensor_that_is_split_over_all(sharded: FlaxBertForMaskedLM, mesh: Mesh, tmp_path: Path) -> None:
    params = copy.deepcopy(sharded.params)
    dense = layer(params)["output"]["dense"]
    both = NamedSharding(mesh, P("data", "model"))
    dense["weight"] = jax.device_put(jnp.asarray(np.asarray(dense["weight"])), both)
    sharded.save_pretrained(tmp_path, params=params)
    assert same(FlaxBertForMaskedLM.from_pretrained(tmp_path).params, sharded.params)
