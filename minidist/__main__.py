"""`python -m minidist` is the program `minidist`."""

import sys

from minidist.cli import main

sys.exit(main())
