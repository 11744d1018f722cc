"""Engines run the same mathematics, say when they cannot, and are chosen without a clock."""

import json
import shutil
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import CONF, SMALL, network, regret_mode
from tests.test_training import fit, make
from truthful.duals import AugmentedLagrangian
from truthful.engine import (
    Auto,
    Compiled,
    CudaGraph,
    Eager,
    Engine,
    EngineFailed,
    _narrow_product,
    _rational_tanh,
    _small_products,
)
from truthful.iteration import FusedAdam, fused
from truthful.optimizers import Soap, soap_update, turn
from truthful.regret import AdamStep, GradientAscent, RandomStart, SearchedRegret, TruthfulStart
from truthful.settings import UniformBox
from truthful.training import AuctionModule

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
MODES = {
    "local": lambda: SearchedRegret(GradientAscent(1, AdamStep(0.05)), TruthfulStart(), False, True, False),
    "local_persistent": lambda: SearchedRegret(GradientAscent(1, AdamStep(0.05)), TruthfulStart(), True, True, False),
    "standard": lambda: SearchedRegret(GradientAscent(4, AdamStep(0.1)), RandomStart(), True, False, False),
}
MODE_NAMES = sorted({path.stem for path in (CONF / "regret").glob("*.yaml")} - {"none"})


def trained(engine: Engine, mode: str, **changes: Any) -> AuctionModule:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    module = make(40, regret=MODES[mode](), mechanism=network(setting), **changes).double()
    module.data.sample = module.data.sample.double()
    module.engine = engine
    return fit(module)


def lagrangian() -> AugmentedLagrangian:
    return AugmentedLagrangian(2, 5.0, 1.0, 2, 5.0, 3)


