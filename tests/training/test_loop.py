"""The loop, the task and the run folder."""

import csv
import math
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from config.errors import UserError
from models import MultiTaskNet
from multitask.task import WatchAndRate
from registry import make_config
from training.loop import fit
from training.protocols import Training
from training.run_folder import RunFolder
from training.steps import GradientStepper

CPU = torch.device("cpu")
THREE_EPOCHS = make_config(epochs=3)


def new_model(data, seed: int = 0, **options) -> MultiTaskNet:
    torch.manual_seed(seed)
    return MultiTaskNet(len(data.users), len(data.items), **options)


def silence(line: str) -> None:
    pass


def run_in(path, data, settings=THREE_EPOCHS, task=None):
    """Train a new model in a new or an existing run folder: (outcome, model)."""
    run = RunFolder(path)
    if not (path / "config.json").exists():
        run.write_config({"settings": {}, "data": {}})
    model = new_model(data)
    task = task or WatchAndRate(data)
    stop = getattr(task, "pressed", lambda: False)
    return fit(Training(model, task, GradientStepper), settings, run, CPU, silence, stop), model


def weights_of(model) -> dict[str, list]:
    return {name: value.tolist() for name, value in model.state_dict().items()}


@pytest.fixture
def without_validation(tiny):
    return replace(tiny, validation=None)


class Interrupting(WatchAndRate):
    """Presses Ctrl-C in the middle of an epoch."""

    stop_in = 3
    is_pressed = False

    def batches(self, epoch):
        for number, batch in enumerate(super().batches(epoch)):
            self.is_pressed |= epoch == self.stop_in and number == 2
            yield batch

    def pressed(self) -> bool:
        return self.is_pressed


# the task


def test_an_epoch_holds_every_rating_once_and_differs_from_the_next(tiny, monkeypatch):
    monkeypatch.setattr("multitask.task.CHUNK_ROWS", 500)  # several blocks, too
    task = WatchAndRate(tiny, batch_size=64, negatives=2)
    keys = []
    for epoch in (1, 2):
        batches = list(task.batches(epoch))
        assert len(batches) == task.num_batches
        assert [len(batch["ratings"]) for batch in batches[:-1]] == [64] * (len(batches) - 1)
        assert all(batch["negative_ids"].shape == (len(batch["ratings"]), 2) for batch in batches)
        keys.append(torch.cat([batch["user_ids"] * 80 + batch["item_ids"] for batch in batches]))
        assert keys[-1].sort().values.equal(tiny.train.pair_keys)
    assert not keys[0].equal(keys[1])


def test_batches_depend_on_seed_and_epoch_alone(tiny):
    def negatives(seed, epoch):
        return torch.cat([batch["negative_ids"] for batch in WatchAndRate(tiny, seed=seed).batches(epoch)])

    torch.manual_seed(1)
    first = negatives(0, 1)
    torch.manual_seed(2)
    assert first.equal(negatives(0, 1))
    assert not first.equal(negatives(1, 1))
    assert not negatives(1, 0).equal(negatives(0, 1))


def test_losses_are_the_equations_on_a_batch(tiny):
    task, model = WatchAndRate(tiny, negatives=3), new_model(tiny)
    torch.nn.init.normal_(model.B.weight)
    batch = next(iter(task.batches(1)))
    total_f = total_r = 0.0
    for row, (user, item, rating) in enumerate(
        zip(batch["user_ids"], batch["item_ids"], batch["ratings"], strict=True)
    ):
        p, r = (float(out.detach()) for out in model(user.view(1), item.view(1)))
        total_r += (r - float(rating)) ** 2
        for negative in batch["negative_ids"][row]:
            total_f += 1 - 1 / (1 + math.exp(float(model(user.view(1), negative.view(1))[0].detach()) - p))
    losses = task.losses(model, batch)
    assert losses["factorization"].item() == pytest.approx(total_f / (3 * len(batch["ratings"])), rel=1e-5)
    assert losses["regression"].item() == pytest.approx(total_r / len(batch["ratings"]), rel=1e-5)


