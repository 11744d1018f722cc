"""How a training step is executed: as it is, compiled, or as a CUDA graph. All engines run the same mathematics.

What they execute are functions of a module and tensors (`Run` in `truthful.regret`): nothing random, nothing that waits
for the device. They may differentiate inside, and change the module's tensors in place.
"""

from __future__ import annotations

import copy
import os
import shutil
import statistics
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from truthful.errors import UserError


class EngineFailed(RuntimeError):
    """The engine does not work here; the message says why in one line. Another one does."""


class Engine(ABC):
    """Executes functions of a module and tensors."""

    name: str
    """As in the configuration and in results."""
    compile_seconds = 0.0
    """Spent on making functions ready, so far."""

    @abstractmethod
    def ready(self, function: Callable[..., Any], module: nn.Module, *arguments: Any) -> Callable[[], Any]:
        """Make the call ready and return it, without executing it. Raises EngineFailed if that is not possible."""

    def run(self, function: Callable[..., Any], module: nn.Module, *arguments: Any) -> Any:
        """`function(module, *arguments)`.

        Tensors among the arguments, and the module's, may differ from call to call; everything else is part of what is
        made ready. What comes back may be overwritten by the next call with arguments of the same shapes.
        """
        return self.ready(function, module, *arguments)()

    def resolve(self, device: torch.device, eager_seconds: float) -> Engine:
        """The engine to use on a device, for a run that would take so many seconds with the eager one."""
        return self


class Eager(Engine):
    """Operation by operation."""

    name = "eager"

    def ready(self, function: Callable[..., Any], module: nn.Module, *arguments: Any) -> Callable[[], Any]:
        """As it is."""
        return lambda: function(module, *arguments)


