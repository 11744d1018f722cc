"""Constraints: what they are, that training keeps them, and that nothing changes where there are none."""

import csv
import itertools
import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import CONF, SMALL, Answer, network, result, same
from tests.test_engine import Traced
from tests.test_training import fit, make
from truthful.app import build_constraints, plain
from truthful.auction import Outcome
from truthful.auditing import audit_constraints
from truthful.callbacks import Checkpoints, TrainingInterrupted
from truthful.constraints import Constraint, Entropy, Preference, Quota, TotalVariation
from truthful.duals import Ascent
from truthful.engine import Eager, Engine
from truthful.errors import UserError
from truthful.population_training import PopulationModule
from truthful.schedules import ConstantBudget
from truthful.settings import UniformBox
from truthful.training import AuctionModule

SETTING = UniformBox(3, 3, 0.0, 1.0, "additive")
PAIR = UniformBox(2, 2, 0.0, 1.0, "additive")
PRICE = partial(Ascent, rate=0.05, multiplier=1.0)
D = [[0.0, 0.1, 0.2], [0.1, 0.0, 0.3], [0.2, 0.3, 0.0]]
CASES: dict[str, Callable[[], Constraint]] = {
    "total_variation": lambda: TotalVariation(SETTING, 0.01, PRICE, [[1, 3], [2]], D),
    "quota": lambda: Quota(SETTING, 0.01, PRICE, 0.3),
    "entropy": lambda: Entropy(SETTING, 0.01, PRICE, 0.95),
}


def written_out(name: str, x: Tensor) -> float:
    """The definition, for one allocation."""
    n, m = x.shape
    if name == "total_variation":
        excesses = [
            max(0.0, sum(abs(float(x[i, j] - x[i, k])) for i in members) - D[j][k])
            for members in ((0, 2), (1,))
            for j, k in itertools.combinations(range(m), 2)
        ]
        return sum(excesses)
    if name == "quota":
        return max(0.0, 0.3 - min(float(x[i, j] / x[:, j].sum()) for i in range(n) for j in range(m)))
    entropies = [-sum(float(x[i, j] / x[i].sum() * (x[i, j] / x[i].sum()).log()) for j in range(m)) for i in range(n)]
    return max(0.0, 0.95 - sum(entropies) / n / math.log(m))


def drawn(setting: UniformBox, *axes: int) -> Tensor:
    shares = torch.rand(*axes, setting.n_bidders + 1, setting.n_items, generator=torch.Generator().manual_seed(0))
    return (shares / shares.sum(-2, keepdim=True))[..., :-1, :].double()


@pytest.mark.parametrize("name", CASES)
def test_a_violation_is_its_definition_and_falls_along_its_gradient(name: str) -> None:
    constraint = CASES[name]().double()
    allocation = drawn(SETTING, 4, 5).requires_grad_()
    payment = allocation.sum(-1)
    violation = constraint(allocation, Outcome(allocation, payment))
    expected = [[written_out(name, one) for one in row] for row in allocation.detach()]
    assert torch.allclose(violation.detach(), torch.tensor(expected, dtype=torch.float64), atol=1e-6)
    assert bool((violation > 0).any())
    (gradient,) = torch.autograd.grad(violation.sum(), allocation)
    moved = allocation.detach() - 1e-4 * gradient
    assert float(constraint(moved, Outcome(moved, payment)).sum()) < float(violation.sum().detach())


def test_nothing_is_violated_where_all_get_the_same() -> None:
    allocation = torch.full((1, 3, 3), 1 / 3)
    nothing = torch.zeros(1, 3, 3)
    for case, x in itertools.product(CASES.values(), (allocation, nothing)):
        assert float(case()(x, Outcome(x, x.sum(-1)))) == pytest.approx(0, abs=1e-6)


