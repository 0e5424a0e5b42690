// Local changes of many configurations: from pooled features and their changes to
// sums of ratios. A set is what the features become by one change, or those of an
// unchanged configuration. Lists of the host are 32-bit numbers in place of spins.

namespace dnet {

// In place of a change: none.
constexpr unsigned int UNCHANGED = 0xffffffffu;

// The features of every set. `inputs` are those of the configurations, `constants`
// their changes: results on sites of a flip program. The list: features, results
// on sites per configuration, tokens, 0; then for every set its configuration, and
// where the change of its first feature is.
extern "C" __global__ void __launch_bounds__(256) flip_features(const __grid_constant__ Launch a) {
    const auto list = view<const unsigned int>(a.spins, 0, 4 + 2 * a.samples);
    const int width = (int)list[0];
    const long long rows = list[1], tokens = list[2], total = (long long)a.samples * width;
    const long long threads = 256;
    for (long long k = blockIdx.x * threads + threadIdx.x; k < total; k += gridDim.x * threads) {
        const int set = (int)(k / width), e = (int)(k % width);
        const long long sample = list[4 + 2 * set];
        const unsigned int first = list[5 + 2 * set];
        double sum = a.inputs[sample * width + e];
        if (first != UNCHANGED) sum += double(a.constants[sample * rows + first + e * tokens]);
        a.outputs[k] = sum;
    }
}

// For every configuration the sum over its sets of element psi(s') / psi(s), where
// s is its first set. `inputs` are log psi of the sets, `constants64` the elements.
// The list: results per set; then where the sets of every configuration begin, and
// where the last ones end. A warp adds up one configuration, in a fixed order.
extern "C" __global__ void __launch_bounds__(256) flip_sums(const __grid_constant__ Launch a) {
    const auto list = view<const unsigned int>(a.spins, 0, 2 + a.samples);
    const int width = (int)list[0], warps = 8, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int of = blockIdx.x * warps + warp; of < a.samples; of += gridDim.x * warps) {
        const int first = (int)list[1 + of], end = (int)list[2 + of];
        const bool complex_valued = width > 1;
        const double re0 = a.inputs[(long long)first * width];
        const double im0 = complex_valued ? a.inputs[(long long)first * width + 1] : 0;
        double re = 0, im = 0;
        for (int k = first + lane; k < end; k += 32) {
            const long long at = (long long)k * width;
            const double size = exp(a.inputs[at] - re0);
            const double phase = complex_valued ? a.inputs[at + 1] - im0 : 0;
            const double c = complex_valued ? cos(phase) : 1, s = complex_valued ? sin(phase) : 0;
            const double x = a.constants64[2ll * k], y = a.constants64[2ll * k + 1];
            re += size * (x * c - y * s);
            im += size * (x * s + y * c);
        }
        re = warp_sum(re);
        im = warp_sum(im);
        if (lane == 0) {
            a.outputs[2 * of] = re;
            a.outputs[2 * of + 1] = im;
        }
    }
}

} // namespace dnet
