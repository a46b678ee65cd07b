"""Training distributions: what is drawn has the density of what was pooled, and the file says whose it was."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from scipy.interpolate import RectBivariateSpline

from bidsfit import models
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import (
    BINS,
    Mixture,
    Pooled,
    Tissues,
    Uniform,
    digest,
    distribution_from,
    participants_of,
    pool,
)

SMT2, SMT3 = (ParameterSpace(models.get(name)) for name in ("smt2", "smt3"))
#: Two tissues of a healthy brain, in vcyl, lambda.
TISSUES = ((0.6, 1.8), (0.25, 1.1))


def two_tissues(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centre = np.array(TISSUES)[rng.integers(2, size=n)]
    return centre + rng.standard_normal((n, 2)) * (0.04, 0.15)


def pooled(n: int = 20_000, **options: object) -> Pooled:
    samples = two_tissues(n)
    return Pooled(SMT2, samples, np.arange(n) % 3, ("sub-01", "sub-02", "sub-03"), **options)


def three_parameters(n: int = 5000, seed: int = 0) -> Pooled:
    """Two tissues, and a little free water in one of them."""
    rng = np.random.default_rng(seed)
    second = rng.integers(2, size=n)
    centre = np.array([[0.6, 0.02, 1.8], [0.25, 0.3, 1.1]])[second]
    samples = np.abs(centre + rng.standard_normal((n, 3)) * (0.03, 0.01, 0.1))
    return Pooled(SMT3, samples, np.zeros(n, int), ("sub-01",))


class TestHistogram:
    def test_moments_are_those_of_the_pool(self):
        source = pooled()
        assert source.facts["Density"] == "histogram"
        drawn = source.sample(100_000, np.random.default_rng(1))
        assert SMT2.contains(drawn).all()
        np.testing.assert_allclose(drawn.mean(axis=0), source.samples.mean(axis=0), rtol=0.01)
        np.testing.assert_allclose(drawn.std(axis=0), source.samples.std(axis=0), rtol=0.02)
        expected = np.corrcoef(source.samples.T)[0, 1]
        assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(expected, abs=0.02)

    def test_what_is_drawn_has_the_density_of_the_paper(self):
        """Uniform proposals, rejected against the cubic interpolation of the histogram, clipped at 0."""
        source = pooled(60_000)
        counts, x, y = np.histogram2d(*source.samples.T, bins=BINS, range=SMT2.bounds.tolist())
        x, y = (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2
        spline = RectBivariateSpline(x, y, counts, s=0)
        rng = np.random.default_rng(2)
        kept = []
        for _ in range(6):
            proposed = SMT2.bounds[:, 0] + SMT2.span * rng.random((1_000_000, 2))
            near = stats.norm.sf(np.abs(proposed[:, 0, None] - (0.6, 0.25)) / 0.04).max(axis=1) > 1e-9
            proposed = proposed[near]  # elsewhere the histogram is empty
            density = np.clip(
                spline.ev(np.clip(proposed[:, 0], *x[[0, -1]]), np.clip(proposed[:, 1], *y[[0, -1]])), 0, None
            )
            kept.append(proposed[rng.random(len(proposed)) * counts.max() * 1.5 < density])
            assert density.max() <= counts.max() * 1.5
        plain = np.concatenate(kept)
        drawn = source.sample(4 * len(plain), rng)
        edges = [np.quantile(plain[:, j], np.linspace(0, 1, 9)) for j in range(2)]
        for edge, (low, high) in zip(edges, SMT2.bounds, strict=True):
            edge[[0, -1]] = low, high
        first, second = (np.histogram2d(*points.T, bins=edges)[0].ravel() for points in (plain, drawn))
        used = first + second > 20
        table = np.stack([first[used], second[used]])
        assert len(plain) > 20_000
        assert used.sum() > 20
        assert stats.chi2_contingency(table).pvalue > 1e-3

    def test_voxels_at_a_bound_stay_there(self):
        """Fits often end at a bound: a spike in the last bin, which a spline must not spread."""
        n = 10_000
        samples = np.stack([np.full(n, 1.0), np.full(n, 3.0)], axis=1)
        samples[: n // 2] = two_tissues(n // 2)
        drawn = Pooled(SMT2, samples, np.zeros(n, int), ("a",)).sample(40_000, np.random.default_rng(3))
        corner = np.mean((drawn[:, 0] > 0.99) & (drawn[:, 1] > 2.97))
        assert corner == pytest.approx(0.5, abs=0.1)  # clipping its ripples, and half a bin of flat ends
        assert np.mean((drawn[:, 0] > 0.8) & (drawn[:, 0] < 0.99)) < 0.01

    def test_one_parameter(self):
        space = ParameterSpace(models.get("adc"))
        samples = np.random.default_rng(4).normal(0.8, 0.05, (20_000, 1))
        drawn = Pooled(space, samples, np.zeros(20_000, int), ("a",)).sample(50_000, np.random.default_rng(5))
        assert drawn.mean() == pytest.approx(0.8, abs=0.002)
        assert drawn.std() == pytest.approx(0.05, rel=0.05)


class TestKernel:
    def test_moments_and_both_modes_are_kept(self):
        source = three_parameters()
        drawn = source.sample(50_000, np.random.default_rng(1))
        assert SMT3.contains(drawn).all()
        np.testing.assert_allclose(drawn.mean(axis=0), source.samples.mean(axis=0), rtol=0.03)
        np.testing.assert_allclose(drawn.std(axis=0), source.samples.std(axis=0), rtol=0.05)
        second = source.samples[:, 1] > 0.15
        assert np.mean(drawn[:, 1] > 0.15) == pytest.approx(second.mean(), abs=0.02)
        between = (drawn[:, 0] > 0.38) & (drawn[:, 0] < 0.48)
        assert between.mean() < 0.01

    def test_samples_at_the_bounds_keep_their_weight(self):
        """Where a step leads out of the space it is drawn again, and the sample is not lost."""
        rng = np.random.default_rng(4)
        samples = np.stack([rng.uniform(0.2, 0.4, 4000), np.zeros(4000), rng.uniform(1, 2, 4000)], axis=1)
        samples[::2, 1] = rng.uniform(0.3, 0.5, 2000)
        drawn = Pooled(SMT3, samples, np.zeros(4000, int), ("a",)).sample(40_000, rng)
        assert np.mean(drawn[:, 1] < 0.15) == pytest.approx(0.5, abs=0.015)

    def test_it_is_smooth_where_a_histogram_would_only_repeat_the_samples(self):
        """Of 500 bins in three dimensions nearly every one that is not empty holds a single voxel."""
        source = three_parameters()
        assert source.facts["Density"] == "kernel"

        def bins(points):
            return np.unique(((points - SMT3.bounds[:, 0]) / SMT3.span * BINS).astype(int), axis=0)

        own = bins(source.samples)
        assert len(own) > 0.95 * len(source.samples)
        drawn = source.sample(5000, np.random.default_rng(2))
        both = len(own) + len(bins(drawn)) - len(np.unique(np.concatenate([own, bins(drawn)]), axis=0))
        assert both < 0.1 * len(drawn)
        assert "_histogram" not in vars(source)

    def test_a_histogram_of_three_parameters_is_refused(self):
        with pytest.raises(ValueError, match=r"histogram.*2 parameters"):
            Pooled(SMT3, np.full((200, 3), 0.3), np.zeros(200, int), ("a",), density="histogram")

    def test_sparse_regions_are_smoothed_wider_than_dense_ones(self):
        rng = np.random.default_rng(3)
        dense, sparse = rng.normal((0.3, 1.0), 0.005, (3000, 2)), rng.uniform((0.5, 1.5), (0.9, 2.9), (300, 2))
        source = Pooled(SMT2, np.concatenate([dense, sparse]), np.zeros(3300, int), ("a",), density="kernel")
        drawn = source.sample(66_000, rng)
        near = drawn[drawn[:, 0] < 0.4]
        assert near[:, 0].std() == pytest.approx(0.005, rel=0.1)
        far = drawn[drawn[:, 0] > 0.45]
        counts, *_ = np.histogram2d(*far.T, bins=(4, 4), range=((0.55, 0.85), (1.6, 2.8)))
        assert counts.min() > 0.4 * counts.mean()


class TestMixture:
    def test_each_part_has_its_weight(self):
        source = Mixture((Uniform(SMT2), pooled()), (0.25, 0.75))
        drawn = source.sample(40_000, np.random.default_rng(0))
        outside = drawn[:, 0] > 0.8  # a fifth of the space, and no healthy voxel
        assert outside.mean() == pytest.approx(0.25 * 0.2, abs=0.005)
        assert np.mean(outside[:20_000]) == pytest.approx(outside.mean(), abs=0.005)  # in no order

    @pytest.mark.parametrize("weights", [(0.5,), (0.7, 0.7), (1.5, -0.5)])
    def test_weights_must_be_weights(self, weights):
        with pytest.raises(ValueError, match="with a sum of 1"):
            Mixture((Uniform(SMT2), Uniform(SMT2)), weights)


DISTRIBUTIONS = {
    "uniform": lambda: Uniform(SMT2),
    "histogram": lambda: pooled(500, origin={"Dataset": "healthy", "Tissue": "WM"}),
    "kernel": lambda: pooled(500, density="kernel"),
    "mixture": lambda: Mixture((Uniform(SMT2), pooled(500)), (0.4, 0.6)),
    "of mixtures": lambda: Mixture((Mixture((pooled(500), Uniform(SMT2))), pooled(300))),
}


class TestFacts:
    @pytest.mark.parametrize("name", DISTRIBUTIONS)
    def test_facts_and_arrays_are_the_distribution(self, name):
        source = DISTRIBUTIONS[name]()
        facts = json.loads(json.dumps(source.facts, allow_nan=False))
        again = distribution_from(facts, source.arrays, SMT2.model)
        assert digest(again) == digest(source)
        np.testing.assert_array_equal(
            again.sample(500, np.random.default_rng(0)), source.sample(500, np.random.default_rng(0))
        )

    def test_the_digests_of_different_distributions_differ(self):
        assert len({digest(make()) for make in DISTRIBUTIONS.values()}) == len(DISTRIBUTIONS)

    def test_samples_at_constraints_and_bounds_survive(self):
        """As 64 bits they are inside; as the 32 that are kept they must be so too."""
        rng = np.random.default_rng(0)
        space = ParameterSpace(models.get("smt3"), {"lambda": (0.1, 2.9)})
        v = rng.random(1000)
        samples = np.stack([v, 1 - v, np.full(1000, 2.9)], axis=1)
        source = Pooled(space, samples, np.zeros(1000, int), ("a",))
        assert len(source.samples) == 1000
        again = distribution_from(source.facts, source.arrays, space.model)
        assert len(again.samples) == 1000
        assert digest(again) == digest(source)
        assert len(pool(space, {"a": samples.astype(np.float32)}, most=10**6, seed=0, origin={}).samples) == 1000

    def test_one_sample_changes_the_digest(self):
        source = pooled(500)
        samples = source.samples.copy()
        samples[17, 0] = np.nextafter(samples[17, 0], np.float32(1))
        assert digest(Pooled(SMT2, samples, source.participant, source.participants)) != digest(source)
        participant = source.participant.copy()
        participant[17] = (participant[17] + 1) % 3
        assert digest(Pooled(SMT2, source.samples, participant, source.participants)) != digest(source)
        assert digest(Pooled(SMT2, source.samples, source.participant, source.participants)) == digest(source)

    def test_participants_are_named_wherever_they_are(self):
        assert participants_of(DISTRIBUTIONS["of mixtures"]().facts) == ["sub-01", "sub-02", "sub-03"]
        assert participants_of(Uniform(SMT2).facts) == []
        assert pooled(300).facts["Voxels"] == {"sub-01": 100, "sub-02": 100, "sub-03": 100}

    @pytest.mark.parametrize(
        ("facts", "arrays", "message"),
        [
            ({}, {}, "incomplete: KeyError\\('Bounds'\\)"),
            ({"Kind": "normal", "Bounds": {}}, {}, "Unknown kind of distribution 'normal'"),
            ({"Kind": "pooled", "Bounds": {}, "Participants": ["a"]}, {}, "incomplete: KeyError\\('samples'\\)"),
            ({"Kind": "uniform", "Bounds": {"x": [0, 1]}}, {}, "no parameter"),
            ({"Kind": "uniform", "Bounds": 3}, {}, "incomplete"),
        ],
    )
    def test_what_describes_nothing_is_refused(self, facts, arrays, message):
        with pytest.raises(ValueError, match=message):
            distribution_from(facts, arrays, SMT2.model)


class TestPools:
    def test_a_participant_can_be_left_out(self):
        source = pooled(600, origin={"Dataset": "healthy"})
        rest = source.without("sub-02")
        assert rest.participants == ("sub-01", "sub-03")
        assert rest.facts["Voxels"] == {"sub-01": 200, "sub-03": 200}
        assert rest.facts["Origin"] == {"Dataset": "healthy", "LeftOut": ["sub-02"]}
        for place, name in enumerate(rest.participants):
            own = source.samples[source.participant == source.participants.index(name)]
            np.testing.assert_array_equal(rest.samples[rest.participant == place], own)
        assert rest.without("sub-03").facts["Origin"]["LeftOut"] == ["sub-02", "sub-03"]
        assert digest(rest) != digest(source)
        with pytest.raises(ValueError, match="nothing is left"):
            rest.without("sub-03").without("sub-01")

    def test_nobody_outweighs_the_others(self):
        fits = {"many": two_tissues(5000), "few": two_tissues(50, 1), "some": two_tissues(1000, 2)}
        found = pool(SMT2, fits, most=600, seed=0, origin={})
        assert found.facts["Voxels"] == {"many": 200, "few": 50, "some": 200}
        assert found.facts["Origin"] == {"Seed": 0}
        chosen = {tuple(row) for row in found.samples[found.participant == 0]}
        assert len(chosen) == 200
        assert chosen <= {tuple(row) for row in fits["many"].astype(np.float32)}
        again, other = (pool(SMT2, fits, most=600, seed=seed, origin={}) for seed in (0, 1))
        assert digest(again) == digest(found) != digest(other)

    def test_what_is_not_finite_or_outside_counts_for_nothing(self):
        values = two_tissues(300)
        values[:50, 0] = np.nan
        values[50:80, 1] = 3.5
        values[80:90, 0] = np.inf
        values[90:95, 0] = -0.01
        found = pool(SMT2, {"a": values}, most=200, seed=0, origin={})
        assert found.facts["Voxels"] == {"a": 200}
        found = pool(SMT2, {"a": values}, most=10**6, seed=0, origin={})
        np.testing.assert_array_equal(found.samples, values[95:].astype(np.float32))

    def test_too_little_is_refused(self):
        with pytest.raises(ValueError, match="at least 100 fitted voxels inside the bounds, found 99"):
            Pooled(SMT2, two_tissues(99), np.zeros(99, int), ("a",))
        with pytest.raises(ValueError, match="at least one participant"):
            pool(SMT2, {}, most=10, seed=0, origin={})
        with pytest.raises(ValueError, match="found 0"):
            pool(SMT2, {"a": np.full((300, 2), np.nan)}, most=10**6, seed=0, origin={})


RANGES = {"a": {"vcyl": (0.2, 0.3), "lambda": (1.0, 1.4)}, "b": {"vcyl": (0.6, 0.8), "lambda": (1.8, 2.0)}}


class TestTissues:
    def test_every_tissue_is_normal_around_the_middle_of_its_ranges(self):
        source, tissue = Tissues(SMT2, RANGES), np.repeat([0, 1], 20_000)
        drawn = source.draw(tissue, np.random.default_rng(0))
        for i, (mean, sd) in enumerate([((0.25, 1.2), (0.05, 0.2)), ((0.7, 1.9), (0.1, 0.1))]):
            np.testing.assert_allclose(drawn[tissue == i].mean(axis=0), mean, rtol=0.02)
            np.testing.assert_allclose(drawn[tissue == i].std(axis=0), sd, rtol=0.03)
        assert source.draw_scale(tissue, np.random.default_rng(0)) is None
        assert np.mean(source.sample(20_000, np.random.default_rng(1))[:, 0] < 0.45) == pytest.approx(0.5, abs=0.02)

    def test_what_lies_outside_the_bounds_is_drawn_again(self):
        drawn = Tissues(SMT2, {"a": {"vcyl": (0, 0.2), "lambda": (1, 2)}}).sample(5000, np.random.default_rng(0))
        assert SMT2.contains(drawn).all()
        assert drawn[:, 0].mean() > 0.12

    def test_facts_describe_it(self):
        source = Tissues(SMT2, RANGES)
        again = distribution_from(json.loads(json.dumps(source.facts)), {}, SMT2.model)
        np.testing.assert_array_equal(
            again.sample(50, np.random.default_rng(2)), source.sample(50, np.random.default_rng(2))
        )
        assert digest(again) == digest(source)

    @pytest.mark.parametrize("ranges", [{"vcyl": (0, 1)}, {"vcyl": (0, 1), "lambda": (1, 2), "D": (1, 2)}])
    def test_tissues_of_other_parameters_are_refused(self, ranges):
        with pytest.raises(ValueError, match="'a' must have ranges of vcyl, lambda, found vcyl"):
            Tissues(SMT2, {"a": ranges})
