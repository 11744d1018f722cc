"""`--help`: every choice with the line that its file says of itself. Hydra's own help takes over a second."""

from __future__ import annotations

import textwrap
from pathlib import Path

WIDTH = 118


def help_text(usage: str, conf: Path, config_name: str) -> str:
    """The help of a root script.

    Args:
        usage: what the script does and how it is called.
        conf: the configuration's folder.
        config_name: its root file, without the ending.
    """
    root = (conf / f"{config_name}.yaml").read_text()
    parts = [usage.strip(), "Choices (group=option):"]
    folders = (path for path in sorted(conf.rglob("*")) if path.is_dir())
    parts += [group_help(conf, path) for path in folders if _is_offered(conf, path, root)]
    parts.append("Keys of a run (key=value), with their defaults:")
    parts.append("\n".join(f"  {line}" for line in _scalars(root)))
    parts.append(
        "The whole composed configuration: add --cfg job. Every key is explained in docs/configuration.md.\n"
        "A sweep over lists of options: -m. Shell completion and the rest of Hydra: --hydra-help."
    )
    return "\n\n".join(parts) + "\n"


def _is_offered(conf: Path, path: Path, root: str) -> bool:
    """Whether the root file's defaults name the group, and the choice is not made by others."""
    group = path.relative_to(conf).parts[0]
    return f"- {group}:" in root and any(path.glob("*.yaml"))


def group_help(conf: Path, path: Path) -> str:
    """The options of a group."""
    options = {file.stem: _first_comment(file) for file in sorted(path.glob("*.yaml"))}
    name = str(path.relative_to(conf))
    if len(options) > 10:
        names = textwrap.fill(", ".join(options), WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4)
        return f"  {name}=\n{names}"
    width = max(map(len, options)) + 2
    lines = [
        textwrap.fill(comment, WIDTH, initial_indent=f"    {option:{width}}", subsequent_indent=" " * (4 + width))
        for option, comment in options.items()
    ]
    return f"  {name}=\n" + "\n".join(lines)


def _first_comment(file: Path) -> str:
    comments = (line[1:].strip() for line in file.read_text().splitlines() if line.startswith("#"))
    return next((comment for comment in comments if not comment.startswith(("@", "python "))), "")


def _scalars(root: str) -> list[str]:
    """The lines `key: value  # comment` at the top level."""
    lines = (line for line in root.splitlines() if line[:1].isalpha())
    return [line for line in lines if not line.split("#")[0].rstrip().endswith(":")]
