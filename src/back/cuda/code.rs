//! One program as a kernel with its constants: batches in, numbers out.

use super::constants::pack;
use super::device::{Buffer, Device, DeviceError, Launch, Module, Span, Stream};
use super::emit::{EmitError, Kernel, Options, emit};
use super::names::Name;
use crate::back::cpu::constants::{ConstantError, Constants, param_shape, tensors};
use crate::back::cpu::tables::TableProgram;
use crate::back::cpu::work::flops;
use crate::ir::{Graph, Lattice, NodeId};
use crate::kernel::lower::lower_with_sites;
use crate::kernel::{LowerError, Program};
use crate::run::network::Precision;
use rustfft::FftPlanner;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a network cannot run on a device.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// The graph uses operations without kernels, or does not fit the lattice.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// A program without device code.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// Parameters out of range for a mixer.
    #[error(transparent)]
    Constants(#[from] ConstantError),
    /// The graph has no derivative.
    #[error(transparent)]
    Compile(#[from] crate::back::cpu::compiled::CompileError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Wrong number of parameters.
    #[error("{expected} parameters expected, {found} given")]
    ParamCount {
        /// Declared.
        expected: usize,
        /// Given.
        found: usize,
    },
}

/// A program and its kernel, before there is a device.
pub struct Source {
    /// What it was lowered from.
    pub graph: Graph,
    /// The loop-level program.
    pub program: Program,
    /// Parameters that are values per configuration.
    inputs: Vec<u32>,
    /// The kernel.
    pub kernel: Kernel,
    /// What fills the tables, once needed.
    tables: Mutex<Option<TableProgram>>,
}

impl Source {
    /// Lowers a graph and emits its kernel. Parameters in `inputs` are values per
    /// configuration, nodes in `sites` further results.
    ///
    /// # Errors
    /// Operations without kernels, lattices that do not fit.
    pub fn new(
        name: &'static str,
        graph: Graph,
        lattice: Lattice,
        inputs: &[u32],
        sites: &[NodeId],
        options: &Options,
    ) -> Result<Source, CudaError> {
        let program = lower_with_sites(&graph, lattice, inputs, sites)?;
        let [x, y] = lattice.extent;
        let precision = match options.precision {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
        };
        let title = [format!(
            "{name} on {x} x {y} spins, {:?}, {precision}",
            lattice.boundary
        )];
        let kernel = emit(Name::from(name), &title, &graph, &program, inputs, options)?;
        Ok(Source {
            graph,
            program,
            inputs: inputs.to_vec(),
            kernel,
            tables: Mutex::default(),
        })
    }

    /// Parameters that are values per configuration.
    pub fn inputs(&self) -> &[u32] {
        &self.inputs
    }

    /// The constants for a parameter set, in f64: [working precision, f64].
    ///
    /// # Errors
    /// Parameters that define no network.
    pub fn constants(&self, theta: &[f64]) -> Result<[Vec<f64>; 2], CudaError> {
        let mut expected = 0;
        for (k, p) in self.graph.params.iter().enumerate() {
            if !self.inputs.contains(&(k as u32)) {
                let shape = param_shape(&self.program, &p.ty).map_err(ConstantError::from)?;
                expected += shape.iter().product::<usize>();
            }
        }
        if expected != theta.len() {
            let found = theta.len();
            return Err(CudaError::ParamCount { expected, found });
        }
        let (graph, program) = (&self.graph, &self.program);
        let params = tensors(graph, program, theta, &self.inputs).map_err(ConstantError::from)?;
        let mut planner = (FftPlanner::new(), FftPlanner::new());
        let values = Constants::<f64>::portable(graph, program, &params, &mut planner)?;
        let tables = match &program.tables {
            Some(tables) => {
                let mut known = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
                let program = match known.take() {
                    Some(program) => program,
                    None => TableProgram::new(tables, &params)?,
                };
                known.insert(program).numbers(tables, &params)?
            }
            None => Vec::new(),
        };
        let k = &self.kernel;
        let lengths = [k.constants, k.constants64];
        Ok(pack(program, &k.blocks, lengths, &values, &tables))
    }
}

/// A kernel on a device, with its constants there.
pub struct Code {
    /// Program and kernel.
    pub source: Source,
    precision: Precision,
    device: Arc<dyn Device>,
    module: Arc<dyn Module>,
    constants: [Buffer; 2],
}

/// What a run reads besides constants: memory of the device.
#[derive(Clone, Copy, Default)]
pub struct Operands {
    /// Configurations.
    pub spins: Span,
    /// Numbers per configuration.
    pub inputs: Span,
}

impl Code {
    /// Puts a kernel with its constants on a device.
    ///
    /// # Errors
    /// See [`CudaError`].
    pub fn new(
        source: Source,
        precision: Precision,
        device: &Arc<dyn Device>,
        module: &Arc<dyn Module>,
        theta: &[f64],
    ) -> Result<Code, CudaError> {
        let values = source.constants(theta)?;
        Ok(Code {
            constants: upload(device, precision, &values)?,
            source,
            precision,
            device: device.clone(),
            module: module.clone(),
        })
    }

    /// The constants of new parameters, for [`Code::install`].
    ///
    /// # Errors
    /// See [`CudaError`].
    pub fn prepare(&self, theta: &[f64]) -> Result<[Buffer; 2], CudaError> {
        let values = self.source.constants(theta)?;
        Ok(upload(&self.device, self.precision, &values)?)
    }

    /// Puts prepared constants in force.
    pub fn install(&mut self, constants: [Buffer; 2]) {
        self.constants = constants;
    }

    /// Results per configuration.
    pub fn outputs(&self) -> usize {
        self.source.kernel.outputs
    }

    /// Numbers per configuration that it reads.
    pub fn inputs(&self) -> usize {
        self.source.kernel.inputs
    }

    /// Operations of a run for one configuration, and bytes that it reads from and
    /// writes to the device's memory at least: operands, results, and every number of
    /// the blocks' memory once in both directions. Constants are shared by all.
    pub fn counts(&self) -> (f64, f64) {
        let k = &self.source.kernel;
        let bytes = self.memory(1).0 + 16 * k.workspace;
        (flops(&self.source.program), bytes as f64)
    }

    /// Bytes of results on sites per configuration.
    pub fn site_bytes(&self) -> usize {
        self.source.kernel.site_outputs * bytes(self.precision)
    }

    /// Device memory per configuration of a batch, and for the blocks.
    pub fn memory(&self, samples: usize) -> (usize, usize) {
        let k = &self.source.kernel;
        let each = k.spins + 8 * (k.inputs + k.outputs) + self.site_bytes();
        (each, 8 * k.workspace * self.blocks(samples))
    }

    fn blocks(&self, samples: usize) -> usize {
        // small blocks leave room for more of them
        let kernel = &self.source.kernel;
        let room = match kernel.workspace {
            0 => (256 / kernel.threads).max(1),
            _ => 1,
        };
        (self.device.blocks() * room).min(samples).max(1)
    }

    /// Configurations that fit the device's budget, and 32-bit indices, at once.
    pub fn at_once(&self, samples: usize) -> usize {
        self.within(self.device.budget(), samples)
    }

    /// As [`Code::at_once`] for so many bytes.
    pub fn within(&self, budget: usize, samples: usize) -> usize {
        let fit = fitting(budget, samples, self.memory(samples));
        fit.min(indexable(&self.source.kernel))
            .clamp(1, samples.max(1))
    }

    /// A launch with the constants and nothing else.
    pub fn constants(&self) -> Launch {
        Launch {
            constants: self.constants[0].span(),
            constants64: self.constants[1].span(),
            ..Launch::default()
        }
    }

    /// Runs a kernel made from the same program, which has the same constants.
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    pub fn launch(
        &self,
        module: &dyn Module,
        kernel: &Kernel,
        a: Launch,
    ) -> Result<(), DeviceError> {
        let blocks = self.blocks(a.samples);
        let workspace = Buffer::new(&self.device, 8 * kernel.workspace * blocks)?;
        let a = Launch {
            constants: self.constants[0].span(),
            constants64: self.constants[1].span(),
            workspace: workspace.span(),
            ..a
        };
        module.launch(kernel, blocks, &a)
    }

    /// Runs the kernel on `samples` configurations, on a stream, to which the results
    /// belong: those per configuration, and those on sites.
    ///
    /// # Errors
    /// Too little memory, failures of the device.
    pub fn run(
        &self,
        stream: Stream,
        samples: usize,
        operands: Operands,
    ) -> Result<[Buffer; 2], DeviceError> {
        let memory = |bytes| Buffer::on(&self.device, stream, bytes);
        let outputs = memory(8 * self.outputs() * samples)?;
        let sites = memory(self.site_bytes() * samples)?;
        let results = [outputs.span(), sites.span()];
        self.run_to(stream, samples, operands, results)?;
        Ok([outputs, sites])
    }

    /// As [`Code::run`], with results per configuration in memory that is there; for
    /// kernels without results on sites.
    ///
    /// # Errors
    /// As there.
    pub fn run_into(
        &self,
        stream: Stream,
        samples: usize,
        operands: Operands,
        outputs: Span,
    ) -> Result<(), DeviceError> {
        self.run_to(stream, samples, operands, [outputs, Span::default()])
    }

    fn run_to(
        &self,
        stream: Stream,
        samples: usize,
        operands: Operands,
        [outputs, site_outputs]: [Span; 2],
    ) -> Result<(), DeviceError> {
        let blocks = self.blocks(samples);
        let kernel = &self.source.kernel;
        let workspace = Buffer::on(&self.device, stream, 8 * kernel.workspace * blocks)?;
        let arguments = Launch {
            samples,
            sizes: [0; 4],
            spins: operands.spins,
            inputs: operands.inputs,
            constants: self.constants[0].span(),
            constants64: self.constants[1].span(),
            workspace: workspace.span(),
            outputs,
            site_outputs,
        };
        self.module.launch_on(stream, kernel, blocks, &arguments)
    }
}

/// Samples of a kernel whose operands and results 32-bit indices reach.
fn indexable(k: &Kernel) -> usize {
    let each = [k.spins, k.inputs, k.outputs, k.site_outputs];
    i32::MAX as usize / each.into_iter().max().unwrap_or(0).max(1)
}

/// Bytes of a number in working precision.
pub(super) fn bytes(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 4,
        Precision::F64 => 8,
    }
}

