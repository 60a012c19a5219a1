"""The zoo on the command line: every network, own feedback, and invalid settings."""

import json
from pathlib import Path

import pytest
import torch
from conftest import refused, run

import dataset
from config import cli
from registry import CHOICES, MODELS, recipe_for
from zoo.networks import NETWORKS

WORLD = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400"]
FEW = {"experts": "3", "task_experts": "1", "shared_experts": "2", "expert_units": "8", "tower_units": "4"}


def shown(user: int, item: int) -> str:
    """A line of feedback: bought items are clicked, and some items are neither."""
    click = (user * 3 + item) % 4 < 2
    return f"u{user},{int(click and item % 3 > 0)},i{item},{int(click)}"


FEEDBACK = ["user,buy,item,click", *(shown(u, i) for u in range(20) for i in range(30) if (u + i) % 6 > 0)]


@pytest.fixture(autouse=True)
def files(elsewhere):
    """Every test runs in a folder with a file of feedback."""
    (elsewhere / "shown.csv").write_text("\n".join(FEEDBACK) + "\n")
    broken = [line.replace(",1,i4,1", ",1,i4,0") for line in FEEDBACK]
    assert broken != FEEDBACK
    (elsewhere / "broken.csv").write_text("\n".join(broken) + "\n")
    mended = [line.replace(",1,i4,0", ",1,i4,1") for line in broken]
    (elsewhere / "mended.csv").write_text("\n".join(mended) + "\n")
    acts = [line for line in FEEDBACK if not line.endswith(",0")]
    (elsewhere / "acts.csv").write_text("\n".join(acts) + "\n")  # every row has a click


def small(model: str, *arguments) -> list:
    """The flags of a run that takes about a second."""
    few = [
        part
        for name, value in FEW.items()
        if name in MODELS[model].__dataclass_fields__
        for part in (f"--{name}", value)
    ]
    return ["--model", model, "--epochs", 1, "--embedding_dim", 4, *few, *arguments]


def asked(capsys, *arguments) -> dict:
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_writes_a_run_folder_and_a_table_with_baselines(capsys, tmp_path, name):
    assert run(*WORLD, *small(name)) == 0
    out = capsys.readouterr().out
    assert out.count("SIMULATED DATA") == 2
    assert out.count("\nepoch 1/1") == 1
    table = out[out.index("test part, beside") :].splitlines()[:7]
    assert table[0].split()[3:5] == ["auc", "log"]
    for line, begins in zip(
        table[1:],
        [f"{name}, epoch 1", "constant", "popularity", "item mean", "user mean", "user + item"],
        strict=True,
    ):
        assert line.startswith(begins)
    folder = tmp_path / "run" / f"{name}_view_like_seed=0"
    for file in ("config.json", "metrics.csv", "result.json", "last.pt", "best.pt", "projector_config.pbtxt"):
        assert (folder / file).is_file()
    config = json.loads((folder / "config.json").read_text())["settings"]
    assert (config["model"], config["chain"], config["negatives"]) == (name, "joint", 4)
    result = json.loads((folder / "result.json").read_text())
    # the row of the chosen epoch
    assert table[1].split()[-8].removesuffix("*") == f"{result['metrics']['test_auc']:.4f}"
    assert f"\n{result['parameters']:,} parameters" in out


@pytest.mark.parametrize("label", ["view", "like"])
def test_one_label_alone_can_be_trained(capsys, tmp_path, label):
    assert run(*WORLD, *small("mmoe"), "--labels", label, "--logdir", "run/a") == 0
    out = capsys.readouterr().out
    assert f"test {label}_auc" in out
    assert "given" not in out
    answer = asked(capsys, "--recommend", 1)
    assert set(answer["recommended"][0]) == {"item", "title", label}


