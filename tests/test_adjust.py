"""Louder and sharper LPCNets: the adjusted weights do what louder features and larger logits would."""

from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jdred import weights
from jdred.config import NUM_BANDS, FARGANConfig, LPCNetConfig
from jdred.dsp.bands import log_energies_from_cepstrum
from jdred.models import load_vocoder
from jdred.training.adjust import adjust
from jdred.training.export import export
from jdred.vocoder.lpcnet import LPCNet, fold

SMALL = LPCNetConfig(gru_a=16, gru_b=8, condition=8, embedding=4, pitch_embedding=4, bunch=4, long_term=True)
DECIBELS = 1.5


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "best.npz"
    model = jax.jit(lambda: LPCNet(SMALL, rngs=nnx.Rngs(0)))()
    config = {"kind": "lpcnet", "model": asdict(SMALL), "settings": {}, "step": 7}
    weights.write(path, weights.flatten(model), config, half=False)
    (path.parent / "train.csv").write_text("step,seconds_per_step\n7,1800.0\n")
    return path, model


def test_the_adjusted_hears_louder_features_and_draws_more_sharply(source, rng, tmp_path):
    path, model = source
    adjust(str(path), tmp_path, DECIBELS, 2.0)
    voice, before = load_vocoder(str(tmp_path / "best.npz")), fold(model)
    features = jnp.asarray(rng.normal(0, 0.3, (6, 20)), jnp.float32)
    louder = features.at[:, 0].add(DECIBELS / 10 * NUM_BANDS**0.5)
    rise = log_energies_from_cepstrum(louder[:, :NUM_BANDS]) - log_energies_from_cepstrum(features[:, :NUM_BANDS])
    np.testing.assert_allclose(10 * rise, DECIBELS, atol=1e-3)
    _, heard = jax.jit(voice.frame.scan)(voice.frame.init_state(), features)
    _, expected = jax.jit(before.frame.scan)(before.frame.init_state(), louder)
    np.testing.assert_allclose(heard[4:], expected[4:], atol=1e-5)  # before, the first convolution reads zeros
    h = jnp.asarray(rng.normal(size=8), jnp.float32)
    np.testing.assert_allclose(voice.output(h), 2 * before.output(h), rtol=1e-5)
    _, config = weights.read(tmp_path / "best.npz")
    assert (config["step"], config["decibels"], config["sharpness"]) == (7, DECIBELS, 2.0)
    card = export(tmp_path, "lpcnet", "mine", folder=tmp_path).with_suffix(".md").read_text()
    assert "7 steps in 3.5 hours" in card
    assert "those of the run's `best.npz`, made 1.5 dB louder, logits times 2." in card
    # Of shipped weights, and for the second time.
    adjust(str(tmp_path / "mine.npz"), tmp_path / "again", 0.5, 3.0)
    arrays, config = weights.read(tmp_path / "again" / "best.npz")
    assert (config["step"], config["decibels"], config["sharpness"]) == (7, DECIBELS + 0.5, 6.0)
    np.testing.assert_allclose(arrays["output/factors"], 6 * model.output.factors[...], rtol=1e-3)


def test_nothing_else_is_adjusted(source, tmp_path):
    path, _ = source
    with pytest.raises(ValueError, match="another folder"):
        adjust(str(path), path.parent, 1.0, 1.0)
    with pytest.raises(ValueError, match="above 0, found 0"):
        adjust(str(path), tmp_path, 0.0, 0.0)
    other = tmp_path / "other.npz"
    weights.write(other, {"a": np.zeros(1)}, {"kind": "fargan", "model": asdict(FARGANConfig())})
    with pytest.raises(weights.CheckpointError, match="expected weights of kind lpcnet, found fargan"):
        adjust(str(other), tmp_path / "out", 1.0, 1.0)
