// The GPU behind the stand-in for NVIDIA's driver: memory, kernels, streams.
//
// Nothing is done before somebody waits for it: work lies in the queue of its stream, and
// is done as late as the API allows, streams in an order chosen by DNET_STANDIN_ORDER.

#pragma once

#include "common.h"

#include <deque>
#include <memory>
#include <random>
#include <set>
#include <sys/mman.h>
#include <vector>

namespace standin {

typedef int Status; // CUresult
typedef unsigned long long Address;

enum : Status {
    SUCCESS = 0,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    NO_BINARY_FOR_GPU = 209,
    UNSUPPORTED_PTX_VERSION = 222,
    NOT_FOUND = 500,
};

// ---- what handles point to; they stay for ever, so that old ones are recognised

enum Kind { CONTEXT, STREAM, EVENT, MODULE, FUNCTION, GRAPH, EXECUTABLE };

inline const char* name_of(Kind kind) {
    const char* names[] = {"context", "stream", "event", "module", "function", "graph", "executable graph"};
    return names[kind];
}

struct Handle {
    Kind kind;
    bool alive = true;
    explicit Handle(Kind kind) : kind(kind) {}
    virtual ~Handle() {}
};

// Something others wait for.
struct Stream;
struct Marker {
    Stream* stream;
    bool passed = false;
};

struct Event : Handle {
    std::shared_ptr<Marker> last; // what it was recorded as
    Event() : Handle(EVENT) {}
};

struct Module : Handle {
    void* library = nullptr; // from dlopen
    int file = -1;
    std::vector<struct Function*> functions;
    int pending = 0;         // launches not done, and nodes of graphs
    Module() : Handle(MODULE) {}
};

// The types of kernels/shim_launch.h.
struct Array {
    void* first;
    long length;
};
struct Arguments {
    long samples;
    int sizes[4];
    Array arrays[7];
};

struct Function : Handle {
    Module* module;
    std::string name;
    void* kernel;
    int most_threads;
    size_t size, alignment; // of its parameters
    void (*read)(const void*, Arguments*);
    const char* (*run)(void*, const Arguments*, int, int, long, int);
    Function() : Handle(FUNCTION) {}
};

struct Launch {
    Function* function;
    int blocks, threads;
    unsigned shared;
    std::vector<char> parameters; // as they were when the launch was asked for
};

struct Graph : Handle {
    std::vector<Launch> launches;
    explicit Graph(Kind kind) : Handle(kind) {}
    std::shared_ptr<Marker> last; // of an executable graph: its last launch
};

struct Allocation {
    size_t bytes;
    int pending = 0; // pieces of work not done that use it
};

// A piece of work.
struct Work {
    enum Type { KERNEL, UPLOAD, DOWNLOAD, RECORD, WAIT } type;
    Launch launch;
    Address device = 0;
    void* host = nullptr;
    size_t length = 0;
    std::shared_ptr<Marker> marker;
    std::vector<Address> uses; // allocations, by their first byte
};

struct Stream : Handle {
    std::deque<Work> queue;
    Graph* capture = nullptr;
    int mode = 0;
    const void* capturer = nullptr; // the thread that began
    Stream() : Handle(STREAM) {}
};

// ---- the GPU

struct Device {
    std::mutex lock; // of everything here
    std::set<const void*> handles;
    std::map<Address, Allocation> memory;
    std::vector<Stream*> streams;
    size_t used = 0, most_used = 0;
    Status broken = 0; // what every call returns after a kernel failed
    const long order = number("DNET_STANDIN_ORDER", 0);
    std::mt19937_64 random{(unsigned long long)order};
    long launches = 0, graph_launches = 0, waits = 0, uploads = 0, downloads = 0, allocations = 0, modules = 0;

    // 143,771 MiB, as an H200 has
    const size_t total = (size_t)number("DNET_STANDIN_MEMORY", 143771ll << 20);

    template <class T> T* add(T* handle) {
        handles.insert(static_cast<const Handle*>(handle));
        return handle;
    }

    template <class T> T* known(const char* call, Kind kind, void* handle) {
        if (!handle) refuse(call, "there is no %s", name_of(kind));
        if (!handles.count(handle)) refuse(call, "%p is no %s", handle, name_of(kind));
        Handle* h = static_cast<Handle*>(handle);
        if (h->kind != kind) refuse(call, "a %s in place of a %s", name_of(h->kind), name_of(kind));
        if (!h->alive) refuse(call, "this %s was destroyed", name_of(kind));
        return static_cast<T*>(h);
    }

    long alive(Kind kind) const {
        long count = 0;
        for (const void* h : handles) {
            const Handle* own = static_cast<const Handle*>(h);
            count += own->alive && own->kind == kind;
        }
        return count;
    }

    // ---- memory

