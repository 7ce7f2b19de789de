"""`pretrained push`: a folder to a repository of a hub, in one commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..checkpoint.find import has_usual_name
from ..configuration import read_config_dict
from ..errors import ConfigError, SourceError
from ..hub.card import CardFacts
from ..hub.push import push_files
from ..hub.snapshot import FolderSnapshot
from ..push_options import push_options
from .command import FINE, Command
from .output import emit_json, plural, say

__all__ = ["push"]


@click.command(cls=Command, short_help="Upload a folder to a hub, in one commit.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("repo_id")
@click.option("--revision", metavar="BRANCH", help="Branch to commit to, made if it is not there.")
@click.option("--message", "commit_message", metavar="TEXT", help="Of the commit.")
@click.option("--description", "commit_description", metavar="TEXT", help="Below the message.")
@click.option("--private/--public", default=None, help="Of a repository that is made now.")
@click.option("--create-pr", is_flag=True, help="Propose the commit as a pull request.")
@click.option("--tag", "tags", multiple=True, metavar="WORD", help="For the card; may be repeated.")
@click.option("--base-model", metavar="REPO", help="For a card that is made.")
@click.option("--license", metavar="NAME", help="For a card that is made.")
@click.option("--endpoint", metavar="URL", help="Another hub than that of HF_ENDPOINT.")
@click.option("--token", envvar="HF_TOKEN", metavar="TOKEN", help="By default the stored one, or that of HF_TOKEN.")
@click.option("--replace", is_flag=True, help="Also remove weights of the repository that the folder does not have.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def push(folder: Path, repo_id: str, replace: bool, as_json: bool, **options: Any) -> int:
    """Uploads every file of FOLDER to the repository REPO_ID, in one commit; hidden files stay here.

    The repository, the branch and the card are made if they are not there. What is there already is not sent again.
    """
    names = _names(folder)
    if not names:
        raise SourceError(f"{folder} holds no file to push", path=folder)
    given = {name: value for name, value in options.items() if value not in (None, ())}

    def is_stale(name: str) -> bool:
        return replace and has_usual_name(name) and name not in names

    info = push_files(folder, names, push_options({"repo_id": repo_id, **given}), _facts(folder), is_stale)
    total = sum((folder / name).stat().st_size for name in names)
    document = {
        "commit": info.oid,
        "url": info.commit_url,
        "pull_request": info.pr_url,
        "files": len(names),
        "bytes": total,
    }
    if as_json:
        emit_json(document)
    else:
        say(f"{plural(len(names), 'file')}, {total:,} bytes: {info.pr_url or info.commit_url}")
    return FINE


def _names(folder: Path) -> list[str]:
    """Every file below the folder, but for what is hidden."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]


def _facts(folder: Path) -> CardFacts:
    """What a card can say of the folder from its config."""
    try:
        config = read_config_dict(FolderSnapshot(folder, str(folder)))
    except (SourceError, ConfigError):
        return CardFacts("AutoModel")
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else "AutoModel"
    kind = config.get("model_type")
    return CardFacts(name if name.isidentifier() else "AutoModel", kind if isinstance(kind, str) else "")
