"""How fast is one training iteration, against a textbook rendering of it and against its bare matrix products?

python -m benchmarks.step                                     settings a, c, e; both methods; one thread; batch 128
python -m benchmarks.step --threads 1 2 --batch 128 1024 --card step.json
python -m benchmarks.step --grow                              how cost grows with bidders, items, depth, steps
python -m benchmarks.step --setting a --method local --population 4 16
python -m benchmarks.step --compare results/step.json         beside an earlier run
python -m benchmarks.step --engine cuda_graph --device cuda   on a GPU

Needs torch only. All that is compared alternates in one run, round by round; a ratio is the median over rounds of the
ratio within a round, so that a machine that is busy for a while slows both sides.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.textbook import Textbook
from truthful.duals import Budget
from truthful.engine import ENGINES, Eager, Engine
from truthful.iteration import Iteration
from truthful.mechanisms import RegretNet
from truthful.population import Population
from truthful.regret import AdamStep, GradientAscent, RandomStart, SearchedRegret, TruthfulStart
from truthful.results import provenance, read_json, write_json
from truthful.settings import UniformBox

SHAPES = {"a": (2, 2, 2, "additive"), "b": (2, 5, 2, "additive"), "c": (3, 10, 5, "additive"), "e": (2, 2, 2, "unit")}
"""Bidders, items, hidden layers, demand."""
METHODS = {"local": (1, 0.05), "standard": (25, 0.1)}
"""Steps of the misreport search and their length."""
PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)


class Case:
    """One iteration to be timed: a shape, a method, a batch."""

    def __init__(
        self, bidders: int, items: int, depth: int, demand: str, steps: int, length: float, batch: int, device: str
    ) -> None:
        self.setting = UniformBox(bidders, items, 0.0, 1.0, demand)
        self.depth, self.steps, self.length, self.batch, self.device = depth, steps, length, batch, device
        self.values = self.setting.sample(batch, torch.Generator().manual_seed(0)).to(device)

    def network(self, seed: int = 0) -> RegretNet:
        """The same one every time."""
        mechanism = RegretNet(
            **self.setting.shape, depth=self.depth, width=100, activation=nn.Tanh(), unit_demand_scores=2
        )
        mechanism.initialise(torch.Generator().manual_seed(seed))
        return mechanism.to(self.device)

    def parts(self, seed: int) -> tuple[RegretNet, SearchedRegret, Budget, torch.optim.Adam]:
        """Network, mode, dual and optimiser of one member."""
        mechanism, local = self.network(seed), self.steps == 1
        mode = SearchedRegret(
            GradientAscent(self.steps, AdamStep(self.length)),
            TruthfulStart() if local else RandomStart(),
            not local,
            local,
            False,
        )
        mode.prepare(self.setting, self.values, torch.Generator().manual_seed(1))
        dual = Budget(self.setting.n_bidders, 0.1, 10.0).to(self.device)
        adam = torch.optim.Adam(mechanism.parameters(), lr=1e-3, eps=1e-7, fused=True)
        return mechanism, mode.to(self.device), dual, adam

    def iteration(self, engine: Engine) -> Callable[[], Any]:
        """Our iteration with an engine."""
        mechanism, mode, dual, adam = self.parts(0)
        fuse = not isinstance(engine, Eager)
        steps = Iteration(mechanism, self.setting, mode, dual, adam, None, engine, fuse)
        controls = steps.controls([1e-3], [1e-2], 0)[0]
        rows, generator = slice(0, self.batch), torch.Generator()
        return lambda: steps.step(self.values, rows, generator, controls, 1e-3, 1)

    def population(self, engine: Engine, size: int) -> Callable[[], Any]:
        """An iteration of several members together."""
        mechanisms, modes, duals, adams = zip(*(self.parts(seed) for seed in range(size)), strict=True)
        steps = Population(mechanisms, self.setting, modes, duals, adams, None, engine)
        controls = steps.controls([[1e-3]] * size, [[1e-2]] * size, 0)[0]
        batches, generators = [(self.values, slice(0, self.batch))] * size, [torch.Generator()] * size
        return lambda: steps.step(batches, generators, controls, 1)

    def textbook(self) -> Callable[[], Any]:
        """The literature's rendering. Its step is on the CPU."""
        reference, start = Textbook(self.network(), self.steps, self.length), self.values.clone()
        return lambda: reference.step(self.values, start)

    def products(self) -> tuple[Callable[[], Any], float]:
        """The matrix products of our iteration alone, into memory that is there already; and their operations."""
        once = self.iteration(Eager())
        with _Products() as seen:
            once()
        operands = [tuple(_like(entry) for entry in pair) for pair in seen.pairs]
        outputs = [left @ right for left, right in operands]
        operations = sum(2 * left.numel() * right.shape[-1] for left, right in operands)

        def multiply() -> None:
            for (left, right), output in zip(operands, outputs, strict=True):
                torch.matmul(left, right, out=output)

        return multiply, operations


