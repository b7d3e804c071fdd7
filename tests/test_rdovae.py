"""The RDO-VAE: sizes, timing, quantiser and rate formulas, objective, deployment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import golden_clips, load_golden
from flax import nnx
from jax.test_util import check_grads

from jdred.config import NUM_LEVELS, RDOVAEConfig
from jdred.rdovae import RDOVAE, DecoderInput
from jdred.rdovae.decoder import Cuts, steps_since
from jdred.rdovae.loss import (
    RDOVAELossConfig,
    Runs,
    distortion,
    loudness,
    num_chunks,
    paper_distortion,
    phase_latents,
    rate_distortion,
    run_mean,
    targets,
)
from jdred.rdovae.quantizer import (
    Laplace,
    Quantizer,
    compress,
    dequantize,
    pvq,
    pvq_symbols,
    round_straight_through,
    symbols,
)
from jdred.rdovae.rate import hard_bits, level_lambda, soft_bits
from jdred.weights import abstract

SMALL = RDOVAEConfig(latent_dim=6, state_dim=5, blocks=2, encoder_width=8, encoder_gru=8, encoder_conv=8,
                     decoder_width=8, decoder_gru=8, decoder_conv=8, state_hidden=8)  # fmt: skip
SMALL_PAPER = RDOVAEConfig(architecture="paper", latent_dim=6, state_dim=5, blocks=3, encoder_width=8, encoder_gru=7,
                           decoder_width=8, decoder_gru=7, state_hidden=8, level_input=False, pvq_pulses=9)  # fmt: skip


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.fixture(params=[SMALL, SMALL_PAPER], ids=["dense", "paper"])
def model(request):
    return RDOVAE(request.param, rngs=nnx.Rngs(0))


def test_sizes_are_those_of_the_published_networks():
    dense, paper = (abstract(lambda c=c: RDOVAE(c, rngs=nnx.Rngs(0))) for c in (RDOVAEConfig(), RDOVAEConfig.paper()))
    assert count(dense.encoder) == 399_264
    assert count(dense.decoder) == 532_880
    assert count(paper.encoder) == pytest.approx(2.379e6, rel=1e-3)
    assert count(paper.decoder) == pytest.approx(1.651e6, rel=1e-3)


def test_unknown_architecture_is_named():
    with pytest.raises(ValueError, match="unknown RDO-VAE architecture 'x'"):
        RDOVAE(RDOVAEConfig(architecture="x"), rngs=nnx.Rngs(0))


def test_runs_cut_inside_a_sequence_equal_separate_runs(model, rng):
    values = rng.normal(size=(7, 2, 6)).astype(np.float32)
    level = rng.integers(16, size=(7, 2))
    coded = rng.normal(size=(7, 2, 5)).astype(np.float32)
    where = np.zeros((7, 2), bool)
    where[0] = where[3, 0] = where[5, 1] = True
    start = model.decoder.start(jnp.zeros((2, 5)))
    _, cut = model.decoder.scan(start, DecoderInput(values, level), Cuts(where, coded))
    for row, begin, end in [(0, 0, 3), (0, 3, 7), (1, 0, 5), (1, 5, 7)]:
        x = DecoderInput(values[begin:end, row], level[begin:end, row])
        _, alone = model.decoder.scan(model.decoder.start(coded[begin, row]), x)
        np.testing.assert_allclose(cut[begin:end, row], alone, atol=1e-5)


def test_level_is_told_to_the_decoder(rng):
    model = RDOVAE(SMALL, rngs=nnx.Rngs(0))
    z = jnp.asarray(rng.normal(size=(3, 6)), jnp.float32)
    outputs = [model.decoder.scan(model.decoder.init_state(), DecoderInput(z, jnp.full(3, q)))[1] for q in (0, 15)]
    assert float(jnp.max(jnp.abs(outputs[0] - outputs[1]))) > 1e-3


def test_steps_since():
    where = jnp.array([0, 1, 0, 0, 1, 0], bool)
    np.testing.assert_array_equal(steps_since(where), [0, 0, 1, 2, 0, 1])


def test_quantizer_at_its_initial_table():
    at = Quantizer(NUM_LEVELS, 3).at(jnp.asarray(4))
    np.testing.assert_allclose(at.scale, 0.6931, atol=1e-4)
    np.testing.assert_allclose(at.dead_zone, 0.03466, atol=1e-5)
    np.testing.assert_allclose(at.p0, 0.4054, atol=1e-4)
    z = jnp.array([0.7, 2.4, -0.8])
    y = np.array([0.7, 2.4, -0.8]) * np.log(2)
    np.testing.assert_allclose(compress(z, at), y - 0.034657 * np.tanh(y / 0.134657), atol=1e-5)
    np.testing.assert_array_equal(symbols(z, at), [0, 2, -1])
    np.testing.assert_allclose(dequantize(symbols(z, at), at), np.array([0, 2, -1]) / np.log(2), rtol=1e-6)


def test_symbols_of_the_peer_are_reproduced_from_its_latents():
    """Golden: the peer's own tables and latents give its symbols exactly."""
    data, tables = load_golden("rdovae"), load_peer_tables()
    for clip in golden_clips(data):
        for kind in ("latent", "state"):
            z = data[f"{clip}/{kind}s"]
            for q in range(NUM_LEVELS):
                scale, dead = (tables[kind][name][q] / 256.0 for name in ("quant_scales_q8", "dead_zone_q8"))
                at = Laplace(scale.astype(np.float32), dead.astype(np.float32), None, None, None)
                u = compress(z, at)
                if f"{clip}/{kind}_before_rounding_q{q}" in data.files:
                    np.testing.assert_allclose(u, data[f"{clip}/{kind}_before_rounding_q{q}"], atol=2e-3)
                wanted = data[f"{clip}/{kind}_symbols_q{q}"]
                coded = (tables[kind]["r_q8"][q] > 0) & (tables[kind]["p0_q8"][q] < 255)
                got = np.where(coded, symbols(z, at), 0)  # what is never coded is zero
                # A value within float rounding of a half may fall either way.
                differs = got != wanted
                assert np.all(np.abs(np.abs(np.asarray(u)[differs] % 1) - 0.5) < 1e-4), (clip, kind, q)
                assert differs.mean() < 1e-4


