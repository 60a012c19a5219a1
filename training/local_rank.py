"""The rank of this process on its machine, read from the environment that torchrun sets. Imports nothing heavy."""

import os


def local_rank() -> int:
    """0 to the number of processes on this machine - 1; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_local_main() -> bool:
    """True on local rank 0, the only rank that prints."""
    return local_rank() == 0
