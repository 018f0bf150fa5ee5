"""What a meta-gradient costs: `recbole_farzi.adjoint` beside plain autograd, `higher` and TorchOpt.

    python -m pip install -c constraints.txt -e '.[benchmarks]'
    python benchmarks/adjoint.py                      # writes results/adjoint/: results.json, table.md, figure.png
    python benchmarks/adjoint.py --device cuda        # the same on a GPU, to results/adjoint-cuda/
    python benchmarks/adjoint.py --draw               # table and figure anew, from results.json
    python benchmarks/adjoint.py --profile            # where the time goes: profile.md, in half a minute
    python benchmarks/adjoint.py --states             # how memory grows with T: states.md, in two minutes

The inner problem is RecBole's SASRec (as in properties/model/SASRec.yaml) or GRU4Rec (RecBole's own sizes, no dropout)
with the vocabulary of ML-100K, trained on random soft events by Adam, the loss being the plugin's; the outer loss is a
fixed linear function of the final parameters, which costs nothing; the meta-gradient is that for the soft events.

Two questions are asked. A sweep over T with small batches, so that the peers fit into memory; there the overhead of an
operation counts for much. And T = 200 with batches of the plugin's own default size (10 sequences of 51 events), where
the work itself does; the peers, whose memory grows with batch and T, are left out there. At T = 200 there are `--rounds`
rounds, elsewhere one. The record is of `--rounds 3 --minutes 60`.

Every measurement is a process of its own, forked from one that has imported everything, so that peak memory is the
contender's. Contenders take turns, and a ratio is to the plain training steps of the same round; medians are over
rounds. Times are CPU time (on a GPU: wall time up to a synchronisation), since the wall time of a shared machine says
little; it is in results.json. On a CPU a contender may take `--memory` GiB above what its process began with; one that
wants more is shown as "out of memory", and one that fails in another way as that. `Compiled` compiles before the fork;
its seconds are shown.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
import traceback
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from recbole_farzi import adjoint
from recbole_farzi.configuration import build_config
from recbole_farzi.soft_events import soft_distributions
from recbole_farzi.storage import write_text
from recbole_farzi.student import Student

try:
    import higher
except ImportError:
    higher = None
try:
    import torchopt
except ImportError:
    torchopt = None

ROOT = Path(__file__).resolve().parent.parent
STEPS = (10, 50, 100, 200, 500, 1000)
OWN_SIZE, OWN_STEPS = (10, 51), 200  # farzi_inner_batch_size, farzi_length
LR, EPS = 0.005, 1e-5
VOCABULARY = 1683  # ML-100K's items and the padding


class Vocabulary:
    """What a RecBole model asks a dataset for."""

    def num(self, field):
        return VOCABULARY


class Problem:
    """Inner loss, initial parameters, soft events, batches and outer loss."""

    def __init__(self, model, size, steps, options, dtype=torch.float32):
        device = options.device
        sequences, events = size
        config, model_class = build_config(
            model, "ml-100k", (), {"show_progress": False, "state": "ERROR", "use_gpu": device == "cuda"}
        )
        torch.manual_seed(0)
        # In evaluation mode: no dropout, so that all contenders have the same loss.
        self.student = Student(model_class(config, Vocabulary()).eval().to(device))
        self.student.model.to(dtype)
        self.params = {name: value.to(dtype) for name, value in self.student.parameter_dict().items()}
        generator = torch.Generator().manual_seed(1)
        latent = torch.randn(5 * sequences, events, 8, generator=generator)
        decoder = torch.randn(8, VOCABULARY, generator=generator)
        self.data = soft_distributions(latent, decoder).to(device, dtype)
        self.batches = [
            torch.randperm(len(latent), generator=generator)[:sequences].to(device) for _ in range(steps)
        ]
        self.weights = {
            name: torch.randn(value.shape, generator=generator).to(device, dtype) for name, value in self.params.items()
        }
        self.steps = steps
        self.kind = (model, size)

    def loss(self, params, rows, step=None):
        return self.student.soft_loss(rows, params)

    def outer(self, params):
        return sum((params[name] * weight).sum() for name, weight in self.weights.items())


class Net(torch.nn.Module):
    """The same loss as a module that holds its parameters, which is what the peers differentiate through."""

    def __init__(self, problem):
        super().__init__()
        self._keys = {name.replace(".", "__"): name for name in problem.params}
        for key, name in self._keys.items():
            self.register_parameter(key, torch.nn.Parameter(problem.params[name].clone()))
        self._loss = problem.loss

    def named(self):
        return {name: getattr(self, key) for key, name in self._keys.items()}

    def forward(self, rows):
        return self._loss(self.named(), rows)


# Contenders: function from a problem to the gradient for the data (or None for the yardstick).


def plain(problem):
    """T plain training steps: no meta-gradient."""
    params = {name: value.clone().requires_grad_() for name, value in problem.params.items()}
    optimizer = torch.optim.Adam(params.values(), lr=LR, eps=EPS)
    for rows in problem.batches:
        optimizer.zero_grad()
        problem.loss(params, problem.data.index_select(0, rows)).backward()
        optimizer.step()


def plain_captured(problem):
    """The same, one captured CUDA graph a step."""
    params = {name: value.clone().requires_grad_() for name, value in problem.params.items()}
    optimizer = torch.optim.Adam(params.values(), lr=LR, eps=EPS, capturable=True)
    rows = problem.batches[0].clone()

    def step():
        optimizer.zero_grad()
        problem.loss(params, problem.data.index_select(0, rows)).backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for batch in problem.batches:
        rows.copy_(batch)
        graph.replay()
    torch.cuda.synchronize()
    return time.perf_counter() - began  # without the capture, which is done once for a training


def ours(strategy, loss=None):
    def run(problem):
        data = problem.data.clone().requires_grad_()
        final = adjoint.unroll(
            loss or problem.loss,
            problem.params,
            data,
            optimizer=adjoint.Adam(LR, eps=EPS),
            steps=problem.steps,
            adjoint=strategy(problem.steps),
            batches=problem.batches,
        )
        return torch.autograd.grad(problem.outer(final), data)[0]

    return run


def compiled(strategy):
    """The same on the compiled loss of the parent process."""

    def run(problem):
        if problem.kind not in _COMPILED:
            raise RuntimeError("not compiled")
        return ours(strategy, loss=_COMPILED[problem.kind])(problem)

    return run


_COMPILED = {}


def captured(problem):
    """`StoreAll` on captured graphs; the capture itself is in the time."""
    return ours(lambda steps: adjoint.StoreAll(), loss=adjoint.Captured(problem.loss))(problem)


def with_higher(problem):
    net, data = Net(problem), problem.data.clone().requires_grad_()
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, eps=EPS)
    with higher.innerloop_ctx(net, optimizer, copy_initial_weights=False) as (inner, inner_optimizer):
        for rows in problem.batches:
            inner_optimizer.step(inner(data.index_select(0, rows)))
        return torch.autograd.grad(problem.outer(inner.named()), data)[0]


def with_torchopt(accelerated):
    def run(problem):
        net, data = Net(problem), problem.data.clone().requires_grad_()
        optimizer = torchopt.MetaAdam(net, lr=LR, eps=EPS, use_accelerated_op=accelerated)
        for rows in problem.batches:
            optimizer.step(net(data.index_select(0, rows)))
        return torch.autograd.grad(problem.outer(net.named()), data)[0]

    return run


PLAIN, REFERENCE, HIGHER = "plain training", "autograd (Unrolled)", "higher"
STORED, LEAST = "StoreAll", "Checkpointed"
COMPILED, LEAST_COMPILED = "StoreAll, Compiled", "Checkpointed, Compiled"
PLAIN_CAPTURED, CAPTURED = "plain training, captured", "StoreAll, Captured"
CONTENDERS = {
    PLAIN: plain,
    PLAIN_CAPTURED: plain_captured,
    REFERENCE: ours(lambda steps: adjoint.Unrolled()),
    HIGHER: with_higher if higher else None,
    "TorchOpt MetaAdam": with_torchopt(False) if torchopt else None,
    "TorchOpt MetaAdam, accelerated": with_torchopt(True) if torchopt else None,
    STORED: ours(lambda steps: adjoint.StoreAll()),
    COMPILED: compiled(lambda steps: adjoint.StoreAll()),
    CAPTURED: captured,
    LEAST: ours(lambda steps: adjoint.Checkpointed()),
    LEAST_COMPILED: compiled(lambda steps: adjoint.Checkpointed()),
    "Truncated, last T / 5": ours(lambda steps: adjoint.Truncated(last=steps // 5)),
}
INEXACT = (PLAIN, PLAIN_CAPTURED, COMPILED, CAPTURED, LEAST_COMPILED, "Truncated, last T / 5")  # or shown by others
SHORT = tuple(name for name in CONTENDERS if name not in (COMPILED, LEAST_COMPILED))  # of the sweep, below T = 200
LONG = (PLAIN, PLAIN_CAPTURED, HIGHER, STORED, CAPTURED, LEAST)  # those beyond T = 200
OWN = (PLAIN, PLAIN_CAPTURED, STORED, COMPILED, CAPTURED, LEAST, LEAST_COMPILED)  # those at the plugin's size


def taking_part(names, model, options):
    """Of `names`, those that this device and model have."""
    left_out = {PLAIN_CAPTURED, CAPTURED} if options.device == "cpu" else set()
    if model not in options.compiled:
        left_out |= {COMPILED, LEAST_COMPILED}
    return [name for name in names if name not in left_out]


def compile_for(model, size, options):
    """Compile the derivatives of a loss in this process, for its forks; CPU seconds."""
    problem = Problem(model, size, 2, options)
    _COMPILED[problem.kind] = adjoint.Compiled(problem.loss)
    began = time.process_time()
    CONTENDERS[COMPILED](problem)
    return time.process_time() - began


# Measurements, each in a process of its own.


def _status(key):
    """A line of /proc/self/status, in MiB."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))


