"""The five configurations of the demo on any clips: what repair is worth, in ESTOI, PLCMOS, PESQ and words understood.

``python experiments/repair_quality.py --clips DIR [--traces DIR --kind ge20] --out DIR`` writes ``repair_quality.csv``
(a row a clip and configuration) and prints the means. Traces are ``<clip>_<kind>.txt``, one digit a line, 1 = lost;
without them bursts of 120 ms at 20 % loss are drawn.
"""

import csv
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from jdred.config import ReceiverConfig, SenderConfig
from jdred.evaluation import asr
from jdred.evaluation.clips import read_clip, wav_bytes, written_whole
from jdred.evaluation.compare import MEASURES, packets_of, run_configurations
from jdred.link.channel import draw_trace, read_trace
from jdred.models import load


@dataclass(frozen=True)
class Options:
    clips: Path
    """Folder of wav files."""
    out: Path
    traces: Path | None = None
    """Folder of loss traces."""
    kind: str = "ge20"
    """Which of a clip's traces."""
    only: tuple[str, ...] = ()
    """Names of the clips to take; all by default."""
    models: str = "default"
    sender: SenderConfig = SenderConfig(lbrr_bps=16_000)
    receiver: ReceiverConfig = ReceiverConfig()


def main(options: Options) -> None:
    clips = [clip for clip in sorted(options.clips.glob("*.wav")) if not options.only or clip.stem in options.only]
    if not clips:
        raise SystemExit(f"expected wav files in {options.clips}, found none that are wanted")
    models = load(options.models)
    rows = []
    with written_whole(options.out) as folder:
        for clip in clips:
            pcm = read_clip(clip)
            comparison = run_configurations(
                pcm, trace_of(options, clip, len(pcm)), models, options.sender, options.receiver
            )
            for name, outcome in comparison.outcomes.items():
                words = asr.word_error_rate(pcm, outcome.pcm)
                sources = {source.value: outcome.sources.count(source) for source in set(outcome.sources)}
                rows.append({"clip": clip.stem, "config": name, **outcome.scores, "wer": words,
                             "total_kbps": outcome.total_kbps, "lbrr_kbps": outcome.lbrr_kbps,
                             "dred_kbps": outcome.dred_kbps, "sources": sources})  # fmt: skip
                (folder / f"{clip.stem}_{name}.wav").write_bytes(wav_bytes(outcome.pcm))
            print(f"{clip.stem}\n{comparison.table()}", flush=True)
        with (folder / "repair_quality.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    print_means(rows)


def trace_of(options: Options, clip: Path, samples: int) -> np.ndarray:
    """The clip's trace, drawn from its name where none is given."""
    if options.traces is not None:
        return read_trace(options.traces / f"{clip.stem}_{options.kind}.txt")
    seed = zlib.crc32(clip.stem.encode())
    return draw_trace(packets_of(samples), 0.2, 120.0, 1000.0, seed=seed, protect_first=15, protect_last=3)


def print_means(rows: list[dict]) -> None:
    print(f"means of {len({row['clip'] for row in rows})} clips")
    for name in dict.fromkeys(row["config"] for row in rows):
        means = []
        for measure in (*MEASURES, "wer", "total_kbps", "dred_kbps"):
            values = [row[measure] for row in rows if row["config"] == name and row[measure] is not None]
            means.append(f"{measure} {np.mean(values):.3f}" if values else f"{measure} -")
        print(f"{name:>10}  " + "  ".join(means))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
