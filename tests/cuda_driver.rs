//! `dnetc --backend cuda` as a user runs it, with stand-ins for NVIDIA's driver and
//! runtime compiler: the same numbers as with `--backend cpu`, and a sentence for
//! everything that can go wrong.

#[path = "cuda_driver/rules.rs"]
mod rules;
#[path = "cuda_driver/mod.rs"]
mod standin;
#[path = "workplace/mod.rs"]
mod workplace;

use serde_json::Value;
use standin::Gpu;
use workplace::{contains_all, stderr};

const DYSONNET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/dysonnet.dnet");
const RBM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rbm.dnet");

/// The published network, as small as it gets with two mixers, on 12 spins.
const SMALL: [&str; 10] = [
    "-D", "depth=2", "-D", "dim=2", "-D", "states=2", "-D", "kernel=2", "--sites", "12",
];

fn joined<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

/// All numbers in a tree, by their place, but for those of times.
fn numbers(tree: &Value, place: &str, out: &mut Vec<(String, f64)>) {
    match tree {
        Value::Number(n) => out.push((place.to_owned(), n.as_f64().expect("a number"))),
        Value::Array(all) => {
            for (k, v) in all.iter().enumerate() {
                numbers(v, &format!("{place}/{k}"), out);
            }
        }
        Value::Object(all) => {
            for (k, v) in all.iter().filter(|(k, _)| !k.contains("seconds")) {
                numbers(v, &format!("{place}/{k}"), out);
            }
        }
        _ => {}
    }
}

/// That two trees hold the same numbers, up to a part of their size (at least 1).
fn agree(got: &Value, want: &Value, tolerance: f64) {
    let [mut g, mut w] = [Vec::new(), Vec::new()];
    numbers(got, "", &mut g);
    numbers(want, "", &mut w);
    assert!(w.len() > 3 && g.len() == w.len(), "{got}\n{want}");
    for ((place, g), (_, w)) in g.iter().zip(&w) {
        let distance = (g - w).abs() / w.abs().max(1.0);
        assert!(distance <= tolerance, "{place}: {g} in place of {w}");
    }
}

/// `count` configurations of 12 spins as an array file.
fn configurations(gpu: &Gpu, count: usize) -> String {
    let mut head = format!("{{'descr': '|i1', 'fortran_order': False, 'shape': ({count}, 12), }}");
    head.extend(std::iter::repeat_n(' ', 63 - (10 + head.len()) % 64));
    head.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((head.len() as u16).to_le_bytes());
    bytes.extend(head.bytes());
    bytes.extend((0..12 * count).map(|k| if k * k % 7 < 3 { 1 } else { 255 }));
    let path = gpu.here.path("configurations.npy");
    std::fs::write(&path, bytes).expect("written");
    path.display().to_string()
}

fn eval<'a>(configurations: &'a str, backend: &'a str) -> Vec<&'a str> {
    let how = [
        "eval",
        DYSONNET,
        "--configs",
        configurations,
        "--flips",
        "all",
    ];
    joined(&[&how, &SMALL, &["--precision", "f64", "--backend", backend]])
}

#[test]
fn doctor_names_what_there_is_and_takes_nothing() {
    let gpu = Gpu::new().with("DNET_STANDIN_GPUS", 2);
    let text = gpu.succeeds(&["doctor"]);
    let line = "GPU: stand-in for an H200 (sm_90)\n";
    assert_eq!(text.matches(line).count(), 2, "{text}");
    contains_all(
        &text,
        &[
            "NVIDIA driver: CUDA 12.9",
            "CUDA compiler: 12.9",
            "sm_90, sm_100",
        ],
    );
    assert_eq!(gpu.counts("contexts"), 0, "it only asks");
    // kernels of a GPU that this compiler does not know come as PTX
    for (architecture, form) in [(90, ""), (103, " as PTX")] {
        let gpu = Gpu::new().with("DNET_STANDIN_ARCHITECTURE", architecture);
        let text = gpu.succeeds(&["doctor", "--time", RBM, "--sites", "8"]);
        contains_all(&text, &["log_psi: kept, loaded", "sums: kept, loaded"]);
        let compiled = std::fs::read_to_string(gpu.here.path("compiled")).expect("compiled");
        let known = if form.is_empty() { 90 } else { 100 };
        let target = format!("{known}{form} ");
        assert!(
            compiled.lines().all(|l| l.starts_with(&target)),
            "{compiled}"
        );
        assert!(gpu.counts("modules_loaded") >= 9 && gpu.counts("modules") == 0);
    }
}

