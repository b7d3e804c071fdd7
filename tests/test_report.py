"""The page: what is in it, and that its pictures and timelines say what happened when."""

import base64
import io
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from jdred.config import ReceiverConfig, SenderConfig
from jdred.evaluation.compare import CONFIGURATIONS, MEASURES, Comparison, Outcome
from jdred.evaluation.gaps import loudest_gaps
from jdred.evaluation.pictures import spectrogram_png
from jdred.evaluation.report import gathered, page
from jdred.link.receiver import Source

DELAY = 104
PACKETS = 51


def tone(frequency_hz, begin=0.0, end=1.0):
    time = np.arange(16_000) / 16_000
    return (0.3 * np.sin(2 * np.pi * frequency_hz * time) * ((time >= begin) & (time < end))).astype(np.float32)


@pytest.fixture(scope="module")
def comparison():
    lost = np.zeros(PACKETS, bool)
    lost[[0, 10, 11, 12]] = True
    outcomes = {}
    for number, name in enumerate(CONFIGURATIONS):
        sources = [Source.GOOD] * PACKETS
        if name != "original":
            sources = [Source.DRED if gone else Source.GOOD for gone in lost]
        scores = dict.fromkeys(MEASURES, 0.5) | {"plcmos": None}
        outcomes[name] = Outcome(tone(500 * (number + 1)), sources, 40.0, 4.0 * number, 6.0, scores)
    return Comparison(lost, DELAY, outcomes)


@pytest.fixture(scope="module")
def html(comparison):
    return page("<b>Clip</b> & co", comparison, SenderConfig(dred_duration_ms=1000), ReceiverConfig())


def test_page_is_one_file(html):
    class Links(HTMLParser):
        found = []

        def handle_starttag(self, tag, attributes):
            self.found += [value for name, value in attributes if name in ("src", "href")]

    Links().feed(html)
    assert len(Links.found) == 2 * len(CONFIGURATIONS) + 3  # sound and picture each, and one gap close up
    assert all(link.startswith("data:") for link in Links.found)
    assert not re.search(r"https?://|@import|url\(", html)
    assert "&lt;b&gt;Clip&lt;/b&gt; &amp; co" in html
    assert not re.search(r"\$[a-z_]+", html)
    assert len(html) < 8e5


def test_sounds_are_inside(html, comparison):
    sounds = re.findall(r"data:audio/wav;base64,([^\"]+)", html)
    for data, outcome in zip(sounds, comparison.outcomes.values(), strict=True):
        pcm, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
        assert rate == 16_000
        np.testing.assert_allclose(pcm, outcome.pcm, atol=1 / 32768)


def test_timeline_is_in_clip_time(html):
    strips = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(strips) == len(CONFIGURATIONS)
    for number, strip in enumerate(strips):
        rects = re.findall(r'class="(\w+)" x="([\d.]+)" width="([\d.]+)"', strip)
        kinds, begins, widths = [r[0] for r in rects], [float(r[1]) for r in rects], [float(r[2]) for r in rects]
        repaired = "LOST" if number == 0 else "DRED"
        assert kinds == [repaired, "GOOD", repaired, "GOOD"]
        # Packet 10 is heard from 200 ms on, less the delay of 6.5 ms; packet 0 is cut by it.
        np.testing.assert_allclose(begins, [0, 0.0135, 0.1935, 0.2535], atol=1e-4)
        np.testing.assert_allclose(sum(widths), 1, atol=1e-3)


