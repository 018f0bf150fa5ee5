"""Numbers that go bad: skipped, counted, something reduced by the rule, and in the end a diagnosis with the best summary kept."""

import copy
import math

import pytest
import torch

from recbole_farzi.distillation import Distiller
from recbole_farzi.errors import DivergenceError
from recbole_farzi.models import ModelFactory, without_dropout
from recbole_farzi.options import read_options
from recbole_farzi.recovery import HALVINGS, PATIENCE, Recovery
from recbole_farzi.starts import random_start
from recbole_farzi.storage import load_tensors, save_tensors
from recbole_farzi.student import Student
from recbole_farzi.trainer import FarziTrainer

# --- the rule ---------------------------------------------------------------------------------------------------------


def test_a_bad_step_now_and_then_reduces_nothing():
    recovery = Recovery(0.01, 40)
    for step in range(0, 40, 2):
        assert recovery.bad(step, "x", training=True) is None
        recovery.good()
    assert (recovery.learning_rate, recovery.window, recovery.skipped) == (0.01, 40, 20)


def test_bad_training_reduces_the_learning_rate_and_bad_gradients_the_window():
    recovery = Recovery(0.01, 40)
    lines = [recovery.bad(step, "a loss that is not finite", training=True) for step in range(PATIENCE)]
    assert lines[:-1] == [None] * (PATIENCE - 1)
    assert lines[-1] == (
        f"outer step {PATIENCE}: a loss that is not finite, {PATIENCE} times in a row; farzi_inner_learning_rate is reduced to 0.005"
    )
    for step in range(PATIENCE):
        recovery.bad(step, "y", training=False)
    assert (recovery.learning_rate, recovery.window) == (0.005, 20)


def test_it_ends_whatever_is_bad():
    for training in (True, False):
        recovery, steps = Recovery(0.01, 40), 0
        with pytest.raises(DivergenceError, match="not finite") as caught:
            while steps < 1000:
                recovery.bad(steps, "z", training)
                steps += 1
        halvings_of_40 = 0 if training else math.ceil(math.log2(40))
        assert steps + 1 == PATIENCE * (HALVINGS + halvings_of_40 + 1) == recovery.skipped
        assert recovery.learning_rate == 0.01 / 2**HALVINGS
        assert "farzi_inner_learning_rate was reduced to 0.000625" in str(caught.value) and "\n" not in str(caught.value)


def test_its_state_goes_through_a_checkpoint(tmp_path):
    recovery = Recovery(0.01, 40)
    for step in range(PATIENCE + 1):
        recovery.bad(step, "x", training=False)
    save_tensors(tmp_path / "x.pt", recovery.state())
    assert Recovery(**load_tensors(tmp_path / "x.pt")) == recovery


# --- in the distiller -------------------------------------------------------------------------------------------------


@pytest.fixture
def make_distiller(make_config, tiny_split):
    """With ``too_large``, the student's loss is not a number where the inner learning rate is above that."""

    def make(too_large=None, **overrides):
        config, model_class = make_config(**overrides)
        options = read_options(config)
        model = without_dropout(ModelFactory(model_class, config, tiny_split.train.dataset)(0)).train()
        student, judge = Student(model), Student(copy.deepcopy(model))
        start = random_start(4, 11, 3, tiny_split.vocabulary, 1.0, seed=0)
        initial = student.parameter_dict()
        distiller = Distiller(student, judge, start, options.inner, options.outer, lambda seed: initial, tiny_split.sequences, 3)
        if too_large is not None:
            original = student.soft_loss
            student.soft_loss = lambda rows, params: original(rows, params) * (
                math.nan if distiller.recipe.learning_rate > too_large else 1.0
            )
        return distiller

    return make


def bits(distiller):
    return [t.detach().clone() for t in distiller.tensors]


def test_a_learning_rate_that_is_too_large_is_reduced_until_it_works(make_distiller):
    distiller = make_distiller(too_large=0.003, farzi_inner_learning_rate=0.01)
    before, steps = bits(distiller), []
    for _ in range(2 * PATIENCE):
        steps.append(distiller.step())
        assert all(torch.equal(a, b) for a, b in zip(before, distiller.tensors))  # nothing is updated from bad numbers
    assert [step.skipped for step in steps] == [True] * len(steps)
    assert [bool(step.reduced) for step in steps] == ([False] * (PATIENCE - 1) + [True]) * 2
    assert "non-finite loss at inner step" in steps[-1].reduced
    step = distiller.step()
    assert not step.skipped and math.isfinite(step.loss)
    assert not torch.equal(before[0], distiller.tensors[0])
    assert distiller.recipe.learning_rate == 0.0025 and distiller.skipped == 2 * PATIENCE


