"""Draw the trade-off between accuracy and robustness of a mix of two networks.

    python examples/mix_tradeoff.py

mixes two shipped classifiers of handwritten digits at several weights: 0 is the accurate network
alone, 1 the robust one alone. The attack of a sweep is short, so each robust accuracy is an upper
bound that a full evaluation at that weight would lower.
"""

import argparse
from pathlib import Path

import bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="digits-linf")
    parser.add_argument("--accurate", default="digits-standard")
    parser.add_argument("--robust", default="digits-robust")
    parser.add_argument("--alphas", default="0:1:0.1", help="first:last:step, or a list 0,0.5,1")
    parser.add_argument("--n-examples", type=int, default=100)
    parser.add_argument("--results-dir", default="results")
    parser.add_argument("--plot", type=Path, help="an image file for the curve")
    options = parser.parse_args()

    result = bench.sweep(
        options.accurate,
        options.robust,
        options.suite,
        alphas=options.alphas,
        n_examples=options.n_examples,
        results_dir=options.results_dir,
    )
    curve = result.samples.groupby("alpha")[["clean_correct", "robust"]].mean()
    print("weight   clean  robust (at most)")
    for alpha, row in curve.iterrows():
        print(f"  {alpha:.2f}  {row['clean_correct']:6.1%}  {row['robust']:6.1%}")
    if options.plot:
        result.plot().figure.savefig(options.plot)


if __name__ == "__main__":
    main()
