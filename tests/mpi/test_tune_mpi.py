"""`mpirun -n 2 tune dpo ...`: the run of one process; a rank that is killed, and the run that goes on.

    test_tune_mpi.py MPIRUN TUNE TOP
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from test_mpi_settings import SETTINGS

MPIRUN, TUNE, TOP = sys.argv.pop(1), sys.argv.pop(1), pathlib.Path(sys.argv.pop(1))
TOKENIZER, PAIRS = (str(TOP / "tests/examples" / name) for name in ("tiny_tokenizer.json", "tiny_pairs.jsonl"))
ENV = {**SETTINGS, **os.environ}


class Tune(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.run_(1, "init", "--tokenizer", TOKENIZER, "--layers", 1, "--width", 16, "--heads", 2, "--out",
                  self.folder / "base")

    def line(self, ranks, *words):
        return ([MPIRUN, "-n", str(ranks)] if ranks > 1 else []) + [TUNE, *map(str, words)]

    def run_(self, ranks, *words):
        done = subprocess.run(self.line(ranks, *words), capture_output=True, text=True, env=ENV)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def dpo(self, out, *more):
        return ["dpo", "--model", self.folder / "base", "--data", PAIRS, "--out", self.folder / out, "--lr", "1e-2",
                "--batch", 5, "--threads", 1, *more]

    def metrics(self, out):
        return [json.loads(line) for line in (self.folder / out / "metrics.jsonl").read_text().splitlines()]

    def test_two_ranks_are_one_run(self):
        more = ["--steps", 8, "--eval-fraction", 0.3, "--eval-every", 4]
        self.run_(1, *self.dpo("one", *more))
        said = self.run_(2, *self.dpo("two", *more))
        self.assertEqual(said.count("step 8/8"), 1)  # the first rank alone speaks
        one, two = self.metrics("one"), self.metrics("two")
        self.assertEqual([row["step"] for row in one], [row["step"] for row in two])
        for a, b in zip(one, two):
            self.assertEqual(set(a), set(b))
            for name in set(a) - {"seconds"}:
                self.assertAlmostEqual(a[name], b[name], delta=1e-4 * max(1, abs(a[name])), msg=name)
        for name in ("reference.jsonl", "reference_held_out.jsonl"):  # each rank asked for its part
            self.assertEqual((self.folder / "one" / name).read_bytes(), (self.folder / "two" / name).read_bytes())
        self.assertIn("is finished", self.run_(2, *self.dpo("two", *more)))

    def test_a_rank_is_killed(self):
        more = ["--steps", 200, "--save-every", 20]
        self.run_(2, *self.dpo("whole", *more))
        command = self.line(2, *self.dpo("killed", *more))
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENV)
        checkpoints = self.folder / "killed/checkpoints"
        while not list(checkpoints.glob("step-*")) and run.poll() is None:
            time.sleep(0.01)
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(run.pid)], capture_output=True, text=True).stdout
        if run.poll() is None and children.split():
            os.kill(int(children.split()[-1]), signal.SIGKILL)
            self.assertNotEqual(run.wait(), 0)
        run.wait()
        self.assertIn("going on after step", self.run_(2, *self.dpo("killed", *more)))
        for name in ("model.safetensors", "config.json"):
            self.assertEqual((self.folder / "killed" / name).read_bytes(), (self.folder / "whole" / name).read_bytes())


if __name__ == "__main__":
    unittest.main()
