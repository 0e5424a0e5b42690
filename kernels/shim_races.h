// What a race detector (tests/cuda_shim/races.cpp) is told of a launch: the memory of a
// block, the arrays, and how to end it. Comes before kernels/shim.h.

struct dnet_races_array {
    const char* name;
    const void* first;
    unsigned long bytes;
};
struct dnet_races_ground {
    const char *stacks, *shared;
    unsigned long threads, stack, shared_bytes;
    dnet_races_array arrays[7];
    void (*fail)(const char*);
};

