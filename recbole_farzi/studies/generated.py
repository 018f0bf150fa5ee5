"""Datasets whose answer is known: users walk over items by transitions that are written down, so that the best possible
cross-entropy and hit ratio can be computed and a method be measured against them.

Item ``v`` has popularity ``q_v``, proportional to ``rank^-zipf``. From item ``u`` a user goes, with probability ``1 - noise``, to
one of ``branches`` successors of ``u`` (drawn by popularity, once, and then the same for all users), and otherwise to any item
by popularity:

    p(v | u) = (1 - noise) n_uv / branches + noise q_v        n_uv: how often v is among the successors of u

==============  ====================================================================================================
``users``       their number [300]
``items``       V, without padding [200]; items that nobody touches are in the vocabulary, too
``length``      events of each user, the two that are held out included [20]; at least 4
``zipf``        exponent of the popularity [1.0]; 0 makes all items alike
``noise``       share of steps that follow no transition [0.3]; at 1 nothing can be learnt but popularity
``branches``    successors of an item [3]
``duplicates``  share of the users whose history is a copy of another user's [0.0]
``drift``       share of the items that have other successors in the two held-out steps [0.0]
``seed``        [0]
==============  ====================================================================================================
"""

import io
from pathlib import Path

import numpy as np

from recbole_farzi.errors import OptionError
from recbole_farzi.storage import digest, new_directory, read_arrays, write_arrays, write_bytes

__all__ = ["DEFAULTS", "Truth", "generate", "known_answer", "make"]

DEFAULTS = {
    "users": 300, "items": 200, "length": 20, "zipf": 1.0, "noise": 0.3, "branches": 3, "duplicates": 0.0, "drift": 0.0, "seed": 0,
}  # fmt: skip
_TRUTH = "truth.npz"
_LEAST = {"users": 10, "items": 5, "length": 4, "branches": 1, "seed": 0}


class Truth:
    """What the transitions are.

    Args:
        popularity: ``q``, shape [V].
        before, after: successors of each item in training and in the two held-out steps, shape [V, branches].
        noise: see the module.
    """

    def __init__(self, popularity, before, after, noise):
        self.popularity, self.before, self.after, self.noise = popularity, before, after, float(noise)

    def probabilities(self, current, held_out=False):
        """``p(. | u)`` of each item ``u`` in ``current`` [n]: shape [n, V]."""
        successors = (self.after if held_out else self.before)[current]
        out = np.broadcast_to(self.noise * self.popularity, (len(current), len(self.popularity))).copy()
        share = (1.0 - self.noise) / successors.shape[1]
        for column in successors.T:  # an item may be there twice
            out[np.arange(len(current)), column] += share
        return out


def generate(spec):
    """Histories and what is behind them.

    Args:
        spec: dict with some of :data:`DEFAULTS`.

    Returns:
        ``(histories, truth)``: item numbers from 0 on, shape [users, length], and :class:`Truth`.

    Raises:
        OptionError: a value makes no sense.
    """
    spec = _checked(spec)
    rng = np.random.default_rng(spec["seed"])
    items, users = spec["items"], spec["users"]
    popularity = np.arange(1, items + 1, dtype=np.float64) ** -float(spec["zipf"])
    popularity /= popularity.sum()
    cumulative = np.cumsum(popularity)

    def by_popularity(shape):
        return np.minimum(np.searchsorted(cumulative, rng.random(shape), side="right"), items - 1)

    before = by_popularity((items, spec["branches"]))
    changed = rng.random(items) < spec["drift"]
    after = np.where(changed[:, None], by_popularity(before.shape), before)
    histories = np.empty((users, spec["length"]), dtype=np.int64)
    histories[:, 0] = by_popularity(users)
    for step in range(1, spec["length"]):
        successors = after if step >= spec["length"] - 2 else before
        follow = successors[histories[:, step - 1], rng.integers(spec["branches"], size=users)]
        histories[:, step] = np.where(rng.random(users) < spec["noise"], by_popularity(users), follow)
    copies = rng.permutation(users)[: round(spec["duplicates"] * users)]
    originals = np.setdiff1d(np.arange(users), copies)
    if len(copies) and len(originals):
        histories[copies] = histories[rng.choice(originals, size=len(copies))]
    return histories, Truth(popularity, before, after, spec["noise"])