#[test]
fn eval_and_verify_agree() {
    let gpu = Gpu::new();
    let configurations = configurations(&gpu, 5);
    let parse = |text: String| -> Value {
        text.split_whitespace()
            .map(|x| x.parse::<f64>().expect("a number"))
            .collect()
    };
    let [got, want] = ["cuda", "cpu"].map(|b| parse(gpu.succeeds(&eval(&configurations, b))));
    agree(&got, &want, 1e-12);
    for precision in ["f32", "f64"] {
        let on = [
            "--sites",
            "6",
            "--boundary",
            "periodic",
            "--backend",
            "cuda",
        ];
        let text = gpu.succeeds(&joined(&[&["verify", RBM, "--precision", precision], &on]));
        let all = ["gradient", "sums over local changes", "decisions of chains"];
        contains_all(&text, &all);
        assert!(!text.contains("FAILED"), "{text}");
    }
    assert_eq!(
        gpu.counts("modules"),
        0,
        "everything is unloaded at the end"
    );
}

/// A short training on 12 spins in the folder `output`.
fn train<'a>(backend: &'a str, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let how = ["train", DYSONNET, "--operator", "tfim", "--precision"];
    let how = joined(&[
        &how,
        &["f64", "--no-plots", "--chains", "8", "--samples", "16"],
    ]);
    joined(&[&how, &SMALL, &["--backend", backend, "-o", output], more])
}

/// Without a measurement at the end.
const UNMEASURED: [&str; 4] = ["--sampler", "metropolis", "--evaluation-samples", "0"];

/// That two runs made the same decisions and found the same energies.
fn same_run(gpu: &Gpu, output: &str, reference: &str) {
    let [got, want] = [output, reference].map(|o| gpu.json(&format!("{o}/result.json")));
    agree(&got, &want, 1e-9);
    same_log(gpu, output, reference);
}

/// As [`same_run`] without a measurement at the end.
fn same_log(gpu: &Gpu, output: &str, reference: &str) {
    let [got, want] = [output, reference].map(|o| gpu.json(&format!("{o}/log.json")));
    agree(&got, &want, 1e-9);
    assert_eq!(got["Acceptance"], want["Acceptance"]);
}

/// That two runs have the same bits.
fn same_bits(gpu: &Gpu, output: &str, reference: &str) {
    let read = |o: &str| std::fs::read(gpu.here.path(&format!("{o}/params.safetensors")));
    assert_eq!(
        read(output).expect("there"),
        read(reference).expect("there")
    );
    let [got, want] = [output, reference].map(|o| gpu.json(&format!("{o}/log.json")));
    assert_eq!(got, want);
}

#[test]
fn training_agrees_with_every_sampler_in_every_order() {
    let mut gpu = Gpu::new();
    for sampler in ["metropolis", "sweep", "typewriter"] {
        let more = ["--sampler", sampler, "--iterations", "2"];
        let more = joined(&[&more, &["--evaluation-samples", "8"]]);
        gpu.set("DNET_STANDIN_ORDER", 0);
        gpu.succeeds(&train("cpu", &format!("{sampler}-cpu"), &more));
        gpu.succeeds(&train("cuda", sampler, &more));
        same_run(&gpu, sampler, &format!("{sampler}-cpu"));
        assert!(
            gpu.counts("graph_launches") > 0,
            "equations are solved by a graph"
        );
        for what in ["modules", "graphs", "executables"] {
            assert_eq!(gpu.counts(what), 0, "{what} at the end");
        }
        // of uploads, on three streams: they are used again and again
        assert!(gpu.counts("events") <= 3 * 64, "events at the end");
        // streams, and threads of a block, in another order
        let most = gpu.counts("most_memory");
        gpu.set("DNET_STANDIN_ORDER", 1);
        let output = format!("{sampler}-other");
        gpu.succeeds(&train("cuda", &output, &more));
        same_bits(&gpu, &output, sampler);
        // and too little memory for everything at once
        gpu.set("DNET_STANDIN_ORDER", 7);
        gpu.set("DNET_STANDIN_MEMORY", most * 3 / 5);
        let output = format!("{sampler}-small");
        gpu.succeeds(&train("cuda", &output, &more));
        same_run(&gpu, &output, &format!("{sampler}-cpu"));
        assert!(gpu.counts("most_memory") < most);
        let pieces = gpu.counts("waits") > 0;
        assert!(pieces || sampler == "sweep", "one stream waits for another");
        gpu.set("DNET_STANDIN_MEMORY", 64 << 20);
    }
}