def test_hardest_is_the_highest_scored_of_the_drawn_items(tiny):
    model = new_model(tiny)
    torch.nn.init.normal_(model.B.weight)
    drawn = WatchAndRate(tiny, negatives=5, negative_sampling="unseen")
    hardest = WatchAndRate(tiny, negatives=5, negative_sampling="hardest")
    batch = next(iter(hardest.batches(1)))
    assert batch["negative_ids"].equal(next(iter(drawn.batches(1)))["negative_ids"])
    margins = [
        model(batch["user_ids"], batch["item_ids"])[0] - model(batch["user_ids"], n)[0] for n in batch["negative_ids"].T
    ]
    expected = (-torch.stack(margins).min(dim=0).values).sigmoid().mean()
    torch.testing.assert_close(hardest.losses(model, batch)["factorization"], expected)


def test_test_metrics_mask_train_and_validation_and_val_metrics_train_alone(tiny):
    from evaluation import mrr_score, mse_score

    task, model = WatchAndRate(tiny), new_model(tiny)
    assert task.splits == ("val", "test")
    assert task.metrics(model, "test")["mrr"] == mrr_score(model, tiny.test, tiny.train + tiny.validation)
    assert task.metrics(model, "val")["mrr"] == mrr_score(model, tiny.validation, tiny.train)
    assert task.metrics(model, "val")["mse"] == mse_score(model, tiny.validation)


def test_every_column_of_a_row_has_a_tag(tiny, tmp_path):
    outcome, _ = run_in(tmp_path / "run", tiny)
    assert set(outcome.history[0]) == set(WatchAndRate.tags) | {"epoch"}


# the loop


def test_both_tasks_are_learnt(tiny, tmp_path):
    """Both beat what knows nothing: the mean rating, and a ranking by chance (mean 1 / rank of 80 items is 0.06)."""
    outcome, _ = run_in(tmp_path / "run", tiny, make_config(epochs=30, factorization_weight=0.9, regression_weight=0.1))
    spread = tiny.test.ratings.var().item()
    assert min(row["test_mse"] for row in outcome.history) < 0.9 * spread
    assert outcome.history[-1]["test_mrr"] > 2 * sum(1 / rank for rank in range(1, 81)) / 80
    assert outcome.history[-1]["test_auc"] > 0.6