class _Products(TorchDispatchMode):
    """Writes down the operands of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[list[Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS:
            self.pairs.append(list(args[-2:]))
        return func(*args, **(kwargs or {}))


def _like(tensor: Tensor) -> Tensor:
    """Random numbers in the same layout."""
    copy = torch.empty_strided(tensor.shape, tensor.stride(), device=tensor.device)
    return copy.copy_(torch.randn(tensor.shape))


def measure(case: Case, engines: list[str], populations: list[int], rounds: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of the products, the textbook step, each engine, and populations of the last one; and ratios."""
    floor, operations = case.products()
    competitors = {"products": floor}
    if case.device == "cpu":
        competitors["textbook"] = case.textbook()
    compile_seconds = {}
    for name in engines:
        engine = ENGINES[name]()
        competitors[name] = case.iteration(engine)
        competitors[name]()
        compile_seconds[name] = engine.compile_seconds
        for size in populations if name == engines[-1] else ():
            engine = ENGINES[name]()
            competitors[f"{size} at once"] = case.population(engine, size)
            competitors[f"{size} at once"]()
            compile_seconds[f"{size} at once"] = engine.compile_seconds
    times: dict[str, list[float]] = {name: [] for name in competitors}
    repeats = {name: max(1, int(seconds / _once(call, case.device, 3))) for name, call in competitors.items()}
    for _ in range(rounds):
        for name, call in competitors.items():
            times[name].append(_once(call, case.device, repeats[name]))

    def ratio(name: str, reference: str) -> float:
        return statistics.median(a / b for a, b in zip(times[name], times[reference], strict=True))

    return {
        "mflop": operations / 1e6,
        "milliseconds": {name: statistics.median(entries) * 1e3 for name, entries in times.items()},
        "to_products": {name: ratio(name, "products") for name in times if name != "products"},
        "textbook_to": {name: ratio("textbook", name) for name in engines} if "textbook" in times else {},
        "to_single_runs": {f"{p} at once": ratio(f"{p} at once", engines[-1]) / p for p in populations},
        "compile_seconds": compile_seconds,
    }


def _once(call: Callable[[], Any], device: str, repeats: int) -> float:
    """Seconds a call, the mean over some in a row."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronise(device)
    return (time.perf_counter() - start) / repeats


def synchronise(device: str) -> None:
    """Wait for a GPU."""
    if device != "cpu":
        torch.cuda.synchronize()


def cases(options: argparse.Namespace) -> dict[str, Case]:
    """By name."""
    if not options.grow:
        return {
            f"{setting} {method} batch {batch}": Case(*SHAPES[setting], *METHODS[method], batch, options.device)
            for setting in options.setting
            for method in options.method
            for batch in options.batch
        }
    bidders = {f"{n} bidders": Case(n, 2, 2, "additive", 1, 0.05, 128, options.device) for n in (1, 2, 4, 8)}
    items = {f"{m} items": Case(2, m, 2, "additive", 1, 0.05, 128, options.device) for m in (2, 5, 10, 20)}
    depths = {f"{k} hidden layers": Case(2, 2, k, "additive", 1, 0.05, 128, options.device) for k in (2, 4, 8)}
    steps = {f"{k} steps": Case(2, 2, 2, "additive", k, 0.05, 128, options.device) for k in (1, 2, 5, 25)}
    return bidders | items | depths | steps


def show(name: str, threads: int, found: dict[str, Any], earlier: dict[str, Any] | None) -> None:
    """One line a competitor."""
    print(f"{name}, {threads} thread{'s' if threads > 1 else ''}: {found['mflop']:.0f} MFLOP of matrix products")
    for competitor, milliseconds in found["milliseconds"].items():
        line = f"  {competitor:10s} {milliseconds:8.3f} ms"
        if competitor in found["to_products"]:
            line += f"  {found['to_products'][competitor]:6.2f} x the products"
        if competitor in found["textbook_to"]:
            line += f"  textbook {found['textbook_to'][competitor]:5.2f} x as long"
        if competitor in found["to_single_runs"]:
            line += f"  {found['to_single_runs'][competitor]:5.2f} x as many single runs"
        if found["compile_seconds"].get(competitor):
            line += f"  (ready after {found['compile_seconds'][competitor]:.1f} s)"
        if earlier and competitor in earlier["to_products"] and competitor in found["to_products"]:
            line += f"  earlier {earlier['to_products'][competitor]:.2f} x the products"
        print(line, flush=True)


def main() -> None:
    """Measure, print, write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", nargs="+", default=["a", "c", "e"], choices=SHAPES)
    parser.add_argument("--method", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--engine", nargs="+", default=["eager", "compiled"], choices=ENGINES)
    parser.add_argument("--batch", nargs="+", type=int, default=[128])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--grow", action="store_true", help="bidders, items, depth and steps instead of settings")
    parser.add_argument("--population", nargs="+", type=int, default=[], help="members trained together")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each competitor in each round")
    parser.add_argument("--card", type=Path, help="write the numbers here")
    parser.add_argument("--compare", type=Path, help="a card of an earlier run")
    options = parser.parse_args()
    earlier = read_json(options.compare)["cases"] if options.compare else {}
    card: dict[str, Any] = {**provenance(), "cases": {}}
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name, case in cases(options).items():
            key = f"{name}, threads {threads}"
            card["cases"][key] = found = measure(
                case, options.engine, options.population, options.rounds, options.seconds
            )
            show(name, threads, found, earlier.get(key))
            if options.card:
                write_json(options.card, card)


if __name__ == "__main__":
    main()
