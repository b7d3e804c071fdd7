"""Where sources change: no click, no drift, nothing that stays behind; the same sources as in the simulation."""

import gc
import tracemalloc
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import jdred
from jdred.assets import demo_clip_path
from jdred.config import PACKET_SAMPLES, ReceiverConfig, SenderConfig
from jdred.link import simulate as simulation
from jdred.link.call import packetize
from jdred.link.channel import draw_trace
from jdred.link.receiver import Receiver, Source
from jdred.link.sender import Sender
from jdred.opus import codec, extension
from jdred.opus.marker import EXTENSION_ID
from jdred.opus.packet import has_lbrr

FADE = 80
"""Samples at the begin of a packet that ends a gap, in which it is faded in."""
SET_LBRR = 4012
"""libopus's request number."""
PACKETS = 200


@pytest.fixture(scope="module")
def speech():
    pcm, _ = soundfile.read(demo_clip_path(), dtype="float32")
    return pcm[: PACKETS * PACKET_SAMPLES]


def mixed_stream(models, speech):
    """Packets with and without LBRR and redundancy, at random, so that any source may follow on any other."""
    rng = np.random.default_rng(0)
    sender, out = Sender(models, SenderConfig(lbrr_bps=16_000, dred_duration_ms=160)), []
    for number, block in enumerate(packetize(speech)):
        if number % 4 == 0:
            sender._opus.accepts(SET_LBRR, int(rng.random() < 0.5))
        packet = sender.send(block)
        out.append(extension.strip(packet, EXTENSION_ID) if rng.random() < 0.35 else packet)
    return out


def gaps(seed=1, last=20):
    """Bursts of 1 .. 9 packets, 1 .. 5 packets apart; the ``last`` ones arrive."""
    rng, lost, at = np.random.default_rng(seed), np.zeros(PACKETS, bool), 6
    while at < PACKETS - last - 10:
        burst = int(rng.choice([1, 1, 2, 3, 5, 9]))
        lost[at : at + burst] = True
        at += burst + int(rng.integers(1, 6))
    return lost


def play(models, packets, lost, **settings):
    receiver, heard, sources = Receiver(models, ReceiverConfig(**settings)), [], []
    for packet, gone in zip(packets, lost, strict=True):
        heard.append(receiver.push(None if gone else packet))
        sources.extend(receiver.last_sources)
    while receiver.waiting:
        heard.append(receiver.drain())
        sources.extend(receiver.last_sources)
    return np.concatenate(heard), sources, receiver


def stock(packets, lost):
    """What libopus alone plays of the same packets, repaired by LBRR."""
    decoder, heard = codec.Decoder(), []
    for number, packet in enumerate(packets):
        if not lost[number]:
            heard.append(decoder.decode(packet))
        elif number + 1 < len(packets) and not lost[number + 1] and has_lbrr(packets[number + 1]):
            heard.append(decoder.decode_lbrr(packets[number + 1], PACKET_SAMPLES))
        else:
            heard.append(decoder.conceal(PACKET_SAMPLES))
    return np.concatenate(heard)


def roughness(pcm, at):
    """Step from the sample before each place, over the rms of the steps within 5 ms: a click stands out."""
    steps, out = np.diff(pcm), []
    for place in at:
        around = np.delete(steps[place - 81 : place + 79], 80)
        out.append(abs(steps[place - 1]) / (np.sqrt(np.mean(around**2)) + 1e-3))
    return np.array(out)


def leaps(pcm, at):
    """How much louder or softer, in dB, the 5 ms after each place are than those before."""

    def level(part):
        return 10 * np.log10(np.mean(part**2) + 1e-6)

    return np.abs([level(pcm[place : place + 80]) - level(pcm[place - 80 : place]) for place in at])


