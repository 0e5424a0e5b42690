// A stand-in for NVIDIA's driver: those functions of its API that src/back/cuda calls,
// with a GPU made of host memory and fibers. For tests.
//
//   DNET_STANDIN_GPUS          how many, 1
//   DNET_STANDIN_ARCHITECTURE  compute capability times ten, 90
//   DNET_STANDIN_PROCESSORS    multiprocessors, 132
//   DNET_STANDIN_MEMORY        bytes
//   DNET_STANDIN_DRIVER        CUDA version, "12.9"
//   DNET_STANDIN_ORDER         order of streams, see device.h, and of threads, see kernels/shim.h
//   DNET_STANDIN_FAULTS        see common.h
//   DNET_STANDIN_REPORT        a file that gets a line of counts when the process ends

#include "device.h"

#include <dlfcn.h>
#include <unistd.h>

using namespace standin;

namespace {

bool started = false;
thread_local Handle* current = nullptr;
thread_local char this_thread;

Device& gpu() {
    static Device* device = new Device; // never destroyed: threads may outlive main
    return *device;
}

struct Context : Handle {
    int device;
    Context() : Handle(CONTEXT) {}
};

const int GPUS = (int)number("DNET_STANDIN_GPUS", 1);
const int ARCHITECTURE = (int)number("DNET_STANDIN_ARCHITECTURE", 90);
const int PROCESSORS = (int)number("DNET_STANDIN_PROCESSORS", 132);
constexpr unsigned SHARED = 48 << 10; // what a block gets without being asked

// What every call begins with: the lock, and a failure that was asked for.
struct Entry {
    std::unique_lock<std::mutex> lock{gpu().lock};
    Status failure;
    explicit Entry(const char* call, bool in_context = true) {
        if (!started) refuse(call, "cuInit was not called");
        if (in_context && !current) refuse(call, "no context is current in this thread");
        failure = in_context && gpu().broken ? gpu().broken : fault(call);
    }
};

// The beginning of an entry point: returns a failure that was asked for.
#define ENTER()            \
    Entry entry(__func__); \
    if (entry.failure) return entry.failure

// As ENTER, for calls that need no context.
#define ENTER_ANYWHERE()          \
    Entry entry(__func__, false); \
    if (entry.failure) return entry.failure

// Calls that a capture forbids: of any thread, of its own thread, or none.
void outside_captures(const char* call) {
    for (Stream* s : gpu().streams)
        if (s->capture && (s->mode == 0 || (s->mode == 1 && s->capturer == &this_thread)))
            refuse(call, "a stream is being captured in a mode that forbids it");
}

Stream* stream_of(const char* call, void* handle) {
    return gpu().known<Stream>(call, STREAM, handle);
}

Stream* plain_stream(const char* call, void* handle) {
    Stream* stream = stream_of(call, handle);
    if (stream->capture) refuse(call, "the stream is being captured");
    return stream;
}

// At exit: copies nobody waited for, captures nobody ended; the counts.
struct AtExit {
    ~AtExit() {
        if (!started) return;
        Device& d = gpu();
        std::lock_guard<std::mutex> own(d.lock);
        for (Stream* s : d.streams) {
            if (s->capture) refuse("exit", "a capture was not ended");
            for (const Work& w : s->queue)
                if (w.type == Work::DOWNLOAD) refuse("exit", "a copy to the host was not waited for");
        }
        char line[512];
        snprintf(line, sizeof line,
                 "{\"launches\": %ld, \"graph_launches\": %ld, \"waits\": %ld, \"uploads\": %ld, \"downloads\": %ld, "
                 "\"allocations\": %ld, \"memory\": %zu, \"most_memory\": %zu, \"modules_loaded\": %ld, "
                 "\"modules\": %ld, \"contexts\": %ld, \"events\": %ld, \"graphs\": %ld, \"executables\": %ld}",
                 d.launches, d.graph_launches, d.waits, d.uploads, d.downloads, d.allocations, d.used, d.most_used,
                 d.modules, d.alive(MODULE), d.alive(CONTEXT), d.alive(EVENT), d.alive(GRAPH), d.alive(EXECUTABLE));
        note("DNET_STANDIN_REPORT", line);
    }
} at_exit;

} // namespace

