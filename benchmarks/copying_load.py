"""A load into memory of its own (mmap=False): at most half of the fastest peer that copies."""

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, row, seconds
from _measure import memory, timed, warm_files, warm_memory

bench = Bench(
    "copying_load",
    "Copying load of 2 GB",
    """The file is in the page cache, and ends up in private memory that can be written to without a fault. Ours is
    the whole from_pretrained(mmap=False); of the peers only the reading of a file into a dict of tensors is timed.""",
    memory=int(2.6e9),
)


@bench.prepare
def prepare(context: Context) -> None:
    folder = _checkpoints.large(context)
    if context.peer_python is not None and not (folder / "model.tensors").exists():
        from _harness import run_child

        run_child(__file__, "convert", str(context.peer_python), context)


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(_checkpoints.large(context))


def convert(context: Context) -> dict:
    """Not measured: the checkpoint in the formats that two of the peers read."""
    import torch
    from safetensors.torch import load_file

    folder = _checkpoints.large(context)
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "model.pt")
    from tensorizer import TensorSerializer

    serializer = TensorSerializer(str(folder / "model.tensors"))
    serializer.write_state_dict(state)
    serializer.close()
    return {}


def _dict(context: Context, load: object) -> dict:
    """Times a call that gives name → tensor, and makes sure that the tensors are there."""
    import torch  # noqa: F401

    warm_memory(bench.memory)
    before = memory()
    result: dict = {}
    with timed(result):
        state = load()  # type: ignore[operator]
    after = memory()
    assert len(state) > 30
    result["checksum"] = float(sum(tensor.view(-1)[-1].float() for tensor in state.values()))
    return {**result, "anonymous": after["anonymous"] - before["anonymous"], "peak": after["peak"] - before["rss"]}


@bench.variant()
def pretrained(context: Context) -> dict:
    _loads.load_with("pretrained", _checkpoints.tiny(context), mmap=False)()
    load = _loads.load_with("pretrained", _checkpoints.large(context), mmap=False)
    kept = []

    def state() -> dict:
        kept.append(load())
        return dict(kept[0].named_parameters())

    return _dict(context, state)


@bench.variant(peer=True, optional=True)
def safetensors_pread(context: Context) -> dict:
    from safetensors.torch import load_file

    path = _checkpoints.large(context) / "model.safetensors"
    return _dict(context, lambda: load_file(path, backend="pread"))


@bench.variant(peer=True, optional=True)
def safetensors_clone(context: Context) -> dict:
    from safetensors.torch import load_file

    path = _checkpoints.large(context) / "model.safetensors"
    return _dict(context, lambda: {name: tensor.clone() for name, tensor in load_file(path).items()})


@bench.variant(peer=True, optional=True)
def torch_load(context: Context) -> dict:
    import torch

    path = _checkpoints.large(context) / "model.pt"
    return _dict(context, lambda: torch.load(path, weights_only=True, mmap=False))


@bench.variant(peer=True, optional=True)
def tensorizer(context: Context) -> dict:
    from tensorizer import TensorDeserializer

    path = str(_checkpoints.large(context) / "model.tensors")
    return _dict(context, lambda: dict(TensorDeserializer(path, device="cpu", lazy_load=False).items()))


@bench.variant(peer=True, optional=True)
def runai_model_streamer(context: Context) -> dict:
    from runai_model_streamer import SafetensorsStreamer

    path = str(_checkpoints.large(context) / "model.safetensors")

    def load() -> dict:
        with SafetensorsStreamer() as streamer:
            streamer.stream_file(path)
            # A streamed tensor lies in a buffer that is used again; keeping it takes a copy.
            return {name: tensor.clone() for name, tensor in streamer.get_tensors()}

    return _dict(context, load)


@bench.variant(peer=True, optional=True)
def fastsafetensors(context: Context) -> dict:
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    path = str(_checkpoints.large(context) / "model.safetensors")
    kept = []

    def load() -> dict:
        loader = SafeTensorsFileLoader(SingleGroup(), device="cpu", nogds=True)
        loader.add_filenames({0: [path]})
        buffers = loader.copy_files_to_device()
        kept.extend([loader, buffers])
        return {name: buffers.get_tensor(name) for name in loader.get_keys()}

    return _dict(context, load)


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    peers = [name for name in results.rounds if name != "pretrained"]
    if not peers:
        return [Row("load", seconds(results.median("pretrained")), "–", "–", None, "–", None)]
    fastest = min(peers, key=results.median)
    best = f"the fastest of them, {fastest.replace('_', ' ')}"
    return [
        row(results, "load", "pretrained", fastest, 0.5, against=best),
        *(row(results, "load", "pretrained", name, None) for name in sorted(peers, key=results.median)),
    ]


if __name__ == "__main__":
    import sys

    from _harness import Variant

    if "convert" in sys.argv:
        bench.variants["convert"] = Variant("convert", convert, True, True)
    bench.main()
