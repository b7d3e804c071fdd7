"""What concealment alone is worth: no redundancy, our predictor and vocoder against Opus's own concealment.

``python experiments/concealment.py --clips DIR --traces DIR --out DIR [--peer CSV]``: the same Opus packets of 24 kb/s,
the same losses, concealed by libopus and by us; libopus's deep PLC beside them from ``--peer``. Then the same by length
of the burst: losses of equally long bursts at random places. Writes ``concealment.csv`` (a row a clip, loss pattern and
configuration), ``concealment_means.csv``, ``concealment.png`` and the sounds of a few clips.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from jdred.config import ReceiverConfig, SenderConfig
from jdred.evaluation import figures, tables, trials
from jdred.evaluation.clips import clips_in, wav_bytes, written_whole
from jdred.evaluation.compare import packets_of

NAMES = {"opus_plc": "Opus PLC", "neural_plc": "neural PLC (jdred)"}
PEER = {"opus_plc": "classic24", "neural_plc": "deep24"}
"""Their configurations that ours are drawn beside."""
MEASURES = ("plcmos", "pesq_wb", "estoi")
COLUMNS = {
    "kind": None, "config": None, "clips": 0, "loss": 3, "plcmos": 3, "pesq_wb": 3, "estoi": 3, "lsd_4_7k5_db": 2,
    "se_plcmos": 3, "se_pesq_wb": 3, "se_estoi": 4,
}  # fmt: skip
PROTECTED = 15, 3
"""Packets at the start and the end of a clip that are never lost, as in the traces."""


@dataclass(frozen=True)
class Options:
    clips: Path
    """Folder of wav files."""
    traces: Path
    """Folder of loss traces ``<clip>_<kind>.txt``, one digit a packet, 1 = lost."""
    out: Path
    peer: Path | None = None
    """Another codec's figures on the same clips and traces, means or by clip: ``trace``, ``config``, ``plcmos``, ..."""
    only: tuple[str, ...] = ()
    """Names or patterns of the clips to take; all by default."""
    kinds: tuple[str, ...] = ()
    """Kinds of traces; all by default."""
    bursts: tuple[int, ...] = (1, 2, 3, 5, 10)
    """Lengths of burst, in packets of 20 ms, that are measured by themselves."""
    burst_loss: float = 0.15
    """Loss in those."""
    keep: int = 3
    """Clips whose sounds are kept."""
    processes: int = 1
    parts: trials.Parts = field(default_factory=trials.Parts)
    receiver: ReceiverConfig = ReceiverConfig()


def main(options: Options) -> None:
    clips = clips_in(options.clips, options.only)
    kinds = trials.read_traces(options.traces, clips, options.kinds)
    lengths = {f"burst {20 * n} ms": n for n in options.bursts}
    equal = {label: {c: equal_bursts(pcm, n, options.burst_loss, c) for c, pcm in clips.items()}
             for label, n in lengths.items()}  # fmt: skip
    stage, sender = trials.bench(clips, kinds | equal), SenderConfig(dred_duration_ms=0)
    ways = trials.Way("opus_plc", sender, stock=True), trials.Way("neural_plc", sender)
    rows, done = [], []
    with trials.workers(options.parts, options.processes) as staff:
        for way in ways:
            heard = trials.run(stage, way, staff, options.receiver)
            rows += trials.measure(stage, heard, {}, staff)
            done += [trial for trial in heard if trial.clip in list(clips)[: options.keep]]
    means = trials.summarise(rows, reference="opus_plc")
    peer = {} if options.peer is None else trials.like_ours(trials.read_peer(options.peer, clips), PEER)
    with written_whole(options.out) as folder:
        tables.write_csv(folder / "concealment.csv", rows)
        tables.write_csv(folder / "concealment_means.csv", means)
        figures.bars(folder / "concealment.png", means, MEASURES, NAMES, peer)
        for trial in done:
            name = f"{trial.clip}_{trial.kind}_{trial.way}.wav".replace(" ", "_")
            (folder / name).write_bytes(wav_bytes(trial.pcm))
    report(means, peer)


def equal_bursts(pcm: np.ndarray, length: int, loss: float, name: str) -> np.ndarray:
    """Bursts of one length at random places, at least as long a pause between them; the same for a clip's name."""
    packets = packets_of(len(pcm))
    trace, (first, last) = np.zeros(packets, np.uint8), PROTECTED
    rng = np.random.default_rng(zlib.crc32(f"{name} {length}".encode()))
    count = max(1, round(loss * packets / length))
    # Sorted places in what is left once every burst and the pause behind it are taken out.
    free = packets - first - last - 2 * length * count
    if free < 0:
        raise SystemExit(f"{name}: expected room for {count} bursts of {length} packets, found {packets} packets")
    starts = first + np.sort(rng.integers(0, free + 1, count)) + 2 * length * np.arange(count)
    trace[(starts[:, None] + np.arange(length)).ravel()] = 1
    return trace


def report(means: list[tables.Row], peer: dict[tuple[str, str], tables.Row]) -> None:
    print("standard errors are of the paired difference to opus_plc")
    print(tables.markdown(trials.beside(means, peer), COLUMNS))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
