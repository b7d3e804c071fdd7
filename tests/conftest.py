"""Fixtures that several rooms share."""

import os
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(os.environ.get("JDRED_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))


def load_golden(name: str):
    """The golden file ``name.npz``; the test is skipped where it is absent (see JDRED_GOLDEN)."""
    path = GOLDEN / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"golden data absent: {path} (set JDRED_GOLDEN)")
    return np.load(path)


def golden_clips(data) -> list[str]:
    """Names of the clips that a golden file holds."""
    return sorted(key[: -len("/pcm")] for key in data.files if key.endswith("/pcm"))


@pytest.fixture
def golden():
    return load_golden


@pytest.fixture
def rng():
    return np.random.default_rng(0)
