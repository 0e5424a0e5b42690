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
    UNCLOSED,      // links of one channel before the ring is closed
    LINKED,        // features that sites add far away
    READ_SIDES,    // how features read what enters the segments before the last mixer,
    READ_LEFT,     // far ends closed: those that grow right, left
    READ_LEAVING,  // and the last mixer's states that leave the slice, that enter it,
    READ_ENTERING, // along and against
    READ_INPUTS,   // and its inputs
    V,             // growth, a block of columns: inputs of the new sites, states of the old
    SEEN,          // ones before these, what features gain
    GAINED,
    NUMBERS_OF_V,
    WIDEST,        // columns of a block at most
    SEGMENTS,
    // in doubles of the workspace
    TOTALS,
    CHANGE,
    OMEGA,
    PLACES,        // whole numbers: where the pieces of a proposal are
    RATIOS,        // whether results, after the counts, are to hold every ratio
    HEAD,          // length of this part
};
// ... about each direction of a mixer; tables, of which lanes are those that neighbouring
// threads read together: [state of a channel][tokens passed][component], and
// [tokens passed][part][state] ...
enum Direction {
    P,
    ALL,
    POWERS,
    TRANSPOSED,
    INJECT,
    INJECT_BACK,
    READING,
    READING_LANES,
    SENDING,
    SENDING_BACK,
    CLOSURE,
    SENDING_LANES,
    DIRECTION,
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
    Y,             // growth, a block of columns
    EMITTED,
    READ,          // growth, all columns: see pass_through
    MOVED,
    INPUTS,        // features pulled back onto inputs, and onto states
    STATES,
    SLICE_V,
    SLICE_Y,
    CHANGE_V,
    CHANGE_Y,
    LINKS,
    CARRIED,       // along, against
    CARRIED_AGAINST,
    RIGHT,         // two directions
    LEFT = RIGHT + DIRECTION,
    SIDES = LEFT + DIRECTION, // segments that grow right, left
    RECORD = SIDES + 2 * 9,
};
// ... about its part of a segment: first columns, columns of its rows, where they are,
// and where L^len is: with the growth, transposed, and both against it ...
enum Side { NEAR, FAR, COLUMNS, OUT, FAR_OUT, THROUGH, SIDE = THROUGH + 4 };
// ... and about each piece of a token's coefficients; rows are below zero where none are
// tabulated.
enum Piece { START, LENGTH_OF, SPIN, BITS, ROWS, PIECE };
} // namespace plan

typedef Global<const int> Numbers;

// ---- what is under way

// A segment, in slot `from`, that grows until it reaches a bond, along the way (1) or
// against it (-1), with slots `spare` and the next to spare; the last step goes to slot
// `last` unless that is below zero. The step: n sites, numbered away from the segment,
// into slot `to`.
//
// Columns do not mix, but for what enters at the growing end: they are taken by blocks, so
// that what the new sites receive from one block stays in shared memory until all mixers
// have used it. A block is `wide` columns from `first` on, the constants (port -1) or those
// of a mixer's port: near or far, some channels from `channel` on, of each of them `each`
// states from `state` on.
struct Growth {
    int way, at, until, from, spare, last;
    int side, n, to, m;
    int port, far, channel, state, channels, each, wide, first;
    Global<const real> blocks, old;
    Global<real> grown;

    // between rows of a block: odd, so that rows lie in different banks
    __device__ int apart() const { return wide | 1; }
};

// A slice of n sites, and a proposal: sites first.. last see the flipped token; -1 in
// place of the token for the settling of the whole slice.
struct Slice {
    int n, first, last, token, behind, ahead;
};

// What all threads of a block know. It is kept in memory, with the step of growth and the
// slice under way, and told as one address: registers are for what is called.
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
    Growth growth;
    Slice slice;

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
    __device__ __noinline__ int token(int x) const {
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
        const int start = batch * p.out_batch + group * p.out_group + i * p.out_row;
        real sum[4][4] = {};
        #pragma unroll 1
        for (int part = 0; part < p.parts; ++part) {
            int from = part * p.left_part, to = part * p.right_part;
            #pragma unroll 1
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
        #pragma unroll
        for (int r = 0; r < 4; ++r)
            #pragma unroll
            for (int c = 0; c < 4; ++c) {
                const int row = i + r, column = j + c * across;
                if (row < p.rows && column < p.columns) {
                    const int at = start + r * p.out_row + column * p.out_column;
                    p.out[at] = (p.more ? p.out[at] : real(0)) + sum[r][c];
                }
            }
    }
}

__device__ inline void set_out(Product& p, Global<real> out, int batch, int group, int row,
                               int column) {
    p.out = out;
    p.out_batch = batch;
    p.out_group = group;
    p.out_row = row;
    p.out_column = column;
}

