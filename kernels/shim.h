// CUDA on a host, for tests: every thread of a block is a fiber.
//
// Emitted text compiled behind this header runs one block after the other, its
// threads in an order the caller chooses. Threads change places at barriers and
// warp shuffles only, so code that lacks a barrier sees values of the wrong phase
// in at least one order. Pointers know their bounds; barriers not all threads of
// a block reach, or reach at different places, are errors. An error ends the
// launch and is returned as text.

#define DNET_SHIM
#define __device__
#define __noinline__
#define __grid_constant__
#define __global__
#define __launch_bounds__(...)

extern "C" {
void* malloc(unsigned long);
void free(void*);
void* memcpy(void*, const void*, unsigned long);
int snprintf(char*, unsigned long, const char*, ...);
double exp(double); float expf(float);
double log(double); float logf(float);
double log1p(double); float log1pf(float);
double sqrt(double); float sqrtf(float);
double sin(double); float sinf(float);
double cos(double); float cosf(float);
double tanh(double); float tanhf(float);
double erf(double); float erff(float);
double floor(double); float floorf(float);
double fabs(double); float fabsf(float);
double pow(double, double); float powf(float, float);
double atan2(double, double); float atan2f(float, float);
double fma(double, double, double); float fmaf(float, float, float);
}

// Of a race detector, where there is one.
extern "C" {
#define DNET_MAY_BE_ABSENT __attribute__((weak))
void dnet_races_launch(const dnet_races_ground*) DNET_MAY_BE_ABSENT;
void dnet_races_block() DNET_MAY_BE_ABSENT;
void dnet_races_thread(int) DNET_MAY_BE_ABSENT;
void dnet_races_barrier() DNET_MAY_BE_ABSENT;
void dnet_races_atomic(void*, unsigned long) DNET_MAY_BE_ABSENT;
void dnet_races_end() DNET_MAY_BE_ABSENT;
}

static inline double __longlong_as_double(long long bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

namespace shim {

struct Index {
    int x;
};

enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE };

struct Fiber {
    void* context; // stack pointer while it does not run
    State state;
    int place;         // number of the barrier it waits at
    double value;      // what it offers in a shuffle, then what it gets
    int distance;
};

constexpr int MAX_THREADS = 1024;
constexpr unsigned long STACK = 64 << 10;

struct Block {
    Fiber fibers[MAX_THREADS];
    int threads;
    int running;
    void* scheduler; // its stack pointer while a fiber runs
    void (*body)();
    char* stacks;    // of all fibers
    char error[1024];
    double* shared;
    long shared_length;
};

static thread_local Block* block;

// Saves the registers a call preserves, changes stacks, restores them.
extern "C" void dnet_switch(void** from, void* to);
asm(R"(
.pushsection .text
.local dnet_switch
.type dnet_switch, @function
dnet_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size dnet_switch, . - dnet_switch
.popsection
)");

} // namespace shim

static thread_local shim::Index threadIdx, blockIdx, gridDim;

namespace shim {

static void yield() {
    Block* b = block;
    dnet_switch(&b->fibers[b->running].context, b->scheduler);
}

static void fail(const char* format, long a, long c) {
    if (!block->error[0]) snprintf(block->error, sizeof block->error, format, a, c);
    yield(); // the scheduler does not come back
    __builtin_unreachable();
}

static void fail_with(const char* text) {
    if (!block->error[0]) snprintf(block->error, sizeof block->error, "%s", text);
    yield();
}

static void fiber_main() {
    block->body();
    block->fibers[block->running].state = DONE;
    yield();
}

static void start(Fiber& f, char* stack) {
    // as dnet_switch leaves a stack: six registers, the return address; one more
    // word aligns the stack as after a call
    void** top = (void**)((unsigned long)(stack + STACK) & ~15ul) - 1;
    *top = nullptr;
    *--top = (void*)fiber_main;
    for (int k = 0; k < 6; ++k) *--top = nullptr;
    f.context = top;
    f.state = READY;
}

// Lets the lanes of a warp have each other's values once all offer one.
static bool shuffle(Block& b, int first) {
    for (int k = first; k < first + 32; ++k)
        if (k >= b.threads || b.fibers[k].state != AT_SHUFFLE) return false;
    double values[32];
    for (int k = 0; k < 32; ++k) values[k] = b.fibers[first + k].value;
    for (int k = 0; k < 32; ++k) {
        Fiber& f = b.fibers[first + k];
        f.value = values[k ^ f.distance];
        f.state = READY;
    }
    return true;
}

// The k-th thread in an order: 0 forward, 1 backward, else shuffled anew each round.
struct Order {
    unsigned long long state;
    int permutation[MAX_THREADS];
    void round(int threads, int order) {
        for (int k = 0; k < threads; ++k) permutation[k] = order == 1 ? threads - 1 - k : k;
        for (int k = threads - 1; order > 1 && k > 0; --k) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            const int other = (int)((state >> 33) % (unsigned)(k + 1));
            const int swap = permutation[k];
            permutation[k] = permutation[other];
            permutation[other] = swap;
        }
    }
};

