"""`python -m convscope`: the command line."""

import sys

from convscope.cli import run

sys.exit(run())
