"""Bars, interruptions and words."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

import pytest

from pretrained.cli import output
from pretrained.cli.output import Column, dims, emit_json, plural, print_table, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_for_a_terminal_and_for_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for total, stream, has_bar in ((output.BAR_FROM, Terminal(), True), (10, Terminal(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress("converting", total) as advance:
            advance(total // 2)
            advance(total - total // 2)
        assert ("converting" in stream.getvalue()) is has_bar
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with progress("converting", output.BAR_FROM) as advance:
        advance(1)
    assert stream.getvalue() == ""


def test_an_interrupted_command_says_so_in_one_word(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrained.cli.command.resolve", interrupt)
    result = run("inspect", "x")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_the_library_s_warnings_are_lines(copy: Any, run: Any) -> None:
    folder = copy("bert/torch-safetensors-sharded")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    del index["weight_map"]["bert.pooler.dense.bias"]
    path.write_text(json.dumps(index))
    result = run("inspect", folder)
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: ")
    assert "does not list 1 tensors of its shards: bert.pooler.dense.bias" in result.stderr
    assert result.stderr.count("\n") == 1


def test_plain_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Column("name"), Column("bytes", True)], [["a", "1"], ["long name", "1,000"]], title="two")
    assert capsys.readouterr().out == "two\nname       bytes\na              1\nlong name  1,000\n"
    print_table([Column("name")], [])
    assert capsys.readouterr().out == ""


def test_words() -> None:
    assert (plural(1, "tensor"), plural(0, "tensor"), plural(1000, "file")) == ("1 tensor", "0 tensors", "1,000 files")
    assert (dims((2, 3)), dims(())) == ("[2, 3]", "[]")


def test_json_holds_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"é": [1, None]})
    assert capsys.readouterr().out == '{"\\u00e9": [1, null]}' + os.linesep
    with pytest.raises(ValueError, match="not JSON compliant"):
        emit_json(float("inf"))
