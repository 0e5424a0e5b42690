//! `dnetc emit`

use super::common::{
    CliError, LatticeArgs, NetworkArgs, ParamArgs, Ui, check_lattice, print, write_atomically,
};
use super::model::deliver;
use crate::back::cpu::compiled::CompileError;
use crate::back::cpu::network::CpuNetwork;
use crate::back::cpu::object as back_object;
use crate::back::cpu::simd::Real;
use crate::back::cuda::emit::Options;
use crate::back::cuda::network::NetworkSource;
use crate::back::cuda::nvrtc::{self, Architecture, Form, Nvrtc};
use crate::ir::text::text;
use crate::ir::{Graph, Lattice, lower};
use crate::kernel::lower::lower as lower_to_loops;
use crate::pipeline;
use crate::run::network::Precision;
use std::path::PathBuf;

/// Arguments of `emit`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// What to print
    #[arg(long, value_enum)]
    target: Target,
    /// Of the network graph (`--target ir`): as lowered, before any simplification
    #[arg(long)]
    unsimplified: bool,
    #[command(flatten)]
    lattice: LatticeArgs,
    #[command(flatten)]
    params: ParamArgs,
    /// Working precision of native code
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// GPU architecture for ptx and cubin
    #[arg(long, value_name = "sm_XY", default_value = "sm_90")]
    arch: Architecture,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// The network graph all derivations work on; needs no lattice
    Ir,
    /// Loops over rows, shared by all back ends
    KernelIr,
    /// Cranelift IR of the fused loops
    Clif,
    /// Disassembly of the fused loops
    Asm,
    /// Object file for this machine with the given parameters, for C: log psi,
    /// gradient, ratios
    Obj,
    /// C header of that object file
    Header,
    /// Other parameters for that object file, prepared
    Block,
    /// CUDA C++: log psi and its derivatives, with the device library
    Cuda,
    /// Virtual machine code of NVIDIA GPUs
    Ptx,
    /// Machine code of an NVIDIA GPU; registers and spills are listed
    Cubin,
}

/// The object file of a network, its header, or a block of parameters.
fn object<T: Real>(
    args: &Args,
    name: &str,
    graph: Graph,
    lattice: Lattice,
    theta: &[f64],
) -> Result<(), CliError> {
    let plain = |e: CompileError| CliError::plain(e.to_string());
    let refuse = |what: &str, file: &str| {
        Err(CliError::new(
            format!("{what} is no text to print"),
            format!("say where to write it: `-o {file}`"),
        ))
    };
    match (args.target, &args.output) {
        (Target::Obj, None) => return refuse("an object file", "net.o"),
        (Target::Block, None) => return refuse("a block of parameters", "net.block"),
        _ => {}
    }
    let made = back_object::object::<T>(&graph, lattice, theta, name).map_err(plain)?;
    match (&args.output, args.target) {
        (Some(path), Target::Obj) => write_atomically(path, &made.bytes),
        (Some(path), Target::Block) => write_atomically(path, &made.block),
        (Some(path), _) => write_atomically(path, made.header.as_bytes()),
        (None, _) => print(&made.header),
    }
}

/// Prints the graph or the code of log psi.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    let (program, info) = args.network.check(ui)?;
    if args.unsimplified && args.target != Target::Ir {
        return Err(CliError::new(
            "code is made from the simplified graph only",
            "leave out `--unsimplified`, or ask for the graph: `--target ir`",
        ));
    }
    if args.target == Target::Ir {
        let graph = if args.unsimplified {
            lower(&info).graph
        } else {
            pipeline::amplitude(&pipeline::graph(&info))
        };
        return deliver(args.output.as_deref(), &text(&graph));
    }
    let lattice = args
        .lattice
        .lattice(info.lattice)?
        .ok_or_else(|| CliError::new("code is made for one lattice", "say which: `--sites 100`"))?;
    check_lattice(&program, &info, lattice)?;
    let lowered = pipeline::graph(&info);
    let graph = pipeline::amplitude(&lowered);
    let plain = |e: &dyn std::fmt::Display| CliError::plain(e.to_string());
    if matches!(args.target, Target::Cuda | Target::Ptx | Target::Cubin) {
        return cuda(args, ui, &graph, lattice);
    }
    let text = if args.target == Target::KernelIr {
        lower_to_loops(&graph, lattice, &[])
            .map_err(|e| plain(&e))?
            .to_string()
    } else {
        let theta = args.params.load(&program, &info, &lowered, lattice)?.flat();
        if matches!(args.target, Target::Obj | Target::Header | Target::Block) {
            return match args.precision {
                Precision::F32 => object::<f32>(args, &info.name, graph, lattice, &theta),
                Precision::F64 => object::<f64>(args, &info.name, graph, lattice, &theta),
            };
        }
        let listing = match args.precision {
            Precision::F32 => CpuNetwork::<f32>::listing(graph, lattice, &theta),
            Precision::F64 => CpuNetwork::<f64>::listing(graph, lattice, &theta),
        }
        .map_err(|e| plain(&e))?;
        let parts = if args.target == Target::Clif {
            listing.clif
        } else {
            listing.asm
        };
        parts
            .iter()
            .map(|part| format!("{}\n", part.trim_end()))
            .collect::<Vec<_>>()
            .join("\n")
    };
    deliver(args.output.as_deref(), &text)
}

/// Prints the code of log psi and its derivatives for a GPU.
fn cuda(args: &Args, ui: &Ui, graph: &Graph, lattice: Lattice) -> Result<(), CliError> {
    let plain = |e: &dyn std::fmt::Display| CliError::plain(e.to_string());
    let options = Options::new(args.precision);
    let source = NetworkSource::new(graph, lattice, &options).map_err(|e| plain(&e))?;
    let text = source.text();
    let code = if args.target == Target::Cuda {
        text.into_bytes()
    } else {
        let form = match args.target {
            Target::Ptx => Form::Ptx,
            _ => Form::Cubin,
        };
        let library = Nvrtc::find().map_err(|e| plain(&e))?;
        let binary = library
            .compile(&text, args.arch, form)
            .map_err(|e| plain(&e))?;
        if !binary.resources.is_empty() {
            ui.note(nvrtc::listing(args.arch, &binary.resources).trim_end());
        }
        binary.code
    };
    match (&args.output, args.target) {
        (Some(path), _) => write_atomically(path, &code),
        (None, Target::Cubin) => Err(CliError::new(
            "machine code is not printed",
            "say where to write it: `--output log_psi.cubin`",
        )),
        (None, _) => print(String::from_utf8_lossy(&code).trim_end_matches('\0')),
    }
}
