"""What a table was made from, in a JSON file beside it: data, settings, seeds and versions."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import Field, fields
from pathlib import Path

import numpy as np

from analysis.foreign import plain_json
from analysis.runner import Run
from analysis.tables import marked, percent
from config.base import RunConfig
from config.errors import UserError
from dataset import Data
from sources.files import write_atomically
from training.run_folder import RunFolder

NEEDED = ("data", "simulated", "seeds", "runs", "statistics", "settings", "versions")


def collect(runs: Sequence[Run], results: Iterable[dict], data: Data, is_quick: bool) -> dict:
    """The metadata of an experiment of runs of main.py. data: those of one of its seeds; results: a folder per run."""
    records = [RunFolder.open(Path(result["folder"])).read_config() for result in results]
    settings = shared_settings([run.config for run in runs])
    settings["device"] = join_distinct(record["settings"]["device"] for record in records)
    unused = {"simulated_size": not data.simulated, "rating_scale": not runs[0].config.own_files}
    settings = {name: value for name, value in settings.items() if not unused.get(name)}
    return assemble(
        data=data.name,
        simulated=data.simulated,
        is_quick=is_quick,
        seeds=[run.config.seed for run in runs],
        runs=len(runs),
        statistics=statistics(data),
        settings=settings,
        versions=[record["versions"] for record in records],
    )


def assemble(
    *,
    data: str,
    simulated: bool,
    is_quick: bool,
    seeds: Iterable[int],
    runs: int,
    statistics: dict,
    settings: dict,
    versions: Sequence[dict[str, str]],
) -> dict:
    """The metadata of any experiment.

    Args:
        seeds: of all runs, in any order. versions: of all runs, as training.session.versions returns them.
        statistics: {quantity: text}; of several data sets {data set: {quantity: text}}.
        settings: what all runs share, as JSON values.
    """
    return {
        "data": data,
        "simulated": simulated,
        "quick": is_quick,
        "seeds": sorted(set(seeds)),
        "runs": runs,
        "statistics": statistics,
        "settings": settings,
        "versions": {name: join_distinct(one[name] for one in versions) for name in versions[0]},
    }


def shared_settings(configs: Sequence[RunConfig]) -> dict[str, object]:
    """What affects the results and is the same in all configs that have it, but for the seed; defaults resolved."""
    found: dict[str, object] = {}
    varied = {"seed"}
    for config in configs:
        own = {field.name: getattr(config, field.name) for field in fields(config) if _affects_result(field)}
        for name, value in (own | config.architecture).items():
            if found.setdefault(name, value) != value:
                varied.add(name)
    return {name: value for name, value in found.items() if name not in varied}


def _affects_result(field: Field) -> bool:
    return field.metadata["option"].affects_result


def write(path: Path, metadata: dict) -> None:
    """Write the metadata; an experiment does so last, so that where this file is, its other files are complete."""
    write_atomically(path, (json.dumps(metadata, indent=2) + "\n").encode())


def parse(path: Path, content: bytes) -> dict:
    """The metadata in the content of a file, as plain text; UserError where it is damaged."""
    try:
        found = json.loads(content)
        return {name: plain_json(found[name]) for name in NEEDED}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error!r}); run its experiment again, finished runs are kept") from None


def statistics(data: Data) -> dict[str, str]:
    """Counts that describe a set of ratings, formatted."""
    everything = data.seen + data.test
    ratings = everything.ratings.cpu().numpy()
    values, counts = np.unique(ratings, return_counts=True)
    found = {"users": f"{len(data.users):,}", "items": f"{len(data.items):,}", "ratings": f"{len(ratings):,}"}
    found["fraction of all pairs that are rated"] = percent(len(ratings) / (len(data.users) * len(data.items)), 2)
    for name, ids in (("a user", everything.user_ids), ("an item", everything.item_ids)):
        each = np.bincount(ids.cpu().numpy())
        found[f"ratings of {name}, lowest / median / highest"] = (
            f"{each.min():,} / {np.median(each):,.0f} / {each.max():,}"
        )
    found["rating, mean and standard deviation"] = f"{ratings.mean():.3f}, {ratings.std():.3f}"
    if len(values) <= 10:
        found["fraction of each rating"] = ", ".join(
            f"{value:g}: {percent(count / len(ratings), 1)}" for value, count in zip(values, counts, strict=True)
        )
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    found["rows of every split"] = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part)
    return found


def describe(metadata: dict) -> str:
    """Data, seeds and settings in one line, for captions."""
    seeds, settings = len(metadata["seeds"]), metadata["settings"]
    return (
        f"{marked(metadata['data'], metadata['simulated'])}: {settings['epochs']} epochs, "
        f"{seeds} seed{'' if seeds == 1 else 's'}, each another split "
        f"({percent(settings['test_fraction'])} test, {percent(settings['val_fraction'])} of the rest validation); "
        f"d = {settings['embedding_dim']}, batch {settings['batch_size']}, lr {settings['lr']:g}"
    )


def join_distinct(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
