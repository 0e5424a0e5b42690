// ---- the sites between two segments

// ---- what all sites outside do to the slice, for all its proposals
//
// The states of later mixers that come back (E L^j B), and the features far away. On a
// ring, with K = (1 - L^N)^-1, a sites ahead and b behind, states go
//
//   leaving  = K emitted + L^n entering             along the way
//   far      = far' + L^a leaving                   at the far ends of the segments
//   entering = K ( entering' + L^b far' )           primes: what segments add
//
// Links are kept as what enters. Nothing but features reads what the last mixer sends
// out, so that its states need not be followed there: features are read from its inputs,
// from what enters, and from the ports of earlier mixers.

// The surroundings of a slice: behind first, then ahead.
struct Outside {
    int segments[2], sides[2];
};

__device__ inline Outside outside(const Sweep& s) {
    const Slice& c = s.slice;
    Outside o = {{c.behind, c.ahead}, {s.behind(), s.ahead()}};
    return o;
}

// Which of both segments a state leaves that moves along (0) or against (1) the way, at
// its near end, or at its far one.
__device__ inline int segment_of(int way, int far) { return way == far ? 0 : 1; }

// Ring: K L^b of every mixer, and what the first one's sources send to the far end of the
// segment they move into.
__device__ __noinline__ void carry(const Sweep& s) {
    const Slice& c = s.slice;
    const bool right = !s.reverse;
    const Outside o = outside(s);
    const auto first = s.mixer(0);
    const int channels = first[plan::CHANNELS], columns = first[plan::PARTS] * c.n;
    const int stretch = first[plan::PARTS] * (first[plan::REACH] + 1);
    #pragma unroll 1
    for (int way = 0; way < 2; ++way) {
        #pragma unroll 1
        for (int m = 0; m < s[plan::MIXERS]; ++m) {
            const auto mixer = s.mixer(m), d = s.direction(mixer, right, way);
            const int p = d[plan::P], through = s.side(mixer, o.sides[way])[plan::THROUGH + 1];
            Product a = product(1, mixer[plan::CHANNELS], p, p, p, 1);
            set_left(a, s.segment(o.segments[way]) + through, 0, p * p, p, 1, 0);
            set_right(a, s.tables + d[plan::CLOSURE], 0, p * p, 1, p, 0);
            assign(s, a, s.array(mixer[plan::CARRIED + way]), 0, p * p, p, 1);
        }
        const auto d = s.direction(first, right, way);
        const int p = d[plan::P], most = s.side(first, o.sides[1 - way])[plan::THROUGH + 2];
        const auto table = way == 0 ? d[plan::SENDING_BACK] + stretch - columns : d[plan::SENDING];
        Product a = product(1, channels, p, columns, p, 1);
        set_left(a, s.segment(o.segments[1 - way]) + most, 0, p * p, p, 1, 0);
        set_right(a, s.tables + table, 0, p * stretch, 1, stretch, 0);
        const int other = channels * s.direction(first, right, 0)[plan::P] * columns;
        assign(s, a, s.array(s[plan::SENT]) + way * other, 0, p * columns, columns, 1);
    }
    __syncthreads();
}

