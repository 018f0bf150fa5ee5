"""How much memory a plan takes, found out before it starts; and what fits where it does not.

The cost of one inner step and of one outer loss is *measured*, on one, two and four sequences (over a large
vocabulary on one and two, where what grows with the square is little), which is cheap whatever the plan (it grows
with their square: every event of a batch is scored against every other, as a virtual item); soft events that are read
in blocks (:mod:`recbole_farzi.vocabulary_blocks`) are measured so. What the plan makes of it
follows from its shapes: vocabulary, sequences, length, batches, size of the model, inner steps that are
differentiated, and how many of their states are stored. The numbers are those of tensors: what libraries keep for
themselves comes on top, so that an estimate is no promise. Where memory ends all the same, the distiller stores fewer
states (:class:`recbole_farzi.distillation.Distiller`).
"""

import dataclasses
import math
import os
import weakref
from pathlib import Path

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recbole_farzi.adjoint import Adam, StoreAll, unroll
from recbole_farzi.blockwise import SCORES_IN_MEMORY
from recbole_farzi.errors import OptionError
from recbole_farzi.generation import bytes_at_once
from recbole_farzi.soft_events import WHOLE_EVENTS, LatentEvents
from recbole_farzi.training import ROWS_PER_WINDOW
from recbole_farzi.update_rules import differentiable_rule

__all__ = ["Costs", "PeakBytes", "Plan", "available", "check_model", "check_plan", "is_out_of_memory", "measure", "needed", "plan", "stored_states"]

_REAL = 4  # bytes
_START = 2  # copies of the soft events' logits while they are factorised, beside
_BLOCKS = 4  # what is computed of them block by block
_EVALUATION = 5  # copies of the scores that RecBole's evaluation holds at once: its own, masked, sorted, of top items


