"""The server: what it computes is what the library computes, what is not meant for it is refused, and nobody's work outlives them."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convscope as cs
from convscope.cli import main
from convscope.optimize import objectives
from convscope.scope import Scope
from convscope.zoo.textures import generator

pytest.importorskip("fastapi", reason="fastapi is not installed (it is in the extra `serve`)")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed (it is in the extra `serve`)")

LAYERS = ["features.13", "features.27"]


class Server:
    """A server on a port of this machine, and plain requests to it."""

    def __init__(self, app: Any, listener: socket.socket) -> None:
        self.port = listener.getsockname()[1]
        self.app = app
        settings = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=0, limit_concurrency=200)
        self.server = uvicorn.Server(settings)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None) -> Any:
        status, data, _ = self.ask(method, path, body)
        assert status == 200, data
        return json.loads(data)

    def events(self, path: str) -> list[tuple[str, Any]]:
        _, data, headers = self.ask("POST", path)
        assert headers["content-type"].startswith("text/event-stream")
        parts = [part.split("\n") for part in data.decode().split("\n\n") if part.startswith("event")]
        return [(first.removeprefix("event: "), json.loads(second.removeprefix("data: "))) for first, second in parts]


@pytest.fixture(scope="module")
def scope() -> Scope:
    return cs.open("textures", precision="float32")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served") / "site"
    (place / "static").mkdir(parents=True)
    (place / "index.html").write_text("the first page")
    (place / "live.html").write_text('<body data-kind="live">the live page</body>')
    (place.parent / "secret.txt").write_text("secret")
    (place / "outside.txt").symlink_to(place.parent / "secret.txt")
    return place


@contextlib.contextmanager
def serving(scope: Scope | None, site: Path | None, out: Path | None = None, token: str = "") -> Iterator[Server]:
    from convscope.serve.app import application

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        hosts = frozenset([f"127.0.0.1:{port}", f"localhost:{port}"])
        server = Server(application(scope, site, LAYERS if scope else [], out, hosts, token), listener)
        yield server
        server.server.should_exit = True
        server.thread.join(10)
        assert not server.thread.is_alive()


@pytest.fixture(scope="module")
def server(scope: Scope, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(scope, site, tmp_path_factory.mktemp("kept")) as running:
        yield running


def encoded(number: int = 0, kind: str = "PNG", size: tuple[int, int] = (201, 149), **options: Any) -> bytes:
    picture = Image.fromarray(generator.batch(number, [number], seed=5, size=128)[0]).resize(size)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def numbers(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def image_of(scope: Scope, data: bytes) -> torch.Tensor:
    pixels = scope.inputs.preprocessing.pixels(data)
    return torch.from_numpy(np.moveaxis(pixels, -1, 0).astype(np.float32) / 255)[None]


# ------------------------------------------------------------------------------------------------------------------- what it computes


def test_a_photograph_is_measured_as_the_library_does(server: Server, scope: Scope) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (encoded(1), encoded(2, "JPEG", quality=90, exif=exif), encoded(3, "WEBP")):
        found = server.json("POST", "/api/photographs", data)
        image = image_of(scope, data)
        values = scope.activations(image, [*LAYERS, "output"])
        means = np.concatenate([values[name][0].mean((1, 2)).numpy() for name in LAYERS])
        np.testing.assert_allclose(numbers(found["means"]), means, rtol=1e-4, atol=1e-4 * means.max())
        np.testing.assert_allclose(numbers(found["output"]), values["output"][0].numpy(), rtol=1e-4, atol=1e-4)
        pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8).reshape(128, 128, 3)
        np.testing.assert_array_equal(pixels, scope.inputs.preprocessing.pixels(data))
        maps = server.json("GET", f"/api/photographs/{found['photo']}/maps?layer={LAYERS[0]}")
        np.testing.assert_allclose(numbers(maps["maps"]).reshape(values[LAYERS[0]].shape[1:]), values[LAYERS[0]][0].numpy(), atol=1e-3)


def test_occlusion_arrives_in_parts_that_make_the_whole(server: Server, scope: Scope) -> None:
    data = encoded(4)
    photo = server.json("POST", "/api/photographs", data)["photo"]
    events = server.events(f"/api/photographs/{photo}/occlusion?patch=32&stride=16&target=3")
    expected = cs.occlusion(scope, image_of(scope, data), 3, patch=32, stride=16)
    assert events[-1][0] == "done" and events[0][0] == "occlusion"
    np.testing.assert_allclose(events[-1][1]["map"], expected.map[0], rtol=1e-4, atol=1e-6)
    odds = server.events(f"/api/photographs/{photo}/occlusion?patch=32&stride=16&target=3&score=log-odds")[-1][1]
    np.testing.assert_allclose(1 / (1 + np.exp(-np.array(odds["map"]))), expected.map[0], rtol=1e-3, atol=1e-6)
    parts = {tuple(box): score for name, value in events[:-1] if name == "occlusion" for box, score in zip(*value.values(), strict=True)}
    assert len(parts) == expected.map[0].size
    for box, score in zip(expected.boxes.reshape(-1, 4).tolist(), expected.map[0].ravel(), strict=True):
        assert abs(parts[tuple(box)] - score) < 1e-4


def test_units_are_silenced_and_projected(server: Server, scope: Scope) -> None:
    data = encoded(5)
    photo, image = server.json("POST", "/api/photographs", data)["photo"], image_of(scope, data)
    found = server.json("POST", f"/api/photographs/{photo}/knockout?layer={LAYERS[1]}&units=3&units=5")
    expected = cs.knockout(scope, LAYERS[1], [3, 5], image, controls=0)
    assert found["classes"][0]["class"] == int(expected.before[0].argmax())
    for row in found["classes"]:
        assert (
            abs(row["before"] - expected.before[0, row["class"]]) < 1e-5 and abs(row["after"] - expected.after[0, 0, row["class"]]) < 1e-5
        )
    found = server.json("POST", f"/api/photographs/{photo}/deconvnet?layer={LAYERS[0]}&unit=7")
    assert abs(found["value"] - cs.deconvnet(scope, LAYERS[0], [7], image).values[0, 0]) < 1e-3
    assert found["image"].startswith("data:image/png;base64,")


def test_a_finer_map(server: Server, scope: Scope) -> None:
    data = encoded(6)
    photo, image = server.json("POST", "/api/photographs", data)["photo"], image_of(scope, data)
    for layer in LAYERS:
        found = server.json("POST", f"/api/photographs/{photo}/finer-map?layer={layer}&unit=4")
        step = min(scope.layers.step(scope.layers[layer], scope.layers[layer].spatial))
        expected = cs.map_overlay(scope, layer, image, units=[4], finer=min(4, int(step)))
        map_ = np.frombuffer(base64.b64decode(found["map"]), "<f4").reshape(found["size"])
        np.testing.assert_allclose(map_, expected.maps[0, 0], rtol=1e-4, atol=1e-5)
        assert found["place"] == list(expected.place)
    status, body, _ = server.ask("POST", f"/api/photographs/{photo}/finer-map?layer=output&unit=0")
    assert status == 422 and b"no maps" in body


def test_an_image_forms_step_by_step(server: Server) -> None:
    events = server.events(f"/api/visualization?layer={LAYERS[0]}&unit=2&steps=24")
    assert [value["step"] for name, value in events if name == "image"][:3] == [8, 16, 24] and events[-1][0] == "done"


def test_an_image_forms_along_the_direction_of_a_photograph(server: Server, scope: Scope) -> None:
    data = encoded(8)
    photo = server.json("POST", "/api/photographs", data)["photo"]
    events = server.events(f"/api/photographs/{photo}/visualization?layer={LAYERS[1]}&steps=16")
    assert events[-1][0] == "done" and events[-1][1]["image"].startswith("data:image/png;base64,")
    mean = scope.activations(image_of(scope, data), LAYERS[1])[LAYERS[1]][0].mean((1, 2)).numpy()
    along = objectives.direction(LAYERS[1], mean, cosine_power=1)
    expected = cs.feature_visualization(scope, LAYERS[1], objective=along, steps=16)
    made = np.asarray(Image.open(io.BytesIO(base64.b64decode(events[-1][1]["image"].partition(",")[2]))), np.float32)
    assert np.abs(made - 255 * np.moveaxis(expected.images[0], 0, -1)).mean() < 2
    assert server.ask("POST", f"/api/visualization?layer={LAYERS[1]}")[0] == 422
    assert server.ask("POST", f"/api/photographs/{photo}/visualization?layer=nothing")[0] == 404


def test_units_behind_a_verdict(server: Server, scope: Scope) -> None:
    data = encoded(9)
    photo = server.json("POST", "/api/photographs", data)["photo"]
    found = server.json("POST", f"/api/photographs/{photo}/attribution?layer={LAYERS[1]}&target=3&against=5")
    assert server.ask("POST", f"/api/photographs/{photo}/attribution?layer={LAYERS[1]}&target=3&against=3")[0] == 409
    expected = cs.unit_attribution(scope, image_of(scope, data), 3, against=5, layer=LAYERS[1])
    assert [row["unit"] for row in found["units"]] == list(expected.units) and found["raising"] == expected.raising
    np.testing.assert_allclose([row["lost"] for row in found["units"]], expected.effect[0], rtol=1e-3, atol=1e-4)
    assert (found["target"], found["without"]) == (3, int(expected.predicted_without[0]))


def test_a_guess_gets_a_p_value(server: Server, scope: Scope) -> None:
    files = [encoded(number) for number in (1, 1, 1, 2, 3)]
    numbers_of = [server.json("POST", "/api/photographs", data)["photo"] for data in files]
    shows, lacks = (numbers_of[:3], numbers_of[3:])
    query = "&".join([*(f"shows={one}" for one in shows), *(f"lacks={one}" for one in lacks)])
    found = server.json("POST", f"/api/hypothesis?layer={LAYERS[1]}&unit=4&{query}")
    images = torch.cat([image_of(scope, data) for data in files])
    expected = cs.hypothesis(scope, LAYERS[1], 4, images[:3], images[3:])
    assert found["auc"] == pytest.approx(expected.auc[4]) and found["rank"] == expected.rank
    assert found["p"] == pytest.approx(float(expected.p_corrected[4])) and found["verdict"] == expected.verdict
    assert server.ask("POST", f"/api/hypothesis?layer={LAYERS[1]}&unit=4&shows={shows[0]}&lacks={lacks[0]}")[0] == 422
    assert server.ask("POST", f"/api/hypothesis?layer={LAYERS[1]}&unit=4&shows=999&shows=998&lacks=0&lacks=1")[0] == 404


def test_results_are_kept_with_a_receipt(scope: Scope, site: Path, tmp_path: Path) -> None:
    with serving(scope, site, tmp_path) as server:
        photo = server.json("POST", "/api/photographs", encoded(6))["photo"]
        done = server.json("POST", f"/api/photographs/{photo}/knockout?layer={LAYERS[1]}&units=1")
        for number in range(2):
            assert server.json("POST", f"/api/results/{done['result']}/keep") == {"kept": f"knockout-{number:04d}"}
        with ThreadPoolExecutor(4) as pool:  # at once
            names = pool.map(lambda _: server.json("POST", f"/api/results/{done['result']}/keep")["kept"], range(4))
            assert sorted(names) == [f"knockout-{number:04d}" for number in range(2, 6)]
        kept = cs.load(tmp_path / "knockout-0001")
        assert kept.groups and kept.manifest["technique"] == "knockout"
        assert server.ask("POST", "/api/results/99/keep")[0] == 404
    with serving(scope, site) as server:
        assert server.ask("POST", "/api/results/0/keep")[0] == 409


def test_the_page_alone_and_the_site_alone(scope: Scope, site: Path) -> None:
    with serving(scope, None) as server:
        status, _, headers = server.ask("GET", "/")
        assert status == 307 and headers["location"] == "/live.html"
        page = server.ask("GET", "/live.html")[1].decode()
        assert 'data-serve="1"' in page and "live-serve.js" in page
        known = json.loads(server.ask("GET", "/live/network.js")[1].decode().removeprefix("window.atlasNetwork=").rstrip(";\n"))
        assert [layer["name"] for layer in known["layers"]] == [*LAYERS, "output"] and known["classes"] == list(scope.class_names)
        for name in ("atlas.css", "live.js", "live-worker.js", "live-serve.js"):
            assert server.ask("GET", f"/static/{name}")[0] == 200
    with serving(None, site) as server:
        assert server.ask("GET", "/index.html")[1] == b"the first page"
        assert b"data-serve" not in server.ask("GET", "/live.html")[1]
        assert server.ask("POST", "/api/photographs", encoded())[0] in (404, 405)


def test_a_page_that_is_a_link_to_a_file_elsewhere_is_not_served(scope: Scope, site: Path, tmp_path: Path) -> None:
    """The other files of a site never were; its live page is read by us, since a line is added to it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "live.html").symlink_to(site.parent / "secret.txt")
    for network in (scope, None):
        with serving(network, tmp_path / "site") as server:
            assert server.ask("GET", "/live.html")[0] == 404
    (tmp_path / "linked").symlink_to(site)
    with serving(None, tmp_path / "linked") as server:
        assert server.ask("GET", "/live.html")[0] == 200, "the site itself may be a link"


