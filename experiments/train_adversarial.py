"""Train a FARGAN against critics: ``python experiments/train_adversarial.py --start-from NAME --data DIR --out DIR``.

The second stage, for a vocoder that resembles speech already. Nothing in validation sees what it is for, so the newest
weights are ``OUT/best.npz``: ``experiments/copy_synthesis.py --vocoder OUT/best.npz`` tells what they are worth.
"""

from dataclasses import dataclass, replace

import tyro

from jdred.config import TrainConfig
from jdred.training.adversarial import AdversarialSettings
from jdred.training.run import train


@dataclass(frozen=True, kw_only=True)
class Options(TrainConfig):
    start_from: str
    """Weights of the FARGAN to start from, a shipped name or a path."""
    spectral: float = 5.0
    """Weight of the spectral error, beside that of being taken for speech."""


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    settings = AdversarialSettings(vocoder=options.start_from, spectral=options.spectral)
    print(train("adversarial", replace(options, start_from=None), settings))
