"""The spaces that `experiments.py search` searches: settings of one model and the values to choose from."""

from collections.abc import Mapping
from typing import ClassVar

from config.base import RunConfig
from registry import make_config

Draw = Mapping[str, object]
Settings = dict[str, object]


class Space:
    """Settings to search over.

    model: of registry.MODELS.
    common: settings of every trial.
    choices: {name: its possible values, numbers in ascending order}; a draw takes one value of some or all of them.
    starts: the draws of the first trials. The empty one leaves all settings at their defaults, so that no search
        returns settings that are worse than these on the validation parts.
    lead_means: what `lead` is, for captions.
    is_on_record: its trials stand in a log, and every search of it repeats them.
    """

    model: ClassVar[str]
    common: ClassVar[Settings] = {}
    choices: ClassVar[dict[str, tuple]]
    starts: ClassVar[tuple[Draw, ...]] = ({},)
    is_on_record: ClassVar[bool] = False

    @property
    def shown(self) -> tuple[str, ...]:
        """The settings that the tables name."""
        return tuple(self.choices)

    def settings(self, draw: Draw) -> Settings:
        """The settings of main.py that a draw stands for, without `common`."""
        return dict(draw)

    def config(self, settings: Settings, **others: object) -> RunConfig:
        """The config of a trial. others: further settings, such as data and seed, which come first.

        Raises:
            UserError: a setting is out of range, or two contradict each other.
        """
        return make_config(self.model, **{**self.common, **settings, **others})

    def effects(self, draw: Draw) -> dict[str, Settings]:
        """{option: the settings of a draw with its default instead}; "nothing" is the key of the unchanged settings."""
        chosen = self.settings(draw)
        used = {name: value for name, value in draw.items() if name in chosen}
        return {"nothing": chosen} | {
            name: self.settings({other: value for other, value in used.items() if other != name}) for name in used
        }

    lead_means: ClassVar[str] = (
        "MRR / that of EASE - 1, plus 1 - MSE / that of the biases; where EASE is left out, popularity stands for it"
    )

    def lead(self, mrr: float, mse: float, to_beat: tuple[float, float]) -> float:
        """By how much a trial is ahead of the baselines: the sum of both leads, each as a fraction of its baseline.

        As in the sweep, a percent more MRR is worth a percent less MSE.

        Args:
            to_beat: MRR and MSE of the baselines on the same validation parts.
        """
        return (mrr / to_beat[0] - 1) + (1 - mse / to_beat[1])


class Champion(Space):
    """What --model closed_form decides or takes as given."""

    model = "closed_form"
    choices: ClassVar = {
        "ranking": ("ease", "networks", "popularity"),
        "ridge": (0.0, 60.0, 120.0, 250.0, 500.0, 1000.0, 2000.0),
        "ranking_dim": (0, 16, 64, 128, 256, 512),
        "rating_dim": (4, 8, 12, 16, 24),
        "rating_fits": (1, 2, 4, 8),
        "num_features": (0, 16, 32, 64, 100),
        "genres": ("auto", "off"),
        "epochs": (6, 8, 12, 16, 24),
    }


class Homework(Space):
    """The settings of the plain multi-task net. lambda_F is 1 - lambda_R."""

    model = "multitask"
    choices: ClassVar = {
        "regression_weight": (0.003, 0.01, 0.03, 0.1, 0.3, 0.5),
        "shared_embeddings": (True, False),
        "ranking_loss": ("bpr_sigmoid", "bpr", "softmax"),
        "negatives": (1, 4),
        "lr": (0.001, 0.002, 0.005, 0.01, 0.02),
        "schedule": ("constant", "cosine"),
        "embedding_dim": (16, 32, 64, 128),
        "batch_size": (256, 1024, 4096),
        "embedding_decay": (0.0, 0.1, 0.3, 1.0),
        "init_rating_bias": (False, True),
        "epochs": (5, 10, 20, 30),
    }
    # The default of 100 epochs is long; the experiments take 30.
    starts: ClassVar = ({}, {"epochs": 30})

    @property
    def shown(self) -> tuple[str, ...]:
        return ("factorization_weight", *self.choices)

    def settings(self, draw: Draw) -> Settings:
        settings = dict(draw)
        if "regression_weight" in draw:
            settings["factorization_weight"] = round(1 - draw["regression_weight"], 9)
        if draw.get("ranking_loss") == "softmax":
            settings.pop("negatives", None)  # it compares with all items
        return settings


