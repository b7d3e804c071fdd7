"""Augmentation: each step alone has a known effect."""

from dataclasses import replace

import numpy as np
import pytest

from jdred.training.augment import AugmentConfig, augment, biquad, high_pass, rms, room

RATE = 16000
PLAIN = AugmentConfig(gain_db=(0, 0), quiet=0, muted=0, tilt=0, room=0, noise=0, clip=0, round=0)


@pytest.fixture
def pcm(rng):
    return (0.05 * rng.standard_normal(RATE)).astype(np.float32)


def test_contract(pcm):
    for seed in range(30):
        out = augment(pcm, np.random.default_rng(seed))
        assert out.shape == pcm.shape
        assert out.dtype == np.float32
        assert np.abs(out).max() <= 1
        np.testing.assert_array_equal(out, augment(pcm, np.random.default_rng(seed)))
    assert not np.array_equal(out, augment(pcm, np.random.default_rng(0)))


def test_plain_is_the_high_pass_and_a_sign(pcm, rng):
    """Against the difference equation of the filter."""
    expected = np.zeros(RATE + 2)
    x = np.concatenate([np.zeros(2), pcm.astype(np.float64)])
    for n in range(2, RATE + 2):
        expected[n] = x[n] - 2 * x[n - 1] + x[n - 2] + 1.99599 * expected[n - 1] - 0.996 * expected[n - 2]
    signs = set()
    for _ in range(8):
        out = augment(pcm, rng, config=PLAIN)
        sign = np.sign(out @ pcm)
        signs.add(sign)
        np.testing.assert_allclose(sign * out, expected[2:], atol=1e-5)
    assert signs == {-1, 1}


def test_gain(pcm, rng):
    quiet = augment(pcm, rng, config=replace(PLAIN, gain_db=(-20, -20)))
    assert 20 * np.log10(rms(quiet) / rms(pcm)) == pytest.approx(-20, abs=0.2)
    assert 20 * np.log10(rms(augment(pcm, rng, config=replace(PLAIN, quiet=1))) / rms(pcm)) == pytest.approx(
        -40, abs=0.2
    )


def test_loud_peaks_are_clipped_or_spared(pcm, rng):
    loud = replace(PLAIN, gain_db=(30, 30))
    spared, clipped = augment(pcm, rng, config=loud), augment(pcm, rng, config=replace(loud, clip=1))
    assert np.mean(np.abs(spared) > 0.999) < 1e-3
    assert np.mean(np.abs(clipped) > 0.999) > 0.3


@pytest.mark.parametrize("music", [0.0, 1.0])
def test_noise_has_the_asked_level(rng, music):
    speech = (0.1 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)).astype(np.float32)
    background = rng.standard_normal(3 * RATE).astype(np.float32)
    config = replace(PLAIN, noise=1, noise_db=(-20, -20), music=music)
    out = augment(speech, rng, background, config)
    clean = augment(speech, rng, config=PLAIN)
    noise = out * np.sign(out @ clean) - clean
    # Both carry the sign of the gain alone, so the difference is the noise.
    assert 20 * np.log10(rms(noise) / rms(clean)) == pytest.approx(-20, abs=0.3)


def test_muted_leaves_the_noise(pcm, rng):
    assert not augment(pcm, rng, config=replace(PLAIN, muted=1)).any()
    assert augment(pcm, rng, config=replace(PLAIN, muted=1, noise=1)).any()


def test_rounding(pcm, rng):
    out = augment(pcm, rng, config=replace(PLAIN, round=1)) * 32768
    np.testing.assert_array_equal(out, np.round(out))


def test_biquad_response():
    b, a = np.array([1.0, 0.3, -0.2]), np.array([1.0, -0.3, 0.1])
    z = np.exp(-2j * np.pi * np.arange(129) / 256)
    np.testing.assert_allclose(biquad(b, a, 256), (b @ [z**0, z, z**2]) / (a @ [z**0, z, z**2]))
    response = np.abs(high_pass(4 * RATE))
    assert response[0] < 1e-6
    assert response[4 * 2] < 0.1
    np.testing.assert_allclose(response[4 * 100 :], 1, atol=0.02)


def test_room_decays(rng):
    config = replace(PLAIN, decay_s=(0.5, 0.5), reverberant_db=(-10, -10))
    impulse = np.fft.irfft(room(rng, 2 * RATE, config), 2 * RATE)
    assert impulse[0] == pytest.approx(1)
    assert 10 * np.log10(np.sum(impulse[1:] ** 2)) == pytest.approx(-10, abs=0.01)
    early, late = (np.sum(impulse[start : start + 800] ** 2) for start in (800, 4000))
    assert 10 * np.log10(early / late) == pytest.approx(60 * 3200 / RATE / 0.5, abs=2)
    assert not impulse[RATE // 2 + 10 :].round(9).any()
