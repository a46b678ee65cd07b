"""Command line of ``bidsfit``: one function per group of options. Slow imports are avoided."""

from __future__ import annotations

import argparse

from bidsfit import __version__, estimators, models
from bidsfit.cli.options import Parser
from bidsfit.models.organs import GENERAL, ORGANS
from bidsfit.preprocessing.steps import STEPS

DESCRIPTION = """\
Quantitative maps from diffusion MRI, and how far each map can be trusted.

Reads every diffusion image and every series for relaxometry of a BIDS dataset, fits signal models to it, and leaves
maps with sidecars as BIDS derivatives and one HTML report for each participant.
"""

EPILOG = """\
examples:
  bidsfit data out participant -d masks=data/derivatives/masks
  bidsfit data out participant --participant-label 01 02 --model ivim --estimators lsq
  bidsfit data out participant --dry-run
  bidsfit data out group --healthy group=control
  bidsfit data out group --repeatability group=retest --treatment group=treated -d rois=data/derivatives/rois
  bidsfit data out participant --model smt2 --estimators lsq net-healthy --leave-one-out

exit codes: 0 all is well; 1 something failed or was left out (see the summary and the report); 16 invalid dataset;
18 nothing matches the filters; 64 wrong command line; 65 unusable data; 66 no input; 73 results cannot be written;
130 or 143 stopped by Ctrl-C or SIGTERM. Lists that are given twice add up.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = Parser(
        prog="bidsfit",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", metavar="BIDS_DIR", help="BIDS dataset: raw, or preprocessed (QSIPrep and others)")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="folder of the results; a run adds to what is there")
    parser.add_argument(
        "analysis_level",
        choices=("participant", "group"),
        help="participant: maps and reports; group: from the maps in OUTPUT_DIR, repeatability and response to "
        "treatment, quality of all images, and pools of the lsq maps of healthy participants for estimators that are "
        "trained on them (net-healthy and others)",
    )
    parser.add_argument("--version", action="version", version=f"bidsfit {__version__}")
    add_filter_options(parser.add_argument_group("what to run on"))
    add_preprocessing_options(parser.add_argument_group("preprocessing"))
    add_fit_options(parser.add_argument_group("what to fit"))
    add_training_options(parser.add_argument_group("training"))
    add_group_options(parser.add_argument_group("group level"))
    add_resource_options(parser.add_argument_group("resources"))
    add_subset_options(parser.add_argument_group("parts of a run"))
    add_other_options(parser.add_argument_group("other"))
    return parser


def add_filter_options(group: argparse._ArgumentGroup) -> None:
    """Add options that select images."""
    group.add_argument(
        "--participant-label",
        nargs="+",
        action="extend",
        metavar="LABEL",
        help="participants, with or without sub- (default: all)",
    )
    group.add_argument(
        "--session-label",
        nargs="+",
        action="extend",
        metavar="LABEL",
        help="sessions, with or without ses- (default: all)",
    )
    group.add_argument("-r", "--run-id", nargs="+", action="extend", metavar="RUN", help="runs (default: all)")
    group.add_argument(
        "-d",
        "--derivatives",
        nargs="+",
        action="extend",
        metavar="NAME=PATH",
        help="derivative datasets, for masks, and for preprocessed images (desc-preproc_dwi) instead of raw ones",
    )
    group.add_argument(
        "--bids-filter-file",
        metavar="FILE",
        help='JSON of entities that images ("dwi", "anat") and masks ("mask") must have; null: absent, "*": any',
    )
    group.add_argument(
        "--bids-database-dir",
        metavar="DIR",
        help="taken for the sake of scripts that give it to other BIDS Apps, and not used: there is no index to keep",
    )
    group.add_argument(
        "--skip-bids-validation",
        action="store_true",
        help="do not run the BIDS validator, whose errors stop the run, but for those of other kinds of images",
    )


def add_preprocessing_options(group: argparse._ArgumentGroup) -> None:
    """Add options of the preprocessing."""
    group.add_argument(
        "--preprocess",
        choices=("auto", "none", "dipy", "fsl"),
        default="auto",
        help="of raw images: auto (FSL's topup and eddy where they are installed and the metadata allow, DIPY "
        "otherwise; default), dipy, fsl, or none (fit them as they are)",
    )
    group.add_argument(
        "--skip",
        nargs="+",
        action="extend",
        choices=STEPS.available(),
        metavar="STEP",
        help=f"steps to leave out: {', '.join(STEPS.available())}",
    )
    group.add_argument(
        "--denoise",
        choices=("auto", "mppca", "patch2self"),
        default="auto",
        help="how noise is reduced: auto (mppca, unless the image was interpolated; default), mppca, or patch2self",
    )
    group.add_argument(
        "--body-part",
        choices=("auto", "brain", "body", "cord"),
        default="auto",
        help="body: deformable registration, and a mask for organs; cord: moved as a whole; auto: as BodyPart of the "
        "sidecar says, brain where it says nothing (default: auto)",
    )


def add_fit_options(group: argparse._ArgumentGroup) -> None:
    """Add options of models and estimators."""
    group.add_argument(
        "--model",
        nargs="+",
        action="extend",
        metavar="MODEL",
        help=f"signal models: {', '.join(models.available())} (default: all that the protocol supports)",
    )
    group.add_argument(
        "--estimators",
        nargs="+",
        action="extend",
        metavar="ESTIMATOR",
        help=f"estimators: {', '.join(estimators.available())}, or files of trained ones (bidsfit-lab train), such as "
        "my.zip, or of recipes of training, such as mine.yml (default: lsq)",
    )
    group.add_argument(
        "--average",
        choices=("arithmetic", "geometric", "none"),
        help="how the measurements of a shell are averaged before the fit (default: arithmetic)",
    )
    group.add_argument(
        "--s0",
        choices=("fitted", "measured"),
        help="fit S0, or fix it at the mean of the images at b = 0 (of at most 2 s/mm^2; default: fitted)",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="B",
        help="segmented: b-value (s/mm^2) from which blood is taken to give no signal (default: 200)",
    )
    group.add_argument(
        "--hold",
        nargs="+",
        action="extend",
        choices=("D", "f"),
        help="segmented: what the second step does not fit again, D, or D f (default: D)",
    )
    group.add_argument(
        "--noise",
        choices=("rician", "gaussian"),
        help="what mle, bayes and the Cramér-Rao bound take the noise for; given, the preprocessing does not correct "
        "the Rician bias (default: gaussian where the preprocessing corrected it, rician elsewhere)",
    )
    group.add_argument(
        "--sigma",
        metavar="SOURCE",
        default="auto",
        help="noise level: a number (in units of the image), repeats (repeated volumes), b0 (repeats at b = 0), "
        "residuals (of a fit), mppca (found by MP-PCA), piesno (found in the background), map (*_param-noise*_dwimap "
        "of -d), or auto (mppca where the preprocessing denoises with it, else repeats, or else residuals; default)",
    )
    group.add_argument(
        "--debias",
        action="store_true",
        help="take the Rician bias out of the magnitudes before a fit that takes the noise for Gaussian",
    )
    group.add_argument(
        "--organ",
        choices=("auto", GENERAL, *ORGANS),
        default="auto",
        help="whose bounds, starting values and priors intravoxel incoherent motion is fitted with: "
        f"{', '.join(ORGANS)}, general (wide enough for any), or auto (the organ of BodyPart in the sidecar, general "
        "where it says none; default)",
    )
    group.add_argument(
        "--intervals",
        choices=("wald", "profile", "conformal", "none"),
        help="95 %% intervals of lsq and mle: from simulations of the estimator (conformal, as those of other "
        "estimators), from the standard deviation (wald), from the profile of the likelihood, which holds where the "
        "standard deviation does not (D* at low SNR) and is slower, or none (default: conformal where --trust "
        "simulates the errors, else wald)",
    )
    group.add_argument(
        "--trust",
        choices=("off", "light", "full"),
        default="light",
        help="simulate what is to be expected of the errors of every estimator, for this protocol and the noise of "
        "every voxel, and write its bias, spread and response and flags beside every map: with few simulated tissues "
        "(light, default), with more of them and the root mean square error (full; trained estimators keep what was "
        "simulated at their training), or not at all (off); what was simulated once for a protocol is kept in "
        "--cache-dir",
    )
    group.add_argument(
        "--bounds",
        nargs="+",
        action="extend",
        metavar="MODEL.PARAMETER=LOWER,UPPER",
        help="bounds in the units of the maps (mm^2/s), for example ivim.Dstar=0.005,0.3; equal numbers fix; they "
        "go before those of --organ",
    )
    group.add_argument(
        "--atlas",
        nargs="+",
        action="extend",
        metavar="DSEG",
        help="segmentations for whose regions a table of every fit is written: labels (desc, seg or atlas) of dseg "
        "files of BIDS_DIR and -d, such as aseg (dseg: those without any), or files in the space of the images",
    )


def add_training_options(group: argparse._ArgumentGroup) -> None:
    """Add options of the training of estimators."""
    group.add_argument(
        "--distribution",
        choices=estimators.DISTRIBUTIONS,
        help="what net and forest are trained on: the priors of the parameters (prior), their plausible space "
        "(uniform), pooled fits of healthy "
        "participants (healthy), half of each (mixed), or fits of white or grey matter (wm, gm); net-healthy is net "
        "with healthy (default: prior)",
    )
    group.add_argument(
        "--training-snr",
        metavar="SNR",
        help="SNR of the training: a number, inf (no noise), or auto (of a few levels the nearest to the median "
        "of the participant's images in this run or in that of --train-only, so that all are fitted by estimators of "
        "one training; default)",
    )
    group.add_argument(
        "--training-recipe",
        metavar="RECIPE",
        help="how to train: a recipe of the package (network, network-quick, forest, ...) or a file (.yml)",
    )
    group.add_argument(
        "--train-only",
        action="store_true",
        help="train what the fits of this run need, fit nothing, and record the SNR of the images in --store, so that "
        "later runs on some of them are fitted by the same estimators",
    )
    group.add_argument(
        "--no-training",
        action="store_true",
        help="refuse to train, as in jobs that run after --train-only: a fit whose estimator is not in --store fails",
    )
    group.add_argument("--training-seed", type=int, metavar="N", help="same seed, same estimator (default: 0)")
    group.add_argument(
        "--store",
        metavar="DIR",
        help="folder of trained estimators, each used again where it fits (default: OUTPUT_DIR/trained)",
    )
    group.add_argument(
        "--leave-one-out",
        action="store_true",
        help="an estimator that fits a participant of its pool is trained on the pool without that participant",
    )


def add_group_options(group: argparse._ArgumentGroup) -> None:
    """Add options of the comparisons at the group level."""
    group.add_argument(
        "--repeatability",
        metavar="COLUMN=VALUE",
        help="whose sessions are repeated scans, by participants.tsv (default: everyone with two sessions and no "
        "treatment)",
    )
    group.add_argument(
        "--treatment",
        metavar="COLUMN=VALUE",
        help="who was treated between sessions, by participants.tsv (default: whose sessions are called pre and post)",
    )
    group.add_argument(
        "--sessions",
        nargs=2,
        metavar=("pre=LABEL", "post=LABEL"),
        help="the sessions that are compared, of everyone (default: by condition, acq_time or label)",
    )
    group.add_argument(
        "--condition",
        metavar="COLUMN",
        help="column of sub-*_sessions.tsv that says which session was before (pre) and which after (post) the "
        "treatment (default: condition)",
    )
    group.add_argument(
        "--regions",
        nargs="+",
        action="extend",
        metavar="LABEL",
        help="regions of the datasets of -d (label-LABEL_mask, or names of a dseg), tissues (wm, gm, csf), or whole "
        "(default: all there are)",
    )
    group.add_argument(
        "--statistic",
        choices=("median", "mean", "q05", "q25", "q75", "q95"),
        default="median",
        help="over the voxels of a region; q05 to q95: quantiles (default: median)",
    )
    group.add_argument(
        "--correction",
        choices=("holm", "benjamini-hochberg", "none"),
        default="holm",
        help="of the p-values of responses, over the parameters and regions of an estimator (default: holm)",
    )
    group.add_argument(
        "--healthy",
        metavar="COLUMN=VALUE",
        help="who is healthy, by participants.tsv (default: group=control, or group=healthy where nobody is control)",
    )


def add_resource_options(group: argparse._ArgumentGroup) -> None:
    """Add options of cores and memory."""
    group.add_argument(
        "--nprocs", "--nthreads", "--n-cpus", type=int, metavar="N", help="processor cores of the run (default: all)"
    )
    group.add_argument(
        "--omp-nthreads", type=int, metavar="N", help="cores of a single step (default: those of the run, at most 8)"
    )
    group.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where networks are trained, and voxels fitted by lsq and mle: cuda is a GPU (default: cpu)",
    )
    group.add_argument("--mem", "--mem-mb", metavar="SIZE", help="memory limit, with K, M, G or T (MB without)")
    group.add_argument(
        "--low-mem", action="store_true", help="has no effect: images are mapped from the work folder anyway"
    )
    group.add_argument(
        "--use-plugin", "--nipype-plugin-file", dest="nipype_plugin_file", metavar="FILE", help="Nipype plugin, as YAML"
    )


def add_subset_options(group: argparse._ArgumentGroup) -> None:
    """Add options that run only part of the work."""
    group.add_argument("--dry-run", action="store_true", help="say what would run and why, and stop")
    group.add_argument("--reports-only", action="store_true", help="only make the reports again")
    group.add_argument("--boilerplate-only", action="store_true", help="only write the methods text (logs/CITATION.*)")
    group.add_argument("--write-graph", action="store_true", help="also write the graph of the workflow (logs/)")


def add_other_options(group: argparse._ArgumentGroup) -> None:
    """Add all other options."""
    group.add_argument(
        "-w", "--work-dir", metavar="DIR", help="work folder, from which a run resumes (default: OUTPUT_DIR/work)"
    )
    group.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="compiled code, which later runs and other jobs use again (default: ~/.cache/bidsfit, or the work folder "
        "where that cannot be written)",
    )
    group.add_argument(
        "--clean-workdir", action="store_true", help="forget the work on the images of this run: fit them again"
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="fit again what was made with other options, or from another image or mask; what is there is moved into "
        "OUTPUT_DIR/replaced-<date>",
    )
    group.add_argument(
        "--report-voxels",
        choices=("all", "slices", "none"),
        default="all",
        help="whose signals and values the viewer of a report holds: all voxels, of fewer slices where the page would "
        "be larger than 10 MB (default), those of the slices of its figures, or none (no viewer)",
    )
    group.add_argument(
        "--scenes",
        action="store_true",
        help="also write every map over its image as a document of the viewer NiiVue, with the range and the colours "
        "of the report (sub-*/figures/*.nvd)",
    )
    group.add_argument(
        "--resource-monitor",
        action="store_true",
        help="record memory and processor use of every step in the work folder",
    )
    group.add_argument("--config-file", metavar="FILE", help="TOML of options; the command line overrides it")
    group.add_argument("--stop-on-first-crash", action="store_true", help="stop when a step fails")
    group.add_argument("--notrack", action="store_true", help="accepted; bidsfit tracks nothing")
    group.add_argument(
        "-v",
        "--verbose",
        "--verbosity",
        action="count",
        dest="verbosity",
        default=0,
        help="say more; -vv adds tracebacks",
    )
