"""The one list of all models: --model NAME -> its config class and the recipe that trains it.

A recipe is imported when it is asked for: the list itself needs neither PyTorch nor the other requirements.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from config import dyadic, multitask, zoo
from config.base import RunConfig
from config.parts import has_module
from sources.catalog import DATASETS
from training.weighting import METHODS

if TYPE_CHECKING:
    from training.protocols import Recipe

# Module of the recipe -> the configs that it trains.
ALL_RECIPES: dict[str, tuple[type[RunConfig], ...]] = {
    "multitask.recipe": (multitask.MultiTaskConfig,),
    "multitask.closed_form_recipe": (multitask.ClosedFormConfig,),
    "zoo.recipe": zoo.CONFIGS,
    "dyadic.recipe": dyadic.CONFIGS,
}
# A copy of the project for students lacks some of them.
RECIPES = {module: configs for module, configs in ALL_RECIPES.items() if has_module(module)}
MODELS: dict[str, type[RunConfig]] = {config.model: config for configs in RECIPES.values() for config in configs}
# The values of fields whose possible values are listed where they are implemented.
CHOICES: dict[str, tuple[str, ...]] = {
    "dataset": tuple(name for name in DATASETS if name != "simulated-xing" or "dyadic" in MODELS),
    "weighting": tuple(METHODS),
}


def make_config(model: str = "multitask", **values: Any) -> RunConfig:
    """The config of a model with these values: make_config("mmoe", epochs=3).

    Raises:
        UserError: a value is out of range, or two contradict each other.
        KeyError: no model has this name.
        TypeError: the model has no such setting.
    """
    return MODELS[model].from_values(values)


def recipe_for(config: RunConfig) -> "Recipe":
    """The recipe that trains a config."""
    module = next(name for name, configs in RECIPES.items() if type(config) in configs)
    return import_module(module).RECIPE
