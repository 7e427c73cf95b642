#!/usr/bin/env python3
"""Sampling with llama.cpp: what bench/sample is measured against.

    peer_llama.py BIN 14m|70m [N PROMPT NEW [OPTION...]]

BIN is the folder of a built llama.cpp that has llama-batched-bench and llama-bench. A GPT-NeoX model
with random float32 weights is written to a temporary folder; the batched bench then decodes N (25)
completions of NEW (64) tokens from one prompt of PROMPT (64) tokens that is computed once, and
llama-bench a single stream of NEW tokens. 2 threads; key-value cache in float32, llama-bench's in
float16 (it has no other). OPTIONs are handed to the batched bench (-fa). Prints lines `name value unit`, each the median of three runs; new tokens
over the whole time, the prompt's included, count as sample.tokens_per_s. Neither program draws
tokens or looks at a logit.
"""
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile

import numpy

# layers, width, heads, feed-forward
SHAPES = {"14m": (6, 128, 4, 512), "70m": (6, 512, 8, 2048)}
VOCAB, CONTEXT, ROTARY = 50304, 2048, 0.25
ALIGNMENT = 32
U32, F32, BOOL, STRING = 4, 6, 7, 8  # the format's value types; the tensor type F32 is 0


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    packed = text(value) if kind == STRING else struct.pack({U32: "<I", F32: "<f", BOOL: "<?"}[kind], value)
    return text(key) + struct.pack("<I", kind) + packed


def tensors(layers, width, inner):
    """Name and shape, rows first; in the file's order of dimensions the last comes first."""
    yield "token_embd.weight", (VOCAB, width)
    for i in range(layers):
        for name, shape in [("attn_norm", (width,)), ("attn_qkv", (3 * width, width)),
                            ("attn_output", (width, width)), ("ffn_norm", (width,)),
                            ("ffn_up", (inner, width)), ("ffn_down", (width, inner))]:
            yield f"blk.{i}.{name}.weight", shape
            yield f"blk.{i}.{name}.bias", shape[:1]
    yield "output_norm.weight", (width,)
    yield "output_norm.bias", (width,)
    yield "output.weight", (VOCAB, width)


def write_gguf(path, layers, width, heads, inner):
    entries = [entry("general.architecture", STRING, "gptneox"),
               entry("general.name", STRING, "random"),
               entry("gptneox.context_length", U32, CONTEXT),
               entry("gptneox.embedding_length", U32, width),
               entry("gptneox.block_count", U32, layers),
               entry("gptneox.feed_forward_length", U32, inner),
               entry("gptneox.attention.head_count", U32, heads),
               entry("gptneox.attention.layer_norm_epsilon", F32, 1e-5),
               entry("gptneox.rope.dimension_count", U32, int(width // heads * ROTARY)),
               entry("gptneox.use_parallel_residual", BOOL, True),
               entry("gptneox.vocab_size", U32, VOCAB),
               entry("tokenizer.ggml.model", STRING, "none")]
    shapes = list(tensors(layers, width, inner))
    infos, offset = [], 0
    for name, shape in shapes:
        dims = b"".join(struct.pack("<Q", d) for d in reversed(shape))
        infos.append(text(name) + struct.pack("<I", len(shape)) + dims + struct.pack("<IQ", 0, offset))
        size = 4 * int(numpy.prod(shape))
        offset += size + -size % ALIGNMENT
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(entries)) + b"".join(entries + infos)
    rng = numpy.random.default_rng(1)
    with open(path, "wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        for name, shape in shapes:
            if name.endswith("norm.weight"):
                values = numpy.ones(shape, numpy.float32)
            elif name.endswith("bias"):
                values = numpy.zeros(shape, numpy.float32)
            else:
                values = 0.02 * rng.standard_normal(shape, numpy.float32)
            data = values.astype("<f4").tobytes()
            file.write(data + bytes(-len(data) % ALIGNMENT))


def output_of(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return done.stdout, done.stderr


def batched(folder, model, n, prompt, new, options):
    log = "\n".join(output_of([os.path.join(folder, "llama-batched-bench"), "-m", model, "-t", "2", "-tb", "2",
                     "-c", str(prompt + n * new), "-b", "2048", "-ub", "512", "-ctk", "f32", "-ctv", "f32",
                     "-npp", str(prompt), "-ntg", str(new), "-npl", str(n), "-pps",
                     "--output-format", "jsonl", *options]))
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    if len(lines) != 1:
        sys.exit(f"llama-batched-bench measured {len(lines)} cases, expected 1:\n{log[-2000:]}")
    return lines[0]


def main():
    arguments = sys.argv[1:]
    if len(arguments) < 2 or arguments[1] not in SHAPES or 2 < len(arguments) < 5:
        sys.exit(__doc__)
    folder, shape = arguments[:2]
    n, prompt, new = (int(a) for a in arguments[2:5]) if len(arguments) > 2 else (25, 64, 64)
    with tempfile.TemporaryDirectory() as place:
        model = os.path.join(place, "model.gguf")
        write_gguf(model, *SHAPES[shape])
        runs = [batched(folder, model, n, prompt, new, arguments[5:]) for _ in range(3)]
        single = json.loads(output_of(
            [os.path.join(folder, "llama-bench"), "-m", model, "-t", "2", "-p", "0", "-n", str(new), "-r", "3",
             "-o", "json"])[0])[0]
    whole = statistics.median(n * new / run["t"] for run in runs)
    print(f"llama.sample.tokens_per_s {whole:.1f} token/s")
    print(f"llama.sample.decode_tokens_per_s {statistics.median(r['speed_tg'] for r in runs):.1f} token/s")
    print(f"llama.single.tokens_per_s {statistics.median(single['samples_ts']):.1f} token/s")


if __name__ == "__main__":
    main()
