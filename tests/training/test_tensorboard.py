"""What TensorBoard shows of a run."""

import torch

from training.tensorboard import MAX_PROJECTOR_WIDTH, narrowed


def test_a_wide_item_table_is_drawn_in_its_principal_components():
    table = torch.randn(300, 20) @ torch.randn(20, 400) + 5
    drawn = narrowed(table)
    assert drawn.shape == (300, MAX_PROJECTOR_WIDTH)
    distances = [(one.double().unsqueeze(1) - one.double()).norm(dim=2) for one in (drawn, table)]
    torch.testing.assert_close(*distances, rtol=1e-4, atol=1e-2)
    assert torch.equal(narrowed(table[:, :MAX_PROJECTOR_WIDTH]), table[:, :MAX_PROJECTOR_WIDTH])
