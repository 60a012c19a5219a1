"""The one list of all attacks."""

from tests.attacks import disk, files, flags, flips, grading, kills, races, signals
from tests.attacks.runner import Attack

ATTACKS: tuple[Attack, ...] = (
    flags.ATTACK,
    files.ATTACK,
    kills.ATTACK,
    signals.ATTACK,
    flips.ATTACK,
    disk.ATTACK,
    races.ATTACK,
    grading.ATTACK,
)
