"""Mechanisms: bids to outcome."""

from truthful.mechanisms.affine import AMA, VVCA
from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.classical import FirstPrice, SecondPrice
from truthful.mechanisms.menu import Menu, StraightJacket
from truthful.mechanisms.myerson import BundledMyerson, ItemwiseMyerson
from truthful.mechanisms.myersonnet import MyersonNet
from truthful.mechanisms.posted_price import PostedPrice
from truthful.mechanisms.regretnet import RegretNet
from truthful.mechanisms.rochetnet import RochetNet
from truthful.mechanisms.vcg import VCG

__all__ = [
    "AMA",
    "VCG",
    "VVCA",
    "BundledMyerson",
    "FirstPrice",
    "ItemwiseMyerson",
    "Mechanism",
    "Menu",
    "MyersonNet",
    "PostedPrice",
    "RegretNet",
    "RochetNet",
    "SecondPrice",
    "StraightJacket",
]
