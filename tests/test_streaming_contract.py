"""The one contract of everything that runs over time (see ``jdred.streaming``), over every streaming part.

A part is a row of ``PARTS``: how to make a small one, and inputs for it. All weights are random, so that each matters,
and all tests but those of the initial state begin in the middle of a stream.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_FARGAN
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jdred import streaming
from jdred.config import LPCNetConfig, PitchNetworkConfig, PredictorConfig, RDOVAEConfig, SenderConfig
from jdred.dsp.features import FeatureExtractor
from jdred.dsp.pitchnet import PitchNetwork
from jdred.layers import GRU, CausalConv
from jdred.link import sender
from jdred.plc.concealer import Concealer, ConcealerInput
from jdred.plc.predictor import Predictor
from jdred.rdovae import RDOVAE, DecoderInput
from jdred.vocoder import VocoderInput
from jdred.vocoder.fargan import FARGAN
from jdred.vocoder.frame_network import FrameNetwork
from jdred.vocoder.lpcnet import LPCNet, fold
from jdred.weights import abstract

TIME = 5
LPCNET = LPCNetConfig(gru_a=16, gru_b=8, condition=8, embedding=4, pitch_embedding=4)
DENSE = RDOVAEConfig(latent_dim=4, state_dim=3, blocks=2, encoder_width=6, encoder_gru=5, encoder_conv=4,
                     decoder_width=6, decoder_gru=5, decoder_conv=4, state_hidden=6)  # fmt: skip
PAPER = RDOVAEConfig(architecture="paper", latent_dim=4, state_dim=3, blocks=2, encoder_width=6, encoder_gru=5,
                     decoder_width=6, decoder_gru=5, state_hidden=6, level_input=False, pvq_pulses=9)  # fmt: skip


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SenderCore:
    """The functions of ``link.sender`` as a part."""

    rdovae: RDOVAE

    def init_state(self):
        return sender.init_state(self.rdovae)

    def step(self, state, pcm):
        return sender.step(self.rdovae, sender.settings(SenderConfig()), state, pcm)


def small(module: type, *args: Any, **options: Any) -> Any:
    """A network with random weights throughout, so that biases and gains matter."""
    rng = np.random.default_rng(0)
    template = abstract(lambda: module(*args, **options, rngs=nnx.Rngs(0)))
    return jax.tree.map(lambda a: jnp.asarray(0.3 * rng.normal(size=a.shape), a.dtype), template)


def normal(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.normal(size=(TIME, *shape)).astype(np.float32)


def rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Feature rows of quiet sound."""
    values = 0.3 * rng.normal(size=(TIME, *shape, 20)).astype(np.float32)
    values[..., 0] -= 2.0
    return values


def sound(samples: int) -> Callable[[np.random.Generator], np.ndarray]:
    """A buzz in noise."""

    def pcm(rng: np.random.Generator) -> np.ndarray:
        time = np.arange(TIME * samples)
        buzz = 0.1 * np.sin(0.11 * time + rng.uniform(0, 6)) ** 9 + 0.003 * rng.normal(size=time.shape)
        return buzz.astype(np.float32).reshape(TIME, samples)

    return pcm


def chunks(rng: np.random.Generator) -> DecoderInput:
    return DecoderInput(normal(4)(rng), rng.integers(16, size=TIME).astype(np.int32))


def spoken(rng: np.random.Generator) -> VocoderInput:
    return VocoderInput(rows(rng), rng.random((TIME, 160, 8)).astype(np.float32))


def packets(rng: np.random.Generator, conceal_rows: int = 3) -> ConcealerInput:
    """Two gaps, with and without descriptions."""
    lost = np.array([True, True, False, False, True])
    known = np.zeros((TIME, conceal_rows), bool)
    known[1, :2] = known[4] = True
    uniforms = rng.random((TIME, 3, 160, 8)).astype(np.float32)
    return ConcealerInput(0.1 * sound(320)(rng), lost, rows(rng, conceal_rows), known, uniforms)


class Part(NamedTuple):
    """How to make a small part, and a sequence of inputs."""

    make: Callable[[], Any]
    inputs: Callable[[np.random.Generator], Any]
    twin: bool = True
    """It has a parallel ``scan``."""


def voice() -> Any:
    return fold(small(LPCNet, LPCNET))


def concealer(vocoder: Any) -> Concealer:
    return Concealer(small(Predictor, PredictorConfig(width=6, gru=5)), vocoder)


