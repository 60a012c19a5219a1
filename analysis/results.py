"""From the files of a run to its numbers.

A number is read at the last epoch or at one that the validation part chooses, never at the best epoch of the test part.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from config.errors import UserError

CURVES = ("train_factorization", "train_regression", "train_joint", "val_mrr", "val_mse", "test_mrr", "test_mse")
METRICS = {"mrr": +1, "mse": -1}  # +1 where more is better, -1 where less is
READINGS = {"last": "after the last epoch", "best": "at the best epoch by validation"}


def read_metrics(folder: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """metrics.csv of a run; all columns unless some are named.

    Raises:
        UserError: it is missing or damaged, has no epoch, or lacks a column.
    """
    path = folder / "metrics.csv"
    try:
        table = pd.read_csv(path, usecols=None if columns is None else list(columns))
        if table.empty:
            raise ValueError("it has no epoch")
        return table if columns is None else table[list(columns)]
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} is damaged ({reason}): remove the folder {folder}, and the same command trains this run again"
        ) from None


def read_curves(results: Iterable[dict]) -> pd.DataFrame:
    """A row for every run and epoch from metrics.csv: "row", "seed", "epoch" and CURVES.

    results: of analysis.runner.run_all.
    """
    frames = []
    for result in results:
        history = read_metrics(Path(result["folder"]), ("epoch", *CURVES))
        history.insert(0, "row", result["row"])
        history.insert(1, "seed", result["seed"])
        frames.append(history)
    return pd.concat(frames, ignore_index=True)


def read_runs(curves: pd.DataFrame) -> pd.DataFrame:
    """Test values at chosen epochs: a row for every run, indexed by (row, seed), in the order of `curves`.

    last_mrr, last_mse   at the last epoch
    best_mrr, best_mse   each at its own best epoch by validation: best_mrr_epoch and best_mse_epoch
    both_mrr, both_mse   at one epoch for both, both_epoch: the one with the highest validation MRR / MSE. Where one
                         network serves both tasks, a percent more MRR is worth a percent less MSE.
    last_regression      squared error on the training ratings, mean over the last epoch
    """
    rows = {key: _read_run(group.sort_values("epoch")) for key, group in curves.groupby(["row", "seed"], sort=False)}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["row", "seed"])
    return table


def rating_fraction(curves: pd.DataFrame, regression_weight: float) -> float:
    """The fraction of the joint loss that is the rating task's, lambda_R L_R / (lambda_F L_F + lambda_R L_R); 0 to 1.

    In the first epoch, mean over seeds; `curves` are those of one configuration with fixed weights.
    """
    first = curves[curves["epoch"] == 1]
    rating = regression_weight * first["train_regression"]
    return (rating / (rating + (1 - regression_weight) * first["train_factorization"])).mean()


def _read_run(history: pd.DataFrame) -> dict[str, float]:
    last = history.iloc[-1]
    found = {"last_mrr": last["test_mrr"], "last_mse": last["test_mse"], "last_regression": last["train_regression"]}
    for metric, direction in METRICS.items():
        chosen = _best(history, direction * history[f"val_{metric}"])
        found |= {f"best_{metric}": chosen[f"test_{metric}"], f"best_{metric}_epoch": chosen["epoch"]}
    both = _best(history, history["val_mrr"] / history["val_mse"])
    return found | {"both_mrr": both["test_mrr"], "both_mse": both["test_mse"], "both_epoch": both["epoch"]}


def _best(history: pd.DataFrame, scores: pd.Series) -> pd.Series:
    """The row with the highest score, the first of equal ones; all nan where every score is nan."""
    if scores.isna().all():
        return pd.Series(np.nan, index=history.columns)
    return history.loc[scores.idxmax()]