def test_a_resumed_run_equals_an_uninterrupted_one(capsys, tmp_path):
    run(*WORLD, *small("aitm"), "--epochs", 3, "--logdir", "whole")
    run(*WORLD, *small("aitm"), "--epochs", 1, "--logdir", "resumed")
    assert run("--resume", "resumed", "--epochs", 3) == 0
    assert (tmp_path / "resumed/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()
    assert run("--config", "whole/config.json", "--logdir", "again") == 0
    assert (tmp_path / "again/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


@pytest.mark.parametrize(("model", "chain"), [("esmm", "joint"), ("mmoe", "conditional")])
def test_recommendations_are_unseen_items_ranked_by_the_joint_probability(capsys, tmp_path, model, chain):
    flags = [] if chain == "joint" else ["--chain", chain]
    run(*WORLD, *small(model, *flags), "--epochs", 3, "--lr", 0.05, "--logdir", "run/a")
    answer = asked(capsys, "--recommend", "5")
    assert (answer["known"], answer["checkpoint"], len(answer["recommended"])) == (True, "best", 10)

    settings = json.loads((tmp_path / "run/a/config.json").read_text())["settings"]
    config = cli.config_of(settings, "config.json", MODELS, CHOICES)
    data = dataset.load(**config.data_options)
    network = recipe_for(config).build(config, data, torch.device("cpu")).model
    network.load_state_dict(torch.load(tmp_path / "run/a/best.pt", weights_only=True)["model"])
    logits = network(torch.full((80,), 4), torch.arange(80))
    view, like = (logit.detach().sigmoid() for logit in logits.values())
    joint = view * like if chain == "conditional" else like
    everything = data.seen + data.test
    own = everything.item_ids[everything.user_ids == 4]
    best = sorted(set(range(80)) - set(own.tolist()), key=lambda item: -joint[item].item())[:10]
    assert [row["item"] for row in answer["recommended"]] == [data.items[item] for item in best]
    for row, item in zip(answer["recommended"], best, strict=True):
        assert row["view"] == pytest.approx(view[item].item(), abs=1e-5)
        assert row["like"] == pytest.approx(joint[item].item(), abs=1e-5)
        assert 0 <= row["like"] <= row["view"] <= 1
    assert not {row["item"] for row in answer["recommended"]} & {row["item"] for row in answer["rated"]}
    assert run("--recommend", "5") == 0
    assert answer["recommended"][0]["title"] in capsys.readouterr().out


# own feedback


def test_own_feedback_is_trained_resumed_and_queried_by_its_raw_ids(capsys, tmp_path):
    own = ["--feedback", "shown.csv", "--labels", "click,buy", "--test_fraction", 0.2, "--val_fraction", 0.2]
    assert run(*own, *small("esmm"), "--epochs", 2, "--logdir", "mine") == 0
    out = capsys.readouterr().out
    assert "test buy_given_click_auc" in out
    assert "SIMULATED" not in out
    config = json.loads((tmp_path / "mine/config.json").read_text())["settings"]
    assert (config["negatives"], config["chain"]) == (0, "joint")
    assert config["feedback"] == str(tmp_path / "shown.csv")
    assert run("--resume", "mine", "--epochs", 3) == 0
    assert len((tmp_path / "mine/metrics.csv").read_text().splitlines()) == 4

    answer = asked(capsys, "--recommend", "u7", "--logdir", "mine")
    seen = {line.split(",")[2] for line in FEEDBACK if line.startswith("u7,")}
    assert {row["item"] for row in answer["recommended"]} == {f"i{i}" for i in range(30)} - seen
    chances = [row["buy"] for row in answer["recommended"]]
    assert chances == sorted(chances, reverse=True)
    assert all(0 <= row["buy"] <= row["click"] <= 1 for row in answer["recommended"])
    lines = {tuple(line.split(",")) for line in FEEDBACK}
    assert {("u7", f"{row['buy']:.0f}", row["item"], f"{row['click']:.0f}") for row in answer["rated"]} <= lines
    assert answer["rated"][0]["buy"] == answer["rated"][0]["click"] == 1
    (tmp_path / "shown.csv").write_text("\n".join([*FEEDBACK[:-1], "u1,0,i99,0"]))
    assert "the data are not those of the run" in refused(capsys, "--resume", "mine", "--epochs", 4)


def test_feedback_that_is_not_a_chain_has_independent_labels(capsys, tmp_path):
    own = ["--feedback", "broken.csv", "--labels", "click,buy"]
    assert run(*own, *small("mmoe"), "--logdir", "mine") == 0
    assert json.loads((tmp_path / "mine/config.json").read_text())["settings"]["chain"] == "none"
    assert "given" not in capsys.readouterr().out
    chances = [row["buy"] for row in asked(capsys, "--recommend", "u3", "--logdir", "mine")["recommended"]]
    assert chances == sorted(chances, reverse=True)
    assert run("--resume", "mine", "--epochs", 2) == 0


def test_feedback_that_breaks_the_chain_names_the_flag_that_mends_it(capsys):
    broken = sum(line.endswith(",0") and ",1,i4," in line for line in Path("broken.csv").read_text().splitlines())
    assert run(*BROKEN, *small("mmoe"), "--logdir", "mine") == 0
    rows = len(FEEDBACK) - 1
    line = f"note: {broken} of {rows} rows break the chain click > buy; --mend_chain would set each label before a 1 to"
    assert line in capsys.readouterr().out
    assert "add --mend_chain where a label implies those before it" in refused(capsys, *BROKEN, *small("esmm"))


def test_a_mended_run_equals_one_of_a_mended_file_when_trained_resumed_and_asked(capsys, tmp_path):
    split = ["--labels", "click,buy", "--test_fraction", 0.2, "--val_fraction", 0.2]
    assert run("--feedback", "broken.csv", "--mend_chain", *split, *small("esmm"), "--logdir", "mine") == 0
    out = capsys.readouterr().out
    assert run("--feedback", "mended.csv", *split, *small("esmm"), "--logdir", "by-hand") == 0
    for folder in ("mine", "by-hand"):
        assert run("--resume", folder, "--epochs", 2) == 0
    metrics = [(tmp_path / folder / "metrics.csv").read_bytes() for folder in ("mine", "by-hand")]
    assert metrics[0] == metrics[1]
    mine, by_hand = (json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("mine", "by-hand"))
    assert (mine["settings"]["mend_chain"], by_hand["settings"]["mend_chain"]) == (True, False)
    (note,) = mine["data"]["notes"]
    assert f"note: {note}\n" in out
    assert "rows break the chain click > buy: --mend_chain sets click in " in note
    assert mine["data"]["fingerprint"] == by_hand["data"]["fingerprint"]

    lines = {"broken": "new,1,i4,0\n", "whole": "new,1,i4,1\n"}
    for name, line in lines.items():
        (tmp_path / f"{name}.csv").write_text(f"{FEEDBACK[0]}\n{line}")
    mine, by_hand = (asked(capsys, "--recommend", "u3", "--logdir", folder) for folder in ("mine", "by-hand"))
    assert (mine["recommended"], mine["rated"]) == (by_hand["recommended"], by_hand["rated"])
    for name in lines:
        assert run("--for", f"{name}.csv", "--logdir", "mine", "--output", f"lists-{name}.csv") == 0
    assert (tmp_path / "lists-broken.csv").read_text() == (tmp_path / "lists-whole.csv").read_text()
    assert "note: 1 of 1 rows break the chain click > buy: --mend_chain sets click in 1 of" in capsys.readouterr().out


def test_a_first_label_that_is_always_1_is_the_root_of_the_chain(capsys, tmp_path):
    split = ["--feedback", "acts.csv", "--test_fraction", 0.2, "--val_fraction", 0.2]
    assert run(*split, "--labels", "click,buy", *small("esmm"), "--logdir", "mine") == 0
    assert "note: click is 1 in all 250 rows: the root of the chain" in capsys.readouterr().out
    assert run(*split, "--labels", "buy", *small("esmm"), "--logdir", "alone") == 0
    for folder in ("mine", "alone"):
        assert run("--resume", folder, "--epochs", 2) == 0
    metrics = [(tmp_path / folder / "metrics.csv").read_bytes() for folder in ("mine", "alone")]
    assert metrics[0] == metrics[1]
    config = json.loads((tmp_path / "mine/config.json").read_text())
    assert config["settings"]["labels"] == "buy"
    assert "the root of the chain" in config["data"]["notes"][0]  # also after it was resumed
    answer = asked(capsys, "--recommend", "u3", "--logdir", "mine")
    assert set(answer["recommended"][0]) == {"item", "title", "buy"}
    assert run(*split, "--labels", "click,buy", "--negatives", 2, *small("esmm"), "--logdir", "drawn") == 0
    assert "test click_auc" in capsys.readouterr().out


def test_a_file_of_positives_alone_asks_for_negatives(capsys):
    """One label cannot be learned of it; of several, nothing tells when all are 0."""
    alone = ["--feedback", "acts.csv", "--labels", "click", *small("mmoe")]
    message = refused(capsys, *alone, "--logdir", "a")
    assert "the label click is 1 in all 200 rows of the training part, so it cannot be learned: add --negati" in message
    assert run(*alone, "--negatives", 4, "--logdir", "b") == 0
    assert "note:" not in capsys.readouterr().out
    lines = [f"u{n // 20},{n % 2},i{n % 20},{int(n % 2 == 0 or n % 3 == 0)}" for n in range(400)]
    with open("either.csv", "w") as file:
        file.write("\n".join([FEEDBACK[0], *lines]))
    either = ["--feedback", "either.csv", "--labels", "click,buy", *small("mmoe")]
    assert run(*either, "--logdir", "c") == 0
    assert "note: every row of either.csv has a label of 1: nothing tells what users leave" in capsys.readouterr().out
    assert run(*either, "--negatives", 4, "--logdir", "d") == 0
    assert "every row of" not in capsys.readouterr().out


def test_recommendations_work_after_every_finished_run(capsys):
    """Also if the metric of a label given itself is undefined, since it has one class only."""
    lines = [line.split(",") for line in FEEDBACK[1:]]
    twins = ["user,item,click,buy", *(f"{user},{item},{click},{click}" for user, _, item, click in lines)]
    with open("twins.csv", "w") as file:
        file.write("\n".join(twins))
    own = ["--feedback", "twins.csv", "--labels", "click,buy", "--monitor", "buy_given_click_auc"]
    code = run(*own, *small("mmoe"), "--logdir", "mine")
    assert code == 2 or run("--recommend", "u3", "--logdir", "mine") == 0


def test_feedback_gets_negatives_if_requested(capsys, tmp_path):
    own = ["--feedback", "shown.csv", "--labels", "click,buy"]
    for count in (0, 3):
        assert run(*own, *small("mmoe"), "--negatives", count, "--logdir", f"k{count}") == 0
    metrics = [(tmp_path / f"k{count}" / "metrics.csv").read_text() for count in (0, 3)]
    assert metrics[0] != metrics[1]


FILES = ["acts.csv", "broken.csv", "mended.csv", "shown.csv"]
BROKEN = ["--feedback", "broken.csv", "--labels", "click,buy"]
SHOWN = ["--feedback", "shown.csv", "--labels", "click,buy"]
REFUSED = {
    "no such network": (["--model", "mmo"], "invalid choice: 'mmo'"),
    "experts of esmm": (["--model", "esmm", "--experts", "4"], "does not apply to --model esmm; it is for omoe, mmoe"),
    "bpr of mmoe": (["--model", "mmoe", "--ranking_loss", "bpr"], "--ranking_loss does not apply to --model mmoe"),
    "labels of the multi-task net": (["--labels", "view"], "--labels does not apply to --model multitask"),
    "no expert": (["--model", "cgc", "--task_experts", "0", "--shared_experts", "0"], "needs an expert"),
    "labels backwards": (["--model", "mmoe", "--labels", "like,view"], "view,like or one of the two"),
    "a label that ratings do not have": (["--model", "mmoe", "--labels", "click"], "view,like or one of the two"),
    "a label twice": (["--model", "mmoe", "--labels", "view,view"], "--labels takes different names"),
    "a label without a name": (["--model", "mmoe", "--labels", "view,"], "--labels takes different names"),
    "a weight too few": (["--model", "mmoe", "--label_weights", "1"], "--label_weights takes 2 numbers"),
    "a weight too many": (["--model", "mmoe", "--labels", "view", "--label_weights", "1", "2"], "takes 1 numbers"),
    "a weight of zero": (["--model", "mmoe", "--label_weights", "1", "0"], "must be greater than 0, not 0"),
    "calibrator of one label": (["--model", "aitm", "--labels", "view", "--calibrator", "1"], "must name two or more"),
    "calibrator of conditional chances": (
        ["--model", "mmoe", "--chain", "conditional", "--calibrator", "1"], "--chain conditional rules it out",
    ),
    "calibrator below zero": (["--model", "mmoe", "--calibrator", "-1"], "--calibrator must be 0 or more"),
    "calibrator that is no number": (["--model", "mmoe", "--calibrator", "nan"], "--calibrator must be"),
    "a like that is no rating": (["--model", "mmoe", "--like_from", "nan"], "--like_from must be at least -1000000"),
    "conditional esmm": (["--model", "esmm", "--chain", "conditional"], "its --chain is joint"),
    "conditional aitm": (["--model", "aitm", "--calibrator", "0", "--chain", "conditional"], "its --chain is joint"),
    "ratings side by side": (["--model", "mmoe", "--chain", "none"], "--chain none is for --feedback"),
    "broken chain of esmm": ([*BROKEN, "--model", "esmm"], "buy is 1 where click is 0 for user"),
    "broken chain of aitm": ([*BROKEN, "--model", "aitm", "--calibrator", "0"], "buy is 1 where click is 0 for user"),
    "broken chain, conditional": ([*BROKEN, "--model", "mmoe", "--chain", "conditional"], "buy is 1 where click is 0"),
    "broken chain, calibrator": ([*BROKEN, "--model", "mmoe", "--calibrator", "1"], "buy is 1 where click is 0"),
    "labels of feedback backwards": (
        ["--feedback", "shown.csv", "--labels", "buy,click", "--model", "esmm"], "give --labels in the order",
    ),
    "mended ratings": (["--model", "mmoe", "--mend_chain"], "--mend_chain is for --feedback"),
    "a chain of one label, mended": (
        ["--feedback", "broken.csv", "--labels", "click", "--model", "mmoe", "--mend_chain"], "must name two or more",
    ),
    "an independent label that is always 1": (
        ["--feedback", "acts.csv", "--labels", "click,buy", "--chain", "none", "--model", "mmoe"],
        "the label click is 1 in all 200 rows of the training part",
    ),
    "a file as a data set": (["--model", "mmoe", "--dataset", "acts.csv"], "a file of your own goes with --ratings"),
    "monitor of a broken chain": (
        [*BROKEN, "--model", "mmoe", "--monitor", "buy_given_click_auc"], "--monitor cannot be 'buy_given_click_auc'",
    ),
    "a column that is not there": (["--feedback", "shown.csv", "--labels", "click,like", "--model", "mmoe"], "like"),
    "feedback that is not there": (["--feedback", "none.csv", "--labels", "click", "--model", "mmoe"], "none.csv"),
    "feedback for the multi-task net": (["--feedback", "shown.csv"], "--feedback does not apply to --model multitask"),
    "feedback and ratings": ([*SHOWN, "--model", "mmoe", "--ratings", "x.csv"], "two sources of data"),
    "one class alone": ([*WORLD, "--model", "mmoe", "--negatives", "0"], "the label view is 1 in all"),
    "likes of nothing": ([*WORLD, "--model", "mmoe", "--like_from", "6"], "the label like is 0 in all"),
    "an unknown metric": (["--model", "mmoe", "--monitor", "mrr"], "--monitor cannot be 'mrr'"),
    "a metric of no label": (["--model", "mmoe", "--labels", "view", "--monitor", "like_auc"], "cannot be 'like_auc'"),
    "gradnorm of separate networks": ([*WORLD, *small("single"), "--weighting", "gradnorm"], "this network has none"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_settings_exit_with_one_sentence_and_code_2(capsys, tmp_path, case):
    arguments, complaint = REFUSED[case]
    assert complaint in refused(capsys, *arguments)
    assert sorted(path.name for path in tmp_path.rglob("*")) in (
        FILES,
        sorted([*FILES, "run"]),  # the folder of runs may remain; it is empty
    )


def test_every_network_has_a_config():
    assert set(MODELS) == {"multitask", "closed_form", "dyadic", *NETWORKS}
