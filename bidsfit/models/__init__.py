"""Signal models, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bidsfit.exceptions import UnknownNameError
from bidsfit.registry import Registry

if TYPE_CHECKING:
    from bidsfit.models.signal_model import SignalModel

#: Where the models of the package live. Other packages add theirs with the entry point "bidsfit.models".
BUILT_IN = {
    "adc": "bidsfit.models.adc:ADC",
    "dki": "bidsfit.models.dki:DKI",
    "dti": "bidsfit.models.dti:DTI",
    "fwdti": "bidsfit.models.fwdti:FWDTI",
    "ivim": "bidsfit.models.ivim:IVIM",
    "ivimlebihan": "bidsfit.models.ivim:IVIM_LE_BIHAN",
    "ivimsimple": "bidsfit.models.ivim:IVIM_SIMPLE",
    "mp2rage": "bidsfit.models.mp2rage:MP2RAGE",
    "mrffisp": "bidsfit.models.fingerprinting:MRF_FISP",
    "noddi": "bidsfit.models.noddi:NODDI",
    "qmtgbloch": "bidsfit.models.generalised_bloch:GENERALISED_BLOCH",
    "qmtramani": "bidsfit.models.magnetisation_transfer:RAMANI",
    "sirqmt": "bidsfit.models.magnetisation_transfer:SIR_QMT",
    "smt2": "bidsfit.models.smt:SMT2",
    "smt3": "bidsfit.models.smt:SMT3",
    "smt3normalised": "bidsfit.models.smt:SMT3_NORMALISED",
    "t1ir": "bidsfit.models.relaxation:T1_INVERSION_RECOVERY",
    "t1vfa": "bidsfit.models.relaxation:T1_VFA",
    "t2": "bidsfit.models.relaxation:T2_MODEL",
    "t2star": "bidsfit.models.relaxation:T2STAR_MODEL",
}

_registry = Registry("model", "bidsfit.models", BUILT_IN)


def available() -> dict[str, str]:
    """Names of all models and where each lives, without importing any."""
    return _registry.available()


def without_variants() -> list[str]:
    """Names of the models that are fitted where none is named: all but other forms of one of them."""
    return [name for name in available() if not get(name).variant_of]


def get(name: str, organ: str = "general") -> SignalModel:
    """The model of that name, with the bounds, starting values and priors of an organ if it has any.

    An unknown name raises `UnknownNameError` with the nearest valid one.
    """
    model: SignalModel = _registry.get(name)
    if organ == model.organ:
        return model
    from bidsfit.models.organs import ORGANS, in_organ

    if organ not in ORGANS:
        raise UnknownNameError("organ", organ, ORGANS)
    return in_organ(model, organ)
