"""What a vocoder makes of whole clips: from their true features, and from features that went through the RDO-VAE.

``python experiments/copy_synthesis.py --clips DIR --vocoder NAME [--rdovae NAME] --levels none,0,4,6,9,12
[--peer CSV] --out DIR`` writes ``copy_synthesis.csv`` (a row a clip and level), ``copy_synthesis_means.csv``,
spectrograms and sounds of a few clips, and prints the means, another codec's beside them. Level ``none`` is the true
features; otherwise windows of 26 chunks, back to back from the clip's end, are decoded from latents at that level, or
with ``6-5`` at levels that rise with age from 6 by slope 5. ``bps`` is what one copy costs.
"""

import re
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import matplotlib
import numpy as np
import tyro

from jdred.config import FRAME_SAMPLES, SAMPLE_RATE_HZ
from jdred.evaluation import asr, metrics, tables
from jdred.evaluation import copy_synthesis as copying
from jdred.evaluation.clips import clips_in, wav_bytes, written_whole
from jdred.models import load_extractor, load_rdovae, load_vocoder
from jdred.progress import track

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 - after the choice of a backend without a screen

NONE = "none"
COLUMNS = {
    "level": None, "bps": 0, "plcmos": 3, "pesq_wb": 3, "estoi": 3, "lsd_0_4k_db": 2, "lsd_4_7k5_db": 2, "f0_cents": 1,
    "f0_gross": 3, "voicing_error": 3, "energy_within_3db": 3, "energy_bias_db": 2, "energy_error_db": 2, "wer": 3,
}  # fmt: skip
ERRORS = ("plcmos", "pesq_wb", "estoi", "lsd_4_7k5_db")
"""Measures whose error of the paired difference to level ``none`` is given."""
PEER_LEVELS = {"unquantised": NONE}
"""Names of conditions in the other codec's file; ``q 4 constant`` is level 4."""


@dataclass(frozen=True)
class Options:
    clips: Path
    """Folder of wav files."""
    out: Path
    vocoder: str = "lpcnet"
    """Shipped name, or .npz file."""
    rdovae: str = "rdovae"
    """Shipped name, or .npz file; not read for level ``none`` alone."""
    pitch: str | None = None
    """Pitch network of the features that both were trained on: shipped name, or .npz file."""
    levels: str = "none,0,4,6,9,12"
    """With commas between."""
    peer: Path | None = None
    """Means of another vocoder on the same clips: columns ``condition``, ``plcmos``, ``pesq_wb``, ..."""
    only: tuple[str, ...] = ()
    """Names or patterns of the clips to take; all by default."""
    english: str = "*_en_*"
    """Pattern of the clips whose words are counted, where there is a recogniser."""
    pictures: int = 4
    """Clips to draw and to keep."""
    seed: int = 0