extern "C" {

// ---- the driver and its devices

Status cuInit(unsigned flags) {
    if (flags) refuse(__func__, "flags must be 0");
    std::lock_guard<std::mutex> own(gpu().lock);
    if (const int code = fault(__func__)) return code;
    if (GPUS == 0) return NO_DEVICE;
    started = true;
    return SUCCESS;
}

Status cuDriverGetVersion(int* number) {
    *number = version("DNET_STANDIN_DRIVER");
    return SUCCESS;
}

Status cuGetErrorString(Status code, const char** text) {
    static const std::map<Status, const char*> texts = {
        {0, "no error"},
        {1, "invalid argument"},
        {2, "out of memory"},
        {3, "initialization error"},
        {34, "CUDA driver is a stub library"},
        {100, "no CUDA-capable device is detected"},
        {101, "invalid device ordinal"},
        {200, "device kernel image is invalid"},
        {201, "invalid device context"},
        {209, "no kernel image is available for execution on the device"},
        {222, "the provided PTX was compiled with an unsupported toolchain."},
        {500, "named symbol not found"},
        {700, "an illegal memory access was encountered"},
        {701, "too many resources requested for launch"},
        {719, "unspecified launch failure"},
        {803, "system has unsupported display driver / cuda driver combination"},
        {900, "operation not permitted when stream is capturing"},
        {999, "unknown error"},
    };
    const auto found = texts.find(code);
    *text = found == texts.end() ? nullptr : found->second;
    return *text ? SUCCESS : 1;
}

Status cuDeviceGetCount(int* count) {
    ENTER_ANYWHERE();
    *count = GPUS;
    return SUCCESS;
}

Status cuDeviceGet(int* device, int ordinal) {
    ENTER_ANYWHERE();
    if (ordinal < 0 || ordinal >= GPUS) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

Status cuDeviceGetName(char* name, int length, int device) {
    ENTER_ANYWHERE();
    if (device < 0 || device >= GPUS) refuse(__func__, "there is no device %d", device);
    snprintf(name, length, "stand-in for an H200");
    return SUCCESS;
}

Status cuDeviceGetAttribute(int* value, int attribute, int device) {
    ENTER_ANYWHERE();
    if (device < 0 || device >= GPUS) refuse(__func__, "there is no device %d", device);
    switch (attribute) {
    case 16: *value = PROCESSORS; return SUCCESS;
    case 75: *value = ARCHITECTURE / 10; return SUCCESS;
    case 76: *value = ARCHITECTURE % 10; return SUCCESS;
    default: refuse(__func__, "attribute %d is not known here", attribute);
    }
}

Status cuDevicePrimaryCtxRetain(void** context, int device) {
    ENTER_ANYWHERE();
    if (device < 0 || device >= GPUS) refuse(__func__, "there is no device %d", device);
    static std::map<int, Context*> all;
    if (!all[device]) {
        all[device] = gpu().add(new Context);
        all[device]->device = device;
    }
    *context = all[device];
    return SUCCESS;
}

Status cuCtxSetCurrent(void* context) {
    ENTER_ANYWHERE();
    current = gpu().known<Context>(__func__, CONTEXT, context);
    return SUCCESS;
}

// ---- memory

Status cuMemGetInfo_v2(size_t* free, size_t* total) {
    ENTER();
    *total = gpu().total;
    *free = gpu().total - gpu().used;
    return SUCCESS;
}

Status cuMemAlloc_v2(Address* address, size_t bytes) {
    ENTER();
    if (!address || bytes == 0) refuse(__func__, "no bytes are asked for");
    outside_captures(__func__);
    return gpu().allocate(address, bytes);
}

Status cuMemFree_v2(Address address) {
    ENTER();
    outside_captures(__func__);
    gpu().release(__func__, address);
    return SUCCESS;
}

// Never freed: what goes to the GPU passes through it as long as the process lives.
Status cuMemHostAlloc(void** address, size_t bytes, unsigned flags) {
    ENTER();
    if (flags & ~7u) refuse(__func__, "flags %u", flags);
    *address = malloc(bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

// Reads the host's memory when the copy is made, not now.
Status cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void* handle) {
    ENTER();
    Stream* stream = plain_stream(__func__, handle);
    if (!from && bytes) refuse(__func__, "there is nothing to copy from");
    Work work{};
    work.type = Work::UPLOAD;
    work.device = to;
    work.host = (void*)from;
    work.length = bytes;
    gpu().use(__func__, work, to, bytes);
    gpu().ask(stream, std::move(work));
    ++gpu().uploads;
    return SUCCESS;
}

Status cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* handle) {
    ENTER();
    Stream* stream = plain_stream(__func__, handle);
    if (!to && bytes) refuse(__func__, "there is nothing to copy to");
    Work work{};
    work.type = Work::DOWNLOAD;
    work.device = from;
    work.host = to;
    work.length = bytes;
    gpu().use(__func__, work, from, bytes);
    memset(to, 0xff, bytes); // until somebody waits for the stream
    gpu().ask(stream, std::move(work));
    ++gpu().downloads;
    return SUCCESS;
}

// ---- streams and events

Status cuStreamCreate(void** stream, unsigned flags) {
    ENTER();
    if (flags != 1) refuse(__func__, "a stream that waits for the default one");
    Stream* made = gpu().add(new Stream);
    gpu().streams.push_back(made);
    *stream = made;
    return SUCCESS;
}

Status cuStreamSynchronize(void* handle) {
    ENTER();
    gpu().wait(plain_stream(__func__, handle));
    return gpu().broken;
}

Status cuStreamWaitEvent(void* handle, void* event, unsigned flags) {
    ENTER();
    if (flags) refuse(__func__, "flags must be 0");
    Stream* stream = plain_stream(__func__, handle);
    Event* e = gpu().known<Event>(__func__, EVENT, event);
    if (!e->last) refuse(__func__, "the event was never recorded");
    Work work{};
    work.type = Work::WAIT;
    work.marker = e->last;
    gpu().ask(stream, std::move(work));
    ++gpu().waits;
    return SUCCESS;
}

Status cuEventCreate(void** event, unsigned flags) {
    ENTER();
    if (flags & ~3u) refuse(__func__, "flags %u", flags);
    *event = gpu().add(new Event);
    return SUCCESS;
}

// Puts a marker behind what a stream was asked for.
static std::shared_ptr<Marker> mark(Stream* stream) {
    Work work{};
    work.type = Work::RECORD;
    work.marker = std::make_shared<Marker>(Marker{stream});
    auto marker = work.marker;
    gpu().ask(stream, std::move(work));
    return marker;
}

Status cuEventRecord(void* event, void* handle) {
    ENTER();
    Stream* stream = plain_stream(__func__, handle);
    gpu().known<Event>(__func__, EVENT, event)->last = mark(stream);
    return SUCCESS;
}

Status cuEventSynchronize(void* event) {
    ENTER();
    Event* e = gpu().known<Event>(__func__, EVENT, event);
    if (!e->last) refuse(__func__, "the event was never recorded");
    while (!e->last->passed) gpu().advance(e->last->stream);
    return gpu().broken;
}

// What waits for it goes on to wait: the documentation allows it.
Status cuEventDestroy_v2(void* event) {
    ENTER();
    gpu().known<Event>(__func__, EVENT, event)->alive = false;
    return SUCCESS;
}

// ---- modules and kernels

// Opens a shared object, as a file of its own for as long as it is loaded: libraries are
// told apart by their names.
static void open(Module& module, const char* bytes, size_t size) {
    module.file = memfd_create("cubin", 0);
    const std::string path = "/proc/self/fd/" + std::to_string(module.file);
    if (module.file >= 0 && write(module.file, bytes, size) == (ssize_t)size)
        module.library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
}

// Bytes of an ELF file whose section headers come last, as linkers write it.
static size_t elf_size(const unsigned char* image) {
    unsigned long long sections;
    unsigned short each, count;
    memcpy(&sections, image + 0x28, 8);
    memcpy(&each, image + 0x3a, 2);
    memcpy(&count, image + 0x3c, 2);
    return sections + (size_t)each * count;
}

Status cuModuleLoadData(void** module, const void* image) {
    ENTER();
    outside_captures(__func__);
    const std::string elf = "\x7f" "ELF", ptx = "// in place of PTX\n";
    Module made;
    if (memcmp(image, elf.data(), elf.size()) == 0) {
        open(made, (const char*)image, elf_size((const unsigned char*)image));
    } else if (strncmp((const char*)image, ptx.c_str(), ptx.size()) == 0) {
        std::vector<char> bytes;
        const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
        for (const char* c = (const char*)image + ptx.size(); *c; c += 2)
            bytes.push_back((char)(16 * digit(c[0]) + digit(c[1])));
        open(made, bytes.data(), bytes.size());
    }
    if (!made.library) return INVALID_IMAGE;
    const int* target = (const int*)dlsym(made.library, "dnet_target");
    if (!target) refuse(__func__, "an object the stand-in did not compile");
    const bool is_ptx = target[2];
    if (is_ptx ? target[0] > ARCHITECTURE : target[0] / 10 != ARCHITECTURE / 10 || target[0] > ARCHITECTURE)
        return NO_BINARY_FOR_GPU;
    if (is_ptx && target[1] > version("DNET_STANDIN_DRIVER")) return UNSUPPORTED_PTX_VERSION;
    if (target[1] / 1000 > version("DNET_STANDIN_DRIVER") / 1000) return INVALID_IMAGE;
    *module = gpu().add(new Module(made));
    ++gpu().modules;
    return SUCCESS;
}

Status cuModuleUnload(void* handle) {
    ENTER();
    outside_captures(__func__);
    Module* module = gpu().known<Module>(__func__, MODULE, handle);
    if (module->pending) refuse(__func__, "its kernels are still to run, or in a graph");
    module->alive = false;
    for (Function* f : module->functions) f->alive = false;
    dlclose(module->library);
    close(module->file);
    return SUCCESS;
}

Status cuModuleGetFunction(void** function, void* handle, const char* name) {
    ENTER();
    Module* module = gpu().known<Module>(__func__, MODULE, handle);
    const auto symbol = [&](const std::string& name) { return dlsym(module->library, name.c_str()); };
    const int* threads = (const int*)symbol(std::string("dnet_threads_") + name);
    if (!threads) return NOT_FOUND;
    Function* f = gpu().add(new Function);
    f->module = module;
    f->name = name;
    f->kernel = symbol(name);
    f->most_threads = *threads;
    f->size = *(const size_t*)symbol("dnet_parameters_size");
    f->alignment = *(const size_t*)symbol("dnet_parameters_alignment");
    f->read = (decltype(f->read))symbol("dnet_parameters");
    f->run = (decltype(f->run))symbol("dnet_launch");
    module->functions.push_back(f);
    *function = f;
    return SUCCESS;
}

// Registers are not known: 65,536 of them, 64 for each thread.
Status cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int threads, size_t shared) {
    ENTER();
    const Function* f = gpu().known<Function>(__func__, FUNCTION, function);
    if (threads < 1 || threads > f->most_threads) refuse(__func__, "%s: %d threads", f->name.c_str(), threads);
    const size_t by_memory = (228 << 10) / (shared + 1024);
    *blocks = (int)std::min(by_memory, (size_t)std::min(32, 1024 / threads));
    return SUCCESS;
}

Status cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty,
                      unsigned tz, unsigned shared, void* handle, void** parameters, void** extra) {
    ENTER();
    const Function* f = gpu().known<Function>(__func__, FUNCTION, function);
    Stream* stream = stream_of(__func__, handle);
    const char* name = f->name.c_str();
    if (x == 0 || x > 0x7fffffff || y != 1 || z != 1) refuse(__func__, "%s: a grid of %u x %u x %u blocks", name, x, y, z);
    if (threads == 0 || threads > 1024 || ty != 1 || tz != 1)
        refuse(__func__, "%s: a block of %u x %u x %u threads", name, threads, ty, tz);
    if ((int)threads > f->most_threads)
        refuse(__func__, "%s: %u threads, compiled for %d", name, threads, f->most_threads);
    if (threads % 32) refuse(__func__, "%s: %u threads are not whole warps", name, threads);
    if (shared > SHARED) refuse(__func__, "%s: %u bytes of shared memory", name, shared);
    if (!parameters || !parameters[0] || extra) refuse(__func__, "%s: no parameters", name);
    if ((size_t)parameters[0] % f->alignment) refuse(__func__, "%s: parameters are not aligned", name);
    Launch launch{const_cast<Function*>(f), (int)x, (int)threads, shared, {}};
    launch.parameters.assign((const char*)parameters[0], (const char*)parameters[0] + f->size);
    gpu().arguments(__func__, launch);
    if (stream->capture) {
        ++f->module->pending;
        stream->capture->launches.push_back(std::move(launch));
    } else {
        gpu().ask(stream, gpu().work_of(__func__, launch));
    }
    return SUCCESS;
}

