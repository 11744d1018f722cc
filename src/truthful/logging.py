"""Where numbers go while a run is under way: Weights & Biases, a CSV file, or nowhere.

The only module that knows wandb, and it imports it only when it is used.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlparse

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from truthful.auditing import FLAGS
from truthful.series import MetricsFile


@dataclass(frozen=True)
class RunInfo:
    """What a logger is told about the run."""

    folder: Path
    name: str
    identifier: str
    """The same for every session of one run, so that a resumed run goes on in the same place."""
    tags: Sequence[str]
    group: str | None
    config: dict[str, Any]
    """The short choices at the top level, the full configuration under `cfg`."""


def wandb_logger(project: str, entity: str | None, mode: str, run: RunInfo) -> WandbLogger:
    """A logger to Weights & Biases.

    Args:
        project, entity: where the run goes.
        mode: `online`; `offline`; or `auto`, which is WANDB_MODE if that is set, online if there is a key, and
            offline otherwise.
        run: the run.

    Raises:
        ValueError: wandb is not installed, the mode is none of the three, or `online` without a key.
    """
    if mode not in ("auto", "online", "offline"):
        raise ValueError(f"logger.wandb.mode must be auto, online or offline, got {mode!r}")
    has_key = _has_key()
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if has_key else "offline")
    if mode == "online" and not has_key:
        raise ValueError(
            "logger.wandb.mode=online needs a W&B key and none was found: run `wandb login`, set WANDB_API_KEY, or "
            "use logger.wandb.mode=offline"
        )
    try:
        import wandb
    except ImportError:
        raise ValueError("logger=wandb needs the package wandb; install it, or use logger=csv or logger=none") from None
    try:
        experiment = wandb.init(
            project=project,
            entity=entity,
            mode=cast("Any", mode),
            dir=Path.cwd(),
            id=os.environ.get("WANDB_RUN_ID", run.identifier),
            resume="allow" if mode == "online" else None,
            name=run.name,
            tags=list(run.tags),
            group=run.group,
            config=run.config,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
    except wandb.errors.Error as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"W&B could not start ({reason}); use logger.wandb.mode=offline or logger=csv") from error
    experiment.define_metric("iteration")
    experiment.define_metric("*", step_metric="iteration")
    experiment.define_metric("revenue", step_metric="iteration", summary="last")
    return WandbLogger(experiment=experiment)


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

            logger.experiment.log({key: wandb.Image(str(path)), "iteration": iteration})


def log_table(loggers: Sequence[Logger], key: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Send a table to every logger that takes tables."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(key, columns=columns, data=rows)


def log_audit(loggers: Sequence[Logger], audit: dict[str, Any], pictures: dict[str, Path], iteration: int) -> None:
    """Send what an audit says to every logger: numbers under `audit/`, a table of them, pictures, flags.

    Args:
        loggers: where to.
        audit: the report as plain types.
        pictures: by name.
        iteration: how far training is.
    """
    numbers = {key: entry for key, entry in audit.items() if isinstance(entry, float)}
    log_metrics(loggers, {f"audit/{key}": entry for key, entry in numbers.items()}, iteration)
    log_table(loggers, "audit/table", list(numbers), [list(numbers.values())])
    log_table(loggers, "audit/flags", ["flag", "meaning"], [[flag, FLAGS[flag]] for flag in audit["flags"]])
    for name, path in pictures.items():
        log_image(loggers, name, path, iteration)


def finish(loggers: Sequence[Logger], failed: bool) -> None:
    """Close every logger; a run that failed shows as failed."""
    for logger in loggers:
        logger.finalize("failed" if failed else "success")
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=1 if failed else 0)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
