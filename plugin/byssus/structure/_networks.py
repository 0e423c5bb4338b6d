"""The networks of `StructureDiffusion`: one reads what is seen of a picture, one proposes loops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

__all__ = ["Encoder", "UnmaskingModel"]

_CODE = 16
"""Numbers by which a cell is described."""

HEADS = 4
_DROPOUT = 0.1


class Encoder(nn.Module):
    """What is seen of pictures, as a feature for each row and each column of cells.

    Args:
        rows: of a picture.
        columns: of a picture.
        classes: how many sub-images of its own a picture has at most. Two more values of a cell's
            class say that it shows another, and that it is hidden.
        entries: how many there are in the dictionary. One more value says that a cell is hidden.
        width: of the features.
        layers: of the transformer.
    """

    def __init__(
        self, rows: int, columns: int, classes: int, entries: int, width: int, layers: int
    ) -> None:
        super().__init__()
        self.shape = (rows, columns)
        self.classes = nn.Embedding(classes + 2, _CODE)
        self.entries = nn.Embedding(entries + 1, _CODE)
        self.of_row = nn.Linear(columns * _CODE, width)
        self.of_column = nn.Linear(rows * _CODE, width)
        self.place = nn.Parameter(0.1 * torch.randn(rows + columns, width))
        layer = nn.TransformerEncoderLayer(
            width, HEADS, 2 * width, _DROPOUT, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(
        self, x: tuple[Int[Tensor, "batch cells"], Int[Tensor, "batch cells"], Tensor]
    ) -> tuple[
        Float[Tensor, "batch lines width"],
        Bool[Tensor, "batch classes"],
        Int[Tensor, "batch columns"],
    ]:
        """Features of what is seen; of the picture's own sub-images, which there are; the program.

        Args:
            x: the class and the entry of each cell, and the program that draws what is seen.
        """
        classes, entries, program = x
        own = torch.arange(self.classes.num_embeddings - 2, device=classes.device)
        there = (classes[:, :, None] == own).any(1)
        cells = (self.classes(classes) + self.entries(entries)).unflatten(1, self.shape)
        rows = self.of_row(cells.flatten(2))
        columns = self.of_column(cells.transpose(1, 2).flatten(2))
        return self.layers(torch.cat([rows, columns], 1) + self.place), there, program


class UnmaskingModel(nn.Module):
    """What masked numbers of loops are likely to be.

    Each loop is a token, which knows the loop in its place of the program that was synthesised from
    what is seen.

    Args:
        loops: how many there are.
        widths: how many values each number of a loop has, what it draws last.
        width: of the tokens.
        layers: of the transformer.
    """

    def __init__(self, loops: int, widths: Sequence[int], width: int, layers: int) -> None:
        super().__init__()
        self.loops, self.widths = loops, tuple(widths)
        self.numbers = nn.ModuleList(nn.Embedding(values + 1, width) for values in widths)
        self.seen = nn.ModuleList(nn.Embedding(values, width) for values in widths)
        self.place = nn.Parameter(0.1 * torch.randn(loops, width))
        self.mix = nn.Sequential(nn.GELU(), nn.Linear(width, width))
        layer = nn.TransformerDecoderLayer(
            width, HEADS, 2 * width, _DROPOUT, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))
        self.logits = nn.Linear(width, sum(widths))
        # Most loops end where they can go no further.
        self.same = nn.Parameter(torch.full((len(self.widths),), 3.0))

    def forward(
        self,
        e: tuple[
            Float[Tensor, "batch lines width"],
            Bool[Tensor, "batch classes"],
            Int[Tensor, "batch columns"],
        ],
        c_t: Int[Tensor, "batch columns"],
    ) -> Float[Tensor, "batch literals"]:
        """Logits, given what is seen and partly masked loops."""
        lines, there, program = e
        state = c_t.reshape(len(c_t), self.loops, -1).unbind(2)
        seen = program.reshape(len(c_t), self.loops, -1).unbind(2)
        known = [embed(part) for embed, part in zip(self.numbers, state, strict=True)]
        known += [embed(part) for embed, part in zip(self.seen, seen, strict=True)]
        tokens = self.mix(torch.stack(known).sum(0)) + self.place
        logits = self.logits(self.layers(tokens, lines))
        same = [
            weight * F.one_hot(part, values)
            for weight, part, values in zip(self.same, seen, self.widths, strict=True)
        ]
        logits = logits + torch.cat(same, 2)
        # A loop draws no sub-image of the picture's own that there is not.
        before, entries = sum(self.widths[:-1]), self.widths[-1] - there.shape[1]
        possible = F.pad(there, (before, entries), value=True)[:, None]
        out: Tensor = logits.masked_fill(~possible, -torch.inf).flatten(1)
        return out
