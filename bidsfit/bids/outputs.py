"""Names, units and texts of the outputs, according to the table in outputs.yml."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import yaml
from filelock import FileLock
from nibabel.spatialimages import SpatialImage

from bidsfit import __version__
from bidsfit.acquisition import Frame, column_of
from bidsfit.bids.images import write_nifti
from bidsfit.bids.inputs import Folder, InputImage
from bidsfit.bids.left_out import FIELD
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.names import Name
from bidsfit.bids.tables import GENERATED_BY, write_rows
from bidsfit.bids.units import FILE_UNITS, Unit
from bidsfit.estimators.estimator import LEVEL, Estimator, Status, estimator_label
from bidsfit.exceptions import CannotCreateError, UnusableInputError
from bidsfit.files import needing_space, read_tsv, write_json, write_text
from bidsfit.fitting import FitNumbers, FitResult
from bidsfit.models.organs import preset_facts
from bidsfit.models.parameter import Derived, Parameter
from bidsfit.models.signal_model import SignalModel
from bidsfit.quantity import Quantity
from bidsfit.trust.cache import Trust
from bidsfit.trust.companions import companions_of, is_simulated
from bidsfit.trust.disagreement import compared, disagreement_with
from bidsfit.trust.flags import FLAGS, Flag

BIDS_VERSION = "1.11.0"
CODE_URL = "https://github.com/bidsfit/bidsfit"

#: Field of the sidecar of a preprocessed image: steps that were planned and had to be left out, and why.
LEFT_OUT = "PreprocessingLeftOut"

#: What the validator must not look at: reports, logs, and what BIDS does not know yet and `bep016.yml` neither.
BIDSIGNORE = (
    *("*.html", "logs", "log", "figures", "work", "trained", "prov"),
    *("group_*", "*.bval", "*.bvec", "*_desc-confounds_timeseries.*", "*_desc-quality_dwi.json"),
    "replaced-*",
)

README = f"""Parameter maps from MRI, written by bidsfit ({CODE_URL}).

