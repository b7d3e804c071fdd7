"""Calls over UDP: a sender and a receiver on a clock of 20 ms, and a proxy that loses, delays and reorders.

Single-threaded loops around the pure parts; each returns when its source is exhausted, when nothing came for a while,
or when ``stop`` says so, and calls back after each packet for whoever shows statistics.
"""

import heapq
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from jdred.link.network import Network
from jdred.link.receiver import Receiver
from jdred.link.rtp import Numbering, RtpError, pack, unpack

Address = tuple[str, int]
SLOT_S = 0.02
MAX_DATAGRAM = 65_536
_KEPT = 3000
"""So many of the last times (a minute) make the percentiles."""
_BACKLOG = 64
"""So many datagrams are taken at most when it is time to play: a flood must not silence the call."""
_LOST_TICKS = 50
"""A clock that is so many slots behind (the machine slept) starts anew and does not catch up."""


def parse_address(text: str) -> Address:
    """``HOST:PORT``. Raises ``ValueError`` for anything else."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError(f"expected HOST:PORT with a port of 1 .. 65535, found {text!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def listen_on(port: int, host: str = "") -> socket.socket:
    """A UDP socket that datagrams to a port of this machine come to; 0: any free port."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(f"cannot listen on UDP port {port}: {error.strerror}") from error
    return listening


def fresh_numbering() -> Numbering:
    """Numbers that nobody can guess, as RFC 3550 wants them."""
    return Numbering(secrets.randbits(15), secrets.randbits(31), secrets.randbits(32))


@dataclass
class Timing:
    """How a loop on a clock fares; the newest values make the percentiles."""

    late_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """By how much each slot began behind its time."""
    work_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """What was spent in each slot."""
    worst_late_s: float = 0.0
    worst_work_s: float = 0.0
    overruns: int = 0
    """Slots whose work took longer than a slot."""

    def note(self, late_s: float, work_s: float, slot_s: float) -> None:
        """One more slot."""
        self.late_s.append(late_s)
        self.work_s.append(work_s)
        self.worst_late_s, self.worst_work_s = max(self.worst_late_s, late_s), max(self.worst_work_s, work_s)
        self.overruns += work_s > slot_s

    def figures(self) -> dict[str, float]:
        """In milliseconds: median, 99th percentile and worst of both."""
        out = {}
        for name, values, worst in (("late", self.late_s, self.worst_late_s), ("work", self.work_s, self.worst_work_s)):
            p50, p99 = np.percentile(values, [50, 99]) if values else (0.0, 0.0)
            out |= {f"{name}_p50_ms": 1000 * p50, f"{name}_p99_ms": 1000 * p99, f"{name}_worst_ms": 1000 * worst}
        return {key: float(value) for key, value in out.items()} | {"overruns": self.overruns}


class Clock:
    """Ticks every slot, without drift."""

    def __init__(self, slot_s: float, now: Callable[[], float] = time.monotonic):
        self.slot_s, self._now = slot_s, now
        self._next = now()

    @property
    def left_s(self) -> float:
        """Time until the next tick; negative behind it."""
        return self._next - self._now()

    def tick(self) -> float:
        """Go on to the next tick; returns by how much this one is late, in seconds."""
        late = -self.left_s
        self._next += self.slot_s
        if late > _LOST_TICKS * self.slot_s:
            self._next = self._now() + self.slot_s
        return max(0.0, late)


@dataclass
class Sent:
    """Statistics of ``send``."""

    packets: int = 0
    bytes: int = 0
    """Of the Opus packets; headers of RTP, UDP and IP (40 bytes a packet) left out."""
    timing: Timing = field(default_factory=Timing)

    @property
    def kbps(self) -> float:
        return 8 * self.bytes / 1000 / max(1, self.packets) / SLOT_S


def send(
    packets: Iterable[bytes],
    address: Address,
    numbering: Numbering,
    slot_s: float = SLOT_S,
    on_slot: Callable[[Sent], None] = lambda sent: None,
) -> Sent:
    """Send packets of 20 ms, one a slot; each is made (by the iterator) in the slot before it leaves."""
    sent, clock = Sent(), None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        begin = time.monotonic()
        for packet in packets:
            work_s = time.monotonic() - begin
            clock = clock or Clock(slot_s)
            time.sleep(max(0.0, clock.left_s))
            late_s = clock.tick()
            out.sendto(pack(numbering.next(packet)), address)
            sent.packets, sent.bytes = sent.packets + 1, sent.bytes + len(packet)
            if sent.packets > 1:
                sent.timing.note(late_s, work_s, slot_s)
            on_slot(sent)
            begin = time.monotonic()
    return sent