def test_the_same_seed_gives_the_same_run_to_the_last_bit(tiny, tmp_path):
    first, model = run_in(tmp_path / "a", tiny)
    second, twin = run_in(tmp_path / "b", tiny)
    assert first.history == second.history
    assert weights_of(model) == weights_of(twin)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(without_validation, tmp_path, weight_decay):
    settings = make_config(epochs=4, weight_decay=weight_decay)
    whole, model = run_in(tmp_path / "whole", without_validation, settings)
    run_in(tmp_path / "parts", without_validation, replace(settings, epochs=2))
    resumed, twin = run_in(tmp_path / "parts", without_validation, settings)
    assert resumed.history == whole.history
    assert resumed.epochs_run == 2
    assert weights_of(model) == weights_of(twin)
    assert (tmp_path / "parts" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_ctrl_c_keeps_the_last_epoch_and_the_rest_can_be_resumed(without_validation, tmp_path):
    whole, model = run_in(tmp_path / "whole", without_validation)
    stopped, halfway = run_in(tmp_path / "parts", without_validation, task=Interrupting(without_validation))
    assert stopped.ending == "interrupted"
    assert stopped.history == whole.history[:2]
    assert weights_of(halfway) == weights_of(run_in(tmp_path / "two", without_validation, make_config(epochs=2))[1])
    resumed, twin = run_in(tmp_path / "parts", without_validation)
    assert resumed.history == whole.history
    assert weights_of(twin) == weights_of(model)


def test_ctrl_c_in_the_first_epoch_leaves_a_run_that_can_be_resumed(without_validation, tmp_path):
    task = Interrupting(without_validation)
    task.stop_in = 1
    stopped, _ = run_in(tmp_path / "run", without_validation, task=task)
    assert (stopped.ending, stopped.history) == ("interrupted", [])
    assert run_in(tmp_path / "run", without_validation)[0].ending == "finished"


def test_a_finished_run_resumes_to_nothing_new(without_validation, tmp_path):
    first, model = run_in(tmp_path / "run", without_validation)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.pt"))
    again, twin = run_in(tmp_path / "run", without_validation)
    assert (again.history, again.epochs_run, again.ending) == (first.history, 0, "finished")
    assert weights_of(model) == weights_of(twin)
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("monitor", ["mrr", "mse"])
def test_the_best_epoch_follows_the_direction_of_its_metric(tiny, tmp_path, monitor):
    outcome, model = run_in(tmp_path / "run", tiny, make_config(epochs=12, val_fraction=0.1, monitor=monitor))
    values = [row[f"val_{monitor}"] for row in outcome.history]
    best = (min if monitor == "mse" else max)(values)
    assert outcome.best_epoch == values.index(best) + 1
    assert WatchAndRate(tiny).metrics(model, "val")[monitor] == best  # the model handed back is the best one
    assert WatchAndRate(tiny).metrics(model, "test") == {
        name.removeprefix("test_"): value
        for name, value in outcome.history[outcome.best_epoch - 1].items()
        if name.startswith("test_")
    }


def test_patience_stops_after_as_many_epochs_without_a_better_one(tiny, tmp_path):
    settings = make_config(epochs=200, lr=0.05, val_fraction=0.1, monitor="mse", patience=3)
    outcome, _ = run_in(tmp_path / "run", tiny, settings)
    assert outcome.ending == "stopped early"
    assert len(outcome.history) == outcome.best_epoch + 3
    again, _ = run_in(tmp_path / "run", tiny, settings)
    assert (again.epochs_run, again.ending, again.best_epoch) == (0, "stopped early", outcome.best_epoch)


def test_without_a_validation_part_nothing_is_chosen(without_validation, tmp_path):
    outcome, _ = run_in(tmp_path / "run", without_validation)
    assert outcome.best_epoch is None
    assert not (tmp_path / "run" / "best.pt").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_good(without_validation, tmp_path):
    run = RunFolder.new(tmp_path / "new")
    run.write_config({"settings": {}, "data": {}})
    task = WatchAndRate(without_validation)
    with pytest.raises(UserError, match=r"in epoch 1: lower --lr \(now 1e\+30\); nothing was kept"):
        fit(Training(new_model(without_validation), task, GradientStepper), make_config(lr=1e30), run, CPU, silence)
    assert not (tmp_path / "new").exists()
    run_in(tmp_path / "old", without_validation)
    good = (tmp_path / "old" / "last.pt").read_bytes()
    model = new_model(without_validation)
    task = WatchAndRate(without_validation)
    task.losses = lambda model, batch: {
        "factorization": model.B.weight.sum() * math.nan,
        "regression": model.B.weight.sum(),
    }
    with pytest.raises(UserError, match="3 finished epochs are kept"):
        fit(Training(model, task, GradientStepper), make_config(epochs=5), RunFolder(tmp_path / "old"), CPU, silence)
    assert (tmp_path / "old" / "last.pt").read_bytes() == good


OPTIONS = [
    {"batch_size": 32},
    {"ranking_loss": "bpr"},
    {"negatives": 4},
    {"negative_sampling": "unseen"},
    {"negatives": 4, "negative_sampling": "hardest"},
    {"seed": 1},
]


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_option_of_the_task_changes_the_result(without_validation, tmp_path, option):
    plain, _ = run_in(tmp_path / "plain", without_validation, make_config(epochs=1))
    other, _ = run_in(
        tmp_path / "other", without_validation, make_config(epochs=1), WatchAndRate(without_validation, **option)
    )
    assert plain.history != other.history


# the run folder


def test_curves_hold_one_point_an_epoch_and_equal_metrics_csv(tiny, tmp_path):
    path = tmp_path / "run"
    run_in(path, tiny, make_config(epochs=2))
    task = Interrupting(tiny)
    task.stop_in = 4
    run_in(path, tiny, make_config(epochs=5), task)  # leaves off in epoch 4
    outcome, _ = run_in(path, tiny, make_config(epochs=5))
    events = EventAccumulator(str(path)).Reload()
    with (path / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in table] == [1, 2, 3, 4, 5]
    for column, tag in WatchAndRate.tags.items():
        points = events.Scalars(tag)
        assert [point.step for point in points] == [1, 2, 3, 4, 5]
        assert [point.value for point in points] == pytest.approx([float(row[column]) for row in table])
        assert [float(row[column]) for row in table] == [row[column] for row in outcome.history]


def test_a_point_without_its_checkpoint_is_not_drawn_twice(without_validation, tmp_path, monkeypatch):
    """As after a kill between the curve and the checkpoint of epoch 3."""
    path = tmp_path / "run"
    real = RunFolder.save

    def killed(self, name, state):
        if len(state["history"]) == 3:
            raise RuntimeError("killed")
        real(self, name, state)

    monkeypatch.setattr(RunFolder, "save", killed)
    with pytest.raises(RuntimeError, match="killed"):
        run_in(path, without_validation)
    monkeypatch.undo()
    run_in(path, without_validation)
    points = EventAccumulator(str(path)).Reload().Scalars("eval/MSE")
    assert [point.step for point in points] == [1, 2, 3]


def test_the_summary_is_in_the_same_folder(without_validation, tmp_path):
    path = tmp_path / "run"
    run_in(path, without_validation)
    events = EventAccumulator(str(path)).Reload()
    assert set(events.PluginTagToContent("hparams")) == {"_hparams_/session_start_info", "_hparams_/session_end_info"}
    tables = sorted(path.rglob("metadata.tsv"))
    assert len(tables) == 1
    lines = tables[0].read_text(encoding="utf-8").splitlines()
    assert lines[0] == "id\ttitle\tfirst genre\tratings\tmean rating"
    assert len(lines) == 1 + len(without_validation.items)
    assert "SIMULATED" in str(events.Tensors("run/text_summary")[0].tensor_proto)
    assert {p.name for p in path.iterdir() if p.is_dir()} == {"00003"}  # the projector's; no stray run folder
    assert not list(path.rglob("*.part"))


def test_taking_back_a_run_leaves_the_files_of_others(tmp_path):
    run = RunFolder.new(tmp_path / "run")
    run.write_config({"settings": {}, "data": {}})
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert run.keep_or_discard([]) == "nothing was kept"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    reopened = RunFolder(tmp_path / "run")
    reopened.write_config({"settings": {}, "data": {}})
    reopened.keep_or_discard([])
    assert (tmp_path / "run" / "config.json").exists()


def test_of_two_runs_that_want_one_folder_the_second_is_refused(tmp_path):
    first, second = RunFolder.new(tmp_path / "run"), RunFolder.new(tmp_path / "run")
    first.write_config({"settings": {}, "data": {}})
    with pytest.raises(UserError, match="another run has just taken"):
        second.write_config({"settings": {}, "data": {}})


def test_a_run_whose_checkpoint_was_removed_does_not_begin_anew(without_validation, tmp_path):
    run_in(tmp_path / "run", without_validation)
    (tmp_path / "run" / "last.pt").unlink()
    with pytest.raises(UserError, match=r"last\.pt is missing"):
        run_in(tmp_path / "run", without_validation, make_config(epochs=5))


def test_fewer_epochs_than_there_are_is_refused(without_validation, tmp_path):
    run_in(tmp_path / "run", without_validation)
    with pytest.raises(UserError, match="has 3 epochs already"):
        run_in(tmp_path / "run", without_validation, make_config(epochs=1))


def test_a_summary_that_was_never_written_is_written_on_resuming(without_validation, tmp_path):
    run_in(tmp_path / "run", without_validation)
    (tmp_path / "run" / "projector_config.pbtxt").unlink()
    run_in(tmp_path / "run", without_validation)
    assert (tmp_path / "run" / "projector_config.pbtxt").is_file()


def test_a_folder_with_something_in_it_is_never_written_over(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("all my work")
    with pytest.raises(UserError, match="not empty"):
        RunFolder.new(tmp_path / "taken")
    RunFolder.new(tmp_path / "run").write_config({"settings": {}, "data": {}})
    with pytest.raises(UserError, match="holds a run already"):
        RunFolder.new(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    RunFolder.new(tmp_path / "empty")
    with pytest.raises(UserError, match="cannot be used"):
        RunFolder.new(tmp_path / "taken" / "thesis.txt")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "crafted"])
def test_a_damaged_checkpoint_is_refused(without_validation, tmp_path, damage):
    path = tmp_path / "run"
    run_in(path, without_validation)
    content = (path / "last.pt").read_bytes()
    if damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, path / "last.pt")
    elif damage == "crafted":
        torch.save({"model": {}, "optimizer": {}, "history": [1, 2]}, path / "last.pt")
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        (path / "last.pt").write_bytes({"cut": content[:middle], "flipped": flipped, "empty": b""}[damage])
    with pytest.raises(UserError, match=r"last\.pt is damaged") as error:
        run_in(path, without_validation, make_config(epochs=4))
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_network_is_refused(without_validation, tmp_path):
    path = tmp_path / "run"
    run_in(path, without_validation)
    model = new_model(without_validation, embedding_sharing=False)
    with pytest.raises(UserError, match="does not fit the network"):
        fit(
            Training(model, WatchAndRate(without_validation), GradientStepper),
            make_config(epochs=4),
            RunFolder(path),
            CPU,
            silence,
        )
