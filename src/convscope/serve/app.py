"""The web application: the files of a site, the live page, and what the network computes for it."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi import Path as Path_
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from PIL import Image as Pillow
from pydantic import Field
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles

from convscope.errors import BadImage, BadInput, ConvscopeError
from convscope.names import OUTPUT
from convscope.optimize.objectives import direction
from convscope.results.base import Result
from convscope.results.channels import shown
from convscope.results.feature_visualization import FeatureVisualization
from convscope.results.map_overlay import MapOverlay
from convscope.scope import Scope
from convscope.serve.desk import MOST, Cancelled, Desk, Full, Job, line_of, unseen
from convscope.serve.guard import Guard
from convscope.serve.upload import MOST_BYTES, Decoder
from convscope.site.serve_page import alone_page, alone_script, static_file, with_server
from convscope.techniques.deconvnet import deconvnet
from convscope.techniques.feature_visualization import feature_visualization
from convscope.techniques.hypothesis import hypothesis
from convscope.techniques.knockout import knockout
from convscope.techniques.map_overlay import map_overlay
from convscope.techniques.occlusion import occlusion
from convscope.techniques.unit_attribution import unit_attribution

_PHOTOS, _RESULTS = 64, 32
_STEPS_SHOWN = 8
_FINER = 4
_TOP = 5
_MOST_STEPS = 256
_REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"description": "The network fails on this."},
    404: {"description": "No such photograph or result."},
    422: {"description": "A layer, unit or number that is none."},
    429: {"description": "Too much is being worked on."},
}
_NO_IMAGE: dict[int | str, dict[str, Any]] = {
    408: {"description": "The upload is too slow."},
    413: {"description": "The file is too large."},
    415: {"description": "Not an image."},
}
_SAME: dict[int | str, dict[str, Any]] = {409: {"description": "A class is compared with itself."}}
_NO_PLACE: dict[int | str, dict[str, Any]] = {409: {"description": "The server was started without --out."}}
_FILE = {"requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}}
Name = Annotated[str, Query(max_length=300)]
Number = Annotated[int, Path_(ge=0, le=2**31)]
Unit = Annotated[int, Query(ge=0, le=2**31)]
Several = Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Query(min_length=1, max_length=512)]
Photos = Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Query(min_length=2, max_length=_PHOTOS)]
Side = Annotated[int, Query(ge=4, le=512)]
Score = Literal["probability", "log-odds"]
Steps = Annotated[int, Query(ge=1, le=_MOST_STEPS)]


class _Kept(OrderedDict[int, Any]):
    """The newest few of something, by number."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most, self._numbers = most, itertools.count()

    def add(self, value: Any) -> int:
        number = next(self._numbers)
        self[number] = value
        while len(self) > self._most:
            self.popitem(last=False)
        return number