@pytest.mark.parametrize("unrolled, at", [("last", [0, 0]), ("windows", [3, 0])])
def test_a_meta_gradient_that_is_not_finite_halves_the_window(make_distiller, unrolled, at):
    """Training and its loss are fine; the gradient is infinite where more than 3 inner steps are differentiated."""
    distiller = make_distiller(farzi_window=6, farzi_unroll=unrolled, farzi_window_from=0.0)
    original = distiller._advance

    def advance(trajectory, leaves, steps):
        if distiller.recovery.window > 3 and leaves[0].requires_grad:
            leaves[0].register_hook(lambda gradient: gradient * math.inf)
        return original(trajectory, leaves, steps)

    distiller._advance = advance
    steps = [distiller.step() for _ in range(PATIENCE)]
    assert all(step.skipped and math.isfinite(step.loss) for step in steps)
    assert steps[-1].reduced.endswith("farzi_window is reduced to 3")
    after = [distiller.step() for _ in range(2)]
    assert [step.skipped for step in after] == [False, False]
    assert [step.inner_step for step in after] == at
    assert distiller.recipe == distiller.inner


def test_a_run_that_is_continued_amid_bad_numbers_equals_one_that_was_not_interrupted(make_distiller, tmp_path):
    options = {"too_large": 0.003, "farzi_inner_learning_rate": 0.01, "farzi_window": 6}
    whole = make_distiller(**options)
    for _ in range(9):
        whole.step()
    first = make_distiller(**options)
    for _ in range(PATIENCE + 1):
        first.step()
    save_tensors(tmp_path / "state.pt", first.state())
    second = make_distiller(**options)
    second.restore(load_tensors(tmp_path / "state.pt"))
    for _ in range(9 - PATIENCE - 1):
        second.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.tensors, second.tensors))
    assert whole.recovery == second.recovery and not torch.equal(whole.tensors[0], make_distiller().tensors[0])


# --- in the trainer ---------------------------------------------------------------------------------------------------


@pytest.fixture
def fit(make_config, tiny_split, monkeypatch, caplog):
    """Function that distils with losses that are NaN from an outer step on, while the learning rate is above a bound."""

    def run(bad_from, too_large, valid=True, **overrides):
        config, model_class = make_config(
            **{"farzi_outer_steps": 40, "farzi_stopping_step": 50, "farzi_inner_learning_rate": 0.01, **overrides}
        )
        trainer = FarziTrainer(config, ModelFactory(model_class, config, tiny_split.train.dataset)(config["seed"]))
        original = Distiller._advance

        def advance(self, trajectory, leaves, steps):
            if self.steps_done >= bad_from and self.recipe.learning_rate > too_large:
                leaves = [leaf * math.nan for leaf in leaves]
            return original(self, trajectory, leaves, steps)

        with monkeypatch.context() as patch:
            patch.setattr(Distiller, "_advance", advance)
            trainer.fit(tiny_split.train, tiny_split.valid if valid else None)
        return trainer

    return run


def test_a_run_that_cannot_recover_stops_with_the_diagnosis_and_its_best_summary(fit, caplog):
    trainer = fit(bad_from=4, too_large=0)
    assert "farzi_inner_learning_rate was reduced to 0.000625" in caplog.text
    assert trainer.history["outer_steps"] < 40 and trainer.history["best_step"] <= 6
    assert trainer.history["skipped"] == PATIENCE * (HALVINGS + 1)
    assert trainer.summary is not None and all(torch.isfinite(t).all() for t in trainer.summary.tensors)
    assert trainer.inner.learning_rate == 0.01  # that of the best summary, not what was tried after it
    record = load_tensors(trainer.saved_model_file)["record"]
    assert record["finished"] and torch.equal(record["best"]["tensors"][0], trainer.summary.latent)


def test_what_recovers_is_shipped_with_the_learning_rate_that_it_was_made_for(fit):
    trainer = fit(bad_from=0, too_large=0.006, farzi_outer_steps=12)
    assert trainer.history["reductions"] == [[PATIENCE, "farzi_inner_learning_rate", 0.005]]
    assert trainer.history["losses"][:PATIENCE] == [None] * PATIENCE and None not in trainer.history["losses"][PATIENCE:]
    if trainer.history["best_step"] > 2:
        assert trainer.inner.learning_rate == 0.005


def test_without_validation_what_was_reached_is_kept(fit):
    trainer = fit(bad_from=3, too_large=0, valid=False, epochs=1)
    assert trainer.summary is not None and trainer.history["outer_steps"] < 40


def test_nothing_good_at_all_and_nothing_to_fall_back_to_is_an_error(fit):
    with pytest.raises(DivergenceError, match="not finite"):
        fit(bad_from=0, too_large=0, valid=False, epochs=1)
