"""Fine-tunes BERT for classification with Keras on data made on the spot, exports a SavedModel and serves it.

    pip install 'pretrained[tf]'
    python examples/tensorflow_finetune.py [checkpoint]

Without a checkpoint the encoder is a small one with fresh weights, so that nothing is downloaded.
"""

from __future__ import annotations

import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

from pretrained import BertConfig, TFBertForSequenceClassification

CLASSES = {0: "first half", 1: "second half"}


def rows(count: int, vocab_size: int, seed: int) -> list[dict[str, object]]:
    """Texts of 6 to 12 tokens; their class says in which half of the vocabulary most of them are."""
    rng = np.random.default_rng(seed)
    made: list[dict[str, object]] = []
    for _ in range(count):
        label, length = int(rng.integers(2)), int(rng.integers(6, 13))
        half = (vocab_size - 10) // 2
        in_own_half = rng.random(length) < 0.8
        ids = 10 + rng.integers(half, size=length) + half * np.where(in_own_half, label, 1 - label)
        made.append({"input_ids": ids.tolist(), "attention_mask": [1] * length, "label": label})
    return made


def load() -> TFBertForSequenceClassification:
    """The model of the checkpoint that was named, or a small one."""
    if len(sys.argv) > 1:
        return TFBertForSequenceClassification.from_pretrained(sys.argv[1], id2label=CLASSES)
    config = BertConfig(
        vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=64, id2label=CLASSES,
    )  # fmt: skip
    return TFBertForSequenceClassification(config)


def main() -> None:
    keras.utils.set_random_seed(0)
    model = load()
    vocab_size = model.config.vocab_size
    train = model.prepare_tf_dataset(rows(1024, vocab_size, seed=1), batch_size=32)
    held_out = model.prepare_tf_dataset(rows(256, vocab_size, seed=2), batch_size=32, shuffle=False)

    model.compile(keras.optimizers.Adam(1e-3), metrics=["accuracy"])  # the loss is the model's own
    model.fit(train, epochs=3, shuffle=False, verbose=2)  # the dataset shuffles itself
    found = model.evaluate(held_out, verbose=0, return_dict=True)
    print(f"held out: loss {found['loss']:.3f}, accuracy {found['accuracy']:.3f}")

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, saved_model=True)
        served = tf.saved_model.load(f"{folder}/saved_model/1").signatures["serving_default"]
        inputs = {name: tf.cast(value, tf.int32) for name, value in next(iter(held_out))[0].items()}
        inputs["token_type_ids"] = tf.zeros_like(inputs["input_ids"])
        logits = served(**inputs)["logits"]
        difference = float(tf.reduce_max(tf.abs(logits - model(inputs).logits)))
        print(f"the SavedModel's logits differ from the model's by at most {difference:.1e}")

        again = TFBertForSequenceClassification.from_pretrained(folder)  # and any framework's class reads the same
        print("loaded again:", [again.config.id2label[int(i)] for i in tf.argmax(again(inputs).logits, -1)[:4]])


if __name__ == "__main__":
    main()