def test_every_option_is_built_and_explained() -> None:
    text = (Path(CONF).parent / "docs" / "constraints.md").read_text()
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        names = sorted(path.stem for path in (CONF / "constraint").glob("*.yaml") if path.stem != "none")
        config = plain(compose("config", overrides=[f"constraint=[{','.join(names)}]"]))
    assert sorted(build_constraints(config, PAIR)) == names
    for name in names:
        assert f"`{name}`" in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tolerance": 0.0}, "tolerance must be a number above 0, got 0"),
        ({"classes": [[0, 1]]}, "classes must be null, or a list of lists of different bidders from 1 to 2"),
        ({"classes": [[1, 1]]}, "got \\[\\[1, 1\\]\\]"),
        ({"d": [[0.0, 1.0], [0.5, 0.0]]}, "d must be a number of at least 0, or a symmetric matrix"),
        ({"d": [[0.0] * 3] * 3}, "a row for each of the 2 items"),
        ({"d": -0.1}, "got -0.1"),
        ({"setting": UniformBox(2, 1, 0.0, 1.0, "additive")}, "total variation is between items, and there is only 1"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], sentence: str) -> None:
    right = {"setting": PAIR, "tolerance": 0.01, "dual": PRICE, "classes": None, "d": 0.0}
    TotalVariation(**right)
    with pytest.raises(ValueError, match=sentence):
        TotalVariation(**right | change)


def test_a_quota_is_at_most_an_equal_share() -> None:
    with pytest.raises(ValueError, match=r"least must be above 0 and at most 0.5, as there are 2 bidders, got 0.6"):
        Quota(PAIR, 0.01, PRICE, 0.6)


def trained(iterations: int, constraints: dict[str, Constraint], engine: Engine | None = None, **changes: Any) -> Any:
    module = make(iterations, constraints=constraints, mechanism=network(PAIR), **changes).double()
    module.data.sample = module.data.sample.double()
    module.engine = engine or Eager()
    return fit(module)


def several() -> dict[str, Constraint]:
    return {"total_variation": TotalVariation(PAIR, 0.01, PRICE, None, 0.0), "quota": Quota(PAIR, 0.01, PRICE, 0.2)}


def test_a_constraint_without_a_price_changes_nothing() -> None:
    free = {"total_variation": TotalVariation(PAIR, 0.01, partial(Ascent, rate=0.0, multiplier=0.0), None, 0.0)}
    alone, watched = trained(12, {}), trained(12, free)
    for name, state in alone.state_dict().items():
        assert torch.equal(state, watched.state_dict()[name]), name
    assert watched.metrics["constraint/total_variation"] > 0
    assert "constraint/total_variation" not in alone.metrics


def test_the_price_follows_the_rule_of_the_dual() -> None:
    module = make(1, constraints=several(), mechanism=network(PAIR))
    values = module.next_batch()[0]
    outcome = module.mechanism(values)
    before = {name: float(one(values, outcome).mean().detach()) for name, one in module.constraints.items()}
    fit(module)
    for name, violation in before.items():
        multiplier = 1 + 0.05 * min(violation / 0.01 - 1, 4)
        assert module.metrics[f"constraint/{name}"] == pytest.approx(violation, rel=1e-5)
        assert module.metrics[f"constraint/{name}_multiplier"] == pytest.approx(multiplier, rel=1e-5)


def test_a_constraint_is_kept_and_costs_revenue() -> None:
    """Equal allocations of both items: the bundle to one of two bidders, whose best auction earns .8392."""
    changes: dict[str, Any] = {
        "optimizer": partial(torch.optim.Adam, lr=5e-3, eps=1e-7),
        "rmax": ConstantBudget(1e-2),
        "batch": 64,
    }
    free = trained(250, {}, **changes)
    fair = trained(250, {"equal": TotalVariation(PAIR, 0.02, PRICE, None, 0.0)}, **changes)
    values = PAIR.sample(2000, torch.Generator().manual_seed(1)).double()
    judge = {"equal": TotalVariation(PAIR, 0.02, PRICE, None, 0.0)}
    (unfair,) = audit_constraints(free.mechanism, judge, values).values()
    (kept,) = audit_constraints(fair.mechanism, fair.constraints, values).values()
    assert not unfair["met"]
    assert kept["met"]
    assert kept["violation"] < 0.1 * unfair["violation"]
    assert 0 < kept["violation_se"] < kept["violation"] <= kept["violation_p95"] <= kept["violation_max"]
    revenue = [float(module.mechanism(values).payment.sum(-1).mean()) for module in (free, fair)]
    assert revenue[1] < revenue[0] - 0.01


