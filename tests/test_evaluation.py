"""A model on test, whole and by strata: partitions, RecBole's own numbers, and rows that add up to them."""

import numpy as np
import pytest
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.trainer import Trainer
from recbole.utils import InputType

from recbole_farzi.baselines import Popularity
from recbole_farzi.data import load_loaders, load_split
from recbole_farzi.evaluation import evaluate_by_strata, training_counts
from recbole_farzi.metrics import RowMetrics, evaluate_rows
from recbole_farzi.models import ModelFactory
from recbole_farzi.training import RowTrainer

EVERY = ["Hit", "NDCG", "MRR", "MAP", "Recall", "Precision", "GAUC", "ItemCoverage", "AveragePopularity", "ShannonEntropy",
         "GiniIndex", "TailPercentage", "CrossEntropy"]  # fmt: skip
OF_LISTS = ("gauc", "itemcoverage", "shannonentropy", "giniindex")


class Fixed(GeneralRecommender):
    """Scores of each user and item that are drawn once."""

    input_type = InputType.POINTWISE

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        draw = torch.Generator().manual_seed(1)
        self.table = torch.nn.Parameter(torch.randn(self.n_users, self.n_items, generator=draw))

    def full_sort_predict(self, interaction):
        return self.table[interaction[self.USER_ID]].view(-1)


@pytest.fixture(params=["leave-one-out", "several targets a user"])
def evaluated(request, make_config):
    """``(config, trainer, train loader, test loader, Evaluation)``."""
    if request.param == "leave-one-out":
        config, model_class = make_config(metrics=EVERY, valid_metric="Hit@5", metric_decimal_place=10)
        split = load_split(config)
        train, test = split.train, split.test
        model = ModelFactory(model_class, config, train.dataset)(3)
    else:
        config, train, test = general(make_config, metrics=EVERY)
        model = Fixed(config, train.dataset)
    trainer = RowTrainer(config, model)
    counts = training_counts(train.dataset)
    return config, trainer, train, test, evaluate_by_strata(trainer, train, test, counts, 2, 2)


def general(make_config, **overrides):
    """A general recommender's loaders: 40% of each user's events at random in test."""
    from recbole.config import Config

    settings = dict(make_config(metric_decimal_place=10, valid_metric="Hit@5", **overrides)[0].final_config_dict)
    keep = ("metrics", "topk", "metric_decimal_place", "load_col", "eval_batch_size", "show_progress", "use_gpu", "state")
    given = {name: settings[name] for name in keep}
    given["data_path"] = str(settings["data_path"]).rpartition("/")[0]
    given["eval_args"] = {"split": {"RS": [0.4, 0.2, 0.4]}, "group_by": "user", "order": "RO", "mode": "full"}
    given["valid_metric"] = "Hit@5"
    config = Config("BPR", "tiny", None, {name: repr(v) if isinstance(v, str) else v for name, v in given.items()})
    train, _, test = load_loaders(config)
    return config, train, test


def test_the_whole_is_what_recboles_trainer_says_to_the_last_digit(evaluated, make_config):
    config, trainer, train, test, evaluation = evaluated
    plain_config = config
    plain_config["metrics"] = EVERY[:-1]
    plain = Trainer(plain_config, trainer.model)
    plain.eval_collector.data_collect(train)
    plain.eval_collector.get_data_struct = _of_numbers(plain.eval_collector)
    expected = plain.evaluate(test, load_best_model=False)
    assert {name: evaluation.metrics[name] for name in expected} == {name: float(value) for name, value in expected.items()}


def _of_numbers(collector):
    """RecBole's ``get_data_struct`` fails on numbers of items; this is it without that line."""
    import copy

    def get_data_struct():
        found = copy.deepcopy(collector.data_struct)
        for key in ["rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label"]:
            if key in collector.data_struct:
                del collector.data_struct[key]
        return found

    return get_data_struct


def test_strata_are_partitions(evaluated):
    _, _, _, test, evaluation = evaluated
    assert set(evaluation.strata) == set(evaluation.described) == {"users", "items", "tail", "grid"}
    total = sum(part["rows"] for part in evaluation.described["users"])
    for kind, parts in evaluation.described.items():
        assert sum(part["rows"] for part in parts) == total
        numbers = evaluation.arrays[f"{kind}/stratum"]
        assert set(numbers.tolist()) == set(range(len(parts)))
    users = evaluation.described["users"]
    assert sum(part["users"] for part in users) == len(np.unique(evaluation.arrays["all/users"]))


