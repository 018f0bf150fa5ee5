"""Names, numbers and sentences: how things are called and put in words, the same in every kind of report."""

from recbole_farzi.report.aggregate import SMALL_STRATUM, per_cent, separation

__all__ = [
    "MISSING",
    "big_number",
    "contender_name",
    "gain_sentences",
    "gap_range",
    "gap_sentences",
    "glossary",
    "headline",
    "headline_metrics",
    "kilobytes",
    "kind_title",
    "main_metrics",
    "mark",
    "mean_and_spread",
    "metric_name",
    "metric_value",
    "notes",
    "percentage",
    "relative_range",
    "relative_text",
    "seconds_text",
    "size_text",
    "spread_text",
    "strata_metrics",
    "strata_notes",
    "unit",
    "unseen_sentences",
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


def metric_value(value, beside=None):
    """A metric in four decimals, as RecBole shows it; fewer from 10 on. ``beside``: the value whose decimals it takes."""
    if value is None:
        return MISSING
    size = abs(value if beside is None else beside)
    return f"{value:.4f}" if size < 10 else f"{value:.2f}" if size < 100 else f"{value:,.1f}"


def spread_text(statistic):
    """The 95% interval, ``0.0885-0.1080``; ``± sd`` over seeds where it is not known, nothing for a single run."""
    if statistic.low is not None:
        return f"{metric_value(statistic.low, statistic.mean)}–{metric_value(statistic.high, statistic.mean)}"
    return "" if statistic.sd is None else f"± {metric_value(statistic.sd, statistic.mean)}"


def mean_and_spread(statistic):
    """The mean with its 95% interval, else ``mean ± sd``; the mean alone for a single run."""
    spread = spread_text(statistic)
    if statistic.low is not None:
        spread = f"({spread})"
    return f"{metric_value(statistic.mean)} {spread}".rstrip()


def percentage(value):
    """Per cent without decimals, with one below 10."""
    if value is None:
        return MISSING
    return f"{value:.1f}%" if abs(value) < 9.95 else f"{value:.0f}%"


def relative_text(report, contender, metric, kind=None, stratum=None):
    """Per cent of the reference, or the difference to it; empty where there is none, and for the reference itself."""
    relative = report.relative(contender, metric, kind, stratum)
    if relative is None or contender.key == report.reference.key:
        return ""
    return f"{relative:+.{_decimals(metric)}f}" if metric in report.smaller_is_better else percentage(relative)


def relative_range(report, contender, metric, kind=None, stratum=None):
    """The 95% interval of :func:`relative_text`: ``66-81%``, ``+0.15 to +0.23``; empty where it is not known."""
    found = report.relative_interval(contender, metric, kind, stratum)
    if found is None or not relative_text(report, contender, metric, kind, stratum):
        return ""
    low, high = found
    if metric in report.smaller_is_better:
        return f"{low:+.{_decimals(metric)}f} to {high:+.{_decimals(metric)}f}"
    if low is None:
        return "unbounded"
    return f"{percentage(low)} or more" if high is None else f"{percentage(low).rstrip('%')}–{percentage(high)}"


def _decimals(metric):
    return 4 if metric.startswith("giniindex") else 2


def mark(report, contender, metric, kind=None, stratum=None):
    """``▲`` better than the reference, ``▼`` worse, by the corrected test; else empty."""
    return {"better": "▲", "worse": "▼"}.get(report.against_reference(contender, metric, kind, stratum), "")


def contender_name(contender):
    """How the reference is called in a sentence."""
    return contender.label if contender is not None else "the reference"


def size_text(stratum):
    """How many test users a stratum has, and rows where some have several; the mark of those too small for a statement."""
    if stratum.rows is None:
        return ""
    if stratum.users in (None, stratum.rows):
        size = f"{big_number(stratum.rows)} {'rows' if stratum.users is None else 'users'}"
    else:
        size = f"{big_number(stratum.users)} users, {big_number(stratum.rows)} rows"
    return f"{size} (small)" if stratum.small else size


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


def main_metrics(report):
    """The metrics of figures and tables: those that the run was asked for, without the report's extra ones."""
    return [metric for metric in report.metrics if metric not in report.extra_metrics]


def headline_metrics(report):
    """The metrics of the headline: hit ratio and nDCG at the smallest k; else the first of which more is better."""
    bigger = [metric for metric in main_metrics(report) if metric not in report.smaller_is_better]
    chosen = [found for found in (_at_k(bigger, "hit", min), _at_k(bigger, "ndcg", min)) if found]
    return chosen or bigger[:1]


def strata_metrics(report):
    """The metrics shown by stratum: nDCG at the smallest k, hit ratio at the largest, cross-entropy; else the first."""
    entropy = "crossentropy" if "crossentropy" in report.metrics else None
    asked = main_metrics(report)
    chosen = [_at_k(asked, "ndcg", min), _at_k(asked, "hit", max), entropy]
    return [metric for metric in chosen if metric] or list(asked[:1])


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
        labels = [c.label for c in report.contenders if c.key != "popularity"] or [c.label for c in report.contenders]
        if not report.results.get("model") and 0 < len(labels) <= 4:
            return f"{_listed(labels)} on {report.results.get('dataset') or 'test'}, from cold to warm"
        count = f"{len(labels)} way{'s' if len(labels) != 1 else ''} of training"
        return f"{f'{count} {where}'.strip()}, from cold to warm"
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
        (relative_text(report, summary, metric), relative_range(report, summary, metric), metric_name(metric))
        for metric in headline_metrics(report)
        if relative_text(report, summary, metric)
    ]
    if reached:
        (share, sure, name), *others = reached
        sure = f" (95% interval {sure})" if sure else ""
        rest = "".join(
            f" and {share} of its {name}" + (f" ({sure})" if sure else "") for share, sure, name in others
        )
        return f"{subject} reaches {share} of the {name} of {contender_name(report.reference)}{sure}{rest}"
    values = [(metric, report.value(summary, metric)) for metric in report.metrics]
    values = [f"{metric_name(metric)} {metric_value(value.mean)}" for metric, value in values if value.n]
    return f"{subject} reaches {values[0]}" if values else f"{subject} has no valid run"