class Traced(Compiled):
    """The compiled engine without the compiler: what it would compile."""

    def compile(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        return graph


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_every_mode_can_be_compiled_and_handed_over(mode: str) -> None:
    """Half-way a curriculum changes over, in the middle of a logging interval."""
    runs = []
    for engine in (Eager(), Traced()):
        module = make(8, regret=regret_mode(mode), mechanism=network(UniformBox(2, 2, 0.0, 1.0, "additive"), scale=2.0))
        module.double().data.sample = module.data.sample.double()
        module.engine = engine
        runs.append(fit(module))
        assert module.engine is engine
    eager, traced = (run.state_dict() for run in runs)
    assert float(eager["history"][7, 1]) > 0
    for name, state in eager.items():
        assert torch.allclose(state, traced[name], rtol=0, atol=1e-9), name


class OnDevice(Traced):
    """Notes what a traced function computes on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.on_host = 0, set[str]()

    def compile(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        interpreter = torch.fx.Interpreter(graph, garbage_collect_values=False)
        interpreter.run(*inputs)
        self.operations += len(interpreter.env)
        for node, computed in interpreter.env.items():
            leaves = torch.utils._pytree.tree_leaves(computed)
            if any(isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu" for leaf in leaves):
                self.on_host.add(node.name)
        return graph


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_nothing_waits_for_the_device(mode: str) -> None:
    """On the device without memory every tensor that an iteration makes on the host shows."""
    module = make(8, regret=regret_mode(mode)).to("meta")
    module.optimizer.param_groups[0]["params"] = list(module.mechanism.parameters())  # new ones, only on this device
    module.engine = engine = OnDevice()
    for module.iteration in (0, 7):  # a curriculum's first mode and its second
        module.prepare()
    assert engine.operations > 300
    assert not engine.on_host


def test_an_engine_that_fails_at_a_handover_is_replaced_there() -> None:
    class Fails(Traced):
        def compile(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
            if self.compile_seconds:
                raise RuntimeError("once is enough")
            return graph

    module = make(8, regret=regret_mode("curriculum"))
    module.engine = Fails()
    with pytest.warns(UserWarning, match="engine: eager, because compiled does not work here .*once is enough"):
        fit(module)
    assert isinstance(module.engine, Eager)
    assert int(module.completed) == 8
    assert all(float(state["step"]) == 8 for state in module.optimizer.state_dict()["state"].values())


@needs_compiler
@pytest.mark.parametrize("mode", ["local", "standard"])
def test_compiled_is_eager(mode: str) -> None:
    """One local step, clipping and the augmented Lagrangian; then a search step by step, and the budget."""
    changes: dict[str, Any] = {"clip_norm": 0.5} if mode == "local" else {}
    eager = trained(Eager(), mode, **changes, **({"dual": lagrangian()} if mode == "local" else {}))
    engine = Compiled()
    compiled = trained(engine, mode, **changes, **({"dual": lagrangian()} if mode == "local" else {}))
    assert engine.compile_seconds > 0
    assert torch.allclose(eager.history[:40], compiled.history[:40], rtol=0, atol=1e-9)
    assert float(eager.history[39, 0]) != 0
    for name, state in eager.state_dict().items():
        assert torch.allclose(state, compiled.state_dict()[name], rtol=0, atol=1e-9), name
    ours, theirs = (module.optimizer.state_dict()["state"] for module in (compiled, eager))
    assert all(float(state["step"]) == 40 for state in ours.values())
    for k, state in theirs.items():
        assert torch.allclose(state["exp_avg"], ours[k]["exp_avg"], rtol=0, atol=1e-9)


def test_the_fused_optimiser_is_torch_s() -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    twins = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    theirs = torch.optim.Adam(twins, lr=0.01, betas=(0.8, 0.95), eps=1e-6)
    ours = FusedAdam(torch.optim.Adam(parameters, lr=0.01, betas=(0.8, 0.95), eps=1e-6))
    for t in range(1, 6):
        gradients = [torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
        for twin, gradient in zip(twins, gradients, strict=True):
            twin.grad = gradient.clone()
        theirs.step()
        corrections = (torch.tensor(1 - 0.8**t), torch.tensor((1 - 0.95**t) ** 0.5))
        with torch.no_grad():
            ours.update(parameters, gradients, torch.tensor(0.01), *(c.double() for c in corrections))
    for parameter, twin in zip(parameters, twins, strict=True):
        assert torch.allclose(parameter, twin, rtol=0, atol=1e-7)


@pytest.mark.parametrize("change", [{"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}])
def test_only_plain_adam_is_fused(change: dict[str, Any]) -> None:
    parameter = torch.zeros(2, requires_grad=True)
    assert isinstance(fused(torch.optim.Adam([parameter])), FusedAdam)
    assert fused(torch.optim.Adam([parameter], **change)) is None
    assert fused(torch.optim.AdamW([parameter])) is None


def test_another_optimiser_steps_outside(two_by_two: UniformBox) -> None:
    module = make(3, optimizer=partial(torch.optim.SGD, lr=0.1))
    before = [parameter.detach().clone() for parameter in module.mechanism.parameters()]
    fit(module)
    assert any(not torch.equal(a, b) for a, b in zip(before, module.mechanism.parameters(), strict=True))


def test_the_cheap_tanh_is_tanh() -> None:
    t = torch.linspace(-12, 12, 200_001)
    assert float((_rational_tanh(t).double() - t.double().tanh()).abs().max()) < 5e-7
    assert float((_rational_tanh(t)).abs().max()) <= 1
    assert _rational_tanh(t.double()) is NotImplemented


def test_small_products_are_products() -> None:
    for rows, inner, columns in ((3, 40, 2), (3, 2, 40), (40, 3, 2)):
        left, right = torch.rand(5, rows, inner).double(), torch.rand(5, inner, columns).double()
        assert torch.allclose(_small_products(left, right), left @ right)
    assert _small_products(torch.rand(5, 40, 2), torch.rand(5, 2, 40)) is NotImplemented


def test_narrow_products_are_products() -> None:
    left, right = torch.randn(20, 30), torch.randn(30, 4)
    assert torch.allclose(_narrow_product(left, right), left @ right, atol=1e-5)
    assert _narrow_product(left, torch.randn(30, 17)) is NotImplemented
    assert _narrow_product(left[:16], right) is NotImplemented, "the transposed product is narrow"


def test_auto_goes_by_length_and_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert isinstance(Auto().resolve(torch.device("cuda"), 1.0), CudaGraph)
    assert isinstance(Auto().resolve(cpu, Auto.WORTH_COMPILING - 1), Eager)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(UserWarning, match=r"eager, because there is no C\+\+ compiler \(no-such-compiler\)"):
        assert isinstance(Auto().resolve(cpu, 1e6), Eager)
    monkeypatch.setenv("CXX", "sh")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(Auto().resolve(cpu, 1e6), Compiled)
    engine = Compiled()
    assert engine.resolve(cpu, 0.0) is engine


def test_longer_and_larger_trainings_are_estimated_longer() -> None:
    short, long = make(10).eager_seconds, make(1000).eager_seconds
    assert long == pytest.approx(100 * short)
    assert make(10, regret=MODES["standard"]()).eager_seconds > short


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_engine_that_does_not_work_is_replaced_before_anything_happens() -> None:
    module = make(6)
    module.engine = CudaGraph()
    with pytest.warns(UserWarning, match="eager, because cuda_graph does not work here .*there is no CUDA device"):
        fit(module)
    assert module.engine.name == "eager"
    assert int(module.completed) == 6
    reference = fit(make(6))
    assert torch.equal(module.history[:6], reference.history[:6])


def test_a_compiler_s_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("first line\nsecond line")

    monkeypatch.setattr(torch._inductor, "compile", broken)
    with pytest.raises(EngineFailed, match=r"^OSError: first line$"):
        Compiled().run(lambda module, t: module(t), torch.nn.Linear(2, 2), torch.zeros(1, 2))


@needs_compiler
def test_code_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Triton's did once, for reports that are both chosen in the graph and returned from it."""
    compiler = torch._inductor.compile

    def miscompiled(*arguments: Any, **options: Any) -> Any:
        code = compiler(*arguments, **options)
        return lambda *inputs: [output.flip(0) for output in code(*inputs)]

    monkeypatch.setattr(torch._inductor, "compile", miscompiled)
    linear, values = torch.nn.Linear(2, 2, bias=False), torch.linspace(-1, 1, 60).view(30, 2)
    with pytest.raises(EngineFailed, match=r"computes something else"):
        Compiled().run(lambda module, t: module(t), linear, values)


@needs_compiler
@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_code_that_forgets_the_network_s_step_is_refused(monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    compiler = torch._inductor.compile

    def miscompiled(*arguments: Any, **options: Any) -> Any:
        code = compiler(*arguments, **options)
        return lambda *inputs: code(*(tensor.clone() for tensor in inputs))

    monkeypatch.setattr(torch._inductor, "compile", miscompiled)
    module = make(8) if optimizer == "adam" else member_with_soap(Eager())
    module.engine = Compiled()
    with pytest.raises(EngineFailed, match="computes something else"):
        module.prepare()
    monkeypatch.undo()
    module.prepare()


@needs_compiler
def test_compiled_functions_follow_the_module_s_tensors() -> None:
    linear, engine = torch.nn.Linear(2, 2), Compiled()
    values = torch.rand(3, 2)

    def function(module: torch.nn.Module, t: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": module(t) * 2}

    assert torch.allclose(engine.run(function, linear, values)["out"], linear(values) * 2)
    with torch.no_grad():
        linear.weight.add_(1)
    assert torch.allclose(engine.run(function, linear, values)["out"], linear(values) * 2)


@needs_compiler
def test_a_compiled_run_continues_exactly(tmp_path: Path) -> None:
    def fresh() -> AuctionModule:
        setting = UniformBox(2, 2, 0.0, 1.0, "additive")
        module = make(40, regret=MODES["local"](), mechanism=network(setting), clip_norm=0.5, dual=lagrangian())
        module = module.double()
        module.data.sample = module.data.sample.double()
        module.engine = Compiled()
        return module

    whole, half = fit(fresh()), fit(fresh(), last=15)
    assert half.iteration == 15
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    continued = fit(fresh(), checkpoint=tmp_path / "half.ckpt")
    for name, state in whole.state_dict().items():
        assert torch.equal(state, continued.state_dict()[name]), name


def test_soap_is_adam_in_other_coordinates() -> None:
    generator = torch.Generator().manual_seed(0)
    group = {"betas": (0.8, 0.9), "eps": 1e-8, "memory": 0.95}

    def rotation(size: int) -> torch.Tensor:
        return torch.linalg.qr(torch.randn(2, size, size, generator=generator, dtype=torch.float64))[0]

    weight, bias = (torch.randn(2, *size, generator=generator, dtype=torch.float64) for size in ((4, 3), (4,)))
    left, right = rotation(4), rotation(4)
    zeros = [torch.zeros(2, 4, 4, dtype=torch.float64) for _ in range(4)]
    state = [*zeros, left, right]
    turned = (left.mT @ torch.cat([weight, bias.unsqueeze(-1)], -1) @ right).requires_grad_()
    adam = torch.optim.Adam([turned], lr=0.1, betas=(0.8, 0.9), eps=1e-8)
    for t in range(1, 5):
        gradient = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
        turned.grad = left.mT @ gradient @ right
        adam.step()
        numbers = [torch.tensor(n, dtype=torch.float64) for n in (0.1, 1 - 0.8**t, (1 - 0.9**t) ** 0.5)]
        soap_update([weight, bias], [gradient[..., :3], gradient[..., 3]], state, group, *numbers)
        back = left @ turned.detach() @ right.mT
        assert torch.allclose(weight, back[..., :3], atol=1e-12)
        assert torch.allclose(bias, back[..., 3], atol=1e-12)
    assert torch.allclose(state[2], state[2].mT)
    assert float(state[2].abs().max()) > 0


def test_the_eigenvectors_are_found_and_followed() -> None:
    generator = torch.Generator().manual_seed(0)

    def positive() -> torch.Tensor:
        factor = torch.randn(5, 5, generator=generator, dtype=torch.float64)
        return factor @ torch.diag(torch.logspace(0, 3, 5, dtype=torch.float64)) @ factor.T

    mean, square = (torch.rand(5, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    identity = torch.eye(5, dtype=torch.float64)
    state = [mean.clone(), square, positive(), positive(), identity.clone(), identity.clone()]

    def off_diagonal(matrix: torch.Tensor, basis: torch.Tensor) -> float:
        turned = basis.T @ matrix @ basis
        return float((turned - turned.diag().diag()).abs().max() / turned.diag().max())

    turn(state, first=True)
    for matrix, basis in ((state[2], state[4]), (state[3], state[5])):
        assert off_diagonal(matrix, basis) < 1e-12
    assert torch.allclose(state[4] @ state[0] @ state[5].T, mean)
    state[2] = state[2] + 0.05 * positive()
    before = off_diagonal(state[2], state[4])
    for _ in range(40):
        turn(state, first=False)
    assert off_diagonal(state[2], state[4]) < 1e-3 * before
    assert torch.allclose(state[4].T @ state[4], identity)
    assert torch.allclose(state[4] @ state[0] @ state[5].T, mean)


def test_soap_fused_is_soap_outside() -> None:
    runs = [fit(member_with_soap(engine)) for engine in (Eager(), Compiled() if shutil.which("g++") else Eager())]
    assert torch.allclose(runs[0].history[:20], runs[1].history[:20], rtol=0, atol=1e-9)


def member_with_soap(engine: Engine) -> AuctionModule:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    optimizer = partial(Soap, lr=3e-3, betas=[0.9, 0.9], eps=1e-7, memory=0.95, every=4)
    module = make(20, optimizer=optimizer, mechanism=network(setting)).double()
    module.data.sample = module.data.sample.double()
    module.engine = engine
    return module


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": -1.0}, "lr must be"),
        ({"betas": (0.9, 1.0)}, r"betas and memory must lie in \[0, 1\)"),
        ({"every": 0}, "every must be a whole number"),
    ],
)
def test_a_wrong_soap_is_refused(change: dict[str, Any], message: str) -> None:
    arguments = {"lr": 0.01, "betas": (0.9, 0.9), "eps": 1e-8, "memory": 0.9, "every": 3}
    with pytest.raises(ValueError, match=message):
        Soap([torch.zeros(2, 2)], **{**arguments, **change})
    with pytest.raises(ValueError, match="soap needs weights with two axes"):
        Soap([torch.zeros(3, 2), torch.zeros(2)], **arguments).pairs()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_terminal_says_why_an_engine_was_replaced(cli, tmp_path: Path) -> None:
    answer = cli("train.py", *SMALL, "iterations=10", "setting=a", "engine=cuda_graph", "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    said = " ".join(answer.out.split())
    assert (
        "warning: engine: eager, because cuda_graph does not work here (RuntimeError: there is no CUDA device)" in said
    )
    train = json.loads((tmp_path / "run" / "result.json").read_text())["train"]
    assert (train["engine"], train["completed"]) == ("eager", 10)
