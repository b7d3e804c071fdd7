"""Loss traces for clips of one's own: what ``packet_loss.py`` and ``concealment.py`` read.

``python experiments/draw_traces.py --clips DIR --out DIR`` writes ``<clip>_<kind>.txt`` for every clip and each of the
six loss patterns (isolated losses of 10, 20 and 30 %; bursts of 60, 120 and 400 ms at 20 %): one digit a packet of
20 ms, 1 = lost.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from jdred.evaluation import patterns
from jdred.evaluation.clips import clips_in, written_whole
from jdred.evaluation.compare import packets_of
from jdred.link.channel import write_trace


@dataclass(frozen=True)
class Options:
    clips: Path
    """Folder of wav files."""
    out: Path
    kinds: tuple[str, ...] = tuple(patterns.PATTERNS)
    seed: int = 0


def main(options: Options) -> None:
    if unknown := sorted(set(options.kinds) - patterns.PATTERNS.keys()):
        raise SystemExit(f"expected kinds {', '.join(patterns.PATTERNS)}, found {', '.join(unknown)}")
    with written_whole(options.out) as folder:
        for number, (clip, pcm) in enumerate(clips_in(options.clips).items()):
            for place, kind in enumerate(options.kinds):
                seed = options.seed + 1000 * number + place
                trace = patterns.draw(patterns.PATTERNS[kind], packets_of(len(pcm)), seed)
                write_trace(folder / f"{clip}_{kind}.txt", trace)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
