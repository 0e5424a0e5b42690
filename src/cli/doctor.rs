//! `dnetc doctor`

use super::common::{CliError, LatticeArgs, NetworkArgs, Ui, check_lattice, print};
use crate::back::cuda::cache::Key;
use crate::back::cuda::driver::Gpu;
use crate::back::cuda::emit::Options;
use crate::back::cuda::nvrtc::{Architecture, Form, Nvrtc};
use crate::back::cuda::units::{SWEEP, UNITS, sweep, units};
use crate::back::cuda::{cache, found, nvrtc};
use crate::params::initialise;
use crate::pipeline;
use crate::run::clock::processor_time;
use crate::run::network::Precision;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub struct Args {
    /// Also measure how long this file takes until its kernels are loaded
    #[arg(long, value_name = "FILE")]
    time: Option<PathBuf>,
    /// Of that file (may be left out if it has one network)
    #[arg(long, value_name = "NAME", requires = "time")]
    network: Option<String>,
    #[command(flatten)]
    lattice: LatticeArgs,
    /// Working precision
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// GPU architecture to compile for where there is no GPU
    #[arg(long, value_name = "sm_XY", default_value = "sm_90")]
    arch: Architecture,
}

/// Reports what the back ends find on this machine, and measures a file.
pub fn run(args: &Args, ui: &Ui) -> Result<(), CliError> {
    print(&report())?;
    match &args.time {
        Some(file) => times(args, file, ui),
        None => Ok(()),
    }
}

/// What something takes: elapsed time, and processor time of all threads.
#[derive(Clone, Copy, Default)]
struct Cost {
    wall: Duration,
    processor: Duration,
}

impl Cost {
    fn of<T>(work: impl FnOnce() -> T) -> (T, Cost) {
        let (start, used) = (Instant::now(), processor_time());
        let done = work();
        let cost = Cost {
            wall: start.elapsed(),
            processor: processor_time().saturating_sub(used),
        };
        (done, cost)
    }

    fn and(self, other: Cost) -> Cost {
        Cost {
            wall: self.wall + other.wall,
            processor: self.processor + other.processor,
        }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let (wall, processor) = (ms(self.wall), ms(self.processor));
        write!(
            f,
            "{wall:8.1} ms elapsed, {processor:8.1} ms of processor time"
        )
    }
}

