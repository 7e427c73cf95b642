"""The Python binding against the library: layouts, functions, constants, and each call once.

    test_binding.py TOP   (with PREFOPT_LIBRARY and PYTHONPATH set)
"""
import ctypes
import json
import functools
import gc
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import unittest
import weakref

import numpy as np

import prefopt
from prefopt import lib, structs

TOP = pathlib.Path(sys.argv.pop())
HEADERS = re.sub(r"/\*.*?\*/", " ", "\n".join(
    path.read_text() for path in sorted((TOP / "include/prefopt").glob("*.h"))), flags=re.S)


def needs(feature):
    """Leaves a test out where the library was built without a feature that it needs."""
    def decorate(test):
        @functools.wraps(test)
        def run(self):
            try:
                test(self)
            except prefopt.UnsupportedError as error:
                if f"built without {feature}" not in str(error):
                    raise
                self.skipTest(str(error))
        return run
    return decorate


class Declarations(unittest.TestCase):
    def test_structs_have_the_librarys_layout(self):
        names = set(re.findall(r"typedef struct (\w+)\s*\{", HEADERS))
        self.assertEqual(names, set(vars(structs)))
        for name in names:
            struct = getattr(structs, name)
            self.assertEqual(ctypes.sizeof(struct), lib.prefopt_sizeof(name.encode()), name)
            for field, _ in struct._fields_:
                self.assertEqual(getattr(struct, field).offset,
                                 lib.prefopt_offsetof(name.encode(), field.encode()), (name, field))

    def test_functions_are_the_exported_ones(self):
        listing = subprocess.run(["nm", "-D", "--defined-only", os.environ["PREFOPT_LIBRARY"]],
                                 check=True, capture_output=True, text=True).stdout
        exported = {line.split()[2].split("@")[0] for line in listing.splitlines()
                    if line.split()[1] == "T"}
        declared = {line.split()[1] for line in prefopt._lines(prefopt._FUNCTIONS)}
        self.assertEqual(exported, declared)

    def test_constants_are_the_headers(self):
        found = dict(re.findall(r"(PREFOPT_\w+)\s*=\s*(-?\d+)", HEADERS))
        self.assertGreater(len(found), 60)
        for name, value in found.items():
            self.assertEqual(getattr(prefopt, name.removeprefix("PREFOPT_")), int(value), name)


