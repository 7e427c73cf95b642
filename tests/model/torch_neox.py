"""GPT-NeoX in PyTorch, float64, and a writer of its checkpoints: what the library is held against.

Written from the paper (arXiv 2204.06745) and for clarity alone: one sequence at a time, nothing
shared, nothing kept. Gradients are PyTorch's own.
"""
import json
import math
import os
import struct

import torch
from torch.nn import functional

# What the dtype is called in a file, and how many bytes it has.
FILE_TYPES = {torch.float32: ("F32", 4), torch.float16: ("F16", 2), torch.bfloat16: ("BF16", 2),
              torch.bool: ("BOOL", 1)}


class Shape:
    """One model's dimensions; keyword arguments change the defaults."""

    layers, width, heads, inner, vocab, positions = 2, 64, 4, 96, 97, 64
    rotary, base, epsilon = 0.25, 10000.0, 1e-5
    parallel, tied, activation = True, False, "gelu"

    def __init__(self, **changes):
        for name, value in changes.items():
            if not hasattr(self, name):
                raise TypeError(f"a shape has no {name}")
            setattr(self, name, value)

    def tensors(self, score=False):
        """Name and shape of every tensor, in no particular order."""
        width, inner = self.width, self.inner
        yield "gpt_neox.embed_in.weight", (self.vocab, width)
        for i in range(self.layers):
            for name, rows, columns in [
                    ("input_layernorm", width, None), ("post_attention_layernorm", width, None),
                    ("attention.query_key_value", 3 * width, width), ("attention.dense", width, width),
                    ("mlp.dense_h_to_4h", inner, width), ("mlp.dense_4h_to_h", width, inner)]:
                yield f"gpt_neox.layers.{i}.{name}.weight", (rows, columns) if columns else (rows,)
                yield f"gpt_neox.layers.{i}.{name}.bias", (rows,)
        yield "gpt_neox.final_layer_norm.weight", (width,)
        yield "gpt_neox.final_layer_norm.bias", (width,)
        if score:
            yield "score.weight", (1, width)
        elif not self.tied:
            yield "embed_out.weight", (self.vocab, width)


def random_weights(shape, seed, dtype=torch.float32, score=False):
    """Weights large enough that every part of the model matters, as the file's type rounds them."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, size in shape.tensors(score):
        value = torch.randn(size, generator=generator, dtype=torch.float64)
        if "norm.weight" in name:
            value = 1 + 0.2 * value
        elif name.endswith("bias"):
            value = 0.2 * value
        elif "query_key_value" in name:
            value = 1.5 * value / math.sqrt(size[1])
        elif "embed" in name:
            value = 0.2 * value
        else:
            value = value / math.sqrt(size[1])
        weights[name] = value.to(dtype)
    return weights


class Model:
    """weights: name -> tensor; .parameters holds them in float64, with gradients."""

    def __init__(self, shape, weights):
        self.shape = shape
        self.parameters = {name: value.to(torch.float64).clone().requires_grad_()
                           for name, value in weights.items()}

    def _linear(self, x, name):
        return functional.linear(x, self.parameters[name + ".weight"], self.parameters[name + ".bias"])

    def _norm(self, x, name):
        return functional.layer_norm(x, (self.shape.width,), self.parameters[name + ".weight"],
                                     self.parameters[name + ".bias"], self.shape.epsilon)

    def _turn(self, x):
        """x [heads, tokens, head]: coordinates j and j + n/2 of the first n turn by
        position * base^(-2 j / n)."""
        n = int(x.shape[-1] * self.shape.rotary)
        assert n % 2 == 0, "`transformers` cannot turn an odd number of coordinates"
        if n == 0:
            return x
        rate = self.shape.base ** (-torch.arange(0, n, 2, dtype=torch.float64) / n)
        angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * rate
        first, second, rest = x[..., :n // 2], x[..., n // 2:n], x[..., n:]
        return torch.cat([first * angle.cos() - second * angle.sin(),
                          second * angle.cos() + first * angle.sin(), rest], -1)

    def _attention(self, x, name):
        tokens, heads, head = len(x), self.shape.heads, self.shape.width // self.shape.heads
        mixed = self._linear(x, name + ".query_key_value").view(tokens, heads, 3, head)
        query, key, value = mixed.permute(2, 1, 0, 3)
        scores = self._turn(query) @ self._turn(key).transpose(1, 2) / math.sqrt(head)
        future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ value
        return self._linear(mixed.transpose(0, 1).reshape(tokens, -1), name + ".dense")

    def _mlp(self, x, name):
        x = self._linear(x, name + ".dense_h_to_4h")
        if self.shape.activation == "gelu":
            x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        else:
            x = x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))
        return self._linear(x, name + ".dense_4h_to_h")

    def hidden(self, tokens):
        """[tokens, width], after the last norm."""
        x = self.parameters["gpt_neox.embed_in.weight"][torch.as_tensor(tokens, dtype=torch.int64)]
        for i in range(self.shape.layers):
            layer = f"gpt_neox.layers.{i}"
            attention = self._attention(self._norm(x, layer + ".input_layernorm"), layer + ".attention")
            if self.shape.parallel:
                x = x + attention + self._mlp(self._norm(x, layer + ".post_attention_layernorm"),
                                              layer + ".mlp")
            else:
                x = x + attention
                x = x + self._mlp(self._norm(x, layer + ".post_attention_layernorm"), layer + ".mlp")
        return self._norm(x, "gpt_neox.final_layer_norm")

    def logits(self, tokens):
        output = "gpt_neox.embed_in.weight" if self.shape.tied else "embed_out.weight"
        return self.hidden(tokens) @ self.parameters[output].T

    def token_logps(self, prompt, completion):
        """Log-probabilities of the completion's tokens."""
        tokens = list(prompt) + list(completion)
        if len(completion) == 0:
            return torch.zeros(0, dtype=torch.float64)
        logp = self.logits(tokens[:-1]).log_softmax(-1)[len(prompt) - 1:]
        return logp[torch.arange(len(completion)), torch.as_tensor(list(completion), dtype=torch.int64)]

    def score(self, prompt, completion):
        """The linear head on the last token."""
        return self.hidden(list(prompt) + list(completion))[-1] @ self.parameters["score.weight"][0]

    def gradients(self, value):
        """d value / d parameter by name; zeros where there is none."""
        found = torch.autograd.grad(value, list(self.parameters.values()), allow_unused=True)
        return {name: torch.zeros_like(p) if g is None else g
                for (name, p), g in zip(self.parameters.items(), found)}


