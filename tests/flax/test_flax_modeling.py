from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import pretrained
from pretrained import FlaxAutoModel, FlaxBertForMaskedLM, FlaxBertForPreTraining, FlaxBertModel, FlaxPreTrainedModel
from pretrained.configuration import PretrainedConfig
from pretrained.errors import (
    InvalidOptionError,
    MismatchError,
    MissingFrameworkError,
    OptionError,
    SaveError,
    TensorError,
)
from pretrained.flax.calls import program_for
from pretrained.models.bert.configuration_bert import BertConfig

FOLDER = Path(__file__).parents[1] / "reference" / "bert" / "torch-safetensors"
IDS = np.array([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = (IDS != 0).astype(np.int32)


def tiny(**changes: object) -> BertConfig:
    settings = {
        "vocab_size": 71,
        "hidden_size": 24,
        "intermediate_size": 30,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 20,
    }
    return BertConfig(**settings | changes)


@pytest.fixture(scope="module")
def model() -> FlaxBertModel:
    return FlaxBertModel.from_pretrained(FOLDER)


def leaves(tree: object) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def same(first: object, second: object) -> bool:
    return all((a == b).all() for a, b in zip(leaves(first), leaves(second), strict=True))


class TestParameters:
    def test_they_are_a_nested_dict_under_torchs_names(self, model: FlaxBertModel) -> None:
        query = model.params["encoder"]["layer"]["0"]["attention"]["self"]["query"]
        assert query["weight"].shape == (32, 32) and query["bias"].shape == (32,)
        assert ("embeddings", "word_embeddings", "weight") in model.required_params
        shapes = model.params_shape_tree["embeddings"]["word_embeddings"]["weight"]
        assert shapes.shape == model.params["embeddings"]["word_embeddings"]["weight"].shape
        assert model.num_parameters() == sum(leaf.size for leaf in leaves(model.params))
        assert model.framework == "flax" and model.dtype == jnp.float32

    def test_a_call_is_a_function_of_them(self, model: FlaxBertModel) -> None:
        zeros = jax.tree.map(jnp.zeros_like, model.params)
        assert not np.asarray(model(IDS, params=zeros).last_hidden_state).any()
        assert np.asarray(model(IDS).last_hidden_state).any()
        grown = jax.grad(lambda p: model(IDS, params=p).pooler_output.sum())(model.params)
        assert jax.tree.structure(grown) == jax.tree.structure(model.params)
        assert all(np.isfinite(leaf).all() for leaf in leaves(grown))

    def test_others_can_be_set(self) -> None:
        model = FlaxBertModel(tiny())
        doubled = jax.tree.map(lambda x: 2 * x, model.params)
        model.params = doubled
        assert same(model.params, doubled)
        lacking = {name: part for name, part in doubled.items() if name != "pooler"}
        with pytest.raises(ValueError, match=r"params lack pooler\.dense\.bias, pooler\.dense\.weight"):
            model.params = lacking
        with pytest.raises(ValueError, match=r"params lack pooler"):
            model(IDS, params=lacking)
        wrong = jax.tree.map(lambda x: x[:1], doubled)
        with pytest.raises(ValueError, match=r"embeddings\.LayerNorm\.bias is \(1,\), expected \(24,\)"):
            model.params = wrong

    def test_without_init_there_are_none(self) -> None:
        model, params = FlaxBertModel.from_pretrained(FOLDER, _do_init=False)
        assert isinstance(params, dict)
        for use in (lambda: model.params, lambda: model(IDS), lambda: model.module, lambda: model.save_pretrained("x")):
            with pytest.raises(ValueError, match="made with _do_init=False"):
                use()
        assert model(IDS, params=params).last_hidden_state.shape == (2, 4, 32)
        assert model.to_nnx(params)(IDS).last_hidden_state.shape == (2, 4, 32)
        _, _, report = FlaxBertModel.from_pretrained(FOLDER, _do_init=False, output_loading_info=True)
        assert report["missing_keys"] == []

    def test_initial_ones_depend_on_name_and_key_alone(self) -> None:
        one, two = FlaxBertModel(tiny(), seed=3), FlaxBertModel(tiny(num_hidden_layers=3), seed=3)
        first = one.params["encoder"]["layer"]["1"]["output"]["dense"]["weight"]
        assert (first == two.params["encoder"]["layer"]["1"]["output"]["dense"]["weight"]).all()
        assert not same(one.params, FlaxBertModel(tiny(), seed=4).params)
        assert abs(float(first.std()) - 0.02) < 0.004
        assert not np.asarray(one.params["embeddings"]["word_embeddings"]["weight"][0]).any()  # the padding row
        traced = jax.jit(one.init_weights, static_argnums=1)(jax.random.key(3), (1, 1))
        assert same(traced, one.params)
        shapes = jax.eval_shape(lambda key: one.init_weights(key), jax.random.key(0))
        assert jax.tree.map(lambda s: s.shape, shapes) == jax.tree.map(lambda x: x.shape, one.params)

    def test_what_is_missing_is_drawn(self) -> None:
        model = FlaxBertModel(tiny(), seed=1)
        some = {name: part for name, part in model.params.items() if name != "pooler"}
        whole = model.init_weights(jax.random.key(9), (1, 1), some)
        assert same({k: whole[k] for k in some}, some)
        assert whole["pooler"]["dense"]["weight"].shape == (24, 24)
        loaded, report = FlaxBertForMaskedLM.from_pretrained(
            FOLDER.parent / "torch-base-only", output_loading_info=True, seed=7
        )
        assert "cls.predictions.transform.dense.weight" in report["missing_keys"]
        assert ("cls", "predictions", "transform", "dense", "weight") in loaded._missing_keys
        again = FlaxBertForMaskedLM.from_pretrained(FOLDER.parent / "torch-base-only", seed=7)
        assert same(loaded.params, again.params)

    def test_casts_follow_a_mask(self, model: FlaxBertModel) -> None:
        mask = jax.tree.map_with_path(lambda path, _: "LayerNorm" not in jax.tree_util.keystr(path), model.params)
        cast = model.to_bf16(model.params, mask)
        assert cast["embeddings"]["LayerNorm"]["weight"].dtype == jnp.float32
        assert cast["pooler"]["dense"]["weight"].dtype == jnp.bfloat16
        assert model.to_fp16(model.params)["pooler"]["dense"]["weight"].dtype == jnp.float16
        assert same(model.to_fp32(cast), jax.tree.map(lambda x: x.astype("float32"), cast))
        with pytest.raises(ValueError, match=r"[Cc]ustom|[Mm]ismatch|structure|Dict key"):
            model.to_bf16(model.params, {"pooler": True})


class TestModule:
    def test_it_holds_the_parameters_from_then_on(self) -> None:
        model = FlaxBertForMaskedLM(tiny())
        before = model.params
        module = model.module
        assert module is model.module
        optimizer = nnx.Optimizer(module, optax.sgd(0.5), wrt=nnx.Param)

        @nnx.jit
        def step(module: nnx.Module, optimizer: nnx.Optimizer) -> jax.Array:
            loss, grads = nnx.value_and_grad(lambda m: (m(IDS).logits ** 2).mean())(module)
            optimizer.update(module, grads)
            return loss

        first = step(module, optimizer)
        assert step(module, optimizer) < first
        assert not same(before, model.params)
        np.testing.assert_allclose(model(IDS).logits, module(IDS).logits, atol=1e-5)
        model.params = before
        np.testing.assert_allclose((module(IDS).logits ** 2).mean(), first, rtol=1e-5)

    def test_there_and_back(self, model: FlaxBertModel) -> None:
        module = model.to_nnx()
        back = FlaxBertModel.from_nnx(module, model.config)
        assert same(back.params, model.params)
        with pytest.raises(InvalidOptionError, match="the module has other parameters"):
            FlaxBertForPreTraining.from_nnx(module, model.config)

    def test_models_of_one_config_share_their_programs(self, model: FlaxBertModel) -> None:
        other = FlaxBertModel.from_pretrained(FOLDER)
        assert other._program is model._program
        assert FlaxBertModel(tiny())._program is not model._program
        assert FlaxBertModel.from_pretrained(FOLDER, dtype="bfloat16")._program is not model._program
        made = [program_for(("test", i), lambda: model.structure) for i in range(70)]
        assert program_for(("test", 69), lambda: model.structure) is made[69]
        assert program_for(("test", 0), lambda: model.structure) is not made[0]  # the oldest was let go


class TestCalls:
    def test_outputs_as_asked(self, model: FlaxBertModel) -> None:
        out = model(IDS, MASK, output_attentions=True, output_hidden_states=True)
        assert list(out) == ["last_hidden_state", "pooler_output", "hidden_states", "attentions"]
        assert out[0] is out.last_hidden_state is out["last_hidden_state"]
        as_tuple = model(input_ids=IDS.tolist(), attention_mask=MASK, return_dict=False)
        assert isinstance(as_tuple, tuple)
        np.testing.assert_allclose(as_tuple[0], out[0], atol=1e-6)
        assert out.replace(pooler_output=None).pooler_output is None
        doubled = jax.tree.map(lambda x: 2 * x, out)
        np.testing.assert_allclose(doubled.pooler_output, 2 * out.pooler_output)

    def test_mistakes(self, model: FlaxBertModel) -> None:
        with pytest.raises(OptionError, match="takes no 'atention_mask'; did you mean 'attention_mask'"):
            model(IDS, atention_mask=MASK)
        with pytest.raises(TypeError, match="input_ids was given twice"):
            model(IDS, input_ids=IDS)
        with pytest.raises(TypeError, match="takes 11 inputs, found 12"):
            model(*[IDS] * 12)
        with pytest.raises(ValueError, match="give either input_ids or inputs_embeds"):
            model()
        with pytest.raises(ValueError, match="train=True needs dropout_rng="):
            model(IDS, train=True)
        with pytest.raises(OptionError, match="is built from a PretrainedConfig, found dict"):
            FlaxBertModel({"vocab_size": 3})
        with pytest.raises(OptionError, match="takes no 'add_poling_layer'; did you mean 'add_pooling_layer'"):
            FlaxBertModel(tiny(), add_poling_layer=False)

    def test_dropout_is_of_its_key(self, model: FlaxBertModel) -> None:
        runs = [model(IDS, train=True, dropout_rng=jax.random.key(seed)).last_hidden_state for seed in (0, 0, 1)]
        assert (runs[0] == runs[1]).all() and (runs[0] != runs[2]).any()
        still = model(IDS, dropout_rng=jax.random.key(0)).last_hidden_state
        assert (still == model(IDS).last_hidden_state).all()

    def test_dtypes(self) -> None:
        computed = FlaxBertModel.from_pretrained(FOLDER, dtype=jnp.bfloat16)
        assert computed.dtype == jnp.bfloat16
        assert computed.params["pooler"]["dense"]["weight"].dtype == jnp.float32
        assert computed(IDS).last_hidden_state.dtype == jnp.bfloat16
        stored = FlaxBertModel.from_pretrained(FOLDER, param_dtype="bfloat16")
        assert stored.dtype == stored.params["pooler"]["dense"]["weight"].dtype == jnp.bfloat16
        assert stored.config.dtype == "bfloat16"
        wide = FlaxBertModel.from_pretrained(FOLDER, param_dtype="bfloat16", dtype="float32")
        assert wide(IDS).last_hidden_state.dtype == jnp.float32
        with pytest.raises(InvalidOptionError, match="dtype='int32': a model computes in a floating dtype"):
            FlaxBertModel.from_pretrained(FOLDER, dtype="int32")
        with pytest.raises(InvalidOptionError, match="float64, which JAX has only after"):
            FlaxBertModel.from_pretrained(FOLDER, param_dtype="float64")

    def test_gradients_are_those_without_checkpointing(self) -> None:
        model = FlaxBertModel(tiny())
        loss = lambda p: model(IDS, params=p, train=True, dropout_rng=jax.random.key(0)).pooler_output.sum()  # noqa: E731
        plain = jax.grad(loss)(model.params)
        model.enable_gradient_checkpointing()
        assert "remat" in str(jax.make_jaxpr(jax.grad(loss))(model.params))
        for a, b in zip(leaves(plain), leaves(jax.grad(loss)(model.params)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        model.disable_gradient_checkpointing()
        assert "remat" not in str(jax.make_jaxpr(jax.grad(loss))(model.params))


class TestLoading:
    def test_a_file_of_ours_is_used_where_it_lies(self, tmp_path: Path) -> None:
        FlaxBertModel(tiny(hidden_size=64)).save_pretrained(tmp_path)
        loaded, report = FlaxBertModel.from_pretrained(tmp_path, output_loading_info=True)
        assert report.bytes_mapped > 0.9 * (report.bytes_mapped + report.bytes_read)
        areas = [
            tuple(int(part, 16) for part in line.split()[0].split("-"))
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "model.safetensors" in line
        ]
        weight = loaded.params["embeddings"]["word_embeddings"]["weight"]
        assert any(first <= weight.unsafe_buffer_pointer() < last for first, last in areas)
        copied = FlaxBertModel.from_pretrained(tmp_path, mmap=False)
        assert same(copied.params, loaded.params)

    def test_saving_over_the_file_it_is_mapped_from(self, tmp_path: Path) -> None:
        model = FlaxBertModel(tiny(hidden_size=64))
        model.save_pretrained(tmp_path)
        loaded = FlaxBertModel.from_pretrained(tmp_path)
        before = jax.tree.map(np.array, loaded.params)
        loaded.save_pretrained(tmp_path, params=jax.tree.map(lambda x: x + 1, loaded.params))
        assert same(loaded.params, before)
        assert not same(FlaxBertModel.from_pretrained(tmp_path).params, before)

    def test_auto_classes(self) -> None:
        assert type(FlaxAutoModel.from_pretrained(FOLDER)) is FlaxBertModel
        assert type(pretrained.FlaxAutoModelForMaskedLM.from_config(tiny())) is FlaxBertForMaskedLM
        model, params = FlaxAutoModel.from_pretrained(FOLDER, _do_init=False, dtype="bfloat16")
        assert model(IDS, params=params).last_hidden_state.dtype == jnp.bfloat16
        with pytest.raises(OptionError, match="takes no 'revison'; did you mean 'revision'"):
            FlaxAutoModel.from_pretrained(FOLDER, revison="x")
        with pytest.raises(OptionError, match="takes no 'parm_dtype'; did you mean 'param_dtype'"):
            FlaxAutoModel.from_pretrained(FOLDER, parm_dtype="float16")
        with pytest.raises(InvalidOptionError, match="FlaxAutoModelForSeq2SeqLM has no class for BertConfig"):
            pretrained.FlaxAutoModelForSeq2SeqLM.from_pretrained(FOLDER)

    def test_what_is_torchs_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidOptionError, match="device_map= places torch modules"):
            FlaxBertModel.from_pretrained(FOLDER, device_map="auto")
        with pytest.raises(OptionError, match="sharding_rules= say how; mesh= has to say"):
            FlaxBertModel.from_pretrained(FOLDER, sharding_rules={})
        with pytest.raises(InvalidOptionError, match="bitsandbytes quantizes torch's layers"):
            FlaxBertModel.from_pretrained(FOLDER, quantization_config=pretrained.BitsAndBytesConfig(load_in_8bit=True))
        config = json.loads((FOLDER / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "model.safetensors").write_bytes((FOLDER / "model.safetensors").read_bytes())
        with pytest.raises(InvalidOptionError, match="bitsandbytes quantizes torch's layers"):
            FlaxBertModel.from_pretrained(tmp_path)

    def test_arrays_in_memory(self, model: FlaxBertModel) -> None:
        named = {".".join(path): value for path, value in _flat(model.params).items()}
        loaded = FlaxBertModel.from_pretrained(None, config=model.config, state_dict=named)
        assert same(loaded.params, model.params)

    def test_shards_as_one_tree(self, tmp_path: Path) -> None:
        model = FlaxBertForPreTraining.from_pretrained(FOLDER)
        model.save_pretrained(tmp_path / "a", safe_serialization=False, max_shard_size="20KB")
        model.save_pretrained(tmp_path / "b", max_shard_size="20KB")
        for folder, pattern in (("a", "*.msgpack"), ("b", "*.safetensors")):
            files = sorted((tmp_path / folder).glob(pattern))
            assert len(files) > 2
            assert same(FlaxBertForPreTraining.load_flax_sharded_weights(files), model.params)
        with pytest.raises(TensorError, match="is in another of the files as well"):
            FlaxBertForPreTraining.load_flax_sharded_weights([files[0], files[0]])


class TestSaving:
    def test_mistakes(self, tmp_path: Path) -> None:
        model = FlaxBertModel(tiny())
        with pytest.raises(OptionError, match="takes no 'max_shard'; did you mean 'max_shard_size'"):
            model.save_pretrained(tmp_path, max_shard=3)
        with pytest.raises(InvalidOptionError, match="variant 'a/b' must be a plain word"):
            model.save_pretrained(tmp_path, variant="a/b")
        with pytest.raises(InvalidOptionError, match="durable is True or False"):
            model.save_pretrained(tmp_path, durable="no")
        with pytest.raises(SaveError, match=r"cannot save pooler\.dense\.bias: it is missing from params"):
            model.save_pretrained(tmp_path, {name: p for name, p in model.params.items() if name != "pooler"})
        assert not list(tmp_path.iterdir())
        model.save_pretrained(tmp_path, is_main_process=False)
        assert not list(tmp_path.iterdir())

    def test_a_save_replaces_what_would_shadow_it(self, tmp_path: Path) -> None:
        model = FlaxBertModel(tiny())
        model.save_pretrained(tmp_path)
        (tmp_path / "notes.txt").write_text("mine")
        model.save_pretrained(tmp_path, safe_serialization=False)
        assert {p.name for p in tmp_path.iterdir()} == {"config.json", "flax_model.msgpack", "notes.txt"}
        model.save_pretrained(tmp_path, variant="fp16", params=model.to_fp16(model.params))
        assert FlaxBertModel.from_pretrained(tmp_path, variant="fp16").dtype == jnp.float16
        config = json.loads((tmp_path / "config.json").read_text())
        assert config["architectures"] == ["BertModel"] and config["dtype"] == "float16"


def _flat(params: dict) -> dict:
    from pretrained.flax.structure import flatten

    return flatten(params)


# Somebody's own model, of Flax's own layers.


class OwnConfig(PretrainedConfig):
    model_type = "own"
    size: int = 6


class OwnModule(nnx.Module):
    def __init__(self, config: OwnConfig, rngs: nnx.Rngs, dtype: object = None) -> None:
        self.embed = nnx.Embed(11, config.size, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(config.size, config.size, rngs=rngs) for _ in range(2)])
        self.conv = nnx.Conv(config.size, 4, (3,), rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, input_ids: jax.Array) -> jax.Array:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.norm(self.conv(self.drop(x)))


class FlaxOwn(FlaxPreTrainedModel):
    config_class = OwnConfig
    module_class = OwnModule


class TestOwnModules:
    def test_a_class_of_flaxs_layers(self, tmp_path: Path) -> None:
        model = FlaxOwn(OwnConfig(), seed=2)
        ids = np.array([[1, 2, 3]])
        out = model(ids)
        assert (out == model(ids)).all()
        assert (model(ids, train=True, dropout_rng=jax.random.key(0)) != out).any()
        model.save_pretrained(tmp_path)
        from safetensors.numpy import load_file

        stored = load_file(tmp_path / "model.safetensors")
        assert stored["layers.0.weight"].shape == (6, 6) and stored["conv.weight"].shape == (4, 6, 3)
        np.testing.assert_array_equal(stored["layers.1.weight"], np.asarray(model.params["layers"]["1"]["kernel"]).T)
        loaded, report = FlaxOwn.from_pretrained(tmp_path, output_loading_info=True)
        assert report["missing_keys"] == report["unexpected_keys"] == []
        np.testing.assert_allclose(loaded(ids), out, atol=1e-6)
        assert not same(FlaxOwn(OwnConfig(), seed=3).params, model.params)

    def test_a_module_of_ones_own(self) -> None:
        class WithModule(FlaxPreTrainedModel):
            config_class = OwnConfig

            def __init__(self, config: OwnConfig, seed: int = 0, **kwargs: object) -> None:
                super().__init__(config, OwnModule(config, nnx.Rngs(seed)), seed=seed, **kwargs)

        model = WithModule(OwnConfig())
        assert model(np.array([[1, 2]])).shape == (1, 2, 4)
        assert same(model.params, WithModule(OwnConfig()).params)

    def test_modules_that_cannot_be_models(self) -> None:
        class NoModule(FlaxPreTrainedModel):
            config_class = OwnConfig

        class WithStatistics(FlaxPreTrainedModel):
            config_class = OwnConfig

            class module_class(nnx.Module):  # noqa: N801
                def __init__(self, config: OwnConfig, rngs: nnx.Rngs) -> None:
                    self.norm = nnx.BatchNorm(3, rngs=rngs)

        with pytest.raises(InvalidOptionError, match=r"module_class is None, which is no flax\.nnx\.Module"):
            NoModule(OwnConfig())
        with pytest.raises(InvalidOptionError, match=r"norm\.mean is a BatchStat; a model holds nnx\.Param"):
            WithStatistics(OwnConfig())

    def test_load_into_and_save(self, tmp_path: Path) -> None:
        module = OwnModule(OwnConfig(), nnx.Rngs(0))
        report = pretrained.save(module, tmp_path, config=OwnConfig())
        assert set(report.files) == {"model.safetensors", "config.json"}
        other = OwnModule(OwnConfig(), nnx.Rngs(1))
        assert not same(nnx.state(other, nnx.Param), nnx.state(module, nnx.Param))
        loaded = pretrained.load_into(other, tmp_path)
        assert loaded["missing_keys"] == [] and loaded.num_loaded == 9
        assert same(nnx.state(other, nnx.Param), nnx.state(module, nnx.Param))
        described = nnx.eval_shape(lambda: OwnModule(OwnConfig(), nnx.Rngs(0)))
        with pytest.raises(SaveError, match="it has no values"):
            pretrained.save(described, tmp_path)

    def test_what_a_checkpoint_lacks_keeps_its_value(self, tmp_path: Path) -> None:
        module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        bias = np.array([7.0, 8.0], np.float32)
        module.bias[...] = bias
        report = pretrained.load_into(module, {"weight": np.ones((2, 3), np.float32)})
        assert report["missing_keys"] == ["bias"]
        assert (np.asarray(module.kernel[...]) == 1).all() and (np.asarray(module.bias[...]) == bias).all()
        with pytest.raises(MismatchError, match=r"weight: checkpoint \[2, 4\], model \[2, 3\]"):
            pretrained.load_into(module, {"weight": np.zeros((2, 4), np.float32)})
        assert (np.asarray(module.kernel[...]) == 1).all()
        with pytest.raises(OptionError, match="no option 'strct'"):
            pretrained.load_into(module, {}, strct=True)
        with pytest.raises(OptionError, match=r"a int is no torch\.nn\.Module, flax\.nnx\.Module or keras\.Layer"):
            pretrained.load_into(3, {})


CODE = """
import sys
for name in ("torch", "tensorflow"):
    sys.modules[name] = None  # an import of it is an error
from pretrained import FlaxBertForMaskedLM
import numpy as np
for folder in sys.argv[1:]:
    FlaxBertForMaskedLM.from_pretrained(folder)(np.array([[1, 2]]))
assert not {"torch", "tensorflow"} & {name for name, module in sys.modules.items() if module is not None}
print("ran")
"""


def test_no_other_framework_is_imported() -> None:
    folders = [
        str(folder)
        for folder in FOLDER.parent.iterdir()
        if folder.is_dir() and "base-only" not in folder.name and "variant" not in folder.name
    ]
    assert len(folders) > 9
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, *folders], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ran"]


def test_without_jax_the_name_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['jax'] = None\nimport pretrained\n"
        "for use in (lambda: pretrained.FlaxBertModel, lambda: pretrained.FlaxAutoModel.from_pretrained('x')):\n"
        "    try:\n        use()\n    except ImportError as e:\n"
        "        print(type(e).__name__, e.key, 'flax]' in str(e))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "MissingFrameworkError FlaxBertModel True",
        "MissingFrameworkError FlaxAutoModel True",
    ], done.stderr
    assert issubclass(MissingFrameworkError, ImportError)
