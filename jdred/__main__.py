"""``python -m jdred``."""

import sys

from jdred.cli import main

sys.exit(main())
