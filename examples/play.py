"""Walk through a world that a model has learned: a small local web page with arrow keys.

    python examples/play.py vizdoom_world            # one of the zoo
    python examples/video_prediction.py              # learns another
    python examples/play.py runs/video_prediction_tiny
    python examples/play.py RUN --port 8001 --temperature 0.3

Every frame is predicted from the codes of the six before it and the key that is held; no map and no
engine is behind it. The page is at http://127.0.0.1:8000, for this machine alone.
"""

import argparse
import base64
import io
import json
import sys
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from support.command import begin, example_parser


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument("run", help="a folder of video_prediction.py, or a name in the zoo")
    parser.add_argument("--port", type=int, default=8000, help="of the page")
    parser.add_argument("--temperature", type=float, help="default: what the run was measured at")
    args = parser.parse_args()
    if args.temperature is not None and not 0 < args.temperature < float("inf"):
        parser.error(f"--temperature must be positive and finite, got {args.temperature}")
    return args


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import flask
import keras
import numpy as np
from support import scores

from keras_vqvae import VideoPredictor, VideoVQVAE

sys.path.append(str(Path(__file__).parents[1] / "zoo"))
import run as zoo

MOST_WALKS = 16  # that are remembered; the oldest is forgotten

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>A learned world</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 40rem; color: #222;
       text-align: center }
