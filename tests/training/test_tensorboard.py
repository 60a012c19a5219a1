"""What TensorBoard shows of the runs in a folder, as its own backend reads their files."""

import re
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.data.provider import ListHyperparametersResult
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

import main
from training.tensorboard import MAX_TRIAL_NAME

SMALL = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400", "--epochs", "1", "--quiet"]
SHOWN_AT_FIRST = 5  # settings, and metrics, of which HPARAMS shows columns and axes before any is ticked
COURSE_TAGS = {
    "training/Factorization Loss", "training/MSE", "training/Joint Loss", "eval/Mean Reciprocal Rank", "eval/MSE",
}  # fmt: skip


def train(folder, *arguments) -> None:
    assert main.main([*SMALL, *map(str, arguments), "--logdir", str(folder)]) == 0


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    """Three of the four experiments of the homework, in the folders that it names."""
    folder = tmp_path_factory.mktemp("experiments")
    for shared, ranking, rating in ((True, 0.99, 0.01), (True, 0.5, 0.5), (False, 0.5, 0.5)):
        flags = ["--shared_embeddings" if shared else "--no_shared_embeddings"]
        weights = ["--factorization_weight", ranking, "--regression_weight", rating]
        train(folder / f"shared={shared}_LF={ranking}_LR={rating}", *flags, *weights)
    return folder


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """A run of each family in one folder, and a second network of the zoo."""
    folder = tmp_path_factory.mktemp("families")
    train(folder / "course", "--seed", 1)
    train(folder / "mmoe", "--model", "mmoe", "--experts", 2)
    train(folder / "single", "--model", "single")
    train(folder / "dyadic", "--model", "dyadic", "--min_user", 5, "--min_item", 5, "--iterations", 200)
    return folder


def read(run) -> EventAccumulator:
    return EventAccumulator(str(run)).Reload()


def scalars(run) -> set[str]:
    return set(read(run).Tags()["scalars"])


def hparams_page(folder) -> tuple[list[str], list[str], dict[str, api_pb2.SessionGroup]]:
    """The settings that differ, the metrics in the order of their columns, and the trials by name."""
    files = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    provider = MultiplexerDataProvider(files, str(folder))
    context = Context(SimpleNamespace(data_provider=provider))
    request, nothing = RequestContext(), ListHyperparametersResult(hyperparameters=[], session_groups=[])
    found = context.experiment_from_metadata(request, "", True, context.hparams_metadata(request, ""), nothing)
    every = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]
    asked = api_pb2.ListSessionGroupsRequest(allowed_statuses=every, slice_size=100, include_metrics=True)
    groups = Handler(request, context, "", asked).run().session_groups
    metrics = [metric.name.tag for metric in found.metric_infos]
    return [info.name for info in found.hparam_infos if info.differs], metrics, {group.name: group for group in groups}


def charts_of(run) -> dict[str, dict[str, list[str]]]:
    """CUSTOM SCALARS: {category: {chart: its patterns}}, in the order of the page."""
    (event,) = read(run).Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    return {part.title: {one.title: list(one.multiline.tag) for one in part.chart} for part in layout.category}


def matched(patterns, tags) -> set[str]:
    """What TensorBoard draws in a chart: the tags that a pattern matches at their beginning."""
    return {tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)}


# Tags


def test_the_course_finds_its_tags_and_its_two_metrics_first(experiments):
    for run in experiments.iterdir():
        assert scalars(run) >= COURSE_TAGS
        groups = sorted({tag.split("/")[0] for tag in scalars(run)})
        assert groups == ["eval", "further metrics", "test baselines", "training"]


def test_other_families_keep_out_of_the_groups_of_the_course(families):
    tags = {run.name: scalars(run) for run in families.iterdir()}
    assert {tag for tag in set().union(*tags.values()) if tag.startswith("eval/")} == {
        "eval/Mean Reciprocal Rank", "eval/MSE",
    }  # fmt: skip
    for name, family in (("mmoe", "zoo"), ("single", "zoo"), ("dyadic", "dyadic")):
        assert all(tag.split("/")[0].endswith(f": {family} simulated") for tag in tags[name])
    assert {tag for tag in tags["mmoe"] if tag.startswith("eval")} == {
        "eval: zoo simulated/view auc", "eval: zoo simulated/like auc",
    }  # fmt: skip
    assert any(tag.startswith("gates: zoo simulated/") for tag in tags["mmoe"])
    _, metrics, _ = hparams_page(families)
    assert metrics[:2] == ["eval/MSE", "eval/Mean Reciprocal Rank"]


@pytest.mark.usefixtures("elsewhere")
def test_a_file_of_ones_own_names_its_charts_without_its_folders(tmp_path):
    """A slash would end the name of the group."""
    (tmp_path / "mine").mkdir()
    pairs = [(user, item) for user in range(20) for item in range(40) if (user + item) % 3]
    rows = [f"{user},{item},{1 + (user * item) % 5}\n" for user, item in pairs]
    (tmp_path / "mine/shop.csv").write_text("".join(rows))
    own = ["--ratings", "mine/shop.csv", "--epochs", "1", "--quiet", "--logdir", "run/a"]
    assert main.main(["--model", "single", *own]) == 0
    assert {tag.split("/")[0].partition(": ")[2] for tag in scalars("run/a")} == {"zoo shop.csv"}