#[test]
fn every_move_and_optimiser_agrees_and_goes_on_after_a_failure() {
    let mut gpu = Gpu::new();
    let spin = ["--operator", "heisenberg"];
    let cases: [(&str, &[&str]); 7] = [
        ("exchange", &["--magnetization", "0", "--optimiser", "sr"]),
        ("exchange", &["--optimiser", "min-sr"]),
        ("metropolis", &["--optimiser", "adam", "--rate", "0.01"]),
        ("metropolis", &["--optimiser", "sr", "--sweeps", "2"]),
        ("sweep", &["--optimiser", "sr"]),
        ("typewriter", &["--optimiser", "sr"]),
        ("typewriter", &["--bound", "rigorous"]),
    ];
    for (k, (sampler, more)) in cases.into_iter().enumerate() {
        let operator = if sampler == "exchange" {
            &spin[..]
        } else {
            &[]
        };
        let how = ["--sampler", sampler, "--iterations", "3"];
        let often = ["--evaluation-samples", "0", "--checkpoint-every", "1"];
        let more = joined(&[&how, &often, operator, more]);
        let [cpu, whole, failed] = ["cpu", "whole", "failed"].map(|what| format!("{what}-{k}"));
        gpu.succeeds(&train("cpu", &cpu, &more));
        gpu.succeeds(&train("cuda", &whole, &more));
        same_log(&gpu, &whole, &cpu);
        // after the burn-in, which the host makes with rigorous bounds
        let late = gpu.counts("launches") * 9 / 10;
        gpu.set("DNET_STANDIN_FAULTS", format!("kernel:{late}:700"));
        let text = gpu.fails(&train("cuda", &failed, &more));
        contains_all(&text, &["CUDA error 700", "--resume"]);
        gpu.set("DNET_STANDIN_FAULTS", "");
        gpu.succeeds(&["train", "--resume", &failed, "--no-plots"]);
        same_bits(&gpu, &failed, &whole);
    }
}

#[test]
fn squares_and_complex_networks_agree() {
    let gpu = Gpu::new();
    let square = ["dim=2", "depth=1", "terms=1", "kernel=2", "hidden=2"];
    let complex = ["dim=2", "depth=1", "states=2", "kernel=2"];
    type Case<'a> = (&'a str, &'a [&'a str], &'a str, &'a str, &'a [&'a str]);
    let cases: [Case; 3] = [
        (
            "dysonnet2d",
            &square,
            "4,4",
            "square_heisenberg",
            &["--magnetization", "0"],
        ),
        (
            "complex_readout",
            &complex,
            "8",
            "tfim",
            &["--sampler", "sweep"],
        ),
        (
            "complex_readout",
            &complex,
            "8",
            "j1j2",
            &["--magnetization", "2", "--optimiser", "sr"],
        ),
    ];
    for (k, (network, hyper, sites, operator, more)) in cases.into_iter().enumerate() {
        let file = format!("{}/examples/{network}.dnet", env!("CARGO_MANIFEST_DIR"));
        let hyper: Vec<&str> = hyper.iter().flat_map(|&h| ["-D", h]).collect();
        let [cpu, cuda] = ["cpu", "cuda"].map(|backend| {
            let output = format!("{backend}-{k}");
            let how = [
                "train",
                &file,
                "--operator",
                operator,
                "--sites",
                sites,
                "-o",
                &output,
            ];
            let few = [
                "--chains",
                "4",
                "--samples",
                "8",
                "--iterations",
                "2",
                "--no-plots",
            ];
            let on = [
                "--precision",
                "f64",
                "--backend",
                backend,
                "--evaluation-samples",
                "0",
            ];
            gpu.succeeds(&joined(&[&how, &few, &on, &hyper, more]));
            output
        });
        same_log(&gpu, &cuda, &cpu);
        assert!(gpu.counts("launches") > 0);
    }
}

