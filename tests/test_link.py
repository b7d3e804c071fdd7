"""The link: geometry of the redundancy, choice of source, faults, and the simulation beside real packets."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from jdred.assets import demo_clip_path
from jdred.bitstream.codec import PayloadCodec
from jdred.config import PACKET_SAMPLES, ReceiverConfig, SenderConfig
from jdred.link import redundancy as redundant
from jdred.link import sender as sending
from jdred.link.call import call, packetize, redundancy_bytes
from jdred.link.receiver import Described, Receiver, Source
from jdred.link.sender import Sender
from jdred.link.simulate import carriers, redundancy, repairs, simulate, sources
from jdred.opus import codec, extension
from jdred.opus.marker import EXTENSION_ID, attach_redundancy, find_redundancy

PACKETS = 40
describe, gap_rows = jax.jit(redundant.describe), jax.jit(redundant.gap_rows, static_argnums=2)


@pytest.fixture(scope="module")
def speech():
    pcm, _ = soundfile.read(demo_clip_path(), dtype="float32")
    return pcm[8000 : 8000 + PACKETS * PACKET_SAMPLES]


@pytest.fixture(scope="module")
def packets(models, speech):
    talking = Sender(models, SenderConfig(lbrr_bps=16_000))
    return [talking.send(block) for block in packetize(speech)]


def trace(*lost):
    out = np.zeros(PACKETS, np.uint8)
    out[list(lost)] = 1
    return out


def play(models, packets, lost, config=ReceiverConfig()):
    listening = Receiver(models, config)
    heard, sources = [], []
    for packet, gone in zip(packets, lost, strict=True):
        pcm = listening.push(None if gone else packet)
        if len(pcm):
            heard.append(pcm)
            sources.append(listening.last_source)
    while listening.waiting:
        heard.append(listening.drain())
        sources.append(listening.last_source)
    return np.concatenate(heard), sources, listening


def test_without_loss_the_link_is_stock_opus(models, speech, packets):
    plain = codec.Encoder(bitrate_bps=40_000, lbrr=True, loss_percent=20)
    decoder = codec.Decoder()
    stock = np.concatenate([decoder.decode(plain.encode(block)) for block in packetize(speech)])
    heard, sources, _ = play(models, packets, trace())
    np.testing.assert_array_equal(heard, stock)
    assert set(sources) == {Source.GOOD}
    assert any(find_redundancy(packet) for packet in packets)


def test_sources_of_a_burst(models, packets):
    _, sources, listening = play(models, packets, trace(20, 21, 22, 30))
    assert sources[20:23] == [Source.DRED, Source.DRED, Source.LBRR]
    assert sources[30] == Source.LBRR
    assert sources.count(Source.GOOD) == PACKETS - 4
    assert listening.counts == {Source.GOOD: PACKETS - 4, Source.DRED: 2, Source.LBRR: 2}
    _, sources, _ = play(models, packets, trace(20, 21, 22), ReceiverConfig(use_lbrr=False))
    assert sources[20:23] == [Source.DRED] * 3
    _, sources, _ = play(models, packets, trace(20, 21, 22), ReceiverConfig(use_lbrr=False, use_dred=False))
    assert sources[20:23] == [Source.PLC] * 3


def test_playout_delay_bounds_what_can_be_repaired(models, packets):
    config = ReceiverConfig(use_lbrr=False, playout_delay_ms=40)
    heard, sources, listening = play(models, packets, trace(20, 21, 22, 23), config)
    assert sources[20:24] == [Source.PLC, Source.PLC, Source.DRED, Source.DRED]
    assert len(heard) == PACKETS * PACKET_SAMPLES
    assert listening.delay_packets == 2
    _, sources, _ = play(models, packets, trace(20), ReceiverConfig(playout_delay_ms=0))
    assert sources[20] == Source.PLC


def test_duration_bounds_what_is_sent(models, speech):
    lost = trace(*range(20, 30))
    short = SenderConfig(dred_duration_ms=120, lbrr_bps=0)
    heard = call(speech, lost, models, short, ReceiverConfig())
    # Three chunks reach 120 ms back from 15 ms after the packet: the six newest packets have at least one row.
    assert heard.sources[20:30] == [Source.PLC] * 4 + [Source.DRED] * 6
    none = call(speech, lost, models, SenderConfig(dred_duration_ms=0), ReceiverConfig())
    assert none.dred_kbps == 0
    assert heard.dred_kbps > 1
    assert heard.total_kbps == pytest.approx(none.total_kbps + heard.dred_kbps, rel=0.02)
    assert heard.pcm.shape == speech.shape


def test_same_seed_same_bytes(models, speech, packets):
    again = Sender(models, SenderConfig(lbrr_bps=16_000))
    assert [again.send(block) for block in packetize(speech)] == packets
    lost = trace(*range(10, 18), 25)
    first, second = (play(models, packets, lost)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = play(models, packets, lost, ReceiverConfig(seed=1))[0]
    assert np.any(other != first)


def test_received_packets_are_untouched_beside_a_gap(models, packets):
    lost = trace(20, 21, 22)
    clean = play(models, packets, trace())[0].reshape(-1, PACKET_SAMPLES)
    heard = play(models, packets, lost)[0].reshape(-1, PACKET_SAMPLES)
    np.testing.assert_array_equal(heard[:20], clean[:20])
    assert np.all(np.isfinite(heard))
    assert np.max(np.abs(heard[30:] - clean[30:])) < 0.1


def test_gap_rows_are_those_of_the_lost_packet():
    """Row j of a redundancy whose newest row is frame 1 is frame 1 - j; a loss d packets back begins at -2 d."""
    frames = 1 - np.arange(104, dtype=np.float32)
    described = Described(np.broadcast_to(frames[:, None], (104, 20)), np.int32(24), np.int32(1))
    for distance in (1, 2, 11, 12, 13):
        rows, known = gap_rows(described, np.int32(2 * distance), 4)
        wanted = -2 * distance + np.arange(4)
        np.testing.assert_array_equal(known, wanted >= 1 - 23)
        np.testing.assert_array_equal(rows[known, 0], wanted[np.asarray(known)])
    late = described._replace(newest=np.int32(-3))
    rows, known = gap_rows(late, np.int32(2), 3)
    assert np.all(known)
    np.testing.assert_allclose(rows[:, 0], -12.4853, atol=1e-3)  # skipped silence
    _, known = gap_rows(described._replace(count=np.int32(0)), np.int32(2), 3)
    assert not np.any(known)


def test_payload_describes_the_decoded_sound(models, speech):
    """What the sender's payload says equals the model run directly on the delayed input."""
    config = SenderConfig(activity_dbfs=-200.0, level=3, slope=2)
    talking = Sender(models, config)
    packets = [talking.send(block) for block in packetize(speech)]
    delayed = np.concatenate([np.zeros(talking.delay_samples, np.float32), speech])[: len(speech)]
    direct = redundancy(models.rdovae, jnp.asarray(delayed), config)
    payloads = PayloadCodec(models.tables)
    for n in (5, 20, 39):
        data = find_redundancy(packets[n])
        told = describe(models.rdovae, payloads.decode(data))
        count = int(told.count)
        assert count == int(direct.count[n]) > 0
        assert int(told.newest) == 1
        np.testing.assert_allclose(told.rows[:count], direct.rows[n, :count], atol=2e-3)


