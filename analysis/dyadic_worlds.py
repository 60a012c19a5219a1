"""The data sets that the dyadic experiment compares on, each before and after the frequency filter."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from analysis.runner import content_digest
from config.dyadic import MAPPINGS, DyadicConfig
from config.errors import UserError
from dyadic.data import DyadicData
from dyadic.from_ratings import MAX_RATING
from dyadic.recipe import read_dyads
from dyadic.simulate import SEED, simulate

UNFILTERED = {"min_user": 1, "min_item": 1}


@dataclass(frozen=True)
class World:
    """Data that the arms are compared on, with another split for each seed.

    name: in tables and file names; unique within an experiment.
    load: seed -> dyads; their features are not used. It is pickled: a function of a module, or a partial of one.
    load_unfiltered: the same before rare users and items are left out; None where nothing is left out.
    settings: what `load` depends on beside the seed, as JSON values. Units with other settings have other files.
    """

    name: str
    load: Callable[[int], DyadicData]
    settings: Mapping[str, object] = field(default_factory=dict)
    load_unfiltered: Callable[[int], DyadicData] | None = None


def make_worlds(common: Mapping[str, object], scale: float) -> list[World]:
    """Ratings under both mappings or one file of feedback, and the simulated platform.

    common: fields of DyadicConfig that name the ratings, with the resolved "dataset", or the feedback. scale: of the
    platform.
    """
    config = DyadicConfig(**common)
    if config.feedback is not None:
        return [own_world(config.data_name, common), simulated_world(scale)]
    ratings = [own_world(f"{config.data_name} {mapping}", {"mapping": mapping} | common) for mapping in MAPPINGS]
    return [*ratings, simulated_world(scale)]


def simulated_world(scale: float) -> World:
    """The simulated platform; every seed simulates another one. It has no rare users or items to leave out."""
    return World("simulated-xing", partial(_simulate, scale), {"scale": scale, "seed": SEED})


def _simulate(scale: float, seed: int) -> DyadicData:
    data = simulate(scale, seed=SEED + seed)
    return replace(data, notes=(*data.notes, "every seed is another platform, not only another split"))


def own_world(name: str, values: Mapping[str, object]) -> World:
    """Dyads of ratings or of feedback; `values` are fields of config.dyadic.DyadicConfig."""
    stored = {key: value for key, value in values.items() if key != "data_dir"}
    stored |= {key: content_digest(path) for key, path in DyadicConfig(**values).own_files.items()}
    return World(name, partial(_load, values), stored, partial(_load, {**values, **UNFILTERED}))


def _load(values: Mapping[str, object], seed: int) -> DyadicData:
    return read_dyads(DyadicConfig(**values, seed=seed))


def require_labels(worlds: Sequence[World]) -> None:
    """Check the dyads of one split of every world before any is learned.

    Raises:
        UserError: they cannot be made, or a label is the same in all of them, as on a scale that ends below 5.
    """
    for world in worlds:
        data = world.load(0)
        for task, labels in zip(data.label_names, data.labels.T, strict=True):
            if labels.min() == labels.max():
                raise UserError(f"{world.name}: all dyads have the label {labels[0]} of {task}: {_mend(data)}")


def _mend(data: DyadicData) -> str:
    """What to do about a label that is always the same."""
    if data.ratings is None:
        return "choose other --labels, or lower --min_user and --min_item"
    return f"the mappings are made for ratings up to {MAX_RATING}; rescale the ratings"