def test_no_seam_is_rougher_than_speech(speech):
    models = jdred.load()
    packets = mixed_stream(models, speech)
    clean = stock(packets, np.zeros(PACKETS, bool))
    anywhere = range(400, len(clean) - 400, 7)
    ordinary = np.sort(roughness(clean, anywhere)), np.sort(leaps(clean, anywhere))
    seen = Counter()
    for settings in ({}, {"use_dred": False}):
        heard, sources, _ = play(models, packets, gaps(), **settings)
        seams = [n * PACKET_SAMPLES for n in range(2, PACKETS - 2) if sources[n] != sources[n - 1]]
        seen.update((sources[n // PACKET_SAMPLES - 1], sources[n // PACKET_SAMPLES]) for n in seams)
        # A long prediction has faded, so that what follows it is louder: no click, as its roughness shows.
        faded = [Source.PLC in (sources[n // PACKET_SAMPLES - 1], sources[n // PACKET_SAMPLES]) for n in seams]
        known = leaps(heard, seams)[~np.array(faded)]
        for found, usual in zip((roughness(heard, seams), known), ordinary, strict=True):
            assert found.max() < usual[-1]
            if len(found) >= 30:  # of fewer the middle says little
                assert np.median(found) < 1.5 * np.median(usual)
                assert np.quantile(found, 0.9) < np.quantile(usual, 0.99)
        # A click would be found: a step of twelve times the usual ones, in the loudest place.
        loud = max(seams, key=lambda n: np.std(heard[n - 80 : n + 80]))
        clicked = heard.copy()
        clicked[loud:] += 12 * np.std(np.diff(heard[loud - 80 : loud + 80]))
        assert roughness(clicked, [loud])[0] > ordinary[0][-1]
    every = {(a, b) for a in Source for b in Source if a != b}
    # The packet that holds an LBRR copy is played right after it; predictions end where the past is known.
    never = {(Source.LBRR, Source.DRED), (Source.LBRR, Source.PLC), (Source.DRED, Source.PLC)}
    assert every - set(seen) <= never


@pytest.mark.parametrize("settings", [{}, {"offline": True}, {"playout_delay_ms": 60}])
def test_what_arrives_is_played_where_it_belongs(models, speech, settings):
    """No drift: every packet that arrives is heard at its place, sample by sample, beside the fade behind a gap."""
    packets, lost = mixed_stream(models, speech), gaps(2)
    heard, sources, _ = play(models, packets, lost, splice=False, **settings)
    wanted = stock(packets, lost).reshape(-1, PACKET_SAMPLES)
    assert len(heard) == PACKETS * PACKET_SAMPLES
    for number, block in enumerate(heard.reshape(-1, PACKET_SAMPLES)):
        begin = FADE if sources[number - 1] in (Source.DRED, Source.PLC) else 0
        if sources[number] in (Source.GOOD, Source.LBRR):
            np.testing.assert_array_equal(block[begin:], wanted[number][begin:])
    assert [source == Source.GOOD for source in sources] == list(~lost)


def test_a_gap_leaves_nothing_behind(models, speech):
    """libopus's decoder converges by itself; so do our states, which then are what they would be without the gap."""
    packets = mixed_stream(models, speech)
    lost = np.zeros(PACKETS, bool)
    lost[40:60] = True
    heard, _, with_gap = play(models, packets, lost, playout_delay_ms=200)
    clean, _, without = play(models, packets, ~lost & lost, playout_delay_ms=200)
    difference = np.abs(heard - clean).reshape(-1, PACKET_SAMPLES).max(axis=1)
    assert difference[40:60].max() > 0.05
    assert difference[64:].max() < 0.1
    assert difference[100:].max() < 0.01
    # From here on both hear the same: what is left of the gap fades from every state.
    one, other = with_gap._state, without._state
    for block in packetize(speech)[:150]:
        one, _ = with_gap._good(one, block)
        other, _ = without._good(other, block)
    for name in ("analyser", "rows", "pcm", "predictor", "concealed", "predicted"):
        for a, b in zip(jax.tree.leaves(getattr(one, name)), jax.tree.leaves(getattr(other, name)), strict=True):
            np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), atol=1e-3, rtol=1e-4)


@pytest.fixture(scope="module")
def described(models, speech):
    """``(packets, what the simulation says of them)``, silence described as well."""
    config = SenderConfig(dred_duration_ms=200, activity_dbfs=-200.0)
    sender = Sender(models, config)
    packets = [sender.send(block) for block in packetize(speech)[:80]]
    delayed = np.concatenate([np.zeros(sender.delay_samples, np.float32), speech])[: 80 * PACKET_SAMPLES]
    return packets, jax.jit(lambda pcm: simulation.redundancy(models.rdovae, pcm, config))(jnp.asarray(delayed))


@pytest.mark.parametrize("settings", [{}, {"playout_delay_ms": 60}, {"offline": True}, {"use_dred": False}])
def test_simulation_and_packets_agree_on_any_trace(models, described, settings):
    packets, said = described
    config = ReceiverConfig(use_lbrr=False, **settings)
    names = {simulation.GOOD: Source.GOOD, simulation.DRED: Source.DRED, simulation.PLC: Source.PLC}
    plan = jax.jit(lambda lost: simulation.sources(lost, simulation.repairs(said, lost, config, 4)[1]))
    for seed in range(3):
        lost = draw_trace(80, 0.3, 160, seed=seed)
        _, sources, _ = play(models, packets, lost, use_lbrr=False, **settings)
        assert [names[int(source)] for source in plan(jnp.asarray(lost, bool))] == sources


def test_a_long_call_needs_no_more_memory(models, described):
    """A bounded soak: random loss, out of order, twice; what is held after 1200 packets is what was after 400."""
    packets, _ = described
    rng, receiver = np.random.default_rng(0), Receiver(models, ReceiverConfig(playout_delay_ms=160))
    held, waiting = [], []
    tracemalloc.start()
    try:
        for slot in range(1200):
            for number in {slot, slot - int(rng.integers(0, 12))}:
                if number >= 0 and rng.random() > 0.3:
                    receiver.put(packets[number % 80], number % 65536, 960 * number, number // 700)
            receiver.play()
            waiting.append(receiver.waiting)
            if slot % 400 == 399:
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[2] - held[1] < 50_000
    assert max(waiting) <= 20
    counts = receiver.timeline.counts
    assert counts.restarts == 1
    assert min(counts.duplicate, counts.reordered, receiver.counts[Source.DRED]) > 50
