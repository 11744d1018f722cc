"""One job of a sweep, in whatever process its launcher runs it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from truthful.app.building import plain
from truthful.app.runs import shown
from truthful.errors import UserError, one_line
from truthful.results import config_hash
from truthful.sweeps import FAILED, record_failure

OUTPUT = "output.log"
"""In the folder of a job that does not run in turn: what it would show."""
LAUNCHER = "TRUTHFUL_LAUNCHER"
"""In the environment of jobs: the number of the process that launches them."""
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_TO_SAVE = 30.0


def run_job(task: Callable[[DictConfig], None], config: DictConfig) -> None:
    """Run a job of a multirun. Its failure is said, remembered in its folder, and raised.

    Jobs that do not run in turn write to output.log in their folders what they would show.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    with contextlib.ExitStack() as stack:
        if not HydraConfig.get().launcher._target_.endswith(".BasicLauncher"):
            log = stack.enter_context((folder / OUTPUT).open("a", buffering=1))
            stack.enter_context(contextlib.redirect_stdout(log))
            stack.enter_context(contextlib.redirect_stderr(log))
        (folder / FAILED).unlink(missing_ok=True)
        try:
            task(config)
        except Exception as error:
            sentence = one_line(error) or type(error).__name__
            record_failure(folder, config_hash(plain(config)), sentence)
            sys.stderr.write(f"{Path(sys.argv[0]).name}: {shown(folder)} failed: {sentence}\n")
            if not isinstance(error, UserError):
                sys.stderr.write(traceback.format_exc())
            raise UserError(sentence) from None  # this one can be sent from process to process


@cache
def end_with_launcher() -> None:
    """Have this process end, with a checkpoint, when the launcher that it is a worker of has been killed.

    Only where it is a child: what a cluster runs outlives the command that launched it.
    """
    launcher = os.getppid()
    if os.environ.get(LAUNCHER) != str(launcher):
        return

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        while True:  # the first is taken for Ctrl-C during training
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(SECONDS_TO_SAVE)

    threading.Thread(target=watch, daemon=True).start()
