"""A long call at 30 % loss: ``python experiments/soak.py --minutes 30 --out DIR``.

Packets are lost in bursts, delayed, out of order, twice; every 47 s the sender is killed and another one begins. Goes
as fast as it can; prints a line for each minute of the call, writes ``soak.csv``, and ends with status 1 where memory
or cost is not flat.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from jdred.assets import demo_clip_path
from jdred.evaluation.clips import read_clip, write_file
from jdred.evaluation.soak import SoakConfig, listed, soak, verdict
from jdred.models import load


@dataclass(frozen=True)
class Options:
    out: Path
    minutes: float = 30.0
    """Of the call."""
    clip: Path | None = None
    """Speech to repeat; the demo's by default."""
    models: str = "default"
    call: SoakConfig = SoakConfig()


def main(options: Options) -> int:
    pcm = read_clip(options.clip or demo_clip_path())
    rows, lines = [], []
    for row in soak(load(options.models), pcm, options.minutes, options.call):
        rows.append(row)
        print("  ".join(f"{name} {value:g}" for name, value in row.items()), flush=True)
    listed(rows, lines.append)
    write_file(options.out / "soak.csv", "".join(lines).encode())
    complaints = verdict(rows)
    print("; ".join(complaints) or "memory and cost are flat")
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options, description=__doc__)))