def _measure(send, contender, model, size, steps, dtype, options, returned):
    try:
        torch.set_num_threads(options.threads)
        cuda = options.device == "cuda"
        run = CONTENDERS[contender]
        run(Problem(model, size, 5, options, dtype))  # whatever is set up on first use
        problem = Problem(model, size, steps, options, dtype)
        gc.collect()
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() / 2**20
        else:
            if returned:
                ctypes.CDLL(None).mallopt(-3, 2**16)  # M_MMAP_THRESHOLD: a tensor's memory is the system's once it is freed
            ctypes.CDLL(None).malloc_trim(0)  # memory that is free but still held would hide some of the peak
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
            before = _status("VmRSS")
            limit = int((_status("VmData") + options.memory * 1024) * 2**20)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        cpu, wall = time.process_time(), time.perf_counter()
        gradient = run(problem)
        if cuda:
            torch.cuda.synchronize()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if isinstance(gradient, float):
            cpu, wall, gradient = gradient, gradient, None
        peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else _status("VmHWM")
        if gradient is not None:
            gradient = gradient.double().cpu().numpy()
        found = {"cpu": cpu, "wall": wall, "memory": max(0.0, peak - before), "gradient": gradient}
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        memory = isinstance(error, MemoryError) or any(s in text for s in ("alloc", "out of memory", "Cannot allocate"))
        found = {"failure": "out of memory" if memory else f"failed: {(text.splitlines() or [''])[0][:80]}"}
    except Exception as error:  # a peer may fail in any way
        traceback.print_exc()
        found = {"failure": f"failed: {type(error).__name__}"}
    send.send(found)
    send.close()


