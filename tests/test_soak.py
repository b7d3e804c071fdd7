"""The soak: a short one, and that it would complain."""

import numpy as np
import pytest
import soundfile

from jdred.assets import demo_clip_path
from jdred.evaluation.soak import SoakConfig, listed, soak, verdict


def test_a_short_call_with_everything(models):
    pcm, _ = soundfile.read(demo_clip_path(), dtype="float32")
    config = SoakConfig(restart_s=5.0, row_s=4.0)
    rows = list(soak(models, pcm[8000:40_000], 0.2, config))
    assert [row["seconds"] for row in rows] == [4, 8, 12]
    last = rows[-1]
    assert last["restarts"] == 2
    assert last["network_loss"] == pytest.approx(0.3, abs=0.1)
    assert min(last[name] for name in ("GOOD", "LBRR", "DRED", "PLC", "duplicate", "reordered")) > 0
    assert last["played"] == sum(last[name] for name in ("GOOD", "LBRR", "DRED", "PLC"))
    # 12 s less the playout delay, and what was lost before the first packet that came.
    assert 600 - 15 - 15 < last["played"] <= 600 - 15
    assert last["waiting"] <= 20
    assert last["unreadable"] == 0
    lines = []
    listed(rows, lines.append)
    table = np.genfromtxt(lines, delimiter=",", names=True)
    assert table["restarts"].tolist() == [0, 1, 2]


def test_what_grows_is_said():
    flat = [{"resident_mb": 500.0 + n % 2, "good_ms": 0.5, "lost_ms": 8.0, "waiting": 15} for n in range(20)]
    assert verdict(flat) == []
    assert verdict(flat[:1]) == []
    for name, words in (("resident_mb", "memory"), ("good_ms", "good_ms"), ("lost_ms", "lost_ms"), ("waiting", "wait")):
        grown = [row | {name: row[name] * (1 + 0.2 * n)} for n, row in enumerate(flat)]
        [complaint] = verdict(grown)
        assert words in complaint