index.html: all participants, with links to their reports.
sub-*.html: a report for each participant, which opens in any browser.
sub-*/dwi/*_desc-preproc_dwi.nii.gz: preprocessed images, where raw ones were given.
sub-*/dwi/*_dwimap.nii.gz: maps, each with a JSON file that says what it is, its unit and how it was made.
sub-*/anat/*map.nii.gz: the same of series of relaxometry, where there are any.
sub-*/dwi/*_seg-*_dwimap.tsv: parameters in the regions of segmentations, where --atlas named some.
descriptions.tsv: what the labels of desc in file names mean.
group_dwi.tsv, group_dwi.html: the quality of all images, where the group level was run.
group_rois.tsv, group_repeatability.tsv, group_response.tsv, group.html: values of regions, repeatability and response.
group_*_distribution.*: fits of healthy participants, pooled, where the group level was run.
trained/: estimators that were trained for these images.
replaced-*/: what a run with --overwrite moved out of the way, and when.
prov/: which run made which file, of which inputs, with the SHA-256 of each.
logs/CITATION.md: what was done, in words for a paper, with references.
"""


@cache
def table() -> Mapping[str, Any]:
    """The declarations of outputs.yml."""
    content: Mapping[str, Any] = yaml.safe_load(files("bidsfit.bids").joinpath("outputs.yml").read_text("utf-8"))
    return content


def quality_quantities() -> tuple[Quantity, ...]:
    """Quantities of the maps that every fit has besides its parameters."""
    return tuple(Quantity(**entry) for entry in table()["fit"])


@dataclass(frozen=True)
class MapOutput:
    """One map of a fit: its path and the content of its sidecar.

    Parameters
    ----------
    unit : str
        Internal unit.
    parameter : Parameter or Derived, optional
        What it belongs to; None for the fit as a whole.
    statistic : bool
        Whether it describes the uncertainty of an estimate rather than the estimate itself.
    """

    quantity: Quantity
    path: Path
    title: str
    description: str
    unit: str
    parameter: Parameter | Derived | None
    statistic: bool = False

    @property
    def file_unit(self) -> Unit:
        """Unit in the file."""
        return FILE_UNITS[self.unit]

    @property
    def figure_range(self) -> tuple[float, float] | None:
        """Colour range of its figure; None takes it from the data."""
        displayed = self.parameter.display if self.parameter and not self.statistic else self.quantity.limits
        return None if displayed is None else (float(displayed[0]), float(displayed[1]))


def image_folder(image: InputImage) -> str:
    """Folder of the outputs of an image, relative to the output folder."""
    session = image.entities.get("session")
    return "/".join([f"sub-{image.participant}", *([f"ses-{session}"] if session else []), image.datatype])


def file_output(key: str, image: InputImage) -> Path:
    """Path of an entry of ``files`` in outputs.yml, relative to the output folder."""
    name: str = table()["files"][key]["name"]
    own = {"folder": image_folder(image), "image": image.name, "suffix": image.map_suffix}
    return Path(name.format(**own, participant=f"sub-{image.participant}"))


def region_output(key: str, image: InputImage, regions: str, **fit: str) -> Path:
    """Path of an entry of ``regions`` in outputs.yml, relative to the output folder.

    ``regions``: entities of the segmentation; ``fit``: ``model`` and ``estimator``, as in names of maps.
    """
    own, resolution, label = image.name.partition("_res-")
    name: str = table()["regions"][key]["name"]
    of = {"folder": image_folder(image), "image": own, "suffix": image.map_suffix}
    return Path(name.format(**of, regions=f"{regions}{resolution}{label}", **fit))


def map_path(folder: str, image: str, model: str, label: str, estimator: str, suffix: str, statistic: str = "") -> Path:
    """Path of a map, given labels of names; in anat/ its suffix is that of BIDS, where it has one for the parameter."""
    official = suffix == "anatmap" and label in table()["official"]
    name: str = table()["map"].format(
        folder=folder,
        image=image,
        model=model,
        parameter="" if official else f"_param-{label}",
        statistic=f"_stat-{statistic}" if statistic else "",
        estimator=estimator,
        suffix=f"{label}map" if official else suffix,
    )
    return Path(name)


def label_of(name: Name) -> str:
    """Label of the parameter or quantity of a map; empty if it is no map of a fit, or that of a statistic."""
    keys, official = tuple(name.entities), name.suffix.removesuffix("map")
    if name.extension != ".nii.gz":
        return ""
    if name.suffix in ("dwimap", "anatmap") and keys[-3:] == ("model", "param", "desc"):
        return name.entities["param"]
    if name.suffix.endswith("map") and official in table()["official"] and keys[-2:] == ("model", "desc"):
        return official
    return ""


def map_outputs(
    image: InputImage, model: SignalModel, estimator: Estimator, trust: Trust = "off"
) -> dict[str, MapOutput]:
    """All maps of one fit of an image, by key (see `maps_of`)."""
    return maps_of(model, estimator, image_folder(image), image.name, image.map_suffix, trust)


def maps_of(
    model: SignalModel, estimator: Estimator, folder: str, image: str, suffix: str, trust: Trust = "off"
) -> dict[str, MapOutput]:
    """All maps of one fit, by key.

    Keys are the names of parameters and derived quantities, "D_sd" for statistics, and otherwise those of quantities.

    Parameters
    ----------
    estimator : Estimator
    folder, image, suffix : str
        Folder, beginning and end of the paths.
    trust : {"off", "light", "full"}
        Whether the errors of the estimator are simulated.
    """
    simulated, judges = is_simulated(estimator, trust), companions_of(estimator, trust)
    wanted: list[tuple[Quantity, Parameter | Derived | None, bool]] = [
        *((Quantity(**table()["parameter"]), parameter, False) for parameter in model.mapped),
        *(
            (companion.quantity, parameter, True)
            for parameter in model.mapped
            for companion in judges.values()
            if not parameter.auxiliary and companion.applies(estimator, parameter, simulated)
        ),
        *((quantity, None, False) for quantity in ([FLAGS] if simulated else [])),
        *((quantity, None, False) for quantity in quality_quantities()),
    ]
    return _outputs(wanted, model, estimator, folder, image, suffix)


def disagreement_outputs(
    image: InputImage, model: SignalModel, estimator: Estimator, reference: Estimator
) -> dict[str, MapOutput]:
    """Maps of the disagreement of one fit with a reference, by key ("D_disagreementmle")."""
    scalars = [q for q in compared(model) if isinstance(q, Derived) or q.kind == "scalar"]
    wanted = [(disagreement_with(reference.name), q, True) for q in scalars]
    return _outputs(wanted, model, estimator, image_folder(image), image.name, image.map_suffix)


def _outputs(
    wanted: Iterable[tuple[Quantity, Parameter | Derived | None, bool]],
    model: SignalModel,
    estimator: Estimator,
    folder: str,
    image: str,
    suffix: str,
) -> dict[str, MapOutput]:
    """Maps of these quantities, each with its parameter, and whether it is a statistic of that."""
    outputs = {}
    for quantity, parameter, statistic in wanted:
        own_unit = "1" if parameter is None else "rad" if statistic and parameter.axis else parameter.unit
        label = parameter.label if parameter else quantity.key
        path = map_path(
            folder,
            image,
            model.name,
            label,
            estimator_label(estimator.name),
            suffix,
            quantity.key if statistic else "",
        )
        symbol = f"${parameter.latex}$" if parameter else ""
        key = f"{parameter.name}_{quantity.key}" if statistic and parameter else ""
        outputs[key or (parameter.name if parameter else quantity.key)] = MapOutput(
            quantity=quantity,
            path=path,
            title=f"{symbol} {quantity.title}".strip(),
            description=quantity.description.format(parameter=parameter, model=model, estimator=estimator),
            unit=own_unit if quantity.unit is None else quantity.unit,
            parameter=parameter,
            statistic=statistic,
        )
    return outputs


def fit_settings(
    model: SignalModel, estimator: Estimator, mask: str, noise: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """All choices that shaped a map, for ``Model.Parameters`` of its sidecar; diffusivities in mm^2/s.

    ``noise``: assumed kind of noise and source of its level, by field of the sidecar.
    """
    settings: dict[str, Any] = {"FitMethod": estimator.fit_method} if estimator.fit_method else {}
    settings |= {"Estimator": estimator.name, "Mask": mask}
    settings |= {**dict(noise or {}), **preset_facts(model)}
    for key, value in estimator.options.items():
        if key == "bounds":
            value = {
                name: [None if np.isinf(v) else float(f"{v * FILE_UNITS[model[name].unit].factor:.6g}") for v in pair]
                for name, pair in value.items()
            }
        settings["".join(word.capitalize() for word in key.split("_"))] = value
    if np.isfinite(model.maximum_b):
        settings["MaximumBValue"] = model.maximum_b
    if model.excluded_b is not None:
        settings["ExcludedBValues"] = list(model.excluded_b)
    return settings | dict(model.constants)


def disagreement_settings(
    estimator: Estimator, reference: Estimator, mask: str, noise: Mapping[str, str]
) -> dict[str, Any]:
    """Choices that shaped maps of a disagreement: those of the fit, and as ``Reference`` those of the other one."""
    own, other = (fit_settings(one.model, one, mask, noise) for one in (estimator, reference))
    return own | {"Reference": other}


def sidecar(
    output: MapOutput,
    model: SignalModel,
    settings: Mapping[str, Any],
    numbers: FitNumbers,
    sources: Sequence[str],
    estimation: Mapping[str, str],
) -> dict[str, Any]:
    """Content of the sidecar of a map.

    Parameters
    ----------
    settings : mapping
        As of `fit_settings`.
    sources : sequence of str
        URIs, the image first.
    estimation : mapping
        ``EstimationAlgorithm`` and ``EstimationReference``.
    """
    content: dict[str, Any] = {
        "Description": output.description,
        "Units": output.file_unit.name,
        "Model": {
            "Description": f"{model.title}. {model.description}",
            "Equation": model.latex,
            "URL": f"{CODE_URL}/blob/main/docs/models.md",
            "Parameters": dict(settings),
        },
        "ParameterURL": f"{CODE_URL}/blob/main/docs/{'models' if output.parameter else 'outputs'}.md",
        **estimation,
        **_fitted(numbers.columns),
        "Sources": list(sources),
        **on_grid_of(sources[0]),
        "SkullStripped": True,
        "GeneratedBy": GENERATED_BY,
    }
    noise = numbers.noise
    if noise:
        content["Noise"] = {
            "StandardDeviation": float(f"{noise['sigma']:.6g}"),
            "Description": f"Of one measurement, in the units of the image. Found from: {noise['method']}.",
        }
    if numbers.left_out:
        content[FIELD] = numbers.left_out
    if numbers.notes:
        content["EstimationNotes"] = numbers.notes
    if output.quantity.key in ("q025", "q975"):
        freedom = {} if noise or settings.get("Intervals") == "posterior" else {"DegreesOfFreedom": numbers.freedom}
        content["Interval"] = {"Method": settings.get("Intervals"), "Level": LEVEL, **freedom}
    if output.statistic:
        content["StatisticOf"] = output.parameter.label if output.parameter else None
    elif output.parameter is not None:
        if isinstance(output.parameter, Parameter):
            if output.parameter.bounds[0] >= 0 and settings.get("KeepsBounds", True):
                content["NonNegativity"] = "constrained"
        else:
            content |= orientation_encoding(output.parameter, numbers.frame)
    if output.quantity.key == "status":
        content["Levels"] = {str(int(status)): status.message for status in Status}
    if output.quantity.key == "flags":
        content["Levels"] = {str(int(flag)): flag.message for flag in Flag}
    return content


def orientation_encoding(quantity: Parameter | Derived, frame: Frame) -> dict[str, Any]:
    """Field of the sidecar of an axis or a tensor, a volume for each component, in the frame of gradient directions."""
    if isinstance(quantity, Parameter) or quantity.components == 1:
        return {}
    kind = {"Type": "unit3vector"} if quantity.axis else {"Type": "tensor", "TensorRank": 2}
    return {"OrientationEncoding": {"EncodingAxis": 3, "Reference": frame} | kind}


def on_grid_of(uri: str) -> dict[str, str]:
    """Fields of the sidecar of a file that lies on the grid of an image: BIDS requires the second of a ``res-``."""
    resolution = {"Resolution": "That of the image of SpatialReference."} if "_res-" in uri else {}
    return {"SpatialReference": uri, **resolution}


def _fitted(columns: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Variables of the fitted signals in the units of BIDS metadata: ``BValuesFitted``."""
    found = {}
    for name, values in columns.items():
        column = column_of(name)
        words = column.field or "".join(word.capitalize() for word in name.split("_"))
        decimals = 2 if name == "b" else 6
        found[f"{words}sFitted"] = [round(float(value) / column.field_factor, decimals) for value in values]
    return found


