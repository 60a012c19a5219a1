"""How presets/champion.json was chosen: random trials over a space of settings, on validation parts of train alone.

    python experiments.py search       writes results/search/trials.csv and champion.json

A trial is one draw from SPACE, trained on five splits. Its last epoch counts, as the preset holds nothing out and
takes its last epoch too. Test figures are in no column of the log and decide nothing.
"""

import csv
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from defaults import MULTITASK
from grid import Run, run_all
from settings import Settings

SEED = 2026
SEEDS = (0, 1, 2, 3, 4)
COMMON = {"bpr": "softmax", "schedule": "cosine", "start_at_mean": True, "factorization_weight": 1.0}
SPACE = {
    "shared_embeddings": (True, True, True, False),
    "embedding_dim": (128, 256, 256, 384),
    "hidden": ((), (), (), (64,)),
    "regression_weight": (0.1, 0.2, 0.3),
    "lr": (0.01, 0.015, 0.02, 0.03),
    "embedding_decay": (1.0, 1.2, 1.5, 2.0),
    "batch_size": (1500, 2000, 3000, 6000),
    "epochs": (10, 12, 16),
    "user_balance": (0.0, 0.3, 0.5),
}


def search(trials: int, options, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Run the trials; write trials.csv and, of the best, champion.json; returns their paths."""
    drawn = draw(trials)
    common = COMMON | {"dataset": options.dataset, "data_dir": options.data_dir, "val_fraction": 0.05}
    runs = [
        Run(str(number), Settings(**common | trial, seed=seed))
        for number, trial in enumerate(drawn, 1)
        for seed in SEEDS[: options.seeds]
    ]
    results = run_all(runs, folder / "runs", options.jobs, say)
    log = summarise(drawn, results)
    best = max(log, key=lambda line: line["score"])
    chosen = COMMON | drawn[best["trial"] - 1]
    paths = [folder / "trials.csv", folder / "champion.json"]
    with paths[0].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(log[0]))
        writer.writeheader()
        writer.writerows(sorted(log, key=lambda line: -line["score"]))
    differing = {name: value for name, value in chosen.items() if value != MULTITASK.get(name)}
    paths[1].write_text(json.dumps(differing, indent=2) + "\n", encoding="utf-8")
    return paths


def draw(trials: int) -> list[dict[str, object]]:
    """Different settings from SPACE, always the same for the same SPACE: the first n of more are the n of fewer."""
    dice = random.Random(SEED)
    drawn: list[dict[str, object]] = []
    while len(drawn) < trials:
        trial = {name: dice.choice(values) for name, values in SPACE.items()}
        trial["layer_sizes"] = [3 * trial["embedding_dim"], *trial.pop("hidden")]
        if trial not in drawn:
            drawn.append(trial)
    return drawn


def summarise(drawn: Sequence[dict[str, object]], results: Sequence[dict]) -> list[dict[str, object]]:
    """A line a trial: its settings and, of the last epoch on the validation part, means over seeds.

    score: val_mrr / val_mse, so that a percent of the one is worth a percent of the other.
    """
    log = []
    for number, trial in enumerate(drawn, 1):
        last = [last_epoch(Path(result["folder"])) for result in results if result["row"] == str(number)]
        mrr, mse = (sum(row[name] for row in last) / len(last) for name in ("val_mrr", "val_mse"))
        sizes = {"layer_sizes": " ".join(map(str, trial["layer_sizes"]))}
        numbers = {"seeds": len(last), "val_mrr": round(mrr, 5), "val_mse": round(mse, 5)}
        log.append({"trial": number} | trial | sizes | numbers | {"score": round(mrr / mse, 5)})
    return log


def last_epoch(folder: Path) -> dict[str, float]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return {name: float(value) for name, value in list(csv.DictReader(file))[-1].items()}
