"""A minute of free speech from a vocoder: ``python experiments/stability.py --vocoder lpcnet --out DIR``.

On silence, a held vowel, chords, and speech: loud, soft and at every level of the RDO-VAE. Prints and writes
(``stability.csv``) peak, largest mean of a second, largest step between samples, level, and how far 10 s pieces differ.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from jdred.assets import demo_clip_path
from jdred.evaluation import stability, tables
from jdred.evaluation.clips import read_clip, wav_bytes, written_whole
from jdred.models import load

COLUMNS = {"scene": None, "peak": 3, "dc": 4, "jump": 3, "level_db": 1, "drift_db": 2}


@dataclass(frozen=True)
class Options:
    out: Path
    vocoder: str | None = None
    """Shipped name or path; by default that of the set."""
    models: str = "default"
    seconds: float = 60.0
    levels: tuple[int, ...] = tuple(range(16))
    clip: Path | None = None
    """Speech to repeat; the demo's by default."""


def main(options: Options) -> None:
    models = load(options.models, vocoder=options.vocoder)
    pcm = read_clip(options.clip or demo_clip_path())
    said = stability.run(models.vocoder, stability.scenes(models, pcm, options.seconds, options.levels))
    rows = [{"scene": name} | stability.figures(sound) for name, sound in said.items()]
    with written_whole(options.out) as folder:
        tables.write_csv(folder / "stability.csv", rows)
        for name, sound in said.items():
            (folder / f"{name.replace(', ', '-').replace(' ', '-')}.wav").write_bytes(wav_bytes(sound))
    print(tables.markdown(rows, COLUMNS))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