def main(options: Options) -> None:
    clips = clips_in(options.clips, options.only)
    levels = parse_levels(options.levels)
    vocoder = load_vocoder(options.vocoder)
    coder = None if levels == [NONE] else load_rdovae(options.rdovae)
    longest = max(map(len, clips.values()))
    batch = np.stack([np.pad(pcm, (0, longest - len(pcm))) for pcm in clips.values()])
    extractor = load_extractor(options.pitch)
    heard, true, rows, said = copying.surround(batch, vocoder, extractor), copying.surround(batch, vocoder), [], {}
    first = vocoder.prime_rows
    for level in levels:
        given, rates, begin = heard.copy(), [None] * len(clips), time.perf_counter()
        if level != NONE:
            newest, slope = schedule(level)
            for number, pcm in enumerate(clips.values()):
                decoded, rates[number] = copying.through(*coder, pcm, newest, extractor, slope)
                given[number, first : first + len(decoded)] = decoded
        said[level] = np.asarray(copying.speak(vocoder, given, options.seed))[:, :longest]
        seconds = time.perf_counter() - begin
        print(f"level {level}: {batch.size / SAMPLE_RATE_HZ:.0f} s made in {seconds:.1f} s", flush=True)
        for number, (name, pcm) in track(enumerate(clips.items()), f"measuring {level}", len(clips)):
            frames = slice(first, first + len(pcm) // FRAME_SAMPLES)
            figures = measure(pcm, said[level][number, : len(pcm)], given[number, frames], true[number, frames])
            if fnmatch(name, options.english):
                figures["wer"] = asr.word_error_rate(pcm, said[level][number, : len(pcm)])
            rows.append({"clip": name, "level": level, "bps": rates[number]} | figures)
    means = [mean_row(rows, level) for level in levels]
    with written_whole(options.out) as folder:
        tables.write_csv(folder / "copy_synthesis.csv", rows)
        tables.write_csv(folder / "copy_synthesis_means.csv", means)
        for number, (name, pcm) in list(enumerate(clips.items()))[: options.pictures]:
            sounds = {"original": pcm} | {level: said[level][number, : len(pcm)] for level in levels}
            draw(folder / f"{name}.png", name, sounds)
            for level in levels:
                (folder / f"{name}_{level}.wav").write_bytes(wav_bytes(sounds[level]))
    report(options, means)


def parse_levels(text: str) -> list[str]:
    levels = [level.strip() for level in text.split(",")]
    wrong = [level for level in levels if level != NONE and not re.fullmatch(r"(\d|1[0-5])(-[0-7])?", level)]
    if wrong:
        found = ", ".join(map(repr, wrong))
        raise SystemExit(f"expected levels 0 .. 15, schedules like 6-5 (slope 0 .. 7) or {NONE}, found {found}")
    return levels


def schedule(level: str) -> tuple[int, int]:
    """Level of the newest chunk and slope."""
    newest, _, slope = level.partition("-")
    return int(newest), int(slope or 0)


def measure(pcm: np.ndarray, said: np.ndarray, given: np.ndarray, true: np.ndarray) -> tables.Row:
    scores = metrics.score(pcm, said) | {"lsd_0_4k_db": metrics.lsd_0_4k_db(pcm, said)}
    return scores | copying.fidelity(said, given, true)


def mean_row(rows: list[tables.Row], level: str) -> tables.Row:
    """Means over the clips, and errors of the paired differences to the true features."""
    of_level = [row for row in rows if row["level"] == level]
    reference = [row for row in rows if row["level"] == NONE]
    measures = dict.fromkeys(name for row in rows for name in row if name not in ("clip", "level"))
    row = {"level": level, "clips": len(of_level)}
    row |= {name: tables.mean(tables.column(of_level, name)) for name in measures}
    if reference:
        errors = {n: tables.paired_error(tables.column(of_level, n), tables.column(reference, n)) for n in ERRORS}
        row |= {f"se_{name}_vs_none": error for name, error in errors.items()}
    return row


def report(options: Options, means: list[tables.Row]) -> None:
    print(f"means of {means[0]['clips']} clips, vocoder {options.vocoder}")
    print(tables.markdown(means, COLUMNS))
    if options.peer is None:
        return
    for row in (peer := tables.read_csv(options.peer)):
        words = str(row["condition"]).split()
        coded = words[0] == "schedule" or (words[0] == "q" and words[-1] == "constant")
        row["level"] = words[1] if coded else PEER_LEVELS.get(str(row["condition"]), row["condition"])
    print(f"{options.peer.stem}, {peer[0].get('clips', '?')} clips")
    print(tables.markdown(peer, {name: digits for name, digits in COLUMNS.items() if name in peer[0]}))


def draw(path: Path, name: str, sounds: dict[str, np.ndarray]) -> None:
    """Spectrograms one below the other, on the original's scale."""
    figure, axes = plt.subplots(len(sounds), 1, figsize=(18, 2.6 * len(sounds)), layout="constrained", squeeze=False)
    top = 10 * np.log10(metrics.spectrogram(sounds["original"]).max() + 1e-12)
    seconds = len(sounds["original"]) / SAMPLE_RATE_HZ
    for axis, (label, pcm) in zip(axes[:, 0], sounds.items(), strict=True):
        decibels = 10 * np.log10(metrics.spectrogram(pcm) + 1e-12) - top
        axis.imshow(
            decibels.T, aspect="auto", origin="lower", vmin=-70, vmax=0, cmap="magma", extent=(0, seconds, 0, 8)
        )
        axis.set_ylabel(f"{label}\nkHz")
    axes[-1, 0].set_xlabel("s")
    figure.suptitle(name)
    figure.savefig(path, dpi=70)
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
