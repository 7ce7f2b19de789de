"""SavedModels: what a model serves, and its folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import tensorflow as tf

from ..call_inputs import takes

__all__ = ["TFServingMixin", "export"]

_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")
_SMALL = 3  # of every axis of dummy inputs that a config leaves open


class TFServingMixin:
    """What a model gives as a SavedModel, and which inputs it takes there."""

    config: Any
    module_class: ClassVar[Any]
    main_input_name: ClassVar[str]

    @property
    def input_signature(self) -> dict[str, tf.TensorSpec]:
        """Name → shape and dtype of what `serving` is given; axes of any size are None."""
        config, main = self.config, self.main_input_name
        if main == "pixel_values":
            size = config.image_size
            sizes = (size, size) if isinstance(size, int) else tuple(size)
            return {main: tf.TensorSpec((None, config.num_channels, *sizes), tf.float32, main)}
        if main == "input_values":
            return {main: tf.TensorSpec((None, None), tf.float32, main)}
        shape = (None, None, None) if self.module_class.has_choices else (None, None)
        names = [name for name in _TOKENS if takes(self.module_class, name, "call")]
        return {name: tf.TensorSpec(shape, tf.int32, name) for name in names}

    @property
    def dummy_inputs(self) -> dict[str, tf.Tensor]:
        """Inputs as small as they can be, for a call that is only to be traced."""
        return {
            name: tf.ones([_SMALL if size is None else size for size in spec.shape], spec.dtype)
            for name, spec in self.input_signature.items()
        }

    @property
    def serving(self) -> Any:
        """A `tf.function` of a dict with the inputs of `input_signature`, for `tf.saved_model.save(signatures=)`."""
        return tf.function(self.eager_serving, input_signature=[self.input_signature], autograph=False)

    def eager_serving(self, inputs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """What `serving` gives, without a program."""
        return self.serving_output(self(dict(inputs)))  # type: ignore[operator]

    def serving_output(self, output: Any) -> dict[str, tf.Tensor]:
        """The tensors of an output; those of all layers are one, with an axis for the layer in front."""
        found = {}
        for name, value in output.items():
            if tf.is_tensor(value):
                found[name] = value
            elif isinstance(value, tuple) and value and all(map(tf.is_tensor, value)):
                found[name] = tf.stack(value)
        return found


def export(model: Any, folder: Path, signatures: Any = None) -> dict[str, int]:
    """Writes a SavedModel to `folder/saved_model/1`, where it takes the place of another; returns name → bytes.

    Args:
        model: with a method `serving`.
        folder: there already.
        signatures: in place of `{"serving_default": model.serving}`; a function, or a dict of them.
    """
    if signatures is None:
        signatures = model.serving
    if not isinstance(signatures, Mapping):
        signatures = {"serving_default": signatures}
    place = folder / "saved_model" / "1"
    place.parent.mkdir(exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=place.parent, prefix=".writing-"))
    try:
        tf.saved_model.save(model, str(beside), signatures=dict(signatures))
        shutil.rmtree(place, ignore_errors=True)
        os.replace(beside, place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    files = (path for path in place.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(files)}
