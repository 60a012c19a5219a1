"""Win, loss and tie: examples by hand, a slow version, and tests for leaks."""

from dataclasses import replace

import numpy as np
import pytest
from dyadic_worlds import toy_dyads
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from config.dyadic import FeatureOptions
from config.errors import UserError
from dyadic.data import DyadicData
from dyadic.features import FEATURES, LEAK, add_features, compare, summarize
from dyadic.from_ratings import Catalog, Ratings, from_ratings, item_context
from dyadic.neighbors import best_k

VARIANTS = [
    FeatureOptions(num_neighbors=4),
    FeatureOptions(num_neighbors=4, similarity="im", absent="zero"),
    FeatureOptions(num_neighbors=4, spread="var", exclude_self=False),
    FeatureOptions(num_neighbors=6, neighbors="global"),
    FeatureOptions(num_neighbors=6, neighbors="global", similarity="im", absent="zero"),
    FeatureOptions(num_neighbors=6, neighbors="global", absent="zero", source="all", exclude_self=False),
    FeatureOptions(num_neighbors=2, neighbors="global"),  # own entries often lower more than k users of the pool
    FeatureOptions(num_neighbors=500),
    FeatureOptions(num_neighbors=500, neighbors="global", bias="vz"),
]


LABELS_OF_IM = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1)]  # 3: only a reply


def dyads(pairs, im, *args, **kwargs) -> DyadicData:
    """Dyads from (user, item) pairs and values of IM in 0..6."""
    return toy_dyads(pairs, [LABELS_OF_IM[value] for value in im], *args, **kwargs)


