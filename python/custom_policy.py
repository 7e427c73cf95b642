"""A policy and a reward written in Python, trained by the library's own online DPO: sample from the
policy, rank by the reward, top and bottom as a new pair."""

import sys

import numpy as np

import prefopt

VOCAB, HORIZON = 3, 3
logit = np.zeros((VOCAB + 1, VOCAB))  # by last token (VOCAB at the start): a Markov chain
grad = np.zeros_like(logit)


def steps(sequences):
    """(sequence, last token, next token) of every completion token."""
    for i in range(len(sequences)):
        last = VOCAB
        for token in sequences[i][1]:
            yield i, last, token
            last = token


def log_softmax():
    return logit - np.logaddexp.reduce(logit, axis=1, keepdims=True)


def logprobs(sequences):
    table, out = log_softmax(), np.zeros(len(sequences))
    for i, last, token in steps(sequences):
        out[i] += table[last, token]
    return out


def backward(sequences, grad_sequence_logp):
    p = np.exp(log_softmax())
    for i, last, token in steps(sequences):
        grad[last] -= grad_sequence_logp[i] * p[last]
        grad[last, token] += grad_sequence_logp[i]


def next_logprobs(sequences):
    table = log_softmax()
    completions = [sequences[i][1] for i in range(len(sequences))]
    return np.array([table[c[-1] if len(c) else VOCAB] for c in completions])


def repeats(sequences):
    """How often a completion says the same token twice in a row."""
    return [float(np.sum(c[1:] == c[:-1])) for c in (sequences[i][1] for i in range(len(sequences)))]


context = prefopt.Context(threads=1)
space = prefopt.space(VOCAB, HORIZON)
policy = prefopt.Policy.custom(context, logprobs, backward, next_logprobs, (logit, grad), space)
reference = prefopt.Reference.uniform(context, space)
reward = prefopt.Reward.custom(context, repeats)
prompts = prefopt.Dataset(context)
for _ in range(16):
    prompts.append(prefopt.ROW_PROMPT, [])

before = prefopt.report_objective(policy, reference, reward, prompts, beta=0.5)
trainer = prefopt.Trainer.online_dpo(policy, reference, reward, prompts, dpo={"beta": 0.5},
                                     sampler={"n": 4}, ranker={"soft_labels": 1}, learning_rate=0.05)
trainer.run(200)
after = prefopt.report_objective(policy, reference, reward, prompts, beta=0.5)
print(f"J: {before.j:.4f} -> {after.j:.4f}, the best there is {after.optimum:.4f}")
print(f"mean reward: {before.reward:.4f} -> {after.reward:.4f}, KL {after.kl:.4f}")
sys.exit(int(after.regret > 0.1 * before.regret))
