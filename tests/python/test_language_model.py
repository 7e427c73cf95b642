"""Language models through the Python binding: making, saving, tensors, sampling token by token.

    test_language_model.py TOP   (with PREFOPT_LIBRARY and PYTHONPATH set)
"""
import gc
import os
import sys
import tempfile
import unittest
import weakref

import numpy as np

import prefopt

sys.argv.pop()
SHAPE = dict(vocab=11, n_layers=2, width=8, n_heads=2, ff_width=12, max_positions=16, rotary_fraction=0.5)


class LanguageModel(unittest.TestCase):
    def setUp(self):
        self.context = prefopt.Context(threads=2)
        self.policy = prefopt.Policy.transformer(self.context, seed=3, init_scale=0.5, **SHAPE)
        self.view = prefopt.Sequences.of([([1, 2], [3, 4, 0]), ([1, 2], [5, 0]), ([7], [8])])
        self.prompts = prefopt.Dataset(self.context)
        for prompt in [1, 2], [7]:
            self.prompts.append(prefopt.ROW_PROMPT, prompt)

    def folder(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return os.path.join(folder.name, "model")

    def saved(self, *arguments, **options):
        """A folder to which the policy was saved."""
        folder = self.folder()
        try:
            self.policy.save(folder, *arguments, **options)
        except prefopt.UnsupportedError as error:
            self.skipTest(str(error))  # built without JSON
        return folder

    def test_the_shape(self):
        config = self.policy.config()
        self.assertEqual({k: getattr(config, k) for k in SHAPE}, SHAPE)
        self.assertEqual((config.parallel_residual, config.tied, config.eos), (1, 0, 0))
        with self.assertRaisesRegex(TypeError, "layers"):
            prefopt.Policy.transformer(self.context, layers=3)
        with self.assertRaisesRegex(prefopt.ArgumentError, "width"):
            prefopt.Policy.transformer(self.context, width=7, n_heads=2)
        again = prefopt.Policy.transformer(self.context, seed=3, init_scale=0.5, **SHAPE)
        other = prefopt.Policy.transformer(self.context, seed=4, init_scale=0.5, **SHAPE)
        np.testing.assert_array_equal(again.parameters()[0], self.policy.parameters()[0])
        self.assertTrue((other.parameters()[0] != self.policy.parameters()[0]).any())
        tabular = prefopt.Policy.tabular(self.context, prefopt.space(3, 2))
        for call in tabular.config, tabular.tensors, tabular.set_recompute, lambda: tabular.save("x"):
            with self.assertRaises(prefopt.UnsupportedError):
                call()

    def test_tensors_are_the_models_memory(self):
        tensors = self.policy.tensors()
        self.assertEqual(tensors["gpt_neox.embed_in.weight"][0].shape, (11, 8))
        self.assertEqual(tensors["gpt_neox.layers.1.attention.query_key_value.bias"][1].shape, (24,))
        self.assertEqual(tensors["gpt_neox.layers.0.mlp.dense_h_to_4h.weight"][0].shape, (12, 8))
        self.assertEqual(sum(value.size for value, _ in tensors.values()), self.policy.parameters()[0].size)
        before = self.policy.logprobs(self.view)
        self.policy.zero_grad()
        self.policy.backward(self.view, [1.0, 0.5, -2.0])
        value, grad = tensors["embed_out.weight"]
        self.assertGreater(np.abs(grad).max(), 0.1)
        size = 1e-3 / np.abs(grad).max()
        value += size * grad  # a small step along the gradient of before . (1, 0.5, -2)
        self.policy.updated()
        gain = (self.policy.logprobs(self.view) - before) @ [1.0, 0.5, -2.0]
        expected = size * float((grad.astype(float) ** 2).sum())
        self.assertAlmostEqual(gain / expected, 1, delta=0.03)

    def test_recomputation_changes_no_bit(self):
        grads = []
        for recompute in False, True:
            self.policy.set_recompute(recompute)
            self.policy.zero_grad()
            self.policy.backward(self.view, np.ones(3))
            grads.append(self.policy.parameters()[1].copy())
        np.testing.assert_array_equal(*grads)

    def test_transitions(self):
        vocab = SHAPE["vocab"]
        allowed = np.zeros((vocab, vocab), bool)
        allowed[np.arange(vocab), (np.arange(vocab) + 1) % vocab] = True
        open_logp = self.policy.logprobs(self.view)
        self.policy.set_transitions(allowed)
        only = prefopt.Sequences.of([([3, 1], [2, 3, 4]), ([3, 1], [2, 4])])
        np.testing.assert_array_equal(self.policy.logprobs(only), [0, -np.inf])
        self.policy.set_transitions(None)
        np.testing.assert_array_equal(self.policy.logprobs(self.view), open_logp)
        with self.assertRaisesRegex(ValueError, "shape"):
            self.policy.set_transitions(allowed[:3])
        with self.assertRaisesRegex(prefopt.ArgumentError, "no token may follow token 0"):
            self.policy.set_transitions(allowed & False)

    def test_arrays_keep_the_model(self):
        alive, tensors = weakref.ref(self.policy), self.policy.tensors()
        self.policy = None
        gc.collect()
        self.assertIsNotNone(alive())
        del tensors
        gc.collect()
        self.assertIsNone(alive())

    def test_to_a_folder_and_back(self):
        folder = self.saved()
        again = prefopt.Policy.load(self.context, folder)
        np.testing.assert_array_equal(again.parameters()[0], self.policy.parameters()[0])
        self.assertEqual(vars(again.config()), vars(self.policy.config()))
        rounded = prefopt.Policy.load(self.context, self.saved(prefopt.BF16))
        exact = self.policy.parameters()[0]
        error = np.abs(rounded.parameters()[0] - exact)
        self.assertTrue((error <= np.abs(exact) * 2**-8).all() and error.max() > 0)
        half = prefopt.Policy.load(self.context, self.saved(dtype=prefopt.F16))
        np.testing.assert_array_equal(half.parameters()[0], exact.astype(np.float16).astype(np.float32))
        with self.assertRaisesRegex(prefopt.FormatError, "language model"):
            prefopt.Reward.load(self.context, folder)
        with self.assertRaises(prefopt.IoError):
            prefopt.Policy.load(self.context, os.path.join(folder, "nowhere"))

    def test_a_reward_on_its_layers(self):
        reward = prefopt.Reward.from_policy(self.policy)
        np.testing.assert_array_equal(reward.scores(self.view), 0)
        tensors = reward.tensors()
        self.assertNotIn("embed_out.weight", tensors)
        head = tensors["score.weight"][0]
        self.assertEqual(head.shape, (1, 8))
        head[:] = np.linspace(-1, 1, 8)
        reward.updated()
        reward.set_recompute()
        scores = reward.scores(self.view)
        self.assertEqual(len(set(scores)), 3)
        self.saved()
        folder = self.folder()
        reward.save(folder)
        np.testing.assert_array_equal(prefopt.Reward.load(self.context, folder).scores(self.view), scores)
        with self.assertRaisesRegex(prefopt.FormatError, "reward model"):
            prefopt.Policy.load(self.context, folder)
        with self.assertRaises(prefopt.UnsupportedError):
            prefopt.Reward.from_policy(prefopt.Policy.tabular(self.context, prefopt.space(3, 2)))

    def test_tokens_as_they_come(self):
        seen = {}
        samples = prefopt.sample(self.policy, self.prompts, n=3, max_tokens=6, seed=5,
                                 on_token=lambda row, c, token: seen.setdefault((row, c), []).append(token))
        self.assertEqual(len(seen), 6)
        for (row, c), tokens in seen.items():
            self.assertEqual(samples[row].completions[c].tolist(), tokens)
        view = samples.sequences()
        np.testing.assert_allclose(samples.columns().logp, self.policy.logprobs(view), atol=1e-4)
        longest = max(seen.values(), key=len)
        stopped = prefopt.sample(self.policy, self.prompts, n=3, max_tokens=6, seed=5, stop=[longest[0], 9])
        for i in range(2):
            for completion in stopped[i].completions:
                self.assertFalse({longest[0], 9} & set(completion[:-1].tolist()))
        self.assertLess(stopped.sequences().tokens.size, view.tokens.size)

    def test_stopping_from_the_callback(self):
        count = []
        self.assertIsNone(prefopt.sample(self.policy, self.prompts, max_tokens=5,
                                         on_token=lambda *token: count.append(token) or len(count) == 3))
        self.assertEqual(len(count), 3)

        def fail(*_):
            raise KeyError("mine")
        with self.assertRaises(prefopt.CallbackError) as raised:
            prefopt.sample(self.policy, self.prompts, on_token=fail)
        self.assertIsInstance(raised.exception.__cause__, KeyError)

        def interrupt(*_):
            raise KeyboardInterrupt
        with self.assertRaises(KeyboardInterrupt):
            prefopt.sample(self.policy, self.prompts, on_token=interrupt)

    def test_stop_tokens_in_a_trainer(self):
        reward = prefopt.Reward.from_policy(self.policy)
        reward.tensors()["score.weight"][0][:] = 0.3
        reward.updated()
        trainer = prefopt.Trainer.online_dpo(
            self.policy, self.policy.freeze(), reward, self.prompts, learning_rate=1e-2,
            sampler={"n": 4, "max_tokens": 4, "stop": [1, 5]},
            rounds={"steps": 2, "missing_end_penalty": 0.5, "refresh": 1})
        gc.collect()
        trash = [np.full(2, 10**6, np.int32) for _ in range(1000)]  # over what was not kept
        last = trainer.run(3)
        self.assertEqual((last.step, last.round), (3, 1))
        self.assertTrue(0 <= last.ended <= 1)
        self.assertAlmostEqual(last.reward, last.score_mean - 0.5 * (1 - last.ended), places=12)
        self.assertEqual(len(trash), 1000)


if __name__ == "__main__":
    unittest.main()
