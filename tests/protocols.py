"""Proof for the type checker that every family meets the contracts of training.protocols; nothing here runs."""

from dataset import Data
from dyadic.data import DyadicData
from dyadic.recipe import RECIPE as DYADIC
from dyadic.task import DyadicSGD, DyadicTask
from multitask.ensemble import EnsembleStepper
from multitask.item_based import ItemBasedStepper, ItemBasedTask
from multitask.manual_gradient import ManualGradientStepper
from multitask.recipe import RECIPE as MULTITASK
from multitask.softmax import SoftmaxTask
from multitask.task import WatchAndRate
from training.data_parallel import DataParallelStepper
from training.protocols import GradientTask, Recipe, RunData, Stepper, Task
from training.steps import GradientStepper
from zoo.recipe import RECIPE as ZOO
from zoo.task import LabelTask

RECIPES: tuple[Recipe, ...] = (MULTITASK, ZOO, DYADIC)


def tasks(dyadic: DyadicTask) -> tuple[Task, ...]:
    return (dyadic,)


def gradient_tasks(
    pairs: WatchAndRate, softmax: SoftmaxTask, item_based: ItemBasedTask, labels: LabelTask
) -> tuple[GradientTask, ...]:
    return (pairs, softmax, item_based, labels)


def steppers(
    plain: GradientStepper,
    parallel: DataParallelStepper,
    manual: ManualGradientStepper,
    item_based: ItemBasedStepper,
    ensemble: EnsembleStepper,
    dyadic: DyadicSGD,
) -> tuple[Stepper, ...]:
    return (plain, parallel, manual, item_based, ensemble, dyadic)


def data(ratings: Data, dyads: DyadicData) -> tuple[RunData, ...]:
    return (ratings, dyads)