@dataclass
class Received:
    """Statistics of ``receive``."""

    datagrams: int = 0
    bytes: int = 0
    """Of the payloads."""
    malformed: int = 0
    """Datagrams that are no RTP packets."""
    slots: int = 0
    """Times 20 ms played."""
    idle_slots: int = 0
    """Of these the last ones, with nothing in hand: the call is over, or its packets are late."""
    timing: Timing = field(default_factory=Timing)

    @property
    def heard_slots(self) -> int:
        """Times 20 ms played of the call itself."""
        return self.slots - self.idle_slots


def receive(
    listening: socket.socket,
    receiver: Receiver,
    play: Callable[[np.ndarray], None],
    slot_s: float = SLOT_S,
    idle_s: float = 2.0,
    stop: Callable[[], bool] = lambda: False,
    on_slot: Callable[[Received], None] = lambda received: None,
    got: Received | None = None,
) -> Received:
    """Play a call: the clock starts with its first packet; it is over when none came for ``idle_s`` and none waits.

    Whoever plays more slowly than a slot falls behind by so much; beyond ``jitter.JUMP_SAMPLES`` packets are lost.

    Args:
      play: is handed 320 samples in every slot once the playout delay is filled.
      got: statistics to go on with; theirs who want them after an interruption.
    """
    got = got or Received()
    while not stop() and not _take(listening, receiver, got, 0.2):
        pass
    clock, heard_at = Clock(slot_s), time.monotonic()
    while not stop():
        if _take_until_tick(listening, receiver, got, clock):
            heard_at = time.monotonic()
        elif time.monotonic() - heard_at >= idle_s and not receiver.waiting:
            break
        late_s, begin = clock.tick(), time.monotonic()
        idle = not receiver.waiting
        pcm = receiver.play()
        if len(pcm):
            play(pcm)
            got.slots += 1
            got.idle_slots = got.idle_slots + 1 if idle else 0
            got.timing.note(late_s, time.monotonic() - begin, slot_s)
        on_slot(got)
    return got


def _take_until_tick(listening: socket.socket, receiver: Receiver, got: Received, clock: Clock) -> bool:
    """Take what comes until the clock ticks, and what waits already where it is late; whether that was anything."""
    came = False
    while (left_s := clock.left_s) > 0:
        came |= _take(listening, receiver, got, left_s)
    for _ in range(_BACKLOG):
        if not _take(listening, receiver, got, 0.0):
            break
        came = True
    return came


def _take(listening: socket.socket, receiver: Receiver, got: Received, wait_s: float) -> bool:
    """Wait for a datagram and put it into the receiver; False where none came in time (0: none waits)."""
    listening.settimeout(wait_s)
    try:
        datagram = listening.recv(MAX_DATAGRAM)
    except (TimeoutError, BlockingIOError):
        return False
    got.datagrams += 1
    try:
        packet = unpack(datagram)
    except RtpError:
        got.malformed += 1
        return True
    got.bytes += len(packet.payload)
    receiver.put(packet.payload, packet.sequence, packet.timestamp, packet.source)
    return True


def relay(
    listening: socket.socket,
    address: Address,
    network: Network,
    idle_s: float = 2.0,
    stop: Callable[[], bool] = lambda: False,
    on_datagram: Callable[[Network], None] = lambda network: None,
) -> None:
    """Hand datagrams on to an address as the network would; over when nothing came for ``idle_s`` after the first."""
    on_the_way: list[tuple[float, int, bytes]] = []
    heard_at, number = None, 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        while not stop():
            now = time.monotonic()
            while on_the_way and on_the_way[0][0] <= now:
                out.sendto(heapq.heappop(on_the_way)[2], address)
            if heard_at is not None and now - heard_at > idle_s and not on_the_way:
                return
            listening.settimeout(max(1e-4, min(0.2, on_the_way[0][0] - now if on_the_way else 0.2)))
            try:
                datagram = listening.recv(MAX_DATAGRAM)
            except TimeoutError:
                continue
            heard_at = time.monotonic()
            for at, copy in network.carry(heard_at, datagram):
                number += 1  # Ties leave in the order in which they came.
                heapq.heappush(on_the_way, (at, number, copy))
            on_datagram(network)
