"""Language models from Python: the examples generate, score_pairs and dpo_text, and tune init, in one file.

    language_model.py new TOKENIZER.JSON DIR       a small random model, whose text is noise
    language_model.py generate DIR TEXT            its continuation, as it comes
    language_model.py score DIR FILE.jsonl[.gz]    log-probabilities (or rewards) of pairs, accuracy
    language_model.py dpo DIR FILE.jsonl[.gz] OUT  a few DPO steps on pairs

DIR holds config.json, model.safetensors and tokenizer.json; --help says the options.
"""

import argparse
import codecs
import os
import shutil
import sys
import time

import numpy as np

import prefopt


def end_of(tokenizer):
    """The token that ends texts, by the names in use; -1: none."""
    found = [tokenizer.token(name) for name in ("<|endoftext|>", "</s>", "<|end|>")]
    return next((token for token in found if token is not None), -1)


def load(folder, reward_too=False):
    """(model, tokenizer, end token) of a folder; the model may be a prefopt.Reward."""
    context = prefopt.Context()
    try:
        model = prefopt.Policy.load(context, folder)
    except prefopt.FormatError as error:
        if not reward_too:
            raise
        try:
            model = prefopt.Reward.load(context, folder)
        except prefopt.FormatError as second:
            raise prefopt.FormatError(f"{error}; as a reward model: {second}") from None
    tokenizer = prefopt.Tokenizer.load(context, os.path.join(folder, "tokenizer.json"))
    is_policy = isinstance(model, prefopt.Policy)
    return context, model, tokenizer, model.config().eos if is_policy else end_of(tokenizer)


def progress(what, done, total, start):
    if sys.stderr.isatty():
        rate = done / max(time.monotonic() - start, 1e-9)
        print(f"\r{what} {100 * done // total} %  {rate:.0f}/s  {(total - done) / rate:.0f} s left  ",
              end="\n" if done == total else "", file=sys.stderr, flush=True)


def begun(context, pairs, eos):
    """The same rows with the token that ends a text where they have no prompt: a language model gives its
    first token no probability."""
    out = prefopt.Dataset(context)
    for i in range(len(pairs)):
        row = pairs[i]
        out.append(row.kind, row.prompt if row.prompt.size else [eos], row.completions, weight=row.weight,
                   label=row.label, margin=row.margin)
    return out


def read_pairs(context, model, tokenizer, eos, a):
    is_policy = isinstance(model, prefopt.Policy)
    limits = {"max_tokens": model.config().max_positions} if is_policy else {}

    def read():
        return prefopt.Dataset.read_text(
            context, tokenizer, a.file, eos=eos, max_prompt=a.max_prompt, max_completion=a.max_completion,
            max_rows=a.limit, **limits)

    pairs, counts = read()
    bare = next((i for i in range(len(pairs)) if pairs[i].prompt.size == 0), None)
    if bare is not None and eos < 0 and is_policy:
        raise ValueError(f"{a.file}: row {bare + 1} has no prompt, and the model no token that ends a text, "
                         "which would stand before it")
    if bare is not None and eos >= 0:
        if is_policy:  # once more, with room for the token before them
            limits["max_tokens"] -= 1
            pairs, counts = read()
        pairs = begun(context, pairs, eos)
    print(f"{a.file}: {counts.rows} pairs from {counts.lines} lines")
    for name in ("prompts_cut", "completions_cut", "completion_tokens_cut", "too_long", "same",
                 "no_longer_differ", "implicit_prompts", "boundary_mismatches"):
        if getattr(counts, name):
            print(f"  {name.replace('_', ' ')}: {getattr(counts, name)}")
    if not len(pairs) or (pairs.columns().kind != prefopt.ROW_PAIR).any():
        raise ValueError(f"{a.file}: expected pairs: \"chosen\" and \"rejected\" in each line")
    return pairs


def values(model, sequences):
    """Log-probabilities (a reward model's scores), some sequences at a time, with progress."""
    call = model.logprobs if isinstance(model, prefopt.Policy) else model.scores
    out, start = np.empty(len(sequences)), time.monotonic()
    for i in range(0, len(out), 32):
        j = min(i + 32, len(out))
        out[i:j] = call(prefopt.Sequences(sequences.tokens, sequences.offsets[i:j + 1],
                                          sequences.prompt_len[i:j]))
        progress("sequences", j, len(out), start)
    return out


def new(a):
    context = prefopt.Context()
    tokenizer = prefopt.Tokenizer.load(context, a.tokenizer)
    policy = prefopt.Policy.transformer(
        context, a.seed, vocab=len(tokenizer), eos=end_of(tokenizer), n_layers=a.layers, width=a.width,
        n_heads=a.heads, ff_width=4 * a.width)
    policy.save(a.dir)
    shutil.copyfile(a.tokenizer, os.path.join(a.dir, "tokenizer.json"))
    print(f"{a.dir}: random weights: its text is noise until it is trained")


