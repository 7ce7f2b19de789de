"""What TensorFlow models write: h5 as Keras 2 has it, SavedModels, cards, training to go on from; and datasets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from pretrained import PushToHubCallback, TFBertForPreTraining, TFBertForSequenceClassification, TFBertModel
from pretrained.errors import InvalidOptionError, OptionError, SourceError
from pretrained.models.bert.configuration_bert import BertConfig
from pretrained.tf.datasets import collate

REFERENCE = Path(__file__).parents[1] / "reference" / "bert"
IDS = np.array([[5, 6, 7, 8], [9, 10, 0, 0]])
ROWS = [{"input_ids": [5 + i % 60, 6, *[7] * (i % 3)], "label": i % 2, "text": "?"} for i in range(10)]


def tiny() -> BertConfig:
    return BertConfig(
        vocab_size=71,
        hidden_size=8,
        intermediate_size=10,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def names_in(attribute: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in attribute]


class TestHDF5:
    def test_the_layout_is_the_reference_writers(self, tmp_path: Path) -> None:
        TFBertForPreTraining.from_pretrained(REFERENCE / "tf-h5").save_pretrained(tmp_path, safe_serialization=False)
        with h5py.File(tmp_path / "tf_model.h5") as ours, h5py.File(REFERENCE / "tf-h5" / "tf_model.h5") as theirs:
            assert set(names_in(ours.attrs["layer_names"])) == set(names_in(theirs.attrs["layer_names"]))
            assert names_in([ours.attrs["backend"]]) == names_in([theirs.attrs["backend"]]) == ["tensorflow"]
            assert "keras_version" in ours.attrs and list(ours["top_level_model_weights"].attrs) == ["weight_names"]
            for layer in names_in(theirs.attrs["layer_names"]):
                mine, others = (names_in(file[layer].attrs["weight_names"]) for file in (ours, theirs))
                assert set(mine) == set(others)
                for name in mine:
                    assert (ours[layer][name][()] == theirs[layer][name][()]).all(), name

    def test_shards_and_back(self, tmp_path: Path) -> None:
        model = TFBertForPreTraining.from_pretrained(REFERENCE / "tf-h5")
        model.save_pretrained(tmp_path, safe_serialization=False, max_shard_size="40kB")
        mine, theirs = (
            json.loads((folder / "tf_model.h5.index.json").read_text())["weight_map"]
            for folder in (tmp_path, REFERENCE / "tf-h5-sharded")
        )
        assert set(mine) == set(theirs) and len(set(mine.values())) > 1
        with h5py.File(tmp_path / mine["tf_bert_for_pre_training/bert/pooler/dense/kernel:0"]) as file:
            assert "bert/pooler/dense/kernel:0" in names_in(file.attrs["layer_names"])
            assert file["bert/pooler/dense/kernel:0"].shape == (32, 32)
        again, report = TFBertForPreTraining.from_pretrained(tmp_path, output_loading_info=True, strict=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        assert tf.reduce_all(again(IDS)[0] == model(IDS)[0])

    def test_a_base_model_and_what_h5_has_no_type_for(self, tmp_path: Path) -> None:
        model = TFBertModel(tiny())
        model.save_pretrained(tmp_path, safe_serialization=False)
        with h5py.File(tmp_path / "tf_model.h5") as file:
            assert (
                names_in(file["bert"].attrs["weight_names"])[0]
                == "tf_bert_model/bert/embeddings/word_embeddings/weight:0"
            )
        half = TFBertModel.from_pretrained(tmp_path, dtype="bfloat16")
        with pytest.raises(InvalidOptionError, match="is bfloat16, which HDF5 files have no type for"):
            half.save_pretrained(tmp_path, safe_serialization=False)


class TestServing:
    def test_a_saved_model_gives_the_same(self, tmp_path: Path) -> None:
        model = TFBertForSequenceClassification(tiny())
        model.save_pretrained(tmp_path, saved_model=True)
        loaded = tf.saved_model.load(str(tmp_path / "saved_model" / "1"))
        inputs = {name: tf.constant(IDS, tf.int32) for name in model.input_signature}
        inputs["attention_mask"] = tf.constant(IDS != 0, tf.int32)
        inputs["token_type_ids"] = tf.zeros(IDS.shape, tf.int32)
        found = loaded.signatures["serving_default"](**inputs)
        assert list(found) == ["logits"]
        np.testing.assert_allclose(found["logits"], model(inputs).logits, atol=1e-6)
        assert os.listdir(tmp_path / "saved_model") == ["1"]

    def test_signatures_of_ones_own(self, tmp_path: Path) -> None:
        model = TFBertModel(tiny())

        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.int32, "ids")])
        def pooled(ids: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"pooled": model(ids).pooler_output}

        model.save_pretrained(tmp_path, saved_model=True, signatures={"pooled": pooled})
        found = tf.saved_model.load(str(tmp_path / "saved_model" / "1")).signatures["pooled"](
            tf.constant(IDS, tf.int32)
        )
        np.testing.assert_allclose(found["pooled"], model(IDS).pooler_output, atol=1e-6)

    def test_inputs_and_outputs(self) -> None:
        model = TFBertModel(tiny())
        assert {name: spec.shape.rank for name, spec in model.input_signature.items()} == {
            "input_ids": 2,
            "attention_mask": 2,
            "token_type_ids": 2,
        }
        served = model.eager_serving({"input_ids": IDS})
        assert set(served) == {"last_hidden_state", "pooler_output"}
        everything = model.serving_output(model(model.dummy_inputs, output_hidden_states=True, output_attentions=True))
        assert everything["hidden_states"].shape == (2, 3, 3, 8) and everything["attentions"].shape == (1, 3, 2, 3, 3)


class TestDatasets:
    def test_rows_become_batches(self) -> None:
        model = TFBertForSequenceClassification(tiny())
        found = model.prepare_tf_dataset(ROWS, batch_size=4, shuffle=False)
        assert len(found) == 3
        batches = list(found)
        assert [inputs["input_ids"].shape for inputs, _ in batches] == [(4, 4), (4, 4), (2, 4)]
        assert list(batches[0][0]) == ["input_ids"] and batches[0][1].numpy().tolist() == [0, 1, 0, 1]
        assert batches[0][0]["input_ids"].numpy()[0].tolist() == [5, 6, 0, 0]
        model.compile()
        assert model.evaluate(found, verbose=0) > 0

    def test_order(self) -> None:
        model = TFBertForSequenceClassification(tiny())
        shuffled = model.prepare_tf_dataset(ROWS, batch_size=4)
        assert len(shuffled) == 2  # the rest is dropped
        endless = model.prepare_tf_dataset(iter(ROWS), batch_size=4, shuffle=False)
        assert endless.cardinality() == tf.data.UNKNOWN_CARDINALITY
        whole = model.prepare_tf_dataset(ROWS, batch_size=10, drop_remainder=False)
        orders = [next(iter(whole))[0]["input_ids"][:, 0].numpy().tolist() for _ in range(3)]
        assert len({tuple(order) for order in orders}) > 1 and {tuple(sorted(order)) for order in orders} == {
            tuple(range(5, 15))
        }

    def test_collators(self) -> None:
        class Tokenizer:
            def pad(self, rows: Any, return_tensors: str) -> dict[str, Any]:
                return {"input_ids": np.ones((len(rows), 2), np.int64), "labels": np.zeros(len(rows), np.int64)}

        model = TFBertForSequenceClassification(tiny())
        inputs, labels = next(iter(model.prepare_tf_dataset(ROWS, 2, tokenizer=Tokenizer())))
        assert inputs["input_ids"].shape == (2, 2) and labels.shape == (2,)
        made = model.prepare_tf_dataset(
            ROWS, 2, collate_fn=lambda rows, n: {"input_ids": [[n]] * len(rows)}, collate_fn_args={"n": 7}
        )
        assert next(iter(made))["input_ids"].numpy().tolist() == [[7], [7]]
        padded = collate([{"labels": [1]}, {"labels": [1, 2]}])
        assert padded["labels"].tolist() == [[1, -100], [1, 2]]

    def test_mistakes(self) -> None:
        model = TFBertForSequenceClassification(tiny())
        with pytest.raises(InvalidOptionError, match="the dataset has no rows"):
            model.prepare_tf_dataset([])
        with pytest.raises(InvalidOptionError, match="a row of the dataset is a list, not a dict"):
            model.prepare_tf_dataset([[1]])
        with pytest.raises(InvalidOptionError, match="takes none of other"):
            model.prepare_tf_dataset([{"other": 1}])


class TestGoingOn:
    def test_training_goes_on_where_it_was(self, tmp_path: Path) -> None:
        data = {"input_ids": np.tile(IDS, (4, 1)), "labels": np.arange(8) % 2}
        model = TFBertForSequenceClassification(tiny())
        model.compile(keras.optimizers.Adam(1e-2))
        callback = PushToHubCallback(tmp_path)
        model.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[callback])
        assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pickle", ".pkl")]
        again = TFBertForSequenceClassification.from_pretrained(tmp_path)
        again.compile(keras.optimizers.Adam(1e-2))
        assert again.load_repo_checkpoint(tmp_path) == {"epoch": 2}
        assert int(again.optimizer.iterations) == int(model.optimizer.iterations) == 2
        losses = [m.fit(data, shuffle=False, verbose=0).history["loss"] for m in (model, again)]
        np.testing.assert_allclose(losses[0], losses[1], atol=1e-6)

    def test_mistakes(self, tmp_path: Path) -> None:
        model = TFBertForSequenceClassification(tiny())
        with pytest.raises(OptionError, match="compile the model first"):
            model.load_repo_checkpoint(tmp_path)
        model.compile()
        model.save_pretrained(tmp_path)
        with pytest.raises(SourceError, match=r"holds no checkpoint/state\.json"):
            model.load_repo_checkpoint(tmp_path)
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "checkpoint/model.weights.h5").touch()
        for text, complaint in (('{"epoch": "two"}', '"epoch" is no number'), ("[1]", "state.json")):
            (tmp_path / "checkpoint/state.json").write_text(text)
            with pytest.raises(SourceError, match=complaint):
                model.load_repo_checkpoint(tmp_path)
        with pytest.raises(OptionError, match="save_strategy is 'epoch' or 'no'"):
            PushToHubCallback(tmp_path, save_strategy="steps")


def test_a_card(tmp_path: Path) -> None:
    TFBertModel(tiny()).create_model_card(tmp_path, "org/small", license="mit", tags=["tiny"], language="en")
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\n") and "license: mit" in text and "- tiny" in text and "language: en" in text
    assert 'TFBertModel.from_pretrained("org/small")' in text


def test_options(tmp_path: Path) -> None:
    model = TFBertModel(tiny())
    with pytest.raises(OptionError, match="durabel"):
        model.save_pretrained(tmp_path, durabel=False)
    model.save_pretrained(tmp_path / "none", is_main_process=False)
    assert not (tmp_path / "none").exists()
    model.save_pretrained(tmp_path, variant="fp16", max_shard_size="4kB")
    assert (tmp_path / "model.safetensors.index.fp16.json").exists()
    assert TFBertModel.from_pretrained(tmp_path, variant="fp16").num_parameters() == model.num_parameters()
