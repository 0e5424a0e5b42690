//! The C header of an object file.

use super::super::math::Precision;
use super::ABI;
use super::entry::{Entry, Sizes, WRONG_BLOCK, WRONG_SITE};
use crate::ir::{Boundary, Lattice};

/// What a C program needs to know; `without` says why there is no gradient.
pub(super) fn header(
    entry: &Entry,
    sizes: &Sizes,
    lattice: Lattice,
    precision: Precision,
    without: Option<&str>,
) -> String {
    let name = entry.name;
    let network = name.trim_start_matches("dnet_");
    let [x, y] = lattice.extent;
    let boundary = match lattice.boundary {
        Boundary::Periodic => "periodic",
        Boundary::Open => "open",
    };
    let precision = match precision {
        Precision::F32 => "32 bit",
        Precision::F64 => "64 bit",
    };
    let outputs = entry.log_psi.width;
    let parts = if outputs > 1 {
        "real part, imaginary part"
    } else {
        "real"
    };
    let (guard, sites) = (name.to_uppercase(), entry.sites);
    let gradient = match without {
        None => format!(
            "/* d log psi / d theta of `count` configurations: {guard}_PARAM_COUNT numbers each in\n\
             \x20  `re` and, of a network with an imaginary part, in `im` (else it may be NULL);\n\
             \x20  parameters in the order of their declaration, tensors row by row. */\n\
             int32_t {name}_gradient(const int8_t *spins, size_t count, const void *block, double *re,\n\
             \x20   double *im, void *workspace);\n\n"
        ),
        Some(why) => format!("/* No gradient: {why}. */\n\n"),
    };
    let single = match &entry.flips {
        Ok(_) => "   Single flips take a time independent of the number of sites, others a full\n   evaluation each.".to_owned(),
        Err(why) => format!("   Every ratio takes a full evaluation, because of {why}."),
    };
    format!(
        "/* log psi of the network `{network}`, its gradient, and ratios of local changes.\n\
         \n   {x} x {y} spins, {boundary} boundary, {precision}; code for the processor it was made on.\
         \n   Link with the mathematics library (-lm). Functions keep no state: threads may\
         \n   call them at the same time, each with memory of its own. Memory is aligned to 64\
         \n   bytes; its contents do not matter.\
         \n   Spins are +1 or -1, sites in row-major order. A `block` holds parameters, as\
         \n   `dnetc emit --target block` writes them; NULL: those the object was made with.\
         \n   Functions return 0, or one of the errors below, having written nothing. */\n\
         #ifndef {guard}_H\n#define {guard}_H\n\n#include <stddef.h>\n#include <stdint.h>\n\n\
         #ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n\
         /* The block belongs to another network, lattice, precision or version. */\n\
         #define {guard}_WRONG_BLOCK {WRONG_BLOCK}\n\
         /* A site that does not exist, or the same site twice. */\n\
         #define {guard}_WRONG_SITE {WRONG_SITE}\n\n\
         /* Version of these functions. */\n\
         #define {guard}_ABI {ABI}\n\
         /* Spins of a configuration; numbers per log psi ({parts}); parameters. */\n\
         #define {guard}_SITES {sites}\n\
         #define {guard}_OUTPUTS {outputs}\n\
         #define {guard}_PARAM_COUNT {params}\n\
         /* Bytes of memory: for evaluations, of a background, of a block of parameters. */\n\
         #define {guard}_WORKSPACE_BYTES {workspace}\n\
         #define {guard}_BACKGROUND_BYTES {background}\n\
         #define {guard}_BLOCK_BYTES {block}\n\n\
         /* The same, of the object that was linked: compare the version before use. */\n\
         size_t {name}_abi(void);\nsize_t {name}_sites(void);\nsize_t {name}_outputs(void);\n\
         size_t {name}_param_count(void);\nsize_t {name}_workspace_bytes(void);\n\
         size_t {name}_background_bytes(void);\nsize_t {name}_block_bytes(void);\n\n\
         /* log psi of `count` configurations, one after the other; `out` takes\
         \n   {outputs} number(s) each. */\n\
         int32_t {name}_log_psi(const int8_t *spins, size_t count, const void *block, double *out,\
         \n    void *workspace);\n\n\
         {gradient}\
         /* Prepares ratios of one configuration, whose log psi it writes; keeps a pointer to\
         \n   the block. */\n\
         int32_t {name}_background(const int8_t *spins, const void *block, double *out, void *background);\n\n\
         /* log psi(s') - log psi(s), s being the configuration of the background and s' the same\
         \n   with `count` distinct sites flipped.\n{single} */\n\
         int32_t {name}_log_ratio(const size_t *flips, size_t count, double *out, void *background);\n\n\
         #ifdef __cplusplus\n}}\n#endif\n\n#endif\n",
        params = entry.params,
        workspace = sizes.workspace,
        background = sizes.background,
        block = sizes.block,
    )
}
