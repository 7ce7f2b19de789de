"""`pretrained verify`: whether the files of a checkpoint are whole, agree, and are what was recorded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from .._types import Snapshot
from ..checkpoint.checksums import SUMS, Recorded, digest, dump_sums, is_sums_file, read_sums, recorded_by_cache
from ..checkpoint.commit import Stage
from ..checkpoint.files import read_json, safe_join
from ..checkpoint.find import Weights, find_checkpoint, has_usual_name, is_weight_file
from ..checkpoint.formats import format_of
from ..checkpoint.formats.tf_bundle import BundleFile
from ..checkpoint.windows import num_bad_values
from ..errors import ConfigError, HubError, IntegrityError, InvalidOptionError, PretrainedError, SourceError
from ..hub.snapshot import FolderSnapshot
from ..options import WeightOptions
from .command import FINDING, FINE, Command, Where, source_options
from .output import Column, emit_json, plural, print_table, progress, say

__all__ = ["verify"]

_CONFIGS = ("config.json", "generation_config.json", "adapter_config.json")
_INDEX = re.compile(r".+\.index(\..+)?\.json")
_VARIANT = re.compile(r"model\.(?P<single>[^/]+?)\.safetensors|model\.safetensors\.index\.(?P<index>[^/]+)\.json")
_SHARD = re.compile(r".*-\d{5}-of-\d{5}\..+")
_WHOLE = "(the checkpoint)"  # the row of what concerns no single file
_MAX_NAMED = 8  # tensors named in one remark


@dataclass
class Checked:
    """What was found about one file.

    Attributes:
        name: relative to the folder. path: where it is, if it is there.
        size: bytes; None if there is no such file.
        done: what was looked at. bad: what is wrong. notes: what is odd and harmless.
        content: where a checksum of it was recorded, if one was.
        sha256: its digest, once it was computed.
    """

    name: str
    path: Path | None = None
    size: int | None = None
    done: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    sha256: str | None = None

    @contextmanager
    def looking_at(self, what: str) -> Iterator[None]:
        """Notes that `what` was looked at; one of our errors in the block is what is wrong with the file."""
        self.done.append(what)
        try:
            yield
        except PretrainedError as error:
            if str(error) not in self.bad:
                self.bad.append(str(error))


class Verification:
    """One run over the files of a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.only: str | None = getattr(snapshot, "only", None)
        self.names = list(snapshot.names())
        self.files: dict[str, Checked] = {}
        self.opened: dict[str, Weights] = {}

    def file(self, name: str) -> Checked:
        """The row of a file; fetched, if it must be."""
        if name not in self.files:
            checked = self.files[name] = Checked(name)
            if name in self.names:
                with _noted_in(checked):
                    checked.path = _path(self.snapshot, name)
                    checked.size = os.stat(checked.path).st_size
        return self.files[name]

    def check_structure(self, variant: str | None) -> None:
        """Headers, indexes and configs, each by itself and against each other."""
        for name in self._chosen(variant):
            checked = self.file(name)
            if checked.path is not None:
                with checked.looking_at("index" if _INDEX.fullmatch(name) else "header"):
                    self._open(checked)
        listed = {shard for weights in self.opened.values() if weights.index for shard in weights.index.shards}
        for name, checked in self.files.items():
            if _SHARD.fullmatch(name) and not _is_gguf(name) and name not in listed and self.only is None:
                checked.notes.append("no index lists it")
        if not self.opened and self.is_good:
            self._check_without_weights(variant)
        elif self.only is None and not all(map(_is_gguf, self.opened)):  # of several GGUF each is a model
            self._check_as_loaded(variant)
        for name in _CONFIGS:
            if name in self.names:
                checked = self.file(name)
                if checked.path is not None:
                    with checked.looking_at("JSON"):
                        read_json(checked.path, error=ConfigError)

    def _chosen(self, variant: str | None) -> list[str]:
        """Names of weight files and indexes to open: one that was named with its shards, a variant's, or all."""
        if self.only is not None:
            return [self.only]
        found = [name for name in self.names if name.endswith(".safetensors") or ".safetensors.index." in name]
        chosen = [name for name in found if "/" not in name and (variant is None or is_weight_file(name, variant))]
        chosen = chosen or [name for name in self.names if has_usual_name(name, variant) and not _is_gguf(name)]
        return chosen or [name for name in self.names if _is_gguf(name)]

    def _open(self, checked: Checked) -> None:
        assert checked.path is not None
        folder = FolderSnapshot(checked.path.parent, self.snapshot.name, only=checked.path.name)
        weights = self.opened[checked.name] = find_checkpoint(folder, WeightOptions())
        for path in weights.containers:
            self.file(path.name)
        if weights.index is None:
            return
        checked.done.append(plural(len(weights.index.shards), "shard"))
        total = weights.index.metadata.get("total_size")
        if total is not None and total != weights.nbytes:
            checked.notes.append(f"total_size is {total!r:.40}, and the tensors come to {weights.nbytes}")
        if weights.unlisted:
            checked.notes.append(f"{plural(len(weights.unlisted), 'tensor')} of the shards not listed")

    def _check_as_loaded(self, variant: str | None) -> None:
        """What a load of each variant would open must be one checkpoint, not two."""
        matches = [match for name in self.names if (match := _VARIANT.fullmatch(name)) and not _SHARD.fullmatch(name)]
        variants: list[str | None] = [variant]
        if variant is None:
            tagged = sorted({match["single"] or match["index"] for match in matches})
            has_plain = not tagged or any(is_weight_file(name) for name in self.names)
            variants = [None, *tagged] if has_plain else [*tagged]
        for one in variants:
            if self.is_good:
                with self.file(_WHOLE).looking_at(f"as loaded{f' with variant={one}' if one else ''}"):
                    find_checkpoint(self.snapshot, WeightOptions(variant=one))

    def _check_without_weights(self, variant: str | None) -> None:
        """Where nothing can be opened, a list of checksums is still worth following; without one there is nothing."""
        try:
            find_checkpoint(self.snapshot, WeightOptions(variant=variant))
        except SourceError as error:
            if not any(map(is_sums_file, self.names)):
                raise
            self.file(_WHOLE).notes.append(str(error))

    def check_content(self) -> None:
        """Every recorded checksum."""
        recorded = self._recorded()
        total = sum(self.file(name).size or 0 for name in recorded)
        with progress("checksums", total) as advance:
            for name, sums in recorded.items():
                checked = self.file(name)
                if checked.path is None:
                    checked.bad.append(f"listed in {sums[0].where}, and not there")
                    continue
                with checked.looking_at("content"):
                    self._compare(checked, sums, advance)
        self._check_tensors()

    def _check_tensors(self) -> None:
        """The checksum of each tensor, where the format has one."""
        found = {path: c for weights in self.opened.values() for path, c in weights.containers.items()}
        bundles = [container for container in found.values() if isinstance(container, BundleFile)]
        total = sum(entry.nbytes for bundle in bundles for entry in bundle.entries.values())
        with progress("checksums of tensors", total) as advance:
            for bundle in bundles:
                checked = self.file(bundle.path.name)
                with checked.looking_at("content"):
                    checked.content.append("its index")
                    for entry in bundle.entries.values():
                        bundle.read(entry)
                        advance(entry.nbytes)

    def _recorded(self) -> dict[str, list[Recorded]]:
        recorded: dict[str, list[Recorded]] = {}
        # Of a folder everything that is listed; else what there is a row for, so that nothing is fetched for it.
        relevant = set(self.files) if self.only is not None or self.snapshot.folder is None else None
        for name in self.names:
            if is_sums_file(name):
                checked = self.file(name)
                with checked.looking_at("list of checksums"):
                    for target, value in read_sums(_path(self.snapshot, name)).items():
                        if relevant is None or target in relevant:
                            self._adopt(target)
                            recorded.setdefault(target, []).append(Recorded("sha256", value, name))
        for name in self._candidates():
            path = self.file(name).path
            if path is not None and (blob := recorded_by_cache(path)) is not None:
                recorded.setdefault(name, []).append(blob)
        return recorded

    def _adopt(self, name: str) -> None:
        """A list may name files of subfolders, which a snapshot does not list."""
        if name not in self.names and self.snapshot.folder is not None:
            path = safe_join(self.snapshot.folder, name, what="file of a list of checksums")
            if path.is_file():
                self.names.append(name)

    def _candidates(self) -> list[str]:
        """Files whose content may be recorded: of a local folder all, of a hub name those that were fetched anyway."""
        local = self.snapshot.folder is not None and self.only is None
        names = self.names if local else list(self.files)
        return [name for name in names if name in self.names and not name.startswith(".")]

    def _compare(self, checked: Checked, sums: Sequence[Recorded], advance: Callable[[int], None]) -> None:
        assert checked.path is not None
        found = digest(checked.path, {one.kind for one in sums}, advance)
        checked.sha256 = found.get("sha256")
        for one in sums:
            checked.content.append(one.where)
            if found[one.kind] != one.expected:
                raise IntegrityError(
                    f"the content is not what {one.where} recorded: expected {one.expected}, found {found[one.kind]}",
                    path=checked.path,
                    expected=one.expected,
                    got=found[one.kind],
                )

    def check_values(self) -> None:
        """NaN and infinities in the tensors of every file that could be opened, each file once."""
        containers = {path: c for weights in self.opened.values() for path, c in weights.containers.items()}
        total = sum(entry.nbytes for container in containers.values() for entry in container.entries.values())
        with progress("values", total) as advance:
            for path, container in containers.items():
                checked = self.file(path.name)
                with checked.looking_at("values"):
                    self._check_values_of(checked, container, advance)

    def _check_values_of(self, checked: Checked, container: Any, advance: Callable[[int], None]) -> None:
        found = []
        for entry in container.entries.values():
            num_nan, num_inf = num_bad_values(container, entry)
            if num_nan or num_inf:
                parts = [f"{count} {what}" for count, what in ((num_nan, "NaN"), (num_inf, "infinite")) if count]
                found.append(f"{entry.name} ({', '.join(parts)})")
            advance(entry.nbytes)
        if found:
            more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
            checked.bad.append(f"not finite: {', '.join(found[:_MAX_NAMED])}{more}")

    @property
    def is_good(self) -> bool:
        """Whether nothing is bad."""
        return not any(checked.bad for checked in self.files.values())


