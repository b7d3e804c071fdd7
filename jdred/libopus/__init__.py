"""The bridge to libopus: its networks in our modules, ours in its weight files.

``records`` knows how libopus writes arrays down, ``storage`` how it stores a layer (8 bits, blocks), ``places`` which
layer is which array of our modules; ``networks`` makes modules of layers and layers of modules, ``quantizers`` does so
with the tables of bytes, and ``files`` puts them together. Numbers only: no network runs here.
"""


class LibopusError(ValueError):
    """A file that does not hold libopus 1.6's networks, or a network that libopus 1.6 does not have."""
