"""Train the PLC predictor through the vocoder.

``python experiments/train_gap.py --data DIR --out DIR --start-from NAME``; what is heard of it:
``experiments/concealment.py --parts.predictor OUT/best.npz``.
"""

from dataclasses import dataclass, field

import tyro

from jdred.config import TrainConfig
from jdred.training.gap import GapSettings
from jdred.training.run import train


@dataclass(frozen=True, kw_only=True)
class Options(TrainConfig):
    start_from: str = field()
    """Weights of the predictor to start from, a shipped name or a path."""
    vocoder: str = GapSettings.vocoder
    """Weights of the FARGAN that speaks, a shipped name or a path."""
    voice_weight: float = GapSettings.voice_weight
    """Of the spectral error of what is heard."""


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    print(train("gap", options, GapSettings(vocoder=options.vocoder, voice_weight=options.voice_weight)))
