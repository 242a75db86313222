"""Answers requests with OpenVINO, which reads SavedModels itself: no TensorFlow. See `children.py`.

OpenVINO knows `serving_default` alone, so a request names a folder in which that is the signature
asked for, and gives the tensors in the graph of its outputs by name:
`(path, {output: "StatefulPartitionedCall_1:0"}, inputs)`.
"""

import sys

import numpy as np
from openvino import Core
from openvino.frontend import FrontEndManager


def answer(requests: list[tuple[str, dict[str, str], dict[str, np.ndarray]]]) -> list:
    """Outputs by name, or `("unconverted", message)` for a graph with ops that are not known."""
    core, frontend = Core(), FrontEndManager().load_by_framework("tf")
    answers: list = []
    for path, outputs, inputs in requests:
        graph = frontend.load(path)
        # By its tensors: of two outputs, names alone do not say which is which.
        graph.override_all_outputs([graph.get_place_by_tensor_name(x) for x in outputs.values()])
        try:
            model = frontend.convert(graph)
        except Exception as error:  # of no public type
            answers.append(("unconverted", str(error)))
            continue
        run = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        by_name = {name: place for place in run.inputs for name in place.get_names()}
        found = run({by_name[name]: x for name, x in inputs.items() if name in by_name})
        answers.append(
            {name: found[place] for name, place in zip(outputs, run.outputs, strict=True)}
        )
    return answers


if __name__ == "__main__":
    import children

    children.main(answer)
    if "tensorflow" in sys.modules:
        sys.exit("TensorFlow was imported: this proves nothing")
