"""Train FARGAN on what another one says: ``python experiments/train_student.py --teacher PATH --data DIR --out DIR``.

The teacher is a weight file, as ``jdred import-libopus`` makes it from libopus's own FARGAN.
"""

from dataclasses import dataclass

import tyro

from jdred.config import FARGANConfig, TrainConfig
from jdred.training.run import train
from jdred.training.student import StudentSettings


@dataclass(frozen=True, kw_only=True)
class Options(TrainConfig):
    teacher: str
    """Weights of the teacher, a shipped name or a path."""
    half: bool = False
    """A student of ``FARGANConfig.half()`` in place of the default sizes; weights to start from have their own."""
    own_past: bool = False
    """It speaks freely and is corrected; for one that has followed its teacher before."""
    opening: float = 0.0
    """Weight of how well it goes on with real speech for 20 ms."""


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    model = FARGANConfig.half() if options.half else FARGANConfig()
    settings = StudentSettings(model=model, teacher=options.teacher, own_past=options.own_past, opening=options.opening)
    print(train("student", options, settings))
