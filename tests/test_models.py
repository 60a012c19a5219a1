"""The network against a second, slow implementation of the course sheet's equations."""

import pytest
import torch
from torch import nn

from models import MultiTaskNet, ScaledEmbedding, ZeroEmbedding

SHARING = pytest.mark.parametrize("sharing", [True, False])


def slow_forward(model: MultiTaskNet, user: int, item: int) -> tuple[float, float]:
    """Eqs. (1) and (4) for one pair, number by number, in double precision."""
    names = ("U", "Q", "U", "Q") if model.embedding_sharing else ("U_fact", "Q_fact", "U_reg", "Q_reg")
    u_fact, q_fact, u_reg, q_reg = (getattr(model, name).weight.detach().double() for name in names)
    bias = model.B.weight.detach()[item, 0]
    p = sum(float(a * b) for a, b in zip(u_fact[user], q_fact[item], strict=True)) + float(bias)
    hidden = [*u_reg[user], *q_reg[item], *(u_reg[user] * q_reg[item])]
    dense = [layer for layer in model.mlp_layers if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(dense):
        hidden = [
            sum(w * h for w, h in zip(row, hidden, strict=True)) + b
            for row, b in zip(layer.weight.detach().double(), layer.bias.detach().double(), strict=True)
        ]
        if number < len(dense) - 1:
            hidden = [h.clamp(min=0) for h in hidden]
    return p, float(hidden[0])


@SHARING
@pytest.mark.parametrize("layer_sizes", [[12, 5], [12], [12, 7, 3]])
def test_forward_is_the_equations(sharing, layer_sizes):
    torch.manual_seed(0)
    model = MultiTaskNet(4, 6, embedding_dim=4, layer_sizes=layer_sizes, embedding_sharing=sharing)
    nn.init.normal_(model.B.weight)
    users, items = torch.tensor([0, 3, 3, 1]), torch.tensor([5, 0, 0, 2])
    predictions, score = model(users, items)
    for row, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
        p, r = slow_forward(model, user, item)
        assert predictions[row].item() == pytest.approx(p, abs=1e-6)
        assert score[row].item() == pytest.approx(r, abs=1e-6)


@SHARING
@pytest.mark.parametrize("batch", [0, 1, 256])
def test_forward_keeps_the_shape_of_the_batch(sharing, batch):
    model = MultiTaskNet(10, 20, embedding_sharing=sharing)
    predictions, score = model(torch.randint(10, (batch,)), torch.randint(20, (batch,)))
    assert predictions.shape == score.shape == (batch,)
    assert predictions.dtype == score.dtype == torch.float32


@SHARING
def test_scoring_all_items_at_once_equals_forward(sharing):
    model = MultiTaskNet(5, 9, embedding_sharing=sharing)
    nn.init.normal_(model.B.weight)
    users = torch.tensor([4, 0])
    expected = model(users.repeat_interleave(9), torch.arange(9).repeat(2))[0].view(2, 9)
    torch.testing.assert_close(model.score_items(users), expected)


def test_scaled_embedding_has_standard_deviation_one_over_d():
    torch.manual_seed(0)
    for width in (8, 32, 100):
        weight = ScaledEmbedding(20_000, width).weight
        assert weight.std().item() == pytest.approx(1 / width, rel=0.01)
        assert abs(weight.mean().item()) < 0.01 / width


def test_zero_embedding_is_zero():
    assert not ZeroEmbedding(50, 3).weight.any()


def test_init_methods_work_unbound_and_in_the_documented_order():
    nothing = object()
    u, q = MultiTaskNet.init_shared_user_and_item_embeddings(nothing, 3, 5, 8)
    assert (u.weight.shape, q.weight.shape) == ((3, 8), (5, 8))
    tables = MultiTaskNet.init_separate_user_and_item_embeddings(nothing, 3, 5, 8)
    assert [table.weight.shape for table in tables] == [(3, 8), (5, 8), (3, 8), (5, 8)]
    assert len({id(table) for table in tables}) == 4
    assert MultiTaskNet.init_item_bias(nothing, 3, 5).weight.shape == (5, 1)
    layers = MultiTaskNet.init_mlp_layers(nothing, [96, 64])
    assert [str(layer).split("(")[0] for layer in layers] == ["Linear", "ReLU", "Linear"]
    assert [tuple(p.shape) for p in layers.parameters()] == [(64, 96), (64,), (1, 64), (1,)]


@pytest.mark.parametrize(("sharing", "tables"), [(True, {"U", "Q"}), (False, {"U_reg", "Q_reg", "U_fact", "Q_fact"})])
def test_parameters_are_the_tables_the_bias_and_the_mlp(sharing, tables):
    model = MultiTaskNet(943, 1682, embedding_sharing=sharing)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == tables | {"B", "mlp_layers"}
    pairs = 1 if sharing else 2
    expected = pairs * (943 + 1682) * 32 + 1682 + 96 * 64 + 64 + 64 + 1
    assert sum(p.numel() for p in model.parameters()) == expected


def test_separate_tables_get_gradients_from_their_own_task_only():
    model = MultiTaskNet(5, 6, embedding_sharing=False)
    users, items = torch.arange(5), torch.arange(5)
    model(users, items)[1].sum().backward()
    assert all(table.weight.grad is None for table in (model.U_fact, model.Q_fact, model.B))
    model.zero_grad()
    model(users, items)[0].sum().backward()
    assert all(table.weight.grad is None for table in (model.U_reg, model.Q_reg))


def test_shared_tables_get_gradients_from_both_tasks():
    model = MultiTaskNet(5, 6)
    for output in (0, 1):
        model.zero_grad()
        model(torch.arange(5), torch.arange(5))[output].sum().backward()
        assert all((table.weight.grad[:5] != 0).all() for table in (model.U, model.Q))


@pytest.mark.parametrize(
    "wrong", [{"num_users": 0}, {"num_items": 0}, {"embedding_dim": 0}, {"layer_sizes": [95, 64]}, {"layer_sizes": []}]
)
def test_invalid_sizes_raise(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MultiTaskNet(**{"num_users": 3, "num_items": 4} | wrong)
