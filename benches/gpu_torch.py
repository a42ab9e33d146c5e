"""The same work as `bench-gpu` in PyTorch, on the same GPU: writes JSON, medians in milliseconds by device events.

Names and shapes are those of `benches/src/gpu.rs`. Inputs rotate through enough copies to miss the L2 cache where memory is the bound.
Products of f32 are f32 (`allow_tf32` off), as ours are to f32's accuracy; the row `tf32` says what giving that up would bring.
"""

import argparse
import json

import torch
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--json", help="file to write; standard output otherwise")
parser.add_argument("--iters", type=int, default=50)
args = parser.parse_args()
torch.backends.cuda.matmul.allow_tf32 = False
torch.manual_seed(0)
device = torch.device("cuda")
L2 = torch.cuda.get_device_properties(0).L2_cache_size
report = {}


def clock(name, run, copies=1, iters=None):
    """Median over launches; `run(i)` uses copy `i` of its inputs."""
    for i in range(3):
        run(i % copies)
    torch.cuda.synchronize()
    times = []
    for i in range(iters or args.iters):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run(i % copies)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    report[name] = sorted(times)[len(times) // 2]


def rotating(make, size):
    """As many tensors as together exceed twice the L2 cache."""
    return [make() for _ in range(max(1, min(16, 2 * L2 // size + 1)))]


for n, d, r in [(50, 768, 64), (200, 2048, 512), (1000, 4096, 1024), (4000, 4096, 2048)]:
    basis = torch.linalg.qr(torch.randn(d, r, device=device))[0].contiguous()
    c = -torch.ones(r, device=device)
    g = torch.randn(n, d, device=device)
    project = lambda x: x + ((x @ basis) * c) @ basis.T
    shape = f"{n}x{d}x{r}"
    clock(f"projection {shape} f32", lambda i: project(g))
    torch.backends.cuda.matmul.allow_tf32 = True
    clock(f"projection {shape} tf32", lambda i: project(g))
    torch.backends.cuda.matmul.allow_tf32 = False
    half = [t.bfloat16() for t in (g, basis, c)]
    clock(f"projection {shape} bf16", lambda i: half[0] + ((half[0] @ half[1]) * half[2]) @ half[1].T)
    p = torch.randn(n, d, device=device)
    m, v = torch.zeros_like(p), torch.zeros_like(p)

    def step(_):
        u = project(g)
        m.mul_(0.9).add_(u, alpha=0.1)
        v.mul_(0.999).addcmul_(u, u, value=0.001)
        p.sub_(project(m * 1e-3 / (v.sqrt() + 1e-8)))

    clock(f"projected_adamw {shape} f32", step)

for n, d, dtype in [(50_000, 768, torch.float32), (200_000, 2048, torch.bfloat16)]:
    z = torch.randn(n, d, device=device, dtype=dtype)
    clock(f"gram {n}x{d} {str(dtype)[6:].replace('float32', 'f32').replace('bfloat16', 'bf16')}", lambda i: z.T @ z, iters=20)
    del z

for batch, d in [(2, 768), (16, 2048)]:
    a = torch.randn(batch, d, d, device=device)
    a = a @ a.mT / d
    clock(f"eigen {batch}x{d}", lambda i: torch.linalg.eigh(a), iters=5)
for batch, rows, columns in [(64, 32, 32), (64, 512, 64), (8, 2048, 512)]:
    a = torch.randn(batch, rows, columns, device=device)
    clock(f"svd {batch}x{rows}x{columns}", lambda i: torch.linalg.svd(a, full_matrices=False), iters=5)

for dtype, name in [(torch.float32, "f32"), (torch.bfloat16, "bf16")]:
    for rows, d in [(8192, 768), (8192, 2048), (8192, 4096)]:
        xs = rotating(lambda: torch.randn(rows, d, device=device, dtype=dtype), rows * d * 4)
        w, b = torch.ones(d, device=device, dtype=dtype), torch.zeros(d, device=device, dtype=dtype)
        clock(f"rms_norm {rows}x{d} {name}", lambda i: F.rms_norm(xs[i], (d,), w, 1e-6), len(xs))
        clock(f"layer_norm {rows}x{d} {name}", lambda i: F.layer_norm(xs[i], (d,), w, b, 1e-6), len(xs))
        for norm, call in [("rms_norm", lambda x: F.rms_norm(x, (d,), w, 1e-6)), ("layer_norm", lambda x: F.layer_norm(x, (d,), w, b, 1e-6))]:
            inputs = [x.clone().requires_grad_() for x in xs]
            outputs = [call(x) for x in inputs]
            dy = torch.randn(rows, d, device=device, dtype=dtype)
            clock(f"{norm}_backward {rows}x{d} {name}", lambda i: torch.autograd.grad(outputs[i], inputs[i], dy, retain_graph=True), len(xs))
        copies = [torch.empty_like(x) for x in xs]
        clock(f"copy {rows}x{d} {name}", lambda i: copies[i].copy_(xs[i]), len(xs))
    for rows, n in [(8192, 2048), (8192, 5120)]:
        hs = rotating(lambda: torch.randn(rows, 2 * n, device=device, dtype=dtype), rows * n * 8)
        gate = lambda h: F.gelu(h[:, :n], approximate="tanh") * h[:, n:]
        clock(f"gated_gelu {rows}x{n} {name}", lambda i: gate(hs[i]), len(hs))
        inputs = [h.clone().requires_grad_() for h in hs]
        outputs = [gate(h) for h in inputs]
        dy = torch.randn(rows, n, device=device, dtype=dtype)
        clock(f"gated_gelu_backward {rows}x{n} {name}", lambda i: torch.autograd.grad(outputs[i], inputs[i], dy, retain_graph=True), len(hs))
    for batch, heads, t in [(16, 32, 256), (4, 32, 1024)]:
        scores = rotating(lambda: torch.randn(batch, heads, t, t, device=device, dtype=dtype), batch * heads * t * t * 4)
        position = torch.randn(heads, t, t, device=device, dtype=dtype)
        keys = torch.zeros(batch, 1, 1, t, device=device, dtype=dtype)
        shape = f"{batch}x{heads}x{t}x{t}"
        clock(f"softmax {shape} {name}", lambda i: torch.softmax(scores[i] + position + keys, -1), len(scores))
        inputs = [s.clone().requires_grad_() for s in scores]
        outputs = [torch.softmax(s, -1) for s in inputs]
        dy = torch.randn_like(scores[0])
        clock(f"softmax_backward {shape} {name}", lambda i: torch.autograd.grad(outputs[i], inputs[i], dy, retain_graph=True), len(scores))
        del scores, inputs, outputs, dy
    for rows, vocabulary in [(1024, 32128)]:
        logits = rotating(lambda: torch.randn(rows, vocabulary, device=device, dtype=dtype), rows * vocabulary * 4)
        labels = torch.randint(0, vocabulary, (rows,), device=device)
        clock(f"cross_entropy {rows}x{vocabulary} {name}", lambda i: F.cross_entropy(logits[i], labels), len(logits))
        inputs = [l.clone().requires_grad_() for l in logits]
        outputs = [F.cross_entropy(l, labels) for l in inputs]
        clock(f"cross_entropy_backward {rows}x{vocabulary} {name}", lambda i: torch.autograd.grad(outputs[i], inputs[i], retain_graph=True), len(logits))

for batch, pool, d in [(64, 100, 768), (512, 4096, 768)]:
    queries, keys = torch.randn(batch, d, device=device), torch.randn(pool, d, device=device)
    select = lambda i: (F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).T + F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).T).topk(5)
    clock(f"selection {batch}x{pool}x{d}", select)

text = json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda, "ms": report}, indent=1)
if args.json:
    with open(args.json, "w", encoding="utf-8") as file:
        file.write(text)
else:
    print(text)
