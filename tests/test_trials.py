"""The workbench of the experiments: traces by clip and kind, what is sent once, what a row says."""

import numpy as np
import pytest

from jdred.assets import demo_clip_path
from jdred.config import PACKET_SAMPLES, ReceiverConfig, SenderConfig
from jdred.evaluation import budget, trials
from jdred.evaluation.clips import read_clip
from jdred.evaluation.compare import stock_call
from jdred.link.channel import write_trace
from jdred.link.plan import Split


@pytest.fixture
def staff(models, monkeypatch):
    monkeypatch.setattr(trials, "_models", lambda parts: models)
    return trials.Workers(trials.Parts(), None)


@pytest.fixture(scope="module")
def stage():
    pcm = read_clip(demo_clip_path())[8000 : 8000 + 30 * PACKET_SAMPLES]
    bursts, single = np.zeros(40, np.uint8), np.zeros(40, np.uint8)
    bursts[[10, 11, 12, 13, 22, 23]], single[[10, 20, 25]] = 1, 1
    traces = {"bursts": {"a": bursts, "b": bursts[::-1]}, "single": {"a": single}}
    return trials.bench({"a": pcm, "b": pcm[::-1].copy()}, traces)


def test_traces_are_found_by_clip_and_kind(tmp_path):
    for name in ("a_ge20", "a_rand10", "a_b_ge20", "c_ge20"):
        write_trace(tmp_path / f"{name}.txt", np.arange(4) % 2)
    found = trials.read_traces(tmp_path, ["a", "a_b"])
    assert {kind: sorted(by_clip) for kind, by_clip in found.items()} == {"ge20": ["a", "a_b"], "rand10": ["a"]}
    assert list(trials.read_traces(tmp_path, ["a"], ["rand10"])) == ["rand10"]
    with pytest.raises(FileNotFoundError, match="of ge40 in"):
        trials.read_traces(tmp_path, ["a"], ["ge20", "ge40"])


def test_the_sender_is_told_the_loss_to_ten_percent_and_the_mean_gap():
    told = trials.bench({}, {"x": {"a": np.repeat([1, 0], [17, 83])}, "y": {"a": np.zeros(100)}}).told
    assert told == {"x": (0.2, 17 * 20), "y": (0.1, 0)}


def test_stock_trials_are_stock_calls(models, staff, stage):
    way = trials.Way("lbrr", SenderConfig(lbrr_bps=16_000, dred_duration_ms=0), stock=True)
    done = trials.run(stage, way, staff)
    assert [(trial.kind, trial.clip) for trial in done] == [("bursts", "a"), ("bursts", "b"), ("single", "a")]
    config = SenderConfig(lbrr_bps=16_000, expected_loss=stage.told["bursts"].loss)
    alone = stock_call(stage.clips["b"], stage.traces["bursts"]["b"], models, config)
    np.testing.assert_array_equal(done[1].pcm, alone.pcm)
    assert done[1].sources == alone.sources
    assert done[1].sent.total_kbps == pytest.approx(alone.total_kbps)


def test_rows_say_what_was_lost_and_how_it_was_repaired(staff, stage):
    way = trials.Way("dred", SenderConfig(dred_duration_ms=120))
    done = trials.run(stage, way, staff)
    rows = trials.measure(stage, done, {}, staff)
    assert [(row["config"], row["kind"], row["clip"]) for row in rows][1:] == [
        ("dred", "bursts", "b"),
        ("dred", "single", "a"),
    ]
    assert rows[0]["loss"] == 6 / 31
    assert rows[0]["share_lost_by_dred"] == 1
    assert rows[0]["dred_kbps"] > 1
    assert 0 < rows[0]["estoi"] < 1
    clean = trials.run(stage, trials.Way("clean", SenderConfig(dred_duration_ms=0), lossless=True), staff)
    clean_rows = trials.measure(stage, clean + trials.originals(stage), {}, staff)
    assert clean_rows[0]["estoi"] > rows[0]["estoi"]
    assert [row["loss"] for row in clean_rows] == [0] * 4
    assert clean_rows[2]["estoi"] == pytest.approx(1, abs=1e-3)
    assert clean_rows[2]["total_kbps"] == 256


def test_streams_apart_and_side_by_side_agree(staff, stage):
    """Without splicing both paths play the same; a path that drops or swaps trials would not."""
    way, config = trials.Way("neural_plc", SenderConfig(dred_duration_ms=0)), ReceiverConfig(splice=False)
    together = trials.run(stage, way, staff, config)
    for trial in together:
        stream = trials._arrived(stage, trial.sent, trial.kind, trial.clip)
        alone = trials._receive(staff.parts, stream, config)
        assert alone.sources == trial.sources
        size = len(trial.pcm)
        np.testing.assert_allclose(alone.pcm[trial.sent.delay_samples :][:size], trial.pcm, atol=2e-4)
    spliced = trials.run(stage, way, staff, ReceiverConfig(splice=True))
    assert [(t.kind, t.clip, t.sources) for t in spliced] == [(t.kind, t.clip, t.sources) for t in together]


