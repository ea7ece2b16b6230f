"""The alphabet in which byte-level BPE writes bytes (GPT-2, Radford et al. 2019)."""

from __future__ import annotations

_PRINTED = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_OTHERS = [byte for byte in range(256) if byte not in _PRINTED]
BYTES = tuple(chr(byte if byte in _PRINTED else 256 + _OTHERS.index(byte)) for byte in range(256))
"""The character of each byte: itself where it prints, else one from U+0100 on."""
CHARACTERS = {character: byte for byte, character in enumerate(BYTES)}
"""The byte of each character."""