__device__ inline void assign(const Sweep& s, Product& p, Global<real> out, int batch, int group,
                              int row, int column) {
    set_out(p, out, batch, group, row, column);
    p.more = false;
    multiply(s, p);
}

__device__ inline void add(const Sweep& s, Product& p, Global<real> out, int batch, int group,
                           int row, int column) {
    set_out(p, out, batch, group, row, column);
    p.more = true;
    multiply(s, p);
}

// The product of a right factor whose columns lie far apart: they are first brought
// together in shared memory, where neighbouring threads find neighbouring numbers. To be
// called while nothing in there is needed.
__device__ __noinline__ void multiply_turned(const Sweep& s, const Product& p) {
    const int lines = smaller(p.columns, p.inner > 0 ? s[plan::SHARED] / p.inner - 1 : 0);
    if (lines < 8) {
        multiply(s, p);
        return;
    }
    const int apart = lines | 1; // odd: without conflicts of banks
    #pragma unroll 1
    for (int group = 0; group < p.groups; ++group) {
        #pragma unroll 1
        for (int first = 0; first < p.columns; first += lines) {
            Product own = p;
            own.groups = 1;
            own.columns = smaller(lines, p.columns - first);
            const auto from = p.right + (group * p.right_group + first * p.right_column);
            __syncthreads();
            #pragma unroll 4
            for (int k = s.thread; k < own.columns * p.inner; k += s.threads) {
                const int line = k / p.inner, n = k % p.inner;
                s.shared[n * apart + line] = from[line * p.right_column + n * p.right_inner];
            }
            __syncthreads();
            own.left = p.left + group * p.left_group;
            set_right(own, s.shared, 0, 0, 1, apart, 0);
            own.out = p.out + (group * p.out_group + first * p.out_column);
            multiply(s, own);
        }
    }
}

__device__ inline void copy(const Sweep& s, Global<const real> from, Global<real> to, int count) {
    #pragma unroll 1
    for (int k = s.thread; k < count; k += s.threads) to[k] = from[k];
}

// Rows of numbers that lie `apart` there and `pitch` here.
__device__ __noinline__ void copy_rows(const Sweep& s, Global<const real> from, int apart,
                                       Global<real> to, int pitch, int rows, int columns) {
    #pragma unroll 4
    for (int k = s.thread; k < rows * columns; k += s.threads)
        to[k / columns * pitch + k % columns] = from[k / columns * apart + k % columns];
}

// ---- coefficients of single tokens

// Whether all a token sees lies on the chain, as tables have it.
__device__ inline bool sees_all(const Sweep& s, int token) {
    const int low = token + s[plan::WINDOW_LOW], high = token + s[plan::WINDOW_HIGH];
    return s.ring || (low >= 0 && high < s[plan::TOKENS]);
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
    #pragma unroll 1
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
        #pragma unroll 1
        for (int t = (int)first[e]; t < (int)first[e + 1]; ++t)
            sum += weights[t] * double(values[(int)rows[t] * length + token - start]);
        store[k] = real(sum);
    }
    __syncthreads();
    return done;
}

// Where the coefficients of `count` tokens from x on are, along the way or against it:
// among the tables, or below zero, in `store`, where a run of their program put those
// that have none, and all of tokens that see an end of the chain.
template <class Program>
__device__ __noinline__ void locate(const Sweep& s, const Program& p, int x, int count, int along,
                                    Global<real> store) {
    const int pieces = s[plan::PIECES], spins = s[plan::TOKEN], sites = s[plan::TOKENS] * spins;
    #pragma unroll 1
    for (int k = s.thread; k < count * pieces; k += s.threads) {
        const int token = s.token(x + along * (k / pieces));
        const auto piece = s.piece(k % pieces);
        if (piece[plan::ROWS] >= 0 && sees_all(s, token)) {
            int key = 0, at = (token * spins + piece[plan::SPIN]) % sites;
            if (at < 0) at += sites;
            #pragma unroll 1
            for (int bit = 0; bit < piece[plan::BITS]; ++bit) {
                if (s.spins[at] > 0) key |= 1 << bit;
                at = at + 1 == sites ? 0 : at + 1;
            }
            s.places[k] = piece[plan::ROWS] + key * piece[plan::LENGTH_OF];
        } else {
            s.places[k] = ~(k / pieces * s[plan::BLOCK] + piece[plan::START]);
        }
    }
    // on a ring with tables for all of it there is no such program
    if constexpr (Program::EVALUATES) {
        #pragma unroll 1
        for (int k = 0; k < count;) {
            if (s[plan::TABULATED] && sees_all(s, s.token(x + along * k)))
                ++k;
            else
                k += evaluate(s, p, x + along * k, count - k, along, store + k * s[plan::BLOCK]);
        }
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

