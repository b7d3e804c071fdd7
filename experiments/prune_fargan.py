"""A smaller FARGAN out of a trained one: ``python experiments/prune_fargan.py --data DIR --out FILE.npz``.

It speaks at once, if poorly, and well after ``train_student.py --start-from FILE.npz --teacher fargan --own-past``.
Prints the spectral error of free speech (validation) before and after.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from jdred import weights
from jdred.config import FARGANConfig
from jdred.training.fargan import FARGANSettings, load_fargan
from jdred.training.pruning import activations, choose, prune
from jdred.training.run import make_task


@dataclass(frozen=True, kw_only=True)
class Options:
    data: Path
    """What ``jdred corpus prepare`` made; the vocoder speaks of its training speech."""
    out: Path
    vocoder: str = "fargan"
    """Shipped name or path."""
    sizes: FARGANConfig = FARGANConfig.half()
    """Only ``condition``, ``first``, ``grus`` and ``dense`` may differ from the vocoder's."""
    sequences: int = 64
    """Of 160 ms."""


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    task = make_task("fargan", options.data, FARGANSettings(batch=options.sequences))
    model = load_fargan(options.vocoder)
    seen = activations(model, task.batch(np.random.default_rng(0)))
    pruned = prune(model, seen, choose(model, seen, options.sizes))
    config = {"kind": "fargan", "model": asdict(pruned.config), "start_from": Path(options.vocoder).name}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    weights.write(options.out, weights.flatten(pruned), config, half=False)
    print({name: task.heard(voice)["spectral"] for name, voice in (("before", model), ("after", pruned))})
