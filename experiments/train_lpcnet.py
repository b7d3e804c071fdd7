"""Train the LPCNet vocoder: ``python experiments/train_lpcnet.py --data DIR --out DIR [--fit.minutes 60]``.

By default the shipped sizes; ``--model.bunch 1 --model.no-long-term`` is the plain network, and
``--model.gru-a 384 --model.density 0.2 0.2 0.4`` or ``--model.end-to-end`` are further variants.
"""

from dataclasses import dataclass

import tyro

from jdred.config import LPCNetConfig, TrainConfig
from jdred.training.lpcnet import LPCNetSettings
from jdred.training.run import train


@dataclass(frozen=True, kw_only=True)
class Options(TrainConfig):
    model: LPCNetConfig = LPCNetSettings().model
    teacher: str = ""
    """A FARGAN, shipped name or path, that speaks in place of the recorded voices."""


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    print(train("lpcnet", options, LPCNetSettings(model=options.model, teacher=options.teacher)))
