// ---- segments

// A segment, in slot `from`, that grows until it reaches a bond, along the way (1) or
// against it (-1), with slots `spare` and the next to spare; the last step goes to slot
// `last` unless that is below zero. The step: n sites, numbered away from the segment,
// into slot `to`; the mixer under way.
struct Growth {
    int way, at, until, from, spare, last;
    int side, n, to, m;
    Global<const real> blocks, old;
    Global<real> grown;
};

// A mixer as a segment sees it that grows: its own columns, what moves along with the
// growth and against it, and lines of its tables.
struct Passed {
    Numbers mixer, ports, along, against;
    int channels, parts, width, columns, p, q, stretch, line;
};

__device__ inline Passed passed(const Sweep& s, const Growth& g, int m) {
    const auto mixer = s.mixer(m), ports = s.side(mixer, g.side);
    const auto along = s.direction(mixer, g.side == 0, 0);
    const auto against = s.direction(mixer, g.side == 0, 1);
    const int reach = mixer[plan::REACH];
    return {mixer,
            ports,
            along,
            against,
            mixer[plan::CHANNELS],
            mixer[plan::PARTS],
            mixer[plan::WIDTH],
            ports[plan::COLUMNS],
            along[plan::P],
            against[plan::P],
            reach + 1,
            2 * reach + 1};
}

__device__ __noinline__ void clear_segment(const Sweep& s, int slot, int side) {
    const auto segment = s.segment(slot);
    #pragma unroll 1
    for (int k = s.thread; k < s[plan::SEGMENT]; k += s.threads) segment[k] = real(0);
    #pragma unroll 1
    for (int k = s.thread; k < s[plan::FEATURES]; k += s.threads) s.total(slot)[k] = 0;
    __syncthreads();
    #pragma unroll 1
    for (int m = 0; s.ring && m < s[plan::MIXERS]; ++m) {
        const auto mixer = s.mixer(m), own = s.side(mixer, side);
        #pragma unroll 1
        for (int which = 0; which < 4; ++which) {
            const int p = s.direction(mixer, side == 0, which / 2)[plan::P];
            #pragma unroll 1
            for (int k = s.thread; k < mixer[plan::CHANNELS] * p; k += s.threads)
                segment[own[plan::THROUGH + which] + k * p + k % p] = real(1);
        }
    }
    __syncthreads();
}

__device__ __noinline__ void copy_segment(const Sweep& s, int from, int to) {
    copy(s, s.segment(from), s.segment(to), s[plan::SEGMENT]);
    #pragma unroll 1
    for (int k = s.thread; k < s[plan::FEATURES]; k += s.threads) s.total(to)[k] = s.total(from)[k];
    __syncthreads();
}

// v_m: sources, and vertices acting on earlier mixers, whose own ports are the tables
// themselves.
__device__ __noinline__ void receive(const Sweep& s, const Growth& g, int m) {
    const auto mixer = s.mixer(m);
    const int width = mixer[plan::WIDTH], padded = mixer[plan::PADDED], size = s[plan::BLOCK];
    const int columns = s.side(mixer, g.side)[plan::COLUMNS], vertices = mixer[plan::VERTICES];
    const auto v = s.array(mixer[plan::V]);
    const int source = s.start(mixer[plan::SOURCE]);
    #pragma unroll 1
    for (int k = s.thread; k < g.n * width * columns; k += s.threads) {
        const int row = k / columns;
        v[k] = k % columns ? real(0) : g.blocks[row / width * size + source + row % width];
    }
    __syncthreads();
    #pragma unroll 1
    for (int e = 0; e < vertices; ++e) {
        const auto vertex = s.plan + (mixer[plan::FIRST_VERTEX] + 2 * e);
        const auto from = s.mixer(vertex[0]), ports = s.side(from, g.side);
        const int parts = from[plan::PARTS], channels = from[plan::CHANNELS];
        const auto matrix = g.blocks + s.start(vertex[1]);
        #pragma unroll 1
        for (int far = 0; far < (s.ring ? 2 : 1); ++far) {
            const auto way = s.direction(from, g.side == 0, far ? 0 : 1);
            const int p = way[plan::P];
            Product a = product(g.n, channels, width, p, parts, 1);
            set_left(a, matrix, size, padded, 1, channels * padded, 0);
            if (far)
                set_right(a, s.array(from[plan::READ]), parts * p, g.n * parts * p, 1, p, 0);
            else
                set_right(a, s.tables + (way[plan::READING] + (g.n - 1) * parts * p), -parts * p,
                          (from[plan::REACH] + 1) * parts * p, 1, p, 0);
            assign(s, a, v + ports[far ? plan::FAR : plan::NEAR], width * columns, p, columns, 1);
        }
    }
    if (vertices) __syncthreads();
    #pragma unroll 1
    for (int e = 0; e < vertices; ++e) {
        const auto vertex = s.plan + (mixer[plan::FIRST_VERTEX] + 2 * e);
        const auto from = s.mixer(vertex[0]);
        const int wide = s.side(from, g.side)[plan::COLUMNS], inner = from[plan::WIDTH];
        Product a = product(g.n, 1, width, wide, inner, 1);
        set_left(a, g.blocks + s.start(vertex[1]), size, 0, 1, padded, 0);
        set_right(a, s.array(from[plan::Y]), inner * wide, 0, 1, wide, 0);
        add(s, a, v, width * columns, 0, columns, 1);
        __syncthreads();
    }
}

