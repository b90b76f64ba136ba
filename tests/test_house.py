"""The rules of the house: who may import whom, where hooks live, what a name means."""

from __future__ import annotations

import ast
import functools
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import convscope
from convscope.cli import OTHERS, TECHNIQUES
from convscope.result import Result

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "convscope"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = {path: path.relative_to(SOURCE).as_posix() for path in FILES}
SUPPORT = {
    "survey": {"schema", "survey", "files", "originals", "provenance", "thresholds", "baselines", "detector_evaluation"},
}
"""Files of a technique folder that are none: what its techniques stand on, and the result of a technique's method."""

FOLDER = {
    path.stem: folder
    for folder in ("techniques", "survey")
    for path in sorted((SOURCE / folder).glob("*.py"))
    if path.stem not in SUPPORT.get(folder, set[str]()) | {"__init__"}
}
TECHNIQUE_NAMES = sorted(FOLDER)

WRITTEN_BY_THE_PIPELINE = {"scan"}
"""Techniques whose function is in `pipeline/`, since it writes a survey, and whose result is that survey: the file in `techniques/`
holds the pass over the network alone."""

GROUND = {"errors", "seeding", "progress", "pictures", "statistics"}
MAY_IMPORT = {
    "errors": set[str](),
    "pictures": {"errors"},
    "seeding": set[str](),
    "progress": set[str](),
    "statistics": set[str](),
    "result": {"errors"},
    "ops": GROUND,
    "scope": GROUND | {"result", "ops"},
    "minimizers": {"errors"},
    "image": GROUND | {"ops", "scope"},
    "transforms": GROUND | {"ops", "scope"},
    "objectives": GROUND | {"ops", "scope", "image"},
    "recipes": GROUND | {"ops", "scope", "transforms"},
    "ascent": GROUND | {"ops", "scope", "image", "transforms", "objectives", "recipes"},
    "descent": GROUND | {"scope", "image", "minimizers"},
    "techniques": GROUND | {"result", "ops", "scope", "image", "transforms", "objectives", "recipes", "ascent", "minimizers", "descent"},
    "zoo": GROUND | {"scope"},
    "render": GROUND | {"result"},
    "store": GROUND | {"result"},
    "survey": GROUND | {"result", "store", "render"},
    "atlas": GROUND | {"result", "store", "render", "survey"},
    "pipeline": GROUND | {"result", "scope", "recipes", "techniques", "zoo", "render", "store", "survey"},
    "cli": GROUND | {"", "result", "scope", "recipes", "techniques", "zoo", "pipeline", "store", "survey", "atlas"},
    "": {"errors", "ops", "pipeline", "scope", "store", "techniques", "zoo", "survey", "atlas"},
}
"""Who may import whom, besides itself; "" is the package itself. Anything not listed is forbidden."""

IN_FUNCTIONS = {"result": {"render", "store"}}
"""Imports allowed inside functions only: a result delegates its display and its saving."""

HOOKS_LIVE_IN = ("scope/", "ascent.py", "descent.py", "zoo/textures/train.py")
"""The waist, the two optimization loops, and the training script of the bundled network."""

RANDOM_STATE = {"zoo/loading.py": {"fork_rng"}, "zoo/textures/train.py": {"fork_rng"}}
"""Where global random state is touched, inside a fork of it that is put back."""


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def home(name: str) -> str:
    """The package or module of convscope's top level that a dotted name or a file belongs to."""
    parts = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".").split(".")
    return "" if parts == ["__init__"] else parts[0]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(home that is imported, whether inside a function) of every import of convscope in a file."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom) and child.module and child.module.split(".")[0] == "convscope":
                below = child.module.partition(".")[2]
                for alias in child.names:
                    target = below or (alias.name if alias.name in MAY_IMPORT else "")
                    yield home(target) if target else "", inside
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    if alias.name.split(".")[0] == "convscope":
                        yield home(alias.name.partition(".")[2]) if "." in alias.name else "", inside
            else:
                yield from walk(child, inside or isinstance(child, (ast.FunctionDef, ast.Lambda)))

    yield from walk(tree(path), False)


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_imports_go_down(path: Path) -> None:
    own = home(NAMES[path])
    assert own in MAY_IMPORT, f"{NAMES[path]} has no floor"
    for imported, inside in imports(path):
        allowed = MAY_IMPORT[own] | {own} | (IN_FUNCTIONS.get(own, set()) if inside else set())
        assert imported in allowed, f"{NAMES[path]} must not import convscope.{imported}"


