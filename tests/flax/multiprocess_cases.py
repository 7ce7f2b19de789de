"""One of two processes of 4 devices each that load, run and save a model together; `test_multiprocess.py` starts both.

python multiprocess_cases.py INDEX PORT FOLDER SCENARIO
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

INDEX, PORT, FOLDER, SCENARIO = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402
from jax.sharding import Mesh, PartitionSpec  # noqa: E402

from pretrained import FlaxBertForMaskedLM, FlaxBertForSequenceClassification  # noqa: E402
from pretrained.checkpoint.boxes import shape_of  # noqa: E402
from pretrained.checkpoint.formats import safetensors  # noqa: E402
from pretrained.errors import InvalidOptionError, SaveError  # noqa: E402
from pretrained.flax.sharding import box_here  # noqa: E402

IDS = np.arange(2, 34).reshape(4, 8)


def whole(array: Any) -> Any:
    return multihost_utils.process_allgather(array, tiled=True)


def share(params: Any) -> int:
    """Bytes of what the devices of this process hold, each element once."""
    leaves = jax.tree.leaves(params)
    return sum(int(np.prod(shape_of(box_here(a.sharding, a.shape)))) * a.dtype.itemsize for a in leaves)


def load_and_run(mesh: Mesh) -> dict[str, Any]:
    model, report = FlaxBertForMaskedLM.from_pretrained(FOLDER / "old", mesh=mesh, output_loading_info=True)
    plain = FlaxBertForMaskedLM.from_pretrained(FOLDER / "old")
    found = {"touched": report.bytes_read + report.bytes_mapped, "share": share(model.params)}
    found["all"] = sum(leaf.nbytes for leaf in jax.tree.leaves(plain.params))
    np.save(FOLDER / f"logits-{INDEX}.npy", whole(model(IDS).logits))

    same = jax.tree.map(lambda a, b: np.array_equal(whole(a), b), model.params, plain.params)
    assert jax.tree.all(same)
    bf16, report = FlaxBertForMaskedLM.from_pretrained(
        FOLDER / "old", mesh=mesh, param_dtype="bfloat16", output_loading_info=True
    )
    found["touched by a cast"] = report.bytes_read + report.bytes_mapped
    assert jax.tree.all(
        jax.tree.map(lambda a, b: np.array_equal(whole(a), b.astype("bfloat16")), bf16.params, plain.params)
    )

    head = FlaxBertForSequenceClassification.from_pretrained(FOLDER / "old", mesh=mesh, seed=5)
    alone = FlaxBertForSequenceClassification.from_pretrained(FOLDER / "old", seed=5)
    assert np.array_equal(whole(head.params["classifier"]["weight"]), alone.params["classifier"]["weight"])
    return found


def save_together(mesh: Mesh) -> None:
    model = FlaxBertForMaskedLM.from_pretrained(FOLDER / "old", mesh=mesh)
    # One that is the main process or not has parts of its own to write all the same.
    model.save_pretrained(FOLDER / "new", is_main_process=INDEX == 0)
    model.save_pretrained(FOLDER / "shards", max_shard_size="4MB")
    with pytest.raises(InvalidOptionError, match="spread over several processes"):
        model.save_pretrained(FOLDER / "no", safe_serialization=False)
    params = model.resize_token_embeddings(520)
    assert params["bert"]["embeddings"]["word_embeddings"]["weight"].sharding.spec == PartitionSpec("model", None)
    model.save_pretrained(FOLDER / "resized")


def fail(mesh: Mesh) -> None:
    """The second process's disk is full."""
    model = FlaxBertForMaskedLM.from_pretrained(FOLDER / "new", mesh=mesh)

    def write_into(*args: Any, **options: Any) -> int:
        raise OSError(28, "No space left on device")

    real = safetensors.write_into
    if INDEX == 1:
        safetensors.write_into = write_into
    by = "process 1 of 2: " if INDEX == 0 else "cannot save to "
    with pytest.raises(OSError, match=by) as caught:
        model.save_pretrained(FOLDER / "new", max_shard_size="1MB")
    assert "No space left on device" in str(caught.value)
    assert isinstance(caught.value, SaveError)
    safetensors.write_into = real


def die(mesh: Mesh) -> None:
    """One process is killed while it writes."""
    model = FlaxBertForMaskedLM.from_pretrained(FOLDER / "old", mesh=mesh)
    victim = int(SCENARIO.removeprefix("die-"))
    if victim == INDEX:
        safetensors.write_into = lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL)
    try:
        model.save_pretrained(FOLDER / "old", max_shard_size="1MB")
    except SaveError as error:
        (FOLDER / "said").write_text(str(error))
    os._exit(0)  # a run that lost a process does not end by itself for minutes


def main() -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{PORT}", 2, INDEX)
    # Each layer is split over both processes.
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4).T, ("data", "model"))
    if SCENARIO.startswith("die"):
        die(mesh)
    found = load_and_run(mesh)
    save_together(mesh)
    fail(mesh)
    (FOLDER / f"found-{INDEX}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
