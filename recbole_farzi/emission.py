"""Summaries as RecBole atomic files: soft (lossless, for the plugin) and hard (for any RecBole).

A folder ``NAME`` (``ml-100k-farzi``) holds

=========================  =========================================================================================
``NAME.latent``            ``Z``: a row an event, ``event_id, sequence, position, latent:float_seq``, and ``item_id`` where
                           events are read as items
``NAME.item``              the whole catalogue, with ``M`` and ``b``: ``item_id, decoder:float_seq, decoder_bias:float``
``NAME.inter``             hard events: ``user_id, item_id, timestamp``; what RecBole splits by itself
``NAME.train.inter``       RecBole's benchmark rows, ``user_id, item_id_list:token_seq, item_id``: a hard event after the
                           events before it; after the items where events are read as items
``NAME.valid.inter``       the real validation rows, in the same form
``NAME.test.inter``        the real test rows
``NAME.yaml``              properties with which plain RecBole trains on the hard files and evaluates on the real split
``recipe.json``            how to train on the soft files (tau, T, learning rate, batches), and where all this comes from
=========================  =========================================================================================

Numbers are written with as many digits as reading them back exactly needs.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from recbole_farzi.atomic import NAME, check_tokens
from recbole_farzi.errors import DataError, StorageError
from recbole_farzi.storage import digest, new_directory, read_json, write_json, write_text
from recbole_farzi.summary import Summary

__all__ = ["align", "check_place", "emit", "load_summary", "plain_properties", "summary_digest"]

_FORMAT = 1
_LATENT, _INPUT = ["event_id:token", "sequence:float", "position:float", "latent:float_seq"], "item_id:token"


def emit(directory, summary, hard_sequences, item_tokens, evaluation, recipe, maximum):
    """Write a summary; the folder appears whole or not at all, and replaces an earlier one.

    Args:
        directory: the folder to write; its name is the dataset's name.
        summary: :class:`recbole_farzi.summary.Summary`.
        hard_sequences: item ids, shape [n, xi], n a multiple of the summary's sequences, those of each together.
        item_tokens: token of each item id, padding first.
        evaluation: ``{"valid": rows, "test": rows}``, each a list of ``(user token, [item ids], item id)``.
        recipe: plain values: how to train on the soft events, and the provenance.
        maximum: RecBole's ``MAX_ITEM_LIST_LENGTH``.

    Returns:
        Path of the folder.

    Raises:
        StorageError: it cannot be written.
        DataError: a token cannot stand in an atomic file.
    """
    directory = Path(directory)
    check_place(directory)
    check_tokens(item_tokens[1:])
    name, tokens = directory.name, [str(token) for token in item_tokens]
    with new_directory(directory) as folder:
        _write_latent(folder / f"{name}.latent", summary, tokens)
        _write_items(folder / f"{name}.item", summary, tokens)
        prefix = _unused_prefix(user for rows in evaluation.values() for user, _, _ in rows)
        synthetic = [f"{prefix}{row}" for row in range(len(hard_sequences))]
        _write_events(folder / f"{name}.inter", synthetic, hard_sequences, tokens)
        histories = hard_sequences
        if summary.inputs is not None:
            histories = summary.inputs.repeat_interleave(len(hard_sequences) // len(summary.inputs), dim=0)
        _write_prefixes(folder / f"{name}.train.inter", _prefixes(synthetic, histories, hard_sequences, maximum), tokens)
        for part, rows in evaluation.items():
            _write_prefixes(folder / f"{name}.{part}.inter", rows, tokens)
        write_text(folder / f"{name}.yaml", _properties(name, maximum))
        whole = {
            "format": _FORMAT,
            "name": name,
            "temperature": summary.temperature,
            "summary_sha256": summary_digest(summary),
            "items_sha256": digest(tokens[1:]),
            **recipe,
        }
        write_json(folder / "recipe.json", {**whole, "recipe_sha256": _recipe_digest(whole)})
    return directory


def check_place(directory):
    """Refuse a folder that an emission would replace though it is none, or whose name RecBole could not be given.

    Raises:
        StorageError
    """
    directory = Path(directory)
    if not NAME.fullmatch(directory.name):
        raise StorageError(f"the summary cannot be written to {directory}: its name would be the dataset's, give a plain name")
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise StorageError(f"the summary cannot be written to {directory}: that is no folder")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "recipe.json").is_file():
        raise StorageError(
            f"{directory} holds something else than a summary and will not be replaced; choose another farzi_output_path"
        )


def load_summary(directory):
    """Read the soft files back, exactly.

    Args:
        directory: a folder that :func:`emit` wrote.

    Returns:
        ``(summary, item_tokens, recipe)``: the :class:`recbole_farzi.summary.Summary`, the token of each item id
        (``[PAD]`` first), and the recipe.

    Raises:
        StorageError: a file is missing, damaged or foreign.
    """
    directory = Path(directory)
    recipe = read_json(directory / "recipe.json")
    name = recipe.get("name") if isinstance(recipe, dict) else None
    if not isinstance(name, str) or not NAME.fullmatch(name) or recipe.get("format") != _FORMAT:
        raise StorageError(f"{directory / 'recipe.json'} is no recipe that this version reads (format {_FORMAT})")
    latent = _read_table(directory / f"{name}.latent", _LATENT, [*_LATENT, _INPUT])
    items = _read_table(directory / f"{name}.item", ["item_id:token", "decoder:float_seq", "decoder_bias:float"])
    tokens = items["item_id:token"].tolist()
    try:
        vectors = np.array([line.split(" ") for line in latent["latent:float_seq"]], dtype=np.float32)
        sequences = int(float(latent["sequence:float"].iloc[-1])) + 1
        columns = np.array([line.split(" ") for line in items["decoder:float_seq"]], dtype=np.float32)
        bias = items["decoder_bias:float"].to_numpy(dtype=np.float32)
        summary = Summary(
            torch.from_numpy(vectors).view(sequences, -1, vectors.shape[1]),
            torch.from_numpy(np.pad(columns.T, ((0, 0), (1, 0)))),
            torch.from_numpy(np.pad(bias, (1, 0))),
            float(recipe["temperature"]),
            _read_inputs(latent, tokens, sequences) if _INPUT in latent else None,
        )
    except (ValueError, TypeError, OverflowError, RuntimeError, IndexError, KeyError, DataError) as error:
        raise StorageError(f"the soft files in {directory} are damaged: {' '.join(str(error).split())}") from error
    if summary_digest(summary) != recipe.get("summary_sha256") or digest(tokens) != recipe.get("items_sha256"):
        raise StorageError(f"the soft files in {directory} are not those that recipe.json describes (checksum differs)")
    if recipe.get("recipe_sha256") != _recipe_digest(recipe):
        raise StorageError(f"{directory / 'recipe.json'} is not as it was written (checksum differs)")
    return summary, ["[PAD]", *tokens], recipe


def _recipe_digest(recipe):
    """SHA-256 of a recipe, as it is read back, without the checksum itself."""
    return digest(json.loads(json.dumps({key: value for key, value in recipe.items() if key != "recipe_sha256"})))


def align(summary, item_tokens, wanted_tokens):
    """A summary over the items of a dataset, in the order of that dataset's ids.

    Args:
        summary: :class:`recbole_farzi.summary.Summary`.
        item_tokens: token of each of its item ids, padding first, as :func:`load_summary` gives them.
        wanted_tokens: token of each item id of the dataset, padding first (RecBole's ``field2id_token``).

    Returns:
        The same summary with the columns of ``M`` and ``b``, and the ids of its inputs, in the wanted order.

    Raises:
        DataError: the two catalogues differ.
    """
    place = {str(token): number for number, token in enumerate(item_tokens)}
    wanted = [str(token) for token in wanted_tokens]
    if len(wanted) != len(place) or any(token not in place for token in wanted[1:]):
        raise DataError("the summary was made for another catalogue of items than the dataset's")
    columns = torch.tensor([0, *(place[token] for token in wanted[1:])])
    inputs = summary.inputs
    if inputs is not None:
        inputs = torch.argsort(columns).to(inputs.device)[inputs]
    return Summary(summary.latent, summary.decoder[:, columns], summary.bias[columns], summary.temperature, inputs)


def summary_digest(summary):
    """SHA-256 of the summary's numbers, padding left out."""
    latent, decoder, bias = (t.detach().cpu() for t in summary.tensors)
    parts = [digest(latent), digest(decoder[:, 1:]), digest(bias[1:]), summary.temperature]
    return digest(parts if summary.inputs is None else [*parts, digest(summary.inputs.cpu())])


def plain_properties(directory):
    """The property file with which plain RecBole reads the hard files of a folder."""
    directory = Path(directory)
    return directory / f"{directory.name}.yaml"


def _unused_prefix(users):
    """Start of the synthetic users' tokens, such that no real user's begins with it."""
    users, prefix = set(users), "farzi-"
    while any(user.startswith(prefix) for user in users):
        prefix = f"_{prefix}"
    return prefix


def _properties(name, maximum):
    return f"""# Plain RecBole trains on the hard events of {name} and evaluates on the real split with
#   run_recbole.py -m SASRec -d {name} --config_files {name}.yaml
benchmark_filename: [train, valid, test]
load_col:
  inter: [user_id, item_id_list, item_id]
  item: [item_id]
alias_of_item_id: [item_id_list]
MAX_ITEM_LIST_LENGTH: {maximum}
train_neg_sample_args: ~
"""


def _exact(values):
    """Shortest text that gives the same float32 back."""
    return [np.format_float_scientific(v, unique=True, trim="-", exp_digits=1) for v in values]


def _write_latent(path, summary, tokens):
    latent = summary.latent.detach().cpu().numpy().astype(np.float32)
    inputs = None if summary.inputs is None else summary.inputs.tolist()
    lines = ["\t".join(_LATENT if inputs is None else [*_LATENT, _INPUT])]
    for s, sequence in enumerate(latent):
        for p, vector in enumerate(sequence):
            read_as = "" if inputs is None else f"\t{tokens[inputs[s][p]]}"
            lines.append(f"{s}-{p}\t{s}\t{p}\t" + " ".join(_exact(vector)) + read_as)
    write_text(path, "\n".join(lines) + "\n")


def _read_inputs(latent, tokens, sequences):
    numbers = {token: number for number, token in enumerate(tokens, start=1)}
    return torch.tensor([numbers[token] for token in latent[_INPUT]]).view(sequences, -1)


def _write_items(path, summary, tokens):
    decoder = summary.decoder.detach().cpu().numpy().astype(np.float32).T
    bias = _exact(summary.bias.detach().cpu().numpy().astype(np.float32))
    lines = ["item_id:token\tdecoder:float_seq\tdecoder_bias:float"]
    for i in range(1, len(tokens)):
        lines.append(f"{tokens[i]}\t" + " ".join(_exact(decoder[i])) + f"\t{bias[i]}")
    write_text(path, "\n".join(lines) + "\n")


def _write_events(path, users, sequences, tokens):
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, sequence in zip(users, sequences.tolist()):
        lines.extend(f"{user}\t{tokens[item]}\t{position}" for position, item in enumerate(sequence))
    write_text(path, "\n".join(lines) + "\n")


def _prefixes(users, histories, sequences, maximum):
    for user, history, sequence in zip(users, histories.tolist(), sequences.tolist()):
        for end in range(1, len(sequence)):
            yield user, history[max(0, end - maximum) : end], sequence[end]


def _write_prefixes(path, rows, tokens):
    lines = ["user_id:token\titem_id_list:token_seq\titem_id:token"]
    for user, history, target in rows:
        lines.append(f"{user}\t" + " ".join(tokens[item] for item in history) + f"\t{tokens[target]}")
    write_text(path, "\n".join(lines) + "\n")


def _read_table(path, *columns):
    """A table with one of some lists of columns."""
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=3)
    except FileNotFoundError as error:
        raise StorageError(f"{path} is missing") from error
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise StorageError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if list(table.columns) not in columns or table.empty or not isinstance(table.index, pd.RangeIndex):
        raise StorageError(f"{path} is no file of this plugin: it should have columns {', '.join(columns[0])}")
    return table
