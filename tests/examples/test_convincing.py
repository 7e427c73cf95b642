"""The program convincing as its users call it: on made-up texts, and on the real ones where they are.

    test_convincing.py TOP CONVINCING
"""
import gzip
import html
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = pathlib.Path(sys.argv[1])
PROGRAM = sys.argv[2]
REAL = TOP / "../shared/data/pairs/ukp_convarg.jsonl.gz"


def call(*words):
    return subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True)


def made_up(n_topics, n_texts=12, seed=1):
    """Pairs whose better text shouts less; lengths say nothing."""
    draw = random.Random(seed)
    for topic in range(n_topics):
        texts = []
        for _ in range(n_texts):
            shouts = draw.randrange(6)
            words = [draw.choice(["this", "matters", "because", "people", "think"]) for _ in range(20)]
            texts.append((shouts, " " + " ".join(words) + "!" * shouts + "." * (6 - shouts)))
        for a in range(n_texts):
            for b in range(a):
                better, worse = sorted((texts[a], texts[b]))
                if better[0] < worse[0]:
                    yield {"prompt": f"Topic {topic}\nArgument:", "chosen": better[1],
                           "rejected": worse[1], "id": f"{topic}-{a}-{b}"}


class Convincing(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, rows, name="pairs.jsonl"):
        path = self.folder / name
        with (gzip.open if name.endswith(".gz") else open)(path, "wt") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
        return path

    def runs(self, *words):
        done = call(*words)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def all_pairs(self, said):
        return [float(x) for x in re.search(r"^all pairs +(.*)$", said, re.M).group(1).split()]

    def test_what_length_does_not_see(self):
        rows = list(made_up(5))
        said = self.runs(self.write(rows, "pairs.jsonl.gz"), "--features")
        n, _, by_length, by_reward, length_ll, reward_ll = self.all_pairs(said)
        self.assertEqual(n, len(rows))
        self.assertGreater(by_reward, 0.97)
        self.assertLess(by_length, 0.8)
        self.assertGreater(reward_ll, length_ll)
        self.assertIn("10 folds", said)  # five topics, two at a time
        first = re.search(r"one standard deviation\n +([-+.0-9]+)  (.*)", said)
        self.assertRegex(first.group(2), "exclamation|mark|dots")
        # Topics are told by the first line of the prompt alone, and the order of lines says nothing.
        random.Random(2).shuffle(rows)
        again = self.runs(self.write(rows, "shuffled.jsonl"), "--features")
        self.assertEqual(self.all_pairs(again)[:4], self.all_pairs(said)[:4])

    def test_noise_is_not_learnt(self):
        draw = random.Random(3)
        rows = [dict(row, chosen=row["rejected"], rejected=row["chosen"]) if draw.random() < 0.5 else row
                for row in made_up(6, n_texts=10)]
        n, _, _, by_reward, _, reward_ll = self.all_pairs(self.runs(self.write(rows)))
        self.assertLess(abs(by_reward - 0.5), 0.15)
        self.assertGreater(reward_ll, -0.75)  # the ridge keeps it near log 2

    def test_many_topics_are_dealt(self):
        said = self.runs(self.write(made_up(11, n_texts=6)), "--deal", 4, "--hold-out", 1)
        self.assertIn("11 topics dealt into groups", said)
        self.assertIn("1 of 4 left out at a time", said)
        self.assertEqual(len(re.findall(r"^group \d", said, re.M)), 4)

    def test_topics_in_a_picture(self):
        """As they are written, whatever gnuplot makes of such marks."""
        if not shutil.which("gnuplot"):
            self.skipTest("there is no gnuplot")
        rows = list(made_up(4, n_texts=6))
        names = ['a_b "c" 1', "`echo` d^2", "back\\slash", "#\u00e9"]
        for row in rows:
            row["prompt"] = names[int(row["prompt"].split()[1])] + "\nArgument:"
        picture = self.folder / 'p "`echo`".svg'
        self.runs(self.write(rows), "--plot", picture)
        said = html.unescape(picture.read_text())
        for name in names:
            self.assertIn(name.replace('"', "'"), said)

    def test_refusals(self):
        few = self.write(made_up(3))
        for words, code, text in [((), 2, "PAIRS.jsonl"), ((few,), 1, "has 3 topics, expected at least 4"),
                                  ((self.folder / "none.jsonl",), 1, "No such file"),
                                  ((few, "--hold-out", 3), 2, "--hold-out")]:
            done = call(*words)
            self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
            self.assertIn(text, done.stderr)
        bad = self.folder / "bad.jsonl"
        bad.write_text('{"prompt":"a","completion":"b"}\n')
        done = call(bad)
        self.assertEqual(done.returncode, 1)
        self.assertIn("bad.jsonl: row 1 is no pair", done.stderr)

    def test_real_arguments(self):
        if not REAL.exists():
            self.skipTest(f"there is no {REAL}")
        if "PREFOPT_SLOW_TESTS" not in os.environ:
            self.skipTest("PREFOPT_SLOW_TESTS is not set")
        n, longer, _, by_reward, _, _ = self.all_pairs(self.runs(REAL))
        self.assertEqual((n, longer), (5125, 0.769))
        self.assertGreater(by_reward, longer)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
