// Sums over local changes of many configurations, as local energies are, and what is
// asked of them. The changes are the same for all configurations: a cluster of flipped
// spins each, with an element that is a sum of products of spins ("strings"). Which of
// them vanish depends on the configuration: the others are its sets, the first of them
// being the configuration itself.
//
// The host uploads the changes once, as 32-bit numbers (in place of `inputs`) and
// complex coefficients (in place of `constants64`). `sums::Table` says where what is.
// All sums are added in an order that depends on the sizes alone.

namespace dnet {
namespace sums {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int HEAD = 8;

// In place of a cluster: none.
constexpr unsigned int UNCHANGED = 0xffffffffu;

// The changes. Coefficients: the constant, those of the clusters' strings, of strings
// that flip nothing, and of pairs of spins by their displacement.
struct Table {
    Global<const unsigned int> words;
    Global<const double> coefficients;
    int sites, clusters, strings, diagonal, pairs;
    int extent[2], torus[2];
    int ends, displacements, factors;   // where these lists begin

    // How a list is told where a cluster is: its number, or where its change begins.
    __device__ inline unsigned int first(int k) const { return words[HEAD + 2 * k]; }
    // Strings of a cluster: from begin(k) to begin(k + 1).
    __device__ inline int begin(int k) const { return (int)words[HEAD + 2 * k + 1]; }
};

// Sizes of every kernel that reads it: sites, numbers of the table.
__device__ inline Table table_of(const Launch& a) {
    Table t;
    t.words = view<const unsigned int>(a.inputs, 0, a.sizes[1]);
    t.coefficients = a.constants64;
    t.sites = a.sizes[0];
    t.clusters = (int)t.words[0];
    t.strings = (int)t.words[1];
    t.diagonal = (int)t.words[2];
    t.pairs = (int)t.words[3];
    for (int k = 0; k < 2; ++k) {
        t.extent[k] = (int)t.words[4 + k];
        t.torus[k] = (int)t.words[6 + k];
    }
    t.ends = HEAD + 2 * (t.clusters + 1);
    t.displacements = t.ends + t.strings + t.diagonal + 1;
    t.factors = t.displacements + 2 * t.pairs;
    return t;
}

// The product of the spins of a string.
__device__ inline int sign_of(const Table& t, Global<const signed char> spins, int string) {
    int sign = 1;
    const int end = (int)t.words[t.ends + string + 1];
    for (int k = (int)t.words[t.ends + string]; k < end; ++k) sign *= spins[t.words[t.factors + k]];
    return sign;
}

// <s|H|s'> of a cluster; exactly zero where its strings cancel up to rounding.
__device__ inline void element_of(const Table& t, Global<const signed char> spins, int k, double& re,
                                  double& im) {
    double largest = 0;
    re = 0;
    im = 0;
    const int end = t.begin(k + 1);
    for (int s = t.begin(k); s < end; ++s) {
        const double x = t.coefficients[2ll * (1 + s)], y = t.coefficients[2ll * (1 + s) + 1];
        const int sign = sign_of(t, spins, s);
        re += sign * x;
        im += sign * y;
        largest = larger(largest, magnitude(x) + magnitude(y));
    }
    if (magnitude(re) + magnitude(im) < 1e-13 * largest) re = im = 0;
}

__device__ inline bool vanishes(double re, double im) { return re == 0 && im == 0; }

// sum_i s_i s_(i+d) over the sites for which i + d is on the lattice too, by the lanes
// of a warp: a part of it in each.
__device__ inline double correlation(const Table& t, Global<const signed char> spins, int number, int lane) {
    const int dx = (int)t.words[t.displacements + 2 * number];
    const int dy = (int)t.words[t.displacements + 2 * number + 1];
    int sum = 0;
    for (int k = lane; k < t.sites; k += 32) {
        int x = k / t.extent[1] + dx, y = k % t.extent[1] + dy;
        if (x >= t.torus[0]) x -= t.torus[0];
        if (y >= t.torus[1]) y -= t.torus[1];
        if (x < t.extent[0] && y < t.extent[1]) sum += spins[k] * spins[x * t.extent[1] + y];
    }
    return sum;
}

// The sum of a number of every thread, for thread 0. `part` is memory for WARPS numbers.
__device__ inline double block_sum(double x, Global<double> part) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    x = warp_sum(x);
    if (lane == 0) part[warp] = x;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int w = 1; w < WARPS; ++w) x += part[w];
    __syncthreads();
    return x;
}

