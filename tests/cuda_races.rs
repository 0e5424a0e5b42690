//! The race detector behind the shim, `cuda_shim/races.cpp`: kernels that race, each
//! beside one that does not, and random accesses against a comparison of all pairs.
//!
//! All other tests behind the shim run their kernels under it.

#[path = "cuda_shim/mod.rs"]
mod shim;

use dnet::back::cuda::device::{Buffer, Device, DeviceError, Launch, Module};
use dnet::back::cuda::emit::Kernel;
use dnet::back::cuda::translation_unit;
use dnet::rng::{ChainRng, Stream};
use dnet::run::network::Precision;
use shim::{Order, ShimDevice};
use std::fmt::Write as _;
use std::sync::Arc;

const THREADS: usize = 64;
const BLOCKS: usize = 2;

/// What a kernel lacks, how the detector says so, and the rest of it.
struct Pair {
    wrong: &'static str,
    right: &'static str,
    says: &'static str,
    body: &'static str,
}

const PAIRS: [Pair; 16] = [
    Pair {
        wrong: "",
        right: "__syncthreads();",
        says: "since the last barrier",
        body: "shared[thread] = 0;
            __syncthreads();
            shared[thread] = thread;
            HERE
            a.outputs[block * threads + thread] = shared[(thread + 1) % threads];",
    },
    // a barrier before, none behind
    Pair {
        wrong: "",
        right: "__syncthreads();",
        says: "since the last barrier",
        body: "shared[thread] = thread;
            __syncthreads();
            const double own = shared[63 - thread];
            HERE
            shared[thread] = own;",
    },
    // a shuffle is no barrier
    Pair {
        wrong: "",
        right: "__syncthreads();",
        says: "wrote since the last barrier",
        body: "shared[thread] = thread;
            HERE
            a.outputs[block * threads + thread] = warp_sum(1.0) + shared[thread ^ 1];",
    },
    // the same number, but twice
    Pair {
        wrong: "thread % 32 == 0",
        right: "thread == 32",
        says: "writes byte 0 of shared memory",
        body: "if (HERE) shared[0] = 1;",
    },
    // bytes beside each other
    Pair {
        wrong: "(thread < 8 ? thread : 8)",
        right: "thread",
        says: "writes byte 8 of shared memory",
        body: "view<signed char>(shared_memory(), 0, 64)[HERE] = 1;",
    },
    // a half of what another thread reads
    Pair {
        wrong: "",
        right: "__syncthreads();",
        says: "since the last barrier",
        body: "shared[thread] = 0;
            __syncthreads();
            view<float>(shared_memory(), 0, 64)[thread] = 1;
            HERE
            if (thread % 2 == 0) a.outputs[block * threads + thread] = shared[thread / 2];",
    },
    Pair {
        wrong: "thread",
        right: "block * threads + thread",
        says: "in the same launch",
        body: "a.outputs[HERE] = thread;",
    },
    // what another block wrote, and, in the next one, what it read; no barrier helps
    Pair {
        wrong: "63 - thread",
        right: "block * threads + 63 - thread",
        says: "of block 1 reads byte",
        body: "a.outputs[block * threads + thread] = thread;
            __syncthreads();
            a.workspace[block * threads + thread] = a.constants64[HERE];",
    },
    Pair {
        wrong: "thread",
        right: "thread + threads",
        says: "of block 1 writes byte",
        body: "a.outputs[block * threads + thread] = a.workspace[HERE];
            __syncthreads();
            if (block == 1) a.workspace[thread] = 2;",
    },
    Pair {
        wrong: "true",
        right: "block == 0",
        says: "atomically changes byte 0 of `workspace`",
        body: "if (block == 0 && thread == 0) a.workspace[0] = 1;
            __syncthreads();
            if (HERE) atomicAdd(&a.workspace[0], 1.0);",
    },
    Pair {
        wrong: "",
        right: "__syncthreads();",
        says: "since the last barrier",
        body: "if (block == 0) atomicAdd(&a.workspace[0], 1.0);
            HERE
            if (block == 0 && thread == 33) a.outputs[0] = a.workspace[0];",
    },
    Pair {
        wrong: "5",
        right: "4",
        says: "unwritten: thread 40 of block 0 reads byte 40 of shared memory",
        body: "if (thread != 5) shared[thread] = 0;
            __syncthreads();
            if (thread == 40) a.outputs[block] = shared[HERE];",
    },
    // shared memory is that of one block
    Pair {
        wrong: "block == 0",
        right: "true",
        says: "unwritten: thread 0 of block 1",
        body: "if (HERE) shared[thread] = 0;
            if (thread == 0) a.outputs[block] = shared[0];",
    },
    Pair {
        wrong: "2 + block",
        right: "block",
        says: "unwritten: thread 9 of block 0 reads byte 16 of `constants64`",
        body: "if (thread == 3) a.outputs[block] = 1;
            __syncthreads();
            if (thread == 9) a.workspace[block] = a.constants64[HERE];",
    },
    Pair {
        wrong: "1",
        right: "0",
        says: "no multiple of 16, but 8 more",
        body: "if (thread == 0) view<Two>(a.workspace + (2 * block + HERE), 0, 1)[0].x = 1;",
    },
    Pair {
        wrong: "7",
        right: "60",
        says: "stack: thread 60 of block 0 writes the stack of thread 7",
        body: "double own = 1;
            const auto address = view<double*>(shared_memory(), 0, 1);
            if (thread == HERE) address[0] = &own;
            __syncthreads();
            if (thread == 60) *address[0] = 2;
            __syncthreads();",
    },
];

