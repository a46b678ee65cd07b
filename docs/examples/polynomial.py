"""Powers of the signals, added up: an architecture that lives in another package."""

from dataclasses import dataclass

import numpy as np

from bidsfit.training.architectures import NetworkArchitecture


@dataclass(frozen=True)
class Polynomial(NetworkArchitecture):
    """A weighted sum of the powers of every feature, up to a degree."""

    degree: int = 3

    name = "polynomial"

    def module(self, inputs, outputs):
        import torch

        class Powers(torch.nn.Module):
            def __init__(self, degree):
                super().__init__()
                self.degree = degree

            def forward(self, features):
                return torch.cat([features**k for k in range(1, self.degree + 1)], dim=1)

        return torch.nn.Sequential(Powers(self.degree), torch.nn.Linear(self.degree * inputs, outputs))

    def forward(self, machine, features):
        scaled = (features - machine["centre"]) / machine["width"]
        powers = np.concatenate([scaled**k for k in range(1, self.degree + 1)], axis=1)
        return powers @ machine["1.weight"].T + machine["1.bias"]

    def require(self, arrays, inputs, outputs):
        expected = {
            "1.weight": (outputs, self.degree * inputs),
            "1.bias": (outputs,),
            "centre": (inputs,),
            "width": (inputs,),
        }
        if {name: array.shape for name, array in arrays.items()} != expected:
            raise ValueError(f"its arrays are not those of a polynomial of {inputs} features")