class Losses(unittest.TestCase):
    def test_pair_losses(self):
        c, r = np.array([1.0, 2.0, -3.0]), np.array([0.5, 3.0, -3.0])
        out = prefopt.loss_bradley_terry(c, r)
        np.testing.assert_allclose(out.each, np.logaddexp(0, r - c), rtol=1e-15)
        np.testing.assert_allclose(out.grad_chosen, -1 / (1 + np.exp(c - r)) / 3, rtol=1e-14)
        out = prefopt.loss_dpo(c, r, np.zeros(3), np.zeros(3), beta=0.5, variant=prefopt.DPO_HINGE)
        np.testing.assert_allclose(out.each, np.maximum(0, 1 - 0.5 * (c - r)))
        with self.assertRaisesRegex(prefopt.ArgumentError, "gamma"):
            prefopt.loss_dpo(c, r, c, r, gamma=1.0)
        with self.assertRaisesRegex(TypeError, "betta"):
            prefopt.loss_dpo(c, r, betta=1.0)
        with self.assertRaisesRegex(ValueError, "rejected has 2 elements"):
            prefopt.loss_dpo(c, r[:2])

    def test_arrays_are_not_copied(self):
        c = np.zeros(3)
        self.assertIs(prefopt._f64(c, "c"), c)

    def test_others(self):
        out = prefopt.loss_kto([-1.0, -2.0], [1, 0], [-1.0, -2.0])
        np.testing.assert_allclose(out.each, [0.5, 0.5])
        out = prefopt.loss_plackett_luce([0, 3], [0.0, 0.0, 0.0])
        self.assertAlmostEqual(out.mean, np.log(6))
        logp, log_z = prefopt.soft_optimal(np.log([0.5, 0.5]), [1.0, 0.0], 1.0)
        np.testing.assert_allclose(np.exp(logp), [1 / (1 + np.exp(-1)), 1 / (1 + np.e)])
        self.assertAlmostEqual(log_z, np.log(0.5 * np.e + 0.5))
        reward, logp = np.array([[1.0, 0.0, 2.0]]), np.full((1, 3), -1.0)
        np.testing.assert_allclose(prefopt.advantages(reward, logp), [[0, -1.5, 1.5]])
        out = prefopt.loss_policy_gradient(reward, logp, [[0, -1.5, 1.5]])
        np.testing.assert_allclose(out.grad_logp, [[0, 0.5, -0.5]])
        advantage, returns = prefopt.gae([0, 2], [0.0, 1.0], [0.0, 0.0], gamma=1.0, lambda_=1.0)
        np.testing.assert_allclose(returns, [1, 1])
        self.assertEqual(prefopt.loss_ppo_tokens([0, 2], [-1.0, -1.0], advantage).grad_logp.size, 2)
        self.assertEqual(prefopt.loss_value([0, 2], [1.0, 1.0], returns).mean, 0)
        kl, grad = prefopt.kl_exact(prefopt.KL_REVERSE, np.log([0.5, 0.5]), np.log([0.25, 0.75]))
        self.assertAlmostEqual(kl, 0.5 * np.log(2) + 0.5 * np.log(2 / 3))
        each, mean, error = prefopt.kl_estimate(prefopt.KL_REVERSE, prefopt.KL_K1, prefopt.FROM_POLICY,
                                                [-1.0, -2.0], [-2.0, -2.0])
        np.testing.assert_allclose(each, [1, 0])
        self.assertEqual(prefopt.kl_score_weights(prefopt.KL_REVERSE, prefopt.KL_K2,
                                                  prefopt.FROM_POLICY, [-1.0], [-2.0]).size, 1)
        best = prefopt.best_of_n(2, np.log([0.5, 0.5]), [0.0, 1.0])
        np.testing.assert_allclose(np.exp(best.bon_logp), [0.25, 0.75])

    def test_logits(self):
        rng = np.random.default_rng(0)
        hidden, weight = (rng.normal(size=s).astype(np.float32) for s in ((5, 8), (11, 8)))
        target = np.array([0, 3, -1, 10, 5], np.int32)
        logits = hidden @ weight.T
        full = logits - np.logaddexp.reduce(logits.astype(float), axis=1, keepdims=True)
        expected = np.where(target < 0, 0, full[np.arange(5), np.maximum(target, 0)])
        np.testing.assert_allclose(prefopt.logprobs_from_logits(logits, target), expected, atol=1e-5)
        with prefopt.Context() as context:
            np.testing.assert_allclose(prefopt.linear_logprobs(context, hidden, weight, target),
                                       expected, atol=1e-5)
            grad = prefopt.logprobs_backward(logits, target, np.ones(5))
            grad_weight = np.zeros_like(weight)
            grad_hidden = prefopt.linear_logprobs_backward(context, hidden, weight, target, np.ones(5),
                                                           grad_weight)
            np.testing.assert_allclose(grad_hidden, grad @ weight, atol=1e-4)
            np.testing.assert_allclose(grad_weight, grad.T @ hidden, atol=1e-4)


