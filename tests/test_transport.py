"""RTP headers, the bad network, and calls over UDP on this machine."""

import contextlib
import json
import socket
import threading
import time
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

import jdred.models
from jdred.assets import demo_clip_path
from jdred.cli import main
from jdred.config import PACKET_SAMPLES, NetworkConfig, ReceiverConfig, SenderConfig
from jdred.link import transport
from jdred.link.call import packetize, warm_up
from jdred.link.channel import burst_lengths
from jdred.link.network import Network, losses
from jdred.link.receiver import Receiver, Source
from jdred.link.rtp import Numbering, RtpError, RtpPacket, pack, unpack
from jdred.link.sender import Sender

PACKETS = 60
FAST_S = 0.005
"""A slot of the tests: four times as fast as life."""


@given(st.binary(max_size=50), st.integers(0, 65535), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1),
       st.booleans(), st.integers(0, 127))  # fmt: skip
def test_headers_there_and_back(payload, sequence, timestamp, source, marker, kind):
    packet = RtpPacket(payload, sequence, timestamp, source, marker, kind)
    assert unpack(pack(packet)) == packet
    datagram = bytearray(pack(packet))
    # Two contributing sources, a header extension of one word, three bytes of padding (RFC 3550, 5.1 and 5.3.1).
    datagram[0] |= 0x32
    extended = bytes(datagram[:12]) + bytes(8) + b"\xbe\xde\x00\x01abcd" + payload + b"\x00\x00\x03"
    assert unpack(extended) == packet


def test_a_header_by_hand():
    """RFC 3550, section 5.1, field by field."""
    datagram = bytes.fromhex("80 ef 1234 00000bb8 deadbeef") + b"opus"
    assert unpack(datagram) == RtpPacket(b"opus", 0x1234, 3000, 0xDEADBEEF, True, 111)
    assert pack(unpack(datagram)) == datagram


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_read(datagram):
    with contextlib.suppress(RtpError):
        assert len(unpack(datagram).payload) <= len(datagram) - 12


def test_numbers_count_packets_and_samples():
    numbering = Numbering(65535, 2**32 - 960, 5)
    packets = [numbering.next(packet) for packet in (b"\x48a", b"\x40a", b"\x58a", b"\x48a")]
    assert [p.sequence for p in packets] == [65535, 0, 1, 2]
    assert [p.timestamp for p in packets] == [2**32 - 960, 0, 480, 480 + 2880]
    assert {p.source for p in packets} == {5}


def test_network_does_as_it_is_told():
    config = NetworkConfig(loss=0.2, burst_ms=100, delay_ms=30, jitter_ms=10, reorder=0.1, duplicate=0.3, seed=3)
    network = Network(config)
    out = [network.carry(0.02 * n, bytes([n % 256])) for n in range(5000)]
    lost = np.array([not copies for copies in out])
    assert lost.mean() == pytest.approx(0.2, abs=0.03)
    assert burst_lengths(lost).mean() == pytest.approx(5, rel=0.2)
    np.testing.assert_array_equal(lost, list(islice(losses(config), 5000)))
    assert np.mean([len(copies) == 2 for copies in out if copies]) == pytest.approx(0.3, abs=0.03)
    delays = np.array([at - 0.02 * n for n, copies in enumerate(out) for at, _ in copies])
    assert delays.min() >= 0.03
    assert np.mean(delays > 0.0401) == pytest.approx(0.1, abs=0.02)
    assert delays.max() <= 0.0901
    assert network.carried + network.lost == 5000
    still = Network(NetworkConfig())
    assert still.carry(1.5, b"a") == [(1.5, b"a")]


def test_no_packet_waits_for_losses_to_be_drawn(monkeypatch):
    network, drawn = Network(NetworkConfig(loss=0.5)), []
    monkeypatch.setattr("jdred.link.network.draw_trace", lambda *args, **kwargs: drawn.append(args))
    for number in range(4000):
        network.carry(0.02 * number, b"a")
    assert not drawn


