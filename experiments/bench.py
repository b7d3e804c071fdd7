"""How long each step of the link takes on this machine: ``python experiments/bench.py --clips DIR --out DIR``.

Pin it to one core for figures a core (``taskset -c 0``). Writes ``bench.csv`` and prints the table: median and 99th
percentile of single calls, warm, in microseconds, and how many times faster than real time that is.
"""

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jdred.config import SenderConfig
from jdred.dsp.features import extract
from jdred.evaluation.clips import read_clip, written_whole
from jdred.link import receiver as receiving
from jdred.link import sender as sending
from jdred.link.call import packetize
from jdred.models import load
from jdred.plc.concealer import Concealer


@dataclass(frozen=True)
class Options:
    clips: Path
    """Folder of wav files; the first is used."""
    out: Path
    models: str = "default"
    calls: int = 200


def main(options: Options) -> None:
    clips = sorted(options.clips.glob("*.wav"))
    if not clips:
        raise SystemExit(f"expected wav files in {options.clips}, found none")
    pcm = read_clip(clips[0])
    rows = [measure(name, call, audio_ms, options.calls) for name, call, audio_ms in steps(pcm, options.models)]
    with written_whole(options.out) as folder, (folder / "bench.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(
            "{step:<44} p50 {p50_us:>9.0f} us  p99 {p99_us:>9.0f} us  {times_real_time:>8.1f} x real time".format(**row)
        )


def measure(name: str, call: Callable[[], object], audio_ms: float, calls: int) -> dict[str, object]:
    """Time single calls after a warm-up."""
    jax.block_until_ready(call())
    micros = []
    for _ in range(calls):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        micros.append(1e6 * (time.perf_counter() - begin))
    p50, p99 = np.percentile(micros, [50, 99])
    return {"step": name, "p50_us": p50, "p99_us": p99, "times_real_time": 1000 * audio_ms / p50}


def steps(pcm: np.ndarray, name: str) -> list[tuple[str, Callable[[], object], float]]:
    """``(name, call, ms of audio that a call handles)`` of each step, in the order of the data."""
    models = load(name)
    config = SenderConfig()
    step = jax.jit(sending.step, static_argnums=1)
    blocks = jnp.asarray(packetize(pcm))
    state = sending.init_state(models.rdovae)
    for block in blocks[:60]:
        state, redundancy = step(models.rdovae, config, state, block)
    codec = models.payloads
    data = codec.encode(redundancy.header, redundancy.state, redundancy.latents, max(1, int(redundancy.chunks)))
    payload = codec.decode(data)
    describe = jax.jit(receiving.describe)
    described = describe(models.rdovae, payload)
    concealer = models.concealer
    good = jax.jit(Concealer.good)
    begin, _ = good(concealer, concealer.init_state(), blocks[59])
    key, one = jax.random.key(0), np.int32(2)
    conceal = lambda state: receiving.conceal_step(concealer, state, described, one, key, one)  # noqa: E731
    gap = conceal(begin)[0]
    features = jax.jit(extract)
    batch = jnp.asarray(np.resize(pcm, (8, 10 * 16_000)))

    def repair() -> object:
        told = describe(models.rdovae, codec.decode(data))
        return receiving.conceal_step(concealer, begin, told, one, key, one)

    return [
        ("features, 8 clips of 10 s", lambda: features(batch), 80_000),
        ("sender: features, encoder, quantiser", lambda: step(models.rdovae, config, state, blocks[60]), 20),
        ("payload to bytes, 1 s",
         lambda: codec.encode(redundancy.header, redundancy.state, redundancy.latents, int(redundancy.chunks)), 20),
        ("bytes to payload, 1 s", lambda: codec.decode(data), 20),
        ("decoder, 1 s of rows", lambda: describe(models.rdovae, payload), 1040),
        ("good packet through the concealer", lambda: good(concealer, begin, blocks[60]), 20),
        ("first lost packet of a gap", lambda: conceal(begin), 20),
        ("further lost packet", lambda: conceal(gap), 20),
        ("whole repair of a lost packet, from bytes", repair, 20),
    ]  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
