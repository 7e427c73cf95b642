#!/usr/bin/env python3
"""A DPO step in plain PyTorch: what bench/dpo_step is measured against.

    peer_dpo_step.py 14m|70m [shared|separate] [STEPS]

GPT-NeoX with random weights as `transformers` computes it: reference forward, policy forward and
backward, torch.optim.AdamW. 4 pairs of 256-token sequences; separate (default): 64 of them prompt,
the prompts different between a pair's sides; shared: prompts of 192 tokens, the same on both sides,
which PyTorch computes twice. Chosen and rejected are one batch of 8 x 256, and logits exist for
every position, as is usual there. On 2 threads; the median of STEPS (5) after one that warms up.
Prints lines `name value unit`; tokens are the 8 x 256, memory is the process's peak.

Debian's PyTorch takes its matrix products from libblas.so.3. OpenMP builds of BLIS and OpenBLAS look
at OMP_NUM_THREADS, which is set here if it was not, so that they use both threads too. Two more
variables of the environment change much, and are the caller's to set:
    BLIS_ARCH_TYPE=skx                        on CPUs that BLIS 0.9 does not know, such as Zen 5
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1     where page faults are dear, as in a virtual machine:
                                              PyTorch asks for its large tensors anew in each step
"""
import os
import resource
import statistics
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

# layers, width, heads, feed-forward
SHAPES = {"14m": (6, 128, 4, 512), "70m": (6, 512, 8, 2048)}
VOCAB, PAIRS, LENGTH, ROTARY, BETA = 50304, 4, 256, 0.25, 0.1


def rotated(x, cosine, sine):
    """x [batch, heads, tokens, head]: the first 2 * half numbers turned, the others as they are."""
    size = cosine.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    half = torch.cat((-turned[..., size // 2:], turned[..., :size // 2]), -1)
    return torch.cat((turned * cosine + half * sine, rest), -1)


class Layer(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.heads, self.head = heads, width // heads
        self.input_layernorm = nn.LayerNorm(width)
        self.post_attention_layernorm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.dense = nn.Linear(width, width)
        self.dense_h_to_4h = nn.Linear(width, inner)
        self.dense_4h_to_h = nn.Linear(inner, width)

    def attention(self, x, cosine, sine, mask):
        batch, tokens, width = x.shape
        mixed = self.query_key_value(x).view(batch, tokens, self.heads, 3 * self.head)
        query, key, value = mixed.transpose(1, 2).split(self.head, -1)
        query, key = rotated(query, cosine, sine), rotated(key, cosine, sine)
        scores = query @ key.transpose(-1, -2) * self.head ** -0.5
        weights = scores.masked_fill(mask, torch.finfo(x.dtype).min).softmax(-1)
        return self.dense((weights @ value).transpose(1, 2).reshape(batch, tokens, width))

    def forward(self, x, cosine, sine, mask):
        inner = functional.gelu(self.dense_h_to_4h(self.post_attention_layernorm(x)))
        return x + self.attention(self.input_layernorm(x), cosine, sine, mask) + self.dense_4h_to_h(inner)


class GPTNeoX(nn.Module):
    def __init__(self, layers, width, heads, inner):
        super().__init__()
        self.rotary = int(width // heads * ROTARY)
        self.embed_in = nn.Embedding(VOCAB, width)
        self.layers = nn.ModuleList(Layer(width, heads, inner) for _ in range(layers))
        self.final_layer_norm = nn.LayerNorm(width)
        self.embed_out = nn.Linear(width, VOCAB, bias=False)
        for name, value in self.named_parameters():
            if value.dim() == 2:
                nn.init.normal_(value, std=0.02)

    def forward(self, tokens):
        place = torch.arange(tokens.shape[1], dtype=torch.float32)
        rate = 10000.0 ** (-torch.arange(0, self.rotary, 2, dtype=torch.float32) / self.rotary)
        angle = torch.cat((place[:, None] * rate, place[:, None] * rate), -1)
        mask = torch.ones(len(place), len(place), dtype=torch.bool).triu(1)
        x = self.embed_in(tokens)
        for layer in self.layers:
            x = layer(x, angle.cos(), angle.sin(), mask)
        return self.embed_out(self.final_layer_norm(x))


def completion_logps(model, tokens, prompt):
    """The sum over the completion's tokens of their log-probability, one number a sequence."""
    each = model(tokens)[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None]).squeeze(2)
    return each[:, prompt - 1:].sum(1)


def step(policy, reference, optimiser, tokens, prompt):
    with torch.no_grad():
        reference_logp = completion_logps(reference, tokens, prompt)
    ratio = completion_logps(policy, tokens, prompt) - reference_logp
    loss = -functional.logsigmoid(BETA * (ratio[:PAIRS] - ratio[PAIRS:])).mean()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.item()


def main():
    arguments = [a for a in sys.argv[1:] if a not in ("shared", "separate")]
    shared = "shared" in sys.argv[1:]
    if not 1 <= len(arguments) <= 2 or arguments[0] not in SHAPES:
        sys.exit(__doc__)
    steps = int(arguments[1]) if len(arguments) > 1 else 5
    torch.set_num_threads(2)
    torch.manual_seed(1)
    policy, reference = (GPTNeoX(*SHAPES[arguments[0]]) for _ in range(2))
    reference.load_state_dict(policy.state_dict())
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-6)
    prompt = 192 if shared else 64
    tokens = torch.randint(VOCAB, (2 * PAIRS, LENGTH))
    if shared:
        tokens[PAIRS:, :prompt] = tokens[:PAIRS, :prompt]
    seconds = []
    for _ in range(steps + 1):
        start = time.monotonic()
        step(policy, reference, optimiser, tokens, prompt)
        seconds.append(time.monotonic() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"torch.dpo_step.tokens_per_s {tokens.numel() / statistics.median(seconds[1:]):.1f} token/s")
    print(f"torch.dpo_step.peak_mb {peak:.0f} MB")


if __name__ == "__main__":
    main()
