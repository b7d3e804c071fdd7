"""The training loop for real, two steps long: logs, checkpoints, resuming, many devices; then export and restore."""

import csv
import json
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import write_prepared
from flax import nnx
from jax.sharding import Mesh

from jdred import weights
from jdred.config import FitConfig, PredictorConfig, RDOVAEConfig, TrainConfig
from jdred.models import TABLES, load_rdovae
from jdred.plc.predictor import Predictor
from jdred.rdovae.deploy import deploy
from jdred.training import checkpoint, export, loop
from jdred.training.corpus import Prepared
from jdred.training.plc import PLCSettings, PLCTask
from jdred.training.rdovae import RDOVAESettings, RDOVAETask
from jdred.training.run import evaluate, make_task, restore_task, train
from jdred.weights import CheckpointError

MODEL = RDOVAEConfig(latent_dim=4, state_dim=3, blocks=1, encoder_width=6, encoder_gru=4, encoder_conv=4,
                     decoder_width=6, decoder_gru=4, decoder_conv=4, state_hidden=4)  # fmt: skip
SETTINGS = RDOVAESettings(model=MODEL, batch=2, frames=24, warmup_steps=1, validation_sequences=2,
                          validation_levels=(0, 12))  # fmt: skip
FIT = FitConfig(total_steps=2, log_every=1, validate_every=1, checkpoint_every=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("train-0", "train-1", "validation")):
        write_prepared(folder / name, seed)
    return folder


@pytest.fixture(scope="module")
def task(data):
    return make_task("rdovae", data, SETTINGS)


@pytest.fixture(scope="module")
def run(task, tmp_path_factory):
    """An uninterrupted run of two steps and the figures it returned."""
    folder = tmp_path_factory.mktemp("run")
    return folder, loop.fit(task, folder, FIT)


@pytest.fixture(scope="module")
def first(task):
    """The arrays before the first step."""
    return weights.flatten(task.init(FIT.seed))


def read_csv(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def restored(folder: Path, task) -> dict:
    with closing(checkpoint.open_folder(folder / "checkpoints")) as saver:
        return checkpoint.load(saver, loop.abstract_state(task))[0]


def assert_equal(got, wanted, **tolerance) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **(tolerance or {"rtol": 0, "atol": 1e-6})), got, wanted)


def test_fit_trains_and_leaves_logs_weights_and_checkpoints(first, run):
    folder, figures = run
    train, validation = read_csv(folder / "train.csv"), read_csv(folder / "validation.csv")
    assert [row["step"] for row in train] == [row["step"] for row in validation] == [1, 2]
    assert {"loss", "distortion", "latent_bits", "state_bits", "gradient_norm"} <= train[0].keys()
    assert figures == pytest.approx({k: v for k, v in validation[-1].items() if k != "step"})
    arrays, config = weights.read(folder / "best.npz")
    assert config["kind"] == "rdovae"
    assert config["loss"] == min(row["loss"] for row in validation)
    assert all(np.any(arrays[name] != first[name]) for name in first)


def test_average_is_of_the_arrays(task, first, run):
    """After two steps from a: 0.1 a + 0.9 x1, then 2/11 of that and 9/11 x2 (the decay starts as of a plain mean)."""
    state = restored(run[0], task)
    with closing(checkpoint.open_folder(run[0] / "checkpoints")) as saver:
        one = saver.load_checkpointables(1, {"state": loop.abstract_state(task)})["state"]
    for name, last in state["arrays"].items():
        mean = 0.1 * first[name] + 0.9 * one["arrays"][name]
        np.testing.assert_allclose(state["ema"][name], 2 / 11 * mean + 9 / 11 * last, atol=1e-5)


@dataclass(frozen=True)
class Killed(RDOVAETask):
    """Dies after the first step, for want of a second batch."""

    def batch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        if rng.bit_generator.state == np.random.default_rng([FIT.seed, 1, 0]).bit_generator.state:
            raise KeyboardInterrupt
        return super().batch(rng)


