#!/usr/bin/env python3
"""The fit of bench_bradley_terry beside scikit-learn's on the same rows, in one run.

    bench_bradley_terry.py PROGRAM [ROWS ITEMS [THREADS]]

scikit-learn (with numpy and scipy) fits a logistic regression without intercept or penalty on the
sparse design with +1 and -1 in each row. Three of its settings are run: the default solver with
its default tolerance, the same as tight as it goes, and its other second-order one.
Prints lines `name value unit`.
"""
import os
import subprocess
import sys
import tempfile
import time
import warnings

import numpy
import scipy.sparse
import sklearn
from sklearn.linear_model import LogisticRegression


def main():
    program = sys.argv[1]
    rows, items = (int(a) for a in sys.argv[2:4]) if len(sys.argv) > 3 else (1000000, 5000)
    threads = sys.argv[4] if len(sys.argv) > 4 else "0"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rows")
        text = subprocess.run([program, str(rows), str(items), threads, path], check=True,
                              capture_output=True, text=True).stdout
        data = numpy.fromfile(path, numpy.uint8)
    print(text, end="")
    ours = float(next(l.split()[1] for l in text.splitlines() if l.startswith("bradley_terry_fit ")))
    first = data[:4 * rows].view(numpy.int32)
    second = data[4 * rows:8 * rows].view(numpy.int32)
    label = data[8 * rows:16 * rows].view(numpy.float64)
    theta = data[16 * rows:].view(numpy.float64)

    columns = numpy.stack([first, second], 1).ravel()
    values = numpy.tile([1.0, -1.0], rows)
    starts = numpy.arange(0, 2 * rows + 1, 2)
    design = scipy.sparse.csr_matrix((values, columns, starts), shape=(rows, items))
    print(f"sklearn_version {sklearn.__version__} release")
    for name, solver, tolerance in [("default", "lbfgs", 1e-4), ("tight", "lbfgs", 1e-9),
                                    ("newton_cg", "newton-cg", 1e-5)]:
        model = LogisticRegression(penalty=None, fit_intercept=False, solver=solver, tol=tolerance,
                                   max_iter=20000)
        start = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(design, label)
        seconds = time.monotonic() - start
        w = model.coef_[0] - model.coef_[0].mean()
        d = design @ w
        residual = label - 1 / (1 + numpy.exp(-d))
        norm = numpy.linalg.norm(design.T @ residual) / rows
        print(f"sklearn_{name}_fit {seconds:.4f} s")
        print(f"sklearn_{name}_iterations {model.n_iter_[0]} steps")
        print(f"sklearn_{name}_gradient_norm {norm:.3g} per_comparison")
        print(f"sklearn_{name}_difference {abs(w - theta).max():.3g} strength")
        print(f"sklearn_{name}_ratio {seconds / ours:.2f} times")


if __name__ == "__main__":
    main()