def generate(a):
    context, policy, tokenizer, eos = load(a.dir)
    prompts = prefopt.Dataset(context)
    prompt = tokenizer.encode(a.text)
    prompts.append(prefopt.ROW_PROMPT, prompt if prompt.size or eos < 0 else [eos])

    def text_of(tokens):
        return b"".join(tokenizer.decode([t]) if t < len(tokenizer) else b"\xef\xbf\xbd"
                        for t in tokens if not tokenizer.is_special(t))

    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # holds back half characters

    def show(row, completion, token):
        if a.n == 1:
            print(decoder.decode(text_of([token])), end="", flush=True)

    if a.n == 1:
        print(a.text, end="")
    samples = prefopt.sample(
        policy, prompts, on_token=show, n=a.n, max_tokens=a.max_tokens, top_k=a.top_k, top_p=a.top_p,
        temperature=0 if a.greedy else a.temperature, min_p=a.min_p, seed=a.seed)
    if a.n == 1:
        print(decoder.decode(b"", final=True))
        return
    row = samples[0]
    for i, completion in enumerate(row.completions):
        print(f"--- {i + 1}, log-probability {row.logp[i]:.3f}")
        print(a.text + text_of(completion.tolist()).decode(errors="replace"))


def score(a):
    context, model, tokenizer, eos = load(a.dir, reward_too=True)
    pairs = read_pairs(context, model, tokenizer, eos, a)
    sequences = pairs.sequences()
    value = values(model, sequences)
    length = np.diff(sequences.offsets) - sequences.prompt_len
    columns = pairs.columns()
    weight, label = columns.weight, columns.label
    n = weight.sum() ** 2 / (weight ** 2).sum()
    z2 = 1.959963984540054 ** 2

    def show(name, numbers):
        chosen, rejected = numbers[0::2], numbers[1::2]
        right = np.where(chosen > rejected, label, np.where(chosen < rejected, 1 - label, 0.5))
        p = (weight * right).sum() / weight.sum()
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)  # Wilson's interval
        half = np.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
        print(f"{name:28} chosen {chosen.mean():10.4f}  rejected {rejected.mean():10.4f}  accuracy "
              f"{p:.4f} [{max(0, middle - half):.4f}, {min(1, middle + half):.4f}]")

    show("sum" if isinstance(model, prefopt.Policy) else "score", value)
    if isinstance(model, prefopt.Policy):
        show("mean by token", value / np.maximum(length, 1))
    show("tokens of the completion", length)


def dpo(a):
    context, policy, tokenizer, eos = load(a.dir)
    pairs = read_pairs(context, policy, tokenizer, eos, a)
    pairs = pairs.select(prefopt.shuffle_order(a.seed, 0, len(pairs))[:a.steps * a.batch])
    # The reference is the policy as it is now.
    pairs.set_column(prefopt.COLUMN_REF_LOGP, values(policy, pairs.sequences()))
    reference = prefopt.Reference.of_dataset(pairs)
    tokens = pairs.sequences().tokens.size / len(pairs) * min(a.batch, len(pairs))
    start, every, off = time.monotonic(), -(-a.steps // 10), []

    def show(p):
        if p.step == 1:  # its numbers are from before its step
            off.append(abs(p.loss - np.log(2)) > 1e-4 or abs(p.margin) > 1e-4)
            print(f"step 0: loss {p.loss:.6f}, margin {p.margin + 0.0:.6f}: "
                  f"{'NOT ' if off[0] else ''}log 2 and 0, as it should be")
        rate = p.step * tokens / (time.monotonic() - start)
        line = (f"step {p.step}/{p.n_steps}  loss {p.loss:.4f}  accuracy {p.accuracy:.2f}  margin "
                f"{p.margin:+.4f}  {rate:.0f} tokens/s  {p.seconds_left:.0f} s left")
        keep = p.step % every == 0 or p.step == p.n_steps
        if sys.stderr.isatty():
            print("\r\033[K" + ("" if keep else line), end="", file=sys.stderr, flush=True)
        if keep:
            print(line, flush=True)

    trainer = prefopt.Trainer.dpo(policy, reference, pairs, {"beta": a.beta}, learning_rate=a.lr,
                                  clip_norm=1, batch=a.batch, seed=a.seed, progress=show)
    trainer.run(a.steps)
    policy.save(a.out)
    source, copy = (os.path.join(folder, "tokenizer.json") for folder in (a.dir, a.out))
    if os.path.realpath(source) != os.path.realpath(copy):
        shutil.copyfile(source, copy)
    print(f"{a.out}: the tuned checkpoint")
    return int(off[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function, *words, **options):
        c = commands.add_parser(function.__name__)
        c.set_defaults(run=function)
        for word in words:
            c.add_argument(word)
        for name, default in options.items():
            flag = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
            c.add_argument(("-" if len(name) == 1 else "--") + name.replace("_", "-"), **flag)

    command(new, "tokenizer", "dir", layers=2, width=128, heads=4, seed=0)
    command(generate, "dir", "text", max_tokens=128, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0,
            seed=0, greedy=False, n=1)
    command(score, "dir", "file", max_prompt=0, max_completion=0, limit=0)
    command(dpo, "dir", "file", "out", steps=50, batch=4, beta=0.1, lr=1e-5, max_prompt=256,
            max_completion=256, limit=0, seed=0)
    a = parser.parse_args()
    try:
        return a.run(a)
    except (prefopt.Error, OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
