"""One training loop for every model: data parallel over a mesh, resumable to the same step, logged to CSV."""

import csv
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from jdred import weights
from jdred.config import FitConfig
from jdred.training import Task, checkpoint


def make_train_step(task: Task, template: Any, optimizer: optax.GradientTransformation, mesh: Mesh, ema: float):
    """Compile ``(state, batch, key) -> (state, figures)``; loss and gradients are averaged over the mesh."""

    def local(arrays: dict[str, Array], batch: dict[str, Array], key: Array, step: Array):
        key = jax.random.fold_in(jax.random.fold_in(key, step), jax.lax.axis_index("data"))

        def loss(arrays):
            return task.loss(weights.unflatten(template, arrays), batch, key, step)

        (value, figures), gradient = jax.value_and_grad(loss, has_aux=True)(arrays)
        return jax.lax.pmean(({"loss": value, **figures}, gradient), "data")

    shared = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("data"), P(), P()), out_specs=P(), check_vma=False)

    @partial(jax.jit, donate_argnums=0)
    def step(state: dict[str, PyTree], batch: dict[str, Array], key: Array):
        figures, gradient = shared(state["arrays"], batch, key, state["step"])
        update, optimizer_state = optimizer.update(gradient, state["optimizer"], state["arrays"])
        arrays = optax.apply_updates(state["arrays"], update)
        # The average starts as a plain mean, so that the initial weights do not linger in it.
        decay = jnp.minimum(ema, (1 + state["step"]) / (10 + state["step"]))
        average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state["ema"], arrays)
        figures["gradient_norm"] = optax.tree.norm(gradient)
        new = {"arrays": arrays, "ema": average, "optimizer": optimizer_state, "step": state["step"] + 1}
        return new, figures

    return step


def batches(task: Task, seed: int, start: int, mesh: Mesh) -> Iterator[dict[str, Array]]:
    """Batches of steps ``start``, ``start + 1``, ...; each depends on seed and step only. One is made ahead."""
    sharding = NamedSharding(mesh, P("data"))

    def make(step: int) -> dict[str, Array]:
        host = task.batch(np.random.default_rng([seed, step, jax.process_index()]))
        return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in host.items()}

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(make, start)
        step = start
        while True:
            step += 1
            ready, ahead = ahead.result(), pool.submit(make, step)
            yield ready


class CsvLog:
    """Rows of figures, one file, columns as they come first; appends after a resume."""

    def __init__(self, path: Path):
        self.path = path

    def row(self, **figures: float) -> None:
        """Append one row; the columns are those of the file's header, others are dropped."""
        exists = self.path.exists()
        if exists:
            with self.path.open(newline="") as file:
                columns = next(csv.reader(file))
        else:
            columns = list(figures)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
            if not exists:
                writer.writeheader()
            writer.writerow(figures)


class _Logs:
    """What a run tells while it goes on: two CSV files and a line on stderr."""

    def __init__(self, folder: Path, step: int, total_steps: int):
        self._train, self._validation = CsvLog(folder / "train.csv"), CsvLog(folder / "validation.csv")
        self._total = total_steps
        self._restart(step)

    def _restart(self, step: int) -> None:
        """Measure the pace from here."""
        self._mark, self._mark_step = time.monotonic(), step

    def trained(self, step: int, figures: dict[str, float]) -> None:
        """Figures of a training step. Raises ``FloatingPointError`` where the loss is no longer finite."""
        if not np.isfinite(figures["loss"]):
            raise FloatingPointError(f"loss {figures['loss']} at step {step}; the last checkpoint is kept")
        pace = (time.monotonic() - self._mark) / (step - self._mark_step)
        self._train.row(step=step, seconds_per_step=pace, **figures)
        left = (self._total - step) * pace / 60
        self._show(step, {"s/step": pace, "min left": left, **figures})
        self._restart(step)

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """Figures of a validation; its time does not count for the pace."""
        self._validation.row(step=step, **figures)
        self._show(step, {f"validation {name}": value for name, value in figures.items()})
        self._restart(step)

    def _show(self, step: int, figures: dict[str, float]) -> None:
        """One line: rewritten on a terminal, plain elsewhere."""
        text = f"step {step}/{self._total}  " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text[:160]}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