def test_clock_does_not_drift_and_forgets_a_sleep():
    now = 0.0
    clock = transport.Clock(0.02, lambda: now)
    late = []
    for slot in range(100):
        now = 0.02 * slot + (0.004 if slot == 50 else 0.0)
        late.append(clock.tick())
    assert max(late[:50] + late[51:]) < 1e-9
    assert late[50] == pytest.approx(0.004)
    now += 60.0
    clock.tick()
    assert clock.left_s == pytest.approx(0.02)


@pytest.fixture(scope="module")
def speech():
    pcm, _ = soundfile.read(demo_clip_path(), dtype="float32")
    return pcm[8000 : 8000 + PACKETS * PACKET_SAMPLES]


@pytest.fixture(scope="module")
def packets(models, speech):
    sender = Sender(models, SenderConfig(dred_duration_ms=400))
    return [sender.send(block) for block in packetize(speech)]


class Call:
    """A receiver on a port of this machine, in a thread."""

    def __init__(self, models, idle_s=0.3, work_s=lambda slot: 0.0):
        self.listening = transport.listen_on(0, "127.0.0.1")
        self.address = self.listening.getsockname()
        self.receiver = Receiver(models, ReceiverConfig(playout_delay_ms=300))
        self.heard = []
        self.got = None
        self._thread = threading.Thread(target=self._run, args=(idle_s, work_s), daemon=True)
        self._thread.start()

    def _run(self, idle_s, work_s):
        def play(pcm):
            time.sleep(work_s(len(self.heard)))
            self.heard.append(pcm)

        self.got = transport.receive(self.listening, self.receiver, play, FAST_S, idle_s)

    def result(self):
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.listening.close()
        return np.concatenate(self.heard)


def test_a_call_over_udp_is_the_call(models, packets):
    warm_up(models, sender=None)
    call = Call(models)
    sent = transport.send(packets, call.address, Numbering(65_520, 2**32 - 9600, 77), FAST_S)
    heard = call.result()
    assert sent.packets == PACKETS
    direct = Receiver(models, ReceiverConfig(playout_delay_ms=0))
    plain = np.concatenate([direct.push(packet) for packet in packets])
    if call.receiver.timeline.counts.late == 0:  # a busy machine may lose the race now and then
        np.testing.assert_allclose(heard[: len(plain)], plain, atol=1e-6)
    assert call.got.datagrams == PACKETS
    assert call.got.malformed == 0
    assert call.receiver.counts[Source.GOOD] >= PACKETS - 5
    figures = call.got.timing.figures()
    assert 0 < figures["work_p50_ms"] <= figures["work_p99_ms"] <= figures["work_worst_ms"]


@pytest.mark.parametrize("work_s", [lambda slot: 2 * FAST_S, lambda slot: 0.5 * (slot == 0)], ids=["slow", "stalls"])
def test_who_plays_too_slowly_plays_all_the_same(models, packets, work_s):
    warm_up(models, sender=None)
    call = Call(models, idle_s=0.3, work_s=work_s)
    transport.send(packets, call.address, Numbering(0, 0, 1), FAST_S)
    heard = call.result()
    assert call.got.datagrams == PACKETS
    assert len(heard) >= PACKETS * PACKET_SAMPLES


def test_a_flood_does_not_keep_from_playing():
    late, got, taken = SimpleNamespace(left_s=-1.0), transport.Received(), []
    receiver = SimpleNamespace(put=lambda packet, *numbers: taken.append(packet))
    with transport.listen_on(0, "127.0.0.1") as listening, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for number in range(100):
            out.sendto(pack(RtpPacket(bytes([number]), number, 0, 1)), listening.getsockname())
        took = [transport._take_until_tick(listening, receiver, got, late) for _ in range(2)]
        assert took == [True, True]
        assert [len(taken), got.datagrams] == [100, 100]
        assert not transport._take_until_tick(listening, receiver, got, late)
    assert transport._BACKLOG < 100


