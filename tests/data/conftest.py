"""Fixtures that load a dataset from its events or from the text of its file."""

import pytest

from recbole_farzi.configuration import build_config
from recbole_farzi.data import load_split

from .loaded import HEADER


@pytest.fixture
def load(workplace, write_inter, tiny_options):
    """Function from events to the split of a dataset that holds them."""

    def run(events, header=HEADER, **overrides):
        path = write_inter(events, header=header)
        return load_split(build_config("SASRec", "tiny", (), {**tiny_options, "data_path": str(path), **overrides})[0])

    return run


@pytest.fixture
def load_text(workplace, tiny_options):
    """The same from the text (or bytes) of the ``.inter`` file."""

    def run(content, **overrides):
        folder = workplace / "tiny"
        folder.mkdir(exist_ok=True)
        content = content if isinstance(content, bytes) else content.encode()
        (folder / "tiny.inter").write_bytes(content)
        return load_split(build_config("SASRec", "tiny", (), {**tiny_options, "data_path": str(workplace), **overrides})[0])

    return run
