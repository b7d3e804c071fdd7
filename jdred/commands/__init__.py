"""Subcommands of `jdred` by room: each file has dataclasses, functions and a table ``RUN`` of the two."""
