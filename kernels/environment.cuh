// The exact sweep by environments: a block moves one chain, whole sweeps in one
// launch, at a cost per proposal that does not depend on the length of the chain.
//
// To follow chains.cuh, whose orders and counts these extend. The chain is cut into
// the sites around a few proposals and two segments, affine two-ports in the states
// of the mixers. Segments ahead are built once and kept; the one behind follows what
// was accepted; the sites between are solved for every proposal. What is where is
// told by a plan of whole numbers, so that nothing here is compiled anew when states
// are reduced or parameters change.
//
// Everything large is a sum of products dealt to all threads (`multiply`). Columns
// of a segment are (1, near_0, far_0, near_1, ..): what enters at the growing end and,
// on a ring, at the other one.

namespace dnet {

#ifndef DNET_SHIM
template <class T> __device__ inline T* at_address(unsigned long long address, unsigned long long) {
    return reinterpret_cast<T*>(address);
}
#endif

namespace order {
constexpr int PROGRAMS = TABLE; // launches of coefficients, readout, log psi: seven arrays each
constexpr int PLAN = 100;       // where the plan begins
} // namespace order

// The plan: whole numbers about all of the network ...
namespace plan {
enum Head {
    LENGTH,        // of the plan
    MIXERS,
    RING,
    TOKENS,
    TOKEN,         // spins of a token
    STEP,          // tokens passed, and proposed, at once
    BACK,          // tokens before a flipped one that see it, to the right
    AHEAD,         // and after it
    FEATURES,
    COLUMN,        // between columns of what features read
    BLOCK,         // numbers of a token's coefficients
    CONSTANT,      // piece of the features
    PIECES,
    FIRST_PIECE,
    FIRST_MIXER,
    SPACING,       // of the segments kept
    SEGMENT,       // numbers of a segment
    GROUP,         // first segment kept for a group
    TABULATED,
    WINDOW_LOW,    // tokens a token sees
    WINDOW_HIGH,
    PATCH,         // tokens of a run of the coefficients' program; 0: there is none
    TERMS,         // where the terms of directly evaluated coefficients are
    SITES_OF_PATCH,// results on sites of that program
    RESULTS,       // of the readout
    PLACE,         // doubles of shared memory before the plan, and before what is
    WIDE,          // used besides it; log psi of a configuration may use all up to the plan
    OWN,           // doubles of a block's workspace
    SHARED,        // numbers of the shared memory used here
    ALL_COLUMNS,   // of a segment that grows right, left
    ALL_LEFT,
    OF_FEATURES,   // where features begin in a segment, right, left
    OF_LEFT,
    // arrays: in the workspace, or below zero in shared memory
    GROWN,         // coefficients of sites a segment grows by
    SLICE,         // of the slice
    PROPOSED,      // of a proposal, evaluated directly
    POOLED,
    POOLED_CHANGE,
    INTO_BEHIND,
    INTO_AHEAD,
    RECEIVED,
    ENTERING,
    LEAVING,
    SENT,          // what reaches the far ends of the segments, along and against
    LINKED,        // features that sites add far away
    STATES,        // features pulled back onto states, and onto inputs
    INPUTS,
    MOVED,
    SEGMENTS,
    // in doubles of the workspace
    TOTALS,
    CHANGE,
    OMEGA,
    PLACES,        // whole numbers: where the pieces of a proposal are
    RATIOS,        // whether results, after the counts, are to hold every ratio
    HEAD,          // length of this part
};
// ... about each mixer ...
enum Mixer {
    CHANNELS,
    PARTS,
    WIDTH,
    PADDED,
    REACH,
    TOEPLITZ,
    LANES,
    SOURCE,        // piece
    VERTICES,      // how many
    FIRST_VERTEX,  // pairs: mixer, piece
    READOUT,       // piece, or below zero
    SEEN_BACK,     // tokens whose source sees a flipped one, to the right
    SEEN_AHEAD,
    V,             // growth
    Y,
    SEEN,
    EMITTED,
    READ,
    SLICE_V,
    SLICE_Y,
    CHANGE_V,
    CHANGE_Y,
    LINKS,
    CARRIED,       // along, against
    CARRIED_AGAINST,
    RIGHT,         // two directions
    LEFT = RIGHT + 11,
    SIDES = LEFT + 11, // segments that grow right, left
    RECORD = SIDES + 2 * 9,
};
// ... about each of its directions; tables ...
enum Direction {
    P,
    ALL,
    POWERS,
    TRANSPOSED,
    INJECT,
    INJECT_BACK,
    READING,
    READOUT_OF,
    SENDING,
    SENDING_BACK,
    CLOSURE,
};
// ... about its part of a segment: first columns, columns of its rows, where they are,
// and where L^len is: with the growth, transposed, and both against it ...
enum Side { NEAR, FAR, COLUMNS, OUT, FAR_OUT, THROUGH, SIDE = THROUGH + 4 };
// ... and about each piece of a token's coefficients.
enum Piece { START, LENGTH_OF, SPIN, BITS, ROWS, PIECE };
} // namespace plan

typedef Global<const int> Numbers;

// What all threads of a block know.
struct Sweep {
    Numbers plan;
    Global<const real> tables;
    Global<const double> tables64;
    Global<const unsigned int> orders;
    Global<real> shared, own;
    Global<double> numbers;
    Global<int> places;
    Global<const signed char> spins;
    Global<double> ratios;
    int thread, threads, origin;
    bool ring, reverse;