def test_the_floors_have_no_cycle() -> None:
    standing: dict[str, set[str]] = {name: set(below) for name, below in MAY_IMPORT.items() if name}
    for below in standing.values():
        below.discard("")
    while standing:
        ground = {name for name, below in standing.items() if not below & standing.keys()}
        assert ground, f"a cycle among {sorted(standing)}"
        for name in ground:
            del standing[name]


def test_the_ground_floor_needs_no_package() -> None:
    allowed = {
        "errors": set[str](),
        "seeding": set[str](),
        "progress": set[str](),
        "pictures": {"numpy", "PIL"},
        "statistics": {"numpy"},
        "result": {"numpy", "matplotlib"},
    }
    for name, extra in allowed.items():
        for node in ast.walk(tree(SOURCE / f"{name}.py")):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in (word.split(".")[0] for word in found):
                assert module in sys.stdlib_module_names | extra | {"convscope", "__future__"}, f"{name}.py imports {module}"


def loaded_after(code: str) -> set[str]:
    """The top-level names of all modules loaded in a fresh process after `code`, with those of convscope in full."""
    script = f"{code}\nimport sys\nsys.stdout.write(chr(10) + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    names = done.stdout.splitlines()[-1].split()
    return {name.split(".")[0] for name in names} | {name for name in names if name.startswith("convscope.")}


def test_importing_loads_nothing_heavy() -> None:
    loaded = loaded_after("import convscope; dir(convscope)")
    assert not loaded & {"torch", "torchvision", "matplotlib", "numpy", "PIL", "typer", "timm"}


def test_help_loads_nothing_heavy() -> None:
    loaded = loaded_after("from convscope.cli import main; main(['--help'])")
    assert not loaded & {"torch", "torchvision", "matplotlib", "numpy", "PIL", "timm"}