// ---- graphs

Status cuStreamBeginCapture_v2(void* handle, int mode) {
    ENTER();
    Stream* stream = plain_stream(__func__, handle);
    if (mode < 0 || mode > 2) refuse(__func__, "mode %d", mode);
    stream->capture = gpu().add(new Graph(GRAPH));
    stream->mode = mode;
    stream->capturer = &this_thread;
    return SUCCESS;
}

Status cuStreamEndCapture(void* handle, void** graph) {
    ENTER();
    Stream* stream = stream_of(__func__, handle);
    if (!stream->capture) refuse(__func__, "the stream is not being captured");
    if (stream->mode != 2 && stream->capturer != &this_thread) refuse(__func__, "another thread began the capture");
    *graph = stream->capture;
    stream->capture = nullptr;
    return SUCCESS;
}

Status cuGraphInstantiateWithFlags(void** executable, void* handle, unsigned long long flags) {
    ENTER();
    if (flags) refuse(__func__, "flags must be 0");
    const Graph* graph = gpu().known<Graph>(__func__, GRAPH, handle);
    Graph* made = gpu().add(new Graph(EXECUTABLE));
    made->launches = graph->launches;
    for (const Launch& l : made->launches) ++l.function->module->pending;
    *executable = made;
    return SUCCESS;
}

