"""How long everything takes on this machine: ``python experiments/bench.py --clips DIR --out DIR``.

Every vocoder preset at several batch sizes, every step of the link, and lost packets repaired by a receiver; with
``--torch`` a loop of PyTorch beside LPCNet, with ``--peer CSV`` the figures of C code, quoted. Pin it to one core for
figures a core (``taskset -c 0``). Writes ``bench.csv`` and prints the table: median and 99th percentile of single
calls, warm, in microseconds; processor time, which other work on the machine disturbs less; and how many times faster
than real time that is, all streams of a call together.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jdred.config import PACKET_FRAMES, ReceiverConfig, SenderConfig
from jdred.dsp.features import extract
from jdred.evaluation import speed, tables, trials
from jdred.evaluation.clips import clips_in, written_whole
from jdred.evaluation.compare import packets_of
from jdred.link import sender as sending
from jdred.link.call import encoded, packetize
from jdred.link.channel import draw_trace
from jdred.link.receiver import Receiver, Source
from jdred.link.redundancy import describe
from jdred.link.sender import Sender
from jdred.models import Models
from jdred.plc import predictor as predicting
from jdred.plc.predictor import Predictor
from jdred.streaming import bind

COLUMNS = {"item": None, "batch": 0, "calls": 0, "p50_us": 1, "p99_us": 1, "cpu_us": 1, "us_per_sample": 2,
           "real_time": 1, "first_s": 1}  # fmt: skip


@dataclass(frozen=True)
class Options:
    clips: Path
    """Folder of wav files; the first is used."""
    out: Path
    presets: tuple[str, ...] = tuple(speed.PRESETS)
    batches: tuple[int, ...] = (1, 8, 64)
    calls: int = 200
    """At most so many of each item; slow ones get fewer."""
    torch: bool = False
    """Time a loop in PyTorch of LPCNet's size, too."""
    peer: Path | None = None
    """Figures of C code measured elsewhere: columns ``item``, ``us_best``."""
    parts: trials.Parts = field(default_factory=trials.Parts)


def main(options: Options) -> None:
    pcm = next(iter(clips_in(options.clips).values()))
    if unknown := sorted(set(options.presets) - speed.PRESETS.keys()):
        raise SystemExit(f"expected presets {', '.join(speed.PRESETS)}, found {', '.join(unknown)}")
    rows = vocoders(options, pcm)
    models = options.parts.load()
    rows += [speed.timed(name, call, ms, options.calls, batch=1) for name, call, ms in steps(pcm, models)]
    rows += repairs(pcm, models)
    quoted = [] if options.peer is None else quote(options.peer)
    with written_whole(options.out) as folder:
        tables.write_csv(folder / "bench.csv", [{"measured": "here"} | row for row in rows] + quoted)
    print(tables.markdown(rows, COLUMNS))
    if quoted:
        print(f"quoted from {options.peer.name}, measured elsewhere\n")
        print(tables.markdown(quoted, {"item": None, "p50_us": 1}))


def vocoders(options: Options, pcm: np.ndarray) -> list[tables.Row]:
    features = np.asarray(extract(jnp.asarray(pcm[:16_000])))[20:]
    rows = []
    for name in options.presets:
        rows += [speed.vocoder_row(name, batch, features, options.calls) for batch in options.batches]
        print(tables.markdown(rows[-len(options.batches) :], COLUMNS), flush=True)
        if options.torch and name.startswith("LPCNet"):
            from jdred.evaluation.torch_loop import sample_loop

            loops = {batch: sample_loop(speed.PRESETS[name], batch) for batch in options.batches}
            rows += [speed.timed(f"{name}, PyTorch loop", loop, 10 * batch, options.calls, batch=batch)
                     for batch, loop in loops.items()]  # fmt: skip
    return rows


