"""What a person sees before and after training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from truthful.auditing import FLAGS
from truthful.auditing.proving import round_up
from truthful.ceilings import rounded_up
from truthful.published import published_row
from truthful.results import method_name
from truthful.settings import Setting

WHERE_BOUNDS = "Where values are independent and have densities `python bounds.py` finds one (docs/bounds.md)."
SECONDS_BETWEEN_LINES = 10.0
"""Where the output is no terminal, a line so often stands in for a progress bar."""
SPLIT = ", {auctions} auctions of {file}: {train} to train on, {held_out} held out, {audit} to audit"
"""Where observed valuations come from."""


def show_choices(console: Console, result: dict[str, Any], setting: Setting, facts: dict[str, str]) -> None:
    """The composed choices, before anything starts.

    Args:
        console: where to show them.
        result: the part of the result that is known before training.
        setting: the setting.
        facts: further lines.
    """
    overridden = ", overridden" if result["setting_overridden"] else ""
    lines = {
        "setting": f"{result['setting']}{overridden}: {describe(setting)}",
        **facts,
    }
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, line in lines.items():
        if line:
            grid.add_row(name, line)
    console.print(grid)


def show_setting(console: Console, head: dict[str, Any], setting: Setting) -> None:
    """What a card is about, in one line."""
    overridden = ", overridden" if head["setting_overridden"] else ""
    console.print(f"{head['setting']}{overridden}: {describe(setting)}", soft_wrap=True)


def describe(setting: Setting) -> str:
    """A setting in one line."""
    bidders = "bidder" if setting.n_bidders == 1 else "bidders"
    items = "item" if setting.n_items == 1 else "items"
    return (
        f"{setting.n_bidders} {bidders} x {setting.n_items} {items}, {setting.demand} demand, {setting.describe()}"
        f"{f', {setting.features} public numbers a bidder' if setting.features else ''}"
        f"{'' if setting.convex_support else ', support not convex'}"
        f"{'' if setting.observed is None else SPLIT.format(**setting.observed)}"
    )


def show_result(console: Console, result: dict[str, Any], optimum: float | None) -> None:
    """Revenue and audited regret beside the published row and the optimum.

    The published row is shown only where the setting is the published one.
    """
    audit, row = result["audit"], result["published"]
    ratio = audit["regret_ratio"]
    exact = result.get("exact_revenue")
    ours = {
        "revenue": f"{audit['revenue']:.4f} ± {audit['revenue_se']:.4f}",
        **({} if exact is None else {"revenue, exact": f"{exact:.6f}"}),
        "regret": f"{audit['regret']:.5f} ± {audit['regret_se']:.5f}",
        "regret_sum": f"{audit['regret_sum']:.5f}",
        "regret_sum / revenue": "-" if ratio is None else f"{ratio:.5f}",
        "regret, 95th percentile": f"{audit['regret_p95']:.5f}",
        "regret, 99th percentile": f"{audit['regret_p99']:.5f}",
        "regret, maximum": f"{audit['regret_max']:.5f}",
        "share of regrets above .001": f"{audit['regret_share_above']:.4f}",
    }
    if result.get("exploitation") is not None:
        ours["times the regret_sum that training saw"] = f"{result['exploitation']:.1f}"
    proven = (audit["certificate"] or {}).get("all_reports")
    if proven:
        ours["regret, certified"] = f"{proven['regret_lower']:.5f} to {round_up(proven['regret_upper'])}"
        ours["maximum, certified"] = f"{proven['max_lower']:.5f} to {round_up(proven['max_upper'])}"
    for name, label in (
        ("best_response_revenue", "revenue, best responses (exactly truthful)"),
        ("revenue_under_misreports", "revenue under the found misreports"),
    ):
        if audit[name] is not None:
            ours[label] = f"{audit[name]:.4f} ± {audit[f'{name}_se']:.4f}"
    columns = {method_name(result): ours}
    if row is not None:
        published = {"revenue": f"{row['revenue']:.4f}", "regret": f"{row['regret']:.5f}"}
        columns["published"] = published
    bound = None if result["bound"] is None else result["bound"]["limit"]
    if bound is not None and optimum is None:
        columns["any truthful auction"] = {"revenue": f"≤ {rounded_up(bound)}", "regret": "0"}
    if optimum is not None:
        zeros = {name: "0" for name in ours if "regret" in name and "times" not in name}
        columns["optimum, exact"] = zeros | {"revenue": f"{optimum:.4f}"}
    table = Table(title=f"setting {result['setting']}{' (overridden)' if result['setting_overridden'] else ''}")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name in ours:
        table.add_row(name, *(cells.get(name, "") for cells in columns.values()))
    console.print(table)
    observed = audit["observations"]
    profiles = "profiles" if observed is None else f"of {observed} observed auctions"
    console.print(
        f"regret: mean over bidders, {audit['samples']} {profiles}; a lower bound, audit={audit['tier']}: "
        f"{audit['search']}.",
        style="dim",
    )
    if audit["revenue_samples"] != audit["samples"]:
        own = "profiles of its own" if observed is None else profiles
        console.print(f"revenue: {audit['revenue_samples']} {own}.", style="dim")
    if optimum is None:
        console.print(
            f"bound on truthful auctions: {result['bound']['method']}, docs/bounds.md."
            if bound is not None
            else f"no bound on truthful auctions is known here. {WHERE_BOUNDS}",
            style="dim",
        )
    if budget := result.get("budget"):
        low, high = budget["ci"]
        console.print(
            f"budget on audited regret: {'met' if budget['met'] else 'not met'}, ratio {budget['ratio']:.5f} (95 %: "
            f"{low:.5f} to {high:.5f}) where R_max is {budget['target']:g}",
            style="green" if budget["met"] else "bold red",
            soft_wrap=True,
        )
    for name, found in result.get("constraints", {}).items():
        show_constraint(console, name, found)
    if audit["certificate"]:
        show_certificate(console, audit["certificate"])
    for flag in audit["flags"]:
        console.print(f"flag {flag}: {FLAGS[flag]}", style="bold red", soft_wrap=True)


def show_constraint(console: Console, name: str, found: dict[str, Any]) -> None:
    """Whether an auction keeps a constraint, in one line."""
    console.print(
        f"constraint {name}: {'met' if found['met'] else 'not met'}, violation {found['violation']:.5f} ± "
        f"{found['violation_se']:.5f} where {found['tolerance']:g} is tolerated (95th percentile "
        f"{found['violation_p95']:.5f}, maximum {found['violation_max']:.5f}), multiplier {found['multiplier']:.3g}",
        style="green" if found["met"] else "bold red",
        soft_wrap=True,
    )


def show_members(console: Console, members: list[dict[str, Any]], title: str) -> None:
    """Audited numbers of each member of a population, and their mean with its standard error over members."""
    table = Table(title=title)
    for column in ("seed", "revenue", "regret", "regret_sum"):
        table.add_column(column, justify="right")
    done = [member for member in members if "regret" in member]
    for member in members:
        if "failed" in member:
            table.add_row(str(member["seed"]), "diverged", "", "")
            continue
        table.add_row(
            str(member["seed"]),
            f"{member['revenue']:.4f} ± {member['revenue_se']:.4f}",
            f"{member['regret']:.5f} ± {member['regret_se']:.5f}",
            f"{member['regret_sum']:.5f}",
        )
    if len(done) > 1:
        means = [
            f"{fmean(m[key] for m in done):{form}} ± {stdev(m[key] for m in done) / len(done) ** 0.5:{form}}"
            for key, form in (("revenue", ".4f"), ("regret", ".5f"), ("regret_sum", ".5f"))
        ]
        table.add_section()
        table.add_row("mean", *means)
    console.print(table)
    console.print(
        "All members are audited on the same profiles: the error of each is the profiles', that of the mean the "
        "spread over members alone. Regrets are lower bounds.",
        style="dim",
    )


def show_baselines(console: Console, card: dict[str, Any]) -> None:
    """A card of `baselines.py` as a table, the highest revenue first."""
    optimum, bound = card["optimum"], card["upper_bound"]
    ceiling = optimum["revenue"] if optimum else bound["limit"] if bound else None
    table = Table(title=f"setting {card['setting']}{' (overridden)' if card['setting_overridden'] else ''}")
    table.add_column("auction")
    for column in ("revenue", "of the optimum" if optimum else "of the bound", "exact", "regret"):
        table.add_column(column, justify="right")
    if optimum:
        table.add_row(f"optimum ({optimum['source']})", f"{optimum['revenue']:.5f}", "100.0 %", "yes", "0")
    if bound:
        share = f"{bound['limit'] / ceiling:.1%}".replace("%", " %")
        table.add_row(f"upper bound ({bound['method']})", f"≤ {rounded_up(bound['limit'])}", share, "", "0")
    truthful = True
    table.add_section()
    for auction in sorted(card["auctions"], key=lambda one: (not one["strategyproof"], -one["controlled"])):
        if truthful and not auction["strategyproof"]:
            truthful = False
            table.add_section()
        known, error, audit = auction["exact"] is not None, auction["controlled_se"], auction["audit"]
        revenue = f"{auction['controlled']:.5f}" + ("" if known else f" ± {error:.5f}")
        share = "-" if not ceiling else f"{auction['controlled'] / ceiling:.1%}".replace("%", " %")
        if auction["strategyproof"]:
            regret = "0"
        else:
            regret = f"≥ {audit['regret']:.5f} ({audit['tier']})" if audit else "not truthful"
        table.add_row(auction["name"], revenue, share, "yes" if known else "", regret)
    console.print(table)
    console.print(
        f"Revenue of truthful bids: exact, or a mean over {card['samples']:,} profiles, the same for all, corrected by "
        "what the exact ones are off on them, ± one standard error. Regret 0 is a theorem; others are lower bounds, "
        "mean over bidders.",
        style="dim",
    )
    if not ceiling:
        console.print(f"Neither an optimum nor a bound is known here. {WHERE_BOUNDS}", style="dim")
    if card["refused"]:
        console.print(f"not for this setting: {', '.join(card['refused'])}", style="dim")


def show_certificate(console: Console, certificate: dict[str, Any]) -> None:
    """What the certificate says, in words."""
    console.print(f"certificate: {certificate['statement']}", style="dim")
    proven, small, every = (certificate[part] for part in ("all_reports", "small_lies", "all_values"))
    if proven:
        console.print(
            f"{proven['closed']} of {proven['instances']} instances closed (upper - lower <= "
            f"{certificate['eps']:.2g}), {proven['open']} open; {certificate['population']['statement']}",
            style="dim",
        )
    if every:
        console.print(
            f"all values: {every['statement']}, and one has {every['max_lower']:.5g} ({every['closed']} of "
            f"{every['instances']} closed)",
            style="dim",
        )
    if small:
        console.print(
            f"lies within {small['radius']:g} of the box from the truth: {small['closed']} of {small['instances']} "
            f"instances closed, regret at most {round_up(small['max_upper'])}",
            style="dim",
        )


@contextmanager
def show_audit_progress(console: Console) -> Iterator[Callable[[str, float], None]]:
    """A bar with the time left for each part of an audit, or a line now and then where the output is no terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    tasks: dict[str, TaskID] = {}
    begun: dict[str, float] = {}
    last_line = time.monotonic()

    def tell(part: str, share: float) -> None:
        nonlocal last_line
        now = time.monotonic()
        if part not in tasks:
            tasks[part], begun[part] = bar.add_task(part, total=1.0), now
        bar.update(tasks[part], completed=share)
        if not console.is_terminal and share > 0 and now - last_line >= SECONDS_BETWEEN_LINES:
            last_line, left = now, (now - begun[part]) * (1 - share) / share
            console.print(f"{part} {share:.0%}  {int(left // 60)}:{int(left % 60):02d} left", soft_wrap=True)

    with bar:
        yield tell


def published_dict(description: dict[str, Any]) -> dict[str, Any] | None:
    """The published row for what `description` (the head of a result) says, or None where there is none."""
    if description["setting_overridden"] or description["regret_mode"] is None:
        return None
    row = published_row(description["setting"], description["regret_mode"])
    return None if row is None else asdict(row)
