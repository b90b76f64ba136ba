"""Folders as they are downloaded from the hub of Hugging Face: ``hf:path/to/folder``, an image classifier of timm or transformers.

The folder's config.json names an architecture, which must be one that timm or transformers lists, and its numbers. Everything else in it
that could choose code, a file or a download is left out. Nothing is downloaded.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from convscope.errors import BadInput, BadWeights, ConvscopeError
from convscope.files import read_json
from convscope.names import near_hint
from convscope.scope.inputs import Inputs
from convscope.text import one_line, printable, visible
from convscope.zoo import from_timm
from convscope.zoo.loaded import PRETRAINED, Loaded, optional
from convscope.zoo.weights import put_weights
from convscope.zoo.weights_file import WeightsFile, read_weights

PREFIX = "hf:"
_FILES = ("model.safetensors", "pytorch_model.bin")
_PROCESSING = (
    "size crop_size do_resize do_center_crop crop_pct resample do_rescale rescale_factor rescale_offset do_normalize image_mean image_std "
    "do_flip_channel_order include_top"
).split()
"""What preprocessor_config.json may say."""
_INTERPOLATIONS: dict[int, Literal["nearest", "bilinear", "bicubic", "lanczos"]] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Ours, by Pillow's numbers."""
_LIKE = 3 / 255
"""Largest mean difference, in units of the whole range, between transformers' preprocessing and ours that counts as rounding."""
_log = logging.getLogger("convscope")


def load_folder(name: str, weights: str | Path | None) -> Loaded:
    """Loads the network of a folder with its own weights, a file's, or random ones.

    Raises:
        NotInstalled: timm or transformers is needed and not installed.
        BadInput: No such folder, or a config.json that names no image classifier known here.
        BadWeights: The weights cannot be read, or do not fit.
    """
    folder = Path(name.removeprefix(PREFIX)).expanduser()
    config = _json(folder / "config.json")
    file = None if weights is None else read_weights(_weights_in(folder) if weights == PRETRAINED else weights)
    return _of_timm(config, name, file) if "architecture" in config else _of_transformers(config, folder, name, file)


class Logits(nn.Module):
    """A classifier of transformers as other classifiers are: images in, logits out.

    Args:
        network: The classifier.
        flip: Whether it takes its channels in the order B, G, R.
    """

    def __init__(self, network: nn.Module, flip: bool) -> None:
        super().__init__()
        self.network = network
        self.flip = flip

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.flip(1) if self.flip else images).logits


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{printable(path)}: {one_line(error)}; expected a folder of a classifier of timm or transformers") from None
    if not isinstance(found, dict):
        raise BadInput(f"{printable(path)}: expected an object, got {type(found).__name__}")
    return found


def _weights_in(folder: Path) -> Path:
    path = next((folder / name for name in _FILES if (folder / name).exists()), None)
    if path is None:
        raise BadWeights(f"{printable(folder)} holds neither {' nor '.join(_FILES)}")
    return path


def _of_timm(config: Mapping[str, Any], name: str, file: WeightsFile | None) -> Loaded:
    timm = optional("timm", f"{name}, a network of timm, needs timm", "timm")
    known, architecture = timm.list_models(), config["architecture"]
    if architecture not in known:
        raise BadInput(f"{name}: timm has no network {one_line(repr(architecture), 60)}{near_hint(str(architecture), known)}")
    told = config.get("pretrained_cfg", config)
    reserved = {"num_classes", *inspect.signature(timm.create_model).parameters}
    numbers = {key: value for key, value in dict(config.get("model_args") or {}).items() if _is_number(value) and key not in reserved}
    with _reading(name, "config.json"):
        numbers |= {"num_classes": int(config.get("num_classes", told.get("num_classes", 1000)))}
        model = timm.create_model(architecture, pretrained=False, **numbers)
        expects = optional("timm.data", "", "timm").resolve_data_config(pretrained_cfg=_chosen(told, from_timm.EXPECTED))
        labels = config.get("label_names") or told.get("label_names")
        classes = from_timm.class_names(labels, str(told.get("tag", "")), numbers["num_classes"])
        inputs = from_timm.inputs_of(expects, classes, name)
    if file is not None:
        put_weights(model, file, name)
    return Loaded(model, inputs)