PARTS = {
    "gru": Part(lambda: small(GRU, 3, 4), normal(3)),
    "gru without bias": Part(lambda: small(GRU, 3, 4, use_bias=False), normal(3)),
    "convolution": Part(lambda: small(CausalConv, 3, 4, kernel_size=3, dilation=2), normal(3)),
    "features": Part(FeatureExtractor, sound(160)),
    "features, neural pitch": Part(
        lambda: FeatureExtractor(small(PitchNetwork, PitchNetworkConfig(width=5, channels=2))), sound(160)
    ),
    "dense encoder": Part(lambda: small(RDOVAE, DENSE).encoder, normal(40)),
    "paper encoder": Part(lambda: small(RDOVAE, PAPER).encoder, normal(40)),
    "dense decoder": Part(lambda: small(RDOVAE, DENSE).decoder, chunks),
    "paper decoder": Part(lambda: small(RDOVAE, PAPER).decoder, chunks),
    "frame network": Part(lambda: small(FrameNetwork, LPCNET), rows),
    "predictor": Part(lambda: small(Predictor, PredictorConfig(width=6, gru=5)), normal(57)),
    "vocoder": Part(voice, spoken, twin=False),
    "vocoder, bunches and long term": Part(
        lambda: fold(small(LPCNet, replace(LPCNET, bunch=4, long_term=True))), spoken, twin=False
    ),
    "fargan conditioning": Part(lambda: small(FARGAN, TINY_FARGAN).condition, rows),
    "fargan": Part(lambda: small(FARGAN, TINY_FARGAN), spoken, twin=False),
    "concealer": Part(lambda: concealer(voice()), packets, twin=False),
    "concealer that looks ahead": Part(
        lambda: concealer(small(FARGAN, TINY_FARGAN)), partial(packets, conceal_rows=4), twin=False
    ),
    "sender": Part(lambda: SenderCore(small(RDOVAE, DENSE)), sound(320), twin=False),
}
TWINS = [name for name, part in PARTS.items() if part.twin]
SAMPLERS = ["vocoder", "vocoder, bunches and long term", "concealer"]
# Scope module: the tests of a part follow each other, so that parallel workers compile few parts twice.
every_part = pytest.mark.parametrize("name", PARTS, scope="module")
every_twin = pytest.mark.parametrize("name", TWINS, scope="module")


class Stream(NamedTuple):
    """A part in the middle of a stream, compiled, with what comes next and the answer of ``lax.scan(step)``."""

    part: Any
    step: Callable
    scan: Callable
    state: Any
    xs: Any
    end: Any
    ys: Any


@cache
def stream(name: str) -> Stream:
    part = PARTS[name].make()
    rng = np.random.default_rng(7)
    offline = jax.jit(partial(jax.lax.scan, part.step))
    middle, _ = offline(part.init_state(), PARTS[name].inputs(rng))
    xs = PARTS[name].inputs(rng)
    # Where a part has no twin, its compiled step stands for chunks of any length.
    step = jax.jit(part.step)
    scan = jax.jit(part.scan) if name in TWINS else partial(walk, step)
    return Stream(part, step, scan, middle, xs, *offline(middle, xs))


def walk(step: Callable, state: Any, xs: Any) -> tuple[Any, Any]:
    """Step by step through a sequence."""
    ys = []
    for t in range(length(xs)):
        state, y = step(state, at(xs, t))
        ys.append(y)
    return state, jax.tree.map(lambda *y: jnp.stack(y), *ys)


def length(xs: Any) -> int:
    return len(jax.tree.leaves(xs)[0])


def at(xs: Any, index: Any) -> Any:
    return jax.tree.map(lambda a: a[index], xs)


def joined(parts: list[Any]) -> Any:
    return jax.tree.map(lambda *a: jnp.concatenate(a), *parts)