def test_the_read_column_never_loads_torch() -> None:
    columns = [name for name in ("render", "store", "survey", "atlas") if (SOURCE / name).exists()]
    modules = [
        NAMES[path].removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in FILES if home(NAMES[path]) in columns
    ]
    assert {"render", "store"} <= set(columns)
    loaded = loaded_after("".join(f"import convscope.{name}\n" for name in modules))
    assert "torch" not in loaded and "torchvision" not in loaded
    compute = {
        "ops",
        "scope",
        "image",
        "transforms",
        "objectives",
        "ascent",
        "descent",
        "minimizers",
        "recipes",
        "techniques",
        "zoo",
        "pipeline",
        "cli",
    }
    assert not {name.split(".")[1] for name in loaded if "." in name} & compute


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_networks_are_touched_in_the_waist_only(path: Path) -> None:
    if NAMES[path].startswith(HOOKS_LIVE_IN):
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            hook = name.startswith("register_") and name.endswith("hook")
            assert not hook and name not in ("eval", "train", "backward", "requires_grad_", "zero_grad"), f"line {node.lineno}: {name}()"
        words = [node.attr] if isinstance(node, ast.Attribute) else [node.id] if isinstance(node, ast.Name) else []
        words += (node.module or "").split(".") if isinstance(node, ast.ImportFrom) else []
        assert "autograd" not in words


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_no_assert_and_no_print(path: Path) -> None:
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert vanishes under python -O"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and NAMES[path] != "zoo/textures/train.py":
            assert node.func.id != "print", f"line {node.lineno}: the library does not print"


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_no_global_random_state(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            assert "random" not in [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert node.module not in ("random", "numpy.random", "torch.random")
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        name = called.rpartition(".")[2]
        keywords = {keyword.arg for keyword in node.keywords}
        if name in RANDOM_STATE.get(NAMES[path], set()):
            continue
        if called.startswith("np.random."):
            assert name in ("default_rng", "Generator", "SeedSequence") and (node.args or node.keywords), f"line {node.lineno}: {called}"
        assert not called.startswith("torch.random."), f"line {node.lineno}: {called}"
        assert called not in ("torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all")
        if called in (
            "torch.rand",
            "torch.randn",
            "torch.randint",
            "torch.randperm",
            "torch.normal",
            "torch.bernoulli",
            "torch.multinomial",
        ):
            assert "generator" in keywords, f"line {node.lineno}: {called} without a generator"
        assert called not in ("torch.rand_like", "torch.randn_like", "torch.randint_like"), f"line {node.lineno}: {called}"


def test_drawing_leaves_global_random_state_alone() -> None:
    import random

    import numpy as np
    import torch

    import hand_built

    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    scope = convscope.Scope(hand_built.small(), convscope.Inputs(size=24))
    convscope.feature_visualization(scope, "4", [0], size=24, steps=2, crop_size=16)
    convscope.hypothesis(scope, "4", 0, hand_built.draws(3, 3, 24, 24), hand_built.draws(3, 3, 24, 24, seed=1), permutations=9)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert before[2] == random.getstate()


def test_public_names() -> None:
    assert dir(convscope) == sorted(convscope.__all__)
    assert len(set(convscope.__all__)) == len(convscope.__all__)
    for name in convscope.__all__:
        value = getattr(convscope, name)
        assert inspect.isfunction(value) or inspect.isclass(value) or inspect.ismodule(value) or isinstance(value, str)
        if not isinstance(value, str):
            assert value.__doc__, f"convscope.{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = convscope.nothing


def test_public_names_for_type_checkers() -> None:
    checked = next(node for node in tree(SOURCE / "__init__.py").body if isinstance(node, ast.If))
    named = {alias.asname for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    modules = {name for name in convscope.__all__ if inspect.ismodule(getattr(convscope, name))}
    assert named | modules | {"__version__"} == set(convscope.__all__)


@pytest.mark.parametrize("name", TECHNIQUE_NAMES)
class TestNaming:
    """File x_y.py, function x_y, result XY, convscope.x_y, command x-y, test file, page."""

    def test_function_and_result(self, name: str) -> None:
        function = getattr(convscope, name)
        if name in WRITTEN_BY_THE_PIPELINE:
            assert function.__module__ == f"convscope.pipeline.{name}.{name}" and function.__name__ == name
            return
        class_name = "".join(word.capitalize() for word in name.split("_"))
        result = getattr(convscope, class_name)
        assert function.__module__ == result.__module__ == f"convscope.{FOLDER[name]}.{name}"
        assert function.__name__ == name == result.technique
        assert issubclass(result, Result)
        assert str(inspect.signature(function).return_annotation) == class_name

    def test_signature(self, name: str) -> None:
        parameters = list(inspect.signature(getattr(convscope, name)).parameters.values())
        assert parameters[0].name == ("scope" if FOLDER[name] == "techniques" else "survey")
        forbidden = {"verbose", "show", "save", "plot", "use_cuda"}
        assert not forbidden & {parameter.name for parameter in parameters}
        for parameter in parameters:
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                assert parameter.default is not inspect.Parameter.empty, f"{parameter.name} has no default"

    def test_docstring(self, name: str) -> None:
        text = inspect.getdoc(getattr(convscope, name)) or ""
        for section in ("Args:", "Returns:", "Raises:", "Source:"):
            assert f"\n{section}\n" in text, f"no {section}"
        for parameter in inspect.signature(getattr(convscope, name)).parameters:
            assert f"\n    {parameter}: " in text, f"{parameter} is not explained"

    def test_command(self, name: str) -> None:
        command = name.replace("_", "-")
        assert command in TECHNIQUES
        text = inspect.getdoc(getattr(convscope, name)) or ""
        assert TECHNIQUES[command] == text.splitlines()[0].partition(":")[0].rstrip(".") + "."

    def test_test_file(self, name: str) -> None:
        assert (ROOT / "tests" / FOLDER[name] / f"test_{name}.py").is_file()

    def test_page(self, name: str) -> None:
        assert (ROOT / "docs" / "techniques" / f"{name}.md").is_file()


def test_every_command_is_a_technique_or_declared() -> None:
    assert sorted(TECHNIQUES) == [name.replace("_", "-") for name in TECHNIQUE_NAMES]
    assert not set(TECHNIQUES) & set(OTHERS)


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_help_lines_of_other_commands(name: str) -> None:
    import importlib

    module, _, attribute = OTHERS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    if inspect.isfunction(command):
        assert (inspect.getdoc(command) or "").splitlines()[0] == OTHERS[name][1]
