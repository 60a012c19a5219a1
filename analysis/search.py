"""How presets/ensemble.json was chosen: random trials over a space of settings, on validation parts of train alone.

A trial is one of STARTS or a draw from SPACE, trained on the splits of several seeds. It is measured at its last epoch,
as the preset, which holds nothing out, takes its last epoch too. The log has no test figures, and they choose nothing.
"""

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

from analysis.results import read_curves
from analysis.runner import Log, Run, run_all
from config.multitask import MultiTaskConfig
from registry import make_config

SEED = 2026
EFFECT_SEEDS = 3  # enough for effects of their size
# On the validation parts of the same five splits. MRR: that of EASE (lambda 200). MSE: that of user + item biases
# (.8640 there), lowered in the ratio by which a mean of tuned models, .8090, is below the biases on the test parts.
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
    "network_dim": (128, 192, 256),
    "regression_weight": (0.2, 0.25, 0.3),
    "batch_size": (1500, 2000),
    "epochs": (12, 14),
    "user_weight_exponent": (0.3, 0.5),
}


def run(folder: Path, common: dict[str, object], seeds: int, jobs: int, trials: int, log: Log) -> list[Path]:
    """Run the trials, then the best one without each of its options; returns the paths of the written files.

    trials.csv holds the log, the best first; ensemble.json the best settings; effects.csv the effect of every option.

    Args:
        common: settings of every run: the data set and its folder, and of a quick search its size and epochs.
    """

    def measure(settings: Sequence[dict[str, object]], num_seeds: int) -> list[dict[str, object]]:
        runs = [
            Run(str(number), make_config("multitask", **COMMON | one | common, val_fraction=0.05, seed=seed))
            for number, one in enumerate(settings, 1)
            for seed in range(num_seeds)
        ]
        return summarize(settings, run_all(runs, folder / "runs", jobs, log))

    drawn = draw(trials)
    ranked = sorted(measure(drawn, seeds), key=lambda line: -line["lead"])
    chosen = COMMON | drawn[ranked[0]["trial"] - 1]
    effects = leave_out(chosen)
    measured = measure(list(effects.values()), min(seeds, EFFECT_SEEDS))
    paths = [folder / name for name in ("trials.csv", "effects.csv", "ensemble.json")]
    _write(paths[0], ranked)
    _write(paths[1], [{"without": name} | line for name, line in zip(effects, measured, strict=True)])
    preset = {name: value for name, value in chosen.items() if value != getattr(MultiTaskConfig, name)}
    paths[2].write_text(json.dumps({"model": "multitask"} | preset, indent=2) + "\n", encoding="utf-8")
    return paths


def draw(trials: int) -> list[dict[str, object]]:
    """STARTS, then distinct draws from SPACE, always the same: n trials are the first n of any larger number."""
    dice = random.Random(SEED)
    drawn: list[dict[str, object]] = [*STARTS][:trials]
    while len(drawn) < trials:
        trial = {"lr": 0.02, "embedding_decay": 1.2} | {name: dice.choice(values) for name, values in SPACE.items()}
        trial["embedding_dim"] = trial["ensemble_size"] * trial.pop("network_dim")
        trial["layer_sizes"] = (3 * trial["embedding_dim"],)
        if trial not in drawn:
            drawn.append(trial)
    return drawn


def leave_out(chosen: dict[str, object]) -> dict[str, dict[str, object]]:
    """{option: the settings with its default instead}; "nothing" is the key of the unchanged settings."""
    options = ("schedule", "init_rating_bias", "embedding_decay", "user_weight_exponent", "num_item_based")
    replaced = {name: getattr(MultiTaskConfig, name) for name in options} | {"shared_embeddings": False}
    differing = {name: chosen | {name: value} for name, value in replaced.items() if chosen.get(name) != value}
    differing["shared_embeddings"]["num_item_based"] = 0  # item-based networks need shared tables
    width = chosen["embedding_dim"] // chosen["ensemble_size"]
    one = {"ensemble_size": 1, "num_item_based": 0, "embedding_dim": width, "layer_sizes": (3 * width,)}
    return {"nothing": chosen} | differing | {"ensemble_size": chosen | one}


def summarize(settings: Sequence[dict[str, object]], results: Sequence[dict]) -> list[dict[str, object]]:
    """A line per trial: its settings, and means over seeds at the last epoch on the validation part.

    lead: the smaller of the two distances by which a trial beats MRR_TO_BEAT and MSE_TO_BEAT. Both distances count
    alike, as the noise between splits is about .003 in either metric.
    """
    last = read_curves(results).groupby(["row", "seed"]).last()
    log = []
    for number, trial in enumerate(settings, 1):
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
