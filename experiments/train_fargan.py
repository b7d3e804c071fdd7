"""Train the shipped FARGAN vocoder: ``python experiments/train_fargan.py --data DIR --out DIR [--fit.minutes 60]``."""

import tyro

from jdred.config import TrainConfig
from jdred.training.run import train

if __name__ == "__main__":
    print(train("fargan", tyro.cli(TrainConfig, description=__doc__)))
