"""Make a trained LPCNet louder or sharper: ``python experiments/adjust_lpcnet.py --source RUN/best.npz --out DIR``.

What learns to resemble says too little where it does not know: ``experiments/copy_synthesis.py`` on validation clips
tells by how many decibels (``energy_bias_db``).
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from jdred.training.adjust import adjust


@dataclass(frozen=True, kw_only=True)
class Options:
    source: str
    """Weights of an LPCNet, a shipped name or a path."""
    out: Path
    """Gets ``best.npz``, as a run does."""
    decibels: float = 0.0
    """By which it is to be louder."""
    sharpness: float = 1.0
    """Factor of the logits of what it draws."""


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    adjust(options.source, options.out, options.decibels, options.sharpness)
    print(options.out / "best.npz")