    __device__ int operator[](int k) const { return plan[k]; }
    __device__ Global<real> array(int at) const { return at < 0 ? shared + ~at : own + at; }
    __device__ Numbers mixer(int m) const {
        return plan + (plan[plan::FIRST_MIXER] + m * plan::RECORD);
    }
    __device__ Numbers piece(int k) const {
        return plan + (plan[plan::FIRST_PIECE] + k * plan::PIECE);
    }
    __device__ int start(int k) const { return piece(k)[plan::START]; }
    // a direction as somebody sees it who walks right, or left: along, against
    __device__ Numbers direction(Numbers mixer, bool right, int against) const {
        return mixer + (right == (against == 0) ? plan::RIGHT : plan::LEFT);
    }
    __device__ Numbers side(Numbers mixer, int side) const {
        return mixer + (plan::SIDES + side * plan::SIDE);
    }
    __device__ Global<real> segment(int slot) const {
        return own + (plan[plan::SEGMENTS] + (long long)slot * plan[plan::SEGMENT]);
    }
    __device__ Global<double> total(int slot) const {
        return numbers + (plan[plan::TOTALS] + slot * plan[plan::FEATURES]);
    }
    // sides of the segments behind and ahead
    __device__ int behind() const { return reverse ? 1 : 0; }
    __device__ int ahead() const { return reverse ? 0 : 1; }
    __device__ int token(int x) const {
        const int tokens = plan[plan::TOKENS], at = (origin + x) % tokens;
        return reverse ? tokens - 1 - at : at;
    }
    // tokens before and after a flipped one that see it, along the way
    __device__ int seen_back() const { return plan[reverse ? plan::AHEAD : plan::BACK]; }
    __device__ int seen_ahead() const { return plan[reverse ? plan::BACK : plan::AHEAD]; }
};

// ---- products

// batches x groups products at once: sums over inner x parts.
struct Product {
    int batches, groups, rows, columns, inner, parts;
    Global<const real> left, right;
    int left_batch, left_group, left_row, left_inner, left_part;
    int right_batch, right_group, right_column, right_inner, right_part;
    Global<real> out;
    int out_batch, out_group, out_row, out_column;
    bool more; // adds to what is there
};

__device__ inline Product product(int batches, int groups, int rows, int columns, int inner,
                                  int parts) {
    Product p = {};
    p.batches = batches;
    p.groups = groups;
    p.rows = rows;
    p.columns = columns;
    p.inner = inner;
    p.parts = parts;
    return p;
}

__device__ inline void set_left(Product& p, Global<const real> from, int batch, int group, int row,
                                int inner, int part) {
    p.left = from;
    p.left_batch = batch;
    p.left_group = group;
    p.left_row = row;
    p.left_inner = inner;
    p.left_part = part;
}

__device__ inline void set_right(Product& p, Global<const real> from, int batch, int group,
                                 int column, int inner, int part) {
    p.right = from;
    p.right_batch = batch;
    p.right_group = group;
    p.right_column = column;
    p.right_inner = inner;
    p.right_part = part;
}

// Tiles of 4 x 4 results dealt to threads: equal shapes are dealt alike, so that no
// barrier is needed between products that add to the same results.
__device__ __noinline__ void multiply(const Sweep& s, const Product& p) {
    const int down = (p.rows + 3) / 4, across = (p.columns + 3) / 4;
    const int tiles = p.batches * p.groups * down * across;
    #pragma unroll 1
    for (int k = s.thread; k < tiles; k += s.threads) {
        const int j = k % across, i = k / across % down * 4, rest = k / (across * down);
        const int group = rest % p.groups, batch = rest / p.groups;
        int x[4], y[4];
        #pragma unroll
        for (int r = 0; r < 4; ++r) {
            const int row = smaller(i + r, p.rows - 1);
            const int column = smaller(j + r * across, p.columns - 1);
            x[r] = batch * p.left_batch + group * p.left_group + row * p.left_row;
            y[r] = batch * p.right_batch + group * p.right_group + column * p.right_column;
        }
        real sum[4][4] = {};
        for (int part = 0; part < p.parts; ++part) {
            int from = part * p.left_part, to = part * p.right_part;
            #pragma unroll 2
            for (int n = 0; n < p.inner; ++n, from += p.left_inner, to += p.right_inner) {
                real a[4], b[4];
                #pragma unroll
                for (int r = 0; r < 4; ++r) {
                    a[r] = p.left[x[r] + from];
                    b[r] = p.right[y[r] + to];
                }
                #pragma unroll
                for (int r = 0; r < 4; ++r)
                    #pragma unroll
                    for (int c = 0; c < 4; ++c) sum[r][c] = fma(a[r], b[c], sum[r][c]);
            }
        }
        const auto out = p.out + (batch * p.out_batch + group * p.out_group);
        #pragma unroll
        for (int r = 0; r < 4; ++r)
            #pragma unroll
            for (int c = 0; c < 4; ++c) {
                const int row = i + r, column = j + c * across;
                if (row < p.rows && column < p.columns) {
                    const int at = row * p.out_row + column * p.out_column;
                    out[at] = p.more ? out[at] + sum[r][c] : sum[r][c];
                }
            }
    }
}

__device__ inline void assign(const Sweep& s, Product& p, Global<real> out, int batch, int group,
                              int row, int column) {
    p.out = out;
    p.out_batch = batch;
    p.out_group = group;
    p.out_row = row;
    p.out_column = column;
    p.more = false;
    multiply(s, p);
}

__device__ inline void add(const Sweep& s, Product& p, Global<real> out, int batch, int group,
                           int row, int column) {
    p.out = out;
    p.out_batch = batch;
    p.out_group = group;
    p.out_row = row;
    p.out_column = column;
    p.more = true;
    multiply(s, p);
}

__device__ inline void copy(const Sweep& s, Global<const real> from, Global<real> to, int count) {
    #pragma unroll 1
    for (int k = s.thread; k < count; k += s.threads) to[k] = from[k];
}

// ---- coefficients of single tokens

// Whether all a token sees lies on the chain, and there are tables.
__device__ inline bool is_tabulated(const Sweep& s, int token) {
    const int low = token + s[plan::WINDOW_LOW], high = token + s[plan::WINDOW_HIGH];
    return s[plan::TABULATED] && (s.ring || (low >= 0 && high < s[plan::TOKENS]));
}

// One run of the coefficients' program: tokens from x on as far as it is right; how
// many.
template <class Program>
__device__ __noinline__ int evaluate(const Sweep& s, const Program& p, int x, int count, int along,
                                     Global<real> store) {
    const int length = s[plan::PATCH], tokens = s[plan::TOKENS], spins = s[plan::TOKEN];
    const int before = -s[plan::WINDOW_LOW], after = s[plan::WINDOW_HIGH], here = s.token(x);
    const bool down = (along < 0) != s.reverse;
    int start = down ? here + after + 1 - length : here - before;
    if (!s.ring) start = larger(smaller(start, tokens - length), 0);
    const int low = !s.ring && start == 0 ? 0 : start + before;
    const int high = !s.ring && start + length == tokens ? tokens : start + length - after;
    #pragma unroll 1
    for (int k = s.thread; k < length * spins; k += s.threads) {
        const int token = ((start + k / spins) % tokens + tokens) % tokens;
        p.spins[blockIdx.x * length * spins + k] = s.spins[token * spins + k % spins];
    }
    __syncthreads();
    p.compute_coefficients(blockIdx.x);
    int done = 0;
    while (done < count) {
        const int token = down ? here - done : here + done;
        if (token < low || token >= high) break;
        ++done;
    }
    const int size = s[plan::BLOCK], terms = s[plan::TERMS];
    const auto values = p.values + (long long)blockIdx.x * s[plan::SITES_OF_PATCH] * length;
    const auto first = s.orders + (order::PLAN + terms), rows = first + (size + 1);
    const auto base = s.tables64 + s[plan::FEATURES], weights = base + size;
    #pragma unroll 1
    for (int k = s.thread; k < done * size; k += s.threads) {
        const int j = k / size, e = k % size, token = down ? here - j : here + j;
        double sum = base[e];
        for (int t = (int)first[e]; t < (int)first[e + 1]; ++t)
            sum += weights[t] * double(values[(int)rows[t] * length + token - start]);
        store[k] = real(sum);
    }
    __syncthreads();
    return done;
}

// Where the coefficients of `count` tokens from x on are, along the way or against it:
// among the tables, or below zero, in `store`, where a run of their program put them.
template <class Program>
__device__ __noinline__ void locate(const Sweep& s, const Program& p, int x, int count, int along,
                                    Global<real> store) {
    const int pieces = s[plan::PIECES], spins = s[plan::TOKEN], sites = s[plan::TOKENS] * spins;
    #pragma unroll 1
    for (int k = s.thread; k < count * pieces; k += s.threads) {
        const int token = s.token(x + along * (k / pieces));
        const auto piece = s.piece(k % pieces);
        if (is_tabulated(s, token)) {
            int key = 0, at = (token * spins + piece[plan::SPIN]) % sites;
            if (at < 0) at += sites;
            for (int bit = 0; bit < piece[plan::BITS]; ++bit) {
                if (s.spins[at] > 0) key |= 1 << bit;
                at = at + 1 == sites ? 0 : at + 1;
            }
            s.places[k] = piece[plan::ROWS] + key * piece[plan::LENGTH_OF];
        } else {
            s.places[k] = ~(k / pieces * s[plan::BLOCK] + piece[plan::START]);
        }
    }
    #pragma unroll 1
    for (int k = 0; k < count;) {
        if (is_tabulated(s, s.token(x + along * k)))
            ++k;
        else
            k += evaluate(s, p, x + along * k, count - k, along, store + k * s[plan::BLOCK]);
    }
    __syncthreads();
}

// The coefficients of tokens as blocks, one after the other.
template <class Program>
__device__ __noinline__ void fetch(const Sweep& s, const Program& p, int x, int count, int along,
                                   Global<real> out) {
    locate(s, p, x, count, along, out);
    const int pieces = s[plan::PIECES], size = s[plan::BLOCK];
    #pragma unroll 1
    for (int n = 0; n < pieces; ++n) {
        const auto piece = s.piece(n);
        const int length = piece[plan::LENGTH_OF], start = piece[plan::START];
        #pragma unroll 1
        for (int k = s.thread; k < count * length; k += s.threads) {
            const int j = k / length, e = k % length, place = s.places[j * pieces + n];
            if (place >= 0) out[j * size + start + e] = s.tables[place + e];
        }
    }
    __syncthreads();
}

// ---- segments

// A segment about to grow by n sites, numbered away from it.
struct Growth {
    int side, n;
    Global<const real> blocks, old;
    Global<real> grown;
};

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
    const auto mixer = s.mixer(m), along = s.direction(mixer, g.side == 0, 0);
    const auto ports = s.side(mixer, g.side);
    const int p = along[plan::P], channels = mixer[plan::CHANNELS], parts = mixer[plan::PARTS];
    const int columns = ports[plan::COLUMNS], stretch = mixer[plan::REACH] + 1;
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
    const auto mixer = s.mixer(m), against = s.direction(mixer, g.side == 0, 1);
    const auto ports = s.side(mixer, g.side);
    const int p = against[plan::P], channels = mixer[plan::CHANNELS], parts = mixer[plan::PARTS];
    const int columns = ports[plan::COLUMNS], stretch = mixer[plan::REACH] + 1;
    const int inputs = parts * g.n;
    const auto moved = s.array(s[plan::MOVED]), far = g.grown + ports[plan::FAR_OUT];
    substitute(s, g, m, against[plan::ALL], ports[plan::FAR_OUT], far);
    Product a = product(1, channels, inputs, p, p, 1);
    set_left(a, s.tables + against[plan::INJECT], 0, stretch * parts * p, p, 1, 0);
    set_right(a, g.old + ports[plan::THROUGH + 3], 0, p * p, 1, p, 0);
    assign(s, a, moved, 0, inputs * p, p, 1);
    #pragma unroll 1
    for (int which = 0; which < 2; ++which) {
        const auto way = s.direction(mixer, g.side == 0, which);
        const int q = way[plan::P], block = channels * q * q, at = plan::THROUGH + 2 * which;
        Product power = product(1, channels, q, q, q, 1);
        set_left(power, s.tables + (way[plan::POWERS] + g.n * block), 0, q * q, q, 1, 0);
        set_right(power, g.old + ports[at], 0, q * q, 1, q, 0);
        assign(s, power, g.grown + ports[at], 0, q * q, q, 1);
        set_left(power, g.old + ports[at + 1], 0, q * q, q, 1, 0);
        set_right(power, s.tables + (way[plan::TRANSPOSED] + g.n * block), 0, q * q, 1, q, 0);
        assign(s, power, g.grown + ports[at + 1], 0, q * q, q, 1);
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
    const auto mixer = s.mixer(m), ports = s.side(mixer, g.side);
    const auto along = s.direction(mixer, g.side == 0, 0);
    const auto against = s.direction(mixer, g.side == 0, 1);
    const int channels = mixer[plan::CHANNELS], parts = mixer[plan::PARTS];
    const int width = mixer[plan::WIDTH];
    const int columns = ports[plan::COLUMNS], stretch = mixer[plan::REACH] + 1;
    const int line = 2 * mixer[plan::REACH] + 1;
    const int p = along[plan::P], q = against[plan::P], n = g.n;
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
    const auto mixer = s.mixer(m), ports = s.side(mixer, g.side);
    const auto along = s.direction(mixer, g.side == 0, 0);
    const auto against = s.direction(mixer, g.side == 0, 1);
    const int channels = mixer[plan::CHANNELS], parts = mixer[plan::PARTS];
    const int width = mixer[plan::WIDTH];
    const int wide = ports[plan::COLUMNS], stretch = mixer[plan::REACH] + 1;
    const int line = 2 * mixer[plan::REACH] + 1;
    const int p = along[plan::P], q = against[plan::P], n = g.n, h = s[plan::FEATURES];
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

// The segment in slot `to` is that in slot `from` with n sites more; coefficients are
// those in `GROWN`.
__device__ __noinline__ void extend(const Sweep& s, int side, int n, int from, int to) {
    Growth g = {};
    g.side = side;
    g.n = n;
    g.blocks = s.array(s[plan::GROWN]);
    g.old = s.segment(from);
    g.grown = s.segment(to);
    const int mixers = s[plan::MIXERS];
    #pragma unroll 1
    for (int m = 0; m < mixers; ++m) {
        const auto mixer = s.mixer(m);
        receive(s, g, m);
        substitute(s, g, m, s.direction(mixer, side == 0, 0)[plan::ALL],
                   s.side(mixer, side)[plan::OUT], s.array(mixer[plan::SEEN]));
        advance(s, g, m);
        if (s.ring) go_around(s, g, m);
        if (m + 1 < mixers) respond(s, g, m);
        __syncthreads();
    }
    const int h = s[plan::FEATURES], all = s[plan::ALL_COLUMNS + side];
    const int at = s[plan::OF_FEATURES + side];
    copy(s, g.old + at, g.grown + at, h * all);
    __syncthreads();
    #pragma unroll 1
    for (int m = 0; m < mixers; ++m) pool_mixer(s, g, m);
    // constants add up in f64
    const int q = s.start(s[plan::CONSTANT]), size = s[plan::BLOCK];
    #pragma unroll 1
    for (int r = s.thread; r < h; r += s.threads) {
        double sum = s.total(from)[r];
        for (int j = 0; j < n; ++j) sum += double(g.blocks[j * size + q + r]);
        s.total(to)[r] = sum + double(g.grown[at + r * all]);
        g.grown[at + r * all] = real(0);
    }
    __syncthreads();
}

// ---- the sites between two segments

// A slice of n sites, and a proposal: sites first.. last see the flipped token; -1 in
// place of the token for the settling of the whole slice.
struct Slice {
    int n, first, last, token, behind, ahead;
};

// The first mixer whose states are followed: those before it act through links.
__device__ inline int followed(const Slice& c) { return c.token < 0 ? 0 : 1; }

// Sites where v_m changes.
__device__ inline void active(const Sweep& s, const Slice& c, Numbers mixer, int& first,
                              int& last) {
    first = 0;
    last = c.n;
    if (mixer[plan::VERTICES]) return;
    first = c.first;
    last = c.last;
    // on a ring seen as one slice any site may be near
    if (c.token < 0 || c.last - c.first == s[plan::TOKENS]) return;
    const int back = mixer[s.reverse ? plan::SEEN_AHEAD : plan::SEEN_BACK];
    const int ahead = mixer[s.reverse ? plan::SEEN_BACK : plan::SEEN_AHEAD];
    first = larger(first, c.token - back);
    last = larger(first, smaller(last, c.token + ahead + 1));
}

// A piece of the coefficients of a site of the slice, as proposed.
__device__ inline Global<const real> coefficient(const Sweep& s, const Slice& c, int j, int piece) {
    if (c.token < 0 || j < c.first || j >= c.last)
        return s.array(s[plan::SLICE]) + (j * s[plan::BLOCK] + s.start(piece));
    const int place = s.places[(j - c.first) * s[plan::PIECES] + piece];
    if (place >= 0) return s.tables + place;
    return s.array(s[plan::PROPOSED]) + ~place;
}

// What all sites outside do to the slice, for all its proposals: the states of later
// mixers that come back (E L^j B), and the features far away. On a ring, with
// K = (1 - L^N)^-1, a sites ahead and b behind, states go
//
//   leaving  = K emitted + L^n entering             along the way
//   far      = far' + L^a leaving                   at the far ends of the segments
//   entering = K ( entering' + L^b far' )           primes: what segments add
__device__ __noinline__ void link(const Sweep& s, const Slice& c) {
    const int mixers = s[plan::MIXERS], h = s[plan::FEATURES];
    const bool right = !s.reverse;
    const auto first = s.mixer(0);
    const int channels = first[plan::CHANNELS], parts = first[plan::PARTS], columns = parts * c.n;
    const int stretch = parts * (first[plan::REACH] + 1);
    const int segments[2] = {c.behind, c.ahead}, sides[2] = {s.behind(), s.ahead()};
    const auto sent = s.array(s[plan::SENT]);
    #pragma unroll 1
    for (int way = 0; s.ring && way < 2; ++way) {
        #pragma unroll 1
        for (int m = 0; m < mixers; ++m) {
            const auto mixer = s.mixer(m), d = s.direction(mixer, right, way);
            const int p = d[plan::P];
            const auto segment = s.segment(segments[way]);
            Product a = product(1, mixer[plan::CHANNELS], p, p, p, 1);
            set_left(a, segment + s.side(mixer, sides[way])[plan::THROUGH + 1], 0, p * p, p, 1, 0);
            set_right(a, s.tables + d[plan::CLOSURE], 0, p * p, 1, p, 0);
            assign(s, a, s.array(mixer[plan::CARRIED + way]), 0, p * p, p, 1);
        }
        // to the far end of the segment the state moves into
        const auto d = s.direction(first, right, way);
        const int p = d[plan::P], most = s.side(first, sides[1 - way])[plan::THROUGH + 2];
        const auto table = way == 0 ? d[plan::SENDING_BACK] + stretch - columns : d[plan::SENDING];
        Product a = product(1, channels, p, columns, p, 1);
        set_left(a, s.segment(segments[1 - way]) + most, 0, p * p, p, 1, 0);
        set_right(a, s.tables + table, 0, p * stretch, 1, stretch, 0);
        const int other = channels * s.direction(first, right, 0)[plan::P] * columns;
        assign(s, a, sent + way * other, 0, p * columns, columns, 1);
    }
    __syncthreads();
    #pragma unroll 1
    for (int m = 1; m <= mixers; ++m) {
        const bool pooled = m == mixers;
        const auto mixer = s.mixer(pooled ? 0 : m);
        const int states[2] = {s.direction(mixer, right, 0)[plan::ALL],
                               s.direction(mixer, right, 1)[plan::ALL]};
        const int entering = states[0] + states[1];
        const int size = pooled ? h : s.ring ? 2 * entering : entering;
        const auto out = s.array(pooled ? s[plan::LINKED] : mixer[plan::LINKS]);
        // segments behind and ahead; what leaves at the near end, and at the far one
        #pragma unroll 1
        for (int k = 0; k < 2; ++k) {
            const auto ports = s.side(first, sides[k]), rows = s.side(mixer, sides[k]);
            #pragma unroll 1
            for (int far = 0; far < (s.ring && !pooled ? 2 : 1); ++far) {
                const int wide = pooled ? s[plan::ALL_COLUMNS + sides[k]] : rows[plan::COLUMNS];
                int from = rows[far ? plan::FAR_OUT : plan::OUT];
                if (pooled) from = s[plan::OF_FEATURES + sides[k]];
                // along: out of the segment behind at its near end, ahead at its far one
                const int way = k == far ? 0 : 1;
                const int count = pooled ? h : states[way];
                const int at = pooled ? 0 : (far ? entering : 0) + (way ? states[0] : 0);
                const auto matrix = s.segment(segments[k]) + from;
                #pragma unroll 1
                for (int end = 0; end < (s.ring ? 2 : 1); ++end) {
                    // into the segment behind at its near end: against the way
                    const int into = k == end ? 1 : 0;
                    const auto d = s.direction(first, right, into);
                    const int p = d[plan::P];
                    Product a = product(1, channels, columns, count, p, 1);
                    if (end) {
                        const int along = s.direction(first, right, 0)[plan::P];
                        const int other = into ? channels * along * columns : 0;
                        set_left(a, sent + other, 0, p * columns, 1, columns, 0);
                    } else {
                        const int last = d[plan::SENDING_BACK] + stretch - columns;
                        const int table = into ? d[plan::SENDING] : last;
                        set_left(a, s.tables + table, 0, p * stretch, 1, stretch, 0);
                    }
                    set_right(a, matrix + ports[end ? plan::FAR : plan::NEAR], 0, p, wide, 1, 0);
                    if (end || (pooled && k == 1))
                        add(s, a, out + at, 0, size, channels * size, 1);
                    else
                        assign(s, a, out + at, 0, size, channels * size, 1);
                }
            }
        }
    }
    __syncthreads();
}

// Dv_m: where coefficients change, S' + sum_k A'_mk ( y_k + Dy_k ) - v, else
// sum_k A_mk Dy_k. Or the same of the features of each site.
__device__ __noinline__ void change(const Sweep& s, const Slice& c, int m) {
    const bool pooled = m == s[plan::MIXERS];
    const auto mixer = s.mixer(pooled ? 0 : m);
    const int width = pooled ? s[plan::FEATURES] : mixer[plan::WIDTH];
    const int step = pooled ? s[plan::COLUMN] : mixer[plan::PADDED];
    const auto v = s.array(pooled ? s[plan::POOLED] : mixer[plan::SLICE_V]);
    const auto dv = s.array(pooled ? s[plan::POOLED_CHANGE] : mixer[plan::CHANGE_V]);
    const int source = pooled ? s[plan::CONSTANT] : mixer[plan::SOURCE];
    int first = 0, last = c.n;
    if (!pooled) active(s, c, mixer, first, last);
    #pragma unroll 1
    for (int k = s.thread; k < (last - first) * width; k += s.threads) {
        const int j = first + k / width, row = k % width, at = j * width + row;
        const bool inside = c.first <= j && j < c.last;
        real sum = real(0);
        if (inside) sum = coefficient(s, c, j, source)[row];
        const int count = pooled ? m : mixer[plan::VERTICES];
        #pragma unroll 1
        for (int e = 0; e < count; ++e) {
            const auto vertex = s.plan + (mixer[plan::FIRST_VERTEX] + 2 * e);
            const auto from = s.mixer(pooled ? e : vertex[0]);
            const int piece = pooled ? from[plan::READOUT] : vertex[1], inner = from[plan::WIDTH];
            if (piece < 0) continue;
            const auto a = coefficient(s, c, j, piece) + row;
            const auto y = s.array(from[plan::SLICE_Y]) + j * inner;
            const auto dy = s.array(from[plan::CHANGE_Y]) + j * inner;
            for (int i = 0; i < inner; ++i)
                sum = fma(a[i * step], inside ? y[i] + dy[i] : dy[i], sum);
        }
        dv[at] = inside ? sum - v[at] : sum;
    }
    __syncthreads();
}

// The sum of products of two rows over the lanes of a warp, in every lane.
__device__ inline double warp_dot(Global<const real> a, int step, Global<const real> b, int count,
                                  int lane) {
    real sum = real(0);
    for (int k = lane; k < count; k += 32) sum = fma(a[k * step], b[k], sum);
    return warp_sum(double(sum));
}

// States of mixer m that the segments send into the slice, and, on a ring, to each
// other's far ends.
__device__ __noinline__ void come_back(const Sweep& s, const Slice& c, int m) {
    const auto mixer = s.mixer(m), first = s.mixer(0);
    const bool right = !s.reverse;
    const auto along = s.direction(mixer, right, 0), against = s.direction(mixer, right, 1);
    const int a = along[plan::ALL], entering = a + against[plan::ALL];
    const int size = s.ring ? 2 * entering : entering;
    const auto received = s.array(s[plan::RECEIVED]);
    if (followed(c)) {
        int from, to;
        active(s, c, first, from, to);
        const int width = first[plan::WIDTH], count = (to - from) * width;
        const auto dv = s.array(first[plan::CHANGE_V]) + from * width;
        const auto links = s.array(mixer[plan::LINKS]) + from * width * size;
        #pragma unroll 1
        for (int k = s.thread; k < size; k += s.threads) {
            real sum = real(0);
            #pragma unroll 4
            for (int i = 0; i < count; ++i) sum = fma(dv[i], links[i * size + k], sum);
            received[k] = sum;
        }
    } else {
        #pragma unroll 1
        for (int k = s.thread; k < size; k += s.threads) received[k] = real(0);
    }
    __syncthreads();
    // what earlier mixers that are followed send into the segments
    const int sides[2] = {s.behind(), s.ahead()}, segments[2] = {c.behind, c.ahead};
    const int warp = s.thread / 32, lane = s.thread % 32, warps = s.threads / 32;
    #pragma unroll 1
    for (int side = 0; side < 2; ++side) {
        const auto ports = s.side(mixer, sides[side]);
        const int start = followed(c) ? s.side(s.mixer(1), sides[side])[plan::COLUMNS] : 0;
        const int end = ports[plan::COLUMNS];
        const auto x = s.array(s[side ? plan::INTO_AHEAD : plan::INTO_BEHIND]) + start;
        #pragma unroll 1
        for (int far = 0; far < (s.ring ? 2 : 1) && start < end; ++far) {
            const int way = side == far ? 0 : 1, rows = way ? against[plan::ALL] : a;
            const auto matrix = s.segment(segments[side]) + ports[far ? plan::FAR_OUT : plan::OUT];
            const auto out = received + ((far ? entering : 0) + (way ? a : 0));
            #pragma unroll 1
            for (int r = warp; r < rows; r += warps) {
                const double sum = warp_dot(matrix + ((long long)r * end + start), 1, x,
                                            end - start, lane);
                if (lane == 0) out[r] = out[r] + real(sum);
            }
        }
    }
    __syncthreads();
    if (s.ring) {
        const auto into = s.array(s[plan::ENTERING]);
        #pragma unroll 1
        for (int k = s.thread; k < entering; k += s.threads) {
            const int way = k < a ? 0 : 1, state = way ? k - a : k;
            const auto d = way ? against : along;
            const int p = d[plan::P], block = state / p * p;
            const auto closure = s.tables + (d[plan::CLOSURE] + block * p + state % p);
            const auto carried = s.array(mixer[plan::CARRIED + way]) + (block * p + state % p);
            const auto near = received + (way * a + block);
            const auto far = received + (entering + way * a + block);
            real sum = real(0);
            for (int i = 0; i < p; ++i)
                sum = fma(near[i], closure[i * p], fma(far[i], carried[i * p], sum));
            into[k] = sum;
        }
        __syncthreads();
    }
}

// What Dv_m and the states that enter do to Dy_m; states that leave the slice, into
// both segments.
__device__ __noinline__ void mix(const Sweep& s, const Slice& c, int m) {
    const auto mixer = s.mixer(m);
    const bool right = !s.reverse, states = m >= followed(c);
    const int width = mixer[plan::WIDTH], channels = mixer[plan::CHANNELS];
    const int parts = mixer[plan::PARTS];
    const int padded = mixer[plan::PADDED], reach = mixer[plan::REACH], n = c.n;
    const auto dv = s.array(mixer[plan::CHANGE_V]), dy = s.array(mixer[plan::CHANGE_Y]);
    const Numbers ways[2] = {s.direction(mixer, right, 0), s.direction(mixer, right, 1)};
    const int a = ways[0][plan::ALL], line = parts * (reach + 1);
    const auto entering = s.array(s[s.ring ? plan::ENTERING : plan::RECEIVED]);
    const auto kernel = s.tables + (mixer[plan::LANES] + reach * 2 * padded);
    const int turn = right ? 2 * padded : -2 * padded;
    int first, last;
    active(s, c, mixer, first, last);
    #pragma unroll 1
    for (int k = s.thread; k < n * width; k += s.threads) {
        const int i = k / width, component = k % width, part = component / channels;
        const int other = parts == 2 ? (1 - part) * channels + component % channels : component;
        real sum = real(0);
        for (int j = first; j < last; ++j) {
            const int at = (i - j) * turn + component;
            sum = fma(kernel[at], dv[j * width + component], sum);
            if (parts == 2) sum = fma(kernel[at + padded], dv[j * width + other], sum);
        }
        #pragma unroll 1
        for (int way = 0; states && way < 2; ++way) {
            const int p = ways[way][plan::P], channel = component % channels;
            const int j = way ? n - 1 - i : i;
            const auto x = entering + (way * a + channel * p);
            const int from = ((channel * (reach + 1) + j) * parts + part) * p;
            const auto read = s.tables + (ways[way][plan::READING] + from);
            for (int t = 0; t < p; ++t) sum = fma(x[t], read[t], sum);
        }
        dy[k] = sum;
    }
    if (!states) {
        __syncthreads();
        return;
    }
    const auto leaving = s.array(s[plan::LEAVING]);
    const auto behind = s.array(s[plan::INTO_BEHIND]), ahead = s.array(s[plan::INTO_AHEAD]);
    const auto rear = s.side(mixer, s.behind()), front = s.side(mixer, s.ahead());
    const int all = a + ways[1][plan::ALL];
    #pragma unroll 1
    for (int k = s.thread; k < all; k += s.threads) {
        const int way = k < a ? 0 : 1, state = way ? k - a : k;
        const int p = ways[way][plan::P], channel = state / p;
        const auto sent = s.tables + (ways[way][plan::SENDING] + state * line);
        real sum = real(0);
        for (int j = first; j < last; ++j)
            for (int part = 0; part < parts; ++part)
                sum = fma(sent[(way ? j : n - 1 - j) * parts + part],
                          dv[j * width + part * channels + channel], sum);
        const int block = (n * channels + channel) * p * p;
        const auto power = s.tables + (ways[way][plan::TRANSPOSED] + block + state % p);
        const auto x = entering + (way * a + channel * p);
        for (int t = 0; t < p; ++t) sum = fma(x[t], power[t * p], sum);
        leaving[k] = sum;
        if (way)
            behind[rear[plan::NEAR] + state] = sum;
        else
            ahead[front[plan::NEAR] + state] = sum;
    }
    __syncthreads();
    if (s.ring) {
        const auto far = s.array(s[plan::RECEIVED]) + all;
        #pragma unroll 1
        for (int k = s.thread; k < all; k += s.threads) {
            const int way = k < a ? 0 : 1, state = way ? k - a : k;
            const int p = ways[way][plan::P], channel = state / p;
            const int at = (way ? rear : front)[plan::THROUGH + 3] + channel * p * p + state % p;
            const auto after = s.segment(way ? c.behind : c.ahead) + at;
            const auto x = leaving + (way * a + channel * p);
            real sum = far[k];
            for (int t = 0; t < p; ++t) sum = fma(x[t], after[t * p], sum);
            if (way)
                ahead[front[plan::FAR] + state] = sum;
            else
                behind[rear[plan::FAR] + state] = sum;
        }
        __syncthreads();
    }
}

// The change of the features, in `CHANGE`: of the slice and of both segments.
__device__ __noinline__ void solve(const Sweep& s, const Slice& c) {
    const int mixers = s[plan::MIXERS], h = s[plan::FEATURES];
    #pragma unroll 1
    for (int m = 0; m < mixers; ++m) {
        change(s, c, m);
        if (m >= followed(c)) come_back(s, c, m);
        mix(s, c, m);
    }
    change(s, c, mixers);
    const auto pooled = s.array(s[plan::POOLED_CHANGE]);
    const auto source = s.mixer(0);
    const int warp = s.thread / 32, lane = s.thread % 32, warps = s.threads / 32;
    const int width = source[plan::WIDTH];
    const int sides[2] = {s.behind(), s.ahead()}, segments[2] = {c.behind, c.ahead};
    int first, last;
    active(s, c, source, first, last);
    #pragma unroll 1
    for (int r = warp; r < h; r += warps) {
        double sum = 0;
        for (int j = lane; j < c.n; j += 32) sum += double(pooled[j * h + r]);
        sum = warp_sum(sum);
        if (followed(c))
            sum += warp_dot(s.array(s[plan::LINKED]) + (first * width * h + r), h,
                            s.array(source[plan::CHANGE_V]) + first * width,
                            (last - first) * width, lane);
        #pragma unroll 1
        for (int side = 0; side < 2; ++side) {
            const int all = s[plan::ALL_COLUMNS + sides[side]];
            int start = 0;
            if (followed(c) && mixers == 1) start = all;
            if (followed(c) && mixers > 1) start = s.side(s.mixer(1), sides[side])[plan::COLUMNS];
            // constants are kept in the segments' totals
            const int from = s[plan::OF_FEATURES + sides[side]] + r * all + start;
            const auto row = s.segment(segments[side]) + from;
            const auto x = s.array(s[side ? plan::INTO_AHEAD : plan::INTO_BEHIND]) + start;
            sum += warp_dot(row, 1, x, all - start, lane);
        }
        if (lane == 0) s.numbers[s[plan::CHANGE] + r] = sum;
    }
    __syncthreads();
}

__device__ inline void add_to(const Sweep& s, Global<real> x, Global<const real> dx, int from,
                              int to) {
    #pragma unroll 1
    for (int k = from + s.thread; k < to; k += s.threads) x[k] = x[k] + dx[k];
}

// Makes the last proposal current, but for the coefficients.
__device__ __noinline__ void accept(const Sweep& s, const Slice& c) {
    #pragma unroll 1
    for (int m = 0; m < s[plan::MIXERS]; ++m) {
        const auto mixer = s.mixer(m);
        int first, last;
        active(s, c, mixer, first, last);
        const int width = mixer[plan::WIDTH];
        add_to(s, s.array(mixer[plan::SLICE_V]), s.array(mixer[plan::CHANGE_V]), first * width,
               last * width);
        add_to(s, s.array(mixer[plan::SLICE_Y]), s.array(mixer[plan::CHANGE_Y]), 0, c.n * width);
    }
    add_to(s, s.array(s[plan::POOLED]), s.array(s[plan::POOLED_CHANGE]), 0,
           c.n * s[plan::FEATURES]);
    __syncthreads();
}

// Links, and all signals of the current configuration; Omega without its constant.
__device__ __noinline__ void settle(const Sweep& s, Slice& c) {
    c.token = -1;
    c.first = 0;
    c.last = c.n;
    link(s, c);
    #pragma unroll 1
    for (int m = 0; m < s[plan::MIXERS]; ++m) {
        const auto mixer = s.mixer(m);
        const auto v = s.array(mixer[plan::SLICE_V]), y = s.array(mixer[plan::SLICE_Y]);
        #pragma unroll 1
        for (int k = s.thread; k < c.n * mixer[plan::WIDTH]; k += s.threads) v[k] = y[k] = real(0);
    }
    const auto pooled = s.array(s[plan::POOLED]);
    #pragma unroll 1
    for (int k = s.thread; k < c.n * s[plan::FEATURES]; k += s.threads) pooled[k] = real(0);
    const auto behind = s.array(s[plan::INTO_BEHIND]), ahead = s.array(s[plan::INTO_AHEAD]);
    if (s.thread == 0) behind[0] = ahead[0] = real(1);
    __syncthreads();
    solve(s, c);
    accept(s, c);
    #pragma unroll 1
    for (int r = s.thread; r < s[plan::FEATURES]; r += s.threads) {
        const int at = s[plan::CHANGE] + r;
        s.numbers[at] = s.numbers[at] + s.total(c.behind)[r] + s.total(c.ahead)[r];
    }
    if (s.thread == 0) behind[0] = ahead[0] = real(0);
    __syncthreads();
}

// ---- programs of the network: what a token is made of, what features are read by,
// and log psi, with memory of their own

struct Programs {
    Launch of_coefficients, of_readout, of_log_psi;
    Global<signed char> spins;          // blocks x spins of a run
    Global<const real> values;          // blocks x results on sites
    Global<double> features;            // blocks x features
    Global<const double> results, all;  // blocks x results, chains x results
    int width;

    __device__ double log_psi(int sample) const { return all[(long long)sample * width]; }
};

// An array of one of the launches: its address, then its bytes, both wide.
template <class T>
__device__ inline Global<T> array_of(Global<const unsigned int> orders, int launch, int number) {
    const int at = order::PROGRAMS + 4 * (7 * launch + number);
    return at_address<T>(wide(orders, at), wide(orders, at + 2));
}

__device__ inline Launch launch_of(const Launch& a, int launch) {
    const auto orders = orders_of(a);
    Launch own = {};
    own.samples = a.samples;
    own.spins = array_of<const signed char>(orders, launch, 0);
    own.inputs = array_of<const double>(orders, launch, 1);
    own.constants = array_of<const real>(orders, launch, 2);
    own.constants64 = array_of<const double>(orders, launch, 3);
    own.workspace = array_of<double>(orders, launch, 4);
    own.outputs = array_of<double>(orders, launch, 5);
    own.site_outputs = array_of<real>(orders, launch, 6);
    return own;
}

__device__ __noinline__ Programs programs_of(const Launch& a, int width) {
    const auto orders = orders_of(a);
    Programs p = {};
    p.of_coefficients = launch_of(a, 0);
    p.of_readout = launch_of(a, 1);
    p.of_log_psi = launch_of(a, 2);
    p.spins = array_of<signed char>(orders, 0, 0);
    p.values = array_of<const real>(orders, 0, 6);
    p.features = array_of<double>(orders, 1, 1);
    p.results = array_of<const double>(orders, 1, 5);
    p.all = array_of<const double>(orders, 2, 5);
    p.width = width;
    return p;
}

// ---- walking along the chain

// Part of a sweep with one cut: proposals of tokens from.. to.
struct Phase {
    int from, to;
    bool whole; // the slice is the whole ring
};

// Bonds where the segment behind ends and the one ahead starts, for a block of
// proposals.
__device__ inline int start_of(const Sweep& s, const Phase& f, int block) {
    return f.whole ? 0 : larger(0, f.from + block * s[plan::STEP] - s.seen_back());
}
__device__ inline int end_of(const Sweep& s, const Phase& f, int block) {
    if (f.whole) return s[plan::TOKENS];
    return smaller(smaller(f.from + (block + 1) * s[plan::STEP], f.to) + s.seen_ahead(),
                   s[plan::TOKENS]);
}

// Grows a segment along the way, or against it, with spare ones `first` and the next;
// the last step goes to `to` unless that is below zero. Returns the slot it ends in.
template <class Program>
__device__ __noinline__ int grow(const Sweep& s, const Program& p, int from, int until, int slot,
                                 int first, int to) {
    const int way = first == 0 ? 1 : -1;
    while (from != until) {
        const int n = smaller(way * (until - from), s[plan::STEP]);
        fetch(s, p, way > 0 ? from : from - 1, n, way, s.array(s[plan::GROWN]));
        from += way * n;
        const int spare = slot == first ? first + 1 : first;
        const int next = from == until && to >= 0 ? to : spare;
        extend(s, way > 0 ? s.behind() : s.ahead(), n, slot, next);
        slot = next;
    }
    if (to >= 0 && slot != to) {
        copy_segment(s, slot, to);
        slot = to;
    }
    return slot;
}

// The configuration and its amplitude as far as they are known.
struct Current {
    bool known;
    double log_psi;
};

// Re log psi of features current + change.
template <class Program> __device__ __noinline__ double read_features(const Sweep& s,
                                                                      const Program& p) {
    const int h = s[plan::FEATURES];
    const auto omega = s.numbers + s[plan::OMEGA], change = s.numbers + s[plan::CHANGE];
    #pragma unroll 1
    for (int r = s.thread; r < h; r += s.threads)
        p.features[blockIdx.x * h + r] = omega[r] + change[r];
    __syncthreads();
    p.compute_readout(blockIdx.x);
    return p.results[(long long)blockIdx.x * s[plan::RESULTS]];
}

__device__ inline void add_change(const Sweep& s) {
    #pragma unroll 1
    for (int r = s.thread; r < s[plan::FEATURES]; r += s.threads)
        s.numbers[s[plan::OMEGA] + r] += s.numbers[s[plan::CHANGE] + r];
    __syncthreads();
}

// A decision about the change that was made, by the rule of chains.
__device__ inline bool settle_proposal(const Sweep& s, Chain& c, double ratio) {
    if (s[plan::RATIOS] && s.thread == 0) s.ratios[c.from] = ratio;
    const bool accepted = ratio > c.threshold;
    c.proposed += 1;
    c.accepted += accepted;
    c.not_a_number += ratio != ratio;
    if (!accepted) make_change(c);
    return accepted;
}

__device__ inline void flip_site(Chain& c, int site) {
    draw_threshold(c);
    c.change = SITES;
    c.from = c.to = site;
    make_change(c);
}

// Proposes every spin of a block.
template <class Program>
__device__ __noinline__ void sweep_block(const Sweep& s, const Program& p, Chain& chain,
                                         Current& current,
                                   const Phase& f, int block, int behind, int ahead) {
    const int start = start_of(s, f, block), spins = s[plan::TOKEN];
    Slice c = {};
    c.n = end_of(s, f, block) - start;
    c.behind = behind;
    c.ahead = ahead;
    const auto blocks = s.array(s[plan::SLICE]);
    fetch(s, p, start, c.n, 1, blocks);
    settle(s, c);
    if (!current.known) {
        #pragma unroll 1
        for (int r = s.thread; r < s[plan::FEATURES]; r += s.threads)
            s.numbers[s[plan::OMEGA] + r] = s.tables64[r];
        __syncthreads();
        current.log_psi = read_features(s, p);
        current.known = true;
        add_change(s);
    }
    const int first = f.from + block * s[plan::STEP], last = smaller(first + s[plan::STEP], f.to);
    for (int x = first; x < last; ++x) {
        c.token = x - start;
        c.first = f.whole ? 0 : larger(0, c.token - s.seen_back());
        c.last = f.whole ? c.n : smaller(c.n, c.token + s.seen_ahead() + 1);
        for (int part = 0; part < spins; ++part) {
            flip_site(chain, s.token(x) * spins + (s.reverse ? spins - 1 - part : part));
            locate(s, p, start + c.first, c.last - c.first, 1, s.array(s[plan::PROPOSED]));
            solve(s, c);
            const double log_psi = read_features(s, p);
            if (!settle_proposal(s, chain, log_psi - current.log_psi)) continue;
            current.log_psi = log_psi;
            const int size = s[plan::BLOCK], pieces = s[plan::PIECES];
            #pragma unroll 1
            for (int n = 0; n < pieces; ++n) {
                const auto piece = s.piece(n);
                const int length = piece[plan::LENGTH_OF];
                #pragma unroll 1
                for (int k = s.thread; k < (c.last - c.first) * length; k += s.threads) {
                    const int j = c.first + k / length, e = k % length;
                    blocks[j * size + piece[plan::START] + e] = coefficient(s, c, j, n)[e];
                }
            }
            accept(s, c);
            add_change(s);
        }
    }
}

// All proposals of a phase. Segments: two spare ones behind, two ahead, those kept
// for every group of blocks, those of one group.
template <class Program>
__device__ __noinline__ void sweep_phase(const Sweep& s, const Program& p, Chain& chain,
                                   Current& current, const Phase& f) {
    const int blocks = (f.to - f.from + s[plan::STEP] - 1) / s[plan::STEP];
    const int spacing = s[plan::SPACING];
    const int stored = 4, group = s[plan::GROUP];
    clear_segment(s, 0, s.behind());
    clear_segment(s, 2, s.ahead());
    int at = s[plan::TOKENS], slot = 2, behind = 0, reached = 0;
    for (int block = blocks - 1; block >= 0; --block) {
        const bool keep = block % spacing == spacing - 1 || block == blocks - 1;
        slot = grow(s, p, at, end_of(s, f, block), slot, 2, keep ? stored + block / spacing : -1);
        at = end_of(s, f, block);
    }
    for (int first = 0; first < blocks; first += spacing) {
        const int last = smaller(first + spacing, blocks) - 1;
        slot = stored + first / spacing;
        for (int block = last - 1; block >= first; --block)
            slot = grow(s, p, end_of(s, f, block + 1), end_of(s, f, block), slot, 2,
                        group + block - first);
        for (int block = first; block <= last; ++block) {
            const int start = start_of(s, f, block);
            if (start > reached) behind = grow(s, p, reached, start, behind, 0, -1);
            reached = larger(reached, start);
            const int ahead = block == last ? stored + first / spacing : group + block - first;
            sweep_block(s, p, chain, current, f, block, behind, ahead);
        }
    }
}

// One sweep. On a ring the cut lies where no slice crosses it; those of the last few
// tokens do, and are evaluated in full.
template <class Program>
__device__ __noinline__ void sweep_once(Sweep& s, const Program& p, Chain& chain, int sample) {
    const int tokens = s[plan::TOKENS], back = s.seen_back(), seen = back + s.seen_ahead();
    Current current = {};
    Phase f = {};
    f.whole = s.ring && tokens < larger(2 * seen, 2);
    f.to = tokens;
    s.origin = 0;
    if (s.ring && !f.whole) {
        s.origin = tokens - back;
        f.from = back;
        f.to = tokens - s.seen_ahead();
    }
    sweep_phase(s, p, chain, current, f);
    if (!s.ring || f.whole || seen == 0) return;
    p.compute_full(sample);
    current.log_psi = p.log_psi(sample);
    s.origin = (2 * tokens - s.seen_ahead() - 2 * back) % tokens;
    for (int x = back; x < back + seen; ++x)
        for (int part = 0; part < s[plan::TOKEN]; ++part) {
            flip_site(chain,
                      s.token(x) * s[plan::TOKEN] + (s.reverse ? s[plan::TOKEN] - 1 - part : part));
            p.compute_full(sample);
            const double log_psi = p.log_psi(sample);
            if (settle_proposal(s, chain, log_psi - current.log_psi)) current.log_psi = log_psi;
        }
}

// What all threads know, with the plan in shared memory.
__device__ __noinline__ Sweep begin_sweep(const Launch& a, int threads) {
    Sweep s = {};
    s.orders = orders_of(a);
    s.thread = threadIdx.x;
    s.threads = threads;
    const auto told = s.orders + order::PLAN;
    const int length = (int)told[plan::LENGTH], own = (int)told[plan::OWN];
    const auto known = view<int>(shared_memory(), (int)told[plan::PLACE], length);
    #pragma unroll 1
    for (int k = s.thread; k < length; k += threads) known[k] = (int)told[k];
    __syncthreads();
    s.plan = known;
    s.ring = s[plan::RING];
    s.tables = a.constants;
    s.tables64 = a.constants64;
    s.numbers = own_workspace(a, own);
    s.own = view<real>(s.numbers, 0, own * (int)(sizeof(double) / sizeof(real)));
    s.places = view<int>(s.numbers, s[plan::PLACES], 2 * (own - s[plan::PLACES]));
    s.shared = view<real>(shared_memory(), s[plan::WIDE], s[plan::SHARED]);
    return s;
}

// The sweeps of one chain.
template <class Program>
__device__ __noinline__ void sweep_chain(const Launch& a, Sweep& s, const Program& p, int sample,
                                   int sites) {
    Chain chain = begin_chain(a, sample, s.threads, sites, 0);
    s.spins = chain.spins;
    s.ratios = a.outputs + (COUNTS + (long long)sample * sites);
    for (; chain.step < chain.end; chain.step += 1) {
        draw_for(chain, stream::SWEEP);
        s.reverse = chain.step % 2 == 1;
        sweep_once(s, p, chain, sample);
    }
    finish_chain(a, chain);
}

} // namespace dnet
