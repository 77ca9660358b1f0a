"""Certify a smoothed classifier: radii inside which its vote provably cannot change.

    python examples/certify.py

takes a small classifier of handwritten digits that ships with `bench`, asks for its vote under
Gaussian noise, and prints the certified accuracy by radius. With --noise-samples 100000, Cohen et
al.'s number, the radii are larger and the numbers may stand in a paper.
"""

import argparse

import bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidate", default="digits-smoothmix", help="a smoothed classifier")
    parser.add_argument("--suite", default="digits-l2", help="a suite in L2")
    parser.add_argument("--n-examples", type=int, default=100)
    parser.add_argument("--noise-samples", type=int, default=1000)
    parser.add_argument("--results-dir", default="results")
    options = parser.parse_args()

    result = bench.certify(
        options.candidate,
        options.suite,
        n_examples=options.n_examples,
        noise_samples=options.noise_samples,
        results_dir=options.results_dir,
    )
    samples = result.samples
    right = samples["prediction"] == samples["label"]
    print(f"{options.candidate}, {len(samples)} images, {options.noise_samples} draws for each")
    print(f"average certified radius {(samples['radius'] * right).mean():.3f}")
    for radius in (0.0, 0.25, 0.5, 0.75):
        certified = (right & (samples["radius"] >= radius)).mean()
        print(f"certified at L2 radius {radius:.2f}: {certified:.1%}")
    print(f"abstained: {(samples['prediction'] == -1).mean():.1%}")


if __name__ == "__main__":
    main()
