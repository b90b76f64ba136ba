"""The command that serves an atlas, or the live page alone, with the network at hand."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any, Literal

from convscope.cli.derive import command
from convscope.cli.running import open_network
from convscope.cli.show import progress, say, write_told
from convscope.errors import BadInput, NotInstalled
from convscope.files import local_path
from convscope.text import printable


@command
def serve(
    site: Path | None = None,
    /,
    *,
    network: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    out: Path | None = None,
    layers: str | None = None,
    weights: str = "pretrained",
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> None:
    """Serves an atlas with its network at hand, or without one the page that measures a photograph of yours.

    On the live page, parts of a photograph are hidden (occlusion), units are silenced, projected to pixels, and images optimized for them,
    all while you watch.

    Args:
        site: The folder of an atlas. Default: the live page alone.
        network: A torchvision name, timm:NAME, file.py:function, or textures. Default: the site's, where its survey can name it.
        host: Address to listen on. Any other than this machine's own asks every visitor for a token.
        port: Port to listen on; 0: any that is free.
        out: Folder that results are kept in. Default: none is.
        layers: Layers to measure, with commas in between. Default: the site's, else every convolution after its ReLU.
        weights: A file (.safetensors, .pth), "pretrained" or "random".
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Number format of the network's computation.

    Command line:
        convscope serve --network textures
    """
    try:
        import fastapi  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import uvicorn
    except ImportError:
        raise NotInstalled("serving needs fastapi and uvicorn", "serve") from None
    if site is None and network is None:
        raise BadInput("serve: expected the folder of an atlas, or --network NAME")
    if site is not None and not (site / "index.html").is_file():
        raise BadInput(f"{site}: there is no atlas in this folder (no index.html)")
    say(f"opening {network or f'the network of {printable(site or Path())}'} ...", error=True)  # seconds pass until it listens
    from convscope.serve.app import application
    from convscope.serve.guard import is_loopback

    with progress():
        scope, names = _opened(site, network, layers, {"weights": weights, "device": device, "precision": precision})
    if out is not None:
        local_path(out).mkdir(parents=True, exist_ok=True)
    own = is_loopback(host)
    listener = _listener(host, port)
    port = listener.getsockname()[1]
    token = "" if own else secrets.token_urlsafe(24)
    known = [host, "127.0.0.1", "localhost", "[::1]"] if own else []
    hosts = frozenset(f"{each}:{port}" for each in known) if own else None
    app = application(scope, site, names, out, hosts, token)
    shown = f"[{host}]" if ":" in host else host
    say(f"listening on http://{shown}:{port}/{'index.html' if site else 'live.html'}{f'?token={token}' if token else ''}")
    say("Ctrl-C ends")
    write_told()
    sys.stdout.flush()
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=0, server_header=False, limit_concurrency=200)
    )
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        say("ended")


def _listener(host: str, port: int) -> Any:
    """A socket that listens.

    Raises:
        BadInput: The address or port cannot be had.
    """
    import socket

    listener: socket.socket | None = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        if listener is not None:
            listener.close()
        raise BadInput(f"--host {host} --port {port}: cannot listen there ({error})") from None
    return listener


def _opened(site: Path | None, network: str | None, layers: str | None, settings: dict[str, Any]) -> tuple[Any, list[str]]:
    """The network, if there is one, and the layers to measure."""
    from convscope.galleries.atlas import chosen_layers
    from convscope.names import OUTPUT
    from convscope.survey import read_survey
    from convscope.zoo.recorded import check_recorded, open_recorded

    survey = read_survey(site / "data") if site is not None else None
    if network is not None:
        scope = open_network(network, **settings)
        if survey is not None:
            check_recorded(scope, survey.manifest["network"], str(site))
    else:
        try:
            given = settings | {"weights": None if settings["weights"] == "pretrained" else settings["weights"]}
            scope = open_recorded(survey.manifest["network"], str(site), **given) if survey is not None else None
        except BadInput as error:
            say(f"without the network: {error.message}")
            return None, []
    if survey is not None:
        return scope, [name for name in survey.layers if name != OUTPUT]
    wanted = [name.strip() for name in layers.split(",") if name.strip()] if layers else None
    return scope, chosen_layers(scope, wanted) if scope is not None else []
