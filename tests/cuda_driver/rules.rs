//! That the stand-in for the driver forbids what it says it forbids: every rule is broken
//! once, by this test in a process of its own.

use super::standin::{folder, nvrtc, objects};
use super::workplace::stderr;
use dnet::back::cuda::nvrtc::{Architecture, Form, Nvrtc};
use dnet::back::cuda::translation_unit;
use dnet::run::network::Precision;
use libloading::Library;
use std::process::Command;

/// Names the rule to break.
const RULE: &str = "DNET_STANDIN_RULE";

/// Doubles `samples` numbers.
const KERNEL: &str = "
extern \"C\" __global__ void __launch_bounds__(32, 2) twice(const __grid_constant__ dnet::Launch a) {
    for (int k = threadIdx.x; k < a.samples; k += 32) a.outputs[k] *= 2;
}";

/// The library, called with words: numbers and pointers are passed alike.
struct Driver(Library);

impl Driver {
    /// With a context in this thread.
    fn new() -> Driver {
        // SAFETY: the stand-in may be loaded at any time.
        let library = unsafe { Library::new(folder().join("libcuda.so")) };
        let d = Driver(library.expect("the stand-in"));
        d.call("cuInit", &[0]);
        let context = d.made("cuDevicePrimaryCtxRetain", &[0]);
        d.call("cuCtxSetCurrent", &[context]);
        d
    }

    fn call(&self, name: &str, a: &[usize]) {
        type W = usize;
        macro_rules! with {
            ($($w:ident),*) => {{
                let f = self.0.get::<unsafe extern "C" fn($($w),*) -> i32>(name);
                f.expect("a function")
            }};
        }
        // SAFETY: functions of the driver's API, with as many words as they take.
        let status = unsafe {
            match *a {
                [a] => with!(W)(a),
                [a, b] => with!(W, W)(a, b),
                [a, b, c] => with!(W, W, W)(a, b, c),
                [a, b, c, d] => with!(W, W, W, W)(a, b, c, d),
                [a, b, c, d, e, f, g, h, i, j, k] => {
                    with!(W, W, W, W, W, W, W, W, W, W, W)(a, b, c, d, e, f, g, h, i, j, k)
                }
                _ => panic!("{} words", a.len()),
            }
        };
        assert_eq!(status, 0, "{name}");
    }

    /// What a function writes where its first argument points.
    fn made(&self, name: &str, rest: &[usize]) -> usize {
        let mut made = 0;
        let to = (&raw mut made) as usize;
        self.call(name, &[&[to], rest].concat());
        made
    }

    fn kernel(&self) -> usize {
        let nvrtc = Nvrtc::open(&nvrtc()).expect("the stand-in");
        let text = translation_unit(Precision::F64, std::iter::once(KERNEL));
        let code = nvrtc.compile(&text, Architecture(90), Form::Cubin);
        let code = code.expect("compiles").code;
        let module = self.made("cuModuleLoadData", &[code.as_ptr() as usize]);
        self.made("cuModuleGetFunction", &[module, c"twice".as_ptr() as usize])
    }

    /// Launches the kernel on so many numbers at an address.
    fn launch(
        &self,
        stream: usize,
        (blocks, threads, shared): (usize, usize, usize),
        at: u64,
        samples: u64,
    ) {
        // `struct Launch` of the device library
        let parameters = [samples, 0, 0, 0, 0, 0, 0, 0, at, 0];
        let list = [parameters.as_ptr()];
        let list = list.as_ptr() as usize;
        let function = self.kernel();
        let shape = [blocks, 1, 1, threads, 1, 1, shared];
        self.call(
            "cuLaunchKernel",
            &[&[function], &shape[..], &[stream, list, 0]].concat(),
        );
    }
}

