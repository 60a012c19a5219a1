"""The networks of the zoo by name."""

from zoo.adatt import AdaTT
from zoo.aitm import AITM
from zoo.esmm import ESMM
from zoo.layers import Network
from zoo.mmoe import MEMMoE, MMoE, OMoE
from zoo.ple import CGC, MEPLE, PLE
from zoo.shared_bottom import SharedBottom
from zoo.single_task import SingleTask
from zoo.stem import STEM

NETWORKS = {
    "single": SingleTask,
    "shared_bottom": SharedBottom,
    "omoe": OMoE,
    "mmoe": MMoE,
    "cgc": CGC,
    "ple": PLE,
    "me_mmoe": MEMMoE,
    "me_ple": MEPLE,
    "esmm": ESMM,
    "aitm": AITM,
    "stem": STEM,
    "adatt": AdaTT,
}


def build_network(name: str, num_users: int, num_items: int, **options) -> Network:
    """Build a network by its name in NETWORKS; `options` go to its constructor.

    Raises:
        ValueError: no network has this name, or its constructor rejects an option.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}: choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name](num_users, num_items, **options)
