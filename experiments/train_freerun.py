"""Train an LPCNet through its own output, from trained weights on: the second stage.

``python experiments/train_freerun.py --data DIR --out DIR --start-from lpcnet [--teacher fargan]``.
"""

from dataclasses import dataclass, field

import tyro

from jdred.config import TrainConfig
from jdred.training.freerun import FreeRunSettings
from jdred.training.run import train


@dataclass(frozen=True, kw_only=True)
class Options(TrainConfig):
    start_from: str = field()
    """Weights of the LPCNet to start from, a shipped name or a path."""
    teacher: str = FreeRunSettings.teacher
    """The FARGAN that corrects, a shipped name or a path."""
    rows: int = FreeRunSettings.rows
    """Rows (10 ms) of a training sequence."""


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    print(train("freerun", options, FreeRunSettings(teacher=options.teacher, rows=options.rows)))
