"""Corpus: which files go where, what is done to them, and that training reads aligned crops."""

import shutil

import numpy as np
import pytest
import soundfile

from jdred.models import load_extractor
from jdred.progress import track
from jdred.training import corpus as corpus_module
from jdred.training import prepare as prepare_module
from jdred.training import sources
from jdred.training.audio import AudioError, active_frames, decode, speech, to_int16
from jdred.training.corpus import Corpus, Prepared, build
from jdred.training.sources import Utterance, cache_folder, fetch, scan_folder, scan_packages

RATE = 16000


def tone(seconds, frequency=300.0, rate=RATE, level=0.1):
    time = np.arange(int(seconds * rate)) / rate
    return level * np.sin(2 * np.pi * frequency * time)


def write(path, pcm, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, pcm, rate)
    return path


TREE = {
    "asterisk-core-sounds-en-g722/usr/share/asterisk/sounds/en_US_f_Allison/hello.g722": ("test", "asterisk-allison"),
    "asterisk-core-sounds-es-g722/usr/share/asterisk/sounds/es_MX_f_Allison/digits/1.g722": (
        "test",
        "asterisk-allison",
    ),
    "asterisk-core-sounds-it-g722/usr/share/asterisk/sounds/it_IT_m_Carlo/ciao.g722": ("validation", "asterisk-carlo"),
    "asterisk-core-sounds-fr-g722/usr/share/asterisk/sounds/fr_CA_f_June/letters/a.g722": ("train", "asterisk-june"),
    "asterisk-core-sounds-fr-g722/usr/share/asterisk/sounds/fr_CA_f_June/silence/1.g722": None,
    "festvox-ru/usr/wav/ru_0001.wav": ("train", "festvox-ru"),
    "tuxpaint-stamps-default/usr/stamps/frog_desc_el.ogg": ("validation", "tuxpaint-el"),
    "tuxpaint-stamps-default/usr/stamps/frog_desc_bg.ogg": ("train", "tuxpaint-bg"),
    "tuxpaint-stamps-default/usr/stamps/frog_desc_ro.ogg": None,
    "tuxpaint-stamps-default/usr/stamps/frog_desc.ogg": None,
    "tuxpaint-stamps-default/usr/stamps/frog.ogg": None,
    "klettres-data/usr/share/klettres/lt/alpha/a.ogg": ("test", "klettres-lt"),
    "klettres-data/usr/share/klettres/en_GB/alpha/a.ogg": None,
    "klettres-data/usr/share/klettres/de/syllab/a.ogg": None,
    "ktuberling-data/usr/share/ktuberling/sounds/sr/hat.ogg": ("train", "ktuberling-sr"),
    "ktuberling-data/usr/share/ktuberling/sounds/nds/hat.ogg": None,
    "hedgewars-data/usr/share/games/hedgewars/Data/Sounds/voices/Pirate/yes.ogg": ("train", "hedgewars-pirate"),
    "hedgewars-data/usr/share/games/hedgewars/Data/Sounds/voices/Default_pl/yes.ogg": ("train", "hedgewars-default_pl"),
    "hedgewars-data/usr/share/games/hedgewars/Data/Sounds/voices/Robot/yes.ogg": None,
    "hedgewars-data/usr/share/games/hedgewars/Data/Sounds/bang.ogg": None,
    "pocketsphinx-testdata/usr/share/librivox/a.wav": None,
}


@pytest.fixture
def tree(tmp_path):
    for name in TREE:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_split_by_speaker_and_language(tree):
    found = {u.path.relative_to(tree).as_posix(): (u.part, u.voice) for u in scan_packages(tree)}
    assert found == {name: label for name, label in TREE.items() if label}


def test_no_language_of_test_and_no_reserved_one_is_trained():
    """Spanish and English are read by the test voice too, but by other speakers in training."""
    for package, parts in sources.LANGUAGES.items():
        assert not {"ro", "de", "nds", "lt"} & set(parts.get("train", "").split() + parts.get("validation", "").split())
        named = " ".join(parts.values()).split()
        assert len(named) == len(set(named)), package