// <s|H|s>, for thread 0.
__device__ inline double diagonal_of(const Table& t, Global<const signed char> spins, Global<double> part) {
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    const int first = 1 + t.strings;
    double sum = 0;
    for (int k = thread; k < t.diagonal; k += THREADS)
        sum += t.coefficients[2ll * (first + k)] * sign_of(t, spins, t.strings + k);
    for (int d = warp; d < t.pairs; d += WARPS) {
        // whole numbers: exact in any order
        const double c = warp_sum(correlation(t, spins, d, lane));
        if (lane == 0) sum += t.coefficients[2ll * (first + t.diagonal + d)] * c;
    }
    return t.coefficients[0] + block_sum(sum, part);
}

// The clusters of a thread: from `from` to `to`.
__device__ inline void own_clusters(const Table& t, int& from, int& to) {
    const int each = (t.clusters + THREADS - 1) / THREADS, thread = threadIdx.x;
    from = thread * each < t.clusters ? thread * each : t.clusters;
    to = from + each < t.clusters ? from + each : t.clusters;
}

// How many clusters of a thread do not vanish.
__device__ inline int own_count(const Table& t, Global<const signed char> spins) {
    int from, to, count = 0;
    own_clusters(t, from, to);
    for (int k = from; k < to; ++k) {
        double re, im;
        element_of(t, spins, k, re, im);
        count += !vanishes(re, im);
    }
    return count;
}

// How many sets every configuration has. `outputs`: as many numbers.
extern "C" __global__ void __launch_bounds__(THREADS) change_counts(const __grid_constant__ Launch a) {
    const Table t = table_of(a);
    const auto part = view<double>(shared_memory(), 0, THREADS);
    for (int of = blockIdx.x; of < a.samples; of += gridDim.x) {
        const auto spins = a.spins + (long long)of * t.sites;
        const double count = block_sum(own_count(t, spins), part);
        if (threadIdx.x == 0) a.outputs[of] = 1 + count;
    }
}

// Where the sets of every configuration begin, and where the last ones end, in place of
// their numbers, by one block. `samples` counts configurations.
extern "C" __global__ void __launch_bounds__(THREADS) change_starts(const __grid_constant__ Launch a) {
    const int thread = threadIdx.x, each = (a.samples + THREADS - 1) / THREADS;
    const auto part = view<double>(shared_memory(), 0, THREADS);
    const int from = thread * (long long)each < a.samples ? thread * each : a.samples;
    const int to = a.samples - from > each ? from + each : a.samples;
    double sum = 0;
    for (int k = from; k < to; ++k) sum += a.outputs[k];
    part[thread] = sum;
    __syncthreads();
    double start = 0;
    for (int k = 0; k < thread; ++k) start += part[k];
    for (int k = from; k < to; ++k) {
        const double count = a.outputs[k];
        a.outputs[k] = start;
        start += count;
    }
    if (thread == THREADS - 1) a.outputs[a.samples] = start;
}

// The sets: of each its configuration and `first` of its cluster, as two 32-bit numbers
// in place of a double; behind all of them their elements. That of a configuration
// itself is the diagonal, or 0. Sizes: ..., all sets, whether there is a diagonal.
// `workspace`: where the sets of every configuration begin.
extern "C" __global__ void __launch_bounds__(THREADS) change_lists(const __grid_constant__ Launch a) {
    const int thread = threadIdx.x, total = a.sizes[2];
    const auto part = view<double>(shared_memory(), 0, THREADS);
    const auto list = view<unsigned int>(a.outputs, 0, 2ll * total);
    const auto elements = a.outputs + total;
    for (int of = blockIdx.x; of < a.samples; of += gridDim.x) {
        double diagonal = 0;
        if (a.sizes[3]) {
            const Table t = table_of(a);
            diagonal = diagonal_of(t, a.spins + (long long)of * t.sites, part);
        }
        // read anew: kept meanwhile it would need more registers than there are
        const Table t = table_of(a);
        const auto spins = a.spins + (long long)of * t.sites;
        const int first = (int)a.workspace[of];
        if (thread == 0) {
            list[2ll * first] = of;
            list[2ll * first + 1] = UNCHANGED;
            elements[2ll * first] = diagonal;
            elements[2ll * first + 1] = 0;
        }
        part[thread] = own_count(t, spins);
        __syncthreads();
        int at = first + 1;
        for (int k = 0; k < thread; ++k) at += (int)part[k];
        int from, to;
        own_clusters(t, from, to);
        for (int k = from; k < to; ++k) {
            double re, im;
            element_of(t, spins, k, re, im);
            if (vanishes(re, im)) continue;
            list[2ll * at] = of;
            list[2ll * at + 1] = t.first(k);
            elements[2ll * at] = re;
            elements[2ll * at + 1] = im;
            ++at;
        }
        __syncthreads();
    }
}

