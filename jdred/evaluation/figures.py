"""Bar charts and curves of configurations, another codec's figures beside ours."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from jdred.evaluation.tables import Row

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 - after the choice of a backend without a screen

LABELS = {
    "plcmos": "PLCMOS", "pesq_wb": "PESQ-WB", "estoi": "ESTOI", "wer": "word error rate",
    "lsd_4_7k5_db": "log-spectral distance, 4-7.5 kHz (dB)",
}  # fmt: skip
FLOORS = {"plcmos": 1.0, "pesq_wb": 1.0}
"""Where the bars of a measure begin; 0 for the others."""


def _number(row: Row | None, name: str) -> float:
    cell = None if row is None else row.get(name)
    return np.nan if cell in (None, "") else float(cell)


def bars(
    path: Path,
    means: Sequence[Row],
    measures: Sequence[str],
    names: Mapping[str, str],
    peer: Mapping[tuple[str, str], Row],
    lossless: str = "none",
) -> None:
    """A panel a measure, a group of bars a loss pattern, a bar a configuration; short lines are the peer's.

    Args:
      means: with ``kind``, ``config``, the measures, and ``se_<measure>`` where known.
      names: label of each configuration, in order; those of kind ``lossless`` become lines across.
      peer: rows by kind and our configuration.
    """
    table = {(str(row["kind"]), str(row["config"])): row for row in means}
    kinds = [kind for kind in dict.fromkeys(kind for kind, _ in table) if kind != lossless]
    barred = [config for config in names if any((kind, config) in table for kind in kinds)]
    across = [config for config in names if (lossless, config) in table]
    figure, axes = plt.subplots(
        len(measures), 1, figsize=(13, 3.2 * len(measures)), layout="constrained", squeeze=False
    )
    width, places = 0.82 / max(1, len(barred)), np.arange(len(kinds))
    for axis, measure in zip(axes[:, 0], measures, strict=True):
        for number, config in enumerate(barred):
            at = places + (number - (len(barred) - 1) / 2) * width
            rows = [table.get((kind, config)) for kind in kinds]
            heights = np.array([_number(row, measure) for row in rows])
            errors = np.nan_to_num([_number(row, f"se_{measure}") for row in rows])
            floor = FLOORS.get(measure, 0.0)
            axis.bar(at, heights - floor, width, floor, yerr=errors, color=f"C{number}", label=names[config],
                     error_kw={"elinewidth": 0.8})  # fmt: skip
            theirs = np.array([_number(peer.get((kind, config)), measure) for kind in kinds])
            axis.hlines(theirs, at - width / 2, at + width / 2, color="black", linewidth=2)
        for style, config in zip(("-", "--", ":"), across, strict=False):
            axis.axhline(_number(table[lossless, config], measure), color="grey", linestyle=style, linewidth=1,
                         label=names[config])  # fmt: skip
        axis.set(xticks=places, xticklabels=kinds, ylabel=LABELS.get(measure, measure))
        axis.grid(axis="y", alpha=0.3)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if peer:
        handles.append(plt.Line2D([], [], color="black", linewidth=2))
        labels.append("libopus 1.6.1")
    figure.legend(handles, labels, loc="outside upper center", ncols=5)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def curves(
    path: Path,
    means: Sequence[Row],
    measures: Sequence[str],
    kinds: Mapping[str, str],
    names: Mapping[str, str],
    peer: Mapping[str, Sequence[Row]],
    against: str = "total_kbps",
) -> None:
    """A row of panels a measure, a column a loss pattern, a line a configuration; dashed lines are the peer's.

    Args:
      kinds: title of each loss pattern.
      names: label of each configuration.
      peer: rows by our configuration.
    """
    shape = len(measures), len(kinds)
    figure, axes = plt.subplots(*shape, figsize=(6.5 * shape[1], 3.2 * shape[0]), layout="constrained", squeeze=False)
    for column, (kind, title) in enumerate(kinds.items()):
        axes[0, column].set_title(title)
        for axis, measure in zip(axes[:, column], measures, strict=True):
            for number, (config, label) in enumerate(names.items()):
                ours = [row for row in means if (row["kind"], row["config"]) == (kind, config)]
                theirs = [row for row in peer.get(config, ()) if row["kind"] == kind]
                for rows, style in ((ours, "o-"), (theirs, "x--")):
                    points = sorted((_number(row, against), _number(row, measure)) for row in rows)
                    if points:
                        owner = label if rows is ours else f"{label}, libopus 1.6.1"
                        axis.plot(*zip(*points, strict=True), style, color=f"C{number}", label=owner)
            axis.grid(alpha=0.3)
            axis.set_ylabel(LABELS.get(measure, measure))
        axes[-1, column].set_xlabel("kb/s in all" if against == "total_kbps" else against)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=100)
    plt.close(figure)
