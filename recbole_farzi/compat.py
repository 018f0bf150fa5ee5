"""RecBole 1.2 on today's NumPy, pandas, PyTorch and SciPy.

RecBole 1.2.1 was written for NumPy 1.x, pandas 1.x and PyTorch 1.x. :func:`apply` repairs what newer releases
broke, and only that: each repair first looks whether the break is there. ``import recbole_farzi`` calls it, so a
user never has to. What is repaired:

=================  ==============================================================================================
NumPy              Names that RecBole (and Ray 2.6.3, which ``recbole.quick_start`` imports) reads from ``numpy`` and
                   that NumPy 1.20-2.0 removed (NEP 52, https://numpy.org/neps/nep-0052-python-api-cleanup.html).
PyTorch >= 2.6     ``torch.load`` reads ``weights_only=True`` by default, and RecBole's checkpoints hold its ``Config``
                   (https://docs.pytorch.org/docs/stable/notes/serialization.html). RecBole's own classes are
                   put on PyTorch's allow-list, and its trainer writes checkpoints that need nothing else.
pandas >= 3        Copy-on-write makes ``frame[column].fillna(..., inplace=True)`` a silent no-op, so missing values
                   stayed missing; and ``Series.agg(len)`` became the length of the column, no longer that of each
                   sequence in it (https://pandas.pydata.org/docs/whatsnew/v3.0.0.html).
SciPy >= 1.13      ``dok_matrix._update``, from which LightGCN, NGCF and others build their graph, is gone.
any                Importing a sequential model turns PyTorch's anomaly detection on for the whole process (a line left in
                   RecBole's SINE), which slows every training down.
=================  ==============================================================================================

``torch.load`` itself is left as it is: nothing here lets a file run code. Reading a checkpoint that plain RecBole
wrote takes :func:`load_checkpoint`, because RecBole writes pickle protocol 4 and PyTorch's restricted unpickler
reads protocol 2 only.

The NumPy names are set at once. The rest waits until RecBole imports the module concerned (a hook on
:data:`sys.meta_path`), for two reasons: importing RecBole takes seconds, which ``import recbole_farzi`` should not
cost; and it then does not matter who imports RecBole first, or how.
"""

import enum
import functools
import importlib.util
import logging
import os
import pickle
import sys
import types
import warnings
import zipfile

from recbole_farzi.errors import StorageError

__all__ = ["apply", "load_checkpoint", "patched"]

_logger = logging.getLogger(__name__)
_patched = []


def apply():
    """Make RecBole usable on the installed stack. Idempotent; imports neither RecBole, torch nor pandas.

    Returns:
        tuple of str: what has been patched so far, as :func:`patched` gives it.

    Raises:
        ImportError: RecBole is not installed.
    """
    if importlib.util.find_spec("recbole") is None:
        raise ImportError(
            'RecBole is not installed: run  python -m pip install --no-deps "recbole>=1.2.0,<1.3"'
        )
    _restore_numpy_names()
    for name, patch in _ON_IMPORT.items():
        if name in sys.modules:
            patch(sys.modules[name])
    if not any(isinstance(finder, _ImportHook) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ImportHook())
    return patched()


def patched():
    """tuple of str: the patches made so far in this process, in order; empty where nothing was broken."""
    return tuple(_patched)


def _record(what):
    if what not in _patched:
        _patched.append(what)
        _logger.debug("RecBole compatibility: %s", what)


# --- NumPy -----------------------------------------------------------------------------------------------------------

# What RecBole's Config.compatibility_settings gives the old names, and the names that it reads to do so. RecBole
# sets the first group itself, but only once a Config has been built; `Interaction` and others need it before.
_NUMPY_NAMES = {
    "bool": "bool_",
    "int": "int_",
    "float": "float64",
    "complex": "complex128",
    "object": "object_",
    "str": "str_",
    "long": "int_",
    "unicode": "str_",
    "float_": "float64",
    "complex_": "complex128",
    "unicode_": "str_",
    "bool8": "bool_",  # Ray 2.6.3
}


