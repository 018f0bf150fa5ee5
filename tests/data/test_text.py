"""Text to atomic files and back: nothing is lost, odd text is handled as documented or refused in one line."""

import json
import random

import pytest

from recbole_farzi.data.convert import main
from recbole_farzi.data.text import PARTS, choose_vocabulary, decode, encode, pieces, read_sentences, restore
from recbole_farzi.errors import DataError

PTB = ("no it was n't black monday", "but while the <unk> fell N points", "the end")


@pytest.fixture
def ptb(tmp_path):
    """Function that writes a folder like that of the Penn Treebank from three texts."""

    def write(*texts, encoding="utf-8"):
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        for part, text in zip(PARTS, texts):
            (folder / f"ptb.{part}.txt").write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return folder

    return write


@pytest.fixture
def run(tmp_path, capsys):
    """Function from arguments to (exit code, what was printed, what went wrong)."""

    def call(*arguments):
        code = main([*map(str, arguments), "--output", str(tmp_path / "out")])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_a_sentence_is_a_row_and_its_end_is_predicted(ptb, run, tmp_path):
    assert run("ptb", ptb(*PTB))[0] == 0
    rows = (tmp_path / "out" / "ptb" / "ptb.train.inter").read_text(encoding="utf-8")
    assert rows == "user_id:token\titem_id_list:token_seq\titem_id:token\ntrain-0\t<eos> no it was n't black monday\t<eos>\n"
    items = (tmp_path / "out" / "ptb" / "ptb.item").read_text(encoding="utf-8").split("\n")
    assert items == ["item_id:token", "<eos>", "<unk>", "black", "it", "monday", "n't", "no", "was", ""]
    record = json.loads((tmp_path / "out" / "ptb" / "conversion.json").read_text(encoding="utf-8"))
    assert record["tokens"] == {"train": 7, "valid": 8, "test": 3} and record["longest_history"] == 8
    assert record["unknown"] == {"train": 0, "valid": 6, "test": 2}  # words that training does not hold


@pytest.mark.parametrize("longest", [None, 2, 3, 7])
def test_text_comes_back_whole(ptb, run, tmp_path, longest):
    rng = random.Random(5)
    words = ["a", "b", "null", "NaN", "", '"', '"a"', "\\", "\\\\x", "[PAD]", "é", "漢字", "<unk>", "N/A", "+", "a:b", "-1.#IND"]
    texts = ["\n".join(" ".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(40)) for _ in PARTS]
    texts = [text + "\n" + " ".join(words) for text in texts]  # every word is known
    folder = ptb(*texts)
    assert run("ptb", folder, *(["--longest", longest] if longest else []))[0] == 0
    for part, text in zip(PARTS, texts):
        expected = [line.split() for line in text.split("\n") if line.split()]
        assert restore(tmp_path / "out" / "ptb", "ptb", part) == expected
    if longest:
        longest_history = json.loads((tmp_path / "out" / "ptb" / "conversion.json").read_text())["longest_history"]
        assert longest_history == longest


def test_the_penn_treebank_comes_back_whole(run, tmp_path, request):
    places = [above / "shared" / "datasets" / "ptb" for above in request.config.rootpath.parents]
    folder = next((place for place in places if (place / "ptb.train.txt").is_file()), None)
    if folder is None:
        pytest.skip("the Penn Treebank may not be redistributed, and is not in shared/datasets/ptb above this repository")
    assert run("ptb", folder)[0] == 0
    out = tmp_path / "out" / "ptb"
    record = json.loads((out / "conversion.json").read_text(encoding="utf-8"))
    assert record["tokens"] == {"train": 929589, "valid": 73760, "test": 82430}  # as the literature counts them
    assert record["vocabulary"] == 10_000 and set(record["unknown"].values()) == {0}
    for part in PARTS:
        text = (folder / f"ptb.{part}.txt").read_text(encoding="utf-8")
        assert restore(out, "ptb", part) == [line.split() for line in text.split("\n") if line.split()]


@pytest.mark.parametrize("word", ["null", "nan", "[PAD]", '"x', "\\", "\\null", "plain", "", "N"])
def test_tokens_are_words_again(word):
    assert decode(encode(word)) == word


def test_pieces_predict_every_word_once_and_no_end_within():
    sentence = [str(i) for i in range(10)]
    for longest in range(2, 14):
        cut = pieces(sentence, "<eos>", longest)
        assert [word for piece in cut for word in piece[1:]] == [*sentence, "<eos>"]
        assert all(len(piece) <= longest + 1 for piece in cut)
        assert [piece[0] for piece in cut[1:]] == [piece[-1] for piece in cut[:-1]]


