"""The one list of all attacks."""

from tests.attacks import disk, flips, kills, signals
from tests.attacks.runner import Attack

ATTACKS: tuple[Attack, ...] = (kills.ATTACK, signals.ATTACK, flips.ATTACK, disk.ATTACK)
