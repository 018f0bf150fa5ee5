"""A small inner problem that the tests share, and how gradients are compared."""

import torch

from recbole_farzi.adjoint import Adagrad, Adam, AdamW, RMSprop, SGD, unroll

# eps is moderate: with a tiny one the first step is nearly sign(g), whose gradient is rounding alone.
RULES = {
    "adam": lambda lr: Adam(lr, eps=1e-3),
    "adam, other betas, decay, eps_root": lambda lr: Adam(
        lr, betas=(0.5, 0.9), eps=1e-4, eps_root=1e-3, weight_decay=0.1
    ),
    "adamw": lambda lr: AdamW(lr, eps=1e-3, weight_decay=0.1),
    "sgd": lambda lr: SGD(lr),
    "sgd, momentum, decay": lambda lr: SGD(lr, momentum=0.9, weight_decay=0.1),
    "sgd, momentum, dampening": lambda lr: SGD(lr, momentum=0.9, dampening=0.3),
    "sgd, nesterov, decay": lambda lr: SGD(lr, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": lambda lr: RMSprop(lr, eps=1e-3),
    "rmsprop, centred, momentum, decay": lambda lr: RMSprop(
        lr, alpha=0.9, eps=1e-2, momentum=0.5, centered=True, weight_decay=0.1
    ),
    "adagrad": lambda lr: Adagrad(lr, eps=1e-3),
    "adagrad, lr decay, start, decay": lambda lr: Adagrad(
        lr, lr_decay=0.1, eps=1e-3, initial_accumulator_value=0.1, weight_decay=0.1
    ),
}


def params(dtype=torch.float64, seed=0):
    """A two-layer network; row 2 of the table is read by no example, so its gradient is exactly 0."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"table": (4, 3), "weight": (3, 5), "bias": (5,), "scale": ()}
    return {
        name: torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for name, shape in shapes.items()
    }


def data(dtype=torch.float64, rows=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(rows, 3, generator=generator, dtype=dtype).requires_grad_(),
        "ids": torch.tensor([0, 1, 3])[torch.randint(3, (rows,), generator=generator)],
        "y": (torch.randn(rows, 5, generator=generator, dtype=dtype).requires_grad_(),),
        "note": "leaves that are no tensors are passed on",
    }


def loss(p, d, step):
    h = torch.tanh((d["x"] + p["table"][d["ids"]]) @ p["weight"] + p["bias"])
    return (h * p["scale"] - d["y"][0]).square().mean()


def outer(p):
    """A scalar that weighs every entry of every tensor differently."""
    return sum((value * torch.arange(1, value.numel() + 1).to(value).view_as(value)).sin().sum() for value in p.values())


def gradients(adjoint, rule, steps, lr=0.05, inner_loss=loss, rows=6, **options):
    """The final parameters, and gradients of `outer` for the initial ones, the data and the learning rate."""
    p, d = params(), data(rows=rows)
    rate = torch.tensor(lr, dtype=torch.float64, requires_grad=True)
    final = unroll(inner_loss, p, d, optimizer=rule(rate), steps=steps, adjoint=adjoint, **options)
    grads = torch.autograd.grad(outer(final), [*p.values(), d["x"], d["y"][0], rate])
    return final, dict(zip([*p, "x", "y", "lr"], grads))


def assert_close(got, expected, tolerance=1e-9):
    """Every gradient agrees to `tolerance`, relative to its norm; none is trivially 0."""
    assert got.keys() == expected.keys()
    for name, reference in expected.items():
        norm = reference.norm()
        assert norm > 0, name
        assert (got[name] - reference).norm() <= tolerance * norm, name
