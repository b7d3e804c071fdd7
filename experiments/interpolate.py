"""Weights between a run's start and its end: ``python experiments/interpolate.py --run DIR --share 0.5 --out DIR``.

Worth trying after ``train_adversarial.py``: halfway two vocoders had a higher PLCMOS than at either end.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from jdred.training.interpolation import interpolate


@dataclass(frozen=True, kw_only=True)
class Options:
    run: Path
    """Its ``best.json`` names the weights that it started from; they must not have been replaced since."""
    out: Path
    share: float = 0.5
    """Of the run's best weights; the rest is what it started from."""


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    interpolate(options.run, options.out, options.share)
    print(options.out / "best.npz")
