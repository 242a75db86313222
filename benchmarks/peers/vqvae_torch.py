"""The network of `keras_vqvae.ImageVQVAE` in PyTorch; `benchmarks/training_step.py` starts this."""

from collections.abc import Callable

import numpy as np
import torch
from serve import milliseconds, serve
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu
from vector_quantize_pytorch import VectorQuantize

torch.manual_seed(0)
SCALE = 0.22  # standard deviation of keras_vqvae.likelihoods.Gaussian
steps: dict = {}
networks: dict = {}


class ResidualStack(nn.Module):
    def __init__(self, hidden: int, blocks: int = 2) -> None:
        super().__init__()
        self.wide = nn.ModuleList(nn.Conv2d(hidden, hidden, 3, padding=1) for _ in range(blocks))
        self.narrow = nn.ModuleList(nn.Conv2d(hidden, hidden, 1) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            x = x + narrow(relu(wide(relu(x))))
        return relu(x)

    def convolutions(self) -> list[nn.Module]:
        return [conv for pair in zip(self.wide, self.narrow, strict=True) for conv in pair]


class MinimalQuantizer(nn.Module):
    """EMA codebook in as few lines as do the work, so that the networks can be compared."""

    def __init__(self, dim: int, num_codes: int, decay: float = 0.99, beta: float = 0.25) -> None:
        super().__init__()
        self.decay, self.beta = decay, beta
        self.register_buffer("embeddings", torch.randn(num_codes, dim) * 0.05)
        self.register_buffer("sums", self.embeddings.clone())
        self.register_buffer("counts", torch.ones(num_codes))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = z.detach().reshape(-1, z.shape[-1])
        half_norms = 0.5 * self.embeddings.square().sum(1)
        codes = torch.addmm(half_norms, rows, self.embeddings.T, alpha=-1).argmin(1)
        quantized = self.embeddings[codes].view_as(z)
        with torch.no_grad():
            d, k = self.decay, len(self.counts)
            self.counts.mul_(d).add_(torch.bincount(codes, minlength=k), alpha=1 - d)
            self.sums.mul_(d).index_add_(0, codes, rows, alpha=1 - d)
            total = self.counts.sum()
            smoothed = (self.counts + 1e-5) / (total + k * 1e-5) * total
            torch.div(self.sums, smoothed[:, None], out=self.embeddings)
        loss = self.beta * mse_loss(z, quantized)
        return z + (quantized - z).detach(), codes, loss


class VQVAE(nn.Module):
    """Picture sides divided by 4; windows and padding as keras_vqvae has them."""

    def __init__(self, hidden: int, num_codes: int, code_dim: int, library: bool) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, hidden, 4, 2, 1), nn.Conv2d(hidden, hidden, 4, 2, 1)
        self.to_codes = nn.Conv2d(hidden, code_dim, 1)
        self.from_codes = nn.Conv2d(code_dim, hidden, 3, padding=1)
        self.stacks = nn.ModuleList(ResidualStack(hidden) for _ in range(2))
        up = nn.ConvTranspose2d
        self.up = up(hidden, hidden, 4, 2, 1), up(hidden, 3, 4, 2, 1)
        self.strided = nn.ModuleList([*self.down, *self.up])
        self.quantizer = (
            VectorQuantize(
                dim=code_dim, codebook_size=num_codes, decay=0.99, commitment_weight=0.25,
                rotation_trick=False,
            )
            if library
            else MinimalQuantizer(code_dim, num_codes)
        )  # fmt: skip

    def encode(self, x: Tensor) -> Tensor:
        x = self.down[1](relu(self.down[0](x)))
        return self.to_codes(self.stacks[0](x))

    def decode(self, z: Tensor) -> Tensor:
        x = self.stacks[1](self.from_codes(z))
        return self.up[1](relu(self.up[0](x)))

    def loss(self, images: Tensor) -> Tensor:
        x = images.float() / 127.5 - 1.0
        z = self.encode(x).permute(0, 2, 3, 1)
        shape = z.shape
        quantized, _, quantizer_loss = self.quantizer(z.flatten(1, 2))
        outputs = self.decode(quantized.view(shape).permute(0, 3, 1, 2))
        return mse_loss(outputs, x) / (2 * SCALE**2) + quantizer_loss.sum()

    def convolutions(self) -> list[nn.Module]:
        """In the order in which data flows, as keras_vqvae's weights are handed over."""
        encoder = [*self.down, *self.stacks[0].convolutions(), self.to_codes]
        return [*encoder, self.from_codes, *self.stacks[1].convolutions(), *self.up]


def prepare(
    name: str, batch: int, side: int, hidden: int, num_codes: int, code_dim: int, library: bool,
    channels_last: bool, threads: int,
) -> dict:  # fmt: skip
    """Makes the training step `name`; returns how many parameters it trains."""
    torch.set_num_threads(threads)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = VQVAE(hidden, num_codes, code_dim, library).to(memory_format=layout).train()
    parameters = [p for conv in model.convolutions() for p in conv.parameters()]
    optimizer = torch.optim.Adam(parameters, fused=True)
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    images = images.contiguous(memory_format=layout)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model.loss(images).backward()
        optimizer.step()

    steps[name], networks[name] = step, model
    return {"parameters": sum(p.numel() for p in parameters)}


def compare(name: str, path: str) -> dict:
    """Takes Keras's weights; how far decoder(encoder(x)) is from what Keras computed."""
    model, data = networks[name], np.load(path)
    for i, conv in enumerate(model.convolutions()):
        kernel = torch.from_numpy(data[f"kernel{i}"]).permute(3, 2, 0, 1)
        conv.weight.data.copy_(kernel)
        conv.bias.data.copy_(torch.from_numpy(data[f"bias{i}"]))
    with torch.no_grad():
        x = torch.from_numpy(data["x"]).permute(0, 3, 1, 2)
        outputs = model.decode(model.encode(x)).permute(0, 2, 3, 1).numpy()
    return {"difference": float(np.abs(outputs - data["outputs"]).max())}


def time(name: str, repeats: int) -> dict:
    return {"ms": milliseconds(steps[name], repeats)}


def forget() -> dict:
    steps.clear()
    networks.clear()
    return {}


OPERATIONS: dict[str, Callable[..., dict]] = {
    "prepare": prepare, "compare": compare, "time": time, "forget": forget,
}  # fmt: skip

if __name__ == "__main__":
    serve(OPERATIONS)
