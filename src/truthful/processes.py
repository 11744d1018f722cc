"""Several processes that train one network: Lightning's DDP, where the run's own process starts and ends the others.

That first process alone talks, audits and saves. The others train along and leave nothing behind; a pipe ties them to
it, so that none outlives it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any

import torch
from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment, find_free_network_port
from lightning.pytorch.strategies import DDPStrategy

from truthful.callbacks import TrainingInterrupted
from truthful.loop import TrainingDiverged
from truthful.regret import RegretMode
from truthful.training import AuctionModule

PATIENCE = 10.0
"""Seconds until a process that has broken the connection is gone."""


class ProcessLost(RuntimeError):
    """One of the other processes has ended before the training did."""


class Together(DDPStrategy):
    """Lightning's processes and their connection. What goes over it is said where it is computed (`Share`)."""

    def configure_ddp(self) -> None:
        """No wrapper: its hooks do not see our gradients, and it would send every buffer at every step."""

    def barrier(self, *arguments: Any, **options: Any) -> None:
        """Each iteration is one. So the first process can save while the others wait in the next."""


class Started(LightningEnvironment):
    """Processes of this machine that are there already."""

    creates_processes_externally = True

    def __init__(self, rank: int, port: int) -> None:
        super().__init__()
        self._rank, self._main_port = rank, port

    def local_rank(self) -> int:
        """This process's number."""
        return self._rank


def together(count: int, rank: int = 0, port: int | None = None) -> dict[str, Any]:
    """Arguments of Lightning's Trainer in one of `count` processes; the first chooses the port where they meet."""
    if count == 1:
        return {"devices": 1}
    strategy = Together(timeout=timedelta(days=1))  # the others wait while the first audits
    return {"devices": count, "strategy": strategy, "plugins": [Started(rank, port or find_free_network_port())]}


def check_divisible(module: AuctionModule, count: int, accelerator: str) -> None:
    """Raise ValueError where `count` processes cannot share a batch."""
    if count == 1:
        return
    if accelerator != "cpu":
        raise ValueError(f"trainer.devices={count} needs trainer.accelerator=cpu: several GPUs have not been tried")
    if module.batch % count:
        raise ValueError(f"batch must be a multiple of trainer.devices, got {module.batch} and {count}")
    for part in module.regret.modules():
        if isinstance(part, RegretMode) and not part.divisible:
            raise ValueError(f"{type(part).__name__} needs its whole batch in one process: use trainer.devices=1")


@dataclass(frozen=True)
class Helper:
    """One of the other processes."""

    name: str
    process: subprocess.Popen[str]
    said: IO[str]
    """Its standard error."""

    @classmethod
    def start(cls, command: Sequence[str], task: dict[str, Any], said: IO[str]) -> Helper:
        """Start it, and tell it the `task` on its standard input, which stays open while it is needed."""
        pipe = subprocess.PIPE
        alone = True  # Ctrl-C is for the first process, which ends the others
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said, text=True, start_new_session=alone)
        assert process.stdin is not None
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        return cls(f"process {task['rank'] + 1} of {task['count']}", process, said)

    def await_ready(self) -> None:
        """Wait until it is about to train. Raises ProcessLost if it ends instead."""
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise ProcessLost(self.why_ended())

    def why_ended(self) -> str | None:
        """Why it is no more, in one sentence; None if it works on or has ended in order."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return None
        if code < 0:
            return f"{self.name} was killed by signal {-code}"
        self.said.seek(0)
        last = self.said.read().strip().rpartition("\n")[2]
        return f"{self.name} ended: {last or f'exit code {code}'}" if code else None


@contextmanager
def helped(trainer: Trainer, command: Sequence[str], task: dict[str, Any]) -> Iterator[None]:
    """Have the trainer's other processes, started by `command`, do their `task`; end them however this ends.

    Raises ProcessLost if one ends before.
    """
    count, strategy = trainer.num_devices, trainer.strategy
    if count == 1:
        yield
        return
    assert isinstance(strategy, Together)
    assert isinstance(strategy.cluster_environment, Started)
    port = strategy.cluster_environment.main_port
    with ExitStack() as stack:
        helpers = []
        for rank in range(1, count):
            said = stack.enter_context(tempfile.TemporaryFile("w+"))
            helpers.append(Helper.start(command, {**task, "count": count, "rank": rank, "port": port}, said))
            stack.callback(helpers[-1].process.communicate)  # closes its standard input
        for helper in helpers:
            helper.await_ready()
        try:
            yield
        except (TrainingInterrupted, TrainingDiverged):
            raise
        except RuntimeError as error:  # a broken connection is nothing more special
            if lost := [reason for helper in helpers if (reason := helper.why_ended())]:
                raise ProcessLost("; ".join(lost)) from error
            raise
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()  # another run of this process has its own


def receive_task() -> dict[str, Any]:
    """What a helper is told to do. From now on it ends with the process that started it."""
    task: dict[str, Any] = json.loads(sys.stdin.readline())

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)  # until the pipe is closed
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    return task


def say_ready() -> None:
    """Tell the first process that this helper is about to train."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