class Prepared(Engine):
    """Engines that make something of a function, once for each shape of its arguments."""

    def __init__(self) -> None:
        self._made: dict[Any, Callable[[list[Tensor]], Any]] = {}

    def ready(self, function: Callable[..., Any], module: nn.Module, *arguments: Any) -> Callable[[], Any]:
        """Make it, if that has not been done."""
        leaves, structure = pytree.tree_flatten(arguments)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = (function, module, structure, *(_kind(leaf) for leaf in leaves))
        made = self._made.get(key)
        if made is None:
            start = time.perf_counter()

            def call(given: Iterable[Tensor], replaced: dict[str, Tensor] | None = None) -> Any:
                remaining = iter(given)
                filled = [next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
                inputs = pytree.tree_unflatten(filled, structure)
                return function(module, *inputs) if replaced is None else call_with(function, module, replaced, *inputs)

            try:
                made = self._made[key] = self.make(call, module, tensors)
            except Exception as error:  # whatever goes wrong in a compiler
                reason = (str(error).strip().splitlines() or [""])[0]
                raise EngineFailed(f"{type(error).__name__}: {reason}") from error
            self.compile_seconds += time.perf_counter() - start
        return lambda: made(tensors)

    @abstractmethod
    def make(self, call: Callable[..., Any], module: nn.Module, tensors: list[Tensor]) -> Callable[[list[Tensor]], Any]:
        """A fast version of call(tensors). `call(tensors, replaced)` replaces the module's own tensors, too."""


class Compiled(Prepared):
    """Traced once into one flat graph of operations, derivatives included, and compiled to C++ (or GPU code).

    The code that the eager engine executes is the code that is traced, so there is nothing to keep in step. Needs a
    C++ compiler at run time; the first compilation of a shape takes half a minute, a later one comes from a cache.
    """

    name = "compiled"

    def make(self, call: Callable[..., Any], module: nn.Module, tensors: list[Tensor]) -> Callable[[list[Tensor]], Any]:
        """Trace and compile."""
        names, own = zip(*module_tensors(module).items(), strict=True)
        structure: list[Any] = []

        def flat(*inputs: Tensor) -> list[Tensor]:
            outputs, spec = pytree.tree_flatten(
                call(inputs[len(own) :], dict(zip(names, inputs[: len(own)], strict=True)))
            )
            structure[:] = [spec]
            return outputs

        inputs = [*own, *tensors]
        flat(*_copies(inputs))  # what modules keep from their first call on must not become part of the graph
        graph = make_fx(flat, decomposition_table=_CHEAPER)(*_copies(inputs))
        shapes = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)  # without it, nothing is cached
        for node, tensor in zip(graph.graph.find_nodes(op="placeholder"), inputs, strict=True):
            node.meta = {"val": shapes.from_tensor(tensor)}
        code = self.compile(graph, inputs)
        return lambda given: pytree.tree_unflatten(code(*own, *given), structure[0])

    def compile(self, graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        """The traced graph as code. Raises RuntimeError if the code computes something else."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            on_cpu = inputs[0].device.type == "cpu"
            # elsewhere a buffer must not be used again in place: with it torch 2.11 returned overwritten misreports
            options = {"cpp_wrapper": on_cpu, "inplace_buffers": on_cpu}
            with torch.no_grad():  # the graph has the derivatives; autograd around it is a tenth of a step at (a)
                code: Callable[..., Any] = torch._inductor.compile(copy.deepcopy(graph), [*inputs], options=options)
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not together:  # a process that fails would leave the others waiting
            check_same(effect(lambda: code(*inputs), inputs), effect(lambda: graph(*inputs), inputs))
        return torch.no_grad()(code)


class Effect(NamedTuple):
    """What a call returns, and what it adds to each of some tensors (a single 0: nothing)."""

    returned: list[Tensor]
    changes: list[Tensor]


@torch.no_grad()
def effect(call: Callable[[], Iterable[Tensor]], own: list[Tensor]) -> Effect:
    """Of a call that may change `own`, which end as they were."""
    with unchanged(own) as before:
        returned = [tensor.clone() for tensor in call()]
        return Effect(returned, [_change(*pair) for pair in zip(own, before, strict=True)])


@contextmanager
def unchanged(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Whatever happens inside, the tensors end as they were. Yields copies of them."""
    before = _copies(tensors)
    try:
        yield before
    finally:
        with torch.no_grad():
            for tensor, saved in zip(tensors, before, strict=True):
                tensor.copy_(saved)


def check_same(found: Effect, right: Effect) -> None:
    """Raise RuntimeError where a call does something else than it should: compilers have bugs.

    Rounding decides between reports that gain the same, and what is left of a trained network's gradient may be all
    rounding: what is returned may be off by half of its norm, and so may half of the changes; others by more.
    """
    returned, changes = (
        [_distance(*pair) for pair in zip(*parts, strict=True)] for parts in zip(found, right, strict=True)
    )
    moved = [distance for distance in changes if distance > 0]
    if max(returned, default=0.0) > 0.5 or (moved and statistics.median(moved) > 0.5):
        raise RuntimeError("what was compiled computes something else")


def _copies(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _change(after: Tensor, before: Tensor) -> Tensor:
    return before.new_zeros(()) if torch.equal(after, before) else after.double() - before.double()


def _distance(one: Tensor, other: Tensor) -> float:
    """Norm of the difference, as a share of the second's norm."""
    one, other = one.double().nan_to_num(), other.double().nan_to_num()
    return float((one - other).norm() / (other.norm() + 1e-7 * other.numel() ** 0.5))


class CudaGraph(Prepared):
    """Compiled, then captured: a step is one launch."""

    name = "cuda_graph"
    WARM_UP = 3

    def make(self, call: Callable[..., Any], module: nn.Module, tensors: list[Tensor]) -> Callable[[list[Tensor]], Any]:
        """Compile, warm up on a stream of its own, capture, check. The module's tensors end as they were."""
        own = list(module_tensors(module).values())
        if not torch.cuda.is_available() or own[0].device.type != "cuda":
            raise RuntimeError("there is no CUDA device" if not torch.cuda.is_available() else "the run is on the CPU")
        inputs = _copies(tensors)
        compiled = Compiled().make(call, module, inputs)
        with unchanged(own):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(self.WARM_UP):
                    compiled(inputs)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                outputs = compiled(inputs)

        def replay(given: list[Tensor], read: Any = compiled) -> Any:
            """`read` keeps the constants in the code, which a graph reads and does not keep."""
            for tensor, fresh in zip(inputs, given, strict=True):
                tensor.copy_(fresh, non_blocking=True)
            graph.replay()
            return outputs

        def leaves(once: Callable[[list[Tensor]], Any]) -> list[Tensor]:
            return [leaf for leaf in pytree.tree_leaves(once(tensors)) if isinstance(leaf, Tensor)]

        check_same(effect(lambda: leaves(replay), own), effect(lambda: leaves(compiled), own))
        return replay


class Auto(Engine):
    """Decides by the length of the run and the hardware, never by a clock.

    On a GPU `cuda_graph`. On a CPU `compiled` where it saves more than it costs (a compilation takes half a minute, a
    compiled iteration a third of an eager one's time) and there is a C++ compiler; else `eager`.
    """

    name = "auto"
    WORTH_COMPILING = 90.0
    """Seconds of eager training."""

    def ready(self, function: Callable[..., Any], module: nn.Module, *arguments: Any) -> Callable[[], Any]:
        """It executes nothing itself."""
        raise NotImplementedError("resolve first")

    def resolve(self, device: torch.device, eager_seconds: float) -> Engine:
        """The engine to use. Warns if only a missing compiler is in the way of a faster one."""
        if device.type == "cuda":
            return CudaGraph()
        if eager_seconds < self.WORTH_COMPILING:
            return Eager()
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            warnings.warn(f"engine: eager, because there is no C++ compiler ({compiler}) to compile with", stacklevel=2)
            return Eager()
        return Compiled()


def device_for(accelerator: str) -> torch.device:
    """The device that `trainer.accelerator` asks for. Raises UserError where it is not there."""
    there = torch.cuda.is_available()
    if accelerator not in ("cpu", "gpu", "auto"):
        raise UserError(f"trainer.accelerator must be cpu, gpu or auto, got {accelerator!r}")
    if accelerator == "gpu" and not there:
        raise UserError(f"trainer.accelerator=gpu: torch {torch.__version__} finds no CUDA device here")
    return torch.device("cuda" if there and accelerator != "cpu" else "cpu")


ENGINES: dict[str, type[Engine]] = {kind.name: kind for kind in (Eager, Compiled, CudaGraph)}
"""Those that execute something, by name."""


class Call(nn.Module):
    """A function of a module, as a module, so that its tensors can be replaced for a call."""

    def __init__(self, function: Callable[..., Any], module: nn.Module) -> None:
        super().__init__()
        self.function, self.module = function, module

    def forward(self, *arguments: Any) -> Any:
        return self.function(self.module, *arguments)


def call_with(function: Callable[..., Any], module: nn.Module, tensors: dict[str, Tensor], *arguments: Any) -> Any:
    """`function(module, *arguments)` with `tensors` in place of the module's own."""
    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    given = {f"module.{name}": t.detach().requires_grad_() if name in trainable else t for name, t in tensors.items()}
    return functional_call(Call(function, module), given, arguments)


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _kind(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


def _rational_tanh(t: Tensor) -> Any:
    """Tanh in float32 to a few units in the last place, as a ratio of polynomials: a third of the library's time.

    Coefficients as in Eigen and XLA; other precisions use the library's.
    """
    if t.dtype != torch.float32:
        return NotImplemented
    t = t.clamp(-7.90531110763549805, 7.90531110763549805)
    square = t * t
    above, below = torch.full_like(t, _TANH_ABOVE[0]), torch.full_like(t, _TANH_BELOW[0])
    for coefficient in _TANH_ABOVE[1:]:
        above = above * square + coefficient
    for coefficient in _TANH_BELOW[1:]:
        below = below * square + coefficient
    return t * above / below


_TANH_ABOVE = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_BELOW = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def _affine(bias: Tensor, left: Tensor, right: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    """Let the bias be added by whatever comes next, not by the product."""
    assert beta == alpha == 1
    return left @ right + bias


def _small_products(left: Tensor, right: Tensor) -> Any:
    """Many products of matrices with hardly any rows or columns, as in attention, as sums that fuse with the rest."""
    rows, columns = left.shape[-2:]
    if sorted((rows, columns, right.shape[-1]))[1] > _SMALL:
        return NotImplemented
    return (left.unsqueeze(-1) * right.unsqueeze(-3)).sum(-2)


def _narrow_product(left: Tensor, right: Tensor) -> Any:
    """With few columns the transposed product, which the CPU's library computes up to four times as fast."""
    if right.shape[-1] > _SMALL or left.shape[0] <= _SMALL or left.device.type != "cpu":
        return NotImplemented
    return (right.mT @ left.mT).mT


_SMALL = 16
"""Few columns; of small products the second largest of a product's three sizes, at most."""

_CHEAPER: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.tanh.default: _rational_tanh,
    torch.ops.aten.mm.default: _narrow_product,
    torch.ops.aten.addmm.default: _affine,
    torch.ops.aten.bmm.default: _small_products,
}
