"""byssus for ProbLog: a `.pl` program as a torch module, with black boxes in its rules."""

from byssus_problog._foresight import plan as plan
from byssus_problog._grounding import NotObservable as NotObservable
from byssus_problog._tokens import observed as observed
from byssus_problog.blackboxes import register as register
from byssus_problog.evaluatable import CircuitFormula as CircuitFormula
from byssus_problog.program import Program as Program
from byssus_problog.semirings import read as read
from byssus_problog.semirings import semiring as semiring
