"""The splice: after a gap Opus's decoder goes on from what was played, not from what it made up itself."""

import numpy as np
import pytest

from jdred.assets import demo_clip_path
from jdred.config import PACKET_SAMPLES
from jdred.evaluation.clips import read_clip
from jdred.link.splice import Splice
from jdred.opus import codec
from jdred.opus.packet import mode_and_bandwidth

GAP = range(40, 43)
LAST = 48


@pytest.fixture(scope="module")
def pcm():
    return read_clip(demo_clip_path())[8000 : 8000 + (LAST + 1) * PACKET_SAMPLES].reshape(-1, PACKET_SAMPLES)


def decode(packets, whole, how) -> np.ndarray:
    """The packets from the gap's end on, where the gap was filled with the right sound, or by the decoder itself."""
    decoder, splice = codec.Decoder(), Splice()
    heard = []
    for n, packet in enumerate(packets):
        if n not in GAP:
            heard.append(decoder.decode(packet))
            splice.hear(heard[-1])
        elif how == "splice":
            splice.feed(decoder, packets[GAP[0] - 1], whole[n], whole[n + 1][:80])
        else:
            decoder.conceal(PACKET_SAMPLES)
    return np.concatenate(heard[GAP[0] :])


def test_the_packets_after_a_gap_are_decoded_as_if_it_had_not_been(pcm):
    packets = [*map(codec.Encoder(bitrate_bps=24_000).encode, pcm)]
    decoder = codec.Decoder()
    whole = [decoder.decode(packet) for packet in packets]
    truth = np.concatenate(whole[GAP[-1] + 1 :])
    error = {how: np.mean((decode(packets, whole, how) - truth) ** 2) for how in ("splice", "conceal")}
    assert error["splice"] < 0.25 * error["conceal"]
    assert error["splice"] < 0.05 * np.mean(truth**2)


def test_music_modes_are_left_to_the_decoder(pcm):
    """CELT hardly predicts: there the decoder conceals as ever, bit for bit."""
    packets = [*map(codec.Encoder(bitrate_bps=64_000, application="restricted_lowdelay").encode, pcm)]
    assert mode_and_bandwidth(packets[0][0])[0] == "CELT"
    decoder = codec.Decoder()
    whole = [decoder.decode(packet) for packet in packets]
    np.testing.assert_array_equal(decode(packets, whole, "splice"), decode(packets, whole, "conceal"))


def test_a_stream_that_begins_with_a_gap():
    decoder = codec.Decoder()
    Splice().feed(decoder, None, np.zeros(PACKET_SAMPLES), np.zeros(80))
    assert decoder.decode(codec.Encoder().encode(np.zeros(PACKET_SAMPLES))).shape == (PACKET_SAMPLES,)
