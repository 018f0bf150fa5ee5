"""Text as sequences: a sentence is a user's history, a word is an item, and the end of a sentence is a word like others.

A sentence ``w1 ... wn`` becomes the one row ``history <eos> w1 ... wn, next <eos>``: ``<eos>`` is what a reader has seen
before the first word, so that each word and the end are predicted once from what stands before them in the sentence:
n + 1 tokens, as the literature on the Penn Treebank counts them. No history reaches into another sentence.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from recbole_farzi.atomic import MISSING_WORDS
from recbole_farzi.errors import DataError

__all__ = ["Corpus", "PARTS", "choose_vocabulary", "decode", "encode", "pieces", "read_sentences", "restore", "rows"]

PARTS = ("train", "valid", "test")
_ESCAPE = "\\"
_RESERVED = MISSING_WORDS | {"[PAD]"}  # RecBole's padding


@dataclass(frozen=True)
class Corpus:
    """A text that is split.

    Attributes:
        sentences: ``{"train": [[word, ...], ...], "valid": ..., "test": ...}``.
        vocabulary: words in the order of their ids, the marks of the end and of unknown words among them.
        end: the mark of the end of a sentence.
        unknown: how many words of each part are not in the vocabulary and were replaced by the mark of unknown words.
    """

    sentences: dict
    vocabulary: list
    end: str
    unknown: dict

    def tokens(self, part):
        """Words and ends of sentences of a part: what is predicted."""
        return sum(len(sentence) + 1 for sentence in self.sentences[part])


def read_sentences(path, end, encoding="utf-8"):
    """The words of each line of a text file. White space of any kind separates words, tabs too; empty lines are no
    sentences and are left out.

    Raises:
        DataError: the file is missing, is not text in that encoding, or holds a NUL or the mark of the end as a word.
    """
    sentences = []
    try:
        with open(path, encoding=encoding, newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise DataError(f"{path}, line {number} holds a NUL character: it is no text")
                if number == 1:
                    line = line.removeprefix("\ufeff")
                words = line.split()
                if end in words:
                    raise DataError(
                        f"{path}, line {number} holds the word {end!r}, which marks the end of each line; choose another "
                        "mark with --end"
                    )
                if words:
                    sentences.append(words)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeError, LookupError) as error:
        raise DataError(f"{path} is not text in encoding {encoding} ({error}); say which with --encoding") from error
    if not sentences:
        raise DataError(f"{path} holds no sentence")
    return sentences


def choose_vocabulary(training, end, unknown, size=None, minimum=1):
    """The most frequent words of the training text, ties in alphabetical order; the two marks come first.

    Args:
        training: sentences.
        end, unknown: the marks.
        size: words at most, with the two marks; None takes all.
        minimum: occurrences that a word needs.

    Raises:
        DataError: no word is left.
    """
    counts = Counter(word for sentence in training for word in sentence)
    counts.pop(unknown, None)
    ranked = sorted((word for word, count in counts.items() if count >= minimum), key=lambda word: (-counts[word], word))
    kept = ranked if size is None else ranked[: max(size - 2, 0)]
    if not kept:
        raise DataError("no word of the training text is left in the vocabulary; ask for a larger one or a smaller minimum")
    return [end, unknown, *kept]


def restrict(sentences, vocabulary, unknown):
    """Sentences with words outside the vocabulary replaced, and how many those were."""
    known, replaced = set(vocabulary), 0
    out = []
    for sentence in sentences:
        out.append([word if word in known else unknown for word in sentence])
        replaced += sum(word not in known for word in sentence)
    return out, replaced


def encode(word):
    """A word as an item's token: those that RecBole or pandas would misread get a backslash in front."""
    return _ESCAPE + word if word in _RESERVED or word.startswith(('"', _ESCAPE)) else word


def decode(token):
    """The word of a token; :func:`encode` undone."""
    return token.removeprefix(_ESCAPE)


def pieces(sentence, end, longest=None):
    """A sentence as sequences of events, each of at most ``longest`` events that a model reads, and one that it predicts.

    A long sentence is cut. Each piece begins with the event that the one before ended with, so that every word and the
    end are predicted exactly once, and no end is where the text has none.

    Args:
        sentence: words.
        end: the mark.
        longest: None does not cut.
    """
    events = [end, *sentence, end]
    step = longest or len(events)
    return [events[start : start + step + 1] for start in range(0, len(events) - 1, step)]


def rows(corpus, part, longest=None):
    """Rows of a RecBole benchmark file: ``(user, history, next)``, tokens; a user is a sentence or a piece of one."""
    for number, sentence in enumerate(corpus.sentences[part]):
        for piece, events in enumerate(pieces(sentence, corpus.end, longest)):
            events = [encode(word) for word in events]
            yield f"{part}-{number}" + (f"+{piece}" if piece else ""), events[:-1], events[-1]


def restore(directory, name, part):
    """The sentences of a part, back from its atomic file.

    Args:
        directory: the dataset's folder.
        name: of the dataset.
        part: one of ``train``, ``valid``, ``test``.

    Returns:
        List of lists of words.
    """
    sentences = []
    with open(Path(directory) / f"{name}.{part}.inter", encoding="utf-8", newline="\n") as file:
        next(file)
        for line in file:
            user, history, following = line.rstrip("\n").split("\t")
            events = [decode(token) for token in [*history.split(" "), following]]
            if "+" in user:
                sentences[-1].extend(events[1:])
            else:
                sentences.append(events[1:])
    return [sentence[:-1] for sentence in sentences]
