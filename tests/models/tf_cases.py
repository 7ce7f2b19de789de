"""The cases of tests/reference/*_heads in TensorFlow, and what tests of TensorFlow families share."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf
from drawn_weights import draw
from safetensors.numpy import load_file
from tiny import REFERENCE, TINY

from pretrained.call_inputs import takes

# Torch's name of what a class does not take, or does not give.
NO_INPUTS = ("use_cache", "num_items_in_batch")
NO_OUTPUTS = ("past_key_values",)


def find_tf(family: str, name: str) -> Any:
    """The TensorFlow class of a family that is called so, or so less `TF`."""
    declared = import_module(f"pretrained.models.{family}.family").FAMILY
    places = [place.split(":") for place in (*declared.tf.values(), *declared.names)]
    wanted = "TF" + name.removeprefix("TF")
    module = next(module for module, found in places if found == wanted)
    return getattr(import_module(f"pretrained.models.{family}.{module}"), wanted)


def arrays_of(path: Path) -> dict[str, Any]:
    with np.load(path) as arrays:
        return dict(arrays)


def filled(cls: Any, config: Any, values: Any = draw, **arguments: Any) -> Any:
    """A model each of whose parameters has what `values` gives for its name and shape."""
    described = cls(config, **arguments).structure.places
    state = {place.name: np.asarray(values(place.name, place.shape)) for place in described}
    return cls.from_pretrained(None, config=config, state_dict=state, **arguments)


def run_tf_case(family: str, case: str, attention: str = "eager") -> tuple[Any, dict[str, Any]]:
    """Output of one case, and what torch gave."""
    folder = REFERENCE / f"{family}_heads"
    described = json.loads((folder / "cases.json").read_text())
    spec, inputs = described["cases"][case], arrays_of(folder / "inputs.npz")
    cls = find_tf(family, spec["class"])
    values = described["base"] | spec.get("config", {})
    config = cls.config_class.from_dict(values, attn_implementation=attention)
    stored: Any = draw
    if (folder / "model.safetensors").is_file():
        weights, prefix = load_file(folder / "model.safetensors"), f"{cls.base_model_prefix}."

        def stored(name: str, shape: Any) -> Any:
            names = (f"{case}|{name}", name, prefix + name, name.removeprefix(prefix))
            return weights[next(key for key in names if key in weights)]

    model = filled(cls, config, stored, **spec.get("arguments", {}))
    given = {k: inputs[v[1:]] if isinstance(v, str) else v for k, v in spec["inputs"].items() if k not in NO_INPUTS}
    assert all(takes(cls.module_class, name, "call") for name in given)
    output = model(**given)
    everything = arrays_of(folder / "expected.npz")
    expected = {name.split("/")[1]: value for name, value in everything.items() if name.startswith(f"{case}/")}
    return output, {name: value for name, value in expected.items() if name not in NO_OUTPUTS}


def pick(output: Any, name: str) -> Any:
    """`logits`, or `attentions.0`, of an output."""
    field, _, index = name.partition(".")
    return output[field][int(index)] if index else output[field]


def seen_places(family: str, inputs: dict[str, Any]) -> np.ndarray | None:
    """Which places are compared, `(batch, seq)`: what a decoder gives at padding before a text is not defined."""
    return inputs["attention_mask"].astype(bool) if family in ("gpt2", "llama", "mistral", "qwen2", "qwen3") else None


def check_case(family: str, case: str, attention: str = "eager", limit: float = 2e-5) -> Any:
    """Runs a case and compares all that torch gave, the loss included; returns the output."""
    output, expected = run_tf_case(family, case, attention)
    seen = seen_places(family, arrays_of(REFERENCE / f"{family}_heads/inputs.npz"))
    assert expected
    for name, value in expected.items():
        found = np.asarray(pick(output, name))
        assert found.shape == value.shape, name
        if seen is not None and name.startswith("attentions"):
            found, value = found.swapaxes(1, 2), value.swapaxes(1, 2)
        if seen is not None and value.shape[:2] == seen.shape:
            found, value = found[seen], value[seen]
        np.testing.assert_allclose(found, value, atol=limit, rtol=0, err_msg=name)
    return output


def check_reference(family: str, name: str, folder: str) -> Any:
    """Loads one of the reference's checkpoints and compares what it computes with what torch did; returns the model."""
    place = REFERENCE / family
    cls, expected = find_tf(family, name), arrays_of(place / "expected.npz")
    variant = "bf16" if "variant" in folder else None
    model, report = cls.from_pretrained(place / folder, variant=variant, dtype="float32", output_loading_info=True)
    written = json.loads((place / folder / "config.json").read_text())["architectures"]
    is_same = written == [name]  # another class may have a pooler, say, of its own
    assert not (is_same and report["missing_keys"]) and not report["mismatched_keys"], report.render()
    inputs = arrays_of(place / "inputs.npz")
    output = model(**{key: value for key, value in inputs.items() if not ("Encoder" in name and "decoder" in key)})
    keys = [key for key in expected if key.startswith(f"torch/{name}/")]
    assert keys
    limit = 2e-5 if "16" not in folder else 0.1
    for key in keys:
        found, value = np.asarray(output[key.split("/")[2]]), expected[key]
        assert found.shape == value.shape
        seen = seen_places(family, inputs)
        found, value = (found, value) if seen is None else (found[seen], value[seen])
        np.testing.assert_allclose(found, value, atol=limit, rtol=0)
    return model


