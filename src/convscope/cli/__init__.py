"""The command line: a command per technique, derived from its signature, and a few for networks, surveys and finished images.

Only the command that is called loads what it needs, so that ``convscope --help`` is instant.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Group, Parameter

from convscope.cli.docstrings import PREPARED, Help, help_of, techniques
from convscope.errors import ConvscopeError
from convscope.text import one_line, printable, visible_lines

OTHERS = {
    "atlas": "cli.atlas:atlas",
    "serve": "cli.serve:serve",
    "layers": "cli.layers:layers",
    "query": "cli.query:query",
    "export": "cli.export:export",
    "redo": "cli.redo:redo",
    "demo": "cli.demo:demo",
    "textures": "cli.textures:app",
}
"""The commands that are no techniques, with their homes below convscope."""

START = """Start with:

convscope demo
convscope layers textures
convscope feature-visualization textures output --units 0-3"""

SURVEYS = Group("Data sets: scan writes a survey, the others read it", sort_key=1)
GROUPS = {
    "techniques": Group("Networks and images", sort_key=0),
    "scanner": SURVEYS,
    "analyses": SURVEYS,
    "cli": Group("More", sort_key=2),
}
"""Where commands are listed, by the folder of their home."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, by custom."""


def build() -> App:
    """The command line: names with help, and where each command is loaded from when it is called."""
    from convscope import __version__

    app = App(
        name="convscope",
        help="A microscope for convolutional networks.",
        help_epilogue=START,
        help_format="plaintext",
        version=f"convscope {__version__}",
        group_parameters="Options",
        group_commands=Group("Help", sort_key=9),
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative_iterable=()),
    )
    app.register_install_completion_command(help="Install completion of commands and options for this shell.")
    for name, home in (techniques() | OTHERS).items():
        words = help_of(home)
        path = f"convscope.{home}" if name in OTHERS else f"convscope.cli.derive:{name.replace('-', '_')}"
        more = {} if home.endswith(":app") else {"help_epilogue": examples(words)}
        app.command(path, name=name, help=words.description, group=GROUPS[home.split(".")[0]], **more)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code.

    0; 1 where a limit that was asked for is exceeded; 2 for a user's mistake (one line says which); 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    handler = logging.StreamHandler()
    handler.setFormatter(_Visible("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = build()(arguments, print_error=False, exit_on_error=False, result_action="return_value")
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (ConvscopeError, CycloptsError) as error:
        return _fail(str(error))
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # what rich makes of it
            return _silent()
        return _fail(f"ended by sys.exit({error.code}) before it was done, in the network's own code or by a signal")
    except BrokenPipeError:  # the reader of a pipe has gone, as with `convscope layers vgg16 | head`
        return _silent()
    except OSError as error:
        return _fail(f"{printable(error.filename)}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; what is finished is kept: run the same command again to go on from there\n")
        return INTERRUPTED


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible_lines(super().format(record))


def _show_warning(message: Warning | str, *_: Any) -> None:
    sys.stderr.write(f"warning: {one_line(message)}\n")


def _silent() -> int:
    """Nothing more is written to a pipe whose reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(line: str) -> int:
    sys.stderr.write(f"error: {one_line(line)}\n")
    return 2


def examples(words: Help) -> str:
    """The end of a command's help: commands that run as they stand, and those that make the files which they read."""
    if not words.examples:
        return ""
    read = {file: any(re.search(rf"\b{file}\b", example) for example in words.examples) for file in PREPARED.values()}
    read["data"] |= read["survey"]
    needed = [line for line, file in PREPARED.items() if read[file] and line not in words.examples]
    return "\n".join(["Examples:", "", *words.examples, *(["", "Their files are made by:", "", *needed] if needed else [])])