// Rows of mixer m as functions of what enters at the new growing end.
__device__ __noinline__ void substitute(const Sweep& s, const Growth& g, int m, int count,
                                        int from, Global<real> out) {
    const int columns = s.side(s.mixer(m), g.side)[plan::COLUMNS];
    const auto old = g.old + from;
    copy(s, old, out, count * columns);
    __syncthreads();
    #pragma unroll 1
    for (int k = 0; k < m; ++k) {
        const auto mixer = s.mixer(k), against = s.direction(mixer, g.side == 0, 1);
        const int p = against[plan::P], channels = mixer[plan::CHANNELS];
        const int near = s.side(mixer, g.side)[plan::NEAR];
        Product a = product(1, channels, count, p, p, 1);
        set_left(a, old + near, 0, p, columns, 1, 0);
        set_right(a, s.tables + (against[plan::POWERS] + g.n * channels * p * p), 0, p * p, 1, p,
                  0);
        assign(s, a, out + near, 0, p, columns, 1);
    }
    #pragma unroll 1
    for (int k = 0; k < m; ++k) {
        const auto mixer = s.mixer(k), ports = s.side(mixer, g.side);
        const int wide = ports[plan::COLUMNS];
        Product a = product(1, 1, count, wide, s.direction(mixer, g.side == 0, 1)[plan::ALL], 1);
        set_left(a, old + ports[plan::NEAR], 0, 0, columns, 1, 0);
        set_right(a, s.array(mixer[plan::EMITTED]), 0, 0, 1, wide, 0);
        __syncthreads();
        add(s, a, out, 0, 0, columns, 1);
    }
    __syncthreads();
}

// O_m <- L^n O_m + sum_j L^(n-1-j) B v[j].
__device__ __noinline__ void advance(const Sweep& s, const Growth& g, int m) {
    const auto [mixer, ports, along, against, channels, parts, width, columns, p, q, stretch,
                line] = passed(s, g, m);
    const auto out = g.grown + ports[plan::OUT];
    Product a = product(1, channels, p, columns, p, 1);
    set_left(a, s.tables + (along[plan::POWERS] + g.n * channels * p * p), 0, p * p, p, 1, 0);
    set_right(a, s.array(mixer[plan::SEEN]), 0, p * columns, 1, columns, 0);
    assign(s, a, out, 0, p * columns, columns, 1);
    a.inner = parts * g.n;
    set_left(a, s.tables + (along[plan::INJECT_BACK] + (stretch - g.n) * parts * p), 0,
             stretch * parts * p, 1, p, 0);
    set_right(a, s.array(mixer[plan::V]), 0, columns, 1, channels * columns, 0);
    add(s, a, out, 0, p * columns, columns, 1);
}

