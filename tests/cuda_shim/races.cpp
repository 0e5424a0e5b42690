// An exact race detector for kernels behind kernels/shim.h.
//
// Kernels are compiled with -fsanitize=thread, and of that only the calls are used that
// g++ puts before every access to memory: this library is what they call, in place of the
// one that belongs to the option. It keeps, for every few bytes, who wrote them last and
// who has read them since, and knows CUDA's rules:
//
//   - accesses of two threads of a block, one of them a write, need a barrier between
//     them, whatever is written; warp shuffles are none;
//   - blocks of a launch are never ordered: bytes that one of them writes are its own,
//     unless all accesses are atomic;
//   - what was never written since its allocation, or, in shared memory, since the block
//     began, must not be read;
//   - nobody touches the stack of another thread.
//
// Blocks run one after the other and the threads of a block in turns, so that nothing here
// needs locks; an access is compared with all those before it in the same launch. The
// first violation ends the launch with a sentence. Places in the code are offsets into the
// shared object, between < and >: the last one first, then its callers.

#include "../../kernels/shim_races.h"

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include <dlfcn.h>

namespace {

typedef unsigned long long Word;

// When, and by whom: number of the block among all that ever ran, of the barrier it
// passed last, of the thread, and what else is to be known. 0: never.
typedef Word Stamp;
constexpr int FLAGS = 4, THREADS = 10, EPOCHS = 23;
constexpr Stamp
    ATOMIC = 1,  // of a write
    PLAIN = 2,   // of an atomic write: the block also wrote otherwise, before a barrier
    MANY = 4,    // several threads since that barrier: the one named, and others
    BLOCKS = 8;  // other blocks of the launch as well
constexpr Stamp ONE_EPOCH = Stamp(1) << (FLAGS + THREADS), ONE_BLOCK = ONE_EPOCH << EPOCHS;
constexpr Stamp BY_THE_HOST = ONE_EPOCH;

// How a stamp differs from another one: below OTHER_EPOCH by the thread or not at all.
constexpr Stamp OTHER_EPOCH = Stamp(1) << THREADS, OTHER_BLOCK = OTHER_EPOCH << EPOCHS;
inline Stamp difference(Stamp a, Stamp b) { return (a ^ b) >> FLAGS; }

struct Cell {
    Stamp write, read;
    unsigned writer, reader; // places: the lower half of an address
};

// Some memory, of which a cell covers 2^log bytes: as many as all accesses agree with.
struct Memory {
    Word first = 0, bytes = 0;
    Stamp launch = 0;  // what is older does not conflict
    Stamp written = 1; // what is older was not written
    int log = 3;
    Cell* cells = nullptr;

    Memory(Word first, Word bytes) : first(first), bytes(bytes) { cells = fresh(log); }
    Memory(const Memory&) = delete;
    ~Memory() { free(cells); }

    Cell* fresh(int log) const {
        void* all = calloc((bytes >> log) + 1, sizeof(Cell));
        if (!all) abort();
        return static_cast<Cell*>(all);
    }

    bool holds(Word at) const { return at - first < bytes; }

    void split(int finer) {
        Cell* own = fresh(finer);
        for (Word k = 0; k <= bytes >> finer; ++k) own[k] = cells[k >> (log - finer)];
        free(cells);
        cells = own;
        log = finer;
    }

    // The cells of an access: from the one returned to `end`.
    Cell* range(Word at, Word length, Cell*& end) {
        const Word offset = at - first;
        if (length > bytes - offset) abort();
        if ((offset | length) & ((1u << log) - 1)) split(std::countr_zero(offset | length));
        end = cells + ((offset + length) >> log);
        return cells + (offset >> log);
    }
};

} // namespace

// What a device has.
struct dnet_races_device {
    std::map<Word, Memory> memory;
    Stamp blocks = 0; // that ever ran

    Memory* around(Word at) {
        auto found = memory.upper_bound(at);
        if (found == memory.begin()) return nullptr;
        --found;
        return found->second.holds(at) ? &found->second : nullptr;
    }
};

namespace {

enum Access { READ, WRITE, ATOMICALLY };

struct Run {
    dnet_races_ground ground;
    dnet_races_device& device;
    Memory shared;
    bool strict; // about what was never written
    Stamp now = 0, launch; // of the thread that runs; of the first block
    Word stack = 0;        // of the thread that runs
    // where the last accesses to some addresses were
    static constexpr int RECENT = 64;
    Memory* recent[RECENT] = {};

    Run(const dnet_races_ground& g, dnet_races_device& device, bool strict)
        : ground(g), device(device), shared((Word)g.shared, g.shared_bytes), strict(strict),
          launch((device.blocks + 1) * ONE_BLOCK) {}

    // ---- who did what

