"""A whole call on one machine: a file through sender, loss and receiver, with real packets."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from jdred.config import PACKET_SAMPLES, PACKETS_PER_SECOND, ReceiverConfig, SenderConfig
from jdred.link.receiver import Receiver, Source
from jdred.link.sender import Sender
from jdred.models import Models
from jdred.opus.extension import strip
from jdred.opus.marker import EXTENSION_ID


class Call(NamedTuple):
    """What was heard, and what it cost."""

    pcm: Float[np.ndarray, "samples"]
    """As long as the input and aligned with it."""
    sources: list[Source]
    """Of every packet played."""
    packet_bytes: Int[np.ndarray, "packets"]
    dred_bytes: Int[np.ndarray, "packets"]
    """Part of them that redundancy took, padding framing included."""

    @property
    def total_kbps(self) -> float:
        return rate_kbps(self.packet_bytes)

    @property
    def dred_kbps(self) -> float:
        return rate_kbps(self.dred_bytes)


def rate_kbps(sizes: np.ndarray) -> float:
    """Mean rate of 20 ms packets of so many bytes."""
    return float(8 * np.mean(sizes) * PACKETS_PER_SECOND / 1000)


def packetize(pcm: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "packets 320"]:
    """Cut into packets, the last one filled up with silence."""
    padded = np.pad(np.asarray(pcm, np.float32), (0, -len(pcm) % PACKET_SAMPLES))
    return padded.reshape(-1, PACKET_SAMPLES)


def encoded(pcm: Float[np.ndarray, "samples"], talking: Sender) -> Iterator[bytes]:
    """A signal as packets, one by one; silence behind its end brings out what the codec still holds."""
    for block in packetize(np.pad(pcm, (0, talking.delay_samples))):
        yield talking.send(block)


def redundancy_bytes(packet: bytes) -> int:
    """Part of a packet that redundancy takes, padding framing included."""
    return len(packet) - len(strip(packet, EXTENSION_ID))


def call(
    pcm: Float[np.ndarray, "samples"],
    lost: UInt8[np.ndarray, "packets"],
    models: Models,
    sender: SenderConfig,
    receiver: ReceiverConfig,
    on_packet: Callable[[], None] = lambda: None,
) -> Call:
    """Send a signal, lose packets, play the rest.

    Args:
      pcm: mono, 16 kHz, in [-1, 1].
      lost: 1 = lost, one entry a packet; repeated from its start where the signal is longer.
      on_packet: called after each packet, for progress.
    """
    if len(lost) == 0:
        raise ValueError("the loss trace is empty")
    talking, listening = Sender(models, sender), Receiver(models, receiver)
    heard, sources, sizes, dred = [], [], [], []

    def play(samples: np.ndarray) -> None:
        if len(samples):
            heard.append(samples)
            sources.extend(listening.last_sources)

    for number, packet in enumerate(encoded(pcm, talking)):
        sizes.append(len(packet))
        dred.append(redundancy_bytes(packet))
        play(listening.push(None if lost[number % len(lost)] else packet))
        on_packet()
    while listening.waiting:
        play(listening.drain())
    whole = np.concatenate(heard)[talking.delay_samples :][: len(pcm)]
    return Call(whole, sources, np.array(sizes), np.array(dred))


def warm_up(
    models: Models,
    sender: SenderConfig | None = SenderConfig(),
    receiver: ReceiverConfig | None = ReceiverConfig(),
) -> None:
    """Compile all that a live call needs, by a short one that loses a packet, so that nothing waits for it later.

    Args:
      sender, receiver: the ends that this side of the call has; None: it has none.
    """
    noise = np.random.default_rng(0).normal(0, 0.05, (8, PACKET_SAMPLES)).astype(np.float32)
    talking = Sender(models, sender or SenderConfig())
    packets = [talking.send(block) for block in noise]
    if receiver is not None:
        listening = Receiver(models, ReceiverConfig(playout_delay_ms=40, use_lbrr=False, use_dred=receiver.use_dred))
        for number, packet in enumerate(packets):
            listening.push(None if number == 4 else packet)
