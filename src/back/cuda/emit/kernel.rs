//! What the emitter makes, and of what kind.

use crate::back::cuda::constants::Block;
use crate::run::network::Precision;

/// What to make of a program.
#[derive(Clone, Debug)]
pub struct Options {
    /// Working precision.
    pub precision: Precision,
    /// Shared memory a block may use, in bytes.
    pub shared: usize,
}

impl Options {
    /// With what every device grants a block without being asked.
    pub fn new(precision: Precision) -> Options {
        Options {
            precision,
            shared: 48 << 10,
        }
    }
}

/// One kernel: its text and what the host must know to launch it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Its text, to follow the device library.
    pub text: String,
    /// Threads per block.
    pub threads: usize,
    /// Dynamic shared memory per block, in bytes.
    pub shared: usize,
    /// Workspace per block, in doubles.
    pub workspace: usize,
    /// What the constants hold.
    pub blocks: Vec<Block>,
    /// Numbers in working precision among the constants.
    pub constants: usize,
    /// Numbers in f64 among the constants.
    pub constants64: usize,
    /// Spins per sample; 0 if it reads none.
    pub spins: usize,
    /// Host-written numbers per sample.
    pub inputs: usize,
    /// Results per sample.
    pub outputs: usize,
    /// Results on sites per sample.
    pub site_outputs: usize,
}

impl Kernel {
    /// A kernel written by hand, as the host launches it.
    pub fn by_hand(name: &str) -> Kernel {
        Kernel {
            name: name.to_owned(),
            text: String::new(),
            threads: 256,
            shared: 0,
            workspace: 0,
            blocks: vec![],
            constants: 0,
            constants64: 0,
            spins: 0,
            inputs: 0,
            outputs: 0,
            site_outputs: 0,
        }
    }
}