# --------------------------------------------------------------------------------------------------------------------- what it refuses


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares so many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * min(width * height, 1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def hostile() -> list[bytes]:
    rough = np.random.default_rng(0)
    whole = [encoded(1), encoded(2, "JPEG"), encoded(3, "WEBP")]
    found = [
        b"",
        b"\0" * 1000,
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        encoded(4, "GIF"),
    ]
    found += [
        encoded(5, "TIFF"),
        encoded(6, "BMP"),
        bomb(30_000, 30_000),
        bomb(7, 7),
        bomb(2**31 - 1, 1),
        bomb(100_000, 600),
        b"PK\3\4" + whole[0],
    ]
    found += [b"GIF89a" + whole[1], b"%PDF-1.7\n" + whole[0]]
    for data in whole:
        found += [data[: len(data) * share // 20] for share in (1, 3, 8)]
        for _ in range(2):
            broken = bytearray(data)
            for place in rough.integers(0, 64, 24):
                broken[place] = int(rough.integers(0, 256))
            found.append(bytes(broken))
    return found


def test_hostile_uploads(server: Server) -> None:
    cases = hostile()
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda data: server.ask("POST", "/api/photographs", data), cases))
    for data, (status, body, _) in zip(cases, answers, strict=True):
        assert status in (200, 415), (data[:30], status, body)
        assert b"Traceback" not in body and b"/convscope/" not in body
    assert sum(status == 415 for status, *_ in answers) >= len(cases) - 6  # damage may leave an image
    assert server.ask("POST", "/api/photographs", b"\0" * (13 * 2**20))[0] == 413
    assert server.ask("POST", "/api/photographs", encoded())[0] == 200


PATHS = [
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/static/../../secret.txt",
    "/static/..%5c..%5csecret.txt",
    "/%2e%2e%2f%2e%2e%2fetc/passwd",
    "//etc/passwd",
    "/./././../secret.txt",
    "/outside.txt",
    "/secret.txt%00.html",
    "/\xe9".encode().decode("latin-1"),
    "/" + "a" * 5000,
]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_no_path_leaves_the_site(server: Server, path: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        host = f"127.0.0.1:{server.port}"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        data = b""
        while part := connection.recv(65536):
            data += part
    assert data.split()[1] in (b"400", b"404", b"405") and b"secret" not in data.split(b"\r\n\r\n", 1)[1] and b"root:" not in data


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1"}, 400),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
    ids=["host", "port", "origin", "null origin", "fetch metadata"],
)
def test_foreign_requests(server: Server, headers: dict[str, str], status: int) -> None:
    assert server.ask("POST", "/api/photographs", encoded(), headers)[0] == status


def test_its_own_page_may_ask(server: Server) -> None:
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
    status, _, headers = server.ask("POST", "/api/photographs", encoded(), own)
    assert status == 200 and headers["x-content-type-options"] == "nosniff" and "default-src 'self'" in headers["content-security-policy"]


def test_the_token(scope: Scope, site: Path) -> None:
    with serving(scope, site, token="right") as server:
        assert server.ask("GET", "/index.html")[0] == 401
        assert server.ask("GET", "/index.html?token=wrong")[0] == 401
        status, _, headers = server.ask("GET", "/index.html?token=right")
        assert status == 200 and "HttpOnly" in headers["set-cookie"] and "SameSite=Strict" in headers["set-cookie"]
        assert server.ask("GET", "/index.html", headers={"Cookie": headers["set-cookie"].split(";")[0]})[0] == 200
        assert server.ask("GET", "/index.html", headers={"Authorization": "Bearer right"})[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "0/occlusion?patch=1",
        "0/occlusion?target=999999",
        "0/deconvnet?layer=nothing&unit=0",
        f"0/deconvnet?layer={LAYERS[0]}&unit=9999",
        f"0/finer-map?layer={LAYERS[0]}&unit=9999",
        "0/knockout?layer=output",
    ],
)
def test_wrong_questions(server: Server, path: str) -> None:
    server.json("POST", "/api/photographs", encoded())
    status, body, _ = server.ask("POST", f"/api/photographs/{path}")
    assert status in (404, 422) and b"detail" in body
    assert server.ask("GET", "/api/photographs/99999/maps?layer=output")[0] == 404


