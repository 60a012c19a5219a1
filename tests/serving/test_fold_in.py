"""New users of a trained run: the solution against dense references, and what `fold_in` and --for promise."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import interactions, refused, run
from torch.distributions import MultivariateNormal

from config.errors import UserError
from models import MultiTaskNet
from multitask.fold_in import NOISE_FACTORS, RatingSolver, Rows, fold_in
from serving import load_run
from training.fold_in import fit_ridge

WORLD = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400", "--quiet"]
FAMILIES = {
    "multitask": ["--epochs", "3"],
    "separate": ["--epochs", "2", "--no_shared_embeddings"],
    "champion": [
        "--preset", "champion", "--ranking", "ease", "--ridge", "50", "--ranking_dim", "8", "--rating_dim", "3",
        "--rating_fits", "2", "--num_features", "4", "--genres", "off", "--epochs", "3",
    ],
    "stem": ["--model", "stem", "--epochs", "1"],
}  # fmt: skip
DYADS = ["--model", "dyadic", "--min_user", "5", "--min_item", "5", "--iterations", "300", "--embedding_dim", "4"]
NEW = pd.DataFrame(
    {"user": ["ann"] * 4 + ["bob"] * 3, "item": [3, 5, 8, 13, 3, 21, 34], "rating": [5, 4, 1, 2, 5, 5, 3]}
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{family: a run folder}; the ratings are simulated in the temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("foldable")
        patch.chdir(folder)
        patch.delenv("MOVIELENS_DIR", raising=False)
        for name, flags in (FAMILIES | {"dyadic": [*DYADS, "--epochs", "1"]}).items():
            assert run(*WORLD, *flags, "--logdir", name) == 0
        yield {name: folder / name for name in [*FAMILIES, "dyadic"]}


@pytest.fixture(scope="module", params=FAMILIES)
def trained(runs, request):
    return load_run(runs[request.param])


def solver_of(layer_sizes, seed=0, width=4, num_items=12):
    """A solver for a random network, with a random spread of full rank; and the network."""
    torch.manual_seed(seed)
    model = MultiTaskNet(5, num_items, width, layer_sizes).double()
    for table in (model.U, model.Q):
        torch.nn.init.normal_(table.weight)
    root = torch.randn(width, width, dtype=torch.double)
    return RatingSolver(model, {"U.weight": width}, root @ root.T), model


class TestTheRatingSolver:
    def test_a_linear_rating_has_the_solution_of_the_normal_equations(self):
        solver, _ = solver_of([12])
        solver.noise = 0.3
        mean, rows = (
            torch.randn(4, dtype=torch.double),
            Rows(torch.tensor([1, 4, 7]), torch.tensor([4.0, 1.0, 3.0]).double()),
        )
        predicted, gradients = solver.linearize(mean, rows)
        precision = gradients.T @ gradients / 0.3 + torch.linalg.inv(solver.spread)
        expected = mean + torch.linalg.solve(precision, gradients.T @ (rows.ratings - predicted) / 0.3)
        torch.testing.assert_close(solver.solve(mean, rows), expected)

    def test_gradients_are_the_derivatives_of_each_rating(self):
        solver, model = solver_of([12, 6])
        user, rows = torch.randn(4, dtype=torch.double), Rows(torch.tensor([2, 2, 9]), torch.zeros(3).double())
        predicted, gradients = solver.linearize(user, rows)

        def ratings(u):
            return model._rate(u.expand(3, -1), model.Q(rows.item_ids), u * model.Q(rows.item_ids))

        torch.testing.assert_close(predicted, ratings(user))
        torch.testing.assert_close(gradients, torch.autograd.functional.jacobian(ratings, user))

    def test_a_curved_rating_ends_at_a_higher_posterior_density(self):
        solver, _ = solver_of([12, 6], seed=1)
        solver.noise = 0.1
        for seed in range(10):
            torch.manual_seed(seed)
            mean, rows = torch.randn(4).double(), Rows(torch.randperm(12)[:6], 1 + 4 * torch.rand(6).double())
            user = solver.solve(mean, rows)

            def objective(u, rows=rows, mean=mean):
                errors = (rows.ratings - solver.linearize(u, rows)[0]).square().sum() / solver.noise
                return errors + (u - mean) @ torch.linalg.solve(solver.spread, u - mean)

            assert objective(user) < objective(mean)

    def test_the_noise_has_the_highest_marginal_likelihood(self):
        solver, _ = solver_of([12], num_items=40)
        torch.manual_seed(3)
        means = torch.randn(30, 4).double()
        users = means + MultivariateNormal(torch.zeros(4).double(), solver.spread).sample((30,))
        rows = []
        for user in users:
            picked = Rows(torch.randperm(40)[:15], torch.zeros(15).double())
            noise = 0.5 * torch.randn(15).double()
            rows.append(Rows(picked.item_ids, solver.linearize(user, picked)[0] + noise))
        solver.fit(users, means, rows, 40)
        error = torch.cat([own.ratings - solver.linearize(u, own)[0] for u, own in zip(users, rows, strict=True)])
        candidates = [factor * error.square().mean().item() for factor in NOISE_FACTORS]
        likelihoods = []
        for noise in candidates:
            total = 0.0
            for mean, own in zip(means, rows, strict=True):
                predicted, gradients = solver.linearize(mean, own)
                covariance = gradients @ solver.spread @ gradients.T + noise * torch.eye(15).double()
                total += MultivariateNormal(predicted, covariance).log_prob(own.ratings).item()
            likelihoods.append(total)
        assert solver.noise == pytest.approx(candidates[int(np.argmax(likelihoods))])
        assert 0.1 < solver.noise < 0.5  # the truth is 0.25

    def test_only_a_linear_rating_is_tabulated(self):
        for sizes, is_linear in (([12], True), ([12, 6], False)):
            solver, _ = solver_of(sizes)
            users, means = torch.randn(2, 6, 4).double().unbind()
            rows = [Rows(torch.arange(12), torch.ones(12).double())] * 6
            before = solver.linearize(users[0], rows[0])
            solver.fit(users, means, rows, 12)
            assert (solver.table is not None) == is_linear
            torch.testing.assert_close(solver.linearize(users[0], rows[0]), before)

    def test_columns_that_move_no_rating_follow_those_that_do(self):
        """As a block of the ranking does: it changes by what the spread says of it."""
        solver, model = solver_of([12])
        with torch.no_grad():
            model.mlp_layers[0].weight[0, [0, 8]] = 0.0  # of u_0 and of u_0 q_0
        solver = RatingSolver(model, solver.widths, solver.spread)
        mean, rows = torch.zeros(4).double(), Rows(torch.tensor([1, 4]), torch.tensor([4.0, 1.0]).double())
        before = solver.solve(mean, rows)
        assert solver.table is None
        solver.fit(mean.unsqueeze(0), mean.unsqueeze(0), [rows], 12)
        solver.noise = 1.0
        assert solver.active.tolist() == [1, 2, 3]
        torch.testing.assert_close(solver.solve(mean, rows), before)


@pytest.mark.parametrize("shape", [(20, 4), (8, 15)])
def test_the_ridge_and_its_residuals_are_those_of_fits_without_each_row(shape):
    torch.manual_seed(0)
    inputs, targets = torch.randn(*shape).double(), torch.randn(shape[0], 2).double()
    inputs -= inputs.mean(dim=0)
    scale = torch.linalg.svdvals(inputs).square()
    ridge = 0.5 * scale[scale > 1e-9].mean()
    weights, residuals = fit_ridge(inputs, targets, ridges=(0.05,), caution=10.0)
    ones = torch.cat([torch.ones(shape[0], 1).double(), inputs], dim=1)
    penalty = ridge * torch.eye(shape[1] + 1).double()
    penalty[0, 0] = 0.0

    def solve(rows):
        return torch.linalg.solve(ones[rows].T @ ones[rows] + penalty, ones[rows].T @ targets[rows])

    everyone = torch.arange(shape[0])
    torch.testing.assert_close(weights, solve(everyone)[1:])
    for row in everyone:
        torch.testing.assert_close(residuals[row], targets[row] - ones[row] @ solve(everyone[everyone != row]))


def test_the_ridge_has_the_lowest_leave_one_out_error_times_the_caution():
    torch.manual_seed(0)
    inputs = torch.randn(30, 5).double()
    inputs -= inputs.mean(dim=0)
    targets = inputs @ torch.randn(5, 2).double() + 2 * torch.randn(30, 2).double()
    ridges = (1e-3, 0.1, 1.0, 10.0)
    residuals = [fit_ridge(inputs, targets, (ridge,), caution=1.0)[1] for ridge in ridges]
    best = min(ridges, key=lambda ridge: (residuals[ridges.index(ridge)].square().mean(0) / targets.var(0)).mean())
    assert best in ridges[1:3]
    for found, wanted in zip(
        fit_ridge(inputs, targets, ridges, 3.0), fit_ridge(inputs, targets, (best,), 3.0), strict=True
    ):
        assert torch.equal(found, wanted)


KINDS = {"U.weight": "user", "Q.weight": "item", "B.weight": "item"}


def planted(num_users=80, num_items=60, width=3):
    """A network whose users watch the 25 items that they score highest and rate by the same factors; and the rows."""
    torch.manual_seed(0)
    model = MultiTaskNet(num_users, num_items, width, [3 * width])
    with torch.no_grad():
        model.U.weight.normal_()
        model.Q.weight.normal_()
        layer = model.mlp_layers[0]
        layer.weight.zero_()
        layer.weight[0, 2 * width :] = 0.5
        layer.bias.fill_(3.0)
        watched = (model.U.weight @ model.Q.weight.T).topk(25, dim=1).indices
        users = torch.arange(num_users).repeat_interleave(25)
        ratings = model(users, watched.flatten())[1]
    pairs = list(zip(users.tolist(), watched.flatten().tolist(), strict=True))
    return model, interactions(pairs, num_users, num_items, ratings.tolist())


class TestAPlantedWorld:
    def test_a_copy_of_a_trained_user_is_scored_as_that_user(self):
        model, rows = planted()
        folded = fold_in(model, KINDS, rows, rows)
        wanted, found = (net.score_items(torch.arange(80)) for net in (model, folded))
        best = [set(scores.topk(10, dim=1).indices[user].tolist()) for scores in (wanted, found) for user in range(80)]
        overlap = np.mean([len(one & other) for one, other in zip(best[:80], best[80:], strict=True)])
        assert overlap > 9.5
        torch.testing.assert_close(folded(rows.user_ids, rows.item_ids)[1], rows.ratings, atol=0.1, rtol=0)

    def test_users_without_ratings_are_ranked_by_what_they_watched(self):
        model, rows = planted()
        watched = interactions(
            list(zip(rows.user_ids.tolist(), rows.item_ids.tolist(), strict=True)), 80, 60, [float("nan")] * len(rows)
        )
        wanted, found = (net.score_items(torch.arange(80)) for net in (model, fold_in(model, KINDS, rows, watched)))
        assert torch.corrcoef(torch.stack([wanted.flatten(), found.flatten()]))[0, 1] > 0.9


class TestATrainedRun:
    def test_answers_for_its_new_users_alone(self, trained):
        folded = trained.fold_in(NEW)
        table = folded.recommend(k=5)
        assert table["user"].tolist() == ["ann"] * 5 + ["bob"] * 5
        assert table["known"].all()
        assert not set(table[table["user"] == "ann"]["item"]) & {"3", "5", "8", "13"}
        assert np.isfinite(table.iloc[:, 5:].to_numpy(dtype=float)).all()
        assert len(folded.predict(["bob", "ann"], [3, 1])) == 2
        assert not folded.knows([trained.users[0]])[0]

    def test_the_run_itself_is_unchanged_to_the_last_bit(self, trained):
        before = {name: value.clone() for name, value in trained.model.state_dict().items()}
        lists, users = trained.recommend(), trained.users
        trained.fold_in(NEW)
        assert all(torch.equal(value, before[name]) for name, value in trained.model.state_dict().items())
        assert trained.users is users
        pd.testing.assert_frame_equal(trained.recommend(), lists)

    def test_the_order_of_rows_and_users_does_not_matter(self, trained):
        one = trained.fold_in(NEW).recommend(["ann", "bob"])
        other = trained.fold_in(NEW.sample(frac=1, random_state=1)).recommend(["ann", "bob"])
        pd.testing.assert_frame_equal(one, other, rtol=1e-4)

    def test_a_user_does_not_depend_on_the_others(self, trained):
        both, alone = trained.fold_in(NEW), trained.fold_in(NEW[NEW["user"] == "bob"])
        pd.testing.assert_frame_equal(both.recommend(["bob"]), alone.recommend(["bob"]), rtol=1e-4)

    def test_ratings_move_what_they_should(self, trained):
        rows = trained.task.data.train
        items = trained.items[rows.item_ids[:12].unique()]
        answers = []
        for value in (1, 5):
            folded = trained.fold_in(pd.DataFrame({"user": "new", "item": items, "rating": value}))
            answers.append(folded.predict(["new"] * 12, trained.items[20:32]).iloc[:, -1].mean())
        assert answers[0] < answers[1]

    def test_a_folded_run_folds_into_the_trained_one(self, trained):
        again = trained.fold_in(NEW[:4]).fold_in(NEW)
        pd.testing.assert_frame_equal(again.recommend(), trained.fold_in(NEW).recommend())
        assert (again.popular == trained.popular).all()

    def test_watched_items_are_enough(self, trained):
        table = trained.fold_in(NEW[["user", "item"]]).recommend()
        assert table["known"].all()
        assert np.isfinite(table.iloc[:, 5:].to_numpy(dtype=float)).all()

    def test_notes_name_what_is_left_out(self, trained):
        more = pd.DataFrame({"user": ["ann", "cid", "bob"], "item": ["no", "none", 3], "rating": [3, 3, 1]})
        folded = trained.fold_in(pd.concat([NEW, more]))
        assert folded.notes[0].startswith("2 rows")
        assert "no, none" in folded.notes[0]
        assert folded.notes[1].startswith("1 new users")
        assert folded.notes[2].startswith("1 rows of new users repeat")
        assert folded.users.tolist() == ["ann", "bob"]
        bob = folded.task.data.train
        assert bob.ratings[(bob.user_ids == 1) & (bob.item_ids == list(folded.items).index("3"))].tolist() == [1.0]
        assert folded.recommend(["cid"], k=3)["item"].tolist() == trained.recommend(["unknown"], k=3)["item"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[:0], "no rows of new users"),
        (lambda t: t.drop(columns="item"), "need the column item"),
        (lambda t: t.assign(item="x"), "no item of the new users"),
        (lambda t: t.assign(rating=6), "user ann, item 3: the rating 6 is not a number from 1 to 5"),
        (lambda t: t.assign(rating="good"), "the rating 'good'"),
        (lambda t: t.assign(rating=np.inf), "the rating inf"),
        (lambda t: t.assign(user="7"), "user 7 is in the data"),
        (lambda t: t.assign(user=None), "row 0 of the new users has no user"),
    ],
)
def test_bad_rows_are_refused(runs, change, message):
    with pytest.raises(UserError, match=message):
        load_run(runs["multitask"]).fold_in(change(NEW))


def test_the_dyadic_learner_says_why_not(runs, capsys):
    with pytest.raises(UserError, match="cannot take up new users without training"):
        load_run(runs["dyadic"]).fold_in(NEW)
    assert "scores pairs of its data alone" in refused(capsys, "--for", "any.csv", "--logdir", runs["dyadic"])


def test_uncertainty_is_left_out(runs):
    trained = load_run(runs["champion"])
    assert "rating_std" in trained.recommend(trained.users[:1])
    assert "rating_std" not in trained.fold_in(NEW).recommend()


def test_every_user_table_is_replaced_and_every_other_weight_kept(trained):
    folded = trained.fold_in(NEW)
    kinds, before = trained.task.row_tables(trained.model), trained.model.state_dict()
    for name, value in folded.model.state_dict().items():
        if kinds.get(name) == "user":
            assert value.shape == (2, before[name].shape[1])
            assert not torch.equal(value[0], value[1])
        else:
            assert torch.equal(value, before[name])


class TestTheCommand:
    def test_prints_lists_for_few_users(self, runs, tmp_path, capsys):
        NEW.to_csv(tmp_path / "new.csv", index=False)
        assert run("--for", tmp_path / "new.csv", "--k", 2, "--logdir", runs["stem"]) == 0
        printed = capsys.readouterr().out
        assert "User ann rated highest" in printed
        assert "User bob rated highest" in printed

    def test_writes_what_fold_in_answers(self, runs, tmp_path, capsys):
        NEW.to_csv(tmp_path / "new.csv", index=False)
        assert run("--for", tmp_path / "new.csv", "--output", tmp_path / "top.csv", "--logdir", runs["multitask"]) == 0
        written = pd.read_csv(tmp_path / "top.csv", dtype={"item": str})
        expected = load_run(runs["multitask"]).fold_in(NEW).recommend()
        assert written[["user", "item"]].to_numpy().tolist() == expected[["user", "item"]].to_numpy().tolist()

    def test_reads_watched_items(self, runs, tmp_path, capsys):
        NEW[["item", "user"]].to_csv(tmp_path / "new.csv", index=False)
        assert run("--for", tmp_path / "new.csv", "--logdir", runs["multitask"]) == 0
        assert "    -  " in capsys.readouterr().out  # no rating

    def test_asks_for_a_file_of_many_users(self, runs, tmp_path, capsys):
        many = pd.DataFrame({"user": [f"u{n}" for n in range(21)], "item": 1, "rating": 3})
        many.to_csv(tmp_path / "new.csv", index=False)
        message = refused(capsys, "--for", tmp_path / "new.csv", "--logdir", runs["multitask"])
        assert "21 users: add --output" in message

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("user,item,rating\n", "holds a header but no rows"),
            ("user,item,rating\nx,3,nine\n", "line 2: has the rating 'nine', which is not a number"),
            ("user,item,rating\nx,3,9\n", "line 2: has the rating '9' outside the scale 1 to 5; it is that of the run"),
            ("user,item,rating\n7,3,4\n", "user 7 is in the data"),
            ("user\nx\n", "line 1"),
        ],
    )
    def test_bad_files_are_refused(self, runs, tmp_path, capsys, text, message):
        (tmp_path / "new.csv").write_text(text)
        output = tmp_path / "top.csv"
        assert message in refused(
            capsys, "--for", tmp_path / "new.csv", "--output", output, "--logdir", runs["multitask"]
        )
        assert not output.exists()


def test_a_run_on_feedback_reads_its_labels(elsewhere, capsys):
    lines = [f"u{user},i{item},{int((user + item) % 3 < 2)},{int((user + item) % 3 == 0)}"
             for user in range(40) for item in range(50) if (user * 7 + item * 3) % 5 < 3]  # fmt: skip
    (elsewhere / "clicks.csv").write_text("user,item,click,buy\n" + "\n".join(lines) + "\n")
    (elsewhere / "new.csv").write_text("user,buy,item,click\nann,1,i3,1\nann,0,i5,1\n")
    shop = ["--model", "mmoe", "--feedback", "clicks.csv", "--labels", "click,buy", "--epochs", "1", "--quiet"]
    assert run(*shop, "--logdir", "shop") == 0
    capsys.readouterr()
    assert run("--for", "new.csv", "--logdir", "shop", "--k", "3") == 0
    assert "User ann responded to most" in capsys.readouterr().out
    (elsewhere / "new.csv").write_text("user,item,click\nann,i3,1\n")
    assert "without a column buy" in refused(capsys, "--for", "new.csv", "--logdir", "shop")
