"""``python -m recbole_farzi.data.convert``: published files to RecBole atomic files.

::

    ... convert ptb DIR                         # ptb.train.txt, ptb.valid.txt, ptb.test.txt; the split is kept
    ... convert text TRAIN VALID TEST           # or one file, whose end is held out; one sentence a line
    ... convert movielens-1m ratings.dat
    ... convert amazon FILE --year 2018         # CSV or JSON lines, also compressed (.gz); 2014, 2018 or 2023
    ... convert table FILE                      # user item time

Text becomes ``NAME.train.inter``, ``NAME.valid.inter`` and ``NAME.test.inter`` (RecBole benchmark files, a row a
sentence), ``NAME.item`` (the vocabulary) and ``NAME.yaml`` (properties that describe them to RecBole). Interactions
become ``NAME.inter``, in the order of time. ``conversion.json`` says what was read.
"""

import argparse
import sys
from pathlib import Path

from recbole_farzi.atomic import NAME
from recbole_farzi.data.interactions import AMAZON_FORMS, read_amazon, read_movielens_1m, read_table
from recbole_farzi.data.text import PARTS, Corpus, choose_vocabulary, encode, pieces, read_sentences, restrict, rows
from recbole_farzi.errors import DataError, FarziError, StorageError
from recbole_farzi.storage import digest, new_directory, write_json, write_text

__all__ = ["main", "write_interactions", "write_text_dataset"]

_RECORD = "conversion.json"
_HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token"


def write_text_dataset(directory, corpus, longest=None, source=None):
    """Write a corpus as a RecBole dataset; the folder appears whole or not at all.

    Args:
        directory: the folder; its name is the dataset's.
        corpus: :class:`recbole_farzi.data.text.Corpus`.
        longest: events that a model reads at most; longer sentences are cut, see :func:`recbole_farzi.data.text.pieces`.
        source: plain values for ``conversion.json``.

    Returns:
        What ``conversion.json`` holds.

    Raises:
        StorageError: the folder cannot be written, or holds something else.
    """
    directory = Path(directory)
    name = directory.name
    lengths = [len(p) - 1 for part in PARTS for s in corpus.sentences[part] for p in pieces(s, corpus.end, longest)]
    record = {
        **(source or {}),
        "sentences": {part: len(corpus.sentences[part]) for part in PARTS},
        "tokens": {part: corpus.tokens(part) for part in PARTS},
        "vocabulary": len(corpus.vocabulary),
        "unknown": corpus.unknown,
        "longest_history": max(lengths),
    }
    with _folder(directory) as folder:
        for part in PARTS:
            lines = (f"{user}\t{' '.join(history)}\t{word}" for user, history, word in rows(corpus, part, longest))
            write_text(folder / f"{name}.{part}.inter", "\n".join([_HEADER, *lines]) + "\n")
        write_text(folder / f"{name}.item", "\n".join(["item_id:token", *map(encode, corpus.vocabulary)]) + "\n")
        write_text(folder / f"{name}.yaml", _properties(name, max(lengths)))
        write_json(folder / _RECORD, record)
    return record


def write_interactions(directory, events, source=None):
    """Write events as ``NAME.inter``, in the order of time (RecBole keeps times in 32 bits: events close in time are ties
    to it, and keep the order of the file).

    Args:
        directory: the folder; its name is the dataset's.
        events: ``(user, item, seconds)``.
        source: plain values for ``conversion.json``.

    Returns:
        What ``conversion.json`` holds.

    Raises:
        DataError: there is no event. StorageError: the folder cannot be written, or holds something else.
    """
    directory = Path(directory)
    events = sorted(events, key=lambda event: event[2])  # stable
    if not events:
        raise DataError("there is no event to convert")
    record = {
        **(source or {}),
        "events": len(events),
        "users": len({user for user, _, _ in events}),
        "items": len({item for _, item, _ in events}),
    }
    with _folder(directory) as folder:
        lines = (f"{user}\t{item}\t{_number(time)}" for user, item, time in events)
        header = "user_id:token\titem_id:token\ttimestamp:float"
        write_text(folder / f"{directory.name}.inter", "\n".join([header, *lines]) + "\n")
        write_json(folder / _RECORD, record)
    return record


def _folder(directory):
    if not NAME.fullmatch(directory.name):
        raise StorageError(f"the dataset's name {directory.name!r} must be plain: letters, digits, _ . + -")
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"{directory} is no folder")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / _RECORD).is_file():
        raise StorageError(
            f"{directory} holds something that was not made by this command; choose another --name or --output"
        )
    return new_directory(directory)


def _number(seconds):
    return str(int(seconds)) if seconds == int(seconds) else repr(seconds)


def _properties(name, longest):
    return f"""# {name}: text as RecBole benchmark files. To predict every position, as a language model does, use it with
#   run_farzi.py -d {name} --config_files properties/language.yaml {name}.yaml
benchmark_filename: [train, valid, test]
load_col:
  inter: [user_id, item_id_list, item_id]
  item: [item_id]
alias_of_item_id: [item_id_list]
MAX_ITEM_LIST_LENGTH: {longest}
train_neg_sample_args: ~
"""


