"""Files that a disk, or somebody, has changed."""

from collections.abc import Iterator


def single_bit_flips(content: bytes) -> Iterator[bytes]:
    """The content with each of its bits changed in turn."""
    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            yield bytes(changed)