pub(super) fn upload(
    device: &Arc<dyn Device>,
    precision: Precision,
    [working, double]: &[Vec<f64>; 2],
) -> Result<[Buffer; 2], DeviceError> {
    let wide = |x: &[f64]| -> Vec<u8> { x.iter().flat_map(|x| x.to_ne_bytes()).collect() };
    let working = match precision {
        Precision::F32 => working
            .iter()
            .flat_map(|&x| (x as f32).to_ne_bytes())
            .collect(),
        Precision::F64 => wide(working),
    };
    Ok([
        Buffer::holding(device, &working)?,
        Buffer::holding(device, &wide(double))?,
    ])
}

/// Numbers as the device has them.
pub(super) fn bytes_of(numbers: &[u32]) -> Vec<u8> {
    let mut all = vec![0; 4 * numbers.len()];
    for (bytes, x) in all.chunks_exact_mut(4).zip(numbers) {
        bytes.copy_from_slice(&x.to_ne_bytes());
    }
    all
}

/// A batch of configurations on the device, for a stream.
pub(super) fn spins(
    device: &Arc<dyn Device>,
    stream: Stream,
    batch: &[i8],
) -> Result<Buffer, DeviceError> {
    let bytes: Vec<u8> = batch.iter().map(|&s| s as u8).collect();
    Buffer::holding_on(device, stream, &bytes)
}

