"""Opus's decoder kept in step with what is heard in a gap.

An Opus decoder predicts speech from its own last output. After a gap that output is what its concealment made up,
though something better was played, and the packets that follow are decoded into worse sound for it. So what is played
in a gap is encoded once more, and the decoder is given these packets as if they had come. Its sound is thrown away;
what stays is its memory. For speech modes (SILK) only: others hardly predict.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from jdred.config import PACKET_SAMPLES
from jdred.opus import codec
from jdred.opus import packet as opus_packet

_WARM_PACKETS = 3
"""Packets before a gap that the encoder hears first."""
_BITRATE_BPS = 24_000
_COMPLEXITY = 2
_SPEECH_MODE = "SILK"


class Splice:
    """What is played, encoded for one decoder in gaps."""

    def __init__(self, make_encoder: Callable[..., codec.Encoder] = codec.Encoder):
        self._make_encoder = make_encoder
        self._encoder: codec.Encoder | None = None
        self._bandwidth: str | None = None
        """Of the encoder."""
        self._warm = False
        """It has heard all up to the newest packet but the lookahead."""
        self._heard = np.zeros((_WARM_PACKETS + 1) * PACKET_SAMPLES, np.float32)

    def hear(self, played: Float[np.ndarray, "320"]) -> None:
        """20 ms that were played and that the decoder knows."""
        self._remember(played)
        self._warm = False

    def feed(
        self,
        decoder: codec.Decoder,
        last_packet: bytes | None,
        played: Float[np.ndarray, "320"],
        pending: Float[np.ndarray, "ahead"],
    ) -> None:
        """Give a decoder the 20 ms that were played in a gap; its own concealment where that cannot be.

        Args:
          last_packet: what it decoded last, if anything.
          pending: what will be played next if the gap goes on.
        """
        self._remember(played)
        packet = None if last_packet is None else self._encode(last_packet, pending)
        if packet is None:
            self._warm = False
            decoder.conceal(PACKET_SAMPLES)
        else:
            decoder.decode(packet)

    def _remember(self, played: np.ndarray) -> None:
        self._heard = np.concatenate([self._heard[PACKET_SAMPLES:], played])

    def _encode(self, last_packet: bytes, pending: np.ndarray) -> bytes | None:
        """The newest 20 ms as a packet like the last one; None where those are no speech mode."""
        mode, bandwidth = opus_packet.mode_and_bandwidth(last_packet[0])
        if mode != _SPEECH_MODE or last_packet[0] & 4:
            return None
        if self._encoder is None or bandwidth != self._bandwidth:
            self._encoder = self._make_encoder(
                bitrate_bps=_BITRATE_BPS, bandwidth=bandwidth, complexity=_COMPLEXITY, lbrr=False
            )
            self._bandwidth, self._warm = bandwidth, False
        sound = self._to_come(pending)
        if not self._warm:
            self._encoder.reset()
            for before in range(_WARM_PACKETS, 0, -1):
                self._encoder.encode(sound[-(before + 1) * PACKET_SAMPLES : -before * PACKET_SAMPLES])
        packet = self._encoder.encode(sound[-PACKET_SAMPLES:])
        self._warm = opus_packet.mode_and_bandwidth(packet[0])[0] == _SPEECH_MODE
        return packet if self._warm else None

    def _to_come(self, pending: np.ndarray) -> Float[np.ndarray, "samples"]:
        """What was played and what follows, as far as the encoder looks ahead; turned back at the end of what is known.

        An encoder's packet is decoded into sound that is late by its lookahead.
        """
        missing = max(0, self._encoder.lookahead - len(pending))
        known = np.concatenate([self._heard, pending[: self._encoder.lookahead]])
        return np.concatenate([known, 2 * known[-1] - known[-2 : -2 - missing : -1]]).astype(np.float32)
