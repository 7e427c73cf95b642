"""The losses alone in a training loop of one's own: numpy has the model, libprefopt the DPO loss."""

import sys

import numpy as np

import prefopt

chosen_of, rejected_of = np.array([0, 1, 1, 2, 2, 3]), np.array([1, 0, 2, 1, 3, 2])
times = np.array([7.0, 3, 6, 4, 8, 2])
ref = np.full(6, np.log(0.25))
logit = np.zeros(4)
for step in range(2001):
    logp = logit - np.logaddexp.reduce(logit)
    loss = prefopt.loss_dpo(logp[chosen_of], logp[rejected_of], ref, ref, weight=times, beta=0.5)
    grad = np.bincount(chosen_of, loss.grad_chosen, 4) + np.bincount(rejected_of, loss.grad_rejected, 4)
    logit -= 20 * (grad - np.exp(logp) * grad.sum())  # backward through the softmax, and a step
    if step % 500 == 0:
        print(f"step {step:4d}  loss {loss.mean:.6f}")
odds = 0.5 * (logp[0] - logp[1])
print("policy:", np.exp(logp).round(4))
print(f"beta log pi(0)/pi(1) = {odds:.6f}, log 7/3 = {np.log(7 / 3):.6f}")
sys.exit(int(abs(odds - np.log(7 / 3)) > 1e-6))
