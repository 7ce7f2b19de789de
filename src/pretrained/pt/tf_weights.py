"""TensorFlow's weights into a live torch model: what `PreTrainedModel.load_tf_weights` calls."""

from __future__ import annotations

from torch import nn

from .._types import PathLike
from ..configuration import PretrainedConfig
from .any_module import load_into

__all__ = ["load_tf_weights"]


def load_tf_weights(model: nn.Module, config: PretrainedConfig, path: PathLike) -> nn.Module:
    """Fills a model from a TensorFlow checkpoint or Keras' HDF5 weights. If anything fails it is as it was.

    Args:
        model: any `nn.Module` with torch's names; what the checkpoint lacks keeps its value.
        config: what the model was built from; the names and shapes of the model say it all, and it is not looked at.
        path: `folder/model.ckpt`, its index `folder/model.ckpt.index`, an .h5 file, or a folder that holds one of them.

    Returns:
        The model.

    Raises:
        SourceError, WeightsFormatError, MismatchError: as `from_pretrained`.
    """
    load_into(model, path)
    return model