def test_word_errors_where_words_are_expected(monkeypatch, stage):
    monkeypatch.setattr(trials.asr, "transcribe", lambda pcm: ["the", "cat"])
    scores = trials.score(stage.clips["a"], stage.clips["a"], ["the", "black", "cat"])
    assert (scores["word_errors"], scores["words"]) == (1, 3)
    assert "words" not in trials.score(stage.clips["a"], stage.clips["a"], None)


def test_jobs_are_shared_out_in_order():
    with trials.workers(trials.Parts(), 2) as staff:
        assert staff.map(divmod, [(n, 3) for n in range(7)], "dividing") == [divmod(n, 3) for n in range(7)]


def test_means_pair_clips_of_one_kind():
    figures = {("x", "a"): (1.0, 3.0), ("x", "b"): (2.0, 5.0), ("y", "a"): (4.0, 4.0)}
    rows = [
        {"clip": clip, "kind": kind, "config": config, "estoi": pair[n], "words": 10 if clip == "a" else None,
         "word_errors": n if clip == "a" else None}
        for n, config in enumerate(("plain", "better")) for (kind, clip), pair in figures.items()
    ]  # fmt: skip
    means = trials.summarise(rows, "plain")
    assert [(row["kind"], row["config"]) for row in means] == [(k, c) for k in "xy" for c in ("plain", "better")]
    better = means[1]
    assert (better["clips"], better["estoi"], better["wer"], better["words"]) == (2, 4.0, 0.1, 10)
    assert better["se_estoi"] == pytest.approx(np.std([2, 3], ddof=1) / 2**0.5)
    assert means[0]["se_estoi"] == 0


def test_the_peer_stands_beside_the_configuration_it_is_like(tmp_path):
    (tmp_path / "means.csv").write_text(
        "clip_set,trace,config,realised_loss,estoi,wer\nall,x,deep24,0.2,0.8,0.1\nlt,x,deep24,0.2,0.7,\n"
    )
    (tmp_path / "clips.csv").write_text(
        "clip,trace,config,lossrate,estoi,words,word_edits\n"
        "a,x,deep24,0.2,0.5,10,1\nb,x,deep24,0.3,0.6,10,3\nc,x,deep24,0.2,0.9,,\n"
    )
    ours = [{"kind": "x", "config": config, "estoi": 0.9} for config in ("neural_plc", "dred")]
    for file, figures in {"means": (0.8, 0.2, 0.1), "clips": (0.55, 0.25, 0.2)}.items():
        peer = trials.read_peer(tmp_path / f"{file}.csv", ["a", "b"])
        alike = trials.like_ours(peer, {"neural_plc": "deep24", "dred": "dred40"})
        rows = trials.beside(ours, alike)
        assert [row["config"] for row in rows] == ["neural_plc", "libopus deep24", "dred"]
        assert tuple(rows[1][name] for name in ("estoi", "loss", "wer")) == pytest.approx(figures)


def test_each_kind_of_trace_may_have_its_own_sender(staff, stage):
    plain = SenderConfig(dred_duration_ms=0)
    way = trials.Way("x", {"bursts": SenderConfig(dred_duration_ms=80), "single": plain})
    rates = {kind: sent.dred_kbps for (kind, clip), sent in trials.send_all(stage, way, staff).items() if clip == "a"}
    assert rates["bursts"] > rates["single"] == 0


def test_equal_totals(staff, stage):
    """Whatever the split, as much is sent as plain Opus takes."""
    wanted, _ = budget.mean_kbps(stage, SenderConfig(bitrate_bps=40_000, dred_duration_ms=0), staff)
    splits = {"bursts": Split("dred", 9, 3, 80), "single": Split("lbrr")}
    for kind, sender in budget.at_total_by_kind(stage, 40, splits, staff).items():
        total, dred = budget.mean_kbps(stage, sender, staff)
        assert total == pytest.approx(wanted, rel=0.04)
        assert (dred > 0) == (kind == "bursts")
        assert (sender.lbrr_bps > 0) == (kind == "single")
    with pytest.raises(ValueError, match="less than Opus needs"):
        budget.at_total(stage, 12, Split("dred", 0, 0, 520), staff)


def test_the_best_of_a_total_and_what_a_sender_chooses():
    stage = trials.Bench({}, {}, {"x": trials.Told(0.2, 25.0)})
    rows = [
        {"clip": "a", "kind": "x", "config": f"{kind} 40", "asked_kbps": 40, "estoi": estoi, "wer": wer}
        for kind, estoi, wer in (("lbrr", 0.8, 0.3), ("dred", 0.7, 0.1), ("dred_lbrr", 0.75, 0.2))
    ]
    again = budget.chosen(stage, rows)
    assert [row["config"] for row in again] == ["chosen 40"]
    (told,) = budget.best(rows + again)
    chosen = {"lbrr": 0.8, "dred": 0.7, "dred_lbrr": 0.75}[told["chosen"]]
    assert told | {"behind_estoi": 0} == {"kind": "x", "asked_kbps": 40, "estoi": "lbrr", "wer": "dred",
                                          "chosen": told["chosen"], "behind_estoi": 0}  # fmt: skip
    assert told["behind_estoi"] == pytest.approx(0.8 - chosen)
