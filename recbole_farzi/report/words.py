"""Names, numbers and sentences: how things are called and put in words, the same in every kind of report."""

from recbole_farzi.report.aggregate import SMALL_STRATUM, per_cent, separation

__all__ = [
    "MISSING",
    "big_number",
    "gap_sentences",
    "glossary",
    "headline",
    "headline_metrics",
    "kilobytes",
    "mean_and_spread",
    "metric_name",
    "metric_value",
    "notes",
    "percentage",
    "relative_text",
    "seconds_text",
    "strata_metrics",
    "strata_notes",
    "unit",
    "verdict",
    "verdict_note",
]

MISSING = "–"

_METRICS = {
    "hit": "HR",
    "ndcg": "nDCG",
    "mrr": "MRR",
    "map": "MAP",
    "recall": "Recall",
    "precision": "Precision",
    "auc": "AUC",
    "gauc": "GAUC",
    "logloss": "log loss",
    "crossentropy": "cross-entropy",
    "itemcoverage": "item coverage",
    "averagepopularity": "average popularity",
    "giniindex": "Gini index",
    "shannonentropy": "Shannon entropy",
    "tailpercentage": "tail percentage",
}


# ---- names and numbers


def metric_name(metric):
    """RecBole's name of a metric in the field's spelling: ``hit@10`` is HR@10."""
    name, at, k = str(metric).partition("@")
    return _METRICS.get(name.lower(), name) + at + k


def unit(metric):
    """Unit of a metric's differences: nats for the cross-entropy (natural logarithm), else none."""
    return "nats" if metric == "crossentropy" else ""


def metric_value(value):
    """A metric in four decimals, as RecBole shows it; fewer from 100 on."""
    if value is None:
        return MISSING
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def mean_and_spread(statistic):
    """``mean ± sd``; the mean alone for a single run."""
    if statistic.sd is None:
        return metric_value(statistic.mean)
    return f"{metric_value(statistic.mean)} ± {metric_value(statistic.sd)}"


def percentage(value):
    """Per cent without decimals, with one below 10."""
    if value is None:
        return MISSING
    return f"{value:.1f}%" if abs(value) < 9.95 else f"{value:.0f}%"


def relative_text(report, contender, metric, kind=None, stratum=None):
    """Per cent of full data, or the difference to it; empty where there is none, and for full data itself."""
    relative = report.relative(contender, metric, kind, stratum)
    if relative is None or contender.key == "full":
        return ""
    return f"{relative:+.2f}" if metric in report.smaller_is_better else percentage(relative)


def big_number(value):
    """A count with separators of thousands."""
    return MISSING if value is None else f"{value:,.0f}"


def kilobytes(value):
    """Bytes in KB of 1,024."""
    return MISSING if value is None else f"{value / 1024:,.0f}" if value >= 10240 else f"{value / 1024:,.1f}"


def seconds_text(value):
    """Seconds, with one decimal below 10."""
    return MISSING if value is None else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


# ---- which metrics stand in front


def headline_metrics(report):
    """The metrics of the headline: hit ratio and nDCG at the smallest k; else the first of which more is better."""
    bigger = [metric for metric in report.metrics if metric not in report.smaller_is_better]
    chosen = [found for found in (_at_k(bigger, "hit", min), _at_k(bigger, "ndcg", min)) if found]
    return chosen or bigger[:1]


def strata_metrics(report):
    """The metrics shown by stratum: nDCG at the smallest k, hit ratio at the largest, cross-entropy; else the first."""
    entropy = "crossentropy" if "crossentropy" in report.metrics else None
    chosen = [_at_k(report.metrics, "ndcg", min), _at_k(report.metrics, "hit", max), entropy]
    return [metric for metric in chosen if metric] or list(report.metrics[:1])


def _at_k(metrics, name, choose):
    found = {}
    for metric in metrics:
        head, _, k = metric.partition("@")
        if head.lower() == name and k.isdigit():
            found[int(k)] = metric
    return found[choose(found)] if found else None


# ---- sentences


