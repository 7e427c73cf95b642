"""Several ranks under mpirun.

    test_mpi.py MPIRUN PROGRAM
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from test_mpi_settings import SETTINGS

MPIRUN, PROGRAM = sys.argv.pop(1), sys.argv.pop(1)


def ranks(n, *arguments):
    return subprocess.run([MPIRUN, "-n", str(n), PROGRAM, *map(str, arguments)], capture_output=True,
                          text=True, env={**SETTINGS, **os.environ})


class Ranks(unittest.TestCase):
    def fine(self, n, *arguments):
        done = ranks(n, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_sums(self):
        self.fine(3, "sums")

    def test_gradient(self):
        for n in (1, 2, 4):
            self.assertIn("largest difference", self.fine(n, "gradient"))

    def test_failure_names_the_rank(self):
        self.assertRegex(self.fine(2, "fail"),
                         r"dpo: step 1 of 1 \(2 since the trainer was made\): rank 1 of 2: row \d")

    def test_a_rank_that_dies(self):
        with tempfile.TemporaryDirectory() as folder:
            whole = self.fine(2, "train", os.path.join(folder, "whole"))
            directory = os.path.join(folder, "killed")
            for step in (4, 9):
                died = ranks(2, "train", directory, step)
                self.assertNotEqual(died.returncode, 0)
                self.assertNotIn("parameters", died.stdout)
                saved = sorted(pathlib.Path(directory).glob("step-*"))
                self.assertIn(int(saved[-1].name[5:]), (step - 1, step))
            end = self.fine(2, "train", directory)
        self.assertGreater(int(re.search(r"from (\d+)", end)[1]), 7)
        self.assertIn("from 0", whole)
        same = re.compile(r"parameters \w{16}")
        self.assertEqual(same.search(end)[0], same.search(whole)[0])


if __name__ == "__main__":
    unittest.main()
