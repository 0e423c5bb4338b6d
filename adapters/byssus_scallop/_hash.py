"""Hashes of values: SipHash-1-3 with a zero key, over the bytes that Scallop hashes.

So `$hash` gives Scallop's numbers, except for a Symbol, which Scallop numbers as it meets it, and a
DateTime: these are hashed as text.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from ._types import RANGES
from ._values import Dropped, display

__all__ = ["hashed"]

_MASK = (1 << 64) - 1


def hashed(values: Sequence[Any], types: Sequence[str]) -> int:
    """What `$hash` gives."""
    return _siphash(_integer(len(values), 8) + b"".join(map(_bytes, values, types)))


def _bytes(value: Any, type_: str) -> bytes:
    if type_ in RANGES:
        return _integer(value, 8 if type_.endswith("size") else int(type_[1:]) // 8)
    if type_ == "f32":
        return struct.pack("<f", value)
    if type_ == "f64":
        return struct.pack("<d", value)
    if type_ == "bool":
        return bytes([value])
    if type_ == "char":
        return _integer(ord(value), 4)
    if type_ == "Entity":
        return _text("entity") + _integer(value, 8)
    if type_ == "Duration":
        seconds, nanoseconds = divmod(value.nanoseconds, 10**9)
        return _integer(value.months, 4) + _integer(seconds, 8) + _integer(nanoseconds, 4)
    if type_ == "Tensor":
        raise Dropped("a tensor has no hash")
    return _text(display(value, type_))


def _integer(value: int, width: int) -> bytes:
    return (value % (1 << 8 * width)).to_bytes(width, "little")


def _text(text: str) -> bytes:
    # No text holds this byte, so that ("ab", "c") and ("a", "bc") differ.
    return text.encode() + b"\xff"


def _siphash(data: bytes) -> int:
    v = [0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573]
    whole = len(data) // 8 * 8
    last = (len(data) % 256).to_bytes(1, "little")
    padded = data + bytes(7 - (len(data) - whole)) + last
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        _round(v)
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _round(v: list[int]) -> None:
    a, b, c, d = v
    a = (a + b) & _MASK
    b = _rotated(b, 13) ^ a
    a = _rotated(a, 32)
    c = (c + d) & _MASK
    d = _rotated(d, 16) ^ c
    a = (a + d) & _MASK
    d = _rotated(d, 21) ^ a
    c = (c + b) & _MASK
    b = _rotated(b, 17) ^ c
    c = _rotated(c, 32)
    v[:] = a, b, c, d


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> 64 - by) & _MASK
