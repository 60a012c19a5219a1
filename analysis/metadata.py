"""What a table is about, in a JSON file beside it: data, settings, seeds and versions, as the runs' own files say."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from analysis.runner import Run
from config.errors import UserError
from training.report import BOX
from training.run_folder import RunFolder

NEEDED = ("data", "simulated", "seeds", "runs", "statistics", "settings", "versions")
VARIED = ("factorization_weight", "regression_weight", "shared_embeddings", "weighting", "seed")


def collect(runs: Sequence[Run], results: Iterable[dict], data, is_quick: bool) -> dict:
    """What is said of an experiment. data: the dataset.Data of one of its seeds."""
    configs = [RunFolder.open(Path(result["folder"])).read_config() for result in results]
    config = runs[0].config
    shown = [field.name for field in fields(config) if field.metadata["option"].affects_result]
    return {
        "data": data.name,
        "simulated": data.simulated,
        "quick": is_quick,
        "seeds": sorted({run.config.seed for run in runs}),
        "runs": len(runs),
        "statistics": statistics(data),
        "settings": {name: getattr(config, name) for name in shown if name not in VARIED}
        | {"layer_sizes": config.mlp_sizes, "device": _distinct(c["settings"]["device"] for c in configs)},
        "versions": {
            name: _distinct(config["versions"][name] for config in configs) for name in configs[0]["versions"]
        },
    }


def write(path: Path, about: dict) -> None:
    """The last file to be written: where it is, the others are."""
    path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def read(path: Path) -> dict:
    """Raises UserError where the file is damaged."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return about | {name: about[name] for name in NEEDED}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); run its experiment again, finished runs are kept") from None


def statistics(data) -> dict[str, str]:
    """The counts that describe a set of ratings, as they are written."""
    everything = data.seen + data.test
    ratings = everything.ratings.cpu().numpy()
    values, counts = np.unique(ratings, return_counts=True)
    found = {"users": f"{len(data.users):,}", "items": f"{len(data.items):,}", "ratings": f"{len(ratings):,}"}
    found["share of all pairs that are rated"] = percent(len(ratings) / (len(data.users) * len(data.items)), 2)
    for name, ids in (("user", everything.user_ids), ("item", everything.item_ids)):
        each = np.bincount(ids.cpu().numpy())
        found[f"ratings of {'a user' if name == 'user' else 'an item'}, lowest / median / highest"] = (
            f"{each.min():,} / {np.median(each):,.0f} / {each.max():,}"
        )
    found["rating, mean and standard deviation"] = f"{ratings.mean():.3f}, {ratings.std():.3f}"
    if len(values) <= 10:
        found["share of each rating"] = ", ".join(
            f"{value:g}: {percent(count / len(ratings), 1)}" for value, count in zip(values, counts, strict=True)
        )
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    found["parts, of every split"] = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part)
    return found


def mark(about: dict) -> list[str]:
    """The lines that a table of simulated data begins with."""
    return ["```", BOX, "```", ""] if about["simulated"] else []


def describe(about: dict) -> str:
    """Data, seeds and setting in one line, for captions."""
    data = f"{about['data']} (SIMULATED DATA)" if about["simulated"] else about["data"]
    seeds, settings = len(about["seeds"]), about["settings"]
    return (
        f"{data}: {settings['epochs']} epochs, {seeds} seed{'' if seeds == 1 else 's'}, each another split "
        f"({percent(settings['test_fraction'])} test, {percent(settings['val_fraction'])} of the rest validation); "
        f"d = {settings['embedding_dim']}, batch {settings['batch_size']}, lr {settings['lr']:g}"
    )


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
