"""Files that carry redundancy: encode, decode, inspect."""

import json

import numpy as np
import pytest
import soundfile

import jdred.models
from jdred.assets import demo_clip_path
from jdred.bitstream.codec import PayloadCodec
from jdred.cli import main
from jdred.config import ReceiverConfig, SenderConfig
from jdred.link import files
from jdred.link.call import call
from jdred.link.inspect import PacketInfo, inspect, inspect_all, totals
from jdred.opus import codec, ogg
from jdred.opus.marker import attach_redundancy, find_redundancy
from jdred.opus.packet import mode_and_bandwidth

SAMPLES = 16_000


@pytest.fixture(scope="module")
def speech():
    pcm, _ = soundfile.read(demo_clip_path(), dtype="float32")
    return pcm[16_000 : 16_000 + SAMPLES]


@pytest.fixture(scope="module")
def opus(models, speech):
    return files.encode(speech, models, SenderConfig(lbrr_bps=16_000, dred_duration_ms=400, level=5, slope=3))


@pytest.fixture
def file(opus, tmp_path):
    path = tmp_path / "a.opus"
    path.write_bytes(opus)
    return path


def decoded(packets):
    decoder = codec.Decoder()
    return np.concatenate([decoder.decode(packet) for packet in packets])


def test_a_file_plays_as_stock_opus_and_says_its_length(opus, speech):
    head, packets, samples = ogg.read(opus)
    assert samples == 3 * len(speech)
    assert head.pre_skip == 3 * codec.Encoder().lookahead
    encoder = codec.Encoder(bitrate_bps=40_000, lbrr=True, loss_percent=20)
    plain = [encoder.encode(block) for block in np.pad(speech, (0, 320)).reshape(-1, 320)]
    np.testing.assert_array_equal(decoded(packets), decoded(plain))


