"""Faults by the million: damaged and random payloads and packets through everything that reads what is received.

Three readers, each at the pace that it has: the compiled payload reader in batches; ``inspect`` with all that is
written in Python (packets, extensions, RTP, files); and a whole ``Receiver`` with libopus and the networks. None may
raise, whatever it is given, and what they say must be within its ranges.
"""

import contextlib
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, UInt8

from jdred.bitstream import payload
from jdred.bitstream.symbols import MAX_SYMBOL
from jdred.config import MAX_CHUNKS, NUM_LEVELS, PACKET_SAMPLES, ReceiverConfig
from jdred.link.inspect import inspect
from jdred.link.receiver import Receiver
from jdred.link.redundancy import describe
from jdred.link.rtp import RtpError, unpack
from jdred.models import Models
from jdred.opus import ogg
from jdred.opus.marker import attach_redundancy, find_redundancy

CAPACITY = 256
"""Bytes of a payload in a batch."""
MAX_RANDOM = 120


class FaultError(AssertionError):
    """A reader said something impossible, or raised; the message holds the case."""


@dataclass(frozen=True)
class Shares:
    """Which part of the cases goes where; the rest goes through the payload reader."""

    inspect: float = 0.02
    receiver: float = 0.0005


class Pace(NamedTuple):
    """How a kind of cases went."""

    name: str
    cases: int
    seconds: float
    resident_mb: float
    """Of this process, at the end."""

    @property
    def per_second(self) -> float:
        return self.cases / self.seconds if self.seconds else 0.0


