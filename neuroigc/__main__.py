"""``python -m neuroigc``: the command, for torchrun and where it is not on the path."""

import sys

from neuroigc.cli import main

if __name__ == "__main__":
    sys.exit(main())