def measure(contender, model, size, steps, options, dtype=torch.float32, returned=False, start="fork"):
    """One run in a process of its own: times, memory and gradient, or why there are none.

    With ``returned``, freed tensors go back to the system at once (glibc): slower, and no fragments count as memory.
    """
    if CONTENDERS[contender] is None:
        return {"failure": "not installed"}
    context = multiprocessing.get_context("spawn" if options.device == "cuda" else start)
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(send, contender, model, size, steps, dtype, options, returned))
    process.start()
    send.close()
    try:
        found = receive.recv()
    except EOFError:
        found = None
    process.join()
    return found or {"failure": "out of memory" if process.exitcode in (-9, -6, -11) else f"died ({process.exitcode})"}


def relative(gradient, reference):
    difference = torch.from_numpy(gradient - reference).norm()
    return float(difference / torch.from_numpy(reference).norm())


def compete(model, size, steps, names, rounds, options, reference):
    """Contenders in turn: a row for each."""
    found = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            found[name].append(measure(name, model, size, steps, options))
            show(model, steps, name, found[name][-1])
    target, exact = None, {}
    if reference:
        target = measure(REFERENCE, model, size, steps, options, torch.float64).get("gradient")
        for name in names if target is not None else ():
            double = {} if name in INEXACT else measure(name, model, size, steps, options, torch.float64)
            if double.get("gradient") is not None:
                exact[name] = relative(double["gradient"], target)
                show(model, steps, f"{name}, float64", {"error": exact[name]})
    yardsticks = found[PLAIN if options.device == "cpu" else PLAIN_CAPTURED]
    key = "cpu" if options.device == "cpu" else "wall"
    rows = []
    for name, runs in found.items():
        row = {"model": model, "size": list(size), "steps": steps, "contender": name, "rounds": rounds}
        failure = next((run["failure"] for run in runs if "failure" in run), None)
        if failure:
            row["failure"] = failure
        else:
            row |= {k: statistics.median(run[k] for run in runs) for k in ("cpu", "wall", "memory")}
            row["ratio"] = statistics.median(run[key] / base[key] for run, base in zip(runs, yardsticks))
            if target is not None and runs[0]["gradient"] is not None and not name.startswith("Truncated"):
                row |= {"error32": relative(runs[0]["gradient"], target), "error64": exact.get(name)}
        rows.append(row)
    return rows


