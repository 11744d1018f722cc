"""Mechanisms: bids to outcome."""

from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.classical import FirstPrice, SecondPrice
from truthful.mechanisms.regretnet import RegretNet

__all__ = ["FirstPrice", "Mechanism", "RegretNet", "SecondPrice"]