/// How many of `wanted` things fit a budget at once, each of so many bytes beside
/// fixed ones: all of them, or as many as may come in pieces on all streams.
pub(super) fn fitting(budget: usize, wanted: usize, (each, fixed): (usize, usize)) -> usize {
    let fit = |streams: usize| budget.saturating_sub(streams * fixed) / (streams * each).max(1);
    match fit(1) {
        all if all >= wanted => all,
        _ => fit(Stream::COUNT),
    }
}

/// Configurations whose derivatives are taken at once: as many as fit the memory, and
/// no more than both kernels index, the second of which has so many parts of each.
pub(super) fn gradients_at_once(fit: usize, [above, below]: [usize; 2], parts: usize) -> usize {
    fit.clamp(1, above.min(below / parts).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_of_all_samples_fit_32_bits() {
        let kernel = || Kernel::by_hand("kernel");
        assert_eq!(indexable(&kernel()), i32::MAX as usize);
        for each in [1, 2, 1000, 46_341, 2_000_003, i32::MAX as usize] {
            let of = |spins, inputs, outputs, site_outputs| Kernel {
                spins,
                inputs,
                outputs,
                site_outputs,
                ..kernel()
            };
            let kernels = [of(each, 1, 0, 1), of(0, each, 1, 0), of(1, 0, each, 1)];
            for k in kernels.iter().chain([&of(1, 1, 1, each)]) {
                let samples = indexable(k);
                assert!(samples * each <= i32::MAX as usize, "{each} numbers each");
                assert!(
                    (samples + 1) * each > i32::MAX as usize,
                    "as many as possible"
                );
            }
        }
    }

    #[test]
    fn indices_of_all_derivatives_fit_32_bits() {
        for parameters in [1, 4000, 1_000_000, 1 << 29] {
            let kernel = Kernel {
                outputs: parameters,
                ..Kernel::by_hand("kernel")
            };
            for parts in [1, 2] {
                let below = indexable(&kernel);
                let at_once = gradients_at_once(usize::MAX, [usize::MAX, below], parts);
                let reached = at_once * parts * parameters;
                assert!(reached <= i32::MAX as usize, "{parameters} parameters");
                assert!(2 * reached > i32::MAX as usize / 2, "not fewer than needed");
            }
        }
        assert_eq!(gradients_at_once(7, [100, 100], 2), 7);
        assert_eq!(gradients_at_once(7, [3, 100], 2), 3);
        assert_eq!(gradients_at_once(0, [0, 0], 2), 1);
    }
}
