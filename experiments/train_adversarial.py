"""Train a FARGAN against discriminators, from trained weights on: the second stage.

``python experiments/train_adversarial.py --data DIR --out DIR --start-from NAME``. Nothing in validation sees what it
is for, so ``OUT/best.npz`` is always the newest; ``experiments/copy_synthesis.py --vocoder OUT/best.npz`` tells its
worth.
"""

from dataclasses import dataclass, field

import tyro

from jdred.config import TrainConfig
from jdred.training.adversarial import AdversarialSettings
from jdred.training.run import train


@dataclass(frozen=True, kw_only=True)
class Options(TrainConfig):
    start_from: str = field()
    """Weights of the FARGAN to start from, a shipped name or a path."""
    spectral: float = AdversarialSettings.spectral
    """Weight of the spectral error, beside that of being taken for speech."""


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    print(train("adversarial", options, AdversarialSettings(spectral=options.spectral)))
