"""The quantizer of vector-quantize-pytorch; `benchmarks/quantizer.py` starts this."""

import torch
from serve import milliseconds, serve
from vector_quantize_pytorch import VectorQuantize

torch.manual_seed(0)
steps: dict = {}


def prepare(
    name: str, shape: list, num_codes: int, training: bool, dead_code: int, threads: int
) -> dict:
    """Makes the step `name`: forward, or forward + backward to the input + EMA."""
    torch.set_num_threads(threads)
    z = torch.randn(*shape, requires_grad=training)
    quantizer = VectorQuantize(
        dim=shape[-1],
        codebook_size=num_codes,
        decay=0.99,
        commitment_weight=0.25,
        rotation_trick=False,
        threshold_ema_dead_code=dead_code,
    ).train(training)

    def train() -> None:
        z.grad = None
        quantized, _, loss = quantizer(z)
        (quantized.square().mean() + loss.sum()).backward()

    def forward() -> None:
        with torch.inference_mode():
            quantizer(z)

    steps[name] = train if training else forward
    return {"ready": name}


def time(name: str) -> dict:
    return {"ms": milliseconds(steps[name])}


def forget() -> dict:
    steps.clear()
    return {}


if __name__ == "__main__":
    serve({"prepare": prepare, "time": time, "forget": forget})
