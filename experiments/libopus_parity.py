"""How near jdred comes to libopus 1.6.1 with its weights: features, networks, symbols, packets, repaired gaps.

``python experiments/libopus_parity.py --out DIR`` prints the table and writes ``parity.csv``. Wants libopus's weights
as data and its golden outputs: folders ``--weights`` and ``--golden``.
"""

import csv
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import tyro

from jdred.evaluation import parity, parity_link
from jdred.evaluation.parity import Figure
from jdred.libopus.files import import_models

SHARED = Path(__file__).resolve().parents[2] / "shared"


@dataclass(frozen=True)
class Parity:
    """Compare with libopus 1.6.1."""

    out: Path
    """Folder for parity.csv."""
    weights: Path = SHARED / "libopus"
    """Folder of weights_1_6_1.npz and layer_check_1_6_1.npz."""
    golden: Path = SHARED / "golden"
    """Folder of libopus's outputs."""


def figures(args: Parity):
    """All comparisons, one after the other."""
    models = import_models(args.weights / "weights_1_6_1.npz")

    def golden(name: str) -> dict[str, np.ndarray]:
        return dict(np.load(args.golden / f"{name}.npz"))

    yield from parity.linear_layers(models, np.load(args.weights / "layer_check_1_6_1.npz"))
    for name, compare in parity.NETWORKS.items():
        yield from compare(models, golden(name))
    packets = golden("packets")
    yield from chain.from_iterable(compare(models, packets) for compare in parity_link.PACKETS)
    yield from parity_link.repairs(models, golden("receive"), packets)


def main(args: Parity) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[Figure] = []
    for row in figures(args):
        rows.append(row)
        sign = ">=" if row.at_least else "<="
        mark = "" if row.holds else "  beyond"
        print(f"{row.what:62} {row.clip:32} {row.measured:10.4g} {sign} {row.limit:g}{mark}", flush=True)
    with (args.out / "parity.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*Figure._fields, "holds"])
        table.writerows([*row, row.holds] for row in rows)
    print(f"{sum(row.holds for row in rows)} of {len(rows)} figures within their limits")


if __name__ == "__main__":
    main(tyro.cli(Parity))
