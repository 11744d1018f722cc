"""Hydra finds its sweepers here: one of which the same command does what is left of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class ResumableSweeper(Sweeper):
    """The grid of Hydra's own sweeper, with any launcher; what `truthful.app.Sweep` says of jobs is done.

    Args:
        params: sweeps of keys, as in Hydra's own; the command line overrides them.
        max_batch_size: jobs that the launcher gets at once; None: all.
    """

    def __init__(self, params: dict[str, str] | None, max_batch_size: int | None) -> None:
        self.params, self.max_batch_size = params or {}, max_batch_size

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra tells what is swept."""
        self.loader, self.config = hydra_context.config_loader, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Do what is left; a UserError at the end names the jobs that failed or were not finished."""
        from truthful.app.composing import Composer
        from truthful.app.sweeping import Sweep

        grid = [f"{key}={entry}" for key, entry in self.params.items()] + arguments
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(grid)
        (points,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        sweep = Sweep(Path(str(self.config.hydra.sweep.dir)), points, Composer(self.loader, self.config))
        left = sweep.begin(retry=self.config.retry)
        OmegaConf.save(self.config, sweep.folder / "multirun.yaml")
        returns: list[JobReturn] = []
        with sweep.launched(in_turn=self.config.hydra.launcher._target_.endswith(".BasicLauncher")):
            for batch in BasicSweeper.split_overrides_to_chunks(left, self.max_batch_size) if left else ():
                returns += self.launcher.launch(batch, initial_job_idx=len(returns))
        return returns


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="resumable",
    node={
        "_target_": f"{ResumableSweeper.__module__}.{ResumableSweeper.__name__}",
        "params": None,
        "max_batch_size": None,
    },
)
