"""Language modelling on a tiny generated text: what is predicted, the metrics by definition, the whole job."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_farzi import memory
from recbole_farzi.configuration import build_config
from recbole_farzi.contenders import ContenderFactory
from recbole_farzi.data import load_split
from recbole_farzi.data.convert import main as convert
from recbole_farzi.data.text import PARTS, encode, restore
from recbole_farzi.errors import DataError, OptionError
from recbole_farzi.models import ModelFactory
from recbole_farzi.options import read_options
from recbole_farzi.run import run_farzi
from recbole_farzi.student import Student
from recbole_farzi.training import WindowLoader, WindowTrainer

LANGUAGE = Path(__file__).parent.parent / "properties" / "language.yaml"
WORDS = ["the", "cat", "dog", "sat", "ran", "null", '"quoted"', "\\slash", "[PAD]", "N", "<unk>", "on"]


@pytest.fixture
def text_dataset(workplace):
    """Folder of datasets that holds ``tiny-text``, converted; sentences of 1 to 12 words in which a word suggests the next."""
    rng = np.random.default_rng(8)
    source = workplace / "source"
    source.mkdir()
    for part, count in zip(PARTS, (120, 20, 25)):
        lines = []
        for _ in range(count):
            word, line = int(rng.integers(len(WORDS))), []
            for _ in range(int(rng.integers(1, 13))):
                line.append(WORDS[word])
                word = (word * 5 + 3) % len(WORDS) if rng.random() < 0.7 else int(rng.integers(len(WORDS)))
            lines.append(" ".join(line))
        (source / f"ptb.{part}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert convert(["ptb", str(source), "--output", str(workplace / "datasets"), "--name", "tiny-text"]) == 0
    return workplace / "datasets"


@pytest.fixture
def options(tiny_options, text_dataset):
    chosen = {key: value for key, value in tiny_options.items() if key != "topk"}
    contenders = ["full", "summary", "random", "popularity"]
    return {**chosen, "data_path": str(text_dataset), "MAX_ITEM_LIST_LENGTH": 13, "farzi_contenders": contenders}


@pytest.fixture
def configured(options):
    def make(model="SASRec", **overrides):
        config, model_class = build_config(model, "tiny-text", [LANGUAGE], {**options, **overrides})
        return config, model_class, load_split(config)

    return make


def by_definition(log_probabilities, sentences):
    """Perplexity and accuracy from a function of the words so far to ``{word: log p}``, word by word."""
    total, right, count = 0.0, 0, 0
    for sentence in sentences:
        for position, word in enumerate([*sentence, "<eos>"]):
            table = log_probabilities(["<eos>", *sentence[:position]])
            total -= table[word]
            right += max(table, key=table.get) == word
            count += 1
    return math.exp(total / count), right / count, count


def test_the_training_text_is_that_of_the_file_and_no_user_is_in_two_parts(configured, text_dataset):
    _, _, split = configured()
    names = split.train.dataset.field2id_token["item_id"]
    text = [[names[i] for i in items] for items in split.sequences.items]
    training = restore(text_dataset / "tiny-text", "tiny-text", "train")
    expected = [["<eos>", *map(encode, sentence), "<eos>"] for sentence in training]
    assert sorted(text) == sorted(expected)
    assert split.sequences.events == sum(len(sentence) - 1 for sentence in expected)
    users = [set(loader.dataset.inter_feat["user_id"].tolist()) for loader in (split.train, split.valid, split.test)]
    assert [len(part) for part in users] == [120, 20, 25] and len(set.union(*users)) == 165


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec", "NARM"])
def test_metrics_are_those_of_each_word_after_the_words_before_it(configured, text_dataset, model):
    """A model that has learnt something, read one history at a time; NARM is not causal."""
    config, model_class, split = configured(model, epochs=2)
    net = ModelFactory(model_class, config, split.train.dataset)(3)
    trainer = WindowTrainer(config, net)
    trainer.fit(WindowLoader(split.sequences, split.train.dataset, 16, 3), split.valid, verbose=False)
    found = trainer.evaluate(split.test)
    token2id = split.train.dataset.field2token_id["item_id"]

    def log_probabilities(words):
        ids = [token2id[encode(word)] for word in words]
        scores = net.full_sort_predict({net.ITEM_SEQ: torch.tensor([ids]), net.ITEM_SEQ_LEN: torch.tensor([len(ids)])})
        values = torch.log_softmax(scores[0, 1:].double(), dim=0).tolist()
        return {word: values[token2id[encode(word)] - 1] for word in [*WORDS, "<eos>"]}

    test = restore(text_dataset / "tiny-text", "tiny-text", "test")
    with torch.no_grad():
        perplexity, accuracy, count = by_definition(log_probabilities, test)
    assert found["perplexity"] == pytest.approx(perplexity, rel=1e-5)
    assert found["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert found["crossentropy"] == pytest.approx(math.log(perplexity), rel=1e-5)
    assert len(trainer.rows.get("rec.user")) == count
    assert 1 < perplexity < 13  # better than to know nothing


def test_the_scores_of_every_position_are_in_the_estimate_of_memory(configured):
    """A row for each word, not for each sentence: the tensors of an evaluation are within what is planned for it."""
    config, model_class, split = configured(hidden_size=2, inner_size=2, n_heads=1)
    student = Student(ModelFactory(model_class, config, split.train.dataset)(3))
    trainer = WindowTrainer(config, student.model)
    plan = memory.plan(config, read_options(config), student)
    with memory.PeakBytes() as counted:
        trainer.evaluate(split.test)
    planned = [memory.needed(p, memory.Costs((0, 0, 0), (0, 0, 0)))["evaluation"] for p in (replace(plan, rows=1), plan)]
    assert planned[0] < counted.peak < 2 * planned[1]
    assert plan.rows == 13


def test_the_unigram_model_has_the_perplexity_of_its_known_probabilities(configured, text_dataset):
    config, model_class, split = configured(farzi_contenders=["popularity"])
    factory = ModelFactory(model_class, config, split.train.dataset)
    made = ContenderFactory(config, read_options(config), split, factory, None, None, None, None, None)
    (unigram,) = made.contenders()
    trainer, _ = unigram.run(1, lambda progress: None)
    found = trainer.evaluate(split.test)
    training = restore(text_dataset / "tiny-text", "tiny-text", "train")
    counts = Counter(word for sentence in training for word in [*sentence, "<eos>"])
    whole = sum(counts.values()) + 0.5 * len(counts)
    table = {word: math.log((count + 0.5) / whole) for word, count in counts.items()}
    test = restore(text_dataset / "tiny-text", "tiny-text", "test")
    perplexity, accuracy, _ = by_definition(lambda words: table, test)
    assert unigram.label == "unigram"
    assert found["perplexity"] == pytest.approx(perplexity, rel=1e-6)
    assert found["accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_the_whole_job(configured, options, text_dataset):
    out = run_farzi("SASRec", "tiny-text", [str(LANGUAGE)], options)
    results = json.loads((out["report_path"] / "results.json").read_text(encoding="utf-8"))
    assert results["smaller_is_better"] == ["perplexity", "crossentropy"] and results["valid_metric"] == "perplexity"
    assert [contender["label"] for contender in results["contenders"]] == [
        "full data", "summary (soft)", "random sentences", "unigram",
    ]  # fmt: skip
    tokens = sum(len(s) + 1 for s in restore(text_dataset / "tiny-text", "tiny-text", "test"))
    for contender in results["contenders"]:
        for run in contender["runs"]:
            sentences = run["by_user"]
            assert len(sentences["events"]) == 25 and sum(sentences["events"]) == tokens
            mean = sum(sentences["cross_entropy"]) / tokens
            assert run["metrics"]["perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)
            assert run["metrics"]["accuracy"] == pytest.approx(sum(sentences["first"]) / tokens, abs=1e-6)
    scores = [metrics["metrics"]["perplexity"] for metrics in results["distillation"]["validations"]]
    best = results["distillation"]["best_step"]
    (kept,) = [one["metrics"]["perplexity"] for one in results["distillation"]["validations"] if one["step"] == best]
    assert min(scores) == kept


def test_a_sentence_longer_than_the_model_reads_is_refused_in_one_line(configured):
    why = r"tiny-text.train.inter, line \d+: a history of \d+ events, and the model reads 5"
    with pytest.raises(DataError, match=why) as caught:
        configured(MAX_ITEM_LIST_LENGTH=5)
    assert "\n" not in str(caught.value)


def test_missing_and_broken_files_of_a_split_are_refused(configured, text_dataset):
    path = text_dataset / "tiny-text" / "tiny-text.valid.inter"
    good = path.read_text(encoding="utf-8")
    for content, why in [
        (good + "u\t<eos> the\n", "line 22: 2 fields where the header has 3"),
        (good + "u\t\tthe\n", "line 22: a history that is empty"),
        (good.replace("item_id_list", "items"), "lacks column item_id_list"),
    ]:
        path.write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=why):
            configured()
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not text in encoding utf-8"):
        configured()
    path.unlink()
    with pytest.raises(DataError, match=r"tiny-text.valid.inter does not exist; .*recbole_farzi.data.convert"):
        configured()


def test_accuracy_may_select_too_and_nothing_else_may(configured):
    assert configured(valid_metric="Accuracy")[0]["valid_metric_bigger"] is True
    assert configured(valid_metric="Perplexity")[0]["valid_metric_bigger"] is False
    with pytest.raises(OptionError, match="valid_metric=Accuracy is not among what is evaluated: crossentropy, perplexity"):
        configured(metrics=["Perplexity", "CrossEntropy"], valid_metric="Accuracy")


def test_a_split_that_would_test_on_training_events_is_refused(make_config, configured, text_dataset):
    with pytest.raises(OptionError, match="farzi_positions=every needs a dataset with a split of its own"):
        read_options(make_config(farzi_positions="every")[0])
    path = text_dataset / "tiny-text" / "tiny-text.test.inter"
    path.write_text(path.read_text(encoding="utf-8").replace("test-3\t", "train-7\t"), encoding="utf-8")
    with pytest.raises(DataError, match="user train-7 of dataset tiny-text is in the training and in the test part"):
        configured()


def test_rows_of_one_target_are_no_training_for_every_position(options):
    config, _ = build_config("SASRec", "tiny-text", [LANGUAGE], {**options, "farzi_full_data": "prefixes"})
    with pytest.raises(OptionError, match="needs farzi_full_data=windows"):
        read_options(config)
    config, _ = build_config("SASRec", "tiny-text", [LANGUAGE], {**options, "farzi_outer_generated": 0.5})
    with pytest.raises(OptionError, match="needs farzi_outer_generated=0: what a model writes runs through the text"):
        read_options(config)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_metrics_are_the_same_on_a_gpu(configured):
    found = []
    for use_gpu in (False, True):
        config, model_class, split = configured(use_gpu=use_gpu)
        net = ModelFactory(model_class, config, split.train.dataset)(3)
        found.append(WindowTrainer(config, net).evaluate(split.test, load_best_model=False))
    assert dict(found[0]) == pytest.approx(dict(found[1]), rel=1e-4)
