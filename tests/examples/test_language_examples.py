"""The language-model examples as their users call them, on a tiny random checkpoint.

    test_language_examples.py TOP TUNE GENERATE SCORE_PAIRS DPO_TEXT

With PREFOPT_LIBRARY set, the Python example has to say and write the same.
"""
import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = pathlib.Path(sys.argv[1])
TUNE, GENERATE, SCORE_PAIRS, DPO_TEXT = ([program] for program in sys.argv[2:6])
PYTHON = [sys.executable, str(TOP / "python/language_model.py")]
TOKENIZER, PAIRS = (str(TOP / "tests/examples" / name) for name in ("tiny_tokenizer.json", "tiny_pairs.jsonl"))
prefopt = None
if "PREFOPT_LIBRARY" in os.environ:
    import language_model
    import prefopt


def call(*words):
    return subprocess.run([str(word) for word in words], capture_output=True)


class LanguageExamples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.model = cls.folder / "model"
        done = call(*TUNE, "init", "--tokenizer", TOKENIZER, "--layers", 1, "--width", 16, "--heads", 2,
                    "--out", cls.model)
        assert done.returncode == 0, done.stderr

    def runs(self, *words):
        done = call(*words)
        self.assertEqual((done.returncode, done.stderr), (0, b""), done.stdout)
        return done.stdout.decode()

    def python(self, *words):
        """What the Python example prints, run here: a process each would take its time."""
        out, sys.argv[1:] = io.StringIO(), [str(word) for word in words]
        with contextlib.redirect_stdout(out):
            self.assertIn(language_model.main(), (0, None))
        return out.getvalue()

    def refused(self, words, *line):
        """One line on stderr, exit 1, and nothing else."""
        done = call(*line)
        self.assertEqual((done.returncode, done.stdout), (1, b""), done.stderr)
        self.assertRegex(done.stderr.decode(), words)
        self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)

    def weights(self, name):
        return (self.folder / name / "model.safetensors").read_bytes()

    def test_generate(self):
        text = self.runs(*GENERATE, self.model, "Why is", "--max-tokens", 40)
        self.assertRegex(text, r"(?s)\AWhy is.+\n\Z")
        self.assertEqual(text, self.runs(*GENERATE, self.model, "Why is", "--max-tokens", "40"))
        self.assertNotEqual(text, self.runs(*GENERATE, self.model, "Why is", "--max-tokens", 40, "--seed", 7))
        several = self.runs(*GENERATE, "-n", 3, "--max-tokens", 8, self.model, "--", "-x")
        self.assertEqual(len(re.findall(r"^--- \d, log-probability -[\d.]+\n-x", several, re.M)), 3, several)
        greedy = re.findall(r"\d\.\d+\n(.*?)\n(?=---|\Z)",
                            self.runs(*GENERATE, self.model, "A", "--greedy", "-n", 2, "--max-tokens", 8), re.S)
        self.assertEqual(len(greedy), 2)
        self.assertEqual(greedy[0], greedy[1])
        self.runs(*GENERATE, self.model, "", "--max-tokens", 3, "--top-k", 5, "--top-p", 0.9, "--min-p", 0.01,
                  "--temperature", 0.7)

    def test_score_pairs(self):
        text = self.runs(*SCORE_PAIRS, self.model, PAIRS, "--each")
        self.assertIn("12 pairs from 12 lines\n  2 prompts found", text)
        rows = [line.split("\t") for line in text.splitlines() if re.match(r"\d+\t", line)]
        chosen, rejected, n_chosen, n_rejected = ([float(row[i]) for row in rows] for i in range(1, 5))
        self.assertEqual(len(rows), 12)
        for name, a, b in [("by the sum", chosen, rejected),
                           ("by the mean of the tokens", [x / n for x, n in zip(chosen, n_chosen)],
                            [x / n for x, n in zip(rejected, n_rejected)]),
                           ("the longer completion", n_chosen, n_rejected)]:
            share = sum((x > y) + (x == y) / 2 for x, y in zip(a, b)) / 12
            self.assertRegex(text, rf"{name} +{share:.4f}  \[")
        cut = self.runs(*SCORE_PAIRS, self.model, PAIRS, "--max-completion", 6, "--max-prompt", 3, "--limit", 4)
        self.assertIn("4 pairs from 4 lines\n  4 prompts were cut\n", cut)
        self.assertRegex(cut, r"\d completions were cut\n  \d+ tokens of completions went")

    def test_dpo_text(self):
        before = self.weights("model")
        text = self.runs(*DPO_TEXT, self.model, PAIRS, self.folder / "tuned", "--steps", 40, "--lr", "1e-2")
        self.assertIn("\nstep 0: loss 0.693147, margin 0.000000: log 2 and 0, as it should be\n", text)
        self.assertRegex(text, r"\nstep 40/40  loss 0\.0\d+  accuracy 1\.00  margin \+\d.*tokens/s  0 s left\n")
        self.assertEqual(self.weights("model"), before)
        self.assertRegex(self.runs(*SCORE_PAIRS, self.folder / "tuned", PAIRS),
                         r"by the mean of the tokens +1\.0000  \[0\.7575, 1\.0000\]")  # Wilson: 12 / (12 + 1.96^2)
        shutil.copytree(self.model, self.folder / "over")
        self.runs(*DPO_TEXT, self.folder / "over", PAIRS, self.folder / "over", "--steps", 1, "--limit", 2)
        self.assertNotEqual(self.weights("over"), before)
        self.runs(*GENERATE, self.folder / "over", "A", "--max-tokens", 2)

    def test_pairs_without_a_prompt(self):
        """They are pairs after the token that ends a text; a model that has none does not take them."""
        files = [self.folder / name for name in ("bare.jsonl", "begun.jsonl")]
        for path, prompt in zip(files, ("", "<|endoftext|>")):
            path.write_text("".join(json.dumps({"prompt": prompt, "chosen": x, "rejected": y}) + "\n"
                                    for x, y in [(" Yes.", " No."), ("a", "b" * 3000)]))
        programs = [DPO_TEXT, SCORE_PAIRS] + ([[*PYTHON, "dpo"], [*PYTHON, "score"]] if prefopt else [])
        for i, program in enumerate(programs):
            said = []
            for path in files:
                out = [self.folder / f"{path.stem}{i}"] if i % 2 == 0 else []
                more = ["--steps", 2, "--lr", 1e-2] if i % 2 == 0 else []
                said.append(self.runs(*program, self.model, path, *out, *more).replace(path.stem, ""))
            if i % 2 == 1:
                self.assertEqual(*said)
            else:
                self.assertEqual(self.weights(f"bare{i}"), self.weights(f"begun{i}"))
        if prefopt:
            self.assertEqual(self.weights("bare0"), self.weights("bare2"))
        endless = self.folder / "endless"
        shutil.copytree(self.model, endless)
        config = json.loads((endless / "config.json").read_text())
        (endless / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
        for program in programs:
            more = ["x"] if program[-1] == "dpo" or program == DPO_TEXT else []
            self.refused("bare.jsonl: row 1 has no prompt", *program, endless, files[0], *more)

    def test_a_first_loss_that_is_not_log_2_is_said(self):
        file = self.folder / "margins.jsonl"
        file.write_text('{"prompt":"a","chosen":" b","rejected":" c","margin":1}\n')
        done = call(*DPO_TEXT, self.model, file, self.folder / "m", "--steps", 1)
        self.assertEqual(done.returncode, 1, done.stderr)  # log(1 + exp(0.1)) is said, with beta 0.1
        self.assertIn(b"step 0: loss 0.744397, margin 0.000000: NOT log 2", done.stdout)

    def test_what_is_wrong_is_said(self):
        for program, line in [(GENERATE, [self.model]), (GENERATE, [self.model, "a", "b"]),
                              (GENERATE, [self.model, "a", "--top-k", "x"]), (GENERATE, [self.model, "a", "--seed"]),
                              (SCORE_PAIRS, ["--nothing", self.model, PAIRS]), (DPO_TEXT, [self.model, PAIRS]),
                              (DPO_TEXT, [self.model, PAIRS, "x", "--steps", "1.5"])]:
            done = call(*program, *line)
            self.assertEqual((done.returncode, done.stdout), (2, b""), (program, line))
            self.assertIn(f"usage: {pathlib.Path(program[0]).name} ".encode(), done.stderr)
        bad, ranking = self.folder / "bad.jsonl", self.folder / "ranking.jsonl"
        bad.write_text('{"prompt":"a","chosen":"b"}\n')
        ranking.write_text('{"prompt":"a","ranking":["b","c"]}\n')
        self.refused("_IO: .*nowhere", *GENERATE, self.folder / "nowhere", "a")
        self.refused("_ARGUMENT: .*top_k", *GENERATE, self.model, "a", "--greedy", "--top-k", 3)
        self.refused("bad.jsonl:1: ", *SCORE_PAIRS, self.model, bad)
        self.refused("_IO: .*none.jsonl", *DPO_TEXT, self.model, self.folder / "none.jsonl", self.folder / "x")
        self.refused("ranking.jsonl: row 1 is no pair", *SCORE_PAIRS, self.model, ranking)

    @unittest.skipUnless(prefopt, "without the Python binding")
    def test_python_says_the_same(self):
        said = self.python("new", TOKENIZER, self.folder / "new", "--layers", 1, "--width", 16, "--heads", 2)
        self.assertIn("noise", said)
        for name in "model.safetensors", "config.json", "tokenizer.json":
            self.assertEqual((self.folder / "new" / name).read_bytes(), (self.model / name).read_bytes())
        for more in (["--max-tokens", 60, "--seed", 3], ["--max-tokens", 9, "-n", 2, "--top-k", 50]):
            self.assertEqual(self.python("generate", self.model, "Is é", *more),
                             self.runs(*GENERATE, self.model, "Is é", *more))
        line = [self.model, PAIRS, "OUT", "--steps", 3, "--batch", 5, "--beta", 0.3, "--lr", 1e-3, "--seed", 2]
        for run, name in (self.runs, "in_c"), (self.python, "in_python"):
            line[2] = self.folder / name
            said = run(*(DPO_TEXT if name == "in_c" else ["dpo"]), *line)
            self.assertIn("step 0: loss 0.693147, margin 0.000000: log 2 and 0", said)
        self.assertEqual(self.weights("in_c"), self.weights("in_python"))
        mine = re.findall(r"(sum|mean|tokens) .*accuracy (\S+ \[.*\])",
                          self.python("score", self.folder / "in_c", PAIRS))
        other = re.findall(r"(sum|mean|longer) .*(\d\.\d+  \[.*\])",
                           self.runs(*SCORE_PAIRS, self.folder / "in_c", PAIRS))
        self.assertEqual([m[1] for m in mine], [o[1].replace("  ", " ") for o in other])
        self.assertEqual(len(mine), 3)
        done = call(*PYTHON, "generate", self.model)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"usage:", done.stderr)
        self.refused("IoError: .*nowhere", *PYTHON, "generate", self.folder / "nowhere", "a")

    @unittest.skipUnless(prefopt, "without the Python binding")
    def test_a_reward_model(self):
        context = prefopt.Context(threads=1)
        tokenizer = prefopt.Tokenizer.load(context, TOKENIZER)
        pairs, _ = prefopt.Dataset.read_text(context, tokenizer, PAIRS, eos=0)
        reward = prefopt.Reward.from_policy(prefopt.Policy.load(context, self.model))
        prefopt.Trainer.reward(reward, pairs, learning_rate=1e-2).run(30)
        reward.save(self.folder / "reward")
        shutil.copy(TOKENIZER, self.folder / "reward/tokenizer.json")
        text = self.runs(*SCORE_PAIRS, self.folder / "reward", PAIRS, "--each")
        values = [float(x) for row in re.findall(r"^\d+\t(\S+)\t(\S+)\t", text, re.M) for x in row]
        for value, expected in zip(values, reward.scores(pairs.sequences()), strict=True):
            self.assertAlmostEqual(value, expected, delta=1e-5)
        self.assertRegex(text, r"by the reward model +1\.0000  \[")
        self.assertRegex(self.python("score", self.folder / "reward", PAIRS), "score .*accuracy 1.0000")
        self.refused("this is a reward model, expected a language model", *GENERATE, self.folder / "reward", "a")

    @unittest.skipUnless(prefopt, "without the Python binding")
    def test_text_report(self):
        self.runs(*DPO_TEXT, self.model, PAIRS, self.folder / "moved", "--steps", 30, "--lr", "1e-2")
        reward = prefopt.Reward.from_policy(prefopt.Policy.load(prefopt.Context(threads=1), self.model))
        reward.save(self.folder / "judge")

        def report(*words):
            return self.runs(sys.executable, TOP / "python/text_report.py", *words, "--max-new", 8, "--samples", 4)
        same = report(self.model, self.model, PAIRS, "--train", PAIRS)
        self.assertRegex(same, r"DPO's own reward +0\.5000 +-0\.6931")  # all ties
        self.assertIn("chosen 0.0000  rejected 0.0000  chosen fell in 0.0000", same)
        self.assertEqual(re.findall(r"^  k\d +(-?[\d.]+) \(", same, re.M), ["0.0000"] * 3)
        moved = report(self.folder / "moved", self.model, PAIRS, "--reward", self.folder / "judge")
        self.assertRegex(moved, r"DPO's own reward +1\.0000 +-0\.\d+")
        chosen, rejected = map(float, re.search(r"chosen (\S+)  rejected (\S+)", moved).groups())
        self.assertGreater(chosen, rejected)
        self.assertGreater(float(re.search(r"  k3 +(\S+)", moved).group(1)), 0.01)
        # A fresh head scores everything 0: the best of n is no better, and every pairing is a tie.
        self.assertRegex(moved, r"(?s) 1 +0\.0000 +0\.0000\n +2 +0\.0000 +0\.1931\n.*wins 0\.5000")

    @unittest.skipUnless(prefopt, "without the Python binding")
    def test_characters_come_whole(self):
        text = " Γειά, 漢字 ça 🙂."  # each character of it over several tokens
        context = prefopt.Context(threads=1)
        tokenizer = prefopt.Tokenizer.load(context, TOKENIZER)
        policy = prefopt.Policy.load(context, self.model)
        data = prefopt.Dataset(context)
        data.append(prefopt.ROW_COMPLETIONS, tokenizer.encode("Greek:"), [[*tokenizer.encode(text), 0]])
        self.assertLess(prefopt.Trainer.mle(policy, data, learning_rate=1e-2).run(150).loss, 0.5)
        policy.save(self.folder / "learnt")
        shutil.copy(TOKENIZER, self.folder / "learnt/tokenizer.json")
        for program in GENERATE, [*PYTHON, "generate"]:
            line = [*program, str(self.folder / "learnt"), "Greek:", "--greedy"]
            pieces = []
            with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
                while piece := os.read(process.stdout.fileno(), 1 << 16):
                    pieces.append(piece.decode())  # fails where a piece ends inside a character
            self.assertEqual("".join(pieces), "Greek:" + text + "\n")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