def sources_of(image: InputImage) -> list[str]:
    """BIDS URIs of the sources of an image's maps: the image, and given mask and noise map."""
    return [*image.uris, *filter(None, [image.mask_uri, image.noise_uri, image.covariate_uri])]


def write_maps(
    folder: Path,
    result: FitResult,
    outputs: Mapping[str, MapOutput],
    model: SignalModel,
    settings: Mapping[str, Any],
    sources: Sequence[str],
    mask: SpatialImage,
    estimation: Mapping[str, str],
) -> None:
    """Write every map of a fit and its sidecar atomically, in the units of files.

    The status map is written last and marks the fit as complete. ``settings``, ``sources`` and ``estimation`` are for
    the sidecars (`sidecar`).
    """
    inside = np.asarray(mask.dataobj) > 0
    for key, output in outputs.items():
        data = result.volume(key, inside)
        if output.file_unit.factor != 1:
            data = data * output.file_unit.factor
        target = folder / output.path
        if key == "flags":
            rows = [(int(flag), str(flag.name).lower(), flag.message) for flag in Flag]
            write_rows(lookup_path(target), ["index", "name", "description"], rows)
        write_json(json_path(target), sidecar(output, model, settings, result.numbers, sources, estimation))
        write_nifti(target, data, mask)


