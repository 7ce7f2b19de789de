"""What forward passes return, without a framework: objects that are read by attribute, by key or by index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, NoReturn

__all__ = ["Output"]


class Output(dict[str, Any]):
    """Base of all outputs. A subclass is a dataclass whose fields default to `None`.

    `out.logits`, `out["logits"]` and `out[1]` are the same object; an index counts the fields that are not `None`, in
    order. Iteration, `len`, `in` and `**out` see the names of those fields, as with any dict, which it is: code that
    gathers or casts outputs (`DataParallel`, accelerate) knows dicts, and rebuilds them from one mapping or from pairs.
    """

    @staticmethod
    def _is_array(value: Any) -> bool:
        """Whether a value is an array of the framework, which is then the first field and no content of all of them."""
        return False

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        first = self.__dict__.get(names[0])
        if first is None or self._is_array(first) or any(name in self for name in names[1:]):
            return
        if (pairs := _as_pairs(first)) is None:
            return
        setattr(self, names[0], None)
        for name, value in pairs:
            setattr(self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setattr__(self, name: str, value: Any) -> None:
        # The dict holds what is there, the attributes also what is not: neither is ever written alone.
        super().__setattr__(name, value)
        if value is None:
            dict.pop(self, name, None)
        else:
            super().__setitem__(name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are not `None`."""
        return tuple(self.values())

    @classmethod
    def _of(cls, items: Mapping[str, Any]) -> Any:
        """An output with these fields, whatever they are."""
        out = cls()
        for name, value in items.items():
            setattr(out, name, value)
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), dict(self)))

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"{type(self).__name__} has the fields of its class: assign to one, or convert it with dict(…)")

    __delitem__ = clear = pop = popitem = setdefault = update = _refuse


def _rebuild(cls: type[Output], items: dict[str, Any]) -> Any:
    return cls._of(items)


def _as_pairs(first: Any) -> list[tuple[str, Any]] | None:
    """The items of a mapping, or of an iterable of (name, value) pairs; `None` for anything else."""
    if isinstance(first, Mapping):
        return list(first.items())
    if not isinstance(first, list | tuple | Iterator):
        return None
    items = list(first)
    pairs = items and all(isinstance(item, list | tuple) and len(item) == 2 for item in items)
    return items if pairs and all(isinstance(item[0], str) for item in items) else None
