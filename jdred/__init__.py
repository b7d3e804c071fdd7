"""jdred: Deep REDundancy for speech, in JAX."""
