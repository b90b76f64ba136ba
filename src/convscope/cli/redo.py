"""The command that makes an image again from its receipt, the record of how it was made that the file holds."""

from __future__ import annotations

from pathlib import Path

from convscope.cli.derive import command
from convscope.cli.objectives import objective as words_of
from convscope.cli.output import check_file, write_somewhere
from convscope.cli.show import print_written, progress, say, tell


@command
def redo(
    image: Path, *, network: str | None = None, weights: str | None = None, objective: str | None = None, out: Path | None = None
) -> int:
    """Makes a feature visualization again from its receipt and compares the two.

    Says bit-equal, or the largest difference; exit code 1 if they differ by more than 2/255 on average.

    Args:
        image: An image that convscope feature-visualization or convscope atlas has written.
        network: The network, if the receipt's name no longer leads to it.
        weights: Where its weights are now.
        objective: The objective, if it was one of your own: FILE.py:FUNCTION.
        out: File to write the new image to, too.

    Command line:
        convscope redo out/feature-visualization/textures-output/unit_0000.png
        convscope redo out/feature-visualization/textures-output/unit_0000.png --out again.png
    """
    from convscope.galleries.redo import redo as again
    from convscope.receipts import read_receipt, write_png
    from convscope.zoo import open as open_network
    from convscope.zoo.recorded import recorded_output

    if out is not None:
        check_file(out)
    with progress():
        receipt = read_receipt(image) if network or objective else {}
        output = recorded_output(receipt.get("network") or {})
        scope = open_network(network, weights=weights or "pretrained", output=output) if network else None
        layer = receipt.get("parameters", {}).get("layer", "") if objective else ""
        made = again(image, scope=scope, weights=weights, objective=words_of(objective).make(layer) if objective else None)
    say(f"{image}: {made.verdict}")
    tell(equal=made.equal, largest=made.largest, mean=made.mean)
    if out is not None:
        print_written([(write_somewhere(lambda place: write_png(place, made.image, {"redone": str(image)}), out), "the new image")])
    return 1 if made.mean > 2 else 0