/// Accesses by the numbers of `inputs`, six of each: its block, thread, number of
/// barriers before, kind, size, and byte of `workspace`; all of them in their order.
const SCRIPT: &str = "for (int barriers = 0; barriers < 3; ++barriers) {
        for (int k = 0; k < a.samples; ++k) {
            const auto own = a.inputs + 6 * k;
            if (own[0] != block || own[1] != thread || own[2] != barriers) continue;
            const int kind = (int)own[3], size = (int)own[4], at = (int)own[5];
            double x = 0;
            if (size == 1) x = access(view<signed char>(a.workspace, 0, 1024), at, kind);
            if (size == 4) x = access(view<float>(a.workspace, 0, 256), at / 4, kind);
            if (size == 8) x = access(a.workspace, at / 8, kind);
            a.outputs[block * threads + thread] = x;
        }
        __syncthreads();
    }";

const LIBRARY: &str = "struct alignas(16) Two { double x, y; };
    template <class T> double access(Global<T> memory, int at, int kind) {
        if (kind == 0) return memory[at];
        if (kind == 1) memory[at] = T(1);
        else atomicAdd(&memory[at], T(1));
        return 0;
    }";

/// All kernels, loaded: `wrong_k` and `right_k` of the pairs, `script`.
struct Kernels {
    device: Arc<dyn Device>,
    module: Box<dyn Module>,
}

impl Kernels {
    fn new(order: Order) -> Kernels {
        Kernels::on(ShimDevice::new(order, BLOCKS, 1 << 20).reporting())
    }

    fn on(device: ShimDevice) -> Kernels {
        let device: Arc<dyn Device> = Arc::new(device);
        let mut text = format!("namespace dnet {{\n{LIBRARY}\n");
        let mut add = |name: &str, body: &str| {
            writeln!(
                text,
                "extern \"C\" __global__ void {name}(const Launch a) {{
                const int thread = threadIdx.x, block = blockIdx.x, threads = {THREADS};
                const auto shared = view<double>(shared_memory(), 0, threads);
                {body}\n}}"
            )
            .expect("writes");
        };
        for (k, pair) in PAIRS.iter().enumerate() {
            add(
                &format!("wrong_{k}"),
                &pair.body.replace("HERE", pair.wrong),
            );
            add(
                &format!("right_{k}"),
                &pair.body.replace("HERE", pair.right),
            );
        }
        add("script", SCRIPT);
        text += "}\n";
        let unit = translation_unit(Precision::F64, std::iter::once(text.as_str()));
        let module = device.load(&unit).expect("compiles");
        Kernels { device, module }
    }

    /// On two blocks of 64 threads: a workspace of 128 numbers that were written, and
    /// outputs as many that were not, which are `constants64` as well.
    fn run(&self, name: &str, samples: usize, inputs: &[f64]) -> Result<(), DeviceError> {
        let kernel = Kernel {
            name: name.to_owned(),
            text: String::new(),
            threads: THREADS,
            shared: 8 * THREADS,
            workspace: 128,
            blocks: vec![],
            constants: 0,
            constants64: 0,
            spins: 0,
            inputs: inputs.len(),
            outputs: 128,
            site_outputs: 0,
        };
        let bytes = |x: &[f64]| -> Vec<u8> { x.iter().flat_map(|x| x.to_ne_bytes()).collect() };
        let given = Buffer::holding(&self.device, &bytes(inputs))?;
        let workspace = Buffer::holding(&self.device, &bytes(&[0.0; 128]))?;
        let results = Buffer::new(&self.device, 8 * 128)?;
        let launch = Launch {
            samples,
            inputs: given.span(),
            constants64: results.span(),
            workspace: workspace.span(),
            outputs: results.span(),
            ..Launch::default()
        };
        self.module.launch(&kernel, BLOCKS, &launch)
    }
}