def json_path(path: Path) -> Path:
    """Sidecar of a NIfTI file."""
    return path.with_name(path.name.split(".")[0] + ".json")


def lookup_path(path: Path) -> Path:
    """Table of the bits of the flags in a NIfTI file."""
    return path.with_name(path.name.split(".")[0] + ".tsv")


def own_uri(path: Path) -> str:
    """BIDS URI of a file of the output folder, given its relative path."""
    return f"bids::{path.as_posix()}"


def descriptions_of(estimators: Iterable[Estimator]) -> dict[str, str]:
    """What the labels of ``desc`` mean: those of some estimators, and those of outputs.yml."""
    used = {estimator_label(e.name): f"Estimated by {e.name}: {e.title}" for e in estimators}
    return used | table()["descriptions"]


def prepare_dataset(
    folder: Path, raw: Folder, derivatives: Sequence[Folder], estimators: Iterable[Estimator] = ()
) -> None:
    """Write or extend the dataset description, descriptions.tsv, README and .bidsignore of the output folder.

    Done under a lock, as several jobs may share an output folder. ``estimators`` are those of this run.

    Raises
    ------
    CannotCreateError
        If the folder cannot be written or belongs to something else.
    """
    try:
        with needing_space(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".bidsfit.lock"):
            _describe_dataset(folder, raw, derivatives)
            _describe_labels(folder / "descriptions.tsv", descriptions_of(estimators))
            readme = folder / "README"
            if not readme.exists():
                write_text(readme, README)
            ignore_path = folder / ".bidsignore"
            ignored = ignore_path.read_text().splitlines() if ignore_path.exists() else []
            missing = [pattern for pattern in BIDSIGNORE if pattern not in ignored]
            if missing:
                write_text(ignore_path, "\n".join([*ignored, *missing]) + "\n")
    except OSError as error:
        raise CannotCreateError(f"The output folder {folder} cannot be written: {error.strerror or error}.") from error


