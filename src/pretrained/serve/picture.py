"""A picture of the sizes of tensors: rectangles whose areas are bytes, coloured by dtype.

Source: Bruls, Huizing, van Wijk, Squarified Treemaps (2000).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..checkpoint.tensors import Entry
from ..report import human_bytes
from .markup import Markup, element, join

__all__ = ["COLOURS", "Box", "size_picture", "squarify"]

WIDTH, HEIGHT = 1000.0, 420.0
MAX_BOXES = 150
COLOURS = {
    "float32": "#4c78a8",
    "float16": "#59a14f",
    "bfloat16": "#2a9d8f",
    "float64": "#b279a2",
    "int8": "#f28e2b",
    "uint8": "#edc949",
    "int32": "#e15759",
    "int64": "#9c755f",
}
_OTHER = "#8a8a8a"
_LETTER = 6.6  # width of one, at the size of the labels


@dataclass(frozen=True)
class Box:
    """A rectangle of the picture."""

    x: float
    y: float
    width: float
    height: float


def squarify(sizes: Sequence[float], box: Box) -> Iterator[Box]:
    """A rectangle for each size, in their order, which must be descending; together they fill `box`."""
    rest = [size for size in sizes if size > 0]
    total = sum(rest)
    area = box.width * box.height
    while rest and total > 0:
        side = min(box.width, box.height)
        scale = area / total
        row = 1
        while row < len(rest) and _worst(rest[: row + 1], scale, side) <= _worst(rest[:row], scale, side):
            row += 1
        taken = sum(rest[:row])
        depth = taken * scale / side if side else 0.0
        at = 0.0
        for size in rest[:row]:
            length = size / taken * side
            if box.width >= box.height:
                yield Box(box.x, box.y + at, depth, length)
            else:
                yield Box(box.x + at, box.y, length, depth)
            at += length
        if box.width >= box.height:
            box = Box(box.x + depth, box.y, max(box.width - depth, 0.0), box.height)
        else:
            box = Box(box.x, box.y + depth, box.width, max(box.height - depth, 0.0))
        rest, total, area = rest[row:], total - taken, box.width * box.height


def _worst(row: Sequence[float], scale: float, side: float) -> float:
    """How far the rectangle of a row that is least like a square is from one."""
    total = sum(row) * scale
    if not total or not side:
        return float("inf")
    return max(
        max(side**2 * size * scale / total**2, total**2 / (side**2 * size * scale)) for size in (row[0], row[-1])
    )


def size_picture(entries: Sequence[Entry]) -> Markup:
    """The picture, with the name of each tensor shown when it is pointed at; the smallest share a rectangle."""
    ordered = sorted((entry for entry in entries if entry.nbytes), key=lambda entry: -entry.nbytes)
    shown, others = ordered[:MAX_BOXES], ordered[MAX_BOXES:]
    labels = [(entry.name, entry.nbytes, COLOURS.get(entry.dtype, _OTHER), entry.dtype) for entry in shown]
    if others:
        nbytes = sum(entry.nbytes for entry in others)
        labels.append((f"{len(others):,} smaller tensors", nbytes, _OTHER, ""))
        labels.sort(key=lambda label: -label[1])
    boxes = squarify([label[1] for label in labels], Box(0.0, 0.0, WIDTH, HEIGHT))
    drawn = [_drawn(box, *label) for box, label in zip(boxes, labels, strict=True)]
    kinds = sorted({entry.dtype for entry in ordered})
    legend = [
        element("span", element("span", class_="dot", data_dtype=kind if kind in COLOURS else "other"), f" {kind}")
        for kind in kinds
    ]
    picture = element(
        "svg",
        *drawn,
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        role="img",
        aria_label=f"Sizes of {len(ordered)} tensors",
        class_="sizes",
    )
    return element("figure", picture, element("figcaption", *legend))


def _drawn(box: Box, name: str, nbytes: int, colour: str, dtype: str) -> Markup:
    words = f"{name}: {human_bytes(nbytes)}" + (f", {dtype}" if dtype else "")
    shape = element(
        "rect", x=f"{box.x:.2f}", y=f"{box.y:.2f}", width=f"{box.width:.2f}", height=f"{box.height:.2f}", fill=colour
    )
    label = None
    fits = int((box.width - 8) / _LETTER)
    if box.height > 16 and fits >= 4:
        text = name if len(name) <= fits else "…" + name[-(fits - 1) :]
        label = element("text", text, x=f"{box.x + 4:.2f}", y=f"{box.y + 13:.2f}")
    return element("g", join(element("title", words), shape, label))
