// Local changes of many configurations: from pooled features and their changes to
// features of sets. A set is what the features become by one change, or those of an
// unchanged configuration. Its list is 32-bit numbers in place of spins.

namespace dnet {

// In place of a change: none.
constexpr unsigned int UNCHANGED = 0xffffffffu;

// The features of every set. `inputs` are those of the configurations, `constants`
// their changes: results on sites of a flip program. Sizes: features, results on sites
// per configuration, tokens. The list: for every set its configuration, and where the
// change of its first feature is.
extern "C" __global__ void __launch_bounds__(256) flip_features(const __grid_constant__ Launch a) {
    const auto list = view<const unsigned int>(a.spins, 0, 2ll * a.samples);
    const int width = a.sizes[0];
    const long long rows = a.sizes[1], tokens = a.sizes[2], total = (long long)a.samples * width;
    const long long threads = 256;
    for (long long k = blockIdx.x * threads + threadIdx.x; k < total; k += gridDim.x * threads) {
        const int set = (int)(k / width), e = (int)(k % width);
        const long long sample = list[2ll * set];
        const unsigned int first = list[2ll * set + 1];
        double sum = a.inputs[sample * width + e];
        if (first != UNCHANGED) sum += double(a.constants[sample * rows + first + e * tokens]);
        a.outputs[k] = sum;
    }
}

} // namespace dnet
