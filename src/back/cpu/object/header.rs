//! The C header of an object file.

use super::super::compiled::Compiled;
use super::super::math::Precision;
use super::super::simd::Real;
use crate::ir::Boundary;
use crate::kernel::Program;

/// What a C program needs to know; `workspace` bytes are the arena's.
pub(super) fn header<T: Real>(
    network: &Compiled<T>,
    program: &Program,
    name: &str,
    workspace: usize,
) -> String {
    let [x, y] = program.lattice.extent;
    let boundary = match program.lattice.boundary {
        Boundary::Periodic => "periodic",
        Boundary::Open => "open",
    };
    let precision = match T::PRECISION {
        Precision::F32 => "32 bit",
        Precision::F64 => "64 bit",
    };
    let parts = if network.outputs() > 1 {
        "real part, imaginary part"
    } else {
        "real"
    };
    let (guard, sites) = (name.to_uppercase(), program.lattice.sites());
    let bytes = workspace + sites.next_multiple_of(64);
    format!(
        "/* log psi of the network `{network}` with fixed parameters.\n\
         \n   {x} x {y} spins, {boundary} boundary, {precision}; code for the processor it was made on.\
         \n   Link with the mathematics library (-lm). Functions keep no state: threads may\
         \n   call them at the same time, each with a workspace of its own. */\n\
         #ifndef {guard}_H\n#define {guard}_H\n\n#include <stddef.h>\n#include <stdint.h>\n\n\
         #ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n\
         /* Spins of a configuration; numbers per log psi ({parts}); bytes of a workspace. */\n\
         #define {guard}_SITES {sites}\n\
         #define {guard}_OUTPUTS {outputs}\n\
         #define {guard}_WORKSPACE_BYTES {bytes}\n\n\
         /* The same, of the object that was linked. */\n\
         size_t {name}_sites(void);\nsize_t {name}_outputs(void);\nsize_t {name}_workspace_bytes(void);\n\n\
         /* log psi of `count` configurations, one after the other: `spins` holds +1 or -1,\
         \n   sites in row-major order, `out` takes {outputs} number(s) each. `workspace` is aligned\
         \n   to 64 bytes; its contents do not matter. Returns 0. */\n\
         int32_t {name}_log_psi(const int8_t *spins, size_t count, double *out, void *workspace);\n\n\
         /* log psi(s') - log psi(s), s' being s with `count` distinct sites flipped. Returns 0. */\n\
         int32_t {name}_log_ratio(const int8_t *spins, const size_t *flips, size_t count,\
         \n    double *out, void *workspace);\n\n\
         #ifdef __cplusplus\n}}\n#endif\n\n#endif\n",
        network = name.trim_start_matches("dnet_"),
        outputs = program.outputs.len(),
    )
}
