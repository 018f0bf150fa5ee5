"""Runs on disk and results gathered from them."""

import numpy as np
import pytest

from recbole_farzi.errors import DataError, StorageError
from recbole_farzi.evaluation import Evaluation
from recbole_farzi.results import Run, gather, read_run, write_run


def made(seed=1, users=(3, 1, 2)):
    values = np.random.default_rng(seed).random((2, 3))
    arrays = {
        "all/users": np.array(users, dtype=np.int32), "all/values": values, "users/stratum": np.array([0, 1, 1], dtype=np.int16),
    }  # fmt: skip
    described = {"users": [{"label": "a", "rows": 1}, {"label": "b", "rows": 2}]}
    strata = {"users": [{"hit@5": 0.1, "crossentropy": 0.3}] * 2}
    return Run(seed, 1.5, Evaluation({"hit@5": 0.1, "crossentropy": 0.2}, strata, described, ["hit@5", "crossentropy"], arrays))


def test_runs_come_back_as_they_were(tmp_path):
    run = made()
    write_run(tmp_path / "run.npz", run)
    back = read_run(tmp_path / "run.npz")
    assert back._replace(evaluation=None) == run._replace(evaluation=None)
    assert back.evaluation._replace(arrays=None) == run.evaluation._replace(arrays=None)
    for name, array in run.evaluation.arrays.items():
        assert back.evaluation.arrays[name].dtype == array.dtype and (back.evaluation.arrays[name] == array).all()


def test_the_same_run_is_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, made())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", [b"", b"PK", b"{}", None])
def test_what_is_no_run_is_refused(tmp_path, content):
    path = tmp_path / "run.npz"
    if content is None:
        np.savez(path, plain=np.frombuffer(b'{"format": 1}', dtype=np.uint8))
    else:
        path.write_bytes(content)
    with pytest.raises(StorageError):
        read_run(path)


def test_objects_in_a_run_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "run.npz", plain=np.array([{"a": print}], dtype=object))
    with pytest.raises(StorageError):
        read_run(tmp_path / "run.npz")


def test_gathered_runs_are_stacked():
    plain = {"key": "k", "label": "L", "note": "", "events": 1, "bytes": 4}
    results, arrays = gather([(plain, [made(1), made(2)]), ({**plain, "key": "j"}, [made(3)])])
    assert arrays["all/k"].shape == (2, 2, 3) and arrays["all/j"].shape == (1, 2, 3)
    assert (arrays["all/k"][1] == made(2).evaluation.arrays["all/values"]).all()
    assert [run["seed"] for run in results["contenders"][0]["runs"]] == [1, 2]
    assert results["smaller_is_better"] == ["crossentropy"] and results["row_metrics"] == ["hit@5", "crossentropy"]


def test_runs_on_other_rows_are_not_compared():
    plain = {"key": "k", "label": "L", "note": "", "events": 1, "bytes": 4}
    with pytest.raises(DataError, match="M was evaluated on other test rows than L"):
        gather([(plain, [made()]), ({**plain, "label": "M"}, [made(users=(3, 2, 1))])])
    with pytest.raises(DataError, match="nothing to compare"):
        gather([])
