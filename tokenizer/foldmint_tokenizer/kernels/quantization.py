"""The search for the nearest code, compiled."""

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.kernels.compilation import compiled
from foldmint_tokenizer.kernels.vectors import LANES, broadcast, load, multiply_add, pick, store

_TOGETHER = 4  # vectors that are compared with a code at once
# Of half of a code's square: far more than products in float32 are wrong by.
_UNSURE = np.float32(1e-5)

Floats = NDArray[np.float32]


@compiled(error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def _square_distance(left: Floats, right: Floats) -> np.float32:
    square = np.float32(0.0)
    for i in range(len(left)):
        apart = left[i] - right[i]
        square += apart * apart
    return square


@compiled(error_model="numpy")
def nearest_codes(z: Floats, embeddings: Floats, codes: NDArray[np.int64], distances: Floats) -> None:
    """Write the code nearest to each of z (rows, out) among embeddings (codes, out), and the distance to it.

    Of codes at the same distance, the first. codes, distances: (rows,). If a vector is not finite, neither is its
    distance.
    """
    rows, out = z.shape
    tiles = -(-len(embeddings) // LANES)
    # Tiles of 16 codes, (tiles, out, 16), and half of their squares; what fills the last tile is infinitely far.
    table, half = np.zeros(tiles * out * LANES, np.float32), np.full(tiles * LANES, np.inf, np.float32)
    for code in range(len(embeddings)):
        square = np.float32(0.0)
        for i in range(out):
            value = embeddings[code, i]
            table[(code // LANES * out + i) * LANES + code % LANES] = value
            square += value * value
        half[code] = square * np.float32(0.5)
    negative = np.empty((_TOGETHER, out), np.float32)
    least, where = np.empty(_TOGETHER * LANES, np.float32), np.empty(_TOGETHER * LANES, np.float32)
    far, zero = broadcast(np.float32(np.inf)), broadcast(np.float32(0.0))
    for start in range(0, rows, _TOGETHER):
        count = min(_TOGETHER, rows - start)
        for k in range(_TOGETHER):
            for i in range(out):
                negative[k, i] = -z[min(start + k, rows - 1), i]
        # |z|² is the same for all codes: (|z - e|² - |z|²) / 2 = |e|² / 2 - z e.
        best_a, best_b, best_c, best_d = far, far, far, far
        tile_a, tile_b, tile_c, tile_d = zero, zero, zero, zero
        for tile in range(tiles):
            a = load(half, tile * LANES)
            b, c, d = a, a, a
            for i in range(out):
                values = load(table, (tile * out + i) * LANES)
                a = multiply_add(broadcast(negative[0, i]), values, a)
                b = multiply_add(broadcast(negative[1, i]), values, b)
                c = multiply_add(broadcast(negative[2, i]), values, c)
                d = multiply_add(broadcast(negative[3, i]), values, d)
            number = broadcast(np.float32(tile))
            best_a, tile_a = pick(a, best_a, a, best_a), pick(a, best_a, number, tile_a)
            best_b, tile_b = pick(b, best_b, b, best_b), pick(b, best_b, number, tile_b)
            best_c, tile_c = pick(c, best_c, c, best_c), pick(c, best_c, number, tile_c)
            best_d, tile_d = pick(d, best_d, d, best_d), pick(d, best_d, number, tile_d)
        store(least, 0, best_a)
        store(least, LANES, best_b)
        store(least, 2 * LANES, best_c)
        store(least, 3 * LANES, best_d)
        store(where, 0, tile_a)
        store(where, LANES, tile_b)
        store(where, 2 * LANES, tile_c)
        store(where, 3 * LANES, tile_d)
        for k in range(count):
            # The nearest of each lane, where the difference of large products may have decided wrongly, are compared by
            # the squares of differences, which do not cancel.
            lowest = np.float32(np.inf)
            for lane in range(LANES):
                lowest = min(lowest, least[k * LANES + lane])
            nearest, found = np.float32(np.inf), -1
            for lane in range(LANES):
                code = int(where[k * LANES + lane]) * LANES + lane
                if code < len(embeddings) and least[k * LANES + lane] <= lowest + _UNSURE * half[code]:
                    square = _square_distance(z[start + k], embeddings[code])
                    if square < nearest or (square == nearest and code < found):
                        nearest, found = square, code
            if found < 0:  # no distance is finite
                nearest, found = _square_distance(z[start + k], embeddings[0]), 0
            codes[start + k] = found
            distances[start + k] = np.sqrt(nearest)
