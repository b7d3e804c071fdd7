"""What README shows runs as it stands there."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[1] / "README.md"


def code_block(word: str) -> str:
    """The Python block of README in which a word stands."""
    [block] = [code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if word in code]
    return block


def test_streaming(rng):
    names = {}
    exec(code_block("every_20_ms"), names)
    heard = [names["every_20_ms"](0.1 * rng.normal(size=320), arrived=n != 14) for n in range(20)]
    assert [len(pcm) for pcm in heard] == [0] * 10 + [320] * 10
    assert all(np.all(np.isfinite(pcm)) for pcm in heard)


def test_batch(rng):
    names = {"pcm": (0.1 * rng.normal(size=(4, 50 * 320))).astype(np.float32)}
    exec(code_block("vmap"), names)
    assert names["heard"].shape == (4, 50 * 320)
    assert np.all(np.isfinite(names["heard"]))
