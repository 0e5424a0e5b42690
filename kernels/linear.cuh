// Linear algebra of stochastic reconfiguration, in f64. Follows the device library
// with `real` = double.
//
// A matrix has `rows` x `columns` elements, row by row. The host passes what a
// kernel works on in the arrays of `Launch`:
//
//     samples        pieces of work, dealt to blocks
//     sizes          named at every kernel
//     inputs         a matrix that is read
//     constants64    vectors that are read
//     outputs        a result
//     workspace      a second result
//
// All sums are added in an order that depends on the sizes alone: the same numbers
// come out whatever runs beside.

namespace dnet {
namespace linear {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int TILE = 64;            // results per side of a tile; 4 x 4 per thread
constexpr int LARGE = 128;          // of a large one; 8 x 8 per thread
constexpr int DEPTH = 16;           // terms in shared memory at a time
constexpr int PITCH = TILE + 1;     // keeps the banks of shared memory apart
constexpr int PANEL = 32;           // columns of a Cholesky step
constexpr int PANEL_PITCH = PANEL + 1;
constexpr int PANEL_ROWS = 64;      // rows of a piece of a panel

// Row and column of tile number t of a lower triangle.
__device__ inline void lower_tile(int t, int& row, int& column) {
    row = (int)((dnet::sqrt(8.0 * t + 1.0) - 1.0) / 2.0);
    while (row * (row + 1) / 2 > t) --row;
    while ((row + 1) * (row + 2) / 2 <= t) ++row;
    column = t - row * (row + 1) / 2;
}

// Results of a thread per side of a tile of 16 R x 16 R, 16 rows or columns apart:
// neighbouring threads then read neighbouring numbers of shared memory.
constexpr int SPREAD = 16;
static_assert(SPREAD * SPREAD == THREADS && DEPTH == SPREAD,
              "a thread for every R x R results, R numbers of a side per thread");

// Adds DEPTH terms to this thread's R x R results of a tile, from shared memory.
template <int R> __device__ inline void add_terms(double* sum, Global<double> left, Global<double> right) {
    constexpr int PITCH_R = SPREAD * R + 1;
    const int p = threadIdx.x / SPREAD, q = threadIdx.x % SPREAD;
    #pragma unroll 4
    for (int d = 0; d < DEPTH; ++d) {
        double x[R], y[R];
        #pragma unroll
        for (int s = 0; s < R; ++s) {
            x[s] = left[d * PITCH_R + p + s * SPREAD];
            y[s] = right[d * PITCH_R + q + s * SPREAD];
        }
        #pragma unroll
        for (int s = 0; s < R; ++s) {
            #pragma unroll
            for (int t = 0; t < R; ++t) sum[s * R + t] = fma(x[s], y[t], sum[s * R + t]);
        }
    }
}

// Where this thread's results of the tile at row i0 and column j0 are in the lower
// triangle of an n x n matrix: `place(position, number of the result)`.
template <int R, class Place> __device__ inline void each_result(int n, int i0, int j0, Place place) {
    const int p = threadIdx.x / SPREAD, q = threadIdx.x % SPREAD;
    #pragma unroll
    for (int s = 0; s < R; ++s) {
        #pragma unroll
        for (int t = 0; t < R; ++t) {
            const int i = i0 + p + s * SPREAD, j = j0 + q + t * SPREAD;
            if (i < n && j <= i) place((long long)i * n + j, s * R + t);
        }
    }
}

// The lower triangle of `A diag(scale) A^T` (or of `A^T A`, if COLUMNS): sums over
// columns (rows), on tiles of 16 R. Sizes: rows, columns, whether there is a scale.
template <bool COLUMNS, int R> __device__ inline void gram(const Launch& a) {
    constexpr int SIDE = SPREAD * R, PITCH_R = SIDE + 1;
    const int thread = threadIdx.x;
    const int rows = a.sizes[0], columns = a.sizes[1];
    const bool scaled = a.sizes[2] != 0;
    const int n = COLUMNS ? columns : rows, terms = COLUMNS ? rows : columns;
    const auto matrix = a.inputs;
    const auto scale = a.constants64;
    const auto out = a.outputs;
    const auto left = view<double>(shared_memory(), 0, DEPTH * PITCH_R);
    const auto right = view<double>(shared_memory(), DEPTH * PITCH_R, DEPTH * PITCH_R);
    for (int tile = blockIdx.x; tile < a.samples; tile += gridDim.x) {
        int i0, j0;
        lower_tile(tile, i0, j0);
        i0 *= SIDE;
        j0 *= SIDE;
        double sum[R * R] = {}, x[R], y[R];
        // what shared memory holds next is on its way while sums are formed: R numbers
        // of either side per thread, neighbouring ones by neighbouring threads
        const auto load = [&](int first) {
            #pragma unroll
            for (int s = 0; s < R; ++s) {
                const int k = thread + s * THREADS;
                const int e = COLUMNS ? k % SIDE : k / DEPTH;
                const int d = COLUMNS ? k / SIDE : k % DEPTH;
                const int term = first + d;
                x[s] = 0;
                y[s] = 0;
                if (term < terms) {
                    const long long row_term = (long long)term * columns;
                    if (i0 + e < n)
                        x[s] = matrix[COLUMNS ? row_term + i0 + e : (long long)(i0 + e) * columns + term];
                    if (j0 + e < n)
                        y[s] = matrix[COLUMNS ? row_term + j0 + e : (long long)(j0 + e) * columns + term];
                    if (scaled) x[s] *= scale[term];
                }
            }
        };
        load(0);
        for (int first = 0; first < terms; first += DEPTH) {
            #pragma unroll
            for (int s = 0; s < R; ++s) {
                const int k = thread + s * THREADS;
                const int e = COLUMNS ? k % SIDE : k / DEPTH;
                const int d = COLUMNS ? k / SIDE : k % DEPTH;
                left[d * PITCH_R + e] = x[s];
                right[d * PITCH_R + e] = y[s];
            }
            __syncthreads();
            load(first + DEPTH);
            add_terms<R>(sum, left, right);
            __syncthreads();
        }
        each_result<R>(n, i0, j0, [&](long long at, int k) { out[at] = sum[k]; });
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) gram_of_rows(const __grid_constant__ Launch a) {
    gram<false, 4>(a);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) gram_of_columns(const __grid_constant__ Launch a) {
    gram<true, 4>(a);
}

// The same on tiles of LARGE, where there are enough of them: a number read from shared
// memory serves twice as often.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
large_gram_of_rows(const __grid_constant__ Launch a) {
    gram<false, 8>(a);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
large_gram_of_columns(const __grid_constant__ Launch a) {
    gram<true, 8>(a);
}

// `A x`, a row per warp. Sizes: rows, columns. Pieces: groups of WARPS rows.
extern "C" __global__ void __launch_bounds__(THREADS) apply(const __grid_constant__ Launch a) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int rows = a.sizes[0], columns = a.sizes[1];
    const auto matrix = a.inputs;
    const auto x = a.constants64;
    const auto out = a.outputs;
    for (int piece = blockIdx.x; piece < a.samples; piece += gridDim.x) {
        const int row = piece * WARPS + warp;
        if (row >= rows) continue;
        double sum = 0;
        #pragma unroll 4
        for (int k = lane; k < columns; k += 32) sum = fma(matrix[(long long)row * columns + k], x[k], sum);
        sum = warp_sum(sum);
        if (lane == 0) out[row] = sum;
    }
}

// `A^T y`, or the squares of the columns; 32 columns per piece of work. A row whose
// y is 0 counts for nothing, whatever it holds. Sizes: rows, columns.
template <bool SQUARES> __device__ inline void sum_rows(const Launch& a) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int rows = a.sizes[0], columns = a.sizes[1];
    const auto matrix = a.inputs;
    const auto y = a.constants64;
    const auto out = a.outputs;
    const auto part = view<double>(shared_memory(), 0, THREADS);
    for (int piece = blockIdx.x; piece < a.samples; piece += gridDim.x) {
        const int column = piece * 32 + lane;
        double sum = 0;
        if (column < columns) {
            #pragma unroll 4
            for (int row = warp; row < rows; row += WARPS) {
                const double x = matrix[(long long)row * columns + column];
                if (SQUARES || y[row] != 0) sum = fma(x, SQUARES ? x : y[row], sum);
            }
        }
        part[warp * 32 + lane] = sum;
        __syncthreads();
        if (warp == 0 && column < columns) {
            for (int w = 1; w < WARPS; ++w) sum += part[w * 32 + lane];
            out[column] = sum;
        }
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) adjoint(const __grid_constant__ Launch a) {
    sum_rows<false>(a);
}

extern "C" __global__ void __launch_bounds__(THREADS) column_squares(const __grid_constant__ Launch a) {
    sum_rows<true>(a);
}

// Gradients of samples `start..start + count` of n, [sample, part, column], become
// rows `part n + sample`. Sizes: columns, parts, n, start. Pieces: count x parts.
extern "C" __global__ void __launch_bounds__(THREADS) place_rows(const __grid_constant__ Launch a) {
    const int columns = a.sizes[0], parts = a.sizes[1], n = a.sizes[2], start = a.sizes[3];
    const auto values = a.inputs;
    const auto out = a.outputs;
    for (int piece = blockIdx.x; piece < a.samples; piece += gridDim.x) {
        const long long row = (long long)(piece % parts) * n + start + piece / parts;
        #pragma unroll 1
        for (int k = threadIdx.x; k < columns; k += THREADS)
            out[row * columns + k] = values[(long long)piece * columns + k];
    }
}

// Subtracts the means from every row and multiplies by the root of its weight, in
// place; a row of weight zero becomes zero, whatever it was. `constants64`: n
// weights, then the means of each part. Sizes: columns, n. Pieces: rows.
extern "C" __global__ void __launch_bounds__(THREADS) centre_rows(const __grid_constant__ Launch a) {
    const int columns = a.sizes[0], n = a.sizes[1];
    const auto weights = a.constants64;
    const auto out = a.outputs;
    for (int row = blockIdx.x; row < a.samples; row += gridDim.x) {
        const double weight = weights[row % n], root = dnet::sqrt(weight);
        const long long mean = n + (long long)(row / n) * columns;
        #pragma unroll 1
        for (int k = threadIdx.x; k < columns; k += THREADS) {
            const long long at = (long long)row * columns + k;
            out[at] = weight > 0 ? root * (out[at] - weights[mean + k]) : 0.0;
        }
    }
}

// The diagonal d of an n x n matrix becomes d + absolute + relative d, and 1 where
// that is 0 and `filled`. `constants64`: absolute, relative, filled. Sizes: n.
extern "C" __global__ void __launch_bounds__(THREADS) shift_diagonal(const __grid_constant__ Launch a) {
    const int n = a.sizes[0];
    const auto shift = a.constants64;
    const auto out = a.outputs;
    for (int piece = blockIdx.x; piece < a.samples; piece += gridDim.x) {
        const int k = piece * THREADS + threadIdx.x;
        if (k >= n) continue;
        const long long at = (long long)k * n + k;
        const double d = out[at] + (shift[0] + shift[1] * out[at]);
        out[at] = d == 0 && shift[2] != 0 ? 1.0 : d;
    }
}

// ---- Cholesky: the lower triangle of an n x n matrix becomes L with L L^T = A,
// PANEL columns at a time. Sizes: n, first column of the panel.

// The block on the diagonal. One block of 32 threads, a row each. `workspace[0]`
// becomes 1 where a pivot is not positive; what follows is then meaningless.
extern "C" __global__ void __launch_bounds__(32) cholesky_block(const __grid_constant__ Launch a) {
    const int row = threadIdx.x, n = a.sizes[0], first = a.sizes[1];
    const int width = n - first < PANEL ? n - first : PANEL;
    const auto matrix = a.outputs;
    const auto block = view<double>(shared_memory(), 0, PANEL * PANEL_PITCH);
    for (int r = 0; r < width; ++r)
        if (row < width) block[r * PANEL_PITCH + row] = matrix[(long long)(first + r) * n + first + row];
    __syncthreads();
    for (int c = 0; c < width; ++c) {
        const double pivot = block[c * PANEL_PITCH + c];
        // also where it is not a number
        if (row == 0 && !(pivot > 0 && pivot < infinity())) a.workspace[0] = 1;
        const double root = dnet::sqrt(pivot > 0 ? pivot : 1.0);
        __syncthreads();
        if (row == c) block[c * PANEL_PITCH + c] = root;
        if (row > c && row < width) block[row * PANEL_PITCH + c] /= root;
        __syncthreads();
        if (row > c && row < width) {
            const double x = block[row * PANEL_PITCH + c];
            for (int k = c + 1; k <= row; ++k)
                block[row * PANEL_PITCH + k] -= x * block[k * PANEL_PITCH + c];
        }
        __syncthreads();
    }
    for (int r = 0; r < width; ++r)
        if (row <= r) matrix[(long long)(first + r) * n + first + row] = block[r * PANEL_PITCH + row];
}

// The rows below it: X L^T = A. Blocks of PANEL_ROWS threads, a row each; only
// whole panels have rows below.
extern "C" __global__ void __launch_bounds__(PANEL_ROWS) cholesky_panel(const __grid_constant__ Launch a) {
    const int thread = threadIdx.x, n = a.sizes[0], first = a.sizes[1];
    const auto matrix = a.outputs;
    const auto block = view<double>(shared_memory(), 0, PANEL * PANEL_PITCH);
    const auto panel = view<double>(shared_memory(), PANEL * PANEL_PITCH, PANEL_ROWS * PANEL_PITCH);
    #pragma unroll 1
    for (int k = thread; k < PANEL * PANEL; k += PANEL_ROWS) {
        const int r = k / PANEL, c = k % PANEL;
        block[r * PANEL_PITCH + c] = matrix[(long long)(first + r) * n + first + c];
    }
    for (int piece = blockIdx.x; piece < a.samples; piece += gridDim.x) {
        const int top = first + PANEL + piece * PANEL_ROWS;
        __syncthreads();
        #pragma unroll 1
        for (int k = thread; k < PANEL_ROWS * PANEL; k += PANEL_ROWS) {
            const int r = k / PANEL, c = k % PANEL;
            if (top + r < n)
                panel[r * PANEL_PITCH + c] = matrix[(long long)(top + r) * n + first + c];
        }
        __syncthreads();
        if (top + thread < n) {
            for (int c = 0; c < PANEL; ++c) {
                double x = panel[thread * PANEL_PITCH + c];
                for (int k = 0; k < c; ++k)
                    x = fma(-panel[thread * PANEL_PITCH + k], block[c * PANEL_PITCH + k], x);
                panel[thread * PANEL_PITCH + c] = x / block[c * PANEL_PITCH + c];
            }
        }
        __syncthreads();
        #pragma unroll 1
        for (int k = thread; k < PANEL_ROWS * PANEL; k += PANEL_ROWS) {
            const int r = k / PANEL, c = k % PANEL;
            if (top + r < n)
                matrix[(long long)(top + r) * n + first + c] = panel[r * PANEL_PITCH + c];
        }
    }
}

// What remains: A -= X X^T, on tiles of the lower triangle.
extern "C" __global__ void __launch_bounds__(THREADS, 2) cholesky_update(const __grid_constant__ Launch a) {
    const int thread = threadIdx.x, n = a.sizes[0], first = a.sizes[1];
    const auto matrix = a.outputs;
    const auto left = view<double>(shared_memory(), 0, DEPTH * PITCH);
    const auto right = view<double>(shared_memory(), DEPTH * PITCH, DEPTH * PITCH);
    for (int tile = blockIdx.x; tile < a.samples; tile += gridDim.x) {
        int i0, j0;
        lower_tile(tile, i0, j0);
        i0 = first + PANEL + i0 * TILE;
        j0 = first + PANEL + j0 * TILE;
        double sum[16] = {};
        for (int term = 0; term < PANEL; term += DEPTH) {
            #pragma unroll 1
            for (int k = thread; k < DEPTH * TILE; k += THREADS) {
                const int e = k / DEPTH, d = k % DEPTH, column = first + term + d;
                left[d * PITCH + e] = i0 + e < n ? matrix[(long long)(i0 + e) * n + column] : 0.0;
                right[d * PITCH + e] = j0 + e < n ? matrix[(long long)(j0 + e) * n + column] : 0.0;
            }
            __syncthreads();
            add_terms<4>(sum, left, right);
            __syncthreads();
        }
        each_result<4>(n, i0, j0, [&](long long at, int k) { matrix[at] -= sum[k]; });
    }
}

// x with L L^T x = b, in place of b, by one block: forward, then back, PANEL rows at
// a time. Sizes: n.
extern "C" __global__ void __launch_bounds__(THREADS) cholesky_solve(const __grid_constant__ Launch a) {
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, n = a.sizes[0];
    const auto l = a.inputs;
    const auto x = a.outputs;
    const auto solved = view<double>(shared_memory(), 0, PANEL);
    for (int first = 0; first < n; first += PANEL) {
        const int width = n - first < PANEL ? n - first : PANEL;
        const long long row = (long long)(first + thread) * n + first;
        double value = thread < width ? x[first + thread] : 0.0;
        #pragma unroll 1
        for (int c = 0; c < width; ++c) {
            if (thread == c) solved[c] = value / l[row + c];
            __syncthreads();
            if (thread > c && thread < width) value = fma(-l[row + c], solved[c], value);
        }
        if (thread < width) x[first + thread] = solved[thread];
        // the rows below, one per warp
        #pragma unroll 1
        for (int i = first + PANEL + warp; i < n; i += WARPS) {
            const double sum = warp_sum(l[(long long)i * n + first + lane] * solved[lane]);
            if (lane == 0) x[i] -= sum;
        }
        __syncthreads();
    }
    for (int first = (n - 1) / PANEL * PANEL; first >= 0; first -= PANEL) {
        const int width = n - first < PANEL ? n - first : PANEL;
        double value = thread < width ? x[first + thread] : 0.0;
        #pragma unroll 1
        for (int c = width - 1; c >= 0; --c) {
            const long long row = (long long)(first + c) * n + first;
            if (thread == c) solved[c] = value / l[row + c];
            __syncthreads();
            if (thread < c) value = fma(-l[row + thread], solved[c], value);
        }
        if (thread < width) x[first + thread] = solved[thread];
        // the rows above, one per thread
        #pragma unroll 1
        for (int k = thread; k < first; k += THREADS) {
            double sum = 0;
            for (int c = 0; c < width; ++c)
                sum = fma(l[(long long)(first + c) * n + k], solved[c], sum);
            x[k] -= sum;
        }
        __syncthreads();
    }
}

} // namespace linear
} // namespace dnet
