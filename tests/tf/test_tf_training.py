"""Keras's loops on TensorFlow models: their own loss and Keras's, policies, Keras's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pretrained import TFBertForQuestionAnswering, TFBertForSequenceClassification, TFBertModel
from pretrained.models.bert.configuration_bert import BertConfig
from pretrained.tf.outputs import TFSequenceClassifierOutput

IDS = np.random.default_rng(0).integers(5, 71, (32, 6))
LABELS = (IDS[:, 0] > 35).astype(np.int32)
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def tiny(**changes: Any) -> BertConfig:
    settings = {
        "vocab_size": 71,
        "hidden_size": 8,
        "intermediate_size": 10,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 8,
        "initializer_range": 0.2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return BertConfig(**settings | changes)


@pytest.fixture
def policy() -> Iterator[Any]:
    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy("float32")


def test_fit_with_its_own_loss(tmp_path: Path) -> None:
    TFBertForSequenceClassification(tiny()).save_pretrained(tmp_path)
    at_rest = (tmp_path / "model.safetensors").read_bytes()
    model = TFBertForSequenceClassification.from_pretrained(tmp_path)
    first = float(model(IDS, labels=LABELS).loss)
    model.compile(keras.optimizers.Adam(1e-2), metrics=["accuracy"])
    history = model.fit({"input_ids": IDS, "labels": LABELS}, epochs=2, batch_size=16, shuffle=False, verbose=0).history
    assert set(history) == {"loss", "accuracy"}
    assert 0 < history["loss"][1] < history["loss"][0] < first + 0.1
    found = model.evaluate({"input_ids": IDS}, LABELS, batch_size=16, verbose=0, return_dict=True)
    output = model(IDS, labels=LABELS)
    assert found["loss"] == pytest.approx(float(output.loss), abs=1e-5)
    assert found["accuracy"] == pytest.approx((np.argmax(output.logits, -1) == LABELS).mean())
    predicted = model.predict({"input_ids": IDS}, batch_size=16, verbose=0)
    assert isinstance(predicted, TFSequenceClassifierOutput)
    np.testing.assert_allclose(predicted.logits, output.logits, atol=1e-6)
    assert (tmp_path / "model.safetensors").read_bytes() == at_rest  # variables lie on the file, and changed


def test_xla_trains_alike() -> None:
    losses = []
    for compiled in (False, True):
        model = TFBertForSequenceClassification(tiny())
        model.compile(keras.optimizers.SGD(0.1), jit_compile=compiled)
        assert model.jit_compile is compiled
        history = model.fit({"input_ids": IDS, "label": LABELS}, epochs=2, shuffle=False, verbose=0).history
        losses.append(history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)


def test_fit_with_a_loss_of_keras() -> None:
    own, theirs = TFBertForSequenceClassification(tiny()), TFBertForSequenceClassification(tiny())
    own.compile(keras.optimizers.SGD(0.1), loss="passthrough")
    theirs.compile(keras.optimizers.SGD(0.1), loss=CROSS_ENTROPY)
    given = {"input_ids": IDS, "labels": LABELS}
    losses = [m.fit(given, batch_size=16, shuffle=False, verbose=0).history["loss"] for m in (own, theirs)]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)


def test_several_labels() -> None:
    model, ends = TFBertForQuestionAnswering(tiny()), {"start_positions": LABELS, "end_positions": LABELS + 1}
    wanted = float(model(IDS, **ends).loss)
    model.compile()
    assert model.evaluate({"input_ids": IDS}, ends, verbose=0) == pytest.approx(wanted, abs=1e-5)
    model.compile(loss=dict.fromkeys(ends, CROSS_ENTROPY))
    found = model.evaluate({"input_ids": IDS, **ends}, verbose=0, return_dict=True)
    assert found["loss"] / 2 == pytest.approx(wanted, abs=1e-5)
    model.compile()
    with pytest.raises(ValueError, match="takes the labels start_positions, end_positions; give them as a dict"):
        model.evaluate({"input_ids": IDS}, LABELS, verbose=0)


def test_what_has_no_loss() -> None:
    model = TFBertForSequenceClassification(tiny())
    model.compile(run_eagerly=True)
    with pytest.raises(ValueError, match="computed no loss: give it labels"):
        model.train_on_batch({"input_ids": IDS})
    with pytest.raises(ValueError, match="sample_weight goes with a loss of Keras"):
        model.train_on_batch({"input_ids": IDS}, LABELS, sample_weight=np.ones(32))
    base = TFBertModel(tiny())
    base.compile(run_eagerly=True)
    with pytest.raises(ValueError, match="TFBertModel has no loss of its own"):
        base.train_on_batch({"input_ids": IDS})


def test_dropout_is_of_training_alone() -> None:
    model = TFBertForSequenceClassification(tiny(hidden_dropout_prob=0.5))
    still = [model(IDS).logits for _ in range(2)]
    moving = [model(IDS, training=True).logits for _ in range(2)]
    assert tf.reduce_all(still[0] == still[1]) and tf.reduce_any(moving[0] != moving[1])


def test_layers_computed_again_have_the_same_gradients() -> None:
    found = []
    for again in (False, True):
        model = TFBertForSequenceClassification(tiny(hidden_dropout_prob=0.3), gradient_checkpointing=again)
        with tf.GradientTape() as tape:
            loss = model(IDS, labels=LABELS, training=True).loss
        found.append([tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_variables)])
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_policy_computes_in_its_dtype(name: str, tmp_path: Path, policy: Any) -> None:
    model = TFBertForSequenceClassification(tiny())
    model.save_pretrained(tmp_path)
    policy(name)
    mixed = TFBertForSequenceClassification.from_pretrained(tmp_path)
    assert mixed.dtype == "float32" and mixed(IDS).logits.dtype == name.removeprefix("mixed_")
    np.testing.assert_allclose(tf.cast(mixed(IDS).logits, tf.float32), model(IDS).logits, atol=0.05)
    mixed.compile("sgd")
    assert np.isfinite(mixed.fit({"input_ids": IDS, "labels": LABELS}, verbose=0).history["loss"]).all()


def test_a_model_of_bfloat16(tmp_path: Path) -> None:
    TFBertForSequenceClassification(tiny()).save_pretrained(tmp_path)
    model = TFBertForSequenceClassification.from_pretrained(tmp_path, dtype="bfloat16")
    assert model.dtype == "bfloat16" and model(IDS).logits.dtype == tf.bfloat16
    model.save_pretrained(tmp_path)
    assert TFBertForSequenceClassification.from_pretrained(tmp_path).dtype == "bfloat16"


def test_keras_files(tmp_path: Path) -> None:
    model = TFBertForSequenceClassification(tiny(id2label={0: "a", 1: "b", 2: "c"}))
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit({"input_ids": IDS, "labels": LABELS}, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is TFBertForSequenceClassification and again.config.id2label[2] == "c"
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)
    assert len(again.optimizer.variables) == len(model.optimizer.variables)
    again.fit({"input_ids": IDS, "labels": LABELS}, verbose=0)
    model.save_weights(tmp_path / "model.weights.h5")
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)


def test_a_model_as_a_layer_of_another() -> None:
    base = TFBertModel(tiny())
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("input_ids", "attention_mask")}
    whole = keras.Model(inputs, keras.layers.Dense(3)(base(inputs)["pooler_output"]))
    given = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
    assert whole(given).shape == (32, 3)
    assert len(whole.trainable_variables) == len(base.trainable_variables) + 2
    base.trainable = False
    assert len(whole.trainable_variables) == 2


def test_a_part_can_be_frozen() -> None:
    model = TFBertForSequenceClassification(tiny())
    model.bert.trainable = False
    assert [variable.name for variable in model.trainable_variables] == ["classifier.weight", "classifier.bias"]
    assert model.num_parameters(only_trainable=True) == 8 * 2 + 2