def plan(options):
    """All competitions, the more telling ones first: model, size, T, contenders, rounds, whether with a reference."""
    small = (options.sequences, options.events)
    order = [OWN_STEPS, min(STEPS), max(STEPS)]
    sweep = sorted(options.steps, key=lambda steps: (order.index(steps) if steps in order else len(order), steps))
    for place, steps in enumerate(sweep):
        if place == min(1, len(sweep) - 1):
            for model in options.models:
                yield model, OWN_SIZE, OWN_STEPS, OWN, options.rounds, False
        for model in options.models:
            names = SHORT if steps < OWN_STEPS else tuple(CONTENDERS) if steps == OWN_STEPS else LONG
            yield model, small, steps, names, options.rounds if steps == OWN_STEPS else 1, steps <= options.reference


def run(options):
    """Rows of all competitions that begin within the time, and how long compiling took."""
    began, rows, compiling = time.perf_counter(), [], []
    for model, size, steps, names, rounds, reference in plan(options):
        if (time.perf_counter() - began) / 60 > options.minutes:
            rows.append({"model": model, "size": list(size), "steps": steps, "contender": "all", "rounds": 0})
            rows[-1]["failure"] = f"not begun within {options.minutes:g} minutes"
            continue
        failed = [r["contender"] for r in rows if r["model"] == model and r["steps"] < steps and "failure" in r]
        names = [name for name in taking_part(names, model, options) if name not in failed]
        if COMPILED in names:
            compiling.append({"model": model, "size": size, "seconds": compile_for(model, size, options)})
            show(model, steps, "compiling", {"cpu": compiling[-1]["seconds"]})
        rows += compete(model, size, steps, names, rounds, options, reference)
    return rows, compiling


def show(model, steps, name, found):
    values = " ".join(f"{k} {v:.3g}" for k, v in found.items() if isinstance(v, float))
    print(f"{model:8s} T = {steps:4d}  {name:32s} {found.get('failure', values)}", flush=True)


