"""The program tune as its users call it: the whole pipeline on a tiny random checkpoint.

    test_tune.py TOP TUNE
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

TOP = pathlib.Path(sys.argv[1]).resolve()
TUNE = os.path.abspath(sys.argv[2])
TOKENIZER, PAIRS = (str(TOP / "tests/examples" / name) for name in ("tiny_tokenizer.json", "tiny_pairs.jsonl"))
COMMANDS = ["init", "sft", "reward", "dpo", "online", "pg", "eval", "compare"]


def line_of(words):
    """One thread, unless said: tiny models gain nothing from more, and tests may share their machine."""
    words = [str(word) for word in words]
    if words[:1] and words[0] in COMMANDS[1:] and not {"--help", "--threads"} & set(words):
        words[1:1] = ["--threads", "1"]
    return [TUNE, *words]


def call(*words):
    return subprocess.run(line_of(words), capture_output=True, text=True, errors="backslashreplace")


class Tune(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.said = {}
        base, sft, reward = (cls.folder / name for name in ("base", "sft", "reward"))
        data = ["--data", PAIRS]
        for name, line in [
            ("base", ["init", "--tokenizer", TOKENIZER, "--layers", 1, "--width", 16, "--heads", 2]),
            ("sft", ["sft", "--model", base, *data, "--steps", 60, "--lr", "1e-2", "--whole-text"]),
            ("reward", ["reward", "--model", sft, *data, "--steps", 30, "--lr", "1e-2"]),
        ]:
            done = call(*line, "--out", cls.folder / name)
            assert (done.returncode, done.stderr) == (0, ""), (line, done.stderr)
            cls.said[name] = done.stdout
        cls.sft, cls.reward = sft, reward

    def runs(self, *words):
        done = call(*words)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def refused(self, code, words, *line):
        """One line on stderr and the exit code."""
        done = call(*line)
        self.assertEqual(done.returncode, code, (line, done.stderr))
        self.assertRegex(done.stderr, words)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def dpo(self, out, *more):
        return ["dpo", "--model", self.sft, "--data", PAIRS, "--out", self.folder / out, "--lr", "1e-2", *more]

    def sampled(self, command, out, *more):
        return [command, "--model", self.sft, "--reward", self.reward, "--data", PAIRS, "--out", self.folder / out,
                "--lr", "1e-3", "--max-new", 12, *more]

    def weights(self, name):
        return (self.folder / name / "model.safetensors").read_bytes()

    def metrics(self, name):
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def complete(self, name, fields, steps):
        """A line for each step, each with these fields; the checkpoint and its companions are there."""
        rows = [row for row in self.metrics(name) if row["step"] > 0]
        self.assertEqual([row["step"] for row in rows], list(range(1, steps + 1)))
        for row in rows:
            self.assertLessEqual(set(fields), set(row))
        there = {path.name for path in (self.folder / name).iterdir()}
        self.assertLessEqual({"config.json", "model.safetensors", "tokenizer.json", "config_echo.json"}, there)
        if shutil.which("gnuplot"):
            self.assertIn("<svg", (self.folder / name / "curves.svg").read_text())
        return rows

    PAIR_FIELDS = ["loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies",
                   "grad_norm", "learning_rate", "epoch"]

    def test_help_teaches(self):
        overview = self.runs("--help")
        for command in COMMANDS:
            self.assertRegex(overview, rf"(?m)^  {command} +\w")
            text = self.runs(command, "--help")
            self.assertTrue(text.startswith(f"tune {command} "), text)
            for option in "--data", "--steps", "--beta", "--layers":
                self.assertEqual(option in re.findall(r"(?m)^  (--\S+)", text),
                                 option == "--data" and command != "init"
                                 or option == "--steps" and command not in ("init", "eval", "compare")
                                 or option == "--beta" and command in ("dpo", "online", "pg", "eval")
                                 or option == "--layers" and command == "init", (command, option))
        self.assertEqual(call().returncode, 2)

    def test_init(self):
        self.assertIn("0.02 million parameters", self.said["base"])
        self.assertEqual((self.folder / "base/tokenizer.json").read_bytes(), pathlib.Path(TOKENIZER).read_bytes())
        line = ["init", "--tokenizer", TOKENIZER, "--layers", 1, "--width", 16, "--heads", 2]
        self.runs(*line, "--out", self.folder / "same")
        self.runs(*line, "--out", self.folder / "other", "--seed", 1)
        self.assertEqual(self.weights("same"), self.weights("base"))
        self.assertNotEqual(self.weights("other"), self.weights("base"))
        self.assertIn("same is made already: this makes the same again", self.runs(*line, "--out", self.folder / "same"))

    def test_sft(self):
        rows = self.complete("sft", ["loss", "loss_per_token", "grad_norm", "learning_rate", "epoch", "tokens"], 60)
        self.assertLess(rows[-1]["loss"], rows[0]["loss"] / 4)
        self.assertEqual(rows[5]["epoch"], 4)  # 6 * 8 / 12

    def test_sft_on_rows_that_repeat(self):
        path = self.folder / "repeat.jsonl"
        path.write_text('{"completion":"abcdefg"}\n' * 6 + '{"completion":"xyz"}\n' * 2)
        self.runs("sft", "--model", self.folder / "base", "--data", path, "--out", self.folder / "repeat", "--steps", 1)
        row = self.metrics("repeat")[0]
        self.assertEqual(row["tokens"], 14)  # each text once, behind its beginning, with its end
        self.assertAlmostEqual(row["loss"] / row["loss_per_token"], (6 * 8 + 2 * 4) / 8, delta=1e-6)

    def test_reward(self):
        self.assertIn("step 0: loss 0.693147, margin 0.000000: as it should be", self.said["reward"])
        rows = self.complete("reward", self.PAIR_FIELDS, 30)
        self.assertLess(rows[-1]["loss"], 0.05)
        text = self.runs("eval", "--model", self.reward, "--data", PAIRS, "--json", self.folder / "r.json")
        self.assertRegex(text, r"accuracy by the score +1\.0000  \[0\.7575, 1\.0000\]")  # 12 / (12 + 1.96^2)
        value = json.loads((self.folder / "r.json").read_text())
        link, taken = self.folder / "link.json", self.folder / "taken"
        link.symlink_to("r.json")  # written through: it may be a device's name
        taken.mkdir()
        self.runs("eval", "--model", self.sft, "--data", PAIRS, "--json", link)
        self.assertEqual((link.is_symlink(), json.loads((self.folder / "r.json").read_text())["kind"]), (True, "policy"))
        self.refused(1, "taken cannot be written: ", "eval", "--model", self.sft, "--data", PAIRS, "--json", taken)
        self.assertEqual([path.name for path in self.folder.glob("taken*")], ["taken"])
        self.assertEqual((value["kind"], value["pairs"], value["rewards/accuracies"][0]), ("reward", 12, 1))
        self.assertGreater(value["preference_logp"][0], -0.05)

    def test_dpo(self):
        said = self.runs(*self.dpo("dpo", "--steps", 30))
        self.assertIn("step 0: loss 0.693147, margin 0.000000: as it should be", said)
        self.assertRegex(said, r"step 30/30  loss 0\.0\d+  accuracy 1\.00  margin \+\d.*steps/s .*0:00 left\n")
        rows = self.complete("dpo", [*self.PAIR_FIELDS, "logps/chosen", "logps/rejected"], 30)
        for row in rows:
            self.assertAlmostEqual(row["rewards/margins"], row["rewards/chosen"] - row["rewards/rejected"], delta=1e-6)
        text = self.runs("eval", "--model", self.folder / "dpo", "--data", PAIRS, "--reference", self.sft)
        self.assertRegex(text, r"accuracy by the reward +1\.0000  \[")
        echo = json.loads((self.folder / "dpo/config_echo.json").read_text())
        self.assertEqual((echo["command"], echo["options"]["steps"], echo["options"]["variant"]), ("dpo", 30, "sigmoid"))
        self.assertEqual(echo["inputs"]["data"]["bytes"], os.path.getsize(PAIRS))
        # The echo repeats the run: by --config, and by its own line.
        self.runs("dpo", "--config", self.folder / "dpo/config_echo.json", "--out", self.folder / "again",
                  "--threads", 2)
        self.assertEqual(self.weights("again"), self.weights("dpo"))
        shutil.rmtree(self.folder / "dpo")
        subprocess.run(echo["again"].replace("tune", TUNE, 1), shell=True, check=True, capture_output=True)
        self.assertEqual(self.weights("again"), self.weights("dpo"))
        self.assertNotEqual(self.weights("dpo"), self.weights("sft"))
        # A folder that is still to be made, named from where the program runs: the echo has the whole path.
        line = line_of(["sft", "--model", "base", "--data", PAIRS, "--out", "beside/../below", "--steps", 1])
        (self.folder / "beside").mkdir()
        subprocess.run(line, cwd=self.folder, check=True, capture_output=True)
        echo = json.loads((self.folder / "below/config_echo.json").read_text())
        self.assertEqual(echo["options"]["out"], os.path.realpath(self.folder / "below"))

    def test_start_and_variants(self):
        self.runs(*self.dpo("ipo", "--steps", 3, "--variant", "ipo"))
        self.runs(*self.dpo("simpo_1^2`echo`", "--steps", 3, "--variant", "simpo"))
        if shutil.which("gnuplot"):  # the name of a run is no mathematics, and runs no command
            self.assertIn("tune dpo: simpo_1^2`echo`", (self.folder / "simpo_1^2`echo`/curves.svg").read_text())
        self.runs(*self.dpo("simpo", "--steps", 3, "--variant", "simpo", "--gamma", "0.4"))
        said = self.runs(*self.dpo("on", "--steps", 3, "--start", self.folder / "ipo"))
        self.assertNotIn("step 0", said)
        self.refused(1, "final_fraction is 0.5", *self.dpo("no", "--final-fraction", 0.5))
        for make in self.dpo, lambda *line: self.sampled("online", *line):
            for words, variant, *more in [
                ("gamma is 0.4", "ipo", "--gamma", "0.4"), ("label_smoothing is 0, expected above 0", "exo"),
                ("divergence is 1, but .* does not use it", "sigmoid_norm", "--divergence", "forward_kl"),
            ]:
                self.refused(1, words, *make("bad", "--variant", variant, *more))
        self.assertFalse((self.folder / "bad").exists())  # said before anything is written

    def test_pairs_without_a_prompt(self):
        """They are pairs after the token that ends a text, which takes a position."""
        pairs = [(" Yes.", " No."), (" It is blue.", ""), ("a", "b" * 3000)]
        files = [self.folder / name for name in ("bare.jsonl", "begun.jsonl")]
        for path, prompt in zip(files, ("", "<|endoftext|>")):
            path.write_text("".join(json.dumps({"prompt": prompt, "chosen": x, "rejected": y}) + "\n" for x, y in pairs))
        for path in files:
            self.runs(*self.dpo(path.stem, "--steps", 3, "--data", path, "--eval-data", path))
            self.runs("reward", "--model", self.sft, "--data", path, "--out", self.folder / f"{path.stem}-reward",
                      "--steps", 3)
        for name in "", "-reward":
            self.assertEqual(self.weights("bare" + name), self.weights("begun" + name))
        for line in ["bare", "--reference", self.sft], ["bare-reward"]:
            said = [self.runs("eval", "--model", self.folder / line[0], *line[1:], "--data", path).replace(path.stem, "")
                    for path in files]
            self.assertEqual(*said)

    def test_online_and_pg(self):
        for command, fields in [("online", [*self.PAIR_FIELDS, "objective/scores"]),
                                ("pg", ["loss", "objective/scores", "objective/kl", "grad_norm",
                                        "completions/clipped_ratio", "round"])]:
            said = self.runs(*self.sampled(command, command, "--steps", 8))
            self.assertRegex(said, r"step 0: loss \S+, (margin|KL) -?0\.000000: as it should be")
            self.complete(command, fields[:1], 8)
            self.assertTrue(any(set(fields) <= set(row) for row in self.metrics(command)))
        line = ["--data", PAIRS, "--reward", self.reward, "--max-new", 12]
        text = self.runs("compare", self.folder / "online", self.sft, *line, "--samples", 3)
        self.assertRegex(text, r"A wins against B +0\.\d+  \[0\.\d+, ")
        text = self.runs("compare", self.sft, self.sft, *line)
        self.assertRegex(text, r"A wins against B +0\.5000  \[0\.2\d+, 0\.7\d+\]")
        self.assertIn("the same score", text)

    # ---- killed, stopped, gone on with

    def until(self, name, step, line, how):
        """Starts a run, sends the signal once metrics.jsonl has that step, and waits. Whether it was in time."""
        path = self.folder / name / "metrics.jsonl"
        with subprocess.Popen(line_of(line), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while process.poll() is None and not (path.exists() and f'"step":{step},' in path.read_text()):
                time.sleep(0.002)
            process.send_signal(how)
            out, err = process.communicate()
        return process.returncode, out.decode(), err.decode()

    LONG = 40  # steps: long after the last kill, so that a busy machine is in time for it

    def goes_on(self, name, line):
        """Killed at three moments and gone on with: the weights and the metrics of a run that never was."""
        whole = [self.folder / f"{name}-whole" if word == self.folder / name else word for word in line]
        self.runs(*whole)
        for step in (2, 7, 13):
            code, _, err = self.until(name, step, [*line, "--save-every", 3], signal.SIGKILL)
            self.assertEqual((code, err), (-signal.SIGKILL, ""))
            self.assertFalse((self.folder / name / "finished.json").exists())
        said = self.runs(*line, "--save-every", 5)
        self.assertRegex(said, r"going on after step \d+\n")
        self.assertEqual(self.weights(name), self.weights(f"{name}-whole"))
        mine, other = self.metrics(name), self.metrics(f"{name}-whole")
        mine, other = ([{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]
                       for rows in (mine, other))
        self.assertEqual([row["step"] for row in mine if row["step"] > 0], list(range(1, self.LONG + 1)))
        self.assertEqual(mine, other)
        before = {path: path.stat().st_mtime_ns for path in (self.folder / name).iterdir()}
        self.assertIn(f"is finished, after step {self.LONG}: nothing is left to do", self.runs(*line))
        self.assertEqual(before, {path: path.stat().st_mtime_ns for path in (self.folder / name).iterdir()})

    def test_killed_dpo_goes_on(self):
        self.goes_on("killed", self.dpo("killed", "--steps", self.LONG, "--schedule", "cosine", "--warmup", 4))
        self.assertLessEqual(len(list((self.folder / "killed/checkpoints").iterdir())), 2)
        call("eval", "--model", next((self.folder / "killed/checkpoints").iterdir()), "--data", PAIRS)

    def test_killed_sft_goes_on(self):
        self.goes_on("ksft", ["sft", "--model", self.folder / "base", "--data", PAIRS, "--out", self.folder / "ksft",
                              "--steps", self.LONG])

    def test_killed_reward_goes_on(self):
        self.goes_on("krew", ["reward", "--model", self.sft, "--data", PAIRS, "--out", self.folder / "krew",
                              "--steps", self.LONG])

    def test_killed_online_and_pg_go_on(self):
        for command in "online", "pg":
            self.goes_on("k" + command, self.sampled(command, "k" + command, "--steps", self.LONG))

    def test_killed_with_held_out_pairs_goes_on(self):
        lines = pathlib.Path(PAIRS).read_text().splitlines(keepends=True)
        half, other = self.folder / "half.jsonl", self.folder / "other_half.jsonl"
        half.write_text("".join(lines[:6]))
        other.write_text("".join(lines[6:]))
        line = self.dpo("kheld", "--steps", self.LONG, "--data", half, "--eval-data", other, "--eval-every", 2,
                        "--lr", "3e-3")
        self.goes_on("kheld", line)
        rows = self.metrics("kheld")
        self.assertEqual([row["step"] for row in rows if "eval_loss" in row], list(range(0, self.LONG + 1, 2)))
        self.assertAlmostEqual(rows[0]["eval_loss"], 0.693147, delta=1e-4)
        end, whole = (json.loads((self.folder / name / "finished.json").read_text()) for name in
                      ("kheld", "kheld-whole"))
        best = min((row["eval_loss"], row["step"]) for row in rows if "eval_loss" in row)
        self.assertEqual((end["best_step"], end), (best[1], whole))
        self.assertLess(best[1], 7)  # before the last kill: what was best came back from the checkpoint
        self.assertAlmostEqual(end["best_eval_loss"], best[0], delta=1e-6)

    def test_killed_rounds_go_on(self):
        for command, more in ("online", []), ("pg", ["--reward-scale", "running", "--clip-low", 0.2]):
            name = "krounds" + command
            self.goes_on(name, self.sampled(command, name, "--steps", self.LONG, "--round-prompts", 6,
                                            "--round-steps", 4, "--batch", 2, "--refresh", 2,
                                            "--missing-end-penalty", 1, *more))
            rows = self.metrics(name)
            self.assertEqual([row["round"] for row in rows], [i // 4 for i in range(self.LONG)])
            self.assertAlmostEqual(rows[-1]["epoch"], self.LONG / 4 * 6 / 9)

    def test_the_reference_speaks_once(self):
        said = self.runs(*self.dpo("ref", "--steps", 3, "--eval-data", PAIRS))
        self.assertEqual(len(re.findall(r"reference: log-probabilities of 12 rows", said)), 2)
        kept = self.folder / "ref/reference.jsonl"
        rows = [json.loads(line) for line in kept.read_text().splitlines()]
        self.assertEqual({len(row["ref_key"]) for row in rows}, {16})
        (self.folder / "ref/finished.json").unlink()
        rows[3]["ref_logps"][0] -= 1  # numbers are believed by their key ...
        rows[5]["ref_key"] = "0123456789abcdef"  # ... and one of another reference is never taken
        kept.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.refused(1, "_STATE: .*row 5.*0123456789abcdef", *self.dpo("ref", "--steps", 3, "--eval-data", PAIRS))

    def test_micro_batches_are_the_batch(self):
        self.runs(*self.dpo("whole", "--steps", 5))
        self.runs(*self.dpo("parts", "--steps", 5, "--micro-batch", 3))
        for mine, other in zip(self.metrics("parts"), self.metrics("whole"), strict=True):
            self.assertAlmostEqual(mine["loss"], other["loss"], delta=1e-5)

    def test_patience(self):
        line = self.dpo("patient", "--steps", 200, "--eval-data", PAIRS, "--eval-every", 1, "--patience", 2,
                        "--min-delta", "0.1")
        said = self.runs(*line)
        self.assertRegex(said, r"stopped early, after step \d+: the held-out loss was lowest after step \d+\n")
        self.assertIn("is finished", self.runs(*line))
        # As if it had been killed with all written but that it is finished.
        names = "finished.json", "metrics.jsonl", "model.safetensors"
        before = [(self.folder / "patient" / name).read_bytes() for name in names]
        (self.folder / "patient/finished.json").unlink()
        self.assertIn("stopped early", self.runs(*line))
        self.assertEqual([(self.folder / "patient" / name).read_bytes() for name in names], before)
        self.refused(2, "--patience needs", *self.dpo("impatient", "--patience", 2))

    def test_ctrl_c_saves(self):
        for how in signal.SIGINT, signal.SIGTERM:
            name = f"stopped{int(how)}"
            line = self.dpo(name, "--steps", 400, "--lr", "1e-4")
            code, said, err = self.until(name, 5, line, how)
            self.assertEqual((code, err), (0, ""), said)
            step = int(re.search(r"stopped after step (\d+) of 400 and saved", said)[1])
            self.assertEqual(self.metrics(name)[-1]["step"], step)
            code, said, err = self.until(name, step + 5, line, how)
            self.assertIn(f"going on after step {step}\n", said)
            self.refused(1, "with --lr 0.0001, not 0.01", *self.dpo(name, "--steps", 400))

    def test_one_run_a_folder(self):
        line = self.dpo("busy", "--steps", 100000)
        path = self.folder / "busy/metrics.jsonl"
        with subprocess.Popen(line_of(line), stdout=subprocess.DEVNULL) as process:
            while not path.exists():
                time.sleep(0.01)
            self.refused(1, "in use by another run", *line)
            process.kill()

    def test_what_is_wrong_is_said(self):
        model = ["--model", self.sft, "--data", PAIRS]
        out = ["--out", self.folder / "wrong"]
        for words, *line in [
            ("unknown command", "tuna"), ("unknown option --stepps", *self.dpo("wrong", "--stepps", 3)),
            ("no option of tune sft, but of dpo online pg eval", "sft", *model, *out, "--beta", 1),
            ("--out is missing", "dpo", *model), ("--steps is \"0\"", *self.dpo("wrong", "--steps", 0)),
            ("--variant is \"dp\"", *self.dpo("wrong", "--variant", "dp")), ("needs a value", *self.dpo("w", "--steps")),
            ("one word too many", *self.dpo("wrong", "more")), ("A and B", "compare", "a", "--data", PAIRS),
            ("same folder", "dpo", *model, "--out", f"{self.sft}/../sft"),
            ("--eval-every needs --eval-data", *self.dpo("wrong", "--eval-every", 2)),
            ("--min-delta needs --eval-data", *self.dpo("wrong", "--min-delta", 0.1)),
            ("--batch is 4, but", *self.sampled("online", "wrong", "--batch", 4, "--round-prompts", 6)),
        ]:
            self.refused(2, words, *line)
        self.assertFalse((self.folder / "wrong").exists())
        empty, bad, prompts = (self.folder / name for name in ("empty.jsonl", "bad.jsonl", "prompts.jsonl"))
        empty.write_text("\n")
        bad.write_text('{"prompt":"a","chosen":"b","rejected":"c"}\n{"prompt":"a","chosen":"b"}\n')
        prompts.write_text('{"prompt":"a"}\n')
        data = ["dpo", "--model", self.sft, *out, "--data"]
        for words, *line in [
            ("none.jsonl", *data, self.folder / "none.jsonl"), ("no rows are left", *data, empty),
            ("bad.jsonl:2: ", *data, bad), ("row 1 is nothing that tune dpo learns", *data, prompts),
            ("_IO: .*nowhere", "sft", "--model", self.folder / "nowhere", "--data", PAIRS, *out),
            ("this is a reward model", "sft", "--model", self.reward, "--data", PAIRS, *out),
            ("is a language model", "pg", *model, "--reward", self.sft, *out),
            ("is a file", "dpo", *model, "--out", PAIRS), ("cannot be made", "dpo", *model, "--out", "/proc/none/x"),
            ("cannot be written to", "dpo", *model, "--out", "/proc/self"),
            ("it is no run of tune", "sft", "--model", self.sft, "--data", PAIRS, "--out", self.strange("config.json")),
            ("it is no run of tune", "sft", *model, "--out", self.strange("finished.json")),
            ("another tokenizer.json", "sft", *model, "--out", self.strange("tokenizer.json")),
            ("pipe is a pipe, expected a file", *data, self.pipe()),
            ("is no UTF-8", *data, self.no_utf8()),
            ("has a run of tune sft, not of tune dpo", "dpo", "--model", self.folder / "base", "--data", PAIRS,
             "--out", self.sft),
            ("with --steps 60, not 61", "sft", "--model", self.folder / "base", "--data", PAIRS, "--out", self.sft,
             "--steps", 61, "--lr", "1e-2", "--whole-text"),
            ("another content of --data", "sft", "--model", self.folder / "base", "--data", self.other_pairs(),
             "--out", self.sft, "--steps", 60, "--lr", "1e-2", "--whole-text"),
        ]:
            self.refused(1, words, *line)

    def strange(self, name):
        folder = self.folder / f"strange-{name}"
        folder.mkdir()
        (folder / name).write_text("{}")
        return folder

    def pipe(self):
        os.mkfifo(self.folder / "pipe")
        self.addCleanup(os.close, os.open(self.folder / "pipe", os.O_RDWR))  # it opens without waiting
        return self.folder / "pipe"

    def no_utf8(self):
        path = os.fsencode(self.folder) + b"/\xff.jsonl"
        shutil.copy(PAIRS, path)
        return os.fsdecode(path)

    def other_pairs(self):
        path = self.folder / "other.jsonl"
        path.write_text(pathlib.Path(PAIRS).read_text() * 2)
        return path

    def test_a_config_that_somebody_edited(self):
        path, out = self.folder / "edited.json", self.folder / "edited"
        for words, options in [
            ('"steps" is -5, expected a whole number from 1 to', {"steps": -5}),
            ('"steps" is 2.5, expected a whole number', {"steps": 2.5}),
            ('"steps" is "many", expected a whole number', {"steps": "many"}),
            ('"whole-text" is 7, expected a whole number from 0 to 1', {"whole-text": 7}),
            ('"lr" is -1, expected a number from', {"lr": -1}), ('"model" is 5, expected a text', {"model": 5}),
            ('"schedule" is "foo", expected one of: constant linear cosine', {"schedule": "foo"}),
            ('"beta" is nothing that tune sft takes', {"beta": 1}),
        ]:
            path.write_text(json.dumps({"command": "sft", "options": options}))
            self.refused(1, re.escape(words), "sft", "--config", path, "--model", self.sft, "--data", PAIRS, "--out", out)
        self.assertFalse(out.exists())

    def test_a_tokenizer_that_does_not_fit(self):
        odd = self.folder / "odd"
        shutil.copytree(self.sft, odd)
        tokenizer = json.loads(pathlib.Path(TOKENIZER).read_text())
        n = max(tokenizer["model"]["vocab"].values()) + 1
        tokenizer["model"]["vocab"][chr(0x100) * 2] = n  # two bytes of value 0, merged
        (odd / "tokenizer.json").write_text(json.dumps(tokenizer))
        line = ["--data", PAIRS, "--out", self.folder / "x"]
        self.refused(1, "the tokenizer has 385 tokens, the model 384", "sft", "--model", odd, *line)
        self.refused(1, "differ: tokens of one are not those of the other", "pg", "--model", self.sft, "--reward",
                     self.other_reward(tokenizer), *line)
        config = json.loads((self.sft / "config.json").read_text())
        shutil.copy(TOKENIZER, odd)
        (odd / "config.json").write_text(json.dumps({**config, "eos_token_id": 384}))
        self.refused(1, "384", "sft", "--model", odd, *line)
        del tokenizer["model"]["vocab"][chr(0x100) * 2]
        text = json.dumps(tokenizer).replace("<|endoftext|>", "<|fin|>")
        (self.folder / "endless.json").write_text(text)
        init = ["init", "--tokenizer", self.folder / "endless.json", "--layers", 1, "--width", 8, "--heads", 2]
        self.refused(1, "name it with --eos", *init, "--out", self.folder / "y")
        self.refused(1, "has no token zzz", *init, "--out", self.folder / "y", "--eos", "zzz")
        self.runs(*init, "--out", self.folder / "y", "--eos", "<|fin|>")

    def other_reward(self, tokenizer):
        other = self.folder / "other_reward"
        shutil.copytree(self.reward, other)
        (other / "tokenizer.json").write_text(json.dumps(tokenizer))
        return other

    def test_step_0_that_is_not_as_it_should_be_is_said(self):
        file = self.folder / "margins.jsonl"
        file.write_text('{"prompt":"a","chosen":" b","rejected":" c","margin":1}\n')
        done = call("dpo", "--model", self.sft, "--data", file, "--out", self.folder / "m", "--steps", 1)
        self.assertEqual(done.returncode, 0)
        self.assertIn("step 0: loss 0.744397, margin 0.000000: NOT as it should be", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
