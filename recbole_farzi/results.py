"""Runs on disk, and the results of a report gathered from them: plain values, and the rows behind them as arrays.

``results.json`` holds what people and programs look up; ``rows.npz`` what the statistics are made from, so that
intervals and tests can be made again, or differently, without training:

======================  ==================================================================================================
``all/users``           the user (RecBole's id) of each evaluated row, shape [n]
``KIND/stratum``        for each kind of strata the number of the row's stratum, shape [n]
``all/CONTENDER``       shape [runs, row metrics, n]: what each row contributes to each metric that is a mean over rows
``KIND/users``,         only where users have several held-out items and a kind of strata parts those of one user: the
rows
``KIND/CONTENDER``      of that kind
======================  ==================================================================================================
"""

import json
from typing import NamedTuple, Optional

import numpy as np
from recbole.evaluator.register import smaller_metrics

from recbole_farzi.errors import DataError, StorageError
from recbole_farzi.evaluation import Evaluation
from recbole_farzi.metrics import register_metrics
from recbole_farzi.storage import read_arrays, write_arrays

__all__ = ["FORMAT", "Run", "gather", "read_run", "write_run"]

FORMAT = 2


class Run(NamedTuple):
    """One training of one contender.

    Attributes:
        seed: None where none has an effect.
        seconds: that training took, or None where nobody measured.
        evaluation: :class:`recbole_farzi.evaluation.Evaluation`, on test.
        valid: the metric ``valid_metric`` on validation, where the contender asks for it.
        epochs: number of epochs after which its training was best on validation, or None where it did not look.
    """

    seed: Optional[int]
    seconds: Optional[float]
    evaluation: Evaluation
    valid: Optional[float] = None
    epochs: Optional[int] = None


def write_run(path, run):
    """Write a :class:`Run` whole or not at all."""
    evaluation = run.evaluation
    plain = {"format": FORMAT, **run._asdict(), **evaluation._asdict()}
    del plain["arrays"], plain["evaluation"]
    text = np.frombuffer(json.dumps(plain).encode("utf-8"), dtype=np.uint8)
    write_arrays(path, {"plain": text, **evaluation.arrays})


def read_run(path):
    """Read what :func:`write_run` wrote.

    Raises:
        StorageError: it is missing, damaged, or of another version.
    """
    arrays = read_arrays(path)
    try:
        plain = json.loads(arrays.pop("plain").tobytes())
        if plain.pop("format") != FORMAT:
            raise ValueError
        own = {name: plain.pop(name) for name in Run._fields if name != "evaluation"}
        return Run(evaluation=Evaluation(**plain, arrays=arrays), **own)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(f"{path} is no run of this version") from error


def gather(contenders):
    """The runs of all contenders as one result.

    Args:
        contenders: pairs of a dict that describes a contender (``key``, ``label``, ``note``, ``events``, ``bytes``) and
            its list of :class:`Run`, at least one; all evaluated on the same test data.

    Returns:
        ``(results, arrays)``: the part of ``results.json`` that comes from runs, and what ``rows.npz`` holds.

    Raises:
        DataError: there is no contender, or runs were evaluated on different rows.
    """
    if not contenders:
        raise DataError("there is nothing to compare: no contender could be trained")
    first = contenders[0][1][0].evaluation
    shared = {name: array for name, array in first.arrays.items() if not name.endswith("/values")}
    arrays, out = dict(shared), []
    for plain, runs in contenders:
        for run in runs:
            own = run.evaluation
            if own.row_metrics != first.row_metrics or any(
                not np.array_equal(own.arrays.get(name), array) for name, array in shared.items()
            ):
                raise DataError(f"{plain['label']} was evaluated on other test rows than {contenders[0][0]['label']}")
        for name in first.arrays:
            if name.endswith("/values"):
                key = f"{name.partition('/')[0]}/{plain['key']}"
                arrays[key] = np.stack([run.evaluation.arrays[name] for run in runs])
        out.append({**plain, "runs": [_plain(run) for run in runs]})
    register_metrics()  # of which less is better, for one
    metrics = list(first.metrics)
    results = {
        "format": FORMAT,
        "metrics": metrics,
        "row_metrics": first.row_metrics,
        "smaller_is_better": [metric for metric in metrics if metric.partition("@")[0] in smaller_metrics],
        "strata": first.described,
        "contenders": out,
    }
    return results, arrays


def _plain(run):
    evaluation = run.evaluation
    plain = {"seed": run.seed, "seconds": run.seconds, "metrics": evaluation.metrics, "strata": evaluation.strata}
    return plain if evaluation.by_user is None else {**plain, "by_user": evaluation.by_user}
