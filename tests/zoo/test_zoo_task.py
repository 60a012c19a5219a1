"""The task of the zoo: its losses and metrics by hand, and whole runs through the training loop."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import interactions
from sklearn.metrics import log_loss, roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from config.errors import UserError
from config.zoo import ZooConfig
from dataset import Data
from evaluation import Metric
from registry import MODELS, make_config
from training.loop import fit
from training.run_folder import RunFolder
from training.weighting import METHODS
from zoo import task as zoo_task
from zoo.metrics import LABEL_METRICS
from zoo.networks import NETWORKS, build_network
from zoo.recipe import RECIPE
from zoo.task import LabelTask

CPU = torch.device("cpu")
GATED = ("omoe", "mmoe", "cgc", "ple", "me_mmoe", "me_ple", "aitm", "stem", "adatt")


def small(model: str = "mmoe", **options) -> ZooConfig:
    """The config of a short run, with the chain already resolved."""
    few = {"experts": 3, "task_experts": 1, "shared_experts": 2, "expert_units": (8,)}
    few = {name: value for name, value in few.items() if name in MODELS[model].__dataclass_fields__}
    chosen = {"chain": "joint", "epochs": 2, "batch_size": 1024, "embedding_dim": 4, "tower_units": (4,)}
    return make_config(model=model, **{**chosen, **few, **options})


def build(data: Data, config: ZooConfig):
    """The network, with the same initial weights each time, and its task."""
    training = RECIPE.build(config, data, CPU)
    return training.model, training.task


def run_in(path, data: Data, config: ZooConfig):
    """Train in a new or an existing run folder: (outcome, network, task)."""
    run = RunFolder(path)
    if not (path / "config.json").exists():
        run.write_config({"settings": {}, "data": {}})
    training = RECIPE.build(config, data, CPU)
    return fit(training, config, run, CPU, lambda line: None), training.model, training.task


def weights_of(network) -> dict[str, list]:
    return {name: value.tolist() for name, value in network.state_dict().items()}


class Oracle(torch.nn.Module):
    """A network with given probabilities: P(view) and P(like | view), (users, items) each."""

    def __init__(self, view: torch.Tensor, like_given_view: torch.Tensor, chain: str) -> None:
        super().__init__()
        self.view, self.given, self.chain = view.double(), like_given_view.double(), chain

    def forward(self, user_ids, item_ids):
        view, like = self.view[user_ids, item_ids], self.given[user_ids, item_ids]
        return {"view": view.logit(), "like": (like if self.chain == "conditional" else view * like).logit()}

    def conditional_logits(self, user_ids, item_ids):
        assert self.chain != "conditional"  # then forward returns these already
        return {"view": self.view[user_ids, item_ids].logit(), "like": self.given[user_ids, item_ids].logit()}


def random_probabilities(seed: int, users: int = 60, items: int = 80) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [0.05 + 0.9 * torch.rand(users, items, generator=generator) for _ in range(2)]


# losses


@pytest.mark.parametrize("chain", ["joint", "conditional", "none"])
def test_losses_are_cross_entropies_by_hand(tiny, chain):
    network, task = build(tiny, replace(small(), chain="conditional" if chain == "conditional" else "joint"))
    task = LabelTask(tiny, batch_size=200, chain=chain)
    batch = next(iter(task.batches(1)))
    logits = {name: logit.tolist() for name, logit in network(batch["user_ids"], batch["item_ids"]).items()}
    terms = {"view": [], "like": []}
    for row, (view, like) in enumerate(batch["labels"].tolist()):
        for name, label in (("view", view), ("like", like)):
            if name == "view" or view == 1 or chain != "conditional":
                terms[name].append(math.log(1 + math.exp(-logits[name][row] if label else logits[name][row])))
    losses = task.losses(network, batch)
    assert list(losses) == list(task.loss_names) == ["view", "like"]
    for name, values in terms.items():
        assert losses[name].item() == pytest.approx(sum(values) / len(values), rel=1e-5)
    assert (len(terms["like"]) < 60) is (chain == "conditional")


def test_a_batch_without_views_has_a_like_loss_of_zero(tiny):
    network, task = build(tiny, small(chain="conditional"))
    batch = {"user_ids": torch.tensor([0]), "item_ids": torch.tensor([0]), "labels": torch.zeros(1, 2)}
    losses = task.losses(network, batch)
    assert losses["like"].item() == 0
    assert losses["view"].item() > 0


def test_the_calibrator_is_a_loss_if_it_has_a_weight(tiny):
    network, task = build(tiny, small("aitm", calibrator=0.3))
    batch = next(iter(task.batches(1)))
    losses = task.losses(network, batch)
    view, like = (logit.sigmoid() for logit in network(batch["user_ids"], batch["item_ids"]).values())
    assert list(losses) == list(task.loss_names) == ["view", "like", "calibrator"]
    torch.testing.assert_close(losses["calibrator"], (like - view).clamp(min=0).mean())
    assert task.regularizers == ("calibrator",)  # so that no weighting method treats it as a task
    without = build(tiny, small("aitm", calibrator=0.0))[1]
    assert (without.loss_names, without.regularizers) == (("view", "like"), ())
    assert list(without.losses(network, batch)) == ["view", "like"]


@pytest.mark.parametrize(("labels", "column"), [(("view",), 0), (("like",), 1)])
def test_one_label_alone_is_the_loss_of_its_column(tiny, labels, column):
    network, both = build(tiny, small())
    batch = next(iter(both.batches(1)))
    alone = LabelTask(tiny, labels, batch_size=1024)
    own = next(iter(alone.batches(1)))
    assert own["item_ids"].equal(batch["item_ids"])
    assert own["labels"][:, 0].equal(batch["labels"][:, column])
    found = alone.losses(network, own)
    assert found == {labels[0]: both.losses(network, batch)[labels[0]]}


# metrics


def test_metrics_by_hand(tiny):
    """Metrics of a label use all rows, those of like given view the viewed rows."""
    task = LabelTask(tiny)
    view_chance, like_chance = random_probabilities(seed=1)
    found = task.metrics(Oracle(view_chance, like_chance, "joint"), "test")
    rows = task._evaluated["test"]
    view, like = rows.labels.double().T.numpy()
    p_view, p_given = (table.double()[rows.user_ids, rows.item_ids].numpy() for table in (view_chance, like_chance))
    viewed = view == 1
    expected = {
        "view_auc": roc_auc_score(view, p_view),
        "like_auc": roc_auc_score(like, p_view * p_given),
        "view_log_loss": log_loss(view, p_view),
        "like_log_loss": log_loss(like, p_view * p_given),
        "view_calibration": p_view.mean() / view.mean(),
        "like_given_view_auc": roc_auc_score(like[viewed], p_given[viewed]),
        "like_over_view": 0.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert found["auc"] == (found["view_auc"] + found["like_auc"]) / 2
    assert found["log_loss"] == found["view_log_loss"] + found["like_log_loss"]
    users = rows.user_ids.numpy()[viewed]
    within = []
    for user in set(users):
        own = like[viewed][users == user]
        if 0 < own.mean() < 1:
            within.append(roc_auc_score(own, p_given[viewed][users == user]))
    assert found["like_given_view_user_auc"] == pytest.approx(sum(within) / len(within))
    assert found["like_given_view_auc"] != pytest.approx(found["like_auc"], abs=1e-3)


def test_joint_and_conditional_networks_with_equal_probabilities_have_equal_metrics(tiny):
    chances = random_probabilities(seed=2)
    for split in ("val", "test"):
        found = [LabelTask(tiny, chain=way).metrics(Oracle(*chances, way), split) for way in ("joint", "conditional")]
        assert found[0] == pytest.approx(found[1], abs=1e-9)


def test_like_over_view_counts_likes_more_probable_than_views(tiny):
    """A network without a product can predict that; here for every other item."""

    class Contrary(torch.nn.Module):
        def forward(self, user_ids, item_ids):
            view = torch.zeros(len(item_ids))
            return {"view": view, "like": torch.where(item_ids % 2 == 0, 0.1, 0.0)}

        conditional_logits = forward

    task = LabelTask(tiny)
    share = (task._evaluated["test"].item_ids % 2 == 0).float().mean().item()
    assert task.metrics(Contrary(), "test")["like_over_view"] == pytest.approx(share)


def test_independent_labels_have_no_conditional_metrics(tiny):
    task = LabelTask(tiny, chain="none")
    found = task.metrics(build(tiny, small())[0], "test")
    assert not [name for name in found if "given" in name or "over" in name]
    assert set(found) == set(task.directions)
    assert [name for name in LabelTask(tiny).directions if "given" in name or "over" in name]


@pytest.mark.parametrize("chain", ["joint", "conditional", "none"])
def test_every_column_of_a_metric_has_a_tag(tiny, chain):
    task = LabelTask(tiny, chain=chain)
    for split in ("val", "test"):
        for name in task.metrics(task.baselines()["constant"], split):
            test_group = "eval" if name in ("view_auc", "like_auc") else "further metrics"
            group = test_group if split == "test" else "validation"
            assert task.tags[f"{split}_{name}"] == f"{group}/{name.replace('_', ' ')}"


def test_a_new_label_metric_needs_an_entry_in_its_table_only(tiny, monkeypatch):
    brier = Metric(lambda s: (s.logits.sigmoid() - s.labels).square().mean().item(), -1, "Brier score")
    monkeypatch.setitem(LABEL_METRICS, "brier", brier)
    task = LabelTask(tiny)
    found = task.metrics(task.baselines()["constant"], "test")
    assert 0 < found["like_brier"] < found["view_brier"] < 0.25
    assert task.directions["view_brier"] == -1
    assert task.tags["val_view_brier"] == "validation/view Brier score"


@pytest.mark.parametrize("labels", [("view", "like"), ("view",), ("like",)])
@pytest.mark.parametrize("chain", ["joint", "conditional", "none"])
def test_every_metric_has_a_direction_and_every_monitored_one_is_a_metric(tiny, labels, chain):
    task = LabelTask(tiny, labels, chain=chain)
    found = task.metrics(task.baselines()["item mean"], "val")
    assert set(found) == set(task.directions)
    for name, way in task.directions.items():
        rising, falling = name.endswith("auc"), name.endswith(("log_loss", "entropy", "like_over_view"))
        assert way == rising - falling, name
    assert set(task.console_metrics) | set(task.compared) | {task.primary_metric} <= set(found)


def test_a_split_with_one_class_only_raises(tiny):
    all_liked = replace(tiny.validation, ratings=torch.full_like(tiny.validation.ratings, 5.0))
    nothing_liked = replace(tiny.test, ratings=torch.ones_like(tiny.test.ratings))
    LabelTask(replace(tiny, validation=all_liked))  # negatives are not liked
    with pytest.raises(UserError, match="the label like is 1 in all 216 rows of the val split"):
        LabelTask(replace(tiny, validation=all_liked), ("like",), negatives=0)
    with pytest.raises(UserError, match="the label like is 0 in all 1200 rows of the test split"):
        LabelTask(replace(tiny, test=nothing_liked))
    with pytest.raises(UserError, match="the label view is 1 in all 216 rows of the val split"):
        LabelTask(tiny, negatives=0)


@pytest.mark.parametrize(("rating", "value"), [(5.0, 1), (1.0, 0)])
def test_a_training_part_with_one_class_only_raises(tiny, rating, value):
    constant = replace(tiny.train, ratings=torch.full_like(tiny.train.ratings, rating))
    config, data = make_config("mmoe", labels="like", negatives=0), replace(tiny, train=constant)
    with pytest.raises(UserError, match=f"the label like is {value} in all 1944 rows of the training part, so it cann"):
        RECIPE.resolve(config, data, lambda line: None)
    drawn = replace(config, negatives=2)
    if value:
        RECIPE.resolve(drawn, data, lambda line: None)
    else:
        with pytest.raises(UserError, match="the label like is 0 in all 5832 rows of the training part"):
            RECIPE.resolve(drawn, data, lambda line: None)


def test_scores_are_the_joint_logits_of_the_chain(tiny):
    chances = random_probabilities(seed=3)
    users, items = torch.full((80,), 7), torch.arange(80)
    product = (chances[0] * chances[1])[7].double()
    for chain in ("joint", "conditional"):
        scores, shown = LabelTask(tiny, chain=chain).score(Oracle(*chances, chain), users, items)
        torch.testing.assert_close(scores, product.logit(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(shown, {"view": chances[0][7].double(), "like": product})
    alone, shown = LabelTask(tiny, ("view",)).score(build(tiny, small(labels="view"))[0], users, items)
    assert list(shown) == ["view"]
    assert shown["view"].equal(alone.sigmoid())


# runs


OPTIONS = [
    {"labels": "view"}, {"labels": "like"}, {"like_from": 3.0}, {"negatives": 2}, {"chain": "conditional"},
    {"batch_size": 512}, {"seed": 1}, {"seed": 2}, {"label_weights": (1.0, 0.2)},
    {"weighting": "uncertainty"}, {"weight_decay": 0.5}, {"lr": 1e-3}, {"embedding_dim": 5}, {"experts": 2},
    {"expert_units": (8, 6)}, {"tower_units": (5,)},
]  # fmt: skip


@pytest.fixture(scope="module")
def plain(tiny, tmp_path_factory):
    outcome, network, _ = run_in(tmp_path_factory.mktemp("runs") / "plain", tiny, small(epochs=1))
    return outcome.history, weights_of(network)


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_option_changes_the_result(tiny, tmp_path, plain, option):
    outcome, network, _ = run_in(tmp_path / "run", tiny, small(epochs=1, **option))
    history, weights = plain
    assert outcome.history != history
    assert weights_of(network) != weights


def test_the_calibrator_reduces_likes_above_views(tiny, tmp_path):
    """If every view is a like, single-task networks put about half of the likes above the views."""
    settings = small("single", like_from=1.0, lr=0.05, epochs=3)
    found = {}
    for weight in (0.0, 0.5, 5.0):
        outcome, _, _ = run_in(tmp_path / str(weight), tiny, replace(settings, calibrator=weight))
        found[weight] = outcome.history[-1]["test_like_over_view"]
    assert found[5.0] < found[0.5] < found[0.0]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_seed_changes_the_rows(tiny, seed):
    """Tested on the batches, since the seed also changes the split and the initial weights of a run."""
    batches = [next(iter(LabelTask(tiny, seed=number).batches(1))) for number in (0, seed)]
    assert not batches[0]["item_ids"].equal(batches[1]["item_ids"])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_is_deterministic_and_a_resumed_one_is_bit_equal(tiny, tmp_path, name):
    settings = small(name, epochs=3)
    whole, network, task = run_in(tmp_path / "whole", tiny, settings)
    run_in(tmp_path / "resumed", tiny, replace(settings, epochs=1))
    resumed, twin, _ = run_in(tmp_path / "resumed", tiny, settings)
    assert resumed.history == whole.history
    assert (resumed.epochs_run, whole.epochs_run) == (2, 3)
    assert weights_of(network) == weights_of(twin)
    assert set(whole.history[0]) == {"epoch", *task.tags}
    assert len(set(task.tags.values())) == len(task.tags)


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_is_bit_equal_with_every_weighting(tiny, tmp_path, method):
    settings = small("mmoe", epochs=4, weighting=method, calibrator=0.5)
    whole, network, _ = run_in(tmp_path / "whole", tiny, settings)
    run_in(tmp_path / "resumed", tiny, replace(settings, epochs=3))
    resumed, twin, _ = run_in(tmp_path / "resumed", tiny, settings)
    assert resumed.history == whole.history
    assert weights_of(network) == weights_of(twin)
    assert "weight_calibrator" not in whole.history[0]


def test_the_joint_loss_is_the_weighted_sum(tiny, tmp_path):
    row = run_in(tmp_path / "run", tiny, small("aitm", label_weights=(0.5, 2.0), calibrator=0.7))[0].history[0]
    expected = 0.5 * row["train_view"] + 2.0 * row["train_like"] + 0.7 * row["train_calibrator"]
    assert row["train_joint"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("monitor", [None, "view_auc", "like_log_loss", "like_given_view_auc"])
def test_the_restored_epoch_is_the_best_on_validation(tiny, tmp_path, monitor):
    outcome, network, task = run_in(tmp_path / "run", tiny, small(epochs=6, lr=0.05, monitor=monitor))
    values = [row[f"val_{monitor or 'auc'}"] for row in outcome.history]
    best = (min if monitor == "like_log_loss" else max)(values)
    assert outcome.best_epoch == values.index(best) + 1
    assert outcome.best_epoch < 6  # the test needs a best epoch that is not the last
    for split in ("val", "test"):
        kept = {name: outcome.history[outcome.best_epoch - 1][f"{split}_{name}"] for name in task.directions}
        assert task.metrics(network, split) == kept


def test_undefined_metrics_are_nan_and_do_not_stop_a_run(tiny, tmp_path):
    """Feedback in which every view is a like has no AUC of like given view."""
    train, validation, test = (
        replace(split, ratings=torch.stack([split.ratings >= 3] * 2, dim=1).float())
        for split in (tiny.train, tiny.validation, tiny.test)
    )
    twins = replace(tiny, train=train, validation=validation, test=test, labels=("view", "like"))
    outcome, _, _ = run_in(tmp_path / "run", twins, small(negatives=0))
    assert math.isnan(outcome.history[0]["test_like_given_view_auc"])
    assert outcome.best_epoch is not None


@pytest.mark.parametrize("name", NETWORKS)
def test_gate_weights_are_logged_for_networks_with_gates(tiny, tmp_path, name):
    run_in(tmp_path / "run", tiny, small(name))
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    gates: dict[str, dict[int, float]] = {}
    for tag in events.Tags()["scalars"]:
        if tag.startswith("gates: zoo simulated/"):
            for point in events.Scalars(tag):
                sums = gates.setdefault(tag.rpartition("/")[0], {})
                sums[point.step] = sums.get(point.step, 0) + point.value
    assert bool(gates) is (name in GATED)
    for sums in gates.values():
        assert sums == {1: pytest.approx(1, abs=1e-5), 2: pytest.approx(1, abs=1e-5)}


def test_num_batches_is_right_with_several_chunks(monkeypatch):
    """User 0 has every item, so no negatives can be drawn for them."""
    monkeypatch.setattr(zoo_task, "CHUNK_ROWS", 5)
    train = interactions([(user, item) for user in range(4) for item in range(12 - 3 * user)], 4, 12)
    test = interactions([(1, 11), (2, 10)], 4, 12, [5.0, 1.0])
    task = LabelTask(Data("toy", None, None, [], [], (1.0, 5.0), train, test), batch_size=7, negatives=2)
    sizes = [len(batch["labels"]) for batch in task.batches(1)]
    assert sum(sizes) == 30 + 2 * 18
    assert len(sizes) == task.num_batches == 10


@pytest.mark.parametrize("chain", ["joint", "conditional"])
def test_a_network_overfits_a_small_world(chain):
    """Eight users who view one half of the items and like one half of those."""
    ratings = {(user, item): 5.0 - 4 * ((item + user) % 2) for user in range(8) for item in range(16)}
    viewed = [(user, item) for user, item in ratings if (item + user) % 4 < 2]
    held_out = [(0, 0), (0, 1)]
    train, test = (
        interactions(pairs, 8, 16, [ratings[pair] for pair in pairs])
        for pairs in ([pair for pair in viewed if pair not in held_out], held_out)
    )
    task = LabelTask(Data("toy", None, None, [], [], (1.0, 5.0), train, test), negatives=1, chain=chain)
    torch.manual_seed(0)
    network = build_network("mmoe", 8, 16, embedding_dim=8, tasks=("view", "like"), experts=3, expert_units=[16])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for epoch in range(1, 121):
        for batch in task.batches(epoch):
            losses = task.losses(network, batch)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
    assert losses["view"].item() < 0.1  # not 0: the two held-out pairs are sometimes drawn as negatives
    assert losses["like"].item() < 0.1
