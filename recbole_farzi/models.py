"""Fresh RecBole models from seeds, without a trace in anybody's random streams."""

import contextlib
import importlib
import io
import os
import random
import sys

import numpy as np
import torch
from recbole.data.transform import construct_transform
from recbole.model.abstract_recommender import AbstractRecommender, SequentialRecommender
from recbole.utils import get_model, init_seed
from torch import nn

from recbole_farzi.errors import ModelError

__all__ = ["ModelFactory", "resolve_model", "seeded", "without_dropout"]


def resolve_model(model, sequential=True):
    """The class of a RecBole model.

    Args:
        model: a name that RecBole knows (``SASRec``), a ``package.module:Class`` of one's own, or the class itself.
        sequential: take sequential recommenders alone; False takes any.

    Raises:
        ModelError: there is none of that name, or it is no (sequential) recommender.
    """
    if isinstance(model, type):
        found = model
    elif isinstance(model, nn.Module):
        raise ModelError(f"model must be a class, not an instance of one: give {type(model).__name__} itself")
    elif not isinstance(model, str):
        raise ModelError(f"model {model!r} must be a name, such as SASRec or package.module:Class")
    elif ":" in model:
        module, _, name = model.partition(":")
        if "" not in sys.path and os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # as for any script: the console command has its own folder there
        try:
            found = getattr(importlib.import_module(module), name)
        except (Exception, SystemExit) as error:  # the module is the user's: it may fail in any way
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ModelError(f"cannot import model {model}: {reason}") from error
    else:
        try:
            found = get_model(model)
        except (ValueError, AttributeError, ModuleNotFoundError) as error:
            raise ModelError(
                f"RecBole has no model named {model!r}; give a sequential model of RecBole (SASRec, GRU4Rec, ...) or "
                "package.module:Class"
            ) from error
    if not sequential and isinstance(found, type) and issubclass(found, AbstractRecommender):
        return found
    if not (isinstance(found, type) and issubclass(found, SequentialRecommender)):
        raise ModelError(f"{model} is no sequential recommender; only those read sequences of events")
    return found


@contextlib.contextmanager
def seeded(seed):
    """Inside, Python's, NumPy's and PyTorch's generators start from ``seed``; afterwards they are as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            init_seed(seed, True)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = flags


def without_dropout(model):
    """Set the probability of every dropout layer of a model to 0, in place; returns the model."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            module.dropout = 0.0
    return model


class ModelFactory:
    """Makes models of one class and configuration, each from its own seed.

    Args:
        model_class: see :func:`resolve_model`.
        config: RecBole's Config.
        dataset: RecBole's dataset (the vocabulary and the features that the model asks it for).
    """

    def __init__(self, model_class, config, dataset):
        self.model_class = model_class
        self.config = config
        self.dataset = dataset
        if config["transform"] is not None:
            construct_transform(config)  # gives names to the fields that it adds, which models ask the config for

    def __call__(self, seed, dropout=True):
        """A fresh model on the configured device.

        Args:
            seed: of its initial weights.
            dropout: False takes the model's dropout layers out of action.

        Raises:
            ModelError: the model's own constructor fails with this configuration and dataset.
        """
        with seeded(seed), contextlib.redirect_stdout(io.StringIO()):  # some of RecBole's constructors print
            try:
                model = self.model_class(self.config, self.dataset)
            except (Exception, SystemExit) as error:  # whatever a model's own code raises; some of RecBole's call sys.exit
                raise ModelError(
                    f"{self.model_class.__name__} cannot be built with these options on this dataset: "
                    f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                ) from error
        model = model.to(self.config["device"])
        return model if dropout else without_dropout(model)