/// How long a file takes until its kernels are loaded: compiled anew, and kept from
/// before; a line as soon as it is known. Without a GPU the last step, loading, is left
/// out.
fn times(args: &Args, file: &std::path::Path, ui: &Ui) -> Result<(), CliError> {
    let plain = |e: &dyn std::fmt::Display| CliError::plain(e.to_string());
    let network = NetworkArgs {
        file: file.to_owned(),
        network: args.network.clone(),
        define: Vec::new(),
    };
    let (read, front) = Cost::of(|| {
        let (program, info) = network.check(ui)?;
        let lattice = args.lattice.lattice(info.lattice)?.ok_or_else(|| {
            CliError::new(
                "kernels are made for one lattice",
                "say which: `--sites 100`",
            )
        })?;
        check_lattice(&program, &info, lattice)?;
        let lowered = pipeline::graph(&info);
        let graph = pipeline::amplitude(&lowered);
        Ok::<_, CliError>((info, lattice, lowered, graph))
    });
    let (info, lattice, lowered, graph) = read?;
    let (theta, initialising) = Cost::of(|| initialise(&info, &lowered, lattice, 1));
    let theta = theta.map_err(|e| plain(&e))?.flat();
    let options = Options::new(args.precision);
    let (gpu, known) = (Gpu::first().ok(), found::found().ok());
    // of the GPU that is used, if there is one
    let own = known.and_then(|all| Some(all.first()?.architecture));
    let (library, arch, form) = match gpu.is_some().then_some(own).flatten() {
        Some(arch) => {
            let library = Nvrtc::find_for(arch, found::version().unwrap_or_default());
            let library = library.map_err(|e| plain(&e))?;
            let (arch, form) = library.target(arch).map_err(|e| plain(&e))?;
            (library, arch, form)
        }
        None => (
            Nvrtc::find().map_err(|e| plain(&e))?,
            args.arch,
            Form::Cubin,
        ),
    };
    let [x, y] = lattice.extent;
    let on = gpu.as_ref().map_or(format!("{arch}, no GPU"), |g| g.name());
    let precision = args.precision;
    print(&format!(
        "\n{} on {x} x {y} spins, {precision:?}, {on}\n",
        info.name
    ))?;
    let line = |what: &str, cost: Cost| print(&format!("{what:<40}{cost}\n"));
    line("the file, to its graph", front)?;
    line("initial parameters", initialising)?;
    for &(unit_name, _) in UNITS.iter().chain(&SWEEP) {
        // a network without flip program, or without environments, has no such kernels
        let (made, emitting) = Cost::of(|| match SWEEP.iter().any(|u| u.0 == unit_name) {
            true => Ok(sweep(&graph, lattice, &theta, &options).unwrap_or_default()),
            false => units(&graph, lattice, &options, Some(unit_name)).map(|made| made.0),
        });
        let made = made.map_err(|e| plain(&e))?;
        let Some(unit) = made.iter().find(|u| u.name == unit_name) else {
            continue;
        };
        let unit_text = unit.translation_unit();
        let (binary, compiling) = Cost::of(|| library.compile(&unit_text, arch, form));
        let code = binary.map_err(|e| plain(&e))?.code;
        let key = || Key::new(&unit_text, arch, &nvrtc::installed());
        key().write(&code);
        let (what, loading) = match &gpu {
            Some(gpu) => {
                // the first time it may be compiled for this GPU
                gpu.load(&unit_text).map_err(|e| plain(&e))?;
                let (loaded, cost) = Cost::of(|| gpu.load(&unit_text));
                loaded.map_err(|e| plain(&e))?;
                ("kept, loaded", cost)
            }
            None => match Cost::of(|| key().read()) {
                (Some(_), cost) => ("kept, read", cost),
                (None, cost) => ("not kept", cost),
            },
        };
        line(&format!("{unit_name}: text"), emitting)?;
        line(&format!("{unit_name}: compiled"), compiling)?;
        line(&format!("{unit_name}: {what}"), loading)?;
        if unit_name == UNITS[0].0 {
            let [compiled, kept] = [compiling, loading].map(|c| front.and(emitting).and(c));
            line("from the file to log psi, compiled", compiled)?;
            line("from the file to log psi, kept", kept)?;
        }
    }
    Ok(())
}

fn report() -> String {
    let mut lines = vec![
        format!("dnetc {}", env!("CARGO_PKG_VERSION")),
        format!("CPU: {} threads, ready", rayon::current_num_threads()),
    ];
    match (found::version(), found::found()) {
        (Ok((major, minor)), Ok(gpus)) => {
            lines.push(format!("NVIDIA driver: CUDA {major}.{minor}"));
            if gpus.is_empty() {
                lines.push("GPU: none".to_owned());
            }
            lines.extend(gpus.into_iter().map(|g| format!("GPU: {g}")));
        }
        (Err(e), _) | (_, Err(e)) => {
            lines.push(format!("GPU: {e}"));
            lines.push("  to use a GPU, install NVIDIA's driver for it".to_owned());
        }
    }
    match Nvrtc::find() {
        Ok(library) => {
            let (major, minor) = library.version();
            let list: Vec<String> = library
                .architectures()
                .iter()
                .map(ToString::to_string)
                .collect();
            lines.push(format!(
                "CUDA compiler: {major}.{minor}, {}",
                library.path().display()
            ));
            lines.push(format!("  compiles for {}", list.join(", ")));
        }
        Err(e) => lines.push(format!("CUDA compiler: {e}")),
    }
    match cache::directory() {
        Some(d) => lines.push(format!("compiled kernels are kept in {}", d.display())),
        None => lines.push("compiled kernels are not kept: no home folder".to_owned()),
    }
    lines.join("\n") + "\n"
}
