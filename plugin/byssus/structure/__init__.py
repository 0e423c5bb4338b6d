"""Programs as structure: 2D for-loops over a grid of cells, synthesised, drawn and learned."""

from byssus.structure.generator import Completion as Completion
from byssus.structure.generator import StructureDiffusion as StructureDiffusion
from byssus.structure.generator import holes as holes
from byssus.structure.loops import ForLoop2D as ForLoop2D
from byssus.structure.loops import Loop as Loop
from byssus.structure.loops import Structure as Structure
from byssus.structure.loops import canonical as canonical
from byssus.structure.loops import equivalent as equivalent
from byssus.structure.loops import places as places
from byssus.structure.rendering import drawn as drawn
from byssus.structure.rendering import render as render
from byssus.structure.synthesis import Similarity as Similarity
from byssus.structure.synthesis import Synthesis as Synthesis
from byssus.structure.synthesis import assemble as assemble
from byssus.structure.synthesis import cut as cut
from byssus.structure.synthesis import synthesize as synthesize