def test_no_more_chunks_are_decoded_than_a_gap_needs(models, packets):
    data, payloads = find_redundancy(packets[39]), PayloadCodec(models.tables)
    whole = payloads.decode(data)
    everything = describe(models.rdovae, whole)
    at_once = models.rdovae.reconstruct(whole.latents, whole.state, whole.levels)
    np.testing.assert_allclose(everything.rows[: everything.count], at_once[: everything.count], atol=1e-4)
    for frames, chunks in ((1, 1), (2, 1), (3, 2), (6, 2), (7, 3), (60, 16), (100, int(whole.chunks))):
        part = payloads.decode(data, frames)
        assert part.chunks == chunks
        np.testing.assert_array_equal(part.latents[:chunks], whole.latents[:chunks])
        told = describe(models.rdovae, part)
        np.testing.assert_allclose(told.rows[: told.count], everything.rows[: told.count], atol=1e-5)
        assert not np.any(told.rows[told.count :])
        ours, known = gap_rows(told, np.int32(frames), 4)
        theirs, _ = gap_rows(everything, np.int32(frames), 4)
        assert known[0] or frames == 100
        np.testing.assert_allclose(ours[known], theirs[known], atol=1e-5)


def test_silence_is_not_described(models):
    talking = Sender(models, SenderConfig())
    packets = [talking.send(block) for block in np.zeros((10, PACKET_SAMPLES), np.float32)]
    assert not any(find_redundancy(packet) for packet in packets)


