"""online_vs_offline with transformers, at a fraction of its size: every arm runs, results are whole
lines of JSON, and a run that was killed goes on where it was.

    test_gap.py PROGRAM
"""
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = sys.argv[1]
ARMS = ["offline", "twice", "by_reward", "by_truth", "one_top", "one_random", "one_2sd", "fresh_top",
        "fresh_random", "fresh_2sd", "one_from_dpo", "fresh_from_dpo", "gradient", "distil"]


def run(*arguments, status=0):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done


class Gap(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.results = pathlib.Path(folder.name) / "results.jsonl"

    def lines(self):
        return [json.loads(line) for line in self.results.read_text().splitlines()]

    def brief(self, *arguments):
        return run("--brief", "--results", str(self.results), *arguments)

    def test_every_arm_on_walks(self):
        self.brief("--world", "walk", "--arms", "all")
        (record,) = self.lines()
        for arm in ARMS:
            with self.subTest(arm=arm):
                self.assertTrue(0 <= record[f"{arm}.hit@6"] <= 1)
                # A mask leaves nothing but walks on the graph.
                self.assertAlmostEqual(record[f"{arm}.legal@6"], 1, delta=1e-5)
                self.assertEqual(record[f"{arm}.sampled_legal"], 1)
                self.assertGreater(record[f"{arm}.kl@6"], 0)
                self.assertTrue(0 <= record[f"{arm}.uncovered_hit"] <= record[f"{arm}.uncovered"])
        # Best of one is the policy itself, whoever judges; the truth's best is better with each n.
        for judge in ("oracle", "reward", "implicit", "local"):
            self.assertAlmostEqual(record[f"{judge}.best_of_1"], record["sft.hit"], delta=1e-6)
        best = [record[f"oracle.best_of_{n}"] for n in (1, 2, 4, 8, 16, 32, 64)]
        self.assertEqual(best, sorted(best))
        # Pairs in the order of the truth have no rejected success above the chosen.
        self.assertEqual(record["by_truth.rejected_success"], 0)
        self.assertEqual(record["by_truth.chosen_success"], 1)

    def test_the_other_worlds(self):
        for world in (["--world", "walk", "--control", "one-step"],
                      ["--world", "walk", "--control", "hidden"],
                      ["--world", "walk", "--legality", "learnt"], ["--world", "sudoku"]):
            with self.subTest(world=world):
                self.results.unlink(missing_ok=True)
                self.brief(*world, "--arms", "offline,one_random")
                (record,) = self.lines()
                key = "sampled" if "sudoku" in world else "hit"
                self.assertTrue(0 < record[f"offline.{key}@6"] < 1)
                for key in ("sft.greedy", "offline.greedy"):
                    self.assertTrue(0 <= record[f"{key}_whole"] <= record[key] <= 1)
                if "hidden" in world:  # what can be known of held-out prompts is not all there is
                    self.assertTrue(0.3 < record["shared.success"] < 0.7)
                else:
                    self.assertNotIn("shared.success", record)
                if "sudoku" in world:  # six digits do not settle a grid
                    self.assertTrue(0.3 < record["held.known"] < 0.7)
                if "learnt" in world:  # twenty steps have not taught it
                    self.assertLess(record["sft.legal"], 0.5)

    def test_goes_on_after_being_killed(self):
        wanted = ("--world", "walk", "--arms", "offline", "--seeds", "3", "--threads", "2")
        whole = self.brief(*wanted).stdout
        records = self.lines()
        # What a run leaves that was killed while it wrote its third line.
        lines = self.results.read_bytes().splitlines(keepends=True)
        self.results.write_bytes(lines[0] + lines[1] + lines[2][:100])
        again = self.brief(*wanted)
        self.assertIn("3 jobs, 2 of them done", again.stdout)
        self.assertIn("1 of 1 jobs", again.stderr)
        table = [text.split("\n\n", 1)[1] for text in (whole, again.stdout)]
        self.assertEqual(table[0], table[1])
        for old, new in zip(records, self.lines()):
            for key in old:
                if "seconds" not in key:
                    self.assertEqual(old[key], new[key], key)
        # Another setting is another job.
        self.assertIn("3 jobs, 0 of them done", self.brief(*wanted, "--rate", "1e-3", "--plan").stdout)
        self.results.write_text("no result\n")
        done = run("--brief", "--world", "walk", "--results", str(self.results), status=1)
        self.assertIn("line 1 is no result", done.stderr)

    def test_grid_and_best_settings(self):
        arms = ("--world", "walk", "--arms", "offline")
        grid = pathlib.Path(self.results.parent, "grid.jsonl")
        run("--brief", *arms, "--grid", "--results", str(grid))
        records = [json.loads(line) for line in grid.read_text().splitlines()]
        self.assertEqual(len(records), 9)
        best = max((r[f"offline.sampled@{n}"], -i, n)
                   for i, r in enumerate(records) for n in (2, 4, 6))
        self.brief(*arms, "--tuned", str(grid))
        tuned = next(r for r in self.lines() if " tuned " in r["job"])
        self.assertIn(f"offline.hit@{best[2]}", tuned)

    def test_refusals(self):
        self.assertIn("--arms", run("--world", "walk", "--arms", "online", status=2).stderr)
        self.assertIn("--pairs", run("--world", "walk", "--pairs", "1", status=2).stderr)
        self.assertIn("--world", run("--world", "chess", status=2).stderr)
        # What a world or a run has no use for is not taken and ignored.
        for word, *line in [("--seeds", "--seeds", "2"), ("--rate", "--world", "exact", "--rate", "1e-3"),
                            ("--control", "--world", "sudoku", "--control", "hidden"),
                            ("--legality", "--world", "sudoku", "--legality", "learnt"),
                            ("--beta", "--world", "walk", "--grid", "--beta", "0.3"),
                            ("a.svg", "--world", "walk", "--grid", "a.svg"),
                            ("--arms", "--world", "walk", "--tuned", str(self.results), "--arms", "one_top")]:
            done = run(*line, status=2)
            self.assertIn(word, done.stderr)
            self.assertEqual((done.stdout, done.stderr.count("\n")), ("", 1))

        self.assertIn("--arms has \"\"", run("--world", "walk", "--arms", "", status=2).stderr)
        # Files that cannot be: before any work is done.
        for option in "--tuned", "--results":
            path = str(self.results.parent / "none" / "file.jsonl")
            done = run("--world", "walk", "--brief", "--arms", "offline", option, path, status=1)
            self.assertEqual(done.stderr, f"{path}: No such file or directory\n")

    def test_help(self):
        said = run("--help")
        self.assertEqual(said.stderr, "")
        for word in ["--world", "--control", "--results", "PICTURE", *ARMS]:
            self.assertRegex(said.stdout, rf"\b{word}\b" if word in ARMS else word)
        self.assertEqual(run("--brief", "--steps", "9", "--world", "walk", "--arms", "offline", "--results",
                             str(self.results)).returncode, 0)
        self.assertIn("offline.hit@9", self.lines()[0])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
