"""A JAX model on a mesh: what each of two processes reads of the file, how long it takes, what memory it needs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _harness import Bench, Context, Results, Row, bound, megabytes, row
from _measure import drop_files, memory, reset_peak, timed, warm_files

bench = Bench(
    "flax_sharded",
    "A BERT of 1.3 GB on 8 devices of JAX",
    """A BERT of 24 layers, 1,024 wide, in float32 (6 layers with --quick) is loaded onto 8 devices of the CPU: all of
    one process, or 4 each of two processes that jax.distributed brings together, every layer split over both. A load
    ends when every page of what the devices hold was touched. Then it is saved, by both together. What a process reads
    is in its report; what came from the disk, in /proc/self/io, with the file taken out of the page cache before.""",
    repeats=3,
)

_WEIGHTS = "bert-{layers}"
_SIZES = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "vocab_size": 30528}


def _folder(context: Context) -> Path:
    return context.scratch / _WEIGHTS.format(layers=6 if context.quick else 24)


@bench.prepare
def prepare(context: Context) -> None:
    """Written by a process of its own, which has the memory for it."""
    folder = _folder(context)
    if folder.exists():
        return
    layers = int(folder.name.rpartition("-")[2])
    code = (
        "import sys, torch; from pretrained import BertConfig, BertForMaskedLM; torch.manual_seed(0)\n"
        f"model = BertForMaskedLM(BertConfig(num_hidden_layers={layers}, **{_SIZES!r}))\n"
        "model.save_pretrained(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(_folder(context))
    if "cold" in name:
        drop_files(_folder(context))


def _read_from_disk() -> int:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


def _touched(params: Any) -> float:
    """Sums of everything the devices of this process hold, once for each piece of memory."""
    import jax
    import numpy as np

    total, seen = 0.0, set()
    for array in jax.tree.leaves(params):
        for shard in array.addressable_shards:
            if (address := shard.data.unsafe_buffer_pointer()) not in seen:
                seen.add(address)
                total += float(np.asarray(shard.data).reshape(-1)[::256].sum())
    return total


def _measured(folder: Path, mesh: Any, target: Path | None) -> dict:
    import jax
    import numpy as np

    from pretrained import FlaxBertForMaskedLM
    from pretrained.checkpoint.boxes import shape_of
    from pretrained.flax.sharding import box_here

    jax.device_put(np.zeros(8)).block_until_ready()
    result: dict = {}
    reset_peak()
    start, disk, cpu = memory(), _read_from_disk(), time.process_time()
    with timed(result):
        model, report = FlaxBertForMaskedLM.from_pretrained(folder, mesh=mesh, output_loading_info=True)
        _touched(model.params)
    now, result["cpu"] = memory(), time.process_time() - cpu
    result |= {"anonymous": now["anonymous"] - start["anonymous"], "peak": now["peak"] - start["rss"]}
    result |= {"touched": report.bytes_read + report.bytes_mapped, "from_disk": _read_from_disk() - disk}
    leaves = jax.tree.leaves(model.params)
    result["share"] = sum(int(np.prod(shape_of(box_here(a.sharding, a.shape)))) * a.dtype.itemsize for a in leaves)
    result["all"] = sum(array.nbytes for array in leaves)
    if target is not None:
        reset_peak()
        start = memory()
        with timed(result, "save_seconds"):
            model.save_pretrained(target, durable=False)
        result["save_peak"] = memory()["peak"] - start["rss"]
    return result


def _use_devices(count: int) -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"


@bench.variant()
def one_device(context: Context) -> dict:
    _use_devices(1)
    return _measured(_folder(context), None, context.scratch / "saved-whole")


@bench.variant()
def one_process(context: Context) -> dict:
    _use_devices(8)
    import jax
    import numpy as np

    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
    return _measured(_folder(context), mesh, context.scratch / "saved-mesh")


@bench.variant()
def two_processes(context: Context) -> dict:
    return _both(context, context.scratch / "saved-together")


@bench.variant()
def one_device_cold(context: Context) -> dict:
    _use_devices(1)
    return _measured(_folder(context), None, None)


@bench.variant()
def two_processes_cold(context: Context) -> dict:
    return _both(context, None)


def _both(context: Context, target: Path | None) -> dict:
    """The figures of the process that took or needed more."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    running = [
        subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, _ORDER: json.dumps([index, port, str(_folder(context)), target and str(target)])},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    worst = {key: max(one[key] for one in found) for key in found[0]}
    # A page that both want is charged to whoever comes first, so of this only the sum says something.
    return worst | {"from_disk": sum(one["from_disk"] for one in found) / len(found)}


_ORDER = "PRETRAINED_BENCH_PROCESS"


def _one_of_two(index: int, port: str, folder: str, target: str | None) -> None:
    _use_devices(4)
    import jax
    import numpy as np

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, index)
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4).T, ("data", "model"))
    print(json.dumps(_measured(Path(folder), mesh, None if target is None else Path(target))), flush=True)


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    def whole(key: str) -> float:
        return results.median("one_device", key)

    one_of = "two_processes"
    touched, share = results.median(one_of, "touched"), results.median(one_of, "share")
    on_disk = 2 * results.median("two_processes_cold", "from_disk") / results.median("one_device_cold", "from_disk")
    return [
        bound("read by one of two processes, of its share", touched / share, 1.1, lambda value: f"{value:.3f}"),
        bound("its share, of the parameters", share / results.median(one_of, "all"), 0.6, lambda value: f"{value:.2f}"),
        # They share a page cache, so this shows that nothing comes twice, not who read it.
        bound("both from a cold disk, of one device's", on_disk, 1.05, lambda value: f"{value:.2f}"),
        row(results, "two processes, warm", one_of, "one_device", None),
        row(results, "two processes, cold", "two_processes_cold", "one_device_cold", None),
        row(results, "work of one of two", one_of, "one_device", None, key="cpu"),
        row(results, "8 devices of one process, warm", "one_process", "one_device", None),
        row(results, "memory of its own, one of two", one_of, "one_device", None, key="anonymous", show=megabytes),
        bound("peak of one of two, of its share", results.median(one_of, "peak") / share, 1.4, lambda v: f"{v:.2f}"),
        row(results, "save together", one_of, "one_device", None, key="save_seconds"),
        bound("peak of that save beside the model", results.median(one_of, "save_peak"), 100e6, megabytes),
        bound("the same, one process with 8 devices", results.median("one_process", "save_peak"), 100e6, megabytes),
    ]


if __name__ == "__main__":
    if _ORDER in os.environ:
        _one_of_two(*json.loads(os.environ[_ORDER]))
    else:
        bench.main()
