"""The error tree: what each class is, what it carries, and what its message may hold."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrained import errors
from pretrained.errors import MAX_MESSAGE, PretrainedError, printable

BUILTINS: dict[str, tuple[type[BaseException], ...]] = {
    "PretrainedError": (Exception,),
    "OptionError": (TypeError,),
    "InvalidOptionError": (ValueError,),
    "MissingFrameworkError": (ImportError,),
    "SourceError": (OSError,),
    "HubError": (OSError,),
    "ConfigError": (OSError, ValueError),
    "WeightsFormatError": (OSError, ValueError),
    "TensorError": (OSError, ValueError),
    "ShardIndexError": (OSError, ValueError),
    "IntegrityError": (OSError, ValueError),
    "MismatchError": (RuntimeError, ValueError),
    "UntrustedPathError": (OSError, ValueError),
    "UntrustedCodeError": (ValueError,),
    "ResourceLimitError": (OSError, ValueError),
    "CheckpointChangedError": (OSError,),
    "CheckpointBusyError": (OSError,),
    "SaveError": (OSError,),
}
CLASSES = [getattr(errors, name) for name in BUILTINS]
EACH = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def test_the_table_is_complete() -> None:
    assert set(BUILTINS) == set(errors.__all__)


@EACH
def test_each_is_also_the_builtin(cls: type[PretrainedError]) -> None:
    with pytest.raises(BUILTINS[cls.__name__]):
        raise cls("no", path="p")
    assert issubclass(cls, PretrainedError)
    assert all(issubclass(cls, builtin) for builtin in BUILTINS[cls.__name__])


@EACH
def test_the_docstring_draws_the_tree(cls: type[PretrainedError]) -> None:
    assert cls.__name__ in (errors.__doc__ or "")
    assert cls.__doc__


@EACH
def test_the_data_is_on_the_exception(cls: type[PretrainedError]) -> None:
    error = cls("what failed", path="/a/b", tensor="t", key="k", reason="why", status=404)
    assert str(error) == error.message == error.args[0] == "what failed"
    assert (error.path, error.tensor, error.key, error.reason) == ("/a/b", "t", "k", "why")
    assert error.status == 404  # type: ignore[attr-defined]
    bare = cls("only this")
    assert (bare.path, bare.tensor, bare.key, bare.reason) == (None, None, None, "only this")


@EACH
@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_each_survives_a_pickle(cls: type[PretrainedError], copied: object) -> None:
    error = cls("broken\x1b[0m", path="/a", tensor="t", key="k", reason="r", expected=(1, 2), offset=7)
    again = copied(error)  # type: ignore[operator]
    assert type(again) is cls
    assert str(again) == str(error)
    assert (again.path, again.tensor, again.key, again.reason) == ("/a", "t", "k", "r")
    assert (again.expected, again.offset, again.fields) == ((1, 2), 7, error.fields)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("HubError", {"status": None}),
        ("WeightsFormatError", {"offset": None}),
        ("TensorError", {"offset": None}),
        ("ShardIndexError", {"offset": None, "shard": None}),
        ("IntegrityError", {"expected": None, "got": None}),
        ("ResourceLimitError", {"limit": None}),
        ("MismatchError", {"complaints": ()}),
    ],
)
def test_what_the_class_promises_is_always_there(name: str, attributes: dict[str, object]) -> None:
    error = getattr(errors, name)("x")
    assert {key: getattr(error, key) for key in attributes} == attributes


def test_at_names_the_file_once() -> None:
    error = errors.ConfigError("'x' must be int", key="x")
    assert error.at("/m/config.json") is error
    assert str(error) == error.args[0] == "/m/config.json: 'x' must be int"
    assert (error.path, error.key, error.reason) == ("/m/config.json", "x", "'x' must be int")
    assert str(error.at("/other")) == "/m/config.json: 'x' must be int"
    assert pickle.loads(pickle.dumps(error)).path == "/m/config.json"


@given(st.text(max_size=3000))
def test_messages_are_short_and_printable(text: str) -> None:
    error = errors.WeightsFormatError(text, reason=text)
    for shown in (str(error), error.reason):
        assert len(shown.encode("utf-8")) <= MAX_MESSAGE <= 2048
        assert all(char.isprintable() or char == "\n" for char in shown)


@given(st.text(max_size=200), st.integers(min_value=8, max_value=100))
def test_printable_keeps_what_fits(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown.encode()) <= limit
    if text.isprintable() and len(text.encode("utf-8", "backslashreplace")) <= limit and "hf_" not in text:
        assert shown == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", "a\\x00b"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("line\nline", "line\nline"),
        ("carriage\rreturn", "carriage\\rreturn"),
        ("right\u202eleft", "right\\u202eleft"),
        ("half \ud800", "half \\ud800"),
        ("emoji 🤗", "emoji 🤗"),
        (5, "5"),
    ],
)
def test_control_characters_are_escaped(text: object, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_message_says_that_it_was_cut() -> None:
    assert printable("é" * 5000).endswith(" …")
    assert printable("x" * MAX_MESSAGE) == "x" * MAX_MESSAGE


def test_a_token_never_gets_into_a_message() -> None:
    token = "hf_" + "aB3" * 11
    error = errors.HubError(f"https://user:{token}@host/x", path=f"https://{token}@host", reason=token)
    for shown in (str(error), repr(error), error.path, error.reason, str(error.at("p"))):
        assert token not in str(shown)
    assert "hf_hub_download" in printable("hf_hub_download")