#[test]
fn memory_does_not_grow_with_iterations() {
    let gpu = Gpu::new();
    let used = [2, 5].map(|n| {
        let (output, n) = (format!("run-{n}"), n.to_string());
        let more = joined(&[&UNMEASURED, &["--iterations", &n]]);
        gpu.succeeds(&train("cuda", &output, &more));
        (gpu.counts("memory"), gpu.counts("allocations"))
    });
    assert_eq!(used[0], used[1]);
}

#[test]
fn observables_agree() {
    let gpu = Gpu::new();
    let init = ["init", DYSONNET, "-o", "p.safetensors"];
    gpu.succeeds(&joined(&[&init, &SMALL]));
    let operators = [
        "xxz",
        "cluster",
        "rydberg",
        "magnetisation",
        "transverse_magnetisation",
    ];
    let operators: Vec<&str> = operators.iter().flat_map(|&o| ["--operator", o]).collect();
    let cases: [(&str, &[&str]); 4] = [
        ("tfim", &["--chains", "8", "--samples", "32", "--inversion"]),
        ("j1j2", &["--chains", "4", "--samples", "32", "--sz", "1"]),
        // a diagonal only, a sample only
        ("magnetisation", &["--chains", "2", "--samples", "8"]),
        ("tfim", &["--chains", "1", "--samples", "1"]),
    ];
    for (hamiltonian, more) in cases {
        let [got, want] = ["cuda", "cpu"].map(|backend| {
            let how = [
                "observe",
                "p.safetensors",
                "--hamiltonian",
                hamiltonian,
                "--json",
            ];
            let on = ["--burn-in", "2", "--precision", "f64", "--backend", backend];
            let text = gpu.succeeds(&joined(&[&how, &on, more, &operators]));
            serde_json::from_str::<Value>(&text).expect("JSON")
        });
        agree(&got, &want, 1e-9);
        // that of the CPU leaves none
        assert!(gpu.counts("launches") > 0);
    }
    let many = ["observe", "p.safetensors", "--chains", "4000000000"];
    let text = gpu.fails(&joined(&[
        &many,
        &["--backend", "cuda", "--samples", "4000000000"],
    ]));
    contains_all(&text, &["do not fit in memory", "fewer"]);
}

#[test]
fn interrupted_and_failed_runs_go_on_with_the_same_bits() {
    let mut gpu = Gpu::new();
    let often = ["--iterations", "10", "--checkpoint-every", "1"];
    let more = joined(&[&UNMEASURED, &often]);
    gpu.succeeds(&train("cuda", "whole", &more));
    // Ctrl-C
    let args = train("cuda", "stopped", &more);
    let mut child = gpu
        .command(&args)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("dnetc runs");
    let mut lines = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.starts_with("1/10") {
        line.clear();
        let read = std::io::BufRead::read_line(&mut lines, &mut line).expect("text");
        assert!(read > 0, "it ended early");
    }
    let id = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(sent.expect("sent").success());
    std::io::Read::read_to_string(&mut lines, &mut line).expect("text");
    assert_eq!(child.wait().expect("ended").code(), Some(130), "{line}");
    gpu.succeeds(&["train", "--resume", "stopped", "--no-plots"]);
    same_bits(&gpu, "stopped", "whole");
    // a kernel that fails in the middle: in sampling, in equations
    for kernel in [30, 41] {
        let output = format!("failed-{kernel}");
        gpu.set("DNET_STANDIN_FAULTS", format!("kernel:{kernel}:700"));
        let text = gpu.fails(&train("cuda", &output, &more));
        contains_all(
            &text,
            &[
                "an illegal memory access was encountered (CUDA error 700)",
                "--resume",
            ],
        );
        gpu.set("DNET_STANDIN_FAULTS", "");
        gpu.succeeds(&["train", "--resume", &output, "--no-plots"]);
        same_bits(&gpu, &output, "whole");
    }
    // launches that cannot be recorded are made one by one
    gpu.set("DNET_STANDIN_FAULTS", "cuStreamBeginCapture_v2:1+:900");
    let output = gpu.dnetc(&train("cuda", "unrecorded", &more));
    assert!(output.status.success() && stderr(&output).contains("one by one"));
    assert_eq!(gpu.counts("graph_launches"), 0);
    same_bits(&gpu, "unrecorded", "whole");
}

