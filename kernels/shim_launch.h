// Follows the kernels: runs one of them behind kernels/shim.h.

namespace shim {

struct Array {
    void* first;
    long length;
};

struct Arguments {
    long samples;
    int sizes[4];
    Array spins, inputs, constants, constants64, workspace, outputs, site_outputs;
};

static thread_local const Arguments* arguments;
static thread_local void (*kernel)(dnet::Launch);

template <class T> static dnet::Global<T> global(const Array& a) {
    return {(T*)a.first, a.length, 0};
}

static void run_kernel() {
    const Arguments& a = *arguments;
    dnet::Launch launch = {
        (int)a.samples,
        {a.sizes[0], a.sizes[1], a.sizes[2], a.sizes[3]},
        global<const signed char>(a.spins),
        global<const double>(a.inputs),
        global<const real>(a.constants),
        global<const double>(a.constants64),
        global<double>(a.workspace),
        global<double>(a.outputs),
        global<real>(a.site_outputs),
    };
    kernel(launch);
}

template <class T> static dnet_races_array named(const char* name, const Array& a) {
    return {name, a.first, (unsigned long)a.length * sizeof(T)};
}

// Tells a race detector what the launch has.
static void announce(const Block& b, const Arguments& a) {
    const dnet_races_ground ground = {
        b.stacks,
        (const char*)b.shared,
        (unsigned long)b.threads,
        STACK,
        8ul * b.shared_length,
        {named<char>("spins", a.spins), named<double>("inputs", a.inputs),
         named<real>("constants", a.constants), named<double>("constants64", a.constants64),
         named<double>("workspace", a.workspace), named<double>("outputs", a.outputs),
         named<real>("site_outputs", a.site_outputs)},
        fail_with,
    };
    if (dnet_races_launch) dnet_races_launch(&ground);
}

} // namespace shim

// Runs a kernel on `blocks` blocks of `threads` threads; the error, or null.
// `shared` is the number of doubles of shared memory; each block finds NaN there.
extern "C" const char* dnet_launch(void (*kernel)(dnet::Launch), const shim::Arguments* a,
                                   int blocks, int threads, long shared, int order) {
    static thread_local char error[sizeof(shim::Block::error)];
    shim::Block* b = (shim::Block*)malloc(sizeof(shim::Block));
    shim::Order o;
    o.state = 1 + order;
    b->threads = threads;
    b->body = shim::run_kernel;
    b->error[0] = 0;
    b->shared = (double*)malloc(8 * (shared + 1));
    b->shared_length = shared;
    b->stacks = (char*)malloc(threads * shim::STACK);
    shim::block = b;
    shim::arguments = a;
    shim::kernel = kernel;
    gridDim.x = blocks;
    shim::announce(*b, *a);
    for (int k = 0; k < blocks && !b->error[0]; ++k) {
        blockIdx.x = k;
        for (long n = 0; n < shared; ++n) b->shared[n] = __longlong_as_double(-1);
        shim::run_block(*b, o, order);
    }
    if (dnet_races_end) dnet_races_end();
    memcpy(error, b->error, sizeof error);
    free(b->stacks);
    free(b->shared);
    free(b);
    return error[0] ? error : nullptr;
}
