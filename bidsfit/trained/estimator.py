"""Base class of trained estimators: the training task, the loading of the result, and inference."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from bidsfit.acquisition import B0_TOLERANCE, Acquisition, Averaging
from bidsfit.estimators import DISTRIBUTIONS
from bidsfit.estimators.estimator import FAINTEST, Estimate, Estimator, FitChunk, Fitted, Signals, Status
from bidsfit.models import dti
from bidsfit.models.priors import priors_of
from bidsfit.models.signal_model import SignalModel
from bidsfit.models.space import ParameterSpace
from bidsfit.noise import NoiseKind, known_noise
from bidsfit.parallel import library_threads
from bidsfit.simulation.distributions import Distribution, Informed, Mixture, Tissues, Uniform
from bidsfit.simulation.images import MOST_VOXELS, ImageVoxels, as_single
from bidsfit.simulation.simulator import Noise, Scope
from bidsfit.training.bundle import Bundle, read_bundle
from bidsfit.training.inference import Inverter
from bidsfit.training.protocol import differences, may_turn
from bidsfit.training.recipe import Recipe, load_recipe, recipe_from
from bidsfit.training.task import USUAL, Task
from bidsfit.trust.domain import Domain
from bidsfit.trust.performance import Performance

#: Key of the statistic of an ensemble: the standard deviation of the estimates of its networks.
SPREAD = "ensemble"

#: SNRs at which estimators are trained for data of any SNR: few, so that one file serves many images. Diffusion images
#: have the lower ones, relaxometry and fingerprints the higher.
SNR_LEVELS = (5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0, 56.0, 80.0, 113.0, 160.0, 226.0, 320.0, 453.0, 640.0)

#: How the images that a training takes voxels of are called.
IMAGES: Mapping[Scope, str] = {"participant": "the participant's images", "dataset": "all images of the run"}


class TrainedEstimator(Estimator):
    """Estimator that was trained on simulated signals.

    Without ``trained`` it only defines its training (`task`) and cannot estimate yet.

    Parameters
    ----------
    model : SignalModel
    distribution : {"prior", "uniform", "healthy", "mixed", "wm", "gm"}
        What the parameters of the training are drawn from, see `bidsfit.estimators.DISTRIBUTIONS`.
    snr : float or "auto"
        SNR of the training signals; "auto" takes the level of `SNR_LEVELS` nearest to that of the data.
    noise : {"rician", "gaussian"}
        Noise of the training signals; always Gaussian with ``debias``.
    recipe : str or mapping, optional
        Name or file of a training recipe, or its content; by default the recipe of the package for noisy or noise-free
        signals, or for fingerprints.
    label : str
        Name of the estimator, if it is not made of its kind and distribution: that of its recipe.
    seed : int
    pool : str
        Digest of the distribution of pooled fits, if one is needed.
    checksum : str
        First characters of the checksum of a file given by the user; they become part of the name.
    trained : Bundle or path, optional
        The result of the training.
    bounds : dict of name to (lower, upper), optional
        Bounds of the parameter space that is trained on.
    averaging : {"arithmetic", "geometric", "none"}
    debias : bool
        Take the Rician bias out of the magnitudes first.

    Notes
    -----
    S0 follows from the other parameters in closed form.
    """

    enough_directions = 3  # what more would tell comes from the training, which the response shows
    chunk = 32768  # larger, because so little is done for a voxel that the turns of Python would show
    kind: str

    def __init__(
        self,
        model: SignalModel,
        *,
        distribution: str = "prior",
        snr: float | str = "auto",
        noise: NoiseKind = "rician",
        recipe: str | Mapping[str, Any] | None = None,
        label: str = "",
        seed: int = 0,
        pool: str = "",
        checksum: str = "",
        trained: Bundle | Path | str | None = None,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        averaging: Averaging = "arithmetic",
        debias: bool = False,
    ) -> None:
        if model.averaging and averaging == "none":
            raise ValueError(f"The model {model.name!r} describes direction averages; averaging cannot be 'none'.")
        if averaging == "geometric":
            raise ValueError("Trained estimators are taught on arithmetic averages; averaging cannot be 'geometric'.")
        if distribution not in DISTRIBUTIONS:
            raise ValueError(f"Unknown distribution {distribution!r}; valid: {', '.join(DISTRIBUTIONS)}.")
        if snr != "auto" and not float(snr) > 0:
            raise ValueError(f"The SNR of the training must be 'auto' or a number above 0, found {snr!r}.")
        super().__init__(model, bounds=bounds, averaging=averaging, debias=debias)
        self.distribution, self.pool, self.checksum = distribution, pool, checksum
        self.snr: float | str = "auto" if snr == "auto" else float(snr)
        self.noise: NoiseKind = "gaussian" if debias else noise
        self.recipe, self.label, self.seed = recipe, label, seed
        if recipe is not None:
            self._given_recipe(recipe)  # refuses what cannot be used before anything is computed
        self.space = ParameterSpace(model, bounds)
        self.priors = priors_of(model, self.bounds) if distribution == "prior" else {}
        self.trained = read_bundle(Path(trained)) if isinstance(trained, Path | str) else trained
        if self.trained is not None:
            self._require_own(self.trained)
        if self._chosen is not None:
            self._chosen.objective.n_outputs(self.space)  # refuses a model that it is not made for
        self.needs_noise |= self._chosen is not None and self._chosen.simulation.unit == "noise"

    @cached_property
    def _chosen(self) -> Recipe | None:
        """The recipe that trained it, or else that of its option; None if it has the default."""
        if self.trained is not None:
            return self.trained.recipe
        return None if self.recipe is None else self._given_recipe(self.recipe)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.label or "-".join(filter(None, [self.prefix, self.distribution, self.checksum]))

    prefix: str

    @property
    def reach(self) -> tuple[int, int, int]:  # type: ignore[override]
        return (0, 0, 0) if self._chosen is None else self._chosen.architecture.reach

    @property
    def keeps_bounds(self) -> bool:  # type: ignore[override]
        recipe = self._chosen  # a median of networks is taken where all estimates are within the bounds
        return recipe is None or recipe.objective.keeps_bounds or bool(getattr(recipe.schedule, "members", None))

    @property
    def options(self) -> dict[str, Any]:
        snr = None if isinstance(self.snr, float) and np.isinf(self.snr) else self.snr
        return super().options | {
            "training_distribution": "images" if self.learns_from_images else self.distribution,
            "training_snr": snr,
            "training_noise": self.noise,
            "training_recipe": "default" if self.recipe is None else self.recipe,
            "training_seed": self.seed,
            **({"training_pool": self.pool} if self.pool else {}),
            **({"training_checksum": self.checksum} if self.checksum else {}),
        }

    @property
    def methods(self) -> str:
        noise = f"{'Rician' if self.noise == 'rician' else 'Gaussian'} noise"
        level = f" of SNR {self.snr:g}" if isinstance(self.snr, float) and np.isfinite(self.snr) else ""
        level = (
            " of the SNR level nearest to the median SNR of the participant's images" if self.snr == "auto" else level
        )
        whose = "the images that the sidecars name" if self.checksum else IMAGES[self.scope or "participant"]
        if self.scope is not None:
            level = f" of the SNRs of the voxels of {whose}"
        elif self.snr == np.inf:
            noise = "no noise"
        stated = f" ({'; '.join(f'{name} {prior}' for name, prior in self.priors.items())})" if self.priors else ""
        tissues = None if self._chosen is None else self._chosen.simulation.tissues
        drawn = (
            f"{DISTRIBUTIONS[self.distribution]}{stated}"
            if tissues is None
            else f"drawn from normal distributions in {' and '.join(tissues)}"
        )
        taught = f"simulated signals of the same protocol with {noise}{level}, their parameters {drawn}"
        unit, s0 = "relative to that of the lowest b-value", "follows from the other parameters by least squares"
        if self._chosen is not None and self._chosen.simulation.unit == "noise":
            unit = "in units of the standard deviation of the noise"
        given = None if self._chosen is None else getattr(self._chosen.objective, "s0", None)
        if given is not None:
            s0 = "is that signal" if given == "measured" else "is an output beside them"
        if self.learns_from_images:
            taught = f"the measured signals of voxels of {whose}, of which a tenth was held out"
        return (
            f"It was trained on {taught}. Signals are {unit}; S0 {s0}."
            + f" The training follows the recipe {self.recipe if isinstance(self.recipe, str) else self.label} "
            "(bidsfit-lab recipes)."
            * bool(self.label)
            + " Its estimates may leave the bounds; the map of the status says where." * (not self.keeps_bounds)
        ) + any(self.reach) * (
            f" It also reads the neighbours of a voxel, up to {' x '.join(map(str, self.reach))} voxels away; what is "
            "said of its errors is a mean over homogeneous surroundings, an edge and a lesion of one voxel."
        )

    @property
    def performance(self) -> Performance | None:
        """Its errors as they were simulated after the training; None before, and in files of earlier versions."""
        return None if self.trained is None else self.trained.performance

    @property
    def statistics(self) -> tuple[str, ...]:  # type: ignore[override]
        """The spread of the networks of an ensemble, and the standard deviation that a network states."""
        recipe = self._chosen
        if recipe is None:
            return ()
        return (SPREAD,) * bool(getattr(recipe.schedule, "members", None)) + ("sd",) * recipe.objective.states_spread

    @property
    def domain(self) -> Domain | None:
        """Which signals are like those of its training; None before, and in files of earlier versions."""
        return None if self.trained is None else self.trained.domain

    @property
    def scope(self) -> Scope | None:
        """Whose images its training takes voxels of; None if it takes none."""
        return None if self._chosen is None else self._chosen.scope

    @property
    def learns_from_images(self) -> bool:
        """Whether measured signals train it."""
        return self._chosen is not None and self._chosen.learns_from_images

    @property
    def needs_pool(self) -> bool:
        """Whether it is trained on pooled fits of participants."""
        return self.distribution not in ("prior", "uniform")

    def task(
        self,
        acquisition: Acquisition,
        snr: float,
        pool: Distribution | None = None,
        *,
        lowest: bool = True,
        images: ImageVoxels | None = None,
    ) -> Task:
        """The training task for an averaged acquisition.

        Parameters
        ----------
        acquisition : Acquisition
            As of `averaged`; where signals of images train, that of the images is taken.
        snr : float
            SNR of the data; ignored if the estimator has its own.
        pool : Distribution, optional
            Pooled fits, if needed.
        lowest : bool
            Whether images of the lowest b-value are noisy.
        images : ImageVoxels, optional
            Voxels of images, as of `sample`, for a recipe that takes them.
        """
        level = nearest_level(snr) if isinstance(self.snr, str) else self.snr
        distribution: Distribution = Uniform(self.space)
        if self.distribution == "prior":
            distribution = Informed(self.space, self.priors)
        if self.needs_pool:
            if pool is None:
                raise ValueError(f"The estimator {self.name!r} is trained on pooled fits, and none were given.")
            distribution = Mixture((distribution, pool)) if self.distribution == "mixed" else pool
        recipe = self.default_recipe(level) if self.recipe is None else self._given_recipe(self.recipe)
        if recipe.simulation.tissues is not None:
            distribution = Tissues(self.space, recipe.simulation.tissues)
        if images is not None and recipe.learns_from_images:
            acquisition = images.acquisition
        return Task(distribution, acquisition, Noise(level, self.noise, lowest), recipe, self.seed, images)

    def sample(
        self,
        signals: Signals,
        acquisition: Acquisition,
        noise: float | NDArray[np.float64],
        *,
        name: str,
        most: int = MOST_VOXELS,
        positions: NDArray[np.integer] | None = None,
    ) -> ImageVoxels:
        """A random sample of the voxels of an image that have a usable signal and a known noise level.

        Those that the filter of the recipe refuses are left out, as neighbours too.

        Parameters
        ----------
        signals, acquisition, noise
            As `estimate` takes them; rows of voxels.
        name : str
            Of the image.
        most : int
            Largest number of voxels.
        positions : ndarray of int, shape (n_voxels, 3), optional
            Voxel indices in the image, for a recipe that learns from signals and reads neighbours.
        """
        reads = any(self.reach) and self.learns_from_images
        if reads and positions is None:
            raise ValueError(f"The training of {self.name!r} reads neighbours: say with `positions` where voxels lie.")
        averages, level = self.averages(acquisition), known_noise(noise, signals.shape[:1])
        kept, sigma, usable = [], [], []
        for start in range(0, signals.shape[0], self.chunk):
            rows = slice(start, start + self.chunk)
            measured = averages(signals[rows], level[rows]).signals
            reference = self.model.reference_signal(measured, averages.acquisition)
            good = np.isfinite(measured).all(axis=1) & (reference > FAINTEST) & (level[rows] > 0)
            kept.append(as_single(measured[good] / reference[good, None]))
            sigma.append(as_single(level[rows][good] / reference[good]))
            usable.append(good)
        places = None
        if reads and positions is not None:
            places = np.insert(positions[np.concatenate(usable)], 0, 0, axis=1).astype(np.int32)
        found = ImageVoxels(
            np.concatenate(kept), np.concatenate(sigma), averages.acquisition, {name: 0}, positions=places
        )
        if self._chosen is not None and self._chosen.simulation.filter is not None:
            found = found.decaying()
        return found.some(most, self.seed)

    def _given_recipe(self, given: str | Mapping[str, Any]) -> Recipe:
        """Load the recipe of the option and check its kind."""
        recipe = load_recipe(given) if isinstance(given, str) else recipe_from(given, "the recipe")
        if recipe.kind != self.kind:
            what = f" {given!r}" if isinstance(given, str) else ""
            raise ValueError(f"The recipe{what} is of a {recipe.kind}; {self.name!r} is a {self.kind}.")
        return recipe

    def default_recipe(self, snr: float) -> Recipe:
        """The recipe if no option names one."""
        return load_recipe(self.kind)

    def _require_own(self, bundle: Bundle) -> None:
        """Raise an error if the file is of another model or kind of estimator."""
        facts = bundle.facts
        for key, own in (("Kind", self.kind), ("Model", self.model.name), ("Parameters", list(self.space.names))):
            if facts[key] != own:
                raise ValueError(
                    f"The trained estimator {bundle.path or ''} is for {key.lower()} {facts[key]!r}, not for {own!r}."
                )
        if facts["Distribution"]["Bounds"] != self.space.facts:
            raise ValueError(
                f"The trained estimator {bundle.path or ''} knows the bounds {facts['Distribution']['Bounds']}, not "
                f"{self.space.facts}."
            )

    def missing(self, acquisition: Acquisition) -> list[str]:
        if self.model.axis_angles and acquisition.directions is not None:
            weighted = acquisition.directions[acquisition.b_values > B0_TOLERANCE]
            tensor = dti.diffusivities(np.nan_to_num(weighted))
            if np.linalg.matrix_rank(tensor) < len(dti.ELEMENTS):
                return ["six directions that differ, in all shells together (the axis is that of a diffusion tensor)"]
        if self.trained is None:
            return []
        noisy = self.trained.facts["Noise"]["AtLowestBValue"]
        turns = may_turn(self.model, self.reach)
        return differences(self.averaged(acquisition), self.trained.acquisition, noisy_lowest=noisy, turns=turns)

    def _estimate_rows(self, *arguments: Any) -> Estimate:
        with library_threads(1, "blas"):  # chunks run side by side; their products must not
            return super()._estimate_rows(*arguments)

    def prepare(self, acquisition: Acquisition) -> FitChunk:
        if self.trained is None:
            raise ValueError(f"The estimator {self.name!r} was not trained yet: give it the file of its training.")
        bundle, scale = self.trained, self.model.scale_index
        invert = Inverter(bundle.recipe, bundle.machine, self.space, acquisition, bundle.acquisition)
        own = [self.model.names.index(name) for name in self.space.names]
        limit, level = bundle.facts["Training"]["ResidualLimit"], bundle.facts["Noise"]["SNR"] or np.inf

        n, is_complex = len(acquisition), self.model.complex_valued
        noise_quantile = 2 * gammaincinv(n * (1 + is_complex) / 2, USUAL)  # of chi squared

        def fit(y: NDArray[np.float64], sigma: NDArray[np.float64], positions: NDArray | None = None) -> Fitted:
            found = invert(y[:, :n] + 1j * y[:, n:] if is_complex else y, positions, sigma)
            s0 = found.parameters[:, scale] if self.model.scale else np.ones(len(y))
            with np.errstate(invalid="ignore", divide="ignore"):
                if np.isfinite(level):
                    usual = limit * (s0 * np.fmax(level * sigma / s0, 1.0)) ** 2  # more, where there is more noise
                else:  # beside what a network taught without noise leaves, what the noise of the data does
                    usual = limit * s0**2 + sigma**2 * noise_quantile
                unlike = found.squares > usual  # never where the noise would have to be known and is not
            status = np.where(unlike, Status.UNLIKE_TRAINING, Status.CONVERGED).astype(np.uint8)
            status[np.isnan(found.squares)] = Status.IMPLAUSIBLE  # far beyond the bounds, where there is no signal
            statistics = {}
            for name, values in ((SPREAD, found.spread), ("sd", found.stated)):
                if values is not None:
                    statistics[name] = np.full(found.parameters.shape, np.nan)
                    statistics[name][:, own] = values
            return Fitted(found.parameters, found.squares, status, statistics)

        return fit

    @property
    def training_notes(self) -> dict[str, Any]:
        """Facts about the training for sidecars."""
        if self.trained is None:
            return {}
        facts = self.trained.facts
        about = ("Noise", "DistributionDigest", "Participants", "Recipe", "Seed", "Images")
        keys = (*about, "Training", "Software", "Checksum")
        file = {"File": self.trained.path.name} if self.trained.path is not None else {}
        return {"TrainedEstimator": file | {key: facts[key] for key in keys if key in facts}}

    def adapted(
        self, signals: Signals, acquisition: Acquisition, noise: float | NDArray[np.float64] | None
    ) -> tuple[Estimator, dict[str, Any]]:
        return self, self.training_notes


def nearest_level(snr: float) -> float:
    """Level of `SNR_LEVELS` with the smallest ratio to this SNR."""
    if not snr > 0:
        raise ValueError(f"An SNR is above 0, found {snr}.")
    return min(SNR_LEVELS, key=lambda level: abs(np.log(level / min(snr, SNR_LEVELS[-1]))))