class Tokens(unittest.TestCase):
    def test_tokenizer(self):
        printable = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
        others = [b for b in range(256) if b not in printable]
        char = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
        level = {"type": "ByteLevel", "add_prefix_space": False}
        vocab = {char[b]: b for b in range(256)} | {char[32] + "a": 256}
        file = {"normalizer": {"type": "NFC"}, "pre_tokenizer": level,
                "added_tokens": [{"id": 257, "content": "<|end|>", "special": True}],
                "model": {"type": "BPE", "vocab": vocab, "merges": [char[32] + " a"]}}
        context = prefopt.Context()
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "tokenizer.json")
            pathlib.Path(path).write_text(json.dumps(file))
            try:
                t = prefopt.Tokenizer.load(context, path)
            except prefopt.UnsupportedError as error:
                self.skipTest(str(error))
            lines = os.path.join(folder, "pairs.jsonl")
            pathlib.Path(lines).write_text('{"prompt":"a","chosen":" a","rejected":"bb","id":7}\n'
                                           '{"chosen":"aab","rejected":"aac"}\n')
            data, counts = prefopt.Dataset.read_text(context, t, lines, eos=257, max_completion=2)
            self.assertEqual((len(data), counts.rows, counts.lines, counts.implicit_prompts), (2, 2, 2, 1))
            self.assertEqual((counts.completions_cut, counts.completion_tokens_cut), (1, 1))
            self.assertEqual([c.tolist() for c in data[0].completions], [[256, 257], [98, 98]])
            self.assertEqual((data[0].extra, data[1].prompt.tolist()), ('{"id":7}', [97, 97]))
            with self.assertRaisesRegex(prefopt.FormatError, r"pairs.jsonl:1: a completion has 3 tokens"):
                prefopt.Dataset.read_text(context, t, lines, eos=257, max_completion=2,
                                          too_long=prefopt.LONG_FAIL)
            with self.assertRaisesRegex(prefopt.Error, "missing.json"):
                prefopt.Tokenizer.load(context, os.path.join(folder, "missing.json"))
        self.assertEqual(len(t), 258)
        tokens = t.encode("a a\0e\u0301<|end|>")
        self.assertEqual(tokens.dtype, np.int32)
        self.assertEqual(tokens.tolist(), [97, 256, 0, 0xc3, 0xa9, 257])
        self.assertEqual(t.decode(tokens), "a a\0\u00e9<|end|>".encode())
        self.assertEqual((t.token("<|end|>"), t.token(" a"), t.token("xy")), (257, 256, None))
        self.assertEqual((t.is_special(257), t.is_special(256)), (True, False))
        long = "\u6f22\u5b57" * 500  # more tokens than a first guess has room for
        self.assertEqual(t.encode(long).tolist(), list(long.encode()))
        self.assertEqual((t.encode("").size, t.decode([])), (0, b""))
        with self.assertRaisesRegex(prefopt.ArgumentError, "byte 1"):
            t.encode(b"a\xff")
        with self.assertRaisesRegex(prefopt.ArgumentError, r"tokens\[1\] is 258"):
            t.decode([0, 258])