def test_gaps_close_up_are_the_loudest_and_lie_where_packets_were_lost(html, comparison):
    # One lost packet is too short to see. Packets 10 .. 12 are heard from 3200 samples on, less the delay.
    assert loudest_gaps(comparison) == [(3200 - DELAY, 4160 - DELAY)]
    buttons = re.findall(r'data-sound="(\d)" data-begin="([\d.]+)" data-end="([\d.]+)"', html)
    assert [number for number, _, _ in buttons] == ["0", "1", "3"]
    assert {(begin, end) for _, begin, end in buttons} == {("0.000", f"{(4160 - DELAY + 4800) / 16000:.3f}")}
    mark = re.search(r'class="LOST" style="left:([\d.]+)%;width:([\d.]+)%"', html)
    np.testing.assert_allclose(np.float64(mark.groups()), [100 * 3096 / 8856, 100 * 960 / 8856], atol=0.01)
    lost = np.zeros(PACKETS, bool)
    lost[np.r_[5:8, 15:20, 30:32, 40:43]] = True
    speech = comparison.outcomes["original"]._replace(pcm=tone(500, 0.25, 0.7))
    quiet_first = comparison._replace(lost=lost, outcomes={**comparison.outcomes, "original": speech})
    assert [(begin + DELAY) // 320 for begin, _ in loudest_gaps(quiet_first)] == [15, 30, 40]
    none = comparison._replace(lost=np.zeros(PACKETS, bool))
    assert "close up" not in page("x", none, SenderConfig(), ReceiverConfig())


def test_facts_and_figures(html):
    assert "51 packets &middot; 4 lost (7.8 %) &middot; 2 gaps of 40 ms on average, the longest 60 ms" in html
    rows = re.findall(r"<tr><th>(.*?)</th>(.*?)</tr>", html.split("<tbody>")[1])
    cells = {name: re.findall(r"<td[^>]*>(.*?)</td>", row) for name, row in rows}
    assert cells["DRED"] == ["0.50", "0.50", "0.50", "&ndash;", "40.0", "22.0", "12.0", "6.0", "47", "0", "4", "0"]


def test_bars_add_up(html):
    for bar in re.findall(r'<div class="bar">.*?</div></div>', html):
        widths = [float(width) for width in re.findall(r"width:([\d.]+)%", bar)]
        assert sum(widths) == pytest.approx(78, abs=0.1)


def test_spectrogram_shows_frequency_and_time():
    pcm = tone(4000, begin=0.5, end=0.75)
    picture = imread(io.BytesIO(spectrogram_png(pcm, pcm)))[..., :3].sum(-1)
    rows, columns = picture.shape
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert row / rows == pytest.approx(0.5, abs=0.01)
    assert 0.5 <= column / columns <= 0.75
    bright = np.flatnonzero(picture[row] > 0.8 * picture.max()) / (columns - 1)
    assert bright.min() == pytest.approx(0.5, abs=0.02)
    assert bright.max() == pytest.approx(0.75, abs=0.02)


def test_a_part_of_a_spectrogram_is_cut_out_of_the_whole():
    pcm = tone(1000)
    whole, part = (imread(io.BytesIO(spectrogram_png(pcm, pcm, *cut)))[..., :3] for cut in ((), (4096, 8192)))
    hop = len(pcm) / whole.shape[1]
    np.testing.assert_array_equal(part, whole[:, round(4096 / hop) :][:, : part.shape[1]])


def test_long_clips_stay_narrow():
    pcm = np.tile(tone(1000), 90)
    assert 2500 <= imread(io.BytesIO(spectrogram_png(pcm, pcm))).shape[1] <= 4000


def test_pages_are_gathered_in_frames(comparison):
    alone = page("a <b>", comparison, SenderConfig(), ReceiverConfig())
    html = gathered("Loss & repair", {"a <b>": alone}, {"Means": "| x < y |"}, {"Bars": b"\x89PNG"})
    frame = re.search(r'<iframe title="a &lt;b&gt;" srcdoc="([^"]*)"></iframe>', html)
    assert unescape(frame[1]) == alone
    assert "| x &lt; y |" in html
    assert "data:image/png;base64,iVBORw" in html
    assert "<title>jdred: Loss &amp; repair</title>" in html
    assert not re.search(r"https?://|@import", html)