def check_h5(family: str, name: str, folder: Path) -> None:
    """What is written as HDF5 is what transformers' class wrote of the same weights: variable for variable and bit
    for bit, in one file and in shards."""
    model = find_tf(family, name).from_pretrained(REFERENCE / family / "tf-h5")
    for layout, size in (("tf-h5", "5GB"), ("tf-h5-sharded", "9kB")):
        model.save_pretrained(folder / layout, safe_serialization=False, max_shard_size=size, durable=False)
        found, wanted = _variables_of(folder / layout), _variables_of(REFERENCE / family / layout)
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert np.array_equal(found[key], value), key


def _variables_of(folder: Path) -> dict[str, Any]:
    """What the HDF5 files of a folder hold, by its whole name; what has two names is there twice."""
    found: dict[str, Any] = {}

    def note(group: Any, prefix: str) -> None:
        for name, item in group.items():
            if isinstance(item, h5py.Dataset):
                found[prefix + name] = item[()]
            else:
                note(item, f"{prefix}{name}/")

    for path in folder.glob("*.h5"):
        with h5py.File(path) as file:
            note(file, "")
    return found


def check_checkpointing(model: Any, again: Any, **inputs: Any) -> list[Any]:
    """Both models, the second of which computes layers again in the backward pass, give the same gradients, one for
    each parameter; returns them."""
    found = []
    for one in (model, again):
        with tf.GradientTape() as tape:
            loss = one(**inputs, training=True).loss
        found.append([tf.convert_to_tensor(grad) for grad in tape.gradient(loss, one.trainable_variables)])
        assert abs(float(loss - one(**inputs).loss)) > 1e-4  # something was dropped
    for plain, other in zip(*found, strict=True):
        np.testing.assert_allclose(plain, other, atol=1e-4)
    assert len(found[0]) == len(model.structure.places)
    return found[0]


def check_round_trip(cls: Any, model_type: str, folder: Path, safe: bool, **changes: Any) -> Any:
    """Saves a model and loads it again: the same names, the same bits, the same config."""
    model = filled(cls, TINY[model_type](**changes))
    model.save_pretrained(folder, safe_serialization=safe, durable=False, max_shard_size="9kB")
    again, report = cls.from_pretrained(folder, output_loading_info=True, strict=True)
    assert report["missing_keys"] == report["unexpected_keys"] == []
    check_same_variables(model, again)
    assert model.config.to_dict() == again.config.to_dict()
    return again


def check_same_variables(model: Any, other: Any) -> None:
    """Both have the same parameters, bit by bit."""
    mine, theirs = model.structure.variables, other.structure.variables
    assert list(mine) == list(theirs)
    for name, variable in mine.items():
        assert tf.reduce_all(variable.value == theirs[name].value), name
