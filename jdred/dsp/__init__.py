"""Signal processing: PCM to features and back to LPC, mu-law, filters. Smooth parts are differentiable.

PCM at every boundary is float in [-1, 1]; inside, signals are in int16 units (``INT16_SCALE`` times that), because
the floors of the spectrum are absolute. Formulas: J.-M. Valin and J. Skoglund, "LPCNet" (ICASSP 2019) and
"A Real-Time Wideband Neural Vocoder at 1.6 kb/s" (Interspeech 2019), with the constants of their public code.
"""

INT16_SCALE = 32768.0
