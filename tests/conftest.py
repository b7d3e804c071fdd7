"""Fixtures that several rooms share."""

import os
from dataclasses import asdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdred import weights
from jdred.config import FRAME_SAMPLES, NUM_BURG, NUM_FEATURES, FARGANConfig
from jdred.vocoder.fargan import FARGAN

# Tests compile much and compute little.
jax.config.update("jax_disable_most_optimizations", True)

TINY_FARGAN = FARGANConfig(
    pitch_embedding=3, condition_dense=6, condition_conv=6, condition=5, first=8, grus=(6, 5, 4), dense=6
)
GOLDEN = Path(os.environ.get("JDRED_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))


def load_golden(name: str):
    """The golden file ``name.npz``; the test is skipped where it is absent (see JDRED_GOLDEN)."""
    path = GOLDEN / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"golden data absent: {path} (set JDRED_GOLDEN)")
    return np.load(path)


def golden_clips(data) -> list[str]:
    """Names of the clips that a golden file holds."""
    return sorted(key[: -len("/pcm")] for key in data.files if key.endswith("/pcm"))


def keep_within_16_indices(model) -> None:
    """Make an LPCNet say excitations within 16 indices of zero only, so that nothing is clipped."""
    inwards = {2: 9.0, 5: 9.0, 11: 9.0, 3: -9.0, 6: -9.0, 12: -9.0}
    nodes, logits = jnp.asarray(list(inwards)), jnp.asarray(list(inwards.values()))
    model.output.units.bias[...] = model.output.units.bias[...].at[nodes].set(logits)
    model.output.factors[...] = model.output.factors[...].at[0, nodes].set(9.0)


def write_prepared(folder: Path, seed: int, frames: int = 40) -> None:
    """Three sequences of noise, as ``jdred corpus prepare`` leaves a folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "pcm.npy", rng.integers(-3000, 3000, (3, frames * FRAME_SAMPLES)).astype(np.int16))
    for name, size in (("features", NUM_FEATURES), ("burg", NUM_BURG)):
        np.save(folder / f"{name}.npy", rng.normal(0, 0.3, (3, frames, size)).astype(np.float32))
    (folder / "complete").touch()


def write_fargan(path: Path, model) -> str:
    """A FARGAN as a weight file; returns the name to load it by."""
    weights.write(path, weights.flatten(model), {"kind": "fargan", "model": asdict(model.config)}, half=False)
    return str(path)


def pulses(rows: int) -> dict[str, np.ndarray]:
    """Two sequences as ``FARGANTask`` draws them: pulses of period 70 in noise, one five times as loud."""
    rng = np.random.default_rng(0)
    frames = rows + FARGAN.prime_rows
    pcm = 200 * rng.normal(size=(2, FRAME_SAMPLES // 2 + frames * FRAME_SAMPLES))
    pcm[:, ::70] += 3000
    features = 0.3 * rng.normal(size=(2, frames, NUM_FEATURES))
    return {"pcm": (pcm * [[1], [5]]).astype(np.int16), "features": features.astype(np.float32)}


@pytest.fixture
def golden():
    return load_golden


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def models():
    """A complete set of untrained, very small models: right in everything but what they say."""
    from flax import nnx

    from jdred.config import LPCNetConfig, PredictorConfig, RDOVAEConfig
    from jdred.models import Models
    from jdred.plc.predictor import Predictor
    from jdred.rdovae import RDOVAE
    from jdred.rdovae.deploy import deploy
    from jdred.vocoder.lpcnet import LPCNet, fold

    config = RDOVAEConfig(latent_dim=6, state_dim=5, blocks=2, encoder_width=8, encoder_gru=8, encoder_conv=8,
                          decoder_width=8, decoder_gru=8, decoder_conv=8, state_hidden=8)  # fmt: skip
    rdovae, tables = deploy(RDOVAE(config, rngs=nnx.Rngs(0)))
    voice = fold(LPCNet(LPCNetConfig(gru_a=16, gru_b=8, condition=16, embedding=8), rngs=nnx.Rngs(1)))
    predictor = Predictor(PredictorConfig(width=8, gru=8), rngs=nnx.Rngs(2))
    return jax.tree.map(jax.numpy.asarray, Models(rdovae, tables, voice, predictor))