def _restore_numpy_names():
    import numpy as np

    for old, new in _NUMPY_NAMES.items():
        # NumPy answers for removed names with warnings or errors of its own, and for deprecated ones with the
        # value: what still works is left alone.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if hasattr(np, old):
                continue
        setattr(np, old, getattr(np, new))
        _record(f"numpy.{old}")


# --- importing -------------------------------------------------------------------------------------------------------


class _ImportHook:
    """Runs a patch right after the module that it concerns has been imported."""

    def find_spec(self, name, path=None, target=None):
        patch = _ON_IMPORT.get(name)
        if patch is None:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                exec_module = spec.loader.exec_module

                def exec_and_patch(module):
                    exec_module(module)
                    if module.__name__ == name:
                        patch(module)

                spec.loader.exec_module = exec_and_patch
                return spec
        return None


class _Overlay(types.ModuleType):
    """A module seen by one module of RecBole, with a few names replaced. Nobody else sees the replacements."""

    def __init__(self, module, **replaced):
        super().__init__(module.__name__, module.__doc__)
        self.__dict__.update(replaced, _overlaid=module)

    def __getattr__(self, name):
        return getattr(self.__dict__["_overlaid"], name)


# --- pandas ----------------------------------------------------------------------------------------------------------


def _chained_fillna_is_lost():
    import pandas as pd

    frame = pd.DataFrame({"x": [float("nan")]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame["x"].fillna(value=0, inplace=True)
    return bool(frame["x"].isna().any())


def _agg_len_is_of_the_column():
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return not isinstance(pd.Series([[1], [2, 3]]).agg(len), pd.Series)


def _fill_missing_values(module):
    """``recbole.data.dataset.dataset``: missing values, which pandas 3 leaves missing."""
    if isinstance(module.pd, _Overlay) or not _chained_fillna_is_lost():
        return
    pd, dataset_class, feature_type = module.pd, module.Dataset, module.FeatureType
    fill_nan = dataset_class._fill_nan

    def read_csv(*args, **kwargs):
        # Dataset._load_feat reads columns named "field:type", fills the sequences' missing values with "" (the line
        # that is lost) and splits them. Other types keep theirs: an interaction without user or item is dropped later.
        frame = pd.read_csv(*args, **kwargs)
        for column in frame.columns:
            if str(column).endswith("_seq"):
                frame[column] = frame[column].fillna("")
        return frame

    def _fill_nan(self):
        for name in self.feat_name_list:
            feat = getattr(self, name)
            for field in feat:
                if self.field2type[field] == feature_type.TOKEN:
                    feat[field] = feat[field].fillna(value=0)
                elif self.field2type[field] == feature_type.FLOAT:
                    feat[field] = feat[field].fillna(value=feat[field].mean())
        fill_nan(self)  # what is left are the sequences, and these it does well

    module.pd = _Overlay(pd, read_csv=read_csv)
    dataset_class._fill_nan = functools.wraps(fill_nan)(_fill_nan)
    # pandas warns at the lost lines, which still run; PyTorch, that it shares the columns' memory, which nobody else
    # writes to.
    in_dataset = r"recbole\.data\.dataset"
    warnings.filterwarnings("ignore", category=pd.errors.ChainedAssignmentError, module=in_dataset)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable", module=in_dataset)
    _record("recbole Dataset: missing values")


def _measure_each_sequence(module):
    """RecBole's dataset modules: ``column.agg(len)`` has to be the length of each sequence."""
    if "len" in vars(module) or not _agg_len_is_of_the_column():
        return
    import pandas as pd

    def length(x):
        return x.map(len) if isinstance(x, pd.Series) else len(x)

    # Seen by this module alone. It takes the length of no Series other than through `agg`.
    module.len = length
    _record(f"{module.__name__}: lengths of sequences")


def _single_precision_weights(module):
    """``recbole.data.dataset.dataset``: preloaded weights are 64-bit, which KSR multiplies with its 32-bit states."""
    import numpy as np

    get_preload_weight = module.Dataset.get_preload_weight
    if getattr(get_preload_weight, "_single", False):
        return

    def get(self, field):
        return get_preload_weight(self, field).astype(np.float32)

    module.Dataset.get_preload_weight = functools.wraps(get_preload_weight)(get)
    module.Dataset.get_preload_weight._single = True
    _record("recbole Dataset: preloaded weights")


def _patch_dataset(module):
    _fill_missing_values(module)
    _measure_each_sequence(module)
    _single_precision_weights(module)


# --- SciPy -----------------------------------------------------------------------------------------------------------


def _restore_dok_update(module):
    from scipy.sparse import dok_matrix

    if hasattr(dok_matrix, "_update"):
        return

    def _update(self, data):
        self._dict.update(data)

    dok_matrix._update = _update
    _record("scipy.sparse.dok_matrix._update")


# --- anomaly detection -----------------------------------------------------------------------------------------------

_anomaly_detection_before = None


def _prepare_models(module):
    """``recbole.model.abstract_recommender`` is imported before any model: remember what was set until then."""
    global _anomaly_detection_before
    import torch

    if _anomaly_detection_before is None:
        _anomaly_detection_before = torch.is_anomaly_enabled()
    _restore_dok_update(module)


def _undo_anomaly_detection(module):
    """RecBole's SINE turns PyTorch's anomaly detection on when imported, and importing any sequential model imports
    it: every training in the process then keeps a stack trace of each operation. Back to what was set before."""
    import torch

    if torch.is_anomaly_enabled() and not _anomaly_detection_before:
        torch.autograd.set_detect_anomaly(False)
        _record("torch anomaly detection, turned on by RecBole's SINE")


# --- checkpoints -----------------------------------------------------------------------------------------------------


def _load_is_weights_only():
    import torch

    return torch.__version__ >= (2, 6)


def _recbole_globals():
    """What RecBole's checkpoints name besides what PyTorch allows anyway: ``{dotted path: object}``.

    All of it is data: RecBole's ``Config`` and the enumerations in it, and NumPy and SciPy arrays (the best score
    so far is a NumPy scalar; models such as ItemKNN and EASE keep matrices beside their weights). Classes with a
    constructor stand in as :func:`_state_only`.
    """
    import numpy as np
    import scipy.sparse
    from numpy._core import multiarray
    from recbole.config.configurator import Config
    from recbole.utils import enum_type

    found = {_path(Config): _state_only(Config)}
    for name in ("ModelType", "EvaluatorType", "InputType", "FeatureType", "FeatureSource", "KGDataLoaderState"):
        found[_path(getattr(enum_type, name))] = getattr(enum_type, name)
    # NumPy 2 moved numpy.core to numpy._core (1.26 knows both), and a checkpoint names the one that wrote it.
    for package in ("numpy.core", "numpy._core"):
        found[f"{package}.multiarray.scalar"] = multiarray.scalar
        found[f"{package}.multiarray._reconstruct"] = multiarray._reconstruct
    found["numpy.ndarray"] = np.ndarray
    found["numpy.dtype"] = np.dtype
    for kind in "?bhilqBHILQefdFDO":
        found[_path(type(np.dtype(kind)))] = type(np.dtype(kind))
    found[_path(np.matrix)] = np.matrix
    for layout in ("csr_matrix", "csc_matrix", "coo_matrix", "lil_matrix"):
        matrix = getattr(scipy.sparse, layout)
        found[_path(matrix)] = _state_only(matrix)
    return found


def _path(cls):
    return f"{cls.__module__}.{cls.__qualname__}"


@functools.lru_cache(maxsize=None)
def _state_only(cls):
    """A class that a pickle may build in place of ``cls``: given a state, its instance becomes one of ``cls``.

    A pickle may call the classes that it is allowed, with arguments of its choice. ``Config`` must not be called so:
    it passes strings in ``config_dict`` to ``eval``, so that allowing it would allow everything.
    """

    class StateOnly:
        def __setstate__(self, state):
            vars(self).update(state)
            self.__class__ = cls

    return StateOnly


def _allow_recbole_globals(module):
    """``recbole.config.configurator``: let ``torch.load(..., weights_only=True)`` read RecBole's checkpoints."""
    if not _load_is_weights_only():
        return
    import torch

    torch.serialization.add_safe_globals([(value, path) for path, value in _recbole_globals().items()])
    _record("torch safe globals")


def _use_safe_checkpoints(module):
    """``recbole.trainer.trainer``: write checkpoints that need no trust, and read them without any."""
    if isinstance(module.torch, _Overlay) or not _load_is_weights_only():
        return
    from recbole.config.configurator import Config

    torch = module.torch

    def save(obj, f, *args, pickle_protocol=2, **kwargs):
        # RecBole asks for protocol 4, of which PyTorch's restricted unpickler reads nothing.
        if isinstance(obj, dict) and isinstance(obj.get("config"), Config):
            # Its Config's class may be a subclass of the caller's own, which this process has to be able to read.
            kind = type(obj["config"])
            torch.serialization.add_safe_globals([(_state_only(kind), _path(kind))])
        return torch.save(_without_classes(obj), f, *args, **kwargs)

    module.torch = _Overlay(torch, save=save, load=load_checkpoint)
    # Once an epoch, on a scaler that RecBole creates disabled unless asked for.
    warnings.filterwarnings(
        "ignore", message=r".*torch\.cuda\.amp\.", category=FutureWarning, module=r"recbole\.trainer"
    )
    _record("recbole Trainer: checkpoints")


def _without_classes(state):
    """RecBole's checkpoint without the classes that it refers to and never reads.

    These are the model's class and YAML's loader in its ``Config``, and whole layers in ``other_parameter`` (FDSA,
    DIN, ...), whose weights are in ``state_dict`` as well. With them, each model's class would have to be allowed.
    """
    import torch

    from recbole.config.configurator import Config

    if not isinstance(state, dict) or not isinstance(state.get("config"), Config):
        return state
    state = dict(state)
    config = state["config"]
    state["config"] = object.__new__(type(config))
    vars(state["config"]).update({k: v for k, v in vars(config).items() if k not in ("model_class", "yaml_loader")})
    if isinstance(state.get("other_parameter"), dict):
        state["other_parameter"] = {
            k: v for k, v in state["other_parameter"].items() if not isinstance(v, torch.nn.Module)
        }
    return state


def load_checkpoint(file, map_location="cpu", trust=False):
    """Read a RecBole checkpoint without running anything that it says, unless it is trusted.

    ``torch.load(..., weights_only=True)`` first. A checkpoint that plain RecBole wrote is beyond it (pickle protocol
    4); such a file is read by an unpickler that builds tensors, arrays, RecBole's ``Config`` and its enumerations, and
    refuses everything else. Classes that are named but not built, as the model's class in ``Config`` is, become inert
    stand-ins. To convert such a file for use with ``torch.load``: ``torch.save(load_checkpoint(old), new)``.

    Args:
        file (str or os.PathLike): path of the checkpoint.
        map_location: as for ``torch.load``.
        trust (bool): whether a checkpoint that needs more than the allow-list may run what it says, as any pickle
            can: with the rights of this process. A warning says of which file, and what it called.

    Returns:
        dict: the checkpoint (``config``, ``epoch``, ``state_dict``, ``optimizer``, ...).

    Raises:
        OSError: the file cannot be read.
        StorageError: the file is no checkpoint, is damaged, or needs something that is not allowed.
    """
    import torch

    with open(file, "rb"):
        pass  # a missing or unreadable file keeps its own error
    _check_archive(file)
    import recbole.config.configurator  # noqa: F401 - its import allows RecBole's classes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "Detected pickle protocol 4"
            return torch.load(file, map_location=map_location, weights_only=True)
    except Exception:
        # An unsupported protocol and a damaged file look the same here; the second reader tells them apart.
        pass
    reader = _restricted_pickle()
    try:
        return _without_classes(torch.load(file, map_location=map_location, pickle_module=reader, weights_only=False))
    except Exception as error:
        # A hostile or damaged pickle can fail in any way while it is read.
        if trust and reader.refused:
            return _trusted(file, map_location, reader.refused[0])
        told = f"{os.fspath(file)}: not a RecBole checkpoint that can be read safely: {' '.join(str(error).split())}"
        if reader.refused:
            told += "; if you trust who made it with all that you may do here, say --trust-checkpoint"
        raise StorageError(told) from error


def _trusted(file, map_location, wants):
    """A checkpoint as a plain pickle, which runs what it says."""
    import torch

    _logger.warning("%s is trusted: it calls %s, and may call anything", os.fspath(file), wants)
    try:
        return _without_classes(torch.load(file, map_location=map_location, weights_only=False))
    except Exception as error:  # of any type: it is the file's own code
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise StorageError(f"{os.fspath(file)}: cannot be read even with trust: {reason}") from error


def _check_archive(file):
    # Whatever is not a plain PyTorch archive, `torch.load` would hand to older readers or to TorchScript.
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.rsplit("/", 1)[-1] for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise StorageError(f"{os.fspath(file)}: not a PyTorch checkpoint, or a damaged one") from error
    if "data.pkl" not in names or "constants.pkl" in names:
        raise StorageError(f"{os.fspath(file)}: not a PyTorch checkpoint")


def _restricted_pickle():
    """A stand-in for the ``pickle`` module whose unpickler knows an allow-list and nothing else; what was called beyond
    that, and refused, is in its list ``refused``.

    ``find_class`` hands out functions and classes made for this one call, or immutable built-in types, because a
    pickle may also set attributes of what it has been given.
    """
    import _codecs
    import collections

    import numpy as np
    import torch

    allowed = _recbole_globals()
    del allowed[_path(np.matrix)]  # mutable, and NumPy builds no stand-in for it
    allowed["collections.OrderedDict"] = collections.OrderedDict
    allowed["_codecs.encode"] = _codecs.encode
    allowed["torch.device"] = torch.device
    allowed["torch.Size"] = torch.Size
    allowed["torch.serialization._get_layout"] = torch.serialization._get_layout
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_sparse_tensor"):
        allowed[f"torch._utils.{name}"] = getattr(torch._utils, name)

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            path = f"{module}.{name}"
            if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
                return getattr(torch, name)
            if path not in allowed:
                return type(name, (_NamedOnly,), {"path": path, "refused": pickle_module.refused})
            made = allowed[path]
            if not isinstance(made, type) or issubclass(made, enum.Enum):
                return lambda *args: made(*args)
            return made if made.__flags__ & _IMMUTABLE_TYPE else type(name, (made,), {})

    pickle_module = types.ModuleType("restricted_pickle")
    pickle_module.Unpickler = Unpickler
    pickle_module.refused = []
    return pickle_module


_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE, Include/object.h


class _NamedOnly:
    """Takes the place of a class or function that is not allowed: may be named, not called."""

    path, refused = None, ()

    def __new__(cls, *args, **kwargs):
        cls.refused.append(cls.path)
        raise pickle.UnpicklingError(f"it wants to call {cls.path}")


_ON_IMPORT = {
    "recbole.config.configurator": _allow_recbole_globals,
    "recbole.data.dataset.dataset": _patch_dataset,
    "recbole.data.dataset.kg_dataset": _measure_each_sequence,
    "recbole.data.dataset.sequential_dataset": _measure_each_sequence,
    "recbole.model.abstract_recommender": _prepare_models,
    "recbole.model.sequential_recommender.sine": _undo_anomaly_detection,
    "recbole.trainer.trainer": _use_safe_checkpoints,
}
