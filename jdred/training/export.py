"""From a training run to shipped weights: half-precision arrays, their configuration, and a card that says how."""

import csv
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jdred import weights
from jdred.config import RDOVAEConfig
from jdred.models import TABLES
from jdred.rdovae import RDOVAE
from jdred.rdovae.deploy import deploy
from jdred.rdovae.tables import CodingTables
from jdred.training import loop
from jdred.training.corpus import Prepared
from jdred.training.rdovae import encode_speech
from jdred.training.run import KINDS, restore_task
from jdred.training.sources import LANGUAGES, MUSIC_PACKAGE, TRAIN
from jdred.weights import CheckpointError

BEST = "best.npz"
SCRATCH = "From random weights (seed 0), on recorded speech alone; nothing is distilled from another model."
OTHERS = ("start_from", "teacher", "vocoder")
"""What a run may owe to another model."""
NO_FIGURES = ("step", "seed", "share", "decibels", "sharpness")
"""Numbers that a run tells beside its figures of validation."""
LICENCES = {
    "festvox-ru": "BSD-like",
    "asterisk-core-sounds-fr-g722": "CC-BY-SA 3.0",
    "asterisk-core-sounds-ru-g722": "CC-BY 3.0",
    "tuxpaint-stamps-default": "GPL-2",
    "ktuberling-data": "GPL-2+",
    "klettres-data": "GPL-2+",
    "hedgewars-data": "GFDL-1.3",
    MUSIC_PACKAGE: "CC-BY-SA 3.0",
}
"""Of the packages that training takes speech and background from."""
SCRIPTS = {"joint": "joint", "finish": "train_freerun"}
"""Of the tasks whose script in ``experiments`` is not called ``train_<task>.py``."""
TITLES = {
    "rdovae": "RDO-VAE: features to latents and back, pruned, with its coding tables",
    "lpcnet": "LPCNet vocoder: features to speech",
    "fargan": "FARGAN vocoder: features to speech",
    "plc": "Feature predictor of packet loss concealment",
}


def export(
    run: Path,
    kind: str,
    name: str,
    notes: str = "",
    folder: Path = weights.FOLDER,
    data: Path | None = None,
    origin: str = SCRATCH,
) -> Path:
    """Write the best weights of a run as ``folder/name.npz``, ``.json`` and ``.md``.

    Args:
      run: folder of a training run.
      kind: ``rdovae`` (deployed: pruned, with tables), ``lpcnet``, ``fargan`` or ``plc``.
      notes: Markdown for the end of the card, "Recipe and figures": command, hours, figures of a test.
      data: prepared data; an RDO-VAE's coding tables are then measured on its training speech.
      origin: a sentence that says what else than speech the weights come from.
    Returns:
      the ``.npz``.
    Raises:
      CheckpointError: no best weights in the run, or of another kind.
      ValueError: ``origin`` is silent about another model.
    """
    arrays, config = read_best(run, kind)
    model = config["model"]
    if kind == "rdovae":
        rdovae, tables = deployed(arrays, config, data)
        arrays, model = weights.flatten(rdovae), asdict(rdovae.config)
        arrays |= {TABLES + field: value for field, value in tables._asdict().items()}
    training = {key: value for key, value in config.items() if key not in ("kind", "model")}
    training["settings"].pop("model", None)
    # Where another model's weights lay is of no interest elsewhere.
    training["settings"] |= {k: Path(v).name for k, v in training["settings"].items() if k in OTHERS}
    if start := training.get("start_from"):
        training["start_from"] = Path(start).name if Path(start).name != name else f"an earlier {name}"
    others = {k: v for k, v in {**training, **training["settings"]}.items() if k in OTHERS and v}
    if others and origin == SCRATCH:
        raise ValueError(
            f"expected an origin that tells of {others}, found the one of training from scratch (--origin)"
        )
    path = folder / f"{name}.npz"
    weights.write(path, arrays, {"kind": kind, "model": model, "training": training})
    path.with_suffix(".md").write_text(card(kind, name, arrays, training, hours(run), origin, notes))
    return path


