"""Which trial is next, and that an interruption does not change it."""

import contextlib

import pytest

from recbole_farzi.errors import StorageError, TakenError
from recbole_farzi.studies.board import Board
from recbole_farzi.studies.definition import Point, Search

pytest.importorskip("optuna", reason="studies are an extra")


@pytest.fixture
def open_board(tmp_path):
    searched = {"farzi_inner_learning_rate": Search(low=1e-3, high=1.0, log=True)}
    points = [Point("a", "a", "", 1, {}, searched), Point("b", "b", "", 2, {}, {"farzi_window": Search(values=(2, 4))})]

    def make(name):
        return Board(tmp_path / f"{name}.db", "key", points, seeds=2, candidates=4, bigger=False)

    return make


def free(task):
    return contextlib.nullcontext()


def finish(board, times=100):
    """Run trials that score by their parameters; what they were, in their order."""
    seen = []
    while len(seen) < times:
        task, held = board.claim(free)
        if task is None:
            break
        with held:
            seen.append((task.point.key, tuple(task.params.values()), task.seed, task.final))
            board.tell(task, sum(task.params.values()))
    return seen


def test_every_trial_once_and_the_best_at_every_seed(open_board):
    board = open_board("one")
    seen = finish(board)
    assert len(seen) == len(set(seen)) == board.counts().total == board.counts().done == (4 + 2) + (2 + 2)
    for key in "ab":
        candidates = [params for point, params, _, final in seen if point == key and not final]
        finals = [(params, seed) for point, params, seed, final in seen if point == key and final]
        assert finals == [(min(candidates), 0), (min(candidates), 1)]


def test_a_search_that_is_opened_anew_before_every_trial_is_the_same(open_board):
    undisturbed = finish(open_board("one"))
    interrupted = []
    while part := finish(open_board("other"), times=1):
        interrupted += part
    assert interrupted == undisturbed


def test_a_trial_that_nobody_holds_is_taken_again(open_board):
    first, _ = open_board("one").claim(free)  # its process ends without a word
    again, _ = open_board("one").claim(free)
    assert again == first


def test_a_trial_that_another_process_holds_is_left_to_it(open_board):
    board = open_board("one")
    taken, _ = board.claim(free)

    def lock(task):
        if task.number == taken.number and task.study == taken.study:
            raise TakenError("another run is writing there")
        return contextlib.nullcontext()

    task, _ = board.claim(lock)
    assert (task.study, task.number) != (taken.study, taken.number)


def test_a_folder_that_cannot_be_locked_ends_the_study_and_does_not_wait(open_board):
    def lock(task):
        raise StorageError("cannot write in there: Read-only file system")

    with pytest.raises(StorageError, match="Read-only"):
        open_board("one").claim(lock)


def test_a_point_of_which_all_fail_has_no_final_trials(open_board):
    board = open_board("one")
    while (claimed := board.claim(free))[0] is not None:
        board.tell(claimed[0], None if claimed[0].point.key == "a" else 1.0)
    assert board.failed(board.points[0]) and board.best(board.points[0]) is None
    assert board.counts() == (4 + 2 + 2, 4 + 2 + 2)


def test_a_damaged_storage_is_one_line(open_board, tmp_path):
    (tmp_path / "one.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageError, match="remove it to begin anew") as caught:
        open_board("one")
    assert "\n" not in str(caught.value)
