"""Faults: what the fault tests make is what they say, they find nothing here, and they find what is broken."""

import numpy as np
import pytest
import soundfile

from jdred.assets import demo_clip_path
from jdred.bitstream import payload
from jdred.config import PACKET_SAMPLES, SenderConfig
from jdred.evaluation import faults
from jdred.evaluation.faults import FaultError, Shares, check_batch, damage, damaged_batch, fuzz, read_batch
from jdred.link.call import encoded
from jdred.link.sender import Sender


@pytest.fixture(scope="module")
def packets(models):
    pcm, _ = soundfile.read(demo_clip_path(), dtype="float32")
    sender = Sender(models, SenderConfig(lbrr_bps=16_000, dred_duration_ms=400))
    return list(encoded(pcm[8000 : 8000 + 30 * PACKET_SAMPLES], sender))


def test_faults_are_of_all_kinds(rng):
    good = [bytes(range(50)), bytes(range(100, 200))]
    cases = [damage(rng, good) for _ in range(600)]
    assert sum(case in good for case in cases) > 50
    assert sum(case not in good and any(g.startswith(case) for g in good) for case in cases) > 50
    assert sum(len(case) in (50, 100) and case not in good for case in cases) > 50
    table = np.stack([np.arange(256, dtype=np.uint8)] * 3)
    data, lengths, announced = damaged_batch(rng, table, np.array([40, 50, 60]), 400)
    changed = np.array([np.any(row[:n] != table[0][:n]) for row, n in zip(data, lengths, strict=True)])
    assert 0.4 < changed.mean() < 0.8
    assert np.mean(np.isin(lengths, [40, 50, 60])) < 0.8
    assert announced.min() == 0
    assert announced.max() == 26


def test_some_faults_find_nothing(models, packets):
    cases = 3000
    last = {pace.name: pace for pace in fuzz(models, packets, cases, shares=Shares(0.1, 0.05))}
    assert set(last) == {"payload reader", "inspect", "receiver"}
    # The first case, or batch, of each kind compiles and is not timed.
    assert last["inspect"].cases == 299
    assert last["receiver"].cases == 149
    assert all(pace.per_second > 10 and pace.resident_mb > 50 for pace in last.values())


def test_a_broken_reader_is_found(models, packets, monkeypatch):
    monkeypatch.setattr(faults, "inspect", lambda case, payloads: {}[case])
    with pytest.raises(FaultError, match="inspect raised KeyError"):
        list(fuzz(models, packets, 50, shares=Shares(1.0, 0.0)))


def test_impossible_answers_are_found(models, packets):
    data = np.zeros((2, faults.CAPACITY), np.uint8)
    lengths, announced = np.array([30, 0], np.int32), np.array([0, 0], np.int32)
    read = read_batch(models)(data, lengths, announced)
    check_batch(read, lengths, announced)
    count = int(read.chunks[0])
    assert count > 0
    for wrong, rule in (
        (read._replace(chunks=read.chunks + 27), "0 .. 26"),
        (read._replace(valid=~read.valid), "valid"),
        (read._replace(latents=read.latents + (1 << 15)), "legal size"),
        (read._replace(levels=read.levels + 16), "levels"),
        (read._replace(eighths=read.eighths + 64 * 300), "within the bytes"),
    ):
        with pytest.raises(FaultError, match=rule):
            check_batch(wrong, lengths, announced)
    assert isinstance(read, payload.Payload)
