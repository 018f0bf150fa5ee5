"""The README's code does what it says."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from recbole_farzi.emission import emit
from recbole_farzi.options import read_options
from recbole_farzi.starts import random_start

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.mark.parametrize("inputs", [False, True], ids=["soft", "items"])
def test_a_summary_is_read_back_and_trained_on(make_config, tiny_split, workplace, inputs):
    """The block as it stands, with the tests' dataset in place of ML-100K."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    (code,) = [block for block in blocks if "load_summary(" in block]
    config, model_class = make_config("SASRec")
    dataset, inner = tiny_split.train.dataset, read_options(config).inner
    summary = random_start(4, 11, 3, tiny_split.vocabulary, 1.0, seed=0)
    if inputs:
        summary = replace(summary, inputs=torch.randint(1, tiny_split.vocabulary, (4, 11)))
    tokens = dataset.field2id_token[dataset.iid_field]
    emit(workplace / "dataset" / "ml-100k-farzi", summary, summary.hard(1, 0), tokens, {}, {"inner": asdict(inner)}, 10)
    names = {"config": config, "model_class": model_class, "train_data": tiny_split.train, "test_data": tiny_split.test}
    exec(compile(code, str(README), "exec"), names)
    assert torch.equal(names["summary"].latent, summary.latent) and (names["summary"].inputs is not None) == inputs
    assert names["inner"] == replace(inner, betas=list(inner.betas))  # as JSON has them
