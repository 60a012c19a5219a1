"""Other recommenders on the same ratings: one function per peer, each optional, each for one of the two tasks.

A fit takes the training rows and returns a function of row numbers, by task:

    rating     predict(users, items) -> (R,) predicted ratings
    ranking    scores(users) -> (R, num_items) scores, a row per user

All run on one thread. Their settings are the best of a few tries on a validation part, 5 % of the rows, cut out of the
train part of split 0; none was chosen on a test part. Settings that are not given are the package's defaults.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse
import scipy.stats
import torch
from torch import Tensor, nn

from dataset import Interactions

Answer = Callable[..., np.ndarray]


MODULES = {  # the module of each package that is imported
    "cornac": "cornac.models",
    "implicit": "implicit.cpu.als",
    "surprise": "surprise",
    "lightfm": "lightfm",
    "recbole": "benchmarks.recbole_models",
}


@dataclass(frozen=True)
class Peer:
    """One recommender.

    task: "rating" or "ranking".
    package: a key of MODULES; None where no other package is needed.
    fit: (train) -> the function for its task.
    """

    name: str
    task: str
    package: str | None
    fit: Callable[[Interactions], Answer]


class Answered(nn.Module):
    """A fitted peer in the form that evaluation.py measures: forward(user_ids, item_ids) -> (predictions, score)."""

    def __init__(self, peer: Peer, answer: Answer) -> None:
        super().__init__()
        self.peer, self.answer = peer, answer

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        if self.peer.task == "ranking":
            raise TypeError(f"{self.peer.name} predicts no ratings")
        score = torch.as_tensor(self.answer(user_ids.numpy(), item_ids.numpy()), dtype=torch.float32)
        return score, score

    def score_items(self, user_ids: Tensor) -> Tensor:
        return torch.tensor(self.answer(user_ids.numpy()), dtype=torch.float32)


def missing(peers: Sequence[Peer]) -> dict[str, str]:
    """{package: why it cannot be imported}. Imports the others, so that no fit is timed with its import."""
    found = {}
    for package in dict.fromkeys(peer.package for peer in peers if peer.package):
        try:
            importlib.import_module(MODULES[package])
        except Exception as error:  # an installed package may fail in any way on versions that it does not support
            found[package] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return found


def matrix(train: Interactions) -> scipy.sparse.csr_matrix:
    """(num_users, num_items) of 0 and 1: who rated what."""
    cells = (train.user_ids.numpy(), train.item_ids.numpy())
    return scipy.sparse.csr_matrix((np.ones(len(train), np.float32), cells), (train.num_users, train.num_items))


def by_factors(users: np.ndarray, items: np.ndarray, item_biases: np.ndarray | float = 0.0) -> Answer:
    return lambda rows: users[rows] @ items.T + item_biases


def fit_popularity(train: Interactions) -> Answer:
    counts = train.item_counts.numpy()
    return lambda rows: np.tile(counts, (len(rows), 1))


def fit_ease(train: Interactions, ridge: float = 200.0) -> Answer:
    """EASE, Steck 2019, eq. (8): B = I - P / diag(P) with P = (X'X + ridge I)^-1, so that diag(B) = 0."""
    x = torch.from_numpy(matrix(train).toarray())
    inverse = torch.linalg.inv(x.T @ x + ridge * torch.eye(train.num_items))
    weights = -inverse / inverse.diagonal()
    weights.fill_diagonal_(0)
    return lambda rows: (x[rows] @ weights).numpy()


def fit_biases(train: Interactions, user_ridge: float = 5.0, item_ridge: float = 2.0, rounds: int = 10) -> Answer:
    """mean + b_u + b_i by ridge regression, users and items alternately (Koren, Bell and Volinsky 2009, eq. 3)."""
    users, items = train.user_ids.numpy(), train.item_ids.numpy()
    mean = train.ratings.mean().item()
    left = train.ratings.numpy() - mean
    b_u, b_i = np.zeros(train.num_users), np.zeros(train.num_items)
    user_counts = np.bincount(users, minlength=len(b_u)) + user_ridge
    item_counts = np.bincount(items, minlength=len(b_i)) + item_ridge
    for _ in range(rounds):
        b_i = np.bincount(items, left - b_u[users], len(b_i)) / item_counts
        b_u = np.bincount(users, left - b_i[items], len(b_u)) / user_counts
    return lambda u, i: mean + b_u[u] + b_i[i]


def fit_als(train: Interactions, seed: int = 0, factors: int = 64, ridge: float = 20.0, alpha: float = 3.0) -> Answer:
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=factors, regularization=ridge, alpha=alpha, iterations=10, num_threads=1, random_state=seed
    )
    model.fit(matrix(train), show_progress=False)
    return by_factors(model.user_factors, model.item_factors)


def fit_warp(train: Interactions) -> Answer:
    from lightfm import LightFM

    model = LightFM(no_components=64, loss="warp", learning_rate=0.02, user_alpha=1e-4, item_alpha=1e-4, random_state=0)
    model.fit(matrix(train).tocoo(), epochs=100, num_threads=1)
    return by_factors(model.user_embeddings, model.item_embeddings, model.item_biases)


