"""TFPreTrainedModel: loading, calls, parts, and what a process with it does not import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

import pretrained
from pretrained import (
    TFAutoModel,
    TFAutoModelForMaskedLM,
    TFBertForMaskedLM,
    TFBertForPreTraining,
    TFBertForSequenceClassification,
    TFBertModel,
    TFPreTrainedModel,
)
from pretrained.configuration import PretrainedConfig
from pretrained.errors import InvalidOptionError, MismatchError, MissingFrameworkError, OptionError
from pretrained.models.bert.configuration_bert import BertConfig
from pretrained.tf.backend import tensor_on

FOLDER = Path(__file__).parents[1] / "reference" / "bert" / "torch-safetensors"
IDS = np.array([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = (IDS != 0).astype(np.int32)


def tiny(**changes: Any) -> BertConfig:
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
def model() -> Any:
    return TFBertModel.from_pretrained(FOLDER)


class TestParameters:
    def test_variables_have_torchs_names_and_layout(self, model: Any) -> None:
        at_rest = load_file(FOLDER / "model.safetensors")
        for variable in model.trainable_variables:
            assert tuple(variable.shape) == at_rest[f"bert.{variable.name}"].shape
            assert variable.path == variable.name
        assert model.num_parameters() == sum(variable.numpy().size for variable in model.trainable_variables)

    def test_initial_values_follow_from_the_seed(self) -> None:
        one, same, other = (TFBertModel(tiny(), seed=seed) for seed in (1, 1, 2))
        name = "encoder.layer.1.output.dense.weight"
        first = one.structure.by_name[name].variable.numpy()
        assert abs(first.std() - 0.02) < 0.002
        assert (first == same.structure.by_name[name].variable.numpy()).all()
        assert (first != other.structure.by_name[name].variable.numpy()).any()
        assert (one.embeddings.word_embeddings.weight.numpy()[0] == 0).all()  # the padding

    def test_what_is_missing_is_drawn(self, tmp_path: Path) -> None:
        model, report = TFBertForSequenceClassification.from_pretrained(FOLDER, output_loading_info=True, seed=3)
        assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
        wanted = TFBertForSequenceClassification(model.config, seed=3).classifier.weight.numpy()
        assert (model.classifier.weight.numpy() == wanted).all()

    def test_mismatches_are_told_before_anything_is_read(self) -> None:
        with pytest.raises(MismatchError, match="word_embeddings"):
            TFBertModel.from_pretrained(FOLDER, vocab_size=7)
        model = TFBertModel.from_pretrained(FOLDER, vocab_size=7, ignore_mismatched_sizes=True)
        assert model.get_input_embeddings().weight.shape == (7, 32)

    def test_a_state_dict(self, model: Any) -> None:
        state = {name: variable.numpy()[()] for name, variable in model.structure.variables.items()}
        again = TFBertModel.from_pretrained(None, config=model.config, state_dict=state)
        assert tf.reduce_all(again(IDS)[0] == model(IDS)[0])


class TestMemory:
    def test_an_aligned_array_is_used_where_it_lies(self) -> None:
        room = np.zeros(64 + 16, np.uint8)
        start = -room.ctypes.data % 64
        for shift, is_alias in ((0, True), (4, False)):
            array = room[start + shift : start + shift + 12].view(np.float32)
            array[:] = 1
            tensor = tensor_on(array)
            array[:] = 2
            assert (tensor.numpy() == (2 if is_alias else 1)).all()
        for dtype in ("bfloat16", "float16", "int64", "bool", "uint8"):
            array = np.arange(3).astype(tf.as_dtype(dtype).as_numpy_dtype)
            assert tensor_on(array).dtype.name == dtype and (tensor_on(array).numpy() == array).all()
        assert tensor_on(np.zeros((0, 3), np.float32)).shape == (0, 3)

    def test_variables_lie_on_the_file_and_leave_it_as_it_is(self, tmp_path: Path) -> None:
        TFBertModel(tiny()).save_pretrained(tmp_path)
        at_rest = (tmp_path / "model.safetensors").read_bytes()
        model, report = TFBertModel.from_pretrained(tmp_path, output_loading_info=True)
        assert report.bytes_mapped > 10 * report.bytes_read  # what is no multiple of 64 bytes is read
        for variable in model.trainable_variables:
            variable.assign_add(tf.ones(variable.shape))
        assert (tmp_path / "model.safetensors").read_bytes() == at_rest
        model.save_pretrained(tmp_path)  # over the file that it lies on
        again = TFBertModel.from_pretrained(tmp_path)
        assert tf.reduce_all(again(IDS)[0] == model(IDS)[0])


class TestCalls:
    def test_ways_to_give_inputs(self, model: Any) -> None:
        wanted = model(IDS, attention_mask=MASK)
        for found in (
            model(input_ids=IDS, attention_mask=tf.constant(MASK)),
            model({"input_ids": IDS, "attention_mask": MASK}),
            model([IDS, MASK]),
            model(IDS.tolist(), MASK.tolist()),
            model(IDS, MASK, training=False),
        ):
            assert tf.reduce_all(found.last_hidden_state == wanted.last_hidden_state)
        assert wanted[0] is wanted["last_hidden_state"] and wanted.to_tuple()[1] is wanted.pooler_output
        plain = model(IDS, attention_mask=MASK, return_dict=False)
        assert type(plain) is tuple and len(plain) == 2

    def test_hidden_states_and_attentions(self, model: Any) -> None:
        found = model(IDS, output_attentions=True, output_hidden_states=True)
        assert len(found.attentions) == 2 and len(found.hidden_states) == 3
        assert tf.reduce_all(found.hidden_states[-1] == found.last_hidden_state)

    def test_unknown_inputs_name_the_nearest(self, model: Any) -> None:
        with pytest.raises(OptionError, match=r"attention_maks.*did you mean 'attention_mask'"):
            model(IDS, attention_maks=MASK)
        with pytest.raises(TypeError, match="was given twice"):
            model(IDS, input_ids=IDS)

    def test_sizes_that_only_a_run_tells(self, model: Any) -> None:
        @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32)] * 2)
        def call(ids: Any, mask: Any) -> Any:
            return model(ids, attention_mask=mask)

        for length in (4, 2):
            found = call(tf.constant(IDS[:, :length], tf.int32), tf.constant(MASK[:, :length]))
            wanted = model(IDS[:, :length], attention_mask=MASK[:, :length])
            np.testing.assert_allclose(found.last_hidden_state, wanted.last_hidden_state, atol=1e-6)
        assert type(found) is type(wanted)


class TestParts:
    def test_embeddings(self) -> None:
        model = TFBertForPreTraining.from_pretrained(FOLDER)
        assert model.get_output_embeddings() is model.get_input_embeddings() is model.bert.embeddings.word_embeddings
        assert model.get_prefix_bias_name() == "cls.predictions.bias"
        assert list(model.get_bias()) == ["cls.predictions.bias"]
        assert model.get_lm_head() is model.cls.predictions is model.get_output_layer_with_bias()
        model.set_bias({"cls.predictions.bias": np.ones(99)})
        assert (model.cls.predictions.bias.numpy() == 1).all()
        model.set_input_embeddings(tf.zeros((99, 32)))
        model.set_output_embeddings(model.get_input_embeddings())
        assert (model.get_input_embeddings().weight.numpy() == 0).all()
        with pytest.raises(ValueError, match="found \\(3, 32\\); resize_token_embeddings first"):
            model.set_input_embeddings(tf.zeros((3, 32)))
        base = TFBertModel(tiny())
        assert base.get_output_embeddings() is base.get_bias() is base.get_lm_head() is None
        with pytest.raises(NotImplementedError, match="has no parameter 'nothing'"):
            base.set_bias({"nothing": 1})
        assert [mask.shape for mask in base.get_head_mask(tf.ones(4), 2)] == [(1, 4, 1, 1)] * 2

    @pytest.mark.parametrize("mean", [True, False])
    def test_more_and_fewer_tokens(self, mean: bool) -> None:
        model = TFBertForPreTraining.from_pretrained(FOLDER)
        table, num_layers = model.get_input_embeddings().weight.numpy(), len(model._layers)
        before = model(IDS).prediction_logits
        found = model.resize_token_embeddings(101, pad_to_multiple_of=8, mean_resizing=mean)
        assert found is model.get_input_embeddings() and found.weight.shape == (104, 32)
        assert model.config.vocab_size == 104 and model.get_bias()["cls.predictions.bias"].shape == (104,)
        assert (found.weight.numpy()[:99] == table).all()
        spread = found.weight.numpy()[99:] - table.mean(0)
        assert (np.abs(spread).max() < 1e-3) == mean
        np.testing.assert_allclose(model(IDS).prediction_logits[..., :99], before, atol=1e-6)
        model.resize_token_embeddings(20)
        np.testing.assert_allclose(model(IDS).prediction_logits, before[..., :20], atol=1e-6)
        assert len(model._layers) == num_layers and len(model.trainable_variables) == len(model.structure.places)
        assert model.resize_token_embeddings() is model.get_input_embeddings()
        with pytest.raises(InvalidOptionError):
            model.resize_token_embeddings(-1)

    def test_heads_that_are_gone(self, tmp_path: Path) -> None:
        model = TFBertForMaskedLM.from_pretrained(FOLDER)
        mask = np.ones((2, 4), np.float32)
        mask[0, 1] = mask[1, 0] = mask[1, 3] = 0
        wanted = model(IDS, head_mask=mask).logits
        model.prune_heads({0: [1]})
        model.prune_heads({1: [0, 3]})
        np.testing.assert_allclose(model(IDS).logits, wanted, atol=1e-5)
        model.save_pretrained(tmp_path)
        again = TFBertForMaskedLM.from_pretrained(tmp_path)
        np.testing.assert_allclose(again(IDS).logits, wanted, atol=1e-5)
        with pytest.raises(InvalidOptionError, match="cannot prune head of layer 0 9"):
            model.prune_heads({0: [9]})

    def test_parts_are_attributes(self, model: Any) -> None:
        assert model.encoder is model.module.encoder is model.base_model.encoder
        with pytest.raises(AttributeError, match="encodre"):
            model.encodre  # noqa: B018
        assert model.framework == "tf" and model.dtype == "float32" and not TFBertModel.can_generate()


class TestAuto:
    def test_the_class_that_a_checkpoint_names(self) -> None:
        assert type(TFAutoModel.from_pretrained(FOLDER)) is TFBertModel
        assert type(TFAutoModelForMaskedLM.from_config(tiny())) is TFBertForMaskedLM

    @pytest.mark.usefixtures("own_tables")
    def test_a_class_of_ones_own(self, tmp_path: Path) -> None:
        class OwnConfig(BertConfig):
            model_type = "own-tf"

        class TFOwnModel(TFBertModel):
            config_class = OwnConfig

        pretrained.AutoConfig.register("own-tf", OwnConfig)
        TFAutoModel.register(OwnConfig, TFOwnModel)
        TFOwnModel(OwnConfig(**tiny().to_diff_dict() | {"model_type": "own-tf"})).save_pretrained(tmp_path)
        assert type(TFAutoModel.from_pretrained(tmp_path)) is TFOwnModel


class TestMistakes:
    def test_constructors(self) -> None:
        with pytest.raises(OptionError, match=r"call TFBertModel.from_pretrained\(…\)"):
            TFBertModel("bert-base-cased")
        with pytest.raises(OptionError, match="add_poolng_layer"):
            TFBertModel(tiny(), add_poolng_layer=False)

        class Odd(TFPreTrainedModel):
            config_class = PretrainedConfig
            module_class = dict

        with pytest.raises(InvalidOptionError, match="module_class is dict, which is no Module"):
            Odd(PretrainedConfig())

    def test_what_is_of_torch_alone(self) -> None:
        with pytest.raises(InvalidOptionError, match="device_map= places torch modules"):
            TFBertModel.from_pretrained(FOLDER, device_map="auto")
        with pytest.raises(InvalidOptionError, match="TensorFlow models are not quantized here"):
            TFBertModel.from_pretrained(FOLDER, quantization_config=pretrained.BitsAndBytesConfig(load_in_8bit=True))


class TestAnyModule:
    def test_a_keras_model(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        state = {
            "first.weight": rng.normal(size=(5, 3)).astype(np.float32),
            "first.bias": rng.normal(size=5).astype(np.float32),
            "norm.weight": rng.normal(size=5).astype(np.float32),
            "norm.bias": rng.normal(size=5).astype(np.float32),
        }
        save_file(state, tmp_path / "model.safetensors")
        layers = [keras.layers.Dense(5, name="first"), keras.layers.LayerNormalization(name="norm")]
        model = keras.Sequential([keras.Input((3,)), *layers])
        report = pretrained.load_into(model, tmp_path, strict=True)
        assert not report.missing_keys and (layers[0].kernel.numpy() == state["first.weight"].T).all()
        pretrained.save(model, tmp_path / "again")
        again = load_file(tmp_path / "again" / "model.safetensors")
        assert set(again) == set(state) and all((again[name] == state[name]).all() for name in state)
        with pytest.raises(OptionError, match="'stricct'"):
            pretrained.load_into(model, tmp_path, stricct=True)


def run_fresh(code: str, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV_", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment | variables, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_of_tensorflow_has_no_torch(tmp_path: Path) -> None:
    code = (
        "import json, sys; from pretrained import TFAutoModelForPreTraining\n"
        f"for name in ('torch-safetensors', 'torch-bin', 'tf-h5'):\n"
        f"    model = TFAutoModelForPreTraining.from_pretrained({str(FOLDER.parent)!r} + '/' + name)\n"
        "model(model.dummy_inputs)\n"
        f"for safe in (True, False):\n"
        f"    model.save_pretrained({str(tmp_path)!r}, safe_serialization=safe)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    loaded = json.loads(run_fresh(code))
    assert "tensorflow" in loaded and not [name for name in loaded if name.split(".")[0] in ("torch", "transformers")]


def test_keras_2_and_other_backends_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    with pytest.raises(MissingFrameworkError, match="TFBertModel is a Keras 3 model, and TF_USE_LEGACY_KERAS=1"):
        TFBertModel(tiny())
    monkeypatch.delenv("TF_USE_LEGACY_KERAS")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(MissingFrameworkError, match="this Keras is on jax: set KERAS_BACKEND=tensorflow"):
        TFBertModel(tiny())