static void run_block(Block& b, Order& o, int order) {
    for (int k = 0; k < b.threads; ++k) start(b.fibers[k], b.stacks + k * STACK);
    if (dnet_races_block) dnet_races_block();
    for (;;) {
        o.round(b.threads, order);
        bool progress = false;
        for (int n = 0; n < b.threads && !b.error[0]; ++n) {
            const int k = o.permutation[n];
            if (b.fibers[k].state != READY) continue;
            progress = true;
            b.running = k;
            threadIdx.x = k;
            if (dnet_races_thread) dnet_races_thread(k);
            dnet_switch(&b.scheduler, b.fibers[k].context);
            if (dnet_races_thread) dnet_races_thread(-1);
        }
        if (b.error[0]) break;
        for (int w = 0; w < b.threads; w += 32) progress |= shuffle(b, w);
        if (progress) continue;
        int done = 0, waiting = 0;
        int place = 0;
        for (int k = 0; k < b.threads; ++k) {
            const Fiber& f = b.fibers[k];
            done += f.state == DONE;
            if (f.state != AT_BARRIER) continue;
            if (waiting && f.place != place && !b.error[0])
                snprintf(b.error, sizeof b.error, "threads wait at different barriers");
            place = f.place;
            ++waiting;
        }
        if (done == b.threads || b.error[0]) break;
        if (waiting < b.threads) {
            snprintf(b.error, sizeof b.error, "%d of %d threads wait at a barrier, %d have ended",
                     waiting, b.threads, done);
            break;
        }
        for (int k = 0; k < b.threads; ++k) b.fibers[k].state = READY;
        if (dnet_races_barrier) dnet_races_barrier();
    }
}

} // namespace shim

static void barrier(int place) {
    shim::Fiber& f = shim::block->fibers[shim::block->running];
    f.state = shim::AT_BARRIER;
    f.place = place;
    shim::yield();
}

// every barrier of the text has its own number
#define __syncthreads() ::barrier(__COUNTER__)

static double __shfl_xor_sync(unsigned, double value, int distance) {
    shim::Fiber& f = shim::block->fibers[shim::block->running];
    f.state = shim::AT_SHUFFLE;
    f.value = value;
    f.distance = distance;
    shim::yield();
    return f.value;
}

// fibers change places at barriers only
template <class T> __attribute__((no_sanitize("thread"))) static T atomicAdd(T* x, T more) {
    if (dnet_races_atomic) dnet_races_atomic(x, sizeof *x);
    const T before = *x;
    *x = before + more;
    return before;
}

namespace dnet {

// A pointer to one of `length` elements.
template <class T> struct Global {
    T* first;
    long length;
    long at;
    T& operator[](long k) const {
        if (at + k < 0 || at + k >= length) shim::fail("element %ld of %ld", at + k, length);
        // a GPU loads and stores whole numbers at multiples of their size
        if ((unsigned long)first % alignof(T))
            shim::fail("an address that is no multiple of %ld, but %ld more", alignof(T),
                       (unsigned long)first % alignof(T));
        return first[at + k];
    }
    Global operator+(long k) const { return {first, length, at + k}; }
    operator Global<const T>() const { return {first, length, at}; }
};

static inline Global<double> shared_memory() {
    return {shim::block->shared, shim::block->shared_length, 0};
}

template <class T> static inline Global<T> at_address(unsigned long long address, unsigned long long bytes) {
    return {(T*)address, (long)(bytes / sizeof(T)), 0};
}

template <class T, class S>
static inline Global<T> view(Global<S> memory, int offset, long long length) {
    const long from = (memory.at + offset) * (long)sizeof(S), bytes = length * (long)sizeof(T);
    if (from < 0 || from + bytes > memory.length * (long)sizeof(S))
        shim::fail("a view of %ld bytes into %ld", bytes, memory.length * (long)sizeof(S));
    return {reinterpret_cast<T*>(const_cast<char*>((const char*)memory.first + from)), length, 0};
}

} // namespace dnet
