// Follows kernels/shim_launch.h in what the stand-in for the runtime compiler makes: what
// the stand-in for the driver must know of a "cubin" before it runs a kernel of it.
//
// The line before this one has defined `standin::Launch`, the device library's struct as a
// GPU sees it, pointers of eight bytes and nothing else.

// Size and alignment of the parameters of every kernel.
extern "C" const unsigned long dnet_parameters_size = sizeof(standin::Launch);
extern "C" const unsigned long dnet_parameters_alignment = alignof(standin::Launch);

static_assert(sizeof(standin::Launch) <= 4096, "parameters of a kernel may take 4 kB");

// Parameters as the host wrote them: `a` gets the addresses, and how many bytes each
// element has in place of lengths.
extern "C" void dnet_parameters(const void* parameters, shim::Arguments* a) {
    const standin::Launch& launch = *(const standin::Launch*)parameters;
    a->samples = launch.samples;
    for (int k = 0; k < 4; ++k) a->sizes[k] = launch.sizes[k];
    a->spins = {(void*)launch.spins, 1};
    a->inputs = {(void*)launch.inputs, 8};
    a->constants = {(void*)launch.constants, sizeof(real)};
    a->constants64 = {(void*)launch.constants64, 8};
    a->workspace = {(void*)launch.workspace, 8};
    a->outputs = {(void*)launch.outputs, 8};
    a->site_outputs = {(void*)launch.site_outputs, sizeof(real)};
}