// How features read the last mixer's states that leave the slice, what enters the
// segments before that mixer, and its states that enter the slice: far ends closed.
__device__ __noinline__ void read_outside(const Sweep& s) {
    const bool right = !s.reverse;
    const Outside o = outside(s);
    const int h = s[plan::FEATURES];
    const auto last = s.mixer(s[plan::MIXERS] - 1);
    const int channels = last[plan::CHANNELS], along = s.direction(last, right, 0)[plan::ALL];
    const int states = along + s.direction(last, right, 1)[plan::ALL];
    const auto leaving = s.array(s[plan::READ_LEAVING]);
    #pragma unroll 1
    for (int side = 0; side < 2; ++side) {
        const auto ports = s.side(last, o.sides[side]);
        const int all = s[plan::ALL_COLUMNS + o.sides[side]], columns = ports[plan::COLUMNS];
        const auto from = s.segment(o.segments[side]) + s[plan::OF_FEATURES + o.sides[side]];
        const auto out = s.array(s[plan::READ_SIDES + o.sides[side]]);
        // what moves against the way leaves into the segment behind
        const int way = 1 - side, at = way ? along : 0;
        const int q = s.direction(last, right, way)[plan::ALL];
        copy_rows(s, from, all, out, columns, h, columns);
        copy_rows(s, from + ports[plan::NEAR], all, leaving + at, states, h, q);
    }
    __syncthreads();
    #pragma unroll 1
    for (int side = 0; s.ring && side < 2; ++side) {
        // far ends: out of this segment, into the other one
        const auto ports = s.side(last, o.sides[side]), other = s.side(last, o.sides[1 - side]);
        const int all = s[plan::ALL_COLUMNS + o.sides[1 - side]], columns = ports[plan::COLUMNS];
        const int way = 1 - side, at = way ? along : 0;
        const auto own = s.segment(o.segments[side]);
        const auto far = s.segment(o.segments[1 - side]) +
                         (s[plan::OF_FEATURES + o.sides[1 - side]] + other[plan::FAR]);
        Product a = product(1, 1, h, columns, s.direction(last, right, way)[plan::ALL], 1);
        set_left(a, far, 0, 0, all, 1, 0);
        set_right(a, own + ports[plan::FAR_OUT], 0, 0, 1, columns, 0);
        add(s, a, s.array(s[plan::READ_SIDES + o.sides[side]]), 0, 0, columns, 1);
        const int p = s.direction(last, right, way)[plan::P];
        a = product(1, channels, h, p, p, 1);
        set_left(a, far, 0, p, all, 1, 0);
        set_right(a, own + ports[plan::THROUGH + 2], 0, p * p, 1, p, 0);
        add(s, a, leaving + at, 0, p, states, 1);
    }
    __syncthreads();
}
// What leaves the slice on account of channel k of the first mixer's sources, and enters
// a segment at an end of it: the left factor of their links.
__device__ inline void set_sent(const Sweep& s, Product& a, int into, int end,
                                int k) {
    const Slice& c = s.slice;
    const auto first = s.mixer(0), d = s.direction(first, !s.reverse, into);
    const int p = d[plan::P], columns = first[plan::PARTS] * c.n;
    if (end) {
        const int along = first[plan::CHANNELS] * s.direction(first, !s.reverse, 0)[plan::P];
        const auto sent = s.array(s[plan::SENT]) + ((into ? along : 0) + k * p) * columns;
        set_left(a, sent, 0, p * columns, 1, columns, 0);
    } else {
        const int stretch = first[plan::PARTS] * (first[plan::REACH] + 1);
        const int at = into ? d[plan::SENDING] : d[plan::SENDING_BACK] + stretch - columns;
        set_left(a, s.tables + (at + k * p * stretch), 0, p * stretch, 1, stretch, 0);
    }
    a.inner = p;
}

// Numbers of a row of links of a mixer: what enters, and what reaches far ends unless
// the mixer is the last one.
__device__ inline int links_of(const Sweep& s, int m) {
    const auto mixer = s.mixer(m);
    const int all = mixer[plan::RIGHT + plan::ALL] + mixer[plan::LEFT + plan::ALL];
    return s.ring && m + 1 < s[plan::MIXERS] ? 2 * all : all;
}

// Where the links of mixer m begin that channel k of the sources makes along the way, or
// channel k - channels against it, and the numbers of all links of a source.
__device__ inline Global<real> links_at(const Sweep& s, int m, int k, int& row) {
    const auto mixer = s.mixer(m);
    const int channels = s.mixer(0)[plan::CHANNELS], size = (links_of(s, m) + 3) / 4 * 4;
    const int start = k < channels ? 0 : s.direction(mixer, !s.reverse, 0)[plan::ALL];
    row = channels * size;
    return s.array(mixer[plan::LINKS]) + (k % channels * size + start);
}

// What comes back before a ring is closed, at the near and far ends.
__device__ __noinline__ void open_links(const Sweep& s, int m, int k) {
    const int ends = s.ring ? 2 : 1;
    #pragma unroll 1
    for (int e = 0; e < ends * ends; ++e) {
        const auto first = s.mixer(0), mixer = s.mixer(m);
        const Outside o = outside(s);
        const int channels = first[plan::CHANNELS], columns = first[plan::PARTS] * s.slice.n;
        const int way = k / channels, channel = k % channels;
        const int q = s.direction(mixer, !s.reverse, way)[plan::ALL];
        const int far = e / (s.ring ? 2 : 1), end = e % (s.ring ? 2 : 1);
        const int side = segment_of(way, far), into = side == end ? 1 : 0;
        const auto ports = s.side(first, o.sides[side]), rows = s.side(mixer, o.sides[side]);
        const int port = ports[end ? plan::FAR : plan::NEAR];
        const int from = rows[far ? plan::FAR_OUT : plan::OUT];
        Product a = product(1, 1, columns, q, 0, 1);
        set_sent(s, a, into, end, channel);
        set_right(a, s.segment(o.segments[side]) + (from + port + channel * a.inner), 0, 0,
                  rows[plan::COLUMNS], 1, 0);
        int row = 2 * q;
        if (s.ring)
            a.out = s.array(s[plan::UNCLOSED]) + far * q;
        else
            a.out = links_at(s, m, k, row);
        set_out(a, a.out, 0, 0, row, 1);
        a.more = end;
        multiply_turned(s, a);
    }
    __syncthreads();
}