    // An address is never handed out again; a page behind every allocation is out of bounds.
    Status allocate(Address* address, size_t bytes) {
        if (bytes > total || used + bytes > total) return OUT_OF_MEMORY;
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        const size_t whole = mapped(bytes);
        void* first = mmap(nullptr, whole + PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (first == MAP_FAILED) return OUT_OF_MEMORY;
        mprotect((char*)first + whole, PAGE, PROT_NONE);
        // NaN in both precisions: what nobody wrote shows
        if (bytes <= (64 << 20)) memset(first, 0xff, bytes);
        *address = (Address)first;
        memory[*address] = {bytes};
        used += bytes;
        most_used = std::max(most_used, used);
        ++allocations;
        return SUCCESS;
    }

    void release(const char* call, Address address) {
        const auto found = memory.find(address);
        if (found == memory.end())
            refuse(call, "%#llx is not the beginning of memory in use: freed before?", address);
        if (found->second.pending)
            refuse(call, "work that was not waited for uses the memory at %#llx", address);
        // the addresses stay taken
        mmap((void*)address, mapped(found->second.bytes), PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        used -= found->second.bytes;
        memory.erase(found);
    }

    // The allocation an address is in, or right behind.
    std::pair<const Address, Allocation>* around(Address address) {
        auto found = memory.upper_bound(address);
        if (found == memory.begin()) return nullptr;
        --found;
        return address <= found->first + found->second.bytes ? &*found : nullptr;
    }

    // Notes that work uses so many bytes.
    void use(const char* call, Work& work, Address address, size_t bytes) {
        auto* own = around(address);
        if (!own) refuse(call, "%#llx is outside all memory in use", address);
        if (address + bytes > own->first + own->second.bytes)
            refuse(call, "%zu bytes at %#llx are more than the memory there has", bytes, address);
        ++own->second.pending;
        work.uses.push_back(own->first);
    }

    // ---- kernels

    Arguments arguments(const char* call, const Launch& launch) {
        Arguments a;
        launch.function->read(launch.parameters.data(), &a);
        for (Array& array : a.arrays) {
            const Address address = (Address)array.first;
            const auto* own = address ? around(address) : nullptr;
            if (address && !own)
                refuse(call, "%s: a pointer %#llx outside all memory in use", launch.function->name.c_str(), address);
            // what the kernel may touch ends with the allocation
            const size_t bytes = own ? own->first + own->second.bytes - address : 0;
            if (address % array.length)
                refuse(call, "%s: the pointer %#llx is not aligned", launch.function->name.c_str(), address);
            array.length = (long)(bytes / array.length);
        }
        return a;
    }

    Work work_of(const char* call, const Launch& launch) {
        Work work{};
        work.type = Work::KERNEL;
        work.launch = launch;
        for (const Array& array : arguments(call, launch).arrays)
            if (array.first) use(call, work, (Address)array.first, 0);
        ++launch.function->module->pending;
        return work;
    }

    void run(const Launch& launch) {
        ++launches;
        if (const int code = fault("kernel")) {
            broken = code;
            return;
        }
        const Arguments a = arguments("a kernel", launch);
        const Function& f = *launch.function;
        const char* error =
            f.run(f.kernel, &a, launch.blocks, launch.threads, launch.shared / 8, (int)order);
        if (error) refuse("a kernel", "%s: %s", f.name.c_str(), error);
    }

    // ---- streams

    void perform(Work& work) {
        for (Address address : work.uses) --memory.at(address).pending;
        if (work.type == Work::KERNEL) --work.launch.function->module->pending;
        if (work.marker && work.type == Work::RECORD) work.marker->passed = true;
        if (broken) return; // what was asked for before a failure is lost
        switch (work.type) {
        case Work::KERNEL: run(work.launch); break;
        case Work::UPLOAD: memcpy((void*)work.device, work.host, work.length); break;
        case Work::DOWNLOAD: memcpy(work.host, (void*)work.device, work.length); break;
        case Work::RECORD:
        case Work::WAIT: break;
        }
    }

    // The next piece of work of a stream, after what it waits for.
    void advance(Stream* stream) {
        Work work = std::move(stream->queue.front());
        stream->queue.pop_front();
        if (work.type == Work::WAIT)
            while (!work.marker->passed) advance(work.marker->stream);
        perform(work);
    }

    // Does all work of a stream: nothing else for order 0, all others first for order 1,
    // and streams in random order for larger numbers.
    void wait(Stream* stream) {
        for (Stream* other : streams)
            while (order == 1 && other != stream && !other->queue.empty()) advance(other);
        while (!stream->queue.empty()) {
            Stream* next = order > 1 ? streams[random() % streams.size()] : stream;
            if (!next->queue.empty()) advance(next);
        }
    }

    void ask(Stream* stream, Work work) { stream->queue.push_back(std::move(work)); }

private:
    static constexpr size_t PAGE = 4096;
    static size_t mapped(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }
};

} // namespace standin