class Ensemble(Space):
    """How presets/ensemble.json was chosen, on MovieLens 100K; presets/ensemble_trials.csv is the log."""

    model = "multitask"
    is_on_record = True
    common: ClassVar = {
        "ranking_loss": "softmax", "schedule": "cosine", "init_rating_bias": True, "factorization_weight": 1.0,
        "shared_embeddings": True,
    }  # fmt: skip
    choices: ClassVar = {
        "ensemble_size": (2, 3, 4),
        "num_item_based": (1, 2),
        "network_dim": (128, 192, 256),
        "regression_weight": (0.2, 0.25, 0.3),
        "batch_size": (1500, 2000),
        "epochs": (12, 14),
        "user_weight_exponent": (0.3, 0.5),
    }
    # The best settings of softmax networks, half of them item-based, for ensembles of four and of two.
    plain: ClassVar = {
        "network_dim": 256, "regression_weight": 0.2, "batch_size": 2000, "epochs": 12, "user_weight_exponent": 0.3,
    }  # fmt: skip
    starts: ClassVar = (
        {"ensemble_size": 4, "num_item_based": 2, **plain},
        {"ensemble_size": 2, "num_item_based": 1, **plain},
    )
    shown = (
        "ensemble_size", "num_item_based", "regression_weight", "lr", "embedding_decay", "batch_size", "epochs",
        "user_weight_exponent", "embedding_dim", "layer_sizes",
    )  # fmt: skip
    # On the validation parts of the same five splits of MovieLens 100K. MRR: that of EASE (lambda 200). MSE: that of
    # user + item biases (.8640 there), lowered in the ratio by which a mean of tuned models, .8090, is below the biases
    # on the test parts.
    to_beat = (0.1305, 0.7898)

    def settings(self, draw: Draw) -> Settings:
        settings = {"lr": 0.02, "embedding_decay": 1.2} | draw
        settings["embedding_dim"] = settings["ensemble_size"] * settings.pop("network_dim")
        settings["layer_sizes"] = (3 * settings["embedding_dim"],)
        return settings

    def effects(self, draw: Draw) -> dict[str, Settings]:
        chosen = self.common | self.settings(draw)
        defaults = make_config(self.model)
        names = ("schedule", "init_rating_bias", "embedding_decay", "user_weight_exponent", "num_item_based")
        replaced = {name: getattr(defaults, name) for name in names} | {"shared_embeddings": False}
        differing = {name: chosen | {name: value} for name, value in replaced.items() if chosen[name] != value}
        differing["shared_embeddings"]["num_item_based"] = 0  # item-based networks need shared tables
        width = draw["network_dim"]
        one = {"ensemble_size": 1, "num_item_based": 0, "embedding_dim": width, "layer_sizes": (3 * width,)}
        return {"nothing": chosen} | differing | {"ensemble_size": chosen | one}

    lead_means = f"the smaller distance to an MRR of {to_beat[0]} and an MSE of {to_beat[1]}, bounds of MovieLens 100K"

    def lead(self, mrr: float, mse: float, to_beat: tuple[float, float]) -> float:
        """The smaller of the two distances to the recorded bounds, whatever the baselines are.

        Both distances count alike, as the noise between splits is about .003 in either metric.
        """
        return min(mrr - self.to_beat[0], self.to_beat[1] - mse)


SPACES = {"champion": Champion(), "homework": Homework(), "ensemble": Ensemble()}
