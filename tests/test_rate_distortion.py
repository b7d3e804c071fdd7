"""Rate-distortion figures: windows where they belong, bits of real payloads, errors by hand, the BD-rate."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jdred.bitstream import Header, PayloadCodec, level_schedule
from jdred.config import RDOVAEConfig
from jdred.dsp.features import extract
from jdred.evaluation import rate_distortion as rd
from jdred.evaluation.rate_distortion import Coded, Curve, Windows
from jdred.rdovae import RDOVAE
from jdred.rdovae.deploy import deploy

SMALL = RDOVAEConfig(latent_dim=5, state_dim=4, blocks=1, encoder_width=6, encoder_gru=6, encoder_conv=4,
                     decoder_width=6, decoder_gru=6, decoder_conv=4, state_hidden=6)  # fmt: skip


@pytest.fixture(scope="module")
def link():
    """A small model whose fifth latent dimension is never coded, its tables, and the windows of two clips."""
    model = RDOVAE(SMALL, rngs=nnx.Rngs(0))
    raw = np.zeros((16, 6, 5), np.float32)
    raw[:, 0] = 6 - 0.4 * np.arange(16)[:, None]  # steps grow with the level
    raw[8:, 5, 4] = -9.0  # the last dimension is always zero from level 8 on
    model.latent_quantizer.raw = nnx.Param(jnp.asarray(raw))
    rdovae, tables = deploy(model)
    rng = np.random.default_rng(0)
    clips = [0.05 * rng.normal(size=size).astype(np.float32) for size in (32_000, 25_000, 4_000)]
    return rdovae, tables, rd.cut_all(rdovae, clips), clips


def test_windows_lie_where_the_latents_are(link):
    rdovae, _, windows, clips = link
    # 100 latents: windows end at 62, 75, 88; 78 latents: at 62, 75; the third clip is too short.
    assert windows.rows.shape == (5, 104, 20)
    rows = np.asarray(extract(jnp.asarray(clips[0])))
    _, encoded = rdovae.encoder.scan(rdovae.encoder.init_state(), rows.reshape(-1, 40))
    np.testing.assert_allclose(windows.rows[1], rows[48:152][::-1], atol=1e-3)
    np.testing.assert_allclose(windows.latents[2, :, 0], encoded.latent[88:36:-2, 0], atol=1e-4)
    np.testing.assert_allclose(windows.state[0], encoded.state[62], atol=1e-4)


def test_clips_that_are_all_too_short_are_refused(link):
    rdovae, *_, clips = link
    with pytest.raises(ValueError, match=r"at least 1.26 s, found 1 shorter"):
        rd.cut_all(rdovae, clips[2:])


@pytest.mark.parametrize(("level", "slope"), [(3, 0), (6, 5)])
def test_bits_and_rows_are_those_of_the_payload(link, level, slope):
    """The figures are of what a receiver decodes from real bytes."""
    rdovae, tables, windows, _ = link
    coded = rd.code(rdovae, tables, windows, level, slope)
    levels = level_schedule(level, slope, 15)
    latents, state = rdovae.quantize(windows.latents[1], windows.state[1], levels)
    codec = PayloadCodec(tables)
    read = codec.decode(codec.encode(Header(level, slope, 15, 0), np.asarray(state), np.asarray(latents)))
    assert read.valid
    assert read.chunks == 26
    bits = np.diff(read.eighths / 8)
    np.testing.assert_array_equal(coded.state_bits[1], bits[0])
    np.testing.assert_array_equal(coded.chunk_bits[1], bits[1:])
    np.testing.assert_allclose(coded.rows[1], rdovae.reconstruct(read.latents, read.state, read.levels), atol=1e-5)


def test_coarser_levels_cost_less_and_raw_latents_nothing(link):
    rdovae, tables, windows, _ = link
    costs = [rd.rate(rd.code(rdovae, tables, windows, level))["bits_per_40ms_latent"] for level in (0, 7, 15)]
    assert costs[0] > costs[1] > costs[2] > 0
    free = rd.unquantised(rdovae, windows)
    assert rd.rate(free)["mean_payload_bits"] == 0
    fine = rd.code(rdovae, tables, windows, 0)
    np.testing.assert_allclose(free.rows, fine.rows, atol=0.3)
    assert not np.array_equal(free.rows, fine.rows)


def rows_of(loudest: list[float], correlation: list[float]) -> np.ndarray:
    """Rows with all bands equal to the given log10 energies."""
    rows = np.zeros((len(loudest), 20))
    rows[:, 0] = np.sqrt(18) * np.array(loudest) - 4
    rows[:, 19] = correlation
    return rows


def test_distortion_by_hand():
    true = rows_of([6.0, 5.0, 1.5, 0.9], [0.4, 0.2, 0.4, 0.5])  # the last row is 51 dB below the first
    decoded = true.copy()
    decoded[:, 0] += [3.0, 0.0, 0.0, 6.0]
    decoded[:, 18] += [0.02, 0.5, -0.25, 0.7]
    decoded[:, 19] += [0.1, 0.1, -0.2, 0.9]
    figures = rd.distortion(decoded, true)
    wanted = {
        "ceps_rmse": np.sqrt((9 + 36) / (4 * 18)),
        "ceps_rmse_active": np.sqrt(9 / (3 * 18)),
        "logband_rms_db_active": 10 * np.sqrt(9 / (3 * 18)),
        "c0_rmse": np.sqrt(45 / 4),
        "pitch_cents_median": (24 + 300) / 2,
        "pitch_cents_mean": (24 + 300) / 2,
        "pitch_cents_p90": 24 + 0.9 * 276,
        "pitch_gross_50c": 0.5,
        "pitch_gross_200c": 0.5,
        "corr_rmse": np.sqrt((0.01 + 0.01 + 0.04) / 3),
        "corr_mae": 0.4 / 3,
        "frac_active": 3 / 4,
        "frac_voiced": 2 / 4,
    }
    assert figures == pytest.approx(wanted, rel=1e-5)


def test_rate_by_hand():
    chunk_bits = np.tile([10.0, 20.0], 13)[None].repeat(2, axis=0)
    coded = Coded(np.array([90.0, 110.0]), chunk_bits, np.zeros((2, 104, 20)))
    assert rd.rate(coded) == {
        "bits_per_40ms_latent": 15,
        "bits_latent_std": 5,
        "bps_latents": 375,
        "bits_initial_state": 100,
        "bps_1s_copy_stream": pytest.approx(490 / 1.04),
        "mean_payload_bits": 490,
        "kbps_at_50pps": 24.5,
        "n_windows": 2,
    }


def test_ages_are_chunks_newest_first():
    rows = np.broadcast_to(rows_of([6.0], [0.4]), (2, 104, 20)).copy()
    decoded = rows.copy()
    decoded[:, 8:12, 0] += 1.0  # the third chunk
    windows, coded = Windows(None, None, rows), Coded(np.zeros(2), np.tile(np.arange(26.0), (2, 1)), decoded)
    ages = rd.measure_by_age(windows, coded)
    assert [(age["chunk"], age["age_ms"], age["bits"]) for age in ages] == [(i, 40 * i, i) for i in range(26)]
    assert [age["c0_rmse"] for age in ages] == [1.0 if i == 2 else 0.0 for i in range(26)]


CURVE = Curve(np.array([80.0, 50.0, 20.0, 5.0]), np.array([0.2, 0.25, 0.4, 0.7]))


def test_bd_rate_of_a_curve_and_its_copies(rng):
    assert rd.bd_rate(CURVE, CURVE) == 0
    assert rd.bd_rate(Curve(0.9 * CURVE.bits, CURVE.rmse), CURVE) == pytest.approx(-10)
    assert rd.bd_rate(CURVE, Curve(0.9 * CURVE.bits, CURVE.rmse)) == pytest.approx(100 / 9)
    order = rng.permutation(4)
    assert rd.bd_rate(Curve(*(1.2 * CURVE.bits[order], CURVE.rmse[order])), CURVE) == pytest.approx(20)


def test_bd_rate_counts_only_what_both_reach():
    line = Curve(np.array([100.0, 100.0 / np.e]), np.array([0.0, 1.0]))
    longer = Curve(np.exp(np.array([5.0, 4.0, 2.0])), np.array([-1.0, 0.0, 2.0]))  # parallel, reaches further
    assert rd.bd_rate(line, longer) == pytest.approx(100 * (100 / np.exp(4.0) - 1))
    flat = Curve(np.array([100.0, 100.0 * (1 - 1e-12)]), np.array([0.0, 1.0]))  # the gap grows evenly from 0 to e
    assert rd.bd_rate(flat, line) == pytest.approx(100 * np.expm1(0.5))


def test_points_that_others_beat_do_not_count():
    worse = Curve(np.append(CURVE.bits, [90.0, 30.0]), np.append(CURVE.rmse, [0.21, 0.5]))
    assert rd.bd_rate(worse, CURVE) == 0


def test_curves_that_do_not_overlap_are_refused():
    with pytest.raises(ValueError, match=r"overlap in their error, found 1.2 .. 1.7 and 0.2 .. 0.7"):
        rd.bd_rate(Curve(CURVE.bits, CURVE.rmse + 1), CURVE)
