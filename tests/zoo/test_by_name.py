from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import convscope
from convscope.errors import BadInput, BadWeights
from convscope.scope.network import weights_hash
from convscope.zoo.by_name import load_network
from convscope.zoo.textures import network
from convscope.zoo.textures.generator import CLASSES


def test_open_keeps_how_it_was_asked() -> None:
    scope = convscope.open("squeezenet1_1", weights=None, device="cpu", precision="float32")
    assert (scope.name, scope.weights, scope.precision, str(scope.device)) == ("squeezenet1_1", None, "float32", "cpu")
    assert scope.layers["output"].channels == len(scope.class_names) == 1000
    assert scope.weights_hash == weights_hash(load_network("squeezenet1_1", None).model)


def test_textures_without_its_weights() -> None:
    loaded = load_network("textures", None)
    assert (loaded.inputs.size, loaded.inputs.classes, loaded.inputs.crop) == (network.SIZE, CLASSES, 1.0)
    assert (loaded.inputs.mean, loaded.inputs.std) == (network.MEAN, network.STD)
    assert weights_hash(loaded.model) == weights_hash(load_network("textures", None).model)


@pytest.mark.skipif(not network.WEIGHTS.exists(), reason="the bundled weights are not there")
def test_textures_with_its_weights() -> None:
    scope = convscope.open("textures")
    assert scope.class_names == CLASSES
    assert scope.weights == "pretrained"
    assert all(parameter.dtype == torch.float32 for parameter in scope.model.parameters())


def test_textures_with_other_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(network.build(3).state_dict(), path, metadata={"classes": '["a", "b", "c"]'})
    assert load_network("textures", path).inputs.classes == ("a", "b", "c")
    with pytest.raises(BadWeights, match="no such file"):
        load_network("textures", tmp_path / "absent.safetensors")


def test_only_names_of_networks() -> None:
    with pytest.raises(BadInput, match="expected the name of a network, got int"):
        convscope.open(3)  # pyright: ignore


def test_importing_the_zoo_is_light() -> None:
    heavy = "import convscope.zoo, sys; print([m for m in ('torch', 'torchvision', 'timm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_torchvision_is_loaded_where_one_of_its_networks_is_asked_for() -> None:
    """It takes as long to load as torch, and neither help nor the bundled network needs it."""
    asked = """
import sys, convscope
from convscope.cli import main
try: main(["occlusion", "--help"])
except SystemExit: pass
convscope.open("textures").layers
print("torch" in sys.modules, "torchvision" in sys.modules, file=sys.stderr)
convscope.open("squeezenet1_1", weights=None)
print("torchvision" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-2:] == ["True False", "True"]


def test_random_weights_have_one_name_here_and_on_the_command_line() -> None:
    none, random = (convscope.open("squeezenet1_1", weights=weights) for weights in (None, "random"))
    assert none.weights_hash == random.weights_hash and none.weights == random.weights is None
