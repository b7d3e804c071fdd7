"""Measures: known values, and the published definitions."""

import numpy as np
import pytest

from jdred.assets import demo_clip_path
from jdred.evaluation import asr, metrics
from jdred.training.audio import decode


@pytest.fixture(scope="module")
def clip():
    return decode(demo_clip_path())[:64000]


def noisy(clip, level=0.02):
    return np.clip(clip + level * np.random.default_rng(1).standard_normal(len(clip)).astype(np.float32), -1, 1)


def test_identical_clips_score_best(clip):
    scores = metrics.score(clip, clip)
    assert list(scores) == ["plcmos", "pesq_wb", "stoi", "estoi", "lsd_4_7k5_db"]
    assert scores["stoi"] == pytest.approx(1, abs=1e-3)
    assert scores["estoi"] == pytest.approx(1, abs=1e-3)
    assert scores["lsd_4_7k5_db"] == 0
    assert scores["pesq_wb"] in (None, pytest.approx(4.64, abs=0.01))


def test_noise_scores_worse_and_the_same_every_time(clip):
    scores, again = metrics.score(clip, noisy(clip)), metrics.score(clip, noisy(clip))
    assert scores == again
    assert scores["estoi"] < scores["stoi"] < 0.99
    assert scores["lsd_4_7k5_db"] > 5
    assert scores["pesq_wb"] is None or scores["pesq_wb"] < 2.5


def test_log_spectral_distance_of_a_gain(clip):
    """White noise at half amplitude lies 6.02 dB lower in every bin of every frame."""
    white = 0.1 * np.random.default_rng(0).standard_normal(16000)
    assert metrics.lsd_4_7k5_db(white, white / 2) == pytest.approx(20 * np.log10(2), abs=1e-6)
    assert metrics.lsd_4_7k5_db(np.zeros(16000), white) == 0


def test_log_spectral_distance_by_the_formula(clip):
    """A plain transcription of the definition, loops and all."""
    clip = np.concatenate([clip[:16000], 0.002 * clip[16000:24000], clip[24000:32000]])
    degraded = noisy(clip, 0.001)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    spectra = [
        [np.abs(np.fft.rfft(window * x[i : i + 512])) ** 2 for i in range(0, len(x) - 511, 256)]
        for x in (clip.astype(float), degraded.astype(float))
    ]
    floor = 1e-6 * max(p.max() for p in spectra[0])
    loudest = max(p.sum() for p in spectra[0])
    distances = []
    for p, q in zip(*spectra, strict=True):
        if p.sum() >= loudest * 1e-4:
            bins = [10 * np.log10(max(p[k], floor)) - 10 * np.log10(max(q[k], floor)) for k in range(128, 241)]
            distances.append(np.sqrt(np.mean(np.square(bins))))
    assert len(distances) < len(spectra[0])
    assert metrics.lsd_4_7k5_db(clip, degraded) == pytest.approx(np.mean(distances), rel=1e-9)


@pytest.mark.parametrize(("removed", "lowest", "highest"), [((3400, 8000), 30, 60), ((0, 3400), 0, 0.1)])
def test_it_hears_the_upper_band_alone(removed, lowest, highest):
    """White noise low-passed at 3.4 kHz is far away, high-passed there it is as good as equal."""
    white = 0.1 * np.random.default_rng(0).standard_normal(16000)
    spectrum = np.fft.rfft(white)
    spectrum[removed[0] : removed[1]] = 0
    assert lowest <= metrics.lsd_4_7k5_db(white, np.fft.irfft(spectrum, 16000)) <= highest


def test_absent_packages_give_none_and_say_so_once(clip, monkeypatch, caplog):
    monkeypatch.setattr(metrics.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    metrics._optional.cache_clear()
    try:
        assert metrics.pesq_wb(clip, clip) is None
        assert metrics.pesq_wb(clip, clip) is None
        assert metrics.plcmos(clip) is None
        assert [record.getMessage().split()[0] for record in caplog.records] == ["pesq", "speechmos.plcmos"]
    finally:
        metrics._optional.cache_clear()


@pytest.mark.parametrize(
    ("reference", "degraded", "message"),
    [
        (np.zeros(16000), np.zeros(16001), "equal length"),
        (np.zeros((2, 16000)), np.zeros((2, 16000)), "mono"),
        (np.zeros(100), np.zeros(100), "half a second"),
        (np.zeros(16000), np.full(16000, np.nan), "finite"),
    ],
)
def test_wrong_clips_are_refused(reference, degraded, message):
    with pytest.raises(ValueError, match=message):
        metrics.lsd_4_7k5_db(reference, degraded)


def test_plcmos_is_a_mean_opinion(clip):
    score = metrics.plcmos(clip)
    if score is None:
        pytest.skip("speechmos is not installed")
    assert 3 < score < 5
    gap = clip.copy()
    for start in range(8000, 60000, 4000):
        gap[start : start + 960] = 0
    assert metrics.plcmos(gap) < score - 0.5
    # What is far below a bit of 16 is not heard.
    trace = gap + 1e-7 * np.random.default_rng(0).normal(size=gap.size)
    assert metrics.plcmos(trace) == metrics.plcmos(np.round(32768 * gap) / 32768)


def test_word_edits():
    assert asr.words("He's NOT an ill-disposed man.") == ["he's", "not", "an", "ill", "disposed", "man"]
    assert asr.word_edits(["a", "b", "c", "d"], ["a", "x", "c"]) == 2
    assert asr.word_edits([], ["a"]) == 1
    assert asr.word_edits(["a", "b"], []) == 2


def test_words_of_the_demo_clip():
    if not asr.available():
        pytest.skip("no recogniser")
    text = (
        "and mister john dashwood had then leisure to consider how much there might be prudently in his power to do "
        "for them he was not an ill disposed young man"
    )
    pcm = decode(demo_clip_path())
    assert asr.word_error_rate(text, pcm) < 0.15
    assert asr.word_error_rate(pcm, pcm) == 0
