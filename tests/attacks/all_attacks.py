"""The one list of all attacks."""

from tests.attacks import disk, files, flags, flips, graded_hostile, kills, races, signals, stopped_grader
from tests.attacks.runner import Attack

ATTACKS: tuple[Attack, ...] = tuple(
    module.ATTACK for module in (flags, files, kills, signals, flips, disk, races, stopped_grader, graded_hostile)
)