def test_rows_average_to_the_metrics_of_the_whole_and_of_every_stratum(evaluated):
    _, _, _, _, evaluation = evaluated
    assert {name.partition("@")[0] for name in evaluation.row_metrics}.isdisjoint(OF_LISTS)
    assert len(evaluation.row_metrics) == 2 * 8 + 1
    for number, name in enumerate(evaluation.row_metrics):
        everything = evaluation.arrays["all/values"][number]
        assert everything.mean() == pytest.approx(evaluation.metrics[name], abs=1e-9)
        for kind, parts in evaluation.strata.items():
            values = evaluation.arrays.get(f"{kind}/values", evaluation.arrays["all/values"])[number]
            for position, metrics in enumerate(parts):
                own = values[evaluation.arrays[f"{kind}/stratum"] == position]
                assert own.mean() == pytest.approx(metrics[name], abs=1e-9), (kind, position, name)


def test_the_whole_is_the_weighted_mean_of_the_strata(evaluated):
    """Weighted by rows, for metrics that are means over rows; strata of users never part a user's targets."""
    _, _, _, _, evaluation = evaluated
    numbers = evaluation.arrays["users/stratum"]
    for name in evaluation.row_metrics:
        if name == "crossentropy" and "items/values" in evaluation.arrays:
            weights = np.array([part["rows"] for part in evaluation.described["users"]])  # a mean over targets
        else:
            weights = np.bincount(numbers)
        parts = [metrics[name] for metrics in evaluation.strata["users"]]
        assert np.average(parts, weights=weights) == pytest.approx(evaluation.metrics[name], abs=1e-8)


def test_the_short_way_to_a_stratum_is_recboles_way(make_config, tiny_split):
    config, model_class = make_config(metrics=EVERY, valid_metric="Hit@5", metric_decimal_place=12)
    trainer = RowTrainer(config, Popularity(tiny_split.counts))
    trainer.eval_collector.data_collect(tiny_split.train)
    trainer.evaluate(tiny_split.test)
    of_rows = RowMetrics(config, trainer.rows)
    for seed in range(5):
        keep = torch.from_numpy(np.random.default_rng(seed).random(40) < 0.3)
        assert of_rows.evaluate(keep) == evaluate_rows(config, trainer.rows, keep)


def test_of_several_targets_those_of_the_stratum_count(make_config):
    """Recall and hits by hand, for general recommenders whose users have several held-out items each."""
    config, train, test = general(make_config, metrics=["Recall", "Hit"])
    model = Fixed(config, train.dataset)
    trainer = RowTrainer(config, model)
    evaluation = evaluate_by_strata(trainer, train, test, training_counts(train.dataset), 1, (8,))
    train_rows, test_rows = train.dataset.inter_feat, test.dataset.inter_feat
    occurrences = np.bincount(train_rows["item_id"].numpy(), minlength=train.dataset.item_num)
    used = {u: set() for u in range(train.dataset.user_num)}
    for u, i in zip(train_rows["user_id"].tolist(), train_rows["item_id"].tolist()):
        used[u].add(i)
    seen_later = test.uid2history_item
    targets = {}
    for u, i in zip(test_rows["user_id"].tolist(), test_rows["item_id"].tolist()):
        targets.setdefault(u, set()).add(i)
    for position, part in enumerate(evaluation.described["items"]):
        low = {"1-7 occurrences": 1, "8 and more occurrences": 8}.get(part["label"], 0)
        recalls = []
        for u, items in targets.items():
            own = {i for i in items if (occurrences[i] >= 8) == (low == 8) and (occurrences[i] > 0) == (low > 0)}
            if not own:
                continue
            scores = model.table[u].detach().clone()
            scores[0] = -torch.inf
            scores[seen_later[u]] = -torch.inf
            recalls.append(len(own & set(scores.topk(5).indices.tolist())) / len(own))
        assert evaluation.strata["items"][position]["recall@5"] == pytest.approx(np.mean(recalls), abs=1e-9)


def test_training_events_are_counted_once(make_config, tiny_split):
    counts = training_counts(tiny_split.train.dataset)
    assert counts.events == tiny_split.sequences.events == sum(counts.events_of.values())
    assert (counts.occurrences == tiny_split.counts).all()
    _, train, _ = general(make_config)
    of_general = training_counts(train.dataset)
    assert of_general.events == len(train.dataset.inter_feat) == sum(of_general.events_of.values())