def is_out_of_memory(error):
    """NumPy's and Python's MemoryError, CUDA's error, and the plain RuntimeError of PyTorch's CPU allocator."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside and alive at once.

    Attributes:
        peak: most of them.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        given = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                storage = tensor.untyped_storage()
                if id(storage) not in self._seen and id(storage) not in given:
                    self._add(storage)
        return out

    def _add(self, storage):
        key, size = id(storage), storage.nbytes()
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key, size):
        self._seen.discard(key)
        self.now -= size


@dataclasses.dataclass(frozen=True)
class Costs:
    """What was measured, in bytes, for a batch of n: ``(a, b, c)`` of ``a + b n + c n^2``.

    Attributes:
        inner: of an inner step and its products, by synthetic sequences.
        outer: of the loss of windows and its gradient, by windows.
    """

    inner: tuple
    outer: tuple


@dataclasses.dataclass(frozen=True)
class Plan:
    """The shapes that memory depends on; names as in the options.

    Attributes:
        vocabulary: V.
        parameters: numbers that are trained in a model.
        vectors: as long as the parameters, that an inner state holds: they, and what the update rule keeps beside them.
        length: xi.
        latent_dim: d, the largest of which the start may choose.
        window: W, inner steps that are differentiated.
        trajectories: inner trajectories in flight.
        outer_block: windows of the outer loss whose scores exist at a time.
        sequences, inner_batch_size, checkpoint_every: options ``farzi_...``.
        train_batch_size, eval_batch_size: RecBole's options.
        kept: models of the pool that are in memory while the summary is distilled: teachers, and snapshots where they are used.
        rows: that evaluation has of a user at the most: as many as events are read, where every position is predicted.
        by_blocks: the inner loop reads soft events in blocks of items, so that ``P`` never exists.
        from_teacher: the start is factorised from a teacher's predictions; others are made without ``P``.
        start_singles: further predictions that it is factorised from, after one item each.
        writes: the teacher writes histories.
        rows_per_window: that a model has in a batch of training on real events: more than one if it cannot read all positions at once.
    """

    vocabulary: int
    parameters: int
    vectors: int
    length: int
    latent_dim: int
    window: int
    trajectories: int
    sequences: int
    inner_batch_size: int
    outer_block: int
    checkpoint_every: int
    train_batch_size: int
    eval_batch_size: int
    kept: int = 0
    rows: int = 1
    by_blocks: bool = False
    from_teacher: bool = True
    start_singles: int = 0
    writes: bool = False
    rows_per_window: int = 1


def plan(config, options, student):
    """The :class:`Plan` of a job.

    Args:
        config: RecBole's Config.
        options: :class:`recbole_farzi.options.Options`.
        student: :class:`recbole_farzi.student.Student`.
    """
    outer, summary = options.outer, options.summary
    block = max(1, SCORES_IN_MEMORY // (student.model.max_seq_length * student.vocabulary * _REAL))
    return Plan(
        vocabulary=student.vocabulary,
        parameters=sum(p.numel() for p in student.model.parameters() if p.requires_grad),
        vectors=_vectors(options.inner),
        length=summary.length,
        latent_dim=summary.latent_dims[-1],
        window=outer.window,
        trajectories=outer.trajectories if outer.unroll == "windows" and outer.window < options.inner.steps else 1,
        sequences=summary.sequences,
        inner_batch_size=options.inner.batch_size,
        outer_block=min(outer.batch_size, outer.block or block),
        checkpoint_every=outer.checkpoint_every,
        train_batch_size=config["train_batch_size"],
        eval_batch_size=config["eval_batch_size"],
        kept=_kept(config, options),
        rows=student.model.max_seq_length if config["farzi_positions"] == "every" else 1,
        by_blocks=student.traits.by_blocks(summary.sequences * summary.length),
        from_teacher=summary.start == "teacher",
        start_singles=summary.singles(student.vocabulary),
        writes=summary.inputs == "generated" or outer.written > 0,
        rows_per_window=ROWS_PER_WINDOW if student.traits.by_rows else 1,
    )


def _kept(config, options):
    """The teachers as the pool has them and as they predict; snapshots from which trajectories begin; those of experts, twice."""
    pool, outer = options.pool, options.outer
    snapshots = pool.models * sum(epoch <= config["epochs"] for epoch in pool.snapshots)
    matched = 2 * snapshots if outer.objective == "trajectory" else 0
    return 2 * pool.teachers + max(matched, snapshots if outer.pretrained > 0 else 0)


def check_model(model, inner, room):
    """Refuse a model of which no further ones fit, before they are made to be measured: one each for the inner and the outer loss,
    and two inner states.

    Args:
        model: the first of them, which is there already.
        inner: :class:`recbole_farzi.options.InnerOptions`.
        room: bytes, as :func:`available` gives them.

    Raises:
        OptionError: in one line.
    """
    numbers = sum(p.numel() for p in model.parameters())
    least = (2 + 2 * _vectors(inner)) * numbers * _REAL
    if least > room:
        raise OptionError(
            f"{type(model).__name__} has {numbers:,} parameters with these options; distilling it takes {_gib(least)} at the least, "
            f"and {_gib(room)} are free: take a smaller model or more memory"
        )


def _vectors(inner):
    return 1 + len(differentiable_rule(inner, inner.learning_rate).slots)


def stored_states(steps, every):
    """Most inner states that are held at once: ``checkpoint_every`` of 0 stores all, k every k-th and a segment, -1 least."""
    if every == 0:
        return steps
    if every == -1:
        return min(steps, max(2, math.isqrt(max(steps - 1, 0)) + 1))
    return min(steps, -(-steps // every) + min(every, steps))


def measure(student, judge, length, device, teacher=0.0, latent_dim=None):
    """Take one inner step and one outer loss, on few sequences, and see what they hold.

    Args:
        student: :class:`recbole_farzi.student.Student` for soft events.
        judge: the same for real ones.
        length: xi.
        device: torch device.
        teacher: share of a teacher's distributions in the targets of the outer loss.
        latent_dim: d, of soft events that are read in blocks of items; None: they are not.

    Returns:
        :class:`Costs`.
    """
    numbers = (1, 2, 4) if 4 * length * student.vocabulary * _REAL <= SCORES_IN_MEMORY else (1, 2)
    inner = [_peak(lambda n=n: _inner_step(student, n, length, device, latent_dim), device) for n in numbers]
    outer = [_peak(lambda n=n: _outer_loss(judge, n, device, teacher), device) for n in numbers]
    return Costs(_quadratic(*inner), _quadratic(*outer))


def _quadratic(one, two, four=None):
    """Coefficients, none below 0, of the quadratic through the values at 1, 2 and 4, or of the line through the first two."""
    c = 0.0 if four is None else max(0.0, ((four - two) / 2 - (two - one)) / 3)
    b = max(0.0, two - one - 3 * c)
    return max(0.0, one - b - c), b, c


def _of(cost, n):
    a, b, c = cost
    return a + b * n + c * n * n


def _inner_step(student, sequences, length, device, latent_dim):
    params = student.parameter_dict()
    if latent_dim is None:
        soft = torch.full((sequences, length, student.vocabulary), 1.0 / student.vocabulary, device=device, requires_grad=True)
    else:
        shapes = (sequences, length, latent_dim), (latent_dim, student.vocabulary), (student.vocabulary,)
        soft = LatentEvents(*(torch.zeros(shape, device=device, requires_grad=True) for shape in shapes), 1.0)

    def loss(params, events, step):
        return student.soft_loss(events, params)

    final = unroll(loss, params, soft, optimizer=Adam(lr=1e-3, eps=1e-5), steps=1, adjoint=StoreAll(), seed=0)
    sum(final[name].sum() for name in params).backward()


def _outer_loss(judge, windows, device, teacher):
    params = {name: value.requires_grad_(True) for name, value in judge.parameter_dict().items()}
    rows = torch.ones(windows, judge.model.max_seq_length + 1, dtype=torch.long, device=device)
    with torch.no_grad():
        expected = judge.predictions(rows) if teacher else None
    judge.real_loss(rows, params, expected, teacher).backward()


def _peak(function, device):
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        function()  # what is made once, at the first call, is no cost of a step
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            function()
            torch.cuda.synchronize(device)
            return torch.cuda.max_memory_allocated(device) - before
        with PeakBytes() as counted:
            function()
        return counted.peak


def needed(plan, costs):
    """Bytes that a plan takes at its most in each stage: ``{stage: bytes}``.

    ``the start`` is made in main memory: it is factorised from the logits of all soft events, and of single items, if a teacher predicts it,
    and what the teacher writes is drawn there; ``distillation`` holds the models' states, the soft events with
    their gradients (what they are made of, where they are read in blocks), and either an inner step with its products or an outer
    loss; ``training`` a batch of real windows with the optimiser; ``evaluation`` the scores of a batch of users.
    """
    state = 3 * plan.parameters * _REAL  # of RecBole's Adam, which trains on real events
    inner_state = plan.vectors * plan.parameters * _REAL
    inner, outer = _of(costs.inner, plan.inner_batch_size), _of(costs.outer, plan.outer_block)
    soft_events = plan.sequences * plan.length * plan.vocabulary * _REAL
    whole = 0 if plan.by_blocks else soft_events
    summary = (plan.sequences * plan.length + plan.vocabulary) * plan.latent_dim * _REAL
    decomposition = 6 * plan.vocabulary * (plan.latent_dim + 10) * _REAL  # of a few more vectors than the rank
    predicted = soft_events + plan.start_singles * plan.vocabulary * _REAL
    factorised = _START * predicted + min(3 * predicted, _BLOCKS * SCORES_IN_MEMORY)
    written = bytes_at_once(plan.vocabulary) if plan.writes else 0
    states = (stored_states(plan.window, plan.checkpoint_every) + plan.trajectories) * inner_state
    kept = plan.kept * plan.parameters * _REAL
    return {
        "the start": kept + max(written, (factorised if plan.from_teacher else 0) + 6 * summary + decomposition),
        # logits, P and the gradients of both; Z and M, their gradients, Adam's two moments, the running mean and the best
        "distillation": kept + states + 4 * whole + 6 * summary + max(inner, outer),
        "training": kept + 2 * state + _of(costs.outer, plan.train_batch_size * plan.rows_per_window),
        "evaluation": kept + state + _EVALUATION * plan.eval_batch_size * plan.rows * plan.vocabulary * _REAL,
    }


def available(device):
    """Bytes that this process may still take on a device: free memory, within the limits of its control group and of its
    own (``ulimit -v``)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    rooms = [psutil.virtual_memory().available]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            rooms.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            rooms.append(soft - psutil.Process(os.getpid()).memory_info().vms)
    except ImportError:  # no POSIX
        pass
    return max(0, min(rooms))


