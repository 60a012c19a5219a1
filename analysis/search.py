"""How presets/champion.json was chosen: random trials over a space of settings, on validation parts of train alone.

A trial is one of STARTS or a draw from SPACE, trained on the splits of several seeds. Its last epoch counts, as the
preset holds nothing out and takes its last epoch too. Test figures are in no column of the log and decide nothing.
"""

import csv
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.results import read_curves
from analysis.runner import Run, run_all
from config.multitask import MultiTaskConfig
from registry import make_config

SEED = 2026
EFFECT_SEEDS = 3  # enough for effects as large as these
# What is to be beaten, on the validation parts of the same five splits: the MRR of EASE (lambda 200), and the MSE that
# is to user + item biases (.8640 there) what .8090, that of a blend of tuned models on the test parts, is to theirs.
MRR_TO_BEAT, MSE_TO_BEAT = 0.1305, 0.7898
COMMON = {
    "ranking_loss": "softmax", "schedule": "cosine", "init_rating_bias": True, "factorization_weight": 1.0,
    "shared_embeddings": True,
}  # fmt: skip
# The first trials: the best settings of softmax networks, half of them item-based, for ensembles of four and of two.
PLAIN = {
    "regression_weight": 0.2, "lr": 0.02, "embedding_decay": 1.2, "batch_size": 2000, "epochs": 12,
    "user_weight_exponent": 0.3,
}  # fmt: skip
STARTS = (
    {"ensemble_size": 4, "num_item_based": 2, **PLAIN, "embedding_dim": 1024, "layer_sizes": (3072,)},
    {"ensemble_size": 2, "num_item_based": 1, **PLAIN, "embedding_dim": 512, "layer_sizes": (1536,)},
)
SPACE = {
    "ensemble_size": (2, 3, 4),
    "num_item_based": (1, 2),
    "member_dim": (128, 192, 256),
    "regression_weight": (0.2, 0.25, 0.3),
    "batch_size": (1500, 2000),
    "epochs": (12, 14),
    "user_weight_exponent": (0.3, 0.5),
}


def run(
    folder: Path, common: dict[str, object], seeds: int, jobs: int, trials: int, say: Callable[[str], None]
) -> list[Path]:
    """Run the trials, and the best of them without each of its options; returns the paths of what is written.

    trials.csv holds the log, the best first, champion.json its settings, and effects.csv what its options do.

    Args:
        common: settings of every run: the data set and its place, and of a quick search its size and epochs.
    """
    drawn = draw(trials)
    runs = [
        Run(str(number), make_config("multitask", **COMMON | trial | common, val_fraction=0.05, seed=seed))
        for number, trial in enumerate(drawn, 1)
        for seed in range(seeds)
    ]
    log = sorted(summarise(drawn, run_all(runs, folder / "runs", jobs, say)), key=lambda line: -line["lead"])
    chosen = COMMON | drawn[log[0]["trial"] - 1]
    effects = leave_out(chosen)
    runs = [
        Run(str(number), make_config("multitask", **values | common, val_fraction=0.05, seed=seed))
        for number, values in enumerate(effects.values(), 1)
        for seed in range(min(seeds, EFFECT_SEEDS))
    ]
    measured = summarise(list(effects.values()), run_all(runs, folder / "runs", jobs, say))
    paths = [folder / name for name in ("trials.csv", "effects.csv", "champion.json")]
    _write(paths[0], log)
    _write(paths[1], [{"without": name} | line for name, line in zip(effects, measured, strict=True)])
    preset = {"model": "multitask"} | {
        name: value for name, value in chosen.items() if value != getattr(MultiTaskConfig, name)
    }
    paths[2].write_text(json.dumps(preset, indent=2) + "\n", encoding="utf-8")
    return paths


def draw(trials: int) -> list[dict[str, object]]:
    """STARTS and then different draws from SPACE, the same every time: n trials are the first n of more."""
    dice = random.Random(SEED)
    drawn: list[dict[str, object]] = [*STARTS][:trials]
    while len(drawn) < trials:
        trial = {"lr": 0.02, "embedding_decay": 1.2} | {name: dice.choice(values) for name, values in SPACE.items()}
        trial["embedding_dim"] = trial["ensemble_size"] * trial.pop("member_dim")
        trial["layer_sizes"] = (3 * trial["embedding_dim"],)
        if trial not in drawn:
            drawn.append(trial)
    return drawn


def leave_out(chosen: dict[str, object]) -> dict[str, dict[str, object]]:
    """{option: the settings with it at its usual value}, beside all of them together as "nothing"."""
    options = (
        "schedule",
        "init_rating_bias",
        "embedding_decay",
        "user_weight_exponent",
        "num_item_based",
        "shared_embeddings",
    )
    usual = {name: getattr(MultiTaskConfig, name) for name in options} | {"shared_embeddings": False}
    differing = {name: chosen | {name: usual[name]} for name in options if chosen.get(name) != usual[name]}
    differing["shared_embeddings"]["num_item_based"] = 0  # which have one pair of tables
    width = chosen["embedding_dim"] // chosen["ensemble_size"]
    one = {"ensemble_size": 1, "num_item_based": 0, "embedding_dim": width, "layer_sizes": (3 * width,)}
    return {"nothing": chosen} | differing | {"ensemble_size": chosen | one}


def summarise(drawn: Sequence[dict[str, object]], results: Sequence[dict]) -> list[dict[str, object]]:
    """A line a trial: its settings and, of the last epoch on the validation part, means over seeds.

    lead: the smaller of the two by which it beats what is to be beaten, MRR and MSE alike: in both, some .003 are what
    splits differ by.
    """
    last = read_curves(results).groupby(["row", "seed"]).last()
    log = []
    for number, trial in enumerate(drawn, 1):
        own = last.loc[str(number)]
        mrr, mse = own["val_mrr"].mean(), own["val_mse"].mean()
        layers = {"layer_sizes": " ".join(map(str, trial["layer_sizes"]))}
        numbers = {"seeds": len(own), "val_mrr": round(mrr, 5), "val_mse": round(mse, 5)}
        lead = min(mrr - MRR_TO_BEAT, MSE_TO_BEAT - mse)
        log.append({"trial": number} | trial | layers | numbers | {"lead": round(lead, 5)})
    return log


def _write(path: Path, lines: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
