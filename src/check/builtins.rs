//! Names the language itself defines.

use super::core::Unary;

/// Elementwise primitives of one argument.
pub fn unary(name: &str) -> Option<Unary> {
    Some(match name {
        "exp" => Unary::Exp,
        "log" => Unary::Log,
        "log1p" => Unary::Log1p,
        "sqrt" => Unary::Sqrt,
        "sin" => Unary::Sin,
        "cos" => Unary::Cos,
        "tanh" => Unary::Tanh,
        "log_cosh" => Unary::LogCosh,
        "abs" => Unary::Abs,
        "sign" => Unary::Sign,
        "erf" => Unary::Erf,
        "floor" => Unary::Floor,
        "re" => Unary::Re,
        "im" => Unary::Im,
        "conj" => Unary::Conj,
        _ => return None,
    })
}

/// Whether a complex argument is meaningful.
pub fn complex_allowed(f: Unary) -> bool {
    use Unary::*;
    matches!(f, Neg | Exp | Log | Tanh | LogCosh | Abs | Re | Im | Conj)
}

/// Functions usable in networks, functions and mixers besides [`unary`] ones.
pub const FUNCTIONS: &[&str] = &[
    "max",
    "min",
    "atan2",
    "mod",
    "einsum",
    "reshape",
    "slice",
    "split",
    "concat",
    "dim",
    "rank",
    "is_complex",
    "div",
    "window",
    "patch",
    "sum",
    "gather",
    "sites",
    "extent",
    "index",
    "displacement",
    "momentum",
    "pair_index",
    "scan",
    "convolve",
    "modes",
    "mix",
    "row_sum",
    "fail",
];

/// Names of values.
pub const VALUES: &[&str] = &["spins", "pi", "N"];

/// Functions usable in initialisers only.
pub const INIT_FUNCTIONS: &[&str] = &[
    "axis",
    "data_mean",
    "data_std",
    "hippo_lambda_re",
    "hippo_lambda_im",
    "hippo_p_re",
    "hippo_p_im",
    "hippo_b_re",
    "hippo_b_im",
];

/// Values usable in initialisers only.
pub const INIT_VALUES: &[&str] = &["random_normal", "random_uniform", "fan_in", "fan_out"];

/// Names usable in operators only.
pub const OPERATOR_NAMES: &[&str] = &[
    "X", "Y", "Z", "dist", "parity", "x", "y", "shift", "periodic", "sum", "bonds",
];

/// Functions an item may not redefine.
pub fn is_reserved_function(name: &str) -> bool {
    unary(name).is_some()
        || FUNCTIONS.contains(&name)
        || VALUES.contains(&name)
        || INIT_FUNCTIONS.contains(&name)
        || INIT_VALUES.contains(&name)
        || name == "log_psi"
}
