"""examples/play.py: its requests, and its page in a browser."""

import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("the examples run on TensorFlow", allow_module_level=True)
pytest.importorskip("flask")

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import play
from werkzeug.serving import make_server

from tests.checks import sharpened
from tests.models.test_video import CONTEXT, frames, make
from tests.models.test_video_vqvae import frames as clips
from tests.models.test_video_vqvae import predictor as make_of_video

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]
ACTIONS = ["forward", "left", "right"]


@pytest.fixture(scope="module")
def app():
    return play.make_app(make(sharp=0.4), frames(5, CONTEXT), ACTIONS, 1.0)


def test_a_walk(app) -> None:
    client = app.test_client()
    page = client.get("/").get_data(as_text=True)
    assert all(f">{name}</button>" in page for name in ACTIONS)
    first = client.post("/start", json={}).get_json()
    seen = set(first["frames"])
    for action in (0, 1, 2, 1):
        found = client.post("/step", json={"walk": first["walk"], "action": action})
        assert found.status_code == 200
        (picture,) = found.get_json()["frames"]
        assert picture.startswith("data:image/png;base64,")
        seen.add(picture)
    assert len(seen) > 2


def test_a_world_of_codes_that_span_time() -> None:
    """A key is held for all frames of a step, and all are shown."""
    model = sharpened(make_of_video(), 0.4)
    each = model.frames_per_code
    contexts = clips(3, 2 * model.context_frames)
    play.warm_up(model, contexts, 1.0)
    client = play.make_app(model, contexts, ACTIONS, 1.0).test_client()
    first = client.post("/start", json={}).get_json()
    assert len(first["frames"]) == 1
    found = client.post("/step", json={"walk": first["walk"], "action": 2})
    assert found.status_code == 200
    assert len(found.get_json()["frames"]) == each > 1


def test_only_worlds_of_these_keys() -> None:
    for model, got in ((make("buttons"), "2, buttons"), (make("none"), "0, discrete")):
        with pytest.raises(ValueError, match=f"keys are for 3 discrete actions, .* has {got}"):
            play.make_app(model, frames(5, CONTEXT), ACTIONS, 1.0)


def test_bad_requests_are_answered_and_the_next_is_served(app) -> None:
    client = app.test_client()
    walk = client.post("/start", json={}).get_json()["walk"]
    for body, message in (
        ({"walk": walk, "action": 3}, r"action must be an integer in \[0, 3\), got 3"),
        ({"walk": walk, "action": True}, "action must be an integer"),
        ({"walk": walk, "action": "left"}, "action must be an integer"),
        ({"walk": "?", "action": 0}, "not known any more"),
        ([], "send"),
    ):
        answer = client.post("/step", json=body)
        assert answer.status_code == 400
        assert re.search(message, answer.get_json()["error"])
    assert client.post("/step", data="no JSON").status_code == 400
    assert client.post("/step", json={"walk": walk, "action": 0}).status_code == 200
    for _ in range(play.MOST_WALKS):
        client.post("/start", json={})
    assert client.post("/step", json={"walk": walk, "action": 0}).status_code == 400


def test_a_world_of_the_zoo_or_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="nowhere has no predictor.keras .* no world of the zoo"):
        play.load("nowhere")
    with pytest.raises(ValueError, match="no world of the zoo"):
        play.load("vizdoom_frames")  # pictures
    model, contexts = make(sharp=0.4), frames(5, CONTEXT)
    model.save(tmp_path / "predictor.keras")
    np.savez_compressed(tmp_path / "contexts.npz", frames=contexts)
    (tmp_path / "actions.json").write_text(json.dumps(ACTIONS))
    assert play.load(str(tmp_path))[3] == 1.0
    (tmp_path / "metrics.json").write_text(json.dumps({"temperature": 0.7}))
    of_run = play.load(str(tmp_path))
    # The zoo has weights and a description in place of a file of Keras.
    world = tmp_path / "zoo" / "world"
    shutil.copytree(tmp_path, world, ignore=shutil.ignore_patterns("*.keras", "zoo"))
    (world / "config.json").write_text(json.dumps(keras.saving.serialize_keras_object(model)))
    model.save_weights(world / "model.weights.h5")
    monkeypatch.setattr(play.zoo, "__file__", str(tmp_path / "zoo" / "run.py"))
    for predictor, begins, names, temperature in (of_run, play.load("world")):
        assert names == ACTIONS and temperature == 0.7
        np.testing.assert_array_equal(begins, contexts)
        np.testing.assert_array_equal(
            predictor.step(predictor.start(contexts), np.zeros(5, "int32"), seed=0)[0],
            model.step(model.start(contexts), np.zeros(5, "int32"), seed=0)[0],
        )


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
# Presses a key in the page, then another, then a button; says what the page says and asks.
DRIVER = """<iframe id="page" src="/"></iframe><p id="heard"></p><script>
const page = document.getElementById("page");
const said = () => page.contentDocument.getElementById("said").textContent;
const asked = [], pictures = new Set();
let clicked = false;
function press(kind, key) {
  const event = page.contentWindow.KeyboardEvent;
  page.contentWindow.dispatchEvent(new event(kind, {key}));
}
page.onload = () => {
  const fetched = page.contentWindow.fetch;
  page.contentWindow.fetch = (what, options) => {
    asked.push(JSON.parse(options.body).action ?? what);
    return fetched.call(page.contentWindow, what, options);
  };
};
setInterval(() => {
  pictures.add(page.contentDocument.getElementById("frame").src);
  if (said().startsWith("You")) press("keydown", "ArrowLeft");
  if (/^[3-5] frames/.test(said())) { press("keyup", "ArrowLeft"); press("keydown", "ArrowRight"); }
  if (/^([6-9]|\\d\\d+) frames/.test(said())) {
    press("keyup", "ArrowRight");
    if (!clicked) page.contentDocument.querySelector("[data-action='0']").click();
    clicked = true;
  }
  document.getElementById("heard").textContent =
    `${said()} asked ${asked.filter((x, i) => x !== asked[i - 1])} of ${pictures.size} pictures`;
}, 50);
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """It starts, walks on for as long as a key is held, and asks for what is pressed."""
    app = play.make_app(make(sharp=0.4), frames(5, CONTEXT), ACTIONS, 1.0)
    app.add_url_rule("/driver", view_func=lambda: DRIVER, endpoint="driver")
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        line = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=30000",
                "--dump-dom", f"http://127.0.0.1:{server.server_port}/driver"]  # fmt: skip
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    finally:
        server.shutdown()
        thread.join()
    heard = r"heard\">(\d+) frames, \d+ ms.* asked (?:start,)?1,2,0 of (\d+) pictures"
    found = re.search(heard, done.stdout)
    assert found, done.stdout[-2000:]
    assert int(found[1]) >= 7 and int(found[2]) >= 4