// Ring: what the new sites send to the far end through the old ones; L^len.
__device__ __noinline__ void go_around(const Sweep& s, const Growth& g, int m) {
    const auto [mixer, ports, along, against, channels, parts, width, columns, q, p, stretch,
                line] = passed(s, g, m);
    const int inputs = parts * g.n;
    const auto moved = s.array(s[plan::MOVED]), far = g.grown + ports[plan::FAR_OUT];
    substitute(s, g, m, against[plan::ALL], ports[plan::FAR_OUT], far);
    Product a = product(1, channels, inputs, p, p, 1);
    set_left(a, s.tables + against[plan::INJECT], 0, stretch * parts * p, p, 1, 0);
    set_right(a, g.old + ports[plan::THROUGH + 3], 0, p * p, 1, p, 0);
    assign(s, a, moved, 0, inputs * p, p, 1);
    #pragma unroll 1
    for (int which = 0; which < 2; ++which) {
        const auto way = which ? against : along;
        const int r = way[plan::P], block = channels * r * r, at = plan::THROUGH + 2 * which;
        Product power = product(1, channels, r, r, r, 1);
        set_left(power, s.tables + (way[plan::POWERS] + g.n * block), 0, r * r, r, 1, 0);
        set_right(power, g.old + ports[at], 0, r * r, 1, r, 0);
        assign(s, power, g.grown + ports[at], 0, r * r, r, 1);
        set_left(power, g.old + ports[at + 1], 0, r * r, r, 1, 0);
        set_right(power, s.tables + (way[plan::TRANSPOSED] + g.n * block), 0, r * r, 1, r, 0);
        assign(s, power, g.grown + ports[at + 1], 0, r * r, r, 1);
    }
    __syncthreads();
    a = product(1, channels, p, columns, inputs, 1);
    set_left(a, moved, 0, inputs * p, 1, p, 0);
    set_right(a, s.array(mixer[plan::V]), 0, columns, 1, channels * columns, 0);
    add(s, a, far, 0, p * columns, columns, 1);
}

// y_m on the new sites, without the columns of the mixer's own ports, and what the
// sites send backwards: sum_j L^j B v[j]. On a ring also how they read what came
// through the segment.
__device__ __noinline__ void respond(const Sweep& s, const Growth& g, int m) {
    const auto [mixer, ports, along, against, channels, parts, width, columns, p, q, stretch,
                line] = passed(s, g, m);
    const int n = g.n;
    const auto v = s.array(mixer[plan::V]), y = s.array(mixer[plan::Y]);
    Product a = product(parts, channels, n, columns, p, 1);
    set_left(a, s.tables + along[plan::READING], p, stretch * parts * p, parts * p, 1, 0);
    set_right(a, s.array(mixer[plan::SEEN]), 0, p * columns, 1, columns, 0);
    assign(s, a, y, channels * columns, columns, width * columns, 1);
    const int forward = g.side == 0 ? 1 : -1;
    a.inner = n;
    a.parts = parts;
    set_left(a, s.tables + (mixer[plan::TOEPLITZ] + mixer[plan::REACH]), parts * line,
             parts * parts * line, forward, -forward, line);
    set_right(a, v, 0, columns, 1, width * columns, channels * columns);
    add(s, a, y, channels * columns, columns, width * columns, 1);
    a = product(1, channels, q, columns, n * parts, 1);
    set_left(a, s.tables + against[plan::INJECT], 0, stretch * parts * q, 1, q, 0);
    set_right(a, v, 0, columns, 1, channels * columns, 0);
    assign(s, a, s.array(mixer[plan::EMITTED]), 0, q * columns, columns, 1);
    if (s.ring) {
        a = product(1, channels, parts * n, p, p, 1);
        set_left(a, s.tables + along[plan::READING], 0, stretch * parts * p, p, 1, 0);
        set_right(a, g.old + ports[plan::THROUGH], 0, p * p, 1, p, 0);
        assign(s, a, s.array(mixer[plan::READ]), 0, n * parts * p, p, 1);
    }
}

