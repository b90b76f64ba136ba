"""The project file `convscope.toml`: the network, weights, images and device that commands in its folder take where none are given.

It is read in the folder where a command runs, and in no other. It names no code: a network of a Python file is given with each command.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from convscope.cli.show import say
from convscope.errors import BadInput
from convscope.files import Refused, read_file
from convscope.names import near_hint
from convscope.receipts import atomic_write
from convscope.results.provenance import PROJECT
from convscope.text import one_line

FILE = "convscope.toml"
WRITER = "use"
"""The command that writes it, and takes nothing from it."""
_MOST = 2**16
"""Largest project file that is read, in bytes."""


@dataclass(frozen=True)
class Project:
    """What a project file says; None where it does not."""

    network: str
    weights: str | None = None
    images: str | None = None
    device: str | None = None
    precision: str | None = None

    def entries(self) -> dict[str, str]:
        """What it says, by name."""
        return {key: value for key, value in vars(self).items() if value is not None}


def read_project() -> Project | None:
    """The project file of the current folder, if there is one.

    Raises:
        BadInput: It is damaged, or names something that it must not.
    """
    if not os.path.lexists(FILE):
        return None
    try:
        given = tomllib.loads(read_file(FILE, _MOST).decode("utf-8"))
    except (Refused, OSError) as error:
        raise BadInput(f"{FILE}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"{FILE}: not a TOML file ({one_line(error, 100)})") from None
    return checked(given)


def checked(given: Mapping[str, Any]) -> Project:
    """Entries as a project.

    Raises:
        BadInput: Unknown or wrong ones.
    """
    known = [field.name for field in fields(Project)]
    for key, value in given.items():
        if key not in known:
            raise BadInput(f"{FILE}: unknown entry {one_line(key, 40)!r}{near_hint(key, known)}; it holds {', '.join(known)}")
        if not isinstance(value, str) or not value:
            raise BadInput(f"{FILE}: {key} must be text, got {one_line(value, 40)!r}")
    if "network" not in given:
        raise BadInput(f"{FILE}: it names no network; convscope use NETWORK writes it anew")
    if _is_code(given["network"]):
        raise BadInput(f"{FILE}: {one_line(given['network'], 80)} is code, which is run only where a command names it; give it as NETWORK")
    return Project(**given)


def _is_code(network: str) -> bool:
    from convscope.zoo.from_file import is_file_name

    return is_file_name(network)


def with_network(arguments: Sequence[str], project: Project) -> list[str]:
    """A command line whose command takes a network first, with that of the project where none is given.

    The word after the command is the network, if a network can be called so. Where an option comes first, any later word may be.
    """
    from convscope.zoo.by_name import is_network_name

    command, *rest = arguments
    words = rest if rest and rest[0].startswith("-") else rest[:1]
    given = any(is_network_name(word) for word in words if not word.startswith("-"))
    return [command, *rest] if given else [command, project.network, *rest]


@contextmanager
def taking(project: Project | None, values: Mapping[str, Any], allowed: Sequence[str]) -> Generator[dict[str, str]]:
    """Gives what a command takes from the project, by parameter: what it can take and was not given. It is said, and kept in manifests.

    Weights, device and precision belong to the project's network, so another one takes none of them.

    Args:
        project: What the project file says.
        values: What was given, by parameter, the network among it.
        allowed: The command's parameters.
    """
    entries = {} if project is None else project.entries()
    own = values.get("network") == entries.pop("network", None)
    found = {key: value for key, value in entries.items() if key in allowed and values.get(key) is None and (own or key == "images")}
    before = PROJECT.get()
    token = PROJECT.set({**before, **found})
    try:
        say_taken(PROJECT.get())
        yield found
    finally:
        PROJECT.reset(token)


def say_taken(entries: Mapping[str, str]) -> None:
    """Says on standard error what was taken from the project file, if anything was."""
    if entries:
        say(f"{FILE}: {', '.join(f'{key} {one_line(value, 80)}' for key, value in entries.items())}", error=True)


def write_project(project: Project) -> None:
    """Writes the file, all or nothing."""
    lines = [f"{key} = {_quoted(value)}\n" for key, value in project.entries().items()]
    atomic_write(FILE, "".join(["# Written by convscope use; see convscope use --help\n", *lines]).encode("utf-8"))


def _quoted(value: str) -> str:
    """Text as a basic string of TOML, whose escapes are JSON's; a character that neither may hold is refused."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(f"{one_line(value, 80)!r} cannot be written to {FILE}: it is not valid Unicode") from None
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
