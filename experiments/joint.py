"""Fine-tune the RDO-VAE through the vocoder, and as long without hearing it, and compare the two.

``python experiments/joint.py --data DIR --out DIR [--start-from rdovae] [--vocoder fargan]`` trains ``OUT/heard`` and
``OUT/deaf`` from the same weights on the same batches and prints both validations. What is heard of either at some
levels: ``experiments/copy_synthesis.py --rdovae OUT/heard/best.npz``; the bits: ``experiments/rate_distortion.py``.
"""

from dataclasses import dataclass, replace

import tyro

from jdred.config import TrainConfig
from jdred.training.joint import JointSettings
from jdred.training.run import train


@dataclass(frozen=True, kw_only=True)
class Options(TrainConfig):
    start_from: str | None = "rdovae"
    learning_rate: float | None = 2e-4
    vocoder: str = "fargan"
    """Weights of the FARGAN that speaks, a shipped name or a path."""
    voice_weight: float = 0.2
    """Of the spectral error of what is heard."""


def main(options: Options) -> None:
    for name, weight in (("heard", options.voice_weight), ("deaf", 0.0)):
        settings = JointSettings(vocoder=options.vocoder, voice_weight=weight)
        figures = train("joint", replace(options, out=options.out / name), settings)
        print(name, "  ".join(f"{figure} {value:.4g}" for figure, value in figures.items()))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
