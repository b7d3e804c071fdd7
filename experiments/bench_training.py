"""How fast training goes: seconds of audio a second by model, size and batch.

``python experiments/bench_training.py --data DIR --out DIR [--devices N]`` takes real training steps of
``training.loop`` on what ``jdred corpus prepare`` wrote, writes ``bench_training.csv`` and prints the table. The mean
is over as many steps as fit into ``--seconds`` after those that compile; ``batch_s`` is the time to make a batch, which
training does beside the steps.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jdred import weights
from jdred.config import FRAME_SAMPLES, SAMPLE_RATE_HZ, LPCNetConfig, RDOVAEConfig
from jdred.evaluation import tables
from jdred.evaluation.clips import written_whole
from jdred.evaluation.speed import PRESETS
from jdred.training import Task, loop
from jdred.training.run import make_task, use_devices

SIZES: dict[str, tuple[str, Any]] = {
    **{name: ("lpcnet" if isinstance(model, LPCNetConfig) else "fargan", model) for name, model in PRESETS.items()},
    "RDO-VAE": ("rdovae", RDOVAEConfig()),
    "RDO-VAE paper": ("rdovae", RDOVAEConfig.paper()),
}
COLUMNS = {"model": None, "batch": 0, "devices": 0, "audio_s_per_s": 1, "step_s": 3, "batch_s": 3, "compile_s": 1,
           "weights": 0}  # fmt: skip


@dataclass(frozen=True)
class Options:
    data: Path
    """Folder that ``jdred corpus prepare`` wrote."""
    out: Path
    models: tuple[str, ...] = tuple(SIZES)
    batches: tuple[int, ...] = (16, 32, 64)
    devices: int = 0
    """Host devices to make of the CPU (0: as JAX finds them); the batch is shared between them."""
    seconds: float = 10.0
    """Of steps, for each row."""


def main(options: Options) -> None:
    if unknown := sorted(set(options.models) - SIZES.keys()):
        raise SystemExit(f"expected models {', '.join(SIZES)}, found {', '.join(unknown)}")
    use_devices(options.devices)
    rows = []
    for name in options.models:
        kind, model = SIZES[name]
        task = make_task(kind, options.data)
        for batch in options.batches:
            sized = replace(task, settings=replace(task.settings, model=model, batch=batch))
            rows.append({"model": name, "batch": batch} | measure(sized, options.seconds))
            print(tables.markdown(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
    with written_whole(options.out) as folder:
        tables.write_csv(folder / "bench_training.csv", rows)
    print(tables.markdown(rows, COLUMNS))


def measure(task: Task, seconds: float) -> tables.Row:
    """Steps of one task on one batch."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    template, optimizer = weights.abstract(lambda: task.init(0)), task.optimizer(1_000_000)
    step = loop.make_train_step(task, template, optimizer, mesh, 0.998)
    arrays = weights.flatten(task.init(0))
    state, key = loop.first_state(arrays, optimizer), jax.random.key(0)
    count = int(sum(np.prod(a.shape) for a in arrays.values()))
    state = jax.device_put(state, NamedSharding(mesh, P()))  # As steps leave it; another layout would compile again.
    source = loop.batches(task, 0, 0, mesh)
    begin = time.perf_counter()
    task.batch(np.random.default_rng(0))
    batch_s, batch = time.perf_counter() - begin, next(source)
    source.close()
    begin = time.perf_counter()
    state, figures = jax.block_until_ready(step(state, batch, key))
    compile_s, begin, steps = time.perf_counter() - begin, time.perf_counter(), 0
    while not steps or time.perf_counter() - begin < seconds:
        state, figures = jax.block_until_ready(step(state, batch, key))
        steps += 1
    step_s = (time.perf_counter() - begin) / steps
    if not np.isfinite(figures["loss"]):
        raise SystemExit(f"expected a finite loss, found {figures['loss']}")
    return {"devices": jax.device_count(), "audio_s_per_s": audio_s(task) / step_s, "step_s": step_s,
            "batch_s": batch_s, "compile_s": compile_s, "weights": count}  # fmt: skip


def audio_s(task: Task) -> float:
    """Speech that one batch trains on; what is only heard before it does not count."""
    frames = task.settings.frames if hasattr(task.settings, "frames") else task.settings.rows
    return task.settings.batch * frames * FRAME_SAMPLES / SAMPLE_RATE_HZ


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
