"""Segmentation of white matter, grey matter and fluid in a diffusion image, from anatomical images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from bidsfit.bids.anatomy import Anatomy
from bidsfit.bids.images import open_image, read_data, read_mask, read_on_grid, write_nifti
from bidsfit.bids.tables import write_rows
from bidsfit.exceptions import UnusableInputError
from bidsfit.interfaces.step import StepInput, StepInterface
from bidsfit.preprocessing.tissue import (
    OTHER,
    PURITY,
    TISSUES,
    Alignment,
    check_alignment,
    classify_tissue,
    dominant_tissue,
    fractions_on_grid,
    register_to_diffusion,
    resample,
    tissue_of_freesurfer,
)
from bidsfit.steps.step import Method, Planned, Scene, Step

if TYPE_CHECKING:
    from bidsfit.reports.preprocessing import StepView

#: Rows of the table of labels: number, name, abbreviation, and number among the common image-derived labels of BIDS.
TABLE = (
    (0, "Background", "BG", "0"),
    (TISSUES["GM"], "Grey matter", "GM", "1"),
    (TISSUES["WM"], "White matter", "WM", "2"),
    (TISSUES["CSF"], "Cerebrospinal fluid", "CSF", "3"),
    (OTHER, "Several tissues, or other brain", "OTHER", "n/a"),
)


class _SegmentTissueInput(StepInput):
    reference = File(exists=True, mandatory=True, desc="mean of the images of the lowest b-value")
    mask = File(exists=True, mandatory=True, desc="the brain, on the grid of the reference")
    anatomy = traits.Dict(mandatory=True, desc="as Anatomy.to_dict")


class _SegmentTissueOutput(TraitedSpec):
    dseg = File(exists=True, desc="tissues on the grid of the reference; none where refused")
    table = File(exists=True, desc="their numbers and names; none where refused")
    pictures = File(exists=True, desc="the T1-weighted image on the grid of the reference, where it was aligned")
    facts = File(exists=True, desc="what was done and how well it went, or why it was refused, as JSON")


class SegmentTissue(StepInterface):
    """Segment the tissues of a diffusion image; without a trustworthy alignment only report the reason.

    Fits do not need tissues, so a failed alignment does not stop the workflow.
    """

    input_spec = _SegmentTissueInput
    output_spec = _SegmentTissueOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        anatomy = Anatomy.from_dict(self.inputs.anatomy)
        facts: dict[str, Any] = {"anatomy": anatomy.in_words, "sources": list(anatomy.uris), "refused": None}
        try:
            self._results |= self._segment(anatomy, facts, cwd)
        except (UnusableInputError, ValueError) as error:
            facts["refused"] = f"{anatomy.in_words[0].upper()}{anatomy.in_words[1:]} was not used: {error}"
        return facts

    def _segment(self, anatomy: Anatomy, facts: dict[str, Any], cwd: Path) -> dict[str, str]:
        path = Path(self.inputs.reference)
        like = open_image(path)
        reference = np.nan_to_num(read_on_grid(path, like, path, "reference"))
        mask = read_mask(Path(self.inputs.mask), like, path)
        affine, shape = like.affine, reference.shape
        outputs = {}
        transform = np.eye(4)
        head: tuple[NDArray, NDArray] | None = None
        if anatomy.t1w is not None:
            head = _volume(anatomy.t1w)
            if not anatomy.aligned:
                transform = register_to_diffusion(*head, reference, affine, mask)
            outputs["pictures"] = str(cwd / "anatomical.nii.gz")
            write_nifti(Path(outputs["pictures"]), resample(*head, transform, shape, affine), like)

        source, source_affine = self._tissue(anatomy, head, mask, affine, transform)
        fractions = fractions_on_grid(source, source_affine, transform, shape, affine)
        alignment: Alignment | None = None
        if head is not None:
            brain = fractions.sum(axis=-1) > 0.5 if anatomy.segmentation else None
            alignment = check_alignment(transform, *head, reference, affine, mask, brain)
            facts["alignment"] = alignment.to_dict()
            facts["transform"] = transform.tolist()
        facts["method"] = in_words(anatomy, alignment)
        if alignment is not None and alignment.failed:
            raise ValueError(f"it does not lie on the diffusion image ({alignment.failed}).")

        tissue = np.where(mask, dominant_tissue(fractions), 0).astype(np.uint8)
        volume = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
        facts["purity"] = PURITY
        facts["voxels"] = {name: int(np.sum(tissue == number)) for number, _, name, _ in TABLE[1:]}
        facts["millilitres"] = {
            name: round(float(fractions[mask][:, k].sum()) * volume, 2) for k, (_, _, name, _) in enumerate(TABLE[1:])
        }
        if not (facts["voxels"]["GM"] or facts["voxels"]["WM"]):
            raise ValueError(
                f"no voxel of the mask is filled to more than {100 * PURITY:.0f} % by grey or by white matter."
            )
        outputs |= {"dseg": str(cwd / "dseg.nii.gz"), "table": str(cwd / "dseg.tsv")}
        write_nifti(Path(outputs["dseg"]), tissue, like)
        write_rows(Path(outputs["table"]), ("index", "name", "abbreviation", "mapping"), TABLE)
        return outputs

    def _tissue(
        self,
        anatomy: Anatomy,
        head: tuple[NDArray, NDArray] | None,
        mask: NDArray[np.bool_],
        affine: NDArray,
        transform: NDArray,
    ) -> tuple[NDArray, NDArray]:
        """Tissue numbers or probabilities of the anatomy, with their affine."""
        if anatomy.segmentation:
            volumes = [_volume(path) for path in anatomy.segmentation]
            data, source_affine = volumes[0]
            if anatomy.kind == "freesurfer":
                return tissue_of_freesurfer(np.rint(data).astype(int)), source_affine
            if anatomy.kind == "probseg":
                for path, (other, _) in zip(anatomy.segmentation, volumes, strict=True):
                    if other.shape != data.shape:
                        raise UnusableInputError(
                            f"{path} has shape {other.shape}, but {anatomy.segmentation[0].name} has {data.shape}."
                        )
                return np.stack([other for other, _ in volumes], axis=-1), source_affine
            tissue = np.where(data > 0, OTHER, 0).astype(np.uint8)
            for name, labels in anatomy.labels.items():
                tissue[np.isin(np.rint(data), labels)] = TISSUES[name]
            return tissue, source_affine
        if head is None:
            raise UnusableInputError("There is neither a T1-weighted image nor a segmentation.")
        return classify_tissue(head[0], _on_head(mask, affine, transform, head)), head[1]


def in_words(anatomy: Anatomy, alignment: Alignment | None) -> str:
    """Summary in a sentence or two."""
    if anatomy.segmentation:
        first = f"Tissues were taken from {anatomy.in_words}"
    else:
        first = (
            f"Tissues were told apart in {anatomy.in_words}, inside the brain mask of the diffusion image, with a "
            "hidden Markov random field of three classes (DIPY)"
        )
    if anatomy.aligned:
        second = ", which lies on the diffusion image"
    else:
        second = ", brought to the diffusion image by rigid registration with mutual information (DIPY)"
    if alignment is not None:
        second += (
            f" (normalised mutual information {alignment.information:.3f}, {alignment.apart:.3f} when moved apart)"
        )
    return f"{first}{second}. A voxel belongs to a tissue that fills more than {100 * PURITY:.0f} % of it."


def _volume(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A volume and its affine; raises `UnusableInputError` if the file has several volumes."""
    image = open_image(path)
    data = np.asarray(read_data(image, path), dtype=np.float32)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise UnusableInputError(f"{path} has shape {data.shape}; expected one volume.")
    return np.nan_to_num(data), image.affine


