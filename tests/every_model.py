"""A slice of ML-100K with all that RecBole's sequential models read, and each model at a size that tests can afford."""

import inspect
from pathlib import Path

import numpy as np
import recbole
import recbole.model.sequential_recommender as exported
from recbole.model.abstract_recommender import SequentialRecommender

USERS, ITEMS, LENGTH = 60, 48, 8
SOURCE = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"

# Where a model's defaults do not fit a vocabulary or a length as small as the slice's.
SETTINGS = {
    "BERT4Rec": {"mask_ratio": 0.4},
    "GRU4RecCPR": {"reranker_CAN_NUM": 10},
    "SASRecCPR": {"reranker_CAN_NUM": 10},
    "Caser": {"nh": 2, "nv": 2},
    "DIN": {"mlp_hidden_size": [8, 8], "embedding_size": 4},
    "DIEN": {"mlp_hidden_size": [8, 8], "embedding_size": 4},
    "SINE": {"prototype_size": 10},
    "NextItNet": {"block_num": 1, "dilations": [1, 2]},
    "FEARec": {"n_layers": 2},
    "KSR": {"kg_embedding_size": 8},
}


def exported_models():
    """Names of the sequential recommenders that this RecBole exports."""
    return sorted(
        name
        for name, value in vars(exported).items()
        if inspect.isclass(value) and issubclass(value, SequentialRecommender) and value is not SequentialRecommender
    )


def write_slice(folder):
    """Write ``slice.*`` into ``folder/slice``: real users, items, features and graph; random embeddings of entities."""
    folder = folder / "slice"
    folder.mkdir(parents=True)
    tables = {kind: _table(f"ml-100k.{kind}") for kind in ("inter", "item", "user", "kg", "link")}
    header, events = tables["inter"]
    counts = {}
    for _, item, _, _ in events:
        counts[item] = counts.get(item, 0) + 1
    items = set(sorted(counts, key=lambda item: (-counts[item], item))[:ITEMS])
    events = sorted((row for row in events if row[1] in items), key=lambda row: (row[0], float(row[3])))
    kept, of_user = [], {}
    for row in events:
        of_user.setdefault(row[0], []).append(row)
    users = [user for user in sorted(of_user) if len(of_user[user]) >= 6][:USERS]
    for user in users:
        kept.extend(of_user[user][:14])
    _write(folder / "slice.inter", header, kept)
    _write(folder / "slice.item", tables["item"][0], [row for row in tables["item"][1] if row[0] in items])
    _write(folder / "slice.user", tables["user"][0], [row for row in tables["user"][1] if row[0] in users])
    links = [row for row in tables["link"][1] if row[0] in items]
    entities = {row[1] for row in links}
    triples = [row for row in tables["kg"][1] if row[0] in entities][:200]
    _write(folder / "slice.link", tables["link"][0], links)
    _write(folder / "slice.kg", tables["kg"][0], triples)
    rng = np.random.default_rng(0)
    names = sorted(entities | {row[0] for row in triples} | {row[2] for row in triples})
    relations = sorted({row[1] for row in triples})
    for kind, tokens in (("ent", names), ("rel", relations)):
        rows = [(token, " ".join(f"{x:.4f}" for x in rng.normal(0, 0.3, 8))) for token in tokens]
        _write(folder / f"slice.{kind}_feature", f"{kind}_id:token\t{kind}_emb:float_seq", rows)
    return folder.parent


def _table(name):
    header, *lines = (SOURCE / name).read_text(encoding="utf-8").splitlines()
    return header, [line.split("\t") for line in lines]


def _write(path, header, rows):
    path.write_text("\n".join([header, *("\t".join(row) for row in rows)]) + "\n", encoding="utf-8")


def settings(name, folder):
    """Overrides with which a model and every stage of the job are tiny."""
    return {
        "data_path": str(folder),
        "MAX_ITEM_LIST_LENGTH": LENGTH,
        "hidden_size": 8,
        "inner_size": 16,
        "embedding_size": 8,
        "n_layers": 1,
        "n_heads": 2,
        "epochs": 1,
        "train_batch_size": 64,
        "eval_batch_size": 64,
        "topk": [5, 10],
        "show_progress": False,
        "state": "ERROR",
        "use_gpu": False,
        "farzi_sequences": 4,
        "farzi_latent_dim": 3,
        "farzi_inner_steps": 4,
        "farzi_inner_batch_size": 2,
        "farzi_inner_learning_rate": 0.02,
        "farzi_window": 4,
        "farzi_outer_batch_size": 32,
        **SETTINGS.get(name, {}),
    }
