"""Masked diffusion models over the concepts of a program (NeSyDM)."""

from byssus.diffusion.model import Losses as Losses
from byssus.diffusion.model import MaskedDiffusion as MaskedDiffusion
from byssus.diffusion.prediction import Prediction as Prediction
from byssus.diffusion.program import WorldProgram as WorldProgram
from byssus.diffusion.program import as_world_program as as_world_program
from byssus.diffusion.schedules import Cosine as Cosine
from byssus.diffusion.schedules import Geometric as Geometric
from byssus.diffusion.schedules import Linear as Linear
from byssus.diffusion.schedules import Schedule as Schedule
from byssus.diffusion.training import Epoch as Epoch
from byssus.diffusion.training import train as train
