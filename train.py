"""Learn a revenue-maximising auction, audit it, and say how truthful it is.

python train.py setting=c regret=local            train, audit, log
python train.py setting=a setting.n_bidders=4     any number of bidders and items
python train.py experiment=released_local_d       a whole published recipe
python train.py resume=outputs/<run>              continue an interrupted run
python train.py -m setting=a,b regret=standard,local   a sweep
python train.py sweep=table1                      a sweep by name; again: goes on with it
python evaluate.py run=outputs/<run>              audit it again
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from truthful.app import (
    INTERRUPTED,
    Run,
    alone_in,
    answer_mistakes,
    audited_budget,
    build,
    build_constraints,
    build_mechanism,
    check_keys,
    describe_choices,
    multirun_name,
    open_run,
    run_script,
    save_configuration,
    stop,
    whole_number,
)
from truthful.ceilings import find_bound
from truthful.errors import UserError
from truthful.results import (
    CHECKPOINT,
    JOURNAL,
    ORIGIN,
    RESULT,
    budget_summary,
    config_hash,
    exploitation,
    method_hash,
    provenance,
    read_json,
    recipe_hash,
    train_summary,
    write_json,
)
from truthful.series import MetricsFile

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger
    from rich.console import Console

    from truthful.loop import TrainingLoop
    from truthful.population_training import PopulationModule
    from truthful.training import AuctionModule

CONF = Path(__file__).resolve().parent / "conf"
BOUNDS = Path(__file__).resolve().parent / "results" / "bounds"
VARIABLE = ("rmax.start", "rmax.end", "optimizer.lr", "dual.rate", "dual.multiplier")
"""Keys that the members of a population may differ in, beside the seed."""
TRAIN_ALONG = "--train-along"
"""The only argument of the other processes of a run with several devices."""


@answer_mistakes
def train(composed: DictConfig) -> None:
    """Compose, build, fit, audit, write result.json."""
    check_keys(composed, CONF, "config")
    with alone_in(Path(HydraConfig.get().runtime.output_dir)):
        train_run(composed, open_run(composed))


def train_run(composed: DictConfig, run: Run) -> None:
    """What is left to do of a run, in its folder."""
    if (run.folder / RESULT).exists():
        if not run.started or read_json(run.folder / RESULT).get("config_hash") != run.hash:
            raise UserError(f"{run.shown_folder / RESULT} belongs to another configuration; choose another folder")
        sys.stdout.write(f"{run.shown_folder} is complete, see {run.shown_folder / RESULT}\n")
        return
    run.config["trainer"].setdefault("devices", 1)  # runs from before it have none
    for key, least in (("iterations", 1), ("batch", 1), ("depth", 1), ("seed", 0), ("population", 1)):
        whole_number(run.config, key, least)

    from rich.console import Console

    from truthful import checkpoints, logging
    from truthful.console import show_choices
    from truthful.training import AuctionModule

    console = Console()
    members = member_runs(run)
    module = build_module(run.config, console) if members == [run] else build_population(members, console)
    done, engine = 0, None
    if run.started and (run.folder / CHECKPOINT).exists():
        saved = load_checkpoint(run)
        done, engine = saved["completed"], saved["engine"]
    set_engine(module, run.config, engine, console)
    result = describe_run(run)
    first = module.members[0]
    show_choices(console, result, first.setting, facts(run, module, result["threads"], done))
    recipe = run.config["recipe"]
    if recipe["note"] and first.dual.uses_budget and run.config["rmax"].get("start") == recipe["rmax_start"]:
        console.print(f"warning: {recipe['note']}", style="yellow")
    trainer = build_trainer(run, module, console, result)
    metrics = MetricsFile(run.folder, [identify(member) for member in members], done)
    trainer.loggers = loggers = [logging.MetricsLogger(metrics), *build_loggers(run, result)]
    with logging.recorded(loggers):
        for line in filter(None, map(logging.where_to_look, loggers)):
            console.print(line, soft_wrap=True)
        if not run.started:
            save_configuration(run, composed)
        if done < module.iterations:
            fit(run, module, trainer, console, resume=done > 0)
        checkpoint = checkpoints.load(run.folder / CHECKPOINT)
        if isinstance(module, AuctionModule):
            checkpoints.restore_mechanism(module.mechanism, checkpoint)
            checkpoints.restore_constraints(module.constraints, checkpoint)
            finish(run, module, checkpoint, result, loggers, console)
        else:
            module.restore(checkpoint)
            finish_population(run, members, module, result, loggers, console)


def build_module(config: dict[str, Any], console: Console) -> AuctionModule:
    """All objects of a run, wired. Whatever does not fit is a UserError; warnings are shown."""
    from truthful.auditing import check_audit
    from truthful.processes import check_divisible
    from truthful.streams import Stream
    from truthful.training import AuctionModule

    trainer = config["trainer"]
    least = {"devices": 1, "log_every": 1, "checkpoint_every": 1, "audit_every": 0, "audit_samples": 2}
    for key in least:
        whole_number(trainer, key, least[key], group="trainer")
    limit = trainer["exploitation"]
    if limit is not None and not (type(limit) in (int, float) and limit > 0):
        raise UserError(f"trainer.exploitation must be a positive number or null, got {limit!r}")
    setting = build(config, "setting")
    mechanism = build_mechanism(config, setting)
    if not list(mechanism.parameters()):
        raise UserError(f"{type(mechanism).__name__} has nothing to train; audit it with evaluate.py")
    parts = {name: build(config, name) for name in ("regret", "rmax", "optimizer", "lr_schedule", "data")}
    parts["dual"] = build(config, "dual", n_bidders=setting.n_bidders)
    parts["constraints"] = build_constraints(config, setting)
    try:
        check_audit(**config["audit"])
        with shown_warnings(console):
            module = AuctionModule(
                mechanism=mechanism,
                setting=setting,
                **parts,
                **{key: config[key] for key in ("iterations", "batch", "seed")},
                **{key: trainer[key] for key in ("clip_norm", "log_every")},
            )
        check_divisible(module, trainer["devices"], trainer["accelerator"])
        for stream in (Stream.HELD_OUT, Stream.AUDIT):
            setting.part(stream)  # of observed valuations it may be empty: now, not after training
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    return module


def member_runs(run: Run) -> list[Run]:
    """The runs that a population consists of: those of its seeds alone, in folders of their own.

    Member k has the seed seed + k and the k-th entry of each list in `vary`.
    """
    size, vary = run.config["population"], run.config["vary"] or {}
    if not isinstance(vary, dict):
        raise UserError(f"vary must map keys to lists, such as vary={{rmax.end:[1e-4,2e-4]}}, got {vary!r}")
    if size == 1 and not vary:
        return [run]
    members = []
    for k in range(size):
        config = copy.deepcopy(run.config) | {"population": 1, "vary": None, "seed": run.config["seed"] + k}
        for key, entries in vary.items():
            if not isinstance(entries, list) or len(entries) != size:
                raise UserError(f"vary.{key} must be a list of {size} entries, one a member, got {entries!r}")
            node, _, name = key.rpartition(".")
            target = config.get(node, {})
            if key not in VARIABLE or name not in target:
                possible = [other for other in VARIABLE if other.rpartition(".")[2] in config[other.rpartition(".")[0]]]
                raise UserError(f"vary cannot vary {key}; it can vary {', '.join(possible)}")
            target[name] = entries[k]
        folder = run.folder / f"member_{config['seed']}"
        members.append(replace(run, folder=folder, config=config, hash=config_hash(config)))
    return members


def build_population(members: list[Run], console: Console) -> PopulationModule:
    """All members, wired."""
    from truthful.population_training import PopulationModule

    if members[0].config["trainer"]["devices"] != 1:
        raise UserError(
            "trainer.devices shares the batches of one network, and a population has several: use one of them"
        )
    modules = [build_module(member.config, console) for member in members]
    try:
        return PopulationModule(modules)
    except ValueError as error:
        raise UserError(str(error)) from error


def set_engine(module: TrainingLoop, config: dict[str, Any], saved: dict[str, Any] | None, console: Console) -> None:
    """Choose the engine; a run that goes on on its device goes on with the engine and threads that it began with."""
    import torch

    from truthful.engine import ENGINES, device_for

    device = device_for(config["trainer"]["accelerator"])
    if saved is None or saved.get("device", "cpu") != device.type:
        seconds = module.eager_seconds / config["trainer"]["devices"]
        with shown_warnings(console):
            module.engine = build(config, "engine").resolve(device, seconds)
    else:
        module.engine = ENGINES[saved["name"]]()
        torch.set_num_threads(saved["threads"])


@contextmanager
def shown_warnings(console: Console, module: str = "") -> Iterator[None]:
    """Show warnings (of a module, or all) as lines of their own, as they come."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module=module)
        as_usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, UserWarning):
                console.print(f"warning: {message}", style="yellow", soft_wrap=True)
            else:
                as_usual(message, category, *where, **more)

        warnings.showwarning = show
        yield


