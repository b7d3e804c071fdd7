"""Ogg Opus files: what is written is what others read, and damage is survived."""

import contextlib
import io

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdred.opus import codec, extension, ogg
from jdred.opus.packet import PacketError

SECONDS = 2.5


@pytest.fixture(scope="module")
def stream():
    """``(packets, pre-skip, samples at 48 kHz)`` of a rising tone, every packet with something in its padding."""
    time = np.arange(int(16_000 * SECONDS)) / 16_000
    pcm = np.float32(0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time))
    encoder = codec.Encoder()
    blocks = np.pad(pcm, (0, encoder.lookahead + -(len(pcm) + encoder.lookahead) % 320)).reshape(-1, 320)
    packets = [
        extension.attach(encoder.encode(block), 126, bytes([number % 256]) * (3 * number % 700))
        for number, block in enumerate(blocks)
    ]
    return packets, 3 * encoder.lookahead, 3 * len(pcm)


@pytest.fixture(scope="module")
def file(stream):
    packets, pre_skip, samples = stream
    return ogg.write(packets, ogg.Head(pre_skip=pre_skip), samples)


def test_there_and_back(stream, file):
    packets, pre_skip, samples = stream
    head, back, length = ogg.read(file)
    assert back == tuple(packets)
    assert (head.channels, head.pre_skip, head.input_rate_hz, head.gain_q8) == (1, pre_skip, 16_000, 0)
    assert length == samples


def test_ffmpeg_reads_the_same_packets_and_plays_them(stream, file):
    packets, _, samples = stream
    with av.open(io.BytesIO(file)) as container:
        seen = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    assert seen == packets
    with av.open(io.BytesIO(file)) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    # Some versions of FFmpeg play the padding behind the end as well.
    assert samples <= len(heard) <= samples + 960
    decoder = codec.Decoder(48_000)
    ours = np.concatenate([decoder.decode(packet) for packet in packets])[312:][:samples]
    # FFmpeg's own decoder resamples differently, by a few samples of delay.
    assert np.corrcoef(heard[:samples], ours)[0, 1] > 0.95


def test_what_ffmpeg_writes_is_read():
    out = io.BytesIO()
    with av.open(out, "w", format="ogg") as container:
        track = container.add_stream("libopus", rate=48_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 48_000), np.int16), "s16", "stereo")
        frame.sample_rate = 48_000
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    head, packets, samples = ogg.read(out.getvalue())
    assert head.channels == 2
    assert samples == 48_000
    assert len(packets) in (50, 51)


def test_a_damaged_page_costs_its_packets_only(stream, file):
    packets, _, _ = stream
    second = [place for place in range(len(file)) if file[place : place + 4] == b"OggS"][3]
    damaged = bytearray(file)
    damaged[second + 100] ^= 1
    kept = ogg.read(bytes(damaged)).packets
    assert 0 < len(kept) < len(packets)
    assert set(kept) < set(packets)


def test_packets_across_pages_are_joined(stream):
    packets, _, _ = stream
    head = ogg._page([ogg._HEAD.pack(b"OpusHead", 1, 1, 0, 16_000, 0, 0)], 0, 1, 0, ogg._FIRST)
    tags = ogg._page([b"OpusTags" + bytes(8)], 0, 1, 1, 0)
    long = extension.attach(packets[0], 126, bytes(1000))
    lacing = bytes([255] * 3)

    def page(segments, body, number, flags):
        empty = ogg._HEADER.pack(b"OggS", 0, flags, 960, 1, number, 0, len(segments))
        crc = ogg._crc(empty + segments + body).to_bytes(4, "little")
        return empty[:22] + crc + empty[26:] + segments + body

    rest = long[765:]
    first = page(lacing, long[:765], 2, 0)
    second = page(bytes([255, len(rest) - 255]), rest, 3, ogg._CONTINUED | ogg._LAST)
    assert ogg.read(head + tags + first + second).packets == (long,)
    stray = page(bytes([255, len(rest) - 255]), rest, 4, ogg._CONTINUED)
    last = page(bytes([len(packets[0])]), packets[0], 5, ogg._LAST)
    assert ogg.read(head + tags + first + stray + last).packets == (packets[0],)


@given(st.binary(max_size=200), st.integers(0, 5000), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_garbage_is_refused_or_read(file, garbage, place, value):
    flipped = bytearray(file)
    flipped[place] = value
    for data in (garbage, b"OggS" + garbage, bytes(flipped), file[:place], file[:place] + garbage + file[place:]):
        with contextlib.suppress(ogg.OggError):
            assert ogg.read(data).packets


def test_what_cannot_be_written_is_refused(stream):
    packets, pre_skip, samples = stream
    head = ogg.Head(pre_skip=pre_skip)
    for wrong in ([], packets[:10]):
        with pytest.raises(ogg.OggError, match="expected"):
            ogg.write(wrong, head, samples)
    with pytest.raises(PacketError):
        ogg.write([b""], head, 0)
    with pytest.raises(ogg.OggError, match="channels"):
        ogg.read(ogg.write(packets, head._replace(channels=6), samples))
