"""TensorBoard's curves, without which a run goes on: a folder that is removed under them, or a full disk, costs a line."""

import logging
import threading

__all__ = ["Curves"]


class Curves:
    """A ``SummaryWriter`` that stops writing, with one warning, at the first error of the system; all its methods are there.

    Its own methods write in another thread, whose errors it raises at a later call.

    Args:
        writer: ``torch.utils.tensorboard.SummaryWriter``.
    """

    def __init__(self, writer):
        _silence_its_thread()
        self._writer = writer
        self._lost = False

    def __getattr__(self, name):
        value = getattr(self._writer, name)
        if not callable(value):
            return value

        def call(*args, **kwargs):
            if self._lost:
                return None
            try:
                return value(*args, **kwargs)
            except OSError as error:
                self._lost = True
                logging.getLogger().warning(
                    f"TensorBoard's curves end here: cannot write in {self._writer.log_dir}: {error.strerror or error}"
                )

        return call


def _silence_its_thread():
    """Python prints the traceback of the thread as well: not where the error is one that :class:`Curves` reports."""
    before = threading.excepthook
    if getattr(before, "knows_curves", False):
        return

    def hook(args):
        theirs = type(args.thread).__module__ == "tensorboard.summary.writer.event_file_writer"
        if not (theirs and issubclass(args.exc_type, OSError)):
            before(args)

    hook.knows_curves = True
    threading.excepthook = hook
