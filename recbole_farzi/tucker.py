"""Tucker's factorisation of a tensor of three axes (Tucker, "Some mathematical notes on three-mode factor analysis",
Psychometrika 1966). Pure mathematics: nothing here knows RecBole.

A summary's ``Z``, shape [mu, xi, d], is ``G x_1 U x_2 T``: a core ``G`` [r1, r2, d], a factor ``U`` [mu, r1] of the sequences and one
``T`` [xi, r2] of the positions. With the token decoder ``M`` as the factor of the items, that is the Tucker factorisation of the
logits that TD3 distils ("TD3: Tucker Decomposition Based Dataset Distillation Method for Sequential Recommendation",
arXiv 2502.02854): r1, r2 and r3 = d are its ranks.
"""

import torch

__all__ = ["compose", "decompose"]


def compose(core, sequences, positions):
    """``Z[m, x, d] = sum_ab U[m, a] T[x, b] G[a, b, d]``.

    Args:
        core: ``G``, shape [r1, r2, d].
        sequences: ``U``, shape [mu, r1].
        positions: ``T``, shape [xi, r2].

    Returns:
        Shape [mu, xi, d].
    """
    return torch.einsum("ma,xb,abd->mxd", sequences, positions, core)


def decompose(tensor, ranks):
    """The factors by higher-order singular values (De Lathauwer, De Moor and Vandewalle, "A Multilinear Singular Value
    Decomposition", SIAM J. Matrix Anal. Appl. 2000): exact where the tensor has these ranks, near the closest otherwise.

    Factors have entries of root mean square 1, and the core is as large as the tensor then asks for, so that steps of one size
    suit all three.

    Args:
        tensor: shape [mu, xi, d].
        ranks: ``(r1, r2)``, at most mu and xi.

    Returns:
        ``(core, sequences, positions)``, as :func:`compose` takes them.
    """
    factors = []
    for axis, rank in enumerate(ranks):
        unfolded = tensor.movedim(axis, 0).flatten(1).double()
        _, left = torch.linalg.eigh(unfolded @ unfolded.T)  # left singular vectors, those of the smallest values first
        factors.append((left.flip(1)[:, :rank] * len(left) ** 0.5).to(tensor.dtype))
    sequences, positions = factors
    return torch.einsum("ma,xb,mxd->abd", sequences, positions, tensor) / (len(sequences) * len(positions)), sequences, positions