def test_engines_agree_on_constraints() -> None:
    eager, traced = trained(6, several()), trained(6, several(), Traced())
    for name, state in eager.state_dict().items():
        assert torch.allclose(state, traced.state_dict()[name], rtol=0, atol=1e-9), name
    assert float(eager.constraints["quota"].dual.multiplier) != 1


def test_members_of_a_population_have_their_own_multipliers() -> None:
    def member(seed: int) -> AuctionModule:
        module = make(6, constraints=several(), mechanism=network(PAIR), seed=seed).double()
        module.data.sample = module.data.sample.double()
        return module

    population = fit(PopulationModule([member(0), member(1)]))
    for seed in range(2):
        twin = fit(member(seed)).state_dict()
        for name, state in population.members[seed].state_dict().items():
            assert torch.allclose(state, twin[name], rtol=0, atol=1e-9), name
    assert "member_1/constraint/quota" in population.metrics


def write_examples(path: Path, count: int = 400) -> None:
    """Accepted is what gives each bidder at least a third of what is sold."""
    allocation = drawn(PAIR, count)
    label = (allocation.sum(-1) / allocation.sum((-2, -1)).unsqueeze(-1)).amin(-1) > 1 / 3
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["x_1_1", "x_1_2", "x_2_1", "x_2_2", "label"])
        table.writerows([*map(float, x.flatten()), int(y)] for x, y in zip(allocation, label, strict=True))


def preference(file: Path, **changes: Any) -> Preference:
    numbers = {"least": 0.5, "width": 16, "steps": 300, "learning_rate": 1e-2, "weight_decay": 1e-2, "held_out": 0.25}
    return Preference(PAIR, 0.01, PRICE, **{"file": str(file), "sha256": None, "seed": 0, **numbers, **changes})


def test_a_preference_is_learned_from_examples_and_steers_training(tmp_path: Path) -> None:
    file = tmp_path / "examples.csv"
    write_examples(file)
    learned, again = preference(file), preference(file)
    learned.prepare()
    again.prepare()
    assert learned.learned["accuracy"] > max(0.93, learned.learned["majority"])
    assert all(torch.equal(state, again.state_dict()[name]) for name, state in learned.state_dict().items())
    fair, unfair = torch.full((2, 2), 0.5), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert float(learned(fair, Outcome(fair, fair.sum(-1)))) == 0
    assert float(learned(unfair, Outcome(unfair, unfair.sum(-1)))) > 1
    module = trained(100, {"preference": preference(file)}, optimizer=partial(torch.optim.Adam, lr=5e-3))
    assert module.metrics["constraint/preference"] < 0.1
    score = dict(module.constraints["preference"].score.named_parameters())
    for name, weight in learned.score.named_parameters():
        assert torch.equal(score[name].float(), weight), "the score is frozen"


