"""The Opus room: libopus itself, and what we do to the padding of its packets."""

import ctypes
import functools
import gc
import os
import re
from ctypes import c_char_p, c_int32, c_void_p

import numpy as np
import pytest
from conftest import golden_clips, load_golden
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jdred.opus import (
    Decoder,
    Encoder,
    OpusError,
    PacketError,
    attach_redundancy,
    describe,
    duration_ms,
    extension,
    find_redundancy,
    has_lbrr,
    library,
    packet,
)
from jdred.opus.library import _candidates, _load

DRED = 126
CODECS = {
    "silk": {},
    "silk_lbrr": {"lbrr": True, "loss_percent": 20},
    "silk_dtx": {"dtx": True},
    "hybrid": {"sample_rate_hz": 48_000, "bitrate_bps": 32_000, "bandwidth": "fullband"},
    "celt": {"application": "restricted_lowdelay", "bitrate_bps": 48_000},
    "cbr": {"vbr": False},
}
FIRST_CONFIG = {"silk": 0, "hybrid": 12, "celt": 16}
"""Opus configuration numbers from which on a mode begins."""


def voice(seconds: float = 1.0, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """A gliding hum with some noise, and silence in its last quarter."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 2 * time)) / rate
    pcm = sum(0.3 / k * np.sin(k * phase + k * k) for k in range(1, 25))
    pcm += 0.01 * np.random.default_rng(seed).standard_normal(len(time))
    return (0.5 * pcm * (time < 0.75 * seconds)).astype(np.float32)


def encode(milliseconds: int = 20, seconds: float = 1.0, **settings) -> list[bytes]:
    rate = settings.get("sample_rate_hz", 16_000)
    with Encoder(**settings) as encoder:
        size = rate * milliseconds // 1000
        pcm = voice(seconds, rate)
        return [encoder.encode(row) for row in pcm[: len(pcm) // size * size].reshape(-1, size)]


def decode(packets: list[bytes], rate: int = 16_000) -> np.ndarray:
    with Decoder(rate) as decoder:
        return np.concatenate([decoder.decode(each) for each in packets])


# --- libopus's own padding tools, as judges


def installed() -> dict[str, str]:
    """Path by source of every libopus on this machine that loads."""
    found = {}
    for source, path in _candidates(os.environ.get("JDRED_LIBOPUS")):
        try:
            found.setdefault(source, ctypes.CDLL(path)._name)
        except OSError:
            continue
    return found


@functools.cache
def judge() -> ctypes.CDLL:
    """A libopus that knows padding extensions and their repeats (1.6 and later)."""
    for path in installed().values():
        version = re.search(r"(\d+)\.(\d+)", _load(path).version)
        if version and tuple(map(int, version.groups())) >= (1, 6):
            return ctypes.CDLL(path)
    pytest.skip("no libopus of 1.6 or later, which alone reads and writes all extensions")


@pytest.fixture(params=sorted(installed()))
def any_library(request, monkeypatch):
    """Each libopus of this machine in turn."""
    monkeypatch.setenv("JDRED_LIBOPUS", installed()[request.param])


def _packet_function(name: str, *arguments):
    function = getattr(judge(), name)
    function.argtypes, function.restype = list(arguments), c_void_p if name.endswith("create") else ctypes.c_int
    return function


def libopus_pad(data: bytes, length: int) -> bytes | None:
    """The packet padded to ``length`` by libopus, which parses and rewrites its extensions; None if it refuses."""
    buffer = ctypes.create_string_buffer(data, length)
    pad = _packet_function("opus_packet_pad", c_char_p, c_int32, c_int32)
    return buffer.raw if pad(ctypes.cast(buffer, c_char_p), len(data), length) == 0 else None


def libopus_unpad(data: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(data, len(data))
    length = _packet_function("opus_packet_unpad", c_char_p, c_int32)(ctypes.cast(buffer, c_char_p), len(data))
    return buffer.raw[:length]


def libopus_merge(packets: list[bytes]) -> bytes:
    """One packet of many frames; libopus renumbers their extensions and writes repeats where they pay."""
    handle = _packet_function("opus_repacketizer_create")()
    buffers = [ctypes.create_string_buffer(each, len(each)) for each in packets]
    add = _packet_function("opus_repacketizer_cat", c_void_p, c_char_p, c_int32)
    for buffer in buffers:
        assert add(handle, ctypes.cast(buffer, c_char_p), len(buffer)) == 0
    out = ctypes.create_string_buffer(20_000)
    length = _packet_function("opus_repacketizer_out", c_void_p, c_char_p, c_int32)(handle, out, len(out))
    _packet_function("opus_repacketizer_destroy", c_void_p)(handle)
    assert length > 0
    return out.raw[:length]


def contents(data: bytes) -> list[tuple[int, int, bytes]]:
    return sorted(each[:3] for each in extension.extensions(data))


# --- strategies

frame_bytes = st.one_of(st.binary(max_size=60), st.integers(250, packet.MAX_FRAME_BYTES).map(bytes))
toc_and_frames = st.one_of(
    st.lists(frame_bytes, min_size=1, max_size=6).map(lambda frames: (frames, True)),
    st.tuples(frame_bytes, st.integers(1, 6)).map(lambda pair: ([pair[0]] * pair[1], False)),
)
"""Frames and whether their lengths are written down; up to six, so that 20 ms frames stay within 120 ms."""
plain_extension = st.one_of(
    st.tuples(st.integers(3, 31), st.binary(max_size=1)),
    st.tuples(st.integers(32, 127), st.one_of(st.binary(max_size=40), st.integers(250, 600).map(bytes))),
)
TOC = 9 << 3
"""SILK, wideband, 20 ms, mono."""


def build(frames: list[bytes], vbr: bool, padding: bytes = b"") -> bytes:
    return packet.build(packet.Packet(TOC, tuple(frames), vbr and len(frames) > 1, padding))


# --- packets


@settings(deadline=None)
@given(toc_and_frames, st.binary(max_size=600))
def test_build_then_parse_gives_the_packet_back(layout, padding):
    frames, vbr = layout
    expected = packet.Packet(TOC, tuple(frames), vbr and len(frames) > 1, padding)
    assert packet.parse(build(frames, vbr, padding)) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "at least one byte"),
        (b"\x49abc", "equal frames"),
        (b"\x4a", "frame lengths"),
        (b"\x4a\x0aabc", "longer than the packet"),
        (b"\x4b", "count"),
        (b"\x4b\x00abc", "count"),
        (b"\x4b\x07" + bytes(7), "120 ms"),
        (b"\x4b\x41", "padding length"),
        (b"\x4b\x41\xff", "padding length"),
        (b"\x4b\x41\x05ab", "do not fit"),
        (b"\x48" + bytes(1276), "1275"),
    ],
)
def test_broken_packets_are_named(data, reason):
    with pytest.raises(PacketError, match=reason):
        packet.parse(data)
    assert extension.extensions(data) == []
    assert not has_lbrr(data)
    with pytest.raises(PacketError, match=reason), Decoder() as decoder:
        decoder.decode(data)


def test_durations_agree_with_libopus_for_every_toc():
    count = _packet_function("opus_packet_get_nb_samples", c_char_p, c_int32, c_int32)
    for toc in range(0, 256, 4):
        for data in (bytes([toc, 1]), bytes([toc | 1, 1, 1]), bytes([toc | 3, 2, 1, 1])):
            assert round(duration_ms(data) * 48) == count(data, len(data), 48_000)


def test_lbrr_flag_agrees_with_libopus(rng):
    flag = _packet_function("opus_packet_has_lbrr", c_char_p, c_int32)
    for _ in range(2000):
        data = bytes([rng.integers(256) & 0xFC]) + rng.bytes(rng.integers(1, 4))
        assert has_lbrr(data) == bool(flag(data, len(data)))


# --- extensions


@settings(deadline=None)
@given(toc_and_frames, st.lists(plain_extension, max_size=3), plain_extension)
def test_attach_keeps_everything_and_strip_takes_it_back(layout, others, added):
    original = build(*layout)
    for each in others:
        original = extension.attach(original, *each)
    attached = extension.attach(original, *added)
    assert packet.parse(attached).frames == packet.parse(original).frames
    assert contents(attached) == sorted([*contents(original), (0, *added)])
    assert libopus_unpad(attached) == libopus_unpad(original)
    if added[0] not in [number for number, _ in others]:
        assert extension.strip(attached, added[0]) == original


@settings(deadline=None)
@given(toc_and_frames, st.integers(1, 700), st.binary(max_size=300))
def test_existing_padding_is_kept(layout, fill, payload):
    frames, vbr = layout
    original = build(frames, vbr, bytes(fill))
    attached = extension.attach(original, DRED, payload)
    assert extension.find(attached, DRED) == [(0, payload)]
    assert packet.parse(attached).padding.endswith(bytes(fill))
    assert extension.strip(attached, DRED) == original


@settings(deadline=None)
@given(st.lists(st.lists(plain_extension, max_size=3), min_size=2, max_size=6), st.booleans(), plain_extension)
def test_many_frames_and_repeats_as_libopus_writes_them(per_frame, alike, added):
    if alike:  # The same ids in every frame: libopus then uses repeats.
        per_frame = [per_frame[0]] * len(per_frame)
    parts = []
    for number, each in enumerate(per_frame):
        single = bytes([TOC]) + bytes([number] * (10 + number))
        for one in each:
            single = extension.attach(single, *one)
        parts.append(single)
    expected = sorted((frame, *one) for frame, each in enumerate(per_frame) for one in each)
    merged = libopus_merge(parts)
    assert contents(merged) == expected
    attached = extension.attach(merged, *added)
    assert contents(attached) == sorted([*expected, (0, *added)])
    stripped = extension.strip(attached, added[0])
    assert contents(stripped) == [each for each in expected if each[1] != added[0]]
    assert packet.parse(stripped).frames == packet.parse(merged).frames


interesting = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 62, 63, 64, 65, 66, 67, 252, 253, 255])


# A separator by nothing (3, 0) does not end the list that a repeat (5) repeats: here short extension 3, empty.
@example(3, b"\x07a\x03\x00\x05bc")
@settings(deadline=None)
@given(st.integers(1, 5), st.lists(st.one_of(interesting, st.integers(0, 255)), min_size=1, max_size=24).map(bytes))
def test_any_padding_means_to_us_what_it_means_to_libopus(frames, padding):
    data = build([b"speech"] * frames, False, padding)
    padded = libopus_pad(data, len(data) + 300)
    if padded is None:
        with pytest.raises(PacketError):
            extension.attach(data, DRED, b"")
        extension.find(data, DRED)
    else:
        assert contents(padded) == contents(data)
        attached = extension.attach(data, 40, b"xyz")
        assert contents(attached) == sorted([*contents(data), (0, 40, b"xyz")])
        assert contents(libopus_pad(attached, len(attached) + 300)) == contents(attached)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_garbage_never_raises_in_the_receiver(data):
    for each in extension.extensions(data):
        assert data[each.offset : each.offset + len(each.payload)] == each.payload
    assert find_redundancy(data) is None or b"J" in data


def test_attach_refuses_what_the_format_lacks():
    plain = b"\x48speech"
    for number in (-1, 0, 2, 128):
        with pytest.raises(ValueError, match="outside"):
            extension.attach(plain, number, b"")
    with pytest.raises(ValueError, match="at most 1 byte"):
        extension.attach(plain, 31, b"ab")


def test_overhead_is_three_bytes():
    assert len(extension.attach(b"\x48speech", DRED, bytes(100))) == len(b"\x48speech") + 100 + 3
    assert len(extension.attach(b"\x48speech", DRED, bytes(253))) == len(b"\x48speech") + 253 + 3
    assert len(extension.attach(b"\x48speech", DRED, bytes(254))) == len(b"\x48speech") + 254 + 4


# --- our marker


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_redundancy_goes_there_and_back(payload):
    assert find_redundancy(attach_redundancy(b"\x48speech", payload)) == payload


def test_other_markers_are_no_redundancy():
    plain = b"\x48speech"
    assert find_redundancy(plain) is None
    for payload in (b"", b"j\x01abc", b"D\x0cabc"):
        assert find_redundancy(extension.attach(plain, DRED, payload)) is None
    assert find_redundancy(extension.attach(plain, 100, b"J\x01abc")) is None
    # Ours is found behind libopus's, and the first of two of ours counts.
    both = extension.attach(attach_redundancy(plain, b"ours"), DRED, b"D\x0ctheirs")
    assert find_redundancy(both) == b"ours"
    assert find_redundancy(attach_redundancy(both, b"newer")) == b"newer"


# --- golden packets


def golden_streams(data) -> list[str]:
    return sorted(key[: -len("/info")] for key in data.files if key.endswith("/info") and f"{key[:-4]}offsets" in data)


def golden_packets(data, stream: str) -> list[bytes]:
    offsets, raw = data[f"{stream}/offsets"], data[f"{stream}/bytes"].tobytes()
    return [raw[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def test_golden_packets_are_read_as_libopus_reads_them():
    data = load_golden("packets")
    columns = list(data["info_columns"])
    streams = golden_streams(data)
    assert streams
    for stream in streams:
        for sent, row in zip(golden_packets(data, stream), data[f"{stream}/info"], strict=True):
            info = dict(zip(columns, row.tolist(), strict=True))
            parts = packet.parse(sent)
            assert (parts.toc, len(parts.frames)) == (info["toc"] & 0xFC, info["nb_frames"])
            assert len(parts.frames[0]) == info["first_frame_bytes"]
            assert len(parts.padding) == info["padding_bytes"]
            assert has_lbrr(sent) == bool(info["has_lbrr"])
            found = [each for each in extension.extensions(sent) if each.id == DRED]
            if info["dred_ext_offset"] < 0:
                assert found == []
            else:
                expected = (info["dred_ext_frame"], info["dred_ext_offset"], info["dred_ext_bytes"])
                assert [(each.frame, each.offset, len(each.payload)) for each in found] == [expected]
                assert found[0].payload[:2] == b"\x44\x0c"
            assert find_redundancy(sent) is None
            # What libopus attached can be taken off, and put back byte for byte where it stood alone.
            bare = extension.strip(sent, DRED)
            assert extension.find(bare, DRED) == []
            if len(found) == 1 and len(parts.padding) == 1 + len(found[0].payload):
                assert extension.attach(bare, DRED, found[0].payload) == sent


def test_golden_packets_with_dred_also_carry_ours():
    data = load_golden("packets")
    for clip in golden_clips(data)[:1]:
        for stream in [each for each in golden_streams(data) if each.startswith(f"{clip}/")]:
            sent = golden_packets(data, stream)[:40]
            both = [attach_redundancy(each, b"jdred" * 20) for each in sent]
            assert [extension.strip(each, 127) for each in both] == both
            for before, after in zip(sent, both, strict=True):
                theirs = [payload for _, payload in extension.find(after, DRED) if payload[:1] == b"D"]
                assert theirs == [payload for _, payload in extension.find(before, DRED)]
                assert find_redundancy(after) == b"jdred" * 20
            np.testing.assert_array_equal(decode(both), decode(sent))


def test_golden_odd_packets():
    data = load_golden("packets")
    sizes = data["odd/values"][:, list(data["odd/columns"]).index("bytes")]
    ends = np.cumsum(sizes)
    raw = data["odd/bytes"].tobytes()
    odd = {name: raw[end - size : end] for name, size, end in zip(data["odd/names"], sizes, ends, strict=True)}
    values = dict(zip(data["odd/names"], data["odd/values"][:, 1], strict=True))
    payload = extension.find(odd["good"], DRED)[0][1]
    expected = {
        "good": [payload],
        "version 11": [b"\x44\x0b" + payload[2:]],
        "version 13": [b"\x44\x0d" + payload[2:]],
        "first letter E": [b"\x45\x0c" + payload[2:]],
    }
    for name, sent in odd.items():
        assert [each for _, each in extension.find(sent, DRED)] == expected.get(str(name), [])
        if values[name] < 0:
            with pytest.raises(PacketError):
                extension.attach(sent, DRED, b"")


# --- golden decoder output

INT16_STEPS = 2 / 32768


def golden_output(data, key: str) -> np.ndarray:
    return data[key].reshape(-1, 320).astype(np.float32) / 32768


def test_decoder_gives_the_golden_output(any_library):
    sent, received = load_golden("packets"), load_golden("receive")
    keys = [key for key in received.files if "/none/" in key and key.endswith("/pcm_out")]
    assert keys
    for key in keys:
        clip, _, config, _ = key.split("/")
        played = decode(golden_packets(sent, f"{clip}/{config.rsplit('_cx')[0]}")).reshape(-1, 320)
        np.testing.assert_allclose(played, golden_output(received, key), atol=INT16_STEPS)


def test_concealment_gives_the_golden_output(any_library):
    if "1.6.1" not in library().version:
        pytest.skip(f"concealment differs between versions: golden is of libopus 1.6.1, here is {library().version}")
    sent, received = load_golden("packets"), load_golden("receive")
    for key in [key for key in received.files if key.endswith("dred0_cx0/pcm_out")]:
        clip, trace, config, _ = key.split("/")
        packets = golden_packets(sent, f"{clip}/{config.rsplit('_cx')[0]}")
        lost = received[f"{clip}/{trace}/lost"].astype(bool)
        with Decoder() as decoder:
            played = [
                decoder.conceal(320) if gone else decoder.decode(each) for each, gone in zip(packets, lost, strict=True)
            ]
        # Builds with deep PLC do not fade in the first packet after a loss as others do.
        same = ~(np.roll(lost, 1) & ~lost)
        expected = golden_output(received, key)
        np.testing.assert_allclose(np.stack(played)[same], expected[same], atol=INT16_STEPS)


# --- what a stock decoder makes of our packets


@pytest.mark.parametrize("name", CODECS)
def test_stock_libopus_plays_our_packets_bit_for_bit(name, rng, any_library):
    settings = CODECS[name]
    rate = settings.get("sample_rate_hz", 16_000)
    packets = encode(**settings)
    mode = max((first, mode) for mode, first in FIRST_CONFIG.items() if first <= packets[10][0] >> 3)[1]
    assert mode == {"hybrid": "hybrid", "celt": "celt"}.get(name, "silk")
    plain = decode(packets, rate)
    assert np.abs(plain).max() > 0.1
    for size in (0, 1, 40, 251, 252, 253, 254, 506, 507, 700):
        ours = [attach_redundancy(each, rng.bytes(size)) for each in packets]
        np.testing.assert_array_equal(decode(ours, rate), plain)
        bare = packets if name != "cbr" else [libopus_unpad(each) for each in packets]
        assert [libopus_unpad(each) for each in ours] == bare
        stripped = [extension.strip(each, DRED) for each in ours]
        assert [packet.parse(each) for each in stripped] == [packet.parse(each) for each in packets]
        assert name == "cbr" or stripped == packets


@pytest.mark.parametrize("milliseconds", [10, 20, 40, 60])
@pytest.mark.parametrize("application", ["voip", "restricted_lowdelay"])
def test_every_duration_plays_the_same(milliseconds, application, any_library):
    packets = encode(milliseconds, application=application)
    assert {duration_ms(each) for each in packets} == {milliseconds}
    ours = [attach_redundancy(each, bytes(99)) for each in packets]
    np.testing.assert_array_equal(decode(ours), decode(packets))
    assert [extension.strip(each, DRED) for each in ours] == packets


def test_merged_packets_play_the_same(any_library):
    packets = encode()
    merged = [libopus_merge([attach_redundancy(one, bytes(30)) for one in packets[k : k + 3]]) for k in range(0, 48, 3)]
    ours = [attach_redundancy(each, b"more") for each in merged]
    assert [frame for frame, _ in extension.find(merged[0], DRED)] == [0, 1, 2]
    np.testing.assert_array_equal(decode(ours), decode(packets[:48]))


def test_lbrr_of_our_packets_is_unchanged(any_library):
    packets = encode(lbrr=True, loss_percent=20)
    ours = [attach_redundancy(each, bytes(range(200))) for each in packets]
    assert sum(map(has_lbrr, packets)) > 20
    assert list(map(has_lbrr, ours)) == list(map(has_lbrr, packets))
    assert list(map(has_lbrr, encode())) == [False] * 50

    def with_losses(stream):
        with Decoder() as decoder:
            return np.concatenate(
                [decoder.decode_lbrr(stream[k + 1]) if k % 7 == 3 else decoder.decode(stream[k]) for k in range(49)]
            )

    np.testing.assert_array_equal(with_losses(ours), with_losses(packets))


# --- encoder and decoder


def signal_to_noise(reference: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(np.sum(reference**2) / np.sum((reference - other) ** 2))


def test_audio_survives_and_lbrr_beats_concealment(any_library):
    packets = encode(lbrr=True, loss_percent=20)
    clean = decode(packets).reshape(-1, 320)
    lost = [k for k in range(8, 36) if k % 7 == 1 and has_lbrr(packets[k + 1])]
    repaired = {}
    for way in ("lbrr", "conceal"):
        with Decoder() as decoder:
            rows = []
            for k in range(37):
                if k in lost:
                    rows.append(decoder.decode_lbrr(packets[k + 1]) if way == "lbrr" else decoder.conceal(320))
                else:
                    rows.append(decoder.decode(packets[k]))
            repaired[way] = np.stack(rows)[lost]
    assert len(lost) >= 3
    snr = {way: signal_to_noise(clean[lost], rows) for way, rows in repaired.items()}
    assert snr["lbrr"] > snr["conceal"] + 1


def test_lookahead_aligns_output_with_input():
    pcm = voice()
    with Encoder(bitrate_bps=64_000) as encoder:
        delay = encoder.lookahead
        played = decode([encoder.encode(row) for row in pcm.reshape(-1, 320)])
    shifts = range(delay - 20, delay + 21)
    scores = {shift: signal_to_noise(pcm[:11_000], played[shift : shift + 11_000]) for shift in shifts}
    assert abs(max(scores, key=scores.get) - delay) <= 1
    assert scores[delay] > 3


def test_same_packets_from_floats_and_integers():
    integers = np.round(voice() * 32767).astype(np.int16)
    with Encoder() as first, Encoder() as second:
        for row in integers.reshape(-1, 320):
            assert first.encode(row) == second.encode(row.astype(np.float32) / 32768)


def test_bitrate_and_cbr():
    rates = [sum(map(len, encode(bitrate_bps=rate, vbr=False))) * 8 for rate in (16_000, 24_000, 40_000)]
    assert rates == [16_000, 24_000, 40_000]
    assert len({len(each) for each in encode(vbr=False)}) == 1


def test_dtx_sends_almost_nothing_in_silence():
    with Encoder(dtx=True) as encoder:
        sizes = [len(encoder.encode(np.zeros(320, np.float32))) for _ in range(40)]
    assert sizes.count(1) > 20


def test_output_stays_within_full_scale():
    with Encoder() as encoder:
        loud = np.sign(voice() + 1e-9).astype(np.float32)
        played = decode([encoder.encode(row) for row in loud.reshape(-1, 320)])
    assert np.abs(played).max() == 1


def test_reset_begins_anew():
    packets = encode()
    with Decoder() as decoder:
        first = [decoder.decode(each) for each in packets[:5]]
        decoder.reset()
        np.testing.assert_array_equal(first, [decoder.decode(each) for each in packets[:5]])


def test_concealment_lengths():
    with Decoder() as decoder:
        decoder.decode(encode()[10])
        for samples in (40, 160, 320, 1920):
            assert decoder.conceal(samples).shape == (samples,)
        for samples in (0, -320, 41, 1960):
            with pytest.raises(ValueError, match="2.5 ms"):
                decoder.conceal(samples)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"sample_rate_hz": 44_100}, "44100"),
        ({"bitrate_bps": 10}, "bitrate_bps"),
        ({"loss_percent": 101}, "loss_percent"),
        ({"complexity": 11}, "complexity"),
        ({"bandwidth": "wide"}, "wideband"),
        ({"application": "phone"}, "voip"),
        ({"signal": "noise"}, "voice"),
    ],
)
def test_bad_settings_are_named(settings, reason):
    with pytest.raises(ValueError, match=reason):
        Encoder(**settings)


@pytest.mark.parametrize(
    ("pcm", "reason"),
    [
        (np.zeros(0, np.float32), "0 samples"),
        (np.zeros(1, np.float32), "1 samples"),
        (np.zeros(321, np.float32), "321 samples"),
        (np.zeros((1, 320), np.float32), "shape"),
        (np.full(320, np.nan, np.float32), "finite"),
        (np.full(320, np.inf), "finite"),
        (np.zeros(320, np.int32), "int32"),
        (np.zeros(320, complex), "complex"),
    ],
)
def test_bad_pcm_is_named(pcm, reason):
    with Encoder() as encoder, pytest.raises(ValueError, match=reason):
        encoder.encode(pcm)


def test_decoder_settings():
    with pytest.raises(ValueError, match="44100"):
        Decoder(44_100)
    with pytest.raises(ValueError, match="complexity"):
        Decoder(complexity=-1)
    assert decode(encode(), rate=48_000).shape == (48_000,)


def test_closed_objects_say_so_and_memory_is_freed_once():
    encoder, decoder = Encoder(), Decoder()
    for each in (encoder, decoder):
        each.close()
        each.close()
        with pytest.raises(OpusError, match="closed"):
            each.reset()
    with pytest.raises(OpusError, match="closed"):
        encoder.encode(np.zeros(320))
    with pytest.raises(OpusError, match="closed"):
        decoder.conceal(320)
    for _ in range(200):
        Decoder().conceal(320)
    gc.collect()


# --- the library


def test_description(any_library):
    described = describe()
    assert "opus" in described.version
    assert described.source in ("JDRED_LIBOPUS", "system", "av wheel")
    assert {type(each) for each in described[3:]} == {bool}


def test_the_environment_points_at_a_library(monkeypatch, tmp_path):
    path = library().path
    monkeypatch.setenv("JDRED_LIBOPUS", path)
    assert library()[:2] == (path, "JDRED_LIBOPUS")
    nonsense = tmp_path / "libopus.so"
    nonsense.write_text("no library")
    for wrong in (nonsense, tmp_path / "absent.so"):
        monkeypatch.setenv("JDRED_LIBOPUS", str(wrong))
        with pytest.raises(OpusError, match=wrong.name):
            library()


def test_no_library_at_all_is_one_clear_error(monkeypatch):
    monkeypatch.delenv("JDRED_LIBOPUS", raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    _load.cache_clear()
    with pytest.raises(OpusError, match="no system library, no av wheel"):
        library()
    monkeypatch.undo()
    assert library().version
