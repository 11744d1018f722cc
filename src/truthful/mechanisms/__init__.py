"""Mechanisms: bids to outcome."""

from truthful.mechanisms.affine import AMA, VVCA
from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.budgeted_regretnet import BudgetedRegretNet
from truthful.mechanisms.citransnet import CITransNet
from truthful.mechanisms.classical import FirstPrice, SecondPrice
from truthful.mechanisms.equivariantnet import EquivariantNet
from truthful.mechanisms.menu import Menu, StraightJacket
from truthful.mechanisms.myerson import BundledMyerson, ItemwiseMyerson
from truthful.mechanisms.posted_price import PostedPrice
from truthful.mechanisms.regretformer import RegretFormer
from truthful.mechanisms.regretnet import RegretNet
from truthful.mechanisms.vcg import VCG

__all__ = [
    "AMA",
    "VCG",
    "VVCA",
    "BudgetedRegretNet",
    "BundledMyerson",
    "CITransNet",
    "EquivariantNet",
    "FirstPrice",
    "ItemwiseMyerson",
    "Mechanism",
    "Menu",
    "PostedPrice",
    "RegretFormer",
    "RegretNet",
    "SecondPrice",
    "StraightJacket",
]