def test_a_killed_run_resumes_at_its_step(task, run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        loop.fit(Killed(task.train, task.validation, SETTINGS), tmp_path, FIT)
    assert [row["step"] for row in read_csv(tmp_path / "train.csv")] == [1]
    loop.fit(task, tmp_path, FIT)
    assert [row["step"] for row in read_csv(tmp_path / "train.csv")] == [1, 2]
    assert_equal(restored(tmp_path, task), restored(run[0], task))
    assert_equal(weights.read(tmp_path / "best.npz")[0], weights.read(run[0] / "best.npz")[0])


def test_a_finished_run_is_left_alone(task, run):
    before = read_csv(run[0] / "train.csv")
    assert loop.fit(task, run[0], FIT) == {}
    assert read_csv(run[0] / "train.csv") == before


@pytest.mark.parametrize("change", [{"latent_dim": 5}, {"blocks": 2}], ids=["shape", "arrays"])
def test_checkpoint_of_another_model_is_refused(task, run, change):
    other = replace(task, settings=replace(SETTINGS, model=replace(MODEL, **change)))
    with pytest.raises(CheckpointError, match="does not fit"):
        loop.fit(other, run[0], FIT)


def test_initial_weights_must_fit(task, first, tmp_path):
    arrays = {k: np.asarray(v) for k, v in first.items()}
    arrays["encoder/input/kernel"] = arrays["encoder/input/kernel"][:-1]
    with pytest.raises(CheckpointError, match=r"encoder/input/kernel has shape \(39, 6\), expected \(40, 6\)"):
        loop.fit(task, tmp_path, FIT, initial=arrays)


def test_evaluation_of_a_checkpoint_repeats_its_validation(data, run):
    figures = evaluate(run[0], data)
    assert figures.pop("step") == 2
    assert figures == pytest.approx(run[1], rel=1e-5)


def test_evaluation_needs_a_run(data, tmp_path):
    with pytest.raises(CheckpointError, match="found no such folder"):
        evaluate(tmp_path, data)
    assert not list(tmp_path.iterdir())
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        evaluate(tmp_path, data)


def test_settings_survive_json(task, data):
    assert restore_task(json.loads(json.dumps(task.config())), data).settings == SETTINGS


def test_batches_depend_on_seed_and_step_only(task):
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    early, late = loop.batches(task, 3, 0, mesh), loop.batches(task, 3, 1, mesh)
    first, second = next(early), next(early)
    assert_equal(next(late), second)
    assert any(np.any(first[k] != second[k]) for k in first)
    early.close()
    late.close()


TWO_DEVICES = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from jax.sharding import Mesh
from jdred import weights
from jdred.training import checkpoint, loop
from test_training import plc_task
task = plc_task(sys.argv[1])
optimizer, template = task.optimizer(10), weights.abstract(lambda: task.init(0))
ends = []
for devices in (1, 2):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    step = loop.make_train_step(task, template, optimizer, mesh, 0.9)
    state = loop.first_state(weights.flatten(task.init(0)), optimizer)
    for _, batch in zip(range(2), loop.batches(task, 0, 0, mesh)):
        state, figures = step(state, batch, jax.random.key(0))
    ends.append(jax.tree.map(np.asarray, (state, figures)))
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *ends)
saver = checkpoint.open_folder(sys.argv[2])
checkpoint.save(saver, 2, state, {"config": task.config(), "best": 0.0})
saver.close()
print("equal on", jax.device_count(), "devices")
"""


def plc_task(data: str) -> PLCTask:
    settings = PLCSettings(model=PredictorConfig(width=4, gru=4), batch=4, frames=12)
    return PLCTask(Prepared(Path(data) / "train-0"), Prepared(Path(data) / "validation"), settings)


ENDLESS = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from jdred.training import loop
from jdred.training.plc import PLCTask
from test_training import LONGER, plc_task

class Endless(PLCTask):
    def batch(self, rng):
        if rng.bit_generator.state == np.random.default_rng([LONGER.seed, 4, 0]).bit_generator.state:
            time.sleep(600)
        return super().batch(rng)

task = plc_task(sys.argv[1])
loop.fit(Endless(task.train, task.validation, task.settings), Path(sys.argv[2]), LONGER)
"""
LONGER = FitConfig(total_steps=6, log_every=1, validate_every=2, checkpoint_every=1)


