"""Figures of well-known single-task methods on MovieLens 100K; documentation and figures quote these.

All are measured in one run of `python benchmark.py multitask quality`: the splits of seeds 0, 1 and 2 with 5 % of the
rows for the test, trained on all other rows, mean over the three. MRR and MSE as in evaluation.py: every item is ranked
except the user's own training items. Settings of every method: benchmarks/peers.py.
"""

from typing import NamedTuple

MEASURED_ON = "ml-100k"
PROTOCOL = "single-task methods, each at one task: mean over the splits of seeds 0 to 2, all of the 95 % trained on"
PROVENANCE = (
    "Champion (main.py --preset champion, last epoch) and other methods: python benchmark.py multitask quality, means "
    "over the splits of seeds 0 to 2, all of the 95 % trained on"
)


class Peer(NamedTuple):
    """A method that does one of the two tasks.

    metric: "mrr" or "mse".
    in_figure: drawn beside the runs of the sweep.
    """

    name: str
    metric: str
    value: float
    source: str
    in_figure: bool = False


class BothTasks(NamedTuple):
    """A network that does both tasks, measured in the same run as the peers."""

    name: str
    mrr: float
    mse: float


CHAMPION = BothTasks("champion", 0.1529, 0.7620)
PEERS = (
    Peer("EASE", "mrr", 0.1474, "closed form, lambda 200 (Steck 2019)", in_figure=True),
    Peer("ALS", "mrr", 0.1447, "64 factors (implicit)"),
    Peer("WARP", "mrr", 0.1390, "64 factors (LightFM)", in_figure=True),
    Peer("MultiVAE", "mrr", 0.1338, "RecBole"),
    Peer("BPR (RecBole)", "mrr", 0.1289, "RecBole", in_figure=True),
    Peer("BPR (cornac)", "mrr", 0.1251, "64 factors (cornac)"),
    Peer("popularity", "mrr", 0.0546, "items by their number of ratings", in_figure=True),
    Peer("matrix factorization", "mse", 0.8002, "200 factors (cornac)", in_figure=True),
    Peer("mean of 5 SVD and 2 KNN", "mse", 0.8085, "Surprise"),
    Peer("SVD", "mse", 0.8141, "100 factors (Surprise)"),
    Peer("SVD++", "mse", 0.8177, "50 factors (Surprise)", in_figure=True),
    Peer("item-KNN", "mse", 0.8277, "40 neighbors (Surprise)"),
    Peer("user + item biases", "mse", 0.8842, "ridge regression (Koren, Bell and Volinsky 2009)", in_figure=True),
)
IN_FIGURE = tuple(peer for peer in PEERS if peer.in_figure)


def value_of(name: str) -> float:
    """The figure of the peer with this name."""
    return next(peer.value for peer in PEERS if peer.name == name)
