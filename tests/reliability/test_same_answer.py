"""The same summary in every process, with every hash seed; on CUDA to a tolerance. What two threads give is measured by same_answer.py."""

import pytest
import torch

from .kills import OPTIONS, write_data
from .same_answer import apart, distil, in_a_process

# Of CPU and CUDA after the tiny distillation: float32 on both, sums in another order, 12 outer steps of 6 inner ones.
CUDA_TOLERANCE = 1e-2


@pytest.mark.slow
def test_hash_seeds_do_not_show(tmp_path):
    one, other = in_a_process("tiny", "1", 1), in_a_process("tiny", "2", 1)
    assert one["hash"] != other["hash"]  # the harm was done
    assert (one["summary"], one["losses"]) == (other["summary"], other["losses"])


def test_another_seed_gives_another_summary(workplace):
    """What the comparison of digests rests on."""
    write_data(workplace)
    tensors = [distil("tiny", {**OPTIONS, "farzi_outer_steps": 4, "seed": seed}).summary.tensors for seed in (1, 2)]
    assert apart(*tensors) > 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cpu_and_cuda_agree(workplace):
    """Dropout is left out: the two draw other masks."""
    write_data(workplace)
    options = {**OPTIONS, "farzi_inner_dropout": False, "farzi_outer_steps": 12, "farzi_start": "spectral", "farzi_pretrained": 0.0}
    options |= {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
    cpu = distil("tiny", options)
    cuda = distil("tiny", {**options, "use_gpu": True, "checkpoint_dir": "cuda"}, device="cuda")
    assert cuda.summary.latent.is_cuda
    assert apart(cpu.summary.tensors, [t.cpu() for t in cuda.summary.tensors]) < CUDA_TOLERANCE
    assert cpu.history["losses"] == pytest.approx(cuda.history["losses"], rel=CUDA_TOLERANCE)
