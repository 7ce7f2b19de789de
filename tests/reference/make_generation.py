"""Writes tests/reference/generation/expected.npz: what the reference generates in the cases of generation_cases.py.

    python tests/reference/make_generation.py --peer PYTHON --old PYTHON

PYTHON are the interpreters of environments that have transformers 5.23.0, and 4.46.3 for the modes that left it later.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from generation_cases import CASES, OLD_CASES
from generation_live import of_peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--old", required=True)
    asked = parser.parse_args()
    arrays = {}
    for peer, cases, kind in ((asked.peer, CASES, "new"), (asked.old, OLD_CASES, "old")):
        for family, of_family in of_peer(peer, kind, None, list(cases))[2].items():
            for name, fields in of_family.items():
                for field, value in fields.items():
                    if field == "scores":  # the ends of it tell as much, in less
                        value = value[[0, -1], 0, :16]
                    found = value.numpy()
                    arrays[f"{family}/{name}/{field}"] = found.astype(np.uint8) if found.dtype == np.int64 else found
    folder = Path(__file__).parent / "generation"
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / "expected.npz", **arrays)


if __name__ == "__main__":
    main()
