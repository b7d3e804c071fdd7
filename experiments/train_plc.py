"""Train the shipped PLC predictor: ``python experiments/train_plc.py --data DIR --out DIR [--fit.minutes 60]``."""

import tyro

from jdred.config import TrainConfig
from jdred.training.run import train

if __name__ == "__main__":
    print(train("plc", tyro.cli(TrainConfig, description=__doc__)))
