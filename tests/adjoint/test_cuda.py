"""On a CUDA device: the same numbers, the same masks, and no second derivative asked of a fused kernel."""

import contextlib

import pytest
import torch
import torch.nn.functional as F

from recbole_farzi.adjoint import Adam, Captured, Checkpointed, NonFiniteError, SGD, StoreAll, Unrolled, unroll

from .problem import assert_close, data, loss, outer, params

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def to_cuda(tree):
    return torch.utils._pytree.tree_map(
        lambda x: x.detach().cuda().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x, tree
    )


@pytest.mark.parametrize("rate_on", ["cpu", "cuda"])
@pytest.mark.parametrize("adjoint", [StoreAll(), Checkpointed(), Unrolled()], ids=str)
def test_gradients_are_those_of_the_cpu(adjoint, rate_on):
    def run(move, adjoint, device):
        p, d = move(params()), move(data())
        rate = torch.tensor(0.05, dtype=torch.float64, device=device, requires_grad=True)
        final = unroll(loss, p, d, optimizer=Adam(rate, eps=1e-3), steps=6, adjoint=adjoint, clip_norm=0.5)
        grads = torch.autograd.grad(outer(final), [*p.values(), d["x"], rate])
        return {i: grad.cpu() for i, grad in enumerate(grads)}

    assert_close(run(to_cuda, adjoint, rate_on), run(lambda x: x, Unrolled(), "cpu"))


@pytest.mark.parametrize("product", ["reverse", "forward"])
def test_dropout_and_attention_replay_their_masks(product):
    torch.manual_seed(0)
    x = torch.randn(4, 2, 6, 8, device="cuda", dtype=torch.float64, requires_grad=True)
    p = {name: torch.randn(8, 8, device="cuda", dtype=torch.float64) / 3 for name in "qkv"}

    def attention(p, d, step):
        h = F.scaled_dot_product_attention(d @ p["q"], d @ p["k"], d @ p["v"], dropout_p=0.2, is_causal=True)
        return (F.dropout(h, 0.3) - d).square().mean()

    before = torch.cuda.get_rng_state()
    grads = []
    for adjoint in (StoreAll(), Unrolled()):
        final = unroll(attention, p, x, optimizer=SGD(0.5), steps=4, adjoint=adjoint, seed=3, product=product)
        grads.append(torch.autograd.grad(outer(final), x)[0])
    assert_close({"x": grads[0]}, {"x": grads[1]})
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_recurrent_layers_go_without_cudnn():
    layer = torch.nn.GRU(4, 4, batch_first=True, device="cuda", dtype=torch.float64)
    x = torch.randn(3, 5, 4, device="cuda", dtype=torch.float64, requires_grad=True)
    p = {name: value.detach() for name, value in layer.named_parameters()}

    def recurrent(p, d, step):
        return torch.func.functional_call(layer, p, (d,))[0].square().mean()

    grads = []
    for adjoint in (StoreAll(), Unrolled()):
        final = unroll(recurrent, p, x, optimizer=SGD(0.5), steps=3, adjoint=adjoint)
        grads.append(torch.autograd.grad(outer(final), x)[0])
    assert_close({"x": grads[0]}, {"x": grads[1]})
    assert torch.backends.cudnn.enabled


def test_the_first_bad_step_is_named_though_looked_for_at_the_end():
    def breaking(p, d, step):
        return loss(p, d, step) * (float("inf") if step == 4 else 1.0)

    with pytest.raises(NonFiniteError, match="loss at inner step 4"):
        unroll(breaking, to_cuda(params()), to_cuda(data()), optimizer=Adam(), steps=9)


def test_the_loop_waits_for_the_device_only_at_its_end():
    p, d = to_cuda(params(torch.float32)), to_cuda(data(torch.float32))
    batches = [torch.arange(3, device="cuda")] * 4
    steps_done = []

    def strict(p, d, step):
        steps_done.append(step)
        torch.cuda.set_sync_debug_mode("error")
        return loss(p, d, step)

    try:
        final = None
        with torch.no_grad():
            # The look at the end, for non-finite values, is the one wait there is.
            with pytest.raises(RuntimeError, match="synchroniz"):
                unroll(strict, p, d, optimizer=Adam(), steps=4, batches=batches)
        assert steps_done == [0, 1, 2, 3] and final is None
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "adjoint", [StoreAll(offload=True), Checkpointed(offload=True), Checkpointed(every=3, offload=True)], ids=str
)
@pytest.mark.parametrize("product", ["reverse", "forward"])
def test_states_offloaded_to_the_host_come_back_to_the_bit(adjoint, product):
    grads = []
    for strategy in (adjoint, StoreAll()):
        p, d = to_cuda(params()), to_cuda(data())
        final = unroll(loss, p, d, optimizer=Adam(0.05, eps=1e-3), steps=20, adjoint=strategy, product=product)
        grads.append(torch.autograd.grad(outer(final), d["x"])[0])
    assert torch.equal(*grads)


def test_offloaded_states_take_no_device_memory():
    p = {"w": torch.zeros(2**20, device="cuda")}

    def distance(p, d, step):
        return (p["w"] - d).square().mean()

    def peak(adjoint):
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        x = torch.ones(2**20, device="cuda", requires_grad=True)
        final = unroll(distance, p, x, optimizer=Adam(), steps=50, adjoint=adjoint)
        final["w"].sum().backward()
        return torch.cuda.max_memory_allocated() - before

    assert peak(StoreAll(offload=True)) < peak(StoreAll()) / 3


@pytest.mark.parametrize("adjoint", [StoreAll(), Checkpointed(), Checkpointed(every=3)], ids=str)
def test_captured_derivatives_are_those_of_the_loss(adjoint):
    """Over two calls with other numbers: a replay must read what it is given, and not write over what was kept."""
    calls = []

    def counting(p, d, step):
        calls.append(step)
        return loss(p, d, step)

    captured = Captured(counting)
    batches = [torch.tensor([0, t % 6, 5], device="cuda") for t in range(8)]
    for seed in (0, 1):
        grads = []
        for inner_loss in (captured, loss):
            p, d = to_cuda(params(seed=seed)), to_cuda(data(seed=seed + 5))
            final = unroll(inner_loss, p, d, optimizer=Adam(0.05, eps=1e-3), steps=8, adjoint=adjoint, batches=batches)
            grads.append(dict(enumerate(torch.autograd.grad(outer(final), [*p.values(), d["x"], d["y"][0]]))))
        assert_close(*grads)
        first = len(calls) if seed == 0 else first
    assert len(calls) == first  # captured in the first call, replayed since


@pytest.mark.parametrize(
    "inner_loss, why",
    [
        (lambda p, d, step: loss(p, d, step) * (1 + step), "step"),
        (lambda p, d, step: F.dropout(d["x"], 0.5).sum() * loss(p, d, step), "random"),
        (lambda p, d, step: loss(p, d, step) * (2.0 if loss(p, d, step).item() > 0 else 1.0), ""),
    ],
)
def test_a_loss_that_cannot_be_captured_is_run_as_it_is(inner_loss, why):
    grads = []
    for strategy, run in ((StoreAll(), Captured(inner_loss)), (Unrolled(), inner_loss)):
        p, d = to_cuda(params()), to_cuda(data())
        with contextlib.nullcontext() if run is inner_loss else pytest.warns(UserWarning, match=f"as it is.*{why}"):
            final = unroll(run, p, d, optimizer=SGD(0.05), steps=4, adjoint=strategy, seed=1)
            grads.append({"x": torch.autograd.grad(outer(final), d["x"])[0]})
    assert_close(*grads)
