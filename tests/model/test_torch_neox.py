"""The transformer against PyTorch in float64: checkpoints of many shapes, written here and loaded by
the library; log-probabilities, every gradient, next tokens and reward scores. And against outside
numbers, where they are there.

    test_torch_neox.py TOP   (with PREFOPT_LIBRARY and PYTHONPATH set)

Ends with status 77 (skipped) where PyTorch is not installed.
"""
import ctypes
import json
import os
import pathlib
import sys
import tempfile
import unittest

import numpy as np

import prefopt
from prefopt import lib

try:
    import torch
except ImportError:
    print("skipped: PyTorch is not installed (Debian: python3-torch); nothing was compared")
    sys.exit(77)
import torch_neox  # noqa: E402
from torch_neox import Shape  # noqa: E402

torch.set_num_threads(1)
TOP = pathlib.Path(sys.argv.pop())
OUTSIDE = sorted((TOP / "../shared/data/neox_tiny").glob("*/expected.json"))

LOGP_TOLERANCE = 2e-5  # absolute, a token's and a sequence's log-probability
GRAD_TOLERANCE = 1e-4  # of a tensor's gradient, in l2, relative

F16, BF16 = torch.float16, torch.bfloat16
# name: the shape, the file's number type, how the checkpoint is written
CASES = {
    "parallel": (Shape(), torch.float32, {}),
    "sequential_f16": (Shape(parallel=False, layers=3), F16, dict(spelling="new")),
    "rotary_whole_tied_bf16": (Shape(rotary=1.0, tied=True), BF16, {}),
    "tanh_sharded": (Shape(activation="gelu_new", width=40, heads=2, rotary=0.3, parallel=False),
                     torch.float32, dict(spelling="new", shards=3)),
    "odd_fraction": (Shape(activation="gelu_pytorch_tanh", width=96, heads=3, rotary=0.26, base=500.0,
                           epsilon=1e-3, vocab=130, inner=72), torch.float32, dict(shards=2)),
    "no_rotary_one_head": (Shape(rotary=0.0, heads=1, width=32, tied=True, parallel=False), BF16,
                           dict(spelling="new", shards=2)),
    "old_buffers_f16": (Shape(layers=3), F16, dict(buffers=True, shards=2)),
    "long": (Shape(width=128, heads=2, inner=512, vocab=1000, positions=160, layers=1, rotary=0.5),
             torch.float32, dict(spelling="newest")),
}


