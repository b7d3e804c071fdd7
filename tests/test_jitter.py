"""Packets put back in order: numbers that wrap around, duplicates, late ones, restarts; and the receiver on top."""

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from jdred.assets import demo_clip_path
from jdred.config import PACKET_SAMPLES, ReceiverConfig, SenderConfig
from jdred.link.call import packetize
from jdred.link.jitter import JUMP_SAMPLES, LATE_IN_A_ROW, Arrival, JitterBuffer, Timeline
from jdred.link.receiver import Receiver, Source
from jdred.link.sender import Sender
from jdred.opus import codec

CLOCKS = 960
"""RTP clocks in 20 ms."""


def placed(timeline, number, first=(0, 0), due=0, start=0, source=7, samples=PACKET_SAMPLES):
    """Put packet ``number`` of a stream of 20 ms packets; its bytes are its number."""
    sequence, timestamp = (first[0] + number) % (1 << 16), (first[1] + CLOCKS * number) % (1 << 32)
    return timeline.place(str(number).encode(), samples, sequence, timestamp, source, due, start)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 65535), st.integers(0, (1 << 32) - 1), st.randoms(use_true_random=False))
def test_any_order_comes_out_right(sequence, timestamp, random):
    timeline, buffer = Timeline(), JitterBuffer()
    numbers = [0, *sorted(range(1, 60), key=lambda n: n + random.uniform(0, 8))]
    twice = [n for n in numbers for _ in range(1 + (random.random() < 0.2))]
    for number in twice:
        for arrival in placed(timeline, number, (sequence, timestamp)):
            assert buffer.insert(arrival)
    assert [a.position for a in buffer.after(0)] == [PACKET_SAMPLES * n for n in range(60)]
    assert [a.packet for a in buffer.after(0)] == [str(n).encode() for n in range(60)]
    assert [a.sequence for a in buffer.after(0)] == list(range(sequence, sequence + 60))
    assert timeline.counts.received == len(twice)
    assert timeline.counts.duplicate == len(twice) - 60
    assert timeline.counts.reordered == sum(n < max(numbers[: i + 1]) for i, n in enumerate(numbers))
    assert timeline.counts.late == timeline.counts.restarts == timeline.counts.shifts == 0


def test_numbers_wrap_around_again_and_again():
    timeline = Timeline()
    first = (65000, (1 << 32) - 5 * CLOCKS)
    for number in range(0, 150_000, 7):
        [arrival] = placed(timeline, number, first, due=PACKET_SAMPLES * number, start=PACKET_SAMPLES * number)
        assert arrival.position == PACKET_SAMPLES * number
        assert arrival.sequence == 65000 + number
    assert timeline.counts.restarts == 0


def test_late_packets_are_dropped_and_counted():
    timeline = Timeline()
    placed(timeline, 0)
    assert placed(timeline, 3, due=1 * PACKET_SAMPLES)
    assert not placed(timeline, 1, due=2 * PACKET_SAMPLES)
    assert placed(timeline, 2, due=2 * PACKET_SAMPLES)
    assert not placed(timeline, 2, due=3 * PACKET_SAMPLES)
    assert (timeline.counts.late, timeline.counts.duplicate, timeline.counts.reordered) == (1, 1, 2)


def test_a_delay_that_grew_for_good_moves_the_time_line():
    timeline = Timeline()
    placed(timeline, 0)
    due, start = 200 * PACKET_SAMPLES, 210 * PACKET_SAMPLES
    came = [placed(timeline, n, due=due, start=start) for n in range(1, LATE_IN_A_ROW + 3)]
    assert came[: LATE_IN_A_ROW - 1] == [[]] * (LATE_IN_A_ROW - 1)
    positions = [arrival.position for [arrival] in came[LATE_IN_A_ROW - 1 :]]
    assert positions == [start, start + PACKET_SAMPLES, start + 2 * PACKET_SAMPLES]
    assert (timeline.counts.shifts, timeline.counts.restarts) == (1, 0)


@pytest.mark.parametrize(
    ("first", "source"), [((30_000, 12345), 8), ((0, 0), 8), ((9_000, 3 * JUMP_SAMPLES + 48_000 * 60), 7)]
)
def test_a_restarted_sender_is_taken_over(first, source):
    timeline = Timeline()
    for number in range(50):
        placed(timeline, number, due=PACKET_SAMPLES * number)
    due, start = 50 * PACKET_SAMPLES, 60 * PACKET_SAMPLES
    assert placed(timeline, 0, first, due, start, source) == []
    begun = placed(timeline, 1, first, due, start, source)
    assert [(a.position, a.packet, a.stream) for a in begun] == [(start, b"0", 1), (start + 320, b"1", 1)]
    [third] = placed(timeline, 2, first, due, start, source)
    assert (third.position, third.stream) == (start + 640, 1)
    assert timeline.counts.restarts == 1