def test_copies_are_removed_before_splitting(tree):
    """One content under a reserved and a training language is not used; under test and training it is test."""
    stamps = tree / "tuxpaint-stamps-default/usr/stamps"
    for name, content in {"a_desc_ro": "one", "a_desc_ru": "one", "b_desc_lt": "two", "b_desc_fr": "two"}.items():
        (stamps / f"{name}.ogg").write_text(content)
    copies = tree / "ktuberling-data/usr/share/ktuberling/sounds"
    shutil.copytree(copies / "sr", copies / "sr@latin")
    found = {u.path.name: u.part for u in scan_packages(tree)}
    assert "a_desc_ru.ogg" not in found
    assert "a_desc_ro.ogg" not in found
    assert found["b_desc_lt.ogg"] == "test"
    assert "b_desc_fr.ogg" not in found
    assert found["hat.ogg"] == "train"


def test_any_folder(tmp_path):
    for i in range(60):
        write(tmp_path / ("anna" if i % 2 else "ben") / f"{i}.wav", tone(0.1, 200 + i))
    shutil.copy(tmp_path / "ben/0.wav", tmp_path / "ben/copy.wav")
    first, again = scan_folder(tmp_path, 0.2), scan_folder(tmp_path, 0.2)
    assert first == again
    assert len(first) == 60
    assert {u.voice for u in first} == {"anna", "ben"}
    assert 4 <= sum(u.part == "validation" for u in first) <= 20
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="expected audio files"):
        scan_folder(tmp_path / "empty")


def test_fetch_says_what_it_needs(tmp_path, monkeypatch):
    (tmp_path / "packages/there").mkdir(parents=True)
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    assert fetch(tmp_path, ["there"]) == tmp_path / "packages"
    with pytest.raises(RuntimeError, match="apt-get and dpkg"):
        fetch(tmp_path, ["there", "missing"])


def test_cache_folder_is_read_when_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("JDRED_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("JDRED_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "jdred")


def test_decode_resamples_and_mixes(tmp_path):
    """48 kHz stereo in which the channels cancel partly: amplitude (0.2 + 0.1) / 2, a third of the samples."""
    left = tone(0.5, rate=48000, level=0.2)
    pcm = decode(write(tmp_path / "a.wav", np.stack([left, left / 2], 1), 48000))
    assert pcm.dtype == np.float32
    assert len(pcm) == RATE // 2
    np.testing.assert_allclose(pcm[1000:7000], tone(0.5, level=0.15)[1000:7000], atol=2e-3)


@pytest.mark.parametrize("kind", ["text", "nothing", "no samples", "nan", "narrow"])
def test_unusable_files_say_why(tmp_path, kind):
    path = tmp_path / "a.wav"
    if kind == "text":
        path.write_text("this is no audio")
    elif kind == "nothing":
        path.write_bytes(b"")
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0), RATE)
    elif kind == "nan":
        soundfile.write(path, np.array([0.1, np.nan, 0.2]), RATE, subtype="FLOAT")
    else:
        soundfile.write(path, tone(0.2, rate=8000), 8000)
    with pytest.raises(AudioError, match=r"a\.wav: expected .* found"):
        decode(path)


def test_speech_is_cut_and_levelled():
    pause = np.zeros(RATE)
    pcm = np.concatenate([pause, tone(0.5, level=0.02), pause / 2, tone(0.5, level=0.02), pause])
    spoken = speech(pcm)
    # Two half seconds, the pause of a second between, 125 ms on both sides; frames of 20 ms blur the borders.
    assert abs(len(spoken) - 2.25 * RATE) <= 0.04 * RATE
    power, active = active_frames(spoken)
    assert 10 * np.log10(power[active].mean()) == pytest.approx(-23, abs=0.1)
    clicks = 1e-3 * np.random.default_rng(0).standard_normal(RATE)
    clicks[8000] = 1.0
    assert np.abs(speech(clicks)).max() <= 0.981
    with pytest.raises(AudioError, match="silence"):
        speech(pause)
    np.testing.assert_array_equal(to_int16(np.array([1.5, -1.5, 0.5])), [32767, -32768, 16384])


