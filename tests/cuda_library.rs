//! The device library, and the shim that runs it: kernels written by hand.

#[path = "cuda_shim/mod.rs"]
mod shim;

use dnet::back::cuda::device::{Buffer, Device, DeviceError, Launch};
use dnet::back::cuda::emit::Kernel;
use dnet::back::cuda::translation_unit;
use dnet::rng::{ChainRng, Stream};
use dnet::run::network::Precision;
use num_complex::Complex64;
use shim::{Order, ShimDevice};
use std::sync::Arc;

/// Runs a kernel `test` on one block: results, all of its inputs given.
fn run(
    body: &str,
    order: Order,
    threads: usize,
    inputs: &[f64],
    outputs: usize,
) -> Result<Vec<f64>, DeviceError> {
    let device: Arc<dyn Device> = Arc::new(ShimDevice::new(order, 1, 1 << 20));
    let text = format!(
        "namespace dnet {{\nextern \"C\" __global__ void test(const Launch a) {{\n\
         const int thread = threadIdx.x, threads = {threads}, lane = thread % 32;\n\
         {body}\n}}\n}}\n"
    );
    let unit = translation_unit(Precision::F64, std::iter::once(text.as_str()));
    let module = device.load(&unit)?;
    let bytes: Vec<u8> = inputs.iter().flat_map(|x| x.to_ne_bytes()).collect();
    let given = Buffer::holding(&device, &bytes)?;
    let results = Buffer::new(&device, 8 * outputs)?;
    let workspace = Buffer::new(&device, 8 * 4096)?;
    let kernel = Kernel {
        name: "test".to_owned(),
        text,
        threads,
        shared: 8 * 64,
        workspace: 4096,
        blocks: vec![],
        constants: 0,
        constants64: 0,
        spins: 0,
        inputs: inputs.len(),
        outputs,
        site_outputs: 0,
    };
    let launch = Launch {
        samples: 1,
        inputs: given.span(),
        outputs: results.span(),
        workspace: workspace.span(),
        ..Launch::default()
    };
    module.launch(&kernel, 1, &launch)?;
    results.numbers(outputs)
}

#[test]
fn random_numbers_are_those_of_the_cpu() {
    let body = "if (thread == 0) {
        Philox p = random_stream(0x123456789abcdefull, 7, (5ull << 32) + 3, 1);
        for (int k = 0; k < 50; ++k) a.outputs[k] = random_uniform(p);
        for (int k = 50; k < 100; ++k) a.outputs[k] = random_below(p, 3000000000u - k);
        a.outputs[100] = random_below(p, 0);
    }";
    let got = run(body, Order::Forward, 32, &[], 101).expect("runs");
    let mut rng = ChainRng::new(0x0123_4567_89ab_cdef, 7, (5 << 32) + 3, Stream::Sweep);
    for g in &got[..50] {
        assert_eq!(*g, rng.uniform());
    }
    for (k, g) in got[50..100].iter().enumerate() {
        assert_eq!(*g, f64::from(rng.below(3_000_000_000 - (50 + k as u32))));
    }
    assert_eq!(got[100], 0.0);
}

