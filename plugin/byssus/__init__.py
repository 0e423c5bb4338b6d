"""byssus: black boxes, exact circuits and sampled worlds in one differentiable logic program."""

from byssus.blackbox import BlackBox as BlackBox
from byssus.blackbox import blackbox as blackbox
from byssus.circuit import Circuit as Circuit
from byssus.distribution import Distribution as Distribution
from byssus.domains import Boolean as Boolean
from byssus.domains import Discrete as Discrete
from byssus.domains import Domain as Domain
from byssus.domains import Float as Float
from byssus.domains import Integer as Integer
from byssus.domains import List as List
from byssus.domains import Padded as Padded
from byssus.domains import Permutation as Permutation
from byssus.domains import Tuple as Tuple
from byssus.errors import BlackBoxError as BlackBoxError
from byssus.errors import BlackBoxOutputError as BlackBoxOutputError
from byssus.errors import BlackBoxTimeout as BlackBoxTimeout
from byssus.errors import BudgetExceeded as BudgetExceeded
from byssus.errors import ByssusError as ByssusError
from byssus.errors import CompilationLimit as CompilationLimit
from byssus.errors import ConceptError as ConceptError
from byssus.errors import DomainError as DomainError
from byssus.errors import EmptyBatchError as EmptyBatchError
from byssus.errors import NondeterministicError as NondeterministicError
from byssus.errors import ProbabilityError as ProbabilityError
from byssus.errors import ProgramError as ProgramError
from byssus.errors import ShapeError as ShapeError
from byssus.errors import TargetError as TargetError
from byssus.estimators import ISED as ISED
from byssus.estimators import RLOO as RLOO
from byssus.estimators import Auto as Auto
from byssus.estimators import Distinct as Distinct
from byssus.estimators import Estimator as Estimator
from byssus.estimators import IndeCateR as IndeCateR
from byssus.estimators import Marginals as Marginals
from byssus.formula import Formula as Formula
from byssus.plan import Plan as Plan
from byssus.provenance import Exact as Exact
from byssus.provenance import Mixed as Mixed
from byssus.provenance import Provenance as Provenance
from byssus.provenance import Sampled as Sampled
from byssus.worlds import Concepts as Concepts
from byssus.worlds import Worlds as Worlds
from byssus.worlds import exhaustive as exhaustive
from byssus.worlds import independent as independent

__version__ = "0.1.0"