/// Rules, and what is said where they are broken.
const RULES: [(&str, &str); 17] = [
    ("none", ""),
    ("late", "not what it was when the copy was asked for"),
    ("thread", "no context is current in this thread"),
    ("handle", "is no stream"),
    ("kind", "a stream in place of a event"),
    ("twice", "freed before?"),
    ("pending", "work that was not waited for uses the memory"),
    ("outside", "is outside all memory in use"),
    ("too long", "are more than the memory there has"),
    ("grid", "a grid of 0 x 1 x 1 blocks"),
    ("threads", "64 threads, compiled for 32"),
    ("shared", "49160 bytes of shared memory"),
    ("element", "element 32 of 32"),
    ("pointer", "a pointer 0x10 outside all memory in use"),
    ("not waited", "a copy to the host was not waited for"),
    ("capture", "the stream is being captured"),
    ("never", "the event was never recorded"),
];

#[test]
fn every_rule_is_kept() {
    folder();
    for (rule, sentence) in RULES {
        let own = std::env::current_exe().expect("this test");
        let output = Command::new(own)
            .args([
                "--exact",
                "rules::break_a_rule",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(RULE, rule)
            .env("DNET_STANDIN_OBJECTS", objects())
            .output()
            .expect("runs");
        let text = stderr(&output);
        assert_eq!(output.status.success(), rule == "none", "{rule}: {text}");
        assert!(text.contains(sentence), "{rule}: {text}");
    }
}

/// Does nothing unless a rule is named.
#[test]
fn break_a_rule() {
    let Ok(rule) = std::env::var(RULE) else {
        return;
    };
    let d = Driver::new();
    let stream = d.made("cuStreamCreate", &[1]);
    let memory = d.made("cuMemAlloc_v2", &[256]);
    let numbers = [1.5f64; 32];
    let mut found = [0f64; 32];
    let (from, to) = (numbers.as_ptr() as usize, found.as_mut_ptr() as usize);
    let upload =
        |at: usize, bytes: usize| d.call("cuMemcpyHtoDAsync_v2", &[at, from, bytes, stream]);
    let download = || d.call("cuMemcpyDtoHAsync_v2", &[to, memory, 256, stream]);
    let wait = || d.call("cuStreamSynchronize", &[stream]);
    let launch = |shape, at: usize, count| d.launch(stream, shape, at as u64, count);
    let event = d.made("cuEventCreate", &[2]);
    match rule.as_str() {
        "none" => {
            upload(memory, 256);
            launch((3, 32, 64), memory, 32);
            download();
            assert!(
                found.iter().all(|x| x.is_nan()),
                "not copied before somebody waits"
            );
            wait();
            assert_eq!(found, [12.0; 32], "three blocks, each twice");
            d.call("cuMemFree_v2", &[memory]);
        }
        "late" => {
            let mut numbers = vec![1.5f64; 32];
            let from = numbers.as_ptr() as usize;
            d.call("cuMemcpyHtoDAsync_v2", &[memory, from, 256, stream]);
            numbers.fill(0.0);
            download();
            wait();
            let text = "not what it was when the copy was asked for";
            assert_eq!(found, [1.5; 32], "{text}");
        }
        "thread" => std::thread::scope(|s| {
            s.spawn(wait);
        }),
        "handle" => d.call("cuStreamSynchronize", &[memory]),
        "kind" => d.call("cuEventRecord", &[stream, stream]),
        "twice" => (0..2).for_each(|_| d.call("cuMemFree_v2", &[memory])),
        "pending" => {
            upload(memory, 256);
            d.call("cuMemFree_v2", &[memory]);
        }
        "outside" => upload(memory - 8, 8),
        "too long" => upload(memory + 8, 256),
        "grid" => launch((0, 32, 0), memory, 32),
        "threads" => launch((1, 64, 0), memory, 32),
        "shared" => launch((1, 32, 49160), memory, 32),
        "element" => {
            launch((1, 32, 0), memory, 33);
            wait();
        }
        "pointer" => launch((1, 32, 0), 16, 32),
        "not waited" => download(),
        "capture" => {
            d.call("cuStreamBeginCapture_v2", &[stream, 2]);
            wait();
        }
        "never" => d.call("cuStreamWaitEvent", &[stream, event, 0]),
        other => panic!("no rule {other}"),
    }
}