def load_peer_tables():
    path = __import__("conftest").GOLDEN.parent / "libopus" / "weights_1_6_1.npz"
    if not path.is_file():
        pytest.skip(f"peer tables absent: {path}")
    with np.load(path) as file:
        return {
            kind: {
                name: file[f"dred_rdovae_stats/{kind}/{name}"].astype(np.float64)
                for name in ("quant_scales_q8", "dead_zone_q8", "r_q8", "p0_q8")
            }
            for kind in ("latent", "state")
        }


def test_pvq_is_a_unit_vector_of_so_many_pulses(rng):
    z = jnp.asarray(rng.normal(size=(20, 24)), jnp.float32)
    pulses = np.asarray(pvq_symbols(z, 82))
    assert (np.abs(pulses).sum(axis=-1) == 82).all()
    p = np.asarray(pvq(z, 82))
    np.testing.assert_allclose(np.linalg.norm(p, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(p * np.linalg.norm(pulses, axis=-1, keepdims=True), pulses, atol=1e-4)
    assert float(jnp.min(jnp.sum(p * z, -1) / jnp.linalg.norm(z, axis=-1))) > 0.99


@pytest.mark.parametrize("config", [SMALL, SMALL_PAPER], ids=["dense", "paper"])
def test_symbols_carry_what_training_decodes(config, rng):
    """A redundancy decodes to the rows that the decoder of training makes of the values of its hard branch."""
    template = abstract(lambda: RDOVAE(config, rngs=nnx.Rngs(0)))
    model = jax.tree.map(lambda a: jnp.asarray(0.4 * rng.normal(size=a.shape), a.dtype), template)
    latents, state = (np.float32(3 * rng.normal(size=shape)) for shape in ((4, 6), (5,)))
    levels = jnp.array([3, 3, 4, 5])

    @jax.jit
    def both(model):
        at = model.latent_quantizer.at(levels)
        values = dequantize(round_straight_through(compress(latents, at)), at)
        if config.pvq_pulses:
            start = pvq(state, config.pvq_pulses)
        else:
            at = model.state_quantizer.at(levels[0])
            start = dequantize(round_straight_through(compress(state, at)), at)
        _, wanted = model.decoder.scan(model.decoder.start(start), DecoderInput(values, levels))
        sent = model.quantize(latents, state, levels)
        return sent, model.reconstruct(*sent, levels), wanted.reshape(-1, 20)

    (said, coded), rows, wanted = both(model)
    assert said.dtype == coded.dtype == jnp.int32
    assert np.any(coded)
    assert not config.pvq_pulses or np.abs(coded).sum() == config.pvq_pulses
    np.testing.assert_allclose(rows, wanted, atol=1e-5)


def test_rates_are_ideal_code_lengths():
    at = Laplace(None, None, jnp.array([0.3]), jnp.array([0.4]), jnp.array([0.6]))
    np.testing.assert_allclose(hard_bits(jnp.array([0]), at), -np.log2(0.6), rtol=1e-4)
    np.testing.assert_allclose(hard_bits(jnp.array([-3]), at), -np.log2(0.5 * 0.4 * 0.6 * 0.4**2), rtol=1e-4)
    np.testing.assert_allclose(soft_bits(jnp.array([1.5]), at), -np.log2(0.7 / 1.3 * 0.3**1.5), rtol=1e-4)
    total = sum(2.0 ** -float(hard_bits(jnp.array([q]), at)) for q in range(-40, 41))
    assert total == pytest.approx(1, abs=1e-3)


def test_lambda_spans_its_range():
    np.testing.assert_allclose(level_lambda(jnp.array([0, 5, 10, 15])), [2e-4, 0.00117, 0.00684, 0.04], rtol=3e-3)


def test_distortions_by_hand():
    true = np.zeros((1, 20), np.float32)
    true[0, 18:] = 0.2, 0.3
    decoded = true.copy()
    decoded[0, 18:] = 0.3, 0.1
    power = jnp.ones((1, 18))
    pitch, correlation = 0.2 * 0.8**2, 0.2**2
    np.testing.assert_allclose(distortion(decoded, true, power), 14 / 18 * pitch + 2 / 18 * correlation, rtol=1e-4)
    np.testing.assert_allclose(paper_distortion(decoded, true), 10 / 18 * pitch + correlation / 18, rtol=1e-4)
    decoded = true.copy()
    decoded[0, 0] = np.sqrt(18) * 0.4  # every band 4 dB louder
    bands = np.float64(10 ** (0.25 * 4 / np.sqrt(18)))  # c_0 = 0 stands for log energies of 4 / sqrt(18)
    np.testing.assert_allclose(loudness(true), bands, rtol=1e-4)
    weights = np.mean(1.15 - np.arange(18) / 36)
    e = weights * (bands * (10**0.1 - 1)) ** 2
    wanted = 0.05 * 0.16 + e + min(20 * e, 25 * e**2)
    np.testing.assert_allclose(distortion(decoded, true, power), wanted, rtol=1e-3)


def test_run_mean():
    newest = jnp.array([1, 0, 0, 1, 0])
    np.testing.assert_allclose(run_mean(jnp.arange(5.0)[:, None], newest, 3)[:, 0], [1, 1, 1, 3.5, 3.5], rtol=1e-6)


def test_targets_lie_where_the_latents_are():
    """Latent k covers frames 2k-2 .. 2k+1; chunks and rows come newest first."""
    frames = 20
    features = np.broadcast_to(np.arange(frames, dtype=np.float32)[:, None, None], (frames, 1, 20))
    chunks = num_chunks(frames)
    rows = np.asarray(targets(features, chunks))[:, :, 0, :, 0]
    latents = np.asarray(phase_latents(np.arange(frames // 2)[:, None, None], chunks))[:, :, 0, 0]
    for c in range(chunks):
        for p in range(2):
            np.testing.assert_array_equal(rows[c, p], 2 * latents[c, p] + 1 - np.arange(4))


def objective(model, features, key=None):
    chunks = num_chunks(features.shape[0])
    newest = np.zeros((chunks, 2, features.shape[1]), np.int32)
    newest[0] = newest[3] = 1
    runs = Runs(newest, np.full(newest.shape, 5, np.int32))
    key = jax.random.key(0) if key is None else key
    return rate_distortion(model, features, runs, key, jnp.asarray(100), RDOVAELossConfig(), 2)


def test_objective_gradients_reach_every_weight(model, rng):
    features = 0.3 * rng.normal(size=(24, 2, 20)).astype(np.float32)
    gradient = jax.grad(lambda m: objective(m, features)[0])(model)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)), path
        if "state_quantizer" not in str(path) or not model.config.pvq_pulses:
            assert np.any(leaf != 0), path


def test_soft_path_gradients_are_right(rng):
    at = Quantizer(NUM_LEVELS, 4).at(jnp.asarray(3))
    z = jnp.asarray(rng.normal(size=4), jnp.float32)
    check_grads(lambda z: soft_bits(compress(z, at), at), (z,), order=1, modes="rev", rtol=2e-2)