def steps(pcm: np.ndarray, models: Models) -> list[tuple[str, Callable[[], object], float]]:
    """``(name, call, ms of audio that a call handles)`` of each step, in the order of the data."""
    config, blocks = sending.settings(SenderConfig()), jnp.asarray(packetize(pcm))
    state, planned = sending.init_state(models.rdovae, models.extractor), None
    networks = models.rdovae, models.extractor
    plan = bind(lambda n, s, block: sending.step(n[0], config, s, block, n[1]), networks)
    for block in blocks[:60]:
        state, planned = plan(state, block)
    symbols = jax.tree.map(np.asarray, planned)
    codec, chunks = models.payloads, max(1, int(symbols.chunks))
    data = codec.encode(symbols.header, symbols.state, symbols.latents, chunks)
    payload = jax.device_put(codec.decode(data))
    features = bind(type(models.extractor).scan, models.extractor)
    frames = blocks[60].reshape(PACKET_FRAMES, -1)
    encode = bind(type(models.rdovae.encoder).step, models.rdovae.encoder)
    pair = features(state.features, frames)[1].reshape(-1)
    decode = bind(describe, models.rdovae)
    predict = bind(Predictor.step, models.predictor)
    lost, memory = predicting.lost(), jax.tree.map(jnp.array, models.predictor.init_state())
    batch, whole = jnp.asarray(np.resize(pcm, (8, 10 * 16_000))), jax.jit(extract)
    return [
        ("features, 8 clips of 10 s", lambda: whole(batch), 80_000),
        ("features of a packet", lambda: features(state.features, frames), 20),
        ("encoder", lambda: encode(state.encoder, pair), 20),
        ("features, encoder, plan, quantiser", lambda: plan(state, blocks[60]), 20),
        (f"payload to bytes, {chunks} chunks",
         lambda: codec.encode(symbols.header, symbols.state, symbols.latents, chunks), 20),
        (f"bytes to payload, {chunks} chunks", lambda: codec.decode(data), 20),
        (f"decoder, {chunks} chunks", lambda: decode(payload), 40 * chunks),
        ("predictor, a frame", lambda: predict(memory, lost), 10),
    ]  # fmt: skip


def repairs(pcm: np.ndarray, models: Models) -> list[tables.Row]:
    """A packet through the sender, and what a receiver takes for 20 ms: all it does, libopus included."""
    talking, listening = Sender(models), Receiver(models, ReceiverConfig(playout_delay_ms=200))
    lost = draw_trace(packets_of(len(pcm)), 0.2, 60.0, seed=1, protect_first=15)
    sent, times = [], {}
    packets = encoded(pcm, talking)
    for _ in lost:
        mark = time.perf_counter(), time.process_time()
        sent.append(next(packets))
        times.setdefault("sender: a packet", []).append(_since(mark))
    for turn in range(2):  # The first one compiles.
        before = Source.GOOD
        for packet, gone in zip(sent, lost, strict=True):
            mark = time.perf_counter(), time.process_time()
            played = listening.push(None if gone else packet)
            taken = _since(mark)
            if turn and len(played):
                times.setdefault(_kind(before, listening.last_source), []).append(taken)
                before = listening.last_source
    rows = []
    for item, taken in sorted(times.items()):
        wall, busy = np.transpose(taken[len(taken) // 10 :] if item.startswith("sender") else taken)
        rows.append(speed.row(item, wall, float(busy.mean()), 20, batch=1))
    return rows


def _since(mark: tuple[float, float]) -> tuple[float, float]:
    return 1e6 * (time.perf_counter() - mark[0]), 1e6 * (time.process_time() - mark[1])


def _kind(before: Source, source: Source) -> str:
    if source == Source.GOOD:
        return "receiver: a packet that arrived"
    place = "first" if before == Source.GOOD else "further"
    return f"receiver: whole repair of a lost packet, {place} of a gap, by {source}"


def quote(path: Path) -> list[tables.Row]:
    """The peer's table as rows of ours; its best figure stands for the median."""
    rows = tables.read_csv(path)
    if not rows or not {"item", "us_best"} <= rows[0].keys():
        raise SystemExit(f"expected columns item and us_best in {path}, found {', '.join(rows[0]) if rows else 'none'}")
    return [{"measured": path.name, "item": row["item"], "p50_us": float(row["us_best"])} for row in rows]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