def utterances(folder, part="train", voices=3, each=4, seconds=0.5):
    """Tones whose frequency tells the voice."""
    return [
        Utterance(write(folder / part / f"{v}-{i}.wav", tone(seconds, 300 * (v + 1))), f"v{v}", "xx", "test", part)
        for v in range(voices)
        for i in range(each)
    ]


def test_build_counts_and_indexes(tmp_path):
    files = utterances(tmp_path) + utterances(tmp_path, "validation", voices=1)
    (tmp_path / "bad.wav").write_text("no")
    soundfile.write(tmp_path / "still.wav", np.zeros(RATE), RATE)
    files += [Utterance(tmp_path / name, "v0", "xx", "test", "train") for name in ("bad.wav", "still.wav")]
    counts = build(files, tmp_path / "out")
    assert counts["train"]["kept"] == 12
    assert sum(counts["train"].values()) == 14
    assert counts["validation"] == {"kept": 4}
    corpus = Corpus(tmp_path / "out")
    assert len(corpus) == 12
    assert set(corpus.voices) == {"v0", "v1", "v2"}
    assert corpus.minutes == pytest.approx(12 * 0.5 / 60, rel=0.1)
    power, active = active_frames(corpus[5])
    assert 10 * np.log10(power[active].mean()) == pytest.approx(-23, abs=0.1)
    with pytest.raises(FileNotFoundError, match="expected a built corpus"):
        Corpus(tmp_path / "out", "test")


def test_build_goes_on_after_an_interruption(tmp_path, monkeypatch):
    files = utterances(tmp_path)
    build(files, tmp_path / "whole")
    seen = []

    def failing(path):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(path)
        return decode(path)

    monkeypatch.setattr(corpus_module, "decode", failing)
    with pytest.raises(KeyboardInterrupt):
        build(files, tmp_path / "out")
    # The machine died in the middle of a line and of an utterance.
    with (tmp_path / "out/train.partial.jsonl").open("a") as file:
        file.write('{"voice": "v1", "sta')
    with (tmp_path / "out/train.partial.raw").open("ab") as file:
        file.write(b"123")
    again = []
    monkeypatch.setattr(corpus_module, "decode", lambda path: again.append(path) or decode(path))
    build(files, tmp_path / "out")
    assert len(again) == 12 - 5
    np.testing.assert_array_equal(np.load(tmp_path / "out/train.npy"), np.load(tmp_path / "whole/train.npy"))
    assert (tmp_path / "out/train.json").read_text() == (tmp_path / "whole/train.json").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train.json", "train.npy"]


@pytest.fixture
def built(tmp_path):
    build(utterances(tmp_path) + utterances(tmp_path, "validation", voices=2, each=3), tmp_path / "corpus")
    return tmp_path / "corpus"


def frequency(pcm):
    return np.argmax(np.abs(np.fft.rfft(pcm))) * RATE / len(pcm)


@pytest.mark.parametrize("samples", [1600, 30000])
def test_crops_are_of_one_voice(built, rng, samples):
    corpus = Corpus(built)
    for _ in range(6):
        pcm = corpus.crop(rng, samples)
        assert pcm.shape == (samples,)
        assert pcm.dtype == np.float32
        third = samples // 3
        assert frequency(pcm[:third]) == pytest.approx(frequency(pcm[-third:]), abs=50)


def test_no_voice_dominates(tmp_path, rng):
    """A voice ten times as long as the other comes half the time when both pass the cap."""
    files = utterances(tmp_path / "a", voices=1, each=20) + [
        Utterance(write(tmp_path / f"{i}.wav", tone(0.5, 900)), "rare", "xx", "test", "train") for i in range(2)
    ]
    build(files, tmp_path / "out")
    corpus = Corpus(tmp_path / "out")
    rare = np.mean([frequency(corpus.crop(rng, 1600, cap_minutes=0.01)) > 600 for _ in range(200)])
    assert 0.4 < rare < 0.6
    assert corpus.epoch_minutes(0.01) == pytest.approx(0.02)
    assert np.mean([frequency(corpus.crop(rng, 1600, cap_minutes=60)) > 600 for _ in range(200)]) < 0.25