def assert_close(got: Any, wanted: Any, tolerance: float = 2e-5) -> None:
    """Equal structure, integers equal, floats close on the scale of each leaf."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for (path, g), w in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(wanted), strict=True):
        scale = max(1.0, float(np.max(np.abs(w), initial=0.0)))
        np.testing.assert_allclose(g, w, rtol=0, atol=tolerance * scale, err_msg=str(path))


def layout(state: Any) -> Any:
    return jax.tree.map(lambda a: (jnp.shape(a), jnp.result_type(a)), state)


@every_part
def test_shapes_and_dtypes_of_the_state_never_change(name):
    part, _, scan, state, xs, end, _ = stream(name)
    assert hasattr(part, "scan") == PARTS[name].twin
    fresh = layout(part.init_state())
    assert layout(state) == layout(end) == fresh
    assert layout(jax.eval_shape(part.step, state, at(xs, 0))[0]) == fresh
    if name in TWINS:
        assert layout(jax.eval_shape(scan, state, xs)[0]) == fresh


@every_part
def test_step_is_pure(name):
    part, step, _, state, xs, _, ys = stream(name)
    before = jax.tree.map(np.array, (state, xs, part if name != "features" else ()))
    first, again = step(state, at(xs, 0)), step(state, at(xs, 0))
    assert_close(first, again, 0.0)
    assert_close((state, xs, part if name != "features" else ()), before, 0.0)
    assert_close(first[1], at(ys, 0))


@every_part
def test_any_chunking_gives_the_offline_output(name):
    _, _, scan, state, xs, end, ys = stream(name)

    @given(lengths=st.lists(st.sampled_from((1, 2)), min_size=TIME, max_size=TIME))
    @example(lengths=[TIME])
    @settings(max_examples=6, deadline=None)
    def check(lengths):
        reached, pieces, begin = state, [], 0
        while begin < TIME:
            stop = min(begin + lengths[len(pieces)], TIME)
            reached, piece = scan(reached, at(xs, slice(begin, stop)))
            pieces.append(piece)
            begin = stop
        assert_close((reached, joined(pieces)), (end, ys))

    check()


@every_part
def test_two_half_runs_are_one(name):
    """The state is all that a stream remembers: it can be stored, restored and forked in the middle."""
    _, step, _, state, xs, end, ys = stream(name)
    middle, first = walk(step, state, at(xs, slice(0, 2)))
    stored = jax.tree.map(np.asarray, middle)
    walk(step, middle, at(xs, slice(0, 3)))  # another stream that goes on from the same state disturbs nothing
    last, second = walk(step, jax.tree.map(jnp.asarray, stored), at(xs, slice(2, TIME)))
    assert_close((last, joined([first, second])), (end, ys))


@every_twin
def test_gradients_of_the_twin_are_those_of_the_steps(name):
    part, _, _, state, xs, end, ys = stream(name)
    rng = np.random.default_rng(1)
    weights = jax.tree.map(lambda a: rng.normal(size=np.shape(a)).astype(np.float32), (end, ys))
    weightless = name == "features"

    def gradient(scan: Callable) -> Any:
        def loss(part_, state, xs):
            out = scan(part if weightless else part_, state, xs)
            return sum(jnp.sum(w * a) for w, a in zip(*map(jax.tree.leaves, (weights, out)), strict=True))

        grads = jax.jit(jax.grad(loss, argnums=(0, 1, 2), allow_int=True))(() if weightless else part, state, xs)
        return [g for g in jax.tree.leaves(grads) if g.dtype != jax.dtypes.float0]

    of_twin = gradient(lambda part, state, xs: part.scan(state, xs))
    of_steps = gradient(lambda part, state, xs: jax.lax.scan(part.step, state, xs))
    assert all(np.isfinite(g).all() for g in of_steps)
    assert_close(of_twin, of_steps, 1e-4)
    # What gets none: weights that make a decoder's first state, the pitch tracker's state.
    assert np.mean([np.any(g) for g in of_steps]) > 0.6


@every_part
def test_nan_of_an_inactive_row_leaks_nowhere(name):
    """Three streams under vmap, the middle one held while its input is garbage."""
    part, _, _, state, xs, _, _ = stream(name)

    def garbage(a: Any) -> Any:
        return np.full_like(a, np.nan) if np.issubdtype(np.asarray(a).dtype, np.floating) else a

    active = jnp.array([True, False, True])
    batched = jax.tree.map(lambda a: np.stack([a[0], garbage(a[1]), a[2]]), xs)

    @jax.jit
    def masked(state, x):
        new, y = jax.vmap(part.step)(state, x)
        return jax.vmap(streaming.hold)(active, new, state), y

    states = streaming.batch_state(state, (3,))
    after, outputs = masked(states, batched)
    assert_close(at(after, 1), state, 0.0)
    for row in (0, 2):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((at(after, row), at(outputs, row))))
        assert_close((at(after, row), at(outputs, row)), stream(name).step(state, at(xs, row)))
    # The held stream goes on as if nothing had been.
    after, outputs = masked(at(after, np.array([1, 0, 1])), at(xs, np.array([0, 0, 0])))
    assert_close((at(after, 0), at(outputs, 0)), stream(name).step(state, at(xs, 0)))


@every_twin
def test_vmap_of_a_sequence_is_each_sequence(name):
    part, _, _, state, xs, end, ys = stream(name)
    other = PARTS[name].inputs(np.random.default_rng(3))
    both = jax.tree.map(lambda *a: np.stack(a), xs, other)
    many = jax.jit(jax.vmap(part.scan))
    ends, outputs = many(streaming.batch_state(state, (2,)), both)
    assert_close((at(ends, 0), at(outputs, 0)), (end, ys))
    assert_close((at(ends, 1), at(outputs, 1)), stream(name).scan(state, other))


@pytest.mark.parametrize("name", SAMPLERS)
def test_same_randomness_same_bytes(name):
    """All randomness is in the input: equal uniforms give equal bits, others another voice."""
    _, step, _, state, xs, _, _ = stream(name)
    runs = [np.asarray(walk(step, state, xs)[1]) for _ in range(2)]
    assert runs[0].tobytes() == runs[1].tobytes()
    _, other = walk(step, state, xs._replace(uniforms=1 - xs.uniforms))
    assert np.mean(np.asarray(other) != runs[0]) > 0.3
