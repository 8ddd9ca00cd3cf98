"""Train the calibration model from nothing, in pieces: run it until it says that it is done.

python studies/train_calibration.py --out studies/calibration-model
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import torch

from kvorum.lab.training.train import Recipe, Training

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="the folder of the finished model")
    parser.add_argument("--kept", type=Path, default=Path("calibration-training"), help="what is kept between pieces")
    parser.add_argument("--seconds", type=float, default=540, help="of this piece")
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    args = parser.parse_args()
    torch.set_num_threads(1)
    training = Training(Recipe(steps=args.steps), args.kept)
    if asyncio.run(training.run(args.seconds, lambda line: print(line, flush=True))):
        training.finish(args.out)
        print(f"done: {args.out}")
    else:
        print(f"{training.done} of {args.steps} steps; the same command goes on")