@pytest.mark.parametrize("bad", [np.zeros(319), np.zeros((2, 320)), np.full(320, np.nan), np.zeros(0)])
def test_bad_pcm_is_refused_and_nothing_is_lost(models, speech, packets, bad):
    talking = Sender(models, SenderConfig(lbrr_bps=16_000))
    blocks = packetize(speech)
    for block, packet in zip(blocks[:6], packets[:6], strict=True):
        with pytest.raises(ValueError, match="samples"):
            talking.send(bad.astype(np.float32))
        assert talking.send(block) == packet


@pytest.mark.parametrize(
    "wrong",
    [
        {"dred_duration_ms": 2000},
        {"level": 16},
        {"slope": 9},
        {"expected_loss": 20},
        {"level": 6, "max_level": 5},
        {"dred_every": 0},
        {"dred_duration_ms": 400, "dred_between_ms": 440},
    ],
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        SenderConfig(**wrong)
    with pytest.raises(ValueError, match="playout_delay_ms must be"):
        ReceiverConfig(playout_delay_ms=-20)


def test_empty_trace_is_refused(models, speech):
    with pytest.raises(ValueError, match="empty"):
        call(speech, np.zeros(0, np.uint8), models, SenderConfig(), ReceiverConfig())


def test_damaged_redundancy_counts_as_none(models, packets, rng):
    damaged = list(packets)
    data = find_redundancy(packets[23])
    core = extension.strip(packets[23], EXTENSION_ID)
    for payload in (b"\xff" + data[1:], b"", data[:2], bytes(rng.integers(0, 256, 30, dtype=np.uint8))):
        damaged[23] = attach_redundancy(core, payload)
        heard, sources, listening = play(models, damaged, trace(20, 21, 22), ReceiverConfig(use_lbrr=False))
        assert np.all(np.isfinite(heard))
        assert sources[20] in (Source.PLC, Source.DRED)
    assert listening.counts[Source.GOOD] == PACKETS - 3


def test_garbage_never_stops_a_receiver(models, packets):
    listening = Receiver(models, ReceiverConfig(playout_delay_ms=60))

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=80), st.integers(0, PACKETS - 1), st.integers(0, 400), st.integers(0, 255))
    def attack(garbage, number, place, value):
        flipped = bytearray(packets[number])
        flipped[place % len(flipped)] = value
        for packet in (garbage, bytes(flipped), None, packets[number][: place % len(flipped)], packets[number]):
            pcm = listening.push(packet)
            assert np.all(np.isfinite(pcm))
            assert len(pcm) in (0, PACKET_SAMPLES)

    attack()
    assert listening.unreadable > 0


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 8))
@settings(max_examples=50, deadline=None)
def test_carriers(lost, delay):
    lost = (lost + [False] * 30)[:30]
    carrier, distance = carriers(jnp.asarray(lost), delay)
    for j in np.flatnonzero(lost):
        after = next((n for n in range(j, 30) if not lost[n]), None)
        if after is None or after - j > delay:
            assert distance[j] == 0
        else:
            assert (carrier[j], distance[j]) == (after, after - j)


@pytest.fixture(scope="module")
def simulated(models):
    config = SenderConfig(dred_duration_ms=120), ReceiverConfig()
    return jax.jit(lambda pcm, lost, key: simulate(models, pcm, lost, key, *config))


def test_simulation_agrees_with_packets_on_every_source(models, speech, simulated):
    names = {0: Source.GOOD, 1: Source.DRED, 2: Source.PLC}
    lost = trace(*range(10, 19), 25, 26)
    out = simulated(jnp.asarray(speech), jnp.asarray(lost, bool), jax.random.key(0))
    heard = call(speech, lost, models, SenderConfig(dred_duration_ms=120), ReceiverConfig())
    assert [names[int(s)] for s in out.source] == heard.sources[:PACKETS]
    kept = np.repeat(lost == 0, PACKET_SAMPLES) & (np.arange(len(speech)) % PACKET_SAMPLES >= 80)
    np.testing.assert_array_equal(np.asarray(out.pcm)[kept], speech[kept])