// Closes them, and keeps what reaches far ends unless the mixer is the last one.
__device__ __noinline__ void close_links(const Sweep& s, int m, int k) {
    const auto mixer = s.mixer(m), first = s.mixer(0);
    const int channels = first[plan::CHANNELS], columns = first[plan::PARTS] * s.slice.n;
    const int way = k / channels;
    const auto d = s.direction(mixer, !s.reverse, way);
    const int p = d[plan::P], q = d[plan::ALL];
    const auto unclosed = s.array(s[plan::UNCLOSED]);
    int row;
    const auto out = links_at(s, m, k, row);
    Product a = product(1, mixer[plan::CHANNELS], columns, p, p, 1);
    set_left(a, unclosed, 0, p, 2 * q, 1, 0);
    set_right(a, s.tables + d[plan::CLOSURE], 0, p * p, 1, p, 0);
    assign(s, a, out, 0, p, row, 1);
    set_left(a, unclosed + q, 0, p, 2 * q, 1, 0);
    set_right(a, s.array(mixer[plan::CARRIED + way]), 0, p * p, 1, p, 0);
    add(s, a, out, 0, p, row, 1);
    if (m + 1 < s[plan::MIXERS]) {
        const int all = mixer[plan::RIGHT + plan::ALL] + mixer[plan::LEFT + plan::ALL];
        copy_rows(s, unclosed + q, 2 * q, out + all, row, columns, q);
    }
    __syncthreads();
}

// Features of what sources do far away.
__device__ __noinline__ void link_features(const Sweep& s) {
    #pragma unroll 1
    for (int e = 0; e < (s.ring ? 4 : 2); ++e) {
        const auto first = s.mixer(0), last = s.mixer(s[plan::MIXERS] - 1);
        const Outside o = outside(s);
        const int channels = first[plan::CHANNELS], columns = first[plan::PARTS] * s.slice.n;
        const int h = s[plan::FEATURES];
        const int side = s.ring ? e / 2 : e, end = s.ring ? e % 2 : 0;
        const int port = s.side(first, o.sides[side])[end ? plan::FAR : plan::NEAR];
        const int wide = s.side(last, o.sides[side])[plan::COLUMNS];
        Product a = product(1, channels, columns, h, 0, 1);
        set_sent(s, a, side == end ? 1 : 0, end, 0);
        set_right(a, s.array(s[plan::READ_SIDES + o.sides[side]]) + port, 0, a.inner, wide, 1, 0);
        set_out(a, s.array(s[plan::LINKED]), 0, h, channels * h, 1);
        a.more = e > 0;
        multiply_turned(s, a);
    }
    __syncthreads();
}

// How features read the last mixer's states that enter the slice, and its inputs: by
// what leaves.
__device__ __noinline__ void read_slice(const Sweep& s) {
    const Slice& c = s.slice;
    const auto last = s.mixer(s[plan::MIXERS] - 1);
    const int h = s[plan::FEATURES], n = c.n, width = last[plan::WIDTH];
    const int channels = last[plan::CHANNELS], parts = last[plan::PARTS];
    const int along = s.direction(last, !s.reverse, 0)[plan::ALL];
    const int states = along + s.direction(last, !s.reverse, 1)[plan::ALL];
    #pragma unroll 1
    for (int way = 0; way < 2; ++way) {
        const auto d = s.direction(last, !s.reverse, way);
        const int p = d[plan::P], at = way ? along : 0, line = parts * d[plan::ALL];
        Product a = product(1, channels, h, p, p, 1);
        set_left(a, s.array(s[plan::READ_LEAVING]) + at, 0, p, states, 1, 0);
        set_right(a, s.tables + (d[plan::POWERS] + n * channels * p * p), 0, p * p, 1, p, 0);
        assign(s, a, s.array(s[plan::READ_ENTERING]) + at, 0, p, states, 1);
        a.batches = parts;
        a.columns = n;
        set_right(a, s.tables + (d[plan::SENDING_LANES] + (way ? 0 : (n - 1) * line)),
                  d[plan::ALL], p, way ? line : -line, 1, 0);
        set_out(a, s.array(s[plan::READ_INPUTS]), channels, 1, n * width, width);
        a.more = way;
        multiply(s, a);
    }
    __syncthreads();
}

__device__ inline void link(const Sweep& s) {
    if (s.ring) carry(s);
    read_outside(s);
    // a channel of the sources at a time: what comes out of both segments is soon read again
    #pragma unroll 1
    for (int m = 1; m < s[plan::MIXERS]; ++m)
        #pragma unroll 1
        for (int k = 0; k < 2 * s.mixer(0)[plan::CHANNELS]; ++k) {
            open_links(s, m, k);
            if (s.ring) close_links(s, m, k);
        }
    if (s[plan::MIXERS] > 1) link_features(s);
    read_slice(s);
}