# Option of each field that may be lowered, and to what it may be.
_LOWERED = {
    "the start": ("sequences", "start_singles"),
    "distillation": ("outer_block", "inner_batch_size", "sequences"),
    "training": ("train_batch_size",),
    "evaluation": ("eval_batch_size",),
}


def check_plan(plan, costs, room, main=None):
    """Refuse a plan that takes more memory than there is, and name the nearest that fits.

    Args:
        plan: :class:`Plan`.
        costs: :class:`Costs`.
        room: bytes of the device, as :func:`available` gives them.
        main: bytes of main memory; None: as many.

    Raises:
        OptionError: in one line, with what to change.
    """
    rooms = {"the start": room if main is None else main}
    over = {stage: size - rooms.get(stage, room) for stage, size in needed(plan, costs).items()}
    stage = max(over, key=over.get)
    if over[stage] <= 0:
        return
    room_there = rooms.get(stage, room)
    fitting = _nearest(plan, costs, lambda stage: rooms.get(stage, room))
    says = f"this plan would take about {_gib(over[stage] + room_there)} in {stage}, and {_gib(room_there)} are free"
    if fitting is None:
        raise OptionError(
            f"{says}; nothing that could be lowered makes it fit: take a smaller model, fewer items"
            f"{', far fewer sequences' if plan.by_blocks else ''} or more memory"
        )
    raise OptionError(f"{says}; it fits with " + " ".join(_changes(plan, fitting)))