def verdict(report, other, metric):
    """The contender in focus against another: ``better``, ``worse`` or ``level``.

    By the paired test at 0.05 where the rows are known; else by whether the means are further apart than the two
    spreads over seeds together (:func:`recbole_farzi.report.aggregate.separation`), ``unclear`` where no spread is
    known. None where a value is missing.
    """
    own, others = report.value(report.focus, metric), report.value(other, metric)
    if own.mean is None or others.mean is None:
        return None
    tested = report.focus_against(other, metric)
    if tested is not None:
        return tested
    side = separation(own, others)
    if side is None:
        return "unclear"
    if side == 0:
        return "level"
    return "better" if (side > 0) != (metric in report.smaller_is_better) else "worse"


def verdict_note(report):
    """What the words of :func:`verdict` mean."""
    if report.estimates:
        return (
            "Means: in focus / other. Better and worse: by a paired randomisation test on the same users at 0.05, with the "
            "spread of the runs, p corrected by Holm's method for the number of contenders; level: not shown to differ."
        )
    return (
        "Means: in focus / other. Better and worse: by more than the two spreads over seeds together; level: not so; "
        "unclear: one run each. This describes the runs; it is no test."
    )


_KINDS = {
    "users": ("Cold to warm: users", "users by training events", "Test rows by how many training events the user has."),
    "items": (
        "Cold to warm: items", "items by occurrences", "Test rows by how often the held-out item occurs in training.",
    ),
    "tail": (
        "Long tail and head", "long tail and head",
        "The head is the most popular fifth of the items that occur in training, the long tail the rest.",
    ),
}  # fmt: skip


def kind_title(kind):
    """Title of a kind of strata, its name in a table's title, and a sentence that says what it is."""
    return _KINDS.get(kind, (f"Strata of {kind}", kind, ""))


def gain_sentences(report):
    """Who gains and who loses against the reference, a sentence a kind of strata; none where nothing was tested."""
    reference = report.reference
    if reference is None or not report.estimates:
        return []
    subjects = [report.focus] if report.focus else [c for c in report.contenders if c.key != reference.key][:3]
    metrics, out = strata_metrics(report), []
    metrics = [metrics[0], *(metric for metric in metrics[1:] if metric == "crossentropy" and len(subjects) == 1)]
    for subject, metric in ((subject, metric) for subject in subjects for metric in metrics):
        if subject.key == reference.key:
            continue
        for kind, strata in report.strata.items():
            found = {"better": [], "worse": [], "level": []}
            for number, stratum in enumerate(strata):
                said = report.against_reference(subject, metric, kind, number)
                if said is None:
                    continue
                text = relative_text(report, subject, metric, kind, number)
                sure = relative_range(report, subject, metric, kind, number)
                amount = f"{text} ({sure})" if text and sure else text or f"no per cent, {reference.label} has 0"
                found[said].append(f"{stratum.label}: {amount}")
            parts = [
                f"{word} for {', '.join(found[said])}"
                for said, word in (("better", "better"), ("worse", "worse"), ("level", "not shown to differ"))
                if found[said]
            ]
            if parts:
                out.append(
                    f"{subject.label} against {reference.label}, {kind_title(kind)[1]}, {metric_name(metric)} "
                    f"({_compared_how(report, metric)}): "
                    f"{'; '.join(parts)}."
                )
    return out


def _compared_how(report, metric):
    unit_or_none = f" in {unit(metric)}" if unit(metric) else ""
    return f"difference{unit_or_none}, less is better" if metric in report.smaller_is_better else f"per cent of {contender_name(report.reference)}"


