"""The networks of the zoo by name."""

from zoo.funnels import AITM, ESMM
from zoo.mixtures import CGC, MEPLE, PLE, AdaTT, MEMMoE, MMoE, OMoE, SharedBottom, SingleTask
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
