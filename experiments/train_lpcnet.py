"""Train the shipped LPCNet vocoder: ``python experiments/train_lpcnet.py --data DIR --out DIR [--fit.minutes 60]``."""

import tyro

from jdred.config import TrainConfig
from jdred.training.run import train

if __name__ == "__main__":
    print(train("lpcnet", tyro.cli(TrainConfig, description=__doc__)))