def load_checkpoint(run: Run) -> dict[str, Any]:
    """The run's checkpoint, or a UserError saying why it cannot be used."""
    from truthful import checkpoints

    checkpoint = checkpoints.load(run.folder / CHECKPOINT)
    if checkpoint["run"]["config_hash"] != run.hash:
        raise UserError(f"the checkpoint in {run.shown_folder} belongs to another configuration")
    return checkpoint


def build_loggers(run: Run, result: dict[str, Any]) -> list[Logger]:
    """The loggers that the configuration asks for; they are told what `result` says before training."""
    from truthful.logging import RunInfo

    if not isinstance(run.config["tags"], list):
        raise UserError(f"tags must be a list such as tags=[first,second], got {run.config['tags']!r}")
    short = {key: run.choices[key] for key in ("setting", "regret", "mechanism", "dual", "rmax")}
    numbers = {key: run.config[key] for key in ("iterations", "batch", "seed", "depth")}
    facts = {key: result[key] for key in ("config_hash", *ORIGIN)}
    info = RunInfo(
        folder=run.folder,
        name=run.folder.name,
        identifier=run.identifier,
        job="train",
        tags=[run.choices["setting"], run.choices["regret"], *run.config["tags"]],
        group=run.config["group"] or multirun_name(),
        config={**short, **numbers, **facts, "cfg": run.config},
    )
    return [build(run.config["logger"], name, run=info) for name in run.config["logger"]]


