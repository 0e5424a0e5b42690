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
use crate::back::cuda::nvrtc::{Architecture, Binary, Form, Nvrtc, NvrtcError};
use crate::back::cuda::units::{self, Unit};
use crate::ir::text::text;
use crate::ir::{Graph, Lattice, lower};
use crate::kernel::lower::lower as lower_to_loops;
use crate::pipeline;
use crate::run::network::Precision;
use rayon::prelude::*;
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
    /// Of the code for GPUs: only this kernel, complete
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// GPU architecture for ptx and cubin
    #[arg(long, value_name = "sm_XY", default_value = "sm_90")]
    arch: Architecture,
    /// Write to a file instead of standard output; machine code of several kernels to
    /// a folder
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
    /// CUDA C++: all kernels of the network, with the device library
    Cuda,
    /// Virtual machine code of NVIDIA GPUs, with registers, spills and shared memory
    Ptx,
    /// Machine code of an NVIDIA GPU; without `--output` only what it takes is listed
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
        let theta = args.params.load(&program, &info, &lowered, lattice)?.flat();
        return cuda(args, ui, &graph, lattice, &theta);
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

/// The code for a GPU. Parameters are no part of it, but decide whether there is a sweep
/// by environments.
fn cuda(
    args: &Args,
    ui: &Ui,
    graph: &Graph,
    lattice: Lattice,
    theta: &[f64],
) -> Result<(), CliError> {
    let only = match &args.kernel {
        Some(name) => Some(units::unit_of(name).ok_or_else(|| {
            let known = units::UNITS
                .iter()
                .chain(&units::SWEEP)
                .chain([&units::LINEAR])
                .map(|u| u.0);
            CliError::new(
                format!("no kernel `{name}`"),
                format!("one of {}", known.collect::<Vec<_>>().join(", ")),
            )
        })?),
        None => None,
    };
    let options = Options::new(args.precision);
    let (mut all, missing) =
        units::units(graph, lattice, &options, only).map_err(|e| CliError::plain(e.to_string()))?;
    if let Some(reason) = missing {
        if let Some(name) = only {
            return Err(CliError::plain(format!("there is no `{name}`: {reason}")));
        }
        ui.note(&format!(
            "no flip program, and so no kernels of it: {reason}"
        ));
    }
    let sweeps = |only| units::SWEEP.iter().any(|u| u.0 == only);
    if only.is_none_or(sweeps) {
        match units::sweep(graph, lattice, theta, &options) {
            Ok(units) => {
                let wanted = |u: &Unit| only.is_none_or(|only| only == u.name);
                all.extend(units.into_iter().filter(wanted));
                if let (Some(name), true) = (only, all.is_empty()) {
                    let why = "sweeps of this lattice have no cut";
                    return Err(CliError::plain(format!("there is no `{name}`: {why}")));
                }
            }
            Err(reason) if only.is_some() => {
                return Err(CliError::plain(format!("there is no `sweep`: {reason}")));
            }
            Err(reason) => ui.note(&format!("no kernel of exact sweeps: {reason}")),
        }
    }
    if args.target == Target::Cuda {
        let text = match (only, all.as_slice()) {
            (Some(_), [unit]) => unit.translation_unit(),
            _ => units::listing(&all),
        };
        return deliver(args.output.as_deref(), &text);
    }
    let library = Nvrtc::find().map_err(|e| CliError::plain(e.to_string()))?;
    let compile = |u: &Unit| {
        let text = u.translation_unit();
        let cubin = library.compile(&text, args.arch, Form::Cubin)?;
        let takes = takes(u, args.arch, &cubin);
        let code = match args.target {
            Target::Ptx => library.compile(&text, args.arch, Form::Ptx)?.code,
            _ => cubin.code,
        };
        Ok::<_, NvrtcError>((takes, code))
    };
    let done: Result<Vec<_>, NvrtcError> = all.par_iter().map(compile).collect();
    let done = done.map_err(|e| CliError::plain(e.to_string()))?;
    if args.target == Target::Ptx {
        let one = |(takes, code): &(String, Vec<u8>)| {
            let remarks: String = takes.lines().map(|l| format!("// {l}\n")).collect();
            let code = String::from_utf8_lossy(code);
            format!("{remarks}{}", code.trim_end_matches('\0'))
        };
        let text: Vec<String> = done.iter().map(one).collect();
        return deliver(args.output.as_deref(), &text.join("\n"));
    }
    let listing: String = done.iter().map(|(takes, _)| takes.as_str()).collect();
    match (&args.output, only) {
        (None, _) => return print(&listing),
        (Some(path), Some(_)) => {
            for (_, code) in &done {
                write_atomically(path, code)?;
            }
        }
        (Some(folder), None) => {
            std::fs::create_dir_all(folder).map_err(|e| CliError::io("make", folder, &e))?;
            for (unit, (_, code)) in all.iter().zip(&done) {
                write_atomically(&folder.join(format!("{}.cubin", unit.name)), code)?;
            }
        }
    }
    ui.note(listing.trim_end());
    Ok(())
}

/// What the kernels of a unit take, one line each.
fn takes(unit: &Unit, architecture: Architecture, binary: &Binary) -> String {
    let of = |name: &str| binary.resources.iter().find(|r| r.kernel == name);
    let lines = unit.kernels.iter().filter_map(|k| {
        let r = of(&k.name)?;
        Some(format!(
            "{:<19} {architecture:<6} {:>3} threads, {:>3} registers, {} bytes spilled, {} bytes of stack, {} bytes of shared memory\n",
            k.name,
            k.threads,
            r.registers,
            r.spills,
            r.stack,
            k.shared + r.shared,
        ))
    });
    lines.collect()
}
