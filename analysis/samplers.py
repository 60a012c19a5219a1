"""How a search chooses its next trials: at random, or by what the trials so far have shown."""

import random
from collections.abc import Callable, Sequence, Set
from importlib import import_module
from typing import Any, Protocol

from analysis.runner import Log
from analysis.spaces import Draw, Space
from config.base import RunConfig
from config.errors import UserError

SEED = 2026
INSTALL = "pip install -r analysis/requirements.txt"
MAX_REPEATS = 1000  # draws of known settings in a row, after which a space counts as exhausted
ToConfig = Callable[[Draw], RunConfig]


class Sampler(Protocol):
    """Chooses draws from a space.

    name: for captions.
    """

    name: str

    def ask(self, to_config: ToConfig, known: Set[RunConfig]) -> list[Draw]:
        """The next draws, with configs that differ from each other and from the known ones; none at the end."""

    def tell(self, draw: Draw, config: RunConfig, lead: float) -> None:
        """Take the lead of a trial into account."""


class RandomSampler:
    """The same sequence of draws in every search: n trials are the first n of any larger number."""

    name = "random draws"
    batch = 50

    def __init__(self, space: Space) -> None:
        self.space, self.dice = space, random.Random(SEED)

    def ask(self, to_config: ToConfig, known: Set[RunConfig]) -> list[Draw]:
        found: dict[RunConfig, Draw] = {}
        for _ in range(MAX_REPEATS):
            draw = {name: self.dice.choice(values) for name, values in self.space.choices.items()}
            config = to_config(draw)
            if config not in known:
                found.setdefault(config, draw)
            if len(found) == self.batch:
                break
        return list(found.values())

    def tell(self, draw: Draw, config: RunConfig, lead: float) -> None:
        """Draws do not depend on earlier trials."""


class TPESampler:
    """The tree-structured Parzen estimator of Optuna (Bergstra et al. 2011; Akiba et al. 2019).

    It asks for a fixed number of trials at a time, whatever the number of jobs: its draws depend on the leads alone, so
    that a search that goes on, or with other --jobs, makes the same ones.
    """

    name = "TPE of Optuna"
    batch = 5
    startup = 5  # trials before the leads count: fewer than Optuna's 10, as searches here are short
    patience = 50  # known settings in one batch, after which the rest of it is drawn at random

    def __init__(self, space: Space, optuna: Any) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(seed=SEED, n_startup_trials=self.startup, constant_liar=True)
        self.optuna, self.space, self.random = optuna, space, RandomSampler(space)
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self.distributions = {name: self._distribution(values) for name, values in space.choices.items()}
        self.leads: dict[RunConfig, float] = {}
        self.asked: dict[RunConfig, Any] = {}  # the trials of Optuna that wait for their lead

    def ask(self, to_config: ToConfig, known: Set[RunConfig]) -> list[Draw]:
        found: dict[RunConfig, Draw] = {}
        for _ in range(self.patience + self.batch):
            trial = self.study.ask(self.distributions)
            draw = {name: values[trial.params[name]] for name, values in self.space.choices.items()}
            config = to_config(draw)
            if config in known or config in found:
                self._tell(trial, self.leads.get(config))
                continue
            self.asked[config], found[config] = trial, draw
            if len(found) == self.batch:
                return list(found.values())
        return [*found.values(), *self.random.ask(to_config, known | found.keys())][: self.batch]

    def tell(self, draw: Draw, config: RunConfig, lead: float) -> None:
        self.leads[config] = lead
        if config in self.asked:
            self._tell(self.asked.pop(config), lead)
            return
        values = {name: getattr(config, name, None) for name in self.distributions}
        if all(values[name] in choices for name, choices in self.space.choices.items()):
            places = {name: choices.index(values[name]) for name, choices in self.space.choices.items()}
            trial = self.optuna.trial.create_trial(params=places, distributions=self.distributions, value=lead)
            self.study.add_trial(trial)

    def _tell(self, trial: Any, lead: float | None) -> None:
        """None: the same settings are in the same batch, and their lead is not known so far."""
        state = self.optuna.trial.TrialState
        self.study.tell(trial, lead, state=state.FAIL if lead is None else state.COMPLETE)

    def _distribution(self, values: Sequence[object]) -> Any:
        """Over the places of the values: of numbers with their order, of anything else without."""
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
            return self.optuna.distributions.IntDistribution(0, len(values) - 1)
        return self.optuna.distributions.CategoricalDistribution(tuple(range(len(values))))


def make_sampler(space: Space, name: str, log: Log) -> Sampler:
    """The sampler of this name; "auto" is TPE where Optuna is installed, else random draws. Logs which it is.

    Raises:
        UserError: TPE is asked for without Optuna, or for a space whose draws are on record.
    """
    if space.is_on_record and name == "tpe":
        raise UserError("--space ensemble repeats the random draws behind --preset ensemble: leave out --sampler tpe")
    optuna = None if space.is_on_record or name == "random" else _find_optuna()
    if name == "tpe" and optuna is None:
        raise UserError(f"--sampler tpe needs Optuna: {INSTALL}, or choose --sampler random")
    sampler: Sampler = RandomSampler(space) if optuna is None else TPESampler(space, optuna)
    hint = f" (TPE finds more: {INSTALL})" if name == "auto" and optuna is None and not space.is_on_record else ""
    log(f"settings are chosen by {sampler.name}{hint}")
    return sampler


def _find_optuna() -> Any:
    try:
        return import_module("optuna")
    except ImportError:
        return None