#[test]
fn kernels_are_kept() {
    let mut gpu = Gpu::new();
    let configurations = configurations(&gpu, 2);
    let run = |gpu: &Gpu| gpu.succeeds(&eval(&configurations, "cuda"));
    let first = run(&gpu);
    let count = gpu.compiled();
    assert!(count > 1);
    assert_eq!(run(&gpu), first);
    assert_eq!(gpu.compiled(), count, "nothing is compiled again");
    let files = || std::fs::read_dir(gpu.here.path("cache/kernels")).expect("kept");
    for file in files().flatten() {
        let bytes = std::fs::read(file.path()).expect("kept");
        std::fs::write(file.path(), &bytes[..bytes.len() / 2]).expect("written");
    }
    assert_eq!(run(&gpu), first);
    assert_eq!(gpu.compiled(), 2 * count, "halves are compiled anew");
    for file in files().flatten() {
        let mut bytes = std::fs::read(file.path()).expect("kept");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(file.path(), &bytes).expect("written");
    }
    assert_eq!(run(&gpu), first);
    assert_eq!(gpu.compiled(), 3 * count, "so is what was changed");
    // another driver, another GPU
    gpu.set("DNET_STANDIN_DRIVER", "13.0");
    assert_eq!(run(&gpu), first);
    gpu.set("DNET_STANDIN_ARCHITECTURE", 100);
    assert_eq!(run(&gpu), first);
    assert_eq!(gpu.compiled(), 5 * count);
    // where nothing can be kept, everything goes on
    let file = gpu.here.write("file", "");
    for nowhere in [file.as_str(), "/proc/nowhere"] {
        gpu.set("DNET_CACHE", nowhere);
        assert_eq!(run(&gpu), first);
    }
    assert_eq!(gpu.compiled(), 7 * count);
}