def _nearest(plan, costs, room):
    """The plan with as little lowered as makes it fit, by a greedy search; None if nothing does."""

    def over(candidate):
        return {stage: size for stage, size in needed(candidate, costs).items() if size > room(stage)}

    first = plan
    if "distillation" in over(plan) and plan.checkpoint_every != -1:
        plan = dataclasses.replace(plan, checkpoint_every=-1)  # costs time alone
    while stages := over(plan):
        choices = [_halved(plan, field) for stage in stages for field in _LOWERED[stage]]
        sizes = [sum(needed(choice, costs)[stage] for stage in stages) for choice in choices]
        smaller = [(size, number) for number, size in enumerate(sizes) if choices[number] != plan]
        if not smaller:
            return None
        plan = choices[min(smaller)[1]]
    for field in ("sequences", "start_singles", "inner_batch_size", "outer_block", "train_batch_size", "eval_batch_size"):
        low, high = getattr(plan, field), getattr(first, field)
        while low < high:  # the largest that fits
            middle = (low + high + 1) // 2
            if over(dataclasses.replace(plan, **{field: middle})):
                high = middle - 1
            else:
                low = middle
        plan = dataclasses.replace(plan, **{field: low})
    return plan


def _halved(plan, field):
    # soft events that are read in blocks stay so many that they are: nothing was measured of them as a whole
    least = 1 + WHOLE_EVENTS // (plan.length * plan.vocabulary * _REAL) if plan.by_blocks and field == "sequences" else 1
    plan = dataclasses.replace(plan, **{field: max(min(least, getattr(plan, field)), getattr(plan, field) // 2)})
    return dataclasses.replace(plan, inner_batch_size=min(plan.inner_batch_size, plan.sequences))


def _changes(before, after):
    for field in dataclasses.fields(before):
        value = getattr(after, field.name)
        if value != getattr(before, field.name):
            prefix = "" if field.name in ("train_batch_size", "eval_batch_size") else "farzi_"
            yield f"--{prefix}{field.name}={value}"


def _gib(size):
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