def states(options):
    """Markdown: how the memory of `Checkpointed` grows with T, in states, by the process's peak."""
    size, first = (options.sequences, options.events), min(STEPS)
    lines = [
        "# How memory grows with T",
        "",
        f"Made by `python benchmarks/adjoint.py --states` (PyTorch {torch.__version__}): peak memory of a process of its own, "
        f"`{LEAST}` with least memory, Adam, batches of {size[0]} sequences of {size[1]} events, above that at T = {first}, in "
        "states (parameters and two moments). *Returned at once*: glibc's `M_MMAP_THRESHOLD` is 64 KiB, so that a freed tensor's "
        "memory is the system's again and fragments of the heap do not count.",
        "",
        "| model | T | sqrt(T) | states | states, returned at once |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for model in options.models:
        params = Problem(model, (1, 3), 1, options).params
        state = 3 * sum(p.numel() * p.element_size() for p in params.values()) / 2**20
        peaks = {}
        for steps in (first, 100, 300, max(STEPS)):
            for returned in (False, True):
                found = measure(LEAST, model, size, steps, options, returned=returned, start="spawn")
                peaks[steps, returned] = found["memory"]
            if steps > first:
                grown = [(peaks[steps, returned] - peaks[first, returned]) / state for returned in (False, True)]
                lines.append(f"| {model} | {steps} | {steps**0.5:.1f} | {grown[0]:.1f} | {grown[1]:.1f} |")
                print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def profile(options):
    """Markdown: operations and their arithmetic, forward and in reverse (counted), and shares of the time (profiled)."""
    products = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
    steps = 5
    lines = [
        "# Where the time goes",
        "",
        f"Made by `python benchmarks/adjoint.py --profile` (PyTorch {torch.__version__}, one thread, `StoreAll`, "
        f"{steps} steps). Operations and the floating-point operations of matrix products are counts, a step. Shares of "
        "the time are the profiler's, whose own overhead makes small operations look slower than they are; *outside* is "
        "autograd's engine, Python, and the release of memory.",
        "",
        "| model | events | pass | operations | matrix products, MFLOP | share of time | other operations | outside |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for model in options.models:
        for size in (OWN_SIZE, (options.sequences, options.events)):
            problem = Problem(model, size, steps, options)

            def forward(data):
                rule = adjoint.Adam(LR, eps=EPS)
                final = adjoint.unroll(
                    problem.loss, problem.params, data, optimizer=rule, steps=steps, batches=problem.batches
                )
                return problem.outer(final)

            data, passes, flops = problem.data.clone().requires_grad_(), {}, {}
            with FlopCounterMode(display=False) as flops["forward"]:
                value = forward(data)
            with FlopCounterMode(display=False) as flops["reverse"]:
                torch.autograd.grad(value, data)
            with torch.profiler.profile() as passes["forward"]:
                value = forward(data)
            with torch.profiler.profile() as passes["reverse"]:
                torch.autograd.grad(value, data)
            for name, found in passes.items():
                spent, calls = {"products": 0.0, "others": 0.0, "outside": 0.0}, 0
                for event in found.key_averages():
                    inside = "products" if event.key in products else "others"
                    kind = inside if event.key.startswith("aten::") else "outside"
                    spent[kind] += event.self_cpu_time_total
                    calls += event.count if kind != "outside" else 0
                cells = [str(calls // steps), f"{flops[name].get_total_flops() / 1e6 / steps:.0f}"]
                cells += [f"{value / sum(spent.values()):.0%}" for value in spent.values()]
                lines.append(f"| {model} | {size[0]} x {size[1]} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


# What is written.


def table(results):
    """Markdown: for each model the plugin's own size, then the sweep; first of all what is to be shown."""
    options, environment = results["options"], results["environment"]
    compiling = [f"{c['model']} {c['size'][0]} x {c['size'][1]}: {c['seconds']:.0f}" for c in results["compiling"]]
    lines = [
        "# What a meta-gradient costs",
        "",
        f"Made by `{results['command']}`: Adam at {LR} with eps {EPS}; {options['device'].upper()}, "
        f"{options['threads']} thread(s), PyTorch {environment['torch']}, {', '.join(results['peers'])}; "
        f"{results['minutes']:.0f} minutes.",
        "",
        "*Seconds* are CPU time for one meta-gradient; *ratio* is to as many plain training steps of the same round. "
        f"*Memory* is the peak above what the process began with; more than {options['memory']} GiB is out of memory. "
        f"*Errors* are relative, to autograd in float64 (up to T = {options['reference']}): of the float32 gradient, and "
        f"of the same contender in float64. Compiling took, in CPU seconds: {', '.join(compiling) or '-'}.",
        "",
        "## What must show",
        "",
        *must_show(results),
    ]
    for model in options["models"]:
        rows = [row for row in results["rows"] if row["model"] == model]
        for size in sorted({tuple(row["size"]) for row in rows}, reverse=True):
            mine = sorted((row for row in rows if tuple(row["size"]) == size), key=lambda row: row["steps"])
            rounds = max(row["rounds"] for row in mine)
            lines += ["", f"## {model}, batches of {size[0]} sequences of {size[1]} events, {rounds} round(s)", ""]
            lines += ["| T | contender | seconds | ratio | memory, MiB | error, float32 | error, float64 |"]
            lines += ["| ---: | --- | ---: | ---: | ---: | ---: | ---: |"]
            for row in mine:
                if "failure" in row:
                    cells = [row["failure"], "", "", "", ""]
                else:
                    cells = [f"{row['cpu']:.2f}", f"{row['ratio']:.2f}", f"{row['memory']:.0f}"]
                    cells += [f"{row[k]:.1e}" if row.get(k) is not None else "" for k in ("error32", "error64")]
                lines.append(f"| {row['steps']} | {row['contender']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def must_show(results):
    """Markdown: the targets at T = 200, and whether they are met."""
    options = results["options"]
    small, own = (options["sequences"], options["events"]), OWN_SIZE
    at = {(r["model"], tuple(r["size"]), r["steps"], r["contender"]): r for r in results["rows"]}
    lines = ["| model | what | at most | measured |", "| --- | --- | ---: | ---: |"]

    def line(model, what, target, value):
        verdict = "not measured" if value is None else f"{value:.2g}{'' if value <= target else ' (**missed**)'}"
        lines.append(f"| {model} | {what} | {target:.2g} | {verdict} |")

    def get(model, size, steps, name, key):
        return at.get((model, size, steps, name), {}).get(key)

    def over(a, b):
        return a / b if a is not None and b else None

    for model in options["models"]:
        mine = [row for row in results["rows"] if row["model"] == model and row["contender"] in (STORED, LEAST)]
        errors = [row["error64"] for row in mine if row.get("error64") is not None]
        line(model, "largest error of our float64", 1e-9, max(errors, default=None))
        for size in (own, small):
            where = f"{size[0]} x {size[1]} events, T = 200: time over plain training"
            line(model, f"{where}, StoreAll", 3.5, get(model, size, 200, STORED, "ratio"))
            if model in options["compiled"]:
                line(model, f"{where}, StoreAll, Compiled", 3.5, get(model, size, 200, COMPILED, "ratio"))
            line(model, f"{where}, Checkpointed with least memory", 4.5, get(model, size, 200, LEAST, "ratio"))
            if model in options["compiled"]:
                value = get(model, size, 200, LEAST_COMPILED, "ratio")
                line(model, f"{where}, Checkpointed with least memory, Compiled", 4.5, value)
        where = f"{small[0]} x {small[1]} events, T = 200"
        for name in (STORED, COMPILED) if model in options["compiled"] else (STORED,):
            value = over(get(model, small, 200, name, "ratio"), get(model, small, 200, HIGHER, "ratio"))
            line(model, f"{where}: time over higher's, {name}", 0.6, value)
        memory = over(get(model, small, 200, LEAST, "memory"), get(model, small, 200, HIGHER, "memory"))
        line(model, f"{where}: memory over higher's, Checkpointed", 0.1, memory)
    return lines


def draw(results, path):
    """Time and memory over T, a column for each model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = results["options"]["models"]
    figure, axes = plt.subplots(2, len(models), figsize=(5.2 * len(models), 7), sharex=True, squeeze=False)
    small = [results["options"]["sequences"], results["options"]["events"]]
    marks = dict(zip(CONTENDERS, "xPvs^<oD*hd"))
    for column, model in enumerate(models):
        for name, mark in marks.items():
            points = [r for r in results["rows"] if (r["model"], r["size"], r["contender"]) == (model, small, name)]
            points = [r for r in points if "failure" not in r]
            if not points:
                continue
            points.sort(key=lambda r: r["steps"])
            t = [r["steps"] for r in points]
            axes[0, column].plot(t, [r["ratio"] for r in points], marker=mark, label=name)
            axes[1, column].plot(t, [r["memory"] for r in points], marker=mark)
        axes[0, column].set(title=model, xscale="log", ylabel="time, in T plain training steps", ylim=(0, None))
        axes[1, column].set(xscale="log", yscale="log", xlabel="T, inner steps", ylabel="peak memory above start, MiB")
        for axis in axes[:, column]:
            axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncol=4, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["SASRec", "GRU4Rec"])
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS), help="the numbers of inner steps T")
    parser.add_argument("--sequences", type=int, default=2, help="synthetic sequences in a batch of the sweep")
    parser.add_argument("--events", type=int, default=11, help="events of such a sequence")
    parser.add_argument("--rounds", type=int, default=1, help="rounds at T = 200")
    parser.add_argument("--compiled", nargs="*", default=["SASRec", "GRU4Rec"], help="models whose loss is also compiled")
    parser.add_argument("--reference", type=int, default=50, help="largest T with a float64 reference")
    parser.add_argument("--memory", type=float, default=2.25, help="GiB that a contender may take on a CPU")
    parser.add_argument("--minutes", type=float, default=10, help="after these nothing more is begun")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, help="folder; results/adjoint or results/adjoint-cuda")
    parser.add_argument("--profile", action="store_true", help="only profile a step, into profile.md")
    parser.add_argument("--states", action="store_true", help="only measure how memory grows with T, into states.md")
    parser.add_argument("--draw", action="store_true", help="only make table and figure anew")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")  # else what compiling takes depends on earlier runs
    torch.set_num_threads(options.threads)  # before any work, so that forks share no pool of threads
    out = options.out or ROOT / "results" / ("adjoint" if options.device == "cpu" else "adjoint-cuda")
    out.mkdir(parents=True, exist_ok=True)
    if options.profile:
        write_text(out / "profile.md", profile(options))
        return
    if options.states:
        write_text(out / "states.md", states(options))
        return
    if options.draw:
        results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    else:
        began = time.perf_counter()
        state = {}
        for model in options.models:
            on_cpu = argparse.Namespace(**{**vars(options), "device": "cpu"})
            params = Problem(model, (1, 3), 1, on_cpu).params
            state[model] = 3 * sum(p.numel() * p.element_size() for p in params.values()) / 2**20
        rows, compiling = run(options)
        results = {
            "command": " ".join(["python", os.path.relpath(__file__, ROOT), *sys.argv[1:]]),
            "options": {k: v for k, v in vars(options).items() if k not in ("out", "draw", "profile", "states")},
            "environment": {"torch": torch.__version__, "python": sys.version.split()[0]},
            "peers": [
                f"higher {_version('higher')}" if higher else "higher (not installed)",
                f"TorchOpt {_version('torchopt')}" if torchopt else "TorchOpt (not installed)",
            ],
            "minutes": (time.perf_counter() - began) / 60,
            "state": state,
            "compiling": compiling,
            "rows": rows,
        }
        write_text(out / "results.json", json.dumps(results, indent=1) + "\n")
    write_text(out / "table.md", table(results))
    with contextlib.suppress(ImportError):  # the figure wants matplotlib
        draw(results, out / "figure.png")


def _version(package):
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    main()
