"""The one list of all attacks."""

from tests.attacks import disk, files, flags, flips, grading, kills, races, signals, solutions
from tests.attacks.runner import Attack

ATTACKS: tuple[Attack, ...] = tuple(
    module.ATTACK for module in (flags, files, kills, signals, flips, disk, races, grading, solutions)
)