def _listed(parts):
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def unseen_sentences(report):
    """How many test rows are of users or items that never occur in training, and what that means."""
    out = []
    for kind, name in (("users", "a user"), ("items", "an item")):
        rows = sum(stratum.rows or 0 for stratum in report.strata.get(kind, ()) if stratum.unseen)
        total = report.part("data").get("test_rows")
        of_all = f" of {big_number(total)}" if total else ""
        if rows:
            out.append(
                f"{big_number(rows)}{of_all} test rows are of {name} never seen in training: a model that knows "
                f"{kind} by their ids alone has learnt nothing of them"
                + (", and ranks them at random. " if kind == "items" else ". ")
                + "They count in the whole and are a stratum of their own."
            )
        elif report.strata.get(kind):
            out.append(f"No test row is of {name} never seen in training.")
    return out


def gap_sentences(report):
    """How much of the gap from the undistilled start to full data the summary closes, where that is defined."""
    summary = report.find("summary")
    smaller = [metric for metric in main_metrics(report) if metric in report.smaller_is_better]
    closed = [(metric, report.gap_closed(summary, metric)) for metric in smaller]
    return [
        f"Distillation closes {percentage(share)} of the gap in {metric_name(metric)} between the undistilled start "
        f"and full data{gap_range(report, summary, metric)}."
        for metric, share in closed
        if share is not None
    ]


def gap_range(report, contender, metric):
    """The 95% interval of the share of the gap that is closed, with what it is; empty where it is not known."""
    ends = report.gap_closed_interval(contender, metric)
    if ends is None:
        return ""
    low, high = ends
    if low is None or high is None:
        return " (95% interval unbounded: the gap itself is not sure)"
    return f" (95% interval {percentage(low)} to {percentage(high)})"


def notes(report):
    """What a reader must know to read the numbers rightly."""
    runs = sorted({contender.runs for contender in report.contenders})
    many = " or ".join(map(str, runs)) or "no"
    reference = report.reference
    if report.estimates:
        out = [
            f"Ranges are 95% intervals of the mean over test users and seeds ({many} runs a contender): users are "
            "resampled 2,000 times, the runs' own spread is added by Student's t. Of a single run they cover the users "
            "alone. Where no user was hit, the end is that of the exact binomial interval. Metrics of whole lists "
            "(coverage, Gini index) have no interval, and ± is the standard deviation over seeds. Intervals stand alone: they "
            "are not widened for their number, as the tests' p-values are."
        ]
    else:
        out = [f"± is the sample standard deviation over seeds ({many} runs a contender); a single run has none."]
        rows = report.part("data").get("test_rows")
        hits = next((metric for metric in headline_metrics(report) if metric.startswith("hit@")), None)
        rate = report.value(reference, hits).mean if hits else None
        if rows and rate is not None and 0 <= rate <= 1:
            error = (rate * (1 - rate) / rows) ** 0.5
            out.append(
                f"The spread over seeds leaves out the choice of test users: with {big_number(rows)} of them, one standard "
                f"error of {contender_name(reference)}'s {metric_name(hits)} is {error:.3f}."
            )
    if reference is not None:
        out.append(
            f"Per cent is that of the mean of {reference.label}. Where less is better, the difference to it stands instead."
        )
    if any(contender.bytes is not None for contender in report.contenders):
        full = report.find("full")
        known = full is not None and full.bytes and full.events
        out.append("KB are 1,024 bytes" + (f"; a real or hard event is an item id of {full.bytes / full.events:.0f} bytes." if known else "."))
    if any(contender.seconds.n for contender in report.contenders):
        out.append(
            "Seconds are the mean time of one training run: the recipe's steps on a summary; on real and hard events "
            "with the validations that early stopping takes."
        )
    return out


def strata_notes(report):
    """What must be said beside every table of strata."""
    small = f"Strata of fewer than {SMALL_STRATUM} test rows are marked small: too few for a statement, and not tested."
    if not report.estimates:
        return f"Differences between strata are not tested for significance here. {small}"
    name = contender_name(report.reference)
    return (
        f"▲ better and ▼ worse than {name}: paired randomisation test on the same users at 0.05, corrected by Holm's method "
        f"for the strata of a kind, for each contender and metric alone. No mark: not shown to differ. {small}"
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
    if "itemcoverage" in families:
        terms.append(("item coverage@k", "share of the catalogue that is among anybody's first k"))
    if "giniindex" in families:
        terms.append(("Gini index@k", "0 where all items are recommended equally often, near 1 where few are all the time"))
    if "averagepopularity" in families:
        terms.append(("average popularity@k", "mean number of training events of the recommended items"))
    if "tailpercentage" in families:
        terms.append(("tail percentage@k", "share of recommendations that are of the least popular tenth of the items "
                                           "(RecBole's tail_ratio)"))  # fmt: skip
    if "crossentropy" in families:
        terms.append(("cross-entropy", "mean of -log(probability that the model gives to the held-out item), in nats; "
                                       "less is better. Guessing evenly among V items scores log(V)"))  # fmt: skip
    terms += [
        ("event", "one item in one sequence; a soft event is a probability distribution over all items"),
        ("stratum", "a group of test rows: by the user's number of training events, or by how often the held-out item "
                    "occurs in training; the first are the coldest"),
        ("seed", "number that fixes a run's random draws; each seed is a training run of its own"),
    ]  # fmt: skip
    return terms
