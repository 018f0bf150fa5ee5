"""Errors that a user may meet. Each carries one line that says what is wrong and what to do."""


class FarziError(Exception):
    """Base of the errors that ``run_farzi.py`` reports in one line, without a traceback."""


class OptionError(FarziError):
    """An option is unknown, of the wrong type, or senseless together with others."""


class DataError(FarziError):
    """A dataset is missing, broken, or lacks what the plugin needs."""


class ModelError(FarziError):
    """A model is unknown, or cannot be used with soft events."""


class StorageError(FarziError):
    """A file cannot be written, or one that is read back is not what it should be."""


class TakenError(StorageError):
    """Another run is writing in a place that this one needs."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with one line that says where the run stood and what is saved."""


class DivergenceError(FarziError):
    """The numbers of a run have become useless (not finite) and it cannot recover."""
