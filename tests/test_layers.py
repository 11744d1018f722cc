"""A lower layer never imports a higher one; heavy packages stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "src" / "truthful"

LAYERS = [
    {"errors", "shapes", "streams", "schedules", "published", "results", ""},
    {"ceilings", "series", "sweeps"},
    {"report", "study"},
    {"auction"},
    {"laws"},
    {"settings"},
    {"mechanisms", "duals", "constraints", "engine", "optimizers", "calibration", "distributed"},
    {"data", "plots", "checkpoints"},
    {"regret"},
    {"bounds"},
    {"auditing", "iteration"},
    {"population"},
    {"console", "audit_plots"},
    {"explore"},
    {"loop"},
    {"training"},
    {"population_training"},
    {"logging"},
    {"callbacks"},
    {"processes"},
    {"app"},
]
HOMES = {
    "lightning": {"loop", "logging", "callbacks", "processes"},
    "hydra": {"app"},
    "omegaconf": {"app"},
    "scipy": {"auditing", "bounds"},
    "optuna": {"study"},
    "wandb": {"logging"},
    "rich": {"console", "callbacks", "report", "study"},
    "matplotlib": {"plots", "audit_plots", "report", "study"},
}
CORE = (
    "auction",
    "laws",
    "settings",
    "mechanisms",
    "duals",
    "constraints",
    "engine",
    "optimizers",
    "regret",
    "iteration",
    "population",
    "auditing",
    "schedules",
    "calibration",
    "distributed",
    "streams",
    "data",
    "checkpoints",
)


def imports(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part(file: Path) -> str:
    first = file.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_layering(file: Path) -> None:
    own = part(file)
    height = {name: k for k, layer in enumerate(LAYERS) for name in layer}
    assert own in height, f"{own} belongs to no layer"
    for name in imports(file):
        package, *rest = name.split(".")
        assert own in HOMES.get(package, {own}), f"{own} must not import {package}"
        if package == "truthful" and own != "":
            assert height[rest[0]] <= height[own], f"{own} must not import truthful.{rest[0]}"
        assert own not in ("app", "report", "study", "ceilings") or package != "torch"


def test_the_core_needs_torch_only() -> None:
    blocked = [
        "hydra",
        "omegaconf",
        "wandb",
        "lightning",
        "pytorch_lightning",
        "rich",
        "matplotlib",
        "scipy",
        "jaxtyping",
        "numpy",
    ]
    program = f"""
import sys
for name in {blocked}:
    sys.modules[name] = None
import torch
import truthful
{"".join(f"import truthful.{name}{chr(10)}" for name in CORE)}
from truthful.mechanisms import RegretNet
from truthful.settings import UniformBox
setting = UniformBox(2, 2, 0.0, 1.0, "additive")
mechanism = RegretNet(**setting.shape, depth=1, width=8, activation=torch.nn.Tanh(), unit_demand_scores=2)
print(truthful.audit(mechanism, setting, "fast", 10, 0).regret >= 0)
"""
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False
    )
    assert answer.stdout.strip() == "True", answer.stderr


def test_the_command_line_is_light() -> None:
    heavy = ("torch", "lightning", "wandb", "rich", "matplotlib", "optuna")
    scripts = "train, evaluate, report, bounds, baselines, explore, dashboard, study"
    program = f"import sys, {scripts}; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
