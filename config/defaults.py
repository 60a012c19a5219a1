"""What the settings are made of: names, defaults by model, and ranges. Imports nothing heavy."""

from dataclasses import field

from sources.catalog import MOVIELENS

SIMULATED_SIZE = (943, 1682, 100_000)  # users, items and ratings of MovieLens 100K
RATING_LABELS = ("view", "like")  # what a rating says: it was given, and it was high
DATASETS = ("auto", *MOVIELENS, "simulated", "simulated-xing")
WEIGHTINGS = ("fixed", "uncertainty", "gradnorm", "dwa", "pcgrad")

# What depends on the model: the settings it has, beside those that every run has, and their defaults.
MULTITASK = {
    "factorization_weight": 0.99, "regression_weight": 0.01, "shared_embeddings": True, "bpr": "sigmoid",
    "user_balance": 0.0, "members": 1, "denoisers": 0, "start_at_mean": False, "negative_sampling": "uniform",
    "layer_sizes": None,
    "embedding_dim": 32, "epochs": 100, "batch_size": 256, "lr": 5e-3, "negatives": 1,
    "test_fraction": 0.05, "val_fraction": 0.0,
}  # fmt: skip
ZOO = {
    "labels": "view,like", "label_weights": None, "like_from": 4.0, "chain": None, "calibrator": 0.0, "feedback": None,
    "embedding_dim": 32, "epochs": 20, "batch_size": 4096, "lr": 5e-3, "negatives": 4,
    "test_fraction": 0.1, "val_fraction": 1 / 9,
    "tower_units": [32],
}  # fmt: skip
DYADIC = {
    "labels": "clicked,bookmarked,replied", "feedback": None, "embedding_dim": 30, "epochs": 20, "batch_size": 1,
    "lr": 1e-2, "test_fraction": 0.7, "val_fraction": 0.0,
    "mapping": "N", "min_user": 30, "min_item": 30, "iterate": True, "split": "random30", "scale": 0.1,
    "displayed": None, "context": None, "time": None,
    "similarity": "binary", "neighbours": "per_item", "absent": "drop", "num_neighbours": 50, "spread": "std",
    "score": "im", "bias": "none", "source": "train", "exclude_self": True,
    "lambdas": [1e-2], "class_weights": [1.0, 1.0], "iterations": "50000", "eps": 1e-3, "stop_rule": "max",
    "emb_grad": "full", "init": "zero", "learn": ["click", "bookmark", "reply", "embedding"],
    "thresholds": [0.5, 0.5, 0.5, 0.5],
}  # fmt: skip
BOTTOM = {**ZOO, "expert_units": [64]}
DEFAULTS = {
    "multitask": MULTITASK,
    "single": BOTTOM,
    "shared_bottom": BOTTOM,
    "omoe": {**BOTTOM, "experts": 8},
    "mmoe": {**BOTTOM, "experts": 8},
    "cgc": {**BOTTOM, "task_experts": 4, "shared_experts": 4},
    "ple": {**BOTTOM, "task_experts": 4, "shared_experts": 4, "levels": 2},
    "me_mmoe": {**BOTTOM, "experts": 8},
    "me_ple": {**BOTTOM, "task_experts": 4, "shared_experts": 4, "levels": 2},
    "esmm": {**ZOO, "tower_units": [64, 32]},
    "aitm": {**BOTTOM, "calibrator": 0.6},
    "stem": {**BOTTOM, "task_experts": 1, "shared_experts": 8},
    "adatt": {**BOTTOM, "task_experts": 2, "levels": 2},
    "dyadic": DYADIC,
}
BY_MODEL = frozenset().union(*DEFAULTS.values())
CHAINED = ("esmm", "aitm")  # they make no sense but for labels that follow one another
NETWORK_OPTIONS = ("experts", "task_experts", "shared_experts", "levels", "expert_units", "tower_units")

# Lowest and highest value; the highest are against slips of the finger: beyond them memory or patience would end first.
RANGES = {
    "negatives": (0, 10_000),
    "members": (1, 1000),
    "denoisers": (0, 1000),
    "embedding_dim": (0, 10_000),
    "layer_sizes": (1, 100_000),
    "experts": (1, 10_000),
    "task_experts": (0, 10_000),
    "shared_experts": (0, 10_000),
    "levels": (1, 100),
    "expert_units": (1, 100_000),
    "tower_units": (1, 100_000),
    "epochs": (1, 10**6),
    "batch_size": (1, 10**7),
    "patience": (1, 10**6),
    "threads": (1, 1024),
    "min_user": (1, 10**9),
    "min_item": (1, 10**9),
    "num_neighbours": (1, 10**6),
}
# The order of the groups in --help.
GROUPS = (
    "model", "tasks of the multi-task net", "labels of the zoo", "training", "network", "data", "dyads",
    "features of the dyads", "the dyadic learner", "output",
)  # fmt: skip
RANKING_METRICS = ("mrr", "mse", "first_hit_mrr", "hit_rate@10", "ndcg@10", "auc")


def option(default, doc: str, group: str, **argument):
    """A field with what its flag needs: help text, group in --help, and further arguments of argparse.

    The default None of a setting that depends on the model is filled in from DEFAULTS.
    """
    make = {"default_factory": lambda: list(default)} if isinstance(default, list) else {"default": default}
    return field(**make, metadata={"help": doc, "group": group, "argument": argument})


def describe_default(name: str, fixed: object) -> str | None:
    """The default of a setting in words, by model where it depends on the model; None where there is none to tell.

    Args:
        fixed: the default of a setting that does not depend on the model.
    """
    if name not in BY_MODEL:
        return None if fixed is None else _in_words(fixed)
    models: dict[str, list[str]] = {}
    for model, options in DEFAULTS.items():
        if options.get(name) is not None:
            models.setdefault(_in_words(options[name]), []).append(model)
    if not models:
        return None
    most = max(models, key=lambda value: len(models[value]))
    return "; ".join([most, *(f"{', '.join(models[value])}: {value}" for value in models if value != most)])


def _in_words(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_in_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
