// Device library of dnet: what emitted kernels are made of.
//
// The text before this line defines `real`, the working precision. Nothing is
// included, so that the runtime compiler needs no headers. Where it is compiled
// for a host (kernels/shim.h), pointers know their bounds.

namespace dnet {

#ifndef DNET_SHIM

template <class T> using Global = T*;

// Shared memory of the block, as much as the launch asked for.
__device__ inline double* shared_memory() {
    extern __shared__ double dnet_shared_memory[];
    return dnet_shared_memory;
}

// `length` elements of type T from number `offset` on.
template <class T, class S>
__device__ inline T* view(S* memory, int offset, long long) {
    return reinterpret_cast<T*>(memory + offset);
}

#endif

// Arguments of every kernel. Samples are dealt to blocks.
struct Launch {
    int samples;
    int sizes[4];                       // of what kernels written by hand work on
    Global<const signed char> spins;    // samples x spins
    Global<const double> inputs;        // samples x numbers written by the host
    Global<const real> constants;       // what depends on parameters alone
    Global<const double> constants64;   // the same in f64
    Global<double> workspace;           // blocks x numbers
    Global<double> outputs;             // samples x results
    Global<real> site_outputs;          // samples x rows x sites
};

// The block's part of the workspace.
__device__ inline Global<double> own_workspace(const Launch& a, int size) {
    return a.workspace + (long long)blockIdx.x * size;
}

// ---- functions of one and two numbers

__device__ inline double not_a_number() { return __longlong_as_double(0x7ff8000000000000LL); }
__device__ inline double infinity() { return __longlong_as_double(0x7ff0000000000000LL); }

__device__ inline float exp(float x) { return ::expf(x); }
__device__ inline double exp(double x) { return ::exp(x); }
__device__ inline float log(float x) { return ::logf(x); }
__device__ inline double log(double x) { return ::log(x); }
__device__ inline float log1p(float x) { return ::log1pf(x); }
__device__ inline double log1p(double x) { return ::log1p(x); }
__device__ inline float sqrt(float x) { return ::sqrtf(x); }
__device__ inline double sqrt(double x) { return ::sqrt(x); }
__device__ inline float sin(float x) { return ::sinf(x); }
__device__ inline double sin(double x) { return ::sin(x); }
__device__ inline float cos(float x) { return ::cosf(x); }
__device__ inline double cos(double x) { return ::cos(x); }
__device__ inline float tanh(float x) { return ::tanhf(x); }
__device__ inline double tanh(double x) { return ::tanh(x); }
__device__ inline float erf(float x) { return ::erff(x); }
__device__ inline double erf(double x) { return ::erf(x); }
__device__ inline float floor(float x) { return ::floorf(x); }
__device__ inline double floor(double x) { return ::floor(x); }
__device__ inline float magnitude(float x) { return ::fabsf(x); }
__device__ inline double magnitude(double x) { return ::fabs(x); }
__device__ inline float pow(float a, float b) { return ::powf(a, b); }
__device__ inline double pow(double a, double b) { return ::pow(a, b); }
__device__ inline float atan2(float a, float b) { return ::atan2f(a, b); }
__device__ inline double atan2(double a, double b) { return ::atan2(a, b); }
__device__ inline float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
__device__ inline double fma(double a, double b, double c) { return ::fma(a, b, c); }

template <class T> __device__ inline T reciprocal(T x) { return T(1) / x; }
template <class T> __device__ inline T sigmoid(T x) { return T(1) / (T(1) + exp(-x)); }
template <class T> __device__ inline T sign(T x) { return T((x > T(0)) - (x < T(0))); }
template <class T> __device__ inline T larger(T a, T b) { return a > b ? a : b; }
template <class T> __device__ inline T smaller(T a, T b) { return b > a ? a : b; }
template <class T> __device__ inline T greater(T a, T b) { return a > b ? T(1) : T(0); }
template <class T> __device__ inline T modulo(T a, T b) { return a - b * floor(a / b); }

// log cosh x, without overflow
template <class T> __device__ inline T log_cosh(T x) {
    const T a = magnitude(x);
    return a + log1p(exp(T(-2) * a)) - T(0.69314718055994530942);
}

// the whole number nearest to x, kept below a bound
template <class T> __device__ inline int nearest(T x, int bound) {
    const int k = (int)(x + T(0.5));
    return k < 0 ? 0 : k < bound ? k : bound - 1;
}

// whether (x, y) is on a rectangle
__device__ inline bool inside(int x, int nx, int y, int ny) {
    return 0 <= x && x < nx && 0 <= y && y < ny;
}

// ---- complex numbers

struct complex {
    real re, im;
};

__device__ inline complex make_complex(real re, real im) {
    complex z;
    z.re = re;
    z.im = im;
    return z;
}
__device__ inline real real_part(complex z) { return z.re; }
__device__ inline real imaginary_part(complex z) { return z.im; }
__device__ inline complex operator+(complex a, complex b) {
    return make_complex(a.re + b.re, a.im + b.im);
}
__device__ inline complex operator-(complex a, complex b) {
    return make_complex(a.re - b.re, a.im - b.im);
}
__device__ inline complex operator*(complex a, complex b) {
    return make_complex(fma(a.re, b.re, -a.im * b.im), fma(a.re, b.im, a.im * b.re));
}
__device__ inline complex operator*(real a, complex b) { return make_complex(a * b.re, a * b.im); }
__device__ inline complex conjugate(complex z) { return make_complex(z.re, -z.im); }
__device__ inline complex times_i(complex z) { return make_complex(-z.im, z.re); }

// scale a conj(b)
__device__ inline complex conjugate_product(complex a, complex b, real scale) {
    return scale * (a * conjugate(b));
}

// ---- sums

// The sum over the lanes of a warp, in every lane.
__device__ inline double warp_sum(double x) {
    for (int distance = 16; distance > 0; distance /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

// Halves the number of sums each lane holds: lanes with the bit `distance` go on
// with the upper half, the others with the lower.
template <int N> __device__ inline void fold_sums(double* v, int lane, int distance) {
    if constexpr (N > 1) {
        const bool upper = (lane & distance) != 0;
        #pragma unroll
        for (int k = 0; k < N / 2; ++k) {
            const double mine = upper ? v[k + N / 2] : v[k], other = upper ? v[k] : v[k + N / 2];
            v[k] = mine + __shfl_xor_sync(0xffffffffu, other, distance);
        }
        fold_sums<N / 2>(v, lane, distance / 2);
    }
}

// N numbers in registers.
template <int N> struct Sums {
    double v[N];
    __device__ inline double& operator[](int k) { return v[k]; }
};

// N sums over the lanes of a warp at once, N a power of two: lane l gets the sum of
// v[l / (32 / N)]. Long code that kernels need many times: a function of its own.
template <int N> __device__ __noinline__ double warp_sums(Sums<N> sums, int lane) {
    fold_sums<N>(sums.v, lane, 16);
    double x = sums[0];
    #pragma unroll
    for (int distance = 16 / N; distance > 0; distance /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

// ---- Fourier transforms

// -q on a grid of N0 x N1 momenta
template <int N0, int N1> __device__ inline int mirrored(int q) {
    return (N0 - q / N1) % N0 * N1 + (N1 - q % N1) % N1;
}

// The spectrum of real data number k among spectra of pairs x_2j + i x_2j+1:
// (Z(q) + conj Z(-q)) / 2 and (Z(q) - conj Z(-q)) / 2i.
__device__ inline complex split(Global<complex> spectra, int total, int k, int q, int minus_q) {
    const complex z = spectra[k / 2 * total + q];
    const complex m = conjugate(spectra[k / 2 * total + minus_q]);
    const real half = real(0.5);
    const complex d = z - m;
    return k % 2 == 0 ? half * (z + m) : make_complex(half * d.im, -half * d.re);
}

template <int R> struct Butterfly;

// y_r = sum_s v_s w^(s r), w = exp(SIGN 2 pi i / R)
template <> struct Butterfly<2> {
    template <int SIGN> __device__ static inline void run(complex* v) {
        const complex a = v[0] + v[1], b = v[0] - v[1];
        v[0] = a;
        v[1] = b;
    }
};

template <> struct Butterfly<3> {
    template <int SIGN> __device__ static inline void run(complex* v) {
        const real c = real(-0.5), s = real(SIGN * 0.86602540378443864676);
        const complex sum = v[1] + v[2], difference = v[1] - v[2];
        const complex a = v[0] + c * sum, b = s * times_i(difference);
        v[0] = v[0] + sum;
        v[1] = a + b;
        v[2] = a - b;
    }
};

template <> struct Butterfly<4> {
    template <int SIGN> __device__ static inline void run(complex* v) {
        const complex a = v[0] + v[2], b = v[0] - v[2], c = v[1] + v[3];
        const complex d = real(SIGN) * times_i(v[1] - v[3]);
        v[0] = a + c;
        v[1] = b + d;
        v[2] = a - c;
        v[3] = b - d;
    }
};

template <> struct Butterfly<5> {
    template <int SIGN> __device__ static inline void run(complex* v) {
        const real c1 = real(0.30901699437494742410), c2 = real(-0.80901699437494742410);
        const real s1 = real(SIGN * 0.95105651629515357212), s2 = real(SIGN * 0.58778525229247312917);
        const complex p = v[1] + v[4], q = v[2] + v[3], m = v[1] - v[4], n = v[2] - v[3];
        const complex a = v[0] + c1 * p + c2 * q, b = v[0] + c2 * p + c1 * q;
        const complex x = times_i(s1 * m + s2 * n), y = times_i(s2 * m - s1 * n);
        v[0] = v[0] + p + q;
        v[1] = a + x;
        v[2] = b + y;
        v[3] = b - y;
        v[4] = a - x;
    }
};

// One stage of Stockham's transform of length N with radix R, after stages whose
// radices have the product DONE, on `count` grids of LINES lines each: element k
// of line l is at l LINE_STRIDE + k STRIDE. `roots[k]` is exp(-2 pi i k / N).
// SIGN is -1 forward, 1 back (not normalised).
template <int R, int N, int DONE, int LINES, int STRIDE, int LINE_STRIDE, int SIGN>
__device__ inline void fourier_stage(int thread, int threads, int count, Global<complex> from,
                                     Global<complex> to, int start, Global<const complex> roots) {
    constexpr int M = N / R;                // butterflies per line
    constexpr int STEP = M / DONE;          // exponent of the twiddle factors
    if constexpr (R <= 5) {
        #pragma unroll 1
        for (int k = thread; k < count * (LINES * M); k += threads) {
            const int grid = k / (LINES * M), line = STRIDE == 1 ? k / M % LINES : k % LINES;
            const int j = STRIDE == 1 ? k % M : k / LINES % M;
            const int base = grid * (LINES * N) + line * LINE_STRIDE;
            complex v[R];
            v[0] = from[base + j * STRIDE];
            #pragma unroll
            for (int r = 1; r < R; ++r) {
                const complex w = roots[r * (j % DONE) * STEP];
                v[r] = from[base + (j + r * M) * STRIDE] * (SIGN < 0 ? w : conjugate(w));
            }
            Butterfly<R>::template run<SIGN>(v);
            const int first = start + base + (j / DONE * (DONE * R) + j % DONE) * STRIDE;
            #pragma unroll
            for (int r = 0; r < R; ++r) to[first + r * DONE * STRIDE] = v[r];
        }
    } else {
        // a large prime: one result after the other
        #pragma unroll 1
        for (int k = thread; k < count * (LINES * N); k += threads) {
            const int grid = k / (LINES * N), line = STRIDE == 1 ? k / N % LINES : k % LINES;
            const int e = STRIDE == 1 ? k % N : k / LINES % N;
            const int r = e / M, j = e % M;
            const int base = grid * (LINES * N) + line * LINE_STRIDE;
            complex sum = make_complex(real(0), real(0));
            for (int s = 0; s < R; ++s) {
                const complex w = roots[(int)((long long)s * ((j % DONE) * STEP + r * M) % N)];
                sum = sum + from[base + (j + s * M) * STRIDE] * (SIGN < 0 ? w : conjugate(w));
            }
            to[start + base + (j / DONE * (DONE * R) + j % DONE + r * DONE) * STRIDE] = sum;
        }
    }
}

// ---- random numbers: Philox4x32-10, the same numbers as on the CPU

struct Philox {
    unsigned int key[2], counter[4], block[4];
    int used;
};

// The numbers of a chain at a step (below 2^48) for one purpose.
__device__ inline Philox random_stream(unsigned long long seed, unsigned int chain,
                                       unsigned long long step, unsigned int purpose) {
    Philox p;
    p.key[0] = (unsigned int)seed;
    p.key[1] = (unsigned int)(seed >> 32);
    p.counter[0] = 0;
    p.counter[1] = chain;
    p.counter[2] = (unsigned int)step;
    p.counter[3] = (unsigned int)(step >> 32) << 16 | purpose;
    p.used = 4;
    return p;
}

// Uniform 32 bits.
__device__ inline unsigned int random_bits(Philox& p) {
    if (p.used == 4) {
        unsigned int c[4], k[2];
        for (int i = 0; i < 4; ++i) c[i] = p.counter[i];
        for (int i = 0; i < 2; ++i) k[i] = p.key[i];
        for (int round = 0; round < 10; ++round) {
            if (round > 0) {
                k[0] += 0x9E3779B9u;
                k[1] += 0xBB67AE85u;
            }
            const unsigned long long a = 0xD2511F53ull * c[0], b = 0xCD9E8D57ull * c[2];
            const unsigned int c1 = c[1], c3 = c[3];
            c[0] = (unsigned int)(b >> 32) ^ c1 ^ k[0];
            c[1] = (unsigned int)b;
            c[2] = (unsigned int)(a >> 32) ^ c3 ^ k[1];
            c[3] = (unsigned int)a;
        }
        for (int i = 0; i < 4; ++i) p.block[i] = c[i];
        p.counter[0] += 1;
        p.used = 0;
    }
    return p.block[p.used++];
}

// Uniform in [0, 1), 53 bits.
__device__ inline double random_uniform(Philox& p) {
    const unsigned long long low = random_bits(p);
    const unsigned long long bits = (unsigned long long)random_bits(p) << 32 | low;
    return (double)(bits >> 11) * (1.0 / 9007199254740992.0);
}

// Uniform integer below a bound, without bias; 0 for a bound of 0.
__device__ inline unsigned int random_below(Philox& p, unsigned int bound) {
    unsigned long long product = (unsigned long long)random_bits(p) * bound;
    if ((unsigned int)product < bound) {
        const unsigned int threshold = (0u - bound) % bound;
        while ((unsigned int)product < threshold)
            product = (unsigned long long)random_bits(p) * bound;
    }
    return (unsigned int)(product >> 32);
}

} // namespace dnet
