"""The peers of `fwd-data` and `fwd-eval`: prints JSON, medians in milliseconds. Run by `cargo xtask bench data`."""

import argparse
import json
import os
import time

import numpy
import torch
from PIL import Image
from pycocoevalcap.cider.cider import Cider

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--iters", type=int, default=3)
parser.add_argument("--workers", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(1)
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


class Pictures(torch.utils.data.Dataset):
    """Decoding, bicubic resize to 224 x 224, CLIP's normalisation."""

    def __init__(self, folder):
        self.paths = sorted(os.path.join(folder, name) for name in os.listdir(folder))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with Image.open(self.paths[i]) as image:
            image = image.convert("RGB").resize((224, 224), Image.BICUBIC)
        pixels = torch.from_numpy(numpy.asarray(image).copy()).permute(2, 0, 1).float().div_(255)
        return (pixels - MEAN) / STD


def clock(run):
    run()
    ms = []
    for _ in range(args.iters):
        start = time.perf_counter()
        run()
        ms.append((time.perf_counter() - start) * 1e3)
    return {"median": sorted(ms)[len(ms) // 2]}


pictures = Pictures(os.path.join(args.data, "images"))
loader = torch.utils.data.DataLoader(pictures, batch_size=32, num_workers=args.workers, persistent_workers=True)
with open(os.path.join(args.data, "captions.json"), encoding="utf-8") as file:
    captions = json.load(file)
answers = {i: [text] for i, text in enumerate(captions["candidates"])}
references = dict(enumerate(captions["references"]))
report = {
    f"images {len(pictures)}": clock(lambda: [batch.sum() for batch in loader]),
    f"cider {len(answers)}": clock(lambda: Cider().compute_score(references, answers)),
}
print(json.dumps({"ms": report}))