def _on_head(
    mask: NDArray[np.bool_], affine: NDArray, transform: NDArray, head: tuple[NDArray, NDArray]
) -> NDArray[np.bool_]:
    """Mask of the diffusion image on the T1-weighted image, extended by a voxel where it ends with the image."""
    padded = np.pad(mask, 1, mode="edge").astype(np.float32)
    corner = np.eye(4)
    corner[:3, 3] = -1
    there = resample(padded, affine @ corner, np.linalg.inv(transform), head[0].shape, head[1])
    return np.asarray(there > 0.5)


class Tissue(Step):
    """Segmentation of tissues, if there is an anatomical image of the head."""

    name = "tissue"
    title = "Tissue masks"
    doing = "segmenting the tissue"
    shows = "Tissue masks on slices of the image"
    caption = "Tissue masks in the space of the diffusion-weighted image."
    methods: ClassVar[Mapping[str, Method]] = {
        "dseg": Method(
            "segmentation of the derivatives",
            "Tissue was taken from the segmentation that came with the data.",
            SegmentTissue,
        ),
        "hmrf": Method(
            "classification of the T1w image (DIPY)",
            "Tissue was classified on the T1-weighted image by a hidden Markov random field [@zhang2001; @dipy].",
            SegmentTissue,
        ),
    }
    changes = False
    memory = 4.0

    def choose(self, scene: Scene, chosen: Mapping[str, Planned]) -> Planned:
        anatomy = scene.helping.anatomy
        if scene.body:
            return Planned(self, reason="the image is not of a head")
        if anatomy is None:
            return Planned(self, reason=scene.helping.no_anatomy)
        return Planned(self, "dseg" if anatomy.segmentation else "hmrf")

    def draw(self, path: Path, view: StepView) -> bool:
        """Draw the T1-weighted and the diffusion image with the same outlines."""
        from bidsfit.reports.preprocessing import plot_registration  # matplotlib, which a plan does not need

        if view.pictures is None:
            return False
        lowest = np.mean(view.after[..., view.acquisition.shells[0].indices], axis=-1)
        plot_registration(path, {"T1w": view.pictures, "b0": lowest}, view.mask, view.affine)
        return True


TISSUE = Tissue()
