"""Random streams that depend on the seed of the run and on their place in it alone, so that they can be drawn again."""

import torch

GOLDEN = 0x9E3779B1  # 2**32 over the golden ratio: puts the streams of neighbouring seeds far apart


def stream(seed: int, place: int) -> torch.Generator:
    """A generator on the processor for one place of a run: an epoch, or a negative number for what is no epoch.

    The generator looks at the lower 32 bits of its seed and no others, so both numbers are folded into these.
    """
    return torch.Generator().manual_seed((seed * GOLDEN + place) % 2**32)
