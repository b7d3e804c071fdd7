"""Streams received side by side sound as each does alone."""

import numpy as np
import pytest

from jdred.assets import demo_clip_path
from jdred.config import PACKET_SAMPLES, ReceiverConfig, SenderConfig
from jdred.evaluation.clips import read_clip
from jdred.link.call import packetize
from jdred.link.offline import receive_all
from jdred.link.receiver import Receiver, Source
from jdred.link.sender import Sender


@pytest.fixture(scope="module")
def streams(models):
    """Three streams of unequal length: bursts that overlap, single losses, and no loss at all."""
    pcm = read_clip(demo_clip_path())[8000 : 8000 + 32 * PACKET_SAMPLES]
    talking = Sender(models, SenderConfig(lbrr_bps=16_000, dred_duration_ms=200))
    packets = [talking.send(block) for block in packetize(pcm)]
    losses = {16, 17, 18, 24}, {5, *range(10, 30)}, set()
    lengths = 32, 30, 28
    return [
        [None if n in lost else packet for n, packet in enumerate(packets[:length])]
        for lost, length in zip(losses, lengths, strict=True)
    ]


@pytest.mark.parametrize(
    "config",
    [
        ReceiverConfig(seed=3, splice=False),
        ReceiverConfig(playout_delay_ms=60, use_lbrr=False, splice=False),
        ReceiverConfig(offline=True, splice=False),
        ReceiverConfig(),
    ],
)
def test_side_by_side_is_as_alone(models, streams, config):
    for arrived, heard in zip(streams, receive_all(models, streams, config), strict=True):
        alone = Receiver(models, config)
        pcm, sources = [], []
        for packet in arrived:
            pcm.append(alone.push(packet))
            sources += alone.last_sources
        while alone.waiting:
            pcm.append(alone.drain())
            sources += alone.last_sources
        assert heard.sources == sources
        np.testing.assert_allclose(heard.pcm, np.concatenate(pcm), atol=2e-4)
        assert heard.pcm.shape == (len(arrived) * PACKET_SAMPLES,)


def test_every_source_is_met(models, streams):
    first, second, third = receive_all(models, streams)
    assert set(first.sources) == {Source.GOOD, Source.LBRR, Source.DRED}
    assert Source.PLC in second.sources
    assert set(third.sources) == {Source.GOOD}


def test_no_streams_are_refused(models):
    with pytest.raises(ValueError, match="found none"):
        receive_all(models, [])
