"""``jdred import-libopus`` and ``export-libopus``: networks from libopus, and to it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional


@dataclass(frozen=True)
class ImportLibopus:
    """Make a set of models of libopus's networks (1.6), to run, train and speak to libopus with: --models SET."""

    path: Positional[Path]
    """A release's folder or archive (its dnn/*_data.c), or a weights blob."""
    out: Path
    """Folder for the weight files and libopus.json, the set."""
    tables: Path | None = None
    """With a blob: where the quantisers' tables are (dred_rdovae_stats_data.c, or the .json of export-libopus)."""


@dataclass(frozen=True)
class ExportLibopus:
    """Write our networks as a weights blob that libopus loads; quantisers' tables go into a .json beside it."""

    weights: Positional[str]
    """A weight file (shipped name or .npz) of an RDO-VAE, FARGAN, predictor or pitch tracker, or the .json of a set."""
    out: Positional[Path]
    """The blob."""


def import_libopus(args: ImportLibopus) -> None:
    """``jdred import-libopus``."""
    from jdred.libopus.files import import_models, write_models

    print(write_models(import_models(args.path, args.tables), args.out, args.path.name))


def export_libopus(args: ExportLibopus) -> None:
    """``jdred export-libopus``."""
    from jdred.libopus.files import export

    for kind, loss in export(args.weights, args.out).items():
        print(f"{args.out}: {kind}, weights rounded to 8 bits: error {100 * loss:.3g} % RMS")


RUN: dict[type, Callable[[Any], None]] = {ImportLibopus: import_libopus, ExportLibopus: export_libopus}