@pytest.mark.parametrize(("every", "between_ms"), [(1, 0), (2, 0), (3, 80), (4, 0)])
def test_sources_where_few_packets_reach_far(models, speech, every, between_ms):
    """A gap waits for the packet that reaches it; packets and simulation agree, and the delay bounds the wait."""
    names = {0: Source.GOOD, 1: Source.DRED, 2: Source.PLC}
    config = SenderConfig(dred_duration_ms=400, dred_every=every, dred_between_ms=between_ms)
    lost = trace(3, *range(10, 19), 21, 22, 25, 26, 30)
    for delay_ms in (1040, 60):
        receiver = ReceiverConfig(playout_delay_ms=delay_ms)
        heard = call(speech, lost, models, config, receiver)
        described = redundancy(models.rdovae, jnp.asarray(speech), config)
        between = 4 * (between_ms // 40)
        _, known = repairs(described, jnp.asarray(lost, bool), receiver, models.concealer.conceal_rows, between)
        simulated = [names[int(s)] for s in sources(jnp.asarray(lost, bool), known)]
        assert simulated == heard.sources[:PACKETS]
        if delay_ms == 1040:
            assert Source.PLC not in heard.sources


def test_packets_between_are_small(models, speech):
    def sizes(**options):
        sender = Sender(models, SenderConfig(dred_duration_ms=400, **options))
        return [redundancy_bytes(sender.send(block)) for block in packetize(speech)]

    far, mixed = sizes(), sizes(dred_every=4, dred_between_ms=40)
    none = sizes(dred_every=4)
    assert mixed[12::4] == none[12::4] == far[12::4]
    assert all(0 < small < large for k, (small, large) in enumerate(zip(mixed, far, strict=True)) if k > 12 and k % 4)
    assert not any(size for k, size in enumerate(none) if k % 4)


def test_simulation_under_vmap(models, speech, simulated):
    lost = np.stack([trace(*range(10, 19)), trace(3, 20)]).astype(bool)
    keys = jax.random.split(jax.random.key(0), 2)
    pcm = jnp.stack([speech, 0.5 * speech[::-1]])
    together = jax.vmap(simulated)(pcm, lost, keys)
    for i in range(2):
        alone = simulated(pcm[i], jnp.asarray(lost[i]), keys[i])
        np.testing.assert_array_equal(together.source[i], alone.source)
        # Sampling is discrete: a rounding difference may change a sample, not the sound's level.
        np.testing.assert_allclose(np.std(together.pcm[i]), np.std(alone.pcm), rtol=0.05)


def test_gradient_flows_from_waveform_to_waveform(models, speech):
    pcm, lost = jnp.asarray(speech[: 16 * PACKET_SAMPLES]), jnp.zeros(16, bool).at[8:10].set(True)

    def energy_of_the_gap(pcm, rdovae):
        played = simulate(models._replace(rdovae=rdovae), pcm, lost, jax.random.key(0)).pcm
        return jnp.sum(played[8 * PACKET_SAMPLES : 10 * PACKET_SAMPLES] ** 2)

    gradient, weights = jax.jit(jax.grad(energy_of_the_gap, argnums=(0, 1)))(pcm, models.rdovae)
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient[9 * PACKET_SAMPLES :] != 0)  # what comes after the gap describes it
    leaves = jax.tree.leaves(weights)
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves)
    assert any(np.any(leaf != 0) for leaf in leaves)


def test_sender_state_is_a_value(models, speech):
    """A stream can be forked: stepping one copy leaves the other as it was."""
    config = sending.settings(SenderConfig())
    step = jax.jit(sending.step)
    state = sending.init_state(models.rdovae)
    blocks = jnp.asarray(packetize(speech))
    for block in blocks[:4]:
        state, _ = step(models.rdovae, config, state, block)
    one, a = step(models.rdovae, config, state, blocks[4])
    _, b = step(models.rdovae, config, state, blocks[4])
    jax.tree.map(np.testing.assert_array_equal, a, b)
    shapes = jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), (state, one))
    assert shapes[0] == shapes[1]


def test_a_sender_adapts_between_packets(models, speech):
    """To loss that is reported: with redundancy, coarser, without; what it sends of the past is then the same."""
    blocks = packetize(speech)[:40]
    fine, coarse = SenderConfig(dred_duration_ms=320, level=4), SenderConfig(dred_duration_ms=160, level=9)
    sender, steady = Sender(models, fine), Sender(models, coarse)
    for block in blocks[:20]:
        sender.send(block), steady.send(block)
    sender.adapt(coarse)
    for block in blocks[20:30]:
        assert redundancy_bytes(sender.send(block)) == redundancy_bytes(steady.send(block)) > 0
    sender.adapt(replace(coarse, dred_duration_ms=0, bitrate_bps=12_000))
    plain = [sender.send(block) for block in blocks[30:]]
    assert not any(redundancy_bytes(packet) for packet in plain)
    with pytest.raises(ValueError, match="bitrate_bps"):
        sender.adapt(SenderConfig(bitrate_bps=10_000_000))
    assert sender.config.bitrate_bps == 12_000
    sender.adapt(fine)
    assert any(redundancy_bytes(sender.send(block)) for block in blocks[:10])
