"""A ranking and a rating that were fitted apart, assembled in one network."""

from dataclasses import replace

import pytest
import torch

from evaluation import mrr_score, mse_score
from models import MultiTaskNet
from multitask.bayesian import BayesianFactorization, mean_of
from multitask.closed_form import RankingBlock, assemble, mix, width_of
from multitask.ease import ScoreTable, cut, ease_scores
from multitask.features import watch_features


@pytest.fixture(scope="module")
def blocks(tiny):
    fits = []
    for seed in range(2):
        fits.append(BayesianFactorization(tiny.train, watch_features(tiny.train, 8), 3, seed))
        for _ in range(8):
            fits[-1].sweep()
    tables = cut(ease_scores(tiny.train, 20.0), 24, tiny.train.item_counts)
    return RankingBlock(*tables), mean_of([one.factorization() for one in fits])


def network(ranking, rating, **options) -> MultiTaskNet:
    width = width_of(ranking, rating)
    model = MultiTaskNet(60, 80, **{"embedding_dim": width, "layer_sizes": [3 * width]} | options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)  # to be overwritten
    return model


def test_the_network_predicts_what_the_blocks_predict(blocks):
    ranking, rating = blocks
    model = network(*blocks)
    assemble(*blocks, model)
    users, items = torch.cartesian_prod(torch.arange(60), torch.arange(80)).T
    p, r = model(users, items)
    scores = ranking.users @ ranking.items.T + ranking.item_bias
    deviation = (p.double() - scores.flatten()).abs().max()
    assert deviation < 0.002 * scores.std()
    torch.testing.assert_close(r.double(), rating.predict(users, items), rtol=0, atol=1e-4)
    torch.testing.assert_close(model.score_items(torch.arange(60)).flatten(), p)


@pytest.mark.parametrize("factor", [1e-6, 1e3, 1e7])
def test_large_ratings_do_not_move_the_ranking(blocks, factor):
    ranking, rating = blocks
    scaled = replace(
        rating,
        mean=factor * rating.mean,
        user_bias=factor * rating.user_bias,
        item_bias=factor * rating.item_bias,
        users=factor**0.5 * rating.users,
        items=factor**0.5 * rating.items,
    )
    model = network(ranking, scaled)
    assemble(ranking, scaled, model)
    users, items = torch.cartesian_prod(torch.arange(60), torch.arange(80)).T
    p, r = model(users, items)
    assert (p.double() - (ranking.users @ ranking.items.T + ranking.item_bias).flatten()).abs().max() < 0.002
    torch.testing.assert_close(r.double(), scaled.predict(users, items), rtol=0, atol=1e-4 * factor)


def test_the_metrics_are_those_of_the_blocks(blocks, tiny):
    ranking, rating = blocks
    model = network(*blocks)
    assemble(*blocks, model)
    table = ScoreTable(ranking.users @ ranking.items.T + ranking.item_bias)
    expected = mrr_score(table, tiny.validation, tiny.train)
    # Items that nobody has rated tie in the block; in the network the rating columns order them.
    assert mrr_score(model, tiny.validation, tiny.train) == pytest.approx(expected, abs=1e-3)
    errors = rating.predict(tiny.validation.user_ids.long(), tiny.validation.item_ids.long()) - tiny.validation.ratings
    assert mse_score(model, tiny.validation) == pytest.approx(errors.square().mean().item(), abs=1e-5)


def test_a_saved_network_predicts_the_same(blocks, tmp_path):
    model, other = network(*blocks), network(*blocks)
    assemble(*blocks, model)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    pairs = torch.arange(60), torch.arange(60)
    assert all(one.equal(again) for one, again in zip(model(*pairs), other(*pairs), strict=True))


@pytest.mark.parametrize(
    "options",
    [{"embedding_dim": 4, "layer_sizes": [12]}, {"embedding_sharing": False}, {"layer_sizes": [96, 5]}],
)
def test_a_network_of_another_form_is_refused(blocks, options):
    width = width_of(*blocks)
    assert width == 24 + 2 + 6
    with pytest.raises(ValueError, match=f"shared tables of width {width}"):
        assemble(*blocks, network(*blocks, **options))


def test_the_tables_train_on(blocks):
    model = network(*blocks)
    assemble(*blocks, model)
    p, r = model(torch.arange(60), torch.arange(60))
    (p.sum() + r.sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def scores_of(block: RankingBlock) -> torch.Tensor:
    return block.users @ block.items.T + block.item_bias


def standardized(scores: torch.Tensor) -> torch.Tensor:
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True, correction=0)


def random_block(seed: int, width: int) -> RankingBlock:
    random = torch.Generator().manual_seed(seed)
    users, items = (torch.randn(n, width, dtype=torch.double, generator=random) for n in (60, 80))
    return RankingBlock(100**seed * users, items, torch.randn(80, dtype=torch.double, generator=random))


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.9])
def test_a_mixture_weighs_the_standardized_scores_of_each_user(fraction):
    first, second = random_block(0, 5), random_block(1, 3)
    mixed = mix(first, second, fraction)
    assert mixed.users.shape[1] == 5 + 3 + 1
    expected = (1 - fraction) * standardized(scores_of(first)) + fraction * standardized(scores_of(second))
    torch.testing.assert_close(standardized(scores_of(mixed)), standardized(expected))


def test_a_mixture_with_equal_scores_is_finite():
    first, second = random_block(0, 5), random_block(1, 3)
    flat = RankingBlock(torch.zeros_like(second.users), second.items, torch.zeros(80, dtype=torch.double))
    mixed = scores_of(mix(first, flat, 0.2))
    torch.testing.assert_close(mixed, scores_of(first))
    assert scores_of(mix(flat, second, 0.2)).isfinite().all()
