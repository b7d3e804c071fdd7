"""The shipped vocoders: stable on anything, and going on from a real past without a seam."""

import jax
import numpy as np
import pytest
from test_seams import play, roughness, stock

import jdred
from jdred.assets import demo_clip_path
from jdred.config import FRAME_SAMPLES, PACKET_SAMPLES, SAMPLE_RATE_HZ
from jdred.dsp.features import extract
from jdred.evaluation import stability
from jdred.evaluation.clips import read_clip
from jdred.link.call import packetize
from jdred.link.sender import Sender
from jdred.models import load_vocoder

SECONDS = 1.0
VOCODERS = ("fargan", "lpcnet")


@pytest.fixture(scope="module")
def models():
    return jdred.load()


@pytest.fixture(scope="module")
def speech():
    return read_clip(demo_clip_path())


@pytest.fixture(scope="module")
def scenes(models, speech):
    return stability.scenes(models, speech[SAMPLE_RATE_HZ:], SECONDS, levels=(0, 15))


@pytest.mark.parametrize("name", VOCODERS)
def test_free_runs_stay_within_bounds(name, scenes):
    """The same as ``experiments/stability.py`` for a minute."""
    vocoder = load_vocoder(name)
    found = {scene: stability.figures(said) for scene, said in stability.run(vocoder, scenes).items()}
    assert found["silence"]["peak"] < 1e-3
    assert all(abs(scene["dc"]) < 0.03 for scene in found.values())
    # No click: steps are those of the loudest speech, not of a jump from rail to rail.
    assert all(scene["jump"] < 1.2 * scene["peak"] + 0.01 for name, scene in found.items() if "loudest" not in name)
    wanted = found["speech"]["level_db"]
    assert -35 < wanted < -15
    for level in (0, 15):
        assert found[f"speech, level {level}"]["level_db"] == pytest.approx(wanted, abs=4)
    assert found["speech, -40 dB"]["level_db"] == pytest.approx(wanted - 40, abs=6)
    assert found["speech, loudest"]["level_db"] > wanted + 6


def test_figures_show_what_is_wrong():
    time = np.arange(21 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tone = 0.1 * np.sin(2 * np.pi * 200 * time)
    right = stability.figures(tone)
    assert right["level_db"] == pytest.approx(-23, abs=0.1)
    assert right["drift_db"] < 0.1
    assert right["dc"] < 1e-3
    assert stability.figures(tone * (1 + time / 21))["drift_db"] > 2.5
    assert stability.figures(tone + 0.05 * (time > 20))["dc"] > 0.04
    clicked = tone.copy()
    clicked[1000:] += 0.3
    assert stability.figures(clicked)["jump"] > 0.25 > 10 * right["jump"]


def agreement(vocoder, extractor, pcm, frames):
    """Correlation of the first 5 ms after priming with what really comes."""
    rows, known = np.asarray(jax.jit(extract)(pcm, extractor)), vocoder.prime_rows * FRAME_SAMPLES + 80
    around = [rows[k - vocoder.prime_rows : k + vocoder.lookahead_rows + 1] for k in frames]
    past = np.stack([pcm[FRAME_SAMPLES * k - known : FRAME_SAMPLES * k] for k in frames])
    true = np.stack([pcm[FRAME_SAMPLES * k : FRAME_SAMPLES * k + 80] for k in frames])
    uniforms = np.random.default_rng(0).random((len(frames), FRAME_SAMPLES, 8)).astype(np.float32)
    _, said = jax.jit(type(vocoder).prime)(vocoder, np.stack(around, axis=1), past, uniforms)
    return (said * true).sum(axis=1) / np.sqrt((said**2).sum(axis=1) * (true**2).sum(axis=1))


def steady(rows):
    """Rows in the middle of 60 ms that are voiced, loud and hardly change."""
    places = range(10, len(rows) - 10)
    near = [rows[k - 4 : k + 3] for k in places]
    changes = [np.abs(np.diff(part[:, :6], axis=0)).max() for part in near]
    voiced = [part[:, 19].min() > 0.35 and part[4, 0] > 0 for part in near]
    return [k for k, change, good in zip(places, changes, voiced, strict=True) if good and change < 0.9]


@pytest.mark.parametrize("name", VOCODERS)
def test_held_vowels_go_on_as_they_were(name, models, speech):
    vocoder = load_vocoder(name)
    vowels = np.concatenate([stability.vowel(0.5, pitch) for pitch in (90, 130, 170, 210, 250)])
    middles = [50 * vowel + k for vowel in range(5) for k in (20, 27, 34)]
    assert agreement(vocoder, models.extractor, vowels, middles).mean() > 0.95
    real = steady(np.asarray(jax.jit(extract)(speech, models.extractor)))
    assert len(real) >= 10
    assert agreement(vocoder, models.extractor, speech, real).mean() > 0.8


@pytest.fixture(scope="module")
def call(models, speech):
    """Packets of the clip, and what they sound like without loss."""
    sender = Sender(models)
    packets = [sender.send(block) for block in packetize(speech[: 9 * SAMPLE_RATE_HZ])]
    return packets, stock(packets, np.zeros(len(packets), bool))


def places(clean):
    """Packets where a gap begins at an onset, in the middle of a vowel, in silence."""
    level = 10 * np.log10(np.mean(clean[: len(clean) // 320 * 320].reshape(-1, 320) ** 2, axis=1) + 1e-9)
    inner = np.arange(60, len(level) - 120)
    return {
        "onset": inner[np.argmax(level[inner + 1] - level[inner - 1])],
        "vowel": inner[np.argmax(np.min([level[inner + k] for k in (-2, -1, 0, 1, 2)], axis=0))],
        "silence": inner[np.argmin(np.max([level[inner + k] for k in (-1, 0, 1)], axis=0))],
    }


@pytest.mark.parametrize("settings", [{}, {"use_dred": False}], ids=["described", "predicted"])
def test_gaps_of_20_ms_and_1_s_begin_and_end_without_a_click(models, call, settings):
    packets, clean = call
    usual = roughness(clean, range(400, len(clean) - 400, 7)).max()
    for place, begin in places(clean).items():
        for length in (1, 50):
            lost = np.zeros(len(packets), bool)
            lost[begin : begin + length] = True
            heard, _, _ = play(models, packets, lost, use_lbrr=False, **settings)
            edges = [PACKET_SAMPLES * n for n in range(begin, begin + length + 2)]
            assert roughness(heard, edges).max() < usual, (place, length)
            gap = heard[edges[0] : edges[-1]]
            assert np.abs(gap).max() <= 1
            if place == "silence" and length == 1:
                assert np.abs(gap).max() < 3 * np.abs(clean[edges[0] - 640 : edges[-1] + 640]).max()
