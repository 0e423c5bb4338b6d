"""`python -m byssus_problog`: ProbLog's own command line, which then knows of byssus.

So `-k byssus` chooses its circuits, and `byssus` is a task.
"""

import sys

from problog.tasks import main

import byssus_problog as byssus_problog

sys.exit(main(sys.argv[1:]))
