"""Results that no run has made: invented numbers of a plausible size, in the shape that reports read."""

import random

LEVELS = {  # key: (label, hit@10, cross-entropy, events)
    "full": ("full data", 0.124, 6.10, 98114),
    "summary": ("summary (soft)", 0.111, 6.18, 2550),
    "start": ("teacher start, not distilled", 0.108, 6.35, 2550),
    "hard": ("summary (hard)", 0.081, 6.61, 2550),
    "random": ("random users", 0.045, 7.29, 2550),
    "popularity": ("popularity", 0.050, 7.02, 98114),
}
METRICS = ["hit@10", "hit@100", "ndcg@10", "ndcg@100", "crossentropy"]


def invented(keys=tuple(LEVELS), seeds=3, steps=300, **changes):
    """Results with the contenders ``keys``; ``changes`` replace parts at the top."""
    draw = random.Random(7)
    strata = {
        "users": [
            {"label": "1-28 training events", "rows": 315},
            {"label": "29-83 training events", "rows": 314},
            {"label": "84-735 training events", "rows": 314},
        ],
        "items": [
            {"label": "0-55 occurrences", "rows": 310},
            {"label": "56-168 occurrences", "rows": 590},
            {"label": "169-583 occurrences", "rows": 43},
        ],
    }

    def metrics(hit, entropy, factor=1.0):
        def near(value):
            return value * factor * draw.gauss(1, 0.03)

        values = (near(hit), near(min(4 * hit, 0.9)), near(hit * 0.47), near(hit * 0.98))
        return dict(zip(METRICS, (*values, entropy - 0.5 * (factor - 1) + draw.gauss(0, 0.01))))

    def run(key, number):
        _, hit, entropy, _ = LEVELS[key]
        warmth = 0.15 if key == "summary" else 0.4
        factors = {"users": (1 - warmth / 2, 1, 1 + warmth / 2), "items": (1 - 2 * warmth, 1, 1 + 2 * warmth)}
        return {
            "seed": None if key == "popularity" else 3020 + 1000 * number,
            "seconds": 0.0 if key == "popularity" else draw.uniform(70, 90) if key == "full" else draw.uniform(3, 9),
            "metrics": metrics(hit, entropy),
            "strata": {kind: [metrics(hit, entropy, factor) for factor in group] for kind, group in factors.items()},
        }

    def contender(key):
        label, _, _, events = LEVELS[key]
        size = 141456 if key in ("summary", "start") else 4 * events
        runs = [run(key, number) for number in range(1 if key == "popularity" else seeds)]
        note = f"SASRec, invented: {label}"
        return {"key": key, "label": label, "note": note, "events": events, "bytes": size, "runs": runs}

    losses = [6.1 + 0.5 / (1 + step / 40) + draw.gauss(0, 0.03) for step in range(steps)]
    validations = [
        {"step": step, "metrics": metrics(0.11 - 0.02 / (1 + step / 50), 6.2 + 0.2 / (1 + step / 50))}
        for step in range(0, steps + 1, 50)
    ]
    return {
        "format": 2,
        "dataset": "invented-100k",
        "model": "SASRec",
        "seed": 2020,
        "date": "2000-01-01",
        "command": "python run_farzi.py -m SASRec -d invented-100k",
        "environment": {"recbole": "1.2.1", "torch": "2.13.0", "device": "cpu", "threads": 2, "machine": "x86_64"},
        "data": {"users": 943, "items": 1682, "training_events": 98114, "valid_rows": 943, "test_rows": 943},
        "summary": {
            "sequences": 50, "length": 51, "latent_dim": 8, "temperature": 1.0, "events": 2550, "bytes": 141456,
            "sha256": "0" * 64,
        },
        "options": {"farzi_inner_steps": 100, "farzi_inner_learning_rate": 0.005, "farzi_start": "teacher"},
        "metrics": METRICS,
        "smaller_is_better": ["crossentropy"],
        "valid_metric": "crossentropy",
        "pool": {"seconds": 81.2, "reused": False, "models": 1},
        "distillation": {
            "outer_steps": steps, "best_step": steps * 5 // 6, "seconds": 480.0, "skipped": 0, "stopped_early": False,
            "losses": losses, "validations": validations,
        },
        "strata": strata,
        "contenders": [contender(key) for key in keys],
        **changes,
    }  # fmt: skip


def invented_rows(results, cold_gain=0.0, seed=3):
    """Results with strata of all kinds, and the rows behind them: ``(results, arrays)``.

    Args:
        results: from :func:`invented`.
        cold_gain: added to the hit rate of the summary on the items of the first stratum.
        seed: of the draws.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    rows = results["data"]["test_rows"]
    sizes = {kind: [stratum["rows"] for stratum in group] for kind, group in results["strata"].items()}
    stratum = {kind: rng.permutation(np.repeat(np.arange(len(size)), size)).astype(np.int16) for kind, size in sizes.items()}
    stratum["tail"] = (stratum["items"] > 0).astype(np.int16)
    cells = sorted({(int(u), int(i)) for u, i in zip(stratum["users"], stratum["items"])})
    place = {cell: number for number, cell in enumerate(cells)}
    stratum["grid"] = np.array([place[int(u), int(i)] for u, i in zip(stratum["users"], stratum["items"])], dtype=np.int16)
    labels = {kind: [part["label"] for part in group] for kind, group in results["strata"].items()}
    labels["tail"] = ["long tail", "head"]
    labels["grid"] = [f"{labels['users'][u]}, {labels['items'][i]}" for u, i in cells]
    described = {
        kind: [
            {"label": label, "rows": int((stratum[kind] == number).sum()), "unseen": label.startswith("0 "),
             "cell": list(cells[number]) if kind == "grid" else None}
            for number, label in enumerate(group)
        ]
        for kind, group in labels.items()
    }  # fmt: skip
    arrays = {"all/users": np.arange(1, rows + 1, dtype=np.int32), **{f"{k}/stratum": s for k, s in stratum.items()}}
    for contender in results["contenders"]:
        level = LEVELS.get(contender["key"], LEVELS["random"])
        rate = level[1] * (0.4 + 0.6 * stratum["items"]) / 0.8 + cold_gain * (
            (stratum["items"] == 0) & (contender["key"] == "summary")
        )
        common = rng.random(rows)
        values = []
        for _ in contender["runs"]:
            chance = 0.7 * common + 0.3 * rng.random(rows)
            near, far = chance < 0.9 * rate, chance < np.minimum(0.9, 4 * rate)
            rank = 1 / np.log2(2 + rng.integers(0, 10, rows))
            values.append([near, far, near * rank, far * rank * 0.7, level[2] - 2 * near + rng.normal(0, 1, rows)])
        arrays[f"all/{contender['key']}"] = np.array(values, dtype=np.float64)
    results = {**results, "strata": described, "row_metrics": METRICS}
    averaged(results, arrays)
    return results, arrays


def averaged(results, arrays):
    """Put the means of the rows into the results, in place."""
    for contender in results["contenders"]:
        for run, table in zip(contender["runs"], arrays[f"all/{contender['key']}"]):
            run["metrics"] = dict(zip(METRICS, table.mean(axis=1).tolist()))
            run["strata"] = {
                kind: [
                    dict(zip(METRICS, table[:, arrays[f"{kind}/stratum"] == number].mean(axis=1).tolist()))
                    for number in range(len(group))
                ]
                for kind, group in results["strata"].items()
            }
