"""two_roads as its users call it: the three table forms, what it refuses, and R's fits.

    test_two_roads.py PROGRAM TOP

R 4.2.2's estimates of the baseball table (Agresti 2002, table 10.10) are typed in; the other tables
are compared where ../shared/data lies beside the source, else those tests are skipped.
"""
import csv
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM, TOP = sys.argv[1], pathlib.Path(sys.argv[2])
DATA = TOP / "../shared/data/comparisons"
BASEBALL = {"Boston": 1.10769770537865, "Cleveland": 0.683852769159161, "Detroit": 1.43640843181244,
            "Milwaukee": 1.58135587666139, "New York": 1.24761784514139, "Toronto": 1.29448512391181}
BASEBALL_SE = {"Boston": 0.333878206989037, "Cleveland": 0.331876672710727,
               "Detroit": 0.339568506378472, "Milwaukee": 0.343255981594256,
               "New York": 0.335860922525364, "Toronto": 0.33666940142248}


class TwoRoads(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_on(self, text, *arguments):
        """JSON of a run on a table given as text, as a path, or as None (the embedded one)."""
        out = self.folder / "out.json"
        result = self.call(text, "--json", str(out), *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(out.read_bytes().decode())

    def call(self, text, *arguments):
        file = [] if text is None else [str(text)]
        if isinstance(text, (str, bytes)):
            file = [str(self.folder / "table.csv")]
            pathlib.Path(file[0]).write_bytes(text.encode() if isinstance(text, str) else text)
        return subprocess.run([PROGRAM, *file, *arguments], capture_output=True, text=True)

    def refused(self, words, text, *arguments):
        result = self.call(text, *arguments)
        self.assertNotEqual(result.returncode, 0, result.stdout)
        self.assertIn(words, result.stderr)

    def field(self, out, key="strength"):
        return {item["name"]: item[key] for item in out["items"]}

    def test_baseball_is_rs(self):
        out = self.run_on(None, "--reference", "Baltimore")
        strength, error = self.field(out), self.field(out, "std_error")
        self.assertEqual(strength["Baltimore"], 0)
        self.assertEqual(error["Baltimore"], 0)
        for name in BASEBALL:
            self.assertAlmostEqual(strength[name], BASEBALL[name], 8)
            self.assertAlmostEqual(error[name], BASEBALL_SE[name], 8)
        self.assertAlmostEqual(out["log_likelihood"], -172.248175994716, 9)
        self.assertIsNone(out["tie"])
        centred = self.field(self.run_on(None))
        self.assertAlmostEqual(sum(centred.values()), 0, 12)
        self.assertAlmostEqual(centred["Milwaukee"], 0.531153340652131, 8)
        ridge = self.run_on(None, "--ridge", "1")
        self.assertAlmostEqual(self.field(ridge)["Baltimore"], -0.98753240288401, 6)
        self.assertAlmostEqual(ridge["log_likelihood"], -172.295759290461, 9)

    def test_both_roads_end_at_the_soft_optimal_policy(self):
        for beta in (1e-6, 0.05, 1.0, 20.0, 1e3, 1e6):
            out = self.run_on(None, "--beta", str(beta))
            self.assertLess(out["total_variation"], 1e-8)
            best = max(self.field(out).values())
            weight = {k: math.exp((v - best) / beta) for k, v in self.field(out).items()}
            for key in ("policy_rlhf", "policy_dpo"):
                for name, p in self.field(out, key).items():
                    self.assertAlmostEqual(p, weight[name] / sum(weight.values()), 8)

    def test_forms_of_tables(self):
        counts = self.field(self.run_on('player1,player2,win1,win2\n"A, ""x""",b,3,1\nb,c,2,1\nc,"A, ""x""",1,1\n'))
        self.assertIn('A, "x"', counts)
        lines = "\ufeffwinner,loser,weight\r\n" + "".join(
            f'"{w}",{l},{n}\r\n' for w, l, n in [('A, ""x""', "b", 3), ("b", '"A, ""x"""', 1),
                                                 ("b", "c", 2), ("c", "b", 1), ("c", '"A, ""x"""', 1),
                                                 ('A, ""x""', "c", 1)])
        for name, value in self.field(self.run_on(lines)).items():
            self.assertAlmostEqual(value, counts[name], 10)
        once = self.field(self.run_on("winner,loser\na,b\na,b\nb,a\n"))
        self.assertAlmostEqual(once["a"] - once["b"], math.log(2), 10)
        pairs = self.field(self.run_on("count,rank1,rank2,rank3\n2,a,b,\n1,b,a,\n"))
        self.assertAlmostEqual(pairs["a"] - pairs["b"], math.log(2), 10)
        plain = self.run_on("rank1,rank2,rank3\na,b,c\nc,a\nb,c,a")
        self.assertEqual(len(plain["items"]), 3)
        self.assertLess(plain["total_variation"], 1e-8)

    def test_what_spreadsheets_leave_in_tables(self):
        plain = self.field(self.run_on("winner,loser\na,b\na,b\nb,a\n"))
        for text in ("\n \nwinner,loser\na,b\n \t\na,b\n\nb,a\n", " Winner , LOSER\na,b\na,b\nb,a\n"):
            self.assertEqual(self.field(self.run_on(text)), plain)
        self.refused('table.csv:1: column 3 has the title "winner" of column 1',
                     "winner,loser,winner\na,b,c\nb,a,c\n")
        self.refused("a byte 0", b"winner,loser\na\0,b\nb,a\0\n")
        self.refused("a byte 0", "winner,loser\na,b\n".encode("utf-16"))

    def test_json_is_utf8_whatever_the_names_are(self):
        names = [b"Jos\xe9", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80", b"\xf0\x9f",
                 b"\xe0\x80\x80", "\u00e9\u20ac\U0001f600\ufffd\u0800\U0010ffff".encode(), b'q"\\\t']
        rows = b"".join(b"b,x%d\nx%d,b\n" % (i, i) for i in range(len(names)))
        for i, name in enumerate(names):
            quoted = b'"' + name.replace(b'"', b'""') + b'"'
            rows = rows.replace(b"x%d" % i, quoted)
        out = self.run_on(b"winner,loser\n" + rows)  # which reads the file as UTF-8
        self.assertEqual(len(out["items"]), len(names) + 1)
        found = {item["name"] for item in out["items"]}
        self.assertEqual(found, {name.decode(errors="strict") if i > 6 else
                                 ("Jos\ufffd" if i == 0 else "\ufffd" * len(name))
                                 for i, name in enumerate(names)} | {"b"})

    def test_json_into_what_is_no_file(self):
        link, file = self.folder / "link", self.folder / "file"
        file.write_text("old")
        link.symlink_to(file)
        self.assertEqual(self.call(None, "--json", str(link)).returncode, 0)
        self.assertTrue(link.is_symlink())
        self.assertEqual(len(json.loads(file.read_text())["items"]), 7)
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
        self.assertEqual(self.call(None, "--json", str(pipe)).returncode, 0)
        self.assertEqual(len(json.loads(reader.communicate()[0])["items"]), 7)
        self.assertTrue(pipe.is_fifo())
        self.refused("directory", None, "--json", str(self.folder))

    def test_ties(self):
        table = "player1,player2,win1,win2,tie\na,b,10,5,6\nb,c,7,6,9\nc,a,4,8,5\n"
        half = self.run_on(table)
        self.assertIsNone(half["tie"])
        davidson = self.run_on(table, "--ties", "davidson")
        # At the optimum the expected number of ties is the observed one.
        a = {k: math.exp(v) for k, v in self.field(davidson).items()}
        nu, ties = math.exp(davidson["tie"]), 0
        for i, j, n in (("a", "b", 21), ("b", "c", 22), ("c", "a", 17)):
            tie = nu * math.sqrt(a[i] * a[j])
            ties += n * tie / (a[i] + a[j] + tie)
        self.assertAlmostEqual(ties, 20, 6)
        self.assertLess(davidson["total_variation"], 1e-8)
        self.assertLess(self.run_on(table, "--ties", "rao-kupper")["total_variation"], 1e-8)
        for ties in ("davidson", "rao-kupper"):
            for beta in ("1e-3", "1e3", "1e6"):
                self.assertLess(self.run_on(table, "--ties", ties, "--beta", beta)["total_variation"], 1e-9)

    def test_refusals_say_where_and_what(self):
        header = "player1,player2,win1,win2\n"
        self.refused('table.csv:3: column "win2": "x", expected a number >= 0', header + "a,b,1,2\na,b,1,x\n")
        self.refused("table.csv:2: 3 cells, expected 4", header + "a,b,1\n")
        self.refused('"a" meets itself', header + "a,a,1,1\n")
        self.refused("no closing quote", header + '"a,b,1,1\n')
        self.refused("expected a header", "")
        self.refused("expected player1,player2", "x,y\n1,2\n")
        self.refused("expected at least 2", header)
        self.refused('"a" stands twice', "rank1,rank2\na,a\n")
        self.refused("is empty, but a later one is not", "rank1,rank2,rank3\na,,b\n")
        self.refused("No such file", self.folder / "absent.csv")
        self.refused('item "a": never lost', header + "a,b,5,0\nb,c,1,1\n")
        self.refused("log_tie", None, "--ties", "davidson")
        self.refused('--reference is "Nobody"', None, "--reference", "Nobody")
        self.refused('--ties is "some"', None, "--ties", "some")
        self.refused('--beta is "0"', None, "--beta", "0")
        self.refused("--json needs a value", None, "--json")
        self.refused("unexpected \"--nonsense\"", None, "--nonsense")
        self.refused("absent", None, "--json", str(self.folder / "absent" / "out.json"))
        self.refused('item "c": never compared', header + "a,b,3,1\nc,a,0,0\n")
        warned = self.call(header + "a,b,3,1\nc,a,0,0\n", "--ridge", "0.1")
        self.assertIn("WARNING: 1 item(s) were never compared", warned.stdout)

    def test_rs_fits_of_the_other_tables(self):
        if not (DATA / "reference_fits.json").exists():
            self.skipTest("shared/data is not beside the source")
        fits = json.loads((DATA / "reference_fits.json").read_text())
        for key, arguments in (("baseball", []), ("baseball:ridge0.1", ["--ridge", "0.1"]),
                               ("baseball:ridge1", ["--ridge", "1"]), ("citations", []), ("cems", []),
                               ("cems:davidson", ["--ties", "davidson"]),
                               ("pudding:davidson", ["--ties", "davidson"]),
                               ("sushi:plackett_luce", [])):
            fit, estimate = fits[key], dict(fits[key]["estimate"])
            reference = fit.get("reference_player")
            names = {}
            if key.startswith("sushi"):
                with open(DATA / "sushi_items.csv", newline="") as file:
                    names = {row["item"]: row["id"] for row in csv.DictReader(file)}
                # R's item parameters are worths on a log scale up to a shift.
                reference = min(estimate, key=lambda k: abs(estimate[k]))
                shift = estimate[reference]
                estimate = {names[k]: v - shift for k, v in estimate.items()}
                reference = names[reference]
            if reference is not None:
                arguments = [*arguments, "--reference", str(reference)]
            out = self.run_on(DATA / fit.get("data", "cems.csv"), *arguments)
            strength, error = self.field(out), self.field(out, "std_error")
            tie = estimate.pop("tie", None)
            for name, value in estimate.items():
                self.assertAlmostEqual(strength[name], value, 6, (key, name))
            for name, value in fit.get("se", {}).items():
                if name in error and not names:
                    self.assertAlmostEqual(error[name], value, 6, (key, name))
            if tie is not None:
                self.assertAlmostEqual(out["tie"], tie, 6, key)
            known = fit.get("loglik_no_constant", fit.get("loglik"))
            if known is not None:
                self.assertAlmostEqual(out["log_likelihood"], known, 4, key)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