#[test]
fn transforms_of_every_radix() {
    for n in [2, 3, 4, 5, 7, 8, 30, 36, 49, 60, 100] {
        let radices = dnet::back::cuda::sizes::radices(n);
        let x: Vec<Complex64> = (0..2 * n)
            .map(|k| Complex64::new((k as f64 * 1.7).sin(), (k as f64 * 0.9).cos()))
            .collect();
        let roots = (0..n).map(|k| Complex64::cis(-std::f64::consts::TAU * k as f64 / n as f64));
        let numbers: Vec<f64> = x
            .iter()
            .copied()
            .chain(roots)
            .flat_map(|z| [z.re, z.im])
            .collect();
        for sign in [-1, 1] {
            let mut body = format!(
                "const auto work = view<complex>(own_workspace(a, 4096), 0, {0});
                const auto other = view<complex>(own_workspace(a, 4096), 1024, {0});
                const auto roots = view<const complex>(a.inputs, {1}, {n});
                for (int k = thread; k < {0}; k += threads)
                    work[k] = make_complex(a.inputs[2 * k], a.inputs[2 * k + 1]);\n",
                2 * n,
                4 * n
            );
            let (mut from, mut to, mut done) = ("work", "other", 1);
            for r in &radices {
                body += &format!(
                    "__syncthreads();
                    fourier_stage<{r}, {n}, {done}, 1, 1, {n}, {sign}>(thread, threads, 2, {from}, {to}, 0, roots);\n"
                );
                (from, to) = (to, from);
                done *= r;
            }
            body += &format!(
                "__syncthreads();
                for (int k = thread; k < {}; k += threads) {{
                    a.outputs[2 * k] = {from}[k].re;
                    a.outputs[2 * k + 1] = {from}[k].im;
                }}",
                2 * n
            );
            let got = run(&body, Order::Random(1), 32, &numbers, 4 * n).expect("runs");
            for grid in 0..2 {
                for q in 0..n {
                    let angle = f64::from(sign) * std::f64::consts::TAU / n as f64;
                    let want: Complex64 = (0..n)
                        .map(|k| x[grid * n + k] * Complex64::cis(angle * (k * q % n) as f64))
                        .sum();
                    let at = 2 * (grid * n + q);
                    let z = Complex64::new(got[at], got[at + 1]);
                    assert!(
                        (z - want).norm() < 1e-12 * n as f64,
                        "{n} {sign} {q}: {z} not {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn sums_over_warps() {
    let body = "a.outputs[thread] = warp_sum(thread + 1.0);";
    let got = run(body, Order::Backward, 64, &[], 64).expect("runs");
    let want = |k: usize| if k < 32 { 528.0 } else { 528.0 + 32.0 * 32.0 };
    got.iter()
        .enumerate()
        .for_each(|(k, g)| assert_eq!(*g, want(k)));
}

#[test]
fn many_sums_over_warps_at_once() {
    for n in [1, 2, 4, 8, 16, 32] {
        let body = format!(
            "Sums<{n}> v = {{}};
            for (int k = 0; k < {n}; ++k) v[k] = a.inputs[thread * 32 + k];
            a.outputs[thread] = warp_sums(v, lane);"
        );
        let x: Vec<f64> = (0..64 * 32).map(|k| (k as f64 * 0.7).sin()).collect();
        let got = run(&body, Order::Random(2), 64, &x, 64).expect("runs");
        for (thread, g) in got.iter().enumerate() {
            let (warp, sum) = (thread / 32, thread % 32 / (32 / n));
            let want: f64 = (0..32).map(|l| x[(warp * 32 + l) * 32 + sum]).sum();
            assert!((g - want).abs() < 1e-13, "{n} sums, thread {thread}");
        }
    }
}

#[test]
fn the_shim_refuses_what_a_gpu_may_not_survive() {
    let fails = |body: &str| {
        let e = run(body, Order::Forward, 64, &[1.0], 64).expect_err("an error");
        e.to_string()
    };
    let text = fails("if (thread < 10) __syncthreads();");
    assert!(
        text.contains("10 of 64 threads wait at a barrier"),
        "{text}"
    );
    let text = fails("if (thread < 10) __syncthreads(); else __syncthreads();");
    assert!(text.contains("different barriers"), "{text}");
    let text = fails("a.outputs[thread + 1] = 0;");
    assert!(text.contains("element 64 of 64"), "{text}");
    let text = fails("a.outputs[0] = a.inputs[thread - 1];");
    assert!(text.contains("element -1 of 1"), "{text}");
    let text = fails("view<double>(shared_memory(), 32, 64);");
    assert!(text.contains("a view of 512 bytes into 512"), "{text}");
    let text = fails("if (lane < 16) a.outputs[0] = warp_sum(1.0);");
    assert!(text.contains("threads wait at a barrier"), "{text}");
    let text = fails("view<double>(view<float>(shared_memory(), 0, 64), 1, 2)[0] = 0;");
    assert!(text.contains("no multiple of 8, but 4 more"), "{text}");
}