// Behind what the stream was asked for, and behind the last launch of the same graph.
Status cuGraphLaunch(void* handle, void* on) {
    ENTER();
    Graph* graph = gpu().known<Graph>(__func__, EXECUTABLE, handle);
    Stream* stream = plain_stream(__func__, on);
    if (graph->last) {
        Work work{};
        work.type = Work::WAIT;
        work.marker = graph->last;
        gpu().ask(stream, std::move(work));
    }
    for (const Launch& l : graph->launches) {
        if (!l.function->alive) refuse(__func__, "the module of %s was unloaded", l.function->name.c_str());
        gpu().ask(stream, gpu().work_of(__func__, l));
    }
    graph->last = mark(stream);
    ++gpu().graph_launches;
    return SUCCESS;
}

// Launches under way hold what they need: the documentation allows it.
static void destroy(const char* call, Kind kind, void* handle) {
    Graph* graph = gpu().known<Graph>(call, kind, handle);
    graph->alive = false;
    for (const Launch& l : graph->launches) --l.function->module->pending;
}

Status cuGraphExecDestroy(void* handle) {
    ENTER();
    destroy(__func__, EXECUTABLE, handle);
    return SUCCESS;
}

Status cuGraphDestroy(void* handle) {
    ENTER();
    destroy(__func__, GRAPH, handle);
    return SUCCESS;
}

} // extern "C"
