"""The Markov chain, alone and as a part of a teacher."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_farzi.contenders import ContenderFactory
from recbole_farzi.data import evaluation_rows
from recbole_farzi.ensemble import Ensemble
from recbole_farzi.generation import generate_windows
from recbole_farzi.interpolation import DECAYS, PRIORS, Interpolated, Rows, interpolate, likeliest_chain
from recbole_farzi.markov import MarkovChain, transition_counts
from recbole_farzi.sequences import Sequences, Windows, item_shares
from recbole_farzi.storage import read_json, write_json
from recbole_farzi.student import Student
from recbole_farzi.training import teacher_labels

HISTORIES = [(1, [1, 2, 3]), (2, [2, 3, 2, 3, 4]), (3, [5]), (4, [1, 2, 5])]
V = 7  # item 6 never occurs


@pytest.fixture
def sequences():
    return Sequences([(user, np.array(items)) for user, items in HISTORIES], 4)


@pytest.fixture
def shares(sequences):
    return item_shares(sequences.counts(V))


def by_hand(history, shares, prior, decay):
    """The same distribution, from its definition."""
    pairs = [pair for _, items in HISTORIES for pair in zip(items, items[1:])]
    total, weights = np.zeros(V), 0.0
    for place, item in enumerate(history):
        weight = decay ** (len(history) - 1 - place)
        follows = np.array([pairs.count((item, other)) for other in range(V)], dtype=float)
        total += weight * (follows + prior * shares.numpy()) / (follows.sum() + prior)
        weights += weight
    return total / weights


def test_transitions_are_those_of_the_histories(sequences):
    counts = transition_counts(sequences, V).toarray()
    wanted = np.zeros((V, V))
    for a, b in [(1, 2), (2, 3), (2, 3), (3, 2), (2, 3), (3, 4), (1, 2), (2, 5)]:
        wanted[a, b] += 1
    assert (counts == wanted).all()
    assert transition_counts(Sequences([(1, np.array([3]))], 4), V).sum() == 0


def test_shares_sum_to_one_and_leave_out_the_padding(shares):
    assert shares[0] == 0 and (shares[1:] > 0).all() and shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prior", [0.5, 10.0])
def test_it_predicts_what_its_definition_says(sequences, shares, prior, decay):
    chain = MarkovChain(transition_counts(sequences, V), shares, prior, decay)
    histories = [[1], [2, 3, 2], [4, 6, 5, 1], [3, 3]]
    item_seq = torch.tensor([history + [0] * (4 - len(history)) for history in histories])
    lengths = torch.tensor([len(history) for history in histories])
    rows, every = chain.row_probabilities(item_seq, lengths), chain.probabilities(item_seq)
    assert rows.shape == (4, V) and every.shape == (4, 4, V)
    for number, history in enumerate(histories):
        assert np.allclose(rows[number], by_hand(history, shares, prior, decay), atol=1e-6)
        for place in range(4):
            seen = history[: place + 1]
            assert np.allclose(every[number, place], by_hand(seen, shares, prior, decay), atol=1e-6)
    assert torch.allclose(rows.sum(dim=1), torch.ones(4)) and (rows[:, 0] == 0).all()


def likelihood(weight, modelled, rows, shares, prior, decay):
    chained = np.array([by_hand(history, shares, prior, decay)[target] for history, target in rows])
    return -np.log((1 - weight) * modelled + weight * chained).mean()


def test_the_interpolation_is_the_likeliest(sequences, shares):
    rows = [([1], 2), ([2], 3), ([1, 2], 3), ([3, 2], 5), ([5], 4), ([4, 3], 6)]
    modelled = np.array([0.2, 0.1, 0.15, 0.2, 0.3, 0.25])
    histories = np.array([history + [0] * (4 - len(history)) for history, _ in rows])
    lengths, targets = np.array([len(history) for history, _ in rows]), np.array([target for _, target in rows])
    found, chain = interpolate(modelled, Rows(histories, lengths, targets), sequences, shares)
    assert found.alone == pytest.approx(-np.log(modelled).mean())
    assert found.mixed == pytest.approx(likelihood(found.weight, modelled, rows, shares, found.prior, found.decay))
    assert 0.01 < found.weight < 1 and found.mixed < found.alone
    for prior in PRIORS:
        for decay in DECAYS:
            for weight in (0.0, found.weight, 0.2, 0.5, 0.9):
                assert likelihood(weight, modelled, rows, shares, prior, decay) >= found.mixed - 1e-6
    assert (chain.prior, chain.decay) == (found.prior, found.decay)


def test_a_chain_that_does_not_help_is_left_out(sequences, shares):
    rows = np.array([[6, 0], [4, 6]])
    found, chain = interpolate(np.array([0.9, 0.8]), Rows(rows, np.array([1, 2]), np.array([5, 1])), sequences, shares)
    assert chain is None and found.weight == 0 and found.mixed == found.alone


@pytest.fixture
def mixed(make_config, tiny_split):
    def make(name):
        config, model_class = make_config(name)
        members = []
        for seed in range(2):
            torch.manual_seed(seed)
            members.append(Student(model_class(config, tiny_split.train.dataset).eval(), last_only=True))
        chain = MarkovChain(
            transition_counts(tiny_split.sequences, tiny_split.vocabulary), item_shares(tiny_split.counts), 10.0, 0.5
        )
        return Interpolated(Ensemble(members), chain, 0.3)

    return make


@pytest.mark.parametrize("name", ["SASRec", "STAMP"])  # one that is causal, one that reads prefixes
def test_a_teacher_predicts_the_mixture(mixed, tiny_split, name):
    teacher, rng = mixed(name), np.random.default_rng(0)
    batch = tiny_split.sequences.sample(6, rng)
    ids = batch.items if isinstance(batch, Windows) else batch
    histories, sizes = ids[:, :-1], ids[:, :-1].ne(0).sum(dim=1)
    with torch.no_grad():
        rows = teacher.row_scores(histories, sizes)
        wanted = 0.7 * torch.softmax(teacher.model.row_scores(histories, sizes)[:, 1:], dim=1)
        wanted = wanted + 0.3 * teacher.chain.row_probabilities(histories, sizes)[:, 1:]
        assert (rows[:, 0] == -torch.inf).all() and torch.allclose(rows[:, 1:].exp(), wanted, atol=1e-6)
        predicted, own = teacher.predictions(batch), teacher.model.predictions(batch)
        assert predicted.shape == own.shape and torch.allclose(predicted.sum(dim=1), torch.ones(len(own)), atol=1e-5)
        if name == "SASRec":
            every = teacher.scores(histories)
            last = every[torch.arange(len(ids)), sizes - 1]
            assert torch.allclose(last[:, 1:].exp(), wanted, atol=1e-6)
            assert torch.allclose(predicted, every[..., 1:].flatten(0, 1).exp(), atol=1e-6)
        else:  # each window's last event alone
            ends = ids.ne(0).sum(dim=1) - 1
            before = torch.where(torch.arange(histories.shape[1]) < ends[:, None], histories, 0)[ends > 0]
            assert torch.allclose(predicted, teacher.row_scores(before, ends[ends > 0])[:, 1:].exp(), atol=1e-6)


def test_whoever_asks_a_teacher_may_ask_a_mixture(mixed, tiny_split):
    teacher = mixed("SASRec")
    windows = generate_windows(teacher, tiny_split.counts, 5, 9, False, seed=1)
    assert windows.shape == (5, 9) and (windows > 0).all()
    labels = teacher_labels(teacher, tiny_split.sequences, 5)[2]
    assert torch.isfinite(labels.shares).all()


@pytest.fixture
def mixing(make_trainer):
    def make(**overrides):
        options = {"farzi_pool_models": 2, "farzi_outer_steps": 2, "epochs": 2, "farzi_pool_chain": True}
        return make_trainer(**{**options, **overrides})

    return make


def losses(teacher, split):
    """Of the rows of validation, by a teacher."""
    histories, lengths, targets = evaluation_rows(split.valid)
    with torch.no_grad():
        scores = teacher.row_scores(histories, lengths, split.valid.dataset.inter_feat["user_id"])
    return -torch.log_softmax(scores[:, 1:].double(), dim=1).gather(1, targets[:, None] - 1)[:, 0].numpy()


def test_fit_mixes_the_chain_in_by_what_students_make_of_it(mixing, tiny_split):
    trainer, asked = mixing(), []
    score = trainer._score_of_start
    trainer._score_of_start = lambda *given: asked.append((trainer.interpolation.weight, score(*given))) or asked[-1][1]
    trainer.fit(tiny_split.train, tiny_split.valid)
    found = trainer.interpolation
    assert trainer.history["interpolation"] == found._asdict() and 0 < found.likeliest and found.mixed < found.alone
    tried = asked[:4]  # the rest are draws of the start, all with the weight that was chosen
    assert [weight for weight, _ in tried] == pytest.approx([part * found.likeliest for part in (1, 0.5, 0.25, 0)])
    assert found.weight == min(tried, key=lambda pair: pair[1])[0] and {weight for weight, _ in asked[4:]} == {found.weight}
    models = losses(trainer.models_of_the_pool(last_only=True), tiny_split)
    assert found.alone == pytest.approx(models.mean())
    chain = MarkovChain(
        transition_counts(tiny_split.sequences, tiny_split.vocabulary), item_shares(tiny_split.counts), found.prior, found.decay
    )
    histories, lengths, targets = evaluation_rows(tiny_split.valid)
    chained = chain.row_probabilities(histories, lengths).gather(1, targets[:, None])[:, 0].double().numpy()

    def mixture(weight):
        return -np.log((1 - weight) * np.exp(-models) + weight * chained)

    assert found.mixed == pytest.approx(mixture(found.likeliest).mean(), abs=1e-5)
    assert losses(trainer.teacher(last_only=True), tiny_split) == pytest.approx(mixture(found.weight), abs=1e-5)


def test_no_chain_where_none_is_asked_for(mixing, tiny_split):
    trainer = mixing(farzi_pool_chain=False)
    trainer.fit(tiny_split.train, tiny_split.valid)
    assert trainer.interpolation is None and isinstance(trainer.teacher(), Ensemble)
    again = mixing()
    again.fit(tiny_split.train, tiny_split.valid)
    assert again.interpolation is not None and again.pool.reused  # the pool does not depend on it
    trainer = mixing()
    trainer.fit(tiny_split.train, None)  # nothing says how much of it is good
    assert trainer.interpolation is None


@pytest.mark.parametrize("draws", [1, 3])
def test_a_run_that_goes_on_has_the_same_teacher(mixing, tiny_split, draws):
    whole = mixing(farzi_start_draws=draws, farzi_outer_steps=4, farzi_eval_step=2, seed=5)
    whole.fit(tiny_split.train, tiny_split.valid, saved=False)

    def stop(step, score):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mixing(farzi_start_draws=draws, farzi_outer_steps=4, farzi_eval_step=2, seed=5).fit(tiny_split.train, tiny_split.valid, callback_fn=stop)
    rest, weighed = mixing(farzi_start_draws=draws, farzi_outer_steps=4, farzi_eval_step=2, seed=5), []
    weigh = rest._weigh_chain
    rest._weigh_chain = lambda *given: weighed.append(weigh(*given))
    rest.fit(tiny_split.train, tiny_split.valid)
    assert len(weighed) == (draws == 1)  # of several starts a file says which it was
    assert rest.interpolation == whole.interpolation
    for mine, theirs in zip(rest.summary.tensors, whole.summary.tensors):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("harmed", [0.3, "much", None])
def test_a_choice_that_makes_no_sense_is_made_again(mixing, tiny_split, harmed):
    whole = mixing()
    whole.fit(tiny_split.train, tiny_split.valid)
    file = next((Path(whole.config["checkpoint_dir"]) / "farzi").glob("start-*.json"))
    known = read_json(file)
    write_json(file, {**known, "part_of_chain": harmed})
    again = mixing()
    again.fit(tiny_split.train, tiny_split.valid)
    assert again.interpolation == whole.interpolation and read_json(file) == known


def test_many_transitions_are_added_bit_by_bit(sequences, shares, monkeypatch):
    item_seq, lengths = torch.tensor([[2, 3, 2, 1], [5, 2, 0, 0], [1, 2, 3, 3]]), torch.tensor([4, 2, 4])
    chain = MarkovChain(transition_counts(sequences, V), shares, 3.0, 0.5)
    whole = chain.row_probabilities(item_seq, lengths)
    monkeypatch.setattr("recbole_farzi.markov._AT_ONCE", 2)
    assert torch.equal(chain.row_probabilities(item_seq, lengths), whole)


def test_chain_and_teacher_are_contenders(mixing, tiny_split):
    trainer = mixing(farzi_contenders=["teacher", "markov"])
    trainer.fit(tiny_split.train, tiny_split.valid)
    made = {
        contender.key: contender
        for contender in ContenderFactory(
            trainer.config, trainer.options, tiny_split, trainer.factory, trainer.student.traits, trainer.summary, trainer.start,
            trainer.teacher, "digest", trainer.pool,
        ).contenders()
    }  # fmt: skip
    reached = {}
    for key, contender in made.items():
        evaluated, seconds = contender.run(contender.seeds[0], None)
        reached[key] = evaluated.evaluate(tiny_split.valid, load_best_model=False)["crossentropy"]
    assert reached["teacher"] == pytest.approx(losses(trainer.teacher(last_only=True), tiny_split).mean(), abs=1e-5)
    rows, shares = Rows(*evaluation_rows(tiny_split.valid)), item_shares(tiny_split.counts)
    transitions = transition_counts(tiny_split.sequences, tiny_split.vocabulary)
    others = [MarkovChain(transitions, shares, prior, decay) for prior in PRIORS for decay in DECAYS]
    likely = [-torch.log(chain.row_probabilities(*rows[:2]).gather(1, rows.targets[:, None])).mean().item() for chain in others]
    assert reached["markov"] == pytest.approx(min(likely), abs=1e-5)
    chosen = likeliest_chain(rows, tiny_split.sequences, shares)
    assert (chosen.prior, chosen.decay) == (others[int(np.argmin(likely))].prior, others[int(np.argmin(likely))].decay)
    assert made["markov"].bytes > 0 and made["teacher"].bytes is None
