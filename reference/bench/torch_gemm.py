"""Times y = x @ w.T, one linear layer, with PyTorch.

    python torch_gemm.py --dtype bf16 --shapes "8,576,1536;1024,2048,8192"

A shape is rows,inputs,outputs; w is (outputs, inputs), as in nn.Linear. Calls use several copies of w in turn. Together
they exceed 64 MB, like the layers of a model, so that no copy is in cache when it is used. `--no-rotate` uses one copy.
The rate of a shape is the median of five repetitions, each at least `--seconds` long.

Prints {"shapes": [{"rows", "inputs", "outputs", "gflops"}], ...}, in 1e9 floating-point operations per second.
"""

import argparse
import itertools
import json
import statistics
import time

import torch

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
ROTATED_BYTES = 64e6
REPETITIONS = 5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", type=parse_shapes, required=True, help="rows,inputs,outputs;...")
    parser.add_argument("--seconds", type=float, default=0.3, help="minimum time of one repetition")
    parser.add_argument("--rotate", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    shapes = [
        {
            "rows": rows,
            "inputs": inputs,
            "outputs": outputs,
            "gflops": measure(rows, inputs, outputs, DTYPES[args.dtype], args.seconds, args.rotate),
        }
        for rows, inputs, outputs in args.shapes
    ]
    print(json.dumps({
        "shapes": shapes,
        "dtype": args.dtype,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }))


def parse_shapes(text):
    shapes = [tuple(int(number) for number in shape.split(",")) for shape in text.split(";") if shape.strip()]
    if not shapes or any(len(shape) != 3 or min(shape) < 1 for shape in shapes):
        raise argparse.ArgumentTypeError(f"{text!r}: expected rows,inputs,outputs;...")
    return shapes


@torch.inference_mode()
def measure(rows, inputs, outputs, dtype, seconds, rotate):
    """GFLOP/s of one shape."""
    x = torch.randn(rows, inputs).to(dtype)
    copies = int(ROTATED_BYTES // (outputs * inputs * dtype.itemsize)) + 1 if rotate else 1
    first = torch.randn(outputs, inputs).to(dtype)
    weights = itertools.cycle([first] + [first.clone() for _ in range(copies - 1)])

    def run(calls):
        start = time.perf_counter()
        for _ in range(calls):
            torch.nn.functional.linear(x, next(weights))
        return time.perf_counter() - start

    run(copies)
    calls = 1
    while run(calls) < seconds:
        calls *= 2
    rates = []
    for _ in range(REPETITIONS):
        taken = run(calls)
        rates.append(2 * rows * inputs * outputs * calls / taken / 1e9)
    return statistics.median(rates)


if __name__ == "__main__":
    main()
