"""What a sender spends on which redundancy: tables, rates, and the choice by loss."""

import numpy as np
import pytest

import jdred
from jdred.assets import demo_clip_path
from jdred.config import MAX_CHUNKS, SenderConfig
from jdred.evaluation import patterns
from jdred.evaluation.clips import read_clip
from jdred.link import plan as planning
from jdred.link.call import encoded, rate_kbps, redundancy_bytes
from jdred.link.channel import burst_lengths, realised_loss
from jdred.link.sender import Sender
from jdred.rdovae.rate import expected_bits


@pytest.fixture(scope="module")
def shipped():
    return jdred.load()


def test_every_split_is_a_sender(shipped):
    for kind in planning.KINDS:
        for total in planning.TOTALS_KBPS:
            for burst_ms in (0, 60, 120, 400):
                split = planning.choose(total, 0.2, burst_ms, kind)
                config = SenderConfig(**split.dred)
                assert config.dred_duration_ms % 40 == 0
                assert config.dred_duration_ms <= 40 * MAX_CHUNKS
                assert (split.kind == "lbrr") == (config.dred_duration_ms == 0)
                assert planning.redundancy_bps(shipped, config) < 800 * total  # Something is left to speak with.


def test_the_choice_goes_by_the_gaps():
    assert planning.choose(40, 0.2, 0).has_lbrr
    assert planning.choose(40, 0.2, 25).has_lbrr
    assert not planning.choose(40, 0.2, 120).has_lbrr
    assert planning.choose(24, 0.3, 28).duration_ms > planning.choose(24, 0.1, 22).duration_ms == 0
    reach = [planning.choose(40, 0.2, burst_ms, "dred").duration_ms for burst_ms in (0, 60, 120, 400)]
    assert reach == sorted(reach)
    assert reach[0] < reach[-1]
    assert planning.choose(37.1, 0.2, 120) == planning.choose(40, 0.2, 120)


def test_little_delay_wants_more_packets_with_a_shorter_reach():
    long = planning.choose(40, 0.2, 400.0, "dred")
    assert planning.within(long, 400.0, 1040.0) == long
    assert planning.within(long, 60.0, 100.0)[-2:] == (120, 2)
    assert planning.within(long, 400.0, 100.0)[-2:] == (120, 1)
    assert planning.within(long, 0.0, 0.0)[-2:] == (40, 1)
    assert planning.within(planning.Split("lbrr"), 0.0, 200.0).duration_ms == 0


def test_a_plan_keeps_to_its_total(shipped):
    for loss, burst_ms in ((0.2, 0.0), (0.2, 120.0), (0.0, 0.0)):
        config = jdred.plan(shipped, 40_000, loss, burst_ms)
        taken = config.bitrate_bps + config.lbrr_bps + planning.redundancy_bps(shipped, config)
        assert taken == pytest.approx(40_000, abs=2)
        assert config.expected_loss == loss
    assert config.dred_duration_ms == config.lbrr_bps == 0  # Nothing is lost.
    late = jdred.plan(shipped, 40_000, 0.2, 0.0, playout_delay_ms=0)
    assert late.dred_duration_ms == late.lbrr_bps == 0  # Nothing would come in time.
    for wrong in ((4000, 0.1, 0.0), (40_000, 1.0, 0.0), (40_000, 0.1, -1.0)):
        with pytest.raises(ValueError, match="expected a"):
            jdred.plan(shipped, *wrong)


@pytest.mark.parametrize("total_bps", [6_000, 9_000, 12_000, 24_000, 40_000, 64_000])
@pytest.mark.parametrize(("burst_ms", "delay_ms"), [(0, 20), (60, 100), (400, 400), (400, 1040), (1040, 1040)])
def test_little_delay_does_not_starve_opus(shipped, total_bps, burst_ms, delay_ms):
    """Where every packet has to carry DRED it costs four times as much, so it must be coarser."""
    config = jdred.plan(shipped, total_bps, 0.2, burst_ms, delay_ms)
    redundancy = planning.redundancy_bps(shipped, config)
    assert config.bitrate_bps + config.lbrr_bps + redundancy == pytest.approx(total_bps, abs=2)
    assert config.bitrate_bps + config.lbrr_bps >= max(planning.LEAST_CORE_BPS, total_bps / 2 - 1)


def test_expected_rate_is_near_the_real_one(shipped):
    config = SenderConfig(level=6, slope=5, dred_duration_ms=320)
    packets = list(encoded(read_clip(demo_clip_path()), Sender(shipped, config)))
    real = 1000 * rate_kbps(np.array([redundancy_bytes(packet) for packet in packets]))
    assert real == pytest.approx(planning.redundancy_bps(shipped, config), rel=0.25)


def test_expected_bits_are_the_entropy():
    """Against the sum over symbols of a distribution with these parameters."""
    p0, r = np.array([[100, 250, 255, 3]], np.uint8), np.array([[128, 10, 77, 0]], np.uint8)
    size = np.arange(1, 400)
    total = 0.0
    for zero, decay in ((100 / 256, 0.5), (250 / 256, 10 / 256)):
        p = np.concatenate([[zero], np.repeat(0.5 * (1 - zero) * (1 - decay) * decay ** (size - 1), 2)])
        total -= (p[p > 0] * np.log2(p[p > 0])).sum()
    np.testing.assert_allclose(expected_bits(p0, r), [total], rtol=1e-6)


@pytest.mark.parametrize("kind", patterns.PATTERNS)
def test_patterns_lose_what_they_say(kind):
    pattern = patterns.PATTERNS[kind]
    traces = [patterns.draw(pattern, 500, seed) for seed in range(12)]
    assert np.mean([realised_loss(t) for t in traces]) == pytest.approx(pattern.loss, abs=patterns.TOLERANCE)
    gaps = 20 * np.concatenate([burst_lengths(t) for t in traces])
    assert gaps.max() <= (pattern.longest_ms or 400)
    assert gaps.mean() == pytest.approx(pattern.burst_ms or 20 / (1 - pattern.loss), rel=0.35)
    for t in traces:
        assert not t[: patterns.PROTECTED[0]].any()
        assert not t[-patterns.PROTECTED[1] :].any()
