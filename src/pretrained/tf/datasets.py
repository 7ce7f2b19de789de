"""tf.data pipelines of whatever gives rows as dicts: picking columns, shuffling, putting rows together."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..call_inputs import takes
from ..errors import InvalidOptionError
from .losses import IGNORED
from .training import label_names

__all__ = ["collate", "prepare"]

Rows = Sequence[Mapping[str, Any]]
_WINDOW = 4096  # rows among which those of a dataset are shuffled that cannot be asked for by number


def prepare(
    model: Any,
    dataset: Any,
    batch_size: int,
    shuffle: bool,
    tokenizer: Any,
    collate_fn: Callable[..., Any] | None,
    collate_fn_args: Mapping[str, Any] | None,
    drop_remainder: bool | None,
    prefetch: bool,
) -> tf.data.Dataset:
    """What `TFPreTrainedModel.prepare_tf_dataset` returns; arguments are those of it.

    Raises:
        InvalidOptionError: no rows, or rows that are no dicts or have nothing that the model takes.
    """
    drop_remainder = shuffle if drop_remainder is None else drop_remainder
    labels = label_names(model)
    pad = getattr(model.config, "pad_token_id", None) or 0

    def together(rows: Rows) -> Any:
        if collate_fn is not None:
            made = collate_fn(rows, **(collate_fn_args or {}))
        else:
            made = collate(rows, tokenizer, pad)
        arrays = {name: _array(value) for name, value in made.items()}
        if "label" in arrays and "labels" in labels:
            arrays["labels"] = arrays.pop("label")
        kept = {name: value for name, value in arrays.items() if takes(type(model).module_class, name, "call")}
        beside = {name: kept.pop(name) for name in labels if name in kept}
        if not kept:
            raise InvalidOptionError(f"{type(model).__name__} takes none of {', '.join(arrays)}", key="dataset")
        return (kept, next(iter(beside.values())) if len(beside) == 1 else beside) if beside else kept

    def batches() -> Iterator[Any]:
        rows: list[Mapping[str, Any]] = []
        for row in _rows(dataset, shuffle):
            rows.append(row)
            if len(rows) == batch_size:
                yield together(rows)
                rows = []
        if rows and not drop_remainder:
            yield together(rows)

    first = together(list(_first(dataset, batch_size)))
    specs = tf.nest.map_structure(lambda x: tf.TensorSpec((None,) * x.ndim, x.dtype), first)
    found = tf.data.Dataset.from_generator(batches, output_signature=specs)
    if isinstance(dataset, Sequence) or _is_indexed(dataset):
        full, rest = divmod(len(dataset), batch_size)
        found = found.apply(tf.data.experimental.assert_cardinality(full + bool(rest and not drop_remainder)))
    return found.prefetch(tf.data.AUTOTUNE) if prefetch else found


def _is_indexed(dataset: Any) -> bool:
    """Whether rows can be asked for by number."""
    return {"__len__", "__getitem__"} <= set(dir(type(dataset)))


def _rows(dataset: Any, shuffle: bool) -> Iterator[Mapping[str, Any]]:
    if not shuffle:
        yield from dataset
    elif _is_indexed(dataset):
        order = list(range(len(dataset)))
        random.shuffle(order)
        yield from (dataset[place] for place in order)
    else:
        window: list[Mapping[str, Any]] = []
        for row in dataset:
            window.append(row)
            if len(window) == _WINDOW:
                place = random.randrange(_WINDOW)
                window[place], window[-1] = window[-1], window[place]
                yield window.pop()
        random.shuffle(window)
        yield from window


def _first(dataset: Iterable[Any], count: int) -> Iterator[Mapping[str, Any]]:
    """The first rows, looked at to learn what there is."""
    number = 0
    for row in dataset:
        if not isinstance(row, Mapping):
            raise InvalidOptionError(f"a row of the dataset is a {type(row).__name__}, not a dict", key="dataset")
        yield row
        number += 1
        if number == count:
            return
    if not number:
        raise InvalidOptionError("the dataset has no rows", key="dataset")


def collate(rows: Rows, tokenizer: Any = None, pad_token_id: int = 0) -> dict[str, Any]:
    """Rows as arrays with an axis for the batch in front; what differs in length is padded on the right.

    A tokenizer with a method `pad` does that itself. Without one ids are padded with `pad_token_id`, labels with -100,
    which no loss counts, and everything else with 0.
    """
    if tokenizer is not None:
        found: dict[str, Any] = dict(tokenizer.pad([dict(row) for row in rows], return_tensors="np"))
        return found
    names = [name for name in rows[0] if all(_is_number(row.get(name)) for row in rows)]
    return {name: _stacked(name, [np.asarray(row[name]) for row in rows], pad_token_id) for name in names}


def _is_number(value: Any) -> bool:
    return value is not None and np.asarray(value).dtype.kind in "biuf"


def _stacked(name: str, arrays: list[np.ndarray], pad_token_id: int) -> np.ndarray:
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    fill = {"input_ids": pad_token_id, "labels": IGNORED}.get(name, 0)
    longest = np.max([array.shape for array in arrays], 0)
    out = np.full((len(arrays), *longest), fill, arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[tuple(slice(size) for size in array.shape)] = array
    return out


def _array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array
