"""Weights between a run's start and its end: ``python experiments/soup.py --run DIR --share 0.5 --out DIR``.

Worth trying after ``train_adversarial.py``: halfway a vocoder sounded better than at either end.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from jdred.training.soup import soup


@dataclass(frozen=True, kw_only=True)
class Options:
    run: Path
    out: Path
    share: float = 0.5
    """Of the run's best weights; the rest is what it started from."""


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    soup(options.run, options.out, options.share)