def resident_mb() -> float:
    """Memory of this process: now where the system tells, else its highest so far."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest / (1e6 if sys.platform == "darwin" else 1e3)


def damage(rng: np.random.Generator, good: Sequence[bytes]) -> bytes:
    """Random bytes, or one of ``good`` cut, with bits or bytes changed, joined with another, or as it is."""
    original = good[rng.integers(len(good))]
    kind = rng.integers(6)
    if kind == 0:
        return rng.bytes(rng.integers(MAX_RANDOM))
    if kind == 1:
        return original[: rng.integers(len(original) + 1)]
    if kind in (2, 3) and original:
        changed = bytearray(original)
        for place in rng.integers(len(changed), size=rng.integers(1, 6)):
            changed[place] = changed[place] ^ 1 << rng.integers(8) if kind == 2 else rng.integers(256)
        return bytes(changed)
    if kind == 4:
        other = good[rng.integers(len(good))]
        return original[: rng.integers(len(original) + 1)] + other[rng.integers(len(other) + 1) :]
    return original


def damaged_batch(
    rng: np.random.Generator, good: UInt8[np.ndarray, "good 256"], lengths: Int[np.ndarray, "good"], count: int
) -> tuple[UInt8[np.ndarray, "count 256"], Int[np.ndarray, "count"], Int[np.ndarray, "count"]]:
    """The same, many at once: bytes, lengths, and the number of chunks that is announced (0: none is).

    A quarter is random, a quarter cut, the others have one to four bits changed.
    """
    which = rng.integers(len(good), size=count)
    data, length = good[which].copy(), lengths[which].copy()
    kind = rng.integers(4, size=count)
    random, cut, flipped = kind == 0, kind == 1, kind >= 2
    data[random] = rng.integers(0, 256, (random.sum(), data.shape[1]), np.uint8)
    length[random] = rng.integers(0, MAX_RANDOM, random.sum())
    length[cut] = rng.integers(0, length[cut] + 1)
    rows = np.flatnonzero(flipped)
    for _ in range(4):
        rows = rows[rng.random(len(rows)) < 0.8]
        bit = np.left_shift(np.uint8(1), rng.integers(8, size=len(rows), dtype=np.uint8))
        data[rows, rng.integers(0, np.maximum(length[rows], 1))] ^= bit
    return data, length, rng.integers(0, MAX_CHUNKS + 1, count)


def read_batch(models: Models):
    """The compiled payload reader over a batch: ``(data, lengths, announced) -> Payload``, a leading axis on each."""
    return jax.jit(jax.vmap(lambda *case: payload.read(payload.distributions(models.tables), *case)))


def check_batch(read: payload.Payload, lengths: Int[np.ndarray, "count"], announced: Int[np.ndarray, "count"]) -> None:
    """Raise ``FaultError`` unless all that was read is possible."""
    chunks = np.asarray(read.chunks)
    eighths = np.asarray(read.eighths)
    spent = np.where(np.asarray(read.valid), eighths.max(axis=1), 0)
    rules = {
        "chunks are 0 .. 26 and no more than announced": (chunks >= 0)
        & (chunks <= np.where(announced > 0, announced, MAX_CHUNKS)),
        "valid says that there are chunks": np.asarray(read.valid) == (chunks > 0),
        "levels are 0 .. 15": np.all((np.asarray(read.levels) >= 0) & (np.asarray(read.levels) < NUM_LEVELS), axis=1),
        "symbols have a legal size": np.abs(np.asarray(read.latents)).max(axis=(1, 2)) <= MAX_SYMBOL,
        "chunks end within the bytes": spent <= 64 * lengths + 8,
        "what was not read is zero": ~np.any(
            np.any(np.asarray(read.latents) != 0, axis=2) & (np.arange(MAX_CHUNKS) >= chunks[:, None]), axis=1
        ),
    }
    for rule, kept in rules.items():
        if not np.all(kept):
            raise FaultError(f"{rule}: broken by case {int(np.argmin(kept))} of its batch")


def fuzz_payloads(models: Models, packets: Sequence[bytes], cases: int, seed: int, batch: int = 4096) -> Iterator[int]:
    """Payloads through the compiled reader, and one in a hundred through the decoder; yields how many are done."""
    found = (find_redundancy(packet, models.wire) for packet in packets)
    good = [data[1 : 1 + CAPACITY] for data in found if data]
    table = np.stack([np.frombuffer(data.ljust(CAPACITY, b"\0"), np.uint8) for data in good])
    sizes = np.array([len(data) for data in good])
    read, tell = read_batch(models), jax.jit(jax.vmap(lambda p: describe(models.rdovae, p).rows))
    for number in range(-(-cases // batch)):
        rng = np.random.default_rng([seed, 0, number])
        data, lengths, announced = damaged_batch(rng, table, sizes, batch)
        got = jax.tree.map(np.asarray, read(data, lengths.astype(np.int32), announced.astype(np.int32)))
        check_batch(got, lengths, announced)
        few = jax.tree.map(lambda a: a[: batch // 100 or 1], got)
        if not np.all(np.isfinite(tell(few))):
            raise FaultError(f"rows that are not finite, batch {number}")
        yield min(cases, (number + 1) * batch)


def fuzz_inspect(models: Models, packets: Sequence[bytes], cases: int, seed: int) -> Iterator[int]:
    """Packets through ``inspect``, and the same bytes as datagram and as file; yields how many are done."""
    payloads = models.payloads
    for number in range(cases):
        rng = np.random.default_rng([seed, 1, number])
        case = damage(rng, packets)
        try:
            info = inspect(case, payloads)
            for reader, refusal in ((unpack, RtpError), (ogg.read, ogg.OggError)):
                with contextlib.suppress(refusal):
                    reader(case)
        except Exception as error:
            raise FaultError(f"inspect raised {error!r} on {case.hex()}") from error
        told = info.redundancy
        if told is not None and not (1 <= told.chunks <= MAX_CHUNKS and told.from_ms < told.to_ms <= 40):
            raise FaultError(f"impossible redundancy {told} of {case.hex()}")
        yield number + 1


def fuzz_receiver(models: Models, packets: Sequence[bytes], cases: int, seed: int) -> Iterator[int]:
    """Damaged packets, and packets with damaged payloads, through one receiver with numbers that jump about.

    One in five is sound, lost or comes twice; yields how many are done.
    """
    receiver = Receiver(models, ReceiverConfig(playout_delay_ms=100))
    found = (find_redundancy(packet, models.wire) for packet in packets)
    good = [data for data in found if data]
    cores = [packet for packet in packets if packet]
    sequence, timestamp, source = 0, 0, 0
    for number in range(cases):
        rng = np.random.default_rng([seed, 2, number])
        sequence, timestamp = sequence + 1, timestamp + 960
        if rng.random() < 0.002:
            sequence, timestamp, source = (int(rng.integers(1 << bits)) for bits in (16, 32, 32))
        case = damage(rng, packets)
        try:
            if rng.random() < 0.3:
                case = attach_redundancy(cores[rng.integers(len(cores))], damage(rng, good), models.wire)
            if rng.random() > 0.2:
                off = int(rng.integers(-3, 4)) if rng.random() < 0.1 else 0
                receiver.put(case, (sequence + off) % (1 << 16), (timestamp + 960 * off) % (1 << 32), source)
            pcm = receiver.play()
        except Exception as error:
            raise FaultError(f"the receiver raised {error!r} on {case.hex()}, case {number}") from error
        if len(pcm) not in (0, PACKET_SAMPLES) or not np.all(np.isfinite(pcm)) or np.any(np.abs(pcm) > 1):
            raise FaultError(f"impossible sound after {case.hex()}, case {number}")
        yield number + 1


def fuzz(
    models: Models, packets: Sequence[bytes], cases: int, seed: int = 0, shares: Shares = Shares()
) -> Iterator[Pace]:
    """All kinds of faults, ``cases`` in all; after each some thousand cases how that kind went so far.

    Args:
      packets: sound ones, some of them with redundancy.
    Raises:
      FaultError: at the first fault.
    """
    inspected, received = round(shares.inspect * cases), round(shares.receiver * cases)
    kinds = {
        "payload reader": (fuzz_payloads, cases - inspected - received, 1),
        "inspect": (fuzz_inspect, inspected, 1000),
        "receiver": (fuzz_receiver, received, 100),
    }
    for name, (run, count, every) in kinds.items():
        begin, work = time.monotonic(), run(models, packets, count, seed) if count else iter(())
        first = next(work, 0)  # It compiles.
        warm = time.monotonic()
        for done in work:
            if done % every == 0 or done == count:
                yield Pace(name, done - first, time.monotonic() - warm, resident_mb())
        if first == count:
            yield Pace(name, count, time.monotonic() - begin, resident_mb())