class _Bench:
    """What the endpoints work with.

    Attributes:
        scope: The network.
        layers: Layers that photographs are measured in, "output" left out.
        out: Where results are kept; None: nowhere.
    """

    def __init__(self, scope: Scope, layers: list[str], out: Path | None) -> None:
        self.scope, self.layers, self.out = scope, layers, out
        self.desk, self.decode = Desk(), Decoder(scope.inputs.preprocessing)
        self.photos, self.results = _Kept(_PHOTOS), _Kept(_RESULTS)
        self.reading = 0
        self.keeping = asyncio.Lock()

    def photo(self, number: int) -> torch.Tensor:
        """An uploaded image, (1 c h w) in [0,1]."""
        if number not in self.photos:
            raise HTTPException(404, "no such photograph; upload it again")
        return self.photos[number]

    def layer(self, name: str) -> str:
        try:
            return self.scope.layers[name].name
        except ConvscopeError as error:
            raise HTTPException(404, error.message) from None

    def units(self, layer: str, asked: list[int]) -> list[int]:
        self.layer(layer)
        try:
            return self.scope.units(layer, asked)
        except ConvscopeError as error:
            raise HTTPException(404, error.message) from None

    def submit(self, work: Callable[[], Any], seen: Callable[[str, Any], None] = unseen) -> Job:
        try:
            return self.desk.submit(work, seen)
        except Full:
            raise _busy() from None

    # ------------------------------------------------------------------------------------------------- on the worker's thread

    def measure(self, image: torch.Tensor) -> dict[str, Any]:
        """Output, means and maxima of an image."""
        with torch.no_grad():
            found = self.scope.observe(image, [*self.layers, OUTPUT], lambda layer, value: _reduced(layer.channels_first(value)))
        means, maxima = (
            torch.cat([found[name][place] for name in self.layers], 1)
            if self.layers
            else torch.zeros(1, 0, dtype=torch.float32, device="cpu")
            for place in (0, 1)
        )
        return {"output": _text(found[OUTPUT][0]), "means": _text(means), "maxima": _text(maxima)}

    def mean(self, image: torch.Tensor, name: str) -> np.ndarray:
        """Mean activation of every unit of a layer on an image, (c)."""
        with torch.no_grad():
            return _reduced(self.scope.run(image, name, channels_first=True)[name])[0][0].numpy()

    def maps(self, image: torch.Tensor, name: str) -> dict[str, Any]:
        with torch.no_grad():
            value = self.scope.run(image, name, channels_first=True)[name]
        return {"maps": _text(value), "size": list(value.shape[2:])}

    def finer(self, image: torch.Tensor, name: str, units: list[int]) -> MapOverlay:
        """The map of a unit with as many more cells as the layer has pixels for, up to four times each way."""
        layer = self.scope.layers[name]
        steps = self.scope.layers.step(layer, (layer.spatial[0], layer.spatial[1])) if len(layer.spatial) == 2 else None
        return map_overlay(self.scope, name, image, units=units, finer=_FINER if steps is None else max(1, min(_FINER, int(min(steps)))))