def test_a_process_that_is_killed_resumes_as_if_it_had_not_been(data, tmp_path):
    """SIGKILL, as of a machine that goes away: nothing is flushed, the last checkpoint may be half written."""
    killed, whole, task = tmp_path / "killed", tmp_path / "whole", plc_task(str(data))
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(data), str(killed)], cwd=Path(__file__).parent)
    log, deadline = killed / "train.csv", time.monotonic() + 120
    try:
        while not log.is_file() or len(read_csv(log)) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    done = [row["step"] for row in read_csv(log)]
    figures = loop.fit(task, killed, LONGER)
    assert figures == pytest.approx(loop.fit(task, whole, LONGER), rel=1e-5)
    assert_equal(restored(killed, task), restored(whole, task))
    # The step that was logged but had no checkpoint yet is repeated; no step is left out.
    steps = [row["step"] for row in read_csv(log)]
    assert steps[len(done) :][0] in (done[-1], done[-1] + 1)
    assert sorted(set(steps)) == [1, 2, 3, 4, 5, 6]


def test_two_devices_train_as_one_and_their_checkpoint_restores_on_one(data, tmp_path):
    command = [sys.executable, "-c", TWO_DEVICES, str(data), str(tmp_path / "checkpoints")]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "equal on 2 devices", done.stderr[-2000:]
    assert restored(tmp_path, plc_task(data))["step"] == 2
    assert np.isfinite(evaluate(tmp_path, data)["loss"])


# Weight files


def small_predictor() -> Predictor:
    rng = np.random.default_rng(0)
    template = weights.abstract(lambda: Predictor(PredictorConfig(width=4, gru=3), rngs=nnx.Rngs(0)))
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), template)


def test_weights_round_trip(tmp_path):
    model = small_predictor()
    weights.write(tmp_path / "a.npz", weights.flatten(model), {"kind": "plc"}, half=False)
    arrays, config = weights.read(tmp_path / "a.npz")
    assert config == {"kind": "plc"}
    assert_equal(weights.unflatten(model, arrays), model, rtol=0)
    weights.write(tmp_path / "b.npz", {"x": np.float32([1 / 3]), "n": np.uint8([7])}, {})
    arrays, _ = weights.read(tmp_path / "b.npz")
    assert arrays["x"].dtype == np.float32
    assert arrays["x"][0] == np.float16(1 / 3)
    assert arrays["n"].dtype == np.uint8
    assert not list(tmp_path.glob("*.tmp*"))


def test_wrong_arrays_are_named():
    model = small_predictor()
    arrays = weights.flatten(model)
    with pytest.raises(CheckpointError, match=r"f: first/kernel has shape \(4, 8\), expected \(4, 9\)"):
        weights.check(model, arrays | {"first/kernel": np.zeros((4, 8))}, "f")
    with pytest.raises(CheckpointError, match=r"missing arrays \['dense_in/bias'\], unknown arrays \['bias'\]"):
        weights.check(model, {k.replace("dense_in/bias", "bias"): v for k, v in arrays.items()}, "f")


