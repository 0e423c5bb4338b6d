"""byssus for ProbLog: a `.pl` program as a torch module, with black boxes in its rules."""

from byssus_problog.program import Program as Program