def _is_number(value: Any) -> bool:
    """A number, a truth value, or a list of such: what can neither choose code nor a file."""
    return isinstance(value, (int, float)) or (isinstance(value, list) and all(map(_is_number, value)))


def _of_transformers(config: Mapping[str, Any], folder: Path, name: str, file: WeightsFile | None) -> Loaded:
    transformers = optional("transformers", f"{name}, a network of transformers, needs transformers", "transformers")
    auto = optional("transformers.models.auto.modeling_auto", "", "transformers")
    known: Mapping[str, str | tuple[str, ...]] = auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    kind, architectures = config.get("model_type"), config.get("architectures")
    if not isinstance(kind, str) or kind not in known:
        raise BadInput(f"{name}: transformers has no image classifier of the type {one_line(repr(kind), 60)}{near_hint(str(kind), known)}")
    of_kind = known[kind]
    classifiers = [of_kind] if isinstance(of_kind, str) else [*of_kind]
    asked = str(architectures[0]) if isinstance(architectures, list) and architectures else classifiers[0]
    if asked not in classifiers:
        raise BadInput(f"{name}: {one_line(asked, 60)} is no image classifier of the type {kind}, which has {', '.join(classifiers)}")
    with _reading(name, "config.json"):
        settings_of_kind = transformers.AutoConfig.for_model(kind).__class__
        numbers = _chosen(config, [*settings_of_kind().to_dict(), "num_labels"], but=_CHOOSE_CODE)
        settings = settings_of_kind(**numbers, attn_implementation="eager")
        classifier = getattr(transformers, asked)
        network = classifier(settings) if file is None else _with_weights(classifier, settings, file, name)
    processor = _processor(transformers, kind, _json(folder / "preprocessor_config.json"), name)
    labels = [settings.id2label[index] for index in range(settings.num_labels)]
    named = not all(label == f"LABEL_{index}" for index, label in enumerate(labels))
    with _reading(name, "preprocessor_config.json"):
        inputs, flip = _inputs(processor, name)
    return Loaded(Logits(network, flip), replace(inputs, classes=tuple(labels) if named else None))


def _with_weights(classifier: Any, settings: Any, file: WeightsFile, name: str) -> nn.Module:
    """A classifier with weights. transformers puts them in, since it renames those of its older versions."""
    with _silent():
        network, told = classifier.from_pretrained(
            None,
            config=settings,
            state_dict=dict(file.tensors),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # else the error has many lines
            output_loading_info=True,
        )
    faults = {
        "missing": sorted(told["missing_keys"]),
        "of another shape": sorted(key for key, *_ in told["mismatched_keys"]),
        "NaN or infinite": [key for key, value in network.named_parameters() if not bool(torch.isfinite(value).all())],
    }
    if found := [f"{len(keys)} {fault} ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})" for fault, keys in faults.items() if keys]:
        raise BadWeights(f"weights {file.source} do not fit {name}: {'; '.join(found)}")
    if unused := sorted(told["unexpected_keys"]):
        _log.warning("%s: %d tensors of %s are not used (%s, ...)", name, len(unused), file.source, ", ".join(map(visible, unused[:3])))
    return network


@contextmanager
def _silent() -> Generator[None]:
    """Within the block, transformers shows no progress and says errors only."""
    logger = optional("transformers.utils.logging", "", "transformers")
    before, bars = logger.get_verbosity(), logger.is_progress_bar_enabled()
    logger.set_verbosity_error()
    logger.disable_progress_bar()
    try:
        yield
    finally:
        logger.set_verbosity(before)
        if bars:
            logger.enable_progress_bar()


_CHOOSE_CODE = ("architectures", "auto_map", "dtype", "torch_dtype", "quantization_config", "attn_implementation", "transformers_version")
"""What a config.json may hold beside numbers; keys that begin with _ and those of backbones as well. None of it is used."""