def test_damaged_weight_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no weights at"):
        weights.read("no-such-model")
    weights.write(tmp_path / "a.npz", {"x": np.zeros(1000, np.float32)}, {})
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (b"", b"text renamed", whole[: len(whole) // 2]):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(CheckpointError, match="is not a jdred weight file"):
            weights.read(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(whole)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not a jdred weight file"):
        weights.read(tmp_path / "a.npz")


# Export


def test_export_ships_the_deployed_model(task, run, data, tmp_path):
    path = export.export(run[0], "rdovae", "tiny", notes="## Test\n\nNothing.", folder=tmp_path)
    stored = np.load(path)
    assert {a.dtype for a in stored.values()} == {np.dtype(np.float16), np.dtype(np.uint8)}
    rdovae, tables = load_rdovae(str(path))
    arrays, _ = weights.read(run[0] / "best.npz")
    template = weights.abstract(lambda: task.init(0))
    model, wanted = deploy(weights.unflatten(template, {k: jnp.asarray(v) for k, v in arrays.items()}))
    assert_equal(tables, wanted, rtol=0)
    assert_equal(weights.flatten(rdovae), weights.flatten(model), rtol=1e-3, atol=1e-6)
    _, config = weights.read(path)
    assert (config["kind"], config["training"]["step"]) == ("rdovae", 2)
    text = path.with_suffix(".md").read_text()
    for words in ("# tiny", "2 steps", "| festvox-ru | ru | BSD-like |", "| loss |", "## Test\n\nNothing."):
        assert words in text
    changes = export.compare_validation(path, run[0], "rdovae", data)
    assert changes["loss"][1] == pytest.approx(changes["loss"][0], rel=0.01)


def test_training_goes_on_from_shipped_weights_at_their_sizes(run, data, tmp_path):
    shipped = export.export(run[0], "rdovae", "tiny", folder=tmp_path)
    fit = FitConfig(total_steps=1, log_every=1, validate_every=1, checkpoint_every=1)
    config = TrainConfig(
        data=data, out=tmp_path / "more", fit=fit, start_from=str(shipped), learning_rate=1e-9, batch=2
    )
    train("rdovae", config, replace(SETTINGS, model=RDOVAEConfig()))
    arrays, stored = weights.read(config.out / "best.npz")
    before, _ = weights.read(shipped)
    assert_equal(arrays, {k: v for k, v in before.items() if not k.startswith(TABLES)}, atol=1e-5)
    assert (stored["settings"]["batch"], stored["settings"]["loss"]["latent_ramp_steps"]) == (2, 0)
    with pytest.raises(CheckpointError, match="expected weights of kind rdovae, found plc"):
        train("rdovae", replace(config, out=tmp_path / "wrong", start_from="plc"))


def test_training_weights_load_deployed(run):
    rdovae, tables = load_rdovae(str(run[0] / "best.npz"))
    assert tables.latent_p0.shape == (16, rdovae.config.latent_dim)


def test_weights_without_or_with_unknown_sizes_are_refused(run, tmp_path):
    arrays, config = weights.read(run[0] / "best.npz")
    for sizes in ({}, {"model": {"no_such_size": 3}}):
        weights.write(tmp_path / "x.npz", arrays, {"kind": config["kind"], **sizes})
        with pytest.raises(CheckpointError, match="expected the sizes of a RDOVAEConfig"):
            load_rdovae(str(tmp_path / "x.npz"))


def test_export_refuses_the_wrong_kind(run, tmp_path):
    with pytest.raises(CheckpointError, match="expected weights of kind 'plc', found 'rdovae'"):
        export.export(run[0], "plc", "x", folder=tmp_path)
    with pytest.raises(CheckpointError, match="no weights at"):
        export.export(tmp_path, "plc", "x", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_licences_cover_all_training_data():
    used = {package for package, parts in export.LANGUAGES.items() if export.TRAIN in parts}
    assert used <= export.LICENCES.keys()


def test_hours_are_those_of_the_log(tmp_path):
    assert export.hours(tmp_path) is None
    (tmp_path / "train.csv").write_text("step,seconds_per_step\n100,18\n300,9\n")
    assert export.hours(tmp_path) == 1.0
