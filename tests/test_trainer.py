"""FarziTrainer: a RecBole trainer that distils."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.trainer import Trainer

import recbole_farzi
from recbole_farzi.data import load_split
from recbole_farzi.distillation import Distiller
from recbole_farzi.errors import DivergenceError, OptionError, StorageError
from recbole_farzi.trainer import FarziTrainer
from recbole_farzi.training import RowTrainer


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.tensors, other.tensors))


def test_it_is_a_recbole_trainer(make_trainer):
    assert isinstance(make_trainer(), Trainer)
    assert recbole_farzi.FarziTrainer is FarziTrainer


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec", "STAMP"])
@pytest.mark.parametrize("start", ["teacher", "spectral", "random"])
def test_fit_and_evaluate(make_trainer, tiny_split, model, start):
    trainer = make_trainer(model, farzi_start=start)
    seen = []
    score, result = trainer.fit(tiny_split.train, tiny_split.valid, callback_fn=lambda step, value: seen.append((step, value)))
    assert [step for step, _ in seen] == [0, 2, 4]
    assert score == min(value for _, value in seen) == result["crossentropy"]
    assert trainer.summary.latent.shape == (4, 11, 3)
    assert trainer.summary.decoder.shape == (3, tiny_split.vocabulary)
    assert len(trainer.history["losses"]) == 4
    test = trainer.evaluate(tiny_split.test)
    assert set(test) == {"hit@5", "hit@10", "ndcg@5", "ndcg@10", "crossentropy"}


def test_the_best_summary_on_validation_is_kept(make_trainer, tiny_split):
    trainer = make_trainer(farzi_outer_steps=6, farzi_outer_learning_rate=30.0, farzi_stopping_step=10)
    trainer.fit(tiny_split.train, tiny_split.valid)
    by_step = {v["step"]: v["metrics"]["crossentropy"] for v in trainer.history["validations"]}
    best = trainer.history["best_step"]
    assert by_step[best] == min(by_step.values())
    assert by_step[6] > by_step[best]  # so large a learning rate does harm, else this test shows nothing
    trainer.train_student(trainer.summary, trainer._student_seed(0))
    again = Trainer.evaluate(trainer, tiny_split.valid, load_best_model=False)["crossentropy"]
    assert again == pytest.approx(by_step[best])


@pytest.mark.parametrize("inputs", ["generated", "real"])
def test_covering_draws_show_more_of_the_items_and_leave_the_others_as_they_are(make_trainer, tiny_split, inputs):
    def histories(draws, covering):
        trainer = make_trainer(farzi_start_draws=draws, farzi_start_covering=covering, farzi_inputs=inputs, farzi_sequences=2, farzi_outer_steps=0)
        trainer.fit(tiny_split.train)
        found = [trainer._make_start(tiny_split.sequences, tiny_split.counts, draw).inputs for draw in range(draws + covering)]
        return found, [tiny_split.counts[np.unique(windows[:, :-1])].sum() for windows in found]

    plain, of_plain = histories(3, 0)
    both, of_both = histories(3, 3)
    assert all(map(torch.equal, plain, both)) and of_plain == of_both[:3]
    assert min(of_both[3:]) > max(of_plain)
    assert not torch.equal(both[3], both[4])


def test_a_start_whose_score_is_no_number_is_not_the_best(make_trainer, tiny_split, monkeypatch):
    trainer = make_trainer(farzi_start_draws=2, farzi_eval_students=1, farzi_outer_steps=0)
    trainer.fit(tiny_split.train)
    original, scores = RowTrainer.evaluate, iter([float("nan"), 5.0])
    monkeypatch.setattr(RowTrainer, "evaluate", lambda self, *a, **k: {**original(self, *a, **k), "crossentropy": next(scores)})
    start = trainer._choose_start(tiny_split.sequences, tiny_split.counts, tiny_split.valid, None)
    assert equal(start, trainer._make_start(tiny_split.sequences, tiny_split.counts, 1))


def test_starts_are_fitted_to_single_items_too(make_trainer, tiny_split):
    starts = []
    for singles in (0, None):
        trainer = make_trainer(farzi_start_singles=singles, farzi_outer_steps=0)
        trainer.fit(tiny_split.train, tiny_split.valid)
        starts.append(trainer._make_start(tiny_split.sequences, tiny_split.counts, 0))
    assert torch.equal(starts[0].inputs, starts[1].inputs) and not torch.equal(starts[0].decoder, starts[1].decoder)


@pytest.mark.parametrize("metric", ["CrossEntropy", "NDCG@10"])  # one that falls as it gets better, one that rises
def test_the_best_start_on_validation_is_taken_and_remembered(make_trainer, tiny_split, monkeypatch, metric):
    options = {"farzi_start_draws": 2, "farzi_start_covering": 2, "valid_metric": metric, "farzi_outer_steps": 0}
    trainer = make_trainer(**options)
    scores, original = [], FarziTrainer._score

    def score(self, summary, valid_data):
        found = original(self, summary, valid_data)
        scores.append((found[1], summary))
        return found

    monkeypatch.setattr(FarziTrainer, "_score", score)
    trainer.fit(tiny_split.train, tiny_split.valid)
    assert len(scores) == 5  # four draws, and the validation of the one that was taken
    assert len({value for value, _ in scores[:4]}) > 1
    best = max(scores[:4], key=lambda entry: entry[0] * (1 if metric == "NDCG@10" else -1))
    assert equal(trainer.start, best[1])
    again = make_trainer(**options, farzi_seeds=1)  # an option that the start does not depend on
    again.fit(tiny_split.train, tiny_split.valid)
    assert len(scores) == 5 and equal(again.start, trainer.start)
    (choice,) = Path(again.config["checkpoint_dir"]).glob("farzi/start-*.json")
    known = json.loads(choice.read_text())
    other = (known["draw"] + 1) % 4
    items = np.array(known["histories"])
    wrong = [items[1:], items * 0, items + 10**6, items * 1.0, items > 0]
    broken = [{"histories": value} for value in ("x", None, [[1], [2, 3]], [[10**30]], *(value.tolist() for value in wrong))]
    other_choices = ({"draw": other}, {"draw": "x"}, {"draw": -1}, {"scores": known["scores"][:2]}, {"scores": "x"}, {"scores": []},
                     {"latent_dim": 4}, {"latent_dim": "x"})  # fmt: skip
    for changed in (*other_choices, *broken):
        choice.write_text(json.dumps({**known, **changed}))  # what is not as it was written is found out again
        again = make_trainer(**options)
        again.fit(tiny_split.train, tiny_split.valid)
        assert equal(again.start, trainer.start) and json.loads(choice.read_text()) == known


@pytest.mark.parametrize("most_lost, rank", [(100.0, 16), (-1.0, 32)])
def test_the_rank_of_the_start_is_what_its_teacher_takes(make_trainer, tiny_split, monkeypatch, most_lost, rank):
    monkeypatch.setattr("recbole_farzi.starts.MOST_LOST", most_lost)
    options = {"farzi_latent_dim": None, "farzi_start_draws": 2, "farzi_outer_steps": 1}
    trainer = make_trainer(**options)
    trainer.fit(tiny_split.train, tiny_split.valid)
    assert trainer.start.latent.shape[2] == trainer.summary.latent.shape[2] == trainer.summary.decoder.shape[0] == rank
    (choice,) = Path(trainer.config["checkpoint_dir"]).glob("farzi/start-*.json")
    known = json.loads(choice.read_text())
    assert known["latent_dim"] == rank
    monkeypatch.setattr("recbole_farzi.starts.MOST_LOST", 99.0 - most_lost)  # a run that goes on has the rank it began with
    again = make_trainer(**options)
    again.fit(tiny_split.train, tiny_split.valid)
    assert equal(again.start, trainer.start)


def test_early_stopping(make_trainer, tiny_split):
    trainer = make_trainer(farzi_outer_steps=40, farzi_outer_learning_rate=30.0, farzi_stopping_step=2)
    trainer.fit(tiny_split.train, tiny_split.valid)
    assert trainer.history["stopped_early"]
    assert trainer.history["outer_steps"] < 40


def test_the_same_seed_gives_the_same_summary(make_trainer, tiny_split):
    one, other = make_trainer(), make_trainer()
    one.fit(tiny_split.train, tiny_split.valid, saved=False)
    torch.manual_seed(123)
    other.fit(tiny_split.train, tiny_split.valid, saved=False)
    assert equal(one.summary, other.summary)
    third = make_trainer(seed=7)
    third.fit(tiny_split.train, tiny_split.valid, saved=False)
    assert not equal(one.summary, third.summary)


@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_run_goes_on_to_the_same_summary(make_trainer, tiny_split, monkeypatch, after):
    steps = {"farzi_outer_steps": 6}  # two are left for the second time, wherever the first saved last
    whole = make_trainer(**steps)
    whole.fit(tiny_split.train, tiny_split.valid, saved=False)

    class Stop(Exception):
        pass

    def interrupted(error, after):
        original, done = Distiller.step, []

        def step(self):
            if len(done) == after:
                raise error
            done.append(1)
            return original(self)

        with monkeypatch.context() as patch:
            patch.setattr(Distiller, "step", step)
            with pytest.raises(error):
                make_trainer(**steps).fit(tiny_split.train, tiny_split.valid)

    interrupted(Stop, after)  # as a kill: nothing is saved at that moment
    interrupted(KeyboardInterrupt, 1)
    resumed = make_trainer(**steps)
    resumed.fit(tiny_split.train, tiny_split.valid)
    assert equal(whole.summary, resumed.summary)
    assert resumed.history["losses"] == whole.history["losses"]
    assert resumed.history["validations"] == whole.history["validations"]


def test_a_finished_run_is_not_repeated(make_trainer, tiny_split, monkeypatch):
    first = make_trainer()
    expected = first.fit(tiny_split.train, tiny_split.valid)
    monkeypatch.setattr(Distiller, "step", lambda self: pytest.fail("distilled again"))
    second = make_trainer()
    assert second.fit(tiny_split.train, tiny_split.valid) == expected
    assert equal(first.summary, second.summary)


def test_fresh_forgets_a_finished_run(make_trainer, tiny_split):
    make_trainer().fit(tiny_split.train, tiny_split.valid)
    again = make_trainer(farzi_fresh=True)
    again.fit(tiny_split.train, tiny_split.valid)
    assert not again.pool.reused


def test_a_damaged_checkpoint_is_one_clear_line(make_trainer, tiny_split):
    first = make_trainer()
    first.fit(tiny_split.train, tiny_split.valid)
    with open(first.saved_model_file, "wb") as file:
        file.write(b"no checkpoint")
    with pytest.raises(StorageError, match="remove it") as caught:
        make_trainer().fit(tiny_split.train, tiny_split.valid)
    assert "\n" not in str(caught.value)


def test_without_validation_the_last_summary_counts(make_trainer, tiny_split):
    trainer = make_trainer(epochs=1)
    assert trainer.fit(tiny_split.train) == (-1, None)
    assert trainer.history["best_step"] == trainer.history["outer_steps"] == 4


def test_pretrained_trajectories_begin_from_the_pool(make_trainer, tiny_split):
    trainer = make_trainer(farzi_pretrained=1.0)
    trainer.fit(tiny_split.train, tiny_split.valid)
    begun = trainer._initial_parameters(5)
    assert all(torch.equal(begun[name], value) for name, value in trainer.pool.snapshots[0].items())
    fresh = make_trainer(farzi_pretrained=0.0)
    fresh.fit(tiny_split.train, tiny_split.valid)
    assert not torch.equal(fresh._initial_parameters(5)["item_embedding.weight"], begun["item_embedding.weight"])


def test_evaluate_before_fit_is_refused(make_trainer, tiny_split):
    with pytest.raises(OptionError, match="call fit before evaluate"):
        make_trainer().evaluate(tiny_split.test)


def test_a_summary_on_which_students_diverge_is_not_kept(make_trainer, tiny_split, monkeypatch):
    trainer = make_trainer(farzi_start_draws=1)
    original, calls = FarziTrainer.train_student, []

    def train_student(self, summary, seed):
        calls.append(seed)
        if len(calls) == 2:
            raise DivergenceError("not finite")
        original(self, summary, seed)

    monkeypatch.setattr(FarziTrainer, "train_student", train_student)
    trainer.fit(tiny_split.train, tiny_split.valid)
    assert len(calls) == 3
    assert trainer.history["best_step"] != 2
    assert trainer.history["validations"][1] == {"step": 2, "metrics": {}}


@pytest.mark.parametrize("at", ["_validate", "_begin"])
def test_interrupted_within_a_step_or_a_validation(make_trainer, tiny_split, monkeypatch, at):
    """Ctrl-C between the update and its bookkeeping, and in a validation: the resumed run equals a whole one."""
    whole = make_trainer(farzi_window=6)
    whole.fit(tiny_split.train, tiny_split.valid, saved=False)
    place = FarziTrainer if at == "_validate" else Distiller
    original, calls = getattr(place, at), []

    def interrupted(self, *args, **kwargs):
        calls.append(at)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(place, at, interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_trainer(farzi_window=6).fit(tiny_split.train, tiny_split.valid)
    resumed = make_trainer(farzi_window=6)
    resumed.fit(tiny_split.train, tiny_split.valid)
    assert resumed.history["losses"] == whole.history["losses"]
    assert resumed.history["validations"] == whole.history["validations"]
    assert equal(whole.summary, resumed.summary)


def test_a_run_without_finite_gradients_ends_with_the_best_so_far(make_trainer, tiny_split, monkeypatch):
    original = Distiller.step

    def step(self):
        if self.steps_done == 3:
            raise DivergenceError("no finite meta-gradient")
        return original(self)

    monkeypatch.setattr(Distiller, "step", step)
    trainer = make_trainer()
    trainer.fit(tiny_split.train, tiny_split.valid)
    assert trainer.history["outer_steps"] == 3
    assert trainer.history["best_step"] in (0, 2)
    assert trainer.summary is not None


def test_pretrained_without_a_snapshot_is_one_clear_line(make_trainer, tiny_split):
    with pytest.raises(OptionError, match="farzi_pool_snapshots"):
        make_trainer(farzi_pretrained=1.0, farzi_pool_snapshots=[50])


def test_trajectories_are_matched_within_each_expert_of_the_pool(make_trainer, tiny_split):
    options = {"farzi_objective": "trajectory", "farzi_pool_models": 2, "farzi_pool_snapshots": [0, 1, 2], "farzi_outer_steps": 2}
    trainer = make_trainer(**options)
    trainer.fit(tiny_split.train, tiny_split.valid)
    experts = trainer._experts()
    assert [len(expert) for expert in experts] == [3, 3]
    for expert, snapshots in zip(experts, trainer.pool.experts):
        for one, snapshot in zip(expert, snapshots):
            assert all(torch.equal(value, snapshot[name]) for name, value in one.items())
    assert len(trainer.history["losses"]) == 2 and all(loss > 0 for loss in trainer.history["losses"])


@pytest.mark.parametrize(
    "options", [{"farzi_objective": "gradient"}, {"farzi_factorisation": "tucker", "farzi_tucker_ranks": [2, 3]}], ids=str
)
def test_another_objective_is_another_run_with_the_same_shapes(make_trainer, tiny_split, options):
    plain, other = make_trainer(), make_trainer(**options)
    for trainer in (plain, other):
        trainer.fit(tiny_split.train, tiny_split.valid)
    assert plain.identity.fingerprint != other.identity.fingerprint
    assert other.pool.reused  # models of the pool do not depend on it
    assert [t.shape for t in other.summary.tensors] == [t.shape for t in plain.summary.tensors]
    if "farzi_tucker_ranks" in options:  # the start is what the factors can be, so that step 0 is the start
        assert torch.linalg.matrix_rank(other.start.latent.double().flatten(1), rtol=1e-2) <= 2


def test_blocks_of_items_are_not_compiled(make_trainer, tiny_split, monkeypatch):
    monkeypatch.setattr("recbole_farzi.inspection.WHOLE_EVENTS", 0)
    with pytest.raises(OptionError, match="farzi_kernels=compiled.*blocks"):
        make_trainer(farzi_kernels="compiled").fit(tiny_split.train, tiny_split.valid, saved=False)


@pytest.mark.parametrize("given", [{"farzi_inputs": "generated"}, {"farzi_outer_generated": 1.0}])
def test_a_model_that_scores_one_item_at_a_time_writes_nothing(make_trainer, given):
    rest = {"farzi_inputs": "real", "farzi_outer_generated": 0.0}
    with pytest.raises(OptionError, match="DIN scores one item at a time .* farzi_inputs=real, farzi_outer_generated=0, .* farzi_start=spectral"):
        make_trainer("DIN", **{**rest, **given}, mlp_hidden_size=[8, 8], embedding_size=4)


def test_a_teacher_writes_what_it_does_not_judge(make_trainer, tiny_split):
    """Without a share of the targets it is still the one that writes what the outer loss reads."""
    trainer = make_trainer(farzi_outer_teacher=0.0, farzi_outer_generated=1.0, farzi_outer_steps=2, farzi_eval_step=2)
    trainer.fit(tiny_split.train, tiny_split.valid)
    assert trainer.history["outer_steps"] == 2 and trainer.written > 0 and trainer.writing_seconds > 0


@pytest.mark.parametrize("options", [{}, {"farzi_start_covering": 1}, {"farzi_inputs": "real"}, {"farzi_start": "random"}], ids=str)
def test_what_is_written_is_what_the_options_say(make_trainer, tiny_split, options):
    trainer = make_trainer(farzi_outer_steps=2, farzi_eval_step=2, **options)
    trainer.fit(tiny_split.train, tiny_split.valid)
    assert trainer.written == trainer.options.outer.written + trainer.options.summary.written > 0


@pytest.mark.parametrize(
    ("metric", "steps", "rate", "expected"),
    [
        ("CrossEntropy", 20, 3.0, "Summary"),  # flung far from any sense
        ("NDCG@10", 20, 1e-8, "Summary"),  # as it was born
        ("CrossEntropy", 100, 0.02, None),
        ("NDCG@10", 100, 0.02, None),
    ],
)
def test_students_no_better_than_popularity_are_said(make_trainer, tiny_split, caplog, steps, rate, expected, metric):
    inner = {"farzi_inner_steps": steps, "farzi_inner_learning_rate": rate, "farzi_inner_batch_size": 4}
    trainer = make_trainer(epochs=40, learning_rate=0.01, train_batch_size=8, valid_metric=metric, farzi_latent_dim=8, **inner)
    trainer.fit(tiny_split.train, tiny_split.valid)
    assert said_of_popularity(caplog) == ([] if expected is None else [expected])


@pytest.mark.parametrize("metric", ["CrossEntropy", "NDCG@10"])
def test_a_pool_no_better_than_popularity_is_said_once(make_config, write_inter, caplog, metric):
    events = [(f"u{user}", f"i{item}", time) for user in range(30) for time, item in enumerate([0, 1, 0, 2, 0, 1, 3 + user, 0, 1, 0, 0])]
    config, model = make_config(data_path=str(write_inter(events)), valid_metric=metric, epochs=1, learning_rate=1e-6, topk=[10])
    split = load_split(config)
    trainer = FarziTrainer(config, model(config, split.train.dataset))
    trainer.fit(split.train, split.valid)
    assert said_of_popularity(caplog) == ["Pool"]


def said_of_popularity(caplog):
    return [message.split(":")[0] for message in caplog.messages if "popularity" in message]
