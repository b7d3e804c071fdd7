"""Restore the newest orbax checkpoint of a training run and evaluate its averaged weights on the validation data:
``python experiments/evaluate_checkpoint.py --run DIR --data DIR [--out FILE.json]``.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from jdred.training.run import evaluate


@dataclass(frozen=True)
class Options:
    run: Path
    """Folder of the training run."""
    data: Path
    """Folder that ``jdred corpus prepare`` wrote."""
    out: Path | None = None
    """JSON file for the figures."""


def main(options: Options) -> None:
    figures = evaluate(options.run, options.data)
    for name, value in figures.items():
        print(f"{name}: {value:.6g}")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
