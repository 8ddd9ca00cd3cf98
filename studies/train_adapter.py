"""Train an adapter for writing lists with others, in pieces: run it until it says that it is done.

python studies/train_adapter.py --out studies/list-adapter
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import torch

from kvorum.lab.training.adapter_training import AdapterRecipe, AdapterTraining
from kvorum.models.load import load_model

if __name__ == "__main__":
    recipe = AdapterRecipe()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="the folder of the finished adapter")
    parser.add_argument("--model", default="smollm2-135m", help="what it is for")
    parser.add_argument("--kept", type=Path, default=Path("adapter-training"), help="what is kept between pieces")
    parser.add_argument("--seconds", type=float, default=540, help="of this piece")
    parser.add_argument("--steps", type=int, default=recipe.steps)
    args = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_model(args.model, dtype=torch.float32)
    assert loaded.tokenizer is not None
    training = AdapterTraining(AdapterRecipe(steps=args.steps), args.kept, loaded.model, loaded.tokenizer)
    if asyncio.run(training.run(args.seconds, lambda line: print(line, flush=True))):
        training.finish(args.out, args.model)
        print(f"done: {args.out}")
    else:
        print(f"{training.done} of {args.steps} steps; the same command goes on")
