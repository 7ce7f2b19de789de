"""Loading TensorFlow models: the keywords that are theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from .._types import PathLike
from ..errors import InvalidOptionError
from ..loading import Choose, load
from ..options import LoadOptions, split_load_options
from .backend import TFBackend

__all__ = ["from_pretrained"]


def from_pretrained(
    choose_for: Callable[[LoadOptions], Choose],
    ref: PathLike | None,
    config: Any,
    keywords: Mapping[str, Any],
    model_args: Sequence[Any] = (),
) -> Any:
    """What `TFPreTrainedModel.from_pretrained` and the auto classes return; `choose_for` finds the class."""
    rest = dict(keywords)
    policy = keras.mixed_precision.dtype_policy()
    if policy.compute_dtype != policy.variable_dtype and not rest.keys() & {"dtype", "torch_dtype"}:
        rest["dtype"] = policy.variable_dtype  # what a mixed policy computes on
    options, arguments = split_load_options({"config": config, **rest})
    if options.placement.device_map is not None:
        raise InvalidOptionError(
            "device_map= places torch modules; for a TensorFlow model load within tf.device(…) or a strategy's scope",
            key="device_map",
        )
    model, report = load(choose_for(options), ref, options, arguments, TFBackend, model_args)
    return (model, report) if options.output_loading_info else model
