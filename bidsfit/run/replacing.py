"""Files that a run with ``--overwrite`` moves away: all outputs of an image, or single fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

from bidsfit.bids.conflicts import Conflict, dated_folder, files_of_image, move, of_segmentation, writing
from bidsfit.bids.outputs import file_output, image_folder, json_path
from bidsfit.estimators.estimator import estimator_label
from bidsfit.planning.fits import Fit
from bidsfit.planning.plan import ImagePlan, ParticipantPlan, conflicts
from bidsfit.trust.disagreement import KEY


@dataclass(frozen=True)
class Replaced:
    """Files of an image that are, or would be, moved away, with the first conflict and the new folder."""

    image: ImagePlan
    files: tuple[Path, ...]
    conflict: Conflict
    folder: Path | None = None

    @property
    def in_words(self) -> str:
        """Number of files, and the reason."""
        what = f"{len(self.files)} files{'' if self.conflict.whole else ' of fits'}"
        why = self.conflict.in_words or f"{self.conflict.path.name} has no sidecar that can be read"
        return f"{what} ({why})"


def find_replaced(plan: ImagePlan, output_dir: Path) -> Replaced | None:
    """Outputs of an image that must be moved before the plan is carried out; None if there are none."""
    found = list(conflicts(plan, output_dir))
    if not found:
        return None
    if any(conflict.whole for conflict in found):
        first = next(conflict for conflict in found if conflict.whole)
        return Replaced(plan, tuple(files_of_image(output_dir, plan.image)), first)
    paths = {conflict.path for conflict in found}
    files = {path for fit in plan.fits if paths & set(maps := _maps(plan, fit, output_dir)) for path in maps}
    files |= {path for found_at in paths for path in (found_at, json_path(found_at)) if path.exists()}
    of = tuple(path.name.removesuffix("dseg.nii.gz") for path in paths if of_segmentation(path.name))
    files |= {path for path in files_of_image(output_dir, plan.image) if path.name.startswith(of)}
    files |= {
        path
        for fit in plan.fits
        if files & set(_maps(plan, fit, output_dir))
        for path in _figures(plan, fit, output_dir)
    }
    return Replaced(plan, tuple(files), found[0])


def _maps(plan: ImagePlan, fit: Fit, output_dir: Path) -> list[Path]:
    """Maps and sidecars of a fit, with any options, without those of its disagreement with another one."""
    name = f"{plan.image.name}_model-{fit.model}_*desc-{estimator_label(fit.built.name)}_*map.*"
    return [path for path in (output_dir / image_folder(plan.image)).glob(name) if f"_stat-{KEY}" not in path.name]


def _figures(plan: ImagePlan, fit: Fit, output_dir: Path) -> list[Path]:
    """Figures, records and tables of a fit, of comparisons and regions that include it, and maps of disagreements."""
    from bidsfit.interfaces.comparison import comparison_figure_paths  # and with them what draws figures
    from bidsfit.interfaces.fit import fit_figure_paths

    paths = [
        *fit_figure_paths(output_dir, plan.image, fit.built).values(),
        *comparison_figure_paths(output_dir, plan.image, fit.signal_model).values(),
    ]
    stem, label = f"{plan.image.name}_model-{fit.model}_*stat-{KEY}", estimator_label(fit.built.name)
    place = output_dir / image_folder(plan.image)
    apart = chain.from_iterable(place.glob(f"{stem}{pair}_*map.*") for pair in (f"*_desc-{label}", f"{label}_desc-*"))
    fitted = f"_model-{fit.model}_desc-{label}_{plan.image.map_suffix}"
    tables = (
        path
        for path in files_of_image(output_dir, plan.image)
        if of_segmentation(path.name) and path.name.endswith((f"{fitted}.tsv", f"{fitted}.json", "_record.json"))
    )
    return [*(path for path in paths if path.exists()), *apart, *tables]


def replace_earlier(plans: Iterable[ParticipantPlan], output_dir: Path, moment: datetime) -> list[Replaced]:
    """Move away outputs that conflict with plans, and their reports; return what was moved.

    Files of a participant are searched and moved under its lock, so that of several simultaneous runs the first moves
    them. ``moment`` names the folder.
    """
    done: list[Replaced] = []
    for plan in plans:
        if not plan.images:
            continue
        with writing(output_dir, plan.images[0].image):
            found = [one for image in plan.images if (one := find_replaced(image, output_dir)) is not None]
            if not found:
                continue
            target = dated_folder(output_dir, plan.label, moment)
            report = output_dir / file_output("report", plan.images[0].image)
            files = [path for one in found for path in one.files]
            move([*files, *([report] if report.exists() else [])], output_dir, target)
        done += [Replaced(one.image, one.files, one.conflict, target) for one in found]
    return done
