"""The methods text of repeatability and treatment response; citations as in `bidsfit.planning.methods`."""

from __future__ import annotations

from bidsfit import __version__
from bidsfit.bids.regions import CONDITIONS
from bidsfit.cohort.design import Design
from bidsfit.statistics.multiplicity import Correction

#: How p-values were corrected, in a sentence.
CORRECTIONS = {
    "holm": "P-values were corrected with Holm's method [@aickin1996]",
    "benjamini-hochberg": "P-values were corrected with the method of Benjamini and Hochberg [@benjamini1995], which "
    "bounds the expected share of false findings,",
}


def cohort_methods(design: Design, statistic: str, correction: Correction, n_estimators: int) -> str:
    """Methods text for a paper; ``statistic`` names in words how voxels of a region are summarised."""
    paragraphs = [_values(design, statistic)]
    if design.repeatability:
        paragraphs.append(_repeatability(design))
    if design.treatment:
        paragraphs.append(_response(design, correction))
    if n_estimators > 1:
        paragraphs.append(_estimators(design))
    if design.healthy and design.patients:
        paragraphs.append(_normative(design))
    paragraphs.append(
        "Statistics were computed with SciPy [@scipy] and statsmodels [@statsmodels]; arrays are NumPy's [@numpy]."
    )
    return "\n\n".join(paragraphs)


def _values(design: Design, statistic: str) -> str:
    sessions = (design.choices or {}).get("sessions", "")
    conditions = "; ".join(
        f"{label} was taken from voxels where {other} was {least:g} or more [@kaandorp2021]"
        for label, (other, least) in CONDITIONS.items()
    )
    return (
        "Parameter maps organised according to the Brain Imaging Data Structure [@gorgolewski2016] were analysed with "
        f"bidsfit {__version__}. Of each participant, session, estimator and region the {statistic} over the fitted "
        f"voxels was compared; {conditions}."
        + (f" Sessions were ordered {sessions}." if sessions.startswith("by ") else "")
        + (f" Sessions were chosen {sessions}." if sessions.startswith("as ") else "")
    )


def _repeatability(design: Design) -> str:
    n = len(design.repeatability)
    return (
        f"Repeatability was estimated from {n} participants who were scanned again without a treatment in between "
        f"({(design.choices or {}).get('repeatability', '')}). The within-subject standard deviation (wSD) is the root "
        "of the mean within-subject variance [@bland1996], with a chi-square interval; the repeatability coefficient "
        r"is $1.96\sqrt{2}\,\mathrm{wSD}$, and the within-subject coefficient of variation is the root mean square of "
        "those of the participants [@raunig2015]. The intraclass correlation is the one-way random form of a single "
        "measurement, ICC(1,1) [@shrout1979; @mcgraw1996]. Differences between sessions were tested by a linear model "
        "of participants and sessions (the paired t-test where there are two), and a dependence of the scatter on the "
        "mean by Kendall's rank correlation [@bland1999]. All intervals are of 95 %."
    )


def _response(design: Design, correction: Correction) -> str:
    text = (
        f"Response to treatment was tested in {len(design.treatment)} participants "
        f"({(design.choices or {}).get('treatment', '')}) with the paired t-test and Wilcoxon's signed rank test "
        "[@wilcoxon1945], both two-sided. Effect sizes are Cohen's d of paired values, and Hedges' g [@hedges1981], "
        "with intervals from the noncentral t distribution; those of relative changes are Fieller's. "
    )
    over = "over all parameters and regions of an estimator."
    text += f"{CORRECTIONS[correction]} {over}" if correction in CORRECTIONS else "P-values were not corrected."
    if design.repeatability:
        text += (
            " The change was set against that of the participants with repeated scans who were not treated by Welch's "
            "t-test [@welch1947]. A treated participant was called changed where the change lay outside the limits of "
            "agreement of the repeated scans about zero [@bland1986]. Two kinds of limits are given: "
            r"$\pm 1.96\sqrt{2}\,\mathrm{wSD}$, which takes wSD as known, and $\pm t_{0.975,\nu}\sqrt{2}\,"
            r"\mathrm{wSD}$ with the $\nu$ degrees of freedom of wSD, which allows for its estimate and holds 95 % of "
            "unchanged participants."
        )
    return text


def _estimators(design: Design) -> str:
    text = "Estimators were compared on the same participants: "
    if design.treatment and design.repeatability:
        text += "participants called changed with McNemar's exact test [@mcnemar1947], "
    return text + (
        "parameter-to-noise ratios (mean over standard deviation of the voxels of a region at the first session) with "
        "paired t-tests and Wilcoxon's tests, with Friedman's test where there were more than two, each corrected over "
        "the pairs of estimators with Holm's method [@aickin1996]. Rank correlations are Spearman's, with the interval "
        "of Bonett and Wright [@bonett2000]."
    )


def _normative(design: Design) -> str:
    return (
        f"Patients were compared with {len(design.healthy)} healthy participants "
        f"({(design.choices or {}).get('healthy', '')}) at their first session, by the same estimator: the test of "
        "Crawford and Howell [@crawford1998] allows for the size of the healthy sample, and the interval of the "
        "percentile follows Crawford and Garthwaite [@crawford2002]."
    )
