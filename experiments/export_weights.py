"""Ship the best weights of a run: ``python experiments/export_weights.py --run DIR --kind rdovae --name rdovae``.

Writes ``jdred/weights/NAME.npz``, ``.json`` and the card ``.md``.
With ``--data`` the coding tables of an RDO-VAE are measured on the training speech, and it says what pruning and half
precision changed in the validation figures.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from jdred import weights
from jdred.config import ModelKind
from jdred.training import export


@dataclass(frozen=True)
class Options:
    run: Path
    """Folder of the training run."""
    kind: ModelKind
    name: str
    """Of the weight file."""
    card_notes: Path | None = None
    """Markdown file for the end of the card: command, figures of a test."""
    data: Path | None = None
    """Prepared data, to measure an RDO-VAE's coding tables on and to validate the weights before and after."""
    origin: str = export.SCRATCH
    """A sentence for the card: what else than speech the weights come from (a teacher, weights to start from)."""
    out: Path = weights.FOLDER


def main(options: Options) -> None:
    notes = options.card_notes.read_text() if options.card_notes else ""
    path = export.export(options.run, options.kind, options.name, notes, options.out, options.data, options.origin)
    if options.data:
        for figure, (before, after) in export.compare_validation(path, options.run, options.kind, options.data).items():
            print(f"{figure}: {before:.5g} trained, {after:.5g} shipped")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
