"""Steps of Keras's training loops with a model's own loss, or with Keras's losses on what the model predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from .._types import PathLike
from ..call_inputs import takes
from .outputs import TFModelOutput

__all__ = ["OWN_LOSSES", "TFTrainingMixin", "arranged", "label_names", "own_loss", "predicted"]

OWN_LOSSES = (None, "auto", "auto_with_warning", "passthrough")  # what asks for the loss that the model computes itself

# A label → the field of an output that predicts it, the first that is there.
_PREDICTED_BY: Mapping[str, tuple[str, ...]] = {
    "labels": ("logits", "prediction_logits", "reconstruction"),
    "next_sentence_label": ("seq_relationship_logits",),
    "start_positions": ("start_logits",),
    "end_positions": ("end_logits",),
}


def label_names(model: Any) -> list[str]:
    """The inputs of a model that are labels."""
    return [name for name in _PREDICTED_BY if takes(type(model).module_class, name, "call")]


def arranged(model: Any, batch: Any, with_labels: bool) -> tuple[Any, Any, Any]:
    """(inputs by name, labels, weights of samples) of what a dataset gave for one step.

    Labels come beside the inputs or among them, and are returned beside; `with_labels` puts them among them, too, for
    the model's own loss. One label is a tensor, several are a dict.

    Raises:
        ValueError: labels that have no name, where the model takes several.
    """
    inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(batch)
    names = label_names(model)
    inputs = dict(inputs) if isinstance(inputs, Mapping) else {type(model).main_input_name: inputs}
    if "label" in inputs and "labels" in names:  # as datasets call it
        inputs["labels"] = inputs.pop("label")
    given = {name: inputs.pop(name) for name in names if name in inputs}
    if isinstance(labels, Mapping):
        given.update(labels)
    elif labels is not None:
        if len(names) != 1:
            raise ValueError(
                f"{type(model).__name__} takes the labels {', '.join(names) or 'of no name'}; give them as a dict"
            )
        given[names[0]] = labels
    if with_labels:
        inputs.update(given)
    beside = next(iter(given.values())) if len(given) == 1 else given or None
    return inputs, beside, weights


def predicted(output: Any, labels: Any) -> Any:
    """What of an output Keras's losses and metrics compare with these labels: a tensor, or a dict of them."""
    if not isinstance(output, TFModelOutput):
        return output
    if isinstance(labels, Mapping):
        return {name: _first(output, _PREDICTED_BY.get(name, (name,))) for name in labels}
    return _first(output, _PREDICTED_BY["labels"])


def _first(output: TFModelOutput, names: tuple[str, ...]) -> Any:
    found = next((output[name] for name in names if name in output), None)
    return next(value for name, value in output.items() if name != "loss") if found is None else found


def own_loss(model: Any, output: Any, weights: Any) -> Any:
    """The loss that is in an output, and what layers add to it; of several replicas the share of one.

    Raises:
        ValueError: there were no labels, or weights of samples, which only Keras's losses know.
    """
    loss = output.get("loss") if isinstance(output, TFModelOutput) else None
    if loss is None:
        wanted = ", ".join(label_names(model))
        raise ValueError(
            f"{type(model).__name__} computed no loss: give it {wanted}"
            if wanted
            else f"{type(model).__name__} has no loss of its own: compile it with one of Keras's"
        )
    if weights is not None:
        raise ValueError("sample_weight goes with a loss of Keras's: compile the model with one")
    total = tf.add_n([tf.reduce_mean(loss), *(tf.cast(added, loss.dtype) for added in model.losses)])
    return total / tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, total.dtype)


class TFTrainingMixin(keras.Model):
    """Keras's loops for a model that knows its own loss."""

    _has_own_loss = True

    def compile(self, optimizer: Any = "rmsprop", loss: Any = "auto", *args: Any, **kwargs: Any) -> None:
        """Makes the model ready for fit and evaluate; see `keras.Model.compile` for what is not said here.

        Args:
            optimizer: of Keras.
            loss: "auto", "passthrough" or None for the model's own, from labels among the inputs or beside them; or
                one of Keras's, which compares the logits with the labels.
            args: further arguments of Keras's, in its order.
            kwargs: the same by name. `jit_compile` is False where it is not given: XLA takes long to compile.
        """
        self._has_own_loss = isinstance(loss, str | None) and loss in OWN_LOSSES
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer, None if self._has_own_loss else loss, *args, **kwargs)

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Makes a model that comes from Keras's own file ready as it was when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def train_step(self, data: Any) -> Any:
        """One step of fit; returns the loss and metrics by name."""
        return super().train_step(arranged(self, data, self._has_own_loss))

    def test_step(self, data: Any) -> Any:
        """One step of evaluate; returns the loss and metrics by name."""
        return super().test_step(arranged(self, data, self._has_own_loss))

    def predict_step(self, data: Any) -> Any:
        """One step of predict; returns the output. Labels among the inputs are left out."""
        return super().predict_step(arranged(self, data, False))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of one step: the output's own, or that of Keras's loss for what the model predicted."""
        if self._has_own_loss:
            return own_loss(self, y_pred, sample_weight)
        return super().compute_loss(x, y, predicted(y_pred, y), sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Metrics by name, which see what the model predicted."""
        return super().compute_metrics(x, y, predicted(y_pred, y), sample_weight)

    def prepare_tf_dataset(
        self,
        dataset: Any,
        batch_size: int = 8,
        shuffle: bool = True,
        tokenizer: Any = None,
        collate_fn: Callable[..., Any] | None = None,
        collate_fn_args: Mapping[str, Any] | None = None,
        drop_remainder: bool | None = None,
        prefetch: bool = True,
    ) -> tf.data.Dataset:
        """Batches for fit, of the columns that the model takes: inputs by name, and labels beside them.

        Args:
            dataset: a `datasets.Dataset`, a list of dicts, or anything else that gives dicts again and again.
            batch_size: rows of a batch.
            shuffle: whether each epoch has an order of its own.
            tokenizer: whose method `pad` makes rows of one length.
            collate_fn: (rows, …) → arrays by name, in place of that.
            collate_fn_args: further arguments of it.
            drop_remainder: whether a last, smaller batch is left out; as `shuffle` by default.
            prefetch: whether batches are made while others are used.

        Raises:
            InvalidOptionError: no rows, rows that are no dicts, or nothing in them that the model takes.
        """
        from .datasets import prepare

        given = (batch_size, shuffle, tokenizer, collate_fn, collate_fn_args, drop_remainder, prefetch)
        return prepare(self, dataset, *given)

    def load_repo_checkpoint(self, repo_path_or_name: PathLike, **kwargs: Any) -> dict[str, Any]:
        """Goes on from what `PushToHubCallback` saved: variables and optimizer. Nothing is unpickled.

        Args:
            repo_path_or_name: a folder or a repository.
            kwargs: `revision`, `token`, `cache_dir`, `local_files_only`.

        Returns:
            `{"epoch": …}`, how many epochs there were, for `fit(initial_epoch=)`.

        Raises:
            SourceError: there is no such checkpoint. OptionError: the model is not compiled.
        """
        from .callbacks import restore

        return restore(self, repo_path_or_name, **kwargs)