def fit(
    task: Task,
    folder: Path,
    config: FitConfig,
    *,
    initial: dict[str, np.ndarray] | None = None,
    start_from: str = "",
    on_best: Callable[[dict[str, np.ndarray], dict[str, Any]], None] | None = None,
) -> dict[str, float]:
    """Train until ``total_steps`` or ``minutes``, going on from the newest checkpoint in ``folder``.

    Args:
      folder: gets ``checkpoints/``, ``best.npz`` (averaged weights of the model of the best validation, or the newest;
        see ``Task.validate``), ``train.csv`` and ``validation.csv``.
      initial: arrays of the model to start from (shipped weights) where there is no checkpoint yet.
      start_from: what ``initial`` is called; ``best.json`` tells it.
      on_best: called with the averaged arrays and the figures at each best validation.
    Returns:
      the figures of the last validation.
    Raises:
      FloatingPointError: the loss is no longer finite.
    """
    folder, mesh = Path(folder), Mesh(np.array(jax.devices()), ("data",))
    optimizer = task.optimizer(config.total_steps)
    template = weights.abstract(lambda: task.init(config.seed))
    saver = checkpoint.open_folder(folder / "checkpoints")
    state, best, start_from = _initial_state(task, optimizer, config, saver, initial, start_from)
    described = task.config() | ({"start_from": start_from} if start_from else {})
    state = jax.device_put(state, NamedSharding(mesh, P()))
    train_step, validate = make_train_step(task, template, optimizer, mesh, config.ema), validator(task)
    key, step, begin, validation = jax.random.key(config.seed), int(state["step"]), time.monotonic(), {}
    logs, source = _Logs(folder, step, config.total_steps), batches(task, config.seed, step, mesh)
    while step < config.total_steps:
        state, figures = train_step(state, next(source), key)
        step += 1
        over = (time.monotonic() - begin) / 60 > config.minutes or step == config.total_steps
        due = any(step % every == 0 for every in (config.log_every, config.validate_every, config.checkpoint_every))
        if due or over:  # which refuses what is no longer finite, before it is kept
            logs.trained(step, {name: float(value) for name, value in figures.items()})
        if step % config.validate_every == 0 or over:
            arrays = model_arrays(task, state["ema"])
            validation = validate(arrays)
            logs.validated(step, validation)
            if (loss := validation.get("loss", -np.inf)) <= best:
                best = loss
                meta = {**described, "step": step, **validation}
                weights.write(folder / "best.npz", arrays, meta, half=False)
                if on_best is not None:
                    on_best(arrays, {"step": step, **validation})
        if step % config.checkpoint_every == 0 or over:
            checkpoint.save(saver, step, state, {"config": described, "best": float(best)})
        if over:
            break
    source.close()
    saver.close()
    return validation


def _initial_state(task, optimizer, config, saver, initial, start_from):
    """State, best validation so far and origin: from the newest checkpoint, from given arrays, or fresh."""
    arrays = weights.flatten(task.init(config.seed))
    if initial is not None:
        weights.check(model_template(task), initial, "initial weights")
        arrays |= {_prefix(task) + name: jnp.array(array) for name, array in initial.items()}
    state = first_state(arrays, optimizer)
    if checkpoint.latest_step(saver) is None:
        return state, np.inf, start_from
    state, meta = checkpoint.load(saver, state)
    return state, meta["best"], meta["config"].get("start_from", "")


def first_state(arrays: dict[str, Array], optimizer: optax.GradientTransformation) -> dict[str, PyTree]:
    """The training state before the first step."""
    return {
        "arrays": arrays,
        "ema": jax.tree.map(jnp.copy, arrays),
        "optimizer": optimizer.init(arrays),
        "step": jnp.zeros((), jnp.int32),
    }


def model_template(task: Task) -> Any:
    """The structure of the model among the parameters."""
    parameters = weights.abstract(lambda: task.init(0))
    return getattr(parameters, task.part) if task.part else parameters


def model_arrays(task: Task, arrays: dict[str, Array]) -> dict[str, np.ndarray]:
    """Of the arrays of all parameters those of the model, by its own names."""
    begin = _prefix(task)
    return {name[len(begin) :]: np.asarray(array) for name, array in arrays.items() if name.startswith(begin)}


def _prefix(task: Task) -> str:
    return f"{task.part}/" if task.part else ""


def abstract_state(task: Task) -> dict[str, PyTree]:
    """Shapes and dtypes of a training state, to restore one into."""
    optimizer = task.optimizer(1)
    return jax.eval_shape(lambda: first_state(weights.flatten(task.init(0)), optimizer))


def validator(task: Task) -> Callable[[dict[str, Array]], dict[str, float]]:
    """``task.validate`` on flat arrays of the model, figures as plain floats."""
    template = model_template(task)

    def validate(arrays: dict[str, Array]) -> dict[str, float]:
        model = weights.unflatten(template, {k: jnp.asarray(v) for k, v in arrays.items()})
        return {k: float(v) for k, v in task.validate(model).items()}

    return validate