def test_a_wrong_method_is_told_the_right_one(server: Server) -> None:
    status, _, headers = server.ask("OPTIONS", "/api/photographs")
    assert (status, headers["allow"]) == (405, "POST")
    assert server.ask("GET", "/api/nothing")[0] == 404


# ----------------------------------------------------------------------------------------------------------------------- many, and gone


def test_many_clients(server: Server) -> None:
    def one(number: int) -> int:
        return server.ask("POST", "/api/photographs", encoded(number % 20))[0]

    with ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(one, range(100)))
    assert set(statuses) <= {200, 429} and 200 in statuses and 429 in statuses
    answer = [server.ask("POST", "/api/photographs", encoded())[0] for _ in range(2)]
    assert answer == [200, 200]


def test_a_client_that_leaves_ends_its_work(server: Server) -> None:
    before = threading.active_count()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", f"/api/visualization?layer={LAYERS[1]}&unit=1&steps=256")
    answer = connection.getresponse()
    while b"event: image" not in answer.read1(4096):
        pass
    answer.close()
    connection.close()
    began = time.monotonic()
    server.json("POST", "/api/photographs", encoded())  # waits until the worker is free
    assert time.monotonic() - began < 10  # 256 steps take much longer
    assert threading.active_count() <= before + 5


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "expected the folder of an atlas, or --network NAME"),
        (["nothing-there"], "there is no atlas in this folder"),
        (["--network", "textures", "--host", "203.0.113.7"], "cannot listen there"),
    ],
)
def test_the_command_refuses(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *words]) == 2
    assert line in capsys.readouterr().err


def test_the_command_says_at_once_what_it_opens_and_then_where_it_listens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, scope: Scope
) -> None:
    before: list[tuple[str, str]] = []

    def opened(*_: Any) -> tuple[Scope, list[str]]:
        before.append(capsys.readouterr())
        return scope, LAYERS

    monkeypatch.setattr("convscope.cli.serve._opened", opened)
    monkeypatch.setattr(uvicorn.Server, "run", lambda _, sockets: sockets[0].close())
    assert main(["serve", "--network", "textures", "--port", "0"]) == 0
    assert before == [("", "opening textures ...\n")]
    assert capsys.readouterr().out.startswith("listening on http://127.0.0.1:")
