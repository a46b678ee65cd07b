"""Scenes: a map over its image, as a document that NiiVue (https://niivue.com) opens where it is dropped.

A document of NiiVue 0.69 is JSON. It loads no image that is only named in it, so that the two volumes are in it.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bidsfit.files import whole_file
from bidsfit.reports.measured import MeasuredVoxels
from bidsfit.reports.records import FitRecord, ImageRecord


def write_scenes(folder: Path, images: Sequence[ImageRecord], fits: Sequence[FitRecord]) -> list[Path]:
    """Write a scene for every estimated parameter of every fit, among the figures, named as the map.

    Parameters
    ----------
    folder : Path
        That the paths in the records are relative to.
    images, fits
        Records; fits of images whose voxels were not kept, and maps whose file is missing, get no scene.

    Returns
    -------
    list of Path
        What was written. Tensors and their axes have no scene: they are no maps of one number.
    """
    written = []
    for image in images:
        if not image.voxels or not (folder / image.voxels).exists():
            continue
        background = _background(folder / image.voxels)
        for fit in fits:
            for row in fit.maps:
                path = folder / row["path"]
                several = row["frame"] or row.get("volume") is not None
                shown = row["parameter"] and not row["statistic"] and not several and fit.image == image.name
                if not shown or not path.exists():
                    continue
                limits = [limit / row["factor"] for limit in row["limits"]]
                layers = [background, _layer(path.name, path.read_bytes(), row["colours"], limits)]
                scene = (folder / image.voxels).with_name(path.name.removesuffix(".nii.gz") + ".nvd")
                with whole_file(scene) as temporary:
                    temporary.write_text(_document(row["title"], layers), encoding="utf-8")
                written.append(scene)
    return written


def _background(voxels: Path) -> tuple[dict[str, Any], str]:
    """The mean image of the lowest b-value, in the colours of the report."""
    measured = MeasuredVoxels.load(voxels)
    reference = np.nan_to_num(measured.reference).astype(np.float32)
    content = gzip.compress(nib.Nifti1Image(reference, measured.affine).to_bytes(), mtime=0)
    return _layer("image.nii.gz", content, "gray", np.percentile(reference, [1, 99.7]).tolist())


def _layer(name: str, content: bytes, colours: str, limits: Sequence[float]) -> tuple[dict[str, Any], str]:
    options = {"name": name, "colormap": colours, "opacity": 1, "cal_min": limits[0], "cal_max": limits[1]}
    return options, base64.b64encode(content).decode()


def _document(title: str, layers: Sequence[tuple[dict[str, Any], str]]) -> str:
    options, contents = zip(*layers, strict=True)
    shown = {"isColorbar": True, "crosshairWidth": 0}
    document = {"title": title, "imageOptionsArray": options, "encodedImageBlobs": contents, "opts": shown}
    return json.dumps(document, allow_nan=False)