def test_blocks_hold_everything_once(built):
    corpus = Corpus(built, "validation")
    blocks = np.stack(list(corpus.blocks(8000)))
    assert np.sum(blocks**2) == pytest.approx(sum(np.sum(corpus[i] ** 2) for i in range(len(corpus))), rel=1e-4)


def analyse(pcm, frames=50):
    """Features and Burg rows of some int16 PCM by the program that ``prepare`` compiled, so nothing else compiles."""
    batch = np.zeros((prepare_module.BATCH, frames * 160), np.int16)
    batch[: len(pcm), : pcm.shape[1]] = pcm
    rows = pcm.shape[1] // 160
    return tuple(np.asarray(part)[: len(pcm), :rows] for part in prepare_module.analyse(batch))


def test_prepare_writes_aligned_features_and_resumes(built, tmp_path, rng, monkeypatch):
    folders = prepare_module.prepare(built, tmp_path / "whole", passes=2, sequence_frames=50)
    assert [folder.name for folder in folders] == ["validation", "train-0", "train-1"]
    data = Prepared(*folders[1:])
    assert len(data) == 2 * int(Corpus(built).epoch_minutes() * 60 / 0.5)
    assert data.minutes == pytest.approx(len(data) * 0.5 / 60)
    last = data.sequence(len(data) - 1)
    features, burg = analyse(last["pcm"][None])
    np.testing.assert_array_equal(last["features"], features[0])
    np.testing.assert_array_equal(last["burg"], burg[0])
    assert not np.array_equal(data.sequence(0)["pcm"], data.sequence(len(data) // 2)["pcm"])

    crops = data.crops(rng, batch=4, frames=20, past=200)
    shapes = {name: array.shape for name, array in crops.items()}
    assert shapes == {"pcm": (4, 3400), "features": (4, 20, 20), "burg": (4, 20, 36)}
    features, burg = analyse(crops["pcm"][:, 200:])
    np.testing.assert_allclose(burg, crops["burg"], atol=1e-3)
    # The cepstrum of a row sees 320 samples and the one before them; the pitch remembers more.
    np.testing.assert_allclose(features[:, 2:, :18], crops["features"][:, 2:, :18], atol=2e-3)
    with pytest.raises(ValueError, match="at most 50 frames"):
        data.crops(rng, 1, 50, past=1)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "augment", _failing_augment(prepare_module.augment, calls=10))
        with pytest.raises(KeyboardInterrupt):
            prepare_module.prepare(built, tmp_path / "out", passes=2, sequence_frames=50)
    with pytest.raises(FileNotFoundError, match="complete"):
        Prepared(tmp_path / "out/train-0")
    prepare_module.prepare(built, tmp_path / "out", passes=2, sequence_frames=50)
    for name in ("train-0/pcm.npy", "train-1/features.npy", "validation/burg.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / "out" / name), np.load(tmp_path / "whole" / name))
    for other in ({"seed": 1}, {"extractor": load_extractor("pitch")}):
        with pytest.raises(ValueError, match="of another run"):
            prepare_module.prepare(built, tmp_path / "out", passes=2, sequence_frames=50, **other)


def _failing_augment(augment, calls):
    left = iter(range(calls))

    def failing(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return augment(*args)

    return failing


def test_progress_lines(capsys):
    assert list(track(range(3), "counting", 5, done=2, line_seconds=0)) == [0, 1, 2]
    assert capsys.readouterr().err.splitlines()[-1].startswith("counting: 5/5")


def test_bundled_demo():
    from jdred.assets import demo_clip_path, demo_trace_path

    pcm = decode(demo_clip_path())
    lost = np.array([int(line) for line in demo_trace_path().read_text().split()])
    assert len(pcm) == len(lost) * 320
    assert 0.18 <= lost.mean() <= 0.22
    assert not lost[:15].any()
    assert not lost[-3:].any()
    runs = np.array([len(run) for run in "".join(map(str, lost)).split("0") if run]) * 20
    assert runs.max() >= 400
    assert runs.mean() == pytest.approx(120, abs=15)
