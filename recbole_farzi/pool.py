"""The pool: models trained on the real data, and snapshots from along the way, kept on disk.

The best of them on validation, or several together, are the teacher of an informed start; the snapshots are the paper's
pre-trained trajectories, from which inner loops may begin. A pool is used again while nothing that it depends on has changed.
"""

import contextlib
import functools
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from recbole.utils import set_color

from recbole_farzi.data import rows_checksum
from recbole_farzi.errors import StorageError
from recbole_farzi.models import seeded
from recbole_farzi.provenance import code, environment, settings
from recbole_farzi.resumption import interruptible
from recbole_farzi.storage import check_writable, digest, load_tensors, read_json, remove, remove_tree, save_tensors, write_json
from recbole_farzi.training import WindowLoader, WindowTrainer

__all__ = ["Pool", "build_pool"]

_MANIFEST = "pool.json"


@dataclass(frozen=True)
class Pool:
    """Trained and partly trained parameters.

    Attributes:
        models: state dicts of the models that teach, best on validation first.
        trained: of every model, in the order of training: its seed, its file, and the seconds that it took.
        snapshot_files: for each model the files of its snapshots, in the order of its training.
        device: where tensors are read to.
        score: the best model's validation score.
        seconds: time that building took, when it was built.
        reused: it came from disk.
        fingerprint: SHA-256 of all that it depends on.
    """

    models: tuple
    trained: tuple
    snapshot_files: tuple
    device: torch.device
    score: float
    seconds: float
    reused: bool
    fingerprint: str

    def model_of(self, seed):
        """``(state dict, seconds)`` of the model that was trained with a seed; None if there is none."""
        found = next((model for model in self.trained if model[0] == seed), None)
        return found and (load_tensors(found[1], self.device), found[2])

    @functools.cached_property
    def experts(self):
        """For each model the state dicts of its snapshots; read when they are first asked for, since they are many."""
        return tuple(tuple(load_tensors(file, self.device) for file in files) for files in self.snapshot_files)

    @property
    def snapshots(self):
        """The partly trained models of all experts together, in a fixed order."""
        return tuple(snapshot for expert in self.experts for snapshot in expert)


def build_pool(config, options, factory, traits, sequences, checksum, valid_data, directory, show_progress=False):
    """Build the pool, or take it from disk.

    Args:
        config: RecBole's Config.
        options: :class:`recbole_farzi.options.PoolOptions`.
        factory: :class:`recbole_farzi.models.ModelFactory`.
        traits: :class:`recbole_farzi.student.ModelTraits`.
        sequences: the real histories.
        checksum: SHA-256 of the real histories.
        valid_data: RecBole's validation loader, or None to train for all epochs.
        directory: where pools are kept.
        show_progress: show RecBole's progress bars.

    Returns:
        :class:`Pool`.

    Raises:
        StorageError: the directory cannot be written.
    """
    logger = logging.getLogger()
    depends = {
        "code": code(factory.model_class),
        "environment": environment(config["device"]),
        "data": checksum,
        "validation": rows_checksum(valid_data),
        "settings": settings(config, keep=_matters),
    }
    fingerprint = digest(depends)
    place = Path(directory) / f"pool-{fingerprint[:12]}"
    found = None if config["farzi_fresh"] else _read(place, fingerprint, config["device"], options.teachers)
    if found is not None:
        logger.info(set_color("Pool", "pink") + f": reused from {place}")
        return found
    if config["farzi_fresh"]:
        remove_tree(place)
    check_writable(place)
    remove(place / _MANIFEST)  # of a damaged pool: what is whole of it is taken below
    models = [
        _build_model(number, config, options, factory, traits, sequences, valid_data, place, fingerprint, show_progress)
        for number in range(options.models)
    ]
    manifest = {
        "fingerprint": fingerprint,
        "depends_on": depends,
        "models": models,
        "seconds": sum(model["seconds"] for model in models),
        "bigger_is_better": bool(config["valid_metric_bigger"]),
    }
    write_json(place / _MANIFEST, manifest)  # last: a pool without it is not finished
    built = _read(place, fingerprint, config["device"], options.teachers)
    if built is None:
        raise StorageError(f"the pool in {place} was changed or removed while it was built; start again")
    return replace(built, reused=False)


def _matters(name):
    """Whether a pool depends on an option of ours; who of its models teaches, and what beside them, is another matter."""
    return name.startswith("farzi_pool_") and name not in ("farzi_pool_teachers", "farzi_pool_chain") or name == "farzi_positions"


def _snapshot_name(number, epoch):
    return f"model{number}-epoch{epoch}.pt"


