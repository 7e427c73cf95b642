"""What tuning did to a language model, measured on held-out pairs of text.

    text_report.py POLICY REFERENCE PAIRS.jsonl[.gz] [--reward DIR] [--train FILE] [options]

POLICY is the tuned checkpoint, REFERENCE the one it was tuned from. Said are: how well log-probability,
DPO's own reward and the reward model predict the pairs; displacement, how far log-probabilities of chosen
and rejected moved; KL to the reference by samples, three estimates with standard errors; how much of what
the policy writes the training pairs hold (--train); and the reward of the best of n samples, with the KL
that it costs at most.
"""

import argparse
import os

import numpy as np

import prefopt


def read(context, tokenizer, eos, path, a):
    pairs, counts = prefopt.Dataset.read_text(context, tokenizer, path, eos=eos, max_prompt=a.max_prompt,
                                              max_completion=a.max_completion, max_rows=a.limit)
    print(f"{path}: {counts.rows} pairs, {counts.completions_cut} completions cut")
    return pairs


def prompts_of(context, pairs):
    """Each distinct prompt once, as a row of its own."""
    seen, prompts = set(), prefopt.Dataset(context)
    for i in range(len(pairs)):
        prompt = pairs[i].prompt
        if prompt.tobytes() not in seen:
            seen.add(prompt.tobytes())
            prompts.append(prefopt.ROW_PROMPT, prompt)
    return prompts


def print_fit(name, reward, pairs):
    fit = prefopt.report_preference_fit(reward, pairs)
    print(f"  {name:34} {fit.accuracy:8.4f}  {fit.log_likelihood:8.4f}")


def print_kl(samples, policy, reference):
    view = samples.sequences()
    logp, ref = policy.logprobs(view), reference.logprobs(view)
    print("KL(policy || reference), nats a completion, by its own samples (standard error)")
    for name, estimator in (("k1", prefopt.KL_K1), ("k2", prefopt.KL_K2), ("k3", prefopt.KL_K3)):
        _, mean, error = prefopt.kl_estimate(prefopt.KL_REVERSE, estimator, prefopt.FROM_POLICY, logp,
                                             ref)
        print(f"  {name} {mean:9.4f} ({error:.4f})")


def print_coverage(samples, pairs):
    """The pairs' completions and whole prefixes of eight tokens: what an offline loss has seen."""
    known, begun, prefix = set(), set(), 8
    for prompt, completion in pairs.sequences():
        known.add((prompt.tobytes(), completion.tobytes()))
        begun.add((prompt.tobytes(), completion[:prefix].tobytes()))
    view = [(p.tobytes(), c) for p, c in samples.sequences()]
    whole = np.mean([(p, c.tobytes()) in known for p, c in view])
    start = np.mean([(p, c[:prefix].tobytes()) in begun for p, c in view])
    print("share of the policy's samples that the training pairs hold")
    print(f"  whole completions {whole:.4f}\n  their first {prefix} tokens {start:.4f}")


def print_best_of_n(reward, samples, n_prompts, n):
    score = reward.scores(samples.sequences()).reshape(n_prompts, n)
    print("best of n by the reward model: its mean score, and log n - (n-1)/n, nats")
    uniform = np.full(n, -np.log(n))
    k = 1
    while k <= n // 2:
        best = [prefopt.best_of_n(k, uniform, row) for row in score]
        print(f"  {k:4} {np.mean([b.expected_score for b in best]):9.4f}  {best[0].bound:7.4f}")
        k *= 2
    return score


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("policy")
    parser.add_argument("reference")
    parser.add_argument("pairs")
    parser.add_argument("--reward", help="folder of a reward model")
    parser.add_argument("--train", help="the pairs that were trained on: coverage")
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--samples", type=int, default=16, help="completions a prompt")
    parser.add_argument("--max-new", type=int, default=128, help="tokens of a sample")
    parser.add_argument("--max-prompt", type=int, default=256)
    parser.add_argument("--max-completion", type=int, default=256)
    parser.add_argument("--limit", type=int, default=0, help="pairs from the start of each file; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()

    context = prefopt.Context()
    policy = prefopt.Policy.load(context, a.policy)
    before = prefopt.Policy.load(context, a.reference)
    reference = before.freeze()
    tokenizer = prefopt.Tokenizer.load(context, os.path.join(a.policy, "tokenizer.json"))
    eos = policy.config().eos
    pairs = read(context, tokenizer, eos, a.pairs, a)
    reward = prefopt.Reward.load(context, a.reward) if a.reward else None

    print("held-out preferences                accuracy  log-likelihood a pair (a coin: -0.6931)")
    print_fit("log-probability of the reference", prefopt.Reward.local(before), pairs)
    print_fit("log-probability of the policy", prefopt.Reward.local(policy), pairs)
    print_fit("DPO's own reward", prefopt.Reward.implicit(policy, reference, a.beta), pairs)
    if reward is not None:
        print_fit("reward model", reward, pairs)

    moved = prefopt.report_displacement(pairs, reference, policy)
    print("displacement, nats: change of log-probability since the reference")
    print(f"  chosen {moved.chosen:.4f}  rejected {moved.rejected:.4f}  chosen fell in "
          f"{moved.chosen_fell:.4f} of the pairs, both in {moved.both_fell:.4f}")

    prompts = prompts_of(context, pairs)
    samples = prefopt.sample(policy, prompts, n=a.samples, max_tokens=a.max_new, seed=a.seed)
    lengths = np.diff(samples.sequences().offsets) - samples.sequences().prompt_len
    print(f"{a.samples} samples for each of {len(prompts)} prompts, {lengths.mean():.1f} tokens")
    print_kl(samples, policy, reference)
    if a.train:
        trained = read(context, tokenizer, eos, a.train, a)
        print_coverage(prefopt.sample(policy, prompts_of(context, trained), n=a.samples,
                                      max_tokens=a.max_new, seed=a.seed), trained)
    if reward is not None:
        score = print_best_of_n(reward, samples, len(prompts), a.samples)
        other = prefopt.sample(before, prompts, n=a.samples, max_tokens=a.max_new, seed=a.seed)
        base = reward.scores(other.sequences()).reshape(score.shape)
        wins = (score[:, :, None] > base[:, None, :]).mean(axis=(1, 2))
        wins += 0.5 * (score[:, :, None] == base[:, None, :]).mean(axis=(1, 2))
        print(f"reward of a sample: policy {score.mean():.4f}, reference {base.mean():.4f}; the policy's "
              f"wins {wins.mean():.4f} of all pairings")


if __name__ == "__main__":
    main()
