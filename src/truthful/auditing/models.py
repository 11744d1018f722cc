"""Which mechanisms can be certified, and by which enclosure."""

from __future__ import annotations

from torch import nn

from truthful.auditing.piecewise import PiecewiseUtility
from truthful.auditing.reported import ReportedUtility, ReportModel
from truthful.mechanisms import Mechanism, RegretNet, SparsemaxRegretNet

MODELS: dict[type[Mechanism], type[ReportModel]] = {RegretNet: ReportedUtility, SparsemaxRegretNet: PiecewiseUtility}


def model_of(mechanism: Mechanism, bidder: int) -> ReportModel:
    """A bidder's utility under a mechanism. Raises ValueError if it cannot be bounded."""
    kind = type(mechanism)  # a subclass may compute anything
    if kind not in MODELS:
        known = " or a ".join(known.__name__ for known in MODELS)
        raise ValueError(f"only a {known} can be certified, got {kind.__name__}")
    if any(module._forward_hooks or module._forward_pre_hooks for module in mechanism.modules()):
        raise ValueError(f"a {kind.__name__} with forward hooks cannot be certified: they may change its outcomes")
    activations = MODELS[kind].activations
    for layer in mechanism.modules():
        if not isinstance(layer, (kind, nn.Sequential, nn.Linear, *activations)):
            names = ", ".join(activation.__name__ for activation in activations)
            raise ValueError(f"the activation must be one of {names} to be certified, got {type(layer).__name__}")
    for name, parameter in mechanism.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise ValueError(f"the mechanism's parameters must be finite, got NaN or infinity in {name}")
    return MODELS[kind](mechanism, bidder)
