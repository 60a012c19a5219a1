"""Models of RecBole, fitted on training rows of our own making. Importing this file imports RecBole."""

import logging
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path

import numpy as np
import torch

for old, new in {"bool8": "bool_", "float_": "float64", "complex_": "complex128", "unicode_": "str_"}.items():
    if not hasattr(np, old):  # names that RecBole 1.2.1 uses and NumPy 2 has removed
        setattr(np, old, getattr(np, new))

from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.interaction import Interaction
from recbole.data.utils import create_samplers, get_dataloader
from recbole.utils import get_model, get_trainer, init_seed

from dataset import Interactions

logging.getLogger().setLevel(logging.ERROR)  # it logs much about its data


def fit_recbole(train: Interactions, model: str, epochs: int):
    """Fit a general recommender by its name; returns scores(users) -> (R, num_items), as in benchmarks/peers.py."""
    with (
        tempfile.TemporaryDirectory() as folder,
        chdir(folder),
    ):  # RecBole reads files and writes some to the working folder
        rows = zip(train.user_ids.tolist(), train.item_ids.tolist(), strict=True)
        lines = ["user_id:token\titem_id:token", *(f"{user}\t{item}" for user, item in rows)]
        (Path(folder) / "train").mkdir()
        (Path(folder) / "train" / "train.inter").write_text("\n".join(lines) + "\n")
        with redirect_stdout(None):  # it complains about our command line there
            config = Config(model, "train", config_dict=_settings(folder) | {"epochs": epochs})
        init_seed(config["seed"], config["reproducibility"])
        names = create_dataset(config)
        parts = names.build()
        sampler = create_samplers(config, names, parts)[0]
        loader = get_dataloader(config, "train")(config, parts[0], sampler, shuffle=True)
        network = get_model(model)(config, loader.dataset).to(config["device"])
        trainer = get_trainer(config["MODEL_TYPE"], model)(config, network)
        trainer.fit(loader, None, verbose=False, saved=False, show_progress=False)
    network.eval()
    users = torch.as_tensor(names.token2id("user_id", [str(user) for user in range(train.num_users)]))
    known = np.unique(train.item_ids.numpy())
    places = names.token2id("item_id", known.astype(str))

    def scores(rows: np.ndarray) -> np.ndarray:
        """Items without training rows have no score in RecBole: they get the lowest one."""
        with torch.no_grad():
            found = network.full_sort_predict(Interaction({"user_id": users[rows]})).view(len(rows), -1)[:, places]
        lowest = found[found.isfinite()].min()
        every = lowest.expand(len(rows), train.num_items).clone()
        every[:, known] = found.clamp(min=lowest)
        return every.numpy()

    return scores


def _settings(folder: str) -> dict:
    return {
        "data_path": folder,
        "checkpoint_dir": folder,
        "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "RO", "group_by": None, "mode": "full"},
        "seed": 0,
        "use_gpu": False,
        "state": "ERROR",
    }
