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
from convscope.cli import OTHERS
from convscope.cli.docstrings import help_of, techniques
from convscope.results.base import Result

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "convscope"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = {path: path.relative_to(SOURCE).as_posix() for path in FILES}
SUPPORT = {"techniques": {"strongest_path", "fills", "style_layers"}, "analyses": {"labelled_scores", "baselines"}}
"""Files of a technique folder that are none: what its techniques stand on."""

FOLDER = {
    path.stem: folder
    for folder in ("techniques", "analyses")
    for path in sorted((SOURCE / folder).glob("*.py"))
    if path.stem not in SUPPORT[folder] | {"__init__"}
}
TECHNIQUE_NAMES = sorted(FOLDER)
SUBJECTS = {"techniques": "scope", "analyses": "survey"} | {"detector_evaluation": "detector"}
"""Name of the first parameter, by folder or technique."""

READ = {"render": 2, "results": 3, "survey": 4, "analyses": 5, "site": 6}
"""The read side: NumPy only, never torch."""

FLOORS = {
    "text": -1,
    **dict.fromkeys(["errors", "seeding", "progress", "statistics"], 0),
    "files": 0.5,
    **dict.fromkeys(["names", "receipts"], 1),
    "image_files": 1.25,
    "preprocessing": 1.5,
    **READ,
    "ops": 2,
    "graph": 3,
    "fast": 4,
    "scope": 5,
    "cluster": 6,
    "optimize": 6,
    "incremental": 6,
    "zoo": 6,
    "scanner": 7,
    "techniques": 7,
    "export": 8,
    "galleries": 8,
    "serve": 9,
    "training": 9,
    "cli": 10,
    "": 11,
    "__main__": 12,
}
"""The floor of every package and module of the top level. Imports go down: to a lower floor, or to the own package.

"" is the package itself, which lists the public names; the command line alone asks it for its version.
"""

GROUND = {name for name, floor in FLOORS.items() if floor < 2}

CIRCLES = {("results.base", "results.folder")}
"""Imports inside functions that close a circle of files: `Result.save` is a method, and `load` builds results."""

HOOKS_LIVE_IN = ("scope/", "graph/", "fast/", "optimize/", "zoo/textures/train.py")
"""The waist, the recorder, the fast passes, the two optimization loops, and the training script of the bundled network."""

RANDOM_STATE = {"zoo/by_name.py": {"fork_rng"}, "zoo/textures/train.py": {"fork_rng"}}
"""Where global random state is touched, inside a fork of it that is put back."""
GENERATORS = "scope/generators.py"
"""Holds the global generators for networks that draw from them, and puts them back."""


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def home(name: str) -> str:
    """The package or module of convscope's top level that a dotted name or a file belongs to."""
    parts = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".").split(".")
    return "" if parts == ["__init__"] else parts[0]


MODULES = {path: NAMES[path].removesuffix(".py").removesuffix("/__init__").replace("/", ".").replace("__init__", "") for path in FILES}
KNOWN = set(MODULES.values())