def random_dyads(seed: int, num_users: int = 24, num_items: int = 18, density: float = 0.5) -> DyadicData:
    random = np.random.default_rng(seed)
    cells = np.argwhere(random.random((num_users, num_items)) < density)
    im = random.choice(7, p=[0.5, 0.2, 0.05, 0.05, 0.1, 0.05, 0.05], size=len(cells))
    return dyads(cells, im, np.sort(random.permutation(len(cells))[: len(cells) // 2]), num_users, num_items)


def plain_features(data: DyadicData, options: FeatureOptions) -> np.ndarray:
    """The definitions, one dyad and one neighbor at a time."""
    known = data.train if options.source == "train" else range(len(data))
    cells = {(data.user_ids[row], data.item_ids[row]): data.im[row] for row in known}
    result = np.zeros((len(data), 15))
    for row, (u, m) in enumerate(zip(data.user_ids, data.item_ids, strict=True)):
        visible = dict(cells)
        if options.exclude_self and (u, m) in visible:
            visible[u, m] = 0
        value = (lambda v: float(v > 0)) if options.similarity == "binary" else float
        vectors = np.zeros((data.num_users, data.num_items))
        for (k, v), score in visible.items():
            vectors[k, v] = value(score)
        original = np.array(
            [sum(value(s) ** 2 for (k, _), s in cells.items() if k == user) for user in range(data.num_users)]
        )
        closeness = [
            ((vectors[u] @ vectors[k]) ** 2 / original[k] if original[k] else 0.0, -k) for k in range(data.num_users)
        ]
        others = [k for k in range(data.num_users) if k != u]
        if options.neighbors == "per_item":
            others = [k for k in others if (k, m) in cells and sum(who == k for who, _ in cells) > 1]
        else:
            others = [k for k in others if closeness[k][0] > 0]
        nearest = sorted(others, key=lambda k: closeness[k], reverse=True)[: options.num_neighbors]
        triples = []
        for k in nearest:
            rest = [score for (who, v), score in cells.items() if who == k and v != m]
            if (k, m) in cells and rest:
                own = cells[k, m]
                counts = [sum(own > s for s in rest), sum(own < s for s in rest), sum(own == s for s in rest)]
                triples.append(np.array(counts) / len(rest))
        if not triples:
            continue
        if options.absent == "zero":
            triples += [np.zeros(3)] * (options.num_neighbors - len(triples))
        a = np.array(triples)
        spread = a.std(0) if options.spread == "std" else a.var(0)
        result[row] = np.column_stack([a.mean(0), spread, a.max(0), a.min(0), (a != 0).mean(0)]).ravel()
    return result


def test_the_example_of_volkovs_and_zemel():
    users = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    ratings = np.array([2, 2, 5, 2, 3, 3, 1, 4, 4, 5])
    table = compare(users, ratings)
    neighbors = table[[2, 5, 8]]
    assert neighbors == pytest.approx(np.array([[1, 0, 0], [0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3]]))
    expected = [0.611111, 0.283279, 1, 0.333333, 1, 0.111111, 0.157135, 0.333333, 0, 0.333333]
    expected += [0.277778, 0.207870, 0.5, 0, 0.666667]
    assert summarize(neighbors, np.array([3]), np.array([3]))[0] == pytest.approx(expected, abs=1e-6)
    variance = summarize(neighbors, np.array([3]), np.array([3]), "var")[0, [1, 6, 11]]
    assert variance == pytest.approx([0.080247, 0.024691, 0.043210], abs=1e-6)


def test_one_neighbor_padded_with_zeros_as_in_the_authors_table():
    row = summarize(np.array([[0.5, 0.5, 0.0]]), np.array([1]), np.array([50]), "var")[0]
    assert row[:5] == pytest.approx([0.01, 0.0049, 0.5, 0, 0.02])


# User 0 clicked offer 0 and ignored 1; user 1 clicked 0 and ignored 1 and 2; user 2 clicked 1 and ignored 2; user 3
# clicked 3 and ignored 0.
TOY = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (3, 0)]
TOY_IM = [1, 0, 1, 0, 0, 1, 0, 1, 0]


def test_features_by_hand():
    features = add_features(dyads(TOY, TOY_IM)).features
    # (0, offer 0): neighbors are 1 (prefers it to both others) and 3 (prefers its other offer)
    win, loss, tie = [0.5, 0.5, 1, 0, 0.5], [0.5, 0.5, 1, 0, 0.5], [0, 0, 0, 0, 0]
    assert features[0] == pytest.approx([*win, *loss, *tie])
    # (1, offer 2): the only neighbor is 2, who prefers offer 1
    assert features[4] == pytest.approx([0] * 5 + [1, 0, 1, 1, 1] + [0] * 5)
    # (3, offer 3): nobody else observed it
    assert (features[7] == 0).all()


def test_dyads_that_were_displayed_and_ignored_change_the_features():
    kept = [row for row, value in enumerate(TOY_IM) if value > 0]
    without = add_features(dyads([TOY[row] for row in kept], [1] * len(kept), num_items=4)).features
    assert not np.allclose(without[0], add_features(dyads(TOY, TOY_IM)).features[0])


def test_the_similarity_for_a_dyad_excludes_the_dyad_itself():
    # Users 0 and 1 share only offer 0; 0 and 2 share offer 1. Without (0, offer 0) itself, user 2 is more similar.
    pairs = [(0, 0), (0, 1), (1, 0), (1, 2), (2, 0), (2, 1), (2, 3)]
    im = [1, 1, 1, 0, 0, 1, 1]
    one = FeatureOptions(num_neighbors=1)
    assert add_features(dyads(pairs, im), one).features[0, 5] == 1.0  # mean loss: user 2 prefers two offers to it
    assert add_features(dyads(pairs, im), replace(one, exclude_self=False)).features[0, 0] == 1.0  # user 1: a win


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_features_equal_the_slow_version(options, seed):
    data = random_dyads(seed)
    fast = add_features(data, options, quiet=True).features
    assert fast[:, :15] == pytest.approx(plain_features(data, options), abs=1e-12)


def test_features_of_sparse_data_equal_the_slow_version():
    """Users with one entry, offers that occur only in the test part, users without positives."""
    for seed in range(6):
        data = random_dyads(seed, num_users=12, num_items=15, density=0.2)
        for options in VARIANTS:
            fast = add_features(data, options, quiet=True).features[:, :15]
            assert fast == pytest.approx(plain_features(data, options), abs=1e-12), (seed, options)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_features_satisfy_their_invariants(options):
    data = add_features(random_dyads(3, 40, 30), options)
    f = data.features[:, :15].reshape(-1, 3, 5)
    mean, _, high, low, _ = np.moveaxis(f, 2, 0)
    near = 1e-12
    assert np.isfinite(f).all()
    assert f.min() >= 0
    assert f.max() <= 1 + near
    assert (low <= mean + near).all()
    assert (mean <= high + near).all()
    total = mean.sum(1)
    with_neighbors = (f != 0).any((1, 2))
    if options.absent == "drop":
        assert total[with_neighbors] == pytest.approx(1)
    else:
        assert total * options.num_neighbors == pytest.approx(np.round(total * options.num_neighbors))
    if options.bias == "vz":
        assert (data.features[:, 15] == 1).all()
        assert (data.features[:, 16] == ~with_neighbors).all()


def test_wins_losses_and_ties_add_up():
    data = random_dyads(4)
    table = compare(data.user_ids, data.im)
    several = np.bincount(data.user_ids)[data.user_ids] > 1
    assert table[several].sum(1) == pytest.approx(1)
    assert compare(np.array([0]), np.array([3])).tolist() == [[0, 0, 0]]


def test_a_monotone_map_of_the_scores_changes_nothing():
    data = random_dyads(5)
    assert (compare(data.user_ids, data.im) == compare(data.user_ids, np.exp(data.im) - 7)).all()


def test_new_row_numbers_change_no_features():
    data = random_dyads(6)
    random = np.random.default_rng(0)
    new_item = random.permutation(data.num_items)
    new_user = random.permutation(data.num_users)
    nearest = FeatureOptions(num_neighbors=5)
    everybody = FeatureOptions(num_neighbors=500)
    other_items = replace(data, item_ids=new_item[data.item_ids])
    assert add_features(other_items, nearest).features == pytest.approx(add_features(data, nearest).features)
    # Ties of similarity are broken by row number, so users are renamed only where everybody is a neighbor.
    other_users = replace(data, user_ids=new_user[data.user_ids])
    assert add_features(other_users, everybody).features == pytest.approx(add_features(data, everybody).features)


@pytest.mark.parametrize("options", [o for o in VARIANTS if o.source == "train"], ids=str)
def test_features_do_not_depend_on_test_labels(options):
    data = random_dyads(7)
    shuffled = data.labels.copy()
    shuffled[data.test] = 1 - shuffled[np.random.default_rng(1).permutation(data.test)]
    other = add_features(replace(data, labels=shuffled), options).features
    assert (other == add_features(data, options).features).all()


@pytest.mark.parametrize("neighbors", ["per_item", "global"])
def test_the_features_of_a_training_dyad_do_not_depend_on_its_own_label(neighbors):
    data = random_dyads(8, 40, 30)
    options = FeatureOptions(num_neighbors=5, neighbors=neighbors)
    before = add_features(data, options).features
    for row in data.train[:60]:
        flipped = data.labels.copy()
        flipped[row] = 0 if flipped[row].any() else (1, 1, 0)
        assert (add_features(replace(data, labels=flipped), options).features[row] == before[row]).all()


def test_best_k_chooses_the_leftmost_of_equal_values():
    closeness = np.array([[1.0, 2.0, 1.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert best_k(closeness, 3).tolist() == [[True, True, False, False, True], [True, True, True, False, False]]


def test_features_from_all_dyads_carry_a_leak_note():
    data = add_features(random_dyads(9), FeatureOptions(source="all"))
    assert LEAK in data.notes
    assert add_features(random_dyads(9)).notes == ()


def test_the_columns_have_names():
    assert len(FEATURES) == 15
    assert FEATURES[5:7] == ("loss mean", "loss spread")


def test_wrong_options_are_refused():
    with pytest.raises(UserError, match="--similarity cannot be 'pearson': choose one of binary, im"):
        FeatureOptions(similarity="pearson")
    with pytest.raises(UserError, match="--num_neighbors must be at least 1"):
        FeatureOptions(num_neighbors=0)
    with pytest.raises(UserError, match="--score rating needs ratings, and toy has none"):
        add_features(random_dyads(0), FeatureOptions(score="rating"))


def test_score_rating_compares_ratings_instead_of_im():
    data = random_dyads(10)
    data = replace(data, ratings=data.im.astype(float) ** 2)
    same = add_features(data, FeatureOptions(score="rating")).features
    assert (same == add_features(data).features).all()
    coarse = replace(data, ratings=np.ones(len(data)))
    assert not (add_features(coarse, FeatureOptions(score="rating")).features == same).all()


@pytest.fixture(scope="module")
def movielens_dyads(movielens) -> DyadicData:
    rows = movielens.seen + movielens.test
    order = np.argsort((rows.user_ids * rows.num_items + rows.item_ids).numpy())
    ratings = Ratings(*(column.numpy()[order] for column in (rows.user_ids, rows.item_ids, rows.ratings)))
    context = item_context(movielens.titles, movielens.genres)
    return from_ratings(ratings, Catalog("ml-100k", movielens.users, movielens.items, item_context=context))


def test_features_are_as_informative_on_test_as_on_train(movielens_dyads):
    def auc(options: FeatureOptions) -> list[float]:
        data = add_features(movielens_dyads, options)
        clicked = data.labels[:, 0]
        model = LogisticRegression(max_iter=1000).fit(data.features[data.train], clicked[data.train])
        score = model.decision_function(data.features)
        return [roc_auc_score(clicked[part], score[part]) for part in (data.train, data.test)]

    train, test = auc(FeatureOptions())
    assert abs(train - test) < 0.03
    train, test = auc(FeatureOptions(neighbors="global", absent="zero", exclude_self=False))
    assert train - test > 0.1  # the leak that exclude_self prevents
