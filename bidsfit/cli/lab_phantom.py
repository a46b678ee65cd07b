"""``bidsfit-lab phantom``: a BIDS dataset with known truth."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from bidsfit.exceptions import UnknownNameError, UsageError
from bidsfit.phantom.imperfections import RAW, RAW_ABDOMEN, Imperfections
from bidsfit.phantom.study import STUDIES, Study
from bidsfit.phantom.tissue import ABDOMEN_RECIPES, RECIPES


def add_phantom(commands: argparse._SubParsersAction) -> None:
    """Add the command ``phantom``."""
    defaults = "\n".join(
        f"  {name}: --b-values {' '.join(map(str, recipe.b_values))}\n"
        f"  {' ' * len(name)}  --directions {recipe.n_directions} --snr {recipe.snr:g}"
        f" --lesion {next(iter(recipe.lesions))} (or {', '.join(list(recipe.lesions)[1:])})"
        if recipe.b_values
        else f"  {name}: a series of images; --snr {recipe.snr:g} --lesion {' or '.join(recipe.lesions)}"
        for name, recipe in RECIPES.items()
    )
    parser = commands.add_parser(
        "phantom",
        help="write a BIDS dataset with known truth",
        description="Write a BIDS dataset of simulated images, with its truth in derivatives/truth.",
        epilog=f"defaults by model:\n{defaults}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the dataset; must not exist, or be empty")
    parser.add_argument("--model", required=True, help=f"signal model: {', '.join(RECIPES)}")
    parser.add_argument(
        "--anatomy",
        default="head",
        help=f"head (default), fractal (its tissues in shapes that fill the image, without air), or abdomen, whose "
        f"lesions lie in the liver (models: {', '.join(ABDOMEN_RECIPES)})",
    )
    others = "default: 2, or 0 where there are --retest or --treated"
    parser.add_argument("--participants", type=int, metavar="N", help=f"healthy participants ({others})")
    parser.add_argument("--patients", type=int, metavar="N", help=f"participants with a lesion ({others})")
    parser.add_argument(
        "--sessions",
        type=int,
        default=1,
        metavar="N",
        help="sessions of each of them: same truth, fresh noise (default: 1, without a ses- entity)",
    )
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(48, 48, 3), metavar=("X", "Y", "Z"), help="voxels (default: 48 48 3)"
    )
    parser.add_argument(
        "--b-values",
        type=float,
        nargs="+",
        action="extend",
        metavar="B",
        help="in s/mm^2; those above 0 are measured along every direction, a value listed twice is measured twice",
    )
    parser.add_argument("--directions", type=int, metavar="N", help="directions of each b-value above 0, evenly spread")
    parser.add_argument(
        "--snr",
        type=float,
        help="mean S0 over all that is not air / sigma of a single measurement; inf for no noise (default: by model)",
    )
    parser.add_argument("--noise", default="rician", help="rician (default) or gaussian")
    parser.add_argument("--lesion", metavar="NAME", help="the patients' lesion")
    parser.add_argument("--seed", type=int, default=0, help="same options and seed, same dataset (default: 0)")
    parser.add_argument(
        "--t1w", action="store_true", help="a T1-weighted image in every session too, taken in another position"
    )
    parser.add_argument("--phase", action="store_true", help="complex signals: part-mag and part-phase images")
    add_imperfections(parser)
    add_study(parser)
    parser.set_defaults(run=run_phantom)


def add_imperfections(parser: argparse.ArgumentParser) -> None:
    """Add options of imperfections, all off by default."""
    group = parser.add_argument_group(
        "imperfections", "what raw images have besides noise; the truth of the tissue stays the same"
    )
    # None where an option is not given, so that --raw fills in what is left
    group.add_argument("--gibbs", action="store_true", default=None, help="Gibbs ringing")
    group.add_argument("--motion", type=float, metavar="MM", help="largest translation of the head between volumes")
    group.add_argument("--rotation", type=float, metavar="DEGREES", help="largest rotation of the head between volumes")
    group.add_argument(
        "--breathing",
        type=float,
        metavar="MM",
        help="movement of the liver from breathing out to breathing in, another depth in every volume (abdomen)",
    )
    group.add_argument(
        "--off-resonance",
        type=float,
        metavar="HZ",
        help="largest off-resonance, which displaces signal; adds b = 0 images of both phase encodings in fmap/",
    )
    group.add_argument("--outliers", type=int, metavar="N", help="diffusion-weighted volumes with signal drop-out")
    group.add_argument(
        "--eddy", type=float, metavar="PERCENT", help="displacement by eddy currents at the largest b-value"
    )
    group.add_argument(
        "--raw",
        action="store_true",
        help=f"all of these: --gibbs --motion {RAW.motion:g} --rotation {RAW.rotation:g} "
        f"--off-resonance {RAW.off_resonance:g} --outliers {RAW.outliers} --eddy {RAW.eddy:g}, "
        "or as much of each as is given; for the abdomen "
        f"--breathing {RAW_ABDOMEN.breathing:g} instead of --motion and --rotation",
    )


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add options of a study of repeatability, off by default."""
    group = parser.add_argument_group(
        "repeatability and response",
        "participants who are scanned again or treated, and a truth that varies; with any of these\n"
        "everyone has a homogeneous region (label-roi_mask). PERCENT is for all parameters,\n"
        "PARAMETER=PERCENT for one, such as f=10; what is given later counts",
    )
    group.add_argument(
        "--study",
        metavar="NAME",
        help="all of these with illustrative amounts, or with what is given. repeatability: 14 retest, 9 treated",
    )
    group.add_argument("--retest", type=int, metavar="N", help="participants with a lesion, two sessions, no treatment")
    group.add_argument(
        "--treated", type=int, metavar="N", help="participants with a lesion that is treated between two sessions"
    )
    group.add_argument(
        "--between",
        nargs="+",
        action="extend",
        metavar="PERCENT",
        help="coefficient of variation between participants (log-normal)",
    )
    group.add_argument(
        "--within", nargs="+", action="extend", metavar="PERCENT", help="the same between the sessions of a participant"
    )
    group.add_argument(
        "--effect",
        nargs="+",
        action="extend",
        metavar="PARAMETER=PERCENT",
        help="change by the treatment in the region, such as D=15 f=-20",
    )


