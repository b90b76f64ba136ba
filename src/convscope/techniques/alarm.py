"""Alarm: does a detector raise an alarm for an image, by how much, and where in the image does it come from?"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from convscope.analyses.detector_evaluation import scores_of
from convscope.progress import task
from convscope.results.alarm import Alarm
from convscope.results.detector import METHODS, Detector
from convscope.results.provenance import technique
from convscope.scope import OUTPUT, Images, Scope
from convscope.zoo.recorded import check_recorded


@technique
def alarm(scope: Scope, detector: Detector, images: Images, *, method: Literal["maps", "output", "probe"] = "maps") -> Alarm:
    """Whether a detector raises an alarm for each image, with the score, its threshold, and where in the image the score comes from.

    There is an alarm for class c if its score is above the threshold, S_c(x) > t_c. The score by class maps is the mean over positions of
    the evidence E_c(y, x) = sum_k w_ck A_k(y, x) + b_c; shown over the image is E_c - t_c, whose mean is above zero for an alarm.

    Args:
        scope: The network that the detector was made with.
        detector: The detector.
        images: One or several images or a folder.
        method: Which of the detector's methods decides: its class "maps", the network's "output", or the linear "probe". The others are
            listed beside it.

    Returns:
        Scores and alarms by all methods, and evidence by class maps and probe.

    Raises:
        BadWeights: The network's weights are not those of the detector.
        BadInput: The network has other inputs than the detector's.
        BadImage: No image can be read.

    Source:
        Shin 2020 (S2, section 5.6), where a sum over a class's maps above a threshold is an alarm.

    Example:
        >>> import convscope as cs
        >>> alarms = cs.detector(cs.read_survey("surveys/train"), "features.12")  # doctest: +SKIP
        >>> cs.alarm(cs.open("squeezenet1_0"), alarms, "bag.png").sounded()  # doctest: +SKIP
        (("knife",),)

    Command line:
        convscope alarm out/detector/survey-features.27 data/images/chains/0000.png data/images/dots/0000.png
    """
    check_recorded(scope, detector.manifest["network"], "the detector")
    known, reader = scope.layers[detector.layer], scope.inputs.reader(images)
    means: list[Tensor] = []
    outputs: list[Tensor] = []
    evidence: list[np.ndarray] = []
    shown: list[Tensor] = []
    with task(f"alarms for {len(reader)} images", len(reader)) as advance, scope.session(), torch.no_grad():
        for group in reader.batches(scope.fitting(scope.inputs.height * scope.inputs.width)):
            values = scope.run(group, [detector.layer, OUTPUT], channels_first=True)
            maps, answers = values[detector.layer], values[OUTPUT]
            if not known.spatial:
                maps = maps[..., None, None]
            means.append(maps.mean((2, 3)))
            outputs.append(answers.flatten(2).amax(2) if answers.ndim > 2 else answers)
            weighted = np.einsum("mlc,ncyx->mnlyx", detector.weights, maps.double().cpu().numpy())
            evidence.append(weighted + detector.offsets[:, None, :, None, None])
            shown += list(group)
            advance(len(group))
    scores = scores_of(detector, torch.cat(means).cpu().numpy(), torch.cat(outputs).cpu().numpy())
    cells = (evidence[0].shape[-2], evidence[0].shape[-1])
    return Alarm(
        place=scope.layers.place(known, cells, (shown[0].shape[1], shown[0].shape[2])) if known.spatial else (),
        scores=scores,
        alarms=scores > detector.thresholds[:, None],
        thresholds=detector.thresholds,
        spread=detector.scores.std(1),
        evidence=np.concatenate(evidence, 1),
        images=torch.stack(shown),
        names=reader.names,
        classes=detector.classes,
        layer=detector.layer,
        method=METHODS.index(method),
        skipped=reader.skipped,
        cut=reader.cut,
        manifest={"precision": scope.resolve("measure"), "images": list(reader.names)},
    )