class Handles(unittest.TestCase):
    def setUp(self):
        self.context = prefopt.Context(threads=2)
        self.space = prefopt.space(3, 2)
        self.policy = prefopt.Policy.tabular(self.context, self.space)
        self.prompts = prefopt.Dataset(self.context)
        self.prompts.append(prefopt.ROW_PROMPT, [])

    @needs("JSON")
    def test_dataset(self):
        data = prefopt.Dataset(self.context)
        data.append_pair([1], [2, 3], [4], weight=2.0)
        data.append(prefopt.ROW_COMPLETIONS, [1], [[5], [6, 7]], score=[0.5, np.nan], extra='{"k":1}')
        self.assertEqual(len(data), 2)
        self.assertEqual([c.tolist() for c in data[0].completions], [[2, 3], [4]])
        self.assertEqual(data[1].extra, '{"k":1}')
        self.assertEqual(len(data.sequences()), 4)
        self.assertEqual(data.columns().weight.tolist(), [2.0, 1.0])
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.jsonl")
            data.write_jsonl(path)
            again = prefopt.Dataset.read_jsonl(self.context, path)
            self.assertEqual(again.hash(), data.hash())
            with open(path, "a") as file:
                file.write('{"prompt":[1],"chosen":7}\n')
            with self.assertRaisesRegex(prefopt.FormatError, r"x.jsonl:3: .*chosen"):
                prefopt.Dataset.read_jsonl(self.context, path)
        with self.assertRaises(prefopt.IoError):
            prefopt.Dataset.read_jsonl(self.context, "/nowhere/x.jsonl")
        self.assertEqual(sorted(prefopt.shuffle_order(1, 0, 5).tolist()), list(range(5)))
        first, second = data.split(0.5)
        self.assertEqual(len(first) + len(second), 2)
        self.assertEqual(len(data.select([1, 1])), 2)

    @needs("liblbfgs")
    def test_models_and_training(self):
        reference = self.policy.freeze()
        everything = self.policy.enumerate(self.prompts)
        view = everything.sequences()
        np.testing.assert_allclose(self.policy.logprobs(view), np.log(1 / 9))
        truth = prefopt.Reward.tabular(self.context, view)
        values, _ = truth.parameters()
        values[:] = np.arange(9) / 4
        truth.updated()
        samples = prefopt.sample(self.policy, self.prompts, n=9, without_replacement=1)
        pairs, counts = prefopt.rank(truth, samples, rule=prefopt.PAIR_ALL, soft_labels=1)
        self.assertEqual((len(pairs), counts.pairs), (36, 36))
        seen = []
        trainer = prefopt.Trainer.dpo(self.policy, reference, pairs, {"beta": 1.0},
                                      progress=lambda p: seen.append(p.loss))
        trainer.run(3)
        self.assertEqual(len(seen), 3)
        self.assertAlmostEqual(seen[0], np.log(2))
        trainer.set_evaluation(pairs, reference, every=2, patience=5)
        watched = trainer.run(2)
        self.assertEqual((trainer.step(), watched.eval_step, watched.best_step), (5, 4, 4))
        self.assertEqual((watched.stopped, watched.stopped_early), (False, 0))
        trainer.restore_best()
        self.assertEqual(trainer.loss(), watched.best_eval_loss)
        trainer.fit()
        report = prefopt.report_objective(self.policy, reference, truth, self.prompts, 1.0)
        self.assertLess(report.regret, 1e-8)  # soft labels of every pair: DPO is at the soft optimum
        same = prefopt.report_equivalence(pairs, self.policy, reference, truth, 1.0)
        self.assertLess(same.total_variation, 1e-6)
        self.assertEqual(same.log_z.size, 1)
        coverage, uncovered = prefopt.report_coverage(pairs, self.policy, reference)
        self.assertEqual((coverage.n_uncovered, len(uncovered)), (0, 0))
        kl_report = prefopt.report_kl(self.policy, reference, self.prompts, 10)
        self.assertEqual(kl_report.n_samples, 10)
        self.assertAlmostEqual(kl_report.reverse, report.kl)
        moved = prefopt.report_displacement(pairs, reference, self.policy)
        self.assertEqual(moved.n_pairs, 36)
        self.assertGreater(moved.chosen, moved.rejected)
        implicit = prefopt.Reward.implicit(self.policy, reference, 1.0)
        predicted = prefopt.report_preference_fit(implicit, pairs)
        self.assertEqual(predicted.n_pairs, 36)
        self.assertAlmostEqual(-predicted.log_likelihood, trainer.loss())
        reward, kl = prefopt.report_best_of_n(self.policy, truth, truth, self.prompts, [1, 4])
        self.assertGreater(reward[1], reward[0])

    def test_saved_trainer(self):
        reference = self.policy.freeze()
        samples = prefopt.sample(self.policy, self.prompts, n=9, without_replacement=1)
        truth = prefopt.Reward.tabular(self.context, samples.sequences())
        values, _ = truth.parameters()
        values[:] = np.arange(9) / 4
        truth.updated()
        pairs, _ = prefopt.rank(truth, samples, rule=prefopt.PAIR_ALL, soft_labels=1)

        def run(rate=0.1):
            return prefopt.Trainer.dpo(self.policy, reference, pairs, learning_rate=rate, batch=4)
        with tempfile.TemporaryDirectory() as folder:
            trainer = run()
            self.assertIsNone(prefopt.latest_checkpoint(folder))
            for _ in range(4):
                trainer.run(1)
                trainer.save(folder, keep=2)
            step, path = prefopt.latest_checkpoint(folder)
            self.assertEqual((step, os.path.basename(path)), (4, "step-000000004"))
            self.assertEqual(len(os.listdir(folder)), 2)
            values = self.policy.parameters()[0].copy()
            trainer.run(2)
            again = run()
            again.restore(folder)
            self.assertEqual(again.step(), 4)
            np.testing.assert_array_equal(self.policy.parameters()[0], values)
            with self.assertRaisesRegex(prefopt.Error, "train.learning_rate is 0.1"):
                run(0.2).restore(folder)

    def test_reference_keys(self):
        space = prefopt.structs.prefopt_space(vocab=3, horizon=1, eos=-1)
        space.struct_size = ctypes.sizeof(space)
        uniform = prefopt.Reference.uniform(self.context, space)
        data = prefopt.Dataset(self.context)
        for token in range(3):
            data.append_pair([7], [token], [(token + 1) % 3])
        seen = []
        self.assertTrue(uniform.annotate(data, lambda done, total: seen.append((done, total))))
        self.assertEqual(seen, [(3, 3)])
        row, columns = data[1], data.columns()
        self.assertEqual(row.ref_key, columns.ref_key[1])
        self.assertNotEqual(row.ref_key, 0)
        again = prefopt.Dataset(self.context)
        again.append(row.kind, row.prompt, row.completions, ref_logp=row.ref_logp, ref_key=row.ref_key)
        self.assertTrue(uniform.annotate(again))
        self.assertEqual(prefopt.Reference.of_dataset(again).hash(), uniform.hash())
        other = prefopt.Reference.fixed(self.context, data.sequences(), [-1.0] * 6)
        self.assertNotEqual(other.hash(), uniform.hash())
        with self.assertRaisesRegex(prefopt.StateError, "row 0: ref_logp has key"):
            other.annotate(data)
        policy = prefopt.Policy.tabular(self.context, space, [[7]])
        before = policy.hash()
        policy.parameters()[0][0] = 1
        self.assertNotEqual(policy.hash(), before)

    def test_soft_rl_without_reference(self):
        everything = self.policy.enumerate(self.prompts).sequences()
        truth = prefopt.Reward.tabular(self.context, everything)
        values, _ = truth.parameters()
        values[:] = np.arange(9) / 4
        truth.updated()
        trainer = prefopt.Trainer.soft_rl(self.policy, None, truth, self.prompts, 0.0, learning_rate=0.1)
        first = trainer.run(1).reward
        self.assertAlmostEqual(first, 1.0)  # the mean of 0, 1/4 ... 2
        self.assertGreater(trainer.run(20).reward, first)

    def test_ranks(self):
        meet, given = threading.Barrier(2), {}

        def make(rank, size):
            def exchange(array, result):
                given[rank] = array.copy()
                meet.wait()
                array[:] = result()
                meet.wait()
            return prefopt.Collective(rank, size, lambda a: exchange(a, lambda: given[0] + given[1]),
                                      lambda a, root: exchange(a, lambda: given[root]))

        def train(rank, size, out):
            context = prefopt.Context(threads=1)
            policy = prefopt.Policy.tabular(context, prefopt.space(3, 2))
            data = prefopt.Dataset(context)
            for i in range(5):
                data.append_pair([], [i % 3, 1], [2, i % 2], weight=1.0 + i)
            if size > 1:
                self.assertTrue(policy.freeze().annotate(data, collective=make(rank, size)))
            trainer = prefopt.Trainer.dpo(policy, policy.freeze(), data, learning_rate=0.1, batch=3,
                                          collective=make(rank, size) if size > 1 else None)
            out[rank] = trainer.run(4), policy.parameters()[0].copy()
        one, two = {}, {}
        train(0, 1, one)

        def run(rank):
            try:
                train(rank, 2, two)
            except BaseException:
                meet.abort()  # the other rank waits for this one
                raise
        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for rank in range(2):
            self.assertAlmostEqual(two[rank][0].loss, one[0][0].loss)
            np.testing.assert_allclose(two[rank][1], one[0][1], rtol=1e-12)

        def broken(*_):
            raise KeyError("wire")
        data = prefopt.Dataset(self.context)
        data.append_pair([], [0, 1], [2, 1])
        unable = prefopt.Collective(0, 2, broken, broken)
        with self.assertRaises(KeyError):
            prefopt.Trainer.dpo(self.policy, self.policy.freeze(), data, collective=unable)
        with self.assertRaises(KeyError):
            self.policy.freeze().annotate(data, collective=unable)
        rows = self.policy.enumerate(self.prompts)
        trainer = prefopt.Trainer.mle(self.policy, rows, collective=unable)
        with self.assertRaises(KeyError):
            trainer.set_evaluation(rows)
        with self.assertRaises(KeyError):
            trainer.run(1)

    def test_errors_of_callbacks_come_back(self):
        def scores(_):
            raise KeyError("mine")
        reward = prefopt.Reward.custom(self.context, scores)
        with self.assertRaises(prefopt.CallbackError) as raised:
            reward.scores([([], [0, 1])])
        self.assertIsInstance(raised.exception.__cause__, KeyError)

        def stop(_):
            raise ValueError("stop")
        view = self.policy.enumerate(self.prompts).sequences()
        data = prefopt.Dataset(self.context)
        data.append(prefopt.ROW_COMPLETIONS, [], [view[0][1]])
        trainer = prefopt.Trainer.mle(self.policy, data, progress=stop)
        with self.assertRaises(ValueError):
            trainer.run(5)

    def test_an_interrupt_is_no_error_of_the_library(self):
        def interrupt(*_):
            raise KeyboardInterrupt
        with self.assertRaises(KeyboardInterrupt):
            prefopt.Reward.custom(self.context, interrupt).scores([([], [0, 1])])
        with self.assertRaises(prefopt.UnboundedError) as raised:
            prefopt.strengths(2, [0], [1])
        self.assertIsNone(raised.exception.__cause__)

    def test_arrays_keep_what_they_look_at(self):
        handles = [self.policy, self.policy.enumerate(self.prompts)]
        arrays = [*self.policy.parameters(), handles[1].sequences().tokens, handles[1].columns().logp]
        alive = [weakref.ref(handle) for handle in handles]
        handles.clear()
        self.policy = None
        gc.collect()
        self.assertNotIn(None, [handle() for handle in alive])
        del arrays
        gc.collect()
        self.assertEqual([handle() for handle in alive], [None, None])

    def test_a_log_outlives_its_context_object(self):
        said = []
        data = prefopt.Dataset(prefopt.Context(log=lambda level, text: said.append(text)))
        gc.collect()
        data.append_pair([], [0], [1])
        prefopt.strengths(3, [0, 1, 2, 0], [1, 2, 0, 2], covariance=prefopt.COVARIANCE_BOOTSTRAP,
                          replicates=50, context=prefopt.Context(log=lambda level, text: said.append(text)))
        self.assertIn("have no finite optimum", said[0])

    def test_arrays_that_do_not_fit_are_refused(self):
        sequences, hidden, weight = prefopt.Sequences, np.zeros((2, 3), "f"), np.zeros((4, 2), "f")
        for words, call in [
                ("offsets has 2 elements for 2 tokens", lambda: sequences([1, 2], [0, 3], [0])),
                ("offsets has 0", lambda: sequences([1, 2], [], [])),
                ("tokens has .*1.5.*int32", lambda: sequences([1.5], [0, 1], [0])),
                ("tokens has .*4294967297.*int32", lambda: sequences([2**32 + 1], [0, 1], [0])),
                ("tokens has .*nan.*int32", lambda: sequences([np.nan], [0, 1], [0])),
                ("hidden has shape", lambda: prefopt.linear_logprobs_backward(
                    self.context, hidden, weight, [0, 1], [1, 1])),
                ("item_names has 1 names, expected 2", lambda: prefopt.strengths(
                    2, [0, 1], [1, 0], item_names=["Ann"])),
                ("features has shape", lambda: prefopt.Reward.linear(
                    self.context, [([], [0]), ([], [1])], np.zeros((1, 2))))]:
            with self.assertRaisesRegex(ValueError, words):
                call()
        with self.assertRaisesRegex(TypeError, "chosen is complex"):
            prefopt.loss_bradley_terry([1j], [0.0])

    def test_strengths(self):
        fit = prefopt.strengths(2, [0, 0], [1, 1], [3.0, 1.0], [1.0, 0.0])
        self.assertAlmostEqual(fit.theta[0] - fit.theta[1], np.log(3))
        self.assertEqual(fit.covariance().shape, (2, 2))
        with self.assertRaisesRegex(prefopt.UnboundedError, "Ann"):
            prefopt.strengths(2, [0], [1], item_names=["Ann", "Bob"])
        out = prefopt.report_fragility(2, [0, 0], [1, 1], [3.0, 2.0], [1.0, 0.0], max_share=1.0)
        self.assertEqual((out.found, out.leader, out.rival, out.n_removed), (1, 0, 1, 2))
        self.assertEqual(out.removed.tolist(), [2, 0])
        fit = prefopt.strengths(3, rankings=[[0, 1, 2], [2, 1, 0], [1, 0, 2]])
        self.assertAlmostEqual(fit.theta.sum(), 0)

    def test_draws(self):
        np.testing.assert_array_equal(prefopt.random_uniform(1, 2, 3, 4),
                                      prefopt.random_uniform(1, 2, 0, 7)[3:])
        self.assertEqual(prefopt.random_normal(1, 2, 0, 5).size, 5)


if __name__ == "__main__":
    unittest.main()
