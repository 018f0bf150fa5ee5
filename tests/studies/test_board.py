"""Which trial is next, and that an interruption does not change it."""

import contextlib
import sqlite3

import pytest

from recbole_farzi.errors import StorageError, TakenError
from recbole_farzi.studies.board import Board
from recbole_farzi.studies.definition import Point, Search

pytest.importorskip("optuna", reason="studies are an extra")
event = pytest.importorskip("sqlalchemy").event


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


@pytest.mark.parametrize("harm", ["damaged", "a folder", "of another program"])
def test_a_storage_that_is_none_is_one_line(open_board, tmp_path, harm):
    if harm == "damaged":
        (tmp_path / "one.db").write_bytes(b"not a database at all" * 100)
    elif harm == "a folder":
        (tmp_path / "one.db").mkdir()
    else:
        with contextlib.closing(sqlite3.connect(tmp_path / "one.db")) as other:
            other.execute("create table studies (colour text)")
            other.commit()
    with pytest.raises(StorageError, match="remove it to begin anew") as caught:
        open_board("one")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("harm", ["gone", "foreign", "cut off", "of another program", "read-only"])
@pytest.mark.parametrize("call", ["claim", "tell", "counts"])
def test_a_storage_that_is_harmed_while_it_is_used_is_one_line(open_board, tmp_path, harm, call):
    board = open_board("one")
    task, _ = board.claim(free)
    path = tmp_path / "one.db"
    if harm == "gone":
        path.unlink()
    elif harm == "foreign":
        path.write_bytes(b"not a database at all" * 1000)
    elif harm == "cut off":
        path.write_bytes(path.read_bytes()[:5000])
    elif harm == "of another program":
        path.unlink()
        other = sqlite3.connect(path)
        other.execute("create table studies (colour text)")
        other.commit()
        other.close()
    else:
        engine = board._storage.engine  # root may write anywhere: SQLite is told
        engine.dispose()
        event.listen(engine, "connect", lambda connection, _: connection.execute("pragma query_only = on"))
    try:
        {"claim": lambda: board.claim(free), "tell": lambda: board.tell(task, 1.0), "counts": board.counts}[call]()
    except StorageError as error:
        assert "one.db fails (" in str(error) and "\n" not in str(error)
    else:
        assert harm in ("gone", "of another program", "read-only")  # an open file is still there; reading is allowed


def test_places_of_any_name(tmp_path):
    point = Point("a", "a", "", 1, {}, {"farzi_window": Search(values=(2, 4))})
    for name in ("a?b=c", "{d}", "%3f e", "#f"):
        board = Board(tmp_path / name / "study.db", "key", [point], seeds=1, candidates=None, bigger=False)
        assert finish(board) and board.counts() == (3, 3)
        assert (tmp_path / name / "study.db").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["#f", "%3f e", "a?b=c", "{d}"]


def test_what_has_ended(open_board):
    board, told = open_board("one"), []
    while (claimed := board.claim(free))[0] is not None:
        assert sorted(map(str, board.ended())) == sorted(map(str, told))
        board.tell(claimed[0], 1.0)
        told.append(claimed[0])
    assert sorted(map(str, open_board("one").ended())) == sorted(map(str, told)) and len(told) == 10