def earlier_description(folder: Path, raw: Folder, derivatives: Sequence[Folder]) -> dict[str, Any] | None:
    """The description of an output folder that these datasets may extend; None if there is none yet.

    Raises
    ------
    CannotCreateError
        If the folder belongs to something else or has results of other datasets, as far as those are still there: a job
        may have named a copy that it removed.
    """
    path = folder / "dataset_description.json"
    if not path.exists():
        return None
    try:
        content = read_sidecar(path)
    except UnusableInputError as error:
        raise CannotCreateError(f"{error} Mend it or choose another folder.") from error
    made, earlier = content.get("GeneratedBy"), content.get("DatasetLinks", {})
    makers = [maker.get("Name") for maker in made if isinstance(maker, dict)] if isinstance(made, list) else []
    if content.get("DatasetType") != "derivative" or "bidsfit" not in makers:
        raise CannotCreateError(
            f"{folder} holds another dataset ({path} was not written by bidsfit). Choose another one."
        )
    if not isinstance(earlier, dict):
        raise CannotCreateError(f"DatasetLinks in {path} is {earlier!r}; expected an object. Mend it.")
    for name, link in _links(folder, raw, derivatives).items():
        if earlier.get(name, link) != link and _exists(str(earlier[name]), folder):
            raise CannotCreateError(
                f"{folder} holds results of another dataset: its link {name!r} is {earlier[name]}, now {link}. "
                "Choose another output folder, or another name for -d/--derivatives."
            )
    return content


def _links(folder: Path, raw: Folder, derivatives: Sequence[Folder]) -> dict[str, str]:
    """URIs of datasets by their names in BIDS URIs."""
    return {dataset.name: _link(dataset.root, folder, raw.root) for dataset in [raw, *derivatives]}


def _describe_dataset(folder: Path, raw: Folder, derivatives: Sequence[Folder]) -> None:
    path, links = folder / "dataset_description.json", _links(folder, raw, derivatives)
    content = earlier_description(folder, raw, derivatives)
    if content is not None:
        earlier = content.get("DatasetLinks", {})
        if earlier | links == earlier:
            return
        content |= {"DatasetLinks": earlier | links, "SourceDatasets": [{"URL": links[raw.name]}]}
    else:
        maker = {"Name": "bidsfit", "Version": __version__, "CodeURL": CODE_URL}
        content = {
            "Name": "bidsfit: quantitative maps from MRI",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [maker | _container()],
            "SourceDatasets": [{"URL": links[raw.name]}],
            "DatasetLinks": links,
        }
    write_json(path, content)


def _describe_labels(path: Path, labels: Mapping[str, str]) -> None:
    """Add labels of ``desc`` to descriptions.tsv; rows of other labels stay as they are."""
    earlier = read_tsv(path) if path.exists() else []
    rows = {row.get("desc_id", ""): row.get("description", "") for row in earlier}
    rows |= {f"desc-{label}": words for label, words in labels.items()}
    write_rows(path, ("desc_id", "description"), sorted(rows.items()))


def _container() -> dict[str, Any]:
    """The container that the app runs in, if its image declares it."""
    tag = os.environ.get("BIDSFIT_CONTAINER_TAG")
    return {"Container": {"Type": "docker", "Tag": tag}} if tag else {}


def _exists(link: str, folder: Path) -> bool:
    """Whether a link of the description of a folder leads to something on this machine."""
    return (folder / unquote(urlsplit(link).path)).exists()


def _link(root: Path, folder: Path, raw: Path) -> str:
    """URI of a dataset, relative if it and the outputs lie inside the raw one, so that all can be moved together."""
    if raw in folder.parents and raw in (root, *root.parents):
        return quote(Path(os.path.relpath(root, folder)).as_posix())
    return root.as_uri()
