"""The update rule of a recipe, twice: differentiable, for the inner loop, and as PyTorch has it, for training on a summary.

What the options of the inner loop mean to each rule (``farzi_inner_...``; an option that is not named has no effect):

=============  =====================================================================================================
``adam``       ``betas``, ``eps``, ``weight_decay`` (added to the gradient, as in RecBole)
``adamw``      the same, but ``weight_decay`` shrinks the weights themselves
``sgd``        ``weight_decay``
``momentum``   stochastic gradient descent with momentum ``betas[0]``; ``weight_decay``
``rmsprop``    decay of the second moment ``betas[1]``, ``eps``, ``weight_decay``
``adagrad``    ``eps``, ``weight_decay``
=============  =====================================================================================================
"""

import torch

from recbole_farzi import adjoint

__all__ = ["RULES", "differentiable_rule", "torch_optimizer"]

_ADAPTIVE = {  # name to (rule, PyTorch's, arguments beside learning rate, eps and weight decay)
    "adam": (adjoint.Adam, torch.optim.Adam, lambda betas: {"betas": betas}),
    "adamw": (adjoint.AdamW, torch.optim.AdamW, lambda betas: {"betas": betas}),
    "rmsprop": (adjoint.RMSprop, torch.optim.RMSprop, lambda betas: {"alpha": betas[1]}),
    "adagrad": (adjoint.Adagrad, torch.optim.Adagrad, lambda betas: {}),
}
_FUSED = ("adam", "adamw")
_PLAIN = {"sgd": lambda betas: {}, "momentum": lambda betas: {"momentum": betas[0]}}

RULES = ("adam", "adamw", "sgd", "momentum", "rmsprop", "adagrad")
"""Names of the rules: values of ``farzi_inner_optimizer``."""


def differentiable_rule(inner, rates):
    """The rule that the inner loop is differentiated through.

    Args:
        inner: :class:`recbole_farzi.options.InnerOptions`.
        rates: learning rate of each step, as :class:`recbole_farzi.adjoint.Rule` takes it.

    Returns:
        :class:`recbole_farzi.adjoint.Rule`.
    """
    return _make(inner, rates, 0)


def torch_optimizer(parameters, inner, rate):
    """The same rule as an optimiser of PyTorch's: of Adam and AdamW on the CPU the fused one, several times as fast on small models. (On CUDA
    it refuses parameters whose gradient is laid out otherwise.)

    Args:
        parameters: what it updates.
        inner: see :func:`differentiable_rule`.
        rate: learning rate.
    """
    parameters = list(parameters)
    fused = inner.optimizer in _FUSED and all(parameter.device.type == "cpu" for parameter in parameters)
    return _make(inner, rate, 1, parameters, **({"fused": True} if fused else {}))


def _make(inner, rate, which, *parameters, **more):
    if inner.optimizer in _PLAIN:
        make = (adjoint.SGD, torch.optim.SGD)[which]
        return make(*parameters, lr=rate, weight_decay=inner.weight_decay, **_PLAIN[inner.optimizer](inner.betas))
    *makes, arguments = _ADAPTIVE[inner.optimizer]
    return makes[which](*parameters, lr=rate, eps=inner.eps, weight_decay=inner.weight_decay, **arguments(inner.betas), **more)
