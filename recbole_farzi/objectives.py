"""Other things that a summary can be distilled for than a small loss of the trained student: matching what real data does to a
student's gradients, or to its weights. Pure mathematics: nothing here knows RecBole, nor what a summary is.

With ``P`` the soft events, ``L(theta; P)`` the loss of a student that reads them and ``L_real`` the loss on real events:

* meta-matching (arXiv 2310.09983): ``min L_real(theta_T(P))``, the unrolled inner loop itself
  (:func:`recbole_farzi.adjoint.unroll`); there is nothing to add here.
* gradient matching (DC; Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021, equation 9):
  ``min sum_t D(grad L(theta_t; P), grad L_real(theta_t))`` along the weights ``theta_t`` of students that train on ``P``, each
  term alone: the ``theta_t`` are constants.
* trajectory matching (MTT; Cazenavette et al., "Dataset Distillation by Matching Training Trajectories", CVPR 2022, equation 3):
  ``min |theta_N(P) - goal|^2 / |start - goal|^2``, where ``start`` and ``goal`` are weights of an expert at two moments of its
  training on real data, and ``theta_N`` are N steps of training on ``P`` from ``start``.
"""

import torch

from recbole_farzi.adjoint import SGD, unroll

__all__ = ["gradient_distance", "summary_gradient", "trajectory_distance"]

_EPS = 1e-6  # beside the norm of a row's gradient; DC's own code adds as much to the product of two


def gradient_distance(mine, theirs):
    """How differently two gradients point: ``D = sum over matrices, sum over their rows i of 1 - cos(a_i, b_i)``.

    Zhao et al. 2021, equation 10: a row of a weight is what one output unit, or one item of an embedding table, reads.
    Vectors (biases, scales of normalisations) are left out, as there. Norms are ``sqrt(|a|^2 + eps^2)``, so that a row
    without a gradient counts as 1 and has a derivative.

    Args:
        mine, theirs: ``{name: tensor}`` of the same names and shapes, shape [rows, ...] each.

    Returns:
        Scalar, from 0 to twice the number of rows.
    """
    total = 0.0
    for name, a in mine.items():
        if a.dim() < 2:
            continue
        a, b = a.flatten(1), theirs[name].flatten(1)
        size = ((a.square().sum(dim=1) + _EPS**2) * (b.square().sum(dim=1) + _EPS**2)).sqrt()
        total = total + (1.0 - (a * b).sum(dim=1) / size).sum()
    return total


def summary_gradient(loss, params, data, batches, seed, frozen=()):
    """The gradient of a mean loss for the parameters, batch by batch; itself differentiable for the data, exactly.

    The momentum of plain gradient descent after its first step *is* the gradient, so that :func:`recbole_farzi.adjoint.unroll`
    has the second derivatives already: of one batch at a time, and no graph of any is kept.

    Args:
        loss: as for ``unroll``: ``loss(params, data, step)``, a mean over the rows of the data.
        params: ``{name: tensor}``, constants.
        data: as for ``unroll``; tensors of shape [rows, ...].
        batches: row numbers of each batch, which together are the rows that count.
        seed: of what is random in the loss.
        frozen: names of ``params`` of which no gradient is taken; it is differentiable for them as for the data.

    Returns:
        ``{name: tensor}``, the mean over all rows of ``batches``.
    """
    rows = sum(len(batch) for batch in batches)
    whole = {}
    for batch in batches:
        _, state = unroll(
            loss, params, data, optimizer=SGD(lr=1.0, momentum=0.5), steps=1, batches=[batch], seed=seed, return_state=True,
            frozen=frozen,
        )  # fmt: skip
        for name, gradient in state.slots["b"].items():
            part = gradient * (len(batch) / rows)
            whole[name] = whole[name] + part if name in whole else part
    return whole


def trajectory_distance(final, start, goal):
    """How far trained weights are from where an expert went, in units of the way it took:
    ``|final - goal|^2 / |start - goal|^2`` over all parameters together (Cazenavette et al. 2022, equation 3).

    Args:
        final, start, goal: ``{name: tensor}`` of the same names and shapes.

    Returns:
        Scalar: 0 at the goal, 1 where nothing was learnt. Not finite where the expert did not move.
    """
    left = sum((final[name] - value).square().sum() for name, value in goal.items())
    way = sum((start[name] - value).square().sum() for name, value in goal.items())
    return left / way
