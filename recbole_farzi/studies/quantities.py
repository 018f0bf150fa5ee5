"""Options of a study that depend on the data or the machine: a share of its events or bytes, full rank, equal time.

===============================  ===================================================================================
``events_share: s``              ``farzi_sequences`` such that the summary has this share of the training events
``bytes_share: s``               the same for bytes: Z, M, b and the items that are read, against an item id an event; it wants a
                                 ``farzi_latent_dim``
``farzi_latent_dim: full``       the smallest rank at which ``Z M`` can be any matrix: min(mu xi, V - 1)
``step_seconds: s``              ``farzi_outer_steps`` such that these take s seconds of processor time, as measured on a few
                                 (:mod:`recbole_farzi.studies.runner`); validated :data:`VALIDATIONS` times, the running mean as
                                 long for its steps as for those of any other point
===============================  ===================================================================================

``farzi_inner_batch_size`` and ``farzi_window`` are lowered to what a point allows: the sequences there are, and the inner steps.
"""

from typing import NamedTuple

from recbole_farzi.errors import DataError, OptionError
from recbole_farzi.summary import bytes_of_an_id, stored_bytes

__all__ = ["QUANTITIES", "Facts", "resolve", "steps_in_time"]

QUANTITIES = ("events_share", "bytes_share", "step_seconds")
VALIDATIONS = 4  # of a distillation of equal time
_MEAN_OVER = 0.2  # of its steps, which the running mean weighs by more than 1 / e


class Facts(NamedTuple):
    """What is known of a dataset: training events, V with padding, MAX_ITEM_LIST_LENGTH."""

    events: int
    vocabulary: int
    maximum: int


def resolve(options, defaults, facts):
    """Plain options from those of a point.

    Args:
        options: of the point, quantities among them.
        defaults: function from an option's name to its value where the point does not set it.
        facts: :class:`Facts`.

    Returns:
        dict of options that RecBole's Config takes.

    Raises:
        DataError: the point is impossible on this data, in one line: as where M alone takes more than the bytes that are asked for.
        OptionError: a quantity makes no sense.
    """
    out = {name: value for name, value in options.items() if name not in QUANTITIES}

    def get(name):
        return out.get(name, defaults(name))

    length = get("farzi_length") or facts.maximum + 1
    if "events_share" in options:
        share = _share(options, "events_share")
        out["farzi_sequences"] = max(1, round(share * facts.events / length))
    if "bytes_share" in options:
        out["farzi_sequences"] = _of_bytes(_share(options, "bytes_share"), get, length, facts)
    if get("farzi_latent_dim") == "full":
        out["farzi_latent_dim"] = min(get("farzi_sequences") * length, facts.vocabulary - 1)
    for name, most in (("farzi_inner_batch_size", get("farzi_sequences")), ("farzi_window", get("farzi_inner_steps"))):
        if get(name) > most:
            out[name] = most
    return out


def steps_in_time(seconds, one):
    """The options of a distillation that takes some time.

    Args:
        seconds: processor time of its outer steps.
        one: seconds that one takes.

    Returns:
        dict of options.

    Raises:
        OptionError: ``seconds`` is no number above 0.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= 1e9:
        raise OptionError(f"step_seconds={seconds!r} of a study must be a number above 0")
    steps = max(1, round(seconds / one))
    return {
        "farzi_outer_steps": steps,
        "farzi_eval_step": -(-steps // VALIDATIONS),
        "farzi_stopping_step": VALIDATIONS + 1,  # none ends before its time
        "farzi_outer_average": max(0.0, round(1.0 - 1.0 / (_MEAN_OVER * steps), 4)),
    }


def _share(options, name):
    share = options[name]
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share:
        raise OptionError(f"{name}={share!r} of a study must be a number above 0")
    return share


def _of_bytes(share, get, length, facts):
    of_an_id, bits = bytes_of_an_id(facts.vocabulary), get("farzi_bits")
    most, of_an_input = share * facts.events * of_an_id, 0 if get("farzi_inputs") == "soft" else of_an_id

    def size(sequences, rank):
        events = sequences * length
        return stored_bytes(events, rank, facts.vocabulary, bits) + of_an_input * events

    rank = get("farzi_latent_dim")
    if rank is None:
        raise OptionError("bytes_share of a study wants a farzi_latent_dim: how many bytes an event takes depends on it")
    if rank == "full":
        rank = facts.vocabulary - 1  # with fewer events the rank, and the bytes, are smaller: then that is the largest that fits
        counts = range(1, int(most // (length * max(1, of_an_input))) + 1)
        sequences = max((count for count in counts if size(count, min(count * length, rank)) <= most), default=0)
    else:
        sequences = int((most - size(0, rank)) // (size(1, rank) - size(0, rank)))
    if sequences < 1:
        raise DataError(
            f"rank {rank} does not fit: the token decoder leaves no room for a sequence of {length} events in "
            f"{share:.3g} of the data's bytes"
        )
    return sequences
