"""Where numbers go while a run is under way: Weights & Biases, a CSV file, or nowhere.

The only module that knows wandb, and it imports it only when it is used.
"""

from __future__ import annotations

import netrc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from truthful.auditing import FLAGS
from truthful.results import discounted_revenue
from truthful.series import MetricsFile

if TYPE_CHECKING:
    import wandb

FORMER_HOSTS = {"api.forge.coreweave.com": "api.wandb.ai"}
"""W&B has moved; keys under the name that a server had before are still good."""
HELPERS = ("iteration", "trainer/global_step")
"""Logged, but not worth a chart."""
SUMMARIES = {"iterations_per_second": "mean", "gradient_norm": "max", "held_out/exploitation": "max"}
"""What the table of runs has of a metric, where that is not its last entry. Never the smallest regret: before it has
learned to sell, an auction has none."""


@dataclass(frozen=True)
class RunInfo:
    """What a logger is told about the run."""

    folder: Path
    name: str
    identifier: str
    """The same for every session of one run, so that a resumed run goes on in the same place."""
    job: str
    """What is done: train or evaluate."""
    tags: Sequence[str]
    group: str | None
    """What runs are together: the name of their sweep, say."""
    config: dict[str, Any]
    """The short choices at the top level, the full configuration under `cfg`."""


class WandbRun(WandbLogger):
    """A run of Weights & Biases, and what audits of this session found."""

    def __init__(self, experiment: wandb.Run) -> None:
        super().__init__(experiment=experiment)
        self.audits: list[list[Any]] = []
        """One row an audit, as in PLANE."""


PLANE = ("profiles", "iteration", "regret", "revenue")
"""Columns of the table behind the revenue-regret plane."""


def wandb_logger(project: str, entity: str | None, mode: str, run: RunInfo) -> WandbRun:
    """A logger to Weights & Biases.

    Args:
        project, entity: where the run goes; an agent of a W&B sweep has decided that already.
        mode: `online`; `offline`; or `auto`, which is WANDB_MODE if that is set, online if there is a key, and
            offline otherwise.
        run: the run.

    Raises:
        ValueError: wandb is not installed, the mode is none of the three, or `online` without a key.
    """
    if mode not in ("auto", "online", "offline"):
        raise ValueError(f"logger.wandb.mode must be auto, online or offline, got {mode!r}")
    try:
        import wandb
    except ImportError:
        raise ValueError("logger=wandb needs the package wandb; install it, or use logger=csv or logger=none") from None
    key = _has_key()
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if key else "offline")
    if mode == "online" and not key:
        raise ValueError(
            "logger.wandb.mode=online needs a W&B key and none was found: run `wandb login`, set WANDB_API_KEY, or "
            "use logger.wandb.mode=offline"
        )
    place: dict[str, Any] = {"project": project, "entity": entity}
    place["id"] = os.environ.get("WANDB_RUN_ID", run.identifier)
    try:
        experiment = wandb.init(
            **({} if "WANDB_SWEEP_ID" in os.environ else place),
            mode=cast("Any", mode),
            dir=Path.cwd(),
            resume="allow" if mode == "online" else None,
            name=run.name,
            job_type=run.job,
            tags=list(run.tags),
            group=run.group,
            config=run.config,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
    except wandb.errors.Error as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"W&B could not start ({reason}); use logger.wandb.mode=offline or logger=csv") from error
    for helper in HELPERS:
        experiment.define_metric(helper, hidden=True)
    experiment.define_metric("*", step_metric="iteration")
    for name, summary in SUMMARIES.items():
        experiment.define_metric(name, step_metric="iteration", summary=summary)
    return WandbRun(experiment)


def csv_logger(run: RunInfo) -> CSVLogger:
    """A logger to metrics/version_<k>/metrics.csv in the run folder, one version for each session of the run."""
    return CSVLogger(run.folder, name="metrics", flush_logs_every_n_steps=1)


class MetricsLogger(Logger):
    """Keeps the metrics in the run folder, for learning curves of any run.

    Args:
        file: where.
    """

    name, version = "metrics", None

    def __init__(self, file: MetricsFile) -> None:
        super().__init__()
        self.file = file

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add an entry; the metrics have the iteration among them."""
        self.file.write(metrics, int(metrics["iteration"]))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """They are in .hydra/config.yaml."""


def where_to_look(logger: Logger) -> str | None:
    """One line on how to look at what a logger writes."""
    if isinstance(logger, CSVLogger):
        return f"metrics: {logger.log_dir}/metrics.csv"
    if isinstance(logger, WandbLogger):
        run = logger.experiment
        if run.offline:
            folder = _short(Path(run.settings.sync_dir))
            return f"W&B offline: look at it with `wandb leet`, upload it with `wandb sync {folder}`"
        return f"W&B: {run.url}" if run.url else None
    return None


def log_metrics(loggers: Sequence[Logger], metrics: dict[str, Any], iteration: int) -> None:
    """Send numbers to every logger."""
    for logger in loggers:
        logger.log_metrics({**metrics, "iteration": iteration}, step=iteration)


def log_image(loggers: Sequence[Logger], key: str, path: Path, iteration: int) -> None:
    """Send a picture to every logger that takes pictures."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            picture = wandb.Image(str(path), caption=f"iteration {iteration}")
            logger.experiment.log({key: picture, "iteration": iteration})


