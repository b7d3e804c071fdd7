"""How near our modules come to libopus's own output, with its weights in them: one figure a row, and what is allowed.

Our activations are floats, libopus's have 8 bits: its documented difference (1 to 2 % of a network's output) is the
tolerance. What is not a network must agree exactly.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jdred import weights
from jdred.config import FRAME_SAMPLES, NUM_BANDS, PACKET_FRAMES
from jdred.dsp.features import extract
from jdred.dsp.filters import deemphasize, preemphasize
from jdred.dsp.pitch import period_from_feature
from jdred.libopus import networks
from jdred.models import Models
from jdred.rdovae import DecoderInput
from jdred.rdovae.quantizer import compress, symbols
from jdred.rdovae.tables import coded
from jdred.vocoder import fargan

Data = Mapping[str, np.ndarray]
"""A golden file."""
CENTS = 1200
"""An octave, which is one unit of the pitch feature."""
_VOICED = 0.3
_NEAR_TIE = 1e-5
"""So near, libopus's approximation of tanh decides: one of its 900 000 symbols, 5e-6 from a tie."""


class Figure(NamedTuple):
    """One comparison."""

    what: str
    clip: str
    measured: float
    limit: float
    at_least: bool = False
    """The limit is a lower one."""

    @property
    def holds(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def clips(data: Data) -> list[str]:
    """Names of the clips in a golden file."""
    return sorted(key[: -len("/pcm")] for key in data if key.endswith("/pcm"))


def relative(x: np.ndarray, reference: np.ndarray) -> float:
    """RMS of the difference over RMS of the reference."""
    return float(np.sqrt(np.mean((np.asarray(x) - reference) ** 2) / np.mean(reference**2)))


def _modules(models: Models) -> list[tuple[networks.Network, Mapping[str, np.ndarray]]]:
    modules = (models.extractor.tracker, models.vocoder, models.predictor, models.rdovae)
    return [(n, weights.flatten(m)) for n, m in zip(networks.NETWORKS, modules, strict=True)]


def linear_layers(models: Models, check: Data) -> Iterator[Figure]:
    """Every layer against libopus's own products, before activations; ``check``: ``layer_check_1_6_1.npz``."""
    stored = {key.split("/")[1]: key[:-2] for key in check if key.endswith("/x")}
    for network, arrays in _modules(models):
        for place in network.places:
            if place.kind != "linear":
                continue
            x, y = (check[f"{stored[place.layer]}/{k}"] for k in "xy")
            ours = x @ np.asarray(arrays[place.kernel]) + (np.asarray(arrays[place.bias]) if place.bias else 0)
            error = np.abs(ours - y[:, : ours.shape[1]]).max() / np.sqrt(np.mean(y**2))
            yield Figure(f"layer {place.layer}, of the rms", "", float(error), 1e-5)


def features(models: Models, data: Data) -> Iterator[Figure]:
    """PCM to features with the neural pitch; ``features.npz``."""
    for clip in clips(data):
        pcm, reference = jnp.asarray(data[f"{clip}/pcm"] / np.float32(32768)), data[f"{clip}/features36"][:, :20]
        rows = np.asarray(jax.jit(extract)(pcm, models.extractor))
        cents = CENTS * np.abs(rows[:, NUM_BANDS] - reference[:, NUM_BANDS])
        same = period_from_feature(rows[:, NUM_BANDS]) == period_from_feature(reference[:, NUM_BANDS])
        correlation = np.abs(rows[:, 19] - reference[:, 19])[np.asarray(same)]
        jumped = cents > 50
        yield Figure("cepstra, largest error", clip, np.abs(rows - reference)[:, :NUM_BANDS].max(), 1e-3)
        yield Figure("correlation where the period is equal, largest error", clip, correlation.max(), 1e-3)
        yield Figure("periods that differ by rounding, %", clip, 100 * np.mean(~np.asarray(same) & ~jumped), 3)
        yield Figure("pitch, median error in cents", clip, np.median(cents), 0.5)
        yield Figure("pitch, 95th percentile in cents", clip, np.percentile(cents, 95), 2)
        yield Figure("pitch, frames that jump, %", clip, 100 * np.mean(jumped), 2)
        yield Figure("  of them voiced", clip, np.sum(jumped & (reference[:, 19] > _VOICED)), 0)


def encoder(models: Models, data: Data) -> Iterator[Figure]:
    """Features to latents, states and symbols; ``rdovae.npz``."""
    rdovae = models.rdovae
    run = jax.jit(lambda x: rdovae.encoder.scan(rdovae.encoder.init_state(), x)[1])
    allowed = {"latent": {0: 10, 6: 3, 12: 1}, "state": {0: 11, 6: 3.5, 12: 2}}
    for clip in clips(data):
        encoded = run(jnp.asarray(data[f"{clip}/features20"].reshape(-1, PACKET_FRAMES * 20)))
        yield Figure("latents, relative error", clip, relative(encoded.latent, data[f"{clip}/latents"]), 0.025)
        yield Figure("states, relative error", clip, relative(encoded.state, data[f"{clip}/states"]), 0.015)
        for part in ("latent", "state"):
            given = data[f"{clip}/{part}s"]
            wrong = [_differing(models, data, clip, part, level, given, _NEAR_TIE)[0] for level in range(16)]
            yield Figure(f"{part} symbols of the given {part}s that differ, 16 levels", clip, sum(wrong), 0)
            for level, percent in allowed[part].items():
                count, size = _differing(models, data, clip, part, level, getattr(encoded, part))
                yield Figure(f"{part} symbols at level {level} that differ, %", clip, 100 * count / given.size, percent)
                yield Figure("  by steps", clip, size, 2)


def _differing(
    models: Models, data: Data, clip: str, part: str, level: int, values: np.ndarray, near: float = 0.0
) -> tuple[int, int]:
    """How many symbols differ at a level, and by how much at most; but for those as ``near`` to a tie."""
    at = getattr(models.rdovae, f"{part}_quantizer").at(level)
    p0, r = (getattr(models.tables, f"{part}_{name}")[level] for name in ("p0", "r"))
    ours, exact = symbols(jnp.asarray(values), at), np.asarray(compress(jnp.asarray(values), at))
    ours = np.where(coded(p0, r), ours, 0)
    off = np.abs(ours - data[f"{clip}/{part}_symbols_q{level}"])
    off = np.where(np.abs(exact - np.floor(exact) - 0.5) < near, 0, off)
    return int(np.sum(off > 0)), int(off.max())


def decoder(models: Models, data: Data) -> Iterator[Figure]:
    """Dequantised latents to features, backwards in time; ``rdovae.npz``."""
    part = models.rdovae.decoder
    run = jax.jit(jax.vmap(lambda s, x: part.scan(part.start(s), x)[1]))
    for clip in clips(data):
        head = f"{clip}/decoded_"
        for name in sorted(key[len(head) :] for key in data if key.startswith(head)):
            x, coded_state = data[f"{clip}/decoder_latent_in_{name}"], data[f"{clip}/decoder_state_in_{name}"]
            levels = jnp.asarray(8 * (x[..., -1] + 1))
            rows = np.asarray(run(jnp.asarray(coded_state), DecoderInput(jnp.asarray(x[..., :-1]), levels)))
            reference = data[head + name]
            error = rows.reshape(reference.shape) - reference
            cents = CENTS * np.sqrt(np.mean(error[..., NUM_BANDS] ** 2))
            coarse = any(mark in name for mark in ("9", "12", "15"))
            yield Figure(f"decoded {name}, relative error", clip, relative(reference + error, reference), 0.02)
            yield Figure("  cepstra, rms error", clip, float(np.sqrt(np.mean(error[..., :NUM_BANDS] ** 2))), 0.03)
            yield Figure("  pitch, rms error in cents", clip, float(cents), 20 if coarse else 8)
            yield Figure("  correlation, rms error", clip, float(np.sqrt(np.mean(error[..., 19] ** 2))), 0.015)


def predictor(models: Models, data: Data) -> Iterator[Figure]:
    """Input rows to predictions; ``fargan.npz``."""
    model = models.predictor
    run = jax.jit(lambda x: model.scan(model.init_state(), x)[1])
    for clip in clips(data):
        said = run(jnp.asarray(data[f"{clip}/plcnet/net_in"]))
        yield Figure("PLC predictions, relative error", clip, relative(said, data[f"{clip}/plcnet/net_out"]), 0.02)


def vocoder(models: Models, data: Data) -> Iterator[Figure]:
    """Features to conditioning and to sound; ``fargan.npz``."""
    run, first = jax.jit(partial(_speak, models.vocoder)), []
    for clip in clips(data):
        for case in sorted({key.split("/")[1] for key in data if key.startswith(f"{clip}/fargan_")}):
            head = f"{clip}/{case}"
            condition, pcm = run(
                jnp.asarray(data[f"{head}/prime_features"]),
                jnp.asarray(data[f"{head}/prime_pcm"]),
                jnp.asarray(data[f"{head}/features"]),
            )
            wanted = data[f"{head}/cond"]
            yield Figure("FARGAN conditioning, relative error", head, relative(condition[: len(wanted)], wanted), 0.015)
            first.append(_snr(pcm, data[f"{head}/pcm_out"], 0, 160))
            yield Figure("FARGAN, SNR of the first 10 ms in dB", head, first[-1], 15, True)
            yield Figure("  of 10 .. 50 ms", head, _snr(pcm, data[f"{head}/pcm_out"], 160, 800), 12, True)
    yield Figure("FARGAN, mean SNR of the first 10 ms in dB", "all", float(np.mean(first)), 22, True)


def _speak(model: fargan.FARGAN, heard: jnp.ndarray, past: jnp.ndarray, rows: jnp.ndarray):
    """Conditioning and sound of rows after 20 ms of past, at libopus's boundary: whole frames, not halves.

    As libopus has it, the first frame repeats the last period that was forced.
    """
    memory, condition, periods = model.read(heard)
    signal, _ = preemphasize(past, past[0] / np.float32(0.85))
    known = jnp.pad(signal[:FRAME_SAMPLES], (fargan.MEMORY_SAMPLES - FRAME_SAMPLES, 0))
    state, _ = model.speak(model.remember(known), condition[-1:], periods[-2:-1], signal[FRAME_SAMPLES:])
    _, condition = model.condition.scan(memory, rows)
    before = jnp.concatenate([periods[-2:-1], period_from_feature(rows[:-1, NUM_BANDS])])
    _, said = model.speak(state, condition, before, jnp.zeros(0))
    return condition, deemphasize(said, past[-1])[0]


def _snr(x: Float[np.ndarray, "samples"], reference: Float[np.ndarray, "samples"], start: int, stop: int) -> float:
    return -20 * float(np.log10(relative(np.asarray(x)[start:stop], reference[start:stop])))


NETWORKS: dict[str, Callable[[Models, Data], Iterator[Figure]]] = {
    "features": features,
    "rdovae": lambda models, data: (yield from (*encoder(models, data), *decoder(models, data))),
    "fargan": lambda models, data: (yield from (*predictor(models, data), *vocoder(models, data))),
}
"""Comparisons by golden file."""