def test_the_vocabulary_is_of_the_most_frequent_words():
    text = [["b", "a", "b", "<unk>"], ["c", "a", "b", "d"]]
    assert choose_vocabulary(text, "<eos>", "<unk>") == ["<eos>", "<unk>", "b", "a", "c", "d"]
    assert choose_vocabulary(text, "<eos>", "<unk>", size=4) == ["<eos>", "<unk>", "b", "a"]
    assert choose_vocabulary(text, "<eos>", "<unk>", minimum=2) == ["<eos>", "<unk>", "b", "a"]
    with pytest.raises(DataError, match="no word of the training text is left"):
        choose_vocabulary(text, "<eos>", "<unk>", minimum=4)


def test_rare_words_become_unknown_and_are_counted(run, tmp_path):
    parts = []
    for part, text in zip(PARTS, ("a a b c\nb a", "a c", "a z z")):
        parts.append(tmp_path / f"my.{part}")
        parts[-1].write_text(text, encoding="utf-8")
    assert run("text", *parts, "--vocabulary", "4", "--name", "mine")[0] == 0
    out = tmp_path / "out" / "mine"
    assert restore(out, "mine", "train") == [["a", "a", "b", "<unk>"], ["b", "a"]]
    assert restore(out, "mine", "test") == [["a", "<unk>", "<unk>"]]
    assert json.loads((out / "conversion.json").read_text())["unknown"] == {"train": 1, "valid": 1, "test": 2}


def test_one_file_is_cut_in_its_order(run, tmp_path):
    (tmp_path / "all.txt").write_text("\n".join(f"w{i} x" for i in range(20)), encoding="utf-8")
    assert run("text", tmp_path / "all.txt")[0] == 0
    found = [restore(tmp_path / "out" / "all", "all", part) for part in PARTS]
    assert [len(part) for part in found] == [16, 2, 2] and found[0][0] == ["w0", "x"]
    code, _, error = run("text", tmp_path / "all.txt", "--held_out", "0.6")
    assert code == 1 and "--held_out=0.6 must be between 0 and 0.5" in error


def test_every_nth_sentence_is_kept_with_the_whole_vocabulary(ptb, run, tmp_path):
    text = "\n".join(f"w{i}" for i in range(10))
    assert run("ptb", ptb(text, text, text), "--every", "4")[0] == 0
    assert restore(tmp_path / "out" / "ptb", "ptb", "train") == [["w0"], ["w4"], ["w8"]]
    assert len((tmp_path / "out" / "ptb" / "ptb.item").read_text().split()) == 13


# --- odd text ---------------------------------------------------------------------------------------------------------


def test_empty_lines_tabs_and_line_ends_of_other_systems(tmp_path):
    path = tmp_path / "odd.txt"
    path.write_bytes("\ufeffa\tb  c\r\n\r\n   \n\u00a0d\u3000e\x0c\n".encode())
    assert read_sentences(path, "<eos>") == [["a", "b", "c"], ["d", "e"]]


def test_other_encodings(ptb, run, tmp_path):
    texts = ["zwölf Boxkämpfer\n"] * 3
    folder = ptb(*texts, encoding="latin-1")
    code, _, error = run("ptb", folder)
    assert code == 1 and "ptb.train.txt is not text in encoding utf-8" in error and "--encoding" in error
    assert run("ptb", folder, "--encoding", "latin-1")[0] == 0
    assert restore(tmp_path / "out" / "ptb", "ptb", "test") == [["zwölf", "Boxkämpfer"]]


@pytest.mark.parametrize(
    "texts, options, why",
    [
        (("a <eos>\n", "a", "a"), [], "ptb.train.txt, line 1 holds the word '<eos>'"),
        (("a\n", "b\na\0b", "a"), [], "ptb.valid.txt, line 2 holds a NUL"),
        (("a\n", "\n \n", "a"), [], "ptb.valid.txt holds no sentence"),
        (("a\n", "b"), [], "cannot read"),
        (("a", "a", "a"), ["--end", "x y"], "--end='x y' must be a word"),
        (("a", "a", "a"), ["--unknown", "null"], "--unknown='null' must be a word"),
        (("a", "a", "a"), ["--unknown", "<eos>"], "must be a word of its own"),
        (("a", "a", "a"), ["--encoding", "nosuch"], "is not text in encoding nosuch"),
        (("a", "a", "a"), ["--name", "a/b c"], "must be plain"),
        (("a", "a", "a"), ["--minimum", "9"], "no word of the training text is left"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_one_line(ptb, run, tmp_path, texts, options, why):
    code, _, error = run("ptb", ptb(*texts), *options)
    assert code == 1 and why in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "ptb").exists()


def test_a_folder_of_something_else_is_left_alone(ptb, run, tmp_path):
    other = tmp_path / "out" / "ptb"
    other.mkdir(parents=True)
    (other / "thesis.tex").write_text("years of work")
    code, _, error = run("ptb", ptb(*PTB))
    assert code == 1 and "was not made by this command" in error
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]