img { width: 384px; height: 384px; object-fit: contain; image-rendering: pixelated;
      background: #000 }
button { font: inherit; margin: .3rem; padding: .4rem 1rem }
#said { color: #555; min-height: 1.5em }
</style>
<h1>A learned world</h1>
<img id="frame" alt="what the model predicts that you see">
<p id="said" role="status"></p>
<p>{% for action in actions %}<button data-action="{{ loop.index0 }}">{{ action }}</button>
{% endfor %}<button id="start">start elsewhere</button></p>
<p>{% if keys %}Hold a key ({% for key, number in keys.items() %}{{ key }}: {{ actions[number] }}{{
"" if loop.last else ", " }}{% endfor %}), or press{% else %}Press{% endif %} the buttons. Nothing
but the model's predictions is shown{% if brightened %}, brightened for display{% endif %}.</p>
<script>
const keys = {{ keys|tojson }}, frame = document.getElementById("frame");
const said = document.getElementById("said");
let walk = null, held = null, clicked = null, busy = false, steps = 0;
async function ask(what, body) {
  let found, refused = true;
  try {
    const answer = await fetch(what, {method: "POST", headers: {"Content-Type": "application/json"},
                                      body: JSON.stringify(body)});
    found = await answer.json();
    refused = !answer.ok;
  } catch (error) { found = {error: `The server does not answer: ${error.message}`}; }
  if (body.walk && body.walk !== walk) return null;    // one started elsewhere meanwhile
  if (refused) { said.textContent = found.error; held = null; return null; }
  for (const [place, picture] of found.frames.entries()) {    // of codes that span time several
    if (place) await new Promise(shown => setTimeout(shown, 100));
    if (body.walk && body.walk !== walk) return null;
    frame.src = picture;
  }
  return found;
}
async function start() {
  const found = await ask("start", {});
  if (found) { walk = found.walk; steps = 0; said.textContent = "You are somewhere."; }
}
async function step(action) {
  if (busy || walk === null) return;
  busy = true;
  const found = await ask("step", {walk, action});
  busy = false;
  if (found) {
    steps += 1;
    said.textContent = `${steps} frames, ${found.milliseconds.toFixed(0)} ms for the last`;
  }
  const next = held ?? clicked;    // a click while a frame was on its way counts
  clicked = null;
  if (next !== null) step(next);
}
addEventListener("keydown", event => {
  if (event.key in keys) {
    event.preventDefault();
    held = keys[event.key];
    step(held);
  }
});
addEventListener("keyup", event => { if (keys[event.key] === held) held = null; });
addEventListener("blur", () => { held = null; });
for (const button of document.querySelectorAll("[data-action]"))
  button.addEventListener("click", () => {
    if (busy) clicked = Number(button.dataset.action);
    else step(Number(button.dataset.action));
  });
document.getElementById("start").addEventListener("click", start);
start();
</script></html>"""

# Which key does what, where the model knows that action.
KEYS = {
    "ArrowUp": "forward",
    "ArrowLeft": "left",
    "ArrowRight": "right",
    "ArrowDown": "backward",
    "q": "forward+left",
    "e": "forward+right",
    "a": "step left",
    "d": "step right",
}


def make_app(
    predictor: VideoPredictor, contexts: np.ndarray, actions: Sequence[str], temperature: float
) -> flask.Flask:
    """The page and its two requests, `start` and `step`.

    Args:
        predictor: with discrete actions.
        contexts: uint8 `(n, time, height, width, 3)`, where walks may start.
        actions: their names.
        temperature: of predictions.

    Raises:
        ValueError: the actions are not discrete, or not so many.
    """
    if predictor.actions != "discrete" or predictor.num_actions != len(actions):
        raise ValueError(
            f"keys are for {len(actions)} discrete actions, {', '.join(actions)}, but the model "
            f"has {predictor.num_actions}, {predictor.actions}"
        )
    app = flask.Flask(__name__)
    walks: OrderedDict[str, dict] = OrderedDict()
    one_at_a_time = threading.Lock()
    brightened = bool(contexts.mean() < 64)
    keys = {key: actions.index(name) for key, name in KEYS.items() if name in actions}

    def shown(frames: np.ndarray) -> list[str]:
        pictures = []
        for frame in frames:
            file = io.BytesIO()
            frame = scores.brightened(frame) if brightened else frame
            picture = keras.utils.array_to_img(frame, "channels_last", scale=False)
            picture.save(file, "png")
            pictures.append("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
        return pictures

    def refused(message: str) -> tuple:
        return flask.jsonify(error=message), 400

    @app.get("/")
    def page() -> str:
        return flask.render_template_string(PAGE, actions=actions, keys=keys, brightened=brightened)

    @app.post("/start")
    def start() -> flask.Response:
        context = contexts[np.random.default_rng().integers(len(contexts))]
        walk = uuid.uuid4().hex
        with one_at_a_time:
            seed = int(np.random.default_rng().integers(2**31))
            walks[walk] = {"state": predictor.start(context[None]), "seed": seed}
            while len(walks) > MOST_WALKS:
                walks.popitem(last=False)
            seen = as_codes_keep_it(predictor, context)
        return flask.jsonify(walk=walk, frames=shown(seen[-1:]))

    @app.post("/step")
    def step() -> flask.Response | tuple:
        asked = flask.request.get_json(silent=True)
        if not isinstance(asked, dict) or not {"walk", "action"} <= set(asked):
            return refused('send {"walk": ..., "action": ...}')
        action = asked["action"]
        if type(action) is not int or not 0 <= action < len(actions):
            return refused(f"action must be an integer in [0, {len(actions)}), got {action!r}")
        with one_at_a_time:
            if not isinstance(asked["walk"], str) or asked["walk"] not in walks:
                return refused("this walk is not known any more: start elsewhere")
            begin = time.perf_counter()
            walk = walks[asked["walk"]]
            frames, walk["state"] = predictor.step(
                walk["state"], held(predictor, action), seed=walk["seed"], temperature=temperature
            )
            milliseconds = 1e3 * (time.perf_counter() - begin)
        seen = frames if predictor.frames_per_code == 1 else frames[0]
        return flask.jsonify(frames=shown(seen), milliseconds=milliseconds)

    return app


def held(predictor: VideoPredictor, action: int) -> np.ndarray:
    """An action for a step, of all its frames."""
    each = predictor.frames_per_code
    return np.full((1,) if each == 1 else (1, each), action, "int32")


def as_codes_keep_it(predictor: VideoPredictor, context: np.ndarray) -> np.ndarray:
    """Frames `(time, height, width, 3)`, reconstructed: as sharp as those that follow can be."""
    context = predictor.what_counts(context[None])
    if isinstance(predictor.vqvae, VideoVQVAE):
        return predictor.vqvae.reconstruct(context)[0]
    return predictor.vqvae.reconstruct(context[0])


def warm_up(predictor: VideoPredictor, contexts: np.ndarray, temperature: float) -> None:
    """Compiles all that a walk needs, so that the first step is no slower than the others."""
    as_codes_keep_it(predictor, contexts[0])
    state = predictor.start(contexts[:1])
    predictor.step(state, held(predictor, 0), seed=0, temperature=temperature)


def load(run: str) -> tuple[VideoPredictor, np.ndarray, list[str], float]:
    """A predictor, frames to begin from, the actions' names and the temperature of its figures.

    Of a folder or of the zoo.
    """
    folder = Path(run)
    if not (folder / "predictor.keras").exists():
        folder = Path(zoo.__file__).parent / run
        if not (folder / "actions.json").exists():
            raise ValueError(
                f"run: {run} has no predictor.keras (run examples/video_prediction.py first), and "
                "is no world of the zoo"
            )
        predictor = zoo.load(run)
    else:
        predictor = keras.models.load_model(folder / "predictor.keras")
    with np.load(folder / "contexts.npz") as file:
        contexts = file["frames"]
    actions = json.loads((folder / "actions.json").read_text())
    return predictor, contexts, actions, zoo.temperature_of(folder)


def main() -> None:
    args = arguments()
    predictor, contexts, actions, measured = load(args.run)
    temperature = args.temperature or measured
    app = make_app(predictor, contexts, actions, temperature)
    print("Compiling", flush=True)
    warm_up(predictor, contexts, temperature)
    app.run("127.0.0.1", args.port, threaded=True)


if __name__ == "__main__":
    main()
