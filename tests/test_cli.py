"""Commands: what they write, and how they refuse."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import jdred.models
from jdred.assets import demo_clip_path
from jdred.cli import main
from jdred.config import ReceiverConfig
from jdred.evaluation import metrics
from jdred.evaluation.clips import read_clip, wav_bytes, written_whole
from jdred.evaluation.compare import CONFIGURATIONS

SECONDS = 1.5
FILES = {"report.html", "summary.json", *(f"{name}.wav" for name in CONFIGURATIONS)}


@pytest.fixture
def bare(monkeypatch, models):
    """Small untrained models, and no optional measures."""
    monkeypatch.setattr(jdred.models, "load", lambda name: models)
    monkeypatch.setattr(metrics, "_optional", lambda name: None)


@pytest.fixture
def speech(tmp_path):
    """A little of the demo clip at 48 kHz in stereo."""
    pcm, _ = soundfile.read(demo_clip_path(), start=16_000, frames=int(16_000 * SECONDS))
    path = tmp_path / "in put.wav"
    soundfile.write(path, np.repeat(pcm, 3)[:, None] * [1.0, 0.5], 48_000)
    return path


def test_help_comes_without_jax():
    code = (
        "import sys\nfrom jdred.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as leaving:\n    assert leaving.code == 0\n"
        "assert not {'jax', 'flax', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "simulate" in done.stdout


@pytest.mark.usefixtures("bare")
def test_simulate_writes_everything(speech, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    trace = tmp_path / "trace.txt"
    trace.write_text("".join("1" if 20 <= k < 26 or k == 40 else "0" for k in range(76)))
    assert main(["simulate", str(speech), "--trace", str(trace), "--out", str(out)]) == 0
    assert {path.name for path in out.parent.glob("*/*")} == FILES
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    for name in CONFIGURATIONS:
        sound = soundfile.info(out / f"{name}.wav")
        assert (sound.samplerate, sound.channels, sound.subtype) == (16_000, 1, "PCM_16")
        assert sound.frames == 16_000 * SECONDS
    summary = json.loads((out / "summary.json").read_text())
    check_summary(summary["configs"], packets=76, lost=7)
    assert summary["settings"]["models"] == "default"
    assert summary["settings"]["receiver"]["playout_delay_ms"] == ReceiverConfig().playout_delay_ms
    assert "dred_lbrr" in capsys.readouterr().out


def check_summary(configs, packets, lost):
    assert tuple(configs) == CONFIGURATIONS
    for name, config in configs.items():
        assert config["packets"] == sum(config["sources"].values()) == packets
        assert config["lost"] == packets - config["sources"]["GOOD"] == (0 if name == "original" else lost)
        assert 0 < config["estoi"] <= config["stoi"] + 0.3 <= 1.3
        assert config["pesq_wb"] is config["plcmos"] is None
    sources = {name: config["sources"] for name, config in configs.items()}
    assert sources["opus_plc"]["PLC"] == sources["dred"]["DRED"] == lost
    # Two packets follow a loss at once; whether both carry LBRR is the encoder's decision.
    copies = sources["lbrr"]["LBRR"]
    assert sources["dred_lbrr"]["LBRR"] == copies in (1, 2)
    assert sources["lbrr"]["PLC"] == sources["dred_lbrr"]["DRED"] == lost - copies
    core = configs["opus_plc"]["total_kbps"]
    assert 15 < core < 30
    for name in ("lbrr", "dred", "dred_lbrr"):
        config = configs[name]
        assert config["total_kbps"] == pytest.approx(core + config["lbrr_kbps"] + config["dred_kbps"])
        assert (config["lbrr_kbps"] > 3) == ("lbrr" in name)
        assert (config["dred_kbps"] > 0.5) == ("dred" in name)
    assert configs["dred"]["dred_kbps"] == pytest.approx(configs["dred_lbrr"]["dred_kbps"], rel=0.02)


def bad_file(folder, kind):
    path = folder / "bad.wav"
    if kind == "text":
        path.write_text("this is no sound")
    elif kind == "nothing in it":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        pcm = {"empty": np.zeros(0), "one sample": np.zeros(1), "NaN": np.full(16_000, np.nan)}[kind]
        soundfile.write(path, pcm, 16_000, subtype="FLOAT")
    return path


def refused(capsys, status, arguments):
    assert main(list(map(str, arguments))) == status
    complaint = capsys.readouterr().err
    assert complaint.startswith("jdred: ")
    assert complaint.count("\n") == 1
    return complaint


@pytest.mark.parametrize("kind", ["text", "nothing in it", "folder", "missing", "empty", "one sample", "NaN"])
def test_bad_sound_is_refused(tmp_path, capsys, kind):
    complaint = refused(capsys, 1, ["simulate", bad_file(tmp_path, kind), "--out", tmp_path / "out"])
    assert "bad.wav: expected" in complaint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trace", "absent.txt"], "absent.txt"),
        (["--loss", "1.5"], "loss"),
        (["--burst-ms", "-3"], "burst"),
        (["--models", "absent"], "absent"),
        (["--duration-ms", "2000"], "dred_duration_ms"),
        (["--bitrate-bps", "3"], "bitrate"),
        (["--level", "16"], "level"),
        (["--playout-delay-ms", "-20"], "playout_delay_ms"),
    ],
)
def test_bad_settings_are_refused(speech, tmp_path, capsys, monkeypatch, models, arguments, words):
    if "--models" not in arguments:
        monkeypatch.setattr(jdred.models, "load", lambda name: models)
    assert words in refused(capsys, 1, ["simulate", speech, "--out", tmp_path / "out", *arguments])
    assert [path.name for path in tmp_path.iterdir()] == [speech.name]


@pytest.mark.parametrize("text", ["", "0120", "\xff\xfe", "lost"])
def test_bad_trace_is_refused(speech, tmp_path, capsys, text):
    trace = tmp_path / "trace.txt"
    trace.write_text(text)
    assert "trace" in refused(capsys, 1, ["simulate", speech, "--trace", trace, "--out", tmp_path / "out"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Expected one of"),
        (["sing"], "sing"),
        (["demo", "--loud"], "--loud"),
        (["simulate", "--out", "x"], "Missing"),
        (["simulate", "a.wav", "--out", "x", "--loss", "much"], "much"),
        (["train", "wavenet", "--data", "x", "--out", "y"], "wavenet"),
    ],
)
def test_wrong_usage_is_one_line(capsys, arguments, words):
    assert words in refused(capsys, 2, arguments)


def test_out_that_is_a_file_is_refused_before_work(speech, capsys):
    assert "not a folder" in refused(capsys, 1, ["simulate", speech, "--out", speech])
    assert "not a folder" in refused(capsys, 1, ["demo", "--out", speech / "deeper"])


def test_nothing_half_written(tmp_path):
    def fail():
        with written_whole(tmp_path / "out") as folder:
            (folder / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_written_again_keeps_other_files(tmp_path):
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "a").write_text("old")
    with written_whole(tmp_path) as folder:
        (folder / "a").write_text("new")
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "notes").read_text() == "mine"


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_clips_of_any_rate(tmp_path, rate):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    soundfile.write(tmp_path / "a.flac", np.stack([tone, tone], 1), rate)
    clip = read_clip(tmp_path / "a.flac")
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(clip[800:-800], expected[800:-800], atol=2e-3)


def test_wav_is_16_bit(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.array([0.0, 0.5, 1.0, -1.0], np.float32)))
    samples, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert rate == 16_000
    assert samples.tolist() == [0, 16384, 32767, -32768]


def test_doctor(capsys, monkeypatch, models):
    from jdred.evaluation import doctor

    monkeypatch.setattr(doctor, "load", lambda name: models)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("python", "jax", "libopus", "devices", "pesq", "weights"))


def test_corpus_commands(speech, tmp_path, capsys):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    speech.rename(sounds / "a.wav")
    assert main(["corpus", "build", "--audio", str(sounds), "--out", str(tmp_path / "corpus")]) == 0
    assert "1 kept" in capsys.readouterr().out
    assert "fetch" in refused(capsys, 1, ["corpus", "build", "--cache", tmp_path, "--out", tmp_path / "corpus"])
    assert "prepare" in refused(capsys, 1, ["train", "plc", "--data", tmp_path, "--out", tmp_path / "run"])


def test_public_names():
    for name in jdred.__all__:
        assert getattr(jdred, name).__name__ == name
    assert list(jdred.__all__) == sorted(jdred.__all__)
    with pytest.raises(AttributeError, match="absent"):
        _ = jdred.absent