    int name(char* to, size_t size, const Memory& m, Word at) const {
        if (&m == &shared) return snprintf(to, size, "byte %llu of shared memory", at - m.first);
        for (const dnet_races_array& a : ground.arrays)
            if (at - (Word)a.first < a.bytes)
                return snprintf(to, size, "byte %llu of `%s`", at - (Word)a.first, a.name);
        return snprintf(to, size, "byte %llu of some memory of %llu bytes", at - m.first, m.bytes);
    }

    int who(char* to, size_t size, Stamp stamp) const {
        const Stamp thread = stamp >> FLAGS & (OTHER_EPOCH - 1);
        const Stamp number = stamp / ONE_BLOCK - launch / ONE_BLOCK;
        return snprintf(to, size, "thread %d of block %d", (int)thread, (int)number);
    }

    // Ends the launch. `frame`: of the function that was called before the access.
    [[noreturn]] __attribute__((noinline, cold))
    void report(const Memory* m, Word at, Access access, Stamp other, unsigned place, bool wrote,
                void** frame) const {
        char text[1024];
        const size_t size = sizeof text;
        const char* verbs[] = {"reads", "writes", "atomically changes"};
        int n = snprintf(text, size, other ? "race: " : m ? "unwritten: " : "stack: ");
        n += who(text + n, size - n, now);
        n += snprintf(text + n, size - n, " %s ", verbs[access]);
        if (m)
            n += name(text + n, size - n, *m, at);
        else
            n += snprintf(text + n, size - n, "the stack of thread %d",
                          (int)((at - (Word)ground.stacks) / ground.stack));
        Dl_info module{};
        dladdr(frame[1], &module);
        n += snprintf(text + n, size - n, " <");
        // frames of the fiber end with a null pointer
        for (int k = 0; k < 4 && (Word)frame - stack < ground.stack && frame[1]; ++k) {
            const Word offset = (Word)frame[1] - (Word)module.dli_fbase - 1;
            n += snprintf(text + n, size - n, k ? " 0x%llx" : "0x%llx", offset);
            frame = (void**)*frame;
        }
        n += snprintf(text + n, size - n, ">");
        if (other) {
            n += snprintf(text + n, size - n, ", which ");
            n += who(text + n, size - n, other);
            const bool apart = difference(other, now) >= OTHER_BLOCK || other & BLOCKS;
            n += snprintf(text + n, size - n, "%s %s%s <0x%llx>",
                          other & BLOCKS ? ", or an earlier block," : other & MANY ? ", among others," : "",
                          wrote ? "wrote" : "read", apart ? " in the same launch" : " since the last barrier",
                          (Word)(place - (unsigned)(Word)module.dli_fbase - 1));
        } else if (m) {
            n += snprintf(text + n, size - n, ", which was never written");
        }
        ground.fail(text);
        abort();
    }

    // ---- the rules

    template <Access ACCESS>
    inline void check(Memory& m, Cell& c, Word at, unsigned place, void** frame) {
        const Stamp w = c.write, r = c.read;
        const Stamp from_write = difference(w, now), from_read = difference(r, now);
        if (ACCESS != WRITE && w < m.written && strict) report(&m, at, ACCESS, 0, 0, false, frame);
        const bool both_atomic = ACCESS == ATOMICALLY && w & ATOMIC;
        if (w >= m.launch) {
            const bool apart = from_write >= OTHER_BLOCK || w & BLOCKS;
            const bool beside = from_write < OTHER_EPOCH && (from_write || w & MANY);
            if (both_atomic ? apart && w & PLAIN : apart || beside)
                report(&m, at, ACCESS, w, c.writer, true, frame);
        }
        if (ACCESS == READ) {
            if (from_read < OTHER_EPOCH) {
                if (from_read) c.read = r | MANY;
                return;
            }
            c.read = now | (r >= m.launch && (from_read >= OTHER_BLOCK || r & BLOCKS) ? BLOCKS : 0);
            c.reader = place;
            return;
        }
        if (r >= m.launch && (from_read >= OTHER_BLOCK || r & BLOCKS ||
                              (from_read < OTHER_EPOCH && (from_read || r & MANY))))
            report(&m, at, ACCESS, r, c.reader, false, frame);
        if (ACCESS == WRITE || w < m.launch) {
            c.write = now | (ACCESS == WRITE ? 0 : ATOMIC);
        } else if (from_write < OTHER_EPOCH) {
            // also after a plain write of the same thread, which stays one
            if (from_write) c.write = w | MANY;
        } else {
            const Stamp others = w & BLOCKS || from_write >= OTHER_BLOCK ? BLOCKS : 0;
            const Stamp plain = w & PLAIN || !(w & ATOMIC) ? PLAIN : 0;
            c.write = now | ATOMIC | others | plain;
        }
        c.writer = place;
    }

