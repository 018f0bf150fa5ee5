"""A model that is neither RecBole's nor made of one: by name on the command line, as a class from Python, as a student."""

import logging
import sys
import textwrap

import pytest

from recbole_farzi import architectures, trainer
from recbole_farzi.errors import ModelError
from recbole_farzi.models import resolve_model
from recbole_farzi.run import main, run_farzi

MODEL = """
    import torch
    from recbole.model.abstract_recommender import SequentialRecommender


    class Pooling(SequentialRecommender):
        '''The mean of a history's embeddings; a loss of its own: cross-entropy and a penalty.'''

        def __init__(self, config, dataset):
            super().__init__(config, dataset)
            self.items = torch.nn.Embedding(self.n_items, config["pooling_width"], padding_idx=0)
            self.out = torch.nn.Linear(config["pooling_width"], self.n_items)

        def forward(self, item_seq, item_seq_len):
            return self.out(self.items(item_seq).sum(dim=1) / item_seq_len.unsqueeze(1))

        def calculate_loss(self, interaction):
            scores = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
            loss = torch.nn.functional.cross_entropy(scores, interaction[self.POS_ITEM_ID])
            return loss + 0.01 * self.out.weight.pow(2).mean()

        def full_sort_predict(self, interaction):
            return self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])


    class Once(Pooling):
        '''The same, but its loss has no second derivative.'''

        def calculate_loss(self, interaction):
            return _Square.apply(super().calculate_loss(interaction))


    class Blind(Pooling):
        '''It looks nothing up.'''

        def forward(self, item_seq, item_seq_len):
            return self.out(item_seq.sum(dim=1, keepdim=True).expand(-1, self.out.in_features).float())


    class _Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return 2 * ctx.saved_tensors[0] * gradient
"""


@pytest.fixture
def options(workplace, tiny_dataset, tiny_options):
    (workplace / "my_models.py").write_text(textwrap.dedent(MODEL), encoding="utf-8")
    yield {
        **tiny_options, "data_path": str(tiny_dataset), "farzi_seeds": 1, "farzi_outer_steps": 2, "farzi_contenders": ["full", "summary"],
        "pooling_width": 8,
    }  # fmt: skip
    sys.modules.pop("my_models", None)


def test_by_name_and_as_a_class_it_does_the_whole_job(options, workplace, caplog):
    caplog.set_level(logging.INFO)
    arguments = ["-m", "my_models:Pooling", "-d", "tiny", *(f"--{key}={value}" for key, value in options.items())]
    assert main(arguments) == 0
    assert (workplace / "report" / "tiny-Pooling" / "report.html").is_file()
    assert "Pooling reads every prefix (it is not causal), trained by its own loss" in caplog.text
    given = run_farzi(sys.modules["my_models"].Pooling, "tiny", (), {**options, "farzi_fresh": True})
    named = run_farzi("my_models:Pooling", "tiny", (), options)
    assert given["summary"].latent.equal(named["summary"].latent)
    assert given["results"]["contenders"][1]["runs"][0]["metrics"] == named["results"]["contenders"][1]["runs"][0]["metrics"]


def test_it_distils_and_trains_on_others_summaries(options, workplace):
    """Options that it alone reads may stand beside models of RecBole's, in whatever order; others stay unknown."""
    arguments = ["-d", "tiny", *(f"--{key}={value}" for key, value in options.items())]
    models = ["-m", "GRU4Rec", "my_models:Pooling", "--students", "GRU4Rec", "my_models:Pooling"]
    assert main([*models, *arguments, "--pooling_widht=8"]) == 1
    assert main([*models, *arguments]) == 0
    text = (workplace / "report" / "tiny-architectures" / "architectures.md").read_text()
    assert "| Pooling | every prefix (it is not causal), trained by its own loss |" in text and "summary of Pooling" in text


@pytest.mark.parametrize("name, why", [("Once", "Once cannot be differentiated twice"), ("Blind", "Blind does not look the sequence of items up")])
def test_what_cannot_take_part_is_refused_in_one_line_before_the_work(options, monkeypatch, capsys, name, why):
    for place in (architectures, trainer):
        for work in ("_distil", "build_pool"):
            monkeypatch.setattr(place, work, lambda *_: pytest.fail("work was begun"), raising=False)
    arguments = ["-d", "tiny", *(f"--{key}={value}" for key, value in options.items())]
    assert main(["-m", f"my_models:{name}", *arguments]) == 1
    assert main(["-m", f"my_models:{name}", "--students", f"my_models:{name}", *arguments]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("run_farzi: ")]
    assert len(errors) == 2 and all(error.startswith(f"run_farzi: {why}") for error in errors)


def test_an_instance_is_refused_in_one_line(make_config, tiny_split):
    config, model_class = make_config()
    with pytest.raises(ModelError) as caught:
        resolve_model(model_class(config, tiny_split.train.dataset))
    assert str(caught.value) == "model must be a class, not an instance of one: give SASRec itself"
