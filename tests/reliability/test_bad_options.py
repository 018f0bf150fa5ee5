"""Options of every kind of wrong, from property files and the command line: taken, or refused in one line."""

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from recbole_farzi.configuration import build_config, parse_overrides, properties_directory
from recbole_farzi.errors import DataError, FarziError, OptionError
from recbole_farzi.options import Options, option_names, read_options

from .counting import outcomes

RECBOLE = [
    "learning_rate", "weight_decay", "epochs", "train_batch_size", "eval_batch_size", "eval_step", "stopping_step", "topk", "metrics",
    "valid_metric", "metric_decimal_place", "seed", "checkpoint_dir", "show_progress", "learner", "clip_grad_norm", "nproc", "eval_args",
    "loss_type", "MAX_ITEM_LIST_LENGTH", "data_path", "load_col", "benchmark_filename", "user_inter_num_interval", "train_neg_sample_args",
    "reproducibility", "state", "use_gpu", "gpu_id", "encoding", "field_separator", "hidden_size", "n_layers", "repeatable",
]  # fmt: skip

DEFAULTS = yaml.safe_load((properties_directory() / "farzi.yaml").read_text(encoding="utf-8"))

values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.integers(-2, 50), st.floats(), st.text(max_size=20),
        st.sampled_from(["", "1", "true", "[1, 2]", "{}", "__import__('os').abort()", "cpu", "adam", "Hit@10", "\0", "../x", "~"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=4,
)  # fmt: skip


def taken_or_refused(counts, function, *args):
    try:
        result = function(*args)
    except FarziError as error:
        message = str(error)
        assert message and "\n" not in message and len(message) < 3000, message
        counts["one clear error"] += 1
        return None
    counts["taken"] += 1
    return result


def configured(files, overrides):
    config, _ = build_config("SASRec", "tiny", files, overrides)
    return read_options(config)


def test_every_option_given_anything(workplace, tiny_options):
    """From Python and the command line."""
    names = sorted(option_names()) + RECBOLE

    @given(name=st.sampled_from(names), value=values)
    @example(name="clip_grad_norm", value={"max_norm": 5})
    @example(name="topk", value=[])
    @example(name="metrics", value=[])
    @example(name="eval_args", value={})
    @example(name="eval_args", value={"mode": "full"})
    @example(name="valid_metric", value=5)
    @example(name="farzi_inner_betas", value=[float("nan"), 0.9])
    @example(name="data_path", value=5)
    def try_one(name, value):
        options = taken_or_refused(counts, configured, (), {**tiny_options, "data_path": "data", name: value})
        assert options is None or isinstance(options, Options)

    with outcomes("options of any value") as counts:
        try_one()
    assert counts["taken"] and counts["one clear error"]


@pytest.mark.parametrize("name", sorted(option_names()))
@pytest.mark.parametrize("value", ["words", [], {}, float("nan"), -7, 2**80, True], ids=repr)
def test_no_option_takes_what_is_no_value_of_it(workplace, tiny_options, name, value):
    """Each of the plugin's options, of a wrong type or out of range; what some may be is left out."""
    may = {
        "words": {"farzi_output_path", "farzi_report_path"},
        "True": {"farzi_inner_dropout", "farzi_fresh", "farzi_pool_chain"},
        "[]": {"farzi_pool_snapshots", "farzi_report_metrics", "farzi_student_learning_rates"},
        str(2**80): {name for name, value in DEFAULTS.items() if isinstance(value, float)},
    }
    if name in may.get(str(value), ()):
        pytest.skip("is a value of it")
    with pytest.raises(OptionError, match=name):
        configured((), {**tiny_options, "data_path": "data", name: value})


def test_property_files_of_any_content(workplace, tiny_options):
    options = {**tiny_options, "data_path": "data"}
    good = yaml.safe_dump(options).encode()
    snippets = [b":", b"- ", b"\t", b"\0", b"&a ", b"*a", b"!!python/object:os.system", b"!!binary x", b"{", b"]", b"\"", b"2020-01-01", b"#", b"\xff",
                b"? ", b"|\n", b"1_000", b"0o7", b".nan", b".inf", b"~", b"<<: ", b"---\n", b"...\n", b"epochs: 1\n", b"farzi_x: 1\n"]  # fmt: skip

    @given(data=st.data())
    def try_one(data):
        if data.draw(st.integers(0, 4)) == 0:
            content = data.draw(st.binary(max_size=200))
        else:
            content = bytearray(good)
            for _ in range(data.draw(st.integers(1, 3))):
                at = data.draw(st.integers(0, len(content)))
                what = data.draw(st.sampled_from(["insert", "delete", "flip"]))
                if what == "insert":
                    content[at:at] = data.draw(st.sampled_from(snippets))
                elif what == "delete":
                    del content[at : at + data.draw(st.integers(1, 20))]
                elif at < len(content):
                    content[at] = data.draw(st.integers(0, 255))
        (workplace / "x.yaml").write_bytes(bytes(content))
        taken_or_refused(counts, configured, ("x.yaml",), {})

    with outcomes("property files broken in any way") as counts:
        try_one()
    assert counts["one clear error"]


def test_command_lines_of_any_content():
    @given(arguments=st.lists(st.one_of(st.text(max_size=20), st.text(max_size=20).map(lambda t: "--" + t), st.text(max_size=30).map(lambda t: "--epochs=" + t)), max_size=3))
    @example(arguments=["--x=" + "[" * 3000])
    @example(arguments=["--x=" + "9" * 10_000])
    @example(arguments=["--x=1j"])
    def try_one(arguments):
        taken_or_refused(counts, parse_overrides, arguments)

    with outcomes("arguments of any content") as counts:
        try_one()


@pytest.mark.parametrize("content", ["epochs: 3\nepochs: 4\n", "epochs: 3\nepochs: 3\n", "load_col: {inter: [a], inter: [b]}\n"])
def test_an_option_given_twice_in_a_file_is_refused(workplace, content):
    (workplace / "x.yaml").write_text(content)
    with pytest.raises(OptionError, match="x.yaml is not valid YAML: option (epochs|inter) is given twice"):
        build_config("SASRec", "tiny", ["x.yaml"], {})


def test_a_file_that_would_grow_without_end_is_refused(workplace):
    """"Billion laughs": nine lines that stand for a billion words."""
    lines = ["a0: &a0 [lol, lol]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    (workplace / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(OptionError, match="aliases .* are not supported"):
        build_config("SASRec", "tiny", ["x.yaml"], {})


@pytest.mark.parametrize(
    "name",
    ["../tiny", "..", ".", "/etc/passwd", "a/b", "a\\b", "", " ", "tiny\n", "tiny\0", "-x", ".hidden", "C:x", "nul", "CON", "com1", "LPT9.inter",
     "x" * 101, "a b", "~", "$HOME", "%APPDATA%", "file:x", 5, None, True, ["tiny"]],
    ids=repr,
)  # fmt: skip
def test_dataset_names_that_are_paths_or_devices_are_refused(workplace, tiny_options, name):
    if name is None:
        pytest.skip("None asks for the default")
    with pytest.raises(DataError, match="dataset name"):
        build_config("SASRec", name or " ", (), tiny_options)
    with pytest.raises(DataError, match="dataset name"):
        build_config("SASRec", None, (), {**tiny_options, "dataset": name or " "})


@pytest.mark.parametrize("name", ["ml-100k", "Amazon_Books", "data.v2", "数据", "a" * 100, "nullable", "console"])
def test_plain_names_are_taken(workplace, tiny_options, name):
    assert build_config("SASRec", name, (), tiny_options)[0]["dataset"] == name


def test_options_are_not_evaluated(workplace, tiny_options):
    """RecBole passes every text of its dict to eval."""
    harm = f"__import__('os').mkdir({str(workplace / 'made')!r})"
    for name in ("seed", "topk", "data_path", "checkpoint_dir", "metrics", "USER_ID_FIELD"):
        with pytest.raises(FarziError):
            configured((), {**tiny_options, name: harm})
            raise OptionError("taken as a text")
    assert not (workplace / "made").exists()