def imperfections(arguments: argparse.Namespace) -> Imperfections:
    """Imperfections chosen by the options."""
    given = {field.name: getattr(arguments, field.name) for field in fields(Imperfections)}
    start = (RAW_ABDOMEN if arguments.anatomy == "abdomen" else RAW) if arguments.raw else Imperfections()
    return replace(start, **{name: value for name, value in given.items() if value is not None})


def study(arguments: argparse.Namespace, parameters: Sequence[str]) -> Study | None:
    """Study of repeatability chosen by the options, or None; ``parameters`` are those that can vary."""
    given = {
        "n_retest": arguments.retest,
        "n_treated": arguments.treated,
        "between": shares(arguments.between, "--between", parameters),
        "within": shares(arguments.within, "--within", parameters),
        "effect": shares(arguments.effect, "--effect"),
    }
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.study is None:
        return Study(**given) if given else None
    if arguments.study not in STUDIES:
        raise UnknownNameError("study", arguments.study, STUDIES)
    start = STUDIES[arguments.study](parameters)
    for name in given.keys() & {"between", "within", "effect"}:
        given[name] = {**getattr(start, name), **given[name]}
    if given.get("n_treated") == 0 and "effect" not in given:
        given["effect"] = {}  # the named study's, which nobody is left for
    return replace(start, **given)


def shares(words: Sequence[str] | None, option: str, parameters: Sequence[str] = ()) -> dict[str, float] | None:
    """Shares by parameter from words such as ``10 f=20``; None if the option is not given.

    Parameters
    ----------
    option : str
        Name of the option, for messages.
    parameters : sequence of str
        Parameters that a number without a name applies to; if empty, numbers need a name.

    Raises
    ------
    UsageError
        For a word of another form.
    """
    if words is None:
        return None
    found: dict[str, float] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        try:
            share = float(number.removesuffix("%")) / 100
        except ValueError:
            share = None
        if share is None or not (name or parameters):
            expected = "PERCENT or PARAMETER=PERCENT" if parameters else "PARAMETER=PERCENT"
            raise UsageError(f"{option} takes {expected}, for example f=10; found {word!r}.")
        found |= {name: share} if name else dict.fromkeys(parameters, share)
    return found


def run_phantom(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from bidsfit import models
    from bidsfit.bids.phantom import TRUTH, write_phantom
    from bidsfit.phantom.cohort import Cohort
    from bidsfit.phantom.variation import varying

    wanted = study(arguments, varying(models.get(arguments.model)))
    others = 0 if wanted is not None and wanted.repeats else 2
    cohort = Cohort(
        model=arguments.model,
        n_healthy=others if arguments.participants is None else arguments.participants,
        n_patients=others if arguments.patients is None else arguments.patients,
        n_sessions=arguments.sessions,
        shape=tuple(arguments.shape),
        b_values=None if arguments.b_values is None else tuple(arguments.b_values),
        n_directions=arguments.directions,
        snr=arguments.snr,
        noise=arguments.noise,
        lesion=arguments.lesion,
        seed=arguments.seed,
        imperfections=imperfections(arguments),
        t1w=arguments.t1w,
        study=wanted,
        phase=arguments.phase,
        anatomy=arguments.anatomy,
    )
    write_phantom(cohort, arguments.out)
    images = sum(n * len(cohort.sessions(group)) for group, n in cohort.groups.items())
    print(f"{arguments.out}: {cohort.n_participants} participants, {images} images. Truth: {arguments.out / TRUTH}")
