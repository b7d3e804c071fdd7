"""Recordings to Ogg Opus files that carry redundancy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jdred.config import SAMPLE_RATE_HZ, SenderConfig
from jdred.link.call import packetize
from jdred.link.sender import Sender
from jdred.models import Models
from jdred.opus import ogg


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
    for block in packetize(np.pad(pcm, (0, sender.delay_samples))):
        packets.append(sender.send(block))
        on_packet()
    ratio = ogg.CLOCK_HZ // SAMPLE_RATE_HZ
    return ogg.write(packets, ogg.Head(pre_skip=ratio * sender.delay_samples), ratio * len(pcm))


def read_opus(path: Path) -> ogg.OpusFile:
    """An Ogg Opus file. Raises ``OggError`` where it is none."""
    try:
        return ogg.read(Path(path).read_bytes())
    except OSError as error:
        raise ogg.OggError(f"cannot read {path}: {error.strerror}") from error
    except ogg.OggError as error:
        raise ogg.OggError(f"{path}: {error}") from error
