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

from tests.models.test_video import CONTEXT, frames, make

pytestmark = pytest.mark.tensorflow
ACTIONS = ["forward", "left", "right"]


@pytest.fixture(scope="module")
def app():
    return play.make_app(make(sharp=0.4), frames(5, CONTEXT), ACTIONS, 1.0)


def test_a_walk(app) -> None:
    client = app.test_client()
    page = client.get("/").get_data(as_text=True)
    assert all(f">{name}</button>" in page for name in ACTIONS)
    first = client.post("/start", json={}).get_json()
    seen = {first["frame"]}
    for action in (0, 1, 2, 1):
        found = client.post("/step", json={"walk": first["walk"], "action": action})
        assert found.status_code == 200
        assert found.get_json()["frame"].startswith("data:image/png;base64,")
        seen.add(found.get_json()["frame"])
    assert len(seen) > 2


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
    of_run = play.load(str(tmp_path))
    # The zoo has weights and a description in place of a file of Keras.
    world = tmp_path / "zoo" / "world"
    shutil.copytree(tmp_path, world, ignore=shutil.ignore_patterns("*.keras", "zoo"))
    (world / "config.json").write_text(json.dumps(keras.saving.serialize_keras_object(model)))
    model.save_weights(world / "model.weights.h5")
    monkeypatch.setattr(play.zoo, "__file__", str(tmp_path / "zoo" / "run.py"))
    for predictor, begins, names in (of_run, play.load("world")):
        assert names == ACTIONS
        np.testing.assert_array_equal(begins, contexts)
        np.testing.assert_array_equal(
            predictor.step(predictor.start(contexts), np.zeros(5, "int32"), seed=0)[0],
            model.step(model.start(contexts), np.zeros(5, "int32"), seed=0)[0],
        )


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
# Presses a key in the page, and says what the page says.
DRIVER = """<iframe id="page" src="/"></iframe><p id="heard"></p><script>
const page = document.getElementById("page");
const said = () => page.contentDocument.getElementById("said").textContent;
function press(kind) {
  const event = page.contentWindow.KeyboardEvent;
  page.contentWindow.dispatchEvent(new event(kind, {key: "ArrowLeft"}));
}
setInterval(() => {
  if (said().startsWith("You")) press("keydown");
  if (/^[3-9] frames/.test(said())) press("keyup");
  document.getElementById("heard").textContent = said();
}, 50);
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """It starts, and walks on for as long as a key is held."""
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
    assert re.search(r"heard\">[3-9]\d* frames, \d+ ms", done.stdout), done.stdout[-2000:]
