"""Mechanisms: bids to outcome."""

from truthful.mechanisms.affine import AMA, VVCA
from truthful.mechanisms.amenunet import AMenuNet
from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.budgeted_regretnet import BudgetedRegretNet
from truthful.mechanisms.citransnet import CITransNet
from truthful.mechanisms.classical import FirstPrice, SecondPrice
from truthful.mechanisms.equivariantnet import EquivariantNet
from truthful.mechanisms.lottery_ama import LotteryAMA
from truthful.mechanisms.menu import Menu, StraightJacket
from truthful.mechanisms.myerson import BundledMyerson, ItemwiseMyerson
from truthful.mechanisms.myersonnet import MyersonNet
from truthful.mechanisms.posted_price import PostedPrice
from truthful.mechanisms.regretformer import RegretFormer
from truthful.mechanisms.regretnet import RegretNet
from truthful.mechanisms.rochetnet import RochetNet
from truthful.mechanisms.sparsemax_regretnet import SparsemaxRegretNet
from truthful.mechanisms.vcg import VCG

__all__ = [
    "AMA",
    "VCG",
    "VVCA",
    "AMenuNet",
    "BudgetedRegretNet",
    "BundledMyerson",
    "CITransNet",
    "EquivariantNet",
    "FirstPrice",
    "ItemwiseMyerson",
    "LotteryAMA",
    "Mechanism",
    "Menu",
    "MyersonNet",
    "PostedPrice",
    "RegretFormer",
    "RegretNet",
    "RochetNet",
    "SecondPrice",
    "SparsemaxRegretNet",
    "StraightJacket",
]
