"""Weights between a run's start and its end."""

import json

import numpy as np
import pytest

from jdred import weights
from jdred.training.interpolation import interpolate
from jdred.weights import CheckpointError

CONFIG = {"kind": "fargan", "task": "adversarial", "model": {"first": 8}, "settings": {"batch": 2}, "step": 7}


@pytest.fixture
def run(tmp_path):
    """A run's folder, and the weights that it started from beside it."""
    start = tmp_path / "start.npz"
    weights.write(start, {"a": np.array([1.0, 2.0])}, {"kind": "fargan", "model": {"first": 8}}, half=False)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "train.csv").write_text("step,seconds_per_step\n7,1.0\n")
    arrived = {"a": np.array([3.0, -2.0])}
    weights.write(folder / "best.npz", arrived, CONFIG | {"start_from": str(start), "loss": 0.1}, half=False)
    return folder


def test_the_weights_are_so_far_on_the_way_and_say_so(run, tmp_path):
    interpolate(run, tmp_path / "out", 0.25)
    arrays, config = weights.read(tmp_path / "out" / "best.npz")
    np.testing.assert_allclose(arrays["a"], [1.5, 1.0])
    assert config == CONFIG | {"start_from": str(tmp_path / "start.npz"), "share": 0.25}
    assert (tmp_path / "out" / "train.csv").read_text() == (run / "train.csv").read_text()


def test_a_task_that_has_the_name_of_its_kind_says_nothing_of_it(run, tmp_path):
    path = run / "best.json"
    config = json.loads(path.read_text())
    del config["task"]
    path.write_text(json.dumps(config))
    interpolate(run, tmp_path / "out", 1.0)
    arrays, found = weights.read(tmp_path / "out" / "best.npz")
    np.testing.assert_array_equal(arrays["a"], [3, -2])
    assert "task" not in found


def test_what_has_no_start_or_another_one_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="share of 0 .. 1, found 2"):
        interpolate(run, tmp_path / "out", 2)
    path = run / "best.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"model": {"first": 9}}))
    with pytest.raises(CheckpointError, match="to have the sizes of"):
        interpolate(run, tmp_path / "out", 0.5)
    del config["start_from"]
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="expected a run that started from weights"):
        interpolate(run, tmp_path / "out", 0.5)
    with pytest.raises(CheckpointError, match="expected a training run, found no best.npz"):
        interpolate(tmp_path, tmp_path / "out", 0.5)
    assert not (tmp_path / "out").exists()
