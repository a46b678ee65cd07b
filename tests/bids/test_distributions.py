"""Pooled fits as files: the same fits give the same files, and what is read is what was written."""

import gzip
import json
import re

import numpy as np
import pytest

from bidsfit import models
from bidsfit.bids import distributions
from bidsfit.bids.distributions import (
    distribution_path,
    find_pool,
    read_distribution,
    samples_path,
    write_distribution,
)
from bidsfit.exceptions import UnusableInputError
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import digest, pool

SOURCES = ["bids::sub-01/dwi/sub-01_model-smt2_param-vcyl_desc-lsq_dwimap.nii.gz"]


def pooled(model="smt3", participants=("sub-01", "sub-02"), kind="healthy"):
    space = ParameterSpace(models.get(model))
    rng = np.random.default_rng(0)
    fits = {name: space.sample(200, rng) for name in participants}
    fits["sub-01"][0] = space.bounds[:, 1]  # at the bounds, or beyond them where they are constrained
    return pool(space, fits, most=300, seed=0, origin={"Tissue": kind})


def write(folder, found, kind="healthy"):
    return write_distribution(folder, found, kind, sources=SOURCES, healthy="group=control")


@pytest.mark.parametrize("model", ["adc", "ivim", "smt2", "smt3"])
def test_what_is_read_is_what_was_written(tmp_path, model):
    found = pooled(model)
    path, kept = write(tmp_path, found)
    assert kept is None
    assert path.name == f"group_model-{model}_desc-healthy_distribution.json"
    kind, read = read_distribution(path, models.get(model))
    assert kind == "healthy"
    np.testing.assert_array_equal(read.samples, found.samples)
    np.testing.assert_array_equal(read.participant, found.participant)
    assert digest(read) == digest(found)
    pool_file = find_pool(tmp_path, model, "healthy")
    assert (pool_file.digest, pool_file.participants) == (digest(found), ("sub-01", "sub-02"))


def test_the_table_is_in_the_units_of_files(tmp_path):
    found = pooled("smt2")
    path, _ = write(tmp_path, found)
    head, first, *_ = gzip.decompress(samples_path(path).read_bytes()).decode().splitlines()
    assert head.split("\t") == ["participant_id", "vcyl", "lambda"]
    name, vcyl, diffusivity = first.split("\t")
    assert name == "sub-01"
    assert float(vcyl) == pytest.approx(found.samples[0, 0])
    assert float(diffusivity) == pytest.approx(1e-3 * found.samples[0, 1])
    content = json.loads(path.read_text())
    assert content["lambda"]["Units"] == "mm^2/s"
    assert content["lambda"]["Maximum"] == 0.003
    assert content["Sources"] == SOURCES
    assert sum(content["Distribution"]["Voxels"].values()) == len(found.samples)


def test_the_same_fits_change_nothing(tmp_path, unchanged):
    write(tmp_path, pooled())
    with unchanged(tmp_path):
        assert write(tmp_path, pooled())[1] is None


def test_the_table_is_that_of_gzip_however_many_rows_are_written_at_a_time(tmp_path, monkeypatch):
    packed = []
    for rows in (7, 10**6):
        monkeypatch.setattr(distributions, "ROWS", rows)
        path, _ = write(tmp_path / str(rows), pooled())
        packed.append(samples_path(path).read_bytes())
    assert packed[0] == packed[1] == gzip.compress(gzip.decompress(packed[0]), 6, mtime=0)


def test_what_differs_is_written_and_the_old_one_kept(tmp_path):
    old, new = pooled(), pooled(participants=("sub-01", "sub-02", "sub-03"))
    path, _ = write(tmp_path, old)
    path.with_suffix(".png").touch()
    again, kept = write(tmp_path, new)
    assert again == path
    assert kept == distribution_path(tmp_path, "smt3", "healthy", digest(old))
    assert kept.with_suffix(".png").exists()
    assert not path.with_suffix(".png").exists()  # it showed the old one
    assert digest(read_distribution(kept, models.get("smt3"))[1]) == digest(old)
    assert digest(read_distribution(path, models.get("smt3"))[1]) == digest(new)


def test_none_is_none(tmp_path):
    assert find_pool(tmp_path, "smt2", "wm") is None


@pytest.mark.parametrize(
    ("suffix", "change", "words"),
    [
        (".tsv.gz", lambda b: gzip.compress(gzip.decompress(b).replace(b"0.1", b"0.2", 1)), "is not the table"),
        (".tsv.gz", lambda b: b[:-40], "cannot be used"),
        (".tsv.gz", lambda b: gzip.compress(gzip.decompress(b).replace(b"sub-02", b"sub-09", 1)), "sub-09"),
        (".tsv.gz", lambda b: gzip.compress(gzip.decompress(b).replace(b"vcsf", b"csf", 1)), "has the columns"),
        (".tsv.gz", lambda b: gzip.compress(bytes(40_000_000)), "unpacks to more than"),
        (".tsv.gz", lambda b: b[:60] + b"\xff" * 60 + b[120:], "cannot be used"),
        (".json", lambda b: re.sub(rb'"Digest": "..', b'"Digest": "zz', b), "is not the table"),
        (".json", lambda b: b.replace(b'"Distribution":', b'"distribution":'), "Distribution"),
    ],
)
def test_what_was_changed_is_refused(tmp_path, suffix, change, words):
    path, _ = write(tmp_path, pooled())
    file = path.with_suffix(suffix)
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(UnusableInputError, match=f"The distribution .*{words}"):
        read_distribution(path, models.get("smt3"))
