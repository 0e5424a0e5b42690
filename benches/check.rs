//! Time to check a file of 10,000 lines, and each example.
//!
//! `cargo bench --bench check`

use dnet::check::Program;
use dnet::run::clock::processor_time;
use std::path::Path;

/// Median processor time of seven runs, in milliseconds.
fn median_ms(mut f: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..7)
        .map(|_| {
            let start = processor_time();
            f();
            (processor_time() - start).as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[3]
}

fn main() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let read = |name: &str| std::fs::read_to_string(examples.join(name)).expect("an example");
    let text = read("dysonnet.dnet");
    let (head, network) = text.split_at(text.find("/// Two streams").expect("its doc comment"));
    let mut long = head.to_owned();
    let mut count = 0;
    while long.lines().count() < 10_000 {
        long += &network.replace("network dysonnet(", &format!("network dysonnet{count}("));
        count += 1;
    }
    let lines = long.lines().count();
    let ms = median_ms(|| assert!(Program::parse("long.dnet", &long).check().is_empty()));
    println!("{lines} lines, {count} networks: {ms:.0} ms");
    for name in ["dysonnet.dnet", "deep.dnet", "vit.dnet", "operators.dnet"] {
        let text = read(name);
        let ms = median_ms(|| assert!(Program::parse(name, &text).check().is_empty()));
        println!("{name}: {ms:.1} ms");
    }
}
