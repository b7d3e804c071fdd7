"""Timing: what the figures mean, and PyTorch's loop where it is installed."""

import numpy as np
import pytest

from jdred.config import FARGANConfig, LPCNetConfig
from jdred.evaluation import speed


def test_figures_of_calls():
    row = speed.row("x", [100.0, 200.0, 400.0], 150.0, 20, batch=2)
    assert row["p50_us"] == 200
    assert row["us_per_sample"] == pytest.approx(200 / 320)
    assert row["real_time"] == pytest.approx(100)
    assert (row["calls"], row["batch"], row["cpu_us"]) == (3, 2, 150)


def test_first_call_is_not_counted():
    calls = []
    row = speed.timed("x", lambda: calls.append(1) or np.zeros(1), 10, calls=7)
    assert row["calls"] == 7
    assert len(calls) == 9


def test_a_preset_speaks_a_batch(monkeypatch):
    small = FARGANConfig(condition=4, condition_dense=4, condition_conv=4, first=4, grus=(4, 4, 4), dense=4)
    monkeypatch.setitem(speed.PRESETS, "small", small)
    row = speed.vocoder_row("small", 3, np.zeros((2, 20)), calls=2)
    assert (row["item"], row["batch"]) == ("small", 3)
    assert row["us_per_sample"] == pytest.approx(row["p50_us"] / 480)


def test_loop_of_pytorch_says_samples():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from jdred.evaluation.torch_loop import sample_loop

    said = sample_loop(LPCNetConfig(gru_a=8, gru_b=4), batch=2, samples=5)()
    assert tuple(said.shape) == (2, 5)
    assert np.isfinite(said.numpy()).all()