def batch_of(shape, seed):
    """(prompt, completion) pairs of ragged lengths: a prompt shared by three, one that another
    begins with, a repeated sequence, an empty completion, one as long as the model takes."""
    rng = np.random.default_rng(seed)

    def tokens(n):  # 0 ends a completion
        return [int(t) for t in rng.integers(1, shape.vocab, n)]
    shared, other = tokens(11), tokens(5)
    first = tokens(4)
    return [(shared, tokens(9)), (other, tokens(1)), (shared, first), (tokens(1), tokens(17)),
            (other + tokens(3), tokens(6)), (shared, tokens(13)), (shared, first), (other, []),
            (tokens(shape.positions // 2), tokens(shape.positions - shape.positions // 2))]


def tensors_of(policy):
    """name -> (offset, shape) of the policy's parameters."""
    found = {}
    while True:
        out = prefopt._struct("prefopt_tensor")
        if lib.prefopt_policy_tensor(policy.handle, len(found), ctypes.byref(out)) != 0:
            return found
        shape = (out.rows, out.columns) if out.n_dims == 2 else (out.rows,)
        found[ctypes.string_at(out.name).decode()] = (out.offset, shape)


def named(array, tensors):
    return {name: array[offset:offset + int(np.prod(shape))].reshape(shape)
            for name, (offset, shape) in tensors.items()}


class Transformer(unittest.TestCase):
    compared = 0  # tensors' gradients, over all tests

    def context(self, **options):
        made = prefopt.Context(**options)
        self.addCleanup(made.close)
        return made

    def load(self, context, folder):
        try:
            made = prefopt.Policy._made(lib.prefopt_policy_load, context.handle, os.fsencode(folder))
        except prefopt.UnsupportedError as error:
            if "built without" not in str(error):
                raise
            self.skipTest(str(error))
        self.addCleanup(made.close)
        return made

    def make(self, context, shape, weights):
        """The same model without a checkpoint: made by configuration, its weights written."""
        tanh = shape.activation != "gelu"
        config = prefopt._options("prefopt_transformer_config", dict(
            activation=prefopt.GELU_TANH if tanh else prefopt.GELU, parallel_residual=shape.parallel,
            tied=shape.tied, vocab=shape.vocab, n_layers=shape.layers, width=shape.width,
            n_heads=shape.heads, ff_width=shape.inner, max_positions=shape.positions,
            rotary_fraction=shape.rotary, rotary_base=shape.base, norm_epsilon=shape.epsilon))
        made = prefopt.Policy._made(lib.prefopt_policy_create_transformer, context.handle,
                                    ctypes.byref(config), 1)
        self.addCleanup(made.close)
        for name, part in named(made.parameters()[0], tensors_of(made)).items():
            part[...] = weights[name].float().numpy()
        made.updated()
        return made

    def assert_gradients(self, found, expected, what):
        self.assertEqual(set(found), set(expected), what)
        for name, value in expected.items():
            value = value.detach().numpy()
            self.assertEqual(found[name].shape, value.shape, (what, name))
            size = np.linalg.norm(value)
            self.assertGreater(size, 0, (what, name))
            self.assertLessEqual(np.linalg.norm(found[name] - value) / size, GRAD_TOLERANCE, (what, name))
            Transformer.compared += 1

    def gradients(self, policy, batch, weight):
        policy.parameters()
        policy.zero_grad()
        policy.logprobs(batch)
        policy.backward(batch, weight)
        return policy.parameters()[1].copy()

    def run_case(self, name, loads):
        shape, dtype, how = CASES[name]
        seed = sorted(CASES).index(name)
        weights = torch_neox.random_weights(shape, seed, dtype)
        model = torch_neox.Model(shape, weights)
        batch = batch_of(shape, seed)
        each = [model.token_logps(prompt, completion) for prompt, completion in batch]
        weight = np.random.default_rng(seed).normal(size=len(batch))
        weight[4] = 0
        gradients = model.gradients(sum(w * logp.sum() for w, logp in zip(weight, each)))
        # One thread; three; and a byte budget so small that every sequence is a part of its own.
        contexts = [self.context(**options) for options in
                    (dict(threads=1), dict(threads=3), dict(threads=1, byte_budget=1))]
        if loads:
            with tempfile.TemporaryDirectory() as folder:
                torch_neox.write_checkpoint(folder, shape, weights, **how)
                policies = [self.load(context, folder) for context in contexts]
        else:
            policies = [self.make(context, shape, weights) for context in contexts]
        tensors = tensors_of(policies[0])
        parameters = named(policies[0].parameters()[0], tensors)
        self.assertEqual({n: p.shape for n, p in parameters.items()},
                         {n: tuple(w.shape) for n, w in weights.items()})
        for n, p in parameters.items():
            np.testing.assert_array_equal(p, weights[n].float().numpy(), n)
        self.assertEqual(policies[0].space().vocab, shape.vocab)

        logps = [policy.logprobs(batch, tokens=True) for policy in policies]
        expected = np.concatenate([np.concatenate([np.zeros(len(p)), logp.detach().numpy()])
                                   for (p, _), logp in zip(batch, each)])
        for by_sequence, by_token in logps:
            np.testing.assert_allclose(by_token, expected, rtol=0, atol=LOGP_TOLERANCE)
            np.testing.assert_allclose(by_sequence, [e.sum().item() for e in each], rtol=0,
                                       atol=LOGP_TOLERANCE)
        np.testing.assert_array_equal(logps[0][1], logps[1][1])

        found = [self.gradients(policy, batch, weight) for policy in policies]
        for flat in found:
            self.assert_gradients(named(flat, tensors), gradients, name)
        np.testing.assert_array_equal(found[0], found[1])

        # What comes next after each sequence that can go on.
        going = [(p, c) for p, c in batch if len(p) + len(c) < shape.positions and c]
        self.assertGreater(len(going), 5)
        for policy in policies[:1]:
            following = policy.next_logprobs(going)
            for row, (p, c) in zip(following, going):
                self.assertLess(np.abs(row - model.logits(p + c)[-1].log_softmax(-1).detach().numpy()).max(),
                                LOGP_TOLERANCE)

    def run_reward(self, name):
        """The linear head on the last token: scores, and every gradient. The head's weights come after
        the layers', which lie as the policy's do."""
        shape, dtype, _ = CASES[name]
        seed = 100 + sorted(CASES).index(name)
        weights = torch_neox.random_weights(shape, seed, dtype, score=True)
        model = torch_neox.Model(shape, weights)
        policy_weights = dict(weights)
        head = policy_weights.pop("score.weight")
        if not shape.tied:
            policy_weights["embed_out.weight"] = torch.zeros(shape.vocab, shape.width)
        policy = self.make(self.context(threads=2), shape, policy_weights)
        reward = prefopt.Reward._made(lib.prefopt_reward_from_policy, policy.handle)
        self.addCleanup(reward.close)
        tensors = {n: place for n, place in tensors_of(policy).items() if n != "embed_out.weight"}
        end = max(offset + int(np.prod(size)) for offset, size in tensors.values())
        tensors["score.weight"] = (end, (1, shape.width))
        values, _ = reward.parameters()
        self.assertEqual(values.size, end + shape.width)
        named(values, tensors)["score.weight"][...] = head.float().numpy()
        reward.updated()
        batch = [(p, c) for p, c in batch_of(shape, seed) if c]
        expected = [model.score(p, c) for p, c in batch]
        weight = np.random.default_rng(seed).normal(size=len(batch))
        np.testing.assert_allclose(reward.scores(batch), [e.item() for e in expected], rtol=0,
                                   atol=LOGP_TOLERANCE)
        reward.zero_grad()
        reward.backward(batch, weight)
        gradients = model.gradients(sum(w * e for w, e in zip(weight, expected)))
        self.assert_gradients(named(reward.parameters()[1], tensors), gradients, name)

    def run_outside(self, path):
        """Numbers that were made elsewhere. Checks the model of this test against them too."""
        expected = json.loads(path.read_text())
        policy = self.load(self.context(threads=2), path.parent)
        tensors = tensors_of(policy)
        self.assertGreater(len(expected["sequences"]), 0)
        for sequence in expected["sequences"]:
            ids = sequence["input_ids"]
            batch = [(ids[:1], ids[1:])]
            total, by_token = policy.logprobs(batch, tokens=True)
            np.testing.assert_allclose(by_token[1:], sequence["next_token_logprobs"], rtol=0,
                                       atol=LOGP_TOLERANCE)
            self.assertAlmostEqual(total[0], sequence["sum_logprob"], delta=LOGP_TOLERANCE)
            last = torch.tensor(sequence["logits_last"], dtype=torch.float64).log_softmax(-1).numpy()
            following = policy.next_logprobs([(ids[:1], ids[1:])])[0]
            np.testing.assert_allclose(following, last, rtol=0, atol=LOGP_TOLERANCE)
            found = self.gradients(policy, batch, [-1 / (len(ids) - 1)])
            self.assert_summary(named(found, tensors), sequence["grad_of_mean_nll"])
        dpo = expected.get("dpo")
        if dpo is None:
            return
        batch = [(dpo["prompt"], dpo["chosen"]), (dpo["prompt"], dpo["rejected"])]
        logp = policy.logprobs(batch)
        np.testing.assert_allclose(logp, [dpo["policy_chosen_logp"], dpo["policy_rejected_logp"]], rtol=0,
                                   atol=LOGP_TOLERANCE)
        loss = prefopt.loss_dpo(logp[:1], logp[1:], [dpo["ref_chosen_logp"]], [dpo["ref_rejected_logp"]],
                                beta=dpo["beta"])
        self.assertAlmostEqual(loss.mean, dpo["loss"], delta=1e-5)
        found = self.gradients(policy, batch, [loss.grad_chosen[0], loss.grad_rejected[0]])
        self.assert_summary(named(found, tensors), dpo["grad_of_loss"])

    def assert_summary(self, found, expected):
        """Gradients of which only the l2 norm and the first numbers are known."""
        self.assertEqual(set(found), set(expected))
        for name, value in expected.items():
            size = np.linalg.norm(found[name].astype(float))
            self.assertLessEqual(abs(size - value["l2"]), GRAD_TOLERANCE * value["l2"], name)
            first = found[name].ravel()[:len(value["first3"])]
            self.assertGreater(len(first), 0)
            # A single number's error is held to the size of the tensor's numbers.
            scale = value["l2"] / np.sqrt(found[name].size) + np.abs(value["first3"])
            self.assertTrue((np.abs(first - value["first3"]) <= GRAD_TOLERANCE * scale).all(), name)
            Transformer.compared += 1


def add_tests():
    for name in CASES:
        setattr(Transformer, "test_made_" + name, lambda self, n=name: self.run_case(n, False))
        setattr(Transformer, "test_loaded_" + name, lambda self, n=name: self.run_case(n, True))
        setattr(Transformer, "test_reward_" + name, lambda self, n=name: self.run_reward(n))
    for path in OUTSIDE:
        setattr(Transformer, "test_outside_" + path.parent.name,
                lambda self, p=path: self.run_outside(p))


add_tests()

if __name__ == "__main__":
    if not OUTSIDE:
        print("shared/data/neox_tiny is not there: outside numbers were not compared")
    result = unittest.main(exit=False).result
    print(f"compared the gradients of {Transformer.compared} tensors")
    sys.exit(not result.wasSuccessful() or Transformer.compared == 0)
