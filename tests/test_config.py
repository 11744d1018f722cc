"""Everything in conf/ composes, and the released recipes are what they are."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.conftest import CONF
from truthful.app import plain
from truthful.app.runs import evaluation_name, register_resolvers, run_folder, run_name, sweep_name
from truthful.results import config_hash, flatten, method_hash, recipe_hash

SETTINGS, REGRETS = "abcde", ("standard", "local", "local_persistent")
GROUPS = sorted(
    str(path.parent.relative_to(CONF)) + "=" + path.stem
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF and not {"recipe", "study"} & set(path.parts)
)


def composed(*overrides: str) -> dict[str, Any]:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose("config", overrides=list(overrides)))


@pytest.mark.parametrize("choice", GROUPS)
def test_every_option_composes(choice: str) -> None:
    group = choice.split("=")[0]
    if group == "bound":
        with initialize_config_dir(str(CONF), version_base="1.3"):
            instantiate(plain(compose("bounds", overrides=["setting=a", choice]))["bound"])
        return
    config = composed(choice, *(["regret=local"] if group == "regret/step" else []))
    for name in ("setting", "regret", "rmax", "optimizer", "lr_schedule", "data"):
        if group.split("/")[0] in (name, "experiment"):
            instantiate(config[name])
    assert config["trainer"]["log_every"] >= 1


# learning rate, depth, misreport step, steps, dual rate, multiplier, R_max start and end: reference, section 2
RELEASED = {
    ("standard", "abde"): (1e-3, 2, 0.1, 25, 0.5, 1, 0.01, 5e-4),
    ("standard", "c"): (1e-4, 5, 0.1, 25, 0.5, 1, 0.01, 5e-4),
    ("local", "abe"): (1e-3, 2, 0.05, 1, 0.1, 10, 0.01, 1e-4),
    ("local", "c"): (1e-3, 5, 0.05, 1, 0.1, 10, 0.01, 5e-4),
    ("local", "d"): (1e-4, 2, 0.05, 1, 0.5, 5, 0.01, 1e-4),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("regret", REGRETS)
def test_setting_and_regret_select_the_released_recipe(setting: str, regret: str) -> None:
    numbers = next(
        row for (mode, settings), row in RELEASED.items() if mode == regret.split("_")[0] and setting in settings
    )
    default = composed(f"setting={setting}", f"regret={regret}")
    released = composed(f"experiment=released_{regret}_{setting}")
    for config in (default, released):
        search = config["regret"]["search"]
        assert numbers == (
            config["optimizer"]["lr"],
            config["mechanism"]["depth"],
            search["step"]["length"],
            search["steps"],
            config["dual"]["rate"],
            config["dual"]["multiplier"],
            config["rmax"]["start"],
            config["rmax"]["end"],
        )
        assert config["mechanism"]["activation"]["_target_"] == "torch.nn.Tanh"
        assert config["lr_schedule"]["_target_"] == "truthful.schedules.ConstantRate"
        assert config["rmax"]["fraction"] == pytest.approx(2 / 3)
        assert config["regret"]["keep"] is (regret != "local")
        assert (config["batch"], config["data"]["samples"]) == (128, 640_000)
    assert released["iterations"] == 400_000
    assert {**released, "iterations": default["iterations"]} == default


def test_ours_is_one_recipe_but_for_budgets_and_the_larger_settings() -> None:
    """What README, reproduction.md (1, 4, 6, 8 to 11) and decision 7 say of it."""
    base = {key: value for key, value in flatten(composed()).items() if not key.startswith("setting.")}
    larger = {"regret.tries", "iterations", "data.samples", "rmax.end"}
    allowed = {"b": {"regret.tries"}, "c": larger, "d": {"rmax.end"}}
    for setting in SETTINGS:
        own = flatten(composed(f"setting={setting}"))
        found = {key for key in base if own[key] != base[key] and not key.startswith("recipe.")}
        assert found == allowed.get(setting, set()), setting
    assert (base["mechanism.depth"], base["optimizer.lr"]) == (6, 5e-3)


def test_a_recipe_may_differ_with_a_mechanism() -> None:
    for setting in SETTINGS:
        config = composed(f"setting={setting}", "mechanism=equivariantnet")
        assert (config["mechanism"]["depth"], config["optimizer"]["lr"]) == (3, 1e-2)
    assert composed("mechanism=equivariantnet", "regret=local")["optimizer"]["lr"] == 1e-3
    assert composed("mechanism=equivariantnet", "depth=5")["mechanism"]["depth"] == 5


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("regret", ["standard", "local"])
def test_printed_recipes_are_the_paper_s_text(setting: str, regret: str) -> None:
    config = composed(f"experiment=printed_{regret}_{setting}")
    assert config["depth"] == config["mechanism"]["depth"] == (6 if setting == "c" else 3)
    assert config["mechanism"]["activation"]["_target_"] == "torch.nn.ReLU"
    assert (config["optimizer"]["lr"], config["iterations"], config["mechanism"]["width"]) == (1e-3, 400_000, 100)


def test_any_part_can_be_overridden() -> None:
    config = composed("setting=c", "regret=local", "depth=3", "rmax=linear", "rmax.end=2e-3", "regret/step=gradient")
    assert config["mechanism"]["depth"] == 3
    assert config["rmax"]["_target_"].endswith("LinearBudget")
    assert config["rmax"]["end"] == 2e-3
    assert config["regret"]["search"]["step"] == {"_target_": "truthful.regret.GradientStep", "length": 0.05}
    assert composed("experiment=released_local_a", "setting=b", "iterations=7")["setting"]["n_items"] == 5
    assert composed("dual=augmented_lagrangian")["dual"]["rho"] == 1
    assert composed("regret=local", "rmax=constant")["rmax"] == {
        "_target_": "truthful.schedules.ConstantBudget",
        "end": 1e-4,
    }
    assert set(composed("logger=[wandb,csv]")["logger"]) == {"wandb", "csv"}
    assert composed("logger=none")["logger"] == {}


def test_experiments_name_the_command_that_runs_them() -> None:
    for file in (CONF / "experiment").glob("*.yaml"):
        assert file.read_text().splitlines()[1] == f"# python train.py experiment={file.stem}"


GRIDS = sorted((CONF / "sweep").glob("*.yaml"), key=lambda path: path.stem)


@pytest.mark.parametrize("file", GRIDS, ids=lambda path: path.stem)
def test_a_job_of_a_sweep_is_the_run_that_its_overrides_give_alone(file: Path) -> None:
    assert file.read_text().splitlines()[1] == f"# python train.py sweep={file.stem}"
    sweep = plain(OmegaConf.create(yaml.safe_load(file.read_text())))
    assert sweep["hydra"]["mode"] == "MULTIRUN"
    own = [
        f"{key}={value}"
        for key, value in flatten({k: v for k, v in sweep.items() if k not in ("defaults", "hydra")}).items()
    ]
    chosen = [f"{group.split('/')[1]}={name}" for entry in sweep.get("defaults", []) for group, name in entry.items()]
    axes = [[f"{k}={value}" for value in str(v).split(",")] for k, v in sweep["hydra"]["sweeper"]["params"].items()]
    for point in list(itertools.product(*axes))[::7]:
        alone = composed(*chosen, *(entry.removesuffix(".0") for entry in own), *point)
        assert config_hash(composed(f"sweep={file.stem}", *point)) == config_hash(alone), point


def test_top_level_keys_are_frozen() -> None:
    assert {"iterations", "batch", "seed", "depth", "resume"} <= composed().keys()


def test_the_hash_covers_what_can_change_the_numbers() -> None:
    base = config_hash(composed())
    for override in ("seed=1", "iterations=5", "optimizer.lr=2e-3", "audit.samples=7", "trainer.clip_norm=1.0"):
        assert config_hash(composed(override)) != base, override
    volatile = (
        "logger=csv",
        "tags=[x]",
        "group=g",
        "trainer.progress=false",
        "trainer.checkpoint_every=7",
        "trainer.exploitation=null",
        "resume=auto",
    )
    for override in volatile:
        assert config_hash(composed(override)) == base, override
    assert config_hash(composed("setting=b")) != base
    recipe = recipe_hash(composed())
    assert recipe_hash(composed("seed=1", "audit=strong", "population=3")) == recipe
    assert recipe_hash(composed("rmax.end=2e-4")) != recipe
    method = method_hash(composed())
    assert method_hash(composed("rmax.end=2e-4", "rmax.start=0.1", "recipe.rmax_end=1e-3", "seed=1")) == method
    assert method_hash(composed("optimizer=adam")) != method
    assert config_hash(composed("trainer.accelerator=gpu")) == base
    assert config_hash(composed("trainer.clip_norm=1")) == config_hash(composed("trainer.clip_norm=1.0"))


def test_names_are_stable_and_need_no_quotes() -> None:
    choices = {"setting": "c", "regret": "local", "experiment": None}
    assert run_name(choices, ["setting=c", "regret=local"]) == "c_local"
    assert run_name(choices, ["seed=3", "logger=csv", "resume=auto", "hydra.run.dir=x"]) == "c_local_seed-3"
    assert (
        run_name({**choices, "experiment": "released_local_c"}, ["experiment=released_local_c"]) == "released_local_c"
    )
    assert run_folder("outputs/x", choices, []) == "outputs/x"
    assert run_folder("auto", choices, []) == "outputs/c_local"
    assert sweep_name({}, ["setting=a,b", "seed=0,1", "resume=auto", "logger=csv"]) == "setting-a-b_seed-0-1"
    assert sweep_name({"sweep": "table1"}, ["sweep=table1", "seed=0,1"]) == "table1"
    assert run_name(choices, ["sweep=table1", "seed=0"]) == "c_local_seed-0"
    assert run_name(choices, ["seed=1", "depth=3"]) == run_name(choices, ["depth=3", "seed=1"])
    assert evaluation_name("outputs/c_local", None, ["run=outputs/c_local", "audit.seed=1"]) == "c_local_audit.seed-1"
    assert evaluation_name(None, None, ["mechanism=second_price", "setting=a"]) == "mechanism-second_price_setting-a"
    assert evaluation_name(None, "outputs/x/checkpoints/last.ckpt", []) == "x"
    assert evaluation_name("multirun/g/x", None, []) == "multirun-g-x"
    long = [f"optimizer.lr={'1' * 200}{k}" for k in range(2)]
    names = [run_name(choices, [override]) for override in long]
    assert names[0] != names[1]
    assert max(map(len, names)) <= 120


def test_every_group_is_explained() -> None:
    text = (Path(CONF).parent / "docs" / "configuration.md").read_text()
    groups = {choice.split("=")[0] for choice in GROUPS}
    for group in groups:
        assert f"`{group}`" in text, group
    for option in GROUPS:
        group, name = option.split("=")
        assert group == "experiment" or f"`{name}`" in text, option