@contextmanager
def _noted_in(checked: Checked) -> Iterator[None]:
    """Errors of the system or ours become what is wrong with the file; but a hub out of reach is not its fault."""
    try:
        yield
    except HubError:
        raise
    except OSError as error:
        checked.bad.append(str(error) if isinstance(error, PretrainedError) else error.strerror or str(error))


def _is_gguf(name: str) -> bool:
    return format_of(name) == "gguf"


def _path(snapshot: Snapshot, name: str) -> Path:
    """Local path of a file of the snapshot, not out of its folder."""
    return snapshot.path(name) if snapshot.folder is None else safe_join(snapshot.folder, name)


@click.command(cls=Command, short_help="Check files, agreement and checksums.")
@click.argument("source")
@click.option("--data", "with_data", is_flag=True, help="Read every tensor too, and report NaN and infinities.")
@click.option("--write-checksums", is_flag=True, help=f"Record a {SUMS} in the folder, if all is well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@source_options
def verify(source: str, with_data: bool, write_checksums: bool, as_json: bool, where: Where) -> int:
    """Checks headers, indexes, shards, sizes, configs and recorded checksums.

    Content is checked against the names of a Hugging Face cache's blobs, and against SHA256SUMS, sha256sum.txt and
    *.sha256 files. Exit code 1 if anything is bad.
    """
    snapshot = where.snapshot(source)
    if write_checksums:
        _require_own_folder(snapshot)
    run = Verification(snapshot)
    run.check_structure(where.variant)
    if not run.files:
        raise SourceError(f"nothing to verify in {snapshot.name}", path=snapshot.name)
    run.check_content()
    if with_data:
        run.check_values()
    written = _write_sums(run) if write_checksums and run.is_good else None
    if as_json:
        emit_json(_document(run, written))
    else:
        _print(run, written)
        if write_checksums and written is None:
            say(f"{SUMS} was not written: what is bad should not be recorded as good")
    return FINE if run.is_good else FINDING


def _require_own_folder(snapshot: Snapshot) -> None:
    folder = snapshot.folder
    if getattr(snapshot, "only", None) is not None:
        raise InvalidOptionError(
            f"--write-checksums records a whole folder; {snapshot.name} is one file of it", key="write_checksums"
        )
    if folder is None or snapshot.commit is not None or folder.parent.name == "snapshots":
        raise InvalidOptionError(
            f"--write-checksums: {snapshot.name} is in a hub cache, which keeps checksums of its own; give a folder",
            key="write_checksums",
        )


def _write_sums(run: Verification) -> int:
    """Records the sha256 of every file of the folder; returns how many."""
    folder = run.snapshot.folder
    assert folder is not None
    names = [name for name in run.snapshot.names() if not name.startswith(".") and not is_sums_file(name)]
    total = sum(_path(run.snapshot, name).stat().st_size for name in names)
    sums: dict[str, str] = {}
    with progress("checksums", total) as advance:
        for name in names:
            known = run.files[name].sha256 if name in run.files else None
            sums[name] = known or digest(_path(run.snapshot, name), ["sha256"], advance)["sha256"]
    with Stage(folder) as stage:
        stage.path(SUMS).write_bytes(dump_sums(sums))
        stage.commit()
    return len(sums)


def _summary(run: Verification) -> str:
    content = [checked for checked in run.files.values() if checked.content]
    if not content:
        return "nothing was recorded to check content against: headers, sizes and agreement only"
    return f"content of {len(content)} of {plural(_num_files(run), 'file')} checked against what was recorded"


def _num_files(run: Verification) -> int:
    return sum(checked.path is not None for checked in run.files.values())


def _document(run: Verification, written: int | None) -> Mapping[str, Any]:
    return {
        "source": run.snapshot.name,
        "commit": run.snapshot.commit,
        "ok": run.is_good,
        "content_recorded": any(checked.content for checked in run.files.values()),
        "checksums_written": written,
        "files": [
            {
                "name": checked.name,
                "ok": not checked.bad,
                "bytes": checked.size,
                "checked": checked.done,
                "content": checked.content,
                "bad": checked.bad,
                "notes": checked.notes,
            }
            for checked in run.files.values()
        ],
    }


def _print(run: Verification, written: int | None) -> None:
    rows = []
    for checked in run.files.values():
        where = f"content ({', '.join(checked.content)})"
        looked = ", ".join(where if what == "content" else what for what in checked.done)
        size = "" if checked.size is None else f"{checked.size:,}"
        rows.append([checked.name, "bad" if checked.bad else "ok", size, looked])
    print_table([Column("file"), Column("is"), Column("bytes", True), Column("checked")], rows)
    say()
    for checked in run.files.values():
        for text in checked.bad:
            say(f"bad: {checked.name}: {text}")
        for text in checked.notes:
            say(f"note: {checked.name}: {text}")
    if written is not None:
        say(f"recorded the checksums of {plural(written, 'file')} in {SUMS}")
    else:
        say(_summary(run))
    num_bad = sum(bool(checked.bad) for checked in run.files.values())
    say(f"{run.snapshot.name}: " + (f"{plural(num_bad, 'file')} bad" if num_bad else "ok"))
