"""Rate against distortion of an RDO-VAE on any clips, and against another codec's curve on the same ones.

``python experiments/rate_distortion.py --clips DIR [--weights NAME] [--peer CSV] --out DIR`` writes
``rate_distortion.csv``, ``rate_distortion_by_age.csv`` and ``rate_distortion.png``. With a peer the last line is the
BD-rate: the difference of the bits per latent at equal cepstral RMSE (active rows), in percent; negative = fewer bits.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import tyro

from jdred.config import NUM_LEVELS
from jdred.evaluation import rate_distortion as rd
from jdred.evaluation import tables
from jdred.evaluation.clips import read_clip, written_whole
from jdred.models import load_extractor, load_rdovae

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 - after the choice of a backend without a screen

UNQUANTISED = "unquantised"
CONSTANT, SCHEDULE = "constant", "schedule"
SCHEDULES = ((6, 5), (4, 3), (9, 5), (6, 0))
"""Level of the newest chunk and slope."""
AGE_COLUMNS = ("ceps_rmse", "ceps_rmse_active", "pitch_cents_median", "pitch_cents_p90", "pitch_gross_50c", "corr_rmse")
AGE_LEVELS = (0, 6, 9, 12, 15)
"""Constant levels in the picture by age."""
STYLES = {"jdred": {"color": "C0"}, "peer": {"color": "C1", "linestyle": "--"}}


@dataclass(frozen=True)
class Options:
    clips: Path
    """Folder of wav files."""
    out: Path
    weights: str = "rdovae"
    """Shipped name, or .npz file: deployed, or the ``best.npz`` of a training run."""
    pitch: str | None = None
    """Pitch network of the features that it was trained on: shipped name, or .npz file."""
    peer: Path | None = None
    """rate_distortion.csv of another codec on the same clips; the one by age is looked for beside it."""


def main(options: Options) -> None:
    clips = sorted(options.clips.glob("*.wav"))
    if not clips:
        raise SystemExit(f"expected wav files in {options.clips}, found none")
    rdovae, coding = load_rdovae(options.weights)
    extractor = load_extractor(options.pitch)
    windows = rd.cut_all(rdovae, [read_clip(clip) for clip in clips], extractor)
    print(f"{len(clips)} clips, {len(windows.rows)} windows")
    rows, ages = [], []
    for kind, level, slope in operating_points():
        if level == UNQUANTISED:
            coded = rd.unquantised(rdovae, windows)
        else:
            coded = rd.code(rdovae, coding, windows, level, slope)
        name = {"kind": kind, "q0": level, "dQ": slope}
        rows.append(name | rd.measure(windows, coded))
        by_age = rd.measure_by_age(windows, coded)
        ages += [name | {k: age[k] for k in ("chunk", "age_ms", "bits", *AGE_COLUMNS)} for age in by_age]
        print(summary(rows[-1]), flush=True)
    peer = None if options.peer is None else tables.read_csv(options.peer)
    peer_ages = tables.read_csv(age_file(options.peer)) if peer and age_file(options.peer).is_file() else None
    with written_whole(options.out) as folder:
        tables.write_csv(folder / "rate_distortion.csv", rows)
        tables.write_csv(folder / "rate_distortion_by_age.csv", ages)
        draw(folder / "rate_distortion.png", {"jdred": rows, "peer": peer}, {"jdred": ages, "peer": peer_ages})
    if peer:
        report(rows, peer)


def operating_points() -> list[tuple[str, int | str, int]]:
    """Kind, level and slope of all rows."""
    constant = [(CONSTANT, level, 0) for level in (*range(NUM_LEVELS), UNQUANTISED)]
    return constant + [(SCHEDULE, *schedule) for schedule in SCHEDULES]


def summary(row: tables.Row) -> str:
    return (
        f"{row['kind']} {row['q0']} {row['dQ']}: {row['bits_per_40ms_latent']:.1f} bits, "
        f"state {row['bits_initial_state']:.0f}, RMSE {row['ceps_rmse_active']:.3f}, "
        f"pitch {row['pitch_cents_median']:.0f} cents, correlation {row['corr_rmse']:.3f}"
    )


def report(rows: list[tables.Row], peer: list[tables.Row]) -> None:
    """Print the BD-rates; the one of the latents last."""
    for label, column in (("BD-rate with the state, payloads of 1.04 s", "mean_payload_bits"), ("BD-rate", None)):
        try:
            figure = rd.bd_rate(curve(rows, column), curve(peer, column))
        except ValueError as error:
            raise SystemExit(f"no BD-rate: {error}") from error
        print(f"{label}: {figure:.2f} %")


def constant_levels(rows: list[tables.Row]) -> list[tables.Row]:
    return [row for row in rows if row["kind"] == CONSTANT and row["q0"] != UNQUANTISED]


def curve(rows: list[tables.Row], bits: str | None = None, error: str = "ceps_rmse_active") -> rd.Curve:
    """The constant levels; bits per latent unless another column is named."""
    points = constant_levels(rows)
    return rd.Curve(
        *(np.array([float(p[column]) for p in points]) for column in (bits or "bits_per_40ms_latent", error))
    )


def age_file(path: Path) -> Path:
    """Where the figures by age lie beside a file of figures."""
    joint = "_" if "_" in path.stem else "-"
    return path.with_name(f"{path.stem}{joint}by{joint}age.csv")


def draw(path: Path, codecs: dict[str, list[tables.Row] | None], ages: dict[str, list[tables.Row] | None]) -> None:
    """Errors against bits (top) and against age (bottom)."""
    figure, axes = plt.subplots(2, 3, figsize=(16, 9), layout="constrained")
    panels = (
        ("ceps_rmse_active", "cepstral RMSE, active rows"),
        ("pitch_cents_median", "pitch error, median (cents)"),
        ("corr_rmse", "correlation RMSE"),
    )
    for (top, bottom), (column, label) in zip(axes.T, panels, strict=True):
        for name, rows in codecs.items():
            if rows:
                draw_rates(top, name, rows, column)
        for name, rows in ages.items():
            if rows:
                draw_ages(bottom, name, rows, column)
        top.set(xlabel="bits per 40 ms latent", ylabel=label)
        bottom.set(xlabel="age (ms)", ylabel=label)
        for axis in (top, bottom):
            axis.grid(alpha=0.3)
            if column == "pitch_cents_median":
                axis.set_yscale("log")
    axes[0, 0].legend()
    figure.suptitle("lines: one level; crosses: levels that rise with age; dotted: not quantised", fontsize="medium")
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_rates(axis: plt.Axes, name: str, rows: list[tables.Row], column: str) -> None:
    """One codec: its levels, its schedules and its floor without quantisation."""
    colour = STYLES[name]["color"]
    levels = curve(rows, error=column)
    axis.plot(levels.bits, levels.rmse, marker=".", label=name, **STYLES[name])
    for row in rows:
        if row["kind"] == SCHEDULE:
            axis.plot(float(row["bits_per_40ms_latent"]), float(row[column]), "x", color=colour)
        elif row["q0"] == UNQUANTISED:
            axis.axhline(float(row[column]), color=colour, linestyle=":", linewidth=0.8)


def draw_ages(axis: plt.Axes, name: str, rows: list[tables.Row], column: str) -> None:
    """One codec at some constant levels, by age of the chunk."""
    for colour, level in enumerate(AGE_LEVELS):
        points = [row for row in rows if row["kind"] == CONSTANT and str(row["q0"]) == str(level)]
        style = {**STYLES[name], "color": f"C{colour}"}
        values = [float(point[column]) for point in points]
        axis.plot([float(point["age_ms"]) for point in points], values, label=f"{name}, level {level}", **style)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