def log_table(loggers: Sequence[Logger], key: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Send a table to every logger that takes tables."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(key, columns=columns, data=rows)


def log_audited(loggers: Sequence[Logger], profiles: str, audit: dict[str, float], iteration: int) -> None:
    """Send an audit's numbers to every logger, and where it stands in the plane of revenue and regret.

    Args:
        loggers: where to.
        profiles: on which ones: `held_out` during training, `audit` after it. The numbers have this prefix.
        audit: its numbers by name, among them `revenue`, `regret` and `regret_sum`; `discounted_revenue` is added.
        iteration: how far training is.
    """
    numbers = {**audit, "discounted_revenue": discounted_revenue(audit["revenue"], audit["regret_sum"])}
    log_metrics(loggers, {f"{profiles}/{name}": number for name, number in numbers.items()}, iteration)
    for logger in loggers:
        if isinstance(logger, WandbRun):
            import wandb

            logger.audits.append([profiles, iteration, audit["regret"], audit["revenue"]])
            table = wandb.Table(columns=list(PLANE), data=list(logger.audits))
            chart = wandb.plot.scatter(table, "regret", "revenue", title="revenue against audited regret")
            logger.experiment.log({"audit/revenue_regret": chart, "iteration": iteration})


def log_audit(loggers: Sequence[Logger], result: dict[str, Any], pictures: dict[str, Path], iteration: int) -> None:
    """Send what the final audit says to every logger: numbers, a table of them, flags, pictures, the budget.

    Args:
        loggers: where to.
        result: what result.json says.
        pictures: by name.
        iteration: how far training is.
    """
    audit, budget = result["audit"], result.get("budget")
    numbers = {key: entry for key, entry in audit.items() if isinstance(entry, float)}
    if result.get("exploitation") is not None:
        numbers["exploitation"] = result["exploitation"]
    log_audited(loggers, "audit", numbers, iteration)
    log_table(loggers, "audit/table", list(numbers), [list(numbers.values())])
    log_table(loggers, "audit/flags", ["flag", "meaning"], [[flag, FLAGS[flag]] for flag in audit["flags"]])
    for name, path in pictures.items():
        log_image(loggers, name, path, iteration)
    log_constraints(loggers, result.get("constraints", {}), iteration)
    if budget is not None:
        facts = {f"budget/{name}": float(budget[name]) for name in ("target", "ratio", "met")}
        log_metrics(loggers, facts, iteration)
        if not budget["met"]:
            missed = f"the audited (sum of regret)/revenue is {budget['ratio']:.3g}, its budget {budget['target']:.3g}"
            alert(loggers, "budget missed", missed)


def log_constraints(loggers: Sequence[Logger], constraints: dict[str, dict[str, Any]], iteration: int) -> None:
    """Send what the final audit says of each constraint to every logger: `audit/constraint/<name>` is its violation."""
    numbers = {f"audit/constraint/{name}": found["violation"] for name, found in constraints.items()}
    numbers |= {f"audit/constraint/{name}_met": float(found["met"]) for name, found in constraints.items()}
    if numbers:
        log_metrics(loggers, numbers, iteration)
    for name, found in constraints.items():
        if not found["met"]:
            sentence = f"{name}: the violation is {found['violation']:.3g}, {found['tolerance']:.3g} is tolerated"
            alert(loggers, "constraint not met", sentence)


def alert(loggers: Sequence[Logger], title: str, sentence: str, level: str = "WARN") -> None:
    """Tell a person at once, by mail or Slack, if W&B is online and told to; offline it is kept with the run.

    Args:
        loggers: only W&B has alerts.
        title: less than 64 characters.
        sentence: what happened.
        level: INFO, WARN or ERROR.
    """
    for logger in loggers:
        if isinstance(logger, WandbRun):
            logger.experiment.alert(title, sentence, level)


@contextmanager
def recorded(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close every logger, however the run ends; W&B is told the exit code, so that what did not end well is failed.

    SIGTERM ends the run as an error would (in training, which takes it over, after an iteration): else nothing would be
    recorded. What is killed outright stays a run without an end.
    """

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    handles = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, leave) if handles else None
    code = 1
    try:
        yield
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        raise
    except Exception as error:
        alert(loggers, "run failed", str(error) or type(error).__name__, "ERROR")
        raise
    finally:
        for logger in loggers:
            logger.finalize("failed" if code else "success")
            if isinstance(logger, WandbRun):
                logger.experiment.finish(exit_code=code)
        if handles:
            signal.signal(signal.SIGTERM, before)


def _has_key() -> bool:
    """Whether wandb will find a key: in the environment, in its settings, or where `wandb login` puts it."""
    import wandb

    settings = wandb.setup().settings
    variables = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
    if any(os.environ.get(name) for name in variables) or settings.api_key:
        return True
    host = urlsplit(settings.base_url).netloc
    try:
        known = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return any(known.authenticators(name) is not None for name in (host, FORMER_HOSTS.get(host, host)))


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