def _chosen(given: Mapping[str, Any], keys: Iterable[str], but: tuple[str, ...] = ()) -> dict[str, Any]:
    wanted = [key for key in keys if not key.startswith("_") and "backbone" not in key and key not in but]
    return {key: given[key] for key in wanted if key in given}


def _processor(transformers: Any, kind: str, told: Mapping[str, Any], name: str) -> Any:
    """transformers' own preprocessing of a folder."""
    auto = optional("transformers.models.auto.image_processing_auto", "", "transformers")
    mapping: Mapping[str, Any] = auto.IMAGE_PROCESSOR_MAPPING_NAMES
    known = {kind: next(iter(value.values())).removesuffix("Pil") for kind, value in mapping.items() if value}
    asked = str(told.get("image_processor_type") or told.get("feature_extractor_type") or known.get(kind))
    asked = asked.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    if asked not in known.values():
        raise BadInput(f"{name}: transformers has no preprocessing {one_line(repr(asked), 60)}{near_hint(asked, known.values())}")
    with _reading(name, "preprocessor_config.json"):
        return getattr(transformers, asked)(**_chosen(told, _PROCESSING))


def _inputs(processor: Any, name: str) -> tuple[Inputs, bool]:
    """What a preprocessing of transformers makes of images, found by looking at what it does to some; and whether it flips RGB to BGR."""

    def processed(image: Image.Image) -> Tensor:
        return processor(image, return_tensors="pt")["pixel_values"][0].double()

    black, white, red = (processed(Image.new("RGB", (256, 256), colour)) for colour in ("black", "white", "red"))
    if black.ndim != 3 or black.shape[0] != 3:
        raise BadInput(f"makes arrays {tuple(black.shape)} of images, expected (3 h w)")
    flip = bool((red[2] - white[2]).abs().max() < (red[0] - white[0]).abs().max())
    middle = black.shape[1] // 2, black.shape[2] // 2
    low, high = ((values.flip(0) if flip else values)[:, middle[0], middle[1]] for values in (black, white))
    std = 1 / (high - low)
    scene = _scene()
    theirs = processed(scene)
    theirs = theirs.flip(0) if flip else theirs
    size = int(black.shape[1]), int(black.shape[2])
    found = Inputs(
        size=size[0] if size[0] == size[1] else size,
        mean=tuple(round(value, 6) + 0.0 for value in (-low * std).tolist()),
        std=tuple(round(value, 6) for value in std.tolist()),
        interpolation=_INTERPOLATIONS[int(processor.resample)],
    )
    edge = getattr(getattr(processor, "size", None), "shortest_edge", None)
    shares = {None, 1.0, getattr(processor, "crop_pct", None), size[0] / edge if edge else None}
    gaps: dict[float | None, float] = {}
    for share in shares:
        if share is None or 0 < share <= 1:
            ours = replace(found, crop=share)
            normalized = ours.normalize(ours(scene).double())
            gaps[share] = float(((normalized - theirs) * std[:, None, None]).abs().mean()) if normalized.shape == theirs.shape else 1.0
    best = min(gaps, key=lambda share: gaps[share])
    if gaps[best] > _LIKE:
        best = 1.0 if gaps[best] == 1 else best
        shown = "squashed to" if best is None else "resized and cropped to"
        _log.warning("%s: transformers shows the network another part of an image; here images are %s %dx%d", name, shown, *size)
    return replace(found, crop=best), flip


def _scene() -> Image.Image:
    """An image of 640x448 pixels with a colour of its own everywhere, and edges."""
    down, across = np.mgrid[0:448, 0:640]
    values = [across * 255 // 639, down * 255 // 447, 255 * ((down // 32 + across // 32) % 2)]
    return Image.fromarray(np.stack(values, -1).astype(np.uint8))


@contextmanager
def _reading(name: str, file: str) -> Generator[None]:
    """Turns whatever a library says of a file's values into one line."""
    try:
        yield
    except ConvscopeError as error:
        raise type(error)(f"{name}: {file}: {error.message}") from None
    except Exception as error:  # libraries raise what they like about values that make no sense
        raise BadInput(f"{name}: {file} makes no classifier ({type(error).__name__}: {one_line(error, 300)})") from None