def _build_model(number, config, options, factory, traits, sequences, valid_data, place, fingerprint, show_progress):
    """Train one model of the pool, or take it, or go on with it, if an earlier process got so far; returns its entry."""
    done, state_file = place / f"model{number}.json", place / f"model{number}.state.pt"
    seed, logger = config["seed"] + number, logging.getLogger()
    if done.exists():
        try:
            entry = read_json(done)
            if entry["fingerprint"] == fingerprint:
                for name in (entry["file"], *entry["snapshots"]):
                    _load(place, name, entry)
                remove(state_file)  # left by a process that was killed before it could
                return entry
        except (StorageError, LookupError, TypeError, AttributeError) as error:
            logger.warning(f"Model {number + 1} of the pool in {place} cannot be used and is trained anew: {error}")
    if state_file.exists() and not _goes_on(place, number, state_file, options.snapshots):
        remove(state_file)
    logger.info(set_color("Pool", "pink") + f": training model {number + 1} of {options.models} on the real data")
    model = factory(seed)
    trainer = WindowTrainer(config, model, traits)
    trainer.state_file = state_file
    epochs_done = 0

    def keep_snapshot(epoch):
        nonlocal epochs_done
        epochs_done = epoch
        if epoch in options.snapshots:
            save_tensors(place / _snapshot_name(number, epoch), model.state_dict())

    if not state_file.is_file():
        keep_snapshot(0)
    trainer.after_epoch = keep_snapshot
    loader = WindowLoader(sequences, factory.dataset, config["train_batch_size"], seed)

    def where():
        epoch = max(epochs_done, trainer.start_epoch) + 1
        return f"while training model {number + 1} of {options.models} of the pool, in epoch {epoch}"

    with interruptible(where), seeded(seed):  # dropout draws from the global generators
        score, _ = trainer.fit(loader, valid_data, verbose=False, saved=True, show_progress=show_progress)
    name = f"model{number}.pt"
    save_tensors(place / name, trainer._best_state)
    snapshots = [_snapshot_name(number, epoch) for epoch in options.snapshots if epoch <= epochs_done]  # training may end before
    entry = {
        "file": name, "snapshots": snapshots, "seed": seed, "score": float(score), "seconds": trainer.seconds, "fingerprint": fingerprint,
        "sha256": {file: _checksum(load_tensors(place / file)) for file in (name, *snapshots)},
    }  # fmt: skip
    write_json(done, entry)
    remove(state_file)
    return entry


def _goes_on(place, number, state_file, snapshots):
    """Whether a training that was interrupted can go on: its state and the snapshots that it took before are whole."""
    try:
        epoch = load_tensors(state_file)["epoch"]
        for taken in snapshots:
            if taken <= epoch:
                load_tensors(place / _snapshot_name(number, taken))
        return True
    except (StorageError, LookupError, TypeError) as error:
        logging.getLogger().warning(f"Model {number + 1} of the pool in {place} cannot go on and is trained anew: {error}")
        return False


def _checksum(state):
    return digest([[name, digest(value)] for name, value in state.items()])


def _load(place, name, entry, device="cpu"):
    """The parameters in a file of a model, which must be those that its entry speaks of."""
    state = load_tensors(place / name, device)
    if _checksum(state) != entry["sha256"][name]:
        raise StorageError(f"{place / name} is not what was written (checksum differs)")
    return state


def _read(place, fingerprint, device, teachers):
    if not (place / _MANIFEST).exists():
        return None
    try:
        manifest = read_json(place / _MANIFEST)
        if manifest["fingerprint"] != fingerprint:
            return None
        sign = 1 if manifest["bigger_is_better"] else -1
        for model in manifest["models"]:
            for name in model["snapshots"]:
                _load(place, name, model)  # a damaged one is found out now
        models = sorted(manifest["models"], key=lambda model: -sign * model["score"])
        for model in models[teachers:]:
            _load(place, model["file"], model)
        return Pool(
            tuple(_load(place, model["file"], model, device) for model in models[:teachers]),
            tuple((int(model["seed"]), place / model["file"], float(model["seconds"])) for model in manifest["models"]),
            tuple(tuple(place / name for name in model["snapshots"]) for model in manifest["models"]),
            device,
            models[0]["score"],
            manifest["seconds"],
            True,
            fingerprint,
        )
    except (StorageError, LookupError, TypeError, ValueError, AttributeError) as error:
        logging.getLogger().warning(f"The pool in {place} is damaged, and what is no longer whole is trained anew: {error}")
        return None
