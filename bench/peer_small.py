#!/usr/bin/env python3
"""Small transformers in plain PyTorch: what bench/bench_small is measured against.

    peer_small.py [ROUNDS [NAME]]      5 rounds, one thread, everything

The model, the data's shapes and the steps are those of bench_small.c: GPT-NeoX of width 64 with 2
layers, 4 heads and 256 inner numbers over 16 tokens; sequences of 8, two of them prompt; logits of
tokens that may not follow are -infinity. Sequences go through in one batch of equal lengths, without
padding. Logits are computed for the completion's positions alone, reference numbers are stored, and
AdamW takes its foreach form, which is the quicker one. Two samplers: sample_N computes the whole
prefix again at each step, as is usual in short experiments; sample_cached_N keeps keys and values.
Prints lines `name value unit`, the least over the rounds.
"""
import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

NODES, STEPS, PROMPTS, PAIRS = 16, 6, 192, 4000
LAYERS, WIDTH, HEADS, INNER, ROTARY, BETA = 2, 64, 4, 256, 0.5, 0.1
JUMPS = torch.tensor([1, 5, 11])
ALLOWED = torch.full((NODES, NODES), -torch.inf)
for node in range(NODES):
    ALLOWED[node, (node + JUMPS) % NODES] = 0


def turn(x, cosine, sine):
    size = cosine.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    half = torch.cat((-turned[..., size // 2:], turned[..., :size // 2]), -1)
    return torch.cat((turned * cosine + half * sine, rest), -1)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.dense = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, x, cosine, sine, mask, cache):
        batch, tokens, _ = x.shape
        mixed = self.qkv(self.norm1(x)).view(batch, tokens, HEADS, -1).transpose(1, 2)
        query, key, value = mixed.split(WIDTH // HEADS, -1)
        query, key = turn(query, cosine, sine), turn(key, cosine, sine)
        if cache is not None:
            if cache:
                key, value = torch.cat((cache[0], key), 2), torch.cat((cache[1], value), 2)
            cache[:] = key, value
        scores = query @ key.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5
        if mask is not None:
            scores = scores + mask
        attended = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, tokens, WIDTH)
        return x + self.dense(attended) + self.down(functional.gelu(self.up(self.norm2(x))))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(NODES, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, NODES, bias=False)
        self.score = nn.Linear(WIDTH, 1, bias=False)
        for value in self.parameters():
            if value.dim() == 2:
                nn.init.normal_(value, std=0.1)
        places, rotary = torch.arange(2 + STEPS).float(), int(WIDTH // HEADS * ROTARY)
        rate = 10000.0 ** (-torch.arange(0, rotary, 2).float() / rotary)
        angle = torch.cat((places[:, None] * rate, places[:, None] * rate), -1)
        self.cosine, self.sine = angle.cos(), angle.sin()
        self.mask = torch.full((2 + STEPS, 2 + STEPS), -torch.inf).triu(1)

    def forward(self, tokens, first=0, caches=None):
        """first, caches: the tokens' place, and keys and values before them by layer."""
        end = first + tokens.shape[1]
        mask = self.mask[first:end, :end] if end - first > 1 else None
        x = self.embed(tokens)
        for i, layer in enumerate(self.layers):
            x = layer(x, self.cosine[first:end], self.sine[first:end], mask, caches and caches[i])
        return self.norm(x)

    def logp(self, tokens):
        """The sum over each row's completion."""
        before = tokens[:, :-1]
        logits = self.head(self(before)[:, 1:]) + ALLOWED[before[:, 1:]]
        return logits.log_softmax(-1).gather(2, tokens[:, 2:, None]).sum((1, 2))

    def draw(self, hidden, last):
        logp = (self.head(hidden) + ALLOWED[last]).log_softmax(-1)
        token = torch.multinomial(logp.exp(), 1)
        return token, logp.gather(1, token)[:, 0]

    @torch.no_grad()
    def sample(self, prompts, n, cached):
        """Completions, and the log-probability of each."""
        tokens, all_logp = prompts.repeat_interleave(n, 0), 0
        caches = [[] for _ in self.layers] if cached else None
        for step in range(STEPS):
            at = tokens.shape[1] - 1 if cached and step > 0 else 0
            token, logp = self.draw(self(tokens[:, at:], at, caches)[:, -1], tokens[:, -1])
            tokens, all_logp = torch.cat((tokens, token), 1), all_logp + logp
        return tokens, all_logp


def walks(n):
    which = torch.arange(n) * 7 % PROMPTS
    tokens = torch.stack((which // 12, which % 12), 1)
    for _ in range(STEPS):
        after = (tokens[:, -1] + JUMPS[torch.randint(3, (n,))]) % NODES
        tokens = torch.cat((tokens, after[:, None]), 1)
    return tokens


def timed(call, times):
    start = time.monotonic()
    for _ in range(times):
        call()
    return (time.monotonic() - start) / times


def trainer(model, loss):
    """One step: the loss's gradient, clipped, and AdamW."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0, foreach=True)

    def step():
        optimiser.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(parameters, 1)
        optimiser.step()
    parameters = [p for p in model.parameters()]
    model.score.weight.requires_grad_(False)
    return step


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    only = sys.argv[2] if len(sys.argv) > 2 else None
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = Model()
    chosen, rejected, demonstrations = walks(PAIRS), walks(PAIRS), walks(PAIRS)
    with torch.no_grad():
        reference = model.logp(chosen) - model.logp(rejected)

    def dpo():
        rows = torch.randint(PAIRS, (64,))
        logp = model.logp(torch.cat((chosen[rows], rejected[rows])))
        return -functional.logsigmoid(BETA * (logp[:64] - logp[64:] - reference[rows])).mean()

    def sft():
        return -model.logp(demonstrations[torch.randint(PAIRS, (128,))]).mean()

    def score():
        with torch.no_grad():
            return model.score(model(demonstrations)[:, -1])

    def logprobs():
        with torch.no_grad():
            return model.logp(demonstrations)

    dpo_step, sft_step = trainer(model, dpo), trainer(model, sft)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0, foreach=True)

    for value in model.parameters():  # of the first round, if nothing else is measured before
        value.grad = torch.full_like(value, 1e-3)

    def optimise():
        nn.utils.clip_grad_norm_([p for p in model.parameters()], 1)
        adamw.step()

    seconds = {}

    def measure(name, call, times, each=1, warm=0):
        if only not in (None, name):
            return
        for _ in range(warm):
            call()
        seconds.setdefault(name, []).append(timed(call, times) / each)

    for _ in range(rounds):
        measure("dpo_step", dpo_step, 50, 1, 5)
        measure("sft_step", sft_step, 50, 1, 5)
        measure("adamw", optimise, 200)
        for n in 64, 1000, 4000:
            prompts = walks(n)[:, :2]
            for cached in False, True:
                name = "sample_cached_" if cached else "sample_"
                measure(f"{name}{n}", lambda: model.sample(prompts, 16, cached), 4000 // n, 16 * n)
        measure("score", score, 1, PAIRS)
        measure("logprobs", logprobs, 1, PAIRS)
    for name, values in seconds.items():
        print(name, "%.4g" % (1e6 * min(values)), "us")


if __name__ == "__main__":
    main()
