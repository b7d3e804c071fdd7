"""Faults by the million: ``python experiments/fuzz.py --cases 10000000``.

Random, cut and changed payloads and packets through the payload reader, ``inspect`` and a receiver; stops with status 1
and the case at the first crash, exception or impossible answer. Prints cases a second and memory. Runs of different
``--seed`` add up.
"""

from dataclasses import dataclass

import tyro

from jdred.assets import demo_clip_path
from jdred.config import SenderConfig
from jdred.evaluation.clips import read_clip
from jdred.evaluation.faults import Shares, fuzz, resident_mb
from jdred.link.call import encoded
from jdred.link.sender import Sender
from jdred.models import load
from jdred.progress import board

MEMORY_MB = 50.0
"""Growth within one kind of cases that counts as a fault."""


@dataclass(frozen=True)
class Options:
    cases: int = 100_000
    seed: int = 0
    shares: Shares = Shares()
    models: str = "default"


def main(options: Options) -> int:
    models = load(options.models)
    pcm = read_clip(demo_clip_path())[: 4 * 16_000]
    packets = list(encoded(pcm, Sender(models, SenderConfig(lbrr_bps=16_000))))
    begun, last = {}, {}
    with board("faults") as show:
        for pace in fuzz(models, packets, options.cases, options.seed, options.shares):
            begun.setdefault(pace.name, pace)
            last[pace.name] = pace
            show(lambda: {p.name: f"{p.cases} ({p.per_second:.0f}/s, {p.resident_mb:.0f} MB)" for p in last.values()})
    grown = False
    for name, pace in last.items():
        growth = pace.resident_mb - begun[name].resident_mb
        grown |= growth > MEMORY_MB
        print(f"{name}: {pace.cases} cases, {pace.per_second:.0f} a second, memory {growth:+.1f} MB")
    print(f"no fault; {resident_mb():.0f} MB in the end" + (": memory grows" if grown else ""))
    return int(grown)


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options, description=__doc__)))
