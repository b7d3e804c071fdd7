"""How long things take: single calls, warm, in wall time and in processor time of all threads."""

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jdred.config import FRAME_SAMPLES, SAMPLE_RATE_HZ, FARGANConfig, LPCNetConfig
from jdred.evaluation.tables import Row
from jdred.packed import packed
from jdred.streaming import batch_state, bind
from jdred.vocoder import Vocoder, VocoderInput
from jdred.vocoder.fargan import FARGAN
from jdred.vocoder.lpcnet import LPCNet, fold

PRESETS = {
    "LPCNet 192/32": LPCNetConfig(),
    "LPCNet 192/32, bunches of 2": LPCNetConfig(bunch=2),
    "LPCNet 192/32, bunches of 4": LPCNetConfig(bunch=4),
    "LPCNet 192/32, bunches of 4, long term": LPCNetConfig(bunch=4, long_term=True),
    "LPCNet 192/32, end to end": LPCNetConfig(end_to_end=True),
    "LPCNet 384/32 in blocks": LPCNetConfig(gru_a=384, density=(0.2, 0.2, 0.4)),
    "LPCNet 384/32 in blocks, bunches of 2": LPCNetConfig(gru_a=384, density=(0.2, 0.2, 0.4), bunch=2),
    "LPCNet 384/16": LPCNetConfig(gru_a=384, gru_b=16),
    "FARGAN": FARGANConfig(),
    "FARGAN half": FARGANConfig.half(),
}
"""Sizes of vocoders. Speed does not depend on the values of the weights."""
SECONDS = 2.0
"""No item takes much longer than this, however slow it is."""
FEWEST = 5


def timed(item: str, call: Callable[[], object], audio_ms: float, calls: int = 200, **columns: object) -> Row:
    """Time a call that handles so much audio: median and 99th percentile, and the mean of the processor time.

    The first call is not counted; it compiles, and ``first_s`` says how long that took.
    """
    begin = time.perf_counter()
    jax.block_until_ready(call())
    first_s, begin = time.perf_counter() - begin, time.perf_counter()
    jax.block_until_ready(call())
    count = int(np.clip(SECONDS / max(time.perf_counter() - begin, 1e-9), FEWEST, calls))
    micros, busy = [], time.process_time()
    for _ in range(count):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        micros.append(1e6 * (time.perf_counter() - begin))
    cpu_us = 1e6 * (time.process_time() - busy) / count
    return row(item, micros, cpu_us, audio_ms, first_s=first_s, **columns)


def row(item: str, micros: Sequence[float], cpu_us: float, audio_ms: float, **columns: object) -> Row:
    """Figures of calls; ``us_per_sample`` and ``real_time`` are of the median, over all the audio of a call."""
    p50, p99 = np.percentile(micros, [50, 99])
    samples = audio_ms * SAMPLE_RATE_HZ / 1000
    figures = {"p50_us": float(p50), "p99_us": float(p99), "cpu_us": float(cpu_us)}
    speed = {"us_per_sample": float(p50 / samples), "real_time": float(1000 * audio_ms / p50)}
    return {"item": item, "calls": len(micros)} | columns | figures | speed


def vocoder_row(name: str, batch: int, rows: np.ndarray, calls: int = 200) -> Row:
    """A preset with random weights that speaks 10 ms of ``batch`` streams a call.

    Args:
      rows: feature rows of speech, at least one.
    """
    config, shape = PRESETS[name], () if batch == 1 else (batch,)
    if isinstance(config, LPCNetConfig):
        vocoder: Vocoder = fold(LPCNet(config, rngs=nnx.Rngs(0)))
    else:
        vocoder = packed(FARGAN(config, rngs=nnx.Rngs(0)))
    step = bind(type(vocoder).step, vocoder)
    uniforms = np.random.default_rng(0).random((*shape, FRAME_SAMPLES, 8), np.float32)
    features = np.resize(np.asarray(rows, np.float32), (batch, rows.shape[-1])).reshape(*shape, -1)
    x = jax.device_put(VocoderInput(features, uniforms))
    state = jax.tree.map(jnp.array, batch_state(vocoder.init_state(), shape))
    return timed(name, lambda: step(state, x), 10 * batch, calls, batch=batch)