// The configurations of some sets, one byte per spin, by the numbers of their clusters.
// `samples` counts sets. `constants64`: the list; `inputs`: for every cluster where its
// flipped sites begin, then where the last ones end, then the sites. Sizes: sites,
// numbers of `inputs`, clusters.
extern "C" __global__ void __launch_bounds__(THREADS) changed_spins(const __grid_constant__ Launch a) {
    const int sites = a.sizes[0], clusters = a.sizes[2];
    const auto list = view<const unsigned int>(a.constants64, 0, 2ll * a.samples);
    const auto flips = view<const unsigned int>(a.inputs, 0, a.sizes[1]);
    const auto changed = view<signed char>(a.outputs, 0, (long long)a.samples * sites);
    for (int set = blockIdx.x; set < a.samples; set += gridDim.x) {
        const long long from = (long long)list[2ll * set] * sites, to = (long long)set * sites;
        for (int k = threadIdx.x; k < sites; k += THREADS) changed[to + k] = a.spins[from + k];
        __syncthreads();
        const unsigned int cluster = list[2ll * set + 1];
        if (cluster != UNCHANGED) {
            const int begin = (int)flips[cluster], end = (int)flips[cluster + 1];
            for (int k = begin + threadIdx.x; k < end; k += THREADS) {
                const long long at = to + flips[clusters + 1 + k];
                changed[at] = (signed char)-changed[at];
            }
        }
    }
}

// For every configuration the sum over its sets of element psi(s') / psi(s), where s is
// its first set. `inputs`: log psi of the sets; `constants64`: their elements;
// `workspace`: where the sets of every configuration begin. Sizes: results per set,
// whether the sums are added to what is there. A warp adds up one configuration.
extern "C" __global__ void __launch_bounds__(THREADS) sum_ratios(const __grid_constant__ Launch a) {
    const int width = a.sizes[0], warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const bool complex_valued = width > 1;
    for (int of = blockIdx.x * WARPS + warp; of < a.samples; of += gridDim.x * WARPS) {
        const long long first = (long long)a.workspace[of], end = (long long)a.workspace[of + 1];
        const double re0 = a.inputs[first * width];
        const double im0 = complex_valued ? a.inputs[first * width + 1] : 0;
        double re = 0, im = 0;
        for (long long k = first + lane; k < end; k += 32) {
            const long long at = k * width;
            const double size = exp(a.inputs[at] - re0);
            const double phase = complex_valued ? a.inputs[at + 1] - im0 : 0;
            const double c = complex_valued ? cos(phase) : 1, s = complex_valued ? sin(phase) : 0;
            const double x = a.constants64[2 * k], y = a.constants64[2 * k + 1];
            re += size * (x * c - y * s);
            im += size * (x * s + y * c);
        }
        re = warp_sum(re);
        im = warp_sum(im);
        if (lane == 0) {
            a.outputs[2ll * of] = re + (a.sizes[1] ? a.outputs[2ll * of] : 0);
            a.outputs[2ll * of + 1] = im + (a.sizes[1] ? a.outputs[2ll * of + 1] : 0);
        }
    }
}

// ---- statistics of complex values, `inputs`, of which there are `samples`; one block
// unless another number is given

// Tells all threads of a block the number that the first one has.
__device__ inline void tell(double& re, double& im, Global<double> part) {
    if (threadIdx.x == 0) {
        part[0] = re;
        part[1] = im;
    }
    __syncthreads();
    re = part[0];
    im = part[1];
    __syncthreads();
}

// Their mean, and sum |x - mean|^2.
extern "C" __global__ void __launch_bounds__(THREADS) moments(const __grid_constant__ Launch a) {
    const int thread = threadIdx.x;
    const auto part = view<double>(shared_memory(), 0, THREADS);
    double re = 0, im = 0;
    #pragma unroll 4
    for (int k = thread; k < a.samples; k += THREADS) {
        re += a.inputs[2ll * k];
        im += a.inputs[2ll * k + 1];
    }
    re = block_sum(re, part) / a.samples;
    im = block_sum(im, part) / a.samples;
    tell(re, im, part);
    double scatter = 0;
    #pragma unroll 4
    for (int k = thread; k < a.samples; k += THREADS) {
        const double x = a.inputs[2ll * k] - re, y = a.inputs[2ll * k + 1] - im;
        scatter += x * x + y * y;
    }
    scatter = block_sum(scatter, part);
    if (thread == 0) {
        a.outputs[0] = re;
        a.outputs[1] = im;
        a.outputs[2] = scatter;
    }
}

