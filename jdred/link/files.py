"""Recordings to Ogg Opus files that carry redundancy, and such files to sound, with losses repaired."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from jdred.config import PACKET_SAMPLES, SAMPLE_RATE_HZ, ReceiverConfig, SenderConfig
from jdred.link.call import encoded
from jdred.link.receiver import Receiver, Source
from jdred.link.sender import Sender
from jdred.models import Models
from jdred.opus import ogg
from jdred.opus.packet import PacketError, duration_ms

_RATIO = ogg.CLOCK_HZ // SAMPLE_RATE_HZ


class Decoded(NamedTuple):
    """A file as heard."""

    pcm: Float[np.ndarray, "samples"]
    """At 16 kHz, mono, pre-skip and end cut off."""
    sources: list[Source]
    """Of each 20 ms, the pre-skip included."""
    unreadable: int
    """Packets and payloads that could not be read."""


def encode(
    pcm: Float[np.ndarray, "samples"],
    models: Models,
    config: SenderConfig,
    on_packet: Callable[[], None] = lambda: None,
) -> bytes:
    """An Ogg Opus file of 20 ms packets with redundancy in their padding; players play just the sound.

    Args:
      pcm: mono, 16 kHz, in [-1, 1].
      on_packet: called after each packet, for progress.
    """
    sender = Sender(models, config)
    packets = []
    for packet in encoded(pcm, sender):
        packets.append(packet)
        on_packet()
    return ogg.write(packets, ogg.Head(pre_skip=_RATIO * sender.delay_samples), _RATIO * len(pcm))


def decode(
    opus: ogg.OpusFile,
    lost: UInt8[np.ndarray, "packets"],
    models: Models,
    config: ReceiverConfig,
    on_packet: Callable[[], None] = lambda: None,
) -> Decoded:
    """Play a file of any encoder's through a loss, and repair it.

    Args:
      lost: 1 = lost, one entry a packet; repeated from its start where the file is longer.
      on_packet: called after each packet, for progress.
    """
    if len(lost) == 0:
        raise ValueError("the loss trace is empty")
    listening, heard, sources = Receiver(models, config), [], []
    for slot in slots(opus.packets):
        arrived = [(offset, packet) for number, offset, packet in slot if not lost[number % len(lost)]]
        heard.append(listening.push_all(arrived))
        sources.extend(listening.last_sources)
        for _ in slot:
            on_packet()
    while listening.waiting:
        heard.append(listening.drain())
        sources.extend(listening.last_sources)
    pcm = np.concatenate(heard)[opus.head.pre_skip // _RATIO :][: opus.samples // _RATIO]
    gain = 10 ** (opus.head.gain_q8 / 256 / 20)
    return Decoded(np.clip(gain * pcm, -1, 1), sources, listening.unreadable)


def slots(packets: Sequence[bytes]) -> Iterator[list[tuple[int, int, bytes]]]:
    """For each 20 ms the packets that begin in it: ``(number, samples after its begin, packet)``.

    Bytes that are no Opus packet have no duration and begin nowhere.
    """
    slot, end, position = [], PACKET_SAMPLES, 0
    for number, packet in enumerate(packets):
        try:
            samples = round(duration_ms(packet) * SAMPLE_RATE_HZ / 1000)
        except PacketError:
            continue
        while position >= end:
            yield slot
            slot, end = [], end + PACKET_SAMPLES
        slot.append((number, position - end + PACKET_SAMPLES, packet))
        position += samples
    while position > end - PACKET_SAMPLES:
        yield slot
        slot, end = [], end + PACKET_SAMPLES


def read_opus(path: Path) -> ogg.OpusFile:
    """An Ogg Opus file. Raises ``OggError`` where it is none."""
    try:
        return ogg.read(Path(path).read_bytes())
    except OSError as error:
        raise ogg.OggError(f"cannot read {path}: {error.strerror}") from error
    except ogg.OggError as error:
        raise ogg.OggError(f"{path}: {error}") from error