# HPARAMS


def test_hparams_compares_the_experiments_by_what_they_vary(experiments):
    settings, metrics, trials = hparams_page(experiments)
    assert set(settings) == {"shared_embeddings", "factorization_weight", "regression_weight"}
    assert metrics[:2] == ["eval/MSE", "eval/Mean Reciprocal Rank"]
    assert not any("baselines" in metric for metric in metrics[:SHOWN_AT_FIRST])
    assert len(trials) == 3
    for trial in trials.values():
        assert set(settings) <= set(trial.hparams)
        values = {value.name.tag: value.value for value in trial.metric_values}
        (last,) = [read(experiments / session.name).Scalars("eval/MSE")[-1] for session in trial.sessions]
        assert values["eval/MSE"] == pytest.approx(last.value)


def test_hparams_leaves_constant_settings_out(experiments, families):
    _, _, trials = hparams_page(experiments)
    shown = set().union(*(trial.hparams for trial in trials.values()))
    # simulated_size and data tell other data than those of the course
    assert shown == {
        "shared_embeddings", "factorization_weight", "regression_weight", "seed", "simulated_size", "data",
    }  # fmt: skip
    _, _, trials = hparams_page(families)
    assert trials["mmoe"].hparams["model"].string_value == "mmoe"
    assert trials["mmoe"].hparams["experts"].number_value == 2
    assert "experts" not in trials["single"].hparams
    assert trials["course"].hparams["seed"].number_value == 1
    assert "min_user" in trials["dyadic"].hparams


def test_names_of_trials_fit_and_tell_folders_apart(experiments, tmp_path):
    _, _, trials = hparams_page(experiments)
    assert {name.split()[0] for name in trials} == {
        "T_.99_.01", "T_.5_.5", "F_.5_.5",
    }  # fmt: skip
    for number in (1, 2):
        train(tmp_path / str(number) / "the=same_long=name_in=both_of=them")
    _, _, both = hparams_page(tmp_path)
    assert len(both) == 2
    assert all(len(name) <= MAX_TRIAL_NAME for name in (*trials, *both))


# CUSTOM SCALARS


def test_charts_have_the_training_loss_left_of_the_test_metric(experiments):
    run = next(experiments.iterdir())
    charts, tags = charts_of(run), scalars(run)
    assert list(charts) == [
        "ranking: training loss, test metric", "rating: training loss, test metric", "test part, beside the baselines",
    ]  # fmt: skip
    (loss, left), (metric, right) = charts["rating: training loss, test metric"].items()
    assert (loss, matched(left, tags)) == ("training: MSE", {"training/MSE"})
    assert metric == "test: MSE"
    lines = {f"test baselines/mse/{name}" for name in ("popularity", "user + item biases")}
    assert matched(right, tags) == {"eval/MSE", *lines}
    (_, left), (_, right) = charts["ranking: training loss, test metric"].items()
    assert matched(left, tags) == {"training/Factorization Loss"}
    assert "eval/Mean Reciprocal Rank" in matched(right, tags)


def test_charts_are_equal_in_all_runs_of_a_kind(experiments, families):
    """TensorBoard joins charts that are equal, and lists others of the same title one below the other."""
    first, *others = [charts_of(run) for run in experiments.iterdir()]
    assert all(charts == first for charts in others)
    assert charts_of(families / "mmoe") == charts_of(families / "single")
    assert not set(charts_of(families / "mmoe")) & set(first)


def test_a_chart_shows_nothing_of_another_family(families):
    everything = set().union(*(scalars(run) for run in families.iterdir()))
    for run in families.iterdir():
        for charts in charts_of(run).values():
            for title, patterns in charts.items():
                assert matched(patterns, everything), title
                assert matched(patterns, everything) <= scalars(run)


def test_a_loss_that_a_model_does_not_have_gets_no_chart(tmp_path):
    train(tmp_path / "run", "--model", "closed_form", "--ranking", "popularity", "--rating_fits", 1)
    charts, tags = charts_of(tmp_path / "run"), scalars(tmp_path / "run")
    assert list(charts["ranking: training loss, test metric"]) == ["test: Mean Reciprocal Rank"]
    assert all(matched(patterns, tags) for part in charts.values() for patterns in part.values())


# TEXT


@pytest.mark.usefixtures("elsewhere")
def test_a_resumed_run_has_a_page_for_each_session():
    train("run/a", "--seed", 3)
    assert main.main(["--resume", "run/a"]) == 0  # nothing to do, so nothing is drawn
    assert main.main(["--resume", "run/a", "--epochs", "2"]) == 0
    pages = read("run/a").Tensors("run/text_summary")
    assert [page.step for page in pages] == [0, 1]
    texts = [page.tensor_proto.string_val[0].decode() for page in pages]
    assert [re.findall(r"\| (epochs|seed) \| (\d+) \|", text) for text in texts] == [
        [("epochs", "1"), ("seed", "3")], [("epochs", "2"), ("seed", "3")],
    ]  # fmt: skip
    assert all("SIMULATED DATA" in text and "EASE, lambda 200" in text for text in texts)