#[test]
fn a_kernel_that_races_is_reported_and_one_that_does_not_is_not() {
    for order in [Order::Forward, Order::Backward, Order::Random(3)] {
        let kernels = Kernels::new(order);
        for (k, pair) in PAIRS.iter().enumerate() {
            let wrong = kernels.run(&format!("wrong_{k}"), 1, &[]);
            let text = wrong.expect_err(pair.body).to_string();
            assert!(text.contains(pair.says), "{}: {text}", pair.body);
            let right = kernels.run(&format!("right_{k}"), 1, &[]);
            right.unwrap_or_else(|e| panic!("{e}: {}", pair.body));
        }
    }
}

#[test]
fn a_panic_names_lines() {
    let kernels = Kernels::on(ShimDevice::new(Order::Forward, BLOCKS, 1 << 20));
    let run = || kernels.run("wrong_2", 1, &[]);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    let text = panic.expect_err("a panic").downcast::<String>();
    let text = text.expect("a text");
    let lines = [
        "(wrong_2, line ",
        "warp_sum(1.0) + shared[thread ^ 1];), which thread 1 of block 0 wrote",
        ": shared[thread] = thread;)",
    ];
    let found = lines.map(|line| text.find(line).unwrap_or_else(|| panic!("{line}: {text}")));
    assert!(found.is_sorted(), "{text}");
}

/// An access of the script.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Access {
    block: u32,
    thread: u32,
    barriers: u32,
    kind: u32,
    size: u32,
    at: u32,
}

impl Access {
    fn random(rng: &mut ChainRng) -> Access {
        let size = [1, 4, 8][rng.below(3) as usize];
        Access {
            block: u32::from(rng.below(4) == 0),
            thread: [0, 1, 33][rng.below(3) as usize],
            barriers: rng.below(3),
            kind: rng.below(3),
            size,
            at: rng.below(24) / size * size,
        }
    }

    /// Whether two accesses need an order and have none.
    fn races(&self, other: &Access) -> bool {
        let overlap = self.at < other.at + other.size && other.at < self.at + self.size;
        let atomic = self.kind == 2 && other.kind == 2;
        let ordered = self.block == other.block
            && (self.thread == other.thread || self.barriers != other.barriers);
        overlap && !atomic && !ordered && (self.kind > 0 || other.kind > 0)
    }
}

#[test]
fn random_accesses_race_where_two_of_them_do() {
    let kernels = [Order::Forward, Order::Backward, Order::Random(1)].map(Kernels::new);
    let mut rng = ChainRng::new(11, 0, 0, Stream::Init);
    let mut found = [0; 2];
    for k in 0..600 {
        let count = 2 + rng.below(9) as usize;
        let script: Vec<Access> = (0..count).map(|_| Access::random(&mut rng)).collect();
        let numbers = |a: &Access| {
            let all = [a.block, a.thread, a.barriers, a.kind, a.size, a.at];
            all.map(f64::from)
        };
        let inputs: Vec<f64> = script.iter().flat_map(numbers).collect();
        let got = kernels[k % 3].run("script", count, &inputs);
        let race = |a: &Access| script.iter().any(|b| a.races(b));
        let want = script.iter().any(race);
        found[usize::from(want)] += 1;
        match got {
            Ok(()) => assert!(!want, "unseen: {script:#?}"),
            Err(e) => assert!(want && e.to_string().contains("race: "), "{e}: {script:#?}"),
        }
    }
    assert!(found.iter().all(|&n| n > 100), "{found:?}");
}
