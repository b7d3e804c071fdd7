"""Copy synthesis: what is spoken lies where it belongs, whole windows from the end are decoded; tables of figures."""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jdred.assets import demo_clip_path
from jdred.config import RDOVAEConfig
from jdred.dsp.features import extract
from jdred.evaluation import copy_synthesis as copying
from jdred.evaluation import rate_distortion as rd
from jdred.evaluation import tables
from jdred.evaluation.clips import read_clip
from jdred.rdovae import RDOVAE
from jdred.rdovae.deploy import deploy


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Marker:
    """Speaks the c_0 of a row throughout it, ``lookahead_rows`` late."""

    lookahead_rows: int = field(metadata={"static": True})
    prime_rows: ClassVar[int] = 2

    def step(self, state, x):
        queue = jnp.concatenate([state, x.features[:1]])
        return queue[1:], jnp.broadcast_to(queue[0], 160)

    def prime(self, features, pcm, uniforms):
        assert features.shape == (3 + self.lookahead_rows, 20)
        assert pcm.shape == (400,)
        return features[3:, 0], jnp.broadcast_to(features[2, 0], 80)


@pytest.fixture(scope="module")
def clip():
    return read_clip(demo_clip_path())[:35_200]


@pytest.mark.parametrize("lookahead", [0, 1])
def test_every_row_is_spoken_in_its_place(clip, lookahead):
    pcm = np.stack([clip[:8000], clip[8000:16000]])
    said = np.asarray(copying.speak(Marker(lookahead), copying.surround(pcm, Marker(lookahead))))
    assert said.shape == pcm.shape
    rows = np.asarray(extract(np.pad(pcm, ((0, 0), (320, 160)))))[:, 2:]
    np.testing.assert_allclose(said, rows[:, (np.arange(8000) + 80) // 160, 0], atol=1e-4)


def test_windows_lie_back_to_back_from_the_end(clip):
    config = RDOVAEConfig(latent_dim=8, state_dim=6, blocks=1, encoder_width=8, encoder_gru=8, encoder_conv=8,
                          decoder_width=8, decoder_gru=8, decoder_conv=8, state_hidden=8)  # fmt: skip
    rdovae, coding = deploy(RDOVAE(config, rngs=nnx.Rngs(0)))
    true, (rows, bps) = np.asarray(extract(clip)), copying.through(rdovae, coding, clip, 3)
    assert rows.shape == true.shape == (220, 20)
    np.testing.assert_allclose(rows[:12], true[:12], atol=1e-5)
    assert (np.abs(rows[12:] - true[12:]).max(axis=1) > 1e-3).all()
    # The second window does not depend on the speech after it; the first does.
    later = copying.through(rdovae, coding, np.concatenate([clip[:18_560], 0 * clip[18_560:]]), 3).rows
    np.testing.assert_allclose(later[12:116], rows[12:116], atol=1e-5)
    assert np.abs(later[116:] - rows[116:]).max() > 1e-2
    windows = rd.cut(rdovae, clip, np.array([57, 109]))
    coded = rd.code(rdovae, coding, windows, 3)
    assert bps == pytest.approx((coded.state_bits.sum() + coded.chunk_bits.sum()) / 2 / 1.04)
    # Levels that rise with age: other rows but for the newest.
    rising = copying.through(rdovae, coding, clip, 3, slope=7)
    np.testing.assert_allclose(rising.rows[-4:], rows[-4:], atol=1e-5)
    assert np.abs(rising.rows[12:16] - rows[12:16]).max() > 1e-3


def test_fidelity_of_a_clip_to_itself_and_to_half_of_it(clip):
    rows = np.asarray(extract(clip))
    same = copying.fidelity(clip, rows, rows)
    assert same == pytest.approx({"f0_cents": 0, "f0_gross": 0, "voicing_error": 0, "energy_within_3db": 1,
                                  "energy_bias_db": 0, "energy_error_db": 0}, abs=1e-3)  # fmt: skip
    half = copying.fidelity(clip / 2, rows, rows)
    assert half["energy_bias_db"] == pytest.approx(-6.02, abs=0.1)
    assert half["energy_within_3db"] < 0.01
    assert half["f0_cents"] < 1


def test_figures_survive_a_file_and_gaps_in_it(tmp_path):
    rows = [{"clip": "a", "x": 1.23456}, {"clip": "b", "x": None, "y": 2}]
    tables.write_csv(tmp_path / "t.csv", rows)
    again = tables.read_csv(tmp_path / "t.csv")
    assert again == [{"clip": "a", "x": "1.2346", "y": ""}, {"clip": "b", "x": "", "y": "2"}]
    np.testing.assert_array_equal(tables.column(again, "x"), [1.2346, np.nan])
    assert tables.mean(tables.column(rows, "x")) == 1.23456
    assert tables.mean(tables.column(rows, "z")) is None
    assert tables.markdown(rows, {"clip": None, "x": 1}) == "| clip | x |\n| --- | ---: |\n| a | 1.2 |\n| b | - |\n"


def test_error_of_paired_differences():
    values, others = np.array([1.0, 2.0, 4.0, np.nan]), np.array([0.0, 0.0, 0.0, 5.0])
    assert tables.paired_error(values, others) == pytest.approx(np.std([1, 2, 4], ddof=1) / 3**0.5)
    assert tables.paired_error(values[:1], others[:1]) is None