def deployed(arrays: dict[str, np.ndarray], config: dict[str, Any], data: Path | None) -> tuple[RDOVAE, CodingTables]:
    """A trained RDO-VAE pruned, its tables measured on the training speech where there is data."""
    template = weights.abstract(lambda: RDOVAE(RDOVAEConfig(**config["model"]), rngs=nnx.Rngs(0)))
    model = weights.unflatten(template, {k: jnp.asarray(v) for k, v in arrays.items()})
    return deploy(model, None if data is None else encode_speech(model, Prepared(data / "train-0")))


def read_best(run: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and configuration of a run's best weights, checked to be of the kind."""
    if kind not in KINDS:
        raise CheckpointError(f"unknown model kind {kind!r}, expected one of {KINDS}")
    arrays, config = weights.read(run / BEST)
    if config.get("kind") != kind:
        raise CheckpointError(f"{run / BEST}: expected weights of kind {kind!r}, found {config.get('kind')!r}")
    return arrays, config


def hours(run: Path) -> float | None:
    """Time spent on training steps, from the run's log; None without one."""
    log = run / "train.csv"
    if not log.is_file():
        return None
    with log.open(newline="") as file:
        rows = [(int(row["step"]), float(row["seconds_per_step"])) for row in csv.DictReader(file)]
    steps = np.diff([0, *(step for step, _ in rows)])
    return float(np.dot(steps, [seconds for _, seconds in rows])) / 3600


def card(
    kind: str,
    name: str,
    arrays: dict[str, Any],
    training: dict[str, Any],
    spent_hours: float | None,
    origin: str,
    notes: str,
) -> str:
    """The card in Markdown."""
    task = training.get("task", kind)
    script = f"experiments/{SCRIPTS.get(task, 'train_' + task)}.py"
    count = sum(int(np.size(a)) for key, a in arrays.items() if not key.startswith(TABLES))
    figures = {k: v for k, v in training.items() if isinstance(v, int | float) and k not in NO_FIGURES}
    spent = f" in {spent_hours:.1f} hours" if spent_hours else ""
    chosen = "the best in validation" if "loss" in training else "the newest"
    changed = []
    if (share := training.get("share")) is not None:
        changed.append(f"{share:g} parts, with {1 - share:g} parts of what it started from")
    if (decibels := training.get("decibels")) is not None:
        changed.append(f"made {decibels:g} dB louder, logits times {training['sharpness']:g}")
    if changed:
        chosen = ", ".join([f"those of the run's `{BEST}`", *changed])
    parts = [
        f"# {name}",
        f"{TITLES[kind]}. {count:,} weights in half precision; sizes and settings in `{name}.json`.",
        "## Training",
        f"{origin} {training['step']} steps{spent}; of the exponential moving averages {chosen}. "
        f"`python {script}` on what `jdred corpus prepare` makes of the data.",
        "## Data",
        "Recorded speech of these Debian packages, augmented.",
        _table(("package", "languages", "licence"), [_package_row(package) for package in LICENCES]),
    ]
    if figures:
        parts += [
            "## Validation",
            "On speakers and languages that training does not hear.",
            _table(("figure", "value"), [(k, f"{v:.4g}") for k, v in figures.items()]),
        ]
    if notes.strip():
        parts += ["## Recipe and figures", notes.strip()]
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _package_row(package: str) -> tuple[str, str, str]:
    return package, LANGUAGES.get(package, {}).get(TRAIN, "(background music)"), LICENCES[package]


def compare_validation(path: Path, run: Path, kind: str, data: Path) -> dict[str, tuple[float, float]]:
    """Validation figures of a run's best weights as trained, and as they were shipped in ``path``."""
    arrays, config = read_best(run, kind)
    task = restore_task(config, data)
    shipped, shipped_config = weights.read(path)
    shipped = {k: v for k, v in shipped.items() if not k.startswith(TABLES)}
    sizes = replace(task.settings.model, **shipped_config["model"])
    shipped_task = replace(task, settings=replace(task.settings, model=sizes))
    weights.check(loop.model_template(shipped_task), shipped, str(path))
    before, after = loop.validator(task)(arrays), loop.validator(shipped_task)(shipped)
    return {k: (before[k], after[k]) for k in before}
