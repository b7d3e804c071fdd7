"""Loss models: their statistics are what they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdred.link.channel import (
    TraceError,
    bernoulli,
    burst_lengths,
    draw_trace,
    gilbert_elliott,
    protect,
    read_trace,
    realised_loss,
    write_trace,
)

LONG = 200_000


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_bernoulli_loss_and_bursts(loss):
    trace = draw_trace(LONG, loss, seed=1)
    assert trace.dtype == np.uint8
    assert realised_loss(trace) == pytest.approx(loss, abs=0.005)
    if 0 < loss < 1:
        assert burst_lengths(trace).mean() == pytest.approx(1 / (1 - loss), rel=0.02)


@pytest.mark.parametrize(("loss", "burst_ms"), [(0.0, 100), (0.02, 20), (0.1, 60), (0.2, 120), (0.3, 400), (0.5, 20)])
def test_gilbert_elliott_loss_and_bursts(loss, burst_ms):
    trace = draw_trace(LONG, loss, mean_burst_ms=burst_ms, seed=2)
    assert realised_loss(trace) == pytest.approx(loss, abs=0.015)
    if loss:
        bursts = burst_lengths(trace)
        assert bursts.mean() * 20 == pytest.approx(burst_ms, rel=0.05)
        # Geometric lengths: their standard deviation follows from the mean.
        mean = burst_ms / 20
        assert bursts.std() == pytest.approx(np.sqrt(mean * (mean - 1)), rel=0.06, abs=1e-9)


def test_gilbert_elliott_starts_stationary():
    draw = jax.jit(jax.vmap(lambda key: gilbert_elliott(key, 1, 0.2, 400.0)))
    first = draw(jax.random.split(jax.random.key(0), 20_000))
    assert float(first.mean()) == pytest.approx(0.2, abs=0.01)


def test_packet_duration_scales_the_bursts():
    trace = draw_trace(LONG, 0.2, mean_burst_ms=120, packet_ms=40, seed=3)
    assert burst_lengths(trace).mean() == pytest.approx(3, rel=0.05)


def test_longest_burst():
    trace = draw_trace(LONG, 0.3, mean_burst_ms=200, max_burst_ms=310, seed=4)
    assert burst_lengths(trace).max() == 15
    assert draw_trace(LONG, 0.3, mean_burst_ms=200, seed=4).sum() > trace.sum()


def test_same_seed_same_trace():
    first, second, other = (draw_trace(500, 0.2, mean_burst_ms=120, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_protected_packets_arrive():
    trace = draw_trace(500, 1.0, protect_first=15, protect_last=3)
    assert burst_lengths(trace).tolist() == [482]
    assert trace[15] == 1
    assert not draw_trace(500, 1.0, protect_first=400, protect_last=400).any()
    np.testing.assert_array_equal(protect(jnp.ones(4, bool), 1, 1), [False, True, True, False])


def test_models_go_under_jit_and_vmap_with_traced_arguments():
    keys = jax.random.split(jax.random.key(0), 4)
    losses, bursts = jnp.array([0.0, 0.1, 0.2, 0.4]), jnp.array([40.0, 60.0, 120.0, 200.0])
    draw = jax.jit(lambda key, loss, burst: gilbert_elliott(key, 20_000, loss, burst, 500.0))
    traces = jax.vmap(draw)(keys, losses, bursts)
    assert traces.dtype == bool
    for trace, key, loss, burst in zip(traces, keys, losses, bursts, strict=True):
        np.testing.assert_array_equal(trace, draw(key, loss, burst))
        assert realised_loss(trace) == pytest.approx(float(loss), abs=0.06)
    independent = jax.jit(jax.vmap(lambda key, loss: bernoulli(key, 20_000, loss)))(keys, losses)
    np.testing.assert_allclose(independent.mean(1), losses, atol=0.015)


@pytest.mark.parametrize(
    "arguments",
    [
        {"packets": 0},
        {"loss": -0.1},
        {"loss": 1.1},
        {"loss": float("nan")},
        {"packet_ms": 0},
        {"protect_first": -1},
        {"max_burst_ms": 100},
        {"mean_burst_ms": 10},
        {"mean_burst_ms": float("nan")},
        {"mean_burst_ms": 100, "max_burst_ms": 10},
        {"mean_burst_ms": 40, "loss": 0.9},
        {"mean_burst_ms": 40, "loss": 1.0},
    ],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="got|needs|cannot"):
        draw_trace(**({"packets": 100, "loss": 0.2} | arguments))


def test_burst_lengths_at_the_edges():
    assert burst_lengths(np.array([1, 1, 0, 1, 0, 0, 1, 1, 1])).tolist() == [2, 1, 3]
    assert burst_lengths(np.zeros(5)).tolist() == []
    assert burst_lengths(np.zeros(0)).tolist() == []
    assert realised_loss(np.zeros(0)) == 0


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_traces_go_to_a_file_and_back(tmp_path_factory, lost):
    path = tmp_path_factory.mktemp("trace") / "trace.txt"
    write_trace(path, np.array(lost))
    np.testing.assert_array_equal(read_trace(path), lost)
    assert realised_loss(read_trace(path)) == pytest.approx(np.mean(lost))
    assert burst_lengths(read_trace(path)).sum() == sum(lost)


@pytest.mark.parametrize("text", ["0110", "0\n1\n1\n0\n", "01 10", "\r\n01\r\n\r\n10\r\n"])
def test_trace_layouts(tmp_path, text):
    path = tmp_path / "trace.txt"
    path.write_bytes(text.encode())
    assert read_trace(path).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"01\n02\n", "line 2.*'2'"),
        (b"lost", "line 1.*'l'"),
        (b"\xff\xfe", "line 1"),
    ],
)
def test_bad_traces_are_named(tmp_path, content, reason):
    path = tmp_path / "trace.txt"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=reason):
        read_trace(path)


def test_absent_trace_is_named(tmp_path):
    with pytest.raises(TraceError, match="absent.txt"):
        read_trace(tmp_path / "absent.txt")