def test_mistakes_in_examples_are_named(tmp_path: Path) -> None:
    file = tmp_path / "examples.csv"
    head = "x_1_1,x_1_2,x_2_1,x_2_2,label\n.5,.5,.5,.5,1\n"
    for text, sentence in (
        ("x_1_1,x_1_2,x_2_1,label\n", r"line 1: there is no column 'x_2_2'"),
        (head + ".5,.5,.6,.5,0\n", r"line 3: expected probabilities from 0 to 1, of each item at most 1"),
        (head + ".5,.5,.5,no,0\n", r"line 3: expected probabilities"),
        (head + ".5,.5,.5,.5,2\n", r"line 3: expected a label of 1 \(accepted\) or 0 \(not\), got 2"),
        (head, r"must have examples of both labels, got 1 accepted ones of 1"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            preference(file).prepare()
    with pytest.raises(ValueError, match="is not the file that was used before"):
        preference(file, sha256="0").prepare()
    write_examples(file, 40)
    rows = list(csv.reader(file.open()))[1:]
    numbers = torch.tensor([[float(cell) for cell in row] for row in rows])
    import numpy

    archive = tmp_path / "examples.npz"
    numpy.savez(archive, allocation=numbers[:, :4].reshape(-1, 2, 2).numpy(), label=numbers[:, 4].numpy())
    by_table, by_archive = preference(file), preference(archive)
    for one in (by_table, by_archive):
        one.prepare()
    assert torch.allclose(by_table.score[0].weight, by_archive.score[0].weight, atol=1e-5)
    file.write_text(head + "".join(f"{k / 10},0,0,0,{k % 2}\n" for k in range(10)))
    with pytest.warns(UserWarning, match="it has learned nothing"):
        preference(file, held_out=0.5, steps=1).prepare()


def test_a_run_with_constraints_resumes_exactly_and_reports_them(
    cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_examples(tmp_path / "examples.csv", 60)
    chosen = ("constraint=[preference,total_variation]", "constraint.preference.file=examples.csv")
    fast = ("constraint.preference.steps=20", "constraint.preference.width=4", "regret=local", "engine=eager")
    arguments = (*SMALL, *chosen, *fast, "iterations=20")
    saved = Checkpoints._save

    def save_and_stop(self: Checkpoints, trainer: Any, module: AuctionModule) -> None:
        saved(self, trainer, module)
        if module.iteration == 10:
            raise TrainingInterrupted("enough")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_save", save_and_stop)
        assert cli("train.py", *arguments, "hydra.run.dir=stopped").code == 130
    assert cli("train.py", *arguments, "hydra.run.dir=stopped", "resume=auto").code == 0
    whole = cli("train.py", *arguments, "hydra.run.dir=whole")
    assert whole.code == 0
    assert same(tmp_path / "whole", tmp_path / "stopped")
    found = result(tmp_path / "whole")["constraints"]
    assert found == result(tmp_path / "stopped")["constraints"]
    assert set(found) == {"preference", "total_variation"}
    assert {"violation", "violation_se", "tolerance", "met", "multiplier", "accuracy"} <= set(found["preference"])
    said = "met" if found["total_variation"]["met"] else "not met"
    assert f"constraint total_variation: {said}, violation 0." in whole.out
    assert "accuracy" in whole.out
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert any("constraint/total_variation_multiplier" in line for line in lines)
    assert lines[-1]["audit/constraint/total_variation"] == found["total_variation"]["violation"]

    (tmp_path / "examples.csv").unlink()  # the checkpoint has the score
    audited = cli("evaluate.py", "run=whole", "audit=fast", "audit.samples=8", "audit.seed=0")
    assert audited.code == 0, audited.err
    assert result(tmp_path / "evaluations" / "whole_audit-fast_audit.samples-8_audit.seed-0")["constraints"] == found
    shutil.rmtree(tmp_path / "stopped")
    import report

    report.main(["whole", "--columns", "method,constraint,total_variation_violation,preference_violation"])


def test_a_table_shows_violations(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import report

    card = json.loads((Path(CONF).parent / "results" / "table1" / "a-climbing-0.json").read_text())
    free = json.dumps(card)
    card["config"]["constraint"] = {"quota": {"least": 0.1}}
    card["constraints"] = {"quota": {"violation": 0.02, "tolerance": 0.01, "met": False}}
    card |= {"recipe_hash": "other", "method_hash": "other"}
    (tmp_path / "free.json").write_text(free)
    (tmp_path / "quota.json").write_text(json.dumps(card))
    report.main([str(tmp_path), "--format", "csv"])
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    rows = {row["constraint"]: row for row in table if row["constraint"]}
    assert rows["quota"]["quota_violation"] == "0.02"
    assert rows["none"]["quota_violation"] == ""
    report.main([str(tmp_path), "--format", "markdown"])
    assert "0.02000 (not met)" in capsys.readouterr().out


def test_a_checkpoint_must_fit(tmp_path: Path) -> None:
    from truthful import checkpoints

    with pytest.raises(UserError, match=r"the checkpoint does not fit constraint\.quota"):
        checkpoints.restore_constraints({"quota": Quota(PAIR, 0.01, PRICE, 0.2)}, {"state_dict": {}})
