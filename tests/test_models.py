"""Fresh models from seeds; nobody's random stream moves."""

import random

import numpy as np
import pytest
import torch
from recbole.model.sequential_recommender import SASRec
from torch import nn

from recbole_farzi.errors import ModelError
from recbole_farzi.models import ModelFactory, resolve_model, seeded, without_dropout


def streams():
    return random.random(), np.random.random(), torch.rand(1).item()


def everybodys_state():
    return random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2], torch.get_rng_state().tolist()


def test_a_name_a_path_and_a_class_are_the_same_model():
    for given in ("SASRec", "recbole.model.sequential_recommender:SASRec", SASRec):
        assert resolve_model(given) is SASRec


@pytest.mark.parametrize("given", [nn.Linear, 5, None, ["SASRec"], SASRec.forward], ids=["class", "number", "none", "list", "function"])
def test_what_is_no_sequential_model_is_refused(given):
    with pytest.raises(ModelError):
        resolve_model(given)


def test_a_seed_decides_what_is_drawn_inside():
    with seeded(5):
        first = streams()
    with seeded(5):
        assert streams() == first
    with seeded(6):
        assert streams() != first


@pytest.mark.parametrize("error", [None, ValueError])
def test_streams_outside_go_on_as_if_nothing_had_been(error):
    before = everybodys_state()
    flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    try:
        with seeded(5):
            streams()
            if error:
                raise error
    except ValueError:
        pass
    assert everybodys_state() == before
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == flags


@pytest.fixture
def factory(make_config, tiny_split):
    config, model_class = make_config("SASRec", hidden_dropout_prob=0.4, attn_dropout_prob=0.4)
    return ModelFactory(model_class, config, tiny_split.train.dataset)


def test_models_of_one_seed_are_equal_and_of_two_are_not(factory):
    one, same, other = (factory(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["item_embedding.weight"], other["item_embedding.weight"])


def test_making_a_model_moves_nobodys_stream(factory):
    before = everybodys_state()
    factory(1)
    assert everybodys_state() == before


def test_dropout_is_the_models_own_or_none(factory):
    def probabilities(model):
        return {module.p for module in model.modules() if isinstance(module, nn.Dropout)}

    assert probabilities(factory(1)) == {0.4}
    assert probabilities(factory(1, dropout=False)) == {0.0}
    weights, without = factory(1).state_dict(), factory(1, dropout=False).state_dict()
    assert all(torch.equal(weights[name], without[name]) for name in weights)


def test_no_dropout_is_left_in_any_kind_of_layer():
    model = nn.ModuleList(
        [nn.Dropout(0.5), nn.Dropout1d(0.5), nn.AlphaDropout(0.5), nn.GRU(4, 4, 2, dropout=0.5, batch_first=True),
         nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True),
         nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, batch_first=True)]
    ).train()  # fmt: skip
    assert without_dropout(model) is model
    x = torch.randn(2, 3, 4)
    calls = [model[0], model[1], model[2], lambda x: model[3](x)[0], lambda x: model[4](x, x, x)[0], model[5]]
    for call in calls:
        assert torch.equal(call(x), call(x))


def test_a_model_that_cannot_be_built_is_one_line(make_config, tiny_split):
    config, model_class = make_config("SASRec", n_heads=3)  # 8 units are not divisible by 3 heads
    with pytest.raises(ModelError) as caught:
        ModelFactory(model_class, config, tiny_split.train.dataset)(1)
    assert str(caught.value).startswith("SASRec cannot be built with these options on this dataset: ValueError: ")
    assert "\n" not in str(caught.value)


def test_a_failed_model_moves_nobodys_stream(make_config, tiny_split):
    config, model_class = make_config("SASRec", n_heads=3)
    before = everybodys_state()
    with pytest.raises(ModelError):
        ModelFactory(model_class, config, tiny_split.train.dataset)(1)
    assert everybodys_state() == before
