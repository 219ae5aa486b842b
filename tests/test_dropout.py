"""Dropout drops what it should, keeps the mean, and follows torch's generator."""

import pytest
import torch

from januslm.model.dropout import dropout


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("chance", [0.1, 0.3, 0.9])
def test_a_number_is_dropped_with_its_chance_or_scaled(kind, chance):
    x = torch.full((300, 333), 2.0, dtype=kind)  # not a multiple of four numbers
    out = dropout(x, chance)
    assert out.dtype == kind
    kept = out[out != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 2 / (1 - chance)), rtol=1e-2, atol=0)
    share = 1 - len(kept) / x.numel()
    deviation = (chance * (1 - chance) / x.numel()) ** 0.5
    assert abs(share - chance) < 5 * deviation


def test_neighbours_are_dropped_independently():
    gone = dropout(torch.ones(400_000), 0.5) == 0
    for step in range(1, 9):  # four numbers share one draw
        both = (gone[:-step] & gone[step:]).double().mean()
        assert abs(both - 0.25) < 0.005


def test_the_gradient_passes_where_the_number_does():
    x = torch.randn(1000, requires_grad=True)
    out = dropout(x, 0.4)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), out.detach())


def test_one_seed_gives_one_draw_and_the_next_draw_differs():
    x = torch.ones(999)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.5))
    assert not torch.equal(first, second)