def _text_corpus(files, arguments):
    """Sentences of three files, or of one whose end is held out."""
    texts = [read_sentences(file, arguments.end, arguments.encoding) for file in files]
    if len(texts) == 1:
        (text,) = texts
        held = max(int(len(text) * arguments.held_out), 1)
        if len(text) <= 2 * held:
            raise DataError(f"{files[0]} has {len(text)} sentences, too few to hold out {held} twice")
        texts = [text[: -2 * held], text[-2 * held : -held], text[-held:]]
    parts = dict(zip(PARTS, texts))
    vocabulary = choose_vocabulary(
        parts["train"], arguments.end, arguments.unknown, arguments.vocabulary, arguments.minimum
    )
    parts = {part: sentences[:: arguments.every] for part, sentences in parts.items()}
    restricted = {part: restrict(sentences, vocabulary, arguments.unknown) for part, sentences in parts.items()}
    return Corpus(
        {part: sentences for part, (sentences, _) in restricted.items()},
        vocabulary,
        arguments.end,
        {part: count for part, (_, count) in restricted.items()},
    )


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m recbole_farzi.data.convert", allow_abbrev=False,
        description="Convert published files to RecBole atomic files.",
    )  # fmt: skip
    forms = parser.add_subparsers(dest="form", required=True, metavar="FORM")

    def form(name, help, default_name):
        sub = forms.add_parser(name, help=help, allow_abbrev=False)
        sub.add_argument("--output", default="dataset", help="folder of datasets [dataset]")
        sub.add_argument("--name", default=default_name, help=f"name of the dataset [{default_name or 'that of the file'}]")
        return sub

    def text_form(name, help, default_name):
        sub = form(name, help, default_name)
        sub.add_argument("--end", default="<eos>", help="mark of the end of a sentence [<eos>]")
        sub.add_argument("--unknown", default="<unk>", help="what stands for words outside the vocabulary [<unk>]")
        sub.add_argument("--encoding", default="utf-8", help="of the text [utf-8]")
        sub.add_argument("--vocabulary", type=_at_least(3), help="words at most, with the two marks [all]")
        sub.add_argument("--minimum", type=_at_least(1), default=1, help="occurrences in training that a word needs [1]")
        sub.add_argument("--longest", type=_at_least(2), help="cut sentences after so many events [never]")
        sub.add_argument(
            "--every", type=_at_least(1), default=1, metavar="N", help="keep every N-th sentence of each part [1]"
        )
        return sub

    text_form("ptb", "the Penn Treebank as Mikolov prepared it", "ptb").add_argument("directory", type=Path)
    text = text_form("text", "one sentence a line", None)
    text.add_argument("files", nargs="+", type=Path, metavar="FILE", help="TRAIN VALID TEST, or one file")
    text.add_argument("--held_out", type=float, default=0.1, help="share of one file for validation, and for test [0.1]")
    form("movielens-1m", "ratings.dat", "ml-1m").add_argument("file", type=Path)
    amazon = form("amazon", "reviews or ratings, CSV or JSON lines", None)
    amazon.add_argument("file", type=Path)
    amazon.add_argument("--year", required=True, choices=sorted(AMAZON_FORMS), help="of the release")
    table = form("table", "user item time", None)
    table.add_argument("file", type=Path)
    table.add_argument("--separator", help="between fields [white space]")
    table.add_argument("--header", action="store_true", help="the first line names the columns")
    return parser


def _at_least(least):
    def number(text):
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    return number


def convert(arguments):
    """What the command line asks for.

    Returns:
        ``(folder, record)``.

    Raises:
        FarziError
    """
    if arguments.form in ("ptb", "text"):
        files = arguments.files if arguments.form == "text" else [arguments.directory / f"ptb.{p}.txt" for p in PARTS]
        if len(files) not in (1, 3):
            raise DataError(f"give one file, or three (training, validation, test), not {len(files)}")
        if arguments.form == "text" and not 0 < arguments.held_out < 0.5:
            raise DataError(f"--held_out={arguments.held_out} must be between 0 and 0.5")
        for option in ("end", "unknown"):
            mark = getattr(arguments, option)
            if mark.split() != [mark] or encode(mark) != mark or arguments.end == arguments.unknown:
                raise DataError(f"--{option}={mark!r} must be a word of its own that RecBole reads as it is")
        folder = arguments.output / (arguments.name or files[0].name.split(".")[0])
        corpus, source = _text_corpus(files, arguments), _source(arguments, files)
        return folder, write_text_dataset(folder, corpus, arguments.longest, source)
    file = arguments.file
    folder = arguments.output / (arguments.name or file.name.split(".")[0])
    if arguments.form == "movielens-1m":
        events = read_movielens_1m(file)
    elif arguments.form == "amazon":
        events = read_amazon(file, arguments.year)
    else:
        events = read_table(file, arguments.separator, arguments.header)
    events = list(events)
    return folder, write_interactions(folder, events, _source(arguments, [file]))


def _source(arguments, files):
    places = ("output", "files", "file", "directory")
    options = {key: str(value) for key, value in vars(arguments).items() if key not in places}
    return {"options": options, "source": {file.name: digest(file.read_bytes()) for file in files}}


def main(arguments=None):
    """Command line entry; returns the exit code: 0, or 1 after one line on standard error."""
    parsed = _parser().parse_args(arguments)
    parsed.output = Path(parsed.output)
    try:
        folder, record = convert(parsed)
    except FarziError as error:
        print(f"convert: {error}", file=sys.stderr)
        return 1
    sizes = {key: record[key] for key in ("sentences", "tokens", "vocabulary", "events", "users", "items") if key in record}
    print(f"{folder}: " + "; ".join(f"{key} {value}" for key, value in sizes.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
