"""Well-known single-task methods on MovieLens 100K, measured once; to be drawn beside runs on the same data.

Each does one of the two tasks. Splits: numpy.random.RandomState(s).permutation of the rows of u.data, the first 5,000
are the test part and all others are trained on, s = 0, 1, 2; figures are means over the three. MRR and MSE as in
evaluation.py, all items ranked but those trained on.
"""

from typing import NamedTuple

PROTOCOL = "single-task methods, each at one task: mean over three other 95/5 splits, all of the 95 % trained on"


class Peer(NamedTuple):
    name: str
    metric: str  # "mrr" or "mse"
    value: float
    source: str


PEERS = (
    Peer("EASE", "mrr", 0.1474, "closed form, lambda 200 (LensKit, RecBole)"),
    Peer("WARP", "mrr", 0.1379, "64 factors, tuned (LightFM)"),
    Peer("BPR", "mrr", 0.1303, "64 factors, tuned (cornac)"),
    Peer("popularity", "mrr", 0.0546, "items by how often they were rated"),
    Peer("matrix factorisation", "mse", 0.8002, "200 factors, tuned (cornac; benchmarks/peers.py)"),
    Peer("SVD++", "mse", 0.8188, "tuned (Surprise)"),
    Peer("biases", "mse", 0.8844, "user and item biases, regularised"),
)
MEASURED_ON = "ml-100k"
