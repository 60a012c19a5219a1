"""What a user bias changes: p_ij = a_i + u_i . q_j + b_j instead of eq. (1), measured on trained networks."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from analysis.runner import Run
from evaluation import evaluating, mrr_score
from losses import bpr_loss
from multitask.precision import in_double
from registry import recipe_for
from training.negatives import sample_uniform
from training.run_folder import RunFolder

MAX_ROWS = 2**16  # training ratings that the loss is computed on
COLUMNS = ("loss", "mrr")


class WithUserBias(nn.Module):
    """A network with a bias added to the ranking scores of each user. bias: (num_users,)."""

    def __init__(self, model: nn.Module, bias: Tensor) -> None:
        super().__init__()
        self.model, self.bias = model, bias

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        predictions, score = self.model(user_ids, item_ids)
        return predictions + self.bias[user_ids], score

    def score_items(self, user_ids: Tensor) -> Tensor:
        return self.model.score_items(user_ids) + self.bias[user_ids].unsqueeze(1)


def measure_all(runs: Sequence[Run], results: Sequence[dict]) -> pd.DataFrame:
    """A row for every trained network: "row", "seed", COLUMNS, and COLUMNS with the ending "_with_bias"."""
    device = torch.device("cpu")
    rows, data = [], {}
    for run, result in zip(runs, results, strict=True):
        seed, recipe = run.config.seed, recipe_for(run.config)
        if seed not in data:
            data[seed] = recipe.load_data(run.config)
        model = recipe.build(run.config, data[seed], device).model
        RunFolder.open(Path(result["folder"])).restore("last", device, {"model": model})
        rows.append({"row": run.row, "seed": seed} | measure(model, data[seed], seed))
    return pd.DataFrame(rows)


def measure(model: nn.Module, data, seed: int) -> dict[str, float]:
    """Eq. (3) on training ratings and MRR on the test part, without and with a_i drawn from N(0, 1).

    In double precision, so that rounding does not look like an effect.
    """
    model = in_double(model)
    generator = torch.Generator().manual_seed(seed)
    bias = torch.randn(len(data.users), dtype=torch.double, generator=generator)
    rows = data.train[: min(MAX_ROWS, len(data.train))]
    negatives = sample_uniform(data.train, rows.user_ids, 1, generator).squeeze(1)
    found = {}
    for ending, network in (("", model), ("_with_bias", WithUserBias(model, bias))):
        with evaluating(network):
            watched, others = (network(rows.user_ids, items)[0] for items in (rows.item_ids, negatives))
            found[f"loss{ending}"] = bpr_loss(watched, others.unsqueeze(1)).item()
        found[f"mrr{ending}"] = mrr_score(network, data.test, data.seen)
    return found