def test_a_stray_packet_is_no_restart_and_an_old_stream_does_not_come_back():
    timeline = Timeline()
    for number in range(5):
        placed(timeline, number)
    assert placed(timeline, 20_000) == []
    assert placed(timeline, 3, (55, 66), source=9) == []
    [next_one] = placed(timeline, 5)
    assert next_one.position == 5 * PACKET_SAMPLES
    for number in (0, 1):
        placed(timeline, number, (100, 100), start=3200, source=10)
    assert timeline.counts.restarts == 1
    assert placed(timeline, 6) == placed(timeline, 7) == placed(timeline, 8) == []
    assert timeline.counts.restarts == 1


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=60))
@settings(deadline=None, max_examples=60)
def test_buffer_is_a_sorted_dictionary(work):
    buffer, model = JitterBuffer(), {}
    for position, put in work:
        if put:
            arrival = Arrival(position, 1, b"")
            assert buffer.insert(arrival) == (position not in model)
            model.setdefault(position, arrival)
        else:
            assert buffer.take(position) == model.get(position)
            model = {k: v for k, v in model.items() if k > position}
        assert [a.position for a in buffer.after(20)] == sorted(k for k in model if k >= 20)
        assert (buffer.first().position if len(buffer) else None) == (min(model) if model else None)


PACKETS = 60


@pytest.fixture(scope="module")
def packets(models):
    pcm, _ = soundfile.read(demo_clip_path(), dtype="float32")
    sender = Sender(models, SenderConfig(lbrr_bps=16_000, dred_duration_ms=400))
    return [sender.send(block) for block in packetize(pcm[8000 : 8000 + PACKETS * PACKET_SAMPLES])]


def pushed(models, packets, lost, config):
    receiver, heard, sources = Receiver(models, config), [], []
    for number, packet in enumerate(packets):
        heard.append(receiver.push(None if number in lost else packet))
        sources.extend(receiver.last_sources)
    while receiver.waiting:
        heard.append(receiver.drain())
        sources.extend(receiver.last_sources)
    return np.concatenate(heard), sources, receiver


def put_and_played(models, schedule, slots, config):
    """``schedule``: for each 20 ms the packets that come in it, ``(number of 20 ms since the start, packet)``."""
    receiver, heard, sources = Receiver(models, config), [], []
    for slot in range(slots):
        for number, packet in schedule.get(slot, []):
            receiver.put(packet, (65_500 + number) % 65536, (99 + CLOCKS * number) % (1 << 32), 1)
        heard.append(receiver.play())
        sources.extend(receiver.last_sources)
    return np.concatenate(heard), sources, receiver


def test_a_disordered_network_sounds_as_an_orderly_one(models, packets, rng):
    lost, config = {20, 21, 22, 30}, ReceiverConfig(playout_delay_ms=160)
    schedule = {}
    for number, packet in enumerate(packets):
        for late in [0 if number == 0 else int(rng.integers(0, 8))] * (1 + (number % 5 == 0)):
            if number not in lost:
                schedule.setdefault(number + late, []).append((number, packet))
    heard, sources, receiver = put_and_played(models, schedule, PACKETS + 8, config)
    calm, wanted, _ = pushed(models, packets, lost, config)
    assert sources[:25] == wanted[:25]
    kept = [n for n in range(PACKETS) if sources[n] == wanted[n]]
    assert len(kept) >= PACKETS - 1  # only what repairs packet 30 may have been late for it
    np.testing.assert_array_equal(heard[: 20 * 320], calm[: 20 * 320])
    np.testing.assert_allclose(heard[45 * 320 :], calm[45 * 320 :], atol=1e-6)
    counts = receiver.timeline.counts
    assert counts.duplicate == sum(number % 5 == 0 and number not in lost for number in range(PACKETS))
    assert counts.reordered > 5
    assert counts.late == counts.restarts == 0


def test_real_time_decides_at_the_deadline_and_offline_waits(models, packets):
    lost = set(range(20, 32))
    for delay_ms, repaired in ((0, 0), (60, 3), (240, 12)):
        config = ReceiverConfig(playout_delay_ms=delay_ms, use_lbrr=False)
        _, sources, _ = pushed(models, packets, lost, config)
        assert sources[20:32] == [Source.PLC] * (12 - repaired) + [Source.DRED] * repaired
    receiver, lengths, sources = Receiver(models, ReceiverConfig(offline=True, playout_delay_ms=0)), [], []
    for number, packet in enumerate(packets[:40]):
        lengths.append(len(receiver.push(None if number in lost else packet)))
        sources.append(list(receiver.last_sources))
    assert lengths == [320] * 20 + [0] * 12 + [13 * 320] + [320] * 7
    assert sources[32] == [Source.DRED] * 11 + [Source.LBRR, Source.GOOD]


