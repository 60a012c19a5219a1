"""Random streams that depend only on the seed of the run and on a stream number, so that they can be drawn again."""

import torch

GOLDEN = 0x9E3779B1  # 2**32 / golden ratio: puts the streams of neighboring seeds far apart


def stream(seed: int, number: int) -> torch.Generator:
    """A generator on the CPU; number: the epoch, or a negative number for anything else.

    torch.Generator uses only the lower 32 bits of its seed, so both numbers are combined into 32 bits.
    """
    return torch.Generator().manual_seed((seed * GOLDEN + number) % 2**32)
