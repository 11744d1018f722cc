"""Make the W&B page of a project: a workspace to watch runs in, and a report to share.

python dashboard.py                                 of project truthful; needs a W&B key
python dashboard.py --project mine --entity team
python dashboard.py --group table1                  only the runs of one sweep
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from truthful.errors import UserError

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces

WARNING = (
    "Compare revenue at equal regret only. Regret is what a named search found: a lower bound. What training's own "
    "search found says little; `held_out` and `audit` are audits, on profiles that nothing was trained on."
)
COLUMNS = ("audit/revenue", "audit/regret", "audit/regret_ratio", "audit/exploitation", "audit/discounted_revenue")
"""Beside a run's name and tags in the table of runs."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Build and save; a mistake of the user is one sentence on stderr and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="dashboard.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--project", default="truthful", help="of the runs (truthful)")
    parser.add_argument("--entity", help="who owns it (you)")
    parser.add_argument("--group", help="only runs of this sweep, or group")
    options = parser.parse_args(arguments)
    try:
        for url in save(options.project, options.entity, options.group):
            sys.stdout.write(f"{url}\n")
    except UserError as error:
        sys.stderr.write(f"dashboard.py: {error}\n")
        raise SystemExit(1) from None


def save(project: str, entity: str | None, group: str | None) -> list[str]:
    """Save a new workspace and a new report; where they are."""
    try:
        import wandb
        import wandb_workspaces  # noqa: F401
    except ImportError as error:
        raise UserError(f"this needs the package {error.name}: pip install -r requirements-extra.txt") from None
    try:
        owner = entity or str(wandb.Api().default_entity)
        return [build(project, owner, group).save().url for build in (workspace, report)]
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise UserError(f"W&B refused: {' '.join(str(error).split())}") from error


def sections() -> dict[str, list[reports.PanelTypes]]:
    """Panels by heading, the most telling first."""
    import wandb_workspaces.reports.v2 as wr

    def over_time(title: str, *metrics: str, log: bool = False) -> wr.LinePlot:
        return wr.LinePlot(title=title, x="iteration", y=list(metrics), log_y=log)

    def against(x: str, y: str, log: bool = False) -> wr.ScatterPlot:
        return wr.ScatterPlot(title=f"{y} against {x}", x=wr.SummaryMetric(x), y=wr.SummaryMetric(y), log_x=log)

    return {
        "What they earn, and at what regret": [
            against("audit/regret", "audit/revenue", log=True),
            against("budget/ratio", "audit/revenue", log=True),
            wr.BarPlot(title="revenue left after discounts", metrics=["audit/discounted_revenue"]),
            wr.BarPlot(title="regret audited / seen in training", metrics=["audit/exploitation"]),
        ],
        "Is the search being exploited?": [
            over_time("regret: seen in training, audited", "regret", "held_out/regret", log=True),
            over_time("audited / seen in training", "held_out/exploitation", log=True),
            over_time("revenue: in training, audited", "revenue", "held_out/revenue"),
            over_time("both in one", "held_out/discounted_revenue"),
        ],
        "The price of regret": [
            over_time("multiplier and R_max", "multiplier", "rmax", log=True),
            over_time("(sum of regret)/revenue and R_max", "regret_ratio", "audited_ratio", "rmax", log=True),
            over_time("learning rate", "learning_rate"),
            over_time("gradient norm", "gradient_norm", log=True),
        ],
        "Who gets what, over time": [
            wr.MediaBrowser(title="allocation", media_keys=["allocation"], gallery_axis="step"),
            wr.MediaBrowser(title="where lies pay", media_keys=["regret_map"], gallery_axis="run"),
            wr.MediaBrowser(title="how much they pay", media_keys=["regret_tail"], gallery_axis="run"),
            wr.MediaBrowser(title="what more search finds", media_keys=["regret_found"], gallery_axis="run"),
        ],
        "Audits": [wr.WeavePanelSummaryTable(table_name=name) for name in ("audit/table", "audit/flags")],
    }


def workspace(project: str, entity: str, group: str | None) -> workspaces.Workspace:
    """The page to watch runs on."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    headed = [ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections().items()]
    headed[0].panels.insert(0, wr.MarkdownPanel(markdown=WARNING))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"truthful {group}" if group else "truthful",
        sections=headed,
        settings=ws.WorkspaceSettings(x_axis="iteration", max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=_filter(group),
            pinned_columns=["run:displayName", "run:tags", *(f"summary:{name}" for name in COLUMNS)],
        ),
    )


def report(project: str, entity: str, group: str | None) -> reports.Report:
    """The page to share."""
    import wandb_workspaces.reports.v2 as wr

    runs = wr.Runset(entity=entity, project=project, filters=_filter(group))
    blocks: list[wr.BlockTypes] = [wr.P(text=WARNING)]
    for name, panels in sections().items():
        blocks += [wr.H2(text=name), wr.PanelGrid(runsets=[runs], panels=panels)]
    title = f"Learned auctions: {group}" if group else "Learned auctions"
    return wr.Report(entity=entity, project=project, title=title, blocks=blocks, width="fluid")


def _filter(group: str | None) -> str:
    return f"Group = {group!r}" if group else ""


if __name__ == "__main__":
    main()