def imports(path: Path) -> Iterator[str]:
    """Every module of convscope that a file imports, inside functions as well; "" is the package itself."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "convscope":
            below = node.module.partition(".")[2]
            for alias in node.names:
                inner = f"{below}.{alias.name}".strip(".")
                yield inner if inner in KNOWN else below
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[2] for alias in node.names if alias.name.split(".")[0] == "convscope")


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_imports_go_down(path: Path) -> None:
    own = home(NAMES[path])
    assert own in FLOORS, f"{NAMES[path]} has no floor"
    for imported in imports(path):
        other = home(imported) if imported else ""
        if (own, other) == ("cli", ""):
            continue  # asks for the version
        assert own == other or FLOORS[other] < FLOORS[own], f"{NAMES[path]} must not import convscope.{imported}"
        assert own not in READ or other in READ or other in GROUND, f"{NAMES[path]}: the read side must not import convscope.{imported}"


def test_no_circle_of_files() -> None:
    standing = {MODULES[path]: set(imports(path)) & KNOWN - {MODULES[path]} for path in FILES}
    for importer, imported in CIRCLES:
        standing[importer].discard(imported)
    runtime_only = {f"results.{name}": {"results.base"} for name in ("words", "default_view", "table")}  # for type checkers alone
    for importer, names in runtime_only.items():
        standing[importer] -= names
    while standing:
        ground = {name for name, below in standing.items() if not below & standing.keys()}
        assert ground, f"a circle among {sorted(standing)}"
        for name in ground:
            del standing[name]


def test_the_ground_floor_needs_no_package() -> None:
    allowed = {
        "text": set[str](),
        "errors": set[str](),
        "files": {"fsspec", "jsonschema"},
        "seeding": set[str](),
        "progress": set[str](),
        "names": set[str](),
        "preprocessing": {"numpy", "PIL"},
        "image_files": {"fsspec", "pyarrow"},
        "statistics": {"numpy", "scipy"},
        "receipts": {"numpy", "PIL"},
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
    assert not loaded & {"torch", "torchvision", "matplotlib", "numpy", "PIL", "cyclopts", "timm"}


def test_help_loads_nothing_heavy() -> None:
    loaded = loaded_after("from convscope.cli import main; main(['--help'])")
    assert not loaded & {"torch", "torchvision", "matplotlib", "numpy", "PIL", "timm"}


def test_the_read_column_never_loads_torch() -> None:
    modules = [MODULES[path] for path in FILES if home(NAMES[path]) in READ]
    loaded = loaded_after("".join(f"import convscope.{name}\n" for name in modules))
    assert "torch" not in loaded and "torchvision" not in loaded
    assert {name.split(".")[1] for name in loaded if "." in name} <= set(READ) | GROUND


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
            assert "random" not in [alias.name for alias in node.names] or NAMES[path] == GENERATORS
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


FACTORIES = frozenset(
    "arange as_tensor asarray empty empty_strided eye fftfreq full linspace logspace rand randint randn randperm rfftfreq scalar_tensor "
    "tensor tril_indices triu_indices zeros ones hann_window hamming_window kaiser_window".split()
)
"""Functions of torch that take dtype and device from global defaults; `*_like` and `new_*` take them from a tensor."""


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_tensors_name_their_dtype_and_device(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            assert not FACTORIES & {alias.name for alias in node.names}, f"line {node.lineno}: call it as torch.NAME"
        if not isinstance(node, ast.Call):
            continue
        called, keywords = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
        if called.startswith("torch.") and called.rpartition(".")[2] in FACTORIES:
            assert {"dtype", "device"} <= keywords, f"line {node.lineno}: {called} without dtype and device"
        assert called.rpartition(".")[2] != "Generator" or called.startswith("np.") or node.args, f"line {node.lineno}: on which device?"
        assert called not in ("torch.Tensor", "torch.FloatTensor", "torch.optim.Adam") or NAMES[path] == "optimize/minimizers.py"
        assert called not in ("torch.set_default_dtype", "torch.set_default_device") or NAMES[path] == "zoo/loaded.py"


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
    with pytest.raises(AttributeError, match="No convscope attribute nothing"):
        _ = convscope.nothing


@pytest.mark.parametrize("name", TECHNIQUE_NAMES)
class TestNaming:
    """File x_y.py, function x_y, result XY, convscope.x_y, command x-y, test file, page."""

    def test_function_and_result(self, name: str) -> None:
        function = getattr(convscope, name)
        class_name = "".join(word.capitalize() for word in name.split("_"))
        result = getattr(convscope, class_name)
        assert function.__module__ == f"convscope.{FOLDER[name]}.{name}" and result.__module__ == f"convscope.results.{name}"
        assert function.__name__ == name == result.technique
        assert issubclass(result, Result)
        assert str(inspect.signature(function).return_annotation) == class_name

    def test_signature(self, name: str) -> None:
        parameters = list(inspect.signature(getattr(convscope, name)).parameters.values())
        assert parameters[0].name == SUBJECTS.get(name, SUBJECTS[FOLDER[name]])
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
        home = techniques()[name.replace("_", "-")]
        assert home == f"{FOLDER[name]}.{name}:{name}"
        first = help_of(home).description.splitlines()[0]
        assert first.endswith(".") and first[0].isupper()

    def test_test_file(self, name: str) -> None:
        assert (ROOT / "tests" / FOLDER[name] / f"test_{name}.py").is_file()

    def test_page(self, name: str) -> None:
        assert (ROOT / "docs" / "techniques" / f"{name}.md").is_file()


def test_every_command_is_a_technique_or_declared() -> None:
    assert set(techniques()) == {name.replace("_", "-") for name in TECHNIQUE_NAMES} | {"scan"}
    assert not set(techniques()) & set(OTHERS)
