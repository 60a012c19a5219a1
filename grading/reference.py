"""The network of the course sheet in NumPy and double precision: the reference that solutions are compared with.

Weights are a dict: the tables "U", "Q" (shared) or "U_reg", "Q_reg", "U_fact", "Q_fact" (separate), the item bias "B"
(items, 1), and "mlp", a list of (weight (out, in), bias (out,)).
"""

import csv
from pathlib import Path

import numpy as np

SHARED_TABLES = ("U", "Q")
SEPARATE_TABLES = ("U_reg", "Q_reg", "U_fact", "Q_fact")
TRAINING_FILE = Path(__file__).with_name("training.csv")


def table_names(sharing: bool) -> tuple[str, ...]:
    return SHARED_TABLES if sharing else SEPARATE_TABLES


def random_weights(
    random: np.random.Generator, num_users: int, num_items: int, layer_sizes: list[int], sharing: bool
) -> dict:
    """Weights large enough that every term of the equations matters, and exact in single precision.

    The layers keep the size of their input (He et al. 2015), and the last bias centers the ratings of all pairs: about
    half of them are negative, so that cutting them at 0 shows.
    """
    width = layer_sizes[0] // 3

    def draw(*shape: int, spread: float = 1.0) -> np.ndarray:
        return _in_single_precision(spread * random.normal(size=shape))

    outputs = [*layer_sizes[1:], 1]
    weights = {
        **{name: draw(num_users if name[0] == "U" else num_items, width) for name in table_names(sharing)},
        "B": draw(num_items, 1),
        "mlp": [
            (draw(out, size, spread=(2 / size) ** 0.5), draw(out, spread=0.3))
            for size, out in zip(layer_sizes, outputs, strict=True)
        ],
    }
    pairs = np.indices((num_users, num_items)).reshape(2, -1)
    last_bias = weights["mlp"][-1][1]
    last_bias[:] = _in_single_precision(last_bias - forward(weights, *pairs)[1].mean())
    return weights


def random_batch(random: np.random.Generator, sizes: list[int], rows: int) -> tuple[list[int], list[int]]:
    """User and item row numbers of a network with sizes[0] users and sizes[1] items."""
    return random.integers(sizes[0], size=rows).tolist(), random.integers(sizes[1], size=rows).tolist()


def _in_single_precision(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)


def initial_weights(
    random: np.random.Generator, num_users: int, num_items: int, layer_sizes: list[int], sharing: bool
) -> dict:
    """Initial weights: tables with standard deviation 1/d, B zero, dense layers uniform within 1 / sqrt(inputs)."""
    width = layer_sizes[0] // 3
    weights = random_weights(random, num_users, num_items, layer_sizes, sharing)
    for name in table_names(sharing):
        weights[name] /= width
    weights["B"][:] = 0
    bounds = [size**-0.5 for size in layer_sizes]
    weights["mlp"] = [
        tuple(random.uniform(-bound, bound, size=part.shape) for part in layer)
        for bound, layer in zip(bounds, weights["mlp"], strict=True)
    ]
    return weights


def forward(weights: dict, user_ids, item_ids) -> tuple[np.ndarray, np.ndarray]:
    """Eqs. (1) and (4): predictions (B,) and score (B,)."""
    return _rank(weights, user_ids, item_ids), _rate(weights, user_ids, item_ids)[-1][:, 0]


def gradients(weights: dict, user_ids, item_ids, ranking_factors, rating_factors) -> dict[str, np.ndarray]:
    """The gradient of sum(ranking_factors * predictions + rating_factors * score) with respect to every weight.

    Names as in the weights; those of the MLP are "mlp.0.weight", "mlp.0.bias" and so on, numbered by dense layer.
    """
    found = {name: np.zeros_like(weights[name]) for name in weights if name != "mlp"}
    u_fact, q_fact, u_reg, q_reg = _names(weights)
    users, items = weights[u_fact][user_ids], weights[q_fact][item_ids]
    grad = np.asarray(ranking_factors)[:, None]
    np.add.at(found[u_fact], user_ids, grad * items)
    np.add.at(found[q_fact], item_ids, grad * users)
    np.add.at(found["B"], item_ids, grad)

    *inputs, _ = _rate(weights, user_ids, item_ids)
    grad = np.asarray(rating_factors)[:, None]
    for number in reversed(range(len(inputs))):
        weight, _ = weights["mlp"][number]
        found[f"mlp.{number}.weight"] = grad.T @ inputs[number]
        found[f"mlp.{number}.bias"] = grad.sum(axis=0)
        grad = grad @ weight
        if number > 0:
            grad = grad * (inputs[number] > 0)
    users, items = weights[u_reg][user_ids], weights[q_reg][item_ids]
    to_user, to_item, to_product = np.split(grad, 3, axis=1)
    np.add.at(found[u_reg], user_ids, to_user + to_product * items)
    np.add.at(found[q_reg], item_ids, to_item + to_product * users)
    return found


def read_training_data() -> dict[str, dict[str, np.ndarray]]:
    """The simulated data set of the training checks: {"train" or "test": {"user", "item", "rating"}}."""
    with TRAINING_FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        part: {
            "user": np.array([int(row["user"]) for row in rows if row["part"] == part]),
            "item": np.array([int(row["item"]) for row in rows if row["part"] == part]),
            "rating": np.array([float(row["rating"]) for row in rows if row["part"] == part]),
        }
        for part in ("train", "test")
    }


def metrics(weights: dict, data: dict) -> dict[str, float]:
    """Test MSE and MRR: 1 / rank averaged over a user's test items, then over users.

    Train items are masked; tied items share their average rank.
    """
    train, test = data["train"], data["test"]
    _, score = forward(weights, test["user"], test["item"])
    reciprocal_ranks = []
    items = np.arange(len(weights["B"]))
    for user in np.unique(test["user"]):
        predictions = _rank(weights, np.full_like(items, user), items)
        candidate = ~np.isin(items, train["item"][train["user"] == user])
        own = predictions[test["item"][test["user"] == user]][:, None]
        higher = (predictions[candidate] > own).sum(axis=1)
        tied = (predictions[candidate] == own).sum(axis=1)
        reciprocal_ranks.append((1 / (higher + (tied + 1) / 2)).mean())
    return {"mse": float(((score - test["rating"]) ** 2).mean()), "mrr": float(np.mean(reciprocal_ranks))}


def _names(weights: dict) -> tuple[str, str, str, str]:
    return ("U", "Q", "U", "Q") if "U" in weights else ("U_fact", "Q_fact", "U_reg", "Q_reg")


def _rank(weights: dict, user_ids, item_ids) -> np.ndarray:
    user_table, item_table, _, _ = _names(weights)
    product = weights[user_table][user_ids] * weights[item_table][item_ids]
    return product.sum(axis=1) + weights["B"][item_ids, 0]


def _rate(weights: dict, user_ids, item_ids) -> list[np.ndarray]:
    """The inputs of all dense layers, followed by the output of the last one."""
    _, _, user_table, item_table = _names(weights)
    users, items = weights[user_table][user_ids], weights[item_table][item_ids]
    values = [np.concatenate([users, items, users * items], axis=1)]
    for number, (weight, bias) in enumerate(weights["mlp"]):
        out = values[-1] @ weight.T + bias
        values.append(np.maximum(out, 0) if number < len(weights["mlp"]) - 1 else out)
    return values