def _reduced(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = value.float().cpu().flatten(2) if value.ndim > 2 else value.float().cpu()[..., None]
    return flat.mean(2), flat.amax(2)


def _text(values: torch.Tensor | np.ndarray) -> str:
    """Numbers as base64 of little-endian float32."""
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def _png(pixels: np.ndarray) -> str:
    """An image (c h w) in [0,1] as the address of a PNG."""
    values = np.rint(np.clip(np.moveaxis(pixels, 0, -1), 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(values if values.shape[2] == 3 else values[..., 0]).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _busy() -> HTTPException:
    return HTTPException(429, f"{MOST} requests are being worked on; try again soon", {"Retry-After": "2"})


async def _finished(job: Job, request: Request) -> Any:
    """The result of a job; cancelled when the client leaves."""
    waiting = asyncio.wrap_future(job.done)
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=0.25)
            if done:
                return waiting.result()
            if await request.is_disconnected():
                raise Cancelled
    except (Cancelled, asyncio.CancelledError):
        raise HTTPException(499, "the client has left") from None
    except Exception as error:
        raise HTTPException(422 if isinstance(error, ConvscopeError) else 400, line_of(error)) from None
    finally:
        job.cancel()


def _forming(bench: _Bench, work: Callable[[], FeatureVisualization]) -> StreamingResponse:
    """An image as it forms, every few steps."""
    count = itertools.count(1)

    def told(_: str, value: Any) -> Any:
        step = next(count)
        if step % _STEPS_SHOWN:
            return None
        return {"step": step, "image": _png(np.clip(value[0][:3] if value.shape[1] >= 3 else value[0][:1], 0, 1))}

    def last(result: Any) -> Any:
        return {"result": bench.results.add(result), "image": _png(shown(result, result.images[0])), "status": str(result.status[0])}

    return _stream(bench, work, told, last)


def _stream(bench: _Bench, work: Callable[[], Any], told: Callable[[str, Any], Any], last: Callable[[Any], Any]) -> StreamingResponse:
    """Server-sent events: what is being made, then "done" with the result, or "failed". A client that leaves ends the work."""
    loop, events = asyncio.get_running_loop(), asyncio.Queue[tuple[str, Any]]()

    def put(name: str, value: Any) -> None:
        loop.call_soon_threadsafe(events.put_nowait, (name, value))

    def seen(what: str, value: Any) -> None:
        if (words := told(what, value)) is not None:
            put(what, words)

    job = bench.submit(work, seen)

    def ended(done: Any) -> None:
        error = done.exception()
        if loop.is_closed():
            return
        put(*(("failed", {"detail": line_of(error)}) if error is not None else ("done", last(done.result()))))

    job.done.add_done_callback(ended)

    async def lines() -> AsyncIterator[str]:
        try:
            yield ": begun\n\n"
            while True:
                name, value = await events.get()
                yield f"event: {name}\ndata: {json.dumps(value)}\n\n"
                if name in ("done", "failed"):
                    return
        finally:
            job.cancel()

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"})


def application(
    scope: Scope | None, site: Path | None, layers: list[str], out: Path | None, hosts: frozenset[str] | None, token: str
) -> FastAPI:
    """The application.

    Args:
        scope: The network; None: the site's files alone.
        site: The folder of an atlas; None: the live page alone.
        layers: Layers that photographs are measured in.
        out: Where results are kept; None: nowhere.
        hosts, token: See :class:`~convscope.serve.guard.Guard`.
    """
    bench = None if scope is None else _Bench(scope, layers, out)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncGenerator[None]:
        yield
        if bench is not None:
            bench.desk.cancel_all()

    app = FastAPI(
        title="convscope serve",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=life,
        max_body_size=MOST_BYTES,
    )
    app.add_middleware(Guard, hosts=hosts, token=token)
    if bench is not None:
        _add_endpoints(app, bench)
    if site is not None:
        _add_page(app, site, serving=bench is not None)
        app.router.routes.append(_Pages("/", StaticFiles(directory=site, html=True), name="site"))
    elif bench is not None:
        _add_alone(app, bench)
    return app


class _Pages(Mount):
    """A site's files. What is below /api is not looked for here, so that a wrong method is answered with the right ones."""

    def matches(self, scope: Any) -> tuple[Match, Any]:
        return (Match.NONE, {}) if scope["path"].startswith("/api/") else super().matches(scope)


def _add_page(app: FastAPI, site: Path, *, serving: bool) -> None:
    @app.get("/live.html", include_in_schema=False)
    def live() -> Response:
        page = site / "live.html"
        if not page.is_file() or page.resolve().parent != site.resolve():  # a link to a file elsewhere, in a site from elsewhere
            raise HTTPException(404)
        text = page.read_text(encoding="utf-8", errors="replace")
        return HTMLResponse(with_server(text) if serving else text)

    _add_static(app, ("live.js", "live-serve.js", "atlas.css"))  # as the server knows them, whenever the site was made


def _add_alone(app: FastAPI, bench: _Bench) -> None:
    scope = bench.scope
    name = Path(scope.name).name

    @app.get("/", include_in_schema=False)
    def first() -> Response:
        return RedirectResponse("/live.html")

    @app.get("/live.html", include_in_schema=False)
    def live() -> Response:
        return HTMLResponse(with_server(alone_page(name)))

    @app.get("/live/network.js", include_in_schema=False)
    def known() -> Response:
        layers = scope.layers
        rows = [(name, layers[name].channels, layers[name].spatial, layers.own_place(name)) for name in [*bench.layers, OUTPUT]]
        return Response(alone_script(scope.inputs.preprocessing, rows, scope.class_names), media_type="text/javascript")

    _add_static(app, ("live.js", "live-serve.js", "live-worker.js", "atlas.css"))


def _add_static(app: FastAPI, names: Sequence[str]) -> None:
    def route(name: str) -> None:
        @app.get(f"/static/{name}", include_in_schema=False)
        def static() -> Response:
            return Response(static_file(name), media_type="text/css" if name.endswith(".css") else "text/javascript")

    for name in names:
        route(name)


def _add_endpoints(app: FastAPI, bench: _Bench) -> None:
    scope = bench.scope

    @app.exception_handler(ConvscopeError)
    async def refused(_: Request, error: ConvscopeError) -> JSONResponse:
        return JSONResponse({"detail": error.message}, 422)

    @app.post(
        "/api/photographs",
        responses=_REFUSED | _NO_IMAGE,
        openapi_extra=_FILE,
    )
    async def read(request: Request) -> dict[str, Any]:
        """Measures an image: the file itself is the body. Numbers are base64 of float32, pixels of uint8 (h w c)."""
        if bench.reading + bench.desk.busy >= MOST:
            raise _busy()
        bench.reading += 1  # counted before the body is read, so that slow uploads cannot pile up
        try:
            data = await asyncio.wait_for(request.body(), 30)
            uploaded = await bench.decode(data)
        except BadImage as error:
            raise HTTPException(415, error.reason) from None
        except TimeoutError:
            raise HTTPException(408, "the upload is too slow") from None
        finally:
            bench.reading -= 1
        pixels = uploaded.pixels if uploaded.pixels.shape[2] == 3 else np.repeat(uploaded.pixels, 3, 2)
        image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(uploaded.pixels, -1, 0)).astype(np.float32) / 255)[None]
        found = await _finished(bench.submit(lambda: bench.measure(image)), request)
        number = bench.photos.add(image)
        return found | {"photo": number, "of": list(uploaded.of), "pixels": base64.b64encode(pixels.tobytes()).decode()}

    @app.get("/api/photographs/{photo}/maps", responses=_REFUSED)
    async def maps(request: Request, photo: Number, layer: Name) -> dict[str, Any]:
        """The maps of all units of a layer, base64 of float32 (c h w)."""
        image, name = bench.photo(photo), bench.layer(layer)
        return await _finished(bench.submit(lambda: bench.maps(image, name)), request)

    @app.post("/api/photographs/{photo}/finer-map", responses=_REFUSED)
    async def finer_map(request: Request, photo: Number, unit: Unit, layer: Name) -> dict[str, Any]:
        """A unit's map with up to four times as many cells each way, base64 of float32 (h w), and where it lies: y0 x0 y1 x1 in pixels."""
        image, units = bench.photo(photo), bench.units(layer, [unit])
        result = await _finished(bench.submit(lambda: bench.finer(image, bench.layer(layer), units)), request)
        map_ = result.maps[0, 0]
        return {"result": bench.results.add(result), "map": _text(map_), "size": list(map_.shape), "place": list(result.place)}

    @app.post("/api/photographs/{photo}/occlusion", responses=_REFUSED, response_class=StreamingResponse)
    async def hide(
        photo: Number, target: Unit | None = None, patch: Side = 32, stride: Side = 16, score: Score = "probability"
    ) -> Response:
        """Occlusion as server-sent events: "occlusion" with boxes (y0 x0 y1 x1) and scores, then "done"."""
        image = bench.photo(photo)
        if target is not None:
            bench.units(OUTPUT, [target])

        def told(what: str, value: Any) -> Any:
            return {name: each.tolist() for name, each in value.items()} if what == "occlusion" else None

        def last(result: Any) -> Any:
            classes = int(result.targets[0])
            return {"result": bench.results.add(result), "base": float(result.base[0]), "target": classes, "map": result.map[0].tolist()}

        return _stream(bench, lambda: occlusion(scope, image, target, patch=patch, stride=stride, score=score), told, last)

    @app.post("/api/photographs/{photo}/deconvnet", responses=_REFUSED)
    async def project(request: Request, photo: Number, unit: Unit, layer: Name) -> dict[str, Any]:
        """A unit's activation carried back to pixels; grey is zero."""
        image, units = bench.photo(photo), bench.units(layer, [unit])
        result = await _finished(bench.submit(lambda: deconvnet(scope, layer, units, image)), request)
        values = result.projection[0, 0]
        inside = np.abs(values[values != 0])
        reach = float(np.quantile(inside, 0.995)) if inside.size else 1.0
        return {
            "result": bench.results.add(result),
            "image": _png(0.5 + 0.5 * values / (reach or 1.0)),
            "value": float(result.values[0, 0]),
        }

    @app.post("/api/photographs/{photo}/knockout", responses=_REFUSED)
    async def silence(request: Request, photo: Number, layer: Name, units: Several) -> dict[str, Any]:
        """The probabilities of classes with units of a layer silenced, before and after."""
        image, asked = bench.photo(photo), bench.units(layer, units)
        result = await _finished(bench.submit(lambda: knockout(scope, layer, asked, image, controls=0)), request)
        before, after = result.before[0], result.after[0, 0]
        listed = list(
            dict.fromkeys([*np.argsort(-before, kind="stable")[:_TOP].tolist(), *np.argsort(-after, kind="stable")[:_TOP].tolist()])
        )
        rows = [{"class": one, "before": float(before[one]), "after": float(after[one])} for one in listed]
        return {"result": bench.results.add(result), "classes": rows}

    @app.post("/api/photographs/{photo}/attribution", responses=_REFUSED | _SAME)
    async def attribute(
        request: Request, photo: Number, layer: Name, target: Unit | None = None, against: Unit | None = None
    ) -> dict[str, Any]:
        """The units of a layer that raise and lower a class (None: the predicted one), by the log-odds lost without each."""
        image, name = bench.photo(photo), bench.layer(layer)
        for one in (target, against):
            if one is not None:
                bench.units(OUTPUT, [one])
        if target is not None and target == against:
            raise HTTPException(409, "against: it is the target itself")
        result = await _finished(bench.submit(lambda: unit_attribution(scope, image, target, against=against, layer=name)), request)
        return {
            "result": bench.results.add(result),
            "target": result.targets[0],
            "predicted": int(result.predicted[0]),
            "without": int(result.predicted_without[0]),
            "raising": result.raising,
            "units": [{"unit": unit, "lost": float(lost)} for unit, lost in zip(result.units, result.effect[0], strict=True)],
        }

    @app.post("/api/hypothesis", responses=_REFUSED)
    async def test(request: Request, unit: Unit, layer: Name, shows: Photos, lacks: Photos) -> dict[str, Any]:
        """Whether a unit responds more to photographs that show something than to those that do not: AUC, rank, permutation p-value."""
        asked = bench.units(layer, [unit])[0]
        groups = [torch.cat([bench.photo(number) for number in numbers]) for numbers in (shows, lacks)]
        result = await _finished(bench.submit(lambda: hypothesis(scope, layer, asked, *groups)), request)
        return {
            "result": bench.results.add(result),
            "auc": float(result.auc[asked]),
            "rank": result.rank,
            "p": float(result.p_corrected[asked]),
            "verdict": result.verdict,
        }

    @app.post("/api/visualization", responses=_REFUSED, response_class=StreamingResponse)
    async def optimize(layer: Name, unit: Unit, steps: Steps = 64) -> Response:
        """An image optimized from noise to excite a unit, as server-sent events: "image" every few steps, then "done"."""
        units, name = bench.units(layer, [unit]), bench.layer(layer)
        return _forming(bench, lambda: feature_visualization(scope, name, units, steps=steps))

    @app.post("/api/photographs/{photo}/visualization", responses=_REFUSED, response_class=StreamingResponse)
    async def optimize_direction(photo: Number, layer: Name, steps: Steps = 64) -> Response:
        """The same for the direction of a photograph's mean activations in the layer: what the layer sees in it."""
        image, name = bench.photo(photo), bench.layer(layer)

        def work() -> FeatureVisualization:
            along = direction(name, bench.mean(image, name), cosine_power=1)
            return feature_visualization(scope, name, objective=along, steps=steps)

        return _forming(bench, work)

    @app.post("/api/results/{result}/keep", responses=_REFUSED | _NO_PLACE)
    async def keep(result: Number) -> dict[str, str]:
        """Saves a result below --out as its command would: arrays, figure, and a manifest that says how it was made."""
        if bench.out is None:
            raise HTTPException(409, "start the server with --out FOLDER to keep results")
        if result not in bench.results:
            raise HTTPException(404, "no such result any more")
        found: Result = bench.results[result]
        numbers = (f"{found.technique}-{number:04d}" for number in itertools.count())
        async with bench.keeping:  # one after another, so that no two take the same free name
            place = next(bench.out / name for name in numbers if not (bench.out / name).exists())
            try:
                await asyncio.to_thread(found.save, place)
            except (OSError, BadInput) as error:
                raise HTTPException(400, f"it cannot be written ({type(error).__name__})") from None
        return {"kept": place.name}
