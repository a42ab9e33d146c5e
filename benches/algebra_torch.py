"""The peers of `fwd-linalg`, in PyTorch: prints JSON, medians in milliseconds. Run by `cargo xtask bench algebra`."""

import argparse
import json
import time

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--iters", type=int, default=5)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--only", default="subspace,step", help="of subspace, step and gpm; GPM's own routine takes a minute")
args = parser.parse_args()
only = args.only.split(",")
torch.set_num_threads(args.threads)
torch.manual_seed(0)
ENERGY = 0.97
report = {}


def clock(name, iters, run, warm=True):
    if warm:
        run()
    ms = []
    for _ in range(iters):
        start = time.perf_counter()
        run()
        ms.append((time.perf_counter() - start) * 1e3)
    report[name] = {"median": sorted(ms)[len(ms) // 2]}


for n, d in [] if only == ["step"] else [(20_000, 768), (4_000, 2048), (50_000, 2048)]:
    scale = torch.arange(1, d + 1).float() ** -0.5
    z = (torch.randn(n, d) * scale) @ (torch.randn(d, d) / d**0.5)

    def gram_eigh():
        values, vectors = torch.linalg.eigh(z.T @ z)
        values = values.flip(0).clamp_min(0)
        k = int((values.cumsum(0) < ENERGY * values.sum()).sum()) + 1
        return vectors[:, -k:]

    def gpm():  # activations as columns, SVD of all of them, in numpy as the published code
        import numpy

        u, s, _ = numpy.linalg.svd(z.numpy().T, full_matrices=False)
        ratio = s**2 / (s**2).sum()
        return u[:, : int((ratio.cumsum() < ENERGY).sum())]

    if "subspace" in only:
        clock(f"subspace {n}x{d}", args.iters, gram_eigh)
    if "gpm" in only:
        clock(f"gpm {n}x{d}", 1, gpm, warm=False)

for n, d, r in [] if "step" not in only else [(200, 4096, 512), (1000, 2048, 768)]:
    basis = torch.linalg.qr(torch.randn(d, r))[0].contiguous()
    dense = torch.eye(d) - basis @ basis.T
    gradient = torch.randn(n, d)
    p = torch.nn.Parameter(torch.randn(n, d))
    optimiser = torch.optim.AdamW([p], lr=1e-3, weight_decay=0.0)

    def step(project):
        p.grad = project(gradient)
        old = p.detach().clone()
        optimiser.step()
        with torch.no_grad():
            p.copy_(old + project(p - old))

    clock(f"step {n}x{d}x{r}", 4 * args.iters, lambda: step(lambda g: g - (g @ basis) @ basis.T))
    clock(f"dense step {n}x{d}x{r}", 2 * args.iters, lambda: step(lambda g: g @ dense))

print(json.dumps({"ms": report, "torch": torch.__version__}))
