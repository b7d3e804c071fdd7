"""What to spend a total rate on: LBRR, DRED of which levels and reach, or both, for every loss pattern.

``python experiments/splits.py --clips DIR --traces DIR --out DIR`` tries candidates at every total, each pattern with
the loss it has, on validation clips, and prints the best of each kind by intelligibility (ESTOI): where the tables of
``jdred.link.plan`` come from. ``splits.csv`` has a row a candidate, loss pattern and total; an interrupted run goes on.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from jdred.config import ReceiverConfig
from jdred.evaluation import budget, metrics, tables, trials
from jdred.evaluation.clips import clips_in
from jdred.link.plan import KINDS, TOTALS_KBPS, Split

GRID = {
    24: ((6, 5, 80, 1), (9, 5, 160, 1), (12, 2, 520, 1), (4, 5, 160, 4), (7, 5, 160, 4), (6, 5, 240, 4), (7, 5, 480, 4),
         (6, 3, 480, 4), (9, 5, 480, 4), (8, 3, 1040, 4), (9, 3, 1040, 4), (7, 5, 1040, 4)),
    32: ((6, 5, 80, 1), (7, 5, 160, 1), (9, 3, 320, 1), (11, 2, 1040, 1), (6, 5, 160, 4), (4, 5, 240, 4),
         (5, 5, 480, 4), (7, 5, 480, 4), (6, 3, 1040, 4), (7, 3, 1040, 4)),
    40: ((4, 5, 160, 1), (6, 5, 320, 1), (8, 5, 520, 1), (9, 5, 1040, 1), (4, 5, 160, 2), (4, 5, 160, 4),
         (2, 5, 240, 4), (0, 3, 240, 4), (2, 5, 480, 4), (2, 3, 480, 4), (4, 5, 480, 4), (5, 5, 480, 4),
         (3, 3, 1040, 4), (5, 3, 1040, 4), (6, 3, 1040, 4)),
    64: ((4, 5, 80, 1), (4, 5, 160, 1), (4, 3, 320, 1), (6, 3, 1040, 1), (2, 5, 240, 4), (0, 3, 240, 4), (3, 5, 480, 4),
         (1, 3, 480, 4), (1, 2, 1040, 4), (2, 3, 1040, 4), (3, 3, 1040, 4)),
}  # fmt: skip
"""Level, slope index, reach in ms, and of how many packets one carries it: tried with and without LBRR."""
COLUMNS = {"kind": None, "asked_kbps": 0, "split": None, "level": 0, "slope": 0, "duration_ms": 0, "every": 0,
           "estoi": 4, "total_kbps": 1, "dred_kbps": 1}  # fmt: skip


@dataclass(frozen=True)
class Options:
    clips: Path
    """Folder of wav files: of validation, since these choose."""
    traces: Path
    out: Path
    totals_kbps: tuple[int, ...] = TOTALS_KBPS
    kinds: tuple[str, ...] = ("rand20", "rand30", "ge20s", "ge20", "ge20l")
    only: tuple[str, ...] = ()
    """Names or patterns of the clips to take; all by default."""
    processes: int = 2
    parts: trials.Parts = field(default_factory=trials.Parts)


def main(options: Options) -> None:
    clips = clips_in(options.clips, options.only)
    stage = trials.bench(clips, trials.read_traces(options.traces, clips, options.kinds))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "splits.csv"
    rows = [_numbers(row) for row in tables.read_csv(path)] if path.exists() else []
    done = {tuple(row[name] for name in ("asked_kbps", "split", *Split._fields[1:])) for row in rows}
    with trials.workers(options.parts, options.processes) as staff:
        for total in options.totals_kbps:
            for split in candidates(total):
                if (total, *split) not in done:
                    rows += measured(stage, total, split, staff)
                    tables.write_csv(path, rows)
    print(tables.markdown(best(rows), COLUMNS))


def _numbers(row: tables.Row) -> tables.Row:
    """A row of the file with its numbers as numbers."""
    whole = ("asked_kbps", *Split._fields[1:])
    return {k: v if k in ("kind", "split") else int(v) if k in whole else float(v) for k, v in row.items()}


def candidates(total_kbps: int) -> list[Split]:
    """What is tried at a total."""
    grid = GRID[min(GRID, key=lambda known: abs(known - total_kbps))]
    return [Split("lbrr"), *(Split(kind, *dred) for kind in KINDS[1:] for dred in grid)]


def measured(stage: trials.Bench, total_kbps: int, split: Split, staff: trials.Workers) -> list[tables.Row]:
    """A row a loss pattern; none where the redundancy does not fit into the total."""
    named = {"asked_kbps": total_kbps, "split": split.kind} | {k: getattr(split, k) for k in Split._fields[1:]}
    try:
        sender = budget.at_total(stage, total_kbps, split, staff)
    except ValueError as error:
        print(error)
        return []
    done = trials.run(stage, trials.Way(str(split), sender), staff, ReceiverConfig())
    rows = []
    for kind in stage.traces:
        of = [trial for trial in done if trial.kind == kind]
        estoi = staff.map(metrics.estoi, [(stage.clips[trial.clip], trial.pcm) for trial in of], "measuring")
        rates = {name: float(np.mean([getattr(t.sent, name) for t in of])) for name in ("total_kbps", "dred_kbps")}
        rows.append({"kind": kind, **named, "estoi": float(np.mean(estoi)), **rates})
        print(rows[-1], flush=True)
    return rows


def best(rows: list[tables.Row]) -> list[tables.Row]:
    """The best of each kind of redundancy for every loss pattern and total, best first."""
    found = []
    for kind, total in dict.fromkeys((row["kind"], row["asked_kbps"]) for row in rows):
        of = [row for row in rows if (row["kind"], row["asked_kbps"]) == (kind, total)]
        tops = [max((r for r in of if r["split"] == s), key=lambda r: r["estoi"], default=None) for s in KINDS]
        found += sorted((row for row in tops if row), key=lambda row: -row["estoi"])
    return found


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
