"""Cross-entropy as a RecBole metric, and RecBole's metrics on any rows."""

import numpy as np
import pytest
import torch
from recbole.evaluator import Evaluator
from recbole.evaluator import register as registry
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.trainer import Trainer

from recbole_farzi.baselines import Popularity
from recbole_farzi.metrics import evaluate_rows, register_metrics
from recbole_farzi.training import RowTrainer

RANKING = ["Hit", "NDCG", "MRR", "Recall", "Precision", "MAP", "CrossEntropy"]


class Table(SequentialRecommender):
    """Scores that depend on the last event alone, all known."""

    def __init__(self, config, dataset, scale=1.0):
        super().__init__(config, dataset)
        generator = torch.Generator().manual_seed(3)
        self.table = torch.nn.Parameter(scale * torch.randn(self.n_items, self.n_items, generator=generator))

    def full_sort_predict(self, interaction):
        last = interaction[self.ITEM_SEQ].gather(1, (interaction[self.ITEM_SEQ_LEN] - 1).unsqueeze(1)).squeeze(1)
        return self.table[last]


@pytest.fixture
def evaluated(make_config, tiny_split):
    """``(config, trainer, result on test)``; batches of 7 rows, so that several and a partial one are collected."""
    config, _ = make_config(metrics=RANKING, eval_batch_size=7, metric_decimal_place=10)
    trainer = RowTrainer(config, Table(config, tiny_split.train.dataset))
    trainer.eval_collector.data_collect(tiny_split.train)
    return config, trainer, trainer.evaluate(tiny_split.test)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_cross_entropy_is_that_of_the_softmax_without_padding(make_config, tiny_split, scale):
    config, _ = make_config(metrics=["CrossEntropy"], eval_batch_size=7)
    model = Table(config, tiny_split.train.dataset, scale)
    value = RowTrainer(config, model).evaluate(tiny_split.test)["crossentropy"]
    rows = tiny_split.test.dataset.inter_feat
    scores = model.full_sort_predict(rows).detach().double()[:, 1:]
    expected = torch.nn.functional.cross_entropy(scores, rows["item_id"] - 1).item()
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_padding_has_no_part_in_it(make_config, tiny_split):
    config, _ = make_config(metrics=["CrossEntropy"])
    model = Table(config, tiny_split.train.dataset)
    before = RowTrainer(config, model).evaluate(tiny_split.test)["crossentropy"]
    with torch.no_grad():
        model.table[:, 0] = 1e6
    assert RowTrainer(config, model).evaluate(tiny_split.test)["crossentropy"] == before


def test_less_is_better_for_recbole(make_config):
    config, _ = make_config(valid_metric="CrossEntropy")
    assert config["valid_metric_bigger"] is False
    assert make_config(valid_metric="Hit@5")[0]["valid_metric_bigger"] is True


def test_recboles_early_stopping_keeps_the_lowest(make_config, tiny_split):
    """RecBole's own loop, with validations of which the second is best."""
    config, _ = make_config(valid_metric="CrossEntropy", epochs=10, stopping_step=2)
    model = Table(config, tiny_split.train.dataset)
    trainer = RowTrainer(config, model)
    values = iter([3.0, 2.0, 2.5, 4.0, 2.2, 1.0])
    trainer._train_epoch = lambda *args, **kwargs: 0.0
    trainer._valid_epoch = lambda *args, **kwargs: (value := next(values), {"crossentropy": value})
    best, result = trainer.fit(tiny_split.train, tiny_split.valid, verbose=False)
    assert (best, result) == (2.0, {"crossentropy": 2.0})
    assert next(values) == 1.0  # stopped after three validations without progress


def test_registering_twice_is_registering_once():
    register_metrics()
    metrics, smaller = dict(registry.metrics_dict), list(registry.smaller_metrics)
    register_metrics()
    assert registry.metrics_dict == metrics and registry.smaller_metrics == smaller
    assert smaller.count("crossentropy") == 1


def test_recboles_trainer_gives_the_same_ranking_metrics(evaluated, make_config, tiny_split):
    config, trainer, result = evaluated
    plain_config, _ = make_config(metrics=RANKING[:-1], valid_metric="NDCG@5", metric_decimal_place=10)
    plain = Trainer(plain_config, trainer.model)
    plain.eval_collector.data_collect(tiny_split.train)
    expected = plain.evaluate(tiny_split.test, load_best_model=False)
    assert {key: result[key] for key in expected} == dict(expected)


def test_all_rows_give_what_the_trainer_gives(evaluated):
    config, trainer, result = evaluated
    assert evaluate_rows(config, trainer.rows, torch.ones(40, dtype=torch.bool)) == dict(result)


@pytest.mark.parametrize("parts", [2, 5, 40])
def test_means_over_parts_add_up_to_the_whole(evaluated, parts):
    config, trainer, result = evaluated
    part = torch.from_numpy(np.random.default_rng(parts).permutation(40) % parts)
    total = dict.fromkeys(result, 0.0)
    for number in range(parts):
        keep = part == number
        for key, value in evaluate_rows(config, trainer.rows, keep).items():
            total[key] += value * int(keep.sum()) / 40
    assert total == pytest.approx(dict(result), abs=1e-8)


def test_rows_know_their_user_and_their_target(evaluated, tiny_split):
    _, trainer, _ = evaluated
    rows = tiny_split.test.dataset.inter_feat
    found = dict(zip(trainer.rows.get("rec.user").tolist(), trainer.rows.get("rec.target").tolist()))
    assert found == dict(zip(rows["user_id"].tolist(), rows["item_id"].tolist()))


def test_evaluating_rows_leaves_them_as_they_are(evaluated):
    config, trainer, result = evaluated
    evaluate_rows(config, trainer.rows, torch.arange(40) < 3)
    assert len(trainer.rows.get("rec.user")) == 40
    assert Evaluator(config).evaluate(trainer.rows) == result


def test_a_second_evaluation_begins_anew(evaluated, tiny_split):
    _, trainer, result = evaluated
    assert trainer.evaluate(tiny_split.test) == result
    assert len(trainer.rows.get("rec.user")) == 40


def test_metrics_that_need_the_training_data_work_on_rows(make_config, tiny_split):
    """RecBole's coverage and popularity metrics read item counts beside the rows."""
    config, _ = make_config(metrics=["ItemCoverage", "AveragePopularity", "GiniIndex", "TailPercentage", "CrossEntropy"])
    trainer = RowTrainer(config, Popularity(tiny_split.counts))
    trainer.eval_collector.data_collect(tiny_split.train)
    result = trainer.evaluate(tiny_split.test)
    assert evaluate_rows(config, trainer.rows, torch.ones(40, dtype=torch.bool)) == dict(result)
    some = evaluate_rows(config, trainer.rows, torch.arange(40) < 2)
    assert set(some) == set(result) and some["itemcoverage@5"] <= result["itemcoverage@5"]