// Means of pieces of `sizes[0]` values, the next one beginning `sizes[1]` values later
// (two of them in turns where `sizes[2]` is not 0: at its beginning and at its end), and
// sum |x - mean|^2 of each. `samples` counts pieces. `outputs`: three numbers per piece.
extern "C" __global__ void __launch_bounds__(THREADS) pieces(const __grid_constant__ Launch a) {
    const int length = a.sizes[0], stride = a.sizes[1];
    const long long threads = (long long)gridDim.x * THREADS;
    for (long long k = (long long)blockIdx.x * THREADS + threadIdx.x; k < a.samples; k += threads) {
        const long long chain = a.sizes[2] ? k / 2 : k;
        const long long from = chain * stride + (a.sizes[2] && k % 2 ? stride - length : 0);
        double re = 0, im = 0, scatter = 0;
        #pragma unroll 4
        for (int t = 0; t < length; ++t) {
            re += a.inputs[2 * (from + t)];
            im += a.inputs[2 * (from + t) + 1];
        }
        re /= length;
        im /= length;
        #pragma unroll 4
        for (int t = 0; t < length; ++t) {
            const double x = a.inputs[2 * (from + t)] - re, y = a.inputs[2 * (from + t) + 1] - im;
            scatter += x * x + y * y;
        }
        a.outputs[3 * k] = re;
        a.outputs[3 * k + 1] = im;
        a.outputs[3 * k + 2] = scatter;
    }
}

// Of what `pieces` found: the sum of the scatters, and sum |mean - m|^2, where m is that
// of `constants64`, or of the means themselves if there is none (sizes[0] is 0).
extern "C" __global__ void __launch_bounds__(THREADS) among_pieces(const __grid_constant__ Launch a) {
    const int thread = threadIdx.x;
    const auto part = view<double>(shared_memory(), 0, THREADS);
    double re = 0, im = 0, within = 0;
    for (int k = thread; k < a.samples; k += THREADS) {
        re += a.inputs[3ll * k];
        im += a.inputs[3ll * k + 1];
        within += a.inputs[3ll * k + 2];
    }
    re = block_sum(re, part) / a.samples;
    im = block_sum(im, part) / a.samples;
    within = block_sum(within, part);
    if (a.sizes[0]) {
        re = a.constants64[0];
        im = a.constants64[1];
    }
    tell(re, im, part);
    double between = 0;
    for (int k = thread; k < a.samples; k += THREADS) {
        const double x = a.inputs[3ll * k] - re, y = a.inputs[3ll * k + 1] - im;
        between += x * x + y * y;
    }
    between = block_sum(between, part);
    if (thread == 0) {
        a.outputs[0] = within;
        a.outputs[1] = between;
    }
}

// Autocovariance of chains of sizes[0] values about `constants64`, a block per lag:
// `samples` lags, divided by the number of pairs each has. Sizes: ..., chains.
extern "C" __global__ void __launch_bounds__(THREADS) autocovariance(const __grid_constant__ Launch a) {
    const int length = a.sizes[0], chains = a.sizes[1];
    const auto part = view<double>(shared_memory(), 0, THREADS);
    const double re = a.constants64[0], im = a.constants64[1];
    for (int lag = blockIdx.x; lag < a.samples; lag += gridDim.x) {
        const long long each = length - lag, total = each * chains;
        double sum = 0;
        for (long long k = threadIdx.x; k < total; k += THREADS) {
            const long long at = k / each * length + k % each, other = at + lag;
            const double x = a.inputs[2 * at] - re, y = a.inputs[2 * at + 1] - im;
            sum += x * (a.inputs[2 * other] - re) + y * (a.inputs[2 * other + 1] - im);
        }
        sum = block_sum(sum, part);
        if (threadIdx.x == 0) a.outputs[lag] = sum / total;
    }
}

// `root (x - mean)`: real parts, then, for sizes[0] of 2, imaginary ones. `constants64`:
// the mean, the root.
extern "C" __global__ void __launch_bounds__(THREADS) centred(const __grid_constant__ Launch a) {
    const long long total = (long long)a.sizes[0] * a.samples, threads = (long long)gridDim.x * THREADS;
    for (long long k = (long long)blockIdx.x * THREADS + threadIdx.x; k < total; k += threads) {
        const int part = (int)(k / a.samples);
        const long long of = k % a.samples;
        a.outputs[k] = a.constants64[2] * (a.inputs[2 * of + part] - a.constants64[part]);
    }
}

} // namespace sums
} // namespace dnet