def test_loss_garbage_and_a_new_sender_on_the_way(models, packets):
    call = Call(models, idle_s=0.5)
    network = Network(NetworkConfig(loss=0.2, burst_ms=60, jitter_ms=8, duplicate=0.2, seed=5))
    with transport.listen_on(0, "127.0.0.1") as between:
        proxy = threading.Thread(target=transport.relay, args=(between, call.address, network, 0.4), daemon=True)
        proxy.start()
        address = between.getsockname()
        transport.send(packets[:40], address, Numbering(5, 5, 1), FAST_S)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for garbage in (b"", b"garbage", b"\x80" + bytes(11), b"\x80\x6f" + bytes(200)):
                stranger.sendto(garbage, address)
        transport.send(packets, address, Numbering(40_000, 123_456, 2), FAST_S)
        proxy.join(30)
    heard = call.result()
    counts = call.receiver.timeline.counts
    assert np.all(np.isfinite(heard))
    assert network.lost > 5
    assert counts.restarts == 1
    assert counts.duplicate > 3
    assert call.receiver.counts[Source.DRED] > 3
    assert call.got.slots * PACKET_SAMPLES == len(heard)


def wait_until_taken(port):
    """Until somebody listens there for good: a command looks at its port once before it warms up."""
    taken = 0
    while taken < 5:
        try:
            transport.listen_on(port).close()
            taken = 0
        except OSError:
            taken += 1
        time.sleep(0.02)


def test_commands(monkeypatch, models, speech, tmp_path, capsys):
    monkeypatch.setattr(jdred.models, "load", lambda name: models)
    for function in (transport.send, transport.receive):
        defaults = tuple(FAST_S if value == 0.02 else value for value in function.__defaults__)
        monkeypatch.setattr(function, "__defaults__", defaults)
    soundfile.write(tmp_path / "in.wav", speech, 16_000)
    ports = []
    for _ in range(2):
        with transport.listen_on(0, "127.0.0.1") as free:
            ports.append(free.getsockname()[1])
    out, stats = tmp_path / "out.wav", tmp_path / "stats.json"
    receiving = ["receive", str(ports[1]), "--out", str(out), "--stats", str(stats), "--idle-s", "2"]
    proxying = ["proxy", str(ports[0]), f"127.0.0.1:{ports[1]}", "--loss", "0.1", "--burst-ms", "40", "--idle-s", "2"]
    codes = []
    threads = [
        threading.Thread(target=lambda line=line: codes.append(main(line)), daemon=True)
        for line in ([*receiving, "--playout-delay-ms", "200"], proxying)
    ]
    for thread in threads:
        thread.start()
    for port in ports:
        wait_until_taken(port)
    assert main(["send", str(tmp_path / "in.wav"), f"127.0.0.1:{ports[0]}", "--minutes", "0.06"]) == 0
    for thread in threads:
        thread.join(60)
    assert codes == [0, 0]
    told = json.loads(stats.read_text())
    # What came while the receiver still compiled is skipped: how much depends on the machine.
    assert sum(told["sources"].values()) == told["slots"] - told["idle_slots"] > 20
    assert told["idle_slots"] > 2 / FAST_S / 2  # two seconds of nothing at the end
    assert soundfile.info(out).frames == told["slots"] * PACKET_SAMPLES
    said = capsys.readouterr().out
    assert "sent packets 180" in said
    assert "received seconds" in said
    assert "network carried" in said


@pytest.mark.parametrize("to", ["localhost", "a:b", "host:0", "host:70000", ""])
def test_bad_addresses_are_refused(tmp_path, capsys, to):
    assert main(["proxy", "4000", to]) == 1
    assert "expected HOST:PORT" in capsys.readouterr().err


def test_a_port_in_use_is_named(tmp_path, capsys):
    with transport.listen_on(0) as taken:
        port = taken.getsockname()[1]
        assert main(["receive", str(port), "--out", str(tmp_path / "a.wav")]) == 1
    assert f"cannot listen on UDP port {port}" in capsys.readouterr().err