def test_inspect_says_what_was_sent(opus, models):
    packets = ogg.read(opus).packets
    infos = list(inspect_all(packets, PayloadCodec(models.tables)))
    assert [info.number for info in infos] == list(range(len(packets)))
    assert [info.time_ms for info in infos] == [20.0 * n for n in range(len(packets))]
    assert {(info.mode, info.bandwidth, info.channels, info.duration_ms) for info in infos} == {
        ("SILK", "wideband", 1, 20.0)
    }
    assert [info.bytes for info in infos] == [len(packet) for packet in packets]
    assert any(info.lbrr for info in infos)
    full = infos[40].redundancy
    assert (full.chunks, full.q0, full.slope, full.qmax) == (10, 5, 3, 15)
    assert full.levels == tuple(min(15, 5 + (4 * k + 8) // 16) for k in range(10))
    assert (full.to_ms, full.from_ms) == (15.0, 15.0 - 400)
    assert full.bytes == len(find_redundancy(packets[40]))
    # Symbols fill the bytes behind the version byte.
    spent = full.header_bits + full.state_bits + sum(full.chunk_bits)
    assert 8 * (full.bytes - 2) < spent <= 8 * (full.bytes - 1)
    assert len(full.chunk_bits) == 10
    assert min(full.chunk_bits) > 0
    figures = totals(infos)
    assert figures["packets"] == len(packets)
    assert figures["total_kbps"] == pytest.approx(8 * sum(map(len, packets)) / len(packets) / 20)
    assert figures["dred_kbps"] < figures["padding_kbps"] < figures["total_kbps"]
    assert figures["unreadable"] == 0


def test_inspect_of_anything(models):
    payloads = PayloadCodec(models.tables)
    encoder = codec.Encoder(48_000, bandwidth="fullband", signal="music", application="audio", bitrate_bps=96_000)
    plain = inspect(encoder.encode(np.zeros(2880, np.float32)), payloads)
    assert (plain.valid, plain.duration_ms, plain.redundancy, plain.unreadable) == (True, 60.0, None, False)
    for wrong in (b"", b"\x03", b"\xff\xff"):
        assert inspect(wrong, payloads)[2:4] == (False, len(wrong))
    damaged = inspect(attach_redundancy(codec.Encoder().encode(np.zeros(320)), b"\xff"), payloads)
    assert damaged.unreadable
    assert damaged.extensions == (126,)
    json.dumps(damaged.as_dict(), allow_nan=False)


def test_every_configuration_has_a_name():
    names = [mode_and_bandwidth(config << 3) for config in range(32)]
    assert [names.count(("SILK", b)) for b in ("narrowband", "mediumband", "wideband")] == [4, 4, 4]
    assert names[12:16] == [("hybrid", "superwideband")] * 2 + [("hybrid", "fullband")] * 2
    assert names[16::4] == [("CELT", b) for b in ("narrowband", "wideband", "superwideband", "fullband")]


def test_decode_is_the_call_over_a_file(opus, models, speech):
    sender = SenderConfig(lbrr_bps=16_000, dred_duration_ms=400, level=5, slope=3)
    lost = np.zeros(51, np.uint8)
    lost[[20, 21, 22, 30]] = 1
    for receiver in (ReceiverConfig(), ReceiverConfig(offline=True), ReceiverConfig(playout_delay_ms=20)):
        heard = files.decode(ogg.read(opus), lost, models, receiver)
        called = call(speech, lost, models, sender, receiver)
        np.testing.assert_array_equal(heard.pcm, called.pcm)
        assert heard.sources == called.sources
        assert heard.unreadable == 0


@pytest.mark.parametrize("packet_ms", [10, 40, 60])
def test_files_of_other_encoders(models, speech, packet_ms):
    encoder = codec.Encoder(48_000, bitrate_bps=32_000)
    loud = np.repeat(speech, 3)
    blocks = loud[: len(loud) // (48 * packet_ms) * 48 * packet_ms].reshape(-1, 48 * packet_ms)
    packets = [encoder.encode(block) for block in blocks]
    opus = ogg.OpusFile(ogg.Head(pre_skip=encoder.lookahead), tuple(packets), blocks.size - encoder.lookahead)
    heard = files.decode(opus, np.zeros(1, np.uint8), models, ReceiverConfig())
    stock = decoded(packets)[encoder.lookahead // 3 :]
    assert set(heard.sources) == {"GOOD"}
    np.testing.assert_array_equal(heard.pcm, stock[: len(heard.pcm)])
    assert len(heard.pcm) == opus.samples // 3
    lost = np.zeros(len(packets), np.uint8)
    lost[5] = 1
    gap = files.decode(opus, lost, models, ReceiverConfig())
    assert [number for number, source in enumerate(gap.sources) if source != "GOOD"] == {
        10: [2], 40: [10, 11], 60: [15, 16, 17]
    }[packet_ms]  # fmt: skip
    assert len(gap.pcm) == len(heard.pcm)


def test_commands(monkeypatch, models, speech, tmp_path, capsys):
    monkeypatch.setattr(jdred.models, "load", lambda name: models)
    soundfile.write(tmp_path / "in.wav", speech, 16_000)
    out = tmp_path / "deep" / "out.opus"
    assert main(["encode", str(tmp_path / "in.wav"), str(out), "--dred-duration-ms", "200"]) == 0
    assert "kb/s" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["out.opus"]
    assert main(["inspect", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["totals"]["packets"] == len(told["packets"]) == 51
    assert told["packets"][30]["redundancy"]["chunks"] == 5
    assert set(told["packets"][0]) == set(PacketInfo._fields)
    assert main(["inspect", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 53
    assert "-185 .. 15" in lines[31]
    assert main(["decode", str(out), str(tmp_path / "out.wav"), "--loss", "0.2", "--burst-ms", "60"]) == 0
    assert "x 20 ms DRED" in capsys.readouterr().out
    assert soundfile.info(tmp_path / "out.wav").frames == SAMPLES
    (tmp_path / "trace").write_text("0001")
    trace = ["--trace", str(tmp_path / "trace"), "--offline"]
    assert main(["decode", str(out), str(tmp_path / "out.wav"), *trace]) == 0
    assert "39 x 20 ms GOOD" in capsys.readouterr().out


def test_encode_for_a_total_rate(monkeypatch, models, speech, tmp_path):
    """The command hands over what ``jdred.plan`` says of the network that is named."""
    monkeypatch.setattr(jdred.models, "load", lambda *a, **k: models)
    asked = []
    monkeypatch.setattr(files, "encode", lambda pcm, models, config, advance: asked.append(config) or b"x")
    soundfile.write(tmp_path / "in.wav", speech, 16_000)
    options = ["--total-kbps", "64", "--expected-loss", "0.1", "--expected-burst-ms", "60"]
    assert main(["encode", str(tmp_path / "in.wav"), str(tmp_path / "out.opus"), *options]) == 0
    assert asked == [jdred.plan(models, 64_000, 0.1, 60.0)]


def test_bad_files_are_refused(tmp_path, capsys):
    (tmp_path / "a.wav").write_text("this is no sound")
    assert main(["inspect", str(tmp_path / "a.wav")]) == 1
    assert "a.wav: expected an Ogg Opus file" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "absent.opus")]) == 1
    assert "absent.opus: No such file" in capsys.readouterr().err