def cornac_rows(train: Interactions):
    from cornac.data import Dataset

    names = ({row: row for row in range(size)} for size in (train.num_users, train.num_items))
    columns = (train.user_ids.numpy(), train.item_ids.numpy(), train.ratings.numpy())
    return Dataset(train.num_users, train.num_items, *names, columns, seed=0)


def fit_cornac_bpr(train: Interactions) -> Answer:
    from cornac.models import BPR

    model = BPR(k=64, max_iter=100, learning_rate=0.02, lambda_reg=0.002, num_threads=1, seed=0, verbose=False)
    model.fit(cornac_rows(train))
    return by_factors(model.u_factors, model.i_factors, model.i_biases)


def fit_cornac_mf(train: Interactions, factors: int, ridge: float, epochs: int = 80) -> Answer:
    from cornac.models import MF

    model = MF(k=factors, max_iter=epochs, learning_rate=0.005, lambda_reg=ridge, num_threads=1, seed=0, verbose=False)
    model.fit(cornac_rows(train))
    users, items = model.u_factors, model.i_factors
    return lambda u, i: model.global_mean + model.u_biases[u] + model.i_biases[i] + (users[u] * items[i]).sum(1)


def surprise_answer(train: Interactions, model) -> Answer:
    """Fit a model of Surprise; the package clips its predictions to the rating scale."""
    import pandas as pd
    from surprise import Dataset, Reader

    table = pd.DataFrame({"user": train.user_ids, "item": train.item_ids, "rating": train.ratings})
    scale = (table["rating"].min(), table["rating"].max())
    model.fit(Dataset.load_from_df(table, Reader(rating_scale=scale)).build_full_trainset())
    return lambda u, i: np.array([model.predict(*pair).est for pair in zip(u, i, strict=True)])


def fit_svd(train: Interactions, seed: int = 0) -> Answer:
    from surprise import SVD

    return surprise_answer(train, SVD(n_factors=100, n_epochs=100, lr_all=0.005, reg_all=0.1, random_state=seed))


def fit_svdpp(train: Interactions) -> Answer:
    from surprise import SVDpp

    return surprise_answer(
        train, SVDpp(n_factors=50, n_epochs=30, lr_all=0.01, reg_all=0.1, random_state=0, cache_ratings=True)
    )


def fit_knn(train: Interactions, user_based: bool, neighbors: int) -> Answer:
    from surprise import KNNBaseline

    similarity = {"name": "pearson_baseline", "user_based": user_based, "shrinkage": 100}
    return surprise_answer(train, KNNBaseline(k=neighbors, sim_options=similarity, verbose=False))


def fit_item_knn(train: Interactions) -> Answer:
    return fit_knn(train, user_based=False, neighbors=40)


def fit_user_knn(train: Interactions) -> Answer:
    return fit_knn(train, user_based=True, neighbors=80)


def fit_rating_mean(train: Interactions) -> Answer:
    """The mean of five SVDs, which differ in their seed, item-KNN and user-KNN."""
    answers = [fit_svd(train, seed) for seed in range(5)] + [fit_item_knn(train), fit_user_knn(train)]
    return lambda u, i: np.mean([answer(u, i) for answer in answers], axis=0)


def fit_ranking_mean(train: Interactions) -> Answer:
    """The mean of EASE and three ALS, which differ in their seed, each user's scores brought to mean 0 and sd 1."""
    answers = [fit_ease(train)] + [fit_als(train, seed) for seed in range(3)]
    return lambda rows: np.mean([scipy.stats.zscore(answer(rows), axis=1) for answer in answers], axis=0)


def fit_recbole(train: Interactions, model: str, epochs: int) -> Answer:
    from benchmarks.recbole_models import fit_recbole

    return fit_recbole(train, model, epochs)


PEERS = [
    Peer("mean of 5 SVD and 2 KNN (Surprise)", "rating", "surprise", fit_rating_mean),
    Peer("MF, 200 factors (cornac)", "rating", "cornac", partial(fit_cornac_mf, factors=200, ridge=0.07)),
    Peer("MF, 32 factors (cornac)", "rating", "cornac", partial(fit_cornac_mf, factors=32, ridge=0.06)),
    Peer("SVD++ (Surprise)", "rating", "surprise", fit_svdpp),
    Peer("SVD (Surprise)", "rating", "surprise", fit_svd),
    Peer("item-KNN (Surprise)", "rating", "surprise", fit_item_knn),
    Peer("user-KNN (Surprise)", "rating", "surprise", fit_user_knn),
    Peer("user + item biases", "rating", None, fit_biases),
    Peer("mean of EASE and 3 ALS", "ranking", "implicit", fit_ranking_mean),
    Peer("EASE", "ranking", None, fit_ease),
    Peer("ALS, 64 factors (implicit)", "ranking", "implicit", fit_als),
    Peer("WARP, 64 factors (LightFM)", "ranking", "lightfm", fit_warp),
    Peer("BPR, 64 factors (cornac)", "ranking", "cornac", fit_cornac_bpr),
    Peer("MultiVAE (RecBole)", "ranking", "recbole", partial(fit_recbole, model="MultiVAE", epochs=200)),
    Peer("BPR (RecBole)", "ranking", "recbole", partial(fit_recbole, model="BPR", epochs=100)),
    Peer("popularity", "ranking", None, fit_popularity),
]
