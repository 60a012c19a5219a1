"""The picture of the four experiments: losses and metrics over epochs."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from analysis.configuration import Configuration
from analysis.figures.style import BLUE, ORANGE, SKY, VERMILION, label_above, picture

# column: name, direction and detail of its axis
CURVES = {
    "train_joint": ("joint loss, train", 0, "λ_F · ranking loss\n+ λ_R · squared error\nlower is better within a line"),
    "train_factorization": ("ranking loss, train", -1, "mean of 1 - sigmoid, 0 to 1"),
    "train_regression": ("squared error, train", -1, "squared rating points"),
    "test_mrr": ("MRR, test", +1, "mean reciprocal rank, 0 to 1"),
    "test_mse": ("MSE, test", -1, "squared rating points"),
}
# (shared tables, lambda_R above 0.1): blue is shared in every picture, and orange separate
COLORS = {(True, False): BLUE, (True, True): SKY, (False, False): VERMILION, (False, True): ORANGE}
PLACES = [0, 1, 2, 4, 5]  # of the panels, in two rows of three: a test metric stands below the loss of its task
EVEN = 0.1  # lambda_R from which a curve is dashed and light


def color_of(shared: bool, regression_weight: float) -> str:
    """The color of a configuration with fixed weights: blue for shared tables, light for a large lambda_R."""
    return COLORS[shared, regression_weight > EVEN]


def draw_curves(
    curves: pd.DataFrame, configurations: Sequence[Configuration], caption: str, simulated: bool, path: Path
) -> None:
    """The homework's curves, a panel per quantity: means over seeds as lines, standard deviations as bands.

    The joint loss is the one that the runs recorded: that of the steps, with the weights of the weighting method.

    Args:
        curves: "row", "seed", "epoch" and the columns of CURVES.
        configurations: with the rows as names.
    """
    with picture(path, 5.6, caption=caption, simulated=simulated) as figure:
        panels = figure.subplots(2, 3, sharex=True)
        panels[0, 0].tick_params(labelbottom=True)  # the panel below it holds the legend
        for axis, (column, label) in zip(panels.flat[PLACES], CURVES.items(), strict=True):
            for one in configurations:
                _draw_curve(axis, curves[curves["row"] == one.name].groupby("epoch")[column], one)
            label_above(axis, *label)
            axis.xaxis.get_major_locator().set_params(integer=True)
        for axis in (panels[0, 0], *panels[1, 1:]):
            axis.set_xlabel("epoch")
        panels[1, 0].set_axis_off()
        panels[1, 0].legend(
            *panels[0, 0].get_legend_handles_labels(), loc="center", borderaxespad=0,
            title="embedding tables (λ_F, λ_R)\nlines: mean over seeds\nbands: ± standard deviation",
        )  # fmt: skip


def _draw_curve(axis: Axes, by_epoch, one: Configuration) -> None:
    """The curve of one configuration. by_epoch: a quantity of its runs, grouped by epoch."""
    mean, spread = by_epoch.mean(), by_epoch.std(ddof=1).fillna(0)
    shade, is_even = color_of(one.shared, one.regression_weight), one.regression_weight > EVEN
    axis.fill_between(mean.index, mean - spread, mean + spread, alpha=0.2, linewidth=0, color=shade, zorder=1)
    # A dashed line lies above the others, so that one below it shows through its gaps.
    dashes, order = ((3, 2), 3) if is_even else ((), 2)
    axis.plot(mean.index, mean, color=shade, dashes=dashes, label=one.name, zorder=order)
