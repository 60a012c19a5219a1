"""The networks that multi-task recommenders are compared by, one idea a file.

    blocks.py      pair encoder, MLP, expert bank, gate, tower: what all of them are made of
    mixtures.py    single task, shared-bottom, OMoE, MMoE, ME-MMoE, CGC, PLE, ME-PLE, AdaTT
    funnels.py     ESMM, AITM: tasks that follow one another, a like after a view
    stem.py        STEM: shared and task-specific embeddings

Every network is built as Network(num_users, num_items, embedding_dim, tasks, ...) and answers
forward(user_ids, item_ids) with one logit a task; see `blocks.Network`.
"""

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
