"""Perplexity of a Kneser-Ney n-gram model on a converted text: what a neural model of the same text should be held against.

    python benchmarks/kneser_ney.py dataset/ptb-tenth            # orders 1 to 3, validation and test

Interpolated Kneser-Ney with one discount for all orders, 0.75 (Chen and Goodman, "An empirical study of smoothing techniques
for language modeling", 1999, sections 2.7 and 4.1.2). As for the neural models a history is the sentence before the word,
and each word and the end are predicted.
"""

import argparse
import math
from collections import Counter, defaultdict
from pathlib import Path

from recbole_farzi.data.text import decode, restore


class KneserNey:
    """An interpolated n-gram model.

    Args:
        sentences: lists of words, of the training text.
        order: n; a word is predicted from the n - 1 before it.
        vocabulary: number of words, with the end; unigrams are smoothed with the uniform distribution over them.
        discount: taken from each count.
    """

    def __init__(self, sentences, order, vocabulary, discount=0.75):
        self.order, self.vocabulary, self.discount = order, vocabulary, discount
        seen = [defaultdict(Counter) for _ in range(order)]  # by length of the history
        for events in map(_marked, sentences):
            for position in range(1, len(events)):
                for length in range(min(order, position + 1)):
                    seen[length][events[position - length : position]][events[position]] += 1
        self.counts = seen
        for length in range(order - 1):  # below the highest order a word counts once for each history it is seen after
            different = defaultdict(Counter)
            for history, words in seen[length + 1].items():
                for word in words:
                    different[history[1:]][word] += 1
            self.counts[length] = different
        self.totals = [{history: sum(words.values()) for history, words in table.items()} for table in self.counts]

    def probability(self, word, history):
        """Of a word after a tuple of at most n - 1 words."""
        value = 1.0 / self.vocabulary
        for length in range(min(len(history), self.order - 1) + 1):
            recent = history[len(history) - length :]
            words = self.counts[length].get(recent)
            if words:
                kept = max(words[word] - self.discount, 0.0) if word in words else 0.0
                value = (kept + self.discount * len(words) * value) / self.totals[length][recent]
        return value

    def perplexity(self, sentences):
        """Of each word and each end."""
        total, count = 0.0, 0
        for events in map(_marked, sentences):
            for position in range(1, len(events)):
                history = events[max(0, position - self.order + 1) : position]
                total -= math.log(self.probability(events[position], history))
                count += 1
        return math.exp(total / count)


def _marked(sentence):
    return ("<eos>", *sentence, "<eos>")


def perplexities(folder, order):
    """``(validation, test)`` of a model of a converted text.

    Args:
        folder: that :mod:`recbole_farzi.data.convert` wrote.
        order: n.
    """
    name = folder.name
    vocabulary = {decode(line) for line in (folder / f"{name}.item").read_text(encoding="utf-8").split("\n")[1:] if line}
    train, valid, test = (restore(folder, name, part) for part in ("train", "valid", "test"))
    model = KneserNey(train, order, len(vocabulary))
    return model.perplexity(valid), model.perplexity(test)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder that recbole_farzi.data.convert wrote")
    parser.add_argument("--orders", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    print("| order | validation | test |\n| ---: | ---: | ---: |")
    for order in arguments.orders:
        valid, test = perplexities(arguments.dataset, order)
        print(f"| {order} | {valid:.1f} | {test:.1f} |", flush=True)


if __name__ == "__main__":
    main()