def headline(report):
    """One sentence that says how far the summary goes, whichever way the numbers fall."""
    data, summary = report.part("data"), report.find("summary")
    where = " on ".join(str(report.results[name]) for name in ("model", "dataset") if report.results.get(name))
    if summary is None:
        return f"{len(report.contenders)} ways of training {where}".strip()
    details = []
    share = report.share_of_events(summary)
    if share is not None:
        details.append(f"{percentage(share)} of the {big_number(data['training_events'])} real ones")
    if summary.bytes is not None:
        size = report.find("full").bytes if report.find("full") else None
        part = per_cent(summary.bytes, size)
        details.append(f"{kilobytes(summary.bytes)} KB" + (f", {percentage(part)} of their size" if part else ""))
    count = "the" if summary.events is None else big_number(summary.events)
    subject = f"A model trained on {count} synthetic events"
    if details:
        subject += f" ({', '.join(details)})"
    reached = [
        (percentage(report.relative(summary, metric)), metric_name(metric))
        for metric in headline_metrics(report)
        if report.relative(summary, metric) is not None
    ]
    if reached:
        (share, name), *others = reached
        rest = "".join(f" and {share} of its {name}" for share, name in others)
        return f"{subject} reaches {share} of the {name} of full data{rest}"
    values = [(metric, report.value(summary, metric)) for metric in report.metrics]
    values = [f"{metric_name(metric)} {metric_value(value.mean)}" for metric, value in values if value.n]
    return f"{subject} reaches {values[0]}" if values else f"{subject} has no valid run"


def verdict(report, first, second, metric):
    """``better``, ``worse`` or ``level``: whether the means are further apart than the two spreads over seeds together.

    Where no spread is known, ``unclear``; where a value is missing, None. See
    :func:`recbole_farzi.report.aggregate.separation`.
    """
    own, other = report.value(first, metric), report.value(second, metric)
    if own.mean is None or other.mean is None:
        return None
    side = separation(own, other)
    if side is None:
        return "unclear"
    if side == 0:
        return "level"
    return "better" if (side > 0) != (metric in report.smaller_is_better) else "worse"


def verdict_note():
    """What the words of :func:`verdict` mean."""
    return (
        "Means: summary / other. Better and worse: by more than the two spreads over seeds together; level: not so; "
        "unclear: one run each. This describes the runs; it is no test."
    )


def gap_sentences(report):
    """How much of the gap from the undistilled start to full data the summary closes, where that is defined."""
    summary = report.find("summary")
    smaller = [metric for metric in report.metrics if metric in report.smaller_is_better]
    closed = [(metric, report.gap_closed(summary, metric)) for metric in smaller]
    return [
        f"Distillation closes {percentage(share)} of the gap in {metric_name(metric)} between the undistilled start "
        "and full data."
        for metric, share in closed
        if share is not None
    ]


def notes(report):
    """What a reader must know to read the numbers rightly."""
    runs = sorted({contender.runs for contender in report.contenders})
    many = " or ".join(map(str, runs)) or "no"
    out = [f"± is the sample standard deviation over seeds ({many} runs a contender); a single run has none."]
    rows, full = report.part("data").get("test_rows"), report.find("full")
    hits = next((metric for metric in headline_metrics(report) if metric.startswith("hit@")), None)
    rate = report.value(full, hits).mean if hits else None
    if rows and rate is not None and 0 <= rate <= 1:
        error = (rate * (1 - rate) / rows) ** 0.5
        out.append(
            f"The spread over seeds leaves out the choice of test users: with {big_number(rows)} of them, one standard "
            f"error of full data's {metric_name(hits)} is {error:.3f}."
        )
    if full is not None:
        out.append(
            "Per cent is that of full data's mean. Where less is better, the difference to full data stands instead."
        )
    out.append("KB are 1,024 bytes; a real or hard event counts as an item id of 4 bytes.")
    out.append(
        "Seconds are the mean time of one training run: the recipe's steps on a summary; on real and hard events "
        "with the validations that early stopping takes."
    )
    return out


def strata_notes():
    """What must be said beside every table of strata."""
    return (
        "Differences between strata are not tested for significance here. Strata of fewer than "
        f"{SMALL_STRATUM} rows are marked small."
    )


def glossary(report):
    """Pairs ``(term, meaning)``: the contenders in the results' own words, then metrics and terms."""
    terms = [(contender.label, contender.note) for contender in report.contenders if contender.note]
    families = {metric.partition("@")[0] for metric in report.metrics}
    if "hit" in families:
        terms.append(("HR@k", "hit ratio, RecBole's hit@k: share of test users whose held-out item is among the k "
                              "items that the model ranks highest"))  # fmt: skip
    if "ndcg" in families:
        terms.append(("nDCG@k", "as HR@k, but a hit at rank r counts 1 / log2(r + 1): higher ranks count more"))
    if "crossentropy" in families:
        terms.append(("cross-entropy", "mean of -log(probability that the model gives to the held-out item), in nats; "
                                       "less is better. Guessing evenly among V items scores log(V)"))  # fmt: skip
    terms += [
        ("event", "one item in one sequence; a soft event is a probability distribution over all items"),
        ("summary", "the small set of synthetic sequences that distillation makes from the dataset"),
        ("stratum", "a group of test rows: by the user's number of training events, or by how often the held-out item "
                    "occurs in training; the first are the coldest"),
        ("seed", "number that fixes a run's random draws; each seed is a training run of its own"),
    ]  # fmt: skip
    return terms