def build_trainer(run: Run, module: TrainingLoop, console: Console, result: dict[str, Any]) -> Trainer:
    """Lightning's Trainer with our callbacks, and no loggers yet. Checkpoints keep the origin that `result` tells."""
    from truthful.callbacks import Checkpoints, LogMetrics, PeriodicAudit, ShowProgress
    from truthful.engine import device_for
    from truthful.processes import together

    options = run.config["trainer"]
    often, samples, limit = (options[key] for key in ("audit_every", "audit_samples", "exploitation"))
    audits = PeriodicAudit(often, samples, module.members[0].seed, run.folder, limit)
    origin = {key: result[key] for key in ORIGIN}
    identity = {"config": run.config, "choices": run.choices, "config_hash": run.hash, "origin": origin}
    progress = [ShowProgress(console, audits)] if options["progress"] else []
    callbacks = [LogMetrics(), audits, *progress, Checkpoints(run.folder, options["checkpoint_every"], identity)]
    return bare_trainer(device_for(options["accelerator"]).type, together(options["devices"]), callbacks)


def bare_trainer(accelerator: str, processes: dict[str, Any], callbacks: list[Callback]) -> Trainer:
    """Lightning's Trainer with nothing but these callbacks."""
    import lightning

    quieten_lightning()
    return lightning.Trainer(
        accelerator=accelerator,
        **processes,
        max_epochs=-1,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def fit(run: Run, module: TrainingLoop, trainer: Trainer, console: Console, resume: bool) -> None:
    """Train to the end, from the checkpoint if there is one."""
    from truthful.callbacks import TrainingInterrupted
    from truthful.loop import TrainingDiverged
    from truthful.processes import ProcessLost, helped

    checkpoint = str(run.folder / CHECKPOINT) if resume else None
    command = [sys.executable, str(Path(__file__).resolve()), TRAIN_ALONG]
    task = {"config": run.config, "engine": module.timings()["engine"], "checkpoint": checkpoint}
    try:
        with shown_warnings(console, "truthful"), helped(trainer, command, task):
            trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
        if module.interrupted:  # during the last training step, which is saved
            raise TrainingInterrupted(f"interrupted after iteration {module.iteration}, the last")
    except TrainingInterrupted as interruption:
        stop(f"{interruption}; continue with: python train.py resume={run.shown_folder}", code=INTERRUPTED)
    except (TrainingDiverged, ProcessLost) as error:
        last = f"the last good checkpoint is {run.shown_folder / CHECKPOINT}"
        saved = last if (run.folder / CHECKPOINT).exists() else "no checkpoint had been saved yet"
        raise UserError(f"{error}; {saved}") from error


def train_along() -> None:
    """Be one of the other processes of a run, whose first process has started this one (`truthful.processes`)."""
    import contextlib

    from rich.console import Console

    from truthful.loop import TrainingDiverged
    from truthful.processes import receive_task, say_ready, together

    task = receive_task()
    module = build_module(task["config"], Console(quiet=True))
    set_engine(module, task["config"], task["engine"], Console(quiet=True))
    trainer = bare_trainer("cpu", together(task["count"], task["rank"], task["port"]), [])
    say_ready()
    with contextlib.suppress(TrainingDiverged):  # which the first process tells
        trainer.fit(module, ckpt_path=task["checkpoint"], weights_only=True)


def finish(
    run: Run,
    module: AuctionModule,
    checkpoint: dict[str, Any],
    result: dict[str, Any],
    loggers: list[Logger],
    console: Console,
) -> None:
    """Audit what was saved, write result.json, show and log it."""
    from truthful import logging
    from truthful.audit_plots import save_pictures
    from truthful.auditing import audit, audit_constraints
    from truthful.console import show_audit_progress, show_result
    from truthful.engine import device_for

    bound = find_bound(BOUNDS, run.config["setting"])
    for part in (module.mechanism, module.constraint):
        part.to(device_for(run.config["trainer"]["accelerator"]))  # Lightning has put the module on the CPU
    with show_audit_progress(console) as progress:
        report = audit(
            module.mechanism,
            module.setting,
            **run.config["audit"],
            bound=None if bound is None else bound["limit"],
            journal=run.folder / JOURNAL,
            progress=progress,
        )
    violations = audit_constraints(module.mechanism, module.constraints, report.instances.values)
    module.cpu()
    train, audited = train_summary(checkpoint), report.as_dict()
    result |= {
        "train": train,
        "audit": audited,
        "exploitation": exploitation(report.regret_sum, train["regret_sum"]),
        "budget": budget_summary(audited_budget(run.config), audited),
        "constraints": violations,
        "optimal_revenue": module.setting.optimal_revenue,
        "bound": bound,
        "observed": module.setting.observed,
        "exact_revenue": module.mechanism.exact_revenue(module.setting),
    }
    report.save_misreports(run.folder / "misreports.npz")
    pictures = save_pictures(report, module.mechanism, module.setting, run.folder)
    write_json(run.folder / RESULT, result)  # last: it makes the run complete
    (run.folder / JOURNAL).unlink(missing_ok=True)
    logging.log_audit(loggers, result, pictures, module.iterations)
    show_result(console, result, module.setting.optimal_revenue)
    console.print(f"trained in {result['train']['seconds']:.0f} s, audited in {report.seconds:.0f} s", soft_wrap=True)
    console.print(f"everything is in {run.shown_folder}: {RESULT}, {CHECKPOINT}", soft_wrap=True)
    console.print(f"audit again: python evaluate.py run={run.shown_folder} audit.seed=1", soft_wrap=True)


def finish_population(
    run: Run,
    members: list[Run],
    module: PopulationModule,
    result: dict[str, Any],
    loggers: list[Logger],
    console: Console,
) -> None:
    """Finish every member in its own folder, then write a result.json that lists them."""
    import torch
    from rich.console import Console

    from truthful import checkpoints, logging
    from truthful.console import show_members

    listed: list[dict[str, Any]] = []
    for member, own in zip(members, module.members, strict=True):
        if own.seed in module.failed:
            listed.append({"seed": own.seed, "folder": member.folder.name, "failed": module.failed[own.seed]})
            continue
        if (member.folder / RESULT).exists():
            own_result = read_json(member.folder / RESULT)
        else:
            own_result = describe_run(member)
            identity = {"config": member.config, "choices": member.choices, "config_hash": member.hash}
            origin = {key: own_result[key] for key in ORIGIN}
            checkpoint = module.member_checkpoint(own) | {"run": identity | {"origin": origin}}
            checkpoints.save(member.folder / CHECKPOINT, lambda path, saved=checkpoint: torch.save(saved, path))
            finish(member, own, checkpoint, own_result, [], Console(quiet=True))
        audited = {
            key: own_result["audit"][key] for key in ("revenue", "revenue_se", "regret", "regret_se", "regret_sum")
        }
        listed.append({"seed": own.seed, "folder": member.folder.name, "config_hash": member.hash, **audited})
    write_json(run.folder / RESULT, result | {"population": len(members), "members": listed})
    show_members(console, listed, f"setting {result['setting']}, audit={run.config['audit']['tier']}")
    console.print(f"everything is in {run.shown_folder}/member_<seed>", soft_wrap=True)
    for entry in listed:
        numbers = {f"audit/member_{entry['seed']}/{key}": entry[key] for key in ("revenue", "regret") if key in entry}
        logging.log_metrics(loggers, numbers, module.iteration)
    if module.failed:
        failed = "; ".join(f"seed {seed}: {reason}" for seed, reason in module.failed.items())
        raise UserError(f"{len(module.failed)} of {len(members)} members diverged and were given up: {failed}")


def identify(run: Run) -> dict[str, Any]:
    """What was chosen, and the hashes by which results are put together."""
    return {
        **describe_choices(run.config, run.choices, CONF),
        "config_hash": run.hash,
        "recipe_hash": recipe_hash(run.config),
        "method_hash": method_hash(run.config),
    }


def describe_run(run: Run) -> dict[str, Any]:
    """What result.json says that is known before training."""
    from truthful.console import published_dict

    identity = identify(run)
    return {**identity, **provenance(), "published": published_dict(identity)}


def facts(run: Run, module: TrainingLoop, threads: int, done: int) -> dict[str, str]:
    """The composed choices in words."""
    from truthful.engine import Prepared

    config, choices = run.config, run.choices
    chosen = {name: f"{choices[name]} ({arguments(config[name])})" for name in ("regret", "mechanism", "dual")}
    first = module.members[0]
    if first.regret.needs_theorem:
        chosen["regret"] = f"{choices['regret']}: truthful by construction ({first.mechanism.theorem})"
        del chosen["dual"]
    elif first.dual.uses_budget:
        chosen["rmax"] = f"{choices['rmax']} ({arguments(config['rmax'])})"
    return {
        **chosen,
        "constraints": "; ".join(constraint_line(run, first, name) for name in first.constraints),
        "optimizer": f"{choices['optimizer']} ({arguments(config['optimizer'])}), {choices['lr_schedule']} rate",
        "data": f"{choices['data']} ({arguments(config['data'])})",
        "training": f"{module.iterations} iterations of {first.batch} profiles, seed {first.seed}"
        + (f" to {module.members[-1].seed}, {len(module.members)} networks at once" if len(module.members) > 1 else "")
        + (f", differing in {vary}" if (vary := config["vary"]) else "")
        + (f", continued after iteration {done}" if done else ""),
        "audit": arguments(config["audit"]),
        "engine": f"{module.engine.name}, {threads} thread{'s' if threads > 1 else ''}"
        + (f" in each of {devices} processes" if (devices := config["trainer"]["devices"]) > 1 else "")
        + (", starts after a minute or two of compilation" if isinstance(module.engine, Prepared) else ""),
        "folder": str(run.shown_folder),
    }


def constraint_line(run: Run, module: AuctionModule, name: str) -> str:
    """A constraint's arguments, and what it has learned."""
    learned = "".join(f", {key} {number:.3g}" for key, number in module.constraints[name].learned.items())
    return f"{name} ({arguments(run.config['constraint'][name])}{learned})"


def arguments(node: dict[str, Any]) -> str:
    """The arguments of a config node in one line."""
    shown = []
    for key, entry in node.items():
        if isinstance(entry, dict):
            inner = arguments(entry)
            shown.append(f"{key} {entry.get('_target_', '').rpartition('.')[2]}{f' ({inner})' if inner else ''}")
        elif not key.startswith("_"):
            shown.append(f"{key} {entry:g}" if isinstance(entry, float) else f"{key} {entry}")
    return ", ".join(shown)


def quieten_lightning() -> None:
    """Lightning's own lines say nothing about this program; Hydra would print them twice."""
    import logging

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def main(config: DictConfig) -> None:
    """Hydra's entry."""
    train(config)


if __name__ == "__main__" and sys.argv[1:] == [TRAIN_ALONG]:
    train_along()
elif __name__ == "__main__":
    run_script(main, CONF, "config", usage=__doc__)
