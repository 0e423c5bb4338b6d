"""Pictures as PNG files, with nothing but the standard library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

GAP = 8  # pixels


def sheet(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Images of one size, (channels, height, width) each, in rows on white."""
    lines = []
    for row in rows:
        framed = [torch.nn.functional.pad(image, (GAP,) * 4, value=1.0) for image in row]
        lines.append(torch.cat(framed, 2))
    return torch.cat(lines, 1)


def write_png(file: Path, image: Tensor) -> None:
    """Write an image, grey (1, height, width) or red, green and blue (3, height, width), 0 to 1."""
    channels, height, width = image.shape
    if channels not in (1, 3):
        raise ValueError(f"an image with {channels} channels: give one with 1 or 3")
    values = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).reshape(height, -1)
    # Each line begins with the number of its filter; 0 is none.
    lines = torch.nn.functional.pad(values, (1, 0)).contiguous().numpy().tobytes()
    header = struct.pack(">2I5B", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in parts:
        data += struct.pack(">I", len(content)) + name + content
        data += struct.pack(">I", zlib.crc32(name + content))
    file.write_bytes(data)
