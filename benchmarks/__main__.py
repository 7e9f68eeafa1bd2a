"""Run rows of the README's table: ``python -m benchmarks [ROW ...]``, default all."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

from .measuring import keep

FOLDER = Path(__file__).parent


def main() -> None:
    """Measure the rows asked for, print them and keep them."""
    rows = sorted(
        p.stem for p in FOLDER.glob("*.py") if "\ndef measure()" in p.read_text()
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(rows))
    chosen = parser.parse_args().rows or rows
    unknown = sorted(set(chosen) - set(rows))
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(rows)}")
    for row in chosen:
        numbers = importlib.import_module(f"benchmarks.{row}").measure()
        path = keep(row, numbers)
        print(f"{row} -> {path.name}")
        for number in numbers:
            print("  ", number, flush=True)


if __name__ == "__main__":
    main()
