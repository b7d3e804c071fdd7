"""Train an LPCNet through its own output, from trained weights on: the stages after ``train_lpcnet.py``.

``python experiments/train_freerun.py --data DIR --out DIR --start-from lpcnet [--teacher fargan]``, and from what that
leaves again with ``--adversarial``, against discriminators. Nothing in validation sees what those are for, so
``OUT/best.npz`` is then always the newest.
"""

from dataclasses import dataclass, field

import tyro

from jdred.config import TrainConfig
from jdred.training.finish import FinishSettings
from jdred.training.freerun import FreeRunSettings
from jdred.training.run import train


@dataclass(frozen=True, kw_only=True)
class Options(TrainConfig):
    start_from: str = field()
    """Weights of the LPCNet to start from, a shipped name or a path."""
    teacher: str = FreeRunSettings.teacher
    """The FARGAN that corrects, a shipped name or a path."""
    adversarial: bool = False
    """Against discriminators."""


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    task, settings = ("finish", FinishSettings) if options.adversarial else ("freerun", FreeRunSettings)
    print(train(task, options, settings(teacher=options.teacher)))
