"""What reports say and show of the errors that are to be expected of an estimator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.bids.units import REPORT_UNITS
from bidsfit.estimators.summary import ParameterSummary
from bidsfit.models.signal_model import SignalModel
from bidsfit.reports.evaluation import Axis, BiasArrows, plot_bias
from bidsfit.reports.words import percent, readable, with_unit
from bidsfit.trust.flags import LOW_RESPONSE, Flag
from bidsfit.trust.summary import FAITHFUL, ParameterTrust, TrustSummary

#: What is to be known of an estimator that reads neighbours.
READS = (
    "it reads the neighbours of a voxel, and its errors depend on them: they are least in a homogeneous region, larger "
    "at an edge, and largest in a small lesion. The image tells which of these it is only where tissues differ much."
)
#: What is to be known of an estimator that was trained, where voxels are unlike its training.
UNLIKE = "of the voxels are flagged as outside the training of {name}: what is said of its errors does not hold there."
#: Words for the surroundings of a voxel.
PLACES: Mapping[str, str] = {
    "homogeneous": "in a homogeneous region",
    "edge": "at an edge",
    "lesion": "in a lesion of one voxel",
}
#: A bias in fewer of the voxels is not told; of so many, most go one way.
FEW, MOST = 0.05, 0.8
#: Expected errors that differ by no more than this part are alike.
ALIKE = 0.05
#: How a biased voxel is told, see `bidsfit.trust.flags.BIASED_TRUTHS`.
DRAWN = "it is drawn by more than half its own noise"
#: A response of another parameter's truth that is told: so much of the range of one per range of the other.
BLAME = 0.25


def trust_row(summary: TrustSummary, model: SignalModel, parameters: list[ParameterSummary]) -> dict[str, Any]:
    """The entry `FitRecord.trust`."""
    medians = {row.name: row.median for row in parameters}
    return {
        "sentences": [
            in_words(row, model, medians[row.name], {place: rows[j] for place, rows in summary.surroundings.items()})
            for j, row in enumerate(summary.parameters)
        ]
        + blame_in_words(summary, model),
        "flags": [
            {
                "name": str(flag.name).lower().replace("_", " "),
                "share": summary.flags[str(flag.name).lower()],
                "message": flag.message,
            }
            for flag in Flag
        ],
        "parameters": [
            vars(row)
            | _words(model, row.name)
            | {"median": medians[row.name]}
            | {"surroundings": [vars(rows[j]) | {"place": PLACES[p]} for p, rows in summary.surroundings.items()]}
            for j, row in enumerate(summary.parameters)
        ],
        "snr": summary.snr,
        "truths": summary.performance["Truths"],
        "own_error": own_error(summary.performance),
        "others": [row.name for row in summary.parameters][2:],
    }


def own_error(facts: Mapping[str, Any]) -> str:
    """How well the simulation tells errors at tissues that it has not seen, in words; from `Performance.facts`."""
    if "ErrorOfBias" not in facts:  # of an earlier version
        return ""
    bias, sd = facts["ErrorOfBias"], facts["ErrorOfSD"]
    each = "; ".join(f"{name} {readable(bias[name])} and {percent(sd[name])}" for name in bias)
    return f"At tissues left out of the simulation its bias was off by so many SD, and its SD by so much: {each}."


def _words(model: SignalModel, name: str) -> dict[str, str]:
    quantity = model.quantity(name)
    return {"latex": quantity.latex, "unit": REPORT_UNITS[quantity.unit].name}


def in_words(
    row: ParameterTrust,
    model: SignalModel,
    median: float,
    surroundings: Mapping[str, ParameterTrust] = MappingProxyType({}),
) -> str:
    """What is to be expected of one parameter, in a sentence; ``surroundings`` are those of `TrustSummary`."""
    unit = REPORT_UNITS[model.quantity(row.name).unit].name
    parts = []
    if not np.isfinite(row.response):
        return f"{row.name}: nothing can be said."
    if surroundings:
        shown = [f"{_shown(there)} {PLACES[place]}" for place, there in surroundings.items()]
        parts.append(f"a true change shows by {', '.join(shown)}")
    elif row.response < FAITHFUL:
        parts.append(f"differences between tissues shrink to {100 * max(row.response, 0):.0f} %")
    elif row.response > 2 - FAITHFUL:
        parts.append(f"differences between tissues grow to {100 * row.response:.0f} %")
    else:
        parts.append("differences between tissues show at full size")
    if row.biased >= FEW:
        where = ""
        if np.isfinite(row.towards):
            where = f" towards {with_unit(readable(row.towards), unit)}"
        elif row.upwards > MOST or row.upwards < 1 - MOST:
            where = " upwards" if row.upwards > MOST else " downwards"
        parts.append(f"in {percent(row.biased)} of the voxels {DRAWN}{where}")
    if row.unsure >= FEW:
        what = "that" if row.biased >= FEW else f"whether {DRAWN}"
        parts.append(f"in {percent(row.unsure)} of the voxels {what} is not known")
    if "lesion" in surroundings:
        row = surroundings["lesion"]
    if np.isfinite(row.smallest_change):
        change = with_unit(readable(row.smallest_change), unit)
        share = f" ({100 * row.smallest_change / abs(median):.0f} % of the median)" if median else ""
        parts.append(f"changes of a single voxel below {change}{share} cannot be seen")
    else:
        parts.append("no change of a single voxel can be seen")
    return f"{row.name}: {'; '.join(parts)}."


def blame_in_words(summary: TrustSummary, model: SignalModel) -> list[str]:
    """Which parameter changes where the truth of another does."""
    sentences: list[str] = []
    names = [row.name for row in summary.parameters]
    if any(name not in model.names for name in names):
        return sentences  # derived quantities change together
    spans = {name: float(np.diff(model[name].display or model[name].bounds)[0]) for name in names}
    for i, name in enumerate(names):
        for j, other in enumerate(names):
            if i != j and summary.responses and abs(summary.responses[i][j]) * spans[other] / spans[name] > BLAME:
                words = "rises" if summary.responses[i][j] > 0 else "falls"
                sentences.append(
                    f"{name} takes the blame for {other}: where the true {other} rises, the estimate of {name} {words}."
                )
    return sentences


def expected_errors(
    summaries: Mapping[str, TrustSummary | None], model: SignalModel, spatial: Collection[str] = ()
) -> dict[str, Any]:
    """The entry `ComparisonRecord.trust`, from the summaries of several estimators; empty unless two have one.

    Those in ``spatial`` read neighbours. Their errors depend on surroundings that the image hardly tells, so that none
    of them is recommended.
    """
    known = {name: {row.name: row for row in found.parameters} for name, found in summaries.items() if found}
    if len(known) < 2:
        return {}
    names = [q.name for q in model.reported if all(q.name in rows for rows in known.values())]
    by_parameter = {name: _ranked({estimator: rows[name] for estimator, rows in known.items()}) for name in names}
    ranked = {name: {e: row for e, row in rows.items() if e not in spatial} for name, rows in by_parameter.items()}
    sentences = []
    if len(set(known) - set(spatial)) > 1:
        sentences = [recommendation(name, rows, _words(model, name)["unit"]) for name, rows in ranked.items()]
        sentences += [recommendation_for_all(ranked)] * (len(names) > 1)
    sentences += [f"{name} is not compared: {READS}" for name in known if name in spatial]
    outside = {name: found.flags.get("outside_training", 0.0) for name, found in summaries.items() if found}
    sentences += [f"{percent(share)} {UNLIKE.format(name=name)}" for name, share in outside.items() if share >= FEW]
    return {
        "sentences": list(filter(None, sentences)),
        "parameters": [
            {"name": name, **_words(model, name), "rows": [vars(row) | {"estimator": e} for e, row in rows.items()]}
            for name, rows in by_parameter.items()
        ],
    }


def _ranked(rows: Mapping[str, ParameterTrust]) -> dict[str, ParameterTrust]:
    """Rows by estimator, that of the least expected error first, unknown ones last."""
    return dict(sorted(rows.items(), key=lambda one: one[1].rmse if np.isfinite(one[1].rmse) else np.inf))


def recommendation(name: str, rows: Mapping[str, ParameterTrust], unit: str) -> str:
    """Which estimator to take for a parameter, and why; ``rows`` begin with that of the least expected error."""
    known = {estimator: row for estimator, row in rows.items() if np.isfinite(row.rmse)}
    if not known:
        return ""
    best, least = next(iter(known.items()))
    others = ", ".join(f"{estimator} {readable(row.rmse)}" for estimator, row in known.items() if estimator != best)
    error = f"its expected error of {with_unit(readable(least.rmse), unit)} is the least" + f" ({others})" * bool(
        others
    )
    alike = [estimator for estimator, row in known.items() if row.rmse <= (1 + ALIKE) * least.rmse][1:]
    words = f"For {name} take {best}: {error}"
    if alike:
        words += f", that of {' and '.join(alike)} hardly larger"
    if least.biased > 0.5:
        words += f", though in {percent(least.biased)} of the voxels {DRAWN}"
    if least.response >= LOW_RESPONSE:
        return f"{words}, and {_shown(least)} of a true change shows."
    words += f"; but it hides changes, of which {_shown(least)} shows. "
    faithful = next(((e, row) for e, row in known.items() if row.response >= LOW_RESPONSE), None)
    if faithful is None:
        return f"{words}With none of the estimators {100 * LOW_RESPONSE:.0f} % of a true change show."
    estimator, row = faithful
    return f"{words}For questions of change take {estimator}, where {_shown(row)} shows."


def recommendation_for_all(by_parameter: Mapping[str, Mapping[str, ParameterTrust]]) -> str:
    """Which estimator to take for all parameters: that of the least expected errors relative to the least of each."""
    rows = list(by_parameter.values())
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = {
            estimator: float(
                np.exp(np.mean([np.log(own[estimator].rmse / min(r.rmse for r in own.values())) for own in rows]))
            )
            for estimator in rows[0]
        }
    known = sorted((e for e, value in excess.items() if np.isfinite(value)), key=excess.__getitem__)
    if not known:
        return ""
    hidden = {e: [n for n, own in by_parameter.items() if own[e].response < LOW_RESPONSE] for e in known}
    best, *others = known
    more = f" ({', '.join(f'{e} {readable(excess[e])}' for e in others)})" if others else ""
    words = (
        f"For all parameters together take {best}: its expected errors are {readable(excess[best])} times the least of"
        f" each parameter on average{more}"
    )
    if not hidden[best]:
        faintest = min((own[best] for own in rows), key=lambda row: row.response)
        return f"{words}, and {_shown(faintest)} or more of a true change of each shows."
    words += f"; but it hides changes of {' and '.join(hidden[best])}. "
    fewest = min(known, key=lambda e: len(hidden[e]))
    if len(hidden[fewest]) == len(hidden[best]):
        return f"{words}No other hides fewer."
    left = f"hides those of {' and '.join(hidden[fewest])} only" if hidden[fewest] else "hides none"
    return f"{words}For questions of change take {fewest}, which {left}."


def _shown(row: ParameterTrust) -> str:
    return f"{100 * max(row.response, 0):.0f} %"


def plot_expected_bias(path: Path, summary: TrustSummary, model: SignalModel, values: Mapping[str, NDArray]) -> None:
    """Plot the bias of the first two parameters over the density of the voxels of the image."""
    names = [row.name for row in summary.parameters[:2]]
    arrows = np.array(summary.arrows)
    axes = [
        Axis(f"${model[n].latex}$", REPORT_UNITS[model[n].unit].name, (arrows[:, i].min(), arrows[:, i].max()))
        for i, n in enumerate(names)
    ]
    voxels = np.stack([values[name] for name in names], axis=1)
    voxels = voxels[np.isfinite(voxels).all(axis=1)]
    panel = BiasArrows("", arrows[:, :2], arrows[:, :2] + arrows[:, 2:], voxels, np.empty((0, 2)))
    plot_bias(path, [panel], (axes[0], axes[1]), {}, samples="voxels")
