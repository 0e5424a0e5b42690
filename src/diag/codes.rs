//! The stable codes, append-only.

use super::Severity;

macro_rules! codes {
    ($($code:ident $title:literal;)*) => {
        /// A rule with a stable code and an explanation page.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $title] $code,)* }
        impl Code {
            /// Every code, in order.
            pub const ALL: &[Code] = &[$(Code::$code),*];
            /// `E0301`.
            pub fn as_str(self) -> &'static str { match self { $(Code::$code => stringify!($code),)* } }
            /// What it is about, in a few words.
            pub fn title(self) -> &'static str { match self { $(Code::$code => $title,)* } }
        }
    };
}

codes! {
    E0001 "syntax error";
    E0002 "input too large or nested too deeply";
    E0003 "file or module cannot be read";
    E0101 "unknown name";
    E0102 "duplicate definition";
    E0103 "hyperparameter out of range";
    E0104 "cyclic use or recursion";
    E0105 "wrong arguments in a call";
    E0106 "name used as what it is not";
    E0201 "shape mismatch";
    E0202 "dtype mismatch";
    E0203 "bound is not static";
    E0204 "arithmetic overflow in a static expression";
    E0205 "annotation does not hold";
    E0206 "values live on different lattices";
    E0207 "invalid static value or failed assertion";
    E0301 "nonlinearity on a linear value";
    E0302 "product of two linear values";
    E0303 "gate depends on a linear value";
    E0304 "configuration-dependent norm on a linear value";
    E0305 "configuration-dependent mixing";
    E0306 "readout is not one number per configuration";
    E0307 "mixer is not linear or not of its class";
    E0401 "operator is not Hermitian";
    E0402 "malformed operator term";
    E0501 "window wider than the lattice";
    E0502 "tokens do not tile the lattice";
    E0503 "boundary not supported";
    W0402 "operator cluster not coverable by one slice";
    W0601 "unused name";
    W0602 "unused parameter";
    W0603 "dead mixer";
    W0604 "shadowed name";
}

impl Code {
    /// Warnings start with `W`.
    pub fn severity(self) -> Severity {
        if self.as_str().starts_with('W') {
            Severity::Warning
        } else {
            Severity::Error
        }
    }
    /// The code with this name.
    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL
            .iter()
            .copied()
            .find(|c| c.as_str().eq_ignore_ascii_case(text))
    }
}