    // The memory at an address; null for what kernels only read: tables of the compiler,
    // variables of the shim.
    __attribute__((noinline)) Memory* find(Word at, Access access, void** frame) {
        Memory* m = shared.holds(at) ? &shared : device.around(at);
        if (m) {
            if (m != &shared) m->launch = launch;
            recent[at >> 12 & (RECENT - 1)] = m;
        } else if (at - (Word)ground.stacks < ground.threads * ground.stack) {
            report(nullptr, at, access, 0, 0, false, frame);
        }
        return m;
    }

    template <Access ACCESS>
    inline void access(Word at, Word bytes, void* place, void** frame) {
        if (at - stack < ground.stack) return;
        Memory* m = recent[at >> 12 & (RECENT - 1)];
        if (!m || !m->holds(at)) m = find(at, ACCESS, frame);
        if (!m || !bytes) return;
        Cell* end;
        Cell* c = m->range(at, bytes, end);
        for (; c < end; ++c)
            check<ACCESS>(*m, *c, m->first + ((Word)(c - m->cells) << m->log), (unsigned)(Word)place, frame);
    }
};

// The launch of this thread, and the same while a thread of the kernel runs.
thread_local Run* launched;
thread_local dnet_races_device* entered;
thread_local bool careful = true;
__attribute__((tls_model("initial-exec"))) thread_local Run* running;

} // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// ---- for hosts

EXPORT dnet_races_device* dnet_races_new() { return new dnet_races_device; }
EXPORT void dnet_races_delete(dnet_races_device* d) { delete d; }

EXPORT void dnet_races_allocated(dnet_races_device* d, Word address, Word bytes) {
    d->memory.erase(address);
    d->memory.try_emplace(address, address, bytes);
}

EXPORT void dnet_races_released(dnet_races_device* d, Word address) { d->memory.erase(address); }

// Bytes that the host wrote, or that hold nothing any more.
EXPORT void dnet_races_set(dnet_races_device* d, Word address, Word bytes, bool written) {
    Memory* m = d->around(address);
    if (!m || !bytes) return;
    Cell* end;
    for (Cell* c = m->range(address, bytes, end); c < end; ++c) *c = {written ? BY_THE_HOST : 0, 0, 0, 0};
}

// The next launches of this host thread are on this device; null: they are not watched.
EXPORT void dnet_races_enter(dnet_races_device* d) { entered = d; }

// Whether the next launches of this host thread must not read what was never written.
EXPORT void dnet_races_strict(bool strict) { careful = strict; }

// ---- for the shim

EXPORT void dnet_races_launch(const dnet_races_ground* ground) {
    launched = entered ? new Run(*ground, *entered, careful) : nullptr;
}

EXPORT void dnet_races_block() {
    if (!launched) return;
    const Stamp block = ++launched->device.blocks;
    if (block > ~Stamp(0) / ONE_BLOCK) abort();
    launched->now = block * ONE_BLOCK;
    launched->shared.launch = launched->shared.written = launched->now;
}

// Thread number k runs, or, below zero, none.
EXPORT void dnet_races_thread(int k) {
    running = k < 0 ? nullptr : launched;
    if (!running) return;
    running->stack = (Word)running->ground.stacks + k * running->ground.stack;
    const Stamp own = (OTHER_EPOCH - 1) << FLAGS;
    running->now = (running->now & ~own) | (Stamp)k << FLAGS;
}

EXPORT void dnet_races_barrier() {
    if (!launched) return;
    launched->now += ONE_EPOCH;
    if (launched->now % ONE_BLOCK < ONE_EPOCH) abort(); // too many barriers
}

EXPORT void dnet_races_end() {
    delete launched;
    launched = nullptr;
}

EXPORT void dnet_races_atomic(void* at, Word bytes) {
    if (running)
        running->access<ATOMICALLY>((Word)at, bytes, __builtin_return_address(0),
                                    (void**)__builtin_frame_address(0));
}

// ---- for the compiler

#define NOTE(KIND, BYTES)                                                             \
    if (running)                                                                      \
        running->access<KIND>((Word)at, BYTES, __builtin_return_address(0),           \
                              (void**)__builtin_frame_address(0));

#define SIZED(BYTES)                                                                  \
    EXPORT void __tsan_read##BYTES(void* at) { NOTE(READ, BYTES) }                    \
    EXPORT void __tsan_write##BYTES(void* at) { NOTE(WRITE, BYTES) }                  \
    EXPORT void __tsan_unaligned_read##BYTES(void* at) { NOTE(READ, BYTES) }          \
    EXPORT void __tsan_unaligned_write##BYTES(void* at) { NOTE(WRITE, BYTES) }

SIZED(1)
SIZED(2)
SIZED(4)
SIZED(8)
SIZED(16)

EXPORT void __tsan_read_range(void* at, Word bytes) { NOTE(READ, bytes) }
EXPORT void __tsan_write_range(void* at, Word bytes) { NOTE(WRITE, bytes) }
EXPORT void __tsan_init() {}
EXPORT void __tsan_func_entry(void*) {}
EXPORT void __tsan_func_exit() {}
