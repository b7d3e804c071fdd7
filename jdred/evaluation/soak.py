"""A long call over a very bad network, as fast as it goes: does what it costs, in time and memory, stay the same?"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

import numpy as np
from jaxtyping import Float

from jdred.config import PACKET_SAMPLES, PACKETS_PER_SECOND, NetworkConfig, ReceiverConfig, SenderConfig
from jdred.evaluation.faults import resident_mb
from jdred.link.network import Network
from jdred.link.receiver import Receiver, Source
from jdred.link.rtp import Numbering, pack, unpack
from jdred.link.sender import Sender
from jdred.models import Models

SLOT_S = 1 / PACKETS_PER_SECOND


@dataclass(frozen=True)
class SoakConfig:
    """What the call has to go through."""

    network: NetworkConfig = NetworkConfig(
        loss=0.3, burst_ms=100, jitter_ms=60, reorder=0.05, reorder_ms=80, duplicate=0.05
    )
    sender: SenderConfig = SenderConfig(lbrr_bps=16_000)
    receiver: ReceiverConfig = ReceiverConfig(playout_delay_ms=300)
    restart_s: float = 47.0
    """The sender is killed so often, and another one begins."""
    pause_s: float = 0.5
    """Nobody sends for so long then."""
    row_s: float = 60.0
    """Time of the call in a row of the result."""


Row = dict[str, float]


def soak(models: Models, pcm: Float[np.ndarray, "samples"], minutes: float, config: SoakConfig) -> Iterator[Row]:
    """A call of so many minutes, the signal repeated; a row of figures for each part of it.

    Args:
      pcm: mono, 16 kHz, in [-1, 1], at least 20 ms.
    """
    network, receiver = Network(config.network), Receiver(models, config.receiver)
    blocks = pcm[: len(pcm) // PACKET_SAMPLES * PACKET_SAMPLES].reshape(-1, PACKET_SAMPLES)
    sending, ties, on_the_way = _senders(models, blocks, config), count(), []
    spent: list[tuple[float, bool]] = []
    every, slots = round(config.row_s / SLOT_S), round(60 * minutes / SLOT_S)
    for slot in range(slots):
        now = slot * SLOT_S
        if (datagram := next(sending)) is not None:
            for at, copy in network.carry(now, datagram):
                heappush(on_the_way, (at, next(ties), copy))
        begin = time.perf_counter()
        while on_the_way and on_the_way[0][0] <= now:
            packet = unpack(heappop(on_the_way)[2])
            receiver.put(packet.payload, packet.sequence, packet.timestamp, packet.source)
        pcm_out = receiver.play()
        lost = bool(receiver.last_sources) and receiver.last_source in (Source.DRED, Source.PLC)
        spent.append((1000 * (time.perf_counter() - begin), lost))
        if not np.all(np.isfinite(pcm_out)):
            raise FloatingPointError(f"sound that is not finite after {now:.2f} s")
        if (slot + 1) % every == 0 or slot + 1 == slots:
            yield _row((slot + 1) * SLOT_S, receiver, network, spent)
            spent.clear()


def _senders(models: Models, blocks: np.ndarray, config: SoakConfig) -> Iterator[bytes | None]:
    """One sender after the other; datagrams, and None while nobody sends."""
    rng = np.random.default_rng(config.network.seed)
    life, pause, place = round(config.restart_s / SLOT_S), round(config.pause_s / SLOT_S), 0
    while True:
        sender = Sender(models, config.sender)
        numbering = Numbering(*(int(rng.integers(1 << bits)) for bits in (16, 32, 32)))
        for _ in range(life):
            yield pack(numbering.next(sender.send(blocks[place % len(blocks)])))
            place += 1
        for _ in range(pause):
            yield None


def _row(seconds: float, receiver: Receiver, network: Network, spent: Sequence[tuple[float, bool]]) -> Row:
    times, lost = np.array([t for t, _ in spent]), np.array([gone for _, gone in spent])
    counts, played = receiver.timeline.counts, sum(receiver.counts.values())

    def median(values: np.ndarray) -> float:
        return float(np.median(values)) if len(values) else float("nan")

    return {
        "seconds": round(seconds, 2),
        "resident_mb": round(resident_mb(), 2),
        "good_ms": round(median(times[~lost]), 4),
        "lost_ms": round(median(times[lost]), 4),
        "p99_ms": round(float(np.percentile(times, 99)), 4),
        "waiting": receiver.waiting,
        "network_loss": round(network.lost / (network.lost + network.carried), 4),
        "played": played,
        **{str(source): receiver.counts[source] for source in Source},
        "late": counts.late,
        "duplicate": counts.duplicate,
        "reordered": counts.reordered,
        "restarts": counts.restarts,
        "shifts": counts.shifts,
        "unreadable": receiver.unreadable,
    }


def verdict(rows: Sequence[Row], memory_mb: float = 20.0, cost: float = 1.3) -> list[str]:
    """What is not flat, in words; the first tenth of the rows is warming up."""
    settled = rows[max(1, len(rows) // 10) :]
    if len(settled) < 2:
        return []
    complaints = []
    growth = settled[-1]["resident_mb"] - settled[0]["resident_mb"]
    if growth > memory_mb:
        complaints.append(f"memory grew by {growth:.1f} MB")
    half = len(settled) // 2
    for name in ("good_ms", "lost_ms"):
        before, after = (np.nanmedian([row[name] for row in part]) for part in (settled[:half], settled[half:]))
        if after > cost * before:
            complaints.append(f"{name} grew from {before:.2f} to {after:.2f}")
    if settled[-1]["waiting"] > 3 * max(settled[0]["waiting"], 10):
        complaints.append(f"{settled[-1]['waiting']} packets wait")
    return complaints


def listed(rows: Sequence[Row], write: Callable[[str], None]) -> None:
    """The rows as CSV."""
    write(",".join(rows[0]) + "\n")
    for row in rows:
        write(",".join(f"{value:g}" for value in row.values()) + "\n")
