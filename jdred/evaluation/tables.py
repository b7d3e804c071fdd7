"""Rows of figures: to CSV and back, means over clips, errors of paired differences, markdown."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

Row = dict[str, object]


def read_csv(path: Path) -> list[Row]:
    """Rows as text, by column."""
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: Sequence[Row], digits: int = 4) -> None:
    """Rows under the columns of all of them, in the order of appearance; None becomes an empty cell."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with Path(path).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({k: round(v, digits) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def column(rows: Iterable[Row], name: str) -> np.ndarray:
    """A column as numbers; NaN where a cell is empty, None or absent."""
    cells = (row.get(name) for row in rows)
    return np.array([np.nan if cell in (None, "") else float(cell) for cell in cells])


def mean(values: np.ndarray) -> float | None:
    """Mean of the numbers that are there; None where there is none."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else None


def paired_error(values: np.ndarray, others: np.ndarray) -> float | None:
    """Standard error of the mean difference of pairs; None where fewer than two pairs are whole."""
    difference = values - others
    difference = difference[np.isfinite(difference)]
    return float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else None


def markdown(rows: Sequence[Row], columns: dict[str, int | None]) -> str:
    """A table of the given columns: decimals of each, None for text."""

    def cell(row: Row, name: str, decimals: int | None) -> str:
        value = row.get(name)
        if value in (None, ""):
            return "-"
        return str(value) if decimals is None else f"{float(value):.{decimals}f}"

    lines = [" | ".join(columns), " | ".join("---" if d is None else "---:" for d in columns.values())]
    lines += [" | ".join(cell(row, *named) for named in columns.items()) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)