#[test]
fn a_sentence_for_every_failure() {
    let faults = "DNET_STANDIN_FAULTS";
    let cases: [(&str, &str, &str); 15] = [
        (
            "DNET_STANDIN_GPUS",
            "0",
            "no CUDA-capable device is detected",
        ),
        (
            faults,
            "cuInit:1:34",
            "CUDA driver is a stub library (CUDA error 34): the CUDA toolkit's library",
        ),
        (faults, "cuInit:1:803", "driver / cuda driver combination"),
        (
            faults,
            "cuDevicePrimaryCtxRetain:1:2",
            "opening the GPU failed: out of memory",
        ),
        (
            "DNET_STANDIN_ARCHITECTURES",
            "100,120",
            "compiles for sm_100, sm_120, not for sm_90",
        ),
        (
            "DNET_STANDIN_NVRTC",
            "13.0",
            "the compiler is that of CUDA 13.0, the driver that of CUDA 12.9",
        ),
        (
            "DNET_STANDIN_MEMORY",
            "1000",
            "out of memory (CUDA error 2); fewer",
        ),
        (
            faults,
            "cuModuleLoadData:1:200",
            "loading the kernels failed",
        ),
        (
            faults,
            "nvrtcCompileProgram:1+:6",
            "the CUDA compiler rejected",
        ),
        (
            faults,
            "nvrtcCreateProgram:1+:1",
            "it does not start (nvrtcResult 1)",
        ),
        (faults, "cuStreamCreate:2:2", "making a stream failed"),
        (
            faults,
            "kernel:1+:700",
            "an illegal memory access was encountered (CUDA error 700)",
        ),
        (
            faults,
            "cuLaunchKernel:1+:719",
            "launching log_psi failed: unspecified launch failure",
        ),
        (
            faults,
            "cuMemAlloc_v2:4+:2",
            "out of memory (CUDA error 2); fewer",
        ),
        (
            faults,
            "cuModuleGetFunction:1+:500",
            "finding the kernel failed",
        ),
    ];
    let reference = Gpu::new();
    let configurations = configurations(&reference, 2);
    let want = reference.succeeds(&eval(&configurations, "cpu"));
    for (name, value, sentence) in cases {
        let gpu = Gpu::new().with(name, value);
        let text = gpu.fails(&eval(&configurations, "cuda"));
        contains_all(&text, &[sentence, "--backend cpu"]);
        // what is known before the network runs leaves the CPU
        if !["kernel:", "cuLaunch", "cuMemAlloc", "cuModuleGet"]
            .iter()
            .any(|f| value.starts_with(f))
        {
            assert_eq!(
                gpu.succeeds(&eval(&configurations, "auto")),
                want,
                "{name}={value}"
            );
        }
    }
    let gpu = Gpu::new().without("cuGraphInstantiateWithFlags");
    let text = gpu.fails(&eval(&configurations, "cuda"));
    contains_all(
        &text,
        &[
            "the NVIDIA driver is too old",
            "cuGraphInstantiateWithFlags",
        ],
    );
    assert_eq!(gpu.succeeds(&eval(&configurations, "auto")), want);
    // also where numbers would only be missing
    let gpu = Gpu::new().with(faults, "kernel:3+:700");
    let how = [
        "verify",
        DYSONNET,
        "--backend",
        "cuda",
        "--boundary",
        "periodic",
    ];
    let text = gpu.fails(&joined(&[&how, &SMALL]));
    contains_all(&text, &["CUDA error 700", "--backend cpu"]);
    let how = ["bench", DYSONNET, "--only", "log_psi", "--backend", "cuda"];
    let text = gpu.fails(&joined(&[&how, &SMALL]));
    contains_all(&text, &["nothing was measured", "CUDA error 700"]);
    for fault in ["kernel:1+:700", "cuMemAlloc_v2:9+:2", "kernel:60+:719"] {
        let gpu = Gpu::new().with(faults, fault);
        let text = gpu.fails(&train(
            "cuda",
            "out",
            &["--sampler", "sweep", "--iterations", "3"],
        ));
        contains_all(&text, &["CUDA error"]);
        assert!(
            !gpu.here.path("out/result.json").exists(),
            "no numbers, no results"
        );
    }
}

#[test]
fn bench_measures_every_row() {
    let gpu = Gpu::new().with("DNET_STANDIN_MEMORY", 8 << 20);
    let only = "log_psi,gradient,chains,sweep,typewriter,local_energies,solve";
    let how = [
        "bench",
        DYSONNET,
        "--only",
        only,
        "--together",
        "8",
        "--json",
    ];
    let text = gpu.succeeds(&joined(&[&how, &SMALL, &["--backend", "cuda"]]));
    let rows: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    for what in only.split(',').chain(["peak"]) {
        let row = rows.iter().find(|r| r["what"] == what);
        let row = row.unwrap_or_else(|| panic!("no {what} in {text}"));
        let time = &row[if what == "peak" {
            "peak_gflops"
        } else {
            "wall_us"
        }];
        assert!(time.as_f64().is_some_and(|t| t > 0.0), "{row}");
    }
    assert!(gpu.counts("launches") > 100);
    let how = ["bench", RBM, "--sites", "6", "--backend", "cuda"];
    let text = gpu.fails(&joined(&[&how, &["--only", "log_psi,nothing"]]));
    contains_all(&text, &["nothing is called `nothing`", "log_psi, gradient"]);
    let text = gpu.fails(&["bench", RBM, "--sites", "", "--backend", "cuda"]);
    contains_all(&text, &["no number of sites"]);
    let none = gpu.dnetc(&joined(&[&how, &["--together", "0"]]));
    assert_eq!(none.status.code(), Some(2), "{}", stderr(&none));
    let text = gpu.fails(&["bench", RBM, "--sites", "3000000", "--backend", "cuda"]);
    contains_all(&text, &["more than 2^31 elements"]);
}
