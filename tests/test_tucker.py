"""Tucker's factorisation of a tensor of three axes."""

import pytest
import torch

from recbole_farzi.tucker import compose, decompose


def test_the_product_is_the_sum_over_all_ranks():
    generator = torch.Generator().manual_seed(0)
    core, sequences, positions = (torch.randn(*shape, generator=generator) for shape in ((2, 3, 4), (5, 2), (6, 3)))
    found = compose(core, sequences, positions)
    assert found.shape == (5, 6, 4)
    by_hand = sum(sequences[2, a] * positions[4, b] * core[a, b] for a in range(2) for b in range(3))
    torch.testing.assert_close(found[2, 4], by_hand)


@pytest.mark.parametrize("ranks", [(2, 3), (5, 6), (1, 1)])
def test_a_tensor_of_these_ranks_is_recovered(ranks):
    generator = torch.Generator().manual_seed(1)
    shapes = ((*ranks, 4), (5, ranks[0]), (6, ranks[1]))
    tensor = compose(*(torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes))
    core, sequences, positions = decompose(tensor, ranks)
    assert core.shape == (*ranks, 4)
    torch.testing.assert_close(compose(core, sequences, positions), tensor)
    for factor in (sequences, positions):
        torch.testing.assert_close(factor.square().mean().sqrt(), torch.tensor(1.0, dtype=torch.float64))


def test_what_is_cut_off_is_the_least_of_either_axis():
    """The bound of De Lathauwer et al. 2000: the squared error is at most the sum of the squared values that are cut."""
    tensor = torch.randn(5, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    cut = sum(
        torch.linalg.svdvals(tensor.movedim(axis, 0).flatten(1))[rank:].square().sum() for axis, rank in ((0, 3), (1, 4))
    )
    error = (compose(*decompose(tensor, (3, 4))) - tensor).square().sum()
    assert 0 < error <= cut