# ---------------------------------------------------------------- checkpoints

def write_safetensors(path, tensors):
    """8 bytes: the header's length; the header, JSON: type, shape and place of each tensor by name;
    the tensors' bytes, little-endian, end to end."""
    header, parts, place = {"__metadata__": {"format": "pt"}}, [], 0
    for name, value in tensors.items():
        kind, size = FILE_TYPES[value.dtype]
        value = value.contiguous()
        raw = (value.view(torch.int16) if value.dtype == torch.bfloat16 else value).numpy().tobytes()
        assert len(raw) == value.numel() * size
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [place, place + len(raw)]}
        parts.append(raw)
        place += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for raw in parts:
            file.write(raw)


def config_of(shape, spelling, dtype):
    """What config.json says; spelling: "old" (rotary_pct), "new" (partial_rotary_factor) or
    "newest" (rope_parameters)."""
    config = {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox", "bos_token_id": 0, "eos_token_id": 0, "hidden_act": shape.activation,
        "hidden_size": shape.width, "initializer_range": 0.02, "intermediate_size": shape.inner,
        "layer_norm_eps": shape.epsilon, "max_position_embeddings": shape.positions,
        "num_attention_heads": shape.heads, "num_hidden_layers": shape.layers,
        "tie_word_embeddings": shape.tied, "torch_dtype": str(dtype).split(".")[1], "use_cache": True,
        "use_parallel_residual": shape.parallel, "vocab_size": shape.vocab}
    if spelling == "old":
        config |= {"rotary_pct": shape.rotary, "rotary_emb_base": int(shape.base)}
    elif spelling == "new":
        config |= {"partial_rotary_factor": shape.rotary, "rope_theta": shape.base, "rope_scaling": None,
                   "attention_bias": True, "attention_dropout": 0.0, "hidden_dropout": 0.0,
                   "classifier_dropout": 0.1}
    elif spelling == "newest":
        config |= {"rope_parameters": {"rope_type": "default", "rope_theta": shape.base,
                                       "partial_rotary_factor": shape.rotary},
                   "dtype": config.pop("torch_dtype")}
    else:
        raise ValueError(spelling)
    return config


def write_checkpoint(folder, shape, weights, *, spelling="old", shards=1, buffers=False):
    """config.json, and model.safetensors or `shards` files with their index. buffers: also the masks
    and rotation rates that older versions of `transformers` wrote beside the weights."""
    tensors = dict(weights)
    dtype = next(iter(weights.values())).dtype
    if buffers:
        n = int(shape.width // shape.heads * shape.rotary)
        for i in range(shape.layers):
            name = f"gpt_neox.layers.{i}.attention."
            tensors[name + "bias"] = torch.ones(shape.positions, shape.positions).tril().bool()[None, None]
            tensors[name + "rotary_emb.inv_freq"] = shape.base ** (-torch.arange(0, n, 2).float() / n)
            tensors[name + "masked_bias"] = torch.tensor(-1e9)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config_of(shape, spelling, dtype), file, indent=2)
    if shards == 1:
        write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
        return
    names, index = list(tensors), {}
    for k in range(shards):
        file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        part = names[k::shards]
        write_safetensors(os.path.join(folder, file), {name: tensors[name] for name in part})
        index |= {name: file for name in part}
    size = sum(value.numel() * FILE_TYPES[value.dtype][1] for value in tensors.values())
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": size}, "weight_map": index}, file)
