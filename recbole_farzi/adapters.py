"""Code of RecBole's that turns ids into something else than rows of a table, and how it reads virtual ids.

* The layers of feature-aware models (``ContextSeqEmbLayer``, ``FeatureSeqEmbLayer``: SASRecF, FDSA, GRU4RecF, DIN, DIEN)
  turn an id into the embeddings of that item's or user's features, each id by itself. That is a lookup: computed for all
  ids, it is a table, and a soft event's features are the expectation over it.
* FEARec contrasts a sequence with another one of the training data that has the same target, which it takes from the
  dataset that it keeps. A summary is all that a student has: the sequences are those of the batch.
"""

import contextlib
from types import SimpleNamespace

import numpy as np
import torch
from recbole.model.layers import ContextSeqEmbAbstractLayer

__all__ = ["feature_layers", "features_of_virtual_ids", "partners_from_the_batch"]


def feature_layers(model):
    """The layers of a model that look ids up in features."""
    return [module for module in model.modules() if isinstance(module, ContextSeqEmbAbstractLayer)]


@contextlib.contextmanager
def features_of_virtual_ids(model, items, users):
    """Inside, the feature layers of a model read virtual ids.

    Args:
        model: RecBole's model.
        items, users: :class:`recbole_farzi.soft_ids.SoftVocabulary`, or None where ids are real.
    """
    layers = feature_layers(model) if items is not None or users is not None else []
    try:
        for layer in layers:
            layer.forward = _soft_forward(layer, layer.forward, items, users)
        yield
    finally:
        for layer in layers:
            del layer.forward


def _soft_forward(layer, plain, items, users):
    vocabularies = {"user": users, "item": items}

    def forward(user_idx, item_idx):
        everything = {
            kind: torch.arange(len(getattr(layer, f"{kind}_feat")), device=item_idx.device)
            for kind in layer.types
        }
        tables = plain(everything.get("user"), everything["item"].unsqueeze(0))
        for table in tables:
            for kind, ids in (("user", user_idx), ("item", item_idx)):
                rows = table.get(kind)
                if rows is None:
                    continue
                rows = rows.squeeze(0) if kind == "item" else rows
                vocabulary = vocabularies[kind]
                table[kind] = (rows if vocabulary is None else vocabulary.extend(rows))[ids]
        return tables

    return forward


@contextlib.contextmanager
def partners_from_the_batch(model, interaction):
    """Inside, a model that draws sequences with the same target from its dataset (FEARec) draws them from the batch.

    Args:
        model: RecBole's model.
        interaction: the batch, RecBole's ``Interaction``.
    """
    kept = {name: vars(model)[name] for name in ("same_item_index", "dataset") if name in vars(model)}
    if len(kept) < 2:
        yield
        return
    rows = {}
    for row, target in enumerate(interaction[model.POS_ITEM_ID].tolist()):
        rows.setdefault(target, []).append(row)
    events = {name: interaction[name].cpu() for name in (model.ITEM_SEQ, model.ITEM_SEQ_LEN)}
    try:
        model.same_item_index = {target: np.array(numbers) for target, numbers in rows.items()}
        model.dataset = SimpleNamespace(inter_feat=events)
        yield
    finally:
        for name, value in kept.items():
            setattr(model, name, value)
