"""Find libopus and talk to it through ctypes. Nothing is searched and no environment read until ``library()``."""

import ctypes
import ctypes.util
import functools
import importlib.util
import os
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_float, c_int, c_int32, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

ENVIRONMENT_VARIABLE = "JDRED_LIBOPUS"

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "opus_get_version_string": (c_char_p, []),
    "opus_strerror": (c_char_p, [c_int]),
    "opus_encoder_create": (c_void_p, [c_int32, c_int, c_int, POINTER(c_int)]),
    "opus_encoder_destroy": (None, [c_void_p]),
    "opus_encode_float": (c_int32, [c_void_p, POINTER(c_float), c_int, c_char_p, c_int32]),
    "opus_decoder_create": (c_void_p, [c_int32, c_int, POINTER(c_int)]),
    "opus_decoder_destroy": (None, [c_void_p]),
    "opus_decode_float": (c_int, [c_void_p, c_char_p, c_int32, POINTER(c_float), c_int, c_int]),
    # Variadic: only the fixed arguments are declared, the caller wraps the others (Apple's arm64 needs this).
    "opus_encoder_ctl": (c_int, [c_void_p, c_int]),
    "opus_decoder_ctl": (c_int, [c_void_p, c_int]),
}


class OpusError(RuntimeError):
    """libopus was not found, or it refused what it was asked."""


class Library(NamedTuple):
    """A loaded libopus."""

    path: str
    source: str
    """Who pointed at it: the environment variable, ``system`` or ``av wheel``."""
    functions: ctypes.CDLL
    """With the signatures above declared."""

    @property
    def version(self) -> str:
        """For example ``libopus 1.6.1``."""
        return self.functions.opus_get_version_string().decode("ascii", "replace")

    def check(self, code: int, what: str) -> int:
        """Pass a result on, or raise ``OpusError`` with libopus's words where it is negative."""
        if code < 0:
            reason = self.functions.opus_strerror(code).decode("ascii", "replace")
            raise OpusError(f"{what}: {reason} (libopus error {code})")
        return code


def library() -> Library:
    """The libopus of this process: ``JDRED_LIBOPUS`` if set, else the system's, else the one inside the av wheel.

    Raises:
      OpusError: none of them loads; the message lists what was tried.
    """
    return _load(os.environ.get(ENVIRONMENT_VARIABLE) or None)


@functools.cache
def _load(requested: str | None) -> Library:
    tried = []
    for source, path in _candidates(requested):
        try:
            functions = ctypes.CDLL(path)
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(functions, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            tried.append(f"{source}: {path} ({error})")
        else:
            return Library(path, source, functions)
    places = "; ".join(tried) or "no system library, no av wheel with one inside"
    raise OpusError(f"libopus not found. Tried: {places}. Install av or set {ENVIRONMENT_VARIABLE} to its path")


def _candidates(requested: str | None) -> Iterator[tuple[str, str]]:
    """``(source, path)`` in the order of trial. A library that was asked for is not silently replaced."""
    if requested is not None:
        yield ENVIRONMENT_VARIABLE, requested
        return
    system = ctypes.util.find_library("opus")
    if system is not None:
        yield "system", system
    spec = importlib.util.find_spec("av")
    for package in map(Path, (spec and spec.submodule_search_locations) or ()):
        for folder in (package.parent / "av.libs", package / ".dylibs"):
            for path in sorted(folder.glob("*opus*")):
                yield "av wheel", str(path)