def make(spec, place):
    """Write a generated dataset as RecBole atomic files, if it is not there.

    Args:
        spec: see :func:`generate`.
        place: folder of datasets, RecBole's ``data_path``.

    Returns:
        Options that read it: ``dataset``, ``data_path`` and ``load_col``.

    Raises:
        OptionError, StorageError
    """
    spec = _checked(spec)
    name = f"generated-{digest(spec)[:10]}"
    folder = Path(place) / name
    if not folder.is_dir():
        histories, truth = generate(spec)
        with new_directory(folder) as new:
            users, length = histories.shape
            out = io.StringIO("user_id:token\titem_id:token\ttimestamp:float\n")
            out.seek(0, io.SEEK_END)
            times = np.tile(np.arange(length), users)
            np.savetxt(
                out, np.stack([np.repeat(np.arange(users), length), histories.ravel(), times], axis=1), fmt="u%d\ti%d\t%d"
            )
            write_bytes(new / f"{name}.inter", out.getvalue().encode())
            names = "\n".join(["item_id:token", *(f"i{item}" for item in range(spec["items"]))]) + "\n"
            write_bytes(new / f"{name}.item", names.encode())
            arrays = {"popularity": truth.popularity, "before": truth.before, "after": truth.after, "noise": np.array(truth.noise)}
            write_arrays(new / _TRUTH, {**arrays, "last": histories[:, -2:]})
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}
    return {"dataset": name, "data_path": str(place), "load_col": columns}


def known_answer(folder, cutoffs):
    """What the best possible model scores on the test rows of a generated dataset: one that knows every transition.

    Args:
        folder: of the dataset.
        cutoffs: of the hit ratio and nDCG.

    Returns:
        dict of metric to its mean over the test rows: ``crossentropy``, ``hit@k``, ``ndcg@k``. Items of equal probability are
        ranked in random order, so that theirs are means over those orders. None if the dataset was not generated.
    """
    file = Path(folder) / _TRUTH
    if not file.is_file():
        return None
    arrays = read_arrays(file)
    truth = Truth(arrays["popularity"], arrays["before"], arrays["after"], arrays["noise"])
    before, target = arrays["last"].T
    sums = {"crossentropy": 0.0, **{f"{name}@{k}": 0.0 for name in ("hit", "ndcg") for k in cutoffs}}
    rows = max(1, 20_000_000 // len(truth.popularity))
    for first in range(0, len(target), rows):
        part = slice(first, first + rows)
        p = truth.probabilities(before[part], held_out=True)
        mine = p[np.arange(len(p)), target[part]][:, None]
        sums["crossentropy"] += -np.log(mine).sum()
        better, ties = (p > mine * (1 + 1e-12)).sum(axis=1), (np.abs(p - mine) <= 1e-12 * mine).sum(axis=1)
        for k in cutoffs:
            sums[f"hit@{k}"] += np.clip((k - better) / ties, 0.0, 1.0).sum()
            gains = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
            ends = np.minimum(better + ties, k)
            sums[f"ndcg@{k}"] += np.where(better < k, (gains[ends] - gains[np.minimum(better, k)]) / ties, 0.0).sum()
    return {name: float(value / len(target)) for name, value in sums.items()}


def _checked(spec):
    unknown = sorted(set(spec) - set(DEFAULTS)) if isinstance(spec, dict) else ["(no mapping)"]
    if unknown:
        raise OptionError(f"generated data has no {unknown[0]}; there are {', '.join(DEFAULTS)}")
    spec = {**DEFAULTS, **spec}
    for name, value in spec.items():
        whole = name in _LEAST
        kinds = int if whole else (int, float)
        good = isinstance(value, kinds) and not isinstance(value, bool)
        share = name in ("noise", "duplicates", "drift")
        if not good or value < (_LEAST[name] if whole else 0) or (share and value > 1):
            wanted = f"a whole number of at least {_LEAST[name]}" if whole else "a number from 0 to 1" if share else "a number of at least 0"
            raise OptionError(f"generated data: {name}={value!r} must be {wanted}")
    return spec
