#!/usr/bin/env python3
"""What the program tune adds to a DPO step: its step beside the bare one of dpo_step, same shape and data shape.

    bench/tune_step.py BUILD [14m|70m [STEPS [THREADS]]]

Both in turn, five times, and of each the fastest turn's median step: 4 pairs a step, a prompt of 192 tokens that both completions of 64 share, every row
seen once. tune asks the reference for all rows before the first step, dpo_step for those of each step, so two
ratios are printed: of the steps alone (dpo_step's without its reference part) and of everything (tune's time
for the reference shared out over the steps). Lines `name value unit`.
"""
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile

build = pathlib.Path(sys.argv[1])
shape = sys.argv[2] if len(sys.argv) > 2 else "14m"
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 20
threads = sys.argv[4] if len(sys.argv) > 4 else "2"
width, heads = {"14m": (128, 4), "70m": (512, 8)}[shape]
top = pathlib.Path(__file__).resolve().parent.parent


def median(values):
    return sorted(values)[len(values) // 2]


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    tokenizer = top / "tests/examples/tiny_tokenizer.json"  # the model's vocabulary is padded to 50,304
    subprocess.run([build / "examples/tune", "init", "--tokenizer", tokenizer, "--layers", "6", "--width", str(width),
                    "--heads", str(heads), "--ff-width", str(4 * width), "--vocab", "50304", "--out", folder / "base"],
                   check=True, stdout=subprocess.DEVNULL)
    draw = random.Random(1)
    with open(folder / "pairs.jsonl", "w") as file:
        for _ in range(4 * steps):  # letters and digits are a token each at the least: 256 are enough
            text = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=n)) for n in (800, 300, 300)]
            file.write(json.dumps(dict(zip(("prompt", "chosen", "rejected"), text))) + "\n")
    bare, without, inside, reference = [], [], [], []
    for turn in range(5):
        out = folder / f"out{turn}"
        said = subprocess.run([build / "examples/tune", "dpo", "--model", folder / "base", "--data",
                               folder / "pairs.jsonl", "--out", out, "--steps", str(steps), "--batch", "4",
                               "--max-prompt", "192", "--max-completion", "64", "--threads", threads,
                               "--save-every", str(steps)], check=True, capture_output=True, text=True).stdout
        reference.append(float(re.search(r"reference: .* (\S+) s\n", said)[1]) / steps)
        at = [json.loads(line)["seconds"] for line in open(out / "metrics.jsonl")]
        inside.append(median([b - a for a, b in zip(at[1:], at[2:])]))  # the first two warm up
        lines = subprocess.run([build / "bench/dpo_step", shape, "shared", str(steps), threads], check=True,
                               capture_output=True, text=True).stdout
        part = {m[1]: float(m[2]) for m in re.finditer(r"dpo_step\.(\w+) (\S+) s\n", lines)}
        bare.append(part["seconds"])
        without.append(part["forward"] + part["backward"] + part["optimiser"])
    print(f"tune_step.inside {min(inside):.4f} s")
    print(f"tune_step.bare {min(without):.4f} s")
    print(f"tune_step.over_bare {min(inside) / min(without):.3f} ratio")
    print(f"tune_step.over_bare_with_reference {(min(inside) + min(reference)) / min(bare):.3f} ratio")