// Features of mixer m: what its rows and its own ports add, pulled back through the
// step. `Omega += g O_m + sum_j h[j] v_m[j]` with small g and h.
__device__ __noinline__ void pool_mixer(const Sweep& s, const Growth& g, int m) {
    const auto [mixer, ports, along, against, channels, parts, width, wide, p, q, stretch, line] =
        passed(s, g, m);
    const int n = g.n, h = s[plan::FEATURES];
    const int all = s[plan::ALL_COLUMNS + g.side], near = ports[plan::NEAR];
    const int step = s[plan::COLUMN], size = s[plan::BLOCK];
    const auto old = g.old + s[plan::OF_FEATURES + g.side];
    const auto out = g.grown + s[plan::OF_FEATURES + g.side];
    const auto inputs = s.array(s[plan::INPUTS]), states = s.array(s[plan::STATES]);
    const bool read = mixer[plan::READOUT] >= 0;
    const auto readout = g.blocks + (read ? s.start(mixer[plan::READOUT]) : 0);
    // onto inputs: through states sent backwards, and directly
    Product a = product(parts, channels, n, h, q, 1);
    set_left(a, s.tables + against[plan::INJECT], q, stretch * parts * q, parts * q, 1, 0);
    set_right(a, old + near, 0, q, all, 1, 0);
    assign(s, a, inputs, channels * h, h, width * h, 1);
    if (read) {
        const int forward = g.side == 0 ? -1 : 1;
        a.inner = n;
        a.parts = parts;
        set_left(a, s.tables + (mixer[plan::TOEPLITZ] + mixer[plan::REACH]), line,
                 parts * parts * line, forward, -forward, parts * line);
        set_right(a, readout, 0, step, 1, size, channels * step);
        add(s, a, inputs, channels * h, h, width * h, 1);
    }
    // onto states
    a = product(1, channels, p, h, read ? n : 0, parts);
    set_left(a, s.tables + along[plan::READING], 0, stretch * parts * p, 1, parts * p, p);
    set_right(a, readout, 0, step, 1, size, channels * step);
    assign(s, a, states, 0, p * h, h, 1);
    // the mixer's own port, moved by n sites and read there
    a = product(1, channels, h, q, q, 1);
    set_left(a, old + near, 0, q, all, 1, 0);
    set_right(a, s.tables + (against[plan::POWERS] + n * channels * q * q), 0, q * q, 1, q, 0);
    assign(s, a, out + near, 0, q, all, 1);
    if (read) {
        a.inner = n;
        a.parts = parts;
        set_left(a, readout, 0, step, 1, size, channels * step);
        set_right(a, s.tables + (against[plan::READING] + (n - 1) * parts * q), 0,
                  stretch * parts * q, 1, -parts * q, q);
        add(s, a, out + near, 0, q, all, 1);
    }
    __syncthreads();
    if (s.ring) {
        a = product(1, channels, h, p, p, 1);
        set_left(a, states, 0, p * h, 1, h, 0);
        set_right(a, g.old + ports[plan::THROUGH], 0, p * p, 1, p, 0);
        add(s, a, out + ports[plan::FAR], 0, p, all, 1);
    }
    a = product(1, 1, h, wide, n * width, 1);
    set_left(a, inputs, 0, 0, 1, h, 0);
    set_right(a, s.array(mixer[plan::V]), 0, 0, 1, wide, 0);
    add(s, a, out, 0, 0, all, 1);
    a.inner = along[plan::ALL];
    set_left(a, states, 0, 0, 1, h, 0);
    set_right(a, s.array(mixer[plan::SEEN]), 0, 0, 1, wide, 0);
    add(s, a, out, 0, 0, all, 1);
    __syncthreads();
}

// The segment with n sites more; their coefficients are those in `GROWN`.
__device__ __noinline__ void extend(const Sweep& s, Growth& g) {
    g.blocks = s.array(s[plan::GROWN]);
    g.old = s.segment(g.from);
    g.grown = s.segment(g.to);
    #pragma unroll 1
    for (g.m = 0; g.m < s[plan::MIXERS]; ++g.m) {
        const auto mixer = s.mixer(g.m);
        receive(s, g, g.m);
        substitute(s, g, g.m, s.direction(mixer, g.side == 0, 0)[plan::ALL],
                   s.side(mixer, g.side)[plan::OUT], s.array(mixer[plan::SEEN]));
        advance(s, g, g.m);
        if (s.ring) go_around(s, g, g.m);
        if (g.m + 1 < s[plan::MIXERS]) respond(s, g, g.m);
        __syncthreads();
    }
    copy(s, g.old + s[plan::OF_FEATURES + g.side], g.grown + s[plan::OF_FEATURES + g.side],
         s[plan::FEATURES] * s[plan::ALL_COLUMNS + g.side]);
    __syncthreads();
    #pragma unroll 1
    for (g.m = 0; g.m < s[plan::MIXERS]; ++g.m) pool_mixer(s, g, g.m);
    // constants add up in f64
    const int h = s[plan::FEATURES], all = s[plan::ALL_COLUMNS + g.side];
    const int at = s[plan::OF_FEATURES + g.side];
    const int q = s.start(s[plan::CONSTANT]), size = s[plan::BLOCK];
    #pragma unroll 1
    for (int r = s.thread; r < h; r += s.threads) {
        double sum = s.total(g.from)[r];
        #pragma unroll 1
        for (int j = 0; j < g.n; ++j) sum += double(g.blocks[j * size + q + r]);
        s.total(g.to)[r] = sum + double(g.grown[at + r * all]);
        g.grown[at + r * all] = real(0);
    }
    __syncthreads();
}