def test_a_packet_that_comes_too_late_is_repaired(models, packets):
    config = ReceiverConfig(playout_delay_ms=60, use_lbrr=False)
    schedule = {n: [(n, packet)] for n, packet in enumerate(packets[:40])}
    schedule[24] = [(20, packets[20]), *schedule[24]]
    del schedule[20]
    _, sources, receiver = put_and_played(models, schedule, 40, config)
    assert sources[19:22] == [Source.GOOD, Source.DRED, Source.GOOD]
    assert receiver.timeline.counts.late == 1
    assert len(sources) == 37


@pytest.mark.parametrize("packet_ms", [10, 40, 60])
def test_packets_of_other_durations(models, packet_ms):
    pcm, _ = soundfile.read(demo_clip_path(), dtype="float32")
    encoder, decoder = codec.Encoder(), codec.Decoder()
    blocks = pcm[8000 : 8000 + 16 * 1920].reshape(-1, 16 * packet_ms)
    coded = [encoder.encode(block) for block in blocks]
    plain = np.concatenate([decoder.decode(packet) for packet in coded])

    def run(order):
        receiver, heard, turn = Receiver(models, ReceiverConfig(playout_delay_ms=200)), [], 0
        for slot in range(106):
            while turn < len(order) and order[turn] * packet_ms <= 20 * slot:
                number = order[turn]
                receiver.put(coded[number], number, 48 * packet_ms * number)
                turn += 1
            heard.append(receiver.play())
        return np.concatenate(heard), receiver

    swapped = list(range(len(coded)))
    swapped[4:6] = 5, 4
    for order in (list(range(len(coded))), swapped):
        heard, receiver = run(order)
        np.testing.assert_array_equal(heard, plain)
        assert receiver.counts == {Source.GOOD: 96}
    heard, receiver = run([n for n in range(len(coded)) if n != 6])
    assert receiver.counts[Source.PLC] == max(1, packet_ms // 20)
    assert len(heard) == len(plain)
    assert np.max(np.abs(heard[-320 * 20 :] - plain[-320 * 20 :])) < 0.05


def test_silence_that_was_not_sent_is_not_lost(models):
    """DTX: sequence numbers go on, timestamps jump."""
    pcm, _ = soundfile.read(demo_clip_path(), dtype="float32")
    talk = pcm[8000 : 8000 + 25 * 320]
    encoder = codec.Encoder(dtx=True)
    packets = [encoder.encode(block) for block in packetize(np.concatenate([talk, np.zeros(50 * 320), talk]))]
    receiver, sequence, sources = Receiver(models, ReceiverConfig(playout_delay_ms=600)), 0, []
    for number, packet in enumerate(packets):
        if len(packet) > 2:
            receiver.put(packet, sequence, CLOCKS * number)
            sequence += 1
        assert np.all(np.isfinite(receiver.play()))
        sources.extend(receiver.last_sources)
    assert sequence < 80
    assert set(sources) == {Source.GOOD}


def test_a_first_packet_that_was_held_up_costs_no_delay(models, packets):
    receiver = Receiver(models, ReceiverConfig(playout_delay_ms=100))
    for number in range(30):
        receiver.put(packets[number], number, CLOCKS * number)
    for number in range(30, 50):
        receiver.put(packets[number], number, CLOCKS * number)
        receiver.play()
    assert receiver.waiting == 5
    assert receiver.counts == {Source.GOOD: 15}


def test_a_sender_that_starts_anew_goes_on(models, packets):
    """Kill and restart mid-call: other numbers, another codec state; what follows is what a fresh decoder plays."""
    receiver, heard = Receiver(models, ReceiverConfig(playout_delay_ms=100)), []
    for slot in range(30):
        receiver.put(packets[slot], slot, CLOCKS * slot, 1)
        heard.append(receiver.play())
    for _ in range(10):
        heard.append(receiver.play())
    for slot in range(40):
        receiver.put(packets[slot], (777 + slot) % 65536, 555 + CLOCKS * slot, 2)
        heard.append(receiver.play())
    assert receiver.timeline.counts.restarts == 1
    decoder = codec.Decoder()
    plain = np.concatenate([decoder.decode(packet) for packet in packets[:40]])
    tail = np.concatenate(heard)[-10 * 320 :]
    # The second stream plays once its second packet came, the delay behind that.
    begin = 40 - 10 - 6
    np.testing.assert_allclose(tail[320:], plain[begin * 320 : (begin + 10) * 320][320:], atol=1e-6)
    assert receiver.waiting == 5 + 1
